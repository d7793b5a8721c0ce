"""Run folders: what a trial leaves on disk, who may write there, and what state it is in.

`results/<sweep>/<trial_id>/` holds

    spec.json        the TrialSpec, written once
    places.json      where this machine finds data and weights; may change between attempts
    attempt.N        the claim of the N-th attempt: host, process, start
    status.json      state, step, rate, heartbeat of the latest attempt
    results.jsonl    the records (one evaluation of one predictor a line)
    checkpoint.pt    model, optimizer and step of an unfinished trial
    predictions.npz  label and score of every test sample, at the last step
    env.json         versions, host, threads, times
    error.txt        traceback of a failed attempt
    log.txt          what attempts in a process of their own said on standard output and error; often absent

This is the only module that knows these names. The state is a pure function of the folder (and, for a process of this
host, of whether it still lives).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import files
from bench.errors import Conflict, SpecError, UnknownName
from bench.spec import Places, TrialSpec

HEARTBEAT_SECONDS = 5.0
_OF_THIS_MACHINE = ("host", "pid", "born", "heartbeat", "system")

LOST_AFTER_SECONDS = 180.0
"""A process of another host counts as lost when its heartbeat is older than this."""


class State(StrEnum):
    """What a run folder says of its trial."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"


class Busy(Exception):
    """Another live attempt holds the trial."""


class Superseded(Exception):
    """A newer attempt has claimed the trial; this one must stop and write nothing more."""


class Run:
    """One run folder."""

    def __init__(self, folder: Path) -> None:
        """Look at `folder`; nothing is read until it is asked for."""
        self.folder = folder

    @classmethod
    def create(cls, sweep: Path, spec: TrialSpec, places: Places) -> Run:
        """Make the folder of `spec` below `sweep`, or open the one that is there, and note the places."""
        run = cls(sweep / spec.trial_id)
        run.folder.mkdir(parents=True, exist_ok=True)
        if not run._path("spec.json").exists():
            files.replace_json(run._path("spec.json"), spec.to_json())
        if files.read_json(run._path("places.json")) != places.to_json():
            files.replace_json(run._path("places.json"), places.to_json())
        return run

    @property
    def trial_id(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def spec(self) -> TrialSpec:
        """The trial.

        Raises:
            SpecError: there is no spec, or not one of this version.
        """
        value = self.spec_json()
        if value is None:
            raise SpecError(
                f"{self.folder} holds no readable spec.json: it is no run folder, or was damaged; delete it"
            )
        return TrialSpec.from_json(value)

    def spec_json(self) -> dict[str, Any] | None:
        """Give the stored spec as it is, for readers that must cope with other versions; None where there is none."""
        value = files.read_json(self._path("spec.json"))
        return value if isinstance(value, dict) else None

    @property
    def places(self) -> Places:
        """Where this machine finds data and weights."""
        return Places.from_json(files.read_json(self._path("places.json")) or {})

    def status(self) -> dict[str, Any]:
        """Give what the latest attempt said of itself; empty before the first."""
        value = files.read_json(self._path("status.json"))
        return value if isinstance(value, dict) else {}

    def state(self, now: float | None = None) -> State:
        """Derive the state from the folder.

        Args:
            now: Unix time to judge heartbeats by; the present by default.
        """
        status = self.status()
        said = status.get("state")
        now = time.time() if now is None else now
        if said == State.DONE:
            return State.DONE if self._has_records else State.LOST
        if self._is_claimed(since=status.get("attempt", 0), now=now):
            return State.RUNNING
        if said == State.RUNNING:
            return State.RUNNING if _is_alive(status, now) else State.LOST
        return State.FAILED if said == State.FAILED else State.PENDING

    def _is_claimed(self, since: int, now: float) -> bool:
        """Whether a live process holds a claim newer than attempt `since` and has not said anything yet."""
        latest = self._last_attempt()
        claim = files.read_json(self._path(f"attempt.{latest}")) if latest > since else None
        return isinstance(claim, dict) and _is_alive({**claim, "heartbeat": claim.get("claimed", 0)}, now)

    @property
    def is_done(self) -> bool:
        """Whether the trial is finished."""
        return self.status().get("state") == State.DONE and self._has_records

    @property
    def _has_records(self) -> bool:
        """Whether there are records at all: a trial that said it was done and lost them must be run again."""
        try:
            return self._path("results.jsonl").stat().st_size > 0
        except OSError:
            return False

    def records(self) -> tuple[list[dict[str, Any]], int]:
        """Read the records; give them and the number of torn or foreign lines that were skipped."""
        return files.read_lines(self._path("results.jsonl"))

    def error(self) -> str | None:
        """Give the traceback of a failed attempt."""
        try:
            return self._path("error.txt").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    @property
    def checkpoint_path(self) -> Path:
        """Where an unfinished trial keeps its checkpoint."""
        return self._path("checkpoint.pt")

    @property
    def predictions_path(self) -> Path:
        """Where the predictions of the last step are."""
        return self._path("predictions.npz")

    @property
    def error_path(self) -> Path:
        """Where the traceback of a failed attempt is."""
        return self._path("error.txt")

    @property
    def log_path(self) -> Path:
        """Where an attempt in a process of its own writes what libraries say."""
        return self._path("log.txt")

    def reset(self) -> None:
        """Forget a failed attempt, so that the trial is pending again; checkpoint and records stay."""
        files.replace_json(self._path("status.json"), {"state": State.PENDING.value, "attempt": self._last_attempt()})
        self._path("error.txt").unlink(missing_ok=True)

    def delete(self) -> None:
        """Remove the run folder with all it holds."""
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()

    def publish(self, sweep: Path) -> Run:
        """Copy what others need to collect a finished trial below `sweep`: spec, records, versions.

        Left out are checkpoint, predictions, places and whatever names this machine.

        Raises:
            Conflict: other records of the trial have been published there.
        """
        copy = Run(sweep / self.trial_id)
        if copy.records()[0] not in ([], self.records()[0]):
            raise Conflict(
                f"{copy.folder} holds other records of the same trial; delete it first, or publish elsewhere"
            )
        copy.folder.mkdir(parents=True, exist_ok=True)
        files.replace_json(copy._path("spec.json"), self.spec_json())
        files.replace_lines(copy._path("results.jsonl"), self.records()[0])
        for name in ("status.json", "env.json"):
            value = files.read_json(self._path(name)) or {}
            files.replace_json(copy._path(name), {key: value[key] for key in value if key not in _OF_THIS_MACHINE})
        return copy

    def claim(self) -> Attempt:
        """Claim the trial for this process.

        Raises:
            Busy: a live attempt holds it.
        """
        if self.state() is State.RUNNING:
            raise Busy(self.trial_id)
        number = self._last_attempt() + 1
        try:
            handle = os.open(self._path(f"attempt.{number}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            raise Busy(self.trial_id) from None
        with os.fdopen(handle, "w") as file:
            json.dump({**_this_process(), "claimed": time.time()}, file)
        files.remove_leftovers(self.folder)
        return Attempt(self, number)

    def _last_attempt(self) -> int:
        numbers = (path.suffix[1:] for path in self.folder.glob("attempt.*"))
        return max((int(number) for number in numbers if number.isdigit()), default=0)

    def _path(self, name: str) -> Path:
        return self.folder / name


@dataclass
class Attempt:
    """The right to write into a run folder, until a newer attempt takes it.

    Every write first looks whether the claim of the next attempt exists, so that a process that was taken for dead and
    lives on stops before it can harm its successor.
    """

    run: Run
    number: int

    def __post_init__(self) -> None:
        """Remember when the attempt began."""
        self._began = time.time()
        self._beat = 0.0

    def check(self) -> None:
        """Raise Superseded if a newer attempt has claimed the trial."""
        if (self.run.folder / f"attempt.{self.number + 1}").exists():
            raise Superseded(f"attempt {self.number} of {self.run.trial_id}")

    def beat(
        self, step: int, steps: int, *, doing: str = "training", rate: float | None = None, force: bool = False
    ) -> None:
        """Say that the attempt lives and where it is; writes at most every few seconds.

        Args:
            step: updates done.
            steps: updates to do.
            doing: what is going on, for `status`.
            rate: updates a second.
            force: write now.
        """
        now = time.time()
        if force or now - self._beat >= HEARTBEAT_SECONDS:
            self._beat = now
            self._say(State.RUNNING, step=step, steps=steps, doing=doing, rate=rate)

    def write_records(self, records: list[dict[str, Any]]) -> None:
        """Put all records of the trial so far, in one step."""
        self.check()
        files.replace_lines(self.run._path("results.jsonl"), records)

    def write_env(self, env: dict[str, Any]) -> None:
        """Put what is known of the machine and the versions."""
        self.check()
        files.replace_json(self.run._path("env.json"), env)

    def finish(self, step: int, steps: int) -> None:
        """Mark the trial done; the checkpoint and an earlier attempt's error go."""
        self._say(State.DONE, step=step, steps=steps, seconds=round(time.time() - self._began, 3))
        for name in ("checkpoint.pt", "error.txt"):
            self.run._path(name).unlink(missing_ok=True)

    def fail(self, error: str, last_line: str) -> None:
        """Mark the trial failed, with its traceback and the line to show."""
        self.check()
        files.replace_text(self.run._path("error.txt"), error)
        self._say(State.FAILED, error=last_line)

    def release(self, step: int, steps: int) -> None:
        """Give the trial back unfinished, after a stop on request: it is pending and goes on at its checkpoint."""
        self._say(State.PENDING, step=step, steps=steps)

    def _say(self, state: State, **details: Any) -> None:
        self.check()
        status = {"state": state.value, "attempt": self.number, "heartbeat": time.time(), **_this_process(), **details}
        said = {key: value for key, value in status.items() if value is not None}
        files.replace_json(self.run._path("status.json"), said)


def find_runs(root: Path) -> list[Run]:
    """Find the run folders one and two levels below `root` (or `root` itself), in a stable order."""
    if (root / "spec.json").is_file():
        return [Run(root)]
    found: list[Run] = []
    for folder in _folders(root):
        inner = [folder] if (folder / "spec.json").is_file() else _folders(folder)
        found += [Run(each) for each in inner if each == folder or (each / "spec.json").is_file()]
    return found


def find_run(root: Path, trial: str) -> Run:
    """Find the one run below `root` whose trial id begins with `trial`.

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


def _folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": _birth(os.getpid())}


def _is_alive(status: dict[str, Any], now: float) -> bool:
    if status.get("host") != socket.gethostname():
        return now - float(status.get("heartbeat", 0)) < LOST_AFTER_SECONDS
    pid = int(status.get("pid", 0))
    return _exists(pid) and _birth(pid) == status.get("born")


def _exists(pid: int) -> bool:
    if pid <= 0:
        return False
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


def _birth(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot: tells a reused process number from the old process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
