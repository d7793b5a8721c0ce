"""Comparisons of tables' rows: units, pairing, tests, families and scopes, against scipy and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.comparison import Family, Question, by_domain, choose_reference, compare, scores
from bench.comparison_text import comparison_cells, comparison_footer, comparison_title
from bench.default_test import paired_test
from bench.errors import UnknownName
from bench.exact_tests import sign_flip_p
from bench.measures import Measure
from bench.selection import Row
from bench.stats import holm
from bench.tables import AVERAGE, AVERAGES, Cell, State, Table, TableRow, Trial
from bench.units import PairedUnits, Unit

ERM = np.array([[60.0, 62.0], [70.0, 70.0], [80.0, 84.0], [90.0, 90.0]])
BETTER = np.array([[70.0, 70.0], [75.0, 77.0], [90.0, 90.0], [91.0, 93.0]])
ACCURACY = Measure("accuracy", "accuracy", lambda record, domain: 0.0)
FPR = Measure("FPR95", "FPR95", lambda record, domain: 0.0, lower_is_better=True)


def cell(values: Sequence[float], split: object = "s", classes: object = "c", first: int = 0) -> Cell:
    if len(values) == 0:
        return Cell(State.NOT_RUN, None, None, {})
    trials = {first + seed: Trial(float(value), (split, classes)) for seed, value in enumerate(values)}
    return Cell(State.VALUE, float(np.mean(values)), None, trials)


def table(
    methods: dict[str, Any], dataset: str = "PACS", measure: Measure = ACCURACY, backbones: Sequence[str] = ("tiny",)
) -> Table:
    """A table of methods' values, (domains, trials); a cell may be given whole."""
    rows = []
    for name, values in methods.items():
        for backbone in backbones:
            cells = [each if isinstance(each, Cell) else cell(each) for each in values]
            row = Row(name, backbone, "p")
            rows.append(
                TableRow(f"{name} ({backbone})" if len(backbones) > 1 else name, row, (*cells, cell([0.0])), "")
            )
    n = len(next(iter(methods.values())))
    columns = (*(f"d{i:02}" for i in range(n)), AVERAGE)
    return Table("leave_one_domain_out", "last", dataset, columns, tuple(rows), (measure,) * len(columns))


def averages(tables: Sequence[Table]) -> Table:
    """The table of averages over some; its cells do not matter to comparisons."""
    columns = (*(each.dataset for each in tables), AVERAGE)
    rows = tuple(TableRow(row.label, row.row, (cell([0.0]),) * len(columns), "") for row in tables[0].rows)
    first = tables[0]
    return Table(
        first.protocol, first.selection, AVERAGES, columns, rows, (first.measure,) * len(columns), is_average=True
    )


def only(tables: Sequence[Table], **question: Any) -> tuple[Family, Any]:
    """The last family and its only comparison."""
    family = compare(tables, "ERM", Question(**question))[-1]
    (each,) = family.comparisons
    return family, each


def test_over_the_domains_of_a_data_set_it_is_the_paired_t_test_over_domain_means() -> None:
    family, each = only([table({"ERM": ERM, "CLIPood": BETTER})])
    differences = (BETTER - ERM).mean(axis=1)
    reference = scipy_stats.ttest_1samp(differences, 0)
    assert each.test.difference == pytest.approx(differences.mean())
    assert (each.test.p, each.p_adjusted) == pytest.approx((reference.pvalue, reference.pvalue))
    assert (each.test.low, each.test.high) == pytest.approx(tuple(reference.confidence_interval()))
    assert (each.test.test, each.test.smallest_p, family.units) == ("t", 0.125, "domains")
    assert each.unit_differences == pytest.approx(differences.tolist())


def test_over_data_sets_all_domains_count_averaged_inside_their_data_sets() -> None:
    generator = np.random.default_rng(0)
    sizes = {"A": 4, "B": 4, "C": 6}
    mine = {name: generator.normal(70, 5, (n, 3)) for name, n in sizes.items()}
    theirs = {name: generator.normal(68, 5, (n, 3)) for name, n in sizes.items()}
    tables = [table({"ERM": theirs[name], "UEO": mine[name]}, name) for name in sizes]
    family, each = only([*tables, averages(tables)])
    means = [(mine[name] - theirs[name]).mean() for name in sizes]
    assert family.units == "data sets"
    assert family.n_domains == 14
    assert each.test.difference == pytest.approx(np.mean(means))
    assert each.test.p == pytest.approx(scipy_stats.ttest_1samp(means, 0).pvalue)
    assert (each.test.units, each.test.unit) == (3, "data set")


def test_one_data_set_left_of_several_is_one_unit_not_its_domains() -> None:
    gone = [cell([])] * 4
    tables = [
        table({"ERM": ERM, "CLIPood": BETTER}, "A"),
        *(table({"ERM": ERM, "CLIPood": gone}, name) for name in ("B", "C")),
    ]
    _, each = only([*tables, averages(tables)])
    assert (each.test.units, each.test.unit, each.test.p) == (1, "data set", None)
    assert each.refusal == "fewer than 3 data sets"
    assert (each.n_lost, each.wins_ties_losses) == (8, (1, 0, 0))


def test_eleven_data_sets_get_the_exact_sign_flip_test() -> None:
    gains = np.array([3.0, 1.0, -0.4, 2.0, 0.1, 5.0, 1.5, -2.0, 0.7, 4.0, 2.5])
    tables = [table({"ERM": [[50.0]], "CoOp": [[50 + gain]]}, f"D{i}") for i, gain in enumerate(gains)]
    family, each = only([*tables, averages(tables)])
    assert each.test.test == "sign-flip"
    assert each.test.p == pytest.approx(sign_flip_p(gains))
    assert each.wins_ties_losses == (8, 2, 1)
    assert "exact sign-flip test" in comparison_footer([family])[0]
    assert "data sets better, within ±0.5 points, and worse" in comparison_footer([family])[0]


def test_these_benchmarks_count_trials() -> None:
    generator = np.random.default_rng(1)
    mine, theirs = generator.normal(70, 3, (4, 5)), generator.normal(69, 3, (4, 5))
    family, each = only([table({"ERM": theirs, "ARF": mine})], estimand="these-benchmarks")
    reference = scipy_stats.ttest_1samp((mine - theirs).mean(axis=0), 0)
    assert (each.test.test, family.units) == ("t-trials", "trials")
    assert each.test.p == pytest.approx(reference.pvalue)
    assert "exactly these domains" in comparison_footer([family])[0]
    assert comparison_title(family).endswith("over trials")


def test_alpha_is_that_of_the_interval_and_the_marks() -> None:
    made = table({"ERM": ERM, "CLIPood": BETTER})
    wide, narrow = (only([made], alpha=alpha)[1] for alpha in (0.01, 0.2))
    reference = scipy_stats.ttest_1samp((BETTER - ERM).mean(axis=1), 0)
    for each, level in ((wide, 0.99), (narrow, 0.8)):
        assert (each.test.low, each.test.high) == pytest.approx(tuple(reference.confidence_interval(level)))
    assert [comparison_cells(each, alpha)[-1] for each, alpha in ((wide, 0.01), (narrow, 0.2))] == ["n.s.", "‡"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (cell([70.0, 70.0], split="another"), "splits differ in PACS d00, trial 0"),
        (cell([70.0, 70.0], classes="another"), "class lists differ in PACS d00, trial 0"),
        (cell([70.0, 70.0], split=None), "splits differ in PACS d00, trial 0 (one was not recorded)"),
        (cell([70.0, 70.0, 70.0]), "trial seeds in PACS d00 are 0, 1, 2 and 0, 1"),
        (cell([70.0, 70.0], first=1), "trial seeds in PACS d00 are 1, 2 and 0, 1"),
    ],
)
def test_unpaired_rows_are_refused_with_the_reason(changed: Cell, reason: str) -> None:
    family, each = only([table({"ERM": ERM, "CLIPood": [changed, *BETTER[1:]]})])
    assert (each.test, each.p_adjusted, each.wins_ties_losses) == (None, None, (0, 0, 0))
    assert reason in each.refusal
    assert family.n_tests == 0
    assert any(reason in sentence for sentence in comparison_footer([family]))
    assert comparison_cells(each, 0.05)[1:] == ["·"] * 5


def test_domains_that_one_row_or_both_lack_are_left_out_and_told() -> None:
    holes = table({"ERM": [*ERM[:3], [], ERM[3]], "CLIPood": [[], *BETTER[1:3], [], BETTER[3]]})
    family, each = only([holes])
    assert (each.test.units, each.n_lost, family.n_domains) == (3, 2, 5)
    assert "CLIPood on PACS: compared over 3 of 5 domains." in comparison_footer([family])


def test_too_few_units_have_a_difference_and_no_test() -> None:
    family, each = only([table({"ERM": ERM[:2], "CLIPood": BETTER[:2]})])
    assert each.test.difference == pytest.approx(7.5)
    assert (each.test.p, each.test.low, each.test.test) == (None, None, None)
    assert comparison_cells(each, 0.05) == ["CLIPood", "+7.5", "·", "·", "2/0/0", "·"]
    assert "CLIPood on PACS: no test, fewer than 3 domains." in comparison_footer([family])


def test_where_lower_is_better_lower_wins_and_the_difference_keeps_its_sign() -> None:
    family, each = only([table({"ERM": BETTER, "UEO": ERM}, measure=FPR)])
    assert each.wins_ties_losses == (4, 0, 0)
    assert each.test.difference < 0
    assert "lower is better" in comparison_title(family)


def test_each_backbone_is_compared_with_its_own_reference() -> None:
    (family,) = compare([table({"ERM": ERM, "ARF": BETTER}, backbones=("a", "b"))], "ERM")
    assert [(each.label, each.against) for each in family.comparisons] == [
        ("ARF (a)", "ERM (a)"),
        ("ARF (b)", "ERM (b)"),
    ]
    assert family.n_tests == 2


def methods(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: 70 + generator.normal(0, 3, (4, 2)) + shift for shift, name in enumerate(("ERM", "ARF", "UEO"))}


@pytest.mark.parametrize(("name", "sizes"), [("metric", (2, 2, 2)), ("table", (4, 4, 2)), ("report", (6, 6, 6))])
def test_families_are_what_is_corrected_together(name: str, sizes: tuple[int, ...]) -> None:
    tables = [table(methods(0)), table(methods(1), measure=FPR), table(methods(2), "VLCS")]
    found = compare(tables, "ERM", Question(family=name))
    assert tuple(family.n_tests for family in found) == sizes
    groups = {"metric": [[0], [1], [2]], "table": [[0, 1], [2]], "report": [[0, 1, 2]]}[name]
    for group in groups:
        each = [comparison for place in group for comparison in found[place].comparisons]
        assert [one.p_adjusted for one in each] == pytest.approx(holm([one.test.p for one in each if one.test]))
    assert f"(family of {'/'.join(dict.fromkeys(map(str, sizes)))})" in comparison_footer(found)[0]


def test_single_domains_are_compared_over_trials_in_a_family_of_their_own() -> None:
    generator = np.random.default_rng(3)
    mine, theirs = generator.normal(70, 3, (4, 3)), generator.normal(69, 3, (4, 3))
    (family,) = compare([table({"ERM": theirs, "ARF": mine})], "ERM")
    found = by_domain(family)
    assert [domain for domain, _ in found] == ["d00", "d01", "d02", "d03"]
    p_values = scipy_stats.ttest_1samp(mine - theirs, 0, axis=1).pvalue
    assert [each.test.p for _, each in found if each.test] == pytest.approx(p_values.tolist())
    assert [each.p_adjusted for _, each in found] == pytest.approx(holm(p_values.tolist()))
    (before,) = family.comparisons
    assert before.p_adjusted == before.test.p if before.test else False


def test_order_of_rows_and_domains_changes_no_number() -> None:
    one = compare([table({"ERM": ERM, "UEO": ERM + 1.5, "ARF": BETTER})], "ERM")[0]
    backward = table({"ARF": BETTER[::-1], "UEO": (ERM + 1.5)[::-1], "ERM": ERM[::-1]})
    other = compare([backward], "ERM")[0]
    by_label = {each.label: each for each in other.comparisons}
    for each in one.comparisons:
        mine, theirs = each.test, by_label[each.label].test
        assert mine and theirs
        assert by_label[each.label].p_adjusted == pytest.approx(each.p_adjusted)
        assert theirs.difference == pytest.approx(mine.difference)


def test_equal_differences_have_no_spread_to_test_with() -> None:
    _, each = only([table({"ERM": ERM, "UEO": ERM + 1.5})])
    assert each.test.p is None
    assert "no spread" in each.refusal


def test_scores_leave_holes_out() -> None:
    made = table({"ERM": [*ERM[:3], []]})
    assert [unit.domain for unit in scores(made.rows[0].row, [made])] == ["d00", "d01", "d02"]
    assert scores(Row("nobody", "tiny", "p"), [made]) == {}


def test_reference_defaults_to_zero_shot_then_erm_then_the_first() -> None:
    def rows(*names: str) -> list[Row]:
        return [Row(name, "tiny", "embedded") for name in names]

    assert choose_reference(rows("ARF", "ERM", "ZeroShot")) == "ZeroShot"
    assert choose_reference(rows("ARF", "ERM")) == "ERM"
    assert choose_reference(rows("ARF", "UEO")) == "ARF"
    assert choose_reference(rows("ARF")) is None
    with pytest.raises(UnknownName, match="Did you mean 'ERM'"):
        choose_reference(rows("ARF", "ERM"), "EMR")


@pytest.mark.parametrize("n_trials", [1, 2, 3, 7, 12])
def test_single_domains_are_tested_all_at_once_as_each_would_be_alone(n_trials: int) -> None:
    generator = np.random.default_rng(n_trials)
    mine, theirs = generator.normal(70, 3, (5, n_trials)), generator.normal(69, 3, (5, n_trials))
    theirs[2] = mine[2] - 1.5
    theirs[3] = mine[3]
    found = by_domain(only([table({"ERM": theirs, "ARF": mine})])[0])
    for place, (domain, each) in enumerate(found):
        alone = paired_test(
            PairedUnits((Unit("PACS", domain),), (mine[place] - theirs[place],), (tuple(range(n_trials)),), 0, ""),
            "these-benchmarks",
        )
        assert each.test == alone
