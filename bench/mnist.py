"""ColoredMNIST and RotatedMNIST as folders of PNG files, made of the four files of MNIST as DomainBed makes them.

A folder appears all at once: it is written under a hidden temporary name beside its place and renamed at the end.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import files
from bench.dataset import Domain
from bench.errors import DataMissing
from bench.lazy import torch

VERSION = 1
"""Raised when the pixels or the file names change."""

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SEED = 0
"""Seed of the shuffle and of the flips; DomainBed draws them anew in every run, from the run's own seed."""

Pixels = NDArray[np.uint8]
Draw = Callable[[Pixels, NDArray[np.int64], float, Any], tuple[Pixels, NDArray[np.int64]]]


def read_mnist(raw: Path) -> tuple[Pixels, NDArray[np.int64], str]:
    """Read MNIST's 60,000 training and 10,000 test digits, in this order.

    Args:
        raw: folder of the four `…-ubyte` files, unpacked or `.gz`.

    Returns:
        images (n, 28, 28) uint8, labels (n,) int64, and eight digits of the SHA-256 of all bytes.

    Raises:
        DataMissing: a file is not there, or is none of MNIST's.
    """
    digest = hashlib.sha256()
    parts = []
    for name in FILES:
        data = _read(raw / name)
        digest.update(data)
        n_axes = data[3] if data[:3] == b"\0\0\x08" else 0  # the header: two zeros, type uint8, number of axes
        shape = tuple(int(size) for size in np.frombuffer(data, ">i4", n_axes, 4)) if n_axes else ()
        if n_axes != (3 if "images" in name else 1) or len(data) != 4 + 4 * n_axes + int(np.prod(shape)):
            raise DataMissing(f"{raw / name} is not MNIST's file of that name; fetch it again")
        parts.append(np.frombuffer(data, np.uint8, offset=4 + 4 * n_axes).reshape(shape))
    images, labels = np.concatenate(parts[::2]), np.concatenate(parts[1::2])
    return images, labels.astype(np.int64), digest.hexdigest()[:8]


def environments(
    images: Pixels, labels: NDArray[np.int64], parameters: Sequence[float], draw: Draw
) -> list[tuple[Pixels, NDArray[np.int64]]]:
    """Shuffle the digits, deal them out to the environments, and draw each as its parameter says.

    DomainBed's `MultipleEnvironmentMNIST` after `torch.manual_seed(SEED)`: one `torch.randperm`, then environment i takes
    every n-th digit from i on.
    """
    stream = torch.Generator().manual_seed(SEED)
    shuffle = torch.randperm(len(images), generator=stream).numpy()
    n = len(parameters)
    return [
        draw(images[shuffle][i::n], labels[shuffle][i::n], parameter, stream) for i, parameter in enumerate(parameters)
    ]


def colour(images: Pixels, labels: NDArray[np.int64], flipped: float, stream: Any) -> tuple[Pixels, NDArray[np.int64]]:
    """Colour digits red or green after the label, the wrong colour with probability `flipped`.

    The label is whether the digit is below 5, turned round with probability 0.25 (Arjovsky et al., 2019; DomainBed
    `ColoredMNIST`). DomainBed has two channels; here the third, blue, is zero.
    """
    turned = (labels < 5) ^ (torch.rand(len(labels), generator=stream) < 0.25).numpy()
    colours = turned ^ (torch.rand(len(labels), generator=stream) < flipped).numpy()
    pixels = np.zeros((*images.shape, 3), np.uint8)
    for channel, chosen in enumerate((~colours, colours)):
        pixels[chosen, :, :, channel] = images[chosen]
    return pixels, turned.astype(np.int64)


def rotate(images: Pixels, labels: NDArray[np.int64], angle: float, stream: Any) -> tuple[Pixels, NDArray[np.int64]]:
    """Rotate digits by `angle` degrees against the clock, bilinear, black outside (DomainBed `RotatedMNIST`)."""
    from PIL import Image

    turned = [Image.fromarray(each).rotate(angle, resample=Image.Resampling.BILINEAR, fillcolor=0) for each in images]
    return np.stack([np.asarray(each) for each in turned]), labels


def render(
    folder: Path, names: Sequence[str], made: Callable[[], list[tuple[Pixels, NDArray[np.int64]]]]
) -> list[Domain]:
    """Give the domains in `folder`, after writing them there if they are not: `<domain>/<position>.png`, labels beside.

    Args:
        folder: place of the data set; it appears complete or not at all.
        names: names of the domains.
        made: gives pixels and labels of each domain.
    """
    if not (folder / "labels.npz").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(folder.parent)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
        try:
            _write(temporary, names, made())
            files.share(temporary)
            try:
                os.rename(temporary, folder)
            except OSError:
                if not (folder / "labels.npz").is_file():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    with np.load(folder / "labels.npz") as labels:
        return [
            Domain(name, folder, tuple(_file(i, k) for k in range(len(labels[f"d{i}"]))), labels[f"d{i}"])
            for i, name in enumerate(names)
        ]


def _write(folder: Path, names: Sequence[str], made: list[tuple[Pixels, NDArray[np.int64]]]) -> None:
    from PIL import Image

    for i, (pixels, _) in enumerate(made):
        (folder / f"d{i}").mkdir()
        for k, each in enumerate(pixels):
            Image.fromarray(each).save(folder / _file(i, k), compress_level=1)
    labels: dict[str, Any] = {f"d{i}": each for i, (_, each) in enumerate(made)}
    np.savez(folder / "labels.npz", **labels)
    files.replace_json(folder / "rendered.json", {"version": VERSION, "seed": SEED, "domains": list(names)})


def _file(domain: int, position: int) -> str:
    return f"d{domain}/{position:05d}.png"


def _read(path: Path) -> bytes:
    packed = path.with_name(f"{path.name}.gz")
    try:
        return path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
    except FileNotFoundError:
        raise DataMissing(
            f"MNIST's file {path} (or {packed.name}) is missing; `python -m bench.data download`"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataMissing(f"MNIST's file {packed} cannot be read ({error}); fetch it again") from error
