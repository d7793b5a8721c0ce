"""Evaluation: each split once for each distinct predictor; features of the frozen tower once for all trials.

Images go through a tower in batches of one fixed size (the last one is filled up), so that a sample's features do not
depend on which samples are evaluated with it, and cached features equal computed ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench import files, metrics
from bench.algorithm import Algorithm, Predictor
from bench.errors import RunFailed
from bench.images import CACHE_VERSION, ImageStore, Normalise
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
    """

    label: str
    metrics: dict[str, float]
    predicted: dict[str, NDArray[np.int64]]
    confidence: dict[str, NDArray[np.float32]]


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
        probe = View(view.name, view.domain, view.indices[:BATCH], view.labels[:BATCH], view.class_names)
        given, frozen = self._forward(self._prepared(tower), view.domain, probe.indices), self.frozen_features(probe)
        return given.shape == frozen.shape and torch.allclose(given, frozen, rtol=1e-4, atol=1e-4)

    def _score(self, label: str, predictor: Predictor) -> Evaluated:
        tower = None if predictor.tower is None else self._prepared(predictor.tower)
        scores: dict[str, float] = {}
        predicted: dict[str, NDArray[np.int64]] = {}
        confidence: dict[str, NDArray[np.float32]] = {}
        for view in self.task.evaluated:
            features = self._features(tower, view)
            with torch.no_grad():
                logits = predictor.head(features, view.class_names).float()
                if not logits.isfinite().all():
                    raise RunFailed(f"training diverged: the logits on {view.name} are not finite; try a lower lr")
                top = logits.softmax(dim=-1).max(dim=-1)
            predicted[view.name] = top.indices.cpu().numpy()
            confidence[view.name] = top.values.cpu().numpy()
            scores[f"{view.name}_acc"] = metrics.accuracy(predicted[view.name], view.labels)
        return Evaluated(label, scores, predicted, confidence)

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
