"""Rows of their own for trainings of one method that differ in an hparam: the rows of an ablation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.errors import UnknownName
from bench.records import Results
from bench.registry import unknown_name
from bench.runs import find_runs

SUFFIX = "row_suffix"
"""Key of a record that was given a row of its own: what its label was lengthened by."""


def split_rows(results: Results, names: Sequence[str]) -> Results:
    """Lengthen the labels of trainings by the named hparams, as "CLIPood[average=none]".

    A label stays as it is where all trainings of its method have the same values. Unfinished runs of methods that are
    split are still counted, but not shown as holes: which row they are for is not known before they have records.

    Args:
        results: a loaded results folder.
        names: of hparams.

    Raises:
        UnknownName: no training has an hparam of that name.
    """
    hparams = _hparams(results)
    known = sorted({name for told in hparams.values() for name in told})
    for name in names:
        if name not in known:
            raise UnknownName(unknown_name(f"hparam of the trainings in {results.root} called", name, tuple(known)))
    values: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for record in results.records:
        values[str(record["algorithm"])].add(_values(hparams[str(record["trial"])], names))
    varying = {
        algorithm: [name for place, name in enumerate(names) if len({each[place] for each in found}) > 1]
        for algorithm, found in values.items()
    }
    records = []
    for record in results.records:
        told = hparams[str(record["trial"])]
        suffix = "".join(f"[{name}={told[name]}]" for name in varying[str(record["algorithm"])] if name in told)
        records.append({**record, "predictor": f"{record['predictor']}{suffix}", SUFFIX: suffix} if suffix else record)
    split = {str(record["predictor"]).removesuffix(record[SUFFIX]) for record in records if SUFFIX in record}
    unfinished = frozenset(group for group in results.unfinished if group.row.algorithm not in split)
    return replace(results, records=tuple(records), unfinished=unfinished)


def _hparams(results: Results) -> dict[str, Mapping[str, Any]]:
    """Give the hparams of each trial: from the specs of our runs, from the records of DomainBed's."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in results.records:
        told = record.get("hparams")
        found.setdefault(str(record["trial"]), told if isinstance(told, Mapping) else {})
    for run in find_runs(results.root):
        told = (run.spec_json() or {}).get("hparams") if run.folder.name in found else None
        if isinstance(told, Mapping):
            found[run.folder.name] = told
    return found


def _values(told: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(told[name]) if name in told else "" for name in names)
