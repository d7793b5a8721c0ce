"""The options of `python -m bench.sweep`: what is understood, in our spelling and DomainBed's."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.command import from_one, from_zero
from bench.errors import SpecError
from bench.failures import RetryRule
from bench.spec import UNLABELED

Verb = Callable[[argparse.Namespace], int]

KINDS = ("algorithms", "datasets", "protocols", "backbones", "sweeps")
_DESCRIPTION = "Plan trials, run them, see how they get on."
_EXAMPLES = """examples:
  python -m bench.sweep launch --algorithms CLIPood
  python -m bench.sweep launch --algorithms ERM CLIPood --datasets PACS --data-dir DATA --backbone ViT-B-16 --dry-run
  python -m bench.sweep status --watch
  python -m bench.sweep list algorithms CLIPood
"""
_RETRY = "default: node, preempted, time, killed, oom and disk, each a few times"
_LAUNCH_EXAMPLES = """The same command again runs only what is not done: that is how to resume.

examples:
  python -m bench.sweep launch --algorithms CLIPood
  python -m bench.sweep launch --algorithms ZeroShot ERM --datasets PACS VLCS --data-dir DATA --n-trials 2 --jobs 2
  python -m bench.sweep launch --algorithms ERM --datasets folder:pictures --hparams '{"lr": 1e-5}' --steps 200
  python -m bench.sweep launch sweeps/pacs_tiny.py --data-dir DATA --dry-run
  python -m bench.sweep launch --protocol universal --setting open --algorithms ZeroShot UEO
  python -m bench.sweep launch --algorithms ERM CLIPood --launcher slurm --partition gpu --time 4h --trials-per-task 3

exit code: 0 all done, 1 a trial failed or is left, 2 the input is no good, 130 interrupted
"""


def normalised(arguments: Sequence[str]) -> list[str]:
    """Turn DomainBed's `--data_dir` into `--data-dir`, for every option; values stay as they are."""
    return [re.sub(r"^--[\w-]+", lambda name: name[0].replace("_", "-"), argument) for argument in arguments]


def parser(verbs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    """Make the parser; each verb's help is its function's docstring, and the function lands in `verb`."""
    made = _command(argparse.ArgumentParser, prog="python -m bench.sweep", description=_DESCRIPTION, epilog=_EXAMPLES)
    places = made.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, function in verbs.items():
        words = (function.__doc__ or "").strip()
        more = {"epilog": _LAUNCH_EXAMPLES} if name == "launch" else {}
        aliases = [name.replace("_", "-")] if "_" in name else []
        verb = _command(places.add_parser, name, aliases=aliases, help=words, description=words, **more)
        verb.set_defaults(verb=function)
        _ADD_OPTIONS[name](verb)
    return made


def _add_status(parser: argparse.ArgumentParser) -> None:
    _add_where(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="show it again and again, until nothing is left to run")
    how.add_argument("--json", action="store_true", help="print it for scripts")
    how.add_argument("--failed", action="store_true", help="list the failed trials with their last error lines")


def _add_trial(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trial", metavar="TRIAL", help="beginning of a trial's id, or its folder")
    _add_where(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_trial(parser)
    _add_machine(parser, pool=False)


def _add_rerun(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trials", metavar="TRIAL", nargs="*", help="beginnings of ids, or folders; done ones run anew")
    parser.add_argument("--failed", action="store_true", help="all that failed or were lost")
    parser.add_argument("--max-attempts", type=from_one, metavar="N", help="not those that were tried N times")
    _add_where(parser)
    _add_machine(parser)
    _add_slurm(parser)


def _add_cancel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trials", metavar="TRIAL", nargs="*", help="beginnings of ids, or folders")
    parser.add_argument("--all", action="store_true", help="all that are not done")
    _add_where(parser)


def _add_delete(parser: argparse.ArgumentParser) -> None:
    _add_where(parser)
    parser.add_argument("--algorithms", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--datasets", nargs="+", default=[], metavar="NAME", help="only these")
    _add_yes(parser)


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="where to copy to, e.g. results/published/NAME")
    _add_where(parser)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=KINDS, help="what to list")
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help="describe these in full")


def _command(make: Callable[..., argparse.ArgumentParser], *names: str, **options: Any) -> argparse.ArgumentParser:
    return make(*names, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)


def _add_launch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sweep", nargs="?", metavar="SWEEP", help="sweep file, or name of one in sweeps/; options win over it"
    )
    unset = argparse.SUPPRESS  # so that only what was given wins over a sweep file
    what = parser.add_argument_group("what to run").add_argument
    what("--algorithms", nargs="+", metavar="NAME", default=unset, help="methods")
    what(
        "--datasets",
        nargs="+",
        metavar="NAME",
        default=unset,
        help="data sets, folder:PATH or csv:FILE (default: Icons)",
    )
    what("--backbone", metavar="NAME", default=unset, help="default: tiny, which needs no download")
    what("--pretrained", metavar="TAG|FILE|TAG=FILE", default=unset, help="weights; TAG=FILE: a file of that origin")
    what("--protocol", metavar="NAME", default=unset, help="default: leave_one_domain_out")
    _add_protocol_options(what)
    what("--transfer-to", nargs="+", metavar="NAME", default=unset, help="transfer: the data sets to test on")
    what("--metrics", nargs="+", metavar="NAME", default=unset, help="further metrics: balanced_acc, top5_acc, nll, …")
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
    places("--domainbed", metavar="DIR", help="checkout of DomainBed, for --algorithms domainbed:NAME")
    places("--cache", metavar="DIR", help="decoded and rendered images (default: the user's cache folder)")
    _add_where(parser, "default: the sweep file's name, else default")
    _add_machine(parser)
    _add_slurm(parser)
    parser.add_argument("--first", type=from_one, metavar="N", help="only the first N trials")
    parser.add_argument("--dry-run", action="store_true", help="show trials, hparams and time; write nothing")
    _add_yes(parser)


_PROTOCOL_OPTIONS = {
    "setting": ("NAME", "universal: closed, partial, open or open_partial"),
    "ood-score": ("NAME", "universal: mcm (default), msp, max_logit, energy or neg_entropy"),
    "shots": ("N", "base_to_new, transfer: labelled images a class, or all (default: 16)"),
    "report": ("SPLIT", "images of the held-out domain that count: in, out or all (default: the protocol's)"),
}


def _add_protocol_options(add: Callable[..., Any]) -> None:
    for name, (metavar, words) in _PROTOCOL_OPTIONS.items():
        option = name.replace("-", "_")
        named = functools.partial(_named, option)
        add(
            f"--{name}",
            type=named,
            action=_Merge,
            dest="options",
            default=argparse.SUPPRESS,
            metavar=metavar,
            help=words,
        )
    words = "any options of the protocol; `sweep list protocols NAME` names them"
    add("--options", type=_json_object, action=_Merge, default=argparse.SUPPRESS, metavar="JSON", help=words)


def _named(option: str, value: str) -> dict[str, str]:
    return {option: value}


class _Merge(argparse.Action):
    """Put several options into one mapping."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        setattr(namespace, self.dest, {**getattr(namespace, self.dest, {}), **values})


def _add_where(parser: argparse.ArgumentParser, name: str = "only this sweep (default: all)") -> None:
    parser.add_argument("--output-dir", metavar="DIR", default="results", help="default: results")
    parser.add_argument("--name", metavar="NAME", help=f"name of the sweep's folder in it; {name}")


def _add_machine(parser: argparse.ArgumentParser, *, pool: bool = True) -> None:
    add = parser.add_argument_group("machine").add_argument
    if pool:
        add(
            "--jobs",
            type=from_one,
            metavar="N",
            help="trials at a time, on Slurm in a task (default: one a GPU; on the CPU as cores allow)",
        )
        add(
            "--share",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="train trials whose weights follow the same path once, as ERM and averages of it (default: yes)",
        )
        add("--max-failures", type=from_one, metavar="N", help="stop after N failed trials here (default: never)")
        add(
            "--retry",
            type=_retry_rule,
            metavar="RULE",
            help=f"which failures are tried again, e.g. node,oom=2 or none ({_RETRY})",
        )
    add("--threads", type=from_one, metavar="N", help="CPU threads a trial (default: cores / jobs)")
    add("--device", type=_device, help="cpu, cuda or cuda:N (default: a GPU where there is one)")


def _add_slurm(parser: argparse.ArgumentParser) -> None:
    """Add what a Slurm cluster needs to know; `[slurm]` in clipbed.toml has the same names and gives defaults."""
    group = parser.add_argument_group("Slurm (defaults: the table [slurm] of ./clipbed.toml, then the user's)")

    def add(name: str, words: str, **options: Any) -> None:
        group.add_argument(f"--{name}", f"--slurm-{name}", dest=name.replace("-", "_"), help=words, **options)

    group.add_argument(
        "--launcher",
        choices=("auto", "local", "slurm"),
        default="auto",
        help="default: Slurm where a controller answers",
    )
    for name in ("partition", "account", "qos", "constraint"):
        add(name, "as sbatch's", metavar="NAME")
    add("exclude", "nodes to avoid", metavar="NODES")
    add("time", "time limit of a task: minutes, 4h, 1-12:00:00 (default: the partition's)", metavar="TIME")
    add("memory", "memory of a task, e.g. 32G (default: the cluster's)", metavar="SIZE")
    add("cpus-per-trial", "CPUs, and threads of torch (default: 1)", type=from_one, metavar="N")
    add("gpus-per-trial", "GPUs of a task (default: 1 where the cluster has any)", type=from_zero, metavar="N")
    add("parallel", "tasks that may run at a time (default: as the cluster allows)", type=from_one, metavar="N")
    group.add_argument("--no-requeue", dest="requeue", action="store_false", default=None, help="not after preemption")
    add("setup", "shell line before each task's command; may be given more than once", action="append", metavar="LINE")
    add("sbatch", "further sbatch option; may be given more than once", action="append", metavar="KEY=VALUE")
    packing = group.add_mutually_exclusive_group()
    packing.add_argument(
        "--trials-per-task", type=from_one, metavar="N", help="run N trials after one another in a task"
    )
    packing.add_argument(
        "--minutes-per-task",
        type=_minutes,
        metavar="M",
        help="fill tasks with M minutes of trials, by what finished ones took",
    )
    group.add_argument("--snapshot", action="store_true", help="run from a copy of the code, which you may then change")
    group.add_argument(
        "--no-prepare",
        dest="prepare",
        action="store_false",
        help="no task that decodes the data before the trials start",
    )
    group.add_argument("--wait", action="store_true", help="follow the trials until all are over")


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", "--skip-confirmation", action="store_true", help="ask nothing")


def _device(words: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", words):
        raise argparse.ArgumentTypeError(f"{words!r} is no device that trials run on; give cpu, cuda or cuda:0")
    return words


def _minutes(words: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(words) < math.inf:
            return float(words)
    raise argparse.ArgumentTypeError(f"{words!r} is no number of minutes above 0")


def _retry_rule(words: str) -> str:
    try:
        RetryRule.parse(words)
    except SpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return words


def _json_object(words: str) -> dict[str, Any]:
    try:
        value = json.loads(words)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{words!r} is no JSON ({error}); write '{{\"lr\": 1e-5}}'") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{words!r} is no JSON object; write '{{\"lr\": 1e-5}}'")
    return value


_ADD_OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "launch": _add_launch,
    "status": _add_status,
    "run": _add_run,
    "rerun": _add_rerun,
    "cancel": _add_cancel,
    "show": _add_trial,
    "logs": _add_trial,
    "delete_incomplete": _add_delete,
    "publish": _add_publish,
    "list": _add_list,
}
