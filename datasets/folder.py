"""Any folder of one's own, by `--datasets folder:PATH`: `root/<domain>/<class>/<image>`, or images with metadata.

A folder with a `metadata.csv` or `metadata.jsonl`, its own or one in each of its folders train, validation and test, is
read as Hugging Face's image folders are: columns file_name, label (else the image's folder is the label), domain and text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.dataset import Dataset, DatasetInfo, Domain, captions_beside, clean_class_name, read_domain, some_of
from bench.errors import Conflict, DataMissing, SpecError
from bench.image_tables import dataset_of, read_table
from bench.registry import datasets
from bench.spec import Places

LAYOUT = "expected root/<domain>/<class>/<image>"
HUGGING_FACE_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class OwnFolder(DatasetInfo):
    """A folder of the user's: domains are its sub-folders, classes theirs, both sorted by name.

    Attributes:
        place: where it lies, unless `Places.folder` says otherwise.
    """

    place: str

    def load(self, places: Places) -> Dataset:
        """List the folder's images.

        Raises:
            DataMissing: the folder is not there, has fewer than two domains or classes, or a domain or class is empty.
            Conflict: two class folders would have the same name in a prompt.
        """
        root = Path(places.folder or self.place).expanduser()
        if not root.is_dir():
            raise DataMissing(f"there is no folder {root} for the data set {self.name}; {LAYOUT}")
        tables = _metadata(root)
        if tables:
            rows = [
                row for table, split in tables for row in read_table(table, root, split=split, label_from_folder=True)
            ]
            return dataset_of(self.name, root, rows)
        folders = _subfolders(root)
        classes = sorted({name for folder in folders for name in _subfolders(root / folder)})
        _check_number(root, "domain", folders)
        _check_number(root, "class", classes)
        domains = tuple(read_domain(folder, root, folder, classes, may_lack=True) for folder in folders)
        return Dataset(
            name=self.name,
            class_names=_prompt_names(root, classes),
            domains=domains,
            captions=captions_beside(root),
            notes=_lacking(self.name, root, classes, domains),
        )


def own_folder(argument: str) -> OwnFolder:
    """Any folder of your own, root/<domain>/<class>/<image>: folder:PATH.

    Args:
        argument: a path, or a bare name where `Places.folder` gives the path. Only the last part becomes the data
            set's name, since a trial must not depend on where the data lie.

    Raises:
        SpecError: the argument names no folder.
    """
    name = Path(argument).expanduser().resolve().name
    if not argument.strip() or not name:
        raise SpecError(f"folder:{argument} names no folder: write folder:PATH; {LAYOUT}")
    return OwnFolder(
        name=f"folder:{name}",
        place=argument,
        summary="a folder of your own, root/<domain>/<class>/<image>",
        source=argument,
        licence="yours to know",
        citation="none",
    )


def _metadata(root: Path) -> list[tuple[Path, str]]:
    """Find the metadata of Hugging Face's image folders; give (table, split)."""
    places = [(root, ""), *((root / split, split) for split in HUGGING_FACE_SPLITS)]
    tables = [(place / f"metadata{suffix}", split) for place, split in places for suffix in (".csv", ".jsonl")]
    return [(table, split) for table, split in tables if table.is_file()]


def _subfolders(folder: Path) -> list[str]:
    """List sub-folders by name, less the hidden ones and what macOS's archives leave behind."""
    found = (each.name for each in folder.iterdir() if each.is_dir())
    return sorted(name for name in found if not name.startswith((".", "__")))


def _check_number(root: Path, what: str, names: list[str]) -> None:
    if len(names) < 2:
        raise DataMissing(f"{root} needs at least two {what} folders but has {some_of(names) or 'none'}; {LAYOUT}")


def _prompt_names(root: Path, classes: list[str]) -> tuple[str, ...]:
    names = tuple(map(clean_class_name, classes))
    twice = [folder for folder, name in zip(classes, names, strict=True) if names.count(name) > 1]
    if twice:
        raise Conflict(
            f"the class folders {some_of(twice)} in {root} have the same name in a prompt; rename one of them"
        )
    return names


def _lacking(name: str, root: Path, classes: list[str], domains: tuple[Domain, ...]) -> tuple[str, ...]:
    """Word which domain lacks which classes; a class without any image is an error."""
    counts = np.stack([np.bincount(domain.labels, minlength=len(classes)) for domain in domains])
    empty = [classes[label] for label in np.flatnonzero(counts.sum(0) == 0)]
    if empty:
        raise DataMissing(f"the class folders {some_of(empty)} below {root} hold no images; fill or remove them")
    return tuple(
        f"{name}/{domain.name} has no images of: {some_of([classes[label] for label in np.flatnonzero(row == 0)])}"
        for domain, row in zip(domains, counts, strict=True)
        if not row.all()
    )


datasets.add("folder", own_folder)
