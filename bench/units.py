"""Unit tables and pairing: what is compared with what. Pure; knows neither records nor tables.

A unit is what counts as one observation of a difference: a held-out domain, in a cluster, its data set; in base-to-new
and other protocols without domains a data set, which is its own cluster. A method's scores are one measurement for each
unit and trial seed. Two methods are compared on the units that both have, trial by trial, and only where the trials
are the same experiment but for the method: seeds, splits and class lists agree. Nothing is imputed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import sums

_SHOWN = 12


class Unit(NamedTuple):
    """A domain in its data set; `domain` is empty where the data set itself is the unit."""

    dataset: str
    domain: str = ""


class Pairing(NamedTuple):
    """What must agree, besides the trial seed, for two trials to be compared.

    Attributes:
        split: digest of what was trained and tested on; None where it was not recorded.
        classes: digest of class names and templates; None where it was not recorded.
    """

    split: object = None
    classes: object = None


@dataclass(frozen=True)
class Measurement:
    """One trial's number on a unit.

    Attributes:
        value: e.g. accuracy in percent.
        pairing: what the number was made of.
    """

    value: float
    pairing: Pairing


Scores = Mapping[Unit, Mapping[int, Measurement]]
"""One method: unit → trial seed → measurement."""


@dataclass(frozen=True)
class PairedUnits:
    """Paired differences, first minus second.

    Attributes:
        units: units that both methods have, sorted.
        differences: of each unit, shape (trials,), in the order of the trial seeds.
        seeds: trial seeds of each unit.
        n_lost: units that only one of the two has.
        refusal: why the methods must not be compared; empty where they may be.
    """

    units: tuple[Unit, ...]
    differences: tuple[NDArray[np.float64], ...]
    seeds: tuple[tuple[int, ...], ...]
    n_lost: int
    refusal: str

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean difference of each unit over its trials, (units,)."""
        return np.array([sums.mean(each.tolist()) for each in self.differences])

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data set of each unit."""
        return tuple(unit.dataset for unit in self.units)


@dataclass(frozen=True)
class UnitTable:
    """Means over trials of the units that every method has.

    Attributes:
        units: rows.
        methods: columns.
        means: shape (units, methods).
        n_lost: units that some method lacks.
    """

    units: tuple[Unit, ...]
    methods: tuple[str, ...]
    means: NDArray[np.float64]
    n_lost: int


def not_paired(mine: Mapping[int, Measurement], theirs: Mapping[int, Measurement], where: str) -> str:
    """Say why two methods' trials on one unit are not paired; empty where they are.

    Args:
        mine: trial seed → measurement.
        theirs: the same of the other method.
        where: name of the unit, for the message.
    """
    if mine.keys() != theirs.keys() or not mine:
        return f"not paired: trial seeds in {where} are {_listed(mine)} and {_listed(theirs)}"
    if all(each.pairing == theirs[seed].pairing for seed, each in mine.items()):
        return ""
    for seed in sorted(mine):
        for what, one, other in zip(("splits", "class lists"), mine[seed].pairing, theirs[seed].pairing, strict=True):
            if one != other:
                missing = " (one was not recorded)" if one is None or other is None else ""
                return f"not paired: {what} differ in {where}, trial {seed}{missing}"
    return ""


def pair(mine: Scores, theirs: Scores) -> PairedUnits:
    """Pair two methods' scores; a unit that one of them lacks is lost, one that is not paired refuses the comparison.

    Raises:
        ValueError: a value is not finite.
    """
    both = sorted({unit for unit in mine if mine[unit]} & {unit for unit in theirs if theirs[unit]})
    n_lost = len({*mine, *theirs}) - len(both)
    if not both:
        return PairedUnits((), (), (), n_lost, "no unit has both")
    for unit in both:
        reason = not_paired(mine[unit], theirs[unit], " ".join(filter(None, unit)))
        if reason:
            return PairedUnits((), (), (), n_lost, reason)
    seeds = tuple(tuple(sorted(mine[unit])) for unit in both)
    differences = tuple(
        np.array([mine[unit][seed].value - theirs[unit][seed].value for seed in of_unit])
        for unit, of_unit in zip(both, seeds, strict=True)
    )
    if not all(np.isfinite(each).all() for each in differences):
        raise ValueError("a value is missing or not finite; leave its trial out")
    return PairedUnits(tuple(both), differences, seeds, n_lost, "")


def unit_table(scores: Mapping[str, Scores]) -> UnitTable:
    """Average each method's trials within units, keeping the units that all methods have.

    Raises:
        ValueError: a value is not finite.
    """
    methods = tuple(scores)
    every = {unit for of_method in scores.values() for unit in of_method}
    units = sorted(unit for unit in every if all(scores[method].get(unit) for method in methods))
    means = np.array([[_mean(scores[method][unit]) for method in methods] for unit in units])
    if not np.isfinite(means).all():
        raise ValueError("a value is missing or not finite; leave its trial out")
    return UnitTable(tuple(units), methods, means.reshape(len(units), len(methods)), len(every) - len(units))


def dataset_table(table: UnitTable) -> UnitTable:
    """Average the domains of each data set: the unit table whose units are the data sets."""
    datasets = list(dict.fromkeys(unit.dataset for unit in table.units))
    means = [table.means[[unit.dataset == name for unit in table.units]].mean(axis=0) for name in datasets]
    units = tuple(Unit(name) for name in datasets)
    return UnitTable(units, table.methods, np.array(means).reshape(len(units), len(table.methods)), table.n_lost)


def trial_means_by_dataset(paired: PairedUnits) -> tuple[NDArray[np.float64], ...]:
    """Give for each data set the differences by trial, averaged over its domains; of the seeds that all of them have."""
    names = dict.fromkeys(paired.datasets)
    return tuple(np.array(list(_by_seed(paired, name).values())) for name in names)


def trial_averages(paired: PairedUnits) -> NDArray[np.float64]:
    """Give the differences by trial, averaged over domains, then data sets; of the seeds that all units have."""
    found = [_by_seed(paired, name) for name in dict.fromkeys(paired.datasets)]
    shared = sorted(set.intersection(*map(set, found)))
    return np.array([np.mean([of_dataset[seed] for of_dataset in found]) for seed in shared])


def _by_seed(paired: PairedUnits, dataset: str) -> dict[int, float]:
    """Average over the domains of a data set, for each seed that all of them have."""
    of_units = [
        dict(zip(seeds, differences, strict=True))
        for unit, seeds, differences in zip(paired.units, paired.seeds, paired.differences, strict=True)
        if unit.dataset == dataset
    ]
    shared = sorted(set.intersection(*map(set, of_units)))
    return {seed: float(np.mean([each[seed] for each in of_units])) for seed in shared}


def _mean(measurements: Mapping[int, Measurement]) -> float:
    return sums.mean([measurements[seed].value for seed in sorted(measurements)])


def _listed(measurements: Mapping[int, Measurement]) -> str:
    seeds: Sequence[int] = sorted(measurements)
    more = f" and {len(seeds) - _SHOWN} more" if len(seeds) > _SHOWN else ""
    return ", ".join(map(str, seeds[:_SHOWN])) + more or "none"
