"""Many methods over many units by ranks: Friedman's test, what to do after it, and the groups of a CD diagram.

Demšar (JMLR 2006), with two changes that later work asks for: pairs are told apart by Wilcoxon's exact test with Holm's
correction, since Nemenyi's verdict on two methods changes with the others in the pool (Benavoli et al., JMLR 2016);
and there is no verdict below `MIN_RANK_UNITS` units. Scores are arrays (units, methods), high = good; units are
independent: data sets, or the domains of one. Average the trials first.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.exact_tests import average_ranks, wilcoxon
from bench.stats import holm

MIN_RANK_UNITS = 6
"""Below this no rank test of two methods reaches .05: with five units its smallest p is .0625."""
FEW_RANK_UNITS = 10
"""Below this most pairs cannot survive Holm's correction; the diagram says so."""
POSTHOCS = ("wilcoxon-holm", "nemenyi")
_DIGITS = 9


@dataclass(frozen=True)
class Friedman:
    """Friedman's test with the correction of Iman and Davenport (1980).

    Attributes:
        mean_ranks: of each method, 1 = best.
        chi2: Friedman's statistic, corrected for ties.
        f: Iman and Davenport's; infinite where all units agree.
        p: of `f` with (k - 1) and (k - 1)(N - 1) degrees of freedom, but never below the chance that N units agree.
        n_units: N.
    """

    mean_ranks: NDArray[np.float64]
    chi2: float
    f: float
    p: float
    n_units: int


@dataclass(frozen=True)
class RankComparison:
    """What a critical-difference diagram shows.

    Attributes:
        omnibus: the test that any two methods differ.
        posthoc: one of `POSTHOCS`.
        p: adjusted p of each pair, (methods, methods), 1 on the diagonal.
        cliques: groups of methods, best first, no two of which are told apart; methods by their column.
        critical_difference: smallest difference of mean ranks that Nemenyi's test marks; None for Wilcoxon-Holm.
        warning: what a reader must know; empty where there is nothing.
    """

    omnibus: Friedman
    posthoc: str
    p: NDArray[np.float64]
    cliques: tuple[tuple[int, ...], ...]
    critical_difference: float | None
    warning: str


def friedman(scores: ArrayLike) -> Friedman:
    """Test whether the methods' ranks differ.

    Args:
        scores: shape (units, methods), at least two of both.

    Raises:
        ValueError: the shape is another, or a score is not finite.
    """
    from scipy.special import fdtrc

    numbers = _checked(scores)
    n, k = numbers.shape
    ranks = average_ranks(-numbers)
    mean_ranks = ranks.mean(axis=0)
    # Written by the spread of the ranks there are, the statistic is corrected for ties (Conover, 1999).
    spread = float(((ranks - (k + 1) / 2) ** 2).sum()) / (n * (k - 1))
    chi2 = n * float(((mean_ranks - (k + 1) / 2) ** 2).sum()) / spread if spread > 0 else 0.0
    left = n * (k - 1) - chi2
    f = (n - 1) * chi2 / left if left > 1e-9 else np.inf
    chance = float(factorial(k)) ** (1 - n) if k <= 170 else 0.0  # 171! is beyond floats, and the share below them
    p = max(chance, float(fdtrc(k - 1, (k - 1) * (n - 1), f)) if np.isfinite(f) else 0.0)
    return Friedman(mean_ranks, chi2, float(f), p, n)


def nemenyi_difference(n_methods: int, n_units: int, alpha: float = 0.05) -> float:
    """Give Nemenyi's critical difference of mean ranks, q_alpha · sqrt(k(k+1) / 6N) (Demšar, 2006, table 5)."""
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - alpha, n_methods, np.inf)) / np.sqrt(2)
    return float(quantile * np.sqrt(n_methods * (n_methods + 1) / (6 * n_units)))


def nemenyi_p(mean_ranks: ArrayLike, n_units: int) -> NDArray[np.float64]:
    """Give Nemenyi's p of each pair of methods, (methods, methods), 1 on the diagonal."""
    from scipy.stats import studentized_range

    ranks = np.asarray(mean_ranks, dtype=np.float64)
    k = len(ranks)
    gaps = np.abs(ranks[:, None] - ranks[None, :]) / np.sqrt(k * (k + 1) / (12 * n_units))
    p = np.ones((k, k))
    for i, j in combinations(range(k), 2):
        p[i, j] = p[j, i] = float(studentized_range.sf(gaps[i, j], k, np.inf))
    return p


def wilcoxon_holm_p(scores: ArrayLike) -> NDArray[np.float64]:
    """Give the exact Wilcoxon p of each pair of methods, Holm-adjusted for all pairs, (methods, methods).

    Raises:
        ValueError: as `friedman`.
    """
    numbers = _checked(scores)
    pairs = list(combinations(range(numbers.shape[1]), 2))
    adjusted = holm([wilcoxon(numbers[:, i] - numbers[:, j]).p for i, j in pairs])
    p = np.ones((numbers.shape[1], numbers.shape[1]))
    for (i, j), each in zip(pairs, adjusted, strict=True):
        p[i, j] = p[j, i] = each
    return p


def compare_ranks(scores: ArrayLike, posthoc: str = "wilcoxon-holm", alpha: float = 0.05) -> RankComparison:
    """Compare all methods with each other, for a critical-difference diagram.

    Args:
        scores: shape (units, methods).
        posthoc: one of `POSTHOCS`.
        alpha: level of the groups.

    Raises:
        ValueError: there are fewer than `MIN_RANK_UNITS` units, no such posthoc, or as `friedman`.
    """
    numbers = _checked(scores)
    n, k = numbers.shape
    if posthoc not in POSTHOCS:
        raise ValueError(f"there is no posthoc {posthoc!r}: {', '.join(POSTHOCS)}")
    if n < MIN_RANK_UNITS:
        raise ValueError(
            f"a critical-difference diagram needs at least {MIN_RANK_UNITS} units, here are {n}: with so few "
            f"no pair of methods can be told apart (smallest p {2.0 ** (1 - n):.3g})"
        )
    omnibus = friedman(numbers)
    is_nemenyi = posthoc == "nemenyi"
    p = nemenyi_p(omnibus.mean_ranks, n) if is_nemenyi else wilcoxon_holm_p(numbers)
    notes = []
    if omnibus.p >= alpha:
        notes.append(f"Friedman's test finds no difference at all (p {omnibus.p:.2g}), so pairs are not to be read")
    if n < FEW_RANK_UNITS:
        smallest = min(1.0, 2.0 ** (1 - n) * k * (k - 1) / 2)
        notes.append(f"only {n} units: no adjusted p of Wilcoxon's test can lie below {smallest:.2g}")
    difference = nemenyi_difference(k, n, alpha) if is_nemenyi else None
    return RankComparison(omnibus, posthoc, p, cliques(omnibus.mean_ranks, p, alpha), difference, "; ".join(notes))


def cliques(mean_ranks: ArrayLike, p: NDArray[np.float64], alpha: float = 0.05) -> tuple[tuple[int, ...], ...]:
    """Give the largest runs of methods, in order of their mean ranks, no two of which have p < alpha.

    Args:
        mean_ranks: shape (methods,), 1 = best.
        p: shape (methods, methods).
        alpha: level.

    Returns:
        Runs of at least two methods that lie in no longer run, best first.
    """
    order = [int(each) for each in np.argsort(np.asarray(mean_ranks), kind="stable")]
    runs: list[tuple[int, ...]] = []
    last_end = 0
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and all(p[order[end], order[i]] >= alpha for i in range(start, end)):
            end += 1
        if end - start > 1 and end > last_end:
            runs.append(tuple(order[start:end]))
            last_end = end
    return tuple(runs)


def _checked(scores: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(scores, dtype=np.float64)
    if numbers.ndim != 2 or min(numbers.shape) < 2 or not np.isfinite(numbers).all():
        raise ValueError(f"expected finite scores of at least two units and two methods, got shape {numbers.shape}")
    return np.round(numbers, _DIGITS)
