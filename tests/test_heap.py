"""Memory that a trial frees stays with its process, unless the user says otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from bench.heap import keep_freed_memory

FREED = """
import resource, sys
from bench.heap import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
b"x" * 80_000_000  # freed at once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    b"x" * 80_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc's")
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    faults = {}
    for way in ("kept", "given_back"):
        command = [sys.executable, "-c", FREED, way]
        faults[way] = int(subprocess.run(command, capture_output=True, check=True, text=True, env=plain).stdout)
    assert 20 * faults["kept"] < faults["given_back"], faults


@pytest.mark.parametrize(
    "own", [{"MALLOC_TRIM_THRESHOLD_": "1"}, {"MALLOC_MMAP_MAX_": "8"}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}]
)
def test_what_the_user_says_of_malloc_holds(own: dict[str, str]) -> None:
    assert not keep_freed_memory(own)
