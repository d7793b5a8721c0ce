"""A report: the tables of one selection rule with their comparisons, footer and warnings; what every format renders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.comparison import Family, choose_reference, compare
from bench.errors import RecordsMissing, UnknownName
from bench.provenance import Provenance, competing_runs, several_runs, short, trace
from bench.records import Results
from bench.registry import unknown_name
from bench.selection import Group, groups_of, row_of, select
from bench.stats import ERROR_BARS
from bench.tables import UNLABELED_MARKS, Layout, State, Table, build_tables, lay_out

METRIC = "accuracy"
RULE_TEXTS = {
    "training-domain": "training-domain validation (best mean accuracy on the training domains' held-out splits)",
    "leave-one-out": "leave-one-domain-out cross-validation",
    "oracle": "oracle (the test domain's held-out split chooses the hparams; last step)",
    "last": "last step",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to show.

    Attributes:
        datasets: only these data sets, in this order; all where empty.
        algorithms: only these algorithms or predictor labels, in this order; all where empty.
        all_predictors: show further predictors of a training too, not only the main one.
        against: label of the reference row; None = ZeroShot, else ERM, else the first.
        errorbars: one of `ERROR_BARS`; None = "domainbed" for results that are all DomainBed's, else "stderr".
        alpha: level of intervals and marks.
    """

    datasets: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()
    all_predictors: bool = False
    against: str | None = None
    errorbars: str | None = None
    alpha: float = 0.05


@dataclass(frozen=True)
class Report:
    """The tables of one selection rule.

    Attributes:
        selection: the rule.
        errorbars: the kind of error bar, one of `ERROR_BARS`.
        tables: data sets first, averages last, for each protocol.
        families: comparisons, one family a table; empty where there is nothing to compare with.
        footer: sentences that say how the numbers came about.
        warnings: sentences that say what is wrong with them.
    """

    selection: str
    errorbars: str
    tables: tuple[Table, ...]
    families: tuple[Family, ...]
    footer: tuple[str, ...]
    warnings: tuple[str, ...]


def shown_records(results: Results, options: Options) -> list[dict[str, Any]]:
    """Filter the records by data set, algorithm and predictor.

    Raises:
        UnknownName: a name to filter by is in no record.
        RecordsMissing: nothing is left.
    """
    datasets = _unique(str(record["dataset"]) for record in results.records)
    datasets += _unique(group.dataset for group in results.unfinished)
    algorithms = _unique(str(record["algorithm"]) for record in results.records)
    labels = _unique(str(record["predictor"]) for record in results.records)
    labels += _unique(group.row.algorithm for group in results.unfinished)
    _check(options.datasets, datasets, "data set", results)
    _check(options.algorithms, sorted({*algorithms, *labels}), "algorithm", results)
    shown = [record for record in results.records if _is_shown(record, options)]
    if not shown:
        n_all = len(results.records)
        raise RecordsMissing(f"none of the {n_all} records in {results.root} passes --datasets and --algorithms")
    return shown


def build_reports(results: Results, rules: Sequence[str], options: Options) -> list[Report]:
    """Build one report for each selection rule.

    Raises:
        UnknownName: a name to filter by or to compare with is in no record.
        RecordsMissing: nothing is left to show.
        Conflict: records of one data set list different domains.
    """
    records = shown_records(results, options)
    groups = {groups[0] for record in records if len(groups := groups_of(record)) == 1}
    unfinished = {group for group in results.unfinished if _is_wished(group, options)}
    layout = lay_out(records, groups | unfinished, options.algorithms, options.datasets)
    provenance = trace(records)
    only_domainbed = results.n_domainbed_runs == results.n_runs
    errorbars = options.errorbars or ("domainbed" if only_domainbed else "stderr")
    reference = choose_reference(list(layout.rows), options.against)
    return [_build(records, rule, layout, provenance, results, errorbars, reference, options.alpha) for rule in rules]


def _build(
    records: list[dict[str, Any]],
    rule: str,
    layout: Layout,
    provenance: Provenance,
    results: Results,
    errorbars: str,
    reference: str | None,
    alpha: float,
) -> Report:
    choices = select(records, rule)
    tables = build_tables(layout, choices, rule, errorbars)
    families = [compare(table, reference, alpha) for table in tables] if reference is not None else []
    footer = [
        f"Accuracy in percent on the held-out domain (its in-split). Model selection: {RULE_TEXTS[rule]}.",
        *_trials_and_errors(tables, errorbars),
        *_marks(tables),
        *several_runs(choices),
        *_origin(provenance),
        *left_out(results, provenance),
        *(f"Note: {note.rstrip('.')}." for note in provenance.notes),
    ]
    shown = tuple(family for family in families if family.comparisons)
    warnings = (*provenance.warnings, *contradictions(results), *competing_runs(records))
    return Report(rule, errorbars, tuple(tables), shown, tuple(footer), warnings)


def contradictions(results: Results) -> list[str]:
    """Warn of records of the same trial that do not agree."""
    if not results.n_contradictions:
        return []
    return [
        f"{results.n_contradictions} record(s) contradict another of the same trial (the last one counts): these folders "
        "hold runs of one trial on different data or code"
    ]


def _trials_and_errors(tables: Iterable[Table], errorbars: str) -> list[str]:
    cells = [
        (f"{row.label} on {table.dataset} {column}", cell)
        for table in tables
        if not table.is_average
        for row in table.rows
        for column, cell in zip(table.columns[:-1], row.cells[:-1], strict=True)
        if cell.state is State.VALUE
    ]
    if not cells:
        return ["No cell has a number under this rule."]
    most = max(cell.n for _, cell in cells)
    fewer = [f"{where} ({cell.n})" for where, cell in cells if cell.n < most]
    told = ", ".join(fewer[:8]) + (f" and {len(fewer) - 8} more" if len(fewer) > 8 else "")
    lines = [f"Trials per cell: {most}{f'; fewer in {told}' if fewer else ''}."]
    if any(cell.error is not None for _, cell in cells):
        return [f"{lines[0]} ±: {ERROR_BARS[errorbars]}."]
    return [f"{lines[0]} One trial gives no error bar."]


def _marks(tables: Iterable[Table]) -> list[str]:
    rows = [row for table in tables for row in table.rows]
    states = {cell.state for row in rows for cell in row.cells}
    marks = []
    if State.NOT_RUN in states:
        marks.append("–: not run.")
    if State.INCOMPLETE in states:
        marks.append("X: incomplete (a run is unfinished, or the rule lacks the runs or values it needs).")
    used = {row.mark for row in rows}
    marks += [f"[{mark}]: {meaning}." for mark, meaning in UNLABELED_MARKS.items() if mark in used]
    return [" ".join(marks)] if marks else []


def _origin(provenance: Provenance) -> list[str]:
    parts = [f"Backbone: {'; '.join(provenance.backbones)}"]
    if provenance.steps:
        parts.append(f"steps: {_by_dataset(provenance.steps)}")
    if provenance.code:
        parts.append(f"code: {', '.join(map(short, provenance.code))}")
    if provenance.data_digests:
        digests = provenance.data_digests.items()
        parts.append(f"data: {'; '.join(f'{name} {_joined(map(short, values))}' for name, values in digests)}")
    return [". ".join(part[0].upper() + part[1:] for part in parts) + "."]


def left_out(results: Results, provenance: Provenance) -> list[str]:
    """Say what was not used, or used though unfinished; nothing where there is nothing to say."""
    used = "included" if results.includes_unfinished else "left out"
    counts = {
        f"unfinished runs {used}": results.n_unfinished,
        "torn or foreign lines skipped": results.n_skipped_lines,
        "duplicate records (the last counts)": results.n_duplicates,
        **{f"unreadable images left out of {name}": count for name, count in provenance.bad_images.items()},
    }
    told = "; ".join(f"{what}: {count}" for what, count in counts.items() if count)
    return [f"{told[0].upper()}{told[1:]}."] if told else []


def _by_dataset(steps: Mapping[str, tuple[int, ...]]) -> str:
    if len(set(steps.values())) == 1:
        return _joined(next(iter(steps.values())))
    return "; ".join(f"{name} {_joined(numbers)}" for name, numbers in steps.items())


def _joined(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _check(wished: Iterable[str], known: Sequence[str], kind: str, results: Results) -> None:
    for name in wished:
        if name not in known:
            raise UnknownName(unknown_name(f"{kind} in {results.root} called", name, tuple(sorted(known))))


def _is_shown(record: Mapping[str, Any], options: Options) -> bool:
    if options.datasets and record["dataset"] not in options.datasets:
        return False
    label, algorithm = row_of(record).algorithm, record["algorithm"]
    if label in options.algorithms:
        return True
    is_wished = not options.algorithms or algorithm in options.algorithms
    return is_wished and (options.all_predictors or label == algorithm)


def _is_wished(group: Group, options: Options) -> bool:
    is_dataset = not options.datasets or group.dataset in options.datasets
    return is_dataset and (not options.algorithms or group.row.algorithm in options.algorithms)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
