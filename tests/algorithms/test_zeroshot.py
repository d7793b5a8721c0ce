"""ZeroShot against its definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from bench.algorithms.zeroshot import ZeroShot
from bench.hparams import resolve
from bench.models import TextHead

NAMES = ("dog", "guitar", "house")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(6, 3, 96, 96, generator=torch.Generator().manual_seed(3))


def test_logits_are_scaled_cosines(make_setup: Callable[..., Any], pretrained: Any, images: torch.Tensor) -> None:
    texts = pretrained.encode_text([f"a photo of a {name}." for name in NAMES])
    with torch.no_grad():
        features = pretrained.visual(images)
    cosines = functional.cosine_similarity(features[:, None], texts[None], dim=-1)
    logits = ZeroShot(make_setup(ZeroShot)).predict(images)
    torch.testing.assert_close(logits, pretrained.scale * cosines, rtol=1e-4, atol=1e-4)


def test_it_has_no_steps_whatever_the_data_set() -> None:
    assert {ZeroShot.steps.default_for(dataset, "tiny") for dataset in ("PACS", "DomainNet", "Icons")} == {0}


def test_it_keeps_no_optimizer_and_trains_nothing(make_setup: Callable[..., Any]) -> None:
    assert ZeroShot(make_setup(ZeroShot)).state_dict() == {"updates": 0, "parts": {}}


def test_its_features_are_the_cached_ones(make_setup: Callable[..., Any]) -> None:
    [(label, predictor)] = ZeroShot(make_setup(ZeroShot)).predictors(final=True)
    assert label == "" and predictor.tower is None


def test_rows_have_unit_norm_with_one_template_and_with_several(pretrained: Any) -> None:
    for templates in (["a photo of a {}."], ["a photo of a {}.", "a sketch of a {}.", "art of the {}."]):
        rows = TextHead(pretrained, templates).weights(NAMES)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))


def test_an_ensemble_of_one_template_twice_is_that_template(pretrained: Any) -> None:
    single = TextHead(pretrained, ["a photo of a {}."]).weights(NAMES)
    double = TextHead(pretrained, ["a photo of a {}."] * 2).weights(NAMES)
    torch.testing.assert_close(double, single)


def test_permuting_the_classes_permutes_the_logits(make_setup: Callable[..., Any], images: torch.Tensor) -> None:
    zero_shot = ZeroShot(make_setup(ZeroShot))
    turned = zero_shot.predict(images, ("house", "dog", "guitar"))
    torch.testing.assert_close(turned, zero_shot.predict(images)[:, [2, 0, 1]])


@pytest.mark.parametrize(("prompt", "n_templates"), [("dataset", 1), ("ensemble7", 8), ("ensemble80", 80)])
def test_prompt_chooses_the_templates(make_setup: Callable[..., Any], prompt: str, n_templates: int) -> None:
    assert len(ZeroShot(make_setup(ZeroShot, prompt=prompt)).head.templates) == n_templates


def test_random_search_leaves_it_as_it_is() -> None:
    values = [
        resolve(ZeroShot.hparams, dataset="PACS", backbone="tiny", hparams_seed=seed, trial_seed=0) for seed in range(9)
    ]
    assert all(value == values[0] for value in values)
