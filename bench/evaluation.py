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
from bench.data import ImageStore, Normalise
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
        self._frozen: dict[int, Tensor] = {}

    def frozen_features(self, view: View) -> Tensor:
        """Give the pre-trained tower's features of a view, (n, d) float32, not normalised; kept on disk by domain."""
        if view.domain not in self._frozen:
            self._frozen[view.domain] = self._load_or_compute(view.domain)
        return self._frozen[view.domain][torch.from_numpy(view.indices)].to(self.backbone.device)

    def evaluate(self, algorithm: Algorithm, *, final: bool) -> Iterator[Evaluated]:
        """Yield what each of the algorithm's predictors scores on the task's views, the main one first."""
        untouched = algorithm.updates == 0 and algorithm.starts_zero_shot
        for label, predictor in algorithm.predictors(final=final):
            shown = Predictor(None, predictor.head) if untouched else predictor
            yield self._score(label, shown)

    def _score(self, label: str, predictor: Predictor) -> Evaluated:
        tower = None if predictor.tower is None else self._prepared(predictor.tower)
        scores: dict[str, float] = {}
        predicted: dict[str, NDArray[np.int64]] = {}
        confidence: dict[str, NDArray[np.float32]] = {}
        for view in self.task.evaluated:
            features = self._features(tower, view)
            with torch.no_grad():
                top = predictor.head(features, view.class_names).float().softmax(dim=-1).max(dim=-1)
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
        with torch.no_grad():
            for start in range(0, len(indices), BATCH):
                chosen = indices[start : start + BATCH]
                filled = np.resize(chosen, BATCH)
                images = self._normalise(self.store.centre(domain, filled))
                parts.append(tower(images.to(self.dtype))[: len(chosen)].float())
                self.pulse("evaluating")
        return torch.cat(parts) if parts else torch.zeros(0, 1, device=self.backbone.device)

    def _load_or_compute(self, domain: int) -> Tensor:
        image = self.store.image
        kind = f"{image.size}-{image.interpolation}-{image.resize}-{str(self.dtype).removeprefix('torch.')}"
        path = self._cache / f"{self.backbone.digest}-{self.store.domains[domain].digest}-{kind}.npy"
        n = len(self.store.dataset.domains[domain].files)
        if path.is_file():
            kept = np.load(path)
            if len(kept) == n:
                return torch.from_numpy(kept)
        features = self._forward(self._prepared(self.backbone.visual), domain, np.arange(n)).cpu()
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, lambda file: np.save(file, features.numpy()))
        return features
