"""A report as one self-contained page: tables that sort, filter and open, figures, notes, provenance, downloads.

The page asks nothing of a network, and a Content-Security-Policy holds it to that: only the script and the style written
here run, named by their hashes. The same records, options and code give the same bytes: there is no time in it.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bench.comparison_text import comparison_footer, scope_title
from bench.formats import as_json, csv_lines
from bench.html_details import details, script_json
from bench.html_figures import MISSING, Figures
from bench.html_tables import comparison_table, data_table, name_of, panel_table, text_of
from bench.latex import latex
from bench.marks import marks_footer
from bench.panels import panel_notes
from bench.provenance import Provenance, short
from bench.report import RULE_TEXTS, Report
from bench.tables import Table
from bench.version import code_version

ASSETS = "html_report_assets"
MANY_COLUMNS = 8
"""From so many columns on, the page has a filter for columns."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a page comes from.

    Attributes:
        records: the flat records behind the tables.
        root: the results folder.
        provenance: what the records say of their origin.
        command: the command that makes the page.
        posthoc: one of `bench.ranks.POSTHOCS`, for figures of ranks; None for the default.
    """

    records: Sequence[Mapping[str, Any]]
    root: Path
    provenance: Provenance
    command: str
    posthoc: str | None = None


@dataclass(frozen=True)
class _Group:
    """The tables of a report that are of one data set (or the averages) and protocol."""

    title: str
    anchor: str
    report: Report
    tables: tuple[Table, ...]


def html(reports: Sequence[Report], origin: Origin) -> str:
    """Render the page.

    Args:
        reports: one for each selection rule.
        origin: where they come from.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    groups = [_groups(report, place) for place, report in enumerate(reports)]
    title = _title(reports)
    body = [
        '<a class="skip" href="#main">Skip to the tables</a>',
        _header(reports, title, origin),
        '<div class="page">',
        _navigation(reports, groups),
        '<main id="main" tabindex="-1">',
        _warnings(reports),
        _toolbar(reports),
        _rules(reports, groups, origin),
        _provenance(origin),
        "</main></div>",
        _dialog(),
        f'<script type="application/json" id="details">{script_json(details(reports, origin.root))}</script>',
        *_downloads(reports),
        f"<script>{script}</script>",
    ]
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<meta name="referrer" content="no-referrer">',
        f'<meta name="generator" content="CLIPBed {text_of(code_version())}">',
        f"<title>{text_of(title)}</title>",
        f"<style>{style}</style>",
    ]
    lines = ["<!doctype html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, "</body>", "</html>"]
    return "\n".join(line for line in lines if line) + "\n"


def page_command(arguments: Sequence[str]) -> str:
    """Give the command that makes a page with these arguments; the page's own name is no part of what it says."""
    words = list(arguments)
    for place, word in enumerate(words):
        if place and words[place - 1] in ("--html", "--output"):
            words[place] = "report.html"
        elif word.startswith(("--html=", "--output=")):
            words[place] = f"{word.partition('=')[0]}=report.html"
    return shlex.join(["python", "-m", "bench.collect", *words])


def _asset(name: str) -> str:
    return (resources.files("bench") / ASSETS / name).read_text(encoding="utf-8")


def _source(content: str) -> str:
    """Name inline content in a Content-Security-Policy by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _groups(report: Report, place: int) -> list[_Group]:
    n_protocols = _n_protocols(report)
    found: dict[str, list[Table]] = {}
    for table, _ in report.blocks:
        found.setdefault(scope_title(table, n_protocols), []).append(table)
    return [
        _Group(title, f"r{place}-{number}", report, tuple(tables))
        for number, (title, tables) in enumerate(found.items(), 1)
    ]


def _n_protocols(report: Report) -> int:
    return len({table.protocol for table in report.tables})


def _datasets(reports: Iterable[Report]) -> list[str]:
    tables = [table for report in reports for table in report.tables]
    return list(dict.fromkeys(table.dataset for table in tables if not table.is_average))


def _title(reports: Sequence[Report]) -> str:
    names = _datasets(reports)
    if len(names) > 4:
        return f"Results on {len(names)} data sets"
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
    return f"Results on {listed}"


def _header(reports: Sequence[Report], title: str, origin: Origin) -> str:
    labels = {row.label for report in reports for table in report.tables for row in table.rows}
    n_trials = len({record["trial"] for record in origin.records})
    counts = [
        _counted(len(labels), "method"),
        _counted(len(_datasets(reports)), "data set"),
        _counted(n_trials, "trial"),
        ", ".join(origin.provenance.backbones),
    ]
    names = ["CSV", "JSON", "LaTeX"] if reports[0].errorbars != "t95" else ["JSON", "LaTeX"]
    buttons = "".join(f'<button type="button" data-download="{name.lower()}">{name}</button>' for name in names)
    return (
        f'<header class="top"><div><p class="eyebrow">CLIPBed report</p><h1>{text_of(title)}</h1>'
        f'<p class="counts">{" · ".join(map(text_of, counts))}</p></div>'
        f'<div class="actions"><div class="buttons" role="group" aria-label="Download the numbers">'
        f'<span aria-hidden="true">Download</span>{buttons}</div>'
        '<button type="button" id="theme" aria-pressed="false">Dark</button></div></header>'
        "<noscript><p>Sorting, filters, downloads and the trials behind each number need JavaScript.</p></noscript>"
    )


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _navigation(reports: Sequence[Report], groups: Sequence[Sequence[_Group]]) -> str:
    lists = []
    for place, (report, of_report) in enumerate(zip(reports, groups, strict=True)):
        links = "".join(f'<li><a href="#{group.anchor}">{name_of(group.title)}</a></li>' for group in of_report)
        links += f'<li><a href="#r{place}-notes">Notes</a></li>'
        head = f"<p>{text_of(report.selection)}</p>" if len(reports) > 1 else ""
        lists.append(f'<div data-rule="{place}">{head}<ul>{links}</ul></div>')
    return f'<nav aria-label="Contents">{"".join(lists)}<ul><li><a href="#provenance">Provenance</a></li></ul></nav>'


def _warnings(reports: Sequence[Report]) -> str:
    found = dict.fromkeys(warning for report in reports for warning in report.warnings)
    items = "".join(f"<li>{text_of(each[:1].upper() + each[1:])}.</li>" for each in found)
    if not items:
        return ""
    heading = f"Warning{'s' * (len(found) > 1)}"
    return f'<section class="warnings" aria-label="Warnings"><h2>{heading}</h2><ul>{items}</ul></section>'


def _toolbar(reports: Sequence[Report]) -> str:
    widest = max((len(table.columns) for report in reports for table in report.shown_tables), default=0)
    columns = ""
    if widest >= MANY_COLUMNS:
        columns = (
            '<label>Columns <input type="search" id="columns" autocomplete="off" placeholder="all domains"></label>'
        )
    return (
        '<form class="toolbar" role="search" aria-label="Filter the tables">'
        '<label>Rows <input type="search" id="rows" autocomplete="off" placeholder="all methods"></label>'
        f'{columns}<output id="shown" role="status" aria-live="polite"></output>'
        '<p class="hint" id="hint">Click a number, or press Enter on it, for the trials behind it; arrow keys move in a '
        "table, Enter on a heading sorts. Commas separate alternatives in filters.</p></form>"
    )


def _rules(reports: Sequence[Report], groups: Sequence[Sequence[_Group]], origin: Origin) -> str:
    """Give a section for each selection rule; the script makes tabs of several."""
    figures = Figures(origin.records, origin.posthoc)
    numbers = {id(table): n for n, table in enumerate(table for report in reports for table in report.tables)}
    sections = []
    for place, (report, of_report) in enumerate(zip(reports, groups, strict=True)):
        parts = [_legend(report), *(_group(group, numbers, figures) for group in of_report)]
        heading = f"Selection rule: {report.selection}"
        kind = "rule-title" if len(reports) > 1 else "vh"
        head = f'<h2 class="{kind}" id="rule{place}-title">{text_of(heading)}</h2>'
        sections.append(
            f'<section class="rule" id="rule{place}" data-name="{text_of(report.selection)}" '
            f'aria-labelledby="rule{place}-title">{head}{"".join(parts)}{_notes(report, place, figures)}</section>'
        )
    return "\n".join(sections)


def _group(group: _Group, numbers: Mapping[int, int], figures: Figures) -> str:
    report, n_protocols = group.report, _n_protocols(group.report)
    families = {id(family.table): family for family in report.shown_families}
    blocks = []
    for table in group.tables:
        found = [data_table(table, report, numbers[id(table)], n_protocols)]
        if id(table) in families:
            found.append(comparison_table(families[id(table)], n_protocols))
        found += [panel_table(panel, n_protocols) for panel in report.shown_panels if panel.table is table]
        blocks.append(f'<div class="pair">{"".join(found)}</div>')
    drawn, notes = figures.of(report, [table for table in report.tables if _is_of(table, group)], group.title)
    rule = RULE_TEXTS[group.tables[0].selection]
    shown = ""
    if drawn:
        summary = f"<summary>{_counted(len(drawn), 'figure')}</summary>"
        shown = f'<details class="figures">{summary}<div>{"".join(drawn)}</div></details>'
    return (
        f'<section class="scope" id="{group.anchor}" aria-labelledby="{group.anchor}-title">'
        f'<h3 id="{group.anchor}-title">{name_of(group.title)}</h3><p class="selection">Selection: {text_of(rule)}</p>'
        f"{''.join(blocks)}{shown}{_list(notes, 'small')}</section>"
    )


def _is_of(table: Table, group: _Group) -> bool:
    """Say whether a table, shown or not, belongs to a group: figures are of both."""
    first = group.tables[0]
    return (table.protocol, table.dataset, table.is_average) == (first.protocol, first.dataset, first.is_average)


def _legend(report: Report) -> str:
    """Say what the marks of numbers mean, where a reader meets them first."""
    tables = report.shown_tables
    said = marks_footer(tables, "Boxed", "bold", report.alpha)
    if any(each.second for table in tables for each in table.marks):
        said.append("Underlined: second.")
    return f'<p class="legend">{text_of(" ".join(said))}</p>' if said else ""


def _notes(report: Report, place: int, figures: Figures) -> str:
    notes = [
        *report.footer,
        *comparison_footer(report.shown_families),
        *panel_notes(report.shown_panels),
        *([] if figures.is_possible else [MISSING]),
    ]
    return (
        f'<section class="notes" id="r{place}-notes" aria-labelledby="r{place}-notes-title">'
        f'<h3 id="r{place}-notes-title">Notes</h3>{_list(notes)}</section>'
    )


def _list(sentences: Iterable[str], kind: str = "") -> str:
    items = "".join(f"<li>{text_of(each)}</li>" for each in sentences)
    return f"<ul{f' class={kind!r}' if kind else ''}>{items}</ul>" if items else ""


def _provenance(origin: Origin) -> str:
    of = origin.provenance
    facts = [
        ("Backbones", "; ".join(of.backbones)),
        ("Code of the trials", ", ".join(map(short, of.code))),
        *((f"Data: {name}", ", ".join(map(short, digests))) for name, digests in of.data_digests.items()),
        *((f"Steps: {name}", ", ".join(map(str, steps))) for name, steps in of.steps.items()),
        *((f"Unreadable images: {name}", str(count)) for name, count in of.bad_images.items()),
        ("Page made by", f"CLIPBed {code_version()}"),
    ]
    rows = "".join(
        f'<tr><th scope="row">{text_of(name)}</th><td>{text_of(fact)}</td></tr>' for name, fact in facts if fact
    )
    return (
        '<section class="provenance" id="provenance" aria-labelledby="provenance-title"><h2 id="provenance-title">'
        f'Provenance</h2><table class="facts"><caption class="vh">Provenance</caption><tbody>{rows}</tbody></table>'
        f"<p>This page is the output of</p><pre><code>{text_of(origin.command)}</code></pre></section>"
    )


def _dialog() -> str:
    return (
        '<dialog id="dialog" aria-labelledby="dialog-title"><div class="dialog-head"><h2 id="dialog-title"></h2>'
        '<button type="button" id="close" aria-label="Close">×</button></div><div id="dialog-body"></div></dialog>'
    )


def _downloads(reports: Sequence[Report]) -> list[str]:
    """Embed the other formats, compressed, since JSON with all its keys is many times the page."""
    made = {"json": as_json(reports), "latex": latex(reports)}
    if reports[0].errorbars != "t95":  # CSV has a column for standard errors
        made = {"csv": csv_lines(reports), **made}
    files = {"csv": ("report.csv", "text/csv"), "json": ("report.json", "application/json")}
    found = []
    for kind, text in made.items():
        name, mime = files.get(kind, ("report.tex", "application/x-tex"))
        packed = base64.b64encode(zlib.compress(text.encode(errors="replace"), 6)).decode()
        attributes = f'type="application/zlib" id="file-{kind}" data-name="{name}" data-mime="{mime}"'
        found.append(f"<script {attributes}>{packed}</script>")
    return found
