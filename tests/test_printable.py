"""Hostile names: what reaches a terminal, a spreadsheet, LaTeX, JSON."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.latex_text import escape
from bench.printable import json_safe, printable, printable_lines, spreadsheet
from tests.result_folders import collect, refused, write_run

HOSTILE = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "<script>alert(1)</script>",
    r"\input{/etc/passwd}",
    "50% of $x_1^2$ & #more ~ {}",
    "two\nlines",
    "\u202egnp.exe",
    "龍 é ß α ±",
    "a|b*c`d_",
]


def test_escapes_are_seen_and_plain_words_stay() -> None:
    assert printable("CLIPood é 龍 ±") == "CLIPood é 龍 ±"
    assert printable("\x1b[2J\x9b\u202e\ud800") == r"\x1b[2J\x9b\u202e\ud800"
    assert printable("a\tb\u00a0c\nd\re") == r"a b c d\re"
    assert printable_lines("a\x1b\nb") == "a\\x1b\nb"


@given(st.text(st.characters()))
def test_nothing_printed_can_act_and_nothing_is_lost_twice(words: str) -> None:
    shown = printable(words)
    assert shown.isprintable()
    assert printable(shown) == shown


@given(st.text(st.characters()))
def test_cells_of_spreadsheets_are_no_formulas(words: str) -> None:
    assert not spreadsheet(words).startswith(tuple("=+-@\t\r\n"))


@given(st.recursive(st.text(st.characters()), lambda inner: st.lists(inner, max_size=3)))
def test_json_reads_back_as_the_same_value_without_raw_controls(value: object) -> None:
    text = json_safe(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert not [each for each in text if unicodedata.category(each) == "Cc" or each in "\u202e\u2028\u2066"]


@given(st.text(st.characters(), max_size=20))
def test_latex_text_is_ascii_balanced_and_without_commands_of_the_name(words: str) -> None:
    made = escape(words)
    assert made.isascii() and made.isprintable()
    bare = re.sub(r"\\[{}]", "", made)
    assert bare.count("{") == bare.count("}") and bare.count("$") == 2 * len(
        re.findall(r"\$[^$]+\$", bare.replace(r"\$", ""))
    ) + bare.count(r"\$")
    assert not re.search(r"(?<!\\)[%#&_~^]|\\input", re.sub(r"\\[~^]\{", "{", made))


def test_latex_text_of_words_that_papers_use() -> None:
    assert escape("α = 0.5, naïve Gödel--Łoś, 5 ± 1 – “x” → ‡") == (
        r"$\alpha$ = 0.5, na\"{\i}ve G\"{o}del-{}-\L{}o\'{s}, 5 $\pm$ 1 -- ``x'' $\rightarrow$ $\ddagger$"
    )


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A results folder in which every name is hostile."""
    for place, name in enumerate(HOSTILE):
        for domain in range(4):
            write_run(tmp_path, name, domain, sweep=f"{place}", domains=HOSTILE[:4], notes=HOSTILE, code=HOSTILE[6])
    return tmp_path


def test_no_format_lets_a_name_reach_the_terminal_raw(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("text", "markdown", "json", "latex", "csv", "domainbed"):
        out = collect(capsys, hostile, "--format", form)
        bad = [each for each in out if each != "\n" and not each.isprintable()]
        assert not bad, (form, bad)
    for name in HOSTILE:
        shown = collect(capsys, hostile, "--explain", "Icons", name, "Avg")
        assert all(each.isprintable() for each in shown.replace("\n", ""))
    assert all(each.isprintable() for each in refused(capsys, hostile, "--against", "\x1b[2J").rstrip("\n"))


def test_text_keeps_one_line_a_row(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = collect(capsys, hostile, "--format", "text").split("\n\n")[1].splitlines()
    assert len(lines) == 2 + len(HOSTILE)
    assert any(line.startswith("two lines ") for line in lines)


def test_csv_names_are_guarded_and_numbers_stay_numbers(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.reader(io.StringIO(collect(capsys, hostile, "--format", "csv"))))
    assert len({len(row) for row in rows}) == 1
    for row in rows[1:]:
        assert not any(each.startswith(("=", "+", "-", "@", "\t", "\r")) for each in row[:6])
        assert not row[6] or float(row[6]) > 0
    assert "'=1+1" in {row[3] for row in rows}


def test_markdown_has_no_tags(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = collect(capsys, hostile, "--format", "markdown")
    assert not re.search(r"(?<!\\)<(?!/?u>)", out)
