"""One trial: build, step, evaluate, checkpoint, record. The same loop for all methods."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import files
from bench.algorithm import Algorithm, Setup
from bench.dataset import Dataset, read_captions
from bench.errors import Conflict, RunFailed, SpecError
from bench.evaluation import Evaluated, Evaluator
from bench.images import Batches, ImageStore
from bench.measures import variant
from bench.models import Backbone, load_backbone
from bench.protocols import Protocol, Task, View
from bench.registry import algorithms, protocols
from bench.seeds import seed_hash
from bench.spec import Places, TrialSpec
from bench.store import Attempt
from bench.version import code_version

SCHEMA = 1
"""Raised when the meaning of a record's keys changes."""

CHECKPOINT_SECONDS = float(os.environ.get("CLIPBED_CHECKPOINT_SECONDS", "15"))
"""A checkpoint is written at most this often, and so seldom that it costs two per cent of the time."""
CHECKPOINT_SHARE = 0.02


class Stopped(Exception):
    """The trial was asked to stop; it goes on at its checkpoint."""


@dataclass
class Meter:
    """Means of what `update` logs, since the last record."""

    sums: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    def add(self, logs: dict[str, Any]) -> None:
        """Add one step's scalars; tensors are not read, so a device is not waited for."""
        self.count += 1
        for name, value in logs.items():
            doubled = value.double() if isinstance(value, torch.Tensor) else float(value)
            self.sums[name] = self.sums[name] + doubled if name in self.sums else doubled

    def flush(self) -> dict[str, float]:
        """Give the means and start anew."""
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


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


def run(trial: Trial, attempt: Attempt, stop: Callable[[], bool]) -> list[dict[str, Any]]:
    """Run a trial from its checkpoint, or from the start, to its end; give its records.

    Checkpoint, predictions and the records so far go to the run folder through `attempt`. A trial that was stopped or
    killed at any moment and run again gives the same records as one that was not.

    Raises:
        Stopped: `stop()` was true; a checkpoint has been written.
        Superseded: a newer attempt holds the trial.
    """
    spec, algorithm = trial.spec, trial.algorithm
    meter = Meter()
    start, records = _restore(trial, attempt, meter)
    recorded = {record["step"] for record in records}
    clock = _Clock(start)
    drawn_from = trial.task if algorithm.uses_labelled else replace(trial.task, train=())
    batches = trial.batches.steps(drawn_from, start, spec.steps)
    for step in range(start, spec.steps + 1):
        try:
            if _is_due(spec, step) and step not in recorded:
                records += _evaluate(trial, attempt, step, meter)
                if step < spec.steps:
                    attempt.write_records(records)
            if step == spec.steps:
                break
            if stop():
                raise Stopped
        except Stopped:
            _save(trial, attempt, step, meter, records)
            raise
        if clock.is_checkpoint_due(step):
            clock.saved(_save(trial, attempt, step, meter, records))
        labelled, unlabeled = next(batches)
        torch.manual_seed(seed_hash(spec.run_seed, step))
        meter.add(algorithm.update(labelled, unlabeled or None))
        attempt.beat(step + 1, spec.steps, rate=clock.rate(step + 1))
    return records


def _is_due(spec: TrialSpec, step: int) -> bool:
    return step % spec.evaluate_every == 0 or step == spec.steps


def _evaluate(trial: Trial, attempt: Attempt, step: int, meter: Meter) -> list[dict[str, Any]]:
    final = step == trial.spec.steps
    evaluated = list(trial.evaluator.evaluate(trial.algorithm, final=final))
    logs = meter.flush()
    if final:
        _write_predictions(trial, attempt, evaluated)
    return [trial.record(each, step, logs) for each in evaluated]


def _write_predictions(trial: Trial, attempt: Attempt, evaluated: list[Evaluated]) -> None:
    """Store label, prediction and confidence of every sample, so that paired tests need no GPU later."""
    arrays: dict[str, Any] = {}
    for view in trial.task.evaluated:
        order = np.argsort(view.indices)
        arrays[f"{view.name}/index"] = view.indices[order].astype(np.uint32)
        arrays[f"{view.name}/label"] = view.labels[order].astype(np.uint16)
        for each in evaluated:
            label = each.label or "main"
            arrays[f"{view.name}/{label}/predicted"] = each.predicted[view.name][order].astype(np.uint16)
            arrays[f"{view.name}/{label}/confidence"] = each.confidence[view.name][order].astype(np.float16)
            if view.name in each.ood:  # in full: scores of bare cosines differ in the fourth digit
                arrays[f"{view.name}/{label}/ood_score"] = each.ood[view.name][order]
    attempt.check()
    files.replace(attempt.run.predictions_path, lambda file: np.savez_compressed(file, **arrays))


def _save(trial: Trial, attempt: Attempt, step: int, meter: Meter, records: list[dict[str, Any]]) -> float:
    """Write the checkpoint of a trial with `step` updates done; give the seconds it took.

    The records go with it, so that it needs no other file, which a process taken for dead might have changed.
    """
    began = time.monotonic()
    attempt.check()
    state = {
        "step": step,
        "algorithm": trial.algorithm.state_dict(),
        "meter": {"sums": {name: float(value) for name, value in meter.sums.items()}, "count": meter.count},
        "records": json.dumps(records),
    }
    files.replace(attempt.run.checkpoint_path, lambda file: torch.save(state, file))
    return time.monotonic() - began


def _restore(trial: Trial, attempt: Attempt, meter: Meter) -> tuple[int, list[dict[str, Any]]]:
    """Take the checkpoint back, if there is one that can be read; give the number of updates done and the records."""
    path = attempt.run.checkpoint_path
    if not path.is_file():
        return 0, []
    try:
        state = torch.load(path, weights_only=True, map_location=trial.backbone.device)
    except (RuntimeError, EOFError, pickle.UnpicklingError):  # a damaged disk; the trial starts anew
        return 0, []
    try:
        trial.algorithm.load_state_dict(state["algorithm"])
        records = json.loads(state["records"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise RunFailed(
            f"the checkpoint {path} does not fit this code ({type(error).__name__}: {error}); use the code that wrote "
            "it, or delete the file and run the trial again from its start"
        ) from error
    meter.sums, meter.count = dict(state["meter"]["sums"]), int(state["meter"]["count"])
    return int(state["step"]), records


class _Clock:
    """Rate of training, and when the next checkpoint is worth its time."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.began = self.last_saved = time.monotonic()
        self.cost = 0.0

    def rate(self, step: int) -> float:
        return (step - self.start) / max(1e-9, time.monotonic() - self.began)

    def is_checkpoint_due(self, step: int) -> bool:
        wait = max(CHECKPOINT_SECONDS, self.cost / CHECKPOINT_SHARE)
        return step > self.start and time.monotonic() - self.last_saved >= wait

    def saved(self, seconds: float) -> None:
        self.cost = seconds
        self.last_saved = time.monotonic()


def _setup(
    spec: TrialSpec,
    places: Places,
    dataset: Dataset,
    backbone: Backbone,
    task: Task,
    evaluator: Evaluator,
) -> Setup:
    def pool() -> Any:
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

    return replace(
        task,
        train=good(task.train),
        unlabeled=good(task.unlabeled),
        evaluation=good(task.evaluation),
        further=good(task.further),
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
