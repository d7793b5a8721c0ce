"""ColoredMNIST and RotatedMNIST against DomainBed's recipe, written here with torch and torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from bench.dataset import Dataset, find_dataset
from bench.errors import DataMissing
from bench.spec import Places
from tests.datasets import trees


def load(name: str, data: Path) -> Dataset:
    return find_dataset(name).load(Places(data_dir=str(data), cache=str(data / "cache")))


def pixels(dataset: Dataset, domain: int) -> np.ndarray:
    found = dataset.domains[domain]
    return np.stack([np.asarray(Image.open(found.root / file)) for file in found.files])


def shuffled(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """What DomainBed deals out: it shuffles by torch's global generator."""
    torch.manual_seed(0)
    order = torch.randperm(len(images))
    return torch.from_numpy(images)[order], torch.from_numpy(labels).long()[order]


def test_colored_mnist_is_domainbeds_at_seed_0(tmp_path: Path) -> None:
    images, labels = shuffled(*trees.mnist(tmp_path))
    dataset = load("ColoredMNIST", tmp_path)
    for i, flip in enumerate((0.1, 0.2, 0.9)):
        mine, wanted = images[i::3], (labels[i::3] < 5).float()
        wanted = (wanted - (torch.rand(len(wanted)) < 0.25).float()).abs()
        colours = (wanted - (torch.rand(len(wanted)) < flip).float()).abs()
        two = torch.stack([mine, mine], dim=1)
        two[torch.arange(len(two)), (1 - colours).long()] *= 0
        assert dataset.domains[i].labels.tolist() == wanted.long().tolist()
        made = pixels(dataset, i)
        assert np.array_equal(made[..., :2], two.permute(0, 2, 3, 1).numpy())
        assert not made[..., 2].any()


def test_rotated_mnist_is_domainbeds_at_seed_0(tmp_path: Path) -> None:
    images, labels = shuffled(*trees.mnist(tmp_path))
    dataset = load("RotatedMNIST", tmp_path)
    assert [domain.name for domain in dataset.domains] == ["0", "15", "30", "45", "60", "75"]
    for i, angle in enumerate((0, 15, 30, 45, 60, 75)):
        assert dataset.domains[i].labels.tolist() == labels[i::6].tolist()
        wanted = [
            np.asarray(transforms.rotate(Image.fromarray(each.numpy()), angle, InterpolationMode.BILINEAR, fill=[0]))
            for each in images[i::6]
        ]
        assert np.array_equal(pixels(dataset, i), np.stack(wanted))


def test_published_sizes_of_domains_are_those_of_70000_digits() -> None:
    for name in ("ColoredMNIST", "RotatedMNIST"):
        info = find_dataset(name)
        assert info.counts == tuple(len(range(i, 70000, len(info.domains))) for i in range(len(info.domains)))


def test_packed_files_are_read_and_pictures_are_drawn_once(tmp_path: Path) -> None:
    trees.mnist(tmp_path, packed=True)
    first = load("RotatedMNIST", tmp_path)
    path = first.domains[0].root / first.domains[0].files[0]
    drawn = path.stat().st_mtime_ns
    again = load("RotatedMNIST", tmp_path)
    assert again.digest == first.digest and path.stat().st_mtime_ns == drawn
    assert any("45 digits, published 70,000" in note for note in again.notes)


def test_other_digits_are_drawn_to_another_place(tmp_path: Path) -> None:
    trees.mnist(tmp_path / "a")
    trees.mnist(tmp_path / "b", n=32)
    cache = str(tmp_path / "cache")
    made = [find_dataset("ColoredMNIST").load(Places(data_dir=str(tmp_path / each), cache=cache)) for each in "ab"]
    assert made[0].version != made[1].version and made[0].domains[0].root != made[1].domains[0].root


def test_absent_and_damaged_files_are_named(tmp_path: Path) -> None:
    trees.mnist(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    labels = raw / "t10k-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(content[:-1])
    with pytest.raises(DataMissing, match="t10k-labels-idx1-ubyte is not MNIST's"):
        load("ColoredMNIST", tmp_path)
    labels.unlink()
    with pytest.raises(DataMissing, match=r"t10k-labels-idx1-ubyte .* is missing"):
        load("ColoredMNIST", tmp_path)
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(DataMissing, match="cannot be read"):
        load("ColoredMNIST", tmp_path)
