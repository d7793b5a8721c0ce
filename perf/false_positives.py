"""How often tests find a difference between methods that do not differ, and how often intervals miss the truth.

Run: `python -m perf.false_positives [--simulations N] [--seed S]`. A paired difference is simulated as

    (method × data set) + (method × domain) + trial,

normal, of mean 0, with the spread of a trial as the unit, 3 trials a domain. 5 % is allowed. docs/statistics.md shows
what this prints; tests/test_stats_levels.py runs a short form of it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from tabulate import tabulate

from bench.default_test import default_p_values
from bench.example_tests import two_way_bootstrap, two_way_test
from bench.power import t_test_power
from bench.stats import cluster_robust_p_values, holm, t_p_values

ALPHA = 0.05
N_TRIALS = 3
SPREADS = (0.0, 0.5, 1.0, 2.0)
ONE = ("PACS",) * 4
FIVE = ("VLCS",) * 4 + ("PACS",) * 4 + ("OfficeHome",) * 4 + ("TerraIncognita",) * 4 + ("DomainNet",) * 6
"""Data set of each of the 22 domains of DomainBed's usual five."""
ELEVEN = tuple(f"dataset {number}" for number in range(11))
"""Base-to-new: CoOp's eleven data sets, each one unit."""

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
Table = tuple[str, list[str], list[list[object]]]


def normal(stream: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return stream.standard_normal(shape)


def skewed(stream: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return stream.standard_exponential(shape) - 1.0


def heavy(stream: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(stream.standard_t(3, shape) / np.sqrt(3.0))


def simulate(
    stream: np.random.Generator,
    n: int,
    datasets: Sequence[str],
    by_domain: float,
    by_dataset: float = 0.0,
    draw: Draw = normal,
) -> Array:
    """Draw paired differences without a true one, shape (n, units, trials); spreads in units of a trial's."""
    names = list(dict.fromkeys(datasets))
    of_dataset = draw(stream, (n, len(names)))[:, [names.index(name) for name in datasets]]
    of_domain = draw(stream, (n, len(datasets)))
    trials = normal(stream, (n, len(datasets), N_TRIALS))
    return (by_dataset * of_dataset + by_domain * of_domain)[..., None] + trials


def pooled(cells: Array) -> Array:
    """All cells as if they did not depend on each other."""
    return cells.reshape(len(cells), -1)


def wilcoxon_p_values(differences: Array) -> Array:
    return np.asarray(scipy_stats.wilcoxon(differences, axis=-1, method="asymptotic").pvalue)


def rate(p_values: Array, alpha: float = ALPHA) -> float:
    """Share of p-values below alpha."""
    return float(np.mean(p_values < alpha))


def levels_of_one_dataset(stream: np.random.Generator, n: int) -> Table:
    rows: list[list[object]] = []
    for spread in SPREADS:
        cells = simulate(stream, n, ONE, spread)
        tests = [t_p_values(pooled(cells)), wilcoxon_p_values(pooled(cells)), t_p_values(cells.mean(axis=1))]
        rows.append([spread, *map(rate, tests), rate(default_p_values(cells, ONE))])
    headers = ["method × domain", "t, 12 cells", "Wilcoxon, 12 cells", "t, 3 trial means", "shipped: t, 4 domains"]
    return "4 domains × 3 trials, no difference: share of p < .05", headers, rows


def levels_of_five_datasets(stream: np.random.Generator, n: int) -> Table:
    rows: list[list[object]] = []
    for by_dataset, by_domain in [(0.0, s) for s in SPREADS] + [(0.5, 1.0)] + [(s, s) for s in SPREADS[1:]]:
        cells = simulate(stream, n, FIVE, by_domain, by_dataset)
        domains = cells.mean(axis=2)
        tests = [t_p_values(pooled(cells)), t_p_values(domains), wilcoxon_p_values(domains)]
        tests += [cluster_robust_p_values(domains, FIVE), default_p_values(cells, FIVE)]
        rows.append([by_dataset, by_domain, *map(rate, tests)])
    headers = ["method × data set", "method × domain", "t, 66 cells", "t, 22 domains", "Wilcoxon, 22 domains"]
    headers += ["cluster-robust t, df 4", "shipped: t, 5 data sets"]
    return "22 domains in 5 data sets × 3 trials, no difference: share of p < .05", headers, rows


def levels_of_eleven_datasets(stream: np.random.Generator, n: int) -> Table:
    rows: list[list[object]] = []
    for spread in SPREADS:
        cells = simulate(stream, n, ELEVEN, spread)
        tests = [t_p_values(pooled(cells)), wilcoxon_p_values(cells.mean(axis=2)), default_p_values(cells, ELEVEN)]
        rows.append([spread, *map(rate, tests)])
    headers = ["method × data set", "t, 33 cells", "Wilcoxon, 11 data sets", "shipped: sign-flip, 11 data sets"]
    return "11 data sets × 3 trials (base to new), no difference: share of p < .05", headers, rows


def levels_of_families(stream: np.random.Generator, n: int, n_methods: int = 5) -> Table:
    """Several methods against one reference: the differences share the reference's part."""
    rows: list[list[object]] = []
    for name, datasets in (("4 domains", ONE), ("22 domains in 5 data sets", FIVE), ("11 data sets", ELEVEN)):
        parts = [simulate(stream, n, datasets, 1.0, 1.0 if datasets == FIVE else 0.0) for _ in range(n_methods + 1)]
        p = np.stack([default_p_values(part - parts[-1], datasets) for part in parts[:-1]], axis=1)
        naive = np.stack([t_p_values(pooled(part - parts[-1])) for part in parts[:-1]], axis=1)
        marked = np.mean([min(each for each in holm(list(of_table)) if each is not None) < ALPHA for of_table in p])
        rows.append([name, rate(naive.min(axis=1)), rate(p.min(axis=1)), float(marked)])
    headers = ["units", "t on cells, uncorrected", "shipped test, uncorrected", "shipped: Holm"]
    return f"{n_methods} methods against one reference, none differs: share of tables with a mark", headers, rows


def levels_of_these(stream: np.random.Generator, n: int) -> Table:
    """Fixed domains whose true differences sum to 0: the statement is about these domains and new trainings."""
    rows: list[list[object]] = []
    for name, noise, shared in (
        ("equal", np.ones(4), 0.0),
        ("one domain's is 4 times the others'", np.array([1.0, 1.0, 1.0, 4.0]), 0.0),
        ("equal, and half of its variance is common to all domains", np.ones(4), 1.0),
    ):
        effects = normal(stream, (n, 4, 1))
        trials = noise[:, None] * normal(stream, (n, 4, N_TRIALS)) + shared * normal(stream, (n, 1, N_TRIALS))
        cells = effects - effects.mean(axis=1, keepdims=True) + trials
        tests = [seed_bootstrap_misses(stream, cells[: n // 10]), pooled_within_p_values(cells)]
        tests += [welch_p_values(cells), t_p_values(cells.mean(axis=1))]
        rows.append([name, *map(rate, tests)])
    headers = ["spread of trials", "bootstrap of seeds", "pooled t, df 8", "Welch", "shipped: t, 3 trials"]
    return "These 4 domains alone (3 trials), no difference on their mean: share of p < .05", headers, rows


def pooled_within_p_values(cells: Array) -> Array:
    n_units, n_trials = cells.shape[-2:]
    error = np.sqrt(cells.var(axis=-1, ddof=1).mean(axis=-1) / (n_units * n_trials))
    return np.asarray(2 * scipy_stats.t.sf(np.abs(cells.mean(axis=(-2, -1))) / error, n_units * (n_trials - 1)))


def welch_p_values(cells: Array) -> Array:
    """Trials of different domains taken for independent, with variances of their own; Satterthwaite's df."""
    n_units, n_trials = cells.shape[-2:]
    parts = cells.var(axis=-1, ddof=1) / (n_units**2 * n_trials)
    total = parts.sum(axis=-1)
    df = total**2 * (n_trials - 1) / (parts**2).sum(axis=-1)
    return np.asarray(2 * scipy_stats.t.sf(np.abs(cells.mean(axis=(-2, -1))) / np.sqrt(total), df))


def seed_bootstrap_misses(stream: np.random.Generator, cells: Array, n_resamples: int = 500) -> Array:
    """Resample trials within domains; 0 where the 95 % percentile interval misses 0, else 1."""
    n_trials = cells.shape[-1]
    draws = stream.multinomial(n_trials, np.full(n_trials, 1 / n_trials), size=(n_resamples, *cells.shape[:-1]))
    means = (draws * cells).sum(axis=-1).mean(axis=-1) / n_trials
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    return np.where((low > 0) | (high < 0), 0.0, 1.0)


def levels_off_the_normal(stream: np.random.Generator, n: int) -> Table:
    """What the shipped defaults lean on: spreads of twice a trial's, from distributions that are not normal."""
    rows: list[list[object]] = []
    for name, draw in (("normal", normal), ("heavy tails (t, df 3)", heavy), ("skewed (exponential)", skewed)):
        found = [
            rate(default_p_values(simulate(stream, n, datasets, 2.0, by_dataset, draw), datasets))
            for datasets, by_dataset in ((ONE, 0.0), (FIVE, 2.0), (ELEVEN, 0.0))
        ]
        rows.append([name, *found])
    headers = ["spread of methods", "t, 4 domains", "t, 5 data sets", "sign-flip, 11 data sets"]
    return "Shipped tests where differences are not normal (spread 2), no difference: share of p < .05", headers, rows


def coverage_of_examples(stream: np.random.Generator, n: int, n_examples: int = 400) -> Table:
    """One domain, 3 trials, each on its own 80 % of the images; the truth is the mean over new trials and new images."""
    rows: list[list[object]] = []
    for name, of_trial, of_example in (("trials agree", 0.0, 0.6), ("both", 0.25, 0.6), ("trials scatter", 0.8, 0.3)):
        hits = np.zeros(3)
        for _ in range(n):
            easy = 1.0 + normal(stream, (n_examples,))
            latent = (
                easy + of_trial * normal(stream, (2, N_TRIALS, 1)) + of_example * normal(stream, (2, 1, n_examples))
            )
            right = latent + normal(stream, (2, N_TRIALS, n_examples)) > 0
            differences = right[0].astype(float) - right[1].astype(float)
            for row in differences:
                row[stream.permutation(n_examples)[: n_examples // 5]] = np.nan
            two_way, resampled = two_way_test(differences), two_way_bootstrap(differences, stream, n_resamples=1000)
            assert two_way.low is not None and two_way.high is not None
            flat = 196 * np.nanstd(differences) / np.sqrt(np.isfinite(differences).sum())
            held = [(-flat <= two_way.difference <= flat), (resampled.low <= 0 <= resampled.high)]
            hits += [*held, two_way.low <= 0 <= two_way.high]
        rows.append([name, *(hits / n)])
    headers = ["images of one domain", "all answers pooled", "two-way bootstrap", "shipped: two-way test"]
    return "Stored predictions, 3 trials: share of 95 % intervals that hold the truth", headers, rows


def power_of_defaults() -> Table:
    """True difference of one trial's spread, with as large a spread between units."""
    sd = float(np.sqrt(1 + 1 / N_TRIALS))
    rows: list[list[object]] = []
    for n_units in (4, 5, 6, 11, 22):
        more = float(np.sqrt(1 + 1 / 10))
        rows.append([n_units, t_test_power(1.0, sd, n_units), t_test_power(1.0, more, n_units)])
    return "Power for a difference as large as both spreads (t over units)", ["units", "3 trials", "10 trials"], rows


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=20_000, help="tables drawn for each number")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    n, began = options.simulations, time.perf_counter()
    streams = map(np.random.default_rng, np.random.SeedSequence(options.seed).spawn(8))
    tables = [
        levels_of_one_dataset(next(streams), n),
        levels_of_five_datasets(next(streams), n),
        levels_of_eleven_datasets(next(streams), n),
        levels_of_families(next(streams), n),
        levels_of_these(next(streams), n),
        levels_off_the_normal(next(streams), n),
        coverage_of_examples(next(streams), max(1, n // 20)),
        power_of_defaults(),
    ]
    for title, headers, rows in tables:
        print(f"\n{title}\n")
        print(tabulate(rows, headers=headers, tablefmt="github", floatfmt=".3f"))
    print(f"\n{n} tables a number, seed {options.seed}, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
