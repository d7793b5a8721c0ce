"""Data of one's own by a table: `csv:FILE`, and Hugging Face's image folders by `folder:PATH`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.dataset import Dataset, find_dataset
from bench.errors import BenchError, Conflict, DataMissing, SpecError
from bench.plan import plan
from bench.spec import Places
from bench.sweepfile import Sweep
from tests.datasets import trees

ROWS = [
    {"path": "b/2.jpg", "label": "guide_dog", "domain": "night", "caption": "a dog"},
    {"path": "a/1.jpg", "label": "guide_dog", "domain": "day", "caption": ""},
    {"path": "a/0.jpg", "label": "Zebra", "domain": "day", "caption": "a horse in pyjamas"},
    {"path": "b/3.jpg", "label": "Zebra", "domain": "night", "caption": ""},
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    trees.put(tmp_path, (row["path"] for row in ROWS))
    return tmp_path


def load(table: Path) -> Dataset:
    return find_dataset(f"csv:{table}").load(Places())


def test_table_gives_sorted_classes_and_domains_and_keeps_its_order(images: Path) -> None:
    dataset = load(trees.table(images / "photos.csv", ROWS))
    assert dataset.name == "csv:photos.csv"
    assert dataset.class_names == ("Zebra", "guide dog")
    assert [domain.name for domain in dataset.domains] == ["day", "night"]
    assert dataset.domains[0].files == ("a/1.jpg", "a/0.jpg") and dataset.domains[0].labels.tolist() == [1, 0]
    assert dataset.captions == {"b/2.jpg": "a dog", "a/0.jpg": "a horse in pyjamas"}
    assert dataset.splits == {}


def test_other_formats_and_column_names_say_the_same(images: Path) -> None:
    wanted = load(trees.table(images / "photos.csv", ROWS))
    renamed = [
        {"File_Name": row["path"], "class": row["label"], "DOMAIN": row["domain"], "text": row["caption"]}
        for row in ROWS
    ]
    (images / "photos.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in renamed))
    tabs = "\ufeff" + "\n".join("\t".join(row) for row in [list(renamed[0]), *(list(row.values()) for row in renamed)])
    (images / "photos.tsv").write_text(tabs, encoding="utf-8")
    for name in ("photos.jsonl", "photos.tsv"):
        other = load(images / name)
        assert other.digest == wanted.digest and other.captions == wanted.captions


def test_splits_and_absolute_paths(images: Path) -> None:
    rows = [
        {**row, "path": str(images / row["path"]), "split": s}
        for row, s in zip(ROWS, ("train", "validation", "train", "test"))
    ]
    dataset = load(trees.table(images / "photos.csv", rows))
    assert {split: [each.tolist() for each in found] for split, found in dataset.splits.items()} == {
        "test": [[], [1]],
        "train": [[1], [0]],
        "val": [[0], []],
    }
    assert dataset.domains[0].files == ("a/1.jpg", "a/0.jpg")


def test_table_without_domains_is_one_domain(images: Path) -> None:
    dataset = load(trees.table(images / "t.csv", [{"path": row["path"], "label": row["label"]} for row in ROWS]))
    assert [domain.name for domain in dataset.domains] == ["all"] and len(dataset.domains[0].files) == 4


def broken(change: str) -> list[dict[str, str]]:
    rows = [dict(row) for row in ROWS]
    if change == "twice":
        rows.append(rows[0])
    elif change == "same name":
        rows[0]["label"], rows[1]["label"] = "guide dog", "guide_dog"
    elif change == "no label":
        rows[1]["label"] = " "
    elif change == "no path":
        rows[2]["path"] = ""
    elif change == "some domains":
        rows[1]["domain"] = ""
    elif change == "one class":
        rows = rows[:2]
    elif change == "absent":
        rows[3]["path"] = "b/none.jpg"
    elif change == "outside":
        rows[0]["path"] = "../b/2.jpg"
    elif change == "column":
        rows = [{"path": row["path"], "domain": row["domain"]} for row in rows]
    return rows


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("twice", Conflict, r"b/2\.jpg \(t\.csv:2 and t\.csv:6\)"),
        ("same name", Conflict, "guide dog, guide_dog .* same name in a prompt"),
        ("no label", SpecError, r"t\.csv:3 has no label"),
        ("no path", SpecError, r"t\.csv:4 has no path"),
        ("some domains", SpecError, r"rows without a domain: t\.csv:3"),
        ("one class", SpecError, "at least two classes but has guide dog"),
        ("absent", DataMissing, r"1 of the 2 images .*b/none\.jpg"),
        ("outside", SpecError, r"t\.csv:2: the image \.\./b/2\.jpg is not below"),
        ("column", SpecError, "has no column label or class; it has: path, domain"),
    ],
)
def test_damage_is_named_with_its_line(change: str, error: type[BenchError], message: str, images: Path) -> None:
    table = trees.table(images / "t.csv", broken(change))
    with pytest.raises(error, match=message):
        load(table)


def test_file_that_is_no_table_is_refused(images: Path) -> None:
    with pytest.raises(SpecError, match=r"csv:photos\.xlsx names no table"):
        find_dataset("csv:photos.xlsx")
    with pytest.raises(DataMissing, match="there is no table"):
        load(images / "none.csv")
    (images / "t.csv").write_text("path,label\n")
    with pytest.raises(DataMissing, match="has no rows"):
        load(images / "t.csv")
    (images / "t.csv").write_bytes(b"path,label\n\xff\xfe,dog\n")
    with pytest.raises(SpecError, match="not UTF-8"):
        load(images / "t.csv")
    (images / "t.jsonl").write_text('{"path": "a"\n')
    with pytest.raises(SpecError, match=r"t\.jsonl:1 is not valid JSON"):
        load(images / "t.jsonl")
    (images / "t.jsonl").write_text('["a"]\n')
    with pytest.raises(SpecError, match="no JSON object"):
        load(images / "t.jsonl")


def test_plan_finds_the_table_and_names_it_without_its_place(images: Path) -> None:
    rows = [{**row, "path": f"{i}/{row['path']}"} for i in range(10) for row in ROWS]
    trees.put(images, (row["path"] for row in rows))
    table = trees.table(images / "photos.csv", rows)
    sweep = Sweep(algorithms=("ZeroShot",), datasets=(f"csv:{table}",))
    planned = plan([sweep], Places())
    assert {trial.spec.dataset for trial in planned} == {"csv:photos.csv"}
    assert {trial.places.folder for trial in planned} == {str(table)}
    assert find_dataset("csv:photos.csv").load(planned[0].places).class_names == ("Zebra", "guide dog")


def hugging_face(root: Path, *, labels: bool, suffix: str = ".csv") -> None:
    for split, n in (("train", 3), ("validation", 1)):
        rows = []
        for name in ("cat", "dog"):
            trees.put(root / split / name, (f"{i}.png" for i in range(n)))
            rows += [{"file_name": f"{name}/{i}.png", "text": f"{name} {i}", "domain": "ab"[i % 2]} for i in range(n)]
        if labels:
            rows = [{**row, "label": row["file_name"][:3].upper()} for row in rows]
        if suffix == ".csv":
            trees.table(root / split / "metadata.csv", rows)
        else:
            (root / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("labels", [True, False])
def test_hugging_faces_image_folder_is_read_by_its_metadata(labels: bool, suffix: str, tmp_path: Path) -> None:
    root = tmp_path / "pets"
    hugging_face(root, labels=labels, suffix=suffix)
    dataset = find_dataset(f"folder:{root}").load(Places())
    assert dataset.name == "folder:pets"
    assert dataset.class_names == (("CAT", "DOG") if labels else ("cat", "dog"))
    assert [domain.name for domain in dataset.domains] == ["a", "b"]
    assert dataset.captions["validation/dog/0.png"] == "dog 0"
    assert {split: sum(map(len, found)) for split, found in dataset.splits.items()} == {"train": 6, "val": 2}


def test_metadata_beside_the_images_needs_no_split(tmp_path: Path) -> None:
    trees.put(tmp_path / "pets", ("cat/0.png", "dog/0.png"))
    trees.table(tmp_path / "pets" / "metadata.csv", [{"file_name": "cat/0.png"}, {"file_name": "dog/0.png"}])
    dataset = find_dataset(f"folder:{tmp_path / 'pets'}").load(Places())
    assert dataset.class_names == ("cat", "dog") and dataset.splits == {}
