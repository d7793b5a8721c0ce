"""What `collect` printed for a large results folder, kept so that the same question is answered at once.

A question is the command line and the folder it was asked in. The answer counts only while every file that was read for it
has the size, time and inode that it had then, no run has come or gone, and the code is the same; anything else, a torn
file included, is no answer, and `collect` works it out anew. Files that changed within the last seconds before they were
read are not trusted to stay: nothing is kept then. Answers lie in the user's cache folder, the newest `KEPT` of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.results_folder import cache_folder, digest_of, find_sources

KEPT = 32


class Answer(NamedTuple):
    """What a command printed.

    Attributes:
        output: on standard output.
        warnings: lines on standard error.
    """

    output: str
    warnings: tuple[str, ...]


def recall(words: Sequence[str]) -> Answer | None:
    """Give the answer to a command line, if there is one that still holds."""
    try:
        with open(_path(words), encoding="utf-8") as file:
            code, root, digest, output, warnings = json.load(file)
        if code != code_stamp() or not digest or digest_of(find_sources(root), time.time_ns()) != digest:
            return None
        return Answer(output, tuple(warnings))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def remember(words: Sequence[str], root: str, digest: str, answer: Answer) -> None:
    """Keep an answer, where the files stood still and the cache folder can be written to.

    Args:
        words: the command line.
        root: the results folder.
        digest: `digest_of` its files as they were found before they were read.
        answer: what was printed.
    """
    if not digest:
        return
    from bench.files import replace_text  # not needed to recall

    with contextlib.suppress(OSError):
        path = _path(words)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps([code_stamp(), root, digest, answer.output, answer.warnings])
        replace_text(path, text, durable=False)
        _forget_old()


def say(output: str) -> None:
    """Print to standard output."""
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without ± shows a question mark, not a traceback
        sys.stdout.write(output)
        sys.stdout.flush()
    except BrokenPipeError:
        # `collect … | head` closes early; keep the interpreter from complaining at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _forget_old() -> None:
    with os.scandir(cache_folder() / "answers") as entries:
        kept = sorted((each for each in entries if each.name.endswith(".json")), key=lambda each: each.stat().st_mtime)
    for entry in kept[:-KEPT]:
        os.unlink(entry.path)


def _path(words: Sequence[str]) -> Path:
    question = json.dumps([os.getcwd(), *words])
    return cache_folder() / "answers" / f"{hashlib.sha256(question.encode()).hexdigest()[:32]}.json"


def code_stamp() -> str:
    """Name the code and the installation that answers."""
    package = os.path.dirname(os.path.abspath(__file__))
    seen: list[object] = [sys.version]
    for folder in (package, f"{package}/domainbed"):
        with os.scandir(folder) as entries:
            found = [(each.path, each.stat()) for each in entries if each.name.endswith(".py")]
        seen += sorted((path, stat.st_size, stat.st_mtime_ns) for path, stat in found)
    # Other versions of numpy or scipy may differ in a digit; installing them changes the folder that holds them.
    seen += [
        (path, os.stat(path).st_mtime_ns) for path in sys.path if path.endswith("-packages") and os.path.isdir(path)
    ]
    return hashlib.sha256(repr(seen).encode(errors="surrogateescape")).hexdigest()
