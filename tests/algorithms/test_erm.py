"""ERM: its three heads, and what each of them trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from bench.algorithm import concatenated
from bench.algorithms.erm import ERM
from bench.algorithms.zeroshot import ZeroShot
from bench.errors import SpecError
from bench.heads import LinearHead
from bench.hparams import resolve


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(8, 3, 96, 96, generator=torch.Generator().manual_seed(3))


def test_text_head_gives_the_text_tower_no_gradient(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], pretrained: Any
) -> None:
    erm = ERM(make_setup(ERM))
    erm.update(make_batches(0)[0])
    assert all(parameter.grad is None for parameter in pretrained.text.parameters())
    assert all(parameter.grad is not None for parameter in erm.tower.parameters())
    assert not erm.head.weights(erm.setup.class_names).requires_grad


def test_loss_is_cross_entropy_of_scaled_cosines(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], pretrained: Any
) -> None:
    erm = ERM(make_setup(ERM))
    images, labels = concatenated(make_batches(0)[0])
    with torch.no_grad():
        cosines = functional.normalize(pretrained.visual(images), dim=-1) @ erm.head.weights(erm.setup.class_names).T
    expected = functional.cross_entropy(pretrained.scale * cosines, labels)
    torch.testing.assert_close(erm.update(make_batches(0)[0])["loss"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["text", "zero_shot"])
def test_it_starts_at_zero_shot_exactly(make_setup: Callable[..., Any], images: torch.Tensor, head: str) -> None:
    erm = ERM(make_setup(ERM, head=head))
    expected = ZeroShot(make_setup(ZeroShot)).predict(images)
    assert erm.starts_zero_shot
    assert torch.equal(erm.predict(images).argmax(dim=1), expected.argmax(dim=1))
    torch.testing.assert_close(erm.predict(images), expected, rtol=1e-6, atol=1e-5)


def test_zero_shot_head_starts_at_scaled_text_features_and_learns(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], pretrained: Any
) -> None:
    erm = ERM(make_setup(ERM, head="zero_shot"))
    start = erm.head.linear.weight.clone()
    torch.testing.assert_close(start.norm(dim=1), torch.full((3,), pretrained.scale))
    assert not erm.head.linear.bias.any()
    erm.update(make_batches(0)[0])
    assert not torch.equal(erm.head.linear.weight, start) and erm.head.linear.bias.any()


def test_zero_shot_head_scores_untrained_classes_by_their_text(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], pretrained: Any
) -> None:
    erm = ERM(make_setup(ERM, head="zero_shot"))
    erm.update(make_batches(0)[0])
    features = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
    logits = erm.head(features, ("cat", "house"))
    cat = pretrained.encode_text(["a photo of a cat."])
    expected = pretrained.scale * functional.cosine_similarity(features, cat)
    torch.testing.assert_close(logits[:, 0], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[:, 1], erm.head(features, erm.setup.class_names)[:, 2])


def test_of_two_classes_with_one_name_the_first_is_meant(make_setup: Callable[..., Any]) -> None:
    erm = ERM(make_setup(ERM, head="zero_shot"))
    head = LinearHead(erm.head.text, ("horse", "missile", "house", "missile"))  # as ImageNet has it
    with torch.no_grad():
        head.linear.weight.copy_(torch.arange(4.0)[:, None].expand_as(head.linear.weight))
    features = functional.normalize(torch.ones(1, 256), dim=-1)
    logits = head(features, ("missile", "house"))
    torch.testing.assert_close(logits, head(features, head.class_names)[:, [1, 2]])


def test_random_head_knows_nothing_of_zero_shot(make_setup: Callable[..., Any], images: torch.Tensor) -> None:
    torch.manual_seed(0)
    erm = ERM(make_setup(ERM, head="random"))
    assert not erm.starts_zero_shot and ERM.starts_zero_shot
    with torch.no_grad():
        expected = erm.head.linear(erm.backbone.visual(images))
    torch.testing.assert_close(erm.predict(images), expected)
    assert erm.head.linear.weight.abs().max() <= 1 / 256**0.5


def test_random_head_refuses_classes_it_has_no_row_for(make_setup: Callable[..., Any], images: torch.Tensor) -> None:
    erm = ERM(make_setup(ERM, head="random"))
    assert torch.equal(erm.predict(images, ("house", "dog")), erm.predict(images)[:, [2, 0]])
    with pytest.raises(SpecError, match=r"not trained on: cat; use head=text"):
        erm.predict(images, ("cat", "dog"))


def test_dropout_acts_in_training_only(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], images: torch.Tensor
) -> None:
    plain, dropped = (ERM(make_setup(ERM, dropout=dropout)) for dropout in (0.0, 0.5))
    assert torch.equal(plain.predict(images), dropped.predict(images))
    torch.manual_seed(0)
    assert plain.update(make_batches(0)[0])["loss"] != dropped.update(make_batches(0)[0])["loss"]


@pytest.mark.parametrize(("schedule", "factors"), [("cosine", [1.0, 0.8536, 0.5, 0.1464]), ("constant", [1.0] * 4)])
def test_schedule_sets_the_learning_rate(make_setup: Callable[..., Any], schedule: str, factors: list[float]) -> None:
    erm = ERM(make_setup(ERM, schedule=schedule))
    assert [erm.learning_rate_factor(step) for step in range(4)] == pytest.approx(factors, abs=1e-4)


@pytest.mark.parametrize(
    ("dataset", "backbone", "lr"),
    [
        ("PACS", "ViT-B-16", 5e-6),
        ("OfficeHome", "ViT-B-16", 1e-5),
        ("DomainNet", "ViT-B-16", 1e-5),
        ("PACS", "tiny", 5e-5),
    ],
)
def test_defaults_are_the_published_ones(dataset: str, backbone: str, lr: float) -> None:
    values = resolve(ERM.hparams, dataset=dataset, backbone=backbone, hparams_seed=0, trial_seed=0)
    assert (values["lr"], values["weight_decay"], values["batch_size"], values["head"]) == (
        lr,
        0.1,
        12,
        "text",
    )
    assert ERM.steps.default_for("PACS", "ViT-B-16") == 5000 and ERM.steps.default_for("DomainNet", "ViT-B-16") == 10000
