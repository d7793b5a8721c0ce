"""DomainBed's algorithms in our loop, on a stand-in of its checkout; on a real one where CLIPBED_DOMAINBED names it."""

from __future__ import annotations

import io
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.domainbed import checkout
from bench.domainbed.foreign import Foreign, find
from bench.domainbed.whole import from_bytes, to_bytes
from bench.errors import BenchError, Conflict, DataMissing, SpecError, UnknownName
from bench.job import run_trial
from bench.plan import plan
from bench.registry import algorithms
from bench.seeds import seed_hash
from bench.spec import Places
from bench.store import Run
from bench.sweep import main
from bench.sweepfile import Sweep
from tests import domainbed_stand_in

CPU = torch.device("cpu")
REAL = os.environ.get(checkout.VARIABLE)


@pytest.fixture(autouse=True)
def no_checkout(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin and end without a checkout in use."""
    monkeypatch.delenv(checkout.VARIABLE, raising=False)
    monkeypatch.setattr(checkout, "_current", None)
    yield
    checkout._current = None


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> checkout.Checkout:
    """A checkout in use, which the environment names too."""
    folder = domainbed_stand_in.write(tmp_path / "DomainBed")
    monkeypatch.setenv(checkout.VARIABLE, str(folder))
    return checkout.use(folder)


def results(run: Run) -> bytes:
    return (run.folder / "results.jsonl").read_bytes()


def trial(make_run: Callable[..., Run], used: checkout.Checkout, name: str, **given: Any) -> Run:
    return make_run(f"domainbed:{name}", domainbed=used.digest, **given)


def test_an_algorithm_trains_and_is_recorded(make_run: Callable[..., Run], stand_in: checkout.Checkout) -> None:
    one = trial(make_run, stand_in, "ERM", steps=16, evaluate_every=8, batch_size=6, augmentation="none")
    assert run_trial(str(one.folder), device="cpu") == "done", one.error()
    first, middle, last = one.records()[0]
    assert (first["step"], middle["step"], last["step"]) == (0, 8, 16)
    assert first["algorithm"] == first["predictor"] == "domainbed:ERM"
    assert first["domainbed"] == stand_in.digest
    assert any("DomainBed's own code" in note for note in first["notes"])
    assert last["loss"] < 0.8 * middle["loss"]  # the two classes differ in colour


@pytest.mark.parametrize("moment", [1, 3])
def test_a_killed_trial_goes_on_to_the_bit(
    make_run: Callable[..., Run], stand_in: checkout.Checkout, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """With several optimizers, one of them replaced on the way, and state outside of all modules."""
    given = {"evaluate_every": 4, "batch_size": 2, "resnet_dropout": 0.1}
    whole, cut = (trial(make_run, stand_in, "Twin", sweep=name, **given) for name in ("whole", "cut"))
    assert run_trial(str(whole.folder), device="cpu") == "done", whole.error()
    update = Foreign.update

    def update_and_signal(self: Any, *given: Any) -> Any:
        if self.updates == moment - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Foreign, "update", update_and_signal)
        assert run_trial(str(cut.folder), device="cpu") == "pending"
    assert torch.load(cut.checkpoint_path, weights_only=True)["step"] == moment
    np.random.seed(1)  # whatever this process did in between
    torch.manual_seed(1)
    assert run_trial(str(cut.folder), device="cpu") == "done", cut.error()
    assert results(cut) == results(whole)


def test_a_resumed_algorithm_keeps_its_parts_shared(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], stand_in: checkout.Checkout
) -> None:
    kind = find("Twin")
    setup = make_setup(kind, batch_size=4)
    one, other = kind(setup), kind(setup)
    for step in range(3):
        one.update(make_batches(step)[0])
    other.load_state_dict(one.state_dict())
    assert other.updates == 3 and other.method.count == 3
    weights = {id(parameter) for parameter in other.method.network.parameters()}
    assert {id(each) for group in other.method.optimizer.param_groups for each in group["params"]} == weights
    probe = torch.ones(2, 3, 96, 96)
    assert torch.equal(one.predict(probe), other.predict(probe))
    torch.manual_seed(0)
    logs = one.update(make_batches(3)[0])
    torch.manual_seed(0)
    assert other.update(make_batches(3)[0]) == logs
    assert torch.equal(one.predict(probe), other.predict(probe))


def test_the_tower_stays_in_eval_mode_and_the_shared_one_untouched(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], stand_in: checkout.Checkout
) -> None:
    kind = find("ERM")
    setup = make_setup(kind, batch_size=4, lr=1e-3)
    before = {name: value.clone() for name, value in setup.backbone.visual.state_dict().items()}
    one = kind(setup)
    one.update(make_batches(0)[0])
    assert one.method.training and not any(module.training for module in one.method.featurizer.tower.modules())
    assert all(torch.equal(value, before[name]) for name, value in setup.backbone.visual.state_dict().items())
    assert stand_in.module("networks").Featurizer.__module__ == "domainbed.networks"  # theirs again


def test_hparams_are_those_of_its_registry(stand_in: checkout.Checkout) -> None:
    kind = find("Twin")
    defaults = {name: hparam.default for name, hparam in kind.hparams_for("PACS", 0, 2).items()}
    assert defaults.pop("augmentation") == "domainbed"
    assert defaults == stand_in.module("hparams_registry").default_hparams("Twin", "PACS")
    assert kind.hparams_for("ColoredMNIST", 0, 0)["lr"].default == 1e-3
    drawn = {name: hparam.default for name, hparam in kind.hparams_for("PACS", 3, 2).items()}
    theirs = stand_in.module("hparams_registry").random_hparams("Twin", "PACS", seed_hash(3, 2))
    assert {name: drawn[name] for name in theirs} == theirs
    assert all(type(value) in (int, float, bool, str) for value in drawn.values())
    # tau is the whole number 1 by default and a fraction when drawn: fractions may be given
    assert kind.hparams["tau"].problem("tau", 0.5) is None
    assert kind.hparams["class_balanced"].problem("class_balanced", True)


def planned(places: Places, **fields: Any) -> list[Any]:
    fields = {"algorithms": ("domainbed:Twin",), "datasets": ("toy",), "n_trials": 1, "test_domains": ("0",), **fields}
    return [each.spec for each in plan([Sweep(**fields)], places)]


def test_plan_names_the_code_and_resolves_hparams(toy: Any, tmp_path: Path) -> None:
    folder = domainbed_stand_in.write(tmp_path / "DomainBed")
    places = Places(domainbed=str(folder))
    hparams = {"batch_size": 8, "n_meta": 1}
    (default,) = planned(places, hparams=hparams)
    (_, drawn) = planned(places, hparams=hparams, n_hparams=2)
    assert default.domainbed == checkout.use(folder).digest and len(default.domainbed) == 16
    assert default.steps == 100 and default.hparams["n_meta"] == 1 and default.hparams["lr"] == 5e-5
    assert (
        drawn.hparams["lr"]
        == checkout.use(folder).module("hparams_registry").random_hparams("Twin", "toy", seed_hash(1, 0))["lr"]
    )
    (folder / "domainbed" / "algorithms.py").write_text(
        (folder / "domainbed" / "algorithms.py").read_text().replace("momentum=0.9", "momentum=0.5")
    )
    (changed,) = planned(places, hparams=hparams)
    assert changed.trial_id != default.trial_id and changed.domainbed != default.domainbed


def test_places_are_no_part_of_the_trial(toy: Any, tmp_path: Path) -> None:
    one, other = (domainbed_stand_in.write(tmp_path / name) for name in ("one", "other"))
    hparams = {"batch_size": 8}
    (first,), (second,) = (planned(Places(domainbed=str(each)), hparams=hparams) for each in (one, other))
    assert first == second and first.trial_id == second.trial_id


def test_old_trials_keep_their_ids() -> None:
    from tests.fakes import make_spec

    assert make_spec().trial_id == make_spec(domainbed="").trial_id != make_spec(domainbed="1" * 16).trial_id


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, SpecError, "--domainbed DIR"),
        ({"domainbed": "nowhere"}, DataMissing, "is no checkout of DomainBed"),
        ({"algorithms": ("domainbed:Twim",)}, UnknownName, "Did you mean 'Twin'"),
        ({"algorithms": ("domainbed:Context",)}, SpecError, "featurizer of 4 channels"),
        ({"algorithms": ("domainbed:Own",)}, SpecError, "cannot be built on an image tower"),
        ({"protocol": "base_to_new", "test_domains": ()}, SpecError, "no rows for classes"),
        ({"hparams": {"class_balanced": True}}, SpecError, "class_balanced=True must be one of False"),
        ({"hparams": {"taw": 0.5}}, UnknownName, "Did you mean 'tau'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    toy: Any, tmp_path: Path, given: dict[str, Any], error: type[BenchError], words: str
) -> None:
    folder = domainbed_stand_in.write(tmp_path / "DomainBed")
    places = Places(domainbed=given.pop("domainbed", str(folder)) if given else None)
    with pytest.raises(error, match=words):
        planned(places, **{"hparams": {"batch_size": 4}, **given})


def test_a_missing_module_is_named(toy: Any, tmp_path: Path) -> None:
    folder = domainbed_stand_in.write(tmp_path / "DomainBed")
    path = folder / "domainbed" / "networks.py"
    path.write_text("import no_such_module\n" + path.read_text())
    with pytest.raises(DataMissing, match="needs the Python module 'no_such_module'"):
        planned(Places(domainbed=str(folder)))
    path.write_text("1 / 0")
    with pytest.raises(BenchError, match="ZeroDivisionError"):
        planned(Places(domainbed=str(folder)))


def test_the_command_ends_with_a_message(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["launch", "--algorithms", "domainbed:CORAL", "--datasets", "toy", "--output-dir", str(tmp_path)]
    assert main([*given, "--dry-run"]) == 2
    assert "git clone https://github.com/facebookresearch/DomainBed" in capsys.readouterr().err


def test_other_code_than_the_trials_is_refused(make_run: Callable[..., Run], stand_in: checkout.Checkout) -> None:
    one = make_run("domainbed:ERM", domainbed="0" * 16)
    assert run_trial(str(one.folder), device="cpu") == "failed"
    assert "was launched with 0000000000000000" in one.status()["error"] and "Traceback" not in (one.error() or "")


def test_a_gpu_that_is_not_there_is_named(make_run: Callable[..., Run], stand_in: checkout.Checkout) -> None:
    one = trial(make_run, stand_in, "OnGPU")
    assert run_trial(str(one.folder), device="cpu") == "failed"
    assert one.status()["error"].startswith("domainbed:OnGPU asks for a GPU in its code")


def test_a_name_can_be_looked_up_without_a_checkout() -> None:
    kind = algorithms["domainbed:Anything"]  # e.g. to prepare the data of its trials
    assert kind.needs == frozenset() and kind.uses_labelled
    assert kind.new_classes_problem({})
    with pytest.raises(UnknownName):
        algorithms["nobody:Anything"]


def test_another_checkout_takes_the_place_of_the_first(tmp_path: Path) -> None:
    one, other = (domainbed_stand_in.write(tmp_path / name) for name in ("one", "other"))
    first = checkout.use(one).module("algorithms")
    second = checkout.use(other).module("algorithms")
    assert Path(first.__file__).is_relative_to(one) and Path(second.__file__).is_relative_to(other)


def test_a_package_of_the_same_name_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (domainbed_stand_in.write(tmp_path / name) for name in ("one", "other"))
    used = checkout.use(one)
    monkeypatch.syspath_prepend(str(other))
    import sys

    for name in [each for each in sys.modules if each.partition(".")[0] == "domainbed"]:
        del sys.modules[name]
    import domainbed.networks  # type: ignore[import-not-found]  # noqa: F401

    with pytest.raises(Conflict, match="take that one"):
        used.module("networks")


class Villain:
    """Runs a command when it is read."""

    def __reduce__(self) -> Any:
        return os.system, ("echo gotcha",)


def test_a_checkpoint_builds_nothing_but_networks_and_optimizers(capfd: pytest.CaptureFixture[str]) -> None:
    buffer = io.BytesIO()
    torch.save({"method": Villain()}, buffer)
    with pytest.raises(ValueError, match=r"posix\.system does not belong"):
        from_bytes(torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8), CPU)
    assert "gotcha" not in capfd.readouterr().out
    with pytest.raises(pickle.UnpicklingError):
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


def test_a_whole_object_keeps_what_it_shares() -> None:
    layer = torch.nn.Linear(2, 2)
    thing = {"layer": layer, "same": layer, "weight": layer.weight, "numbers": [np.float64(0.5), {1, 2}]}
    back = from_bytes(to_bytes(thing), CPU)
    assert back["layer"] is back["same"] and back["weight"] is back["layer"].weight
    assert back["numbers"] == [0.5, {1, 2}]


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="CLIPBED_DOMAINBED names no checkout of DomainBed")
@pytest.mark.parametrize("name", ["CORAL", "MTL", "GroupDRO", "Fish", "URM"])
def test_real_algorithms_resume_to_the_bit(
    make_setup: Callable[..., Any], make_batches: Callable[..., Any], name: str
) -> None:
    checkout.use(REAL)
    kind = find(name)
    setup = make_setup(kind, batch_size=4)
    torch.manual_seed(1)
    whole = kind(setup)
    torch.manual_seed(1)
    cut = kind(setup)
    for step in range(3):
        torch.manual_seed(step)
        whole.update(make_batches(step)[0])
    for step in range(3):
        torch.manual_seed(step)
        cut.update(make_batches(step)[0])
        resumed = kind(setup)
        resumed.load_state_dict(cut.state_dict())
        cut = resumed
    probe = torch.linspace(-1, 1, 2 * 3 * 96 * 96).view(2, 3, 96, 96)
    assert torch.equal(whole.predict(probe), cut.predict(probe))


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="CLIPBED_DOMAINBED names no checkout of DomainBed")
@pytest.mark.parametrize(("name", "words"), [("ARM", "4 channels"), ("Nothing", "there is no algorithm of DomainBed")])
def test_real_refusals(name: str, words: str) -> None:
    checkout.use(REAL)
    with pytest.raises(BenchError, match=words):
        find(name)
