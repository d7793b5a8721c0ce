from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.splits import UNIVERSAL_SPLITS, base_and_new, few_shot


@pytest.mark.parametrize(
    ("n", "base", "new"),
    [(1000, 500, 500), (100, 50, 50), (37, 19, 18), (196, 98, 98), (101, 51, 50), (397, 199, 198), (47, 24, 23)],
)
def test_base_classes_are_the_first_half_rounded_up(n: int, base: int, new: int) -> None:
    labels = [label for label in range(n) for _ in range(2)]
    random.Random(0).shuffle(labels)
    first, rest = base_and_new(labels)
    assert (len(first), len(rest)) == (base, new)
    assert first + rest == list(range(n))


@given(labels=st.lists(st.integers(0, 6), max_size=60), n_shot=st.integers(1, 6), seed=st.integers(0, 99))
def test_few_shot_takes_each_class_once_as_often_as_it_can(labels: list[int], n_shot: int, seed: int) -> None:
    chosen = few_shot(labels, n_shot, random.Random(seed))
    assert len(set(chosen)) == len(chosen)
    for label in set(labels):
        assert sum(labels[i] == label for i in chosen) == min(n_shot, labels.count(label))
    assert chosen == few_shot(labels, n_shot, random.Random(seed))


def test_few_shot_draws_from_one_continuing_stream_in_the_order_of_first_appearance() -> None:
    """Against the published order of calls on Python's global stream: training shots first, then validation shots."""
    train, val = [2, 0, 2, 1, 0, 1, 2, 0, 1, 1], [0, 1, 1, 2, 2, 0, 0, 1]
    state = random.getstate()
    random.seed(1)
    expected = [[random.sample(group, 2) for group in groups] for groups in ([[0, 2, 6], [1, 4, 7], [3, 5, 8, 9]],)]
    expected_val = [random.sample(group, 2) for group in ([0, 5, 6], [1, 2, 7], [3, 4])]
    random.setstate(state)
    draws = random.Random(1)
    assert few_shot(train, 2, draws) == [i for group in expected[0] for i in group]
    assert few_shot(val, 2, draws) == [i for group in expected_val for i in group]
    assert few_shot(val, 2, random.Random(1)) != [i for group in expected_val for i in group]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Office31", (25, 25, 20, 28, 18, 31)),
        ("OfficeHome", (50, 50, 35, 60, 45, 65)),
        ("VisDA-C", (8, 8, 6, 10, 8, 12)),
        ("DomainNet", (300, 300, 250, 330, 280, 345)),
    ],
)
def test_universal_splits_have_the_published_sizes(name: str, sizes: tuple[int, ...]) -> None:
    split = UNIVERSAL_SPLITS[name]
    assert tuple(map(len, split)) == sizes
    assert set(split.partial) < set(split.known) == set(split.closed)
    assert set(split.open) - set(split.known) == set(split.open_partial) - set(split.known)
    assert max(split.open) < max(split.test)  # some classes appear in the test alone
