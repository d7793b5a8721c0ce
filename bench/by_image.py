"""Two rows compared image by image on each domain, from the predictions that trials stored at their last step.

The tables compare over domains; this says what the images of one domain can: these trainings on new images of the
domain, and new trainings on new images (`bench.example_tests`). Reads run folders; prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ablation import SUFFIX
from bench.comparison import Comparison, Family
from bench.comparison_text import interval_text, measure_title, p_text, percent, scope_title
from bench.errors import RecordsMissing
from bench.example_tests import TwoWayTest, correctness_differences, permutation_test, two_way_test
from bench.formats import wrapped
from bench.printable import printable
from bench.report import Report
from bench.runs import find_runs
from bench.selection import Choice
from bench.stats import holm
from bench.store import Run
from bench.tables import Cell

_COUNTS = ("", "domain", "trials", "images", "right alone")
_ERRORS = ("p (Holm)", "± trials", "± images", "p (images)")
_AGREE = 1e-6
"""By how much an accuracy from predictions may differ from the recorded one, in percent."""


class _Left(Exception):
    """A pair of cells cannot be compared; the message says why."""


@dataclass(frozen=True)
class _Answers:
    """What a trial answered on a view: positions of the images in the domain, and whether each answer is right."""

    index: NDArray[np.int64]
    is_right: NDArray[np.bool_]


@dataclass(frozen=True)
class ImagePair:
    """Two rows on the images of one domain.

    Attributes:
        label: the row.
        domain: its column.
        alone: images, counted in every trial, that only the row gets right, and that only the reference does.
        test: mean difference with trials and images both random.
        p_images: exact p for these trainings on new images of the domain; of one trial that is McNemar's.
    """

    label: str
    domain: str
    alone: tuple[int, int]
    test: TwoWayTest
    p_images: float


def by_image(reports: Sequence[Report], root: Path) -> str:
    """Word the comparison of every row with its reference on every domain, for every table of one data set.

    Raises:
        RecordsMissing: nothing can be compared; the message says why.
    """
    predictions = _Predictions(root)
    blocks, reasons = [], dict[str, int]()
    for report in reports:
        for family in report.families:
            pairs = list(_pairs(family, predictions, report.alpha, reasons))
            if pairs:
                blocks.append(_block(family, pairs, report.alpha))
    told = [f"Left out: {number} comparison{'s' * (number > 1)} ({reason})." for reason, number in reasons.items()]
    if not blocks:
        why = " ".join(told) or "No table has two rows with accuracies of a data set."
        raise RecordsMissing(f"{root} has nothing to compare image by image. {why}")
    return "\n\n".join([*blocks, "\n".join(wrapped([*_FOOTER, *told]))]) + "\n"


_FOOTER = (
    "Difference: mean over trials, in points, on the images of one domain; interval and p take both trials and images for "
    "chance (two-way test) and need three trials; p is Holm-adjusted within a table. ± trials, ± images: the standard "
    "errors that either brings. Right alone: answers of all trials that only this row, and only the other, gets right.",
    "p (images): exact, of these trainings on new images of the domain (of one trial, McNemar's test); new trainings may "
    "differ. None of this speaks of other domains: the tables' comparisons do.",
)


def _pairs(family: Family, predictions: _Predictions, alpha: float, reasons: dict[str, int]) -> Iterator[ImagePair]:
    """Compare what can be compared; count why the rest cannot. Tables of other than accuracies of domains have nothing."""
    table = family.table
    views = table.measure.views
    if not views or table.is_average or table.is_summary:
        return
    rows = {row.label: row for row in table.rows}
    for each in family.comparisons:
        for domain, cell, other in zip(table.columns[:-1], rows[each.label].cells, rows[each.against].cells):
            try:
                yield _compared(each, domain, views, (cell, other), predictions, alpha)
            except _Left as left:
                reasons[str(left)] = reasons.get(str(left), 0) + 1


def _compared(
    each: Comparison,
    domain: str,
    views: Sequence[str],
    cells: tuple[Cell, Cell],
    predictions: _Predictions,
    alpha: float,
) -> ImagePair:
    if each.paired.refusal:
        raise _Left(each.paired.refusal)
    first, second = cells
    seeds = sorted(first.trials.keys() & second.trials.keys())
    if not seeds:
        raise _Left("no trial in common")
    found = [(predictions.of(first, seed, views), predictions.of(second, seed, views)) for seed in seeds]
    if any(not np.array_equal(one.index, other.index) for one, other in found):
        raise _Left("predictions of other images")
    differences = correctness_differences(
        [one.index for one, _ in found], [one.is_right for one, _ in found], [other.is_right for _, other in found]
    )
    alone = int((differences == 1).sum()), int((differences == -1).sum())
    test, exact = two_way_test(differences, alpha), permutation_test(differences)
    return ImagePair(each.label, domain, alone, test, exact.p_examples)


class _Predictions:
    """The stored predictions of the run folders of a results folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def _runs(self) -> dict[str, Run]:
        return {run.trial_id: run for run in find_runs(self._root)}

    def of(self, cell: Cell, seed: int, views: Sequence[str]) -> _Answers:
        """Give what the trial behind a number answered.

        Raises:
            _Left: its predictions are not there, or are not those that the number is of.
        """
        trial = cell.trials[seed]
        if trial.choice is None or trial.choice.trial not in self._runs:
            raise _Left("no run folder")
        run, choice = self._runs[trial.choice.trial], trial.choice
        if choice.step != int((run.spec_json() or {}).get("steps", -1)):
            raise _Left("the chosen step is not the last, whose predictions are stored (--selection last takes it)")
        names, label = [view.format(choice.test_domain) for view in views], _label(choice)
        try:
            with np.load(run.predictions_path) as arrays:
                index = np.concatenate([arrays[f"{name}/index"] for name in names]).astype(np.int64)
                right = [arrays[f"{name}/{label}/predicted"] == arrays[f"{name}/label"] for name in names]
                is_right = np.concatenate(right)
        except (OSError, KeyError, ValueError):
            raise _Left("no stored predictions; published copies are without") from None
        if abs(100 * float(is_right.mean()) - trial.value) > _AGREE:
            raise _Left("stored predictions that give another number than the table's")
        return _Answers(index, is_right)


def _label(choice: Choice) -> str:
    """Give the name that a predictor's answers are stored by."""
    record: Any = choice.record
    name = str(record["predictor"]).removesuffix(str(record.get(SUFFIX, "")))
    return name.removeprefix(str(record["algorithm"])).strip("[]") or "main"


def _block(family: Family, pairs: Sequence[ImagePair], alpha: float) -> str:
    from tabulate import tabulate

    against = " or ".join(dict.fromkeys(each.against for each in family.comparisons))
    title = f"{scope_title(family.table, 2)}{measure_title(family.table)}: image by image, against {against}"
    adjusted = holm([each.test.p for each in pairs])
    lines = [_cells(each, p) for each, p in zip(pairs, adjusted, strict=True)]
    header = [*_COUNTS, "difference", f"{percent(1 - alpha)} interval", *_ERRORS]
    return printable(title) + "\n\n" + str(tabulate(lines, headers=header, disable_numparse=True))


def _cells(each: ImagePair, p: float | None) -> list[str]:
    test = each.test
    return [
        printable(each.label),
        printable(each.domain),
        str(test.n_trials),
        str(test.n_examples),
        f"{each.alone[0]} / {each.alone[1]}",
        f"{test.difference:+.1f}",
        interval_text(test.low, test.high),
        "·" if p is None else p_text(p),
        *("·" if error is None else f"{error:.1f}" for error in (test.trial_error, test.example_error)),
        p_text(each.p_images),
    ]
