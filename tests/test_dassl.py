"""Dassl's logs as CoOp's scripts leave them: which trial each is of, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.collect import main
from bench.dassl_logs import read_log
from bench.errors import RecordsMissing
from bench.records import load
from bench.selection import select

_RESULT = """Evaluate on the *{split}* set
=> result
* total: {total:,}
* correct: {correct:,}
* accuracy: {accuracy:.1f}%
* error: {error:.1f}%
* macro_f1: {macro_f1:.1f}%
"""


def result(correct: int, total: int = 4000, split: str = "test") -> str:
    accuracy = 100 * correct / total
    return _RESULT.format(
        split=split, total=total, correct=correct, accuracy=accuracy, error=100 - accuracy, macro_f1=accuracy - 0.7
    )


def write_log(
    folder: Path,
    correct: int,
    *,
    dataset: str = "OxfordPets",
    trainer: str = "CoOp",
    seed: int = 1,
    shots: int = 16,
    classes: str = "all",
    model: str = "",
    config: str = "vit_b16_ctxv1",
    sources: str = "()",
    targets: str = "()",
    opts: str = "",
    end: str = "",
    name: str = "log.txt",
) -> Path:
    """One log in the words of Dassl's `train.py` and trainer; with `model` or for zero-shot an evaluation."""
    is_training = not model and trainer != "ZeroshotCLIP"
    options = f"'DATASET.NUM_SHOTS', '{shots}', 'DATASET.SUBSAMPLE_CLASSES', '{classes}'{opts}"
    text = f"""***************
** Arguments **
***************
backbone: 
config_file: configs/trainers/{trainer}/{config}.yaml
eval_only: {not is_training}
load_epoch: {50 if model else None}
model_dir: {model}
opts: [{options}]
output_dir: {folder}
seed: {seed}
trainer: {trainer}
************
** Config **
************
DATALOADER:
  K_TRANSFORMS: 1
  TEST:
    BATCH_SIZE: 100
DATASET:
  ALL_AS_UNLABELED: False
  NAME: {dataset}
  NUM_SHOTS: {shots}
  SOURCE_DOMAINS: {sources}
  SUBSAMPLE_CLASSES: {classes}
  TARGET_DOMAINS: {targets}
MODEL:
  BACKBONE:
    NAME: ViT-B/16
    PRETRAINED: True
  HEAD:
    NAME: 
OUTPUT_DIR: {folder}
SEED: {seed}
TRAINER:
  CDAC:
    CLASS_LR_MULTI: 10
  COOP:
    CTX_INIT: 
    N_CTX: 16
  NAME: {trainer}
Collecting env info ...
** System info **
PyTorch version: 1.10.0

Loading trainer: {trainer}
Loading CLIP (backbone: ViT-B/16)
"""
    if is_training:
        text += "epoch [1/50] batch [5/40] time 0.1 (0.2) loss 0.5 (0.6) acc 50.0 (60.0) lr 1.0e-05\n"
        text += result(10, split="val") + "Finish training\nDeploy the last-epoch model\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(end or text + result(correct) + ("Elapsed: 0:10:00\n" if is_training else ""))
    return folder / name


def base_to_new(root: Path, dataset: str, trainer: str, seed: int, base: int, new: int, **more: Any) -> None:
    """What `base2new_train.sh` and `base2new_test.sh` leave."""
    place = f"{dataset.lower()}/shots_{more.get('shots', 16)}/{trainer}/vit_b16/seed{seed}"
    train = root / "base2new" / "train_base" / place
    write_log(train, base, dataset=dataset, trainer=trainer, seed=seed, classes="base", **more)
    test = root / "base2new" / "test_new" / place
    write_log(test, new, dataset=dataset, trainer=trainer, seed=seed, classes="new", model=str(train), **more)


@pytest.fixture
def coop(tmp_path: Path) -> Path:
    """Two data sets, two methods, three seeds, and zero-shot CLIP."""
    for place, dataset in enumerate(("OxfordPets", "DescribableTextures")):
        for seed in (1, 2, 3):
            base_to_new(tmp_path, dataset, "CoOp", seed, 3600 + seed + place, 3200 + 7 * seed)
            base_to_new(tmp_path, dataset, "CoCoOp", seed, 3500 + seed, 3650 + 3 * seed + place)
        for classes, correct in (("base", 3300), ("new", 3400)):
            folder = tmp_path / "zeroshot" / classes / dataset
            write_log(folder, correct, dataset=dataset, trainer="ZeroshotCLIP", seed=-1, classes=classes)
    return tmp_path


def test_base_and_new_logs_become_trials_of_base_to_new(coop: Path) -> None:
    records = {(each["dataset"], each["algorithm"], each["trial_seed"]): each for each in load(coop).records}
    assert len(records) == 2 * 3 * 3
    record = records["OxfordPets", "CoOp", 2]
    assert record["env0_base_acc"] == 3602 / 4000  # not the 90.0 % that the log rounds to, nor the validation before it
    assert record["env0_new_acc"] == 3214 / 4000
    assert (record["protocol"], record["backbone"], record["pretrained"]) == ("base_to_new", "ViT-B-16", "openai")
    assert records["DTD", "CoCoOp", 1]["env0_new_acc"] == 3654 / 4000
    assert {records["DTD", "ZeroShot", seed]["env0_base_acc"] for seed in (1, 2, 3)} == {3300 / 4000}


def test_tables_compare_the_trials_and_say_where_they_come_from(coop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(coop), "--format", "json", "--against", "CoOp"]) == 0
    value = json.loads(capsys.readouterr().out)
    rows = {row["label"]: row for table in value["tables"] if table["dataset"] == "DTD" for row in table["rows"]}
    assert set(rows) == {"ZeroShot", "CoOp", "CoCoOp"}
    assert main([str(coop), "--format", "text"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Note: imported from Dassl's logs: one final number a trial, nothing was selected here." in text
    assert "Backbone: ViT-B-16 (openai)" in text
    assert "WARNING" not in text
    for rule in ("training-domain", "oracle", "leave-one-out", "last"):
        assert len(select(load(coop).records, rule)) == 18


def test_what_is_left_out_is_counted_in_the_footer(coop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(coop / "a" / "seed1", 0, end="** Arguments **\neval_only: False\n** Config **\nDATASET:\n  NAME: DTD\n")
    write_log(coop / "b" / "seed1", 1, trainer="ZeroshotCLIP", end="anything\n")
    write_log(coop / "c" / "seed1", 3000, classes="new")
    write_log(coop / "d" / "seed1", 3000, model="somewhere/unknown")
    base_to_new(coop / "again", "OxfordPets", "CoOp", 2, 3602, 3214)
    assert main([str(coop), "--format", "text"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "Dassl's logs left out: 1 of a model of unknown training data; 1 of a training on new classes; 1 of a training that "
        "did not finish; 2 superseded by another of the same trial" in text
    )


def test_an_evaluation_counts_before_the_test_that_ended_the_training(tmp_path: Path) -> None:
    train = write_log(tmp_path / "train" / "seed1", 3000, classes="base").parent
    write_log(tmp_path / "base" / "seed1", 3100, classes="base", model=str(train))
    write_log(tmp_path / "new" / "seed1", 3200, classes="new", model=str(train))
    (record,) = load(tmp_path).records
    assert (record["env0_base_acc"], record["env0_new_acc"]) == (3100 / 4000, 3200 / 4000)


def test_base_classes_alone_are_shown_for_what_they_are(tmp_path: Path) -> None:
    write_log(tmp_path / "train" / "seed1", 3000, classes="base", shots=4)
    (record,) = load(tmp_path).records
    assert (record["protocol"], record["env0_test_acc"]) == ("few_shot[classes=base,shots=4]", 0.75)


def test_shots_are_options_of_the_protocol_and_zero_shot_is_beside_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shots in (1, 16):
        for seed in (1, 2):
            place = tmp_path / "oxford_pets" / "CoOp" / f"rn50_{shots}shots" / "nctx16" / f"seed{seed}"
            write_log(place, 3000 + shots + seed, shots=shots, seed=seed)
    write_log(tmp_path / "ZeroshotCLIP" / "rn50" / "oxford_pets", 2900, trainer="ZeroshotCLIP", seed=-1, shots=-1)
    found = {(each["protocol"], each["algorithm"], each["trial_seed"]) for each in load(tmp_path).records}
    protocols = ("few_shot[shots=1]", "few_shot[shots=16]")
    assert found == {(p, a, s) for p in protocols for a in ("CoOp", "ZeroShot") for s in (1, 2)}
    assert main([str(tmp_path), "--format", "text"]) == 0
    assert "test images of the data set that was trained on" in " ".join(capsys.readouterr().out.split())


def test_configurations_of_one_cell_get_rows_of_their_own(tmp_path: Path) -> None:
    write_log(tmp_path / "a" / "seed1", 3000)
    write_log(tmp_path / "b" / "seed1", 3100, opts=", 'TRAINER.COOP.N_CTX', '4', 'OPTIM.MAX_EPOCH', '5'")
    write_log(tmp_path / "c" / "seed1", 3200, dataset="EuroSAT", config="vit_b16_ep50")
    found = {(each["algorithm"], each["dataset"]) for each in load(tmp_path).records}
    assert found == {
        ("CoOp[vit_b16_ctxv1]", "OxfordPets"),
        ("CoOp[vit_b16_ctxv1,N_CTX=4]", "OxfordPets"),
        ("CoOp[vit_b16_ep50]", "EuroSAT"),
    }


def test_models_of_another_data_set_are_transfers(tmp_path: Path) -> None:
    for seed in (1, 2):
        train = tmp_path / "imagenet" / "CoOp" / "vit_b16_16shots" / f"seed{seed}"
        write_log(train, 2800 + seed, dataset="ImageNet", seed=seed)
        for dataset, correct in (("EuroSAT", 1900), ("ImageNetSketch", 1800)):
            place = tmp_path / "evaluation" / "CoOp" / "vit_b16_16shots" / dataset.lower() / f"seed{seed}"
            write_log(place, correct + seed, dataset=dataset, seed=seed, shots=-1, model=f"output/{train}"[7:])
    records = [each for each in load(tmp_path).records if each["protocol"] == "transfer"]
    assert [each["trial_seed"] for each in records] == [1, 2]
    assert records[0]["domains"] == ["ImageNet", "EuroSAT", "ImageNet-Sketch"]
    numbers = {key: value for key, value in records[1].items() if key.endswith("_acc")}
    assert numbers == {"env0_id_acc": 2802 / 4000, "env1_test_acc": 1902 / 4000, "env2_test_acc": 1802 / 4000}


def test_target_domains_are_held_out_domains(tmp_path: Path) -> None:
    domains = ["art_painting", "cartoon", "photo", "sketch"]
    for target in domains:
        sources = str([each for each in domains if each != target])
        folder = tmp_path / "pacs" / target / "seed1"
        write_log(folder, 3000, dataset="PACS", trainer="Vanilla", sources=sources, targets=f"['{target}']", shots=-1)
    records = load(tmp_path).records
    assert {each["protocol"] for each in records} == {"leave_one_domain_out[report=all]"}
    assert sorted(each["test_domains"][0] for each in records) == [0, 1, 2, 3]
    choices = select(records, "training-domain")
    assert [choice.value for choice in choices] == [0.75] * 4


def test_cut_logs_are_placed_by_their_path(tmp_path: Path) -> None:
    place = "oxford_flowers/shots_16/MaPLe/vit_b16_c2_ep5_batch4_2ctx/seed3"
    ends = {"train_base": "Finish training\n" + result(3900), "test_new": result(2900)}
    for part, end in ends.items():
        write_log(tmp_path / "base2new" / part / place, 0, end=end)
    (record,) = load(tmp_path).records
    assert (record["dataset"], record["algorithm"], record["trial_seed"]) == ("OxfordFlowers", "MaPLe", 3)
    assert (record["env0_base_acc"], record["env0_new_acc"]) == (0.975, 0.725)
    assert record["backbone"] == "not recorded"


def test_percent_counts_where_the_log_does_not_tell_the_numbers_behind_it(tmp_path: Path) -> None:
    path = write_log(tmp_path / "DTD" / "seed1", 0)
    path.write_text(path.read_text().replace("* total: 4,000\n", "").replace("accuracy: 0.0%", "accuracy: 85.32%"))
    assert read_log(str(path)).accuracy == pytest.approx(0.8532)


def test_a_second_run_in_one_folder_counts_as_the_later_one(tmp_path: Path) -> None:
    write_log(tmp_path / "seed1", 3000)
    write_log(tmp_path / "seed1", 3100, name="log.txt-2022-10-31-12-00-00")
    (record,) = load(tmp_path).records
    assert record["env0_test_acc"] == 3100 / 4000


def test_rows_of_ours_are_not_mixed_with_imported_ones(coop: Path) -> None:
    own = {"protocol": "base_to_new", "dataset": "DTD", "algorithm": "CoOp", "backbone": "ViT-B-16"}
    own |= {"pretrained": "openai", "test_domains": [], "trial_seed": 0, "hparams_seed": 0, "step": 5}
    folder = coop / "sweep" / "abc"
    folder.mkdir(parents=True)
    line = {**own, "domains": ["texture"], "env0_base_acc": 0.8, "env0_new_acc": 0.7}
    (folder / "results.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "spec.json").write_text(json.dumps(own))
    records = load(coop).records
    assert {each["algorithm"] for each in records} == {"CoOp", "CoOp (imported)", "CoCoOp", "ZeroShot"}
    assert {tuple(each["domains"]) for each in records if each["dataset"] == "DTD"} == {("texture",)}


def test_a_folder_with_nothing_of_use_says_why(tmp_path: Path) -> None:
    write_log(tmp_path / "seed1", 0, end="** Arguments **\neval_only: False\n** Config **\nDATASET:\n  NAME: DTD\n")
    with pytest.raises(RecordsMissing, match="1 of a training that did not finish"):
        load(tmp_path)
