"""What this machine offers, and how trials share it: cores, memory, GPUs, threads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GIGABYTES_A_JOB = 3.0
"""Memory set aside for one trial on the CPU: fine-tuning ViT-B/16 takes about as much."""
MOST_JOBS = 8

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Layout:
    """How the machine is shared.

    Attributes:
        jobs: trials at a time.
        threads: CPU threads a trial. It depends on the machine and the options, never on how many trials are left,
            since the last digits of sums may depend on it.
        gpus: values of CUDA_VISIBLE_DEVICES, one a GPU; empty on the CPU.
    """

    jobs: int
    threads: int
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say it in a few words."""
        where = f", on {len(self.gpus)} GPU{'s' if len(self.gpus) > 1 else ''}" if self.gpus else ""
        return f"{self.jobs} at a time, {self.threads} thread{'s' if self.threads > 1 else ''} each{where}"


def usable_cores() -> int:
    """Count the CPU cores that this process may use, container limits included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _first_line("/sys/fs/cgroup/cpu.max").partition(" ")
    return max(1, min(cores, int(quota) // int(period))) if quota.isdigit() and period.isdigit() else cores


def usable_gigabytes() -> float:
    """Give the memory of this machine, or of this container, in gigabytes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _first_line("/sys/fs/cgroup/memory.max")
    return (min(memory, int(limit)) if limit.isdigit() else memory) / 1e9


def cpu_jobs() -> int:
    """Give the default number of trials at a time on the CPU."""
    return max(1, min(usable_cores(), MOST_JOBS, int(usable_gigabytes() / GIGABYTES_A_JOB)))


def visible_gpus(count: int) -> tuple[str, ...]:
    """Name `count` GPUs as CUDA_VISIBLE_DEVICES does, within the ones that it allows this process."""
    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple((allowed or [str(index) for index in range(count)])[:count])


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def thread_variables(count: int) -> Iterator[None]:
    """Set the numbers of threads that libraries read when they are loaded, for processes started in the block."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
