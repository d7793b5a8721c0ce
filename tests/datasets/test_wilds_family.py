"""Camelyon17 and FMoW read from miniature copies, domains and splits against the rules of the package `wilds`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.class_lists import class_folders
from bench.dataset import Dataset, find_dataset
from bench.errors import DataMissing, SpecError
from bench.spec import Places
from tests.datasets import trees


def load(name: str, data: Path) -> Dataset:
    return find_dataset(name).load(Places(data_dir=str(data)))


def in_split(dataset: Dataset, split: str) -> set[str]:
    return {
        domain.files[position]
        for domain, positions in zip(dataset.domains, dataset.splits[split], strict=True)
        for position in positions
    }


def test_camelyons_domains_are_hospitals_in_the_order_of_the_table(tmp_path: Path) -> None:
    rows = trees.camelyon(tmp_path)
    dataset = load("WILDSCamelyon", tmp_path)
    assert dataset.class_names == ("healthy tissue", "tumor tissue")
    for hospital, domain in enumerate(dataset.domains):
        mine = [row for row in rows if row["center"] == str(hospital)]
        assert domain.labels.tolist() == [int(row["tumor"]) for row in mine]
        assert [file.split("_x_")[1].split("_")[0] for file in domain.files] == [row["x_coord"] for row in mine]
    assert "patient_000_node_1" in dataset.domains[0].files[0], "leading zeros of the patient are kept"


def test_camelyons_splits_follow_wilds(tmp_path: Path) -> None:
    rows = trees.camelyon(tmp_path)
    dataset = load("WILDSCamelyon", tmp_path)
    sizes = {split: [len(each) for each in positions] for split, positions in dataset.splits.items()}
    of_val, of_test = (sum(row["center"] == hospital for row in rows) for hospital in "12")
    assert sizes["val"] == [0, of_val, 0, 0, 0] and sizes["test"] == [0, 0, of_test, 0, 0]
    inside = [row for row in rows if row["center"] in "034"]
    assert sum(sizes["id_val"]) == sum(row["split"] == "1" for row in inside)
    assert sum(sizes["train"]) == sum(row["split"] == "0" for row in inside)


def wilds_rule(row: dict[str, str]) -> str:
    """`time_after_2016` of wilds/datasets/fmow_dataset.py, written the long way."""
    after_2016 = row["timestamp"] >= "2016-01-01"
    after_2013 = row["timestamp"] >= "2013-01-01" and not after_2016
    if row["split"] == "test":
        return "test" if after_2016 else "" if after_2013 else "id_test"
    if row["split"] == "val":
        return "val" if after_2013 else "" if after_2016 else "id_val"
    return "train" if row["split"] == "train" and not (after_2013 or after_2016) else ""


def test_fmows_regions_and_splits_follow_wilds(tmp_path: Path) -> None:
    rows = trees.fmow(tmp_path)
    dataset = load("WILDSFMoW", tmp_path)
    public = [i for i, row in enumerate(rows) if row["split"] != "seq"]
    assert [[int(file[15:-4]) for file in domain.files] for domain in dataset.domains] == [
        [i for i in public if i % 6 == region] for region in range(6)
    ]
    for split in ("train", "id_val", "id_test", "val", "test"):
        expected = {f"images/rgb_img_{i}.png" for i in public if wilds_rule(rows[i]) == split}
        assert in_split(dataset, split) == expected != set()
    categories = class_folders("WILDSFMoW")
    domain = dataset.domains[1]
    assert [categories[label] for label in domain.labels] == [
        rows[int(file[15:-4])]["category"] for file in domain.files
    ]


@pytest.mark.parametrize(
    ("name", "make", "folder", "table", "old", "new", "message"),
    [
        ("WILDSCamelyon", trees.camelyon, "camelyon17_v1.0", "metadata.csv", "center", "centre", "KeyError: 'center'"),
        ("WILDSCamelyon", trees.camelyon, "camelyon17_v1.0", "metadata.csv", ",64,0,", ",64,?,", "invalid literal"),
        ("WILDSFMoW", trees.fmow, "fmow_v1.1", "rgb_metadata.csv", "airport_hangar", "hangar", "KeyError: 'hangar'"),
    ],
)
def test_table_of_another_form_is_refused(
    name: str,
    make: Callable[[Path], object],
    folder: str,
    table: str,
    old: str,
    new: str,
    message: str,
    tmp_path: Path,
) -> None:
    make(tmp_path)
    path = tmp_path / folder / table
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(SpecError, match=message):
        load(name, tmp_path)


def test_absent_parts_are_named(tmp_path: Path) -> None:
    rows = trees.camelyon(tmp_path)
    root = tmp_path / "camelyon17_v1.0"
    first = next((root / "patches").rglob("*_x_0_*.png"))
    first.unlink()
    with pytest.raises(DataMissing, match=f"1 of the {len(rows) // 5} images .*{first.name}"):
        load("WILDSCamelyon", tmp_path)
    (root / "metadata.csv").unlink()
    with pytest.raises(DataMissing, match=r"lacks metadata\.csv"):
        load("WILDSCamelyon", tmp_path)
