"""Writing that survives a kill, reading that survives what a kill leaves."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import files


def test_replaced_file_holds_the_new_content_and_nothing_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.replace_text(path, "old")
    files.replace_text(path, "néw")
    assert path.read_text(encoding="utf-8") == "néw"
    assert os.listdir(tmp_path) == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~files._UMASK


def test_writer_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.replace_text(path, "old")

    def write(file: IO[bytes]) -> None:
        file.write(b"half of the n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.replace(path, write)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    old = time.time() - 2 * files.LEFTOVER_SECONDS
    for name in (".results.jsonl.abc.tmp", ".results.jsonl.live.tmp", "results.jsonl", ".keep"):
        (tmp_path / name).touch()
    for name in (".dead.tmp", ".busy.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").touch()
    for path in (tmp_path / ".results.jsonl.abc.tmp", *tmp_path.glob(".dead.tmp/*"), *tmp_path.glob(".*.tmp/")):
        os.utime(path, (old, old))
    os.utime(tmp_path / ".results.jsonl.live.tmp")
    files.remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".busy.tmp", ".keep", ".results.jsonl.live.tmp", "results.jsonl"]


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)
records = st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=6)


@given(records)
def test_lines_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, values: list[dict]) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    files.replace_lines(path, values)
    assert files.read_lines(path) == (values, 0)


@given(records.filter(bool), st.data())
def test_torn_end_costs_the_last_line_at_most(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    files.replace_lines(path, values)
    whole = path.read_bytes()
    last = len(json.dumps(values[-1], sort_keys=True))
    path.write_bytes(whole[: len(whole) - data.draw(st.integers(2, last))])
    assert files.read_lines(path) == (values[:-1], 1)


@given(st.binary())
def test_any_bytes_can_be_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n' + content + b'\n{"a": 2}\n')
    found, _ = files.read_lines(path)
    assert (found[0], found[-1]) == ({"a": 1}, {"a": 2})
    path.write_bytes(content + b"}")
    files.read_json(path)


def test_foreign_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    lines = [b'{"a": 1}', b"", b"   ", b"[1]", b"7", b"null", b'{"a": ', b"\xff\xfe", b"[" * 100_000, b'{"a": 2}\r']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    assert files.read_lines(tmp_path / "a.jsonl") == ([{"a": 1}, {"a": 2}], 6)


def test_line_separators_within_strings_split_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": "x\u2028y\x85z"}\n', encoding="utf-8")
    assert files.read_lines(tmp_path / "a.jsonl") == ([{"a": "x\u2028y\x85z"}], 0)


def test_absent_and_torn_json_is_none(tmp_path: Path) -> None:
    assert files.read_json(tmp_path / "nowhere.json") is None
    assert files.read_lines(tmp_path / "nowhere.jsonl") == ([], 0)
    (tmp_path / "torn.json").write_text('{"a": [1, 2')
    assert files.read_json(tmp_path / "torn.json") is None
    files.replace_json(tmp_path / "whole.json", {"b": 1, "a": None})
    assert files.read_json(tmp_path / "whole.json") == {"a": None, "b": 1}


def test_a_short_text_is_put_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new"
    files.create_text(str(path), "né")
    files.create_text(str(path), "other")
    assert path.read_text(encoding="utf-8") == "né"
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:1]))
    with pytest.raises(OSError, match="No space left"):
        files.create_text(str(tmp_path / "full"), "né")
    assert [each.name for each in tmp_path.iterdir()] == ["new"]
