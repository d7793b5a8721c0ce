"""What trials leave each other: features, text heads, weights and anchors are computed once for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import train
from bench.algorithms import arf
from bench.algorithms.arf import ARF
from bench.algorithms.ueo import UEO
from bench.algorithms.zeroshot import ZeroShot
from bench.derived import Derived
from bench.evaluation import Evaluator
from bench.models import TextHead, prompt_templates
from bench.store import Run

CPU = torch.device("cpu")
NAMES = ("dog", "guitar", "house")


@pytest.fixture
def kept(pretrained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The embedded backbone, with a place to keep what follows from it."""
    monkeypatch.setattr(pretrained, "derived", Derived(tmp_path))
    return pretrained


def no_towers(monkeypatch: pytest.MonkeyPatch, backbone: Any) -> None:
    """Make both towers unusable."""
    for tower in (backbone.visual, backbone.text):
        monkeypatch.setattr(tower, "forward", lambda *_: pytest.fail("a tower was run"))


def counted_forwards(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give the list to which every tower that an evaluator runs over images is added from now on."""
    forward, calls = Evaluator._forward, []

    def counting(self: Evaluator, tower: Any, places: Any) -> Any:
        calls.append(tower)
        return forward(self, tower, places)

    monkeypatch.setattr(Evaluator, "_forward", counting)
    return calls


def test_text_heads_are_computed_once_and_are_the_same_to_the_bit(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    templates = prompt_templates("ensemble7", ("a photo of a {}.",))
    first = TextHead(kept, templates).weights(NAMES)
    with monkeypatch.context() as patch:
        patch.setattr(kept, "derived", None)
        assert torch.equal(TextHead(kept, templates).weights(NAMES), first)
    no_towers(monkeypatch, kept)
    assert torch.equal(TextHead(kept, templates).weights(NAMES), first)


def test_other_texts_and_other_weights_are_not_taken_for_the_same(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kept.encode_text(["a dog", "a cat"])
    assert not torch.equal(kept.encode_text(["a cat", "a dog"]), first)
    results = iter(torch.ones(1) * i for i in range(9))
    found = []
    for digest in ("another", "another", kept.digest):
        monkeypatch.setattr(kept, "digest", digest)
        found.append(float(kept.once("kind", ["part", 1, torch.zeros(2)], lambda: next(results))))
    assert found == [0, 0, 1]


def test_prompts_that_are_still_words_are_the_text_heads(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.prompts import PromptLearner, phrase_context

    expected = TextHead(kept, ("a photo of a {}.",)).weights(NAMES)
    no_towers(monkeypatch, kept)
    prompts = PromptLearner(kept, NAMES, phrase_context(kept, "a photo of a"), phrase="a photo of a")
    assert torch.equal(prompts.head().weights(NAMES), expected)


def test_weights_of_images_are_computed_once(
    kept: Any, make_setup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = (UEO(make_setup(UEO, weight_scale=scale))._weights[0] for scale in (1.0, 100.0))
    assert not torch.equal(first, other)
    monkeypatch.setattr(torch.Tensor, "softmax", lambda *_, **__: pytest.fail("weighed again"))
    assert torch.equal(UEO(make_setup(UEO, weight_scale=1.0))._weights[0], first)


def test_anchors_are_retrieved_once_for_each_pool_and_k(
    kept: Any, make_setup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = make_setup(ARF, k=2)
    first = ARF(setup).anchors
    counted: list[int] = []
    retrieve = arf.retrieve

    def counting(*given: Any) -> Any:
        counted.append(1)
        return retrieve(*given)

    monkeypatch.setattr(arf, "retrieve", counting)
    assert all(torch.equal(*pair) for pair in zip(ARF(setup).anchors, first, strict=True)) and not counted
    assert ARF(make_setup(ARF, k=1)).anchors[0].shape == (12, 1) and len(counted) == len(setup.train)
    pool = setup.pool()
    pool.data = pool.data.flip(0)
    assert not torch.equal(ARF(dataclasses.replace(setup, pool=lambda: pool)).anchors[0], first[0])
    assert len(counted) == 2 * len(setup.train)


def test_a_second_trial_of_a_frozen_method_runs_no_tower(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def scores(run: Run, *, spoilt: bool) -> dict[str, Any]:
        trial = train.build(run.spec, run.places, CPU, lambda doing: None)
        if spoilt:
            no_towers(monkeypatch, trial.backbone)
        [found] = trial.evaluator.evaluate(trial.algorithm, final=False)
        return found.metrics

    first = scores(make_run("ZeroShot", test_domains=(2,)), spoilt=False)
    kinds = {path.parent.name for path in (tmp_path / "cache" / "derived").glob("*/*.npy")}
    assert kinds == {"features", "text"}
    again = scores(make_run("ZeroShot", test_domains=(0,), trial_seed=0), spoilt=True)
    shared = first.keys() & again.keys()
    assert shared and all(first[key] == again[key] for key in shared)
    assert scores(make_run("CoOp", ctx_init="a photo of a", steps=0), spoilt=True) == first


def test_the_same_predictor_is_scored_once(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("WiSE-FT", steps=1)
    trial = train.build(run.spec, run.places, CPU, lambda doing: None)
    trial.algorithm.updates = 1  # so that its towers are not known to be the pre-trained one
    for view in trial.task.evaluated:
        trial.evaluator.frozen_features(view)
    calls = counted_forwards(monkeypatch)
    found = {each.label: each for each in trial.evaluator.evaluate(trial.algorithm, final=True)}
    assert list(found) == ["", *(f"alpha={tenth / 10}" for tenth in range(11))]
    assert len(calls) == 10  # once each: what all views have is less than a batch and goes together
    assert found["alpha=0.5"] == dataclasses.replace(found[""], label="alpha=0.5")


def test_zero_shot_keeps_nothing_without_a_place(
    make_setup: Callable[..., Any], pretrained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "derived", None)  # an evaluation in another test may have given it one
    assert ZeroShot(make_setup(ZeroShot)).head.weights(NAMES).shape == (3, 256)


def test_an_untrained_tower_is_known_by_its_weights_and_a_changed_one_is_run(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("ERM", steps=2)
    trial = train.build(run.spec, run.places, CPU, lambda doing: None)
    for view in trial.task.evaluation:
        trial.evaluator.frozen_features(view)
    calls = counted_forwards(monkeypatch)
    [(_, untrained)] = trial.algorithm.predictors(final=False)
    assert trial.evaluator._is_pretrained(untrained.tower) and not calls
    with torch.no_grad():
        next(iter(untrained.tower.parameters())).add_(0.1)
    assert not trial.evaluator._is_pretrained(untrained.tower) and len(calls) == 1
