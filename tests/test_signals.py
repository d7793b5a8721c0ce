"""Signals: a trial notes them and stops at its next step; children that it forks do not take its handler for theirs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from bench.job import _stop_on_signals
from bench.process import WARNING


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, WARNING)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def fork_sleeper() -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    return pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, WARNING])
def test_a_trial_notes_a_signal_and_lives(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)  # tests that run in the background are started deaf to SIGINT
    with _stop_on_signals() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()


def test_a_forked_child_survives_the_warning_and_dies_of_sigterm_and_its_parent_hears_nothing() -> None:
    with _stop_on_signals() as asked:
        child = fork_sleeper()
        os.kill(child, WARNING)
        time.sleep(0.2)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        os.kill(child, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        assert not asked()


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(WARNING)
    with _stop_on_signals():
        assert signal.getsignal(WARNING) is not before
    assert signal.getsignal(WARNING) is before
