"""The figures of a page as inline SVG: matplotlib's drawing, without what a strict page refuses or what may clash.

Every id is the figure's own, styles are attributes (the page's Content-Security-Policy allows no inline style), text is
text, and the same figure gives the same bytes.
"""

from __future__ import annotations

import importlib.util
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any
from xml.etree import ElementTree

from bench.plots import Plot, plots_of
from bench.printable import printable
from bench.report import Report
from bench.tables import Table

MOST_NAMES = 40
"""A figure of more rows or columns than this is left out: nobody could read it, and drawing it takes long."""
MISSING = "Figures need matplotlib: pip install 'clipbed[plots]', then make this page again."
_KINDS = {
    "ranks": "Mean ranks (critical-difference diagram)",
    "forest": "Difference from the reference by domain, with intervals",
    "heat": "All rows and domains",
    "line": "Accuracy in-domain against out-of-domain",
    "base_new": "Base against new classes",
    "steps": "Accuracy against step",
}
_XLINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_FONT = re.compile(r"(?P<weight>bold|[5-9]00)?[^0-9]*(?P<size>[0-9.]+)px")


class _NoRoom(Exception):
    """The labels of a figure are longer than the figure is wide."""


class Figures:
    """Draws the figures of a page, which number their ids one after the other."""

    def __init__(self, records: Sequence[Mapping[str, Any]], posthoc: str | None) -> None:
        """Remember what all figures are of.

        Args:
            records: the flat records behind the tables.
            posthoc: one of `bench.ranks.POSTHOCS`; None for the default.
        """
        self.is_possible = importlib.util.find_spec("matplotlib") is not None
        self._records = records
        self._posthoc = posthoc
        self._n = 0

    def of(self, report: Report, tables: Sequence[Table], scope: str) -> tuple[list[str], list[str]]:
        """Draw what there is to draw of some of a report's tables.

        Returns:
            HTML of the figures, and sentences on those that were left out.
        """
        if not self.is_possible:
            return [], []
        readable = [each for each in tables if len(each.rows) <= MOST_NAMES and len(each.columns) <= MOST_NAMES]
        families = tuple(family for family in report.families if any(family.table is table for table in readable))
        part = replace(report, tables=tuple(readable), families=families)
        plots, notes = plots_of(part, self._records, self._posthoc) if readable else ([], [])
        if len(readable) < len(tables):
            notes.append(
                f"No figures of more than {MOST_NAMES} rows or columns: choose with --algorithms or --datasets."
            )
        drawn = []
        for plot in plots:
            caption = _KINDS.get(plot.name.partition("-")[0], plot.name)
            try:
                drawn.append(_figure(plot, f"figure{self._n}", caption, scope))
            except _NoRoom:
                notes.append(f"Left out, since its names leave no room for it: {caption[0].lower()}{caption[1:]}.")
            self._n += 1
        return drawn, notes


def _figure(plot: Plot, name: str, caption: str, scope: str) -> str:
    svg = _svg(plot, name, f"{caption}: {scope}")
    heads = "".join(f'<th scope="col">{escape(printable(head.replace("_", " ")))}</th>' for head in plot.header)
    rows = "".join(f"<tr>{''.join(map(_number_cell, row))}</tr>" for row in plot.rows)
    numbers = (
        f'<details><summary>Numbers</summary><div class="scroll"><table class="numbers"><caption>Numbers of this figure'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption>{numbers}</figure>"


def _number_cell(value: object) -> str:
    words = "–" if value is None else f"{value:.2f}" if isinstance(value, float) else printable(str(value))
    return f"<td>{escape(words)}</td>"


def _svg(plot: Plot, name: str, title: str) -> str:
    root = ElementTree.fromstring(_UNREADABLE.sub("\ufffd", _drawn(plot)))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    ids = {each.get("id", ""): "" for each in root.iter() if each.get("id")}
    used = {match for each in root.iter() for value in each.attrib.values() for match in _REFERENCE.findall(value)}
    used |= {each.attrib[_XLINK][1:] for each in root.iter() if each.get(_XLINK, "").startswith("#")}
    ids = {each: f"{name}-{place}" for place, each in enumerate(each for each in ids if each in used)}
    for each in root.iter():
        each.tag = each.tag.rpartition("}")[2]
        each.attrib = _attributes(each.attrib, ids)
    width, height = (round(90 * inches) for inches in plot.size)
    box = root.get("viewBox", "")
    root.attrib = {"viewBox": box, "width": str(width), "height": str(height), "role": "img", "aria-labelledby": name}
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    heading = ElementTree.Element("title", {"id": name})
    heading.text = printable(title)
    root.insert(0, heading)
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r">\s+<", "><", text)


def _drawn(plot: Plot) -> str:
    """Give matplotlib's SVG of a figure.

    Raises:
        _NoRoom: its labels leave no room for it.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=plot.size, layout="constrained")
    plot.draw(figure.add_subplot())
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    out = io.StringIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "clipbed", "svg.fonttype": "none"}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("error", message="constrained_layout not applied")
        try:
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
        except UserWarning:
            raise _NoRoom from None
    return out.getvalue()


def _attributes(given: Mapping[str, str], ids: Mapping[str, str]) -> dict[str, str]:
    """Turn one element's attributes into those that the page allows."""
    found: dict[str, str] = {}
    for key, value in given.items():
        if key == "id":
            found |= {"id": ids[value]} if value in ids else {}
        elif key == "style":
            found |= _presentation(value)
        elif key == _XLINK:
            found["href"] = f"#{ids[value[1:]]}" if value.startswith("#") else "".join(value.split())
        elif not (key == "transform" and value.startswith("rotate(-0 ")):
            found[key] = value
    return {key: _shortened(key, value, ids) for key, value in found.items()}


def _shortened(key: str, value: str, ids: Mapping[str, str]) -> str:
    value = _REFERENCE.sub(lambda match: f"url(#{ids.get(match[1], '')})", value)
    if key in ("href", "id"):
        return value
    rounded = _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value)
    return " ".join(rounded.split())


def _presentation(style: str) -> dict[str, str]:
    """Turn a style into presentation attributes; fonts are the page's, their sizes and weights the figure's."""
    found: dict[str, str] = {}
    for part in style.split(";"):
        key, _, value = (each.strip() for each in part.partition(":"))
        match = _FONT.match(value) if key == "font" else None
        if match is not None:
            found |= {"font-size": f"{match['size']}px"} | ({"font-weight": match["weight"]} if match["weight"] else {})
        elif key and key not in ("font", "font-family"):
            found[key] = value
    return found
