"""`python -m bench.data status` and `verify`: what they say of data that are whole, damaged, absent; manifests."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bench import manifests
from bench.data import main
from bench.dataset import find_dataset
from bench.image_folders import ImageFolders, Version
from bench.images import ImageStore
from bench.models import ImageSpec
from bench.registry import datasets
from bench.spec import Places
from tests.datasets import mini, trees
from tests.datasets.mini import FILES, Run, emptied, flipped, recoloured, text, truncated, without_its_end


@pytest.fixture
def info(monkeypatch: pytest.MonkeyPatch) -> ImageFolders:
    return mini.declare(monkeypatch)


@pytest.fixture
def data(info: ImageFolders, tmp_path: Path) -> Path:
    return mini.draw(tmp_path / "data")


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return mini.runner(tmp_path, capsys)


def test_whole_data_set_is_said_to_be_well_and_smaller_than_it_was(data: Path, run: Run) -> None:
    code, said = run("verify", "Mini")
    assert code == 0
    assert "Mini: all well" in said and "16 images, 2 domain(s), 2 classes" in said
    assert "short side of the images: 10 px" in said
    assert "smaller than the originals (short side): P 10 px, originally 20 px\n" in said
    assert "WRONG" not in said


def test_digest_is_that_of_records(data: Path, run: Run, tmp_path: Path) -> None:
    dataset = find_dataset("Mini").load(Places(data_dir=str(data)))
    store = ImageStore(dataset, ImageSpec(8, (0.5,) * 3, (0.5,) * 3), tmp_path / "other")
    assert f"data_digest {store.digest}, as in records" in run("verify", "Mini")[1]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncated, "truncated|Truncated"),
        (without_its_end, "runcated|SyntaxError|no image format|EOFError"),
        (flipped, "SyntaxError|OSError|checksum"),
        (emptied, "empty"),
        (text, "no image format"),
        (Path.unlink, "7 images"),
    ],
)
def test_damaged_file_is_found_the_first_time(
    damage: Callable[[Path], object], reason: str, data: Path, run: Run
) -> None:
    damage(data / "mini" / "Drawings" / "dog" / "2.png")
    code, said = run("verify", "Mini")
    assert code == 1 and "Mini: not all well" in said
    assert re.search(f"WRONG: .*({reason})", said)
    assert "Drawings/dog/2.png" in said or damage is Path.unlink


@pytest.mark.parametrize(
    ("damage", "what"), [(recoloured, "altered"), (Path.unlink, "missing"), (truncated, "altered")]
)
def test_file_that_was_altered_or_deleted_since_all_was_well_is_named(
    damage: Callable[[Path], object], what: str, data: Path, run: Run
) -> None:
    assert run("verify", "Mini")[0] == 0
    damage(data / "mini" / "Drawings" / "dog" / "2.png")
    for _ in range(2):  # the notes are not overwritten by what is wrong
        code, said = run("verify", "Mini")
        assert code == 1
        assert f"1 file(s) are {what}, after the notes of the last time" in said and "dog/2.png" in said
        assert "verify --accept" in said


def test_changed_file_may_be_accepted(data: Path, run: Run) -> None:
    run("verify", "Mini")
    recoloured(data / "mini" / "Photos" / "cat" / "0.png")
    assert run("verify", "Mini", "--accept")[0] == 0
    assert run("verify", "Mini")[0] == 0


def test_another_copy_is_no_alteration(data: Path, run: Run) -> None:
    run("verify", "Mini")
    for file in FILES:
        with Image.open(data / "mini" / file) as picture:
            picture.resize((20, 28)).save(data / "mini" / file)
    code, said = run("verify", "Mini")
    assert code == 0 and "altered" not in said and "smaller" not in said


def test_manifest_is_written_and_read_on_another_copy(data: Path, run: Run, tmp_path: Path) -> None:
    manifest = tmp_path / "mini.txt"
    assert run("verify", "Mini", "--write-manifest", manifest)[0] == 0
    (data / "mini" / "Photos").rename(data / "mini" / "photos")  # another spelling is no difference
    assert run("verify", "Mini", "--manifest", manifest)[0] == 0
    lines = manifest.read_text().splitlines()
    assert len(lines) == 17 and lines[1].endswith(" D/cat/0.png") and len(lines[1].split()[0]) == 64
    recoloured(data / "mini" / "photos" / "cat" / "3.png")
    (data / "mini" / "photos" / "cat" / "4.png").write_bytes((data / "mini" / "photos" / "dog" / "3.png").read_bytes())
    shutil.rmtree(tmp_path / "cache")
    code, said = run("verify", "Mini", "--manifest", manifest)
    assert code == 1
    assert f"1 file(s) are altered, after the manifest {manifest}: photos/cat/3.png" in said
    assert "not in it, after the manifest" in said and "photos/cat/4.png" in said
    assert "1 group(s) of files are the same byte for byte; 1 of them across classes or domains" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no manifest"),
        (b"one two\n", "m.txt:1 is no line of a manifest"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_manifest_that_is_none_is_refused(
    content: bytes | None, message: str, data: Path, run: Run, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "m.txt").write_bytes(content)
    code, said = run("verify", "Mini", "--manifest", tmp_path / "m.txt")
    assert code == 2 and message in said and "Traceback" not in said


def test_damaged_notes_are_as_good_as_none(data: Path, run: Run, tmp_path: Path) -> None:
    run("verify", "Mini")
    (tmp_path / "cache" / "verified" / "Mini.txt.gz").write_bytes(b"torn")
    assert run("verify", "Mini")[0] == 0
    assert manifests.read(tmp_path / "cache" / "verified" / "Mini.txt.gz").digests


def test_one_manifest_is_of_one_data_set(data: Path, run: Run, tmp_path: Path) -> None:
    code, said = run("verify", "Mini", "PACS", "--manifest", tmp_path / "m.txt")
    assert code == 2 and "one data set at a time" in said


def test_images_that_are_not_rgb_are_counted(data: Path, run: Run) -> None:
    Image.new("L", (10, 14), 7).save(data / "mini" / FILES[0])
    Image.new("P", (10, 14), 7).save(data / "mini" / FILES[1])
    Image.new("RGBA", (10, 14)).save(data / "mini" / FILES[2])
    code, said = run("verify", "Mini")
    assert code == 0 and "not RGB are converted when they are read: 1 L, 1 P, 1 RGBA" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("extra image", "Mini/P has 9 images, published 8"),
        ("absent domain", "no folder for the domain(s) Drawings"),
        ("absent class", "has no images of the class cat"),
        ("extra class", "folders that are no class and are not read: zebra"),
        ("two spellings", "could be the domain 'Photos'"),
    ],
)
def test_each_kind_of_damage_has_its_message(change: str, message: str, data: Path, run: Run) -> None:
    root = data / "mini"
    if change == "extra image":
        shutil.copy(root / FILES[0], root / "Photos" / "cat" / "9.png")
    elif change == "absent domain":
        shutil.rmtree(root / "Drawings")
    elif change == "absent class":
        shutil.rmtree(root / "Drawings" / "cat")
    elif change == "extra class":
        shutil.copytree(root / "Photos" / "cat", root / "Photos" / "zebra")
    elif change == "two spellings":
        (root / "Photos").rename(root / "photos")
        shutil.copytree(root / "photos", root / "PHOTOS")
    for verb in ("verify", "status"):
        code, said = run(verb, "Mini")
        assert message in said
        assert code == (0 if change == "extra class" else 1)


def test_status_tells_complete_incomplete_and_absent(data: Path, run: Run) -> None:
    assert run("status", "Mini")[0] == 0
    (data / "mini" / FILES[0]).unlink()
    code, said = run("status", "Mini", "PACS")
    assert code == 1
    states = {line.split()[0]: line.split()[1] for line in said.splitlines() if line.startswith(("Mini  ", "PACS  "))}
    assert states == {"Mini": "incomplete", "PACS": "absent"}
    assert "PACS is not in" in said and "Mini/P has 7 images, published 8" in said


def test_status_of_all_draws_nothing_and_exits_with_0(data: Path, run: Run, tmp_path: Path) -> None:
    code, said = run("status")
    assert code == 0
    listed = {line.split()[0] for line in said.splitlines() if line.strip()}
    assert {name for name in datasets if name not in ("csv", "folder")} <= listed
    assert not (tmp_path / "cache").exists()


def test_version_is_told_by_the_counts_and_has_its_own(data: Path, run: Run, info: ImageFolders) -> None:
    object.__setattr__(info, "versions", (Version("old", (8, 8)), Version("new", (7, 8), "the new one")))
    (data / "mini" / FILES[0]).unlink()
    code, said = run("verify", "Mini")
    assert code == 0 and "2 classes, version new, in" in said and "note: Mini: the new one" in said
    (data / "mini" / FILES[1]).unlink()
    code, said = run("verify", "Mini")
    assert code == 1 and "no known version (old: 16; new: 15)" in said


def test_cache_that_cannot_be_written_to_fails_nothing(data: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "verified").write_text("in the way")
    code, said = run("verify", "Mini")
    assert code == 0 and "no notes for the next time" in said


def test_own_data_are_verified_too(data: Path, run: Run) -> None:
    assert "folder:mini: all well" in run("verify", f"folder:{data / 'mini'}")[1]
    rows = "".join(f"mini/{file},{file.split('/')[1]},{file.split('/')[0]}\n" for file in FILES)
    (data / "own.csv").write_text("path,label,domain\n" + rows)
    code, said = run("verify", f"csv:{data / 'own.csv'}")
    assert code == 0 and "csv:own.csv: all well" in said and "16 images, 2 domain(s)" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "Minni"), "Did you mean"),
        (("verify", "folder"), "needs an argument"),
        (("show", "PACS"), "PACS is not in"),
        (("cache", "--older-than", "3"), "--older-than says what to --clear"),
    ],
)
def test_input_that_is_no_good_ends_with_2_and_one_message(
    arguments: tuple[str, ...], message: str, data: Path, run: Run
) -> None:
    code, said = run(*arguments)
    assert code == 2 and message in said and "Traceback" not in said


def test_data_directory_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "PACS", "--data-dir", "/nowhere/at/all"]) == 2
    assert "--data-dir /nowhere/at/all is no folder" in capsys.readouterr().err


def test_data_set_of_lists_without_its_list_is_incomplete_and_says_the_step(data: Path, run: Run) -> None:
    root = trees.coop(data, "DTD")
    (root / "split_zhou_DescribableTextures.json").unlink()
    code, said = run("status", "DTD")
    assert code == 1 and re.search("^DTD +incomplete", said, re.M)
    assert "lacks split_zhou_DescribableTextures.json" in said and "Fetch split_zhou_DescribableTextures.json" in said


def test_shipped_manifest_names_what_differs(
    data: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "known.txt.gz"
    run("verify", "Mini", "--write-manifest", known)
    shipped = manifests.Manifest("small copy", {key: each[:8] for key, each in manifests.read(known).digests.items()})
    monkeypatch.setattr(manifests, "shipped", lambda name: shipped if name == "Mini" else None)
    assert "16 files have the bytes of the copy 'small copy'" in run("verify", "Mini")[1]
    shutil.rmtree(tmp_path / "cache")
    recoloured(data / "mini" / FILES[5])
    (data / "mini" / FILES[9]).unlink()
    code, said = run("verify", "Mini")
    assert code == 1 and f"altered, after CLIPBed's list of the copy 'small copy': {FILES[5]}" in said
    assert "1 file(s) are missing" in said and "Drawings/cat/1.png" in said
    for file in FILES:
        if file != FILES[9]:
            Image.new("RGB", (9, 9), (FILES.index(file), 0, 0)).save(data / "mini" / file)
    code, said = run("verify", "Mini")
    assert code == 1 and "after CLIPBed's list of names: Drawings/cat/1.png" in said and "altered" not in said
    assert "the bytes are those of another copy" in said


@pytest.mark.slow
@pytest.mark.realdata
def test_real_pacs_and_office31_are_well_and_smaller_than_the_originals(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "PACS", "Office31", "--data-dir", str(shared_data), "--cache", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "PACS: all well" in said and "Office31: all well" in said
    assert said.count("the images are smaller than the originals") == 2
    assert "49 group(s) of files are the same byte for byte\n" in said


@pytest.mark.realdata
def test_deleted_and_altered_files_of_real_office31_are_named(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(shared_data / "Office31", tmp_path / "Office31", copy_function=shutil.copyfile)
    altered = tmp_path / "Office31/dslr/images/mug/frame_0003.jpg"
    altered.chmod(0o644)
    recoloured(altered)
    (tmp_path / "Office31/webcam/images/pen/frame_0001.jpg").unlink()
    assert main(["verify", "Office31", "--data-dir", str(tmp_path), "--cache", str(tmp_path / "cache")]) == 1
    said = capsys.readouterr().out
    assert "dslr/images/mug/frame_0003.jpg" in said and "webcam/images/pen/frame_0001.jpg" in said
    assert "Office31/W has 794 images, published 795" in said
