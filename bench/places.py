"""Where a sweep's trials find their data and weights on this machine, and whether these have been prepared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from bench import files
from bench.spec import Places, TrialSpec

_FOLDER = ".places"


def remember(sweep: Path, trials: Iterable[tuple[TrialSpec, Places]]) -> None:
    """Note in the folder of a sweep where its `trials` find things: a file for all that read the same.

    No file holds what two launches might write at the same time for different trials.
    """
    for key, places in {_key(spec): places for spec, places in trials}.items():
        path, noted = _noted(sweep, key), {"of": key, "places": places.to_json()}
        if files.read_json(path) != noted:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.remove_leftovers(path.parent)
            files.replace_json(path, noted)


def recall(sweep: Path, spec: TrialSpec) -> Places:
    """Give the places of a trial; none set where nothing was noted."""
    noted = files.read_json(_noted(sweep, _key(spec)))
    return Places.from_json(noted.get("places", {}) if isinstance(noted, dict) else {})


def _noted(sweep: Path, key: str) -> Path:
    return sweep / _FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _key(spec: TrialSpec) -> str:
    """Name what a trial reads: those of which it is equal find it in the same places."""
    read = (spec.dataset, *spec.transfer_to, spec.backbone, spec.pretrained)
    given = (("captions", spec.captions), ("pool", spec.pool), ("domainbed", spec.domainbed))
    return ", ".join([*read, *(f"{name} {digest}" for name, digest in given if digest)])


def mark_prepared(spec: TrialSpec, places: Places) -> None:
    """Note in the cache folder that what this trial reads has been read and decoded."""
    marker = _marker(spec, places)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()


def is_prepared(spec: TrialSpec, places: Places) -> bool:
    """Say whether what this trial reads was decoded before; if it has changed since, trials decode it themselves."""
    return _marker(spec, places).exists()


def preparation(spec: TrialSpec, places: Places) -> tuple[str, ...]:
    """Give what must be equal for two trials to need the same data prepared."""
    pool = str(spec.hparams.get("pool", ""))
    read = (spec.dataset, *spec.transfer_to)
    return *read, spec.backbone, spec.pretrained, str(spec.skip_bad_images), pool, str(places.to_json())


def _marker(spec: TrialSpec, places: Places) -> Path:
    name = hashlib.sha256("\n".join(preparation(spec, places)).encode()).hexdigest()[:16]
    return places.cache_folder() / "prepared" / name
