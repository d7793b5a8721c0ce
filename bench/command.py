"""What all commands share: how errors become messages and exit codes, and types of arguments."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable

from bench import console
from bench.errors import BenchError


def exit_code(command: str, work: Callable[[], int], *, interrupted: str = "interrupted") -> int:
    """Do a command's work; give its exit code: the work's own, 2 where the input is no good, 130 after Ctrl-C.

    Args:
        command: its name, before messages.
        work: what it does.
        interrupted: what to say after Ctrl-C.
    """
    try:
        return work()
    except BenchError as error:
        console.warn(f"{command}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        console.warn(interrupted)
        return 130
    except BrokenPipeError:
        # `sweep list … | head` closes early; keep the interpreter from complaining at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        reason = f"{error.strerror or error}: {error.filename or 'no file'}"
        console.warn(f"{command}: {reason}; make room or give another folder")
        return BenchError.exit_code


def from_one(words: str) -> int:
    """Read a whole number from 1."""
    if not words.isdecimal() or int(words) < 1:
        raise argparse.ArgumentTypeError(f"{words!r} is not a whole number from 1")
    return int(words)


def from_zero(words: str) -> int:
    """Read a whole number from 0."""
    return 0 if words == "0" else from_one(words)
