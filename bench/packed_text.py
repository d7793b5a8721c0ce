"""Text features of prompts that begin alike: what they share is run once, padding and all behind end-of-text never.

Owns an exact and faster way through open_clip's causal text transformer; what the prompts hold is `bench.prompts`'s to
say. Attention is causal, so the hidden states of tokens that all prompts begin with are the same in every prompt:
their keys and values are computed once, and each prompt runs its own tokens only, up to its end-of-text. The own tokens
of all prompts lie behind each other without padding, prompts of equal length together. In the last layer only
end-of-text is run.

Imports torch: plug-ins import this inside their functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from bench.text_tower import TextTower

MEMORY = 2**30
"""Bytes of activations that are kept for the gradient; prompts that need more are run in blocks, and all blocks but the
last are run once more in the backward pass."""

SAVED = 14
"""Vectors of the tower's width that autograd keeps a token and layer, about (measured: 10 with GELU, 14 with QuickGELU)."""


@dataclass(frozen=True)
class Block:
    """Some of the prompts, to be run together.

    Attributes:
        index: (n,) where the tokens lie among all prompts' own ones, flattened.
        positions: (n,) their positions in the prompts.
        groups: (number of prompts, own tokens of each), in the order of `index`.
        ends: (k,) which of the n tokens are read out.
    """

    index: Tensor
    positions: Tensor
    groups: tuple[tuple[int, int], ...]
    ends: Tensor

    @property
    def sizes(self) -> list[int]:
        """Give the number of tokens of each group."""
        return [prompts * own for prompts, own in self.groups]


class PackedPrompts:
    """How K prompts are run that share their first tokens.

    Attributes:
        n_shared: number p of tokens that all prompts begin with.
        blocks: which prompts are run together, short ones first.
    """

    def __init__(self, tower: TextTower, ends: Tensor, n_shared: int) -> None:
        """Lay out prompts that are read out at `ends` (K,), each behind the first `n_shared` tokens."""
        self.n_shared = n_shared
        self._tower = tower
        self._lower: dict[torch.dtype, list[dict[str, Tensor]]] = {}
        order = torch.argsort(ends, stable=True)
        self._places = torch.argsort(order)
        kept = SAVED * 4 * tower.positional_embedding.shape[1] * len(tower.transformer.resblocks)
        room = max(1, MEMORY // kept)
        own = ends + 1 - n_shared
        longest = int(own.max())
        self.blocks = [_laid_out(chosen, own[chosen], longest, n_shared) for chosen in _parts(order, own[order], room)]

    def __call__(self, shared: Tensor, own: Tensor) -> Tensor:
        """Give the text features (K, d), not normalised, in the order of the prompts.

        Args:
            shared: (p, w) embeddings that all prompts begin with, without positions.
            own: (K, s, w) embeddings of what follows in each, up to the last end-of-text.
        """
        embeddings = own.flatten(0, 1)
        found = []
        for i, block in enumerate(self.blocks):
            is_last = i == len(self.blocks) - 1  # whose activations the backward pass needs first of all
            if torch.is_grad_enabled() and not is_last:
                found.append(checkpoint(self._run, shared, embeddings, block, use_reentrant=False))
            else:
                found.append(self._run(shared, embeddings, block))
        return torch.cat(found).index_select(0, self._places)

    def _run(self, shared: Tensor, embeddings: Tensor, block: Block) -> Tensor:
        tower, p = self._tower, self.n_shared
        positions = tower.positional_embedding
        own = embeddings.index_select(0, block.index) + positions[block.positions]
        x = torch.cat([shared + positions[:p], own])
        *layers, last = zip(tower.transformer.resblocks, self._weights(x.device.type), strict=True)
        for layer, weights in layers:
            x = x + layer.ls_1(_attention(layer, weights, x, p, block))
            x = x + layer.ls_2(_mlp(layer, weights, x))
        layer, weights = last
        read = p + block.ends
        x = x[read] + layer.ls_1(_attention(layer, weights, x, p, block, read))
        return tower.project(x + layer.ls_2(_mlp(layer, weights, x)))

    def _weights(self, device: str) -> list[dict[str, Tensor]]:
        """Give the matrices of every layer; under autocast copies of its type.

        The copies are made once: autocast would make them anew in every step, as it remembers none that is not trained.
        """
        layers = [_matrices(layer) for layer in self._tower.transformer.resblocks]
        if not torch.is_autocast_enabled(device):
            return layers
        dtype = torch.get_autocast_dtype(device)
        if dtype not in self._lower:
            self._lower[dtype] = [{name: each.to(dtype) for name, each in layer.items()} for layer in layers]
        return self._lower[dtype]


def can_pack(tower: TextTower) -> bool:
    """Say whether `tower` is made of the causal blocks that `PackedPrompts` knows the inside of."""
    from open_clip.transformer import ResidualAttentionBlock

    blocks = getattr(tower.transformer, "resblocks", ())
    plain = all(
        type(block) is ResidualAttentionBlock
        and not hasattr(block, "ln_1_kv")
        and block.attn.in_proj_weight is not None
        and block.attn.bias_k is None
        and not any(weight.requires_grad for weight in block.parameters())
        for block in blocks
    )
    return bool(blocks) and plain and tower.is_causal and tower.pool in ("argmax", "eos")


def _parts(order: Tensor, own: Tensor, room: int) -> Iterator[Tensor]:
    """Cut `order` (K,) into as few runs of about equal work as hold at most about `room` of the prompts' `own` tokens."""
    so_far = own.cumsum(0)
    total = int(so_far[-1])
    part = (so_far - 1) * -(-total // room) // total
    yield from order.split(part.unique_consecutive(return_counts=True)[1].tolist())


def _laid_out(chosen: Tensor, own: Tensor, longest: int, n_shared: int) -> Block:
    """Lay out the prompts `chosen`, whose numbers of `own` tokens do not fall; the longest of all has `longest`."""
    within = torch.cat([torch.arange(length) for length in own.tolist()]).to(own.device)
    lengths, counts = own.unique_consecutive(return_counts=True)
    return Block(
        index=chosen.repeat_interleave(own) * longest + within,
        positions=within + n_shared,
        groups=tuple(zip(counts.tolist(), lengths.tolist(), strict=True)),
        ends=own.cumsum(0) - 1,
    )


def _matrices(layer: Any) -> dict[str, Tensor]:
    modules: dict[str, nn.Module] = {"out": layer.attn.out_proj, "up": layer.mlp.c_fc, "down": layer.mlp.c_proj}
    found = {name: module.weight for name, module in modules.items()}
    found |= {f"{name}_bias": module.bias for name, module in modules.items()}
    return {**found, "in": layer.attn.in_proj_weight, "in_bias": layer.attn.in_proj_bias}


def _mlp(layer: Any, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    hidden = functional.linear(layer.ln_2(x), weights["up"], weights["up_bias"])
    return functional.linear(layer.mlp.gelu(hidden), weights["down"], weights["down_bias"])


def _attention(
    layer: Any, weights: dict[str, Tensor], x: Tensor, p: int, block: Block, read: Tensor | None = None
) -> Tensor:
    """Let the tokens x (p + n, w) attend: shared ones to shared ones, own ones to these and their prompt's.

    With `read` (k,) only those tokens are asked for: (k, w).
    """
    heads = layer.attn.num_heads
    projected = functional.linear(layer.ln_1(x), weights["in"], weights["in_bias"])
    split = projected.view(len(x), 3, heads, -1).permute(1, 2, 0, 3)  # (3, heads, p + n, w / heads)
    (q_shared, q), (k_shared, k), (v_shared, v) = (each.split([p, len(x) - p], dim=1) for each in split)
    if read is None:
        first = functional.scaled_dot_product_attention(q_shared, k_shared, v_shared, is_causal=True)
        found = [first, *_own_attention(q, k, v, k_shared, v_shared, block.groups, block.sizes)]
    else:
        q = q[:, read - p]
        alone = [(prompts, 1) for prompts, _ in block.groups]
        found = _own_attention(q, k, v, k_shared, v_shared, block.groups, [prompts for prompts, _ in alone])
    attended = torch.cat(found, dim=1).transpose(0, 1).flatten(1)
    return functional.linear(attended, weights["out"], weights["out_bias"])


def _own_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_shared: Tensor,
    v_shared: Tensor,
    groups: Sequence[tuple[int, int]],
    asking: Sequence[int],
) -> list[Tensor]:
    """Give, for each group, what its tokens that ask (heads, asking, w / heads) attend to.

    The scores with the shared keys are one product for all prompts; the keys are not copied to every prompt. Those who
    ask are all own tokens of a prompt, or its last one.
    """
    heads, _, size = q.shape
    p = k_shared.shape[1]
    q = q * size**-0.5
    to_shared = (q @ k_shared.transpose(1, 2)).split(list(asking), dim=1)
    sizes = [prompts * own for prompts, own in groups]
    found = []
    for (prompts, own), scores, *parts in zip(
        groups, to_shared, q.split(list(asking), dim=1), k.split(sizes, dim=1), v.split(sizes, dim=1), strict=True
    ):
        asks, keys, values = (part.reshape(heads, prompts, -1, size) for part in parts)
        within = asks @ keys.transpose(2, 3)
        if asks.shape[2] > 1:
            hidden = torch.ones(own, own, dtype=torch.bool, device=q.device).triu(1)
            within = within.masked_fill(hidden, float("-inf"))
        both = torch.cat([scores.reshape(heads, prompts, -1, p), within], dim=-1)
        exact = torch.promote_types(both.dtype, torch.float32)
        shares = both.softmax(dim=-1, dtype=exact).to(values.dtype)
        attended = (shares[..., p:] @ values).flatten(1, 2)
        found.append(attended + shares[..., :p].flatten(1, 2) @ v_shared)
    return found
