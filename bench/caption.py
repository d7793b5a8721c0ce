"""`python -m bench.caption DATASET|FOLDER`: write a captions file with an open_clip CoCa model.

The file has a line `image file<TAB>caption` for each image; beside it stands `<file>.json`, which says what wrote it.
Where the file exists already, only missing images are captioned: the same command again goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import files
from bench.command import from_one
from bench.dataset import find_dataset, list_images, read_captions
from bench.errors import BenchError, Conflict, DataMissing, SpecError
from bench.lazy import torch
from bench.models import RANDOM, ImageSpec, check_backbone, file_tag
from bench.registry import datasets
from bench.spec import Places

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_BACKBONE = "coca_ViT-B-32"
DEFAULT_PRETRAINED = "mscoco_finetuned_laion2b_s13b_b90k"
"""CoCa after MS-COCO: writes sentences, where the one before writes alt texts."""

LENGTH = 30
"""Most tokens of a caption, start and end among them (open_clip's default)."""

SHORTEST = 5
"""Tokens before a caption may end (open_clip's default)."""

REPORT_SECONDS = 5.0

_EXAMPLES = """examples:
  python -m bench.caption PACS --data-dir DATA --pretrained coca.pt
  python -m bench.caption my_images/ --pretrained coca.pt --out captions.tsv
"""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Captioner:
    """A CoCa model that is ready to write.

    Attributes:
        model: open_clip's CoCa, in eval mode.
        image: how it wants its images.
        source: what says in `<captions>.json` who wrote the captions.
    """

    model: Any
    image: ImageSpec
    source: dict[str, Any]

    def write(self, images: Tensor) -> list[str]:
        """Give one caption for each of `images` (B, 3, S, S), normalised."""
        import open_clip

        rows = greedy_tokens(self.model, images, self.source["length"]).tolist()
        tokenizer = open_clip.SimpleTokenizer()
        ended = [row[1 : row.index(tokenizer.eot_token_id)] for row in rows]
        return [" ".join(tokenizer.decode(row).split()) for row in ended]


def greedy_tokens(model: Any, images: Tensor, length: int = LENGTH, shortest: int = SHORTEST) -> Tensor:
    """Give the most probable token after token, (B, at most `length`), from start to end of text, then padding.

    Equal to open_clip's `generate(generation_type="top_k", top_k=1)`, but needs no transformers, whose later versions
    (4.57, 5) `generate` of open_clip 3.3 cannot work with. Deterministic, and a row does not depend on the others.

    Args:
        model: open_clip's CoCa.
        images: (B, 3, S, S), normalised.
        length: the end is written there at the latest.
        shortest: no end before as many tokens.
    """
    import open_clip

    tokenizer = open_clip.SimpleTokenizer()
    start, end = tokenizer.sot_token_id, tokenizer.eot_token_id
    with torch.no_grad():
        seen = model(images)
        seen = {"image_latent": seen["image_features"], "image_embs": seen["image_embs"]}
        tokens = torch.full((len(images), 1), start, device=images.device)
        ended = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        while not ended.all():
            n = tokens.shape[1]
            logits = model(images, tokens, **seen, output_labels=False)["logits"][:, -1]
            if n < shortest:
                logits[:, end] = -math.inf
            following = torch.full_like(ended, end, dtype=tokens.dtype) if n == length - 1 else logits.argmax(dim=-1)
            tokens = torch.cat([tokens, following.masked_fill(ended, model.pad_id)[:, None]], dim=1)
            ended |= following == end
    return tokens


_OUT = (
    "default: captions.tsv beside the data set; ARF finds it there for folder:PATH, Icons and the data sets of DomainBed's "
    "family, and wants `launch --captions FILE` for others"
)


def load_captioner(backbone: str, pretrained: str, length: int = LENGTH) -> Captioner:
    """Load an open_clip CoCa model on the CPU.

    Args:
        backbone: open_clip's name of the model, coca_….
        pretrained: open_clip's tag, or the path of a weights file.
        length: most tokens of a caption.

    Raises:
        UnknownName: there is no such model, or no such weights.
        SpecError: the model cannot write.
        DataMissing: the weights cannot be had.
    """
    import open_clip

    is_file = Path(pretrained).is_file()
    check_backbone(backbone, None if is_file else pretrained, Places(weights=pretrained if is_file else None))
    if pretrained == RANDOM and not is_file:
        raise SpecError(f"{backbone} with random weights has nothing to say; --pretrained takes a tag or a file")
    try:
        model = open_clip.create_model(backbone, pretrained=pretrained)
    except Exception as error:  # network, hub and file errors are of many kinds
        raise DataMissing(
            f"the weights {pretrained!r} of {backbone} could not be loaded ({type(error).__name__}: {error}); "
            "without network give a file: --pretrained PATH"
        ) from error
    if not isinstance(model, open_clip.CoCa):
        raise SpecError(f"{backbone} cannot write captions; give a CoCa model of open_clip's, e.g. {DEFAULT_BACKBONE}")
    if not SHORTEST < length <= model.context_length:
        raise SpecError(f"--length {length} is out of range for {backbone}: {SHORTEST + 1} to {model.context_length}")
    config = model.visual.preprocess_cfg
    side = config["size"] if isinstance(config["size"], int) else config["size"][0]
    image = ImageSpec(side, tuple(config["mean"]), tuple(config["std"]), config["interpolation"], config["resize_mode"])
    tag = file_tag(Path(pretrained)) if is_file else pretrained
    source = {"backbone": backbone, "pretrained": tag, "decoding": "greedy", "length": length}
    return Captioner(model.eval().requires_grad_(False), image, source)


def write_captions(
    root: Path, names: Sequence[str], captioner: Captioner, out: Path, batch_size: int, progress: Progress
) -> dict[str, str]:
    """Caption the images `names` below `root` that `out` does not have yet, a batch at a time.

    Returns:
        file → reason, of images that cannot be decoded; they get no caption.

    Raises:
        Conflict: `out` was written by something else.
    """
    done = _resumed(out, captioner.source)
    missing = [name for name in names if name not in done]
    bad: dict[str, str] = {}
    began = reported = time.monotonic()
    with out.open("a", encoding="utf-8") as file:
        for start in range(0, len(missing), batch_size):
            chosen = missing[start : start + batch_size]
            made = _batch(root, chosen, captioner, batch_size, bad)
            file.writelines(f"{name}\t{caption}\n" for name, caption in made)
            file.flush()
            os.fsync(file.fileno())
            now, n = time.monotonic(), start + len(chosen)
            if now - reported >= REPORT_SECONDS:
                reported = now
                progress(f"captioned {len(done) + n} of {len(names)} images, {n / (now - began):.1f} a second")
    return bad


def _batch(
    root: Path, names: Sequence[str], captioner: Captioner, batch_size: int, bad: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Give (file, caption) of a batch; it is filled up, so that a caption does not depend on what else is missing."""
    from bench.images import Normalise
    from bench.pool import decode

    pixels = {}
    for name in names:
        made = decode(root / name, captioner.image)[1]
        if isinstance(made, str):
            bad[name] = made
        else:
            pixels[name] = made
    if not pixels:
        return
    good = list(pixels)
    filled = np.stack([pixels[good[i % len(good)]] for i in range(batch_size)])
    images = Normalise(captioner.image, torch.device("cpu"))(torch.from_numpy(filled).permute(0, 3, 1, 2))
    yield from zip(good, captioner.write(images), strict=False)


def _resumed(out: Path, source: dict[str, Any]) -> dict[str, str]:
    """Give the captions that `out` has, less a torn last line; note who writes it if it is new."""
    note = out.with_name(f"{out.name}.json")
    written_by = files.read_json(note)
    if out.is_file() and written_by != source:
        who = written_by or "something else"
        raise Conflict(f"{out} was written by {who}, not by {source}: give another --out, or delete it")
    files.replace_json(note, source)
    if not out.is_file():
        return {}
    content = out.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        files.replace(out, lambda file: file.write(whole))
    return read_captions(out)


def _images(source: str, places: Places) -> tuple[Path, list[str]]:
    """Give the folder of a data set or of any images, and the image files below it."""
    folder = Path(source)
    if folder.is_dir() and source not in datasets:
        names = list_images(folder)
        if not names:
            raise DataMissing(f"there is no image in the folder {folder}")
        return folder, names
    dataset = find_dataset(source).load(places)
    return dataset.domains[0].root, [name for domain in dataset.domains for name in domain.files]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code: 0, or 2 where the input is no good."""
    options = _parser().parse_args(arguments)
    try:
        return _caption(options)
    except BenchError as error:
        print(f"caption: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"caption: cannot write: {error}; give --out a file in a folder that can be written to", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("caption: stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _caption(options: argparse.Namespace) -> int:
    def progress(line: str) -> None:
        print(line, flush=True)

    root, names = _images(options.source, Places(data_dir=options.data_dir, cache=options.cache))
    out = options.out or root / "captions.tsv"
    captioner = load_captioner(options.backbone, options.pretrained, options.length)
    progress(f"{len(names)} images in {root}; writing {out}")
    bad = write_captions(root, names, captioner, out, options.batch_size, progress)
    for name, reason in bad.items():
        print(f"warning: {name} cannot be decoded and has no caption ({reason})", file=sys.stderr)
    progress(f"{len(names) - len(bad)} of {len(names)} images have a caption in {out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.caption",
        description="Write a caption for every image of a data set or folder with an open_clip CoCa model, for ARF.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", metavar="DATASET|FOLDER", help="a data set of `sweep list datasets`, or any folder of images")
    add("--backbone", default=DEFAULT_BACKBONE, metavar="NAME", help=f"a CoCa model; default: {DEFAULT_BACKBONE}")
    pretrained = f"tag of open_clip's, or a file; default: {DEFAULT_PRETRAINED}"
    add("--pretrained", default=DEFAULT_PRETRAINED, metavar="TAG|FILE", help=pretrained)
    add("--out", type=Path, metavar="FILE", help=_OUT)
    add("--data-dir", metavar="FOLDER", help="folder that holds the data sets' folders")
    add("--cache", metavar="FOLDER", help="folder of rendered data sets; default: the user's cache folder")
    add("--batch-size", type=from_one, default=16, metavar="N", help="images at once; default: 16")
    add("--length", type=from_one, default=LENGTH, metavar="N", help=f"most tokens of a caption; default: {LENGTH}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
