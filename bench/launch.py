"""The seam between a sweep and the place where its trials run; and the simplest place, this process.

A launcher is told run folders and leaves each one done, failed, or, when it is stopped, as it is; what happened is read
from the folders afterwards. So another launcher needs `prepare` and `run`, and nothing else changes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from bench.failures import Failure, RetryRule
from bench.spec import Places, TrialSpec
from bench.store import Busy, Run, State
from bench.ticking import every

Say = Callable[[str], None]


class RunTrial(Protocol):
    """What runs one trial, or several that are trained as one: `bench.job.run_trial`, or a test's stand-in."""

    def __call__(self, folder: str, *company: str, threads: int | None, device: str | None) -> str:
        """Run the trials in `folder` and `company`; give the state the first is left in."""


class Progress(Protocol):
    """What a launcher tells of what it does; `bench.console` shows it."""

    def started(self, run: Run) -> None:
        """Note that a trial was started."""

    def ended(self, run: Run, state: State) -> None:
        """Note that a trial is over, or was given back."""

    def tick(self) -> None:
        """Show where things are, now and then; called about twice a second."""


class Launcher(Protocol):
    """A place where trials run."""

    def prepare(self, trials: Iterable[tuple[TrialSpec, Places]], say: Say) -> None:
        """Do once what all `trials` would do first.

        Raises:
            BenchError: data or weights are not as they must be.
        """

    def run(self, runs: Sequence[Run], progress: Progress) -> None:
        """Run trials until each is done or failed.

        Raises:
            Stopped: a signal asked for it; unfinished trials go on from their checkpoints.
        """


class Stopped(Exception):
    """A signal stopped the launcher."""

    def __init__(self, number: int) -> None:
        """Note the signal's number."""
        super().__init__(signal.Signals(number).name)
        self.number = number


def trial_here(folder: str, *company: str, threads: int | None, device: str | None) -> str:
    """Run a trial in this process; torch is imported by it and not before."""
    from bench.job import run_trial

    return run_trial(folder, *company, threads=threads, device=device)


class InProcess:
    """Runs one trial after the other in this process."""

    def __init__(self, *, threads: int | None = None, device: str | None = None, trial: RunTrial = trial_here) -> None:
        """Take torch's number of threads and device."""
        self._threads = threads
        self._device = device
        self._trial = trial

    def prepare(self, trials: Iterable[tuple[TrialSpec, Places]], say: Say) -> None:
        """Do nothing: each trial prepares itself."""

    def run(self, runs: Sequence[Run], progress: Progress) -> None:
        """Run trials in order, while a thread shows how they get on.

        Raises:
            Stopped: a signal asked for it.
        """
        for run in runs:
            progress.started(run)
            with every(0.5, progress.tick):
                state = State(self._trial(str(run.folder), threads=self._threads, device=self._device))
            progress.ended(run, state)
            if state is State.PENDING:
                raise Stopped(signal.SIGINT)


def bury(run: Run, failure: Failure, how: str) -> State:
    """Write into the folder of a trial whose process is gone how it ended; give the state."""
    try:
        attempt = run.claim(silent=failure, buries=True)
    except Busy:
        return run.state()
    except OSError:  # a full disk must not end the sweep; the trial counts as failed all the same
        return State.FAILED
    log = run.log_path.read_text(errors="replace")[-4000:] if run.log_path.is_file() else ""
    words = f"{how}\n" + (f"\nThe last it said ({run.log_path.name}):\n{log}" if log else "")
    attempt.fail(words, how, failure, counted=True)
    return State.FAILED


def retry_delay(run: Run, rule: RetryRule) -> float | None:
    """Give the seconds to wait before a failed trial is run again; None where `rule` leaves it failed."""
    said = run.look()[1]
    failure, ends = Failure(said.get("failure", Failure.CODE)), said.get("ends") or {}
    progressed = int(said.get("step", 0)) > int(said.get("began_at", 0))
    return rule.delay(failure, ends) if rule.allows(failure, ends, progressed=progressed) else None
