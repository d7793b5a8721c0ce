r"""Reports as LaTeX: tables with booktabs rules that compile alone and paste into a paper.

The first line makes a document of the output where no class is loaded yet, so `pdflatex` takes the file as it is; after
`\documentclass` it does nothing, so the same file can be `\input` or any table copied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.comparison import Family
from bench.comparison_text import comparison_cells, comparison_footer, comparison_header, comparison_title
from bench.formats import cell_text, table_title
from bench.panels import Panel, panel_title
from bench.report import Report
from bench.tables import Cell, Table, TableRow, best_and_second

_HEAD = r"""% Needs \usepackage{booktabs}. Compiles as it is; inside a document the next line and the last do nothing.
\ifdefined\maketitle\else\documentclass{article}\usepackage{booktabs}\def\clipbedend{\end{document}}\begin{document}\fi
"""
_TAIL = "\\ifdefined\\clipbedend\\expandafter\\clipbedend\\fi\n"
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "[": "{[}",  # after a line's end LaTeX would take it for an argument
    "]": "{]}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",
    "±": r"$\pm$",
    "–": "--",
    "·": r"$\cdot$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "…": r"\ldots{}",
}
_SIZES = (
    ("", 5.2, 12),
    ("\\small\\setlength{\\tabcolsep}{4pt}", 4.8, 8),
    ("\\footnotesize\\setlength{\\tabcolsep}{3pt}", 4.3, 6),
)
_SMALLEST = "\\scriptsize\\setlength{\\tabcolsep}{2pt}"
_LINE_WIDTH = 345
"""Points: article's line; sizes are tried with their mean width of a character and the space between two columns."""


def latex(reports: Sequence[Report]) -> str:
    """Render every table, its comparison and the footer as LaTeX."""
    return _HEAD + "\n".join(_report(report) for report in reports) + _TAIL


def escape(words: str) -> str:
    """Make any user's words safe in LaTeX text; what the default font encoding lacks becomes a question mark."""
    return "".join(_SPECIAL.get(each) or (each if _is_plain(each) else "?") for each in " ".join(words.split()))


def _is_plain(character: str) -> bool:
    is_accented = "À" <= character <= "ÿ" and character not in "Ð×ÞÝðþý÷"
    return character.isprintable() and (character.isascii() or is_accented)


def _report(report: Report) -> str:
    n_protocols = len({table.protocol for table in report.tables})
    families = {id(family.table): family for family in report.shown_families}
    blocks = []
    for table in report.shown_tables:
        tabulars = [_tabular(table)]
        family = families.get(id(table))
        if family is not None:
            title = escape(comparison_title(family, n_protocols))
            tabulars.append(f"\\medskip\n\n{title}\n\n\\smallskip\n{_comparison(family)}")
        blocks.append(_float(escape(table_title(table, n_protocols)), tabulars, report, family, table))
    blocks += [_panel(panel, n_protocols) for panel in report.shown_panels if panel.rows or panel.notes]
    return "\n".join(blocks)


def _panel(panel: Panel, n_protocols: int) -> str:
    if not panel.rows:
        return "\n".join(map(escape, panel.notes)) + "\n"
    rows = [panel.header, *panel.rows]
    tabular = _ruled([[_signed(words) for words in row] for row in rows], _size(rows))
    return _floated(escape(panel_title(panel, n_protocols)), tabular, [*map(escape, panel.notes)])


def _float(caption: str, tabulars: Sequence[str], report: Report, family: Family | None, table: Table) -> str:
    notes = [*report.footer, *(f"WARNING: {warning}" for warning in report.warnings)]
    notes += comparison_footer([family]) if family is not None else []
    marks = _ranks_meaning(table)
    escaped = [*map(escape, notes)]
    return _floated(caption, "\n\n".join(tabulars), [marks, *escaped] if marks else escaped)


def _floated(caption: str, body: str, notes: Sequence[str]) -> str:
    lines = [
        "\\begin{table}[htbp]",
        "\\centering",
        f"\\caption{{{caption}}}",
        body,
        "",
        "\\smallskip",
        "\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright",
        "\n".join(notes),
        "\\end{minipage}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _ranks_meaning(table: Table) -> str:
    ranked = [best_and_second(table, column) for column in range(len(table.columns))]
    if not any(best for best, _ in ranked):
        return ""
    second = ", \\underline{underlined}: second" if any(second for _, second in ranked) else ""
    return f"\\textbf{{Bold}}: best of its column{second}."


def _tabular(table: Table) -> str:
    ranked = [best_and_second(table, column) for column in range(len(table.columns))]
    rows = [["", *map(escape, table.columns)]]
    for place, row in enumerate(table.rows):
        cells = [
            _cell(cell, place in best, place in second) for cell, (best, second) in zip(row.cells, ranked, strict=True)
        ]
        rows.append([_label(row), *cells])
    plain = [["", *table.columns], *([row.label, *map(cell_text, row.cells)] for row in table.rows)]
    return _ruled(rows, _size(plain))


def _comparison(family: Family) -> str:
    rows = [comparison_header(family), *(comparison_cells(each, family.question.alpha) for each in family.comparisons)]
    body = [[_signed(words) for words in row] for row in rows]
    return _ruled(body, _size(rows))


def _ruled(rows: Sequence[Sequence[str]], size: str) -> str:
    header, *body = [" & ".join(row) + " \\\\" for row in rows]
    begin = f"\\begin{{tabular}}{{l{'c' * (len(rows[0]) - 1)}}}"
    lines = [begin, "\\toprule", header, "\\midrule", *body, "\\bottomrule", "\\end{tabular}"]
    return "\n".join(["{" + size, *lines, "}"] if size else lines)


def _size(rows: Sequence[Sequence[str]]) -> str:
    """Choose the largest type in which the table should fit the line."""
    n_characters = sum(max(map(len, column)) for column in zip(*rows, strict=True))
    fitting = (size for size, width, space in _SIZES if n_characters * width + len(rows[0]) * space <= _LINE_WIDTH)
    return next(fitting, _SMALLEST)


def _signed(words: str) -> str:
    """Escape, and set the sign of a number as a sign."""
    is_number = re.compile(r"[+-][0-9]").match
    return " ".join(f"${word}$" if is_number(word) else escape(word) for word in words.split(" "))


def _cell(cell: Cell, is_best: bool, is_second: bool) -> str:
    words = escape(cell_text(cell))
    if is_best and cell.error is not None:
        mean, _, error = words.partition(" ")
        return f"\\textbf{{{mean}}} {error}"
    return f"\\textbf{{{words}}}" if is_best else f"\\underline{{{words}}}" if is_second else words


def _label(row: TableRow) -> str:
    return escape(row.label) + (f"\\textsuperscript{{{{[}}{row.mark}{{]}}}}" if row.mark else "")
