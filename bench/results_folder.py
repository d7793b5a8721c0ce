"""What lies in a results folder: run folders, logs of Dassl, CSV files; each with a signature that changes as it does.

Reads names and stats only, no content, but for the list of trials that wait without a folder (`bench.planned`). Run folders
and CSV files are looked for in the folder and one and two levels below it, logs (`…/seed1/log.txt`) to `DEPTH` levels. What
is in a run folder is not looked at, nor are other hidden folders.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from bench import planned

RECORDS_FILE = "results.jsonl"
SPEC_FILE = "spec.json"
PARTIAL_FILE = "partial.jsonl"
CSV_COLUMNS = ("dataset", "algorithm", "domain", "trial", "metric", "value")
"""What the header of a CSV file of numbers must have."""
DEPTH = 12
MIN_RUNS = 1000
"""Of folders with fewer runs nothing is kept from one `collect` to the next: they are read as fast without."""
SETTLED_SECONDS = 2.0
"""What changed within so many seconds may change again without its time of modification showing it."""
_DEPTH_OF_RUNS = 2
_LOG = "log.txt"


class Kind(IntEnum):
    """What a source is."""

    RUN = 0
    LOG = 1
    CSV = 2


Stat = tuple[int, int, int]
"""Size, time of modification in ns, inode."""


class Source(NamedTuple):
    """One thing with records.

    Attributes:
        kind: how it is read.
        path: of the run folder, the log or the CSV file.
        records: stat of the file with the records; None where a run folder has none.
        spec: stat of a run folder's spec; None where it has none.
        folder: time of modification of a run folder in ns, which changes when files are put into it; 0 where records
            and spec say all.
    """

    kind: Kind
    path: str
    records: Stat | None
    spec: Stat | None = None
    folder: int = 0

    @property
    def newest(self) -> int:
        """The latest time of modification in ns."""
        return max(self.records[1] if self.records else 0, self.spec[1] if self.spec else 0, self.folder)


def cache_folder() -> Path:
    """Give the folder for what `collect` keeps from one run to the next; where the user has no home, one that cannot be."""
    root = os.environ.get("CLIPBED_CACHE") or "~/.cache/clipbed"
    folder = os.path.expanduser(root)
    return Path(os.devnull if folder.startswith("~") else folder) / "collect"


def find_sources(root: str) -> list[Source]:
    """Find what there is to read in `root`, a folder or a file, in a stable order."""
    if os.path.isfile(root):
        return [Source(Kind.LOG if _is_log(os.path.basename(root)) else Kind.CSV, root, _stat(root))]
    run = _run(root, _stat(f"{root}/{RECORDS_FILE}"))
    if run is not None and run.spec is not None:
        return [run]
    return [*([run] if run is not None else []), *_below(root, 1, {_identity(root)})]


def digest_of(sources: Sequence[Source], looked_at: int) -> str:
    """Name the state of all files of a results folder; empty where nothing should be kept of it.

    Args:
        sources: what was found.
        looked_at: time in ns before it was looked for.
    """
    is_settled = max((source.newest for source in sources), default=looked_at) < looked_at - int(SETTLED_SECONDS * 1e9)
    if len(sources) < MIN_RUNS or not is_settled:
        return ""
    seen = repr([source[1:] for source in sources])
    return hashlib.sha256(seen.encode(errors="surrogateescape")).hexdigest()


def _below(folder: str, depth: int, above: set[tuple[int, int]]) -> Iterator[Source]:
    """Find what is in the folders and files of `folder`, which are at `depth`; `above` keeps links from going in circles."""
    waiting = planned.stamped(folder) if depth <= _DEPTH_OF_RUNS else {}  # before the folders: what begins is in both
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        name, path = entry.name, f"{folder}/{entry.name}"
        if name.startswith("."):
            continue
        if _is_dir(entry):
            run = _run(path, _stat(f"{path}/{RECORDS_FILE}"))
            if run is not None:
                waiting.pop(name, None)
                if depth <= _DEPTH_OF_RUNS:
                    yield run
            elif depth < DEPTH and (identity := _identity(path)) not in above:
                yield from _below(path, depth + 1, above | {identity})
        elif name.endswith(".csv"):
            if depth <= _DEPTH_OF_RUNS + 1:
                yield Source(Kind.CSV, path, _stat(path))
        elif _is_log(name):
            yield Source(Kind.LOG, path, _stat(path))
    for trial, (_, stamp) in waiting.items():  # runs without records
        yield Source(Kind.RUN, f"{folder}/{trial}", None, stamp)


def _run(folder: str, records: Stat | None) -> Source | None:
    """Look at a run folder; None where it is none."""
    spec = _stat(f"{folder}/{SPEC_FILE}")
    if records is None and spec is None:
        return None
    whole = records is not None and spec is not None and records[0] > 0
    holder = None if whole else _stat(folder)
    return Source(Kind.RUN, folder, records, spec, holder[1] if holder is not None else 0)


def _stat(path: str) -> Stat | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_log(name: str) -> bool:
    """Say whether a file is a log of Dassl's by its name: a second run in one folder writes log.txt-2022-10-31-12-00-00."""
    return name == _LOG or name.startswith(f"{_LOG}-")
