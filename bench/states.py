"""What state a trial is in, judged from what its run folder says, and who may not have it; the files are `bench.store`'s."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from bench.process import is_alive


class State(StrEnum):
    """What a run folder says of its trial."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"


class Busy(Exception):
    """Another live attempt holds the trial."""


class Superseded(Exception):
    """A newer attempt has claimed the trial; this one must stop and write nothing more."""


def judge(said: dict[str, Any], claim: dict[str, Any], latest: int, now: float) -> tuple[State, dict[str, Any]]:
    """Judge an attempt that has claimed the trial and did not say how it ended, unless in its claim.

    Args:
        said: status.json.
        claim: the newest claim.
        latest: its number.
        now: Unix time.
    """
    if "state" in claim:  # last words
        return State(claim["state"]), claim
    if latest > int(said.get("attempt", 0)) and is_alive({**claim, "heartbeat": claim.get("claimed", 0)}, now):
        return State.RUNNING, {**said, **claim, "attempt": latest, "step": said.get("step", 0)}
    if said.get("state") != State.RUNNING:
        return settled(said), said
    return (State.RUNNING if is_alive(said, now) else State.LOST), said


def settled(said: Mapping[str, Any]) -> State:
    """Give the state of a trial that nobody runs and that has no records; one that says it is done has lost them."""
    return {"done": State.LOST, "failed": State.FAILED}.get(str(said.get("state")), State.PENDING)


def last_attempt(names: Iterable[str]) -> int:
    """Give the number of the newest claim among the names of a folder's files; 0 where there is none."""
    numbers = (name.removeprefix("attempt.") for name in names if name.startswith("attempt."))
    return max((int(number) for number in numbers if number.isdigit()), default=0)
