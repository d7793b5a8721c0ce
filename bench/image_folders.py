"""Data sets laid out as `<root>/<domain>/<class>/<image>`: a declaration is enough, `ImageFolders` does the reading.

Domains and classes are found by name, never by position: a stray or absent folder shifts no number. Data sets of this
kind are declared in `datasets/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.dataset import Dataset, DatasetInfo, Domain, captions_beside, clean_class_name, read_domain, some_of
from bench.errors import Conflict, DataMissing
from bench.spec import Places


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
        may_lack: domain's folder → classes that it may have no image of.
        versions: copies that are known to differ; the first is `counts` if that is not given.
        total: images in all, where the counts of the domains are not published.
        duplicates: name of a file beside the domains (or beside the root) that lists images to leave out, one
            `<domain>/<class>/<file>` a line, with or without the root's name in front.
    """

    roots: tuple[str, ...]
    folders: tuple[str, ...]
    class_folders: tuple[str, ...]
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    may_lack: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()
    total: int = 0
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
        version, notes = self._compare(tuple(len(domain.files) for domain in domains))
        return Dataset(
            name=self.name,
            class_names=self.class_names,
            domains=domains,
            templates=self.templates,
            version=version,
            captions=captions_beside(root),
            notes=(*self._duplicates_note(root, found, listed), *notes),
        )

    def _find_root(self, places: Places) -> Path:
        """Find the folder that holds the domains; of several, the first that holds most of them."""
        if places.data_dir is None:
            raise DataMissing(
                f"{self.name} needs files: give the folder that holds {self.roots[0]}/ with --data-dir. {self._where()}"
            )
        data = Path(places.data_dir).expanduser()
        candidates = [match for root in self.roots for match in _folders_called(data, root)]
        if all(self._domain_folders(data, missing_ok=True).values()):
            candidates.append(data)  # the data set's own folder was given
        if not candidates:
            looked = ", ".join(str(data / root) for root in self.roots)
            raise DataMissing(
                f"{self.name} is not in {data}: looked for {looked} (any case and spelling of spaces). "
                f"Give the folder that holds it with --data-dir. {self._where()}"
            )
        return max(candidates, key=lambda root: sum(map(bool, self._domain_folders(root, missing_ok=True).values())))

    def _domain_folders(self, root: Path, *, missing_ok: bool = False) -> dict[str, str]:
        """Give declared folder → folder that was found ("" if none)."""
        found = {folder: self._domain_folder(root, folder) for folder in self.folders}
        missing = [folder for folder, match in found.items() if not match]
        if missing and not missing_ok:
            raise DataMissing(
                f"{self.name}: no folder for the domain(s) {', '.join(missing)} in {root} "
                f"(needed: {', '.join(self.folders)}). {self._where()}"
            )
        return found

    def _domain_folder(self, root: Path, folder: str) -> str:
        for spelling in (folder, *self.spellings.get(folder, ())):
            matches = [match.name for match in _folders_called(root, spelling)]
            if len(matches) > 1 and spelling not in matches:
                raise Conflict(
                    f"{self.name}: each of the folders {some_of(matches)} in {root} could be the domain {folder!r}; "
                    "leave one of them there"
                )
            if matches:
                return matches[0]
        return ""

    def _read(self, name: str, root: Path, declared: str, folder: str, listed: frozenset[str]) -> Domain:
        if not any((root / folder / each).is_dir() for each in self.class_folders):
            inside = sorted(each.name for each in (root / folder).iterdir())
            raise DataMissing(
                f"{self.name}: {root / folder} holds none of the class folders {some_of(self.class_folders)} but "
                f"{some_of(inside) or 'nothing'}: the copy has another layout, expected <domain>/<class>/<image>. "
                f"{self._where()}"
            )
        prefix = f"{_plain(declared)}/"
        leave_out = frozenset(file.removeprefix(prefix) for file in listed if file.startswith(prefix))
        try:
            lacking = self.may_lack.get(declared, ())
            return read_domain(name, root, folder, self.class_folders, may_lack=lacking, leave_out=leave_out)
        except DataMissing as error:
            raise DataMissing(f"{self.name}: {error}; fetch it again. {self._where()}") from None

    def _listed_duplicates(self, root: Path) -> frozenset[str]:
        """Read the list of duplicates as `<plain domain>/<class>/<file>`; empty where there is none."""
        path = self._duplicates_path(root)
        if path is None:
            return frozenset()
        roots = {_plain(name) for name in (root.name, *self.roots)}
        listed = set()
        for line in path.read_text(encoding="utf-8").splitlines():
            parts = line.strip().removeprefix("./").split("/")
            if len(parts) > 3 and _plain(parts[0]) in roots:
                parts = parts[1:]
            listed.add("/".join([_plain(parts[0]), *parts[1:]]))
        return frozenset(listed)

    def _duplicates_path(self, root: Path) -> Path | None:
        paths = (root / self.duplicates, root.parent / self.duplicates) if self.duplicates else ()
        return next((path for path in paths if path.is_file()), None)

    def _duplicates_note(self, root: Path, found: Mapping[str, str], listed: frozenset[str]) -> list[str]:
        folders = {_plain(declared): folder for declared, folder in found.items()}
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

    def _where(self) -> str:
        return f"Where to get it: {self.source}"


def _plain(name: str) -> str:
    """Make spellings of one name equal: `Real World`, `Real_World`, `RealWorld`, `real_world`."""
    return "".join(letter for letter in name.lower() if letter not in "_- ")


def _folders_called(parent: Path, name: str) -> list[Path]:
    """Give the folders below `parent` that are called `name` in any spelling, the exact one first."""
    places = [parent]
    for part in name.split("/"):
        places = [
            each
            for place in places
            for each in sorted(
                place.iterdir() if place.is_dir() else (), key=lambda found: (found.name != part, found.name)
            )
            if _plain(each.name) == _plain(part) and each.is_dir()
        ]
    return places
