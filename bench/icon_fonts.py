"""The icon fonts that the PyPI package `qtawesome` ships: where they lie, what they hold, and the shape of one glyph.

Only the font and charmap files are used; `qtawesome` itself is never imported, since that would load Qt. Which icons
are used, how they look and where they are put is for `bench.icon_names`, `bench.icon_styles` and `bench.icon_render`.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import DataMissing

if TYPE_CHECKING:
    from PIL import Image

_GLYPH_SIZE = 224  # points; larger than an image is wide, so that a glyph is only ever scaled down


@dataclass(frozen=True)
class Font:
    """One font file, and how it spells the variants of an icon.

    Attributes:
        file: stem of the font file without its version.
        version: its version.
        cuts: suffix of the icon's name for each variant that this font draws, with the adjective that describes it.
    """

    file: str
    version: str
    cuts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Icon:
    """One glyph.

    Attributes:
        font: key of `FONTS`.
        name: the icon's full name in that font, e.g. "bell-outline".
        base: its name without the suffix of the cut, e.g. "bell".
        adjective: what the cut looks like, e.g. "outlined"; may be empty.
        code: code point in the font.
    """

    font: str
    name: str
    base: str
    adjective: str
    code: int

    @property
    def stem(self) -> str:
        """Give a file name that no other icon of the same family has."""
        return f"{self.name}-regular" if self.font == "fontawesome-regular" else self.name


FONTS = {
    "fontawesome-solid": Font("fontawesome6-solid-webfont", "6.7.2", (("", ""),)),
    "fontawesome-regular": Font("fontawesome6-regular-webfont", "6.7.2", (("", "outlined"),)),
    "material": Font("materialdesignicons6-webfont", "6.9.96", (("", ""), ("-outline", "outlined"))),
    "phosphor": Font(
        "phosphor",
        "1.3.0",
        (("", ""), ("-fill", "solid"), ("-bold", "bold"), ("-light", "light"), ("-thin", "thin")),
    ),
    "remix": Font("remixicon", "2.5.0", (("-fill", ""), ("-line", "outlined"))),
}

FAMILIES = {
    "fontawesome": ("fontawesome-solid", "fontawesome-regular"),
    "material": ("material",),
    "phosphor": ("phosphor",),
    "remix": ("remix",),
}


def font_folder() -> Path:
    """Find the folder with the font files.

    Raises:
        DataMissing: `qtawesome` is not installed.
    """
    spec = importlib.util.find_spec("qtawesome")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "fonts").is_dir():
            return Path(place) / "fonts"
    raise DataMissing(
        "the data set Icons is drawn from the fonts in the Python package 'qtawesome', which is not installed; "
        "run `pip install qtawesome`"
    )


@functools.cache
def charmap(font: str) -> dict[str, int]:
    """Read the icon names of `font` (a key of `FONTS`), each with its code point.

    Raises:
        DataMissing: the installed `qtawesome` ships another version of the font.
    """
    entry = FONTS[font]
    text = _font_file(f"{entry.file}-charmap-{entry.version}.json").read_text(encoding="utf-8")
    return {name: int(code, 16) for name, code in json.loads(text).items()}


def cuts(family: str, base: str) -> list[Icon]:
    """Give every cut of the icon `base` (regular, outlined, bold, ...) that the fonts of `family` hold."""
    return [
        Icon(font, base + suffix, base, adjective, charmap(font)[base + suffix])
        for font in FAMILIES[family]
        for suffix, adjective in FONTS[font].cuts
        if base + suffix in charmap(font)
    ]


@functools.lru_cache(maxsize=256)
def glyph(font: str, code: int) -> Image.Image:
    """Draw the glyph `code` of `font` in white on black, cropped to its outline ("L" image, about 224 px)."""
    from PIL import Image, ImageDraw

    face = _face(font)
    left, top, right, bottom = face.getbbox(chr(code))
    image = Image.new("L", (max(1, round(right - left)), max(1, round(bottom - top))))
    ImageDraw.Draw(image).text((-left, -top), chr(code), fill=255, font=face)
    return image.crop(image.getbbox() or (0, 0, 1, 1))


@functools.cache
def _face(font: str) -> Any:
    from PIL import ImageFont

    entry = FONTS[font]
    # The basic layout engine is always there; raqm is not, and would be one more thing that pixels depend on.
    engine = ImageFont.Layout.BASIC
    return ImageFont.truetype(str(_font_file(f"{entry.file}-{entry.version}.ttf")), _GLYPH_SIZE, layout_engine=engine)


def _font_file(name: str) -> Path:
    path = font_folder() / name
    if not path.is_file():
        raise DataMissing(
            f"the data set Icons needs the font file {name}, which the installed 'qtawesome' does not ship "
            f"(looked in {path.parent}); run `pip install 'qtawesome>=1.4,<1.5'`"
        )
    return path
