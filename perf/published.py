"""The other side of the benchmarks of steps, evaluation and batches: loops that do the same maths the published way.

They are ours, written from what the papers' code does (CLIPood `engine.py`, DomainBed `datasets.py`), and used where no
checkout is given.
"""

from __future__ import annotations

import copy
import importlib
import sys
import types
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.depthwise import DepthwiseConv2d

MARGIN = 0.3
LR, WEIGHT_DECAY = 5e-6, 0.1
SHARE = 0.01
"""Share of an iterate in the average; its value changes nothing in the cost."""


def as_published(tower: nn.Module) -> nn.Module:
    """Copy a tower of a backbone of ours as open_clip makes it: without what ours does to it for speed."""
    return without_depthwise(copy.deepcopy(tower).to(memory_format=torch.contiguous_format))


def without_depthwise(tower: nn.Module) -> nn.Module:
    """Put torch's convolutions back into a tower, in place; give it back."""
    for module in tower.modules():
        if type(module) is DepthwiseConv2d:
            module.__class__ = nn.Conv2d
    return tower


class ClipoodLoop:
    """CLIPood's training step: fp32, torch's default AdamW, and the moving average made parameter by parameter."""

    def __init__(self, tower: nn.Module, text: Tensor, images: Tensor, labels: Tensor, scale: float) -> None:
        """Train a copy of `tower` on one batch, over and over."""
        self.tower = as_published(tower).requires_grad_(True).eval()
        self.average = copy.deepcopy(self.tower).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.tower.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
        self.text, self.images, self.labels, self.scale = text, images.contiguous(), labels, scale

    def step(self) -> float:
        """Make one update, and read the loss as the published loop does at every step."""
        features = self.tower(self.images)
        features = features / features.norm(dim=-1, keepdim=True)
        features = features - MARGIN * self.text[self.labels]
        loss = functional.cross_entropy(self.scale * (features @ self.text.T), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.finish()
        return float(loss.item())

    def finish(self) -> None:
        """Do what follows the backward pass: optimizer and average."""
        self.optimizer.step()
        ratio = SHARE / (1 - SHARE)
        for average, parameter in zip(self.average.parameters(), self.tower.parameters(), strict=True):
            average.data = (average + ratio * parameter.data) / (1 + ratio)


def clipood_checkout(
    folder: Path, tower: nn.Module, text: Tensor, images: Tensor, labels: Tensor, scale: float
) -> Callable[[], object]:
    """Give a step of `engine.train` of a checkout of CLIPood, as it is, on one batch.

    Weights stay in fp32: the published rounding to fp16 between updates needs a GPU. What the file imports and a step
    does not use (OpenAI's `clip`, its data sets, tensorboard) is stood in for by empty modules.
    """
    clip = types.ModuleType("clip")
    clip.model = types.SimpleNamespace(convert_weights=lambda model: None)  # type: ignore[attr-defined]
    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = object  # type: ignore[attr-defined]
    empty = {name: types.ModuleType(name) for name in ("converter_dassl", "converter_domainbed")}
    with _modules(folder, {"clip": clip, "torch.utils.tensorboard": board, **empty}, ("engine", "utils")):
        engine: Any = importlib.import_module("engine")
    trained = as_published(tower).requires_grad_(True).eval()
    average = engine.GeneralMovingAverage(trained, lambda step: 1.0)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10_000)
    arguments = Namespace(iters_per_epoch=1, task="domain_shift", lam=MARGIN, temperature=scale, print_freq=10_000)
    writer = types.SimpleNamespace(record_training_values=lambda values: None)
    engine.ProgressMeter.display = lambda self, batch: None

    def forever() -> Iterator[list[tuple[Tensor, Tensor]]]:
        while True:
            yield [(images.contiguous(), labels)]

    batches = forever()
    return lambda: engine.train(
        batches, trained, average, text, optimizer, schedule, 0, arguments, writer, torch.device("cpu")
    )


@contextmanager
def _modules(folder: Path, stand_ins: dict[str, types.ModuleType], own: tuple[str, ...]) -> Iterator[None]:
    """Import from `folder` with `stand_ins` in place; afterwards neither is to be found."""
    before = {name: sys.modules.get(name) for name in (*stand_ins, *own)}
    sys.modules.update(stand_ins)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def validate(tower: nn.Module, batches: list[tuple[Tensor, Tensor]], text: Tensor) -> float:
    """Give the accuracy as CLIPood's `validate`: fp32, batch by batch, the count read after each."""
    right = 0
    with torch.no_grad():
        for images, labels in batches:
            features = tower(images)
            features = features / features.norm(dim=-1, keepdim=True)
            right += int((features @ text.T).argmax(dim=1).eq(labels).sum().item())
    return right / sum(len(labels) for _, labels in batches)


def domainbed_augmentation(size: int) -> Any:
    """Give DomainBed's training transform (`MultipleEnvironmentImageFolder`), at `size` instead of 224 pixels."""
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.7, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.3, 0.3, 0.3, 0.3),
            transforms.RandomGrayscale(),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )


def domainbed_datasets(checkout: Path, data_dir: Path) -> list[Any]:
    """Give the augmented domains of PACS as a checkout of DomainBed makes them, at 224 pixels."""
    wilds = {
        name: types.ModuleType(name)
        for name in ("wilds", "wilds.datasets", "wilds.datasets.camelyon17_dataset", "wilds.datasets.fmow_dataset")
    }
    wilds["wilds.datasets.camelyon17_dataset"].Camelyon17Dataset = object  # type: ignore[attr-defined]
    wilds["wilds.datasets.fmow_dataset"].FMoWDataset = object  # type: ignore[attr-defined]
    with _modules(checkout, wilds, ("domainbed", "domainbed.datasets")):
        module: Any = importlib.import_module("domainbed.datasets")
    return list(module.PACS(str(data_dir), [], {"data_augmentation": True}).datasets)
