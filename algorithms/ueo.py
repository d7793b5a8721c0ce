"""UEO: adapt to the unlabelled images of the held-out domain by weighted conditional and marginal entropy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench.algorithm import (
    Algorithm,
    Minibatch,
    Predictor,
    Setup,
    lr_hparam,
    switch_hparam,
    training_hparams,
)
from bench.errors import SpecError
from bench.heads import full_precision
from bench.hparams import Hparam, power_of_two
from bench.lazy import functional, torch
from bench.protocols import View
from bench.registry import algorithms
from bench.working_copy import WorkingCopy

if TYPE_CHECKING:
    from torch import Tensor, nn

EPSILON = 1e-5
"""Inside the logarithm of the entropies, as in the published code."""


def entropy(probabilities: Tensor) -> Tensor:
    """Give the entropy (…) in nats of distributions (…, K): -sum p log(p + 1e-5)."""
    return -(probabilities * (probabilities + EPSILON).log()).sum(dim=-1)


def universal_entropy(probabilities: Tensor, weights: Tensor, trade_off: float = 1.0) -> Tensor:
    """Give UEO's loss: weighted conditional entropy minus `trade_off` times the inversely weighted marginal entropy.

    sum_b w_b H(p_b) / sum_b w_b - trade_off · H(p̄), with p̄ = sum_b p_b / w_b / sum_b 1 / w_b (Liang et al., ICML 2024).
    Equal weights give information maximisation.

    Args:
        probabilities: (B, K), rows sum to one.
        weights: (B,) positive; high for images that are likely of a known class.
        trade_off: weight of the marginal entropy.
    """
    conditional = (weights * entropy(probabilities)).sum() / weights.sum()
    inverse = 1 / weights
    marginal = (inverse[:, None] * probabilities).sum(dim=0) / inverse.sum()
    return conditional - trade_off * entropy(marginal)


def normalisation_parameters(tower: nn.Module, layers: str = "all") -> dict[str, nn.Parameter]:
    """Find the affine parameters of `tower`'s normalisation layers, by name.

    Args:
        tower: image tower.
        layers: "all", by the type of the layer; or "published": all that has `bn` or `ln` in its name, which misses the
            batch norms of the down-sampling branches of CLIP's ResNets.
    """
    if layers == "published":
        return {name: each for name, each in tower.named_parameters() if "bn" in name or "ln" in name}
    return {
        f"{path}.{name}": each
        for path, module in tower.named_modules()
        if _is_normalisation(module)
        for name, each in module.named_parameters(recurse=False)
    }


def _is_normalisation(module: nn.Module) -> bool:
    kinds = (torch.nn.modules.batchnorm._NormBase, torch.nn.LayerNorm, torch.nn.GroupNorm)
    return isinstance(module, kinds) or type(module).__name__.lower().removesuffix("2d").endswith("norm")


@algorithms.register("UEO")
class UEO(Algorithm):
    """Universal entropy on the held-out domain's images without labels; trains a prompt and the normalisation layers.

    Paper: Liang et al., Realistic Unsupervised CLIP Fine-tuning with Universal Entropy Optimization, ICML 2024. An
    image's weight is its largest zero-shot probability, computed once before training. Four context vectors start as
    "a photo of a"; they and the affine parameters of the image tower's normalisation layers are trained by SGD 1e-4
    without momentum or weight decay, cosine to 0, batch 64. Batch-norm statistics stay frozen; no source image is used.

    Quirks of the published code, as switches: it takes the weights' softmax of the raw cosine, so that they are almost
    equal (`weight_scale` 1, the default; 100 is the natural reading of "maximum softmax probability"), and in CLIP's
    ResNets it misses the batch norms of the down-sampling branches (`norm_layers` = published). Ablations: `noweight`
    (information maximisation), `oracle` (known classes weigh 1.001, others 0.001: reads labels), `parameters`.
    Differs: RandomResizedCrop(0.7-1) as for all methods, not (0.5-1); the prompt starts with the words of the data
    set's template; float32 or bf16, not float16. Under the protocol `universal` the unlabelled images may be of unknown
    classes, as in the paper; under the others their classes are the ones that are tested.
    For `tiny`, whose logit scale is a fifth of CLIP's, the learning rates are 1e-2: at 1e-4 its loss hardly falls.
    Run: `python -m bench.sweep launch --algorithms UEO`; the README's table has the numbers to expect.
    """

    paper = "Liang et al., Realistic Unsupervised CLIP Fine-tuning with Universal Entropy Optimization, ICML 2024"
    hparams = {
        **training_hparams(
            lr=lr_hparam(1e-4, "UEO's plr: the context's, SGD", draw=(-5, -2), tiny=1e-2),
            weight_decay=Hparam(0.0, "weight decay (UEO has none)", low=0.0),
            batch_size=Hparam(
                64,
                "unlabelled images per step and held-out domain (UEO)",
                power_of_two(3, 5.5),
                low=1,
                overrides={"tiny": 36},
            ),
        ),
        "lr_affine": lr_hparam(1e-4, "UEO's vlr: the normalisation layers', SGD", draw=(-5, -2), tiny=1e-2),
        "parameters": switch_hparam("both", "what is trained", "prompt", "affine", "both"),
        "norm_layers": switch_hparam(
            "all", "normalisation layers: all, or published: names with bn or ln (not downsample.1)", "all", "published"
        ),
        "ctx_init": Hparam("template", 'first words of the prompt; "template": the data set\'s, else "a photo of a"'),
        "trade_off": Hparam(1.0, "weight of the marginal entropy (UEO)", low=0.0),
        "weight_scale": Hparam(
            1.0, "factor on the raw cosine in the images' weights: 1 published code, 100 natural reading", low=0.0
        ),
        "noweight": switch_hparam(False, "equal weights: information maximisation", False, True),
        "oracle": switch_hparam(False, "weights from labels: 1{class is known} + 0.001", False, True),
    }
    del hparams["prompt"]  # the prompt is what is learned
    steps = Hparam(
        5000, "updates, as for the other methods (UEO: 50 epochs)", low=0, overrides={"DomainNet": 10000, "tiny": 100}
    )
    needs = frozenset({"unlabeled"})
    uses_labelled = False

    def __init__(self, setup: Setup) -> None:
        """Begin at zero-shot."""
        from bench.prompts import PromptLearner, initial_phrase, phrase_context

        super().__init__(setup)
        if self.values["noweight"] and self.values["oracle"]:
            raise SpecError("noweight and oracle are two ways to weigh images: set at most one of them to true")
        phrase = initial_phrase(self.values["ctx_init"] or "template", setup.templates)
        context = phrase_context(self.backbone, phrase)
        self.prompts: PromptLearner = self.track(
            "prompts", PromptLearner(self.backbone, setup.class_names, context, phrase=phrase)
        )
        self._initial_texts = functional.normalize(self.prompts.encode(setup.class_names), dim=-1)
        self.tower = self.backbone.visual if self.values["parameters"] == "prompt" else self._trained_tower()
        self.optimizer = torch.optim.SGD(self._groups(), weight_decay=self.values["weight_decay"], fused=True)

    def loss(self, minibatches: list[Minibatch], unlabeled: list[Minibatch] | None) -> tuple[Tensor, dict[str, Any]]:
        """Give the universal entropy of the unlabelled batches; labelled ones are not read."""
        assert unlabeled is not None
        pairs = zip(self._weights, unlabeled, strict=True)
        weights = torch.cat([weights[batch.positions_on(weights.device)] for weights, batch in pairs])
        images = torch.cat([batch.images for batch in unlabeled])
        is_frozen = self.values["parameters"] == "prompt"
        images = self.backbone.encode_images(images, self.values["precision"]) if is_frozen else self.tower(images)
        images = functional.normalize(images.float(), dim=-1)
        texts = functional.normalize(self.prompts().float(), dim=-1)
        with full_precision(images):
            probabilities = (self.backbone.scale * images @ texts.T).softmax(dim=-1)
            return universal_entropy(probabilities, weights, self.values["trade_off"]), {}

    def working_copy(self) -> WorkingCopy:
        """Let the image tower, of which a few parameters alone are tracked, compute in bf16 where that is asked for."""
        if self._working_copy is None:
            is_bf16 = self.values["precision"] == "bf16" and self.values["parameters"] != "prompt"
            self._working_copy = WorkingCopy(
                [self.tower] if is_bf16 and getattr(self.tower, "has_bf16_path", False) else []
            )
        return self._working_copy

    def predictors(self, *, final: bool) -> Iterator[tuple[str, Predictor]]:
        """Yield the learned prompt on the adapted image tower."""
        yield "", Predictor(None if self.values["parameters"] == "prompt" else self.tower, self.prompts.head())

    def notes(self) -> list[str]:
        """Say so where labels of the held-out domain were read."""
        return ["UEO: images are weighed by their labels (oracle)"] if self.values["oracle"] else []

    def _trained_tower(self) -> nn.Module:
        """Copy the image tower, with the normalisation layers alone to train; only they go into the checkpoint."""
        tower = self.backbone.trainable_visual().requires_grad_(False)
        affine = normalisation_parameters(tower, self.values["norm_layers"])
        if not affine:
            raise SpecError(
                f"no normalisation layer of {self.backbone.name} has affine parameters under "
                f"norm_layers={self.values['norm_layers']!r}; set norm_layers to 'all', or parameters to 'prompt'"
            )
        for each in affine.values():
            each.requires_grad_(True)
        self.affine = self.track("affine", torch.nn.ParameterList(affine.values()))
        return tower

    def _groups(self) -> list[dict[str, Any]]:
        """Give the optimizer's groups, and freeze the context where it is not to be trained."""
        groups = []
        if self.values["parameters"] == "affine":
            self.prompts.requires_grad_(False)
        else:
            groups.append({"params": list(self.prompts.parameters()), "lr": self.values["lr"]})
        if self.values["parameters"] != "prompt":
            groups.append({"params": list(self.affine), "lr": self.values["lr_affine"]})
        return groups

    @cached_property
    def _weights(self) -> list[Tensor]:
        """The weight (n,) of every unlabelled image, by view: a function of the setup alone, so not checkpointed."""
        with torch.autocast(self.backbone.device.type, enabled=False):  # they differ by a few per cent only
            return [self._weigh(view) for view in self.setup.unlabeled]

    def _weigh(self, view: View) -> Tensor:
        if self.values["noweight"]:
            return torch.ones(len(view), device=self.backbone.device)
        if self.values["oracle"]:
            known = {place for place, name in enumerate(view.class_names) if name in self.setup.class_names}
            is_known = torch.tensor([label in known for label in view.labels.tolist()])  # unknown ones lie behind
            return is_known.float().to(self.backbone.device) + 1e-3
        features, texts, scale = self.setup.features(view), self._initial_texts, self.values["weight_scale"]

        def weigh() -> Tensor:
            cosines = functional.normalize(features, dim=-1) @ texts.T
            weights: Tensor = (scale * cosines).softmax(dim=-1).amax(dim=-1)
            return weights

        return self.backbone.once("weights", [features, texts, scale], weigh)


@algorithms.register("InfoMax")
class InfoMax(UEO):
    """UEO with equal weights: information maximisation, the ablation `noweight`, as a row of its own.

    Paper: as UEO's, where it is a baseline; the loss is the mean entropy minus the entropy of the mean (Krause et al.,
    Discriminative Clustering by Regularized Information Maximization, NeurIPS 2010). All else is UEO's.
    Differs: as UEO.
    Run: `python -m bench.sweep launch --algorithms InfoMax --protocol universal --setting open`.
    """

    hparams = {**UEO.hparams, "noweight": switch_hparam(True, "equal weights: information maximisation", False, True)}
