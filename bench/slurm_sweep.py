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
from bench.errors import SpecError
from bench.failures import RetryRule
from bench.launches import Array, Launch, arrays, launches
from bench.resources import SCHEMA, Resources, resources_of
from bench.slurm_launcher import Batch, Packing, Settings, batches, script, send, waiting
from bench.spec import Places, TrialSpec
from bench.status import kind_of, read_status, typical_seconds
from bench.store import Run, State
from bench.version import code_version

Trial = tuple[TrialSpec, Places]
Say = Callable[[str], None]

LAUNCHERS = ("auto", "local", "slurm")

_FOLLOW_SECONDS = 5.0
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
    """

    trials: list[tuple[Trial, Resources]]
    batches: list[Batch]
    prepare: Batch | None
    settings: Settings


def plan(trials: Sequence[Trial], folder: Path, options: argparse.Namespace) -> Plan:
    """Decide which arrays `trials` are sent in.

    Raises:
        BenchError: options or settings are not valid, or Slurm does not answer.
    """
    table = load_table("slurm", SCHEMA)
    given = {
        field: getattr(options, option)
        for option, field in _RESOURCE_OPTIONS.items()
        if getattr(options, option, None) not in (None, [])
    }
    jobs = options.jobs or 1
    gpus = int(slurm.has_gpus()) if "gpus" not in given and "gpus" not in table else 0
    asked = []
    for spec, found in trials:
        resources = resources_of(spec, table, given, gpus=gpus)
        asked.append(((spec, found), dataclasses.replace(resources, cpus=resources.cpus * jobs)))
    packing = Packing(trials=options.trials_per_task or 1, minutes=options.minutes_per_task, jobs=jobs)
    typical = typical_seconds(read_status(folder.parent)) if packing.minutes is not None else {}
    runs = [(Run(folder / spec.trial_id), resources) for (spec, _), resources in asked]
    kinds = {spec.trial_id: kind_of(spec.to_json()) for spec, _ in trials} if typical else {}

    def minutes(run: Run) -> float | None:
        seconds = typical.get(kinds.get(run.trial_id, ()))
        return None if seconds is None else seconds / 60

    qos = next((resources.qos for _, resources in asked if resources.qos), None)
    settings = Settings(
        packing=packing,
        threads=options.threads,
        device=options.device,
        retry=RetryRule.parse(options.retry or ""),
        code_folder=None,
    )
    prepare = _preparation(asked, options.prepare)
    most = slurm.limits(qos)
    if prepare:
        most = dataclasses.replace(most, tasks=max(1, most.tasks - len(prepare.tasks)))
    return Plan(asked, batches(runs, packing, minutes, most), prepare, settings)


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
    parts.append(f"{len(planned.batches)} arrays, {n_tasks} tasks, {len(planned.trials)} trials")
    parts.append(_hours(planned, typical_seconds(read_status(folder.parent))))
    return "\n\n".join(parts)


def _header(text: str) -> str:
    """Give the lines of a batch script that are for Slurm and for the shell before the step."""
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    setup = text.partition("# setup\n")[2].partition("\n# command")[0].strip().splitlines()
    return "\n".join(lines + [line for line in setup if "CLIPBED_" not in line and not line.startswith("echo ")])


def _hours(planned: Plan, typical: Mapping[tuple[Any, ...], float]) -> str:
    """Estimate GPU hours, or CPU hours where no GPU is asked for, from finished trials of the same kind."""
    known: dict[str, float] = {}
    unknown = 0
    for (spec, _), resources in planned.trials:
        seconds = typical.get(kind_of(spec.to_json()))
        unit, number = ("GPU", resources.gpus) if resources.gpus else ("CPU", resources.cpus)
        if seconds is None:
            unknown += 1
        else:
            known[unit] = known.get(unit, 0.0) + seconds * number / 3600
    words = [f"about {hours:.3g} {unit} hours" for unit, hours in known.items()]
    if unknown:
        words.append(f"{unknown} trials of kinds of which none has finished yet are not estimated")
    return "estimate: " + "; ".join(words or ["nothing to run"])


def launch(trials: Sequence[Trial], folder: Path, options: argparse.Namespace, say: Say) -> int:
    """Send what is neither done nor in the queue, each trial once however many launch at a time; give how many.

    Raises:
        BenchError: something is not valid, or Slurm refused it; what was sent before stays sent.
    """
    plan(trials, folder, options)  # bad options end here, before anything is claimed
    claimed = Launch.claim(folder)
    try:
        with claimed.pulse():
            queued = waiting(folder)
            todo = [trial for trial in trials if _is_to_send(Run(folder / trial[0].trial_id), queued)]
            held = len(trials) - len(todo)
            if held:
                say(f"{held} of {len(trials)} trials are in the queue or running")
            code_folder = _send(plan(todo, folder, options), folder, options, claimed, say) if todo else None
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
    for (spec, _), _resources in planned.trials:
        run = Run(folder / spec.trial_id).make(spec)
        if run.state() in (State.FAILED, State.CANCELLED):
            run.reset()
    after = None
    if planned.prepare:
        after = send(folder, [planned.prepare], settings, claimed, say)[0]
    send(folder, planned.batches, settings, claimed, say, after=after)
    return settings.code_folder


def _is_to_send(run: Run, queued: Mapping[Path, slurm.Queued]) -> bool:
    """Say whether a trial needs to be sent: it is not done, not in the queue, and nobody runs it."""
    if run.is_done or run.folder in queued:
        return False
    state, said = run.look()
    return state is not State.RUNNING or "slurm" in said  # its job is gone from the queue, whatever its heartbeat says


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
            left |= running or (run.folder in (queued or ()) and state not in (State.DONE, State.FAILED))
        if not left:
            return
        end = time.monotonic() + _FOLLOW_SECONDS
        while time.monotonic() < end:
            progress.tick()
            time.sleep(0.5)


def cancel(runs: Iterable[Run], say: Say) -> int:
    """Stop trials and take them out of the queue; give how many. Neighbours in the same task go on.

    A running trial stops at its next step with a checkpoint. A task all of whose trials are cancelled or over is ended.
    """
    chosen = [run for run in runs if not run.is_done]
    for run in chosen:
        run.cancel()
    ids = {run.trial_id for run in chosen}
    jobs: list[str] = []
    for sweep in sorted({run.folder.parent for run in chosen}):
        with contextlib.suppress(slurm.SlurmError):  # no Slurm here: the marks in the folders do it
            jobs += _tasks_to_end(sweep, ids)
    if jobs:
        slurm.cancel(jobs)
        say(f"{len(jobs)} tasks taken out of Slurm's queue")
    return len(chosen)


def _tasks_to_end(sweep: Path, cancelled: set[str]) -> list[str]:
    """List the jobs that wait and have nothing left to do but cancelled trials; running ones stop by themselves."""
    tasks = {(array.name, index): task for array in arrays(sweep) for index, task in enumerate(array.tasks)}
    wanted = {key: task for key, task in tasks.items() if cancelled & set(task)}
    queue = slurm.queue({name for name, _ in wanted})
    return [
        queue[key].job
        for key, task in wanted.items()
        if key in queue
        and queue[key].waits
        and all(trial in cancelled or Run(sweep / trial).state() is not State.PENDING for trial in task)
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
