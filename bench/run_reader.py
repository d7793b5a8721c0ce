"""Reading one run folder, CLIPBed's or DomainBed's, as records.

All evaluations of a run repeat its settings, and DomainBed's repeat `args` and `hparams` in every line. Both are read once
a run where the lines allow it; where they do not, line by line, with the same result.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from bench import planned
from bench.domainbed.reading import as_record, is_line
from bench.errors import RecordsMissing, SpecError
from bench.measures import label
from bench.results_folder import PARTIAL_FILE, RECORDS_FILE, SPEC_FILE, Source
from bench.selection import SETTINGS, Group, groups_of, is_pair

Line = dict[str, Any]

_decode = json.JSONDecoder().raw_decode
_HEAD = '{"args": {'
_HPARAMS = '"hparams": {'


class RunRecords(NamedTuple):
    """What one run says.

    Attributes:
        records: flat records, in the order of the lines.
        n_skipped: torn lines, and lines that are no record.
        is_done: whether the run is finished.
        is_domainbed: whether DomainBed wrote it.
        groups: groups that an unfinished run is for; none for a run with two held-out domains.
    """

    records: list[Line]
    n_skipped: int
    is_done: bool
    is_domainbed: bool
    groups: tuple[Group, ...]


def read_run(source: Source) -> RunRecords:
    """Read a run folder."""
    folder = source.path
    trial = os.path.basename(os.path.abspath(folder) if folder.endswith((".", "/")) else folder)
    size = source.records[0] if source.records is not None else 0
    has_records = size > 0
    data = _bytes(f"{folder}/{RECORDS_FILE}", size) if has_records else _bytes(f"{folder}/{PARTIAL_FILE}")
    spec = _spec(folder) if source.spec is not None else None
    found = _domainbed_records(data, trial) if spec is None else None
    if found is not None:
        records, n_skipped, is_domainbed = found, 0, True
    else:
        lines, n_torn = read_lines(data)
        is_domainbed = spec is None and any(map(is_line, lines))
        records = _records(lines, trial)
        n_skipped = n_torn + len(lines) - len(records)
    is_done = os.path.exists(f"{folder}/done") if is_domainbed else has_records
    groups = () if is_done else _groups_of_run(spec, records)
    return RunRecords(records, n_skipped, is_done, is_domainbed, groups)


def read_lines(data: bytes) -> tuple[list[Line], int]:
    """Read JSON lines; give the objects and the number of lines skipped because they were torn or foreign."""
    try:
        return _whole_lines(data.decode()), 0
    except (ValueError, RecursionError):
        pass
    values: list[Line] = []
    lines = [line for line in data.split(b"\n") if line.strip()]
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            values.append(value)
    return values, len(lines) - len(values)


def _whole_lines(text: str) -> list[Line]:
    """Read lines that are objects, each of them.

    Raises:
        ValueError: one of them is not.
    """
    values: list[Line] = []
    position, length = 0, len(text)
    while position < length:
        value, position = _decode(text, position)
        if not isinstance(value, dict) or (position < length and text[position] != "\n"):
            raise ValueError("not one object a line")
        values.append(value)
        position += 1
    return values


def _domainbed_records(data: bytes, trial: str) -> list[Line] | None:
    """Read DomainBed's lines where they all repeat one `args` and are records; None where they must be read one by one."""
    try:
        text = data.decode()
        if not text.startswith(_HEAD):
            return None
        args, end = _decode(text, len(_HEAD) - 1)
        bodies = _bodies(text, text[: end + 2])
        first = as_record({**bodies[0], "args": args}, trial)
        is_record = bool(groups_of(first)) and _is_well_formed(first)
        if not is_record or not _BY_LINE.isdisjoint(bodies[0]) or "variant" in first or "options" in first:
            return None
        # What `as_record` adds is the same for all lines with the same keys.
        added = {key: value for key, value in first.items() if key not in bodies[0] or value is not bodies[0][key]}
        keys = set(bodies[0])
        accuracies = itemgetter(*_accuracies(first), "step")
        for body in bodies:
            if body.keys() != keys:
                return None
            *values, step = accuracies(body)
            if min(values) < 0 or max(values) > 1 or math.isnan(sum(values)):
                return None
            int(step)
            body.update(added)
        return bodies
    except (ValueError, OverflowError, RecursionError, KeyError, TypeError, IndexError, SpecError):
        return None


def _bodies(text: str, head: str) -> list[Line]:
    """Read what lines say beside `args`, with which all begin, and beside `hparams`, which no record holds.

    Raises:
        ValueError: they do not all begin so, or one is torn.
        IndexError: there is no line.
    """
    parts = text.split(head)[1:]
    start = parts[0].find(_HPARAMS)
    hparams = ""
    if start >= 0:
        hparams = parts[0][start : _decode(parts[0], start + len(_HPARAMS) - 1)[1] + 2]
    if not head.endswith("}, ") or (hparams and not hparams.endswith("}, ")):
        raise ValueError("args or hparams are not followed by more")
    bodies: list[Line] = []
    for place, part in enumerate(parts, 1):
        if hparams:
            before, _, after = part.partition(hparams)
            if "{" in before or not after:
                raise ValueError("other hparams, or in another place")
            part = before + after
        part = "{" + part
        body, end = _decode(part)
        if part[end:] != "\n" and not (place == len(parts) and end == len(part)):
            raise ValueError("not one object a line")
        if "args" in body or "hparams" in body:
            raise ValueError("args or hparams twice")
        bodies.append(body)
    return bodies


def _records(lines: Sequence[Line], trial: str) -> list[Line]:
    """Complete lines to records; leave out those that are something else."""
    records: list[Line] = []
    before: Line | None = None
    settings: list[Any] = []
    for line in lines:
        of_line = [*map(line.get, SETTINGS)]
        if before is not None and of_line == settings and line.keys() == before.keys() and "args" not in line:
            try:
                int(line["step"])
            except (KeyError, TypeError, ValueError, OverflowError):
                continue
            record = {"trial": trial, **line}
        else:
            made = _as_record(line, trial)
            if made is None:
                before = None
                continue
            record, before, settings = made, line, of_line
        record.setdefault("predictor", record["algorithm"])
        record["protocol"] = label(record)
        record.pop("variant", None)
        records.append(record)
    return records


def _as_record(line: Line, trial: str) -> Line | None:
    """Flatten a line; None where it is something else than a record."""
    try:
        record = as_record(line, trial) if is_line(line) else {"trial": trial, **line}
        is_record = bool(groups_of(record)) and _is_well_formed(record)
    except (KeyError, TypeError, ValueError, OverflowError, SpecError):
        return None
    return record if is_record else None


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("algorithm", "predictor"), str),
    **dict.fromkeys(("trial", "split_digest", "class_digest", "data_digest", "code"), (str, int)),
    "domains": list,
    "notes": list,
    "n_bad_images": int,
}


_BY_LINE = frozenset({*_TYPES, "clipbed", "dataset", "protocol", "test_domains", "trial_seed", "hparams_seed"})
"""Keys that DomainBed itself does not write beside `args`; lines with one are read one by one."""


def _accuracies(record: Mapping[str, Any]) -> list[str]:
    return [key for key in record if key.startswith("env") and key.endswith("_acc")]


def _is_well_formed(record: Mapping[str, Any]) -> bool:
    """Say whether a record has a data set, a method and accuracies from 0 to 1, and what is read of it is of its kind.

    Raises:
        KeyError, ValueError, OverflowError: it lacks something, or its step is no number.
    """
    int(record["step"])
    typed = all(isinstance(record[name], kind) for name, kind in _TYPES.items() if record.get(name) is not None)
    named = all(
        isinstance(name, str) for name in (record["dataset"], record["algorithm"], *(record.get("domains") or ()))
    )
    accuracies = [record[key] for key in _accuracies(record)]
    numbers = [each for each in accuracies if isinstance(each, int | float)]
    return typed and named and bool(accuracies) and not any(each < 0 or each > 1 for each in numbers)


def _groups_of_run(spec: Mapping[str, Any] | None, records: Sequence[Line]) -> tuple[Group, ...]:
    """Give the groups that a run is for, from its spec and its first record; none for a run with two held-out domains.

    Which cells a trial without a held-out domain fills only its records tell.
    """
    described = {**(records[0] if records else {}), **({**spec, "step": 0} if spec is not None else {})}
    try:
        return () if is_pair(described) else tuple(groups_of(described))
    except (KeyError, SpecError):
        return ()


def _spec(folder: str) -> Line | None:
    """Read a trial's spec, from its folder or from where it waits without one."""
    data = _bytes(f"{folder}/{SPEC_FILE}") or planned.find(*os.path.split(folder)) or b""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _bytes(path: str, size: int = 1 << 16) -> bytes:
    """Read a file that should have `size` bytes in as few calls as that takes; nothing where there is none."""
    try:
        file = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise RecordsMissing(
            f"cannot read {path}: {error.strerror}; make it readable, or collect another folder"
        ) from None
    try:
        data = os.read(file, size + 1)
        if len(data) != size:
            parts = [data]
            while parts[-1]:
                parts.append(os.read(file, 1 << 20))
            data = b"".join(parts)
        return data
    except IsADirectoryError:
        return b""
    finally:
        os.close(file)
