"""Which icons are drawn, and in what words: the class table of `Icons`, the anchor pool, captions.

The class table is the hand-made file `icons_classes.json` in the folder of the data sets: for each class and icon
family the icons with their phrases, and the words by which other icons of the same thing are kept out of the anchor
pool; `icons_pool.json` beside it lists what else is left out of the pool.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np

from bench import _paths
from bench.icon_fonts import FONTS, Icon, charmap, cuts

DOMAINS = {"ink": "fontawesome", "chalk": "material", "woodcut": "phosphor", "gradient": "remix"}
"""Domain of `Icons`, which is also the manner its icons are drawn in → icon family."""

_CAPTIONS = {
    "ink": ("a flat icon of {}", "an ink silhouette of {}", "a plain dark pictogram of {}"),
    "chalk": ("a chalk drawing of {}", "a chalk sketch of {} on a blackboard", "{} drawn with chalk"),
    "woodcut": ("a woodcut of {}", "an old print of {} on brown paper", "a carved woodblock print of {}"),
    "gradient": ("a colourful icon of {}", "a bright app icon of {}", "{} on a bright gradient"),
}

_FILLER = {"variant", "alt", "simple", "box", "outline", "line", "fill", "circle", "square", "sharp", "s"}
_ADJECTIVES = {
    "broken", "checkered", "classic", "closed", "crossed", "cracked", "curly", "double", "electric", "empty", "fast",
    "flat", "folded", "fried", "front", "full", "half", "high", "horizontal", "hot", "large", "low", "medium", "modern",
    "multiple", "open", "retro", "ringing", "rolling", "round", "single", "small", "tall", "tilted", "triangular",
    "vertical",
}  # fmt: skip
_LETTERS = {"pdf", "usb", "dna", "led", "sd", "cd", "dvd", "ufo", "atm", "gps", "wifi", "vr", "qr"}


@dataclass(frozen=True)
class IconClass:
    """One class of `Icons`.

    Attributes:
        name: words for prompts, e.g. "light bulb".
        icons: family → base name of the icon → phrase for captions; empty where the family draws no such thing.
        words: words that mean this class or a thing easily taken for it.
    """

    name: str
    icons: dict[str, dict[str, str]]
    words: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Give the name of the class's folder."""
        return self.name.replace(" ", "_")

    def drawings(self, family: str) -> list[Icon]:
        """List the class's icons in `family`: one cut of every icon first, then the next cut of every icon."""
        found = [cuts(family, base) for base in self.icons[family]]
        deepest = max((len(each) for each in found), default=0)
        return [each[depth] for depth in range(deepest) for each in found if depth < len(each)]


def read_classes() -> tuple[IconClass, ...]:
    """Read the class table, in the order of the labels."""
    text = (_paths.plugin_folder("datasets") / "icons_classes.json").read_text(encoding="utf-8")
    families = tuple(DOMAINS.values())
    return tuple(
        IconClass(name, {family: entry[family] for family in families}, tuple(entry["words"].split()))
        for name, entry in json.loads(text).items()
    )


def caption(domain: str, adjective: str, phrase: str, rng: np.random.Generator) -> str:
    """Word what a picture shows: manner of drawing, cut of the icon, thing ("a chalk drawing of an outlined bell")."""
    template = _CAPTIONS[domain][int(rng.integers(len(_CAPTIONS[domain])))]
    return template.format(_with_article(f"{adjective} {phrase}".strip()))


def phrase_of(name: str) -> str:
    """Make words of an icon's name: fillers and numbers go, adjectives come first ("door-open" → "open door")."""
    tokens = name.split("-")
    words = [token for token in tokens if token not in _FILLER and not re.fullmatch(r"\d+\w?", token)] or tokens
    first = [word for word in words if word in _ADJECTIVES]
    rest = [word for word in words if word not in _ADJECTIVES]
    return " ".join(word.upper() if word in _LETTERS else word for word in (first + rest if rest else words))


def pool_icons() -> list[Icon]:
    """List the icons of the anchor pool: things that belong to no class of `Icons`, by family and name.

    Left out are icons of the classes, icons whose name has a word of a class, and what `icons_pool.json` lists: badges
    on another icon ("-plus"), abstract signs (arrows, letters), brands. Only the first cut of an icon is listed.
    """
    table = read_classes()
    taboo = {word for each in table for word in (*each.name.split(), *each.words)}
    drawn = {(icon.font, icon.code) for each in table for family in each.icons for icon in each.drawings(family)}
    left_out = _left_out()
    return [
        icon
        for font in FONTS
        for icon in _candidates(font)
        if (icon.font, icon.code) not in drawn
        and not names_class(icon.base, taboo)
        and _is_thing(icon.base, **left_out)
    ]


def _left_out() -> dict[str, frozenset[str]]:
    text = (_paths.plugin_folder("datasets") / "icons_pool.json").read_text(encoding="utf-8")
    return {kind: frozenset(" ".join(lines).split()) for kind, lines in json.loads(text).items()}


def _candidates(font: str) -> list[Icon]:
    """List one cut of every icon of `font`: its first (see `bench.icon_fonts.FONTS`)."""
    listed = charmap(font)
    (suffix, adjective), *others = FONTS[font].cuts
    further = tuple(cut for cut, _ in others)
    bases = [name.removesuffix(suffix) for name in sorted(listed) if name.endswith(suffix)]
    if not suffix and further:
        bases = [base for base in bases if not base.endswith(further)]
    return [Icon(font, base + suffix, base, adjective, listed[base + suffix]) for base in bases]


def _is_thing(base: str, badges: frozenset[str], abstract: frozenset[str], brands: frozenset[str]) -> bool:
    """Tell whether `base` names a thing: neither a sign, nor another icon with a badge, nor a brand."""
    first, *others = base.split("-")
    if first.isdigit() or re.search(r"\d{2}", base):
        return False
    if base in abstract or first in abstract or base in brands or brands & {first, *others}:
        return False
    return not (badges | abstract) & set(others)


def names_class(base: str, taboo: set[str]) -> bool:
    """Tell whether the icon name `base` has a word of `taboo`: whole, in the plural, or (four letters on) within."""
    tokens = base.split("-")
    return any(
        word in tokens or f"{word}s" in tokens or (len(word) >= 4 and word in base) or ("-" in word and word in base)
        for word in taboo
    )


def _with_article(phrase: str) -> str:
    last = phrase.split(" with ")[0].split(" of ")[0].split(" on ")[0].split()[-1]
    if phrase.endswith("scissors cutting") or (last.endswith("s") and not last.endswith(("ss", "us", "is", "as"))):
        return phrase
    vowel = phrase[0].lower() in "aeiou" and not phrase.lower().startswith(("uni", "us", "ufo", "one", "eu"))
    return f"{'an' if vowel or phrase.startswith('hour') else 'a'} {phrase}"
