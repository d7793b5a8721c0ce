"""A step of CoOp with 7, 65 and 345 classes against CoOp's own way, ViT-B/32 with random weights, 16 context vectors.

CoOp's way: 32 images through the image tower and all 77 tokens of every class through the text tower, fp32, every step.
With `--coop DIR` that is the code of the checkout itself (its `trainers/coop.py` and `clip/`; of Dassl, which is not in
it, a base class with nothing in it stands in), otherwise a plain loop of ours that does the same. Ours: the method
`CoOp` as a trial runs it, with augmentation "none", so that image features come from the cache; one row has augmented
images on both sides.

345 classes the published way take more than 13 GB, so theirs is measured with 7 and 69 classes and extrapolated: every
further class costs the same.
"""

from __future__ import annotations

import importlib
import logging
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.algorithm import Minibatch, Setup
from bench.dataset import find_dataset
from bench.hparams import resolve
from bench.models import RANDOM, Backbone, load_backbone
from bench.protocols import View
from bench.registry import algorithms
from bench.spec import Places
from perf.measure import Options, Row, own_peak_mb, ratios, run

NAME = "ViT-B-32"
N_CTX = 16
BATCH = 32
TARGETS = {7: (12.0, 20.0), 65: (9.0, 15.0), 345: (15.0, 25.0)}
DATASETS = {7: "PACS", 65: "OfficeHome", 345: "DomainNet"}
MOST = 69
"""Classes that the published way is measured with at most."""

Step = Callable[[], object]


def rows(options: Options) -> Iterator[Row]:
    """Measure a step with every number of classes."""
    logging.getLogger("root").setLevel(logging.ERROR)
    backbone = load_backbone(NAME, RANDOM, Places())
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    make = _official(options.coop) if options.coop else _plain
    against = f"{'CoOp, the checkout' if options.coop else 'CoOp’s way, a plain loop'}, fp32"
    few = make(backbone, class_names(7), images)
    for n_classes, (least, stretch) in {7: TARGETS[7]}.items() if options.quick else TARGETS.items():
        names = class_names(n_classes)
        theirs = _extrapolated(few, make(backbone, names[:MOST], images), n_classes)
        exact = our_step(backbone, names, images)
        lower = our_step(backbone, names, images, precision="bf16")
        taken = turns([theirs, timed(exact), timed(lower), timed(products(backbone, names))], options.rounds)
        said = "theirs extrapolated from 7 and 69 classes; " if n_classes > MOST else ""
        what = f"CoOp step, {n_classes} classes"
        yield Row(
            what=what,
            against=against,
            ratios=ratios(taken[1], taken[0]),
            ours=taken[1],
            theirs=taken[0],
            at_least=least,
            stretch=stretch,
            limit=statistics.median(taken[3]),
            peak_mb=own_peak_mb() if n_classes == max(TARGETS) else None,
            note=f"{said}fp32, image features cached; limit: the matrix products of tokens that are not shared or cut",
        )
        yield Row(
            what=f"{what}, bf16",
            against=against,
            ratios=ratios(taken[2], taken[0]),
            ours=taken[2],
            theirs=taken[0],
            note=f"{said}precision=bf16: text tower in bf16 with fp32 sums, context and loss in fp32",
        )
    if not options.quick:
        names = class_names(65)
        taken = turns(
            [timed(make(backbone, names, images)), timed(our_step(backbone, names, images, augmentation="clipood"))],
            options.rounds,
        )
        yield Row(
            what="CoOp step, 65 classes, augmented images",
            against=against,
            ratios=ratios(taken[1], taken[0]),
            ours=taken[1],
            theirs=taken[0],
            note="both sides run the image tower, forward, on 32 images: nearly all that is left of our step",
        )


def class_names(n: int) -> tuple[str, ...]:
    """Give the class names of the data set with `n` classes."""
    return tuple(find_dataset(DATASETS[n]).class_names)


def our_step(backbone: Backbone, names: tuple[str, ...], images: Tensor, **given: Any) -> Step:
    """Give a step of the method `CoOp` on random features of 32 images."""
    given = {"augmentation": "none", "n_ctx": N_CTX, **given}
    view = View("env0_in", 0, np.arange(BATCH), np.arange(BATCH) % len(names), names)
    features = torch.randn(BATCH, 512, generator=torch.Generator().manual_seed(1))
    method = algorithms["CoOp"](setup_of("CoOp", backbone, view, lambda view: features, **given))
    labels = torch.from_numpy(view.labels)
    batch = Minibatch(images, labels, torch.arange(BATCH))
    return lambda: method.update([batch])


def setup_of(name: str, backbone: Backbone, view: View, features: Callable[[View], Tensor], **given: Any) -> Setup:
    """Give what the method `name` is built from, to train on one view, with other hparams `given` than the defaults."""
    kind = algorithms[name]
    hparams = resolve(kind.hparams, dataset="PACS", backbone=NAME, hparams_seed=0, trial_seed=0, given=given)
    return Setup(
        backbone=backbone,
        class_names=view.class_names,
        train=(view,),
        unlabeled=(),
        domain_names=("A",),
        templates=("a photo of a {}.",),
        hparams=hparams,
        n_steps=1000,
        run_seed=0,
        features=features,
        captions=lambda view: None,
        pool=lambda: None,  # type: ignore[arg-type, return-value]
    )


def _plain(backbone: Backbone, names: Sequence[str], images: Tensor) -> Step:
    """Do a step as published: everything in full, every time."""
    text = backbone.text
    tokens = backbone.tokenize([" ".join(["X"] * N_CTX) + f" {name}." for name in names])
    embedded = text.embed(tokens)
    context = nn.Parameter(0.02 * torch.randn(N_CTX, embedded.shape[-1]))
    optimizer = torch.optim.SGD([context], lr=0.002, momentum=0.9, weight_decay=5e-4)
    labels = torch.arange(BATCH) % len(names)

    def step() -> None:
        seen = backbone.visual(images)
        each = context.expand(len(names), -1, -1)
        prompts = torch.cat([embedded[:, :1], each, embedded[:, 1 + N_CTX :]], dim=1)
        said = text.from_embeddings(prompts, text.end_positions(tokens))
        logits = backbone.scale * functional.normalize(seen, dim=-1) @ functional.normalize(said, dim=-1).T
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _official(checkout: Path) -> Callable[[Backbone, Sequence[str], Tensor], Step]:
    """Give what makes a step of the checkout's own code, with random weights of the same sizes."""
    with _on_path(checkout):
        trainer = importlib.import_module("trainers.coop")
        clip = importlib.import_module("clip.model")
    torch.manual_seed(0)
    model = clip.CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12).float().eval()

    def make(backbone: Backbone, names: Sequence[str], images: Tensor) -> Step:
        coop = SimpleNamespace(N_CTX=N_CTX, CTX_INIT="", CSC=False, CLASS_TOKEN_POSITION="end", PREC="fp32")
        config = SimpleNamespace(
            TRAINER=SimpleNamespace(COOP=coop), INPUT=SimpleNamespace(SIZE=(224, 224)), MODEL=SimpleNamespace()
        )
        whole = trainer.CustomCLIP(config, list(names), model)
        for name, weight in whole.named_parameters():
            weight.requires_grad_("prompt_learner" in name)
        method = trainer.CoOp()
        method.cfg, method.model, method.device = config, whole, torch.device("cpu")
        method.optim = torch.optim.SGD(whole.prompt_learner.parameters(), lr=0.002, momentum=0.9, weight_decay=5e-4)
        method.batch_idx, method.num_batches = 0, 10**9
        batch = {"img": images, "label": torch.arange(BATCH) % len(names)}
        return lambda: method.forward_backward(batch)

    return make


@contextmanager
def _on_path(checkout: Path) -> Iterator[None]:
    """Make the checkout importable, with stand-ins for Dassl: a registry, a base class, and one update as Dassl's."""

    class Trainer:
        def model_backward_and_update(self: Any, loss: Tensor) -> None:
            self.optim.zero_grad()
            loss.backward()
            self.optim.step()

    stand_ins: dict[str, dict[str, Any]] = {
        "dassl": {},
        "dassl.engine": {"TRAINER_REGISTRY": SimpleNamespace(register=lambda: lambda kind: kind), "TrainerX": Trainer},
        "dassl.metrics": {"compute_accuracy": lambda output, label: [torch.zeros(1)]},
        "dassl.utils": {"load_pretrained_weights": None, "load_checkpoint": None},
        "dassl.optim": {"build_optimizer": None, "build_lr_scheduler": None},
    }
    for name, content in stand_ins.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        sys.modules[name] = module
    sys.path.insert(0, str(checkout))
    try:
        yield
    finally:
        sys.path.remove(str(checkout))


def _extrapolated(few: Step, many: Step, n_classes: int) -> Callable[[], float]:
    """Give what measures the published step with `n_classes`, by those with 7 and with at most `MOST` classes."""
    if n_classes <= MOST:
        return timed(many)

    def seconds() -> float:
        least, most = timed(few)(), timed(many)()
        return most + (n_classes - MOST) / (MOST - 7) * (most - least)

    return seconds


def timed(step: Step) -> Callable[[], float]:
    """Give what runs a step and says how many seconds it took."""

    def seconds() -> float:
        began = time.perf_counter()
        step()
        return time.perf_counter() - began

    return seconds


def turns(sides: Sequence[Callable[[], float]], rounds: int) -> list[tuple[float, ...]]:
    """Let all sides take turns, once to warm up; give the seconds of each."""
    taken = [[side() for side in sides] for _ in range(1 + rounds)][1:]
    return [tuple(each) for each in zip(*taken, strict=True)]


def products(backbone: Backbone, names: Sequence[str]) -> Step:
    """Give the matrix products alone, forward and backward, of the tokens that must be run."""
    lengths = backbone.text.end_positions(backbone.tokenize([f"{name}." for name in names]))
    n, width = 1 + N_CTX + int(lengths.sum()), 512
    x, wide = torch.randn(n, width), torch.randn(n, 4 * width)
    shapes = ((3 * width, width, x), (width, width, x), (4 * width, width, x), (width, 4 * width, wide))
    layer = [(torch.randn(out, into), given) for out, into, given in shapes]

    def step() -> None:
        for weight, given in layer * len(backbone.text.transformer.resblocks):
            (given @ weight.T) @ weight

    return step


if __name__ == "__main__":
    run(rows, __doc__)
