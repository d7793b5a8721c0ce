"""Run folders: what a trial leaves on disk, who may write there, and what state it is in.

`results/<sweep>/.places/` says where this machine finds data and weights (`bench.places`), `.planned/` which trials wait
without a folder (`bench.planned`). `results/<sweep>/<trial_id>/` holds

    spec.json        the TrialSpec, written once
    attempt.N        the claim of the N-th attempt: host, process, start; its last words where the disk is full
    status.json      state, step, rate, heartbeat of the latest attempt, and how earlier ones ended
    partial.jsonl    the records so far of an unfinished trial
    checkpoint.pt    model, optimizer, step and records of an unfinished trial
    results.jsonl    the records (one evaluation of one predictor a line); it appears when the trial is done
    predictions.npz  label and score of every test sample, at the last step
    env.json         versions, host, threads, times
    error.txt        traceback of a failed attempt
    log.txt          what attempts in a process of their own said on standard output and error; often absent
    cancelled        somebody asked that the trial be stopped

Only this module and `bench.runs` know these names, but for the three that `collect` reads (`bench.results_folder`). The
state is a pure function of the folder (and, for a process of this host or an earlier start of this Slurm job, of whether it
still lives): `bench.states`.

A process that was taken for dead may live on and write. What it can do then is bounded: `results.jsonl` only ever
appears whole, a checkpoint holds its own records, and the other files are for people; see docs/reliability.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import files, places, planned
from bench.errors import SpecError
from bench.process import this_process
from bench.spec import Places, TrialSpec, read_line, whole_text
from bench.states import Busy as Busy
from bench.states import State as State
from bench.states import Superseded as Superseded
from bench.states import judge, last_attempt, settled
from bench.ticking import every

HEARTBEAT_SECONDS = 10.0
"""How often a step that is done is noted at most."""
PULSE_SECONDS = 30.0
"""How often a process says that it lives, whatever it does."""
_CLAIMING_SECONDS = 10.0
"""How long a claim may be without a word: it is made first and written then."""
_CLAIM_BYTES = 4096
"""A claim takes a whole block, so that last words can be written over it where there is no room for a new file."""

SILENT = "killed"
"""How an attempt ended that did not say."""


class Run:
    """One run folder."""

    def __init__(self, folder: Path, planned: str | None = None) -> None:
        """Look at `folder`, which need not be there yet; nothing is read until it is asked for.

        Args:
            folder: where the trial is, or will be when it is begun.
            planned: its spec, if `bench.planned` has been asked for it.
        """
        self.folder = folder
        self._planned = planned

    @classmethod
    def create(cls, sweep: Path, spec: TrialSpec, found: Places) -> Run:
        """Make the folder of `spec` below `sweep`, or open the one that is there, and note where things are found."""
        places.remember(sweep, [(spec, found)])
        return cls(sweep / spec.trial_id).make(spec)

    def make(self, spec: TrialSpec) -> Run:
        """Make the folder and write `spec` into it, unless that was done."""
        self._make(spec.to_text())
        return self

    def begin(self) -> Run:
        """Make the folder of a trial that has only been planned, and not been deleted since."""
        if not self.has_spec and (line := self._noted()) is not None:
            self._make(whole_text(line))
        return self

    def _make(self, text: str) -> None:
        """Make the folder with its spec; others may be doing the same, or have been killed at any point of it."""
        path, line = f"{self.folder}/spec.json", text + "\n"
        try:
            os.mkdir(self.folder)
        except FileExistsError:
            pass
        except FileNotFoundError:
            os.makedirs(self.folder, exist_ok=True)
        files.create_text(path, line)
        if not self.has_spec:  # a kill or a loss of power has left an empty file
            with contextlib.suppress(FileNotFoundError):  # cleared away by one who has the spec, and the claim
                files.replace_text(Path(path), line, durable=False)

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
        if value is None and not self.has_spec and (line := self._planned or self._noted()) is not None:
            value = read_line(line)
        return value if isinstance(value, dict) else None

    def _noted(self) -> str | None:
        """Give the spec that was planned; None where none was, or the trial was deleted."""
        return planned.find(os.fspath(self.folder.parent), self.folder.name)

    @property
    def has_spec(self) -> bool:
        """Whether the folder is there with a spec in it: the trial was begun."""
        try:
            return self._path("spec.json").stat().st_size > 0
        except OSError:
            return False

    @property
    def places(self) -> Places:
        """Where this machine finds data and weights."""
        return places.recall(self.folder.parent, self.spec)

    def status(self) -> dict[str, Any]:
        """Give what the latest attempt said of itself; empty before the first."""
        value = files.read_json(self._path("status.json"))
        return value if isinstance(value, dict) else {}

    def state(self, now: float | None = None) -> State:
        """Derive the state from the folder.

        Args:
            now: Unix time to judge heartbeats by; the present by default.
        """
        return self.look(now)[0]

    def look(self, now: float | None = None) -> tuple[State, dict[str, Any]]:
        """Give the state and what the latest attempt said of itself, reading each file once."""
        said = self.status()
        if self.is_done:
            return State.DONE, said
        names = self._names()
        latest = last_attempt(names)
        if latest > int(said.get("attempt", 0)) or said.get("state") == State.RUNNING:
            state, said = judge(said, self._claim(latest, now or time.time()), latest, now or time.time())
        else:
            state = settled(said)
        stays = state in (State.RUNNING, State.FAILED)  # one that has failed is told so, asked to stop or not
        return (State.CANCELLED if "cancelled" in names and not stays else state), said

    def _claim(self, number: int, now: float) -> dict[str, Any]:
        """Read a claim; one that was made a moment ago and says nothing yet holds."""
        path = self._path(f"attempt.{number}")
        claim = files.read_json(path)
        if isinstance(claim, dict):
            return claim
        try:
            is_new = abs(now - path.stat().st_mtime) < _CLAIMING_SECONDS
        except OSError:
            is_new = False
        return {"claimed": now} if is_new else {}

    @property
    def is_done(self) -> bool:
        """Whether the trial is finished: its records are there, which appear whole or not at all."""
        try:
            return self._path("results.jsonl").stat().st_size > 0
        except OSError:
            return False

    def records(self) -> tuple[list[dict[str, Any]], int]:
        """Read the records, of an unfinished trial those so far; give them and the number of lines skipped as torn."""
        return files.read_lines(self._path("results.jsonl" if self.is_done else "partial.jsonl"))

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

    @property
    def tries(self) -> int:
        """How often a process has begun the trial; who only wrote down how another one ended is not counted."""
        names = [name for name in self._names() if name.startswith("attempt.")]
        claims = (files.read_json(self._path(name)) for name in names)
        return sum(not (isinstance(claim, dict) and claim.get("buries")) for claim in claims)

    @property
    def is_there(self) -> bool:
        """Whether there is such a trial, begun or planned: it may have been deleted while its task waited."""
        return self.has_spec or self._noted() is not None

    def cancel(self) -> None:
        """Ask that the trial be stopped where it runs, with a checkpoint, and not be started."""
        with contextlib.suppress(OSError):  # a full disk may have room for the mark, and not for the spec
            self.begin()
        self._path("cancelled").touch()

    def note_end(self, failure: str) -> None:
        """Note why the attempt before gave the trial back, which it could not know."""
        said = self.begin().look()[1]
        ends = dict(said.get("ends") or {})
        ends[failure] = ends.get(failure, 0) + 1
        files.replace_json(self._path("status.json"), {**said, "ends": ends, "failure": failure})

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked that the trial be stopped."""
        return self._path("cancelled").exists()

    def reset(self, *, keep_ends: bool = False) -> None:
        """Make the trial pending again after a failure, a cancellation or its end; a checkpoint stays.

        Args:
            keep_ends: for a retry, which nobody asked for: go on counting how its attempts end, so that retries are not
                endless, and leave it cancelled if it is.
        """
        self.begin()
        before = self.look()[1] if keep_ends else {}
        kept: dict[str, Any] = {name: before[name] for name in ("ends", "step", "steps", "began_at") if name in before}
        status = {**kept, "state": State.PENDING.value, "attempt": last_attempt(self._names())}
        if self.is_done:
            os.replace(self._path("results.jsonl"), self._path("partial.jsonl"))
        files.replace_json(self._path("status.json"), status)
        for name in ("error.txt",) if keep_ends else ("error.txt", "cancelled"):
            self._path(name).unlink(missing_ok=True)

    def claim(self, silent: str = SILENT, *, buries: bool = False) -> Attempt:
        """Claim the trial for this process.

        Args:
            silent: how the attempt before ended, if it did not say.
            buries: only to write that down.

        Raises:
            Busy: a live attempt holds it, or it is done.
        """
        self.begin()
        number = last_attempt(self._names()) + 1  # before the look: whoever claims in between takes it from us
        state, said = self.look()
        if state in (State.RUNNING, State.DONE):
            raise Busy(self.trial_id)
        claim = {**this_process(), "claimed": time.time(), **({"buries": True} if buries else {})}
        try:
            handle = os.open(self._path(f"attempt.{number}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            raise Busy(self.trial_id) from None
        try:
            with os.fdopen(handle, "w") as file:
                file.write(json.dumps(claim).ljust(_CLAIM_BYTES))
        except OSError:
            self._path(f"attempt.{number}").unlink()
            raise
        ends = dict(said.get("ends") or {})
        if said.get("state") == State.RUNNING or number - 1 > int(said.get("attempt", 0)):
            ends[silent] = ends.get(silent, 0) + 1
        files.remove_leftovers(self.folder, older=0)  # whoever still writes them has been superseded just now
        reached = int(said.get("step", 0))
        return Attempt(self, number, ends, int(said.get("began_at", 0)) if buries else reached, reached)

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self.folder))
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def _path(self, name: str) -> Path:
        return self.folder / name


@dataclass
class Attempt:
    """The right to write into a run folder, until a newer attempt takes it.

    Every write first looks whether the claim of the next attempt exists, so that a process that was taken for dead and
    lives on stops before it can harm its successor.

    Attributes:
        run: the run folder.
        number: 1 for the first attempt.
        ends: how often earlier attempts ended in which way.
        began_at: the step that the attempt before had reached; if this one buries it, the step that it began at itself.
        reached: the step that the trial had reached when it was claimed.
    """

    run: Run
    number: int
    ends: dict[str, int] = field(default_factory=dict)
    began_at: int = 0
    reached: int = 0

    def __post_init__(self) -> None:
        """Remember when the attempt began."""
        self._began = time.time()
        self._beat = 0.0
        self._said: dict[str, Any] = {}
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise Superseded if a newer attempt has claimed the trial."""
        if (self.run.folder / f"attempt.{self.number + 1}").exists():
            raise Superseded(f"attempt {self.number} of {self.run.trial_id}")

    def beat(
        self, step: int, steps: int, *, doing: str = "training", rate: float | None = None, force: bool = False
    ) -> None:
        """Say that the attempt gets on and where it is; writes at most every few seconds.

        Args:
            step: updates done.
            steps: updates to do.
            doing: what is going on, for `status`.
            rate: updates a second.
            force: write now.
        """
        now = time.time()
        if force or now - self._beat >= HEARTBEAT_SECONDS:
            self._said = {"step": step, "steps": steps, "doing": doing, "rate": rate, "moved": now}
            self._say(State.RUNNING, durable=False, **self._said)

    def pulse(self) -> AbstractContextManager[None]:
        """Say now and then that this process lives, while a block does what takes long without a word."""
        return every(PULSE_SECONDS / 3, self._speak)

    def _speak(self) -> None:
        if time.time() - self._beat >= PULSE_SECONDS:
            with contextlib.suppress(Superseded, OSError):  # the main thread meets the same and knows what to do
                self._say(State.RUNNING, durable=False, **self._said)

    def write_records(self, records: list[dict[str, Any]]) -> None:
        """Put the records of the unfinished trial so far, for people to look at."""
        self.check()
        files.replace_lines(self.run._path("partial.jsonl"), records)

    def write_env(self, env: dict[str, Any]) -> None:
        """Put what is known of the machine and the versions."""
        self.check()
        files.replace_json(self.run._path("env.json"), env)

    def finish(self, records: list[dict[str, Any]], step: int, steps: int) -> None:
        """Put all records, which makes the trial done; what only an unfinished one needs goes."""
        self.check()
        files.replace_lines(self.run._path("results.jsonl"), records)
        self._say(State.DONE, step=step, steps=steps, seconds=round(time.time() - self._began, 3))
        for name in ("checkpoint.pt", "partial.jsonl", "error.txt", "cancelled"):
            self.run._path(name).unlink(missing_ok=True)
        files.remove_leftovers(self.run.folder, older=0)

    def fail(self, error: str, last_line: str, failure: str = "code", *, counted: bool = False) -> None:
        """Mark the trial failed. Where there is no room for that on the disk, the claim is written over with it.

        Args:
            error: traceback, for `error.txt`.
            last_line: the line to show.
            failure: kind of failure.
            counted: the failure was an earlier attempt's, and is among `ends`.
        """
        if not counted:
            self._count(failure)
        details: dict[str, Any] = {"error": last_line, "failure": failure, **self._where()}
        try:
            self.check()
            files.replace_text(self.run._path("error.txt"), error)
            self._say(State.FAILED, **details)
        except OSError:
            self._last_words(State.FAILED, details)

    def release(self, step: int, steps: int, failure: str | None = None) -> None:
        """Give the trial back unfinished: it is pending and goes on at its checkpoint.

        Args:
            step: updates done.
            steps: updates to do.
            failure: why, if not because somebody asked for it; counted.
        """
        if failure:
            self._count(failure)
        details: dict[str, Any] = {"step": step, "steps": steps, "failure": failure}
        try:
            self._say(State.PENDING, **details)
        except OSError:
            self._last_words(State.PENDING, details)

    def _count(self, failure: str) -> None:
        self.ends[failure] = self.ends.get(failure, 0) + 1

    def _where(self) -> dict[str, Any]:
        return {"step": self._said.get("step", self.reached), "steps": self._said.get("steps")}

    def _say(self, state: State, *, durable: bool = True, **details: Any) -> None:
        with self._lock:
            self.check()
            now = time.time()
            path = self.run._path("status.json")
            files.replace_json(path, self._status(state, heartbeat=now, **details), durable=durable)
            self._beat = now

    def _status(self, state: State, **details: Any) -> dict[str, Any]:
        ours = {"attempt": self.number, "ends": self.ends, "began_at": self.began_at}
        status = {"state": state.value, **ours, **this_process(), **details}
        return {key: value for key, value in status.items() if value not in (None, {})}

    def _last_words(self, state: State, details: Mapping[str, Any]) -> None:
        """Write over our own claim, in its own block: that needs no room."""
        text = json.dumps(self._status(state, heartbeat=time.time(), **details))
        if len(text) > _CLAIM_BYTES:  # the error of a library may be long
            shorter = str(details.get("error", ""))[: _CLAIM_BYTES // 8]  # a character may take six bytes of JSON
            text = json.dumps(self._status(state, heartbeat=time.time(), **{**details, "error": shorter}))
        with contextlib.suppress(OSError), self.run._path(f"attempt.{self.number}").open("r+b") as file:
            file.write(text.encode()[:_CLAIM_BYTES].ljust(_CLAIM_BYTES))
            file.flush()
            os.fsync(file.fileno())
