"""Prompt learning as in CoOp: context vectors that stand where a prompt's first words would, and what they encode to.

Owns how prompts are laid out and where they are read out; what is trained, and how, is each method's. A prompt has the
context length L of the backbone (77 for CLIP), of which M are context vectors:

    end     [SOS][context 1..M][name][. EOT pad]
    middle  [SOS][context 1..M/2][name][context M/2+1..M][. EOT pad]
    front   [SOS][name][context 1..M][. EOT pad]

Imports torch: plug-ins import this inside their functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.errors import SpecError
from bench.models import Backbone, TextHead
from bench.packed_text import PackedPrompts, can_pack
from bench.text_tower import TextTower

POSITIONS = ("end", "middle", "front")
"""Where the class name may stand."""

FALLBACK_PHRASE = "a photo of a"
"""The words before the class name in CLIP's prompt, with which CoOp and UEO initialise."""


class ClassTokens(NamedTuple):
    """The fixed part of the prompts of K classes.

    Attributes:
        embeddings: (K, L - M, w) of [SOS][name . EOT pad], without positions.
        ends: (K,) position of EOT in the full prompt, wherever the class name stands.
        order: (K, L) places in [SOS][context][name . EOT pad] from which the layout takes its tokens; None at "end",
            where that is the layout.
    """

    embeddings: Tensor
    ends: Tensor
    order: Tensor | None

    def cut(self, n_ctx: int) -> ClassTokens:
        """Drop what lies behind the last EOT; exact, since attention is causal, and several times faster."""
        length = int(self.ends.max()) + 1
        order = None if self.order is None else self.order[:, :length]
        return ClassTokens(self.embeddings[:, : length - n_ctx].contiguous(), self.ends, order)

    @property
    def first(self) -> ClassTokens:
        """Give the first class alone."""
        return ClassTokens(self.embeddings[:1], self.ends[:1], None if self.order is None else self.order[:1])


def random_context(backbone: Backbone, n_ctx: int, n_classes: int | None = None) -> Tensor:
    """Draw context vectors from N(0, 0.02²): (M, w), or with `n_classes` one set for each class, (K, M, w).

    CoOp's default. Drawn on the CPU, so that every device gets the same.
    """
    width = backbone.text.token_embedding.weight.shape[1]
    shape = (n_ctx, width) if n_classes is None else (n_classes, n_ctx, width)
    return torch.empty(shape).normal_(std=0.02).to(backbone.device)


def phrase_context(backbone: Backbone, phrase: str, n_classes: int | None = None) -> Tensor:
    """Take the word embeddings of `phrase` as context: (M, w), or with `n_classes` a copy for each class, (K, M, w).

    M is the number of tokens. For phrases of common words that is CoOp's number of words; of a word that the tokenizer
    splits, CoOp would learn the first token only.

    Raises:
        SpecError: the phrase has no words.
    """
    tokens = backbone.tokenize([phrase.replace("_", " ")])
    end = int(backbone.text.end_positions(tokens))
    if end < 2:
        raise SpecError(f"ctx_init={phrase!r} has no words to begin with; give some, e.g. {FALLBACK_PHRASE!r}")
    context = backbone.text.embed(tokens)[0, 1:end].detach().clone()
    return context if n_classes is None else context.expand(n_classes, -1, -1).clone()


def initial_phrase(ctx_init: str, templates: Sequence[str]) -> str:
    """Resolve `ctx_init`: "template" means the words of the first template of the form "<words> {}.".

    Where no template has that form it is "a photo of a"; every other `ctx_init` means itself.
    """
    if ctx_init != "template":
        return ctx_init
    fitting = [template.removesuffix(" {}.") for template in templates if template.endswith(" {}.")]
    return fitting[0] if fitting else FALLBACK_PHRASE


def class_tokens(backbone: Backbone, class_names: Sequence[str], n_ctx: int, position: str = "end") -> ClassTokens:
    """Lay out the prompts of `class_names` around `n_ctx` context vectors.

    Raises:
        SpecError: a prompt does not fit into the backbone's context, or its text tower cannot be prompted.
    """
    _check_tower(backbone)
    tokens = backbone.tokenize([f"{name}." for name in class_names])
    length = tokens.shape[1]
    ends = backbone.text.end_positions(tokens) + n_ctx
    longest = int(ends.argmax())
    if int(ends[longest]) >= length:
        raise SpecError(
            f"{n_ctx} context vectors leave the class name {class_names[longest]!r} no room: {backbone.name} reads "
            f"{length} tokens the name takes {int(ends[longest]) + 1 - n_ctx} or more of them (with start, full stop "
            "and end); lower the hparam n_ctx or give a shorter ctx_init"
        )
    with torch.no_grad():
        embeddings = backbone.text.embed(tokens)[:, : length - n_ctx]
    if position == "end":
        return ClassTokens(embeddings, ends, None)
    # The name's own tokens; its full stop stays behind the context.
    sizes = (backbone.text.end_positions(backbone.tokenize(class_names)) - 1).tolist()
    before = n_ctx // 2 if position == "middle" else 0
    order = torch.tensor([_order(length, n_ctx, size, before) for size in sizes], device=backbone.device)
    return ClassTokens(embeddings, ends, order)


def _order(length: int, n_ctx: int, n_name: int, before: int) -> list[int]:
    """Permute [SOS][context][name . EOT pad] so that `before` context vectors come before the name."""
    name = range(1 + n_ctx, 1 + n_ctx + n_name)
    return [*range(1 + before), *name, *range(1 + before, 1 + n_ctx), *range(name.stop, length)]


def _check_tower(backbone: Backbone) -> None:
    text: TextTower = backbone.text
    if text.pool == "last" or not text.is_causal:
        raise SpecError(
            f"the text tower of {backbone.name} cannot learn prompts: CoOp's layout needs causal attention and a "
            "read-out at the end-of-text token (as CLIP's); choose another backbone or method"
        )


class PromptLearner(nn.Module):
    """Context vectors, the only parameter, and the text features of the prompts that they begin.

    Attributes:
        context: (M, w) shared by all classes, or (K, M, w) one for each class.
        class_names: the K training classes.
        position: where the class name stands, one of `POSITIONS`.
        phrase: the words that the context began as; "" where it began at random.
    """

    def __init__(
        self,
        backbone: Backbone,
        class_names: tuple[str, ...],
        context: Tensor,
        position: str = "end",
        phrase: str = "",
    ) -> None:
        """Begin at `context`.

        Raises:
            SpecError: a prompt does not fit into the backbone's context.
        """
        super().__init__()
        self.context = nn.Parameter(context)
        self.class_names = class_names
        self.position = position
        self.phrase = phrase
        self._backbone = backbone
        self._training = _Prompts(backbone, class_names, self.n_ctx, position, is_generic=context.dim() == 2)

    @property
    def n_ctx(self) -> int:
        """Number M of context vectors in a prompt."""
        return self.context.shape[-2]

    def forward(self) -> Tensor:
        """Give the text features (K, d) of the training classes, not normalised, with gradient to the context."""
        return self._training.features(self.contexts(self.class_names))

    def encode(self, class_names: Sequence[str]) -> Tensor:
        """Give the text features (K, d) of any classes, not normalised, without gradient.

        Where the prompts still are words, the features are those of `Backbone.encode_text`, to the bit.

        Raises:
            SpecError: the context is class-specific and a class was not trained on.
        """
        with torch.no_grad(), torch.autocast(self._backbone.device.type, enabled=False):
            contexts = self.contexts(class_names)
            if texts := self._as_texts(contexts, class_names):
                return self._backbone.encode_text(texts)
            prompts = _Prompts(
                self._backbone, class_names, self.n_ctx, self.position, is_generic=self.context.dim() == 2
            )
            return prompts.features(contexts).float()

    def head(self) -> TextHead:
        """Give the classifier with the context as it is now; its rows are computed once for each set of class names."""
        return TextHead(self._backbone, ("{}",), self.encode)

    def contexts(self, class_names: Sequence[str]) -> Tensor:
        """Give the context of each class, (K, M, w).

        Raises:
            SpecError: the context is class-specific and a class was not trained on.
        """
        if self.context.dim() == 2:
            return self.context.expand(len(class_names), -1, -1)
        if tuple(class_names) == tuple(self.class_names):
            return self.context
        rows = {name: row for row, name in reversed([*enumerate(self.class_names)])}  # of equal names the first
        new = [name for name in class_names if name not in rows]
        if new:
            raise SpecError(
                f"class-specific context has nothing for classes it was not trained on ({', '.join(map(repr, new))}); "
                "set the hparam csc to false to predict new classes"
            )
        return self.context[[rows[name] for name in class_names]]

    def _as_texts(self, contexts: Tensor, class_names: Sequence[str]) -> list[str]:
        """Give the prompts as words where they are nothing but those of `phrase` and class name; else nothing."""
        if not self.phrase:
            return []
        texts = [f"{self.phrase} {name}." for name in class_names]
        words = self._backbone.text.embed(self._backbone.tokenize(texts))
        tokens = class_tokens(self._backbone, class_names, self.n_ctx, self.position)
        return texts if torch.equal(prompt_embeddings(contexts, tokens), words) else []


class _Prompts:
    """The prompts of K classes, laid out once: what of them is fixed, and how they are run."""

    def __init__(
        self, backbone: Backbone, class_names: Sequence[str], n_ctx: int, position: str, *, is_generic: bool
    ) -> None:
        self._tower: TextTower = backbone.text
        self._tokens = class_tokens(backbone, class_names, n_ctx, position).cut(n_ctx)
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        n_shared = 1 + before if is_generic else 1
        self._packed = PackedPrompts(self._tower, self._tokens.ends, n_shared) if can_pack(self._tower) else None
        # Behind a context that all classes share there is nothing that learns.
        self._fixed = self._tokens.embeddings[:, 1:].contiguous() if n_shared == 1 + n_ctx else None

    def features(self, contexts: Tensor) -> Tensor:
        """Give the features (K, d) of the prompts with `contexts` (K, M, w), not normalised."""
        if self._packed is None:
            return self._tower.from_embeddings(prompt_embeddings(contexts, self._tokens), self._tokens.ends)
        p = self._packed.n_shared
        shared = prompt_embeddings(contexts[:1], self._tokens.first)[0, :p]
        own = prompt_embeddings(contexts, self._tokens)[:, p:] if self._fixed is None else self._fixed
        return self._packed(shared, own)


def prompt_embeddings(contexts: Tensor, tokens: ClassTokens) -> Tensor:
    """Put contexts (K, M, w) into the prompts: embeddings (K, L, w) without positions, or (K, L', w) of cut tokens."""
    fixed = tokens.embeddings
    prompts = torch.cat([fixed[:, :1], contexts, fixed[:, 1:]], dim=1)
    if tokens.order is None:
        return prompts
    return prompts.take_along_dim(tokens.order[:, :, None], dim=1)
