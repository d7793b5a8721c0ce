"""Two methods on the images of one domain, from stored predictions: what can be said when examples are kept.

Chance enters twice, by the images (examples) and by the trainings (trials), and the same image is seen in every trial.
McNemar's test and `permutation_test` over examples speak of these trained models on new images of the domain;
over trials, of new trainings on these images; `two_way_test` and `two_way_bootstrap` of both. None of them speaks of
new domains: that is `bench.default_test`.

Differences are arrays D (trials, examples): 1 where only the first method is right, -1 where only the second is, 0
where both are or neither, NaN where the trial did not evaluate the example (each trial has its own 80 % of a domain).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.exact_tests import sign_flip_p
from bench.stats import MIN_TRIALS, t_quantile

_MOST_DRAWN = 4_000_000
"""So many numbers are drawn at once: 32 MB."""


@dataclass(frozen=True)
class TwoWayTest:
    """Mean difference over trials and examples, both of them chance.

    Attributes:
        difference: mean over trials of the difference of accuracies, in points.
        low: lower end of the interval; None with fewer than `MIN_TRIALS` trials.
        high: upper end.
        p: two-sided p against 0; None where there is no interval.
        trial_error: standard error that comes from trials, in points; None where there is no interval.
        example_error: standard error that comes from examples that are hard for one method whatever the trial.
        n_trials: trials.
        n_examples: examples that any trial evaluated.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    trial_error: float | None
    example_error: float | None
    n_trials: int
    n_examples: int


@dataclass(frozen=True)
class BootstrapInterval:
    """Percentile interval of the mean difference, in points.

    Attributes:
        difference: mean over trials of the difference of accuracies.
        low: lower end.
        high: upper end.
        share_above: share of the resamples whose difference is above 0, those at 0 counting half.
        n_resamples: how many there are.
    """

    difference: float
    low: float
    high: float
    share_above: float
    n_resamples: int


@dataclass(frozen=True)
class PermutationTest:
    """Sign-flip tests over the one and over the other source of chance.

    Attributes:
        p_examples: exact p of flipping examples, each in all trials at once: these models, new images.
        p_trials: exact p of flipping trials, each for all examples at once: new trainings, these images.
        smallest_p_trials: smallest p that so many trials can give.
    """

    p_examples: float
    p_trials: float
    smallest_p_trials: float

    @property
    def p_both(self) -> float:
        """The larger of the two: below alpha, the difference is neither of these images nor of these trainings."""
        return max(self.p_examples, self.p_trials)


def mcnemar_p(only_first: ArrayLike, only_second: ArrayLike) -> NDArray[np.float64]:
    """Give exact two-sided p-values of McNemar's test (1947) for counts of discordant examples, of any shape; 1 for none.

    Args:
        only_first: number of examples that only the first method gets right.
        only_second: number of examples that only the second gets right.
    """
    from scipy.special import bdtr

    first, second = np.asarray(only_first), np.asarray(only_second)
    return np.asarray(np.minimum(1.0, 2 * bdtr(np.minimum(first, second), first + second, 0.5)), dtype=np.float64)


def correctness_differences(
    indices: Sequence[NDArray[np.integer]],
    first: Sequence[NDArray[np.bool_]],
    second: Sequence[NDArray[np.bool_]],
) -> NDArray[np.float64]:
    """Bring what the trials evaluated to one array of differences (trials, examples), NaN where a trial lacks one.

    Args:
        indices: for each trial, the numbers of its examples within the domain, each once.
        first: for each trial, whether the first method is right on each of them.
        second: the same of the second method.

    Raises:
        ValueError: lengths do not agree, an example comes twice in a trial, or a trial has none.
    """
    examples = np.unique(np.concatenate([np.asarray(each) for each in indices]))
    differences = np.full((len(indices), len(examples)), np.nan)
    for row, index, one, other in zip(differences, indices, first, second, strict=True):
        if not len(index) == len(one) == len(other) or len(np.unique(index)) < len(index) or len(index) == 0:
            raise ValueError("each trial needs examples, each of them once, with one result of each method")
        row[np.searchsorted(examples, index)] = one.astype(float) - other.astype(float)
    return differences


def two_way_test(differences: NDArray[np.float64], alpha: float = 0.05) -> TwoWayTest:
    """Test the mean difference with trials and examples crossed, both random.

    Var = s²(trial means) / T + c · Σ_j (k_j / Σ k)², with c the mean covariance of two trials over the examples they
    share, and k_j the number of trials that have example j. Without missing examples these are the mean squares of the
    two-way analysis of variance, (MS_trials + MS_examples - MS_rest) / (T·E). The first term is at least MS_rest / (T·E)
    or what stands for it. Degrees of freedom after Satterthwaite (1946): the trials have T - 1, the examples so many
    that they do not count.

    Args:
        differences: shape (trials, examples), see the module.
        alpha: the interval covers 1 - alpha.
    """
    from scipy.special import stdtr

    n_trials, n_examples = differences.shape
    trial_means = 100 * np.nanmean(differences, axis=1)
    mean = float(trial_means.mean())
    if n_trials < MIN_TRIALS:
        return TwoWayTest(mean, None, None, None, None, None, n_trials, n_examples)
    is_there = np.isfinite(differences)
    covariance = max(0.0, _shared_covariance(differences))
    # Trial means scatter at least as examples make them: what few of them show by luck may be less than that.
    rest = max(0.0, float(np.nanvar(differences, axis=1).mean()) - covariance) * float(
        (1 / is_there.sum(axis=1)).mean()
    )
    of_trials = max(float(trial_means.var(ddof=1)), 1e4 * rest) / n_trials
    of_examples = 1e4 * covariance * float(((is_there.sum(axis=0) / is_there.sum()) ** 2).sum())
    error = math.sqrt(of_trials + of_examples)
    if error <= 1e-12:
        p, half = (1.0, 0.0) if abs(mean) < 1e-12 else (None, None)
    else:
        df = (n_trials - 1) * ((of_trials + of_examples) / of_trials) ** 2 if of_trials > 0 else 1e9
        p, half = float(2 * stdtr(df, -abs(mean) / error)), error * t_quantile(1 - alpha / 2, df)
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return TwoWayTest(mean, low, high, p, math.sqrt(of_trials), math.sqrt(of_examples), n_trials, n_examples)


def two_way_bootstrap(
    differences: NDArray[np.float64],
    generator: np.random.Generator,
    n_resamples: int = 10_000,
    alpha: float = 0.05,
) -> BootstrapInterval:
    """Resample trials and examples, both with replacement and crossed (Owen, 2007); T - 1 of the T trials each time.

    T - 1 draws (Rao and Wu, 1988) give the mean of few trials its unbiased variance. The interval is a percentile
    interval all the same: where trials scatter more than examples do, three of them are too few for it, and
    `two_way_test` is the one to report. With one trial only examples are resampled.

    Examples with the same outcomes in all trials are drawn together, as one multinomial count: the same distribution
    as drawing them one by one, in time that hardly depends on their number.

    Args:
        differences: shape (trials, examples), see the module.
        generator: where the draws come from.
        n_resamples: number of resamples.
        alpha: the interval covers 1 - alpha, nominally.

    Raises:
        ValueError: a trial has no example.
    """
    mean = float(100 * np.nanmean(differences, axis=1).mean())
    n_trials, n_examples = differences.shape
    patterns, counts = _patterns(differences)
    is_there = np.isfinite(patterns)
    if not is_there.any(axis=1).all():
        raise ValueError("each trial needs an example")
    values = np.nan_to_num(patterns, nan=0.0)
    found = np.empty(n_resamples)
    size = max(1, min(n_resamples, _MOST_DRAWN // len(counts)))
    n_drawn = max(1, n_trials - 1)
    for start in range(0, n_resamples, size):
        n_now = min(size, n_resamples - start)
        drawn = generator.multinomial(n_examples, counts / n_examples, size=n_now).astype(np.float64)
        weights = generator.multinomial(n_drawn, np.full(n_trials, 1 / n_trials), size=n_now)
        means = (drawn @ values.T) / np.maximum(drawn @ is_there.T.astype(float), 1.0)
        found[start : start + n_now] = (means * weights).sum(axis=1) / n_drawn
    low, high = np.quantile(100 * found, [alpha / 2, 1 - alpha / 2])
    share = float((np.sign(np.round(found, 12)).mean() + 1) / 2)
    return BootstrapInterval(mean, float(low), float(high), share, n_resamples)


def permutation_test(differences: NDArray[np.float64]) -> PermutationTest:
    """Flip the methods' roles by example and by trial; both exact, by convolution and by going through all patterns.

    With one trial the test over examples is McNemar's.

    Args:
        differences: shape (trials, examples), see the module.
    """
    filled = np.nan_to_num(differences, nan=0.0)
    by_trial = np.nanmean(differences, axis=1)
    n_trials = len(by_trial)
    return PermutationTest(_flip_sums(filled.sum(axis=0)), sign_flip_p(by_trial), min(1.0, 2.0 ** (1 - n_trials)))


def _patterns(differences: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Give the distinct columns, and how often each comes."""
    codes = np.zeros(differences.shape[1], dtype=np.int64)
    for row in np.nan_to_num(differences, nan=2.0).astype(np.int64):
        # Numbered anew after each row, the codes stay below 4 times the number of columns.
        codes = np.unique(4 * codes + row, return_inverse=True)[1]
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    return differences[:, first], counts


def _flip_sums(sums: NDArray[np.float64]) -> float:
    """Give the exact sign-flip p of integers: their sum under random signs is a sum of scaled binomials."""
    from scipy.signal import fftconvolve
    from scipy.special import bdtr

    sizes = np.rint(np.abs(sums)).astype(int)
    observed = abs(round(float(sums.sum())))
    if observed == 0:
        return 1.0
    if set(sizes) <= {0, 1}:
        n = int(sizes.sum())
        return float(min(1.0, 2 * bdtr((n - observed) // 2, n, 0.5)))
    chances = np.ones(1)
    for size in range(1, int(sizes.max()) + 1):
        n = int((sizes == size).sum())
        if n:
            steps = np.zeros(2 * size * n + 1)
            steps[:: 2 * size] = _coin_chances(n)
            chances = fftconvolve(chances, steps)
    middle = len(chances) // 2
    # The transform leaves noise of 1e-16 a place, above which no p can be told.
    return float(min(1.0, max(2 * chances[middle + observed :].sum(), 1e-12)))


def _coin_chances(n: int) -> NDArray[np.float64]:
    from scipy.special import gammaln

    k = np.arange(n + 1)
    return np.asarray(np.exp(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) - n * math.log(2)))


def _shared_covariance(differences: NDArray[np.float64]) -> float:
    """Give the mean over pairs of trials of their covariance over the examples that both have."""
    found = []
    for i, one in enumerate(differences):
        for other in differences[i + 1 :]:
            both = np.isfinite(one) & np.isfinite(other)
            if both.sum() > 1:
                found.append(float(np.cov(one[both], other[both])[0, 1]))
    return float(np.mean(found)) if found else 0.0
