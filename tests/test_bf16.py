"""Training in bf16: the ViT's own path, working copies of float32 weights, and what both leave unchanged."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch.nn import functional

from bench.algorithm import Minibatch, Setup
from bench.hparams import resolve
from bench.protocols import View
from bench.registry import algorithms
from bench.vision_tower import VisionTower, attend, vision_tower
from bench.working_copy import WorkingCopy

CLASSES = ("dog", "guitar", "house")


def small_vit() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(32, 8, 64, 3, 4, 4.0, output_dim=16).eval()


def images(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def backbone() -> Any:
    """A ViT that is small, with random text features."""
    text = functional.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(2)), dim=-1)
    visual = vision_tower(small_vit()).requires_grad_(False)
    return SimpleNamespace(
        visual=visual,
        scale=20.0,
        context_length=77,
        device=torch.device("cpu"),
        trainable_visual=lambda: copy.deepcopy(visual).requires_grad_(True),
        encode_text=lambda texts: text[[CLASSES.index(each.split()[-1]) for each in texts]],
    )


def method(name: str, backbone: Any, n_steps: int = 4, **given: Any) -> Any:
    kind = algorithms[name]
    values = resolve(kind.hparams, dataset="toy", backbone="ViT", hparams_seed=0, trial_seed=0, given=given)
    view = View("env0_in", 0, np.arange(6), np.arange(6) % 3, CLASSES)
    nothing: Any = None
    return kind(
        Setup(
            backbone=backbone,
            class_names=CLASSES,
            train=(view,),
            unlabeled=(),
            domain_names=("A",),
            templates=("a {}",),
            hparams=values,
            n_steps=n_steps,
            run_seed=0,
            features=nothing,
            captions=nothing,
            pool=nothing,
        )
    )


def batch(seed: int = 0, n: int = 12) -> list[Minibatch]:
    """Make images whose mean colour is their class."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=stream)
    noise = 0.3 * torch.randn(n, 3, 32, 32, generator=stream)
    return [Minibatch(noise + torch.eye(3)[labels][:, :, None, None], labels, torch.arange(n))]


def accuracy(algorithm: Any) -> float:
    ((pixels, labels, _),) = batch(seed=99, n=300)
    return float((algorithm.predict(pixels).argmax(dim=1) == labels).float().mean())


@pytest.mark.parametrize("shape", [(2, 3, 17, 8), (3, 1, 50, 16)])
@pytest.mark.parametrize("asked", [1, None])
def test_attention_that_is_trained_equals_torchs(shape: tuple[int, ...], asked: int | None) -> None:
    stream = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(shape, generator=stream, dtype=torch.float64) for _ in range(3))
    q = q[:, :, :asked]
    given = [each.clone().requires_grad_(True) for each in (q, k, v)]
    expected = [each.clone().requires_grad_(True) for each in (q, k, v)]
    found, theirs = attend(*given), functional.scaled_dot_product_attention(*expected)
    torch.testing.assert_close(found, theirs)
    weights = torch.randn(found.shape, generator=stream, dtype=torch.float64)
    found.mul(weights).sum().backward()
    theirs.mul(weights).sum().backward()
    for ours, reference in zip(given, expected, strict=True):
        torch.testing.assert_close(ours.grad, reference.grad)


def test_a_float32_tower_is_open_clips_to_the_bit() -> None:
    plain = small_vit()
    ours = vision_tower(copy.deepcopy(plain))
    assert isinstance(ours, VisionTower) and ours.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(ours(images()), plain(images()))


def test_the_bf16_path_computes_the_same_function_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64 both ways agree to rounding, so what differs in bf16 is rounding alone."""
    plain = small_vit().double()
    ours: Any = vision_tower(copy.deepcopy(plain))
    expected, found = plain(images().double()), ours._lean(images().double())
    torch.testing.assert_close(found, expected)
    expected.square().sum().backward()
    found.square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)


def test_the_bf16_path_stays_near_float32() -> None:
    plain = small_vit()
    low = vision_tower(copy.deepcopy(plain)).to(torch.bfloat16)
    with torch.no_grad():
        for autocast in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                found = low(images())
            assert found.dtype == torch.bfloat16
            assert functional.cosine_similarity(found.float(), plain(images())).min() > 0.999


@pytest.mark.parametrize("given", [{"pool_type": "avg"}, {"patch_dropout": 0.1}, {"output_tokens": True}])
def test_other_kinds_of_towers_are_left_alone(given: dict[str, Any]) -> None:
    tower = VisionTransformer(32, 8, 64, 2, 4, 4.0, output_dim=16, **given)
    assert type(vision_tower(tower)) is VisionTransformer


def test_masters_are_back_after_the_loss_and_get_float32_gradients() -> None:
    tower = vision_tower(small_vit())
    masters = dict(tower.named_parameters())
    copied = WorkingCopy([tower])
    with copied.in_place():
        assert all(each.dtype == torch.bfloat16 for each in tower.parameters())
        loss = tower(images()).float().square().sum()
    assert all(masters[name] is each for name, each in tower.named_parameters())
    loss.backward()
    assert all(each.grad is None for each in masters.values())
    copied.give_gradients()
    reference = copy.deepcopy(tower).requires_grad_(True)
    reference.zero_grad()
    reference(images()).square().sum().backward()
    for (name, master), plain in zip(masters.items(), reference.parameters(), strict=True):
        assert master.grad is not None and master.grad.dtype == torch.float32
        if "in_proj_bias" in name:  # the gradient of keys' biases is zero but for rounding
            continue
        assert functional.cosine_similarity(master.grad.flatten(), plain.grad.flatten(), dim=0) > 0.99, name


def test_masters_are_back_when_the_loss_raises() -> None:
    tower = vision_tower(small_vit())
    masters = list(tower.parameters())
    with pytest.raises(ZeroDivisionError), WorkingCopy([tower]).in_place():
        _ = 1 / 0
    assert all(one is other for one, other in zip(tower.parameters(), masters, strict=True))


def test_small_updates_add_up_in_the_masters(backbone: Any) -> None:
    """An update of 1e-6 is lost in bf16 weights of size 0.1; in masters it is not."""
    algorithm = method("ERM", backbone, n_steps=1000, precision="bf16", lr=1e-6, weight_decay=0.0)
    before = copy.deepcopy(algorithm.tower.state_dict())
    for step in range(5):
        algorithm.update(batch(step))
    moved = [(after - before[name]).abs() for name, after in algorithm.tower.state_dict().items()]
    assert max(float(each.max()) for each in moved) < 2e-5
    assert all(float((each > 0).float().mean()) > 0.5 for each in moved)


def test_an_update_in_bf16_is_torchs_adamw_on_the_masters(backbone: Any) -> None:
    algorithm = method("ERM", backbone, precision="bf16", lr=1e-3)
    reference = [each.detach().clone().requires_grad_(True) for each in algorithm.tower.parameters()]
    optimizer = torch.optim.AdamW(reference, lr=1e-3, weight_decay=0.1, foreach=False, fused=False)
    for step in range(3):
        algorithm.update(batch(step))
        for mine, theirs in zip(algorithm.tower.parameters(), reference, strict=True):
            theirs.grad = mine.grad.clone()
        optimizer.param_groups[0]["lr"] = algorithm.optimizer.param_groups[0]["lr"]
        optimizer.step()
    for mine, theirs in zip(algorithm.tower.parameters(), reference, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ERM", "CLIPood", "WiSE-FT"])
def test_a_vit_learns_as_well_in_bf16_as_in_float32(backbone: Any, name: str) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        algorithm = method(name, backbone, n_steps=30, precision=precision, lr=1e-3)
        start = accuracy(algorithm)
        for step in range(30):
            algorithm.update(batch(step))
        found[precision] = accuracy(algorithm)
    assert start < 0.6 and found["fp32"] > 0.9
    assert abs(found["fp32"] - found["bf16"]) <= 0.03


@pytest.mark.parametrize("name", ["ERM", "CLIPood", "WiSE-FT"])
def test_a_vit_in_bf16_resumes_to_the_bit(backbone: Any, name: str) -> None:
    whole, first, second = (method(name, backbone, precision="bf16", lr=1e-3) for _ in range(3))
    for step in range(4):
        whole.update(batch(step))
    for step in range(2):
        first.update(batch(step))
    state = copy.deepcopy(first.state_dict())
    assert not any(value.dtype == torch.bfloat16 for value in state["parts"]["tower"].values())
    second.load_state_dict(state)
    for step in range(2, 4):
        second.update(batch(step))
    for one, other in zip(whole.tower.parameters(), second.tower.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_tower_learns_the_same(backbone: Any, precision: str) -> None:
    pytest.importorskip("torch._inductor")
    found = []
    for compiled in (False, True):
        algorithm = method("CLIPood", backbone, precision=precision, compile=compiled, lr=1e-3)
        found.append([float(algorithm.update(batch(step))["loss"]) for step in range(4)])
        assert not any("_orig_mod" in name for name in algorithm.state_dict()["parts"]["tower"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4 if precision == "fp32" else 5e-2)


def test_compile_is_no_part_of_a_trial_unless_asked_for() -> None:
    declared = algorithms["ERM"].hparams
    plain = resolve(declared, dataset="toy", backbone="ViT", hparams_seed=0, trial_seed=0)
    same = resolve(declared, dataset="toy", backbone="ViT", hparams_seed=0, trial_seed=0, given={"compile": False})
    asked = resolve(declared, dataset="toy", backbone="ViT", hparams_seed=0, trial_seed=0, given={"compile": True})
    assert plain == same and "compile" not in plain
    assert asked == {**plain, "compile": True}


def test_one_twin_serves_all_towers_of_a_kind_in_evaluation(pretrained: Any, tmp_path: Any) -> None:
    from bench.evaluation import Evaluator

    nothing: Any = SimpleNamespace(image=pretrained.image)
    evaluator = Evaluator(nothing, pretrained, nothing, tmp_path, "bf16", lambda doing: None)
    first, second = pretrained.trainable_visual(), pretrained.trainable_visual()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(1.5)
    prepared = evaluator._prepared(first)
    assert evaluator._prepared(second) is prepared
    for low, high in zip(prepared.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(low, high.to(low.dtype))
    other = vision_tower(small_vit())
    assert evaluator._prepared(other) is not prepared and evaluator._prepared(first) is prepared
