"""Evaluation: each split once for each distinct predictor; features of the frozen tower once for all trials.

Images go through a tower in batches of one fixed size (the last one is filled up), so that a sample's features do not
depend on which samples are evaluated with it, and cached features equal computed ones. What is left of each view after
its full batches goes together, so that one batch is filled up and not one a view.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.algorithm import Algorithm, Predictor
from bench.derived import Derived
from bench.errors import RunFailed
from bench.images import CACHE_VERSION, ImageStore, Normalise
from bench.metrics import METRICS, Scored, ood_score
from bench.models import Backbone
from bench.protocols import Task, View

BATCH = 64
ROWS = 128 * BATCH
"""Images of a domain whose frozen features are kept in one file."""

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
        self._derived = backbone.derived = Derived(cache)
        self._normalise = Normalise(store.image, backbone.device)
        self._frozen: dict[tuple[int, int], NDArray[np.float32]] = {}
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._twins: list[nn.Module] = []

    def frozen_features(self, view: View) -> Tensor:
        """Give the pre-trained tower's features of a view, (n, d) float32, not normalised; kept on disk.

        A domain's images are computed and kept `ROWS` at a time, those that no view has are left alone: ImageNet's tests are
        a small part of it.
        """
        blocks = view.indices // ROWS
        found: NDArray[np.float32] | None = None
        for block in np.unique(blocks).tolist():
            key = (view.domain, block)
            if key not in self._frozen:
                self._frozen[key] = self._load_or_compute(*key)
            rows = self._frozen[key]
            if found is None:
                found = np.empty((len(view), rows.shape[1]), np.float32)
            chosen = blocks == block
            found[chosen] = rows[view.indices[chosen] - block * ROWS]
        assert found is not None, f"{view.name} has no images"
        return torch.from_numpy(found).to(self.backbone.device)

    def evaluate(self, algorithm: Algorithm, *, final: bool) -> Iterator[Evaluated]:
        """Yield what each of the algorithm's predictors scores on the task's views, the main one first.

        The same predictor under a second label is not evaluated again.
        """
        known: list[tuple[Predictor, Evaluated]] = []
        for label, predictor in algorithm.predictors(final=final):
            given = predictor
            if same := [evaluated for each, evaluated in known if each is given]:
                yield replace(same[0], label=label)
                continue
            if algorithm.updates == 0 and self._is_pretrained(predictor.tower):
                predictor = Predictor(None, predictor.head)
            known.append((given, self._score(label, predictor)))
            yield known[-1][1]

    @contextlib.contextmanager
    def keeping(self, towers: Iterable[nn.Module]) -> Iterator[None]:
        """Run each of `towers` on a view once, whoever predicts with it; nothing may change them within the block."""
        self._kept = {id(tower): {} for tower in towers}
        try:
            yield
        finally:
            self._kept = {}

    def _is_pretrained(self, tower: nn.Module | None) -> bool:
        """Say whether `tower` still gives the pre-trained features; then the cache serves for all.

        By its weights, where it is of the same kind; where these differ or cannot be compared, by one batch.
        """
        if tower is None or _is_equal(tower, self.backbone.visual):
            return True
        view = self.task.evaluation[0]
        probe = replace(view, indices=view.indices[:BATCH], labels=view.labels[:BATCH])
        given, frozen = self._forward(self._prepared(tower), _places(probe)), self.frozen_features(probe)
        return given.shape == frozen.shape and torch.allclose(given, frozen, rtol=1e-4, atol=1e-4)

    def _score(self, label: str, predictor: Predictor) -> Evaluated:
        features_of = self._features_of(predictor.tower)
        found = Evaluated(label, {}, {}, {})
        pooled = {name for names in self.task.pooled.values() for name in names}
        kept: dict[str, Scored] = {}
        for view in self.task.evaluated:
            features = features_of(view)
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

    def _features_of(self, tower: nn.Module | None) -> Callable[[View], Tensor]:
        """Give what computes a tower's features of a view, or looks them up."""
        if tower is None:
            return self.frozen_features
        kept = self._kept.get(id(tower))
        prepared = functools.cache(lambda: self._prepared(tower))
        ends = functools.cache(lambda: self._ends(prepared()))

        def features(view: View) -> Tensor:
            """Run the tower on a view, unless it is among those that are kept and was run before."""
            if kept is not None and view.name in kept:
                return kept[view.name]
            whole = _places(view)[: len(view) - len(view) % BATCH]
            parts = [self._forward(prepared(), whole)] if len(whole) else []
            found = torch.cat([*parts, ends()[view.name]] if len(whole) < len(view) else parts)
            if kept is not None:
                kept[view.name] = found
            return found

        return features

    def _prepared(self, tower: nn.Module) -> nn.Module:
        """Give the tower in the evaluation's precision; real bf16 weights, since autocast of frozen ones is slow.

        One twin serves for all towers of a kind: what was prepared before is overwritten.
        """
        if self.dtype == torch.float32:
            return tower
        source = tower.state_dict()
        for twin in self._twins:
            target = twin.state_dict()
            if type(twin) is type(tower) and _shapes(target) == _shapes(source):
                torch._foreach_copy_(list(target.values()), list(source.values()))
                return twin
        self._twins.append(copy.deepcopy(tower).requires_grad_(False).to(self.dtype))
        return self._twins[-1]

    def _ends(self, tower: nn.Module) -> dict[str, Tensor]:
        """Give by view the features of what its full batches leave over."""
        views = self.task.evaluated
        left = [_places(view)[len(view) - len(view) % BATCH :] for view in views]
        features = self._forward(tower, np.concatenate(left))
        return {view.name: each for view, each in zip(views, features.split([*map(len, left)]), strict=True)}

    def _forward(self, tower: nn.Module, places: NDArray[np.int64]) -> Tensor:
        """Run a tower on the images at `places`, (n, 2): domain and position in it."""
        parts = []
        with torch.no_grad(), torch.autocast(self.backbone.device.type, enabled=False):
            for start in range(0, len(places), BATCH):
                chosen = places[start : start + BATCH]
                images = self._normalise(self._centre(np.resize(chosen, (BATCH, 2))))
                parts.append(tower(images.to(self.dtype))[: len(chosen)].float())
                self.pulse("evaluating")
        return torch.cat(parts) if parts else torch.zeros(0, 1, device=self.backbone.device)

    def _centre(self, places: NDArray[np.int64]) -> Tensor:
        """Give the centre crops at `places`, (B, 3, S, S) uint8, channels last in memory."""
        domains, size = np.unique(places[:, 0]).tolist(), self.store.image.size
        if len(domains) == 1:
            return self.store.centre(domains[0], places[:, 1])
        images = torch.empty((len(places), size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        for domain in domains:
            its = np.flatnonzero(places[:, 0] == domain)
            images[its] = self.store.centre(domain, places[its, 1])
        return images

    def _load_or_compute(self, domain: int, block: int) -> NDArray[np.float32]:
        """Map the features of a block of a domain's images from disk; they are never all in memory."""
        image, backbone = self.store.image, self.backbone
        weights = (backbone.digest, str(self.dtype), backbone.device.type, torch.__version__)
        images = (
            self.store.domains[domain].digest,
            image.size,
            image.mean,
            image.std,
            image.interpolation,
            image.resize,
        )
        first = block * ROWS
        end = min(first + ROWS, len(self.store.dataset.domains[domain].files))

        def batches() -> Iterator[NDArray[np.float32]]:
            tower = self._prepared(backbone.visual)
            for start in range(first, end, BATCH):
                indices = np.arange(start, min(end, start + BATCH))
                yield self._forward(tower, _at(domain, indices)).cpu().numpy()

        return self._derived.rows("features", [*weights, *images, CACHE_VERSION, first, end], batches)


def _places(view: View) -> NDArray[np.int64]:
    return _at(view.domain, view.indices)


def _at(domain: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Name images, (n, 2): domain and position in it."""
    return np.column_stack([np.full(len(indices), domain), indices])


def _is_equal(one: nn.Module, other: nn.Module) -> bool:
    """Say whether two modules have parts of the same kinds and the same weights."""
    left, right = one.state_dict(), other.state_dict()
    kinds = [[type(part) for part in module.modules()] for module in (one, other)]
    same = kinds[0] == kinds[1] and _shapes(left) == _shapes(right)
    return same and all(torch.equal(left[name], right[name]) for name in left)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


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
