"""Loading a results folder: CLIPBed's runs and DomainBed's, mixed as they come, with a count of all that was left out.

Owns what counts as a record and as a finished run; chooses nothing and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import domainbed, store
from bench.errors import RecordsMissing, SpecError
from bench.measures import label
from bench.selection import Group, groups_of, is_pair

RECORDS_FILE = "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class Results:
    """What lies in a results folder.

    Attributes:
        root: the folder.
        records: flat records, each evaluation once, in a stable order.
        n_lines: lines with a record, duplicates counted.
        n_runs: runs that the records come from.
        n_domainbed_runs: those of them that DomainBed wrote.
        n_skipped_lines: torn lines, and lines that are no record.
        n_duplicates: records left out since a later one is of the same trial, predictor and step.
        n_contradictions: duplicates whose numbers differ from those of the record that counts.
        n_unfinished: runs that are not finished.
        includes_unfinished: whether their records are among `records`.
        unfinished: the groups that unfinished runs are for, so that a table can show the hole.

    A record's `protocol` is its label, with the options of its `variant`, which is left out.
    """

    root: Path
    records: tuple[dict[str, Any], ...]
    n_lines: int
    n_runs: int
    n_domainbed_runs: int
    n_skipped_lines: int
    n_duplicates: int
    n_contradictions: int
    n_unfinished: int
    includes_unfinished: bool
    unfinished: frozenset[Group]


@dataclass(frozen=True)
class _RunRecords:
    records: list[dict[str, Any]]
    n_skipped: int
    is_done: bool
    is_domainbed: bool
    groups: tuple[Group, ...]


def load(root: Path, *, include_unfinished: bool = False) -> Results:
    """Read all runs in `root`, or one or two levels below it.

    Args:
        root: results folder, sweep folder or run folder, of CLIPBed or DomainBed.
        include_unfinished: keep the records of runs that are not finished.

    Raises:
        RecordsMissing: there is no such folder, or no record in it; the message says what was looked for.
    """
    if not root.is_dir():
        raise RecordsMissing(f"there is no folder {root}; give the results folder of a sweep, e.g. results/")
    runs = [_read_run(folder) for folder in _run_folders(root)]
    used = [run for run in runs if run.records and (run.is_done or include_unfinished)]
    unfinished = [run for run in runs if not run.is_done]
    lines = [record for run in used for record in run.records]
    if not lines:
        raise RecordsMissing(_nothing_in(root, runs, len(unfinished)))
    records, n_contradictions = _last_of_each(lines)
    return Results(
        root=root,
        records=tuple(records),
        n_lines=len(lines),
        n_runs=len(used),
        n_domainbed_runs=sum(run.is_domainbed for run in used),
        n_skipped_lines=sum(run.n_skipped for run in runs),
        n_duplicates=len(lines) - len(records),
        n_contradictions=n_contradictions,
        n_unfinished=len(unfinished),
        includes_unfinished=include_unfinished,
        unfinished=frozenset(group for run in unfinished for group in run.groups),
    )


def _run_folders(root: Path) -> list[Path]:
    """Give run folders of either kind: CLIPBed's as the store finds them, DomainBed's by their records file."""
    ours = {run.folder for run in store.find_runs(root)}
    depths = (root.glob(f"{stars}{RECORDS_FILE}") for stars in ("", "*/", "*/*/"))
    return sorted(ours | {path.parent for paths in depths for path in paths})


def _read_run(folder: Path) -> _RunRecords:
    run = store.Run(folder)
    lines, n_torn = run.records()
    spec = run.spec_json()
    is_domainbed = spec is None and any(domainbed.is_line(line) for line in lines)
    is_done = domainbed.is_done(folder) if is_domainbed else run.is_done
    records = [record for line in lines if (record := _as_record(line, folder.name)) is not None]
    groups = _groups_of_run(spec, records)
    return _RunRecords(records, n_torn + len(lines) - len(records), is_done, is_domainbed, groups)


def _as_record(line: dict[str, Any], trial: str) -> dict[str, Any] | None:
    """Complete a line to a record; None where it is something else."""
    try:
        record = domainbed.as_record(line, trial) if domainbed.is_line(line) else {"trial": trial, **line}
        is_record = bool(groups_of(record)) and isinstance(record["dataset"], str) and _has_accuracy(record)
    except (KeyError, TypeError, SpecError):
        return None
    record.setdefault("predictor", record["algorithm"])
    record["protocol"] = label(record)
    record.pop("variant", None)
    return record if is_record else None


def _has_accuracy(record: Mapping[str, Any]) -> bool:
    return any(key.startswith("env") and key.endswith("_acc") for key in record)


def _groups_of_run(spec: Mapping[str, Any] | None, records: list[dict[str, Any]]) -> tuple[Group, ...]:
    """Give the groups that a run is for, from its spec and its first record; none for a run with two held-out domains.

    Which cells a trial without a held-out domain fills only its records tell.
    """
    described = {**(records[0] if records else {}), **({**spec, "step": 0} if spec is not None else {})}
    try:
        return () if is_pair(described) else tuple(groups_of(described))
    except (KeyError, SpecError):
        return ()


def _last_of_each(records: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Keep the last record of each trial, predictor and step; count those before it that say something else."""
    last: dict[tuple[str, str, int], dict[str, Any]] = {}
    n_contradictions = 0
    for record in records:
        key = (str(record["trial"]), str(record["predictor"]), int(record["step"]))
        before = last.pop(key, None)
        n_contradictions += before is not None and _numbers(before) != _numbers(record)
        last[key] = record
    return list(last.values()), n_contradictions


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key.endswith("_acc")}


def _nothing_in(root: Path, runs: list[_RunRecords], n_unfinished: int) -> str:
    looked = f"no records in {root}: looked for {RECORDS_FILE} in it and in the folders one and two levels below"
    if not runs:
        return f"{looked}; found no run. Give the folder of a sweep, or launch one: python -m bench.sweep launch --help"
    n_skipped = sum(run.n_skipped for run in runs)
    found = f"{looked}; found {len(runs)} run folder(s), {n_unfinished} unfinished, and {n_skipped} unreadable line(s)."
    return f"{found} Finish them with the launch command that began them, or see --include-unfinished."
