"""bf16 working copies of float32 weights: the master weights stay what is optimised, averaged, evaluated and checkpointed.

A tower computes with the copies only while a loss is computed; gradients come back to the masters in float32. Against
autocast this saves casting weights and gradients one by one, and keeps activations in bf16 between products.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bench.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


class WorkingCopy:
    """bf16 copies of all parameters of some modules.

    Nothing of it is state: the copies are made anew from the masters before every loss.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        """Make room for the copies."""
        self._places = [
            (module, name, parameter)
            for root in modules
            for module in root.modules()
            for name, parameter in module.named_parameters(recurse=False)
        ]
        self._masters: list[Tensor] = list({id(parameter): parameter for _, _, parameter in self._places}.values())
        copies = [
            torch.nn.Parameter(master.detach().to(torch.bfloat16), requires_grad=master.requires_grad)
            for master in self._masters
        ]
        self._copy_of = {id(master): copy for master, copy in zip(self._masters, copies, strict=True)}
        self._copies: list[Tensor] = [*copies]
        self._gradients: dict[int, Tensor] = {}

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the modules compute with the copies, which are those of the masters' present values."""
        if self._copies:
            with torch.no_grad():
                torch._foreach_copy_(self._copies, self._masters)
        for module, name, master in self._places:
            module._parameters[name] = self._copy_of[id(master)]
        try:
            yield
        finally:
            for module, name, master in self._places:
                module._parameters[name] = master

    def give_gradients(self) -> None:
        """Hand the gradients of the copies to the masters, in float32, and forget them."""
        pairs = [(m, c) for m, c in zip(self._masters, self._copies, strict=True) if c.grad is not None]
        for master, _ in pairs:
            if id(master) not in self._gradients:  # kept, so that no memory is asked for at every step
                self._gradients[id(master)] = torch.empty_like(master, requires_grad=False)
            master.grad = self._gradients[id(master)]
        if pairs:
            into = [self._gradients[id(master)] for master, _ in pairs]
            torch._foreach_copy_(into, [copy.grad for _, copy in pairs if copy.grad is not None])
        for _, copy in pairs:
            copy.grad = None
