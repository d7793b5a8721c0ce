"""The class lists that are too long for a declaration: `class_names.json` in the folder of the data sets.

Sources of the lists: those of CoOp's data sets are the label and class name pairs of its split files; ImageNet's names are
those of CLIP's prompt notebook, in the order of the sorted WordNet ids; the classes of ImageNet-A, ImageNet-R and
ObjectNet are given as indices into them, after the released code of WiSE-FT; FMoW's are the package `wilds`'.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from bench import _paths
from bench.dataset import clean_class_name


@functools.cache
def raw_lists() -> dict[str, Any]:
    """Read the file: list's name → what it holds, names as the source writes them."""
    text = (_paths.plugin_folder("datasets") / "class_names.json").read_text(encoding="utf-8")
    lists: dict[str, Any] = json.loads(text)
    return lists


def class_folders(name: str) -> tuple[str, ...]:
    """Give the classes of the data set `name` as its folders or split files write them, in the order of its labels."""
    return tuple(raw_lists()[name])


def class_names(name: str) -> tuple[str, ...]:
    """Give the classes of the data set `name` in words, in the order of its labels."""
    return tuple(map(clean_class_name, class_folders(name)))


def imagenet_subset(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give (WordNet ids, names) of a subset of ImageNet's classes, "ImageNet-A" or "ImageNet-R", in ImageNet's order."""
    wnids, names = raw_lists()["ImageNet wnids"], raw_lists()["ImageNet"]
    chosen = raw_lists()[name]
    return tuple(wnids[i] for i in chosen), tuple(names[i] for i in chosen)
