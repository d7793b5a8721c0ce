"""Depthwise convolutions on small maps: torch's function, and its gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.depthwise import DepthwiseConv2d, train_small_maps_fast
from bench.models import load_backbone
from bench.spec import Places


def pair(channels: int, kernel: tuple[int, int], padding: tuple[int, int]) -> tuple[nn.Conv2d, nn.Conv2d]:
    torch.manual_seed(0)
    plain = nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=False)
    return plain, train_small_maps_fast(nn.Sequential(copy.deepcopy(plain)))[0]  # type: ignore[index]


def gradients(module: nn.Conv2d, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    module.zero_grad()
    images = images.clone().requires_grad_()
    convolved = module(images)
    torch.manual_seed(1)
    convolved.backward(torch.randn(convolved.shape).to(images.dtype))
    assert images.grad is not None and module.weight.grad is not None
    return convolved.detach(), images.grad, module.weight.grad


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 4),
    channels=st.integers(2, 9),
    sides=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    data=st.data(),
)
def test_it_is_torchs_convolution(
    batch: int, channels: int, sides: tuple[int, int], kernel: tuple[int, int], data: st.DataObject
) -> None:
    least = [max(0, -((side - size) // 2)) for side, size in zip(sides, kernel)]  # else nothing is left of the map
    padding = tuple(data.draw(st.integers(few, max(few, size // 2))) for few, size in zip(least, kernel))
    plain, ours = pair(channels, kernel, padding)  # type: ignore[arg-type]
    images = torch.randn(batch, channels, *sides).contiguous(memory_format=torch.channels_last)
    expected, found = gradients(plain, images), gradients(ours, images)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=0)
    exact = gradients(copy.deepcopy(plain).double(), images.double())[2]
    torch.testing.assert_close(found[2].double(), exact, rtol=1e-5, atol=1e-5)


def test_gradient_is_as_near_to_the_exact_one_as_torchs() -> None:
    plain, ours = pair(64, (5, 5), (2, 2))
    images = torch.randn(96, 64, 3, 3).contiguous(memory_format=torch.channels_last)
    theirs, found = gradients(plain, images)[2], gradients(ours, images)[2]
    exact = gradients(copy.deepcopy(plain).double(), images.double())[2]
    assert (found - exact).abs().max() <= 2 * (theirs - exact).abs().max()


def test_gradients_of_gradients_are_torchs() -> None:
    plain, ours = pair(6, (5, 5), (2, 2))
    images, found = torch.randn(3, 6, 3, 3), []
    for module in (plain, ours):
        given = images.clone().requires_grad_()
        loss = (
            module(module(given).tanh()).square().sum()
        )  # the inner one's gradient follows from the outer one's weights
        penalty = sum(
            each.square().sum() for each in torch.autograd.grad(loss, (given, module.weight), create_graph=True)
        )
        found.append(torch.autograd.grad(penalty, (given, module.weight)))  # type: ignore[arg-type]
    for theirs, mine in zip(*found):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frozen", ["images", "weight"])
def test_what_needs_no_gradient_gets_none(frozen: str) -> None:
    _, ours = pair(6, (5, 5), (2, 2))
    images = torch.randn(3, 6, 3, 3, requires_grad=frozen != "images")
    ours.requires_grad_(frozen != "weight")
    ours(images).sum().backward()
    assert (images.grad is None, ours.weight.grad is None) == (frozen == "images", frozen == "weight")


def test_larger_maps_and_fixed_weights_are_torchs_to_the_bit() -> None:
    plain, ours = pair(16, (3, 3), (1, 1))
    images = torch.randn(8, 16, 6, 6).contiguous(memory_format=torch.channels_last)
    for one, other in zip(gradients(plain, images), gradients(ours, images)):
        assert torch.equal(one, other)
    ours.requires_grad_(False)
    assert ours(torch.randn(8, 16, 2, 2)).grad_fn is None


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(8, 8, 5, padding=2, bias=False),
        nn.Conv2d(8, 16, 5, padding=2, groups=8, bias=False),
        nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, stride=2, bias=False),
        nn.Conv2d(8, 8, 3, padding=2, groups=8, dilation=2, bias=False),
        nn.Conv2d(8, 8, 5, padding="same", groups=8, bias=False),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, padding_mode="circular", bias=False),
    ],
    ids=["dense", "two a channel", "bias", "stride", "dilation", "same", "circular"],
)
def test_other_convolutions_stay_as_they_are(other: nn.Conv2d) -> None:
    train_small_maps_fast(other)
    assert type(other) is nn.Conv2d


def test_tiny_has_them_under_the_names_of_its_weights() -> None:
    tower = load_backbone("tiny", "embedded", Places()).trainable_visual()
    known = [name for name, module in tower.named_modules() if type(module) is DepthwiseConv2d]
    assert "trunk.blocks.5.1.conv_dw" in known and f"{known[0]}.weight" in tower.state_dict()
