"""Stable seeds from any parts, as DomainBed makes them."""

import hashlib

import numpy as np


def seed_hash(*parts: object) -> int:
    """Hash the text of the tuple `parts` to a seed in [0, 2**31).

    The same number as DomainBed's `lib/misc.py: seed_hash`. It hashes text, so types matter: `[0]` and `(0,)` differ.
    NumPy scalars print differently from one NumPy to the next and are refused, also within lists and tuples.

    Raises:
        TypeError: a part is or holds a NumPy scalar or array; cast it to built-in numbers first.
    """
    for part in parts:
        _refuse_numpy(part)
    return int(hashlib.md5(str(parts).encode()).hexdigest(), 16) % (2**31)


def _refuse_numpy(part: object) -> None:
    if isinstance(part, (np.generic, np.ndarray)):
        raise TypeError(f"seed_hash got the NumPy value {part!r}: cast it to built-in int, float, str or list")
    if isinstance(part, (list, tuple)):
        for each in part:
            _refuse_numpy(each)


def legacy_stream(*parts: object) -> np.random.RandomState:
    """Give DomainBed's kind of stream (MT19937) for `parts`; used where its numbers must be met to the digit."""
    return np.random.RandomState(seed_hash(*parts))


def stream(*parts: object) -> np.random.Generator:
    """Give an independent random stream for `parts`; the same parts give the same stream on every machine."""
    return np.random.Generator(np.random.PCG64(seed_hash(*parts)))
