"""Metrics as pure functions of numpy arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def accuracy(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """Give the share of `predicted` (n,) that equals `labels` (n,), in 0..1; NaN for no samples."""
    if len(labels) == 0:
        return float("nan")
    return float(np.mean(np.asarray(predicted) == np.asarray(labels)))


def harmonic_mean(base: float, new: float) -> float:
    """Give 2bn / (b + n), the summary of base and new accuracy; 0 where both are 0.

    The "Average" H that papers print is this of the averaged accuracies, not the mean over data sets.
    """
    return 2 * base * new / (base + new) if base + new else 0.0


def auroc(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float:
    """Give the probability that a known sample scores above an unknown one, ties counting half, in 0..1.

    Known (in-distribution) is the positive class, as in UEO. NaN where either array is empty.

    Args:
        known: (n,) scores of samples of known classes.
        unknown: (m,) scores of samples of unknown classes.
    """
    if len(known) == 0 or len(unknown) == 0:
        return float("nan")
    below = np.sort(np.asarray(unknown))
    wins = np.searchsorted(below, known, side="left") + np.searchsorted(below, known, side="right")
    return float(wins.mean() / (2 * len(below)))
