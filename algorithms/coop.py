"""CoOp: learned context vectors in the place of the words before the class name; both towers stay as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench.algorithm import (
    Algorithm,
    Minibatch,
    Predictor,
    Setup,
    batch_size_hparam,
    concatenated,
    lr_hparam,
    switch_hparam,
    training_hparams,
    weight_decay_hparam,
)
from bench.heads import full_precision
from bench.hparams import Hparam
from bench.lazy import functional, torch
from bench.registry import algorithms

if TYPE_CHECKING:
    from torch import Tensor

WARMUP_LR = 1e-5
"""CoOp's constant rate of epoch 0 (`WARMUP_CONS_LR`)."""


def learning_rate(epoch: int, epochs: int, peak: float = 0.002, warmup: float = WARMUP_LR) -> float:
    """Give CoOp's learning rate in 0-based `epoch` of `epochs`: `warmup` in epoch 0, then half a cosine from `peak`.

    The epoch of warm-up does not shorten the cosine, so the last epoch stays above 0 (Dassl `ConstantWarmupScheduler`
    around `CosineAnnealingLR`).
    """
    if epoch == 0:
        return warmup
    return 0.5 * peak * (1 + math.cos(math.pi * (epoch - 1) / epochs))


@algorithms.register("CoOp")
class CoOp(Algorithm):
    """Cross-entropy over the text features of [context 1..M][class name], where only the context vectors learn.

    Paper: Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022, section 3.2. Defaults are those of its
    domain-generalisation runs: M = 16, random N(0, 0.02**2), class name at the end, one context for all classes; SGD
    0.002 with momentum 0.9 and weight decay 5e-4; learning rate 1e-5 in the first epoch, then a cosine by epoch.
    Differs: updates are counted, not epochs, so `epochs` says into how many epochs they are divided for the schedule;
    12 images a domain stand for 32 in all; RandomResizedCrop(0.7-1) as for all methods, not (0.08-1); float32 or bf16,
    not float16; with `csc` a `ctx_init` gives every class a copy of the phrase, where the published code ignores `csc`;
    a word of `ctx_init` that the tokenizer splits has as many vectors as tokens. With augmentation "none" the image
    features come from the cache.
    Run: `python -m bench.sweep launch --algorithms CoOp`; the README's table has the numbers to expect.
    """

    paper = "Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022"
    hparams = {
        **training_hparams(
            lr=lr_hparam(0.002, "CoOp, SGD with momentum 0.9", draw=(-4, -2)),
            weight_decay=weight_decay_hparam(5e-4, "CoOp"),
            batch_size=batch_size_hparam(12, "CoOp has 32 in all"),
        ),
        "n_ctx": Hparam(
            16, "number M of context vectors; a ctx_init has as many as it has words", low=1, overrides={"tiny": 4}
        ),
        "ctx_init": Hparam(
            "", 'first words of the prompt, e.g. "a photo of a"; "template": the data set\'s; empty: random N(0, 0.02²)'
        ),
        "csc": switch_hparam(False, "class-specific context: vectors of its own for every class", False, True),
        "class_token_position": switch_hparam(
            "end", "where the class name stands in the context", "end", "middle", "front"
        ),
        "epochs": Hparam(50, "epochs into which the updates are divided; the learning rate changes with them", low=1),
    }
    del hparams["prompt"]  # the prompt is what is learned
    steps = Hparam(5000, "updates (DISAM's CoOp on DomainBed)", low=0, overrides={"DomainNet": 10000, "tiny": 100})
    starts_zero_shot = False

    def __init__(self, setup: Setup) -> None:
        """Begin at random vectors or at the words of `ctx_init`."""
        from bench.prompts import PromptLearner, initial_phrase, phrase_context, random_context

        super().__init__(setup)
        values = self.values
        n_classes = len(setup.class_names) if values["csc"] else None
        phrase = initial_phrase(values["ctx_init"], setup.templates)
        if phrase:
            context = phrase_context(self.backbone, phrase, n_classes)
        else:
            context = random_context(self.backbone, values["n_ctx"], n_classes)
        position = values["class_token_position"]
        self.prompts: PromptLearner = self.track(
            "prompts", PromptLearner(self.backbone, setup.class_names, context, position, phrase)
        )
        self.optimizer = torch.optim.SGD(
            self.prompts.parameters(), lr=values["lr"], momentum=0.9, weight_decay=values["weight_decay"], fused=True
        )

    @classmethod
    def new_classes_problem(cls, hparams: Mapping[str, Any]) -> str:
        """Say that class-specific context is of the training classes alone."""
        return (
            "class-specific context has nothing for new classes; set the hparam csc to false" if hparams["csc"] else ""
        )

    def set_learning_rates(self) -> None:
        """Set the rate of the epoch that the coming step lies in."""
        assert self.optimizer is not None
        epochs = self.values["epochs"]
        epoch = self.updates * epochs // self.setup.n_steps
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(epoch, epochs, self.values["lr"])

    def loss(self, minibatches: list[Minibatch], unlabeled: list[Minibatch] | None) -> tuple[Tensor, dict[str, Any]]:
        """Give the mean cross-entropy."""
        labels = torch.cat([batch.labels for batch in minibatches])
        images = functional.normalize(self._image_features(minibatches).float(), dim=-1)
        texts = functional.normalize(self.prompts().float(), dim=-1)
        with full_precision(images):
            return functional.cross_entropy(self.backbone.scale * images @ texts.T, labels), {}

    def predictors(self, *, final: bool) -> Iterator[tuple[str, Predictor]]:
        """Yield the learned prompt on the pre-trained image tower."""
        yield "", Predictor(None, self.prompts.head())

    def _image_features(self, minibatches: list[Minibatch]) -> Tensor:
        """Give the frozen features of the batches, from the cache where images are not augmented."""
        if self.values["augmentation"] == "none":
            cached = zip(self._cached_features, minibatches, strict=True)
            return torch.cat([features[batch.positions_on(features.device)] for features, batch in cached])
        return self.backbone.encode_images(concatenated(minibatches)[0], self.values["precision"])

    @cached_property
    def _cached_features(self) -> list[Tensor]:
        return [self.setup.features(view) for view in self.setup.train]
