"""From what a user asks for to trials: names looked up, hparams resolved, data found, all checked before a start.

Owns the order of trials and the checks that need more than one field of one trial. Runs nothing and writes no results;
data sets that are rendered (`Icons`) are rendered here at their first use.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.dataset import Dataset, DatasetInfo, find_dataset
from bench.domainbed import checkout
from bench.errors import Conflict, DataMissing, Problems, SpecError, UnknownName
from bench.feasibility import Outline, check_method, outline
from bench.files import content_tag
from bench.garbage import without_collector
from bench.hparams import resolve
from bench.measures import scheme
from bench.metrics import DETECTION, METRICS
from bench.models import check_backbone
from bench.registry import algorithms, protocols, unknown_name
from bench.spec import Places, TrialSpec
from bench.sweepfile import Sweep

EVALUATE_AT_MOST_EVERY = 300
"""DomainBed's checkpoint frequency of its image data sets; a shorter training is evaluated in its middle."""

_WEIGHTS_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz")
_BY_PATH = ("folder", "csv")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Planned:
    """A trial to run.

    Attributes:
        spec, places: what it is, and where it finds its things on this machine.
        file_lists: digests of the domains' file lists; empty where the data set was not looked into.
    """

    spec: TrialSpec
    places: Places
    file_lists: tuple[str, ...] = ()


@without_collector()
def plan(
    wanted: Iterable[Sweep | TrialSpec], places: Places, *, say: Say = lambda text: None, render: bool = True
) -> list[Planned]:
    """Give the trials of all sweeps, each once, in DomainBed's order (trial, data set, method, held-out, hparams seed).

    Args:
        wanted: what a sweep file's `trials()` gave, or the sweep of the command's options.
        places: where this machine keeps data and weights.
        say: told what takes its time.
        render: look into embedded data sets too, which may have to be rendered for it.

    Raises:
        BenchError: something is wrong; one message holds all that could be found.
    """
    problems = Problems()
    _check_places(places, problems)
    shelf = _Shelf(places, problems, say, render)
    found: dict[str, Planned] = {}
    for each in wanted:
        if isinstance(each, Sweep):
            planned = _trials_of(each, shelf, problems)
        elif isinstance(each, TrialSpec):
            planned = _given_trial(each, shelf, problems)
        else:
            raise SpecError(f"trials() must give Sweeps or TrialSpecs, one of them is {each!r}")
        found.update((trial.spec.trial_id, trial) for trial in planned if trial.spec.trial_id not in found)
    _check_tasks(found.values(), shelf, problems)
    problems.raise_if_any()
    return list(found.values())


@dataclass(frozen=True)
class _Shelved:
    """A data set as the plan needs it; `loaded` is None where it was not looked into."""

    name: str
    places: Places
    domains: tuple[str, ...]
    loaded: Dataset | None


@dataclass(frozen=True)
class _Joined:
    """The data sets of a trial as one, and digests of its domains' file lists; nothing where one was not looked into."""

    dataset: Dataset | None
    file_lists: tuple[str, ...]


class _Shelf:
    """Data sets, each looked for once."""

    def __init__(self, places: Places, problems: Problems, say: Say, render: bool) -> None:
        self.places = places
        self._problems = problems
        self._say = say
        self._render = render
        self._known: dict[str, _Shelved | None] = {}
        self._joined: dict[tuple[str, ...], _Joined] = {}

    def find(self, asked: str) -> _Shelved | None:
        """Give the data set that the user calls `asked`; None, with the problem noted, where it is not to be had."""
        if asked not in self._known:
            self._known[asked] = None
            with self._problems.noted():
                self._known[asked] = self._look(asked)
        return self._known[asked]

    def of_spec(self, name: str) -> _Shelved | None:
        """Give the data set that specs call `name`."""
        return next((each for each in self._known.values() if each is not None and each.name == name), None)

    def joined(self, spec: TrialSpec) -> _Joined:
        """Give the data set of a trial with those it is further tested on; the same for all trials of the same ones."""
        key = (spec.protocol, spec.dataset, *spec.transfer_to)
        if key not in self._joined:
            shelved = [self.of_spec(name) for name in (spec.dataset, *spec.transfer_to)]
            parts = [each.loaded for each in shelved if each is not None and each.loaded is not None]
            dataset: Dataset | None = protocols[spec.protocol].join(parts) if len(parts) == len(shelved) else None
            lists = tuple(domain.digest for domain in dataset.domains) if dataset else ()
            self._joined[key] = _Joined(dataset, lists)
        return self._joined[key]

    def _look(self, asked: str) -> _Shelved:
        name, places = _locate(asked, self.places)
        known = self.of_spec(name)
        if known is not None and known.places != places:
            raise Conflict(
                f"two folders are called {name!r}: {known.places.folder} and {places.folder}; rename one of them"
            )
        info = find_dataset(name)
        loaded = self._load(info, places)
        if loaded is None:
            self._say(f"note: {info.name} is not drawn yet; what needs its images is checked when it is")
            return _Shelved(name, places, info.domain_names(places), None)
        return _Shelved(name, places, tuple(domain.name for domain in loaded.domains), loaded)

    def _load(self, info: DatasetInfo, places: Places) -> Dataset | None:
        """List a data set's files; None where it would have to be drawn for that, and may not be."""
        self._say(f"reading {info.name}" + (" (drawn at its first use, which takes a minute)" if info.embedded else ""))
        try:
            loaded = info.load(places) if self._render else info.look(places)
        except OSError as error:
            reason = f"{type(error).__name__}: {error}"
            raise DataMissing(f"the files of {info.name} could not be read or written ({reason})") from error
        for note in loaded.notes if loaded else ():
            self._say(f"note: {note}")
        return loaded


def _locate(asked: str, places: Places) -> tuple[str, Places]:
    """Turn "folder:PATH" or "csv:FILE" into the name that specs use and the place of the folder; leave other names alone."""
    family, colon, argument = asked.partition(":")
    if family not in _BY_PATH or not colon or not argument:
        return asked, places
    folder = Path(argument).expanduser().resolve()
    return f"{family}:{folder.name}", dataclasses.replace(places, folder=str(folder))


def weights_place(pretrained: str | None, places: Places) -> tuple[str | None, Places]:
    """Tell a file of weights from a tag: a file has a folder or a known suffix; TAG=FILE says where the file is from."""
    if pretrained is None or not ("/" in pretrained or "\\" in pretrained or pretrained.endswith(_WEIGHTS_SUFFIXES)):
        return pretrained, places
    tag, _, path = pretrained.rpartition("=") if "=" in pretrained.partition("/")[0] else ("", "", pretrained)
    return tag or None, dataclasses.replace(places, weights=str(Path(path).expanduser().resolve()))


def _check_places(places: Places, problems: Problems) -> None:
    if places.captions is not None and not Path(places.captions).is_file():
        problems.add(
            DataMissing(f"--captions {places.captions} is no file; give a TSV or JSON of image path → caption")
        )
    if places.pool is not None and not any(
        path.is_file() for path in (Path(places.pool), Path(places.pool, "pool.tsv"))
    ):
        problems.add(DataMissing(f"--pool {places.pool} is neither a TSV nor a folder with a pool.tsv"))
    if places.data_dir is not None and not Path(places.data_dir).is_dir():
        problems.add(
            DataMissing(f"--data-dir {places.data_dir} is no folder; give the folder that holds the data sets' folders")
        )


def _trials_of(sweep: Sweep, shelf: _Shelf, problems: Problems) -> list[Planned]:
    methods: dict[str, Any] = {}
    held_out: dict[str, list[tuple[int, ...]]] = {}
    before = len(problems)
    for name in dict.fromkeys(sweep.algorithms):
        with problems.noted():
            methods[name] = checkout.find_method(name, shelf.places.domainbed)
    if len(methods) == len(set(sweep.algorithms)):
        _check_given(sweep.hparams, methods, problems)
    protocol = None
    options: dict[str, Any] = {}
    with problems.noted():
        protocol = protocols[sweep.protocol]
        options = protocol.settle(sweep.options)
        n_seeds = sweep.n_hparams - sweep.n_hparams_from
        if scheme(sweep.protocol).validation is None and n_seeds > 1:
            raise SpecError(
                f"{sweep.protocol} has no labelled images to choose among {n_seeds} hparams seeds by; give one "
                "(--n-hparams 1), or name the values with --hparams, one launch each"
            )
    _check_metrics(sweep.metrics, problems)
    for asked in sweep.transfer_to:
        shelf.find(asked)
    tag, weights = weights_place(sweep.pretrained, Places())
    backbone = (sweep.backbone, "")
    with problems.noted():
        backbone = check_backbone(sweep.backbone, tag, weights)
    for asked in dict.fromkeys(sweep.datasets):
        shelved = shelf.find(asked)
        if shelved is not None and protocol is not None:
            with problems.noted():
                held_out[asked] = _held_out(sweep, protocol, shelved)
    if protocol is None or len(problems) > before:
        return []
    planned: list[Planned] = []
    alike: dict[tuple[str, str], _Alike] = {}
    seeds = range(sweep.n_hparams_from, sweep.n_hparams)
    for trial_seed, (asked, sets), name in itertools.product(range(sweep.n_trials), held_out.items(), methods):
        shelved = shelf.find(asked)
        assert shelved is not None
        if (asked, name) not in alike:
            with problems.noted():
                alike[asked, name] = _Alike(sweep, name, methods[name], shelved, weights.weights)
        if (asked, name) not in alike:
            continue
        for domains, hparams_seed in itertools.product(sets, seeds):
            with problems.noted():
                identity = {"test_domains": domains, "trial_seed": trial_seed, "hparams_seed": hparams_seed}
                identity["options"] = options
                spec = _spec(sweep, alike[asked, name], protocol, backbone, identity)
                planned.append(Planned(spec, alike[asked, name].places, shelf.joined(spec).file_lists))
    return planned


class _Alike:
    """What all trials of a method on a data set have in common, worked out once: files may have to be read for it."""

    def __init__(self, sweep: Sweep, name: str, method: Any, shelved: _Shelved, weights: str | None) -> None:
        self.name = name
        self.dataset = shelved.name
        self.places = dataclasses.replace(shelved.places, weights=weights)
        self.steps = _steps(sweep.steps, name, method, self.dataset, sweep.backbone)
        self.tags, implied = _resources(method, shelved.places)
        self._given = {**implied, **{key: value for key, value in sweep.hparams.items() if key in method.hparams}}
        self._method = method
        self._backbone = sweep.backbone
        self._defaults: dict[str, Any] | None = None

    def hparams(self, hparams_seed: int, trial_seed: int) -> dict[str, Any]:
        """Resolve the hparams; the defaults (seed 0) are the same for all trial seeds."""
        if hparams_seed == 0 and self._defaults is not None:
            return self._defaults
        found = resolve(
            checkout.declared_hparams(self._method, self.dataset, hparams_seed, trial_seed),
            dataset=self.dataset,
            backbone=self._backbone,
            hparams_seed=hparams_seed,
            trial_seed=trial_seed,
            given=self._given,
        )
        if hparams_seed == 0:
            self._defaults = found
        return found


def _spec(sweep: Sweep, alike: _Alike, protocol: Any, backbone: tuple[str, str], identity: dict[str, Any]) -> TrialSpec:
    every = sweep.evaluate_every
    return TrialSpec(
        protocol=sweep.protocol,
        protocol_version=protocol.version,
        dataset=alike.dataset,
        algorithm=alike.name,
        backbone=backbone[0],
        pretrained=backbone[1],
        hparams=alike.hparams(identity["hparams_seed"], identity["trial_seed"]),
        steps=alike.steps,
        evaluate_every=min(EVALUATE_AT_MOST_EVERY, max(1, alike.steps // 2)) if every is None else every,
        holdout_fraction=sweep.holdout_fraction,
        unlabeled=sweep.unlabeled,
        uda_holdout_fraction=sweep.uda_holdout_fraction,
        evaluate=sweep.evaluate,
        skip_bad_images=sweep.skip_bad_images,
        metrics=tuple(dict.fromkeys(sweep.metrics)),
        transfer_to=sweep.transfer_to,
        **alike.tags,
        **identity,
    )


def _resources(method: Any, places: Places) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the spec's names of the captions, the pool and the code that were given, and the hparams that they imply."""
    tags: dict[str, Any] = checkout.tag(method)
    implied: dict[str, Any] = {}
    if places.captions and Path(places.captions).is_file() and "captions" in method.needs:
        tags["captions"] = content_tag(Path(places.captions))
        implied["captions"] = "file"
    pool = Path(places.pool or "", "pool.tsv") if Path(places.pool or "").is_dir() else Path(places.pool or "")
    if places.pool and pool.is_file() and "pool" in method.needs:
        tags["pool"] = content_tag(pool)
        implied["pool"] = "custom"
    return tags, {name: value for name, value in implied.items() if name in method.hparams}


def _steps(given: int | None, name: str, method: Any, dataset: str, backbone: str) -> int:
    declared = method.steps
    if given is None or declared.high == 0:  # a method that is not trained has nothing to do with --steps
        return int(declared.default_for(dataset, backbone))
    problem = declared.problem("steps", given)
    if problem:
        raise SpecError(f"{name}: {problem}")
    return given


def _check_given(given: Mapping[str, Any], methods: Mapping[str, Any], problems: Problems) -> None:
    """Note the hparams that no method has, and the values that a method refuses."""
    known = tuple(dict.fromkeys(itertools.chain.from_iterable(method.hparams for method in methods.values())))
    for name, value in given.items():
        if name not in known:
            whose = f"hparam of {', '.join(methods)}"
            hint = " The number of updates is --steps N." if name == "steps" else ""
            problems.add(UnknownName(unknown_name(whose, name, known) + hint))
            continue
        for method, declared in methods.items():
            problem = declared.hparams[name].problem(name, value) if name in declared.hparams else None
            if problem:
                problems.add(SpecError(f"hparams of {method}: {problem}"))


def _held_out(sweep: Sweep, protocol: Any, shelved: _Shelved) -> list[tuple[int, ...]]:
    """List the sets of held-out domains: all, or those with one of the domains that were picked."""
    try:
        every: list[tuple[int, ...]] = protocol.held_out(len(shelved.domains), pairs=sweep.pairs)
    except SpecError as error:
        raise SpecError(f"{shelved.name}: {error}") from None
    if not sweep.test_domains:
        return every
    if not any(every):
        raise SpecError(f"{sweep.protocol} holds out no domain; leave out --test-domains")
    picked = {_domain_index(asked, shelved) for asked in sweep.test_domains}
    return [domains for domains in every if picked & set(domains)]


def _domain_index(asked: str, shelved: _Shelved) -> int:
    lowered = tuple(name.lower() for name in shelved.domains)
    for name, names in ((asked, shelved.domains), (asked.lower(), lowered)):
        if name in names:
            return names.index(name)
    if asked.isdecimal() and int(asked) < len(shelved.domains):
        return int(asked)
    known = ", ".join(f"{index} = {name}" for index, name in enumerate(shelved.domains))
    raise SpecError(f"{shelved.name} has no domain {asked!r}; give a name or an index: {known}")


def _given_trial(spec: TrialSpec, shelf: _Shelf, problems: Problems) -> list[Planned]:
    """Check a trial that a sweep file lists by itself."""
    before = len(problems)
    _check_metrics(spec.metrics, problems)
    for asked in spec.transfer_to:
        shelf.find(asked)
    places = shelf.places
    shelved = shelf.find(spec.dataset)
    with problems.noted():
        method = checkout.find_method(spec.algorithm, places.domainbed)
        resources, implied = _resources(method, places)
        spec = dataclasses.replace(
            spec,
            **resources,
            dataset=shelved.name if shelved else spec.dataset,
            hparams=resolve(
                checkout.declared_hparams(method, spec.dataset, spec.hparams_seed, spec.trial_seed),
                dataset=spec.dataset,
                backbone=spec.backbone,
                hparams_seed=0,
                trial_seed=spec.trial_seed,
                given={**implied, **spec.hparams},
            ),
        )
    with problems.noted():
        version = protocols[spec.protocol].version
        spec = dataclasses.replace(spec, options=protocols[spec.protocol].settle(spec.options))
        if version != spec.protocol_version:
            problems.add(
                SpecError(f"{spec.protocol} is at version {version}, the trial asks for {spec.protocol_version}")
            )
    with problems.noted():
        tag, weights = weights_place(spec.pretrained, Places())
        name, pretrained = check_backbone(spec.backbone, tag, weights)
        spec = dataclasses.replace(spec, backbone=name, pretrained=pretrained)
        places = dataclasses.replace(shelved.places if shelved else places, weights=weights.weights)
    return [Planned(spec, places, shelf.joined(spec).file_lists)] if len(problems) == before else []


def _check_metrics(names: Iterable[str], problems: Problems) -> None:
    known = tuple(name for name in METRICS if name not in DETECTION)
    for name in names:
        if name in DETECTION:
            problems.add(SpecError(f"{name} needs images of unknown classes: universal measures it, without --metrics"))
        elif name not in METRICS:
            problems.add(UnknownName(unknown_name("metric", name, known)))


def _check_tasks(planned: Iterable[Planned], shelf: _Shelf, problems: Problems) -> None:
    """Note what protocols and methods refuse; none of it depends on seeds."""
    outlines: dict[tuple[Any, ...], Outline] = {}
    checked: set[tuple[Any, ...]] = set()
    faulty: set[tuple[Any, ...]] = set()
    for trial in planned:
        spec = trial.spec
        dataset = shelf.joined(spec).dataset
        unlabeled = "unlabeled" in algorithms[spec.algorithm].needs
        batch = spec.hparams.get("batch_size", 1) if spec.steps else 0
        options = tuple(sorted(spec.options.items()))
        splits = (spec.holdout_fraction, spec.unlabeled, spec.uda_holdout_fraction, options, spec.transfer_to)
        of_task = (spec.protocol, spec.dataset, *splits, unlabeled)
        key = (spec.algorithm, *of_task, batch, *(spec.hparams.get(name) for name in ("captions", "csc", "head")))
        if dataset is None or of_task in faulty or key in faulty or (key, spec.test_domains) in checked:
            continue
        checked.add((key, spec.test_domains))
        before = len(problems)
        with problems.noted():
            if (of_task, spec.test_domains) not in outlines:
                faulty.add(of_task)  # the other domains' messages would say the same
                outlines[of_task, spec.test_domains] = outline(spec, dataset)
                faulty.remove(of_task)
            _check_captions(spec, dataset)
            check_method(spec, outlines[of_task, spec.test_domains], batch)
        if len(problems) > before:
            faulty.add(key)


def _check_captions(spec: TrialSpec, dataset: Dataset) -> None:
    if spec.hparams.get("captions") == "file" and not spec.captions and not dataset.captions:
        raise SpecError(
            f"{spec.algorithm} needs captions and {dataset.name} has none: write them with `python -m bench.caption` and "
            "give --captions FILE, or ask for captions made from class and domain name: "
            '--hparams \'{"captions": "template"}\''
        )
