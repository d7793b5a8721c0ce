"""Protocols: what is trained on, what is selected on, what is tested on.

A protocol makes a `Task` of a data set and a spec. The train loop knows tasks only. Each protocol is a module of this
package; how its records are read and shown is declared in `bench.measures`.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.dataset import Dataset, find_dataset
from bench.errors import SpecError, UnknownName
from bench.hparams import Hparam
from bench.registry import protocols, unknown_name
from bench.seeds import seed_hash
from bench.spec import Places, TrialSpec

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """Some samples of one domain, with the class names that they are scored against.

    Attributes:
        name: its name in records, e.g. "env0_out".
        domain: 0-based index of the domain.
        indices: (n,) positions within the domain.
        labels: (n,) index into `class_names`; len(class_names) or more for a class that is not among them.
        class_names: the label space.
        metrics: what is measured when it is evaluated, names of `bench.metrics.METRICS`.
        ood_score: how known and unknown classes are told apart, one of `bench.metrics.OOD_SCORES`; "" = not at all.
    """

    name: str
    domain: int
    indices: Indices
    labels: Indices
    class_names: tuple[str, ...]
    metrics: tuple[str, ...] = ("acc",)
    ood_score: str = ""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Whether the class of each sample is among the class names, (n,)."""
        known: NDArray[np.bool_] = self.labels < len(self.class_names)
        return known


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
        pooled: further keys of records: a name, and the views (with the same class names) whose samples it pools.
        few_shot: views may hold fewer images than a batch, which then holds some of them twice.
    """

    class_names: tuple[str, ...]
    train: tuple[View, ...]
    unlabeled: tuple[View, ...]
    evaluation: tuple[View, ...]
    further: tuple[View, ...] = ()
    transductive: bool = False
    pooled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    few_shot: bool = False

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

    def measured(self, metrics: Sequence[str]) -> Task:
        """Give the same task with further metrics of every evaluated view."""

        def wider(views: tuple[View, ...]) -> tuple[View, ...]:
            return tuple(replace(view, metrics=tuple(dict.fromkeys((*view.metrics, *metrics)))) for view in views)

        return replace(self, evaluation=wider(self.evaluation), further=wider(self.further))


class Protocol(abc.ABC):
    """A way of testing.

    Attributes:
        name: registered name.
        version: raised when its numbers change; part of every trial's identity.
        summary: one line for `sweep list`.
        source: paper or code that it follows.
        options: what can be chosen besides data set, domains and seeds; the default is the paper's.
        required: options that must be given.
        unused: fields of the spec that change nothing, so that giving them is an error.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    summary: ClassVar[str]
    source: ClassVar[str]
    options: ClassVar[Mapping[str, Hparam]] = {}
    required: ClassVar[frozenset[str]] = frozenset()
    unused: ClassVar[frozenset[str]] = frozenset({"transfer_to"})

    @abc.abstractmethod
    def held_out(self, n_domains: int, *, pairs: bool = False) -> list[tuple[int, ...]]:
        """List the sets of held-out domains to run; `pairs` adds what leave-one-domain-out selection needs."""

    @abc.abstractmethod
    def task(self, dataset: Dataset, spec: TrialSpec, *, needs_unlabeled: bool = False) -> Task:
        """Make the task of one trial.

        Raises:
            SpecError: the spec does not fit the data set.
        """

    def load(self, spec: TrialSpec, places: Places) -> Dataset:
        """List the files of all data sets of a trial."""
        return self.join([find_dataset(name).load(places) for name in (spec.dataset, *spec.transfer_to)])

    def join(self, parts: Sequence[Dataset]) -> Dataset:
        """Give the data set that `task` takes: the one that is trained on, with those that are further tested on."""
        return parts[0]

    def settle(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check options and leave out those at their defaults, so that one trial has one spec; required ones stay.

        Raises:
            UnknownName: the protocol has no such option.
            SpecError: a value is not allowed, or a required option is missing.
        """
        settled: dict[str, Any] = {}
        for name, value in given.items():
            if name not in self.options:
                raise UnknownName(unknown_name(f"option of the protocol {self.name} called", name, tuple(self.options)))
            declared = self.options[name]
            value = str(value) if isinstance(declared.default, str) else value  # --shots 4 and "shots": "4" are one
            problem = declared.problem(name, value)
            if problem:
                raise SpecError(f"{self.name}: {problem}")
            if name in self.required or value != declared.default:
                settled[name] = value
        missing = [name for name in sorted(self.required) if name not in given]
        if missing:
            choices = "; ".join(f"{name}: {self.options[name].range()}" for name in missing)
            raise SpecError(f"{self.name} needs the option {_flags(missing)} ({choices})")
        return settled

    def check(self, spec: TrialSpec) -> None:
        """Refuse what the protocol has no use for.

        Raises:
            UnknownName: the protocol has no such option.
            SpecError: options are not as they must be, or a field of the spec is set that changes nothing.
        """
        self.settle(spec.options)
        default = {name: each.default for name, each in TrialSpec.__dataclass_fields__.items()}
        default["transfer_to"] = ()
        idle = [name for name in sorted(self.unused) if getattr(spec, name) != default[name]]
        if idle:
            raise SpecError(f"{self.name} has no use for {_flags(idle)}; leave it out")

    def option(self, spec: TrialSpec, name: str) -> Any:
        """Give the value of an option: the spec's, else the default."""
        return spec.options.get(name, self.options[name].default)


def _flags(names: Iterable[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


def split_indices(
    n: int, holdout_fraction: float, trial_seed: int, domain_index: int, *salt: str
) -> tuple[list[int], list[int]]:
    """Split `range(n)` into ("in", "out") as DomainBed does, order included.

    `RandomState(seed_hash(trial_seed, domain_index)).shuffle(range(n))`; the first int(n * holdout_fraction) are "out",
    the rest "in" (DomainBed `scripts/train.py`, `lib/misc.py: split_dataset`). CLIPood hashes a third word with the two.
    """
    keys = _shuffled(list(range(n)), trial_seed, domain_index, *salt)
    n_out = int(n * holdout_fraction)
    return keys[n_out:], keys[:n_out]


def split_uda(
    in_indices: list[int], uda_fraction: float, trial_seed: int, domain_index: int, *salt: str
) -> tuple[list[int], list[int]]:
    """Cut unlabelled samples from a held-out domain's "in" split as DomainBed does; give (uda, in), each reordered.

    DomainBed splits positions of the split with the same seed again, even when the fraction is 0.
    """
    keys = _shuffled(list(range(len(in_indices))), trial_seed, domain_index, *salt)
    n_uda = int(len(in_indices) * uda_fraction)
    return [in_indices[key] for key in keys[:n_uda]], [in_indices[key] for key in keys[n_uda:]]


def _shuffled(keys: list[int], trial_seed: int, domain_index: int, *salt: str) -> list[int]:
    np.random.RandomState(seed_hash(trial_seed, domain_index, *salt)).shuffle(keys)
    return keys


def make_view(
    dataset: Dataset, domain: int, positions: Sequence[int] | Indices, name: str, classes: Sequence[int] | None = None
) -> View:
    """Make a view of the samples at `positions` of a domain, in their order.

    Args:
        dataset: the data set.
        domain: 0-based index of the domain.
        positions: (n,) positions within the domain.
        name: the view's name.
        classes: the classes to score against, in that order; all in the data set's order where None. Samples of other
            classes stay, with labels behind the names.
    """
    chosen = np.asarray(positions, dtype=np.int64)
    labels = dataset.domains[domain].labels[chosen]
    if classes is None:
        return View(name, domain, chosen, labels, dataset.class_names)
    others = [each for each in range(len(dataset.class_names)) if each not in set(classes)]
    place = np.empty(len(dataset.class_names), dtype=np.int64)
    place[[*classes, *others]] = np.arange(len(place))
    return View(name, domain, chosen, place[labels], tuple(dataset.class_names[each] for each in classes))


def of_classes(dataset: Dataset, domain: int, positions: Sequence[int] | Indices, classes: Collection[int]) -> Indices:
    """Keep of `positions` those whose sample is of one of `classes`, in their order."""
    chosen = np.asarray(positions, dtype=np.int64)
    return chosen[np.isin(dataset.domains[domain].labels[chosen], list(classes))]


def overlap(some: Iterable[View], others: Iterable[View]) -> bool:
    """Say whether any sample is in a view of both lists."""
    others = list(others)
    return any(
        one.domain == other.domain and bool(np.isin(one.indices, other.indices).any())
        for one in some
        for other in others
    )


def check_domains(dataset: Dataset, spec: TrialSpec) -> None:
    """Refuse held-out domains that are not there, or that leave none to train on.

    Raises:
        SpecError: says which domains there are.
    """
    names = [domain.name for domain in dataset.domains]
    if not spec.test_domains or max(spec.test_domains) >= len(names) or min(spec.test_domains) < 0:
        raise SpecError(
            f"test_domains={list(spec.test_domains)} do not fit {dataset.name}: 0..{len(names) - 1} are {names}"
        )
    if len(spec.test_domains) >= len(names):
        raise SpecError(f"test_domains={list(spec.test_domains)} leave no domain of {dataset.name} to train on")


def too_small(dataset: Dataset, domain: int, spec: TrialSpec) -> SpecError:
    """Word the error of a holdout fraction that leaves an "out" split empty."""
    n = len(dataset.domains[domain].files)
    return SpecError(
        f"holdout_fraction={spec.holdout_fraction} leaves no validation images of {dataset.domains[domain].name} "
        f"({n} images) in {dataset.name}; give a larger one: --holdout-fraction {min(0.5, 1.01 / max(2, n)):.2f}"
    )


def too_few_domains(protocol: Protocol, n_domains: int) -> SpecError:
    """Word the error of a data set that has not the domains that a protocol holds out."""
    return SpecError(
        f"{protocol.name} needs at least 2 domains, this data set has {n_domains}; base_to_new, transfer and universal "
        "do with one (--protocol NAME)"
    )


def no_pairs(protocol: Protocol) -> SpecError:
    """Word the error of asking for pairs of held-out domains where there are none."""
    return SpecError(f"{protocol.name} has no pairs of held-out domains; --pairs is for leave_one_domain_out")


__all__ = [
    "Indices",
    "Protocol",
    "Task",
    "View",
    "check_domains",
    "make_view",
    "no_pairs",
    "of_classes",
    "overlap",
    "protocols",
    "split_indices",
    "split_uda",
    "too_few_domains",
    "too_small",
]
