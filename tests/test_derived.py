"""Derived arrays: computed once, whole whatever happens, limited in size, and gone when asked for."""

from __future__ import annotations

import multiprocessing
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import derived, files
from bench.derived import Derived, digest, limit_bytes
from bench.errors import SpecError

LARGE = 2**40


def fail() -> Any:
    pytest.fail("computed again")


def count(size: int) -> np.ndarray[Any, Any]:
    return np.arange(size, dtype=np.float32).reshape(-1, 1)


def use(cache: Path, name: str, when: int) -> None:
    """Say that the array `name` was last used `when` seconds after the epoch."""
    path = Derived(cache, LARGE)._path("kind", [name])
    os.utime(path, (when, when))


def keep(cache: Path, *names: str, size: int = 1000) -> None:
    for when, name in enumerate(names, start=1):
        Derived(cache, LARGE).array("kind", [name], lambda: count(size))
        use(cache, name, when)


def there(cache: Path, *names: str) -> list[str]:
    return [name for name in names if Derived(cache, LARGE)._path("kind", [name]).exists()]


def test_an_array_is_computed_once_for_all_who_ask_for_it(tmp_path: Path) -> None:
    first = Derived(tmp_path).array("kind", ["a", 1], lambda: np.eye(3))
    assert np.array_equal(first, np.eye(3))
    again = Derived(tmp_path).array("kind", ["a", 1], fail)
    assert np.array_equal(again, np.eye(3)) and again.dtype == np.float64 and again.flags.writeable
    other = Derived(tmp_path).array("kind", ["a", 2], lambda: np.zeros(2, np.int64))
    assert other.tolist() == [0, 0] and Derived(tmp_path).find("other kind", ["a", 1]) is None


PARTS = st.recursive(
    st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


def typed(value: object) -> object:
    """Give what tells 1, 1.0 and True, and 0.0 and -0.0, apart."""
    if isinstance(value, tuple):
        return tuple(typed(each) for each in value)
    return type(value).__name__, repr(value)


@given(st.lists(PARTS, max_size=3), st.lists(PARTS, max_size=3))
def test_digests_are_equal_only_for_equal_parts(one: list[Any], other: list[Any]) -> None:
    assert (digest(*one) == digest(*other)) == (typed(tuple(one)) == typed(tuple(other)))


def test_digest_of_an_array_is_of_its_content_shape_and_type() -> None:
    array = np.arange(6, dtype=np.float32)
    others = [array.astype(np.float64), array.reshape(2, 3), array[::-1], array + 1]
    assert len({digest(array), *map(digest, others)}) == 5
    assert digest(np.arange(12, dtype=np.float32)[::2] / 2) == digest(array)
    with pytest.raises(TypeError, match="object"):
        digest(object())


@given(st.lists(st.integers(0, 5), max_size=5), st.sampled_from([np.float32, np.int64, np.uint8]))
def test_rows_are_the_blocks_behind_each_other(tmp_path_factory: Any, sizes: list[int], dtype: Any) -> None:
    folder = tmp_path_factory.mktemp("rows")
    blocks = [np.full((size, 2), i, dtype) for i, size in enumerate(sizes)]
    expected = np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)
    for _ in range(2):
        store = Derived(folder, LARGE)
        found = store.rows("kind", [1], lambda: iter(blocks))
        assert np.array_equal(found, expected) and found.dtype == expected.dtype
    [path] = folder.glob("derived/kind/*.npy")
    assert np.array_equal(np.load(path), expected)  # a file like any other


def test_rows_are_mapped_and_not_read(tmp_path: Path) -> None:
    store = Derived(tmp_path)
    found = store.rows("kind", ["large"], lambda: (count(1000) for _ in range(3)))
    assert isinstance(found, np.memmap) and found.shape == (3000, 1)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array at all", None])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_torn_file_is_as_good_as_none_and_replaced(tmp_path: Path, content: bytes | None, mapped: bool) -> None:
    store = Derived(tmp_path)
    store.array("kind", ["a"], lambda: count(100))
    path = store._path("kind", ["a"])
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    assert store.find("kind", ["a"], mapped=mapped) is None
    assert len(store.rows("kind", ["a"], lambda: [count(100)])) == 100
    assert len(store.array("kind", ["a"], fail)) == 100


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    keep(tmp_path, "a", "b", "c", "d")
    Derived(tmp_path, LARGE).array("kind", ["a"], fail)  # used just now
    limit = 3 * (4000 + 128)
    Derived(tmp_path, limit).array("kind", ["new"], lambda: count(1000))
    assert there(tmp_path, "a", "b", "c", "d", "new") == ["a", "d", "new"]
    assert sum(entry.size for entry in derived.entries(tmp_path)) <= limit


def test_what_is_in_use_stays_and_so_does_the_newest(tmp_path: Path) -> None:
    keep(tmp_path, "a", "b")
    user = Derived(tmp_path, LARGE)
    mapped = user.rows("kind", ["a"], fail)
    use(tmp_path, "a", 1)
    Derived(tmp_path, 0).array("kind", ["new"], lambda: count(1000))
    assert there(tmp_path, "a", "b", "new") == ["a", "new"]
    assert np.array_equal(mapped, count(1000))
    del user, mapped
    Derived(tmp_path, 0).array("kind", ["newer"], lambda: count(1000))
    assert there(tmp_path, "a", "new", "newer") == ["newer"]


def test_a_mapped_array_survives_the_deletion_of_its_file(tmp_path: Path) -> None:
    user = Derived(tmp_path)
    mapped = user.rows("kind", ["a"], lambda: [count(5000)])
    user._path("kind", ["a"]).unlink()
    assert np.array_equal(mapped, count(5000))


def test_clearing_deletes_all_that_is_old_and_not_in_use(tmp_path: Path) -> None:
    keep(tmp_path, "a", "b", "c")
    user = Derived(tmp_path, LARGE)
    user.rows("kind", ["b"], fail)
    assert derived.delete(user._path("kind", ["a"])) and not derived.delete(user._path("kind", ["b"]))
    assert derived.delete(user._path("kind", ["a"]))  # another was faster
    assert there(tmp_path, "a", "b", "c") == ["b", "c"]


@pytest.mark.parametrize("obstacle", ["file in the way", "no room"])
def test_what_cannot_be_kept_is_still_given(tmp_path: Path, obstacle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if obstacle == "no room":

        def write(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(derived, "_write", write)
    else:
        (tmp_path / "derived").write_text("")
    store = Derived(tmp_path)
    assert len(store.array("kind", ["a"], lambda: count(7))) == 7
    assert len(store.rows("kind", ["b"], lambda: [count(3), count(4)])) == 7
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_error_in_the_computation_leaves_nothing_behind(tmp_path: Path) -> None:
    def blocks() -> Iterator[Any]:
        yield count(10)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Derived(tmp_path).rows("kind", ["a"], blocks)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def _compute(cache: Path, barrier: Any, results: Any) -> None:
    def blocks() -> Iterator[Any]:
        barrier.wait(60)  # both have looked and found nothing
        for i in range(50):
            yield np.full((100, 8), i, np.float32)

    found = Derived(cache, LARGE).rows("kind", ["both"], blocks)
    results.put((found.shape, float(found.sum())))


def test_two_processes_that_begin_together_both_get_it_and_leave_one_whole_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_compute, args=(tmp_path, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert found == [((5000, 8), 980000.0)] * 2
    [path] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert float(np.load(path).sum()) == 980000.0
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~files._UMASK


def _hold(cache: Path, ready: Any, go: Any) -> None:
    store = Derived(cache, LARGE)
    mapped = store.rows("kind", ["a"], fail)
    ready.set()
    go.wait(60)
    assert float(mapped.sum()) == count(1000).sum()


def test_what_another_process_has_mapped_stays_until_it_ends(tmp_path: Path) -> None:
    keep(tmp_path, "a")
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    worker = context.Process(target=_hold, args=(tmp_path, ready, go))
    worker.start()
    assert ready.wait(60)
    path = Derived(tmp_path, LARGE)._path("kind", ["a"])
    assert not derived.delete(path) and path.exists()
    go.set()
    worker.join(60)
    assert worker.exitcode == 0 and derived.delete(path)


def test_the_limit_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("CLIPBED_DERIVED_GB", raising=False)
    assert limit_bytes() == 20e9
    (tmp_path / "clipbed.toml").write_text("[cache]\nderived_gb = 2.5\n")
    assert limit_bytes() == Derived(tmp_path).limit == 2.5e9
    monkeypatch.setenv("CLIPBED_DERIVED_GB", "7")
    assert limit_bytes() == 7e9
    for wrong in ("much", "-1", "inf", "nan"):
        monkeypatch.setenv("CLIPBED_DERIVED_GB", wrong)
        with pytest.raises(SpecError, match=r"CLIPBED_DERIVED_GB.*number of gigabytes from 0"):
            limit_bytes()
    monkeypatch.delenv("CLIPBED_DERIVED_GB")
    (tmp_path / "clipbed.toml").write_text("[cache]\nderived_gb = 'much'\n")
    with pytest.raises(SpecError, match="should be a number"):
        limit_bytes()
