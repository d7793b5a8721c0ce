"""One trial, built: its data, task and method, and what its records say. `bench.loop` runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench import files
from bench.algorithm import Algorithm, Setup
from bench.dataset import Dataset, read_captions
from bench.domainbed import checkout
from bench.errors import Conflict, SpecError
from bench.evaluation import Evaluated, Evaluator
from bench.images import Batches, ImageStore
from bench.measures import variant
from bench.models import Backbone, load_backbone
from bench.protocols import Protocol, Task, View
from bench.registry import algorithms, protocols
from bench.spec import Places, TrialSpec
from bench.version import code_version

SCHEMA = 1
"""Raised when the meaning of a record's keys changes."""


class Stopped(Exception):
    """The trial was asked to stop; it goes on at its checkpoint."""


@dataclass
class Trial:
    """All the parts of one trial, ready to run."""

    spec: TrialSpec
    dataset: Dataset
    store: ImageStore
    backbone: Backbone
    task: Task
    algorithm: Algorithm
    batches: Batches
    evaluator: Evaluator

    def record(self, evaluated: Evaluated, step: int, logs: dict[str, float]) -> dict[str, Any]:
        """Make the flat record of one evaluation; it holds nothing that differs between two runs of the same trial."""
        spec = self.spec
        label = f"{spec.algorithm}[{evaluated.label}]" if evaluated.label else spec.algorithm
        return {
            "schema": SCHEMA,
            "trial": spec.trial_id,
            "protocol": spec.protocol,
            "protocol_version": spec.protocol_version,
            **({"variant": variant(spec.options)} if spec.options else {}),
            "dataset": spec.dataset,
            "dataset_version": self.dataset.version,
            "algorithm": spec.algorithm,
            "predictor": label,
            "test_domains": list(spec.test_domains),
            "domains": [domain.name for domain in self.dataset.domains],
            "trial_seed": spec.trial_seed,
            "hparams_seed": spec.hparams_seed,
            "backbone": spec.backbone,
            "pretrained": spec.pretrained,
            **({"domainbed": spec.domainbed} if spec.domainbed else {}),
            "step": step,
            **evaluated.metrics,
            **logs,
            "n_bad_images": len(self.store.bad),
            "data_digest": self.store.digest,
            "file_lists": [domain.digest for domain in self.dataset.domains],
            "backbone_digest": self.backbone.digest,
            "split_digest": self.task.split_digest,
            "class_digest": _digest(*self.task.class_names, *self.dataset.templates),
            "code": code_version(),
            "transductive": self.task.transductive,
            "unlabeled": self.task.unlabeled[0].name.partition("_")[2] if self.task.unlabeled else "",
            "notes": [*self.dataset.notes, *self.algorithm.notes()],
        }


def build(spec: TrialSpec, places: Places, device: torch.device, pulse: Callable[[str], None]) -> Trial:
    """Build a trial: data, backbone, task, method.

    Raises:
        BenchError: data, weights or hparams are not as they must be.
    """
    if spec.domainbed:
        checkout.use(places.domainbed, spec.domainbed)
    kind: type[Algorithm] = algorithms[spec.algorithm]
    protocol: Protocol = protocols[spec.protocol]
    if protocol.version != spec.protocol_version:
        raise SpecError(
            f"this trial is of version {spec.protocol_version} of {spec.protocol}, the code has version "
            f"{protocol.version}: launch it anew, or use the code that it was launched with"
        )
    dataset = protocol.load(spec, places)
    pulse("loading the backbone")
    backbone = load_backbone(spec.backbone, spec.pretrained, places).to(device)
    store = ImageStore(dataset, backbone.image, places.cache_folder(), pulse)
    if not spec.skip_bad_images:
        store.refuse_bad_images()
    task = protocol.task(dataset, spec, needs_unlabeled="unlabeled" in kind.needs).measured(spec.metrics)
    task = _without_bad(task, store)
    evaluator = Evaluator(
        store, backbone, task, places.cache_folder(), spec.hparams.get("eval_precision", "fp32"), pulse
    )
    batches = Batches(
        store,
        spec.trial_seed,
        spec.hparams.get("batch_size", 1),
        spec.hparams.get("augmentation", "none"),
        device,
    )
    if spec.steps and not task.few_shot:
        batches.check((*(task.train if kind.uses_labelled else ()), *task.unlabeled))
    torch.manual_seed(spec.run_seed)
    algorithm = kind(_setup(spec, places, dataset, backbone, task, evaluator))
    return Trial(spec, dataset, store, backbone, task, algorithm, batches, evaluator)


def follower(trial: Trial, spec: TrialSpec) -> Trial:
    """Build a trial whose weights follow the same path as those of `trial`: it has its method's own parts alone."""
    kind: type[Algorithm] = algorithms[spec.algorithm]
    built = trial.algorithm
    setup = replace(built.setup, hparams=spec.hparams, run_seed=spec.run_seed, shared=built.shared_parts)
    return replace(trial, spec=spec, algorithm=kind(setup))


def _setup(
    spec: TrialSpec,
    places: Places,
    dataset: Dataset,
    backbone: Backbone,
    task: Task,
    evaluator: Evaluator,
) -> Setup:
    def pool() -> Any:
        """Open the anchor pool when a method first asks for it."""
        from bench.pool import open_pool, pool_table

        if spec.pool:
            _check_content("pool", pool_table(Path(places.pool or "")), spec.pool)
        which = spec.hparams.get("pool", "builtin")
        return open_pool(places, backbone, places.cache_folder(), which=which, progress=evaluator.pulse)

    return Setup(
        backbone=backbone,
        class_names=task.class_names,
        train=task.train,
        unlabeled=task.unlabeled,
        domain_names=tuple(dataset.domains[view.domain].words for view in task.train),
        templates=dataset.templates,
        hparams=spec.hparams,
        n_steps=spec.steps,
        run_seed=spec.run_seed,
        features=evaluator.frozen_features,
        captions=_captions_of(spec, dataset, places),
        pool=pool,
    )


def _check_content(what: str, path: Path, tag: str) -> None:
    if not path.is_file() or files.content_tag(path) != tag:
        raise Conflict(
            f"the {what} file {path} is not the one of this trial ({tag}): put that one back, or launch anew"
        )


def _captions_of(spec: TrialSpec, dataset: Dataset, places: Places) -> Callable[[View], list[str] | None]:
    captions = dataset.captions
    if spec.captions:
        given = Path(places.captions or "")
        _check_content("captions", given, spec.captions)
        captions = read_captions(given)

    def of(view: View) -> list[str] | None:
        names = dataset.domains[view.domain].files
        found = [captions.get(names[index]) or None for index in view.indices.tolist()]  # an empty one is none
        return None if None in found else [caption for caption in found if caption is not None]

    return of


def _without_bad(task: Task, store: ImageStore) -> Task:
    def good(views: tuple[View, ...]) -> tuple[View, ...]:
        return tuple(store.without_bad(view) for view in views)

    found = replace(
        task,
        train=good(task.train),
        unlabeled=good(task.unlabeled),
        evaluation=good(task.evaluation),
        further=good(task.further),
    )
    empty = [view.name for view in (*found.train, *found.unlabeled, *found.evaluated) if not len(view)]
    if empty:
        raise SpecError(
            f"{store.dataset.name} has no images for {', '.join(dict.fromkeys(empty))}: it is none to split so, or its bad "
            "images were all there was (`python -m bench.data verify` names them)"
        )
    return found


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
