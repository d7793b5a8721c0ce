"""Manifests: the files of a data set with digests of their bytes, to tell which were deleted, added or altered.

A manifest is text, one line `<SHA-256 or its beginning> <domain>/<class>/<file>` a file; lines that begin with `#` say what
it is of. Paths start with the domain's short name, so they do not depend on how a copy spells its folders.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import _paths, files
from bench.dataset import Dataset
from bench.errors import DataMissing, SpecError

Digests = dict[str, str]  # `<domain>/<class>/<file>` → hexadecimal digits


@dataclass(frozen=True)
class Manifest:
    """What a copy of a data set consisted of.

    Attributes:
        about: which copy it is of.
        digests: file → SHA-256 of its bytes, or the first digits of that.
    """

    about: str
    digests: Digests


@dataclass(frozen=True)
class Difference:
    """How a copy differs from a manifest.

    Attributes:
        missing, extra, altered: files, sorted.
        same: number of files that are in both with the same bytes.
    """

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    altered: tuple[str, ...]
    same: int

    @property
    def has_same_names(self) -> bool:
        """Most names agree: it is a manifest of this data set, though perhaps of another copy."""
        return self.same + len(self.altered) > len(self.missing)

    @property
    def is_same_copy(self) -> bool:
        """Most files have the same bytes: what differs was changed in this copy."""
        return self.has_same_names and self.same > len(self.altered)


def keys(dataset: Dataset) -> dict[str, Path]:
    """Give `<domain>/<class>/<file>` → path on this machine, for all images."""
    return {
        f"{domain.name}/{file.removeprefix(f'{domain.folder}/') if domain.folder else file}": domain.root / file
        for domain in dataset.domains
        for file in domain.files
    }


def compare(found: Mapping[str, str], manifest: Manifest) -> Difference:
    """Compare the digests of a copy with a manifest's; of two digests of different length the beginnings count."""
    wanted = manifest.digests
    common = found.keys() & wanted.keys()
    altered = [key for key in common if not found[key].startswith(wanted[key])]
    return Difference(
        missing=tuple(sorted(wanted.keys() - found.keys())),
        extra=tuple(sorted(found.keys() - wanted.keys())),
        altered=tuple(sorted(altered)),
        same=len(common) - len(altered),
    )


def read(path: Path) -> Manifest:
    """Read a manifest, plain or `.gz`.

    Raises:
        DataMissing: there is no such file.
        SpecError: it is no manifest.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except FileNotFoundError:
        raise DataMissing(f"there is no manifest {path}; write one with --write-manifest") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read as a manifest: {error}") from None
    about = []
    digests = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#"):
            about.append(line.removeprefix("#").strip())
        elif line:
            digest, space, key = line.partition(" ")
            if not space or len(digest) < 8 or set(digest) - set("0123456789abcdef"):
                raise SpecError(
                    f"{path}:{number} is no line of a manifest: expected `<SHA-256> <file>`, got {line[:60]!r}"
                )
            digests[key.strip()] = digest
    return Manifest(" ".join(about), digests)


def write(path: Path, manifest: Manifest, *, digits: int = 64) -> None:
    """Write a manifest; the same content gives the same bytes."""
    lines = [
        f"# {manifest.about}\n",
        *(f"{manifest.digests[key][:digits]} {key}\n" for key in sorted(manifest.digests)),
    ]
    text = "".join(lines).encode(errors="surrogateescape")
    files.replace(path, lambda file: file.write(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text))


def shipped(name: str) -> Manifest | None:
    """Give the manifest that CLIPBed ships for a data set, if it does."""
    path = _paths.plugin_folder("datasets") / "known_files" / f"{name}.txt.gz"
    return read(path) if path.is_file() else None
