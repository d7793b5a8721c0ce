"""Which numbers of a column are the best, and which cannot be told from it: what bold type in a table means.

A number is told from the best of its column if a paired one-sided test, Holm-adjusted for all rows beside the best, has a
p below the report's level, and it lies further than `ROPE` points away. Which row is best is seen only afterwards, yet a
row that is truly as good goes unmarked in no more than that share of tables (`tests/test_marks.py`). In columns of single
domains the tests count trials, in averages what the report's comparisons count (`bench.default_test`). Where no test is
possible, only numbers within `ROPE` points go with the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bench.comparison import Family, Question, all_scores, parts_of
from bench.comparison_text import NOT_SIGNIFICANT, verdict
from bench.default_test import paired_test
from bench.selection import Row
from bench.stats import MIN_TRIALS, ROPE, holm, t_p_values
from bench.tables import ColumnMarks, Table, best_and_second
from bench.units import pair

_Key = tuple[str, str, str, str]


def with_marks(tables: Sequence[Table], question: Question) -> list[Table]:
    """Give the tables with the marks of all their columns."""
    averages = {_key(table): _average_p(table, tables, question) for table in tables if not table.is_summary}
    return [replace(table, marks=_marks(table, averages, question)) for table in tables]


def verdicts(table: Table, families: Iterable[Family]) -> list[dict[Row, str]]:
    """Give, for each column, row → mark of its comparison with the reference; nothing for columns of single domains."""
    of_average = {_key(family.table): _of_family(family) for family in families}
    if table.is_summary:
        return [of_average.get((*_key(table)[:3], measure.name), {}) for measure in table.measures]
    return [*({} for _ in table.columns[:-1]), of_average.get(_key(table), {})]


def marks_footer(tables: Iterable[Table], best: str, level: str, alpha: float) -> list[str]:
    """Say what the marks of best numbers mean, as far as they occur.

    Args:
        tables: what is shown.
        best: how the best of a column is marked.
        level: how numbers are marked that cannot be told from it.
        alpha: the report's level.
    """
    marks = [marks for table in tables for marks in table.marks if marks.best]
    if not marks:
        return []
    if not any(each.level for each in marks):
        return [f"{best}: best of its column."]
    rope = f"within ±{ROPE:g} points of it"
    how = f"Holm-adjusted p of a one-sided paired test {alpha:g} or more, or {rope}"
    n_tested = sum(each.is_tested for each in marks)
    if n_tested == 0:
        how = f"{rope}; too few trials or units for tests"
    elif n_tested < len(marks):
        how += "; the latter alone in columns with too few trials or units for a test"
    told = [f"{best}: best of its column; {level}: not told from it ({how})."]
    if any(each.has_untested for each in marks):
        told.append(
            "Not marked: rows that could not be tested against it (other trials, or differences without spread)."
        )
    return told


def _of_family(family: Family) -> dict[Row, str]:
    alpha = family.question.alpha
    marks = {
        each.row: "·" if each.p_adjusted is None else verdict(each.p_adjusted, alpha) for each in family.comparisons
    }
    return {row: mark for row, mark in marks.items() if mark != NOT_SIGNIFICANT}


def _key(table: Table) -> _Key:
    return table.protocol, table.selection, table.dataset, table.measure.name


def _marks(table: Table, averages: Mapping[_Key, Mapping[Row, float]], question: Question) -> tuple[ColumnMarks, ...]:
    """Mark all columns of a table; those that are averages of another table are tested as there."""
    protocol, selection, dataset, name = _key(table)
    if table.is_summary:
        found = [averages.get((protocol, selection, dataset, measure.name), {}) for measure in table.measures]
    elif table.is_average:
        found = [averages.get((protocol, selection, each, name), {}) for each in table.columns[:-1]]
        found.append(averages[_key(table)])
    else:
        found = [_domain_p(table, column) for column in range(len(table.columns) - 1)]
        found.append(averages[_key(table)])
    return tuple(_column(table, column, p, question.alpha) for column, p in enumerate(found))


def _column(table: Table, column: int, p_values: Mapping[Row, float], alpha: float) -> ColumnMarks:
    """Mark a column, given the one-sided p of its rows against the best one."""
    best, second = best_and_second(table, column)
    if not best:
        return ColumnMarks()
    adjusted = {row: p for row, p in zip(p_values, holm(list(p_values.values())), strict=True) if p is not None}
    means = {place: mean for place, row in enumerate(table.rows) if (mean := row.cells[column].mean) is not None}
    top = means[min(best)]
    level = {
        place
        for place, mean in means.items()
        if place not in best and (abs(mean - top) <= ROPE or adjusted.get(table.rows[place].row, 0.0) >= alpha)
    }
    untested = {place for place in means if table.rows[place].row not in adjusted} - best - level if p_values else set()
    return ColumnMarks(
        best=frozenset(best),
        level=frozenset(level),
        second=frozenset(second - level - untested),
        is_tested=bool(p_values),
        has_untested=bool(untested),
    )


def _top(table: Table, column: int) -> int | None:
    """Give the row with the best mean, where there are several to choose from."""
    means = {place: mean for place, row in enumerate(table.rows) if (mean := row.cells[column].mean) is not None}
    sign = _sign(table, column)
    return max(means, key=lambda place: sign * means[place]) if len(means) > 1 else None


def _sign(table: Table, column: int) -> int:
    return -1 if table.measures[column].lower_is_better else 1


def _one_sided(p: float, advantage: float) -> float:
    """Turn a two-sided p into that of the best row being better, by `advantage`."""
    return p / 2 if advantage > 0 else 1 - p / 2


def _average_p(table: Table, tables: Sequence[Table], question: Question) -> dict[Row, float]:
    """Test the best average against all rows that are paired with it and can be tested; one-sided p."""
    last = len(table.columns) - 1
    place = _top(table, last)
    if place is None:
        return {}
    parts = parts_of(table, tables)
    of_rows = all_scores(parts)
    over_datasets = len({part.dataset for part in parts}) > 1
    top = of_rows.get(table.rows[place].row, {})
    found = {}
    for other, row in enumerate(table.rows):
        if other != place and row.cells[last].mean is not None:
            paired = pair(top, of_rows.get(row.row, {}))
            test = (
                None
                if paired.refusal
                else paired_test(paired, question.estimand, question.alpha, over_datasets=over_datasets)
            )
            if test is not None and test.p is not None:
                found[row.row] = _one_sided(test.p, _sign(table, last) * test.difference)
    return found


def _domain_p(table: Table, column: int) -> dict[Row, float]:
    """Test the best of one domain against all rows, over trials, by the t-test of their differences; one-sided p."""
    place = _top(table, column)
    top = table.rows[place].cells[column].trials if place is not None else {}
    if len(top) < MIN_TRIALS:
        return {}
    pairing = {seed: trial.pairing for seed, trial in top.items()}
    rows, values = [], []
    for other, row in enumerate(table.rows):
        trials = row.cells[column].trials
        if other != place and {seed: trial.pairing for seed, trial in trials.items()} == pairing:
            rows.append(row.row)
            values.append([trials[seed].value for seed in pairing])
    if not rows:
        return {}
    differences = np.array([top[seed].value for seed in pairing]) - np.array(values)
    advantages = _sign(table, column) * differences.mean(axis=1)
    found = zip(rows, t_p_values(differences), advantages, strict=True)
    return {row: _one_sided(float(p), float(advantage)) for row, p, advantage in found if np.isfinite(p)}
