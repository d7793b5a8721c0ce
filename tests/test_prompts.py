"""Prompt learning: layouts, exactness against the plain text tower, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.errors import SpecError
from bench.prompts import (
    POSITIONS,
    PromptLearner,
    class_tokens,
    initial_phrase,
    phrase_context,
    prompt_embeddings,
    random_context,
)

NAMES = ("dog", "alarm clock", "The Great Wall of China", "t-shirt")


@pytest.fixture(scope="module")
def long_backbone() -> Any:
    """A random backbone with CLIP's own context of 77 tokens, small enough to build in a test."""
    import open_clip

    from bench.models import Backbone, ImageSpec

    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)
    mean = (0.0, 0.0, 0.0)
    return Backbone("small", "random", model, ImageSpec(32, mean, mean), open_clip.get_tokenizer("ViT-B-32"))


def learner(backbone: Any, position: str = "end", n_ctx: int = 5, names: tuple[str, ...] = NAMES) -> PromptLearner:
    torch.manual_seed(1)
    return PromptLearner(backbone, names, random_context(backbone, n_ctx) * 30, position)


@pytest.mark.parametrize("position", POSITIONS)
def test_prompt_fills_the_context_and_keeps_eot_when_the_name_moves(long_backbone: Any, position: str) -> None:
    n_ctx = 16
    tokens = class_tokens(long_backbone, NAMES, n_ctx, position)
    placeholders = long_backbone.tokenize([" ".join(["X"] * n_ctx) + f" {name}." for name in NAMES])
    prompts = prompt_embeddings(random_context(long_backbone, n_ctx).expand(len(NAMES), -1, -1), tokens)
    assert prompts.shape == (len(NAMES), 77, 32)
    assert tokens.ends.tolist() == placeholders.argmax(dim=-1).tolist()


def test_parts_stand_in_coops_order_when_laid_out(long_backbone: Any) -> None:
    context = torch.arange(5.0)[:, None].expand(5, 32) + 100  # recognisable
    embedded = long_backbone.text.embed(long_backbone.tokenize(["alarm clock."]))[0]
    sos, name, stop, eot = embedded[:1], embedded[1:3], embedded[3:4], embedded[4:5]
    expected = {
        "end": [sos, context, name, stop, eot],
        "middle": [sos, context[:2], name, context[2:], stop, eot],
        "front": [sos, name, context, stop, eot],
    }
    for position, parts in expected.items():
        prompt = prompt_embeddings(context[None], class_tokens(long_backbone, ("alarm clock",), 5, position))[0]
        torch.testing.assert_close(prompt[:10], torch.cat(parts), rtol=0, atol=0)


@pytest.mark.parametrize("phrase", ["a photo of a", "an icon of a", "a flabbergastingly odd photo of the"])
def test_features_equal_encode_text_bit_for_bit_when_the_context_is_a_phrase(pretrained: Any, phrase: str) -> None:
    prompts = PromptLearner(pretrained, NAMES, phrase_context(pretrained, phrase), phrase=phrase)
    expected = pretrained.encode_text([f"{phrase} {name}." for name in NAMES])
    assert torch.equal(prompts.encode(NAMES), expected)
    assert torch.equal(prompts.encode(("a new class",)), pretrained.encode_text([f"{phrase} a new class."]))
    torch.testing.assert_close(prompts().detach(), expected, rtol=0, atol=1e-5)


def test_features_equal_open_clips_when_the_context_is_words() -> None:
    import open_clip

    from bench.models import Backbone, ImageSpec

    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    with torch.no_grad():
        expected = model.encode_text(tokenizer([f"a photo of a {name}." for name in NAMES]))
    backbone = Backbone("small", "random", model, ImageSpec(32, (0.0,) * 3, (1.0,) * 3), tokenizer)
    prompts = PromptLearner(backbone, NAMES, phrase_context(backbone, "a photo of a"))
    torch.testing.assert_close(prompts.encode(NAMES), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("position", ["middle", "front"])
def test_features_equal_encode_text_when_words_form_the_same_sentence(pretrained: Any, position: str) -> None:
    prompts = PromptLearner(pretrained, NAMES, phrase_context(pretrained, "red and painted green"), position)
    sentence = {"middle": "red and {} painted green.", "front": "{} red and painted green."}[position]
    expected = pretrained.encode_text([sentence.format(name) for name in NAMES])
    torch.testing.assert_close(prompts.encode(NAMES), expected, rtol=0, atol=1e-5)


def test_features_are_those_of_the_context_as_it_is_when_it_began_as_words(pretrained: Any) -> None:
    prompts = PromptLearner(pretrained, NAMES, phrase_context(pretrained, "a photo of a"), phrase="a photo of a")
    before = prompts.encode(NAMES)
    with torch.no_grad():
        prompts.context += 0.1 * torch.randn(4, 128)
    assert not torch.allclose(prompts.encode(NAMES), before, atol=1e-3)
    torch.testing.assert_close(prompts.encode(NAMES), prompts().detach(), rtol=0, atol=1e-5)


def test_only_the_context_is_saved_and_trained(pretrained: Any) -> None:
    prompts = learner(pretrained)
    prompts().sum().backward()
    assert list(prompts.state_dict()) == ["context"]
    assert prompts.context.grad is not None
    assert prompts.context.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in pretrained.text.parameters())


def test_class_specific_context_moves_only_its_own_class(pretrained: Any) -> None:
    torch.manual_seed(0)
    prompts = PromptLearner(pretrained, NAMES, random_context(pretrained, 4, len(NAMES)))
    before = prompts.encode(NAMES)
    with torch.no_grad():
        prompts.context[2] = torch.randn(4, 128)
    changed = (prompts.encode(NAMES) - before).abs().amax(dim=1) > 1e-4
    assert changed.tolist() == [False, False, True, False]


def test_class_specific_context_follows_the_name_when_classes_are_a_subset(pretrained: Any) -> None:
    torch.manual_seed(0)
    prompts = PromptLearner(pretrained, NAMES, random_context(pretrained, 4, len(NAMES)))
    subset = ("t-shirt", "dog")
    torch.testing.assert_close(prompts.encode(subset), prompts.encode(NAMES)[[3, 0]], rtol=0, atol=1e-5)
    with pytest.raises(SpecError, match="'cat'"):
        prompts.encode(("dog", "cat"))


def test_shared_context_gives_features_for_classes_that_were_not_trained_on(pretrained: Any) -> None:
    prompts = PromptLearner(pretrained, NAMES, phrase_context(pretrained, "a photo of a"))
    new = ("cat", "fire engine")
    expected = pretrained.encode_text(["a photo of a cat.", "a photo of a fire engine."])
    torch.testing.assert_close(prompts.encode(new), expected, rtol=0, atol=1e-5)


def test_prompt_that_does_not_fit_is_an_error_that_says_how_much_does(pretrained: Any) -> None:
    longest = 32 - 1 - 1 - 2  # beside start, "dog", full stop and end
    assert PromptLearner(pretrained, ("dog",), random_context(pretrained, longest)).n_ctx == longest
    with pytest.raises(SpecError, match=r"n_ctx"):
        PromptLearner(pretrained, ("dog",), random_context(pretrained, longest + 1))
    with pytest.raises(SpecError, match=r"tiny reads 32 tokens"):
        PromptLearner(pretrained, ("dog", "very " * 40 + "long name"), random_context(pretrained, 1))


def test_random_context_has_coops_spread(pretrained: Any) -> None:
    torch.manual_seed(0)
    context = random_context(pretrained, 16, 50)
    assert context.shape == (50, 16, 128)
    assert float(context.std()) == pytest.approx(0.02, rel=0.02)


def test_phrase_context_has_a_vector_for_every_word(pretrained: Any) -> None:
    assert phrase_context(pretrained, "a photo of a").shape == (4, 128)
    assert torch.equal(phrase_context(pretrained, "a_photo_of_a"), phrase_context(pretrained, "a photo of a"))
    assert phrase_context(pretrained, "a photo of a", 3).shape == (3, 4, 128)
    with pytest.raises(SpecError, match="no words"):
        phrase_context(pretrained, " ")


def test_initial_phrase_comes_from_the_template_when_it_ends_with_the_name() -> None:
    assert initial_phrase("template", ("an icon of a {}.",)) == "an icon of a"
    assert initial_phrase("template", ("{} texture.", "a photo of {}.")) == "a photo of"
    assert initial_phrase("template", ("a photo of a {}, a type of pet.",)) == "a photo of a"
    assert initial_phrase("a sketch of the", ("an icon of a {}.",)) == "a sketch of the"


def test_text_tower_without_causal_attention_is_refused(pretrained: Any) -> None:
    from types import SimpleNamespace

    backbone = SimpleNamespace(name="SigLIP", text=SimpleNamespace(pool="last", is_causal=False))
    with pytest.raises(SpecError, match="SigLIP cannot learn prompts"):
        class_tokens(backbone, ("dog",), 4)  # type: ignore[arg-type]
