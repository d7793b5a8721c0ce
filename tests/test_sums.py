"""Sums without numpy are numpy's, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.sums import deviation, mean, total

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)


@given(st.lists(NUMBERS, min_size=1, max_size=40))
def test_mean_and_deviation_are_numpys(values: list[float]) -> None:
    assert mean(values) == np.mean(values)
    assert deviation(values) == np.std(values)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 8, 9, 15, 16, 17, 127, 128, 129, 130, 136, 255, 257, 300, 1000]))
def test_long_sums_are_numpys(seed: int, length: int) -> None:
    values = np.random.default_rng(seed).random(length)
    assert total(values.tolist()) == np.sum(values)
    assert deviation(values.tolist()) == np.std(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    assert str(mean([0.5, value])) == str(float(np.mean([0.5, value])))
