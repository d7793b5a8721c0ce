"""Loading a results folder: CLIPBed's runs, DomainBed's and imported numbers, mixed as they come, counting what is left out.

Owns which records count; chooses nothing and prints nothing. `bench.run_reader` says what a record and a finished run is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import RecordsMissing
from bench.garbage import without_collector
from bench.record_index import read_runs
from bench.results_folder import CSV_COLUMNS, Kind, Source, digest_of, find_sources
from bench.results_folder import RECORDS_FILE as RECORDS_FILE
from bench.run_reader import Line, RunRecords
from bench.selection import Group


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
        digest: of the state of all files; empty where nothing should be kept of them.

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
    digest: str = ""

    @property
    def leaves_out(self) -> bool:
        """Whether there is anything to say of what was left out."""
        return bool(self.n_unfinished or self.n_skipped_lines or self.n_duplicates)


def load(root: Path, *, include_unfinished: bool = False) -> Results:
    """Read all runs in `root`, or one or two levels below it, and what can be imported: Dassl's logs and CSV files.

    Args:
        root: results folder, sweep folder or run folder, of CLIPBed or DomainBed; folder of Dassl's outputs; a CSV file or
            a folder with some.
        include_unfinished: keep the records of runs that are not finished.

    Raises:
        RecordsMissing: there is no such folder, or no record in it; the message says what was looked for.
        SpecError: a CSV file has a line that is no good.
    """
    if not root.exists():
        raise RecordsMissing(f"there is no folder {root}; give the results folder of a sweep, e.g. results/")
    with without_collector():
        looked_at = time.time_ns()
        where = str(root).rstrip("/") or "/"
        sources = find_sources(where)
        runs = read_runs([source for source in sources if source.kind is Kind.RUN], where, looked_at)
        used = [run for run in runs if run.records and (run.is_done or include_unfinished)]
        unfinished = [run for run in runs if not run.is_done]
        lines = [record for run in used for record in run.records]
        imported, told = _imported(sources, where, lines)
        if not lines and not imported:
            raise RecordsMissing(_nothing_in(root, runs, len(unfinished), told))
        records, n_contradictions = _last_of_each([*lines, *imported])
    return Results(
        root=root,
        records=tuple(records),
        n_lines=len(lines) + len(imported),
        n_runs=len(used) + len({record["trial"] for record in imported}),
        n_domainbed_runs=sum(run.is_domainbed for run in used),
        n_skipped_lines=sum(run.n_skipped for run in runs),
        n_duplicates=len(lines) + len(imported) - len(records),
        n_contradictions=n_contradictions,
        n_unfinished=len(unfinished),
        includes_unfinished=include_unfinished,
        unfinished=frozenset(group for run in unfinished for group in run.groups),
        digest=digest_of(sources, looked_at),
    )


def _imported(sources: Sequence[Source], root: str, ours: Sequence[Line]) -> tuple[list[Line], list[str]]:
    others = [source for source in sources if source.kind is not Kind.RUN]
    if not others:
        return [], []
    from bench.imports import read_imports  # most folders have nothing to import

    return read_imports(others, ours, asked_for=root)


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


def _nothing_in(root: Path, runs: Sequence[RunRecords], n_unfinished: int, told: Sequence[str]) -> str:
    looked = (
        f"no records in {root}: looked for {RECORDS_FILE} in it and in the folders one and two levels below, for Dassl's "
        f"log.txt further down, too, and for CSV files with the columns {','.join(CSV_COLUMNS)}"
    )
    if told:
        return f"{looked}; {'; '.join(told)}"
    if not runs:
        return f"{looked}; found no run. Give the folder of a sweep, or launch one: python -m bench.sweep launch --help"
    n_skipped = sum(run.n_skipped for run in runs)
    found = f"{looked}; found {len(runs)} trial(s), {n_unfinished} unfinished, and {n_skipped} unreadable line(s)."
    return (
        f"{found} `python -m bench.sweep status --failed` says why runs have failed; finish them with the launch command "
        "that began them, or see --include-unfinished."
    )
