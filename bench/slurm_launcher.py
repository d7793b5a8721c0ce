"""Sends trials to Slurm as job arrays. The only module that imports submitit.

submitit writes the batch scripts and calls sbatch. Its pickles, its signal handling and its watch over jobs are not
used: a task reads which trials it has from one file an array (`bench.launches`), trials stop and resume by themselves,
and the run folders say how they get on. So a requeued task needs nothing that the launching process kept, and there is
no file for each task but its log.
"""

from __future__ import annotations

import contextlib
import heapq
import io
import itertools
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import slurm
from bench.array_task import script_lines
from bench.errors import SpecError
from bench.failures import RetryRule
from bench.launches import FOLDER, Array, Launch, job_name, tasks_of_trials
from bench.local_pool import GRACE_SECONDS
from bench.resources import Resources
from bench.sharing import groups
from bench.version import code_version

if TYPE_CHECKING:
    from submitit.slurm.slurm import SlurmExecutor

_LATE_SECONDS = 30
"""How much later than asked for Slurm's warning may come."""
_ENVIRONMENT = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_RESERVATION": None,
}
"""Variables for sbatch that sites tell their users to set, which would win over the field of `Resources`."""

Say = Callable[[str], None]
Minutes = Callable[[str], float | None]


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How trials are put into tasks.

    Attributes:
        trials: trials a task; those that are trained as one count as one.
        minutes: minutes of work a task, by the estimate; a trial that nothing is known of gets a task of its own.
        jobs: trainings at a time in a task.
    """

    trials: int = 1
    minutes: float | None = None
    jobs: int = 1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One array that is to be sent.

    Attributes:
        resources: what each task asks for.
        tasks: trial ids of each task.
        parallel: tasks at a time; None = as many as the cluster lets.
        prepares: the tasks read and decode data for the trials, instead of running them.
    """

    resources: Resources
    tasks: tuple[tuple[str, ...], ...]
    parallel: int | None = None
    prepares: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all arrays of a launch have in common.

    Attributes:
        packing: how trials are put into tasks.
        threads: CPU threads a trial; None = the task's CPUs, divided among the trials that run at a time.
        device: torch's name of a device, or None.
        retry: which failures are tried again.
        share: train trials whose weights follow the same path as one.
        code_folder: a snapshot to run from, or None for the code that is installed.
    """

    packing: Packing
    threads: int | None = None
    device: str | None = None
    retry: RetryRule
    share: bool = True
    code_folder: Path | None = None


def batches(
    trials: Sequence[tuple[str, Resources]],
    packing: Packing,
    minutes: Minutes,
    most: slurm.Limits,
    path_of: Callable[[str], str | None] = lambda trial: None,
) -> list[Batch]:
    """Put trials, named by their ids, into tasks, and tasks that ask for the same into arrays that the cluster accepts.

    Trials that are trained as one (`path_of` is the same) are in one task, if they ask for the same. Where the cluster
    does not take as many tasks as there would be, tasks get more trials each, so that none is left.
    """
    trainings = _trainings(trials, path_of)
    packed = _packed(trainings, packing, minutes)
    n_tasks = sum(len(tasks) for tasks in packed.values())
    if n_tasks > most.tasks:
        n_trainings = sum(map(len, trainings.values()))
        fuller = math.ceil(n_trainings / max(1, most.tasks - len(packed)))
        packed = _packed(trainings, Packing(trials=max(fuller, packing.trials), jobs=packing.jobs), minutes)
    arrays = [
        (resources, tuple(tasks[start : start + most.array]))
        for resources, tasks in packed.items()
        for start in range(0, len(tasks), most.array)
    ]
    shares = _shares([len(tasks) for _, tasks in arrays], [resources.parallel for resources, _ in arrays])
    return [
        Batch(resources=resources, tasks=tasks, parallel=share) for (resources, tasks), share in zip(arrays, shares)
    ]


def _trainings(
    trials: Sequence[tuple[str, Resources]], path_of: Callable[[str], str | None]
) -> dict[Resources, list[list[str]]]:
    """Give the trainings, lists of trials, by what they ask for; trials keep their order."""
    alike: dict[Resources, list[str]] = {}
    for trial, resources in trials:
        alike.setdefault(resources, []).append(trial)
    return {resources: groups(each, path_of) for resources, each in alike.items()}


def _packed(
    trainings: Mapping[Resources, list[list[str]]], packing: Packing, minutes: Minutes
) -> dict[Resources, list[tuple[str, ...]]]:
    """Give the tasks, lists of trial ids, by what they ask for."""
    return {
        resources: [tuple(itertools.chain(*task)) for task in _tasks(each, packing, minutes)]
        for resources, each in trainings.items()
    }


def _tasks(trainings: Sequence[list[str]], packing: Packing, minutes: Minutes) -> Iterable[list[list[str]]]:
    """Fill one task after the other."""
    task: list[list[str]] = []
    filled = 0.0
    for training in trainings:
        takes = _longest(training, minutes) if packing.minutes is not None else math.inf
        if packing.minutes is None:
            full = len(task) >= packing.trials
        else:
            full = bool(task) and (takes == math.inf or filled + takes > packing.minutes * packing.jobs)
        if full:
            yield task
            task, filled = [], 0.0
        task.append(training)
        filled += takes
    if task:
        yield task


def _longest(training: Sequence[str], minutes: Minutes) -> float:
    """Give the minutes that trials which are trained as one take, at the least; infinity where that is not known."""
    known = [minutes(trial) for trial in training]
    return max((math.inf if each is None else each for each in known), default=0.0)


def _shares(sizes: Sequence[int], limits: Sequence[int | None]) -> list[int | None]:
    """Divide each limit on parallel tasks among the arrays that it holds for, in proportion to their sizes.

    Every array gets one task at least, so where there are more arrays than tasks allowed, the sum is above the limit.
    """
    shares: list[int | None] = [None if limit is None else 1 for limit in limits]
    for limit in {each for each in limits if each is not None}:
        alike = [i for i, its in enumerate(limits) if its == limit]
        waiting = [(-sizes[i] / 2, i, 1) for i in alike if sizes[i] > 1]
        heapq.heapify(waiting)
        for _ in range(limit - len(alike)):
            if not waiting:
                break
            _, i, share = heapq.heappop(waiting)
            shares[i] = share + 1
            if share + 1 < sizes[i]:
                heapq.heappush(waiting, (-sizes[i] / (share + 2), i, share + 1))
    return shares


def send(
    sweep: Path, batches: Sequence[Batch], settings: Settings, launch: Launch, say: Say, *, after: str | None = None
) -> list[str]:
    """Send arrays; give Slurm's numbers of them.

    Args:
        sweep: folder of the sweep.
        batches: the arrays.
        settings: what they have in common.
        launch: the claimed launch.
        say: told of each array.
        after: number of a job that has to end first.

    Raises:
        SpecError: sbatch refused one; those before it have been sent and stay.
        Conflict: another launcher has taken this one for dead, and sends what is left.
    """
    numbers = []
    for batch in batches:
        launch.beat()
        path = launch.next_array()
        _array(sweep, path, batch, settings).write(path)
        numbers.append(_submit(path, batch, settings, after))
        what = "data sets to prepare" if batch.prepares else "trials"
        say(f"array {numbers[-1]}: {len(batch.tasks)} tasks, {sum(map(len, batch.tasks))} {what}")
    return numbers


def script(sweep: Path, batch: Batch, settings: Settings) -> str:
    """Give the batch script that a batch would be sent with."""
    path = sweep.resolve() / FOLDER / "NNNN" / "array-0.json"
    executor, command = _executor(path, batch, settings, None)
    return str(executor._make_submission_file_text(command, "dry-run"))


def waiting(*sweeps: Path) -> dict[Path, slurm.Queued]:
    """Give the tasks that queued and running trials are in, by run folder, with one call of squeue."""
    tasks = {sweep / trial: task for sweep in sweeps for trial, task in tasks_of_trials(sweep).items()}
    queue = slurm.queue({name for name, _ in tasks.values()})
    return {folder: queue[task] for folder, task in tasks.items() if task in queue}


def _array(sweep: Path, path: Path, batch: Batch, settings: Settings) -> Array:
    return Array(
        name=job_name(path),
        sweep=str(sweep.resolve()),
        tasks=batch.tasks,
        threads=settings.threads or max(1, batch.resources.cpus // settings.packing.jobs),
        jobs=settings.packing.jobs,
        device=settings.device,
        retry=str(settings.retry),
        code=code_version(),
        prepares=batch.prepares,
        share=settings.share,
        grace=max(GRACE_SECONDS, batch.resources.warning_seconds - _LATE_SECONDS),
    )


def _executor(path: Path, batch: Batch, settings: Settings, after: str | None) -> tuple[SlurmExecutor, str]:
    """Make submitit's writer of batch scripts for one array, and the command of its job steps."""
    from submitit.slurm.slurm import SlurmExecutor

    path = path.resolve()  # a snapshot's tasks do not start in the folder that they are sent from
    python = shlex.quote(sys.executable)
    before, command, teardown = script_lines(python, path, prepares=batch.prepares)
    parameters: dict[str, Any] = batch.resources.parameters()
    setup = [*parameters.pop("setup"), *before]
    extra = parameters.pop("additional_parameters")
    if settings.code_folder is not None:
        code = shlex.quote(str(settings.code_folder))
        extra = {**extra, "chdir": str(settings.code_folder)}
        setup.insert(0, f"export PYTHONPATH={code}${{PYTHONPATH:+:$PYTHONPATH}}")
    executor = SlurmExecutor(path.with_suffix(""))
    executor.update_parameters(
        **parameters,
        job_name=job_name(path),
        setup=setup,
        teardown=teardown,
        additional_parameters=extra,
        dependency=f"afterany:{after}" if after else None,
        array_parallelism=batch.parallel or len(batch.tasks),
    )
    executor.parameters["map_count"] = len(batch.tasks)  # as submitit's own map_array does
    return executor, command


def _submit(path: Path, batch: Batch, settings: Settings, after: str | None) -> str:
    """Send one array; give its number."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.helpers import clean_env

    executor, command = _executor(path, batch, settings, after)
    path.with_suffix("").mkdir(parents=True, exist_ok=True)
    names = [name for name, field in _ENVIRONMENT.items() if field is None or getattr(batch.resources, field) is None]
    kept = {name: os.environ[name] for name in ("SLURM_CONF", *names) if name in os.environ}
    try:
        # sent from within a job, it would inherit that job's resources; submitit prints what the error says too
        with clean_env(), contextlib.redirect_stderr(io.StringIO()):
            os.environ.update(kept)
            return str(executor._submit_command(command).job_id)
    except FailedJobError as error:
        path.unlink(missing_ok=True)
        raise SpecError(f"sbatch refused {path.with_suffix('')}: {str(error).strip()[-800:]}") from error
    except FailedSubmissionError as error:  # it took the array, which counts as sent: it is known by its name
        raise SpecError(
            f"sbatch took {job_name(path)} and said no number ({str(error).splitlines()[0]}), as when an option or a "
            "wrapper makes it quiet: leave that out, and launch again, which sends what was not sent"
        ) from error
