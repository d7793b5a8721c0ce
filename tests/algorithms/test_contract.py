"""What every registered algorithm must do; new ones are picked up from the registry."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.algorithm import EVALUATION_HPARAMS, Algorithm
from bench.hparams import Hparam, resolve
from bench.registry import algorithms
from bench.seeds import seed_hash

NAMES = list(algorithms)
CLASSES = ("dog", "guitar", "house")
N_STEPS = 4

Build = Callable[..., Algorithm]
Train = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def build(make_setup: Callable[..., Any]) -> Build:
    """Build the algorithm of a name as the harness does: torch is seeded with the run seed first."""

    def make(name: str, *, n_steps: int = N_STEPS, run_seed: int = 1, **hparams: Any) -> Algorithm:
        setup = make_setup(algorithms[name], n_steps=n_steps, **hparams)
        torch.manual_seed(run_seed)
        algorithm: Algorithm = algorithms[name](setup)
        return algorithm

    return make


@pytest.fixture
def train(make_batches: Callable[[int], tuple[list[Any], list[Any]]]) -> Train:
    """Make updates up to step `until` as the harness does: torch is seeded by the step before each."""

    def run(algorithm: Algorithm, until: int) -> list[dict[str, Any]]:
        logs = []
        for step in range(algorithm.updates, min(until, _most_steps(type(algorithm)))):
            labelled, unlabeled = make_batches(step)
            torch.manual_seed(seed_hash(algorithm.setup.run_seed, step))
            labelled = labelled if algorithm.uses_labelled else []
            logs.append(algorithm.update(labelled, unlabeled if "unlabeled" in algorithm.needs else None))
        return logs

    return run


@dataclass(frozen=True)
class Trained:
    """An algorithm after N_STEPS updates, what it logged, and its logits before. Not to be trained further."""

    algorithm: Algorithm
    logs: list[dict[str, Any]]
    before: Tensor


@pytest.fixture(scope="module")
def trained_before() -> dict[str, Trained]:
    return {}


@pytest.fixture
def trained(build: Build, train: Train, images: Tensor, trained_before: dict[str, Trained]) -> Callable[[str], Trained]:
    """Give the algorithm of a name trained to the end, once for all tests that only look at it."""

    def get(name: str) -> Trained:
        if name not in trained_before:
            algorithm = build(name)
            before = algorithm.predict(images)
            trained_before[name] = Trained(algorithm, train(algorithm, N_STEPS), before)
        return trained_before[name]

    return get


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, 3, 96, 96, generator=torch.Generator().manual_seed(7))


def _most_steps(algorithm: type[Algorithm]) -> int:
    """A method that is not trained says so by the range of its steps."""
    return 10**6 if algorithm.steps.high is None else int(algorithm.steps.high)


def _zero_shot(build: Build, algorithm: Algorithm) -> Algorithm:
    prompt = {"prompt": algorithm.values["prompt"]} if "prompt" in algorithm.values else {}
    return build("ZeroShot", **prompt)


def _all_logits(algorithm: Algorithm, images: Tensor, *, final: bool) -> dict[str, Tensor]:
    logits = {}
    with torch.no_grad():
        for label, predictor in algorithm.predictors(final=final):
            assert label not in logits
            tower = predictor.tower or algorithm.backbone.visual
            logits[label] = predictor.head(tower(images).float(), CLASSES).clone()
    return logits


def _assert_same(one: Any, other: Any, place: str = "state") -> None:
    assert type(one) is type(other), place
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            _assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), place
        for i, pair in enumerate(zip(one, other, strict=True)):
            _assert_same(*pair, f"{place}[{i}]")
    else:
        assert one == other, place


def test_every_plug_in_can_be_imported() -> None:
    assert algorithms.broken == {}


@pytest.mark.parametrize("name", NAMES)
def test_declaration_is_complete(name: str) -> None:
    algorithm = algorithms[name]
    assert issubclass(algorithm, Algorithm)
    assert algorithm.paper and algorithm.__doc__
    assert "--algorithms" in algorithm.__doc__, "the docstring lacks the command that runs the method"
    assert "eval_precision" in algorithm.hparams
    declared = {"steps": algorithm.steps, **algorithm.hparams}
    assert all(isinstance(hparam, Hparam) and hparam.help for hparam in declared.values())
    if algorithm.steps.default:
        assert {"augmentation", "precision", "batch_size"} <= algorithm.hparams.keys(), "the harness reads these"
    else:
        assert EVALUATION_HPARAMS.keys() <= algorithm.hparams.keys()


@pytest.mark.parametrize("name", NAMES)
def test_random_draws_are_in_range_for_many_seeds(name: str) -> None:
    declared = algorithms[name].hparams
    for seed in range(300):
        values = resolve(declared, dataset="PACS", backbone="tiny", hparams_seed=seed, trial_seed=seed % 3)
        assert values == resolve(declared, dataset="PACS", backbone="tiny", hparams_seed=seed, trial_seed=seed % 3)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_in_range_for_every_override(name: str) -> None:
    algorithm = algorithms[name]
    places = {key for hparam in (algorithm.steps, *algorithm.hparams.values()) for key in hparam.overrides}
    for place in places | {"PACS"}:
        for backbone in ("tiny", "ViT-B-16"):
            resolve(algorithm.hparams, dataset=place, backbone=backbone, hparams_seed=0, trial_seed=0)
            assert algorithm.steps.problem("steps", algorithm.steps.default_for(place, backbone)) is None


@pytest.mark.parametrize("name", NAMES)
def test_updates_give_finite_scalars(name: str, trained: Callable[[str], Trained]) -> None:
    logs = trained(name).logs
    assert len(logs) == trained(name).algorithm.updates == min(N_STEPS, _most_steps(algorithms[name]))
    for log in logs:
        assert log and all(isinstance(key, str) for key in log)
        for value in map(torch.as_tensor, log.values()):
            assert value.numel() == 1 and value.isfinite() and not value.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_training_changes_the_predictions(name: str, trained: Callable[[str], Trained], images: Tensor) -> None:
    run = trained(name)
    assert torch.equal(run.algorithm.predict(images), run.before) is not bool(run.logs)


@pytest.mark.parametrize("name", NAMES)
def test_one_update_in_bf16_is_finite(name: str, build: Build, train: Train, images: Tensor) -> None:
    if "precision" not in algorithms[name].hparams:
        pytest.skip("it is not trained")
    algorithm = build(name, precision="bf16")
    train(algorithm, 1)
    logits = algorithm.predict(images)
    assert logits.dtype == torch.float32 and logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_the_same_bits_however_often_it_is_evaluated(
    name: str, build: Build, train: Train, trained: Callable[[str], Trained], images: Tensor
) -> None:
    algorithm, logs = build(name), []
    for step in range(1, N_STEPS + 1):
        logs += train(algorithm, step)
        algorithm.predict(images)
    _assert_same(logs, trained(name).logs, "logs")
    _assert_same(algorithm.state_dict(), trained(name).algorithm.state_dict())
    assert torch.equal(algorithm.predict(images), trained(name).algorithm.predict(images))


@pytest.mark.parametrize("name", NAMES)
def test_resume_from_a_checkpoint_is_bit_exact(
    name: str, build: Build, train: Train, trained: Callable[[str], Trained], images: Tensor
) -> None:
    first, second, straight = build(name), build(name), trained(name).algorithm
    train(first, 2)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.updates == first.updates
    train(second, N_STEPS)
    _assert_same(second.state_dict(), straight.state_dict())
    resumed, expected = (_all_logits(each, images, final=True) for each in (second, straight))
    _assert_same(resumed, expected)


@pytest.mark.parametrize("name", NAMES)
def test_predictors_give_logits_of_every_class(name: str, trained: Callable[[str], Trained], images: Tensor) -> None:
    algorithm = trained(name).algorithm
    state = copy.deepcopy(algorithm.state_dict())
    main, every = _all_logits(algorithm, images, final=False), _all_logits(algorithm, images, final=True)
    _assert_same(algorithm.state_dict(), state)
    assert next(iter(main)) == next(iter(every)) == ""
    assert main.keys() <= every.keys()
    for logits in every.values():
        assert logits.shape == (len(images), 3) and logits.dtype == torch.float32 and logits.isfinite().all()
    assert torch.equal(algorithm.predict(images), main[""])
    assert not algorithm.predict(images).requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_logits_follow_the_order_of_the_class_names(
    name: str, trained: Callable[[str], Trained], images: Tensor
) -> None:
    algorithm = trained(name).algorithm
    turned = algorithm.predict(images, ("house", "dog", "guitar"))
    torch.testing.assert_close(turned, algorithm.predict(images)[:, [2, 0, 1]], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_pre_trained_towers_are_left_alone(name: str, build: Build, train: Train, pretrained: Any) -> None:
    towers = {"visual": pretrained.visual, "text": pretrained.text}
    before = copy.deepcopy({key: dict(tower.state_dict()) for key, tower in towers.items()})
    train(build(name), 1)
    _assert_same({key: dict(tower.state_dict()) for key, tower in towers.items()}, before)
    for tower in towers.values():
        assert not tower.training
        assert all(value.grad is None and not value.requires_grad for value in tower.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_step_0_predicts_as_zero_shot_where_it_says_so(name: str, build: Build, images: Tensor) -> None:
    algorithm = build(name)
    if not algorithm.starts_zero_shot:
        pytest.skip("it does not start from zero-shot")
    expected = _zero_shot(build, algorithm).predict(images)
    for label, logits in _all_logits(algorithm, images, final=False).items():
        assert torch.equal(logits.argmax(dim=1), expected.argmax(dim=1)), label
        # The same sums in another order: float32 rounding of scale * cos is all that may differ.
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
