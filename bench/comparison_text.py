"""Comparisons in words: headings, cells, marks and the footer that says what was tested. Words only; formats nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.comparison import Comparison, Family
from bench.default_test import ESTIMANDS, SEVERAL_DATASETS, TESTS
from bench.measures import DEFAULT_PROTOCOL, words
from bench.stats import ROPE
from bench.tables import Table

_PLAIN_MEASURE = "accuracy"
"""The measure that headings need not name."""
OVERALL = "Averages over data sets"
NOT_SIGNIFICANT = "n.s."


def scope_title(table: Table, n_protocols: int = 1) -> str:
    """Name what a table is of; the protocol is named where there are several, or where it is not the usual one."""
    what = OVERALL if table.is_average else table.dataset
    is_named = n_protocols > 1 or table.protocol != DEFAULT_PROTOCOL
    return f"{what}, {words(table.protocol)}" if is_named else what


def measure_title(table: Table) -> str:
    """Name a table's measure, led by a comma; empty for accuracy."""
    measure = table.measure
    lower = " (lower is better)" if measure.lower_is_better else ""
    return "" if measure.name == _PLAIN_MEASURE else f", {measure.words}{lower}"


def comparison_title(family: Family, n_protocols: int = 1) -> str:
    """Word the heading of a table of comparisons; the protocol is named where there are several."""
    against = " or ".join(dict.fromkeys(each.against for each in family.comparisons))
    what = f"{scope_title(family.table, n_protocols)}{measure_title(family.table)}"
    return f"{what}: mean difference from {against} in points, over {family.units}"


def comparison_header(family: Family) -> list[str]:
    """Give the column heads of a table of comparisons."""
    interval = f"{percent(1 - family.question.alpha)} interval"
    return ["", "difference", interval, "p (Holm)", "won/tied/lost", ""]


def comparison_cells(each: Comparison, alpha: float) -> list[str]:
    """Word one comparison: difference, interval, adjusted p, counts, verdict."""
    if each.test is None:
        return [each.label, *["·"] * 5]
    counts = "/".join(map(str, each.wins_ties_losses))
    mean = f"{each.test.difference:+.1f}"
    if each.p_adjusted is None:
        return [each.label, mean, "·", "·", counts, "·"]
    interval = interval_text(each.test.low, each.test.high)
    return [each.label, mean, interval, p_text(each.p_adjusted), counts, verdict(each.p_adjusted, alpha)]


def interval_text(low: float | None, high: float | None) -> str:
    """Word an interval in points."""
    return "·" if low is None or high is None else f"{low:+.1f} to {high:+.1f}"


def verdict(p_adjusted: float, alpha: float) -> str:
    """Mark an adjusted p: † below alpha, ‡ below a fifth of it, else n.s."""
    if p_adjusted < alpha:
        return "‡" if p_adjusted < alpha / 5 else "†"
    return NOT_SIGNIFICANT


def p_text(p: float) -> str:
    """Word a p-value or another probability."""
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"


def percent(share: float) -> str:
    """Word a share in percent."""
    return f"{100 * share:g} %"


def comparison_footer(families: Iterable[Family]) -> list[str]:
    """Say what was tested, in how large a family, and what the marks mean."""
    families = list(families)
    if not families:
        return []
    question, alpha = families[0].question, families[0].question.alpha
    several = any(family.table.is_average for family in families)
    sizes = "/".join(dict.fromkeys(str(family.n_tests) for family in families))
    tests = dict.fromkeys(each.test.test for family in families for each in family.comparisons if each.test)
    names = " or ".join(f"{TESTS[test]}{_where(test, families, tests)}" for test in tests if test is not None)
    estimand = ESTIMANDS[question.estimand]
    if not any(test is not None for test in tests):
        return [sentence for family in families for sentence in _exceptions(family)]
    within = " or ".join(dict.fromkeys(family.words for family in families))
    return [
        f"Comparison: {estimand if several else estimand.replace(SEVERAL_DATASETS, '')}, by {names or 'no test'}; trials "
        f"are averaged within domains{', domains within data sets' if several else ''}. p: Holm-adjusted within "
        f"{within} (family of {sizes}); intervals are of one comparison alone, so one may leave out 0 "
        f"where p is not significant. won/tied/lost: {_counted(families)} better, within ±{ROPE:g} points, and worse. "
        f"†: p < {alpha:g}, ‡: p < {alpha / 5:g}, {NOT_SIGNIFICANT}: not significant, ·: no test.",
        *_resolution(families),
        *(sentence for family in families for sentence in _exceptions(family)),
    ]


def _resolution(families: Iterable[Family]) -> list[str]:
    """Say how small a p can get without assuming a distribution."""
    tests = [each.test for family in families for each in family.comparisons if each.test and each.test.test]
    told = dict.fromkeys(f"{p_text(test.smallest_p)} with {test.units} {test.unit}s" for test in tests)
    return [f"Smallest p of exact sign-flip and rank tests: {', '.join(told)}."] if told else []


def _where(test: str | None, families: Sequence[Family], tests: Iterable[str | None]) -> str:
    """Say over which tables one of several tests was used."""
    if sum(each is not None for each in tests) < 2:
        return ""
    used = [family for family in families if any(each.test and each.test.test == test for each in family.comparisons)]
    return f" ({', '.join(dict.fromkeys(scope_title(family.table) for family in used))})"


def _counted(families: Sequence[Family]) -> str:
    """Name what wins are counted over: domains, data sets, or both in several tables."""
    return " or ".join(dict.fromkeys("data sets" if each.table.is_average else "domains" for each in families))


def _exceptions(family: Family) -> list[str]:
    """Say which comparisons were refused or rest on fewer domains than the table has, and why."""
    where = f" on {scope_title(family.table)}"
    where += "" if family.table.measure.name == _PLAIN_MEASURE else f", {family.table.measure.name}"
    reasons: dict[str, list[str]] = {}
    for each in family.comparisons:
        if each.refusal:
            reasons.setdefault(f"no test, {each.refusal}", []).append(each.label)
        elif each.n_lost:
            n_left = family.n_domains - each.n_lost
            reasons.setdefault(f"compared over {n_left} of {family.n_domains} domains", []).append(each.label)
    return [f"{', '.join(labels)}{where}: {reason}." for reason, labels in reasons.items()]
