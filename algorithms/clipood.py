"""CLIPood: fine-tune the image tower with a margin that grows with text distance, and average over the whole path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
from bench.averaging import AveragedTower, half_parameters, interpolate_, round_to_half_, running_shares
from bench.errors import SpecError
from bench.heads import full_precision
from bench.hparams import Hparam, log_uniform, uniform
from bench.lazy import functional, torch
from bench.models import TextHead, prompt_templates
from bench.registry import algorithms

if TYPE_CHECKING:
    from torch import Tensor, nn


def margin_metric_softmax(
    image_features: Tensor, text_features: Tensor, labels: Tensor, scale: float, margin: float
) -> Tensor:
    """Give CLIPood's loss: cross-entropy of z_c = scale * (f.t_c - margin * t_y.t_c), mean over the batch.

    Up to a constant, every negative class gains scale * margin * (1 - t_y.t_c): the margin grows with the distance of
    the class texts. Margin 0 is plain cross-entropy. (Shu et al., ICML 2023, section 3.2.)

    Args:
        image_features: (B, d), of any norm.
        text_features: (K, d), of any norm; row c is class c.
        labels: (B,) int64 in 0..K-1.
        scale: logit scale, 1 / temperature; 100 for CLIP.
        margin: the paper's lambda.
    """
    with full_precision(image_features):
        text = functional.normalize(text_features, dim=-1)
        image = functional.normalize(image_features.to(text.dtype), dim=-1)
        return functional.cross_entropy(scale * (image - margin * text[labels]) @ text.T, labels)


def beta_weights(n_steps: int, beta: float) -> NDArray[np.float64]:
    """Give the weight of every iterate 0..n_steps in the beta moving average; they sum to one.

    Iterate i weighs Beta(beta, beta)'s density at (i + 0.5) / (n_steps + 1): below 1 both ends count most, at 1
    all count the same. (Shu et al., ICML 2023, section 3.3.)

    Raises:
        SpecError: n_steps is negative, or beta is not above 0.
    """
    if n_steps < 0 or not beta > 0:
        raise SpecError(f"beta_weights needs n_steps >= 0 and beta > 0, got n_steps={n_steps!r} and beta={beta!r}")
    x = (np.arange(n_steps + 1) + 0.5) / (n_steps + 1)
    logs = (beta - 1) * (np.log(x) + np.log1p(-x))
    weights = np.exp(logs - logs.max())
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised


@algorithms.register("CLIPood")
class CLIPood(Algorithm):
    """Margin metric softmax (MMS) with a beta moving average (BMA) of the image tower; the text features stay frozen.

    Paper: Shu et al., CLIPood: Generalizing CLIP to Out-of-Distributions, ICML 2023, sections 3.2 (MMS) and 3.3
    (BMA); learning rates, batch and numbers of updates are those of the published scripts.sh for domain shift. The
    average includes the pre-trained weights as iterate 0 and is made in place after every update. The main row is
    the average after the last update, with no selection inside the method; before the end it is the average so
    far. "CLIPood[last]" is the last iterate.

    Ablations: `margin` (none = cross-entropy; constant = scale * margin_lambda for every negative alike) and
    `average` (none, ema, uniform, bma, or wise = the two end points mixed by `wise_alpha`).
    Differs: float32 by default. The published code trains in float16 without a float32 copy, so that small updates
    are lost to rounding; `emulate_fp16` rounds the weights of convolutions, linear layers and attention (not those
    of normalisation, nor embeddings) to float16 after every update and accumulates their average in float16. Its
    activations and gradients stay as `precision` says. Weight decay acts on every parameter, as published. Tests resize
    as the backbone was trained (CLIP: bicubic), the published code bilinearly.
    Run: `python -m bench.sweep launch --algorithms CLIPood`; the README's table has the numbers to expect.
    """

    paper = "Shu et al., CLIPood: Generalizing CLIP to Out-of-Distributions, ICML 2023"
    hparams = {
        **training_hparams(
            lr=lr_hparam(5e-6, "CLIPood scripts.sh", OfficeHome=1e-5, DomainNet=1e-5, tiny=5e-5),
            weight_decay=weight_decay_hparam(0.1, "CLIPood code"),
            batch_size=batch_size_hparam(12, "CLIPood scripts.sh"),
        ),
        "margin": switch_hparam("mms", "loss: cross-entropy, constant margin, or MMS", "none", "constant", "mms"),
        "margin_lambda": Hparam(0.3, "margin, in units of cosine (CLIPood, section 4.1)", uniform(0, 0.5), low=0.0),
        "average": switch_hparam("bma", "weights that predict", "none", "ema", "uniform", "bma", "wise"),
        "beta": Hparam(
            0.5,
            "both parameters of the Beta distribution of BMA (CLIPood scripts.sh)",
            log_uniform(-1, 0),
            low=1e-3,
        ),
        "ema_momentum": Hparam(
            0.999,
            "average=ema: share of the old average (our choice)",
            low=0.001,
            high=1.0,
            overrides={"tiny": 0.95},
        ),
        "wise_alpha": Hparam(0.5, "average=wise: share of the last iterate (WiSE-FT)", low=0.0, high=1.0),
        "emulate_fp16": switch_hparam(False, "round weights to float16 as the published code does", False, True),
    }
    steps = Hparam(5000, "updates (CLIPood scripts.sh)", low=0, overrides={"DomainNet": 10000, "tiny": 100})

    def __init__(self, setup: Setup) -> None:
        """Make the tower to train, and the one that holds the average."""
        super().__init__(setup)
        self.head = TextHead(self.backbone, prompt_templates(self.values["prompt"], setup.templates))
        self.tower: nn.Module = self.track("tower", self.shared("tower", self.backbone.trainable_visual))
        self.half = half_parameters(self.tower) if self.values["emulate_fp16"] else {}
        self.shares = self._shares()
        if self.values["average"] != "none":
            self.average = AveragedTower(self.tower, half=self.half)
        if self.shares:
            self.track("average", self.average.tower)
        self.optimizer = self.shared(
            "optimizer",
            lambda: torch.optim.AdamW(
                self.tower.parameters(), lr=self.values["lr"], weight_decay=self.values["weight_decay"], fused=True
            ),
        )

    @classmethod
    def training_path(cls, hparams: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Share with all averages of the same loss, and without margin with ERM."""
        own = ("margin", "margin_lambda", "average", "beta", "ema_momentum", "wise_alpha", "emulate_fp16")
        rest = {name: value for name, value in hparams.items() if name not in own}
        rounded = {"emulate_fp16": True} if hparams["emulate_fp16"] else {}
        if hparams["margin"] == "none":
            return {**rest, **rounded, "loss": "cross-entropy, text head"}
        return {**rest, **rounded, "loss": hparams["margin"], "margin_lambda": hparams["margin_lambda"]}

    def _shares(self) -> list[float]:
        """Give the share that each iterate takes in the running average; empty where there is none."""
        n_steps = self.setup.n_steps
        if self.values["average"] == "bma":
            return running_shares(beta_weights(n_steps, self.values["beta"]))
        if self.values["average"] == "uniform":
            return running_shares(np.ones(n_steps + 1))
        return [1 - self.values["ema_momentum"]] * (n_steps + 1) if self.values["average"] == "ema" else []

    def loss(self, minibatches: list[Minibatch], unlabeled: list[Minibatch] | None) -> tuple[Tensor, dict[str, Any]]:
        """Give the mean loss over all domains' images."""
        images, labels = concatenated(minibatches)
        features = self.tower(images).float()
        text, scale, margin = (
            self.head.weights(self.setup.class_names),
            self.backbone.scale,
            self.values["margin_lambda"],
        )
        if self.values["margin"] == "mms":
            return margin_metric_softmax(features, text, labels, scale, margin), {}
        with full_precision(features):
            logits = self.head(features, self.setup.class_names)
            if self.values["margin"] == "constant":
                logits = logits - scale * margin * functional.one_hot(labels, len(text))  # negatives up = positive down
            return functional.cross_entropy(logits, labels), {}

    def after_step(self) -> None:
        """Round the weights if asked to, then take them into the average."""
        if self.half:
            round_to_half_(self.half.values())
        if self.shares:
            self.average.add(self.shares[self.updates])

    def predictors(self, *, final: bool) -> Iterator[tuple[str, Predictor]]:
        """Yield the averaged tower, at the end also the last iterate."""
        yield "", Predictor(self._averaged(), self.head)
        if final and self.values["average"] != "none":
            yield "last", Predictor(self.tower, self.head)

    def _averaged(self) -> nn.Module:
        if self.values["average"] == "none":
            return self.tower
        if self.values["average"] == "wise":
            interpolate_(self.average.tower, self.backbone.visual, self.tower, self.values["wise_alpha"])
        averaged: nn.Module = self.average.tower
        return averaged
