"""The tables of a page: numbers by domain, comparisons with their intervals drawn, panels. HTML in, no numbers chosen.

Names are escaped here, each once, and isolated (`bdi`), so that one written from right to left turns nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from bench.comparison import Comparison, Family
from bench.comparison_text import comparison_cells, comparison_header, comparison_title, measure_title, scope_title
from bench.formats import cell_text, marked_rows, table_title
from bench.panels import Panel, panel_title
from bench.printable import printable
from bench.report import Report
from bench.tables import AVERAGE, UNLABELED_MARKS, Cell, Table, TableRow

_CLASSES = {"best": "b", "level": "l", "second": "s"}
_SIGNED = re.compile(r"(?<![\w.])-(?=[0-9.])")
_DRAWN = (150, 14)
"""Width and height of a drawn interval, in CSS pixels."""


def text_of(words: str) -> str:
    """Make any words safe as HTML text or in a quoted attribute; what cannot be seen shows as its escape."""
    return escape(printable(words))


def name_of(words: str) -> str:
    """Give a name that others chose: safe, and of a direction of its own."""
    return f"<bdi>{text_of(words)}</bdi>"


def data_table(table: Table, report: Report, number: int, n_protocols: int) -> str:
    """Give a table of numbers, whose cells the page's script opens.

    Args:
        table: the numbers.
        report: what it is of.
        number: its place among all tables, in the data that the script reads.
        n_protocols: how many protocols the report has, as headings depend on it.
    """
    marked = marked_rows(table, report)
    lower = [measure.lower_is_better for measure in table.measures]
    heads = [
        _head(name_of(column), " lower" if is_lower else "", column == AVERAGE)
        for column, is_lower in zip(table.columns, lower, strict=True)
    ]
    rows = [
        f'<tr data-r="{place}">{_label(row)}{"".join(_cell(*each) for each in cells)}</tr>'
        for place, (row, cells) in enumerate(zip(table.rows, marked, strict=True))
    ]
    title = table_title(table, n_protocols).removesuffix(f", {table.selection} selection")
    has_average = " avg" if table.columns[-1] == AVERAGE and len(table.columns) > 1 else ""
    opening = f'<table class="data{has_average}" data-t="{number}">{_caption(title, scope_title(table, n_protocols))}'
    return _framed(f"{opening}{_thead('method', heads)}<tbody>{''.join(rows)}</tbody></table>", title)


def comparison_table(family: Family, n_protocols: int) -> str:
    """Give a table of comparisons, with the intervals drawn on one scale."""
    alpha = family.question.alpha
    header = comparison_header(family)
    place = next((i for i, head in enumerate(header) if "interval" in head), None)
    scale = _scale(family.comparisons)
    rows = []
    for each in family.comparisons:
        cells = [_words_cell(words) for words in comparison_cells(each, alpha)[1:]]
        if place is not None:
            cells.insert(place, f'<td class="drawn">{_interval(each, scale, alpha)}</td>')
        rows.append(f'<tr><th scope="row">{name_of(each.label)}</th>{"".join(cells)}</tr>')
    heads = [_head(text_of(head) if head else "mark") for head in header[1:]]
    if place is not None:
        heads.insert(place, '<th scope="col" class="drawn"><span class="vh">the interval, drawn</span></th>')
    title = comparison_title(family, n_protocols)
    scope = f"{scope_title(family.table, n_protocols)}{measure_title(family.table)}"
    opening = f'<table class="comparison">{_caption(title, scope)}'
    return _framed(f"{opening}{_thead('method', heads)}<tbody>{''.join(rows)}</tbody></table>", title)


def panel_table(panel: Panel, n_protocols: int) -> str:
    """Give a further table; nothing for one that was refused."""
    if not panel.rows:
        return ""
    heads = [_head(text_of(head) if head else "mark") for head in panel.header[1:]]
    rows = (
        f'<tr><th scope="row">{name_of(label)}</th>{"".join(map(_words_cell, cells))}</tr>'
        for label, *cells in panel.rows
    )
    title = panel_title(panel, n_protocols)
    opening = f'<table class="comparison">{_caption(title, scope_title(panel.table, n_protocols))}'
    return _framed(f"{opening}{_thead('method', heads)}<tbody>{''.join(rows)}</tbody></table>", title)


def _framed(table: str, title: str) -> str:
    """Put a table where it may scroll by itself; the frame takes part in keyboard scrolling."""
    return f'<div class="scroll" role="group" aria-label="{text_of(title)}">{table}</div>'


def _caption(title: str, scope: str) -> str:
    """Give a caption whose beginning, told by the heading above, only screen readers say."""
    rest = title.removeprefix(scope).lstrip(":, ")
    shown = f"{rest[:1].upper()}{rest[1:]}"
    return f'<caption><span class="vh">{text_of(scope)}: </span>{text_of(shown)}</caption>'


def _thead(first: str, heads: Iterable[str]) -> str:
    return f"<thead><tr>{_head(first)}{''.join(heads)}</tr></thead>"


def _head(words: str, more: str = "", is_average: bool = False) -> str:
    kind = (f' class="{more.strip()}"' if more else "") + (' data-average="1"' if is_average else "")
    note = (
        '<span class="vh"> (mean)</span>'
        if is_average
        else '<span class="vh"> (lower is better)</span>'
        if more
        else ""
    )
    return f'<th scope="col" aria-sort="none"{kind}><button type="button">{words}{note}</button></th>'


def _label(row: TableRow) -> str:
    mark = ""
    if row.mark:
        mark = f'<sup title="{text_of(UNLABELED_MARKS[row.mark])}">[{row.mark}]</sup>'
    return f'<th scope="row">{name_of(row.label)}{mark}</th>'


def _cell(cell: Cell, standing: str, verdict: str) -> str:
    kind = f' class="{_CLASSES[standing]}"' if standing else ""
    if cell.mean is None:
        return f'<td class="h">{text_of(cell_text(cell))}</td>'
    mean, _, error = cell_text(cell).partition(" ± ")
    mean = f"<b>{mean}</b>" if standing in ("best", "level") else f"<u>{mean}</u>" if standing == "second" else mean
    return f"<td{kind}>{mean}{f'<i>±{error}</i>' if error else ''}{f'<sup>{text_of(verdict)}</sup>' if verdict else ''}</td>"


def _words_cell(words: str) -> str:
    """Give a cell of words; the sign of a number becomes a minus, not a hyphen."""
    return f"<td>{_SIGNED.sub('−', text_of(words))}</td>"


def _scale(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """Choose the ends of the scale on which all intervals of a table are drawn, in points; 0 lies on it."""
    tests = [each.test for each in comparisons if each.test is not None]
    means = [test.difference for test in tests]
    ends = [end for test in tests for end in (test.low, test.high) if end is not None]
    # A few very wide intervals do not squeeze all others: they end in an arrowhead.
    widest = 2 * sorted(map(abs, ends))[len(ends) * 3 // 4] if ends else 0.0
    drawn = [0.0, *(1.1 * mean for mean in means), *(max(-widest, min(widest, end)) for end in ends)]
    low, high = min(drawn), max(drawn)
    return (low, high) if high - low >= 1 else (low - 0.5, high + 0.5)


def _interval(each: Comparison, scale: tuple[float, float], alpha: float) -> str:
    """Draw a difference with its interval as SVG; an arrowhead where it leaves the scale."""
    if each.test is None:
        return ""
    width, height = _DRAWN
    left, right = scale
    y = height / 2

    def x(points: float) -> float:
        return 6 + (width - 12) * (max(left, min(right, points)) - left) / (right - left)

    parts = [f'<path class="zero" d="M{x(0):.1f} 0V{height}"/>']
    low, high = each.test.low, each.test.high
    if low is not None and high is not None:
        parts.append(f'<path d="M{x(low):.1f} {y:g}H{x(high):.1f}"/>')
        if low < left:
            parts.append(f'<path class="cut" d="M1 {y:g}l6-3v6z"/>')
        if high > right:
            parts.append(f'<path class="cut" d="M{width - 1} {y:g}l-6-3v6z"/>')
    is_significant = each.p_adjusted is not None and each.p_adjusted < alpha
    kind = "sure" if is_significant else "open"
    parts.append(f'<circle class="{kind}" cx="{x(each.test.difference):.1f}" cy="{y:g}" r="3.2"/>')
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg class="interval" {size} aria-hidden="true" focusable="false">{"".join(parts)}</svg>'
