"""Records of ours as a sweep of DomainBed's: what its collector reads, and what comes back."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import domainbed
from bench.domainbed.__main__ import main
from bench.domainbed.export import export
from bench.errors import Conflict, RecordsMissing
from bench.records import load
from tests.result_folders import collect, write_run

DOMAINS = ["A", "C", "P", "S"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two methods on PACS, four domains, two trials; accuracies with many digits."""
    stream = np.random.default_rng(0)
    for algorithm in ("ERM", "CLIPood"):
        for domain in range(4):
            for trial in range(2):
                values = {f"env{i}_out_acc": float(stream.uniform()) for i in range(4)}
                values[f"env{domain}_in_acc"] = float(stream.uniform())
                write_run(tmp_path / "ours", algorithm, domain, trial, dataset="PACS", domains=DOMAINS, **values)
    return tmp_path / "ours"


def lines_of(sweep: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted(sweep.glob("*/results.jsonl")) for line in path.read_text().splitlines()
    ]


def text_of(folder: Path) -> str:
    loaded = load(folder)
    return domainbed.collect(loaded.records, loaded.n_lines)


def in_order(records: Any) -> list[dict[str, Any]]:
    return sorted(records, key=lambda record: (record["trial"], record["step"]))


def test_an_exported_sweep_comes_back_as_it_was(results: Path, tmp_path: Path) -> None:
    made = export(results, tmp_path / "theirs")
    assert (made.n_runs, made.n_lines, dict(made.left_out)) == (16, 32, {})
    ours, theirs = in_order(load(results).records), in_order(load(tmp_path / "theirs").records)
    assert theirs == ours
    assert text_of(tmp_path / "theirs") == text_of(results)


def test_tables_of_the_exported_sweep_are_the_same(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(results, tmp_path / "theirs")
    rules = ("--selection", "training-domain", "--selection", "oracle", "--selection", "last", "--errorbars", "stderr")
    ours, theirs = (collect(capsys, folder, "--format", "csv", *rules) for folder in (results, tmp_path / "theirs"))
    assert theirs == ours and ours.count("\n") > 20


def test_lines_have_what_domainbeds_collector_reads(results: Path, tmp_path: Path) -> None:
    sweep = export(results, tmp_path / "theirs").folder
    folders = list(sweep.iterdir())
    assert {(folder / "done").read_text() for folder in folders} == {"done"}
    assert all((folder / "results.jsonl").read_text().endswith("}\n") for folder in folders)
    for line in lines_of(sweep):
        args = line["args"]
        assert args["dataset"] == "PACS" and len(args["test_envs"]) == 1
        assert all(type(args[name]) is int for name in ("trial_seed", "hparams_seed"))
        assert args["task"] == "domain_generalization" and args["holdout_fraction"] == 0.2
        held_out = args["test_envs"][0]
        values = [line[f"env{i}_out_acc"] for i in range(4)] + [line[f"env{held_out}_in_acc"]]
        assert all(0 <= value <= 1 for value in values)
        assert not any(f"env{i}_in_acc" in line for i in range(4) if i != held_out)  # nothing is made up
    assert {line["step"] for line in lines_of(sweep)} == {-1, 49}  # their step k has k + 1 updates done
    assert {line["args"]["seed"] for line in lines_of(sweep)} == {
        # md5 of the text of (data set, algorithm, test_envs, hparams seed, trial seed), worked out by hand
        _seed("PACS", algorithm, [domain], 0, trial)
        for algorithm in ("ERM", "CLIPood")
        for domain in range(4)
        for trial in range(2)
    }


def _seed(*parts: object) -> int:
    import hashlib

    return int(hashlib.md5(str(parts).encode()).hexdigest(), 16) % 2**31


def test_selection_independent_leaves_nothing_to_choose(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = export(results, tmp_path / "theirs", selection_independent=True)
    assert made.n_lines == made.n_runs == 16
    last = collect(capsys, results, "--format", "domainbed", "--selection", "last").splitlines()
    theirs = collect(capsys, tmp_path / "theirs", "--format", "domainbed").splitlines()
    for heading in ("training-domain validation set", "test-domain validation set (oracle)"):
        start = next(place for place, line in enumerate(theirs) if line.endswith(heading))
        assert theirs[start + 1 : start + 4] == last[3:6]


def test_pairs_serve_leave_one_out(tmp_path: Path) -> None:
    stream = np.random.default_rng(1)
    sets = [[i] for i in range(4)] + [[i, j] for i in range(4) for j in range(i + 1, 4)]
    for held_out in sets:
        values = {f"env{i}_out_acc": float(stream.uniform()) for i in range(4)}
        values |= {f"env{i}_in_acc": float(stream.uniform()) for i in held_out}
        fields = {"dataset": "PACS", "domains": DOMAINS, "test_domains": held_out}
        write_run(tmp_path / "ours", "ERM", held_out[0], **fields, **values)
    export(tmp_path / "ours", tmp_path / "theirs")
    text = text_of(tmp_path / "theirs")
    assert text == text_of(tmp_path / "ours")
    leave_one_out = text.split("leave-one-domain-out")[1].splitlines()[2]
    assert "X" not in leave_one_out


def test_what_has_no_place_in_domainbed_is_left_out_and_counted(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = {"dataset": "PACS", "domains": DOMAINS}
    write_run(results, "CLIPood", 0, dataset="Icons", domains=DOMAINS)
    write_run(results, "CLIPood", 1, dataset="VLCS", domains=["a", "b", "c", "d"])
    write_run(results, "CoOp", 0, **ours, protocol="single_source", test_domains=[1, 2, 3], env1_in_acc=0.5)
    write_run(results, "CoOp", 1, **ours, variant="report=out")
    write_run(results, "CoOp", 2, **ours, env0_out_acc=math.nan)
    write_run(results, "CoOp", 3, **ours, predictor="CoOp[last]")
    write_run(results, "UEO", 0, **ours, state="running")
    assert main(["export", str(results), "--output", str(tmp_path / "theirs")]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"16 runs, 32 records → {tmp_path / 'theirs'}\n")
    for words in (
        "1 runs on Icons, which DomainBed does not have",
        "1 runs on VLCS with other domains",
        "1 runs of single_source, which",
        "1 runs of leave_one_domain_out[report=out], which",
        "1 runs that lack accuracies",
        "1 runs with further predictors",
    ):
        assert words in out
    assert {line["args"]["algorithm"] for line in lines_of(tmp_path / "theirs")} == {"ERM", "CLIPood"}


def test_a_run_with_unlabelled_images_is_called_domain_adaptation(tmp_path: Path) -> None:
    write_run(tmp_path / "ours", "UEO", 0, dataset="PACS", domains=DOMAINS, unlabeled="out", transductive=False)
    (line, _) = lines_of(export(tmp_path / "ours", tmp_path / "theirs").folder)
    assert line["args"]["task"] == "domain_adaptation"
    assert {record["unlabeled"] for record in load(tmp_path / "theirs").records} == {"out"}  # not DomainBed's uda split


def test_nothing_to_export_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path, "ERM", 0, dataset="Icons")
    with pytest.raises(RecordsMissing, match="Icons, which DomainBed does not have: 1"):
        export(tmp_path, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_an_existing_folder_is_left_alone(results: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "precious").touch()
    assert main(["export", str(results), "--output", str(tmp_path / "theirs")]) == 2
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["precious"]


def test_several_backbones_are_refused(results: Path, tmp_path: Path) -> None:
    write_run(results, "ERM", 0, dataset="PACS", domains=DOMAINS, backbone="ViT-B-16")
    with pytest.raises(Conflict, match=r"several backbones \(ViT-B-16 \(embedded\), tiny"):
        export(results, tmp_path / "theirs")


def test_runs_that_domainbed_could_not_tell_apart_are_refused(results: Path, tmp_path: Path) -> None:
    other = write_run(results, "ERM", 0, sweep="other", dataset="PACS", domains=DOMAINS)
    renamed = other.rename(other.with_name("longer"))
    path = renamed / "results.jsonl"
    path.write_text(path.read_text().replace(other.name, "longer"))
    with pytest.raises(Conflict, match="ERM on PACS, trial 0"):
        export(results, tmp_path / "theirs")


def test_a_sweep_of_domainbeds_is_not_exported_again(results: Path, tmp_path: Path) -> None:
    export(results, tmp_path / "theirs")
    for path in (tmp_path / "theirs").glob("*/results.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        stripped = [{key: value for key, value in line.items() if key not in ("schema", "clipbed")} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in stripped))
    with pytest.raises(RecordsMissing, match="DomainBed's own: 16"):
        export(tmp_path / "theirs", tmp_path / "again")


@pytest.mark.realdata
def test_domainbeds_own_collector_prints_the_same_means(results: Path, tmp_path: Path) -> None:
    checkout = os.environ.get("CLIPBED_DOMAINBED")
    if not checkout:
        pytest.skip("CLIPBED_DOMAINBED names no checkout of DomainBed")
    export(results, tmp_path / "theirs")
    command = [sys.executable, "-W", "ignore", "-m", "domainbed.scripts.collect_results"]
    run = subprocess.run(
        [*command, f"--input_dir={tmp_path / 'theirs'}"], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert sorted(run.stdout.splitlines()) == sorted(text_of(results).splitlines())
