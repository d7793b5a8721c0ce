"""Records of Dassl's logs: which protocol each is of, and which logs belong to one trial.

| logs                                                     | protocol                                     |
|----------------------------------------------------------|----------------------------------------------|
| of base and of new classes (`SUBSAMPLE_CLASSES`)         | `base_to_new`                                |
| with target domains (Dassl's domain generalization)      | `leave_one_domain_out`, all of the domain    |
| evaluations of a model that another data set trained     | `transfer`                                   |
| all others: tests on the data set that was trained on    | `few_shot`                                   |

Zero-shot CLIP has neither seed nor shots: its numbers count for every seed and number of shots of the other methods.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bench.dassl_logs import Log, our_name

IMPORTED = "dassl"
_CLIP_WEIGHTS = "openai"
_SHOTS_IN_PATH = re.compile(r"(?:^|[/_])(?:(\d+)shots|shots_(\d+))(?=$|[/_])")
_DEFAULT_SHOTS = 16
_NOTE = "imported from Dassl's logs: one final number a trial, nothing was selected here"


class _Part(NamedTuple):
    """One number's place: in which table, of which data set, in which cell, and from which log.

    Attributes:
        protocol: with its options.
        dataset: data set, of `transfer` the one that was trained on.
        cell: "base", "new", or name of the domain or data set that was tested on.
        seed: trial seed; None for zero-shot numbers, which have none.
        shots: images a class; 0 where all, -1 where that has no meaning.
        log: where it stands.
    """

    protocol: str
    dataset: str
    cell: str
    seed: int | None
    shots: int
    log: Log


def records_of(logs: Sequence[Log]) -> tuple[list[dict[str, Any]], Mapping[str, int]]:
    """Make records of logs; count what was left out and why."""
    left_out = Counter(log.problem for log in logs if log.problem)
    good = [log for log in logs if not log.problem]
    parts: list[_Part] = []
    for log in good:
        found = _part(log, good)
        if isinstance(found, _Part):
            parts.append(found)
        else:
            left_out[found] += 1
    parts = _spread(_with_own_tests(_halves(parts)))
    names = _names(parts)
    trials: dict[tuple[Any, ...], dict[str, Log]] = defaultdict(dict)
    for part in sorted(parts, key=lambda part: (part.log.is_training is False, part.log.path)):
        of_trial = trials[_trial(part, names)]
        if part.cell in of_trial and of_trial[part.cell].is_training == part.log.is_training:
            left_out["superseded by another of the same trial"] += 1
        of_trial[part.cell] = part.log  # an evaluation counts before the test that ended the training
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key, found_cells in trials.items():
        cells[key[0], key[1]] += [cell for cell in found_cells if cell not in cells[key[0], key[1]]]
    records = [
        _record(key, of_trial, _domains(key, cells[key[0], key[1]], of_trial)) for key, of_trial in trials.items()
    ]
    return records, dict(left_out)


def _part(log: Log, logs: Sequence[Log]) -> _Part | str:
    """Say what a log's number is of, or why it is left out."""
    zero_shot = _is_zero_shot(log)
    seed, shots = (None, 0) if zero_shot else (log.seed or 0, log.shots)
    if log.classes in ("base", "new"):
        if log.classes == "new" and log.is_training:
            return "of a training on new classes"
        return _Part("base_to_new", log.dataset, log.classes, seed, shots, log)
    if log.targets:
        if len(log.targets) > 1 or not log.sources:
            return "tested on several domains at once"
        return _Part("leave_one_domain_out[report=all]", log.dataset, log.targets[0], seed, 0, log)
    if log.is_training or zero_shot:
        return _Part("few_shot", log.dataset, log.dataset, seed, shots, log)
    trained = next((each for each in logs if each.is_training and log.model and _wrote(each, log.model)), None)
    source = trained.dataset if trained is not None else next(filter(None, map(our_name, log.model.split("/"))), "")
    if not source:
        return "of a model of unknown training data"
    found = _SHOTS_IN_PATH.search(log.model)
    shots = trained.shots if trained is not None else int(found[1] or found[2]) if found is not None else shots
    return _Part("few_shot" if source == log.dataset else "transfer", source, log.dataset, seed, shots, log)


def _halves(parts: Sequence[_Part]) -> list[_Part]:
    """Take numbers of base classes alone, or of new ones alone, for what they are: there is no H of them."""
    halves: dict[str, set[str]] = defaultdict(set)
    for part in parts:
        if part.protocol == "base_to_new":
            halves[part.log.method].add(part.cell)
    alone = {method for method, cells in halves.items() if len(cells) == 1}
    return [
        part._replace(protocol=f"few_shot[classes={part.cell}]", cell=part.dataset)
        if part.protocol == "base_to_new" and part.log.method in alone
        else part
        for part in parts
    ]


def _with_own_tests(parts: Sequence[_Part]) -> list[_Part]:
    """Put a training's own test beside its transfers, too."""
    moved = {(each.log.method, each.dataset, each.seed, each.shots) for each in parts if each.protocol == "transfer"}
    own = (each for each in parts if each.protocol == "few_shot")
    beside = (each for each in own if (each.log.method, each.dataset, each.seed, each.shots) in moved)
    return [*parts, *(each._replace(protocol="transfer") for each in beside)]


def _is_zero_shot(log: Log) -> bool:
    return log.method.lower().startswith("zeroshot")


def _wrote(log: Log, folder: str) -> bool:
    return log.output == folder or log.path.rpartition("/")[0].endswith(folder)


def _spread(parts: Sequence[_Part]) -> list[_Part]:
    """Give zero-shot numbers the seeds and shots of the other methods' trials on their data set, else on any."""
    trained: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
    for part in parts:
        if part.seed is not None:
            trained[part.protocol, part.dataset].add((part.seed, part.shots))
            trained[part.protocol, ""].add((part.seed, part.shots))
    spread: list[_Part] = []
    for part in parts:
        alike = trained.get((part.protocol, part.dataset)) or trained.get((part.protocol, "")) or {(0, -1)}
        spread += [part] if part.seed is not None else [part._replace(seed=s, shots=n) for s, n in sorted(alike)]
    return spread


def _names(parts: Iterable[_Part]) -> dict[Log, str]:
    """Name the rows: the method, and its configuration where one cell and seed has several."""
    configs: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for part in parts:
        configs[part.log.method, part.log.backbone, *part[:5]].add(part.log.config)
    several = {key[0] for key, of_key in configs.items() if len(of_key) > 1}
    names = {}
    for part in parts:
        name = "ZeroShot" if part.log.method == "ZeroshotCLIP" else part.log.method
        names[part.log] = f"{name}[{part.log.config}]" if part.log.method in several else name
    return names


def _trial(part: _Part, names: Mapping[Log, str]) -> tuple[Any, ...]:
    held_out = part.cell if part.protocol.startswith("leave_one") else ""
    return part.protocol, part.dataset, names[part.log], part.log.backbone, part.shots, part.seed, held_out


def _domains(key: tuple[Any, ...], cells: Sequence[str], logs: Mapping[str, Log]) -> list[str]:
    """Name the domains of a trial's table."""
    protocol, dataset = key[:2]
    if protocol == "transfer":
        return [dataset, *sorted(cell for cell in cells if cell != dataset)]
    if protocol.startswith("leave_one"):
        return sorted({name for log in logs.values() for name in (*log.sources, *log.targets)})
    return ["all"]


def _record(key: tuple[Any, ...], logs: Mapping[str, Log], domains: list[str]) -> dict[str, Any]:
    """Make the record of one trial of its numbers, by cell."""
    protocol, dataset, name, backbone, shots, seed, held_out = key
    log = next(iter(logs.values()))
    record: dict[str, Any] = {
        "trial": "-".join(map(str, filter(None, (IMPORTED, *key[:5], f"seed{seed}", held_out)))),
        "protocol": _with_shots(protocol, shots),
        "dataset": dataset,
        "algorithm": name,
        "predictor": name,
        "backbone": backbone.replace("/", "-") or "not recorded",
        "pretrained": _CLIP_WEIGHTS if log.is_clip else "",
        "test_domains": [domains.index(held_out)] if held_out else [],
        "domains": domains,
        "trial_seed": seed,
        "hparams_seed": 0,
        "step": 0,
        "imported": IMPORTED,
        "sources": sorted(each.path for each in logs.values()),
        "notes": [_NOTE],
    }
    for cell, of_cell in logs.items():
        for metric, value in (("acc", of_cell.accuracy), ("macro_f1", of_cell.macro_f1)):
            if value is not None:
                record[f"{_view(protocol, dataset, cell, domains)}_{metric}"] = value
    return record


def _with_shots(protocol: str, shots: int) -> str:
    is_few_shot = protocol.startswith("few_shot")
    if protocol.startswith("leave_one") or shots < 0 or (shots == _DEFAULT_SHOTS and not is_few_shot):
        return protocol
    told = f"shots={shots or 'all'}"
    name, _, options = protocol.rstrip("]").partition("[")
    return f"{name}[{','.join(filter(None, (options, told)))}]"


def _view(protocol: str, dataset: str, cell: str, domains: Sequence[str]) -> str:
    """Name what a number is measured on, as our own records do."""
    if protocol == "base_to_new":
        return f"env0_{cell}"
    if protocol.startswith("few_shot"):
        return "env0_test"
    if protocol == "transfer":
        return "env0_id" if cell == dataset else f"env{domains.index(cell)}_test"
    return f"env{domains.index(cell)}_all"
