"""The HTML page without a browser: what it holds, that it is sound and closed to the network, and the same each time."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench.collect import main
from bench.html_details import script_json
from bench.html_figures import MISSING, Figures
from bench.html_report import page_command
from tests.pages import ATTACK, HOSTILE, PLAIN, make_page, write_hostile, write_results

VOID = {"meta", "input", "img", "br", "link", "hr"}
SVG = {"path", "use", "circle", "g", "image", "rect"}
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None


class Page(HTMLParser):
    """Elements, their attributes and texts; refuses tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[int, str] = {}
        self._open: list[tuple[str, int]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self._open.append((tag, len(self.elements) - 1))
            self.texts[len(self.elements) - 1] = ""

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in VOID | SVG, tag
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1][0] == tag, (tag, self._open[-3:])
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for _, place in self._open:
            self.texts[place] += data

    def all(self, tag: str, **wished: str) -> list[tuple[dict[str, str], str]]:
        """Attributes and whole text of all elements with a tag and attributes."""
        return [
            (attributes, self.texts.get(place, ""))
            for place, (name, attributes) in enumerate(self.elements)
            if name == tag and all(attributes.get(key.rstrip("_")) == value for key, value in wished.items())
        ]


def download(page: Page, kind: str) -> str:
    """What the page's button would save."""
    ((_, packed),) = page.all("script", id=f"file-{kind}")
    return zlib.decompress(base64.b64decode(packed)).decode()


def details(page: Page) -> dict[str, Any]:
    ((_, text),) = page.all("script", id="details")
    value: dict[str, Any] = json.loads(text)
    return value


@pytest.fixture(autouse=True)
def _without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a page's time; tests of figures ask for them."""
    if "with_figures" not in request.fixturenames:
        monkeypatch.setattr("bench.html_figures.Figures.of", lambda *_: ([], []))


@pytest.fixture
def with_figures() -> None:
    """Ask for figures."""
    if not HAS_MATPLOTLIB:
        pytest.skip("figures need matplotlib")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_results(tmp_path / "results")
    return write_results(tmp_path / "results", PLAIN[:3], dataset="PACS", domains=("A", "C"))


def test_the_page_runs_nothing_but_its_own_script_and_asks_no_network(results: Path, tmp_path: Path) -> None:
    text = make_page(results, tmp_path / "report.html")
    page = Page(text)
    policy = page.elements[3][1]
    assert policy["http-equiv"] == "Content-Security-Policy"  # before anything that could run
    rules = dict(rule.strip().split(" ", 1) for rule in policy["content"].split(";"))
    assert rules["default-src"] == "'none'"
    runs = [content for attributes, content in page.all("script") if "type" not in attributes]
    for content, allowed in ((runs, rules["script-src"]), ([t for _, t in page.all("style")], rules["style-src"])):
        (only,) = content
        digest = base64.b64encode(hashlib.sha256(only.encode()).digest()).decode()
        assert allowed == f"'sha256-{digest}'"
    data_blocks = {attributes["type"] for attributes, _ in page.all("script") if "type" in attributes}
    assert data_blocks == {"application/json", "application/zlib"}
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("href", "src"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert "innerHTML" not in runs[0] and "eval(" not in runs[0]


def test_tables_have_captions_scopes_and_the_numbers_of_other_formats(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = make_page(results, tmp_path / "report.html")
    page = Page(text)
    n_tables = len(page.all("table"))
    assert n_tables == len(page.all("caption")) > 4
    assert all(attributes.get("scope") in ("row", "col") for attributes, _ in page.all("th"))
    assert {attributes.get("aria-sort", "none") for attributes, _ in page.all("th", scope="col")} == {"none"}
    for tag, wished in (("html", {"lang": "en"}), ("main", {"id": "main"}), ("nav", {}), ("header", {}), ("h1", {})):
        assert len(page.all(tag, **wished)) == 1
    assert page.all("title")[0][1] == "Results on PACS and Icons"
    assert page.all("a", class_="skip")[0][0]["href"] == "#main"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        assert set(attributes.get("aria-labelledby", "").split()) <= set(ids)
    assert {attributes["href"][1:] for attributes, _ in page.all("a")} <= set(ids)
    main([str(results), "--format", "json", "--selection", "training-domain"])
    tables = json.loads(capsys.readouterr().out)["tables"]
    cells = [text for _, text in page.all("td")]
    for table in tables:
        for row in table["rows"]:
            for cell in row["cells"]:
                hole = {"not run": "–", "incomplete": "X"}.get(cell["state"])
                shown = hole or f"{cell['mean']:.1f}±{cell['stderr']:.1f}"
                assert any(words.startswith(shown) for words in cells)


def test_each_cell_has_the_trials_that_explain_lists(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = details(Page(make_page(results, tmp_path / "report.html")))
    capsys.readouterr()
    place, table = next((n, each) for n, each in enumerate(found["tables"]) if each["dataset"] == "Icons")
    assert table["domains"] == ["ink", "chalk", "woodcut"] and table["parts"] == []
    assert main([str(results), "--explain", "Icons", "CLIPood", "chalk"]) == 0
    told = capsys.readouterr().out
    values = table["cells"][PLAIN.index("CLIPood")][1]
    choices, hundredths = values[::2], values[1::2]
    assert len(choices) == 3
    for choice, value in zip(choices, hundredths, strict=True):
        run = f"{found['folders'][found['folder'][choice]]}/{found['run'][choice]}"
        line = next(line for line in told.splitlines() if run in line).split()
        shown = [found["seeds"][choice], value / 100, found["steps"][choice], found["validation"][choice] / 100]
        assert [float(word) for word in line[1:5]] == shown
        assert [int(word) for word in line[5:7]] == [found["searched"][choice], found["candidates"][choice]]
    average = next(each for each in found["tables"] if each["dataset"] == "Averages")
    pacs = next(n for n, each in enumerate(found["tables"]) if each["dataset"] == "PACS")
    assert average["parts"] == [[pacs], [place], [pacs, place]]


def test_details_tell_hparams_that_are_not_the_methods_defaults(tmp_path: Path) -> None:
    write_results(tmp_path / "results", ("ERM", "Theirs"), n_trials=1, hparams={"lr": 0.25, "batch_size": 3})
    spec = next((tmp_path / "results").rglob("spec.json"))
    from bench.registry import algorithms

    default = algorithms["ERM"].hparams["batch_size"].default_for("Icons", "tiny")
    spec.write_text(json.dumps({**json.loads(spec.read_text()), "hparams": {"lr": 0.25, "batch_size": default}}))
    sets = details(Page(make_page(tmp_path / "results", tmp_path / "report.html")))["sets"]
    assert {"changed": {"lr": "0.25"}, "defaults": {"batch_size": str(default)}} in sets
    assert {"all": {"batch_size": "3", "lr": "0.25"}} in sets  # of a method that is not known here


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    write_hostile(tmp_path / "results")
    text = make_page(tmp_path / "results", tmp_path / "report.html", "--effects", "--posthoc", "--selection", "last")
    page = Page(text)
    assert {tag for tag, _ in page.elements if tag.startswith(("img", "svg"))} <= {"svg"}
    assert len([1 for attributes, _ in page.all("script") if "type" not in attributes]) == 1
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
    labels = [words for _, words in page.all("bdi")]
    for name in HOSTILE:
        seen = name.replace("\x1b", "\\x1b").replace("\x07", "\\x07").replace("\u202e", "\\u202e")
        assert seen in labels, name
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u2066]", text)
    blocks = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert all(ATTACK not in block or "\\u003c" in block for block in blocks)


@pytest.mark.parametrize("kind", ["csv", "json", "latex"])
def test_downloads_are_the_other_formats(tmp_path: Path, kind: str) -> None:
    write_hostile(tmp_path / "results")
    page = Page(make_page(tmp_path / "results", tmp_path / "report.html", "--selection", "last"))
    output = tmp_path / "other"
    wished = ["--format", kind, "--selection", "last", "--output", str(output)]
    assert main([str(tmp_path / "results"), *wished]) == 0
    assert download(page, kind) == output.read_bytes().decode()


def test_csv_is_left_out_where_the_format_is_refused(results: Path, tmp_path: Path) -> None:
    page = Page(make_page(results, tmp_path / "report.html", "--errorbars", "t95"))
    assert [attributes["data-download"] for attributes, _ in page.all("button") if "data-download" in attributes] == [
        "json",
        "latex",
    ]


def test_the_same_records_give_the_same_bytes(results: Path, tmp_path: Path, with_figures: None) -> None:
    pages = []
    for seed, name in (("0", "a.html"), ("1", "b.html")):
        command = [sys.executable, "-m", "bench.collect", str(results), "--html", str(tmp_path / name)]
        run = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=False)
        assert run.returncode == 0, run.stderr
        pages.append((tmp_path / name).read_bytes())
    # Somebody may edit the code between the two runs; its version is the one thing that may differ.
    versions = [re.search(rb'content="CLIPBed ([^"]*)"', page) for page in pages]
    assert all(versions)
    first, second = (page.replace(match[1], b"V") for page, match in zip(pages, versions, strict=True) if match)
    assert first == second


def test_every_rule_has_a_section(results: Path, tmp_path: Path) -> None:
    rules = ("--selection", "training-domain", "--selection", "oracle")
    page = Page(make_page(results, tmp_path / "report.html", *rules))
    assert [attributes["data-name"] for attributes, _ in page.all("section", class_="rule")] == [
        "training-domain",
        "oracle",
    ]


def test_warnings_notes_and_provenance_are_on_the_page(results: Path, tmp_path: Path) -> None:
    write_results(results, PLAIN[:2], dataset="Other", code="0.2.0", n_trials=2)
    page = Page(make_page(results, tmp_path / "report.html"))
    assert "These tables mix code versions: 0.1.0, 0.2.0." in page.all("section", class_="warnings")[0][1]
    ((_, facts),) = page.all("section", id="provenance")
    for part in ("tiny (embedded)", "0123456789ab", f"python -m bench.collect {results} --html report.html"):
        assert part in facts
    notes = page.all("section", class_="notes")[0][1]
    assert "Comparison: " in notes and "standard error over trials" in notes
    assert "Boxed: best of its column" in page.all("p", class_="legend")[0][1]


def test_the_command_does_not_depend_on_where_the_page_goes() -> None:
    for given in (["--html", "/home/me/x.html"], ["--output", "y.html", "--format", "html"], ["--html=z"]):
        told = page_command(["results/a b", *given])
        assert "report.html" in told and "'results/a b'" in told
        assert not re.search(r"x\.html|y\.html|=z", told)


def test_format_html_is_the_same_page(results: Path, tmp_path: Path) -> None:
    first = make_page(results, tmp_path / "a.html")
    assert main([str(results), "--format", "html", "--output", str(tmp_path / "b.html")]) == 0
    second = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert re.sub("<pre>.*?</pre>", "", first) == re.sub("<pre>.*?</pre>", "", second)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--format", "csv"], "leave out --format"),
        (["--output", "x"], "leave out --format and --output"),
        (["--explain", "Icons", "ERM", "Avg"], "leave out --explain"),
        (["--plots", "folder"], "leave out --explain, --by-image and --plots"),
        (["--reference"], "--reference has no place"),
    ],
)
def test_what_does_not_go_with_a_page_is_refused(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert main([str(results), "--html", str(tmp_path / "page.html"), *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_figures_are_svg_that_a_strict_page_takes(results: Path, tmp_path: Path, with_figures: None) -> None:
    page = Page(make_page(results, tmp_path / "report.html"))
    figures = page.all("svg", role="img")
    assert len(figures) > 3
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes, text in figures:
        assert attributes["aria-labelledby"] in ids
        assert "Icons" in text or "PACS" in text
    used = {value[1:] for tag, attributes in page.elements if tag == "use" for value in [attributes["href"]]}
    used |= set(re.findall(r"url\(#([^)]*)\)", " ".join(v for _, a in page.elements for v in a.values())))
    assert used and used <= set(ids)
    assert (
        not [tag for tag, attributes in page.elements if tag == "style" and attributes] and len(page.all("style")) == 1
    )


def test_figures_of_hostile_names_are_drawn(tmp_path: Path, with_figures: None) -> None:
    write_hostile(tmp_path / "results")
    page = Page(
        make_page(
            tmp_path / "results", tmp_path / "report.html", "--algorithms", *HOSTILE[:5], *HOSTILE[6:9], HOSTILE[11]
        )
    )
    assert any(HOSTILE[1] in text for _, text in page.all("svg", role="img"))


def test_without_matplotlib_the_page_says_how_to_get_figures(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(self: Figures, *_: object) -> None:
        self.is_possible = False

    monkeypatch.setattr(Figures, "__init__", init)
    page = Page(make_page(results, tmp_path / "report.html"))
    assert MISSING in page.all("section", class_="notes")[0][1]


def test_tables_too_large_to_draw_are_left_out_of_the_figures(tmp_path: Path, with_figures: None) -> None:
    names = [f"M{place}" for place in range(41)]
    write_results(tmp_path / "results", names, domains=("a", "b"), n_trials=1)
    page = Page(make_page(tmp_path / "results", tmp_path / "report.html"))
    assert page.all("svg", role="img") == []
    assert any("No figures of more than 40 rows or columns" in words for _, words in page.all("li"))


def test_json_in_a_script_cannot_end_it() -> None:
    value = {"</script>": ["<!--", "&amp;", "\u2028", "\ud800", "]]>"]}
    text = script_json(value)
    assert text.isascii() and not set(text) & set("<>&")
    assert json.loads(text) == value


def test_a_page_needs_neither_torch_nor_pandas(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from bench.collect import main; assert main(sys.argv[1:]) == 0; "
        "assert not {'torch', 'pandas'} & set(sys.modules)"
    )
    arguments = [str(results), "--html", str(tmp_path / "page.html"), "--algorithms", "ERM", "--datasets", "PACS"]
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
