"""Run all benchmarks that have a target and write `perf/RESULTS.md`: `python -m perf [--only NAME …]`.

With `--only` the page keeps what it says of the others; each section has its own date and commit.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from perf.measure import Row, add_options, options_of, table

BENCHMARKS = (
    "step",
    "evaluation",
    "batches",
    "trial",
    "coop",
    "wise_ft",
    "features",
    "sharing",
    "collect",
    "launch",
    "slurm_overhead",
)
"""Modules of this folder with `rows(options)`, in the order of the page."""
RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "scipy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page; a benchmark that fails is named there and does not stop the others."""
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    add_options(parser)
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, metavar="NAME", help=f"of {', '.join(BENCHMARKS)}"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="page to write; default: %(default)s")
    given = parser.parse_args(arguments)
    sections, failed = _sections(given.output), []
    for name in given.only:
        module = importlib.import_module(f"perf.{name}")
        try:
            rows = list(_announced(name, module.rows(options_of(given))))
        except Exception as error:  # a peer's checkout may not run here; the rest counts all the same
            failed.append(f"`{name}` failed: {type(error).__name__}: {error}")
            print(failed[-1], file=sys.stderr)
            continue
        sections[name] = _section(name, module.__doc__ or "", rows, given.rounds)
        missing = ", ".join(f"`{each}`" for each in BENCHMARKS if each not in sections)
        page = [_head(), *([f"Not measured so far: {missing}."] if missing else [])]
        page += [sections[each] for each in BENCHMARKS if each in sections]
        given.output.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    print(f"written: {given.output}")
    return 1 if failed else 0


def _announced(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    print(f"{name} …", file=sys.stderr)
    for row in rows:
        print(f"  {row.what}: {' | '.join(row.cells()[2:4])} {row.verdict}", file=sys.stderr)
        yield row


def _sections(page: Path) -> dict[str, str]:
    """Read the sections of an earlier page, by benchmark."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    parts = (part.rstrip() for part in text.split("\n## ")[1:])
    return {part.splitlines()[0]: f"## {part}" for part in parts}


def _section(name: str, doc: str, rows: Sequence[Row], rounds: int) -> str:
    when = f"Measured {datetime.date.today().isoformat()} at commit {_commit()} on {_cpu()}, {rounds} rounds at most."
    notes = [f"- {row.what}: {row.note}" for row in rows if row.note]
    return "\n\n".join([f"## {name}", f"{doc.strip()} {when}", table(rows), "\n".join(notes)]).rstrip()


def _head() -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return "\n\n".join(
        [
            "# Measured",
            "Written by `python -m perf`. Ratios are medians of pairs that ran in turn, with their range; “share of limit” "
            "is the part of our time that the machine needs at the least (forward and backward, parsing, or copying alone). "
            "Times are of this machine under its load; peak memory is of the process, where both sides share one of both.",
            f"{platform.system()}, Python {platform.python_version()}, {versions}. No GPU: nothing here was measured "
            "on one. The processor stands in each section.",
        ]
    )


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=RESULTS.parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    import os

    lines: list[str] = []
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or "unknown processor"
    units = " ".join(lines).split()
    best = next((unit for unit in ("amx_bf16", "avx512_bf16") if unit in units), "none")
    return f"{name}, {os.cpu_count()} cores, units for bf16: {best}"


if __name__ == "__main__":
    sys.exit(main())
