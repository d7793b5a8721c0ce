"""Base to new classes: CoOp's and CoCoOp's few-shot training on half of the classes, tests on both halves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.dataset import Dataset
from bench.errors import SpecError
from bench.protocols import Indices, Protocol, Task, View, make_view, no_pairs, of_classes
from bench.protocols.shots import FIRST_SEED, SHOTS, Pools, draw_shots, plain_shots, pools
from bench.registry import protocols
from bench.spec import TrialSpec
from bench.splits import base_and_new


class BaseToNew(Protocol):
    """Train on few shots of the first ceil(C/2) classes; test base classes against base names, new against new names.

    Views: `env{i}_train` and `env{i}_val` (base classes), `env{i}_base` and `env{i}_new` (test images) of every domain
    i. No domain is held out: a data set of several domains gives shots of each, and is tested on each. Tables show base,
    new and their harmonic mean, trial by trial. The validation number is the accuracy on `env{i}_val`, min(shots, 4)
    images a class; the papers report the last step (`--selection last`).

    Images come from the published split where the data set has one (CoOp's `split_zhou_*.json`), drawn exactly as CoOp
    draws them: seed, order, validation shots, all before the classes are split. On other data sets every domain is split
    by the trial seed: `holdout_fraction` for tests, the same share of the rest for validation.

    Options: `shots`; `first_seed` is the seed of the draw in trial 0, so that the default three trials are CoOp's seeds
    1, 2 and 3 (CLIPood's released code runs seed 0 alone).
    Published codes differ: CoOp and CoCoOp train with batches and epochs of their own and report the last epoch;
    CLIPood selects nothing either, and on ImageNet validates on the test images, which this never does.

    Methods that use unlabelled images get those of the training pool that were not drawn, of base and new classes; none
    of them is tested on.
    """

    name = "base_to_new"
    version = 1
    summary = "few-shot training on half of the classes, tests on base and on new classes"
    source = "Zhou et al., Conditional Prompt Learning for Vision-Language Models, CVPR 2022 (CoCoOp), with CoOp's code"
    options = {"shots": SHOTS, "first_seed": FIRST_SEED}
    unused = frozenset({"transfer_to", "unlabeled", "uda_holdout_fraction"})

    def settle(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check options and leave out those at their defaults; "04" shots are "4"."""
        return super().settle(plain_shots(given))

    def held_out(self, n_domains: int, *, pairs: bool = False) -> list[tuple[int, ...]]:
        """No domain is held out: one trial."""
        if pairs:
            raise no_pairs(self)
        return [()]

    def task(self, dataset: Dataset, spec: TrialSpec, *, needs_unlabeled: bool = False) -> Task:
        """Make the task of one trial."""
        if spec.test_domains:
            raise SpecError(f"{self.name} holds out no domain; leave out --test-domains")
        found = pools(dataset, spec)
        train, val = draw_shots(
            dataset, found, self.option(spec, "shots"), spec.trial_seed + self.option(spec, "first_seed")
        )
        # A copy without training images serves methods that need none; its classes are those of the tests.
        base, new = base_and_new(_labels(dataset, train) or _labels(dataset, found.test))
        if not new:
            raise SpecError(f"{self.name} needs at least 2 classes with images, {dataset.name} has {len(base)}")
        trained = _views(dataset, train, base, "train")
        return Task(
            class_names=tuple(dataset.class_names[each] for each in base),
            train=trained,
            unlabeled=_rest(dataset, found, train, base) if needs_unlabeled else (),
            evaluation=(
                *_views(dataset, val, base, "val"),
                *_views(dataset, found.test, base, "base"),
                *_views(dataset, found.test, new, "new"),
            ),
            further=trained if spec.evaluate == "all" else (),
            few_shot=self.option(spec, "shots") != "all",
        )


def _labels(dataset: Dataset, drawn: Sequence[Indices]) -> set[int]:
    pairs = zip(dataset.domains, drawn, strict=True)
    return {label for domain, positions in pairs for label in domain.labels[positions].tolist()}


def _views(dataset: Dataset, drawn: Sequence[Indices], classes: list[int], split: str) -> tuple[View, ...]:
    """Make the views of `classes` alone, one a domain; domains without such images have none."""
    made = []
    for domain, positions in enumerate(drawn):
        chosen = of_classes(dataset, domain, positions, classes)
        if len(chosen):
            made.append(make_view(dataset, domain, chosen, f"env{domain}_{split}", classes))
    return tuple(made)


def _rest(dataset: Dataset, found: Pools, train: Sequence[Indices], base: list[int]) -> tuple[View, ...]:
    """Make the views of the training pool's images that were not drawn, of all classes."""
    rest = [
        np.setdiff1d(pool, of_classes(dataset, domain, drawn, base))
        for domain, (pool, drawn) in enumerate(zip(found.train, train, strict=True))
    ]
    views = [make_view(dataset, domain, left, f"env{domain}_rest", base) for domain, left in enumerate(rest)]
    return tuple(view for view in views if len(view))


protocols.add(BaseToNew.name, BaseToNew())
