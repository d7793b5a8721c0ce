"""Model selection: which step of which hparams is reported. Pure; owns no file, no table and no test.

DomainBed's three rules to the digit, and `last`, for `leave_one_domain_out`:

| rule              | validation value                                                     | step            |
|-------------------|----------------------------------------------------------------------|-----------------|
| training-domain   | mean of env{i}_out_acc over the domains i that are not held out      | best validation |
| leave-one-out     | mean over the other domains v of env{v}_in_acc in the run that holds | best validation |
|                   | out v besides the test domain, at the same step; all of them needed  |                 |
| oracle            | env{test}_out_acc                                                    | last            |
| last              | as training-domain, only to choose between several hparams           | last            |

The hparams with the best validation value are taken, and env{test}_in_acc at the chosen step is reported. Ties go as in
DomainBed: to the earliest step, and to the largest hparams seed (then to the last trial id). For the other protocols
`bench.measures` says what validation and reported values are; where there is no validation every rule takes the last step.
Imported numbers (records with `imported`) were selected where they come from: every rule takes them as they are.

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

from bench.errors import SpecError, UnknownName
from bench.measures import DEFAULT_PROTOCOL as DEFAULT_PROTOCOL
from bench.measures import Scheme, label, number, scheme, settings
from bench.measures import count_domains as count_domains
from bench.measures import held_out as held_out
from bench.sums import total

DOMAINBED_RULES = ("training-domain", "leave-one-out", "oracle")
RULES = (*DOMAINBED_RULES, "last")
SETTINGS = (
    *("trial", "protocol", "variant", "options", "dataset", "algorithm", "predictor", "backbone", "pretrained"),
    *("test_domains", "test_envs", "domains", "trial_seed", "hparams_seed", "args"),
)
"""Keys of a record that, with the names of its other keys, say which training and groups it belongs to."""


class Row(NamedTuple):
    """What a row of a table stands for: a predictor (its label) on a backbone with its weights."""

    algorithm: str
    backbone: str
    pretrained: str


class Group(NamedTuple):
    """What one choice is made for: a row, in a protocol, in one cell of a data set's table, in one trial.

    `protocol` is its label, with its options (`bench.measures.label`). `test_domain` is the cell's domain: the held-out
    one, or what `bench.measures` says.
    """

    protocol: str
    dataset: str
    row: Row
    test_domain: int
    trial_seed: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The evaluation that is reported for one cell and trial, and why.

    Attributes:
        protocol: registered protocol, with its options.
        dataset: data set.
        algorithm: row label: the predictor's name, for main predictors the algorithm's.
        backbone: backbone name; empty for DomainBed's sweeps.
        pretrained: tag of the weights.
        test_domain: 0-based index of the cell's domain, mostly the held-out one.
        trial_seed: trial.
        hparams_seed: the chosen hparams.
        step: the chosen step.
        value: the protocol's main number, e.g. accuracy on the held-out domain's "in" split, in 0..1; NaN where the record
            has only others.
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


def select(records: Iterable[Mapping[str, Any]] | Candidates, rule: str) -> list[Choice]:
    """Choose, for each row, held-out domain and trial, the evaluation to report under `rule`.

    Args:
        records: evaluations as CLIPBed or DomainBed writes them (DomainBed's keep their settings under `args`), in any
            order. Runs with two held-out domains serve leave-one-out only. For several rules, `candidates` of them.
        rule: one of `RULES`.

    Returns:
        At most one choice for each `Group`, sorted by it. A group without a possible choice has none.

    Raises:
        UnknownName: there is no such rule.
        SpecError: something in `records` is no record.
    """
    if rule not in _RULES:
        from bench.registry import unknown_name  # imports importlib.metadata, which takes as long as a small sweep

        raise UnknownName(unknown_name("selection rule", rule, RULES))
    found_for = records if isinstance(records, Candidates) else candidates(records)
    choices = (_choose(group, of_group, _RULES[rule]) for group, of_group in found_for.of_groups.items())
    found = [choice for choice in choices if choice is not None]
    return sorted(found, key=lambda choice: choice.group)


def row_of(record: Mapping[str, Any]) -> Row:
    """Give the row that a record belongs to."""
    told = settings(record)
    label = record.get("predictor") or told["algorithm"]
    return Row(str(label), str(told.get("backbone") or ""), str(told.get("pretrained") or ""))


def groups_of(record: Mapping[str, Any]) -> list[Group]:
    """Give the groups that a record belongs to: one for each cell that it fills, e.g. each domain it held out.

    Raises:
        SpecError: it lacks what every record has.
    """
    told = settings(record)
    try:
        protocol, seed = label(record), int(told["trial_seed"])
        row, dataset = row_of(record), str(told["dataset"])
        int(record["step"]), int(told["hparams_seed"]), held_out(record)
        return [Group(protocol, dataset, row, int(domain), seed) for domain in scheme(protocol).cells(record)]
    except (KeyError, TypeError, ValueError) as error:
        needs = "dataset, algorithm, test_domains (or test_envs), trial_seed, hparams_seed and step"
        reason = f"{type(error).__name__} {error}"
        raise SpecError(f"this is no record ({reason}), it needs {needs}: {str(record)[:200]}") from None


def is_pair(record: Mapping[str, Any]) -> bool:
    """Say whether a record is of a run that serves leave-one-domain-out selection alone, with two held-out domains."""
    return len(held_out(record)) != 1 and scheme(label(record)).has_pairs


@dataclass
class _Candidate:
    """One training as it counts for one cell: its records by step."""

    hparams_seed: int
    trial: str
    test_domain: int
    scheme: Scheme
    steps: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    pairs: dict[int, dict[int, float]] = field(default_factory=dict)
    """Leave-one-out validation: step -> other held-out domain -> its accuracy."""

    @property
    def any(self) -> Mapping[str, Any]:
        """One of its records, for what they share."""
        return next(iter(self.steps.values()))


class _Step(NamedTuple):
    validation: float
    step: int


class Candidates(NamedTuple):
    """The trainings that each choice is made from, whatever the rule."""

    of_groups: Mapping[Group, list[_Candidate]]


def candidates(records: Iterable[Mapping[str, Any]]) -> Candidates:
    """Sort records into what `select` chooses from; for those who select by several rules.

    Raises:
        SpecError: something in `records` is no record.
    """
    singles: dict[Group, dict[tuple[int, str], _Candidate]] = defaultdict(dict)
    pairs: dict[Group, dict[int, dict[int, dict[int, tuple[str, float]]]]] = {}
    before: Mapping[str, Any] = {}
    of_before: list[Any] = []
    keys_matter = True
    for record in records:
        # The evaluations of a training follow each other, and differ in step and numbers only.
        of_record = [*map(record.get, SETTINGS)]
        is_alike = of_record == of_before and (not keys_matter or record.keys() == before.keys())
        if not is_alike or not isinstance(record.get("step"), int):
            groups, in_pair = groups_of(record), is_pair(record)
            keys_matter = any(scheme(group.protocol).cells is not held_out for group in groups)
            seed, trial = int(settings(record)["hparams_seed"]), str(record.get("trial", ""))
            of_training = [] if in_pair else [_candidate(singles, group, seed, trial) for group in groups]
            before, of_before = record, of_record
        step = int(record["step"])
        for candidate in of_training:
            candidate.steps[step] = record
        if in_pair and len(groups) == 2:
            for group, other in zip(groups, reversed(groups), strict=True):
                seen = pairs.setdefault(group, {}).setdefault(seed, {}).setdefault(step, {})
                # Two runs of one pair: the larger trial id counts, so that the order of records does not.
                if trial >= seen.get(other.test_domain, ("", 0.0))[0]:
                    seen[other.test_domain] = (trial, number(record, f"env{other.test_domain}_in_acc"))
    for group, of_group in singles.items():
        for candidate in of_group.values():
            for step, seen in pairs.get(group, {}).get(candidate.hparams_seed, {}).items():
                candidate.pairs[step] = {domain: value for domain, (_, value) in seen.items()}
    return Candidates({group: list(of_group.values()) for group, of_group in singles.items()})


def _candidate(
    singles: dict[Group, dict[tuple[int, str], _Candidate]], group: Group, seed: int, trial: str
) -> _Candidate:
    of_group = singles[group]
    if (seed, trial) not in of_group:
        of_group[seed, trial] = _Candidate(seed, trial, group.test_domain, scheme(group.protocol))
    return of_group[seed, trial]


def _choose(group: Group, candidates: list[_Candidate], best_step: Callable[[_Candidate], _Step]) -> Choice | None:
    of_protocol = scheme(group.protocol)
    if of_protocol.validation is None or "imported" in candidates[0].any:
        best_step = _at_last
    options = [(best_step(candidate), candidate) for candidate in candidates]
    if best_step is not _at_last or len(options) > 1:
        options = [option for option in options if not math.isnan(option[0].validation)]
    if not options:
        return None
    chosen, candidate = max(options, key=lambda option: (option[0].validation, option[1].hparams_seed, option[1].trial))
    record = candidate.steps[chosen.step]
    value = of_protocol.value(record, group.test_domain)
    if not any(math.isfinite(each.read(record, group.test_domain)) for each in of_protocol.measures):
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
    read = candidate.scheme.validation
    assert read is not None  # else the last step is taken
    return _best({step: read(record) for step, record in candidate.steps.items()})


def _by_leaving_one_out(candidate: _Candidate) -> _Step:
    if not candidate.pairs:
        return _Step(math.nan, max(candidate.steps))
    return _best({step: _left_out_accuracy(candidate, step) for step in candidate.steps})


def _by_oracle(candidate: _Candidate) -> _Step:
    step = max(candidate.steps)
    return _Step(candidate.scheme.oracle(candidate.steps[step], candidate.test_domain), step)


def _at_last(candidate: _Candidate) -> _Step:
    step = max(candidate.steps)
    return _Step(_validation(candidate, step), step)


_RULES: dict[str, Callable[[_Candidate], _Step]] = {
    "training-domain": _by_training_domains,
    "leave-one-out": _by_leaving_one_out,
    "oracle": _by_oracle,
    "last": _at_last,
}


def _best(validation: dict[int, float]) -> _Step:
    """Give the earliest step with the largest value; NaN never wins."""
    best = _Step(math.nan, max(validation))
    for step in sorted(validation):
        value = validation[step]
        if value > best.validation or (math.isnan(best.validation) and not math.isnan(value)):
            best = _Step(value, step)
    return best


def _validation(candidate: _Candidate, step: int) -> float:
    read = candidate.scheme.validation
    return read(candidate.steps[step]) if read is not None else math.nan


def _left_out_accuracy(candidate: _Candidate, step: int) -> float:
    n_domains = count_domains(candidate.steps[step])
    seen = candidate.pairs.get(step, {})
    others = [domain for domain in range(n_domains) if domain != candidate.test_domain]
    if not others or any(domain not in seen for domain in others):
        return math.nan
    return total([seen[domain] for domain in others]) / len(others)
