"""What trials ask of a Slurm cluster: options of `sweep launch`, over a `[slurm]` table of a settings file.

    [slurm]
    partition = "gpu"
    time = "4h"
    setup = ["module load cuda"]

    [[slurm.when]]            # trials that need something else
    algorithm = "ZeroShot"
    time = "20min"

What a trial asks for changes none of its numbers and is no part of its identity.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import SpecError
from bench.spec import TrialSpec

WARNING_SECONDS = 120
"""How long before the end of a job its trials are told to write checkpoints, where the time limit leaves room."""

_UNITS = {"s": 1 / 60, "sec": 1 / 60, "m": 1, "min": 1, "h": 60, "d": 24 * 60}
_WHEN = ("algorithm", "dataset", "backbone")
_OURS = {
    "time": "--time",
    "cpus-per-task": "--cpus-per-trial",
    "requeue": "the key requeue",
    "no-requeue": "--no-requeue",
    "array": "--trials-per-task and --parallel",
    **dict.fromkeys(("dependency", "signal", "job-name", "chdir", "wrap"), ""),
    **dict.fromkeys(("output", "error", "open-mode", "parsable", "quiet", "wait", "test-only"), ""),
}
"""Options of sbatch that the launcher gives itself or cannot do with, and what to use instead, if anything."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one array task asks for; None leaves it to the cluster's default.

    Attributes:
        partition, account, qos, constraint, exclude: as sbatch's options.
        time: time limit in minutes.
        memory: gigabytes.
        cpus: CPUs, and threads of torch unless `--threads` says otherwise.
        gpus: GPUs.
        parallel: tasks of all arrays that may run at a time.
        requeue: whether Slurm may start a task again after preemption or the loss of a node.
        setup: shell lines before a task's command.
        sbatch: further options, "key=value" or "key".
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    time: float | None = None
    memory: float | None = None
    cpus: int = 1
    gpus: int = 0
    parallel: int | None = None
    requeue: bool = True
    setup: tuple[str, ...] = ()
    sbatch: tuple[str, ...] = ()

    @property
    def warning_seconds(self) -> int:
        """Seconds before the time limit at which trials are told to stop. Slurm may be half a minute late with it."""
        if self.time is None:
            return WARNING_SECONDS
        seconds = self.time * 60
        return int(min(WARNING_SECONDS, max(60, seconds / 4), seconds * 3 / 4))

    def parameters(self) -> dict[str, Any]:
        """Give it as submitit calls it."""
        extra: dict[str, Any] = {"requeue": True} if self.requeue else {"no-requeue": True}
        for option in self.sbatch:
            name, sign, value = option.removeprefix("--").partition("=")
            extra[name] = value if sign else True
        return {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "exclude": self.exclude,
            "time": None if self.time is None else max(1, -int(-self.time // 1)),
            "mem": None if self.memory is None else f"{max(1, int(self.memory * 1024))}M",
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "signal_delay_s": self.warning_seconds,
            "setup": list(self.setup),
            "additional_parameters": extra,
            # Slurm 22.05 to 23.02 does not hand --cpus-per-task on to srun
            "srun_args": [f"--cpus-per-task={self.cpus}"],
            "stderr_to_stdout": True,
            "wckey": None,
        }


_KEYS = tuple(field.name for field in dataclasses.fields(Resources))
_VALUES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("partition", "account", "qos", "constraint", "exclude"), (str,)),
    **dict.fromkeys(("time", "memory"), (str, int, float)),
    **dict.fromkeys(("cpus", "gpus", "parallel"), (int,)),
    "requeue": (bool,),
    "setup": (list, str),
    "sbatch": (list, str),
}
SCHEMA: dict[str, Any] = {**_VALUES, "when": [{**dict.fromkeys(_WHEN, (str, list)), **_VALUES}]}
"""Keys of the `[slurm]` table and their types."""


def resources_of(spec: TrialSpec, table: Mapping[str, Any], options: Mapping[str, Any], *, gpus: int) -> Resources:
    """Give what a trial asks for: the command's options win over the last rule that fits, that over the table.

    Args:
        spec: the trial.
        table: the `[slurm]` table.
        options: what the command line gave.
        gpus: GPUs a trial, where nobody says.

    Raises:
        SpecError: a rule or value is not valid.
    """
    chosen: dict[str, Any] = {"gpus": gpus, **{key: value for key, value in table.items() if key != "when"}}
    for rule in table.get("when", ()):
        if _fits(rule, spec):
            chosen.update((key, value) for key, value in rule.items() if key not in _WHEN)
    chosen.update(options)
    return _checked(chosen)


def decisive(spec: TrialSpec) -> tuple[str, ...]:
    """Give what rules can tell trials apart by: those of which it is equal ask for the same."""
    return tuple(getattr(spec, key) for key in _WHEN)


def _fits(rule: Mapping[str, Any], spec: TrialSpec) -> bool:
    unknown = [key for key in rule if key not in (*_WHEN, *_KEYS)]
    if unknown or not any(key in rule for key in _WHEN):
        raise SpecError(
            f"[[slurm.when]] {dict(rule)!r}: it needs one of {', '.join(_WHEN)}, and any of {', '.join(_KEYS)}"
        )
    wanted = {key: [rule[key]] if isinstance(rule[key], str) else rule[key] for key in _WHEN if key in rule}
    return all(getattr(spec, key) in values for key, values in wanted.items())


def _checked(chosen: Mapping[str, Any]) -> Resources:
    values = dict(chosen)
    if values.get("time") is not None:
        values["time"] = minutes(values["time"])
    if values.get("memory") is not None:
        values["memory"] = gigabytes(values["memory"])
    for key in ("setup", "sbatch"):
        given = values.get(key) or ()
        values[key] = (given,) if isinstance(given, str) else tuple(str(each) for each in given)
    for option in values["sbatch"]:
        name = option.removeprefix("--").partition("=")[0]
        if name in _OURS:
            instead = f"use {_OURS[name]}" if _OURS[name] else "leave it out"
            raise SpecError(f"slurm: sbatch={option!r} would undo what the launcher asks Slurm for: {instead}")
    for key, least in (("cpus", 1), ("gpus", 0), ("parallel", 1)):
        if values.get(key) is not None and values[key] < least:
            raise SpecError(f"slurm: {key}={values[key]!r} (allowed: a whole number from {least})")
    return Resources(**values)


def minutes(value: str | float) -> float:
    """Read a time limit: minutes, Slurm's own forms (H:MM:SS, D-HH:MM:SS, D-HH), or 90min, 4h, 2d.

    Raises:
        SpecError: it is none of these, or not positive.
    """
    text = str(value).strip().lower()
    found = None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        found = float(text)
    elif units := re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]+)", text):
        found = float(units[1]) * _UNITS[units[2]] if units[2] in _UNITS else None
    elif clock := re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text):
        days, *parts = (int(each or 0) for each in clock.groups())
        with_hours = clock[1] is not None or clock[4] is not None  # M:S, but D-H:M and H:M:S
        hours, mins, seconds = parts if with_hours else (0, parts[0], parts[1])
        found = days * 24 * 60 + hours * 60 + mins + seconds / 60
    if not found:
        raise SpecError(f"the time limit {value!r} is none: give minutes, H:MM:SS, D-HH:MM:SS, or 90min, 4h, 2d")
    return found


def gigabytes(value: str | float) -> float:
    """Read an amount of memory: gigabytes, or with a unit, 500M, 16G, 1T.

    Raises:
        SpecError: it is none, or not positive.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([mgt]?)(?:i?b)?", str(value).strip().lower())
    amount = float(found[1]) * {"m": 1 / 1024, "": 1, "g": 1, "t": 1024}[found[2]] if found else 0
    if not amount:
        raise SpecError(f"the memory {value!r} is none: give gigabytes, or 500M, 16G, 1T")
    return amount
