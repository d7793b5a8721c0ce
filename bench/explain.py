"""What stands behind a number of a table: its trials, with their steps, hparams and run folders, and the rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.comparison_text import scope_title
from bench.errors import UnknownName
from bench.formats import cell_text, wrapped
from bench.printable import printable, printable_lines
from bench.registry import algorithms, unknown_name
from bench.report import RULE_TEXTS, Report
from bench.runs import find_runs
from bench.selection import Choice
from bench.stats import ERROR_BARS
from bench.store import Run
from bench.tables import AVERAGE, Cell, State, Table, TableRow

_HEADER = ("domain", "trial seed", "value (%)", "step", "validation", "hparams seed", "of", "run", "hparams")
_UNKNOWN = object()


def explain(reports: Sequence[Report], root: Path, dataset: str, row: str, column: str) -> str:
    """Word what one cell is made of, for every metric, protocol and rule in which it occurs.

    Args:
        reports: all tables.
        root: the results folder, where run folders with their hparams lie.
        dataset: data set as shown; "Averages" for the averages over data sets.
        row: label as shown, or the name of its method.
        column: column as shown.

    Raises:
        UnknownName: there is no such data set, row or column.
    """
    pairs = [(report, table) for report in reports for table in report.tables if not table.is_summary]
    _check("data set in these tables called", dataset, [table.dataset for _, table in pairs])
    pairs = [(report, table) for report, table in pairs if table.dataset == dataset]
    labels = [name for _, table in pairs for each in table.rows for name in (each.label, each.row.algorithm)]
    _check(f"row of {dataset} called", row, labels)
    _check(f"column of {dataset} called", column, [name for _, table in pairs for name in table.columns])
    runs = Runs(root)
    blocks = [
        _block(report, table, each, column, runs)
        for report, table in pairs
        if column in table.columns
        for each in table.rows
        if row in (each.label, each.row.algorithm)
    ]
    return "\n\n".join(blocks) + "\n"


@dataclass(frozen=True)
class Facts:
    """What stands behind one trial's number.

    Attributes:
        run: run folder; the trial's id where there is none.
        hparams: as the trial had them; None where nothing recorded them.
        changed: names of those that are not the method's defaults for the data set and backbone, as this version of the
            code has them; None where that cannot be told: the method is not known here, or nothing is recorded.
    """

    run: str
    hparams: Mapping[str, Any] | None
    changed: frozenset[str] | None

    @property
    def words(self) -> str:
        """The hparams as one line."""
        words = ", ".join(f"{name}={value}" for name, value in sorted((self.hparams or {}).items()))
        return words or "not recorded"


class Runs:
    """The run folders behind the records, and their specs, read when first asked for."""

    def __init__(self, root: Path) -> None:
        """Look at a results folder; nothing is read until it is asked for."""
        self._root = root
        self._defaults: dict[tuple[str, str, str], Mapping[str, Any] | None] = {}

    @cached_property
    def _folders(self) -> dict[str, Path]:
        return {run.folder.name: run.folder for run in find_runs(self._root)}

    def facts(self, choice: Choice) -> Facts:
        """Give what stands behind a choice."""
        told: Any = choice.record.get("hparams")
        folder = self._folders.get(choice.trial)
        if folder is not None:
            told = (Run(folder).spec_json() or {}).get("hparams", told)
        hparams = told if isinstance(told, Mapping) else None
        return Facts(str(folder) if folder is not None else choice.trial, hparams, self._changed(choice, hparams))

    def _changed(self, choice: Choice, hparams: Mapping[str, Any] | None) -> frozenset[str] | None:
        key = (str(choice.record.get("algorithm", choice.algorithm)), choice.dataset, choice.backbone)
        if key not in self._defaults:
            self._defaults[key] = _defaults(*key)
        defaults = self._defaults[key]
        if not hparams or defaults is None:
            return None
        return frozenset(name for name, value in hparams.items() if defaults.get(name, _UNKNOWN) != value)


def _defaults(algorithm: str, dataset: str, backbone: str) -> Mapping[str, Any] | None:
    """Give a method's default hparams; None where this installation does not know it."""
    if not backbone or algorithm not in algorithms:  # without a backbone: DomainBed's own, which only shares names
        return None
    declared = algorithms[algorithm].hparams
    return {name: hparam.default_for(dataset, backbone) for name, hparam in declared.items()}


def _block(report: Report, table: Table, row: TableRow, column: str, runs: Runs) -> str:
    from tabulate import tabulate

    cell = row.cells[table.columns.index(column)]
    head = f"{scope_title(table, 2)}, {row.label}, {column}: {cell_text(cell)} ({table.measure.words}, %)"
    rule = f"Selection: {RULE_TEXTS[table.selection]}."
    cells = [(name, each) for name, each in _parts(report, table, row, column) if each.trials]
    used: dict[str, int] = {}
    lines = []
    for name, each in cells:
        for seed, trial in each.trials.items():
            lines.append([printable(name), str(seed), f"{trial.value:.2f}", *_chosen(trial.choice, runs, used)])
    if not lines:
        return printable_lines(f"{head}\n{rule}\n{no_trials(cell.state)}")
    how = made(table, table.columns.index(column), len(cells)) if cell.mean is not None else no_number(cell.state)
    body = tabulate(lines, headers=_HEADER, disable_numparse=True)
    sets = [f"hparams {number}: {words}" for words, number in used.items()]
    story = wrapped([f"{rule} {how} ±: {ERROR_BARS[report.errorbars]}."])
    return "\n\n".join(["\n".join([printable(head), *story]), body, "\n".join(wrapped(sets))])


def no_trials(state: State) -> str:
    """Say that a cell has no trial."""
    return f"No finished trial: {state.value}."


def no_number(state: State) -> str:
    """Say that a cell has no number, though it has trials."""
    return f"There is no number ({state.value}), though these trials are there."


def made(table: Table, place: int, n_cells: int | str) -> str:
    """Say how a number of a column is made of the trials in `n_cells` cells of single domains (a word for several)."""
    measure = table.measures[place]
    is_average = table.is_summary or table.is_average or table.columns[place] == AVERAGE
    if is_average and measure.of is not None:
        return f"The number is the harmonic mean of the averages of {' and '.join(measure.of)}."
    if n_cells == 1:
        return "The number is the mean of its trials."
    averaged = ", averaged within data sets" if table.is_average else ""
    return f"The number is the mean of {n_cells} cells{averaged}, each the mean of its trials."


def _parts(report: Report, table: Table, row: TableRow, column: str) -> Iterator[tuple[str, Cell]]:
    """Give the cells of single domains that a cell is of."""
    if not table.is_average:
        for name, cell in zip(table.columns[:-1], row.cells[:-1], strict=True):
            if column in (name, AVERAGE):
                yield name, cell
        return
    for part in report.tables:
        same = (part.protocol, part.measure.name) == (table.protocol, table.measure.name)
        if same and not part.is_average and not part.is_summary and column in (part.dataset, AVERAGE):
            for each in (each for each in part.rows if each.row == row.row):
                names = (f"{part.dataset} {name}" for name in part.columns[:-1])
                yield from zip(names, each.cells[:-1], strict=True)


def _chosen(choice: Choice | None, runs: Runs, used: dict[str, int]) -> list[str]:
    """Word what was chosen; `used` numbers the hparams in order of appearance."""
    if choice is None:
        return ["·"] * 6
    validation = "·" if choice.validation is None else f"{100 * choice.validation:.2f}"
    counts = [str(choice.step), validation, str(choice.hparams_seed), str(choice.n_candidates)]
    facts = runs.facts(choice)
    return [*counts, printable(facts.run), str(used.setdefault(facts.words, len(used) + 1))]


def _check(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UnknownName(unknown_name(kind, name, tuple(dict.fromkeys(known))))
