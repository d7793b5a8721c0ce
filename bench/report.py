"""A report: the tables of one selection rule with their comparisons, footer and warnings; what every format renders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.ablation import SUFFIX
from bench.arrange import arrange, of_metrics
from bench.comparison import Family, Question, choose_reference, compare
from bench.errors import RecordsMissing, UnknownName
from bench.marks import with_marks
from bench.measures import held_out, scheme, words
from bench.panels import Panel, curve_panel, effects_panel, plan_panel, rank_panel, sensitivity_panel
from bench.provenance import Provenance, competing_runs, several_runs, short, trace
from bench.records import Results
from bench.registry import unknown_name
from bench.selection import Group, groups_of, is_pair, row_of, select
from bench.stats import ERROR_BARS
from bench.tables import NO_SELECTION, UNLABELED_MARKS, Layout, State, Table, build_tables, lay_out

METRIC = "accuracy"
RULE_TEXTS = {
    "training-domain": "training-domain validation (best mean accuracy on the training domains' held-out splits)",
    "leave-one-out": "leave-one-domain-out cross-validation",
    "oracle": "oracle (the test domain's held-out split chooses the hparams; last step)",
    "last": "last step",
    NO_SELECTION: "none, these are final numbers that were imported",
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
        estimand: what comparisons speak of, one of `bench.default_test.ESTIMANDS`.
        family: what is corrected together, one of `bench.stats.FAMILIES`; None as `bench.comparison.Question` says.
        metrics: only these measures; all where empty.
        names: name of a row, data set or domain → name to show.
        order: of the rows, one of `bench.arrange.ORDERS`.
        posthoc: rank all rows, one of `bench.ranks.POSTHOCS`; None for no ranks.
        effects: give effect sizes.
        plan: say what would settle a difference of so many points (`OBSERVED` for the observed one); None for no plan.
    """

    datasets: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()
    all_predictors: bool = False
    against: str | None = None
    errorbars: str | None = None
    alpha: float = 0.05
    estimand: str = "new-domains"
    family: str | None = None
    metrics: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    order: str = "usual"
    posthoc: str | None = None
    effects: bool = False
    plan: float | None = None


@dataclass(frozen=True)
class Report:
    """The tables of one selection rule.

    Attributes:
        selection: the rule.
        errorbars: the kind of error bar, one of `ERROR_BARS`.
        tables: data sets first, averages last, for each protocol; of several measures a summary before their tables.
        families: comparisons, one family a table of a measure; empty where there is nothing to compare with.
        footer: sentences that say how the numbers came about.
        warnings: sentences that say what is wrong with them.
        panels: further tables that were asked for.
        alpha: level of intervals and marks.
    """

    selection: str
    errorbars: str
    tables: tuple[Table, ...]
    families: tuple[Family, ...]
    footer: tuple[str, ...]
    warnings: tuple[str, ...]
    panels: tuple[Panel, ...] = ()
    alpha: float = 0.05

    @property
    def shown_tables(self) -> tuple[Table, ...]:
        """The tables for people; CSV and JSON hold the others too."""
        return tuple(table for table in self.tables if table.is_shown)

    @property
    def shown_families(self) -> tuple[Family, ...]:
        """The comparisons for people."""
        return tuple(family for family in self.families if family.table.is_shown)

    @property
    def blocks(self) -> tuple[tuple[Table, Family | None], ...]:
        """The tables for people with their comparisons, of each protocol what is over several data sets first."""
        protocols = list(dict.fromkeys(table.protocol for table in self.tables))
        tables = sorted(self.shown_tables, key=lambda each: (protocols.index(each.protocol), not each.is_average))
        of_table = {id(family.table): family for family in self.families}
        return tuple((table, of_table.get(id(table))) for table in tables)

    @property
    def shown_panels(self) -> tuple[Panel, ...]:
        """The further tables for people."""
        return tuple(panel for panel in self.panels if panel.table.is_shown)


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
    labels += _unique(str(record["predictor"]).removesuffix(record.get(SUFFIX, "")) for record in results.records)
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
    groups = {group for record in records if not is_pair(record) for group in groups_of(record)}
    unfinished = {group for group in results.unfinished if _is_wished(group, options)}
    layout = lay_out(records, groups | unfinished, options.algorithms, options.datasets)
    provenance = trace(records)
    only_domainbed = results.n_domainbed_runs == results.n_runs
    errorbars = options.errorbars or ("domainbed" if only_domainbed else "stderr")
    reference = choose_reference(list(layout.rows), options.against)
    reports = [_build(records, rule, layout, provenance, results, errorbars, reference, options) for rule in rules]
    return _without_repeats(reports)


def _without_repeats(reports: list[Report]) -> list[Report]:
    """Keep tables of protocols that no rule selects in once, in the first report that has them."""
    kept: list[Report] = []
    seen: set[tuple[object, ...]] = set()
    for report in reports:
        new = [table for table in report.tables if _key(table) not in seen]
        seen |= {_key(table) for table in new}
        families = tuple(family for family in report.families if any(family.table is table for table in new))
        panels = tuple(panel for panel in report.panels if any(panel.table is table for table in new))
        if new or not kept:
            kept.append(replace(report, tables=tuple(new), families=families, panels=panels))
    return kept


def _key(table: Table) -> tuple[object, ...]:
    return table.protocol, table.dataset, table.selection, table.measure.name, table.is_summary


def _build(
    records: list[dict[str, Any]],
    rule: str,
    layout: Layout,
    provenance: Provenance,
    results: Results,
    errorbars: str,
    reference: str | None,
    options: Options,
) -> Report:
    choices = select(records, rule)
    tables = build_tables(layout, choices, rule, errorbars)
    tables = arrange(tables, options.names, options.order)
    question = Question(alpha=options.alpha, estimand=options.estimand, family=options.family)
    tables = with_marks(tables, question)
    families = compare(tables, reference, question) if reference is not None else []
    if options.metrics:  # only now: what is shown changes no p
        tables = of_metrics(tables, options.metrics)
        chosen = {_number(table): table for table in tables if not table.is_summary}
        families = [
            replace(each, table=chosen[_number(each.table)]) for each in families if _number(each.table) in chosen
        ]
    footer = [
        *_about(tables, rule),
        *_trials_and_errors(tables, errorbars),
        *_marks(tables),
        *several_runs(choices),
        *_origin(provenance),
        *left_out(results, provenance),
        *(f"Note: {note.rstrip('.')}." for note in provenance.notes),
    ]
    shown = tuple(family for family in families if family.comparisons)
    warnings = (*provenance.warnings, *contradictions(results), *competing_runs(records))
    panels = tuple(_panels(tables, shown, options))
    return Report(rule, errorbars, tuple(tables), shown, tuple(footer), warnings, panels, options.alpha)


def _number(table: Table) -> tuple[str, str, str]:
    """Say what a table is of."""
    return table.protocol, table.dataset, table.measure.name


def _panels(tables: Iterable[Table], families: Sequence[Family], options: Options) -> Iterable[Panel]:
    yield from (panel for table in tables if (panel := curve_panel(table)) is not None)
    for family in families:
        if options.effects:
            yield effects_panel(family)
            yield sensitivity_panel(family)
        if options.posthoc is not None:
            yield rank_panel(family, options.posthoc)
        if options.plan is not None:
            yield plan_panel(family, options.plan)


def _about(tables: Iterable[Table], asked: str) -> list[str]:
    """Say what the numbers of each protocol are and how they were selected; once for protocols of which it is the same."""
    said: dict[str, list[str]] = {}
    for protocol, table in {table.protocol: table for table in tables}.items():
        of_protocol = scheme(protocol)
        rule = NO_SELECTION if table.selection == NO_SELECTION else asked
        selection = f" Model selection: {RULE_TEXTS[rule]}." if of_protocol.validation is not None else ""
        said.setdefault(f"{of_protocol.about}.{selection}", []).append(words(protocol))
    return [f"{', '.join(names)}: {text}" if len(said) > 1 else text for text, names in said.items()]


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
        (table.dataset, f"{row.label} on {table.dataset} {column}", cell)
        for table in tables
        if not table.is_average and not table.is_summary
        for row in table.rows
        for column, cell in zip(table.columns[:-1], row.cells[:-1], strict=True)
        if cell.state is State.VALUE
    ]
    if not cells:
        return ["No cell has a number under this rule."]
    most: dict[str, int] = {}
    for dataset, _, cell in cells:
        most[dataset] = max(most.get(dataset, 0), cell.n)
    fewer = _unique(f"{where} ({cell.n})" for dataset, where, cell in cells if cell.n < most[dataset])
    told = ", ".join(fewer[:8]) + (f" and {len(fewer) - 8} more" if len(fewer) > 8 else "")
    counts = _by_dataset({name: (n,) for name, n in most.items()})
    trials = f"Trials per cell: {counts}{f'; fewer in {told}' if fewer else ''}."
    if any(cell.error is not None for _, _, cell in cells):
        return [f"{trials} ±: {ERROR_BARS[errorbars]}."]
    return [f"{trials} One trial gives no error bar."]


def _marks(tables: Sequence[Table]) -> list[str]:
    rows = [row for table in tables for row in table.rows]
    states = {cell.state for row in rows for cell in row.cells}
    marks = []
    if State.NOT_RUN in states:
        marks.append("–: not run.")
    if State.INCOMPLETE in states:
        marks.append("X: incomplete (a run is unfinished, or the rule lacks the runs or values it needs).")
    used: dict[str, set[str]] = {}
    for table in tables:
        for row in table.rows:
            used.setdefault(row.mark, set()).add(table.protocol)
    for mark, meaning in UNLABELED_MARKS.items():
        if mark in used:
            is_held_out = all(scheme(protocol).cells is held_out for protocol in used[mark])
            marks.append(f"[{mark}]: {meaning if is_held_out else meaning.replace(' of the held-out domain', '')}.")
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
    full, algorithm = row_of(record).algorithm, record["algorithm"]
    label = full.removesuffix(record.get(SUFFIX, ""))
    if {full, label} & set(options.algorithms):
        return True
    is_wished = not options.algorithms or algorithm in options.algorithms
    return is_wished and (options.all_predictors or label == algorithm)


def _is_wished(group: Group, options: Options) -> bool:
    is_dataset = not options.datasets or group.dataset in options.datasets
    return is_dataset and (not options.algorithms or group.row.algorithm in options.algorithms)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
