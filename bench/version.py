"""Which code made a record."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache

from bench import __version__
from bench._paths import IN_CHECKOUT, PACKAGE

SNAPSHOT_FILE = "snapshot.txt"
"""File in the package folder of a snapshot (`bench.snapshot`): the version of the code that it is a copy of."""

CODE_FOLDERS = ("bench", "algorithms", "datasets")
"""Folders of a checkout whose files decide results; what sweeps ask for is in each trial's spec."""

_FIELDS_BEFORE_PATH = {"1": 7, "u": 9}
"""Of a line of `git status --porcelain=v2`, by its kind: a changed file, an unmerged one."""


@cache
def code_version() -> str:
    """Give the version, with the commit in a checkout, and what tells its changes from other changes.

    Returns:
        The bare version of an installed wheel, "0.1.0+g<commit>" of a clean checkout, and "…-dirty.<8 digits>" where code
        differs from the commit: the digits are of the changed files and of the untracked Python files. A snapshot gives
        what it was taken from.
    """
    return current_version()


def current_version() -> str:
    """Give the version of the code as it lies on the disk now, which `code_version` remembers from its first call."""
    try:
        return (PACKAGE / SNAPSHOT_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass
    if not IN_CHECKOUT:
        return __version__
    commit, changed = _commit_and_changes()
    if not commit:
        return __version__
    return f"{__version__}+g{commit}{f'-dirty.{_digest(changed)}' if changed else ''}"


def _commit_and_changes() -> tuple[str, list[str]]:
    """Give ten digits of the commit and the files of the code folders that are not as in it, as paths in the checkout.

    Untracked files count if they are Python's. No commit where there is no git; one that cannot tell (an old one, or one
    that took too long) counts as of no changes.
    """
    told = _git(
        *("status", "--porcelain=v2", "-z", "--branch", "--no-ahead-behind", "--no-renames"),
        *("--untracked-files=all", "--ignore-submodules=untracked", "--", *CODE_FOLDERS),
    )
    if not told:
        return _git("rev-parse", "--short=10", "HEAD").strip(), []
    commit, names = "", set()
    for entry in told.split("\0"):
        kind, _, rest = entry.partition(" ")
        if entry.startswith("# branch.oid ") and not entry.endswith("(initial)"):
            commit = entry.split()[-1][:10]
        elif kind in _FIELDS_BEFORE_PATH:
            names.add(rest.split(" ", _FIELDS_BEFORE_PATH[kind])[-1])
        elif kind == "?" and rest.endswith(".py"):
            names.add(rest)
    prefix = _git("rev-parse", "--show-prefix").strip("\n") if names else ""  # status counts from the repository's top
    return commit, sorted(name.removeprefix(prefix) for name in names)


def _digest(names: list[str]) -> str:
    """Give eight digits over names and content; a deleted file counts by its name."""
    hashed = hashlib.sha256()
    for name in names:
        path = PACKAGE.parent / name
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "deleted"
        hashed.update(f"{name}\0{content}\n".encode(errors="surrogateescape"))
    return hashed.hexdigest()[:8]


def _git(*arguments: str) -> str:
    """Run git on the checkout without touching its index; nothing where there is no git, or it says no."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="surrogateescape") if done.returncode == 0 else ""
