"""What DomainBed's own collector prints, byte for byte.

Facts of DomainBed at b93c22a (December 2024): wording and widths of `scripts/collect_results.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.domainbed.reading import ALGORITHMS, ENVIRONMENTS
from bench.errors import Conflict, RecordsMissing
from bench.selection import DEFAULT_PROTOCOL, DOMAINBED_RULES, Choice, Row, candidates, select
from bench.sums import deviation, mean

_RULE_NAMES = {
    "training-domain": "training-domain validation set",
    "leave-one-out": "leave-one-domain-out cross-validation",
    "oracle": "test-domain validation set (oracle)",
    "last": "last step",
}
_WIDTH = 20
_WIDTH_OF_AVERAGES = 25


def collect(records: Sequence[Mapping[str, Any]], n_lines: int, rules: Iterable[str] = DOMAINBED_RULES) -> str:
    """Give the text that DomainBed's collector prints for `records`.

    Two of its habits are kept with the text: the table of averages averages over whatever domains are there, and labels
    are cut to 20 characters (25 in the averages). One is not: a duplicated line empties no cell of leave-one-out.

    Args:
        records: main predictors only, of one backbone; protocols that DomainBed does not have are left out.
        n_lines: the number to print as total.
        rules: selection rules, in the order of printing.

    Raises:
        RecordsMissing: no data set of the records has known names of its domains.
        Conflict: the records are of several backbones, for which DomainBed's text has no place.
    """
    protocols = dict.fromkeys(str(record["protocol"]) for record in records)
    records = [record for record in records if record["protocol"] == DEFAULT_PROTOCOL]
    if not records:
        raise RecordsMissing(
            f"DomainBed's text has no place for {', '.join(protocols)}, only for {DEFAULT_PROTOCOL}; take another --format"
        )
    found = candidates(records)
    _check_one_backbone({group.row for group in found.of_groups})
    domains = _domains(records)
    if not domains:
        told = sorted({str(record["dataset"]) for record in records})
        raise RecordsMissing(
            f"DomainBed's text needs the domains' names, and knows none for {', '.join(told)}; take another --format"
        )
    lines = [f"Total records: {n_lines}"]
    algorithms = _in_order(_unique(str(record["predictor"]) for record in records), ALGORITHMS)
    for rule in rules:
        choices = select(found, rule)
        for dataset, names in domains.items():
            lines += _domain_table(dataset, names, algorithms, choices, rule)
        lines += _averages_table(list(domains), algorithms, choices, rule)
    return "\n".join(lines) + "\n"


def _check_one_backbone(rows: Iterable[Row]) -> None:
    backbones = {" ".join(row[1:]).strip() or "DomainBed's own" for row in rows}
    if len(backbones) > 1:
        raise Conflict(
            f"DomainBed's text has no place for several backbones ({', '.join(sorted(backbones))}): "
            "collect them apart, or take another --format"
        )


def _domains(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Give the names of each data set's domains, DomainBed's sets first; a set without names is left out."""
    named: dict[str, tuple[str, ...]] = {}
    for record in records:
        if record["dataset"] not in named and record.get("domains"):
            named[record["dataset"]] = tuple(map(str, record["domains"]))
    present = _unique(str(record["dataset"]) for record in records)
    named = {name: ENVIRONMENTS[name] for name in present if name in ENVIRONMENTS} | named
    return {name: named[name] for name in _in_order(sorted(named), tuple(ENVIRONMENTS))}


def _domain_table(
    dataset: str, names: tuple[str, ...], algorithms: list[str], choices: list[Choice], rule: str
) -> list[str]:
    rows = [["Algorithm", *names, "Avg"]]
    for algorithm in algorithms:
        of_row = [choice for choice in choices if choice.dataset == dataset and choice.algorithm == algorithm]
        cells = [[choice.value for choice in of_row if choice.test_domain == domain] for domain in range(len(names))]
        rows.append([algorithm, *_with_average(cells)])
    return ["", f"-------- Dataset: {dataset}, model selection method: {_RULE_NAMES[rule]}", *_lines(rows, _WIDTH)]


def _averages_table(datasets: list[str], algorithms: list[str], choices: list[Choice], rule: str) -> list[str]:
    rows = [["Algorithm", *datasets, "Avg"]]
    for algorithm in algorithms:
        of_row = [choice for choice in choices if choice.algorithm == algorithm]
        rows.append([algorithm, *_with_average([_trial_averages(of_row, dataset) for dataset in datasets])])
    return ["", f"-------- Averages, model selection method: {_RULE_NAMES[rule]}", *_lines(rows, _WIDTH_OF_AVERAGES)]


def _trial_averages(choices: list[Choice], dataset: str) -> list[float]:
    of_trial: dict[int, list[float]] = {}
    for choice in choices:
        if choice.dataset == dataset:
            of_trial.setdefault(choice.trial_seed, []).append(choice.value)
    return [mean(values) for _, values in sorted(of_trial.items())]


def _with_average(cells: list[list[float]]) -> list[str]:
    means = [100 * mean(values) for values in cells if values]
    average = f"{sum(means) / len(means):.1f}" if len(means) == len(cells) else "X"
    return [*map(_mean_and_error, cells), average]


def _mean_and_error(values: list[float]) -> str:
    if not values:
        return "X"
    return f"{100 * mean(values):.1f} +/- {100 * deviation([each / math.sqrt(len(values)) for each in values]):.1f}"


def _lines(rows: list[list[str]], width: int) -> list[str]:
    return ["  ".join(cell.ljust(width)[:width] for cell in row) + " " for row in rows]


def _in_order(names: list[str], order: tuple[str, ...]) -> list[str]:
    return [name for name in order if name in names] + [name for name in names if name not in order]


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
