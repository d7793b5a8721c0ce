"""`collect --reference`: papers' numbers beside ours, on a synthetic sweep; malformed files; the files that are shipped."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.collect import main
from bench.domainbed import ENVIRONMENTS
from bench.errors import DataMissing, SpecError
from bench.measures import scheme
from bench.metrics import harmonic_mean
from bench.reference import COLUMNS, FOLDER, read_references
from bench.registry import algorithms, datasets, protocols

ROOT = Path(__file__).resolve().parents[1]
SETS = ("PACS", "VLCS", "OfficeHome", "TerraIncognita", "DomainNet")
# What the CLIPood paper prints, typed in by hand from its table, so that the shipped file is checked as well.
PAPER = {"PACS": 97.3, "VLCS": 85.0, "OfficeHome": 87.0, "TerraIncognita": 60.4, "DomainNet": 63.5, "Averages": 78.6}
OURS = {"PACS": 97.0, "VLCS": 84.2, "OfficeHome": 87.7, "TerraIncognita": 58.1, "DomainNet": 63.5}
OTHER_METHODS = {"MIRO", "CoCoOp", "MaPLe", "FLYP"}


def write_run(
    root: Path, dataset: str, algorithm: str, domains: tuple[str, ...], values: Mapping[str, float], **changes: Any
) -> None:
    """One finished run with one evaluation."""
    settings = {
        "protocol": "leave_one_domain_out",
        "protocol_version": 1,
        "dataset": dataset,
        "algorithm": algorithm,
        "test_domains": [0],
        "trial_seed": 0,
        "hparams_seed": 0,
        "backbone": "ViT-B-16",
        "pretrained": "openai",
        **changes,
    }
    folder = root / f"run{len(list(root.iterdir()))}"
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(settings))
    (folder / "status.json").write_text(json.dumps({"state": "done"}))
    record = {
        **settings,
        "schema": 1,
        "trial": folder.name,
        "predictor": algorithm,
        "step": 5000,
        "domains": domains,
        **values,
    }
    (folder / "results.jsonl").write_text(json.dumps(record) + "\n")


def write_sweep(root: Path, sets: tuple[str, ...] = SETS, **changes: Any) -> Path:
    """CLIPood on each domain of the data sets, three trials whose mean over domains is that of `OURS`."""
    root.mkdir(exist_ok=True)
    for dataset in sets:
        names = ENVIRONMENTS[dataset]
        for place in range(len(names)):
            for trial in range(3):
                # Domains lie evenly about the data set's mean, trials 0.2 points apart about the domain's.
                value = OURS[dataset] + 0.5 * (place - (len(names) - 1) / 2) + 0.2 * (trial - 1)
                numbers = {f"env{i}_out_acc": 0.9 for i in range(len(names))} | {f"env{place}_in_acc": value / 100}
                told = {"test_domains": [place], "trial_seed": trial, **changes}
                write_run(root, dataset, "CLIPood", names, numbers, **told)
    return root


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("results"))


def write_reference(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n", encoding="utf-8")
    return path


def collect(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(each) for each in arguments]) == 0
    return capsys.readouterr().out


def in_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    (found,) = json.loads(collect(capsys, *arguments, "--format", "json"))["reports"]
    assert isinstance(found, dict)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(each) for each in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_every_cell_of_a_full_sweep_stands_beside_the_papers_number(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = in_json(capsys, sweep, "--reference")
    quoted = [row for row in found["rows"] if row["source"].startswith("CLIPood")]
    rerun = [row for row in found["rows"] if "its own run" in row["source"]]
    assert [row["dataset"] for row in quoted] == [row["dataset"] for row in rerun]
    assert len(quoted) + len(rerun) == len(found["rows"]) == 12
    means = OURS | {"Averages": sum(OURS.values()) / 5}
    assert {row["dataset"]: row["paper"] for row in quoted} == PAPER
    for row in quoted:
        assert row["ours"] == pytest.approx(means[row["dataset"]])
        assert row["difference"] == pytest.approx(means[row["dataset"]] - PAPER[row["dataset"]])
        assert (row["n"], row["column"], row["metric"], row["algorithm"]) == (3, "Avg", "accuracy", "CLIPood")
        assert row["stderr"] == pytest.approx(0.2 / 3**0.5)
    assert found["cells_without_reference"] == sum(len(ENVIRONMENTS[name]) for name in SETS)
    every = [each for each in read_references(FOLDER) if each.key.backbone == "ViT-B-16"]
    assert found["references_without_cell"] == len(every) - 12
    assert found["message"] is None


def test_text_has_the_columns_and_signed_differences(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = collect(capsys, sweep, "--reference")
    lines = [line.split() for line in out.splitlines() if "CLIPood (ICML 2023)" in line]
    changes = {line[line.index("CLIPood") - 1]: line[line.index("3") - 1] for line in lines}
    expected = {"PACS": "-0.3", "VLCS": "-0.8", "OfficeHome": "+0.7", "TerraIncognita": "-2.3", "DomainNet": "0.0"}
    assert changes == expected | {"Averages": "-0.5"}
    assert "97.3 ± 0.1  97.0 ± 0.1  -0.3" in out
    header = out.splitlines()[2]
    assert " ".join(header.split()) == "protocol data set row column metric paper ours difference trials source"
    assert "Trials per cell: 3." in out


def test_markdown_has_one_row_a_number(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = collect(capsys, sweep, "--reference", "--format", "markdown")
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 12
    assert {line.count("|") for line in table} == {11}
    assert any("| 97.3 ± 0.1 | 97.0 ± 0.1 | -0.3 | 3 | CLIPood (ICML 2023)" in line for line in table)


def test_an_average_over_fewer_data_sets_is_not_held_against_the_papers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = in_json(capsys, write_sweep(tmp_path / "two", SETS[:2]), "--reference")
    assert {row["dataset"] for row in found["rows"]} == {"PACS", "VLCS"}
    assert found["averages_of_other_sets"] == 1
    assert "other data sets or domains: 1." in " ".join(collect(capsys, tmp_path / "two", "--reference").split())


def test_holes_have_no_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path / "some", SETS[:1])
    names = ENVIRONMENTS["VLCS"]
    write_run(tmp_path / "some", "VLCS", "CLIPood", names, {"env0_in_acc": 0.8, "env1_out_acc": 0.9})
    shutil.rmtree(tmp_path / "some" / "run0")
    rows = {row["dataset"]: row for row in in_json(capsys, tmp_path / "some", "--reference")["rows"]}
    assert rows["VLCS"]["ours"] is None and rows["VLCS"]["difference"] is None
    assert rows["PACS"]["n"] == 2 and rows["PACS"]["difference"] is not None


def test_other_options_and_other_weights_do_not_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_sweep(tmp_path / "other", SETS[:1], pretrained="laion2b")
    assert "ViT-B-16 (laion2b), and the reference files know only" in collect(capsys, other, "--reference")
    split = write_sweep(tmp_path / "split", SETS[:1], options={"report": "out"})
    out = " ".join(collect(capsys, split, "--reference").split())
    assert "Nothing matches: of ViT-B-16 (openai)" in out
    assert "leave one domain out: Averages, DomainNet, OfficeHome, PACS" in out


def test_published_records_of_tiny_say_that_nothing_matches(capsys: pytest.CaptureFixture[str]) -> None:
    published = ROOT / "results" / "published" / "pacs_tiny"
    out = " ".join(collect(capsys, published, "--reference").split())
    assert "these results are of tiny (embedded), and the reference files know only ViT-B-16 (openai)" in out
    found = in_json(capsys, published, "--reference")
    assert found["rows"] == [] and found["references_without_cell"] == 0
    assert found["message"].startswith("Nothing matches")
    assert "Nothing matches" in collect(capsys, published, "--reference", "--format", "markdown")


def test_base_new_and_h_are_joined_by_metric_and_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"env0_base_acc": 0.44, "env0_new_acc": 0.36, "env0_val_acc": 0.5}
    told = {"protocol": "base_to_new", "test_domains": []}
    (tmp_path / "runs").mkdir()
    write_run(tmp_path / "runs", "FGVCAircraft", "CLIPood", ("photo",), values, **told)
    row = "base_to_new,ViT-B/16,openai,Aircraft,CLIPood,{},average,{},,a paper"
    numbers = {"Base": 43.3, "NEW": 37.2, "HM": 40.0}
    path = write_reference(tmp_path / "a.csv", *(row.format(*each) for each in numbers.items()))
    for place in (path, FOLDER):
        found = in_json(capsys, tmp_path / "runs", "--reference", place)
        changes = {each["metric"]: each["difference"] for each in found["rows"]}
        h = 100 * harmonic_mean(0.44, 0.36)
        assert changes == pytest.approx({"base": 0.7, "new": -1.2, "H": h - 40.0})
        assert found["cells_without_reference"] == 0


def test_averages_of_transfer_need_the_same_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = ("ImageNetV2", "ImageNet-Sketch", "ImageNet-A", "ImageNet-R")
    for name, shown in (("all", targets), ("one", targets[:1])):
        values = {f"env{place}_test_acc": 0.5 for place in range(1, len(shown) + 1)} | {"env0_id_acc": 0.7}
        (tmp_path / name).mkdir()
        told = {"protocol": "transfer", "test_domains": []}
        write_run(tmp_path / name, "ImageNet", "CLIPood", ("ImageNet", *shown), values, **told)
        rows = in_json(capsys, tmp_path / name, "--reference", "--selection", "last")["rows"]
        found = {(row["metric"], row["column"]) for row in rows}
        assert {("accuracy", column) for column in shown} <= found
        assert (("accuracy", "Avg") in found) == (name == "all")


GOOD = "leave_one_domain_out,ViT-B-16,openai,PACS,ERM,accuracy,Avg,96.1,0.5,a paper"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GOOD.replace("96.1", "ninety"), "mean is 'ninety'"),
        (GOOD.replace("96.1", "nan"), "mean is 'nan'"),
        (GOOD.replace("96.1", "961"), "mean is '961'"),
        (GOOD.replace("0.5", "-0.5"), "error is '-0.5'"),
        (GOOD.replace("96.1", ""), "mean must not be empty"),
        (GOOD.replace("a paper", " "), "source must not be empty"),
        (GOOD + ", table 2", "11 fields, not 10"),
        (GOOD.replace("accuracy", "acuracy"), "metric is 'acuracy'; those of leave_one_domain_out are accuracy"),
        (GOOD.replace("a paper", '"a "paper'), "not CSV"),
        (GOOD.replace("accuracy", "acc"), "further up"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(
    row: str, message: str, sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_reference(tmp_path / "mine.csv", GOOD, row)
    with pytest.raises(SpecError) as caught:
        read_references(path)
    assert f"{path}, line 3: " in str(caught.value) and message in str(caught.value)
    assert message in refused(capsys, sweep, "--reference", path)


def test_a_folder_a_header_or_an_encoding_that_is_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="there is no file or folder"):
        read_references(tmp_path / "nowhere")
    with pytest.raises(DataMissing, match="holds no"):
        read_references(tmp_path)
    (tmp_path / "a.csv").write_text("protocol,mean\n")
    with pytest.raises(SpecError, match="line 1: the columns are protocol,mean"):
        read_references(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="UTF-8"):
        read_references(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "asked", [["--format", "csv"], ["--format", "latex"], ["--plan"], ["--effects"], ["--rename", "PACS=x"]]
)
def test_what_does_not_go_with_reference_is_refused(
    asked: list[str], sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--reference" in refused(capsys, sweep, "--reference", FOLDER, *asked)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.csv")), ids=lambda path: path.stem)
def test_shipped_files_parse_and_know_only_what_there_is(path: Path) -> None:
    references = read_references(path)
    with path.open(newline="", encoding="utf-8") as file:
        assert len(references) == len(list(csv.DictReader(file))) > 0
    for each in references:
        key = each.key
        name, _, options = key.protocol.rstrip("]").partition("[")
        protocols[name].settle(dict(pair.split("=") for pair in options.split(",") if pair))
        assert key.dataset == "Averages" or key.dataset in datasets
        assert key.algorithm in algorithms or key.algorithm in OTHER_METHODS
        assert key.metric in {measure.name for measure in scheme(key.protocol).measures}
        known = {"Avg", *datasets, *ENVIRONMENTS.get(key.dataset, ())}
        assert key.column in known


def test_shipped_averages_agree_with_their_parts() -> None:
    of_set = {(each.key, each.source): each.mean for each in read_references(FOLDER)}
    checked = 0
    for (key, source), mean in of_set.items():
        if key.dataset == "Averages" and key.metric != "H":
            parts = [
                value
                for (other, by), value in of_set.items()
                if other._replace(dataset="Averages") == key and by == source and other.dataset != "Averages"
            ]
            if parts:
                assert sum(parts) / len(parts) == pytest.approx(mean, abs=0.11)
                checked += 1
    assert checked >= 15


def test_shipped_harmonic_means_follow_from_base_and_new() -> None:
    found = {(each.key, each.source): each.mean for each in read_references(FOLDER)}
    for (key, source), mean in found.items():
        if key.metric == "H":
            base, new = (found[key._replace(metric=metric), source] for metric in ("base", "new"))
            # Printed with one or two decimals, H of two rounded numbers is off by no more.
            assert harmonic_mean(base, new) == pytest.approx(mean, abs=0.11)
