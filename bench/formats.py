"""Reports as text, Markdown, CSV and JSON; LaTeX lies in `bench.latex`, DomainBed's own text in `bench.domainbed`."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.comparison import Comparison, Family, by_domain
from bench.comparison_text import (
    comparison_cells,
    comparison_footer,
    comparison_header,
    comparison_title,
    scope_title,
)
from bench.marks import marks_footer, verdicts
from bench.metrics import worst
from bench.panels import panel_notes, panel_title
from bench.printable import json_safe, printable, spreadsheet
from bench.report import METRIC, Report
from bench.stats import ERROR_BARS
from bench.tables import AVERAGE, Cell, State, Table, TableRow

CSV_COLUMNS = ("protocol", "selection", "dataset", "algorithm", "metric", "column", "mean", "stderr", "n")
HOLES = {State.NOT_RUN: "–", State.INCOMPLETE: "X"}


def text(reports: Sequence[Report]) -> str:
    """Render for a terminal: the best of a column has a star."""
    return "\n\n".join(_text_report(report) for report in reports) + "\n"


def markdown(reports: Sequence[Report]) -> str:
    """Render as Markdown tables: best bold, second underlined."""
    return "\n\n".join(_markdown_report(report) for report in reports) + "\n"


def csv_lines(reports: Sequence[Report]) -> str:
    """Render one line a cell, unrounded; a table of averages over data sets gives its last column only."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for table in (table for report in reports for table in report.tables if not table.is_summary):
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                if not table.is_average or column == AVERAGE:
                    mean, error = _plain(cell.mean), _plain(cell.error)
                    key = (table.protocol, table.selection, table.dataset, row.label, table.measure.name, column)
                    writer.writerow((*map(spreadsheet, key), mean, error, cell.n))
    return out.getvalue()


def as_json(reports: Sequence[Report]) -> str:
    """Render all numbers, comparisons, footers and warnings as one JSON object."""
    value = {
        "schema": 1,
        "metric": METRIC,
        "unit": "percent",
        "tables": [_json_table(each, report) for report in reports for each in report.tables if not each.is_summary],
        "comparisons": [each for report in reports for family in report.families for each in _json_family(family)],
        **_json_panels(reports),
        "footers": {report.selection: list(report.footer) for report in reports},
        "warnings": list(dict.fromkeys(warning for report in reports for warning in report.warnings)),
    }
    return json_safe(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def cell_text(cell: Cell, plus_minus: str = " ± ") -> str:
    """Word a cell with one decimal, or the mark of its hole."""
    if cell.mean is None:
        return HOLES[cell.state]
    return f"{cell.mean:.1f}" + (f"{plus_minus}{cell.error:.1f}" if cell.error is not None else "")


def table_title(table: Table, n_protocols: int = 1) -> str:
    """Word a table's heading; the protocol is named where there are several."""
    units = "data sets" if table.is_average else "domains"
    lower = ", lower is better" if table.measure.lower_is_better else ""
    of = f"means over {units} (%)" if table.is_summary else f"{table.measure.words} (%{lower})"
    return f"{scope_title(table, n_protocols)}: {of}, {table.selection} selection"


def heads(table: Table) -> list[str]:
    """Give the heads of a table's columns, with an arrow where measures stand beside each other and lower is better."""
    if not table.is_summary:
        return list(table.columns)
    pairs = zip(table.columns, table.measures, strict=True)
    return [f"{name} ↓" if measure.lower_is_better else name for name, measure in pairs]


def marked_rows(table: Table, report: Report) -> list[list[tuple[Cell, str, str]]]:
    """Give each row's cells with their marks.

    Returns:
        Of each cell: itself, its standing in its column ("best", "level", "second" or ""), and the mark of its comparison
        with the reference ("†", "‡", "·" or "").
    """
    of_columns = verdicts(table, report.families)
    return [
        [
            (
                cell,
                _standing(table, column, place),
                of_columns[column].get(row.row, "") if cell.mean is not None else "",
            )
            for column, cell in enumerate(row.cells)
        ]
        for place, row in enumerate(table.rows)
    ]


def _standing(table: Table, column: int, place: int) -> str:
    marks = table.marks[column]
    standings = {"best": marks.best, "level": marks.level, "second": marks.second}
    return next((name for name, places in standings.items() if place in places), "")


def _text_report(report: Report) -> str:
    n_protocols = len({table.protocol for table in report.tables})
    blocks = []
    for table, family in report.blocks:
        rows = [
            [_label(row), *(_with_marks(*each) for each in cells)]
            for row, cells in zip(table.rows, marked_rows(table, report), strict=True)
        ]
        blocks.append(_text_table(table_title(table, n_protocols), ["", *heads(table)], rows, stralign="left"))
        if family is not None:
            rows = [comparison_cells(each, family.question.alpha) for each in family.comparisons]
            blocks.append(_text_table(comparison_title(family, n_protocols), comparison_header(family), rows))
    for panel in (panel for panel in report.shown_panels if panel.rows):
        blocks.append(_text_table(panel_title(panel, n_protocols), panel.header, panel.rows))
    notes = [
        *marks_footer(report.shown_tables, "*", "~", report.alpha),
        *report.footer,
        *comparison_footer(report.shown_families),
        *panel_notes(report.shown_panels),
        *(f"WARNING: {warning}" for warning in report.warnings),
    ]
    return "\n\n".join([*blocks, "\n".join(wrapped(notes))])


def _text_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], **options: str) -> str:
    from tabulate import tabulate

    cells = [[printable(words) for words in row] for row in (header, *rows)]
    body = tabulate(cells[1:], headers=cells[0], disable_numparse=True, **options)
    return f"{printable(title)}\n\n{body}"


def wrapped(sentences: Iterable[str], width: int = 110) -> list[str]:
    """Break sentences into lines, those after the first one indented."""
    wrap = textwrap.TextWrapper(width, subsequent_indent="  ", break_on_hyphens=False).wrap
    return [line for each in sentences for line in wrap(printable(each))]


def _with_marks(cell: Cell, standing: str, verdict: str) -> str:
    marks = {"best": "*", "level": "~"}.get(standing, "") + verdict
    return cell_text(cell) + (f" {marks}" if marks else "")


def _label(row: TableRow) -> str:
    return row.label + (f" [{row.mark}]" if row.mark else "")


def _markdown_report(report: Report) -> str:
    n_protocols = len({table.protocol for table in report.tables})
    blocks = []
    for table, family in report.blocks:
        blocks.append(_markdown_table(table, report, n_protocols))
        if family is not None:
            rows = [comparison_cells(each, family.question.alpha) for each in family.comparisons]
            lines = _markdown_lines([comparison_header(family), *rows])
            blocks.append(f"**{_escaped(comparison_title(family, n_protocols))}**\n\n{lines}")
    for panel in (panel for panel in report.shown_panels if panel.rows):
        lines = _markdown_lines([panel.header, *panel.rows])
        blocks.append(f"**{_escaped(panel_title(panel, n_protocols))}**\n\n{lines}")
    notes = [
        *marks_footer(report.shown_tables, "bold", "also bold", report.alpha),
        *(["underlined: second"] if any(each.second for table in report.shown_tables for each in table.marks) else []),
        *report.footer,
        *comparison_footer(report.shown_families),
        *panel_notes(report.shown_panels),
    ]
    footer = "\n".join(f"- {_escaped(note)}" for note in notes)
    warnings = "".join(f"\n- **Warning**: {_escaped(warning)}" for warning in report.warnings)
    return "\n\n".join([*blocks, footer + warnings])


def _markdown_table(table: Table, report: Report, n_protocols: int) -> str:
    lines = [_markdown_lines([["", *heads(table)]])]
    for row, cells in zip(table.rows, marked_rows(table, report), strict=True):
        words = [_ranked(cell_text(cell), standing) + (f" {mark}" if mark else "") for cell, standing, mark in cells]
        lines.append(f"| {_escaped(_label(row))} | {' | '.join(words)} |")
    return f"**{_escaped(table_title(table, n_protocols))}**\n\n" + "\n".join(lines)


def _ranked(words: str, standing: str) -> str:
    return {"best": f"**{words}**", "level": f"**{words}**", "second": f"<u>{words}</u>"}.get(standing, words)


def _markdown_lines(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join([" :-- ", *[" --: "] * (len(rows[0]) - 1)]) + "|", *lines[1:]])


def _escaped(words: str) -> str:
    return re.sub(r"([\\|*_`~<&\[\]])", r"\\\1", printable(" ".join(words.split())))


def _json_table(table: Table, report: Report) -> dict[str, Any]:
    return {
        "protocol": table.protocol,
        "selection": table.selection,
        "dataset": table.dataset,
        "metric": table.measure.name,
        "lower_is_better": table.measure.lower_is_better,
        "errorbars": report.errorbars,
        "errorbars_meaning": ERROR_BARS[report.errorbars],
        "columns": list(table.columns),
        "rows": [_json_row(table, *each) for each in zip(table.rows, marked_rows(table, report), strict=True)],
    }


def _json_row(table: Table, row: TableRow, marked: Sequence[tuple[Cell, str, str]]) -> dict[str, Any]:
    cells = [
        {
            "column": column,
            "mean": cell.mean,
            "stderr": cell.error,
            "n": cell.n,
            "state": cell.state.value,
            "standing": standing or None,
            "mark": mark or None,
            "trials": {str(seed): trial.value for seed, trial in cell.trials.items()},
        }
        for column, (cell, standing, mark) in zip(table.columns, marked, strict=True)
    ]
    means = [float("nan") if cell.mean is None else cell.mean for cell in row.cells[:-1]]
    lowest = -worst(-mean for mean in means) if table.measure.lower_is_better else worst(means)
    return {
        "label": row.label,
        **row.row._asdict(),
        "unlabeled_mark": row.mark,
        "cells": cells,
        "worst": None if lowest != lowest else lowest,
    }


def _json_panels(reports: Sequence[Report]) -> dict[str, list[Any]]:
    """Give the numbers of the further tables that were asked for, by kind."""
    found: dict[str, list[Any]] = {}
    for panel in (panel for report in reports for panel in report.panels):
        found.setdefault(panel.kind, []).extend(panel.data)
    return found


def _json_family(family: Family) -> list[dict[str, Any]]:
    """Give single domains first, then the table's own comparisons."""
    single = by_domain(family)
    n_family = sum(each.p_adjusted is not None for _, each in single)
    of_domains = [_json_comparison(each, family, domain, n_family) for domain, each in single]
    return [*of_domains, *(_json_comparison(each, family) for each in family.comparisons)]


def _json_comparison(each: Comparison, family: Family, domain: str | None = None, n_family: int = 0) -> dict[str, Any]:
    table, test = family.table, each.test
    return {
        "scope": domain or ("overall" if table.is_average else table.dataset),
        "dataset": None if table.is_average else table.dataset,
        "domain": domain,
        "metric": table.measure.name,
        "protocol": table.protocol,
        "selection": table.selection,
        "algorithm": each.label,
        "against": each.against,
        "difference": test.difference if test else None,
        "interval": [test.low, test.high] if test and test.low is not None else None,
        "confidence": 1 - family.question.alpha,
        "p": test.p if test else None,
        "p_adjusted": each.p_adjusted,
        "smallest_p": test.smallest_p if test else None,
        "test": test.test if test else None,
        "estimand": test.estimand if test else family.question.estimand,
        "units": test.units if test else 0,
        "unit": test.unit if test else family.units.removesuffix("s"),
        "n_domains_lost": each.n_lost,
        "n_family": family.n_tests if domain is None else n_family,
        "wins_ties_losses": list(each.wins_ties_losses),
        "refusal": each.refusal or None,
    }


def _plain(number: float | None) -> str:
    return "" if number is None else repr(number)


RENDERERS: dict[str, Callable[[Sequence[Report]], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": csv_lines,
    "json": as_json,
}
