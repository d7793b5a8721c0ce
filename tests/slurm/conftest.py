"""Slurm test clusters for the tests in this folder; they are skipped where none can be started, saying why."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.slurm.cluster import Cluster, missing


@pytest.fixture(scope="session")
def one_cluster() -> Iterator[Cluster]:
    """One cluster for all tests of this process; use `cluster`."""
    _skip_where_impossible()
    with Cluster() as started:
        yield started


@pytest.fixture
def cluster(one_cluster: Cluster) -> Iterator[Cluster]:
    """A Slurm of three nodes with two GPUs each, all idle; what a test leaves behind is cleared away after it."""
    yield one_cluster
    one_cluster.reset()


@pytest.fixture
def start_cluster() -> Iterator[Callable[..., Cluster]]:
    """Give a function that starts a further cluster with settings of its own, for the length of a test."""
    _skip_where_impossible()
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Cluster(**settings))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the cluster's logs with a test that failed on it."""
    report = yield
    used = getattr(item, "funcargs", {}).get("cluster")
    if report.when == "call" and report.failed and isinstance(used, Cluster):
        report.sections.append(("logs of the Slurm cluster", used.log_tail()))
    return report


def _skip_where_impossible() -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)
