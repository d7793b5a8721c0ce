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

BACKBONES = {"tiny": ("embedded", 5, 45, 38), "ViT-S-32-alt": ("random", 2, 28, 24)}
"""Weights, rounds at most, images in each class of each domain, updates: so many that a trial's beginning counts little."""
AVERAGES = ("ema", "uniform", "bma")


def rows(options: Options) -> Iterator[Row]:
    """Measure four trials as one against one of them, and against all four."""
    logging.getLogger("root").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for backbone, (pretrained, most, per_class, steps) in BACKBONES.items():
            per_class, steps = (10, 6) if options.quick else (per_class, steps)
            data = make_images(place / backbone / "data", options, per_class) / "PACS"
            specs, places = _trials(data, place / "cache", backbone, pretrained, steps)
            assert len({path_of(spec) for spec in specs}) == 1
            prepare(specs[0], places, lambda text: None)
            _seconds(specs[:1], places, place / backbone / "warm")  # the frozen tower's features are kept
            yield from _measured(specs, places, place / backbone, min(options.rounds, most))


def _trials(data: Path, cache: Path, backbone: str, pretrained: str, steps: int) -> tuple[list[TrialSpec], Places]:
    """Give ERM and the three averages, with the last domain held out."""
    common: dict[str, Any] = {
        "datasets": (f"folder:{data}",),
        "backbone": backbone,
        "pretrained": pretrained,
        "n_trials": 1,
        "test_domains": ("3",),
        "steps": steps,
        "evaluate_every": steps,
    }
    sweeps = [Sweep(algorithms=("ERM",), **common)]
    sweeps += [
        Sweep(algorithms=("CLIPood",), hparams={"margin": "none", "average": average}, **common) for average in AVERAGES
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


def _measured(specs: list[TrialSpec], places: Places, place: Path, rounds: int) -> Iterator[Row]:
    fresh = (place / f"sweep{number}" for number in itertools.count())
    alone: list[list[float]] = []
    shared: list[float] = []
    for _ in range(rounds):
        shared.append(_seconds(specs, places, next(fresh)))
        alone.append([_seconds([spec], places, next(fresh)) for spec in specs])
    one = tuple(each[0] for each in alone)
    parts = tuple(sum(each) for each in alone)
    what = f"sweep with ERM, EMA, uniform, CLIPood without MMS, {specs[0].backbone}"
    yield Row(
        what=f"{what}: trainings",
        against="ERM by itself",
        ratios=tuple(ours / theirs for ours, theirs in zip(shared, one, strict=True)),
        ours=tuple(shared),
        theirs=one,
        at_least=1.3,
        is_share=True,
        peak_mb=own_peak_mb(),
        note=f"{specs[0].steps} updates of 36 images in fp32, records equal to the byte (tests/test_sharing.py); beyond the "
        "one training it is the evaluation of three averages, a forward pass of 0.38 images for each that is trained on: if "
        "a forward pass is a third of an update, (3 + 4 x 0.38) / (3 + 0.38) = 134 % is the limit",
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
