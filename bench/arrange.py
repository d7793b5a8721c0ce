"""Which measures, names and order of rows tables are shown with. Changes no number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.errors import SpecError, UnknownName
from bench.registry import unknown_name
from bench.tables import AVERAGE, AVERAGES, Table, TableRow, natural

ORDERS = {
    "usual": "baselines, then DomainBed's methods, then by name; as given in --algorithms",
    "name": "by name",
    "mean": "by the last column, best first",
}


def arrange(tables: Sequence[Table], names: Mapping[str, str] | None = None, order: str = "usual") -> list[Table]:
    """Rename rows, data sets and domains, and order the rows.

    Args:
        tables: all tables of a report.
        names: name → name to show; of a row, its method's or its whole label.
        order: one of `ORDERS`.

    Raises:
        UnknownName: there is nothing to rename.
        SpecError: two things would get the same name.
    """
    renamed = _renamed(tables, names) if names else list(tables)
    return [replace(table, rows=_ordered(table, order)) for table in renamed] if order != "usual" else renamed


def parse_names(pairs: Sequence[str]) -> dict[str, str]:
    """Read OLD=NEW pairs; the name of a predictor may hold "=" in brackets, so the first one after them counts.

    Raises:
        SpecError: a pair lacks a side, or one name is given twice.
    """
    names: dict[str, str] = {}
    for pair in pairs:
        bracket = pair.find("[")
        closed = pair.find("]", bracket) if 0 <= bracket < pair.find("=") else 0
        place = pair.find("=", closed)
        old, new = pair[:place].strip(), pair[place + 1 :].strip()
        if place < 1 or not old or not new or closed < 0:
            raise SpecError(f"--rename takes OLD=NEW, not {pair!r}")
        if names.setdefault(old, new) != new:
            raise SpecError(f"--rename gives {old!r} two names, {names[old]!r} and {new!r}")
    return names


def of_metrics(tables: Sequence[Table], metrics: Sequence[str]) -> list[Table]:
    """Choose the tables and columns of some measures.

    Raises:
        UnknownName: there is no such measure.
    """
    known = tuple(dict.fromkeys(measure.name for table in tables for measure in table.measures))
    for name in metrics:
        if name not in known:
            raise UnknownName(unknown_name("metric (--metric)", name, known))
    chosen = []
    summed: set[tuple[str, str]] = set()
    for table in tables:
        key = (table.protocol, table.dataset)
        if table.is_summary:
            places = [place for place, measure in enumerate(table.measures) if measure.name in metrics]
            if len(places) > 1:
                chosen.append(_columns(table, places))
                summed.add(key)
        elif table.measure.name in metrics:
            # Of one domain, the summary before them says it all.
            says_more = table.is_shown or len(table.columns) > 2 or key not in summed
            chosen.append(replace(table, is_shown=says_more))
    return chosen


def _columns(summary: Table, places: Sequence[int]) -> Table:
    rows = tuple(replace(row, cells=tuple(row.cells[place] for place in places)) for row in summary.rows)
    columns = tuple(summary.columns[place] for place in places)
    measures = tuple(summary.measures[place] for place in places)
    marks = tuple(summary.marks[place] for place in places) if summary.marks else ()
    return replace(summary, columns=columns, rows=rows, measures=measures, marks=marks)


def _renamed(tables: Sequence[Table], names: Mapping[str, str]) -> list[Table]:
    known = {
        *(name for table in tables for row in table.rows for name in (row.label, row.row.algorithm)),
        *(name for table in tables for name in (table.dataset, *table.columns)),
    } - {AVERAGE, AVERAGES}
    for old in names:
        if old not in known:
            raise UnknownName(unknown_name("row, data set or domain to rename (--rename)", old, tuple(sorted(known))))
    found = []
    for table in tables:
        rows = tuple(replace(row, label=_label(row, names)) for row in table.rows)
        columns = tuple(names.get(column, column) if column != AVERAGE else column for column in table.columns)
        _check_unique([row.label for row in rows])
        _check_unique(columns)
        found.append(replace(table, dataset=names.get(table.dataset, table.dataset), columns=columns, rows=rows))
    return found


def _label(row: TableRow, names: Mapping[str, str]) -> str:
    if row.label in names:
        return names[row.label]
    algorithm = row.row.algorithm
    return names.get(algorithm, algorithm) + row.label.removeprefix(algorithm)


def _check_unique(shown: Sequence[str]) -> None:
    twice = next((name for name in shown if list(shown).count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"--rename would give two rows or columns the name {twice!r}")


def _ordered(table: Table, order: str) -> tuple[TableRow, ...]:
    if order == "name":
        return tuple(sorted(table.rows, key=lambda row: natural(row.label)))
    sign = 1 if table.measures[-1].lower_is_better else -1

    def key(row: TableRow) -> float:
        mean = row.cells[-1].mean
        return math.inf if mean is None else sign * mean

    return tuple(sorted(table.rows, key=key))
