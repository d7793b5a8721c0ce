"""Which method can do what a protocol asks for: checked before anything is started, with one clear message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.dataset import Dataset
from bench.errors import SpecError
from bench.protocols import Task
from bench.registry import algorithms, protocols
from bench.spec import TrialSpec


@dataclass(frozen=True)
class Outline:
    """What a method must know of a task before it starts.

    Attributes:
        train, unlabeled: names of the views → images in them.
        few_shot: batches may be larger than views.
        new_classes: some view is scored against classes that are not trained on.
    """

    train: dict[str, int]
    unlabeled: dict[str, int]
    few_shot: bool
    new_classes: bool

    @classmethod
    def of(cls, task: Task) -> Outline:
        """Outline a task."""
        trained = set(task.class_names)
        return cls(
            train={view.name: len(view) for view in task.train},
            unlabeled={view.name: len(view) for view in task.unlabeled},
            few_shot=task.few_shot,
            new_classes=any(not trained.issuperset(view.class_names) for view in task.evaluated),
        )


def outline(spec: TrialSpec, dataset: Dataset) -> Outline:
    """Make the task of a trial and outline it.

    Raises:
        SpecError: the protocol refuses the spec, or it does not fit the data set.
    """
    protocol = protocols[spec.protocol]
    protocol.check(spec)
    return Outline.of(protocol.task(dataset, spec, needs_unlabeled="unlabeled" in algorithms[spec.algorithm].needs))


def check_method(spec: TrialSpec, of_task: Outline, batch: int) -> None:
    """Refuse a method that cannot do the task.

    Args:
        spec: the trial.
        of_task: its task.
        batch: images a view and step; 0 where nothing is trained.

    Raises:
        SpecError: the method lacks images it needs, cannot score new classes, or takes larger batches than there are
            images.
    """
    method = algorithms[spec.algorithm]
    if _trains_on_labels(method) and not of_task.train:
        fitting = [name for name in algorithms if not _trains_on_labels(algorithms[name])]
        raise SpecError(
            f"{spec.algorithm} trains on labelled images, and {spec.protocol} on {spec.dataset} has none; "
            f"methods that need none: {', '.join(fitting)}"
        )
    if "unlabeled" in method.needs and not of_task.unlabeled:
        raise SpecError(
            f"{spec.algorithm} trains on unlabelled images, and {spec.protocol} on {spec.dataset} has none left for it"
        )
    problem = method.new_classes_problem(spec.hparams) if of_task.new_classes else ""
    if problem:
        raise SpecError(f"{spec.algorithm} cannot be tested by {spec.protocol}: {problem}")
    used = {**(of_task.train if method.uses_labelled else {}), **of_task.unlabeled}
    name = min(used, key=lambda each: used[each], default=None)
    if name is not None and used[name] < batch and not of_task.few_shot:
        raise SpecError(
            f"{spec.algorithm}: batch_size={batch} is larger than {name} of {spec.dataset} ({used[name]} images); "
            f"give a smaller one: --hparams '{{\"batch_size\": {used[name]}}}'"
        )


def _trains_on_labels(method: Any) -> bool:
    return bool(method.uses_labelled and method.steps.high != 0)
