"""Model selection: DomainBed's rules, ties included, and what differs from them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import SpecError, UnknownName
from bench.selection import RULES, select


def record(step: int = 0, test: tuple[int, ...] = (0,), seed: int = 0, **values: Any) -> dict[str, Any]:
    """A record of three domains; `values` set single keys."""
    accuracies = {f"env{i}_{split}_acc": 0.5 for i in range(3) for split in ("in", "out")}
    return {
        "dataset": "PACS",
        "algorithm": "ERM",
        "predictor": "ERM",
        "test_domains": list(test),
        "trial_seed": 0,
        "hparams_seed": seed,
        "trial": f"{test}-{seed}",
        "step": step,
        **accuracies,
        **values,
    }


def only(records: list[dict[str, Any]], rule: str) -> Any:
    (choice,) = select(records, rule)
    return choice


def test_training_domain_takes_the_step_with_the_best_mean_of_the_other_domains() -> None:
    records = [
        record(0, env1_out_acc=0.6, env2_out_acc=0.7, env0_in_acc=0.1, env0_out_acc=0.9),
        record(10, env1_out_acc=0.7, env2_out_acc=0.8, env0_in_acc=0.2, env0_out_acc=0.0),
        record(20, env1_out_acc=0.9, env2_out_acc=0.5, env0_in_acc=0.3, env0_out_acc=1.0),
    ]
    choice = only(records, "training-domain")
    assert (choice.step, choice.value) == (10, 0.2)
    assert choice.validation == pytest.approx(0.75)


def test_training_domain_takes_the_earliest_step_of_a_tie() -> None:
    assert only([record(step, env0_in_acc=step / 100) for step in (20, 0, 10)], "training-domain").step == 0


@pytest.mark.parametrize("rule", ["training-domain", "oracle", "last"])
def test_largest_hparams_seed_wins_a_tie(rule: str) -> None:
    records = [record(seed=seed, env0_in_acc=seed / 10) for seed in (1, 2, 0)]
    assert only(records, rule).hparams_seed == 2


def test_hparams_with_the_best_validation_win_whatever_their_test_value() -> None:
    records = [record(seed=0, env1_out_acc=0.9, env0_in_acc=0.1), record(seed=1, env0_in_acc=0.9)]
    choice = only(records, "training-domain")
    assert (choice.hparams_seed, choice.value, choice.n_candidates) == (0, 0.1, 2)


def test_oracle_takes_the_last_step_though_an_earlier_one_is_better() -> None:
    records = [record(0, env0_out_acc=0.9, env0_in_acc=0.9), record(10, env0_out_acc=0.4, env0_in_acc=0.3)]
    choice = only(records, "oracle")
    assert (choice.step, choice.value, choice.validation) == (10, 0.3, 0.4)


def test_last_takes_the_last_step_and_the_hparams_of_best_training_domain_validation() -> None:
    records = [
        record(0, seed=0, env1_out_acc=1.0, env2_out_acc=1.0),
        record(10, seed=0, env1_out_acc=0.5, env0_in_acc=0.1),
        record(10, seed=1, env1_out_acc=0.6, env0_in_acc=0.2),
    ]
    choice = only(records, "last")
    assert (choice.step, choice.hparams_seed, choice.value) == (10, 1, 0.2)


def test_last_needs_no_validation_when_there_is_one_trial() -> None:
    bare = {key: value for key, value in record(7, env0_in_acc=0.3).items() if "_out_" not in key}
    choice = only([bare], "last")
    assert (choice.value, choice.validation) == (0.3, None)


def leave_one_out_records(step: int = 0) -> list[dict[str, Any]]:
    return [
        record(step, (0,), env0_in_acc=0.77),
        record(step, (0, 1), env1_in_acc=0.5),
        record(step, (0, 2), env2_in_acc=0.6),
    ]


def test_leave_one_out_averages_the_other_held_out_domains_of_the_pair_runs() -> None:
    choice = only(leave_one_out_records(), "leave-one-out")
    assert choice.validation == pytest.approx(0.55)
    assert choice.value == 0.77


def test_leave_one_out_has_no_choice_when_a_pair_run_is_missing() -> None:
    assert select(leave_one_out_records()[:2], "leave-one-out") == []


def test_leave_one_out_skips_a_step_that_not_all_pair_runs_have() -> None:
    records = [*leave_one_out_records(0), *leave_one_out_records(10)[:2]]
    records[3]["env0_in_acc"] = 0.99
    records[4]["env1_in_acc"] = 1.0
    assert only(records, "leave-one-out").step == 0


def test_leave_one_out_matches_pair_runs_by_hparams_seed() -> None:
    records = [*leave_one_out_records(), record(0, (0,), seed=1), record(0, (0, 1), seed=1, env1_in_acc=1.0)]
    assert only(records, "leave-one-out").hparams_seed == 0


def test_pair_runs_alone_give_no_choice() -> None:
    for rule in RULES:
        assert select([record(0, (0, 1))], rule) == []


def test_last_of_duplicate_records_counts() -> None:
    records = [record(env0_in_acc=0.1), record(env0_in_acc=0.2)]
    for rule in ("training-domain", "oracle", "last"):
        assert only(records, rule).value == 0.2


def test_duplicate_record_does_not_empty_leave_one_out() -> None:
    records = leave_one_out_records()
    assert only([*records, records[0]], "leave-one-out").value == 0.77


@pytest.mark.parametrize("missing", [math.nan, None, "absent"])
def test_validation_that_is_no_number_never_wins(missing: Any) -> None:
    first = record(0, env1_out_acc=missing, env0_in_acc=0.9, domains=["A", "C", "P"])
    if missing == "absent":
        del first["env1_out_acc"]
    assert only([first, record(10, env0_in_acc=0.4, domains=["A", "C", "P"])], "training-domain").step == 10
    assert select([first], "training-domain") == []


def test_no_choice_when_the_test_value_is_not_finite() -> None:
    for rule in ("training-domain", "oracle", "last"):
        assert select([record(env0_in_acc=math.nan)], rule) == []


def test_hparams_are_chosen_for_each_predictor_apart() -> None:
    records = [
        record(seed=0, env1_out_acc=0.9),
        record(seed=1, env1_out_acc=0.1),
        record(seed=0, predictor="ERM[ema]", env1_out_acc=0.1),
        record(seed=1, predictor="ERM[ema]", env1_out_acc=0.9),
    ]
    seeds = {choice.algorithm: choice.hparams_seed for choice in select(records, "training-domain")}
    assert seeds == {"ERM": 0, "ERM[ema]": 1}


def test_backbones_datasets_domains_and_trials_are_kept_apart() -> None:
    records = [
        record(),
        record(backbone="tiny"),
        record(backbone="tiny", pretrained="other"),
        record(dataset="VLCS"),
        record(test=(1,)),
        record(trial_seed=1),
    ]
    assert len(select(records, "oracle")) == len(records)


def test_records_as_domainbed_writes_them_are_understood() -> None:
    args = {"dataset": "PACS", "algorithm": "ERM", "test_envs": [0], "trial_seed": 0, "hparams_seed": 3}
    choice = only([{"args": args, "step": 5, "env0_in_acc": 0.25, "env0_out_acc": 0.5, "env1_out_acc": 1.0}], "oracle")
    assert (choice.algorithm, choice.hparams_seed, choice.value) == ("ERM", 3, 0.25)


def test_unknown_rule_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'oracle'"):
        select([], "oracel")


def test_something_else_than_a_record_is_refused() -> None:
    with pytest.raises(SpecError, match="this is no record"):
        select([{"hello": 1}], "oracle")


accuracy = st.sampled_from([0.0, 0.25, 0.5, math.nan])
evaluation = st.fixed_dictionaries({f"env{i}_{split}_acc": accuracy for i in range(3) for split in ("in", "out")})
places = st.tuples(st.integers(0, 2), st.sampled_from([(0,), (1,), (0, 1), (0, 2)]), st.integers(0, 2))


@given(st.dictionaries(places, evaluation, max_size=14), st.sampled_from(RULES), st.randoms(use_true_random=False))
def test_order_of_records_does_not_matter(values: dict[Any, Any], rule: str, random: Any) -> None:
    records = [record(step, test, seed, **accuracies) for (step, test, seed), accuracies in values.items()]
    shuffled = random.sample(records, len(records))
    assert select(records, rule) == select(shuffled, rule)
