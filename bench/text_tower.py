"""open_clip's text transformer, opened up: it can start from tokens or from embeddings, as prompt learning needs.

Imports torch; `bench.models` imports this when a model is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import SpecError


class TextTower(nn.Module):
    """A text transformer that pools at the end-of-text token.

    The parts are open_clip's own modules, so weights load and digests stay as they are.

    Attributes:
        pool: where it is read out: "argmax" (the largest id), "eos" (the id `eos_id`) or "last".
        is_causal: no token sees a later one, so nothing behind the place that is read out matters.
    """

    def __init__(self, holder: Any, pool: str) -> None:
        """Take the parts out of `holder`, an open_clip CLIP or TextTransformer with pool type `pool`."""
        super().__init__()
        self.token_embedding = holder.token_embedding
        self.positional_embedding = holder.positional_embedding
        self.transformer = holder.transformer
        self.ln_final = holder.ln_final
        self.text_projection = holder.text_projection
        self.attn_mask: Tensor | None
        self.register_buffer("attn_mask", holder.attn_mask, persistent=False)
        self.pool = pool
        self.eos_id: int = getattr(holder, "text_eos_id", getattr(holder, "eos_id", -1))
        mask = self.attn_mask
        self.is_causal: bool = mask is not None and torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1))

    def embed(self, tokens: Tensor) -> Tensor:
        """Give the embeddings (n, L, w) of `tokens` (n, L), without positions."""
        embeddings: Tensor = self.token_embedding(tokens)
        return embeddings

    def end_positions(self, tokens: Tensor) -> Tensor:
        """Give the position (n,) that is read out for each row of `tokens` (n, L)."""
        if self.pool == "last":
            return torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device)
        if self.pool == "eos":
            return tokens.eq(self.eos_id).int().argmax(dim=-1)
        return tokens.argmax(dim=-1)

    def needed(self, positions: Tensor, length: int) -> int:
        """Give how many of `length` tokens must be run where read-out is at `positions` (n,)."""
        return int(positions.max()) + 1 if self.is_causal else length

    def from_embeddings(self, x: Tensor, positions: Tensor) -> Tensor:
        """Give the features (n, d) of embeddings `x` (n, L, w), read out at `positions` (n,).

        L may be as short as `needed` says.
        """
        length = x.shape[1]
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        x = self.transformer(x + self.positional_embedding[:length], attn_mask=mask)
        return self.project(x[torch.arange(len(x), device=x.device), positions])

    def project(self, x: Tensor) -> Tensor:
        """Give the features (n, d) of what the last layer gave where it is read out, (n, w)."""
        pooled = self.ln_final(x)
        if isinstance(self.text_projection, nn.Linear):
            projected: Tensor = self.text_projection(pooled)
            return projected
        return pooled if self.text_projection is None else torch.matmul(pooled, self.text_projection)

    def forward(self, tokens: Tensor) -> Tensor:
        """Give the features (n, d) of `tokens` (n, L), not normalised."""
        return self.from_embeddings(self.embed(tokens), self.end_positions(tokens))


def text_tower(model: nn.Module) -> TextTower:
    """Make a `TextTower` of an open_clip model's text half.

    Raises:
        SpecError: it is no plain token transformer (Hugging Face text towers, CoCa).
    """
    holder: Any = model if hasattr(model, "token_embedding") else getattr(model, "text", None)
    pool: str = getattr(holder, "text_pool_type", getattr(holder, "pool_type", ""))
    known = hasattr(holder, "token_embedding") and pool in ("argmax", "eos", "last")
    if not known or getattr(holder, "cls_emb", None) is not None or getattr(holder, "use_pad_mask", False):
        raise SpecError(
            f"the text tower {type(getattr(model, 'text', model)).__name__} is not supported: "
            "CLIPBed needs an open_clip text transformer that pools at the end-of-text token"
        )
    return TextTower(holder, pool)
