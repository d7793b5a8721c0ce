"""ARF: contrastive fine-tuning of both towers, anchored by captions and by retrieved image-text pairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bench.algorithm import (
    Algorithm,
    AnchorPool,
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
from bench.derived import digest
from bench.errors import SpecError
from bench.heads import full_precision
from bench.hparams import Hparam, power_of_two, uniform
from bench.lazy import functional, torch
from bench.models import TextHead, prompt_templates
from bench.protocols import View
from bench.registry import algorithms

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST_SCALE = 100.0
"""CLIP clips its learned logit scale here (Radford et al., section 2.5)."""

TEXTS = 256
"""Prompts a forward pass of the classifier; as in `Backbone.encode_text`, so that equal weights give equal bits."""

_NO_CAPTIONS = dict.fromkeys(("PACS", "VLCS", "OfficeHome", "TerraIncognita", "DomainNet", "SVIRO"), "template")


def info_nce(
    image_features: Tensor, text_features: Tensor, scale: Tensor | float, groups: Tensor | None = None
) -> Tensor:
    """Give CLIP's symmetric contrastive loss of B pairs; row i of both sides is pair i.

    L = [CE(scale I T^T, targets) + CE(scale T I^T, targets)] / 2, in float32 whatever autocast says. The target of
    row i is column i: other pairs are negatives even where they are of the same class (Goyal et al., CVPR 2023, FLYP).

    Args:
        image_features: (B, d), of any norm.
        text_features: (B, d), of any norm.
        scale: logit scale.
        groups: (B,) int64; if given, the target of a row is spread evenly over all pairs of its group (the variant with
            several positives of FLYP's code). No change where a group's texts are equal, or each group has one pair.
    """
    with full_precision(image_features):
        logits = scale * _unit(image_features) @ _unit(text_features).T
        if groups is None:
            targets = torch.arange(len(logits), device=logits.device)
        else:
            targets = functional.normalize((groups[:, None] == groups).to(logits.dtype), p=1, dim=1)
        return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def retrieve(queries: Tensor, candidates: Tensor, k: int, block: int = 2**24) -> Tensor:
    """Give, for each query, the indices (n, k) of the k candidates with the largest cosine, best first.

    Of equal ones the lower index comes first. At most `block` similarities are held at once.

    Args:
        queries: (n, d), of any norm.
        candidates: (m, d), of any norm, m >= k.
        k: how many.
        block: size limit of the similarity matrix.
    """
    queries, candidates = _unit(queries), _unit(candidates)
    found = []
    for part in queries.split(max(1, block // len(candidates))):
        similarity = part @ candidates.T
        best = []
        for _ in range(k):  # argmax takes the first of equals; topk does not
            best.append(similarity.argmax(dim=1, keepdim=True))
            similarity.scatter_(1, best[-1], -math.inf)
        found.append(torch.cat(best, dim=1))
    return torch.cat(found)


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


@algorithms.register("ARF")
class ARF(Algorithm):
    """Anchor-based robust fine-tuning: L = L_class + w_cap L_caption + w_ret L_retrieved, each a symmetric InfoNCE.

    Papers: Han et al., Anchor-based Robust Finetuning of Vision-Language Models, CVPR 2024: text-compensated anchors
    (each training image with a caption written by a captioner) and retrieved image-text anchors (pairs of a candidate
    pool that are close to the training images). L_class over (image, "a photo of a <class>.") is FLYP's (Goyal et al.,
    Finetune Like You Pretrain, CVPR 2023): image tower, text tower and logit scale are all trained, and the classifier
    is made anew from the current text tower. `w_cap` = `w_ret` = 0 is FLYP, and touches neither captions nor pool.

    Our choices, since the paper's code was never published: the weights 1, 1, 1; `k` = 1; retrieval by cosine between
    image features of the frozen tower, for each training image once before training; a step's pairs are those of its
    images, one of the k at random, each pair once; negatives lie within a term only. From FLYP: AdamW 1e-5, weight
    decay 0.1 on every parameter, 500 steps of warm-up and a cosine, no clipping, a random template for each image.

    Ablations: `captions` = "none" (no_cap), `retrieval` = "none" (no_ret) or "random" (uniform over the pool: replay).
    `captions` = "template" stands in for a captioner with "a picture of a <class>, <domain>", and the record says so;
    it is the default for the data sets of DomainBed's family, which ship no captions (`python -m bench.caption` writes
    real ones). `multi_positive` spreads the target over all pairs with the same class, in the anchors' terms with the
    same text; with a single template that is no change (see `info_nce`).

    Differs: captions by whatever wrote the file (paper: BLIP-2), pool of icons or your own (paper: CC3M); 32 images of
    each domain a step instead of 512 in all; a number of updates instead of epochs; the harness's augmentation; a
    warm-up longer than half of the training is cut to that half. "ARF[alpha=0.5]" interpolates both towers half-way to
    the pre-trained ones, as FLYP's paper does after training.
    Run: `python -m bench.sweep launch --algorithms ARF`; the README's table has the numbers to expect.
    """

    paper = "Han et al., Anchor-based Robust Finetuning of Vision-Language Models, CVPR 2024"
    needs = frozenset({"captions", "pool"})
    hparams = {
        **training_hparams(
            lr=lr_hparam(1e-5, "FLYP README", tiny=5e-5),
            weight_decay=weight_decay_hparam(0.1, "FLYP README"),
            batch_size=Hparam(
                32,
                "images per domain and step, besides as many retrieved ones (DomainBed; FLYP: 512 in all)",
                power_of_two(3, 5.5),
                low=1,
                overrides={"tiny": 8},
            ),
        ),
        "w_cap": Hparam(1.0, "weight of the captions' term (our choice)", uniform(0, 2), low=0.0),
        "w_ret": Hparam(1.0, "weight of the retrieved pairs' term (our choice)", uniform(0, 2), low=0.0),
        "k": Hparam(1, "pool pairs retrieved for each training image (our choice)", low=1),
        "pool": switch_hparam("builtin", "pairs to retrieve from: built-in icons, or --pool's", "builtin", "custom"),
        "retrieval": switch_hparam(
            "image", "nearest pairs by frozen image features; random pairs (replay); no term", "image", "random", "none"
        ),
        "captions": Hparam(
            "file",
            "the data set's captions; made from class and domain name; no term",
            choices=("file", "template", "none"),
            overrides=_NO_CAPTIONS,
        ),
        "multi_positive": switch_hparam(False, "pairs of one class are no negatives (unused in FLYP)", False, True),
        "warmup": Hparam(500, "updates of linear warm-up (FLYP README)", low=0, overrides={"tiny": 10}),
    }
    steps = Hparam(5000, "updates (as CLIPood's)", low=0, overrides={"DomainNet": 10000, "tiny": 100})

    def __init__(self, setup: Setup) -> None:
        """Make both towers, and find the anchors of every training image."""
        super().__init__(setup)
        self.templates = prompt_templates(self.values["prompt"], setup.templates)
        self.visual = self.track("visual", self.backbone.trainable_visual())
        self.text = self.track("text", self.backbone.trainable_text())
        self.start_scale = math.log(self.backbone.scale)
        self.log_scale = torch.nn.Parameter(torch.tensor(self.start_scale, device=self.backbone.device))
        self.track("scale", torch.nn.ParameterDict({"log": self.log_scale}))
        self.captions = [self._captions(*each) for each in zip(setup.train, setup.domain_names, strict=True)]
        self.pool: AnchorPool | None = None
        if self.values["w_ret"] and self.values["retrieval"] != "none":
            self.pool = setup.pool()
        self.anchors = [self._nearest(self.pool, view) for view in setup.train] if self.pool else []
        self.optimizer = torch.optim.AdamW(
            [*self.visual.parameters(), *self.text.parameters(), self.log_scale],
            lr=self.values["lr"],
            weight_decay=self.values["weight_decay"],
            fused=True,
        )

    def learning_rate_factor(self, step: int) -> float:
        """Rise linearly to 1 at the last step of the warm-up, then fall as a cosine."""
        n_steps = self.setup.n_steps
        return cosine(step, n_steps, min(self.values["warmup"], n_steps // 2))

    def loss(self, minibatches: list[Minibatch], unlabeled: list[Minibatch] | None) -> tuple[Tensor, dict[str, Any]]:
        """Give the weighted sum of the three terms, over all domains' images at once; log each."""
        images, labels = concatenated(minibatches)
        features = self.visual(images)
        terms = {"class_loss": self._contrast(features, self._prompts(minibatches), labels)}
        loss = terms["class_loss"]
        if captions := self._captions_of(minibatches):
            terms["caption_loss"] = self._contrast(features, captions)
            loss = loss + self.values["w_cap"] * terms["caption_loss"]
        if self.pool is not None:
            indices = self._anchors_of(minibatches, self.pool)
            texts = [self.pool.captions[index] for index in indices.tolist()]
            terms["retrieval_loss"] = self._contrast(self.visual(self.pool.images(indices)), texts)
            loss = loss + self.values["w_ret"] * terms["retrieval_loss"]
        return loss, {name: term.detach() for name, term in terms.items()}

    def after_step(self) -> None:
        """Clip the logit scale, which may start higher."""
        with torch.no_grad():
            self.log_scale.clamp_(max=max(math.log(LARGEST_SCALE), self.start_scale))

    def predictors(self, *, final: bool) -> Iterator[tuple[str, Predictor]]:
        """Yield the trained towers, at the end also those half-way to the pre-trained ones."""
        yield "", Predictor(self.visual, self._head(self.text, 1.0))
        if final:
            visual, text = self.backbone.trainable_visual(), self.backbone.trainable_text()
            interpolate_(visual, self.backbone.visual, self.visual, 0.5)
            interpolate_(text, self.backbone.text, self.text, 0.5)
            yield "alpha=0.5", Predictor(visual, self._head(text, 0.5))

    def notes(self) -> list[str]:
        """Say which anchors were used, where they are not the data set's own captions."""
        notes = []
        if self.captions[0] and self.values["captions"] == "template":
            unused = self.setup.captions(self.setup.train[0]) is not None
            told = "ARF: captions made from class and domain name, not by a captioner"
            notes.append(told + (" (the data set's captions were not used)" if unused else ""))
        elif self.captions[0]:
            notes.append(
                f"ARF: captions {digest(*(text for texts in self.captions for text in texts))[:8]} from a file"
            )
        if self.pool is not None:
            pool = f"{self.values['pool']} pool of {len(self.pool.captions)} pairs {self.pool.digest}".rstrip()
            notes.append(f"ARF: {'random' if self.values['retrieval'] == 'random' else 'nearest'} pairs of the {pool}")
        return notes

    def _captions(self, view: View, domain_name: str) -> list[str]:
        """Give the caption of every image of a training view; none if there is no such term."""
        if not self.values["w_cap"] or self.values["captions"] == "none":
            return []
        if self.values["captions"] == "template":
            return [f"a picture of a {view.class_names[label]}, {domain_name}" for label in view.labels.tolist()]
        captions = self.setup.captions(view)
        if captions is None:
            raise SpecError(
                f"ARF needs a caption for every training image, and domain {domain_name} lacks some or all. Write them "
                "with `python -m bench.caption DATASET --backbone coca_ViT-B-32 --pretrained TAG`, or ask for captions "
                'made from class and domain name: --hparams \'{"captions": "template"}\' ("none" goes without)'
            )
        return captions

    def _nearest(self, pool: AnchorPool, view: View) -> Tensor:
        """Give the indices (n, k) of the pool's pairs nearest to every image of a training view."""
        if self.values["retrieval"] == "random":
            return torch.zeros(0, 0, dtype=torch.long)
        k, n = self.values["k"], len(pool.captions)
        if k > n:
            raise SpecError(f"k={k} is more than the {n} pairs of the anchor pool; give a smaller k or a larger pool")
        queries, candidates = self.setup.features(view), pool.features()
        decides = [queries, pool.digest or candidates, k]
        return self.backbone.once("retrieval", decides, lambda: retrieve(queries, candidates, k)).cpu()

    def _anchors_of(self, minibatches: list[Minibatch], pool: AnchorPool) -> Tensor:
        """Draw the pool pairs of a step, each once: (≤ sum B,) int64."""
        if self.values["retrieval"] == "random":
            return torch.randperm(len(pool.captions))[: sum(len(batch.positions) for batch in minibatches)]
        drawn = []
        for batch, anchors in zip(minibatches, self.anchors, strict=True):
            which = torch.randint(self.values["k"], (len(batch.positions),))
            drawn.append(anchors[batch.positions.cpu(), which])
        unique: Tensor = torch.cat(drawn).unique()
        return unique

    def _prompts(self, minibatches: list[Minibatch]) -> list[str]:
        """Write each image's class into a template, drawn at random for each."""
        pairs = zip(
            self.setup.train, minibatches, strict=True
        )  # labels of the views: those of the batch are on the device
        labels = [label for view, batch in pairs for label in view.labels[batch.positions.numpy()].tolist()]
        which = torch.randint(len(self.templates), (len(labels),)).tolist()
        names = self.setup.class_names
        return [self.templates[i].format(names[label]) for i, label in zip(which, labels, strict=True)]

    def _captions_of(self, minibatches: list[Minibatch]) -> list[str]:
        pairs = zip(minibatches, self.captions, strict=True)
        return [captions[i] for batch, captions in pairs if captions for i in batch.positions.tolist()]

    def _contrast(self, image_features: Tensor, texts: Sequence[str], groups: Tensor | None = None) -> Tensor:
        """Give the loss of image features (B, d) with `texts`; `groups` (B,) default to equal texts."""
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        rows = torch.tensor([distinct[text] for text in texts], device=image_features.device)
        features = self._encode(list(distinct))
        # Equal texts are encoded once. A product with ones and zeros, as its gradient is deterministic on every device.
        copied = functional.one_hot(rows, len(distinct)).to(features.dtype) @ features
        groups = (rows if groups is None else groups) if self.values["multi_positive"] else None
        return info_nce(image_features, copied, self.log_scale.exp(), groups)

    def _encode(self, texts: list[str]) -> Tensor:
        """Give the features (n, d) of `texts`; what no token that is read out can see is cut."""
        tokens = self.backbone.tokens(texts)
        ends = self.text.end_positions(tokens)
        length = self.text.needed(ends, tokens.shape[1])
        tokens, ends = (each.to(self.backbone.device, non_blocking=True) for each in (tokens[:, :length], ends))
        features: Tensor = self.text.from_embeddings(self.text.embed(tokens), ends)
        return features

    def _head(self, tower: nn.Module, alpha: float) -> Callable[[Tensor, tuple[str, ...]], Tensor]:
        """Make a classifier of `tower` as it is now, with the scale `alpha` of the way (in logs) to the trained one."""
        # A frozen copy: torch takes other kernels for weights that can be trained, and step 0 is to be exact.
        frozen = copy.deepcopy(tower).requires_grad_(False)

        def encode(texts: Sequence[str]) -> Tensor:
            with torch.no_grad():
                tokens = [self.backbone.tokenize(texts[i : i + TEXTS]) for i in range(0, len(texts), TEXTS)]
                return torch.cat([frozen(part) for part in tokens]).float()

        head = TextHead(self.backbone, self.templates, encode)
        grown = self.log_scale.item() - torch.tensor(self.start_scale).item()  # of equal precision: 0 at the start
        ratio = math.exp(alpha * grown)
        return lambda features, class_names: ratio * head(features, class_names)
