"""Unit tables, pairing, and which test a comparison gets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.default_test import choose_test, default_p_values, paired_test
from bench.exact_tests import sign_flip_interval, sign_flip_p
from bench.units import (
    Measurement,
    PairedUnits,
    Pairing,
    Scores,
    Unit,
    dataset_table,
    not_paired,
    pair,
    trial_averages,
    trial_means_by_dataset,
    unit_table,
)

FIVE = ("A",) * 4 + ("B",) * 4 + ("C",) * 4 + ("D",) * 4 + ("E",) * 6


def trials(*values: float, first: int = 0, split: object = "s", classes: object = "c") -> dict[int, Measurement]:
    return {first + i: Measurement(value, Pairing(split, classes)) for i, value in enumerate(values)}


def scores(cells: np.ndarray, datasets: tuple[str, ...]) -> Scores:
    """Give the cells (units, trials) as one method's scores; two digits, so that names sort as units are numbered."""
    return {Unit(name, f"{i:02}"): trials(*cells[i]) for i, name in enumerate(datasets)}


def paired(cells: np.ndarray, datasets: tuple[str, ...]) -> PairedUnits:
    return pair(scores(cells, datasets), scores(np.zeros_like(cells), datasets))


def test_differences_are_by_unit_and_trial_whatever_the_order() -> None:
    one, two = Unit("PACS", "A"), Unit("PACS", "C")
    mine = {two: trials(5.0, 6.0), one: dict(reversed(trials(1.0, 4.0).items()))}
    theirs = {one: trials(0.5, 1.0), two: trials(7.0, 7.0)}
    found = pair(mine, theirs)
    assert found.units == (one, two)
    assert [each.tolist() for each in found.differences] == [[0.5, 3.0], [-2.0, -1.0]]
    assert found.means.tolist() == [1.75, -1.5]
    assert (found.n_lost, found.refusal) == (0, "")


def test_a_unit_that_one_lacks_is_lost_and_told() -> None:
    mine = {Unit("PACS", "A"): trials(1.0), Unit("PACS", "C"): trials(2.0), Unit("PACS", "P"): {}}
    found = pair(mine, {Unit("PACS", "A"): trials(0.0), Unit("PACS", "S"): trials(0.0)})
    assert (found.units, found.n_lost) == ((Unit("PACS", "A"),), 3)
    assert pair(mine, {}).refusal == "no unit has both"


@pytest.mark.parametrize(
    ("mine", "theirs", "reason"),
    [
        (trials(1.0, 2.0), trials(1.0, 2.0, first=1), "trial seeds in PACS A are 0, 1 and 1, 2"),
        (trials(1.0), trials(1.0, split="t"), "splits differ in PACS A, trial 0"),
        (trials(1.0), trials(1.0, classes="d"), "class lists differ in PACS A, trial 0"),
        (trials(1.0), trials(1.0, split=None), "splits differ in PACS A, trial 0 (one was not recorded)"),
    ],
)
def test_what_is_not_paired_is_refused_with_the_reason(
    mine: dict[int, Measurement], theirs: dict[int, Measurement], reason: str
) -> None:
    found = pair({Unit("PACS", "A"): mine}, {Unit("PACS", "A"): theirs})
    assert found.refusal == f"not paired: {reason}"
    assert found.differences == ()
    with pytest.raises(ValueError, match="not paired"):
        paired_test(found)


def test_what_neither_recorded_is_taken_for_equal() -> None:
    assert not_paired(trials(1.0, split=None), trials(2.0, split=None), "A") == ""
    assert not_paired({}, {}, "A") == "not paired: trial seeds in A are none and none"


def test_many_seeds_are_shortened_in_the_reason() -> None:
    assert not_paired(trials(*range(15)), trials(1.0), "A").endswith("10, 11 and 3 more and 0")


def test_a_number_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="not finite"):
        pair({Unit("A"): trials(np.nan)}, {Unit("A"): trials(1.0)})
    with pytest.raises(ValueError, match="not finite"):
        unit_table({"ERM": {Unit("A"): trials(np.inf)}})


def test_unit_table_keeps_what_all_have() -> None:
    a, b, c = Unit("PACS", "A"), Unit("PACS", "C"), Unit("VLCS", "L")
    table = unit_table(
        {"ERM": {b: trials(4.0), a: trials(1.0, 3.0), c: trials(9.0)}, "CoOp": {a: trials(5.0), b: {}, c: trials(7.0)}}
    )
    assert (table.units, table.methods, table.n_lost) == ((a, c), ("ERM", "CoOp"), 1)
    assert table.means.tolist() == [[2.0, 5.0], [9.0, 7.0]]
    assert unit_table({"ERM": {a: trials(1.0)}, "CoOp": {c: trials(1.0)}}).means.shape == (0, 2)


def test_data_sets_as_units_weigh_their_domains_equally() -> None:
    a, b, c = Unit("PACS", "A"), Unit("PACS", "C"), Unit("VLCS", "L")
    table = dataset_table(unit_table({"ERM": {a: trials(1.0), b: trials(3.0), c: trials(9.0)}}))
    assert (table.units, table.means.tolist()) == ((Unit("PACS"), Unit("VLCS")), [[2.0], [9.0]])


def test_trial_averages_weigh_data_sets_equally_and_use_common_seeds() -> None:
    a, b, c = Unit("PACS", "A"), Unit("PACS", "C"), Unit("VLCS", "L")
    zeros = {a: trials(0.0, 0.0), b: trials(0.0, 0.0, 0.0), c: trials(0.0, 0.0)}
    found = pair({a: trials(1.0, 2.0), b: trials(3.0, 6.0, 99.0), c: trials(8.0, 10.0)}, zeros)
    assert [each.tolist() for each in trial_means_by_dataset(found)] == [[2.0, 4.0], [8.0, 10.0]]
    assert trial_averages(found).tolist() == [5.0, 7.0]


def test_domains_of_one_data_set_get_the_t_test_over_their_means() -> None:
    cells = np.random.default_rng(0).normal(1, 1, (4, 3))
    found = paired_test(paired(cells, ("PACS",) * 4), alpha=0.1)
    reference = scipy_stats.ttest_1samp(cells.mean(axis=1), 0)
    assert (found.test, found.unit, found.units, found.smallest_p) == ("t", "domain", 4, 0.125)
    assert found.p == pytest.approx(reference.pvalue)
    assert found.low == pytest.approx(reference.confidence_interval(0.9).low)


def test_domains_of_several_data_sets_are_averaged_first() -> None:
    cells = np.random.default_rng(1).normal(1, 1, (22, 3))
    found = paired_test(paired(cells, FIVE))
    means = [cells[[name == each for each in FIVE]].mean() for name in "ABCDE"]
    assert (found.test, found.unit, found.units) == ("t", "data set", 5)
    assert found.difference == pytest.approx(np.mean(means))
    assert found.p == pytest.approx(scipy_stats.ttest_1samp(means, 0).pvalue)


def test_eleven_data_sets_get_the_exact_sign_flip_test() -> None:
    cells = np.random.default_rng(2).normal(1, 1, (11, 3))
    datasets = tuple(f"{i:02}" for i in range(11))
    zeros = {Unit(name): trials(0.0, 0.0, 0.0) for name in datasets}
    found = paired_test(pair({Unit(name): trials(*cells[i]) for i, name in enumerate(datasets)}, zeros))
    assert (found.test, found.unit, found.units, found.smallest_p) == ("sign-flip", "data set", 11, 2 / 2**11)
    assert found.p == sign_flip_p(cells.mean(axis=1))
    assert (found.low, found.high) == sign_flip_interval(cells.mean(axis=1))


def test_these_benchmarks_have_trials_as_units() -> None:
    cells = np.random.default_rng(3).normal(1, 1, (4, 3))
    found = paired_test(paired(cells, ("PACS",) * 4), "these-benchmarks")
    assert (found.test, found.unit, found.units) == ("t-trials", "trial", 3)
    assert found.p == pytest.approx(scipy_stats.ttest_1samp(cells.mean(axis=0), 0).pvalue)


@pytest.mark.parametrize(
    ("cells", "estimand", "reason"),
    [
        (np.ones((2, 3)), "new-domains", "fewer than 3 domains"),
        (np.ones((4, 2)), "these-benchmarks", "fewer than 3 trials"),
        (np.ones((4, 3)), "new-domains", "no spread"),
        (np.ones((4, 3)), "these-benchmarks", "no spread"),
    ],
)
def test_where_there_can_be_no_test_there_is_a_difference_and_the_reason(
    cells: np.ndarray, estimand: str, reason: str
) -> None:
    found = paired_test(paired(cells, ("PACS",) * len(cells)), estimand)
    assert (found.difference, found.p, found.low, found.test) == (1.0, None, None, None)
    assert reason in found.reason


def test_units_without_a_seed_in_common_have_no_test_over_trials() -> None:
    mine = {Unit("PACS", "A"): trials(1.0), Unit("PACS", "C"): trials(3.0, first=5)}
    theirs = {Unit("PACS", "A"): trials(0.0), Unit("PACS", "C"): trials(0.0, first=5)}
    found = paired_test(pair(mine, theirs), "these-benchmarks")
    assert (found.difference, found.p, found.reason) == (2.0, None, "the units have no trial seed in common")


def test_an_unknown_estimand_is_refused() -> None:
    with pytest.raises(ValueError, match="new-domains, these-benchmarks"):
        paired_test(paired(np.ones((4, 3)), ("PACS",) * 4), "all")


@pytest.mark.parametrize(("n", "test"), [(3, "t"), (9, "t"), (10, "sign-flip"), (30, "sign-flip"), (31, "t")])
def test_the_default_test_depends_on_the_number_of_units_alone(n: int, test: str) -> None:
    assert choose_test(n) == test


@pytest.mark.parametrize("datasets", [("PACS",) * 4, FIVE, tuple(f"{i:02}" for i in range(11)), ("W",) * 12])
def test_what_the_simulation_runs_is_what_is_shipped(datasets: tuple[str, ...]) -> None:
    cells = np.random.default_rng(4).normal(0.5, 1, (6, len(datasets), 3))
    shipped = [paired_test(paired(each, datasets)).p for each in cells]
    assert default_p_values(cells, datasets).tolist() == pytest.approx(shipped)


def test_the_order_of_units_changes_nothing() -> None:
    cells = np.random.default_rng(5).normal(0.5, 1, (22, 3))
    mine, theirs = scores(cells, FIVE), scores(np.zeros_like(cells), FIVE)
    order = np.random.default_rng(6).permutation(22)
    shuffled = {list(mine)[i]: mine[list(mine)[i]] for i in order}
    for estimand in ("new-domains", "these-benchmarks"):
        assert paired_test(pair(shuffled, theirs), estimand) == paired_test(pair(mine, theirs), estimand)
