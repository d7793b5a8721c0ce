"""Who holds a trial: how a process names itself in a run folder, and how others tell whether it still lives."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOST_AFTER_SECONDS = 180.0
"""A process of another host counts as lost when its heartbeat is older than this."""

WARNING = signal.SIGUSR2
"""What Slurm sends some time before it ends a job, as the launcher asks it to."""


def this_process() -> dict[str, Any]:
    """Name this process: host, number, start, and the Slurm job that it belongs to."""
    named: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "born": _birth(os.getpid())}
    job = slurm_job()
    return {**named, "slurm": job} if job else named


def slurm_job() -> dict[str, Any] | None:
    """Give {job, restart, node} of the Slurm job that this process is part of: "12_3" is task 3 of array 12."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    name = f"{job}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if job else os.environ.get("SLURM_JOB_ID")
    if not name:
        return None
    restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    return {"job": name, "restart": restart, "node": os.environ.get("SLURMD_NODENAME", "")}


def is_of_array(said: Mapping[str, Any]) -> bool:
    """Say whether `said` was written in a task of a job array, which is how launches send trials to Slurm."""
    return "_" in str((said.get("slurm") or {}).get("job", ""))


def is_replaced(said: Mapping[str, Any]) -> bool:
    """Say whether `said` was written by a later start of our own Slurm job: we have been given up."""
    ours, theirs = slurm_job(), said.get("slurm") or {}
    return ours is not None and ours["job"] == theirs.get("job") and int(theirs.get("restart", 0)) > ours["restart"]


def is_alive(said: Mapping[str, Any], now: float) -> bool:
    """Judge whether the process that wrote `said` still lives, as far as this one may tell.

    Slurm starts a job again only after it has given up its earlier process, so a process of an earlier start of our own
    job is dead to us, even if it runs on behind a network that has failed. A process of this host can be looked at; one
    of another host is judged by its heartbeat.

    Args:
        said: {host, pid, born, slurm, heartbeat} as it wrote them.
        now: Unix time.
    """
    ours, theirs = slurm_job(), said.get("slurm") or {}
    if ours and ours["job"] == theirs.get("job") and int(theirs.get("restart", 0)) < ours["restart"]:
        return False
    if said.get("host") != socket.gethostname():
        return now - float(said.get("heartbeat", 0)) < LOST_AFTER_SECONDS
    pid = int(said.get("pid", 0))
    return _exists(pid) and _birth(pid) == said.get("born")


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
