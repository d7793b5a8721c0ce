r"""Reports as LaTeX: tables with booktabs rules that compile alone and paste into a paper.

The first lines make a document of the output where no class is loaded yet, so `pdflatex` takes the file as it is; after
`\documentclass` they do nothing, so the same file can be `\input` or any table copied. A table of more rows than a page
holds is a longtable; one of more columns than a line holds is set in parts, one below the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from bench.comparison import Family
from bench.comparison_text import comparison_cells, comparison_footer, comparison_header, comparison_title
from bench.formats import cell_text, heads, marked_rows, table_title
from bench.latex_text import escape, signed
from bench.marks import marks_footer
from bench.panels import Panel, panel_title
from bench.report import Report
from bench.tables import Cell, Table, TableRow

LONG_ROWS = 40
"""A table of more rows does not fit a page: it becomes a longtable."""
_HEAD = r"""% Needs %PACKAGES%. Compiles as it is; inside a document the next line and the last do nothing.
% A single table may be copied; in a paper of two columns write table* for table.
\ifdefined\maketitle\else\documentclass{article}%USED%\def\clipbedend{\end{document}}\begin{document}\fi
"""
_TAIL = "\\ifdefined\\clipbedend\\expandafter\\clipbedend\\fi\n"
_SIZES = (
    ("", 5.2, 12),
    ("\\small\\setlength{\\tabcolsep}{4pt}", 4.8, 8),
    ("\\footnotesize\\setlength{\\tabcolsep}{3pt}", 4.3, 6),
    ("\\scriptsize\\setlength{\\tabcolsep}{2pt}", 3.9, 4),
)
"""Tried in this order: commands, mean width of a character, and space between two columns, in points."""
_LINE_WIDTH = 345
"""Points: article's line."""
_SEPARATOR = "\n\n\\bigskip\n\n"


def latex(reports: Sequence[Report]) -> str:
    """Render every table, its comparison and the footer as LaTeX."""
    body = "\n".join(_report(report) for report in reports)
    packages = ["booktabs", *(["longtable"] if "\\begin{longtable}" in body else [])]
    head = _HEAD.replace("%PACKAGES%", " and ".join(f"\\usepackage{{{each}}}" for each in packages))
    return head.replace("%USED%", "".join(f"\\usepackage{{{each}}}" for each in packages)) + body + _TAIL


def _report(report: Report) -> str:
    n_protocols = len({table.protocol for table in report.tables})
    blocks = [_block(table, family, report, n_protocols) for table, family in report.blocks]
    blocks += [_panel(panel, n_protocols) for panel in report.shown_panels if panel.rows or panel.notes]
    return "\n".join(blocks)


def _block(table: Table, family: Family | None, report: Report, n_protocols: int) -> str:
    """Set a table with its comparison and what is to be said of both."""
    caption = escape(table_title(table, n_protocols))
    notes = [*report.footer, *(f"WARNING: {warning}" for warning in report.warnings)]
    marks = marks_footer([table], "Bold", "also bold", report.alpha)
    second = ["\\underline{Underlined}: second."] if any(each.second for each in table.marks) else []
    told = [*map(escape, marks), *second, *map(escape, notes)]
    if family is not None:
        told += map(escape, comparison_footer([family]))
    tabulars = list(_parts(_cells(table, report), _plain(table, report)))
    if family is None:
        return _set(caption, tabulars, told)
    title = escape(comparison_title(family, n_protocols))
    rows = [comparison_header(family), *(comparison_cells(each, family.question.alpha) for each in family.comparisons)]
    compared = list(_parts([[signed(words) for words in row] for row in rows], rows))
    if len(table.rows) > LONG_ROWS or len(tabulars) > 1:
        return _set(caption, tabulars, []) + "\n" + _set(title, compared, told)
    led = f"{title}\n\n\\smallskip\n{compared[0]}"
    return _set(caption, [*tabulars, led, *compared[1:]], told)


def _panel(panel: Panel, n_protocols: int) -> str:
    notes = [*map(escape, panel.notes)]
    if not panel.rows:
        return _minipage(notes) + "\n"
    rows = [panel.header, *panel.rows]
    tabulars = list(_parts([[signed(words) for words in row] for row in rows], rows))
    return _set(escape(panel_title(panel, n_protocols)), tabulars, notes)


def _set(caption: str, tabulars: Sequence[str], notes: Sequence[str]) -> str:
    """Put tabulars into floats that fit a page; longtables stand by themselves."""
    told = _minipage(notes) if notes else ""
    if "\\begin{longtable}" in tabulars[0]:
        first, *others = tabulars
        continued = (each.replace("%CAPTION%", f"{caption} (continued)") for each in others)
        return "\n".join([first.replace("%CAPTION%", caption), *continued, told]) + "\n"
    floats: list[list[str]] = [[]]
    for each in tabulars:
        if floats[-1] and sum(map(_n_lines, [*floats[-1], each])) > LONG_ROWS:
            floats.append([])
        floats[-1].append(each)
    made = []
    for place, group in enumerate(floats):
        is_last = place == len(floats) - 1
        head = f"\\caption{{{caption}{' (continued)' if place else ''}}}\n\\smallskip"
        body = _SEPARATOR.join(group)
        below = ["", "\\smallskip", told] if is_last and told else []
        made.append("\n".join(["\\begin{table}[htbp]", "\\centering", head, body, *below, "\\end{table}"]))
    return "\n".join(made) + "\n"


def _minipage(notes: Sequence[str]) -> str:
    return "\n".join(["\\noindent\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright", *notes, "\\end{minipage}"])


def _n_lines(tabular: str) -> int:
    return tabular.count("\\\\\n") + 2


def _cells(table: Table, report: Report) -> list[list[str]]:
    """Give a table's rows in LaTeX, the header first."""
    rows = [["", *map(escape, heads(table))]]
    for row, marked in zip(table.rows, marked_rows(table, report), strict=True):
        rows.append([_label(row), *(_cell(*each) for each in marked)])
    return rows


def _plain(table: Table, report: Report) -> list[list[str]]:
    """Give the rows as they look, for their widths."""
    marked = marked_rows(table, report)
    return [
        ["", *heads(table)],
        *(
            [f"{row.label}{row.mark}", *(cell_text(cell) + verdict for cell, _, verdict in cells)]
            for row, cells in zip(table.rows, marked, strict=True)
        ),
    ]


def _parts(rows: Sequence[Sequence[str]], plain: Sequence[Sequence[str]]) -> Iterator[str]:
    """Set rows in the largest type in which they fit the line, in several parts where no type is small enough."""
    widths = [max(map(len, column)) for column in zip(*plain, strict=True)]
    fitting = (size for size, *of_type in _SIZES if _points(widths, *of_type) <= _LINE_WIDTH)
    size = next(fitting, None)
    if size is not None:
        yield _ruled(rows, size)
        return
    size, *of_type = _SIZES[-2]
    for columns in _groups(widths, *of_type):
        yield _ruled([[row[place] for place in (0, *columns)] for row in rows], size)


def _points(widths: Sequence[int], of_character: float, of_space: float) -> float:
    return sum(widths) * of_character + len(widths) * of_space


def _groups(widths: Sequence[int], of_character: float, of_space: float) -> list[list[int]]:
    """Divide the columns but the first into as few groups as fit the line, each about as large."""
    room = max(
        1, int((_LINE_WIDTH - widths[0] * of_character - of_space) / (max(widths[1:]) * of_character + of_space))
    )
    places = list(range(1, len(widths)))
    n_groups = -(-len(places) // room)
    cuts = [round(len(places) * group / n_groups) for group in range(n_groups + 1)]
    return [places[start:end] for start, end in pairwise(cuts)]


def _ruled(rows: Sequence[Sequence[str]], size: str) -> str:
    header, *body = [" & ".join(row) + " \\\\" for row in rows]
    columns = f"{{l{'c' * (len(rows[0]) - 1)}}}"
    if len(body) > LONG_ROWS:
        head = ["\\toprule", header, "\\midrule", "\\endhead", "\\bottomrule", "\\endfoot"]
        lines = [f"\\begin{{longtable}}{columns}", "\\caption{%CAPTION%} \\\\", *head, *body, "\\end{longtable}"]
    else:
        lines = [
            f"\\begin{{tabular}}{columns}",
            "\\toprule",
            header,
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
        ]
    return "\n".join(["{" + size, *lines, "}"] if size else lines)


def _cell(cell: Cell, standing: str, verdict: str) -> str:
    mean, space, error = escape(cell_text(cell)).partition(" ")
    command = {"best": "\\textbf", "level": "\\textbf", "second": "\\underline"}.get(standing)
    mean = f"{command}{{{mean}}}" if command else mean
    # The mark takes no room, so that numbers stay below each other.
    above = f"\\rlap{{$^{{{_VERDICTS[verdict]}}}$}}" if verdict else ""
    return f"{mean}{space}{error}{above}"


_VERDICTS = {"†": "\\dagger", "‡": "\\ddagger", "·": "\\cdot"}


def _label(row: TableRow) -> str:
    return escape(row.label) + (f"\\textsuperscript{{{{[}}{row.mark}{{]}}}}" if row.mark else "")
