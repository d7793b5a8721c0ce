"""Base to new classes: CoOp's draw to the index, and which image is trained on, selected on and tested on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.errors import SpecError, UnknownName
from bench.registry import datasets, protocols
from tests.made import NAMES, by_name, made_dataset, made_spec, made_task

DTD_TRAIN = [
    8, 96, 174, 231, 288, 304, 376, 427, 511, 588, 628, 690, 761, 804, 890, 913, 966, 1051, 1081, 1197, 1253, 1284, 1347,
    1418, 1488, 1549, 1560, 1664, 1708, 1757, 1846, 1911, 1934, 2017, 2046, 2157, 2180, 2221, 2281, 2341, 2441, 2494,
    2520, 2636, 2664, 2743, 2773,
]  # fmt: skip
DTD_VAL = [
    13, 47, 48, 88, 103, 134, 159, 185, 199, 227, 247, 285, 295, 326, 345, 360, 397, 425, 452, 459, 485, 524, 551, 561,
    579, 623, 634, 671, 694, 712, 733, 760, 789, 798, 825, 849, 882, 903, 928, 948, 978, 985, 1023, 1039, 1079, 1092, 1117,
]  # fmt: skip
"""CoOp's 1-shot draw of DTD with seed 1, as published with "Multimodality Helps Unimodality" (Lin et al., CVPR 2023)."""


def published(n_train: int, n_val: int, n_test: int, n_classes: int) -> Any:
    """A data set of one domain with published splits, each contiguous by class, as DTD's lists are."""
    labels = [c for n in (n_train, n_val, n_test) for c in range(n_classes) for _ in range(n)]
    edges = np.cumsum([0, *(n * n_classes for n in (n_train, n_val, n_test))]).tolist()
    splits = {name: [range(edges[i], edges[i + 1])] for i, name in enumerate(("train", "val", "test"))}
    return made_dataset(names=[f"class {i}" for i in range(n_classes)], splits=splits, labels=[labels])


def test_shots_are_coops_to_the_index() -> None:
    dtd = published(60, 24, 36, 47)
    task = made_task("base_to_new", dtd, options={"shots": "1"})
    (train,), views = task.train, by_name(task)
    assert train.indices.tolist() == DTD_TRAIN[:24]  # the draw is over all classes, base ones are told apart after it
    assert (views["env0_val"].indices - 60 * 47).tolist() == DTD_VAL[:24]
    assert train.class_names == views["env0_base"].class_names == tuple(f"class {i}" for i in range(24))
    assert views["env0_new"].class_names == tuple(f"class {i}" for i in range(24, 47))
    assert (len(views["env0_base"]), len(views["env0_new"])) == (36 * 24, 36 * 23)


def test_trials_have_coops_seeds_one_to_three_and_clipoods_seed_is_an_option() -> None:
    dtd = published(60, 24, 36, 47)
    drawn = [made_task("base_to_new", dtd, trial_seed=seed, options={"shots": "1"}).train[0] for seed in range(3)]
    assert len({each.indices.tobytes() for each in drawn}) == 3
    shifted = made_task("base_to_new", dtd, trial_seed=1, options={"shots": "1", "first_seed": 0}).train[0]
    assert shifted.indices.tolist() == DTD_TRAIN[:24]


@pytest.mark.parametrize(("shots", "val"), [("1", 1), ("2", 2), ("4", 4), ("8", 4), ("16", 4)])
def test_validation_has_at_most_four_images_a_class(shots: str, val: int) -> None:
    task = made_task("base_to_new", published(20, 10, 5, 6), options={"shots": shots})
    assert np.bincount(task.train[0].labels).tolist() == [int(shots)] * 3
    assert np.bincount(by_name(task)["env0_val"].labels).tolist() == [val] * 3
    assert task.few_shot


def test_all_takes_the_published_splits_whole() -> None:
    task = made_task("base_to_new", published(20, 10, 5, 6), options={"shots": "all"})
    assert task.train[0].indices.tolist() == list(range(60))
    assert np.bincount(by_name(task)["env0_val"].labels).tolist() == [10] * 3
    assert not task.few_shot


def test_each_half_is_labelled_anew_from_zero() -> None:
    views = by_name(made_task("base_to_new", published(4, 2, 3, 5), options={"shots": "2"}))
    assert np.unique(views["env0_base"].labels).tolist() == [0, 1, 2]
    assert np.unique(views["env0_new"].labels).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "base", "new"),
    [
        ("ImageNet", 500, 500),
        ("Caltech101", 50, 50),
        ("OxfordPets", 19, 18),
        ("StanfordCars", 98, 98),
        ("Flowers102", 51, 51),
        ("Food101", 51, 50),
        ("FGVCAircraft", 50, 50),
        ("SUN397", 199, 198),
        ("DTD", 24, 23),
        ("EuroSAT", 5, 5),
        ("UCF101", 51, 50),
    ],
)
def test_base_and_new_classes_of_the_eleven_data_sets(name: str, base: int, new: int) -> None:
    """Counts of CoCoOp's tables, from the class lists of the readers."""
    names = datasets[name].class_names
    labels = [label for label in range(len(names)) for _ in range(3)]
    of_split = [[position for position in range(len(labels)) if position % 3 == part] for part in range(3)]
    splits = {split: [positions] for split, positions in zip(("train", "val", "test"), of_split, strict=True)}
    dataset = made_dataset(names=names, labels=[labels], splits=splits)
    task = made_task("base_to_new", dataset, options={"shots": "1"})
    views = by_name(task)
    assert (len(views["env0_base"].class_names), len(views["env0_new"].class_names)) == (base, new)
    assert views["env0_base"].class_names + views["env0_new"].class_names == names


def test_without_a_published_split_every_domain_is_split_by_the_trial_seed() -> None:
    dataset = made_dataset((40, 60, 80))
    task = made_task("base_to_new", dataset, options={"shots": "3"})
    views = by_name(task)
    assert [view.name for view in task.train] == ["env0_train", "env1_train", "env2_train"]
    for domain, n in enumerate((40, 60, 80)):
        parts = [task.train[domain], views[f"env{domain}_val"], views[f"env{domain}_base"], views[f"env{domain}_new"]]
        joined = np.concatenate([each.indices for each in parts])
        assert len(np.unique(joined)) == len(joined)  # nothing is used twice
        assert len(parts[2]) + len(parts[3]) == int(0.2 * n)
        assert np.bincount(parts[0].labels, minlength=4).max() <= 3
    assert made_task("base_to_new", dataset, trial_seed=1).split_digest != task.split_digest


def test_labels_fit_their_class_names_in_every_view() -> None:
    dataset = made_dataset((40, 60, 80))
    task = made_task("base_to_new", dataset, options={"shots": "all"}, needs_unlabeled=True)
    for view in (*task.train, *task.evaluated):
        true = [NAMES[label] for label in dataset.domains[view.domain].labels[view.indices]]
        assert [view.class_names[label] for label in view.labels] == true


def test_unlabelled_images_are_those_of_the_training_pool_that_were_not_drawn() -> None:
    task = made_task("base_to_new", options={"shots": "2"}, needs_unlabeled=True)
    for view in task.unlabeled:
        others = [each for each in (*task.train, *task.evaluated) if each.domain == view.domain]
        assert not any(np.isin(view.indices, each.indices).any() for each in others)
        assert 0 < view.is_known.sum() < len(view)  # base and new classes
    assert not task.transductive


def test_a_val_split_that_is_the_test_split_is_not_selected_on() -> None:
    """As CoOp reads ImageNet."""
    splits = {"train": [range(12)], "val": [range(12, 24)], "test": [range(12, 24)]}
    task = made_task("base_to_new", made_dataset(names=NAMES[:4], labels=[np.arange(24) % 4], splits=splits))
    assert sorted(by_name(task)) == ["env0_base", "env0_new"]


def test_a_copy_without_training_images_serves_tests_alone() -> None:
    splits = {"val": [range(12)], "test": [range(12)]}
    task = made_task("base_to_new", made_dataset(names=NAMES[:4], labels=[np.arange(12) % 4], splits=splits))
    assert task.train == () and sorted(by_name(task)) == ["env0_base", "env0_new"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"shots": "none"}}, "shots='none' must be a whole number from 1, or all"),
        ({"options": {"shots": "0"}}, "shots='0' must be"),
        ({"test_domains": (0,)}, "holds out no domain"),
        ({"holdout_fraction": 0.01}, "leaves no validation images"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        made_task("base_to_new", **changes)


def test_a_fraction_beside_a_published_split_is_refused() -> None:
    with pytest.raises(SpecError, match="has a published split"):
        made_task("base_to_new", published(4, 2, 3, 5), holdout_fraction=0.3)


def test_options_at_their_defaults_are_no_part_of_a_spec() -> None:
    protocol = protocols["base_to_new"]
    assert protocol.settle({"shots": 16, "first_seed": 1}) == {}
    assert protocol.settle({"shots": 4}) == protocol.settle({"shots": "4"}) == {"shots": "4"}
    with pytest.raises(UnknownName, match=r"no option of the protocol base_to_new called 'shot'.*'shots'"):
        protocol.settle({"shot": 4})
    with pytest.raises(SpecError, match="first_seed=-1 is out of its range"):
        protocol.settle({"first_seed": -1})


def test_what_changes_nothing_is_refused() -> None:
    spec = made_spec("base_to_new", unlabeled="in", transfer_to=("PACS",))
    with pytest.raises(SpecError, match="no use for --transfer-to, --unlabeled"):
        protocols["base_to_new"].check(spec)


def test_one_trial_holds_nothing_out() -> None:
    assert protocols["base_to_new"].held_out(4) == [()]
    with pytest.raises(SpecError, match="no pairs"):
        protocols["base_to_new"].held_out(4, pairs=True)


def test_shots_are_written_one_way() -> None:
    settle = protocols["base_to_new"].settle
    assert settle({"shots": "04"}) == settle({"shots": 4}) == {"shots": "4"} and settle({"shots": "016"}) == {}
    with pytest.raises(SpecError, match="shots='abc' must be a whole number"):
        settle({"shots": "abc"})
