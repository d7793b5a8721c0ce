"""CLIPBed's methods as DomainBed's algorithms, for its own `scripts/train.py`.

    import domainbed.algorithms, domainbed.hparams_registry
    from bench.domainbed.ours import Setting, register

    register(domainbed.algorithms, domainbed.hparams_registry, Setting(class_names=("dog", "elephant"), n_steps=5001))

or, with class names and number of steps read from its arguments, `python -m bench.domainbed train`. The loop, the
batches, the augmentation and the evaluation are then DomainBed's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.algorithm import Algorithm, Minibatch, Setup
from bench.dataset import DEFAULT_TEMPLATES
from bench.errors import SpecError
from bench.hparams import Hparam, resolve
from bench.lazy import functional, torch
from bench.models import Backbone, load_backbone
from bench.protocols import View
from bench.registry import algorithms
from bench.seeds import legacy_stream
from bench.spec import Places

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "CLIPBed_"
"""What the names of our methods begin with in DomainBed, which has an ERM of its own."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""What DomainBed normalises its images by (`datasets.py`)."""

_OF_THE_LOOP = ("augmentation", "eval_precision")
"""Hparams of ours that the train loop reads; DomainBed's loop does not."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a method must know and DomainBed does not tell an algorithm.

    Attributes:
        class_names: words for the classes, in the order of the labels.
        n_steps: updates that will be made; schedules and averages depend on it.
        dataset: name of the data set, for defaults.
        templates: prompt templates.
        backbone, pretrained: as in `sweep launch`.
        weights: file of pre-trained weights, where `pretrained` names one.
    """

    class_names: tuple[str, ...]
    n_steps: int
    dataset: str = ""
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    backbone: str = "tiny"
    pretrained: str = "embedded"
    weights: str | None = field(default=None, repr=False)


def register(domainbed_algorithms: Any, hparams_registry: Any, setting: Setting) -> tuple[str, ...]:
    """Put our methods into DomainBed's registry, each as "CLIPBed_" and its name; give these names.

    Methods that need unlabelled images, captions or an anchor pool are left out: DomainBed's loop has none of them as
    these methods want them.

    Args:
        domainbed_algorithms: DomainBed's module `algorithms`.
        hparams_registry: DomainBed's module `hparams_registry`; for our names it then knows our hparams as well.
        setting: what DomainBed does not tell an algorithm.
    """
    methods = {PREFIX + name: algorithms[name] for name in algorithms if not algorithms[name].needs}
    for name, method in methods.items():
        setattr(domainbed_algorithms, name, _adapted(domainbed_algorithms.Algorithm, name, method, setting))
        if name not in domainbed_algorithms.ALGORITHMS:
            domainbed_algorithms.ALGORITHMS.append(name)
    _add_hparams(hparams_registry, methods, setting)
    return tuple(methods)


def _add_hparams(registry: Any, methods: Mapping[str, type[Algorithm]], setting: Setting) -> None:
    """Let DomainBed's registry give our defaults and draws; its own common ones, which its loop reads, stay."""
    before = registry._hparams

    def extended(algorithm: str, dataset: str, random_seed: int) -> dict[str, tuple[Any, Any]]:
        """Stand in for `hparams_registry._hparams`."""
        found: dict[str, tuple[Any, Any]] = before(algorithm, dataset, random_seed)
        declared: Mapping[str, Hparam] = methods[algorithm].hparams if algorithm in methods else {}
        for name, hparam in declared.items():
            if name not in _OF_THE_LOOP:
                default = hparam.default_for(dataset, setting.backbone)
                drawn = hparam.draw(legacy_stream(random_seed, name)) if hparam.draw else default
                found[name] = (default, drawn)
        return found

    registry._hparams = extended


class _Missing:
    """Something that DomainBed's loop does not have; asking for it says so."""

    def __init__(self, name: str, what: str) -> None:
        self._message = f"{name} asks for {what}, which DomainBed's loop does not have: train it with bench.sweep"

    def __call__(self, *asked: object) -> Any:
        raise SpecError(self._message)


class Renormalise:
    """Images as DomainBed gives them → as a backbone takes them.

    ImageNet's normalisation is undone, the image resized (bicubic, with anti-aliasing) if the backbone wants another
    size, and the backbone's normalisation applied.
    """

    def __init__(self, backbone: Backbone) -> None:
        """Take size and normalisation of `backbone`."""
        self.size = backbone.image.size
        self._undo = (_column(IMAGENET_STD, backbone), _column(IMAGENET_MEAN, backbone))
        self._redo = (_column(backbone.image.std, backbone), _column(backbone.image.mean, backbone))

    def __call__(self, images: Tensor) -> Tensor:
        """Give (B, 3, S, S) for `images` (B, 3, H, W)."""
        pixels = images * self._undo[0] + self._undo[1]
        if tuple(pixels.shape[-2:]) != (self.size, self.size):
            resized = functional.interpolate(pixels, size=(self.size, self.size), mode="bicubic", antialias=True)
            pixels = resized.clamp(0, 1)
        return (pixels - self._redo[1]) / self._redo[0]


def _column(values: Sequence[float], backbone: Backbone) -> Tensor:
    return torch.tensor(values, device=backbone.device).view(1, 3, 1, 1)


def _setup(
    name: str, setting: Setting, hparams: Mapping[str, Any], n_domains: int, class_names: Sequence[str]
) -> Setup:
    """Make what a method is built from; its views have no images, since DomainBed's loader has them."""
    import numpy as np

    method = algorithms[name.removeprefix(PREFIX)]
    given = {key: value for key, value in hparams.items() if key in method.hparams and key not in _OF_THE_LOOP}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as train.py chooses it
    empty = np.zeros(0, dtype=np.int64)
    names = tuple(map(str, class_names))
    places = Places(weights=setting.weights)
    return Setup(
        backbone=load_backbone(setting.backbone, setting.pretrained, places).to(device),
        class_names=names,
        train=tuple(View(f"train{i}", i, empty, empty, names) for i in range(n_domains)),
        unlabeled=(),
        domain_names=tuple(f"domain {i}" for i in range(n_domains)),
        templates=setting.templates,
        hparams=resolve(
            method.hparams,
            dataset=setting.dataset,
            backbone=setting.backbone,
            hparams_seed=0,
            trial_seed=0,
            given=given,
        ),
        n_steps=setting.n_steps,
        run_seed=0,
        features=_Missing(name, "features of the frozen tower by position"),
        captions=_Missing(name, "captions"),
        pool=_Missing(name, "an anchor pool"),
    )


def _check(name: str, input_shape: Sequence[int], num_classes: int, class_names: Sequence[str]) -> None:
    if len(input_shape) != 3 or input_shape[0] != 3:
        raise SpecError(f"{name} takes images of three channels, this data set has the shape {tuple(input_shape)}")
    if len(class_names) != num_classes:
        raise SpecError(
            f"{name} got {len(class_names)} class names for {num_classes} classes; give all of them, in the order of the "
            "labels: --hparams '{\"class_names\": [...]}'"
        )


def _adapted(base: Any, name: str, method: type[Algorithm], setting: Setting) -> Any:
    """Make the subclass of DomainBed's `Algorithm` that is `method`."""

    class Ours(base):  # type: ignore[misc]
        """A method of CLIPBed's; tracked parts and optimizer are in its state."""

        def __init__(
            self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: Mapping[str, Any]
        ) -> None:
            super().__init__(input_shape, num_classes, num_domains, hparams)
            class_names = hparams.get("class_names", setting.class_names)
            _check(name, input_shape, num_classes, class_names)
            self.method = method(_setup(name, setting, hparams, num_domains, class_names))
            self.seen = Renormalise(self.method.backbone)
            parts = {key: part for key, part in self.method._tracked.items() if isinstance(part, torch.nn.Module)}
            self.parts = torch.nn.ModuleDict(parts)

        def update(
            self, minibatches: Sequence[tuple[Tensor, Tensor]], unlabeled: Sequence[Tensor] | None = None
        ) -> dict[str, float]:
            """Make one update; a method that is not trained makes none."""
            if method.steps.high == 0:
                return {}
            batches = [Minibatch(self.seen(x), y, torch.full_like(y, -1)) for x, y in minibatches]
            logs = self.method.update(batches)
            return {key: float(value) for key, value in logs.items()}

        def predict(self, x: Tensor) -> Tensor:
            """Give the logits (B, K) of the main predictor."""
            return self.method.predict(self.seen(x))

        def train(self, mode: bool = True) -> Ours:
            """Leave towers in eval mode, as everywhere in CLIPBed."""
            self.training = mode
            return self

        def get_extra_state(self) -> dict[str, Any]:
            """Give what is no module: optimizer, number of updates."""
            state = self.method.state_dict()
            return {**state, "parts": {key: part for key, part in state["parts"].items() if key not in self.parts}}

        def set_extra_state(self, state: Mapping[str, Any]) -> None:
            """Take it back; torch loads the modules after this."""
            modules = {key: part.state_dict() for key, part in self.parts.items()}
            self.method.load_state_dict({**state, "parts": {**state["parts"], **modules}})

    Ours.__name__ = Ours.__qualname__ = name
    Ours.__doc__ = f"CLIPBed's {name.removeprefix(PREFIX)} on {setting.backbone}.\n\n{method.__doc__}"
    return Ours
