"""Run DomainBed's own `scripts/train.py` on the image tower of a backbone of ours: `CHECKOUT BACKBONE MARK [its options]`.

Its code is used as it is but for one function, `networks.Featurizer`, which knows no CLIP: here it gives the tower behind
a resize to the tower's input size, and undoes DomainBed's normalisation. When the first update has been done, the file
MARK is made. Modules that it imports and that this measurement does not need are replaced by empty ones where they are
not installed.
"""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""DomainBed's normalisation."""

OPTIONAL = {
    "wilds": ("datasets", "datasets.camelyon17_dataset", "datasets.fmow_dataset"),
    "backpack": ("extensions",),
    "imageio": (),
    "gdown": (),
    "parameterized": (),
}


def stand_in(name: str) -> ModuleType:
    """Make a module all of whose attributes exist."""

    class Empty(ModuleType):
        def __getattr__(self, attribute: str) -> Any:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            return MagicMock()

    return Empty(name)


def main() -> None:
    """Patch and run."""
    checkout, backbone, mark, *options = sys.argv[1:]
    for name, parts in OPTIONAL.items():
        if find_spec(name) is None:
            sys.modules.update({each: stand_in(each) for each in (name, *(f"{name}.{part}" for part in parts))})
    sys.path.insert(0, checkout)
    from domainbed import algorithms, networks  # type: ignore[import-not-found]

    networks.Featurizer = lambda input_shape, hparams: featurizer(backbone)
    update = algorithms.ERM.update

    def marked(self: Any, *given: Any) -> Any:
        logs = update(self, *given)
        Path(mark).touch()
        return logs

    algorithms.ERM.update = marked
    sys.argv = ["train.py", *options]
    runpy.run_module("domainbed.scripts.train", run_name="__main__")


def featurizer(name: str) -> Any:
    """Give the tower as a module with `n_outputs`, for images of 224 px normalised as DomainBed does."""
    import torch
    from torch.nn import functional

    from bench.models import load_backbone
    from bench.spec import Places
    from perf.published import as_published

    backbone = load_backbone(name, "embedded" if name == "tiny" else "random", Places())

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = as_published(backbone.trainable_visual())
            mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
            own_mean, own_std = (torch.tensor(each).view(3, 1, 1) for each in (backbone.image.mean, backbone.image.std))
            self.factor, self.offset = std / own_std, (mean - own_mean) / own_std
            with torch.no_grad():
                self.n_outputs = self.tower(torch.zeros(1, 3, backbone.image.size, backbone.image.size)).shape[1]

        def forward(self, images: Any) -> Any:
            size = backbone.image.size
            small = (
                images if images.shape[-1] == size else functional.interpolate(images, (size, size), mode="bilinear")
            )
            return self.tower(small * self.factor + self.offset)

    return Tower()


if __name__ == "__main__":
    main()
