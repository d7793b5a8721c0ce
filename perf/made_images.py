"""A folder of made JPEG files as a data set of one domain, for benchmarks that need images but not their meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.dataset import Dataset, Domain, read_domain

CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")


def made_images(folder: Path, n: int, side: int = 256) -> Dataset:
    """Write `n` JPEG files of about `side` pixels into `folder`, by class, and give them as a data set."""
    from PIL import Image

    stream = np.random.default_rng(0)
    for i in range(n):
        place = folder / "made" / CLASSES[i % len(CLASSES)]
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(stream.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((side + 8 * (i % 5), side), Image.Resampling.BICUBIC).save(place / f"{i:04d}.jpg")
    domain: Domain = read_domain("made", folder, "made", CLASSES)
    return Dataset("made", CLASSES, (domain,))
