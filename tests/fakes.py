"""A data set, methods and trials that cost nothing; importable by child processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.algorithm import Algorithm
from bench.dataset import Dataset, DatasetInfo, Domain
from bench.errors import DataMissing
from bench.hparams import Hparam, log_uniform
from bench.registry import Registry, algorithms, datasets
from bench.spec import Places, TrialSpec
from bench.store import Busy, Run

N_IMAGES = 20
"""Images a domain; 16 of them "in", 4 "out"."""


class FakeInfo(DatasetInfo):
    """Three domains, two classes, no pixels; wants the folder `Fake` in the data folder unless it is embedded."""

    def load(self, places: Places) -> Dataset:
        root = Path(places.data_dir or "nowhere") / "Fake"
        if not self.embedded and not root.is_dir():
            raise DataMissing(f"there is no folder {root}; get it from nowhere")
        files = tuple(f"{i}.png" for i in range(N_IMAGES))
        domains = tuple(Domain(name, root, files, np.arange(N_IMAGES) % 2) for name in self.domains)
        return Dataset(self.name, self.class_names, domains)


class FakeMethod(Algorithm):
    """A method with a learning rate."""

    paper = "nobody, nowhere"
    hparams = {
        "lr": Hparam(1e-3, "learning rate", log_uniform(-5, -3), low=0.0, overrides={"Fake": 2e-3}),
        "batch_size": Hparam(4, "images per domain", low=1),
    }
    steps = Hparam(10, "updates", low=0)

    def predictors(self, *, final: bool) -> Any:
        raise NotImplementedError


class FakeZero(FakeMethod):
    """A method that is not trained."""

    hparams = {"prompt": Hparam("short", "prompt", choices=("short", "long"))}
    steps = Hparam(0, "updates", low=0, high=0)


FAKE = {
    "summary": "fake",
    "source": "nowhere",
    "licence": "none",
    "citation": "none",
    "domains": ("red", "green", "blue"),
    "class_names": ("cat", "dog"),
}


def register(monkeypatch: Any) -> None:
    """Register the fakes until the test is over."""
    _extend(monkeypatch, algorithms, {"FakeERM": FakeMethod, "FakeZero": FakeZero})
    infos = {"Fake": FakeInfo(name="Fake", **FAKE), "FakeIcons": FakeInfo(name="FakeIcons", embedded=True, **FAKE)}
    _extend(monkeypatch, datasets, infos)


def _extend(monkeypatch: Any, registry: Registry[Any], entries: dict[str, Any]) -> None:
    len(registry)  # loads the plug-ins
    monkeypatch.setattr(registry, "_entries", {**registry._entries, **entries})
    monkeypatch.setattr(registry, "_origins", {**registry._origins, **dict.fromkeys(entries, "here:1")})


def make_spec(**changes: Any) -> TrialSpec:
    """Give a valid spec."""
    values: dict[str, Any] = {
        "protocol": "leave_one_domain_out",
        "protocol_version": 1,
        "dataset": "Fake",
        "algorithm": "FakeERM",
        "test_domains": (0,),
        "backbone": "tiny",
        "pretrained": "embedded",
        "trial_seed": 0,
        "hparams_seed": 0,
        "hparams": {"lr": 1e-3, "batch_size": 4},
        "steps": 10,
        "evaluate_every": 5,
    }
    return TrialSpec(**{**values, **changes})


def make_runs(sweep: Path, n: int) -> list[Run]:
    """Make the folders of `n` trials that differ in their trial seed."""
    return [Run.create(sweep, make_spec(trial_seed=seed), Places()) for seed in range(n)]


def finish(folder: str, *, threads: int | None, device: str | None) -> str:
    """Finish a trial at once."""
    run = Run(Path(folder))
    try:
        attempt = run.claim()
    except Busy:
        return "running"
    record = {"step": run.spec.steps, "algorithm": "FakeERM", "predictor": "FakeERM", "env0_out_acc": 0.5}
    attempt.finish([record], run.spec.steps, run.spec.steps)
    return "done"


def finish_noting_environment(folder: str, *, threads: int | None, device: str | None) -> str:
    """Finish a trial, and say on standard output what it was given."""
    print(f"threads={threads} OMP={os.environ.get('OMP_NUM_THREADS')} GPU={os.environ.get('CUDA_VISIBLE_DEVICES')}")
    return finish(folder, threads=threads, device=device)


def fail_second(folder: str, *, threads: int | None, device: str | None) -> str:
    """Fail the trial with seed 1, finish others."""
    run = Run(Path(folder))
    if run.spec.trial_seed != 1:
        return finish(folder, threads=threads, device=device)
    run.claim().fail("Traceback …\nValueError: too bad\n", "ValueError: too bad")
    return "failed"


def fail(folder: str, *, threads: int | None, device: str | None) -> str:
    """Fail every trial."""
    Run(Path(folder)).claim().fail("RuntimeError: common bug\n", "RuntimeError: common bug")
    return "failed"


def die_second(folder: str, *, threads: int | None, device: str | None) -> str:
    """Kill the process of the trial with seed 1, finish others."""
    run = Run(Path(folder))
    if run.spec.trial_seed == 1:
        run.claim().beat(3, 10, force=True)
        print("about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return finish(folder, threads=threads, device=device)


def die_first(folder: str, *, threads: int | None, device: str | None) -> str:
    """Kill the process of a trial's first attempt, finish the second."""
    run = Run(Path(folder))
    if run.tries == 0:
        run.claim().beat(3, 10, force=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return finish(folder, threads=threads, device=device)


def give_back(folder: str, *, threads: int | None, device: str | None) -> str:
    """Stop though nobody asked."""
    Run(Path(folder)).claim().release(1, 10)
    return "pending"


def exit_early(folder: str, *, threads: int | None, device: str | None) -> str:
    """Meet a bug before the trial is claimed."""
    raise RuntimeError("no such luck")


def wait_for_stop(folder: str, *, threads: int | None, device: str | None) -> str:
    """Run until SIGTERM, then give the trial back as `run_trial` does."""
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    attempt = Run(Path(folder)).claim()
    attempt.beat(1, 10, force=True)
    while not asked.is_set():
        asked.wait(0.05)
    attempt.release(1, 10)
    return "pending"


def wait_until(condition: Any, seconds: float = 120.0) -> None:
    """Wait until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Recorder:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.started_trials: list[str] = []
        self.ended_trials: list[tuple[str, str]] = []
        self.most = 0
        self._running = 0

    def started(self, run: Run) -> None:
        self.started_trials.append(run.trial_id)
        self._running += 1
        self.most = max(self.most, self._running)

    def ended(self, run: Run, state: Any) -> None:
        self.ended_trials.append((run.trial_id, state.value))
        self._running -= run.trial_id in self.started_trials

    def tick(self) -> None:
        pass


def finish_all(folder: str, *company: str, threads: int | None, device: str | None) -> str:
    """Finish trials that are trained as one, and say in each folder with how many others, in which process."""
    for each in (folder, *company):
        finish(each, threads=threads, device=device)
        (Path(each) / "company.txt").write_text(f"{os.getpid()} {len(company)}")
    return "done"


def die_in_company(folder: str, *company: str, threads: int | None, device: str | None) -> str:
    """Be killed with all trials if there are several, finish one by itself."""
    if company:
        for each in (folder, *company):
            Run(Path(each)).claim().beat(3, 10, force=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return finish_all(folder, threads=threads, device=device)


def give_back_in_company(folder: str, *company: str, threads: int | None, device: str | None) -> str:
    """Finish the first of several trials and give the others back, finish one by itself."""
    for each in company:
        Run(Path(each)).claim().release(1, 10)
    return finish_all(folder, threads=threads, device=device)
