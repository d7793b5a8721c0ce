"""Four manners of drawing an icon, each a pure function of the icon's shape and a random stream.

ink       flat dark colour on white
chalk     grainy strokes of coloured chalk on a smudged dark board
woodcut   carved, unevenly inked print on fibrous coloured paper
gradient  bright shapes with a shadow on a saturated two-colour gradient

A shape is a float array [SIDE, SIDE] in 0..1, a picture a uint8 array [SIDE, SIDE, 3].
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

SIDE = 144  # pixels

Plane = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE - 0.5


def draw(style: str, glyph: Image.Image, rng: np.random.Generator) -> Picture:
    """Draw `glyph` (white on black, cropped) in `style`; position, size, angle and colours come from `rng`."""
    picture = STYLES[style](glyph, rng)
    # 64 levels look the same as 256, and make noisy pictures smaller on disk.
    levels: Picture = (np.rint(np.clip(picture, 0, 255) * (63 / 255)) * (255 / 63)).astype(np.uint8)
    return levels


def _ink(glyph: Image.Image, rng: np.random.Generator) -> Plane:
    shape = _place(glyph, rng)
    ink = _pick(rng, [(20, 20, 24), (24, 40, 92), (110, 20, 28), (16, 76, 52), (70, 30, 90), (60, 60, 66)])
    ink = ink + rng.uniform(-12, 12, 3).astype(np.float32)
    return _blend(np.full((SIDE, SIDE, 3), 255.0, np.float32), ink, shape)


def _chalk(glyph: Image.Image, rng: np.random.Generator) -> Plane:
    shape = _place(glyph, rng, wobble=2.4)
    board = _pick(rng, [(36, 58, 48), (40, 44, 50), (30, 42, 62), (50, 42, 40)]) + rng.uniform(-6, 6)
    smudges = np.maximum(_clouds(rng, 3, 5), 0) * 26 + np.maximum(_clouds(rng, 24, 3), 0) * 10
    ground = board + (smudges + 4 * _grain(rng))[..., None]
    strokes = 0.5 + 0.5 * _stripes(rng, period=rng.uniform(0.030, 0.050), bend=1.2)
    body = shape * (rng.uniform(0.15, 0.35) + 0.55 * strokes)
    grain = np.clip(0.80 + 0.36 * _grain(rng) + 0.25 * _clouds(rng, 9, 9), 0.08, 1)
    chalk = _pick(
        rng, [(246, 246, 238), (250, 232, 130), (250, 176, 190), (160, 212, 246), (178, 236, 170), (250, 190, 120)]
    )
    dust = 0.16 * _blur(shape, 5)
    return _blend(ground, chalk, np.maximum(np.maximum(_rim(shape, 5), body) * grain, dust))


def _woodcut(glyph: Image.Image, rng: np.random.Generator) -> Plane:
    shape = _widen(_place(glyph, rng, wobble=1.6), 3)
    paper = _pick(rng, [(206, 178, 134), (222, 206, 170), (190, 160, 120), (196, 190, 168), (214, 176, 150)])
    fibres = 9 * _clouds(rng, 40, 6) + 7 * _clouds(rng, 5, 48) + 12 * _clouds(rng, 4, 4) + 5 * _grain(rng)
    ground = (paper + fibres[..., None]) * (1 - 0.55 * (_X**2 + _Y**2))[..., None]
    carved = _stripes(rng, period=rng.uniform(0.045, 0.065), bend=0.8) > rng.uniform(0.25, 0.5)
    print_ = shape * (1 - 0.85 * carved * _narrow(shape, 7))
    worn = np.clip(1.25 + 0.55 * _clouds(rng, 7, 7) + 0.30 * _grain(rng), 0.15, 1)
    ink = _pick(rng, [(58, 34, 22), (90, 24, 20), (30, 36, 62), (34, 52, 34), (28, 24, 24)])
    return _blend(ground, ink, print_ * worn * 0.94)


def _gradient(glyph: Image.Image, rng: np.random.Generator) -> Plane:
    shape = _place(glyph, rng)
    hue, turn = rng.uniform(), rng.choice([-1, 1]) * rng.uniform(0.10, 0.28)
    dark = rng.uniform() < 0.5
    low, high = (0.38, 0.66) if dark else (0.88, 1.0)
    saturation = rng.uniform(0.75, 1.0) if dark else rng.uniform(0.45, 0.7)
    ground = _ramp(rng, _hsv(hue, saturation, low), _hsv(hue + turn, saturation, high))
    for _ in range(int(rng.integers(0, 4))):
        ground = ground + 22 * _disc(rng)[..., None]
    opposite = hue + turn / 2 + 0.5 + rng.uniform(-0.08, 0.08)
    first, second = (
        (_hsv(opposite, 0.12, 1.0), _hsv(opposite, 0.55, 1.0))
        if dark
        else (_hsv(opposite, 0.9, 0.30), _hsv(opposite + 0.12, 0.9, 0.52))
    )
    shadow = np.roll(_blur(shape, 3), (4, 3), axis=(0, 1)) * (0.40 if dark else 0.22)
    return _blend(_blend(ground, np.zeros(3, np.float32), shadow), _ramp(rng, first, second), shape)


STYLES: dict[str, Callable[[Image.Image, np.random.Generator], Plane]] = {
    "ink": _ink,
    "chalk": _chalk,
    "woodcut": _woodcut,
    "gradient": _gradient,
}


def _place(glyph: Image.Image, rng: np.random.Generator, wobble: float = 0.0) -> Plane:
    """Give the shape of `glyph` at a random size, angle and position, its lines bent by about `wobble` pixels."""
    from PIL import Image

    length = rng.uniform(0.58, 0.80) * 2 * SIDE
    angle = math.radians(rng.uniform(-18, 18))
    stretch = math.exp(rng.uniform(-0.10, 0.10))
    shift = rng.uniform(-0.06, 0.06, 2) * 2 * SIDE
    scale = max(glyph.size) / length
    a, b = scale * stretch * math.cos(angle), scale * stretch * math.sin(angle)
    d, e = -scale / stretch * math.sin(angle), scale / stretch * math.cos(angle)
    x0, y0 = SIDE + shift[0], SIDE + shift[1]
    matrix = (a, b, glyph.width / 2 - a * x0 - b * y0, d, e, glyph.height / 2 - d * x0 - e * y0)
    placed = glyph.transform((2 * SIDE, 2 * SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    if wobble:
        placed = _bend(placed, rng, wobble)
    return np.asarray(placed.reduce(2), np.float32) / np.float32(255)


def _bend(image: Image.Image, rng: np.random.Generator, wobble: float) -> Image.Image:
    from PIL import Image

    values = np.asarray(image)
    reach = [2 * wobble * _spread(_clouds(rng, 8, 8)) for _ in range(2)]
    rows, columns = (
        np.clip(np.rint(index + move), 0, 2 * SIDE - 1).astype(np.intp)
        for index, move in zip(np.indices(values.shape), reach, strict=True)
    )
    return Image.fromarray(values[rows, columns])


def _spread(plane: Plane) -> Plane:
    return np.repeat(np.repeat(plane, 2, axis=0), 2, axis=1)


def _clouds(rng: np.random.Generator, rows: int, columns: int) -> Plane:
    """Give smooth noise of mean about 0 and deviation about 0.5, with `rows` × `columns` independent patches."""
    from PIL import Image

    seeds = rng.uniform(-1, 1, (rows + 1, columns + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(seeds).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)


def _grain(rng: np.random.Generator) -> Plane:
    return rng.standard_normal((SIDE, SIDE), dtype=np.float32)


def _stripes(rng: np.random.Generator, period: float, bend: float) -> Plane:
    angle = rng.uniform(0, math.pi)
    along = _X * math.cos(angle) + _Y * math.sin(angle)
    return np.asarray(np.sin(along * (2 * math.pi / period) + bend * 2 * _clouds(rng, 5, 5)), np.float32)


def _ramp(rng: np.random.Generator, first: Plane, second: Plane) -> Plane:
    angle = rng.uniform(0, 2 * math.pi)
    position = np.clip(0.5 + _X * math.cos(angle) + _Y * math.sin(angle), 0, 1)[..., None]
    return np.asarray(first * (1 - position) + second * position, np.float32)


def _disc(rng: np.random.Generator) -> Plane:
    x, y, radius = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.1, 0.4)
    return np.asarray(np.clip((radius - np.hypot(_X - x, _Y - y)) * SIDE, 0, 1), np.float32)


def _blend(ground: Plane, colour: Plane, alpha: Plane) -> Plane:
    cover = alpha[..., None]
    return np.asarray(ground * (1 - cover) + colour * cover, np.float32)


def _pick(rng: np.random.Generator, colours: list[tuple[int, int, int]]) -> Plane:
    return np.array(colours[int(rng.integers(len(colours)))], np.float32)


def _hsv(hue: float, saturation: float, value: float) -> Plane:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32) * 255


def _rim(shape: Plane, width: int) -> Plane:
    return shape - _narrow(shape, width)


def _narrow(shape: Plane, width: int) -> Plane:
    """Erode by a square of `width` pixels."""
    return _pool(shape, width, np.minimum)


def _widen(shape: Plane, width: int) -> Plane:
    """Dilate by a square of `width` pixels."""
    return _pool(shape, width, np.maximum)


def _pool(shape: Plane, width: int, better: np.ufunc) -> Plane:
    for axis in (0, 1):
        reach = [np.roll(shape, step, axis) for step in range(-(width // 2), width // 2 + 1)]
        shape = better.reduce(reach)
    return shape


def _blur(shape: Plane, radius: float) -> Plane:
    from PIL import Image, ImageFilter

    blurred = Image.fromarray((shape * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(blurred, np.float32) / np.float32(255)
