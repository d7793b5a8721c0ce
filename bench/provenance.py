"""Where the numbers of a table come from: versions, digests, backbones, steps, and warnings where they are mixed.

Reads the provenance keys of records; takes no part in choosing or testing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.selection import Choice, Row, row_of


@dataclass(frozen=True)
class Provenance:
    """What records say of their origin; every value in a stable order.

    Attributes:
        code: versions or commits of the code.
        data_digests: data set -> digests of its file list.
        backbones: backbones with their weights, as "tiny (embedded)".
        steps: data set -> final steps of its trainings, 0 (no training) left out.
        bad_images: data set -> images left out since they could not be read.
        notes: remarks that trials made.
        warnings: what the tables mix that they should not.
    """

    code: tuple[str, ...]
    data_digests: Mapping[str, tuple[str, ...]]
    backbones: tuple[str, ...]
    steps: Mapping[str, tuple[int, ...]]
    bad_images: Mapping[str, int]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def trace(records: Sequence[Mapping[str, Any]]) -> Provenance:
    """Sum up the origin of flat `records`, and warn of every mixture."""
    by_dataset: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        by_dataset[str(record["dataset"])].append(record)
    data_digests = {name: _values(of_one, "data_digest") for name, of_one in by_dataset.items()}
    steps = {name: _final_steps(of_one) for name, of_one in by_dataset.items()}
    code = _values(records, "code")
    return Provenance(
        code=code,
        data_digests={name: digests for name, digests in data_digests.items() if digests},
        backbones=tuple(sorted({_backbone(row_of(record)) for record in records})),
        steps={name: _distinct(of_one.values()) for name, of_one in steps.items() if any(map(any, of_one.values()))},
        bad_images={name: count for name, of_one in by_dataset.items() if (count := _bad_images(of_one))},
        notes=tuple(sorted({str(note) for record in records for note in record.get("notes") or ()})),
        warnings=(
            *_mixed("code versions", code),
            *_mixed_by("backbone weights of one name", _digests_of_backbones(records)),
            *_mixed_by("protocol versions", _grouped(records, "protocol", "protocol_version")),
            *_mixed_by("data digests", data_digests),
            *_mixed_by("class lists", _class_lists(records)),
            *_mixed_splits(records),
            *(warning for name, of_one in steps.items() for warning in _mixed_steps(name, of_one)),
        ),
    )


def several_runs(choices: Iterable[Choice]) -> list[str]:
    """Say how many hparams each row was chosen from, where that is more than one for any."""
    counts: dict[str, set[int]] = defaultdict(set)
    for choice in choices:
        counts[choice.algorithm].add(choice.n_candidates)
    if all(of_row == {1} for of_row in counts.values()):
        return []
    told = (f"{label} {_range(of_row)}" for label, of_row in sorted(counts.items()))
    return [f"Hparams tried for each number: {', '.join(told)}."]


def competing_runs(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Warn of rows in which trials differ in more than their seeds: selection chose between them, as if searching."""
    trials: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for record in records:
        seeds = (record["trial_seed"], record["hparams_seed"], *record["test_domains"])
        trials[(row_of(record), record["dataset"], record.get("protocol"), *seeds)].add(str(record["trial"]))
    rows = sorted({key[0].algorithm for key, ids in trials.items() if len(ids) > 1 and isinstance(key[0], Row)})
    if not rows:
        return []
    return [
        f"trials of {', '.join(rows)} with equal seeds differ in hparams, steps or options, and selection chose between "
        "them; launch ablations with a --name of their own, or give them rows of their own: --rows-by HPARAM"
    ]


def _values(records: Iterable[Mapping[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(sorted({str(record[key]) for record in records if record.get(key) not in (None, "")}))


def _grouped(records: Iterable[Mapping[str, Any]], by: str, key: str) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        groups[str(record.get(by))].append(record)
    return {name: _values(of_one, key) for name, of_one in groups.items()}


def _class_lists(records: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Give the class lists that were trained on, by data set; each protocol has its own."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        groups[str(record["dataset"]), str(record.get("protocol"))].append(record)
    return {
        dataset: values for (dataset, _), of_one in groups.items() if len(values := _values(of_one, "class_digest")) > 1
    }


def _digests_of_backbones(records: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        groups[_backbone(row_of(record))].append(record)
    return {name: _values(of_one, "backbone_digest") for name, of_one in groups.items()}


def _backbone(row: Row) -> str:
    if not row.backbone:
        return "not recorded (DomainBed)"
    return f"{row.backbone} ({row.pretrained})" if row.pretrained else row.backbone


def _final_steps(records: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Give, by row label, the distinct last steps of its trials."""
    last: dict[tuple[str, str], int] = {}
    for record in records:
        key = (str(record["predictor"]), str(record["trial"]))
        last[key] = max(last.get(key, 0), int(record["step"]))
    by_label: dict[str, set[int]] = defaultdict(set)
    for (label, _), step in last.items():
        by_label[label].add(step)
    return {label: _distinct([steps]) for label, steps in by_label.items()}


def _distinct(groups: Iterable[Iterable[int]]) -> tuple[int, ...]:
    """Give the distinct numbers of all groups in order, 0 left out where there are others."""
    numbers = sorted({number for group in groups for number in group})
    return tuple(number for number in numbers if number) or tuple(numbers)


def _bad_images(records: Iterable[Mapping[str, Any]]) -> int:
    return max((int(record.get("n_bad_images") or 0) for record in records), default=0)


def _mixed(what: str, values: Sequence[str], where: str = "") -> list[str]:
    if len(values) < 2:
        return []
    return [f"these tables mix {what}{where}: {', '.join(short(value) for value in values)}"]


def _mixed_by(what: str, values: Mapping[str, Sequence[str]]) -> list[str]:
    return [warning for name, of_one in sorted(values.items()) for warning in _mixed(what, of_one, f" in {name}")]


def _mixed_splits(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Warn of data sets where one held-out domain and trial seed has several splits in one protocol."""
    splits: dict[tuple[str, str, tuple[int, ...], int], set[str]] = defaultdict(set)
    for record in records:
        if record.get("split_digest"):
            where = (str(record["dataset"]), str(record.get("protocol")))
            splits[*where, tuple(record["test_domains"]), int(record["trial_seed"])].add(str(record["split_digest"]))
    mixed = sorted({dataset for (dataset, *_), digests in splits.items() if len(digests) > 1})
    return [f"these tables mix splits in {dataset}: the same trial seed has several split digests" for dataset in mixed]


def _mixed_steps(dataset: str, steps: Mapping[str, tuple[int, ...]]) -> list[str]:
    if len(_distinct(steps.values())) < 2:
        return []
    told = (f"{label} {_range(of_row)}" for label, of_row in sorted(steps.items()))
    return [f"these tables mix step counts in {dataset}: {', '.join(told)}"]


def _range(numbers: Iterable[int]) -> str:
    ordered = sorted(numbers)
    return "/".join(map(str, ordered))


def short(digest: str) -> str:
    """Shorten a long hexadecimal digest to twelve digits; other text stays."""
    is_digest = len(digest) >= 32 and all(digit in "0123456789abcdef" for digit in digest)
    return digest[:12] if is_digest else digest
