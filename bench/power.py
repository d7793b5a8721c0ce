"""What a comparison could have found, and how many units and trials would settle it. Numbers in, numbers out.

A unit's difference has two sources: the unit itself (methods differ by domain), of spread `between`, and the trials,
of spread `within`. Trials average out the second only, so the error of the mean over n units with S trials each is
sqrt((between² + within²/S) / n): where `between` is large, no number of seeds replaces another data set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bench.exact_tests import finite
from bench.stats import MIN_UNITS, t_quantile

POWER = 0.8
"""The usual chance with which a true difference should be found."""
MOST_UNITS = 10_000
MOST_TRIALS = 100


@dataclass(frozen=True)
class Spread:
    """Standard deviations of paired differences, in points.

    Attributes:
        between: between units, beyond what trials explain.
        within: between trials of one unit; None where no unit has two trials, then `between` holds both.
        n_units: units they were measured on.
        n_trials: trials a unit, on average (harmonic mean).
    """

    between: float
    within: float | None
    n_units: int
    n_trials: float

    def of_unit(self, n_trials: float) -> float:
        """Give the standard deviation of one unit's mean over `n_trials` trials."""
        return math.sqrt(self.between**2 + (self.within or 0.0) ** 2 / n_trials)


@dataclass(frozen=True)
class Plan:
    """What it would take to find a difference, at the spread observed so far.

    Attributes:
        difference: the true difference to be found, in points.
        spread: what was observed.
        power_now: chance to find it with the units and trials at hand.
        detectable: difference that would be found with the chance `power` with those; None below `MIN_UNITS` units.
        units: units needed in all with as many trials as now; None if more than `MOST_UNITS`.
        trials: trials a unit needed in all with the units at hand; None where not even `MOST_TRIALS` are enough.
        alpha: level of the test, for the family's size already.
        power: chance asked for.
    """

    difference: float
    spread: Spread
    power_now: float
    detectable: float | None
    units: int | None
    trials: int | None
    alpha: float
    power: float


def observed_spread(trial_differences: Sequence[ArrayLike]) -> Spread:
    """Estimate both spreads by the analysis of variance (mean squares; a negative estimate counts as 0).

    Args:
        trial_differences: for each unit one paired difference a trial.

    Raises:
        ValueError: there are fewer than two units, a unit has no trial, or a difference is not finite.
    """
    numbers = [finite(of_unit) for of_unit in trial_differences]
    if len(numbers) < 2 or not all(map(len, numbers)):
        raise ValueError(f"a spread between units needs two units or more with trials, not {len(numbers)}")
    counts = np.array([len(of_unit) for of_unit in numbers])
    harmonic = float(len(counts) / (1 / counts).sum())
    total = float(np.var([of_unit.mean() for of_unit in numbers], ddof=1))
    if counts.max() < 2:
        return Spread(math.sqrt(total), None, len(numbers), harmonic)
    within = sum(float(((of_unit - of_unit.mean()) ** 2).sum()) for of_unit in numbers) / float((counts - 1).sum())
    return Spread(math.sqrt(max(0.0, total - within / harmonic)), math.sqrt(within), len(numbers), harmonic)


def t_test_power(difference: float, sd: float, n_units: int, alpha: float = 0.05) -> float:
    """Give the chance that the two-sided t-test over units finds a true mean difference.

    Args:
        difference: true mean.
        sd: standard deviation of one unit's difference.
        n_units: units, two or more.
        alpha: level of the test.
    """
    if sd <= 0:
        return 1.0 if difference else alpha
    df, shift = n_units - 1, abs(difference) / sd * math.sqrt(n_units)
    critical = t_quantile(1 - alpha / 2, df)
    return _noncentral_above(critical, df, shift) + _noncentral_above(critical, df, -shift)


def minimum_detectable_difference(sd: float, n_units: int, alpha: float = 0.05, power: float = POWER) -> float:
    """Give the true mean difference that the t-test over units finds with the chance `power`, in the unit of `sd`.

    Args:
        sd: standard deviation of one unit's difference.
        n_units: units, two or more.
        alpha: level of the test.
        power: between alpha and 1.
    """
    if sd <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while t_test_power(high, 1.0, n_units, alpha) < power:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if t_test_power(middle, 1.0, n_units, alpha) < power else (low, middle)
    return high * sd


def units_needed(difference: float, sd: float, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Give the fewest units, at least `MIN_UNITS`, with which a difference is found; None above `MOST_UNITS`."""
    if t_test_power(difference, sd, MOST_UNITS, alpha) < power:
        return None
    low, high = MIN_UNITS - 1, MOST_UNITS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if t_test_power(difference, sd, middle, alpha) >= power else (middle, high)
    return high


def trials_needed(difference: float, spread: Spread, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Give the fewest trials a unit with which a difference is found on the units at hand; None above `MOST_TRIALS`."""
    if spread.within is None or spread.n_units < MIN_UNITS:
        return None
    for n_trials in range(1, MOST_TRIALS + 1):
        if t_test_power(difference, spread.of_unit(n_trials), spread.n_units, alpha) >= power:
            return n_trials
    return None


def plan(
    trial_differences: Sequence[ArrayLike],
    difference: float | None = None,
    alpha: float = 0.05,
    power: float = POWER,
    n_tests: int = 1,
) -> Plan:
    """Say what it would take to find a difference.

    Args:
        trial_differences: for each unit one paired difference a trial, in points; where the units are data sets, of
            each trial the mean over its domains.
        difference: the true difference to be found; the observed mean where None, which is an optimistic guess: a
            difference that looks large by luck asks for too few units.
        alpha: level.
        power: chance asked for.
        n_tests: size of the family; the plan is for Holm's first and hardest step, alpha / n_tests.

    Raises:
        ValueError: as `observed_spread`.
    """
    spread = observed_spread(trial_differences)
    observed = float(np.mean([finite(of_unit).mean() for of_unit in trial_differences]))
    wished, level = abs(observed if difference is None else difference), alpha / n_tests
    sd, n = spread.of_unit(spread.n_trials), spread.n_units
    has_test = n >= MIN_UNITS
    return Plan(
        difference=wished,
        spread=spread,
        power_now=t_test_power(wished, sd, n, level) if has_test else 0.0,
        detectable=minimum_detectable_difference(sd, n, level, power) if has_test else None,
        units=units_needed(wished, sd, level, power),
        trials=trials_needed(wished, spread, level, power),
        alpha=level,
        power=power,
    )


def _noncentral_above(critical: float, df: int, shift: float) -> float:
    """Give P(T' > critical) of the noncentral t: the normal tail, averaged over the chi density of the estimated spread."""
    from scipy.special import ndtr

    # Beyond 8 deviations of the spread (about 1/sqrt(2 df) each) nothing is left; with 500 midpoints it is right to 1e-5.
    reach = 8 / math.sqrt(2 * df)
    low = max(0.0, 1 - reach)
    ratios = low + (1 + reach - low) * (np.arange(500) + 0.5) / 500
    logs = (df - 1) * np.log(ratios) - df * ratios**2 / 2
    density = np.exp(logs - logs.max())
    return float((density * ndtr(shift - critical * ratios)).sum() / density.sum())
