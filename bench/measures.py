"""How each protocol's records are read: what a table's cell is about, the numbers it reports, what is selected on.

Pure functions of flat records, by name of the protocol, so that tables need neither the protocol's code nor torch. A
protocol that is not listed here is read as `leave_one_domain_out`.

| protocol             | cells              | reported                            | validation                          |
|----------------------|--------------------|-------------------------------------|-------------------------------------|
| leave_one_domain_out | held-out domains   | accuracy                            | training domains' out splits        |
| single_source        | training domains   | mean accuracy on the other domains  | the training domain's out split     |
| base_to_new          | domains            | base, new, harmonic means           | base classes' validation shots      |
| in_the_wild          | held-out domains   | base, new, total, harmonic means    | training domains' out splits (base) |
| universal            | domains adapted to | accuracies, AUROC, FPR95, AUPR      | none: the last step                 |
| transfer             | other data sets    | accuracy, also where it was trained | validation shots                    |
| few_shot (imported)  | domains            | accuracy                            | none: the one number there is       |
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.sums import mean

Record = Mapping[str, Any]
Read = Callable[[Record, int], float]


@dataclass(frozen=True)
class Measure:
    """One number that tables report of a protocol's trials.

    Attributes:
        name: head of its column, and its metric in CSV and JSON.
        words: in the headings of tables.
        read: (record, cell's domain) → value, mostly in 0..1; NaN where the record has none.
        lower_is_better: whether the best is the smallest.
        is_detailed: whether it has a table of its own in text, with a comparison; CSV and JSON hold all.
        of: names of the two measures whose harmonic mean it is; averages of it are harmonic means of theirs.
        views: patterns of the views over all of whose images it is the accuracy; none if it is of another kind.
        is_compared: whether rows are compared by it; not where another measure's comparison says the same.
    """

    name: str
    words: str
    read: Read = field(compare=False)
    lower_is_better: bool = False
    is_detailed: bool = True
    of: tuple[str, str] | None = None
    views: tuple[str, ...] = ()
    is_compared: bool = True


@dataclass(frozen=True)
class Scheme:
    """How the records of one protocol are read.

    Attributes:
        measures: in the order of columns.
        main: name of the one that a choice's value is.
        cells: record → domains of the cells that it fills.
        validation: record → number to select on; None where there is nothing, so that the last step is reported.
        oracle: (record, cell's domain) → number that the oracle rule selects on.
        about: what the numbers are of, for the footer.
        views: prefix and pattern of the views whose further metrics (`--metrics`) are shown.
        only_filled: leave out the columns of domains that no trial fills.
        has_pairs: whether runs with two held-out domains serve leave-one-domain-out selection.
    """

    measures: tuple[Measure, ...]
    main: str
    cells: Callable[[Record], tuple[int, ...]]
    validation: Callable[[Record], float] | None
    oracle: Read
    about: str
    views: tuple[tuple[str, str], ...]
    only_filled: bool = False
    has_pairs: bool = False

    def value(self, record: Record, domain: int) -> float:
        """Give the main number of a cell."""
        return next(each for each in self.measures if each.name == self.main).read(record, domain)


def variant(options: Mapping[str, Any]) -> str:
    """Word the options of a protocol that are not at their defaults: "setting=open"; empty where there are none."""
    return ",".join(f"{name}={value}" for name, value in sorted(options.items()))


def label(record: Record) -> str:
    """Name a record's or spec's protocol, with its options in brackets: numbers with other options are of another kind."""
    told = settings(record)
    options = told.get("options")
    of_options = variant(options) if isinstance(options, Mapping) else ""
    options_told = str(told.get("variant") or of_options)
    name = str(told.get("protocol") or DEFAULT_PROTOCOL)
    return f"{name}[{options_told}]" if options_told and "[" not in name else name


def words(protocol: str) -> str:
    """Word a protocol's label for headings: "universal (setting open partial)"."""
    name, _, options = protocol.rstrip("]").partition("[")
    told = ", ".join(each.replace("=", " ") for each in options.split(",") if each)
    return (f"{name} ({told})" if told else name).replace("_", " ")


DEFAULT_PROTOCOL = "leave_one_domain_out"


@functools.cache
def scheme(protocol: str) -> Scheme:
    """Give the scheme of a protocol's label."""
    name, _, options = protocol.rstrip("]").partition("[")
    given = dict(each.partition("=")[::2] for each in options.split(",") if each)
    return _SCHEMES.get(name, _leave_one_domain_out)(given)


def further_measures(protocol: str, records: Iterable[Record]) -> tuple[Measure, ...]:
    """Give the measures that the trials were asked for besides (`--metrics`), as far as any record has them."""
    of_protocol = scheme(protocol)
    own = {each.name for each in of_protocol.measures}
    keys = {key for key in set[str]().union(*records) if key.startswith("env")}
    found = []
    for prefix, pattern in of_protocol.views:
        for metric, (name, lower) in _FURTHER.items():
            name = f"{prefix} {name}".strip()
            matches = re.compile(pattern.replace("{}", "[0-9]+") + f"_{metric}").fullmatch
            if name not in own and any(map(matches, keys)):
                found.append(Measure(name, name, _key(f"{pattern}_{metric}"), lower, is_detailed=False))
    return tuple(found)


_FURTHER = {
    "balanced_acc": ("per-class", False),
    "top5_acc": ("top-5", False),
    "nll": ("100 NLL", True),
    "ece": ("ECE", True),
    "brier": ("Brier", True),
    "macro_f1": ("macro-F1", False),
}
"""Metric → head of its column, whether lower is better. All are shown times a hundred."""


def settings(record: Record) -> Record:
    """Give the mapping that holds a record's dataset, algorithm and seeds: the record, or DomainBed's `args` in it."""
    args = record.get("args")
    return args if args is not None and isinstance(args, Mapping) else record


def held_out(record: Record) -> tuple[int, ...]:
    """Give the 0-based indices of the domains that a record's training held out."""
    told = settings(record)
    return tuple(told["test_domains"] if "test_domains" in told else told["test_envs"])


def count_domains(record: Record) -> int:
    """Count the domains of a record's data set: its `domains`, else env0, env1, … as far as they go."""
    if record.get("domains"):
        return len(record["domains"])
    count = 0
    while f"env{count}_out_acc" in record or f"env{count}_in_acc" in record:
        count += 1
    return count


def number(record: Record, key: str) -> float:
    """Give the number under `key`; NaN where there is none."""
    value = record.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _key(pattern: str) -> Read:
    return lambda record, domain: number(record, pattern.format(domain))


def _accuracy(name: str, words: str, view: str, *views: str) -> Measure:
    """Make the measure that is the accuracy on a view, over the images of `views` where it is made of several."""
    return Measure(name, words, _key(f"{view}_acc"), views=views or (view,))


def _harmonic(base: str, new: str) -> tuple[Measure, Measure]:
    """Make the two harmonic means that papers print: of the averages, and the average of those of trials and domains.

    Comparisons are of the latter, which has a number for each trial.
    """
    from bench.metrics import harmonic_mean  # imports numpy, which DomainBed's text can do without

    def read(record: Record, domain: int) -> float:
        return harmonic_mean(_key(f"{base}_acc")(record, domain), _key(f"{new}_acc")(record, domain))

    words = "harmonic mean of base and new"
    of_trials = Measure(
        "mean H", f"{words}, averaged over trials and domains", read, is_detailed=False, is_compared=False
    )
    return Measure("H", words, read, of=("base", "new")), of_trials


def _missing(record: Record, domain: int) -> float:
    return math.nan


def _mean(values: list[float]) -> float:
    return mean(values) if values else math.nan


def _training_domains(record: Record) -> tuple[int, ...]:
    return _others(count_domains(record), held_out(record))


@functools.lru_cache(maxsize=1024)
def _others(n_domains: int, out: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(domain for domain in range(n_domains) if domain not in out)


@functools.lru_cache(maxsize=1024)
def _keys_of_out_splits(n_domains: int, out: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"env{domain}_out_acc" for domain in _others(n_domains, out))


def _out_splits(record: Record) -> float:
    keys = _keys_of_out_splits(count_domains(record), held_out(record))
    values: list[Any] = [*map(record.get, keys)]
    return mean(values) if {*map(type, values)} == {float} else _mean([number(record, key) for key in keys])


def _domains_with(record: Record, *views: str) -> tuple[int, ...]:
    """Give the domains that have an accuracy on one of the views, in order."""
    pattern = re.compile(rf"env([0-9]+)_({'|'.join(views)})_acc")
    return tuple(sorted({int(match[1]) for key in record if (match := pattern.fullmatch(key))}))


def _validation_shots(record: Record) -> float:
    return _mean([number(record, f"env{domain}_val_acc") for domain in _domains_with(record, "val")])


_REPORTED = {"in": "its in-split", "out": "its out-split", "all": "all of it"}


def _leave_one_domain_out(options: Mapping[str, str]) -> Scheme:
    report = options.get("report", "in")
    view = f"env{{}}_{report}"
    parts = ("env{}_in", "env{}_out") if report == "all" else ()
    return Scheme(
        measures=(_accuracy("accuracy", "accuracy", view, *parts),),
        main="accuracy",
        cells=held_out,
        validation=_out_splits,
        oracle=_key("env{}_out_acc"),
        about=f"Accuracy in percent on the held-out domain ({_REPORTED.get(report, report)})",
        views=(("", view),),
        has_pairs=True,
    )


def _single_source(options: Mapping[str, str]) -> Scheme:
    report = options.get("report", "in")
    reported = "all of them" if report == "all" else f"their {report}-splits"

    def over_targets(split: str) -> Read:
        return lambda record, domain: _mean([number(record, f"env{each}_{split}_acc") for each in held_out(record)])

    return Scheme(
        measures=(Measure("accuracy", "accuracy", over_targets(report)),),
        main="accuracy",
        cells=_training_domains,
        validation=_out_splits,
        oracle=over_targets("out"),
        about=f"Mean accuracy in percent on the other domains ({reported}); columns are the training domains",
        views=(),
    )


def _base_to_new(options: Mapping[str, str]) -> Scheme:
    base, new = "env{}_base", "env{}_new"
    return Scheme(
        measures=(
            _accuracy("base", "accuracy on base classes", base),
            _accuracy("new", "accuracy on new classes", new),
            *_harmonic(base, new),
        ),
        main="H",
        cells=lambda record: _domains_with(record, "base", "new"),
        validation=_validation_shots,
        oracle=_missing,
        about="Accuracy in percent on test images of base classes (against base names) and of new classes (against new "
        "names), and their harmonic mean: H under Avg is of the averages, mean H the average of those of trials and domains",
        views=(("base", base), ("new", new)),
    )


def _in_the_wild(options: Mapping[str, str]) -> Scheme:
    base, new, total = "env{}_base", "env{}_new", "env{}_total"
    return Scheme(
        measures=(
            _accuracy("base", "accuracy on base classes", base),
            _accuracy("new", "accuracy on new classes", new),
            _accuracy("total", "accuracy on all classes", total, base, new),
            *_harmonic(base, new),
        ),
        main="total",
        cells=held_out,
        validation=_out_splits,
        oracle=_missing,
        about="Accuracy in percent on the held-out domain's images of base and of new classes, all against all names; "
        "total is of both, H their harmonic mean (under Avg of the averages; mean H averages those of trials and domains)",
        views=(("", total),),
    )


def _universal(options: Mapping[str, str]) -> Scheme:
    view = "env{}_test"
    return Scheme(
        measures=(
            Measure("accuracy", "accuracy on known classes", _key(f"{view}_acc"), is_detailed=False),
            Measure("per-class", "mean per-class accuracy on known classes", _key(f"{view}_balanced_acc")),
            Measure("AUROC", "AUROC, known against unknown classes", _key(f"{view}_auroc")),
            Measure("FPR95", "FPR95", _key(f"{view}_fpr95"), lower_is_better=True, is_detailed=False),
            Measure("AUPR", "AUPR", _key(f"{view}_aupr"), is_detailed=False),
        ),
        main="per-class",
        cells=held_out,
        validation=None,
        oracle=_missing,
        about="Percent, on images of known classes against the known names: accuracy and its mean over classes; AUROC, "
        "FPR95 (lower is better) and AUPR tell known (positive) from unknown classes. Nothing is selected: last step",
        views=(("", view),),
    )


def _transfer(options: Mapping[str, str]) -> Scheme:
    def of_source(record: Record, domain: int) -> float:
        return _mean([number(record, f"env{each}_id_acc") for each in _domains_with(record, "id")])

    return Scheme(
        measures=(
            Measure("trained", "accuracy on the data set that was trained on", of_source, is_detailed=False),
            _accuracy("accuracy", "accuracy", "env{}_test"),
        ),
        main="accuracy",
        cells=lambda record: _domains_with(record, "test"),
        validation=_validation_shots,
        oracle=_missing,
        about="Accuracy in percent on other data sets than the one that was trained on",
        views=(("", "env{}_test"),),
        only_filled=True,
    )


def _few_shot(options: Mapping[str, str]) -> Scheme:
    classes = f" ({options['classes']} classes alone)" if "classes" in options else ""
    return Scheme(
        measures=(_accuracy("accuracy", "accuracy", "env{}_test"),),
        main="accuracy",
        cells=lambda record: _domains_with(record, "test"),
        validation=None,
        oracle=_missing,
        about=f"Accuracy in percent on test images of the data set that was trained on{classes}",
        views=(("", "env{}_test"),),
    )


_SCHEMES: dict[str, Callable[[Mapping[str, str]], Scheme]] = {
    "leave_one_domain_out": _leave_one_domain_out,
    "single_source": _single_source,
    "base_to_new": _base_to_new,
    "in_the_wild": _in_the_wild,
    "universal": _universal,
    "transfer": _transfer,
    "few_shot": _few_shot,
}
