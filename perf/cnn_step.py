"""What each thing that CLIPBed does for CNNs on a CPU is worth in a step (forward and backward pass) of `tiny`, 96 images.

Every measurement is a fresh process with one of them left out, or one more, against one with all of them, in turn. Steps
are from the third on, when memory has been touched; what the first one takes is in the notes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from perf.measure import ROOT, Options, Row, ratios, run

BATCH, STEPS = 96, 10


@dataclass(frozen=True)
class Way:
    """One way to train: without one of ours (`plain`), or with more in the environment."""

    what: str
    plain: str = ""
    environment: dict[str, str] = field(default_factory=dict)


class Measured(NamedTuple):
    """What a process says: seconds of its first step and of a later one, and its peak memory."""

    first: float
    later: float
    peak_mb: float


ALL = Way("all of them")
OTHERS = (
    Way("keeping freed memory", "heap"),
    Way("gradients of depthwise convolutions on small maps", "depthwise"),
    Way("channels last", "layout"),
    Way("no huge pages besides", "", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
)


def rows(options: Options) -> Iterator[Row]:
    """Measure each of the other ways against ours."""
    for way in OTHERS:
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(_measured(ALL))
            theirs.append(_measured(way))
        seconds, others_seconds = (tuple(each.later for each in side) for side in (ours, theirs))
        first, others_first = (statistics.median(each.first for each in side) for side in (ours, theirs))
        peak, others_peak = (statistics.median(each.peak_mb for each in side) for side in (ours, theirs))
        yield Row(
            what=way.what,
            against="a step without it" if way.plain else "a step with them",
            ratios=ratios(seconds, others_seconds),
            ours=seconds,
            theirs=others_seconds,
            peak_mb=peak,
            note=f"the first step {first:.2f} s, the other way {others_first:.2f} s; "
            f"peak memory the other way {others_peak:.0f} MB",
        )


def _measured(way: Way) -> Measured:
    """Train in a process of its own."""
    command = [sys.executable, "-m", "perf.cnn_step", "--child", way.plain]
    environment = {**os.environ, **way.environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def child(plain: str) -> None:
    """Be the process: train, and print what is `Measured`."""
    import torch

    from bench.heap import keep_freed_memory
    from bench.models import load_backbone
    from bench.spec import Places
    from perf.measure import own_peak_mb
    from perf.published import without_depthwise

    if plain != "heap":
        keep_freed_memory({})  # whatever the environment says
    tower = load_backbone("tiny", "embedded", Places()).trainable_visual()
    if plain == "depthwise":
        without_depthwise(tower)
    layout = torch.contiguous_format if plain == "layout" else torch.channels_last
    tower.to(memory_format=layout)
    images = torch.randn(BATCH, 3, 96, 96).contiguous(memory_format=layout)
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        tower.zero_grad()
        tower(images).sum().backward()
        seconds.append(time.perf_counter() - began)
    print(json.dumps(Measured(seconds[0], statistics.median(seconds[2:]), own_peak_mb())))


def main(arguments: Sequence[str]) -> None:
    """Measure, or be one of the processes that are measured."""
    if arguments[:1] == ["--child"]:
        child(arguments[1])
    else:
        run(rows, __doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
