"""Transfer: several data sets in one trial, label spaces joined by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.dataset import Dataset
from bench.errors import SpecError
from bench.models import ClassNames, TextHead, prompt_templates
from bench.registry import protocols
from tests.made import NAMES, by_name, made_dataset, made_spec

PROTOCOL = protocols["transfer"]


def source() -> Dataset:
    splits = {"train": [range(80)], "val": [range(80, 120)], "test": [range(120, 160)]}
    return made_dataset((160,), splits=splits, name="Source")


def variant() -> Dataset:
    """Three of the source's classes, in another order and spelling."""
    return made_dataset((30,), ("Cat", "ant", "B_ee"), name="Variant")


def further() -> Dataset:
    """Other classes, two domains, a published test split, prompts of its own."""
    splits = {"train": [range(10), range(10)], "test": [range(10, 20), range(10, 24)]}
    made = made_dataset((20, 24), ("oak", "pine", "ant"), splits=splits, name="Further")
    return replace(made, templates=("a picture of {}, a type of plant.",))


def task(*others: Dataset, **changes: Any) -> Any:
    spec = made_spec("transfer", dataset="Source", transfer_to=[each.name for each in others], **changes)
    PROTOCOL.check(spec)
    return PROTOCOL.task(PROTOCOL.join([source(), *others]), spec)


def test_domains_are_numbered_through_and_called_by_their_data_sets() -> None:
    joined = PROTOCOL.join([source(), variant(), further()])
    assert [domain.name for domain in joined.domains] == ["Source", "Variant", "Further/d0", "Further/d1"]
    assert (joined.name, joined.class_names) == ("Source", NAMES)


def test_training_is_on_the_first_data_set_and_tests_are_on_all() -> None:
    made = task(variant(), further(), options={"shots": "4"})
    assert [view.name for view in made.train] == ["env0_train"] and made.class_names == NAMES
    assert np.bincount(made.train[0].labels).tolist() == [4] * 8
    assert {name: len(view) for name, view in by_name(made).items()} == {
        "env0_val": 32,
        "env0_id": 40,
        "env1_test": 30,
        "env2_test": 10,
        "env3_test": 14,
    }
    assert by_name(made)["env3_test"].indices.tolist() == list(range(10, 24))  # its published test split


def test_classes_that_were_all_trained_on_are_called_as_they_were() -> None:
    view = by_name(task(variant()))["env1_test"]
    assert view.class_names == ("cat", "ant", "bee")
    assert view.labels.tolist() == [i % 3 for i in range(30)]


def test_other_classes_keep_their_names_and_prompts(pretrained: Any) -> None:
    names = by_name(task(further()))["env1_test"].class_names
    assert isinstance(names, ClassNames) and names == ("oak", "pine", "ant")
    asked: list[str] = []

    def encode(texts: list[str]) -> Any:
        asked.extend(texts)
        return pretrained.encode_text(texts)

    for prompt, n in (("dataset", 1), ("ensemble7", 8), ("ensemble80", 80)):
        head = TextHead(pretrained, prompt_templates(prompt, ("a photo of a {}.",)), encode)
        asked.clear()
        head.weights(names)
        assert len(asked) == 3 * n
        assert ("a picture of oak, a type of plant." in asked) is (prompt != "ensemble80")
        assert "a photo of a oak." not in asked or prompt == "ensemble80"
        asked.clear()
        head.weights(tuple(names))  # plain names take the prompts of the data set that is trained on
        assert bool(asked) is (prompt != "ensemble80")  # whose prompts are the same for both, and kept
        assert "a picture of oak, a type of plant." not in asked


def test_a_prompt_that_a_method_made_itself_stays(pretrained: Any) -> None:
    head = TextHead(pretrained, ("{}",), pretrained.encode_text)
    names = by_name(task(further()))["env1_test"].class_names
    assert np.allclose(head.weights(names).numpy(), head.weights(tuple(names)).numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transfer_to": ()}, "needs --transfer-to"),
        ({"transfer_to": ("Source",)}, "other than Source"),
        ({"transfer_to": ("Variant", "Variant")}, "each once"),
        ({"transfer_to": ("folder:x",)}, "registered data sets"),
    ],
)
def test_what_cannot_be_tested_on_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        PROTOCOL.check(made_spec("transfer", **{"dataset": "Source", **changes}))


def test_there_are_no_unlabelled_images() -> None:
    spec = made_spec("transfer", dataset="Source", transfer_to=("Variant",), algorithm="UEO")
    with pytest.raises(SpecError, match="no unlabelled images, which UEO needs"):
        PROTOCOL.task(PROTOCOL.join([source(), variant()]), spec, needs_unlabeled=True)
