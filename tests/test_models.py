from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import Conflict, DataMissing, SpecError, UnknownName
from bench.models import TextHead, check_backbone, known_backbones, load_backbone, prompt_templates
from bench.spec import Places

TEMPLATE = ("a photo of a {}.",)


def test_the_embedded_backbone_is_small_enough_to_ship() -> None:
    import bench

    weights = Path(bench.__file__).parent / "weights" / "tiny.safetensors"
    assert weights.stat().st_size <= 25e6


def test_backbones_that_are_known_are_checked_without_importing_open_clip() -> None:
    code = """
import sys
from bench.models import check_backbone
from bench.spec import Places
for name, tag in (("tiny", None), ("ViT-B-16", "openai"), ("ViT-L-14", None), ("ViT-S-32", "random")):
    check_backbone(name, tag, Places())
print({"open_clip", "torch"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_text_tower_equals_open_clips_encode_text(pretrained: Any) -> None:
    import open_clip

    model = open_clip.create_model("tiny", pretrained=str(Path("bench/weights/tiny.safetensors").resolve())).eval()
    tokens = pretrained.tokenize(["a photo of a dog.", "guitar", "a very long name of a thing " * 9])
    with torch.no_grad():
        torch.testing.assert_close(pretrained.text(tokens), model.encode_text(tokens), rtol=1e-5, atol=1e-5)


def test_text_tower_is_exact_on_a_context_cut_behind_the_end(pretrained: Any) -> None:
    tokens = pretrained.tokenize(["a photo of a dog.", "a guitar"])
    ends = pretrained.text.end_positions(tokens)
    cut = tokens[:, : int(ends.max()) + 1]
    with torch.no_grad():
        torch.testing.assert_close(pretrained.text(cut), pretrained.text(tokens), rtol=1e-5, atol=1e-5)


def test_head_rows_are_unit_and_permute_with_the_classes(pretrained: Any) -> None:
    head = TextHead(pretrained, TEMPLATE)
    rows = head.weights(("dog", "guitar", "house"))
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(3))
    features = torch.randn(5, rows.shape[1], generator=torch.Generator().manual_seed(0))
    swapped = head(features, ("house", "dog", "guitar"))
    torch.testing.assert_close(swapped, head(features, ("dog", "guitar", "house"))[:, [2, 0, 1]])


def test_an_ensemble_is_the_normalised_mean_of_normalised_prompts(pretrained: Any) -> None:
    templates = prompt_templates("ensemble7", TEMPLATE)
    assert len(templates) == 8 and len(prompt_templates("ensemble80", TEMPLATE)) == 80
    each = torch.stack([TextHead(pretrained, (template,)).weights(("dog",))[0] for template in templates])
    expected = torch.nn.functional.normalize(each.mean(dim=0), dim=-1)
    torch.testing.assert_close(TextHead(pretrained, templates).weights(("dog",))[0], expected, rtol=1e-5, atol=1e-6)


def test_trainable_towers_are_copies_in_eval_mode(pretrained: Any) -> None:
    tower = pretrained.trainable_visual()
    assert not tower.training and all(parameter.requires_grad for parameter in tower.parameters())
    assert not any(parameter.requires_grad for parameter in pretrained.visual.parameters())
    first = next(tower.parameters())
    assert first.data_ptr() != next(pretrained.visual.parameters()).data_ptr()


def test_backbones_are_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    assert {"tiny", "ViT-B-16", "ViT-B-16-quickgelu", "RN50"} <= set(known_backbones())
    assert check_backbone("tiny", None, Places()) == ("tiny", "embedded")
    assert check_backbone("ViT-B-16", None, Places()) == ("ViT-B-16", "openai")
    with pytest.raises(UnknownName, match="Did you mean 'ViT-B-16'"):
        check_backbone("VIT-B16", None, Places())
    with pytest.raises(UnknownName, match="openai"):
        check_backbone("ViT-B-16", "opnai", Places())
    with pytest.raises(SpecError, match="--pretrained"):
        check_backbone("ViT-H-14", None, Places())
    with pytest.raises(DataMissing, match="no weights file"):
        check_backbone("ViT-B-16", None, Places(weights=str(tmp_path / "gone.pt")))


def test_openai_weights_get_quickgelu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is passed to open_clip; the weights themselves cannot be had without network."""
    import open_clip

    asked: dict[str, Any] = {}

    def create(name: str, **options: Any) -> Any:
        asked.update(options)
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(DataMissing, match=r"no network.*--pretrained PATH"):
        load_backbone("ViT-B-16", "openai", Places())
    assert asked == {"pretrained": "openai", "force_quick_gelu": True}
    with pytest.raises(DataMissing):
        load_backbone("ViT-B-16", "laion2b_s34b_b88k", Places())
    assert asked["force_quick_gelu"] is False


def test_weights_of_a_file_are_named_by_their_content(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(Path("bench/weights/tiny.safetensors").read_bytes())
    name, tag = check_backbone("tiny", None, Places(weights=str(file)))
    assert tag.startswith("file:")
    moved = file.rename(tmp_path / "moved.safetensors")
    places = Places(weights=str(moved))
    assert check_backbone("tiny", None, places) == (name, tag)
    assert load_backbone(name, tag, places).digest == load_backbone("tiny", "embedded", Places()).digest
    moved.write_bytes(moved.read_bytes()[:-1] + b"x")
    with pytest.raises(Conflict, match="put that one back"):
        load_backbone(name, tag, places)


@pytest.mark.slow
def test_a_vision_transformer_with_random_weights_loads() -> None:
    backbone = load_backbone("ViT-B-32", "random", Places())
    assert backbone.image.size == 224 and backbone.image.interpolation == "bicubic"
    with torch.no_grad():
        assert backbone.visual(torch.zeros(1, 3, 224, 224)).shape == (1, 512)
        assert backbone.encode_text(["a dog"]).shape == (1, 512)
    assert backbone.digest == load_backbone("ViT-B-32", "random", Places()).digest


def test_a_file_of_a_known_origin_gets_its_activation_and_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    file = tmp_path / "weights.pt"
    file.write_bytes(b"weights")
    places = Places(weights=str(file))
    name, tag = check_backbone("ViT-B-16", "openai", places)
    assert tag.startswith("openai@file:")
    with pytest.raises(UnknownName, match="Did you mean 'openai'"):
        check_backbone("ViT-B-16", "openai1", places)
    asked: dict[str, Any] = {}

    def create(name: str, **options: Any) -> Any:
        asked.update(options)
        raise RuntimeError("no weights")

    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(DataMissing):
        load_backbone(name, tag, places)
    assert asked == {"pretrained": str(file), "force_quick_gelu": True, "weights_only": True}


@pytest.mark.slow
def test_the_digest_tells_activations_apart() -> None:
    digests = {load_backbone(name, "random", Places()).digest for name in ("ViT-B-32", "ViT-B-32-quickgelu")}
    assert len(digests) == 2


def test_text_features_are_never_made_under_autocast(pretrained: Any) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = TextHead(pretrained, TEMPLATE).weights(("dog", "guitar"))
    assert torch.equal(under, TextHead(pretrained, TEMPLATE).weights(("dog", "guitar")))


@pytest.mark.parametrize("name", ["empty.pt", "page.pt", "list.pt", "empty.safetensors", "page.safetensors"])
def test_a_weights_file_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"" if name.startswith("empty") else b"<!DOCTYPE html><html>404</html>")
    if name == "list.pt":
        torch.save([1, 2], path)
    tag = check_backbone("tiny", None, Places(weights=str(path)))[1]
    with pytest.raises(DataMissing, match="could not be loaded"):
        load_backbone("tiny", tag, Places(weights=str(path)))


class Evil:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_weights_file_runs_nothing_though_it_pretends_to_be_torchscript(tmp_path: Path) -> None:
    path, ran = tmp_path / "evil.pt", tmp_path / "ran"
    torch.save({"weights": Evil(ran)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("evil/sub/constants.pkl", b"")
    tag = check_backbone("tiny", None, Places(weights=str(path)))[1]
    with pytest.raises(DataMissing):
        load_backbone("tiny", tag, Places(weights=str(path)))
    assert not ran.exists()


def test_class_names_that_are_equal_as_far_as_they_are_read_are_refused(pretrained: Any) -> None:
    long = "a very long name of many words " * 8
    head = TextHead(pretrained, ("a photo of a {}.",))
    assert head.weights((f"{long} one", "cat")).shape[0] == 2
    with pytest.raises(SpecError, match="are the same; shorten them"):
        head.weights((f"{long} one", "cat", f"{long} two"))
