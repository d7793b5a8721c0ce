"""Arrays that follow from their inputs: computed once, kept in the cache folder under a digest of those inputs.

Features of frozen towers, text heads, weights of images and retrieved anchors are the same for every trial with the same
backbone and data, so whichever trial needs one first computes it. Two that begin together may both compute it; both
write the same, each in one step. What is kept is limited in size, and what was not used for longest goes first; a file
that a process has mapped is locked (shared), and neither goes nor is cleared.

Owns files and room; what an array depends on is its user's to say. Imports no torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import struct
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bench import files
from bench.config import load_table
from bench.errors import SpecError

VERSION = 1
"""Raised when what is kept changes; old files then go as they are not used any more."""

FOLDER = "derived"
DEFAULT_GB = 20.0
VARIABLE = "CLIPBED_DERIVED_GB"
SCHEMA = {"derived_gb": float}
"""What may stand in the table [cache] of the settings."""

_HEADER = 128
"""Bytes of an .npy header, padded to one size, so that it can be written when the number of rows is known."""

Array = NDArray[Any]


class Derived:
    """The arrays that are kept in one cache folder."""

    def __init__(self, cache: Path, limit: int | None = None) -> None:
        """Keep at most `limit` bytes below `cache`; the setting if None.

        Raises:
            SpecError: the setting is no good.
        """
        self.folder = cache / FOLDER
        self.limit = limit_bytes() if limit is None else limit
        self._held = contextlib.ExitStack()
        weakref.finalize(self, self._held.close)

    def array(self, kind: str, parts: Sequence[object], compute: Callable[[], Array]) -> Array:
        """Give the array that follows from `parts`, read into memory; computed if it is not kept yet.

        Args:
            kind: what it is, e.g. "text"; the name of a folder.
            parts: all that decides its content: text, numbers, arrays (by their bytes), and tuples of those.
            compute: makes it.
        """
        found = self.find(kind, parts)
        if found is None:
            found = compute()
            self.put(kind, parts, [found])
        return found

    def rows(self, kind: str, parts: Sequence[object], blocks: Callable[[], Iterable[Array]]) -> Array:
        """Give an array that may be large, mapped from disk; `blocks` makes it some rows at a time.

        It stays locked as long as this object lives. Where it cannot be kept, for want of room, it is in memory.
        """
        found = self.find(kind, parts, mapped=True)
        if found is None and self.put(kind, parts, blocks()):
            found = self.find(kind, parts, mapped=True)
        return np.concatenate(list(blocks())) if found is None else found

    def find(self, kind: str, parts: Sequence[object], *, mapped: bool = False) -> Array | None:
        """Give the array if it is kept and whole; it counts as used now."""
        path = self._path(kind, parts)
        try:
            file = path.open("rb")
        except OSError:
            return None
        with contextlib.ExitStack() as closing:
            closing.callback(file.close)
            with contextlib.suppress(OSError):  # a folder that may be read only
                os.utime(path)
            try:
                if mapped and _lock(file, fcntl.LOCK_SH):
                    found = _mapped(file)
                    self._held.push(closing.pop_all())
                    return found
                return np.asarray(np.load(file))
            except (ValueError, EOFError, OSError):  # torn, as after a loss of power
                return None

    def put(self, kind: str, parts: Sequence[object], blocks: Iterable[Array]) -> bool:
        """Keep an array, given some rows at a time; False if it could not be written."""
        path = self._path(kind, parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(path, lambda file: _write(file, blocks), durable=False)
            self._make_room(path)
        except OSError:
            return False
        return True

    def _path(self, kind: str, parts: Sequence[object]) -> Path:
        return self.folder / kind / f"{digest(VERSION, *parts)}.npy"

    def _make_room(self, newest: Path) -> None:
        """Delete what was not used for longest until the rest fits; `newest` stays."""
        files.remove_leftovers(newest.parent)
        kept = sorted(entries(self.folder.parent), key=lambda entry: entry.used)
        excess = sum(entry.size for entry in kept) - self.limit
        for entry in kept:
            if excess <= 0:
                return
            if entry.path != newest and delete(entry.path):
                excess -= entry.size


@dataclass(frozen=True)
class Entry:
    """One kept array.

    Attributes:
        path: its file.
        size: bytes.
        used: when it was last used, seconds since the epoch.
    """

    path: Path
    size: int
    used: float

    @property
    def kind(self) -> str:
        """What it is."""
        return self.path.parent.name


def entries(cache: Path) -> Iterator[Entry]:
    """Yield all that is kept in a cache folder."""
    for path in (cache / FOLDER).glob("*/*.npy"):
        with contextlib.suppress(OSError):  # another process may delete it meanwhile
            stat = path.stat()
            yield Entry(path, stat.st_size, stat.st_mtime)


def delete(path: Path) -> bool:
    """Delete the file of an array unless it is in use; say whether it is gone."""
    try:
        with path.open("r+b") as file:
            if not _lock(file, fcntl.LOCK_EX):
                return False
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def limit_bytes() -> int:
    """Give the setting: $CLIPBED_DERIVED_GB, else `derived_gb` of the table [cache], else 20 GB.

    Raises:
        SpecError: it is no number from 0.
    """
    given: Any = os.environ.get(VARIABLE)
    where = f"${VARIABLE}"
    if not given:
        table = load_table("cache", SCHEMA)
        given, where = table.get("derived_gb", DEFAULT_GB), "derived_gb of [cache]"
    try:
        limit = float(given)
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise SpecError(f"{where} is {given!r}, and should be a number of gigabytes from 0")
    return int(limit * 1e9)


def digest(*parts: object) -> str:
    """Give 32 hexadecimal digits that name `parts`; other types and other nestings give other ones.

    Raises:
        TypeError: a part is of a kind whose content cannot be read.
    """
    hashed = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            hashed.update(f"array {part.dtype.str} {part.shape}\n".encode())
            hashed.update(np.ascontiguousarray(part).data)
        elif isinstance(part, tuple):
            hashed.update(f"tuple {digest(*part)}\n".encode())
        elif isinstance(part, str | int | float | bool | None):
            encoded = repr(part).encode("utf-8", "backslashreplace")
            hashed.update(f"{type(part).__name__} {len(encoded)} ".encode() + encoded + b"\n")
        else:
            raise TypeError(f"{type(part).__name__} is no part that an array can be named by")
    return hashed.hexdigest()[:32]


def _write(file: IO[bytes], blocks: Iterable[Array]) -> None:
    """Write blocks of rows as one .npy file."""
    file.write(b"\0" * _HEADER)
    n_rows, first = 0, None
    for block in blocks:
        first = block if first is None else first
        n_rows += len(block)
        file.write(np.ascontiguousarray(block, first.dtype).data)
    first = np.zeros((0, 1), np.float32) if first is None else first
    described = {"descr": first.dtype.str, "fortran_order": False, "shape": (n_rows, *first.shape[1:])}
    text = str(described).ljust(_HEADER - 11) + "\n"
    file.seek(0)
    file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())


def _mapped(file: IO[bytes]) -> Array:
    """Map an .npy file.

    Raises:
        ValueError: it is torn, or none.
    """
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if os.fstat(file.fileno()).st_size != _HEADER + dtype.itemsize * math.prod(shape):
        raise ValueError("torn")
    if math.prod(shape) == 0:  # nothing to map
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, "r", offset=_HEADER, shape=shape)


def _lock(file: IO[bytes], how: int) -> bool:
    """Lock a file if that is possible at once."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
