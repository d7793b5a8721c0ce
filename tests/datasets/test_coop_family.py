"""CoOp's sets read from miniature copies: splits, order of classes, names, and what each kind of damage says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.dataset import Dataset, find_dataset
from bench.errors import BenchError, Conflict, DataMissing, SpecError
from bench.registry import datasets
from bench.spec import Places
from bench.splits import base_and_new
from tests.datasets import trees

PUBLISHED = {  # name: classes, train, val, test, base, new, template (CoOp's DATASETS.md, trainers/zsclip.py, paper)
    "Caltech101": (100, 4128, 1649, 2465, 50, 50, "a photo of a {}."),
    "OxfordPets": (37, 2944, 736, 3669, 19, 18, "a photo of a {}, a type of pet."),
    "StanfordCars": (196, 6509, 1635, 8041, 98, 98, "a photo of a {}."),
    "Flowers102": (102, 4093, 1633, 2463, 51, 51, "a photo of a {}, a type of flower."),
    "Food101": (101, 50500, 20200, 30300, 51, 50, "a photo of {}, a type of food."),
    "FGVCAircraft": (100, 3334, 3333, 3333, 50, 50, "a photo of a {}, a type of aircraft."),
    "SUN397": (397, 15880, 3970, 19850, 199, 198, "a photo of a {}."),
    "DTD": (47, 2820, 1128, 1692, 24, 23, "{} texture."),
    "EuroSAT": (10, 13500, 5400, 8100, 5, 5, "a centered satellite photo of {}."),
    "UCF101": (101, 7639, 1898, 3783, 51, 50, "a photo of a person doing {}."),
    "ImageNet": (1000, 1281167, 50000, 50000, 500, 500, "a photo of a {}."),
}
FIRST_NAMES = {
    "Caltech101": ("face", "leopard", "motorbike", "accordion", "airplane"),
    "OxfordPets": ("abyssinian", "american bulldog", "american pit bull terrier"),
    "StanfordCars": ("2000 AM General Hummer SUV", "2012 Acura RL Sedan"),
    "Flowers102": ("pink primrose", "hard-leaved pocket orchid"),
    "Food101": ("apple pie", "baby back ribs"),
    "FGVCAircraft": ("707-320", "727-200"),
    "SUN397": ("abbey", "airplane cabin"),
    "DTD": ("banded", "blotchy"),
    "EuroSAT": ("Annual Crop Land", "Forest", "Herbaceous Vegetation Land"),
    "UCF101": ("Apply Eye Makeup", "Apply Lipstick"),
}


def load(name: str, data: Path) -> Dataset:
    return find_dataset(name).load(Places(data_dir=str(data)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_declaration_has_the_published_numbers(name: str) -> None:
    info = find_dataset(name)
    classes, train, val, test, base, new, template = PUBLISHED[name]
    assert dict(info.split_counts) == {"train": train, "val": val, "test": test}
    assert len(info.class_names) == classes
    assert tuple(map(len, base_and_new(range(classes)))) == (base, new)
    assert info.templates == (template,)


@pytest.mark.parametrize("name", FIRST_NAMES)
def test_class_names_begin_as_coops_do(name: str) -> None:
    assert find_dataset(name).class_names[: len(FIRST_NAMES[name])] == FIRST_NAMES[name]


@pytest.mark.parametrize("name", trees.PATHS)
def test_split_file_gives_labels_and_splits(name: str, tmp_path: Path) -> None:
    root = trees.coop(tmp_path, name)
    dataset = load(name, tmp_path)
    (domain,) = dataset.domains
    listed = trees.coop_split(name)
    assert list(dataset.splits) == ["train", "val", "test"]
    for split, rows in listed.items():
        (positions,) = dataset.splits[split]
        assert positions.dtype == np.int64
        assert domain.labels[positions].tolist() == [label for _, label, _ in rows]
        files = [domain.files[position] for position in positions]
        assert [file.rpartition("/")[2] for file in files] == [file.rpartition("/")[2] for file, _, _ in rows]
        assert all((root / file).is_file() for file in files)
    assert sorted(np.concatenate([positions for (positions,) in dataset.splits.values()])) == list(
        range(len(domain.files))
    )
    assert any("published" in note for note in dataset.notes)


def test_aircraft_labels_are_line_numbers_of_the_variants(tmp_path: Path) -> None:
    trees.aircraft(tmp_path)
    dataset = load("FGVCAircraft", tmp_path)
    (domain,), (test,) = dataset.domains, dataset.splits["test"]
    assert domain.files[test[0]] == "images/1000299.jpg"
    assert dataset.class_names[domain.labels[test[0]]] == "Yak-42"
    assert domain.labels[test].tolist() == list(range(99, -1, -1))


def test_aircraft_is_found_in_its_archives_own_folder(tmp_path: Path) -> None:
    trees.aircraft(tmp_path)
    (tmp_path / "fgvc-aircraft-2013b").mkdir()
    (tmp_path / "fgvc_aircraft").rename(tmp_path / "fgvc-aircraft-2013b" / "data")
    assert len(load("FGVCAircraft", tmp_path).domains[0].files) == 300


def test_newer_archive_of_eurosat_is_read_as_the_old_one(tmp_path: Path) -> None:
    root = trees.coop(tmp_path, "EuroSAT")
    old = load("EuroSAT", tmp_path)
    (root / "2750").rename(root / "EuroSAT_RGB")
    new = load("EuroSAT", tmp_path)
    assert new.domains[0].files[0].startswith("EuroSAT_RGB/")
    assert new.domains[0].labels.tolist() == old.domains[0].labels.tolist()


def test_folder_itself_may_be_given(tmp_path: Path) -> None:
    root = trees.coop(tmp_path, "DTD")
    assert load("DTD", root).domains[0].files == load("DTD", tmp_path).domains[0].files


@pytest.mark.parametrize("name", [*trees.PATHS, "FGVCAircraft"])
def test_absent_split_file_is_named_with_where_to_get_it(name: str, tmp_path: Path) -> None:
    root = trees.aircraft(tmp_path) if name == "FGVCAircraft" else trees.coop(tmp_path, name)
    missing = "images_variant_val.txt" if name == "FGVCAircraft" else datasets[name].split_file
    (root / missing).unlink()
    with pytest.raises(DataMissing, match=f"lacks {missing}") as error:
        load(name, tmp_path)
    if name != "FGVCAircraft":
        assert f"Fetch {missing} with a browser from https://drive.google.com" in str(error.value)


def test_absent_folder_of_images_is_named(tmp_path: Path) -> None:
    root = trees.coop(tmp_path, "UCF101")
    (root / "UCF-101-midframes").rename(root / "elsewhere")
    with pytest.raises(DataMissing, match="lacks UCF-101-midframes"):
        load("UCF101", tmp_path)


def test_absent_images_are_counted_and_named(tmp_path: Path) -> None:
    root = trees.coop(tmp_path, "DTD")
    (root / "images/banded/banded_0001.jpg").unlink()
    (root / "images/woven/woven_0005.jpg").unlink()
    with pytest.raises(DataMissing, match=r"2 of the 282 images .* are not in .*: .*banded_0001\.jpg"):
        load("DTD", tmp_path)


def damaged(change: str, split: dict[str, list[tuple[str, int, str]]]) -> str:
    file, label, name = split["train"][0]
    if change == "renamed":
        split["train"][0] = (file, label, "tartan")
    elif change == "two labels":
        split["test"].append((file, (label + 1) % 47, next(n for _, la, n in split["test"] if la == (label + 1) % 47)))
    elif change == "beyond":
        split["val"][0] = (file, 47, name)
    elif change == "no val":
        del split["val"]
    elif change == "no rows":
        split["train"][0] = "banded"  # type: ignore[call-overload]
    return json.dumps(split)[: 100 if change == "torn" else None]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("renamed", Conflict, "'tartan', published"),
        ("two labels", Conflict, "two labels"),
        ("beyond", Conflict, "label 47; the classes are 0 to 46"),
        ("no val", SpecError, "'val' is not of that form"),
        ("no rows", SpecError, r"\[path, label, class name\]"),
        ("torn", SpecError, "not valid JSON"),
    ],
)
def test_damaged_split_file_is_refused(change: str, error: type[BenchError], message: str, tmp_path: Path) -> None:
    root = trees.coop(tmp_path, "DTD")
    text = damaged(change, trees.coop_split("DTD"))
    (root / "split_zhou_DescribableTextures.json").write_text(text)
    with pytest.raises(error, match=message):
        load("DTD", tmp_path)


def test_damaged_lists_of_aircraft_are_refused(tmp_path: Path) -> None:
    root = trees.aircraft(tmp_path)
    (root / "images_variant_val.txt").write_text("1000100 Concorde\n")
    with pytest.raises(SpecError, match=r"images_variant_val\.txt:1 .*Concorde"):
        load("FGVCAircraft", tmp_path)
    (root / "variants.txt").write_text("707-320\nA380\n")
    with pytest.raises(Conflict, match="100 published variants"):
        load("FGVCAircraft", tmp_path)
