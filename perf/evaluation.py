"""Evaluation of a fine-tuned ViT-B/32 against the published loop in fp32; random weights.

Ours is what a trial does, from the cache of decoded images to the metrics, with `eval_precision` bf16. Theirs is handed
normalised images in memory. The limit is our forward pass alone.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bench.algorithm import Predictor
from bench.evaluation import BATCH, Evaluator
from bench.images import ImageStore
from bench.models import RANDOM, TextHead, load_backbone
from bench.protocols import Task, View
from bench.spec import Places
from perf.made_images import CLASSES, made_images
from perf.measure import Options, Row, own_peak_mb, paired, ratios, run
from perf.published import validate

NAME = "ViT-B-32"


def rows(options: Options) -> Iterator[Row]:
    """Measure the evaluation of one predictor."""
    logging.getLogger("root").setLevel(logging.ERROR)
    n = BATCH if options.quick else 2 * BATCH
    backbone = load_backbone(NAME, RANDOM, Places())
    tower = backbone.trainable_visual()
    head = TextHead(backbone, ("a {}",))
    with tempfile.TemporaryDirectory() as folder:
        dataset = made_images(Path(folder) / "images", n)
        store = ImageStore(dataset, backbone.image, Path(folder))
        view = View("env0_in", 0, np.arange(n), dataset.domains[0].labels, CLASSES)
        task = Task(CLASSES, (), (), (view,))
        evaluator = Evaluator(store, backbone, task, Path(folder), "bf16", lambda doing: None)
        algorithm: Any = SimpleNamespace(updates=1, predictors=lambda final: iter([("", Predictor(tower, head))]))
        normalised = evaluator._normalise(store.centre(0, view.indices)).contiguous()
        labels = torch.from_numpy(view.labels)
        batches = list(zip(normalised.split(36), labels.split(36), strict=True))
        ours_s, theirs_s = paired(
            lambda: list(evaluator.evaluate(algorithm, final=False)),
            lambda: validate(tower, batches, head.weights(CLASSES)),
            options.rounds,
        )
        low, parts = evaluator._prepared(tower), normalised.bfloat16().split(BATCH)

        def alone() -> None:
            with torch.no_grad():
                for part in parts:
                    low(part)

        limits, _ = paired(alone, lambda: None, options.rounds)
    yield Row(
        what="evaluation forward, ViT-B/32",
        against="published loop, fp32",
        ratios=ratios(ours_s, theirs_s),
        ours=ours_s,
        theirs=theirs_s,
        at_least=2.8,
        stretch=3.5,
        limit=statistics.median(limits),
        peak_mb=own_peak_mb(),
        note=f"{n} images, {torch.get_num_threads()} threads; peak memory is of both sides",
    )


if __name__ == "__main__":
    run(rows, __doc__)
