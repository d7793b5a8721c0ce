"""CLIPBed's records as a sweep of DomainBed's: one folder a run with `results.jsonl` and `done`, for its own collector.

Its collector reads `args`, `step` and accuracies. For the data set's every domain it needs the "out" accuracy, since it
counts domains by them, and of held-out domains the "in" accuracy; it never reads the "in" accuracy of a training domain,
which CLIPBed evaluates only with `--evaluate all`, so what is not there is not made up. DomainBed's step k has k + 1
updates done, so the untrained predictor is its step -1.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import files
from bench.domainbed.reading import ENVIRONMENTS
from bench.errors import Conflict, RecordsMissing
from bench.records import RECORDS_FILE, load
from bench.runs import find_runs
from bench.seeds import seed_hash
from bench.selection import DEFAULT_PROTOCOL

Record = Mapping[str, Any]

_IN_ARGS = ("protocol", "dataset", "algorithm", "predictor", "test_domains", "trial_seed", "hparams_seed", "trial")
_FURTHER = "runs with further predictors, of which only the main one was taken"
_INCOMPLETE = "runs that lack accuracies which its collector reads"
_CELL = ("dataset", "algorithm", "test_domains", "trial_seed", "hparams_seed")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: the sweep folder.
        n_runs, n_lines: run folders, and lines in them.
        left_out: why runs or rows were left out → how many.
    """

    folder: Path
    n_runs: int
    n_lines: int
    left_out: Mapping[str, int]


@dataclass
class _Sorted:
    """Records of the runs to export, by trial, and why others are left out → their trials."""

    trials: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    left_out: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def export(results: Path, output: Path, *, selection_independent: bool = False) -> Exported:
    """Write the finished leave-one-domain-out runs in `results` as a sweep of DomainBed's.

    Args:
        results: results folder.
        output: the sweep folder to make; it appears whole or not at all.
        selection_independent: only the last step of each run, so that no rule of DomainBed's chooses a step.

    Raises:
        RecordsMissing: nothing can be exported; says what was found.
        Conflict: there is something at `output`, or runs that DomainBed could not tell apart.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise Conflict(f"{output} is there already; give --output a folder that is new or empty")
    found = _sort(load(results).records)
    left_out = {reason: len(trials) for reason, trials in found.left_out.items()}
    if not found.trials:
        reasons = "; ".join(f"{reason}: {number}" for reason, number in left_out.items())
        raise RecordsMissing(f"nothing in {results} can be exported to DomainBed ({reasons})")
    _check_distinct(found.trials)
    specs = {run.trial_id: run.spec_json() or {} for run in find_runs(results)}
    runs = []
    for trial, records in found.trials.items():
        kept = sorted(records, key=lambda record: int(record["step"]))[-1 if selection_independent else 0 :]
        runs.append([_line(record, specs.get(trial, {})) for record in kept])
    _write(output, runs)
    return Exported(output, len(runs), sum(map(len, runs)), left_out)


def _sort(records: Iterable[Record]) -> _Sorted:
    found = _Sorted()
    for record in records:
        trial = str(record["trial"])
        reason = _reason_to_leave_out(record)
        if reason:
            found.left_out[reason].add(trial)
        else:
            found.trials[trial].append(record)
    for trial in found.left_out.get(_INCOMPLETE, ()):
        found.trials.pop(trial, None)  # with a hole in it DomainBed might choose another step than we do
    return found


def _reason_to_leave_out(record: Record) -> str:
    if "schema" not in record:
        return "runs of DomainBed's own"
    if record["protocol"] != DEFAULT_PROTOCOL:
        return f"runs of {record['protocol']}, which DomainBed does not have"
    if record["predictor"] != record["algorithm"]:
        return _FURTHER
    dataset = str(record["dataset"])
    if dataset not in ENVIRONMENTS:
        return f"runs on {dataset}, which DomainBed does not have"
    if tuple(record.get("domains") or ()) != ENVIRONMENTS[dataset]:
        return f"runs on {dataset} with other domains than DomainBed's"
    needed = [f"env{domain}_out_acc" for domain in range(len(ENVIRONMENTS[dataset]))]
    needed += [f"env{domain}_in_acc" for domain in record["test_domains"]]
    return "" if all(math.isfinite(record.get(key, math.nan)) for key in needed) else _INCOMPLETE


def _check_distinct(trials: Mapping[str, list[Record]]) -> None:
    """Refuse what DomainBed's collector would mix: it knows a run by data set, algorithm, domains and seeds alone."""
    firsts = [records[0] for records in trials.values()]
    backbones = sorted({f"{record['backbone']} ({record['pretrained']})" for record in firsts})
    if len(backbones) > 1:
        raise Conflict(
            f"DomainBed has no place for several backbones ({', '.join(backbones)}): export the sweeps one by one"
        )
    seen: dict[str, str] = {}
    for record in firsts:
        cell = str([record[name] for name in _CELL])
        other = seen.setdefault(cell, str(record["trial"]))
        if other != record["trial"]:
            raise Conflict(
                f"the trials {other} and {record['trial']} differ in something that DomainBed's collector does not read "
                f"(both are {record['algorithm']} on {record['dataset']}, trial {record['trial_seed']}, hparams seed "
                f"{record['hparams_seed']}): export the sweeps one by one"
            )


def _line(record: Record, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a record into a line of DomainBed's; `clipbed` keeps what reading it back needs."""
    line = {key: value for key, value in record.items() if key not in _IN_ARGS}
    line["step"] = int(record["step"]) - 1
    line["args"] = _arguments(record, spec)
    line["hparams"] = dict(spec.get("hparams", {}))
    line["clipbed"] = {"trial": record["trial"], "domains": line.pop("domains")}
    return line


def _arguments(record: Record, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Give what DomainBed's `train.py` would have been called with, as far as it has words for it."""
    identity = (record["dataset"], record["algorithm"], list(record["test_domains"]))
    seeds = (record["hparams_seed"], record["trial_seed"])
    return {
        "dataset": record["dataset"],
        "algorithm": record["algorithm"],
        "test_envs": list(record["test_domains"]),
        "hparams_seed": record["hparams_seed"],
        "trial_seed": record["trial_seed"],
        "seed": seed_hash(*identity, *seeds),
        "steps": spec.get("steps"),
        "checkpoint_freq": spec.get("evaluate_every"),
        "holdout_fraction": spec.get("holdout_fraction", 0.2),
        "uda_holdout_fraction": spec.get("uda_holdout_fraction", 0.0),
        "task": "domain_adaptation" if record.get("unlabeled") else "domain_generalization",
        "hparams": None,
        "data_dir": None,
        "output_dir": record["trial"],
        "skip_model_save": True,
        "save_model_every_checkpoint": False,
    }


def _write(output: Path, runs: list[list[dict[str, Any]]]) -> None:
    """Write all run folders aside, then put the sweep folder in its place in one step."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.", suffix=".tmp"))
    try:
        for lines in runs:
            folder = temporary / hashlib.md5(json.dumps(lines[0]["args"], sort_keys=True).encode()).hexdigest()
            folder.mkdir()
            files.replace_lines(folder / RECORDS_FILE, lines)
            files.replace_text(folder / "done", "done")
        files.share(temporary)
        os.rename(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
