"""The index of a large results folder: what its finished runs say, so that the next `collect` reads only what is new.

It lies in the user's cache folder, one file a results folder, never in the results folder itself, which others may own or
have made read-only. An entry counts only while size, time and inode of the run's files are what they were when it was
read, by this very code; anything else (another version, a torn or damaged file, one of another machine) is no index, and
everything is read again. A run whose files changed in the last seconds gets no entry: they could change again within the
resolution of the file system's clock. The file is replaced in one step, so of several writers the last one counts.

One line of checksum, one of JSON with an entry a run, then all floating-point numbers as they are in memory: records
are the same to the last bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.results_folder import MIN_RUNS, SETTLED_SECONDS, Kind, Source, cache_folder
from bench.run_reader import RunRecords, read_run

READERS = (
    *(
        "__init__",
        "_paths",
        "errors",
        "measures",
        "planned",
        "record_index",
        "results_folder",
        "run_reader",
        "selection",
        "sums",
    ),
    *("domainbed/__init__", "domainbed/reading", "domainbed/text"),
)
"""Modules that decide what a run's records are."""
_MAGIC = b"clipbed records "


def code_stamp() -> str:
    """Name the code that reads: an index of other code counts for nothing."""
    package = os.path.dirname(os.path.abspath(__file__))
    stats = ((name, os.stat(f"{package}/{name}.py")) for name in READERS)
    seen = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(repr([sys.version, sys.byteorder, package, *seen]).encode()).hexdigest()


def read_runs(sources: Sequence[Source], root: str, looked_at: int) -> list[RunRecords]:
    """Read run folders, those that the index knows from there; put the index in order afterwards.

    Args:
        sources: the run folders.
        root: the results folder that they are in, with which all their paths begin.
        looked_at: time in ns before their files were looked at.
    """
    if len(sources) < MIN_RUNS:
        return [read_run(source) for source in sources]
    path = cache_folder() / f"{_name(root)}.records"
    stamp = code_stamp()
    known = _load(path, stamp, root)
    runs = []
    is_current = len(known) == len(sources)
    for source in sources:
        entry = known.get(source.path)
        if entry is not None and entry[0] == source:
            runs.append(entry[1])
        else:
            is_current = False
            runs.append(read_run(source))
    if not is_current:
        settled = looked_at - int(SETTLED_SECONDS * 1e9)
        pairs = zip(sources, runs, strict=True)
        _write(path, stamp, root, [(source, run) for source, run in pairs if source.newest < settled])
    return runs


def _name(root: str) -> str:
    return hashlib.sha256(os.path.realpath(root).encode(errors="surrogateescape")).hexdigest()[:24]


def _write(path: Path, stamp: str, root: str, runs: Sequence[tuple[Source, RunRecords]]) -> None:
    """Write the index; a folder that cannot be written to, or a full disk, only costs time."""
    numbers: list[float] = []
    entries = [[source.path[len(root) :], *source[2:], *_packed(run, numbers)] for source, run in runs]
    text = json.dumps([stamp, len(numbers), entries], separators=(",", ":")).encode()
    content = text + b"\n" + array("d", numbers).tobytes()
    from bench import files  # not needed to read

    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        head = b"%s%08x\n" % (_MAGIC, zlib.crc32(content))
        files.replace(path, lambda file: file.write(head + content), durable=False)


def _load(path: Path, stamp: str, root: str) -> dict[str, tuple[Source, RunRecords]]:
    """Read the index; nothing where there is none that holds."""
    try:
        data = path.read_bytes()
        head, _, content = data.partition(b"\n")
        if head != b"%s%08x" % (_MAGIC, zlib.crc32(content)):
            return {}
        end = content.index(b"\n")
        written_by, n_numbers, entries = json.loads(content[:end])
        numbers = array("d", content[end + 1 :])
        if written_by != stamp or len(numbers) != n_numbers:
            return {}
        return _unpacked(entries, numbers.tolist(), root)
    except (OSError, ValueError, RecursionError, TypeError, KeyError, IndexError):
        return {}


def _packed(run: RunRecords, numbers: list[float]) -> list[Any]:
    """Pack a run: what all its records share, the names of their numbers, and the rest; the numbers go to `numbers`."""
    keys = list(run.records[0]) if run.records else []
    shared: dict[str, Any] = {}
    columns: list[str] = []
    rest: dict[str, Sequence[Any]] = {}
    if all(list(record) == keys for record in run.records):
        for key, column in zip(keys, zip(*map(dict.values, run.records))):
            if type(column[0]) is float and set(map(type, column)) == {float}:
                columns.append(key)
                numbers += column
            elif _is_one(column):
                shared[key] = column[0]
            else:
                rest[key] = column
        records: Sequence[Any] = ()
    else:
        records = run.records
    counts = [run.n_skipped, int(run.is_done), int(run.is_domainbed), len(run.records)]
    return [*counts, run.groups, records, shared, columns, rest]


def _is_one(column: Sequence[Any]) -> bool:
    """Say whether all values are the same, also as text: 1 is not 1.0."""
    return len(set(map(id, column))) == 1 or len(set(map(repr, column))) == 1


def _unpacked(entries: Sequence[Any], numbers: list[float], root: str) -> dict[str, tuple[Source, RunRecords]]:
    from bench.selection import Group, Row

    runs: dict[str, tuple[Source, RunRecords]] = {}
    place = 0
    for (
        path,
        stat,
        spec,
        folder,
        n_skipped,
        is_done,
        is_domainbed,
        n,
        groups,
        records,
        shared,
        columns,
        rest,
    ) in entries:
        keys = (*columns, *rest)
        if not records:
            end = place + n * len(columns)
            values = [*(numbers[start : start + n] for start in range(place, end, n or 1)), *rest.values()]
            place = end
            rows = zip(*values, strict=True) if keys else [()] * n
            records = [{**shared, **dict(zip(keys, row))} for row in rows]
        if len(records) != n:
            raise ValueError("an entry with other records than it says")
        source = Source(Kind.RUN, root + path, stat and tuple(stat), spec and tuple(spec), folder)
        found = tuple(Group(each[0], each[1], Row(*each[2]), each[3], each[4]) for each in groups)
        runs[root + path] = source, RunRecords(records, n_skipped, bool(is_done), bool(is_domainbed), found)
    return runs
