"""How near the estimate of a sweep's time, made before it is launched, comes to what its trials took.

Run: `python -m perf.cost [RESULTS …]`; default: the published records. Every kind of trial (method, data set, backbone,
updates) is estimated from half of its own trials, and, as if none of it had finished, from the other kinds of its method
and backbone; both are put beside what the trials took. Nothing is run.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.status import TrialStatus, read_status, seconds_of, typical_seconds
from perf.measure import ROOT

PUBLISHED = ROOT / "results" / "published"


def rows(trials: Sequence[TrialStatus]) -> Iterator[tuple[Any, ...]]:
    """Yield, for each kind: its name, trials, their mean seconds, and the two estimates over that mean."""
    kinds: dict[tuple[Any, ...], list[TrialStatus]] = defaultdict(list)
    for trial in trials:
        if "seconds" in trial.said:
            kinds[trial.kind].append(trial)
    for kind, alike in kinds.items():
        mean = statistics.mean(float(trial.said["seconds"]) for trial in alike)
        half, _ = seconds_of(kind, typical_seconds(alike[::2]))
        others = [trial for trial in trials if trial.kind != kind]
        rough, _ = seconds_of(kind, typical_seconds(others))
        yield (*kind, len(alike), f"{mean:.1f}", *(f"{e / mean:.2f}" if e is not None else "–" for e in (half, rough)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "results", nargs="*", type=Path, default=[PUBLISHED], help="results folders with finished trials"
    )
    given = parser.parse_args()
    trials = [trial for folder in given.results for trial in read_status(folder)]
    header = ("method", "data set", "backbone", "updates", "trials", "mean s", "from half", "from other kinds")
    print(tabulate(sorted(rows(trials)), headers=header, disable_numparse=True))


if __name__ == "__main__":
    main()
