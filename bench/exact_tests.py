"""Exact tests of paired differences by the distribution of their signs: sign-flip and Wilcoxon. Numbers in, numbers out.

If two methods do not differ, the sign of each unit's difference is a fair coin. Both tests go through all patterns of
signs, so their level needs no normal distribution; what it needs are units that do not depend on each other, and
differences as likely to be -x as x. Few units have few patterns: with four, no p lies below 2/2^4 = .125.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_EXACT_UNITS = 30
"""Up to so many units the sign-flip test counts all patterns: two halves of 2^15 sums each."""
ZEROS = ("pratt", "wilcox")
_DIGITS = 9
"""Differences are ranked after rounding: those of equal accuracies differ in the last bits, and are ties."""


@dataclass(frozen=True)
class SignedRanks:
    """Wilcoxon's signed-rank test.

    Attributes:
        positive: sum of the ranks of positive differences.
        negative: sum of the ranks of negative differences.
        p: exact two-sided p, given the ranks as they are, ties included.
        smallest_p: smallest p that these ranks could give.
        n_used: differences other than 0.
    """

    positive: float
    negative: float
    p: float
    smallest_p: float
    n_used: int


def smallest_p(n_units: int) -> float:
    """Give the smallest two-sided p that a sign-flip, sign or Wilcoxon test can reach: 2/2^n, and 1 for no unit."""
    return float(min(1.0, 2.0 ** (1 - n_units)))


def sign_flip_p(differences: ArrayLike) -> float:
    """Give the exact two-sided p of the paired sign-flip test of the mean, over all 2^units patterns of signs.

    Args:
        differences: shape (units,), 1 to `MAX_EXACT_UNITS` of them.

    Raises:
        ValueError: a difference is not finite, there is none, or there are too many.
    """
    numbers = finite(differences)
    n = len(numbers)
    if not 1 <= n <= MAX_EXACT_UNITS:
        raise ValueError(f"the exact sign-flip test takes 1 to {MAX_EXACT_UNITS} units, not {n}")
    return _sign_flip_p(numbers)


def sign_flip_p_values(differences: ArrayLike) -> NDArray[np.float64]:
    """Give two-sided p-values of the sign-flip test along the last axis, for many sets of a few units at once.

    Args:
        differences: shape (..., units), at most 14 units.

    Raises:
        ValueError: there are more units, or none.
    """
    numbers = np.asarray(differences, dtype=np.float64)
    n = numbers.shape[-1]
    if not 1 <= n <= 14:
        raise ValueError(f"many sign-flip tests at once take 1 to 14 units, not {n}")
    # The first sign stays: the other half of the patterns has the same sums, negated.
    signs = 1.0 - 2.0 * ((np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1)
    observed = np.abs(numbers.sum(axis=-1)) - _slack(numbers)
    hits = np.zeros(numbers.shape[:-1])
    for pattern in signs:
        hits += np.abs(numbers @ pattern) >= observed
    return np.asarray(hits / len(signs), dtype=np.float64)


def sign_flip_interval(differences: ArrayLike, alpha: float = 0.05) -> tuple[float, float] | None:
    """Give the mean differences that the sign-flip test does not reject at `alpha`; None where it can reject nothing.

    Its ends are means of subsets of the differences (Tritchler, 1984); found by bisection.

    Raises:
        ValueError: as `sign_flip_p`.
    """
    numbers = finite(differences)
    sign_flip_p(numbers)
    if smallest_p(len(numbers)) > alpha:
        return None
    return _interval_end(numbers, float(numbers.min()), alpha), _interval_end(numbers, float(numbers.max()), alpha)


def wilcoxon(differences: ArrayLike, zeros: str = "pratt") -> SignedRanks:
    """Test paired differences by Wilcoxon's signed ranks, exact for any ties: the distribution is that of these ranks.

    Args:
        differences: shape (units,).
        zeros: "pratt" ranks the zeros and then leaves them out (1959), "wilcox" leaves them out before. Demšar (2006)
            splits the zeros' ranks between both sums, which gives the same p as "pratt" for an even number of zeros.

    Raises:
        ValueError: a difference is not finite, or there is no such treatment of zeros.
    """
    if zeros not in ZEROS:
        raise ValueError(f"zeros are treated by {' or '.join(ZEROS)}, not {zeros!r}")
    numbers = np.round(finite(differences), _DIGITS)
    if zeros == "wilcox":
        numbers = numbers[numbers != 0]
    ranks = average_ranks(np.abs(numbers))[numbers != 0]
    positive = float(ranks[numbers[numbers != 0] > 0].sum())
    negative = float(ranks.sum()) - positive
    tails = _upper_tails(np.rint(2 * ranks).astype(int))
    p = float(min(1.0, 2 * tails[round(2 * max(positive, negative))]))
    return SignedRanks(positive, negative, p, smallest_p(len(ranks)), len(ranks))


def average_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Rank along the last axis from 1 (smallest) on; equal values share the mean of their ranks."""
    numbers = np.asarray(values, dtype=np.float64)
    below = (numbers[..., None, :] < numbers[..., :, None]).sum(axis=-1)
    equal = (numbers[..., None, :] == numbers[..., :, None]).sum(axis=-1)
    return np.asarray(below + (equal + 1) / 2, dtype=np.float64)


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """Give values as a one-dimensional array.

    Raises:
        ValueError: they are no list of numbers, or one is missing or not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(f"expected a list of finite numbers, got {values!r}")
    return numbers


def _sign_flip_p(numbers: NDArray[np.float64]) -> float:
    observed = float(abs(numbers.sum()) - _slack(numbers))
    if observed <= 0:
        return 1.0
    half = len(numbers) // 2
    left, right = _signed_sums(numbers[:half]), np.sort(_signed_sums(numbers[half:]))
    n_as_large = int((len(right) - np.searchsorted(right, observed - left)).sum())
    return float(min(1.0, 2 * n_as_large / 2 ** len(numbers)))


def _signed_sums(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros(1)
    for number in numbers:
        sums = np.concatenate([sums + number, sums - number])
    return sums


def _slack(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the same numbers in another order differ in the last bits: so much counts as a tie."""
    return np.asarray(1e-9 * np.maximum(np.abs(numbers).sum(axis=-1), 1e-300))


def _interval_end(numbers: NDArray[np.float64], outside: float, alpha: float) -> float:
    inside = float(numbers.mean())
    for _ in range(50):
        middle = (inside + outside) / 2
        if _sign_flip_p(numbers - middle) > alpha:
            inside = middle
        else:
            outside = middle
    return inside


def _upper_tails(weights: NDArray[np.int_]) -> NDArray[np.float64]:
    """Give P(sum of a random subset >= s) for s = 0, 1, …, each weight being in the subset by a fair coin."""
    chances = np.zeros(int(weights.sum()) + 1)
    chances[0] = 1.0
    for weight in weights:
        chances[weight:] = (chances[weight:] + chances[: len(chances) - weight]) / 2
        chances[:weight] /= 2
    return np.asarray(np.cumsum(chances[::-1])[::-1])
