"""Tables as numbers: one for each data set (methods x domains), one of averages over data sets. Formats nothing.

A protocol that reports several numbers has such tables for each, and before them a summary (methods x numbers).

A hole stays a hole: the average of a row with a missing cell is missing too, never an average over fewer domains.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from bench import domainbed, sums
from bench.errors import Conflict
from bench.measures import Measure, further_measures, label, scheme
from bench.metrics import harmonic_mean
from bench.selection import Choice, Group, Row, count_domains, row_of
from bench.stats import error_bar

NO_SELECTION = "no"
"""In the place of a selection rule: the numbers are final ones that were imported."""
AVERAGE = "Avg"
AVERAGES = "Averages"
UNLABELED_MARKS = {
    "u": "saw unlabelled images of the held-out domain, none of which is reported on",
    "t": "transductive, trained on the very images of the held-out domain that are reported on, without their labels",
}
FIRST_ROWS = ("ZeroShot", *domainbed.ALGORITHMS)
"""Baselines lead, then DomainBed's order; what is not among them follows by name."""


class State(Enum):
    """What a cell holds."""

    VALUE = "value"
    NOT_RUN = "not run"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class Trial:
    """One trial's number in a cell.

    Attributes:
        value: accuracy, or another measure, in percent.
        pairing: what must agree for a paired comparison: digests of split and class list (None where not recorded).
        choice: the evaluation that it is of; None in an average.
    """

    value: float
    pairing: tuple[object, ...]
    choice: Choice | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        state: whether there is a number, and if not, why.
        mean: mean over trials, in percent; of an average, the plain mean of the unrounded means it averages.
        error: error bar of the mean over trials, in points; None where there are too few trials for one.
        trials: the numbers by trial seed; of an average, those of the trials that all its cells have.
    """

    state: State
    mean: float | None
    error: float | None
    trials: Mapping[int, Trial]

    @property
    def n(self) -> int:
        """Number of trials."""
        return len(self.trials)


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        label: as shown.
        row: what it stands for.
        cells: one for each column, the average last.
        mark: "t" or "u" where the method saw unlabelled images of the held-out domain, see `UNLABELED_MARKS`.
    """

    label: str
    row: Row
    cells: tuple[Cell, ...]
    mark: str


@dataclass(frozen=True)
class ColumnMarks:
    """Which rows of a column are marked, by their places; none where fewer than two have a number.

    Attributes:
        best: best mean, as shown.
        level: not told from the best (`bench.marks`).
        second: second-best mean, where it is told from the best.
        is_tested: whether a test was possible; else only numbers close to the best are `level`.
        has_untested: whether any could not be tested though others were; such a row is neither `level` nor `second`.
    """

    best: frozenset[int] = frozenset()
    level: frozenset[int] = frozenset()
    second: frozenset[int] = frozenset()
    is_tested: bool = False
    has_untested: bool = False


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        protocol: registered protocol, with its options.
        selection: selection rule; "last" where the protocol has nothing to select on, `NO_SELECTION` of imported numbers.
        dataset: data set, or `AVERAGES`.
        columns: short names of the domains (of the data sets in a table of averages), then `AVERAGE`; in a summary the
            names of the measures.
        rows: the methods.
        measures: what each column is a number of.
        is_average: it is of several data sets.
        is_summary: its columns are the averages of other tables, one for each measure.
        is_shown: text shows it; CSV and JSON hold all tables but summaries.
        marks: which numbers of each column are the best; empty before `bench.marks` has been there.
    """

    protocol: str
    selection: str
    dataset: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    measures: tuple[Measure, ...]
    is_average: bool = False
    is_summary: bool = False
    is_shown: bool = True
    marks: tuple[ColumnMarks, ...] = ()

    @property
    def measure(self) -> Measure:
        """What it is a table of; of a summary the first one."""
        return self.measures[0]


@dataclass(frozen=True)
class Layout:
    """What the tables are made of, whichever selection rule fills them.

    Attributes:
        rows: rows in order, with their labels.
        domains: (protocol, data set) -> short names of its domains, in the order of the tables.
        marks: (protocol, data set, row) whose method saw unlabelled images of the held-out domain, with their marks.
        started: groups for which something was run, finished or not.
        measures: protocol -> what its records hold.
        unselected: protocols all of whose records are final numbers that were imported.
    """

    rows: Mapping[Row, str]
    domains: Mapping[tuple[str, str], tuple[str, ...]]
    marks: Mapping[tuple[str, str, Row], str]
    started: frozenset[Group]
    measures: Mapping[str, tuple[Measure, ...]]
    unselected: frozenset[str] = frozenset()


def lay_out(
    records: Sequence[Mapping[str, object]],
    groups: Iterable[Group],
    algorithms: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> Layout:
    """Find the rows, data sets and columns.

    Args:
        records: flat records (with `domains`, or of a data set of DomainBed's).
        groups: groups of the records and of unfinished runs.
        algorithms: row labels or algorithms in the wished order; the usual order where empty.
        datasets: data sets in the wished order; DomainBed's order where empty.

    Raises:
        Conflict: the records of one data set list different domains.
    """
    started = frozenset(groups)
    of_label = {str(record["predictor"]): str(record["algorithm"]) for record in records}
    rows = sorted({group.row for group in started}, key=lambda row: _row_order(row, of_label, tuple(algorithms)))
    domains = _domains(records)
    names = datasets or tuple(domainbed.ENVIRONMENTS)
    order = sorted(domains, key=lambda key: (key[0], _place(key[1], names), natural(key[1])))
    return Layout(
        rows=dict(zip(rows, label_rows(rows), strict=True)),
        domains={key: domains[key] for key in order},
        marks=_unlabeled_marks(records),
        started=started,
        measures={protocol: _measures(protocol, records) for protocol in dict.fromkeys(key[0] for key in order)},
        unselected=frozenset(key[0] for key in order)
        - {label(record) for record in records if "imported" not in record},
    )


def build_tables(layout: Layout, choices: Sequence[Choice], selection: str, errorbars: str) -> list[Table]:
    """Fill one table for each protocol and data set and, of several data sets, one of averages.

    Args:
        layout: rows and columns.
        choices: what `selection` chose.
        selection: the rule, for the record.
        errorbars: one of `bench.stats.ERROR_BARS`.
    """
    found: dict[_Key, dict[int, Choice]] = {}
    for choice in choices:
        key = (choice.protocol, choice.dataset, choice.row, choice.test_domain)
        found.setdefault(key, {})[choice.trial_seed] = choice
    tables: list[Table] = []
    for protocol in dict.fromkeys(protocol for protocol, _ in layout.domains):
        rule = selection if scheme(protocol).validation is not None else "last"
        rule = NO_SELECTION if protocol in layout.unselected else rule
        by_measure: dict[str, list[Table]] = {each.name: [] for each in layout.measures[protocol]}
        for dataset in (dataset for of_protocol, dataset in layout.domains if of_protocol == protocol):
            of_dataset = _tables_of(protocol, dataset, rule, layout, found, errorbars)
            tables += _with_summary(of_dataset)
            for table in of_dataset:
                by_measure[table.measure.name].append(table)
        if len(next(iter(by_measure.values()))) > 1:
            averages: list[Table] = []
            for of_measure in by_measure.values():
                averages.append(_averages(of_measure, averages, layout, errorbars))
            tables += _with_summary(averages)
    return tables


_Key = tuple[str, str, Row, int]


def _tables_of(
    protocol: str, dataset: str, rule: str, layout: Layout, found: Mapping[_Key, Mapping[int, Choice]], errorbars: str
) -> list[Table]:
    """Fill the tables of one data set, one for each measure."""
    names = layout.domains[protocol, dataset]
    started = {group[:4] for group in layout.started}
    columns = _columns(protocol, dataset, names, started)
    tables: list[Table] = []
    for measure in layout.measures[protocol]:
        rows = []
        for row, shown_as in layout.rows.items():
            keys = [(protocol, dataset, row, domain) for domain in columns]
            if any(key in started for key in keys):
                trials = [_trials(found.get(key, {}), measure, key[-1]) for key in keys]
                cells = [_cell(each, key in started, errorbars) for key, each in zip(keys, trials, strict=True)]
                average = _average_of(measure, row, tables, cells, errorbars)
                mark = layout.marks.get((protocol, dataset, row), "")
                rows.append(TableRow(shown_as, row, (*cells, average), mark))
        heads = (*(names[domain] for domain in columns), AVERAGE)
        tables.append(Table(protocol, rule, dataset, heads, tuple(rows), (measure,) * len(heads)))
    return tables


def _columns(protocol: str, dataset: str, names: Sequence[str], started: Iterable[_Key]) -> list[int]:
    """Choose the domains that are columns: all, or those with trials where the protocol fills no others."""
    if not scheme(protocol).only_filled:
        return list(range(len(names)))
    return sorted({key[3] for key in started if key[:2] == (protocol, dataset)})


def _with_summary(tables: list[Table]) -> list[Table]:
    """Put a summary before the tables of several measures, and hide those that say nothing more."""
    if len(tables) == 1:
        return tables
    first = tables[0]
    rows = []
    for place, row in enumerate(first.rows):
        rows.append(replace(row, cells=tuple(table.rows[place].cells[-1] for table in tables)))
    measures = tuple(table.measure for table in tables)
    columns = tuple(measure.name for measure in measures)
    summary = replace(first, columns=columns, rows=tuple(rows), measures=measures, is_summary=True)
    is_wide = len(first.columns) > 2
    return [summary, *(replace(table, is_shown=is_wide and table.measure.is_detailed) for table in tables)]


def _measures(protocol: str, records: Sequence[Mapping[str, object]]) -> tuple[Measure, ...]:
    of_protocol = [record for record in records if label(record) == protocol]
    return (*scheme(protocol).measures, *further_measures(protocol, of_protocol))


def _trials(chosen: Mapping[int, Choice], measure: Measure, domain: int) -> dict[int, Trial]:
    trials = {}
    for seed, choice in chosen.items():
        value = measure.read(choice.record, domain)
        if math.isfinite(value):
            pairing = (choice.record.get("split_digest"), choice.record.get("class_digest"))
            trials[seed] = Trial(100 * value, pairing, choice)
    return trials


def label_rows(rows: Sequence[Row]) -> list[str]:
    """Word the labels: the predictor's name, and the backbone where one table would otherwise mix several."""
    backbones = {(row.backbone, row.pretrained) for row in rows}
    if len(backbones) == 1:
        return [row.algorithm for row in rows]
    return [f"{row.algorithm} ({backbone_name(row, backbones)})" for row in rows]


def backbone_name(row: Row, among: Iterable[tuple[str, str]] = ()) -> str:
    """Name a row's backbone, with its weights where several are in use."""
    if not row.backbone:
        return "DomainBed's"
    several = len({pretrained for backbone, pretrained in among if backbone == row.backbone}) > 1
    return f"{row.backbone}, {row.pretrained}" if several else row.backbone


def best_and_second(table: Table, column: int, digits: int = 1) -> tuple[set[int], set[int]]:
    """Give the rows with the best and the second-best mean of a column, equal as shown counted as equal.

    A column with one number has no best, one with two no second.
    """
    means = {place: row.cells[column].mean for place, row in enumerate(table.rows)}
    shown = {place: round(mean, digits) for place, mean in means.items() if mean is not None}
    ranks = sorted(set(shown.values()), reverse=not table.measures[column].lower_is_better)
    best = {place for place, mean in shown.items() if len(shown) > 1 and mean == ranks[0]}
    second = {place for place, mean in shown.items() if len(shown) > 2 and len(ranks) > 1 and mean == ranks[1]}
    return best, second if len(best) == 1 else set()


def natural(name: str) -> tuple[tuple[bool, float, str], ...]:
    """Give a sort key that puts location_9 before location_38, and a before B."""
    parts = (part for part in re.split(r"([0-9]+(?:\.[0-9]+)?)", name) if part)
    return tuple((False, float(part), "") if part[0] in "0123456789" else (True, 0.0, part.lower()) for part in parts)


def _averages(tables: Sequence[Table], before: Sequence[Table], layout: Layout, errorbars: str) -> Table:
    """Average the tables of one measure over data sets; `before` are the averages of the measures before it."""
    rows = []
    first = tables[0]
    shown = {row.row for table in tables for row in table.rows}
    for row, shown_as in ((row, words) for row, words in layout.rows.items() if row in shown):
        found = [next((each for each in table.rows if each.row == row), None) for table in tables]
        cells = [each.cells[-1] if each else Cell(State.NOT_RUN, None, None, {}) for each in found]
        average = _average_of(first.measure, row, before, cells, errorbars)
        rows.append(TableRow(shown_as, row, (*cells, average), _stricter(each.mark for each in found if each)))
    columns = (*(table.dataset for table in tables), AVERAGE)
    measures = (first.measure,) * len(columns)
    return Table(first.protocol, first.selection, AVERAGES, columns, tuple(rows), measures, is_average=True)


def _average_of(measure: Measure, row: Row, before: Sequence[Table], cells: Sequence[Cell], errorbars: str) -> Cell:
    """Average a row's cells; a harmonic mean is that of the averages of its two measures, as papers print it."""
    if measure.of is None:
        return _average(cells, errorbars)
    first, second = (
        next(each.cells[-1] for each in table.rows if each.row == row)
        for name in measure.of
        for table in before
        if table.measure.name == name
    )
    if first.mean is None or second.mean is None:
        return first if first.mean is None else second
    trials = {}
    for seed in sorted(set(first.trials) & set(second.trials)):
        one, other = first.trials[seed], second.trials[seed]
        trials[seed] = Trial(harmonic_mean(one.value, other.value), one.pairing)
    error = error_bar([trial.value for trial in trials.values()], errorbars) if trials else None
    return Cell(State.VALUE, harmonic_mean(first.mean, second.mean), error, trials)


def _unlabeled_marks(records: Iterable[Mapping[str, object]]) -> dict[tuple[str, str, Row], str]:
    """Give the marks of the rows of each data set; a row with trials of both kinds has the stricter one."""
    found: dict[tuple[str, str, Row], str] = {}
    for record in records:
        mark = "t" if record.get("transductive") else "u" if record.get("unlabeled") else ""
        if mark:
            key = (label(record), str(record["dataset"]), row_of(record))
            found[key] = _stricter((mark, found.get(key, "")))
    return found


def _stricter(marks: Iterable[str]) -> str:
    """Give the one of several marks of `UNLABELED_MARKS` that says more against a comparison."""
    return min(filter(None, marks), default="")


def _cell(trials: Mapping[int, Trial], started: bool, errorbars: str) -> Cell:
    if not trials:
        return Cell(State.INCOMPLETE if started else State.NOT_RUN, None, None, {})
    values = [trials[seed].value for seed in sorted(trials)]
    return Cell(State.VALUE, sums.mean(values), error_bar(values, errorbars), dict(sorted(trials.items())))


def _average(cells: Sequence[Cell], errorbars: str) -> Cell:
    """Average a row: the mean of the means; the error over the averages of the trials that every cell has."""
    means = [cell.mean for cell in cells if cell.mean is not None]
    if len(means) < len(cells):
        states = {cell.state for cell in cells}
        return Cell(State.NOT_RUN if states == {State.NOT_RUN} else State.INCOMPLETE, None, None, {})
    shared = sorted(set.intersection(*(set(cell.trials) for cell in cells)))
    trials = {}
    for seed in shared:
        of_trial = [cell.trials[seed] for cell in cells]
        mean = sums.mean([trial.value for trial in of_trial])
        trials[seed] = Trial(mean, tuple(trial.pairing for trial in of_trial))
    error = error_bar([trial.value for trial in trials.values()], errorbars) if trials else None
    return Cell(State.VALUE, sum(means) / len(means), error, trials)


def _domains(records: Iterable[Mapping[str, object]]) -> dict[tuple[str, str], tuple[str, ...]]:
    named: dict[tuple[str, str], tuple[str, ...]] = {}
    counted: dict[tuple[str, str], int] = {}
    for record in records:
        key = (label(record), str(record["dataset"]))
        counted[key] = max(counted.get(key, 0), count_domains(record))
        names = record.get("domains")
        if isinstance(names, list) and named.setdefault(key, tuple(names)) != tuple(names):
            raise Conflict(
                f"records of {key[1]} list different domains, {', '.join(named[key])} and {', '.join(names)}: "
                "they are of different data and belong in no one table; collect their folders apart"
            )
    return {key: named.get(key) or tuple(map(str, range(n))) for key, n in counted.items()}


def _row_order(row: Row, of_label: Mapping[str, str], algorithms: tuple[str, ...]) -> tuple[object, ...]:
    algorithm = of_label.get(row.algorithm, row.algorithm)
    order = algorithms or FIRST_ROWS
    place = min(_place(row.algorithm, order), _place(algorithm, order))
    return (row.backbone, row.pretrained, place, natural(algorithm), row.algorithm != algorithm, natural(row.algorithm))


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)
