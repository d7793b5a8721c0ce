"""`python -m bench.data download`, `cache` and `show`."""

from __future__ import annotations

import io
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data import main
from bench.dataset import Archive
from bench.image_folders import ImageFolders
from tests.datasets import mini, trees
from tests.datasets.mini import FILES, Run, text


@pytest.fixture
def info(monkeypatch: pytest.MonkeyPatch) -> ImageFolders:
    return mini.declare(monkeypatch)


@pytest.fixture
def data(info: ImageFolders, tmp_path: Path) -> Path:
    return mini.draw(tmp_path / "data")


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return mini.runner(tmp_path, capsys)


def test_contact_sheet_has_a_row_a_class_and_a_column_a_picture(data: Path, run: Run, tmp_path: Path) -> None:
    code, said = run("show", "Mini", "--out", tmp_path / "sheet.png", "--per-cell", "2")
    assert code == 0 and "2 of 2 classes" in said
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
    expected = [(number * 10, 100, 200 - number) for number in range(len(FILES))]
    shown = [number for number, colour in enumerate(expected) if colour in colours]
    assert len(shown) == 8, "two of each class and domain"
    assert [sum(number // 4 == cell for number in shown) for cell in range(4)] == [2, 2, 2, 2]
    rows_of_dogs = [
        np.argwhere((pixels == expected[number]).all(-1))[:, 0].min() for number in shown if number // 4 % 2
    ]
    rows_of_cats = [
        np.argwhere((pixels == expected[number]).all(-1))[:, 0].max() for number in shown if not number // 4 % 2
    ]
    assert max(rows_of_cats) < min(rows_of_dogs)


def test_contact_sheet_marks_what_cannot_be_shown_and_is_the_same_twice(data: Path, run: Run, tmp_path: Path) -> None:
    text(data / "mini" / FILES[0])
    for name in ("a.png", "b.png"):
        code, said = run("show", "Mini", "--out", tmp_path / name, "--per-cell", "4")
        assert code == 0 and f"WRONG: {FILES[0]}" in said
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    run("show", "Mini", "--out", tmp_path / "c.png", "--per-cell", "2", "--seed", "1")
    run("show", "Mini", "--out", tmp_path / "d.png", "--per-cell", "2")
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "d.png").read_bytes()


def test_cache_says_its_size_first_builds_it_and_empties_it(data: Path, run: Run, tmp_path: Path) -> None:
    decoded = tmp_path / "cache" / "decoded"
    code, said = run("cache", "Mini", "--dry-run")
    assert code == 0 and "16 images at 96 px take about" in said and not decoded.exists()
    code, said = run("cache", "Mini")
    assert code == 0 and said.index("take about") < said.index("decoded, data_digest")
    built = {each.name: each.stat().st_mtime_ns for each in decoded.iterdir()}
    assert len(built) == 2
    run("cache", "Mini")
    assert {each.name: each.stat().st_mtime_ns for each in decoded.iterdir()} == built
    code, said = run("cache", "--clear", "PACS", "--yes")
    assert code == 0 and "nothing to delete" in said
    code, said = run("cache", "--clear")
    assert code == 2 and "say --yes" in said and len(list(decoded.iterdir())) == 2
    code, said = run("cache", "--clear", "Mini", "--yes")
    assert code == 0 and re.search(r"deleted \d+\.\d\d MB in .*decoded images: 2,", said)
    assert not list(decoded.iterdir())


def test_cache_names_images_that_cannot_be_decoded(data: Path, run: Run) -> None:
    text(data / "mini" / FILES[3])
    code, said = run("cache", "Mini")
    assert code == 1 and f"WRONG: {FILES[3]} cannot be decoded" in said


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a server on this machine gives its files."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *details: Any) -> None:
            super().__init__(*details, directory=str(folder))

        def log_message(self, *details: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()
    thread.join(10)


def test_download_fetches_unpacks_and_says_that_it_is_complete(
    data: Path, run: Run, served: tuple[Path, str], info: ImageFolders
) -> None:
    folder, address = served
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in FILES:
            archive.write(data / "mini" / file, f"mini/{file}")
    (folder / "mini.zip").write_bytes(packed.getvalue())
    object.__setattr__(info, "archives", (Archive(url=f"{address}/mini.zip", file="mini.zip"),))
    shutil.rmtree(data)
    code, said = run("download", "Mini")
    assert code == 0
    assert said.index("licence: none") < said.index(f"{address}/mini.zip: 0.0 MB") < said.index("it is complete")
    assert "no checksum is known" in said
    assert run("verify", "Mini")[0] == 0
    code, said = run("download", "Mini")
    assert code == 0 and "it is there already" in said


def test_download_comes_again_where_the_data_set_was_deleted_or_it_is_told_to(
    data: Path, run: Run, served: tuple[Path, str], info: ImageFolders
) -> None:
    folder, address = served
    with zipfile.ZipFile(folder / "mini.zip", "w") as archive:
        for file in FILES:
            archive.write(data / "mini" / file, f"mini/{file}")
    object.__setattr__(info, "archives", (Archive(url=f"{address}/mini.zip", file="mini.zip"),))
    shutil.rmtree(data / "mini")
    assert run("download", "Mini")[0] == 0
    shutil.rmtree(data / "mini")
    assert run("download", "Mini")[0] == 0
    (data / "mini" / FILES[0]).unlink()
    assert run("download", "Mini")[0] == 1
    assert run("download", "Mini", "--again")[0] == 0


def test_download_says_the_steps_by_hand_where_there_is_no_address(data: Path, run: Run) -> None:
    shutil.rmtree(data / "mini")
    code, said = run("download", "Mini")
    assert (
        code == 1 and "to be done by hand:\n  - Draw sixteen pictures" in said and "WRONG: it is not there yet" in said
    )


def test_download_that_fails_stops_no_other(data: Path, run: Run, info: ImageFolders) -> None:
    object.__setattr__(info, "archives", (Archive(url="file:///nowhere/mini.zip", file="mini.zip"),))
    shutil.rmtree(data / "mini")
    trees.coop(data, "DTD")
    code, said = run("download", "Mini", "OfficeHome")
    assert code == 1 and "WRONG: file:///nowhere/mini.zip" in said and "OfficeHome: 65 everyday" in said


def test_download_needs_a_data_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "PACS"]) == 2
    assert "needs --data-dir" in capsys.readouterr().err


def test_cache_of_one_data_set_is_not_taken_for_that_of_another(data: Path, run: Run, tmp_path: Path) -> None:
    decoded = tmp_path / "cache" / "decoded"
    for name in ("ImageNet-photo-96-0123456789abcdef", "ImageNet-A-adversarial-96-0123456789abcdef"):
        (decoded / name).mkdir(parents=True)
    assert run("cache", "--clear", "ImageNet", "--yes")[0] == 0
    assert [each.name for each in decoded.iterdir()] == ["ImageNet-A-adversarial-96-0123456789abcdef"]
