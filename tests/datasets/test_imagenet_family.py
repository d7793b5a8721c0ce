"""ImageNet and its variants read from miniature copies, in the layouts of CoOp, WiSE-FT and FLYP; joins by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm

from bench.class_lists import class_folders, raw_lists
from bench.dataset import Dataset, find_dataset, join_classes
from bench.errors import DataMissing
from bench.spec import Places
from tests.datasets import trees

WNIDS = class_folders("ImageNet wnids")
NAMES = find_dataset("ImageNet").class_names


def load(name: str, data: Path) -> Dataset:
    return find_dataset(name).load(Places(data_dir=str(data)))


def timms(name: str) -> list[str]:
    """Another project's list of WordNet ids."""
    return (Path(timm.__file__).parent / "data" / "_info" / name).read_text().split()


def test_lists_agree_with_other_projects() -> None:
    assert list(WNIDS) == timms("imagenet_synsets.txt") == sorted(WNIDS)
    assert list(NAMES) == list(open_clip.IMAGENET_CLASSNAMES)
    for name, file in (("ImageNet-A", "imagenet_a_synsets.txt"), ("ImageNet-R", "imagenet_r_synsets.txt")):
        assert list(find_dataset(name).class_folders) == timms(file)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ("imagenet/images/train", "imagenet/images/val"),
        ("imagenet/train", "imagenet/val_in_folder"),
        ("ILSVRC2012/train", "ILSVRC2012/val_dirs"),
    ],
)
def test_imagenet_is_read_in_three_layouts(train: str, validation: str, tmp_path: Path) -> None:
    trees.imagenet(tmp_path, train, validation)
    dataset = load("ImageNet", tmp_path)
    (domain,), (trained,), (test,) = dataset.domains, dataset.splits["train"], dataset.splits["test"]
    assert (len(trained), len(test)) == (2000, 1000)
    assert domain.labels[test].tolist() == list(range(1000))
    assert all(WNIDS[domain.labels[i]] in domain.files[i] for i in (*trained[::97], *test[::97]))
    assert dataset.splits["val"][0].tolist() == test.tolist()
    assert not set(trained.tolist()) & set(test.tolist())
    assert all((domain.root / domain.files[i]).is_file() for i in (trained[0], test[-1]))


def test_imagenet_without_training_images_has_no_split_of_them(tmp_path: Path) -> None:
    trees.imagenet(tmp_path, "elsewhere/train", "imagenet/images/val")
    dataset = load("ImageNet", tmp_path)
    assert set(dataset.splits) == {"val", "test"}
    assert any("no folder train" in note for note in dataset.notes)


def test_flat_folder_of_validation_images_is_refused(tmp_path: Path) -> None:
    trees.put(tmp_path / "imagenet/images/val", ["ILSVRC2012_val_00000001.JPEG"])
    with pytest.raises(DataMissing, match="in a folder a class"):
        load("ImageNet", tmp_path)


def test_labels_of_v2_are_the_folders_numbers(tmp_path: Path) -> None:
    trees.folders(tmp_path, "imagenetv2/imagenetv2-matched-frequency-format-val", map(str, range(1000)), ".jpeg")
    (domain,) = load("ImageNetV2", tmp_path).domains
    assert [domain.files[i].split("/")[1] for i in (0, 1, 2, 10)] == ["0", "1", "2", "10"]
    assert domain.labels.tolist() == list(range(1000))


def test_v2_is_found_under_its_other_name(tmp_path: Path) -> None:
    trees.folders(tmp_path, "ImageNetV2-matched-frequency", map(str, range(1000)), ".jpeg")
    assert len(load("ImageNetV2", tmp_path).domains[0].files) == 1000


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("ImageNet-Sketch", "imagenet-sketch/images"),
        ("ImageNet-Sketch", "sketch"),
        ("ImageNet-A", "imagenet-adversarial/imagenet-a"),
        ("ImageNet-A", "imagenet-a"),
        ("ImageNet-R", "imagenet-rendition/imagenet-r"),
        ("ImageNet-R", "imagenet-r"),
    ],
)
def test_variant_is_read_in_the_layouts_of_coop_and_wise_ft(name: str, place: str, tmp_path: Path) -> None:
    info = find_dataset(name)
    trees.folders(tmp_path, place, info.class_folders, ".JPEG", n=2)  # type: ignore[attr-defined]
    (tmp_path / place / "README.txt").touch()
    dataset = load(name, tmp_path)
    (domain,) = dataset.domains
    assert len(domain.files) == 2 * len(dataset.class_names)
    of_name = join_classes(NAMES, dataset.class_names)
    for position in (0, 77, len(domain.files) - 1):
        wnid = domain.files[position].split("/")[-2]
        original = WNIDS.index(wnid)
        assert NAMES[of_name[domain.labels[position]]] == NAMES[original]


def test_domains_are_called_by_words_not_by_folders(tmp_path: Path) -> None:
    trees.folders(tmp_path, "imagenet-r", find_dataset("ImageNet-R").class_folders)  # type: ignore[attr-defined]
    assert load("ImageNet-R", tmp_path).domains[0].words == "rendition"
    trees.objectnet(tmp_path)
    assert load("ObjectNet", tmp_path).domains[0].words == "photo"


def test_absent_class_of_a_variant_is_named(tmp_path: Path) -> None:
    folder = trees.folders(tmp_path, "imagenet-r", find_dataset("ImageNet-R").class_folders[:-1])  # type: ignore[attr-defined]
    with pytest.raises(DataMissing, match=f"{folder} has no images of the class n12267677"):
        load("ImageNet-R", tmp_path)


def test_extra_class_folder_is_noted_and_shifts_no_label(tmp_path: Path) -> None:
    trees.folders(tmp_path, "imagenet-r", [*find_dataset("ImageNet-R").class_folders, "n00000001"])  # type: ignore[attr-defined]
    dataset = load("ImageNet-R", tmp_path)
    assert any("n00000001" in note for note in dataset.notes)
    assert dataset.domains[0].labels.tolist() == list(range(200))


def test_objectnet_reads_113_classes_and_knows_imagenets_names_of_them(tmp_path: Path) -> None:
    trees.objectnet(tmp_path)
    dataset = load("ObjectNet", tmp_path)
    (domain,) = dataset.domains
    assert len(dataset.class_names) == len(domain.files) == 113
    assert [file.split("/")[1] for file in domain.files] == sorted(raw_lists()["ObjectNet"])
    assert sum(map(len, dataset.aliases.values())) == 125
    chair = dataset.class_names.index("chair")
    assert dataset.aliases["chair"] == ("barber chair", "folding chair", "rocking chair")
    joined = join_classes(NAMES, dataset.class_names, dataset.aliases)
    assert NAMES[joined[chair]] == "barber chair"
    assert not dataset.notes or all("no class" not in note for note in dataset.notes)


def test_a_and_r_join_imagenet_by_name_and_give_the_published_indices() -> None:
    for name in ("ImageNet-A", "ImageNet-R"):
        indices = join_classes(NAMES, find_dataset(name).class_names)
        assert indices.dtype == np.int64
        assert indices.tolist() == raw_lists()[name]
