"""WiSE-FT's eleven mixing coefficients on ViT-B/32 with random weights, evaluated as in a trial and the published way.

The published way (`wise_ft.py` of the paper's code), as a plain loop of ours: for every coefficient all entries of both
state dicts are mixed, loaded into a model, saved to disk, and the images are decoded and evaluated in fp32. Ours: the
grid of the method `WiSE-FT` under the harness's evaluator: mixed in place, nothing saved, images from the decoded cache,
coefficient 0 from the cached features of the pre-trained tower.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from bench import dataset as dataset_types
from bench.evaluation import Evaluator
from bench.images import ImageStore
from bench.models import RANDOM, Backbone, TextHead, load_backbone
from bench.protocols import Task, View
from bench.registry import algorithms
from bench.spec import Places
from perf.coop import NAME, setup_of
from perf.made_images import CLASSES, made_images
from perf.measure import Options, Row, paired, ratios, run

N_IMAGES = 64
"""One batch of the evaluator, which fills up smaller ones."""

GRID = [tenth / 10 for tenth in range(11)]


def rows(options: Options) -> Iterator[Row]:
    """Measure the grid in bf16 and in fp32."""
    logging.getLogger("root").setLevel(logging.ERROR)
    backbone = load_backbone(NAME, RANDOM, Places())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = made_images(place / "images", N_IMAGES)
        published = _published(backbone, data, place)
        for precision in ("bf16",) if options.quick else ("bf16", "fp32"):
            ours, theirs = paired(_ours(backbone, data, place, precision), published, options.rounds)
            yield Row(
                what=f"WiSE-FT grid of 11 α, ViT-B/32, {precision}",
                against="published way, fp32",
                ratios=ratios(ours, theirs),
                ours=ours,
                theirs=theirs,
                at_least=3.0 if precision == "bf16" else None,
                stretch=5.0 if precision == "bf16" else None,
                note=f"{len(data.domains[0].files)} images; eval_precision={precision}; ten forward passes over all images "
                "are left of eleven, so the ratio is 1.1 × that of a forward pass, and what mixing and saving cost",
            )


def fine_tuned(tower: nn.Module) -> nn.Module:
    """Give a copy of `tower` a little away from it."""
    torch.manual_seed(1)
    moved = copy.deepcopy(tower)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(torch.randn_like(weight), alpha=1e-3)
    return moved


def _ours(backbone: Backbone, data: dataset_types.Dataset, place: Path, precision: str) -> Callable[[], object]:
    """Give the evaluation of the grid as at the end of a trial."""
    store = ImageStore(data, backbone.image, place)
    labels = data.domains[0].labels
    view = View("env0_out", 0, np.arange(len(labels)), labels, CLASSES)
    evaluator = Evaluator(store, backbone, Task(CLASSES, (view,), (), (view,)), place, precision, lambda doing: None)
    method = algorithms["WiSE-FT"](setup_of("WiSE-FT", backbone, view, evaluator.frozen_features))
    method.tower.load_state_dict(fine_tuned(backbone.visual).state_dict())
    method.updates = 1000
    return lambda: list(evaluator.evaluate(method, final=True))


class _Files(Dataset[tuple[torch.Tensor, int]]):
    """Image files through open_clip's evaluation transform."""

    def __init__(self, data: dataset_types.Dataset, backbone: Backbone) -> None:
        from open_clip import image_transform

        self.domain = data.domains[0]
        self.transform = image_transform(backbone.image.size, is_train=False)

    def __len__(self) -> int:
        return len(self.domain.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        with Image.open(self.domain.root / self.domain.files[index]) as picture:
            return self.transform(picture), int(self.domain.labels[index])


def _published(backbone: Backbone, data: dataset_types.Dataset, place: Path) -> Callable[[], object]:
    """Give the published way through the grid."""
    rows = backbone.scale * TextHead(backbone, ("a photo of a {}.",)).weights(CLASSES)
    start, end, mixed = (nn.ModuleDict() for _ in range(3))
    for model, tower in ((start, backbone.visual), (end, fine_tuned(backbone.visual)), (mixed, backbone.visual)):
        head = nn.Linear(rows.shape[1], len(rows))
        head.weight.data.copy_(rows)
        head.bias.data.zero_()
        model.update({"tower": copy.deepcopy(tower), "head": head})
    first, last = start.state_dict(), end.state_dict()
    encode, classify = mixed["tower"], mixed["head"]

    def grid() -> None:
        for alpha in GRID:
            mixed.load_state_dict({key: (1 - alpha) * first[key] + alpha * last[key] for key in first})
            torch.save(mixed.state_dict(), place / f"wise_ft_alpha={alpha:.3f}.pt")
            correct = 0
            with torch.no_grad():
                for images, labels in DataLoader(_Files(data, backbone), batch_size=64):
                    features = functional.normalize(encode(images), dim=-1)
                    correct += int((classify(features).argmax(dim=-1) == labels).sum())

    return grid


if __name__ == "__main__":
    run(rows, __doc__)
