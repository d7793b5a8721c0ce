"""What has been sent to Slurm from a sweep's folder: which trials are in which task of which array, and by which code.

`results/<sweep>/.slurm/<number>/` holds one launch:

    claim.json      who launches, since when; making the folder is the claim, so two launchers cannot send at once
    launch.json     written when all was sent; code version, options, snapshot
    array-K.json    the tasks of an array: a list of trial ids each, and how they are to be run
    array-K/        the script, and one log a task

The array's file is written before Slurm hears of it, and Slurm's name of the array is computed from it. So a launcher
that dies on the way leaves nothing that could not be told: what is queued is in the queue under that name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import files
from bench.errors import Conflict
from bench.process import is_alive, this_process
from bench.ticking import every

FOLDER = ".slurm"
_POLL_SECONDS = 0.5
_PULSE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Array:
    """An array of tasks.

    Attributes:
        name: what Slurm knows it by.
        sweep: folder of the sweep.
        tasks: trial ids of each task.
        threads: CPU threads a trial.
        jobs: trials at a time in a task.
        device: torch's name of a device, or None.
        retry: which failures are tried again, as `RetryRule` reads it.
        code: version of the code that sent it.
        prepares: its tasks read and decode the data of their trials, instead of running them.
        share: trials whose weights follow the same path are trained as one.
        grace: seconds that trials have to write checkpoints after Slurm's warning.
    """

    name: str
    sweep: str
    tasks: tuple[tuple[str, ...], ...]
    threads: int
    jobs: int = 1
    device: str | None = None
    retry: str = ""
    code: str = ""
    prepares: bool = False
    share: bool = True
    grace: float = 20.0

    @classmethod
    def read(cls, path: Path) -> Array | None:
        """Read an array's file; None where it is torn or gone."""
        value = files.read_json(path)
        if not isinstance(value, dict):
            return None
        return cls(**{**value, "tasks": tuple(tuple(task) for task in value["tasks"])})

    def write(self, path: Path) -> None:
        """Write an array's file."""
        files.replace_text(path, json.dumps(vars(self)))


@dataclass(frozen=True)
class Launch:
    """One launch."""

    folder: Path

    @classmethod
    def claim(cls, sweep: Path, *, patience: float = 600.0) -> Launch:
        """Begin a launch; while another launcher of the same sweep is at work, wait.

        Making a folder either works or not, on every file system, so of two launchers one waits for the other.

        Args:
            sweep: the sweep's folder.
            patience: seconds after which a launcher that has said nothing is taken for dead.
        """
        root = sweep / FOLDER
        root.mkdir(parents=True, exist_ok=True)
        while True:
            latest = max((int(name) for name in os.listdir(root) if name.isdigit()), default=0)
            if latest and not cls(root / f"{latest:04d}")._is_over(patience):
                time.sleep(_POLL_SECONDS)
                continue
            launch = cls(root / f"{latest + 1:04d}")
            try:
                launch.folder.mkdir()
            except FileExistsError:
                continue
            launch.beat()
            return launch

    def beat(self) -> None:
        """Say that the launcher lives; called before each array.

        Raises:
            Conflict: a later launch has begun, which took this one for dead.
        """
        if (self.folder.parent / f"{int(self.folder.name) + 1:04d}").exists():
            raise Conflict(
                f"another launch of {self.folder.parent.parent} has begun, since nothing was heard of this one for some "
                "minutes; it sends what was left, so there is nothing to do here"
            )
        files.replace_json(self.folder / "claim.json", {**this_process(), "heartbeat": time.time()})

    def pulse(self) -> AbstractContextManager[None]:
        """Say now and then that the launcher lives, while a block looks at thousands of trials."""
        return every(_PULSE_SECONDS, self._speak)

    def _speak(self) -> None:
        with contextlib.suppress(Conflict, OSError):  # the next array meets the same and says so
            self.beat()

    def _is_over(self, patience: float) -> bool:
        """Say whether the launcher has sent everything, or is dead."""
        if (self.folder / "launch.json").exists():
            return True
        claim = files.read_json(self.folder / "claim.json")
        try:
            age = time.time() - self.folder.stat().st_mtime
        except FileNotFoundError:  # withdrawn just now
            return True
        return age > patience or (isinstance(claim, dict) and not is_alive(claim, time.time()))

    def withdraw(self) -> None:
        """Undo a claim of which nothing was sent."""
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()

    def finish(self, **details: Any) -> None:
        """Note that all was sent."""
        files.replace_json(self.folder / "launch.json", {**details, "sent": time.time()})

    def next_array(self) -> Path:
        """Give the file of the array that comes next."""
        return self.folder / f"array-{len(list(self.folder.glob('array-*.json')))}.json"

    def details(self) -> dict[str, Any]:
        """Give what `finish` noted; empty before."""
        value = files.read_json(self.folder / "launch.json")
        return value if isinstance(value, dict) else {}


def job_name(array: Path) -> str:
    """Make the name that Slurm will know an array by: of the sweep's folder, the launch and the array."""
    launch = array.parent
    sweep = launch.parent.parent.resolve()
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", sweep.name)
    place = hashlib.sha256(os.fsencode(sweep)).hexdigest()[:8]
    return f"clipbed-{plain}-{place}-{launch.name}-{array.stem.removeprefix('array-')}"


def launches(sweep: Path) -> list[Launch]:
    """List the launches of a sweep, oldest first."""
    try:
        names = sorted((name for name in os.listdir(sweep / FOLDER) if name.isdigit()), key=int)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [Launch(sweep / FOLDER / name) for name in names]


def arrays(sweep: Path) -> Iterator[Array]:
    """Yield the arrays of a sweep's launches, oldest first."""
    for launch in launches(sweep):
        for path in sorted(launch.folder.glob("array-*.json")):
            array = Array.read(path)
            if array is not None:
                yield array


def tasks_of_trials(sweep: Path) -> Mapping[str, tuple[str, int]]:
    """Give for each trial that was ever sent the name of its array and its task's index; the latest launch counts."""
    return {
        trial: (array.name, index)
        for array in arrays(sweep)
        if not array.prepares
        for index, task in enumerate(array.tasks)
        for trial in task
    }
