"""Data sets whose images are listed in files: CoOp's split files, `<path> <label>` lists, tables.

A reader makes `Entry`s of its list files; `listed_domain` makes the domain and its splits of them, and checks that every
listed image is there. Folders are looked through once, since a look-up a file is slow on network disks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.dataset import Domain, plain_name, some_of
from bench.errors import Conflict, DataMissing, SpecError

Splits = dict[str, NDArray[np.int64]]


class Entry(NamedTuple):
    """One listed image.

    Attributes:
        file: path below the data set's folder, "/"-separated.
        label: index into the class names.
    """

    file: str
    label: int


def listed_domain(
    name: str,
    root: Path,
    splits: Mapping[str, Sequence[Entry]],
    *,
    where: str,
    folder: str = "",
) -> tuple[Domain, Splits]:
    """Make a domain of the images of all `splits`, one split after the other in the order of their lists.

    Args:
        name: short name of the domain.
        root: the data set's folder.
        splits: split name → its images; an image may be in several.
        where: the list's name, for messages.
        folder: the domain's folder below `root`, if it has one.

    Returns:
        the domain, and split name → positions in it.

    Raises:
        DataMissing: listed images are not there, or none is listed; names the first ones.
        Conflict: one image has two labels.
    """
    labels: dict[str, int] = {}
    for entry in (entry for entries in splits.values() for entry in entries):
        if labels.setdefault(entry.file, entry.label) != entry.label:
            raise Conflict(
                f"{where} gives {entry.file} two labels, {labels[entry.file]} and {entry.label}; fetch it again"
            )
    if not labels:
        raise DataMissing(f"{where} lists no image of {name}; fetch it again")
    missing = _missing(root, labels)
    if missing:
        raise DataMissing(
            f"{len(missing):,} of the {len(labels):,} images that {where} lists are not in {root}: {some_of(missing, 5)}; "
            "the copy is incomplete"
        )
    files = tuple(labels)
    positions = {file: position for position, file in enumerate(files)}
    domain = Domain(name, root, files, np.fromiter(labels.values(), np.int64, len(files)), folder)
    return domain, {
        split: np.asarray([positions[entry.file] for entry in entries], dtype=np.int64)
        for split, entries in splits.items()
    }


def _missing(root: Path, files: Iterable[str]) -> list[str]:
    """Give the files that are not below `root`; each folder is listed once."""
    present: dict[str, set[str]] = {}
    missing = []
    for file in files:
        folder, _, name = file.rpartition("/")
        if folder not in present:
            try:
                present[folder] = set(os.listdir(root / folder))
            except OSError:
                present[folder] = set()
        if name not in present[folder]:
            missing.append(file)
    return missing


def read_list(path: Path) -> list[tuple[str, int]]:
    """Read lines `<path> <label>`; the path may hold spaces.

    Raises:
        SpecError: a line is not of that form.
    """
    pairs = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            file, _, label = line.strip().rpartition(" ")
            if not file or not label.isdecimal():
                raise SpecError(f"{path}:{number} is no line of a list: expected `<path> <label>`, got {line[:60]!r}")
            pairs.append((file.strip(), int(label)))
    return pairs


def read_split_file(path: Path, class_names: Sequence[str], folder: str) -> dict[str, list[Entry]]:
    """Read a split file of CoOp's: JSON with lists of `[path, label, class name]` under train, val and test.

    Args:
        path: the file.
        class_names: the published names by label; the file's must agree with them.
        folder: the folder of the images below the data set's, put in front of each path.

    Raises:
        SpecError: the file is not of that form.
        Conflict: it gives a label another class name than the published one.
    """
    try:
        content = json.loads(_text(path))
    except ValueError as error:
        raise SpecError(f"the split file {path} is not valid JSON ({error}); fetch it again") from None
    prefix = f"{folder}/" if folder else ""
    splits: dict[str, list[Entry]] = {}
    for split in ("train", "val", "test"):
        try:
            rows = [(str(file), int(label), str(name)) for file, label, name in content[split]]
        except (KeyError, TypeError, ValueError):
            raise SpecError(
                f"the split file {path} must hold lists of [path, label, class name] under train, val and test; "
                f"its {split!r} is not of that form; fetch it again"
            ) from None
        _check_names({(label, name) for _, label, name in rows}, class_names, path)
        splits[split] = [Entry(prefix + file, label) for file, label, _ in rows]
    return splits


def positions_in(domain: Domain, listed: Iterable[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Give the positions of the `listed` files in `domain`, and the files that it does not have."""
    positions = {file: position for position, file in enumerate(domain.files)}
    files = list(listed)
    found = [positions[file] for file in files if file in positions]
    return np.asarray(found, dtype=np.int64), [file for file in files if file not in positions]


def first_file(root: Path, names: Iterable[str]) -> Path | None:
    """Give the first of the files `names` that is below `root`."""
    return next((root / name for name in names if (root / name).is_file()), None)


def _check_names(pairs: set[tuple[int, str]], class_names: Sequence[str], path: Path) -> None:
    for label, name in sorted(pairs):
        if not 0 <= label < len(class_names):
            raise Conflict(f"{path} has the label {label}; the classes are 0 to {len(class_names) - 1}; fetch it again")
        if plain_name(name) != plain_name(class_names[label]):
            raise Conflict(
                f"{path} calls class {label} {name!r}, published {class_names[label]!r}: it is another split; fetch it again"
            )


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file that hold anything.

    Raises:
        DataMissing: the file cannot be read.
        SpecError: it is not text.
    """
    return [line for line in _text(path).splitlines() if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text ({error}); fetch it again") from None
    except OSError as error:
        raise DataMissing(f"{path} cannot be read: {error.strerror or error}") from error


def sorted_folders(folder: Path) -> list[str]:
    """List the sub-folders of `folder` by name, less the hidden ones and what macOS's archives leave behind."""
    found = (each.name for each in os.scandir(folder) if each.is_dir())
    return sorted(name for name in found if not name.startswith((".", "__")))
