"""What every registered data set promises: a declaration that can be listed and cited."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.dataset import DatasetInfo, clean_class_name, find_dataset
from bench.errors import DataMissing
from bench.registry import datasets
from bench.spec import Places

IMAGENETS_TWICE = ["missile", "sunglasses"]
"""Names that two of ImageNet's classes share in CLIP's list."""


def info(name: str) -> DatasetInfo:
    return find_dataset(name) if isinstance(datasets[name], DatasetInfo) else find_dataset(f"{name}:some/place.csv")


@pytest.fixture(params=list(datasets))
def declared(request: pytest.FixtureRequest) -> DatasetInfo:
    return info(request.param)


def test_no_data_set_is_broken() -> None:
    assert datasets.broken == {}


def test_registered_name_is_its_own() -> None:
    for name in datasets:
        assert info(name).name.partition(":")[0] == name
        assert info(name).name == name or datasets[name].__doc__


def test_declaration_is_complete(declared: DatasetInfo) -> None:
    for value in (declared.summary, declared.source, declared.licence, declared.citation):
        assert value.strip() and "\n" not in value
    assert len(declared.summary) <= 120


def test_counts_fit_the_domains(declared: DatasetInfo) -> None:
    assert len(declared.counts) in (0, len(declared.domains))
    assert len(declared.short_sides) in (0, len(declared.domains))
    assert all(count > 0 for count in declared.counts)
    assert len(set(declared.domains)) == len(declared.domains)


def test_class_names_are_clean_and_unique(declared: DatasetInfo) -> None:
    twice = [name for name, n in Counter(declared.class_names).items() if n > 1]
    assert twice == (IMAGENETS_TWICE if len(declared.class_names) == 1000 else [])
    assert len(declared.class_names) != 1
    assert [clean_class_name(name) for name in declared.class_names] == list(declared.class_names)


def test_templates_have_one_place_for_the_name(declared: DatasetInfo) -> None:
    assert declared.templates
    for template in declared.templates:
        assert template.count("{}") == 1 and template.format("cat").count("cat") == 1


def test_data_set_that_is_not_embedded_says_how_to_get_it(declared: DatasetInfo) -> None:
    own = ":" in declared.name
    assert declared.embedded or own or declared.archives or declared.by_hand
    for archive in declared.archives:
        assert archive.url.startswith(("http://", "https://")) and "/" not in archive.file
        assert archive.md5 == "" or re.fullmatch("[0-9a-f]{32}", archive.md5)
        assert not Path(archive.into).is_absolute() and ".." not in archive.into


def test_missing_data_set_names_what_was_looked_for_and_where_to_get_it(declared: DatasetInfo, tmp_path: Path) -> None:
    if declared.embedded or ":" in declared.name:
        return
    with pytest.raises(DataMissing, match="Where to get it") as error:
        declared.load(Places(data_dir=str(tmp_path), cache=str(tmp_path)))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DataMissing, match="--data-dir"):
        declared.load(Places(cache=str(tmp_path)))


def test_listing_imports_neither_torch_nor_pillow() -> None:
    code = (
        "import sys; from bench.registry import datasets; from bench.dataset import find_dataset\n"
        "for name in datasets: datasets[name], datasets.origin(name)\n"
        "print(sorted(sys.modules.keys() & {'torch', 'PIL', 'torchvision', 'pandas', 'qtawesome', 'open_clip'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
