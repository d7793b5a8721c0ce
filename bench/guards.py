"""What a launch makes sure of before it starts: folders can be written to; data and code are those of earlier trials."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bench import console
from bench.errors import Conflict, SpecError
from bench.store import Run
from bench.version import code_version

if TYPE_CHECKING:
    from bench.plan import Planned


def check_same_data(done: Iterable[Planned], folder: Path) -> None:
    """Refuse to go on with a sweep whose finished trials are of other files of the same name, warn if of other code.

    Looks at one of the trials that are `done` for each data set.
    """
    seen: dict[str, set[str]] = {}
    for each in done:
        if not each.file_lists or each.spec.dataset in seen:
            continue
        records = Run(folder / each.spec.trial_id).records()[0]
        seen[each.spec.dataset] = {str(record["code"]) for record in records if record.get("code")}
        before = next((record["file_lists"] for record in records if record.get("file_lists")), None)
        if before is not None and tuple(before) != each.file_lists:
            raise Conflict(
                f"the trials of {each.spec.dataset} in {folder} are of other files than those found now: give the data "
                "they were run on, or another --name for a new sweep"
            )
    earlier = sorted(set().union(*seen.values()) - {code_version()}) if seen else []
    if earlier:
        console.warn(
            f"warning: the code has changed since trials of {folder} were run ({', '.join(earlier)} then, "
            f"{code_version()} now); tables of both will say so"
        )


def check_writable(folder: Path, option: str = "--output-dir") -> None:
    """Refuse a folder that cannot be written to, or made; what is made on the way stays as an empty folder."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise SpecError(f"{there} is a file, so nothing can be put into {folder}; give another {option}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SpecError(f"there is no permission to write into {there}; give another {option}")
