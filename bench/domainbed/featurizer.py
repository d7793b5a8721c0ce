"""A CLIP image tower in the place of DomainBed's `networks.Featurizer`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import SpecError


class TowerFeaturizer(nn.Module):
    """An image tower as DomainBed's algorithms want it: features of (B, 3, S, S) as they come, not normalised.

    Attributes:
        n_outputs: number of features.
        tower: the image tower; it stays in eval mode, as everywhere in CLIPBed.
        dropout: on the features, as DomainBed's `resnet_dropout`.
        activation: an algorithm may put another one in its place, as URM does.
    """

    def __init__(self, tower: nn.Module, n_outputs: int, dropout: float) -> None:
        """Take a tower to train."""
        super().__init__()
        self.n_outputs = n_outputs
        self.tower = tower
        self.dropout = nn.Dropout(dropout)
        self.activation: nn.Module = nn.Identity()
        self.train()

    def train(self, mode: bool = True) -> TowerFeaturizer:
        """Switch the dropout; the tower stays as it is."""
        super().train(mode)
        self.tower.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Give features (B, n_outputs)."""
        features: Tensor = self.activation(self.dropout(self.tower(images).float()))
        return features


@contextlib.contextmanager
def in_place_of(networks: Any, make_tower: Callable[[], nn.Module], n_outputs: int) -> Iterator[None]:
    """Let `networks.Featurizer` give towers of ours.

    `networks.ResNet` is ours likewise, since URM asks whether the featurizer is one. Some algorithms (Fish) build networks
    in every update, so an update needs this as well.

    Args:
        networks: DomainBed's module.
        make_tower: gives a fresh copy of the pre-trained tower.
        n_outputs: number of its features.
    """

    def featurizer(input_shape: Sequence[int], hparams: Mapping[str, Any]) -> TowerFeaturizer:
        """Stand in for `networks.Featurizer`."""
        if input_shape[0] != 3:
            raise SpecError(
                f"it asks for a featurizer of {input_shape[0]} channels, and an image tower takes the three of RGB"
            )
        return TowerFeaturizer(make_tower(), n_outputs, float(hparams.get("resnet_dropout", 0.0)))

    replaced = {"Featurizer": featurizer, "ResNet": TowerFeaturizer}
    before = {name: getattr(networks, name) for name in replaced if hasattr(networks, name)}
    vars(networks).update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            delattr(networks, name)
        vars(networks).update(before)


class Predicting(nn.Module):
    """What `predict` of one of DomainBed's algorithms gives, in eval mode, as a module: images → logits (B, K).

    Attributes:
        method: the algorithm.
        seed: of torch's random state while it predicts, since some (MTL) draw noise; the state itself is left alone.
    """

    def __init__(self, method: nn.Module) -> None:
        """Wrap an algorithm."""
        super().__init__()
        self.method = method
        self.seed = 0

    def forward(self, images: Tensor) -> Tensor:
        """Give logits; the algorithm goes back to the mode it was in, as in DomainBed's `misc.accuracy`."""
        training = self.method.training
        self.method.eval()
        try:
            with torch.random.fork_rng([images.device] if images.is_cuda else []):
                torch.manual_seed(self.seed)
                logits: Tensor = self.method.predict(images)  # type: ignore[operator]
        finally:
            self.method.train(training)
        return logits if logits.shape[1] > 1 else torch.cat([torch.zeros_like(logits), logits], dim=1)
