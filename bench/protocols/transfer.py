"""Transfer: train on one data set, test on others, as CoOp, WiSE-FT and ARF do with ImageNet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.dataset import Dataset, join_classes
from bench.errors import SpecError
from bench.models import ClassNames
from bench.protocols import Protocol, Task, View, make_view, no_pairs
from bench.protocols.shots import FIRST_SEED, SHOTS, draw_shots, plain_shots, pools
from bench.registry import protocols
from bench.spec import TrialSpec


@dataclass(frozen=True)
class Joined(Dataset):
    """Several data sets one after the other; name, classes and prompts are the first one's, which is trained on.

    Attributes:
        parts: the data sets; `domains` are theirs, called by the data set where it has only one.
    """

    parts: tuple[Dataset, ...] = ()


class Transfer(Protocol):
    """Train on one data set (ImageNet, 16 shots or all), test on the data sets of `transfer_to` and on itself.

    Views: `env{s}_train`, `env{s}_val` and `env{s}_id` of the domains of the data set that is trained on, all classes;
    `env{t}_test` of the domains of the others, numbered after them. Tables show the accuracy on each other data set and
    the mean over them, and the accuracy on the data set's own tests. Splits and shots are `base_to_new`'s, without the
    split of the classes; of a data set in `transfer_to` the published test split is tested, all images where it has none.

    Label spaces are joined by name. A data set whose class names are all among those trained on (ImageNetV2, -Sketch, -A,
    -R) is scored against its own classes alone, in the spelling that was trained on; that is the same as slicing the
    1,000 logits (WiSE-FT, FLYP). Any other one is scored by its own names in its own prompts. ObjectNet is one of those:
    WiSE-FT takes the best of ImageNet's names of a class instead.

    The validation number is the accuracy on `env{s}_val`; ImageNet has no validation images apart from its tests, so only
    `--selection last` gives numbers there. Options: `shots` and `first_seed`, as in `base_to_new`.
    Methods that use unlabelled images have none here.
    """

    name = "transfer"
    version = 1
    summary = "train on one data set, test on others (--transfer-to)"
    source = "Zhou et al., CVPR 2022 (CoCoOp), tables 3 and 4; Wortsman et al., CVPR 2022 (WiSE-FT)"
    options = {"shots": SHOTS, "first_seed": FIRST_SEED}
    unused = frozenset({"unlabeled", "uda_holdout_fraction"})

    def settle(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check options and leave out those at their defaults; "04" shots are "4"."""
        return super().settle(plain_shots(given))

    def held_out(self, n_domains: int, *, pairs: bool = False) -> list[tuple[int, ...]]:
        """No domain is held out: one trial."""
        if pairs:
            raise no_pairs(self)
        return [()]

    def check(self, spec: TrialSpec) -> None:
        """Refuse what the protocol has no use for, and data sets that cannot be tested on."""
        super().check(spec)
        if not spec.transfer_to:
            raise SpecError(f"{self.name} needs --transfer-to, the data sets to test on, e.g. ImageNetV2 ImageNet-R")
        wrong = [name for name in spec.transfer_to if ":" in name or name == spec.dataset]
        if wrong or len(set(spec.transfer_to)) < len(spec.transfer_to):
            raise SpecError(
                f"--transfer-to {' '.join(spec.transfer_to)} must name registered data sets, each once, other than "
                f"{spec.dataset}"
            )

    def join(self, parts: Sequence[Dataset]) -> Dataset:
        """Put the data sets one after the other."""
        first = parts[0]
        domains = [
            dataclasses.replace(domain, name=part.name if len(part.domains) == 1 else f"{part.name}/{domain.name}")
            for part in parts
            for domain in part.domains
        ]
        kept: dict[str, Any] = {each.name: getattr(first, each.name) for each in dataclasses.fields(Dataset)}
        notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
        return Joined(**{**kept, "domains": tuple(domains), "notes": notes, "parts": tuple(parts)})

    def task(self, dataset: Dataset, spec: TrialSpec, *, needs_unlabeled: bool = False) -> Task:
        """Make the task of one trial; `dataset` is what `join` gave."""
        if spec.test_domains:
            raise SpecError(f"{self.name} holds out no domain; leave out --test-domains")
        if needs_unlabeled:
            raise SpecError(f"{self.name} has no unlabelled images, which {spec.algorithm} needs")
        assert isinstance(dataset, Joined)
        first, *others = dataset.parts
        found = pools(first, spec)
        train, val = draw_shots(
            first, found, self.option(spec, "shots"), spec.trial_seed + self.option(spec, "first_seed")
        )
        trained, validated, tested = (
            tuple(make_view(first, d, each, f"env{d}_{name}") for d, each in enumerate(drawn) if len(each))
            for name, drawn in (("train", train), ("val", val), ("id", found.test))
        )
        return Task(
            class_names=first.class_names,
            train=trained,
            unlabeled=(),
            evaluation=(*validated, *tested, *_targets(first, others)),
            further=trained if spec.evaluate == "all" else (),
            few_shot=self.option(spec, "shots") != "all",
        )


def _targets(first: Dataset, others: Sequence[Dataset]) -> list[View]:
    views = []
    place = len(first.domains)
    for other in others:
        names = _label_space(first, other)
        for domain, each in enumerate(other.domains):
            whole = np.arange(len(each.files), dtype=np.int64)
            chosen = other.splits["test"][domain] if "test" in other.splits else whole
            if len(chosen):
                views.append(View(f"env{place}_test", place, chosen, each.labels[chosen], names))
            place += 1
    return views


def _label_space(first: Dataset, other: Dataset) -> tuple[str, ...]:
    """Give the names to score `other` against: as they were trained on, where all of them were."""
    try:
        return tuple(first.class_names[each] for each in join_classes(first.class_names, other.class_names))
    except SpecError:
        return ClassNames(other.class_names, other.templates)


protocols.add(Transfer.name, Transfer())
