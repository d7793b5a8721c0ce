"""Packing, chunking, scripts and submission, with stand-ins for Slurm's commands on PATH."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import launches, slurm, slurm_sweep
from bench.errors import BenchError, SpecError
from bench.failures import RetryRule
from bench.launches import Array, Launch, tasks_of_trials
from bench.options import parser
from bench.places import mark_prepared
from bench.resources import Resources
from bench.slurm import Limits, Queued, SlurmError
from bench.slurm_launcher import Batch, Packing, Settings, _shares, batches, script, send, waiting
from bench.spec import Places
from bench.store import Run
from bench.sweep import _VERBS
from tests.fakes import finish, make_runs, make_spec, register

ROOMY = Limits(array=1000, tasks=10**6)
SETTINGS = Settings(packing=Packing(), retry=RetryRule.parse("none,node"))

COMMANDS = {
    "sbatch": "n=$(ls -d sent.* 2>/dev/null | wc -l)\n"
    'if [ "$n" -ge "$(cat most)" ]; then echo "sbatch: error: no more" >&2; exit 1; fi\n'
    'cp "$1" "sent.$n"; echo "Submitted batch job $((100 + n))"',
    "squeue": "cat queue",
    "scontrol": 'case "$1" in ping) cat ping;; show) cat "$2";; *) echo "$@" >> told;; esac',
    "scancel": 'echo "$@" >> cancelled',
    "sinfo": "cat gres",
    "srun": "exit 0",
    "sacctmgr": "cat limits",
}
CONFIG = "Configuration data\nMaxArraySize            = 11\nMaxJobCount = 10000\nAccountingStorageType   = (null)\n"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that do what Slurm's do as far as we look, and of the files that they answer from."""
    folder = tmp_path / "commands"
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text(f'#!/bin/sh\ncd "{folder}"\n{text}\n')
        (folder / name).chmod(0o755)
    words = {"queue": "", "ping": "Slurmctld(primary) at head is UP\n", "config": CONFIG, "gres": "gpu:2\n"}
    for name, text in {**words, "limits": "", "node": "State=IDLE", "most": "1000"}.items():
        (folder / name).write_text(text)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    tools = tmp_path / "tools"  # not all of /usr/bin, where a real Slurm may be
    tools.mkdir()
    for name in ("sh", "bash", "cat", "cp", "ls", "wc", "sleep", "git"):
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    monkeypatch.setenv("PATH", f"{folder}:{tools}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no settings"))
    monkeypatch.setattr(launches, "_POLL_SECONDS", 0.02)
    return folder


def trials(*names: str, **resources: Any) -> list[tuple[str, Resources]]:
    return [(name, Resources(**resources)) for name in names]


def tasks(*args: Any) -> list[tuple[str, ...]]:
    return [task for batch in batches(*args) for task in batch.tasks]


def nothing(trial: str) -> float | None:
    return None


# --- packing ----------------------------------------------------------------------------------------------------------


def test_trials_are_put_into_tasks_by_number() -> None:
    assert tasks(trials(*"abcde"), Packing(trials=2), nothing, ROOMY) == [("a", "b"), ("c", "d"), ("e",)]


def test_trials_are_put_into_tasks_by_minutes() -> None:
    takes = dict(zip("abcdefg", (4, 6, 1, 20, 3, 3, 3), strict=True))
    found = tasks(trials(*takes), Packing(minutes=10), takes.__getitem__, ROOMY)
    assert found == [("a", "b"), ("c",), ("d",), ("e", "f", "g")]


def test_tasks_that_run_several_trials_at_a_time_take_more_minutes() -> None:
    assert tasks(trials(*"abcd"), Packing(minutes=5, jobs=2), lambda trial: 5.0, ROOMY) == [("a", "b"), ("c", "d")]


def test_a_trial_of_unknown_length_gets_a_task_of_its_own() -> None:
    takes = {"a": 1.0, "b": None, "c": 1.0, "d": 1.0, "e": None, "f": None}
    found = tasks(trials(*takes), Packing(minutes=60), takes.__getitem__, ROOMY)
    assert found == [("a",), ("b",), ("c", "d"), ("e",), ("f",)]


def test_trials_that_ask_for_different_things_are_in_different_arrays() -> None:
    mixed = [*trials("a", cpus=1), *trials("b", cpus=2), *trials("c", cpus=1)]
    found = batches(mixed, Packing(trials=5), nothing, ROOMY)
    assert [(batch.resources.cpus, batch.tasks) for batch in found] == [(1, (("a", "c"),)), (2, (("b",),))]


def test_no_trials_are_no_arrays() -> None:
    assert batches([], Packing(), nothing, ROOMY) == []


def test_2001_trials_against_a_limit_of_1001_are_three_arrays() -> None:
    found = batches(trials(*map(str, range(2001))), Packing(), nothing, Limits(array=1000, tasks=10**6))
    assert [len(batch.tasks) for batch in found] == [1000, 1000, 1]


def test_tasks_are_filled_where_the_cluster_takes_no_more_of_them() -> None:
    found = tasks(trials(*map(str, range(100))), Packing(), nothing, Limits(array=1000, tasks=11))
    assert len(found) == 10
    assert tasks(trials(*map(str, range(100))), Packing(minutes=1), lambda trial: 1.0, Limits(1000, 11)) == found


@given(
    asked=st.lists(st.tuples(st.integers(1, 3), st.none() | st.floats(0.1, 50)), max_size=60),
    n_trials=st.integers(1, 7),
    minutes=st.none() | st.floats(0.5, 60),
    jobs=st.integers(1, 3),
    array=st.integers(1, 9),
    room=st.integers(1, 80),
    parallel=st.none() | st.integers(1, 20),
)
def test_however_it_is_packed_each_trial_is_in_one_task(
    asked: list[tuple[int, float | None]],
    n_trials: int,
    minutes: float | None,
    jobs: int,
    array: int,
    room: int,
    parallel: int | None,
) -> None:
    named = [(f"{i:03d}", Resources(cpus=cpus, parallel=parallel)) for i, (cpus, _) in enumerate(asked)]
    takes = {f"{i:03d}": length for i, (_, length) in enumerate(asked)}
    packing = Packing(trials=n_trials, minutes=minutes, jobs=jobs)
    found = batches(named, packing, takes.__getitem__, Limits(array=array, tasks=room))

    inside = [trial for batch in found for task in batch.tasks for trial in task]
    assert sorted(inside) == sorted(takes)
    cpus_of = {trial: resources.cpus for trial, resources in named}
    for batch in found:
        assert 1 <= len(batch.tasks) <= array
        assert all(batch.tasks) and (batch.parallel is None) == (parallel is None)
        assert {cpus_of[trial] for task in batch.tasks for trial in task} == {batch.resources.cpus}
    for cpus in set(cpus_of.values()):  # those that ask for the same keep their order
        kept = [trial for batch in found if batch.resources.cpus == cpus for task in batch.tasks for trial in task]
        assert kept == sorted(kept)
    n_tasks, n_groups = sum(len(batch.tasks) for batch in found), len(set(cpus_of.values()))
    assert n_tasks <= room or n_groups >= room


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 120))
def test_shares_of_a_limit_keep_to_it_and_use_it(sizes: list[int], limit: int) -> None:
    shares = [share or 0 for share in _shares(sizes, [limit] * len(sizes))]
    assert all(1 <= share <= size for share, size in zip(shares, sizes, strict=True))
    assert sum(shares) == max(len(sizes), min(limit, sum(sizes)))


def test_a_limit_is_divided_in_proportion_and_among_its_own_arrays() -> None:
    assert _shares([1000, 1000, 500], [10, 10, 10]) == [4, 4, 2]
    assert _shares([3, 3], [3, 3]) == [2, 1]
    assert _shares([100, 100, 100], [8, None, 4]) == [8, None, 4]


# --- scripts ----------------------------------------------------------------------------------------------------------


def headers(text: str) -> set[str]:
    return {line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")}


@pytest.mark.usefixtures("cluster")
def test_the_script_asks_for_what_was_asked_for(tmp_path: Path) -> None:
    resources = Resources(
        partition="gpu",
        account="lab",
        qos="high",
        constraint="a100|h100",
        exclude="bad[1-2]",
        time=90.5,
        memory=24,
        cpus=6,
        gpus=2,
        setup=("module load cuda", "export A='b c'"),
        sbatch=("mail-type=END", "exclusive"),
    )
    batch = Batch(resources=resources, tasks=(("a",),) * 7, parallel=3)
    text = script(tmp_path / "my sweep", batch, SETTINGS)
    assert headers(text) >= {
        "--partition=gpu",
        "--account=lab",
        "--qos=high",
        "--constraint='a100|h100'",
        "--exclude='bad[1-2]'",
        "--time=91",
        "--mem=24576M",
        "--cpus-per-task=6",
        "--gpus-per-node=2",
        "--array=0-6%3",
        "--signal=USR2@120",
        "--mail-type=END",
        "--exclusive",
        "--requeue",
    }
    lines = text.splitlines()
    assert lines.index("module load cuda") < lines.index("export A='b c'")
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    assert any("bench.array_task run" in line and "'" in line for line in lines)  # the folder's blank is quoted


@pytest.mark.usefixtures("cluster")
def test_what_was_not_asked_for_is_left_to_the_cluster(tmp_path: Path) -> None:
    text = script(tmp_path, Batch(resources=Resources(requeue=False), tasks=(("a",),)), SETTINGS)
    for name in ("partition", "account", "qos", "constraint", "exclude", "time", "mem", "gpus-per-node", "wckey"):
        assert f"--{name}=" not in text
    assert "#SBATCH --no-requeue" in text and "#SBATCH --requeue" not in text


@pytest.mark.usefixtures("cluster")
def test_a_snapshot_is_what_tasks_run_from(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, code_folder=tmp_path / ".code" / "abc")
    text = script(tmp_path, Batch(resources=Resources(), tasks=(("a",),)), settings)
    assert f"#SBATCH --chdir={tmp_path}/.code/abc" in text
    assert f"export PYTHONPATH={tmp_path}/.code/abc" in text


def test_a_task_that_starts_elsewhere_finds_its_file(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    slurm_sweep.launch(wanted(1), Path("results/sweep"), options("--snapshot"), lambda text: None)
    text = (cluster / "sent.0").read_text()
    (code,) = (tmp_path / "results" / "sweep" / ".code").iterdir()
    assert f"--chdir={code}" in headers(text)
    array = tmp_path / "results" / "sweep" / launches.FOLDER / "0001" / "array-0.json"
    assert f"bench.array_task run {array}" in text
    assert text.count("array-0") == text.count(str(array.with_suffix("")))


# --- submission -------------------------------------------------------------------------------------------------------


def test_arrays_are_written_before_they_are_sent_and_named_so_that_they_are_found(
    cluster: Path, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    lines: list[str] = []
    launch = Launch.claim(sweep)
    plan = [
        Batch(resources=Resources(), tasks=(("a", "b"), ("c",))),
        Batch(resources=Resources(cpus=2), tasks=(("d",),)),
    ]
    assert send(sweep, plan, SETTINGS, launch, lines.append, after="77") == ["100", "101"]
    names = [array.name for array in launches.arrays(sweep)]
    for i, name in enumerate(names):
        assert {f"--job-name={name}", "--dependency=afterany:77"} <= headers((cluster / f"sent.{i}").read_text())
    assert tasks_of_trials(sweep) == {
        t: (names[k], i) for t, k, i in [("a", 0, 0), ("b", 0, 0), ("c", 0, 1), ("d", 1, 0)]
    }
    assert lines == ["array 100: 2 tasks, 3 trials", "array 101: 1 tasks, 1 trials"]
    (cluster / "queue").write_text(
        f"{names[0]}|100|0|RUNNING|None|n1\n{names[0]}|100|1|PENDING|Priority|\n{names[1]}|101|N/A|PENDING|Resources|\n"
    )
    assert waiting(sweep) == {
        sweep / "a": Queued(names[0], 0, "100_0", "RUNNING", "None", "n1"),
        sweep / "b": Queued(names[0], 0, "100_0", "RUNNING", "None", "n1"),
        sweep / "c": Queued(names[0], 1, "100_1", "PENDING", "Priority", ""),
    }


def test_the_arrays_file_says_how_its_trials_are_run(cluster: Path, tmp_path: Path) -> None:
    launch = Launch.claim(tmp_path / "sweep")
    settings = Settings(packing=Packing(jobs=2), retry=RetryRule.parse("oom=3"), device="cpu")
    send(tmp_path / "sweep", [Batch(resources=Resources(cpus=6), tasks=(("a",),))], settings, launch, lambda text: None)
    array = Array.read(launch.folder / "array-0.json")
    assert array is not None
    assert (array.threads, array.jobs, array.device) == (3, 2, "cpu")
    assert RetryRule.parse(array.retry) == settings.retry
    assert (cluster / "sent.0").exists()


def test_what_users_set_for_sbatch_holds_where_no_option_says_otherwise(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (cluster / "sbatch").open("a") as file:
        file.write('\necho "$SBATCH_ACCOUNT,$SBATCH_PARTITION,$SBATCH_ARRAY_INX" > environment\n')
    values = {"SBATCH_ACCOUNT": "lab", "SBATCH_PARTITION": "old", "SBATCH_ARRAY_INX": "0-1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    batch = Batch(resources=Resources(partition="new"), tasks=(("a",),))
    send(tmp_path / "sweep", [batch], SETTINGS, Launch.claim(tmp_path / "sweep"), lambda text: None)
    assert (cluster / "environment").read_text().strip() == "lab,,"


def test_what_users_set_for_their_own_looks_at_the_queue_hides_nothing(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster / "squeue").write_text(f'#!/bin/sh\necho "$@,$SQUEUE_STATES" > "{cluster}/asked"\n')
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    slurm.queue(["a"])
    assert (cluster / "asked").read_text().startswith("--all") and (cluster / "asked").read_text().endswith(",\n")


def test_an_sbatch_that_says_no_number_is_told_and_its_array_is_known(cluster: Path, tmp_path: Path) -> None:
    with (cluster / "sbatch").open("a") as file:
        file.write("\n")
    text = (cluster / "sbatch").read_text()
    (cluster / "sbatch").write_text(text.replace('echo "Submitted batch job', ': "'))
    launch = Launch.claim(tmp_path / "sweep")
    with pytest.raises(SpecError, match="said no number"):
        send(tmp_path / "sweep", [Batch(resources=Resources(), tasks=(("a",),))], SETTINGS, launch, lambda text: None)
    assert list(tasks_of_trials(tmp_path / "sweep")) == ["a"]


def test_tasks_that_run_several_trials_at_a_time_have_them(cluster: Path, tmp_path: Path) -> None:
    plan = slurm_sweep.plan(wanted(5), tmp_path / "sweep", options("--jobs", "2"))
    assert [len(task) for batch in plan.batches for task in batch.tasks] == [2, 2, 1]


def test_trials_have_as_long_as_the_warning_leaves(cluster: Path, tmp_path: Path) -> None:
    for minutes, grace in ((None, 90), (600, 90), (4, 30), (1, 20)):
        sweep = tmp_path / str(minutes)
        batch = Batch(resources=Resources(time=minutes), tasks=(("a",),))
        send(sweep, [batch], SETTINGS, launch := Launch.claim(sweep), lambda text: None)
        array = Array.read(launch.folder / "array-0.json")
        assert array is not None and array.grace == grace


def test_what_sbatch_refuses_is_said_once_and_is_not_taken_for_sent(
    cluster: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (cluster / "most").write_text("1")
    launch = Launch.claim(tmp_path / "sweep")
    plan = [Batch(resources=Resources(), tasks=((name,),)) for name in "ab"]
    with pytest.raises(SpecError, match=r"sbatch refused .*array-1: sbatch: error: no more"):
        send(tmp_path / "sweep", plan, SETTINGS, launch, lambda text: None)
    assert list(tasks_of_trials(tmp_path / "sweep")) == ["a"]
    assert launch.next_array().name == "array-1.json"
    assert "no more" not in "".join(capfd.readouterr())


# --- launch, as the command does it -----------------------------------------------------------------------------------


def options(*words: str) -> Any:
    return parser(_VERBS).parse_args(["launch", "--algorithms", "FakeERM", "--no-prepare", *words])


def wanted(n: int) -> list[Any]:
    return [(make_spec(trial_seed=seed), Places()) for seed in range(n)]


def queue_everything(cluster: Path, sweep: Path) -> None:
    lines = [f"{name}|1|{index}|PENDING|Priority|" for name, index in dict.fromkeys(tasks_of_trials(sweep).values())]
    (cluster / "queue").write_text("\n".join(lines))


def test_a_launch_sends_each_trial_once_and_a_second_one_sends_nothing(cluster: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    assert slurm_sweep.launch(wanted(25), sweep, options(), lambda text: None) == 25
    assert [len(array.tasks) for array in launches.arrays(sweep)] == [10, 10, 5]  # MaxArraySize is 11
    queue_everything(cluster, sweep)
    said: list[str] = []
    assert slurm_sweep.launch(wanted(25), sweep, options(), said.append) == 0
    assert said == ["25 of 25 trials are in the queue or running"]
    assert len(launches.launches(sweep)) == 1  # the claim of the second one was withdrawn
    assert len(list(cluster.glob("sent.*"))) == 3


def test_what_is_done_running_or_queued_is_not_sent(cluster: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    runs = make_runs(sweep, 4)
    finish(str(runs[0].folder), threads=None, device=None)
    runs[1].claim().beat(1, 10, force=True)  # by this process, outside of Slurm
    assert slurm_sweep.launch(wanted(4), sweep, options(), lambda text: None) == 2
    assert set(tasks_of_trials(sweep)) == {runs[2].trial_id, runs[3].trial_id}


def test_a_trial_whose_job_is_gone_is_sent_again_though_its_heart_seems_to_beat(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tmp_path / "sweep"
    slurm_sweep.launch(wanted(1), sweep, options(), lambda text: None)
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.setenv(name, "100")
    Run(sweep / make_spec().trial_id).claim().beat(1, 10, force=True)
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name)
    assert slurm_sweep.launch(wanted(1), sweep, options(), lambda text: None) == 1


def test_a_trial_that_somebody_runs_by_hand_in_an_allocation_is_held(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tmp_path / "sweep"
    slurm_sweep.launch(wanted(1), sweep, options(), lambda text: None)
    monkeypatch.setenv("SLURM_JOB_ID", "100")
    Run(sweep / make_spec().trial_id).claim().beat(1, 10, force=True)
    monkeypatch.delenv("SLURM_JOB_ID")
    assert slurm_sweep.launch(wanted(1), sweep, options(), lambda text: None) == 0


def test_what_was_cancelled_or_failed_in_a_task_that_goes_on_is_pending_again(cluster: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    slurm_sweep.launch(wanted(3), sweep, options("--trials-per-task", "3"), lambda text: None)
    queue_everything(cluster, sweep)
    runs = [Run(sweep / spec.trial_id) for spec, _ in wanted(3)]
    runs[0].cancel()
    runs[1].claim().fail("trace", "line")
    assert slurm_sweep.launch(wanted(3), sweep, options(), lambda text: None) == 0
    assert [run.state().value for run in runs] == ["pending"] * 3  # the task finds them when it looks what is left


def test_running_again_with_a_bad_option_loses_nothing(cluster: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    done, failed = make_runs(sweep, 2)
    finish(str(done.folder), threads=None, device=None)
    failed.claim().fail("trace", "line")
    with pytest.raises(SpecError, match="time limit 'soon'"):
        slurm_sweep.launch(wanted(2), sweep, options("--time", "soon"), lambda text: None, again=True)
    assert [done.state().value, failed.state().value] == ["done", "failed"]
    assert slurm_sweep.launch(wanted(2), sweep, options(), lambda text: None, again=True) == 2
    assert [done.state().value, failed.state().value] == ["pending", "pending"]


def test_following_waits_for_a_trial_that_waits_for_its_retry(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tmp_path / "sweep"
    slurm_sweep.launch(wanted(1), sweep, options(), lambda text: None)
    queue_everything(cluster, sweep)
    run = Run(sweep / make_spec().trial_id)
    run.claim().fail("OSError", "no space left", "disk")
    monkeypatch.setattr(slurm_sweep, "_FOLLOW_SECONDS", 0.0)

    class Progress:
        ticks = 0

        def tick(self) -> None:
            self.ticks += 1

    looks = iter(range(9))

    def queue_of(sweeps: Any) -> Any:
        if next(looks) == 3:  # its task tried it again
            run.reset(keep_ends=True)
            finish(str(run.folder), threads=None, device=None)
        return waiting(*sweeps)

    monkeypatch.setattr(slurm_sweep, "queue_of", queue_of)
    slurm_sweep.follow(sweep, [run], Progress())
    assert run.is_done


def test_a_launch_that_is_refused_says_so_and_the_next_one_sends_what_was_left(cluster: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    (cluster / "most").write_text("1")
    with pytest.raises(SpecError, match="sbatch refused"):
        slurm_sweep.launch(wanted(15), sweep, options(), lambda text: None)
    assert "sbatch refused" in launches.launches(sweep)[0].details()["error"]
    queue_everything(cluster, sweep)
    (cluster / "most").write_text("9")
    assert slurm_sweep.launch(wanted(15), sweep, options(), lambda text: None) == 5
    assert len(tasks_of_trials(sweep)) == 15


def test_bad_settings_end_a_launch_before_anything_is_written(cluster: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="time limit"):
        slurm_sweep.launch(wanted(1), tmp_path / "sweep", options("--time", "soon"), lambda text: None)
    assert not (tmp_path / "sweep").exists()


def test_a_preparation_counts_among_the_tasks_that_may_be_submitted(cluster: Path, tmp_path: Path) -> None:
    (cluster / "config").write_text(CONFIG.replace("10000", "20"))  # half of it is ours: 10
    chosen = options("--cache", str(tmp_path / "cache"))
    chosen.prepare = True
    found = [(spec, Places(cache=str(tmp_path / "cache"))) for spec, _ in wanted(10)]
    plan = slurm_sweep.plan(found, tmp_path / "sweep", chosen)
    assert plan.prepare is not None and len(plan.prepare.tasks) == 1
    assert sum(len(batch.tasks) for batch in plan.batches) <= 9


def test_data_are_prepared_once_under_the_longest_limit(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clipbed.toml").write_text(
        '[slurm]\ntime = "1h"\n[[slurm.when]]\nalgorithm = "FakeZero"\ntime = "9h"\ngpus = 2\n'
    )
    monkeypatch.chdir(tmp_path)
    register(monkeypatch)
    chosen = options()
    chosen.prepare = True
    here = Places(cache=str(tmp_path / "cache"))
    found = [(spec, here) for spec, _ in wanted(3)] + [(make_spec(algorithm="FakeZero"), here)]
    found += [(make_spec(dataset="FakeIcons"), here)]
    prepare = slurm_sweep.plan(found, tmp_path / "sweep", chosen).prepare
    assert prepare is not None
    assert prepare.tasks == ((found[0][0].trial_id,), (found[-1][0].trial_id,))
    assert prepare.resources.time == 540
    mark_prepared(*found[0])
    mark_prepared(*found[-1])
    assert slurm_sweep.plan(found, tmp_path / "sweep", chosen).prepare is None


def test_a_rule_for_what_there_is_not_is_refused(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clipbed.toml").write_text(
        '[[slurm.when]]\nalgorithm = ["ERM", "domainbed:CORAL"]\ndataset = "folder:x"\nbackbone = "ViT-B-16"\ngpus = 2\n'
    )
    slurm_sweep.plan(wanted(1), tmp_path / "sweep", options())
    (tmp_path / "clipbed.toml").write_text('[[slurm.when]]\nalgorithm = "CLIPod"\nbackbone = "ViT-B16"\ngpus = 2\n')
    with pytest.raises(BenchError, match=r"(?s)'CLIPod'.*'CLIPood'.*'ViT-B16'") as raised:
        slurm_sweep.plan(wanted(1), tmp_path / "sweep", options())
    assert "slurm.when" in str(raised.value)


def test_the_dry_run_tells_arrays_tasks_and_what_is_not_known(cluster: Path, tmp_path: Path) -> None:
    plan = slurm_sweep.plan(wanted(25), tmp_path / "sweep", options("--partition", "gpu", "--setup", "module load a"))
    text = slurm_sweep.describe(plan, tmp_path / "sweep")
    assert "3 arrays of 10, 10, 5 tasks" in text and "3 arrays, 25 tasks, 25 trials" in text
    assert "#SBATCH --partition=gpu" in text and "#SBATCH --gpus-per-node=1" in text and "\nmodule load a" in text
    assert "25 trials of kinds of which none has finished yet are not estimated" in text
    assert not (tmp_path / "sweep").exists()


def test_hours_are_estimated_from_finished_trials_of_the_same_kind(cluster: Path, tmp_path: Path) -> None:
    (run,) = make_runs(tmp_path / "sweep", 1)
    finish(str(run.folder), threads=None, device=None)
    status = run.folder / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "seconds": 1800.0}))
    plan = slurm_sweep.plan(wanted(9)[1:], tmp_path / "sweep", options("--gpus-per-trial", "2"))
    assert "estimate: about 8 GPU hours" in slurm_sweep.describe(plan, tmp_path / "sweep")


# --- what Slurm says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "there"),
    [
        ("Slurmctld(primary) at head is UP", True),
        ("Slurmctld(primary) at UPPER is DOWN", False),
        ("Slurmctld(primary) at a is DOWN\nSlurmctld(backup) at b is UP", True),
        ("Slurmctld(primary/backup) at a/b are DOWN/UP", True),
    ],
)
def test_a_controller_is_there_when_it_answers(cluster: Path, words: str, there: bool) -> None:
    (cluster / "ping").write_text(words)
    assert slurm.is_there() is there
    (cluster / "squeue").unlink()
    assert not slurm.is_there()


def test_limits_are_those_of_the_controller_the_queue_and_the_accounts(cluster: Path) -> None:
    (cluster / "queue").write_text("1\n2\n3\n")
    assert slurm.limits() == Limits(array=10, tasks=5000 - 3)
    (cluster / "limits").write_text("\n40\n")
    assert slurm.limits() == Limits(array=10, tasks=5000 - 3)  # without accounting nobody is asked
    (cluster / "config").write_text(CONFIG.replace("(null)", "accounting_storage/slurmdbd"))
    assert slurm.limits() == Limits(array=10, tasks=37)


def test_a_node_has_failed_when_it_is_down_or_was_started_since(cluster: Path) -> None:
    (cluster / "node").write_text("NodeName=n1 State=IDLE BootTime=500 SlurmdStartTime=2000 LastBusyTime=9000")
    assert slurm.node_failed_since("n1", 1999.0)
    assert not slurm.node_failed_since("n1", 2001.0)
    (cluster / "node").write_text("NodeName=n1 State=DOWN+NOT_RESPONDING BootTime=500 SlurmdStartTime=600")
    assert slurm.node_failed_since("n1", 5000.0)
    assert not slurm.node_failed_since("", 0.0)


def test_commands_that_are_not_there_or_fail_are_named(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cluster / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact' >&2; exit 1\n")
    with pytest.raises(SlurmError, match=r"`squeue --all -h` failed: slurm_load_jobs error: Unable to contact"):
        slurm.queue({"a"})
    assert slurm.queue(set()) == {}
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SlurmError, match="there is no squeue here"):
        slurm.queue({"a"})


def test_a_command_that_does_not_answer_is_given_up(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cluster / "scontrol").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(slurm, "SECONDS", 0.2)
    with pytest.raises(SlurmError, match="did not answer"):
        slurm.cluster_settings()
    assert not slurm.is_there()


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_a_task_is_taken_out_of_the_queue_when_nothing_is_left_for_it(cluster: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    slurm_sweep.launch(wanted(4), sweep, options("--trials-per-task", "2"), lambda text: None)
    queue_everything(cluster, sweep)
    runs = [Run(sweep / spec.trial_id) for spec, _ in wanted(4)]
    assert slurm_sweep.cancel(runs[:3], lambda text: None) == 3
    assert (cluster / "cancelled").read_text().split() == ["--quiet", "1_0"]
    assert [run.state().value for run in runs] == ["cancelled"] * 3 + ["pending"]


def test_a_neighbour_that_was_lost_keeps_its_task(cluster: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    slurm_sweep.launch(wanted(2), sweep, options("--trials-per-task", "2"), lambda text: None)
    queue_everything(cluster, sweep)  # it was preempted and waits for its next start
    lost, other = (Run(sweep / spec.trial_id) for spec, _ in wanted(2))
    lost.claim().beat(5, 10, force=True)
    (lost.folder / "status.json").write_text(json.dumps({**lost.status(), "host": "n1", "heartbeat": 0}))
    assert lost.state().value == "lost"
    slurm_sweep.cancel([other], lambda text: None)
    assert not (cluster / "cancelled").exists()


def test_data_go_on_being_prepared_until_every_trial_is_cancelled(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch)
    sweep = tmp_path / "sweep"
    chosen = parser(_VERBS).parse_args(["launch", "--algorithms", "FakeERM"])
    found = [(spec, Places(cache=str(tmp_path / "cache"))) for spec, _ in wanted(2)]
    slurm_sweep.launch(found, sweep, chosen, lambda text: None)
    arrays = list(launches.arrays(sweep))
    assert [array.prepares for array in arrays] == [True, False]
    lines = [
        f"{array.name}|{number}|{i}|PENDING|P|" for number, array in enumerate(arrays) for i in range(len(array.tasks))
    ]
    (cluster / "queue").write_text("\n".join(lines))
    runs = [Run(sweep / spec.trial_id) for spec, _ in found]
    slurm_sweep.cancel(runs[:1], lambda text: None)
    assert (cluster / "cancelled").read_text().split() == ["--quiet", "1_0"]
    (cluster / "cancelled").unlink()
    slurm_sweep.cancel(runs[1:], lambda text: None)
    assert {"0_0", "1_1"} <= set((cluster / "cancelled").read_text().split())


def test_cancelling_everything_leaves_failures_to_be_seen(cluster: Path, tmp_path: Path) -> None:
    failed, pending = make_runs(tmp_path / "sweep", 2)
    failed.claim().fail("trace", "line")
    assert slurm_sweep.cancel([failed, pending], lambda text: None) == 1
    assert [failed.state().value, pending.state().value] == ["failed", "cancelled"]


def test_cancelling_works_where_no_slurm_answers(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm_sweep.launch(wanted(1), tmp_path / "sweep", options(), lambda text: None)
    monkeypatch.setenv("PATH", "/nowhere")
    run = Run(tmp_path / "sweep" / make_spec().trial_id)
    assert slurm_sweep.cancel([run], lambda text: None) == 1
    assert run.state().value == "cancelled"


def test_the_log_of_a_trial_is_its_latest_tasks(cluster: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    for number in ("100", "101"):
        slurm_sweep.launch(wanted(2), sweep, options(), lambda text: None)
        folder = launches.launches(sweep)[-1].folder / "array-0"
        for index in (0, 1):
            (folder / f"{number}_{index}_0_log.out").write_text(f"{number} {index}")
    found = slurm_sweep.task_log(Run(sweep / wanted(2)[1][0].trial_id))
    assert found is not None and found.read_text() == "101 1"


# --- trials that are trained as one --------------------------------------------------------------------------------------


def test_trials_on_one_path_are_in_one_task() -> None:
    paths = dict(zip("abcdef", ("x", None, "x", "y", "x", "y"), strict=True))
    args = (nothing, ROOMY, paths.__getitem__)
    assert tasks(trials(*paths), Packing(), *args) == [("a", "c", "e"), ("b",), ("d", "f")]
    assert tasks(trials(*paths), Packing(trials=2), *args) == [("a", "c", "e", "b"), ("d", "f")]


def test_trials_on_one_path_that_ask_for_different_things_are_sent_apart() -> None:
    mixed = [*trials("a", cpus=1), *trials("b", cpus=2), *trials("c", cpus=1)]
    found = batches(mixed, Packing(), nothing, ROOMY, lambda trial: "x")
    assert [batch.tasks for batch in found] == [(("a", "c"),), (("b",),)]


def test_trials_on_one_path_take_the_minutes_of_the_longest() -> None:
    takes = {"a": 4.0, "b": 6.0, "c": 4.0, "d": 5.0}
    paths = {"a": "x", "b": "x", "c": None, "d": None}
    args = (takes.__getitem__, ROOMY, paths.__getitem__)
    assert tasks(trials(*takes), Packing(minutes=10), *args) == [("a", "b", "c"), ("d",)]


def test_a_full_cluster_gets_fewer_tasks_of_more_trainings() -> None:
    names = [f"{number}{twin}" for number in range(10) for twin in "ab"]
    few = Limits(array=1000, tasks=6)
    found = batches(trials(*names), Packing(), nothing, few, lambda trial: trial[:-1])
    assert sum(len(batch.tasks) for batch in found) <= 6
    for batch in found:
        for task in batch.tasks:
            assert all(name[:-1] + twin in task for name in task for twin in "ab")


def test_an_array_tells_its_tasks_whether_to_share(cluster: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    for share in (True, False):
        launch = Launch.claim(sweep)
        settings = dataclasses.replace(SETTINGS, share=share)
        send(sweep, [Batch(resources=Resources(), tasks=(("a", "b"),))], settings, launch, lambda text: None)
        launch.finish()
        array = Array.read(launch.folder / "array-0.json")
        assert array is not None and array.share is share


def test_the_dry_run_counts_trainings_and_estimates_each_once(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        slurm_sweep, "paths_of", lambda specs: {spec.trial_id: f"half {spec.trial_seed % 2}" for spec in specs}
    )
    sweep = tmp_path / "sweep"
    done, *left = wanted(5)
    finish(str(Run.create(sweep, *done).folder), threads=None, device=None)
    status = sweep / done[0].trial_id / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "seconds": 3600}))
    text = slurm_sweep.describe(slurm_sweep.plan(left, sweep, options("--gpus-per-trial", "1")), sweep)
    assert "1 arrays, 2 tasks, 4 trials in 2 trainings" in text and "about 2 GPU hours" in text
    text = slurm_sweep.describe(slurm_sweep.plan(left, sweep, options("--gpus-per-trial", "1", "--no-share")), sweep)
    assert "1 arrays, 4 tasks, 4 trials\n" in text and "about 4 GPU hours" in text
