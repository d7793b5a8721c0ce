"""The train loop: step, evaluate, checkpoint. The same for all methods, and for one trial or several.

Trials whose weights follow the same path (`bench.sharing`) are trained once, as a group: one makes the updates, and all
take from the shared weights what is theirs, such as an average. Each keeps its own folder, claim, checkpoint and
records, which are to the bit those of a trial that is trained by itself. A group is whatever trials are there: any of
them may leave at any moment, whoever is left goes on, and any of them may make the updates.
"""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from bench import files
from bench.algorithm import Minibatch
from bench.errors import RunFailed
from bench.evaluation import Evaluated
from bench.seeds import seed_hash
from bench.spec import Places, TrialSpec
from bench.store import Attempt, Superseded
from bench.train import Stopped, Trial, follower

CHECKPOINT_SECONDS = float(os.environ.get("CLIPBED_CHECKPOINT_SECONDS", "15"))
"""Checkpoints are written at most this often, and so seldom that they cost two per cent of the time."""
CHECKPOINT_SHARE = 0.02


class Parted(Exception):
    """Something went wrong while trials were trained together; each goes on by itself, and what fails there is its own."""


@dataclass
class Meter:
    """Means of what `update` logs, since the last record."""

    sums: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    def add(self, logs: dict[str, Any]) -> None:
        """Add one step's scalars; tensors are not read, so a device is not waited for."""
        self.count += 1
        for name, value in logs.items():
            doubled = value.double() if isinstance(value, torch.Tensor) else float(value)
            self.sums[name] = self.sums[name] + doubled if name in self.sums else doubled

    def flush(self) -> dict[str, float]:
        """Give the means and start anew."""
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


@dataclass(eq=False)
class Member:
    """A trial of a group, and how far it is.

    Attributes:
        attempt: the right to write into its folder.
        stop: says whether it was asked to stop.
        over: told once that it has left: None = it has all its records. May raise what makes it leave otherwise.
        trial: its parts, once they are built.
        step: updates done; before it takes part, those that its checkpoint holds.
        takes_part: the shared weights are where it is. One that is ahead waits until the others are there too.
        records: so far.
        meter: of the steps since the last record.
    """

    attempt: Attempt
    stop: Callable[[], bool]
    over: Callable[[Member, Exception | None], None]
    trial: Trial | None = None
    step: int = 0
    takes_part: bool = False
    records: list[dict[str, Any]] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)

    @property
    def built(self) -> Trial:
        """Its parts."""
        assert self.trial is not None
        return self.trial

    @property
    def steps(self) -> int:
        """Updates to do."""
        return self.attempt.run.spec.steps


def run(trial: Trial, attempt: Attempt, stop: Callable[[], bool]) -> list[dict[str, Any]]:
    """Run one built trial from its checkpoint, or from the start, to its end; give its records.

    Checkpoint, predictions and the records so far go to the run folder through `attempt`. A trial that was stopped or
    killed at any moment and run again gives the same records as one that was not.

    Raises:
        Stopped: `stop()` was true; a checkpoint has been written.
        Superseded: a newer attempt holds the trial.
    """
    ends: list[Exception | None] = []
    member = Member(attempt, stop, lambda member, error: ends.append(error), trial)
    Group([member]).run()
    if ends[0] is not None:
        raise ends[0]
    return member.records


class Group:
    """Trials that are trained as one; usually one trial.

    Whoever raises in what is its own leaves, and the others go on. In company nobody fails: what goes wrong may be the
    company's fault (memory, above all), so the trial leaves as `Parted`, to go on alone at its checkpoint.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        """Train `members`, whose `bench.sharing.path_of` is the same."""
        self.members = list(members)
        self._in_company = len(self.members) > 1
        self._turn: Member | None = None

    def build(self, make: Callable[[TrialSpec, Places], Trial]) -> None:
        """Build the trials: the first with `make`, as it would be alone; of the others what is their own."""
        run = self.members[0].attempt.run
        first = self._together(lambda: make(run.spec, run.places))
        if first is not None:
            for member in self.members:
                member.trial = first
            self._each(self._follow, self.members[1:])

    def run(self) -> None:
        """Run all that are built to their ends."""
        self._each(_look_for_checkpoint, self.members)
        while self.members:
            self._train()

    def pulse(self, doing: str) -> None:
        """Say for all that the process gets on with something long; whoever it is done for may have to stop.

        Raises:
            Stopped: that one was asked to, or, if it is done for all, all of them were.
            Superseded: newer attempts hold them.
        """
        self._each(lambda member: _beat(member, doing=doing), self.members)
        concerned = [self._turn] if self._turn else self.members
        if not set(concerned) & set(self.members):
            raise Superseded("all trials of this process")
        if all(member.stop() for member in concerned):
            raise Stopped

    @property
    def _active(self) -> list[Member]:
        return [member for member in self.members if member.takes_part]

    def _follow(self, member: Member) -> None:
        member.trial = follower(member.built, member.attempt.run.spec)

    def _join_in(self, member: Member) -> None:
        """Let a member take part from here on; the first brings the shared weights, which the others' are equal to."""
        if member.step:
            _restore(member, own=bool(self._active))
        member.takes_part = True

    def _train(self) -> None:
        """Train from the least step that a member has reached, until nobody takes part any more."""
        start = min(member.step for member in self.members)
        trial = next(member for member in self.members if member.step == start).built
        n_steps = trial.spec.steps
        clock = _Clock(start)
        drawn_from = trial.task if trial.algorithm.uses_labelled else replace(trial.task, train=())
        batches = trial.batches.steps(drawn_from, start, n_steps)
        for step in range(start, n_steps + 1):
            self._each(self._join_in, [each for each in self.members if each.step == step and not each.takes_part])
            self._evaluate(step)
            self._each(_stop_if_asked, self.members)
            if not self._active:
                return
            if clock.is_checkpoint_due(step):
                clock.begin_saving()
                self._each(_save, self._active)
                clock.saved()
            self._update(lambda: next(batches), clock)

    def _update(self, draw: Callable[[], tuple[list[Minibatch], list[Minibatch]]], clock: _Clock) -> None:
        """Make one update, by the first of those who take part."""
        if not self._active:
            return
        leader, *followers = self._active
        trial = leader.built

        def update() -> dict[str, Any]:
            labelled, unlabeled = draw()
            torch.manual_seed(seed_hash(trial.spec.run_seed, leader.step))
            return trial.algorithm.update(labelled, unlabeled or None)

        logs = self._together(update)
        if logs is None:
            return
        self._each(lambda member: member.built.algorithm.follow(), followers)
        for member in self._active:
            member.meter.add(logs)
            member.step += 1
        rate, is_first = clock.rate(leader.step), leader.step == clock.start + 1
        self._each(lambda member: _beat(member, rate=rate, force=is_first), self.members)

    def _evaluate(self, step: int) -> None:
        """Evaluate those who take part, where that is due; at the last step they leave."""
        active = self._active
        if not active or not _is_due(active[0].built, step):
            return
        shared = active[0].built.algorithm.shared_parts.values() if len(active) > 1 else ()
        towers = [part for part in shared if isinstance(part, nn.Module)]
        with active[0].built.evaluator.keeping(towers):
            self._each(self._evaluate_one, active)

    def _evaluate_one(self, member: Member) -> None:
        self._turn = member
        try:
            _evaluate(member)
        except Stopped:
            _save(member)
            raise
        finally:
            self._turn = None
        if member.step == member.steps:
            member.over(member, None)
            self._forget(member)

    def _each(self, act: Callable[[Member], None], members: Iterable[Member]) -> None:
        """Let every one of `members` do its own; who raises leaves."""
        for member in list(members):
            if member not in self.members:  # it left while another one's turn was
                continue
            try:
                act(member)
            except Exception as error:
                self._leave(member, error)

    def _together(self, act: Callable[[], Any]) -> Any:
        """Do what all have in common; if it raises, all leave, and the result is None."""
        try:
            return act()
        except Exception as error:
            for member in list(self.members):
                self._leave(member, error)
            return None

    def _leave(self, member: Member, error: Exception) -> None:
        if member not in self.members:
            return
        if self._in_company and not isinstance(error, Stopped | Superseded):
            parted = Parted(f"{type(error).__name__}: {error}")
            parted.__cause__ = error
            error = parted
        self._forget(member)
        member.over(member, error)

    def _forget(self, member: Member) -> None:
        """Let go of a member's own weights."""
        self.members.remove(member)
        member.trial = None


def _is_due(trial: Trial, step: int) -> bool:
    return step % trial.spec.evaluate_every == 0 or step == trial.spec.steps


def _evaluate(member: Member) -> None:
    """Add the records of the step that a member is at, unless it has them."""
    trial, attempt, step = member.built, member.attempt, member.step
    if any(record["step"] == step for record in member.records):
        return
    final = step == trial.spec.steps
    evaluated = list(trial.evaluator.evaluate(trial.algorithm, final=final))
    logs = member.meter.flush()
    if final:
        _write_predictions(trial, attempt, evaluated)
    member.records += [trial.record(each, step, logs) for each in evaluated]
    if not final:
        attempt.write_records(member.records)


def _write_predictions(trial: Trial, attempt: Attempt, evaluated: list[Evaluated]) -> None:
    """Store label, prediction and confidence of every sample, so that paired tests need no GPU later."""
    arrays: dict[str, Any] = {}
    for view in trial.task.evaluated:
        order = np.argsort(view.indices)
        arrays[f"{view.name}/index"] = view.indices[order].astype(np.uint32)
        arrays[f"{view.name}/label"] = view.labels[order].astype(np.uint16)
        for each in evaluated:
            label = each.label or "main"
            arrays[f"{view.name}/{label}/predicted"] = each.predicted[view.name][order].astype(np.uint16)
            arrays[f"{view.name}/{label}/confidence"] = each.confidence[view.name][order].astype(np.float16)
            if view.name in each.ood:  # in full: scores of bare cosines differ in the fourth digit
                arrays[f"{view.name}/{label}/ood_score"] = each.ood[view.name][order]
    attempt.check()
    files.replace(attempt.run.predictions_path, lambda file: np.savez_compressed(file, **arrays))


def _beat(member: Member, *, doing: str = "training", rate: float | None = None, force: bool = False) -> None:
    if not member.takes_part and member.step:
        doing, rate = "waiting for the trials that it is trained with", None
    member.attempt.beat(member.step, member.steps, doing=doing, rate=rate, force=force)


def _stop_if_asked(member: Member) -> None:
    if member.stop():
        if member.takes_part:
            _save(member)
        raise Stopped


def _save(member: Member) -> None:
    """Write the checkpoint of a member; with its records, so that it needs no file that another process may change."""
    member.attempt.check()
    state = {
        "step": member.step,
        "algorithm": member.built.algorithm.state_dict(),
        "meter": {
            "sums": {name: float(value) for name, value in member.meter.sums.items()},
            "count": member.meter.count,
        },
        "records": json.dumps(member.records),
    }
    files.replace(member.attempt.run.checkpoint_path, lambda file: torch.save(state, file))


def _look_for_checkpoint(member: Member) -> None:
    """Take note of how far the checkpoint is, if there is one that can be read; nothing of it is kept."""
    path = member.attempt.run.checkpoint_path
    if not path.is_file():
        return
    try:
        member.step = int(torch.load(path, weights_only=True, map_location="cpu", mmap=True)["step"])
    except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError):  # a damaged disk; it starts anew
        member.step = 0


def _restore(member: Member, *, own: bool) -> None:
    """Take the checkpoint of a member back; with `own`, without the weights that are shared, which are there already."""
    path, trial = member.attempt.run.checkpoint_path, member.built
    device = "cpu" if own else trial.backbone.device
    try:
        state = torch.load(path, weights_only=True, map_location=device, mmap=own)
        trial.algorithm.load_state_dict(state["algorithm"], own=own)
        member.records = json.loads(state["records"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise RunFailed(
            f"the checkpoint {path} does not fit this code ({type(error).__name__}: {error}); use the code that wrote "
            "it, or delete the file and run the trial again from its start"
        ) from error
    member.meter = Meter(dict(state["meter"]["sums"]), int(state["meter"]["count"]))


class _Clock:
    """Rate of training, and when the next checkpoints are worth their time."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.began = self.last_saved = time.monotonic()
        self.cost = 0.0

    def rate(self, step: int) -> float:
        return (step - self.start) / max(1e-9, time.monotonic() - self.began)

    def is_checkpoint_due(self, step: int) -> bool:
        wait = max(CHECKPOINT_SECONDS, self.cost / CHECKPOINT_SHARE)
        return step > self.start and time.monotonic() - self.last_saved >= wait

    def begin_saving(self) -> None:
        self.last_saved = time.monotonic()

    def saved(self) -> None:
        began, self.last_saved = self.last_saved, time.monotonic()
        self.cost = self.last_saved - began
