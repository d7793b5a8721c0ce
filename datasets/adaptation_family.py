"""Data sets of unsupervised domain adaptation: Office31, VisDA-C, miniDomainNet.

Domains have the order of UEO's code, classes that of its lists. OfficeHome and DomainNet, which belong here too, are in
`domainbed_family`.

Office31 (3 domains, 31 classes, 4,110 images)
    `office31/<domain>/images/<class>/frame_%04d.jpg` as the authors' archive has it (TLlib), or `office31/<domain>/<class>/`
    (Dassl); also under the names `Office31`, `OFFICE`, `office`. 49 groups of files are the same byte for byte, each within
    one class of amazon. Licence: none stated, research use.

VisDA-C (VisDA-2017 classification; 2 domains, 12 classes, 207,785 images)
    `visda-c/{train,validation}/<class>/*`; train is rendered, validation are photos. The test set has a flat layout and is
    not used by the methods here.

miniDomainNet (4 domains, 126 of DomainNet's classes, 140,006 images; Zhou et al., DAEL, 2021)
    DomainNet's folders with the lists `splits_mini/<domain>_{train,test}.txt` beside them. Classes and their order are
    those of the lists. The original paper shrinks the images to 96 × 96; here they are as they are on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.class_lists import class_folders
from bench.dataset import Archive, Dataset, DatasetInfo, clean_class_name
from bench.errors import Conflict, DataMissing
from bench.image_folders import ImageFolders
from bench.listed_images import Entry, listed_domain, read_list
from bench.registry import datasets
from bench.roots import find_root, needs_data_dir
from bench.spec import Places

SPLITS = ("train", "test")

datasets.add(
    "Office31",
    ImageFolders(
        name="Office31",
        summary="31 things of an office, from a shop's pages, a camera and a webcam; 4,110 images",
        domains=("A", "D", "W"),
        folders=("amazon", "dslr", "webcam"),
        inner=("images",),
        roots=("office31", "Office-31", "OFFICE", "domain_adaptation_images"),
        class_folders=class_folders("Office31"),
        counts=(2817, 498, 795),
        short_sides=(300, 1000, 0),
        source="https://faculty.cc.gatech.edu/~judy/domainadapt/ (links domain_adaptation_images.tar.gz)",
        licence="none stated; research use",
        citation="Saenko et al., Adapting Visual Category Models to New Domains, ECCV 2010",
        by_hand=(
            "Open the address in a browser and follow its link to the archive (or: TLlib's office31.py has "
            "the addresses of a mirror)",
            "Unpack it into office31/ below --data-dir, so that there are office31/amazon/images/<class>/ and so on",
        ),
        oddities=("49 groups of files in amazon are the same byte for byte, each within one class",),
    ),
)

_VISDA = "http://csr.bu.edu/ftp/visda17/clf"

datasets.add(
    "VisDA-C",
    ImageFolders(
        name="VisDA-C",
        summary="twelve kinds of things, rendered and in photos (VisDA-2017); 207,785 images",
        domains=("train", "validation"),
        folders=("train", "validation"),
        phrases={"train": "rendering", "validation": "photo"},
        roots=("visda-c", "visda17", "visda-2017"),
        class_folders=class_folders("VisDA-C"),
        counts=(152397, 55388),
        source=f"{_VISDA}/ (train.tar, validation.tar)",
        licence="none stated; research use",
        citation="Peng et al., VisDA: The Visual Domain Adaptation Challenge, 2017",
        archives=tuple(
            Archive(url=f"{_VISDA}/{domain}.tar", file=f"{domain}.tar", into="visda-c")
            for domain in ("train", "validation")
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class MiniDomainNet(DatasetInfo):
    """DomainNet's images as the lists in `splits_mini/` choose them.

    Attributes:
        roots: accepted names of DomainNet's folder.
        folders: the domains' folders, in the order of `domains`.
    """

    roots: tuple[str, ...]
    folders: tuple[str, ...]

    def load(self, places: Places) -> Dataset:
        """List the images.

        Raises:
            DataMissing: DomainNet, a list or a listed image is not there.
            Conflict: the lists disagree on the classes.
        """
        data = needs_data_dir(self, places, self.roots[0])
        root = find_root(self, data, self.roots, ("splits_mini",))
        pairs = {folder: self._lists(root, folder) for folder in self.folders}
        classes = _classes(root, [pair for lists in pairs.values() for of_split in lists.values() for pair in of_split])
        domains, positions = [], []
        for name, folder in zip(self.domains, self.folders, strict=True):
            entries = {split: [Entry(*pair) for pair in of_split] for split, of_split in pairs[folder].items()}
            domain, splits = listed_domain(name, root, entries, where=f"splits_mini/{folder}_*.txt", folder=folder)
            domains.append(domain)
            positions.append(splits)
        return Dataset(
            name=self.name,
            class_names=tuple(map(clean_class_name, classes)),
            domains=tuple(domains),
            templates=self.templates,
            notes=self._odd_total(sum(len(domain.files) for domain in domains)),
            splits={split: tuple(of_domain[split] for of_domain in positions) for split in SPLITS},
        )

    def _lists(self, root: Path, folder: str) -> dict[str, list[tuple[str, int]]]:
        lists = {}
        for split in SPLITS:
            path = root / "splits_mini" / f"{folder}_{split}.txt"
            if not path.is_file():
                raise DataMissing(f"{self.name}: the list {path} is missing. Where to get it: {self.source}")
            lists[split] = read_list(path)
        return lists

    def _odd_total(self, total: int) -> tuple[str, ...]:
        return () if total == self.total else (f"{self.name} has {total:,} images, published {self.total:,}",)


def _classes(root: Path, pairs: list[tuple[str, int]]) -> list[str]:
    """Give the class folders by label; each label must have one, and each of them one label."""
    found = {(label, file.split("/")[1]) for file, label in pairs if file.count("/") >= 2}
    labels = sorted(label for label, _ in found)
    if labels != list(range(len(labels))) or len({name for _, name in found}) != len(found) or len(found) < 2:
        raise Conflict(
            f"the lists in {root / 'splits_mini'} do not give each of the labels 0, 1, … one class folder of its own "
            "(lines `<domain>/<class>/<file> <label>`); fetch them again"
        )
    return [name for _, name in sorted(found)]


datasets.add(
    "miniDomainNet",
    MiniDomainNet(
        name="miniDomainNet",
        summary="126 of DomainNet's classes in four styles, chosen by lists (DAEL); 140,006 images",
        domains=("clipart", "painting", "real", "sketch"),
        folders=("clipart", "painting", "real", "sketch"),
        roots=("domainnet", "domain_net"),
        counts=(18703, 31202, 65609, 24492),
        total=140006,
        source=(
            "DomainNet's images, and https://drive.google.com/uc?id=15rrLDCrzyi6ZY-1vJar3u7plgLe4COL7 (splits_mini.zip)"
        ),
        licence="fair use; research only",
        citation="Zhou et al., Domain Adaptive Ensemble Learning, TIP 2021",
        by_hand=(
            "Get DomainNet's images first: python -m bench.data download DomainNet",
            "Fetch splits_mini.zip with a browser and unpack it into DomainNet's folder: domain_net/splits_mini/",
        ),
    ),
)
