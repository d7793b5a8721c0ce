"""Paired comparison of every row of a table with a reference row.

Units are the domains of a data set's table and the data sets of a table of averages; trials are averaged within a unit
first (see `bench.stats` for why). One table with one reference is one family for Holm's correction. Rows that are not
paired, with other trial seeds, splits or class lists, are refused, with the reason in place of a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.errors import UnknownName
from bench.registry import unknown_name
from bench.selection import Row
from bench.stats import MIN_UNITS, MeanTest, holm, mean_test, wins_ties_losses
from bench.tables import Cell, Table, TableRow

TEST = "paired t-test over unit means (df = units - 1), Holm-adjusted"
DEFAULT_REFERENCES = ("ZeroShot", "ERM")


@dataclass(frozen=True)
class Comparison:
    """One row against the reference row of its table.

    Attributes:
        label: the row, as shown.
        against: the reference row, as shown.
        test: mean difference over units in points, with interval and p; None where refused.
        p_adjusted: p after Holm's correction for the family.
        wins_ties_losses: units above, equal and below.
        n_lost: units of the table that lack a number in either row.
        refusal: why there is no comparison, else why there is no test; empty where there is one.
    """

    label: str
    against: str
    test: MeanTest | None
    p_adjusted: float | None
    wins_ties_losses: tuple[int, int, int]
    n_lost: int
    refusal: str


@dataclass(frozen=True)
class Family:
    """All comparisons of one table: one family for the correction.

    Attributes:
        table: the table they belong to.
        units: what a unit is, "domains" or "data sets".
        alpha: intervals cover 1 - alpha; p below alpha is marked.
        comparisons: one for each row that has a reference, but the references themselves.
    """

    table: Table
    units: str
    alpha: float
    comparisons: tuple[Comparison, ...]

    @property
    def n_tests(self) -> int:
        """Size of the family: comparisons that have a p."""
        return sum(each.p_adjusted is not None for each in self.comparisons)


def choose_reference(rows: Sequence[Row], wished: str | None = None) -> str | None:
    """Give the label to compare with: the wished one, else ZeroShot, ERM or the first; None for a single label.

    Raises:
        UnknownName: no row has the wished label.
    """
    labels = list(dict.fromkeys(row.algorithm for row in rows))
    if wished is not None and wished not in labels:
        raise UnknownName(unknown_name("row to compare with (--against)", wished, tuple(labels)))
    found = [wished] if wished is not None else [name for name in (*DEFAULT_REFERENCES, *labels) if name in labels]
    return found[0] if found and len(labels) > 1 else None


def compare(table: Table, reference: str, alpha: float = 0.05) -> Family:
    """Compare every row with the row labelled `reference` that has its backbone.

    Args:
        table: numbers by trial.
        reference: predictor label, without the backbone.
        alpha: see `Family`.
    """
    against = {(row.row.backbone, row.row.pretrained): row for row in table.rows if row.row.algorithm == reference}
    pairs = [(row, against.get((row.row.backbone, row.row.pretrained))) for row in table.rows]
    single = [
        _compare_rows(row, other, table.columns[:-1], alpha)
        for row, other in pairs
        if other is not None and other is not row
    ]
    adjusted = holm([each.test.p if each.test is not None else None for each in single])
    comparisons = tuple(replace(each, p_adjusted=p) for each, p in zip(single, adjusted, strict=True))
    return Family(table, "data sets" if table.is_average else "domains", alpha, comparisons)


def _compare_rows(row: TableRow, other: TableRow, units: Sequence[str], alpha: float) -> Comparison:
    shared = [
        (unit, mine, theirs)
        for unit, mine, theirs in zip(units, row.cells, other.cells, strict=False)
        if mine.mean is not None and theirs.mean is not None
    ]
    n_lost = len(units) - len(shared)
    refusal = "no unit has both" if not shared else _not_paired(shared)
    if refusal:
        return Comparison(row.label, other.label, None, None, (0, 0, 0), n_lost, refusal)
    differences = [_difference(mine, theirs) for _, mine, theirs in shared]
    test = mean_test(differences, alpha)
    counts = wins_ties_losses(differences, margin=1e-9)
    return Comparison(row.label, other.label, test, None, counts, n_lost, _no_test(test))


def _difference(mine: Cell, theirs: Cell) -> float:
    return float(np.mean([mine.trials[seed].value - theirs.trials[seed].value for seed in mine.trials]))


def _not_paired(shared: Sequence[tuple[str, Cell, Cell]]) -> str:
    """Say why the cells are not paired; empty where they are."""
    for unit, mine, theirs in shared:
        if set(mine.trials) != set(theirs.trials) or not mine.trials:
            return f"not paired: trial seeds in {unit} are {_seeds(mine)} and {_seeds(theirs)}"
        for seed, trial in mine.trials.items():
            if trial.pairing != theirs.trials[seed].pairing:
                return f"not paired: splits or class lists differ in {unit}, trial {seed}"
    return ""


def _no_test(test: MeanTest) -> str:
    if test.p is not None:
        return ""
    return f"fewer than {MIN_UNITS} units" if test.n_units < MIN_UNITS else "no spread between units"


def _seeds(cell: Cell) -> str:
    return ", ".join(map(str, cell.trials)) or "none"
