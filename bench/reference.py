"""Numbers that papers report, beside ours: reading `results/reference/*.csv`, joining them to cells, wording the table.

Joins by protocol (with its options), backbone, weights, data set, row, metric and column. Mixes no paper's number into a
mean or a comparison.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench import _paths
from bench.errors import DataMissing, SpecError
from bench.formats import cell_text, wrapped
from bench.measures import scheme, words
from bench.report import Report
from bench.tables import AVERAGE, AVERAGES, Cell, State, Table, TableRow, natural

COLUMNS = ("protocol", "backbone", "pretrained", "dataset", "algorithm", "metric", "column", "mean", "error", "source")
FOLDER = _paths.plugin_folder("results") / "reference"
"""The files that come with a checkout."""

_HEADER = ("protocol", "data set", "row", "column", "metric", "paper", "ours", "difference", "trials", "source")
_AVERAGE_COLUMNS = ("avg", "avg.", "average", "mean", "ood mean")
_DATASETS = {
    "average": AVERAGES,
    "averages": AVERAGES,
    "aircraft": "FGVCAircraft",
    "terrainc": "TerraIncognita",
    "office-31": "Office31",
    "office-home": "OfficeHome",
    "visda-c": "VisDA-C",
    "visdac": "VisDA-C",
    "imagenet-v2": "ImageNetV2",
    "imagenet-s": "ImageNet-Sketch",
}
_METRICS = {
    "acc": "accuracy",
    "top-1": "accuracy",
    "hm": "H",
    "harmonic mean": "H",
    "pacc": "per-class",
    "auc": "AUROC",
}
"""Spellings of papers, in lower case → ours. What differs by case alone needs no entry in `_METRICS`."""


class Key(NamedTuple):
    """What a number is of, in the spelling of our tables."""

    protocol: str
    backbone: str
    pretrained: str
    dataset: str
    algorithm: str
    metric: str
    column: str


@dataclass(frozen=True)
class Reference:
    """One number of a paper.

    Attributes:
        key: what it is of.
        text: the number in percent, as the file spells it.
        error: its error bar in points, as the file spells it; empty where there is none.
        source: who reports it, and where.
        path: the file it stands in.
    """

    key: Key
    text: str
    error: str
    source: str
    path: Path

    @property
    def mean(self) -> float:
        """The number, in percent."""
        return float(self.text)


@dataclass(frozen=True)
class Pair:
    """A paper's number and the cell of ours that it belongs to.

    Attributes:
        reference: the paper's.
        selection: rule of the table that the cell stands in.
        label: the cell's row as shown, with its mark.
        cell: ours.
    """

    reference: Reference
    selection: str
    label: str
    cell: Cell

    @property
    def difference(self) -> float | None:
        """Ours less the paper's, in points; None where ours has no number."""
        return None if self.cell.mean is None else self.cell.mean - self.reference.mean


@dataclass(frozen=True)
class Beside:
    """The numbers of one report beside the papers'.

    Attributes:
        report: the report.
        pairs: in the order of its tables; a cell has one for each source.
        n_cells: cells with a number of ours that no file knows.
        n_references: the papers' numbers for our backbones that have no cell of ours.
        n_other_averages: averages of ours that a file knows over other data sets or domains; they count as unknown.
        message: says that nothing matches, and what the files know; empty where something does.
    """

    report: Report
    pairs: tuple[Pair, ...]
    n_cells: int
    n_references: int
    n_other_averages: int
    message: str


def read_references(path: Path) -> list[Reference]:
    """Read a file, or all `*.csv` of a folder.

    Raises:
        DataMissing: there is no such file or folder, or no file in it.
        SpecError: a row is malformed; names file and line.
    """
    if not path.exists():
        raise DataMissing(f"there is no file or folder {path} of reference numbers; give --reference one that is there")
    paths = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not paths:
        raise DataMissing(f"{path} holds no *.csv; reference files have the columns {','.join(COLUMNS)}")
    return [reference for each in paths for reference in _read(each)]


def beside(report: Report, references: Sequence[Reference]) -> Beside:
    """Join the papers' numbers to the cells of a report, which must not be renamed."""
    known: dict[Key, list[Reference]] = {}
    for reference in references:
        known.setdefault(reference.key, []).append(reference)
    averaged = _averaged(references)
    pairs: list[Pair] = []
    n_cells = n_other = 0
    for table, row, column, cell in _cells(report):
        key = _key(table, row, column)
        found = known.get(key, [])
        same = [each for each in found if _is_same_average(table, key, averaged.get(_scope(each), set()))]
        n_other += bool(found) and not same and cell.state is State.VALUE
        label = row.label + (f" [{row.mark}]" if row.mark else "")
        pairs += [Pair(each, table.selection, label, cell) for each in same]
        repeats = len(table.columns) == 2 and column != AVERAGE  # a single domain is its own average
        n_cells += not same and not repeats and cell.state is State.VALUE
    ours = {(row.row.backbone, row.row.pretrained) for table in report.tables for row in table.rows}
    used = {id(pair.reference) for pair in pairs}
    of_ours = [each for each in references if (each.key.backbone, each.key.pretrained) in ours]
    n_references = sum(id(each) not in used for each in of_ours)
    message = "" if pairs else _nothing(ours, references, of_ours)
    return Beside(report, tuple(pairs), n_cells, n_references, n_other, message)


def text(found: Sequence[Beside]) -> str:
    """Render for a terminal."""
    return "\n\n".join(_text(each) for each in found) + "\n"


def markdown(found: Sequence[Beside]) -> str:
    """Render as Markdown tables."""
    return "\n\n".join(_markdown(each) for each in found) + "\n"


def as_json(found: Sequence[Beside]) -> str:
    """Render all numbers, unrounded, as one JSON object."""
    reports = [
        {
            "selection": each.report.selection,
            "rows": [_json_pair(pair) for pair in each.pairs],
            "cells_without_reference": each.n_cells,
            "references_without_cell": each.n_references,
            "averages_of_other_sets": each.n_other_averages,
            "message": each.message or None,
            "footer": list(each.report.footer),
            "warnings": list(each.report.warnings),
        }
        for each in found
    ]
    return json.dumps({"schema": 1, "unit": "percent", "reports": reports}, indent=1, ensure_ascii=False) + "\n"


RENDERERS: dict[str, Callable[[Sequence[Beside]], str]] = {"text": text, "markdown": markdown, "json": as_json}


def _read(path: Path) -> list[Reference]:
    found: dict[tuple[Key, str], Reference] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            if tuple(header) != COLUMNS:
                raise SpecError(f"{path}, line 1: the columns are {','.join(header)}; they must be {','.join(COLUMNS)}")
            for fields in lines:
                if not fields:
                    continue
                reference = _parse(fields, path, f"{path}, line {lines.line_num}")
                if (reference.key, reference.source) in found:
                    raise SpecError(f"{path}, line {lines.line_num}: the same source gives this number further up")
                found[reference.key, reference.source] = reference
    except csv.Error as error:
        raise SpecError(f"{path}, line {lines.line_num}: not CSV ({error})") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not text in UTF-8") from None
    except OSError as error:
        raise DataMissing(f"cannot read {path}: {error.strerror}") from None
    return list(found.values())


def _parse(fields: Sequence[str], path: Path, where: str) -> Reference:
    if len(fields) != len(COLUMNS):
        raise SpecError(f"{where}: {len(fields)} fields, not {len(COLUMNS)} ({','.join(COLUMNS)}); quote commas")
    told = dict(zip(COLUMNS, (field.strip() for field in fields), strict=True))
    empty = [name for name, value in told.items() if not value and name != "error"]
    if empty:
        raise SpecError(f"{where}: {', '.join(empty)} must not be empty")
    for name in ("mean", "error"):
        if told[name] and not _is_percent(told[name]):
            raise SpecError(f"{where}: {name} is {told[name]!r}, not a number of percent from 0 to 100")
    measures = {each.name.lower(): each.name for each in scheme(told["protocol"]).measures}
    metric = _METRICS.get(told["metric"].lower(), told["metric"])
    if metric.lower() not in measures:
        allowed = ", ".join(measures.values())
        raise SpecError(f"{where}: metric is {told['metric']!r}; those of {told['protocol']} are {allowed}")
    key = Key(
        told["protocol"],
        told["backbone"].replace("/", "-"),
        told["pretrained"],
        _dataset(told["dataset"]),
        told["algorithm"],
        measures[metric.lower()],
        AVERAGE if told["column"].lower() in _AVERAGE_COLUMNS else _dataset(told["column"]),
    )
    return Reference(key, told["mean"], told["error"], told["source"], path)


def _dataset(name: str) -> str:
    return _DATASETS.get(name.lower(), name)


def _is_percent(field: str) -> bool:
    try:
        number = float(field)
    except ValueError:
        return False
    return math.isfinite(number) and 0 <= number <= 100


def _cells(report: Report) -> Iterator[tuple[Table, TableRow, str, Cell]]:
    """Give each number once: no summaries, of averages over data sets the last column only, and H as papers print it."""
    for table in (table for table in report.tables if not table.is_summary and table.measure.is_compared):
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                if not table.is_average or column == AVERAGE:
                    yield table, row, column, cell


def _key(table: Table, row: TableRow, column: str) -> Key:
    of_row = row.row
    return Key(
        table.protocol, of_row.backbone, of_row.pretrained, table.dataset, of_row.algorithm, table.measure.name, column
    )


_Scope = tuple[Path, str, str, str, str]


def _scope(reference: Reference) -> _Scope:
    """Give what an average and the numbers it averages share: the file, and the protocol whatever its options."""
    key = reference.key
    of_set = "" if key.dataset == AVERAGES else key.dataset
    return (reference.path, key.protocol.partition("[")[0], key.backbone, key.pretrained, of_set)


def _averaged(references: Sequence[Reference]) -> dict[_Scope, set[str]]:
    """Find what a file's averages are over: its data sets; within one, where not all columns need be, its columns."""
    found: dict[_Scope, set[str]] = {}
    for each in references:
        if each.key.dataset != AVERAGES:
            found.setdefault((*_scope(each)[:-1], ""), set()).add(each.key.dataset)
            if each.key.column != AVERAGE and scheme(each.key.protocol).only_filled:
                found.setdefault(_scope(each), set()).add(each.key.column)
    return found


def _is_same_average(table: Table, key: Key, averaged: set[str]) -> bool:
    """Say whether ours averages what the paper's does; a file that lists no parts is believed."""
    return key.column != AVERAGE or not averaged or averaged == set(table.columns[:-1])


def _nothing(ours: set[tuple[str, str]], references: Sequence[Reference], of_ours: Sequence[Reference]) -> str:
    """Say that nothing matches, and why."""
    if not of_ours:
        known = {(each.key.backbone, each.key.pretrained) for each in references}
        return (
            f"Nothing matches: these results are of {_backbones(ours)}, and the reference files know only "
            f"{_backbones(known)}."
        )
    known_cells: dict[str, Counter[str]] = {}
    for each in of_ours:
        known_cells.setdefault(each.key.protocol, Counter())[each.key.dataset] += 1
    told = "; ".join(f"{words(name)}: {', '.join(sorted(sets, key=natural))}" for name, sets in known_cells.items())
    return (
        f"Nothing matches: of {_backbones(ours)} the reference files know no number of these protocols, data sets and "
        f"rows. They know {told}."
    )


def _backbones(pairs: set[tuple[str, str]]) -> str:
    named = (f"{backbone} ({pretrained})" if backbone else "DomainBed's backbones" for backbone, pretrained in pairs)
    return ", ".join(sorted(named, key=natural)) or "no backbone"


def _fields(pair: Pair) -> list[str]:
    reference, key, change = pair.reference, pair.reference.key, pair.difference
    paper = reference.text + (f" ± {reference.error}" if reference.error else "")
    shown = "–" if change is None else "0.0" if round(change, 1) == 0 else f"{change:+.1f}"
    cell = (cell_text(pair.cell), shown, str(pair.cell.n))
    return [words(key.protocol), key.dataset, pair.label, key.column, key.metric, paper, *cell, reference.source]


def _notes(found: Beside) -> list[str]:
    counts = (
        f"Cells of ours without a reference number: {found.n_cells}; reference numbers of the same backbone without a "
        f"cell of ours: {found.n_references}."
    )
    others = (
        f"Averages of ours left out, since the paper's are over other data sets or domains: {found.n_other_averages}."
    )
    said = [found.message] if found.message else ["Difference: ours less the paper's, in points."]
    footer = found.report.footer if found.pairs else ()
    return [*said, counts, *([others] if found.n_other_averages else []), *footer]


def _text(found: Beside) -> str:
    from tabulate import tabulate

    lines = [*_notes(found), *(f"WARNING: {warning}" for warning in found.report.warnings)]
    blocks = ["\n".join(wrapped(lines))]
    if found.pairs:
        body = tabulate([_fields(pair) for pair in found.pairs], headers=_HEADER, disable_numparse=True)
        blocks = [_title(found), body, *blocks]
    return "\n\n".join(blocks)


def _markdown(found: Beside) -> str:
    lines = [*_notes(found), *(f"**Warning**: {warning}" for warning in found.report.warnings)]
    blocks = ["\n".join(f"- {line}" for line in lines)]
    if found.pairs:
        rows = [_HEADER, [":--"] * 5 + ["--:"] * 4 + [":--"], *map(_fields, found.pairs)]
        body = "\n".join(f"| {' | '.join(field.replace('|', chr(92) + '|') for field in row)} |" for row in rows)
        blocks = [f"**{_title(found)}**", body, *blocks]
    return "\n\n".join(blocks)


def _title(found: Beside) -> str:
    rules = dict.fromkeys(pair.selection for pair in found.pairs)
    return f"Beside the papers' numbers (%), {' and '.join(rules)} selection"


def _json_pair(pair: Pair) -> dict[str, Any]:
    reference = pair.reference
    return {
        **reference.key._asdict(),
        "selection": pair.selection,
        "label": pair.label,
        "paper": reference.mean,
        "paper_error": float(reference.error) if reference.error else None,
        "ours": pair.cell.mean,
        "stderr": pair.cell.error,
        "difference": pair.difference,
        "n": pair.cell.n,
        "state": pair.cell.state.value,
        "source": reference.source,
        "file": reference.path.name,
    }
