"""Friedman, Nemenyi, Wilcoxon-Holm and the groups of a CD diagram: Demšar's example, scipy and scikit-posthocs."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import pytest
import scikit_posthocs
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from bench.ranks import cliques, compare_ranks, friedman, nemenyi_difference, nemenyi_p, wilcoxon_holm_p

DEMSAR_RANKS = [
    (4, 3, 2, 1),
    (1, 2, 3, 4),
    (4, 1, 2, 3),
    (4, 1, 3, 2),
    (4, 2, 3, 1),
    (1, 2.5, 4, 2.5),
    (3, 2, 4, 1),
    (2.5, 2.5, 4, 1),
    (4, 3, 2, 1),
    (2.5, 2.5, 2.5, 2.5),
    (4, 2.5, 1, 2.5),
    (3, 2, 4, 1),
    (4, 1, 2, 3),
    (3, 1, 4, 2),
]
"""Demšar (2006), table 6: ranks of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets."""
SCORES = -np.array(DEMSAR_RANKS)


def normal_scores(seed: int, n: int, k: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, k)) + np.arange(k) / 2


def test_friedman_agrees_with_demsars_example() -> None:
    """Section 3.2.3 prints 9.28 and 3.69 without a correction for ties, of which the 14 data sets have few."""
    found = friedman(SCORES)
    assert found.mean_ranks == pytest.approx([3.143, 2.0, 2.893, 1.964], abs=5e-4)
    uncorrected = 12 * 14 / 20 * (float((found.mean_ranks**2).sum()) - 25)
    assert uncorrected == pytest.approx(9.28, abs=0.01)
    assert 13 * uncorrected / (14 * 3 - uncorrected) == pytest.approx(3.69, abs=0.01)
    tied = (2 * (2**3 - 2) + (2**3 - 2) + (4**3 - 4)) / (14 * 4 * (16 - 1))
    assert found.chi2 == pytest.approx(uncorrected / (1 - tied))


@pytest.mark.parametrize("decimals", [0, 3])
def test_friedman_agrees_with_scipy(decimals: int) -> None:
    scores = np.round(normal_scores(0, 12, 4), decimals)
    found = friedman(scores)
    assert found.chi2 == pytest.approx(scipy_stats.friedmanchisquare(*scores.T).statistic)
    f = 11 * found.chi2 / (12 * 3 - found.chi2)
    assert (found.f, found.p) == (pytest.approx(f), pytest.approx(scipy_stats.f.sf(f, 3, 33)))


def test_iman_davenport_is_the_analysis_of_variance_of_the_ranks() -> None:
    scores = normal_scores(1, 9, 5)
    ranks = scipy_stats.rankdata(-scores, axis=1)
    by_method = 9 * ((ranks.mean(axis=0) - 3) ** 2).sum() / 4
    rest = ((ranks - ranks.mean(axis=0)) ** 2).sum() / (4 * 8)
    assert friedman(scores).f == pytest.approx(by_method / rest)


def test_units_that_all_agree_give_the_chance_of_that_and_not_zero() -> None:
    found = friedman([[1.0, 2.0, 3.0]] * 4)
    assert found.f == np.inf
    assert found.p == factorial(3) ** -3
    assert friedman([[1.0, 1.0]] * 4).p == 1.0


def test_nemenyi_differences_agree_with_demsars_table() -> None:
    assert nemenyi_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert nemenyi_difference(4, 14, alpha=0.1) == pytest.approx(1.12, abs=0.005)
    # Table 5(a): q at .05 for 2 to 10 methods; dividing by sqrt(k(k+1)/6N) at N = k(k+1)/6 leaves q.
    for k, q in zip(range(2, 11), [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164], strict=True):
        assert nemenyi_difference(k, 1) / np.sqrt(k * (k + 1) / 6) == pytest.approx(q, abs=0.002)


def test_nemenyi_p_agrees_with_scikit_posthocs() -> None:
    scores = normal_scores(2, 12, 4)
    ours = nemenyi_p(friedman(scores).mean_ranks, 12)
    assert ours == pytest.approx(scikit_posthocs.posthoc_nemenyi_friedman(scores).to_numpy())


def test_wilcoxon_holm_agrees_with_scipy_and_statsmodels() -> None:
    scores = normal_scores(3, 10, 4)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    raw = [scipy_stats.wilcoxon(scores[:, i], scores[:, j], method="exact").pvalue for i, j in pairs]
    ours = wilcoxon_holm_p(scores)
    assert [ours[i, j] for i, j in pairs] == pytest.approx(list(multipletests(raw, method="holm")[1]))
    assert (ours == ours.T).all() and (np.diag(ours) == 1).all()


def test_cliques_are_the_longest_runs_that_are_not_told_apart() -> None:
    p = np.ones((4, 4))
    for i, j in ((0, 2), (0, 3), (1, 3)):
        p[i, j] = p[j, i] = 0.01
    assert cliques([1, 2, 3, 4], p) == ((0, 1), (1, 2), (2, 3))
    assert cliques([4, 3, 2, 1], p) == ((3, 2), (2, 1), (1, 0))
    assert cliques([1, 2, 3, 4], np.ones((4, 4))) == ((0, 1, 2, 3),)
    assert cliques([1, 2, 3, 4], np.eye(4)) == ()


@given(st.integers(0, 2**21 - 1), st.integers(2, 7))
def test_cliques_hold_no_pair_that_differs_and_every_neighbouring_pair_that_does_not(bits: int, k: int) -> None:
    p = np.ones((k, k))
    for place, (i, j) in enumerate(combinations(range(k), 2)):
        p[i, j] = p[j, i] = 0.01 if bits >> place & 1 else 1.0
    found = cliques(np.arange(k), p)
    assert all(p[i, j] == 1 for clique in found for i in clique for j in clique)
    assert all(p[i, i + 1] < 0.05 or any({i, i + 1} <= set(clique) for clique in found) for i in range(k - 1))
    assert not any(set(one) < set(other) for one in found for other in found)


def test_comparison_does_not_depend_on_the_order_of_units() -> None:
    scores = normal_scores(4, 11, 5)
    one, other = compare_ranks(scores), compare_ranks(scores[::-1])
    assert one.cliques == other.cliques
    assert one.omnibus.p == pytest.approx(other.omnibus.p)
    assert one.p == pytest.approx(other.p)


def test_wilcoxon_verdict_on_two_methods_does_not_change_with_a_third_one() -> None:
    """Benavoli et al. (2016): with mean ranks it does; here, but for Holm's factor, it does not."""
    scores = normal_scores(5, 12, 2)
    third = np.column_stack([scores, scores[:, 0] + np.linspace(-0.1, 0.1, 12)])
    alone, among = compare_ranks(scores), compare_ranks(third)
    assert alone.p[0, 1] <= among.p[0, 1] <= 3 * alone.p[0, 1]


def test_five_units_are_refused_and_few_are_warned_of() -> None:
    with pytest.raises(ValueError, match=r"at least 6 units, here are 5.*0\.0625"):
        compare_ranks(normal_scores(6, 5, 3))
    far_apart = np.array([0, 9, 18])
    assert "only 6 units: no adjusted p" in compare_ranks(normal_scores(6, 6, 3) + far_apart).warning
    assert compare_ranks(normal_scores(6, 12, 3) + far_apart).warning == ""


def test_pairs_are_not_to_be_read_where_the_omnibus_finds_nothing() -> None:
    scores = np.random.default_rng(7).normal(size=(12, 4))
    assert "finds no difference" in compare_ranks(scores).warning


def test_nemenyi_is_on_request() -> None:
    scores = normal_scores(8, 12, 4)
    found = compare_ranks(scores, posthoc="nemenyi")
    assert found.critical_difference == nemenyi_difference(4, 12)
    marked = found.p < 0.05
    gaps = np.abs(found.omnibus.mean_ranks[:, None] - found.omnibus.mean_ranks[None, :])
    assert (marked == (gaps > found.critical_difference)).all()
    assert compare_ranks(scores).critical_difference is None
    with pytest.raises(ValueError, match="wilcoxon-holm, nemenyi"):
        compare_ranks(scores, posthoc="tukey")


@pytest.mark.parametrize("scores", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, np.nan], [1.0, 2.0]], [1.0, 2.0]])
def test_scores_that_are_no_table_are_refused(scores: list[object]) -> None:
    with pytest.raises(ValueError, match="finite scores"):
        friedman(scores)  # type: ignore[arg-type]
