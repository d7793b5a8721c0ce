"""The trials of a results folder: those that have run folders, and those that are planned and not begun."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from bench import files, planned
from bench.errors import Conflict, UnknownName
from bench.spec import TrialSpec
from bench.store import Run

_OF_THIS_MACHINE = ("host", "pid", "born", "heartbeat", "moved", "system", "slurm")
"""What status.json and env.json say of a machine."""


def note_planned(sweep: Path, specs: Iterable[TrialSpec]) -> None:
    """Note trials that are to be run, unless they are there; none of them gets a folder yet."""
    names = _names(sweep)

    def is_begun(trial: str) -> bool:
        return trial in names and Run(sweep / trial).has_spec

    planned.add(os.fspath(sweep), {spec.trial_id: spec.to_text() for spec in specs}, is_begun)


def find_runs(root: Path) -> list[Run]:
    """Find the trials in `root` (a run folder, a sweep's, or one of sweeps), in a stable order."""
    if Run(root).is_there:
        return [Run(root)]
    found: list[Run] = []
    for folder in _folders(root):
        found += [Run(folder)] if _holds_spec(folder) else _in_sweep(folder)
    here = _not_begun(root)
    return sorted([*found, *here], key=lambda run: run.folder) if here else found


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


def delete(runs: Iterable[Run]) -> None:
    """Remove trials with all they hold."""
    for sweep, group in itertools.groupby(runs, lambda run: run.folder.parent):
        its = list(group)
        planned.forget(os.fspath(sweep), {run.trial_id for run in its})
        for run in its:
            if run.folder.is_dir():
                for path in run.folder.iterdir():
                    path.unlink()
                run.folder.rmdir()


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
    begun = [Run(folder) for folder in _folders(sweep) if _holds_spec(folder)]
    rest = _not_begun(sweep)
    return sorted([*begun, *rest], key=lambda run: run.folder) if rest else begun


def _not_begun(sweep: Path) -> list[Run]:
    """Give the trials of a sweep that have no folder; one without its spec, which a kill may leave, counts as none."""
    noted = planned.stamped(os.fspath(sweep))
    names = _names(sweep) if noted else frozenset()
    return [
        Run(sweep / trial, text)
        for trial, (text, _) in noted.items()
        if trial not in names or not _holds_spec(sweep / trial)
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
