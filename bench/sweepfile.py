"""What a sweep is, and the files that hold one.

A sweep file is a Python module with a docstring (command, cost, expected numbers) and a function `trials()` that
returns a `Sweep`, or a list of `Sweep`s and `TrialSpec`s. What comes with CLIPBed lies in the folder `sweeps/`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench._paths import plugin_folder
from bench.errors import BenchError, SpecError, UnknownName
from bench.registry import unknown_name
from bench.spec import TrialSpec

_TYPES: dict[str, tuple[tuple[type, ...], tuple[str, ...]]] = {
    "a whole number": ((int,), ("n_trials", "n_hparams", "n_hparams_from")),
    "a whole number, or None": ((int, type(None)), ("steps", "evaluate_every")),
    "a number": ((int, float), ("holdout_fraction", "uda_holdout_fraction")),
    "True or False": ((bool,), ("pairs", "skip_bad_images")),
    "a text": ((str,), ("backbone", "protocol", "unlabeled", "evaluate")),
}


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A product of methods, data sets, held-out domains and seeds; each field is an option of `sweep launch`.

    Attributes:
        algorithms: registered methods.
        datasets: registered data sets, or "folder:PATH".
        backbone: backbone's name.
        pretrained: tag of its weights, or a file; None = the backbone's default.
        protocol: registered protocol.
        n_trials: trial seeds 0 .. n-1.
        n_hparams: hparams seeds below this; seed 0 = defaults, others are drawn.
        n_hparams_from: first hparams seed.
        hparams: values that win over defaults and draws, for those methods that have the hparam.
        steps: updates; None = each method's own number. A method that is not trained keeps 0.
        evaluate_every: None = every 300 updates, or once in the middle of a shorter training.
        holdout_fraction: share of each domain in its "out" split.
        pairs: add the runs with two held-out domains, which leave-one-domain-out selection needs.
        test_domains: names or 0-based indices; empty = each domain in turn.
        unlabeled, uda_holdout_fraction, evaluate, skip_bad_images: as in `TrialSpec`.
        options: options of the protocol, e.g. {"setting": "open"}.
        metrics: further metrics of every view, e.g. ("nll", "ece").
        transfer_to: data sets to test on besides, for the protocol `transfer`.
    """

    algorithms: tuple[str, ...]
    datasets: tuple[str, ...] = ("Icons",)
    backbone: str = "tiny"
    pretrained: str | None = None
    protocol: str = "leave_one_domain_out"
    n_trials: int = 3
    n_hparams: int = 1
    n_hparams_from: int = 0
    hparams: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    evaluate_every: int | None = None
    holdout_fraction: float = 0.2
    pairs: bool = False
    test_domains: tuple[str, ...] = ()
    unlabeled: str = "out"
    uda_holdout_fraction: float = 0.0
    evaluate: str = "selection"
    skip_bad_images: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    transfer_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Take lists for tuples, and check the numbers that no trial would show to be wrong.

        Raises:
            SpecError: names all that is wrong.
        """
        for name in ("algorithms", "datasets", "test_domains", "metrics", "transfer_to"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(map(str, value)))
        wrong = [
            f"{name}={getattr(self, name)!r} (allowed: {allowed})"
            for allowed, (types, names) in _TYPES.items()
            for name in names
            if type(getattr(self, name)) not in types
        ]
        if wrong:
            raise SpecError("this sweep is not valid: " + "; ".join(wrong))
        checks = {
            "algorithms": (bool(self.algorithms), "at least one method, see `sweep list algorithms`"),
            "datasets": (bool(self.datasets), "at least one data set, see `sweep list datasets`"),
            "n_trials": (self.n_trials >= 1, "a whole number from 1"),
            "n_hparams": (self.n_hparams > self.n_hparams_from, f"above n_hparams_from={self.n_hparams_from}"),
            "n_hparams_from": (self.n_hparams_from >= 0, "a whole number from 0"),
            "hparams": (isinstance(self.hparams, Mapping), 'a mapping of names to values, e.g. {"lr": 1e-5}'),
            "options": (isinstance(self.options, Mapping), 'a mapping of names to values, e.g. {"setting": "open"}'),
        }
        wrong = [
            f"{name}={getattr(self, name)!r} (allowed: {allowed})" for name, (ok, allowed) in checks.items() if not ok
        ]
        if wrong:
            raise SpecError("this sweep is not valid: " + "; ".join(wrong))


def with_options(wanted: Iterable[Sweep | TrialSpec], options: Mapping[str, Any]) -> list[Sweep | TrialSpec]:
    """Let the command's `options` (fields of `Sweep`) win over what a sweep file says; protocol options one by one.

    Raises:
        SpecError: the file gives single trials, whose fields are settled.
    """
    listed = list(wanted)
    if options and any(isinstance(each, TrialSpec) for each in listed):
        names = ", ".join("--" + name.replace("_", "-") for name in options)
        raise SpecError(f"this sweep file lists single trials, so it cannot be combined with {names}; change the file")
    return [_changed(each, options) if isinstance(each, Sweep) else each for each in listed]


def _changed(sweep: Sweep, options: Mapping[str, Any]) -> Sweep:
    of_protocol = {**sweep.options, **options.get("options", {})}
    if options.get("protocol", sweep.protocol) != sweep.protocol:
        of_protocol = dict(options.get("options", {}))  # another protocol has other options
    return dataclasses.replace(sweep, **{**options, "options": of_protocol})


def load_sweep(name: str) -> tuple[str, list[Sweep | TrialSpec]]:
    """Read a sweep file, given by its path or by its name in `sweeps/`; give (name, what its `trials()` returns).

    Raises:
        UnknownName: there is no such file.
        SpecError: it cannot be imported, or has no `trials()`.
    """
    path = sweep_file(name)
    module_spec = importlib.util.spec_from_file_location(f"clipbed_sweep_{path.stem}", path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        given = module.trials()
        wanted = [given] if isinstance(given, Sweep | TrialSpec) else list(given)
    except BenchError as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise SpecError(
            f"the sweep file {path} cannot be used ({reason}); it needs a function trials() that returns a Sweep or a "
            "list of Sweeps or TrialSpecs, see `sweep list sweeps`"
        ) from error
    if others := [each for each in wanted if not isinstance(each, Sweep | TrialSpec)]:
        raise SpecError(f"{path}: trials() returned {others[0]!r}, which is neither a Sweep nor a TrialSpec")
    return path.stem, wanted


def sweep_file(name: str) -> Path:
    """Find a sweep file by its path or by its name in `sweeps/`.

    Raises:
        UnknownName: there is no such file.
    """
    known = sweep_files()
    for path in (Path(name), *(path for path in known if name in (path.stem, path.name))):
        if path.suffix == ".py" and path.is_file():
            return path
    raise UnknownName(unknown_name("sweep file", name, tuple(path.stem for path in known)))


def sweep_files() -> list[Path]:
    """List the sweep files that come with CLIPBed."""
    return sorted(path for path in plugin_folder("sweeps").glob("*.py") if not path.name.startswith("_"))
