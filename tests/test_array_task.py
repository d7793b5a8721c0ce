"""What a task of an array does with its trials, and what is done when its step is gone: counted, bounded, put back."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bench import array_task, slurm
from bench.array_task import GO_ON, main, script_lines
from bench.failures import MOST_ENDS, RetryRule
from bench.launch import Stopped
from bench.launches import Array, Launch, job_name
from bench.process import WARNING
from bench.runs import delete
from bench.store import Run
from tests import fakes
from tests.fakes import make_runs


class Task:
    """Task 1 of an array, whose neighbours are other trials', as Slurm starts it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, n: int, retry: str) -> None:
        self.runs = make_runs(folder, n)
        launch = Launch.claim(folder)
        self.path = launch.next_array()
        tasks = (("another",), tuple(run.trial_id for run in self.runs))
        Array(name=job_name(self.path), sweep=str(folder), tasks=tasks, threads=1, retry=retry).write(self.path)
        self.log = folder / "log.out"
        self.requeued: list[str] = []
        self.end: float | None = None
        self._patch = monkeypatch
        monkeypatch.setattr(slurm, "requeue", self.requeued.append)
        monkeypatch.setattr(slurm, "node_failed_since", lambda node, moment: False)
        monkeypatch.setattr(slurm, "end_time", lambda job: self.end)
        monkeypatch.setattr("bench.array_task.time.sleep", lambda seconds: None)
        self.start(0)

    def start(self, restart: int, *, index: str = "1") -> None:
        """Be the task's `restart`-th start."""
        values = {
            "SLURM_ARRAY_JOB_ID": "50",
            "SLURM_ARRAY_TASK_ID": index,
            "SLURM_JOB_ID": "51",
            "SLURM_RESTART_COUNT": str(restart),
            "SLURMD_NODENAME": f"n{restart}",
            "CLIPBED_LOG": str(self.log),
        }
        for name, value in values.items():
            self._patch.setenv(name, value)
        with self.log.open("a") as file:
            file.write(f"{array_task._BEGIN}\n")

    def logged(self, text: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{text}\n")

    def step(self, act: Any) -> int:
        """Run the job step, `act(runs)` standing in for the pool of processes."""

        class Pool:
            def __init__(self, **options: Any) -> None:
                self.options = options

            def run(self, runs: list[Run], progress: Any) -> None:
                act(runs)

        self._patch.setattr(array_task, "LocalPool", Pool)
        return main(["run", str(self.path)])

    def after(self, code: int) -> int:
        return main(["after", str(self.path), str(code)])

    def states(self) -> list[str]:
        return [run.state().value for run in self.runs]

    def ends(self, i: int = 0) -> dict[str, int]:
        return dict(self.runs[i].status().get("ends") or {})


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "CLIPBED_"))]:
        monkeypatch.delenv(name)
    return lambda n=1, retry="": Task(tmp_path, monkeypatch, n, retry)


def vanish(run: Run, step: int = 3) -> None:
    """Leave a trial as a process does that was killed after some steps."""
    run.claim().beat(step, 10, force=True)
    path = run.folder / "status.json"
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {gone()}'))
    claim = max(run.folder.glob("attempt.*"), key=lambda path: int(path.suffix[1:]))
    claim.write_text(claim.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {gone()}'))


def gone() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def give_back(run: Run, step: int = 3) -> None:
    run.claim().release(step, 10)


def warned(runs: list[Run]) -> None:
    """Be stopped by Slurm's warning, with a checkpoint written by every trial."""
    for run in runs:
        give_back(run)
    raise Stopped(WARNING)


def asked_to_end(runs: list[Run]) -> None:
    give_back(runs[0])
    raise Stopped(signal.SIGTERM)


def finish_all(runs: list[Run]) -> None:
    for run in runs:
        fakes.finish(str(run.folder), threads=None, device=None)


# --- the step ---------------------------------------------------------------------------------------------------------


def test_a_step_runs_its_own_trials_and_has_nothing_left(task: Any) -> None:
    it = task(3)
    assert it.step(finish_all) == 0
    assert it.states() == ["done"] * 3


def test_a_trial_that_is_asked_for_again_after_its_turn_is_not_forgotten(task: Any) -> None:
    it = task(2)
    it.runs[0].cancel()

    def changed_their_mind(runs: list[Run]) -> None:
        finish_all(runs[1:])
        runs[0].reset()

    assert it.step(changed_their_mind) == GO_ON
    assert it.after(GO_ON) == GO_ON
    assert it.requeued == ["50_1"]


@pytest.mark.parametrize("share", [True, False])
def test_a_step_trains_trials_as_one_if_the_launch_said_so(
    task: Any, monkeypatch: pytest.MonkeyPatch, share: bool
) -> None:
    from bench import local_pool
    from bench.local_pool import LocalPool

    it = task(3)
    array = Array.read(it.path)
    assert array is not None
    dataclasses.replace(array, share=share).write(it.path)
    monkeypatch.setattr(local_pool, "path_of", lambda spec: "path")

    def make(**options: Any) -> LocalPool:
        return LocalPool(**{**options, "device": "cpu"}, trial=fakes.finish_all, preload=())

    monkeypatch.setattr(array_task, "LocalPool", make)
    assert main(["run", str(it.path)]) == 0
    assert it.states() == ["done"] * 3
    others = {(run.folder / "company.txt").read_text().split()[1] for run in it.runs}
    assert others == {"2" if share else "0"}


def test_a_step_runs_trials_in_processes_of_their_own(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.local_pool import LocalPool

    it = task(3)

    def make(**options: Any) -> LocalPool:
        return LocalPool(**{**options, "device": "cpu"}, trial=fakes.die_second, preload=())

    monkeypatch.setattr(array_task, "LocalPool", make)
    monkeypatch.setattr(RetryRule, "delay", lambda self, failure, ends: 0.0)
    assert main(["run", str(it.path)]) == 0
    assert it.states() == ["done", "failed", "done"]  # one trial's end is not its neighbours'
    assert it.ends(1) == {"killed": 3}  # once, and two retries


@pytest.mark.parametrize("index", ["", "7", "x"])
def test_a_task_that_its_file_does_not_have_is_refused(
    task: Any, index: str, capsys: pytest.CaptureFixture[str]
) -> None:
    it = task()
    it.start(0, index=index)
    assert it.step(finish_all) == 2
    assert "launch again" in capsys.readouterr().err
    assert it.states() == ["pending"]


def test_a_command_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["walk", "file"]) == main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_a_warning_is_counted_as_preemption_and_the_step_asks_to_go_on(task: Any) -> None:
    it = task(2)
    assert it.step(warned) == GO_ON
    assert it.states() == ["pending", "pending"]
    assert it.ends(0) == it.ends(1) == {"preempted": 1}


@pytest.mark.parametrize(
    ("seconds_left", "kind"), [(0, "time"), (100, "time"), (1000, "preempted"), (None, "preempted")]
)
def test_a_warning_near_the_end_is_the_time_limit(task: Any, seconds_left: float | None, kind: str) -> None:
    it = task()
    it.end = None if seconds_left is None else time.time() + seconds_left
    assert it.step(warned) == GO_ON
    assert it.ends() == {kind: 1}


def test_a_time_limit_without_a_warning_puts_the_job_back_at_once(task: Any) -> None:
    it = task()
    it.end = time.time()
    assert it.step(asked_to_end) == GO_ON  # SIGTERM: Slurm ends the batch script too, so `after` may never run
    assert it.requeued == ["50_1"]
    assert it.ends() == {"time": 1}


def test_a_trial_that_gets_no_further_before_its_second_time_limit_fails(task: Any) -> None:
    it = task()
    it.end = time.time()
    assert it.step(warned) == GO_ON
    it.start(1)
    assert it.step(warned) == 0  # at step 3 again
    assert it.states() == ["failed"]
    assert it.runs[0].status()["failure"] == "time"
    assert "stopped 2 times: the job reached its time limit" in it.runs[0].status()["error"]


def test_a_trial_that_gets_further_may_reach_the_limit_often(task: Any) -> None:
    it = task()
    it.end = time.time()
    for restart in range(8):
        it.start(restart)

        def further(runs: list[Run], step: int = restart) -> None:
            give_back(runs[0], step + 1)
            raise Stopped(WARNING)

        assert it.step(further) == GO_ON
    assert it.ends() == {"time": 8}


def test_a_limit_too_short_for_the_first_trial_to_start_is_not_tried_for_ever(task: Any) -> None:
    it = task(2)
    it.end = time.time()

    def too_early(runs: list[Run]) -> None:
        raise Stopped(WARNING)

    codes = []
    for restart in range(3):
        it.start(restart)
        codes.append(it.step(too_early))
        if not codes[-1]:
            break
    assert codes[-1] == 0
    assert it.states() == ["failed", "failed"]


def test_a_trial_that_had_no_time_to_write_its_checkpoint_is_counted_by_the_limit(task: Any) -> None:
    it = task()
    it.end = time.time()

    def too_slow(runs: list[Run]) -> None:
        vanish(runs[0])  # at step 3 each time
        raise Stopped(WARNING)

    assert it.step(too_slow) == GO_ON
    assert it.ends() == {"time": 1}
    it.start(1)
    assert it.step(too_slow) == 0  # no further than before
    assert it.states() == ["failed"]
    assert it.ends() == {"time": 2}


def test_a_trial_that_is_killed_at_the_limit_but_gets_further_goes_on(task: Any) -> None:
    it = task()
    it.end = time.time()
    for restart in range(4):
        it.start(restart)

        def further(runs: list[Run], step: int = restart) -> None:
            vanish(runs[0], step + 1)
            raise Stopped(WARNING)

        assert it.step(further) == GO_ON
    assert it.ends() == {"time": 4}


def test_a_trial_that_waited_for_its_retry_is_tried_again_by_the_next_start(task: Any) -> None:
    it = task(2)

    def full_disk_and_then_lost(runs: list[Run]) -> None:
        runs[0].claim().fail("OSError", "no space left", "disk")
        runs[1].claim().fail("ValueError", "a bug", "code")
        raise Stopped(signal.SIGTERM)

    it.step(full_disk_and_then_lost)
    it.start(1)
    assert it.step(lambda runs: None) == GO_ON
    assert it.states() == ["pending", "failed"]
    assert it.ends() == {"disk": 1}


def test_a_cancelled_trial_is_not_tried_again(task: Any) -> None:
    it = task()
    vanish(it.runs[0])
    it.runs[0].cancel()
    it.start(1)
    assert it.step(lambda runs: None) == 0
    assert it.states() == ["cancelled"]


def test_a_task_whose_trials_were_deleted_ends(task: Any) -> None:
    it = task(2)
    delete([it.runs[0]])
    assert it.step(finish_all) == 0
    delete([it.runs[1]])
    assert it.step(finish_all) == 0
    assert it.after(1) == 0
    assert it.requeued == []


def test_a_task_that_can_write_nothing_is_not_started_for_ever(task: Any) -> None:
    it = task()
    it.start(MOST_ENDS)
    assert it.after(GO_ON) == GO_ON
    assert it.requeued == []
    it.start(MOST_ENDS - 1)
    it.after(GO_ON)
    assert it.requeued == ["50_1"]


def test_trials_have_the_time_of_the_warning_to_write_checkpoints(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    it = task()
    array = Array.read(it.path)
    assert array is not None
    dataclasses.replace(array, grace=90.0).write(it.path)
    given: list[float] = []

    class Pool:
        def __init__(self, *, grace: float, **options: Any) -> None:
            given.append(grace)

        def run(self, runs: list[Run], progress: Any) -> None:
            finish_all(runs)

    monkeypatch.setattr(array_task, "LocalPool", Pool)
    assert main(["run", str(it.path)]) == 0
    assert given == [90.0]


def test_trials_that_had_no_turn_are_not_counted(task: Any) -> None:
    it = task(2)

    def first_only(runs: list[Run]) -> None:
        warned(runs[:1])

    assert it.step(first_only) == GO_ON
    assert it.ends(0) == {"preempted": 1}
    assert it.ends(1) == {}


def test_a_step_that_was_asked_to_end_does_not_ask_to_go_on(task: Any) -> None:
    it = task(2)
    assert it.step(asked_to_end) == 128 + signal.SIGTERM
    assert it.after(128 + signal.SIGTERM) == 128 + signal.SIGTERM
    assert it.requeued == []
    assert it.states() == ["pending", "pending"]
    assert it.ends() == {}  # whether it was preempted is seen when Slurm starts the job again


# --- a later start ----------------------------------------------------------------------------------------------------


def test_a_later_start_counts_what_the_earlier_one_could_not_know(task: Any) -> None:
    it = task(2)
    it.step(asked_to_end)  # preempted without a warning: SIGTERM, and Slurm starts it again
    it.start(1)
    assert it.step(finish_all) == 0
    assert it.ends(0) == {"preempted": 1}
    assert it.states() == ["done", "done"]


def test_a_silent_end_is_the_nodes_where_the_node_was_lost(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    it = task()
    vanish(it.runs[0])
    asked: list[str] = []

    def failed(node: str, moment: float) -> bool:
        asked.append(node)
        return True

    monkeypatch.setattr(slurm, "node_failed_since", failed)
    it.start(1)
    assert it.step(finish_all) == 0
    assert asked == ["n0"]
    assert it.ends() == {"node": 1}


def test_a_zombie_of_an_earlier_start_does_not_hold_its_trial(task: Any) -> None:
    it = task()
    it.runs[0].claim().beat(3, 10, force=True)  # its process lives on, and its heartbeat is young
    assert it.states() == ["running"]
    it.start(1)
    assert it.states() == ["lost"]
    assert it.step(finish_all) == 0
    assert it.states() == ["done"]


def test_nodes_that_fail_again_and_again_end_a_trial(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    it = task(1, "node=2")
    monkeypatch.setattr(slurm, "node_failed_since", lambda node, moment: True)
    for restart in range(1, 4):
        vanish(it.runs[0])
        it.start(restart)
        it.step(lambda runs: None)
    assert it.states() == ["failed"]
    assert it.ends() == {"node": 3}
    assert it.runs[0].status()["failure"] == "node"


def test_what_was_counted_is_not_counted_again_by_the_next_start(task: Any) -> None:
    it = task()
    it.step(warned)
    assert it.after(GO_ON) == GO_ON
    it.start(1)
    it.step(lambda runs: None)
    assert it.ends() == {"preempted": 1}


def test_a_trial_of_another_job_is_not_judged(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    it = task()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "49")
    give_back(it.runs[0])
    it.start(1)
    it.step(lambda runs: None)
    assert it.ends() == {}


# --- when the step is gone --------------------------------------------------------------------------------------------


def test_a_step_with_more_to_do_is_put_back_into_the_queue_once(task: Any) -> None:
    it = task(2)
    it.step(warned)
    assert it.after(GO_ON) == GO_ON
    assert it.requeued == ["50_1"]
    assert it.ends() == {"preempted": 1}


def test_nothing_is_put_back_when_nothing_is_left(task: Any) -> None:
    it = task(2)
    finish_all(it.runs)
    assert it.after(1) == 0
    assert it.requeued == []


def test_a_killed_step_is_counted_against_the_trial_it_ran_and_goes_on_within_the_rule(task: Any) -> None:
    it = task(2, "killed=1")
    for restart, state in enumerate(("pending", "failed")):
        it.start(restart)
        vanish(it.runs[0])
        assert it.after(128 + signal.SIGKILL) == 128 + signal.SIGKILL  # the neighbour is left, so it goes on
        assert it.states() == [state, "pending"]
    assert it.ends(0) == {"killed": 2}
    assert it.ends(1) == {}
    assert it.requeued == ["50_1", "50_1"]
    assert it.runs[0].status()["failure"] == "killed"
    assert "exit code 137" in it.runs[0].status()["error"]


def test_an_orphan_that_gave_its_trial_back_is_counted_like_a_silent_one(task: Any) -> None:
    it = task(1, "killed=1")
    for restart in range(2):  # the pool is killed, the trial's process sees that and writes a checkpoint
        it.start(restart)
        give_back(it.runs[0])
        it.after(128 + signal.SIGKILL)
    assert it.states() == ["failed"]
    assert it.ends() == {"killed": 2}
    assert it.requeued == ["50_1"]


def test_the_reason_is_read_from_this_starts_part_of_the_log(task: Any) -> None:
    it = task()
    it.logged("slurmstepd: error: *** STEP 51.0 ON n0 CANCELLED AT 2026-01-01T00:00:00 DUE TO NODE FAILURE ***")
    it.start(1)
    it.logged(
        "slurmstepd: error: Detected 1 oom_kill event in StepId=51.0. Some of the step tasks have been OOM Killed."
    )
    vanish(it.runs[0])
    it.after(128 + signal.SIGKILL)
    assert it.ends() == {"oom": 1}


def test_a_failure_that_is_not_retried_ends_the_trial_with_its_kind(task: Any) -> None:
    it = task(1, "none")
    it.logged("slurmstepd: error: *** STEP 51.0 ON n0 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***")
    vanish(it.runs[0])
    assert it.after(128 + signal.SIGKILL) == 0
    assert it.states() == ["failed"]
    assert it.runs[0].status()["failure"] == "time"
    assert it.requeued == []


def test_a_step_that_ends_before_its_first_trial_is_not_started_again_for_ever(task: Any) -> None:
    it = task(2)
    it.logged("ModuleNotFoundError: No module named 'bench'")
    assert it.after(1) == 0
    assert it.states() == ["failed", "failed"]
    assert "its job step ended with exit code 1: the code raised an error" in it.runs[0].status()["error"]
    assert it.requeued == []


def test_a_cancelled_step_is_no_failure_and_not_put_back(task: Any) -> None:
    it = task()
    it.logged("slurmstepd: error: *** STEP 51.0 ON n0 CANCELLED AT 2026-01-01T00:00:00 ***")
    vanish(it.runs[0])
    assert it.after(1) == 1
    assert it.requeued == []
    assert it.states() == ["lost"]


def test_a_trial_that_another_job_runs_is_left_alone(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    it = task()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "49")
    it.runs[0].claim().beat(3, 10, force=True)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "50")
    assert it.after(128 + signal.SIGKILL) == 0
    assert it.states() == ["running"]
    assert it.requeued == []


def test_a_queue_that_takes_nothing_back_is_said(
    task: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    it = task()
    it.step(warned)

    def refuse(job: str) -> None:
        raise slurm.SlurmError("`scontrol requeue 50_1` failed: Requested operation is presently disabled")

    monkeypatch.setattr(slurm, "requeue", refuse)
    assert it.after(GO_ON) == 2
    assert "presently disabled" in capsys.readouterr().err
    assert it.states() == ["pending"]


# --- the script -------------------------------------------------------------------------------------------------------


def run_script(tmp_path: Path, code: int, says: str) -> list[str]:
    """Run the script's lines with a stand-in for Python whose step logs something and ends with `code`."""
    python, log = tmp_path / "python", tmp_path / "array-0" / "50_1_0_log.out"
    log.parent.mkdir()
    python.write_text(
        f'#!/bin/sh\necho "$@" >> "{tmp_path}/told"\n'
        f'case "$*" in *after*) exit 9;; *) echo "{says}" >> "$CLIPBED_LOG"; exit {code};; esac\n'
    )
    python.chmod(0o755)
    before, command, after = script_lines(str(python), tmp_path / "array-0.json")
    job = {**os.environ, "SLURM_ARRAY_JOB_ID": "50", "SLURM_ARRAY_TASK_ID": "1"}
    subprocess.run(["bash", "-c", "\n".join([*before, command, *after])], check=False, capture_output=True, env=job)
    return (tmp_path / "told").read_text().splitlines()


@pytest.mark.parametrize(
    ("code", "says", "settled"),
    [(0, array_task._OVER, False), (0, "training", True), (75, "", True), (137, "", True)],
)
def test_the_script_settles_a_step_unless_that_said_it_is_over(
    tmp_path: Path, code: int, says: str, settled: bool
) -> None:
    told = run_script(tmp_path, code, says)
    assert told[0] == f"-u -m bench.array_task run {tmp_path}/array-0.json"
    assert told[1:] == [f"-m bench.array_task after {tmp_path}/array-0.json {code}"] * settled


def test_a_step_killed_by_scancel_ends_with_0_and_is_settled_all_the_same(task: Any) -> None:
    it = task()
    vanish(it.runs[0])
    it.after(0)
    assert it.ends() == {"killed": 1}
    assert it.requeued == ["50_1"]


def test_a_preparation_is_not_settled(tmp_path: Path) -> None:
    _, command, after = script_lines("python", tmp_path / "a b.json", prepares=True)
    assert command == f"python -u -m bench.array_task prepare '{tmp_path}/a b.json'"
    assert after == []
