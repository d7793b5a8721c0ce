"""Planning: the order of trials, what is resolved, and every problem in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError, DataMissing, SpecError, UnknownName
from bench.plan import plan, weights_place
from bench.registry import algorithms, datasets
from bench.spec import Places
from bench.sweepfile import Sweep, load_sweep, sweep_files, with_options
from tests import fakes


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """The fakes, registered, and a data folder that holds them."""
    fakes.register(monkeypatch)
    (tmp_path / "Fake").mkdir()
    return Places(data_dir=str(tmp_path))


def sweep(**changes: Any) -> Sweep:
    return Sweep(**{"algorithms": ("FakeERM",), "datasets": ("Fake",), "n_trials": 1, **changes})


def specs(places: Places, **changes: Any) -> list[Any]:
    return [each.spec for each in plan([sweep(**changes)], places)]


def test_order_is_domainbeds(places: Places) -> None:
    planned = specs(places, algorithms=("FakeERM", "FakeZero"), datasets=("Fake", "FakeIcons"), n_trials=2, n_hparams=2)
    keys = [(s.trial_seed, s.dataset, s.algorithm, s.test_domains, s.hparams_seed) for s in planned]
    datasets, methods = ("Fake", "FakeIcons"), ("FakeERM", "FakeZero")
    expected = [
        (t, d, a, (e,), h) for t in range(2) for d in datasets for a in methods for e in range(3) for h in range(2)
    ]
    assert keys == expected


def test_defaults_hold_for_data_set_and_method(places: Places) -> None:
    spec = specs(places)[0]
    assert spec.hparams == {"lr": 2e-3, "batch_size": 4}
    assert (spec.steps, spec.evaluate_every, spec.pretrained) == (10, 5, "embedded")


def test_hparams_seed_draws_and_given_values_win(places: Places) -> None:
    drawn = specs(places, n_hparams=2)
    assert drawn[0].hparams["lr"] == 2e-3
    assert 1e-5 < drawn[1].hparams["lr"] < 1e-3
    assert specs(places, n_hparams=2, hparams={"lr": 0.5})[1].hparams["lr"] == 0.5


def test_n_hparams_from_leaves_out_the_first_seeds(places: Places) -> None:
    assert {spec.hparams_seed for spec in specs(places, n_hparams=4, n_hparams_from=2)} == {2, 3}


def test_given_hparam_goes_to_the_methods_that_have_it(places: Places) -> None:
    planned = specs(places, algorithms=("FakeERM", "FakeZero"), hparams={"lr": 0.5})
    assert [spec.hparams.get("lr") for spec in planned] == [0.5] * 3 + [None] * 3


def test_untrained_method_keeps_no_steps(places: Places) -> None:
    assert {spec.steps for spec in specs(places, algorithms=("FakeZero",), steps=500)} == {0}
    assert [spec.evaluate_every for spec in specs(places, steps=5000)] == [300] * 3


def test_pairs_add_what_leave_one_out_selection_needs(places: Places) -> None:
    held_out = [spec.test_domains for spec in specs(places, pairs=True)]
    assert held_out == [(0,), (0, 1), (0, 2), (1,), (1, 2), (2,)]


@pytest.mark.parametrize("asked", ["green", "GREEN", "1"])
def test_test_domains_by_name_or_index(places: Places, asked: str) -> None:
    assert [spec.test_domains for spec in specs(places, test_domains=(asked,))] == [(1,)]
    assert (0, 1) in [spec.test_domains for spec in specs(places, test_domains=(asked,), pairs=True)]


def test_identical_trials_are_planned_once(places: Places) -> None:
    assert len(plan([sweep(), sweep(n_trials=2)], places)) == 6


def test_every_problem_is_in_one_message(places: Places) -> None:
    with pytest.raises(BenchError) as caught:
        specs(places, algorithms=("FakeERN", "CLIPod"), datasets=("Fak", "Fake"), backbone="tinny")
    for part in ("'FakeERN'", "Did you mean 'FakeERM'", "'CLIPod'", "'CLIPood'", "'Fak'", "mean 'tiny'", "4 things"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "kind", "part"),
    [
        ({"hparams": {"lrr": 1.0}}, UnknownName, "Did you mean 'lr'"),
        ({"hparams": {"lr": -1.0}}, SpecError, "lr=-1.0 is out of its range 0.."),
        ({"hparams": {"lr": "high"}}, SpecError, "lr='high' must be of type float"),
        ({"steps": -3}, SpecError, "steps=-3 is out of its range"),
        ({"evaluate_every": 0}, SpecError, "evaluate_every=0"),
        ({"holdout_fraction": 1.0}, SpecError, "holdout_fraction=1.0"),
        ({"holdout_fraction": 0.01}, SpecError, "leaves no validation images of red"),
        ({"unlabeled": "uda"}, SpecError, "go together"),
        ({"test_domains": ("pink",)}, SpecError, "0 = red, 1 = green, 2 = blue"),
        ({"hparams": {"batch_size": 17}}, SpecError, "batch_size=17 is larger than env1_in of Fake (16 images)"),
        ({"protocol": "leave_one_domian_out"}, UnknownName, "leave_one_domain_out"),
        ({"pretrained": "./no.pt"}, DataMissing, "no weights file"),
        ({"pretrained": "openai"}, UnknownName, "tiny has no weights 'openai'"),
    ],
)
def test_bad_input_is_refused_with_a_hint(places: Places, changes: dict[str, Any], kind: type, part: str) -> None:
    with pytest.raises(kind) as caught:
        specs(places, **changes)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value), "one problem, one line"


@pytest.mark.parametrize("changes", [{"n_trials": 0}, {"n_hparams": 0}, {"n_hparams_from": 1}, {"algorithms": ()}])
def test_sweep_refuses_what_would_give_no_trials(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(changes))[:9]):
        sweep(**changes)


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"there is no folder .*Fake; get it from nowhere"):
        plan([sweep()], Places(data_dir=str(tmp_path.parent)))
    with pytest.raises(BenchError, match=r"--data-dir .*nowhere is no folder"):
        plan([sweep(datasets="FakeIcons")], Places(data_dir=str(tmp_path / "nowhere")))


def test_embedded_data_that_was_rendered_is_checked_though_nothing_may_be() -> None:
    with pytest.raises(SpecError, match="leaves no validation images"):
        plan([sweep(datasets="FakeIcons", holdout_fraction=0.01)], Places(), render=False)


def test_hparams_that_nothing_chooses_among_are_refused() -> None:
    with pytest.raises(SpecError, match="no labelled images to choose among 2 hparams seeds"):
        plan([sweep(datasets="FakeIcons", protocol="universal", options={"setting": "closed"}, n_hparams=2)], Places())


def test_embedded_data_is_left_alone_when_nothing_may_be_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes.FakeInfo, "load", lambda self, places: pytest.fail("was loaded"))
    monkeypatch.setattr(fakes.FakeInfo, "look", lambda self, places: None)
    assert len(plan([sweep(datasets="FakeIcons")], Places(), render=False)) == 3


def test_folder_is_named_in_the_spec_and_placed_in_places(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for domain in ("day", "night"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / domain / name).mkdir(parents=True)
            for index in range(10):
                image.new("RGB", (8, 8)).save(tmp_path / "pets" / domain / name / f"{index}.png")
    planned = plan([sweep(datasets=f"folder:{tmp_path / 'pets'}/")], Places())
    assert [each.spec.dataset for each in planned] == ["folder:pets"] * 2
    assert {each.places.folder for each in planned} == {str(tmp_path / "pets")}


def test_single_trials_are_checked_and_completed(places: Places) -> None:
    (planned,) = plan([fakes.make_spec(hparams={"lr": 0.1})], places)
    assert planned.spec.hparams == {"lr": 0.1, "batch_size": 4}
    with pytest.raises(UnknownName, match="FakeERM"):
        plan([fakes.make_spec(algorithm="FakeERN")], places)


def test_options_win_over_a_sweep_file() -> None:
    (changed,) = with_options([sweep(n_trials=3)], {"n_trials": 1, "steps": 7})
    assert isinstance(changed, Sweep)
    assert (changed.n_trials, changed.steps, changed.datasets) == (1, 7, ("Fake",))
    with pytest.raises(SpecError, match="--n-trials"):
        with_options([fakes.make_spec()], {"n_trials": 1})


def test_weights_are_a_file_when_they_look_like_one() -> None:
    assert weights_place("openai", Places()) == ("openai", Places())
    assert weights_place("w.pt", Places())[1].weights == str(Path("w.pt").resolve())


def test_sweep_file_is_read_by_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from bench.sweepfile import Sweep\n\ndef trials():\n    return Sweep(algorithms='FakeERM')\n")
    assert load_sweep(str(file)) == ("mine", [Sweep(algorithms=("FakeERM",))])


@pytest.mark.parametrize("text", ["import nothing_of_that_name", "x = 1", "def trials(:"])
def test_broken_sweep_file_is_a_user_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(SpecError, match=r"needs a function trials\(\)"):
        load_sweep(str(file))


def test_unknown_sweep_file_is_suggested() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'pacs_tiny'"):
        load_sweep("pacs_tinny")


@pytest.mark.parametrize("path", sweep_files(), ids=lambda path: path.stem)
def test_sweep_files_that_come_with_us_name_known_things(path: Path) -> None:
    from bench.registry import algorithms, datasets

    name, wanted = load_sweep(path.stem)
    assert name == path.stem
    for each in wanted:
        assert isinstance(each, Sweep)
        assert set(each.algorithms) <= set(algorithms)
        assert set(each.datasets) <= set(datasets)


class FakeUnlabeled(fakes.FakeMethod):
    """A method that trains on unlabelled images alone."""

    needs = frozenset({"unlabeled"})
    uses_labelled = False


class FakeClosed(fakes.FakeMethod):
    """A method that knows its training classes alone."""

    @classmethod
    def new_classes_problem(cls, hparams: Any) -> str:
        return "it has no rows for new classes"


@pytest.fixture
def methods(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes._extend(monkeypatch, algorithms, {"FakeUnlabeled": FakeUnlabeled, "FakeClosed": FakeClosed})


def test_options_of_the_protocol_are_settled(places: Places) -> None:
    planned = specs(places, options={"report": "all"}, metrics=("ece", "ece"))
    assert {(spec.options["report"], spec.metrics) for spec in planned} == {("all", ("ece",))}
    assert {spec.trial_id for spec in specs(places, options={"report": "in"})} == {
        spec.trial_id for spec in specs(places)
    }


@pytest.mark.parametrize(
    ("changes", "kind", "part"),
    [
        ({"options": {"shots": 4}}, UnknownName, "no option of the protocol leave_one_domain_out called 'shots'"),
        ({"options": {"report": "most"}}, SpecError, "report='most' must be one of 'in', 'out', 'all'"),
        ({"metrics": ("ecee",)}, UnknownName, "no metric 'ecee'. Did you mean 'ece'"),
        ({"metrics": ("auroc",)}, SpecError, "auroc needs images of unknown classes"),
        ({"transfer_to": ("FakeIcons",)}, SpecError, "leave_one_domain_out has no use for --transfer-to"),
        ({"protocol": "universal"}, SpecError, "universal needs the option --setting"),
        ({"protocol": "transfer"}, SpecError, "transfer needs --transfer-to"),
        ({"protocol": "transfer", "transfer_to": ("Fakey",)}, UnknownName, "no data set 'Fakey'"),
        ({"protocol": "base_to_new", "test_domains": ("red",)}, SpecError, "holds out no domain"),
        ({"protocol": "base_to_new", "pairs": True}, SpecError, "--pairs is for leave_one_domain_out"),
        ({"protocol": "in_the_wild", "algorithms": ("FakeClosed",)}, SpecError, "it has no rows for new classes"),
        (
            {"protocol": "base_to_new", "algorithms": ("FakeUnlabeled",), "options": {"shots": "all"}},
            None,
            "",
        ),
        (
            {"protocol": "transfer", "transfer_to": ("FakeIcons",), "algorithms": ("FakeUnlabeled",)},
            SpecError,
            "transfer has no unlabelled images, which FakeUnlabeled needs",
        ),
    ],
)
def test_every_bad_combination_has_one_clear_message(
    places: Places, methods: None, changes: dict[str, Any], kind: Any, part: str
) -> None:
    if kind is None:
        assert specs(places, **changes)
        return
    with pytest.raises(kind) as caught:
        specs(places, **changes)
    assert part in str(caught.value) and "things are wrong" not in str(caught.value)


def test_methods_that_need_labels_are_refused_where_there_are_none(
    places: Places, methods: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = fakes.FakeInfo(name="Six", **{**fakes.FAKE, "class_names": tuple("abcdef")})
    fakes._extend(monkeypatch, datasets, {"Six": info})
    common = {"datasets": ("Six",), "protocol": "universal", "options": {"setting": "open"}}
    with pytest.raises(SpecError, match="FakeERM trains on labelled images, and universal on Six has none") as caught:
        specs(places, algorithms=("FakeERM", "FakeZero", "FakeUnlabeled"), **common)
    assert "FakeZero" in str(caught.value) and "FakeClosed" not in str(caught.value)
    planned = specs(places, algorithms=("FakeZero", "FakeUnlabeled"), hparams={"batch_size": 2}, **common)
    assert [(spec.algorithm, spec.test_domains) for spec in planned] == [
        (name, (domain,)) for name in ("FakeZero", "FakeUnlabeled") for domain in range(3)
    ]


def test_few_shots_may_be_fewer_than_a_batch(places: Places) -> None:
    common = {"protocol": "base_to_new", "hparams": {"batch_size": 9}}
    assert specs(places, options={"shots": 1}, **common)
    with pytest.raises(SpecError, match="batch_size=9 is larger than env"):
        specs(places, options={"shots": "all"}, **common)


def test_file_lists_of_a_transfer_are_of_all_its_data_sets(places: Places) -> None:
    wanted = sweep(protocol="transfer", transfer_to=("FakeIcons",), hparams={"batch_size": 2})
    (planned,) = plan([wanted], places)
    assert len(planned.file_lists) == 6 and planned.spec.transfer_to == ("FakeIcons",)


def test_options_of_the_command_win_one_by_one() -> None:
    file = sweep(protocol="base_to_new", options={"shots": "4", "first_seed": 0})
    (changed,) = with_options([file], {"options": {"shots": "8"}})
    assert changed.options == {"shots": "8", "first_seed": 0}
    (other,) = with_options([file], {"protocol": "universal", "options": {"setting": "open"}})
    assert other.options == {"setting": "open"}
