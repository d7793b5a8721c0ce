"""Splits are DomainBed's, to the digit; tasks hold out what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.dataset import Dataset, Domain
from bench.errors import SpecError
from bench.protocols import Task, split_indices, split_uda
from bench.registry import protocols
from bench.spec import TrialSpec

SIZES = (10, 20, 30, 15)
CLASSES = ("ant", "bee", "cat")


def dataset() -> Dataset:
    domains = tuple(
        Domain(name, Path(), tuple(map(str, range(n))), np.arange(n) % 3) for name, n in zip("WXYZ", SIZES, strict=True)
    )
    return Dataset("D", CLASSES, domains)


def task(needs_unlabeled: bool = False, **changes: object) -> Task:
    fields: dict[str, object] = {
        "protocol": "leave_one_domain_out",
        "protocol_version": 1,
        "dataset": "D",
        "algorithm": "A",
        "test_domains": (1,),
        "backbone": "b",
        "pretrained": "p",
        "trial_seed": 0,
        "hparams_seed": 0,
        "hparams": {},
        "steps": 1,
        "evaluate_every": 1,
    }
    spec = TrialSpec(**{**fields, **changes})
    return protocols["leave_one_domain_out"].task(dataset(), spec, needs_unlabeled=needs_unlabeled)


@pytest.mark.parametrize(("trial", "domain", "out"), [(0, 0, [2, 3]), (0, 1, [5, 0]), (1, 0, [3, 7])])
def test_out_split_is_domainbeds(trial: int, domain: int, out: list[int]) -> None:
    assert split_indices(10, 0.2, trial, domain)[1] == out


def test_in_split_is_domainbeds_in_its_order() -> None:
    assert split_indices(10, 0.2, 0, 0) == ([8, 1, 4, 5, 0, 9, 6, 7], [2, 3])


def test_splits_are_plain_lists_of_plain_numbers() -> None:
    inside, outside = split_indices(7, 0.3, 0, 0)
    assert {type(index) for index in (*inside, *outside)} == {int} and type(inside) is type(outside) is list


@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 99), st.integers(0, 9))
def test_split_is_a_partition_of_the_right_sizes(n: int, fraction: float, trial: int, domain: int) -> None:
    inside, outside = split_indices(n, fraction, trial, domain)
    assert sorted(inside + outside) == list(range(n))
    assert len(outside) == int(n * fraction)
    assert (inside, outside) == split_indices(n, fraction, trial, domain)


@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 99), st.integers(0, 9))
def test_uda_split_is_a_partition_of_the_in_split(n: int, fraction: float, trial: int, domain: int) -> None:
    before = split_indices(n, 0.2, trial, domain)[0]
    uda, inside = split_uda(before, fraction, trial, domain)
    assert sorted(uda + inside) == sorted(before)
    assert len(uda) == int(len(before) * fraction)


def test_uda_split_reorders_even_when_it_takes_nothing() -> None:
    before = split_indices(10, 0.2, 0, 0)[0]
    uda, inside = split_uda(before, 0.0, 0, 0)
    keys = list(range(8))
    np.random.RandomState(894182419).shuffle(keys)
    assert uda == [] and inside != before and inside == [before[key] for key in keys]


def test_held_out_domains_are_in_domainbeds_nested_order() -> None:
    protocol = protocols["leave_one_domain_out"]
    assert protocol.held_out(3) == [(0,), (1,), (2,)]
    assert protocol.held_out(3, pairs=True) == [(0,), (0, 1), (0, 2), (1,), (1, 2), (2,)]
    assert [len(protocol.held_out(n, pairs=True)) for n in (3, 4, 6, 10)] == [6, 10, 21, 55]


@pytest.mark.parametrize(("n", "pairs"), [(1, False), (2, True), (0, False)])
def test_too_few_domains_are_refused(n: int, pairs: bool) -> None:
    with pytest.raises(SpecError, match="needs at least"):
        protocols["leave_one_domain_out"].held_out(n, pairs=pairs)


def test_task_trains_on_the_other_domains_and_evaluates_what_selection_reads() -> None:
    made = task()
    assert [view.name for view in made.train] == ["env0_in", "env2_in", "env3_in"]
    assert [view.name for view in made.evaluation] == ["env0_out", "env1_in", "env1_out", "env2_out", "env3_out"]
    assert [len(view) for view in made.evaluation] == [2, 16, 4, 6, 3]
    assert made.unlabeled == () and not made.transductive


def test_task_evaluates_every_split_when_asked() -> None:
    names = [view.name for view in task(evaluate="all").evaluated]
    assert sorted(names) == [f"env{domain}_{split}" for domain in range(4) for split in ("in", "out")]
    assert task(evaluate="all").split_digest == task().split_digest  # more evaluation, the same pairing


def test_labels_of_a_view_belong_to_its_indices() -> None:
    for view in task(evaluate="all").evaluated:
        assert view.labels.tolist() == (view.indices % 3).tolist()
        assert view.class_names == CLASSES


@pytest.mark.parametrize(
    ("unlabeled", "fraction", "size", "transductive"),
    [("out", 0.0, 4, False), ("in", 0.0, 16, True), ("uda", 0.25, 4, False)],
)
def test_unlabelled_images_come_from_the_held_out_domain(
    unlabeled: str, fraction: float, size: int, transductive: bool
) -> None:
    made = task(needs_unlabeled=True, unlabeled=unlabeled, uda_holdout_fraction=fraction)
    (view,) = made.unlabeled
    assert (view.domain, len(view), view.name, made.transductive) == (1, size, f"env1_{unlabeled}", transductive)
    reported = next(each for each in made.evaluation if each.name == "env1_in")
    assert bool(set(view.indices.tolist()) & set(reported.indices.tolist())) is transductive


@pytest.mark.parametrize("test_domains", [(), (4,), (-1,), (0, 1, 2, 3)])
def test_held_out_domains_that_do_not_fit_are_refused(test_domains: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match="test_domains="):
        task(test_domains=test_domains)


def test_split_digest_tells_splits_but_not_methods() -> None:
    assert task().split_digest == task(algorithm="B", hparams_seed=3, steps=9).split_digest
    digests = {
        each.split_digest for each in (task(), task(trial_seed=1), task(test_domains=(2,)), task(holdout_fraction=0.5))
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("report", "unlabeled", "transductive"),
    [("in", "in", True), ("in", "out", False), ("out", "out", True), ("out", "in", False), ("all", "out", True)],
)
def test_a_method_is_transductive_where_its_unlabelled_images_are_reported_on(
    report: str, unlabeled: str, transductive: bool
) -> None:
    made = task(needs_unlabeled=True, unlabeled=unlabeled, options={"report": report})
    assert made.transductive is transductive


def test_the_whole_held_out_domain_is_pooled_from_its_splits() -> None:
    made = task(options={"report": "all"})
    assert made.pooled == {"env1_all": ("env1_in", "env1_out")}
    assert made.split_digest == task().split_digest  # the same images are evaluated
    assert task().pooled == {} and task(options={"report": "out"}).pooled == {}


def test_a_single_source_trains_on_one_domain_and_tests_the_others() -> None:
    protocol = protocols["single_source"]
    assert protocol.held_out(4) == [(1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)]
    spec = TrialSpec(
        protocol="single_source",
        protocol_version=1,
        dataset="D",
        algorithm="A",
        test_domains=(0, 2, 3),
        backbone="b",
        pretrained="p",
        trial_seed=0,
        hparams_seed=0,
        hparams={},
        steps=1,
        evaluate_every=1,
    )
    made = protocol.task(dataset(), spec, needs_unlabeled=True)
    assert [view.name for view in made.train] == ["env1_in"]
    assert [view.name for view in made.unlabeled] == ["env0_out", "env2_out", "env3_out"]
    tested = {"env0_in", "env0_out", "env2_in", "env2_out", "env3_in", "env3_out"}
    assert {view.name for view in made.evaluation} == {"env1_out", *tested}
    assert np.array_equal(made.train[0].indices, task(test_domains=(0,)).train[0].indices)  # DomainBed's split


@pytest.mark.parametrize("name", [name for name in protocols if name != "leave_one_domain_out"])
def test_pairs_of_held_out_domains_are_for_leave_one_domain_out(name: str) -> None:
    with pytest.raises(SpecError, match="no pairs of held-out domains"):
        protocols[name].held_out(4, pairs=True)


@pytest.mark.parametrize("name", list(protocols))
def test_every_protocol_says_what_it_is(name: str) -> None:
    protocol = protocols[name]
    assert protocol.name == name and protocol.summary and protocol.source and protocol.version >= 1
    assert "Option" in (type(protocol).__doc__ or "") or not protocol.options
    for option in protocol.options:
        assert option in (type(protocol).__doc__ or "")
    assert protocol.required <= set(protocol.options)


def test_further_metrics_are_measured_on_every_view_once() -> None:
    made = task(evaluate="all").measured(("nll", "acc", "ece"))
    assert {view.metrics for view in made.evaluated} == {("acc", "nll", "ece")}
    assert {view.metrics for view in task().evaluated} == {("acc",)}
