"""The embedded data set `Icons` and the anchor pool: their content, and that rendering is repeatable and atomic."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bench
from bench import icon_fonts, icon_names, icon_render
from bench.errors import Conflict, DataMissing
from bench.icon_styles import SIDE, STYLES, draw
from bench.registry import datasets
from bench.seeds import stream
from bench.spec import Places

CHECKOUT = Path(bench.__file__).parent.parent
ABSENT = {("gradient", name) for name in ("cat", "dog", "fish", "horse", "tree", "guitar")} | {("woodcut", "guitar")}


def few_classes() -> tuple[icon_names.IconClass, ...]:
    return tuple(each for each in icon_names.read_classes() if each.name in ("bell", "light bulb", "dog"))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "icons"
    icon_render.render_icons(folder, few_classes(), per_cell=5)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_icons_has_enough_of_everything_when_declared():
    info = datasets["Icons"]
    assert len(info.domains) >= 4
    assert len(info.class_names) >= 30
    assert sum(info.counts) >= 2000
    assert {"dog", "car", "bell", "guitar"} <= set(info.class_names)


def test_every_class_is_drawn_in_every_domain_but_the_documented_absent_ones():
    table = icon_names.read_classes()
    absent = {
        (domain, each.name)
        for each in table
        for domain, family in icon_names.DOMAINS.items()
        if not each.drawings(family)
    }
    assert absent == ABSENT


def test_every_icon_of_the_class_table_exists_in_its_font():
    for each in icon_names.read_classes():
        for family, icons in each.icons.items():
            missing = [base for base in icons if not icon_fonts.cuts(family, base)]
            assert not missing, f"{each.name} in {family}"


def test_no_icon_belongs_to_two_classes():
    drawn = [
        (icon.font, icon.code)
        for each in icon_names.read_classes()
        for family in each.icons
        for icon in each.drawings(family)
    ]
    assert len(drawn) == len(set(drawn))


def test_rendering_twice_gives_the_same_bytes(rendered: Path, tmp_path: Path):
    icon_render.render_icons(tmp_path / "again", few_classes(), per_cell=5)
    assert contents(tmp_path / "again") == contents(rendered)


def test_a_picture_does_not_depend_on_what_is_rendered_beside_it(rendered: Path, tmp_path: Path):
    icon_render.render_icons(tmp_path / "dog", [each for each in few_classes() if each.name == "dog"], per_cell=5)
    alone, together = contents(tmp_path / "dog"), contents(rendered)
    pictures = [name for name in alone if name.endswith(".png")]
    assert pictures
    assert all(alone[name] == together[name] for name in pictures)


def test_pictures_are_rgb_of_the_stated_size_and_all_different(rendered: Path):
    seen = set()
    for path in rendered.rglob("*.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (SIDE, SIDE))
            seen.add(image.tobytes())
    assert len(seen) == 5 * (3 + 3 + 3 + 2)


@pytest.mark.parametrize("style", sorted(STYLES))
def test_a_style_shows_the_icon_whatever_the_draw(style: str):
    icon = icon_fonts.cuts("phosphor", "bell")[0]
    shape = icon_fonts.glyph(icon.font, icon.code)
    blank = Image.new("L", shape.size)
    for k in range(8):
        with_icon, without = (draw(style, each, stream("test", k)).astype(float) for each in (shape, blank))
        changed = np.abs(with_icon - without).max(axis=2) > 30
        assert 0.02 < changed.mean() < 0.6


def test_every_file_has_a_caption_made_from_its_icon(rendered: Path):
    lines = (rendered / "captions.tsv").read_text().splitlines()
    captions = dict(line.split("\t") for line in lines)
    assert set(captions) == {path.relative_to(rendered).as_posix() for path in rendered.rglob("*.png")}
    assert "ringing bell" in captions["chalk/bell/bell-ring_0.png"]
    assert "outlined" in captions["ink/bell/bell-regular_0.png"]
    assert len({text for file, text in captions.items() if "/bell/" in file}) > 8


def test_load_gives_labels_by_name_where_a_class_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(icon_render, "draw", lambda *_: np.zeros((4, 4, 3), np.uint8))
    info = datasets["Icons"]
    found = info.load(Places(cache=str(tmp_path)))
    assert tuple(len(domain.files) for domain in found.domains) == info.counts
    for domain in found.domains:
        folders = [info.class_names[label].replace(" ", "_") for label in domain.labels]
        assert [file.split("/")[:2] for file in domain.files] == [[domain.name, folder] for folder in folders]
        assert all(file in found.captions for file in domain.files)


def test_pool_holds_no_icon_of_a_class_and_enough_of_others():
    table = icon_names.read_classes()
    drawn = {(icon.font, icon.name) for each in table for family in each.icons for icon in each.drawings(family)}
    pool = icon_names.pool_icons()
    assert 1500 <= len(pool) <= 3000
    assert len({(icon.font, icon.name) for icon in pool}) == len(pool)
    assert not drawn & {(icon.font, icon.name) for icon in pool}
    same_shape = {(icon.font, icon.code) for icon in pool} & {
        (icon.font, icon.code) for each in table for family in each.icons for icon in each.drawings(family)
    }
    assert not same_shape


def test_no_name_or_caption_of_the_pool_has_a_word_of_a_class():
    words = {word for each in icon_names.read_classes() for word in (each.name, *each.words)}
    for icon in icon_names.pool_icons():
        tokens = set(icon.base.split("-")) | set(icon_names.phrase_of(icon.base).split())
        assert not tokens & words, icon.name


def test_pool_renders_a_file_and_a_caption_for_each_icon(tmp_path: Path):
    icons = icon_names.pool_icons()[::60]
    marker = icon_render.render_pool(tmp_path / "pool", icons)
    rows = [line.split("\t") for line in (tmp_path / "pool" / "pool.tsv").read_text().splitlines()]
    assert marker["images"] == len(rows) == len(icons)
    assert {file for file, _ in rows} == {path.name for path in (tmp_path / "pool").glob("*.png")}
    assert all(text for _, text in rows)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("dog", "a flat icon of a dog"),
        ("umbrella", "a flat icon of an umbrella"),
        ("hourglass", "a flat icon of an hourglass"),
        ("headphones", "a flat icon of headphones"),
        ("bus", "a flat icon of a bus"),
        ("cake with candles", "a flat icon of a cake with candles"),
        ("USB stick", "a flat icon of a USB stick"),
    ],
)
def test_caption_has_the_right_article(phrase: str, expected: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(icon_names._CAPTIONS, "ink", ("a flat icon of {}",))
    assert icon_names.caption("ink", "", phrase, stream("test")) == expected


def test_phrase_has_adjectives_first_and_no_numbers_or_fillers():
    assert icon_names.phrase_of("door-open") == "open door"
    assert icon_names.phrase_of("compass-3") == "compass"
    assert icon_names.phrase_of("paper-roll-variant") == "paper roll"


def test_rendering_imports_neither_qt_nor_torch(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from bench import icon_render, icon_names\n"
        "icon_render.render_icons(Path(sys.argv[1]) / 'icons', icon_names.read_classes()[:1], per_cell=1)\n"
        "heavy = {'qtawesome', 'qtpy', 'PyQt5', 'PyQt6', 'PySide6', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=CHECKOUT)


def test_listing_icons_imports_no_pillow():
    code = (
        "import sys; from bench.registry import datasets; assert datasets['Icons'].counts\n"
        "assert not {'PIL', 'qtawesome', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)


def test_a_kill_half_way_leaves_no_folder_and_the_next_run_completes(tmp_path: Path):
    code = "import sys, pathlib; from bench import icon_render; icon_render.render_icons(pathlib.Path(sys.argv[1]))"
    folder = tmp_path / "icons"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=CHECKOUT)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".icons.*.tmp/*/*/*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".icons.")

    os.utime(leftover, (0, 0))  # as old as a leftover is when somebody comes back
    icon_render.render_icons(folder, few_classes(), per_cell=1)
    assert [path.name for path in tmp_path.iterdir()] == ["icons"]


def test_an_error_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = iter(range(3))

    def failing(*_: object) -> np.ndarray:
        if next(calls) == 2:
            raise OSError("no space left on device")
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(icon_render, "draw", failing)
    with pytest.raises(OSError, match="no space"):
        icon_render.render_icons(tmp_path / "icons", few_classes(), per_cell=2)
    assert list(tmp_path.iterdir()) == []


def test_two_renderers_at_once_agree(tmp_path: Path):
    markers: list[object] = []
    both = [
        threading.Thread(target=lambda: markers.append(icon_render.render_icons(tmp_path / "icons", few_classes(), 2)))
        for _ in range(2)
    ]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert len(markers) == 2
    assert markers[0] == markers[1]
    assert [path.name for path in tmp_path.iterdir()] == ["icons"]


def test_a_finished_folder_is_not_rendered_again(rendered: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(icon_render, "draw", None)
    assert icon_render.render_icons(rendered, few_classes(), per_cell=5)["images"] == 55


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(Conflict, match="holds no icons"):
        icon_render.render_icons(tmp_path, few_classes(), per_cell=1)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_missing_fonts_are_told_with_the_command_to_install_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataMissing, match="pip install qtawesome"):
        icon_fonts.font_folder()


def test_contact_sheet_has_a_row_for_each_class(rendered: Path, tmp_path: Path):
    icon_render.contact_sheet(rendered, tmp_path / "sheet.png", per_cell=1)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.height == 3 * SIDE
