"""Label spaces are joined by name: spelling does not matter, a name that is not there is an error."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.dataset import join_classes, plain_name
from bench.errors import SpecError

names = st.lists(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), min_size=1, unique_by=plain_name
)


@given(names, st.randoms(use_true_random=False))
def test_a_shuffled_label_space_is_found_again(source: list[str], draws: random.Random) -> None:
    target = draws.sample(source, len(source))
    found = join_classes(source, target)
    assert found.dtype == np.int64
    assert [source[position] for position in found] == target


def test_spelling_does_not_matter() -> None:
    source = ("Alarm Clock", "t-shirt", "TV", "cell_phone")
    assert join_classes(source, ("tv", "T Shirt", "alarm_clock", "CellPhone")).tolist() == [2, 1, 0, 3]


def test_of_equal_names_the_first_is_given() -> None:
    assert join_classes(("missile", "tank", "missile"), ("missile",)).tolist() == [0]


def test_all_missing_names_are_said_with_the_nearest() -> None:
    with pytest.raises(
        SpecError, match=r"2 of 3 class names are not among the other 3: 'mobile phones' \(nearest: mobile phone"
    ):
        join_classes(("mobile phone", "bench", "mug"), ("mobile phones", "mug", "qqqq"))


def test_aliases_are_taken_where_the_name_itself_is_absent() -> None:
    aliases = {"chair": ("barber chair", "folding chair"), "mug": ("bench",)}
    assert join_classes(("folding chair", "mug", "bench"), ("chair", "mug"), aliases).tolist() == [0, 1]


def test_empty_target_gives_no_positions() -> None:
    found = join_classes(("a", "b"), ())
    assert found.dtype == np.int64 and found.shape == (0,)
