"""The trials of a results folder: those that have run folders, and those that are planned and not begun."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from bench import files, planned
from bench.errors import Conflict, UnknownName
from bench.spec import TrialSpec
from bench.store import Run, State

_OF_THIS_MACHINE = ("host", "pid", "born", "heartbeat", "moved", "system", "slurm")
"""What status.json and env.json say of a machine."""


def note_planned(sweep: Path, specs: Iterable[TrialSpec]) -> None:
    """Note trials that are to be run, unless they are there; none of them gets a folder yet."""
    names = _names(sweep)

    def is_begun(trial: str) -> bool:
        return trial in names and Run(sweep / trial).has_spec

    planned.add(os.fspath(sweep), {spec.trial_id: spec.line for spec in specs}, is_begun)


def find_runs(root: Path) -> list[Run]:
    """Find the trials in `root` (a run folder, a sweep's, or one of sweeps), in a stable order."""
    if Run(root).is_there:
        return [Run(root)]
    found = _in_sweep(root)
    known = {run.trial_id for run in found}
    others = [folder for folder in _folders(root) if folder.name not in known]
    found += [run for folder in others for run in _in_sweep(folder)]
    return sorted(found, key=lambda run: run.folder) if others and known else found


def find_run(root: Path, trial: str) -> Run:
    """Find the one trial below `root` whose id begins with `trial`.

    Raises:
        UnknownName: there is none.
        Conflict: there are several.
    """
    runs = [run for run in find_runs(root) if run.trial_id.startswith(trial)]
    if not runs:
        raise UnknownName(f"no trial below {root} begins with {trial!r}; `sweep status` lists them")
    if len(runs) > 1:
        folders = ", ".join(str(run.folder) for run in runs[:5])
        raise Conflict(
            f"{len(runs)} trials below {root} begin with {trial!r}: {folders}; give more of the id or the folder"
        )
    return runs[0]


def trials_in(sweep: Path) -> frozenset[str]:
    """Name what is in a sweep's folder, planned trials among it, at once: to look for each of thousands takes longer."""
    return _names(sweep).union(planned.stamped(os.fspath(sweep)))


def delete(runs: Iterable[Run]) -> int:
    """Remove trials with all they hold, but for those that are done or running by now; give how many.

    Folders go first: on a full disk that makes the room for the rest.
    """
    number = 0
    for sweep, group in itertools.groupby(runs, lambda run: run.folder.parent):
        gone = set()
        for run in group:
            if run.state() not in (State.DONE, State.RUNNING):
                if run.folder.is_dir():
                    shutil.rmtree(run.folder)
                gone.add(run.trial_id)
        planned.forget(os.fspath(sweep), gone)
        number += len(gone)
    return number


def publish(run: Run, sweep: Path) -> None:
    """Copy what others need to collect a finished trial below `sweep`: spec, records, versions.

    Left out are checkpoint, predictions, places and whatever names this machine.

    Raises:
        Conflict: other records of the trial have been published there.
    """
    folder, records = sweep / run.trial_id, run.records()[0]
    if Run(folder).records()[0] not in ([], records):
        raise Conflict(f"{folder} holds other records of the same trial; delete it first, or publish elsewhere")
    folder.mkdir(parents=True, exist_ok=True)
    files.replace_json(folder / "spec.json", run.spec_json())
    files.replace_lines(folder / "results.jsonl", records)
    for name in ("status.json", "env.json"):
        value = files.read_json(run.folder / name) or {}
        files.replace_json(folder / name, {key: value[key] for key in value if key not in _OF_THIS_MACHINE})


def _in_sweep(sweep: Path) -> list[Run]:
    """Find the trials right below `sweep`; a folder without its spec, which a kill may leave, is not begun."""
    noted = planned.stamped(os.fspath(sweep))  # before the folders: what begins in between is among these
    begun = {folder.name: folder for folder in _folders(sweep) if _holds_spec(folder)}
    waiting = {trial: text for trial, (text, _) in noted.items() if trial not in begun}
    return [
        Run(begun[name]) if name in begun else Run(sweep / name, waiting[name]) for name in sorted({**begun, **waiting})
    ]


def _holds_spec(folder: Path) -> bool:
    return (folder / "spec.json").is_file()


def _names(sweep: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(sweep))
    except FileNotFoundError:
        return frozenset()


def _folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
