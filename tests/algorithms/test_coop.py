"""CoOp: its schedule, its start, and the cached features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.algorithms.coop import CoOp, learning_rate
from bench.algorithms.zeroshot import ZeroShot
from bench.errors import SpecError


@pytest.mark.parametrize(
    ("epochs", "epoch", "expected"),
    [
        (50, 0, 1e-5),
        (50, 1, 2e-3),
        (50, 2, 1.9980267e-3),
        (50, 25, 1.0627905e-3),
        (50, 49, 7.8853e-6),
        (200, 199, 4.934e-7),
        (10, 9, 1.9098e-4),
    ],
)
def test_learning_rate_equals_coops_when_counted_in_epochs(epochs: int, epoch: int, expected: float) -> None:
    assert learning_rate(epoch, epochs) == pytest.approx(expected, rel=1e-4)


def test_learning_rate_is_constant_within_an_epoch(make_setup: Callable[..., Any]) -> None:
    method = CoOp(make_setup(CoOp, n_steps=100, epochs=50, lr=0.002))
    rates = []
    for step in range(100):
        method.updates = step
        method.set_learning_rates()
        rates.append(method.optimizer.param_groups[0]["lr"])
    assert rates == [learning_rate(step // 2, 50) for step in range(100)]


def test_first_prediction_equals_zero_shot_when_the_context_is_its_template(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    images = make_batches(0)[0][0].images
    expected = ZeroShot(make_setup(ZeroShot)).predict(images)
    assert torch.equal(CoOp(make_setup(CoOp, ctx_init="a photo of a")).predict(images), expected)
    assert torch.equal(CoOp(make_setup(CoOp, ctx_init="template", csc=True)).predict(images), expected)
    assert not torch.allclose(CoOp(make_setup(CoOp)).predict(images), expected)
    assert not CoOp.starts_zero_shot


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("csc", [False, True])
def test_loss_falls_when_one_batch_is_repeated(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], position: str, csc: bool
) -> None:
    torch.manual_seed(0)
    hparams = {"class_token_position": position, "csc": csc, "augmentation": "none", "lr": 0.005}
    method = CoOp(make_setup(CoOp, n_steps=15, **hparams))
    batches = make_batches(0)[0]
    losses = [float(method.update(batches)["loss"]) for _ in range(15)]
    assert losses[-1] < losses[0] - 0.02
    assert method.prompts.context.shape == ((3, 4, 128) if csc else (4, 128))


def test_cached_features_change_nothing_when_images_are_not_augmented(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    finals = []
    for augmentation in ("none", "clipood"):  # the fixture's images are the same under both
        method = CoOp(make_setup(CoOp, n_steps=4, ctx_init="a photo of a", augmentation=augmentation))
        for step in range(4):
            method.update(make_batches(step)[0])
        finals.append(method.prompts.context.detach())
    torch.testing.assert_close(finals[0], finals[1], rtol=0, atol=1e-5)


def test_cached_features_are_asked_for_once_when_training(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    setup = make_setup(CoOp, augmentation="none")
    asked: list[str] = []

    def features(view: Any) -> Any:
        asked.append(view.name)
        return setup.features(view)

    method = CoOp(dataclasses.replace(setup, features=features))
    assert asked == []
    for step in range(2):
        method.update(make_batches(step)[0])
    assert asked == ["env0_in", "env1_in", "env2_in"]


def test_context_too_long_for_the_backbone_is_refused(make_setup: Callable[..., Any]) -> None:
    with pytest.raises(SpecError, match="n_ctx"):
        CoOp(make_setup(CoOp, n_ctx=40))


@pytest.mark.parametrize("augmentation", ["none", "clipood"])
def test_bf16_trains_as_fp32_does_nearly(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], augmentation: str
) -> None:
    losses, contexts = [], []
    for precision in ("fp32", "bf16"):
        setup = make_setup(CoOp, n_steps=8, ctx_init="a photo of a", augmentation=augmentation, precision=precision)
        method = CoOp(setup)
        start = method.prompts.context.detach().clone()
        losses.append([float(method.update(make_batches(0)[0])["loss"]) for _ in range(8)])
        contexts.append((method.prompts.context.detach() - start).flatten())
        assert method.prompts.context.dtype == torch.float32
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], abs=0.05)
    assert torch.nn.functional.cosine_similarity(*contexts, dim=0) > 0.95
