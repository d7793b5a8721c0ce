"""The Slurm side of the sweep command: plan arrays, show them, send them, follow them, cancel them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import places, slurm
from bench.config import load_table
from bench.errors import Problems, SpecError, UnknownName
from bench.failures import RetryRule
from bench.garbage import without_collector
from bench.launches import Array, Launch, arrays, launches
from bench.models import known_backbones
from bench.process import is_of_array
from bench.registry import algorithms, datasets, unknown_name
from bench.resources import SCHEMA, Resources, decisive, resources_of
from bench.runs import note_planned, trials_in
from bench.sharing import groups, paths_of
from bench.slurm_launcher import Batch, Packing, Settings, batches, script, send, waiting
from bench.spec import Places, TrialSpec
from bench.status import kind_of, read_status, seconds_of, typical_seconds
from bench.store import Run, State
from bench.version import code_version

Trial = tuple[TrialSpec, Places]
Say = Callable[[str], None]

LAUNCHERS = ("auto", "local", "slurm")

_FOLLOW_SECONDS = 5.0
_OVER = (State.DONE, State.FAILED, State.CANCELLED)
_RESOURCE_OPTIONS = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "exclude": "exclude",
    "time": "time",
    "memory": "memory",
    "cpus_per_trial": "cpus",
    "gpus_per_trial": "gpus",
    "parallel": "parallel",
    "requeue": "requeue",
    "setup": "setup",
    "sbatch": "sbatch",
}
"""Option of the command → field of `Resources`."""


def is_wanted(launcher: str) -> bool:
    """Say whether trials are to be sent to Slurm: asked for, or a controller answers and we are not inside a job.

    Raises:
        SpecError: it was asked for, and no controller answers.
    """
    if launcher == "slurm" and not slurm.is_there():
        raise SpecError(
            "--launcher slurm: no Slurm controller answers here (`scontrol ping`); go to a login node, or use "
            "--launcher local to run on this machine"
        )
    return launcher == "slurm" or (launcher == "auto" and not slurm.inside_job() and slurm.is_there())


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a launch would send.

    Attributes:
        trials: what is to be run, with what each asks for.
        batches: the arrays of trials.
        prepare: the array that reads and decodes their data first, if there is any to.
        settings: what all arrays have in common.
        paths: by trial id what trials that are trained as one have in common; none = by itself.
    """

    trials: list[tuple[Trial, Resources]]
    batches: list[Batch]
    prepare: Batch | None
    settings: Settings
    paths: Mapping[str, str | None]

    @property
    def trainings(self) -> list[list[tuple[Trial, Resources]]]:
        """The trials, those together that are trained as one."""
        return groups(self.trials, lambda each: self.paths.get(each[0][0].trial_id))


def plan(trials: Sequence[Trial], folder: Path, options: argparse.Namespace) -> Plan:
    """Decide which arrays `trials` are sent in.

    Raises:
        BenchError: options or settings are not valid, or Slurm does not answer.
    """
    table = load_table("slurm", SCHEMA)
    _check_rules(table)
    given = {
        field: getattr(options, option)
        for option, field in _RESOURCE_OPTIONS.items()
        if getattr(options, option, None) not in (None, [])
    }
    jobs = options.jobs or 1
    gpus = int(slurm.has_gpus()) if "gpus" not in given and "gpus" not in table else 0
    alike: dict[tuple[str, ...], Resources] = {}
    asked = []
    for spec, found in trials:
        kind = decisive(spec)
        if kind not in alike:
            resources = resources_of(spec, table, given, gpus=gpus)
            alike[kind] = dataclasses.replace(resources, cpus=resources.cpus * jobs)
        asked.append(((spec, found), alike[kind]))
    packing = Packing(trials=options.trials_per_task or jobs, minutes=options.minutes_per_task, jobs=jobs)
    typical = typical_seconds(read_status(folder.parent)) if packing.minutes is not None else {}
    named = [(spec.trial_id, resources) for (spec, _), resources in asked]
    kinds = {spec.trial_id: kind_of(spec.to_json()) for spec, _ in trials} if typical else {}

    def minutes(trial: str) -> float | None:
        seconds = typical.get(kinds.get(trial, ()))
        return None if seconds is None else seconds / 60

    qos = next((resources.qos for _, resources in asked if resources.qos), None)
    settings = Settings(
        packing=packing,
        threads=options.threads,
        device=options.device,
        retry=RetryRule.parse(options.retry or ""),
        share=options.share,
        code_folder=None,
    )
    prepare = _preparation(asked, options.prepare)
    most = slurm.limits(qos)
    if prepare:
        most = dataclasses.replace(most, tasks=max(1, most.tasks - len(prepare.tasks)))
    paths = paths_of(spec for spec, _ in trials) if options.share else {}
    sent = batches(named, packing, minutes, most, paths.get)
    return Plan(asked, sent, prepare, settings, paths)


def _check_rules(table: Mapping[str, Any]) -> None:
    """Refuse rules for what there is not: a misspelt one would ask for nothing, and be noticed by its cost.

    Raises:
        UnknownName: a name that no rule can fit; one message for all.
    """
    known = {"algorithm": (*algorithms,), "dataset": (*datasets,), "backbone": known_backbones()}
    problems = Problems()
    for rule in table.get("when", ()):
        for key in (key for key in known if key in rule):  # in this order, for one message in all runs
            names = [rule[key]] if isinstance(rule[key], str) else rule[key]
            for name in map(str, names):
                if ":" not in name and name not in known[key]:  # with a colon it is of a family, such as "folder:NAME"
                    what = f"{key} for a rule [[slurm.when]]"
                    problems.add(UnknownName(unknown_name(what, name, known[key])))
    problems.raise_if_any()


def _preparation(trials: Iterable[tuple[Trial, Resources]], prepare: bool) -> Batch | None:
    """Make the array that prepares data: one task for each data set, backbone and cache that is not there yet."""
    first: dict[Any, str] = {}
    asked = []
    for (spec, found), resources in trials:
        if prepare and not places.is_prepared(spec, found):
            first.setdefault(places.preparation(spec, found), spec.trial_id)
            asked.append(resources)
    if not first:
        return None
    longest = max(asked, key=lambda each: math.inf if each.time is None else each.time)  # decoding may take long
    return Batch(resources=longest, tasks=tuple((trial,) for trial in first.values()), prepares=True)


def describe(planned: Plan, folder: Path) -> str:
    """Word what would be sent: headers of the scripts, numbers of arrays and tasks, GPU hours."""
    shown: dict[str, list[Batch]] = {}
    for batch in planned.batches:
        one = dataclasses.replace(batch, tasks=batch.tasks[:1], parallel=None)
        shown.setdefault(_header(script(folder, one, planned.settings)), []).append(batch)
    parts = []
    if planned.prepare:
        parts.append(f"first an array of {len(planned.prepare.tasks)} tasks that read and decode data")
    for alike in shown.values():
        sizes = ", ".join(str(len(batch.tasks)) for batch in alike)
        title = f"{len(alike)} array{'s' if len(alike) > 1 else ''} of {sizes} tasks:"
        parts.append(f"{title}\n{_header(script(folder, alike[0], planned.settings))}")
    n_tasks = sum(len(batch.tasks) for batch in planned.batches)
    n_trials, n_trainings = len(planned.trials), len(planned.trainings)
    shared = f" in {n_trainings} trainings" if n_trainings < n_trials else ""
    parts.append(f"{len(planned.batches)} arrays, {n_tasks} tasks, {n_trials} trials{shared}")
    parts.append(_hours(planned, typical_seconds(read_status(folder.parent))))
    return "\n\n".join(parts)


def _header(text: str) -> str:
    """Give the lines of a batch script that are for Slurm and for the shell before the step."""
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    setup = text.partition("# setup\n")[2].partition("\n# command")[0].strip().splitlines()
    return "\n".join(lines + [line for line in setup if not line.startswith(("export CLIPBED_LOG=", "echo "))])


def _hours(planned: Plan, typical: Mapping[tuple[Any, ...], float]) -> str:
    """Estimate GPU hours, or CPU hours where no GPU is asked for, from finished trials of the same kind."""
    known: dict[str, float] = {}
    unknown = rough = 0
    for training in planned.trainings:
        resources = training[0][1]
        found = [seconds_of(kind_of(spec.to_json()), typical) for (spec, _), _resources in training]
        seconds = [each for each, _ in found]
        rough += sum(is_rough for each, is_rough in found if each is not None)
        unit, number = ("GPU", resources.gpus) if resources.gpus else ("CPU", resources.cpus)
        unknown += seconds.count(None)
        longest = max((each for each in seconds if each is not None), default=0.0)
        known[unit] = known.get(unit, 0.0) + longest * number / 3600
    words = [f"about {hours:.3g} {unit} hours" for unit, hours in known.items() if hours]
    if rough:
        words.append(f"{rough} trials roughly, from others of their method and backbone")
    if unknown:
        words.append(f"{unknown} trials of kinds of which none has finished yet are not estimated")
    return "estimate: " + "; ".join(words or ["nothing to run"])


@without_collector()
def launch(trials: Sequence[Trial], folder: Path, options: argparse.Namespace, say: Say, *, again: bool = False) -> int:
    """Send what is neither done nor in the queue, each trial once however many launch at a time; give how many.

    What failed or was cancelled is made pending again, also where its task is still in the queue: the task finds it there.

    Args:
        trials: what is wanted.
        folder: of the sweep.
        options: of the command.
        say: told what is done.
        again: run those again that are done, too.

    Raises:
        BenchError: something is not valid, or Slurm refused it; what was sent before stays sent, the others are pending.
    """
    planned = plan(trials, folder, options)  # bad options end here, before anything is claimed
    claimed = Launch.claim(folder)
    try:
        with claimed.pulse():
            queued, there = waiting(folder), trials_in(folder)
            runs = [Run(folder / spec.trial_id) for spec, _ in trials if spec.trial_id in there]
            wanted = [run for run in runs if again or not run.is_done]
            held = {run.trial_id for run in wanted if _is_held(run, queued)}
            not_sent = held | {run.trial_id for run in runs} - {run.trial_id for run in wanted}
            todo = [trial for trial in trials if trial[0].trial_id not in not_sent]
            if held:
                say(f"{len(held)} of {len(trials)} trials are in the queue or running")
            if not_sent:
                planned = plan(todo, folder, options)
            for run in wanted:
                _reopen(run, again)
            code_folder = _send(planned, folder, options, claimed, say) if todo else None
        if todo:
            claimed.finish(trials=len(todo), code=code_version(), snapshot=str(code_folder or ""))
    except BaseException as error:
        claimed.finish(error=f"{type(error).__name__}: {error}")
        raise
    if not todo:
        claimed.withdraw()
    return len(todo)


def _send(planned: Plan, folder: Path, options: argparse.Namespace, claimed: Launch, say: Say) -> Path | None:
    settings = planned.settings
    if options.snapshot:
        from bench import snapshot

        settings = dataclasses.replace(settings, code_folder=snapshot.take((folder / ".code").resolve()))
        say(f"code: a copy in {settings.code_folder}")
    places.remember(folder, [trial for trial, _ in planned.trials])
    note_planned(folder, [spec for (spec, _), _ in planned.trials])
    after = None
    if planned.prepare:
        after = send(folder, [planned.prepare], settings, claimed, say)[0]
    send(folder, planned.batches, settings, claimed, say, after=after)
    return settings.code_folder


def _is_held(run: Run, queued: Mapping[Path, slurm.Queued]) -> bool:
    """Say whether a trial is in the queue, or somebody runs it."""
    if run.folder in queued:
        return True
    state, said = run.look()
    # one that ran in a task of ours is not in the queue any more: its job is gone, whatever its heartbeat says
    return state is State.RUNNING and not is_of_array(said)


def _reopen(run: Run, again: bool) -> None:
    """Make a trial pending that failed or was cancelled; `again`: any that nobody runs."""
    state = run.state()
    if state in (State.FAILED, State.CANCELLED) or (again and state is not State.RUNNING):
        run.reset()


def follow(folder: Path, runs: Sequence[Run], progress: Any) -> None:
    """Wait until nothing of `runs` is in the queue or running."""
    under_way: set[str] = set()
    while True:
        queued = queue_of([folder])
        left = queued is None  # the controller is being restarted, perhaps
        for run in runs:
            state = run.state()
            running = state is State.RUNNING
            if running and run.trial_id not in under_way:
                under_way.add(run.trial_id)
                progress.started(run)
            elif not running and run.trial_id in under_way:
                under_way.discard(run.trial_id)
                progress.ended(run, state)
            left |= running or (run.folder in (queued or ()) and state is not State.DONE)  # it may wait for a retry
        if not left:
            return
        end = time.monotonic() + _FOLLOW_SECONDS
        while time.monotonic() < end:
            progress.tick()
            time.sleep(0.5)


def cancel(runs: Iterable[Run], say: Say) -> int:
    """Stop trials and take them out of the queue; give how many. Neighbours in the same task go on.

    One that has failed stays so, and is not counted. A running trial stops at its next step with a checkpoint. A task all of
    whose trials are cancelled or over is ended; one that prepares data, when this goes for all trials of the sweep.
    """
    chosen = [run for run in runs if not run.is_done]
    number = sum(run.state() is not State.FAILED for run in chosen)
    not_marked: list[OSError] = []
    for run in chosen:
        try:
            run.cancel()  # one that has failed, too: it may wait for a retry
        except OSError as error:  # Slurm can be told all the same
            not_marked.append(error)
    if not_marked:
        say(f"{len(not_marked)} trials could not be marked, so that those that run go on: {not_marked[0]}")
    ids = {run.trial_id for run in chosen}
    jobs: list[str] = []
    for sweep in sorted({run.folder.parent for run in chosen}):
        with contextlib.suppress(slurm.SlurmError):  # no Slurm here: the marks in the folders do it
            jobs += _tasks_to_end(sweep, ids)
    if jobs:
        slurm.cancel(jobs)
        say(f"{len(jobs)} tasks taken out of Slurm's queue")
    return number


def _tasks_to_end(sweep: Path, cancelled: set[str]) -> list[str]:
    """List the jobs that wait and have nothing left to do but cancelled trials; running ones stop by themselves."""
    sent = list(arrays(sweep))
    trials = {trial for array in sent for task in array.tasks for trial in task}
    over = {trial for trial in trials if trial in cancelled or Run(sweep / trial).state() in _OVER}
    queue = slurm.queue({array.name for array in sent})
    return [
        task.job
        for array in sent
        for index, its in enumerate(array.tasks)
        if (task := queue.get((array.name, index)))
        and task.waits
        and over.issuperset(trials if array.prepares else its)
    ]


def task_log(run: Run) -> Path | None:
    """Find the log of the Slurm task that has, or had, a trial; None where it was never in one or wrote none."""
    found = None
    for launch in launches(run.folder.parent):
        for path in sorted(launch.folder.glob("array-*.json")):
            array = Array.read(path)
            tasks = array.tasks if array and not array.prepares else ()
            for index, task in enumerate(tasks):
                if run.trial_id in task:
                    found = next(iter(path.with_suffix("").glob(f"*_{index}_0_log.out")), found)
    return found


def changed_code(sweeps: Iterable[Path]) -> list[str]:
    """Word for which sweeps the code is not the one that was launched, though their tasks will run it."""
    words = []
    for sweep in sweeps:
        sent = next((each.details() for each in reversed(launches(sweep)) if each.details().get("trials")), {})
        if sent and not sent.get("snapshot") and sent.get("code") not in (None, code_version()):
            words.append(
                f"the code has changed since {sweep} was launched ({sent['code']} then, {code_version()} now); tasks that "
                "start from now on run the new one, and tables will say so. `launch --snapshot` runs a copy"
            )
    return words


def queue_of(sweeps: Iterable[Path]) -> dict[Path, slurm.Queued] | None:
    """Give the tasks of the trials of sweeps; None where no controller answers, as on a laptop."""
    try:
        return waiting(*sweeps)
    except slurm.SlurmError:
        return None
