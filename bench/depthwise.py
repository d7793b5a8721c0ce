"""Depthwise convolutions on feature maps that are smaller than their kernel, as an EfficientNet's last blocks have them.

For these oneDNN, which convolves for torch on a CPU, knows no direct way to the weights' gradient: it multiplies matrices
channel by channel, which takes many times as long as all else that the convolution does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution with stride 1 that trains fast on small maps; same parameters, same function."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, C, H, W); the result and the input's gradient are torch's to the bit."""
        if not self._pays(input):
            return super().forward(input)
        result: Tensor = _Convolution.apply(input, self.weight, self.padding)
        return result

    def _pays(self, images: Tensor) -> bool:
        return (
            torch.is_grad_enabled()
            and self.weight.requires_grad
            and images.device.type == "cpu"
            and images.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and any(side < size for side, size in zip(images.shape[2:], self.kernel_size))
        )


class _Convolution(torch.autograd.Function):
    """torch's convolution with another way to the weights' gradient; it can be differentiated again, as IGA needs."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        """Convolve (B, C, H, W) with (C, 1, h, w)."""
        ctx.save_for_backward(images, weight)
        ctx.padding = padding
        return functional.conv2d(images, weight, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Give the gradients of the images and of the weights, where they are asked for."""
        images, weight = ctx.saved_tensors
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images = _gradient_of_images(images, weight, gradient, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_weight(images, gradient, weight.shape[2:], ctx.padding)
        return of_images, of_weight, None


def _gradient_of_images(images: Tensor, weight: Tensor, gradient: Tensor, padding: tuple[int, int]) -> Tensor:
    """Give what autograd gives; `torch.nn.grad.conv2d_input` would not know how the images lie in memory."""
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, (1, 1), padding, (1, 1), False, (0, 0), len(weight), (True, False, False)
    )[0]
    return found


def _gradient_of_weight(images: Tensor, gradient: Tensor, kernel: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Give (C, 1, *kernel): for each place of the kernel the products of the gradient and what it lay over, summed."""
    high, wide = padding
    padded = functional.pad(images, (wide, wide, high, high)).permute(0, 2, 3, 1)
    gradient = gradient.permute(0, 2, 3, 1)
    rows, columns = gradient.shape[1:3]
    sums = [
        (padded[:, y : y + rows, x : x + columns] * gradient).sum(dim=(0, 1, 2))
        for y in range(kernel[0])
        for x in range(kernel[1])
    ]
    return torch.stack(sums, dim=1).view(-1, 1, *kernel)


def train_small_maps_fast(tower: nn.Module) -> nn.Module:
    """Make the plain depthwise convolutions of a tower `DepthwiseConv2d`, in place; give it back."""
    for module in tower.modules():
        if type(module) is nn.Conv2d and _is_known(module):
            module.__class__ = DepthwiseConv2d
    return tower


def _is_known(convolution: nn.Conv2d) -> bool:
    return (
        1 < convolution.groups == convolution.in_channels == convolution.out_channels
        and convolution.bias is None
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        and convolution.stride == convolution.dilation == (1, 1)
    )
