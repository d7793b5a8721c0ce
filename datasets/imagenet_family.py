"""ImageNet and the data sets that share its classes: ImageNetV2, ImageNet-Sketch, ImageNet-A, ImageNet-R, ObjectNet.

Class names are those of CLIP's prompt notebook, as in CoOp's `classnames.txt` and WiSE-FT; two of them occur twice (missile,
sunglasses), so that these classes have the same prompt. A, R and ObjectNet have some of the classes; `join_classes` finds
them in ImageNet by name.

ImageNet (1,000 classes; train 1,281,167, validation 50,000, which is the test set, as in CoOp and WiSE-FT)
    `imagenet/images/{train,val}/<wnid>/*.JPEG` (CoOp), `imagenet/{train,val}/`, `imagenet/{train,val_in_folder}/`
    (WiSE-FT), `ILSVRC2012/{train,val_dirs|val}/` (FLYP). Files of a class are sorted by name; CoOp takes them as the file
    system gives them, so its shots of ImageNet differ from machine to machine. The folder train may be absent: then there
    is no split train. Terms: non-commercial research.
ImageNetV2, matched frequency (1,000 classes, 10,000 images)
    `imagenetv2/imagenetv2-matched-frequency-format-val/<0…999>/*.jpeg`; the folder's number is the label. MIT.
ImageNet-Sketch (1,000 classes, 50,889 images)
    `imagenet-sketch/images/<wnid>/` (CoOp) or `sketch/<wnid>/` (WiSE-FT). MIT for the repository.
ImageNet-A (200 classes, 7,500 images), ImageNet-R (200 classes, 30,000 images)
    `imagenet-adversarial/imagenet-a/<wnid>/`, `imagenet-rendition/imagenet-r/<wnid>/` (CoOp), or without the first folder
    (WiSE-FT). MIT for the repositories.
ObjectNet (113 of its 313 classes, 18,574 of its 50,273 images)
    `objectnet-1.0/images/<folder>/*.png`; classes are those that are ImageNet's as well, after WiSE-FT, in the order of the
    folders' names, called by ObjectNet's labels in lower case; `Dataset.aliases` has ImageNet's names of each (125 in all,
    since a chair may be a barber chair, a folding chair or a rocking chair). Its licence: for testing only. WiSE-FT cuts off
    the border of 2 pixels that marks the images.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.class_lists import class_folders, class_names, imagenet_subset, raw_lists
from bench.dataset import Archive, Dataset, DatasetInfo, read_domain
from bench.errors import DataMissing
from bench.image_folders import ImageFolders
from bench.registry import datasets
from bench.roots import find_root, first_of, needs_data_dir, where
from bench.spec import Places

_HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"
_TERMS = "non-commercial research, after ImageNet's terms of access"


@dataclass(frozen=True, kw_only=True)
class ImageNetInfo(DatasetInfo):
    """ImageNet: one domain, which holds the images of train, then those of the validation set.

    Attributes:
        roots: accepted names of its folder.
        train, validation: accepted names of the folders in it, "a|b".
        wnids: folders of the classes.
    """

    roots: tuple[str, ...]
    train: str
    validation: str
    wnids: tuple[str, ...]

    def load(self, places: Places) -> Dataset:
        """List the images.

        Raises:
            DataMissing: the folder, the validation set or a class is not there.
        """
        root = find_root(self, needs_data_dir(self, places, "imagenet"), self.roots, (self.validation,))
        train, validation = first_of(root, self.train), first_of(root, self.validation)
        self._check_layout(root / validation)
        parts = [read_domain("photo", root, folder, self.wnids) for folder in (train, validation) if folder]
        files = tuple(file for part in parts for file in part.files)
        domain = dataclasses.replace(
            parts[-1], files=files, labels=np.concatenate([part.labels for part in parts]), folder=""
        )
        n = len(files) - len(parts[-1].files)
        test = np.arange(n, len(files), dtype=np.int64)
        splits = {"train": (np.arange(n, dtype=np.int64),)} if train else {}
        sizes = {"train": n, "test": len(test)}
        return Dataset(
            name=self.name,
            class_names=self.class_names,
            domains=(domain,),
            templates=self.templates,
            # CoOp selects nothing on ImageNet: its val is its test.
            splits={**splits, "val": (test,), "test": (test,)},
            notes=(
                *(() if train else (f"{self.name} has no folder train: only what needs no training images runs",)),
                *(
                    f"{self.name} has {n:,} images in {split}, published {self.split_counts[split]:,}"
                    for split, n in sizes.items()
                    if n not in (0, self.split_counts[split])
                ),
            ),
        )

    def _check_layout(self, folder: Path) -> None:
        if not (folder / self.wnids[0]).is_dir():
            raise DataMissing(
                f"{self.name}: {folder} has no folder {self.wnids[0]}: the validation images must lie in a folder a class; "
                f"sort them with the script valprep.sh that torchvision's documentation of ImageNet names. {where(self)}"
            )


@dataclass(frozen=True, kw_only=True)
class ObjectNetInfo(ImageFolders):
    """ObjectNet: the folders of 113 classes, with ImageNet's names of them as aliases."""

    def load(self, places: Places) -> Dataset:
        """List the images of the classes that ImageNet has as well."""
        names = raw_lists()["ImageNet"]
        classes = raw_lists()["ObjectNet"].values()
        aliases = {label.lower(): tuple(names[index] for index in indices) for label, *indices in classes}
        dataset = super().load(places)
        notes = tuple(note for note in dataset.notes if "are no class" not in note)  # the other 200 are known
        return dataclasses.replace(dataset, aliases=aliases, notes=notes)


datasets.add(
    "ImageNet",
    ImageNetInfo(
        name="ImageNet",
        summary="1,000 kinds of things in photos (ILSVRC 2012); 1,331,167 images",
        domains=("photo",),
        class_names=class_names("ImageNet"),
        wnids=class_folders("ImageNet wnids"),
        roots=("imagenet/images", "imagenet", "ILSVRC2012"),
        train="train",
        validation="val_in_folder|val_dirs|val",
        counts=(1331167,),
        split_counts={"train": 1281167, "val": 50000, "test": 50000},
        source="https://image-net.org/download.php (after registration)",
        licence=_TERMS,
        citation="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015",
        by_hand=(
            "Register at the address and fetch ILSVRC2012_img_train.tar (md5 1d675b47d978889d74fa0da5fadfb00e) and "
            "ILSVRC2012_img_val.tar (md5 29b22e2961454d5413ddabcf34fc5622)",
            "Unpack them, and the archives inside the first one, to imagenet/images/train/<wnid>/ and "
            "imagenet/images/val/<wnid>/ (torchvision.datasets.ImageNet does it, given these two archives and "
            "ILSVRC2012_devkit_t12.tar.gz)",
        ),
        oddities=("Two class names occur twice, missile and sunglasses: ties go to the lower label",),
    ),
)

datasets.add(
    "ImageNetV2",
    ImageFolders(
        name="ImageNetV2",
        summary="ImageNet's classes in photos collected anew (matched frequency); 10,000 images",
        domains=("photo",),
        folders=("imagenetv2-matched-frequency-format-val",),
        phrases={"imagenetv2-matched-frequency-format-val": "photo"},
        spellings={"imagenetv2-matched-frequency-format-val": ("ImageNetV2-matched-frequency",)},
        roots=("imagenetv2",),
        class_folders=tuple(map(str, range(1000))),
        class_names=class_names("ImageNet"),
        counts=(10000,),
        source="https://huggingface.co/datasets/vaishaal/ImageNetV2 (imagenetv2-matched-frequency.tar.gz)",
        licence="MIT",
        citation="Recht et al., Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019",
        archives=(
            Archive(
                url="https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",
                file="imagenetv2-matched-frequency.tar.gz",
                into="imagenetv2",
            ),
        ),
        oddities=("Class folders are numbers, so a sort of their names gives 0, 1, 10, 100; the number is the label",),
    ),
)

datasets.add(
    "ImageNet-Sketch",
    ImageFolders(
        name="ImageNet-Sketch",
        summary="ImageNet's classes in drawings without colour; 50,889 images",
        domains=("sketch",),
        folders=("images",),
        spellings={"images": ("sketch",)},
        phrases={"images": "sketch"},
        roots=("imagenet-sketch",),
        class_folders=class_folders("ImageNet wnids"),
        class_names=class_names("ImageNet"),
        counts=(50889,),
        source="https://drive.google.com/uc?id=1Mj0i5HBthqH1p_yeXzsg22gZduvgoNeA (ImageNet-Sketch.zip)",
        licence="MIT (the repository)",
        citation="Wang et al., Learning Robust Global Representations by Penalizing Local Predictive Power, NeurIPS 2019",
        by_hand=(
            "Fetch ImageNet-Sketch.zip with a browser and unpack it into imagenet-sketch/; its folder sketch/ may stay",
        ),
    ),
)

for _name, _file, _root, _md5, _count, _what, _citation in (
    (
        "ImageNet-A",
        "imagenet-a",
        "imagenet-adversarial",
        "c3e55429088dc681f30d81f4726b6595",
        7500,
        "200 of ImageNet's classes in photos that ResNet-50 gets wrong",
        "Hendrycks et al., Natural Adversarial Examples, CVPR 2021",
    ),
    (
        "ImageNet-R",
        "imagenet-r",
        "imagenet-rendition",
        "a61312130a589d0ca1a8fca1f2bd3337",
        30000,
        "200 of ImageNet's classes as art, cartoons, toys, …",
        "Hendrycks et al., The Many Faces of Robustness, ICCV 2021",
    ),
):
    datasets.add(
        _name,
        ImageFolders(
            name=_name,
            summary=f"{_what}; {_count:,} images",
            domains=({"ImageNet-A": "adversarial", "ImageNet-R": "rendition"}[_name],),
            folders=(_file,),
            phrases={_file: {"ImageNet-A": "photo", "ImageNet-R": "rendition"}[_name]},
            roots=(_root,),
            class_folders=imagenet_subset(_name)[0],
            class_names=imagenet_subset(_name)[1],
            counts=(_count,),
            source=f"{_HENDRYCKS}/{_file}.tar (md5 {_md5})",
            licence="MIT (the repository); the images are third parties'",
            citation=_citation,
            archives=(Archive(url=f"{_HENDRYCKS}/{_file}.tar", file=f"{_file}.tar", md5=_md5, into=_root),),
        ),
    )

datasets.add(
    "ObjectNet",
    ObjectNetInfo(
        name="ObjectNet",
        summary="things in odd places and poses, 113 classes that ImageNet has as well; 18,574 images",
        domains=("photo",),
        folders=("images",),
        phrases={"images": "photo"},
        roots=("objectnet-1.0", "objectnet-1.0/objectnet-1.0"),
        class_folders=class_folders("ObjectNet"),
        class_names=tuple(label.lower() for label, *_ in raw_lists()["ObjectNet"].values()),
        counts=(18574,),
        source="https://objectnet.dev/downloads/objectnet-1.0.zip (password objectnetisatestset)",
        licence="ObjectNet's own: for testing only, never for training; the border must stay when it is passed on",
        citation="Barbu et al., ObjectNet, NeurIPS 2019",
        by_hand=(
            "Fetch the archive, read its licence, and unpack it below --data-dir with the password objectnetisatestset, "
            "which makes objectnet-1.0/images/",
        ),
        oddities=("WiSE-FT cuts off the border of 2 pixels that marks each image",),
    ),
)
