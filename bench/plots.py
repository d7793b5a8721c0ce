"""Figures of a report, each as PDF, PNG and the CSV of its numbers. Chooses the numbers; `bench.figures` draws them.

| plot       | of                           | shows                                                                       |
|------------|------------------------------|-----------------------------------------------------------------------------|
| ranks      | a table, six units or more   | critical-difference diagram: mean ranks, bars over rows not told apart      |
| forest     | a data set                   | difference from the reference by domain, and over all, with intervals       |
| heat       | a data set                   | rows × domains                                                              |
| line       | leave one domain out         | accuracy in-domain against out-of-domain; rows that differ in alpha joined  |
| base_new   | base to new, in the wild     | base against new classes                                                    |
| steps      | a data set with evaluations  | accuracy on held-out domains against step, mean over domains and trials     |
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import figures, files
from bench.comparison import Family, by_domain
from bench.comparison_text import measure_title, percent, scope_title
from bench.curves import IN_DOMAIN, OUT_OF_DOMAIN, line_points
from bench.errors import BenchError
from bench.measures import label, scheme
from bench.panels import rank_panel
from bench.printable import spreadsheet
from bench.report import Report
from bench.selection import is_pair, row_of
from bench.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 120
"""A forest of more lines than this is not drawn: nobody could read it."""


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        name: its files' name, without suffix.
        header: columns of its CSV.
        rows: its numbers.
        size: width and height in inches.
        draw: draws it.
    """

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    size: tuple[float, float]
    draw: Callable[[Axes], None] = field(compare=False, repr=False)


def plots_of(
    report: Report, records: Sequence[Mapping[str, Any]], posthoc: str | None = None
) -> tuple[list[Plot], list[str]]:
    """Make every figure that there are numbers for.

    Args:
        report: tables and comparisons of one selection rule.
        records: the flat records that they are made of; for the curves over steps.
        posthoc: one of `bench.ranks.POSTHOCS`; Wilcoxon-Holm where None.

    Returns:
        The figures, and sentences on those that were refused.
    """
    plots: list[Plot] = []
    notes: list[str] = []
    shown = [table for table in report.tables if table.is_shown and not table.is_summary]
    for family in report.shown_families:
        for found in (_ranks(family, posthoc or "wilcoxon-holm"), _forest(family)):
            if isinstance(found, Plot):
                plots.append(found)
            elif found:
                notes.append(found)
    plots += [_heat(table) for table in shown if not table.is_average]
    plots += [plot for table in shown if (plot := _line(table)) is not None]
    plots += _base_new(report.tables)
    plots += [plot for table in shown if (plot := _steps(table, records)) is not None]
    return plots, notes


def write_plots(plots: Sequence[Plot], folder: Path) -> list[Path]:
    """Write PDF, PNG and CSV of each figure into a folder, which is made.

    Returns:
        The written files.

    Raises:
        BenchError: matplotlib is not installed, or the folder cannot be written to.
    """
    figures.check_installed()
    written: list[Path] = []
    names: set[str] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for plot in plots:
            name = next(each for each in _numbered(plot.name) if each not in names)
            names.add(name)
            paths = [folder / f"{name}.{suffix}" for suffix in ("pdf", "png", "csv")]
            figures.save(plot.draw, plot.size, paths[:2])
            files.replace_text(paths[2], _csv(plot))
            written += paths
    except OSError as error:
        raise BenchError(
            f"cannot write plots to {folder}: {error.strerror}; give --plots a folder to write in"
        ) from None
    return written


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def _csv(plot: Plot) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(spreadsheet, plot.header))
    writer.writerows(
        ["" if each is None else spreadsheet(each) if isinstance(each, str) else each for each in row]
        for row in plot.rows
    )
    return out.getvalue()


def _name(kind: str, table: Table) -> str:
    parts = [
        kind,
        "overall" if table.is_average else table.dataset,
        table.protocol,
        table.measure.name,
        table.selection,
    ]
    words = "-".join(re.sub(r"[^A-Za-z0-9_.+-]+", "_", part).strip("_.") or "_" for part in parts)
    return words[:150]


def _title(table: Table, measure: str | None = None) -> str:
    """Word a heading; `measure` in place of the table's own."""
    what = measure_title(table) if measure is None else measure
    return f"{scope_title(table)}{what}, {table.selection} selection"


def _ranks(family: Family, posthoc: str) -> Plot | str:
    panel = rank_panel(family, posthoc)
    (data,) = panel.data
    if not panel.rows:
        return f"No critical-difference diagram. {panel.notes[0]}"
    labels, ranks = data["algorithms"], data["mean_ranks"]
    groups = [[labels.index(name) for name in group] for group in data["groups"] if len(group) > 1]
    letters = {row[0]: row[2] for row in panel.rows}
    rows = tuple(sorted(((name, rank, letters[name]) for name, rank in zip(labels, ranks)), key=lambda row: row[1]))
    notes = f"{panel.title}; bars join rows not told apart ({posthoc}, level {family.question.alpha:g})"
    draw = figures.ranks(f"{_title(family.table)}\n{notes}", labels, ranks, groups, data["critical_difference"])
    height = 1.6 + 0.28 * math.ceil(len(labels) / 2) + 0.12 * len(groups)
    return Plot(_name("ranks", family.table), ("row", "mean_rank", "groups"), rows, (7.5, height), draw)


def _forest(family: Family) -> Plot | str:
    if family.table.is_average:
        return ""
    single = by_domain(family)
    lines: list[figures.Line] = []
    for each in family.comparisons:
        own = [(domain, one) for domain, one in single if one.row == each.row]
        found = [(f"all (over {family.units})", each), *own]
        lines += [
            figures.Line(each.label, name, one.test.difference, one.test.low, one.test.high, one is each)
            for name, one in found
            if one.test is not None
        ]
    if not lines:
        return ""
    if len(lines) > MOST_ROWS:
        return f"No forest of {scope_title(family.table)}: {len(lines)} lines; choose fewer rows with --algorithms."
    against = " or ".join(dict.fromkeys(each.against for each in family.comparisons))
    level = percent(1 - family.question.alpha)
    has_own = any(line.low is not None for line in lines if not line.is_total)
    own_intervals = "of one domain: over its trials" if has_own else "none of one domain: too few trials"
    axis = f"difference from {against} in points, {level} intervals ({own_intervals})"
    rows = tuple((line.row, line.name, line.mean, line.low, line.high) for line in lines)
    header = ("row", "domain", "difference", "low", "high")
    draw = figures.forest(_title(family.table), axis, lines)
    return Plot(_name("forest", family.table), header, rows, (6.4, 1.0 + 0.16 * len(lines)), draw)


def _heat(table: Table) -> Plot:
    means = [[cell.mean for cell in row.cells] for row in table.rows]
    labels = [row.label for row in table.rows]
    rows = tuple((name, *of_row) for name, of_row in zip(labels, means))
    draw = figures.heat(_title(table), labels, table.columns, means, lower=table.measure.lower_is_better)
    size = (2.2 + 0.75 * len(table.columns), 1.0 + 0.32 * len(labels))
    return Plot(_name("heat", table), ("row", *table.columns), rows, size, draw)


def _line(table: Table) -> Plot | None:
    """Give validation accuracy in the training domains against accuracy on the held-out ones."""
    points = [
        figures.Point(each.label, each.inside, each.outside, each.curve, each.alpha) for each in line_points(table)
    ]
    if len(points) < 2:
        return None
    rows = tuple((point.label, point.curve, point.alpha, point.x, point.y) for point in points)
    names = (IN_DOMAIN, OUT_OF_DOMAIN)
    header = ("row", "curve", "alpha", "in_domain", "out_of_domain")
    return Plot(_name("line", table), header, rows, (6.4, 4.8), figures.scatter(_title(table), names, points))


def _base_new(tables: Sequence[Table]) -> list[Plot]:
    found: dict[tuple[str, str, str], dict[str, Table]] = defaultdict(dict)
    for table in tables:
        if not table.is_summary:
            found[table.protocol, table.dataset, table.selection][table.measure.name] = table
    plots = []
    for of_measure in found.values():
        if {"base", "new"} <= set(of_measure):
            base, new = of_measure["base"], of_measure["new"]
            theirs = {row.row: row.cells[-1].mean for row in new.rows}
            points = [
                figures.Point(row.label, row.cells[-1].mean, other, row.label, None)
                for row in base.rows
                if row.cells[-1].mean is not None and (other := theirs.get(row.row)) is not None
            ]
            if points:
                names = ("accuracy on base classes, %", "accuracy on new classes, %")
                rows = tuple((point.label, point.x, point.y) for point in points)
                draw = figures.scatter(_title(base, ", base against new classes"), names, points)
                plots.append(Plot(_name("base_new", base), ("row", "base", "new"), rows, (6.4, 4.8), draw))
    return plots


def _steps(table: Table, records: Iterable[Mapping[str, Any]]) -> Plot | None:
    """Give the protocol's main number against step, whatever was selected; only steps that all trials of a row have."""
    if table.is_average or table.measure.name != scheme(table.protocol).main:
        return None
    labels = {row.row: row.label for row in table.rows}
    datasets = {t.choice.dataset for row in table.rows for cell in row.cells for t in cell.trials.values() if t.choice}
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["dataset"] in datasets and label(record) == table.protocol and not is_pair(record):
            name = labels.get(row_of(record))
            of_protocol = scheme(table.protocol)
            for domain in of_protocol.cells(record) if name is not None else ():
                value = of_protocol.value(record, domain)
                if name is not None and math.isfinite(value):
                    values[name][int(record["step"])].append(100 * value)
    curves: list[tuple[str, list[tuple[int, float]]]] = []
    for name, of_steps in sorted(values.items(), key=lambda item: list(labels.values()).index(item[0])):
        most = max(map(len, of_steps.values()))
        curves.append((name, [(step, float(np.mean(of))) for step, of in sorted(of_steps.items()) if len(of) == most]))
    if not any(len(curve) > 1 for _, curve in curves):
        return None
    rows = tuple((name, step, mean) for name, curve in curves for step, mean in curve)
    title = f"{scope_title(table)}: mean over domains and trials, nothing selected"
    draw = figures.curves(title, f"{table.measure.words}, %", curves)
    return Plot(_name("steps", table), ("row", "step", table.measure.name), rows, (6.4, 4.8), draw)
