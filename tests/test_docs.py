"""Links in the documentation lead somewhere, and the commands in it are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bench.options import normalised, parser
from bench.sweep import _VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results" / "README.md", ROOT / "perf" / "README.md"]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links to {target}"


def commands() -> list[str]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for language, block in re.findall(r"```(\w*)\n(.*?)```", text, re.S):
            if language not in ("", "sh"):
                continue
            found += [part for line in block.splitlines() for part in line.split(" && ") if "bench.sweep" in part]
    return found


@pytest.mark.parametrize("command", commands())
def test_sweep_commands_are_understood(command: str) -> None:
    words = shlex.split(command, comments=True)
    options = parser(_VERBS).parse_args(normalised(words[words.index("bench.sweep") + 1 :]))
    assert callable(options.verb)


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 8
