"""The sweeps that come with CLIPBed: what they name exists, and what they are compared with is of the same kind."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from bench.hparams import resolve
from bench.measures import label
from bench.models import check_backbone
from bench.plan import weights_place
from bench.registry import algorithms, datasets, protocols
from bench.spec import Places
from bench.sweepfile import Sweep, load_sweep, sweep_files

ROOT = Path(__file__).resolve().parents[1]
FILES = {path.stem: path for path in sweep_files()}
PAPERS = {
    "arf_imagenet": {"ARF"},
    "clipood_domain_shift": {"CLIPood", "ERM"},
    "clipood_in_the_wild": {"CLIPood"},
    "clipood_open_classes": {"CLIPood"},
    "coop_base_to_new": {"CoOp"},
    "wise_ft_imagenet": {"WiSE-FT"},
}
"""Sweeps whose papers' numbers are in results/reference, and of which methods."""


def sweeps_of(name: str) -> list[Sweep]:
    wanted = load_sweep(str(FILES[name]))[1]
    assert all(isinstance(each, Sweep) for each in wanted)
    return [each for each in wanted if isinstance(each, Sweep)]


@pytest.mark.parametrize("name", FILES)
def test_everything_it_names_exists(name: str) -> None:
    for sweep in sweeps_of(name):
        protocols[sweep.protocol].settle(sweep.options)
        tag, weights = weights_place(sweep.pretrained, Places())
        check_backbone(sweep.backbone, tag, weights)
        for dataset in (*sweep.datasets, *sweep.transfer_to):
            assert dataset in datasets
        used = set()
        for algorithm in sweep.algorithms:
            declared = algorithms[algorithm].hparams
            given = {key: value for key, value in sweep.hparams.items() if key in declared}
            used |= set(given)
            found = resolve(
                declared, dataset=sweep.datasets[0], backbone=sweep.backbone, hparams_seed=0, trial_seed=0, given=given
            )
            assert found.items() >= {key: value for key, value in given.items() if key in found}.items()
        assert used == set(sweep.hparams), "a hparam that no method of the sweep has"


@pytest.mark.parametrize("name", FILES)
def test_its_docstring_says_command_table_cost_and_numbers(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    heads = re.findall(r"^(Command|Table|Cost|Numbers):", text, re.M)
    assert heads == ["Command", "Table", "Cost", "Numbers"]
    assert f"launch sweeps/{name}.py" in text and f"results/{name}" in text


def reference() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((ROOT / "results" / "reference").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file)
    return rows


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_numbers_are_of_the_same_protocol_data_sets_and_backbone(name: str) -> None:
    told = {(row["protocol"], row["backbone"], row["dataset"], row["algorithm"]) for row in reference()}
    for sweep in sweeps_of(name):
        options = protocols[sweep.protocol].settle(sweep.options)
        protocol = label({"protocol": sweep.protocol, "options": options})
        for dataset in sweep.datasets:
            for algorithm in PAPERS[name] & set(sweep.algorithms):
                assert (protocol, sweep.backbone, dataset, algorithm) in told


def test_coops_updates_are_its_epochs() -> None:
    steps = {sweep.datasets[0]: sweep.steps for sweep in sweeps_of("coop_base_to_new")}
    assert steps["EuroSAT"] == 200 * 2 and steps["ImageNet"] == 50 * 250 and steps["OxfordPets"] == 200 * 9
    for sweep in sweeps_of("coop_base_to_new"):
        n_classes = len(datasets[sweep.datasets[0]].class_names)
        assert sweep.steps == sweep.hparams["epochs"] * (-(-n_classes // 2) * 16 // 32)


def test_clipoods_updates_cover_coops_eleven_data_sets_once() -> None:
    open_classes = [name for sweep in sweeps_of("clipood_open_classes") for name in sweep.datasets]
    assert sorted(open_classes) == sorted(sweep.datasets[0] for sweep in sweeps_of("coop_base_to_new"))
    assert len(open_classes) == 11
