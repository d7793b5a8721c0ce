"""Sign-flip and Wilcoxon: by enumeration, against scipy, and against Demšar's example."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bench.exact_tests import (
    average_ranks,
    sign_flip_interval,
    sign_flip_p,
    sign_flip_p_values,
    smallest_p,
    wilcoxon,
)

# Whole tenths: many ties and zeros.
TENTHS = st.lists(st.integers(-6, 6).map(lambda n: n / 10), min_size=1, max_size=7)
DEMSAR = [0.005, -0.008, 0.017, 0.033, 0.006, -0.005, 0.007, 0.0, 0.063, 0.0, 0.022, 0.047, 0.009, 0.021]
"""Demšar (2006), table 2: AUC of C4.5+m less that of C4.5 on 14 data sets."""


def enumerated_p(numbers: list[float]) -> float:
    """Share of all sign patterns whose sum is as far from 0, in whole numbers so that ties are ties."""
    whole = [round(1000 * number) for number in numbers]
    sums = [sum(s * n for s, n in zip(signs, whole, strict=True)) for signs in product((1, -1), repeat=len(whole))]
    return float(np.mean([abs(each) >= abs(sum(whole)) for each in sums]))


def enumerated_wilcoxon_p(numbers: list[float]) -> float:
    ranks = scipy_stats.rankdata(np.round(np.abs(numbers), 6)) * (np.array(numbers) != 0)
    return enumerated_p(list(np.sign(numbers) * ranks))


@pytest.mark.parametrize(("n", "smallest"), [(1, 1.0), (2, 0.5), (4, 0.125), (5, 0.0625), (6, 0.03125), (10, 2 / 1024)])
def test_exact_tests_reach_their_smallest_p_when_all_signs_agree(n: int, smallest: float) -> None:
    assert smallest_p(n) == smallest
    assert sign_flip_p(np.arange(1, n + 1)) == smallest
    assert wilcoxon(np.arange(1, n + 1)).p == wilcoxon(np.arange(1, n + 1)).smallest_p == smallest


@given(TENTHS)
def test_sign_flip_p_is_the_enumerated_one(differences: list[float]) -> None:
    assert sign_flip_p(differences) == pytest.approx(enumerated_p(differences))
    assert sign_flip_p_values([differences, differences]).tolist() == [pytest.approx(enumerated_p(differences))] * 2


@given(TENTHS)
def test_wilcoxon_p_is_the_enumerated_one_with_ties_and_zeros(differences: list[float]) -> None:
    assert wilcoxon(differences).p == pytest.approx(enumerated_wilcoxon_p(differences))
    without = [number for number in differences if number]
    expected = enumerated_wilcoxon_p(without) if without else 1.0
    assert wilcoxon(differences, zeros="wilcox").p == pytest.approx(expected)


@given(TENTHS, st.randoms(use_true_random=False))
def test_exact_tests_do_not_depend_on_order_or_sign(differences: list[float], random: object) -> None:
    order = random.sample(range(len(differences)), len(differences))  # type: ignore[attr-defined]
    other = [-differences[i] for i in order]
    assert sign_flip_p(other) == sign_flip_p(differences)
    one, two = wilcoxon(differences), wilcoxon(other)
    assert (two.p, two.positive, two.negative) == (one.p, one.negative, one.positive)


def test_sign_flip_agrees_with_scipys_exact_permutation() -> None:
    differences = np.array([0.3, -0.1, 0.8, 0.4, -0.2, 0.9])
    reference = scipy_stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_p(differences) == pytest.approx(reference.pvalue)


def test_sign_flip_in_halves_agrees_with_all_patterns() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1, 14)
    assert sign_flip_p(differences) == pytest.approx(float(sign_flip_p_values(differences)))


def test_sign_flip_of_thirty_units_approaches_the_t_test() -> None:
    differences = np.random.default_rng(1).normal(0.4, 1, 30)
    assert sign_flip_p(differences) == pytest.approx(scipy_stats.ttest_1samp(differences, 0).pvalue, abs=0.003)


def test_exact_tests_of_zeros_are_one() -> None:
    assert sign_flip_p([0.0, 0.0, 0.0]) == wilcoxon([0.0, 0.0, 0.0]).p == wilcoxon([]).p == 1.0


@pytest.mark.parametrize("n", [0, 31])
def test_sign_flip_refuses_what_it_cannot_enumerate(n: int) -> None:
    with pytest.raises(ValueError, match="1 to 30 units"):
        sign_flip_p(np.ones(n))


def test_float_noise_breaks_no_tie() -> None:
    assert wilcoxon([0.3, -(0.1 + 0.2), 0.5]).p == wilcoxon([0.3, -0.3, 0.5]).p
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0


@pytest.mark.parametrize("zeros", ["pratt", "wilcox"])
def test_wilcoxon_agrees_with_scipys_exact_permutation(zeros: str) -> None:
    for seed in range(10):
        differences = np.round(np.random.default_rng(seed).normal(0.3, 1, 9), 1)
        method = scipy_stats.PermutationMethod(n_resamples=np.inf)
        reference = scipy_stats.wilcoxon(np.round(10 * differences), zero_method=zeros, method=method)
        assert wilcoxon(differences, zeros).p == pytest.approx(reference.pvalue)


def test_wilcoxon_without_ties_agrees_with_scipys_exact_distribution() -> None:
    differences = np.random.default_rng(3).normal(0.3, 1, 25)
    assert wilcoxon(differences).p == pytest.approx(scipy_stats.wilcoxon(differences, method="exact").pvalue)


def test_wilcoxon_agrees_with_demsars_example() -> None:
    """Section 3.1.3: R+ = 93 and R- = 12, the ranks 1.5 of the two zeros split; significant at .05."""
    ranks = wilcoxon(DEMSAR)
    assert (ranks.positive + 1.5, ranks.negative + 1.5) == (93, 12)
    assert ranks.n_used == 12
    assert ranks.p < 0.05


def test_wilcoxon_refuses_an_unknown_treatment_of_zeros() -> None:
    with pytest.raises(ValueError, match="pratt or wilcox"):
        wilcoxon([1.0], zeros="split")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_average_ranks_agree_with_scipy(values: list[int]) -> None:
    assert average_ranks(values).tolist() == scipy_stats.rankdata(values).tolist()


def test_sign_flip_interval_holds_what_the_test_does_not_reject() -> None:
    differences = np.random.default_rng(4).normal(1, 1, 9)
    low, high = sign_flip_interval(differences, alpha=0.1) or (0.0, 0.0)
    for end, outwards in ((low, -1e-6), (high, 1e-6)):
        assert sign_flip_p(differences - (end - outwards)) > 0.1
        assert sign_flip_p(differences - (end + outwards)) <= 0.1


def test_sign_flip_interval_ends_at_means_of_subsets() -> None:
    differences = np.array([1.0, 2.5, 3.0, 0.2, 4.0, 2.2])
    patterns = [np.array(each) for each in product((False, True), repeat=6) if any(each)]
    means = sorted(float(differences[pattern].mean()) for pattern in patterns)
    # With k subset means at or below a value its p is 2(1 + k) / 64: up to k = 2 it is rejected at .1.
    assert sign_flip_interval(differences, alpha=0.1) == (pytest.approx(means[2]), pytest.approx(means[-3]))


def test_too_few_units_have_no_sign_flip_interval() -> None:
    assert sign_flip_interval([1.0, 2.0, 3.0, 4.0]) is None
