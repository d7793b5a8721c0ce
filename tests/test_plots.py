"""Figures: which are made of what, the numbers beside them, and names that would break a file or a label."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from bench.collect import main
from bench.figures import heading, plain

N_TRIALS = 3
METHODS = {"ZeroShot": 0.0, "ERM": 2.0, "=UEO $x_1$": 4.0, "WiSE-FT[alpha=0.3]": 5.0, "WiSE-FT[alpha=0.6]": 6.0}


def write_records(root: Path, n_domains: int, dataset: str = "PACS", protocol: str = "leave_one_domain_out") -> Path:
    """One run a method, with two evaluations of each trial but ZeroShot's; the second is better."""
    generator = np.random.default_rng(0)
    for place, (name, shift) in enumerate(METHODS.items()):
        folder = root / f"{re.sub(r'[^A-Za-z]', '_', dataset)}{place}"
        folder.mkdir(parents=True)
        lines = []
        for domain in range(n_domains):
            for trial in range(N_TRIALS):
                for step in (0,) if name == "ZeroShot" else (0, 10):
                    value = 0.5 + (shift + domain + step + generator.normal(0, 0.5)) / 100
                    lines.append(record(name, dataset, protocol, domain, trial, step, value, n_domains))
        (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "spec.json").write_text("{}")
        (folder / "status.json").write_text('{"state": "done"}')
    return root


def record(
    name: str, dataset: str, protocol: str, domain: int, trial: int, step: int, value: float, n_domains: int
) -> dict[str, Any]:
    """One evaluation."""
    numbers: dict[str, float] = {f"env{i}_out_acc": value for i in range(n_domains)} | {f"env{domain}_in_acc": value}
    if protocol == "base_to_new":
        numbers = {f"env{domain}_base_acc": value, f"env{domain}_new_acc": 1 - value, f"env{domain}_val_acc": value}
    return {
        "protocol": protocol,
        "dataset": dataset,
        "algorithm": name.partition("[")[0],
        "predictor": name,
        "test_domains": [domain] if protocol == "leave_one_domain_out" else [],
        "trial_seed": trial,
        "hparams_seed": 0,
        "backbone": "tiny",
        "pretrained": "embedded",
        "step": step,
        "trial": f"{dataset}-{name}-{domain}-{trial}",
        "domains": [f"d{i}" for i in range(n_domains)],
        "split_digest": trial,
        **numbers,
    }


def plotted(folder: Path, results: Path, *arguments: str) -> dict[str, list[dict[str, str]]]:
    """Run the command; give the rows of each CSV by the kind of its plot."""
    assert main([str(results), "--all-predictors", "--plots", str(folder), *arguments]) == 0
    found = {}
    for path in folder.glob("*.csv"):
        for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
            assert path.with_suffix(suffix).read_bytes().startswith(magic)
        with path.open(newline="", encoding="utf-8") as file:
            found[path.name.partition("-")[0]] = list(csv.DictReader(file))
    return found


def test_every_plot_of_a_data_set_with_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = write_records(tmp_path / "results", 7)
    found = plotted(tmp_path / "plots", results, "--selection", "last")
    assert set(found) == {"ranks", "forest", "heat", "line", "steps"}
    assert main([str(results), "--all-predictors", "--selection", "last", "--format", "json"]) == 0
    value = json.loads(capsys.readouterr().out)
    means = {row["label"]: [cell["mean"] for cell in row["cells"]] for row in value["tables"][0]["rows"]}
    heat = {row["row"]: [float(row[name]) for name in [*(f"d{i}" for i in range(7)), "Avg"]] for row in found["heat"]}
    assert heat["ERM"] == pytest.approx(means["ERM"])
    forest = [row for row in found["forest"] if row["row"] == "ERM"]
    assert [row["domain"] for row in forest] == ["all (over domains)", *(f"d{i}" for i in range(7))]
    compared = [each for each in value["comparisons"] if each["algorithm"] == "ERM"]
    assert [[float(row[key]) for key in ("difference", "low", "high")] for row in forest] == [
        pytest.approx([each["difference"], *each["interval"]]) for each in (compared[-1], *compared[:-1])
    ]
    assert [(row["curve"], row["alpha"]) for row in found["line"]][-2:] == [
        ("WiSE-FT, by alpha", "0.3"),
        ("WiSE-FT, by alpha", "0.6"),
    ]
    assert float(found["line"][0]["out_of_domain"]) == pytest.approx(means["ZeroShot"][-1])
    steps = [row for row in found["steps"] if row["row"] == "ERM"]
    assert [row["step"] for row in steps] == ["0", "10"]
    assert float(steps[1]["accuracy"]) == pytest.approx(means["ERM"][-1])
    assert found["ranks"][0]["row"] == "WiSE-FT[alpha=0.6]"


def test_below_six_units_the_diagram_is_refused_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = plotted(tmp_path / "plots", write_records(tmp_path / "results", 4))
    assert "ranks" not in found and "forest" in found
    assert "No critical-difference diagram. No ranks of PACS: ranks need at least 6 domains" in capsys.readouterr().err


def test_base_against_new(tmp_path: Path) -> None:
    found = plotted(tmp_path / "plots", write_records(tmp_path / "results", 1, protocol="base_to_new"))
    assert "line" not in found
    for row in found["base_new"]:
        assert float(row["base"]) + float(row["new"]) == pytest.approx(100)


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    results = write_records(tmp_path / "results", 6, dataset="../$\\frac{")
    found = plotted(tmp_path / "plots", results, "--posthoc", "nemenyi")
    assert {path.parent for path in (tmp_path / "plots").rglob("*")} == {tmp_path / "plots"}
    assert "'=UEO $x_1$" in {row["row"] for row in found["heat"]}
    assert plain("$x$\n<b>") == r"\$x\$ <b>"


def test_titles_are_whole_in_lines_and_names_are_cut() -> None:
    title = "Icons, base to new (shots 4), harmonic mean of base and new, last selection, over domains"
    assert heading(title).replace("\n", " ") == title and max(map(len, heading(title).splitlines())) <= 80
    assert len(plain("x" * 300)) < 60 and len(heading("x" * 3000)) < 400


def test_a_name_that_is_no_text_breaks_nothing() -> None:
    assert plain("P\ud800").encode()


def test_same_numbers_give_the_same_files(tmp_path: Path) -> None:
    results = write_records(tmp_path / "results", 6)
    for name in ("one", "two"):
        plotted(tmp_path / name, results)
    files = sorted((tmp_path / "one").iterdir())
    assert len(files) == 15
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_without_matplotlib_or_a_folder_there_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = write_records(tmp_path / "results", 4)
    (tmp_path / "file").write_text("")
    assert main([str(results), "--plots", str(tmp_path / "file")]) == 2
    assert "give --plots a folder" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([str(results), "--plots", str(tmp_path / "plots")]) == 2
    assert "pip install 'clipbed[plots]'" in capsys.readouterr().err
