"""Stable seeds from any parts, as DomainBed makes them."""

import hashlib

import numpy as np


def seed_hash(*parts: object) -> int:
    """Hash the text of the tuple `parts` to a seed in [0, 2**31).

    The same number as DomainBed's `lib/misc.py: seed_hash`. It hashes text, so types matter: `[0]` and `(0,)` differ.
    NumPy scalars print differently from one NumPy to the next and are refused.

    Raises:
        TypeError: a part is a NumPy scalar; cast it to a built-in number first.
    """
    for part in parts:
        if isinstance(part, np.generic):
            raise TypeError(f"seed_hash got the NumPy scalar {part!r}: cast it to a built-in int, float or str")
    return int(hashlib.md5(str(parts).encode()).hexdigest(), 16) % (2**31)


def legacy_stream(*parts: object) -> np.random.RandomState:
    """Give DomainBed's kind of stream (MT19937) for `parts`; used where its numbers must be met to the digit."""
    return np.random.RandomState(seed_hash(*parts))


def stream(*parts: object) -> np.random.Generator:
    """Give an independent random stream for `parts`; the same parts give the same stream on every machine."""
    return np.random.Generator(np.random.PCG64(seed_hash(*parts)))
