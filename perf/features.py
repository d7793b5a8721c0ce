"""A second method, or other hparams, on features that a first trial has left in the cache, against that first trial.

ViT-B/32 with random weights, made images. Measured is all between a loaded backbone with decoded images and the end of
the evaluation. The first trial, ZeroShot with an empty cache, runs both towers; those that follow find features and text
head: ZeroShot once more, as another held-out domain or seed has it; CoOp with a template's words, as it stands before its
first update; UEO's weights of the images.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.dataset import Dataset
from bench.evaluation import Evaluator
from bench.images import ImageStore
from bench.models import RANDOM, Backbone, load_backbone
from bench.protocols import Task, View
from bench.registry import algorithms
from bench.spec import Places
from perf.coop import NAME, setup_of, turns
from perf.made_images import CLASSES, made_images
from perf.measure import Options, Row, ratios, run

N_IMAGES = 256


def rows(options: Options) -> Iterator[Row]:
    """Measure trials that follow against the first."""
    logging.getLogger("root").setLevel(logging.ERROR)
    backbone = load_backbone(NAME, RANDOM, Places())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = made_images(place / "images", 64 if options.quick else N_IMAGES)
        ImageStore(data, backbone.image, place)
        first = _trial("ZeroShot", backbone, data, place, anew=True)
        following = {
            "another trial of ZeroShot": _trial("ZeroShot", backbone, data, place),
            "a second method, CoOp": _trial("CoOp", backbone, data, place, ctx_init="template", augmentation="none"),
            "a third, UEO with its weights": _trial("UEO", backbone, data, place, parameters="prompt"),
        }
        first()
        taken = turns([*following.values(), first], options.rounds)
        for name, ours in zip(following, taken, strict=False):
            yield Row(
                what=f"second method or hparams on cached features: {name}",
                against="the first trial",
                ratios=ratios(ours, taken[-1]),
                ours=ours,
                theirs=taken[-1],
                at_least=50.0,
                stretch=200.0,
                note=f"{len(data.domains[0].files)} images, backbone loaded and images decoded on both sides",
            )


def _trial(
    name: str, backbone: Backbone, data: Dataset, place: Path, *, anew: bool = False, **given: Any
) -> Callable[[], float]:
    """Give what builds a method and evaluates it; `anew` with a cache of derived arrays that is empty."""

    def seconds() -> float:
        store = ImageStore(data, backbone.image, place)
        labels = data.domains[0].labels
        view = View("env0_out", 0, np.arange(len(labels)), labels, CLASSES)
        with tempfile.TemporaryDirectory() as empty:
            cache = Path(empty) if anew else place
            began = time.perf_counter()
            task = Task(CLASSES, (view,), (view,), (view,))
            evaluator = Evaluator(store, backbone, task, cache, "fp32", lambda doing: None)
            setup = setup_of(name, backbone, view, evaluator.frozen_features, **given)
            method = algorithms[name](replace(setup, unlabeled=(view,)))
            if name == "UEO":
                method._weights  # noqa: B018 - what its first step asks for
            list(evaluator.evaluate(method, final=True))
            return time.perf_counter() - began

    return seconds


if __name__ == "__main__":
    run(rows, __doc__)
