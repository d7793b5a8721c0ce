"""What a method is: DomainBed's contract, plus predictors and declared hparams.

A method is one file in `algorithms/`: a subclass of `Algorithm` with `loss` and `predictors`, registered under the name
of its paper. Everything else (data, loop, evaluation, checkpoints, records) is the harness's.
"""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from bench.hparams import Hparam, choice, log_uniform, power_of_two
from bench.lazy import torch
from bench.protocols import View
from bench.working_copy import WorkingCopy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.models import Backbone


class Minibatch(NamedTuple):
    """The samples of one domain in one step.

    Attributes:
        images: (B, 3, H, W) float32, augmented and normalised.
        labels: (B,) int64 index into the class names; -1 where unlabelled.
        positions: (B,) int64 position within the view that the batch was drawn from; as a trial draws them, on the CPU.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor

    def positions_on(self, device: torch.device) -> Tensor:
        """Give the positions on `device`, to index with there: a GPU is not waited for."""
        return self.positions.to(device, non_blocking=True)


class Predictor(NamedTuple):
    """One way to predict with what was trained.

    Attributes:
        tower: image tower, (B, 3, H, W) → (B, d); None = the pre-trained tower, whose features the harness caches.
        head: (features (B, d) float32, class names) → logits (B, K).
    """

    tower: nn.Module | None
    head: Callable[[Tensor, tuple[str, ...]], Tensor]


class AnchorPool(abc.ABC):
    """Image-text pairs that belong to no data set under test, for anchor retrieval.

    Attributes:
        captions: one a pair.
        digest: names the content in records; empty where it is not known.
    """

    captions: Sequence[str]
    digest: str = ""

    @abc.abstractmethod
    def features(self) -> Tensor:
        """Give the frozen image features of all pairs, (n, d), not normalised."""

    @abc.abstractmethod
    def images(self, indices: Tensor) -> Tensor:
        """Give the images at `indices` (B,), normalised as the backbone wants them: (B, 3, H, W)."""


@dataclass(frozen=True)
class Setup:
    """What a method is built from.

    Attributes:
        backbone: a copy of the pre-trained model that belongs to this trial alone.
        class_names: label space of the training labels.
        train: labelled views, in the order of `update`'s minibatches.
        unlabeled: unlabelled views, in the order of `update`'s second argument.
        domain_names: the training domains in words, for captions.
        templates: the data set's prompt templates.
        hparams: resolved values.
        n_steps: updates that will be made.
        run_seed: torch is seeded with it before the method is built, and anew from (run_seed, step) before every update.
        features: frozen image features of a view, centre crop, (n, d) float32, not normalised.
        captions: captions of a view's samples in its order; None where there is none for some sample.
        pool: opens the anchor pool.
        shared: what a trial with the same `training_path` trains, for both of them; empty for a trial by itself.
    """

    backbone: Backbone
    class_names: tuple[str, ...]
    train: tuple[View, ...]
    unlabeled: tuple[View, ...]
    domain_names: tuple[str, ...]
    templates: tuple[str, ...]
    hparams: Mapping[str, Any]
    n_steps: int
    run_seed: int
    features: Callable[[View], Tensor]
    captions: Callable[[View], list[str] | None]
    pool: Callable[[], AnchorPool]
    shared: Mapping[str, Any] = field(default_factory=dict)


EVALUATION_HPARAMS: dict[str, Hparam] = {
    "prompt": Hparam(
        "dataset",
        "text prompts: the data set's template(s), CoOp's 7 selected ones with it, or OpenAI's 80",
        choices=("dataset", "ensemble7", "ensemble80"),
    ),
    "eval_precision": Hparam(
        "fp32",
        "weights of the image tower in evaluation; bf16 is about three times as fast on ViTs and moves few predictions",
        choices=("fp32", "bf16"),
    ),
}


def training_hparams(*, lr: Hparam, weight_decay: Hparam, batch_size: Hparam) -> dict[str, Hparam]:
    """Give the hparams that every trained method has; the three arguments are where papers differ."""
    return {
        **EVALUATION_HPARAMS,
        "lr": lr,
        "weight_decay": weight_decay,
        "batch_size": batch_size,
        "augmentation": Hparam(
            "clipood",
            "CLIPood: RandomResizedCrop(0.7-1) and flip; DomainBed adds colour jitter and grey; none: centre crop",
            choices=("clipood", "domainbed", "none"),
        ),
        "precision": Hparam(
            "fp32",
            "training: fp32, or bf16 with fp32 master weights; pays for ViTs where the processor has bf16 products",
            choices=("fp32", "bf16"),
        ),
        "compile": Hparam(
            False,
            "torch.compile for the towers: minutes of compilation; on a CPU it gains little in fp32, nothing in bf16",
            choices=(False, True),
            added_later=True,
        ),
    }


def lr_hparam(default: float, source: str, *, draw: tuple[float, float] = (-6, -4), **overrides: float) -> Hparam:
    """Declare a learning rate: `default` from `source`, random search over 10**U(draw)."""
    return Hparam(default, f"peak learning rate ({source})", log_uniform(*draw), low=0.0, overrides=overrides)


def weight_decay_hparam(default: float, source: str) -> Hparam:
    """Declare a weight decay, random search over 10**U(-6, -2) as DomainBed's."""
    return Hparam(default, f"weight decay ({source})", log_uniform(-6, -2), low=0.0)


def batch_size_hparam(default: int, source: str) -> Hparam:
    """Declare a batch size per training domain, random search over int(2**U(3, 5.5)) as DomainBed's."""
    return Hparam(default, f"images per domain and step ({source})", power_of_two(3, 5.5), low=1)


def switch_hparam(default: Any, help: str, *choices: Any) -> Hparam:
    """Declare a switch that random search leaves alone."""
    return Hparam(default, help, choices=choices)


def searched_hparam(default: Any, help: str, *choices: Any) -> Hparam:
    """Declare a switch that random search varies."""
    return Hparam(default, help, choice(*choices), choices=choices)


def cosine(step: int, n_steps: int, warmup: int = 0) -> float:
    """Give the factor on the peak learning rate at 0-based `step`: linear warm-up, then half a cosine to 0.

    WiSE-FT's form: (step + 1) / warmup during warm-up; with no warm-up torch's CosineAnnealingLR.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


class Algorithm(abc.ABC):
    """Base of all methods.

    A subclass sets the class attributes, calls `super().__init__(setup)`, names what it trains with `track`, sets
    `self.optimizer`, and writes `loss` and `predictors`. One that needs another update than "loss, backward, step"
    overrides `update`.

    Attributes:
        paper: citation, with what differs from the paper.
        hparams: declared hyper-parameters.
        steps: number of updates, by data set and backbone.
        needs: what it uses beside labelled images: "unlabeled", "captions", "pool".
        uses_labelled: whether `update` reads the labelled minibatches; if not, none are drawn.
        starts_zero_shot: before the first update it predicts exactly as ZeroShot; an instance may say otherwise.
        updates: updates made so far.
        shared_parts: what `shared` gave, by name; only updates may change it.
    """

    paper: ClassVar[str] = ""
    hparams: ClassVar[Mapping[str, Hparam]] = {}
    steps: ClassVar[Hparam] = Hparam(5000, "updates", low=0)
    needs: ClassVar[frozenset[str]] = frozenset()
    starts_zero_shot: bool = True
    uses_labelled: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the declaration when the class is made."""
        super().__init_subclass__(**kwargs)
        wrong = [name for name, hparam in cls.hparams.items() if not isinstance(hparam, Hparam)]
        unknown = cls.needs - {"unlabeled", "captions", "pool"}
        if wrong or unknown:
            raise TypeError(f"{cls.__name__}: hparams that are no Hparam: {wrong}; unknown needs: {sorted(unknown)}")

    def __init__(self, setup: Setup) -> None:
        """Keep what the method is built from."""
        self.setup = setup
        added = {name: hparam.default for name, hparam in self.hparams.items() if hparam.added_later}
        self.values: Mapping[str, Any] = {**added, **setup.hparams}
        self.backbone = setup.backbone
        self.updates = 0
        self.optimizer: torch.optim.Optimizer | None = None
        self._tracked: dict[str, Any] = {}
        self.shared_parts: dict[str, Any] = {}
        self._working_copy: WorkingCopy | None = None

    def shared(self, name: str, make: Callable[[], Any]) -> Any:
        """Give a part that trials of the same `training_path` have in common: another trial's, else what `make` makes."""
        self.shared_parts[name] = self.setup.shared[name] if self.setup.shared else make()
        return self.shared_parts[name]

    def track(self, name: str, part: Any) -> Any:
        """Make `part` (anything with state_dict and load_state_dict) a part of the checkpoint; give it back.

        A tower is compiled here if the hparam `compile` says so: also evaluation then always runs the compiled one, so
        that a trial gives the same numbers wherever it was resumed.
        """
        self._tracked[name] = part
        if self.values.get("compile") and getattr(part, "_compiled_call_impl", part) is None:
            part.compile()
        return part

    def update(self, minibatches: list[Minibatch], unlabeled: list[Minibatch] | None = None) -> dict[str, Any]:
        """Make one update; `minibatches` has one batch a training domain. Give scalars to log."""
        assert self.optimizer is not None
        self.set_learning_rates()
        copy = self.working_copy()
        with self.autocast(), copy.in_place():
            loss, logs = self.loss(minibatches, unlabeled)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        copy.give_gradients()
        self.before_step()
        self.optimizer.step()
        self.updates += 1
        self.after_step()
        return {"loss": loss.detach(), **logs}

    def follow(self) -> None:
        """Take note of an update that another trial has made to the shared parts."""
        self.updates += 1
        self.after_step()

    def loss(self, minibatches: list[Minibatch], unlabeled: list[Minibatch] | None) -> tuple[Tensor, dict[str, Any]]:
        """Give the loss of one step, and further scalars to log."""
        raise TypeError(f"{type(self).__name__} has no loss: it is not trained, or must override update")

    def learning_rate_factor(self, step: int) -> float:
        """Give the factor on every learning rate at 0-based `step`; a cosine to 0 by default."""
        return cosine(step, self.setup.n_steps)

    def set_learning_rates(self) -> None:
        """Set the learning rates of the coming step; a pure function of the step, so no scheduler has a state."""
        assert self.optimizer is not None
        factor = self.learning_rate_factor(self.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group.setdefault("peak_lr", group["lr"])

    def before_step(self) -> None:
        """Hook between backward and the optimizer's step, e.g. to clip gradients."""

    def after_step(self) -> None:
        """Hook after the optimizer's step, e.g. to average weights; `updates` is already raised."""

    @abc.abstractmethod
    def predictors(self, *, final: bool) -> Iterator[tuple[str, Predictor]]:
        """Yield (label, predictor), the main one first under the empty label.

        A predictor is used before the next one is asked for, so weights may be interpolated in place. Costly further ones
        are yielded only when `final`.
        """

    @classmethod
    def training_path(cls, hparams: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Give what decides the weights that the updates lead through; None (the default) = shared with no other trial.

        Trials of any methods whose paths are equal, and whose specs agree in all but method and hparams, are trained
        once. So equal paths must mean equal updates to the bit: loss, optimizer, order of its parameters, schedule,
        `before_step`, nothing random. What is trained must come from `shared`, under the name that it is tracked by,
        and so must "optimizer". `after_step` may change shared parts only in a way that may be repeated.
        """
        return None

    @classmethod
    def new_classes_problem(cls, hparams: Mapping[str, Any]) -> str:
        """Say why the method with these hparams cannot score classes that it was not trained on; empty where it can."""
        return ""

    def notes(self) -> list[str]:
        """Give remarks for the record and the table's footer, e.g. that captions were made up."""
        return []

    def predict(self, images: Tensor, class_names: tuple[str, ...] | None = None) -> Tensor:
        """Give the main predictor's logits (B, K) for normalised images (B, 3, H, W)."""
        predictor = next(self.predictors(final=False))[1]
        tower = predictor.tower or self.backbone.visual
        with torch.no_grad():
            return predictor.head(tower(images).float(), class_names or self.setup.class_names)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Give the context of the forward pass: bf16 autocast when the hparam `precision` says so."""
        if self.values.get("precision") != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.backbone.device.type, dtype=torch.bfloat16)

    def working_copy(self) -> WorkingCopy:
        """Give what an update computes with in place of the tracked towers' weights: bf16 copies, if any.

        Only towers that compute in the type of their weights have them; others are left to autocast.
        """
        if self._working_copy is None:
            is_bf16 = self.values.get("precision") == "bf16"
            towers = [part for part in self._tracked.values() if getattr(part, "has_bf16_path", False)]
            trained = [tower for tower in towers if any(each.requires_grad for each in tower.parameters())]
            self._working_copy = WorkingCopy(trained if is_bf16 else [])
        return self._working_copy

    def state_dict(self) -> dict[str, Any]:
        """Give all that changes in training."""
        parts = {name: part.state_dict() for name, part in self._tracked.items()}
        if self.optimizer is not None:
            parts["optimizer"] = self.optimizer.state_dict()
        return {"updates": self.updates, "parts": parts}

    def load_state_dict(self, state: Mapping[str, Any], *, own: bool = False) -> None:
        """Take back what `state_dict` gave; with `own`, leave alone what other trials share."""
        shared = self.shared_parts if own else {}
        self.updates = int(state["updates"])
        for name, part in self._tracked.items():
            if name not in shared:
                part.load_state_dict(state["parts"][name])
        if self.optimizer is not None and "optimizer" not in shared:
            self.optimizer.load_state_dict(state["parts"]["optimizer"])


def concatenated(minibatches: Sequence[Minibatch]) -> tuple[Tensor, Tensor]:
    """Join the domains' batches: images (sum B, 3, H, W) and labels (sum B,)."""
    return torch.cat([batch.images for batch in minibatches]), torch.cat([batch.labels for batch in minibatches])
