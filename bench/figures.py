"""Drawing with matplotlib: numbers in, axes out. Chooses no number and writes no file but what `save` is given.

Nothing global is touched: no pyplot, no style. Names are taken as text, never as mathematics.
"""

from __future__ import annotations

import importlib.util
import math
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError
from bench.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[["Axes"], None]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart by the colour-blind as well; the yellow, which white swallows, left out."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LONGEST_LABEL = 48
"""Characters of a name that a figure has room for."""
LINE = 80
"""Characters of a line of a title."""
_GREY = "#666666"


@dataclass(frozen=True)
class Line:
    """One line of a forest: a mean with its interval (None where there is none); `is_total` over all domains."""

    row: str
    name: str
    mean: float
    low: float | None
    high: float | None
    is_total: bool


@dataclass(frozen=True)
class Point:
    """One point of a scatter; points of one curve with an alpha each are joined."""

    label: str
    x: float
    y: float
    curve: str
    alpha: float | None


def check_installed() -> None:
    """Refuse where there is no matplotlib.

    Raises:
        BenchError: there is none.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("--plots needs matplotlib: pip install 'clipbed[plots]'")


def save(draw: Draw, size: tuple[float, float], paths: Sequence[Path]) -> None:
    """Draw a figure and write it, once for each path, in the format of its suffix; the same bytes for the same figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure.add_subplot())
    with warnings.catch_warnings():
        # A name in a script that the font lacks shows boxes; that is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for path in paths:
            metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
            figure.savefig(path, dpi=160, metadata=metadata)


def plain(words: str, longest: int = LONGEST_LABEL) -> str:
    """Keep dollar signs from being taken for mathematics, and line breaks and length from breaking a label."""
    words = " ".join(printable(words).split())
    return (words if len(words) <= longest else words[: longest - 1] + "…").replace("$", r"\$")


def heading(words: str) -> str:
    """Word a title or the name of an axis, in lines; names in it may be of any length."""
    return textwrap.fill(plain(words, 4 * LINE), LINE)


def ranks(
    title: str,
    labels: Sequence[str],
    mean_ranks: Sequence[float],
    groups: Sequence[Sequence[int]],
    critical_difference: float | None,
) -> Draw:
    """Draw a critical-difference diagram: the best rank left, bars over groups that are not told apart."""

    def draw(axes: Axes) -> None:
        """Draw it into `axes`."""
        order = sorted(range(len(labels)), key=lambda place: mean_ranks[place])
        k, half = len(labels), math.ceil(len(labels) / 2)
        axes.set_xlim(0.2, k + 0.8)
        low = -0.6 - 0.32 * len(groups)
        for place, each in enumerate(order):
            is_left = place < half
            depth = low - 0.6 * (place if is_left else k - 1 - place) - 0.4
            edge = 0.75 if is_left else k + 0.25
            rank = mean_ranks[each]
            axes.plot([rank, rank, edge], [0, depth, depth], color=_GREY, linewidth=0.8)
            words = f"{plain(labels[each])}  {rank:.2f}"
            axes.text(
                edge, depth, f"{words} " if is_left else f" {words}", ha="right" if is_left else "left", va="center"
            )
        for level, group in enumerate(groups):
            ends = [mean_ranks[place] for place in group]
            axes.plot([min(ends) - 0.04, max(ends) + 0.04], [-0.4 - 0.32 * level] * 2, color="black", linewidth=3.5)
        axes.plot([1, k], [0, 0], color="black", linewidth=1)
        for rank in range(1, k + 1):
            axes.plot([rank, rank], [0, 0.15], color="black", linewidth=1)
            axes.text(rank, 0.25, str(rank), ha="center", va="bottom", fontsize=8)
        if critical_difference is not None and critical_difference < k - 1:
            axes.plot([1, 1 + critical_difference], [1.1, 1.1], color="black", linewidth=1.5, marker="|")
            axes.text(
                1 + critical_difference / 2,
                1.2,
                f"critical difference {critical_difference:.2f}",
                ha="center",
                fontsize=8,
            )
        axes.set_ylim(low - 0.6 * half - 0.2, 2.0 if critical_difference is not None else 1.0)
        axes.set_axis_off()
        head, _, small = title.partition("\n")
        axes.set_title(f"{heading(head)}\n{heading(small)}", fontsize=9)

    return draw


def forest(title: str, axis: str, lines: Sequence[Line]) -> Draw:
    """Draw differences with intervals, grouped by row; an arrow where an interval leaves the picture."""

    def draw(axes: Axes) -> None:
        """Draw it into `axes`."""
        left, right = _reach(lines)
        rows = list(dict.fromkeys(line.row for line in lines))
        for place, line in enumerate(lines):
            colour = COLOURS[rows.index(line.row) % len(COLOURS)]
            if line.low is not None and line.high is not None:
                ends = [max(line.low, left), min(line.high, right)]
                axes.plot(ends, [place, place], color=colour, linewidth=2.4 if line.is_total else 1.0)
                for is_cut, marker, end in ((line.low < left, "<", ends[0]), (line.high > right, ">", ends[1])):
                    if is_cut:
                        axes.plot([end], [place], marker=marker, color=colour, markersize=4, clip_on=False)
            marker, size = ("D", 6) if line.is_total else ("o", 4)
            axes.plot([line.mean], [place], marker=marker, color=colour, markersize=size)
            if place and line.row != lines[place - 1].row:
                axes.axhline(place - 0.5, color="#DDDDDD", linewidth=0.8)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlim(left, right)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        words = [f"{plain(line.row)}, {plain(line.name)}" if line.is_total else plain(line.name) for line in lines]
        axes.set_yticks(range(len(lines)), words, fontsize=7)
        for label, line in zip(axes.get_yticklabels(), lines, strict=True):
            label.set_fontweight("bold" if line.is_total else "normal")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(heading(axis), fontsize=8)
        axes.set_title(heading(title), fontsize=9)
        _bare(axes)

    return draw


def _reach(lines: Sequence[Line]) -> tuple[float, float]:
    """Give limits that hold 0, all means and the intervals over all domains; those of one domain may be far wider."""
    totals = [end for line in lines if line.is_total for end in (line.low, line.high) if end is not None]
    known = [0.0, *(line.mean for line in lines), *totals]
    margin = max(0.15 * (max(known) - min(known)), 0.5)
    return min(known) - margin, max(known) + margin


def heat(
    title: str, rows: Sequence[str], columns: Sequence[str], means: Sequence[Sequence[float | None]], *, lower: bool
) -> Draw:
    """Draw rows × columns; shades are of the difference from each column's mean, numbers are the means."""

    def draw(axes: Axes) -> None:
        """Draw it into `axes`."""
        values = np.array([[math.nan if mean is None else mean for mean in row] for row in means], dtype=np.float64)
        known = np.isfinite(values)
        sums = np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        shades = np.where(known, values - sums, 0.0) * (-1 if lower else 1)
        reach = max(float(np.abs(shades).max()), 1e-9)
        axes.imshow(shades, cmap="RdBu", vmin=-1.6 * reach, vmax=1.6 * reach, aspect="auto")
        for i in range(len(rows)):
            for j in range(len(columns)):
                axes.text(j, i, f"{values[i, j]:.1f}" if known[i, j] else "–", ha="center", va="center", fontsize=7)
        axes.set_xticks(range(len(columns)), [plain(name) for name in columns], fontsize=8, rotation=30, ha="right")
        axes.set_yticks(range(len(rows)), [plain(name) for name in rows], fontsize=8)
        axes.tick_params(length=0)
        better = "blue: better than the column's mean, red: worse"
        axes.set_title(f"{heading(title)}\n{better}", fontsize=9)
        for side in axes.spines.values():
            side.set_visible(False)

    return draw


def scatter(title: str, names: tuple[str, str], points: Sequence[Point]) -> Draw:
    """Draw points, one colour and marker a curve; the points of a curve joined in the order of alpha."""

    def draw(axes: Axes) -> None:
        """Draw it into `axes`."""
        curves = list(dict.fromkeys(point.curve for point in points))
        for curve, colour, marker in zip(curves, cycle(COLOURS), cycle(MARKERS)):
            of_curve = sorted((each for each in points if each.curve == curve), key=lambda each: each.alpha or 0.0)
            line = "-" if len([each for each in of_curve if each.alpha is not None]) > 1 else ""
            x, y = [each.x for each in of_curve], [each.y for each in of_curve]
            axes.plot(x, y, linestyle=line, marker=marker, color=colour, markersize=6, linewidth=1, label=plain(curve))
            for each in of_curve if line else ():
                words = "" if each.alpha is None else f"{each.alpha:g}"
                axes.annotate(
                    words, (each.x, each.y), xytext=(4, 3), textcoords="offset points", fontsize=6, color=colour
                )
        _finish(axes, title, names)

    return draw


def curves(title: str, name: str, of_rows: Sequence[tuple[str, Sequence[tuple[int, float]]]]) -> Draw:
    """Draw numbers against step, one line a row; what is not trained is a dotted level."""

    def draw(axes: Axes) -> None:
        """Draw it into `axes`."""
        for (row, curve), colour, marker in zip(of_rows, cycle(COLOURS), cycle(MARKERS)):
            if len(curve) == 1 and curve[0][0] == 0:
                axes.axhline(curve[0][1], color=colour, linestyle=":", label=plain(row))
            else:
                steps, means = zip(*curve)
                axes.plot(steps, means, marker=marker, color=colour, markersize=4, linewidth=1.2, label=plain(row))
        _finish(axes, title, ("step", name))

    return draw


def _finish(axes: Axes, title: str, names: tuple[str, str]) -> None:
    axes.set_xlabel(heading(names[0]), fontsize=8)
    axes.set_ylabel(heading(names[1]), fontsize=8)
    axes.set_title(heading(title), fontsize=9)
    axes.grid(color="#EEEEEE")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", labelsize=8)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.tick_params(axis="x", labelsize=8)
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)
