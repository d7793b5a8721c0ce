"""Data sets without pixels and specs, for the tests of protocols; importable by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.dataset import Dataset, Domain
from bench.protocols import Task
from bench.registry import protocols
from bench.spec import TrialSpec

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")


def made_dataset(
    sizes: Sequence[int] = (40, 60, 80),
    names: Sequence[str] = NAMES,
    splits: Mapping[str, Sequence[Sequence[int]]] | None = None,
    name: str = "Made",
    labels: Sequence[Sequence[int]] | None = None,
) -> Dataset:
    """Give a data set whose classes take turns in every domain, unless `labels` of each domain are given."""
    of_domains = labels or [np.arange(n) % len(names) for n in sizes]
    domains = tuple(
        Domain(f"d{place}", Path(), tuple(map(str, range(len(each)))), np.asarray(each, dtype=np.int64))
        for place, each in enumerate(of_domains)
    )
    arrays = {
        split: tuple(np.asarray(each, dtype=np.int64) for each in positions)
        for split, positions in (splits or {}).items()
    }
    return Dataset(name, tuple(names), domains, splits=arrays)


def made_spec(protocol: str, **changes: Any) -> TrialSpec:
    """Give a valid spec of a protocol."""
    fields: dict[str, Any] = {
        "protocol": protocol,
        "protocol_version": 1,
        "dataset": "Made",
        "algorithm": "A",
        "test_domains": (),
        "backbone": "b",
        "pretrained": "p",
        "trial_seed": 0,
        "hparams_seed": 0,
        "hparams": {},
        "steps": 1,
        "evaluate_every": 1,
    }
    return TrialSpec(**{**fields, **changes})


def made_task(protocol: str, dataset: Dataset | None = None, *, needs_unlabeled: bool = False, **changes: Any) -> Task:
    """Make the task of a spec."""
    dataset = dataset or made_dataset()
    spec = made_spec(protocol, **changes)
    task: Task = protocols[protocol].task(dataset, spec, needs_unlabeled=needs_unlabeled)
    return task


def by_name(task: Task) -> dict[str, Any]:
    """Give the evaluated views by name."""
    return {view.name: view for view in task.evaluated}
