"""Further tables of a report, on request: ranks of all methods, effect sizes, and what would settle a comparison.

A panel is words for people and numbers for JSON; every format sets it like any other table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.bayes import RopeProbabilities, signed_rank_probabilities
from bench.comparison import Comparison, Family, scores
from bench.comparison_text import interval_text, measure_title, p_text, percent, scope_title
from bench.curves import line_points
from bench.default_test import ESTIMANDS, paired_test
from bench.exact_tests import wilcoxon
from bench.power import MOST_TRIALS, MOST_UNITS, POWER, Plan, plan
from bench.ranks import MIN_RANK_UNITS, RankComparison, compare_ranks
from bench.stats import ROPE, probability_of_improvement, rank_biserial
from bench.tables import Table
from bench.units import dataset_table, pair, trial_means_by_dataset, unit_table

OBSERVED = 0.0
"""`--plan` without points: the difference to be found is the observed one."""
MIN_CURVE = 3
"""Fewer rows that differ in alpha alone are no curve."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Panel:
    """One further table.

    Attributes:
        kind: "curves", "rankings", "effects", "sensitivity" or "plans"; its key in JSON.
        table: the table that it is about.
        title: heading, without the table's name.
        header: column heads.
        rows: cells, the row's label first; none where it was refused.
        notes: sentences for the footer.
        data: the numbers, for JSON; one entry a panel or a row.
    """

    kind: str
    table: Table
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    data: tuple[Mapping[str, Any], ...] = field(repr=False)


def panel_title(panel: Panel, n_protocols: int = 1) -> str:
    """Word a panel's heading."""
    return f"{scope_title(panel.table, n_protocols)}{measure_title(panel.table)}: {panel.title}"


def panel_notes(panels: Iterable[Panel]) -> list[str]:
    """Give the sentences of all panels, each once."""
    return list(dict.fromkeys(note for panel in panels for note in panel.notes))


def rank_panel(family: Family, posthoc: str) -> Panel:
    """Compare all rows of a table with each other by ranks; refused, with the reason, below six units.

    Args:
        family: the table's comparisons.
        posthoc: one of `bench.ranks.POSTHOCS`.
    """
    rows = family.table.rows
    of_rows = [scores(row.row, family.parts) for row in rows]
    units = unit_table({str(place): each for place, each in enumerate(of_rows)})
    if family.table.is_average:
        units = dataset_table(units)
    unpaired = [reason for each in of_rows[1:] if (reason := pair(each, of_rows[0]).refusal)]
    name = "data sets" if family.table.is_average else "domains"
    n = len(units.units)
    if unpaired or n < MIN_RANK_UNITS:
        few = f"ranks need at least {MIN_RANK_UNITS} {name} that all rows have, here are {n}: too few to tell any two apart"
        return _no_ranks(family, posthoc, unpaired[0] if unpaired else few)
    found = compare_ranks(family.sign * units.means, posthoc, family.question.alpha)
    order = [int(place) for place in np.argsort(found.omnibus.mean_ranks, kind="stable")]
    groups = _with_single(found, order)
    cells = tuple(
        (
            rows[place].label,
            f"{found.omnibus.mean_ranks[place]:.2f}",
            " ".join(_letter(i) for i, group in enumerate(groups) if place in group),
        )
        for place in order
    )
    notes = _rank_notes(family, found, name, units.n_lost)
    labels = [row.label for row in rows]
    data = _rank_data(family, found, labels, groups)
    return Panel(
        "rankings", family.table, f"mean ranks over {n} {name} (1 = best)", ("", "rank", "group"), cells, notes, (data,)
    )


def curve_panel(table: Table) -> Panel | None:
    """Tabulate accuracy by alpha, where rows differ in it alone: in the training domains and in the held-out ones.

    Returns:
        None where no three rows do.
    """
    points = [point for point in line_points(table) if point.alpha is not None]
    curves = {
        point.curve: sorted(each.alpha or 0.0 for each in points if each.curve == point.curve) for point in points
    }
    curves = {curve: alphas for curve, alphas in curves.items() if len(alphas) >= MIN_CURVE}
    if not curves:
        return None
    alphas = sorted({alpha for of_curve in curves.values() for alpha in of_curve})
    cells = []
    for curve in curves:
        of_alpha = {point.alpha: point for point in points if point.curve == curve}
        name = curve.removesuffix(", by alpha")
        for what, key in (("training domains", "inside"), ("held-out domain", "outside")):
            values = [getattr(of_alpha[alpha], key) if alpha in of_alpha else None for alpha in alphas]
            best = max(value for value in values if value is not None)
            words = ("–" if each is None else f"{each:.1f}{' *' if each == best else ''}" for each in values)
            cells.append((f"{name}, {what}", *words))
    note = "Over alpha: mean accuracy (%) on the out-splits of the training domains and on held-out domains; *: the highest."
    data = tuple(
        {
            **_scope_of(table),
            "curve": point.curve,
            "alpha": point.alpha,
            "training_domains": point.inside,
            "held_out_domain": point.outside,
        }
        for point in points
        if point.curve in curves
    )
    header = ("alpha", *(f"{alpha:g}" for alpha in alphas))
    return Panel("curves", table, "accuracy over alpha (%)", header, tuple(cells), (note,), data)


def effects_panel(family: Family) -> Panel:
    """Give effect sizes of each comparison on its domains (over several data sets: data sets)."""
    cells, data = [], []
    for each in family.comparisons:
        if not each.unit_differences:
            cells.append((each.label, *["·"] * 4))
            continue
        better = family.sign * np.array(each.unit_differences)
        share, low, high = probability_of_improvement(better, family.question.alpha)
        correlation = rank_biserial(better)
        # A generator for each comparison: its numbers do not depend on the rows before it.
        rope = signed_rank_probabilities(better, np.random.default_rng(0), ROPE)
        cells.append((each.label, f"{share:.2f}", f"{low:.2f} to {high:.2f}", f"{correlation:+.2f}", _rope_text(rope)))
        data.append(
            {
                **_scope(family, each),
                "p_better": share,
                "p_better_interval": [low, high],
                "rank_biserial": correlation,
                "rope_points": ROPE,
                "rope": {"worse": rope.worse, "same": rope.same, "better": rope.better},
            }
        )
    what = "data sets" if family.table.is_average else "domains"
    header = ("", "P(better)", f"{percent(1 - family.question.alpha)} interval", "rank-biserial", "worse/same/better")
    note = (
        f"Effect sizes over {what}, trials averaged first. P(better): chance to be better on a new one; interval after "
        "Clopper and Pearson. rank-biserial: -1..1, whether the larger differences point one way. worse/same/better: "
        f"probabilities by the Bayesian signed-rank test, same being within ±{ROPE:g} points; over few {what} its prior "
        "weighs much."
    )
    return Panel("effects", family.table, f"effect sizes over {what}", header, tuple(cells), (note,), tuple(data))


def sensitivity_panel(family: Family) -> Panel:
    """Ask the same differences otherwise: for the other estimand, and by ranks over all domains; uncorrected.

    Without rows where there are too few trials and domains for either.
    """
    asked = family.question.estimand
    other = next(name for name in ESTIMANDS if name != asked)
    several = family.over_datasets
    cells, data = [], []
    for each in family.comparisons:
        if not each.paired.units:
            cells.append((each.label, *["·"] * 4))
            continue
        test = paired_test(each.paired, other, family.question.alpha, over_datasets=several)
        n = len(each.paired.units)
        ranks = wilcoxon(each.paired.means).p if n >= MIN_RANK_UNITS else None
        p_values = ("·" if p is None else p_text(p) for p in (test.p, ranks))
        cells.append((each.label, interval_text(test.low, test.high), *p_values, str(n)))
        data.append(
            {
                **_scope(family, each),
                "estimand": other,
                "interval": None if test.low is None else [test.low, test.high],
                "p": test.p,
                "wilcoxon_p": ranks,
                "domains": n,
            }
        )
    words = {"new-domains": "new domains", "these-benchmarks": "these domains alone"}
    of_ranks = " and is conditional on these data sets: domains of one resemble each other" if several else ""
    note = (
        f"Asked otherwise (nothing corrected): {words[other]}: interval and p for {ESTIMANDS[other]}; Wilcoxon's exact p "
        f"counts single domains{of_ranks}; ·: too few trials or domains ({MIN_RANK_UNITS} for ranks)."
    )
    header = ("", words[other], "p", "Wilcoxon p", "domains")
    if all(each["p"] is None and each["wilcoxon_p"] is None for each in data):
        return Panel("sensitivity", family.table, "asked otherwise", header, (), (), tuple(data))
    return Panel("sensitivity", family.table, "asked otherwise", header, tuple(cells), (note,), tuple(data))


def plan_panel(family: Family, points: float) -> Panel:
    """Say, for each comparison, what it would take to find a difference on new domains.

    Args:
        family: a table's comparisons; of the estimand "new-domains".
        points: the true difference to be found; `OBSERVED` for the one that was observed.
    """
    cells, notes, data = [], [], []
    n_tests = max(1, family.n_tests)
    for each in family.comparisons:
        several = family.over_datasets
        trials = trial_means_by_dataset(each.paired) if several else each.paired.differences
        if len(trials) < 2 or not all(map(len, trials)):
            reason = each.refusal or "trials in common on two units or more are needed"
            notes.append(f"{each.label} on {scope_title(family.table)}: no plan, {reason}.")
            continue
        found = plan(trials, points or None, family.question.alpha, n_tests=n_tests)
        cells.append((each.label, *_plan_cells(found)))
        data.append({**_scope(family, each), "unit": "data set" if several else "domain", **_plan_data(found)})
    what = "data sets" if family.table.is_average else "domains"
    header = (
        "",
        "to find",
        f"spread of {what}",
        "of trials",
        "chance now",
        "detectable",
        f"{what} needed",
        "trials needed",
    )
    about = (
        f"Plan: by the t-test over {what} at level {family.question.alpha / n_tests:.2g} (Holm's first step in a family "
        f"of {n_tests}), with a chance of {percent(POWER)}, at the spread observed so far. detectable: the smallest "
        f"difference that {what} and trials at hand find with this chance. needed: in all, the other number staying as "
        f"it is; none: not even {MOST_UNITS} {what}, or {MOST_TRIALS} trials, would do."
    )
    optimistic = (
        "To find: the observed difference, an optimistic guess; a difference that is large by luck asks for too little."
    )
    notes = [about, *([] if points else [optimistic]), *notes]
    return Panel("plans", family.table, "what would settle it", header, tuple(cells), tuple(notes), tuple(data))


def _scope_of(table: Table) -> dict[str, Any]:
    return {
        "scope": "overall" if table.is_average else table.dataset,
        "metric": table.measure.name,
        "protocol": table.protocol,
        "selection": table.selection,
    }


def _scope(family: Family, each: Comparison | None = None) -> dict[str, Any]:
    scope = _scope_of(family.table)
    return scope if each is None else {**scope, "algorithm": each.label, "against": each.against}


def _no_ranks(family: Family, posthoc: str, reason: str) -> Panel:
    where = f"{scope_title(family.table)}{measure_title(family.table)}"
    data = {**_scope(family), "posthoc": posthoc, "refusal": reason}
    return Panel("rankings", family.table, "", (), (), (f"No ranks of {where}: {reason}.",), (data,))


def _with_single(found: RankComparison, order: Sequence[int]) -> list[tuple[int, ...]]:
    """Give the groups that are not told apart, a method told apart from all others being a group of its own."""
    grouped = {place for group in found.cliques for place in group}
    groups = [*found.cliques, *((place,) for place in order if place not in grouped)]
    return sorted(groups, key=lambda group: order.index(group[0]))


def _letter(number: int) -> str:
    return _LETTERS[number] if number < len(_LETTERS) else f"{_LETTERS[number % 26]}{number // 26}"


def _rank_notes(family: Family, found: RankComparison, units: str, n_lost: int) -> tuple[str, ...]:
    k, omnibus = len(found.omnibus.mean_ranks), found.omnibus
    if found.critical_difference is None:
        pairs = f"exact Wilcoxon tests with Holm's correction for all {k * (k - 1) // 2} pairs"
    else:
        pairs = f"Nemenyi's test (critical difference {found.critical_difference:.2f}; depends on which rows are shown)"
    lost = f" {n_lost} domains that some row lacks are left out." if n_lost else ""
    where = f"{scope_title(family.table)}{measure_title(family.table)}"
    return (
        f"Ranks of {where}: rows that share a letter are not told apart at {family.question.alpha:g} by {pairs}. Friedman's "
        f"test with Iman and Davenport's correction over {omnibus.n_units} {units}: F = {omnibus.f:.2f} with {k - 1} and "
        f"{(k - 1) * (omnibus.n_units - 1)} degrees of freedom, p {_equals(omnibus.p)}.{lost}",
        *([f"Ranks of {where}: {found.warning}."] if found.warning else []),
    )


def _equals(p: float) -> str:
    words = p_text(p)
    return words if words.startswith("<") else f"= {words}"


def _rank_data(
    family: Family, found: RankComparison, labels: Sequence[str], groups: Sequence[Sequence[int]]
) -> dict[str, Any]:
    omnibus = found.omnibus
    return {
        **_scope(family),
        "posthoc": found.posthoc,
        "refusal": None,
        "units": omnibus.n_units,
        "unit": "data set" if family.table.is_average else "domain",
        "algorithms": list(labels),
        "mean_ranks": [float(rank) for rank in omnibus.mean_ranks],
        "p": [[float(p) for p in row] for row in found.p],
        "groups": [[labels[place] for place in group] for group in groups],
        "critical_difference": found.critical_difference,
        "friedman": {"chi2": omnibus.chi2, "f": omnibus.f if np.isfinite(omnibus.f) else None, "p": omnibus.p},
        "warning": found.warning or None,
    }


def _rope_text(rope: RopeProbabilities) -> str:
    return "/".join(f"{each:.2f}" for each in (rope.worse, rope.same, rope.better))


def _plan_cells(found: Plan) -> tuple[str, ...]:
    within = found.spread.within
    no_trials = "none" if within is not None and found.detectable is not None else "·"
    return (
        f"{found.difference:.1f}",
        f"{found.spread.between:.1f}",
        "·" if within is None else f"{within:.1f}",
        percent(round(found.power_now, 2)) if found.detectable is not None else "·",
        "·" if found.detectable is None else f"{found.detectable:.1f}",
        "none" if found.units is None else str(found.units),
        no_trials if found.trials is None else str(found.trials),
    )


def _plan_data(found: Plan) -> dict[str, Any]:
    return {
        "difference": found.difference,
        "spread_between": found.spread.between,
        "spread_within": found.spread.within,
        "units": found.spread.n_units,
        "n_trials": found.spread.n_trials,
        "power_now": found.power_now,
        "detectable": found.detectable,
        "units_needed": found.units,
        "trials_needed": found.trials,
        "level": found.alpha,
        "power": found.power,
    }
