"""What a trial costs on Slurm beyond a job that does nothing: our arrays against plain `sbatch --array`.

Run on a login node: `python -m perf.slurm_overhead [--single N] [--packed N] [--rounds N] [--sbatch KEY=VALUE ...]`.

A plain array of the same length, whose tasks start Python and end, is what Slurm takes by itself. Ours is sent by
`sweep launch`: one-trial tasks (`--single` trials), and 50 trials a task (`--packed` trials). A trial is ZeroShot on Icons
with the embedded backbone, whose data are decoded before the clock starts. The trials' own work, and the import of torch
in each task, are part of ours and not of a plain array; so the same trials are run in the local pool of this machine
as well. All kinds take turns, so that load hits them alike; times are from the start of the sending command until squeue
knows none of the tasks any more.
"""

from __future__ import annotations

import argparse
import getpass
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tabulate import tabulate

from bench import slurm
from bench.launches import arrays
from bench.runs import find_runs
from perf.measure import Options, Row, ratios

ROOT = Path(__file__).resolve().parents[1]
N_DOMAINS = 4
"""Held-out domains of Icons: so many trials a trial seed."""
PACKED = 50
POLL_SECONDS = 0.2


def wait_for(name: str) -> None:
    """Wait until no task of the arrays called `name`, comma-separated, is in the queue."""
    while True:
        command = ["squeue", "-h", "-u", getpass.getuser(), "--name", name, "-o", "%i"]
        if not subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip():
            return
        time.sleep(POLL_SECONDS)


def plain(n: int, folder: Path, extra: list[str]) -> tuple[float, float]:
    """Send an array of `n` tasks that only start Python; give the seconds until sent and until over."""
    name = f"plain-{time.time_ns()}"
    command = ["sbatch", f"--array=0-{n - 1}", f"--job-name={name}", f"--output={folder}/{name}_%a.out"]
    began = time.perf_counter()
    wrapped = ["--wrap", f"srun {sys.executable} -c pass"]
    subprocess.run([*command, *(f"--{each}" for each in extra), *wrapped], check=True, capture_output=True)
    sent = time.perf_counter() - began
    wait_for(name)
    return sent, time.perf_counter() - began


def ours(
    n: int, per_task: int, folder: Path, extra: list[str], *, name: str = "", parallel: int = 0
) -> tuple[float, float]:
    """Send `n` trials, `per_task` a task, `parallel` tasks at a time; give the seconds until sent and until over."""
    name = name or f"ours-{time.time_ns()}"
    began = time.perf_counter()
    bound = ["--parallel", str(parallel)] if parallel else []
    run_sweep(n, folder, name, ["--launcher", "slurm", "--trials-per-task", str(per_task), *bound], extra)
    sent = time.perf_counter() - began
    wait_for(",".join(array.name for array in arrays(folder / name)))
    over = time.perf_counter() - began
    states = [run.state().value for run in find_runs(folder / name)]
    if states != ["done"] * n:
        raise SystemExit(f"{states.count('done')} of {n} trials are done: `sweep status --output-dir {folder}`")
    return sent, over


def overhead(n: int, per_task: int, folder: Path) -> float:
    """Run `n` trials, one task at a time; give the seconds of a trial that are not its own work."""
    name = f"overhead-{time.time_ns()}"
    _, over = ours(n, per_task, folder, [], name=name, parallel=1)
    work = [json.loads((run.folder / "env.json").read_text())["seconds"] for run in find_runs(folder / name)]
    return (over - sum(work)) / n


def here(n: int, folder: Path) -> tuple[float, float]:
    """Run `n` trials in the local pool of this machine; give twice the seconds until they were over."""
    began = time.perf_counter()
    run_sweep(n, folder, f"here-{time.time_ns()}", ["--launcher", "local"], [])
    return (time.perf_counter() - began,) * 2


def run_sweep(n: int, folder: Path, name: str, how: list[str], extra: list[str]) -> None:
    """Run `sweep launch` for the first `n` trials."""
    command = [sys.executable, "-m", "bench.sweep", "launch", "--algorithms", "ZeroShot", "--datasets", "Icons"]
    command += ["--n-trials", str(-(-n // N_DOMAINS)), "--first", str(n), "--output-dir", str(folder), "--name", name]
    command += [*how, "--no-prepare", *(word for each in extra for word in ("--sbatch", each))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr or done.stdout}")


def compare(n: int, per_task: int, folder: Path, rounds: int, extra: list[str]) -> list[list[str]]:
    """Time plain arrays of as many tasks as trials, and as our tasks, and ours; give lines of the table."""
    n_tasks = -(-n // per_task)
    kinds = {f"plain, {each} tasks": partial(plain, each, folder, extra) for each in dict.fromkeys((n, n_tasks))}
    kinds["no Slurm: local pool"] = partial(here, n, folder)
    kinds[f"ours, {per_task} a task"] = partial(ours, n, per_task, folder, extra)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, run in kinds.items():
            taken[name].append(run())
    medians = {name: [statistics.median(each) for each in zip(*found)] for name, found in taken.items()}
    plainly, locally = medians[f"plain, {n} tasks"][1], medians["no Slurm: local pool"][1]
    return [
        [
            str(n),
            name,
            f"{sent:.2f}",
            f"{over:.1f}",
            f"{over / n:.2f}",
            f"{over / plainly:.2f}",
            f"{over / locally:.2f}",
        ]
        for name, (sent, over) in medians.items()
    ]


def rows(options: Options) -> Iterator[Row]:
    """Compare what a trial costs beyond its own work in a packed task and in a task of its own.

    From sending to the end of the last, one task at a time, so that tasks do not share this machine's cores.

    Raises:
        ValueError: no Slurm controller answers here.
    """
    if not slurm.is_there():
        raise ValueError("no Slurm controller answers here (`scontrol ping`)")
    n_single = 2 if options.quick else 8
    with tempfile.TemporaryDirectory(prefix="overhead-", dir=".") as name:  # a folder that all nodes see
        folder = Path(name).resolve()
        run_sweep(1, folder, "warm-up", ["--launcher", "local"], [])
        pairs = [
            (overhead(PACKED, PACKED, folder), overhead(n_single, 1, folder)) for _ in range(min(options.rounds, 2))
        ]
    packed, single = zip(*pairs, strict=True)
    yield Row(
        what="packed trials on Slurm, overhead of a trial",
        against="one array task each",
        ratios=ratios(packed, single),
        ours=packed,
        theirs=single,
        at_least=10,
        stretch=20,
        note=f"ZeroShot trials, {PACKED} in one task and {n_single} in tasks of their own; the overhead is all time from "
        "the command on but what the trials say that they took, from claim to records",
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--single", type=int, default=12, metavar="N", help="trials in tasks of their own")
    parser.add_argument("--packed", type=int, default=60, metavar="N", help=f"trials in tasks of {PACKED}")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="how often all is measured")
    parser.add_argument("--sbatch", action="append", default=[], metavar="KEY=VALUE", help="option of every sbatch")
    parser.add_argument("--folder", metavar="DIR", help="folder that all nodes see (default: a new one in the current)")
    options = parser.parse_args()
    if not slurm.is_there():
        raise SystemExit("no Slurm controller answers here (`scontrol ping`): nothing was measured")
    folder = Path(tempfile.mkdtemp(prefix="overhead-", dir=options.folder or ".")).resolve()
    run_sweep(1, folder, "warm-up", ["--launcher", "local"], [])
    rows = []
    for n, per_task in ((options.single, 1), (options.packed, PACKED)):
        if n:
            rows += compare(n, per_task, folder, options.rounds, options.sbatch)
    headers = ["trials", "array", "s to send", "s in all", "s a trial", "ratio to plain", "ratio to local pool"]
    print(tabulate(rows, headers=headers, disable_numparse=True))
    print(f"logs and run folders: {folder}")


if __name__ == "__main__":
    main()
