"""ERM: fine-tune the image tower with cross-entropy on the pooled training domains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from bench.errors import SpecError
from bench.heads import LinearHead, full_precision
from bench.hparams import Hparam, choice
from bench.lazy import functional, torch
from bench.models import TextHead, prompt_templates
from bench.registry import algorithms

if TYPE_CHECKING:
    from torch import Tensor, nn


@algorithms.register("ERM")
class ERM(Algorithm):
    """Empirical risk minimisation: mean over all images of CE(head(f(x)), y).

    Papers: Vapnik, Statistical Learning Theory, 1998; as a baseline Gulrajani and Lopez-Paz, ICLR 2021 (DomainBed).
    Rows called "ERM" or "FT" in papers on CLIP differ by more than ten points with the head, so it has a name here:

    - `head` = "text" (default): the frozen text features, logits = scale * cos; CLIPood's recipe without margin and
      average, which is the ERM that CLIPood builds on (Shu et al., ICML 2023, scripts.sh).
    - "zero_shot": a trainable linear head over normalised features that starts as scale * text features with bias 0
      (Wortsman et al., CVPR 2022, "end-to-end").
    - "random": un-normalised features and torch's default linear layer, as in DomainBed and its forks. It starts at
      chance. DomainBed's own recipe: `--hparams '{"head": "random", "lr": 5e-5, "weight_decay": 0.0, "schedule":
      "constant", "batch_size": 32, "augmentation": "domainbed"}'` (AdamW without weight decay is Adam).

    Differs: batch-norm statistics stay frozen and the tower has no dropout of its own; `dropout` acts on its output.
    Run: `python -m bench.sweep launch --algorithms ERM`; the README's table has the numbers to expect.
    """

    paper = "Vapnik, Statistical Learning Theory, 1998; Gulrajani and Lopez-Paz, ICLR 2021"
    hparams = {
        **training_hparams(
            lr=lr_hparam(5e-6, "CLIPood scripts.sh", OfficeHome=1e-5, DomainNet=1e-5, tiny=5e-5),
            weight_decay=weight_decay_hparam(0.1, "CLIPood, section 4.1"),
            batch_size=batch_size_hparam(12, "CLIPood scripts.sh"),
        ),
        "head": switch_hparam(
            "text",
            "frozen text features; linear from zero-shot; linear from random",
            "text",
            "zero_shot",
            "random",
        ),
        "schedule": switch_hparam("cosine", "learning rate: cosine to 0, or constant", "cosine", "constant"),
        "dropout": Hparam(0.0, "dropout on features, as DomainBed's", choice(0.0, 0.1, 0.5), low=0.0, high=0.9),
    }
    steps = Hparam(5000, "updates (CLIPood scripts.sh)", low=0, overrides={"DomainNet": 10000, "tiny": 100})

    def __init__(self, setup: Setup) -> None:
        """Make the tower to train and the head."""
        super().__init__(setup)
        kind = self.values["head"]
        self.starts_zero_shot = kind != "random"
        self.tower: nn.Module = self.track("tower", self.shared("tower", self.backbone.trainable_visual))
        text = TextHead(self.backbone, prompt_templates(self.values["prompt"], setup.templates))
        parameters = list(self.tower.parameters())
        if kind == "text":
            self.head: Any = text
        else:
            linear_head = LinearHead if kind == "zero_shot" else _RandomHead
            self.head = self.shared("head", lambda: linear_head(text, setup.class_names))
            parameters += self.track("head", self.head.linear).parameters()
        self.optimizer = self.shared(
            "optimizer",
            lambda: torch.optim.AdamW(
                parameters, lr=self.values["lr"], weight_decay=self.values["weight_decay"], fused=True
            ),
        )

    @classmethod
    def training_path(cls, hparams: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Share with CLIPood without margin (head=text), or with WiSE-FT without its recipe (head=zero_shot)."""
        rest = {name: value for name, value in hparams.items() if name not in ("head", "schedule", "dropout")}
        if hparams["dropout"] or hparams["schedule"] != "cosine" or hparams["head"] == "random":
            return None
        if hparams["head"] == "text":
            return {**rest, "loss": "cross-entropy, text head"}
        return {**rest, "loss": "cross-entropy, linear head", "warmup": 0, "clip_norm": 0.0, "label_smoothing": 0.0}

    @classmethod
    def new_classes_problem(cls, hparams: Mapping[str, Any]) -> str:
        """Say that a random head has rows for the training classes alone."""
        return (
            "a random head has no rows for new classes; use head=text or zero_shot"
            if hparams["head"] == "random"
            else ""
        )

    def learning_rate_factor(self, step: int) -> float:
        """Follow `schedule`."""
        return 1.0 if self.values["schedule"] == "constant" else super().learning_rate_factor(step)

    def loss(self, minibatches: list[Minibatch], unlabeled: list[Minibatch] | None) -> tuple[Tensor, dict[str, Any]]:
        """Give the cross-entropy over all domains' images."""
        images, labels = concatenated(minibatches)
        features = functional.dropout(self.tower(images).float(), self.values["dropout"])
        with full_precision(features):
            return functional.cross_entropy(self.head(features, self.setup.class_names), labels), {}

    def predictors(self, *, final: bool) -> Iterator[tuple[str, Predictor]]:
        """Yield the trained tower and head."""
        yield "", Predictor(self.tower, self.head)


class _RandomHead:
    """A linear layer with torch's default initialisation, over features as they come."""

    def __init__(self, text: TextHead, class_names: tuple[str, ...]) -> None:
        rows = text.weights(class_names)
        self.linear = torch.nn.Linear(rows.shape[1], rows.shape[0], device=rows.device)
        self.class_names = class_names

    def __call__(self, features: Tensor, class_names: tuple[str, ...]) -> Tensor:
        logits: Tensor = self.linear(features)
        if class_names == self.class_names:
            return logits
        unknown = [name for name in class_names if name not in self.class_names]
        if unknown:
            raise SpecError(
                f"ERM with head=random cannot score classes that it was not trained on: {', '.join(unknown)}; "
                "use head=text or head=zero_shot"
            )
        return logits[:, [self.class_names.index(name) for name in class_names]]
