"""Images: decoded once into memory-mapped arrays, then batches as a pure function of (trial seed, domain, step).

For every domain and image size two arrays are kept in the cache folder and shared by all trials: `centre.npy`, the
evaluation transform's uint8 output, and `whole.bin`, the whole images at a short side a little above the model's, for
random crops. Both are made in one pass over the files, in a folder that appears only when it is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import files
from bench.algorithm import Minibatch
from bench.augmentation import augment
from bench.dataset import Dataset, Domain
from bench.errors import BadImage, DataMissing, SpecError
from bench.models import ImageSpec
from bench.protocols import Task, View
from bench.seeds import stream

CACHE_VERSION = 1
"""Raised when what is cached changes; old folders are then left alone and new ones made."""

RESERVE = 1.2
"""Short side of the whole images over the model's: a crop of 0.7 of the area still has about the model's side."""

TYPICAL_ASPECT = 4 / 3
WINDOW = 256

Progress = Callable[[str], None]


@dataclass(frozen=True)
class DecodedDomain:
    """The decoded images of one domain.

    Attributes:
        centre: (n, S, S, 3) uint8, evaluation transform; zeros where the image is bad.
        whole: all whole images one after the other, uint8.
        offsets, heights, widths: (n,) where image i lies in `whole`.
        bad: file → reason, of the images that could not be decoded.
        bad_mask: (n,) bool.
        digest: sixteen digits of the SHA-256 of all files' bytes.
    """

    centre: NDArray[np.uint8]
    whole: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    bad: dict[str, str]
    bad_mask: NDArray[np.bool_]
    digest: str

    def image(self, index: int) -> NDArray[np.uint8]:
        """Give whole image `index`, (h, w, 3) uint8, without copying."""
        height, width, start = int(self.heights[index]), int(self.widths[index]), int(self.offsets[index])
        return self.whole[start : start + height * width * 3].reshape(height, width, 3)


class ImageStore:
    """The decoded images of a data set for one kind of input.

    Attributes:
        dataset, image: what is stored, for which backbone.
        domains: in the data set's order.
        digest: sixteen digits over the bytes of all files.
    """

    def __init__(self, dataset: Dataset, image: ImageSpec, cache: Path, progress: Progress = lambda line: None) -> None:
        """Open the cache of every domain, decoding what is not there yet.

        Args:
            dataset: what was found on disk.
            image: how the backbone wants its images.
            cache: the cache folder.
            progress: told every now and then what is going on.
        """
        self.dataset = dataset
        self.image = image
        self.domains = [_open_domain(dataset, domain, image, cache, progress) for domain in dataset.domains]
        self.digest = hashlib.sha256("".join(domain.digest for domain in self.domains).encode()).hexdigest()[:16]

    @property
    def bad(self) -> dict[str, str]:
        """Give file → reason over all domains."""
        return {file: reason for domain in self.domains for file, reason in domain.bad.items()}

    def refuse_bad_images(self) -> None:
        """Raise BadImage if any image could not be decoded; names the first ones."""
        bad = self.bad
        if bad:
            shown = "; ".join(f"{file} ({reason})" for file, reason in list(bad.items())[:5])
            raise BadImage(
                f"{len(bad)} image(s) of {self.dataset.name} in {self.dataset.domains[0].root} cannot be decoded: {shown}. "
                "Fetch them again, or leave them out with --skip-bad-images (the records will say so)"
            )

    def without_bad(self, view: View) -> View:
        """Give `view` less the images that cannot be decoded; splits are drawn before, so they stay as they are."""
        mask = self.domains[view.domain].bad_mask
        if not mask.any():
            return view
        good = ~mask[view.indices]
        return replace(view, indices=view.indices[good], labels=view.labels[good])

    def centre(self, domain: int, indices: NDArray[np.int64]) -> Tensor:
        """Give the centre crops at `indices` (B,) of `domain`: (B, 3, S, S) uint8, channels last in memory."""
        return torch.from_numpy(np.ascontiguousarray(self.domains[domain].centre[indices])).permute(0, 3, 1, 2)


class Batches:
    """Minibatches as a pure function of the step.

    Sampling is with replacement, as DomainBed's; batch and augmentation of step t of a domain depend on the trial seed,
    the domain and t alone. So all methods of a trial see the same images, and a resumed trial goes on as if nothing
    had happened, whatever the number of workers or evaluations.
    """

    def __init__(self, store: ImageStore, trial_seed: int, batch_size: int, flavour: str, device: torch.device) -> None:
        """Draw `batch_size` images a view and step, augmented in the given `flavour` (see `bench.augmentation`)."""
        self.store = store
        self.trial_seed = trial_seed
        self.batch_size = batch_size
        self.flavour = flavour
        self.normalise = Normalise(store.image, device)

    def check(self, views: tuple[View, ...]) -> None:
        """Raise SpecError if a view holds fewer images than a batch."""
        for view in views:
            if len(view) < self.batch_size:
                raise SpecError(
                    f"batch_size={self.batch_size} is larger than {view.name} of {self.store.dataset.name} "
                    f"({len(view)} images); give a smaller one: --hparams '{{\"batch_size\": {len(view)}}}'"
                )

    def draw(self, view: View, step: int, *, labelled: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Give images (B, 3, S, S) uint8, labels (B,) (-1 if not `labelled`) and positions (B,) of one view."""
        kind = "labelled" if labelled else "unlabelled"
        draws = stream(kind, self.trial_seed, view.domain, step)
        positions = draws.integers(len(view), size=self.batch_size)
        indices = view.indices[positions]
        if self.flavour == "none":
            images = self.store.centre(view.domain, indices)
        else:
            whole = [self.store.domains[view.domain].image(int(index)) for index in indices]
            images = augment(whole, self.store.image.size, self.flavour, draws)
        labels = torch.from_numpy(view.labels[positions]) if labelled else torch.full((self.batch_size,), -1)
        return images, labels, torch.from_numpy(positions)

    def steps(self, task: Task, start: int, stop: int) -> Iterator[tuple[list[Minibatch], list[Minibatch]]]:
        """Yield (labelled, unlabelled) minibatches of steps `start` to `stop`, drawing one step ahead in a thread."""
        with ThreadPoolExecutor(1) as pool:
            if self.normalise.device.type == "cpu":
                _use_one_core(pool)
            coming: Future[Any] | None = pool.submit(self._draw_all, task, start) if start < stop else None
            for step in range(start, stop):
                assert coming is not None
                drawn = coming.result()
                coming = pool.submit(self._draw_all, task, step + 1) if step + 1 < stop else None
                made = self._place(*drawn)
                yield made[: len(task.train)], made[len(task.train) :]

    def _draw_all(self, task: Task, step: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Give all images of a step, and labels and positions of each minibatch."""
        drawn = [self.draw(view, step) for view in task.train]
        drawn += [self.draw(view, step, labelled=False) for view in task.unlabeled]
        images = torch.cat([images for images, _, _ in drawn])
        pairs = [(labels, positions) for _, labels, positions in drawn]
        if self.normalise.device.type == "cuda":  # else the copies to the device wait
            return images.pin_memory(), [(labels.pin_memory(), positions.pin_memory()) for labels, positions in pairs]
        return images, pairs

    def _place(self, images: Tensor, drawn: list[tuple[Tensor, Tensor]]) -> list[Minibatch]:
        """Normalise all images at once on the device."""
        parts = self.normalise(images).split(self.batch_size)
        device = self.normalise.device
        return [
            Minibatch(part, labels.to(device, non_blocking=True), positions)
            for part, (labels, positions) in zip(parts, drawn, strict=True)
        ]


def _use_one_core(pool: ThreadPoolExecutor) -> None:
    """Keep torch in the only thread of `pool` from asking other cores for help, which the update beside it is using.

    What torch is told holds for the thread that says it, and for others that have not asked for the number before.
    """
    threads = torch.get_num_threads()
    pool.submit(torch.get_num_threads).result()  # else its first work would set it to what was told last
    pool.submit(torch.set_num_threads, 1).result()
    torch.set_num_threads(threads)


class Normalise:
    """uint8 images to what a backbone takes: (B, 3, S, S) float32 on its device, channels last in memory."""

    def __init__(self, image: ImageSpec, device: torch.device) -> None:
        """Fold the division by 255 into mean and deviation."""
        self.device = device
        self._scale = (1 / (255 * torch.tensor(image.std))).to(device)
        self._shift = (-torch.tensor(image.mean) / torch.tensor(image.std)).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise `images` (B, 3, S, S) uint8."""
        moved = images.to(self.device, non_blocking=True).permute(0, 2, 3, 1).contiguous()
        rows = moved.to(torch.float32).flatten(
            2
        )  # B S 3S: whole rows at once, a colour at a time is several times slower
        width = images.shape[3]
        rows.mul_(self._scale.repeat(width)).add_(self._shift.repeat(width))
        normalised: Tensor = rows.unflatten(2, (width, 3)).permute(0, 3, 1, 2)
        return normalised


def _open_domain(dataset: Dataset, domain: Domain, image: ImageSpec, cache: Path, progress: Progress) -> DecodedDomain:
    folder = cache / "decoded" / f"{_plain(dataset.name)}-{_plain(domain.name)}-{image.size}-{_key(domain, image)}"
    if not _is_whole(folder, len(domain.files), image.size):
        _build(dataset, domain, image, folder, progress)
    meta = json.loads((folder / "meta.json").read_text())
    index = np.load(folder / "index.npy")
    empty = index[2].sum() == 0  # an empty file cannot be mapped
    return DecodedDomain(
        centre=np.asarray(np.load(folder / "centre.npy", mmap_mode="r")),  # mapped still, but quick to slice
        whole=np.zeros(0, np.uint8) if empty else np.asarray(np.memmap(folder / "whole.bin", np.uint8, "r")),
        offsets=index[0],
        heights=index[1],
        widths=index[2],
        bad=meta["bad"],
        bad_mask=index[1] == 0,
        digest=meta["digest"],
    )


def _is_whole(folder: Path, n: int, size: int) -> bool:
    """Say whether a folder holds all of `n` decoded images; a loss of power or a deletion may have left a part."""
    try:
        index, centre = np.load(folder / "index.npy"), np.load(folder / "centre.npy", mmap_mode="r")
        bytes_of_whole = 3 * int((index[1] * index[2]).sum())
        is_all = centre.shape == (n, size, size, 3) and (folder / "whole.bin").stat().st_size == bytes_of_whole
        return is_all and (folder / "meta.json").stat().st_size > 0
    except (OSError, ValueError, EOFError):
        return False


def _key(domain: Domain, image: ImageSpec) -> str:
    """Name the content without reading it: path, size and time of change of every file, and what is made of it."""
    hashed = hashlib.sha256(f"{CACHE_VERSION} {RESERVE} {image.size} {image.interpolation} {image.resize}".encode())
    for file in domain.files:
        try:
            stat = os.stat(domain.root / file)
            hashed.update(f"{file} {stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
        except OSError:
            hashed.update(f"{file} missing\n".encode(errors="surrogateescape"))
    return hashed.hexdigest()[:16]


def _build(dataset: Dataset, domain: Domain, image: ImageSpec, folder: Path, progress: Progress) -> None:
    """Decode a domain into a temporary folder, then rename it; if another process was faster, its folder stays.

    Raises:
        DataMissing: there is no room for it, or a file cannot be read.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_room(dataset, domain, image, folder.parent)
    files.remove_leftovers(folder.parent)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    stale = temporary.with_name(f"{temporary.name}.old.tmp")
    try:
        _decode_all(dataset, domain, image, temporary, progress)
        files.share(temporary)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not _is_whole(folder, len(domain.files), image.size):
                os.rename(folder, stale)
                os.rename(temporary, folder)
    finally:
        for each in (temporary, stale):
            shutil.rmtree(each, ignore_errors=True)


def _check_room(dataset: Dataset, domain: Domain, image: ImageSpec, folder: Path) -> None:
    needed = len(domain.files) * 3 * image.size**2 * (1 + TYPICAL_ASPECT * RESERVE**2)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataMissing(
            f"decoding {dataset.name}/{domain.name} takes about {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} "
            "GB left; make room, or give another folder with --cache"
        )


def _decode_all(dataset: Dataset, domain: Domain, image: ImageSpec, folder: Path, progress: Progress) -> None:
    n, size = len(domain.files), image.size
    centre = np.lib.format.open_memmap(folder / "centre.npy", "w+", np.uint8, (n, size, size, 3))
    index = np.zeros((3, n), np.int64)
    bad: dict[str, str] = {}
    digest = hashlib.sha256()
    position = 0
    with (folder / "whole.bin").open("wb") as whole, ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        for start in range(0, n, WINDOW):  # a window at a time, so that decoded images never pile up
            chosen = domain.files[start : start + WINDOW]
            decoded = pool.map(lambda file: _decode(domain.root / file, image), chosen)
            for i, (data, made) in enumerate(decoded, start):
                digest.update(hashlib.sha256(data).digest())
                if isinstance(made, str):
                    bad[domain.files[i]] = made
                    continue
                centre[i], pixels = made
                index[:, i] = position, pixels.shape[0], pixels.shape[1]
                position += whole.write(pixels.tobytes())
            progress(f"decoding {dataset.name}/{domain.name}: {start + len(chosen)} of {n} images")
    centre.flush()
    np.save(folder / "index.npy", index)
    files.replace_json(folder / "meta.json", {"bad": bad, "digest": digest.hexdigest()[:16], "images": n})


def _decode(path: Path, image: ImageSpec) -> tuple[bytes, tuple[NDArray[np.uint8], NDArray[np.uint8]] | str]:
    """Give a file's bytes and (centre crop, whole image), or the reason why there are none."""
    data, picture = read_picture(path)
    return data, picture if isinstance(picture, str) else (evaluation_transform(picture, image), _whole(picture, image))


def read_picture(path: Path) -> tuple[bytes, Any]:
    """Give a file's bytes and its image (PIL, RGB), or a string that says why it is no image.

    Raises:
        DataMissing: the file cannot be read: a fault of the disk, not of the image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise DataMissing(f"{path} cannot be read: {reason}; try again, or fetch the data anew") from error
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.mode in ("I", "F") or opened.mode.startswith("I;16"):
                return (
                    data,
                    f"pixels of more than 8 bits ({opened.mode}) would be clipped to white: convert it to 8 bits",
                )
            return data, opened.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many kinds; any of them means that this file is no good
        unknown = isinstance(error, UnidentifiedImageError)  # its text names a buffer, not the file
        return data, "no image format that is known" if unknown else f"{type(error).__name__}: {error}"


def evaluation_transform(picture: Any, image: ImageSpec) -> NDArray[np.uint8]:
    """Resize and crop a PIL image as open_clip's evaluation transform does; give (S, S, 3) uint8.

    Short side to S (torchvision's rounding), then centre crop; "squash" resizes both sides to S.
    """
    size = image.size
    if image.resize == "squash":
        return np.asarray(picture.resize((size, size), _resampling(image.interpolation)))
    width, height = picture.size
    short = min(width, height)
    wide, high = (size, int(size * height / short)) if width <= height else (int(size * width / short), size)
    resized = picture.resize((wide, high), _resampling(image.interpolation)) if short != size else picture
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def _whole(picture: Any, image: ImageSpec) -> NDArray[np.uint8]:
    """Shrink a PIL image to the short side that random crops need; never enlarge it."""
    short = min(picture.size)
    target = math.ceil(image.size * RESERVE)
    if short <= target:
        return np.asarray(picture)
    sides = tuple(max(1, round(side * target / short)) for side in picture.size)
    return np.asarray(picture.resize(sides, _resampling(image.interpolation)))


def _resampling(interpolation: str) -> Any:
    from PIL import Image

    return {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]


def _plain(name: str) -> str:
    """Make a folder's name of a data set's or domain's, of no more bytes than file systems take."""
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    return plain.encode()[:60].decode(errors="ignore")
