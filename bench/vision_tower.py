"""The image tower of open_clip's ViTs with a second way through it for bf16 weights, which does less for the same result.

In bf16 the tower is memory-bound sooner than its products are; what it need not do, it does not:

- the patch convolution is one matrix product (its backward as a convolution costs several times as much on a CPU);
- the last block runs for the class token alone, since nothing else is read: about a block less of the whole tower;
- attention that is trained on a CPU is two products and a softmax, see `attend`.

With float32 weights the tower is open_clip's own, to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

LONGEST = 1024
"""Tokens up to which attention probabilities are kept for the backward pass on a CPU: their size grows as the square."""


class VisionTower(VisionTransformer):  # type: ignore[misc]
    """open_clip's vision transformer; same modules, same state, same function.

    Attributes:
        has_bf16_path: with weights in bf16 it computes in bf16, whatever autocast says.
    """

    has_bf16_path = True

    def forward(self, x: Tensor) -> Tensor:
        """Give the features (B, d) of normalised images `x` (B, 3, S, S), of the weights' type."""
        if self.class_embedding.dtype != torch.bfloat16:
            features: Tensor = super().forward(x)
            return features
        with torch.autocast(x.device.type, enabled=False):  # all weights are bf16 already
            return self._lean(x.to(torch.bfloat16))

    def _lean(self, images: Tensor) -> Tensor:
        x = self._patches(images)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.ln_pre(x)
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            x = _block(block, x, x)
        x = self.ln_post(_block(last, x[:, :1], x)[:, 0])
        features: Tensor = x if self.proj is None else x @ self.proj
        return features

    def _patches(self, images: Tensor) -> Tensor:
        """Give the embedded patches (B, N, w): the convolution, whose patches do not overlap, as one product."""
        high, wide = self.patch_size
        rows, columns = self.grid_size
        parts = images.unflatten(3, (columns, wide)).unflatten(2, (rows, high))  # B 3 rows high columns wide
        patches = parts.permute(0, 2, 4, 3, 5, 1).reshape(len(images), rows * columns, -1)
        embedded: Tensor = functional.linear(patches, self.conv1.weight.permute(0, 2, 3, 1).flatten(1))
        return embedded


def vision_tower(visual: nn.Module) -> nn.Module:
    """Make an open_clip ViT a `VisionTower` in place, where it is of a kind that is known; give it back."""
    if type(visual) is VisionTransformer and _is_known(visual):
        visual.__class__ = VisionTower
    return visual


def _is_known(visual: Any) -> bool:
    transformer = visual.transformer
    return (
        visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.output_tokens
        and isinstance(visual.patch_dropout, nn.Identity)
        and visual.conv1.bias is None
        and transformer.batch_first
        and not transformer.grad_checkpointing
        and all(_is_known_block(block) for block in transformer.resblocks)
    )


def _is_known_block(block: Any) -> bool:
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return False
    attention = block.attn
    plain = attention.in_proj_weight is not None and attention.bias_k is None and not attention.add_zero_attn
    return plain and attention.in_proj_bias is not None and attention.batch_first and not attention.dropout


def _block(block: Any, x: Tensor, context: Tensor) -> Tensor:
    """Run a residual block for the tokens `x` (B, n, w), the first ones of `context` (B, L, w), which they look at."""
    attention = block.attn
    (batch, n, width), heads = x.shape, attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    normed = block.ln_1(context)
    if x is context:
        packed = functional.linear(normed, weight, bias)
        q, k, v = packed.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).contiguous().unbind(0)
    else:
        asked = functional.linear(normed[:, :n], weight[:width], bias[:width])
        packed = functional.linear(normed, weight[width:], bias[width:])
        q = asked.unflatten(2, (heads, -1)).transpose(1, 2).contiguous()
        k, v = packed.unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4).contiguous().unbind(0)
    found = attend(q, k, v).transpose(1, 2).reshape(batch, n, width)
    x = x + block.ls_1(attention.out_proj(found))
    updated: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return updated


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Give softmax(q k^T / sqrt(d)) v for q (B, H, n, d) and k, v (B, H, L, d): (B, H, n, d).

    Exact both ways; the choice is by what is asked for alone, so that a trial always takes the same. torch's fused
    attention is the faster forward pass everywhere, but its backward pass on a CPU takes several times what the plain
    products take (perf/RESULTS.md).
    """
    if not q.requires_grad or q.device.type != "cpu" or k.shape[2] > LONGEST:
        return functional.scaled_dot_product_attention(q, k, v)
    batch, heads, _, depth = q.shape
    q, k, v = (each.flatten(0, 1) for each in (q, k, v))
    scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=depth**-0.5)
    found: Tensor = torch.bmm(scores.softmax(dim=-1), v).unflatten(0, (batch, heads))
    return found
