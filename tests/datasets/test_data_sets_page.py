"""The tables of docs/data_sets.md say what the declarations say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.dataset import DatasetInfo
from bench.registry import datasets

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data_sets.md"
ROWS = {
    cells[0]: cells[1:]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 8 and cells[0] in datasets
}


def test_every_data_set_has_a_row() -> None:
    assert set(ROWS) == {name for name in datasets if isinstance(datasets[name], DatasetInfo)}


@pytest.mark.parametrize("name", ROWS)
def test_row_says_what_the_declaration_says(name: str) -> None:
    info = datasets[name]
    domains, classes, images, splits, licence, get, _ = ROWS[name]
    assert domains == (f"{len(info.domains)}: {', '.join(info.domains)}" if len(info.domains) > 1 else "1")
    assert int(classes.replace(",", "")) == (len(info.class_names) or 126)
    total = sum(info.counts) or info.total
    assert images == (f"{total:,}" if total else "?")
    assert splits in (", ".join(f"{split} {n:,}" for split, n in info.split_counts.items()), "train, test")
    assert licence == info.licence
    steps = "download, rest by hand" if info.by_hand else "download"
    assert get == ("rendered" if info.embedded else steps if info.archives else "by hand")
