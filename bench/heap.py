"""The C library's heap, set up for training on a CPU.

An update frees activations of hundreds of megabytes and asks for as many at once in the next one. By default glibc gives
blocks of over 32 MB back to the system each time, which must then clear and map every page anew: on a virtual machine
that can take half of a CNN's step.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
"""Numbers of options in glibc's malloc.h."""
_USERS_OWN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


def keep_freed_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Let this process keep memory that it frees, for its next request, as long as it lives; numbers do not change.

    Returns:
        Whether glibc took it: not where there is none, nor where the user's environment says what malloc should do.
    """
    if any(name in environ for name in _USERS_OWN) or "glibc.malloc" in environ.get("GLIBC_TUNABLES", ""):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
