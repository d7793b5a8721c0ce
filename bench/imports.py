"""Numbers that others measured, as records: Dassl's logs and CSV files, found in a results folder or given by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import csv_results, dassl_records
from bench.dassl_logs import NO_LOG, read_log
from bench.measures import label
from bench.results_folder import Kind, Source
from bench.selection import row_of

Line = dict[str, Any]


def read_imports(sources: Sequence[Source], ours: Sequence[Line], asked_for: str) -> tuple[list[Line], list[str]]:
    """Read all logs and CSV files among `sources`; give their records, and sentences on what was left out.

    The sentences are among the records' notes, too, which footers show.

    Args:
        sources: what was found, run folders left out.
        ours: records of the run folders beside them. An imported row of the same name, backbone and weights as one of
            theirs gets "(imported)" behind its name.
        asked_for: the path that the user gave; a CSV file that was asked for must be one, others may be something else.

    Raises:
        SpecError: a CSV file has a line that is no good.
    """
    logs = [read_log(source.path) for source in sources if source.kind is Kind.LOG]
    records, left_out = dassl_records.records_of(logs)
    told = _note(records, "Dassl's logs", left_out)
    known = {(label(each), str(each["dataset"])): each["domains"] for each in ours if each.get("domains")}
    numbers = []
    skipped: dict[str, int] = {}
    for source in sources:
        if source.kind is Kind.CSV:
            found = csv_results.read_numbers(source.path, is_asked_for=source.path == asked_for)
            if found is not None:
                numbers += found[0]
                for reason, count in found[1].items():
                    skipped[reason] = skipped.get(reason, 0) + count
    from_csv = csv_results.records_of(numbers, known)
    told += _note(from_csv, "CSV lines", skipped)
    taken = {row_of(each) for each in ours}
    for record in (*records, *from_csv):
        if len(record["domains"]) == 1 and len(known.get((record["protocol"], record["dataset"]), ())) == 1:
            record["domains"] = known[record["protocol"], record["dataset"]]
        if row_of(record) in taken:
            record["algorithm"] = record["predictor"] = f"{record['algorithm']} (imported)"
    return [*records, *from_csv], told


def _note(records: Sequence[Line], what: str, left_out: Mapping[str, int]) -> list[str]:
    """Say in the records' notes what was left out; other files that are called log.txt go without saying."""
    told = "; ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()) if reason != NO_LOG)
    if not told:
        return []
    for record in records:
        record["notes"] = [*record["notes"], f"{what} left out: {told}"]
    return [f"{what} left out: {told}"]
