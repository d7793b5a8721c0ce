"""Reports as text, Markdown, CSV and JSON; LaTeX lies in `bench.latex`, DomainBed's own text in `bench.domainbed`."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.comparison import TEST, Comparison, Family
from bench.report import METRIC, Report
from bench.stats import ERROR_BARS
from bench.tables import AVERAGE, Cell, State, Table, TableRow, best_and_second

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
    for table in (table for report in reports for table in report.tables):
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                if not table.is_average or column == AVERAGE:
                    mean, error = _plain(cell.mean), _plain(cell.error)
                    key = (table.protocol, table.selection, table.dataset, row.label)
                    writer.writerow((*key, METRIC, column, mean, error, cell.n))
    return out.getvalue()


def as_json(reports: Sequence[Report]) -> str:
    """Render all numbers, comparisons, footers and warnings as one JSON object."""
    value = {
        "schema": 1,
        "metric": METRIC,
        "unit": "percent",
        "tables": [_json_table(table, report) for report in reports for table in report.tables],
        "comparisons": [each for report in reports for family in report.families for each in _json_family(family)],
        "footers": {report.selection: list(report.footer) for report in reports},
        "warnings": list(dict.fromkeys(warning for report in reports for warning in report.warnings)),
    }
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def cell_text(cell: Cell, plus_minus: str = " ± ") -> str:
    """Word a cell with one decimal, or the mark of its hole."""
    if cell.mean is None:
        return HOLES[cell.state]
    return f"{cell.mean:.1f}" + (f"{plus_minus}{cell.error:.1f}" if cell.error is not None else "")


def table_title(table: Table, n_protocols: int = 1) -> str:
    """Word a table's heading; the protocol is named where there are several."""
    what = "Averages over data sets" if table.is_average else table.dataset
    protocol = f", {table.protocol.replace('_', ' ')}" if n_protocols > 1 else ""
    return f"{what}{protocol}: accuracy (%), {table.selection} selection"


def comparison_title(family: Family) -> str:
    """Word the heading of a table of comparisons."""
    against = " or ".join(dict.fromkeys(each.against for each in family.comparisons))
    what = "Averages over data sets" if family.table.is_average else family.table.dataset
    return f"{what}: mean difference from {against} in points, over {family.units}"


def comparison_header(family: Family) -> list[str]:
    """Give the column heads of a table of comparisons."""
    return ["", "difference", f"{_percent(1 - family.alpha)} interval", "p (Holm)", "min. p", "won/tied/lost", ""]


def comparison_cells(each: Comparison, alpha: float) -> list[str]:
    """Word one comparison: difference, interval, adjusted p, smallest attainable p, counts, verdict."""
    if each.test is None:
        return [each.label, *["·"] * 6]
    counts = "/".join(map(str, each.wins_ties_losses))
    mean, smallest = f"{each.test.mean:+.1f}", p_text(each.test.smallest_p)
    if each.p_adjusted is None or each.test.low is None or each.test.high is None:
        return [each.label, mean, "·", "·", smallest, counts, "·"]
    interval = f"{each.test.low:+.1f} to {each.test.high:+.1f}"
    return [each.label, mean, interval, p_text(each.p_adjusted), smallest, counts, verdict(each.p_adjusted, alpha)]


def verdict(p_adjusted: float, alpha: float) -> str:
    """Mark an adjusted p: † below alpha, ‡ below a fifth of it, else n.s."""
    if p_adjusted < alpha:
        return "‡" if p_adjusted < alpha / 5 else "†"
    return "n.s."


def p_text(p: float) -> str:
    """Word a p-value."""
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"


def comparison_footer(families: Iterable[Family]) -> list[str]:
    """Say what was tested, in how large a family, and what the marks mean."""
    families = list(families)
    if not families:
        return []
    sizes = "/".join(dict.fromkeys(str(family.n_tests) for family in families))
    units = " and ".join(dict.fromkeys(family.units for family in families))
    alpha = families[0].alpha
    return [
        f"Comparison: trials averaged first, then paired t over {units} (df = units - 1), so it speaks of new {units}. "
        f"Intervals are of one comparison alone; p: Holm-adjusted within one table and reference (family of {sizes}), so "
        "an interval may leave out 0 where p is not significant. "
        f"min. p: the smallest p that an exact "
        f"sign-flip or rank test could reach. †: p < {alpha:g}, ‡: p < {alpha / 5:g}, n.s.: not significant, "
        "·: no test.",
        *(sentence for family in families for sentence in _exceptions(family)),
    ]


def _exceptions(family: Family) -> list[str]:
    """Say which comparisons were refused or rest on fewer units than the table has, and why."""
    n_units = len(family.table.columns) - 1
    sentences = []
    for each in family.comparisons:
        where = f"{each.label} on {family.table.dataset}"
        if each.refusal:
            sentences.append(f"{where}: no test, {each.refusal}.")
        elif each.n_lost:
            sentences.append(f"{where}: compared over {n_units - each.n_lost} of {n_units} {family.units}.")
    return sentences


def _text_report(report: Report) -> str:
    from tabulate import tabulate

    n_protocols = len({table.protocol for table in report.tables})
    blocks = []
    for table in report.tables:
        best = [best_and_second(table, column)[0] for column in range(len(table.columns))]
        rows = [
            [_label(row), *(_star(cell, place in best[i]) for i, cell in enumerate(row.cells))]
            for place, row in enumerate(table.rows)
        ]
        body = tabulate(rows, headers=["", *table.columns], disable_numparse=True, stralign="left")
        blocks.append(f"{table_title(table, n_protocols)}\n\n{body}")
    for family in report.families:
        cells = [comparison_cells(each, family.alpha) for each in family.comparisons]
        body = tabulate(cells, headers=comparison_header(family), disable_numparse=True)
        blocks.append(f"{comparison_title(family)}\n\n{body}")
    notes = [
        *report.footer,
        *comparison_footer(report.families),
        *(f"WARNING: {warning}" for warning in report.warnings),
    ]
    star = ["*: best of its column."] if any(len(table.rows) > 1 for table in report.tables) else []
    return "\n\n".join([*blocks, "\n".join(_wrapped([*star, *notes]))])


def _wrapped(sentences: Iterable[str], width: int = 110) -> list[str]:
    wrap = textwrap.TextWrapper(width, subsequent_indent="  ", break_on_hyphens=False).wrap
    return [line for each in sentences for line in wrap(each)]


def _star(cell: Cell, is_best: bool) -> str:
    return cell_text(cell) + (" *" if is_best else "")


def _label(row: TableRow) -> str:
    return row.label + (f" [{row.mark}]" if row.mark else "")


def _markdown_report(report: Report) -> str:
    n_protocols = len({table.protocol for table in report.tables})
    blocks = [_markdown_table(table, n_protocols) for table in report.tables]
    for family in report.families:
        rows = [comparison_cells(each, family.alpha) for each in family.comparisons]
        lines = _markdown_lines([comparison_header(family), *rows])
        blocks.append(f"**{_escaped(comparison_title(family))}**\n\n{lines}")
    notes = [*report.footer, *comparison_footer(report.families)]
    footer = "\n".join(f"- {_escaped(note)}" for note in notes)
    warnings = "".join(f"\n- **Warning**: {_escaped(warning)}" for warning in report.warnings)
    return "\n\n".join([*blocks, footer + warnings])


def _markdown_table(table: Table, n_protocols: int) -> str:
    ranked = [best_and_second(table, column) for column in range(len(table.columns))]
    lines = [_markdown_lines([["", *table.columns]])]
    for place, row in enumerate(table.rows):
        cells = [
            _ranked(cell_text(cell), place in best, place in second)
            for cell, (best, second) in zip(row.cells, ranked, strict=True)
        ]
        lines.append(f"| {_escaped(_label(row))} | {' | '.join(cells)} |")
    return f"**{_escaped(table_title(table, n_protocols))}**\n\n" + "\n".join(lines)


def _ranked(words: str, is_best: bool, is_second: bool) -> str:
    return f"**{words}**" if is_best else f"<u>{words}</u>" if is_second else words


def _markdown_lines(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join([" :-- ", *[" --: "] * (len(rows[0]) - 1)]) + "|", *lines[1:]])


def _escaped(words: str) -> str:
    return re.sub(r"([\\|*_`<\[\]])", r"\\\1", " ".join(words.split()))


def _json_table(table: Table, report: Report) -> dict[str, Any]:
    return {
        "protocol": table.protocol,
        "selection": table.selection,
        "dataset": table.dataset,
        "errorbars": report.errorbars,
        "errorbars_meaning": ERROR_BARS[report.errorbars],
        "columns": list(table.columns),
        "rows": [_json_row(table, row) for row in table.rows],
    }


def _json_row(table: Table, row: TableRow) -> dict[str, Any]:
    cells = [
        {
            "column": column,
            "mean": cell.mean,
            "stderr": cell.error,
            "n": cell.n,
            "state": cell.state.value,
            "trials": {str(seed): trial.value for seed, trial in cell.trials.items()},
        }
        for column, cell in zip(table.columns, row.cells, strict=True)
    ]
    return {"label": row.label, **row.row._asdict(), "unlabeled_mark": row.mark, "cells": cells}


def _json_family(family: Family) -> list[dict[str, Any]]:
    table = family.table
    return [
        {
            "scope": table.dataset,
            "protocol": table.protocol,
            "selection": table.selection,
            "algorithm": each.label,
            "against": each.against,
            "difference": each.test.mean if each.test else None,
            "interval": [each.test.low, each.test.high] if each.test and each.test.low is not None else None,
            "confidence": 1 - family.alpha,
            "p": each.test.p if each.test else None,
            "p_adjusted": each.p_adjusted,
            "smallest_p": each.test.smallest_p if each.test else None,
            "test": TEST,
            "units": family.units,
            "n_units": each.test.n_units if each.test else 0,
            "n_units_lost": each.n_lost,
            "n_family": family.n_tests,
            "wins_ties_losses": list(each.wins_ties_losses),
            "refusal": each.refusal or None,
        }
        for each in family.comparisons
    ]


def _plain(number: float | None) -> str:
    return "" if number is None else repr(number)


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


RENDERERS: dict[str, Callable[[Sequence[Report]], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": csv_lines,
    "json": as_json,
}
