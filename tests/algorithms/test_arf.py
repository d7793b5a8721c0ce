"""ARF: the contrastive loss, retrieval, FLYP as a special case, anchors, and the classifier of the tuned text tower."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from bench.algorithm import Minibatch
from bench.algorithms.arf import ARF, info_nce, retrieve
from bench.algorithms.zeroshot import ZeroShot
from bench.errors import DataMissing, SpecError

Make = Callable[..., ARF]


@pytest.fixture
def make(make_setup: Callable[..., Any]) -> Make:
    """Build ARF with captions from the set-up, unless `hparams` say otherwise; `setup` replaces fields of it."""

    def build(setup: dict[str, Any] | None = None, **hparams: Any) -> ARF:
        torch.manual_seed(1)
        made = make_setup(ARF, **{"captions": "file", "warmup": 0, **hparams})
        return ARF(dataclasses.replace(made, **(setup or {})))

    return build


@pytest.fixture
def step(make_batches: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Make update number `number` as the harness does."""

    def update(arf: ARF, number: int = 0) -> dict[str, Any]:
        torch.manual_seed(100 + number)
        return arf.update(make_batches(number)[0])

    return update


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(8, 3, 96, 96, generator=torch.Generator().manual_seed(3))


def _refuse(*_: Any) -> Any:
    raise AssertionError("must not be asked for")


def _random_pairs(seed: int, n: int = 6, d: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return made[0], made[1]


# --- the loss


def test_info_nce_gives_the_value_of_the_fact_sheet() -> None:
    image = torch.tensor([(1.0, 0.0), (0.0, 1.0), (0.6, 0.8)])
    text = torch.tensor([(1.0, 0.0), (0.6, 0.8), (0.0, 1.0)])
    assert info_nce(image, text, 10.0).item() == pytest.approx(1.4293647, abs=1e-6)
    assert info_nce(3 * image, 0.1 * text, 10.0).item() == pytest.approx(1.4293647, abs=1e-6), "any norm"


@settings(deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(6)))
def test_info_nce_does_not_depend_on_the_order_of_pairs_or_which_side_is_which(seed: int, order: list[int]) -> None:
    image, text = _random_pairs(seed)
    loss = info_nce(image, text, 7.0)
    torch.testing.assert_close(info_nce(image[order], text[order], 7.0), loss)
    torch.testing.assert_close(info_nce(text, image, 7.0), loss)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_groups_change_nothing_where_their_texts_are_equal_or_they_are_single(seed: int, groups: list[int]) -> None:
    image, text = _random_pairs(seed)
    torch.testing.assert_close(info_nce(image, text, 7.0, torch.arange(6)), info_nce(image, text, 7.0))
    same = text[groups]
    torch.testing.assert_close(info_nce(image, same, 7.0, torch.tensor(groups)), info_nce(image, same, 7.0))


def test_groups_spread_the_target_over_all_their_pairs() -> None:
    image, text = _random_pairs(0, n=3)
    logits = 7.0 * functional.normalize(image, dim=-1) @ functional.normalize(text, dim=-1).T
    targets = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    rows, columns = (-(targets * each.log_softmax(dim=1)).sum(dim=1).mean() for each in (logits, logits.T))
    torch.testing.assert_close(info_nce(image, text, 7.0, torch.tensor([4, 4, 9])), (rows + columns) / 2)


def test_info_nce_is_in_float32_under_autocast() -> None:
    image, text = (each.float() for each in _random_pairs(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(image, text, 100.0)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, info_nce(image, text, 100.0))


# --- retrieval


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.lists(st.integers(0, 3), min_size=3, max_size=9),
    st.integers(1, 3),
    st.sampled_from((1, 7, 2**24)),
)
def test_retrieval_equals_brute_force_with_ties(queries: list[int], pool: list[int], k: int, block: int) -> None:
    axes = torch.cat([torch.eye(2), -torch.eye(2)])  # cosines -1, 0 and 1 exactly, so most are ties
    similarity = (axes[queries] @ axes[pool].T).tolist()
    expected = [sorted(range(len(pool)), key=lambda i, row=row: (-row[i], i))[:k] for row in similarity]
    assert retrieve(2 * axes[queries], 3 * axes[pool], k, block).tolist() == expected


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_retrieval_equals_brute_force_on_features(seed: int, k: int) -> None:
    queries, pool = _random_pairs(seed, n=9)
    cosines = functional.cosine_similarity(queries[:, None], pool[None], dim=-1)
    assert torch.equal(retrieve(queries, pool, k, block=20), cosines.argsort(dim=1, descending=True)[:, :k])


def test_anchors_are_the_nearest_pairs_of_the_minibatch_each_once(make: Make, make_batches: Callable[..., Any]) -> None:
    arf = make()
    assert arf.pool is not None
    pool = functional.normalize(arf.pool.features(), dim=-1)
    expected = set()
    for view, batch in zip(arf.setup.train, make_batches(0)[0], strict=True):
        features = functional.normalize(arf.setup.features(view)[batch.positions], dim=-1)
        expected |= set((features @ pool.T).argmax(dim=1).tolist())
    assert arf._anchors_of(make_batches(0)[0], arf.pool).tolist() == sorted(expected)


def test_k_pairs_are_drawn_from_in_time(make: Make, make_batches: Callable[..., Any]) -> None:
    arf = make(k=3)
    assert arf.pool is not None
    allowed = {
        i
        for anchors, batch in zip(arf.anchors, make_batches(0)[0])
        for i in anchors[batch.positions].flatten().tolist()
    }
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        seen |= set(arf._anchors_of(make_batches(0)[0], arf.pool).tolist())
    assert seen == allowed
    assert [anchors.shape for anchors in arf.anchors] == [(12, 3)] * 3


def test_random_retrieval_is_another_training_over_the_whole_pool(
    make: Make, step: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    nearest, random = make(), make(retrieval="random", setup={"features": _refuse})
    assert random.pool is not None
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        drawn = random._anchors_of(make_batches(0)[0], random.pool).tolist()
        assert len(set(drawn)) == len(drawn) == 12, "as many as images, each once"
        seen |= set(drawn)
    assert seen == set(range(20))
    step(nearest), step(random)
    assert not torch.equal(
        nearest.visual.state_dict()["trunk.conv_stem.weight"], random.visual.state_dict()["trunk.conv_stem.weight"]
    )


def test_more_neighbours_than_pairs_are_refused(make: Make) -> None:
    with pytest.raises(SpecError, match="k=21 is more than the 20 pairs"):
        make(k=21)


def test_an_empty_pool_stops_the_trial(make: Make) -> None:
    def empty() -> Any:
        raise DataMissing("the anchor pool is empty")

    with pytest.raises(DataMissing, match="empty"):
        make(setup={"pool": empty})


def test_only_training_views_are_asked_about(
    make: Make, step: Callable[..., Any], make_setup: Callable[..., Any]
) -> None:
    asked: list[Any] = []
    plain = make_setup(ARF)

    def features(view: Any) -> torch.Tensor:
        asked.append(view.name)
        made: torch.Tensor = plain.features(view)
        return made

    def captions(view: Any) -> Any:
        asked.append(view.name)
        return plain.captions(view)

    step(make(setup={"features": features, "captions": captions}))
    assert set(asked) == {view.name for view in plain.train}


# --- FLYP


def _flyp_gradients(pretrained: Any, batches: list[Minibatch], class_names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """FLYP's gradients in the plainest way: a text for every image, at full length."""
    towers = {"visual": copy.deepcopy(pretrained.visual), "text": copy.deepcopy(pretrained.text)}
    scale = torch.tensor(math.log(pretrained.scale), requires_grad=True)
    for tower in towers.values():
        tower.requires_grad_(True)
    labels = torch.cat([batch.labels for batch in batches])
    image = towers["visual"](torch.cat([batch.images for batch in batches]))
    text = towers["text"](pretrained.tokenize([f"a photo of a {class_names[label]}." for label in labels]))
    logits = scale.exp() * functional.normalize(image, dim=-1) @ functional.normalize(text, dim=-1).T
    target = torch.arange(len(labels))
    ((functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2).backward()
    named = {f"{key}.{name}": value.grad for key, tower in towers.items() for name, value in tower.named_parameters()}
    return {**named, "scale": scale.grad}


def test_weights_of_zero_are_flyp_and_touch_neither_captions_nor_pool(
    make: Make, pretrained: Any, make_batches: Callable[..., Any]
) -> None:
    arf = make(w_cap=0.0, w_ret=0.0, setup={"captions": _refuse, "pool": _refuse, "features": _refuse})
    batches = make_batches(0)[0]
    loss, logs = arf.loss(batches, None)
    loss.backward()
    assert list(logs) == ["class_loss"]
    assert arf.notes() == []
    expected = _flyp_gradients(pretrained, batches, arf.setup.class_names)
    assert all(value is not None for value in expected.values())
    found = {f"visual.{name}": value.grad for name, value in arf.visual.named_parameters()}
    found |= {f"text.{name}": value.grad for name, value in arf.text.named_parameters()} | {"scale": arf.log_scale.grad}
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_ablation_switches_equal_weights_of_zero(make: Make, step: Callable[..., Any]) -> None:
    by_weight, by_switch = make(w_cap=0.0, w_ret=0.0), make(captions="none", retrieval="none")
    for number in range(2):
        step(by_weight, number), step(by_switch, number)
    for name, value in by_weight.visual.state_dict().items():
        assert torch.equal(value, by_switch.visual.state_dict()[name]), name


def test_loss_is_the_weighted_sum_of_its_terms(make: Make, step: Callable[..., Any]) -> None:
    logs = step(make(w_cap=0.5, w_ret=2.0))
    expected = logs["class_loss"] + 0.5 * logs["caption_loss"] + 2 * logs["retrieval_loss"]
    torch.testing.assert_close(logs["loss"], expected)


def test_both_towers_and_the_scale_are_trained(make: Make, step: Callable[..., Any], pretrained: Any) -> None:
    arf = make()
    step(arf)
    for tuned, start in ((arf.visual, pretrained.visual), (arf.text, pretrained.text)):
        assert any(not torch.equal(a, b) for a, b in zip(tuned.parameters(), start.parameters(), strict=True))
    assert arf.log_scale.item() != pytest.approx(math.log(pretrained.scale), abs=1e-7)


def test_logit_scale_stays_at_100_or_below(make: Make, step: Callable[..., Any]) -> None:
    arf = make()
    with torch.no_grad():
        arf.log_scale.fill_(5.0)
    step(arf)
    assert arf.log_scale.exp().item() == pytest.approx(100, rel=1e-5)


def test_multi_positive_matters_with_several_templates_only(make: Make, step: Callable[..., Any]) -> None:
    def class_loss(templates: tuple[str, ...], on: bool) -> float:
        arf = make(captions="none", retrieval="none", multi_positive=on, setup={"templates": templates})
        return float(step(arf)["class_loss"])

    one = ("a photo of a {}.",)
    assert class_loss(one, True) == pytest.approx(class_loss(one, False), rel=1e-5)
    several = (*one, "a drawing of the small {}.", "itap of a {}.", "a {} in a video game.")
    assert class_loss(several, True) != pytest.approx(class_loss(several, False), rel=1e-3)


# --- captions


def test_missing_captions_are_refused_with_what_to_do(make: Make) -> None:
    with pytest.raises(SpecError, match=r'bench\.caption.*\{"captions": "template"\}'):
        make(setup={"captions": lambda view: None})


def test_template_captions_are_made_of_class_and_domain_and_noted(make: Make, step: Callable[..., Any]) -> None:
    arf = make(captions="template", setup={"captions": lambda view: None, "domain_names": ("art", "cartoon", "photo")})
    assert arf.captions[1][:3] == [
        "a picture of a dog, cartoon",
        "a picture of a guitar, cartoon",
        "a picture of a house, cartoon",
    ]
    assert "caption_loss" in step(arf)
    assert arf.notes()[0] == "ARF: captions made from class and domain name, not by a captioner"
    assert make(captions="template").notes()[0].endswith("(the data set's captions were not used)")


def test_notes_name_the_pool(make: Make) -> None:
    captions, pool = make().notes()
    assert re.fullmatch("ARF: captions [0-9a-f]{8} from a file", captions)
    assert pool == "ARF: nearest pairs of the builtin pool of 20 pairs"
    assert make(retrieval="random").notes()[1:] == ["ARF: random pairs of the builtin pool of 20 pairs"]


def test_captions_belong_to_the_images_of_the_minibatch(make: Make, make_batches: Callable[..., Any]) -> None:
    arf = make()
    batches = make_batches(0)[0]
    expected = [arf.setup.captions(view)[i] for view, batch in zip(arf.setup.train, batches) for i in batch.positions]
    assert arf._captions_of(batches) == expected


# --- predictors


def test_classifier_is_made_of_the_tuned_text_tower(make: Make, step: Callable[..., Any], images: torch.Tensor) -> None:
    arf = make(lr=1e-3)
    for number in range(2):
        step(arf, number)
    names = arf.setup.class_names
    with torch.no_grad():
        text = arf.text(arf.backbone.tokenize([f"a photo of a {name}." for name in names]))
        image = arf.visual(images)
    expected = arf.log_scale.exp() * functional.normalize(image, dim=-1) @ functional.normalize(text, dim=-1).T
    torch.testing.assert_close(arf.predict(images), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        frozen = functional.normalize(arf.backbone.encode_text([f"a photo of a {name}." for name in names]), dim=-1)
    assert not torch.allclose(functional.normalize(text, dim=-1), frozen, atol=1e-3)


def test_step_0_equals_zero_shot_to_the_bit(make: Make, make_setup: Callable[..., Any], images: torch.Tensor) -> None:
    assert torch.equal(make().predict(images), ZeroShot(make_setup(ZeroShot)).predict(images))


def test_half_way_predictor_lies_between_both_ends(make: Make, step: Callable[..., Any]) -> None:
    arf = make(lr=1e-3)
    step(arf)
    main, half = arf.predictors(final=True)
    assert (main[0], half[0]) == ("", "alpha=0.5")
    assert half[1].tower is not None
    for name, value in half[1].tower.named_parameters():
        ends = arf.visual.get_parameter(name), arf.backbone.visual.get_parameter(name)
        torch.testing.assert_close(value, (ends[0] + ends[1]) / 2, rtol=1e-4, atol=1e-6)
