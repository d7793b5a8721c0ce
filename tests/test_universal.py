"""Universal: which classes are known, seen without labels, and tested, against UEO's index splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import SpecError
from bench.metrics import DETECTION
from bench.registry import datasets, protocols
from bench.splits import MIN_CLASSES, universal_split
from tests.made import NAMES, by_name, made_dataset, made_spec, made_task

SETTINGS = ("closed", "partial", "open", "open_partial")


def classes_of(dataset: object, view: object) -> set[str]:
    names = dataset.class_names  # type: ignore[attr-defined]
    return {names[label] for label in dataset.domains[view.domain].labels[view.indices]}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        ("closed", set(range(25))),
        ("partial", set(range(20))),
        ("open", set(range(28))),
        ("open_partial", {*range(15), 25, 26, 27}),
    ],
)
def test_office31_is_split_as_published(setting: str, seen: set[int]) -> None:
    names = datasets["Office31"].class_names
    assert len(names) == 31
    dataset = made_dataset((62, 93, 124), names, name="Office31")
    task = made_task("universal", dataset, needs_unlabeled=True, test_domains=(2,), options={"setting": setting})
    (unlabeled,), (test,) = task.unlabeled, task.evaluation
    assert task.class_names == names[:25] and task.train == ()
    assert classes_of(dataset, unlabeled) == {names[each] for each in seen}
    assert (len(test), test.is_known.sum()) == (124, 100)
    assert task.transductive


def test_classes_are_numbered_in_alphabetical_order_whatever_the_data_set_does() -> None:
    """DomainBed's order of OfficeHome and DomainNet is another one; UEO's numbers are of this."""
    office, net = (datasets[name].class_names for name in ("OfficeHome", "DomainNet"))
    for names, split_name in ((office, "OfficeHome"), (net, "DomainNet")):
        dataset = made_dataset((len(names),), names, name=split_name)
        task = made_task("universal", dataset, test_domains=(0,), options={"setting": "closed"})
        ordered = sorted(names, key=lambda name: name.lower().replace(" ", "").replace("-", ""))
        assert task.class_names == tuple(ordered[: len(task.class_names)])
        for view in task.evaluation:
            true = [names[label] for label in dataset.domains[0].labels[view.indices][view.is_known]]
            assert [view.class_names[label] for label in view.labels[view.is_known]] == true
    assert task.class_names[0] == "aircraft carrier"
    assert task.class_names.index("cello") < task.class_names.index("cell phone")
    assert net.index("The Eiffel Tower") == 0 and "The Eiffel Tower" not in task.class_names


def test_test_images_are_measured_for_accuracy_and_detection() -> None:
    task = made_task("universal", test_domains=(1,), options={"setting": "open", "ood_score": "energy"})
    (test,) = task.evaluation
    assert test.name == "env1_test" and test.ood_score == "energy"
    assert test.metrics == ("acc", "balanced_acc", *DETECTION)
    assert test.class_names == NAMES[:6] and set(test.labels.tolist()) == set(range(8))


def test_training_images_are_evaluated_when_all_is_asked_for() -> None:
    task = made_task("universal", test_domains=(1,), evaluate="all", options={"setting": "closed"})
    train = by_name(task)["env1_train"]
    assert train.is_known.all() and not set(train.metrics) & set(DETECTION)
    opened = made_task("universal", test_domains=(1,), evaluate="all", options={"setting": "open"})
    assert set(DETECTION) < set(by_name(opened)["env1_train"].metrics)


def test_published_train_and_test_lists_are_used() -> None:
    splits = {"train": [range(40)], "test": [range(40, 60)]}
    dataset = made_dataset((60,), splits=splits)
    task = made_task("universal", dataset, needs_unlabeled=True, test_domains=(0,), options={"setting": "open"})
    assert task.unlabeled[0].indices.max() < 40 and task.evaluation[0].indices.tolist() == list(range(40, 60))
    assert not task.transductive


@given(n=st.integers(MIN_CLASSES, 400))
def test_our_rule_leaves_unknown_classes_in_every_setting(n: int) -> None:
    split = universal_split("any", n)
    known, seen = set(split.known), set(split.open)
    assert set(split.closed) == known and set(split.partial) < known < seen < set(split.test) == set(range(n))
    assert set(split.open_partial) - known == seen - known and set(split.open_partial) & known < known


def test_what_does_not_fit_is_refused() -> None:
    protocol = protocols["universal"]
    with pytest.raises(
        SpecError, match=r"needs the option --setting \(setting: closed \| partial \| open \| open_partial\)"
    ):
        protocol.settle({})
    with pytest.raises(SpecError, match="setting='half' must be one of 'closed', 'partial', 'open', 'open_partial'"):
        protocol.settle({"setting": "half"})
    with pytest.raises(SpecError, match="universal needs at least 5 classes, Made has 4"):
        made_task("universal", made_dataset(names=NAMES[:4]), test_domains=(0,), options={"setting": "open"})
    with pytest.raises(SpecError, match="published class split of Office31 is of 31 classes, this copy has 8"):
        made_task("universal", made_dataset(name="Office31"), test_domains=(0,), options={"setting": "open"})
    with pytest.raises(SpecError, match="takes one domain"):
        made_task("universal", test_domains=(0, 1), options={"setting": "open"})
    with pytest.raises(SpecError, match="no use for --holdout-fraction, --unlabeled"):
        protocol.check(made_spec("universal", holdout_fraction=0.3, unlabeled="in", options={"setting": "open"}))


def test_a_single_domain_is_enough() -> None:
    assert protocols["universal"].held_out(1) == [(0,)]


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_tests_are_the_same_in_every_setting(setting: str) -> None:
    test = made_task("universal", test_domains=(0,), options={"setting": setting}).evaluation[0]
    other = made_task("universal", test_domains=(0,), trial_seed=5, options={"setting": "closed"}).evaluation[0]
    assert np.array_equal(test.indices, other.indices) and test.class_names == other.class_names
