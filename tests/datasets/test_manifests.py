"""Manifests: what is written is read back, and differences are what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import manifests
from bench.dataset import clean_class_name, find_dataset
from bench.manifests import Manifest, compare

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.from_regex(r"[A-Z]/[a-z_ é\-]{1,8}/[a-z0-9 #]{1,8}\.jpg", fullmatch=True)
contents = st.dictionaries(names, digests, max_size=8)


@given(contents)
def test_a_copy_does_not_differ_from_itself_nor_from_shortened_digests(found: dict[str, str]) -> None:
    for wanted in (found, {name: digest[:8] for name, digest in found.items()}):
        difference = compare(found, Manifest("", wanted))
        assert (difference.missing, difference.extra, difference.altered) == ((), (), ())
        assert difference.same == len(found)


@given(contents, contents)
def test_differences_add_up_and_turn_round(one: dict[str, str], two: dict[str, str]) -> None:
    there, back = compare(one, Manifest("", two)), compare(two, Manifest("", one))
    assert there.missing == back.extra and there.extra == back.missing and there.altered == back.altered
    assert there.same + len(there.altered) + len(there.extra) == len(one)
    assert there.same + len(there.altered) + len(there.missing) == len(two)


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_manifest_is_read_back_and_the_same_content_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    manifest = Manifest("a copy, small", {"A/dog/é 1.jpg": "ab" * 32, "A/cat/#2.jpg": "0f" * 32})
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        manifests.write(path, manifest)
    assert manifests.read(paths[0]) == manifest
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("name", ["PACS", "Office31"])
def test_shipped_manifest_fits_the_declaration(name: str) -> None:
    info = find_dataset(name)
    shipped = manifests.shipped(name)
    assert shipped is not None
    counted = [sum(key.startswith(f"{domain}/") for key in shipped.digests) for domain in info.domains]
    assert tuple(counted) == info.counts
    classes = {clean_class_name(key.split("/")[1]) for key in shipped.digests}
    assert classes == set(info.class_names)


def test_other_data_sets_ship_none() -> None:
    assert manifests.shipped("VLCS") is None
