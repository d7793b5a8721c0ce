"""Which test a comparison gets: the shipped defaults, chosen by the estimand and the number of units, never by a result.

| estimand         | units at hand                         | test                                                          |
|------------------|---------------------------------------|---------------------------------------------------------------|
| new-domains      | domains of one data set, 3 to 9       | t over domain means                                           |
| new-domains      | several data sets, 3 to 9             | t over data-set means, each the mean of its domains           |
| new-domains      | 10 to 30 of either                    | exact sign-flip of the same means, interval by its inversion  |
| new-domains      | more                                  | t over the same means                                         |
| these-benchmarks | any, with 3 trial seeds in common     | t over trials, each the average over the units as in a table  |

The last test has trials as its units, since what a seed does may be common to all domains: they share it, and most of
their training data. Tests that take the trials of different domains for independent are sharper, and wrong then.
Domains of one data set resemble each other, so over several data sets the data set is the unit: a t-test over the 22
domains of the usual five finds what is not there in up to a quarter of the cases. `perf.false_positives` simulates all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.exact_tests import MAX_EXACT_UNITS, sign_flip_interval, sign_flip_p, sign_flip_p_values, smallest_p
from bench.stats import (
    MIN_TRIALS,
    MIN_UNITS,
    MeanTest,
    cluster_means,
    mean_test,
    mean_tests,
    t_p_values,
)
from bench.units import PairedUnits, trial_averages

SEVERAL_DATASETS = " (over several data sets: new data sets)"
ESTIMANDS = {
    "new-domains": f"the mean difference on new domains{SEVERAL_DATASETS} like these",
    "these-benchmarks": "the mean difference of new trainings on exactly these domains, and no others",
}
TESTS = {
    "t": "paired t-test over unit means (df = units - 1)",
    "sign-flip": "exact sign-flip test of the mean over unit means",
    "t-trials": "paired t-test over trials, averaged over these units (df = trials - 1)",
}
MIN_SIGN_FLIP_UNITS = 10
"""From here on the exact test has p-values small enough for a family (.002), and needs symmetry only, no normality."""


@dataclass(frozen=True)
class PairedTest:
    """One comparison, tested.

    Attributes:
        estimand: one of `ESTIMANDS`.
        test: one of `TESTS`; None where there is none.
        units: how many units the test counts.
        unit: what a unit is, "domain", "data set" or "trial".
        difference: mean difference, in points: over units of the means over trials.
        low: lower end of the interval; None where there is no test.
        high: upper end.
        p: two-sided p against 0, before correction; None where there is no test.
        smallest_p: smallest p that an exact test could reach with so many units.
        reason: why there is no test, empty where there is one.
    """

    estimand: str
    test: str | None
    units: int
    unit: str
    difference: float
    low: float | None
    high: float | None
    p: float | None
    smallest_p: float
    reason: str


def paired_test(
    paired: PairedUnits, estimand: str = "new-domains", alpha: float = 0.05, *, over_datasets: bool = False
) -> PairedTest:
    """Test paired differences the default way.

    Args:
        paired: differences by unit and trial; not refused.
        estimand: one of `ESTIMANDS`.
        alpha: the interval covers 1 - alpha.
        over_datasets: data sets are the units even where a single one is left; several always are.

    Raises:
        ValueError: there is no such estimand, or the pairing was refused.
    """
    if estimand not in ESTIMANDS or paired.refusal:
        raise ValueError(paired.refusal or f"there is no estimand {estimand!r}: {', '.join(ESTIMANDS)}")
    values, unit, least = _values(paired, estimand, over_datasets)
    if len(values) == 0:
        means = cluster_means(paired.means, paired.datasets)
        reason = "the units have no trial seed in common"
        return PairedTest(estimand, None, 0, unit, float(means.mean()), None, None, None, 1.0, reason)
    test = "t-trials" if unit == "trial" else choose_test(len(values))
    found = _sign_flip_test(values, alpha) if test == "sign-flip" else mean_test(values, alpha)
    reason = f"fewer than {least} {unit}s" if len(values) < least else "no spread: all differences are the same"
    return _worded(found, estimand, test, unit, reason)


def _worded(found: MeanTest, estimand: str, test: str, unit: str, reason: str) -> PairedTest:
    """Say what was tested; where there is no p, why."""
    return PairedTest(
        estimand=estimand,
        test=None if found.p is None else test,
        units=found.n_units,
        unit=unit,
        difference=found.mean,
        low=found.low,
        high=found.high,
        p=found.p,
        smallest_p=found.smallest_p,
        reason=reason if found.p is None else "",
    )


def trial_tests(differences: Sequence[NDArray[np.float64]], alpha: float = 0.05) -> list[PairedTest]:
    """Test many single domains for "these-benchmarks" at once, as `paired_test` tests each.

    Args:
        differences: of each domain, shape (trials,).
        alpha: the intervals cover 1 - alpha.
    """
    found: dict[int, PairedTest] = {}
    by_number: dict[int, list[int]] = {}
    for place, each in enumerate(differences):
        by_number.setdefault(len(each), []).append(place)
    for n, places in by_number.items():
        for place, test in zip(places, mean_tests([differences[place] for place in places], alpha), strict=True):
            reason = f"fewer than {MIN_TRIALS} trials" if n < MIN_TRIALS else "no spread: all differences are the same"
            found[place] = _worded(test, "these-benchmarks", "t-trials", "trial", reason)
    return [found[place] for place in range(len(differences))]


def choose_test(n_units: int) -> str:
    """Give the default test over so many units, one of `TESTS`."""
    return "sign-flip" if MIN_SIGN_FLIP_UNITS <= n_units <= MAX_EXACT_UNITS else "t"


def default_p_values(cells: ArrayLike, datasets: tuple[str, ...]) -> NDArray[np.float64]:
    """Give the p of `paired_test` for new domains, of many tables of differences at once; for simulations.

    Args:
        cells: shape (..., units, trials), at most 14 units (data sets, if several).
        datasets: data set of each unit.
    """
    means = np.asarray(cells, dtype=np.float64).mean(axis=-1)
    if len(set(datasets)) > 1:
        means = cluster_means(means, datasets)
    return sign_flip_p_values(means) if choose_test(means.shape[-1]) == "sign-flip" else t_p_values(means)


def _values(paired: PairedUnits, estimand: str, over_datasets: bool) -> tuple[NDArray[np.float64], str, int]:
    """Give the independent differences, what they are, and how few give no test."""
    several = over_datasets or len(set(paired.datasets)) > 1
    if estimand == "these-benchmarks":
        return trial_averages(paired), "trial", MIN_TRIALS
    if several:
        return cluster_means(paired.means, paired.datasets), "data set", MIN_UNITS
    return paired.means, "domain" if any(each.domain for each in paired.units) else "data set", MIN_UNITS


def _sign_flip_test(means: NDArray[np.float64], alpha: float) -> MeanTest:
    low, high = sign_flip_interval(means, alpha) or (None, None)
    return MeanTest(float(means.mean()), low, high, sign_flip_p(means), smallest_p(len(means)), len(means))
