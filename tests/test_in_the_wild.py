"""In the wild: base classes of the other domains for training, all classes of the held-out one for tests."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import SpecError
from bench.registry import datasets, protocols
from tests.made import NAMES, by_name, made_dataset, made_spec, made_task


def test_training_sees_base_classes_of_the_other_domains_alone() -> None:
    task = made_task("in_the_wild", test_domains=(1,))
    assert [view.name for view in task.train] == ["env0_in", "env2_in"]
    assert task.class_names == NAMES[:4]
    assert all(view.class_names == NAMES[:4] and view.is_known.all() for view in task.train)


def test_the_held_out_domain_is_tested_whole_against_all_names() -> None:
    task = made_task("in_the_wild", test_domains=(1,))
    views = by_name(task)
    assert sorted(views) == ["env0_out", "env1_base", "env1_new", "env2_out"]
    base, new = views["env1_base"], views["env1_new"]
    assert base.class_names == new.class_names == NAMES
    assert sorted(np.concatenate([base.indices, new.indices]).tolist()) == list(range(60))
    assert set(base.labels.tolist()) == {0, 1, 2, 3} and set(new.labels.tolist()) == {4, 5, 6, 7}
    assert task.pooled == {"env1_total": ("env1_base", "env1_new")}


def test_validation_is_the_out_split_of_base_classes_against_base_names() -> None:
    task = made_task("in_the_wild", test_domains=(1,))
    out, inside = by_name(task)["env2_out"], task.train[1]
    assert out.class_names == NAMES[:4] and (len(out), len(inside)) == (8, 32)
    assert not np.isin(out.indices, inside.indices).any()


def test_splits_are_clipoods() -> None:
    """Shuffled by RandomState(seed_hash(0, domain, "base")); the first fifth is "out"."""
    keys = list(range(20))
    np.random.RandomState(1300057093).shuffle(keys)
    base = [position for position in range(40) if position % 8 < 4]
    task = made_task("in_the_wild", test_domains=(1,))
    assert by_name(task)["env0_out"].indices.tolist() == [base[key] for key in keys[:4]]
    assert task.train[0].indices.tolist() == [base[key] for key in keys[4:]]


@pytest.mark.parametrize(
    ("name", "first", "last"), [("OfficeHome", "Alarm Clock", "Lamp Shade"), ("DomainNet", "The Eiffel Tower", "leg")]
)
def test_base_classes_of_clipoods_data_sets(name: str, first: str, last: str) -> None:
    """32 of 65 and 172 of 345, in the order of the folders."""
    names = datasets[name].class_names
    dataset = made_dataset((2 * len(names),) * 2, names)
    found = made_task("in_the_wild", dataset, test_domains=(0,)).class_names
    assert (found[0], found[-1], len(found)) == (first, last, len(names) // 2)


@pytest.mark.parametrize(("report", "n"), [("all", 60), ("in", 49), ("out", 11)])
@pytest.mark.parametrize(("unlabeled", "size"), [("out", 11), ("in", 49)])
def test_unlabelled_images_make_a_method_transductive_where_they_are_tested(
    report: str, n: int, unlabeled: str, size: int
) -> None:
    task = made_task(
        "in_the_wild", test_domains=(1,), needs_unlabeled=True, unlabeled=unlabeled, options={"report": report}
    )
    (seen,) = task.unlabeled
    tested = sum(len(view) for view in task.evaluation if view.domain == 1)
    assert (len(seen), tested) == (size, n)
    assert task.transductive is (report in ("all", unlabeled))
    assert 0 < seen.is_known.sum() < len(seen) and seen.class_names == NAMES[:4]


def test_uda_images_are_cut_from_the_in_split() -> None:
    task = made_task(
        "in_the_wild",
        test_domains=(1,),
        needs_unlabeled=True,
        unlabeled="uda",
        uda_holdout_fraction=0.5,
        options={"report": "in"},
    )
    assert len(task.unlabeled[0]) == 24 and not task.transductive
    assert sum(len(view) for view in task.evaluation if view.domain == 1) == 25


def test_methods_without_unlabelled_images_are_never_transductive() -> None:
    task = made_task("in_the_wild", test_domains=(1,))
    assert task.unlabeled == () and not task.transductive


def test_too_few_domains_or_classes_are_refused() -> None:
    protocol = protocols["in_the_wild"]
    with pytest.raises(SpecError, match="at least 2 domains"):
        protocol.held_out(1)
    with pytest.raises(SpecError, match="at least 2 classes"):
        protocol.task(made_dataset(names=("ant",)), made_spec("in_the_wild", test_domains=(0,)))
    assert protocol.held_out(3) == [(0,), (1,), (2,)]
