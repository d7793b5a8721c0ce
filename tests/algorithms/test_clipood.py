"""CLIPood against the vectors worked out by hand, closed forms and float16 facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional

from bench.algorithms.clipood import CLIPood, beta_weights, margin_metric_softmax
from bench.averaging import AveragedTower, half_parameters, round_to_half_, running_shares
from bench.errors import SpecError
from bench.hparams import resolve

TEXT = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(8, 3, 96, 96, generator=torch.Generator().manual_seed(3))


# The loss


@pytest.mark.parametrize(("feature", "expected"), [((0.8, 0.6), 28.0), ((0.6, 0.8), 52.0)])
def test_mms_gives_the_values_worked_out_by_hand(feature: tuple[float, float], expected: float) -> None:
    loss = margin_metric_softmax(torch.tensor([feature]), TEXT, torch.tensor([0]), 100, 0.3)
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_mms_is_the_mean_over_the_batch_and_normalises_its_inputs() -> None:
    features, labels = torch.tensor([[8.0, 6.0], [0.06, 0.08]]), torch.tensor([0, 0])
    loss = margin_metric_softmax(features, TEXT * torch.tensor([[2.0], [0.5], [7.0]]), labels, 100.0, 0.3)
    assert loss.item() == pytest.approx(40.0, abs=1e-4)


def test_mms_without_margin_is_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    features = functional.normalize(torch.randn(5, 8, generator=generator), dim=-1)
    text = functional.normalize(torch.randn(4, 8, generator=generator), dim=-1)
    labels = torch.tensor([0, 1, 2, 3, 0])
    expected = functional.cross_entropy(100 * features @ text.T, labels)
    torch.testing.assert_close(margin_metric_softmax(features, text, labels, 100, 0), expected)


@given(seed=st.integers(0, 2**16), margin=st.floats(0, 1), scale=st.floats(1, 100))
def test_mms_raises_every_negative_by_the_distance_of_its_text(seed: int, margin: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = functional.normalize(torch.randn(6, 5, generator=generator, dtype=torch.float64), dim=-1)
    text = functional.normalize(torch.randn(4, 5, generator=generator, dtype=torch.float64), dim=-1)
    labels = torch.randint(4, (6,), generator=generator)
    distances = 1 - text[labels] @ text.T
    expected = functional.cross_entropy(scale * (features @ text.T + margin * distances), labels)
    torch.testing.assert_close(margin_metric_softmax(features, text, labels, scale, margin), expected)


def test_mms_is_not_touched_by_autocast() -> None:
    features, labels = torch.tensor([[0.8, 0.6]]).bfloat16(), torch.tensor([0])
    plain = margin_metric_softmax(features, TEXT, labels, 100, 0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(margin_metric_softmax(features, TEXT, labels, 100, 0.3), plain)


def test_margins_give_three_losses(make_setup: Callable[..., Any], make_batches: Callable[..., Any]) -> None:
    losses = {}
    for margin in ("none", "constant", "mms"):
        losses[margin] = CLIPood(make_setup(CLIPood, margin=margin)).update(make_batches(0)[0])["loss"].item()
    assert losses["none"] < losses["mms"] and losses["none"] < losses["constant"]
    assert len(set(losses.values())) == 3


@pytest.mark.parametrize("margin", ["constant", "mms"])
def test_margin_of_zero_is_cross_entropy(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], margin: str
) -> None:
    with_zero = CLIPood(make_setup(CLIPood, margin=margin, margin_lambda=0.0)).update(make_batches(0)[0])["loss"]
    without = CLIPood(make_setup(CLIPood, margin="none")).update(make_batches(0)[0])["loss"]
    torch.testing.assert_close(with_zero, without)


def test_constant_margin_raises_every_negative_alike(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], pretrained: Any
) -> None:
    method = CLIPood(make_setup(CLIPood, margin="constant", margin_lambda=0.3))
    batches = make_batches(0)[0]
    with torch.no_grad():
        logits = torch.cat(
            [method.head(pretrained.visual(batch.images), method.setup.class_names) for batch in batches]
        )
    labels = torch.cat([batch.labels for batch in batches])
    negatives = 1 - functional.one_hot(labels, 3)
    expected = functional.cross_entropy(logits + pretrained.scale * 0.3 * negatives, labels)
    torch.testing.assert_close(method.update(batches)["loss"], expected, rtol=1e-4, atol=1e-5)


# The average


def test_beta_weights_are_the_known_ones() -> None:
    known = np.array([1.061033, 0.694609, 0.636620, 0.694609, 1.061033])
    np.testing.assert_allclose(beta_weights(4, 0.5), known / known.sum(), atol=1e-6)
    np.testing.assert_allclose(beta_weights(4, 0.1), [0.30015, 0.14001, 0.11968, 0.14001, 0.30015], atol=1e-5)
    half, tenth = beta_weights(5000, 0.5), beta_weights(5000, 0.1)
    assert half[0] == pytest.approx(0.0064007, abs=1e-7) and tenth[0] == pytest.approx(0.06248, abs=1e-5)
    assert half[:500].sum() == pytest.approx(0.203, abs=2e-3) and tenth[:500].sum() == pytest.approx(0.355, abs=2e-3)


@given(n_steps=st.integers(0, 300), beta=st.floats(0.02, 20))
def test_beta_weights_are_scipys_density_symmetric_and_sum_to_one(n_steps: int, beta: float) -> None:
    weights = beta_weights(n_steps, beta)
    density = stats.beta(beta, beta).pdf((np.arange(n_steps + 1) + 0.5) / (n_steps + 1))
    assert weights.shape == (n_steps + 1,) and weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights, density / density.sum(), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-6)


def test_beta_weights_of_1_are_uniform() -> None:
    np.testing.assert_allclose(beta_weights(9, 1.0), 0.1)


@pytest.mark.parametrize(("n_steps", "beta"), [(-1, 0.5), (5, 0.0), (5, -1.0), (5, float("nan"))])
def test_beta_weights_refuse_what_has_no_density(n_steps: int, beta: float) -> None:
    with pytest.raises(SpecError, match="n_steps >= 0 and beta > 0"):
        beta_weights(n_steps, beta)


@given(
    thetas=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=40),
    beta=st.sampled_from([0.1, 0.5, 1.0, 3.0]),
)
def test_running_average_is_the_closed_form(thetas: list[float], beta: float) -> None:
    weights = beta_weights(len(thetas) - 1, beta)
    tower = nn.Linear(1, 1)
    nn.init.constant_(tower.weight, thetas[0])
    average = AveragedTower(tower)
    for theta, share in zip(thetas[1:], running_shares(weights)[1:], strict=True):
        nn.init.constant_(tower.weight, theta)
        average.add(share)
    assert average.tower.weight.item() == pytest.approx(float(np.dot(weights, thetas)), abs=1e-4)


def test_running_average_of_0_to_4_is_2() -> None:
    tower = nn.Linear(1, 1)
    nn.init.constant_(tower.weight, 0)
    average = AveragedTower(tower)
    for theta, share in list(enumerate(running_shares(beta_weights(4, 0.5))))[1:]:  # iterate 0 is there from the start
        nn.init.constant_(tower.weight, theta)
        average.add(share)
    assert average.tower.weight.item() == pytest.approx(2.0)


def _iterates(method: CLIPood, make_batches: Callable[..., Any], n_steps: int = 4) -> list[list[torch.Tensor]]:
    """Train; give the parameters of every iterate, the pre-trained ones first."""
    kept = [[parameter.detach().clone() for parameter in method.tower.parameters()]]
    for step in range(n_steps):
        method.update(make_batches(step)[0])
        kept.append([parameter.detach().clone() for parameter in method.tower.parameters()])
    return kept


def _weights(average: str) -> list[float]:
    ema = [0.9**4, 0.1 * 0.9**3, 0.1 * 0.9**2, 0.1 * 0.9, 0.1]
    bma = beta_weights(4, 0.5).tolist()
    return {
        "bma": bma,
        "uniform": [0.2] * 5,
        "ema": ema,
        "wise": [0.7, 0, 0, 0, 0.3],
        "none": [0, 0, 0, 0, 1],
    }[average]


@pytest.mark.parametrize("average", ["none", "ema", "uniform", "bma", "wise"])
def test_predicting_tower_is_the_weighted_mean_of_all_iterates(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], average: str
) -> None:
    method = CLIPood(make_setup(CLIPood, average=average, lr=1e-3, ema_momentum=0.9, wise_alpha=0.3))
    iterates = _iterates(method, make_batches)
    tower = next(method.predictors(final=False))[1].tower
    assert tower is not None
    for parameter, values in zip(tower.parameters(), zip(*iterates, strict=True), strict=True):
        expected = sum(weight * value.double() for weight, value in zip(_weights(average), values, strict=True))
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-5, atol=1e-6)


def test_uniform_is_beta_1(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], images: torch.Tensor
) -> None:
    uniform = CLIPood(make_setup(CLIPood, average="uniform"))
    beta = CLIPood(make_setup(CLIPood, average="bma", beta=1.0))
    for step in range(3):
        uniform.update(make_batches(step)[0])
        beta.update(make_batches(step)[0])
    torch.testing.assert_close(uniform.predict(images), beta.predict(images), rtol=1e-4, atol=1e-4)


def test_buffers_are_not_averaged() -> None:
    tower = nn.BatchNorm1d(2)
    average = AveragedTower(tower)
    tower.running_mean.fill_(5)
    average.add(0.5)
    assert not average.tower.running_mean.any()


def test_last_iterate_is_a_further_predictor_at_the_end(make_setup: Callable[..., Any]) -> None:
    method = CLIPood(make_setup(CLIPood))
    assert [label for label, _ in method.predictors(final=False)] == [""]
    assert [label for label, _ in method.predictors(final=True)] == ["", "last"]
    assert list(method.predictors(final=True))[1][1].tower is method.tower
    assert [label for label, _ in CLIPood(make_setup(CLIPood, average="none")).predictors(final=True)] == [""]


def test_state_holds_the_average_only_where_there_is_one(make_setup: Callable[..., Any]) -> None:
    for average, kept in (("bma", True), ("ema", True), ("uniform", True), ("none", False), ("wise", False)):
        assert ("average" in CLIPood(make_setup(CLIPood, average=average)).state_dict()["parts"]) is kept


# Rounding to float16


def _rounded(value: float) -> float:
    tensor = torch.tensor([value])
    round_to_half_([tensor])
    assert tensor.dtype == torch.float32
    return tensor.item()


@pytest.mark.parametrize(("weight", "update", "moves"), [(0.02, 5e-6, False), (0.01, 5e-6, True), (0.05, 1e-5, False)])
def test_small_updates_are_lost_to_float16(weight: float, update: float, moves: bool) -> None:
    start = _rounded(weight)
    assert (_rounded(start - update) != start) is moves


def test_average_accumulated_in_float16_stands_still_where_the_exact_one_moves() -> None:
    tower = nn.Linear(1, 1, bias=False)
    nn.init.constant_(tower.weight, _rounded(0.02))
    exact, half = AveragedTower(tower), AveragedTower(tower, half=("weight",))
    start = tower.weight.item()
    nn.init.constant_(tower.weight, _rounded(0.021))
    for average in (exact, half):
        for _ in range(10):
            average.add(2.2e-4)
    assert exact.tower.weight.item() > start
    assert half.tower.weight.item() == start
    half.add(0.5)
    assert half.tower.weight.item() == _rounded(half.tower.weight.item()) > start


def test_float16_parameters_are_those_of_openais_conversion() -> None:
    open_clip = pytest.importorskip("open_clip")
    visual = open_clip.model.VisionTransformer(32, 16, 32, 1, 2, 2.0, output_dim=16)
    half = set(half_parameters(visual))
    assert half == {
        "conv1.weight",
        "proj",
        *(f"transformer.resblocks.0.attn.{name}" for name in ("in_proj_weight", "in_proj_bias")),
        *(f"transformer.resblocks.0.attn.out_proj.{name}" for name in ("weight", "bias")),
        *(f"transformer.resblocks.0.mlp.{layer}.{name}" for layer in ("c_fc", "c_proj") for name in ("weight", "bias")),
    }


def test_emulation_rounds_convolutions_and_leaves_normalisation_exact(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    method = CLIPood(make_setup(CLIPood, emulate_fp16=True))
    for step in range(2):
        method.update(make_batches(step)[0])
    for tower in (method.tower, method.average.tower):
        for name, parameter in tower.named_parameters():
            if name in method.half:
                assert torch.equal(parameter, parameter.half().float()), name
    others = [value for name, value in method.tower.named_parameters() if name not in method.half]
    assert others and not all(torch.equal(value, value.half().float()) for value in others)


# The published settings


@pytest.mark.parametrize(
    ("dataset", "lr", "steps"),
    [
        ("PACS", 5e-6, 5000),
        ("VLCS", 5e-6, 5000),
        ("TerraIncognita", 5e-6, 5000),
        ("OfficeHome", 1e-5, 5000),
        ("DomainNet", 1e-5, 10000),
    ],
)
def test_defaults_are_those_of_scripts_sh(dataset: str, lr: float, steps: int) -> None:
    values = resolve(CLIPood.hparams, dataset=dataset, backbone="ViT-B-16", hparams_seed=0, trial_seed=0)
    chosen = {
        name: values[name] for name in ("lr", "weight_decay", "batch_size", "margin_lambda", "beta", "augmentation")
    }
    assert chosen == {
        "lr": lr,
        "weight_decay": 0.1,
        "batch_size": 12,
        "margin_lambda": 0.3,
        "beta": 0.5,
        "augmentation": "clipood",
    }
    assert (values["margin"], values["average"], values["emulate_fp16"]) == ("mms", "bma", False)
    assert CLIPood.steps.default_for(dataset, "ViT-B-16") == steps


def test_optimizer_decays_every_parameter_and_follows_a_cosine(make_setup: Callable[..., Any]) -> None:
    method = CLIPood(make_setup(CLIPood))
    [group] = method.optimizer.param_groups
    assert group["weight_decay"] == 0.1 and group["betas"] == (0.9, 0.999) and group["eps"] == 1e-8
    assert len(group["params"]) == len(list(method.tower.parameters()))
    assert [method.learning_rate_factor(step) for step in range(5)] == pytest.approx(
        [1, 0.8536, 0.5, 0.1464, 0], abs=1e-4
    )


@pytest.mark.parametrize("average", ["ema", "wise"])
def test_resume_is_bit_exact_with_every_average(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], images: torch.Tensor, average: str
) -> None:
    straight, first, second = (CLIPood(make_setup(CLIPood, average=average, emulate_fp16=True)) for _ in range(3))
    for step in range(2):
        straight.update(make_batches(step)[0])
    first.update(make_batches(0)[0])
    second.load_state_dict(first.state_dict())
    second.update(make_batches(1)[0])
    assert torch.equal(second.predict(images), straight.predict(images))
