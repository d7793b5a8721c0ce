"""What lies in the cache folder: shown, and emptied of what may go."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cache import by_kind, chosen, delete, kept
from bench.data import main
from bench.derived import Derived

DAY = 86400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with a little of everything; what is "old" was last used 10 days ago."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cache"
    for name in ("Mini-P-96-0123456789abcdef", "PACS-A-96-0123456789abcdef"):
        (folder / "decoded" / name).mkdir(parents=True)
        (folder / "decoded" / name / "whole.bin").write_bytes(b"x" * 3000)
    for place in ("prepared/0123", "verified/Mini.txt.gz", "icons-v1/ink/dog.png", "collect/all.records"):
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_bytes(b"x" * 500)
    derived = Derived(folder)
    for kind in ("features", "text"):
        derived.array(kind, ["new"], lambda: np.zeros(10_000, np.float32))
        derived.array(kind, ["old"], lambda: np.zeros(10_000, np.float32))
        aged(derived._path(kind, ["old"]))
    aged(folder / "decoded" / "PACS-A-96-0123456789abcdef" / "whole.bin")
    return folder


def aged(path: Path) -> None:
    then = time.time() - 10 * DAY
    os.utime(path, (then, then))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run(capsys: Any, cache: Path, *words: str) -> tuple[int, str]:
    code = main(["cache", *words, "--cache", str(cache)])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_sizes_are_shown_by_kind(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(cache)
    code, said = run(capsys, cache)
    assert code == 0 and files(cache) == before
    assert re.search(r"^decoded images +2 +0\.01 MB +yes$", said, re.M)
    assert re.search(r"^derived: text +2 +0\.08 MB +yes$", said, re.M)
    assert re.search(r"^icons-v1 +0\.00 MB +no$", said, re.M)
    assert re.search(r"derived arrays: 0\.16 MB of at most [\d.]+ GB", said)


def test_an_empty_cache_is_shown_and_cleared_without_complaint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, tmp_path / "none")[0] == 0
    code, said = run(capsys, tmp_path / "none", "--clear", "--yes")
    assert code == 0 and "nothing to delete" in said


def test_clearing_deletes_what_can_be_made_again_and_nothing_else(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(capsys, cache, "--clear")
    assert code == 2 and "this would delete 0.17 MB" in said and "say --yes" in said
    code, said = run(capsys, cache, "--clear", "--yes")
    assert code == 0 and "deleted 0.17 MB" in said and "derived: features: 2" in said
    assert files(cache) == {"verified/Mini.txt.gz", "icons-v1/ink/dog.png"}


def test_only_what_is_old_goes_when_asked_so(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(cache)
    assert "nothing to delete" in run(capsys, cache, "--clear", "--yes", "--older-than", "11")[1]
    assert files(cache) == before
    code = run(capsys, cache, "--clear", "--yes", "--older-than", "9.5")[0]
    gone = before - files(cache)
    assert code == 0 and len(gone) == 4 and "prepared/0123" in gone
    assert sorted(name.split("/")[0] for name in gone) == ["decoded", "derived", "derived", "prepared"]


def test_what_is_in_use_stays_and_is_told(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = Derived(cache)
    mapped = user.find("features", ["new"], mapped=True)
    code, said = run(capsys, cache, "--clear", "--yes")
    assert code == 0 and "1 array(s), 0.04 MB, in use and left" in said and "deleted 0.13 MB of 0.17 MB" in said
    assert mapped is not None and user.find("features", ["new"]) is not None
    assert user.find("features", ["old"]) is None


def test_decoded_images_of_one_data_set_are_chosen_by_name(cache: Path) -> None:
    found = chosen(cache, decoded_of=[re.compile("PACS-.*")])
    assert [each.path.name for each in found] == ["PACS-A-96-0123456789abcdef"] and found[0].size == 3000
    assert delete(cache, found) == []
    assert {each.path.name for each in kept(cache) if each.kind == "decoded images"} == {"Mini-P-96-0123456789abcdef"}
    assert by_kind(found) == [("decoded images", 1, 3000)]


@pytest.mark.parametrize("days", ["-1", "soon", "inf"])
def test_days_that_are_none_are_refused(cache: Path, days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(capsys, cache, "--clear", "--older-than", days)
    assert caught.value.code == 2 and "is not a number of days from 0" in capsys.readouterr().err


def test_folders_that_are_being_written_are_left_alone(cache: Path) -> None:
    writing = cache / "decoded" / ".PACS-art-32-00.abc.tmp"
    writing.mkdir()
    (writing / "whole.bin").write_bytes(b"12")
    assert not [each for each in kept(cache) if each.path == writing]


def test_an_interrupted_deletion_leaves_nothing_that_looks_whole(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.cache.shutil.rmtree", interrupted)
    things = [each for each in kept(cache) if each.kind == "decoded images"]
    with pytest.raises(KeyboardInterrupt):
        delete(cache, things)
    assert things and not things[0].path.exists()
