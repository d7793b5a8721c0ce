"""The memory of a trial does not grow with its steps or with its data set, so that several share a node or a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
MEGABYTE = 2**20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's /proc"),
]


def make_folder(folder: Path, n_images: int) -> Path:
    """Write a data set of two domains and three classes with `n_images` small images in all."""
    stream = np.random.default_rng(0)
    for number in range(n_images):
        place = folder / f"domain{number % 2}" / f"class{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stream.integers(0, 255, (120, 120, 3), dtype=np.uint8)).save(place / f"{number:05}.jpg")
    return folder


def private_memory(pid: int) -> int:
    """Give the bytes that a process holds for itself; pages of mapped files, which the system may drop, not counted."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def descendants(pid: int) -> list[int]:
    """List a process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(each for child in children for each in descendants(int(child)))]


def peak(data: Path, output: Path, cache: Path, steps: int) -> int:
    """Run one trial; give the most private bytes that any one of its processes had."""
    words = [
        "launch",
        "--algorithms",
        "CLIPood",
        "--datasets",
        f"folder:{data}",
        "--n-trials",
        "1",
        "--test-domains",
        "0",
    ]
    words += [
        "--threads",
        "1",
        "--steps",
        str(steps),
        "--evaluate-every",
        str(steps),
        "--jobs",
        "1",
        "--launcher",
        "local",
    ]
    words += ["--hparams", '{"batch_size": 16}', "--output-dir", str(output), "--cache", str(cache), "--yes"]
    with (output.parent / "log").open("wb") as log:
        steady = {**os.environ, "MALLOC_ARENA_MAX": "1", "CLIPBED_CHECKPOINT_SECONDS": "0"}  # all save, none by chance
        command = [sys.executable, "-m", "bench.sweep", *words]
        running = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=steady)
    most = 0
    while running.poll() is None:
        most = max(most, *map(private_memory, descendants(running.pid)))
        time.sleep(0.002)
    assert running.returncode == 0, (output.parent / "log").read_text()
    assert len(list(output.glob("*/*/results.jsonl"))) == 1
    return most


def test_memory_is_flat_in_steps_and_in_images(tmp_path: Path) -> None:
    """Six times the steps, or sixty times the images, cost less than two fifths of those images decoded.

    Peaks of equal trials lie up to 60 MB apart, by how many batches wait and when allocators give back; that of a few
    steps on a busy machine lies lower, as no queue fills up. To keep the batches of 125 steps takes 220 MB.
    """
    small, large = make_folder(tmp_path / "small", 100), make_folder(tmp_path / "large", 6000)
    cache = tmp_path / "cache"
    base = peak(small, tmp_path / "a", cache, 25)
    long = peak(small, tmp_path / "b", cache, 150)
    wide = peak(large, tmp_path / "c", cache, 25)
    decoded = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    print(
        f"peak private MB: {[size // MEGABYTE for size in (base, long, wide)]}; decoded images: {decoded // MEGABYTE}"
    )
    assert decoded > 380 * MEGABYTE, "the data set is too small to tell"
    assert max(long, wide) - base < 160 * MEGABYTE
