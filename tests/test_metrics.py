from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.metrics import accuracy, auroc, harmonic_mean

scores = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=30)


def test_accuracy_is_the_share_of_hits_and_nan_for_nothing() -> None:
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75
    assert math.isnan(accuracy(np.array([], dtype=int), np.array([], dtype=int)))


@given(known=scores, unknown=scores)
def test_auroc_agrees_with_scikit_learn(known: list[float], unknown: list[float]) -> None:
    from sklearn.metrics import roc_auc_score

    labels = [1] * len(known) + [0] * len(unknown)
    assert auroc(np.array(known), np.array(unknown)) == pytest.approx(roc_auc_score(labels, known + unknown))


def test_auroc_takes_known_samples_for_positive() -> None:
    assert auroc(np.array([0.9, 0.8]), np.array([0.1, 0.85])) == 0.75
    assert auroc(np.array([1.0]), np.array([0.0])) == 1.0
    assert math.isnan(auroc(np.array([]), np.array([0.0])))


def test_harmonic_mean_of_the_averages_is_what_papers_print() -> None:
    assert round(harmonic_mean(69.34, 74.22), 2) == 71.70
    assert harmonic_mean(0.0, 0.0) == 0.0 and harmonic_mean(0.5, 0.5) == 0.5
