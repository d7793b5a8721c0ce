"""How long the commands that must answer at once take, against the import of torch in the same run.

Run: `python -m perf.startup [--rounds N]`. Commands and the import take turns, so that load hits all alike; the table
gives medians, their range, and the ratio to `import torch`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "published" / "pacs_tiny"
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "sweep --help": ["-m", "bench.sweep", "--help"],
    "sweep list algorithms": ["-m", "bench.sweep", "list", "algorithms"],
    "sweep list datasets": ["-m", "bench.sweep", "list", "datasets"],
    "sweep status": ["-m", "bench.sweep", "status"],
    "collect (56 runs)": ["-m", "bench.collect", str(PUBLISHED)],
}


def seconds(arguments: list[str]) -> float:
    """Run a command in a process of its own; give the seconds until it ended."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each command runs")
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            taken[name].append(seconds(arguments))
    torch = statistics.median(taken["import torch"])
    rows = []
    for name, each in taken.items():
        median = statistics.median(each)
        rows.append((name, f"{median:.2f}", f"{min(each):.2f}-{max(each):.2f}", f"{torch / median:.1f}"))
    print(tabulate(rows, headers=["command", "median s", "range", "times faster than importing torch"]))


if __name__ == "__main__":
    main()
