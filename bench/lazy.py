"""Heavy modules that load at their first use, so that `--help`, `list` and `status` answer at once.

A plug-in writes `from bench.lazy import torch` instead of `import torch`; everything else stays as it is. Type checkers
see the real modules.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:

    class _LazyModule(ModuleType):
        def __getattr__(self, name: str) -> Any:
            module = importlib.import_module(self.__name__)
            self.__dict__.update(module.__dict__)
            return getattr(module, name)

    torch = _LazyModule("torch")
    functional = _LazyModule("torch.nn.functional")

__all__ = ["functional", "torch"]
