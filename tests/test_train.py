"""The train loop and the job, on real files, with the embedded backbone and a registered method."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import loop, train
from bench.errors import SpecError
from bench.evaluation import Evaluator
from bench.job import prepare, run_trial
from bench.spec import Places
from bench.store import Run, State, Superseded

CPU = torch.device("cpu")


def run(one: Run) -> str:
    return run_trial(str(one.folder), device="cpu")


def results(one: Run) -> bytes:
    return (one.folder / "results.jsonl").read_bytes()


def test_a_trial_writes_records_at_the_start_in_between_and_at_the_end(make_run: Callable[..., Run]) -> None:
    one = make_run("ERM")
    assert run(one) == "done" and one.is_done
    records, skipped = one.records()
    assert skipped == 0 and [record["step"] for record in records] == [0, 2, 4]
    for record in records:
        assert {"env0_out_acc", "env1_out_acc", "env2_out_acc", "env2_in_acc"} <= set(record)
        assert "env0_in_acc" not in record  # no selection rule reads it
        assert all(0 <= value <= 1 for key, value in record.items() if key.endswith("_acc"))
    assert "loss" not in records[0] and np.isfinite(records[1]["loss"])
    assert not one.checkpoint_path.exists()


def test_evaluate_all_takes_every_split(make_run: Callable[..., Run]) -> None:
    one = make_run("ZeroShot", evaluate="all")
    run(one)
    assert {f"env{i}_{part}_acc" for i in range(3) for part in ("in", "out")} <= set(one.records()[0][0])


def test_a_finished_trial_is_not_run_again(make_run: Callable[..., Run]) -> None:
    one = make_run("ZeroShot")
    run(one)
    before = (one.folder / "status.json").read_bytes()
    assert run(one) == "done"
    assert (one.folder / "status.json").read_bytes() == before


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_stopped_trial_goes_on_and_writes_the_same_records(make_run: Callable[..., Run], moment: int) -> None:
    whole, cut = make_run("CLIPood", sweep="whole"), make_run("CLIPood", sweep="cut")
    run(whole)
    attempt = cut.claim()
    trial = train.build(cut.spec, cut.places, CPU, lambda doing: None)
    with pytest.raises(train.Stopped):
        loop.run(trial, attempt, lambda: trial.algorithm.updates >= moment)
    attempt.release(moment, 4)
    assert cut.state() is State.PENDING and cut.checkpoint_path.exists()
    assert run(cut) == "done"
    assert results(cut) == results(whole)


def test_records_written_after_the_checkpoint_are_written_anew(make_run: Callable[..., Run]) -> None:
    """A kill between a record and the next checkpoint leaves a record of the future behind."""
    whole, cut = make_run("CLIPood", sweep="whole"), make_run("CLIPood", sweep="cut")
    run(whole)
    attempt = cut.claim()
    trial = train.build(cut.spec, cut.places, CPU, lambda doing: None)
    with pytest.raises(train.Stopped):
        loop.run(trial, attempt, lambda: trial.algorithm.updates >= 1)
    attempt.release(1, 4)
    (cut.folder / "partial.jsonl").write_bytes(results(whole)[:-20])
    assert run(cut) == "done"
    assert results(cut) == results(whole)


def test_a_torn_checkpoint_starts_the_trial_anew(make_run: Callable[..., Run]) -> None:
    whole, cut = make_run("ERM", sweep="whole"), make_run("ERM", sweep="cut")
    run(whole)
    cut.checkpoint_path.write_bytes(b"PK torn")
    assert run(cut) == "done"
    assert results(cut) == results(whole)


def test_a_sigterm_stops_at_the_next_step_with_a_checkpoint(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_run("ERM", steps=50, evaluate_every=50)
    from bench.registry import algorithms

    update = algorithms["ERM"].update

    def update_and_signal(self: Any, *arguments: Any) -> Any:
        if self.updates == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, *arguments)

    monkeypatch.setattr(algorithms["ERM"], "update", update_and_signal)
    assert run(one) == "pending"
    assert torch.load(one.checkpoint_path, weights_only=True)["step"] == 3


def test_an_orphan_stops(make_run: Callable[..., Run]) -> None:
    one = make_run("ERM")
    assert run_trial(str(one.folder), device="cpu", parent=1) == "pending"


def test_a_superseded_attempt_writes_nothing_more(make_run: Callable[..., Run]) -> None:
    one = make_run("ERM")
    old = one.claim()
    trial = train.build(one.spec, one.places, CPU, lambda doing: None)
    (one.folder / "attempt.2").touch()  # the claim of a launcher that took this process for dead
    with pytest.raises(Superseded):
        loop.run(trial, old, lambda: False)
    assert not (one.folder / "results.jsonl").exists()


def test_a_failure_is_written_into_the_folder(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.registry import algorithms

    def explode(self: Any, *arguments: Any) -> Any:
        raise ZeroDivisionError("the loss went to pieces")

    monkeypatch.setattr(algorithms["ERM"], "update", explode)
    one = make_run("ERM")
    assert run(one) == "failed"
    assert one.status()["error"] == "ZeroDivisionError: the loss went to pieces"
    assert "Traceback" in (one.error() or "")


@pytest.fixture
def broken_images(small_images: Path, tmp_path: Path) -> Path:
    root = tmp_path / "broken"
    shutil.copytree(small_images, root)
    (root / "photo" / "cat" / "003.png").write_bytes(b"no image")
    return root


def test_a_bad_image_fails_the_trial_with_its_name(make_run: Callable[..., Run], broken_images: Path) -> None:
    one = make_run("ZeroShot", data_dir=str(broken_images))
    assert run(one) == "failed"
    assert "photo/cat/003.png" in one.status()["error"] and "Traceback" not in (one.error() or "")


def test_skipped_bad_images_are_counted_in_the_record(make_run: Callable[..., Run], broken_images: Path) -> None:
    one = make_run("ZeroShot", data_dir=str(broken_images), skip_bad_images=True)
    assert run(one) == "done"
    assert one.records()[0][0]["n_bad_images"] == 1


def test_prepare_names_bad_images_before_anything_is_launched(
    make_run: Callable[..., Run], broken_images: Path
) -> None:
    from bench.errors import BadImage

    one = make_run("ZeroShot", data_dir=str(broken_images))
    with pytest.raises(BadImage, match="003"):
        prepare(one.spec, one.places, lambda line: None)


def test_cached_features_equal_computed_ones(make_run: Callable[..., Run], tmp_path: Path) -> None:
    one = make_run("ZeroShot")
    trial = train.build(one.spec, one.places, CPU, lambda doing: None)
    evaluator: Evaluator = trial.evaluator
    computed = evaluator._features_of(trial.backbone.visual)
    for view in trial.task.evaluation:
        assert torch.equal(evaluator.frozen_features(view), computed(view))
    again = train.build(one.spec, one.places, CPU, lambda doing: None).evaluator
    assert list((tmp_path / "cache" / "derived" / "features").iterdir())
    view = trial.task.evaluation[0]
    assert torch.equal(again.frozen_features(view), evaluator.frozen_features(view))


@pytest.mark.parametrize("size", [5, 8, 64], ids=["some left of each", "nothing left", "less than a batch"])
def test_what_full_batches_leave_of_the_views_goes_together(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    from bench import evaluation

    monkeypatch.setattr(evaluation, "BATCH", size)
    trial = train.build(make_run("ZeroShot").spec, make_run("ZeroShot").places, CPU, lambda doing: None)
    evaluator, tower, views = trial.evaluator, trial.backbone.visual, trial.task.evaluated
    alone = {view.name: evaluator._forward(tower, evaluation._places(view)) for view in views}
    batches: list[str] = []
    monkeypatch.setattr(evaluator, "pulse", batches.append)
    features = evaluator._features_of(tower)
    assert all(torch.equal(features(view), alone[view.name]) for view in reversed(views))
    lengths = [len(view) for view in views]
    assert sorted(lengths) == [8, 8, 8, 32]
    assert len(batches) == sum(n // size for n in lengths) - (-sum(n % size for n in lengths) // size)


def test_frozen_features_are_of_the_blocks_that_a_view_touches(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import evaluation

    monkeypatch.setattr(evaluation, "ROWS", 4)
    one = make_run("ZeroShot")
    evaluator = train.build(one.spec, one.places, CPU, lambda doing: None).evaluator
    view = evaluator.task.evaluation[0]
    part = replace(view, indices=view.indices[-2:], labels=view.labels[-2:])
    found = evaluator.frozen_features(part)
    assert {block for _, block in evaluator._frozen} == set((part.indices // 4).tolist())
    expected = evaluator._forward(evaluator.backbone.visual, evaluation._places(part))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_view_without_images_is_refused(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.images import ImageStore

    one = make_run("ZeroShot")
    monkeypatch.setattr(ImageStore, "without_bad", lambda self, view: replace(view, indices=view.indices[:0]))
    with pytest.raises(SpecError, match="has no images for env0"):
        train.build(one.spec, one.places, CPU, lambda doing: None)


def test_at_step_0_every_method_that_starts_from_zero_shot_predicts_as_zero_shot(make_run: Callable[..., Run]) -> None:
    from bench.registry import algorithms

    reference = make_run("ZeroShot")
    run(reference)
    expected = reference.records()[0][0]
    for name in algorithms:
        one = make_run(name, **({"captions": "template", "w_ret": 0.0} if name == "ARF" else {}))
        trial = train.build(one.spec, one.places, CPU, lambda doing: None)
        if trial.algorithm.starts_zero_shot:
            [main, *_] = trial.evaluator.evaluate(trial.algorithm, final=False)
            assert main.metrics == {key: value for key, value in expected.items() if key.endswith("_acc")}, name


def test_final_predictions_are_stored_in_the_order_of_the_data_set(make_run: Callable[..., Run]) -> None:
    one = make_run("ZeroShot")
    run(one)
    stored = np.load(one.predictions_path)
    right = stored["env2_in/main/predicted"] == stored["env2_in/label"]
    assert (np.diff(stored["env2_in/index"].astype(int)) > 0).all()
    assert np.mean(right) == one.records()[0][0]["env2_in_acc"]
    assert (stored["env2_in/main/confidence"] >= 0.5 - 1e-3).all()  # two classes


def test_bf16_evaluation_stays_near_fp32(make_run: Callable[..., Run]) -> None:
    accuracies = []
    for precision in ("fp32", "bf16"):
        one = make_run("ZeroShot", eval_precision=precision)
        run(one)
        accuracies.append(one.records()[0][0]["env2_in_acc"])
    assert abs(accuracies[0] - accuracies[1]) <= 2 / 32


def test_records_hold_no_time_and_no_place(make_run: Callable[..., Run], tmp_path: Path) -> None:
    one = make_run("ZeroShot")
    run(one)
    text = json.dumps(one.records()[0]) + json.dumps(one.spec.to_json())
    assert str(tmp_path) not in text and "second" not in text
    assert Places.from_json(one.places.to_json()) == one.places


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ERM", "WiSE-FT", "CLIPood", "CoOp", "ARF", "UEO"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_method_resumes_to_the_bit(make_run: Callable[..., Run], name: str, precision: str) -> None:
    given = {"precision": precision, **({"captions": "template", "w_ret": 0.0} if name == "ARF" else {})}
    whole, cut = (make_run(name, sweep=sweep, **given) for sweep in ("whole", "cut"))
    assert run(whole) == "done", whole.error()
    attempt = cut.claim()
    trial = train.build(cut.spec, cut.places, CPU, lambda doing: None)
    with pytest.raises(train.Stopped):
        loop.run(trial, attempt, lambda: trial.algorithm.updates >= 3)
    attempt.release(3, 4)
    assert run(cut) == "done", cut.error()
    assert results(cut) == results(whole)


def test_a_diverged_training_fails_instead_of_scoring(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.registry import algorithms

    update = algorithms["ERM"].update

    def spoil(self: Any, *arguments: Any) -> Any:
        logs = update(self, *arguments)
        with torch.no_grad():
            next(iter(self.tower.parameters())).fill_(float("nan"))
        return logs

    monkeypatch.setattr(algorithms["ERM"], "update", spoil)
    one = make_run("ERM")
    assert run(one) == "failed"
    assert "training diverged" in one.status()["error"] and [record["step"] for record in one.records()[0]] == [0]


def test_what_another_attempt_wrote_among_the_partial_records_counts_for_nothing(make_run: Callable[..., Run]) -> None:
    whole, cut = make_run("ERM", sweep="whole"), make_run("ERM", sweep="cut")
    run(whole)
    attempt = cut.claim()
    trial = train.build(cut.spec, cut.places, CPU, lambda doing: None)
    with pytest.raises(train.Stopped):
        loop.run(trial, attempt, lambda: trial.algorithm.updates >= 3)
    attempt.release(3, 4)
    with (cut.folder / "partial.jsonl").open("a") as file:
        file.write('{"hello": "world"}\n{"trial": "torn')
    run(cut)
    assert results(cut) == results(whole)


def test_captions_that_changed_under_a_trial_are_refused(make_run: Callable[..., Run], tmp_path: Path) -> None:
    from bench import files
    from bench.store import Run as Folder

    captions = tmp_path / "captions.tsv"
    captions.write_text("drawn/cat/000.jpg\ta cat\n")
    one = make_run("ARF")
    spec = one.spec.to_json() | {"captions": files.content_tag(captions)}
    captions.write_text("drawn/cat/000.jpg\tanother cat\n")
    from bench.spec import TrialSpec

    places = Places(cache=one.places.cache, captions=str(captions))
    changed = Folder.create(tmp_path / "changed", TrialSpec.from_json(spec), places)
    assert run(changed) == "failed"
    assert "is not the one of this trial" in changed.status()["error"]
