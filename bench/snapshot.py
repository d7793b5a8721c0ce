"""Copies of the code that runs now, so that a checkout may change while a sweep's trials still start.

A copy holds the package `bench` as a wheel would install it, plug-in folders inside, be it taken from a checkout, a wheel
or another copy. Its folder is named by its content: the same code again is the same folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import files
from bench._paths import PACKAGE, plugin_folder
from bench.errors import BenchError, Conflict
from bench.version import SNAPSHOT_FILE, current_version

PLUGINS = ("algorithms", "datasets", "sweeps")

LARGEST_PLUGIN_FILE = 4 * 2**20
"""Bytes: a larger file beside plug-ins is an archive or an image that somebody keeps there, and no code."""


def take(target: Path) -> Path:
    """Copy the running code into a folder of its own below `target`, or find the copy that is there.

    Left out are caches, hidden files, and what lies beside plug-ins but is none: folders without Python files and large
    files, as data sets in `datasets/`. Several processes may do this at once. The copy's files are read-only.

    Args:
        target: folder of all snapshots; made if it is not there.

    Returns:
        The copy's folder, to be run with `environment`.

    Raises:
        Conflict: a copy of this name is there and was changed since.
        BenchError: the copy cannot be written.
    """
    content = _read(PACKAGE, {name: plugin_folder(name) for name in PLUGINS})
    content[f"bench/{SNAPSHOT_FILE}"] = f"{current_version()}\n".encode()
    folder = target / _digest(content)
    try:
        if not folder.is_dir():
            _write(content, folder)
        _check(folder)
    except OSError as error:
        raise BenchError(
            f"the snapshot of the code in {folder} cannot be written or read: {error.strerror or error}; mend that, or "
            "launch without a snapshot"
        ) from error
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Give the environment variables with which any Python, in any current folder, imports the copy in `folder`.

    The copy comes before all else that this process was told to search, and the current folder is not searched: it may
    be the checkout.
    """
    further = os.environ.get("PYTHONPATH", "")
    path = [str(folder.resolve()), *(part for part in further.split(os.pathsep) if part)]
    return {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def _read(package: Path, plugins: Mapping[str, Path]) -> dict[str, bytes]:
    """Read the code: path in the copy -> bytes.

    Args:
        package: folder of the package `bench`.
        plugins: where the plug-in folders lie, inside the package or beside it.
    """
    found = {path: package / path for path in _files_of(package)}
    for name, folder in plugins.items():
        found.update(
            {f"{name}/{path}": folder / path for path in _plugin_files_of(folder, root=folder != package / name)}
        )
    return {f"bench/{path}": place.read_bytes() for path, place in sorted(found.items()) if path != SNAPSHOT_FILE}


def _files_of(package: Path) -> Iterator[str]:
    """List the package's own files, those of the plug-in packages being their `__init__.py` alone."""
    for entry in _entries(package):
        if entry.name in PLUGINS:
            if (package / entry.name / "__init__.py").is_file():
                yield f"{entry.name}/__init__.py"
        elif entry.is_dir(follow_symlinks=False):
            yield from (f"{entry.name}/{path}" for path in _files_of(package / entry.name))
        elif entry.is_file():
            yield entry.name


def _plugin_files_of(folder: Path, *, root: bool) -> Iterator[str]:
    """List plug-ins and the small files beside them; `root`: an `__init__.py` in the folder itself is not meant."""
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            if any(each.name.endswith(".py") for each in _entries(folder / entry.name)):
                yield from (f"{entry.name}/{path}" for path in _plugin_files_of(folder / entry.name, root=False))
            continue
        is_code = entry.name.endswith(".py") and not (root and entry.name == "__init__.py")
        is_small = not entry.name.endswith(".py") and entry.is_file() and entry.stat().st_size <= LARGEST_PLUGIN_FILE
        if is_small or (is_code and entry.is_file()):
            yield entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Give what lies in a folder but caches and hidden files, by name; nothing if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            found = [each for each in entries if not each.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(
        (each for each in found if each.name != "__pycache__" and not each.name.endswith((".pyc", ".tmp", "~"))),
        key=lambda each: each.name,
    )


def _digest(content: Mapping[str, bytes]) -> str:
    """Give sixteen digits over all paths, bytes and the version."""
    hashed = hashlib.sha256()
    for path, data in sorted(content.items()):
        hashed.update(f"{path}\0{hashlib.sha256(data).hexdigest()}\n".encode(errors="surrogateescape"))
    return hashed.hexdigest()[:16]


def _write(content: Mapping[str, bytes], folder: Path) -> None:
    """Write a copy beside its place, then rename it; if another process was faster, its copy stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # they may be another user's
        files.remove_leftovers(folder.parent)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        for path, data in content.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(temporary / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        files.share(temporary)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(folder: Path) -> None:
    """Refuse a copy that is not what its name says.

    Raises:
        Conflict: files of the copy were changed, added or lost.
    """
    package = folder / "bench"
    content = _read(package, {name: package / name for name in PLUGINS})
    version = package / SNAPSHOT_FILE
    content[f"bench/{SNAPSHOT_FILE}"] = version.read_bytes() if version.is_file() else b""
    if _digest(content) != folder.name:
        raise Conflict(
            f"the snapshot of the code in {folder} was changed after it was taken; once no trial runs from it, delete it "
            "and launch again"
        )
