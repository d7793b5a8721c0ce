"""Hyper-parameters: declared, drawn from named streams as DomainBed draws them, checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import SpecError
from bench.hparams import Hparam, choice, log_uniform, power_of_two, resolve, uniform
from bench.seeds import seed_hash

DOMAINBED = {
    "lr": Hparam(5e-5, "learning rate", draw=log_uniform(-5, -3.5)),
    "weight_decay": Hparam(0.0, "weight decay", draw=log_uniform(-6, -2)),
    "batch_size": Hparam(32, "images a domain and step", draw=power_of_two(3, 5.5)),
    "resnet_dropout": Hparam(0.0, "drop-out before the classifier", draw=choice(0.0, 0.1, 0.5)),
    "class_balanced": Hparam(False, "draw classes equally often"),
}


def values(
    declared: dict[str, Hparam], hparams_seed: int = 0, trial_seed: int = 0, **given: object
) -> dict[str, object]:
    return resolve(
        declared, dataset="PACS", backbone="tiny", hparams_seed=hparams_seed, trial_seed=trial_seed, given=given
    )


@pytest.mark.parametrize(("trial_seed", "lr"), [(0, "2.70e-05"), (1, "2.24e-05"), (2, "5.99e-05")])
def test_learning_rate_of_seed_1_is_domainbeds(trial_seed: int, lr: str) -> None:
    assert f"{values(DOMAINBED, hparams_seed=1, trial_seed=trial_seed)['lr']:.2e}" == lr


def test_seed_0_gives_the_defaults() -> None:
    assert values(DOMAINBED) == {name: hparam.default for name, hparam in DOMAINBED.items()}


@given(st.permutations(list(DOMAINBED)), st.integers(1, 50), st.integers(0, 5))
def test_draws_do_not_depend_on_order_or_on_other_hparams(names: list[str], hparams_seed: int, trial_seed: int) -> None:
    whole = values(DOMAINBED, hparams_seed, trial_seed)
    part = values({name: DOMAINBED[name] for name in names[:3]}, hparams_seed, trial_seed)
    assert part == {name: whole[name] for name in names[:3]}


@given(st.integers(1, 1000), st.integers(0, 10))
def test_draws_stay_in_their_ranges(hparams_seed: int, trial_seed: int) -> None:
    declared = {
        "a": Hparam(1e-4, "a", draw=log_uniform(-5, -3), low=1e-5, high=1e-3),
        "b": Hparam(8, "b", draw=power_of_two(3, 5), low=8, high=32),
        "c": Hparam("x", "c", draw=choice("x", "y"), choices=("x", "y")),
        "d": Hparam(0.5, "d", draw=uniform(0, 1), low=0, high=1),
    }
    drawn = values(declared, hparams_seed, trial_seed)
    assert [type(value) for value in drawn.values()] == [float, int, str, float]
    assert json.loads(json.dumps(drawn)) == drawn


def test_given_values_win_and_leave_the_other_draws_alone() -> None:
    drawn = values(DOMAINBED, hparams_seed=3)
    assert values(DOMAINBED, hparams_seed=3, lr=0.1) == {**drawn, "lr": 0.1}


def test_overrides_go_by_data_set_then_backbone() -> None:
    steps = Hparam(5000, "updates", low=0, overrides={"DomainNet": 10000, "tiny": 100})
    found = [steps.default_for(*each) for each in (("PACS", "RN50"), ("DomainNet", "RN50"), ("DomainNet", "tiny"))]
    assert found == [5000, 10000, 100]


def test_whole_numbers_stand_for_floats_wherever_they_come_from() -> None:
    declared = {"scale": Hparam(1.0, "scale", overrides={"tiny": 2})}
    for found in (values(declared), values(declared, scale=2), values(declared, scale=2.0)):
        assert repr(found["scale"]) == "2.0"


def test_all_problems_are_in_one_message() -> None:
    declared = {
        **DOMAINBED,
        "mode": Hparam("mms", "margin", choices=("mms", "none")),
        "k": Hparam(3, "k", low=1, high=9),
    }
    with pytest.raises(SpecError) as caught:
        values(declared, learning_rate=1.0, weight_decai=0.0, mode="max", k=10, batch_size="many", class_balanced=1)
    for part in (
        "'weight_decai' is unknown (did you mean 'weight_decay'?)",
        "'learning_rate' is unknown (known: lr,",
        "mode='max' must be one of 'mms', 'none'",
        "k=10 is out of its range 1..9",
        "batch_size='many' must be of type int",
        "class_balanced=1 must be of type bool",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1", None])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(SpecError, match="lr="):
        values(DOMAINBED, lr=value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"help": ""},
        {"help": "h", "low": 2},
        {"help": "h", "choices": (2, 3)},
        {"help": "h", "overrides": {"PACS": "x"}},
    ],
)
def test_slip_in_a_declaration_shows_at_once(arguments: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Hparam(1, **arguments)


def test_range_is_described_in_a_few_characters() -> None:
    described = [
        Hparam(1, "h", low=0).range(), Hparam(0.5, "h", low=0, high=1).range(), Hparam("a", "h").range(),
        Hparam("a", "h", choices=("a", "b")).range(),
    ]  # fmt: skip
    assert described == ["0..", "0..1", "str", "a | b"]


@pytest.mark.realdata
def test_every_run_of_the_published_sweep_is_reproduced(shared_data: Path) -> None:
    runs = sorted((shared_data / "domainbed_sweep" / "sweep").glob("*/results.jsonl"))
    assert len(runs) == 40
    for run in runs:
        record = json.loads(run.read_text().splitlines()[0])
        args, published = record["args"], record["hparams"]
        seeds = {"hparams_seed": args["hparams_seed"], "trial_seed": args["trial_seed"]}
        parts = (args["dataset"], args["algorithm"], args["test_envs"], args["hparams_seed"], args["trial_seed"])
        assert seed_hash(*parts) == args["seed"]
        assert values(DOMAINBED, **seeds) == {name: published[name] for name in DOMAINBED}
