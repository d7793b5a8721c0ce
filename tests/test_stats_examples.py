"""Tests on stored predictions: McNemar, two-way bootstrap and permutation, against brute force and second sources."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar

from bench.example_tests import (
    correctness_differences,
    mcnemar_p,
    permutation_test,
    two_way_bootstrap,
    two_way_test,
)


def drawn(seed: int, n_trials: int, n_examples: int) -> NDArray[np.float64]:
    """Correlated within trials and within examples, a little in favour of the first method."""
    stream = np.random.default_rng(seed)
    shared = 0.3 * stream.standard_normal((n_trials, 1)) + stream.standard_normal((1, n_examples)) + 0.2
    return np.sign(np.trunc(shared + 0.8 * stream.standard_normal((n_trials, n_examples))))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (3, 9), (9, 3), (10, 10), (40, 61)])
def test_mcnemar_agrees_with_statsmodels_and_the_binomial_test(b: int, c: int) -> None:
    assert float(mcnemar_p(b, c)) == pytest.approx(float(mcnemar([[50, b], [c, 50]], exact=True).pvalue))
    if b + c:
        assert float(mcnemar_p(b, c)) == pytest.approx(scipy_stats.binomtest(b, b + c).pvalue)


def test_mcnemar_takes_many_trials_at_once() -> None:
    assert mcnemar_p([3, 0], [9, 0]).tolist() == [float(mcnemar_p(3, 9)), 1.0]


def test_trials_with_other_images_are_brought_together_by_their_numbers() -> None:
    yes, no = True, False
    found = correctness_differences(
        [np.array([7, 2]), np.array([2, 9])],
        [np.array([yes, no]), np.array([yes, yes])],
        [np.array([no, no]), np.array([yes, no])],
    )
    assert np.array_equal(found, [[0, 1, np.nan], [0, np.nan, 1]], equal_nan=True)


@pytest.mark.parametrize("index", [[1, 1], [1, 2, 3], []])
def test_results_that_do_not_belong_together_are_refused(index: list[int]) -> None:
    outcomes = [np.array([True, False])]
    with pytest.raises(ValueError, match="each of them once"):
        correctness_differences([np.array(index, dtype=int)], outcomes, outcomes)


def test_two_way_test_is_the_analysis_of_variance_where_nothing_is_missing() -> None:
    cells = 100 * drawn(0, 4, 300)
    n_trials, n_examples = cells.shape
    by_trial, by_example = cells.mean(axis=1), cells.mean(axis=0)
    rest = cells - by_trial[:, None] - by_example[None, :] + cells.mean()
    of_trials = n_examples * by_trial.var(ddof=1)
    of_examples = n_trials * by_example.var(ddof=1)
    of_rest = (rest**2).sum() / ((n_trials - 1) * (n_examples - 1))
    assert of_trials > of_rest  # else the lower bound would count
    found = two_way_test(cells / 100)
    assert found.trial_error is not None and found.example_error is not None and found.low is not None
    assert found.difference == pytest.approx(cells.mean())
    assert found.trial_error**2 == pytest.approx(of_trials / cells.size)
    assert found.example_error**2 == pytest.approx((of_examples - of_rest) / cells.size)
    error = np.sqrt(found.trial_error**2 + found.example_error**2)
    df = 3 * (error / found.trial_error) ** 4
    assert found.p == pytest.approx(2 * scipy_stats.t.sf(abs(found.difference) / error, df))
    assert found.low == pytest.approx(found.difference - error * scipy_stats.t.ppf(0.975, df))


def test_two_trials_give_a_difference_and_no_interval() -> None:
    found = two_way_test(drawn(0, 2, 50))
    assert (found.low, found.high, found.p) == (None, None, None)


def test_equal_methods_have_p_one() -> None:
    found = two_way_test(np.zeros((3, 20)))
    assert (found.difference, found.low, found.p) == (0.0, 0.0, 1.0)


def test_trials_that_agree_by_luck_do_not_shrink_the_error_below_that_of_their_images() -> None:
    cells = np.concatenate([np.eye(3), -np.eye(3)], axis=1)  # trial means all 0, every image differs in one trial only
    found = two_way_test(np.tile(cells, 20))
    assert found.trial_error == pytest.approx(100 * np.sqrt((1 / 3) / 360), rel=0.02)


@pytest.mark.parametrize("n_trials", [1, 3])
def test_bootstrap_has_the_moments_of_drawing_one_by_one(n_trials: int) -> None:
    cells = drawn(1, n_trials, 60)
    cells[0, :7] = np.nan
    stream = np.random.default_rng(5)
    slow = []
    for _ in range(4000):
        trials = stream.integers(n_trials, size=max(1, n_trials - 1))
        examples = stream.integers(60, size=60)
        slow.append(100 * np.mean([np.nanmean(cells[trial, examples]) for trial in trials]))
    fast = two_way_bootstrap(cells, np.random.default_rng(6), n_resamples=20_000)
    assert (fast.low, fast.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.3 * np.std(slow))
    assert fast.share_above == pytest.approx((np.sign(np.round(slow, 9)).mean() + 1) / 2, abs=0.03)


def test_bootstrap_draws_one_trial_less_than_there_are() -> None:
    """Two draws of three trials are both the best one in 1/9 of the cases, three draws would be in 1/27."""
    cells = np.repeat([[1.0], [0.0], [-1.0]], 20, axis=1)
    found = two_way_bootstrap(cells, np.random.default_rng(0), alpha=0.1)
    assert (found.low, found.high) == (-100.0, 100.0)


def test_bootstrap_of_one_trial_agrees_with_scipy() -> None:
    cells = drawn(2, 1, 200)
    reference = scipy_stats.bootstrap((cells[0],), np.mean, method="percentile", rng=1).confidence_interval
    ours = two_way_bootstrap(cells, np.random.default_rng(2))
    assert (ours.low, ours.high) == pytest.approx((100 * reference.low, 100 * reference.high), abs=0.6)


def test_bootstrap_is_its_generators_and_does_not_depend_on_the_order_of_examples() -> None:
    cells = drawn(3, 3, 90)
    one, two = (two_way_bootstrap(each, np.random.default_rng(1), 500) for each in (cells, cells[:, ::-1]))
    assert one == two
    assert two_way_bootstrap(cells, np.random.default_rng(2), 500) != one


def test_bootstrap_in_parts_is_of_the_size_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.example_tests._MOST_DRAWN", 40)
    found = two_way_bootstrap(drawn(4, 3, 40), np.random.default_rng(1), n_resamples=301)
    assert found.n_resamples == 301
    assert found.low < found.difference < found.high


def test_bootstrap_refuses_a_trial_without_examples() -> None:
    with pytest.raises(ValueError, match="needs an example"), pytest.warns(RuntimeWarning, match="empty"):
        two_way_bootstrap(np.array([[1.0, 0.0], [np.nan, np.nan]]), np.random.default_rng(0))


def test_permutation_of_one_trial_is_mcnemar() -> None:
    cells = drawn(5, 1, 120)
    found = permutation_test(cells)
    assert found.p_examples == pytest.approx(float(mcnemar_p((cells > 0).sum(), (cells < 0).sum())))


def test_permutations_are_the_enumerated_ones() -> None:
    for seed in range(20):
        cells = drawn(seed, 3, 9)
        sums = cells.sum(axis=0)
        flipped = [abs(float(np.dot(signs, sums))) for signs in product((1, -1), repeat=9)]
        by_trial = [abs(float(np.dot(signs, cells.sum(axis=1)))) for signs in product((1, -1), repeat=3)]
        found = permutation_test(cells)
        assert found.p_examples == pytest.approx(np.mean(np.array(flipped) >= abs(sums.sum())))
        assert found.p_trials == pytest.approx(np.mean(np.array(by_trial) >= abs(sums.sum())))
        assert found.p_both == max(found.p_examples, found.p_trials)
    assert found.smallest_p_trials == 0.25


def test_permutation_of_many_examples_approaches_the_normal() -> None:
    cells = drawn(6, 3, 20_000)
    cells[:, : 20_000 // 3] = 0  # the favour for the first method becomes a small one
    cells[:, 7_000:13_400] *= -1
    sums = cells.sum(axis=0)
    z = abs(sums.sum()) / np.sqrt((sums**2).sum())
    assert permutation_test(cells).p_examples == pytest.approx(2 * scipy_stats.norm.sf(z), rel=0.02)
