"""`python -m bench.sweep VERB`: plan trials, run them, see how they get on. Parses, calls, prints, sets the exit code."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import console
from bench.errors import BenchError, RecordsMissing, SpecError
from bench.launch import Launcher, Stopped
from bench.spec import UNLABELED, Places, TrialSpec
from bench.status import TrialStatus, as_json, counts, read_status, work_left
from bench.store import Run, State, find_run, find_runs
from bench.sweepfile import Sweep

KINDS = ("algorithms", "datasets", "protocols", "backbones", "sweeps")
_FIELDS = tuple(field.name for field in dataclasses.fields(Sweep))
_EXAMPLES = """examples:
  python -m bench.sweep launch --algorithms CLIPood
  python -m bench.sweep launch --algorithms ERM CLIPood --datasets PACS --data-dir DATA --backbone ViT-B-16 --dry-run
  python -m bench.sweep status --watch
  python -m bench.sweep list algorithms CLIPood
"""
_LAUNCH_EXAMPLES = """The same command again runs only what is not done: that is how to resume.

examples:
  python -m bench.sweep launch --algorithms CLIPood
  python -m bench.sweep launch --algorithms ZeroShot ERM --datasets PACS VLCS --data-dir DATA --n-trials 2 --jobs 2
  python -m bench.sweep launch --algorithms ERM --datasets folder:pictures --hparams '{"lr": 1e-5}' --steps 200
  python -m bench.sweep launch sweeps/pacs_tiny.py --data-dir DATA --dry-run

exit code: 0 all done, 1 a trial failed or is left, 2 the input is no good, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    options = _parser().parse_args(normalised(sys.argv[1:] if arguments is None else arguments))
    try:
        verb: Callable[[argparse.Namespace], int] = options.verb
        return verb(options)
    except BenchError as error:
        console.warn(f"sweep: {error}")
        return error.exit_code
    except Stopped as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:
        console.warn("interrupted")
        return 130
    except BrokenPipeError:
        # `sweep list … | head` closes early; keep the interpreter from complaining at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        console.warn(
            f"sweep: {error.strerror or error}: {error.filename or 'no file'}; make room or give another folder"
        )
        return BenchError.exit_code


def normalised(arguments: Sequence[str]) -> list[str]:
    """Turn DomainBed's `--data_dir` into `--data-dir`, for every option; values stay as they are."""
    return [re.sub(r"^--[\w-]+", lambda name: name[0].replace("_", "-"), argument) for argument in arguments]


def launch(options: argparse.Namespace) -> int:
    """Plan the trials and run those that are not done."""
    from bench.plan import plan

    name, wanted = _wanted(options)
    folder = _sweep_folder(options, name)
    _check_writable(folder)
    planned = plan(wanted, _places(options), say=console.say, render=not options.dry_run)[: options.first]
    runs = [Run(folder / each.spec.trial_id) for each in planned]
    if options.dry_run:
        specs = [each.spec for each in planned]
        _show_plan(folder, [_as_planned(run, spec) for run, spec in zip(runs, specs)], specs, options)
        return 0
    todo = [each for each, run in zip(planned, runs) if not run.is_done]
    if not todo:
        console.say(f"nothing to launch: all {len(runs)} trials are done")
        _show_where(folder)
        return 0
    pool = _pool(options)
    pool.prepare([(each.spec, each.places) for each in todo], console.Seldom())
    layout = pool.layout
    runs = [Run.create(folder, each.spec, each.places) for each in planned]
    console.say(f"{len(runs)} trials, {len(todo)} to run, {layout} → {folder}")
    return _carry_out(pool, layout.jobs, runs, folder)


def rerun(options: argparse.Namespace) -> int:
    """Run trials again that failed, were lost, or are named."""
    if not options.trials and not options.failed:
        raise SpecError("rerun needs trials, or --failed for all that failed or were lost")
    runs = [_find(options, trial) for trial in options.trials]
    if options.failed:
        runs += [run for run in find_runs(_root(options)) if run.state() in (State.FAILED, State.LOST)]
    runs = list({run.folder: run for run in runs}.values())
    held = [run for run in runs if run.state() is State.RUNNING]
    for run in held:
        console.say(f"{run.trial_id} is running; left alone")
    runs = [run for run in runs if run not in held]
    if not runs:
        console.say("nothing to run again")
        return 0
    pool = _pool(options)
    pool.prepare([(run.spec, run.places) for run in runs], console.Seldom())
    layout = pool.layout
    for run in runs:
        run.reset()
    console.say(f"{len(runs)} trials to run again, {layout}")
    return _carry_out(pool, layout.jobs, runs, _root(options))


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
    root = _root(options)

    def read() -> list[TrialStatus]:
        trials = read_status(root)
        if not trials:
            raise RecordsMissing(f"no trials in {root}: launch some, or say where with --output-dir and --name")
        return trials

    if options.json:
        console.say(json.dumps(as_json(root, read()), indent=1))
    elif options.failed:
        console.say(console.failures_text(read()) or "no trial has failed")
    elif options.watch:
        with contextlib.suppress(KeyboardInterrupt):
            console.watch(read)
    else:
        console.say(console.status_text(read()))
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
    console.say("\n".join(part for part in (said, run.error() or "") if part) or f"{run.trial_id} said nothing")
    return 0


def delete_incomplete(options: argparse.Namespace) -> int:
    """Delete the folders of trials that are neither done nor running, after asking."""
    chosen = [
        trial
        for trial in read_status(_root(options))
        if trial.state not in (State.DONE, State.RUNNING)
        and (not options.algorithms or trial.algorithm in options.algorithms)
        and (not options.datasets or trial.dataset in options.datasets)
    ]
    if not chosen:
        console.say("nothing to delete: every trial is done or running")
        return 0
    what = f"{len(chosen)} trials of {_root(options)} ({console.tally(counts(chosen))})"
    if not options.yes and not sys.stdin.isatty():
        raise SpecError(f"this would delete {what}; say --yes, since nobody can be asked here")
    if not options.yes and not console.confirm(f"delete {what}?"):
        console.say("nothing was deleted")
        return 0
    deleted = 0
    for trial in chosen:
        if trial.run.state() not in (State.DONE, State.RUNNING):  # it may have been started since
            trial.run.delete()
            deleted += 1
    console.say(f"deleted {deleted} trials")
    return 0


def list_things(options: argparse.Namespace) -> int:
    """List what is registered, or describe one thing."""
    from bench import listing

    names = options.names
    console.say("\n\n".join(listing.details(options.kind, name) for name in names) or listing.overview(options.kind))
    for problem in listing.broken():
        console.warn(f"warning: a plug-in could not be loaded: {problem}")
    return 0


def _carry_out(launcher: Launcher, jobs: int, runs: list[Run], folder: Path) -> int:
    """Run what is not done, show it, sum it up; give the exit code."""
    todo = [run for run in runs if not run.is_done]
    for run in todo:
        if run.state() is State.FAILED:
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


def _show_plan(folder: Path, trials: list[TrialStatus], specs: list[TrialSpec], options: argparse.Namespace) -> None:
    """Print what a launch would do."""
    from bench.machine import cpu_jobs

    console.say(f"{folder}: {console.status_text(trials)}\n")
    rows = []
    by_method = itertools.groupby(sorted(specs, key=_method), key=_method)
    for (algorithm, dataset), group in by_method:
        for name, values in _distinct_hparams(list(group)).items():
            shown = ", ".join(values[:6]) + (f", … ({len(values)} values)" if len(values) > 6 else "")
            rows.append([algorithm, dataset, name, shown])
            algorithm = dataset = ""
    console.say(console.table(rows, ["algorithm", "data set", "hparam", "value"]))
    jobs = options.jobs or cpu_jobs()
    left = work_left(trials, [state for state in State if state is not State.DONE])
    estimate = f"about {console.duration(left / jobs)} with {jobs} at a time" if left is not None else "not known yet"
    console.say(f"\ntime to run what is not done: {estimate}\ndry run: nothing was written")


def _distinct_hparams(specs: list[TrialSpec]) -> dict[str, list[str]]:
    values: dict[str, dict[str, None]] = {"steps": {}, "evaluate_every": {}}
    for spec in specs:
        for name, value in {"steps": spec.steps, "evaluate_every": spec.evaluate_every, **spec.hparams}.items():
            values.setdefault(name, {})[f"{value:.6g}" if isinstance(value, float) else str(value)] = None
    return {name: list(each) for name, each in values.items()}


def _method(spec: TrialSpec) -> tuple[str, str]:
    return spec.algorithm, spec.dataset


def _as_planned(run: Run, spec: TrialSpec) -> TrialStatus:
    """Look at a trial whose folder may not exist yet."""
    return TrialStatus.of(run, spec.to_json())


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
        cache=absolute(options.cache),
    )


def _pool(options: argparse.Namespace) -> Any:
    from bench.local_pool import LocalPool

    return LocalPool(
        jobs=options.jobs, threads=options.threads, device=options.device, max_failures=options.max_failures
    )


def _sweep_folder(options: argparse.Namespace, name: str) -> Path:
    name = options.name or name
    if name != Path(name).name or name.startswith("."):
        raise SpecError(f"--name {name!r} is no name for a folder: give a plain one, and its place with --output-dir")
    return Path(options.output_dir) / name


def _root(options: argparse.Namespace) -> Path:
    return Path(options.output_dir) / (options.name or "")


def _check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise SpecError(f"{there} is a file, so no results can be put into {folder}; give another --output-dir")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SpecError(f"there is no permission to write into {there}; give another --output-dir")


def _find(options: argparse.Namespace, trial: str) -> Run:
    """Find a trial by its folder or by the beginning of its id."""
    return Run(Path(trial)) if (Path(trial) / "spec.json").is_file() else find_run(_root(options), trial)


def _parser() -> argparse.ArgumentParser:
    parser = _command(argparse.ArgumentParser, prog="python -m bench.sweep", description=__doc__, epilog=_EXAMPLES)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, function: Callable[[argparse.Namespace], int], **more: Any) -> argparse.ArgumentParser:
        words = (function.__doc__ or "").strip()
        made: argparse.ArgumentParser = _command(verbs.add_parser, name, help=words, description=words, **more)
        made.set_defaults(verb=function)
        return made

    _add_launch(verb("launch", launch, epilog=_LAUNCH_EXAMPLES))
    each = verb("status", status)
    _add_where(each)
    how = each.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="show it again and again, until nothing is left to run")
    how.add_argument("--json", action="store_true", help="print it for scripts")
    how.add_argument("--failed", action="store_true", help="list the failed trials with their last error lines")
    each = verb("run", run_one)
    each.add_argument("trial", metavar="TRIAL", help="beginning of a trial's id, or its folder")
    _add_where(each)
    _add_machine(each, pool=False)
    each = verb("rerun", rerun)
    each.add_argument(
        "trials", metavar="TRIAL", nargs="*", help="beginnings of ids, or folders; done ones are run anew"
    )
    each.add_argument("--failed", action="store_true", help="all that failed or were lost")
    _add_where(each)
    _add_machine(each)
    for name, function in (("show", show), ("logs", logs)):
        each = verb(name, function)
        each.add_argument("trial", metavar="TRIAL", help="beginning of a trial's id, or its folder")
        _add_where(each)
    each = verb("delete_incomplete", delete_incomplete, aliases=["delete-incomplete"])
    _add_where(each)
    each.add_argument("--algorithms", nargs="+", default=[], metavar="NAME", help="only these")
    each.add_argument("--datasets", nargs="+", default=[], metavar="NAME", help="only these")
    _add_yes(each)
    each = verb("list", list_things)
    each.add_argument("kind", choices=KINDS, help="what to list")
    each.add_argument("names", nargs="*", metavar="NAME", help="describe these in full")
    return parser


def _command(make: Callable[..., argparse.ArgumentParser], *names: str, **options: Any) -> argparse.ArgumentParser:
    return make(*names, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)


def _add_launch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sweep", nargs="?", metavar="SWEEP", help="sweep file, or name of one in sweeps/; options win over it"
    )
    unset = argparse.SUPPRESS  # so that only what was given wins over a sweep file
    what = parser.add_argument_group("what to run").add_argument
    what("--algorithms", nargs="+", metavar="NAME", default=unset, help="methods")
    what("--datasets", nargs="+", metavar="NAME", default=unset, help="data sets, or folder:PATH (default: Icons)")
    what("--backbone", metavar="NAME", default=unset, help="default: tiny, which needs no download")
    what("--pretrained", metavar="TAG|FILE", default=unset, help="weights; a file has a / or a suffix such as .pt")
    what("--protocol", metavar="NAME", default=unset, help="default: leave_one_domain_out")
    what("--n-trials", type=int, metavar="N", default=unset, help="trial seeds 0 to N-1 (default: 3)")
    what("--n-hparams", type=int, metavar="N", default=unset, help="hparams seeds below N; 0 = defaults (default: 1)")
    what("--n-hparams-from", type=int, metavar="N", default=unset, help="first hparams seed (default: 0)")
    what("--hparams", type=_json_object, metavar="JSON", default=unset, help="values for the methods that have them")
    what("--steps", type=int, metavar="N", default=unset, help="updates (default: the method's own)")
    what(
        "--evaluate-every", type=int, metavar="N", default=unset, help="default: 300, or half the steps if that is less"
    )
    domains = parser.add_argument_group("domains and splits")
    add = domains.add_argument
    add(
        "--test-domains",
        "--test-envs",
        nargs="+",
        metavar="DOMAIN",
        default=unset,
        help="names or indices (default: all)",
    )
    sets = domains.add_mutually_exclusive_group()
    sets.add_argument("--pairs", action="store_true", default=unset, help="add the runs for leave-one-out selection")
    sets.add_argument(
        "--single-test-envs", dest="pairs", action="store_false", default=unset, help="no pairs (default)"
    )
    add("--holdout-fraction", type=float, metavar="F", default=unset, help='share of the "out" splits (default: 0.2)')
    add("--unlabeled", choices=UNLABELED, default=unset, help="split that unlabelled images come from (default: out)")
    add("--uda-holdout-fraction", type=float, metavar="F", default=unset, help="share of the uda split (default: 0)")
    add("--evaluate", choices=("selection", "all"), default=unset, help="splits to evaluate (default: selection)")
    add("--skip-bad-images", action="store_true", default=unset, help="leave undecodable images out and count them")
    places = parser.add_argument_group("places").add_argument
    places("--data-dir", metavar="DIR", help="folder that holds the data sets' folders")
    places("--captions", metavar="FILE", help="captions, instead of the file beside the data set")
    places("--pool", metavar="PATH", help="folder or TSV of image-text pairs, for methods that retrieve anchors")
    places("--cache", metavar="DIR", help="decoded and rendered images (default: the user's cache folder)")
    _add_where(parser, "default: the sweep file's name, else default")
    _add_machine(parser)
    parser.add_argument("--first", type=_from_one, metavar="N", help="only the first N trials")
    parser.add_argument("--dry-run", action="store_true", help="show trials, hparams and time; write nothing")
    _add_yes(parser)


def _add_where(parser: argparse.ArgumentParser, name: str = "only this sweep (default: all)") -> None:
    parser.add_argument("--output-dir", metavar="DIR", default="results", help="default: results")
    parser.add_argument("--name", metavar="NAME", help=f"name of the sweep's folder in it; {name}")


def _add_machine(parser: argparse.ArgumentParser, *, pool: bool = True) -> None:
    add = parser.add_argument_group("machine").add_argument
    if pool:
        add(
            "--jobs",
            type=_from_one,
            metavar="N",
            help="trials at a time (default: one a GPU; on the CPU as cores allow)",
        )
        add("--max-failures", type=_from_one, metavar="N", help="stop after N failed trials (default: never)")
    add("--threads", type=_from_one, metavar="N", help="CPU threads a trial (default: cores / jobs)")
    add("--device", type=_device, help="cpu, cuda, … (default: a GPU where there is one)")


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", "--skip-confirmation", action="store_true", help="ask nothing")


def _from_one(words: str) -> int:
    if not words.isdecimal() or int(words) < 1:
        raise argparse.ArgumentTypeError(f"{words!r} is not a whole number from 1")
    return int(words)


def _device(words: str) -> str:
    if not re.fullmatch(r"[a-z]+(:\d+)?", words):
        raise argparse.ArgumentTypeError(f"{words!r} is no device; give cpu, cuda or cuda:0")
    return words


def _json_object(words: str) -> dict[str, Any]:
    try:
        value = json.loads(words)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{words!r} is no JSON ({error}); write '{{\"lr\": 1e-5}}'") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{words!r} is no JSON object; write '{{\"lr\": 1e-5}}'")
    return value


if __name__ == "__main__":
    sys.exit(main())
