"""Error bars, t-tests over units, corrections and effect sizes: hand values and second implementations."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from bench.stats import (
    CORRECTIONS,
    adjust,
    benjamini_hochberg,
    cluster_means,
    cluster_robust_p_values,
    cluster_robust_test,
    error_bar,
    hochberg,
    holm,
    mean_test,
    probability_of_improvement,
    rank_biserial,
    t_p_values,
    wins_ties_losses,
)

DIFFERENCES = [1.0, 2.0, 3.0, 4.0]
CLUSTERED = np.array([0.8, 1.9, -0.4, 2.2, 1.1, 0.3, -1.2, 0.6, 2.8, 1.4])
CLUSTERS = ("a", "a", "a", "b", "b", "c", "c", "d", "d", "d")
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_error_bars_of_three_trials() -> None:
    assert error_bar([10, 20, 30], "domainbed") == pytest.approx(4.714045)  # DomainBed's format_mean: 20.0 +/- 4.7
    assert error_bar([10, 20, 30], "stderr") == pytest.approx(10 / np.sqrt(3))
    assert error_bar([10, 20, 30], "t95") == pytest.approx(4.302653 * 10 / np.sqrt(3))


def test_one_trial_has_no_error_bar_but_domainbeds_zero() -> None:
    assert error_bar([10], "stderr") is None
    assert error_bar([10], "t95") is None
    assert error_bar([10], "domainbed") == 0.0


def test_t_test_agrees_with_scipy() -> None:
    test = mean_test(DIFFERENCES, alpha=0.1)
    reference = scipy_stats.ttest_1samp(DIFFERENCES, 0)
    interval = reference.confidence_interval(0.9)
    assert test.p == pytest.approx(reference.pvalue)
    assert (test.low, test.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert (test.mean, test.smallest_p, test.n_units, test.df) == (2.5, 0.125, 4, 3)


def test_two_units_give_a_mean_and_no_test() -> None:
    test = mean_test([1.0, 3.0])
    assert (test.mean, test.low, test.high, test.p) == (2.0, None, None, None)


def test_equal_differences_cannot_be_tested_but_equal_methods_can() -> None:
    assert mean_test([0.1 + 0.2, 0.3, 0.3]).p is None
    same = mean_test([0.0, 0.0, 0.0])
    assert (same.p, same.low, same.high) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("differences", [[], [1.0, float("nan"), 2.0], [1.0, float("inf"), 2.0]])
def test_missing_differences_are_refused(differences: list[float]) -> None:
    with pytest.raises(ValueError, match=r"finite|at least one"):
        mean_test(differences)


def test_cluster_means_are_in_the_order_of_their_first_units() -> None:
    assert cluster_means([1.0, 5.0, 3.0], ("b", "a", "b")).tolist() == [2.0, 5.0]


def test_cluster_robust_t_agrees_with_statsmodels() -> None:
    test = cluster_robust_test(CLUSTERED, CLUSTERS, alpha=0.1)
    groups = np.unique(CLUSTERS, return_inverse=True)[1]
    fitted = statsmodels.api.OLS(CLUSTERED, np.ones((len(CLUSTERED), 1))).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
    )
    assert test.p == pytest.approx(fitted.pvalues[0])
    assert (test.low, test.high) == pytest.approx(tuple(fitted.conf_int(0.1)[0]))
    assert (test.n_units, test.df) == (4, 3)


def test_cluster_robust_t_of_equal_clusters_is_the_t_test_of_their_means() -> None:
    clusters = ("a", "b", "c") * 4
    differences = np.random.default_rng(1).standard_normal(12)
    robust, plain = cluster_robust_test(differences, clusters), mean_test(cluster_means(differences, clusters))
    assert (robust.p, robust.low) == (pytest.approx(plain.p), pytest.approx(plain.low))


def test_cluster_robust_t_does_not_depend_on_the_order_of_units() -> None:
    order = np.random.default_rng(2).permutation(len(CLUSTERED))
    shuffled = cluster_robust_test(CLUSTERED[order], [CLUSTERS[i] for i in order])
    assert shuffled.p == pytest.approx(cluster_robust_test(CLUSTERED, CLUSTERS).p)


def test_many_tests_at_once_are_the_single_tests() -> None:
    many = np.random.default_rng(3).standard_normal((5, 10))
    assert t_p_values(many).tolist() == pytest.approx([mean_test(each).p for each in many])
    single = [cluster_robust_test(each, CLUSTERS).p for each in many]
    assert cluster_robust_p_values(many, CLUSTERS).tolist() == pytest.approx(single)


def test_two_clusters_give_no_test_and_lists_must_agree() -> None:
    assert cluster_robust_test([1.0, 2.0, 4.0], ["a", "a", "b"]).p is None
    with pytest.raises(ValueError, match="3 units and 2 names"):
        cluster_robust_test([1.0, 2.0, 3.0], ["a", "b"])


def test_corrections_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert hochberg([0.6, 0.7]) == pytest.approx([0.7, 0.7])
    assert benjamini_hochberg([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.04, 0.04, 0.5])


def test_holm_agrees_with_demsars_example() -> None:
    """Section 3.2.2: three methods against C4.5, .016 < .05/3 and .019 < .05/2 are rejected, .607 is not."""
    adjusted = holm([0.019, 0.607, 0.016])
    assert [each is not None and each < 0.05 for each in adjusted] == [True, False, True]


@pytest.mark.parametrize(("name", "theirs"), [("holm", "holm"), ("hochberg", "simes-hochberg"), ("bh", "fdr_bh")])
def test_corrections_agree_with_statsmodels(name: str, theirs: str) -> None:
    for seed in range(20):
        stream = np.random.default_rng(seed)
        p = np.round(stream.random(1 + seed % 7) ** 3, 2)  # rounded: with ties
        assert CORRECTIONS[name](list(p)) == pytest.approx(list(multipletests(p, method=theirs)[1]))
    assert benjamini_hochberg(list(p)) == pytest.approx(list(scipy_stats.false_discovery_control(p)))


@pytest.mark.parametrize("name", CORRECTIONS)
def test_corrections_do_not_count_what_was_not_tested(name: str) -> None:
    with_holes = CORRECTIONS[name]([None, 0.02, None, 0.5])
    assert [with_holes[1], with_holes[3]] == CORRECTIONS[name]([0.02, 0.5])
    assert with_holes[0] is with_holes[2] is None
    assert CORRECTIONS[name]([]) == []


@pytest.mark.parametrize("name", CORRECTIONS)
@pytest.mark.parametrize("wrong", [float("nan"), -0.1, 1.1])
def test_corrections_refuse_what_is_no_p(name: str, wrong: float) -> None:
    with pytest.raises(ValueError, match="p-values"):
        CORRECTIONS[name]([0.5, wrong])


@pytest.mark.parametrize("name", CORRECTIONS)
@given(p_values=P_VALUES, random=st.randoms(use_true_random=False))
def test_corrections_keep_order_and_never_lower_a_p(name: str, p_values: list[float], random: object) -> None:
    order = random.sample(range(len(p_values)), len(p_values))  # type: ignore[attr-defined]
    adjusted = np.array(CORRECTIONS[name](p_values), dtype=float)
    assert CORRECTIONS[name]([p_values[i] for i in order]) == adjusted[order].tolist()
    assert (adjusted >= np.array(p_values) * (1 - 1e-12)).all() and (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0).all()


@given(P_VALUES)
def test_corrections_are_ordered_among_each_other(p_values: list[float]) -> None:
    by_holm, by_hochberg, by_bh = (np.array(CORRECTIONS[name](p_values), dtype=float) for name in CORRECTIONS)
    assert (by_holm >= by_hochberg - 1e-12).all() and (by_hochberg >= by_bh - 1e-12).all()


@given(P_VALUES, st.floats(0, 1))
def test_a_larger_family_never_makes_holm_milder(p_values: list[float], further: float) -> None:
    alone, together = holm(p_values), holm([*p_values, further])
    assert all(a is not None and b is not None and b >= a - 1e-12 for a, b in zip(alone, together, strict=False))


def test_families_are_corrected_apart() -> None:
    p_values, families = [0.01, 0.02, 0.03, None], ["base", "new", "base", "new"]
    assert adjust(p_values, families) == [0.02, 0.02, 0.03, None]
    assert adjust(p_values, ["all"] * 4) == pytest.approx([0.03, 0.04, 0.04, None])
    assert adjust(p_values, ["all"] * 4, "bh") == pytest.approx([0.03, 0.03, 0.03, None])


def test_wins_ties_losses_with_a_margin() -> None:
    assert wins_ties_losses([1.0, 0.2, 0.0, -0.2, -3.0], margin=0.5) == (1, 3, 1)


def test_probability_of_improvement_agrees_with_statsmodels() -> None:
    share, low, high = probability_of_improvement([1.0, 2.0, -0.5, 3.0, 0.2, 0.1, -2.0], alpha=0.1)
    assert share == 5 / 7
    assert (low, high) == pytest.approx(proportion_confint(5, 7, alpha=0.1, method="beta"))


def test_probability_of_improvement_at_its_ends_and_with_ties() -> None:
    assert probability_of_improvement([1.0, 2.0]) == (1.0, pytest.approx(0.025**0.5), 1.0)
    assert probability_of_improvement([-1.0, -2.0]) == (0.0, 0.0, pytest.approx(1 - 0.025**0.5))
    assert probability_of_improvement([0.0, 0.0])[0] == 0.5


def test_rank_biserial_agrees_with_scipys_rank_sums() -> None:
    differences = np.array([0.3, -0.1, 0.8, 0.4, -0.2, 0.9, 0.0])
    positive = scipy_stats.wilcoxon(differences[:-1], alternative="greater").statistic
    assert rank_biserial(differences) == pytest.approx(2 * positive / 21 - 1)
    assert (rank_biserial([1.0, 2.0]), rank_biserial([-1.0, -2.0]), rank_biserial([0.0, 0.0])) == (1.0, -1.0, 0.0)
