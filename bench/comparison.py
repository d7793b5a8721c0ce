"""Paired comparison of every row of a table with a reference row, tested and corrected as `bench.default_test` says.

A table of one data set compares over its domains, a table of averages over all domains of its data sets, which are
averaged inside them: both start from the cells of single domains, trial by trial. Rows that are not paired, with other
trial seeds, splits or class lists, are refused, with the reason in place of a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.default_test import PairedTest, paired_test, trial_tests
from bench.errors import UnknownName
from bench.measures import scheme
from bench.registry import unknown_name
from bench.selection import Row
from bench.stats import FAMILIES, ROPE, adjust, cluster_means, holm, wins_ties_losses
from bench.tables import Table, TableRow
from bench.units import Measurement, PairedUnits, Pairing, Scores, Unit, pair

DEFAULT_REFERENCES = ("ZeroShot", "ERM")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What all comparisons of a report are asked.

    Attributes:
        alpha: intervals cover 1 - alpha; adjusted p below alpha is marked.
        estimand: one of `bench.default_test.ESTIMANDS`.
        family: one of `bench.stats.FAMILIES`: what is corrected together; None: "metric", but base, new and their harmonic
            mean, three views of one question, together.
    """

    alpha: float = 0.05
    estimand: str = "new-domains"
    family: str | None = None


@dataclass(frozen=True)
class Comparison:
    """One row against the reference row of its table.

    Attributes:
        row: the row.
        label: the row, as shown.
        against: the reference row, as shown.
        paired: differences by unit and trial, in points.
        test: mean difference with interval and p; None where refused.
        p_adjusted: p after Holm's correction for the family; None where there is no test.
        unit_differences: mean difference of each domain (over several data sets: of each data set).
        wins_ties_losses: how many of them are better, within ±`ROPE` points, and worse.
        n_lost: domains of the table that lack a number in either row.
        refusal: why there is no comparison, else why there is no test; empty where there is one.
    """

    row: Row
    label: str
    against: str
    paired: PairedUnits
    test: PairedTest | None
    p_adjusted: float | None
    unit_differences: tuple[float, ...]
    wins_ties_losses: tuple[int, int, int]
    n_lost: int
    refusal: str


@dataclass(frozen=True)
class Family:
    """All comparisons of one table with one reference.

    Attributes:
        table: the table they belong to.
        parts: tables with the cells of single domains: itself, or those that a table of averages is of.
        question: what was asked.
        comparisons: one for each row that has a reference, but the references themselves.
        n_tests: size of the family that p was adjusted in: its comparisons that have a p, those of other tables counted.
    """

    table: Table
    parts: tuple[Table, ...]
    question: Question
    comparisons: tuple[Comparison, ...]
    n_tests: int

    @property
    def units(self) -> str:
        """What a test counts: "domains", "data sets" or "trials"."""
        if self.question.estimand == "these-benchmarks":
            return "trials"
        return "data sets" if self.over_datasets else "domains"

    @property
    def over_datasets(self) -> bool:
        """Whether it is of several data sets, which are averaged inside."""
        return len({part.dataset for part in self.parts}) > 1

    @property
    def n_domains(self) -> int:
        """How many domains there are to compare on."""
        return sum(len(part.columns) - 1 for part in self.parts)

    @property
    def together(self) -> tuple[str, ...]:
        """Names of the measures that are corrected together where the question names no family."""
        name = self.table.measure.name
        trios = [{each.name, *each.of} for each in scheme(self.table.protocol).measures if each.of is not None]
        return tuple(sorted(next((trio for trio in trios if name in trio), {name})))

    @property
    def words(self) -> str:
        """What its p is adjusted within."""
        if self.question.family is not None:
            return FAMILIES[self.question.family]
        if len(self.together) == 1:
            return FAMILIES["metric"]
        return "one table and one reference, base, new and harmonic mean together"

    @property
    def sign(self) -> int:
        """1 where a positive difference is better, -1 where lower is better."""
        return -1 if self.table.measure.lower_is_better else 1


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


def compare(tables: Sequence[Table], reference: str, question: Question | None = None) -> list[Family]:
    """Compare, in every table, each row with the row labelled `reference` that has its backbone.

    Args:
        tables: numbers by trial, under one selection rule; summaries and measures that are not compared are passed over.
        reference: predictor label, without the backbone.
        question: what is asked; the defaults where None.
    """
    question = question or Question()
    of_tables = [table for table in tables if not table.is_summary]
    found = [Family(each, parts_of(each, of_tables), question, (), 0) for each in of_tables if each.measure.is_compared]
    found = [replace(family, comparisons=_comparisons(family, reference)) for family in found]
    keys = [_key(family) for family in found for _ in family.comparisons]
    p_values = [_p(each) for family in found for each in family.comparisons]
    sizes = Counter(key for key, p in zip(keys, p_values, strict=True) if p is not None)
    adjusted = iter(adjust(p_values, keys))
    return [
        replace(
            family,
            comparisons=tuple(replace(each, p_adjusted=next(adjusted)) for each in family.comparisons),
            n_tests=sizes[_key(family)],
        )
        for family in found
    ]


def parts_of(table: Table, tables: Sequence[Table]) -> tuple[Table, ...]:
    """Give the tables with the cells of single domains that a table is of: itself, or all those that it averages."""
    if not table.is_average:
        return (table,)
    of_table = (table.protocol, table.selection, table.measure.name)
    return tuple(
        each
        for each in tables
        if not (each.is_average or each.is_summary) and (each.protocol, each.selection, each.measure.name) == of_table
    )


def scores(row: Row, parts: Sequence[Table]) -> Scores:
    """Give a row's measurements, in percent, on the domains of `parts`; cells without a number are left out."""
    return all_scores(parts).get(row, {})


def all_scores(parts: Sequence[Table]) -> Mapping[Row, Scores]:
    """Give those of every row."""
    found: dict[Row, dict[Unit, dict[int, Measurement]]] = {}
    pairings: dict[tuple[object, ...], Pairing] = {}
    for part in parts:
        units = [Unit(part.dataset, column) for column in part.columns[:-1]]
        for row in part.rows:
            of_row = found.setdefault(row.row, {})
            for unit, cell in zip(units, row.cells[:-1], strict=True):
                if cell.mean is not None:
                    of_row[unit] = {
                        seed: Measurement(trial.value, pairings.setdefault(trial.pairing, Pairing(*trial.pairing)))
                        for seed, trial in cell.trials.items()
                    }
    return found


def by_domain(family: Family) -> list[tuple[str, Comparison]]:
    """Compare on each single domain of a data set: new trainings on exactly this domain, so trials are what is counted.

    All domains and rows of the table are one family for Holm's correction, apart from the table's own.

    Returns:
        Domain and comparison, a row's domains in the order of the table; nothing for a table of averages and for refused
        comparisons.
    """
    if family.table.is_average:
        return []
    columns = family.table.columns
    alone: list[tuple[Comparison, PairedUnits]] = []
    for each in family.comparisons:
        paired = each.paired
        units = sorted(
            zip(paired.units, paired.differences, paired.seeds, strict=True),
            key=lambda one: columns.index(one[0].domain),
        )
        alone += [(each, PairedUnits((unit,), (differences,), (seeds,), 0, "")) for unit, differences, seeds in units]
    tests = trial_tests([paired.differences[0] for _, paired in alone], family.question.alpha)
    found = [
        (paired.units[0].domain, _with_test(each, paired, test, 0, family))
        for (each, paired), test in zip(alone, tests, strict=True)
    ]
    adjusted = holm([_p(each) for _, each in found])
    return [(domain, replace(each, p_adjusted=p)) for (domain, each), p in zip(found, adjusted, strict=True)]


def _key(family: Family) -> Hashable:
    table = family.table
    keys: dict[str | None, Hashable] = {
        None: (table.protocol, table.selection, table.dataset, family.together),
        "metric": (table.protocol, table.selection, table.dataset, table.measure.name),
        "table": (table.protocol, table.selection, table.dataset),
        "report": "report",
    }
    return keys[family.question.family]


def _comparisons(family: Family, reference: str) -> tuple[Comparison, ...]:
    rows = family.table.rows
    against = {(row.row.backbone, row.row.pretrained): row for row in rows if row.row.algorithm == reference}
    of_rows = all_scores(family.parts)
    found = []
    for row in rows:
        key = (row.row.backbone, row.row.pretrained)
        other = against.get(key)
        if other is not None and other is not row:
            paired = pair(of_rows.get(row.row, {}), of_rows.get(other.row, {}))
            found.append(_compare_rows(row, other, paired, family))
    return tuple(found)


def _compare_rows(row: TableRow, other: TableRow, paired: PairedUnits, family: Family) -> Comparison:
    # Domains that neither row has are lost as well.
    n_lost = family.n_domains - len(paired.units) if not paired.refusal else paired.n_lost
    blank = Comparison(row.row, row.label, other.label, paired, None, None, (), (0, 0, 0), n_lost, paired.refusal)
    return blank if paired.refusal else _tested(blank, paired, n_lost, family)


def _tested(blank: Comparison, paired: PairedUnits, n_lost: int, family: Family) -> Comparison:
    question, over_datasets = family.question, family.over_datasets
    test = paired_test(paired, question.estimand, question.alpha, over_datasets=over_datasets)
    return _with_test(blank, paired, test, n_lost, family)


def _with_test(blank: Comparison, paired: PairedUnits, test: PairedTest, n_lost: int, family: Family) -> Comparison:
    means = (cluster_means(paired.means, paired.datasets) if family.over_datasets else paired.means).tolist()
    return replace(
        blank,
        paired=paired,
        test=test,
        p_adjusted=None,
        unit_differences=tuple(means),
        wins_ties_losses=wins_ties_losses([family.sign * mean for mean in means], ROPE),
        n_lost=n_lost,
        refusal=test.reason,
    )


def _p(each: Comparison) -> float | None:
    return each.test.p if each.test is not None else None
