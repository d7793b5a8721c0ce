"""Office31, VisDA-C, miniDomainNet and DomainNet's lists, read from miniature copies; joins across sort orders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.dataset import Dataset, find_dataset, join_classes
from bench.errors import Conflict, DataMissing, SpecError
from bench.registry import datasets
from bench.spec import Places
from tests.datasets import trees

SIX = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
NET = datasets["DomainNet"].class_folders
M3SDA = sorted(NET, key=lambda name: name.lower().replace("_", "").replace("-", ""))
"""The order of the ids in the official lists: without regard to case, `_` and `-`."""


def load(name: str, data: Path) -> Dataset:
    return find_dataset(name).load(Places(data_dir=str(data)))


def office(data: Path, inner: str) -> Path:
    for domain in ("amazon", "dslr", "webcam"):
        trees.folders(data, f"office31/{domain}{inner}", find_dataset("Office31").class_folders)  # type: ignore[attr-defined]
    return data / "office31"


@pytest.mark.parametrize("inner", ["", "/images"])
def test_office31_is_read_with_and_without_the_folder_images(inner: str, tmp_path: Path) -> None:
    root = office(tmp_path, inner)
    dataset = load("Office31", tmp_path)
    assert [domain.name for domain in dataset.domains] == ["A", "D", "W"]
    assert [domain.words for domain in dataset.domains] == ["amazon", "dslr", "webcam"]
    assert all((root / file).is_file() for domain in dataset.domains for file in domain.files)
    assert dataset.domains[0].labels.tolist() == list(range(31))
    assert dataset.class_names[:3] == ("back pack", "bike", "bike helmet")


def test_digest_of_office31_does_not_depend_on_the_layout(tmp_path: Path) -> None:
    office(tmp_path / "a", "")
    office(tmp_path / "b", "/images")
    assert load("Office31", tmp_path / "a").digest == load("Office31", tmp_path / "b").digest


@pytest.mark.realdata
def test_real_office31_has_the_published_counts(shared_data: Path) -> None:
    dataset = load("Office31", shared_data)
    assert [len(domain.files) for domain in dataset.domains] == [2817, 498, 795]
    assert dataset.notes == () and dataset.splits == {}


def test_visda_has_two_domains(tmp_path: Path) -> None:
    for domain in ("train", "validation"):
        trees.folders(tmp_path, f"visda-c/{domain}", datasets["VisDA-C"].class_folders, n=2)
        (tmp_path / "visda-c" / domain / "image_list.txt").touch()
    dataset = load("VisDA-C", tmp_path)
    assert [domain.name for domain in dataset.domains] == ["train", "validation"]
    assert dataset.class_names[0] == "aeroplane" and dataset.class_names[-1] == "truck"


def test_orders_of_domainnet_differ_as_published() -> None:
    assert M3SDA[308:311] == ["The_Eiffel_Tower", "The_Great_Wall_of_China", "The_Mona_Lisa"]
    assert M3SDA[327] == "t-shirt"
    assert sum(a != b for a, b in zip(NET, M3SDA, strict=True)) == 328


def test_join_across_sort_orders_of_domainnet_and_officehome() -> None:
    for folders, other in (
        (NET, M3SDA),
        (datasets["OfficeHome"].class_folders, sorted(datasets["OfficeHome"].class_folders, key=str.lower)),
    ):
        joined = join_classes(folders, [name.lower().replace("_", " ") for name in other])
        assert [folders[i] for i in joined] == list(other)
        assert joined.tolist() != list(range(len(folders)))
        assert sorted(joined) == list(range(len(folders)))


@pytest.mark.parametrize("place", ["", "splits", "txt"])
def test_domainnets_lists_become_splits_by_folder_not_by_id(place: str, tmp_path: Path) -> None:
    for domain in SIX:
        trees.folders(tmp_path, f"domain_net/{domain}", NET, n=4)
    trees.lists(tmp_path / "domain_net", place, SIX, M3SDA)
    dataset = load("DomainNet", tmp_path)
    assert {split: [len(each) for each in positions] for split, positions in dataset.splits.items()} == {
        "train": [1035] * 6,
        "test": [345] * 6,
    }
    domain, train = dataset.domains[2], dataset.splits["train"][2]
    assert [domain.files[i] for i in train[:3]] == [f"painting/aircraft_carrier/{i}.jpg" for i in (2, 0, 1)]
    assert domain.labels[train[0]] == NET.index("aircraft_carrier") == 3
    assert not set(train.tolist()) & set(dataset.splits["test"][2].tolist())


def test_domainnet_without_lists_has_no_splits_and_says_what_is_absent(tmp_path: Path) -> None:
    for domain in SIX:
        trees.folders(tmp_path, f"domain_net/{domain}", NET)
    assert load("DomainNet", tmp_path).splits == {}
    trees.lists(tmp_path / "domain_net", "", SIX[:-1], M3SDA)
    with pytest.raises(DataMissing, match=r"sketch_train\.txt"):
        load("DomainNet", tmp_path)


def test_listed_images_that_are_absent_are_noted(tmp_path: Path) -> None:
    for domain in SIX:
        trees.folders(tmp_path, f"domain_net/{domain}", NET, n=4)
    trees.lists(tmp_path / "domain_net", "", SIX, M3SDA)
    (tmp_path / "domain_net/real/zebra/2.jpg").unlink()
    notes = load("DomainNet", tmp_path).notes
    assert any("DomainNet/real lacks 1 images of real_train.txt: real/zebra/2.jpg" in note for note in notes)


MINI = [name for name in M3SDA if name[0] in "abc"]


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    for domain in ("clipart", "painting", "real", "sketch"):
        trees.folders(tmp_path, f"domainnet/{domain}", MINI, n=5)
    trees.lists(tmp_path / "domainnet", "splits_mini", ("clipart", "painting", "real", "sketch"), MINI)
    return tmp_path / "domainnet"


def test_mini_domainnet_takes_classes_and_images_from_its_lists(mini: Path) -> None:
    dataset = load("miniDomainNet", mini.parent)
    assert list(dataset.class_names) == [name.replace("_", " ") for name in MINI]
    assert [len(domain.files) for domain in dataset.domains] == [4 * len(MINI)] * 4
    assert [len(positions) for positions in dataset.splits["train"]] == [3 * len(MINI)] * 4
    assert np.unique(dataset.domains[3].labels).tolist() == list(range(len(MINI)))
    assert any("published 140,006" in note for note in dataset.notes)


def test_damage_to_mini_domainnet_is_named(mini: Path) -> None:
    path = mini / "splits_mini" / "real_test.txt"
    lines = path.read_text()
    path.write_text(lines + "real/zebra/1.jpg 0\n")
    with pytest.raises(Conflict, match="one class folder of its own"):
        load("miniDomainNet", mini.parent)
    path.write_text(lines + "real/ant/1.jpg\n")
    with pytest.raises(SpecError, match=r"real_test\.txt:\d+ is no line of a list"):
        load("miniDomainNet", mini.parent)
    path.write_text(lines)
    (mini / "real" / "ant" / "0.jpg").unlink()
    with pytest.raises(DataMissing, match=r"1 of the .* real/ant/0\.jpg"):
        load("miniDomainNet", mini.parent)
    path.unlink()
    with pytest.raises(DataMissing, match=r"the list .*real_test\.txt is missing"):
        load("miniDomainNet", mini.parent)
    (mini / "splits_mini").rename(mini / "other")
    with pytest.raises(DataMissing, match="lacks splits_mini"):
        load("miniDomainNet", mini.parent)
