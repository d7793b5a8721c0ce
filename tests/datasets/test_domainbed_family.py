"""The image-folder data sets of DomainBed: order, spellings, versions, duplicates, messages."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from bench.dataset import Dataset, find_dataset
from bench.errors import Conflict, DataMissing
from bench.image_folders import ImageFolders, Version
from bench.registry import datasets
from bench.spec import Places

FAMILY = {
    "PACS": ("PACS", ["art_painting", "cartoon", "photo", "sketch"]),
    "VLCS": ("VLCS", ["Caltech101", "LabelMe", "SUN09", "VOC2007"]),
    "OfficeHome": ("office_home", ["Art", "Clipart", "Product", "Real World"]),
    "TerraIncognita": ("terra_incognita", ["location_100", "location_38", "location_43", "location_46"]),
    "DomainNet": ("domain_net", ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"]),
    "SVIRO": ("sviro", ["aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe"]),
}

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Give a function that writes a data set of one empty image a class, or of names as given, and gives its root."""

    def write(
        name: str, root: str | None = None, renamed: dict[str, str] | None = None, files: tuple[str, ...] = ("a.jpg",)
    ) -> Path:
        place = tmp_path / (root or FAMILY[name][0])
        for domain in FAMILY[name][1]:
            for each in datasets[name].class_folders:
                folder = place / (renamed or {}).get(domain, domain) / each
                folder.mkdir(parents=True)
                for file in files:
                    (folder / file).touch()
        return place

    return write


def load(name: str, tmp_path: Path) -> Dataset:
    return find_dataset(name).load(Places(data_dir=str(tmp_path)))


@pytest.mark.parametrize("name", FAMILY)
def test_domains_have_domainbeds_order(name: str, make: Make, tmp_path: Path) -> None:
    make(name)
    dataset = load(name, tmp_path)
    assert [domain.folder for domain in dataset.domains] == FAMILY[name][1] == sorted(FAMILY[name][1])
    assert tuple(domain.name for domain in dataset.domains) == find_dataset(name).domains


def test_short_names_are_domainbeds_environments() -> None:
    names = {name: "/".join(find_dataset(name).domains) for name in FAMILY}
    assert names == {
        "PACS": "A/C/P/S",
        "VLCS": "C/L/S/V",
        "OfficeHome": "A/C/P/R",
        "TerraIncognita": "L100/L38/L43/L46",
        "DomainNet": "clip/info/paint/quick/real/sketch",
        "SVIRO": "aclass/escape/hilux/i3/lexus/tesla/tiguan/tucson/x5/zoe",
    }


@pytest.mark.parametrize("name", FAMILY)
def test_classes_are_in_the_byte_order_of_image_folder(name: str) -> None:
    folders = datasets[name].class_folders
    assert list(folders) == sorted(folders)


def test_class_lists_have_the_published_lengths_and_traps() -> None:
    office, net = datasets["OfficeHome"].class_folders, datasets["DomainNet"].class_folders
    assert (len(office), len(net)) == (65, 345)
    assert office.index("TV") == office.index("Table") - 1 == 58
    assert net[:3] == ("The_Eiffel_Tower", "The_Great_Wall_of_China", "The_Mona_Lisa")
    assert net.index("cell_phone") < net.index("cello") and net.index("t-shirt") < net.index("table")


@pytest.mark.parametrize("name", FAMILY)
def test_counts_add_up_to_the_published_total(name: str) -> None:
    totals = {
        "PACS": 9991,
        "VLCS": 10729,
        "OfficeHome": 15588,
        "TerraIncognita": 24788,
        "DomainNet": 586575,
        "SVIRO": 0,
    }
    assert sum(find_dataset(name).counts) == totals[name]


def test_versions_add_up_to_the_published_totals() -> None:
    assert [sum(version.counts) for version in datasets["TerraIncognita"].versions] == [24788, 24330]
    assert [sum(version.counts) for version in datasets["DomainNet"].versions] == [586575, 586575 + 9431]


@pytest.mark.parametrize("spelling", ["Real World", "Real_World", "RealWorld", "real_world"])
def test_all_spellings_of_real_world_are_one_domain(spelling: str, make: Make, tmp_path: Path) -> None:
    make("OfficeHome", renamed={"Real World": spelling})
    domain = load("OfficeHome", tmp_path).domains[3]
    assert domain.folder == spelling
    assert domain.files[0] == f"{spelling}/Alarm_Clock/a.jpg"


def test_digest_does_not_depend_on_the_spelling(make: Make, tmp_path: Path) -> None:
    shutil.move(make("OfficeHome"), tmp_path / "first" / "office_home")
    shutil.move(
        make("OfficeHome", renamed={"Real World": "real_world", "Art": "art"}), tmp_path / "second" / "OfficeHome"
    )
    first, second = (load("OfficeHome", tmp_path / place) for place in ("first", "second"))
    assert first.digest == second.digest


def test_two_spellings_at_once_are_a_conflict(make: Make, tmp_path: Path) -> None:
    root = make("OfficeHome", renamed={"Real World": "Real_World"})
    shutil.copytree(root / "Real_World", root / "RealWorld")
    with pytest.raises(Conflict, match="RealWorld, Real_World"):
        load("OfficeHome", tmp_path)
    shutil.copytree(root / "Real_World", root / "Real World")  # DomainBed's own spelling decides
    assert load("OfficeHome", tmp_path).domains[3].folder == "Real World"


@pytest.mark.parametrize(
    ("name", "root"),
    [
        *(("PACS", root) for root in ("PACS", "pacs", "kfold", "pacs/images")),
        *(("OfficeHome", root) for root in ("office_home", "OfficeHome", "OfficeHomeDataset_10072016")),
        *(("TerraIncognita", root) for root in ("terra_incognita", "TerraIncognita")),
        *(("SVIRO", root) for root in ("sviro", "SVIRO", "SVIRO_DOMAINBED")),
    ],
)
def test_usual_names_of_the_root_are_accepted(name: str, root: str, make: Make, tmp_path: Path) -> None:
    place = make(name, root=root)
    assert load(name, tmp_path).domains[0].root == place


@pytest.mark.parametrize("root", ["domain_net", "DomainNet", "domainnet"])
def test_usual_names_of_domain_nets_root_are_accepted(root: str, make: Make, tmp_path: Path) -> None:
    assert len(load("DomainNet", make("DomainNet", root=root).parent).domains) == 6


def test_the_data_sets_own_folder_is_accepted_as_data_dir(make: Make, tmp_path: Path) -> None:
    assert load("PACS", make("PACS", root="somewhere/of/mine")).domains[2].folder == "photo"


def test_stray_folders_shift_nothing(make: Make, tmp_path: Path) -> None:
    root = make("PACS")
    before = load("PACS", tmp_path)
    for stray in ("AAA/dog", "captions", "cartoon2/dog", "photo/aardvark", "photo/.ipynb_checkpoints"):
        (root / stray).mkdir(parents=True)
        (root / stray / "a.jpg").touch()
    after = load("PACS", tmp_path)
    assert after.digest == before.digest
    assert [domain.folder for domain in after.domains] == FAMILY["PACS"][1]


def test_absent_class_is_named(make: Make, tmp_path: Path) -> None:
    root = make("PACS")
    shutil.rmtree(root / "photo" / "giraffe")
    with pytest.raises(DataMissing, match=r"photo has no images of the class giraffe .*drive\.google"):
        load("PACS", tmp_path)
    (root / "photo" / "giraffe").mkdir()  # an empty folder is as bad
    (root / "photo" / "giraffe" / "notes.txt").touch()
    with pytest.raises(DataMissing, match="giraffe"):
        load("PACS", tmp_path)


def test_only_paintings_may_lack_t_shirts_and_no_label_shifts(make: Make, tmp_path: Path) -> None:
    root = make("DomainNet")
    shutil.rmtree(root / "painting" / "t-shirt")
    dataset = load("DomainNet", tmp_path)
    t_shirt = dataset.class_names.index("t-shirt")
    assert sorted(set(range(345)) - set(dataset.domains[2].labels.tolist())) == [t_shirt]
    assert dataset.domains[2].labels[-1] == 344
    shutil.rmtree(root / "sketch" / "t-shirt")
    with pytest.raises(DataMissing, match=r"sketch has no images of the class t-shirt"):
        load("DomainNet", tmp_path)


def test_missing_domain_is_named(make: Make, tmp_path: Path) -> None:
    shutil.rmtree(make("PACS") / "sketch")
    with pytest.raises(DataMissing, match=r"the domain\(s\) sketch in .*needed: art_painting, cartoon, photo, sketch"):
        load("PACS", tmp_path)


def test_missing_data_say_what_was_looked_for_and_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataMissing) as caught:
        load("PACS", tmp_path)
    for part in (f"{tmp_path}/PACS", f"{tmp_path}/kfold", "--data-dir", "https://drive.google.com"):
        assert part in str(caught.value)
    with pytest.raises(DataMissing, match=r"give the folder that holds PACS/ with --data-dir"):
        find_dataset("PACS").load(Places())


def test_vlcs_accepts_other_names_of_domains_but_not_another_layout(make: Make, tmp_path: Path) -> None:
    names = {"Caltech101": "CALTECH", "LabelMe": "LABELME", "SUN09": "SUN", "VOC2007": "PASCAL"}
    root = make("VLCS", renamed=names)
    assert [domain.folder for domain in load("VLCS", tmp_path).domains] == list(names.values())
    shutil.rmtree(root)
    for name in names.values():
        (root / name / "full" / "0").mkdir(parents=True)
    with pytest.raises(
        DataMissing, match=r"CALTECH holds none of the class folders bird, .* but full: .*another layout"
    ):
        load("VLCS", tmp_path)


def test_sviro_has_words_for_its_numbered_folders(make: Make, tmp_path: Path) -> None:
    make("SVIRO")
    dataset = load("SVIRO", tmp_path)
    assert len(set(dataset.class_names)) == 7
    assert not any(any(letter.isdigit() for letter in name) for name in dataset.class_names)
    assert dataset.domains[0].files[3].startswith("aclass/3/")


def small(**changes: object) -> ImageFolders:
    """Declare a data set of two domains and two classes, with the given versions."""
    return ImageFolders(
        name="Small", summary="s", source="there", licence="l", citation="c", roots=("small",), domains=("X", "Y"),
        folders=("ex", "why"), class_folders=("cat", "dog"), **changes,
    )  # fmt: skip


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    for domain, n in (("ex", 2), ("why", 3)):
        for each in ("cat", "dog"):
            (tmp_path / "small" / domain / each).mkdir(parents=True)
            for i in range(n):
                (tmp_path / "small" / domain / each / f"{i}.png").touch()
    return tmp_path / "small"


def test_published_counts_give_no_note(small_root: Path) -> None:
    assert small(counts=(4, 6)).load(Places(data_dir=str(small_root.parent))).notes == ()


def test_other_counts_give_a_note(small_root: Path) -> None:
    notes = small(counts=(4, 2048)).load(Places(data_dir=str(small_root.parent))).notes
    assert notes == ("Small/why has 6 images, published 2,048",)
    assert small(total=11).load(Places(data_dir=str(small_root.parent))).notes == ("Small has 10 images, published 11",)


def test_versions_are_told_apart_by_counts(small_root: Path) -> None:
    places = Places(data_dir=str(small_root.parent))
    info = small(versions=(Version("old", (5, 7), "the old one"), Version("new", (4, 6), "the new one")))
    assert (info.counts, info.load(places).version, info.load(places).notes) == ((5, 7), "new", ("Small: the new one",))
    (small_root / "ex" / "cat" / "more.png").touch()
    (small_root / "why" / "cat" / "more.png").touch()
    assert info.load(places).version == "old"
    (small_root / "ex" / "cat" / "evenmore.png").touch()
    unknown = info.load(places)
    assert unknown.version == ""
    assert unknown.notes == (
        "Small has 13 images, which is no known version (old: 12; new: 10)",
        "Small/ex has 6 images, published 5",
    )


@pytest.mark.parametrize("beside", ["", ".."], ids=["beside the domains", "beside the root"])
@pytest.mark.parametrize("prefix", ["", "small/", "./"])
def test_listed_duplicates_are_left_out_and_counted(prefix: str, beside: str, small_root: Path) -> None:
    lines = [f"{prefix}ex/cat/1.png", f"{prefix}why/dog/0.png", f"{prefix}why/dog/gone.png", ""]
    (small_root / beside / "twice.txt").write_text("\n".join(lines))
    dataset = small(duplicates="twice.txt", counts=(3, 5)).load(Places(data_dir=str(small_root.parent)))
    assert [len(domain.files) for domain in dataset.domains] == [3, 5]
    assert "ex/cat/1.png" not in dataset.domains[0].files and "why/dog/0.png" not in dataset.domains[1].files
    assert dataset.notes == ("Small: 2 duplicates listed in twice.txt were left out",)


def test_a_list_of_files_that_are_gone_says_nothing(small_root: Path) -> None:
    (small_root / "twice.txt").write_text("ex/cat/gone.png\n")
    assert small(duplicates="twice.txt").load(Places(data_dir=str(small_root.parent))).notes == ()


def test_captions_beside_are_read(small_root: Path) -> None:
    (small_root / "captions.tsv").write_text("ex/cat/0.png\ta cat on a mat\n")
    dataset = small().load(Places(data_dir=str(small_root.parent)))
    assert dataset.captions[dataset.domains[0].files[0]] == "a cat on a mat"


def test_a_declaration_that_does_not_fit_itself_is_refused() -> None:
    with pytest.raises(TypeError, match="one a domain"):
        small(counts=(1, 2, 3))
    with pytest.raises(TypeError, match="one folder a domain"):
        dataclasses.replace(small(), folders=("ex",))


@pytest.mark.realdata
def test_pacs_has_the_published_counts(shared_data: Path) -> None:
    dataset = load("PACS", shared_data)
    assert [len(domain.files) for domain in dataset.domains] == [2048, 2344, 1670, 3929]
    assert np.bincount(dataset.domains[0].labels).tolist() == [379, 255, 285, 184, 201, 295, 449]
    assert np.bincount(dataset.domains[3].labels).tolist() == [772, 740, 753, 608, 816, 80, 160]
    assert dataset.notes == ()
    assert len({domain.digest for domain in dataset.domains}) == 4


@pytest.mark.realdata
def test_pacs_is_in_the_order_of_torchvision(shared_data: Path) -> None:
    for domain in load("PACS", shared_data).domains:
        theirs = ImageFolder(str(domain.root / domain.folder)).samples
        assert [(str(domain.root / file), label) for file, label in zip(domain.files, domain.labels.tolist())] == theirs
