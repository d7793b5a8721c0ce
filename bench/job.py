"""`run_trial`: the one function that a launcher calls, in this process or another one. Idempotent."""

from __future__ import annotations

import contextlib
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
from bench.heap import keep_freed_memory
from bench.images import ImageStore
from bench.loop import Group, Member, Parted
from bench.models import load_backbone
from bench.process import WARNING
from bench.registry import algorithms, protocols
from bench.spec import Places, TrialSpec
from bench.store import Attempt, Busy, Run, State, Superseded

NOT_REPEATABLE = "CLIPBED_NOT_REPEATABLE"
"""Variable that, if set, lets operations run on a GPU that have no repeatable kernel; records then differ in last digits."""
LOOK_SECONDS = 5.0
"""How often a running trial looks whether somebody cancelled it."""


def run_trial(
    folder: str, *company: str, threads: int | None = None, device: str | None = None, parent: int | None = None
) -> str:
    """Run the trial in `folder` to its end, from its checkpoint where there is one.

    A failure of the trial raises nothing: it is written into the folder.

    Args:
        folder: the run folder.
        company: run folders of trials with the same `bench.sharing.path_of`; all are trained as one. In company nobody
            fails: a trial for which something goes wrong is given back ("pending"), to be run by itself.
        threads: threads of torch on the CPU; torch's default if None.
        device: torch's name of a device; a GPU where there is one if None.
        parent: process that must live on; when this process gets another parent the trials stop at their next step.

    Returns:
        The state the trial is left in: "done", "failed", "pending" (stopped on request, has a checkpoint), "cancelled"
        (the same, because somebody cancelled it) or "running" (another live process has it).
    """
    with _stop_on_signals() as signalled:
        job = _Job(threads, device)
        for each in (folder, *company):
            job.claim(Run(Path(each)), signalled, parent)
        job.run()
    return job.states[Path(folder)].value


class _Job:
    """The trials of this process: claims them, runs them, and writes down how each of them ends.

    Attributes:
        states: in what state each run folder is left.
    """

    def __init__(self, threads: int | None, device: str | None) -> None:
        self.states: dict[Path, State] = {}
        self._threads = threads
        self._device = device
        self._members: list[Member] = []
        self._alive: dict[Member, contextlib.ExitStack] = {}
        self._began = self._built = time.time()

    def claim(self, run: Run, signalled: Callable[[], bool], parent: int | None) -> None:
        """Claim a trial, unless there is nothing to do."""
        if run.is_done:
            self.states[run.folder] = State.DONE
            return
        if run.is_cancelled:
            self.states[run.folder] = State.CANCELLED
            return
        try:
            attempt = run.claim()
        except Busy:
            self.states[run.folder] = run.state()
            return
        member = Member(attempt, _Stop(attempt, signalled, parent), self._over)
        self._alive[member] = contextlib.ExitStack()
        self._alive[member].enter_context(attempt.pulse())
        self._members.append(member)

    def run(self) -> None:
        """Run what was claimed."""
        if self._members:
            group = Group(self._members)
            try:
                group.build(lambda spec, places: self._build(spec, places, group.pulse))
                self._built = time.time()
                group.run()
            finally:
                for alive in self._alive.values():
                    alive.close()

    def _build(self, spec: TrialSpec, places: Places, pulse: Callable[[str], None]) -> train.Trial:
        for member in self._members:
            member.attempt.beat(0, spec.steps, doing="starting", force=True)
        if self._threads:
            torch.set_num_threads(self._threads)
        chosen = torch.device(self._device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if chosen.type == "cuda":
            _make_cuda_repeatable()
        else:
            keep_freed_memory()
        return train.build(spec, places, chosen, pulse)

    def _over(self, member: Member, error: Exception | None) -> None:
        """Write into a trial's folder how it ended."""
        run = member.attempt.run
        if error is None:
            member.attempt.write_env(self._environment(member))
            member.attempt.finish(member.records, member.step, member.step)
        self._alive[member].close()
        try:
            self.states[run.folder] = State.DONE if error is None else _end(member, error)
        except Superseded:
            self.states[run.folder] = State.RUNNING

    def _environment(self, member: Member) -> dict[str, Any]:
        company = [each.attempt.run.trial_id for each in self._members if each is not member]
        seconds = {"build_seconds": self._built - self._began, "seconds": time.time() - self._began}
        return _environment(member.built.backbone.device, **seconds) | ({"trained_with": company} if company else {})


def _end(member: Member, error: Exception) -> State:
    """Write down why a trial has left without its records.

    Raises:
        Superseded: a newer attempt holds it, so nothing is written.
    """
    attempt = member.attempt
    if isinstance(error, Superseded):
        raise error
    if isinstance(error, train.Stopped | Parted):
        if isinstance(error, Parted):
            traceback.print_exception(error)
        attempt.release(member.step, member.steps)
        return State.CANCELLED if attempt.run.is_cancelled else State.PENDING
    if isinstance(error, BenchError):
        attempt.fail(str(error) + "\n", str(error), of_exception(error))
    else:
        text = "".join(traceback.format_exception(error))
        hint = f"; to run it all the same: {NOT_REPEATABLE}=1" if "deterministic implementation" in str(error) else ""
        attempt.fail(text, f"{type(error).__name__}: {error}{hint}", of_exception(error))
    return State.FAILED


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


def _make_cuda_repeatable() -> None:
    """Ask for repeatable kernels and full float32; an operation that has none fails, unless the variable allows it.

    Not `warn_only` by itself: then torch takes attention's faster kernels, whose gradients are not repeatable.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=bool(os.environ.get(NOT_REPEATABLE)))
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
        """Handle a signal."""
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
