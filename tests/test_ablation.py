"""Rows for trainings that differ in an hparam, and accuracy over alpha."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.result_folders import collect, refused, write_run


@pytest.fixture
def ablated(tmp_path: Path) -> Path:
    """CLIPood with and without averaging, in sweeps of their own, beside ERM."""
    for domain in range(4):
        for value in ("bma", "none"):
            gain = 0.03 * (value == "bma") + 0.004 * domain
            numbers = {f"env{domain}_in_acc": 0.6 + gain}
            folder = write_run(tmp_path, "CLIPood", domain, sweep=value, **numbers)
            hparams = {"average": value, "lr": 1e-5, "beta": 0.5}
            _give(folder, f"{value}-{domain}", hparams)
        _give(write_run(tmp_path, "ERM", domain, sweep="erm"), f"erm-{domain}", {"lr": 1e-5})
    return tmp_path


def _give(folder: Path, trial: str, hparams: dict[str, object]) -> None:
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**spec, "hparams": hparams}))
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    (folder / "results.jsonl").write_text("".join(json.dumps({**line, "trial": trial}) + "\n" for line in lines))
    folder.rename(folder.with_name(trial))


def test_ablations_collected_together_are_warned_of_and_become_rows_on_request(
    ablated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "WARNING: trials of CLIPood" in collect(capsys, ablated, "--format", "text")
    text = collect(capsys, ablated, "--format", "text", "--rows-by", "average", "--against", "CLIPood[average=none]")
    rows = [line.split("  ")[0] for line in text.splitlines()[4:7]]
    assert rows == ["ERM", "CLIPood[average=bma]", "CLIPood[average=none]"]
    assert "WARNING" not in text
    compared = next(line for line in text.splitlines() if line.startswith("CLIPood[average=bma]") and "/" in line)
    assert "+3.0" in compared


def test_rows_by_several_hparams_name_only_what_varies(ablated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = collect(capsys, ablated, "--format", "text", "--rows-by", "lr", "average", "--algorithms", "CLIPood")
    assert "CLIPood[average=bma] " in text and "lr=" not in text and "ERM" not in text
    named = collect(capsys, ablated, "--format", "csv", "--rows-by", "average", "--algorithms", "CLIPood[average=none]")
    assert "average=bma" not in named and "average=none" in named


def test_rows_by_an_unknown_hparam_is_refused(ablated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'average'" in refused(capsys, ablated, "--rows-by", "averag")


def test_explain_knows_the_rows(ablated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = collect(capsys, ablated, "--rows-by", "average", "--explain", "Icons", "CLIPood[average=none]", "Avg")
    assert "average=none" in shown and "average=bma" not in shown


def test_accuracy_over_alpha_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for domain in range(4):
        for alpha in (0.0, 0.3, 1.0):
            numbers = {f"env{i}_out_acc": 0.5 + 0.3 * alpha for i in range(4)}
            numbers[f"env{domain}_in_acc"] = 0.4 + 0.2 * alpha - 0.15 * alpha**2 + 0.01 * domain
            name = f"WiSE-FT[alpha={alpha}]"
            write_run(tmp_path, "WiSE-FT", domain, sweep=f"{alpha}", predictor=name, **numbers)
    lines = collect(capsys, tmp_path, "--format", "text", "--all-predictors").splitlines()
    place = lines.index("Icons: accuracy over alpha (%)")
    assert lines[place + 2].split() == ["alpha", "0", "0.3", "1"]
    inside, outside = (line.split("  ")[1:] for line in lines[place + 4 : place + 6])
    assert [float(each.strip(" *")) for each in inside if each.strip()] == pytest.approx([50, 59, 80])
    assert [float(each.strip(" *")) for each in outside if each.strip()] == pytest.approx([41.5, 46.15, 46.5], abs=0.06)
    assert lines[place + 4].endswith("80.0 *")
    value = json.loads(collect(capsys, tmp_path, "--format", "json", "--all-predictors"))
    assert [each["alpha"] for each in value["curves"]][:3] == [0.0, 0.3, 1.0]
    assert "over alpha" not in collect(capsys, tmp_path, "--format", "text", "--algorithms", "WiSE-FT[alpha=0.3]")
