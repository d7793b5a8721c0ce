"""Protocols: what is trained on, what is selected on, what is tested on.

A protocol makes a `Task` of a data set and a spec. The train loop knows tasks only.
"""

from __future__ import annotations

import abc
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.dataset import Dataset
from bench.errors import SpecError
from bench.registry import protocols
from bench.seeds import seed_hash
from bench.spec import TrialSpec


@dataclass(frozen=True)
class View:
    """Some samples of one domain, with the class names that they are scored against.

    Attributes:
        name: its name in records, e.g. "env0_out".
        domain: 0-based index of the domain.
        indices: (n,) positions within the domain.
        labels: (n,) index into `class_names`.
        class_names: the label space.
    """

    name: str
    domain: int
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Task:
    """What one trial has to do.

    Attributes:
        class_names: label space of the training labels.
        train: labelled views, one a domain.
        unlabeled: views whose labels no method but an oracle ablation may read; empty unless the method asks for them.
        evaluation: views that selection and tables read.
        further: views that are evaluated only because the user asked for all.
        transductive: unlabelled images are among those that are reported on.
    """

    class_names: tuple[str, ...]
    train: tuple[View, ...]
    unlabeled: tuple[View, ...]
    evaluation: tuple[View, ...]
    further: tuple[View, ...] = ()
    transductive: bool = False

    @property
    def evaluated(self) -> tuple[View, ...]:
        """All views that are evaluated."""
        return (*self.evaluation, *self.further)

    @property
    def split_digest(self) -> str:
        """Sixteen digits over which sample is in which view of `evaluation`: paired trials agree in it."""
        hashed = hashlib.sha256()
        for view in self.evaluation:
            hashed.update(view.name.encode() + np.sort(view.indices).astype("<i8").tobytes())
        return hashed.hexdigest()[:16]


class Protocol(abc.ABC):
    """A way of testing.

    Attributes:
        name: registered name.
        version: raised when its numbers change; part of every trial's identity.
        summary: one line for `sweep list`.
        source: paper or code that it follows.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    summary: ClassVar[str]
    source: ClassVar[str]

    @abc.abstractmethod
    def held_out(self, n_domains: int, *, pairs: bool = False) -> list[tuple[int, ...]]:
        """List the sets of held-out domains to run; `pairs` adds what leave-one-domain-out selection needs."""

    @abc.abstractmethod
    def task(self, dataset: Dataset, spec: TrialSpec, *, needs_unlabeled: bool = False) -> Task:
        """Make the task of one trial.

        Raises:
            SpecError: the spec does not fit the data set.
        """


def split_indices(n: int, holdout_fraction: float, trial_seed: int, domain_index: int) -> tuple[list[int], list[int]]:
    """Split `range(n)` into ("in", "out") as DomainBed does, order included.

    `RandomState(seed_hash(trial_seed, domain_index)).shuffle(range(n))`; the first int(n * holdout_fraction) are "out",
    the rest "in" (DomainBed `scripts/train.py`, `lib/misc.py: split_dataset`).
    """
    keys = _shuffled(list(range(n)), trial_seed, domain_index)
    n_out = int(n * holdout_fraction)
    return keys[n_out:], keys[:n_out]


def split_uda(
    in_indices: list[int], uda_fraction: float, trial_seed: int, domain_index: int
) -> tuple[list[int], list[int]]:
    """Cut unlabelled samples from a held-out domain's "in" split as DomainBed does; give (uda, in), each reordered.

    DomainBed splits positions of the split with the same seed again, even when the fraction is 0.
    """
    keys = _shuffled(list(range(len(in_indices))), trial_seed, domain_index)
    n_uda = int(len(in_indices) * uda_fraction)
    return [in_indices[key] for key in keys[:n_uda]], [in_indices[key] for key in keys[n_uda:]]


def _shuffled(keys: list[int], trial_seed: int, domain_index: int) -> list[int]:
    np.random.RandomState(seed_hash(trial_seed, domain_index)).shuffle(keys)
    return keys


class LeaveOneDomainOut(Protocol):
    """Train on all domains but the held-out one, test on it (DomainBed; two held-out domains in its pair runs).

    Views are DomainBed's: `env{i}_in` (80 %) and `env{i}_out` (20 %) of domain i. Selection reads the "out" split of
    every domain and the "in" split of the held-out ones; the "in" splits of training domains are evaluated only with
    `evaluate="all"`.
    """

    name = "leave_one_domain_out"
    version = 1
    summary = "train on all domains but one, test on that one, each in turn"
    source = "Gulrajani and Lopez-Paz, In Search of Lost Domain Generalization, ICLR 2021 (DomainBed)"

    def held_out(self, n_domains: int, *, pairs: bool = False) -> list[tuple[int, ...]]:
        """List every single domain, and with `pairs` every pair, in DomainBed's nested order."""
        if n_domains < 2 or (pairs and n_domains < 3):
            raise SpecError(f"{self.name} needs at least {3 if pairs else 2} domains, this data set has {n_domains}")
        singles = [(domain,) for domain in range(n_domains)]
        return sorted([*singles, *itertools.combinations(range(n_domains), 2)]) if pairs else list(singles)

    def task(self, dataset: Dataset, spec: TrialSpec, *, needs_unlabeled: bool = False) -> Task:
        """Make the task of one trial."""
        _check_domains(dataset, spec)
        train: list[View] = []
        unlabeled: list[View] = []
        evaluation: list[View] = []
        further: list[View] = []
        for domain in range(len(dataset.domains)):
            held_out = domain in spec.test_domains
            inside, outside, uda = self._split(dataset, spec, domain, held_out=held_out)
            if not held_out:
                train.append(inside)
            elif needs_unlabeled:
                unlabeled.append({"in": inside, "out": outside, "uda": uda}[spec.unlabeled])
            evaluation += [inside, outside] if held_out else [outside]
            if spec.evaluate == "all" and not held_out:
                further.append(inside)
        return Task(
            class_names=dataset.class_names,
            train=tuple(train),
            unlabeled=tuple(unlabeled),
            evaluation=tuple(evaluation),
            further=tuple(further),
            transductive=needs_unlabeled and spec.unlabeled == "in",
        )

    def _split(self, dataset: Dataset, spec: TrialSpec, domain: int, *, held_out: bool) -> tuple[View, View, View]:
        n = len(dataset.domains[domain].files)
        inside, outside = split_indices(n, spec.holdout_fraction, spec.trial_seed, domain)
        if not outside:
            raise SpecError(
                f"holdout_fraction={spec.holdout_fraction} leaves no validation images of {dataset.domains[domain].name} "
                f"({n} images) in {dataset.name}; give a larger one: --holdout-fraction {min(0.5, 1.01 / max(2, n)):.2f}"
            )
        uda: list[int] = []
        if held_out and spec.uda_holdout_fraction:
            uda, inside = split_uda(inside, spec.uda_holdout_fraction, spec.trial_seed, domain)
        return tuple(  # type: ignore[return-value]
            _view(dataset, domain, indices, f"env{domain}_{split}")
            for split, indices in (("in", inside), ("out", outside), ("uda", uda))
        )


protocols.add(LeaveOneDomainOut.name, LeaveOneDomainOut())


def _view(dataset: Dataset, domain: int, indices: Sequence[int], name: str) -> View:
    positions = np.asarray(indices, dtype=np.int64)
    return View(name, domain, positions, dataset.domains[domain].labels[positions], dataset.class_names)


def _check_domains(dataset: Dataset, spec: TrialSpec) -> None:
    names = [domain.name for domain in dataset.domains]
    if not spec.test_domains or max(spec.test_domains) >= len(names) or min(spec.test_domains) < 0:
        raise SpecError(
            f"test_domains={list(spec.test_domains)} do not fit {dataset.name}: 0..{len(names) - 1} are {names}"
        )
    if len(spec.test_domains) >= len(names):
        raise SpecError(f"test_domains={list(spec.test_domains)} leave no domain of {dataset.name} to train on")
