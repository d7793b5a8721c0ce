"""Metrics agree with second implementations, and say NaN where there is nothing to measure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from sklearn import metrics as sklearn

from bench.metrics import (
    METRICS,
    OOD_SCORES,
    Scored,
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    brier_score,
    class_accuracy,
    expected_calibration_error,
    false_positive_rate,
    harmonic_mean,
    negative_log_likelihood,
    ood_score,
    top_k_accuracy,
    worst,
)

scores = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=30)
seeds = st.integers(0, 10**6)


def samples(seed: int, n: int = 40, k: int = 7) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits that are right about half of the time, and labels."""
    stream = np.random.default_rng(seed)
    labels = stream.integers(0, k, n)
    logits = 3 * stream.standard_normal((n, k)).astype(np.float32)
    logits[np.arange(n), labels] += 3
    return logits, labels


def test_accuracy_is_the_share_of_hits_and_nan_for_nothing() -> None:
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75
    assert math.isnan(accuracy(np.array([], dtype=int), np.array([], dtype=int)))


@given(seeds)
def test_accuracies_agree_with_scikit_learn(seed: int) -> None:
    logits, labels = samples(seed)
    predicted = logits.argmax(axis=1)
    assert accuracy(predicted, labels) == pytest.approx(sklearn.accuracy_score(labels, predicted))
    assert balanced_accuracy(predicted, labels) == pytest.approx(
        sklearn.recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
    )
    per_class = sklearn.recall_score(labels, predicted, labels=np.arange(7), average=None, zero_division=np.nan)
    np.testing.assert_allclose(class_accuracy(predicted, labels, 7), per_class)
    for k in (1, 3, 5):
        expected = sklearn.top_k_accuracy_score(labels, logits, k=k, labels=np.arange(7))
        assert top_k_accuracy(logits, labels, k) == pytest.approx(expected)


@given(seeds)
def test_probabilities_are_judged_as_by_scikit_learn(seed: int) -> None:
    logits, labels = samples(seed)
    probabilities = softmax(logits.astype(float), axis=1)
    nll = negative_log_likelihood(np.log(probabilities), labels)
    assert nll == pytest.approx(sklearn.log_loss(labels, probabilities, labels=np.arange(7)))
    one_hot = np.eye(7)[labels]
    by_class = sum(sklearn.brier_score_loss(one_hot[:, c], probabilities[:, c], pos_label=1) for c in range(7))
    assert brier_score(probabilities, labels) == pytest.approx(by_class)


@given(seeds, st.integers(2, 20))
def test_calibration_error_is_the_sum_over_bins(seed: int, n_bins: int) -> None:
    stream = np.random.default_rng(seed)
    confidence, correct = stream.random(50), stream.random(50) < 0.5
    expected = 0.0
    for b in range(n_bins):
        inside = (confidence > b / n_bins) & (confidence <= (b + 1) / n_bins)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(confidence, correct, n_bins) == pytest.approx(expected)


def test_calibration_error_closes_its_bins_above() -> None:
    on_edges = np.array([0.0, 0.2, 0.4, 1.0])
    correct = np.array([False, True, False, True])
    # Bins (0, 0.2] with 0.0 and 0.2, (0.2, 0.4] with 0.4, (0.8, 1] with 1.0.
    assert expected_calibration_error(on_edges, correct, 5) == pytest.approx((0.8 + 0.4 + 0.0) / 4)


def test_sure_and_right_predictions_are_calibrated_and_sure_and_wrong_ones_are_not() -> None:
    sure = np.ones(10)
    assert expected_calibration_error(sure, np.ones(10, dtype=bool)) == 0.0
    assert expected_calibration_error(sure, np.zeros(10, dtype=bool)) == 1.0


def test_top_k_gives_ties_to_the_lower_class() -> None:
    tied = np.zeros((3, 4), dtype=np.float32)
    assert top_k_accuracy(tied, np.array([0, 1, 3]), 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(tied, np.array([0, 1, 3]), 2) == pytest.approx(2 / 3)
    assert top_k_accuracy(tied, np.array([0, 1, 3]), 9) == 1.0


@given(known=scores, unknown=scores)
def test_detection_agrees_with_scikit_learn(known: list[float], unknown: list[float]) -> None:
    labels, values = [1] * len(known) + [0] * len(unknown), known + unknown
    pair = np.array(known), np.array(unknown)
    assert auroc(*pair) == pytest.approx(sklearn.roc_auc_score(labels, values))
    assert average_precision(*pair) == pytest.approx(sklearn.average_precision_score(labels, values))
    false, true, _ = sklearn.roc_curve(labels, values, drop_intermediate=False)
    assert false_positive_rate(*pair) == pytest.approx(false[np.argmax(true >= 0.95 - 1e-12)])


def test_known_samples_are_the_positive_class() -> None:
    known, unknown = np.array([0.9, 0.8]), np.array([0.1, 0.85])
    assert auroc(known, unknown) == 0.75
    assert false_positive_rate(known, unknown) == 0.5
    assert average_precision(known, unknown) == pytest.approx((1 + 2 / 3) / 2)
    apart = np.array([1.0]), np.array([0.0])
    assert (auroc(*apart), false_positive_rate(*apart), average_precision(*apart)) == (1.0, 0.0, 1.0)


def test_nothing_to_measure_is_nan() -> None:
    none, some = np.array([]), np.array([0.0])
    for measure in (auroc, false_positive_rate, average_precision):
        assert math.isnan(measure(none, some)) and math.isnan(measure(some, none))
    empty, no_labels = np.zeros((0, 3)), np.zeros(0, dtype=int)
    assert math.isnan(top_k_accuracy(empty, no_labels)) and math.isnan(brier_score(empty, no_labels))
    assert math.isnan(negative_log_likelihood(empty, no_labels))
    assert math.isnan(balanced_accuracy(no_labels, no_labels))
    assert math.isnan(expected_calibration_error(none, none.astype(bool)))


def test_scores_of_detection_are_what_their_names_say() -> None:
    cosines = np.random.default_rng(0).uniform(-0.2, 0.4, (6, 5))
    logits = (20 * cosines).astype(np.float32)
    expected = {
        "mcm": softmax(logits / 20, axis=1).max(axis=1),
        "msp": softmax(logits, axis=1).max(axis=1),
        "max_logit": logits.max(axis=1),
        "energy": logsumexp(logits, axis=1),
        "neg_entropy": -entropy(softmax(logits, axis=1), axis=1),
    }
    assert set(expected) == set(OOD_SCORES)
    for kind, values in expected.items():
        np.testing.assert_allclose(ood_score(kind, logits, 20.0), values, rtol=1e-5)


def test_temperature_changes_the_order_of_samples() -> None:
    """UEO's code scores at temperature 1, which ranks otherwise than CLIP's 0.01."""
    logits = np.array([[10.0, 9.9, -80.0], [9.0, 5.0, 5.0]], dtype=np.float32)
    bare, scaled = ood_score("mcm", logits, 100.0), ood_score("msp", logits, 100.0)
    assert bare[0] > bare[1] and scaled[0] < scaled[1]


def test_accuracy_is_of_known_samples_and_detection_of_all() -> None:
    logits = np.array([[2, 0], [0, 2], [0, 2], [1, 0]], dtype=np.float32)
    scored = Scored(logits, np.array([0, 1, 0, 2]), logits.argmax(axis=1), np.array([0.9, 0.8, 0.3, 0.5]))
    found = {name: metric(scored) for name, metric in METRICS.items()}
    assert found["acc"] == pytest.approx(2 / 3) and found["balanced_acc"] == 0.75
    assert found["class_accs"] == [0.5, 1.0] and found["top5_acc"] == 1.0
    assert found["auroc"] == pytest.approx(2 / 3) and found["fpr95"] == 1.0


def test_a_class_without_samples_has_no_accuracy() -> None:
    scored = Scored(np.eye(3, dtype=np.float32)[[0, 2]], np.array([0, 2]), np.array([0, 2]))
    assert METRICS["class_accs"](scored) == [1.0, None, 1.0]


def test_harmonic_mean_of_the_averages_is_what_papers_print() -> None:
    assert round(harmonic_mean(69.34, 74.22), 2) == 71.70
    assert harmonic_mean(0.0, 0.0) == 0.0 and harmonic_mean(0.5, 0.5) == 0.5


def test_worst_domain_is_the_smallest_and_missing_where_one_is() -> None:
    assert worst([0.5, 0.25, 0.75]) == 0.25
    assert math.isnan(worst([0.5, math.nan])) and math.isnan(worst([]))
