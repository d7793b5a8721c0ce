"""What each cell of a page is made of, as one compact JSON value that the page's script words when a cell is opened.

The facts are those of `--explain`. Each choice is told once, in columns, and cells point to it; an average points to the
tables it is of. Numbers are hundredths of a percent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.comparison_text import scope_title
from bench.explain import Facts, Runs, made, no_number, no_trials
from bench.formats import HOLES
from bench.printable import printable
from bench.report import RULE_TEXTS, Report
from bench.selection import Choice, Row
from bench.stats import ERROR_BARS
from bench.tables import AVERAGE, Table


def details(reports: Sequence[Report], root: Path) -> dict[str, Any]:
    """Gather the trials behind all cells of all tables.

    Args:
        reports: the tables; those that people are not shown count, since averages are of them.
        root: the results folder, where run folders with their hparams lie.
    """
    pairs = [(report, table) for report in reports for table in report.tables]
    tables = [table for _, table in pairs]
    trials = _Trials(root)
    rows: dict[Row, int] = {}
    found = []
    for report, table in pairs:
        of_rows = [rows.setdefault(row.row, len(rows)) for row in table.rows]
        parts = _parts(table, tables)
        cells = [[trials.of(cell.trials) for cell in row.cells[:-1]] for row in table.rows] if parts is None else []
        found.append({**_words(report, table), "rows": of_rows, "parts": parts or [], "cells": cells})
    holes = {mark: {"trials": no_number(state), "none": no_trials(state)} for state, mark in HOLES.items()}
    return {"average": AVERAGE, "holes": holes, "tables": found, **trials.columns()}


def script_json(value: object) -> str:
    """Give JSON that may stand inside an HTML script element: ASCII, and no character that HTML takes for markup."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Trials:
    """Choices in order of appearance, as columns."""

    def __init__(self, root: Path) -> None:
        self._prefix = os.path.join(root, "")
        self._runs = Runs(root)
        self._places: dict[int, int] = {}
        self._choices: list[Choice] = []
        self._folders: dict[str, int] = {}
        self._hparams: dict[tuple[str, frozenset[str] | None], tuple[int, Any]] = {}
        self._facts: list[tuple[int, str, int]] = []
        self._known: dict[str, tuple[int, str, int]] = {}

    def of(self, trials: Mapping[int, Any]) -> list[int]:
        """Give the places of a cell's choices, each followed by the cell's value."""
        flat = []
        for trial in trials.values():
            if trial.choice is not None:
                flat += [self._place(trial.choice), round(100 * trial.value)]
        return flat

    def columns(self) -> dict[str, Any]:
        """Give what stands behind all choices."""
        choices = self._choices
        return {
            "seeds": [choice.trial_seed for choice in choices],
            "steps": [choice.step for choice in choices],
            "validation": [None if each.validation is None else round(1e4 * each.validation) for each in choices],
            "searched": [choice.hparams_seed for choice in choices],
            "candidates": [choice.n_candidates for choice in choices],
            "folder": [folder for folder, _, _ in self._facts],
            "run": [run for _, run, _ in self._facts],
            "hparams": [number for _, _, number in self._facts],
            "folders": list(self._folders),
            "sets": [told for _, told in self._hparams.values()],
        }

    def _place(self, choice: Choice) -> int:
        place = self._places.get(id(choice))
        if place is None:
            place = self._places[id(choice)] = len(self._choices)
            self._choices.append(choice)
            if choice.trial not in self._known:
                self._known[choice.trial] = self._numbered(self._runs.facts(choice))
            self._facts.append(self._known[choice.trial])
        return place

    def _numbered(self, facts: Facts) -> tuple[int, str, int]:
        folder, _, run = facts.run.removeprefix(self._prefix).rpartition(os.sep)
        number = self._folders.setdefault(printable(folder), len(self._folders))
        key = (facts.words, facts.changed)
        if key not in self._hparams:
            self._hparams[key] = (len(self._hparams), _hparams(facts))
        return number, printable(run), self._hparams[key][0]


def _hparams(facts: Facts) -> dict[str, Any] | None:
    """Give a trial's hparams as words: those that are not at the defaults, and the others."""
    if not facts.hparams:
        return None
    words = {printable(name): printable(str(value)) for name, value in sorted(facts.hparams.items())}
    if facts.changed is None:
        return {"all": words}
    changed = {printable(name) for name in facts.changed}
    return {
        "changed": {name: value for name, value in words.items() if name in changed},
        "defaults": {name: value for name, value in words.items() if name not in changed},
    }


def _parts(table: Table, tables: Sequence[Table]) -> list[list[int]] | None:
    """Give, for each column of an average or a summary, the tables it is of; None for a table of single domains."""
    if table.is_summary:
        return [_places(table, tables, measure.name) for measure in table.measures]
    if not table.is_average:
        return None
    places = _places(table, tables, table.measure.name)
    return [[place for place in places if column in (tables[place].dataset, AVERAGE)] for column in table.columns]


def _places(table: Table, tables: Sequence[Table], measure: str) -> list[int]:
    """Find the tables of single domains that a table's numbers of a measure are averages of."""
    return [
        place
        for place, each in enumerate(tables)
        if (each.protocol, each.selection, each.measure.name) == (table.protocol, table.selection, measure)
        and not (each.is_average or each.is_summary)
        and (table.is_average or each.dataset == table.dataset)
    ]


def _words(report: Report, table: Table) -> dict[str, Any]:
    measures = [printable(measure.words) for measure in table.measures]
    how = [(made(table, place, 1), made(table, place, "{n}")) for place in range(len(table.columns))]
    ways = list(dict.fromkeys(how))
    return {
        "scope": printable(scope_title(table, 2)),
        "dataset": printable(table.dataset),
        "domains": [printable(column) for column in table.columns[:-1]],
        "measures": measures if table.is_summary else measures[:1],
        "rule": f"Selection: {RULE_TEXTS[table.selection]}.",
        "ways": ways,
        "made": [ways.index(each) for each in how],
        "error": f"±: {ERROR_BARS[report.errorbars]}.",
    }
