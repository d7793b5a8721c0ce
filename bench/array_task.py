"""What a task of a Slurm array does: `python -m bench.array_task run FILE`, and, if that failed, `after FILE CODE`.

`prepare FILE` is a task that reads and decodes data sets once, before the trials that need them.

`run` is the job step: it runs the task's trials one after the other, each in a process of its own or with those that it
is trained with (`LocalPool`), so that start-up is paid once and one trial's end is not its neighbours'. `after` comes
from the batch script when the step is gone: it says how each trial ended and puts the job back into the queue for what
is left, if the retry rule allows.

Slurm may start a task again at any time, after preemption, the loss of a node or a request. Both commands look at the
run folders first and do what is left.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import slurm
from bench.errors import BenchError, SpecError
from bench.failures import MOST_ENDS, Failure, RetryRule, advice, of_exit
from bench.launch import Stopped, bury, retry_delay
from bench.launches import Array
from bench.local_pool import LocalPool
from bench.places import mark_prepared
from bench.process import WARNING, slurm_job
from bench.resources import WARNING_SECONDS
from bench.store import Run, State
from bench.version import code_version

GO_ON = 75
"""Exit code of a step that has more to do (EX_TEMPFAIL)."""

_LOG_BYTES = 20_000
_LATE_SECONDS = WARNING_SECONDS + 60
"""How long before the limit its warning may come at most: Slurm looks now and then."""
_EARLY_SECONDS = 2
_OVER = "clipbed: nothing is left to do here"
_BEGIN = "clipbed: this start of the task begins"


def main(arguments: Sequence[str]) -> int:
    """Run the command; give its exit code."""
    if len(arguments) < 2 or arguments[0] not in ("run", "prepare", "after"):
        print("usage: python -m bench.array_task run|prepare FILE | after FILE CODE (Slurm calls it)", file=sys.stderr)
        return 2
    verb, path = arguments[0], Path(arguments[1])
    try:
        array, runs = _mine(path)
        if verb == "prepare":
            return _prepare(runs)
        return _run(array, runs) if verb == "run" else _after(array, runs, int(arguments[2]))
    except BenchError as error:
        print(f"array_task: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def _mine(path: Path) -> tuple[Array, list[Run]]:
    """Read the array's file; give it and the trials of this task."""
    array = Array.read(path)
    index = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    if array is None or not index.isdigit() or int(index) >= len(array.tasks):
        raise SpecError(f"{path} has no task {index!r}; it was changed after it was sent, so launch again")
    runs = [Run(Path(array.sweep) / trial) for trial in array.tasks[int(index)]]
    for run in runs:
        if not run.is_there:
            _say(f"{run.trial_id} was deleted")
    return array, [run for run in runs if run.is_there]


def _run(array: Array, runs: list[Run]) -> int:
    """Run the trials of this task; give 0 when nothing is left to do here."""
    if array.code and code_version() != array.code:
        _say(f"warning: the code has changed since the launch: {array.code} then, {code_version()} now")
    rule = RetryRule.parse(array.retry)
    for run in runs:
        _note_earlier_start(run, rule)
    pool = LocalPool(
        jobs=array.jobs,
        threads=array.threads,
        device=array.device,
        retry=rule,
        leave_held=True,
        share=array.share,
        grace=array.grace,
    )
    try:
        pool.run(runs, _Lines())
    except Stopped as stopped:
        return _stopped(stopped.number, runs, rule)
    if _left(runs):  # cancelled, and asked for again when their turn was over
        return GO_ON
    _say(_OVER)
    return 0


def _stopped(number: int, runs: list[Run], rule: RetryRule) -> int:
    """Count why the task was stopped; give the step's exit code.

    Slurm warns before the time limit and, where the site says so, before preemption. Without a warning the limit comes
    as SIGTERM, which ends the batch script too: then nobody but this process can put the job back into the queue.
    """
    warned, time_is_up = number == WARNING, _time_is_up(within=_LATE_SECONDS if number == WARNING else 0)
    if not warned and not time_is_up:
        return 128 + number
    failure = Failure.TIME if time_is_up else Failure.PREEMPTED
    for run in _concerned(runs, (State.PENDING, State.LOST)):  # lost: there was no time to write its checkpoint
        _settle(run, failure, advice(failure), rule)
    if not _left(runs):
        _say(_OVER)
        return 0
    if not warned:
        _requeue()
    return GO_ON


def _prepare(runs: list[Run]) -> int:
    """Read and decode the data of trials."""
    from bench.job import prepare

    for run in runs:
        prepare(run.spec, run.places, _say)
        mark_prepared(run.spec, run.places)
    return 0


def _after(array: Array, runs: list[Run], code: int) -> int:
    """Settle what a step left behind that ended with `code`; put the job back into the queue if there is more to do."""
    if code in (128 + signal.SIGTERM, 128 + signal.SIGINT):
        return code  # somebody ended the job; Slurm starts it again where it was preempted
    rule = RetryRule.parse(array.retry)
    # a step that was killed by scancel may end with 0: what it left undone says that it did not end by itself
    failure = of_exit(code or 128 + signal.SIGKILL, _log_of_this_start()) if code != GO_ON else None
    if failure is not None:
        for run in _concerned(runs, (State.LOST, State.PENDING)):
            _settle(run, failure, f"its job step ended with exit code {code}: {advice(failure)}", rule)
    left = _left(runs)
    if not left:
        return 0
    if failure is None and code != GO_ON:
        _say(f"the step ended with exit code {code}; {len(left)} trials are left for the next launch")
        return code
    _say(f"{len(left)} trials are left")
    if _requeue():
        time.sleep(60)  # Slurm ends this script
    return code


def _requeue() -> bool:
    """Put this task back into the queue. By its index: one task of an array bears the array's own number.

    Not without end: where the disk is too full to write down how trials end, nobody else counts.
    """
    job = slurm_job()
    assert job is not None
    if job["restart"] >= MOST_ENDS:
        _say(f"this task was started {job['restart'] + 1} times: what is left waits for the next launch")
        return False
    _say("back into the queue")
    slurm.requeue(job["job"])
    return True


def _note_earlier_start(run: Run, rule: RetryRule) -> None:
    """Count why an earlier start of this job gave up a trial, or never said how it ended."""
    state, said = run.look()
    theirs, ours = said.get("slurm") or {}, slurm_job() or {}
    if theirs.get("job") != ours.get("job") or int(theirs.get("restart", 0)) >= int(ours.get("restart", 0)):
        return
    if state is State.FAILED and retry_delay(run, rule) is not None:
        run.reset(keep_ends=True)  # it waited for its retry when that start was ended
    if state not in (State.LOST, State.PENDING) or said.get("failure"):
        return
    failed = slurm.node_failed_since(str(theirs.get("node", "")), float(said.get("heartbeat", 0)))
    failure = Failure.NODE if failed else Failure.PREEMPTED
    _settle(run, failure, f"Slurm started its job again: {advice(failure)}", rule)


def _concerned(runs: list[Run], states: Sequence[State]) -> list[Run]:
    """Give the unfinished trials that this start of the job has had; if it got to none, all that are left.

    So a task that ends before its first trial is counted against its trials, and not started again without end.
    """
    looked = [(run, *run.look()) for run in runs if run.is_there]
    left = [(run, said) for run, state, said in looked if state in states]
    had = any(said.get("slurm") == slurm_job() for _, _, said in looked)
    return [run for run, said in left if not had or said.get("slurm") == slurm_job()]


def _settle(run: Run, failure: Failure, how: str, rule: RetryRule) -> None:
    """Write down how a trial's process ended, a silent one's or one that was given back; it stays if `rule` allows."""
    if run.state() is State.PENDING:
        _count(run, failure, rule, how)
    elif bury(run, failure, how) is State.FAILED and retry_delay(run, rule) is not None:
        run.reset(keep_ends=True)


def _count(run: Run, failure: Failure, rule: RetryRule, how: str) -> None:
    """Count why a trial was given back; fail it where that has happened too often."""
    run.note_end(failure)
    if retry_delay(run, rule) is None:
        times = int(run.status().get("ends", {}).get(failure, 1))
        bury(run, failure, f"stopped {times} time{'s' * (times != 1)}: {how}")


def _left(runs: list[Run]) -> list[Run]:
    return [run for run in runs if run.is_there and run.state() in (State.PENDING, State.LOST)]


def _time_is_up(within: float) -> bool:
    """Say whether this job's time limit is reached, or will be `within` so many seconds."""
    job = slurm_job()
    end = slurm.end_time(job["job"]) if job else None
    return end is not None and time.time() >= end - within - _EARLY_SECONDS


def _log_of_this_start() -> str:
    """Give the end of this task's log, from where this start of the job began."""
    path = os.environ.get("CLIPBED_LOG", "")
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
            return file.read().decode(errors="replace").rpartition(_BEGIN)[2]
    except OSError:
        return ""


class _Lines:
    """Tells a log what happens."""

    def started(self, run: Run) -> None:
        _say(f"{run.trial_id} started")

    def ended(self, run: Run, state: State) -> None:
        _say(f"{run.trial_id} {state.value}")

    def tick(self) -> None:
        """Say nothing: trials speak for themselves in their folders."""


def _say(text: str) -> None:
    print(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}", flush=True)


def script_lines(python: str, array: Path, *, prepares: bool = False) -> tuple[list[str], str, list[str]]:
    """Give the batch script's lines: before the job step, the step's command, and after it.

    Args:
        python: command that starts Python.
        array: the array's file.
        prepares: the step prepares data.
    """
    file, logs = shlex.quote(str(array)), shlex.quote(str(array.with_suffix("")))
    before = [
        f'export CLIPBED_LOG={logs}/"${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}_0_log.out"',
        f'echo "{_BEGIN}"',
    ]
    if prepares:
        return before, f"{python} -u -m bench.array_task prepare {file}", []
    # srun's exit code is no proof: it is 0 as well when the step was killed by scancel, or the node declared dead
    over = f'tail -n 3 "$CLIPBED_LOG" | grep -qF {shlex.quote(_OVER)}'
    after = ["code=$?", f'{over} || exec {python} -m bench.array_task after {file} "$code"']
    return before, f"{python} -u -m bench.array_task run {file}", after


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
