"""What a data set is: a declaration (`DatasetInfo`) that can be listed without the files, and what was found on disk.

Readers of particular data sets are plug-ins in `datasets/`. Decoding of images is `bench.data`'s.
"""

from __future__ import annotations

import abc
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataMissing, SpecError, UnknownName
from bench.registry import datasets
from bench.spec import Places

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's ImageFolder takes for an image, so that file lists agree with DomainBed's."""

DEFAULT_TEMPLATES = ("a photo of a {}.",)


@dataclass(frozen=True)
class Domain:
    """The images of one domain.

    Attributes:
        name: short name, as columns of tables show it.
        root: the data set's folder.
        files: paths below `root`, "/"-separated, in the order that splits are drawn from (ImageFolder's).
        labels: (n,) int64, index into the data set's class names.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    labels: NDArray[np.int64]

    @cached_property
    def digest(self) -> str:
        """Sixteen digits of the SHA-256 of the file list with labels: splits agree where digests do."""
        lines = "".join(f"{file}\t{label}\n" for file, label in zip(self.files, self.labels.tolist(), strict=True))
        return hashlib.sha256(lines.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Dataset:
    """A data set as it was found on disk.

    Attributes:
        name: as in the spec.
        class_names: words for the classes, cleaned for prompts; the index is the label.
        domains: in the order of DomainBed's environments.
        templates: prompt templates, each with one `{}`.
        version: tells apart copies that are known to differ, e.g. TerraIncognita's.
        captions: file (as in `Domain.files`) → caption; empty where there are none.
        notes: remarks for the table's footer.
    """

    name: str
    class_names: tuple[str, ...]
    domains: tuple[Domain, ...]
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    version: str = ""
    captions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Sixteen digits over the domains' file lists and the class names."""
        parts = [*(domain.digest for domain in self.domains), *self.class_names]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo(abc.ABC):
    """The declaration of a data set: all that `sweep list datasets` shows, and how to read it.

    Attributes:
        name: registered name.
        summary: one line.
        domains: short names of the domains, in DomainBed's order; empty if only the disk can tell.
        class_names: cleaned class names; empty if only the disk can tell.
        counts: images a domain, as published; empty where unknown.
        source: where it comes from, and how to get it.
        licence: licence or terms.
        citation: paper.
        templates: prompt templates.
    """

    name: str
    summary: str
    source: str
    licence: str
    citation: str
    domains: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    templates: tuple[str, ...] = DEFAULT_TEMPLATES

    @abc.abstractmethod
    def load(self, places: Places) -> Dataset:
        """List the data set's files.

        Raises:
            DataMissing: folder, domain or class is not there; says what was looked for and where to get it.
        """

    def domain_names(self, places: Places) -> tuple[str, ...]:
        """Give the short names of the domains, from the disk only where the declaration cannot tell."""
        return self.domains or tuple(domain.name for domain in self.load(places).domains)


def find_dataset(name: str) -> DatasetInfo:
    """Look a data set up; "folder:NAME" is the family `folder` with an argument.

    Raises:
        UnknownName: nothing has that name.
    """
    family, colon, argument = name.partition(":")
    if not colon:
        info = datasets[name]
        if not isinstance(info, DatasetInfo):
            raise UnknownName(f"the data set family {name!r} needs an argument: write {name}:PATH")
        return info
    maker = datasets[family]
    if isinstance(maker, DatasetInfo):
        raise SpecError(f"the data set {family!r} takes no argument; write {family!r} instead of {name!r}")
    made: DatasetInfo = maker(argument)
    return made


def clean_class_name(name: str) -> str:
    """Make a prompt's words of a folder's name: `_` becomes a space, runs of white space become one.

    This is what CoOp, CLIPood and UEO do. Case, hyphens and articles stay as they are ("a photo of a TV.",
    "teddy-bear"), since the published numbers are of such prompts; data sets whose folder names are no words declare
    their own.
    """
    return " ".join(name.replace("_", " ").split())


def list_images(folder: Path) -> list[str]:
    """List the images below a class folder as torchvision's ImageFolder does: walked in sorted order, by suffix."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        found += [
            Path(place, name).relative_to(folder).as_posix()
            for name in sorted(names)
            if name.lower().endswith(IMAGE_SUFFIXES)
        ]
    # os.walk lists a folder before what is in it; ImageFolder sorts by the folder's path as well.
    return sorted(found, key=lambda file: (os.path.dirname(file), file))


def read_domain(name: str, root: Path, folder: str, classes: Sequence[str], *, may_lack: bool = False) -> Domain:
    """Read `root/folder/<class>/*` with labels fixed by the position of the class in `classes`.

    Args:
        name: short name of the domain.
        root: the data set's folder.
        folder: the domain's folder below it.
        classes: folder names of the classes; the position is the label, whether or not the folder exists.
        may_lack: let a domain lack images of a class (DomainNet's painting has no t-shirt).

    Raises:
        DataMissing: the domain's folder is not there, or a class has no images.
    """
    if not (root / folder).is_dir():
        raise DataMissing(f"the domain folder {root / folder} is missing; expected {root}/<domain>/<class>/<image>")
    names: list[str] = []
    labels: list[int] = []
    empty = []
    for label, each in enumerate(classes):
        images = list_images(root / folder / each)
        names += [f"{folder}/{each}/{image}" for image in images]
        labels += [label] * len(images)
        if not images:
            empty.append(each)
    if not names or (empty and not may_lack):
        raise DataMissing(
            f"{root / folder} has no images of the class{'es' if len(empty) > 1 else ''} {', '.join(empty)} "
            f"(looked for {', '.join(IMAGE_SUFFIXES)}); the copy is incomplete: fetch it again"
        )
    order = sorted(range(len(names)), key=lambda i: labels[i])  # stable: keeps each class's order
    return Domain(name, root, tuple(names[i] for i in order), np.asarray([labels[i] for i in order], dtype=np.int64))


def read_captions(path: Path) -> dict[str, str]:
    """Read a captions file: TSV lines `image path<TAB>caption`, or a JSON object of the same.

    Raises:
        DataMissing: there is no such file.
        SpecError: a line has no tab.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataMissing(f"there is no captions file {path}") from None
    if path.suffix == ".json":
        return {str(key): str(value) for key, value in json.loads(text).items()}
    captions = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            file, tab, caption = line.partition("\t")
            if not tab:
                raise SpecError(f"{path}:{number} is no caption: expected `image path<TAB>caption`, got {line[:60]!r}")
            captions[file] = caption.strip()
    return captions


def captions_beside(root: Path) -> dict[str, str]:
    """Read `captions.tsv` or `captions.json` beside the domains' folders; empty where there is neither."""
    for name in ("captions.tsv", "captions.json"):
        if (root / name).is_file():
            return read_captions(root / name)
    return {}
