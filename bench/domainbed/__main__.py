"""`python -m bench.domainbed VERB`: export records for DomainBed's collector; train our methods in its `train.py`."""

from __future__ import annotations

import argparse
import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import console
from bench.command import exit_code, from_zero
from bench.domainbed import checkout
from bench.errors import DataMissing, SpecError, UnknownName
from bench.registry import datasets as dataset_registry
from bench.registry import unknown_name

if TYPE_CHECKING:
    from bench.domainbed.ours import Setting

_EXAMPLES = """examples:
  python -m bench.domainbed export results/default --output sweep
  python -m bench.domainbed train --domainbed DomainBed -- --algorithm CLIPBed_CLIPood --dataset PACS --data_dir DATA

The other way round, `python -m bench.sweep launch --algorithms domainbed:CORAL --domainbed DIR` trains DomainBed's
algorithms here, and `python -m bench.collect SWEEP` reads its sweeps. See docs/domainbed.md.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    of_domainbed = given[given.index("--") + 1 :] if "--" in given else []
    options = _parser().parse_args(given[: given.index("--")] if "--" in given else given)
    return exit_code("domainbed", lambda: options.verb(options, of_domainbed))


def export(options: argparse.Namespace, further: Sequence[str]) -> int:
    """Write finished leave-one-domain-out runs as a sweep that DomainBed's own collector reads."""
    from bench.domainbed.export import export as write

    if further:
        raise SpecError(f"export has no use for {' '.join(further)}")
    made = write(options.results, options.output, selection_independent=options.selection_independent)
    console.say(f"{made.n_runs} runs, {made.n_lines} records → {made.folder}")
    for reason, number in made.left_out.items():
        console.say(f"left out: {number} {reason}" if "of which" not in reason else f"{number} {reason}")
    console.say(f"in the checkout of DomainBed: python -m domainbed.scripts.collect_results --input_dir={made.folder}")
    return 0


def train(options: argparse.Namespace, further: Sequence[str]) -> int:
    """Run DomainBed's own scripts/train.py with our methods in its registry; what follows -- are its arguments."""
    used = checkout.use(options.domainbed)
    called = _read_arguments(further)
    datasets = used.module("datasets")
    if called.dataset not in datasets.DATASETS:
        raise UnknownName(unknown_name("data set of DomainBed called", called.dataset, tuple(datasets.DATASETS)))
    if options.workers is not None:
        getattr(datasets, called.dataset).N_WORKERS = options.workers
    setting = _setting(called, getattr(datasets, called.dataset), used, options)
    from bench.domainbed.ours import PREFIX, register

    names = register(used.module("algorithms"), used.module("hparams_registry"), setting)
    if called.algorithm not in (*names, *used.algorithms()):
        raise UnknownName(unknown_name("algorithm", called.algorithm, names))
    if called.algorithm.startswith(PREFIX):
        console.say(f"class names: {', '.join(setting.class_names)}; {setting.n_steps} steps; {setting.backbone}")
    sys.path.insert(0, str(used.folder))  # its loaders' processes import it too
    sys.argv = ["train.py", *further]
    runpy.run_module("domainbed.scripts.train", run_name="__main__", alter_sys=True)
    return 0


def _read_arguments(further: Sequence[str]) -> argparse.Namespace:
    """Read from the arguments of DomainBed's train.py what an algorithm is not told."""
    parser = argparse.ArgumentParser(prog="train.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--algorithm", default="ERM")
    parser.add_argument("--dataset", default="RotatedMNIST")
    parser.add_argument("--data_dir")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--test_envs", type=int, nargs="+", default=[0])
    parser.add_argument("--hparams", default="{}")
    return parser.parse_known_args(list(further))[0]


def _setting(called: argparse.Namespace, kind: Any, used: checkout.Checkout, options: argparse.Namespace) -> Setting:
    from bench.domainbed.ours import Setting
    from bench.models import check_backbone
    from bench.plan import weights_place
    from bench.spec import Places

    try:
        hparams = json.loads(called.hparams)
    except ValueError as error:
        raise SpecError(f"--hparams {called.hparams} is no JSON: {error}") from None
    tag, weights = weights_place(options.pretrained, Places())
    backbone, pretrained = check_backbone(options.backbone, tag, weights)
    defaults = used.module("hparams_registry").default_hparams("ERM", called.dataset)
    names = tuple(map(str, hparams.get("class_names", ()))) or _class_names(called, kind, {**defaults, **hparams})
    return Setting(
        class_names=names,
        n_steps=called.steps or int(kind.N_STEPS),
        dataset=called.dataset,
        backbone=backbone,
        pretrained=pretrained,
        weights=weights.weights,
    )


def _class_names(called: argparse.Namespace, kind: Any, hparams: dict[str, Any]) -> tuple[str, ...]:
    """Give the names of the class folders as words, in the order of DomainBed's labels (ImageFolder's).

    The data set is built once more for it, as train.py will build it; that lists its files and reads none.

    Raises:
        DataMissing: it is not there.
        SpecError: it has no class folders.
    """
    from bench.dataset import clean_class_name

    if called.data_dir is None:
        raise SpecError("give DomainBed's train.py its --data_dir: class names are read from the folders in it")
    try:
        built = kind(called.data_dir, called.test_envs, hparams)
    except FileNotFoundError as error:
        raise DataMissing(f"{called.dataset} is not in --data_dir {called.data_dir}: {error}") from error
    found = [tuple(getattr(domain, "classes", ())) for domain in built.datasets]
    if not all(found) or len(set(found)) > 1:
        raise SpecError(
            f"the domains of {called.dataset} do not name their classes alike; say what the labels mean: "
            "--hparams '{\"class_names\": [...]}'"
        )
    if called.dataset in dataset_registry:
        declared = dataset_registry[called.dataset]
        if getattr(declared, "class_folders", ()) == found[0]:
            return tuple(declared.class_names)  # our words for them, where the folders' names are none
    return tuple(map(clean_class_name, found[0]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.domainbed",
        description="DomainBed both ways.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    made = verbs.add_parser("export", help=export.__doc__, description=export.__doc__)
    made.set_defaults(verb=export)
    made.add_argument("results", type=Path, metavar="RESULTS", help="results folder, sweep folder or run folder")
    made.add_argument("--output", type=Path, metavar="DIR", required=True, help="sweep folder to make")
    last = "only the last step of each run, so that no selection rule of DomainBed's chooses a step"
    made.add_argument("--selection-independent", action="store_true", help=last)
    made = verbs.add_parser("train", help=train.__doc__, description=train.__doc__)
    made.set_defaults(verb=train)
    made.add_argument("--domainbed", metavar="DIR", help=f"checkout of DomainBed (default: ${checkout.VARIABLE})")
    made.add_argument("--backbone", metavar="NAME", default="tiny", help="default: tiny")
    made.add_argument("--pretrained", metavar="TAG|FILE|TAG=FILE", help="weights (default: the backbone's)")
    workers = "processes of each of its loaders, of which there are three for every domain (default: its own, 8)"
    made.add_argument("--workers", type=from_zero, metavar="N", help=workers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
