"""What the processes of a local pool do: be a training, or compute one thing and say it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.launch import RunTrial, Say
from bench.places import mark_prepared
from bench.process import WARNING
from bench.spec import Places, TrialSpec
from bench.store import Run

DEAF = (signal.SIGINT, signal.SIGTERM, WARNING)
"""Signals that a terminal or Slurm sends to every process of a pool, and that only the first one minds."""


def trial_in_child(folder: str, *company: str, threads: int | None, device: str | None) -> str:
    """Run trials in a process that must not outlive the one it came from."""
    from bench.job import run_trial

    return run_trial(folder, *company, threads=threads, device=device, parent=os.getppid())


def work(trial: RunTrial, folders: list[str], threads: int, device: str | None, gpu: str | None, log: str) -> None:
    """Be the process of one training."""
    _join_pool()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before CUDA starts, which is at its first use
    Run(Path(folders[0])).begin()  # here, since a disk without room for a folder must not end the pool
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(handle, stream)
    trial(*folders, threads=threads, device=device)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fstat(handle).st_size == 0:
        os.unlink(log)


def answer(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Be a process that computes one thing; a bug in it is told and forgotten, since the trials will meet it again."""
    _join_pool()
    try:
        pipe.send(("gave", function(*arguments, lambda text: pipe.send(("said", text)))))
    except BenchError as error:
        pipe.send(("raised", error))
    except Exception as error:
        pipe.send(("said", f"{function.__name__}: {type(error).__name__}: {error}\n{traceback.format_exc()}"))
        pipe.send(("gave", None))


def _join_pool() -> None:
    """Leave Ctrl-C and Slurm's warning to the parent, and stop when it says so or is gone."""
    for each in DEAF:
        signal.signal(each, signal.SIG_DFL if each == signal.SIGTERM else signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


def count_gpus(say: Say) -> int:
    """Count the GPUs that torch finds."""
    import torch

    return torch.cuda.device_count()


def prepare(spec: TrialSpec, places: Places, say: Say) -> None:
    """Read and decode what a trial needs, and note that it was done."""
    from bench import job

    job.prepare(spec, places, say)
    mark_prepared(spec, places)
