"""Error bars and paired tests: hand values, second implementations, and the level the shipped test really has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bench.stats import error_bar, holm, mean_test, sign_flip_p, smallest_sign_flip_p, t_p_values, wins_ties_losses

DIFFERENCES = [1.0, 2.0, 3.0, 4.0]


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
    assert (test.mean, test.smallest_p, test.n_units) == (2.5, 0.125, 4)


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


@pytest.mark.parametrize(("n", "smallest"), [(1, 1.0), (2, 0.5), (4, 0.125), (5, 0.0625), (6, 0.03125), (10, 2 / 1024)])
def test_sign_flip_reaches_its_smallest_p_when_all_signs_agree(n: int, smallest: float) -> None:
    assert smallest_sign_flip_p(n) == smallest
    assert sign_flip_p(np.arange(1, n + 1)) == smallest


def test_sign_flip_agrees_with_scipys_exact_permutation() -> None:
    differences = np.array([0.3, -0.1, 0.8, 0.4, -0.2, 0.9])
    reference = scipy_stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_p(differences) == pytest.approx(reference.pvalue)


def test_sign_flip_of_zeros_is_one() -> None:
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_does_not_count_what_was_not_tested() -> None:
    assert holm([None, 0.02, None, 0.5]) == [None, 0.04, None, 0.5]


def test_holm_refuses_what_is_no_p() -> None:
    for wrong in (float("nan"), -0.1, 1.1):
        with pytest.raises(ValueError, match="p-values"):
            holm([0.5, wrong])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_the_order(p_values: list[float], random: object) -> None:
    order = random.sample(range(len(p_values)), len(p_values))  # type: ignore[attr-defined]
    adjusted = holm(p_values)
    assert holm([p_values[i] for i in order]) == [adjusted[i] for i in order]
    assert all(after is not None and after >= before for before, after in zip(p_values, adjusted, strict=True))


def test_wins_ties_losses_with_a_margin() -> None:
    assert wins_ties_losses([1.0, 0.2, 0.0, -0.2, -3.0], margin=0.5) == (1, 3, 1)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 2.0])
def test_level_holds_whatever_the_interaction_of_method_and_domain(ratio: float) -> None:
    """4 domains x 3 trials without a true difference: at most 6 % false positives at .05 (cells pooled: up to 26 %)."""
    stream = np.random.default_rng(int(10 * ratio))
    n_simulations, n_domains, n_trials = 20_000, 4, 3
    interaction = ratio * stream.standard_normal((n_simulations, n_domains, 1))
    cells = interaction + stream.standard_normal((n_simulations, n_domains, n_trials))
    false_positives = np.mean(t_p_values(cells.mean(axis=2)) < 0.05)
    assert false_positives <= 0.06
    if ratio == 2.0:
        assert np.mean(t_p_values(cells.reshape(n_simulations, -1)) < 0.05) > 0.2
