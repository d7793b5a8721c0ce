"""What `sweep launch --dry-run` prints: trials by state, their hparams, what is sent to Slurm, the time it may take."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from bench import console
from bench.machine import cpu_jobs
from bench.measures import label
from bench.plan import Planned
from bench.sharing import groups, paths_of
from bench.spec import TrialSpec
from bench.status import TrialStatus, work_left
from bench.store import Run, State


def preview(folder: Path, planned: Sequence[Planned], options: argparse.Namespace, *, on_slurm: bool) -> None:
    """Print what a launch would do; nothing is written."""
    trials = [TrialStatus.of(Run(folder / each.spec.trial_id), each.spec.to_json()) for each in planned]
    console.say(f"{folder}: {console.status_text(trials)}\n")
    console.say(_hparams_table([each.spec for each in planned]))
    if on_slurm:
        from bench import slurm_sweep

        todo = [(each.spec, each.places) for each, trial in zip(planned, trials) if trial.state is not State.DONE]
        console.say("\n" + slurm_sweep.describe(slurm_sweep.plan(todo, folder, options), folder))
    else:
        left = [(each.spec, trial) for each, trial in zip(planned, trials) if trial.state is not State.DONE]
        console.say("\n" + _time_here(left, options.jobs or cpu_jobs(), trials, share=options.share))
    console.say("dry run: nothing was written")


def _time_here(
    todo: Sequence[tuple[TrialSpec, TrialStatus]], jobs: int, trials: Sequence[TrialStatus], *, share: bool
) -> str:
    """Word how long what is not done takes here; of trials that are trained as one the first stands for all."""
    paths = paths_of(spec for spec, _ in todo) if share else {}
    trainings = groups(todo, lambda each: paths.get(each[0].trial_id))
    done = [trial for trial in trials if trial.state is State.DONE]
    left = work_left(
        [*done, *(training[0][1] for training in trainings)], [state for state in State if state is not State.DONE]
    )
    shared = f"{len(todo)} trials to run in {len(trainings)} trainings\n" if len(trainings) < len(todo) else ""
    estimate = f"about {console.duration(left / jobs)} with {jobs} at a time" if left is not None else "not known yet"
    return f"{shared}time to run what is not done: {estimate}"


def _hparams_table(specs: Sequence[TrialSpec]) -> str:
    rows = []
    keys = 3 if len({_of(spec)[2] for spec in specs}) > 1 else 2  # the protocol only where there are several
    for of, group in itertools.groupby(sorted(specs, key=_of), key=_of):
        told = of[:keys]
        for name, values in _distinct_hparams(list(group)).items():
            shown = ", ".join(values[:6]) + (f", … ({len(values)} values)" if len(values) > 6 else "")
            rows.append([*told, name, shown])
            told = ("",) * keys
    return console.table(rows, [*("algorithm", "data set", "protocol")[:keys], "hparam", "value"])


def _distinct_hparams(specs: Sequence[TrialSpec]) -> dict[str, list[str]]:
    values: dict[str, dict[str, None]] = {"steps": {}, "evaluate_every": {}}
    for spec in specs:
        for name, value in {"steps": spec.steps, "evaluate_every": spec.evaluate_every, **spec.hparams}.items():
            values.setdefault(name, {})[f"{value:.6g}" if isinstance(value, float) else str(value)] = None
    return {name: list(each) for name, each in values.items()}


def _of(spec: TrialSpec) -> tuple[str, ...]:
    return spec.algorithm, spec.dataset, label(spec.to_json())
