"""How long the commands take that look at every trial of a sweep, at 100, 1,000 and 10,000 trials.

Run: `python -m perf.scale [--trials N ...] [--keep FOLDER]`. It runs anywhere: trials are sent to stand-ins for Slurm's
commands, which take what they are given and answer from files, so the time that a real sbatch, squeue and scheduler
take is not in the numbers. The run folders are real; what trials would have written into them is written by this
script. Each command is a process of its own, so the start of Python (the "100" column, nearly) is in every number;
the last column is the growth between the smallest and the largest sweep.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from bench import planned
from bench.launches import tasks_of_trials
from bench.process import this_process
from bench.runs import find_runs
from bench.store import Run

ROOT = Path(__file__).resolve().parents[1]
SIZES = (100, 1_000, 10_000)
N_DOMAINS = 4
"""Held-out domains of the data set Icons: so many trials a trial seed."""

STAND_INS = {
    "sbatch": 'n=$(cat n); echo $((n + 1)) > n; echo "Submitted batch job $n"',
    "squeue": "cat queue",
    "scontrol": 'case "$1" in ping) echo "Slurmctld(primary) at head is UP";; *) cat config;; esac',
    "sinfo": "echo '(null)'",
    "scancel": "true",
    "srun": "true",
}


def make_cluster(folder: Path) -> None:
    """Put stand-ins for Slurm's commands into `folder`."""
    folder.mkdir()
    for name, text in STAND_INS.items():
        (folder / name).write_text(f'#!/bin/sh\ncd "{folder}"\n{text}\n')
        (folder / name).chmod(0o755)
    (folder / "n").write_text("1")
    (folder / "queue").write_text("")
    (folder / "config").write_text("MaxArraySize = 1001\nMaxJobCount = 1000000\n")


def queue_everything(cluster: Path, sweep: Path) -> None:
    """Let the stand-in for squeue say that every task that was sent waits."""
    tasks = dict.fromkeys(tasks_of_trials(sweep).values())
    lines = (f"{name}|1|{index}|PENDING|Priority|" for name, index in tasks)
    (cluster / "queue").write_text("\n".join(lines))


def pretend(run: Run, share: float) -> None:
    """Write what a trial at `share` of its sweep would have: three of five done, some failed or running, the rest waits."""
    if share >= 0.7:
        return
    state = "done" if share < 0.6 else "failed" if share < 0.65 else "running"
    said = {**this_process(), "host": "elsewhere", "attempt": 1, "state": state, "step": 3, "steps": 10, "rate": 2.0}
    said |= {"heartbeat": time.time(), "seconds": 60.0, **({"error": "OSError: no"} if state == "failed" else {})}
    run.begin()
    (run.folder / "attempt.1").write_text(json.dumps({**this_process(), "claimed": time.time()}).ljust(4096))
    (run.folder / "status.json").write_text(json.dumps(said))
    if state == "done":
        finish(run)


def finish(run: Run) -> None:
    """Write records as of a finished trial."""
    record = {"step": 10, "algorithm": "ERM", "predictor": "ERM", "env0_out_acc": 0.5}
    (run.folder / "results.jsonl").write_text(json.dumps(record) + "\n")
    (run.folder / "predictions.npz").write_bytes(b"x" * 4096)
    (run.folder / "env.json").write_text("{}")


def seconds(words: list[str], cluster: Path) -> float:
    """Run a command of the sweep in a process of its own; give the seconds until it ended."""
    path = f"{cluster}{os.pathsep}{os.environ['PATH']}"
    began = time.perf_counter()
    command = [sys.executable, "-m", "bench.sweep", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PATH": path})
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return time.perf_counter() - began


def n_files(sweep: Path) -> int:
    """Count the files of a sweep's run folders, and of the specs that wait without one."""
    folders = [*(run.folder for run in find_runs(sweep)), sweep / planned.FOLDER]
    return sum(len(files) for folder in folders for _, _, files in os.walk(folder))


def measure(n: int, folder: Path) -> dict[str, float]:
    """Time all commands on a sweep of `n` trials."""
    cluster, sweep = folder / "cluster", folder / "results" / "scale"
    make_cluster(cluster)
    where = ["--output-dir", str(sweep.parent), "--name", sweep.name]
    words = ["launch", "--algorithms", "ERM", "--datasets", "Icons", "--n-trials", str(-(-n // N_DOMAINS))]
    launch = [*words, "--launcher", "slurm", "--no-prepare", "--first", str(n), *where]
    taken = {"launch: plan, write, send": seconds(launch, cluster)}
    runs = find_runs(sweep)
    assert len(runs) == n, f"{len(runs)} trials"
    files = {"files a trial when sent": n_files(sweep) / n}
    queue_everything(cluster, sweep)
    taken["launch again: all queued"] = seconds(launch, cluster)
    taken["status: all queued"] = seconds(["status", *where], cluster)
    for i, run in enumerate(runs):
        pretend(run, i / n)
    taken["launch again: 60 % done"] = seconds(launch, cluster)
    taken["status: 60 % done"] = seconds(["status", *where], cluster)
    taken["status --json"] = seconds(["status", "--json", *where], cluster)
    taken["status --failed"] = seconds(["status", "--failed", *where], cluster)
    for run in runs:
        pretend(run, 0.0)
    taken["launch again: all done"] = seconds(launch, cluster)
    files["files a trial when done"] = n_files(sweep) / n
    return {**taken, **files}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=SIZES, metavar="N", help="sizes of sweeps")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the sweeps there, to look at")
    options = parser.parse_args()
    sizes = sorted(options.trials)
    found: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for n in sizes:
            folder = (options.keep or Path(temporary)) / str(n)
            folder.mkdir(parents=True)
            print(f"{n} trials …", file=sys.stderr, flush=True)
            found[n] = measure(n, folder)
    first, last = sizes[0], sizes[-1]
    rows = []
    for name in found[first]:
        per_trial = (found[last][name] - found[first][name]) / max(1, last - first)
        growth = "" if name.startswith("files") else f"{1000 * per_trial:.2f}"
        rows.append([name, *(f"{found[n][name]:.2f}" for n in sizes), growth])
    print(tabulate(rows, headers=["seconds", *(f"{n:,} trials" for n in sizes), "ms a trial"], disable_numparse=True))


if __name__ == "__main__":
    main()
