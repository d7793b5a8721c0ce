"""Accuracy where methods were trained beside accuracy where they were not, and how both change with WiSE-FT's α."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

from bench import sums
from bench.tables import Table, TableRow

IN_DOMAIN = "accuracy on the training domains (out-splits), %"
OUT_OF_DOMAIN = "accuracy on the held-out domain, %"
_ALPHA = re.compile(r"(.+)\[alpha=([0-9]+(?:\.[0-9]+)?)\](.*)")


@dataclass(frozen=True)
class LinePoint:
    """A row's accuracies, each the mean over trials, then domains.

    Attributes:
        label: the row, as shown.
        inside: validation accuracy on the training domains, in percent.
        outside: accuracy on the held-out domains, in percent.
        curve: what it is a point of: rows that differ in alpha only share it.
        alpha: where on that curve; None where it stands alone.
    """

    label: str
    inside: float
    outside: float
    curve: str
    alpha: float | None


def line_points(table: Table) -> list[LinePoint]:
    """Give the points of a data set's table of leave one domain out; none for other tables and rules."""
    is_asked = table.protocol.partition("[")[0] == "leave_one_domain_out" and table.measure.name == "accuracy"
    if not is_asked or table.is_average or table.is_summary or table.selection not in ("training-domain", "last"):
        return []
    points = []
    for row in table.rows:
        inside, outside = _mean_validation(row), row.cells[-1].mean
        if inside is not None and outside is not None:
            match = _ALPHA.fullmatch(row.label)
            curve, alpha = (f"{match[1]}{match[3]}, by alpha", float(match[2])) if match else (row.label, None)
            points.append(LinePoint(row.label, inside, outside, curve, alpha))
    several = {curve for curve, n in Counter(point.curve for point in points).items() if n > 1}
    return [point if point.curve in several else replace(point, curve=point.label, alpha=None) for point in points]


def _mean_validation(row: TableRow) -> float | None:
    """Average a row's validation accuracies over trials, then domains, in percent; None where one is missing."""
    means = []
    for cell in row.cells[:-1]:
        values = [trial.choice.validation if trial.choice is not None else None for trial in cell.trials.values()]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        means.append(100 * sums.mean(known))
    return sums.mean(means) if means else None
