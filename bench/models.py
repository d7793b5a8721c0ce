"""Backbones: open_clip's models and the embedded `tiny`, their text towers, and zero-shot text heads.

Torch and open_clip are imported when a model is loaded, not before, so that `sweep list backbones` answers at once.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import files
from bench._paths import PACKAGE
from bench.errors import Conflict, DataMissing, SpecError, UnknownName
from bench.lazy import functional, torch
from bench.registry import backbones, unknown_name
from bench.spec import Places

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.derived import Derived

RANDOM = "random"
"""Tag of randomly initialised weights, always the same ones: for tests and measurements."""

SELECTED_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""CoOp's `IMAGENET_TEMPLATES_SELECT`, from OpenAI's prompt-engineering notebook."""


@dataclass(frozen=True)
class BackboneInfo:
    """What `sweep list backbones` shows of a backbone, and its default weights."""

    name: str
    default_pretrained: str
    summary: str
    licence: str
    image_size: int


TINY = BackboneInfo(
    "tiny",
    "embedded",
    "EfficientNet-lite0 at 96 px and a 4-layer text tower, 11 M parameters; weights ship with CLIPBed (docs/tiny.md)",
    "Apache-2.0 (weights; attributions in docs/tiny.md)",
    96,
)
backbones.add(TINY.name, TINY)
backbones.add(
    "ViT-B-16",
    BackboneInfo("ViT-B-16", "openai", "CLIP ViT-B/16, the reference of the papers; 150 M parameters", "MIT", 224),
)
backbones.add("ViT-B-32", BackboneInfo("ViT-B-32", "openai", "CLIP ViT-B/32; 151 M parameters", "MIT", 224))
backbones.add("ViT-L-14", BackboneInfo("ViT-L-14", "openai", "CLIP ViT-L/14; 428 M parameters", "MIT", 224))
backbones.add("RN50", BackboneInfo("RN50", "openai", "CLIP ResNet-50, UEO's default; 102 M parameters", "MIT", 224))


@dataclass(frozen=True)
class ImageSpec:
    """How a backbone wants its images.

    Attributes:
        size: side of the square input in pixels.
        mean, std: normalisation of RGB in 0..1.
        interpolation: "bicubic" or "bilinear", of the evaluation transform.
        resize: "shortest" (side to `size`, then centre crop) or "squash" (aspect ratio not kept).
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize: str = "shortest"


class Backbone:
    """A pre-trained dual encoder.

    Attributes:
        name, pretrained: as in the spec.
        visual: the pre-trained image tower, frozen, in eval mode: (B, 3, H, W) → (B, d).
        text: the pre-trained text tower, frozen.
        image: how it wants its images.
        scale: exp(logit_scale): 100 for OpenAI's CLIP.
        digest: sixteen digits of the SHA-256 of all weights.
        device: where it lies.
        derived: where `once` keeps what it computes; None = nowhere.
    """

    def __init__(self, name: str, pretrained: str, model: nn.Module, image: ImageSpec, tokenizer: Any) -> None:
        """Take an open_clip model apart.

        Raises:
            SpecError: its text tower is not of a kind that is supported.
        """
        from bench.depthwise import train_small_maps_fast
        from bench.text_tower import text_tower
        from bench.vision_tower import vision_tower

        self.name = name
        self.pretrained = pretrained
        self.image = image
        self.digest = _digest(model)
        self.scale = float(model.logit_scale.detach().exp())  # type: ignore[operator]
        self.device = torch.device("cpu")
        self.derived: Derived | None = None
        self._lower_visual: nn.Module | None = None
        self._tokenizer = tokenizer
        self.visual: nn.Module = vision_tower(model.visual).eval().requires_grad_(False)  # type: ignore[arg-type]
        self.text = text_tower(model).eval().requires_grad_(False)
        if sum(isinstance(module, torch.nn.Conv2d) for module in self.visual.modules()) > 1:
            self.visual.to(memory_format=torch.channels_last)  # pays for CNNs; a ViT has the patch convolution alone
            train_small_maps_fast(self.visual)

    def to(self, device: torch.device) -> Backbone:
        """Move both towers."""
        self.device = device
        self.visual.to(device)
        self.text.to(device)
        return self

    def trainable_visual(self) -> nn.Module:
        """Give a copy of the image tower to train; it stays in eval mode, so batch-norm statistics are frozen."""
        return copy.deepcopy(self.visual).requires_grad_(True)

    def trainable_text(self) -> nn.Module:
        """Give a copy of the text tower to train."""
        return copy.deepcopy(self.text).requires_grad_(True)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Give token ids (n, L) of `texts`, on the backbone's device; too long ones are cut."""
        return self.tokens(texts).to(self.device)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Give token ids (n, L) of `texts` on the CPU, where looking at them makes nobody wait."""
        tokens: Tensor = self._tokenizer(list(texts))
        return tokens

    @property
    def context_length(self) -> int:
        """Most tokens of a text; what is longer is cut."""
        return int(self._tokenizer([""]).shape[1])

    def encode_text(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Give the frozen text features (n, d), not normalised."""

        def encode() -> Tensor:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                parts = [self.text(self.tokenize(texts[i : i + batch])) for i in range(0, len(texts), batch)]
            return torch.cat(parts).float()

        return self.once("text", [self.name, batch, *texts], encode)

    def encode_images(self, images: Tensor, precision: str = "fp32") -> Tensor:
        """Give the frozen features (B, d) float32 of normalised images (B, 3, S, S), not normalised.

        Args:
            images: as the image tower wants them.
            precision: with "bf16" a copy of the tower with weights in bf16 gives them; autocast of frozen weights, which
                it casts anew in every step, is several times slower.
        """
        if precision == "bf16" and self._lower_visual is None:
            self._lower_visual = copy.deepcopy(self.visual).to(torch.bfloat16)
        tower = self._lower_visual if precision == "bf16" else self.visual
        assert tower is not None
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            features: Tensor = tower(images.to(torch.bfloat16) if precision == "bf16" else images)
        return features.float()

    def once(self, kind: str, parts: Sequence[Tensor | str | float], compute: Callable[[], Tensor]) -> Tensor:
        """Give what follows from `parts` and the pre-trained weights; computed once for all trials where it is kept.

        Args:
            kind: what it is, e.g. "text".
            parts: all that decides it beside the weights.
            compute: makes it; float or integer, on this backbone's device.
        """
        if self.derived is None:
            return compute()
        contents = [part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else part for part in parts]
        decides = [self.digest, self.device.type, torch.__version__, *contents]
        found = self.derived.array(kind, decides, lambda: compute().cpu().numpy())
        return torch.from_numpy(found).to(self.device)


class TextHead:
    """Zero-shot classifier: logits = scale * cos(image feature, text feature of the class).

    The text feature of a class is the normalised mean of its normalised prompts (CLIP, section 3.1.4); with one template
    that is the normalised prompt itself.
    """

    def __init__(
        self, backbone: Backbone, templates: Sequence[str], encode: Callable[..., Tensor] | None = None
    ) -> None:
        """Take the frozen text tower, or another encoder of texts → (n, d)."""
        self.backbone = backbone
        self.templates = templates if isinstance(templates, Prompts) else tuple(templates)
        self._encode = encode or backbone.encode_text
        self._known: dict[tuple[tuple[str, ...], tuple[str, ...]], Tensor] = {}

    def weights(self, class_names: tuple[str, ...]) -> Tensor:
        """Give the unit rows (K, d) for `class_names`; kept, since they never change."""
        templates = self._templates_for(class_names)
        if (class_names, templates) not in self._known:
            texts = [template.format(name) for name in class_names for template in templates]
            self._refuse_cut(class_names, texts[:: len(templates)])
            with torch.autocast(self.backbone.device.type, enabled=False):  # they are kept, so never in bf16
                rows = functional.normalize(self._encode(texts).float(), dim=-1)
            if len(templates) > 1:
                rows = functional.normalize(rows.view(len(class_names), len(templates), -1).mean(dim=1), dim=-1)
            self._known[class_names, templates] = rows
        return self._known[class_names, templates]

    def _refuse_cut(self, class_names: tuple[str, ...], texts: Sequence[str]) -> None:
        """Refuse class names that are equal as far as the text tower reads them."""
        limit = self.backbone.context_length
        long = [place for place, text in enumerate(texts) if len(text) > limit]  # others cannot be cut
        seen: dict[tuple[int, ...], str] = {}
        for place, tokens in zip(long, self.backbone.tokens([texts[each] for each in long]).tolist() if long else ()):
            other = seen.setdefault(tuple(tokens), class_names[place])
            if other != class_names[place]:
                raise SpecError(
                    f"{self.backbone.name} reads {len(tokens)} tokens of a prompt, and as far as that the class names "
                    f"{other!r} and {class_names[place]!r} are the same; shorten them"
                )

    def _templates_for(self, class_names: tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(class_names, ClassNames) and isinstance(self.templates, Prompts):
            return prompt_templates(self.templates.prompt, class_names.templates)
        return self.templates

    def __call__(self, features: Tensor, class_names: tuple[str, ...]) -> Tensor:
        """Give logits (B, K) for image features (B, d)."""
        return self.backbone.scale * functional.normalize(features, dim=-1) @ self.weights(class_names).T


class ClassNames(tuple[str, ...]):
    """Class names of another data set than the one that is trained on, with its own prompt templates.

    Equal to the plain tuple of the names; prompts that were made by `prompt_templates` take its templates instead of
    those of the data set that is trained on.
    """

    templates: tuple[str, ...]

    def __new__(cls, names: Sequence[str], templates: Sequence[str]) -> ClassNames:
        """Bind names and templates."""
        made = super().__new__(cls, names)
        made.templates = tuple(templates)
        return made


class Prompts(tuple[str, ...]):
    """Prompt templates that remember the hparam `prompt` that asked for them."""

    prompt: str


def prompt_templates(prompt: str, templates: Sequence[str]) -> Prompts:
    """Give the templates that the hparam `prompt` asks for, with the data set's own `templates`."""
    chosen = tuple(templates)
    if prompt == "ensemble7":
        chosen = (*SELECTED_TEMPLATES, *templates)
    if prompt == "ensemble80":
        from open_clip import OPENAI_IMAGENET_TEMPLATES

        chosen = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    made = Prompts(chosen)
    made.prompt = prompt
    return made


def known_backbones() -> tuple[str, ...]:
    """Name every backbone: the registered ones and all that open_clip has a configuration for (without importing it)."""
    return tuple(dict.fromkeys([*backbones, *_open_clip_names()]))


def check_backbone(name: str, pretrained: str | None, places: Places) -> tuple[str, str]:
    """Resolve and check what the user asked for; give (name, tag as the spec stores it).

    Raises:
        UnknownName: there is no such backbone or no such weights.
        DataMissing: the weights file is not there.
    """
    if name not in known_backbones():
        raise UnknownName(backbones.unknown(name, _open_clip_names()))
    if places.weights is not None:
        tag = file_tag(Path(places.weights))
        if pretrained is None:
            return name, tag
        if pretrained not in _open_clip_tags(name):
            raise UnknownName(unknown_name(f"tag of {name}'s weights", pretrained, tuple(_open_clip_tags(name))))
        return name, f"{pretrained}@{tag}"
    if pretrained is None:
        if name not in backbones:
            raise SpecError(f"--backbone {name} needs --pretrained TAG or FILE; {RANDOM!r} gives random weights")
        return name, backbones[name].default_pretrained
    known = {backbones[name].default_pretrained} if name in backbones else set()
    if pretrained in known or (pretrained == RANDOM and name != TINY.name):
        return name, pretrained  # without a look into open_clip, whose import takes seconds
    allowed = ["embedded"] if name == TINY.name else [RANDOM, *_open_clip_tags(name)]
    if pretrained not in allowed:
        raise UnknownName(f"{name} has no weights {pretrained!r}; known: {', '.join(allowed)}, or the path of a file")
    return name, pretrained


def file_tag(path: Path) -> str:
    """Name the weights in a file by their content, so that the file may be moved."""
    if not path.is_file():
        raise DataMissing(f"there is no weights file {path}; --pretrained takes a tag of open_clip's or a file")
    return files.content_tag(path)


def load_backbone(name: str, pretrained: str, places: Places) -> Backbone:
    """Load a backbone on the CPU, in fp32 and eval mode.

    Weights that were trained with QuickGELU get it where their tag is known, whether or not the name says so; without it
    accuracy is one or two points lower. A file of unknown origin gets what the name says: `TAG=FILE` tells its origin.

    Raises:
        DataMissing: the weights cannot be had (no file, no network).
        Conflict: a weights file has changed since the sweep was launched.
    """
    import open_clip

    logging.getLogger("root").setLevel(max(logging.getLogger().level, logging.ERROR))  # open_clip warns on load
    if name == TINY.name and name not in open_clip.list_models():
        open_clip.factory.add_model_config(_EMBEDDED / "tiny.json")
    source, options = _weights(name, pretrained, places)
    try:
        if source is None:
            torch.manual_seed(0)
        model = open_clip.create_model(name, pretrained=source, **options)
    except Exception as error:  # each format has errors of its own for a file that is damaged or something else
        raise DataMissing(
            f"the weights {pretrained!r} of {name} could not be loaded ({type(error).__name__}: {error}); "
            "without network give a file: --pretrained PATH"
        ) from error
    tag = pretrained.rpartition("file:")[0].removesuffix("@")
    known = {key: value for key, value in _tag_config(name, tag).items() if key in _PREPROCESSING} if tag else {}
    image = _TINY_IMAGE if name == TINY.name else _image_spec({**model.visual.preprocess_cfg, **known})
    return Backbone(name, pretrained, model, image, open_clip.get_tokenizer(name))


_EMBEDDED = PACKAGE / "weights"
_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
_TINY_IMAGE = ImageSpec(TINY.image_size, (127 / 255,) * 3, (128 / 255,) * 3)


def _weights(name: str, pretrained: str, places: Places) -> tuple[str | None, dict[str, Any]]:
    """Give what open_clip calls `pretrained`, and the options that go with it."""
    if pretrained == RANDOM:
        return None, {}
    if name == TINY.name and pretrained == TINY.default_pretrained:
        return str(_EMBEDDED / "tiny.safetensors"), {}
    if "file:" not in pretrained:
        return pretrained, {"force_quick_gelu": bool(_tag_config(name, pretrained).get("quick_gelu"))}
    tag, _, digest = pretrained.rpartition("file:")
    path = Path(places.weights or "")
    if file_tag(path) != f"file:{digest}":
        raise Conflict(f"the weights file {path} is not the one of this trial ({pretrained}): put that one back")
    # OpenAI's own files are TorchScript archives, which torch refuses to read as plain weights.
    options: dict[str, Any] = {"weights_only": not _is_torchscript(path)}
    if tag:
        options["force_quick_gelu"] = bool(_tag_config(name, tag.removesuffix("@")).get("quick_gelu"))
    return str(path), options


def _tag_config(name: str, tag: str) -> dict[str, Any]:
    from open_clip.pretrained import get_pretrained_cfg

    config: dict[str, Any] = get_pretrained_cfg(name, tag)
    return config


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    # as torch tells it: nothing else may be read without `weights_only`, since a pickle can run anything
    return bool(members) and f"{members[0].partition('/')[0]}/constants.pkl" in members


def _image_spec(config: dict[str, Any]) -> ImageSpec:
    sides = {config["size"]} if isinstance(config["size"], int) else set(config["size"])
    if len(sides) != 1 or config["resize_mode"] == "longest":
        raise SpecError(f"this backbone takes images of {config['size']}, {config['resize_mode']}; not supported")
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return ImageSpec(sides.pop(), mean, std, config["interpolation"], config["resize_mode"])


def _open_clip_names() -> tuple[str, ...]:
    spec = importlib.util.find_spec("open_clip")
    folders = spec.submodule_search_locations if spec else None
    return tuple(sorted(path.stem for path in Path(folders[0], "model_configs").glob("*.json"))) if folders else ()


def _open_clip_tags(name: str) -> list[str]:
    from open_clip.pretrained import list_pretrained_tags_by_model

    return list(list_pretrained_tags_by_model(name))


def _digest(model: nn.Module) -> str:
    hashed = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        hashed.update(name.encode())
        hashed.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    if any(type(module).__name__ == "QuickGELU" for module in model.modules()):
        hashed.update(b"QuickGELU")  # the same weights with another activation are another model
    return hashed.hexdigest()[:16]
