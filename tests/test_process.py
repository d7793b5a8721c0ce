"""Who lives: processes of this host by their number and birth, others by their heartbeat, our own job by its restarts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.process import LOST_AFTER_SECONDS, is_alive, is_replaced, slurm_job, this_process
from tests.fakes import wait_until

NOW = 1_000_000.0


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def enter_job(monkeypatch: pytest.MonkeyPatch, *, restart: int = 0, node: str = "n1") -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "14")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURMD_NODENAME", node)
    if restart:  # Slurm sets it from the first restart on
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))


def said(**changes: Any) -> dict[str, Any]:
    return {**this_process(), "heartbeat": NOW, **changes}


def by_job(restart: int, job: str = "12_3") -> dict[str, Any]:
    return said(host="n1", slurm={"job": job, "restart": restart, "node": "n1"})


def test_the_job_is_named_by_array_and_task(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm_job() is None
    assert "slurm" not in this_process()
    monkeypatch.setenv("SLURM_JOB_ID", "14")
    assert slurm_job() == {"job": "14", "restart": 0, "node": ""}
    enter_job(monkeypatch, restart=2)
    assert slurm_job() == this_process()["slurm"] == {"job": "12_3", "restart": 2, "node": "n1"}


def test_this_process_lives_and_one_that_ended_does_not() -> None:
    assert is_alive(this_process(), time.time())
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    assert not is_alive({**this_process(), "pid": gone.pid}, time.time())


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="births are read from /proc")
def test_a_process_number_that_was_given_anew_is_not_the_old_process() -> None:
    ours = this_process()
    assert not is_alive({**ours, "born": ours["born"] - 1}, time.time())


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="zombies are seen in /proc")
def test_a_process_that_ended_and_was_not_waited_for_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    birth = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    named = {**this_process(), "pid": child.pid, "born": birth}
    assert is_alive(named, time.time())
    child.kill()
    wait_until(lambda: not is_alive(named, time.time()))
    child.wait()


def test_a_process_of_this_host_lives_however_long_it_has_been_silent() -> None:
    assert is_alive(said(heartbeat=0.0), NOW)


@pytest.mark.parametrize(("age", "alive"), [(LOST_AFTER_SECONDS - 1, True), (LOST_AFTER_SECONDS + 1, False)])
def test_a_process_of_another_host_is_judged_by_its_heartbeat(age: float, alive: bool) -> None:
    assert is_alive(said(host="elsewhere", heartbeat=NOW - age), NOW) is alive


@pytest.mark.parametrize("words", [{}, {"host": socket.gethostname()}, {"host": socket.gethostname(), "pid": -1}])
def test_nobody_lives_where_nothing_was_said(words: dict[str, Any]) -> None:
    assert not is_alive(words, NOW)


@pytest.mark.parametrize(
    ("ours", "theirs", "job", "alive"),
    [
        (1, 0, "12_3", False),  # Slurm gave up the earlier start of our job, whatever its heartbeat says
        (0, 0, "12_3", True),
        (0, 1, "12_3", True),
        (1, 0, "12_4", True),  # a neighbour's earlier start is no business of ours
    ],
)
def test_an_earlier_start_of_our_own_job_is_dead(
    ours: int, theirs: int, job: str, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_job(monkeypatch, restart=ours, node="n2")
    assert is_alive(by_job(theirs, job), NOW) is alive


@pytest.mark.parametrize(
    ("ours", "theirs", "job", "replaced"),
    [(0, 1, "12_3", True), (1, 1, "12_3", False), (1, 0, "12_3", False), (0, 1, "12_4", False)],
)
def test_a_later_start_of_our_own_job_has_replaced_us(
    ours: int, theirs: int, job: str, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_job(monkeypatch, restart=ours)
    assert is_replaced(by_job(theirs, job)) is replaced


def test_nothing_replaces_a_process_outside_of_jobs() -> None:
    assert not is_replaced(by_job(5))
    assert not is_replaced({})
