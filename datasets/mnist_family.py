"""ColoredMNIST and RotatedMNIST, made of MNIST as in DomainBed; the pictures are drawn once into the cache folder.

MNIST's four files are read from `MNIST/raw/` below the data directory, where torchvision puts them, unpacked or `.gz`. All
70,000 digits are shuffled once and dealt out to the domains. DomainBed shuffles anew in every run; here the shuffle is that
of `torch.manual_seed(0)`, so that file lists and splits are the same in all trials. Licence: CC BY-SA 3.0.

ColoredMNIST: three domains, which are named after how far colour and label agree; 2 classes, digits below 5 and the others,
    with a quarter of the labels wrong on purpose. DomainBed's two channels are red and green here, blue is zero. There is no
    published prompt; the class names are ours.
RotatedMNIST: six domains, 0 to 75 degrees; 10 classes; the prompt is CLIP's for MNIST.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import mnist
from bench.dataset import Archive, Dataset, DatasetInfo
from bench.registry import datasets
from bench.roots import find_root, needs_data_dir
from bench.spec import Places

_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist"
_ARCHIVES = tuple(
    Archive(url=f"{_MIRROR}/{name}.gz", file=f"{name}.gz", md5=md5, into="MNIST/raw")
    for name, md5 in zip(
        mnist.FILES,
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        strict=True,
    )
)


@dataclass(frozen=True, kw_only=True)
class MnistSet(DatasetInfo):
    """A data set made of MNIST.

    Attributes:
        parameters: what the drawing is told in each domain.
        draw: how a domain is drawn.
    """

    parameters: Sequence[float]
    draw: mnist.Draw

    def load(self, places: Places) -> Dataset:
        """List the pictures, after drawing them into the cache folder if they are not there.

        Raises:
            DataMissing: MNIST's files are not there.
        """
        images, labels, digest = mnist.read_mnist(self._raw(places))
        folder = self._folder(places, digest)
        domains = mnist.render(
            folder, self.domains, lambda: mnist.environments(images, labels, self.parameters, self.draw)
        )
        odd = "" if len(images) == 70000 else f"{self.name} is made of {len(images):,} digits, published 70,000"
        return Dataset(
            name=self.name,
            class_names=self.class_names,
            domains=tuple(domains),
            templates=self.templates,
            version=f"{mnist.VERSION}+{digest}",
            notes=(odd,) if odd else (),
        )

    def look(self, places: Places) -> Dataset | None:
        """List the pictures if they are drawn."""
        digest = mnist.read_mnist(self._raw(places))[2]
        return self.load(places) if self._folder(places, digest).is_dir() else None

    def _raw(self, places: Places) -> Path:
        return find_root(self, needs_data_dir(self, places, "MNIST"), ("MNIST",), ("raw",)) / "raw"

    def _folder(self, places: Places, digest: str) -> Path:
        return places.cache_folder() / f"{self.name.lower()}-v{mnist.VERSION}-{digest}"


datasets.add(
    "ColoredMNIST",
    MnistSet(
        name="ColoredMNIST",
        summary="digits below 5 and others, coloured so that the colour misleads in the third domain; 70,000 images",
        domains=("+90%", "+80%", "-90%"),
        class_names=("number from five to nine", "number from zero to four"),
        counts=(23334, 23333, 23333),
        short_sides=(28, 28, 28),
        parameters=(0.1, 0.2, 0.9),
        draw=mnist.colour,
        templates=("a photo of a {}.",),
        source=f"{_MIRROR}/ (MNIST's four files), coloured on the spot",
        licence="CC BY-SA 3.0 (MNIST)",
        citation="Arjovsky et al., Invariant Risk Minimization, 2019",
        archives=_ARCHIVES,
    ),
)

datasets.add(
    "RotatedMNIST",
    MnistSet(
        name="RotatedMNIST",
        summary="digits at six angles; 70,000 images",
        domains=("0", "15", "30", "45", "60", "75"),
        class_names=tuple(map(str, range(10))),
        counts=(11667, 11667, 11667, 11667, 11666, 11666),
        short_sides=(28, 28, 28, 28, 28, 28),
        parameters=(0, 15, 30, 45, 60, 75),
        draw=mnist.rotate,
        templates=('a photo of the number: "{}".',),
        source=f"{_MIRROR}/ (MNIST's four files), rotated on the spot",
        licence="CC BY-SA 3.0 (MNIST)",
        citation="Ghifary et al., Domain Generalization for Object Recognition with Multi-task Autoencoders, ICCV 2015",
        archives=_ARCHIVES,
    ),
)
