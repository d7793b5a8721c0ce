"""DomainBed's algorithms as ours, on a CLIP image tower: `--algorithms domainbed:CORAL --domainbed DIR`.

The algorithm is DomainBed's own class with its own `update`, optimizers and hparams registry; its featurizer is the
backbone's image tower, its classifier a linear one over the trial's classes. Batches, splits, evaluation and
checkpoints are CLIPBed's.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import os
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.algorithm import Algorithm, Minibatch, Predictor, Setup
from bench.domainbed import checkout
from bench.domainbed.checkout import PREFIX, Checkout
from bench.errors import BenchError, RunFailed, SpecError
from bench.hparams import Hparam
from bench.lazy import torch
from bench.seeds import seed_hash

if TYPE_CHECKING:
    from torch import Tensor

AUGMENTATION = Hparam(
    "domainbed",
    "DomainBed's (crop, flip, colour jitter, grey), CLIPood's (crop and flip), or none",
    choices=("domainbed", "clipood", "none"),
)
_OF_THE_HARNESS = {
    "data_augmentation": "the harness augments, see `augmentation`",
    "class_balanced": "the harness draws the batches",
    **dict.fromkeys(
        ("resnet18", "resnet50_augmix", "dinov2", "vit", "vit_attn_tune", "freeze_bn"),
        "the featurizer is the backbone's image tower",
    ),
}
"""Hparams of DomainBed's loaders and networks, which are not used here, and why."""


class Foreign(Algorithm):
    """An algorithm of DomainBed's; `find` makes the subclass of each.

    Its featurizer is a copy of the pre-trained image tower in eval mode, with dropout `resnet_dropout` on its features,
    which are not normalised; its classifier starts at random, so it starts at chance, and it cannot score classes that
    it was not trained on. Learning rates stay as its optimizers have them.

    Attributes:
        foreign: its name in DomainBed.
    """

    foreign: ClassVar[str] = ""
    starts_zero_shot = False
    hparams = {"augmentation": AUGMENTATION}
    steps = Hparam(5001, "updates (DomainBed's N_STEPS)", low=0, overrides={"tiny": 100})

    def __init__(self, setup: Setup) -> None:
        """Build DomainBed's class around the image tower.

        Raises:
            SpecError: no checkout is in use, or the algorithm needs what there is not.
        """
        super().__init__(setup)
        from bench.domainbed.featurizer import Predicting

        self.checkout = checkout.current() or checkout.use(None)
        size = self.backbone.image.size
        with torch.no_grad():
            probe = torch.zeros(1, 3, size, size, device=self.backbone.device)
            self.n_features = int(self.backbone.visual(probe).shape[1])
        kind = self.checkout.algorithm(self.foreign)
        values = {name: value for name, value in self.values.items() if name != "augmentation"}
        _seed_all(setup.run_seed)
        with self._ours_inside():
            self.method = kind((3, size, size), len(setup.class_names), len(setup.train), values)
        self.method.to(self.backbone.device)
        self._predicting = Predicting(self.method)

    @contextlib.contextmanager
    def _ours_inside(self) -> Iterator[None]:
        """Let DomainBed build our towers, and word the errors that come of it."""
        from bench.domainbed.featurizer import in_place_of

        networks = self.checkout.module("networks")
        explained = _explained(f"{PREFIX}{self.foreign}", self.backbone.device.type)
        with explained, in_place_of(networks, self.backbone.trainable_visual, self.n_features):
            yield

    def update(self, minibatches: list[Minibatch], unlabeled: list[Minibatch] | None = None) -> dict[str, Any]:
        """Make one update of DomainBed's; give the numbers that it logs.

        The random state of NumPy and Python is set by the step, as that of torch is by the train loop.
        """
        _seed_all(seed_hash(self.setup.run_seed, self.updates))
        labelled = [(batch.images, batch.labels) for batch in minibatches]
        self.method.train()
        with self._ours_inside():
            logs = self.method.update(labelled, [batch.images for batch in unlabeled] if unlabeled else None)
        self.updates += 1
        return {name: value for name, value in (logs or {}).items() if isinstance(value, (int, float, torch.Tensor))}

    def predictors(self, *, final: bool) -> Iterator[tuple[str, Predictor]]:
        """Yield its `predict`; what it draws depends on the step alone."""
        self._predicting.seed = seed_hash(self.setup.run_seed, self.updates, "predict")
        yield "", Predictor(self._predicting, self._logits)

    def _logits(self, logits: Tensor, class_names: tuple[str, ...]) -> Tensor:
        known = self.setup.class_names
        if class_names == known:
            return logits
        if not set(known).issuperset(class_names):
            raise SpecError(f"{PREFIX}{self.foreign} cannot be tested: {self.new_classes_problem(self.values)}")
        return logits[:, [known.index(name) for name in class_names]]

    @classmethod
    def new_classes_problem(cls, hparams: Mapping[str, Any]) -> str:
        """Say that its classifier has rows for the training classes alone."""
        return "DomainBed's classifier has no rows for classes that it was not trained on"

    def notes(self) -> list[str]:
        """Say whose code it is."""
        return [
            f"{PREFIX}{self.foreign} is DomainBed's own code ({self.checkout.digest}) on this backbone's image tower"
        ]

    def state_dict(self) -> dict[str, Any]:
        """Give DomainBed's object as it is, optimizers and all else that it keeps included."""
        from bench.domainbed.whole import to_bytes

        return {"updates": self.updates, "method": to_bytes(self.method)}

    def load_state_dict(self, state: Mapping[str, Any], *, own: bool = False) -> None:
        """Take back what `state_dict` gave."""
        from bench.domainbed.whole import from_bytes

        self.updates = int(state["updates"])
        self.method = self._predicting.method = from_bytes(state["method"], self.backbone.device)

    @classmethod
    def hparams_for(cls, dataset: str, hparams_seed: int, trial_seed: int) -> dict[str, Hparam]:
        """Declare its hparams for a data set, with the values of DomainBed's registry as defaults.

        Args:
            dataset: name of the data set; DomainBed has other values for some of its own.
            hparams_seed: 0 = its defaults, else its random draws for this seed and trial.
            trial_seed: trial.
        """
        used = checkout.current() or checkout.use(None)
        return {**cls.hparams, **_declared(used, cls.foreign, dataset, hparams_seed, trial_seed)}


def find(name: str) -> type[Foreign]:
    """Give the class of DomainBed's algorithm `name`, from the checkout in use or in the environment, if there is one.

    Raises:
        UnknownName: the checkout has no such algorithm.
        BenchError: it cannot be imported, or the algorithm cannot be built on an image tower.
    """
    return _made(name, checkout.current() or (checkout.use(None) if checkout.VARIABLE in os.environ else None))


@functools.cache
def _made(name: str, used: Checkout | None) -> type[Foreign]:
    hparams = dict(Foreign.hparams)
    if used is not None:
        used.algorithm(name)
        hparams |= _declared(used, name, "", 0, 0)
        _try_to_build(used, name)
    members = {
        "foreign": name,
        "hparams": hparams,
        "paper": f"see {name} in domainbed/algorithms.py",
        "__doc__": f"DomainBed's {name} on the image tower.\n\n{inspect.cleandoc(Foreign.__doc__ or '')}",
        "__module__": __name__,
    }
    return type(f"Foreign{name}", (Foreign,), members)


def _declared(used: Checkout, name: str, dataset: str, hparams_seed: int, trial_seed: int) -> dict[str, Hparam]:
    registry = used.module("hparams_registry")
    defaults = registry.default_hparams(name, dataset)
    drawn = registry.random_hparams(name, dataset, seed_hash(hparams_seed, trial_seed))
    values = drawn if hparams_seed else defaults
    return {key: _hparam(key, values[key], (defaults[key], drawn[key])) for key in defaults}


def _hparam(name: str, value: Any, both: tuple[Any, Any]) -> Hparam:
    """Declare one hparam by its value; it is a float where DomainBed's default or draw is one."""
    plain, *kinds = (each.item() if isinstance(each, np.generic) else each for each in (value, *both))
    if any(isinstance(each, float) for each in kinds) and isinstance(plain, int) and not isinstance(plain, bool):
        plain = float(plain)
    if name in _OF_THE_HARNESS:
        return Hparam(plain, f"not used: {_OF_THE_HARNESS[name]}", choices=(plain,))
    if name == "batch_size":
        return Hparam(plain, "images per domain and step (DomainBed's registry)", low=1)
    return Hparam(plain, "DomainBed's registry")


def _try_to_build(used: Checkout, name: str) -> None:
    """Build the algorithm around a tower of one layer, so that a refusal comes before anything is launched."""
    from bench.domainbed.featurizer import in_place_of

    values = used.module("hparams_registry").default_hparams(name, "")

    def tower() -> Any:
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 8))

    explained, silently = _explained(f"{PREFIX}{name}", "unknown"), contextlib.redirect_stdout(io.StringIO())
    with explained, silently, in_place_of(used.module("networks"), tower, 8):
        used.algorithm(name)((3, 32, 32), 3, 3, dict(values))


@contextlib.contextmanager
def _explained(name: str, device: str) -> Iterator[None]:
    """Word what an algorithm's code may stumble over.

    Args:
        name: the algorithm.
        device: type of the device; "unknown" where this machine need not be the one that trains.

    Raises:
        SpecError: it needs what there is not.
        RunFailed: it needs a GPU, and there is none.
    """
    try:
        yield
    except BenchError as error:
        raise type(error)(f"{name} cannot be trained on an image tower: {error}") from error
    except Exception as error:
        if not _wants_gpu(error):
            raise (_refusal(name, error) if device == "unknown" else error) from error.__cause__
        if device == "cpu":
            raise RunFailed(
                f"{name} asks for a GPU in its code ({_first_line(error)}), and this trial has none"
            ) from error
        if device != "unknown":
            raise


def _wants_gpu(error: Exception) -> bool:
    return any(word in str(error) for word in ("NVIDIA driver", "not compiled with CUDA", "No CUDA GPUs"))


def _refusal(name: str, error: Exception) -> SpecError:
    return SpecError(
        f"{name} cannot be built on an image tower ({type(error).__name__}: {_first_line(error)}); some algorithms need "
        "DomainBed's own networks or further modules, see docs/domainbed.md"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0]


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
