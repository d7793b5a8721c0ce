"""What lies in the cache folder, how large it is, and emptying it.

Decoded images, derived arrays and what `collect` remembers are made again when they are needed, so they may go; rendered
data sets and the notes of `verify` stay. A derived array that a trial has mapped stays as well; decoded images do not
tell, but a trial that has them open goes on with them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import derived

DECODED = "decoded"
_SINGLE = {
    "pools": "facts of anchor pools",
    "collect": "what collect remembers",
    "features": "features, as kept before",
}
"""Folders whose files stand each for itself."""

_MARKERS = "prepared"
"""Folder of markers that say for which trials all was decoded."""


@dataclass(frozen=True)
class Kept:
    """One thing that may be deleted.

    Attributes:
        kind: in words.
        path: file or folder.
        size: bytes.
        used: when it was last used, as well as the file system tells, seconds since the epoch.
    """

    kind: str
    path: Path
    size: int
    used: float


def kept(cache: Path) -> list[Kept]:
    """List all that may be deleted from a cache folder."""
    found = [_of_folder(each) for each in folders(cache / DECODED)]
    found += [Kept(f"derived: {entry.kind}", entry.path, entry.size, entry.used) for entry in derived.entries(cache)]
    for name, kind in _SINGLE.items():
        for path in _files(cache / name):
            with contextlib.suppress(OSError):
                stat = path.stat()
                found.append(Kept(kind, path, stat.st_size, max(stat.st_mtime, stat.st_atime)))
    return found


def folders(folder: Path) -> list[Path]:
    """List the folders in a folder but hidden ones, which are being written or deleted; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def chosen(
    cache: Path, *, decoded_of: Sequence[re.Pattern[str]] = (), older: float = 0.0, now: float | None = None
) -> list[Kept]:
    """Choose what to delete.

    Args:
        cache: the cache folder.
        decoded_of: only decoded images in folders with such names; if empty, everything.
        older: only what was not used for so many seconds.
        now: the time; the clock's if None.
    """
    now = time.time() if now is None else now

    def is_wanted(each: Kept) -> bool:
        named = each.path.parent.name == DECODED and any(every.fullmatch(each.path.name) for every in decoded_of)
        return (named or not decoded_of) and now - each.used >= older

    return [each for each in kept(cache) if is_wanted(each)]


def delete(cache: Path, things: Sequence[Kept]) -> list[Kept]:
    """Delete `things`; give those that stay since they are in use."""
    staying = []
    for each in things:
        if each.path.is_dir():
            _delete_folder(each.path)
        elif each.path.is_relative_to(cache / derived.FOLDER):
            if not derived.delete(each.path):
                staying.append(each)
        else:
            each.path.unlink(missing_ok=True)
    if any(each.path.parent.name == DECODED for each in things):
        shutil.rmtree(cache / _MARKERS, ignore_errors=True)  # they would say that all is decoded
    return staying


def _delete_folder(folder: Path) -> None:
    """Delete a folder, out of sight: what an interruption leaves must not be taken for a whole one."""
    with contextlib.suppress(FileNotFoundError):
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def by_kind(things: Sequence[Kept]) -> list[tuple[str, int, int]]:
    """Sum up: (kind, how many, bytes), the largest first."""
    sums: dict[str, list[int]] = {}
    for each in things:
        count = sums.setdefault(each.kind, [0, 0])
        count[0] += 1
        count[1] += each.size
    return sorted(((kind, n, size) for kind, (n, size) in sums.items()), key=lambda row: -row[2])


def size_of(folder: Path) -> int:
    """Give the bytes of all files in a folder and below."""
    return sum(size for size, _ in _stats(folder))


def _of_folder(folder: Path) -> Kept:
    stats = list(_stats(folder))
    return Kept("decoded images", folder, sum(size for size, _ in stats), max((used for _, used in stats), default=0.0))


def _stats(folder: Path) -> Iterator[tuple[int, float]]:
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            if path.is_file():
                yield stat.st_size, max(stat.st_mtime, stat.st_atime)


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_file()) if folder.is_dir() else []
