"""Contact sheets: one picture of a data set, a row a class and a few images of each domain, so that people look at it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import files
from bench.dataset import Dataset, Domain, plain_name
from bench.seeds import stream

TILE = 96
"""Side of a picture in pixels; it is shrunk to fit, not cropped."""

NAMES = 170
HEAD = 24
GAP = 8


def contact_sheet(dataset: Dataset, path: Path, *, per_cell: int = 3, n_classes: int = 20, seed: int = 0) -> list[str]:
    """Save a PNG with a row for each class and `per_cell` images of each domain.

    Args:
        dataset: what was found on disk.
        path: the PNG to write.
        per_cell: images of a class and domain.
        n_classes: most rows; of more classes every k-th is shown.
        seed: another seed shows other images.

    Returns:
        files that cannot be decoded, with the reason; their places show a red cross.
    """
    from PIL import Image, ImageDraw

    labels = _chosen(len(dataset.class_names), n_classes)
    block = per_cell * TILE + GAP
    sheet = Image.new("RGB", (NAMES + len(dataset.domains) * block, HEAD + len(labels) * (TILE + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    bad = []
    for d, domain in enumerate(dataset.domains):
        left = NAMES + d * block
        draw.text((left + 2, 5), _short(_title(domain), per_cell * 14), "black", _font(13))
        for row, label in enumerate(labels):
            of_class = np.flatnonzero(domain.labels == label)
            picked = stream("contact sheet", seed, domain.name, label).permutation(of_class)[:per_cell]
            for k, position in enumerate(sorted(picked.tolist())):
                corner = (left + k * TILE, HEAD + row * (TILE + 2))
                fault = _paste(sheet, domain.root / domain.files[position], corner)
                if fault:
                    bad.append(f"{domain.files[position]}: {fault}")
                    draw.line((*corner, corner[0] + TILE - 4, corner[1] + TILE - 4), "red", 3)
                    draw.line((corner[0] + TILE - 4, corner[1], corner[0], corner[1] + TILE - 4), "red", 3)
            if not len(of_class):
                draw.text((left + 4, HEAD + row * (TILE + 2) + TILE // 2 - 7), "none", "gray", _font(12))
    for row, label in enumerate(labels):
        lines = _lines(dataset.class_names[label])
        draw.multiline_text((4, HEAD + row * (TILE + 2) + 4), "\n".join((f"{label}", *lines)), "black", _font(12))
    out = io.BytesIO()
    sheet.save(out, "PNG")
    files.replace(path, lambda file: file.write(out.getvalue()))
    return bad


def _title(domain: Domain) -> str:
    words = "" if plain_name(domain.words) == plain_name(domain.name) else f" {domain.words}"
    return f"{domain.name}{words} ({len(domain.files):,})"


def _chosen(n: int, most: int) -> list[int]:
    """Give at most `most` of `n` labels, evenly spread, the first and the last among them."""
    return list(range(n)) if n <= most else sorted({round(i * (n - 1) / max(1, most - 1)) for i in range(most)})


def _paste(sheet: Any, path: Path, corner: tuple[int, int]) -> str:
    """Put one image on the sheet; give why it cannot be shown, or ""."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except Exception as error:  # Pillow raises many kinds; any of them means that there is nothing to show
        return f"{type(error).__name__}: {error}"
    scale = (TILE - 2) / max(picture.size)
    width, height = picture.size
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = picture.resize(size, Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST)
    sheet.paste(small, (corner[0] + (TILE - size[0]) // 2, corner[1] + (TILE - size[1]) // 2))
    return ""


def _lines(name: str, width: int = 24, most: int = 5) -> list[str]:
    """Break a name into lines."""
    lines = [""]
    for word in name.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [_short(line, width) for line in lines[:most]]


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def sheet_path(out: Path | None, name: str, names: Sequence[str]) -> Path:
    """Give the file of a data set's sheet: `out` itself for one data set, a file in the folder `out` for several."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    if out is None or len(names) > 1 or out.is_dir():
        return (out or Path(".")) / f"{plain}.png"
    return out
