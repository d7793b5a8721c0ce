"""Trials that are planned and that nobody has begun: their specs, in one file a launch instead of a folder each.

`results/<sweep>/.planned/<digest>.specs` holds a line a trial: its id, a space, and its `TrialSpec.line`.
Thousands of folders take a file system long to make, above all one that is far away. So a trial gets its folder when it
is begun (or cancelled); then that counts, and the trial's line says nothing any more. Files appear whole, and go with the
launch after the one that finds all their trials begun.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

FOLDER = ".planned"


class Stamp(NamedTuple):
    """What changes when a file does."""

    size: int
    mtime_ns: int
    inode: int


def add(sweep: str, specs: Mapping[str, str], is_begun: Callable[[str], bool]) -> None:
    """Note the specs of trials, by id; those that were noted before stay as they are.

    Args:
        sweep: the sweep's folder.
        specs: a `TrialSpec.line` each.
        is_begun: says whether a trial has a folder with its spec.
    """
    from pathlib import Path

    from bench import files  # not needed to read

    known: set[str] = set()
    for path, stamp in _files(sweep).items():
        trials = _read(path, stamp)
        if all(map(is_begun, trials)):
            _write(path, {})
        known.update(trials)
    new = {trial: text for trial, text in specs.items() if trial not in known and not is_begun(trial)}
    if new:
        name = hashlib.sha256("".join(new).encode()).hexdigest()[:16]
        os.makedirs(f"{sweep}/{FOLDER}", exist_ok=True)
        files.remove_leftovers(Path(sweep, FOLDER))
        _write(f"{sweep}/{FOLDER}/{name}.specs", new)


def find(sweep: str, trial: str) -> str | None:
    """Give the spec of a trial; None where none was noted."""
    found = (_read(path, stamp).get(trial) for path, stamp in _files(sweep).items())
    return next((text for text in found if text is not None), None)


def stamped(sweep: str) -> dict[str, tuple[str, Stamp]]:
    """Give the noted specs by trial, each with the stamp of its file; trials that have been begun since are among them."""
    files = _files(sweep).items()
    return {trial: (text, stamp) for path, stamp in files for trial, text in _read(path, stamp).items()}


def forget(sweep: str, trials: Collection[str]) -> None:
    """Take trials out."""
    for path, stamp in _files(sweep).items():
        before = _read(path, stamp)
        left = {trial: text for trial, text in before.items() if trial not in trials}
        if len(left) < len(before):
            _write(path, left)


def _files(sweep: str) -> dict[str, Stamp]:
    try:
        with os.scandir(f"{sweep}/{FOLDER}") as entries:
            found = sorted(entry.path for entry in entries if entry.name.endswith(".specs"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    stamps = {}
    for path in found:
        with contextlib.suppress(FileNotFoundError):
            stat = os.stat(path)
            stamps[path] = Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    return stamps


@functools.lru_cache(maxsize=1024)
def _read(path: str, stamp: Stamp) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.partition(" ") for line in file.read().split("\n") if line]
    except FileNotFoundError:
        return {}
    return {trial: text for trial, _, text in lines}


def _write(path: str, specs: Mapping[str, str]) -> None:
    """Put the lines in one step; a file without lines goes."""
    from pathlib import Path

    from bench import files  # not needed to read

    if specs:
        files.replace_text(Path(path), "".join(f"{trial} {text}\n" for trial, text in specs.items()))
    else:
        Path(path).unlink(missing_ok=True)
