"""Writing that survives a kill, and reading that survives what a kill left behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def replace(path: Path, write: Callable[[IO[bytes]], object], *, durable: bool = True) -> None:
    """Put a new file at `path` in one step: readers see the old content or the new, never a part.

    The bytes go to a temporary file in the same folder, are flushed to disk, then renamed over `path`.

    Args:
        path: where to.
        write: writes the bytes into the open file it is given.
        durable: wait until the disk has them. Where not, a machine that loses power may leave an empty file.
    """
    name = f"{path.parent}/.{path.name}.{_TOKEN}-{os.getpid()}-{next(_NUMBERS)}.tmp"
    try:
        with open(name, "xb") as file:
            write(file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def replace_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Put `text` at `path` in one step."""
    replace(path, lambda file: file.write(text.encode()), durable=durable)


def create_text(path: str, text: str) -> None:
    """Put a short `text` where nothing is yet, in one write; a kill may leave an empty file, never a part.

    For thousands of small files: a third of the calls of `replace_text`, which counts on a file system far away. If
    another process has put something there, that stays.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return
    try:
        data = text.encode()
        if os.write(handle, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(handle)


def replace_json(path: Path, value: object, *, durable: bool = True) -> None:
    """Put `value` as readable JSON at `path` in one step."""
    replace_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n", durable=durable)


def replace_lines(path: Path, values: list[dict[str, Any]]) -> None:
    """Put one JSON object a line at `path` in one step."""
    replace_text(path, "".join(json.dumps(value, sort_keys=True) + "\n" for value in values))


def read_json(path: Path) -> Any:
    """Read a JSON file; None where there is none or where it is torn."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Read JSON lines; give the objects and the number of lines skipped because they were torn or foreign."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    values: list[dict[str, Any]] = []
    skipped = 0
    for line in data.split(b"\n"):  # not splitlines, which also breaks at characters that JSON may hold
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            values.append(value)
        else:
            skipped += 1
    return values, skipped


LEFTOVER_SECONDS = 600.0


def content_tag(path: Path) -> str:
    """Name a file by its content, "file:" and sixteen digits of its SHA-256, so that it may be moved."""
    with path.open("rb") as file:
        return "file:" + hashlib.file_digest(file, "sha256").hexdigest()[:16]


def share(folder: Path) -> None:
    """Give a temporary folder the permissions that the umask allows; it is made for its owner alone."""
    folder.chmod(0o777 & ~_UMASK)


def remove_leftovers(folder: Path, older: float = LEFTOVER_SECONDS) -> None:
    """Delete the temporary files and folders that a killed writer left in `folder`.

    Args:
        folder: where to look; folders in it are not looked into.
        older: seconds since they were written to; younger ones may still be in use.
    """
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            written = max(each.stat().st_mtime for each in (path, *path.glob("*")))
            if time.time() - written >= older:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_TOKEN, _NUMBERS = os.urandom(4).hex(), itertools.count()
"""With the process id they name a temporary file that no other process, thread or host writes; cheaper than `mkstemp`."""

_UMASK = _umask()
"""Read once: reading means setting, which would loosen the files that other threads make meanwhile."""
