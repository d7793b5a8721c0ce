"""Seeds are DomainBed's, to the digit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.seeds import legacy_stream, seed_hash, stream


@pytest.mark.parametrize(
    ("parts", "seed"),
    [
        ((0, 0), 894182419),
        ((0, 1), 1514274641),
        ((1, 0), 785910682),
        (("PACS", "ERM", [0], 0, 0), 94828300),
        (("PACS", "ERM", (0,), 0, 0), 947091821),
        (("VLCS", "ERM", [1, 2], 1, 0), 360234358),
    ],
)
def test_seed_hash_is_domainbeds(parts: tuple[object, ...], seed: int) -> None:
    assert seed_hash(*parts) == seed


@pytest.mark.parametrize(
    "part", [np.int64(0), np.float32(0.5), np.str_("PACS"), np.array([0]), [np.int64(0)], ("a", [np.int64(0)])]
)
def test_seed_hash_refuses_numpy_values(part: object) -> None:
    with pytest.raises(TypeError, match="cast it to built-in"):
        seed_hash("PACS", part)


@given(st.lists(st.one_of(st.integers(), st.text(), st.lists(st.integers()))))
def test_seed_hash_is_a_seed(parts: list[object]) -> None:
    assert 0 <= seed_hash(*parts) < 2**31


def test_types_matter() -> None:
    assert len({seed_hash(0), seed_hash("0"), seed_hash(0.0), seed_hash([0]), seed_hash((0,)), seed_hash(False)}) == 6


def test_streams_depend_on_all_parts_and_on_nothing_else() -> None:
    assert stream("a", 1).random() == stream("a", 1).random() != stream("a", 2).random()
    assert legacy_stream("a", 1).uniform() == legacy_stream("a", 1).uniform() != legacy_stream("b", 1).uniform()


def test_streams_leave_the_global_stream_alone() -> None:
    before = np.random.get_state()[1].tolist()
    stream(1).random()
    legacy_stream(1).uniform()
    assert np.random.get_state()[1].tolist() == before


def test_stream_gives_the_same_numbers_for_ever() -> None:
    assert stream("labelled", 0, 1, 2).integers(1000, size=4).tolist() == [850, 349, 269, 568]
