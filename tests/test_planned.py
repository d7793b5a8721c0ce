"""Trials that are planned and not begun: no folder, yet found, counted, begun, cancelled and deleted like any other."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import files, planned, runs
from bench.errors import SpecError, UnknownName
from bench.local_pool import LocalPool
from bench.results_folder import find_sources
from bench.run_reader import read_run
from bench.runs import delete, find_run, find_runs, note_planned, trials_in
from bench.spec import TrialSpec
from bench.status import TrialStatus, counts
from bench.store import Busy, Run, State
from tests.fakes import Recorder, finish, make_spec


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return tmp_path / "results" / "sweep"


def specs(n: int, first: int = 0) -> list[TrialSpec]:
    return [make_spec(trial_seed=seed) for seed in range(first, first + n)]


def ids(trials: list[TrialSpec]) -> list[str]:
    return sorted(spec.trial_id for spec in trials)


def found(root: Path) -> list[str]:
    return [run.trial_id for run in find_runs(root)]


def test_planned_trials_are_there_without_a_folder(sweep: Path) -> None:
    some = specs(4)
    note_planned(sweep, some)
    assert os.listdir(sweep) == [planned.FOLDER] and len(os.listdir(sweep / planned.FOLDER)) == 1
    for root in (sweep, sweep.parent):
        assert found(root) == ids(some)
    assert trials_in(sweep) >= set(ids(some))
    for spec in some:
        run = find_run(sweep, spec.trial_id[:8])
        assert (run.spec, run.state(), run.is_there) == (spec, State.PENDING, True)
        assert (Run(sweep / spec.trial_id).spec, run.tries, run.status()) == (spec, 0, {})
        assert found(run.folder) == [spec.trial_id]
    assert counts(map(TrialStatus.of, find_runs(sweep)))["pending"] == 4


def test_what_is_in_neither_place_is_not_there(sweep: Path) -> None:
    note_planned(sweep, specs(1))
    run = Run(sweep / specs(1, first=5)[0].trial_id)
    assert not run.is_there and run.spec_json() is None
    with pytest.raises(SpecError, match="no readable spec"):
        run.spec  # noqa: B018
    with pytest.raises(UnknownName):
        find_run(sweep, run.trial_id)


def test_a_claim_makes_the_folder_that_a_trial_with_one_has(sweep: Path, tmp_path: Path) -> None:
    note_planned(sweep, specs(2))
    spec = specs(1)[0]
    attempt = Run(sweep / spec.trial_id).claim()
    like = Run(tmp_path / "other" / spec.trial_id).make(spec)
    assert (attempt.run.folder / "spec.json").read_bytes() == (like.folder / "spec.json").read_bytes()
    assert attempt.number == 1 and attempt.run.state() is State.RUNNING
    assert found(sweep) == ids(specs(2))


@pytest.mark.parametrize(
    "touch, state",
    [
        (Run.cancel, State.CANCELLED),
        (Run.reset, State.PENDING),
        (lambda run: run.note_end("node"), State.PENDING),
    ],
    ids=["cancel", "reset", "note_end"],
)
def test_whatever_is_written_down_makes_the_folder(sweep: Path, touch: Callable[[Run], None], state: State) -> None:
    note_planned(sweep, specs(1))
    run = Run(sweep / specs(1)[0].trial_id)
    touch(run)
    assert run.state() is state and run.has_spec and Run(run.folder).spec == specs(1)[0]
    assert found(sweep) == [run.trial_id]


def test_of_many_that_begin_a_trial_at_once_one_gets_it(sweep: Path) -> None:
    for spec in specs(20):
        note_planned(sweep, [spec])
        ready, got = threading.Barrier(4), []

        def claim(folder: Path = sweep / spec.trial_id, ready: threading.Barrier = ready, got: list[int] = got) -> None:
            ready.wait()
            try:
                got.append(Run(folder).claim().number)
            except Busy:
                got.append(0)

        threads = [threading.Thread(target=claim) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert sorted(got) == [0, 0, 0, 1]
        assert json.loads((sweep / spec.trial_id / "spec.json").read_text()) == spec.to_json()


def test_noting_again_adds_what_is_new_and_drops_the_file_of_which_all_have_begun(sweep: Path) -> None:
    note_planned(sweep, specs(2))
    first = os.listdir(sweep / planned.FOLDER)
    note_planned(sweep, specs(2))
    assert os.listdir(sweep / planned.FOLDER) == first
    note_planned(sweep, specs(4))
    assert found(sweep) == ids(specs(4)) and len(os.listdir(sweep / planned.FOLDER)) == 2
    for spec in specs(2):
        Run(sweep / spec.trial_id).begin()
    note_planned(sweep, specs(4))
    assert found(sweep) == ids(specs(4))
    assert set(first).isdisjoint(os.listdir(sweep / planned.FOLDER))
    for spec in specs(4):
        Run(sweep / spec.trial_id).begin()
    note_planned(sweep, specs(4))
    assert os.listdir(sweep / planned.FOLDER) == [] and found(sweep) == ids(specs(4))


def test_a_trial_that_begins_while_trials_are_looked_for_is_found(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note_planned(sweep, specs(3))
    listing = runs._folders

    def slow(folder: Path) -> list[Path]:
        before = listing(folder)
        Run(sweep / specs(1)[0].trial_id).begin()
        return before

    monkeypatch.setattr(runs, "_folders", slow)
    assert found(sweep) == ids(specs(3))


def test_what_is_deleted_while_others_hold_it_stays_away(sweep: Path) -> None:
    note_planned(sweep, specs(2))
    held = find_runs(sweep)
    assert [run.spec.steps for run in held] == [10, 10]
    assert delete(find_runs(sweep)[:1]) == 1
    seen = Recorder()
    LocalPool(jobs=1, threads=1, trial=finish, preload=()).run(held, seen)
    assert seen.ended_trials == [(held[0].trial_id, "pending"), (held[1].trial_id, "done")]
    with pytest.raises(FileNotFoundError):
        held[0].claim()
    assert found(sweep) == [held[1].trial_id]


def test_a_waiting_trial_is_cancelled_where_there_is_no_room_for_its_spec(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    note_planned(sweep, specs(1))
    with monkeypatch.context() as patch:
        patch.setattr(files, "create_text", full)
        find_runs(sweep)[0].cancel()
    (run,) = find_runs(sweep)
    assert (run.state(), run.spec) == (State.CANCELLED, specs(1)[0])
    (source,) = find_sources(str(sweep))
    assert read_run(source).groups
    run.reset()
    assert run.state() is State.PENDING and run.has_spec


def test_trials_are_deleted_wherever_they_are(sweep: Path) -> None:
    note_planned(sweep, specs(5))
    Run(sweep / specs(1)[0].trial_id).cancel()
    note_planned(sweep.parent / "other", specs(2))
    delete([run for run in find_runs(sweep.parent) if run.trial_id in ids(specs(2))])
    assert found(sweep.parent) == ids(specs(3, first=2))
    assert not (sweep / specs(1)[0].trial_id).exists()
    note_planned(sweep, specs(1))
    assert len(found(sweep)) == 4


def test_a_folder_that_a_kill_left_without_its_spec_is_mended(sweep: Path) -> None:
    note_planned(sweep, specs(2))
    run = Run(sweep / specs(1)[0].trial_id)
    run.folder.mkdir()
    for damage in (lambda: None, lambda: (run.folder / "spec.json").write_text("")):
        damage()
        assert found(sweep) == ids(specs(2)) and Run(run.folder).spec == specs(1)[0]
    note_planned(sweep, specs(2))
    assert Run(run.folder).claim().run.has_spec


def test_a_sweep_that_was_deleted_by_hand_is_gone(sweep: Path) -> None:
    note_planned(sweep, specs(2))
    shutil.rmtree(sweep)
    assert find_runs(sweep.parent) == [] and not Run(sweep / specs(1)[0].trial_id).is_there


def test_collect_counts_planned_trials_as_it_counts_those_with_a_folder(sweep: Path, tmp_path: Path) -> None:
    note_planned(sweep, specs(3))
    Run(sweep / specs(1)[0].trial_id).begin()
    for spec in specs(3):
        Run(tmp_path / "made" / spec.trial_id).make(spec)
    read = [
        sorted(map(read_run, find_sources(str(root))), key=str) for root in (sweep, sweep.parent, tmp_path / "made")
    ]
    assert read[0] == read[1] == read[2] and len(read[0]) == 3
    assert all(run.groups and not run.is_done and run.records == [] for run in read[0])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["note", "begin", "delete", "cancel"]), st.sets(st.integers(0, 3)))))
def test_what_is_found_is_what_was_noted_and_not_deleted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, set[int]]]
) -> None:
    sweep = tmp_path_factory.mktemp("sweeps") / "sweep"
    there: set[str] = set()
    for verb, seeds in steps:
        some = [specs(1, first=seed)[0] for seed in sorted(seeds)]
        names = set(ids(some))
        if verb == "note":
            note_planned(sweep, some)
            there |= names
        elif verb == "delete":
            delete([run for run in find_runs(sweep) if run.trial_id in names])
            there -= names
        else:
            for trial in names & there:
                (Run.begin if verb == "begin" else Run.cancel)(Run(sweep / trial))
        every = find_runs(sweep)
        assert [run.trial_id for run in every] == sorted(there)
        assert all(run.spec.trial_id == run.trial_id for run in every)
