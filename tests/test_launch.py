"""Launchers: every trial ends done or failed, whatever happens to its process, to another launch, or to this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bench import local_pool, machine
from bench.failures import RetryRule
from bench.launch import InProcess, Stopped
from bench.local_pool import LocalPool
from bench.places import mark_prepared
from bench.spec import Places
from bench.store import State
from tests import fakes
from tests.fakes import Recorder, make_runs

ROOT = Path(__file__).resolve().parents[1]


def pool(trial: Any, jobs: int = 2, **options: Any) -> LocalPool:
    rule = options.pop("retry", "none")
    return LocalPool(
        jobs=jobs, threads=1, device="cpu", retry=RetryRule.parse(rule), trial=trial, preload=(), **options
    )


def states(runs: list[Any]) -> list[str]:
    return [run.state().value for run in runs]


def test_pool_finishes_every_trial_and_keeps_its_bound(tmp_path: Path) -> None:
    runs, seen = make_runs(tmp_path, 5), Recorder()
    pool(fakes.finish).run(runs, seen)
    assert states(runs) == ["done"] * 5
    assert seen.most <= 2
    assert sorted(seen.started_trials) == sorted(run.trial_id for run in runs)


def test_pool_goes_on_when_a_trial_fails(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, 3)
    pool(fakes.fail_second).run(runs, Recorder())
    assert states(runs) == ["done", "failed", "done"]


def test_pool_names_the_signal_when_a_process_is_killed(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, 3)
    pool(fakes.die_second).run(runs, Recorder())
    assert states(runs) == ["done", "failed", "done"]
    assert "SIGKILL (signal 9)" in runs[1].status()["error"]
    assert "about to die" in (runs[1].error() or "")


def test_a_killed_trial_is_tried_again_as_often_as_the_rule_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryRule, "delay", lambda self, failure, ends: 0.0)
    runs = make_runs(tmp_path, 2)
    pool(fakes.die_first, retry="none,killed=1").run(runs, Recorder())
    assert states(runs) == ["done", "done"]
    assert [run.status()["ends"] for run in runs] == [{"killed": 1}] * 2
    (hopeless,) = make_runs(tmp_path / "more", 2)[1:]
    pool(fakes.die_second, retry="none,killed=1").run([hopeless], Recorder())
    assert hopeless.state() is State.FAILED
    assert hopeless.status()["ends"] == {"killed": 2} and hopeless.status()["failure"] == "killed"


def test_a_trial_that_waits_for_its_retry_is_pending_when_the_pool_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryRule, "delay", lambda self, failure, ends: 600.0)
    run = make_runs(tmp_path, 2)[1]

    class StopsAtTheFailure(Recorder):
        def ended(self, run: Any, state: State) -> None:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        pool(fakes.die_second, retry="none,killed=1").run([run], StopsAtTheFailure())
    assert run.state() is State.PENDING
    assert run.status()["ends"] == {"killed": 1}


def test_a_cancelled_trial_is_left_out_and_a_launch_may_take_it_up_again(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, 2)
    runs[0].cancel()
    pool(fakes.finish).run(runs, Recorder())
    assert states(runs) == ["cancelled", "done"]
    runs[0].reset()
    pool(fakes.finish).run(runs, Recorder())
    assert states(runs) == ["done", "done"]


def test_a_pool_that_waits_for_nobody_leaves_a_trial_to_a_holder_whose_heart_beats(tmp_path: Path) -> None:
    (run,) = make_runs(tmp_path, 1)
    attempt = run.claim()
    attempt.beat(1, 10, force=True)
    beats = threading.Timer(3.0, lambda: attempt.beat(2, 10, force=True))
    beats.start()
    pool(fakes.finish, leave_held=True).run([run], Recorder())
    beats.join()
    assert run.state() is State.RUNNING and run.tries == 1


def test_pool_writes_down_the_bug_when_a_process_ends_before_its_trial_begins(tmp_path: Path) -> None:
    (run,) = make_runs(tmp_path, 1)
    pool(fakes.exit_early).run([run], Recorder())
    assert run.state() is State.FAILED
    assert "exit code 1" in run.status()["error"]
    assert "no such luck" in (run.error() or "")


def test_pool_gives_up_on_a_trial_that_never_ends(tmp_path: Path) -> None:
    (run,) = make_runs(tmp_path, 1)
    pool(fakes.give_back).run([run], Recorder())
    assert run.state() is State.FAILED
    assert len(list(run.folder.glob("attempt.*"))) == local_pool.MOST_STARTS + 1


def test_pool_stops_after_so_many_failures(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, 4)
    pool(fakes.fail, jobs=1, max_failures=2).run(runs, Recorder())
    assert states(runs) == ["failed", "failed", "pending", "pending"]


def test_pool_waits_for_a_trial_that_another_process_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pool, "HELD_SECONDS", 0.1)
    (run,) = make_runs(tmp_path, 1)
    attempt = run.claim()
    attempt.beat(1, 10, force=True)
    timer = threading.Timer(1.0, lambda: attempt.release(1, 10))
    timer.start()
    seen = Recorder()
    pool(fakes.finish).run([run], seen)
    timer.join()
    assert run.state() is State.DONE
    assert seen.started_trials == [run.trial_id]


def test_pool_takes_the_result_when_another_launch_finishes_a_trial(tmp_path: Path) -> None:
    (run,) = make_runs(tmp_path, 1)
    fakes.finish(str(run.folder), threads=None, device=None)
    seen = Recorder()
    pool(fakes.finish).run([run], seen)
    assert seen.started_trials == []
    assert seen.ended_trials == [(run.trial_id, "done")]


def test_two_pools_on_the_same_trials_run_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pool, "HELD_SECONDS", 0.1)
    runs = make_runs(tmp_path, 6)
    pools = [pool(fakes.finish) for _ in range(2)]
    threads = [threading.Thread(target=each.run, args=(runs, Recorder())) for each in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(runs) == ["done"] * 6


def test_pool_divides_threads_and_gpus_and_keeps_what_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = make_runs(tmp_path, 1)
    monkeypatch.setattr(LocalPool, "_gpus", lambda self: ("7",))
    LocalPool(threads=3, trial=fakes.finish_noting_environment, preload=()).run([run], Recorder())
    said = run.log_path.read_text()
    assert "threads=3" in said
    assert "GPU=7" in said


def test_quiet_trial_leaves_no_log(tmp_path: Path) -> None:
    (run,) = make_runs(tmp_path, 1)
    pool(fakes.finish).run([run], Recorder())
    assert not run.log_path.exists()


def test_default_jobs_follow_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 64)
    monkeypatch.setattr(machine, "usable_gigabytes", lambda: 500.0)
    assert machine.cpu_jobs() == machine.MOST_JOBS
    monkeypatch.setattr(machine, "usable_gigabytes", lambda: 7.0)
    assert machine.cpu_jobs() == 2
    monkeypatch.setattr(machine, "usable_gigabytes", lambda: 1.0)
    assert machine.cpu_jobs() == 1


def test_visible_gpus_stay_within_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.visible_gpus(2) == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    assert machine.visible_gpus(2) == ("5", "GPU-abc")


def test_thread_variables_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with machine.thread_variables(3):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "9"
    assert "MKL_NUM_THREADS" not in os.environ


def test_data_are_prepared_once_for_all_launches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(LocalPool, "_ask", lambda self, function, arguments, say: mark_prepared(*arguments))
    trials = [
        (fakes.make_spec(trial_seed=seed, dataset=name), Places(cache=str(tmp_path)))
        for seed in range(2)
        for name in ("A", "B")
    ]
    LocalPool().prepare(trials[:3], said.append)
    assert said == ["preparing A for tiny", "preparing B for tiny"]
    LocalPool().prepare(trials, said.append)
    assert len(said) == 2
    elsewhere = [(spec, Places(cache=str(tmp_path / "other"))) for spec, _ in trials[:1]]
    LocalPool().prepare(elsewhere, said.append)
    assert said[2:] == ["preparing A for tiny"]


def test_in_process_runs_in_order_and_stops_when_a_trial_was_stopped(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, 2)
    with pytest.raises(Stopped):
        InProcess(trial=fakes.give_back).run(runs, Recorder())
    assert not list(runs[1].folder.glob("attempt.*"))
    InProcess(trial=fakes.finish).run(runs, Recorder())
    assert states(runs) == ["done", "done"]


_LAUNCH = """
import sys
from pathlib import Path
from bench.launch import Stopped
from bench.local_pool import LocalPool
from bench.runs import find_runs
from tests import fakes
if __name__ == "__main__":
    pool = LocalPool(jobs=2, threads=1, device="cpu", trial=fakes.wait_for_stop, preload=())
    try:
        pool.run(find_runs(Path(sys.argv[1])), fakes.Recorder())
    except Stopped as stopped:
        sys.exit(stopped.number)
"""


def start_waiting_launch(tmp_path: Path, runs: list[Any]) -> subprocess.Popen[bytes]:
    script = tmp_path / "launch_script.py"
    script.write_text(_LAUNCH)
    command = [sys.executable, str(script), str(tmp_path / "sweep")]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)
    fakes.wait_until(lambda: states(runs[:2]) == ["running", "running"])
    return process


def test_children_give_their_trials_back_when_the_launch_is_killed(tmp_path: Path) -> None:
    runs = sorted(make_runs(tmp_path / "sweep", 2), key=lambda run: run.trial_id)
    process = start_waiting_launch(tmp_path, runs)
    process.kill()
    process.wait()
    fakes.wait_until(lambda: states(runs) == ["pending", "pending"])
    assert states(runs) == ["pending", "pending"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_launch_stops_its_children_when_it_is_asked_to(tmp_path: Path, number: signal.Signals) -> None:
    runs = sorted(make_runs(tmp_path / "sweep", 3), key=lambda run: run.trial_id)
    process = start_waiting_launch(tmp_path, runs)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    assert process.wait(30) == number
    assert states(runs) == ["pending"] * 3


def test_pool_works_where_there_is_no_fork_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pool.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    runs = make_runs(tmp_path, 2)
    pool(fakes.fail_second).run(runs, Recorder())
    assert states(runs) == ["done", "failed"]


def company(runs: list[Any]) -> list[tuple[str, int]]:
    """Give the process of each trial, and how many others it had there."""
    words = [(run.folder / "company.txt").read_text().split() for run in runs]
    return [(pid, int(others)) for pid, others in words]


@pytest.fixture
def one_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all trials but the one with seed 3 be on one path."""
    monkeypatch.setattr(local_pool, "path_of", lambda spec: None if spec.trial_seed == 3 else "path")


def test_trials_on_one_path_are_run_in_one_process_and_one_slot(tmp_path: Path, one_path: None) -> None:
    runs, seen = make_runs(tmp_path, 5), Recorder()
    pool(fakes.finish_all, jobs=1).run(runs, seen)
    assert states(runs) == ["done"] * 5
    assert [others for _, others in company(runs)] == [3, 3, 3, 0, 3]
    assert len({pid for pid, _ in company(runs)}) == 2
    assert sorted(seen.started_trials) == sorted(run.trial_id for run in runs)
    assert sorted(seen.ended_trials) == sorted((run.trial_id, "done") for run in runs)


def test_without_sharing_every_trial_has_a_process_of_its_own(tmp_path: Path, one_path: None) -> None:
    runs = make_runs(tmp_path, 3)
    pool(fakes.finish_all, share=False).run(runs, Recorder())
    assert [others for _, others in company(runs)] == [0, 0, 0]


def test_no_more_trials_share_a_process_than_its_memory_bears(
    tmp_path: Path, one_path: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_pool, "MOST_TOGETHER", 2)
    runs = [run for run in make_runs(tmp_path, 6) if run.spec.trial_seed != 3]
    pool(fakes.finish_all).run(runs, Recorder())
    assert sorted(others for _, others in company(runs)) == [0, 1, 1, 1, 1]


def test_trials_whose_shared_process_dies_are_run_by_themselves_and_none_fails(tmp_path: Path, one_path: None) -> None:
    runs = make_runs(tmp_path, 3)
    pool(fakes.die_in_company).run(runs, Recorder())  # no failure would be tried again
    assert states(runs) == ["done"] * 3
    assert [others for _, others in company(runs)] == [0, 0, 0]
    assert [run.status()["ends"] for run in runs] == [{"killed": 1}] * 3


def test_trials_that_are_given_back_by_their_company_are_run_by_themselves(tmp_path: Path, one_path: None) -> None:
    runs = make_runs(tmp_path, 3)
    pool(fakes.give_back_in_company).run(runs, Recorder())
    assert states(runs) == ["done"] * 3
    assert [run.tries for run in runs] == [1, 2, 2]


def test_a_trial_that_ran_out_of_memory_before_is_run_by_itself(tmp_path: Path, one_path: None) -> None:
    runs = make_runs(tmp_path, 3)
    runs[1].claim().fail("…", "MemoryError", "oom")
    runs[1].reset(keep_ends=True)
    pool(fakes.finish_all).run(runs, Recorder())
    assert [others for _, others in company(runs)] == [1, 0, 1]


def test_a_finished_or_held_trial_is_no_company(
    tmp_path: Path, one_path: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_pool, "HELD_SECONDS", 0.1)
    runs = make_runs(tmp_path, 3)
    fakes.finish_all(str(runs[0].folder), threads=None, device=None)
    attempt = runs[1].claim()
    attempt.beat(1, 10, force=True)
    timer = threading.Timer(1.0, lambda: attempt.release(1, 10))
    timer.start()
    pool(fakes.finish_all).run(runs, Recorder())
    timer.join()
    assert [others for _, others in company(runs)] == [0, 0, 0]


def test_trials_of_two_sweeps_never_share_a_process(tmp_path: Path, one_path: None) -> None:
    runs = [*make_runs(tmp_path / "one", 1), *make_runs(tmp_path / "two", 1)]
    pool(fakes.finish_all).run(runs, Recorder())
    assert [others for _, others in company(runs)] == [0, 0]
