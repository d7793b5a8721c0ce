"""Per-image augmentation in the two published flavours, with all random numbers from a stream that is passed in.

- "clipood": RandomResizedCrop(scale 0.7-1, ratio 3/4-4/3, bilinear) and horizontal flip (CLIPood's released code);
- "domainbed": the same, then ColorJitter(0.3, 0.3, 0.3, 0.3) and RandomGrayscale(0.1) (DomainBed `datasets.py`).

Torchvision's random transforms draw from torch's global state and once for a whole batch; here every image has draws
of its own and a batch is a pure function of its stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional

SCALE = (0.7, 1.0)
RATIO = (3 / 4, 4 / 3)
JITTER = 0.3
GREY_PROBABILITY = 0.1
ATTEMPTS = 10
MOST = 255.999
"""What torchvision multiplies floats of 0..1 by before it cuts them to uint8."""
LITTLE = 1e-3
"""Less than the smallest difference of two colours that is none, 1/255."""
NATIVE_RESIZE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
"""Whether torchvision's resize of uint8 images is torch's own, which can then be called with a place for its result."""


def augment(images: Sequence[NDArray[np.uint8]], size: int, flavour: str, draws: np.random.Generator) -> Tensor:
    """Augment `images`, each (h, w, 3) uint8, to (B, 3, size, size) uint8, channels last in memory.

    Args:
        images: whole images of any size.
        size: side of the output in pixels.
        flavour: "clipood" or "domainbed".
        draws: where the random numbers come from; each image takes its own.
    """
    made = torch.empty(len(images), size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    for i, image in enumerate(images):
        top, left, height, width = crop_box(image.shape[0], image.shape[1], draws)
        flip = draws.random() < 0.5
        crop = image[top : top + height, left : left + width].copy()  # a mapped file cannot be written to
        whole = torch.from_numpy(crop).permute(2, 0, 1)[None]
        if NATIVE_RESIZE and not flip and flavour != "domainbed":
            torch.ops.aten._upsample_bilinear2d_aa.out(whole, [size, size], False, out=made[i : i + 1])
            continue
        one = _resize(whole, size)[0]
        if flip:
            one = one.flip(-1)
        if flavour == "domainbed":
            one = jitter(one, draws)
        made[i] = one
    return made


def _resize(images: Tensor, size: int) -> Tensor:
    """Resize (1, 3, h, w) uint8 as torchvision does, without its checks where they take longer than the resizing."""
    if NATIVE_RESIZE:
        return interpolate(images, (size, size), mode="bilinear", antialias=True)
    resized: Tensor = functional.resize(images, [size, size], antialias=True)
    return resized


def crop_box(height: int, width: int, draws: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw the box (top, left, height, width) of torchvision's RandomResizedCrop: up to ten tries, then the centre."""
    for _ in range(ATTEMPTS):
        area = height * width * draws.uniform(*SCALE)
        ratio = math.exp(draws.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            top, left = draws.integers(height - high + 1), draws.integers(width - wide + 1)
            return int(top), int(left), high, wide
    ratio = min(max(width / height, RATIO[0]), RATIO[1])
    wide, high = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - high) // 2, (width - wide) // 2, high, wide


def jitter(image: Tensor, draws: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue in random order, then grey with a small probability.

    The bytes are those of torchvision's functions, one after the other on uint8, with the same arithmetic.

    Args:
        image: (3, H, W) uint8.
        draws: where the random numbers come from.

    Returns:
        (3, H, W) float32, whole numbers of 0..255, to be read only: a grey image's colours are one memory.
    """
    factors = draws.uniform(1 - JITTER, 1 + JITTER, size=3).tolist()
    hue = float(draws.uniform(-JITTER, JITTER))
    colours = torch.empty(image.shape).copy_(image)
    for which in draws.permutation(4).tolist():
        if which == 0:
            _cut(colours.mul_(factors[0]))
        elif which == 1:
            _blend(colours, float(_grey(colours).mean()), factors[1])
        elif which == 2:
            _blend(colours, _grey(colours), factors[2])
        else:
            turn_hue(colours, hue)
    if draws.random() < GREY_PROBABILITY:
        colours = _grey(colours).expand(colours.shape)
    return colours


def _cut(colours: Tensor) -> Tensor:
    """Do what turning floats to uint8 does."""
    return colours.clamp_(0, 255).floor_()


def _grey(colours: Tensor) -> Tensor:
    """Give the brightness (H, W) of `colours` (3, H, W), cut to whole numbers."""
    grey: Tensor = 0.2989 * colours[0]
    return grey.add_(colours[1], alpha=0.587).add_(colours[2], alpha=0.114).floor_()


def _blend(colours: Tensor, other: Tensor | float, share: float) -> None:
    """Mix `colours` with `other`, in place; `share` of the former, which may be more than 1."""
    _cut(colours.mul_(share).add_(other, alpha=1.0 - share))


def turn_hue(colours: Tensor, turn: float) -> None:
    """Turn the hues of `colours` (3, H, W) float32, whole numbers of 0..255, in place by `turn` of the circle (-0.5..0.5).

    torchvision's `adjust_hue`, with the same arithmetic, several times as fast: what it selects by masks and tensors of
    indices is multiplied by 0 or 1 here, and divisors are at least `LITTLE`.
    """
    red, green, blue = colours.mul_(1 / 255)
    value = torch.maximum(red, green).maximum(blue)
    spread = value - torch.minimum(red, green).minimum(blue)
    saturation = spread / value.clamp_min(LITTLE)
    from_red, from_green, from_blue = value.sub(colours).div_(spread.clamp_min_(LITTLE))
    is_red, is_green = _is(value, red), _is(value, green)
    is_green.addcmul_(is_green, is_red, value=-1)
    hue = (from_red + 2.0).sub_(from_blue).mul_(is_green)
    hue.addcmul_((from_green + 4.0).sub_(from_red), (1.0 - is_red).sub_(is_green))
    hue.addcmul_(from_blue.sub_(from_green), is_red)
    hue.mul_(1 / 6).add_(1.0).frac_().add_(turn)
    sixths = hue.sub_(hue.floor()).mul_(6)
    number = sixths.floor()
    part = sixths.sub_(number).mul_(saturation)
    low = 1.0 - saturation
    falling = (1.0 - part).mul_(value).clamp_(0.0, 1.0)
    rising = part.add_(low).mul_(value).clamp_(0.0, 1.0)
    low.mul_(value).clamp_(0.0, 1.0)
    first, second, third, fourth, fifth = (_is(number, float(each)) for each in range(1, 6))
    zeroth = 1.0 - (first + second).add_(third).add_(fourth).add_(fifth)  # a number of 6, by rounding, is 0 too
    colours[0] = (zeroth + fifth).mul_(value).addcmul_(first, falling).addcmul_(fourth, rising)
    colours[1] = (first + second).mul_(value).addcmul_(third, falling).addcmul_(zeroth, rising)
    colours[2] = (third + fourth).mul_(value).addcmul_(fifth, falling).addcmul_(second, rising)
    colours[0].addcmul_(second.add_(third), low)
    colours[1].addcmul_(fourth.add_(fifth), low)
    colours[2].addcmul_(zeroth.add_(first), low)
    colours.mul_(MOST).floor_()


def _is(one: Tensor, other: Tensor | float) -> Tensor:
    """Give 1.0 where two tensors of floats are equal, else 0.0."""
    return torch.eq(one, other, out=torch.empty_like(one))
