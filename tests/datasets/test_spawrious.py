"""Spawrious' six data sets against the combinations of DomainBed's benchmark."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.dataset import find_dataset
from bench.errors import DataMissing
from bench.registry import datasets
from bench.spec import Places
from tests.datasets import trees

O2O = ["SpawriousO2O_easy", "SpawriousO2O_medium", "SpawriousO2O_hard"]
M2M = ["SpawriousM2M_easy", "SpawriousM2M_medium", "SpawriousM2M_hard"]


@pytest.mark.parametrize("name", [*O2O, *M2M])
def test_domains_have_the_computed_sizes_and_all_breeds_alike(name: str) -> None:
    info = datasets[name]
    for parts, count in zip(info.parts(), info.counts, strict=True):
        assert sum(n for _, _, n in parts) == count
        of_breed = Counter[str]()
        for _, breed, n in parts:
            of_breed[breed] += n
        assert len(of_breed) == 4 and len(set(of_breed.values())) == 1
        assert len({(folder, breed) for folder, breed, _ in parts}) == len(parts)


@pytest.mark.parametrize("name", [*O2O, *M2M])
def test_no_breed_is_tested_before_its_training_background(name: str) -> None:
    test, *groups = ({(folder[2:], breed) for folder, breed, _ in parts} for parts in datasets[name].parts())
    assert not test & groups[0] and not test & groups[1]


def test_parts_are_domainbeds() -> None:
    test, first, second = datasets["SpawriousO2O_easy"].parts()
    assert first[:2] == [("0/desert", "bulldog", 3072), ("0/jungle", "dachshund", 3072)]
    assert second[3:5] == [("1/snow", "corgi", 2756), ("1/beach", "bulldog", 412)]
    assert [part for part in test if part[1] == "labrador"] == [
        ("0/desert", "labrador", 3168),
        ("1/desert", "labrador", 3168),
    ]
    test, first, second = datasets["SpawriousM2M_hard"].parts()
    assert [(part[0], part[1]) for part in second] == [
        ("0/jungle", "bulldog"),
        ("0/dirt", "dachshund"),
        ("0/beach", "labrador"),
        ("0/snow", "corgi"),
    ]
    assert ("0/jungle", "corgi", 3168) in test and ("0/dirt", "corgi", 3168) in test


def test_the_first_files_by_name_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = datasets["SpawriousM2M_easy"]
    small = [[(folder, breed, 2) for folder, breed, _ in parts] for parts in info.parts()]
    monkeypatch.setattr(type(info), "parts", lambda self: small)
    for parts in small:
        for folder, breed, _ in parts:
            trees.put(tmp_path / "spawrious224" / folder / breed, ("2.png", "0.png", "1.png"))
    dataset = find_dataset("SpawriousM2M_easy").load(Places(data_dir=str(tmp_path)))
    assert [domain.name for domain in dataset.domains] == ["Test", "SC_group_1", "SC_group_2"]
    assert dataset.domains[1].files[:3] == (
        "0/desert/bulldog/0.png",
        "0/desert/bulldog/1.png",
        "0/mountain/dachshund/0.png",
    )
    assert dataset.domains[1].labels.tolist() == [0, 0, 2, 2, 3, 3, 1, 1]


def test_too_few_images_are_an_error(tmp_path: Path) -> None:
    trees.put(tmp_path / "spawrious224/0/dirt/bulldog", ("0.png",))
    with pytest.raises(DataMissing, match="holds 1 images, 3,168 are needed"):
        find_dataset("SpawriousO2O_easy").load(Places(data_dir=str(tmp_path)))
