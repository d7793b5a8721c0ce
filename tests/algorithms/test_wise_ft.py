"""WiSE-FT: end points, interpolation of every entry, warm-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.algorithms.wise_ft import WiSEFT
from bench.algorithms.zeroshot import ZeroShot
from bench.averaging import interpolate_


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(8, 3, 96, 96, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def trained(make_setup: Callable[..., Any], make_batches: Callable[..., Any]) -> WiSEFT:
    """Trained hard enough that the end points differ visibly."""
    wise = WiSEFT(make_setup(WiSEFT, lr=1e-3, warmup=0))
    for step in range(3):
        wise.update(make_batches(step)[0])
    return wise


def _grid(wise: WiSEFT, images: torch.Tensor) -> dict[str, torch.Tensor]:
    logits = {}
    for label, predictor in wise.predictors(final=True):
        with torch.no_grad():
            features = (predictor.tower or wise.backbone.visual)(images)
            logits[label] = predictor.head(features, wise.setup.class_names).clone()
    return logits


def test_whole_grid_comes_at_the_end_only(trained: WiSEFT) -> None:
    assert [label for label, _ in trained.predictors(final=False)] == [""]
    labels = [label for label, _ in trained.predictors(final=True)]
    assert labels == ["", *(f"alpha={tenth / 10}" for tenth in range(11))]


def test_grid_can_be_left_out(make_setup: Callable[..., Any]) -> None:
    assert [label for label, _ in WiSEFT(make_setup(WiSEFT, grid=False)).predictors(final=True)] == [""]


def test_alpha_0_is_zero_shot_and_alpha_1_is_fine_tuned(
    trained: WiSEFT, make_setup: Callable[..., Any], images: torch.Tensor
) -> None:
    logits = _grid(trained, images)
    zero_shot = ZeroShot(make_setup(ZeroShot)).predict(images)
    torch.testing.assert_close(logits["alpha=0.0"], zero_shot, rtol=1e-6, atol=1e-5)
    with torch.no_grad():
        fine_tuned = trained.head(trained.tower(images), trained.setup.class_names)
    assert torch.equal(logits["alpha=1.0"], fine_tuned)
    assert not torch.allclose(fine_tuned, zero_shot, atol=0.1)
    assert torch.equal(logits[""], logits["alpha=0.5"])


def test_a_coefficient_that_was_evaluated_is_the_same_predictor_again(trained: WiSEFT) -> None:
    """So the evaluator scores it once; the end point is the tower that is trained, which other methods may share."""
    predictors = dict(trained.predictors(final=True))
    assert predictors["alpha=0.5"] is predictors[""]
    assert predictors["alpha=0.0"].tower is None and predictors["alpha=1.0"].tower is trained.tower
    assert len({id(each) for each in predictors.values()}) == 11


def test_the_main_predictor_still_has_its_weights_when_it_comes_again(trained: WiSEFT) -> None:
    for label, predictor in trained.predictors(final=True):
        if label == "":
            assert predictor.tower is not None
            first = [value.clone() for value in predictor.tower.state_dict().values()]
        if label == "alpha=0.5":
            again = predictor.tower.state_dict().values()
            assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


def test_weights_at_alpha_0_and_1_are_the_end_points_to_the_bit(trained: WiSEFT) -> None:
    for alpha, tower, head in (
        (0.0, trained.backbone.visual, trained.start_head),
        (1.0, trained.tower, trained.head),
    ):
        trained.mixed(0.7)
        predictor = trained.mixed(alpha)
        mixed = {
            **(predictor.tower or trained.backbone.visual).state_dict(),
            **trained.mixed_head.linear.state_dict(),
        }
        for name, value in {**tower.state_dict(), **head.linear.state_dict()}.items():
            assert torch.equal(mixed[name], value), name


def test_alpha_applies_to_every_entry_and_from_the_end_points_each_time(trained: WiSEFT) -> None:
    for alpha in (0.9, 0.2, 0.3):
        trained.mixed(alpha)
    mixed = {**trained.mixed_tower.state_dict(), **trained.mixed_head.linear.state_dict()}
    start = {**trained.backbone.visual.state_dict(), **trained.start_head.linear.state_dict()}
    end = {**trained.tower.state_dict(), **trained.head.linear.state_dict()}
    assert {"weight", "bias"} < mixed.keys()
    for name, value in mixed.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.7 * start[name] + 0.3 * end[name], rtol=1e-5, atol=1e-6)


def test_mixing_leaves_both_end_points_alone(trained: WiSEFT, images: torch.Tensor) -> None:
    modules = (trained.tower, trained.head.linear, trained.start_head.linear, trained.backbone.visual)
    before = [value.clone() for module in modules for value in module.state_dict().values()]
    _grid(trained, images)
    after = [value for module in modules for value in module.state_dict().values()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_with_a_frozen_encoder_mixed_weights_give_mixed_logits(trained: WiSEFT) -> None:
    features, names = (
        torch.randn(5, 256, generator=torch.Generator().manual_seed(1)),
        trained.setup.class_names,
    )
    with torch.no_grad():
        first, last = trained.start_head(features, names), trained.head(features, names)
        trained.mixed(0.3)
        torch.testing.assert_close(trained.mixed_head(features, names), 0.7 * first + 0.3 * last)


def test_untrained_classes_keep_their_zero_shot_rows(trained: WiSEFT) -> None:
    features = torch.randn(5, 256, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = trained.head(features, ("cat", "guitar"))
        assert torch.allclose(logits[:, 0], trained.start_head.text(features, ("cat",))[:, 0], atol=1e-4)
        assert torch.allclose(logits[:, 1], trained.head(features, trained.setup.class_names)[:, 1])


def test_learning_rate_warms_up_over_500_updates(make_setup: Callable[..., Any]) -> None:
    wise = WiSEFT(make_setup(WiSEFT, n_steps=5000, warmup=500, lr=3e-5))
    rates = []
    for step in (0, 499, 500, 2750, 4999):
        wise.updates = step
        wise.set_learning_rates()
        rates.append(wise.optimizer.param_groups[0]["lr"])
    assert rates[:4] == pytest.approx([3e-5 / 500, 3e-5, 3e-5, 1.5e-5], rel=1e-12)
    assert 0 < rates[4] < 1e-10


def test_warm_up_takes_at_most_half_of_a_short_run(make_setup: Callable[..., Any]) -> None:
    wise = WiSEFT(make_setup(WiSEFT, n_steps=20, warmup=500))
    factors = [wise.learning_rate_factor(step) for step in range(20)]
    assert factors[:11] == pytest.approx([(step + 1) / 10 for step in range(10)] + [1.0])
    assert factors[11:] == sorted(factors[11:], reverse=True) and factors[-1] < 0.05


def test_gradient_is_clipped_over_tower_and_head_together(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    wise = WiSEFT(make_setup(WiSEFT, clip_norm=0.01))
    wise.update(make_batches(0)[0])
    norms = torch.stack([parameter.grad.norm() for parameter in wise.parameters if parameter.grad is not None])
    assert norms.norm() == pytest.approx(0.01, rel=1e-3)


def test_label_smoothing_changes_the_loss(make_setup: Callable[..., Any], make_batches: Callable[..., Any]) -> None:
    plain, smooth = (WiSEFT(make_setup(WiSEFT, label_smoothing=amount)) for amount in (0.0, 0.2))
    assert plain.update(make_batches(0)[0])["loss"] != smooth.update(make_batches(0)[0])["loss"]


def test_models_with_other_entries_cannot_be_mixed() -> None:
    with pytest.raises(ValueError, match="same entries"):
        interpolate_(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.5)


def test_integer_entries_come_from_the_end() -> None:
    target, start, end = nn.BatchNorm1d(2), nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    end.num_batches_tracked.fill_(7)
    interpolate_(target, start, end, 0.4)
    assert target.num_batches_tracked == 7


@given(alpha=st.floats(0, 1, width=32), seed=st.integers(0, 2**16))
def test_mixed_weights_lie_between_the_end_points(alpha: float, seed: int) -> None:
    torch.manual_seed(seed)
    target, start, end = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
    interpolate_(target, start, end, alpha)
    low, high = torch.minimum(start.weight, end.weight), torch.maximum(start.weight, end.weight)
    assert ((target.weight >= low - 1e-6) & (target.weight <= high + 1e-6)).all()
