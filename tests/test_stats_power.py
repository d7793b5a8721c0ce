"""Power, detectable differences and plans: against statsmodels, and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from bench.power import (
    Spread,
    minimum_detectable_difference,
    observed_spread,
    plan,
    t_test_power,
    trials_needed,
    units_needed,
)
from bench.stats import t_p_values


@pytest.mark.parametrize("n_units", [3, 4, 11, 22])
@pytest.mark.parametrize("effect", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_power_agrees_with_statsmodels(n_units: int, effect: float, alpha: float) -> None:
    reference = TTestPower().power(effect, n_units, alpha)
    assert t_test_power(2 * effect, 2.0, n_units, alpha) == pytest.approx(reference, abs=2e-4)


def test_power_is_what_the_shipped_test_finds() -> None:
    cells = 1.0 + np.random.default_rng(0).standard_normal((20_000, 5))
    assert t_test_power(1.0, 1.0, 5) == pytest.approx(np.mean(t_p_values(cells) < 0.05), abs=0.01)


@pytest.mark.parametrize("n_units", [3, 5, 22])
def test_detectable_difference_agrees_with_statsmodels(n_units: int) -> None:
    reference = TTestPower().solve_power(None, n_units, 0.05, 0.8)
    assert minimum_detectable_difference(3.0, n_units) == pytest.approx(3 * reference, rel=1e-3)
    assert minimum_detectable_difference(0.0, n_units) == 0.0


@pytest.mark.parametrize("difference", [0.2, 0.7, 2.0])
def test_units_needed_agree_with_statsmodels(difference: float) -> None:
    reference = TTestPower().solve_power(difference / 1.5, None, 0.05, 0.8)
    assert units_needed(difference, 1.5) == int(np.ceil(reference))


def test_units_needed_at_the_ends() -> None:
    assert units_needed(100.0, 1.0) == 3
    assert units_needed(0.0, 1.0) is None
    assert units_needed(0.0001, 1.0) is None


@given(st.floats(0.1, 5), st.floats(0.1, 5), st.integers(3, 30))
def test_more_units_never_need_a_larger_difference(sd: float, factor: float, n_units: int) -> None:
    now = minimum_detectable_difference(sd, n_units)
    assert minimum_detectable_difference(sd, n_units + 1) < now
    assert minimum_detectable_difference(sd * factor, n_units) == pytest.approx(now * factor)


def test_spreads_are_found_again() -> None:
    stream = np.random.default_rng(1)
    cells = 2.0 * stream.standard_normal((4000, 1)) + 0.7 * stream.standard_normal((4000, 3))
    found = observed_spread(list(cells))
    assert (found.between, found.within) == (pytest.approx(2.0, rel=0.05), pytest.approx(0.7, rel=0.05))
    assert (found.n_units, found.n_trials) == (4000, pytest.approx(3))
    assert found.of_unit(3) == pytest.approx(np.std(cells.mean(axis=1), ddof=1))


def test_spread_by_hand_with_unequal_trials() -> None:
    found = observed_spread([[1.0, 3.0], [6.0], [9.0, 9.0, 9.0]])
    harmonic = 3 / (1 / 2 + 1 + 1 / 3)
    within = 2 / 3  # sum of squares 2, over 1 + 0 + 2 degrees of freedom
    assert found.n_trials == pytest.approx(harmonic)
    assert found.within == pytest.approx(np.sqrt(within))
    assert found.between == pytest.approx(np.sqrt(np.var([2.0, 6.0, 9.0], ddof=1) - within / harmonic))


def test_one_trial_leaves_the_spreads_together() -> None:
    found = observed_spread([[1.0], [2.0], [6.0]])
    assert found.within is None
    assert found.between == pytest.approx(np.std([1.0, 2.0, 6.0], ddof=1))
    assert trials_needed(1.0, found) is None


def test_spread_of_one_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="two units or more"):
        observed_spread([[1.0, 2.0]])


def test_trials_help_only_against_the_spread_of_trials() -> None:
    noisy, varied = Spread(0.1, 2.0, 6, 3), Spread(2.0, 0.1, 6, 3)
    assert trials_needed(1.0, varied) is None
    needed = trials_needed(1.0, noisy)
    assert needed is not None
    assert t_test_power(1.0, noisy.of_unit(needed), 6) >= 0.8 > t_test_power(1.0, noisy.of_unit(needed - 1), 6)


def test_plan_says_what_is_needed_in_all() -> None:
    cells = [[1.0, 2.0, 0.0], [3.0, 4.0, 5.0], [-1.0, 0.0, 1.0], [2.0, 2.0, 2.0]]
    found = plan(cells, difference=-2.0, n_tests=5)
    sd = found.spread.of_unit(3)
    assert (found.difference, found.alpha) == (2.0, 0.01)
    assert found.units == units_needed(2.0, sd, 0.01)
    assert found.power_now == t_test_power(2.0, sd, 4, 0.01)
    assert found.detectable == minimum_detectable_difference(sd, 4, 0.01)
    assert plan(cells).difference == pytest.approx(1.75)


def test_plan_of_two_units_has_no_test_now_but_says_how_many() -> None:
    found = plan([[1.0, 2.0], [3.0, 2.0]])
    assert (found.power_now, found.detectable, found.trials) == (0.0, None, None)
    assert found.units is not None and found.units >= 3
