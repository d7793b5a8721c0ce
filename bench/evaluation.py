"""Evaluation: each split once for each distinct predictor; features of the frozen tower once for all trials.

Images go through a tower in batches of one fixed size (the last one is filled up), so that a sample's features do not
depend on which samples are evaluated with it, and cached features equal computed ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench import files
from bench.algorithm import Algorithm, Predictor
from bench.errors import RunFailed
from bench.images import CACHE_VERSION, ImageStore, Normalise
from bench.metrics import METRICS, Scored, ood_score
from bench.models import Backbone
from bench.protocols import Task, View

BATCH = 64

Pulse = Callable[[str], None]


@dataclass(frozen=True)
class Evaluated:
    """What one predictor scored.

    Attributes:
        label: label of the predictor, "" for the main one.
        metrics: record keys → values.
        predicted: view name → (n,) predicted class.
        confidence: view name → (n,) largest probability.
        ood: view name → (n,) how known each sample looks, for the views that have unknown classes.
    """

    label: str
    metrics: dict[str, Any]
    predicted: dict[str, NDArray[np.int64]]
    confidence: dict[str, NDArray[np.float32]]
    ood: dict[str, NDArray[np.float32]] = field(default_factory=dict)


class Evaluator:
    """Evaluates the predictors of one trial."""

    def __init__(
        self, store: ImageStore, backbone: Backbone, task: Task, cache: Path, precision: str, pulse: Pulse
    ) -> None:
        """Evaluate on `task`'s views.

        Args:
            store: the images.
            backbone: the pre-trained model.
            task: what to evaluate on.
            cache: the cache folder, for features of the frozen tower.
            precision: "fp32" or "bf16": the image tower's weights while it is evaluated.
            pulse: called between batches with what is going on; may raise to stop.
        """
        self.store = store
        self.backbone = backbone
        self.task = task
        self.pulse = pulse
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._cache = cache / "features"
        self._normalise = Normalise(store.image, backbone.device)
        self._frozen: dict[int, NDArray[np.float32]] = {}

    def frozen_features(self, view: View) -> Tensor:
        """Give the pre-trained tower's features of a view, (n, d) float32, not normalised; kept on disk by domain."""
        if view.domain not in self._frozen:
            self._frozen[view.domain] = self._load_or_compute(view.domain)
        return torch.from_numpy(self._frozen[view.domain][view.indices]).to(self.backbone.device)

    def evaluate(self, algorithm: Algorithm, *, final: bool) -> Iterator[Evaluated]:
        """Yield what each of the algorithm's predictors scores on the task's views, the main one first."""
        for label, predictor in algorithm.predictors(final=final):
            if algorithm.updates == 0 and self._is_pretrained(predictor.tower):
                predictor = Predictor(None, predictor.head)
            yield self._score(label, predictor)

    def _is_pretrained(self, tower: nn.Module | None) -> bool:
        """Say whether `tower` still gives the pre-trained features, by one batch; then the cache serves for all."""
        if tower is None:
            return True
        view = self.task.evaluation[0]
        probe = replace(view, indices=view.indices[:BATCH], labels=view.labels[:BATCH])
        given, frozen = self._forward(self._prepared(tower), view.domain, probe.indices), self.frozen_features(probe)
        return given.shape == frozen.shape and torch.allclose(given, frozen, rtol=1e-4, atol=1e-4)

    def _score(self, label: str, predictor: Predictor) -> Evaluated:
        tower = None if predictor.tower is None else self._prepared(predictor.tower)
        found = Evaluated(label, {}, {}, {})
        pooled = {name for names in self.task.pooled.values() for name in names}
        kept: dict[str, Scored] = {}
        for view in self.task.evaluated:
            features = self._features(tower, view)
            with torch.no_grad():
                logits = predictor.head(features, view.class_names).float()
                if not logits.isfinite().all():
                    raise RunFailed(f"training diverged: the logits on {view.name} are not finite; try a lower lr")
                top = logits.softmax(dim=-1).max(dim=-1)
            found.predicted[view.name] = top.indices.cpu().numpy()
            found.confidence[view.name] = top.values.cpu().numpy()
            scored = self._scored(view, logits, found.predicted[view.name])
            if scored.ood is not None:
                found.ood[view.name] = scored.ood.astype(np.float32)
            found.metrics.update(_measured(view, scored))
            if view.name in pooled:
                kept[view.name] = scored
        for name, parts in self.task.pooled.items():
            views = [view for view in self.task.evaluated if view.name in parts]
            found.metrics.update(_measured_together(name, views, kept))
        return found

    def _scored(self, view: View, logits: Tensor, predicted: NDArray[np.int64]) -> Scored:
        scored = Scored(logits.cpu().numpy(), view.labels, predicted)
        if view.ood_score:
            scored = replace(scored, ood=ood_score(view.ood_score, scored.logits, self.backbone.scale))
        return scored

    def _features(self, tower: nn.Module | None, view: View) -> Tensor:
        return self.frozen_features(view) if tower is None else self._forward(tower, view.domain, view.indices)

    def _prepared(self, tower: nn.Module) -> nn.Module:
        """Give the tower in the evaluation's precision; real bf16 weights, since autocast of frozen ones is slow."""
        return tower if self.dtype == torch.float32 else copy.deepcopy(tower).to(self.dtype)

    def _forward(self, tower: nn.Module, domain: int, indices: NDArray[np.int64]) -> Tensor:
        parts = []
        with torch.no_grad(), torch.autocast(self.backbone.device.type, enabled=False):
            for start in range(0, len(indices), BATCH):
                chosen = indices[start : start + BATCH]
                filled = np.resize(chosen, BATCH)
                images = self._normalise(self.store.centre(domain, filled))
                parts.append(tower(images.to(self.dtype))[: len(chosen)].float())
                self.pulse("evaluating")
        return torch.cat(parts) if parts else torch.zeros(0, 1, device=self.backbone.device)

    def _load_or_compute(self, domain: int) -> NDArray[np.float32]:
        """Map the features of a domain from disk; the whole array is never read into memory."""
        image, device = self.store.image, self.backbone.device.type
        precision = str(self.dtype).removeprefix("torch.")
        kind = f"{image.size}-{image.interpolation}-{image.resize}-{precision}-{device}-{CACHE_VERSION}"
        path = self._cache / f"{self.backbone.digest}-{self.store.domains[domain].digest}-{kind}.npy"
        n = len(self.store.dataset.domains[domain].files)
        if not path.is_file():
            features = self._forward(self._prepared(self.backbone.visual), domain, np.arange(n)).cpu().numpy()
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(path, lambda file: np.save(file, features))
        kept: NDArray[np.float32] = np.load(path, mmap_mode="r")
        return kept


def _measured(view: View, scored: Scored) -> dict[str, Any]:
    """Give the record keys of a view; what there is nothing to measure of has none."""
    values = {f"{view.name}_{name}": METRICS[name](scored) for name in view.metrics}
    return {key: value for key, value in values.items() if value == value}


def _measured_together(name: str, views: Sequence[View], kept: Mapping[str, Scored]) -> dict[str, Any]:
    """Give the record keys of the pooled samples of views that have the same class names."""
    if not views:
        return {}
    parts = [kept[view.name] for view in views]
    logits, labels, predicted = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("logits", "labels", "predicted")
    )
    return _measured(replace(views[0], name=name), Scored(logits, labels, predicted))
