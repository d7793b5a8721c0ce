"""Hyper-parameters: declared beside the method that has them, drawn each from its own named stream.

The mechanism is DomainBed's (`hparams_registry.py`): hparams seed 0 gives the defaults; any other seed draws every
value from `RandomState(seed_hash(seed_hash(hparams_seed, trial_seed), name))`. So a value depends only on the seeds and
its own name, and a new hparam never disturbs the draws of the others.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.errors import SpecError
from bench.seeds import legacy_stream, seed_hash

Draw = Callable[[np.random.RandomState], Any]


@dataclass(frozen=True)
class Hparam:
    """One hyper-parameter.

    Attributes:
        default: its value at hparams seed 0.
        help: one line for `sweep list`; says the unit and the source of the default.
        draw: gives a random value from a stream; None keeps the default in random search.
        low, high: inclusive range of a number.
        choices: the allowed values of a switch.
        overrides: other defaults, by name of a data set or backbone (the backbone's wins).
        added_later: trials from before it must keep their ids, so at its default it is left out of the resolved values.
    """

    default: Any
    help: str
    draw: Draw | None = None
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    added_later: bool = False

    def __post_init__(self) -> None:
        """Check the declaration itself, so that a slip shows at import and not at step 5000."""
        if not self.help:
            raise TypeError("an Hparam needs a help text")
        for value in (self.default, *self.overrides.values()):
            problem = self.problem("default", value)
            if problem:
                raise TypeError(problem)
        if self.added_later and (self.overrides or self.draw):
            raise TypeError("an Hparam that was added later has one default, and random search leaves it alone")

    def default_for(self, dataset: str, backbone: str) -> Any:
        """Give the default for a data set and a backbone."""
        return self.overrides.get(backbone, self.overrides.get(dataset, self.default))

    def problem(self, name: str, value: Any) -> str | None:
        """Say what is wrong with `value`, or None."""
        if not _same_kind(value, self.default):
            return f"{name}={value!r} must be of type {type(self.default).__name__}"
        if self.choices is not None and value not in self.choices:
            return f"{name}={value!r} must be one of {', '.join(map(repr, self.choices))}"
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            return f"{name}={value!r} is out of its range {self.range()}"
        return None

    def range(self) -> str:
        """Describe the allowed values in a few characters."""
        if self.choices is not None:
            return " | ".join(str(choice) for choice in self.choices)
        low = "" if self.low is None else f"{self.low:g}"
        high = "" if self.high is None else f"{self.high:g}"
        return f"{low}..{high}" if low or high else type(self.default).__name__


def log_uniform(low: float, high: float) -> Draw:
    """Draw 10**U(low, high)."""
    return lambda stream: float(10 ** stream.uniform(low, high))


def uniform(low: float, high: float) -> Draw:
    """Draw U(low, high)."""
    return lambda stream: float(stream.uniform(low, high))


def power_of_two(low: float, high: float) -> Draw:
    """Draw int(2**U(low, high))."""
    return lambda stream: int(2 ** stream.uniform(low, high))


def choice(*values: Any) -> Draw:
    """Draw one of `values`, as `RandomState.choice` does."""
    return lambda stream: values[int(stream.choice(len(values)))]


def resolve(
    declared: Mapping[str, Hparam],
    *,
    dataset: str,
    backbone: str,
    hparams_seed: int,
    trial_seed: int,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Give the value of every declared hparam; `given` ones win over defaults and draws.

    Those that were added later are there only where they are not at their defaults.

    Raises:
        SpecError: a given name is unknown (with a suggestion) or a value is out of its range; all problems at once.
    """
    given = given or {}
    values: dict[str, Any] = {}
    for name, hparam in declared.items():
        if name in given:
            values[name] = _coerced(given[name], hparam.default)
        elif hparams_seed and hparam.draw:
            values[name] = hparam.draw(legacy_stream(seed_hash(hparams_seed, trial_seed), name))
        else:
            values[name] = _coerced(hparam.default_for(dataset, backbone), hparam.default)
    problems = [_unknown(name, declared) for name in given if name not in declared]
    problems += [problem for name, value in values.items() if (problem := declared[name].problem(name, value))]
    if problems:
        raise SpecError("these hparams are not valid: " + "; ".join(problems))
    return {
        name: value
        for name, value in values.items()
        if not (declared[name].added_later and value == declared[name].default)
    }


def _unknown(name: str, declared: Mapping[str, Hparam]) -> str:
    near = difflib.get_close_matches(name, declared, n=1)
    return f"{name!r} is unknown" + (f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(declared)})")


def _same_kind(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, type(default))


def _coerced(value: Any, default: Any) -> Any:
    """Let JSON's `1` stand for the float 1.0, so that both give the same trial."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
