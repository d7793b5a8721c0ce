"""In the wild: domain shift and open classes at once, as CLIPood tests it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.dataset import Dataset
from bench.errors import SpecError
from bench.hparams import Hparam
from bench.protocols import (
    Protocol,
    Task,
    View,
    check_domains,
    make_view,
    no_pairs,
    of_classes,
    overlap,
    split_indices,
    split_uda,
    too_few_domains,
    too_small,
)
from bench.registry import protocols
from bench.spec import TrialSpec

KINDS = ("base", "open")
"""CLIPood's words for base and new classes; they salt its splits."""


class InTheWild(Protocol):
    """Train on the base classes of all domains but one; test base and new classes of that one against all names.

    The first int(C/2) classes in the data set's order are base (DomainBed's order of folders for its data sets, as in
    CLIPood's code), the others new. Base and new images of a domain are split apart, 20 % "out", by
    `seed_hash(trial_seed, domain, "base")` and `"open"`; trial 0 has CLIPood's splits.

    Views: `env{s}_in` (training) and `env{s}_out` (validation; base names) of the training domains, base classes alone;
    `env{t}_base` and `env{t}_new` of the held-out domain against all C names, and `env{t}_total` over both. Tables
    show base, new, total and the harmonic mean of base and new.

    Option `report`: images of the held-out domain that are tested: "all" as CLIPood's code does, or only one of the
    splits: "in", "out". With unlabelled images of the held-out domain (`--unlabeled out`) "all" tests on images that were
    seen without labels and is marked so; `report` = "in" keeps them apart.
    Published codes differ: CLIPood reports the last step and seeds its splits with 0 in every run.
    """

    name = "in_the_wild"
    version = 1
    summary = "domain shift with open classes: base and new classes of an unseen domain, against all names"
    source = "Shu et al., CLIPood: Generalizing CLIP to Out-of-Distributions, ICML 2023, section 4.3 and released code"
    options = {
        "report": Hparam(
            "all", "images of the held-out domain that are tested: all (CLIPood), in, out", choices=("all", "in", "out")
        )
    }

    def held_out(self, n_domains: int, *, pairs: bool = False) -> list[tuple[int, ...]]:
        """List every single domain."""
        if pairs:
            raise no_pairs(self)
        if n_domains < 2:
            raise too_few_domains(self, n_domains)
        return [(domain,) for domain in range(n_domains)]

    def task(self, dataset: Dataset, spec: TrialSpec, *, needs_unlabeled: bool = False) -> Task:
        """Make the task of one trial."""
        check_domains(dataset, spec)
        n_base = len(dataset.class_names) // 2
        base, every = range(n_base), range(len(dataset.class_names))
        if not n_base:
            raise SpecError(f"{self.name} needs at least 2 classes, {dataset.name} has {len(every)}")
        train: list[View] = []
        validation: list[View] = []
        tests: list[View] = []
        unlabeled: list[View] = []
        for domain in range(len(dataset.domains)):
            held_out = domain in spec.test_domains
            parts = [_split(dataset, spec, domain, classes, held_out) for classes in (base, every[n_base:])]
            if not held_out:
                train.append(make_view(dataset, domain, parts[0].inside, f"env{domain}_in", base))
                validation.append(make_view(dataset, domain, parts[0].outside, f"env{domain}_out", base))
                continue
            for part, name in zip(parts, ("base", "new"), strict=True):
                chosen = part.reported(self.option(spec, "report"))
                tests.append(make_view(dataset, domain, chosen, f"env{domain}_{name}", every))
            seen = [index for part in parts for index in part.unlabeled(spec.unlabeled)]
            unlabeled.append(make_view(dataset, domain, seen, f"env{domain}_{spec.unlabeled}", base))
        return Task(
            class_names=dataset.class_names[:n_base],
            train=tuple(train),
            unlabeled=tuple(unlabeled) if needs_unlabeled else (),
            evaluation=tuple(view for view in (*validation, *tests) if len(view)),
            further=tuple(train) if spec.evaluate == "all" else (),
            transductive=needs_unlabeled and overlap(unlabeled, tests),
            pooled={f"env{domain}_total": (f"env{domain}_base", f"env{domain}_new") for domain in spec.test_domains},
        )


class _Parts(NamedTuple):
    """Positions of one kind of classes in one domain."""

    inside: list[int]
    outside: list[int]
    uda: list[int]

    def reported(self, report: str) -> list[int]:
        return {"all": self.uda + self.inside + self.outside, "in": self.inside, "out": self.outside}[report]

    def unlabeled(self, split: str) -> list[int]:
        return {"in": self.inside, "out": self.outside, "uda": self.uda}[split]


def _split(dataset: Dataset, spec: TrialSpec, domain: int, classes: Sequence[int], held_out: bool) -> _Parts:
    kind = KINDS[0] if 0 in classes else KINDS[1]
    of_kind = of_classes(dataset, domain, range(len(dataset.domains[domain].files)), classes).tolist()
    inside, outside = split_indices(len(of_kind), spec.holdout_fraction, spec.trial_seed, domain, kind)
    if not outside and kind == "base":
        raise too_small(dataset, domain, spec)
    uda: list[int] = []
    if held_out and spec.uda_holdout_fraction:
        uda, inside = split_uda(inside, spec.uda_holdout_fraction, spec.trial_seed, domain, kind)
    return _Parts(*([of_kind[position] for position in part] for part in (inside, outside, uda)))


protocols.add(InTheWild.name, InTheWild())
