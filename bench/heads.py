"""A trainable linear classifier that starts as the zero-shot one, shared by ERM and WiSE-FT."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

from bench.lazy import functional, torch

if TYPE_CHECKING:
    from torch import Tensor

    from bench.models import TextHead


class LinearHead:
    """Linear classifier over normalised image features: logits = W f / |f| + b (WiSE-FT, section 3).

    W starts as scale * text features and b as 0, so it starts as the zero-shot head. A class that was not trained on is
    scored by its zero-shot row.

    Attributes:
        linear: W (K, d) and b (K,).
        class_names: the K classes of the rows.
        text: the zero-shot head.
    """

    def __init__(self, text: TextHead, class_names: tuple[str, ...]) -> None:
        """Start as the head `text` over `class_names`."""
        rows = text.backbone.scale * text.weights(class_names)
        self.linear = torch.nn.Linear(rows.shape[1], rows.shape[0], device=rows.device)
        self.class_names = class_names
        self.text = text
        with torch.no_grad():
            self.linear.weight.copy_(rows)
            self.linear.bias.zero_()

    def copy(self) -> LinearHead:
        """Give a frozen head with weights of its own."""
        other = copy.copy(self)
        other.linear = copy.deepcopy(self.linear).requires_grad_(False)
        return other

    def __call__(self, features: Tensor, class_names: tuple[str, ...]) -> Tensor:
        """Give logits (B, K) for image features (B, d), in float32 whatever autocast says."""
        with full_precision(features):
            weight, bias = self._rows(class_names)
            return functional.normalize(features.float(), dim=-1) @ weight.T + bias

    def _rows(self, class_names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Give W and b for `class_names`: trained rows by name, zero-shot rows for the others."""
        if class_names == self.class_names:
            return self.linear.weight, self.linear.bias
        known = {name: row for row, name in reversed([*enumerate(self.class_names)])}  # of equal names the first
        trained = [(place, known[name]) for place, name in enumerate(class_names) if name in known]
        places, rows = [place for place, _ in trained], [row for _, row in trained]
        weight = self.text.backbone.scale * self.text.weights(class_names)
        bias = weight.new_zeros(len(class_names))
        weight[places], bias[places] = self.linear.weight[rows], self.linear.bias[rows]
        return weight, bias


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Give a context without autocast: in bf16 a logit of 30 is rounded to a multiple of 1/8."""
    return torch.autocast(x.device.type, enabled=False)
