"""A whole object as bytes for a checkpoint, and back, building nothing but what networks and optimizers are made of.

DomainBed's algorithms keep what changes wherever they like: optimizers, counters, moving averages and lists of modules are
plain attributes, optimizers are replaced on the way, buffers change their shape. Only the whole object holds it all,
with its parts still shared as they were.
"""

from __future__ import annotations

import io
import pickle
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from bench.errors import RunFailed

_CLASSES_OF = ("torch", "domainbed", "bench", "open_clip", "timm", "backpack")
_FUNCTIONS_OF = ("torch._utils", "torch.nn.functional", "numpy._core.multiarray", "numpy.core.multiarray")
_BUILT_IN = ("set", "frozenset", "dict", "list", "slice", "range", "complex", "bytearray")
_PLAIN = {
    "__builtin__": _BUILT_IN,  # what Python 2 called it, and pickle still does
    "builtins": _BUILT_IN,
    "_codecs": ("encode",),  # of bytes, in numbers of NumPy's
    "collections": ("OrderedDict", "defaultdict", "deque", "Counter"),
    "functools": ("partial",),
    "numpy": ("dtype", "ndarray"),
}


def to_bytes(thing: Any) -> Tensor:
    """Give `thing` as (n,) uint8.

    Raises:
        RunFailed: it holds something that cannot be stored.
    """
    buffer = io.BytesIO()
    try:
        torch.save(thing, buffer)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RunFailed(
            f"{type(thing).__name__} cannot be kept in a checkpoint ({type(error).__name__}: {error}), so a trial of it "
            "could not be resumed"
        ) from error
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8).clone()


def from_bytes(data: Tensor, device: torch.device) -> Any:
    """Give back what `to_bytes` took, on `device`.

    Raises:
        ValueError: it names something that no network or optimizer is made of, or something that is no longer there.
    """
    buffer = io.BytesIO(data.cpu().numpy().tobytes())
    reader = SimpleNamespace(Unpickler=_Reader, load=pickle.load, __name__=__name__)
    try:
        return torch.load(buffer, map_location=device, weights_only=False, pickle_module=reader)
    except (pickle.UnpicklingError, AttributeError, ImportError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


class _Reader(pickle.Unpickler):
    """Refuses names that have no business in a network, so that a checkpoint cannot call whatever it likes."""

    def find_class(self, module: str, name: str) -> Any:
        """Give what a name in the pickle stands for, if it is allowed."""
        is_plain = module in _FUNCTIONS_OF or name in _PLAIN.get(module, ())
        is_known = is_plain or module.partition(".")[0] in _CLASSES_OF
        if is_known and "." not in name:  # what hangs on an allowed name is not allowed by that
            found = super().find_class(module, name)
            if is_plain or isinstance(found, type):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} does not belong into a checkpoint")
