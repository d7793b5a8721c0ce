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
            one = _jitter(one, draws)
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


def _jitter(image: Tensor, draws: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue in random order, then grey with a small probability."""
    factors = draws.uniform(1 - JITTER, 1 + JITTER, size=3)
    hue = float(draws.uniform(-JITTER, JITTER))
    for which in draws.permutation(4):
        if which == 0:
            image = functional.adjust_brightness(image, float(factors[0]))
        elif which == 1:
            image = functional.adjust_contrast(image, float(factors[1]))
        elif which == 2:
            image = functional.adjust_saturation(image, float(factors[2]))
        else:
            image = functional.adjust_hue(image, hue)
    if draws.random() < GREY_PROBABILITY:
        image = functional.rgb_to_grayscale(image, num_output_channels=3)
    return image
