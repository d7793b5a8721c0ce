"""UEO: the loss against its oracle values, which parameters train, and the images' weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.algorithms.ueo import UEO, InfoMax, entropy, normalisation_parameters, universal_entropy
from bench.algorithms.zeroshot import ZeroShot
from bench.errors import SpecError

PROBABILITIES = torch.tensor([[0.9, 0.05, 0.05], [0.4, 0.35, 0.25], [0.34, 0.33, 0.33]], dtype=torch.float64)
WEIGHTS = PROBABILITIES.amax(dim=1)


def test_loss_equals_the_oracle_value() -> None:
    assert float(universal_entropy(PROBABILITIES, WEIGHTS)) == pytest.approx(-0.356311, abs=1e-6)


def test_parts_of_the_loss_equal_their_oracle_values() -> None:
    conditional = float(universal_entropy(PROBABILITIES, WEIGHTS, trade_off=0.0))
    marginal = (PROBABILITIES / WEIGHTS[:, None]).sum(dim=0) / (1 / WEIGHTS).sum()
    assert conditional == pytest.approx(0.707692, abs=1e-6)
    assert marginal.tolist() == pytest.approx([0.457855, 0.290150, 0.251995], abs=1e-6)
    assert float(entropy(marginal)) == pytest.approx(1.064003, abs=1e-6)


def test_equal_weights_are_information_maximisation() -> None:
    assert float(universal_entropy(PROBABILITIES, torch.ones(3))) == pytest.approx(-0.143973, abs=1e-6)


@given(st.floats(0.01, 100), st.permutations(range(3)))
def test_loss_stays_when_weights_are_scaled_or_images_reordered(factor: float, order: list[int]) -> None:
    expected = universal_entropy(PROBABILITIES, WEIGHTS)
    torch.testing.assert_close(universal_entropy(PROBABILITIES[order], factor * WEIGHTS[order]), expected)


@pytest.mark.parametrize(("name", "every", "published"), [("ViT-B-16", 39_936, 39_936), ("RN50", 53_248, 45_568)])
def test_normalisation_parameters_have_the_published_number(name: str, every: int, published: int) -> None:
    import open_clip

    visual = open_clip.create_model(name, device="meta").visual
    counted = {
        layers: sum(each.numel() for each in normalisation_parameters(visual, layers).values())
        for layers in ("all", "published")
    }
    assert counted == {"all": every, "published": published}


def test_all_normalisation_layers_are_found_when_the_tower_is_timms(pretrained: Any) -> None:
    names = normalisation_parameters(pretrained.visual)
    norms = [module for module in pretrained.visual.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(names) == 2 * len(norms) == 98
    assert {"trunk.bn1.weight", "trunk.bn1.bias"} <= set(names)


@pytest.mark.parametrize("parameters", ["prompt", "affine", "both"])
def test_only_what_is_asked_for_trains(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], pretrained: Any, parameters: str
) -> None:
    method = UEO(make_setup(UEO, parameters=parameters, lr=0.01, lr_affine=0.01))
    context = method.prompts.context.detach().clone()
    labelled, unlabeled = make_batches(0)
    method.update(labelled, unlabeled)
    assert torch.equal(method.prompts.context, context) == (parameters == "affine")
    affine = normalisation_parameters(pretrained.visual)
    after = method.tower.state_dict()
    moved = {name for name, before in pretrained.visual.state_dict().items() if not torch.equal(before, after[name])}
    assert moved <= set(affine)
    assert bool(moved) == (parameters != "prompt")
    assert (next(method.predictors(final=True))[1].tower is None) == (parameters == "prompt")


def test_first_prediction_equals_zero_shot(make_setup: Callable[..., Any], make_batches: Callable[..., Any]) -> None:
    images = make_batches(0)[1][0].images
    assert torch.equal(UEO(make_setup(UEO)).predict(images), ZeroShot(make_setup(ZeroShot)).predict(images))


def test_prompt_starts_with_the_data_sets_words(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    images = make_batches(0)[1][0].images
    made = [
        kind(dataclasses.replace(make_setup(kind), templates=("an icon of a {}.",))).predict(images)
        for kind in (UEO, ZeroShot)
    ]
    assert torch.equal(made[0], made[1])


def test_labelled_images_change_nothing(make_setup: Callable[..., Any], make_batches: Callable[..., Any]) -> None:
    made = []
    for step in (0, 1):
        method = UEO(make_setup(UEO))
        method.update(make_batches(step)[0], make_batches(0)[1])
        made.append(method.prompts.context.detach())
    assert torch.equal(made[0], made[1])


def test_weights_are_the_zero_shot_confidence_of_the_view(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], pretrained: Any, synthetic: Any
) -> None:
    method = UEO(make_setup(UEO, weight_scale=pretrained.scale))
    logits = ZeroShot(make_setup(ZeroShot)).predict(synthetic.unlabeled[0].images)
    method.update(*make_batches(0))  # the weights are those of the initial prompt, whenever they are first needed
    expected = logits.softmax(dim=-1).amax(dim=-1)
    torch.testing.assert_close(method._weights[0], expected, rtol=0, atol=1e-5)


def test_weights_do_not_depend_on_training_when_resumed(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    trained = UEO(make_setup(UEO, lr=1.0))
    trained.update(*make_batches(0))
    resumed = UEO(make_setup(UEO, lr=1.0))
    resumed.load_state_dict(trained.state_dict())
    assert torch.equal(resumed._weights[0], trained._weights[0])


def test_weights_are_nearly_equal_when_the_cosine_is_not_scaled(make_setup: Callable[..., Any]) -> None:
    weights = UEO(make_setup(UEO))._weights[0]
    assert float(weights.std() / weights.mean()) < 0.1
    assert torch.equal(UEO(make_setup(UEO, noweight=True))._weights[0], torch.ones(12))


def test_oracle_weights_tell_known_classes_from_others(make_setup: Callable[..., Any]) -> None:
    setup = make_setup(UEO, oracle=True)
    closed = UEO(setup)._weights[0]
    opened = UEO(dataclasses.replace(setup, class_names=("dog", "guitar")))._weights[0]
    known = torch.from_numpy(setup.unlabeled[0].labels) < 2
    assert closed.tolist() == pytest.approx([1.001] * 12)
    torch.testing.assert_close(opened, known.float() + 1e-3)
    assert "oracle" in UEO(setup).notes()[0]
    assert UEO(make_setup(UEO)).notes() == []


def test_noweight_and_oracle_together_are_refused(make_setup: Callable[..., Any]) -> None:
    with pytest.raises(SpecError, match="at most one"):
        UEO(make_setup(UEO, noweight=True, oracle=True))


def test_loss_falls_when_one_batch_is_repeated(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    method = UEO(make_setup(UEO, n_steps=20, lr=0.01, lr_affine=0.01))
    batches = make_batches(0)
    losses = [float(method.update(*batches)["loss"]) for _ in range(20)]
    assert losses[-1] < losses[0]


def test_oracle_weights_take_labels_behind_the_names_for_unknown_classes(make_setup: Callable[..., Any]) -> None:
    """As views of the protocol `universal` number them."""
    setup = make_setup(UEO, oracle=True)
    view = dataclasses.replace(setup.unlabeled[0], class_names=setup.class_names[:2])
    opened = UEO(dataclasses.replace(setup, unlabeled=(view,), class_names=view.class_names))._weights[0]
    assert opened.tolist() == pytest.approx([1.001 if label < 2 else 0.001 for label in view.labels])


def test_infomax_is_the_noweight_ablation(make_setup: Callable[..., Any]) -> None:
    assert issubclass(InfoMax, UEO) and InfoMax.hparams.keys() == UEO.hparams.keys()
    assert torch.equal(InfoMax(make_setup(InfoMax))._weights[0], torch.ones(12))
    differing = {name for name, hparam in InfoMax.hparams.items() if hparam.default != UEO.hparams[name].default}
    assert differing == {"noweight"}


@pytest.mark.parametrize("parameters", ["prompt", "affine", "both"])
def test_bf16_trains_as_fp32_does_nearly(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], parameters: str
) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        method = UEO(make_setup(UEO, n_steps=6, lr=0.01, lr_affine=0.01, parameters=parameters, precision=precision))
        losses.append([float(method.update(*make_batches(0))["loss"]) for _ in range(6)])
        assert all(each.dtype == torch.float32 for each in method.tower.parameters())
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], abs=0.05)


def test_bf16_copies_of_a_vit_give_their_gradients_to_the_layers_that_train(
    make_setup: Callable[..., Any],
) -> None:
    """As `tiny` is no ViT, one stands in for its image tower."""
    import copy

    import open_clip

    from bench.algorithm import Minibatch
    from bench.vision_tower import vision_tower

    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    text = {"context_length": 32, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 1}
    visual = vision_tower(open_clip.CLIP(embed_dim=256, vision_cfg=vision, text_cfg=text).visual).requires_grad_(False)
    moved = {}
    for precision in ("fp32", "bf16"):
        setup = make_setup(UEO, n_steps=3, lr=0.1, lr_affine=0.1, precision=precision, noweight=True)
        backbone = copy.copy(setup.backbone)
        backbone.visual = visual
        method = UEO(dataclasses.replace(setup, backbone=backbone))
        images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        method.update([], [Minibatch(images, torch.full((6,), -1), torch.arange(6))])
        change = {name: each - visual.get_parameter(name) for name, each in method.tower.named_parameters()}
        assert {name for name, each in change.items() if each.any()} <= set(normalisation_parameters(visual))
        moved[precision] = torch.cat([each.detach().flatten() for each in change.values()])
    assert moved["fp32"].any() and not torch.equal(moved["fp32"], moved["bf16"])
    assert torch.nn.functional.cosine_similarity(moved["fp32"], moved["bf16"], dim=0) > 0.95
