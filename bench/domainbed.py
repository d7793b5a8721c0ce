"""DomainBed's sweeps: reading them as records, and printing what DomainBed's own collector prints, byte for byte.

Facts of DomainBed at b93c22a (December 2024): the order of its data sets and algorithms, its environments, the wording
and widths of `scripts/collect_results.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import Conflict, RecordsMissing
from bench.selection import DEFAULT_PROTOCOL, DOMAINBED_RULES, Choice, count_domains, row_of, select

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "Debug28": ("0", "1", "2"),
    "Debug224": ("0", "1", "2"),
    "ColoredMNIST": ("+90%", "+80%", "-90%"),
    "RotatedMNIST": ("0", "15", "30", "45", "60", "75"),
    "VLCS": ("C", "L", "S", "V"),
    "PACS": ("A", "C", "P", "S"),
    "OfficeHome": ("A", "C", "P", "R"),
    "TerraIncognita": ("L100", "L38", "L43", "L46"),
    "DomainNet": ("clip", "info", "paint", "quick", "real", "sketch"),
    "SVIRO": ("aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe"),
    "WILDSCamelyon": tuple(f"hospital_{i}" for i in range(5)),
    "WILDSFMoW": tuple(f"region_{i}" for i in range(6)),
    **{
        f"Spawrious{kind}_{level}": ("Test", "SC_group_1", "SC_group_2")
        for kind in ("O2O", "M2M")
        for level in ("easy", "medium", "hard")
    },
}
"""Short names of the domains of DomainBed's data sets; both in DomainBed's order."""

# fmt: off
ALGORITHMS = (
    "ERM", "ERMPlusPlus", "Fish", "IRM", "GroupDRO", "Mixup", "MLDG", "CORAL", "MMD", "DANN", "CDANN", "MTL",
    "SagNet", "ARM", "VREx", "RSC", "SD", "ANDMask", "SANDMask", "IGA", "SelfReg", "Fishr", "TRM", "IB_ERM",
    "IB_IRM", "CAD", "CondCAD", "Transfer", "CausIRL_CORAL", "CausIRL_MMD", "EQRM", "RDM", "ADRMX", "URM",
)
# fmt: on
"""DomainBed's algorithms in the order of its tables."""

_RULE_NAMES = {
    "training-domain": "training-domain validation set",
    "leave-one-out": "leave-one-domain-out cross-validation",
    "oracle": "test-domain validation set (oracle)",
    "last": "last step",
}
_WIDTH = 20
_WIDTH_OF_AVERAGES = 25


def is_line(line: Mapping[str, Any]) -> bool:
    """Say whether a line of a records file was written by DomainBed."""
    return isinstance(line.get("args"), Mapping)


def is_done(folder: Path) -> bool:
    """Say whether a run folder of DomainBed's is finished: it holds the file `done`, which is written last."""
    return (folder / "done").exists()


def as_record(line: Mapping[str, Any], trial: str) -> dict[str, Any]:
    """Turn a line of DomainBed's into a flat record.

    DomainBed records neither backbone nor code version nor data digest, so the record has none. A run with
    `task=domain_adaptation` saw unlabelled images of the held-out domain, apart from those reported on.

    Raises:
        KeyError: the line lacks what every record of DomainBed's has.
    """
    args = line["args"]
    record = {key: value for key, value in line.items() if key not in ("args", "hparams")}
    record |= {
        "protocol": DEFAULT_PROTOCOL,
        "dataset": args["dataset"],
        "algorithm": args["algorithm"],
        "predictor": args["algorithm"],
        "test_domains": list(args["test_envs"]),
        "trial_seed": args["trial_seed"],
        "hparams_seed": args["hparams_seed"],
        "trial": trial,
    }
    if args.get("task") == "domain_adaptation":
        record["unlabeled"] = "uda"
    names = ENVIRONMENTS.get(args["dataset"], ())
    if names and len(names) == count_domains(record):
        record["domains"] = list(names)
    return record


def collect(records: Sequence[Mapping[str, Any]], n_lines: int, rules: Iterable[str] = DOMAINBED_RULES) -> str:
    """Give the text that DomainBed's collector prints for `records`.

    Two of its habits are kept with the text: the table of averages averages over whatever domains are there, and labels
    are cut to 20 characters (25 in the averages). One is not: a duplicated line empties no cell of leave-one-out.

    Args:
        records: main predictors only, of one backbone; protocols that DomainBed does not have are left out.
        n_lines: the number to print as total.
        rules: selection rules, in the order of printing.

    Raises:
        RecordsMissing: no data set of the records has known names of its domains.
        Conflict: the records are of several backbones, for which DomainBed's text has no place.
    """
    records = [record for record in records if record["protocol"] == DEFAULT_PROTOCOL]
    _check_one_backbone(records)
    domains = _domains(records)
    if not domains:
        told = sorted({str(record["dataset"]) for record in records})
        raise RecordsMissing(
            f"DomainBed's text needs the domains' names, and knows none for {', '.join(told)}; take another --format"
        )
    lines = [f"Total records: {n_lines}"]
    algorithms = _in_order(_unique(str(record["predictor"]) for record in records), ALGORITHMS)
    for rule in rules:
        choices = select(records, rule)
        for dataset, names in domains.items():
            lines += _domain_table(dataset, names, algorithms, choices, rule)
        lines += _averages_table(list(domains), algorithms, choices, rule)
    return "\n".join(lines) + "\n"


def _check_one_backbone(records: Iterable[Mapping[str, Any]]) -> None:
    backbones = {" ".join(row_of(record)[1:]).strip() or "DomainBed's own" for record in records}
    if len(backbones) > 1:
        raise Conflict(
            f"DomainBed's text has no place for several backbones ({', '.join(sorted(backbones))}): "
            "collect them apart, or take another --format"
        )


def _domains(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Give the names of each data set's domains, DomainBed's sets first; a set without names is left out."""
    named = {str(record["dataset"]): tuple(map(str, record["domains"])) for record in records if record.get("domains")}
    present = _unique(str(record["dataset"]) for record in records)
    named = {name: ENVIRONMENTS[name] for name in present if name in ENVIRONMENTS} | named
    return {name: named[name] for name in _in_order(sorted(named), tuple(ENVIRONMENTS))}


def _domain_table(
    dataset: str, names: tuple[str, ...], algorithms: list[str], choices: list[Choice], rule: str
) -> list[str]:
    rows = [["Algorithm", *names, "Avg"]]
    for algorithm in algorithms:
        of_row = [choice for choice in choices if choice.dataset == dataset and choice.algorithm == algorithm]
        cells = [[choice.value for choice in of_row if choice.test_domain == domain] for domain in range(len(names))]
        rows.append([algorithm, *_with_average(cells)])
    return ["", f"-------- Dataset: {dataset}, model selection method: {_RULE_NAMES[rule]}", *_lines(rows, _WIDTH)]


def _averages_table(datasets: list[str], algorithms: list[str], choices: list[Choice], rule: str) -> list[str]:
    rows = [["Algorithm", *datasets, "Avg"]]
    for algorithm in algorithms:
        of_row = [choice for choice in choices if choice.algorithm == algorithm]
        rows.append([algorithm, *_with_average([_trial_averages(of_row, dataset) for dataset in datasets])])
    return ["", f"-------- Averages, model selection method: {_RULE_NAMES[rule]}", *_lines(rows, _WIDTH_OF_AVERAGES)]


def _trial_averages(choices: list[Choice], dataset: str) -> list[float]:
    of_trial: dict[int, list[float]] = {}
    for choice in choices:
        if choice.dataset == dataset:
            of_trial.setdefault(choice.trial_seed, []).append(choice.value)
    return [float(np.mean(values)) for _, values in sorted(of_trial.items())]


def _with_average(cells: list[list[float]]) -> list[str]:
    means = [100 * np.mean(values) for values in cells if values]
    average = f"{sum(means) / len(means):.1f}" if len(means) == len(cells) else "X"
    return [*map(_mean_and_error, cells), average]


def _mean_and_error(values: list[float]) -> str:
    if not values:
        return "X"
    return f"{100 * np.mean(values):.1f} +/- {100 * np.std(np.array(values) / np.sqrt(len(values))):.1f}"


def _lines(rows: list[list[str]], width: int) -> list[str]:
    return ["  ".join(cell.ljust(width)[:width] for cell in row) + " " for row in rows]


def _in_order(names: list[str], order: tuple[str, ...]) -> list[str]:
    return [name for name in order if name in names] + [name for name in names if name not in order]


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
