"""Trials that are trained as one write the records of trials that are trained by themselves, whatever happens to any."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench import job, loop, train
from bench.algorithm import Algorithm
from bench.job import run_trial
from bench.sharing import MOST_TOGETHER, groups, path_of, paths_of
from bench.store import Run, State

ERM = ("ERM", {})
EMA = ("CLIPood", {"margin": "none", "average": "ema"})
UNIFORM = ("CLIPood", {"margin": "none", "average": "uniform"})
BMA = ("CLIPood", {"margin": "none", "average": "bma"})
LAST = ("CLIPood", {"margin": "none", "average": "none"})
WISE = ("CLIPood", {"margin": "none", "average": "wise"})
MMS = ("CLIPood", {"margin": "mms", "average": "bma"})
MMS_EMA = ("CLIPood", {"margin": "mms", "average": "ema"})
HEAD = ("ERM", {"head": "zero_shot", "lr": 3e-5})
PLAIN = {"warmup": 0, "clip_norm": 0.0, "lr": 3e-5}
MIXED = ("WiSE-FT", {**PLAIN, "grid": False})
GRID = ("WiSE-FT", {**PLAIN, "alpha": 0.3})

Kind = tuple[str, dict[str, Any]]
_ALONE: dict[str, bytes] = {}


@pytest.fixture
def make(make_run: Callable[..., Run]) -> Callable[..., list[Run]]:
    """Give a function (kinds of trials, sweep=…) → fresh runs."""

    def runs(*kinds: Kind, sweep: str = "shared", **spec: Any) -> list[Run]:
        return [make_run(name, sweep=sweep, **hparams, **spec) for name, hparams in kinds]

    return runs


@pytest.fixture
def alone(make: Callable[..., list[Run]]) -> Callable[..., bytes]:
    """Give a function: kind of trial → the records of one that was run by itself; each is run once for all tests."""

    def records(kind: Kind, **spec: Any) -> bytes:
        [run] = make(kind, sweep="alone", **spec)
        if run.trial_id not in _ALONE:
            assert run_trial(str(run.folder), device="cpu") == "done", run.error()
            _ALONE[run.trial_id] = written(run)
        return _ALONE[run.trial_id]

    return records


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fill a list with the step of every update that is made."""
    made: list[int] = []
    update = Algorithm.update

    def counted(self: Algorithm, *arguments: Any) -> Any:
        made.append(self.updates)
        return update(self, *arguments)

    monkeypatch.setattr(Algorithm, "update", counted)
    return made


def written(run: Run) -> bytes:
    return (run.folder / "results.jsonl").read_bytes()


def together(runs: list[Run]) -> list[str]:
    run_trial(*(str(run.folder) for run in runs), device="cpu")
    return [run.state().value for run in runs]


def stop_at(run: Run, step: int) -> None:
    """Run a trial by itself up to a step, with a checkpoint there."""
    attempt = run.claim()
    trial = train.build(run.spec, run.places, torch.device("cpu"), lambda doing: None)
    with pytest.raises(train.Stopped):
        loop.run(trial, attempt, lambda: trial.algorithm.updates >= step)
    attempt.release(step, run.spec.steps)


# --- which trials share ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "alike", [(ERM, EMA, UNIFORM, BMA, LAST, WISE), (MMS, MMS_EMA), (HEAD, MIXED, GRID)], ids=["erm", "mms", "head"]
)
def test_trials_on_one_path_share_it(make: Callable[..., list[Run]], alike: tuple[Kind, ...]) -> None:
    names = {path_of(run.spec) for run in make(*alike)}
    assert len(names) == 1 and None not in names


def test_what_changes_the_weights_changes_the_path(make: Callable[..., list[Run]]) -> None:
    def with_(kind: Kind, **hparams: Any) -> Kind:
        return kind[0], {**kind[1], **hparams}

    kinds = [
        *(ERM, MMS, HEAD, with_(ERM, lr=1e-3), with_(ERM, weight_decay=0.5), with_(ERM, batch_size=5)),
        *(with_(ERM, augmentation="none"), with_(ERM, precision="bf16"), with_(ERM, prompt="ensemble7")),
        *(with_(MMS, margin_lambda=0.1), with_(MMS, margin="constant"), with_(BMA, emulate_fp16=True)),
        *(with_(MIXED, clip_norm=1.0), with_(MIXED, warmup=1), with_(MIXED, label_smoothing=0.1)),
    ]
    runs = make(*kinds)
    for change in ({"trial_seed": 1}, {"test_domains": (0,)}, {"steps": 6}, {"holdout_fraction": 0.3}):
        runs += make(ERM, **change)
    names = [path_of(run.spec) for run in runs]
    assert None not in names and len(set(names)) == len(names)


def test_the_paths_of_many_are_those_of_each_but_where_nobody_could_share(make: Callable[..., list[Run]]) -> None:
    specs = [run.spec for run in make(ERM, EMA, BMA, MMS)]
    specs.append(dataclasses.replace(specs[0], trial_seed=9))  # by itself
    found = paths_of(specs)
    assert list(found) == [spec.trial_id for spec in specs]
    assert [found[spec.trial_id] for spec in specs] == [*map(path_of, specs[:-1]), None]


@pytest.mark.parametrize(
    "kind",
    [("ERM", {"dropout": 0.1}), ("ERM", {"head": "random"}), ("ZeroShot", {}), ("CoOp", {}), ("UEO", {}), ("ARF", {})],
)
def test_trials_with_randomness_or_a_path_of_their_own_share_with_none(
    make: Callable[..., list[Run]], kind: Kind
) -> None:
    assert path_of(make(kind)[0].spec) is None


@given(st.lists(st.sampled_from([None, "a", "b"]), max_size=30))
def test_groups_keep_order_and_every_trial_once(keys: list[str | None]) -> None:
    found = groups(list(enumerate(keys)), lambda item: item[1])
    assert sorted(index for group in found for index, _ in group) == list(range(len(keys)))
    assert [group[0][0] for group in found] == sorted(group[0][0] for group in found)
    for group in found:
        assert len({key for _, key in group}) == 1
        assert len(group) == 1 or (group[0][1] is not None and len(group) <= MOST_TOGETHER)
    full = [len(group) for group in found if group[0][1] == "a"]
    assert all(size == MOST_TOGETHER for size in full[:-1])


# --- the same records, from one training ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kinds",
    [
        (ERM, UNIFORM),
        pytest.param((EMA, ERM, UNIFORM, BMA, LAST, WISE), marks=pytest.mark.slow),
        pytest.param((GRID, HEAD, MIXED), marks=pytest.mark.slow),
        pytest.param((MMS, MMS_EMA), marks=pytest.mark.slow),
    ],
    ids=["two", "erm", "head", "mms"],
)
def test_records_are_those_of_trials_by_themselves(
    make: Callable[..., list[Run]], alone: Callable[..., bytes], kinds: tuple[Kind, ...], updates: list[int]
) -> None:
    expected = [alone(kind) for kind in kinds]
    updates.clear()
    runs = make(*kinds)
    assert together(runs) == ["done"] * len(runs)
    assert [written(run) for run in runs] == expected
    assert updates == [0, 1, 2, 3]
    assert all(run.predictions_path.is_file() and not run.checkpoint_path.exists() for run in runs)


def test_equal_weights_are_run_on_a_view_once(make: Callable[..., list[Run]], monkeypatch: pytest.MonkeyPatch) -> None:
    """ERM predicts with the last iterate, an averaging method with its average and, at the end, with the same iterate."""
    from bench.evaluation import Evaluator

    forwards: list[int] = []
    forward = Evaluator._forward

    def counted(self: Evaluator, tower: Any, places: Any) -> Any:
        forwards.append(len(places))
        return forward(self, tower, places)

    runs = make(ERM, UNIFORM, steps=2, evaluate_every=2)
    for run in make(ERM, sweep="warm"):  # the features of the frozen tower are computed and kept
        stop_at(run, 1)
    monkeypatch.setattr(Evaluator, "_forward", counted)
    together(runs)
    task = train.build(runs[0].spec, runs[0].places, torch.device("cpu"), lambda doing: None).task
    assert sum(forwards) == 2 * sum(map(len, task.evaluated))  # none at step 0, where weights are the pre-trained ones


def test_trials_at_different_steps_join_where_they_were(
    make: Callable[..., list[Run]], alone: Callable[..., bytes], updates: list[int]
) -> None:
    kinds = (ERM, UNIFORM, BMA)
    expected = [alone(kind) for kind in kinds]
    runs = make(*kinds)
    stop_at(runs[0], 3)
    stop_at(runs[1], 1)
    stop_at(runs[2], 1)
    updates.clear()
    assert together(runs) == ["done"] * 3
    assert [written(run) for run in runs] == expected
    assert updates == [1, 2, 3]


@pytest.mark.slow
def test_a_trial_that_is_added_later_is_trained_and_the_finished_one_left_alone(
    make: Callable[..., list[Run]], alone: Callable[..., bytes]
) -> None:
    old, new = make(ERM, UNIFORM)
    assert together([old]) == ["done"]
    before = (old.folder / "status.json").read_bytes()
    assert together([old, new]) == ["done", "done"]
    assert written(new) == alone(UNIFORM) and (old.folder / "status.json").read_bytes() == before


# --- trials that leave -------------------------------------------------------------------------------------------------


@pytest.fixture
def after_update(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], None]:
    """Give a function (n, act): act once n updates have been made."""

    def arrange(n: int, act: Callable[[], Any]) -> None:
        update = Algorithm.update

        def acting(self: Algorithm, *arguments: Any) -> Any:
            logs = update(self, *arguments)
            if self.updates == n:
                act()
            return logs

        monkeypatch.setattr(Algorithm, "update", acting)

    return arrange


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["leader", "follower"])
def test_a_cancelled_trial_leaves_with_a_checkpoint_and_the_others_go_on(
    make: Callable[..., list[Run]],
    alone: Callable[..., bytes],
    after_update: Any,
    monkeypatch: pytest.MonkeyPatch,
    which: int,
) -> None:
    monkeypatch.setattr(job, "LOOK_SECONDS", 0.0)
    kinds = (ERM, UNIFORM)
    expected = [alone(kind) for kind in kinds]
    runs = make(*kinds)
    after_update(2, runs[which].cancel)
    together(runs)
    assert [run.state() for run in runs] == [
        State.CANCELLED if index == which else State.DONE for index in range(len(runs))
    ]
    assert torch.load(runs[which].checkpoint_path, weights_only=True)["step"] == 2
    runs[which].reset()
    assert together([runs[which]]) == ["done"]
    assert [written(run) for run in runs] == expected


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["leader", "follower"])
def test_a_superseded_trial_leaves_and_writes_nothing_more(
    make: Callable[..., list[Run]], alone: Callable[..., bytes], after_update: Any, which: int
) -> None:
    kinds = (ERM, UNIFORM)
    expected = [alone(kind) for kind in kinds]
    runs = make(*kinds)
    after_update(1, (runs[which].folder / "attempt.2").touch)
    together(runs)
    other = runs[1 - which]
    assert other.is_done and written(other) == expected[1 - which]
    assert not runs[which].is_done and not runs[which].predictions_path.exists()


@pytest.mark.slow
def test_when_those_behind_are_gone_those_ahead_go_on_at_their_checkpoints(
    make: Callable[..., list[Run]],
    alone: Callable[..., bytes],
    after_update: Any,
    monkeypatch: pytest.MonkeyPatch,
    updates: list[int],
) -> None:
    monkeypatch.setattr(job, "LOOK_SECONDS", 0.0)
    expected = alone(UNIFORM)
    behind, ahead = make(ERM, UNIFORM)
    stop_at(ahead, 3)
    updates.clear()
    after_update(1, behind.cancel)
    together([behind, ahead])
    assert behind.state() is State.CANCELLED and written(ahead) == expected
    assert updates == [0, 3]


def test_what_goes_wrong_for_one_is_its_own(
    make: Callable[..., list[Run]], alone: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.registry import algorithms

    expected = alone(ERM)

    def explode(self: Any) -> None:
        raise ZeroDivisionError("the average went to pieces")

    monkeypatch.setattr(algorithms["CLIPood"], "after_step", explode)
    good, bad = make(ERM, UNIFORM)
    assert together([good, bad]) == ["done", "pending"]  # it may have been the company's fault
    assert written(good) == expected
    assert together([bad]) == ["failed"]
    assert "average went to pieces" in bad.status()["error"] and bad.status()["ends"] == {"code": 1}


@pytest.mark.slow
def test_when_the_training_fails_nobody_is_blamed_until_it_fails_alone(
    make: Callable[..., list[Run]], alone: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [alone(ERM), alone(UNIFORM)]
    runs = make(ERM, UNIFORM)
    update = Algorithm.update

    def explode(self: Algorithm, *arguments: Any) -> Any:
        if self.updates == 2:
            raise MemoryError("too many averages")
        return update(self, *arguments)

    monkeypatch.setattr(Algorithm, "update", explode)
    assert together(runs) == ["pending", "pending"]
    assert not any(run.status().get("ends") for run in runs)
    monkeypatch.setattr(Algorithm, "update", update)
    for run, records in zip(runs, expected, strict=True):
        assert together([run]) == ["done"] and written(run) == records


@pytest.mark.slow
def test_a_checkpoint_of_a_group_can_be_run_by_itself(
    make: Callable[..., list[Run]], alone: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, after_update: Any
) -> None:
    """Every checkpoint is whole, so a trial needs none of the company that it had."""
    monkeypatch.setattr(job, "LOOK_SECONDS", 0.0)
    expected = alone(UNIFORM)
    first, second = make(ERM, UNIFORM)

    def cancel_all() -> None:
        first.cancel()
        second.cancel()

    after_update(3, cancel_all)
    together([first, second])
    second.reset()
    assert together([second]) == ["done"] and written(second) == expected


def test_environment_names_the_company(make: Callable[..., list[Run]], tmp_path: Path) -> None:
    from bench.files import read_json

    runs = make(ERM, UNIFORM, steps=1)
    together(runs)
    assert read_json(runs[0].folder / "env.json")["trained_with"] == [runs[1].trial_id]
