"""Our methods as DomainBed's algorithms, on a stand-in of its checkout; its own train.py, run as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.algorithm import Minibatch
from bench.domainbed import checkout
from bench.domainbed.__main__ import main
from bench.domainbed.ours import IMAGENET_MEAN, IMAGENET_STD, Renormalise, Setting, register
from bench.errors import SpecError
from bench.images import Normalise
from bench.records import load
from bench.registry import algorithms
from bench.seeds import seed_hash
from tests import domainbed_stand_in
from tests.conftest import CLASSES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """DomainBed's modules `algorithms` and `hparams_registry`, with our methods in them."""
    monkeypatch.setattr(checkout, "_current", None)
    used = checkout.use(domainbed_stand_in.write(tmp_path / "DomainBed"))
    modules = SimpleNamespace(algorithms=used.module("algorithms"), registry=used.module("hparams_registry"))
    modules.names = register(modules.algorithms, modules.registry, Setting(class_names=CLASSES, n_steps=4))
    return modules


def build(theirs: Any, name: str, size: int = 96, **hparams: Any) -> Any:
    values = {**theirs.registry.default_hparams(name, "PACS"), **hparams}
    return theirs.algorithms.get_algorithm_class(name)((3, size, size), len(CLASSES), 3, values)


def column(values: Any) -> torch.Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def as_domainbed_gives_it(images: torch.Tensor, pretrained: Any) -> torch.Tensor:
    """Turn images normalised for the backbone into what DomainBed's loader would give."""
    pixels = images * column(pretrained.image.std) + column(pretrained.image.mean)
    return (pixels - column(IMAGENET_MEAN)) / column(IMAGENET_STD)


def test_normalisation_is_undone_and_redone(pretrained: Any) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 96, 96), dtype=np.uint8))
    theirs = (pixels / 255 - column(IMAGENET_MEAN)) / column(IMAGENET_STD)  # torchvision's ToTensor and Normalize
    ours = Normalise(pretrained.image, torch.device("cpu"))(pixels)
    assert torch.allclose(Renormalise(pretrained)(theirs), ours, atol=2e-6)


def test_images_of_another_size_are_resized(pretrained: Any) -> None:
    grey = torch.full((2, 3, 224, 224), 0.25)
    seen = Renormalise(pretrained)((grey - column(IMAGENET_MEAN)) / column(IMAGENET_STD))
    wanted = (0.25 - column(pretrained.image.mean)) / column(pretrained.image.std)
    assert seen.shape == (2, 3, 96, 96) and torch.allclose(seen, wanted.expand_as(seen), atol=1e-5)


def test_methods_are_registered_beside_theirs(theirs: Any) -> None:
    assert {"CLIPBed_ZeroShot", "CLIPBed_ERM", "CLIPBed_CLIPood", "CLIPBed_WiSE-FT"} <= set(theirs.names)
    assert not {"CLIPBed_UEO", "CLIPBed_ARF"} & set(theirs.names)  # they need what DomainBed's loop has not
    assert theirs.algorithms.ALGORITHMS[:2] == ["ERM", "Twin"] and "CLIPBed_ERM" in theirs.algorithms.ALGORITHMS
    assert theirs.algorithms.get_algorithm_class("ERM").__module__ == "domainbed.algorithms"
    assert issubclass(theirs.algorithms.get_algorithm_class("CLIPBed_CLIPood"), theirs.algorithms.Algorithm)


def test_hparams_come_by_domainbeds_registry(theirs: Any) -> None:
    defaults = theirs.registry.default_hparams("CLIPBed_CLIPood", "OfficeHome")
    declared = algorithms["CLIPood"].hparams
    assert defaults["margin_lambda"] == 0.3 and defaults["lr"] == declared["lr"].default_for("OfficeHome", "tiny")
    assert defaults["class_balanced"] is False  # theirs, which its train.py reads
    assert "augmentation" not in defaults
    drawn = theirs.registry.random_hparams("CLIPBed_CLIPood", "OfficeHome", 5)
    assert drawn["lr"] == 10 ** np.random.RandomState(seed_hash(5, "lr")).uniform(-6, -4)
    assert drawn["average"] == "bma"
    assert "margin_lambda" not in theirs.registry.default_hparams("ERM", "OfficeHome")


@pytest.mark.parametrize("name", ["CLIPood", "ERM", "WiSE-FT"])
def test_a_method_does_there_what_it_does_here(
    theirs: Any, pretrained: Any, make_setup: Callable[..., Any], make_batches: Callable[..., Any], name: str
) -> None:
    here = algorithms[name](make_setup(algorithms[name], n_steps=4))
    there = build(theirs, f"CLIPBed_{name}")
    probe = torch.linspace(-1, 1, 2 * 3 * 96 * 96).view(2, 3, 96, 96)
    seen = as_domainbed_gives_it(probe, pretrained)
    for step in range(2):
        batches: list[Minibatch] = make_batches(step)[0]
        ours = here.update(batches)
        logs = there.update([(as_domainbed_gives_it(b.images, pretrained), b.labels) for b in batches], None)
        assert logs["loss"] == pytest.approx(float(ours["loss"]), rel=1e-3)
        assert all(type(value) is float for value in logs.values())
    assert torch.allclose(there.predict(seen), here.predict(probe), atol=0.05)  # logits are 100 times cosines


def test_a_method_that_is_not_trained_is_only_evaluated(theirs: Any) -> None:
    zero_shot = build(theirs, "CLIPBed_ZeroShot", size=64)
    images = torch.zeros(2, 3, 64, 64)
    before = zero_shot.predict(images)
    assert zero_shot.update([(images, torch.zeros(2, dtype=torch.int64))] * 3) == {}
    assert torch.equal(zero_shot.predict(images), before) and before.shape == (2, 3)


def test_its_checkpoints_bring_a_method_back(theirs: Any, make_batches: Callable[..., Any], tmp_path: Path) -> None:
    def batch(step: int) -> Any:
        return [(batch.images, batch.labels) for batch in make_batches(step)[0]]

    one = build(theirs, "CLIPBed_CLIPood", lr=1e-3)
    one.update(batch(0))
    torch.save({"model_dict": one.state_dict()}, tmp_path / "model.pkl")
    other = build(theirs, "CLIPBed_CLIPood", lr=1e-3)
    other.load_state_dict(torch.load(tmp_path / "model.pkl", weights_only=False)["model_dict"])
    probe = torch.zeros(2, 3, 96, 96)
    assert torch.equal(other.predict(probe), one.predict(probe)) and other.method.updates == 1
    assert other.update(batch(1)) == one.update(batch(1))  # the optimizer came back too
    assert torch.equal(other.predict(probe), one.predict(probe))


def test_towers_stay_in_eval_mode(theirs: Any) -> None:
    one = build(theirs, "CLIPBed_ERM")
    one.eval()
    one.train()
    assert one.training and not any(module.training for module in one.parts["tower"].modules())


def test_what_does_not_fit_is_said(theirs: Any) -> None:
    with pytest.raises(SpecError, match="2 class names for 3 classes"):
        build(theirs, "CLIPBed_ERM", class_names=["a", "b"])
    with pytest.raises(SpecError, match="three channels"):
        theirs.algorithms.get_algorithm_class("CLIPBed_ERM")((1, 28, 28), 3, 3, {})
    with pytest.raises(SpecError, match=r"alpha|margin"):
        build(theirs, "CLIPBed_CLIPood", margin="none at all")
    named = build(theirs, "CLIPBed_ZeroShot", class_names=["whale", "wasp", "wall"])
    images = torch.linspace(-1, 1, 3 * 96 * 96).view(1, 3, 96, 96)
    assert not torch.equal(named.predict(images), build(theirs, "CLIPBed_ZeroShot").predict(images))


def runner(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.domainbed", "train", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_its_own_train_py_trains_our_method(small_images: Path, tmp_path: Path) -> None:
    folder = str(domainbed_stand_in.write(tmp_path / "DomainBed"))
    output = tmp_path / "sweep" / "run"
    data = ("--dataset", "Toy", "--data_dir", str(small_images.parent), "--test_envs", "2")
    method = ("--algorithm", "CLIPBed_CLIPood", "--hparams", '{"batch_size": 2, "lr": 1e-4}', "--steps", "2")
    done = runner(tmp_path, "--domainbed", folder, "--workers", "0", "--", *method, *data, "--output_dir", str(output))
    assert done.returncode == 0, done.stderr
    assert "class names: cat, sports car; 2 steps; tiny" in done.stdout
    (record,) = load(tmp_path / "sweep").records
    assert record["algorithm"] == "CLIPBed_CLIPood" and record["step"] == 1 and record["n_workers"] == 0
    assert 0 <= record["env2_in_acc"] <= 1 and record["loss"] > 0
    assert (output / "model.pkl").stat().st_size > 1e6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--domainbed DIR"),
        (("--domainbed", "DomainBed", "--", "--dataset", "Toi"), "Did you mean 'Toy'"),
        (("--domainbed", "DomainBed", "--", "--dataset", "Toy"), "--data_dir"),
        (("--domainbed", "DomainBed", "--", "--dataset", "Toy", "--data_dir", "nowhere"), "Toy is not in --data_dir"),
        (("--domainbed", "DomainBed", "--", "--dataset", "Bare", "--data_dir", "."), "say what the labels mean"),
        (
            ("--domainbed", "DomainBed", "--", "--dataset", "Bare", "--hparams", '{"class_names": ["a", "b"]}'),
            "Did you mean 'CLIPBed_ERM'",
        ),
    ],
)
def test_the_runner_says_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.delenv(checkout.VARIABLE, raising=False)
    monkeypatch.setattr(checkout, "_current", None)
    domainbed_stand_in.write(tmp_path / "DomainBed")
    monkeypatch.chdir(tmp_path)
    further = (*arguments, "--algorithm", "CLIPBed_ERN") if "--" in arguments else arguments
    assert main(["train", *further]) == 2
    err = capsys.readouterr().err
    assert err.startswith("domainbed: ") and words in err
