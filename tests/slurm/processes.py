"""Which processes belong to a Slurm test cluster, and their end; run as a script, the watchdog of a cluster."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "CLIPBED_TEST_CLUSTER"
"""Environment variable that the processes of a cluster carry: the cluster's folder."""
NODES = ("n1", "n2", "n3")


@dataclass(frozen=True)
class Process:
    """A process of a cluster.

    Attributes:
        environment: what it was started with; empty for a slurmstepd, which writes its title over it.
        node: for a slurmstepd, the node it belongs to.
    """

    pid: int
    environment: dict[str, str]
    node: str = ""

    @property
    def is_slurmstepd(self) -> bool:
        """Whether it is the daemon that watches over a step."""
        return bool(self.node)

    @property
    def is_task(self) -> bool:
        """Whether srun started it in a step, rather than the batch script."""
        return "SLURM_STEP_ID" in self.environment


def processes(folder: Path) -> list[Process]:
    """Give the living processes of the cluster in `folder`."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if (one := _look_at(place, folder)) is not None:
                    found.append(one)
    return found


def _look_at(place: Path, folder: Path) -> Process | None:
    pid = int(place.name)
    if "slurmstepd" in os.readlink(place / "exe"):  # its environment is gone, but it holds its node's log open
        logs = {str(folder / f"slurmd-{node}.log"): node for node in NODES}
        for handle in (place / "fd").iterdir():
            if (node := logs.get(os.readlink(handle))) is not None:
                return Process(pid, {}, node)
        return None
    raw = (place / "environ").read_bytes().decode(errors="replace")
    environment = dict(entry.split("=", 1) for entry in raw.split("\0") if "=" in entry)
    return Process(pid, environment) if environment.get(MARK) == str(folder) else None


def kill_all(folder: Path, spare: Sequence[int]) -> None:
    """Kill the processes of the cluster in `folder`, but those in `spare`; tries for 10 s."""
    for _ in itertools.repeat(None, 100):
        left = [process.pid for process in processes(folder) if process.pid not in spare]
        if not left:
            return
        kill(left)
        time.sleep(0.1)


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL to processes, gone ones among them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _watch(folder: Path, parent: int) -> None:
    """End the cluster once the process that started this one is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    kill_all(folder, spare=[os.getpid()])
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]), int(sys.argv[2]))
