"""A bounded pool of processes of this machine: one training a process, cores and GPUs divided between them.

A training is one trial, or a group of trials whose weights follow the same path (`bench.sharing`). A trial that comes
back from a group unfinished is run by itself, so that company never keeps one from its end.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from bench.errors import BenchError, SpecError
from bench.failures import Failure, RetryRule, of_exit
from bench.launch import Progress, RunTrial, Say, Stopped, bury, retry_delay
from bench.machine import Layout, cpu_jobs, thread_variables, usable_cores, visible_gpus
from bench.places import is_prepared, preparation
from bench.pool_process import DEAF, answer, count_gpus, prepare, trial_in_child, work
from bench.process import is_replaced
from bench.sharing import MOST_TOGETHER, path_of
from bench.spec import Places, TrialSpec
from bench.store import Run, State

PRELOAD = ("torch", "torchvision", "open_clip", "bench.job")
"""Imported once, in the server that forks every trial; none of them may start threads when it is imported."""

GRACE_SECONDS = 20.0
"""How long stopped trials may take to write their checkpoints before they are killed."""
HELD_SECONDS = 2.0
"""How often a trial that another process holds is looked at."""
MOST_STARTS = 3
"""A trial that gives itself back this often, though nobody stopped the sweep, counts as failed."""


_ALONE_AFTER = {Failure.HOST_MEMORY: 1, Failure.GPU_MEMORY: 1, Failure.KILLED: 2}
"""A trial that an earlier process lost this often so is run by itself: in company it takes more memory."""


_OVER = (State.DONE, State.FAILED, State.CANCELLED)


@dataclass
class _Waiting:
    """A trial that is not running here.

    Attributes:
        path: equal for trials that may be trained as one; None = by itself.
    """

    run: Run
    path: str | None = None
    starts: int = 0
    not_before: float = 0.0
    heartbeat: float | None = None
    again: bool = False


@dataclass
class _Child:
    """Trials that are, in one process."""

    members: list[_Waiting]
    process: BaseProcess
    slot: int


class LocalPool:
    """Runs a bounded number of trainings at a time, each in a fresh process.

    The processes are forked from a server that has imported torch and open_clip, so the imports are paid once. A
    process that dies takes only its own training with it; when this process dies, the others stop at their next step.
    """

    def __init__(
        self,
        *,
        jobs: int | None = None,
        threads: int | None = None,
        device: str | None = None,
        max_failures: int | None = None,
        retry: RetryRule | None = None,
        leave_held: bool = False,
        share: bool = True,
        trial: RunTrial = trial_in_child,
        preload: Sequence[str] = PRELOAD,
        grace: float = GRACE_SECONDS,
    ) -> None:
        """Take the options of `sweep launch`; None = as the machine bears.

        Args:
            jobs: trainings at a time.
            threads: CPU threads a training.
            device: torch's name of a device.
            max_failures: stop after so many failed trials.
            retry: which failures are tried again.
            leave_held: do not wait for the end of trials that another process runs, once it has been seen to live.
            share: train trials whose weights follow the same path as one.
            trial: what runs trials in a process of their own.
            preload: modules that are imported once.
            grace: seconds that stopped trials have to write checkpoints.
        """
        self._asked = (jobs, threads)
        self._retry = retry or RetryRule()
        self._leave_held = leave_held
        self._share = share
        self._device = device
        self._max_failures = max_failures
        self._trial = trial
        self._preload = tuple(preload)
        self._grace = grace
        self._layout: Layout | None = None
        self._children: list[_Child] = []
        self._queue: list[_Waiting] = []
        self._n_failed = 0
        self._replaced = False
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")

    @property
    def layout(self) -> Layout:
        """How the machine is shared; the first look may ask a new process for the GPUs."""
        if self._layout is None:
            jobs, threads = self._asked
            gpus = self._gpus()
            jobs = jobs or len(gpus) or (1 if self._names_one_device else cpu_jobs())
            self._layout = Layout(jobs, threads or max(1, usable_cores() // jobs), gpus)
        return self._layout

    @property
    def _names_one_device(self) -> bool:
        return self._device is not None and self._device != "cpu"

    def _gpus(self) -> tuple[str, ...]:
        """Name the GPUs to divide between trials; none where the user chose a device that is not "cuda"."""
        if self._device not in (None, "cuda"):
            return ()
        count = self._ask(count_gpus, (), lambda text: None) or 0
        if self._device == "cuda" and not count:
            raise SpecError("--device cuda: torch finds no GPU here; leave the option out to run on the CPU")
        return visible_gpus(count)

    def prepare(self, trials: Iterable[tuple[TrialSpec, Places]], say: Say) -> None:
        """Read and decode each data set once, in a process of its own, unless an earlier launch did.

        Raises:
            BenchError: data or weights are not as they must be.
        """
        distinct = {}
        for spec, places in trials:
            distinct[preparation(spec, places)] = (spec, places)
        for spec, places in distinct.values():
            if not is_prepared(spec, places):
                say(f"preparing {spec.dataset} for {spec.backbone}")
                self._ask(prepare, (spec, places), say)

    def run(self, runs: Sequence[Run], progress: Progress) -> None:
        """Run trials until each is done or failed, here or by another launch of the same sweep.

        Raises:
            Stopped: SIGINT, SIGTERM or Slurm's warning came, and the running trials were given time to write
                checkpoints; or Slurm has started this job anew elsewhere, and the other start has a trial of ours.
        """
        self._queue = [_Waiting(run, self._path(run)) for run in runs]
        self._replaced = False
        self._n_failed = 0
        limit = self._max_failures or sys.maxsize
        slots = self.layout.jobs
        with _Signals() as signals:
            try:
                while (self._queue or self._children) and self._n_failed < limit and signals.first is None:
                    if self._replaced:
                        raise Stopped(signal.SIGTERM)
                    self._fill(slots, progress)
                    progress.tick()
                    self._wait(0.5)
                    self._reap(progress)
            finally:
                self._stop_children(signals, progress)
                for waiting in [each for each in self._queue if each.again]:
                    _reset(waiting)  # whoever goes on with the sweep finds that it is to be tried again
        if signals.first is not None:
            raise Stopped(signals.first)

    def _fill(self, slots: int, progress: Progress) -> None:
        """Start trials in free slots; take note of those that another launch has finished."""
        now = time.monotonic()
        for waiting in [each for each in self._queue if each.not_before <= now]:
            if len(self._children) >= slots:
                return
            if waiting not in self._queue or not self._takes(waiting, now, progress):
                continue
            members = [waiting]
            for other in [each for each in self._queue if each.not_before <= now and waiting.path is not None]:
                if waiting.path == other.path and len(members) < MOST_TOGETHER and self._takes(other, now, progress):
                    members.append(other)
            self._start(members, progress)

    def _takes(self, waiting: _Waiting, now: float, progress: Progress) -> bool:
        """Take a trial out of the queue, unless another process holds it; say whether it is to be started."""
        state, said = waiting.run.look()
        if not waiting.run.is_there:  # it has been deleted
            self._queue.remove(waiting)
            progress.ended(waiting.run, state)
            return False
        if state is State.FAILED and waiting.again:
            state = _reset(waiting)
        if state is State.RUNNING and not self._leaves(waiting, said):
            waiting.not_before = now + HELD_SECONDS
            return False
        self._queue.remove(waiting)
        if state in _OVER or state is State.RUNNING:
            self._over(waiting.run, state, progress)
            return False
        return True

    def _path(self, run: Run) -> str | None:
        """Name what trials that are trained as one have in common; None for one that is to be by itself."""
        if not self._share:
            return None
        ends = run.status().get("ends") or {}
        if any(ends.get(failure, 0) >= times for failure, times in _ALONE_AFTER.items()):
            return None
        try:
            name = path_of(run.spec)
        except BenchError:  # no readable spec: told of where the trial is run
            return None
        return None if name is None else f"{run.folder.parent} {name}"

    def _leaves(self, waiting: _Waiting, said: Mapping[str, Any]) -> bool:
        """Say whether a trial that another process holds is left to it: yes, once its heartbeat has moved."""
        before, waiting.heartbeat = waiting.heartbeat, said.get("heartbeat", 0.0)
        return self._leave_held and before not in (None, waiting.heartbeat)

    def _start(self, members: list[_Waiting], progress: Progress) -> None:
        used = {child.slot for child in self._children}
        slot = next(slot for slot in range(self.layout.jobs) if slot not in used)
        gpus = self.layout.gpus
        gpu = gpus[slot % len(gpus)] if gpus else None
        folders = [str(waiting.run.folder) for waiting in members]
        log = str(members[0].run.log_path)
        process = self._process(work, (self._trial, folders, self.layout.threads, self._device, gpu, log))
        self._children.append(_Child(members, process, slot))
        for waiting in members:
            waiting.starts += 1
            progress.started(waiting.run)

    def _process(self, target: Callable[..., None], arguments: tuple[Any, ...]) -> BaseProcess:
        jobs, threads = self._asked
        count = threads or max(1, usable_cores() // (jobs or cpu_jobs()))
        with thread_variables(count):
            if self._context.get_start_method() == "forkserver":
                _start_server(self._context, self._preload)
            process: BaseProcess = self._context.Process(target=target, args=arguments)
            process.start()
        return process

    def _wait(self, seconds: float) -> None:
        sentinels = [child.process.sentinel for child in self._children]
        if sentinels:
            multiprocessing.connection.wait(sentinels, timeout=seconds)
        else:
            time.sleep(seconds)

    def _reap(self, progress: Progress, *, stopping: bool = False) -> None:
        for child in [each for each in self._children if not each.process.is_alive()]:
            child.process.join()
            self._children.remove(child)
            for waiting in child.members:
                self._settle(waiting, self._verdict(waiting, child, stopping), stopping, progress)
            child.process.close()

    def _settle(self, waiting: _Waiting, state: State, stopping: bool, progress: Progress) -> None:
        """Put a trial whose process is gone back into the queue, unless it is over."""
        pause = HELD_SECONDS if state is State.RUNNING else 0.0
        self._replaced |= state is State.RUNNING and is_replaced(waiting.run.status())
        again = retry_delay(waiting.run, self._retry) if state is State.FAILED else None
        if again is not None and stopping:
            state = _reset(waiting)
        elif again is not None:
            state, pause, waiting.again = State.PENDING, again, True
        if state in _OVER or stopping:
            self._over(waiting.run, state, progress)
        else:
            waiting.not_before = time.monotonic() + pause
            waiting.path = None
            self._queue.append(waiting)
            progress.ended(waiting.run, state)

    def _verdict(self, waiting: _Waiting, child: _Child, stopping: bool) -> State:
        """Give the state a process left a trial in; if it died and had no other, write down how."""
        run, code = waiting.run, child.process.exitcode
        state = run.state()
        if stopping or state in (*_OVER, State.RUNNING) or len(child.members) > 1:
            return state
        if code:
            return bury(run, of_exit(code, "") or Failure.KILLED, _how_it_ended(code))
        if waiting.starts >= MOST_STARTS:
            how = f"it stopped {MOST_STARTS} times without an end though nobody stopped the sweep"
            return bury(run, Failure.CODE, how)
        return state

    def _over(self, run: Run, state: State, progress: Progress) -> None:
        self._n_failed += state is State.FAILED
        progress.ended(run, state)

    def _stop_children(self, signals: _Signals, progress: Progress) -> None:
        """Ask all processes to stop, wait a little, kill the rest; a second Ctrl-C kills at once."""
        for child in self._children:
            child.process.terminate()
        deadline = time.monotonic() + self._grace
        while self._children and time.monotonic() < deadline and signals.count < 2:
            progress.tick()
            self._wait(0.2)
            self._reap(progress, stopping=True)
        for child in self._children:
            child.process.kill()
            child.process.join()
        self._reap(progress, stopping=True)

    def _ask(self, function: Callable[..., Any], arguments: tuple[Any, ...], say: Say) -> Any:
        """Call `function(*arguments, say)` in a new process; give its result, None if it died or met a bug.

        Raises:
            BenchError: the function raised it.
        """
        ours, theirs = self._context.Pipe()
        process = self._process(answer, (theirs, function, arguments))
        theirs.close()
        try:
            while True:
                kind, value = ours.recv()
                if kind == "said":
                    say(value)
                elif kind == "raised":
                    raise value
                else:
                    return value
        except EOFError:
            process.join()
            say(f"{function.__name__}: {_how_it_ended(process.exitcode or 0)}")
            return None
        finally:
            process.terminate()
            process.join()
            ours.close()


def _reset(waiting: _Waiting) -> State:
    """Make a failed trial that may be tried again pending; where the disk is still full, it stays failed."""
    waiting.again = False
    try:
        if waiting.run.state() is State.FAILED:
            waiting.run.reset(keep_ends=True)
    except OSError:
        return State.FAILED
    return waiting.run.state()  # cancelled, perhaps


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "a signal"
    hint = "; short memory is the usual cause: try fewer --jobs" if -code == signal.SIGKILL else ""
    return f"its process was killed by {name} (signal {-code}){hint}"


class _Signals:
    """Notes SIGINT, SIGTERM and Slurm's warning instead of dying; only in the main thread, as Python allows."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._note) for each in DEAF}
        return self

    def __exit__(self, *details: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.first = self.first or number
        self.count += number == signal.SIGINT  # Slurm sends SIGTERM twice and means it once


def _start_server(context: Any, preload: Sequence[str]) -> None:
    """Start the fork server, deaf to signals: a terminal and Slurm send them to every process; ours are told by us."""
    from multiprocessing import forkserver

    context.set_forkserver_preload(list(preload))
    in_main = threading.current_thread() is threading.main_thread()
    before = {each: signal.signal(each, signal.SIG_IGN) for each in DEAF} if in_main else {}
    try:
        forkserver.ensure_running()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
