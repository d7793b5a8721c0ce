"""The test cluster does what the launcher is built on: the behaviour of Slurm that `bench` relies on, seen on a real one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing
from tests.slurm.processes import NODES, processes

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
LONG = 1000.0
"""Seconds that a job lasts which is to be running still when the test has done its work."""
ONE_GPU = ("--gpus-per-node=1", "--open-mode=append", "--requeue")
TASK = """
import os, signal, sys, time
names = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "CUDA_VISIBLE_DEVICES",
         "SLURMD_NODENAME", "SLURM_JOB_END_TIME")
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda number, _: print("got", signal.Signals(number).name, flush=True))
print("start", *(f"{name}={os.environ.get(name, '-')}" for name in names), flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    time.sleep(0.05)
print("end", flush=True)
"""


def send(cluster: Cluster, name: str, seconds: float, *options: str) -> str:
    """Send a job whose step lasts `seconds` and whose log is `name`; give the job's id."""
    (cluster.folder / "task.py").write_text(TASK)
    script = f'srun {sys.executable} {cluster.folder}/task.py {seconds}\necho "after srun: $?"'
    return cluster.submit(script, *ONE_GPU, f"--output={name}", *options)


def log(cluster: Cluster, name: str) -> str:
    file = cluster.folder / name
    return file.read_text() if file.exists() else ""


def starts(cluster: Cluster, name: str) -> list[dict[str, str]]:
    """Give what each attempt saw in its environment."""
    lines = [line for line in log(cluster, name).splitlines() if line.startswith("start ")]
    return [dict(word.split("=", 1) for word in line.split()[1:]) for line in lines]


def wait_start(cluster: Cluster, name: str, attempts: int = 1) -> None:
    cluster.wait_for(f"attempt {attempts} in {name}", lambda: len(starts(cluster, name)) >= attempts)


def test_an_array_runs_and_its_tasks_know_who_they_are(cluster: Cluster) -> None:
    array = send(cluster, "array_%a.log", 0.5, "--array=0-2")
    for index in range(3):
        assert cluster.wait_job(f"{array}_{index}", "COMPLETED").name.startswith("script")
        (seen,) = starts(cluster, f"array_{index}.log")
        assert (seen["SLURM_ARRAY_JOB_ID"], seen["SLURM_ARRAY_TASK_ID"]) == (array, str(index))
        assert seen["CUDA_VISIBLE_DEVICES"] in ("0", "1")
        assert seen["SLURM_RESTART_COUNT"] == "-"  # set from the second attempt on
        assert log(cluster, f"array_{index}.log").splitlines()[-2:] == ["end", "after srun: 0"]


def test_a_requeued_job_starts_again_within_seconds_under_the_same_number(cluster: Cluster) -> None:
    job = send(cluster, "requeued.log", LONG)
    wait_start(cluster, "requeued.log")
    began = time.monotonic()
    cluster.run("scontrol", "requeue", job)
    wait_start(cluster, "requeued.log", 2)
    assert time.monotonic() - began < 100  # KillWait 5 s, then 10 s until it may start; as installed, Slurm takes 120
    first, second = starts(cluster, "requeued.log")
    assert second["SLURM_RESTART_COUNT"] == "1"
    assert first["SLURM_JOB_ID"] == second["SLURM_JOB_ID"] == job
    assert cluster.job(job).restarts == 1
    assert "DUE TO JOB REQUEUE ***" in log(cluster, "requeued.log")
    assert "after srun" not in log(cluster, "requeued.log")  # the batch script ends with its job


def test_a_dead_nodes_job_restarts_elsewhere_while_its_process_lives_on(start_cluster: Callable[..., Cluster]) -> None:
    cluster = start_cluster(silence=10)
    job = send(cluster, "zombie.log", LONG)
    wait_start(cluster, "zombie.log")
    node = cluster.job(job).node
    (zombie,) = cluster.job_pids(job, tasks=True)
    cluster.kill_node(node)
    wait_start(cluster, "zombie.log", 2)
    elsewhere = cluster.wait_job(job, "RUNNING", restarts=1).node
    assert elsewhere != node
    assert zombie in cluster.step_pids(node)
    assert len(cluster.job_pids(job, tasks=True)) == 2
    # a trap: the batch script on the dead node goes on too, and is told that its step went well
    assert "Node failure on" in log(cluster, "zombie.log")
    assert "after srun: 0" in log(cluster, "zombie.log")
    cluster.start_node(node)
    cluster.wait_for("the zombie to be ended by its node's return", lambda: not cluster.step_pids(node))
    assert cluster.job(job).state == "RUNNING"


def test_a_crash_ends_a_nodes_processes_and_the_job_restarts_elsewhere(cluster: Cluster) -> None:
    job = send(cluster, "crash.log", LONG)
    wait_start(cluster, "crash.log")
    node = cluster.job(job).node
    cluster.kill_node_hard(node)
    assert cluster.step_pids(node) == []
    cluster.declare_dead(node)
    wait_start(cluster, "crash.log", 2)
    assert [seen["SLURMD_NODENAME"] == node for seen in starts(cluster, "crash.log")] == [True, False]
    assert "***" not in log(cluster, "crash.log")  # nobody was left to write a last line


def test_an_urgent_job_preempts_without_early_signal(cluster: Cluster) -> None:
    jobs = [send(cluster, f"preempted_{i}.log", LONG, "--signal=USR2@60") for i in range(3)]
    for i in range(3):
        wait_start(cluster, f"preempted_{i}.log")
    urgent = cluster.submit_urgent(len(NODES))
    cluster.wait_job(urgent, "COMPLETED")
    for i, job in enumerate(jobs):
        wait_start(cluster, f"preempted_{i}.log", 2)
        assert cluster.job(job).restarts == 1
        assert "DUE TO PREEMPTION ***" in log(cluster, f"preempted_{i}.log")
        assert "got SIGTERM" in log(cluster, f"preempted_{i}.log")
        assert "got SIGUSR2" not in log(cluster, f"preempted_{i}.log")


def test_preemption_sends_the_signal_first_where_the_site_says_so(start_cluster: Callable[..., Cluster]) -> None:
    cluster = start_cluster(early_signal=True, grace_time=1)
    send(cluster, "warned.log", LONG, "--signal=USR2@60", "--time=30")
    wait_start(cluster, "warned.log")
    cluster.submit_urgent(len(NODES))
    wait_start(cluster, "warned.log", 2)
    text = log(cluster, "warned.log")
    assert 0 < text.index("got SIGUSR2") < text.index("got SIGTERM")


def test_the_time_limit_warns_and_ends_a_job_for_good(cluster: Cluster) -> None:
    job = send(cluster, "limit.log", LONG, "--time=5")
    warned = send(cluster, "warned.log", LONG, "--time=5", "--signal=USR2@290")
    wait_start(cluster, "limit.log")
    cluster.end_in(job, 1)
    ended = cluster.wait_job(job, "TIMEOUT")
    assert (ended.restarts, ended.reason) == (0, "TimeLimit")
    assert "DUE TO TIME LIMIT ***" in log(cluster, "limit.log")
    assert "after srun" not in log(cluster, "limit.log")
    cluster.wait_for("the warning", lambda: "got SIGUSR2" in log(cluster, "warned.log"))
    assert cluster.job(warned).state == "RUNNING"
    assert "***" not in log(cluster, "warned.log")


def test_a_killed_step_leaves_its_batch_script_alive(cluster: Cluster) -> None:
    job = send(cluster, "step.log", LONG)
    wait_start(cluster, "step.log")
    cluster.run("scancel", "--signal=KILL", f"{job}.0")
    assert cluster.wait_job(job, "COMPLETED").restarts == 0
    assert "task 0: Killed" in log(cluster, "step.log")
    assert "after srun: " in log(cluster, "step.log")


def test_a_killed_or_cancelled_job_ends_with_its_batch_script(cluster: Cluster) -> None:
    killed, cancelled = send(cluster, "killed.log", LONG), send(cluster, "cancelled.log", LONG)
    for name in ("killed.log", "cancelled.log"):
        wait_start(cluster, name)
    cluster.run("scancel", "--signal=KILL", killed)
    cluster.run("scancel", cancelled)
    for job, name in ((killed, "killed.log"), (cancelled, "cancelled.log")):
        cluster.wait_job(job, "CANCELLED")
        assert "CANCELLED AT" in log(cluster, name)
        assert "after srun" not in log(cluster, name)


def test_a_task_that_requeues_itself_must_name_its_index(cluster: Cluster) -> None:
    # the last task of an array to start has the array's own number: SLURM_JOB_ID would requeue all of them
    script = '[ "$SLURM_RESTART_COUNT" ] || { sleep 1; scontrol requeue $%s; sleep 1000; }; echo done'
    wrong = cluster.submit(script % "{SLURM_JOB_ID}", *ONE_GPU, "--output=all_%a.log", "--array=0-1")
    tasks = [cluster.wait_job(f"{wrong}_{index}", "COMPLETED", restarts=1) for index in range(2)]
    assert wrong in [task.number for task in tasks]
    right = "{SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
    array = cluster.submit(script % right, *ONE_GPU, "--output=own_%a.log", "--array=0-1")
    tasks = [cluster.wait_job(f"{array}_{index}", "COMPLETED", restarts=1) for index in range(2)]
    assert [task.restarts for task in tasks] == [1, 1]


def test_indices_lie_below_max_array_size(cluster: Cluster) -> None:
    assert cluster.submit("true", "--array=0-1000", "--hold").isdigit()
    (cluster.folder / "too_long.sh").write_text("#!/bin/bash\n")
    refused = cluster.run("sbatch", "--array=0-1001", "too_long.sh", check=False)
    assert refused.returncode == 1
    assert "Invalid job array specification" in refused.stderr


def test_a_second_cluster_lives_beside_the_first(cluster: Cluster, start_cluster: Callable[..., Cluster]) -> None:
    other = start_cluster(max_array_size=11)
    other.wait_job(other.submit("true", "--job-name=elsewhere"), "COMPLETED")
    assert "elsewhere" in [job.name for job in other.jobs()]
    assert "elsewhere" not in [job.name for job in cluster.jobs()]


def test_nothing_is_left_when_the_test_process_is_killed(tmp_path: Path) -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    code = """
import time
from tests.slurm.cluster import Cluster
with Cluster() as cluster:
    cluster.wait_job(cluster.submit("srun sleep 1000"), "RUNNING")
    print(cluster.folder, flush=True)
    time.sleep(1000)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as test:
        assert test.stdout is not None
        folder = Path(test.stdout.readline().strip())
        assert len(processes(folder)) > 6
        test.kill()
    end = time.monotonic() + 120
    while processes(folder) or folder.exists():
        assert time.monotonic() < end, f"left: {processes(folder)}"
        time.sleep(0.1)


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tests.slurm.cluster._SYSTEM_FOLDERS", ())
    reason = missing()
    assert reason is not None
    assert "slurmctld, slurmd, sbatch, munged" in reason
    assert "apt-get install -y munge slurm-wlm" in reason
