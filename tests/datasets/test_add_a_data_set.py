"""The examples of docs/add_a_data_set.md work as they stand there."""

from __future__ import annotations

import csv
import importlib.util
import re
from pathlib import Path

import pytest

from bench.dataset import find_dataset
from bench.errors import DataMissing
from bench.registry import datasets
from bench.spec import Places

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add_a_data_set.md"
EXAMPLES = dict(
    re.findall(r"<!-- example: (\w+)\.py.*?-->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
)


@pytest.fixture(autouse=True)
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the page's examples as plug-ins; they are forgotten afterwards."""
    assert list(datasets)
    monkeypatch.setattr(datasets, "_entries", dict(datasets._entries))
    monkeypatch.setattr(datasets, "_origins", dict(datasets._origins))
    for name, source in EXAMPLES.items():
        path = tmp_path / f"{name}.py"
        path.write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"example_{name}", path)
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_page_has_both_examples() -> None:
    assert set(EXAMPLES) == {"fruits", "signs"}
    assert datasets.origin("Fruits").endswith("fruits.py:6")


def test_example_of_image_folders_reads_its_folders(tmp_path: Path) -> None:
    for domain in ("Photos", "drawings"):
        for each in ("Dragon_Fruit", "apple", "banana", "pear"):
            (tmp_path / "fruits" / domain / each).mkdir(parents=True)
            for i in range(2):
                (tmp_path / "fruits" / domain / each / f"{i}.jpg").touch()
    dataset = find_dataset("Fruits").load(Places(data_dir=str(tmp_path)))
    assert dataset.class_names == ("Dragon Fruit", "apple", "banana", "pear")
    assert [len(domain.files) for domain in dataset.domains] == [8, 8]
    assert dataset.notes == ()


def test_example_with_a_load_of_its_own_reads_its_table(tmp_path: Path) -> None:
    (tmp_path / "signs").mkdir()
    with (tmp_path / "signs" / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "domain", "sign"])
        table.writerows(
            [["b.jpg", "night", "stop sign"], ["a.jpg", "night", "speed limit"], ["c.jpg", "day", "stop sign"]]
        )
    dataset = find_dataset("Signs").load(Places(data_dir=str(tmp_path)))
    assert [domain.files for domain in dataset.domains] == [("c.jpg",), ("a.jpg", "b.jpg")]
    assert dataset.domains[1].labels.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["Fruits", "Signs"])
def test_examples_say_what_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"--data-dir.*https://example\.org"):
        find_dataset(name).load(Places(data_dir=str(tmp_path)))
