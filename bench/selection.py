"""Model selection: which step of which hparams is reported. Pure; owns no file, no table and no test.

DomainBed's three rules to the digit, and `last`:

| rule              | validation value                                                     | step            |
|-------------------|----------------------------------------------------------------------|-----------------|
| training-domain   | mean of env{i}_out_acc over the domains i that are not held out      | best validation |
| leave-one-out     | mean over the other domains v of env{v}_in_acc in the run that holds | best validation |
|                   | out v besides the test domain, at the same step; all of them needed  |                 |
| oracle            | env{test}_out_acc                                                    | last            |
| last              | as training-domain, only to choose between several hparams           | last            |

The hparams with the best validation value are taken, and env{test}_in_acc at the chosen step is reported. Ties go as in
DomainBed: to the earliest step, and to the largest hparams seed (then to the last trial id).

Where DomainBed's code depends on accidents, this does not: the order of records is irrelevant; of duplicates of one
evaluation the last counts (DomainBed's leave-one-out drops such a step); a validation value that is NaN or cannot be
computed never wins (in DomainBed a NaN in the first record wins), and where there is no other, or where the test value
itself is not finite, there is no choice, hence a hole in the table.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from bench.errors import SpecError, UnknownName
from bench.registry import unknown_name

DOMAINBED_RULES = ("training-domain", "leave-one-out", "oracle")
RULES = (*DOMAINBED_RULES, "last")
DEFAULT_PROTOCOL = "leave_one_domain_out"


class Row(NamedTuple):
    """What a row of a table stands for: a predictor (its label) on a backbone with its weights."""

    algorithm: str
    backbone: str
    pretrained: str


class Group(NamedTuple):
    """What one choice is made for: a row, in a protocol, on one held-out domain of a data set, in one trial."""

    protocol: str
    dataset: str
    row: Row
    test_domain: int
    trial_seed: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The evaluation that is reported for one cell and trial, and why.

    Attributes:
        protocol: registered protocol.
        dataset: data set.
        algorithm: row label: the predictor's name, for main predictors the algorithm's.
        backbone: backbone name; empty for DomainBed's sweeps.
        pretrained: tag of the weights.
        test_domain: 0-based index of the held-out domain.
        trial_seed: trial.
        hparams_seed: the chosen hparams.
        step: the chosen step.
        value: accuracy on the held-out domain's "in" split, in 0..1.
        validation: the rule's validation value of the choice; None where `last` needed none.
        trial: id of the chosen trial.
        n_candidates: finished trials (hparams) that the choice was made from.
        record: the whole record, for its provenance.
    """

    protocol: str
    dataset: str
    algorithm: str
    backbone: str
    pretrained: str
    test_domain: int
    trial_seed: int
    hparams_seed: int
    step: int
    value: float
    validation: float | None
    trial: str
    n_candidates: int
    record: Mapping[str, Any] = field(compare=False, repr=False)

    @property
    def row(self) -> Row:
        """The row it belongs to."""
        return Row(self.algorithm, self.backbone, self.pretrained)

    @property
    def group(self) -> Group:
        """The group it was made for."""
        return Group(self.protocol, self.dataset, self.row, self.test_domain, self.trial_seed)


def select(records: Iterable[Mapping[str, Any]], rule: str) -> list[Choice]:
    """Choose, for each row, held-out domain and trial, the evaluation to report under `rule`.

    Args:
        records: evaluations as CLIPBed or DomainBed writes them (DomainBed's keep their settings under `args`), in any
            order. Runs with two held-out domains serve leave-one-out only.
        rule: one of `RULES`.

    Returns:
        At most one choice for each `Group`, sorted by it. A group without a possible choice has none.

    Raises:
        UnknownName: there is no such rule.
        SpecError: something in `records` is no record.
    """
    if rule not in _RULES:
        raise UnknownName(unknown_name("selection rule", rule, RULES))
    choices = (_choose(group, candidates, _RULES[rule]) for group, candidates in _grouped(records).items())
    found = [choice for choice in choices if choice is not None]
    return sorted(found, key=lambda choice: choice.group)


def settings(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the mapping that holds a record's dataset, algorithm and seeds: the record, or DomainBed's `args` in it."""
    args = record.get("args")
    return args if isinstance(args, Mapping) else record


def held_out(record: Mapping[str, Any]) -> tuple[int, ...]:
    """Give the 0-based indices of the domains that a record's training held out."""
    told = settings(record)
    return tuple(told["test_domains"] if "test_domains" in told else told["test_envs"])


def row_of(record: Mapping[str, Any]) -> Row:
    """Give the row that a record belongs to."""
    told = settings(record)
    label = record.get("predictor") or told["algorithm"]
    return Row(str(label), str(told.get("backbone") or ""), str(told.get("pretrained") or ""))


def groups_of(record: Mapping[str, Any]) -> list[Group]:
    """Give the groups that a record belongs to: one for each domain that its training held out.

    Raises:
        SpecError: it lacks what every record has.
    """
    told = settings(record)
    try:
        protocol, seed = str(told.get("protocol") or DEFAULT_PROTOCOL), int(told["trial_seed"])
        row, dataset = row_of(record), str(told["dataset"])
        int(record["step"]), int(told["hparams_seed"])
        return [Group(protocol, dataset, row, int(domain), seed) for domain in held_out(record)]
    except (KeyError, TypeError, ValueError) as error:
        needs = "dataset, algorithm, test_domains (or test_envs), trial_seed, hparams_seed and step"
        reason = f"{type(error).__name__} {error}"
        raise SpecError(f"this is no record ({reason}), it needs {needs}: {str(record)[:200]}") from None


def count_domains(record: Mapping[str, Any]) -> int:
    """Count the domains of a record's data set: its `domains`, else env0, env1, … as far as they go."""
    if record.get("domains"):
        return len(record["domains"])
    count = 0
    while f"env{count}_out_acc" in record or f"env{count}_in_acc" in record:
        count += 1
    return count


@dataclass
class _Candidate:
    """One training with a single held-out domain: its records by step."""

    hparams_seed: int
    trial: str
    test_domain: int
    steps: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    pairs: dict[int, dict[int, float]] = field(default_factory=dict)
    """Leave-one-out validation: step -> other held-out domain -> its accuracy."""


class _Step(NamedTuple):
    validation: float
    step: int


def _grouped(records: Iterable[Mapping[str, Any]]) -> dict[Group, list[_Candidate]]:
    singles: dict[Group, dict[tuple[int, str], _Candidate]] = defaultdict(dict)
    pairs: dict[Group, dict[int, dict[int, dict[int, tuple[str, float]]]]] = {}
    for record in records:
        groups = groups_of(record)
        seed, trial, step = int(settings(record)["hparams_seed"]), str(record.get("trial", "")), int(record["step"])
        if len(groups) == 1:
            candidates = singles[groups[0]]
            candidate = candidates.setdefault((seed, trial), _Candidate(seed, trial, groups[0].test_domain))
            candidate.steps[step] = record
        elif len(groups) == 2:
            for group, other in zip(groups, reversed(groups), strict=True):
                seen = pairs.setdefault(group, {}).setdefault(seed, {}).setdefault(step, {})
                # Two runs of one pair: the larger trial id counts, so that the order of records does not.
                if trial >= seen.get(other.test_domain, ("", 0.0))[0]:
                    seen[other.test_domain] = (trial, _number(record, f"env{other.test_domain}_in_acc"))
    for group, candidates in singles.items():
        for candidate in candidates.values():
            for step, seen in pairs.get(group, {}).get(candidate.hparams_seed, {}).items():
                candidate.pairs[step] = {domain: value for domain, (_, value) in seen.items()}
    return {group: list(candidates.values()) for group, candidates in singles.items()}


def _choose(group: Group, candidates: list[_Candidate], best_step: Callable[[_Candidate], _Step]) -> Choice | None:
    options = [(best_step(candidate), candidate) for candidate in candidates]
    if best_step is not _at_last or len(options) > 1:
        options = [option for option in options if not math.isnan(option[0].validation)]
    if not options:
        return None
    chosen, candidate = max(options, key=lambda option: (option[0].validation, option[1].hparams_seed, option[1].trial))
    record = candidate.steps[chosen.step]
    value = _number(record, f"env{group.test_domain}_in_acc")
    if not math.isfinite(value):
        return None
    return Choice(
        protocol=group.protocol,
        dataset=group.dataset,
        **group.row._asdict(),
        test_domain=group.test_domain,
        trial_seed=group.trial_seed,
        hparams_seed=candidate.hparams_seed,
        step=chosen.step,
        value=value,
        validation=None if math.isnan(chosen.validation) else chosen.validation,
        trial=candidate.trial,
        n_candidates=len(candidates),
        record=record,
    )


def _by_training_domains(candidate: _Candidate) -> _Step:
    test_domain = candidate.test_domain
    return _best({step: _training_domain_accuracy(record, test_domain) for step, record in candidate.steps.items()})


def _by_leaving_one_out(candidate: _Candidate) -> _Step:
    return _best({step: _left_out_accuracy(candidate, step) for step in candidate.steps})


def _by_oracle(candidate: _Candidate) -> _Step:
    step = max(candidate.steps)
    return _Step(_number(candidate.steps[step], f"env{candidate.test_domain}_out_acc"), step)


def _at_last(candidate: _Candidate) -> _Step:
    step = max(candidate.steps)
    return _Step(_training_domain_accuracy(candidate.steps[step], candidate.test_domain), step)


_RULES: dict[str, Callable[[_Candidate], _Step]] = {
    "training-domain": _by_training_domains,
    "leave-one-out": _by_leaving_one_out,
    "oracle": _by_oracle,
    "last": _at_last,
}


def _best(validation: dict[int, float]) -> _Step:
    """Give the earliest step with the largest value; NaN never wins."""
    steps = sorted(step for step, value in validation.items() if not math.isnan(value))
    if not steps:
        return _Step(math.nan, max(validation))
    best = max(steps, key=lambda step: validation[step])
    return _Step(validation[best], best)


def _training_domain_accuracy(record: Mapping[str, Any], test_domain: int) -> float:
    others = [domain for domain in range(count_domains(record)) if domain != test_domain]
    values = [_number(record, f"env{domain}_out_acc") for domain in others]
    # np.mean, not a sum: ties must fall as in DomainBed, to the last bit.
    return float(np.mean(values)) if values else math.nan


def _left_out_accuracy(candidate: _Candidate, step: int) -> float:
    n_domains = count_domains(candidate.steps[step])
    seen = candidate.pairs.get(step, {})
    others = [domain for domain in range(n_domains) if domain != candidate.test_domain]
    if not others or any(domain not in seen for domain in others):
        return math.nan
    return float(np.sum([seen[domain] for domain in others]) / len(others))


def _number(record: Mapping[str, Any], key: str) -> float:
    value = record.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
