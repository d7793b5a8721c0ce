"""Error bars and paired tests: pure numbers in, numbers out. Owns no record, no table and no file.

The cells of a table are no independent observations: trials share their held-out domain, and methods interact with
domains. A t-test over all domain x trial cells finds differences that are not there in up to a quarter of the cases
where 5 % are allowed. So trials are averaged first, and the test runs over unit means: the domains of one data set, or
the data sets of a table of averages. This holds its level whatever the share of the interaction is (the tests simulate
it), and it speaks of new domains (new data sets), not only of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

ERROR_BARS = {
    "stderr": "standard error over trials (standard deviation with n-1, over the square root of n)",
    "domainbed": "DomainBed's standard error over trials (population standard deviation, over the square root of n)",
    "t95": "half width of the 95 % t-interval over trials (n-1 degrees of freedom)",
}
MIN_UNITS = 3
"""Fewer unit means than this give no interval and no p: with two of them it is wider than any table."""
MAX_EXACT_UNITS = 20


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
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    smallest_p: float
    n_units: int


def error_bar(values: ArrayLike, kind: str) -> float | None:
    """Give the error bar of the mean of one value a trial; None where n is too small for it.

    Args:
        values: shape (n,), one value a trial.
        kind: one of `ERROR_BARS`.
    """
    numbers = _finite(values)
    n = len(numbers)
    if kind == "domainbed":
        # DomainBed divides before it takes the deviation; the same order gives the same last digit.
        return float(np.std(numbers / np.sqrt(n))) if n else None
    if n < 2:
        return None
    error = float(np.std(numbers, ddof=1) / np.sqrt(n))
    return error * _t_quantile(0.975, n - 1) if kind == "t95" else error


def mean_test(differences: ArrayLike, alpha: float = 0.05) -> MeanTest:
    """Test the mean of paired unit differences against 0, with the t-test over units (df = units - 1).

    Below `MIN_UNITS` units, or where all differences are the same number other than 0, there is a mean and no test.

    Args:
        differences: shape (units,), one mean over trials a unit.
        alpha: the interval covers 1 - alpha.

    Raises:
        ValueError: a difference is missing or not finite, or there is none.
    """
    numbers = _finite(differences)
    n = len(numbers)
    if n == 0:
        raise ValueError("a test needs at least one unit")
    mean = float(np.mean(numbers))
    p = float(t_p_values(numbers)) if n >= MIN_UNITS else math.nan
    if math.isnan(p):
        return MeanTest(mean, None, None, None, smallest_sign_flip_p(n), n)
    half = float(np.std(numbers, ddof=1) / np.sqrt(n)) * _t_quantile(1 - alpha / 2, n - 1)
    return MeanTest(mean, mean - half, mean + half, p, smallest_sign_flip_p(n), n)


def t_p_values(differences: ArrayLike) -> NDArray[np.float64]:
    """Give two-sided p-values of the one-sample t-test against 0 along the last axis.

    All zero gives 1; equal differences other than 0 give NaN, since their spread is unknown, not none.

    Args:
        differences: shape (..., units), at least two units.
    """
    from scipy.special import stdtr

    numbers = np.asarray(differences, dtype=np.float64)
    n = numbers.shape[-1]
    mean, spread = numbers.mean(axis=-1), numbers.std(axis=-1, ddof=1)
    # Differences of rounded accuracies that should be equal differ in the last bits.
    flat = spread <= 1e-12 * np.maximum(np.abs(numbers).max(axis=-1), 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(mean) * math.sqrt(n) / spread
    p = 2 * stdtr(n - 1, -np.where(flat, 0.0, t))
    return np.asarray(np.where(flat, np.where(np.abs(mean) < 1e-12, 1.0, np.nan), p), dtype=np.float64)


def sign_flip_p(differences: ArrayLike) -> float:
    """Give the exact two-sided p of the paired sign-flip test of the mean, by going through all 2**units sign patterns.

    Raises:
        ValueError: a difference is not finite, there is none, or there are more than `MAX_EXACT_UNITS`.
    """
    numbers = _finite(differences)
    n = len(numbers)
    if not 1 <= n <= MAX_EXACT_UNITS:
        raise ValueError(f"the exact sign-flip test takes 1 to {MAX_EXACT_UNITS} units, not {n}")
    sums = np.zeros(1)
    for number in numbers:
        sums = np.concatenate([sums + number, sums - number])
    # Sums of the same numbers in another order differ in the last bits: count those as ties.
    observed = abs(numbers.sum()) - 1e-9 * max(float(np.abs(numbers).sum()), 1e-300)
    return float(np.mean(np.abs(sums) >= observed))


def smallest_sign_flip_p(n_units: int) -> float:
    """Give the smallest two-sided p that a sign-flip, sign or Wilcoxon test can reach with so many units."""
    return float(min(1.0, 2.0 ** (1 - n_units)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of one family for its size, after Holm (1979); None (no test) stays None, uncounted.

    Raises:
        ValueError: a p-value is not in [0, 1].
    """
    tested = [(p, place) for place, p in enumerate(p_values) if p is not None]
    if any(not 0 <= p <= 1 for p, _ in tested):
        raise ValueError(f"p-values lie in [0, 1]: {[p for p, _ in tested]}")
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, (p, place) in enumerate(sorted(tested)):
        running = max(running, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = running
    return adjusted


def wins_ties_losses(differences: Iterable[float], margin: float = 0.0) -> tuple[int, int, int]:
    """Count units above, within and below `margin` around 0."""
    numbers = list(differences)
    wins = sum(number > margin for number in numbers)
    losses = sum(number < -margin for number in numbers)
    return wins, len(numbers) - wins - losses, losses


def _t_quantile(probability: float, df: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(f"expected a list of finite numbers, got {values!r}")
    return numbers
