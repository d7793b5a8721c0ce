"""Batches from the cache of decoded images against DomainBed's pipeline, on one core each, as images a second.

Ours: crop, resize and flip from the memory-mapped cache, batch, normalise. Theirs: ImageFolder and DomainBed's training
transform, whose only size is 224 px whatever the model takes; of the checkout if `--domainbed DIR` and `--data-dir DIR`
with PACS are given, else the same transforms through torchvision. Rows "at 64 px too" let the same transforms make small
images, which DomainBed does not. Colour jitter is part of theirs; ours without it is CLIPood's augmentation, with it
DomainBed's. The limit is copying the pixels of a batch into float32.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.dataset import Dataset, find_dataset
from bench.images import Batches, ImageStore
from bench.models import ImageSpec
from bench.protocols import Task, View
from bench.spec import Places
from perf.made_images import made_images
from perf.measure import Options, Row, run
from perf.published import domainbed_augmentation, domainbed_datasets

MEAN, STD = (0.481, 0.458, 0.408), (0.269, 0.261, 0.276)
BATCH = 36
SIZE = 224
"""The only size that DomainBed makes."""
TARGETS = {64: (20.0, 50.0), 224: (5.0, 8.0)}
THEIRS = 36
"""Images of theirs a round; times are an image's."""


def rows(options: Options) -> Iterator[Row]:
    """Measure both sizes, without and with jitter."""
    with tempfile.TemporaryDirectory() as folder, one_core():
        dataset = _dataset(options, Path(folder))
        for size, (at_least, stretch) in TARGETS.items():
            store = ImageStore(dataset, ImageSpec(size, MEAN, STD), Path(folder))
            theirs, against = _theirs(options, dataset)
            yield _row(store, "clipood", theirs, against, options, (at_least, stretch))
            if size != SIZE:
                theirs, against = _transformed(dataset, size), f"DomainBed's transforms, at {size} px too"
                yield _row(store, "clipood", theirs, against, options, None)
            yield _row(store, "domainbed", theirs, against, options, None)


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, threads and all, on one core."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def _dataset(options: Options, folder: Path) -> Dataset:
    """Give one domain of PACS, or made images of PACS's size."""
    if options.data_dir is None:
        return made_images(folder / "images", 60 if options.quick else 300, side=227)
    pacs: Dataset = find_dataset("PACS").load(Places(data_dir=str(options.data_dir)))
    return Dataset(pacs.name, pacs.class_names, pacs.domains[:1])


def _theirs(options: Options, dataset: Dataset) -> tuple[Any, str]:
    """Give an indexable of images as DomainBed augments them, and what it is."""
    if options.domainbed and options.data_dir:
        return domainbed_datasets(options.domainbed, options.data_dir)[0], "DomainBed's pipeline (the checkout)"
    return _transformed(dataset, SIZE), "DomainBed's pipeline (its transforms)"


def _transformed(dataset: Dataset, size: int) -> Any:
    """Give an indexable of images that DomainBed's transforms augment to `size`."""
    from torchvision.datasets.folder import default_loader

    transform = domainbed_augmentation(size)
    paths = [str(dataset.domains[0].root / file) for file in dataset.domains[0].files]

    class Images:
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> Any:
            return transform(default_loader(paths[index])), 0

    return Images()


def _row(
    store: ImageStore,
    flavour: str,
    theirs: Any,
    against: str,
    options: Options,
    targets: tuple[float, float] | None,
) -> Row:
    domain, size = store.dataset.domains[0], store.image.size
    n, n_batches = len(domain.files), 2 if options.quick else 10
    view = View("env0_in", 0, np.arange(n), domain.labels, store.dataset.class_names)
    task = Task(view.class_names, (view,), (), ())
    batches = Batches(store, 0, BATCH, flavour, torch.device("cpu"))
    draws = np.random.default_rng(0)

    def ours() -> float:
        return _per_image(lambda: [None for _ in batches.steps(task, 0, n_batches)], n_batches * BATCH)

    def published() -> float:
        chosen = draws.integers(n, size=THEIRS).tolist()
        return _per_image(lambda: torch.stack([theirs[i][0] for i in chosen]), THEIRS)

    pixels = torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8)
    place = torch.empty(pixels.shape)
    ours(), published(), place.copy_(pixels)
    pairs = [(ours(), published(), _per_image(lambda: place.copy_(pixels), BATCH)) for _ in range(options.rounds)]
    jitter = "with" if flavour == "domainbed" else "without"
    rate = 1 / statistics.median(mine for mine, _, _ in pairs)
    return Row(
        what=f"batches from the cache, {size} px, {jitter} jitter",
        against=against,
        ratios=tuple(other / mine for mine, other, _ in pairs),
        ours=tuple(mine for mine, _, _ in pairs),
        theirs=tuple(other for _, other, _ in pairs),
        at_least=targets[0] if targets else None,
        stretch=targets[1] if targets else None,
        limit=statistics.median(copied for _, _, copied in pairs),
        note=f"times are of an image; ours {rate:,.0f} images/s on one core; {store.dataset.name}",
    )


def _per_image(work: Callable[[], object], n: int) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) / n


if __name__ == "__main__":
    run(rows, __doc__)
