"""Where a data set's folder lies below the data directory, with one message for all readers if it is not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.dataset import DatasetInfo, plain_name
from bench.errors import DataMissing
from bench.spec import Places


class NotThere(DataMissing):
    """The data set's folder is not there at all, unlike one that is not whole."""


def needs_data_dir(info: DatasetInfo, places: Places, usual: str) -> Path:
    """Give the data directory.

    Raises:
        NotThere: none was given; `usual` is the folder that it would hold.
    """
    if places.data_dir is None:
        raise NotThere(
            f"{info.name} needs files: give the folder that holds {usual}/ with --data-dir. Where to get it: {info.source}"
        )
    return Path(places.data_dir).expanduser()


def find_root(info: DatasetInfo, data: Path, roots: Sequence[str], marks: Sequence[str]) -> Path:
    """Find the data set's folder: the first of `roots`, or the data directory itself, that holds all `marks`.

    Args:
        info: the data set.
        data: the data directory.
        roots: accepted names below it, the usual one first; case, spaces, `-` and `_` do not matter.
        marks: files and folders that tell the data set's folder; "a|b" is either.

    Raises:
        NotThere: no folder of these names is there; says what was looked for.
        DataMissing: the best of them lacks a mark.
    """
    named = [match for root in roots for match in folders_called(data, root)]
    for candidate in (*named, data):
        if not _lacking(candidate, marks):
            return candidate
    if not named:
        raise not_there(info, data, roots)
    best = min(named, key=lambda candidate: len(_lacking(candidate, marks)))
    lacking = ", ".join(mark.replace("|", " or ") for mark in _lacking(best, marks))
    raise DataMissing(f"{info.name}: {best} lacks {lacking}; the copy is incomplete. {where(info)}")


def not_there(info: DatasetInfo, data: Path, roots: Sequence[str]) -> NotThere:
    """Word that none of a data set's folders is there, and what was looked for."""
    looked = ", ".join(str(data / root) for root in roots)
    return NotThere(
        f"{info.name} is not in {data}: looked for {looked} (any case and spelling of spaces). "
        f"Give the folder that holds it with --data-dir. Where to get it: {info.source}"
    )


def where(info: DatasetInfo) -> str:
    """Say where to get a data set, and what to do by hand."""
    steps = f" By hand: {'; '.join(info.by_hand)}." if info.by_hand else ""
    return f"Where to get it: {info.source}.{steps}"


def folders_called(parent: Path, name: str) -> list[Path]:
    """Give the folders below `parent` that are called `name` in any spelling, the exact one first; "a/b" is b in a."""
    places = [parent]
    for part in name.split("/"):
        places = [
            each
            for place in places
            for each in sorted(
                place.iterdir() if place.is_dir() else (), key=lambda found: (found.name != part, found.name)
            )
            if plain_name(each.name) == plain_name(part) and each.is_dir()
        ]
    return places


def first_of(root: Path, marks: str) -> str:
    """Give the first of "a|b|…" that is below `root`; "" if none is."""
    return next((each for each in marks.split("|") if (root / each).exists()), "")


def _lacking(root: Path, marks: Sequence[str]) -> list[str]:
    return [mark for mark in marks if not first_of(root, mark)]
