"""Metrics as pure functions of numpy arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def accuracy(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """Give the share of `predicted` (n,) that equals `labels` (n,), in 0..1; NaN for no samples."""
    if len(labels) == 0:
        return float("nan")
    return float(np.mean(np.asarray(predicted) == np.asarray(labels)))
