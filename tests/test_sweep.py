"""The command line: verbs, exit codes, what is written and what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import sweep
from bench.errors import DataMissing
from bench.launch import InProcess, Stopped
from bench.machine import Layout
from bench.options import normalised
from bench.registry import algorithms
from bench.runs import find_runs
from bench.slurm import Queued
from bench.spec import Places
from bench.store import Run, State
from bench.sweep import main
from tests import fakes

ROOT = Path(__file__).resolve().parents[1]


class FakePool(InProcess):
    """A pool that runs a stand-in for trials, here."""

    layout = Layout(2, 1)
    prepared: list[Any] = []

    def prepare(self, trials: Any, say: Any) -> None:
        self.prepared.extend(trials)


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Give a function that says which stand-in runs trials; the working folder holds the fake data set."""
    fakes.register(monkeypatch)
    (tmp_path / "Fake").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FakePool, "prepared", [])

    def choose(trial: Any) -> None:
        monkeypatch.setattr(sweep, "_pool", lambda options: FakePool(trial=trial))

    choose(fakes.finish)
    return choose


LAUNCH = ["launch", "--algorithms", "FakeERM", "--datasets", "Fake", "--data-dir", ".", "--n-trials", "2"]


def states() -> list[str]:
    return sorted(run.state().value for run in find_runs(Path("results")))


def test_launch_runs_everything_and_says_how_to_collect(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(LAUNCH) == 0
    assert states() == ["done"] * 6
    out = capsys.readouterr().out
    assert "6 trials: 6 done" in out
    assert "python -m bench.collect results/default" in out


def test_launch_again_launches_nothing(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    main(LAUNCH)
    run_with(fakes.fail)
    FakePool.prepared.clear()
    assert main(LAUNCH) == 0
    assert "nothing to launch: all 6 trials are done" in capsys.readouterr().out
    assert FakePool.prepared == []


def test_launch_with_more_trials_runs_only_the_new_ones(run_with: Any) -> None:
    main(LAUNCH)
    FakePool.prepared.clear()
    assert main([*LAUNCH, "--n-trials", "3"]) == 0
    assert [spec.trial_seed for spec, _ in FakePool.prepared] == [2, 2, 2]


def test_launch_sums_up_failures_and_runs_them_again(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_with(fakes.fail_second)
    assert main(LAUNCH) == 1
    out = capsys.readouterr().out
    assert "6 trials: 3 done, 3 failed" in out
    assert "ValueError: too bad" in out
    assert "error.txt" in out
    assert "rerun --failed" in out
    run_with(fakes.finish)
    assert main(LAUNCH) == 0
    assert states() == ["done"] * 6


def test_rerun_failed_runs_only_those(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_with(fakes.fail_second)
    main(LAUNCH)
    run_with(fakes.finish)
    assert main(["rerun", "--failed"]) == 0
    assert "3 trials to run again" in capsys.readouterr().out
    assert main(["rerun", "--failed"]) == 0
    assert "nothing to run again" in capsys.readouterr().out
    assert main(["rerun"]) == 2


def test_rerun_of_a_done_trial_runs_it_anew(run_with: Any) -> None:
    main(LAUNCH)
    run = find_runs(Path("results"))[0]
    assert main(["rerun", run.trial_id]) == 0
    assert run.state() is State.DONE
    assert len(list(run.folder.glob("attempt.*"))) == 2


def test_stopped_launch_says_how_to_resume(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_with(fakes.give_back)
    assert main(LAUNCH) == 130
    assert "the same command again goes on where it stopped" in capsys.readouterr().err


def test_ctrl_c_while_preparing_gives_130(run_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Any, trials: Any, say: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakePool, "prepare", interrupt)
    assert main(LAUNCH) == 130
    assert not Path("results").exists()


def test_stop_by_sigterm_gives_143(run_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Any, runs: Any, progress: Any) -> None:
        raise Stopped(15)

    monkeypatch.setattr(FakePool, "run", stop)
    assert main(LAUNCH) == 143


def test_dry_run_writes_nothing_and_shows_hparams(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LAUNCH, "--n-hparams", "3", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "18 pending" in out
    assert "not known yet" in out
    assert "lr" in out
    assert not Path("results").exists()
    main(LAUNCH)
    assert main([*LAUNCH, "--n-trials", "3", "--dry-run"]) == 0
    assert "6 done, 3 pending" in capsys.readouterr().out


def test_first_runs_the_first_trials_only(run_with: Any) -> None:
    assert main([*LAUNCH, "--first", "2"]) == 0
    assert states() == ["done", "done"]


def test_domainbeds_spelling_is_understood(run_with: Any) -> None:
    given = (
        "launch --algorithms FakeERM --datasets Fake --data_dir=. --output_dir out --n_hparams 1 --n_trials 1 --steps 3"
    )
    rest = ["--single_test_envs", "--skip_confirmation", "--holdout_fraction", "0.5", "--hparams", '{"lr": 1}']
    assert main([*given.split(), *rest]) == 0
    run = find_runs(Path("out"))[0]
    assert run.folder.parent == Path("out/default")
    assert (run.spec.steps, run.spec.holdout_fraction, run.spec.hparams["lr"]) == (3, 0.5, 1.0)
    assert run.places == Places(data_dir=str(Path().resolve()))


def test_underscores_in_values_stay() -> None:
    assert normalised(["--data_dir=my_data", "a_b", "--n_trials", "--x=--y_z"]) == [
        "--data-dir=my_data",
        "a_b",
        "--n-trials",
        "--x=--y_z",
    ]


def test_sweep_file_names_the_folder_and_options_win(run_with: Any) -> None:
    Path("mine.py").write_text(
        "from bench.sweepfile import Sweep\n\ndef trials():\n    return Sweep(algorithms='FakeERM', datasets='Fake')\n"
    )
    assert main(["launch", "mine.py", "--data-dir", ".", "--n-trials", "1"]) == 0
    assert len(find_runs(Path("results/mine"))) == 3


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--algorithms", "FakeERN"], "Did you mean 'FakeERM'"),
        (["--datasets", "Fak"], "Did you mean"),
        (["--backbone", "tinny"], "Did you mean 'tiny'"),
        (["--hparams", '{"lrr": 1}'], "Did you mean 'lr'"),
        (["--hparams", '{"lr": -1}'], "out of its range"),
        (["--data-dir", "nowhere"], "nowhere is no folder"),
        (["--captions", "no.tsv"], "--captions"),
        (["--name", "a/b"], "--name 'a/b'"),
        (["--output-dir", "file"], "is a file"),
        (["--steps", "-1"], "steps=-1"),
    ],
)
def test_bad_input_gives_one_message_and_writes_nothing(
    run_with: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    Path("file").write_text("")
    assert main([*LAUNCH, *arguments]) == 2
    captured = capsys.readouterr()
    assert part in captured.err
    assert "Traceback" not in captured.err
    assert not Path("results").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--hparams", "{lr: 1}"],
        ["--hparams", "3"],
        ["--jobs", "0"],
        ["--device", "GPU 1"],
        ["--device", "gpu"],
        ["--minutes-per-task", "nan"],
        ["--minutes-per-task", "-3"],
        ["--retry", "oom=x"],
        ["--frobnicate"],
        ["--eval", "all"],
    ],
)
def test_bad_options_give_exit_2(run_with: Any, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*LAUNCH, *arguments])
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("    Sweep(algorithms=('FakeERM',))", "'NoneType' object is not iterable"),
        ("    yield 3", "trials() returned 3"),
        ("    yield Sweep(algorithms=('FakeERM',))\n    raise TypeError('a bug')", "a bug"),
        (
            "    return Sweep(algorithms=('FakeERM',), evaluate_every='10')",
            "evaluate_every='10' (allowed: a whole number",
        ),
        ("    return Sweep(algorithms=('FakeERM',), n_hparams=2.5)", "n_hparams=2.5"),
        ("    return Sweep(algorithms=('FakeERM',), holdout_fraction='a fifth')", "holdout_fraction='a fifth'"),
    ],
)
def test_a_sweep_file_that_is_no_good_is_one_message(
    run_with: Any, capsys: pytest.CaptureFixture[str], body: str, part: str
) -> None:
    Path("mine.py").write_text(f"from bench.sweepfile import Sweep\n\n\ndef trials():\n{body}\n")
    assert main(["launch", "mine.py", "--data-dir", "."]) == 2
    said = capsys.readouterr().err
    assert part in said and "mine.py" in said and "Traceback" not in said


@pytest.mark.parametrize(
    "command", [["cancel", "--all"], ["delete_incomplete", "--yes"], ["rerun", "--failed"], ["status"]]
)
def test_a_sweep_that_is_not_there_is_no_empty_one(
    run_with: Any, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    main(LAUNCH)
    assert main([*command, "--name", "defualt"]) == 2
    assert "no trials in results/defualt" in capsys.readouterr().err


def test_delete_incomplete_leaves_what_is_in_slurms_queue(run_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    queued, other = (Run.create(Path("results/default"), fakes.make_spec(trial_seed=n), Places()) for n in range(2))
    task = Queued("array", 0, "1_0", "PENDING", "Priority", "")
    monkeypatch.setattr(sweep, "_sent", lambda runs: [Path("results/default")])
    monkeypatch.setattr("bench.slurm_sweep.queue_of", lambda sweeps: {queued.folder: task})
    assert main(["delete_incomplete", "--yes"]) == 0
    assert queued.is_there and not other.is_there


def test_launch_without_algorithms_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch"]) == 2
    assert "launch needs --algorithms" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_launch_refuses_a_folder_without_permission(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("locked").mkdir(mode=0o500)
    assert main([*LAUNCH, "--output-dir", "locked/results"]) == 2
    assert "no permission" in capsys.readouterr().err


def test_bad_images_stop_a_launch_before_anything_is_written(run_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, trials: Any, say: Any) -> None:
        raise DataMissing("broken.png cannot be decoded")

    monkeypatch.setattr(FakePool, "prepare", refuse)
    assert main(LAUNCH) == 2
    assert not Path("results").exists()


def test_run_one_trial_in_the_foreground(
    run_with: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Run.create(Path("results/default"), fakes.make_spec(), Places())
    monkeypatch.setattr("bench.launch.InProcess", lambda **options: InProcess(trial=fakes.finish))
    assert main(["run", trial.trial_id[:6]]) == 0
    assert trial.state() is State.DONE
    assert main(["run", str(trial.folder)]) == 0
    assert "is done" in capsys.readouterr().out
    assert main(["run", "zzz"]) == 2


def test_run_leaves_a_trial_alone_that_another_process_runs(
    run_with: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Run.create(Path("results/default"), fakes.make_spec(), Places())
    trial.claim().beat(1, 10, force=True)
    monkeypatch.setattr("bench.launch.InProcess", lambda **options: InProcess(trial=fakes.finish))
    assert main(["run", trial.trial_id]) == 1
    assert f"is being run by process {os.getpid()}" in capsys.readouterr().out


def test_status_shows_text_json_and_failures(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_with(fakes.fail_second)
    main(LAUNCH)
    capsys.readouterr()
    assert main(["status"]) == 0
    assert "6 trials: 3 done, 3 failed" in capsys.readouterr().out
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["failed"] == 3
    assert main(["status", "--failed", "--name", "default"]) == 0
    assert capsys.readouterr().out.count("ValueError: too bad") == 3
    assert main(["status", "--watch"]) == 0
    assert main(["status", "--name", "other"]) == 2


def test_show_and_logs_of_a_trial(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_with(fakes.fail_second)
    main(LAUNCH)
    failed = next(run for run in find_runs(Path("results")) if run.state() is State.FAILED)
    done = next(run for run in find_runs(Path("results")) if run.state() is State.DONE)
    capsys.readouterr()
    assert main(["show", failed.trial_id]) == 0
    assert "Traceback" in capsys.readouterr().out
    assert main(["show", done.trial_id]) == 0
    assert "env0_out_acc" in capsys.readouterr().out
    assert main(["logs", failed.trial_id]) == 0
    assert "ValueError: too bad" in capsys.readouterr().out


def test_delete_incomplete_keeps_what_is_done_or_running(
    run_with: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_with(fakes.fail_second)
    main(LAUNCH)
    held = Run.create(Path("results/default"), fakes.make_spec(trial_seed=7), Places())
    held.claim().beat(1, 10, force=True)
    assert main(["delete_incomplete"]) == 2, "nobody can be asked"
    assert main(["delete_incomplete", "--algorithms", "FakeERN", "--yes"]) == 2
    assert "Did you mean 'FakeERM'" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert main(["delete-incomplete"]) == 0
    assert states() == ["done"] * 3 + ["failed"] * 3 + ["running"]
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert main(["delete_incomplete"]) == 0
    assert states() == ["done"] * 3 + ["running"]
    assert "deleted 3 trials" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["algorithms", "datasets", "protocols", "backbones", "sweeps"])
def test_list_describes_every_kind_and_each_thing(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    from bench import listing

    assert main(["list", kind]) == 0
    assert capsys.readouterr().out.strip()
    names = listing.REGISTRIES.get(kind, ["pacs_tiny"])
    assert main(["list", kind, *names]) == 0
    assert capsys.readouterr().out.count("\n\n") > 0
    assert main(["list", kind, "Nonsense"]) == 2


def test_list_of_an_algorithm_shows_hparams_and_origin(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "algorithms", "FakeERM"]) == 0
    out = capsys.readouterr().out
    for part in ("nobody, nowhere", "learning rate", "0.001", "Fake=0.002", "here:1"):
        assert part in out


@pytest.mark.parametrize("arguments", [["--help"], ["launch", "--help"], ["list", "algorithms"], ["status"]])
def test_quick_commands_import_neither_torch_nor_pandas(arguments: list[str], tmp_path: Path) -> None:
    Run.create(tmp_path / "results" / "default", fakes.make_spec(), Places())
    code = (
        "import sys\nfrom bench.sweep import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'pandas', 'scipy') if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stderr.strip() == "[]"


def test_status_counts_a_thousand_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(1000):
        folder = tmp_path / "many" / f"{seed:016x}"
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps(fakes.make_spec(trial_seed=seed).to_json()))
        (folder / "attempt.1").write_text("{}")
        (folder / "status.json").write_text(json.dumps({"state": "done", "attempt": 1, "seconds": 3.0}))
        (folder / "results.jsonl").write_text("{}\n")
    assert main(["status", "--output-dir", str(tmp_path)]) == 0
    assert "1000 done" in capsys.readouterr().out


@pytest.mark.slow
def test_launch_and_collect_in_processes_of_their_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.sweep", "launch", "--algorithms", "ZeroShot", "--n-trials", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for expected in ("4 trials: 4 done", "nothing to launch"):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    collect = [sys.executable, "-m", "bench.collect", "results/", "--format", "text", "--selection", "last"]
    done = subprocess.run(collect, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ZeroShot" in done.stdout


def test_publish_copies_finished_trials_without_a_trace_of_this_machine(
    run_with: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", "shown"]) == 2
    assert "no finished trial" in capsys.readouterr().err
    main(LAUNCH)
    assert main(["publish", "shown"]) == 0
    published = find_runs(Path("shown"))
    assert len(published) == 6 and all(run.is_done for run in published)
    assert [run.records() for run in published] == [run.records() for run in find_runs(Path("results"))]
    import socket

    for path in Path("shown").rglob("*.*"):
        assert path.name in ("spec.json", "results.jsonl", "status.json", "env.json")
        assert str(tmp_path) not in path.read_text() and f'"{socket.gethostname()}"' not in path.read_text()


def test_a_sweep_is_not_continued_on_other_files_of_the_same_name(
    run_with: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(LAUNCH)
    done = next(run for run in find_runs(Path("results")) if run.is_done)
    for run in find_runs(Path("results")):
        lines = [{**record, "file_lists": ["of other files"] * 3} for record in run.records()[0]]
        (run.folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(LAUNCH) == 2
    assert "of other files than those found now" in capsys.readouterr().err
    assert done.is_done


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a second method whose trials are on the paths of the first's."""

    class FakeTwin(fakes.FakeMethod):
        """Another average of the same weights."""

    fakes._extend(monkeypatch, algorithms, {"FakeTwin": FakeTwin})
    monkeypatch.setattr(fakes.FakeMethod, "training_path", classmethod(lambda cls, hparams: hparams), raising=False)


def test_launch_and_its_preview_say_how_many_trainings_stand_behind_the_trials(
    run_with: Any, twins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*LAUNCH[:3], "FakeTwin", *LAUNCH[3:]]
    assert main([*command, "--dry-run"]) == 0
    assert "12 trials to run in 6 trainings" in capsys.readouterr().out
    assert main([*command, "--dry-run", "--no-share"]) == 0
    assert "trainings" not in capsys.readouterr().out
    assert main(LAUNCH) == 0
    assert "trainings" not in capsys.readouterr().out
    assert main(command) == 0  # the twins alone are left
    assert "12 trials, 6 to run, " in capsys.readouterr().out


def test_launch_says_what_it_trains_as_one(run_with: Any, twins: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LAUNCH[:3], "FakeTwin", *LAUNCH[3:]]) == 0
    assert "12 trials, 12 to run in 6 trainings, " in capsys.readouterr().out
