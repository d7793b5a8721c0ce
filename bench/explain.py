"""What stands behind a number of a table: its trials, with their steps, hparams and run folders, and the rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import store
from bench.comparison_text import scope_title
from bench.errors import UnknownName
from bench.formats import cell_text, wrapped
from bench.registry import unknown_name
from bench.report import RULE_TEXTS, Report
from bench.selection import Choice
from bench.stats import ERROR_BARS
from bench.tables import AVERAGE, Cell, Table, TableRow

_HEADER = ("domain", "trial seed", "value (%)", "step", "validation", "hparams seed", "of", "run", "hparams")


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
    hparams = _Hparams(root)
    blocks = [
        _block(report, table, each, column, hparams)
        for report, table in pairs
        if column in table.columns
        for each in table.rows
        if row in (each.label, each.row.algorithm)
    ]
    return "\n\n".join(blocks) + "\n"


class _Hparams:
    """Hparams of trials, read from the run folders when first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, Path] | None = None

    def of(self, choice: Choice) -> tuple[str, str]:
        """Give a trial's run folder, below the results folder, and its hparams."""
        if self._folders is None:
            self._folders = {run.folder.name: run.folder for run in store.find_runs(self._root)}
        told: Any = choice.record.get("hparams")
        folder = self._folders.get(choice.trial)
        if folder is not None:
            told = (store.Run(folder).spec_json() or {}).get("hparams", told)
        words = (
            ", ".join(f"{name}={value}" for name, value in sorted(told.items())) if isinstance(told, Mapping) else ""
        )
        return (str(folder) if folder is not None else choice.trial), words or "not recorded"


def _block(report: Report, table: Table, row: TableRow, column: str, hparams: _Hparams) -> str:
    from tabulate import tabulate

    cell = row.cells[table.columns.index(column)]
    head = f"{scope_title(table, 2)}, {row.label}, {column}: {cell_text(cell)} ({table.measure.words}, %)"
    rule = f"Selection: {RULE_TEXTS[table.selection]}."
    cells = [(name, each) for name, each in _parts(report, table, row, column) if each.trials]
    used: dict[str, int] = {}
    lines = []
    for name, each in cells:
        for seed, trial in each.trials.items():
            lines.append([name, str(seed), f"{trial.value:.2f}", *_chosen(trial.choice, hparams, used)])
    if not lines:
        return f"{head}\n{rule}\nNo finished trial: {cell.state.value}."
    made = f"{_made(table, cell, len(cells))} ±: {ERROR_BARS[report.errorbars]}."
    body = tabulate(lines, headers=_HEADER, disable_numparse=True)
    sets = [f"hparams {number}: {words}" for words, number in used.items()]
    return "\n\n".join(["\n".join([head, *wrapped([f"{rule} {made}"])]), body, "\n".join(wrapped(sets))])


def _made(table: Table, cell: Cell, n_cells: int) -> str:
    """Say how a number is made of its trials."""
    if cell.mean is None:
        return f"There is no number ({cell.state.value}), though these trials are there."
    if n_cells == 1:
        return "The number is the mean of its trials."
    if table.measure.of is not None:
        return f"The number is the harmonic mean of the averages of {' and '.join(table.measure.of)}."
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


def _chosen(choice: Choice | None, hparams: _Hparams, used: dict[str, int]) -> list[str]:
    """Word what was chosen; `used` numbers the hparams in order of appearance."""
    if choice is None:
        return ["·"] * 6
    validation = "·" if choice.validation is None else f"{100 * choice.validation:.2f}"
    counts = [str(choice.step), validation, str(choice.hparams_seed), str(choice.n_candidates)]
    run, words = hparams.of(choice)
    return [*counts, run, str(used.setdefault(words, len(used) + 1))]


def _check(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UnknownName(unknown_name(kind, name, tuple(dict.fromkeys(known))))
