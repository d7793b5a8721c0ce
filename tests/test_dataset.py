"""Looking data sets up, reading domains and captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from bench.dataset import (
    IMAGE_SUFFIXES,
    Dataset,
    Domain,
    captions_beside,
    clean_class_name,
    find_dataset,
    list_images,
    read_captions,
    read_domain,
    some_of,
)
from bench.errors import DataMissing, SpecError, UnknownName

AWKWARD = (
    "b.jpg", "B.jpg", "a b.jpg", "a-b.jpg", "a_b.JPG", "10.png", "9.png", "z.txt", ".hidden.png", "é.jpeg", "c.tiff",
    "sub/a.jpg", "sub/sub/a.jpg", "sub-2/a.webp", "Sub/a.ppm", "sub.jpg/inside.bmp", "sub/Z.pgm", "noext", "x.gif",
)  # fmt: skip


def write(root: Path, files: tuple[str, ...]) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for each in ("dog", "Zebra", "a_cat"):
        write(tmp_path / "domain" / each, AWKWARD)
    return tmp_path


def test_suffixes_are_torchvisions() -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert set(IMAGE_SUFFIXES) == set(IMG_EXTENSIONS)


def test_files_are_in_the_order_of_image_folder(tree: Path) -> None:
    domain = read_domain("D", tree, "domain", ("Zebra", "a_cat", "dog"))
    theirs = ImageFolder(str(tree / "domain")).samples
    assert [(str(tree / file), label) for file, label in zip(domain.files, domain.labels.tolist())] == theirs


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", ("a.jpg", "b.jpg"))
    (tmp_path / "domain").mkdir()
    (tmp_path / "domain" / "dog").symlink_to(tmp_path / "elsewhere")
    assert list_images(tmp_path / "domain" / "dog") == ["a.jpg", "b.jpg"]


def test_absent_class_keeps_the_labels_of_the_others(tree: Path) -> None:
    classes = ("Zebra", "aardvark", "a_cat", "dog")
    domain = read_domain("D", tree, "domain", classes, may_lack=("aardvark",))
    assert sorted(set(domain.labels.tolist())) == [0, 2, 3]
    assert domain.labels.dtype == np.int64
    with pytest.raises(DataMissing, match="no images of the class aardvark"):
        read_domain("D", tree, "domain", classes, may_lack=("dog",))


def test_files_to_leave_out_are_left_out(tree: Path) -> None:
    domain = read_domain("D", tree, "domain", ("dog",), leave_out={"dog/b.jpg", "dog/sub/a.jpg"})
    whole = read_domain("D", tree, "domain", ("dog",))
    assert [file for file in whole.files if file not in domain.files] == ["domain/dog/b.jpg", "domain/dog/sub/a.jpg"]
    assert domain.digest != whole.digest


def test_domain_without_any_image_is_an_error_even_if_it_may_lack_all(tree: Path) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(DataMissing, match="the classes dog, cat"):
        read_domain("E", tree, "empty", ("dog", "cat"), may_lack=True)
    with pytest.raises(DataMissing, match="nowhere is missing"):
        read_domain("N", tree, "nowhere", ("dog",))


def test_digest_tells_names_and_labels_but_not_the_place(tree: Path) -> None:
    classes = ("Zebra", "a_cat", "dog")
    domain = read_domain("D", tree, "domain", classes)
    (tree / "domain").rename(tree / "renamed")
    assert read_domain("E", tree, "renamed", classes).digest == domain.digest
    assert read_domain("E", tree, "renamed", classes[::-1]).digest != domain.digest
    write(tree, ("renamed/dog/one_more.jpg",))
    assert read_domain("E", tree, "renamed", classes).digest != domain.digest


def test_digest_takes_names_that_are_not_utf8(tmp_path: Path) -> None:
    domain = Domain("D", tmp_path, ("dog/\udce9.jpg",), np.zeros(1, np.int64))
    assert len(domain.digest) == 16


def test_data_sets_digest_depends_on_class_names(tree: Path) -> None:
    domain = read_domain("D", tree, "domain", ("Zebra", "a_cat", "dog"))
    digests = {Dataset("X", names, (domain,)).digest for names in (("a", "b", "c"), ("a", "b", "d"))}
    assert len(digests) == 2


def test_words_of_a_domain_come_from_its_folder(tree: Path) -> None:
    (tree / "domain").rename(tree / "art_painting")
    assert read_domain("A", tree, "art_painting", ("dog",)).words == "art painting"
    assert Domain("sketch", tree, (), np.zeros(0, np.int64)).words == "sketch"


def test_family_needs_an_argument_and_others_take_none() -> None:
    with pytest.raises(UnknownName, match="write folder:PATH"):
        find_dataset("folder")
    with pytest.raises(SpecError, match=r"takes no argument; write 'PACS' instead of 'PACS:x'"):
        find_dataset("PACS:x")


@pytest.mark.parametrize(("wrong", "right"), [("pacs", "PACS"), ("Office-Home", "OfficeHome"), ("floder:x", "folder")])
def test_unknown_name_is_met_with_a_suggestion(wrong: str, right: str) -> None:
    with pytest.raises(UnknownName, match=f"Did you mean .*{right}"):
        find_dataset(wrong)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("Alarm_Clock", "Alarm Clock"),
        ("t-shirt", "t-shirt"),
        ("TV", "TV"),
        ("__a__b ", "a b"),
        ("The_Mona_Lisa", "The Mona Lisa"),
    ],
)
def test_clean_class_name(folder: str, words: str) -> None:
    assert clean_class_name(folder) == words


@given(st.text())
def test_clean_class_name_twice_is_once(name: str) -> None:
    assert clean_class_name(clean_class_name(name)) == clean_class_name(name)


def test_captions_are_read_from_tsv_and_json(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text('{"a/b.jpg": "a dog", "c.jpg": "été"}', encoding="utf-8")
    assert captions_beside(tmp_path) == {"a/b.jpg": "a dog", "c.jpg": "été"}
    text = "\ufeffa/b.jpg\ta dog\r\n\r\nc d.jpg\t two\u2028lines \n"
    (tmp_path / "captions.tsv").write_bytes(text.encode())
    assert captions_beside(tmp_path) == {"a/b.jpg": "a dog", "c d.jpg": "two\u2028lines"}
    assert captions_beside(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.tsv", b"a.jpg\tfine\nb.jpg none", r"c\.tsv:2 is no caption"),
        ("c.tsv", b"\xff\xfe\x00", "not UTF-8"),
        ("c.json", b'{"a": "b"', "not valid JSON"),
        ("c.json", b'["a"]', "one JSON object"),
        ("c.json", b'{"a": 1}', "one JSON object"),
    ],
)
def test_captions_file_that_is_none_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=message):
        read_captions(tmp_path / name)


def test_absent_captions_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"nowhere\.tsv"):
        read_captions(tmp_path / "nowhere.tsv")


def test_long_lists_are_cut_short() -> None:
    assert some_of(["a", "b"]) == "a, b"
    assert some_of(list("abcde"), 3) == "a, b, c, … (5 in all)"
