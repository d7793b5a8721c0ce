"""Measuring two ways of doing one thing side by side: what every benchmark of this folder is made of.

A benchmark is a module with `rows(options)`, which yields a `Row` as soon as it is measured; `python -m perf` runs all
of them. Both sides take turns (A B A B …), so that load from elsewhere hits them alike, and what counts is the median
of the ratios of the pairs, not the ratio of two medians.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
HEADER = ("what", "against", "ratio", "range", "ours", "theirs", "share of limit", "peak MB", "at least", "stretch", "")


@dataclass(frozen=True)
class Options:
    """What `python -m perf` was asked for.

    Attributes:
        rounds: pairs to run of each benchmark.
        domainbed: a checkout of DomainBed, or None.
        clipood: a checkout of CLIPood, or None.
        coop: a checkout of CoOp, or None.
        data_dir: a folder with PACS, or None: images are made.
        quick: smaller sizes, to try a benchmark out; its numbers count for nothing.
    """

    rounds: int = 5
    domainbed: Path | None = None
    clipood: Path | None = None
    coop: Path | None = None
    data_dir: Path | None = None
    quick: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured comparison.

    Attributes:
        what: what was measured, as in the table of targets.
        against: what it is compared with: a peer's own code, or our loop that does the same the published way.
        ratios: theirs / ours in seconds, one entry a pair; of a share (`is_share`), ours / theirs.
        ours: seconds of our side, one entry a pair.
        theirs: seconds of the other side.
        at_least: the target; None where there is none.
        stretch: what would be better still.
        is_share: the ratio is a share that should be small, e.g. overhead by step.
        limit: seconds that no code could beat on this machine (forward and backward alone, parsing alone, copying
            alone), measured in the same run.
        peak_mb: peak resident memory of our side in MB; None where the sides share a process.
        note: what a reader must know: sizes, why a target was missed.
    """

    what: str
    against: str
    ratios: tuple[float, ...]
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    at_least: float | None = None
    stretch: float | None = None
    is_share: bool = False
    limit: float | None = None
    peak_mb: float | None = None
    note: str = ""
    verdict: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Say whether the targets were reached."""
        object.__setattr__(self, "verdict", self._verdict())

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(self.ratios)

    def _verdict(self) -> str:
        if self.at_least is None:
            return ""
        reached = [self._is_reached(target) for target in (self.at_least, self.stretch) if target is not None]
        return "missed" if not reached[0] else "stretch" if all(reached) and len(reached) > 1 else "reached"

    def _is_reached(self, target: float) -> bool:
        return self.ratio <= target if self.is_share else self.ratio >= target

    def cells(self) -> tuple[str, ...]:
        """Word the row for the table."""
        is_share = self.is_share

        def ratio(x: float) -> str:
            return f"{100 * x:.1f} %" if is_share else f"{x:.2f}×"

        def target(x: float) -> str:
            return f"≤ {100 * x:g} %" if is_share else f"{x:g}×"

        return (
            self.what,
            self.against,
            ratio(self.ratio),
            f"{ratio(min(self.ratios))} – {ratio(max(self.ratios))}",
            seconds_text(statistics.median(self.ours)),
            seconds_text(statistics.median(self.theirs)),
            "" if self.limit is None else f"{100 * self.limit / statistics.median(self.ours):.0f} %",
            "" if self.peak_mb is None else f"{self.peak_mb:.0f}",
            "" if self.at_least is None else target(self.at_least),
            "" if self.stretch is None else target(self.stretch),
            self.verdict,
        )


def paired(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int, warm_up: int = 1
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Time two functions in turn; give the seconds of each, one entry a round.

    Args:
        ours: our side; what it returns is dropped.
        theirs: the other side.
        rounds: pairs that count.
        warm_up: pairs before those.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(warm_up + rounds):
        for side, call in enumerate((ours, theirs)):
            gc.collect()
            began = time.perf_counter()
            call()
            seconds = time.perf_counter() - began
            if turn >= warm_up:
                taken[side].append(seconds)
    return tuple(taken[0]), tuple(taken[1])


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Give theirs / ours of each pair."""
    return tuple(b / a for a, b in zip(ours, theirs, strict=True))


def process_seconds(arguments: Sequence[str], cwd: Path = ROOT, **environment: str) -> float:
    """Run a command in a process of its own to its end; give the seconds.

    Raises:
        subprocess.CalledProcessError: it failed; the message has the end of what it printed.
    """
    import os

    began = time.perf_counter()
    done = subprocess.run(
        list(arguments), cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        done.check_returncode()
    return seconds


def peak_mb(arguments: Sequence[str], cwd: Path = ROOT) -> float:
    """Run a command; give the peak resident memory in MB of the largest process that it and its children were."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


def own_peak_mb() -> float:
    """Give this process's peak resident memory so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seconds_text(seconds: float) -> str:
    """Word a time with three digits."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} µs"


def table(rows: Iterable[Row]) -> str:
    """Set rows as a Markdown table."""
    return str(tabulate([row.cells() for row in rows], headers=HEADER, tablefmt="pipe", disable_numparse=True))


def parse(description: str | None, arguments: Sequence[str] | None = None) -> Options:
    """Read the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    given = parser.parse_args(arguments)
    return options_of(given)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the shared options to a parser."""
    add = parser.add_argument
    add("--rounds", type=int, default=Options.rounds, help="pairs to run of each benchmark; default: %(default)s")
    add("--domainbed", type=Path, metavar="DIR", help="a checkout of DomainBed to measure beside ours")
    add("--clipood", type=Path, metavar="DIR", help="a checkout of CLIPood")
    add("--coop", type=Path, metavar="DIR", help="a checkout of CoOp")
    add("--data-dir", type=Path, metavar="DIR", help="a folder with PACS; default: images are made")
    add("--quick", action="store_true", help="smaller sizes, to try a benchmark out")


def options_of(given: argparse.Namespace) -> Options:
    """Take the shared options out of what was parsed."""
    names = Options.__dataclass_fields__
    return Options(**{name: value for name, value in vars(given).items() if name in names})


def run(rows: Callable[[Options], Iterable[Row]], description: str | None) -> None:
    """Be the `main` of one benchmark: measure and print each row as it comes, then the table."""
    found = []
    for row in rows(parse(description)):
        found.append(row)
        print(f"{row.what}: {row.ratio:.3g} against {row.against} ({row.verdict or 'no target'})", file=sys.stderr)
    print(table(found))
    for row in (row for row in found if row.note):
        print(f"\n{row.what}: {row.note}")
