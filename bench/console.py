"""What people see: rich's live display on a terminal, plain lines elsewhere. The only module of its kind that prints.

Texts are made by pure functions of `TrialStatus`, so both ways of showing say the same.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from bench.status import QUEUED, SHOWN, TrialStatus, cells, counts, work_left
from bench.store import Run, State

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

PROGRESS_SECONDS = 30.0
"""How often plain progress says where it is."""
REFRESH_SECONDS = 2.0
"""How often `status --watch` looks."""
_ETA_SECONDS = 5.0
_MOST_SHOWN = 12
_SILENT_SECONDS = 60.0
_STILL_SECONDS = 600.0
_PAST = {"preempted": "preempted", "killed": "killed", "time": "out of time", "oom": "out of memory"}


def say(text: str) -> None:
    """Print `text` at once."""
    print(text, flush=True)


def warn(text: str) -> None:
    """Print `text` to standard error."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


class Seldom:
    """Prints the first thing it is told and then one every few seconds, for work that says more than anyone reads."""

    def __init__(self, seconds: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Wait `seconds` between lines."""
        self._seconds = seconds
        self._clock = clock
        self._next = -float("inf")

    def __call__(self, text: str) -> None:
        """Print `text`, or not."""
        if self._clock() >= self._next:
            self._next = self._clock() + self._seconds
            say(text)


def is_terminal(stream: IO[str] | None = None) -> bool:
    """Say whether somebody looks at a terminal that can move its cursor."""
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


def confirm(question: str) -> bool:
    """Ask for a yes; no answer is a no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def duration(seconds: float) -> str:
    """Word a duration: 45 s, 12 min, 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def tally(numbers: Mapping[str, int]) -> str:
    """Word counts by state: "3 done, 1 failed"; states without trials are left out."""
    order = ("done", "failed", "running", "lost", "cancelled", QUEUED, "pending")
    return ", ".join(f"{numbers[name]} {name}" for name in order if numbers.get(name)) or "none"


def where(trial: TrialStatus) -> str:
    """Word where a running trial is: step, rate, time left."""
    words = [f"step {trial.step}/{trial.steps}"]
    if trial.rate:
        words.append(f"{trial.rate:.3g}/s")
    if trial.seconds_left is not None:
        words.append(f"{duration(trial.seconds_left)} left")
    doing = str(trial.said.get("doing") or "training")
    return ", ".join([*words, *([doing] if doing != "training" else [])])


def circumstances(trial: TrialStatus, now: float) -> str:
    """Word where a running trial runs, when it was last heard of, and what happened to its earlier attempts."""
    words = [f"on {trial.node}"] if trial.node else []
    silent = now - float(trial.said.get("heartbeat") or now)
    if silent >= _SILENT_SECONDS:
        words.append(f"silent for {duration(silent)}")
    still = now - float(trial.said.get("moved") or now)
    if still >= _STILL_SECONDS:
        words.append(f"no step for {duration(still)}")
    return ", ".join([*words, *_earlier(trial)])


def _earlier(trial: TrialStatus) -> list[str]:
    """Word how earlier attempts ended: "preempted twice"."""
    times = {1: "once", 2: "twice"}
    return [
        f"{_PAST.get(end, f'ended by {end}')} {times.get(n, f'{n} times')}" for end, n in sorted(trial.ends.items())
    ]


def table(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
    """Lay out a plain table."""
    from tabulate import tabulate  # a launch prints none, and has other things to wait for

    return str(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))


def status_text(trials: Sequence[TrialStatus], now: float | None = None) -> str:
    """Word the state of all trials: counts, algorithm × data set, what runs, what waits and why, what failed last."""
    now = time.time() if now is None else now
    running = [trial for trial in trials if trial.shown == State.RUNNING]
    parts = [f"{len(trials)} trials: {tally(counts(trials))}"]
    left = work_left(trials)
    if running and left:
        parts[0] += f"; about {duration(left / len(running))} left at the present pace"
    shown = [name for name in SHOWN if any(trial.shown == name for trial in trials)]
    keys = 3 if len({trial.protocol for trial in trials}) > 1 else 2  # the protocol only where there are several
    rows = [[*key[:keys], *(numbers[name] for name in shown)] for key, numbers in cells(trials).items()]
    parts.append(table(rows, [*("algorithm", "data set", "protocol")[:keys], *shown]))
    if running:
        lines = [
            [trial.run.trial_id, trial.label, where(trial), circumstances(trial, now)]
            for trial in running[:_MOST_SHOWN]
        ]
        parts.append(table(lines, ["running", "", "", ""]) + _more(len(running)))
    parts += _queue_text([trial for trial in trials if trial.shown == QUEUED])
    if any(trial.state is State.FAILED for trial in trials):
        parts.append(failures_text(trials, most=3))
    lost = [trial for trial in trials if trial.shown == State.LOST]
    if lost:
        parts.append(f"{len(lost)} lost: their processes died; launching again, or `rerun --failed`, goes on with them")
    return "\n\n".join(parts)


def _queue_text(queued: Sequence[TrialStatus]) -> list[str]:
    """Word why queued trials wait, the most frequent reasons first."""
    if not queued:
        return []
    reasons = Counter(
        trial.reason if trial.queued and trial.queued.waits else "turn in a running task" for trial in queued
    )
    again = sum(bool(trial.ends) for trial in queued)
    words = ", ".join(f"{number} for {reason}" for reason, number in reasons.most_common(5))
    return [f"queued: {words}" + (f"; {again} of them to go on at a checkpoint" if again else "")]


def failures_text(trials: Sequence[TrialStatus], most: int | None = None) -> str:
    """Word the failed trials, the last ones first where only some are shown."""
    failed = [trial for trial in trials if trial.state is State.FAILED]
    failed.sort(key=lambda trial: -float(trial.said.get("heartbeat", 0)))
    lines = [
        f"failed{_kind(trial)}: {trial.run.trial_id} {trial.label}\n  {trial.error_line}\n  {trial.run.error_path}"
        for trial in failed[:most]
    ]
    if most is not None and len(failed) > most:
        lines.append(f"… {len(failed) - most} more: `sweep status --failed`")
    return "\n".join(lines)


def _kind(trial: TrialStatus) -> str:
    """Word the kind of a failure, and how often the trial was tried before."""
    failure, earlier = trial.said.get("failure"), sum(trial.ends.values()) - 1
    words = [str(failure)] if failure else []
    return f" ({', '.join([*words, *([f'attempt {earlier + 1}'] if earlier > 0 else [])])})" if words else ""


def watch(read: Callable[[], list[TrialStatus]]) -> None:
    """Show the status again and again, until nothing is left to wait for."""
    if not is_terminal():
        _watch_plain(read)
        return
    from rich.live import Live
    from rich.text import Text

    trials = read()
    with Live(Text(status_text(trials)), auto_refresh=False, vertical_overflow="visible") as live:
        while _is_going_on(trials):
            time.sleep(REFRESH_SECONDS)
            trials = read()
            live.update(Text(status_text(trials)), refresh=True)


def _watch_plain(read: Callable[[], list[TrialStatus]]) -> None:
    trials = read()
    say(status_text(trials))
    while _is_going_on(trials):
        time.sleep(PROGRESS_SECONDS)
        trials = read()
        say("\n" + status_text(trials))


def _is_going_on(trials: Sequence[TrialStatus]) -> bool:
    """Say whether any trial is not over; one that has failed may wait in its task for a retry."""
    unfinished = (State.RUNNING, State.PENDING, State.LOST)
    return any(trial.state in unfinished or (trial.state is State.FAILED and trial.queued) for trial in trials)


class PlainProgress:
    """One line for each trial that ends, and one now and then in between."""

    def __init__(
        self,
        trials: Sequence[TrialStatus],
        jobs: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        stamp: Callable[[], str] = lambda: time.strftime("%H:%M:%S"),
    ) -> None:
        """Follow `trials`, done ones included, of which `jobs` run at a time."""
        self._trials = {trial.run.trial_id: trial for trial in trials}
        self._jobs = jobs
        self._clock = clock
        self._stamp = stamp
        self._running: dict[str, float] = {}
        self._spoke = clock()
        self._eta: tuple[float, str] = (-math.inf, "")
        self._lock = threading.RLock()  # rich draws from a thread of its own

    def started(self, run: Run) -> None:
        """Note that a trial was started."""
        with self._lock:
            self._running[run.trial_id] = self._clock()

    def ended(self, run: Run, state: State) -> None:
        """Say that a trial is over."""
        with self._lock:
            began = self._running.pop(run.trial_id, None)
            trial = self._trials[run.trial_id] = self._trials[run.trial_id].refreshed()
            self._eta = (-math.inf, "")
        took = f" in {duration(self._clock() - began)}" if began is not None else " by another launch"
        if state is State.DONE:
            self._line(f"done {self._count()}: {trial.label}{took}")
        elif state is State.FAILED:
            self._line(f"FAILED: {trial.label}: {trial.error_line} ({run.error_path})")

    def tick(self) -> None:
        """Say where things are, if nothing was said for a while."""
        if self._clock() - self._spoke >= PROGRESS_SECONDS:
            self._line(self.summary())

    def summary(self) -> str:
        """Word how far the sweep is, and each running trial."""
        running = [f"{trial.label}: {where(trial)}" for trial in self._refresh()]
        return "; ".join([f"{tally(self._numbers())}{self._time_left()}", *running[:4]])

    def __enter__(self) -> PlainProgress:
        """Begin."""
        return self

    def __exit__(self, *details: object) -> None:
        """End."""

    def _line(self, text: str) -> None:
        self._spoke = self._clock()
        say(f"[{self._stamp()}] {text}")

    def _count(self) -> str:
        done = sum(trial.state is State.DONE for trial in self._trials.values())
        return f"{done}/{len(self._trials)}"

    def _numbers(self) -> dict[str, int]:
        """Count by state, taking our own word for what runs here."""
        with self._lock:
            numbers = counts(trial for name, trial in self._trials.items() if name not in self._running)
            numbers[State.RUNNING.value] += len(self._running)
        return numbers

    def _refresh(self) -> list[TrialStatus]:
        """Look at the running trials again."""
        with self._lock:
            for name in self._running:
                self._trials[name] = self._trials[name].refreshed()
            return [self._trials[name] for name in self._running]

    def _time_left(self) -> str:
        """Word the time left, computed at most every few seconds."""
        now = self._clock()
        if now - self._eta[0] >= _ETA_SECONDS:
            with self._lock:
                left = work_left(list(self._trials.values()))
            at_a_time = max(1, self._jobs, len(self._running))  # more than jobs where trials are trained as one
            self._eta = (now, "" if not left else f", about {duration(left / at_a_time)} left")
        return self._eta[1]


class LiveProgress(PlainProgress):
    """A bar and a table of what runs, at the bottom of a terminal; failures scroll by above it."""

    _live: Live

    def __enter__(self) -> LiveProgress:
        """Begin to draw."""
        from rich.live import Live

        self._live = Live(get_renderable=self._draw, refresh_per_second=2, transient=True)
        self._live.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        """Stop drawing and wipe the display."""
        self._live.stop()

    def tick(self) -> None:
        """Do nothing: the display draws itself."""

    def _line(self, text: str) -> None:
        self._live.console.print(f"[{self._stamp()}] {text}", markup=False, highlight=False)

    def _draw(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        running, numbers = self._refresh(), self._numbers()
        grid = Table.grid(padding=(0, 1))
        ended = numbers[State.DONE] + numbers[State.FAILED]
        grid.add_row(ProgressBar(max(1, len(self._trials)), ended, width=30), Text(tally(numbers) + self._time_left()))
        for trial in running[:_MOST_SHOWN]:
            bar = ProgressBar(max(1, trial.steps), trial.step, width=30)
            grid.add_row(bar, Text(f"{trial.label}: {where(trial)}", overflow="ellipsis", no_wrap=True))
        if len(running) > _MOST_SHOWN:
            grid.add_row("", Text(_more(len(running)).strip()))
        return grid


@contextlib.contextmanager
def progress(trials: Sequence[TrialStatus], jobs: int) -> Iterator[PlainProgress]:
    """Show how `trials` get on, the way that suits standard output."""
    kind = LiveProgress if is_terminal() else PlainProgress
    with kind(trials, jobs) as shown:
        yield shown


def _more(n: int) -> str:
    return f"\n… and {n - _MOST_SHOWN} more" if n > _MOST_SHOWN else ""
