"""Metrics as pure functions of numpy arrays, each tested against a second implementation.

`Scored` is what one predictor scored on some samples; `METRICS` names the metrics that a view may ask for. A label of K or
more is a class that is not among the K names scored against: an unknown one. Accuracy and calibration are of the known
samples alone, the measures of detection tell known from unknown ones with known as the positive class (as in UEO).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_BINS = 15
"""Bins of the expected calibration error (Guo et al., ICML 2017, section 5)."""


def accuracy(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """Give the share of `predicted` (n,) that equals `labels` (n,), in 0..1; NaN for no samples."""
    if len(labels) == 0:
        return float("nan")
    return float(np.mean(np.asarray(predicted) == np.asarray(labels)))


def class_accuracy(predicted: NDArray[np.integer], labels: NDArray[np.integer], n_classes: int) -> NDArray[np.floating]:
    """Give the accuracy on the samples of each class, (n_classes,) in 0..1; NaN where a class has no sample."""
    counts = np.bincount(labels, minlength=n_classes)[:n_classes].astype(float)
    hits = np.bincount(labels[predicted == labels], minlength=n_classes)[:n_classes]
    shares: NDArray[np.float64] = np.divide(hits, counts, out=np.full(n_classes, np.nan), where=counts > 0)
    return shares


def balanced_accuracy(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """Give the mean of the accuracies on each class that has samples, in 0..1; NaN for no samples.

    Papers call it mean per-class accuracy; it is UEO's accuracy.
    """
    if len(labels) == 0:
        return float("nan")
    return float(np.nanmean(class_accuracy(predicted, labels, int(labels.max()) + 1)))


def top_k_accuracy(logits: NDArray[np.floating], labels: NDArray[np.integer], k: int = 5) -> float:
    """Give the share of samples whose label is among the k largest of `logits` (n, K), in 0..1; NaN for no samples.

    Of equal logits the lower class comes first, so that k = 1 is the accuracy of the argmax. With k >= K it is 1.
    """
    if len(labels) == 0:
        return float("nan")
    own = logits[np.arange(len(labels)), labels][:, None]
    before = (logits == own) & (np.arange(logits.shape[1]) < labels[:, None])
    return float(np.mean(((logits > own) | before).sum(axis=1) < k))


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Give the logarithms (n, K) of the softmax of `logits` (n, K), in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def negative_log_likelihood(log_probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Give the mean of -log p(label) in nats; NaN for no samples.

    Args:
        log_probabilities: (n, K) logarithms of probabilities.
        labels: (n,) in 0..K-1.
    """
    if len(labels) == 0:
        return float("nan")
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def brier_score(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Give Brier's score in its first form, mean of sum_c (p_c - 1{c = label})², in 0..2; NaN for no samples."""
    if len(labels) == 0:
        return float("nan")
    own = probabilities[np.arange(len(labels)), labels]
    return float(np.mean((probabilities**2).sum(axis=1) - 2 * own + 1))


def expected_calibration_error(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], n_bins: int = N_BINS
) -> float:
    """Give sum_b |accuracy_b - mean confidence_b| · n_b / n over bins of equal width (Guo et al., ICML 2017).

    Bin b holds confidences in (b / n_bins, (b + 1) / n_bins]; 0 falls into the first. NaN for no samples.

    Args:
        confidence: (n,) probability of the predicted class.
        correct: (n,) whether the prediction is right.
        n_bins: number of bins.
    """
    if len(confidence) == 0:
        return float("nan")
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=correct.astype(float) - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def harmonic_mean(base: float, new: float) -> float:
    """Give 2bn / (b + n), the summary of base and new accuracy; 0 where both are 0.

    The "Average" H that papers print is this of the averaged accuracies, not the mean over data sets.
    """
    return 2 * base * new / (base + new) if base + new else 0.0


def worst(values: Iterable[float]) -> float:
    """Give the smallest of the domains' accuracies; NaN where one is missing or there is none."""
    listed = list(values)
    return min(listed) if listed and not any(value != value for value in listed) else float("nan")


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


def false_positive_rate(known: NDArray[np.floating], unknown: NDArray[np.floating], recall: float = 0.95) -> float:
    """Give the share of unknown samples that pass the highest threshold which at least `recall` of the known ones pass.

    FPR95, with known as the positive class; passing is score >= threshold. NaN where either array is empty.

    Args:
        known: (n,) scores of samples of known classes.
        unknown: (m,) scores of samples of unknown classes.
        recall: share of the known samples that must pass.
    """
    if len(known) == 0 or len(unknown) == 0:
        return float("nan")
    needed = max(1, int(np.ceil(recall * len(known) - 1e-9)))  # 0.95 · 20 is a little more than 19 in floats
    threshold = np.sort(known)[len(known) - needed]
    return float(np.mean(unknown >= threshold))


def average_precision(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float:
    """Give the area under precision over recall as a step function, with known as the positive class (AUPR-in).

    sum_t (recall_t - recall_{t-1}) precision_t over thresholds at the distinct scores, highest first. NaN where either
    array is empty.
    """
    if len(known) == 0 or len(unknown) == 0:
        return float("nan")
    thresholds = np.unique(np.concatenate([known, unknown]))[::-1]
    n_known = len(known) - np.searchsorted(np.sort(known), thresholds, side="left")
    n_unknown = len(unknown) - np.searchsorted(np.sort(unknown), thresholds, side="left")
    gained = np.diff(n_known, prepend=0) / len(known)
    return float((gained * n_known / (n_known + n_unknown)).sum())


def _mcm(cosines: NDArray[np.float64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.exp(log_softmax(cosines).max(axis=-1))
    return result


def _msp(cosines: NDArray[np.float64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return _mcm(logits, logits)


def _max_logit(cosines: NDArray[np.float64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = logits.max(axis=-1)
    return result


def _energy(cosines: NDArray[np.float64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    highest = logits.max(axis=-1)
    result: NDArray[np.float64] = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=-1))
    return result


def _negative_entropy(cosines: NDArray[np.float64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = log_softmax(logits)
    result: NDArray[np.float64] = (np.exp(logs) * logs).sum(axis=-1)
    return result


OOD_SCORES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "mcm": _mcm,
    "msp": _msp,
    "max_logit": _max_logit,
    "energy": _energy,
    "neg_entropy": _negative_entropy,
}
"""How known a sample looks, high = known. `mcm` is the largest probability at temperature 1, that is the softmax of the
bare cosines (Ming et al., NeurIPS 2022; UEO's code); the others read the scaled logits: the largest probability, the
largest logit, log-sum-exp (energy's negative) and the entropy's negative."""


def ood_score(kind: str, logits: NDArray[np.floating], scale: float) -> NDArray[np.float64]:
    """Give the score `kind` (one of `OOD_SCORES`) of `logits` (n, K) = scale · cosine: (n,), high = known."""
    exact = logits.astype(np.float64)
    return OOD_SCORES[kind](exact / scale, exact)


@dataclass(frozen=True)
class Scored:
    """Samples as one predictor scored them.

    Attributes:
        logits: (n, K), one column a class name.
        labels: (n,) true classes; K or more is a class that is not among the names.
        predicted: (n,) predicted classes.
        ood: (n,) how known each sample looks, high = known; None where nobody asked.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    ood: NDArray[np.floating] | None = None

    @cached_property
    def is_known(self) -> NDArray[np.bool_]:
        """Whether the true class of each sample is among the names, (n,)."""
        known: NDArray[np.bool_] = self.labels < self.logits.shape[1]
        return known

    @cached_property
    def known_labels(self) -> NDArray[np.int64]:
        """Labels of the known samples."""
        return self.labels[self.is_known]

    @cached_property
    def known_logits(self) -> NDArray[np.float32]:
        """Logits of the known samples."""
        return self.logits if self.is_known.all() else self.logits[self.is_known]

    @cached_property
    def known_predicted(self) -> NDArray[np.int64]:
        """Predictions for the known samples."""
        return self.predicted[self.is_known]

    @cached_property
    def log_probabilities(self) -> NDArray[np.float64]:
        """Logarithms of the known samples' probabilities."""
        return log_softmax(self.known_logits)

    @cached_property
    def ood_sides(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Scores of the known and of the unknown samples."""
        assert self.ood is not None
        return self.ood[self.is_known], self.ood[~self.is_known]


def _class_accuracies(scored: Scored) -> list[float | None]:
    found = class_accuracy(scored.known_predicted, scored.known_labels, scored.logits.shape[1])
    return [None if np.isnan(each) else float(each) for each in found]


def _calibration_error(scored: Scored) -> float:
    confidence = np.exp(scored.log_probabilities.max(axis=-1, initial=-np.inf))
    return expected_calibration_error(confidence, scored.known_predicted == scored.known_labels)


METRICS: dict[str, Callable[[Scored], Any]] = {
    "acc": lambda scored: accuracy(scored.known_predicted, scored.known_labels),
    "balanced_acc": lambda scored: balanced_accuracy(scored.known_predicted, scored.known_labels),
    "class_accs": _class_accuracies,
    "top5_acc": lambda scored: top_k_accuracy(scored.known_logits, scored.known_labels),
    "nll": lambda scored: negative_log_likelihood(scored.log_probabilities, scored.known_labels),
    "ece": _calibration_error,
    "brier": lambda scored: brier_score(np.exp(scored.log_probabilities), scored.known_labels),
    "auroc": lambda scored: auroc(*scored.ood_sides),
    "fpr95": lambda scored: false_positive_rate(*scored.ood_sides),
    "aupr": lambda scored: average_precision(*scored.ood_sides),
}
"""Name, as it ends a record's key, → its value. `class_accs` is a list by class, None where a class has no sample."""

DETECTION = ("auroc", "fpr95", "aupr")
"""Those that need samples of unknown classes, and a score."""
