"""The exceptions a user can meet; every one of them ends a command with its message alone and exit code 2.

BenchError
├── SpecError        a trial, sweep or hparam is not valid (all problems in one message)
├── UnknownName      no algorithm, data set, backbone, … of that name
├── DataMissing      a data set, domain, class or file is not where it was looked for
├── BadImage         a file that should hold an image cannot be decoded
├── Conflict         two things that must agree do not (a name registered twice, data changed under a sweep)
├── RecordsMissing   there is nothing to collect
└── RunFailed        a trial ended with an error
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class BenchError(Exception):
    """Base of everything that is the user's to mend; its text says what is wrong, and what to do."""

    exit_code = 2


class SpecError(BenchError):
    """A trial, sweep or hparam is not valid."""


class UnknownName(BenchError):
    """No registered thing has that name."""


class DataMissing(BenchError):
    """A data set, domain, class or file is not where it was looked for."""


class BadImage(BenchError):
    """A file that should hold an image cannot be decoded."""


class Conflict(BenchError):
    """Two things that must agree do not."""


class RecordsMissing(BenchError):
    """There is nothing to collect."""


class RunFailed(BenchError):
    """A trial ended with an error."""


class Problems:
    """Collects what is wrong, so that one message can say it all."""

    def __init__(self) -> None:
        """Begin with none."""
        self._found: dict[str, BenchError] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, error: BenchError) -> None:
        """Keep `error`, once."""
        self._found.setdefault(str(error), error)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Keep a BenchError of the block and go on after it."""
        try:
            yield
        except BenchError as error:
            self.add(error)

    def raise_if_any(self) -> None:
        """Raise the one error as it is, or all in one message."""
        if len(self._found) == 1:
            raise next(iter(self._found.values()))
        if self._found:
            lines = "".join(f"\n  - {text}" for text in self._found)
            raise SpecError(f"{len(self._found)} things are wrong:{lines}")
