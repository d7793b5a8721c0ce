"""`collect` against DomainBed's own collector: whole processes that print the same tables from the same folder.

Records are made in DomainBed's format, six evaluations a run, one held-out domain, five algorithms. "Cold": nothing is kept
from before. "Warm": the same command again. Without `--domainbed` the other side is a plain reader: `json.loads` line by
line, then the training-domain rule. The limit is parsing the bytes line by line with `json.loads`, in a process that has
started and read them; what all lines of a run repeat is parsed once a run, so it can be beaten.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from perf.measure import ROOT, Options, Row, peak_mb, process_seconds, ratios, run

DATASETS = ("VLCS", "PACS", "OfficeHome", "TerraIncognita")
ALGORITHMS = ("ERM", "CORAL", "Mixup", "MLDG", "MMD")
STEPS = tuple(range(0, 1501, 300))
HPARAMS: dict[str, object] = {
    "batch_size": 32,
    "class_balanced": False,
    "data_augmentation": True,
    "nonlinear_classifier": False,
}
HPARAMS |= {"resnet18": False, "resnet_dropout": 0.1}
ARGS: dict[str, object] = {"checkpoint_freq": None, "data_dir": "/data", "holdout_fraction": 0.2, "hparams": None}
ARGS |= {"save_model_every_checkpoint": False, "skip_model_save": False, "steps": 1501, "task": "domain_generalization"}
SETTLE_SECONDS = 2.5
_PLAIN_READER = """import json, os, sys
from pathlib import Path
best = {}
n = 0
for path in sorted(Path(sys.argv[1]).glob("*/results.jsonl")):
    for line in path.read_text().splitlines():
        record = json.loads(line)
        n += 1
        args = record["args"]
        (test,) = args["test_envs"]
        out = [record[f"env{i}_out_acc"] for i in range(4) if i != test]
        key = args["trial_seed"], args["dataset"], args["algorithm"], test
        best[key] = max(best.get(key, (-1.0, 0.0)), (sum(out) / 3, record[f"env{test}_in_acc"]))
print(n, sum(value for _, value in best.values()))
"""


def make_sweep(root: Path, n_runs: int) -> None:
    """Write a sweep of `n_runs` runs, all of the past, with the trials and hparams that they need."""
    draw = random.Random(0)
    datasets = DATASETS if n_runs > 500 else DATASETS[1:2]
    of_trial = len(datasets) * len(ALGORITHMS) * 4
    n_trials = min(5, max(1, n_runs // of_trial))
    for number in range(n_runs):
        place, trial = divmod(number, n_trials)
        place, domain = divmod(place, 4)
        place, algorithm = divmod(place, len(ALGORITHMS))
        seed, dataset = divmod(place, len(datasets))
        run_args = {
            **ARGS,
            "algorithm": ALGORITHMS[algorithm],
            "dataset": datasets[dataset],
            "hparams_seed": seed,
            "output_dir": f"sweep/{number}",
            "seed": draw.randrange(2**31),
            "test_envs": [domain],
            "trial_seed": trial,
            "uda_holdout_fraction": 0,
        }
        hparams = {**HPARAMS, "lr": 1e-4 * draw.random(), "weight_decay": 1e-3 * draw.random()}
        folder = root / f"{draw.getrandbits(128):032x}"
        folder.mkdir(parents=True)
        with (folder / "results.jsonl").open("w") as file:
            for step in STEPS:
                numbers = {f"env{i}_{split}_acc": draw.random() for i in range(4) for split in ("in", "out")}
                times = {"loss": draw.random(), "step_time": draw.random(), "mem_gb": 3.25, "epoch": step / 37}
                line = {"args": run_args, "hparams": hparams, "step": step, **numbers, **times}
                file.write(json.dumps(line, sort_keys=True) + "\n")
        (folder / "done").write_text("done")


def ours(root: Path) -> list[str]:
    """The command that prints DomainBed's tables."""
    return [sys.executable, "-m", "bench.collect", str(root), "--format", "domainbed"]


def theirs(root: Path, options: Options) -> tuple[list[str], Path]:
    """The other side's command, and the folder to run it in."""
    if options.domainbed is None:
        return [sys.executable, "-c", _PLAIN_READER, str(root)], ROOT
    return [sys.executable, "-m", "domainbed.scripts.collect_results", "--input_dir", str(root)], options.domainbed


def parse_seconds(root: Path) -> float:
    """Parse all lines of a sweep with `json.loads`, files read beforehand; give the seconds."""
    lines = [line for path in root.glob("*/results.jsonl") for line in path.read_bytes().splitlines()]
    began = time.perf_counter()
    for line in lines:
        json.loads(line)
    return time.perf_counter() - began


def compare(
    root: Path, cache: Path, options: Options, what: str, *, warm: bool, targets: tuple[float, float] | None
) -> Row:
    """Measure one row of the table of targets."""
    os.environ["CLIPBED_CACHE"] = str(cache)
    command, cwd = theirs(root, options)
    taken: tuple[list[float], list[float]] = ([], [])
    if warm:
        process_seconds(ours(root))
    for _ in range(options.rounds):
        if not warm:
            shutil.rmtree(cache, ignore_errors=True)
        taken[0].append(process_seconds(ours(root)))
        taken[1].append(process_seconds(command, cwd))
    if not warm:
        shutil.rmtree(cache, ignore_errors=True)
    return Row(
        what=what,
        against="DomainBed's collector" if options.domainbed else "a plain reader (no --domainbed)",
        ratios=ratios(*taken),
        ours=tuple(taken[0]),
        theirs=tuple(taken[1]),
        at_least=targets[0] if targets and options.domainbed else None,
        stretch=targets[1] if targets and options.domainbed else None,
        limit=None if warm else parse_seconds(root),
        peak_mb=peak_mb(ours(root)),
        note=f"{_same_text(root, options)}; peak memory of the other side {peak_mb(command, cwd):.0f} MB",
    )


def _same_text(root: Path, options: Options) -> str:
    """Say whether both sides print the same."""
    if options.domainbed is None:
        return "the two sides print different things"
    command, cwd = theirs(root, options)
    ours_told, theirs_told = (
        subprocess.run(each, cwd=where, capture_output=True, text=True, check=True).stdout.splitlines()
        for each, where in ((ours(root), ROOT), (command, cwd))
    )
    differing = [line for line in difflib.unified_diff(ours_told, theirs_told, lineterm="", n=0) if line[0] in "+-"][2:]
    return "both sides print the same bytes" if not differing else f"{len(differing)} lines differ: {differing[:2]}"


def rows(options: Options) -> Iterator[Row]:
    """Measure the rows of the table of targets, and how time and memory grow with records."""
    sizes = (100, 1_200) if options.quick else (500, 8_000)
    growth = (1_000, 10_000) if options.quick else (1_000, 10_000, 100_000)
    before = os.environ.get("CLIPBED_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        small, large = (Path(folder) / f"runs{n}" for n in sizes)
        for root, n_runs in ((small, sizes[0]), (large, sizes[1])):
            make_sweep(root, n_runs)
        time.sleep(SETTLE_SECONDS)  # files of the last seconds are never kept
        yield compare(small, cache, options, f"collect of {sizes[0]} runs, cold", warm=False, targets=(20, 40))
        yield compare(large, cache, options, f"collect of {sizes[1]} runs, cold", warm=False, targets=(5, 8))
        yield compare(large, cache, options, f"collect of {sizes[1]} runs, warm", warm=True, targets=(30, 60))
        yield _one_more(large, cache, options)
        for n_records in growth:
            root = Path(folder) / f"records{n_records}"
            make_sweep(root, n_records // len(STEPS))
            yield _growth(root, cache, options, n_records)
    os.environ.pop("CLIPBED_CACHE", None) if before is None else os.environ.update(CLIPBED_CACHE=before)


def _one_more(root: Path, cache: Path, options: Options) -> Row:
    """Measure `collect` after one more run has come: all others are known."""
    command, cwd = theirs(root, options)
    taken: tuple[list[float], list[float]] = ([], [])
    first = next(path for path in root.iterdir() if path.is_dir())
    process_seconds(ours(root))
    for number in range(options.rounds):
        shutil.copytree(first, root / f"more{number}")
        taken[0].append(process_seconds(ours(root)))
        taken[1].append(process_seconds(command, cwd))
    against = "DomainBed's collector" if options.domainbed else "a plain reader (no --domainbed)"
    return Row(
        what="the same after one more run",
        against=against,
        ratios=ratios(*taken),
        ours=tuple(taken[0]),
        theirs=tuple(taken[1]),
        note="the records of all other runs come from the index",
    )


def _growth(root: Path, cache: Path, options: Options, n_records: int) -> Row:
    """Measure one size, cold."""
    few = dataclasses.replace(options, rounds=min(2, options.rounds))
    return compare(root, cache, few, f"collect of {n_records:,} records, cold", warm=False, targets=None)


if __name__ == "__main__":
    run(rows, __doc__)
