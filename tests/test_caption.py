"""Captions: greedy decoding with a tiny CoCa, the command, resuming, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bench import caption
from bench.caption import greedy_tokens, load_captioner, main, write_captions
from bench.dataset import captions_beside, read_captions
from bench.errors import Conflict

open_clip = pytest.importorskip("open_clip")

START, END = 49406, 49407


@pytest.fixture(scope="session")
def coca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny random CoCa, which open_clip knows by the name coca_toy from now on."""
    folder = tmp_path_factory.mktemp("coca")
    text = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    config = {
        "embed_dim": 32,
        "vision_cfg": {**vision, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**text, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**text, "attn_pooler_heads": 2},
        "custom_text": True,
    }
    (folder / "coca_toy.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "coca_toy.json")
    torch.manual_seed(0)
    model = open_clip.create_model("coca_toy", pretrained=None)
    torch.nn.init.normal_(model.text_decoder.text_projection)  # open_clip leaves it uninitialised
    torch.save(model.state_dict(), folder / "coca.pt")
    return folder / "coca.pt"


@pytest.fixture(autouse=True)
def _coca_toy_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption, "check_backbone", lambda name, pretrained, places: (name, pretrained))


@pytest.fixture
def captioner(coca_file: Path) -> Any:
    return load_captioner("coca_toy", str(coca_file), 10)


@pytest.fixture
def command(coca_file: Path, small_images: Path, tmp_path: Path) -> list[str]:
    model = ["--backbone", "coca_toy", "--pretrained", str(coca_file), "--length", "10", "--batch-size", "8"]
    return [str(small_images), *model, "--out", str(tmp_path / "captions.tsv")]


def test_tokens_run_from_start_to_end_then_padding(captioner: Any) -> None:
    model = captioner.model
    with torch.no_grad():
        model.text_decoder.text_projection[:, END] += 0.5 * model.text_decoder.text_projection.mean(dim=1)
    rows = greedy_tokens(model, torch.randn(6, 3, 32, 32), 10).tolist()
    for row in rows:
        assert len(row) <= 10 and row[0] == START and row.count(END) == 1
        assert row.index(END) >= 5
        assert set(row[row.index(END) + 1 :]) <= {model.pad_id}


def test_each_token_is_the_most_probable_one(captioner: Any) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    tokens = greedy_tokens(captioner.model, images, 10)
    with torch.no_grad():
        for n in range(5, 9):
            logits = captioner.model(images, tokens[:, :n], output_labels=False)["logits"][:, -1]
            assert torch.equal(tokens[:, n], logits.argmax(dim=-1))


def test_tokens_equal_those_of_open_clip(captioner: Any) -> None:
    if not open_clip.coca_model._has_transformers:
        pytest.skip("open_clip's generate needs transformers before 4.57")
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    expected = captioner.model.generate(images, seq_len=10, generation_type="top_k", top_k=1)
    assert torch.equal(greedy_tokens(captioner.model, images, 10), expected)


def test_caption_of_an_image_does_not_depend_on_the_others(captioner: Any) -> None:
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    together = captioner.write(images)
    assert together == [captioner.write(image[None])[0] for image in images]
    assert all(text and "\t" not in text and "\n" not in text and "<" not in text for text in together)


def test_command_writes_a_caption_for_every_image(command: list[str], tmp_path: Path, capsys: Any) -> None:
    assert main(command) == 0
    captions = read_captions(tmp_path / "captions.tsv")
    assert len(captions) == 120
    assert all(captions.values())
    assert "drawn/cat/000.jpg" in captions
    assert capsys.readouterr().out.endswith(f"120 of 120 images have a caption in {tmp_path / 'captions.tsv'}\n")
    wrote = json.loads((tmp_path / "captions.tsv.json").read_text())
    assert wrote["backbone"] == "coca_toy" and wrote["pretrained"].startswith("file:")


def test_same_command_again_goes_on_where_it_stopped(command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "captions.tsv"
    assert main(command) == 0
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:50]) + lines[50][:-3])  # as a kill leaves it
    assert main(command) == 0
    assert out.read_bytes() == whole
    assert main(command) == 0
    assert out.read_bytes() == whole


def test_captions_by_default_lie_where_the_data_set_looks(
    captioner: Any, command: list[str], toy: Any, small_images: Path, tmp_path: Path
) -> None:
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(small_images, root)
    assert main(["toy", "--data-dir", str(root), *command[1:-2]]) == 0
    assert captions_beside(root).keys() == read_captions(root / "captions.tsv").keys()
    assert len(captions_beside(root)) == 120


def test_captions_of_another_origin_are_not_mixed_with(captioner: Any, small_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.tsv"
    out.write_text("a.png\tby hand\n")
    with pytest.raises(Conflict, match="was written by something else"):
        write_captions(small_images, ["drawn/cat/000.jpg"], captioner, out, 4, print)
    assert out.read_text() == "a.png\tby hand\n"


def test_bad_image_is_named_and_gets_no_caption(command: list[str], tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (40, 50), "blue").save(folder / "good.png")
    (folder / "bad.png").write_bytes(b"no image")
    assert main([str(folder), *command[1:]]) == 0
    assert read_captions(tmp_path / "captions.tsv").keys() == {"good.png"}
    shown = capsys.readouterr()
    assert "bad.png cannot be decoded" in shown.err and "1 of 2 images" in shown.out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--backbone", "ViT-B-32-quickgelu"], "cannot write captions"),
        (["--length", "50"], "--length 50 is out of range for coca_toy: 6 to 20"),
        (["--pretrained", "random"], "nothing to say"),
        (["--pretrained", "no_such_tag"], "could not be loaded"),
        (["--out", "no/such/folder/captions.tsv"], "cannot write"),
    ],
)
def test_what_cannot_be_is_refused_with_one_message(
    command: list[str], change: list[str], message: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "ViT-B-32-quickgelu" in change:  # its weights are large; what matters is that it is no CoCa
        monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: torch.nn.Linear(1, 1))
    assert main([*command, *change]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_unknown_source_is_refused_with_a_suggestion(command: list[str], capsys: Any) -> None:
    assert main(["PACZ", *command[1:]]) == 2
    assert "Did you mean 'PACS'" in capsys.readouterr().err


def test_help_imports_no_torch() -> None:
    code = (
        "import sys, bench.caption\n"
        "try: bench.caption.main(['--help'])\n"
        "except SystemExit: assert 'torch' not in sys.modules\n"
        "else: sys.exit('no help')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_unknown_backbone_is_refused(command: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert main([*command, "--backbone", "coca_ViT-B-23"]) == 2
    assert "coca_ViT-B-32" in capsys.readouterr().err
