"""What Slurm says of itself and its queue, and the few things it is told, by its own commands.

Every call is bounded in time and works without accounting. Submission is `bench.slurm_launcher`'s.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bench.errors import BenchError

SECONDS = 30.0
"""How long a command may take; a controller under load answers late."""

_FIELDS = ("%j", "%F", "%K", "%T", "%r", "%N")
_UNLIMITED = 10**9


class SlurmError(BenchError):
    """Slurm refused something, or did not answer."""


@dataclass(frozen=True)
class Queued:
    """One array task in the queue.

    Attributes:
        name: name of its array.
        index: index within the array.
        job: how Slurm calls it, "12_3".
        state: Slurm's word: PENDING, RUNNING, COMPLETING, …
        reason: why it waits: Resources, Priority, QOSMaxJobsPerUserLimit, …
        node: where it runs.
    """

    name: str
    index: int
    job: str
    state: str
    reason: str
    node: str

    @property
    def waits(self) -> bool:
        """Whether it has not begun, or waits to begin again."""
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING")


@dataclass(frozen=True)
class Limits:
    """What one submission must keep to.

    Attributes:
        array: largest number of tasks in an array.
        tasks: tasks that may still be submitted by this user; huge where there is no limit.
    """

    array: int
    tasks: int


def is_there() -> bool:
    """Say whether a controller answers; commands alone are no cluster."""
    if not all(shutil.which(command) for command in ("sbatch", "squeue", "scontrol")):
        return False
    try:
        return re.search(r"\b(is|are) \S*\bUP\b", _run("scontrol", "ping")) is not None
    except SlurmError:
        return False


def inside_job() -> bool:
    """Say whether this process is part of a Slurm job already."""
    return "SLURM_JOB_ID" in os.environ


def cluster_settings() -> dict[str, str]:
    """Give what `scontrol show config` says."""
    lines = (line.partition("=") for line in _run("scontrol", "show", "config").splitlines())
    return {name.strip(): value.strip() for name, sign, value in lines if sign}


def has_gpus() -> bool:
    """Say whether any node offers GPUs."""
    return "gpu" in _run("sinfo", "-h", "-o", "%G")


def limits(qos: str | None = None) -> Limits:
    """Ask for the limits on arrays and on submitted jobs, those of `qos` included."""
    settings = cluster_settings()
    # indices of tasks must be below MaxArraySize; a controller holds MaxJobCount jobs of all users, so leave it half
    array = max(1, int(settings.get("MaxArraySize", "1001")) - 1)
    room = int(settings.get("MaxJobCount", "10000")) // 2
    if "slurmdbd" in settings.get("AccountingStorageType", ""):
        room = min(room, _submit_limit(qos))
    return Limits(array, max(1, room - len(_lines("squeue", "--all", "-h", "-r", "-u", getpass.getuser(), "-o", "%i"))))


def _submit_limit(qos: str | None) -> int:
    """Give the smallest MaxSubmitJobs of this user's associations and of the QOS; none is no limit."""
    asked = [("show", "assoc", f"user={getpass.getuser()}", "format=MaxSubmitJobs", "-nP")]
    if qos:
        asked.append(("show", "qos", qos, "format=MaxSubmitJobsPerUser", "-nP"))
    found: list[int] = []
    for words in asked:
        try:
            found += [int(line) for line in _lines("sacctmgr", *words) if line.isdigit()]
        except SlurmError:  # accounting that does not answer gives no limit that we could know
            continue
    return min(found, default=_UNLIMITED)


def queue(names: Collection[str]) -> dict[tuple[str, int], Queued]:
    """Give the queued and running tasks of the arrays called `names`, in one call; whoever submitted them.

    Raises:
        SlurmError: the controller does not answer.
    """
    if not names:
        return {}
    lines = _lines("squeue", "--all", "-h", "-r", "--name", ",".join(sorted(names)), "-o", "|".join(_FIELDS))
    found = {}
    for line in lines:
        name, array, index, state, reason, node = (line.split("|") + [""] * len(_FIELDS))[: len(_FIELDS)]
        if index.isdigit():
            found[name, int(index)] = Queued(name, int(index), f"{array}_{index}", state, reason, node)
    return found


def cancel(jobs: Sequence[str]) -> None:
    """End jobs; those that are over already are no error."""
    for start in range(0, len(jobs), 500):
        _run("scancel", "--quiet", *jobs[start : start + 500])


def requeue(job: str) -> None:
    """Put a job back into the queue; called from within the job, it ends it.

    Raises:
        SlurmError: the job may not be requeued.
    """
    _run("scontrol", "requeue", job)


def end_time(job: str) -> float | None:
    """Give the Unix time at which a job's time limit ends it; None where it has none, or Slurm does not say."""
    try:
        said = _run("scontrol", "show", "job", job, environment={"SLURM_TIME_FORMAT": "%s"})
    except SlurmError:
        return None
    found = re.search(r"\bEndTime=(\d+)", said)
    return float(found[1]) if found else None


def node_failed_since(node: str, moment: float) -> bool:
    """Say whether a node is down, or its Slurm daemon was started after Unix time `moment`."""
    if not node:
        return False
    try:
        said = _run("scontrol", "show", "node", node, environment={"SLURM_TIME_FORMAT": "%s"})
    except SlurmError:
        return False
    state = re.search(r"\bState=(\S+)", said)
    starts = re.findall(r"\b(?:BootTime|SlurmdStartTime)=(\d+)", said)
    return bool(state and "DOWN" in state[1]) or any(int(start) > moment for start in starts)


def _lines(*command: str) -> list[str]:
    return [line.strip() for line in _run(*command).splitlines() if line.strip()]


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    # what users set for their own looks at the queue (SQUEUE_STATES, SQUEUE_USERS, …) would hide tasks from us
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, env={**ours, **(environment or {})}
        )
    except FileNotFoundError:
        raise SlurmError(f"there is no {command[0]} here: use --launcher local, or go to a login node") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"`{' '.join(command[:3])}` did not answer within {SECONDS:.0f} s; try again later") from None
    if done.returncode:
        raise SlurmError(f"`{' '.join(command[:3])}` failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout
