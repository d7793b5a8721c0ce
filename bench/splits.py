"""Published ways to split classes and to draw few shots: base and new classes, CoOp's shots, UEO's unknown classes.

Pure functions of labels and a stream; the protocols that train on them build on this module.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.errors import SpecError


def base_and_new(labels: Iterable[int]) -> tuple[list[int], list[int]]:
    """Split the classes present in `labels` into base and new: sorted, the first ceil(n / 2) are base (CoOp, CoCoOp)."""
    present = sorted(set(labels))
    middle = (len(present) + 1) // 2
    return present[:middle], present[middle:]


def few_shot(labels: Sequence[int], n_shot: int, draws: random.Random) -> list[int]:
    """Draw `n_shot` samples of each class as CoOp does; give their positions in `labels`.

    Classes come in the order of their first sample; a class with fewer samples gives all of them, in order. CoOp draws
    the training shots over all classes first, then min(n_shot, 4) validation shots from the same, continuing stream,
    which begins at `random.Random(seed)`, and splits base from new classes only afterwards (Dassl
    `generate_fewshot_dataset`).
    """
    positions: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        positions.setdefault(label, []).append(position)
    chosen: list[int] = []
    for of_class in positions.values():
        chosen += draws.sample(of_class, n_shot) if len(of_class) >= n_shot else of_class
    return chosen


class UniversalSplit(NamedTuple):
    """Class indices of UEO's settings, in the case-insensitive alphabetical order of the class names.

    Attributes:
        known: classes whose names are given.
        closed, partial, open, open_partial: classes among the unlabelled training images in each setting.
        test: classes among the test images, in every setting.
    """

    known: range
    closed: tuple[int, ...]
    partial: tuple[int, ...]
    open: tuple[int, ...]
    open_partial: tuple[int, ...]
    test: range


def _universal(n_known: int, n_partial: int, n_seen: int, n_all: int, n_shared: int | None = None) -> UniversalSplit:
    shared = n_partial if n_shared is None else n_shared
    return UniversalSplit(
        known=range(n_known),
        closed=tuple(range(n_known)),
        partial=tuple(range(n_partial)),
        open=tuple(range(n_seen)),
        open_partial=(*range(shared), *range(n_known, n_seen)),
        test=range(n_all),
    )


UNIVERSAL_SPLITS = {
    "Office31": _universal(25, 20, 28, 31, n_shared=15),
    "OfficeHome": _universal(50, 35, 60, 65),
    "VisDA-C": _universal(8, 6, 10, 12),
    "DomainNet": _universal(300, 250, 330, 345),
}
"""UEO's published splits (Liang et al., ICML 2024, released code)."""


def universal_split(dataset: str, n_classes: int) -> UniversalSplit:
    """Give UEO's published split of a data set, else one of ours in about its proportions.

    Ours: of C classes the first int(3C/4) are known, int(3/4) of those come in the partial setting and are shared in
    the open-partial one, and the first half of the unknown ones come in the open settings.

    Raises:
        SpecError: there are too few classes for it, or not as many as the published split is of.
    """
    if dataset in UNIVERSAL_SPLITS:
        split = UNIVERSAL_SPLITS[dataset]
        if len(split.test) != n_classes:
            raise SpecError(
                f"the published class split of {dataset} is of {len(split.test)} classes, this copy has {n_classes}"
            )
        return split
    if n_classes < MIN_CLASSES:
        raise SpecError(f"universal needs at least {MIN_CLASSES} classes, {dataset} has {n_classes}")
    n_known = 3 * n_classes // 4
    return _universal(n_known, 3 * n_known // 4, n_known + (n_classes - n_known) // 2, n_classes)


MIN_CLASSES = 5
"""Fewer leave no unknown class for the tests alone."""
