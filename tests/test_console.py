"""What is shown: durations, status texts, plain progress and its estimates, the live display."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

from bench import console
from bench.console import LiveProgress, PlainProgress, Seldom
from bench.spec import Places
from bench.status import TrialStatus, as_json, counts, read_status, work_left
from bench.store import Run, State
from tests import fakes
from tests.fakes import make_runs


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def mixed(tmp_path: Path) -> list[Any]:
    """Trials done, failed, running and pending, one each."""
    runs = make_runs(tmp_path / "mixed", 4)
    fakes.finish(str(runs[0].folder), threads=None, device=None)
    fakes.fail(str(runs[1].folder), threads=None, device=None)
    runs[2].claim().beat(4, 10, rate=2.0, force=True)
    return runs


def look(runs: list[Any]) -> list[TrialStatus]:
    return [TrialStatus.of(run) for run in runs]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.4, "3 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (7500, "2 h 05 min"), (360000, "100 h 00 min")],
)
def test_duration_in_words(seconds: float, words: str) -> None:
    assert console.duration(seconds) == words


def test_status_text_names_states_running_and_failures(mixed: list[Any]) -> None:
    text = console.status_text(look(mixed))
    assert "4 trials: 1 done, 1 failed, 1 running, 1 pending" in text
    assert "step 4/10, 2/s, 3 s left" in text
    assert "RuntimeError: common bug" in text
    assert str(mixed[1].error_path) in text


def test_protocols_are_told_apart_where_there_are_several(tmp_path: Path) -> None:
    others = {"protocol": "base_to_new", "options": {"shots": 4}, "test_domains": ()}
    for seed, changes in ((0, {}), (1, {}), (0, others)):
        Run.create(tmp_path, fakes.make_spec(trial_seed=seed, **changes), Places())
    trials = read_status(tmp_path)
    rows = [line.split() for line in console.status_text(trials).splitlines() if line.startswith("FakeERM")]
    assert rows == [["FakeERM", "Fake", "base_to_new[shots=4]", "1"], ["FakeERM", "Fake", "leave_one_domain_out", "2"]]
    assert [cell["protocol"] for cell in as_json(tmp_path, trials)["cells"]] == [row[2] for row in rows]
    assert any(trial.label.startswith("FakeERM on Fake, base to new (shots 4), ") for trial in trials)
    alike = console.status_text([trial for trial in trials if trial.protocol == "leave_one_domain_out"])
    assert "protocol" not in alike and "leave" not in alike


def test_status_json_has_stable_keys(mixed: list[Any], tmp_path: Path) -> None:
    value = json.loads(json.dumps(as_json(tmp_path, read_status(tmp_path))))
    keys = ["cells", "counts", "eta_seconds", "failed", "lost", "queued", "root", "running", "schema", "total"]
    assert sorted(value) == keys
    rest = {"lost": 0, "queued": 0, "cancelled": 0}
    assert value["counts"] == {"pending": 1, "running": 1, "done": 1, "failed": 1, **rest}
    assert value["cells"][0]["algorithm"] == "FakeERM"
    (running,) = value["running"]
    assert (running["step"], running["rate"], running["eta_seconds"]) == (4, 2.0, 3.0)
    assert value["failed"][0]["error"] == "RuntimeError: common bug"


def test_work_left_uses_finished_trials_then_rates(mixed: list[Any]) -> None:
    trials = look(mixed)
    done = dataclasses.replace(trials[0], said={**trials[0].said, "seconds": 8.0})
    assert work_left([done, *trials[1:]]) == pytest.approx(3.0 + 8.0)
    assert work_left(trials[2:]) == pytest.approx(3.0 + 5.0)
    assert work_left(trials[3:]) is None


def test_plain_progress_says_each_end_and_something_every_half_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, clock = make_runs(tmp_path, 3), Clock()
    shown = PlainProgress(look(runs), 1, clock=clock, stamp=lambda: "noon")
    shown.started(runs[0])
    clock.now = 10.0
    shown.tick()
    assert capsys.readouterr().out == ""
    clock.now = 31.0
    shown.tick()
    assert "[noon] 1 running, 2 pending" in capsys.readouterr().out
    fakes.finish(str(runs[0].folder), threads=None, device=None)
    shown.ended(runs[0], State.DONE)
    assert "[noon] done 1/3: FakeERM on Fake, held out 0, trial 0 in 31 s" in capsys.readouterr().out
    fakes.fail(str(runs[1].folder), threads=None, device=None)
    shown.started(runs[1])
    shown.ended(runs[1], State.FAILED)
    assert "FAILED" in capsys.readouterr().out


def test_live_progress_draws_bars_and_lets_failures_scroll_by(mixed: list[Any]) -> None:
    from rich.console import Console
    from rich.live import Live

    shown = LiveProgress(look(mixed), 2)
    shown.started(mixed[2])
    out = Console(file=io.StringIO(), width=200)
    shown._live = Live(console=out)
    out.print(shown._draw())
    shown.ended(mixed[1], State.FAILED)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "1 done, 1 failed, 1 running, 1 pending" in text
    assert "step 4/10" in text
    assert "RuntimeError: common bug" in text


def test_progress_is_plain_when_nobody_looks(tmp_path: Path) -> None:
    with console.progress(look(make_runs(tmp_path, 1)), 1) as shown:
        assert type(shown) is PlainProgress


def test_watch_ends_when_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = make_runs(tmp_path, 1)
    fakes.finish(str(runs[0].folder), threads=None, device=None)
    console.watch(lambda: look(runs))
    assert "1 trials: 1 done" in capsys.readouterr().out


def test_seldom_leaves_lines_out(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    seldom = Seldom(5.0, clock)
    for clock.now in (0.0, 1.0, 5.0):
        seldom(f"at {clock.now:g}")
    assert capsys.readouterr().out == "at 0\nat 5\n"


def test_counts_have_every_state() -> None:
    assert set(counts([])) == {state.value for state in State} | {"queued"}
