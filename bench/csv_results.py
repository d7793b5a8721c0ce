"""Numbers from plain CSV files as records: one line a number, `dataset,algorithm,domain,trial,metric,value`.

The header is required, the order of columns free. Optional columns: `protocol` (leave_one_domain_out where empty),
`backbone`, `pretrained`, `step`, `split` (of leave_one_domain_out: in, out or all) and `unit` (percent or fraction).
Without a unit a metric is in percent where any of its values in the file is above 1, in fractions where none is.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bench.domainbed.reading import ENVIRONMENTS
from bench.errors import Conflict, SpecError
from bench.results_folder import CSV_COLUMNS

IMPORTED = "csv"
REQUIRED = CSV_COLUMNS
OPTIONAL = ("protocol", "backbone", "pretrained", "step", "split", "unit")
_SPLITS = ("in", "out", "all")
_UNITS = ("percent", "fraction")
_AVERAGES = ("avg", "avg.", "average", "mean")
_NOT_RECORDED = "not recorded"
_FURTHER = {"per-class": "balanced_acc", "top-5": "top5_acc", "ece": "ece", "brier": "brier", "macro-f1": "macro_f1"}

_METRICS: dict[str, dict[str, str]] = {
    "leave_one_domain_out": {
        "accuracy": "env{}_{}_acc",
        **{name: f"env{{}}_{{}}_{key}" for name, key in _FURTHER.items()},
    },
    "base_to_new": {"base": "env{}_base_acc", "new": "env{}_new_acc"},
    "in_the_wild": {"base": "env{}_base_acc", "new": "env{}_new_acc", "total": "env{}_total_acc"},
    "universal": {
        "accuracy": "env{}_test_acc",
        "per-class": "env{}_test_balanced_acc",
        "auroc": "env{}_test_auroc",
        "fpr95": "env{}_test_fpr95",
        "aupr": "env{}_test_aupr",
    },
    "transfer": {"accuracy": "env{}_test_acc"},
    "few_shot": {"accuracy": "env{}_test_acc", **{name: f"env{{}}_test_{key}" for name, key in _FURTHER.items()}},
}
"""Protocol → metric in small letters → key of a record, with places for domain and split."""
_REPORT = re.compile(r"[\[,]report=(in|out|all)\b")
_SPELLINGS = {"acc": "accuracy", "top-1": "accuracy", "top1": "accuracy"}
_DERIVED = {"base_to_new": ("h", "hm"), "in_the_wild": ("h", "hm")}
_HOLDS_OUT = ("leave_one_domain_out", "in_the_wild", "universal")


class Number(NamedTuple):
    """One line of a file.

    Attributes:
        line: "<file>:<line>", for messages.
        protocol: with its options.
        dataset, algorithm, domain, backbone, pretrained: as the file has them.
        trial: trial seed.
        step: updates done; 0 where not told.
        metric: as the file has it.
        key: of the record, with a place for the domain's index.
        value: as the file has it.
        unit: "percent", "fraction", or "" where not told.
    """

    line: str
    protocol: str
    dataset: str
    algorithm: str
    domain: str
    backbone: str
    pretrained: str
    trial: int
    step: int
    metric: str
    key: str
    value: float
    unit: str


def read_numbers(path: str, *, is_asked_for: bool) -> tuple[list[Number], Mapping[str, int]] | None:
    """Read a file; give its numbers, all as fractions, and counts of the lines left out and why.

    Args:
        path: the file.
        is_asked_for: the user named this very file; another one that lacks the header is passed over (None).

    Raises:
        SpecError: a line or the header is no good; the message names file, line and column.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip().lower() for name in next(rows, [])]
            if not set(REQUIRED) <= set(header) and not is_asked_for:
                return None
            _check_header(path, header)
            left_out: Counter[str] = Counter()
            numbers: list[Number] = []
            for row in rows:
                if any(map(str.strip, row)):
                    found = _number(f"{path}:{rows.line_num}", header, row)
                    if isinstance(found, Number):
                        numbers.append(found)
                    else:
                        left_out[found] += 1
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        if not is_asked_for:
            return None
        raise SpecError(f"cannot read {path} as CSV in UTF-8: {error}") from None
    return _as_fractions(numbers), left_out


def _check_header(path: str, header: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in header]
    unknown = [name for name in header if name not in (*REQUIRED, *OPTIONAL)]
    twice = [name for name, count in Counter(header).items() if count > 1]
    wrong = [
        *(f"lacks {', '.join(missing)}" for _ in missing[:1]),
        *(f"has unknown columns {', '.join(map(repr, unknown))}" for _ in unknown[:1]),
        *(f"names {', '.join(twice)} twice" for _ in twice[:1]),
    ]
    if wrong:
        raise SpecError(
            f"{path}:1: the header {' and '.join(wrong)}; needed are {','.join(REQUIRED)}, allowed besides "
            f"{','.join(OPTIONAL)}"
        )


def _number(line: str, header: Sequence[str], row: Sequence[str]) -> Number | str:
    """Read one line, or say why it is left out."""
    if len(row) != len(header):
        raise SpecError(f"{line}: {len(row)} cells, the header has {len(header)} columns; quote names with commas")
    told = {name: cell.strip() for name, cell in zip(header, row)}
    for name in ("dataset", "algorithm", "domain"):
        if not told[name]:
            raise SpecError(f"{line}: column {name} is empty; give a name")
    protocol, metric = told.get("protocol") or "leave_one_domain_out", told["metric"].lower()
    name = protocol.partition("[")[0]
    if name not in _METRICS:
        raise SpecError(f"{line}: column protocol is {protocol!r}; allowed are {', '.join(_METRICS)}")
    if told["domain"].lower() in _AVERAGES:
        return "averages, which are computed here"
    if metric in _DERIVED.get(name, ()):
        return "harmonic means, which are computed here"
    key = _METRICS[name].get(_SPELLINGS.get(metric, metric))
    if key is None:
        allowed = ", ".join(_METRICS[name])
        raise SpecError(f"{line}: column metric is {told['metric']!r}; allowed for {name} are {allowed}")
    in_brackets = _REPORT.search(protocol)
    split = _one_of(line, "split", told.get("split", ""), _SPLITS) or (
        in_brackets[1] if in_brackets is not None else "in"
    )
    if name == "leave_one_domain_out" and split != "in" and "[" not in protocol:
        protocol = f"{protocol}[report={split}]"
    unit = _one_of(line, "unit", told.get("unit", ""), _UNITS)
    whole = (_whole(line, column, told.get(column, "") or "0") for column in ("trial", "step"))
    if not told["trial"]:
        raise SpecError(f"{line}: column trial is empty; give the trial's seed, a whole number from 0")
    return Number(
        line=line,
        protocol=protocol,
        **{column: told[column] for column in ("dataset", "algorithm", "domain")},
        backbone=told.get("backbone") or _NOT_RECORDED,
        pretrained=told.get("pretrained", ""),
        trial=next(whole),
        step=next(whole),
        metric=told["metric"],
        key=key.format("{}", split) if key.count("{}") == 2 else key,
        value=_value(line, told["value"]),
        unit=unit or ("percent" if told["value"].endswith("%") else ""),
    )


def _one_of(line: str, column: str, word: str, allowed: Sequence[str]) -> str:
    if word and word.lower() not in allowed:
        raise SpecError(f"{line}: column {column} is {word!r}; allowed are {', '.join(allowed)}")
    return word.lower()


def _whole(line: str, column: str, word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise SpecError(f"{line}: column {column} is {word!r}; allowed are whole numbers from 0")
    return int(word)


def _value(line: str, word: str) -> float:
    try:
        value = float(word.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise SpecError(
            f"{line}: column value is {word!r}; allowed are numbers from 0 to 100 (percent) or to 1 (fractions)"
        )
    return value


def _as_fractions(numbers: Sequence[Number]) -> list[Number]:
    """Turn all values into fractions.

    Raises:
        SpecError: a value above 1 is said to be a fraction.
    """
    percent = {(each.protocol, each.key) for each in numbers if each.value > 1 and each.unit != "fraction"}
    found = []
    for each in numbers:
        if each.unit == "fraction" and each.value > 1:
            raise SpecError(f"{each.line}: column value is {each.value:g}, above 1, though unit is fraction")
        unit = each.unit or ("percent" if (each.protocol, each.key) in percent else "fraction")
        found.append(each._replace(value=each.value / 100 if unit == "percent" else each.value, unit=unit))
    return found


def records_of(
    numbers: Iterable[Number], known: Mapping[tuple[str, str], Sequence[str]] | None = None
) -> list[dict[str, Any]]:
    """Make a record of the numbers of each trial.

    Args:
        numbers: of one file or of several.
        known: (protocol, data set) → names of its domains, where other records tell them.

    Raises:
        Conflict: one number is said twice, differently.
    """
    numbers = list(numbers)
    domains, notes = _domains(numbers, known or {}), _notes(numbers)
    trials: dict[tuple[Any, ...], list[Number]] = defaultdict(list)
    for each in numbers:
        held_out = each.domain if each.protocol.partition("[")[0] in _HOLDS_OUT else ""
        row = (each.algorithm, each.backbone, each.pretrained)
        trials[each.protocol, each.dataset, *row, each.trial, each.step, held_out].append(each)
    return [_record(key, of_trial, domains[key[0], key[1]], notes) for key, of_trial in trials.items()]


def _domains(
    numbers: Sequence[Number], known: Mapping[tuple[str, str], Sequence[str]]
) -> dict[tuple[str, str], list[str]]:
    """Order the domains of each table: as other records have them, as DomainBed, else as they come."""
    found: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for each in numbers:
        found[each.protocol, each.dataset][each.domain] = None
    ordered = {}
    for (protocol, dataset), names in found.items():
        candidates = (known.get((protocol, dataset), ()), ENVIRONMENTS.get(dataset, ()))
        ordered[protocol, dataset] = list(next((each for each in candidates if set(names) <= set(each)), names))
    return ordered


def _record(
    key: tuple[Any, ...], numbers: Sequence[Number], domains: list[str], notes: Mapping[str, str]
) -> dict[str, Any]:
    protocol, dataset, algorithm, backbone, pretrained, trial, step, held_out = key
    record: dict[str, Any] = {
        "trial": "-".join(map(str, filter(None, (IMPORTED, *key[:5], f"trial{trial}", held_out)))),
        "protocol": protocol,
        "dataset": dataset,
        "algorithm": algorithm,
        "predictor": algorithm,
        "backbone": backbone,
        "pretrained": pretrained,
        "test_domains": [domains.index(held_out)] if held_out else [],
        "domains": domains,
        "trial_seed": trial,
        "hparams_seed": 0,
        "step": step,
        "imported": IMPORTED,
        "notes": list(dict.fromkeys(notes[each.line.rpartition(":")[0]] for each in numbers)),
    }
    said: dict[str, Number] = {}
    for each in numbers:
        where = each.key.format(domains.index(each.domain))
        before = said.setdefault(where, each)
        if before.value != each.value:
            raise Conflict(
                f"{each.line}: {each.metric} of {dataset}, {algorithm}, {each.domain}, trial {trial} is another number than "
                f"in {before.line}; keep one of the two lines"
            )
        record[where] = each.value
    return record


def _notes(numbers: Iterable[Number]) -> dict[str, str]:
    """Word for each file how its values were taken."""
    metrics: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for each in numbers:
        metrics[each.line.rpartition(":")[0]][each.unit][each.metric] = None
    return {
        file: f"imported from {os.path.basename(file)} ({'; '.join(_told(of_file))}): one final number a trial, nothing was "
        "selected here"
        for file, of_file in metrics.items()
    }


def _told(metrics: Mapping[str, Iterable[str]]) -> list[str]:
    words = {"percent": "percent", "fraction": "fractions"}
    return [f"{', '.join(names)} in {words[unit]}" for unit, names in metrics.items()]
