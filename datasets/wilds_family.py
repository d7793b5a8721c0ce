"""WILDS data sets: WILDSCamelyon (tumours in tissue, five hospitals) and WILDSFMoW (land use from space, six regions).

Domains are DomainBed's: all labelled images by hospital or region. `Dataset.splits` holds WILDS' own splits: train, id_val,
val and test, FMoW also id_test. Files are read without the package `wilds`, in the layout that it unpacks.

WILDSCamelyon (camelyon17_v1.0; 2 classes, 455,954 images of 96 × 96 px)
    `camelyon17_v1.0/metadata.csv` and `patches/patient_<p>_node_<n>/patch_patient_<p>_node_<n>_x_<x>_y_<y>.png`. val is
    hospital 1, test is hospital 2. Names "healthy tissue" and "tumor tissue" are Dassl's; there is no published prompt, ours
    is below. Licence CC0.
WILDSFMoW (fmow_v1.1; 62 classes, images of 224 × 224 px)
    `fmow_v1.1/{rgb_metadata.csv,country_code_mapping.csv}` and `images/rgb_img_<row>.png`; the rows marked `seq` are not
    public. Regions are numbered as they first appear in the table. val is of 2013 to 2015, test from 2016 on. Prompts are
    those of WiSE-FT's sixteen that are fixed (the two with the article "a" or "an" are left out); names have spaces here,
    WiSE-FT keeps `_`. Licence: FMoW Challenge Public License.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.class_lists import class_folders, class_names
from bench.dataset import Archive, Dataset, DatasetInfo, Domain
from bench.errors import DataMissing, SpecError
from bench.listed_images import Entry, listed_domain
from bench.registry import datasets
from bench.roots import find_root, needs_data_dir
from bench.spec import Places

Row = tuple[int, str, Entry]  # domain, split ("" if none), image

_BUNDLES = "https://worksheets.codalab.org/rest/bundles"


@dataclass(frozen=True, kw_only=True)
class WildsSet(DatasetInfo):
    """A data set of WILDS: `rows` of its table become domains and splits.

    Attributes:
        roots: accepted names of its folder.
        tables: files that must be in it.
        split_names: WILDS' splits.
    """

    roots: tuple[str, ...]
    tables: tuple[str, ...]
    split_names: tuple[str, ...]

    def load(self, places: Places) -> Dataset:
        """List the images of the table.

        Raises:
            DataMissing: the folder, a table or an image is not there.
            SpecError: a table lacks a column, or holds an unknown value.
        """
        data = needs_data_dir(self, places, self.roots[0])
        root = find_root(self, data, self.roots, self.tables)
        rows = list(self._checked(root))
        domains: list[Domain] = []
        splits: dict[str, list[NDArray[np.int64]]] = {each: [] for each in self.split_names}
        for index, name in enumerate(self.domains):
            mine = [(split, entry) for domain, split, entry in rows if domain == index]
            if not mine:
                raise DataMissing(f"{self.name}: {root / self.tables[0]} has no image of {name}; fetch it again")
            domains.append(listed_domain(name, root, {"": [entry for _, entry in mine]}, where=self.tables[0])[0])
            for split, positions in splits.items():
                positions.append(np.flatnonzero([each == split for each, _ in mine]).astype(np.int64))
        return Dataset(
            name=self.name,
            class_names=self.class_names,
            domains=tuple(domains),
            templates=self.templates,
            splits={split: tuple(positions) for split, positions in splits.items()},
            notes=self._odd_sizes(domains),
        )

    def rows(self, root: Path) -> Iterator[Row]:
        """Read the table in its order."""
        raise NotImplementedError

    def _checked(self, root: Path) -> Iterator[Row]:
        try:
            yield from self.rows(root)
        except (KeyError, ValueError) as error:
            table = root / self.tables[0]
            raise SpecError(
                f"{table} is not the table of {self.name}: {type(error).__name__}: {error}; fetch it again"
            ) from None

    def _odd_sizes(self, domains: list[Domain]) -> tuple[str, ...]:
        sizes = [len(domain.files) for domain in domains]
        return tuple(
            f"{self.name}/{name} has {size:,} images, published {published:,}"
            for name, size, published in zip(self.domains, sizes, self.counts, strict=False)
            if size != published
        )


class Camelyon(WildsSet):
    """Reads camelyon17's table."""

    def rows(self, root: Path) -> Iterator[Row]:
        """One row an image; val and test are whole hospitals."""
        names = {"0": "train", "1": "id_val"}
        for row in _table(root / "metadata.csv"):
            place = f"patient_{row['patient']}_node_{row['node']}"
            file = f"patches/{place}/patch_{place}_x_{row['x_coord']}_y_{row['y_coord']}.png"
            hospital = int(row["center"])
            split = {1: "val", 2: "test"}.get(hospital) or names.get(row["split"], "")
            yield hospital, split, Entry(file, int(row["tumor"]))


class FMoW(WildsSet):
    """Reads FMoW's table; the region comes from the country, the split from the year."""

    def rows(self, root: Path) -> Iterator[Row]:
        """One row an image, less those that are not public."""
        region_of = {row["alpha-3"]: row["region"] for row in _table(root / "country_code_mapping.csv")}
        labels = {name: label for label, name in enumerate(class_folders(self.name))}
        regions: dict[str, int] = {}
        for number, row in enumerate(_table(root / "rgb_metadata.csv")):
            region = regions.setdefault(region_of.get(row["country_code"]) or "Other", len(regions))
            if row["split"] == "seq":
                continue
            yield region, _fmow_split(row), Entry(f"images/rgb_img_{number}.png", labels[row["category"]])


def _fmow_split(row: dict[str, str]) -> str:
    """WILDS' official split "time_after_2016": test from 2016 on, val the three years before, the rest in distribution."""
    year = int(row["timestamp"][:4])
    period = "test" if year >= 2016 else "val" if year >= 2013 else "id"
    return {
        ("id", "train"): "train",
        ("id", "val"): "id_val",
        ("id", "test"): "id_test",
        ("val", "val"): "val",
        ("test", "test"): "test",
    }.get((period, row["split"]), "")


def _table(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


datasets.add(
    "WILDSCamelyon",
    Camelyon(
        name="WILDSCamelyon",
        summary="tissue with and without tumour from five hospitals, 96 × 96 px; 455,954 images",
        domains=("hospital_0", "hospital_1", "hospital_2", "hospital_3", "hospital_4"),
        class_names=("healthy tissue", "tumor tissue"),
        counts=(59436, 34904, 85054, 129838, 146722),
        split_counts={"train": 302436, "id_val": 33560, "val": 34904, "test": 85054},
        short_sides=(96, 96, 96, 96, 96),
        templates=("a microscope image of {}.",),
        roots=("camelyon17_v1.0",),
        tables=("metadata.csv", "patches"),
        split_names=("train", "id_val", "val", "test"),
        source="https://wilds.stanford.edu (camelyon17_v1.0, 10.7 GB)",
        licence="CC0",
        citation="Bandi et al., CAMELYON17, 2018; Koh et al., WILDS, ICML 2021",
        archives=(
            Archive(
                url=f"{_BUNDLES}/0xe45e15f39fb54e9d9e919556af67aabe/contents/blob/",
                file="camelyon17_v1.0.tar.gz",
                into="camelyon17_v1.0",
            ),
        ),
    ),
)

datasets.add(
    "WILDSFMoW",
    FMoW(
        name="WILDSFMoW",
        summary="62 kinds of land use in satellite images of six regions, 224 × 224 px",
        domains=("region_0", "region_1", "region_2", "region_3", "region_4", "region_5"),
        class_names=class_names("WILDSFMoW"),
        split_counts={"train": 76863, "id_val": 11483, "id_test": 11327, "val": 19915, "test": 22108},
        short_sides=(224, 224, 224, 224, 224, 224),
        templates=(
            *(
                f"{kind} photo of a {{}}{place}."
                for place in ("", " in asia", " in africa", " in the americas", " in europe", " in oceania")
                for kind in ("satellite", "aerial")
            ),
            "a photo of a {}.",
            "{}.",
        ),
        roots=("fmow_v1.1",),
        tables=("rgb_metadata.csv", "country_code_mapping.csv", "images"),
        split_names=("train", "id_val", "id_test", "val", "test"),
        source="https://wilds.stanford.edu (fmow_v1.1, 53.9 GB)",
        licence="FMoW Challenge Public License",
        citation="Christie et al., Functional Map of the World, CVPR 2018; Koh et al., WILDS, ICML 2021",
        archives=(
            Archive(
                url=f"{_BUNDLES}/0xaec91eb7c9d548ebb15e1b5e60f966ab/contents/blob/",
                file="fmow_v1.1.tar.gz",
                into="fmow_v1.1",
            ),
        ),
    ),
)
