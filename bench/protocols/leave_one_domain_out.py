"""Leave one domain out, as DomainBed does, and its reverse with a single training domain."""

from __future__ import annotations

import itertools

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
    overlap,
    split_indices,
    split_uda,
    too_few_domains,
    too_small,
)
from bench.registry import protocols
from bench.spec import TrialSpec

_REPORT = Hparam(
    "in",
    "images of the held-out domain that are reported on: its in split (DomainBed), its out split (CLIPood's code), all",
    choices=("in", "out", "all"),
)


class LeaveOneDomainOut(Protocol):
    """Train on all domains but the held-out one, test on it (DomainBed; two held-out domains in its pair runs).

    Views are DomainBed's: `env{i}_in` (80 %) and `env{i}_out` (20 %) of domain i. Selection reads the "out" split of
    every domain and the "in" split of the held-out ones; the "in" splits of training domains are evaluated only with
    `evaluate="all"`.

    Option `report`: which images of the held-out domain the tables report on. "in" is DomainBed's 80 %; "out" the 20 %
    split that CLIPood's released code tests on; "all" the whole domain, as many forks of DomainBed do.
    """

    name = "leave_one_domain_out"
    version = 1
    summary = "train on all domains but one, test on that one, each in turn"
    source = "Gulrajani and Lopez-Paz, In Search of Lost Domain Generalization, ICLR 2021 (DomainBed)"
    options = {"report": _REPORT}

    def held_out(self, n_domains: int, *, pairs: bool = False) -> list[tuple[int, ...]]:
        """List every single domain, and with `pairs` every pair, in DomainBed's nested order."""
        if n_domains < 2:
            raise too_few_domains(self, n_domains)
        if pairs and n_domains < 3:
            raise SpecError(f"--pairs needs at least 3 domains, this data set has {n_domains}")
        singles = [(domain,) for domain in range(n_domains)]
        return sorted([*singles, *itertools.combinations(range(n_domains), 2)]) if pairs else list(singles)

    def task(self, dataset: Dataset, spec: TrialSpec, *, needs_unlabeled: bool = False) -> Task:
        """Make the task of one trial."""
        check_domains(dataset, spec)
        report = self.option(spec, "report")
        train: list[View] = []
        unlabeled: list[View] = []
        evaluation: list[View] = []
        further: list[View] = []
        reported: list[View] = []
        for domain in range(len(dataset.domains)):
            held_out = domain in spec.test_domains
            inside, outside, uda = self._split(dataset, spec, domain, held_out=held_out)
            if not held_out:
                train.append(inside)
            elif needs_unlabeled:
                unlabeled.append({"in": inside, "out": outside, "uda": uda}[spec.unlabeled])
            evaluation += [inside, outside] if held_out else [outside]
            reported += {"in": [inside], "out": [outside], "all": [inside, outside]}[report] if held_out else []
            if spec.evaluate == "all" and not held_out:
                further.append(inside)
        whole = {f"env{domain}_all": (f"env{domain}_in", f"env{domain}_out") for domain in spec.test_domains}
        return Task(
            class_names=dataset.class_names,
            train=tuple(train),
            unlabeled=tuple(unlabeled),
            evaluation=tuple(evaluation),
            further=tuple(further),
            transductive=overlap(unlabeled, reported),
            pooled=whole if report == "all" else {},
        )

    def _split(self, dataset: Dataset, spec: TrialSpec, domain: int, *, held_out: bool) -> tuple[View, View, View]:
        n = len(dataset.domains[domain].files)
        inside, outside = split_indices(n, spec.holdout_fraction, spec.trial_seed, domain)
        if not outside:
            raise too_small(dataset, domain, spec)
        uda: list[int] = []
        if held_out and spec.uda_holdout_fraction:
            uda, inside = split_uda(inside, spec.uda_holdout_fraction, spec.trial_seed, domain)
        return tuple(  # type: ignore[return-value]
            make_view(dataset, domain, indices, f"env{domain}_{split}")
            for split, indices in (("in", inside), ("out", outside), ("uda", uda))
        )


class SingleSource(LeaveOneDomainOut):
    """Train on one domain, test on each of the others; the columns of its tables are the training domains.

    Views, splits and selection are those of `leave_one_domain_out`, with all domains but one held out: the validation
    number is the accuracy on the training domain's "out" split, the reported number the mean over the other domains.
    `--test-domains X` leaves out the trials that train on X.

    Option `report`: as in `leave_one_domain_out`.
    """

    name = "single_source"
    version = 1
    summary = "train on one domain, test on each other one"
    source = "DomainBed's splits (Gulrajani and Lopez-Paz, ICLR 2021) with the domains' parts exchanged"

    def held_out(self, n_domains: int, *, pairs: bool = False) -> list[tuple[int, ...]]:
        """List all domains but one, for each."""
        if pairs:
            raise no_pairs(self)
        if n_domains < 2:
            raise too_few_domains(self, n_domains)
        every = range(n_domains)
        return [tuple(domain for domain in every if domain != source) for source in every]


protocols.add(LeaveOneDomainOut.name, LeaveOneDomainOut())
protocols.add(SingleSource.name, SingleSource())
