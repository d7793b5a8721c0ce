"""A folder of one's own as a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.dataset import Dataset, find_dataset
from bench.errors import Conflict, DataMissing, SpecError
from bench.spec import Places

FILES = (
    "photo/guide_dog/b.jpg",
    "photo/guide_dog/a.PNG",
    "photo/Zebra/1.webp",
    "sketch/guide_dog/x.jpg",
    "sketch/Zebra/y.jpg",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "mine", FILES)


def write(root: Path, files: tuple[str, ...]) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def load(root: Path) -> Dataset:
    return find_dataset(f"folder:{root}").load(Places())


def test_domains_and_classes_are_the_folders_by_name(root: Path) -> None:
    dataset = load(root)
    assert [domain.name for domain in dataset.domains] == ["photo", "sketch"]
    assert dataset.class_names == ("Zebra", "guide dog")
    assert dataset.domains[0].files == ("photo/Zebra/1.webp", "photo/guide_dog/a.PNG", "photo/guide_dog/b.jpg")
    assert dataset.domains[0].labels.tolist() == [0, 1, 1]
    assert dataset.notes == ()


def test_name_does_not_depend_on_the_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    names = {find_dataset(f"folder:{place}").name for place in (root, f"{root}/", ".", "elsewhere/mine")}
    assert names == {"folder:mine"}


def test_place_in_places_wins_over_the_argument(root: Path) -> None:
    dataset = find_dataset("folder:mine").load(Places(folder=str(root)))
    assert dataset.domains[0].root == root


def test_class_that_a_domain_lacks_shifts_no_label_and_is_noted(root: Path) -> None:
    write(root, ("sketch/axe/z.jpg",))
    dataset = load(root)
    assert dataset.class_names == ("Zebra", "axe", "guide dog")
    assert dataset.domains[0].labels.tolist() == [0, 2, 2]
    assert dataset.notes == ("folder:mine/photo has no images of: axe",)


def test_captions_beside_are_read(root: Path) -> None:
    (root / "captions.json").write_text('{"photo/Zebra/1.webp": "a zebra"}')
    assert load(root).captions == {"photo/Zebra/1.webp": "a zebra"}


def test_hidden_folders_are_no_domains(root: Path) -> None:
    write(root, (".git/objects/a.jpg", "__MACOSX/photo/a.jpg", "photo/.ipynb_checkpoints/a.jpg"))
    assert [domain.name for domain in load(root).domains] == ["photo", "sketch"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("photo/dog/a.jpg", "photo/cat/a.jpg"), "at least two domain folders but has photo"),
        (("photo/dog/a.jpg", "sketch/dog/a.jpg"), "at least two class folders but has dog"),
        (("dog/a.jpg", "cat/a.jpg"), "at least two class folders but has none; expected root/<domain>/<class>"),
        (("photo/dog/a.jpg", "photo/cat/a.jpg", "sketch/dog/a.txt"), "sketch has no images"),
        (("photo/dog/a.jpg", "photo/cat/a.txt", "sketch/dog/a.jpg"), "class folders cat .* hold no images"),
    ],
)
def test_incomplete_folder_is_refused(files: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=message):
        load(write(tmp_path / "mine", files))


def test_classes_that_read_the_same_are_a_conflict(root: Path) -> None:
    write(root, ("photo/guide dog/a.jpg",))
    with pytest.raises(Conflict, match="guide dog, guide_dog"):
        load(root)


def test_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=f"no folder {tmp_path}/nowhere"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("argument", ["", " ", "/"])
def test_argument_without_a_name_is_refused(argument: str) -> None:
    with pytest.raises(SpecError, match="folder:PATH"):
        find_dataset(f"folder:{argument}")
