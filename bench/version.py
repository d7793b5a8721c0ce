"""Which code made a record."""

from __future__ import annotations

import subprocess
from functools import cache

from bench import __version__
from bench._paths import IN_CHECKOUT, PACKAGE


@cache
def code_version() -> str:
    """Give the version, with the commit in a checkout and "-dirty" where its code has changes."""
    if not IN_CHECKOUT:
        return __version__
    commit = _git("rev-parse", "--short=10", "HEAD")
    if not commit:
        return __version__
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "bench", "algorithms", "datasets")
    return f"{__version__}+g{commit}{'-dirty' if changed else ''}"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
