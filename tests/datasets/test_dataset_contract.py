"""What every registered data set promises: a declaration that can be listed and cited."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.dataset import DatasetInfo, clean_class_name, find_dataset
from bench.registry import datasets


def info(name: str) -> DatasetInfo:
    return find_dataset(name) if isinstance(datasets[name], DatasetInfo) else find_dataset(f"{name}:some/place")


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
    assert all(count > 0 for count in declared.counts)
    assert len(set(declared.domains)) == len(declared.domains) != 1


def test_class_names_are_clean_and_unique(declared: DatasetInfo) -> None:
    assert len(set(declared.class_names)) == len(declared.class_names) != 1
    assert [clean_class_name(name) for name in declared.class_names] == list(declared.class_names)


def test_templates_have_one_place_for_the_name(declared: DatasetInfo) -> None:
    assert declared.templates
    for template in declared.templates:
        assert template.count("{}") == 1 and template.format("cat").count("cat") == 1


def test_listing_imports_neither_torch_nor_pillow() -> None:
    code = (
        "import sys; from bench.registry import datasets; from bench.dataset import find_dataset\n"
        "for name in datasets: datasets[name], datasets.origin(name)\n"
        "print(sorted(sys.modules.keys() & {'torch', 'PIL', 'torchvision', 'pandas', 'qtawesome', 'open_clip'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
