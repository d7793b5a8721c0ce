"""Miniature copies of data sets in their true layouts, with the file names and list files that the originals have."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np

from bench.class_lists import class_folders, raw_lists
from bench.registry import datasets

PER_CLASS = {"train": 3, "val": 1, "test": 2}
"""Images of each class in each split of a CoOp set."""


@cache
def picture(colour: int = 0, mode: str = "RGB", kind: str = "JPEG", side: int = 8) -> bytes:
    """The bytes of a small picture."""
    from PIL import Image

    out = io.BytesIO()
    Image.new(mode, (side, side), colour if mode in "LP" else None).save(out, kind)
    return out.getvalue()


def put(root: Path, files: Iterable[str]) -> None:
    """Write a small picture at each path below `root`."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(kind="PNG" if file.endswith(".png") else "JPEG"))


# CoOp's sets: the path of the i-th image of a class, below the folder of images, as the original calls it.
_CALTECH = {"face": "Faces", "leopard": "Leopards", "motorbike": "Motorbikes", "airplane": "airplanes"}
_EUROSAT = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)
PATHS: dict[str, Callable[[int, str, int], str]] = {
    "Caltech101": lambda label, name, i: f"{_CALTECH.get(name, name)}/image_{i + 1:04d}.jpg",
    "OxfordPets": lambda label, name, i: f"{name.title() if label % 2 else name}_{i + 1}.jpg",
    "StanfordCars": lambda label, name, i: f"{'cars_test' if i > 3 else 'cars_train'}/{label * 10 + i:05d}.jpg",
    "Flowers102": lambda label, name, i: f"image_{label * 10 + i:05d}.jpg",
    "Food101": lambda label, name, i: f"{name}/{label * 1000 + i}.jpg",
    "SUN397": lambda label, name, i: f"{name[0]}/{'/'.join(reversed(name.split(' ')))}/sun_{chr(97 + i)}.jpg",
    "DTD": lambda label, name, i: f"{name}/{name}_{i + 1:04d}.jpg",
    "EuroSAT": lambda label, name, i: f"{_EUROSAT[label]}/{_EUROSAT[label]}_{i + 1}.jpg",
    "UCF101": lambda label, name, i: f"{name}/v_{name.replace('_', '')}_g{i + 1:02d}_c01.jpg",
}


def coop_split(name: str) -> dict[str, list[tuple[str, int, str]]]:
    """A split file's content for a set of CoOp's; within a split the classes are shuffled, as in the originals."""
    split: dict[str, list[tuple[str, int, str]]] = {each: [] for each in PER_CLASS}
    for label, words in enumerate(class_folders(name)):
        first = 0
        for each, n in PER_CLASS.items():
            split[each] += [(PATHS[name](label, words, i), label, words) for i in range(first, first + n)]
            first += n
    for rows in split.values():
        np.random.default_rng(len(name)).shuffle(rows)  # type: ignore[arg-type]
    return split


def coop(data: Path, name: str) -> Path:
    """Write a set of CoOp's; give its folder."""
    info = datasets[name]
    root = data / info.roots[0]
    images = info.images.split("|")[0]
    split = coop_split(name)
    put(root / images, (file for rows in split.values() for file, _, _ in rows))
    (root / info.split_file).write_text(json.dumps(split))
    return root


def aircraft(data: Path) -> Path:
    """Write FGVCAircraft; give its folder."""
    root = data / "fgvc_aircraft"
    put(root / "images", (f"{1000000 + i}.jpg" for i in range(300)))
    variants = class_folders("FGVCAircraft")
    (root / "variants.txt").write_text("".join(f"{variant}\n" for variant in variants))
    for s, split in enumerate(("train", "val", "test")):
        rows = [f"{1000000 + 100 * s + label} {variant}\n" for label, variant in enumerate(variants)]
        (root / f"images_variant_{split}.txt").write_text("".join(reversed(rows)))
    return root


def imagenet(data: Path, train: str = "imagenet/images/train", validation: str = "imagenet/images/val") -> None:
    """Write ImageNet's two folders."""
    for place, n in ((train, 2), (validation, 1)):
        kind = "val" if place == validation else ""
        for wnid in class_folders("ImageNet wnids"):
            folder = data / place / wnid
            folder.mkdir(parents=True)
            for i in range(n):
                (folder / f"{kind or wnid}_{i}.JPEG").write_bytes(picture())


def folders(data: Path, place: str, classes: Iterable[str], suffix: str = ".jpg", n: int = 1) -> Path:
    """Write `<place>/<class>/<i><suffix>`; give the folder `place`."""
    put(data / place, (f"{each}/{i}{suffix}" for each in classes for i in range(n)))
    return data / place


def objectnet(data: Path) -> Path:
    """Write ObjectNet with some of the 200 classes that ImageNet does not have."""
    return folders(data, "objectnet-1.0/images", [*raw_lists()["ObjectNet"], "air_freshener", "plunger_2"], ".png")


def lists(root: Path, place: str, domains: Iterable[str], classes: Iterable[str]) -> None:
    """Write DomainNet's `<domain>_{train,test}.txt`: three images a class train, one test; ids in the order given."""
    for domain in domains:
        for split, numbers in (("train", (2, 0, 1)), ("test", (3,))):
            lines = [f"{domain}/{each}/{i}.jpg {label}\n" for label, each in enumerate(classes) for i in numbers]
            path = root / place / f"{domain}_{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines))


def mnist(data: Path, n: int = 30, packed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Write MNIST's four files of `n` and n / 2 random digits; give images and labels."""
    raw = data / "MNIST" / "raw"
    raw.mkdir(parents=True)
    draws = np.random.default_rng(n)
    all_images, all_labels = [], []
    for part, size in (("train", n), ("t10k", n // 2)):
        images = draws.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = draws.integers(0, 10, size, dtype=np.uint8)
        for kind, values, axes in (("images-idx3", images, 3), ("labels-idx1", labels, 1)):
            header = bytes([0, 0, 8, axes]) + np.array(values.shape, ">i4").tobytes()
            content = header + values.tobytes()
            name = f"{part}-{kind}-ubyte"
            (raw / (name + ".gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
        all_images.append(images)
        all_labels.append(labels)
    return np.concatenate(all_images), np.concatenate(all_labels)


def camelyon(data: Path, per_hospital: int = 6) -> list[dict[str, str]]:
    """Write camelyon17_v1.0; give its rows."""
    rows = []
    for i in range(5 * per_hospital):
        hospital = (i * 2) % 5
        row = {"patient": f"{hospital:03d}", "node": "1", "x_coord": str(32 * i), "y_coord": "64", "tumor": str(i % 2)}
        rows.append({**row, "slide": "0", "center": str(hospital), "split": str(int(i % 3 == 0))})
    root = data / "camelyon17_v1.0"
    place = "patches/patient_{patient}_node_{node}/patch_patient_{patient}_node_{node}_x_{x_coord}_y_{y_coord}.png"
    put(root, (place.format(**row) for row in rows))
    table(root / "metadata.csv", [{"": str(i), **row} for i, row in enumerate(rows)])
    (root / "RELEASE_v1.0.txt").touch()
    return rows


def fmow(data: Path) -> list[dict[str, str]]:
    """Write fmow_v1.1 with all six regions in the order of the original; give its rows."""
    countries = {"JPN": "Asia", "FRA": "Europe", "KEN": "Africa", "BRA": "Americas", "FJI": "Oceania"}
    categories = class_folders("WILDSFMoW")
    rows = []
    for i in range(72):
        country = [*countries, "XXX"][i % 6]
        row = {"split": ("train", "val", "test", "seq")[(i // 6) % 4], "category": categories[i % 62]}
        rows.append({**row, "country_code": country, "timestamp": f"{(2010, 2014, 2016)[i // 24]}-05-01T08:00:00Z"})
    root = data / "fmow_v1.1"
    table(root / "rgb_metadata.csv", rows)
    table(
        root / "country_code_mapping.csv",
        [{"name": code, "alpha-3": code, "region": countries[code]} for code in countries],
    )
    put(root / "images", (f"rgb_img_{i}.png" for i, row in enumerate(rows) if row["split"] != "seq"))
    return rows


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write a CSV file; give its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
