"""Prompts run packed: features and gradients are open_clip's own, whatever is shared, cut or run in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench import packed_text
from bench.models import Backbone, ImageSpec
from bench.packed_text import PackedPrompts, can_pack
from bench.prompts import POSITIONS, PromptLearner, random_context

NAMES = ("dog", "alarm clock", "The Great Wall of China", "t-shirt", "cat", "fire engine", "axe", "a b c d e f g h i")
M = 5


def make(dtype: torch.dtype = torch.float64, quick_gelu: bool = False, **text: Any) -> tuple[Any, Backbone]:
    """Give an open_clip model with CLIP's own context of 77 tokens, small enough for a test, and its backbone."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    given = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3, **text}
    kind = open_clip.CustomTextCLIP if "pool_type" in given else open_clip.CLIP
    model = kind(embed_dim=16, vision_cfg=vision, text_cfg=given, quick_gelu=quick_gelu).eval()
    for weight in model.parameters():  # as large as trained ones: else every layer hardly changes its input
        weight.data *= 3 if weight.dim() == 2 else 1
    model.requires_grad_(False).to(dtype)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    return model, Backbone("small", "random", model, ImageSpec(32, (0.0,) * 3, (1.0,) * 3), tokenizer)


@pytest.fixture(scope="module")
def plain() -> tuple[Any, Backbone]:
    return make()


@pytest.fixture(scope="module")
def single() -> tuple[Any, Backbone]:
    return make(torch.float32)


def name_length(tokenizer: Any, name: str) -> int:
    return int(tokenizer([name])[0].argmax()) - 1


def published(model: Any, context: Tensor, names: tuple[str, ...], position: str) -> Tensor:
    """Encode all 77 tokens of every class with open_clip, the context put in behind its token embedding (CoOp's way)."""
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    n_ctx = context.shape[-2]
    tokens = tokenizer([" ".join(["X"] * n_ctx) + f" {name}." for name in names])
    each = context.expand(len(names), -1, -1) if context.dim() == 2 else context

    def put_in(_: Any, __: Any, embedded: Tensor) -> Tensor:
        rows = []
        for row, vectors, name in zip(embedded, each, names, strict=True):
            words = row[1 + n_ctx :][: name_length(tokenizer, name)]
            rest = row[1 + n_ctx + len(words) :]
            first = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
            rows.append(torch.cat([row[:1], vectors[:first], words, vectors[first:], rest]))
        return torch.stack(rows)

    holder = model if hasattr(model, "token_embedding") else model.text
    hook = holder.token_embedding.register_forward_hook(put_in)
    try:
        return model.encode_text(tokens)  # type: ignore[no-any-return]
    finally:
        hook.remove()


def gradient(features: Tensor, context: Tensor) -> Tensor:
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(5))
    return torch.autograd.grad((torch.nn.functional.normalize(features, dim=-1) * weights).sum(), context)[0]


def assert_as_published(model: Any, backbone: Backbone, position: str, *, csc: bool, tolerance: float = 1e-9) -> None:
    """Compare with open_clip, in double precision unless the model is of another."""
    torch.manual_seed(1)
    context = random_context(backbone, M, len(NAMES) if csc else None).to(model.logit_scale.dtype) * 30
    prompts = PromptLearner(backbone, NAMES, context, position)
    expected = published(model, prompts.context, NAMES, position)
    features = prompts()
    assert expected.std(dim=0).min() > 1e-3  # classes differ
    torch.testing.assert_close(features, expected, rtol=0, atol=tolerance)
    slope = gradient(expected, prompts.context)
    torch.testing.assert_close(
        gradient(features, prompts.context), slope, rtol=0, atol=tolerance * float(slope.abs().max())
    )
    torch.testing.assert_close(prompts.encode(NAMES), expected.detach().float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize("position", POSITIONS)
def test_features_and_gradients_are_open_clips(plain: tuple[Any, Backbone], position: str, csc: bool) -> None:
    assert can_pack(plain[1].text)
    assert_as_published(*plain, position, csc=csc)


def test_in_single_precision_they_differ_in_the_last_digits_only(single: tuple[Any, Backbone]) -> None:
    assert_as_published(*single, "end", csc=False, tolerance=1e-5)


@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("room", [1, 10])
def test_blocks_of_classes_change_neither(
    plain: tuple[Any, Backbone], position: str, csc: bool, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_text, "MEMORY", room * packed_text.SAVED * 4 * 32 * 3)
    learner = PromptLearner(plain[1], NAMES, random_context(plain[1], M), position)
    assert learner._training._packed is not None and len(learner._training._packed.blocks) > 1
    assert_as_published(*plain, position, csc=csc)


@pytest.mark.parametrize(
    "text",
    [
        {"quick_gelu": True},
        {"pool_type": "eos", "eos_id": 49407, "proj_bias": True},
        {"pool_type": "argmax", "proj_type": "none", "width": 16},
        {"ls_init_value": 0.5},
        {"layers": 1},
        {"qk_norm": True, "pool_type": "argmax"},
    ],
)
def test_other_towers_are_encoded_as_exactly(text: dict[str, Any]) -> None:
    model, backbone = make(**text)
    assert can_pack(backbone.text) == ("qk_norm" not in text)
    assert_as_published(model, backbone, "end", csc=False)


def test_padding_and_shared_tokens_are_not_run(plain: tuple[Any, Backbone], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer sees start and context once, and the own tokens of every class up to end-of-text."""
    seen: list[int] = []
    tower = plain[1].text
    hook = tower.transformer.resblocks[0].ln_1.register_forward_hook(lambda *each: seen.append(len(each[1][0])))
    learner = PromptLearner(plain[1], NAMES, random_context(plain[1], M))
    learner()
    hook.remove()
    own = sum(name_length(plain[1]._tokenizer, name) + 2 for name in NAMES)
    assert seen == [1 + M + own]


def test_kept_activations_do_not_grow_with_the_number_of_classes(
    plain: tuple[Any, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_text, "MEMORY", 200 * packed_text.SAVED * 4 * 32 * 3)
    context = random_context(plain[1], M)

    def kept(n_classes: int) -> int:
        learner = PromptLearner(plain[1], tuple(f"thing {i}" for i in range(n_classes)), context)
        found: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = learner()
        features.sum().backward()
        weights = {each.untyped_storage().data_ptr() for each in plain[1].text.parameters()}
        return sum(size for place, size in found.items() if place not in weights)

    few, many = kept(40), kept(640)
    assert few < 2 * packed_text.MEMORY
    assert many - few < 0.25 * 16 * few  # the classes are sixteen times as many; what grows is their features alone


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(3, 12), min_size=1, max_size=9), st.integers(1, 3), st.integers(1, 40))
def test_prompts_of_any_lengths_are_read_out_at_their_ends(lengths: list[int], n_shared: int, room: int) -> None:
    torch.manual_seed(2)
    tower = PLAIN[1].text
    ends = torch.tensor(lengths)
    x = torch.randn(1, 20, 32, dtype=torch.float64).repeat(len(lengths), 1, 1)
    x[:, n_shared:] = torch.randn(len(lengths), 20 - n_shared, 32)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(packed_text, "MEMORY", room * packed_text.SAVED * 4 * 32 * 3)
        packed = PackedPrompts(tower, ends, n_shared)
        own = x[:, n_shared : max(lengths) + 1]
        torch.testing.assert_close(packed(x[0, :n_shared], own), tower.from_embeddings(x, ends), rtol=0, atol=1e-9)
    rows = sum(int(prompts) for block in packed.blocks for prompts, _ in block.groups)
    assert rows == len(lengths)


PLAIN = make()


@pytest.mark.parametrize("position", POSITIONS)
def test_bf16_is_close_and_its_gradient_points_the_same_way(pretrained: Any, position: str) -> None:
    torch.manual_seed(1)
    prompts = PromptLearner(pretrained, NAMES, random_context(pretrained, M), position)
    exact = prompts()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lower, again = prompts(), prompts()
    assert torch.equal(lower, again) and not torch.equal(lower.float(), exact)
    similar = torch.nn.functional.cosine_similarity
    assert similar(lower.float(), exact, dim=-1).min() > 0.999
    slope, expected = (gradient(features.float(), prompts.context).flatten() for features in (lower, exact))
    assert similar(slope, expected, dim=0) > 0.98


def test_towers_that_see_later_tokens_are_not_cut_nor_prompted(make_setup: Callable[..., Any]) -> None:
    from bench.errors import SpecError

    model, backbone = make(no_causal_mask=True, pool_type="argmax")
    tokens = backbone.tokenize(["a dog", "a photo of a cat"])
    ends = backbone.text.end_positions(tokens)
    assert backbone.text.needed(ends, 77) == 77 and not can_pack(backbone.text)
    torch.testing.assert_close(backbone.text(tokens), model.encode_text(tokens), rtol=0, atol=1e-5)
    with pytest.raises(SpecError, match="cannot learn prompts"):
        PromptLearner(backbone, NAMES, random_context(backbone, M))
    assert make()[1].text.needed(ends, 77) == int(ends.max()) + 1


def test_text_towers_with_a_token_of_their_own_are_refused() -> None:
    from bench.errors import SpecError
    from bench.text_tower import text_tower

    with torch.device("meta"), pytest.raises(SpecError, match="not supported"):
        text_tower(open_clip.create_model("coca_ViT-B-32", device="meta"))
