"""`run_trial`: the one function that a launcher calls, in this process or another one. Idempotent."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from bench import train
from bench.errors import BenchError
from bench.failures import of_exception
from bench.images import ImageStore
from bench.models import load_backbone
from bench.process import WARNING
from bench.registry import algorithms, protocols
from bench.spec import Places, TrialSpec
from bench.store import Attempt, Busy, Run, State, Superseded

LOOK_SECONDS = 5.0
"""How often a running trial looks whether somebody cancelled it."""


def run_trial(folder: str, *, threads: int | None = None, device: str | None = None, parent: int | None = None) -> str:
    """Run the trial in `folder` to its end, from its checkpoint where there is one.

    A failure of the trial raises nothing: it is written into the folder.

    Args:
        folder: the run folder.
        threads: threads of torch on the CPU; torch's default if None.
        device: torch's name of a device; a GPU where there is one if None.
        parent: process that must live on; when this process gets another parent the trial stops at its next step.

    Returns:
        The state the trial is left in: "done", "failed", "pending" (stopped on request, has a checkpoint), "cancelled"
        (the same, because somebody cancelled it) or "running" (another live process has it).
    """
    run = Run(Path(folder))
    if run.is_done:
        return State.DONE.value
    if run.is_cancelled:
        return State.CANCELLED.value
    try:
        attempt = run.claim()
    except Busy:
        return State.RUNNING.value
    try:
        with _stop_on_signals() as signalled, attempt.pulse():
            return _run(attempt, threads, device, _Stop(attempt, signalled, parent))
    except Superseded:
        return State.RUNNING.value


class _Stop:
    """Says whether a trial should stop: a signal came, its parent is gone, or it was cancelled."""

    def __init__(self, attempt: Attempt, signalled: Callable[[], bool], parent: int | None) -> None:
        self._attempt = attempt
        self._signalled = signalled
        self._parent = parent
        self._looked = time.monotonic()

    def __call__(self) -> bool:
        orphaned = self._parent is not None and os.getppid() != self._parent
        return self._signalled() or orphaned or self._is_cancelled()

    def _is_cancelled(self) -> bool:
        """Look now and then: a look asks the file system, which may be far away."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        return self._attempt.run.is_cancelled


def prepare(spec: TrialSpec, places: Places, progress: Callable[[str], None]) -> None:
    """Do once, before many trials start, what they would all do: read files, decode images, read the anchor pool.

    Raises:
        BenchError: data or weights are not as they must be.
    """
    dataset = protocols[spec.protocol].load(spec, places)
    backbone = load_backbone(spec.backbone, spec.pretrained, places)
    store = ImageStore(dataset, backbone.image, places.cache_folder(), progress)
    if not spec.skip_bad_images:
        store.refuse_bad_images()
    if "pool" in algorithms[spec.algorithm].needs:
        from bench.pool import open_pool

        open_pool(places, backbone, places.cache_folder(), which=spec.hparams.get("pool", "builtin"), progress=progress)


def _run(attempt: Attempt, threads: int | None, device: str | None, stop: Callable[[], bool]) -> str:
    run = attempt.run
    try:
        spec = run.spec
        attempt.beat(0, spec.steps, doing="starting", force=True)
        if threads:
            torch.set_num_threads(threads)
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if chosen.type == "cuda":
            _make_cuda_repeatable()
        began = time.time()

        def pulse(doing: str) -> None:
            attempt.beat(trial.algorithm.updates if trial else 0, spec.steps, doing=doing)
            if stop():
                raise train.Stopped

        trial: train.Trial | None = None
        trial = train.build(spec, run.places, chosen, pulse)
        built = time.time()
        records = train.run(trial, attempt, stop)
        attempt.write_env(_environment(chosen, build_seconds=built - began, seconds=time.time() - began))
        attempt.finish(records, spec.steps, spec.steps)
        return State.DONE.value
    except train.Stopped:
        attempt.release(trial.algorithm.updates if trial else 0, run.spec.steps)
        return State.CANCELLED.value if run.is_cancelled else State.PENDING.value
    except Superseded:
        raise
    except BenchError as error:
        attempt.fail(str(error) + "\n", str(error), of_exception(error))
        return State.FAILED.value
    except Exception as error:
        attempt.fail(traceback.format_exc(), f"{type(error).__name__}: {error}", of_exception(error))
        return State.FAILED.value


def _make_cuda_repeatable() -> None:
    """Ask for repeatable kernels and full float32; operations that have none warn and go on."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM, SIGINT and Slurm's early warning instead of dying of them; only the main thread may do so.

    Slurm signals every process of a job. Children that this process forks must not take its handler for theirs: in them
    it does what the signal would have done without.
    """
    asked = threading.Event()
    ours = os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        if os.getpid() == ours:
            asked.set()
        elif number != WARNING:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    listened = [
        each for each in (signal.SIGTERM, signal.SIGINT, WARNING) if signal.getsignal(each) is not signal.SIG_IGN
    ]
    before = {each: signal.signal(each, note) for each in listened}
    try:
        yield asked.is_set
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _environment(device: torch.device, **seconds: float) -> dict[str, Any]:
    packages = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow")
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        **{name: round(value, 3) for name, value in seconds.items()},
    }
