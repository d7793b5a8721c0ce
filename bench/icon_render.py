"""Renders of icons as folders of PNG files: the data set `Icons` and the built-in anchor pool.

A folder appears all at once: it is written under a hidden temporary name beside its place and renamed at the end, so a
kill leaves nothing half-made, and of two processes that render at once the later discards its copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench import files
from bench.errors import Conflict
from bench.icon_fonts import FAMILIES, Icon, glyph
from bench.icon_names import DOMAINS, IconClass, caption, phrase_of, pool_icons, read_classes
from bench.icon_styles import SIDE, Picture, draw
from bench.seeds import stream

VERSION = 1
"""Version of the pixels and file names; to be raised with every change to fonts, class table or manners of drawing."""

PER_CELL = 18
"""Images of each class in each domain that draws it."""

MARKER = "rendered.json"
_STALE = 3600.0  # seconds after which a temporary folder can only be a killed renderer's

Render = tuple[str, str, Picture]  # path below the folder, caption, pixels


def render_icons(folder: Path, classes: Iterable[IconClass] | None = None, per_cell: int = PER_CELL) -> dict[str, Any]:
    """Render the data set `Icons` into `folder`, unless it is there already.

    Files are `<domain>/<class>/<icon>_<k>.png` of 144 × 144 px and `captions.tsv`. The same fonts and the same Pillow
    give the same bytes.

    Args:
        folder: place of the data set; it appears complete or not at all.
        classes: default: the whole class table.
        per_cell: images of each class in each domain.

    Returns:
        The content of `rendered.json`: `version`, `images` and `digest`, the SHA-256 over all file names and pixels.

    Raises:
        DataMissing: the fonts are not installed.
        Conflict: `folder` holds something else.
    """
    table = read_classes() if classes is None else tuple(classes)
    return _publish(folder, "captions.tsv", lambda: _class_renders(table, per_cell))


def render_pool(folder: Path, icons: Iterable[Icon] | None = None) -> dict[str, Any]:
    """Render the anchor pool into `folder`, unless it is there already: `*.png` and `pool.tsv` (file, tab, caption).

    Each icon is drawn once, in the manner of its family; `icons` defaults to `bench.icon_names.pool_icons()`. Returns
    and raises as `render_icons` does.
    """
    return _publish(folder, "pool.tsv", lambda: _pool_renders(pool_icons() if icons is None else icons))


def built_in_pool(cache: Path) -> Path:
    """Give the TSV file (image file, tab, caption) of the built-in anchor pool, rendered into `cache` if absent."""
    folder = cache / f"icon-pool-v{VERSION}"
    render_pool(folder)
    return folder / "pool.tsv"


def contact_sheet(folder: Path, path: Path, per_cell: int = 2) -> None:
    """Save one PNG with a row for each class and `per_cell` images of each domain of the data set in `folder`."""
    from PIL import Image, ImageDraw

    table = read_classes()
    rows = [each for each in table if any((folder / domain / each.folder).is_dir() for domain in DOMAINS)]
    sheet = Image.new("RGB", (96 + len(DOMAINS) * per_cell * SIDE, len(rows) * SIDE), "white")
    for row, each in enumerate(rows):
        ImageDraw.Draw(sheet).text((4, row * SIDE + SIDE // 2), each.name, fill="black")
        for block, domain in enumerate(DOMAINS):
            pictures = sorted((folder / domain / each.folder).glob("*.png"))
            for k, picture in enumerate(pictures[:: max(1, len(pictures) // per_cell)][:per_cell]):
                with Image.open(picture) as image:
                    sheet.paste(image, (96 + (block * per_cell + k) * SIDE, row * SIDE))
    sheet.save(path)


def _class_renders(classes: Iterable[IconClass], per_cell: int) -> Iterator[Render]:
    for each in classes:
        for domain, family in DOMAINS.items():
            drawings = each.drawings(family)
            for n in range(per_cell if drawings else 0):
                icon, k = drawings[n % len(drawings)], n // len(drawings)
                parts = (domain, each.name, icon.stem, k)
                text = caption(domain, icon.adjective, each.icons[family][icon.base], stream("Icons captions", *parts))
                picture = draw(domain, glyph(icon.font, icon.code), stream("Icons", *parts))
                yield f"{domain}/{each.folder}/{icon.stem}_{k}.png", text, picture


def _pool_renders(icons: Iterable[Icon]) -> Iterator[Render]:
    domain_of = {font: domain for domain, family in DOMAINS.items() for font in FAMILIES[family]}
    for icon in icons:
        domain = domain_of[icon.font]
        parts = (domain, icon.stem)
        text = caption(domain, icon.adjective, phrase_of(icon.base), stream("Icons pool captions", *parts))
        yield f"{domain}-{icon.stem}.png", text, draw(domain, glyph(icon.font, icon.code), stream("Icons pool", *parts))


def _publish(folder: Path, captions: str, renders: Any) -> dict[str, Any]:
    if (marker := _finished(folder)) is not None:
        return marker
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    draft = folder.parent / f".{folder.name}.{secrets.token_hex(6)}.tmp"
    draft.mkdir()
    try:
        _write(draft, captions, renders())
        with contextlib.suppress(OSError):  # another process was first: its copy stands
            os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    if (marker := _finished(folder)) is None:
        raise Conflict(f"could not put the rendered icons at {folder}; check that {folder.parent} can be written to")
    return marker


def _finished(folder: Path) -> dict[str, Any] | None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    marker = files.read_json(folder / MARKER)
    if isinstance(marker, dict) and marker.get("version") == VERSION:
        return marker
    raise Conflict(
        f"{folder} holds no icons rendered by this version ({VERSION}); delete it or name another cache folder"
    )


def _sweep(folder: Path) -> None:
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _STALE:
                shutil.rmtree(leftover, ignore_errors=True)


def _write(draft: Path, captions: str, renders: Iterator[Render]) -> None:
    from PIL import Image

    lines = []
    pixels = hashlib.sha256()
    for name, text, picture in renders:
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(draft / name, compress_level=3)  # level 6 takes 2.5 times as long to save 1 %
        pixels.update(name.encode())
        pixels.update(picture.tobytes())
        lines.append(f"{name}\t{text}\n")
    files.replace_text(draft / captions, "".join(sorted(lines)))
    files.replace_json(draft / MARKER, {"version": VERSION, "images": len(lines), "digest": pixels.hexdigest()})
