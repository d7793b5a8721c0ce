"""Whole trials of every protocol, with every method that suits it, on a small data set of real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.dataset import Dataset, DatasetInfo, read_domain
from bench.job import run_trial
from bench.metrics import auroc
from bench.plan import plan
from bench.records import load
from bench.registry import algorithms, datasets
from bench.selection import Choice, select
from bench.spec import Places
from bench.store import Run
from bench.sweep import main
from bench.sweepfile import Sweep

CLASSES = ("bird", "Cat", "car", "dog", "house", "tree")
DOMAINS = ("ink", "oil", "photo")
LABELLED = ("ZeroShot", "CoOp", "ERM", "WiSE-FT", "CLIPood", "ARF")
UNLABELLED = ("ZeroShot", "UEO", "InfoMax")
HPARAMS = {"batch_size": 4, "captions": "template", "retrieval": "none", "grid": False}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of ten images in three domains."""
    from PIL import Image

    root = tmp_path_factory.mktemp("six")
    stream = np.random.default_rng(0)
    for d, domain in enumerate(DOMAINS):
        for c, name in enumerate(CLASSES):
            (root / domain / name).mkdir(parents=True)
            for i in range(10):
                pixels = stream.integers(0, 120, (70, 70, 3)) + np.array([40 * d, 20 * c, 60])
                Image.fromarray(pixels.astype(np.uint8)).save(root / domain / name / f"{i}.png")
    return root


@pytest.fixture
def six(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set in `images`, registered as "Six", and its first domain as "One"."""

    class Six(DatasetInfo):
        def load(self, places: Any) -> Dataset:
            read = tuple(read_domain(name, images, name, CLASSES) for name in self.domains)
            return Dataset(self.name, CLASSES, read)

    facts = {"summary": "random images", "source": "made in the test", "licence": "none", "citation": "none"}
    "Six" in datasets  # noqa: B015 - loads the plug-ins, so that the patch below is all that is undone
    for name, domains in (("Six", DOMAINS), ("One", DOMAINS[:1])):
        monkeypatch.setitem(datasets._entries, name, Six(name=name, domains=domains, class_names=CLASSES, **facts))
        monkeypatch.setitem(datasets._origins, name, "here")


def run_all(folder: Path, **changes: Any) -> list[Run]:
    """Plan a sweep, run its trials in this process, and give their runs."""
    known = {name for method in changes["algorithms"] for name in algorithms[method].hparams}
    hparams = {name: value for name, value in HPARAMS.items() if name in known}
    fields = {"datasets": ("Six",), "n_trials": 1, "steps": 2, "evaluate_every": 2, "hparams": hparams}
    wanted = Sweep(**{**fields, **changes})
    runs = []
    for each in plan([wanted], Places(cache=str(folder / "cache"))):
        run = Run.create(folder / "sweep", each.spec, each.places)
        assert run_trial(str(run.folder), device="cpu") == "done", run.error()
        runs.append(run)
    return runs


def values(folder: Path, rule: str = "training-domain") -> dict[str, list[float]]:
    """Give the chosen main values of main predictors, by row."""
    found: dict[str, list[float]] = {}
    for choice in chosen(folder, rule):
        found.setdefault(choice.algorithm, []).append(choice.value)
    return found


def chosen(folder: Path, rule: str = "training-domain") -> list[Choice]:
    """Give what is selected of the main predictors."""
    return [choice for choice in select(load(folder / "sweep").records, rule) if "[" not in choice.algorithm]


def test_base_to_new_runs_and_stores_predictions_of_every_view(six: None, tmp_path: Path) -> None:
    (run,) = run_all(tmp_path, algorithms=("CoOp",), protocol="base_to_new", options={"shots": "2"})
    records, _ = run.records()
    assert [record["step"] for record in records] == [0, 2] and records[0]["variant"] == "shots=2"
    views = {f"env{domain}_{split}" for domain in range(3) for split in ("val", "base", "new")}
    assert {key.removesuffix("_acc") for key in records[0] if key.endswith("_acc")} == views
    with np.load(run.predictions_path) as arrays:
        assert {key.partition("/")[0] for key in arrays} == views
        correct = arrays["env1_new/main/predicted"] == arrays["env1_new/label"]
        assert correct.mean() == records[-1]["env1_new_acc"]
        assert set(arrays["env1_new/label"]) <= {0, 1, 2}  # the new names alone
    assert values(tmp_path).keys() == {"CoOp"} and len(values(tmp_path)["CoOp"]) == 3


def test_universal_stores_the_score_that_it_detects_with(six: None, tmp_path: Path) -> None:
    (run,) = run_all(
        tmp_path,
        algorithms=("ZeroShot",),
        protocol="universal",
        test_domains=("oil",),
        options={"setting": "open", "ood_score": "max_logit"},
        metrics=("ece", "class_accs"),
        evaluate="all",
    )
    (record,) = run.records()[0]
    assert record["variant"] == "ood_score=max_logit,setting=open" and not record["transductive"]
    with np.load(run.predictions_path) as arrays:
        known = arrays["env1_test/label"] < 4
        score = arrays["env1_test/main/ood_score"]
        assert score.dtype == np.float32 and known.sum() == 40
        assert record["env1_test_auroc"] == pytest.approx(auroc(score[known], score[~known]))
        correct = (arrays["env1_test/main/predicted"] == arrays["env1_test/label"])[known]
        assert correct.mean() == record["env1_test_acc"] == record["env1_test_balanced_acc"]
        assert "env1_train/main/ood_score" in arrays
    assert len(record["env1_test_class_accs"]) == 4 and 0 <= record["env1_test_ece"] <= 1


def test_transfer_tests_other_data_sets_in_one_trial(six: None, tmp_path: Path) -> None:
    (run,) = run_all(
        tmp_path,
        algorithms=("ERM",),
        datasets=("One",),
        protocol="transfer",
        transfer_to=("Six",),
        options={"shots": "2"},
    )
    record = run.records()[0][-1]
    assert record["domains"] == ["One", "Six/ink", "Six/oil", "Six/photo"] and len(record["file_lists"]) == 4
    assert {"env0_id_acc", "env0_val_acc", "env1_test_acc", "env2_test_acc", "env3_test_acc"} <= set(record)
    assert len(values(tmp_path)["ERM"]) == 3


def test_the_command_takes_protocol_options(six: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["launch", "--datasets", "Six", "--n-trials", "1", "--output-dir", str(tmp_path), "--dry-run"]
    common += ["--cache", str(tmp_path / "cache"), "--hparams", '{"batch_size": 4}']
    wild = [*common, "--algorithms", "ERM", "--protocol", "base_to_new"]
    assert main([*wild, "--shots", "4", "--options", '{"first_seed": 0}', "--metrics", "nll"]) == 0
    capsys.readouterr()
    assert main([*common, "--algorithms", "UEO", "ERM", "--protocol", "universal", "--setting", "open"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "ERM trains on labelled images" in said
    assert main([*common, "--algorithms", "CoOp", "--protocol", "in_the_wild", "--shots", "4"]) == 2
    assert "no option of the protocol in_the_wild called 'shots'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "methods", "options"),
    [
        ("base_to_new", (*LABELLED, "UEO"), {"shots": "2"}),
        ("in_the_wild", (*LABELLED, "UEO"), {}),
        ("single_source", (*LABELLED, "UEO"), {"report": "all"}),
        *(("universal", UNLABELLED, {"setting": each}) for each in ("closed", "partial", "open", "open_partial")),
    ],
)
def test_every_suitable_method_runs_to_the_end(
    six: None, tmp_path: Path, protocol: str, methods: tuple[str, ...], options: dict[str, Any]
) -> None:
    domains = () if protocol == "base_to_new" else ("photo",)
    runs = run_all(tmp_path, algorithms=methods, protocol=protocol, options=options, test_domains=domains)
    found = values(tmp_path)
    assert set(found) == set(methods)
    assert all(0 <= value <= 1 for of_row in found.values() for value in of_row)
    starts = {}
    for run in runs:
        first, *_ = run.records()[0]
        if algorithms[run.spec.algorithm].starts_zero_shot:
            starts[run.spec.algorithm, run.spec.test_domains] = {
                key: value for key, value in first.items() if key.endswith("_acc")
            }
    for (_, held_out), numbers in starts.items():
        assert numbers == pytest.approx(starts["ZeroShot", held_out], abs=1e-6)  # every method begins at zero-shot


@pytest.mark.slow
def test_one_data_set_is_transferred_by_every_method(six: None, tmp_path: Path) -> None:
    run_all(
        tmp_path,
        algorithms=LABELLED,
        datasets=("One",),
        protocol="transfer",
        transfer_to=("Six",),
        options={"shots": "all"},
    )
    assert set(values(tmp_path)) == set(LABELLED)


@pytest.mark.slow
def test_protocols_run_on_the_embedded_data_set(tmp_path: Path) -> None:
    """Icons, as a user would: the launcher's planning, a trial of each protocol, the tables."""
    common = {"datasets": ("Icons",), "steps": 1, "evaluate_every": 1}
    run_all(tmp_path, algorithms=("ZeroShot", "CoOp"), protocol="base_to_new", **common)
    run_all(tmp_path, algorithms=("ZeroShot", "CoOp"), protocol="in_the_wild", test_domains=("chalk",), **common)
    run_all(
        tmp_path,
        algorithms=("ZeroShot", "UEO"),
        protocol="universal",
        options={"setting": "open_partial"},
        test_domains=("chalk",),
        **common,
    )
    cells = {(each.protocol, each.algorithm) for each in chosen(tmp_path)}
    assert len(cells) == 6 and {protocol for protocol, _ in cells} == {
        "base_to_new",
        "in_the_wild",
        "universal[setting=open_partial]",
    }
