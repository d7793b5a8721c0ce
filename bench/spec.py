"""`TrialSpec`: all that decides a trial's result, and the hash that names it.

Paths, hosts, devices, worker counts and launchers are no part of it: moving the data or the sweep changes no trial.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import SpecError
from bench.seeds import seed_hash

UNLABELED = ("out", "in", "uda")


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One trial: one training of one method on one data set with given domains held out.

    Attributes:
        protocol: registered protocol, e.g. "leave_one_domain_out".
        protocol_version: raised when a protocol's numbers change.
        dataset: registered data set; "folder:NAME" for a user's own folder (its place is no part of the spec).
        algorithm: registered algorithm.
        test_domains: 0-based indices of the held-out domains.
        backbone: backbone name.
        pretrained: tag of the weights, or "file:<digest>" for weights from a file.
        trial_seed: seeds the splits, the batches and the augmentation (DomainBed's `trial_seed`).
        hparams_seed: 0 = defaults, else seeds the random search.
        hparams: the resolved values.
        steps: number of updates.
        evaluate_every: an evaluation every so many updates, besides the first and the last.
        holdout_fraction: share of each domain in its "out" split.
        unlabeled: where unlabelled images of the held-out domain come from, for methods that use them: its "out" split
            (so that none of them is reported on), its "in" split (transductive, as UEO's code) or a "uda" split cut
            from "in" as DomainBed does.
        uda_holdout_fraction: share of "in" that becomes the "uda" split.
        evaluate: "selection" takes only the splits that a selection rule reads, "all" takes every split.
        skip_bad_images: leave undecodable images out instead of stopping.
        captions: "" for those beside the data set, "file:<digest>" for a file that was given.
        pool: "" for the built-in anchor pool, "file:<digest>" for one that was given.
        options: the protocol's options that are not at their defaults, e.g. {"setting": "open"}; see
            `sweep list protocols NAME`.
        metrics: further metrics of every evaluated view, names of `bench.metrics.METRICS`.
        transfer_to: data sets to test on beside the one that is trained on, for protocols that transfer.
        domainbed: digest of DomainBed's code, for an algorithm "domainbed:NAME".
    """

    protocol: str
    protocol_version: int
    dataset: str
    algorithm: str
    test_domains: tuple[int, ...]
    backbone: str
    pretrained: str
    trial_seed: int
    hparams_seed: int
    hparams: Mapping[str, Any]
    steps: int
    evaluate_every: int
    holdout_fraction: float = 0.2
    unlabeled: str = "out"
    uda_holdout_fraction: float = 0.0
    evaluate: str = "selection"
    skip_bad_images: bool = False
    captions: str = ""
    pool: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    transfer_to: tuple[str, ...] = ()
    domainbed: str = ""

    def __post_init__(self) -> None:
        """Check all fields at once.

        Raises:
            SpecError: names every field that is wrong, its value and what is allowed.
        """
        object.__setattr__(self, "test_domains", tuple(int(domain) for domain in self.test_domains))
        for name in ("hparams", "options"):
            object.__setattr__(self, name, dict(getattr(self, name)))
        for name in ("metrics", "transfer_to"):
            object.__setattr__(self, name, tuple(map(str, getattr(self, name))))
        for name in ("holdout_fraction", "uda_holdout_fraction"):  # 0 and 0.0 are one trial
            object.__setattr__(self, name, float(getattr(self, name)))
        checks = {
            "steps": (self.steps >= 0, "a whole number from 0"),
            "evaluate_every": (self.evaluate_every >= 1, "a whole number from 1"),
            "trial_seed": (self.trial_seed >= 0, "a whole number from 0"),
            "hparams_seed": (self.hparams_seed >= 0, "a whole number from 0"),
            "holdout_fraction": (0 < self.holdout_fraction < 1, "between 0 and 1, both excluded"),
            "uda_holdout_fraction": (0 <= self.uda_holdout_fraction < 1, "from 0 to below 1"),
            "unlabeled": (self.unlabeled in UNLABELED, f"one of {', '.join(UNLABELED)}"),
            "evaluate": (self.evaluate in ("selection", "all"), "selection or all"),
            "test_domains": (len(set(self.test_domains)) == len(self.test_domains), "domains, each once"),
        }
        wrong = [
            f"{name}={getattr(self, name)!r} (allowed: {allowed})" for name, (ok, allowed) in checks.items() if not ok
        ]
        if (self.unlabeled == "uda") != (self.uda_holdout_fraction > 0):
            wrong.append("unlabeled='uda' and uda_holdout_fraction above 0 go together")
        if wrong:
            raise SpecError("this trial is not valid: " + "; ".join(wrong))

    @functools.cached_property
    def trial_id(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of `line`."""
        return hashlib.sha256(self.line.encode()).hexdigest()[:16]

    @functools.cached_property
    def line(self) -> str:
        """The canonical JSON; optional fields at their defaults are left out, so that one added later renames no trial."""
        return _CANONICAL.encode({name: value for name, value in self._values() if value != _DEFAULTS[name]})

    @property
    def run_seed(self) -> int:
        """DomainBed's seed of a run: seed_hash(dataset, algorithm, test_envs, hparams_seed, trial_seed)."""
        return seed_hash(self.dataset, self.algorithm, list(self.test_domains), self.hparams_seed, self.trial_seed)

    def to_json(self) -> dict[str, Any]:
        """Give the spec as plain JSON values; the dictionaries and lists in it are its own, to be left as they are."""
        lists = {name: list(getattr(self, name)) for name in ("test_domains", "metrics", "transfer_to")}
        return dict(self._values()) | lists

    def to_text(self) -> str:
        """Give the spec as one line of JSON with all fields."""
        return _ONE_LINE.encode(self.to_json())

    def _values(self) -> Iterator[tuple[str, Any]]:
        # Not asdict, which copies deeply: plans have thousands of specs.
        return ((name, getattr(self, name)) for name in _DEFAULTS)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrialSpec:
        """Read a spec back.

        Raises:
            SpecError: fields are missing, unknown or of a wrong type.
        """
        names = set(_DEFAULTS)
        required = {name for name, default in _DEFAULTS.items() if default is dataclasses.MISSING}
        unknown, missing = sorted(set(value) - names), sorted(required - set(value))
        if unknown or missing:
            raise SpecError(f"this is no trial of this version: unknown fields {unknown}, missing fields {missing}")
        try:
            return cls(**{name: value[name] for name in names if name in value})
        except (TypeError, ValueError) as error:
            raise SpecError(f"this is no trial of this version: {error}") from None


# Made once: plans encode thousands of specs.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_ONE_LINE = json.JSONEncoder(sort_keys=True)

_DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(TrialSpec)} | {
    "options": {},
}
"""Defaults; MISSING where a field must be given."""
_OPTIONAL = json.dumps({name: each for name, each in _DEFAULTS.items() if each is not dataclasses.MISSING})


def read_line(line: str) -> dict[str, Any]:
    """Give the spec that a `TrialSpec.line` tells as plain JSON values, with all fields."""
    return {**json.loads(_OPTIONAL), **json.loads(line)}


def whole_text(line: str) -> str:
    """Turn a `TrialSpec.line` into what `TrialSpec.to_text` gives."""
    return _ONE_LINE.encode(read_line(line))


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a trial finds things on this machine; never part of its identity.

    Attributes:
        data_dir: folder that holds the data sets' folders.
        folder: place of a "folder:NAME" data set.
        weights: file of pre-trained weights.
        captions: captions file that overrides the one beside the data set.
        pool: folder or TSV of image-text pairs for anchor retrieval.
        domainbed: checkout of DomainBed, for its algorithms.
        cache: folder of rendered, decoded and computed things; None = the user's cache folder.
    """

    data_dir: str | None = None
    folder: str | None = None
    weights: str | None = None
    captions: str | None = None
    pool: str | None = None
    domainbed: str | None = None
    cache: str | None = None

    def cache_folder(self) -> Path:
        """Give the folder of rendered, decoded and computed things: `cache`, else $CLIPBED_CACHE, else the user's."""
        return Path(self.cache or os.environ.get("CLIPBED_CACHE") or Path.home() / ".cache" / "clipbed").expanduser()

    def to_json(self) -> dict[str, Any]:
        """Give the places that are set as plain JSON values."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Places:
        """Read places back; unknown keys are ignored, since they change no result."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value[name] for name in names if name in value})
