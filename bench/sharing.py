"""Which trials are trained once: those whose weights follow the same path, as ERM's and an averaging method's may.

The method says what decides the path (`Algorithm.training_path`); the rest is the spec.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TypeVar

from bench.errors import BenchError
from bench.registry import algorithms
from bench.spec import TrialSpec

MOST_TOGETHER = 8
"""Trials of one training at most: each may hold an average of the weights in memory."""

_OWN = ("algorithm", "hparams")

T = TypeVar("T")


def path_of(spec: TrialSpec) -> str | None:
    """Name the path of a trial's weights, the same for trials that may be trained as one; None = it shares it with none."""
    try:
        method = algorithms[spec.algorithm]
        decides = method.training_path(spec.hparams)
    except (BenchError, KeyError):  # unknown methods and hparams are told of where the trial is run
        return None
    if decides is None:
        return None
    same = {name: value for name, value in spec.to_json().items() if name not in _OWN}
    reads = [sorted(method.needs), method.uses_labelled]
    return json.dumps([same, reads, dict(decides)], sort_keys=True)


def paths_of(specs: Iterable[TrialSpec]) -> dict[str, str | None]:
    """Give by trial id the `path_of` of each of `specs`; None for those that no other one of them could share it with."""
    alike: dict[tuple[object, ...], list[TrialSpec]] = {}
    for spec in specs:  # path_of is dear where there are thousands, and most are by themselves
        key = (spec.dataset, spec.test_domains, spec.trial_seed, spec.hparams_seed, spec.steps, spec.backbone)
        alike.setdefault(key, []).append(spec)
    return {
        spec.trial_id: path_of(spec) if len(together) > 1 else None for together in alike.values() for spec in together
    }


def groups(items: Iterable[T], key: Callable[[T], str | None]) -> list[list[T]]:
    """Put what is trained as one together, in the order of first appearance; most items are by themselves."""
    found: list[list[T]] = []
    open_at: dict[str, list[T]] = {}
    for item in items:
        name = key(item)
        group = None if name is None else open_at.get(name)
        if group is None or len(group) >= MOST_TOGETHER:
            group = []
            found.append(group)
            if name is not None:
                open_at[name] = group
        group.append(item)
    return found
