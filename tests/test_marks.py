"""Best, not told from the best, second: by hand, and how often a row that is truly best goes unmarked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bench.comparison import Question, compare
from bench.marks import marks_footer, verdicts, with_marks
from bench.measures import Measure
from bench.selection import Row
from bench.tables import AVERAGE, AVERAGES, Cell, ColumnMarks, State, Table, TableRow, Trial

ACCURACY = Measure("accuracy", "accuracy", lambda record, domain: 0.0)
FPR = Measure("FPR95", "FPR95", lambda record, domain: 0.0, lower_is_better=True)


def cell(values: Sequence[float], split: object = "s") -> Cell:
    trials = {seed: Trial(float(value), (split, "c")) for seed, value in enumerate(values)}
    return Cell(State.VALUE if trials else State.NOT_RUN, float(np.mean(values)) if trials else None, None, trials)


def table(methods: dict[str, Any], measure: Measure = ACCURACY, dataset: str = "PACS", split: object = "s") -> Table:
    """A table of values (domains, trials), with their averages; the last row has the split `split`."""
    rows = []
    for name, values in methods.items():
        used = split if name == list(methods)[-1] else "s"
        cells = [cell(each, used) for each in values]
        mean = float(np.mean([each.mean for each in cells]))
        average = Cell(State.VALUE, mean, None, {0: Trial(mean, (used,))})
        rows.append(TableRow(name, Row(name, "b", "p"), (*cells, average), ""))
    columns = (*(f"d{i}" for i in range(len(rows[0].cells) - 1)), AVERAGE)
    return Table("leave_one_domain_out", "last", dataset, columns, tuple(rows), (measure,) * len(columns))


def marked(made: Table, **question: Any) -> tuple[ColumnMarks, ...]:
    return with_marks([made], Question(**question))[0].marks


def test_average_is_told_by_holm_adjusted_one_sided_t_tests_over_domains() -> None:
    generator = np.random.default_rng(8)
    methods = {name: generator.normal(mean, 1.2, (5, 2)) for name, mean in zip("ABCDE", (80, 79.2, 78.5, 76, 70))}
    found = marked(table(methods))[-1]
    means = {name: values.mean() for name, values in methods.items()}
    best = max(means, key=lambda name: means[name])
    others = [name for name in methods if name != best]
    p_values = [
        scipy_stats.ttest_rel(methods[best].mean(axis=1), methods[name].mean(axis=1), alternative="greater").pvalue
        for name in others
    ]
    order = np.argsort(p_values)
    adjusted = np.maximum.accumulate([p_values[place] * (len(others) - i) for i, place in enumerate(order)])
    level = {
        others[place] for place, p in zip(order, adjusted) if p >= 0.05 or means[best] - means[others[place]] <= 0.5
    }
    names = list(methods)
    assert 0 < len(level) < len(others)
    assert ({names[i] for i in found.best}, {names[i] for i in found.level}) == ({best}, level)
    assert found.is_tested


def test_single_domain_counts_trials() -> None:
    trials = {"A": [[70.0, 72.0, 71.0]], "B": [[66.0, 68.1, 67.0]], "C": [[60.0, 71.0, 80.0]]}
    column = marked(table(trials))[0]
    assert (column.best, column.level, column.second, column.is_tested) == ({0}, {2}, set(), True)
    assert marked(table(trials), alpha=1e-9)[0].level == {1, 2}


def test_too_few_trials_leave_only_what_is_within_half_a_point() -> None:
    column = marked(table({"A": [[70.0, 70.2]], "B": [[69.6, 69.8]], "C": [[69.0, 69.2]]}))[0]
    assert (column.best, column.level, column.is_tested) == ({0}, {1}, False)


def test_second_is_underlined_only_where_it_is_told_from_the_best() -> None:
    column = marked(table({"A": [[70.0, 70.2]], "B": [[69.0, 69.2]], "C": [[60.0, 60.2]]}))[0]
    assert (column.best, column.level, column.second) == ({0}, set(), {1})
    assert marked(table({"A": [[70.0]], "B": [[69.9]], "C": [[60.0]]}))[0].second == set()


def test_where_lower_is_better_the_lowest_leads() -> None:
    methods = {"A": [[70.0, 72.0, 71.0]], "B": [[66.0, 68.1, 67.0]], "C": [[60.0, 62.0, 61.0]]}
    column = marked(table(methods, FPR))[0]
    assert (column.best, column.level) == ({2}, set())


def test_unpaired_rows_are_not_tested() -> None:
    methods = {"A": [[70.0, 72.0, 71.0]], "B": [[50.0, 90.0, 55.0]], "C": [[50.0, 90.0, 55.0]]}
    column = marked(table(methods, split="another"))[0]
    assert column.level == {1} and column.has_untested


def test_a_row_that_was_not_tested_is_not_second() -> None:
    methods = {"A": [[70.0, 72.0, 71.0]], "C": [[60.0, 75.0, 61.0]], "B": [[69.0, 70.0]]}
    made = table(methods)
    column = marked(made)[0]
    assert (column.best, column.level, column.second) == ({0}, {1}, set())  # B, above C, has two of three trials
    assert "could not be tested" in marks_footer(with_marks([made], Question()), "*", "~", 0.05)[1]


def test_summary_and_averages_are_tested_as_the_tables_they_sum_up() -> None:
    generator = np.random.default_rng(8)
    tables = [
        table({name: generator.normal(mean, 2, (4, 3)) for name, mean in (("A", 70), ("B", 68))}, dataset=dataset)
        for dataset in ("X", "Y", "Z")
    ]
    rows = tuple(
        TableRow(row.label, row.row, (*(each.rows[i].cells[-1] for each in tables), cell([70.0 - 9 * i])), "")
        for i, row in enumerate(tables[0].rows)
    )
    columns = ("X", "Y", "Z", AVERAGE)
    averages = Table("leave_one_domain_out", "last", AVERAGES, columns, rows, (ACCURACY,) * 4, is_average=True)
    found = with_marks([*tables, averages], Question())
    for i in range(3):
        assert found[-1].marks[i].level == found[i].marks[-1].level


def test_reference_marks_stand_at_the_average_and_at_the_summarys_column() -> None:
    base = np.array([[60.0, 61.0], [65.0, 66.0], [70.0, 71.0], [75.0, 76.0]])
    gains = np.array([[5.0], [5.2], [5.1], [4.9]])
    made = table({"ERM": base, "A": base + gains, "B": base + (gains - 5.04) * 2})
    families = compare([made], "ERM")
    of_columns = verdicts(made, families)
    assert of_columns[:-1] == [{}] * 4
    assert of_columns[-1] == {Row("A", "b", "p"): "‡"}
    few = table({"ERM": base[:2], "A": base[:2] + 5})
    assert verdicts(few, compare([few], "ERM"))[-1] == {Row("A", "b", "p"): "·"}


def test_footer_says_what_marks_there_are() -> None:
    (tested,) = with_marks([table({"A": [[70.0, 72, 71]] * 3, "B": [[60.0, 90, 55]] * 3})], Question())
    (untested,) = with_marks([table({"A": [[70.0]], "B": [[69.9]]})], Question())
    (plain,) = with_marks([table({"A": [[70.0]], "B": [[60.0]]})], Question())
    assert "Holm-adjusted p of a one-sided paired test 0.05 or more" in marks_footer([tested], "*", "~", 0.05)[0]
    assert "too few trials or units for tests" in marks_footer([untested], "*", "~", 0.05)[0]
    assert marks_footer([plain], "*", "~", 0.05) == ["*: best of its column."]
    assert marks_footer(with_marks([table({"A": [[70.0]]})], Question()), "*", "~", 0.05) == []


@given(st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=2, max_size=6), st.randoms())
def test_marks_do_not_depend_on_the_order_of_rows(values: list[list[float]], random: Any) -> None:
    methods = {f"m{i}": [each] for i, each in enumerate(values)}
    names = list(methods)
    random.shuffle(names)
    one, other = table(methods), table({name: methods[name] for name in names})

    def named(made: Table, places: frozenset[int]) -> set[str]:
        return {made.rows[place].label for place in places}

    # Rows of equal means are best together; which of them is tested against must not show where they are the same.
    if len({round(float(np.mean(each)), 6) for each in values}) == len(values):
        for mine, theirs in zip(marked(one), marked(other), strict=True):
            assert named(one, mine.best | mine.level) == named(other, theirs.best | theirs.level)


@pytest.mark.parametrize(("n_best", "n_units"), [(2, 4), (3, 4), (6, 4), (3, 11), (6, 5)])
def test_a_truly_best_row_goes_unmarked_in_at_most_five_percent_of_tables(n_best: int, n_units: int) -> None:
    generator = np.random.default_rng(n_best + 10 * n_units)
    n, missed = 600, 0
    for _ in range(n):
        values = generator.normal(60, 5, (n_best + 2, n_units, 1))
        values[n_best:] -= 100  # far below: they must not use up the level, nor free too much of it
        made = table({f"m{i}": each for i, each in enumerate(values)})
        found = marked(made)[-1]
        missed += 0 not in found.best | found.level
    assert missed / n <= 0.05 + 2.5 * (0.05 * 0.95 / n) ** 0.5
