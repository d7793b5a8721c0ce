"""A whole trial, from the command to its records, and the time to the first update, beside DomainBed's `train.py`.

Both train ERM with a random linear head on the image tower of a backbone, with DomainBed's recipe (Adam 5e-5, 32 images a
domain, its augmentation), on the same images and splits, 50 updates with an evaluation every 25. With `--data-dir` the
images are PACS's. DomainBed's loader makes 224 px images, as it always does, and its `Featurizer` is replaced by the tower
as open_clip makes it (for `tiny` behind a resize to 96 px), in fp32. Ours has `tiny` in fp32 and a small ViT in bf16. It
is the second trial of a sweep: images are decoded and the frozen tower's features known; the note says what the first one
took. The limit of a whole trial is its forward and backward passes alone, that of the first update is importing torch,
torchvision and open_clip.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perf.measure import ROOT, Options, Row, paired, process_seconds, ratios, run

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
RECIPE: dict[str, Any] = {
    "head": "random",
    "lr": 5e-5,
    "weight_decay": 0.0,
    "schedule": "constant",
    "batch_size": 32,
    "augmentation": "domainbed",
}
STEPS, EVERY = 50, 25


@dataclass(frozen=True)
class Setting:
    """What is trained: a backbone and its weights, our precision, images in each class of each domain (None: all)."""

    backbone: str
    pretrained: str
    precision: str
    per_class: int | None


SETTINGS = (Setting("tiny", "embedded", "fp32", None), Setting("ViT-S-32-alt", "random", "bf16", 60))


def make_images(folder: Path, options: Options, per_class: int | None) -> Path:
    """Lay out PACS with `per_class` images in each class of each domain: real ones where they are given, else made.

    None: all real ones, or 40 made ones.
    """
    from PIL import Image

    stream = np.random.default_rng(0)
    for domain in DOMAINS:
        for name in CLASSES:
            place = folder / "PACS" / domain / name
            place.mkdir(parents=True)
            source = options.data_dir / "PACS" / domain / name if options.data_dir else None
            if source and source.is_dir():
                for path in sorted(source.iterdir())[:per_class]:
                    (place / path.name).symlink_to(path.resolve())
                continue
            for number in range(per_class or 40):
                coarse = Image.fromarray(stream.integers(0, 255, (16, 16, 3), dtype=np.uint8))
                coarse.resize((227, 227)).save(place / f"{number:04}.jpg", quality=90)
    return folder


class Sides:
    """The two commands, with folders of their own for every run."""

    def __init__(self, setting: Setting, data: Path, folder: Path, domainbed: Path) -> None:
        """Remember what to train and where things are."""
        self.setting, self.data, self.folder, self.domainbed = setting, data, folder, domainbed
        self._n = 0

    def output(self) -> Path:
        """Give a folder that is not there yet."""
        self._n += 1
        return self.folder / f"run{self._n}"

    def ours(self, output: Path, *more: str, steps: int = STEPS, seed: int = 0) -> list[str]:
        """Give our command."""
        hparams = {**RECIPE, "precision": self.setting.precision, "eval_precision": self.setting.precision}
        words = ["launch", "--algorithms", "ERM", "--datasets", f"folder:{self.data / 'PACS'}", "--test-domains", "0"]
        words += ["--backbone", self.setting.backbone, "--pretrained", self.setting.pretrained]
        words += ["--n-trials", "1", "--steps", str(steps), "--evaluate-every", str(min(EVERY, steps)), "--jobs", "1"]
        words += ["--hparams", json.dumps(hparams), "--output-dir", str(output), "--cache", str(self.folder / "cache")]
        return [sys.executable, "-m", "bench.sweep", *words, "--launcher", "local", "--yes", *more]

    def theirs(self, output: Path, steps: int = STEPS) -> list[str]:
        """Give DomainBed's command."""
        words = ["--data_dir", str(self.data), "--dataset", "PACS", "--algorithm", "ERM", "--test_envs", "0"]
        words += ["--steps", str(steps), "--checkpoint_freq", str(EVERY), "--output_dir", str(output)]
        words += ["--hparams", json.dumps({"batch_size": 32, "lr": 5e-5}), "--skip_model_save"]
        mark = output.with_suffix(".mark")
        return [
            sys.executable,
            "-m",
            "perf.domainbed_train",
            str(self.domainbed),
            self.setting.backbone,
            str(mark),
            *words,
        ]


def rows(options: Options) -> Iterator[Row]:
    """Measure; without a checkout of DomainBed there is nothing to compare with.

    Raises:
        ValueError: no `--domainbed` was given.
    """
    if options.domainbed is None:
        raise ValueError("the peer of a whole trial is DomainBed's train.py: give a checkout with --domainbed DIR")
    rounds = 1 if options.quick else min(options.rounds, 2)
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            data = make_images(folder / "data", options, 6 if options.quick else setting.per_class)
            sides = Sides(setting, data, folder, options.domainbed.resolve())
            yield from _whole(sides, rounds)
            if setting is SETTINGS[0]:
                yield _begun(sides, max(rounds, 2))


def _whole(sides: Sides, rounds: int) -> Iterator[Row]:
    """Measure whole trials, with all evaluations and with those that a selection rule reads."""
    trained, evaluated = passes(sides.setting)
    first = process_seconds(sides.ours(sides.output()))
    plain, selecting, theirs = [], [], []
    for _ in range(rounds):
        plain.append(process_seconds(sides.ours(sides.output(), "--evaluate", "all")))
        theirs.append(process_seconds(sides.theirs(sides.output())))
        selecting.append(process_seconds(sides.ours(sides.output())))
    sizes = [
        sum(len(list(place.iterdir())) for place in (sides.data / "PACS" / domain).iterdir()) for domain in DOMAINS
    ]
    limits = [STEPS * 3 * RECIPE["batch_size"] * trained + 2 * n * evaluated for n in (sum(sizes), _selected(sizes))]
    note = f"{sum(sizes)} images; the first trial of a sweep, which decodes them, took {first:.0f} s. "
    if sides.setting.precision == "fp32":
        note += "Passes are in fp32 on both sides, so what they take bounds the ratio"
    else:
        note += f"Ours in {sides.setting.precision}, DomainBed's in fp32, which is all it has"
    of = f", {sides.setting.backbone}" + (f", {sides.setting.precision}" if sides.setting.precision != "fp32" else "")
    yield _row(f"whole trial, same steps and same evaluations{of}", plain, theirs, (3, 4), note, limits[0])
    what = f"whole trial, selection-aware evaluation, same selected result{of}"
    note = "evaluates what a selection rule reads; records agree with the row above"
    yield _row(what, selecting, theirs, (5, 7), note, limits[1])


def _begun(sides: Sides, rounds: int) -> Row:
    """Measure from the command to the first update."""
    begun, peers, imports = [], [], []
    for _ in range(rounds):
        begun.append(first_step(sides.ours(output := sides.output()), [output]))
        command = sides.theirs(output := sides.output())
        peers.append(first_step(command, [output.with_suffix(".mark")]))
        imports.append(process_seconds([sys.executable, "-c", "import torch, torchvision, open_clip"]))
    note = "from the command; ours evaluates the untrained model before it"
    return _row("command to first step done", begun, peers, (10, 20), note, statistics.median(imports))


def _selected(sizes: Sequence[int]) -> int:
    """Count the images that a selection rule reads with the first domain held out: "out" splits, and its "in" split."""
    return sizes[0] + sum(size // 5 for size in sizes[1:])


def passes(setting: Setting) -> tuple[float, float]:
    """Time the image tower alone, all in our precision; give the seconds of an image forward and backward, and forward."""
    import torch

    from bench.heap import keep_freed_memory
    from bench.models import load_backbone
    from bench.spec import Places

    keep_freed_memory()  # as a trial does
    backbone = load_backbone(setting.backbone, setting.pretrained, Places())
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[setting.precision]
    size, tower = backbone.image.size, backbone.trainable_visual().to(dtype)
    images = torch.randn(3 * RECIPE["batch_size"], 3, size, size, dtype=dtype).contiguous(
        memory_format=torch.channels_last
    )

    def forward() -> None:
        with torch.no_grad():
            tower(images)

    both, alone = paired(lambda: tower(images).sum().backward(), forward, rounds=5)
    return statistics.median(both) / len(images), statistics.median(alone) / len(images)


def _row(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    targets: tuple[float, float],
    note: str,
    limit: float,
) -> Row:
    note += f"; the limit alone would be {statistics.median(theirs) / limit:.1f} times as fast as theirs. "
    note += "What was tried beyond this is in docs/performance.md"
    return Row(
        what=what,
        against="DomainBed `train.py`",
        ratios=ratios(ours, theirs),
        ours=tuple(ours),
        theirs=tuple(theirs),
        at_least=targets[0],
        stretch=targets[1],
        limit=limit,
        note=note,
    )


def first_step(command: Sequence[str], watched: Sequence[Path], patience: float = 600) -> float:
    """Run a command until its first update is done, then end it; give the seconds.

    Args:
        command: what to run.
        watched: a file that appears with the first update, or a results folder of ours whose trial says its step.
        patience: seconds after which it counts as hung.
    """
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as running:
        while not any(map(_has_stepped, watched)):
            seconds = time.perf_counter() - began
            if seconds > patience or (running.poll() not in (None, 0)):
                raise RuntimeError(f"no first step within {seconds:.0f} s: {' '.join(command[:6])} …")
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        os.killpg(running.pid, 9)
    return seconds


def _has_stepped(place: Path) -> bool:
    if not place.is_dir():
        return place.is_file()
    for path in place.glob("*/*/status.json"):
        try:
            if json.loads(path.read_bytes()).get("step", 0) >= 1:
                return True
        except (OSError, ValueError):
            continue
    return False


if __name__ == "__main__":
    run(rows, __doc__)
