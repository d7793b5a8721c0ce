"""The LaTeX output set by a real pdflatex, inside a minimal article with booktabs alone and by itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.result_folders import collect, write_run

pytestmark = pytest.mark.slow
PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"
NAMES = [
    r"\input{/etc/passwd}",
    "50% of $x_1^2$ & #more ~ {}",
    "<script>alert(1)</script>",
    "\x1b[2J",
    "龍 é ß α ± ‡ ő ﬁ “q” --",
    "[odd]",
    r"\end{tabular}\\ & \hline",
    "''`\"|",
]
ARTICLES = {
    "alone": "%s",
    "OT1": "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n%s\\end{document}\n",
    "T1": "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage[utf8]{inputenc}\n\\usepackage{booktabs}\n"
    "\\begin{document}\n%s\\end{document}\n",
}


@pytest.fixture(scope="module")
def pdflatex() -> str:
    """Path of pdflatex; the test is skipped where it or booktabs is absent."""
    found = shutil.which("pdflatex")
    if found is None:
        pytest.skip("there is no pdflatex on this machine")
    if not subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).stdout:
        pytest.skip("pdflatex is here, but not booktabs (Debian: texlive-latex-recommended)")
    return found


def compiled(pdflatex: str, source: str, folder: Path) -> tuple[str, Path]:
    """Set a document, twice for longtables; give the log and the PDF."""
    folder.mkdir(exist_ok=True)
    (folder / "t.tex").write_text(source, encoding="utf-8")
    command = [pdflatex, "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "t.tex"]
    for _ in range(2):
        run = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = run.stdout.decode("latin-1")
    assert run.returncode == 0, log[-3000:]
    return log, folder / "t.pdf"


def overfull(log: str) -> float:
    """Give the largest overfull box in points; 0 where there is none."""
    return max((float(each) for each in re.findall(r"Overfull \\hbox \(([0-9.]+)pt too wide", log)), default=0.0)


def words_of(pdf: Path) -> str:
    if shutil.which("pdftotext") is None:
        pytest.skip("there is no pdftotext on this machine (Debian: poppler-utils)")
    return subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("article", ARTICLES)
@pytest.mark.parametrize("name", ["pacs_tiny", "open_classes_icons", "universal_office31"])
def test_published_tables_are_set_without_overfull_lines(
    name: str, article: str, pdflatex: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--effects", "--plan=1", "--posthoc") if article == "T1" else ()
    log, pdf = compiled(pdflatex, ARTICLES[article] % collect(capsys, PUBLISHED / name, *options), tmp_path / article)
    assert overfull(log) < 1
    assert "Missing character" not in log
    assert "ZeroShot" in words_of(pdf)


@pytest.mark.parametrize("article", ["OT1", "T1"])
def test_hostile_names_are_set_as_words(
    article: str, pdflatex: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, name in enumerate(NAMES):
        for domain in range(4):
            write_run(tmp_path, name, domain, sweep=str(place), domains=NAMES[:4], notes=NAMES, dataset=NAMES[1])
    _, pdf = compiled(pdflatex, ARTICLES[article] % collect(capsys, tmp_path), tmp_path / "tex")
    words = words_of(pdf)
    assert "input{/etc/passwd}" in words and "root:" not in words
    assert "<script>" in words.replace("¡", "<").replace("¿", ">")


def test_many_rows_are_a_longtable_and_many_columns_are_set_in_parts(
    pdflatex: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domains = [f"domain{i}" for i in range(24)]
    for place in range(45):
        for domain in range(24):
            write_run(tmp_path, f"Method {place}", domain, domains=domains)
    text = collect(capsys, tmp_path)
    assert "\\usepackage{longtable}" in text.splitlines()[0]
    log, pdf = compiled(pdflatex, text, tmp_path / "tex")
    assert overfull(log) < 1
    words = words_of(pdf)
    assert all(name in words for name in (*domains, "Method 44"))
    few = collect(capsys, tmp_path, "--algorithms", "Method 0", "Method 1", "Method 2")
    assert "longtable" not in few
    log, pdf = compiled(pdflatex, ARTICLES["OT1"] % few, tmp_path / "few")
    assert overfull(log) < 1
    assert all(name in words_of(pdf) for name in domains)
