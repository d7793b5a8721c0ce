"""Tables of images: CSV, TSV or JSON lines with a row an image, for data of one's own.

Columns (any one name of each group, any case): path | file_name | file | image; label | class; domain; caption | text;
split. `file_name`, `text` and `label` are the names of Hugging Face's image folders. Paths are relative to the table.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.dataset import Dataset, clean_class_name, some_of
from bench.errors import Conflict, DataMissing, SpecError
from bench.listed_images import Entry, listed_domain

COLUMNS = {
    "path": ("path", "file_name", "file", "image"),
    "label": ("label", "class"),
    "domain": ("domain",),
    "caption": ("caption", "text"),
    "split": ("split",),
}
SUFFIXES = (".csv", ".tsv", ".jsonl")
_SPLITS = {"validation": "val", "valid": "val", "dev": "val"}


@dataclass(frozen=True)
class Row:
    """One image of a table.

    Attributes:
        file: path below the data set's folder, "/"-separated.
        label, domain, caption, split: as the table has them; "" where it has none.
        line: where it stands, "<table>:<line>".
    """

    file: str
    label: str
    domain: str
    caption: str
    split: str
    line: str


def read_table(table: Path, root: Path, *, split: str = "", label_from_folder: bool = False) -> list[Row]:
    """Read a table; paths in it are relative to its folder, those in the rows to `root`.

    Args:
        table: the file.
        root: the data set's folder, the table's own or one above it.
        split: the split of all its rows, unless a column says otherwise.
        label_from_folder: where there is no column of labels, the image's folder is the label, as in Hugging Face's
            image folders.

    Raises:
        DataMissing: there is no such table, or it has no rows.
        SpecError: a column is missing, a cell is empty, a path leaves `root`, or the file is not text of its kind.
    """
    if not table.is_file():
        raise DataMissing(f"there is no table {table}; expected a file with the columns path, label, domain, caption")
    rows = []
    names: dict[str, str] = {}
    for number, cells in _cells(table):
        line = f"{table.name}:{number}"
        if not names:
            names = _columns(table, list(cells), label_from_folder)
        given = {kind: _text(cells.get(name)) for kind, name in names.items()}
        file = _below(table, root, given["path"], line)
        label = given["label"] if "label" in names else Path(file).parent.name
        if not label:
            raise SpecError(f"{line} has no label; fill it in, or leave the row out")
        split_of = given.get("split", "").lower() or split
        rows.append(
            Row(file, label, given.get("domain", ""), given.get("caption", ""), _SPLITS.get(split_of, split_of), line)
        )
    if not rows:
        raise DataMissing(f"the table {table} has no rows")
    return rows


def dataset_of(name: str, root: Path, rows: Sequence[Row]) -> Dataset:
    """Make a data set of rows: classes and domains sorted by name, images in the order of the table.

    Raises:
        DataMissing: an image is not there.
        Conflict: an image is listed twice, or two labels have the same name in a prompt.
        SpecError: there is only one class, or some rows have a domain or split and others have none.
    """
    _check_rows(name, rows)
    classes = sorted({row.label for row in rows})
    words = _prompt_names(name, classes)
    labels = {label: index for index, label in enumerate(classes)}
    domains = []
    by_domain = {
        domain: [row for row in rows if row.domain == domain] for domain in sorted({row.domain for row in rows})
    }
    for domain, mine in by_domain.items():
        entries = [Entry(row.file, labels[row.label]) for row in mine]
        domains.append(listed_domain(domain or "all", root, {"": entries}, where=name)[0])
    return Dataset(
        name=name,
        class_names=words,
        domains=tuple(domains),
        captions={row.file: row.caption for row in rows if row.caption},
        splits=_splits(list(by_domain.values())),
    )


def _splits(by_domain: list[list[Row]]) -> dict[str, Any]:
    import numpy as np

    names = sorted({row.split for rows in by_domain for row in rows if row.split})
    return {
        name: tuple(np.flatnonzero([row.split == name for row in rows]).astype(np.int64) for rows in by_domain)
        for name in names
    }


def _check_rows(name: str, rows: Sequence[Row]) -> None:
    seen: dict[str, str] = {}
    twice = []
    for row in rows:
        if row.file in seen:
            twice.append(f"{row.file} ({seen[row.file]} and {row.line})")
        seen[row.file] = row.line
    if twice:
        raise Conflict(f"{name} lists images twice: {some_of(twice, 5)}; leave one row of each")
    for what in ("domain", "split"):
        without = [row.line for row in rows if not getattr(row, what)]
        if without and len(without) < len(rows):
            raise SpecError(f"{name}: rows without a {what}: {some_of(without, 5)}; give all rows one, or none")


def _prompt_names(name: str, classes: list[str]) -> tuple[str, ...]:
    words = tuple(map(clean_class_name, classes))
    twice = [label for label, word in zip(classes, words, strict=True) if words.count(word) > 1]
    if twice:
        raise Conflict(f"the labels {some_of(twice)} of {name} have the same name in a prompt; rename one of them")
    if len(words) < 2:
        raise SpecError(f"{name} needs at least two classes but has {some_of(words) or 'none'}")
    return words


def _cells(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            if table.suffix.lower() == ".jsonl":
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield number, _object(table, number, line)
            else:
                reader = csv.DictReader(lines, delimiter="\t" if table.suffix.lower() == ".tsv" else ",")
                yield from ((reader.line_num, row) for row in reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"the table {table} is not UTF-8 text of its kind: {error}") from None


def _object(table: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise SpecError(f"{table}:{number} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise SpecError(f"{table}:{number} is no JSON object but {line.strip()[:40]!r}")
    return value


def _columns(table: Path, header: list[str], label_from_folder: bool) -> dict[str, str]:
    """Find the column of each kind; give kind → the table's name of it."""
    plain = {str(name).strip().lower(): name for name in header if name is not None}
    found = {kind: next((plain[name] for name in names if name in plain), "") for kind, names in COLUMNS.items()}
    needed = ("path",) if label_from_folder else ("path", "label")
    missing = [" or ".join(COLUMNS[kind]) for kind in needed if not found[kind]]
    if missing:
        raise SpecError(
            f"the table {table} has no column {' and no column '.join(missing)}; it has: {some_of(list(plain)) or 'none'}"
        )
    return {kind: name for kind, name in found.items() if name}


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _below(table: Path, root: Path, path: str, line: str) -> str:
    """Give a table's path relative to `root`."""
    if not path:
        raise SpecError(f"{line} has no path; fill it in, or leave the row out")
    below = os.path.relpath(os.path.join(table.parent, path.replace("\\", "/")), root).replace(os.sep, "/")
    if below.startswith("../"):
        raise SpecError(f"{line}: the image {path} is not below {root}; put the table into a folder above all images")
    return below
