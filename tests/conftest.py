"""Fixtures shared by all tests: the real data where it is present, and small set-ups to build methods from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests run beside each other
settings.register_profile("steady", deadline=None)  # a busy machine is no failure
settings.load_profile("steady")

CLASSES = ("dog", "guitar", "house")
N_IMAGES = 12
"""Images a domain in the synthetic set-up."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not on this machine")
    return folder


@pytest.fixture(scope="session")
def pretrained() -> Any:
    """The embedded backbone, loaded once; tests must not change it."""
    from bench.models import load_backbone
    from bench.spec import Places

    return load_backbone("tiny", "embedded", Places())


@pytest.fixture
def synthetic() -> SimpleNamespace:
    """Random images of three training domains and an unlabelled one, as views and tensors."""
    import torch

    from bench.protocols import View

    stream = np.random.default_rng(0)
    domains = []
    for domain in range(4):
        labels = np.arange(N_IMAGES) % len(CLASSES)
        view = View(f"env{domain}_in", domain, np.arange(N_IMAGES), labels, CLASSES)
        images = torch.from_numpy(stream.standard_normal((N_IMAGES, 3, 96, 96), dtype=np.float32))
        domains.append(SimpleNamespace(view=view, images=images))
    return SimpleNamespace(train=domains[:3], unlabeled=domains[3:])


@pytest.fixture
def make_setup(pretrained: Any, synthetic: SimpleNamespace) -> Callable[..., Any]:
    """Give a function (algorithm class, n_steps=…, **hparams) → Setup over the synthetic images."""
    import torch

    from bench.algorithm import AnchorPool, Setup
    from bench.hparams import resolve

    images = {id(domain.view): domain.images for domain in (*synthetic.train, *synthetic.unlabeled)}

    class Pool(AnchorPool):
        captions = [f"a drawing of thing number {i}" for i in range(20)]

        def __init__(self) -> None:
            self.data = torch.randn(20, 3, 96, 96, generator=torch.Generator().manual_seed(5))

        def features(self) -> torch.Tensor:
            with torch.no_grad():
                return pretrained.visual(self.data).float()

        def images(self, indices: torch.Tensor) -> torch.Tensor:
            return self.data[indices]

    def features(view: Any) -> torch.Tensor:
        with torch.no_grad():
            return pretrained.visual(images[id(view)]).float()

    def make(algorithm: Any, *, n_steps: int = 4, dataset: str = "PACS", **hparams: Any) -> Setup:
        values = resolve(
            algorithm.hparams, dataset=dataset, backbone="tiny", hparams_seed=0, trial_seed=0, given=hparams
        )
        return Setup(
            backbone=pretrained,
            class_names=CLASSES,
            train=tuple(domain.view for domain in synthetic.train),
            unlabeled=tuple(domain.view for domain in synthetic.unlabeled),
            domain_names=("A", "C", "P"),
            templates=("a photo of a {}.",),
            hparams=values,
            n_steps=n_steps,
            run_seed=1,
            features=features,
            captions=lambda view: [
                f"a picture of a {view.class_names[label]}, number {i}" for i, label in enumerate(view.labels)
            ],
            pool=Pool,
        )

    return make


@pytest.fixture
def make_batches(synthetic: SimpleNamespace) -> Callable[[int], tuple[list[Any], list[Any]]]:
    """Give a function step → (labelled minibatches, unlabelled minibatches) over the synthetic images."""
    import torch

    from bench.algorithm import Minibatch

    def batch(domain: SimpleNamespace, step: int, *, labelled: bool) -> Minibatch:
        stream = np.random.default_rng([domain.view.domain, step])
        positions = torch.from_numpy(stream.integers(0, N_IMAGES, 4))
        labels = torch.from_numpy(domain.view.labels)[positions] if labelled else torch.full((4,), -1)
        return Minibatch(domain.images[positions], labels, positions)

    def make(step: int) -> tuple[list[Minibatch], list[Minibatch]]:
        labelled = [batch(domain, step, labelled=True) for domain in synthetic.train]
        return labelled, [batch(domain, step, labelled=False) for domain in synthetic.unlabeled]

    return make


@pytest.fixture(scope="session")
def small_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real files: three domains, two classes, 20 images each of several sizes and formats."""
    from PIL import Image

    root = tmp_path_factory.mktemp("images") / "toy"
    stream = np.random.default_rng(3)
    for d, domain in enumerate(("drawn", "painted", "photo")):
        for c, name in enumerate(("cat", "sports_car")):
            (root / domain / name).mkdir(parents=True)
            for i in range(20):
                height, width = int(stream.integers(60, 180)), int(stream.integers(60, 180))
                pixels = stream.integers(0, 120, (height, width, 3)) + 40 * d + (90 if c else 0) * np.array([1, 0, 0])
                picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                picture.save(root / domain / name / f"{i:03d}.{'png' if i % 2 else 'jpg'}")
    return root


@pytest.fixture
def small_dataset(small_images: Path) -> Any:
    """The data set in `small_images`."""
    from bench.dataset import Dataset, read_domain

    names = ("drawn", "painted", "photo")
    domains = tuple(read_domain(name, small_images, name, ("cat", "sports_car")) for name in names)
    return Dataset("toy", ("cat", "sports car"), domains)


@pytest.fixture
def toy(small_images: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The data set in `small_images`, registered as "toy" for the length of a test."""
    from bench.dataset import Dataset, DatasetInfo, read_domain
    from bench.registry import datasets

    class Toy(DatasetInfo):
        def load(self, places: Any) -> Dataset:
            root = Path(places.data_dir) if places.data_dir else small_images
            domains = tuple(read_domain(name, root, name, ("cat", "sports_car")) for name in self.domains)
            return Dataset("toy", ("cat", "sports car"), domains)

    info = Toy(
        name="toy",
        summary="random images",
        source="made in the test",
        licence="none",
        citation="none",
        domains=("drawn", "painted", "photo"),
        class_names=("cat", "sports car"),
    )
    "toy" in datasets  # noqa: B015 - loads the plug-ins, so that the patch below is all that is undone
    monkeypatch.setitem(datasets._entries, "toy", info)
    monkeypatch.setitem(datasets._origins, "toy", "conftest")
    return info


@pytest.fixture
def make_run(toy: Any, tmp_path: Path) -> Callable[..., Any]:
    """Give a function (algorithm, **fields of the spec or hparams) → a fresh Run on the data set "toy"."""
    import dataclasses

    from bench.hparams import resolve
    from bench.registry import algorithms
    from bench.spec import Places, TrialSpec
    from bench.store import Run

    fields = {field.name for field in dataclasses.fields(TrialSpec)}

    def make(algorithm: str, *, sweep: str = "sweep", data_dir: str | None = None, **given: Any) -> Run:
        kind = algorithms[algorithm]
        hparams = {name: value for name, value in given.items() if name in kind.hparams or name not in fields}
        chosen = {name: value for name, value in given.items() if name not in hparams}
        if "batch_size" in kind.hparams:
            hparams.setdefault("batch_size", 4)
        values = resolve(kind.hparams, dataset="toy", backbone="tiny", hparams_seed=0, trial_seed=0, given=hparams)
        spec = TrialSpec(
            **{
                "protocol": "leave_one_domain_out",
                "protocol_version": 1,
                "dataset": "toy",
                "algorithm": algorithm,
                "test_domains": (2,),
                "backbone": "tiny",
                "pretrained": "embedded",
                "trial_seed": 0,
                "hparams_seed": 0,
                "hparams": values,
                "steps": min(4, kind.steps.default_for("toy", "tiny")),
                "evaluate_every": 2,
                **chosen,
            }
        )
        return Run.create(tmp_path / sweep, spec, Places(data_dir=data_dir, cache=str(tmp_path / "cache")))

    return make
