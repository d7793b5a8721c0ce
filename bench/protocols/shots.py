"""Images to train, validate and test on within each domain, and CoOp's few shots of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.dataset import Dataset
from bench.errors import SpecError
from bench.hparams import Hparam
from bench.protocols import Indices, split_indices, split_uda, too_small
from bench.spec import TrialSpec
from bench.splits import few_shot

MAX_VAL_SHOTS = 4
"""CoOp draws at most so many validation images a class."""

SHOTS = Hparam("16", "labelled images a class and domain: a number (CoOp: 1, 2, 4, 8, 16), or all")
FIRST_SEED = Hparam(1, "seed of the draw in trial 0; trial t has t more (CoOp: 1, 2, 3; CLIPood's code: 0)", low=0)


class Pools(NamedTuple):
    """Positions within each domain, in the order that shots are drawn from.

    Attributes:
        train, val, test: one array a domain; `val` is empty where there are no images for it.
    """

    train: tuple[Indices, ...]
    val: tuple[Indices, ...]
    test: tuple[Indices, ...]


def pools(dataset: Dataset, spec: TrialSpec) -> Pools:
    """Give the published train, val and test split, else splits of each domain that the trial seed draws.

    A published val split that shares images with the test split (ImageNet's, in CoOp) is left empty: nothing may be
    selected on what is reported; without a published train split (a copy of ImageNet's validation set alone) train is
    empty. Without a published split DomainBed's "out" split is for tests, and "in" is cut again by the same fraction
    into val and train.

    Raises:
        SpecError: a split would be empty, or `holdout_fraction` is given though the split is published.
    """
    published = dataset.splits
    if "test" in published:
        _refuse_fraction(dataset, spec)
        none = np.zeros(0, dtype=np.int64)
        train, val = (published.get(split, (none,) * len(dataset.domains)) for split in ("train", "val"))
        apart = (none if np.isin(each, test).any() else each for each, test in zip(val, published["test"], strict=True))
        return Pools(train, tuple(apart), published["test"])
    drawn = []
    for domain, each in enumerate(dataset.domains):
        inside, outside = split_indices(len(each.files), spec.holdout_fraction, spec.trial_seed, domain)
        val_part, train_part = split_uda(inside, spec.holdout_fraction, spec.trial_seed, domain)
        if not outside or not val_part:
            raise too_small(dataset, domain, spec)
        drawn.append([np.asarray(part, dtype=np.int64) for part in (train_part, val_part, outside)])
    return Pools(*(tuple(parts) for parts in zip(*drawn, strict=True)))


def plain_shots(options: Mapping[str, Any]) -> dict[str, Any]:
    """Give a protocol's options with `shots` written one way.

    Raises:
        SpecError: `shots` is neither a number from 1 nor "all".
    """
    shots = str(options.get("shots", SHOTS.default))
    if shots != "all" and not (shots.isdecimal() and int(shots) >= 1):
        raise SpecError(f"shots={shots!r} must be a whole number from 1, or all")
    plain = shots if shots == "all" else str(int(shots))
    return {**options, "shots": plain} if "shots" in options else dict(options)


def draw_shots(
    dataset: Dataset, found: Pools, shots: str, seed: int
) -> tuple[tuple[Indices, ...], tuple[Indices, ...]]:
    """Draw the shots of every domain: (train, val), as CoOp does where there is one domain.

    CoOp: `random.seed(seed)`, `shots` training images of each class, then min(shots, 4) validation images from the same
    stream, over all classes, before base and new ones are told apart. Further domains follow in the same stream. "all"
    draws nothing and gives the whole pools.

    Raises:
        SpecError: `shots` is neither a number from 1 nor "all".
    """
    shots = plain_shots({"shots": shots})["shots"]
    if shots == "all":
        return found.train, found.val
    draws = random.Random(seed)
    drawn = [_draw(dataset, of_split, n, draws) for of_split, n in _rounds(found, int(shots))]
    return drawn[0], drawn[1]


def _rounds(found: Pools, n_shot: int) -> list[tuple[tuple[Indices, ...], int]]:
    return [(found.train, n_shot), (found.val, min(n_shot, MAX_VAL_SHOTS))]


def _draw(dataset: Dataset, of_split: Sequence[Indices], n_shot: int, draws: random.Random) -> tuple[Indices, ...]:
    drawn = []
    for domain, positions in zip(dataset.domains, of_split, strict=True):
        chosen = few_shot(domain.labels[positions].tolist(), n_shot, draws)
        drawn.append(positions[np.asarray(chosen, dtype=np.int64)])
    return tuple(drawn)


def _refuse_fraction(dataset: Dataset, spec: TrialSpec) -> None:
    if spec.holdout_fraction != TrialSpec.__dataclass_fields__["holdout_fraction"].default:
        raise SpecError(f"{dataset.name} has a published split, so --holdout-fraction changes nothing; leave it out")
