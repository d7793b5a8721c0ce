"""WiSE-FT: fine-tune end to end, then interpolate between the zero-shot and the fine-tuned weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bench.algorithm import (
    Algorithm,
    Minibatch,
    Predictor,
    Setup,
    concatenated,
    cosine,
    lr_hparam,
    switch_hparam,
    training_hparams,
    weight_decay_hparam,
)
from bench.averaging import interpolate_
from bench.heads import LinearHead, full_precision
from bench.hparams import Hparam, choice, power_of_two
from bench.lazy import functional, torch
from bench.models import TextHead, prompt_templates
from bench.registry import algorithms

if TYPE_CHECKING:
    from torch import Tensor, nn

GRID = tuple(tenth / 10 for tenth in range(11))
"""Mixing coefficients of the further predictors (the paper's figures use this grid)."""


@algorithms.register("WiSE-FT")
class WiSEFT(Algorithm):
    """Weight-space ensemble: theta_a = (1 - a) theta_zero-shot + a theta_fine-tuned, over encoder and head alike.

    Paper: Wortsman et al., Robust Fine-Tuning of Zero-Shot Models, CVPR 2022, equation 1 and section 3
    ("end-to-end"): the head W f/|f| + b starts as scale * text features with b = 0 and is trained with the encoder;
    AdamW, gradient norm clipped to 1, linear warm-up and cosine by step. `alpha` = 0.5 is the paper's single
    recommendation and the main row; at the end of training the whole grid is recorded as "WiSE-FT[alpha=0.0]" to
    "WiSE-FT[alpha=1.0]", each mixed from the two end points: alpha=0 is the zero-shot model, alpha=1 the fine-tuned
    one. Every entry of the state is mixed, as in the published code. A class that was not trained on is scored by
    its zero-shot row.

    Differs: the paper's 512 images a step come from the one ImageNet training domain; here DomainBed's 32 from each
    training domain, and a number of updates instead of 10 epochs. `prompt` is the data set's template, so that
    alpha=0 is the row ZeroShot of the same table ("ensemble80" is the paper's). Augmentation is the harness's (the
    paper crops to 0.9-1 of the area and does not flip). A warm-up longer than half of the training is cut to that.
    Run: `python -m bench.sweep launch --algorithms WiSE-FT`; the README's table has the numbers to expect.
    """

    paper = "Wortsman et al., Robust Fine-Tuning of Zero-Shot Models, CVPR 2022"
    hparams = {
        **training_hparams(
            lr=lr_hparam(3e-5, "WiSE-FT README", tiny=5e-5),
            weight_decay=weight_decay_hparam(0.1, "WiSE-FT README"),
            batch_size=Hparam(
                32,
                "images per domain and step (DomainBed; WiSE-FT: 512 in all)",
                power_of_two(3, 5.5),
                low=1,
                overrides={"tiny": 12},
            ),
        ),
        "alpha": Hparam(
            0.5, "share of the fine-tuned weights in the main row (WiSE-FT)", choice(*GRID), low=0.0, high=1.0
        ),
        "grid": switch_hparam(True, "evaluate all of the grid of alpha at the end: ten more evaluations", True, False),
        "warmup": Hparam(500, "updates of linear warm-up (WiSE-FT README)", low=0, overrides={"tiny": 10}),
        "clip_norm": Hparam(1.0, "largest norm of the whole gradient, 0 = no limit (WiSE-FT code)", low=0.0),
        "label_smoothing": Hparam(0.0, "label smoothing (WiSE-FT code)", low=0.0, high=1.0),
    }
    steps = Hparam(5000, "updates (as CLIPood's)", low=0, overrides={"DomainNet": 10000, "tiny": 100})

    def __init__(self, setup: Setup) -> None:
        """Make both end points, the one that is trained, and the place where they are mixed."""
        super().__init__(setup)
        text = TextHead(self.backbone, prompt_templates(self.values["prompt"], setup.templates))
        self.tower: nn.Module = self.track("tower", self.shared("tower", self.backbone.trainable_visual))
        self.head = self.shared("head", lambda: LinearHead(text, setup.class_names))
        self.track("head", self.head.linear)
        self.start_head = self.head.copy()
        self.mixed_tower = self.backbone.trainable_visual().requires_grad_(False)
        self.mixed_head = self.head.copy()
        self.parameters = [*self.tower.parameters(), *self.head.linear.parameters()]
        self.optimizer = self.shared(
            "optimizer",
            lambda: torch.optim.AdamW(
                self.parameters, lr=self.values["lr"], weight_decay=self.values["weight_decay"], fused=True
            ),
        )

    @classmethod
    def training_path(cls, hparams: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Share with every other mixing coefficient, and with ERM (head=zero_shot) where the recipe is the same."""
        rest = {name: value for name, value in hparams.items() if name not in ("alpha", "grid")}
        return {**rest, "loss": "cross-entropy, linear head"}

    def learning_rate_factor(self, step: int) -> float:
        """Rise linearly to 1 at the last step of the warm-up, then fall as a cosine."""
        n_steps = self.setup.n_steps
        return cosine(step, n_steps, min(self.values["warmup"], n_steps // 2))

    def loss(self, minibatches: list[Minibatch], unlabeled: list[Minibatch] | None) -> tuple[Tensor, dict[str, Any]]:
        """Give the cross-entropy over all domains' images."""
        images, labels = concatenated(minibatches)
        logits = self.head(self.tower(images), self.setup.class_names)
        with full_precision(logits):
            return functional.cross_entropy(logits, labels, label_smoothing=self.values["label_smoothing"]), {}

    def before_step(self) -> None:
        """Clip the gradient."""
        if self.values["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.values["clip_norm"])

    def predictors(self, *, final: bool) -> Iterator[tuple[str, Predictor]]:
        """Yield the model mixed by `alpha`, at the end also the whole grid."""
        main = self.mixed(self.values["alpha"])
        yield "", main
        for alpha in GRID if final and self.values["grid"] else ():
            mixed = self.mixed(alpha)
            yield f"alpha={alpha}", main if alpha == self.values["alpha"] else mixed  # the same one is scored once

    def mixed(self, alpha: float) -> Predictor:
        """Mix the end points in place; the last predictor given is overwritten."""
        interpolate_(self.mixed_head.linear, self.start_head.linear, self.head.linear, alpha)
        if alpha in (0, 1):  # the end points themselves, whose features may be at hand
            return Predictor(None if alpha == 0 else self.tower, self.mixed_head)
        interpolate_(self.mixed_tower, self.backbone.visual, self.tower, alpha)
        return Predictor(self.mixed_tower, self.mixed_head)
