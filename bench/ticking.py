"""A thread that does something small every now and then."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def every(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    """Call `do` in a thread, every `seconds`, while the block runs."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(seconds):
            do()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
