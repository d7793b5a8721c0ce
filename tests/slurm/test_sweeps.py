"""Sweeps on a real Slurm: every trial ends done, once, with the records of a sweep on this machine, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.runs import find_runs
from bench.store import Run, State
from tests.slurm.cluster import Cluster, Job

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
LONG = 600.0
"""Seconds that a wait may take on a busy machine."""

Sweep = Callable[..., subprocess.CompletedProcess[str]]


class Bench:
    """The command line, run against a cluster as its users run it."""

    def __init__(self, cluster: Cluster, folder: Path, images: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.images = images

    def environment(self) -> dict[str, str]:
        own = {
            "CLIPBED_CACHE": str(self.folder / "cache"),
            "CLIPBED_CHECKPOINT_SECONDS": "1",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        return self.cluster.environment(**own)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "bench.sweep", *words, "--output-dir", str(self.folder / "results")]

    def __call__(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            self.command(*words), env=self.environment(), cwd=ROOT, capture_output=True, text=True, timeout=600
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            env=self.environment(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def what(
        self, n_trials: int, steps: int, *, algorithms: tuple[str, ...] = ("ERM", "CLIPood"), **hparams: Any
    ) -> tuple[str, ...]:
        """Options of a sweep of 2 methods × 3 domains × `n_trials`."""
        small = json.dumps({"batch_size": 4, **hparams})
        return (
            *("--algorithms", *algorithms, "--datasets", f"folder:{self.images}", "--n-trials", str(n_trials)),
            *("--steps", str(steps), "--hparams", small, "--threads", "1"),
        )

    def on_slurm(self, name: str, *what: str) -> tuple[str, ...]:
        return ("launch", *what, "--name", name, "--launcher", "slurm", "--gpus-per-trial", "0", "--time", "30")

    def runs(self, name: str) -> list[Run]:
        return find_runs(self.folder / "results" / name)

    def records(self, name: str) -> dict[str, bytes]:
        return {run.trial_id: (run.folder / "results.jsonl").read_bytes() for run in self.runs(name) if run.is_done}

    def check_same(self, one: str, other: str) -> None:
        """Both sweeps have the same trials, done, with the same bytes of records; what differs is named."""
        left, right = self.records(one), self.records(other)
        assert left.keys() == right.keys() and right, self.state(one)
        for trial in left:
            assert _differences(left[trial], right[trial]) == []
            assert left[trial] == right[trial]

    def ends(self, name: str) -> Counter[str]:
        """Count how the trials of a sweep ended before their last attempt, as they say themselves."""
        return sum((Counter(run.status().get("ends", {})) for run in self.runs(name)), Counter())

    def wait_until_over(self, name: str) -> None:
        def over() -> bool:
            trials = self.runs(name)
            return bool(trials) and all(run.state() in (State.DONE, State.FAILED) for run in trials)

        self.cluster.wait_for("all trials to be over", over, LONG)

    def state(self, name: str) -> str:
        return self("status", "--name", name) + "".join(f"{run.trial_id} {run.status()}\n" for run in self.runs(name))


def _differences(one: bytes, other: bytes) -> list[str]:
    """Name the values in which two files of records differ."""
    lines = [[json.loads(line) for line in text.splitlines()] for text in (one, other)]
    if len(lines[0]) != len(lines[1]):
        return [f"{len(lines[0])} and {len(lines[1])} records"]
    return [
        f"step {left['step']}: {key} = {left.get(key)!r} and {right.get(key)!r}"
        for left, right in zip(*lines)
        for key in {**left, **right}
        if left.get(key) != right.get(key)
    ]


@pytest.fixture
def bench(cluster: Cluster, tmp_path: Path, small_images: Path) -> Bench:
    return Bench(cluster, tmp_path, small_images)


def running(bench: Bench, name: str) -> list[tuple[Run, dict[str, Any]]]:
    """Trials that train now, with what they say of themselves."""
    looked = [(run, *run.look()) for run in bench.runs(name)]
    return [(run, said) for run, state, said in looked if state is State.RUNNING and said.get("step", 0) >= 1]


def wait_running(
    bench: Bench, name: str, wanted: Callable[[dict[str, Any]], bool] = lambda said: True
) -> dict[str, Any]:
    """Wait for a trial that trains and whose status is as `wanted`; give the status."""

    def found() -> dict[str, Any] | None:
        return next((said for _, said in running(bench, name) if wanted(said)), None)

    return bench.cluster.wait_for("a trial to train", found, LONG)


def attempts(run: Run) -> int:
    return len(list(run.folder.glob("attempt.*")))


def test_a_sweep_through_arrays_gives_the_records_of_the_local_pool(bench: Bench) -> None:
    what = bench.what(4, 4)
    said = bench(*bench.on_slurm("slurm", *what), "--trials-per-task", "4", "--wait")
    assert "24 trials: 24 done" in said
    bench("launch", *what, "--name", "here", "--launcher", "local", "--jobs", "2")
    assert len(bench.records("here")) == 24
    bench.check_same("slurm", "here")
    assert all(attempts(run) == 1 for run in bench.runs("slurm"))
    assert "nothing to launch" in bench(*bench.on_slurm("slurm", *what))


def test_trials_that_are_trained_as_one_in_a_task_give_the_records_of_trials_by_themselves(bench: Bench) -> None:
    what = bench.what(1, 6, margin="none")
    bench("launch", *what, "--name", "alone", "--launcher", "local", "--jobs", "2", "--no-share")
    said = bench(*bench.on_slurm("shared", *what), "--wait")
    assert "3 tasks, 6 trials" in said
    bench.check_same("shared", "alone")
    company = [json.loads((run.folder / "env.json").read_text()).get("trained_with") for run in bench.runs("shared")]
    assert all(others and len(others) == 1 for others in company)


def test_faults_of_every_kind_change_no_record_and_lose_no_trial(bench: Bench) -> None:
    """A crash, an urgent job, a requeue, a kill, a time limit, and a launcher that sleeps through some of it."""
    cluster = bench.cluster
    what = bench.what(3, 100)  # enough trials that some run still when the last fault comes
    launcher = bench.start(*bench.on_slurm("slurm", *what), "--wait")
    injected: list[str] = []
    noted_as = {"crash": "node", "urgent": "preempted", "requeue": "preempted", "kill": "killed", "limit": "time"}

    def job_of(said: dict[str, Any]) -> str:
        return str(said["slurm"]["job"])

    victims: set[str] = set()

    def next_victim(spared_node: str = "") -> dict[str, Any]:
        """Give what a trial says of itself whose job nothing has happened to yet."""

        def fits(said: dict[str, Any]) -> bool:
            return job_of(said) not in victims and said["slurm"]["node"] != spared_node

        said = wait_running(bench, "slurm", fits)
        victims.add(job_of(said))
        return said

    def wait_noted(fault: str) -> None:
        """Wait until a trial says that it met the fault, so that the next one cannot hide it."""
        kind = noted_as[fault]
        least = [noted_as[each] for each in injected].count(kind)
        cluster.wait_for(f"a trial to note {kind}", lambda: bench.ends("slurm")[kind] >= least, LONG)

    hit = next_victim()
    cluster.run("scontrol", "requeue", job_of(hit))
    injected.append("requeue")
    launcher.send_signal(signal.SIGSTOP)
    wait_noted("requeue")

    hit = next_victim()
    cluster.run("scancel", "--signal=KILL", f"{job_of(hit)}.0")
    injected.append("kill")
    wait_noted("kill")

    late = next_victim()
    cluster.end_in(job_of(late), 60)
    injected.append("limit")

    hit = next_victim(spared_node=late["slurm"]["node"])
    node = hit["slurm"]["node"]
    cluster.kill_node_hard(node)
    cluster.declare_dead(node)
    injected.append("crash")
    cluster.wait_job(job_of(hit), "RUNNING", restarts=int(hit["slurm"]["restart"]) + 1, timeout=LONG)
    cluster.start_node(node)
    cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
    wait_noted("crash")

    cluster.wait_job(job_of(late), "PENDING", "RUNNING", restarts=int(late["slurm"]["restart"]) + 1, timeout=LONG)
    cluster.run("scontrol", "update", f"JobId={job_of(late)}", "TimeLimit=30")  # Slurm keeps what end_in made of it
    wait_noted("limit")

    wait_running(bench, "slurm")
    urgent = cluster.submit_urgent(2)
    cluster.wait_job(urgent, "RUNNING", "COMPLETED", timeout=LONG)
    injected.append("urgent")
    launcher.send_signal(signal.SIGCONT)

    launcher.communicate(timeout=LONG)
    bench(*bench.on_slurm("slurm", *what), "--wait")  # what a node took with it as it came back, if anything
    bench("launch", *what, "--name", "here", "--launcher", "local", "--jobs", "2")
    assert len(bench.records("here")) == 18
    bench.check_same("slurm", "here")

    seen = bench.ends("slurm")
    missed = [fault for fault in injected if not seen[noted_as[fault]]]
    assert len(injected) == 5 and not missed, (seen, bench.state("slurm"))
    assert sum(attempts(run) for run in bench.runs("slurm")) > 18


def test_the_process_of_a_dead_node_runs_on_and_its_lines_count_for_nothing(bench: Bench) -> None:
    cluster = bench.cluster
    what = (*bench.what(1, 200, algorithms=("ERM",)), "--test-domains", "0")
    bench(*bench.on_slurm("slurm", *what))
    first = wait_running(bench, "slurm")
    node, pid = first["slurm"]["node"], first["pid"]
    (run,) = bench.runs("slurm")
    os.kill(pid, signal.SIGSTOP)  # it sleeps through being declared dead, as behind a network that is down
    cluster.kill_node(node)
    cluster.declare_dead(node)

    def restarted() -> dict[str, Any] | None:
        said = run.status()
        return said if said.get("attempt", 1) > 1 and said["state"] == "running" and said["moved"] else None

    second = cluster.wait_for("the trial to start on another node", restarted, LONG)
    assert second["slurm"]["node"] != node and second["slurm"]["restart"] == 1
    os.kill(pid, signal.SIGCONT)
    bench.wait_until_over("slurm")
    assert run.status()["attempt"] == second["attempt"], run.status()
    bench("launch", *what, "--name", "here", "--launcher", "local", "--jobs", "1")
    bench.check_same("slurm", "here")
    cluster.wait_for("the zombie to notice", lambda: not Path(f"/proc/{pid}").exists(), 60)
    bench.check_same("slurm", "here")


def test_two_launchers_at_one_moment_start_each_trial_once(bench: Bench) -> None:
    what = bench.what(2, 2, algorithms=("ERM",))
    command = bench.on_slurm("slurm", *what, "--trials-per-task", "2")
    launchers = [bench.start(*command) for _ in range(2)]
    said = [launcher.communicate(timeout=LONG)[0] for launcher in launchers]
    assert all(launcher.returncode == 0 for launcher in launchers), said
    bench.wait_until_over("slurm")
    assert [attempts(run) for run in bench.runs("slurm")] == [1] * 6
    assert sum("3 tasks, 6 trials" in text for text in said) == 1, said
    assert len(bench.records("slurm")) == 6


def test_cancelled_trials_stop_with_a_checkpoint_and_go_on_when_launched_again(bench: Bench) -> None:
    what = (*bench.what(1, 300, algorithms=("ERM",)), "--test-domains", "0", "1")
    bench(*bench.on_slurm("slurm", *what), "--trials-per-task", "2")
    first = wait_running(bench, "slurm")
    bench("cancel", "--all", "--name", "slurm")
    bench.cluster.wait_for(
        "both trials to stop", lambda: all(run.state() is State.CANCELLED for run in bench.runs("slurm")), LONG
    )
    assert "2 cancelled" in bench("status", "--name", "slurm")
    stopped = next(run for run in bench.runs("slurm") if run.status().get("attempt") == first["attempt"])
    assert stopped.checkpoint_path.exists()
    bench.cluster.wait_for("the task to end", lambda: all(job.is_over for job in bench.cluster.jobs()), LONG)
    said = bench(*bench.on_slurm("slurm", *what), "--wait")
    assert "2 trials: 2 done" in said


def test_2001_trials_go_out_in_three_arrays_and_none_is_left_out(bench: Bench) -> None:
    """As many as two arrays of 1,000 hold, and one more; the nodes are taken, so that none of them runs here."""
    cluster = bench.cluster
    urgent = cluster.submit("sleep 600", "--partition=urgent", "--nodes=3", "--exclusive", "--output=/dev/null")
    cluster.wait_job(urgent, "RUNNING")
    what = bench.what(667, 1, algorithms=("ERM",))
    began = time.monotonic()
    said = bench(*bench.on_slurm("slurm", *what), "--no-prepare")
    assert said.count(" tasks, ") == 3 and "1000 tasks" in said and "array" in said
    sizes = [
        len(json.loads(path.read_text())["tasks"]) for path in bench.folder.glob("results/slurm/.slurm/*/array-*.json")
    ]
    assert sorted(sizes) == [1, 1000, 1000]
    waiting: list[Job] = [job for job in cluster.jobs() if job.name.startswith("clipbed-") and job.state == "PENDING"]
    assert len(waiting) == 2001
    assert "2001 queued" in bench("status", "--name", "slurm")
    assert "nothing to send" in bench(*bench.on_slurm("slurm", *what), "--no-prepare")
    assert len(bench.runs("slurm")) == 2001
    print(f"{time.monotonic() - began:.1f} s for two launches and a status of 2,001 trials")
