"""Trials are named by all that decides their result, and by nothing else."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import SpecError
from bench.spec import Places, TrialSpec, read_line, whole_text

BASE: dict[str, object] = {
    "protocol": "leave_one_domain_out",
    "protocol_version": 1,
    "dataset": "PACS",
    "algorithm": "ERM",
    "test_domains": (0,),
    "backbone": "tiny",
    "pretrained": "embedded",
    "trial_seed": 0,
    "hparams_seed": 0,
    "hparams": {"lr": 5e-5, "batch_size": 12, "augmentation": "clipood"},
    "steps": 100,
    "evaluate_every": 50,
}
CHANGES: dict[str, dict[str, object]] = {
    **{name: {name: "other"} for name in ("protocol", "dataset", "algorithm", "backbone", "pretrained")},
    **{name: {name: "file:0123456789abcdef"} for name in ("captions", "pool")},
    **{name: {name: 7} for name in ("protocol_version", "trial_seed", "hparams_seed", "steps", "evaluate_every")},
    "test_domains": {"test_domains": (0, 1)},
    "hparams": {"hparams": {"lr": 6e-5, "batch_size": 12, "augmentation": "clipood"}},
    "holdout_fraction": {"holdout_fraction": 0.3},
    "unlabeled": {"unlabeled": "in"},
    "uda_holdout_fraction": {"unlabeled": "uda", "uda_holdout_fraction": 0.5},
    "evaluate": {"evaluate": "all"},
    "skip_bad_images": {"skip_bad_images": True},
    "options": {"options": {"setting": "open"}},
    "metrics": {"metrics": ("ece",)},
    "transfer_to": {"transfer_to": ("VLCS",)},
    "domainbed": {"domainbed": "0" * 16},
}


def spec(**changes: object) -> TrialSpec:
    return TrialSpec(**{**BASE, **changes})


scalars = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.none()
)
specs = st.builds(
    spec,
    dataset=st.text(min_size=1),
    algorithm=st.text(min_size=1),
    test_domains=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True).map(tuple),
    trial_seed=st.integers(0, 100),
    hparams_seed=st.integers(0, 100),
    hparams=st.dictionaries(st.text(), scalars, max_size=5),
    steps=st.integers(0, 10**6),
    evaluate_every=st.integers(1, 10**6),
    holdout_fraction=st.floats(0.01, 0.99),
)


@given(specs)
def test_spec_survives_json(made: TrialSpec) -> None:
    again = TrialSpec.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made and again.trial_id == made.trial_id
    assert read_line(made.line) == made.to_json() and whole_text(made.line) == made.to_text()


@given(specs, st.randoms(use_true_random=False))
def test_trial_id_does_not_depend_on_the_order_of_keys(made: TrialSpec, random) -> None:
    value = made.to_json()
    items, hparams = list(value.items()), list(value["hparams"].items())
    random.shuffle(items)
    random.shuffle(hparams)
    assert TrialSpec.from_json({**dict(items), "hparams": dict(hparams)}).trial_id == made.trial_id


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(TrialSpec)])
def test_trial_id_changes_with_each_field(field: str) -> None:
    assert spec(**CHANGES[field]).trial_id != spec().trial_id


@given(specs, specs)
def test_equal_trials_have_equal_ids_and_others_do_not(one: TrialSpec, other: TrialSpec) -> None:
    assert (one.trial_id == other.trial_id) == (one.to_json() == other.to_json())


def test_trial_id_does_not_depend_on_optional_fields_left_at_their_defaults() -> None:
    """So a field that a later version adds renames no trial of an earlier one."""
    explicit = spec(holdout_fraction=0.2, unlabeled="out", uda_holdout_fraction=0.0, evaluate="selection", captions="")
    assert explicit.trial_id == spec().trial_id


def test_trial_id_is_the_same_for_ever() -> None:
    assert spec().trial_id == "29f6458651b9fa00"


def test_whole_numbers_and_floats_of_one_value_are_one_trial() -> None:
    assert spec(uda_holdout_fraction=0).trial_id == spec(uda_holdout_fraction=0.0).trial_id
    assert spec(test_domains=[0]).trial_id == spec(test_domains=(0,)).trial_id


def test_run_seed_is_domainbeds() -> None:
    assert spec().run_seed == 94828300
    made = spec(dataset="VLCS", test_domains=(1, 2), hparams_seed=1)
    assert made.run_seed == 360234358


def test_all_problems_are_in_one_message() -> None:
    with pytest.raises(SpecError) as caught:
        spec(
            steps=-1,
            evaluate_every=0,
            trial_seed=-2,
            holdout_fraction=1.0,
            unlabeled="all",
            evaluate="none",
            test_domains=(1, 1),
        )
    for part in (
        "steps=-1",
        "evaluate_every=0",
        "trial_seed=-2",
        "holdout_fraction=1.0",
        "unlabeled='all'",
        "evaluate='none'",
        "(1, 1)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("changes", [{"unlabeled": "uda"}, {"uda_holdout_fraction": 0.5}])
def test_uda_split_and_its_fraction_go_together(changes: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="go together"):
        spec(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, r"unknown fields \['colour'\], missing fields \[\]"),
        ({"steps": None}, "no trial of this version"),
        ({"test_domains": ["x"]}, "no trial of this version"),
        ({"test_domains": 3}, "no trial of this version"),
        ({"hparams": [1]}, "no trial of this version"),
    ],
)
def test_foreign_spec_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        TrialSpec.from_json({**spec().to_json(), **changes})


def test_missing_fields_are_named() -> None:
    value = spec().to_json()
    del value["steps"], value["dataset"]
    with pytest.raises(SpecError, match=r"missing fields \['dataset', 'steps'\]"):
        TrialSpec.from_json(value)


def test_fields_with_defaults_may_be_absent() -> None:
    value = spec().to_json()
    del value["evaluate"]
    assert TrialSpec.from_json(value) == spec()


def test_spec_keeps_its_own_copy_of_the_hparams() -> None:
    hparams = {"lr": 0.1}
    made = spec(hparams=hparams)
    hparams["lr"] = 0.2
    assert made.hparams == {"lr": 0.1}


def test_places_survive_json_and_forget_what_they_do_not_know() -> None:
    places = Places(data_dir="/data", cache="/cache")
    assert Places.from_json({**places.to_json(), "new": 1}) == places
    assert "weights" not in places.to_json()
