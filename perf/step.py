"""A training step of CLIPood against the published loop in fp32, what the harness adds to a step, and the optimizer.

Ours is the method `CLIPood` as a trial runs it, in bf16 with fp32 master weights for ViTs and in fp32 for the embedded
CNN; random weights, one batch over and over. With `--clipood DIR` the other side is `engine.train` of the checkout.
The limit is our forward and backward pass alone.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import loop, train
from bench.algorithm import Algorithm, Minibatch, Setup
from bench.heap import keep_freed_memory
from bench.hparams import resolve
from bench.models import load_backbone
from bench.registry import algorithms
from bench.spec import Places, TrialSpec
from bench.store import Run
from bench.vision_tower import vision_tower
from perf.made_images import CLASSES, made_images
from perf.measure import Options, Row, own_peak_mb, paired, ratios, run
from perf.published import ClipoodLoop, clipood_checkout

SCALE = 100.0
MANY_STEPS = 1000
"""Steps that the methods believe they have, so that the learning rate never gets to 0."""


@dataclass(frozen=True)
class Case:
    """One model to train: its tower, the batch, in which precision ours is, and the targets."""

    what: str
    make: Callable[[], nn.Module]
    size: int
    batch: int
    precision: str
    at_least: float
    stretch: float


def vit(image: int, patch: int, width: int, layers: int, heads: int, output: int = 512) -> nn.Module:
    """Make open_clip's vision transformer with random weights."""
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    tower = VisionTransformer(image, patch, width, layers, heads, 4.0, output_dim=output)
    return vision_tower(tower.eval()).requires_grad_(False)


def embedded() -> nn.Module:
    """Load the image tower of `tiny`."""
    return load_backbone("tiny", "embedded", Places()).visual


CASES = (
    Case("CLIPood step, ViT-B/32, bf16", lambda: vit(224, 32, 768, 12, 12), 224, 36, "bf16", 1.8, 2.2),
    Case("CLIPood step, ViT-B/16, bf16", lambda: vit(224, 16, 768, 12, 12), 224, 12, "bf16", 1.8, 2.2),
    Case("CLIPood step, small ViT, bf16", lambda: vit(64, 8, 192, 8, 3, 128), 64, 36, "bf16", 1.9, 2.3),
    Case("CLIPood step, embedded CNN, fp32", embedded, 96, 36, "fp32", 1.4, 2.0),
)


def rows(options: Options) -> Iterator[Row]:
    """Measure the steps, the optimizer, and the harness."""
    for case in CASES[2:] if options.quick else CASES:
        yield _step(case, options)
    yield _optimizer(CASES[2] if options.quick else CASES[0], options)
    for backbone, batch, n_steps in (("tiny", 12, 30), ("ViT-B-32", 12, 6)):
        if not (options.quick and backbone != "tiny"):
            yield _harness(backbone, batch, n_steps)


def trained(tower: nn.Module, text: Tensor, precision: str) -> Algorithm:
    """Build the method CLIPood around a tower."""
    text_of = dict(zip(CLASSES, text, strict=True))
    backbone: Any = SimpleNamespace(
        context_length=77,
        visual=tower,
        scale=SCALE,
        device=torch.device("cpu"),
        trainable_visual=lambda: copy.deepcopy(tower).requires_grad_(True),
        encode_text=lambda texts: torch.stack([text_of[each.removeprefix("a ")] for each in texts]),
    )
    kind: Any = algorithms["CLIPood"]
    given = {"precision": precision}
    hparams = resolve(kind.hparams, dataset="PACS", backbone="ViT", hparams_seed=0, trial_seed=0, given=given)
    nothing: Any = None
    method: Algorithm = kind(
        Setup(backbone, CLASSES, (), (), (), ("a {}",), hparams, MANY_STEPS, 0, nothing, nothing, nothing)
    )
    return method


def batch_of(case: Case, tower: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Give random images, labels and unit text features."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randn(case.batch, 3, case.size, case.size, generator=stream)
    images = images.contiguous(memory_format=torch.channels_last)  # as the harness gives them
    with torch.no_grad():
        depth = tower(images[:1]).shape[1]
    text = functional.normalize(torch.randn(len(CLASSES), depth, generator=stream), dim=-1)
    return images, torch.randint(len(CLASSES), (case.batch,), generator=stream), text


def _step(case: Case, options: Options) -> Row:
    tower = case.make()
    images, labels, text = batch_of(case, tower)
    algorithm = trained(tower, text, case.precision)
    minibatches = [Minibatch(images, labels, torch.arange(case.batch))]
    if options.clipood:
        theirs: Callable[[], object] = clipood_checkout(options.clipood, tower, text, images, labels, SCALE)
    else:
        theirs = ClipoodLoop(tower, text, images, labels, SCALE).step
    ours_s, theirs_s = paired(lambda: algorithm.update(minibatches), theirs, options.rounds)

    def alone() -> None:
        with algorithm.autocast(), algorithm.working_copy().in_place():
            loss, _ = algorithm.loss(minibatches, None)
        loss.backward()

    limits, _ = paired(alone, lambda: None, options.rounds, warm_up=0)
    return Row(
        what=case.what,
        against="CLIPood, the checkout, fp32" if options.clipood else "published loop, fp32",
        ratios=ratios(ours_s, theirs_s),
        ours=ours_s,
        theirs=theirs_s,
        at_least=case.at_least,
        stretch=case.stretch,
        limit=statistics.median(limits),
        note=f"batch {case.batch}, {case.size} px, {torch.get_num_threads()} threads",
    )


def _optimizer(case: Case, options: Options) -> Row:
    tower = case.make()
    images, labels, text = batch_of(case, tower)
    algorithm: Any = trained(tower, text, "fp32")
    published = ClipoodLoop(tower, text, images, labels, SCALE)
    stream = torch.Generator().manual_seed(1)
    for mine, other in zip(algorithm.tower.parameters(), published.tower.parameters(), strict=True):
        mine.grad = torch.randn(mine.shape, generator=stream)
        other.grad = mine.grad.clone()

    def ours() -> None:
        algorithm.optimizer.step()
        algorithm.updates = 1
        algorithm.after_step()

    ours_s, theirs_s = paired(ours, published.finish, 2 * options.rounds)
    total = sum(each.numel() for each in algorithm.tower.parameters())
    source, target = torch.zeros(total), torch.zeros(total)
    # AdamW reads weight, gradient and both moments and writes three of them; the average is read and written, the weight
    # read: ten passes over memory, five copies.
    limits, _ = paired(lambda: [target.copy_(source) for _ in range(5)], lambda: None, 2 * options.rounds)
    return Row(
        what="optimizer + averaging, " + case.what.split(", ")[1],
        against="published loop",
        ratios=ratios(ours_s, theirs_s),
        ours=ours_s,
        theirs=theirs_s,
        at_least=2.0,
        stretch=4.0,
        limit=statistics.median(limits),
        note="fused AdamW and one in-place interpolation; the limit is copying as many bytes",
    )


def _harness(backbone: str, batch: int, n_steps: int) -> Row:
    """Time a trial's own loop: what lies between two updates, as a share of the step."""
    marks: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for domain in "abc":
            made_images(Path(folder) / "images", 8 * batch)
            (Path(folder) / "images" / "made").rename(Path(folder) / "images" / domain)
        run_folder, trial = _trial(backbone, batch, n_steps, Path(folder))
        update = trial.algorithm.update

        def timed(*arguments: Any) -> dict[str, Any]:
            began = time.perf_counter()
            logs: dict[str, Any] = update(*arguments)
            marks.append((began, time.perf_counter()))
            return logs

        trial.algorithm.update = timed
        drawing = []
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as a trial draws them
        for step in range(min(n_steps, 10)):
            began = time.perf_counter()
            trial.batches._draw_all(trial.task, step)
            drawing.append(time.perf_counter() - began)
        torch.set_num_threads(threads)
        keep_freed_memory()
        loop.run(trial, run_folder.claim(), lambda: False)
    marks = marks[1:]  # the first one warms up
    between = tuple(after[0] - before[1] for before, after in itertools.pairwise(marks))
    steps = tuple(after[0] - before[0] for before, after in itertools.pairwise(marks))
    share = statistics.median(drawing) / statistics.median(steps)
    return Row(
        what=f"harness overhead in a step, {backbone}",
        against="the step",
        ratios=tuple(a / b for a, b in zip(between, steps, strict=True)),
        ours=between,
        theirs=steps,
        at_least=0.03,
        stretch=0.01,
        is_share=True,
        peak_mb=own_peak_mb(),
        note=(
            f"time between two updates of a trial: waiting for the batch, normalising, seeding, logging, the sign of life; "
            f"batches are drawn beside the update by one thread, for {100 * share:.1f} % of a step"
        ),
    )


def _trial(backbone: str, batch: int, n_steps: int, folder: Path) -> tuple[Run, Any]:
    precision = "fp32" if backbone == "tiny" else "bf16"
    pretrained = "embedded" if backbone == "tiny" else "random"
    given = {"batch_size": batch, "precision": precision, "eval_precision": precision}
    kind: Any = algorithms["CLIPood"]
    hparams = resolve(kind.hparams, dataset="made", backbone=backbone, hparams_seed=0, trial_seed=0, given=given)
    spec = TrialSpec(
        protocol="leave_one_domain_out",
        protocol_version=1,
        dataset="folder:made",
        algorithm="CLIPood",
        test_domains=(2,),
        backbone=backbone,
        pretrained=pretrained,
        trial_seed=0,
        hparams_seed=0,
        hparams=hparams,
        steps=n_steps,
        evaluate_every=n_steps,
    )
    places = Places(folder=str(folder / "images"), cache=str(folder / "cache"))
    return Run.create(folder / "sweep", spec, places), train.build(spec, places, torch.device("cpu"), lambda line: None)


if __name__ == "__main__":
    run(rows, __doc__)
