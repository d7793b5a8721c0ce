"""Run folders: states, claims, fenced attempts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import places, store
from bench import process as process_of
from bench.errors import Conflict, SpecError, UnknownName
from bench.failures import Failure
from bench.launch import bury
from bench.process import LOST_AFTER_SECONDS
from bench.runs import delete, find_run, find_runs, publish
from bench.spec import Places, TrialSpec
from bench.store import Busy, Run, State, Superseded

NOW = 1_000_000.0


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(store, "time", made)
    return made


def spec(**changes: object) -> TrialSpec:
    fields: dict[str, object] = {
        "protocol": "leave_one_domain_out",
        "protocol_version": 1,
        "dataset": "PACS",
        "algorithm": "ERM",
        "test_domains": (0,),
        "backbone": "tiny",
        "pretrained": "embedded",
        "trial_seed": 0,
        "hparams_seed": 0,
        "hparams": {"lr": 0.1},
        "steps": 10,
        "evaluate_every": 5,
    }
    return TrialSpec(**{**fields, **changes})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "sweep", spec(), Places(data_dir="/data"))


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def living() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.communicate()


def say(run: Run, **status: object) -> None:
    """Write a status as another process would have."""
    (run.folder / "status.json").write_text(json.dumps(status))


def test_run_folder_is_named_by_the_trial_and_gives_it_back(run: Run) -> None:
    assert run.folder.name == run.trial_id == spec().trial_id
    assert (Run(run.folder).spec, Run(run.folder).places) == (spec(), Places(data_dir="/data"))


def test_creating_again_keeps_the_spec_and_moves_the_places(run: Run, tmp_path: Path) -> None:
    before = (run.folder / "spec.json").stat().st_mtime_ns
    again = Run.create(tmp_path / "sweep", spec(), Places(data_dir="/elsewhere"))
    assert again.folder == run.folder and again.places.data_dir == "/elsewhere"
    assert (run.folder / "spec.json").stat().st_mtime_ns == before


def test_a_trial_finds_what_it_was_launched_with_after_others_were_launched_without(tmp_path: Path) -> None:
    captioned = Run.create(tmp_path, spec(captions="file:12"), Places(data_dir="/data", captions="/c.tsv"))
    plain = Run.create(tmp_path, spec(), Places(data_dir="/elsewhere"))
    assert captioned.places == Places(data_dir="/data", captions="/c.tsv")
    assert plain.places == Places(data_dir="/elsewhere")


def test_launches_at_one_moment_lose_none_of_each_others_places(tmp_path: Path) -> None:
    def launch(first: int) -> None:
        for number in range(first, 40, 2):
            places.remember(tmp_path, [(spec(dataset=f"folder:{number}"), Places(data_dir=f"/{number}"))])

    threads = [threading.Thread(target=launch, args=(first,)) for first in (0, 1)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [places.recall(tmp_path, spec(dataset=f"folder:{i}")).data_dir for i in range(40)] == [
        f"/{i}" for i in range(40)
    ]


def test_creating_mends_a_folder_that_a_kill_left_without_its_spec(run: Run, tmp_path: Path) -> None:
    for damage in (lambda path: path.write_text(""), lambda path: path.unlink()):
        damage(run.folder / "spec.json")
        assert Run.create(tmp_path / "sweep", spec(), Places()).spec == spec()


def test_folder_without_a_readable_spec_is_refused(run: Run) -> None:
    (run.folder / "spec.json").write_text('{"torn": ')
    with pytest.raises(SpecError, match="no readable spec"):
        Run(run.folder).spec  # noqa: B018
    assert Run(run.folder).spec_json() is None


def test_states_from_pending_to_done(run: Run) -> None:
    assert run.state() is State.PENDING
    attempt = run.claim()
    assert run.state() is State.RUNNING
    attempt.beat(3, 10, force=True)
    assert run.state() is State.RUNNING and run.status()["step"] == 3
    run.checkpoint_path.touch()
    attempt.write_records([{"step": 0}])
    assert run.records() == ([{"step": 0}], 0)
    attempt.finish([{"step": 0}], 10, 10)
    assert run.state() is State.DONE and run.is_done
    assert run.records() == ([{"step": 0}], 0)
    assert not run.checkpoint_path.exists()


def test_failed_trial_keeps_its_error_until_it_is_reset(run: Run) -> None:
    attempt = run.claim()
    attempt.fail("Traceback …\nValueError: é", "ValueError: é")
    assert run.state() is State.FAILED and run.status()["error"] == "ValueError: é"
    assert run.error() == "Traceback …\nValueError: é"
    run.reset()
    assert run.state() is State.PENDING and run.error() is None
    assert run.claim().number == 2


def test_released_trial_is_pending_and_keeps_its_checkpoint(run: Run) -> None:
    attempt = run.claim()
    run.checkpoint_path.touch()
    attempt.release(4, 10)
    assert run.state() is State.PENDING and run.status()["step"] == 4
    assert run.checkpoint_path.exists() and run.claim().number == 2


def test_live_attempt_cannot_be_claimed_again_even_before_it_says_anything(run: Run) -> None:
    attempt = run.claim()
    with pytest.raises(Busy):
        Run(run.folder).claim()
    attempt.beat(0, 10, force=True)
    with pytest.raises(Busy):
        Run(run.folder).claim()


def test_claim_of_a_process_that_died_before_it_said_anything_counts_for_nothing(run: Run, dead_pid: int) -> None:
    claim = {"host": os.uname().nodename, "pid": dead_pid, "born": 1, "claimed": NOW}
    (run.folder / "attempt.1").write_text(json.dumps(claim))
    assert run.state() is State.PENDING
    (run.folder / "attempt.2").write_text('{"host": ')  # killed while it wrote its claim
    assert run.claim().number == 3


def test_dead_process_is_lost_and_can_be_followed(run: Run, dead_pid: int) -> None:
    first = run.claim()
    first.beat(5, 10, force=True)
    say(run, **{**run.status(), "pid": dead_pid})
    assert run.state() is State.LOST
    assert run.claim().number == 2 and run.state() is State.RUNNING


def test_reused_process_number_is_not_the_old_process(run: Run, living: subprocess.Popen[bytes]) -> None:
    run.claim().beat(5, 10, force=True)
    status = {**run.status(), "pid": living.pid}
    say(run, **{**status, "born": process_of._birth(living.pid)})
    assert run.state() is State.RUNNING
    say(run, **{**status, "born": process_of._birth(living.pid) - 1})
    assert run.state() is State.LOST


def test_process_that_ended_but_was_not_reaped_is_lost(run: Run) -> None:
    run.claim().beat(5, 10, force=True)
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    say(run, **{**run.status(), "pid": process.pid, "born": process_of._birth(process.pid)})
    assert run.state() is State.RUNNING
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended and is a zombie now
    assert run.state() is State.LOST
    process.wait()


@pytest.mark.parametrize(
    ("age", "state"), [(0, State.RUNNING), (LOST_AFTER_SECONDS - 1, State.RUNNING), (LOST_AFTER_SECONDS, State.LOST)]
)
def test_process_of_another_host_is_judged_by_its_heartbeat(age: float, state: State, run: Run) -> None:
    say(run, state="running", attempt=1, host="elsewhere", pid=1, born=1, heartbeat=NOW)
    assert run.state(now=NOW + age) is state


def test_heartbeat_is_written_at_most_every_few_seconds(run: Run, clock: Clock) -> None:
    attempt = run.claim()
    attempt.beat(1, 10)
    clock.now += store.HEARTBEAT_SECONDS - 0.1
    attempt.beat(2, 10)
    assert run.status()["step"] == 1
    clock.now += 0.1
    attempt.beat(3, 10, rate=2.5)
    assert (run.status()["step"], run.status()["rate"], run.status()["heartbeat"]) == (3, 2.5, clock.now)


def test_superseded_attempt_writes_nothing_more(run: Run, dead_pid: int) -> None:
    old = run.claim()
    old.beat(5, 10, force=True)
    old.write_records([{"step": 0}])
    say(run, **{**run.status(), "pid": dead_pid})  # taken for dead
    new = Run(run.folder).claim()
    new.beat(5, 10, force=True)
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    for write in (
        lambda: old.beat(6, 10, force=True),
        lambda: old.write_records([{"step": 6}]),
        lambda: old.write_env({}),
        lambda: old.finish([{"step": 6}], 10, 10),
        lambda: old.fail("trace", "line"),
        lambda: old.release(6, 10),
    ):
        with pytest.raises(Superseded):
            write()
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before
    new.finish([{"step": 0}], 10, 10)
    assert run.is_done


@pytest.mark.parametrize("when", ["before the look", "after the look"])
def test_two_claims_at_one_moment_give_one_holder(run: Run, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    holders = []
    look = Run.look

    def look_while_another_claims(self: Run, now: float | None = None) -> tuple[State, dict[str, object]]:
        monkeypatch.setattr(Run, "look", look)
        found = look(self) if when == "after the look" else None
        holders.append(Run(run.folder).claim())
        return found or look(self)

    monkeypatch.setattr(Run, "look", look_while_another_claims)
    with pytest.raises(Busy):
        run.claim()
    holders[0].check()
    assert [path.name for path in run.folder.glob("attempt.*")] == ["attempt.1"]


def test_a_trial_that_is_done_is_not_claimed(run: Run) -> None:
    run.claim().finish([{"step": 10}], 10, 10)
    with pytest.raises(Busy):
        run.claim()
    assert run.is_done


def test_tries_are_of_processes_that_began_and_not_of_those_that_said_how_they_ended(run: Run, dead_pid: int) -> None:
    assert run.tries == 0
    for number in (1, 2):
        run.claim().beat(1, 10, force=True)
        say(run, **{**run.status(), "pid": dead_pid})
        assert bury(run, Failure.KILLED, "gone") is State.FAILED
        assert run.tries == number
        run.reset()


def test_a_retry_leaves_a_cancelled_trial_cancelled_and_asking_again_does_not(run: Run) -> None:
    run.claim().fail("trace", "line", "disk")
    run.cancel()
    assert run.state() is State.FAILED  # it is told that it failed
    run.reset(keep_ends=True)
    assert run.state() is State.CANCELLED
    run.reset()
    assert run.state() is State.PENDING


def test_last_words_are_whole_however_long_the_error_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = run.claim()

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.files, "replace_text", full)
    monkeypatch.setattr(store.files, "replace_json", full)
    attempt.fail("trace", "\u2620" * 9000, "disk")
    state, said = run.look()
    assert state is State.FAILED and said["failure"] == "disk" and said["error"].startswith("\u2620")


def test_claim_clears_what_a_killed_writer_left(run: Run) -> None:
    (run.folder / ".results.jsonl.x.tmp").touch()
    os.utime(run.folder / ".results.jsonl.x.tmp", (0, 0))
    run.claim()
    assert not (run.folder / ".results.jsonl.x.tmp").exists()


def test_torn_records_and_status_are_survived(run: Run) -> None:
    (run.folder / "partial.jsonl").write_text('{"step": 0}\nnonsense\n{"step": 5')
    assert run.records() == ([{"step": 0}], 2)
    for torn in ("", '{"state": "done"', "[]", '"done"'):
        (run.folder / "status.json").write_text(torn)
        assert run.state() is State.PENDING and not run.is_done


def test_deleted_run_is_gone(run: Run) -> None:
    attempt = run.claim()
    assert delete([run]) == 0 and run.state() is State.RUNNING
    attempt.release(0, 1)
    assert delete([run]) == 1
    assert not run.folder.exists()


def test_runs_are_found_one_and_two_levels_down_in_order(tmp_path: Path) -> None:
    made = [Run.create(tmp_path / sweep, spec(trial_seed=i), Places()) for sweep in ("b", "a") for i in range(2)]
    (tmp_path / "a" / "no_run").mkdir()
    (tmp_path / "notes.txt").touch()
    expected = sorted(run.folder for run in made)
    assert [run.folder for run in find_runs(tmp_path)] == expected
    assert [run.folder for run in find_runs(tmp_path / "a")] == expected[:2]
    assert [run.folder for run in find_runs(expected[0])] == expected[:1]
    assert find_runs(tmp_path / "nowhere") == []


def test_run_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a", spec(), Places())
    assert find_run(tmp_path, run.trial_id[:6]).folder == run.folder
    with pytest.raises(UnknownName, match="begins with 'zz'"):
        find_run(tmp_path, "zz")
    twin = Run.create(tmp_path / "b", spec(), Places())
    with pytest.raises(Conflict) as caught:
        find_run(tmp_path, run.trial_id)
    assert str(run.folder) in str(caught.value) and str(twin.folder) in str(caught.value)


def test_a_done_trial_without_records_is_lost_and_may_be_run_again(run: Run) -> None:
    attempt = run.claim()
    attempt.finish([{"step": 0}], 1, 1)
    assert run.is_done
    (run.folder / "results.jsonl").write_text("")
    assert not run.is_done and run.state() is State.LOST
    run.claim()


def test_publishing_other_records_of_a_trial_is_refused(run: Run, tmp_path: Path) -> None:
    attempt = run.claim()
    attempt.finish([{"step": 0}], 1, 1)
    publish(run, tmp_path / "shown")
    assert Run(tmp_path / "shown" / run.trial_id).records() == run.records()
    publish(run, tmp_path / "shown")  # the same again is no conflict
    (run.folder / "results.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(Conflict, match="other records"):
        publish(run, tmp_path / "shown")
    assert Run(tmp_path / "shown" / run.trial_id).records()[0] == [{"step": 0}]
