"""Launching 5,000 trials, and the commands that must answer at once, beside DomainBed's sweep launcher.

Both plan the trials, write down what they are and hand them to a launcher that does nothing with them: ours to a stand-in
for Slurm's sbatch, DomainBed's to one that drops its commands. DomainBed makes a folder a trial; ours gets one when it
begins. Processes are timed whole, with Python's start and imports; compiled modules are cached on both sides, as they are
for everybody from the second command on.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.runs import find_runs
from perf.measure import ROOT, Options, Row, peak_mb, ratios, run
from perf.scale import make_cluster

N_TRIALS = 5_000
PEER = """
import sys
from importlib.util import find_spec
from perf.domainbed_train import OPTIONAL, stand_in
for name, parts in OPTIONAL.items():
    if find_spec(name) is None:
        sys.modules.update({each: stand_in(each) for each in (name, *(f"{name}.{part}" for part in parts))})
sys.path.insert(0, sys.argv.pop(1))
from domainbed import command_launchers
command_launchers.REGISTRY["none"] = lambda commands: None
import runpy
runpy.run_module("domainbed.scripts.sweep", run_name="__main__")
"""


def ours(folder: Path, n: int) -> list[str]:
    """Give our command: one method on four held-out domains, so many trial seeds that there are `n` trials."""
    words = ["launch", "--algorithms", "ERM", "--datasets", "Icons", "--n-trials", str(-(-n // 4)), "--first", str(n)]
    words += ["--launcher", "slurm", "--no-prepare", "--output-dir", str(folder)]
    return [sys.executable, "-m", "bench.sweep", *words]


def theirs(checkout: Path, folder: Path, n: int) -> list[str]:
    """Give DomainBed's command: ERM on PACS, one held-out domain each."""
    words = ["launch", "--datasets", "PACS", "--algorithms", "ERM", "--single_test_envs", "--n_hparams", "1"]
    words += ["--n_trials", str(n // 4), "--output_dir", str(folder), "--data_dir", ".", "--command_launcher", "none"]
    return [sys.executable, "-c", PEER, str(checkout), *words, "--skip_confirmation"]


def seconds(command: Sequence[str], path: Path) -> float:
    """Run a command with the stand-ins of `path`; give the seconds until it ended.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    taken = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} … failed: {done.stderr[-1000:]}")
    return taken


def rows(options: Options) -> Iterator[Row]:
    """Measure; without a checkout of DomainBed the launch is beside importing what its launcher imports (torch)."""
    n = 500 if options.quick else N_TRIALS
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_cluster(folder / "cluster")
        done: tuple[list[float], list[float]] = ([], [])
        for turn in range(options.rounds + 1):
            output, peers = folder / f"ours{turn}", folder / f"theirs{turn}"
            first = seconds(ours(output, n), folder / "cluster")
            n_trials = len(find_runs(output))
            if n_trials != n:
                raise RuntimeError(f"{n_trials} of {n} trials were launched")
            peer = [sys.executable, "-c", "import torch"]
            if options.domainbed:
                peer = theirs(options.domainbed.resolve(), peers, n)
            second = seconds(peer, folder / "cluster")
            if turn:  # the first pair compiles modules
                done[0].append(first)
                done[1].append(second)
        yield Row(
            what=f"`launch` of {n:,} trials",
            against="DomainBed's sweep" if options.domainbed else "import of torch alone",
            ratios=ratios(*done),
            ours=tuple(done[0]),
            theirs=tuple(done[1]),
            at_least=10 if options.domainbed else None,
            peak_mb=peak_mb_of(ours(folder / "peak", n), folder / "cluster"),
            note=_shares(statistics.median(done[0]), n, folder),
        )
        yield from _at_once(options, folder)


def _shares(all_of_them: float, n: int, folder: Path) -> str:
    """Say what of the launch's time hangs on the number of trials, and what a folder costs that it does not make."""
    few = statistics.median(seconds(ours(folder / f"few{turn}", 4), folder / "cluster") for turn in range(3))
    began = time.perf_counter()
    for number in range(n):
        place = f"{folder}/made{number}"
        os.mkdir(place)
        with open(f"{place}/spec.json", "x") as file:
            file.write("x" * 600)
    made = time.perf_counter() - began
    return (
        f"{1e3 * few:.0f} ms of it for any number of trials (Python, imports, Slurm's commands, git), "
        f"{1e6 * (all_of_them - few) / n:.0f} µs a trial; a folder with one file takes {1e6 * made / n:.0f} here, when a "
        "trial begins"
    )


def peak_mb_of(command: Sequence[str], path: Path) -> float:
    """Give the peak memory of a command that is run with the stand-ins of `path`."""
    return peak_mb(["env", f"PATH={path}{os.pathsep}{os.environ['PATH']}", *command])


def _at_once(options: Options, folder: Path) -> Iterator[Row]:
    """Time `--help`, `status` and `list` against the import of torch, which every command of DomainBed begins with."""
    sweep = [sys.executable, "-m", "bench.sweep"]
    commands = {
        "`sweep --help`": [*sweep, "--help"],
        "`sweep list algorithms`": [*sweep, "list", "algorithms"],
        "`sweep status` of the published records": [*sweep, "status", "--output-dir", str(ROOT / "results/published")],
        "`collect` of the published PACS records": [
            *(sys.executable, "-m", "bench.collect"),
            str(ROOT / "results/published/pacs_tiny"),
        ],
    }
    for what, command in commands.items():
        begun, peers = [], []
        for turn in range(options.rounds + 1):
            first = seconds(command, folder / "cluster")
            second = seconds([sys.executable, "-c", "import torch"], folder / "cluster")
            if turn:
                begun.append(first)
                peers.append(second)
        is_bound = "help" in what or "status" in what
        note = "the target is 0.3 s" if is_bound else ""
        yield Row(
            what=what,
            against="import of torch",
            ratios=ratios(begun, peers),
            ours=tuple(begun),
            theirs=tuple(peers),
            note=note,
        )


if __name__ == "__main__":
    run(rows, __doc__)
