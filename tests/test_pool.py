"""Anchor pools: order and content of pairs, bad images, the cache, and which pool is opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.errors import DataMissing, SpecError
from bench.images import Normalise, evaluation_transform
from bench.pool import BATCH, FolderPool, open_pool
from bench.spec import Places


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pairs of images of several sizes, in an order that is not that of their names."""
    place = tmp_path / "pairs"
    place.mkdir()
    stream = np.random.default_rng(0)
    names = [f"{letter}.png" for letter in "gbdacfe"]
    for i, name in enumerate(names):
        Image.fromarray(stream.integers(0, 256, (100 + 9 * i, 150 - 5 * i, 3), dtype=np.uint8)).save(place / name)
    (place / "pool.tsv").write_text("".join(f"{name}\ta drawing of {name[0]}\n" for name in names))
    return place


def _image(folder: Path, name: str, pretrained: Any) -> torch.Tensor:
    with Image.open(folder / name) as picture:
        pixels = evaluation_transform(picture.convert("RGB"), pretrained.image)
    return Normalise(pretrained.image, torch.device("cpu"))(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])[0]


def test_pairs_keep_the_order_of_the_file(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    pool = FolderPool(folder, pretrained, tmp_path / "cache")
    assert pool.names == tuple(f"{letter}.png" for letter in "gbdacfe")
    assert list(pool.captions) == [f"a drawing of {letter}" for letter in "gbdacfe"]
    images = pool.images(torch.tensor([3, 0, 3]))
    assert images.shape == (3, 3, 96, 96) and images.dtype == torch.float32
    for image, name in zip(images, ("a.png", "g.png", "a.png"), strict=True):
        torch.testing.assert_close(image, _image(folder, name, pretrained))


def test_features_are_those_of_the_frozen_tower(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    pool = FolderPool(folder, pretrained, tmp_path / "cache")
    with torch.no_grad():
        expected = pretrained.visual(pool.images(torch.arange(7)))
    assert pool.features().shape == (7, 256)
    torch.testing.assert_close(pool.features(), expected, rtol=1e-4, atol=1e-5)


def test_pool_may_be_a_file_whose_images_lie_beside_or_below_it(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    listed = tmp_path / "some.tsv"
    listed.write_text("pairs/b.png\tone\npairs/a.png\tother\n")
    pool = FolderPool(listed, pretrained, tmp_path / "cache")
    assert list(pool.captions) == ["one", "other"]
    torch.testing.assert_close(pool.images(torch.tensor([1]))[0], _image(folder, "a.png", pretrained))


def test_bad_pairs_are_left_out_and_counted(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    whole = FolderPool(folder, pretrained, tmp_path / "cache")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:200])
    (folder / "c.png").unlink()
    with (folder / "pool.tsv").open("a") as file:
        file.write("f.png\t\n")
    pool = FolderPool(folder, pretrained, tmp_path / "cache")
    assert pool.bad.keys() == {"b.png", "c.png", "f.png"}
    assert pool.bad["f.png"] == "no caption"
    assert pool.names == ("g.png", "d.png", "a.png", "e.png")
    kept = [whole.names.index(name) for name in pool.names]
    torch.testing.assert_close(pool.features(), whole.features()[kept], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_pool_is_refused(folder: Path, pretrained: Any, tmp_path: Path, text: str) -> None:
    (folder / "pool.tsv").write_text(text)
    with pytest.raises(DataMissing, match=r"pool\.tsv is empty"):
        FolderPool(folder, pretrained, tmp_path / "cache")


def test_a_pool_of_bad_images_only_is_refused(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    (folder / "pool.tsv").write_text("nowhere.png\ta thing\n")
    with pytest.raises(DataMissing, match=r"no usable pair: all 1 are bad \(nowhere\.png: No such file"):
        FolderPool(folder, pretrained, tmp_path / "cache")


def test_a_missing_pool_is_refused_with_what_is_wanted(pretrained: Any, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"there is no anchor pool .*nothing: .*caption"):
        FolderPool(tmp_path / "nothing", pretrained, tmp_path / "cache")


def test_second_opening_computes_nothing(
    folder: Path, pretrained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FolderPool(folder, pretrained, tmp_path / "cache")
    monkeypatch.setattr(FolderPool, "_build", lambda *_: pytest.fail("built again"))
    second = FolderPool(folder, pretrained, tmp_path / "cache")
    assert torch.equal(first.features(), second.features())
    assert (first.digest, first.names) == (second.digest, second.names)


def test_cache_notices_changed_images_and_captions(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    first = FolderPool(folder, pretrained, tmp_path / "cache")
    Image.new("RGB", (120, 120), "red").save(folder / "a.png")
    second = FolderPool(folder, pretrained, tmp_path / "cache")
    assert not torch.equal(first.features()[3], second.features()[3])
    (folder / "pool.tsv").write_text((folder / "pool.tsv").read_text().replace("of g", "of a goose"))
    third = FolderPool(folder, pretrained, tmp_path / "cache")
    assert len({first.digest, second.digest, third.digest}) == 3


def test_digest_is_of_the_content_not_the_time(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    first = FolderPool(folder, pretrained, tmp_path / "cache")
    os.utime(folder / "a.png", (1, 1))
    assert FolderPool(folder, pretrained, tmp_path / "cache").digest == first.digest


def test_a_torn_cache_is_made_anew(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    first = FolderPool(folder, pretrained, tmp_path / "cache")
    [facts] = (tmp_path / "cache" / "pools").glob("*.json")
    facts.write_text(facts.read_text()[:20])
    assert torch.equal(FolderPool(folder, pretrained, tmp_path / "cache").features(), first.features())


def test_features_of_many_batches_are_in_order(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    few = FolderPool(folder, pretrained, tmp_path / "cache")
    for i in range(BATCH + 3):
        os.link(folder / few.names[i % 7], folder / f"copy{i}.png")
    lines = "".join(f"copy{i}.png\tcopy {i}\n" for i in range(BATCH + 3))
    (folder / "many.tsv").write_text(lines)
    many = FolderPool(folder / "many.tsv", pretrained, tmp_path / "cache")
    expected = few.features()[torch.arange(BATCH + 3) % 7]
    torch.testing.assert_close(many.features(), expected, rtol=1e-4, atol=1e-5)


def test_image_that_goes_away_later_is_named(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    pool = FolderPool(folder, pretrained, tmp_path / "cache")
    (folder / "d.png").unlink()
    with pytest.raises(DataMissing, match=r"d\.png of the anchor pool .* can no longer be read"):
        pool.images(torch.tensor([2]))


def test_custom_pool_is_the_one_of_the_places(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    pool = open_pool(Places(pool=str(folder)), pretrained, tmp_path / "cache", which="custom")
    assert len(pool.captions) == 7


def test_pool_and_hparam_must_fit_together(folder: Path, pretrained: Any, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="add --pool"):
        open_pool(Places(), pretrained, tmp_path, which="custom")
    with pytest.raises(SpecError, match=r'the hparam pool is .builtin.: add --hparams .*"custom"'):
        open_pool(Places(pool=str(folder)), pretrained, tmp_path, which="builtin")


@pytest.mark.slow
def test_built_in_pool_is_rendered_once_and_large(pretrained: Any, tmp_path: Path) -> None:
    pool = open_pool(Places(), pretrained, tmp_path, which="builtin")
    assert len(pool.captions) > 300
    assert pool.features().shape == (len(pool.captions), 256)
    assert pool.images(torch.tensor([0])).shape == (1, 3, 96, 96)
