"""Data sets laid out as `<root>/<domain>/<class>/<image>`: a declaration is enough, `ImageFolders` does the reading.

Domains and classes are found by name, never by position: a stray or absent folder shifts no number. Data sets of this
kind are declared in `datasets/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.dataset import (
    Dataset,
    DatasetInfo,
    Domain,
    captions_beside,
    clean_class_name,
    plain_name,
    read_domain,
    some_of,
)
from bench.errors import Conflict, DataMissing
from bench.listed_images import first_file, positions_in, read_list, sorted_folders
from bench.roots import folders_called, needs_data_dir, not_there, where
from bench.spec import Places

LIST_FOLDERS = ("", "splits/", "txt/", "list/", "image_list/")
"""Where official lists are kept by the codes that read them, below the data set's folder."""


@dataclass(frozen=True)
class Version:
    """A copy of a data set that is known by its number of images.

    Attributes:
        name: what it is called.
        counts: images a domain.
        note: remark for the table's footer; empty if there is nothing to say.
    """

    name: str
    counts: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageFolders(DatasetInfo):
    """A data set of image folders with a fixed list of domains and classes.

    Upper and lower case, spaces, `-` and `_` do not matter in the names of the root and of domains' folders.

    Attributes:
        roots: accepted names of its folder below the data directory, the usual one first; "a/b" is b in a.
        folders: the domains' folders, in the order of `domains`.
        spellings: further accepted names of a domain's folder.
        class_folders: folder names of the classes, in the byte order that ImageFolder sorts them in; `class_names`
            are made of them if not given.
        phrases: domain's folder → the domain in words, where the folder's name says something else.
        may_lack: domain's folder → classes that it may have no image of.
        versions: copies that are known to differ; the first is `counts` if that is not given.
        inner: sub-folders of a domain's folder that its classes may lie in instead ("images" in Office-31).
        split_lists: split → file of the official list, with one `{}` for the domain's folder; looked for beside the
            domains and in `LIST_FOLDERS`. Without these files the data set has no splits.
        duplicates: name of a file beside the domains (or beside the root) that lists images to leave out, one
            `<domain>/<class>/<file>` a line, with or without the root's name in front.
    """

    roots: tuple[str, ...]
    folders: tuple[str, ...]
    class_folders: tuple[str, ...]
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    phrases: Mapping[str, str] = field(default_factory=dict)
    may_lack: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()
    inner: tuple[str, ...] = ()
    split_lists: Mapping[str, str] = field(default_factory=dict)
    duplicates: str = ""

    def __post_init__(self) -> None:
        """Fill in what follows from the rest, and check that the parts fit each other."""
        if not self.class_names:
            object.__setattr__(self, "class_names", tuple(map(clean_class_name, self.class_folders)))
        if self.versions and not self.counts:
            object.__setattr__(self, "counts", self.versions[0].counts)
        if self.counts and not self.versions:
            object.__setattr__(self, "versions", (Version("", self.counts),))
        if len(self.folders) != len(self.domains) or len(self.class_folders) != len(self.class_names):
            raise TypeError(f"{self.name}: one folder a domain and one folder a class must be declared")
        if any(len(version.counts) != len(self.domains) for version in self.versions):
            raise TypeError(f"{self.name}: counts must be one a domain")

    def load(self, places: Places) -> Dataset:
        """List the data set's files.

        Raises:
            DataMissing: the data set, a domain or a class is not there.
            Conflict: two folders could be the same domain.
        """
        root = self._find_root(places)
        listed = self._listed_duplicates(root)
        found = self._domain_folders(root)
        domains = tuple(
            self._read(name, root, declared, folder, listed)
            for name, (declared, folder) in zip(self.domains, found.items(), strict=True)
        )
        strays = [note for domain in domains for note in self._strays(root, domain)]
        version, notes = self._compare(tuple(len(domain.files) for domain in domains))
        splits, remarks = self._read_splits(root, domains)
        return Dataset(
            name=self.name,
            class_names=self.class_names,
            domains=domains,
            templates=self.templates,
            version=version,
            captions=captions_beside(root),
            notes=(*self._duplicates_note(root, found, listed), *notes, *remarks, *strays),
            splits=splits,
        )

    def published(self, dataset: Dataset) -> tuple[int, ...]:
        """Give the counts of the version that it is, or of the first one."""
        known = [version.counts for version in self.versions if version.name == dataset.version]
        return known[0] if known else self.counts

    def _find_root(self, places: Places) -> Path:
        """Find the folder that holds the domains; of several, the first that holds most of them."""
        data = needs_data_dir(self, places, self.roots[0])
        candidates = [match for root in self.roots for match in folders_called(data, root)]
        if all(self._domain_folders(data, missing_ok=True).values()):
            candidates.append(data)  # the data set's own folder was given
        if not candidates:
            raise not_there(self, data, self.roots)
        return max(candidates, key=lambda root: sum(map(bool, self._domain_folders(root, missing_ok=True).values())))

    def _domain_folders(self, root: Path, *, missing_ok: bool = False) -> dict[str, str]:
        """Give declared folder → folder that was found ("" if none)."""
        found = {folder: self._domain_folder(root, folder) for folder in self.folders}
        missing = [folder for folder, match in found.items() if not match]
        if missing and not missing_ok:
            raise DataMissing(
                f"{self.name}: no folder for the domain(s) {', '.join(missing)} in {root} "
                f"(needed: {', '.join(self.folders)}). {where(self)}"
            )
        return found

    def _domain_folder(self, root: Path, folder: str) -> str:
        for spelling in (folder, *self.spellings.get(folder, ())):
            matches = [match.name for match in folders_called(root, spelling)]
            if len(matches) > 1 and spelling not in matches:
                raise Conflict(
                    f"{self.name}: each of the folders {some_of(matches)} in {root} could be the domain {folder!r}; "
                    "leave one of them there"
                )
            if matches:
                return self._with_inner(root, matches[0])
        return ""

    def _with_inner(self, root: Path, folder: str) -> str:
        """Give the folder that holds the classes: the domain's own, or one of `inner` in it."""
        places = (folder, *(f"{folder}/{name}" for name in self.inner))
        return max(places, key=lambda place: any((root / place / each).is_dir() for each in self.class_folders))

    def _read(self, name: str, root: Path, declared: str, folder: str, listed: frozenset[str]) -> Domain:
        if not any((root / folder / each).is_dir() for each in self.class_folders):
            inside = sorted(each.name for each in (root / folder).iterdir())
            raise DataMissing(
                f"{self.name}: {root / folder} holds none of the class folders {some_of(self.class_folders)} but "
                f"{some_of(inside) or 'nothing'}: the copy has another layout, expected <domain>/<class>/<image>. "
                f"{where(self)}"
            )
        prefix = f"{plain_name(declared)}/"
        leave_out = frozenset(file.removeprefix(prefix) for file in listed if file.startswith(prefix))
        try:
            lacking = self.may_lack.get(declared, ())
            domain = read_domain(name, root, folder, self.class_folders, may_lack=lacking, leave_out=leave_out)
            return replace(domain, phrase=self.phrases.get(declared, ""))
        except DataMissing as error:
            raise DataMissing(f"{self.name}: {error}; fetch it again. {where(self)}") from None

    def _strays(self, root: Path, domain: Domain) -> list[str]:
        """Name the folders that are no class; their images are not read."""
        strays = [name for name in sorted_folders(root / domain.folder) if name not in self.class_folders]
        known = f"{self.name}/{domain.folder} has folders that are no class and are not read"
        return [f"{known}: {some_of(strays, 5)}"] if strays else []

    def _read_splits(
        self, root: Path, domains: tuple[Domain, ...]
    ) -> tuple[dict[str, tuple[NDArray[np.int64], ...]], list[str]]:
        """Read the official lists, where they are; give the splits, and remarks on images that are not there."""
        splits: dict[str, tuple[NDArray[np.int64], ...]] = {}
        remarks = []
        for split, pattern in self.split_lists.items():
            names = [pattern.format(folder) for folder in self.folders]
            paths = [first_file(root, (f"{place}{name}" for place in LIST_FOLDERS)) for name in names]
            lists = [path for path in paths if path is not None]
            if not lists:
                continue
            if len(lists) < len(names):
                absent = [name for name, path in zip(names, paths, strict=True) if path is None]
                raise DataMissing(
                    f"{self.name}: the list(s) {some_of(absent)} are not beside {lists[0]}. {where(self)}"
                )
            positions = []
            for path, domain, folder in zip(lists, domains, self.folders, strict=True):
                # Labels of the lists follow another order of the classes; the folder tells the class.
                below = [file.partition("/")[2] for file, _ in read_list(path)]
                found, missing = positions_in(domain, [f"{domain.folder}/{file}" for file in below])
                positions.append(found)
                if missing:
                    remarks.append(
                        f"{self.name}/{folder} lacks {len(missing):,} images of {path.name}: {some_of(missing, 3)}"
                    )
            splits[split] = tuple(positions)
        return splits, remarks

    def _listed_duplicates(self, root: Path) -> frozenset[str]:
        """Read the list of duplicates as `<plain domain>/<class>/<file>`; empty where there is none."""
        path = self._duplicates_path(root)
        if path is None:
            return frozenset()
        roots = {plain_name(name) for name in (root.name, *self.roots)}
        listed = set()
        for line in path.read_text(encoding="utf-8").splitlines():
            parts = line.strip().removeprefix("./").split("/")
            if len(parts) > 3 and plain_name(parts[0]) in roots:
                parts = parts[1:]
            listed.add("/".join([plain_name(parts[0]), *parts[1:]]))
        return frozenset(listed)

    def _duplicates_path(self, root: Path) -> Path | None:
        paths = (root / self.duplicates, root.parent / self.duplicates) if self.duplicates else ()
        return next((path for path in paths if path.is_file()), None)

    def _duplicates_note(self, root: Path, found: Mapping[str, str], listed: frozenset[str]) -> list[str]:
        folders = {plain_name(declared): folder for declared, folder in found.items()}
        split = (file.partition("/") for file in listed)
        n = sum((root / folders[domain] / rest).is_file() for domain, _, rest in split if domain in folders)
        return [f"{self.name}: {n:,} duplicates listed in {self.duplicates} were left out"] if n else []

    def _compare(self, counts: tuple[int, ...]) -> tuple[str, list[str]]:
        """Tell the version by the number of images, and word what differs from it."""
        total = sum(counts)
        if not self.versions:
            odd = self.total and total != self.total
            return "", [f"{self.name} has {total:,} images, published {self.total:,}"] if odd else []
        nearest = min(self.versions, key=lambda version: abs(sum(version.counts) - total))
        known = sum(nearest.counts) == total
        notes = [f"{self.name}: {nearest.note}"] if known and nearest.note else []
        if not known and len(self.versions) > 1:
            names = "; ".join(f"{each.name}: {sum(each.counts):,}" for each in self.versions)
            notes.append(f"{self.name} has {total:,} images, which is no known version ({names})")
        notes += [
            f"{self.name}/{folder} has {count:,} images, published {published:,}"
            for folder, count, published in zip(self.folders, counts, nearest.counts, strict=True)
            if count != published
        ]
        return nearest.name if known else "", notes
