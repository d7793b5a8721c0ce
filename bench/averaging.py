"""Averages of weights, made in place: running averages over the iterates, and interpolation of two end points.

Owns the arithmetic on weights; which iterate weighs how much is the method's to say.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


def running_shares(weights: NDArray[np.float64]) -> list[float]:
    """Give w_i / (w_0 + … + w_i) for every i: the share that iterate i takes in the running average when it arrives.

    With `average += share_i * (theta_i - average)` the average after iterate n is sum w_i theta_i / sum w_i.
    """
    shares: list[float] = (weights / np.cumsum(weights)).tolist()
    return shares


class AveragedTower:
    """A running average of a tower's parameters, kept in a second tower that can be evaluated as it is.

    It starts as a copy of the tower. Only parameters are averaged: buffers stay those of the start. The accumulators
    are the second tower's own float32 parameters, so its state is all there is to checkpoint.

    Attributes:
        tower: holds the average; frozen, in the mode of the source.
    """

    def __init__(self, source: nn.Module, half: Collection[str] = ()) -> None:
        """Average the parameters of `source`; those named in `half` are accumulated in float16 steps."""
        self.tower = copy.deepcopy(source).requires_grad_(False)
        pairs = [
            (name in half, average, current)
            for (name, average), current in zip(self.tower.named_parameters(), source.parameters(), strict=True)
        ]
        self._averages: list[Tensor] = [average for is_half, average, _ in pairs if not is_half]
        self._currents: list[Tensor] = [current for is_half, _, current in pairs if not is_half]
        self._half_averages: list[Tensor] = [average for is_half, average, _ in pairs if is_half]
        self._half_currents: list[Tensor] = [current for is_half, _, current in pairs if is_half]

    def add(self, share: float) -> None:
        """Move the average by `share` (0 to below 1) of the way to the source's present parameters."""
        with torch.no_grad():
            if self._averages:
                torch._foreach_lerp_(self._averages, self._currents, share)
            if self._half_averages:
                self._add_half(share / (1 - share))

    def _add_half(self, ratio: float) -> None:
        """Do (average + ratio * current) / (1 + ratio) with every result rounded to float16."""
        sums = [average.half() for average in self._half_averages]
        addends = [current.half() for current in self._half_currents]
        torch._foreach_mul_(addends, ratio)
        torch._foreach_add_(sums, addends)
        torch._foreach_div_(sums, 1 + ratio)
        torch._foreach_copy_(self._half_averages, sums)


def interpolate_(target: nn.Module, start: nn.Module, end: nn.Module, alpha: float) -> None:
    """Set every entry of `target`'s state to (1 - alpha) * start + alpha * end; exact at alpha 0 and 1.

    Integer entries, e.g. counters of batch norm, are taken from `end`.

    Raises:
        ValueError: the three states do not have the same entries.
    """
    states = [module.state_dict() for module in (target, start, end)]
    if not states[0].keys() == states[1].keys() == states[2].keys():
        raise ValueError("weights can only be interpolated between models with the same entries in their states")
    triples = list(zip(*(state.values() for state in states), strict=True))
    with torch.no_grad():
        for into, _, last in (triple for triple in triples if not triple[0].is_floating_point()):
            into.copy_(last)
        floats = [triple for triple in triples if triple[0].is_floating_point()]
        torch._foreach_copy_([into for into, _, _ in floats], [first for _, first, _ in floats])
        torch._foreach_lerp_([into for into, _, _ in floats], [last for _, _, last in floats], alpha)


def half_parameters(tower: nn.Module) -> dict[str, Tensor]:
    """Give, by name, the parameters that OpenAI's `convert_weights` holds in float16 on a GPU.

    Those are all of convolutions, linear layers and attention, and a bare `proj`; normalisation layers, class and
    position embeddings stay float32.
    """
    kinds = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Linear, torch.nn.MultiheadAttention)
    return {
        f"{prefix}.{name}" if prefix else name: parameter
        for prefix, module in tower.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, kinds) or name == "proj"
    }


def round_to_half_(tensors: Iterable[Tensor]) -> None:
    """Round each of `tensors` to the nearest float16 value, in place and without changing its type."""
    tensors = list(tensors)
    with torch.no_grad():
        torch._foreach_copy_(tensors, [tensor.half() for tensor in tensors])
