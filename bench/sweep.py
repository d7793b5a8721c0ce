"""`python -m bench.sweep VERB`: plans trials, runs them, shows how they get on. Calls, prints, sets the exit code."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import console, places
from bench.command import exit_code
from bench.errors import RecordsMissing, SpecError, UnknownName
from bench.failures import RetryRule
from bench.guards import check_same_data, check_writable
from bench.launch import Launcher, Stopped
from bench.launches import launches
from bench.options import normalised, parser
from bench.registry import unknown_name
from bench.runs import delete, find_run, find_runs, note_planned, trials_in
from bench.runs import publish as publish_run
from bench.sharing import groups, paths_of
from bench.spec import Places, TrialSpec
from bench.status import QUEUED, TrialStatus, as_json, counts, with_queue
from bench.store import Run, State
from bench.sweepfile import Sweep

_FIELDS = tuple(field.name for field in dataclasses.fields(Sweep))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    options = parser(_VERBS).parse_args(normalised(sys.argv[1:] if arguments is None else arguments))
    return exit_code("sweep", lambda: _do(options.verb, options))


def _do(verb: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    try:
        return verb(options)
    except Stopped as stopped:
        return 128 + stopped.number


def launch(options: argparse.Namespace) -> int:
    """Plan the trials and run those that are not done."""
    from bench.plan import plan

    name, wanted = _wanted(options)
    folder = _sweep_folder(options, name)
    found = _places(options)
    check_writable(folder)
    check_writable(found.cache_folder(), "--cache")
    planned = plan(wanted, found, say=console.say, render=not options.dry_run)[: options.first]
    names = [each.spec.trial_id for each in planned]
    known = trials_in(folder)
    done = {name: each for name, each in zip(names, planned) if name in known and Run(folder / name).is_done}
    todo = [each for name, each in zip(names, planned) if name not in done]
    on_slurm = _is_for_slurm(options)
    if options.dry_run:
        from bench.preview import preview

        preview(folder, planned, options, on_slurm=on_slurm)
        return 0
    check_same_data(done.values(), folder)
    if not todo:
        console.say(f"nothing to launch: all {len(names)} trials are done")
        _show_where(folder)
        return 0
    if on_slurm:
        return _send([(each.spec, each.places) for each in todo], names, folder, options)
    pool = _pool(options)
    pool.prepare([(each.spec, each.places) for each in todo], console.Seldom())
    layout = pool.layout
    places.remember(folder, [(each.spec, each.places) for each in todo])
    note_planned(folder, [each.spec for each in todo])
    paths = paths_of(each.spec for each in todo) if options.share else {}
    trainings = groups(todo, lambda each: paths.get(each.spec.trial_id))
    shared = f" in {len(trainings)} trainings" if len(trainings) < len(todo) else ""
    console.say(f"{len(names)} trials, {len(todo)} to run{shared}, {layout} → {folder}")
    return _carry_out(pool, layout.jobs, [Run(folder / name) for name in names], folder)


def rerun(options: argparse.Namespace) -> int:
    """Run trials again that failed, were lost, or are named."""
    if not options.trials and not options.failed:
        raise SpecError("rerun needs trials, or --failed for all that failed or were lost")
    runs = [_find(options, trial) for trial in options.trials]
    if options.failed:
        runs += [run for run in _runs(options) if run.state() in (State.FAILED, State.LOST)]
    runs = list({run.folder: run for run in runs}.values())
    held = [run for run in runs if run.state() is State.RUNNING]
    for run in held:
        console.say(f"{run.trial_id} is running; left alone")
    tried = [run for run in runs if options.max_attempts and run.tries >= options.max_attempts]
    if tried:
        console.say(f"{len(tried)} trials were tried {options.max_attempts} times or more; left alone")
    runs = [run for run in runs if run not in held and run not in tried]
    if not runs:
        console.say("nothing to run again")
        return 0
    if _is_for_slurm(options):
        return _send_again(runs, options)
    pool = _pool(options)
    pool.prepare([(run.spec, run.places) for run in runs], console.Seldom())
    layout = pool.layout
    for run in runs:
        run.reset()
    console.say(f"{len(runs)} trials to run again, {layout}")
    return _carry_out(pool, layout.jobs, runs, _root(options))


def cancel(options: argparse.Namespace) -> int:
    """Stop trials, and take them out of Slurm's queue; launching again goes on with them."""
    from bench import slurm_sweep

    if not options.trials and not options.all:
        raise SpecError("cancel needs trials, or --all for all that are not done")
    runs = [_find(options, trial) for trial in options.trials] or _runs(options)
    number = slurm_sweep.cancel(runs, console.say)
    console.say(f"{number} trials cancelled; those that run stop at their next step, with a checkpoint")
    return 0


def run_one(options: argparse.Namespace) -> int:
    """Run one trial in this process, in the foreground."""
    from bench.launch import InProcess
    from bench.machine import cpu_jobs, usable_cores

    run = _find(options, options.trial)
    if run.is_done:
        console.say(f"{run.trial_id} is done; `rerun {run.trial_id}` runs it again")
        return 0
    threads = options.threads or max(1, usable_cores() // cpu_jobs())  # as `launch`, so that sums agree to the digit
    code = _carry_out(InProcess(threads=threads, device=options.device), 1, [run], run.folder)
    if run.state() is State.RUNNING:
        console.say(f"{run.trial_id} is being run by process {run.status().get('pid')}: `sweep status`")
    return code


def status(options: argparse.Namespace) -> int:
    """Show the state of all trials."""

    def read() -> list[TrialStatus]:
        return _with_queue([TrialStatus.of(run) for run in _runs(options)])

    if options.json:
        console.say(json.dumps(as_json(_root(options), read()), indent=1))
    elif options.failed:
        console.say(console.failures_text(read()) or "no trial has failed")
    elif options.watch:
        with contextlib.suppress(KeyboardInterrupt):
            console.watch(read)
    else:
        trials = read()
        console.say(console.status_text(trials))
        _warn_of_changed_code(trials)
    return 0


def show(options: argparse.Namespace) -> int:
    """Show one trial: state, spec, last record, error."""
    run = _find(options, options.trial)
    trial = TrialStatus.of(run)
    records = [record for record in run.records()[0] if record.get("predictor") == record.get("algorithm")]
    console.say(f"{run.trial_id}: {trial.label}\n{trial.state.value}, {console.where(trial)}\n{run.folder}\n")
    console.say(console.table([[name, value] for name, value in trial.spec.items()], ["spec", ""]))
    if records:
        last = {name: value for name, value in records[-1].items() if name not in trial.spec}
        console.say("\n" + console.table([[name, value] for name, value in last.items()], ["last record", ""]))
    if trial.state is State.FAILED:
        console.say(f"\n{run.error() or trial.error_line}")
    return 0


def logs(options: argparse.Namespace) -> int:
    """Print what a trial's processes said, and its error."""
    run = _find(options, options.trial)
    said = run.log_path.read_text(errors="replace") if run.log_path.is_file() else ""
    if launches(run.folder.parent):
        from bench.slurm_sweep import task_log

        log = task_log(run)
        said += f"{log}:\n{log.read_text(errors='replace')[-4000:]}" if log else ""
    console.say("\n".join(part for part in (said, run.error() or "") if part) or f"{run.trial_id} said nothing")
    return 0


def delete_incomplete(options: argparse.Namespace) -> int:
    """Delete the folders of trials that are neither done nor running nor in Slurm's queue, after asking."""
    trials = _with_queue([TrialStatus.of(run) for run in _runs(options)])
    _check_filter("algorithm", options.algorithms, [trial.algorithm for trial in trials])
    _check_filter("data set", options.datasets, [trial.dataset for trial in trials])
    chosen = [
        trial
        for trial in trials
        if trial.shown not in (State.DONE, State.RUNNING, QUEUED)
        and (not options.algorithms or trial.algorithm in options.algorithms)
        and (not options.datasets or trial.dataset in options.datasets)
    ]
    if not chosen:
        console.say("nothing to delete: every trial is done, running or queued")
        return 0
    what = f"{len(chosen)} trials of {_root(options)} ({console.tally(counts(chosen))})"
    if not options.yes and not sys.stdin.isatty():
        raise SpecError(f"this would delete {what}; say --yes, since nobody can be asked here")
    if not options.yes and not console.confirm(f"delete {what}?"):
        console.say("nothing was deleted")
        return 0
    console.say(f"deleted {delete(trial.run for trial in chosen)} trials")
    return 0


def _check_filter(kind: str, asked: Sequence[str] | None, there: Sequence[str]) -> None:
    """Refuse to filter by what no trial is of."""
    for name in asked or ():
        if name not in there:
            raise UnknownName(unknown_name(f"trial here of the {kind}", name, tuple(there)))


def publish(options: argparse.Namespace) -> int:
    """Copy the records of finished trials, without checkpoints and without a trace of this machine."""
    runs = find_runs(_root(options))
    done = [run for run in runs if run.is_done]
    if not done:
        raise RecordsMissing(f"{_root(options)} holds no finished trial; `sweep status` shows what there is")
    target = Path(options.folder)
    done = list({run.trial_id: run for run in done}.values())
    for run in done:
        publish_run(run, target)
    left = f", {len(runs) - len(done)} unfinished left out" if len(done) < len(runs) else ""
    console.say(f"{len(done)} trials copied to {target}{left}; `python -m bench.collect {target}` reads them")
    return 0


def list_things(options: argparse.Namespace) -> int:
    """List what is registered, or describe one thing."""
    from bench import listing

    names = options.names
    console.say("\n\n".join(listing.details(options.kind, name) for name in names) or listing.overview(options.kind))
    for problem in listing.broken():
        console.warn(f"warning: a plug-in could not be loaded: {problem}")
    return 0


def _is_for_slurm(options: argparse.Namespace) -> bool:
    """Say whether trials go to Slurm; on a machine without its commands this costs nothing."""
    from bench import slurm_sweep

    return slurm_sweep.is_wanted(options.launcher)


def _send(
    trials: list[tuple[TrialSpec, Places]],
    names: Sequence[str],
    folder: Path,
    options: argparse.Namespace,
    *,
    again: bool = False,
) -> int:
    """Send trials to Slurm; follow all of `names` if asked to. Give the exit code."""
    from bench import slurm_sweep

    number = slurm_sweep.launch(trials, folder, options, console.say, again=again)
    if not number:
        console.say("nothing to send: what is not done is in the queue or running")
    if not options.wait:
        where = f"--output-dir {shlex.quote(str(folder.parent))} --name {shlex.quote(folder.name)}"
        console.say(f"follow them:  python -m bench.sweep status --watch {where}")
        _show_where(folder)
        return 0
    runs = [Run(folder / name) for name in names]
    try:
        with console.progress([TrialStatus.of(run) for run in runs], len(runs)) as progress:
            slurm_sweep.follow(folder, runs, progress)
    except KeyboardInterrupt:
        console.warn("not followed any more; the trials go on: `sweep status`, `sweep cancel --all`")
        return 130
    return _sum_up(runs, folder)


def _send_again(runs: list[Run], options: argparse.Namespace) -> int:
    code = 0
    for folder, group in itertools.groupby(sorted(runs, key=lambda run: run.folder), lambda run: run.folder.parent):
        again = list(group)
        trials = [(run.spec, run.places) for run in again]
        code = max(code, _send(trials, [run.trial_id for run in again], folder, options, again=True))
    return code


def _with_queue(trials: list[TrialStatus]) -> list[TrialStatus]:
    """Ask Slurm about the trials that were sent to it and are not over."""
    sweeps = _sent([trial.run for trial in trials if trial.state not in (State.DONE, State.FAILED)])
    if not sweeps:
        return trials
    from bench.slurm_sweep import queue_of

    return with_queue(trials, queue_of(sweeps))


def _warn_of_changed_code(trials: list[TrialStatus]) -> None:
    sweeps = _sent([trial.run for trial in trials if trial.shown in (QUEUED, State.RUNNING)])
    if sweeps:
        from bench.slurm_sweep import changed_code

        for words in changed_code(sweeps):
            console.warn(f"warning: {words}")


def _sent(runs: list[Run]) -> list[Path]:
    """Give the sweeps of `runs` from which anything was sent to Slurm."""
    return [sweep for sweep in dict.fromkeys(run.folder.parent for run in runs) if launches(sweep)]


def _carry_out(launcher: Launcher, jobs: int, runs: list[Run], folder: Path) -> int:
    """Run what is not done, show it, sum it up; give the exit code."""
    todo = [run for run in runs if not run.is_done]
    for run in todo:
        if run.state() in (State.FAILED, State.CANCELLED):
            run.reset()
    try:
        with console.progress([TrialStatus.of(run) for run in runs], jobs) as progress:
            launcher.run(todo, progress)
    except (Stopped, KeyboardInterrupt):
        left = console.tally(counts(TrialStatus.of(run) for run in runs))
        console.warn(f"stopped: {left}; the same command again goes on where it stopped")
        raise
    return _sum_up(runs, folder)


def _sum_up(runs: list[Run], folder: Path) -> int:
    trials = [TrialStatus.of(run) for run in runs]
    console.say(f"{len(trials)} trials: {console.tally(counts(trials))}")
    if any(trial.state is State.FAILED for trial in trials):
        again = f"python -m bench.sweep rerun --failed --output-dir {shlex.quote(str(runs[0].folder.parent.parent))}"
        console.say(console.failures_text(trials))
        console.say(f"to run them again: the same command, or {again} --name {shlex.quote(runs[0].folder.parent.name)}")
    _show_where(folder)
    return 0 if all(trial.state is State.DONE for trial in trials) else 1


def _show_where(folder: Path) -> None:
    console.say(f"results: {folder}\ntable:   python -m bench.collect {shlex.quote(str(folder))} --format text")


def _wanted(options: argparse.Namespace) -> tuple[str, list[Sweep | TrialSpec]]:
    """Give the sweep's name and what it is to run."""
    from bench.sweepfile import load_sweep, with_options

    given = {name: value for name, value in vars(options).items() if name in _FIELDS}
    if options.sweep is not None:
        name, wanted = load_sweep(options.sweep)
        return name, with_options(wanted, given)
    if "algorithms" not in given:
        raise SpecError("launch needs --algorithms NAME ..., or a sweep file; `sweep list algorithms` names them")
    return "default", [Sweep(**given)]


def _places(options: argparse.Namespace) -> Places:
    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().resolve())

    return Places(
        data_dir=absolute(options.data_dir),
        captions=absolute(options.captions),
        pool=absolute(options.pool),
        domainbed=absolute(options.domainbed),
        cache=absolute(options.cache),
    )


def _pool(options: argparse.Namespace) -> Any:
    from bench.local_pool import LocalPool

    return LocalPool(
        jobs=options.jobs,
        threads=options.threads,
        device=options.device,
        max_failures=options.max_failures,
        retry=RetryRule.parse(options.retry or ""),
        share=options.share,
    )


def _sweep_folder(options: argparse.Namespace, name: str) -> Path:
    name = options.name or name
    if name != Path(name).name or name.startswith("."):
        raise SpecError(f"--name {name!r} is no name for a folder: give a plain one, and its place with --output-dir")
    return Path(options.output_dir) / name


def _runs(options: argparse.Namespace) -> list[Run]:
    """Give all trials of the results folder, or of one sweep in it.

    Raises:
        RecordsMissing: there is none.
    """
    root = _root(options)
    runs = find_runs(root)
    if not runs:
        raise RecordsMissing(f"no trials in {root}: launch some, or say where with --output-dir and --name")
    return runs


def _root(options: argparse.Namespace) -> Path:
    return Path(options.output_dir) / (options.name or "")


def _find(options: argparse.Namespace, trial: str) -> Run:
    """Find a trial by its folder or by the beginning of its id."""
    return Run(Path(trial)) if Run(Path(trial)).is_there else find_run(_root(options), trial)


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "launch": launch,
    "status": status,
    "run": run_one,
    "rerun": rerun,
    "cancel": cancel,
    "show": show,
    "logs": logs,
    "delete_incomplete": delete_incomplete,
    "publish": publish,
    "list": list_things,
}


if __name__ == "__main__":
    sys.exit(main())
