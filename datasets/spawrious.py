"""Spawrious: four breeds of dogs in six surroundings, with backgrounds that mislead; six data sets of three domains.

Layout: `spawrious224/{0,1}/<surroundings>/<breed>/*.png`, generated images of 224 × 224 px. Which images make a domain is
computed, as in DomainBed's `SpawriousBenchmark`: in the groups SC_group_1 and SC_group_2 each breed stands before its own
background in most images (one to one, O2O: 97 % and 87 %, the rest before one background that all share; many to many, M2M:
two breeds swap two backgrounds), in Test before another one. Only Test is a fair held-out domain. Of a folder, the first n
files by name are taken; DomainBed takes them as the file system gives them. Licence: CC0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.dataset import Archive, Dataset, DatasetInfo, Domain, list_images
from bench.errors import DataMissing
from bench.registry import datasets
from bench.roots import find_root, needs_data_dir, where
from bench.spec import Places

CLASSES = ("bulldog", "corgi", "dachshund", "labrador")
ORDER = ("bulldog", "dachshund", "labrador", "corgi")
"""The order in which the benchmark names breeds: backgrounds below belong to these, and images follow it."""

TOTAL = 3168
"""Images of each breed in each folder."""

CORRELATED = (int(0.97 * TOTAL), int(0.87 * TOTAL))
"""Images of a breed before its own background, in the first and the second group."""

Part = tuple[str, str, int]  # "<0 or 1>/<surroundings>", breed, number of images


@dataclass(frozen=True, kw_only=True)
class SpawriousSet(DatasetInfo):
    """One of the six data sets.

    Attributes:
        groups: training backgrounds of the breeds, in `ORDER`.
        tests: test backgrounds of the breeds.
        shared: the background that all breeds share in O2O; empty in M2M.
    """

    groups: tuple[str, str, str, str]
    tests: tuple[str, str, str, str]
    shared: str = ""

    def load(self, places: Places) -> Dataset:
        """List the images.

        Raises:
            DataMissing: a folder is not there, or holds too few images.
        """
        root = find_root(self, needs_data_dir(self, places, "spawrious224"), ("spawrious224", "spawrious"), ("0",))
        domains = []
        for name, parts in zip(self.domains, self.parts(), strict=True):
            files: list[str] = []
            labels: list[int] = []
            for folder, breed, n in parts:
                images = list_images(root / folder / breed)
                if len(images) < n:
                    raise DataMissing(
                        f"{self.name}: {root / folder / breed} holds {len(images):,} images, {n:,} are needed. {where(self)}"
                    )
                files += [f"{folder}/{breed}/{image}" for image in images[:n]]
                labels += [CLASSES.index(breed)] * n
            domains.append(Domain(name, root, tuple(files), np.asarray(labels, dtype=np.int64)))
        return Dataset(self.name, self.class_names, tuple(domains), self.templates)

    def parts(self) -> tuple[list[Part], ...]:
        """Say what each domain is made of, in DomainBed's order."""
        return (self._test(), self._group(0), self._group(1))

    def _test(self) -> list[Part]:
        if self.shared:
            return [(f"{k}/{self.tests[b]}", breed, TOTAL) for k in (0, 1) for b, breed in enumerate(ORDER)]
        return [(f"0/{self.tests[_swapped(b, k)]}", breed, TOTAL) for k in (0, 1) for b, breed in enumerate(ORDER)]

    def _group(self, k: int) -> list[Part]:
        if self.shared:
            own = [(f"{k}/{self.groups[b]}", breed, CORRELATED[k]) for b, breed in enumerate(ORDER)]
            return own + [(f"{k}/{self.shared}", breed, TOTAL - CORRELATED[k]) for breed in ORDER]
        return [(f"0/{self.groups[_swapped(b, k)]}", breed, TOTAL) for b, breed in enumerate(ORDER)]


def _swapped(breed: int, k: int) -> int:
    """In the second group (k = 1) the first two breeds swap backgrounds, and so do the last two."""
    return breed ^ k


_BACKGROUNDS = {
    "O2O_easy": (("desert", "jungle", "dirt", "snow"), ("dirt", "snow", "desert", "jungle"), "beach"),
    "O2O_medium": (("mountain", "beach", "dirt", "jungle"), ("jungle", "dirt", "beach", "snow"), "desert"),
    "O2O_hard": (("jungle", "mountain", "snow", "desert"), ("mountain", "snow", "desert", "jungle"), "beach"),
    "M2M_easy": (("desert", "mountain", "dirt", "jungle"), ("dirt", "jungle", "mountain", "desert"), ""),
    "M2M_medium": (("beach", "snow", "mountain", "desert"), ("desert", "mountain", "beach", "snow"), ""),
    "M2M_hard": (("dirt", "jungle", "snow", "beach"), ("snow", "beach", "dirt", "jungle"), ""),
}

for _kind, (_groups, _tests, _shared) in _BACKGROUNDS.items():
    datasets.add(
        f"Spawrious{_kind}",
        SpawriousSet(
            name=f"Spawrious{_kind}",
            summary="four breeds of dogs before misleading backgrounds, generated; only Test is a fair held-out domain",
            domains=("Test", "SC_group_1", "SC_group_2"),
            class_names=CLASSES,
            counts=(8 * TOTAL, 4 * TOTAL, 4 * TOTAL),
            short_sides=(224, 224, 224),
            groups=_groups,
            tests=_tests,
            shared=_shared,
            source="https://github.com/aengusl/spawrious (spawrious224.tar.gz; all six data sets)",
            licence="CC0 1.0",
            citation="Lynch et al., Spawrious: A Benchmark for Fine Control of Spurious Correlation Biases, 2023",
            archives=(
                Archive(
                    url="https://www.dropbox.com/s/e40j553480h3f3s/spawrious224.tar.gz?dl=1", file="spawrious224.tar.gz"
                ),
            ),
        ),
    )
