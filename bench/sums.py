"""Means to the last bit as numpy takes them, without numpy: DomainBed's ties and roundings hang on that bit.

numpy adds pairwise (`numpy/_core/src/umath/loops_utils.h.src`): up to seven numbers one after the other, up to 128 in
eight interleaved sums, more in halves whose length is a multiple of eight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLOCK = 128


def total(values: Sequence[float]) -> float:
    """Add numbers as `np.sum` adds a contiguous array of float64."""
    n = len(values)
    if n < 8:
        added = 0.0
        for value in values:
            added += value
        return added
    if n <= _BLOCK:
        whole = n - n % 8
        r = list(values[:8])
        for start in range(8, whole, 8):
            for lane in range(8):
                r[lane] += values[start + lane]
        added = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
        for value in values[whole:]:
            added += value
        return added
    half = n // 2
    half -= half % 8
    return total(values[:half]) + total(values[half:])


def mean(values: Sequence[float]) -> float:
    """Give the mean of one or more numbers as `np.mean` does."""
    return total(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Give the population standard deviation of one or more numbers (ddof 0) as `np.std` does."""
    centre = mean(values)
    return math.sqrt(mean([(value - centre) * (value - centre) for value in values]))
