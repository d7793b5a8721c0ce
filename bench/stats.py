"""Error bars, t-tests over units, corrections and effect sizes. Owns no record, no table and no file.

The cells of a table are no independent observations: trials share their held-out domain, methods interact with domains,
and the domains of one data set resemble each other. A t-test over all cells finds differences that are not there in up
to half of the cases where 5 % are allowed (`python -m perf.false_positives`). So trials are averaged first, and the
test runs over unit means: the domains of one data set, or the data sets of a table of averages. This holds its level
whatever the share of the interaction is, and it speaks of new domains (new data sets), not only of these.
`bench.default_test` says which test is used where.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench import sums
from bench.exact_tests import finite, smallest_p, wilcoxon

ERROR_BARS = {
    "stderr": "standard error over trials (standard deviation with n-1, over the square root of n)",
    "domainbed": "DomainBed's standard error over trials (population standard deviation, over the square root of n)",
    "t95": "half width of the 95 % t-interval over trials (n-1 degrees of freedom)",
}
MIN_UNITS = 3
"""Fewer unit means than this give no interval and no p: with two of them it is wider than any table."""
MIN_TRIALS = 3
"""Fewer trials than this give no interval where trials are the units."""
ROPE = 0.5
"""Differences within so many points count as ties: about the standard error of an accuracy of 95 % on 2,000 images."""


@dataclass(frozen=True)
class MeanTest:
    """The mean of unit differences with its t-interval.

    Attributes:
        mean: mean difference, in the unit of the differences.
        low: lower end of the interval; None where there can be no test.
        high: upper end.
        p: two-sided p of the t-test against 0; None where there can be no test.
        smallest_p: smallest p that the exact sign-flip test could reach with so many units.
        n_units: how many units there are.
        df: degrees of freedom of the t-test; None where there can be no test.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    smallest_p: float
    n_units: int
    df: float | None = None


def error_bar(values: ArrayLike, kind: str) -> float | None:
    """Give the error bar of the mean of one value a trial; None where n is too small for it.

    Args:
        values: shape (n,), one value a trial.
        kind: one of `ERROR_BARS`.

    Raises:
        ValueError: a value is missing or not finite.
    """
    numbers = [float(value) for value in np.asarray(values, dtype=np.float64).tolist()]
    n = len(numbers)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected a list of finite numbers, got {values!r}")
    if kind == "domainbed":
        # DomainBed divides before it takes the deviation; the same order gives the same last digit.
        return sums.deviation([number / math.sqrt(n) for number in numbers]) if n else None
    if n < 2:
        return None
    centre = sums.mean(numbers)
    squares = sums.total([(number - centre) * (number - centre) for number in numbers])
    error = math.sqrt(squares / (n - 1)) / math.sqrt(n)
    return error * t_quantile(0.975, n - 1) if kind == "t95" else error


def mean_test(differences: ArrayLike, alpha: float = 0.05) -> MeanTest:
    """Test the mean of paired unit differences against 0, with the t-test over units (df = units - 1).

    Below `MIN_UNITS` units, or where all differences are the same number other than 0, there is a mean and no test.

    Args:
        differences: shape (units,), one mean over trials a unit. For clusters give `cluster_means`.
        alpha: the interval covers 1 - alpha.

    Raises:
        ValueError: a difference is missing or not finite, or there is none.
    """
    numbers = finite(differences)
    n = len(numbers)
    if n == 0:
        raise ValueError("a test needs at least one unit")
    mean = float(np.mean(numbers))
    p = float(t_p_values(numbers)) if n >= MIN_UNITS else math.nan
    error = 0.0 if n < 2 else float(np.std(numbers, ddof=1) / np.sqrt(n))
    return _mean_test(mean, error, n - 1, p, n, alpha)


def mean_tests(differences: Sequence[ArrayLike], alpha: float = 0.05) -> list[MeanTest]:
    """Give `mean_test` of many sets of as many differences each, faster than one by one.

    Args:
        differences: sets of shape (units,), all of one length, one at least.
        alpha: the intervals cover 1 - alpha.

    Raises:
        ValueError: a difference is missing or not finite, or there is none.
    """
    numbers = np.asarray(differences, dtype=np.float64)
    n = numbers.shape[-1]
    if numbers.ndim != 2 or n == 0 or not np.isfinite(numbers).all():
        raise ValueError(f"tests need sets of as many finite numbers each, one at least, not of shape {numbers.shape}")
    means = numbers.mean(axis=-1)
    if n < MIN_UNITS:
        return [MeanTest(mean, None, None, None, smallest_p(n), n) for mean in means.tolist()]
    errors = numbers.std(axis=-1, ddof=1) / np.sqrt(n)
    halves = errors * t_quantile(1 - alpha / 2, n - 1)
    rows = zip(means.tolist(), halves.tolist(), t_p_values(numbers).tolist(), strict=True)
    return [
        MeanTest(mean, None, None, None, smallest_p(n), n)
        if math.isnan(p)
        else MeanTest(mean, mean - half, mean + half, p, smallest_p(n), n, n - 1)
        for mean, half, p in rows
    ]


def t_p_values(differences: ArrayLike) -> NDArray[np.float64]:
    """Give two-sided p-values of the one-sample t-test against 0 along the last axis.

    All zero gives 1; equal differences other than 0 give NaN, since their spread is unknown, not none.

    Args:
        differences: shape (..., units), at least two units.
    """
    numbers = np.asarray(differences, dtype=np.float64)
    n = numbers.shape[-1]
    errors = numbers.std(axis=-1, ddof=1) / math.sqrt(n)
    return _p_values(numbers.mean(axis=-1), errors, n - 1, np.abs(numbers).max(axis=-1))


def cluster_means(differences: ArrayLike, clusters: Sequence[Hashable]) -> NDArray[np.float64]:
    """Average unit differences within clusters, along the last axis.

    Args:
        differences: shape (..., units).
        clusters: cluster (data set) of each unit.

    Returns:
        Shape (..., clusters), in the order in which the clusters first occur.
    """
    shares = _membership(clusters)
    return np.asarray(np.asarray(differences, dtype=np.float64) @ (shares / shares.sum(axis=0)))


def cluster_robust_test(differences: ArrayLike, clusters: Sequence[Hashable], alpha: float = 0.05) -> MeanTest:
    """Test the plain mean over units, letting the units of a cluster depend on each other (df = clusters - 1).

    The sandwich estimator with the factor G/(G-1), "CR1" of Cameron and Miller (2015). It differs from the t-test over
    cluster means in weighing units equally, not clusters; with clusters of one size they are the same.

    Args:
        differences: shape (units,).
        clusters: cluster of each unit.
        alpha: the interval covers 1 - alpha.

    Raises:
        ValueError: as `mean_test`, or there are not as many clusters as units.
    """
    numbers = finite(differences)
    if len(numbers) != len(clusters) or len(numbers) == 0:
        raise ValueError(f"{len(numbers)} units and {len(clusters)} names of their clusters")
    n_clusters = len(set(clusters))
    if n_clusters < MIN_UNITS:
        return MeanTest(float(numbers.mean()), None, None, None, smallest_p(n_clusters), n_clusters)
    error = float(_cluster_errors(numbers, clusters))
    p = float(cluster_robust_p_values(numbers, clusters))
    return _mean_test(float(numbers.mean()), error, n_clusters - 1, p, n_clusters, alpha)


def cluster_robust_p_values(differences: ArrayLike, clusters: Sequence[Hashable]) -> NDArray[np.float64]:
    """Give the p-values of `cluster_robust_test` along the last axis of `differences` (..., units)."""
    numbers = np.asarray(differences, dtype=np.float64)
    scales = np.abs(numbers).max(axis=-1)
    return _p_values(numbers.mean(axis=-1), _cluster_errors(numbers, clusters), len(set(clusters)) - 1, scales)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of one family for its size, after Holm (1979); None (no test) stays None, uncounted.

    Raises:
        ValueError: a p-value is not in [0, 1].
    """
    return _adjusted(p_values, lambda p: np.maximum.accumulate(p * np.arange(len(p), 0, -1)))


def hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust after Hochberg (1988): never above Holm's, but only for tests that do not depend on each other negatively.

    Raises:
        ValueError: a p-value is not in [0, 1].
    """
    return _adjusted(p_values, lambda p: _running_minimum(p * np.arange(len(p), 0, -1)))


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust for the false discovery rate, after Benjamini and Hochberg (1995): for exploring, not for claims.

    Raises:
        ValueError: a p-value is not in [0, 1].
    """
    return _adjusted(p_values, lambda p: _running_minimum(p * len(p) / np.arange(1, len(p) + 1)))


CORRECTIONS: dict[str, Callable[[Sequence[float | None]], list[float | None]]] = {
    "holm": holm,
    "hochberg": hochberg,
    "bh": benjamini_hochberg,
}
FAMILIES = {
    "metric": "one table, one metric and one reference",
    "table": "one table and one reference, all metrics",
    "report": "all comparisons of this report",
}
"""What is corrected together."""


def adjust(
    p_values: Sequence[float | None], families: Sequence[Hashable], correction: str = "holm"
) -> list[float | None]:
    """Adjust p-values within their families.

    Args:
        p_values: one a comparison; None where there is no test.
        families: key of each comparison's family; comparisons with equal keys are corrected together.
        correction: one of `CORRECTIONS`.

    Raises:
        ValueError: a p-value is not in [0, 1], or the lists differ in length.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    members: dict[Hashable, list[int]] = {}
    for place, (_, family) in enumerate(zip(p_values, families, strict=True)):
        members.setdefault(family, []).append(place)
    for places in members.values():
        for place, p in zip(places, CORRECTIONS[correction]([p_values[place] for place in places]), strict=True):
            adjusted[place] = p
    return adjusted


def wins_ties_losses(differences: Iterable[float], margin: float = 0.0) -> tuple[int, int, int]:
    """Count units above, within and below `margin` around 0."""
    numbers = list(differences)
    wins = sum(number > margin for number in numbers)
    losses = sum(number < -margin for number in numbers)
    return wins, len(numbers) - wins - losses, losses


def probability_of_improvement(differences: ArrayLike, alpha: float = 0.05) -> tuple[float, float, float]:
    """Give P(A > B) on a new unit, ties counting half, with its interval after Clopper and Pearson (1934).

    Args:
        differences: shape (units,), A - B; independent units.
        alpha: the interval covers at least 1 - alpha.

    Raises:
        ValueError: a difference is not finite, or there is none.
    """
    from scipy.special import betaincinv

    numbers = finite(differences)
    n = len(numbers)
    if n == 0:
        raise ValueError("P(A > B) needs at least one unit")
    wins, ties, _ = wins_ties_losses(numbers, margin=1e-9)
    hits = wins + ties / 2
    low = float(betaincinv(hits, n - hits + 1, alpha / 2)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - alpha / 2)) if hits < n else 1.0
    return hits / n, low, high


def rank_biserial(differences: ArrayLike) -> float:
    """Give the matched-pairs rank-biserial correlation, (R+ - R-) / (R+ + R-), in -1..1 (Kerby, 2014); 0 for zeros only.

    Raises:
        ValueError: a difference is not finite.
    """
    ranks = wilcoxon(differences, zeros="wilcox")
    total = ranks.positive + ranks.negative
    return (ranks.positive - ranks.negative) / total if total else 0.0


def t_quantile(probability: float, df: float) -> float:
    """Give the quantile of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def _mean_test(mean: float, error: float, df: float, p: float, n_units: int, alpha: float) -> MeanTest:
    if math.isnan(p):
        return MeanTest(mean, None, None, None, smallest_p(n_units), n_units)
    half = error * t_quantile(1 - alpha / 2, df)
    return MeanTest(mean, mean - half, mean + half, p, smallest_p(n_units), n_units, df)


def _p_values(
    means: NDArray[np.float64],
    errors: NDArray[np.float64],
    df: float,
    scales: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Give two-sided p-values of means with standard errors; 1 for 0 ± 0, NaN for any other mean without error."""
    from scipy.special import stdtr

    # Differences of rounded accuracies that should be equal differ in the last bits.
    flat = errors <= 1e-12 * np.maximum(scales, 1e-12)
    t = np.abs(means) / np.where(flat, 1.0, errors)
    p = 2 * stdtr(df, -t)
    return np.asarray(np.where(flat, np.where(np.abs(means) < 1e-12, 1.0, np.nan), p), dtype=np.float64)


def _membership(clusters: Sequence[Hashable]) -> NDArray[np.float64]:
    names = list(dict.fromkeys(clusters))
    return np.array([[float(cluster == name) for name in names] for cluster in clusters])


def _cluster_errors(numbers: NDArray[np.float64], clusters: Sequence[Hashable]) -> NDArray[np.float64]:
    shares = _membership(clusters)
    n_units, n_clusters = shares.shape
    sums = (numbers - numbers.mean(axis=-1, keepdims=True)) @ shares
    return np.asarray(np.sqrt(n_clusters / (n_clusters - 1) * (sums**2).sum(axis=-1)) / n_units)


def _adjusted(
    p_values: Sequence[float | None], rule: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> list[float | None]:
    """Apply a rule for sorted p-values to those that are not None."""
    places = [place for place, p in enumerate(p_values) if p is not None]
    tested = np.array([p_values[place] for place in places], dtype=np.float64)
    if not ((tested >= 0) & (tested <= 1)).all():
        raise ValueError(f"p-values lie in [0, 1]: {tested.tolist()}")
    adjusted: list[float | None] = [None] * len(p_values)
    order = np.argsort(tested, kind="stable")
    for place, p in zip(order, np.minimum(rule(tested[order]), 1.0), strict=True):
        adjusted[places[place]] = float(p)
    return adjusted


def _running_minimum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.minimum.accumulate(values[::-1])[::-1])
