"""What stands in results/published is what the README shows, and is named by what it holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.collect import main
from bench.runs import find_runs

ROOT = Path(__file__).resolve().parents[1]
PACS = ROOT / "results" / "published" / "pacs_tiny"


PUBLISHED = {"pacs_tiny": 56, "universal_office31": 108, "open_classes_icons": 90}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_trials_are_whole_and_named_by_their_specs(name: str) -> None:
    runs = find_runs(PACS.with_name(name))
    assert len(runs) == PUBLISHED[name]
    for run in runs:
        records, skipped = run.records()
        assert run.is_done and not skipped
        assert run.spec.trial_id == run.trial_id == records[0]["trial"]
        assert records[-1]["step"] == run.spec.steps


def test_the_readme_shows_what_collect_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(PACS), "--format", "text"]) == 0
    assert capsys.readouterr().out.rstrip() in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("page", "n_tables"), [("README.md", 2), ("docs/results.md", 6)])
@pytest.mark.parametrize(
    ("name", "dataset", "options"),
    [("universal_office31", "Office31", ()), ("open_classes_icons", "Icons", ("--selection", "last"))],
)
def test_pages_show_what_collect_prints(
    name: str, dataset: str, options: tuple[str, ...], page: str, n_tables: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(PACS.with_name(name)), "--format", "text", *options]) == 0
    printed = capsys.readouterr().out
    blocks = re.findall(r"```text\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    shown = [table.rstrip() for block in blocks for table in re.split(r"\n\n(?=\S)", block)]
    ours = [table for table in shown if table.startswith(f"{dataset}, ")]
    assert len(ours) == n_tables and all(table in printed for table in ours)


def test_pictures_of_the_pages_are_there_and_small() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "statistics.md"):
        found = re.findall(r"[(\"\s]((?:docs/)?images/[\w.]+png)", page.read_text(encoding="utf-8"))
        assert found and all((page.parent / name).stat().st_size <= 200_000 for name in found)


def test_reference_numbers_all_name_their_source() -> None:
    import csv

    for path in (ROOT / "results" / "reference").glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert rows and all(row["source"] and 0 < float(row["mean"]) < 100 for row in rows)
