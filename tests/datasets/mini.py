"""A data set of sixteen small pictures, "Mini", and ways to damage it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bench.data import main
from bench.image_folders import ImageFolders
from bench.registry import datasets

FILES = [f"{domain}/{name}/{i}.png" for domain in ("Photos", "Drawings") for name in ("cat", "dog") for i in range(4)]

Run = Callable[..., tuple[int, str]]


def declare(monkeypatch: pytest.MonkeyPatch) -> ImageFolders:
    """Register "Mini" for the length of a test."""
    declared = ImageFolders(
        name="Mini",
        summary="made in the test",
        domains=("P", "D"),
        folders=("Photos", "Drawings"),
        roots=("mini",),
        class_folders=("cat", "dog"),
        counts=(8, 8),
        short_sides=(20, 10),
        source="made in the test",
        licence="none",
        citation="none",
        by_hand=("Draw sixteen pictures",),
    )
    "Mini" in datasets  # noqa: B015 - loads the plug-ins, so that the patch below is all that is undone
    monkeypatch.setitem(datasets._entries, "Mini", declared)
    monkeypatch.setitem(datasets._origins, "Mini", "test")
    return declared


def draw(data: Path) -> Path:
    """Write the files, each of its own colour, 10 × 14 px; give the data directory."""
    for number, file in enumerate(FILES):
        path = data / "mini" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 14), (number * 10, 100, 200 - number)).save(path)
    return data


def runner(place: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs the command on `place/data`; it gives the exit code and all that was said."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        verb, *rest = map(str, arguments)
        where = ["--data-dir", str(place / "data"), "--cache", str(place / "cache")]
        code = main([verb, *rest, *where])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:45])


def without_its_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-12])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-14] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<html>not found</html>")


def recoloured(path: Path) -> None:
    Image.new("RGB", (10, 14), "black").save(path)
