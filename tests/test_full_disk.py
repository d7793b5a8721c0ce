"""A disk that is full while a checkpoint or the records are written: nothing is torn, the trial says so and goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import loop
from bench.job import run_trial
from bench.local_pool import LocalPool
from bench.runs import find_runs, note_planned
from bench.store import Attempt, Run, State
from tests.fakes import Recorder, finish, make_spec

pytestmark = pytest.mark.slow

SIZE = "192m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that a test may fill."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here; run as root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_without_room_for_a_folder_fails_the_trial_and_not_the_pool(small_disk: Path) -> None:
    sweep = small_disk / "sweep"
    note_planned(sweep, [make_spec(trial_seed=seed) for seed in range(2)])
    runs = find_runs(sweep)
    runs[0].begin()
    subprocess.run(["mount", "-o", "remount,nr_inodes=8", str(small_disk)], check=True)
    fillers = use_up_inodes(small_disk)
    seen = Recorder()
    LocalPool(jobs=1, threads=1, trial=finish, preload=()).run(runs[1:], seen)
    assert seen.ended_trials == [(runs[1].trial_id, "failed")]
    assert [run.state() for run in runs] == [State.PENDING, State.PENDING] and not runs[1].folder.exists()
    for each in fillers:
        each.unlink()
    subprocess.run(["mount", "-o", "remount,nr_inodes=64", str(small_disk)], check=True)
    LocalPool(jobs=1, threads=1, trial=finish, preload=()).run(runs, seen)
    assert [run.state() for run in runs] == [State.DONE, State.DONE]


def use_up_inodes(disk: Path) -> list[Path]:
    """Make files until there is no room for one."""
    made: list[Path] = []
    with contextlib.suppress(OSError):
        for number in range(100):
            path = disk / f"filler{number}"
            path.touch()
            made.append(path)
    assert len(made) < 100
    return made


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return filler


@pytest.mark.parametrize("moment", ["checkpoint", "records"])
def test_a_full_disk_fails_the_trial_cleanly_and_it_goes_on_when_there_is_room(
    moment: str, small_disk: Path, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 1e9)
    whole = make_run("ERM", sweep="whole", steps=6)
    assert run_trial(str(whole.folder), threads=1) == "done"
    run = make_run("ERM", sweep="disk/sweep", steps=6)
    calls = 0
    save, finish = loop._save, Attempt.finish

    def full_save(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3 and moment == "checkpoint":
            fill(small_disk)
        save(*arguments)

    def full_finish(*arguments: Any) -> None:
        if moment == "records" and not (small_disk / "filler").exists():
            fill(small_disk)
        finish(*arguments)

    monkeypatch.setattr(loop, "_save", full_save)
    monkeypatch.setattr(Attempt, "finish", full_finish)
    assert run_trial(str(run.folder), threads=1) == "failed"
    state, said = run.look()
    assert (state, said["failure"], said["ends"]) == (State.FAILED, "disk", {"disk": 1})
    assert "No space left" in said["error"] or "unexpected pos" in said["error"]
    assert not list(run.folder.glob(".*.tmp")) and not run.is_done
    assert torch.load(run.checkpoint_path, weights_only=True)["step"] == (2 if moment == "checkpoint" else 5)

    (small_disk / "filler").unlink()
    run.reset(keep_ends=True)
    calls = 10
    monkeypatch.setattr(Attempt, "finish", finish)
    assert run_trial(str(run.folder), threads=1) == "done"
    assert (run.folder / "results.jsonl").read_bytes() == (whole.folder / "results.jsonl").read_bytes()
    assert run.status()["ends"] == {"disk": 1}
    assert os.listdir(run.folder).count("checkpoint.pt") == 0
