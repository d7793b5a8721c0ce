"""CoOp's ten data sets beside ImageNet, with CoOp's splits: Caltech101 to UCF101.

Layouts are those of CoOp's DATASETS.md. Splits are read from `split_zhou_<Name>.json` in the data set's folder,
FGVCAircraft's from the lists of its archive. Without them nothing is guessed: CoOp's own fall-back draws from the stream
that draws the shots, too. Classes have the order of the labels in these files. The one domain holds train, val and test in
this order.

| name         | folder         | images in              | classes | train / val / test     |
| Caltech101   | caltech-101    | 101_ObjectCategories   | 100     | 4,128 / 1,649 / 2,465  |
| OxfordPets   | oxford_pets    | images                 | 37      | 2,944 / 736 / 3,669    |
| StanfordCars | stanford_cars  | cars_train, cars_test  | 196     | 6,509 / 1,635 / 8,041  |
| Flowers102   | oxford_flowers | jpg                    | 102     | 4,093 / 1,633 / 2,463  |
| Food101      | food-101       | images                 | 101     | 50,500 / 20,200 / 30,300 |
| FGVCAircraft | fgvc_aircraft  | images                 | 100     | 3,334 / 3,333 / 3,333  |
| SUN397       | sun397         | SUN397                 | 397     | 15,880 / 3,970 / 19,850 |
| DTD          | dtd            | images                 | 47      | 2,820 / 1,128 / 1,692  |
| EuroSAT      | eurosat        | 2750                   | 10      | 13,500 / 5,400 / 8,100 |
| UCF101       | ucf101         | UCF-101-midframes      | 101     | 7,639 / 1,898 / 3,783  |

Names: CoOp's, with `_` as a space. So Caltech101 has no BACKGROUND_Google and no Faces_easy and says "airplane", "face",
"leopard", "motorbike"; StanfordCars has the year in front; SUN397 has parts of names reversed ("indoor badminton court");
EuroSAT says "Annual Crop Land" for AnnualCrop and so on. CLIP's own prompts differ in some of them. Accuracy is what CoOp
reports on all of them; CLIP's paper reports the mean per class on Caltech101, OxfordPets, Flowers102 and FGVCAircraft.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.class_lists import class_names
from bench.dataset import Archive, Dataset, DatasetInfo, clean_class_name
from bench.errors import Conflict, SpecError
from bench.listed_images import Entry, listed_domain, read_lines, read_split_file
from bench.registry import datasets
from bench.roots import find_root, first_of, needs_data_dir
from bench.spec import Places

_DRIVE = "https://drive.google.com/uc?id="
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"


@dataclass(frozen=True, kw_only=True)
class CoOpSet(DatasetInfo):
    """A data set with one domain and CoOp's split file.

    Attributes:
        roots: accepted names of its folder.
        images: folder that the split file's paths start from, "a|b" where copies differ; "." = the data set's own.
        parts: folders that must be there as well.
        split_file: name of the split file.
    """

    roots: tuple[str, ...]
    images: str = "images"
    parts: tuple[str, ...] = ()
    split_file: str
    split_counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the number of images, which is that of the splits."""
        object.__setattr__(self, "counts", (sum(self.split_counts.values()),))

    def load(self, places: Places) -> Dataset:
        """List the images of the split file.

        Raises:
            DataMissing: the folder, the split file or a listed image is not there.
            Conflict: the split file names classes otherwise, or gives an image two labels.
            SpecError: the split file is none.
        """
        data = needs_data_dir(self, places, self.roots[0])
        root = find_root(self, data, self.roots, (self.images, *self.parts, *self.needed_files()))
        images = first_of(root, self.images).removeprefix(".")
        entries = self.entries(root, images)
        domain, splits = listed_domain(self.domains[0], root, entries, where=self.split_file)
        return Dataset(
            name=self.name,
            class_names=self.class_names,
            domains=(domain,),
            templates=self.templates,
            splits={split: (positions,) for split, positions in splits.items()},
            notes=tuple(
                f"{self.name} has {len(entries[split]):,} images in {split}, published {published:,}"
                for split, published in self.split_counts.items()
                if len(entries[split]) != published
            ),
        )

    def needed_files(self) -> tuple[str, ...]:
        """Name the files that must be in the data set's folder."""
        return (self.split_file,)

    def entries(self, root: Path, images: str) -> dict[str, list[Entry]]:
        """Read the images of each split, below the folder `images`."""
        return read_split_file(root / self.split_file, self.class_names, images)


class AircraftSet(CoOpSet):
    """FGVCAircraft, whose splits are in its own text files: lines `<image> <variant>`."""

    def needed_files(self) -> tuple[str, ...]:
        """Name the lists."""
        return ("variants.txt", *(f"images_variant_{split}.txt" for split in self.split_counts))

    def entries(self, root: Path, images: str) -> dict[str, list[Entry]]:
        """Read the lists of the three splits; the label is the variant's line in variants.txt."""
        variants = [line.strip() for line in read_lines(root / "variants.txt")]
        if tuple(map(clean_class_name, variants)) != self.class_names:
            raise Conflict(
                f"{root / 'variants.txt'} does not hold the {len(self.class_names)} published variants in order"
            )
        entries: dict[str, list[Entry]] = {}
        for split in self.split_counts:
            path = root / f"images_variant_{split}.txt"
            entries[split] = []
            for number, line in enumerate(read_lines(path), 1):
                image, _, variant = line.strip().partition(" ")
                if variant not in variants:
                    raise SpecError(
                        f"{path}:{number} is not `<image> <variant>` with a known variant: {line.strip()!r}"
                    )
                entries[split].append(Entry(f"{images}/{image}.jpg", variants.index(variant)))
        return entries


def _sizes(train: int, val: int, test: int) -> dict[str, int]:
    return {"train": train, "val": val, "test": test}


def _split_step(name: str, drive: str, folder: str) -> str:
    return f"Fetch {name} with a browser from {_DRIVE}{drive} and put it into {folder}/"


datasets.add(
    "Caltech101",
    CoOpSet(
        name="Caltech101",
        summary="100 kinds of objects in photos; CoOp's split, 8,242 images",
        domains=("photo",),
        class_names=class_names("Caltech101"),
        roots=("caltech-101", "caltech101"),
        images="101_ObjectCategories",
        split_file="split_zhou_Caltech101.json",
        split_counts=_sizes(4128, 1649, 2465),
        templates=("a photo of a {}.",),
        source="https://data.caltech.edu/records/mzrjq-6wc02 (caltech-101.zip, md5 3138e1922a9193bfa496528edbbc45d0)",
        licence="CC BY 4.0",
        citation="Fei-Fei et al., Learning Generative Visual Models from Few Training Examples, CVPR workshop 2004",
        archives=(
            Archive(
                url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                file="caltech-101.zip",
                md5="3138e1922a9193bfa496528edbbc45d0",
                within="caltech-101/101_ObjectCategories.tar.gz",
            ),
        ),
        by_hand=(_split_step("split_zhou_Caltech101.json", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN", "caltech-101"),),
    ),
)

datasets.add(
    "OxfordPets",
    CoOpSet(
        name="OxfordPets",
        summary="37 breeds of cats and dogs in photos; CoOp's split, 7,349 images",
        domains=("photo",),
        class_names=class_names("OxfordPets"),
        roots=("oxford_pets", "oxford-iiit-pet"),
        split_file="split_zhou_OxfordPets.json",
        split_counts=_sizes(2944, 736, 3669),
        templates=("a photo of a {}, a type of pet.",),
        source=f"{_OXFORD}/pets/ (images.tar.gz, annotations.tar.gz)",
        licence="CC BY-SA 4.0",
        citation="Parkhi et al., Cats and Dogs, CVPR 2012",
        archives=(
            Archive(
                url=f"{_OXFORD}/pets/data/images.tar.gz",
                file="images.tar.gz",
                md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
                into="oxford_pets",
            ),
            Archive(
                url=f"{_OXFORD}/pets/data/annotations.tar.gz",
                file="annotations.tar.gz",
                md5="95a8c909bbe2e81eed6a22bccdf3f68f",
                into="oxford_pets",
            ),
        ),
        by_hand=(_split_step("split_zhou_OxfordPets.json", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs", "oxford_pets"),),
        oddities=(
            "GIF files that are named .jpg: Abyssinian_34 and Egyptian_Mau_139, 145, 167, 177, 191; they decode",
            "PNG files that are named .jpg: Abyssinian_5 and Egyptian_Mau_14, 156, 186; they decode",
            "JPEG files with bytes after their end: beagle_116, chihuahua_121; they decode",
        ),
    ),
)

datasets.add(
    "StanfordCars",
    CoOpSet(
        name="StanfordCars",
        summary="196 models of cars in photos; CoOp's split, 16,185 images",
        domains=("photo",),
        class_names=class_names("StanfordCars"),
        roots=("stanford_cars",),
        images=".",
        parts=("cars_train", "cars_test"),
        split_file="split_zhou_StanfordCars.json",
        split_counts=_sizes(6509, 1635, 8041),
        templates=("a photo of a {}.",),
        source="the authors' links (ai.stanford.edu/~jkrause/cars/) are dead; torchvision's issue 7545 names mirrors",
        licence="none stated; research use",
        citation="Krause et al., 3D Object Representations for Fine-Grained Categorization, ICCV workshop 2013",
        by_hand=(
            "Get cars_train.tgz and cars_test.tgz from a mirror and unpack both into stanford_cars/",
            _split_step("split_zhou_StanfordCars.json", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT", "stanford_cars"),
        ),
        oddities=("One class name holds a slash: 2012 Ram C/V Cargo Van Minivan",),
    ),
)

datasets.add(
    "Flowers102",
    CoOpSet(
        name="Flowers102",
        summary="102 kinds of flowers in photos; CoOp's split, 8,189 images",
        domains=("photo",),
        class_names=class_names("Flowers102"),
        roots=("oxford_flowers", "flowers-102"),
        images="jpg",
        split_file="split_zhou_OxfordFlowers.json",
        split_counts=_sizes(4093, 1633, 2463),
        templates=("a photo of a {}, a type of flower.",),
        source=f"{_OXFORD}/flowers/102/ (102flowers.tgz, md5 52808999861908f626f3c1f4e79d11fa)",
        licence="none stated; research use",
        citation="Nilsback and Zisserman, Automated Flower Classification over a Large Number of Classes, ICVGIP 2008",
        archives=(
            Archive(
                url=f"{_OXFORD}/flowers/102/102flowers.tgz",
                file="102flowers.tgz",
                md5="52808999861908f626f3c1f4e79d11fa",
                into="oxford_flowers",
            ),
        ),
        by_hand=(_split_step("split_zhou_OxfordFlowers.json", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT", "oxford_flowers"),),
        oddities=("CoOp's split is not the official one of setid.mat",),
    ),
)

datasets.add(
    "Food101",
    CoOpSet(
        name="Food101",
        summary="101 dishes in photos; CoOp's split, 101,000 images",
        domains=("photo",),
        class_names=class_names("Food101"),
        roots=("food-101",),
        split_file="split_zhou_Food101.json",
        split_counts=_sizes(50500, 20200, 30300),
        templates=("a photo of {}, a type of food.",),
        source="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz (md5 85eeb15f3717b99a5da872d97d918f87)",
        licence="the photographers' rights; research and fair use",
        citation="Bossard et al., Food-101, ECCV 2014",
        archives=(
            Archive(
                url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                file="food-101.tar.gz",
                md5="85eeb15f3717b99a5da872d97d918f87",
            ),
        ),
        by_hand=(_split_step("split_zhou_Food101.json", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl", "food-101"),),
        oddities=("CoOp's split is not the official one of meta/",),
    ),
)

datasets.add(
    "FGVCAircraft",
    AircraftSet(
        name="FGVCAircraft",
        summary="100 variants of aircraft in photos; the official split, 10,000 images",
        domains=("photo",),
        class_names=class_names("FGVCAircraft"),
        roots=("fgvc_aircraft", "fgvc-aircraft-2013b/data"),
        split_file="images_variant_train.txt, images_variant_val.txt and images_variant_test.txt",
        split_counts=_sizes(3334, 3333, 3333),
        templates=("a photo of a {}, a type of aircraft.",),
        source=f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
        licence="non-commercial research only",
        citation="Maji et al., Fine-Grained Visual Classification of Aircraft, 2013",
        archives=(
            Archive(
                url=f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", file="fgvc-aircraft-2013b.tar.gz"
            ),
        ),
        oddities=(
            "The lowest 20 pixels of an image are a banner with its copyright; nobody crops it, nor does CLIPBed",
        ),
    ),
)

datasets.add(
    "SUN397",
    CoOpSet(
        name="SUN397",
        summary="397 kinds of places in photos; CoOp's split, 39,700 images",
        domains=("photo",),
        class_names=class_names("SUN397"),
        roots=("sun397",),
        images="SUN397",
        split_file="split_zhou_SUN397.json",
        split_counts=_sizes(15880, 3970, 19850),
        templates=("a photo of a {}.",),
        source="the authors' links (vision.princeton.edu/projects/2010/SUN/) are dead; md5 8ca2778205c41d23104230ba66911c7a",
        licence="none stated; research use",
        citation="Xiao et al., SUN Database, CVPR 2010",
        by_hand=(
            "Get SUN397.tar.gz from a mirror, check its md5 (8ca2778205c41d23104230ba66911c7a) and unpack it into sun397/",
            _split_step("split_zhou_SUN397.json", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq", "sun397"),
        ),
        oddities=("The archive holds 108,754 images; CoOp's split uses 39,700 of them",),
    ),
)

datasets.add(
    "DTD",
    CoOpSet(
        name="DTD",
        summary="47 kinds of textures; CoOp's split, 5,640 images",
        domains=("texture",),
        class_names=class_names("DTD"),
        roots=("dtd", "dtd/dtd", "DescribableTextures"),
        split_file="split_zhou_DescribableTextures.json",
        split_counts=_sizes(2820, 1128, 1692),
        templates=("{} texture.",),
        source=f"{_OXFORD}/dtd/download/dtd-r1.0.1.tar.gz (md5 fff73e5086ae6bdbea199a49dfb8a4c1)",
        licence="research use",
        citation="Cimpoi et al., Describing Textures in the Wild, CVPR 2014",
        archives=(
            Archive(
                url=f"{_OXFORD}/dtd/download/dtd-r1.0.1.tar.gz",
                file="dtd-r1.0.1.tar.gz",
                md5="fff73e5086ae6bdbea199a49dfb8a4c1",
            ),
        ),
        by_hand=(_split_step("split_zhou_DescribableTextures.json", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x", "dtd"),),
        oddities=("CoOp's split (60/24/36 a class) is none of the ten official partitions (40/40/40)",),
    ),
)

datasets.add(
    "EuroSAT",
    CoOpSet(
        name="EuroSAT",
        summary="ten kinds of land use from a satellite, 64 × 64 px; CoOp's split, 27,000 images",
        domains=("satellite",),
        class_names=class_names("EuroSAT"),
        roots=("eurosat",),
        images="2750|EuroSAT_RGB",
        split_file="split_zhou_EuroSAT.json",
        split_counts=_sizes(13500, 5400, 8100),
        templates=("a centered satellite photo of {}.",),
        short_sides=(64,),
        source="https://huggingface.co/datasets/torchgeo/eurosat (EuroSAT.zip, md5 c8fa014336c82ac7804f0398fcb19387)",
        licence="MIT",
        citation="Helber et al., EuroSAT, JSTARS 2019",
        archives=(
            Archive(
                url=(
                    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                    "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip"
                ),
                file="EuroSAT.zip",
                md5="c8fa014336c82ac7804f0398fcb19387",
                into="eurosat",
            ),
        ),
        by_hand=(_split_step("split_zhou_EuroSAT.json", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o", "eurosat"),),
    ),
)

datasets.add(
    "UCF101",
    CoOpSet(
        name="UCF101",
        summary="101 human actions, the middle frame of each video; CoOp's split, 13,320 images",
        domains=("frame",),
        class_names=class_names("UCF101"),
        roots=("ucf101",),
        images="UCF-101-midframes",
        split_file="split_zhou_UCF101.json",
        split_counts=_sizes(7639, 1898, 3783),
        templates=("a photo of a person doing {}.",),
        source=f"{_DRIVE}10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O (UCF-101-midframes.zip, made by CoOp's authors)",
        licence="none stated; research use",
        citation="Soomro et al., UCF101, 2012",
        by_hand=(
            f"Fetch UCF-101-midframes.zip with a browser from {_DRIVE}10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O and unpack it into "
            "ucf101/",
            _split_step("split_zhou_UCF101.json", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y", "ucf101"),
        ),
    ),
)
