"""Anchor pools: folders of image-text pairs, with the frozen image features that retrieval needs.

A pool is a TSV file (image file, tab, caption; files relative to the TSV) or a folder that has one named `pool.tsv`.
The first time a pool is opened with a backbone all its images are read once; features and the list of bad images stay
in the cache folder. Which pairs are retrieved is the method's to say.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import files
from bench.algorithm import AnchorPool
from bench.dataset import read_captions
from bench.derived import Derived
from bench.errors import DataMissing, SpecError
from bench.images import Normalise, evaluation_transform, read_picture
from bench.models import Backbone, ImageSpec
from bench.spec import Places

CACHE_VERSION = 1
"""Raised when what is cached changes."""

BATCH = 64
"""Images a forward pass; always as many, so that features do not depend on what else is in the pool."""

MEMORY = 2**28
"""Bytes of decoded images that a pool keeps."""

Progress = Callable[[str], None]


class FolderPool(AnchorPool):
    """The image-text pairs of a folder.

    Attributes:
        path: the TSV file.
        names: image files of the usable pairs, relative to the TSV's folder.
        captions: their texts, in the same order.
        bad: file → reason, of pairs that were left out since image or caption is no good.
        digest: sixteen digits of the SHA-256 over files and captions of the usable pairs.
    """

    def __init__(self, path: Path, backbone: Backbone, cache: Path, progress: Progress = lambda line: None) -> None:
        """Open a pool, reading all its images if `cache` does not know them yet.

        Args:
            path: a TSV or JSON file of pairs, or a folder with `pool.tsv`.
            backbone: whose frozen image tower gives the features.
            cache: the cache folder.
            progress: told every now and then what is going on.

        Raises:
            DataMissing: there is no such file, or no usable pair in it.
            SpecError: a line has no tab.
        """
        self.path = pool_table(path)
        self._backbone = backbone
        self._normalise = Normalise(backbone.image, backbone.device)
        pairs = self._read()
        known = self._load_or_build(pairs, cache, progress)
        self.bad: dict[str, str] = known["bad"]
        self.names = tuple(name for name in pairs if name not in self.bad)
        self.captions = tuple(pairs[name] for name in self.names)
        self.digest: str = known["digest"]
        if not self.names:
            first = next(f"{name}: {reason}" for name, reason in self.bad.items())
            raise DataMissing(f"the anchor pool {self.path} has no usable pair: all {len(pairs)} are bad ({first})")
        self._features = torch.from_numpy(known["features"]).to(backbone.device)
        kept = max(BATCH, MEMORY // (3 * backbone.image.size**2))
        self._pixels = functools.lru_cache(maxsize=kept)(self._decode)

    def features(self) -> Tensor:
        """Give the frozen image features of all pairs, (n, d) float32, not normalised, on the backbone's device."""
        return self._features

    def images(self, indices: Tensor) -> Tensor:
        """Give the images at `indices` (B,), normalised: (B, 3, S, S) on the backbone's device.

        Raises:
            DataMissing: a file has changed for the worse since the pool was opened.
        """
        return self._normalised([self._pixels(self.names[index]) for index in indices.tolist()])

    def _decode(self, name: str) -> NDArray[np.uint8]:
        pixels = decode(self.path.parent / name, self._backbone.image)[1]
        if isinstance(pixels, str):
            raise DataMissing(f"{name} of the anchor pool {self.path} can no longer be read: {pixels}")
        return pixels

    def _read(self) -> dict[str, str]:
        if not self.path.is_file():
            raise DataMissing(
                f"there is no anchor pool {self.path}: give a folder that holds pool.tsv, or such a file "
                "(lines of image file, tab, caption; files relative to it)"
            )
        pairs = read_captions(self.path)
        if not pairs:
            raise DataMissing(f"the anchor pool {self.path} is empty: it needs lines of image file, tab, caption")
        return pairs

    def _load_or_build(self, pairs: Mapping[str, str], cache: Path, progress: Progress) -> dict[str, Any]:
        """Give features, bad pairs and digest, from the cache if it has them."""
        key, derived = self._key(pairs), Derived(cache)
        path = cache / "pools" / f"{key}.json"
        known, features = files.read_json(path), derived.find("pool", [key])
        if known is None or features is None:
            known = {}
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = derived.put("pool", [key], self._build(pairs, known, progress))
            features = derived.find("pool", [key]) if kept else None
            if features is None:  # there is no room for them
                features = np.concatenate([np.zeros((0, 1), np.float32), *self._build(pairs, known, progress)])
            files.replace_json(path, known)
        return {**known, "features": features}

    def _key(self, pairs: Mapping[str, str]) -> str:
        """Name backbone and content without reading images: captions, size and time of change of every file."""
        image = self._backbone.image
        hashed = hashlib.sha256(f"{CACHE_VERSION} {self._backbone.digest} {image}\n".encode())
        for name, caption in pairs.items():
            try:
                stat = os.stat(self.path.parent / name)
                state = f"{stat.st_size} {stat.st_mtime_ns}"
            except OSError:
                state = "missing"
            hashed.update(f"{name}\t{caption}\t{state}\n".encode())
        return hashed.hexdigest()[:16]

    def _build(
        self, pairs: Mapping[str, str], known: dict[str, Any], progress: Progress
    ) -> Iterator[NDArray[np.float32]]:
        """Read every image once; give the features some rows at a time, and at the end `known` the other facts."""
        names = list(pairs)
        bad: dict[str, str] = {}
        digest = hashlib.sha256()
        waiting: list[NDArray[np.uint8]] = []
        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as threads:
            for start in range(0, len(names), BATCH):
                chosen = names[start : start + BATCH]
                read = threads.map(lambda name: decode(self.path.parent / name, self._backbone.image), chosen)
                for name, (data, pixels) in zip(chosen, read, strict=True):
                    if isinstance(pixels, str) or not pairs[name]:
                        bad[name] = pixels if isinstance(pixels, str) else "no caption"
                        continue
                    digest.update(hashlib.sha256(data).digest() + f"{name}\t{pairs[name]}\n".encode())
                    waiting.append(pixels)
                while len(waiting) >= BATCH:
                    yield self._forward(waiting[:BATCH])
                    waiting = waiting[BATCH:]
                progress(f"reading the anchor pool: {start + len(chosen)} of {len(names)} images")
        if waiting:
            yield self._forward(waiting)
        known.update(bad=bad, digest=digest.hexdigest()[:16])

    def _forward(self, pixels: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Give the features of at most BATCH images; a smaller batch is filled up."""
        filled = [pixels[i % len(pixels)] for i in range(BATCH)]
        with torch.no_grad(), torch.autocast(self._backbone.device.type, enabled=False):
            features = self._backbone.visual(self._normalised(filled))[: len(pixels)]
        array: NDArray[np.float32] = features.float().cpu().numpy()
        return array

    def _normalised(self, pixels: list[NDArray[np.uint8]]) -> Tensor:
        return self._normalise(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))


def pool_table(path: Path) -> Path:
    """Give the file of pairs that `path` means: itself, or `pool.tsv` in a folder."""
    return path / "pool.tsv" if path.is_dir() else path


def open_pool(
    places: Places, backbone: Backbone, cache: Path, *, which: str, progress: Progress = lambda line: None
) -> AnchorPool:
    """Open the pool that the hparam `pool` asks for.

    Args:
        places: its `pool` is the custom one.
        backbone: whose frozen image tower gives the features.
        cache: the cache folder; the built-in pool is rendered into it.
        which: "builtin" (icons that belong to no class of `Icons`) or "custom".
        progress: told every now and then what is going on.

    Raises:
        SpecError: `which` and `places` do not fit together.
        DataMissing: the pool is not there, or empty.
    """
    if which == "custom":
        if places.pool is None:
            raise SpecError("the hparam pool='custom' needs a pool: add --pool FOLDER or --pool FILE.tsv")
        return FolderPool(Path(places.pool), backbone, cache, progress)
    if which != "builtin":
        raise SpecError(f"there is no anchor pool {which!r}; known: builtin, custom")
    if places.pool is not None:
        raise SpecError(
            f"--pool {places.pool} is given, but the hparam pool is 'builtin': "
            'add --hparams \'{"pool": "custom"}\', or leave --pool out'
        )
    from bench.icon_render import built_in_pool

    return FolderPool(built_in_pool(cache), backbone, cache, progress)


def decode(path: Path, image: ImageSpec) -> tuple[bytes, NDArray[np.uint8] | str]:
    """Give a file's bytes, and its image after the evaluation transform (S, S, 3) or the reason why there is none."""
    if not path.is_file():
        return b"", "No such file"  # a pair whose image is gone is left out like one that is broken
    data, picture = read_picture(path)
    return data, picture if isinstance(picture, str) else evaluation_transform(picture, image)
