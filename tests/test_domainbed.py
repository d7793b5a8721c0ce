"""DomainBed's sweeps: read as records, printed as DomainBed prints them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import domainbed
from bench.collect import main
from bench.errors import Conflict, RecordsMissing
from bench.records import load


@pytest.fixture(scope="session")
def golden(shared_data: Path) -> Path:
    """A sweep that DomainBed's authors published, beside what their collector prints for it."""
    folder = shared_data / "domainbed_sweep"
    if not folder.is_dir():
        pytest.skip("DomainBed's published sweep is not on this machine")
    return folder


def write_run(root: Path, name: str, lines: list[dict[str, Any]], *, done: bool = True, end: str = "\n") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, lines)) + end)
    if done:
        (folder / "done").write_text("done")
    return folder


def line(test: list[int], step: int = 0, trial: int = 0, seed: int = 0, **values: Any) -> dict[str, Any]:
    args = {"dataset": "VLCS", "algorithm": "ERM", "test_envs": test, "trial_seed": trial, "hparams_seed": seed}
    args |= {key: values.pop(key) for key in ("dataset", "algorithm", "task") if key in values}
    accuracies = {f"env{i}_{split}_acc": 0.5 for i in range(4) for split in ("in", "out")}
    return {"args": args, "hparams": {"lr": 1e-3}, "step": step, "loss": 1.0, **accuracies, **values}


def printed(root: Path) -> str:
    results = load(root, include_unfinished=True)
    return domainbed.collect(results.records, results.n_lines)


@pytest.mark.realdata
def test_published_sweep_prints_byte_for_byte(golden: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main([str(golden / "sweep"), "--format", "domainbed"]) == 0
    out, err = capsysbinary.readouterr()
    assert out == (golden / "results.txt").read_bytes()
    assert err == b""


@pytest.mark.realdata
def test_csv_of_the_published_sweep_rounds_to_its_text(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(golden / "sweep"), "--format", "csv"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "protocol,selection,dataset,algorithm,metric,column,mean,stderr,n"
    cells = {(cell[1], cell[5]): cell for cell in (each.split(",") for each in lines)}
    text = (golden / "results.txt").read_text()
    rows = [row.split()[1:] for row in text.splitlines() if row.startswith("ERM")]
    for rule, row in zip(("training-domain", "leave-one-out", "oracle"), rows[::2], strict=True):
        for place, column in enumerate("CLSV"):
            _, _, dataset, algorithm, metric, _, mean, error, n = cells[rule, column]
            assert (dataset, algorithm, metric, n) == ("VLCS", "ERM", "accuracy", "2")
            assert row[3 * place : 3 * place + 3] == [f"{float(mean):.1f}", "+/-", f"{float(error):.1f}"]
        assert row[-1] == f"{float(cells[rule, 'Avg'][6]):.1f}"
    for rule, row in zip(("training-domain", "leave-one-out", "oracle"), rows[1::2], strict=True):
        assert row[2] == f"{float(cells[rule, 'Avg'][7]):.1f}"


def test_missing_domain_is_x_in_its_table_and_left_out_of_the_averages(tmp_path: Path) -> None:
    for domain in range(3):
        write_run(tmp_path, f"run{domain}", [line([domain], **{f"env{domain}_in_acc": 0.6 + domain / 100})])
    lines = printed(tmp_path).splitlines()
    assert lines[0] == "Total records: 3"
    row = next(each for each in lines if each.startswith("ERM"))
    assert row.split() == ["ERM", "60.0", "+/-", "0.0", "61.0", "+/-", "0.0", "62.0", "+/-", "0.0", "X", "X"]
    averages = [each for each in lines if each.startswith("ERM")][1]
    assert averages.split() == ["ERM", "61.0", "+/-", "0.0", "61.0"]


def test_rows_keep_their_width_and_long_labels_are_cut(tmp_path: Path) -> None:
    write_run(tmp_path, "run", [line([0], algorithm="anchor_based_robust_finetuning_v2")])
    lines = printed(tmp_path).splitlines()
    assert lines[3] == "  ".join(each.ljust(20) for each in ("Algorithm", "C", "L", "S", "V", "Avg")) + " "
    assert lines[4].startswith("anchor_based_robust_  50.0 +/- 0.0")
    assert any(each.startswith("anchor_based_robust_finet  50.0") for each in lines)


def test_algorithms_and_data_sets_stand_in_domainbeds_order(tmp_path: Path) -> None:
    for place, (dataset, algorithm) in enumerate((("PACS", "Zeta"), ("PACS", "CORAL"), ("VLCS", "ERM"))):
        write_run(tmp_path, f"run{place}", [line([0], dataset=dataset, algorithm=algorithm)])
    lines = printed(tmp_path).splitlines()
    headings = [each.split(",")[0] for each in lines if each.startswith("--------")]
    assert headings[:3] == ["-------- Dataset: VLCS", "-------- Dataset: PACS", "-------- Averages"]
    assert [each.split()[0] for each in lines[4:7]] == ["ERM", "CORAL", "Zeta"]


def test_torn_line_missing_newline_and_foreign_line_are_skipped(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run", [line([0]), line([0], step=300)], end="")
    assert load(tmp_path).n_skipped_lines == 0
    with (folder / "results.jsonl").open("a") as file:
        file.write('\n{"note": "hello"}\n[1, 2]\n{"args": {"dataset": "VL')
    results = load(tmp_path)
    assert (len(results.records), results.n_skipped_lines) == (2, 3)


def test_duplicates_count_once_and_the_last_is_kept(tmp_path: Path) -> None:
    write_run(tmp_path, "run", [line([0], env0_in_acc=0.1), line([0], env0_in_acc=0.2)])
    results = load(tmp_path)
    assert (results.n_duplicates, results.n_lines) == (1, 2)
    assert [record["env0_in_acc"] for record in results.records] == [0.2]


def test_folder_without_done_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    write_run(tmp_path, "finished", [line([0])])
    write_run(tmp_path, "begun", [line([1])], done=False)
    results = load(tmp_path)
    assert (len(results.records), results.n_unfinished, results.n_runs) == (1, 1, 1)
    assert len(load(tmp_path, include_unfinished=True).records) == 2


def test_data_set_without_known_names_is_refused_in_domainbeds_text_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "run", [line([0], dataset="MyData")])
    with pytest.raises(RecordsMissing, match="MyData"):
        printed(tmp_path)
    assert main([str(tmp_path), "--format", "csv", "--selection", "oracle"]) == 0
    columns = [each.split(",")[5] for each in capsys.readouterr().out.splitlines()[1:]]
    assert columns == ["0", "1", "2", "3", "Avg"]


def test_what_was_left_out_is_counted_where_the_user_sees_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What DomainBed's own collector dies of, or counts in silence."""
    folder = write_run(tmp_path, "whole", [line([0]), line([0]), line([0], step=300)], end="")
    with (folder / "results.jsonl").open("a") as file:
        file.write('\n{"args": {"dataset": "VL')
    write_run(tmp_path, "begun", [line([1])], done=False)
    write_run(tmp_path, "unknown", [line([0], dataset="MyData")])
    assert main([str(tmp_path), "--format", "csv", "--selection", "oracle"]) == 0
    out, err = capsys.readouterr()
    assert {row.split(",")[2] for row in out.splitlines()[1:]} == {"VLCS", "MyData", "Averages"}
    for words in (
        "nfinished runs left out: 1",
        "torn or foreign lines skipped: 1",
        "duplicate records (the last counts): 1",
    ):
        assert words in err


def test_domain_adaptation_run_saw_unlabelled_images(tmp_path: Path) -> None:
    write_run(tmp_path, "run", [line([0], task="domain_adaptation")])
    (record,) = load(tmp_path).records
    assert record["unlabeled"] == "uda"


def test_several_backbones_are_refused() -> None:
    records = [{**domainbed.as_record(line([0]), "a"), "backbone": backbone} for backbone in ("tiny", "ViT-B-16")]
    with pytest.raises(Conflict, match="several backbones"):
        domainbed.collect(records, 2)
