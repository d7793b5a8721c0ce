"""Claims of launches: one launcher at a time, a dead one is passed by, a live one that was passed by notices."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bench import files, launches
from bench.errors import Conflict
from bench.launches import FOLDER, Array, Launch, arrays, job_name, tasks_of_trials
from bench.process import LOST_AFTER_SECONDS, this_process
from tests.fakes import wait_until

ROOT = Path(__file__).resolve().parents[1]

CLAIM_AND_HOLD = """
import sys, time
from pathlib import Path
from bench.launches import Launch
sweep = Path(sys.argv[1])
launch = Launch.claim(sweep)
(sweep / f"in.{launch.folder.name}").write_text(str(time.time()))
time.sleep(0.4)
(sweep / f"out.{launch.folder.name}").write_text(str(time.time()))
launch.finish(trials=1)
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "_POLL_SECONDS", 0.02)


def array(launch: Launch, *tasks: tuple[str, ...], prepares: bool = False) -> Array:
    path = launch.next_array()
    made = Array(name=job_name(path), sweep=str(path.parents[2]), tasks=tasks, threads=1, prepares=prepares)
    made.write(path)
    return made


def claim_in_background(sweep: Path, **options: Any) -> tuple[threading.Thread, list[Launch]]:
    got: list[Launch] = []
    thread = threading.Thread(target=lambda: got.append(Launch.claim(sweep, **options)), daemon=True)
    thread.start()
    return thread, got


def write_claim(launch: Launch, *, age: float = 0.0, **changes: Any) -> None:
    claim = {**this_process(), "heartbeat": time.time() - age, **changes}
    files.replace_json(launch.folder / "claim.json", claim)


def test_of_processes_that_claim_at_once_one_is_at_work_at_a_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIM_AND_HOLD, str(tmp_path)]
    started = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [each.wait(60) for each in started] == [0, 0, 0]
    spans = sorted(
        (float(path.read_text()), float((tmp_path / f"out.{path.suffix[1:]}").read_text()))
        for path in tmp_path.glob("in.*")
    )
    assert len(spans) == 3
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert sorted(os.listdir(tmp_path / FOLDER)) == ["0001", "0002", "0003"]


def test_a_claim_waits_until_the_launch_before_has_sent_everything(tmp_path: Path) -> None:
    first = Launch.claim(tmp_path)
    thread, got = claim_in_background(tmp_path)
    thread.join(0.2)
    assert not got
    first.finish(trials=3)
    thread.join(10)
    assert got[0].folder.name == "0002"
    assert first.details()["trials"] == 3


def test_a_claim_waits_for_a_launcher_of_another_host_while_its_heart_beats(tmp_path: Path) -> None:
    first = Launch.claim(tmp_path)
    write_claim(first, host="elsewhere", age=LOST_AFTER_SECONDS - 60)
    thread, got = claim_in_background(tmp_path)
    thread.join(0.2)
    assert not got
    write_claim(first, host="elsewhere", age=LOST_AFTER_SECONDS + 1)
    thread.join(10)
    assert got[0].folder.name == "0002"


def test_a_launcher_that_died_on_this_host_is_passed_at_once(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    write_claim(Launch.claim(tmp_path), pid=gone.pid)
    assert Launch.claim(tmp_path).folder.name == "0002"


def test_a_folder_without_a_claim_is_passed_when_patience_is_over(tmp_path: Path) -> None:
    (tmp_path / FOLDER / "0001").mkdir(parents=True)  # it died between making its folder and its first word
    began = time.monotonic()
    assert Launch.claim(tmp_path, patience=0.3).folder.name == "0002"
    assert time.monotonic() - began >= 0.2


def test_a_launcher_that_was_taken_for_dead_notices_before_it_sends_more(tmp_path: Path) -> None:
    first = Launch.claim(tmp_path)
    write_claim(first, host="elsewhere", age=LOST_AFTER_SECONDS + 1)
    second = Launch.claim(tmp_path)
    with pytest.raises(Conflict, match=r"another launch of .* has begun"):
        first.beat()
    second.beat()


def test_a_pulse_goes_on_while_the_launcher_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "_PULSE_SECONDS", 0.05)
    launch = Launch.claim(tmp_path)
    write_claim(launch, age=1000)

    def age() -> float:
        return time.time() - float((files.read_json(launch.folder / "claim.json") or {})["heartbeat"])

    with launch.pulse():
        wait_until(lambda: age() < 100)
    write_claim(launch, age=1000)
    time.sleep(0.2)
    assert age() > 100  # it ends with the block


def test_a_launch_of_which_nothing_was_sent_leaves_nothing(tmp_path: Path) -> None:
    Launch.claim(tmp_path).withdraw()
    assert os.listdir(tmp_path / FOLDER) == []
    thread, got = claim_in_background(tmp_path)
    thread.join(10)
    assert got[0].folder.name == "0001"


def test_a_claim_that_waits_goes_on_when_the_other_is_withdrawn(tmp_path: Path) -> None:
    first = Launch.claim(tmp_path)
    thread, got = claim_in_background(tmp_path)
    thread.join(0.1)
    first.withdraw()
    thread.join(10)
    assert got and got[0].details() == {}


def test_an_array_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    launch = Launch.claim(tmp_path)
    made = array(launch, ("a", "b"), ("c",))
    assert Array.read(launch.folder / "array-0.json") == made
    assert launch.next_array().name == "array-1.json"
    (launch.folder / "array-0.json").write_text('{"name": ')
    assert Array.read(launch.folder / "array-0.json") is None
    assert Array.read(launch.folder / "array-7.json") is None


def test_the_latest_launch_says_which_task_a_trial_is_in(tmp_path: Path) -> None:
    first = Launch.claim(tmp_path)
    old = array(first, ("a", "b"), ("c",))
    array(first, ("a",), prepares=True)
    first.finish(trials=3)
    second = Launch.claim(tmp_path)
    new = array(second, ("d",), ("c", "a"))
    assert tasks_of_trials(tmp_path) == {"a": (new.name, 1), "b": (old.name, 0), "c": (new.name, 1), "d": (new.name, 0)}
    assert tasks_of_trials(tmp_path / "nothing here") == {}


def test_launches_keep_their_order_beyond_four_digits(tmp_path: Path) -> None:
    for number in ("9999", "10000"):
        launch = Launch(tmp_path / FOLDER / number)
        launch.folder.mkdir(parents=True)
        array(launch, ("a",))
        launch.finish()
    assert tasks_of_trials(tmp_path)["a"][0].endswith("-10000-0")
    assert Launch.claim(tmp_path).folder.name == "10001"


def test_a_damaged_array_hides_no_other(tmp_path: Path) -> None:
    launch = Launch.claim(tmp_path)
    array(launch, ("a",))
    kept = array(launch, ("b",))
    (launch.folder / "array-0.json").write_bytes(b"")
    assert [each.name for each in arrays(tmp_path)] == [kept.name]


def test_names_of_arrays_are_plain_and_tell_folders_launches_and_arrays_apart(tmp_path: Path) -> None:
    paths = [
        tmp_path / sweep / FOLDER / launch / f"array-{k}.json"
        for sweep in ("my sweep, ü", "a/my sweep, ü")
        for launch in ("0001", "0002")
        for k in (0, 1)
    ]
    names = [job_name(path) for path in paths]
    assert len(set(names)) == len(paths)
    for name in names:  # a comma would end a name in a list of squeue's
        assert name.startswith("clipbed-my-sweep-")
        assert name.replace("-", "").replace(".", "").replace("_", "").isalnum()
        assert name.isascii()


def test_a_name_does_not_depend_on_how_the_folder_is_spelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "sweep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    spelt = [Path("real/sweep"), tmp_path / "link" / "sweep", tmp_path / "real" / ".." / "real" / "sweep"]
    assert len({job_name(each / FOLDER / "0001" / "array-0.json") for each in spelt}) == 1
