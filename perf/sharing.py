"""Trials whose weights follow the same path, trained as one, against each of them by itself.

ERM, and CLIPood without margin with its average, with EMA and with the uniform average: four trials, from a loaded Python
to their records. Images and updates are in PACS's proportions with the defaults (5,000 updates, an evaluation every 300:
0.38 images evaluated for each one trained on), so evaluation, which only the last iterate shares, counts as it does there.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.job import prepare, run_trial
from bench.plan import plan
from bench.sharing import path_of
from bench.spec import Places, TrialSpec
from bench.store import Run
from bench.sweepfile import Sweep
from perf.measure import Options, Row, own_peak_mb, ratios, run
from perf.trial import make_images


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Attributes:
        backbone, pretrained: the backbone and its weights.
        eval_precision: as the hparam; updates are in fp32.
        rounds: at most.
        per_class: images in each class of each domain.
        steps: updates, so many that a trial's beginning counts little.
    """

    backbone: str
    pretrained: str
    eval_precision: str
    rounds: int
    per_class: int
    steps: int

    def __str__(self) -> str:
        """Say it in a few words."""
        return self.backbone + ("" if self.eval_precision == "fp32" else f", evaluated in {self.eval_precision}")


SETTINGS = (
    Setting("tiny", "embedded", "fp32", 5, 45, 38),
    Setting("tiny", "embedded", "bf16", 5, 45, 38),
    Setting("ViT-S-32-alt", "random", "fp32", 2, 28, 24),
    Setting("ViT-S-32-alt", "random", "bf16", 2, 28, 24),
)
AVERAGES = ("ema", "uniform", "bma")


def rows(options: Options) -> Iterator[Row]:
    """Measure four trials as one against one of them, and against all four."""
    logging.getLogger("root").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        for number, setting in enumerate(SETTINGS):
            place = Path(folder, str(number))
            if options.quick:
                setting = replace(setting, per_class=10, steps=6)
            data = make_images(place / "data", options, setting.per_class) / "PACS"
            specs, places = _trials(data, place / "cache", setting)
            assert len({path_of(spec) for spec in specs}) == 1
            prepare(specs[0], places, lambda text: None)
            _seconds(specs[:1], places, place / "warm")  # the frozen tower's features are kept
            yield from _measured(specs, places, place, setting, min(options.rounds, setting.rounds))


def _trials(data: Path, cache: Path, setting: Setting) -> tuple[list[TrialSpec], Places]:
    """Give ERM and the three averages, with the last domain held out."""
    common: dict[str, Any] = {
        "datasets": (f"folder:{data}",),
        "backbone": setting.backbone,
        "pretrained": setting.pretrained,
        "n_trials": 1,
        "test_domains": ("3",),
        "steps": setting.steps,
        "evaluate_every": setting.steps,
    }
    hparams = {"eval_precision": setting.eval_precision}
    sweeps = [Sweep(algorithms=("ERM",), hparams=hparams, **common)]
    sweeps += [
        Sweep(algorithms=("CLIPood",), hparams={**hparams, "margin": "none", "average": average}, **common)
        for average in AVERAGES
    ]
    planned = plan(sweeps, Places(cache=str(cache)))
    return [each.spec for each in planned], planned[0].places


def _seconds(specs: Sequence[TrialSpec], places: Places, sweep: Path) -> float:
    """Run trials as one in this process; give the seconds."""
    runs = [Run.create(sweep, spec, places) for spec in specs]
    began = time.perf_counter()
    run_trial(*(str(each.folder) for each in runs))
    seconds = time.perf_counter() - began
    assert all(each.is_done for each in runs), [each.error() for each in runs]
    return seconds


def _measured(specs: list[TrialSpec], places: Places, place: Path, setting: Setting, rounds: int) -> Iterator[Row]:
    fresh = (place / f"sweep{number}" for number in itertools.count())
    alone: list[list[float]] = []
    shared: list[float] = []
    for _ in range(rounds):
        shared.append(_seconds(specs, places, next(fresh)))
        alone.append([_seconds([spec], places, next(fresh)) for spec in specs])
    one = tuple(each[0] for each in alone)
    parts = tuple(sum(each) for each in alone)
    what = f"sweep with ERM, EMA, uniform, CLIPood without MMS, {setting}"
    yield Row(
        what=f"{what}: trainings",
        against="ERM by itself",
        ratios=tuple(ours / theirs for ours, theirs in zip(shared, one, strict=True)),
        ours=tuple(shared),
        theirs=one,
        at_least=1.3,
        is_share=True,
        peak_mb=own_peak_mb(),
        note=f"{setting.steps} updates of 36 images in fp32, evaluated in {setting.eval_precision}; records equal to the "
        "byte (tests/test_sharing.py). Beyond the one training it is the evaluation of three averages, a forward pass of "
        "0.38 images for each that is trained on: where that takes a third of an update, (3 + 4 x 0.38) / (3 + 0.38) = "
        "134 % is the limit, where it takes a sixth 118 %",
    )
    yield Row(
        what=f"{what}: together",
        against="the four by themselves",
        ratios=ratios(shared, parts),
        ours=tuple(shared),
        theirs=parts,
    )


if __name__ == "__main__":
    run(rows, __doc__)
