"""What a data set is: a declaration (`DatasetInfo`) that can be listed without the files, and what was found on disk.

Readers of particular data sets are plug-ins in `datasets/`. Decoding of images is `bench.images`'s.
"""

from __future__ import annotations

import abc
import difflib
import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
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
        folder: the domain's folder below `root`; empty if it has none of its own.
        phrase: the domain in words, where neither folder nor name is any ("images", "train").
    """

    name: str
    root: Path
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    folder: str = ""
    phrase: str = ""

    @cached_property
    def digest(self) -> str:
        """Sixteen digits of the SHA-256 of the file list with labels: splits agree where digests do.

        The domain's folder is left out of it, since copies spell it differently (`Real World`, `Real_World`).
        """
        prefix = f"{self.folder}/" if self.folder else ""
        pairs = zip(self.files, self.labels.tolist(), strict=True)
        lines = "".join(f"{file.removeprefix(prefix)}\t{label}\n" for file, label in pairs)
        return hashlib.sha256(os.fsencode(lines)).hexdigest()[:16]

    @property
    def words(self) -> str:
        """The domain in words ("art painting"), where its short name ("A") is none; for captions and prompts."""
        return self.phrase or clean_class_name(self.folder.partition("/")[0] or self.name)


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
        splits: the published splits: name ("train", "val", "test", …) → for each domain the positions of its samples
            in that split, int64, in the order of the split's file; empty where none is published. Splits may leave
            samples out; only where the source says so do two of them share samples.
        aliases: class name → other names of it, for `join_classes` (ObjectNet's classes are several of ImageNet's).
    """

    name: str
    class_names: tuple[str, ...]
    domains: tuple[Domain, ...]
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    version: str = ""
    captions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    splits: Mapping[str, tuple[NDArray[np.int64], ...]] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Sixteen digits over the domains' file lists and the class names."""
        parts = [*(domain.digest for domain in self.domains), *self.class_names]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file that `python -m bench.data download` can fetch, because its address has been stable.

    Attributes:
        url: address.
        file: its name on this machine.
        md5: its published MD5 sum; empty where none is known.
        into: folder below the data directory that it is unpacked into, or put into if it is no archive.
        within: an archive in it that must be unpacked as well, as a path below `into`.
    """

    url: str
    file: str
    md5: str = ""
    into: str = "."
    within: str = ""


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
        embedded: it needs no files of the user's: `load` renders what it needs into the cache.
        total: images in all, where the counts of the domains are not published.
        split_counts: images of each published split, where it has any.
        archives: what can be downloaded.
        by_hand: what must be done by hand to have it, one sentence a step; empty where downloading is enough.
        short_sides: short side of the original images in pixels, one number a domain, 0 where it varies; empty where
            unknown.
        oddities: known bad files and other things to know about the files, one sentence each.
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
    embedded: bool = False
    total: int = 0
    split_counts: Mapping[str, int] = field(default_factory=dict)
    archives: tuple[Archive, ...] = ()
    by_hand: tuple[str, ...] = ()
    short_sides: tuple[int, ...] = ()
    oddities: tuple[str, ...] = ()

    @abc.abstractmethod
    def load(self, places: Places) -> Dataset:
        """List the data set's files.

        Raises:
            DataMissing: folder, domain or class is not there; says what was looked for and where to get it.
        """

    def look(self, places: Places) -> Dataset | None:
        """Give what `load` gives, or None where that would first have to draw the pictures and nothing else is missing.

        Raises:
            DataMissing: as `load` does.
        """
        return self.load(places)

    def published(self, dataset: Dataset) -> tuple[int, ...]:
        """Give the published number of images of each domain, of the version that `dataset` is; empty if unknown."""
        return self.counts

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


def join_classes(
    source: Sequence[str], target: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None
) -> NDArray[np.int64]:
    """Find each class of one label space in another by name; ids are no help, since every code sorts differently.

    Case, spaces, `_` and `-` do not matter. Of two classes in `source` with one name (ImageNet's "missile" and
    "sunglasses"), the first is given.

    Args:
        source: the label space to look in.
        target: the names to look for.
        aliases: name in `target` → other names to look for where it is not in `source` (`Dataset.aliases`).

    Returns:
        (len(target),) int64, positions in `source`.

    Raises:
        SpecError: names of `target` are not in `source`; gives the nearest ones.
    """
    positions: dict[str, int] = {}
    for position, name in enumerate(source):
        positions.setdefault(plain_name(name), position)
    found = []
    missing = []
    for name in target:
        spellings = map(plain_name, (name, *(aliases or {}).get(name, ())))
        match = next((positions[each] for each in spellings if each in positions), None)
        found.append(match)
        if match is None:
            near = difflib.get_close_matches(plain_name(name), positions, n=3, cutoff=0.6)
            missing.append(f"{name!r} (nearest: {', '.join(source[positions[each]] for each in near) or 'none'})")
    if missing:
        raise SpecError(
            f"{len(missing)} of {len(target)} class names are not among the other {len(source)}: {some_of(missing, 5)}; "
            "the data sets share no such classes, or one of them spells the name differently"
        )
    return np.asarray(found, dtype=np.int64)


def plain_name(name: str) -> str:
    """Make spellings of one name equal: `Real World`, `Real_World`, `RealWorld`, `real-world`."""
    return "".join(letter for letter in name.lower() if letter not in "_- ")


def list_images(folder: Path) -> list[str]:
    """List the images below a class folder, "/"-separated, in the order of torchvision's ImageFolder.

    That is: by the path of the folder they lie in, then by name, both as strings; taken by suffix, links followed.
    """
    found = []
    for place, _, names in sorted(os.walk(folder, followlinks=True)):
        below = os.path.relpath(place, folder).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        found += [prefix + name for name in sorted(names) if name.lower().endswith(IMAGE_SUFFIXES)]
    return found


def read_domain(
    name: str,
    root: Path,
    folder: str,
    classes: Sequence[str],
    *,
    may_lack: bool | Collection[str] = False,
    leave_out: Collection[str] = (),
) -> Domain:
    """Read `root/folder/<class>/*` with labels fixed by the position of the class in `classes`.

    Args:
        name: short name of the domain.
        root: the data set's folder.
        folder: the domain's folder below it.
        classes: folder names of the classes; the position is the label, whether or not the folder exists.
        may_lack: the classes that the domain may have no image of (DomainNet's painting has no t-shirt); True = any.
        leave_out: files to pass over, as `<class>/<file>`.

    Raises:
        DataMissing: the domain's folder is not there, or a class has no images.
    """
    if not (root / folder).is_dir():
        raise DataMissing(f"the domain folder {root / folder} is missing; expected {root}/<domain>/<class>/<image>")
    files: list[str] = []
    labels: list[int] = []
    empty = []
    for label, each in enumerate(classes):
        images = [file for image in list_images(root / folder / each) if (file := f"{each}/{image}") not in leave_out]
        files += [f"{folder}/{image}" for image in images]
        labels += [label] * len(images)
        if not images and not (may_lack is True or (may_lack and each in may_lack)):
            empty.append(each)
    if empty or not files:
        kind = "class" if len(empty) == 1 else "classes"
        raise DataMissing(
            f"{root / folder} has no images of the {kind} {some_of(empty or classes)} "
            f"(looked for {', '.join(IMAGE_SUFFIXES)}); the copy is incomplete"
        )
    return Domain(name, root, tuple(files), np.asarray(labels, dtype=np.int64), folder)


def some_of(names: Sequence[str], n: int = 12) -> str:
    """Word a list for a message; of a long one only the first `n` and the number of all."""
    return ", ".join(names[:n]) + (f", … ({len(names)} in all)" if len(names) > n else "")


def read_captions(path: Path) -> dict[str, str]:
    """Read a captions file: TSV lines `image path<TAB>caption`, or a JSON object of the same (`.json`).

    Raises:
        DataMissing: there is no such file.
        SpecError: a line has no tab, or the file is neither of the two.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataMissing(f"there is no captions file {path}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"the captions file {path} is not UTF-8 text: {error}") from None
    return _json_captions(path, text) if path.suffix == ".json" else _tsv_captions(path, text)


def _json_captions(path: Path, text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SpecError(f"the captions file {path} is not valid JSON: {error}") from None
    if not isinstance(value, dict) or not all(isinstance(caption, str) for caption in value.values()):
        raise SpecError(f"the captions file {path} must hold one JSON object of image path: caption")
    return value


def _tsv_captions(path: Path, text: str) -> dict[str, str]:
    captions = {}
    for number, line in enumerate(text.split("\n"), 1):
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
