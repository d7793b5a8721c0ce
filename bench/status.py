"""What the run folders of a sweep say, put together: counts, a table, what runs, what failed, how long it may take.

Reads through `bench.store` only and prints nothing. Estimates are for planning; nothing depends on them.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.dataset import find_dataset
from bench.errors import BenchError
from bench.measures import DEFAULT_PROTOCOL, label, words
from bench.process import is_of_array
from bench.runs import find_runs
from bench.slurm import Queued
from bench.store import Run, State

SCHEMA = 2
"""Raised when the meaning of a key of `as_json` changes."""

UNFINISHED = (State.PENDING, State.LOST, State.RUNNING)

QUEUED = "queued"
SHOWN = (State.PENDING.value, QUEUED, *(state.value for state in State if state is not State.PENDING))
"""What a trial may be shown as, in the order of tables."""


@dataclass(frozen=True)
class TrialStatus:
    """One trial at one moment.

    Attributes:
        run: its folder.
        state: its state.
        spec: the stored spec as it is, of this version or another; empty if it cannot be read.
        said: what the latest attempt said of itself.
        queued: its task in Slurm's queue, if it is in one.
    """

    run: Run
    state: State
    spec: Mapping[str, Any]
    said: Mapping[str, Any]
    queued: Queued | None = None

    @classmethod
    def of(cls, run: Run, spec: Mapping[str, Any] | None = None) -> TrialStatus:
        """Read a run folder; `spec` saves reading what never changes."""
        state, said = run.look()
        return cls(run, state, spec if spec is not None else run.spec_json() or {}, said)

    def refreshed(self) -> TrialStatus:
        """Look again."""
        return TrialStatus.of(self.run, self.spec)

    @property
    def shown(self) -> str:
        """The state, or "queued" for a trial that waits in Slurm's queue or for its turn within a task."""
        over = (State.DONE, State.FAILED, State.CANCELLED)
        if self.queued is None or self.state in over or (self.state is State.RUNNING and not self.queued.waits):
            return self.state.value
        return QUEUED

    @property
    def reason(self) -> str:
        """Why a queued trial waits."""
        if self.queued is None:
            return ""
        return self.queued.reason if self.queued.waits else f"its turn in task {self.queued.job}"

    @property
    def node(self) -> str:
        """Node or host that it runs on, or ran on last."""
        return str((self.said.get("slurm") or {}).get("node") or self.said.get("host") or "")

    @property
    def ends(self) -> Mapping[str, int]:
        """How often earlier attempts ended in which way."""
        return self.said.get("ends") or {}

    @property
    def sweep(self) -> str:
        """Name of the sweep's folder."""
        return self.run.folder.parent.name

    @property
    def algorithm(self) -> str:
        """Registered method."""
        return str(self.spec.get("algorithm", "?"))

    @property
    def dataset(self) -> str:
        """Registered data set."""
        return str(self.spec.get("dataset", "?"))

    @property
    def protocol(self) -> str:
        """Protocol, with options that are not at their defaults in brackets."""
        return label(self.spec) if self.spec else "?"

    @property
    def kind(self) -> tuple[Any, ...]:
        """What makes trials take about the same time."""
        return kind_of(self.spec)

    @property
    def held_out(self) -> str:
        """Short names of the held-out domains, or their indices where names are not known without the files."""
        named = "+".join(domain_name(self.dataset, index) for index in self.spec.get("test_domains", ()))
        return named or ("none" if self.spec else "?")

    @property
    def label(self) -> str:
        """A few words that tell the trial from the others of its sweep."""
        seeds = f"trial {self.spec.get('trial_seed', '?')}"
        if self.spec.get("hparams_seed"):
            seeds += f", hparams {self.spec['hparams_seed']}"
        how = f"{words(self.protocol)}, " if self.protocol != DEFAULT_PROTOCOL else ""
        return f"{self.algorithm} on {self.dataset}, {how}held out {self.held_out}, {seeds}"

    @property
    def step(self) -> int:
        """Updates done."""
        return int(self.said.get("step", 0))

    @property
    def steps(self) -> int:
        """Updates to do."""
        return int(self.spec.get("steps", 0))

    @property
    def rate(self) -> float | None:
        """Updates a second; None where nobody said."""
        return self.said.get("rate") or None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until a running trial's last update; None where its rate is not known."""
        return (self.steps - self.step) / self.rate if self.rate else None

    @property
    def error_line(self) -> str:
        """The last line of a failed attempt's error."""
        return str(self.said.get("error") or "no error was written")


def read_status(root: Path) -> list[TrialStatus]:
    """Read all trials in `root`, or one or two levels below it."""
    return [TrialStatus.of(run) for run in find_runs(root)]


def with_queue(trials: Iterable[TrialStatus], queue: Mapping[Path, Queued] | None) -> list[TrialStatus]:
    """Add what Slurm's queue says of trials; None where it could not be asked.

    A trial whose heartbeat is young but whose job Slurm does not know any more is lost.
    """
    if queue is None:
        return list(trials)
    return [_with_task(trial, queue.get(trial.run.folder)) for trial in trials]


def _with_task(trial: TrialStatus, task: Queued | None) -> TrialStatus:
    gone = task is None and trial.state is State.RUNNING and is_of_array(trial.said)
    return dataclasses.replace(trial, queued=task, state=State.LOST if gone else trial.state)


def kind_of(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give what makes trials take about the same time."""
    return tuple(spec.get(name) for name in ("algorithm", "dataset", "backbone", "steps"))


def domain_name(dataset: str, index: int) -> str:
    """Give the short name of a domain if the data set's declaration has it, else its index."""
    try:
        names = find_dataset(dataset).domains
    except BenchError:
        names = ()
    return names[index] if index < len(names) else str(index)


def counts(trials: Iterable[TrialStatus]) -> dict[str, int]:
    """Count the trials by state; every state is there."""
    numbers = dict.fromkeys(SHOWN, 0)
    for trial in trials:
        numbers[trial.shown] += 1
    return numbers


def cells(trials: Iterable[TrialStatus]) -> dict[tuple[str, str, str], dict[str, int]]:
    """Count by (algorithm, data set, protocol), sorted."""
    grouped: dict[tuple[str, str, str], list[TrialStatus]] = defaultdict(list)
    for trial in trials:
        grouped[trial.algorithm, trial.dataset, trial.protocol].append(trial)
    return {key: counts(grouped[key]) for key in sorted(grouped)}


def typical_seconds(trials: Iterable[TrialStatus]) -> dict[tuple[Any, ...], float]:
    """Give the median duration of a trial by kind: of finished trials, else from the rate of running ones."""
    finished: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    running: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for trial in trials:
        if trial.state is State.DONE and "seconds" in trial.said:
            finished[trial.kind].append(float(trial.said["seconds"]))
        elif trial.state is State.RUNNING and trial.rate:
            running[trial.kind].append(trial.steps / trial.rate)
    return {kind: statistics.median(values) for kind, values in {**running, **finished}.items()}


def seconds_of(kind: tuple[Any, ...], typical: Mapping[tuple[Any, ...], float]) -> tuple[float | None, bool]:
    """Estimate how long a trial of `kind` takes, and say whether that is rough.

    Where no trial of the kind is known, others of its method and backbone tell the time of an update: on other data sets,
    or of other numbers of updates. How many images are evaluated is left out of that, hence rough.

    Args:
        kind: of `kind_of`.
        typical: of `typical_seconds`.
    """
    if kind in typical:
        return typical[kind], False
    algorithm, _, backbone, steps = kind
    alike = [(other, seconds) for other, seconds in typical.items() if (other[0], other[2]) == (algorithm, backbone)]
    if not alike:
        return None, True
    each = [seconds * steps / other[3] if steps and other[3] else seconds for other, seconds in alike]
    return statistics.median(each), True


def work_left(trials: Sequence[TrialStatus], unfinished: Sequence[State] = UNFINISHED) -> float | None:
    """Estimate the seconds of work left, as if one trial ran at a time; None where nothing is known yet.

    A trial of whose method nothing is known is taken to last as long as the others do.
    """
    typical = typical_seconds(trials)
    if not typical:
        return None
    usual = statistics.mean(typical.values())
    total = 0.0
    for trial in trials:
        if trial.state in unfinished:
            whole = seconds_of(trial.kind, typical)[0]
            done = trial.step / trial.steps if trial.steps else 0.0
            exact = trial.seconds_left if trial.state is State.RUNNING else None
            total += exact if exact is not None else (usual if whole is None else whole) * (1 - min(1.0, done))
    return total


def as_json(root: Path, trials: Sequence[TrialStatus]) -> dict[str, Any]:
    """Give the status as plain values for scripts.

    Keys: `schema`; `root`; `total`; `counts` by state; `cells`, a list of {algorithm, dataset, protocol, and a count by
    state}; `running`, `queued` and `failed`, lists of {trial, sweep, folder, algorithm, dataset, test_domains, trial_seed,
    hparams_seed, ends} with {step, steps, rate, eta_seconds, doing, host, node, pid, heartbeat}, {reason, job} and
    {error, failure, error_file}; `lost` with {node, heartbeat}; `eta_seconds`, null if not known.
    """
    running = [trial for trial in trials if trial.shown == State.RUNNING]
    left = work_left(trials)
    return {
        "schema": SCHEMA,
        "root": str(root),
        "total": len(trials),
        "counts": counts(trials),
        "cells": [
            {"algorithm": algorithm, "dataset": dataset, "protocol": protocol, **numbers}
            for (algorithm, dataset, protocol), numbers in cells(trials).items()
        ],
        "running": [{**_identity(trial), **_progress(trial)} for trial in running],
        "queued": [
            {**_identity(trial), "reason": trial.reason, "job": trial.queued.job}
            for trial in trials
            if trial.shown == QUEUED and trial.queued
        ],
        "failed": [
            {
                **_identity(trial),
                "error": trial.error_line,
                "failure": trial.said.get("failure"),
                "error_file": str(trial.run.error_path),
            }
            for trial in trials
            if trial.state is State.FAILED
        ],
        "lost": [
            {**_identity(trial), "node": trial.node, "heartbeat": trial.said.get("heartbeat")}
            for trial in trials
            if trial.shown == State.LOST
        ],
        "eta_seconds": None if left is None else round(left / max(1, len(running)), 1),
    }


def _identity(trial: TrialStatus) -> dict[str, Any]:
    names = ("algorithm", "dataset", "test_domains", "trial_seed", "hparams_seed")
    return {
        "trial": trial.run.trial_id,
        "sweep": trial.sweep,
        "folder": str(trial.run.folder),
        **{name: trial.spec.get(name) for name in names},
        "ends": dict(trial.ends),
    }


def _progress(trial: TrialStatus) -> dict[str, Any]:
    left = trial.seconds_left
    return {
        "step": trial.step,
        "steps": trial.steps,
        "rate": trial.rate,
        "eta_seconds": None if left is None else round(left, 1),
        "node": trial.node,
        **{name: trial.said.get(name) for name in ("doing", "host", "pid", "heartbeat")},
    }
