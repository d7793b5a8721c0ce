"""A real Slurm of three nodes with two pretended GPUs each, on this machine, for tests.

Everything lies in one fresh folder (configuration, munge's key and socket, state, logs) and the ports are picked free,
so any number of clusters live side by side, an installed one among them. Every process of a cluster carries the
folder's name in its environment (`MARK`); a watchdog ends them all when the test process is gone, however it went.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.slurm import processes as process_table
from tests.slurm.processes import MARK, NODES, Process, kill, kill_all, processes

GPUS_PER_NODE = 2
CPUS_PER_NODE = 2
COMMANDS = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm", "munged": "munge"}
"""Commands that a cluster needs, and the Debian package of each."""
OVER = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)
"""States from which a job does not come back."""

_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
_COLUMNS = ("JobArrayID", "JobID", "Name", "Partition", "State", "NodeList", "RestartCnt", "Reason")
_NULL_DEVICE = os.makedev(1, 3)
PATIENCE = 300.0
"""Seconds that a wait may take on a busy machine; what is waited for comes within a few where there is room."""

T = TypeVar("T")


class ClusterError(AssertionError):
    """The cluster did not do what it was told, or not in time; the message ends with its logs."""


def missing() -> str | None:
    """Say what keeps a cluster from being started here, and what to do; None where nothing does."""
    if sys.platform != "linux":
        return "a Slurm test cluster needs Linux"
    absent = [command for command in COMMANDS if shutil.which(command, path=_search_path()) is None]
    if absent:
        packages = " ".join(sorted({COMMANDS[command] for command in absent}))
        return f"not installed: {', '.join(absent)}; on Debian and Ubuntu: apt-get install -y {packages}"
    if os.geteuid() != 0:
        return "slurmd and slurmctld of a test cluster must be started by root; run these tests as root"
    return None


@dataclass(frozen=True)
class Job:
    """What squeue says of one job, or of one task of an array.

    Attributes:
        id: how Slurm calls it: "12", or "12_3" for a task of an array.
        number: its own job number (SLURM_JOB_ID); a waiting task of an array has the array's.
        state: Slurm's word: PENDING, RUNNING, COMPLETING, COMPLETED, …
        node: where it runs or ran; empty while it waits.
        restarts: how often it was put back into the queue.
        reason: why it waits, or how it ended.
    """

    id: str
    number: str
    name: str
    partition: str
    state: str
    node: str
    restarts: int
    reason: str

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good."""
        return self.state in OVER


@dataclass
class Cluster:
    """A Slurm of its own; a context manager.

    Attributes:
        early_signal: preemption sends a job's `--signal` first (`preempt_send_user_signal`); as installed, Slurm does not.
        grace_time: seconds at least from the start of a preemption to SIGTERM.
        max_array_size: indices of array tasks lie below this.
        max_job_count: jobs that the controller holds at a time.
        requeue_delay: seconds before a requeued job may start again; Slurm takes 5 or more, and 120 by default. A job
            whose node does not take it within that time is held: a machine that stands still for a moment needs some.
        silence: seconds after which a node that says nothing is taken for dead, at a look that comes every third of them.
        settings: further lines of slurm.conf.
        folder: where everything lies.
    """

    early_signal: bool = False
    grace_time: int = 0
    max_array_size: int = 1001
    max_job_count: int = 10_000
    requeue_delay: int = 10
    silence: int = 90
    settings: Sequence[str] = ()
    folder: Path = field(default=Path("not started"), init=False)
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)

    def __enter__(self) -> Cluster:
        """Start everything; all nodes are idle on return.

        Raises:
            ClusterError: some daemon did not come up.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="clipbed-slurm-")).resolve()
        self.folder.chmod(0o755)  # munge wants everybody to reach its socket
        try:
            self._start(
                "watchdog", sys.executable, "-S", "-E", process_table.__file__, str(self.folder), str(os.getpid())
            )
            self._write_configuration()
            self._start_munge()
            self._start("slurmctld", "slurmctld", "-D", "-c", "-f", self.conf)
            for node in NODES:
                self.start_node(node)
            for node in NODES:
                self.wait_node(node, "idle")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self.stop()

    def stop(self) -> None:
        """End all processes of the cluster, the commands and jobs it was given among them, and remove its folder."""
        watchdog = self._daemons.pop("watchdog", None)
        kill_all(self.folder, spare=[os.getpid(), *([watchdog.pid] if watchdog else [])])
        for daemon in [*self._daemons.values(), *([watchdog] if watchdog else [])]:
            daemon.kill()
            daemon.wait()
        self._daemons.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- commands -------------------------------------------------------------------------------------------------

    @property
    def conf(self) -> str:
        """Path of slurm.conf."""
        return str(self.folder / "slurm.conf")

    def environment(self, **more: str) -> dict[str, str]:
        """Give the environment in which Slurm's commands talk to this cluster, and `more` variables."""
        foreign = ("SLURM", "SBATCH_", "SRUN_", "SQUEUE_", "SCANCEL_", "SINFO_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return {**inherited, "PATH": _search_path(), "SLURM_CONF": self.conf, MARK: str(self.folder), **more}

    def run(self, *command: str, check: bool = True, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a command against this cluster, in its folder.

        Raises:
            ClusterError: it failed (unless `check` is off) or took longer than `timeout` seconds.
        """
        shown = " ".join(command)
        try:
            done = subprocess.run(
                command, env=self.environment(), cwd=self.folder, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired as late:
            raise ClusterError(f"{shown}: no answer in {timeout} s\n{self.log_tail()}") from late
        if check and done.returncode:
            raise ClusterError(f"{shown}: exit {done.returncode}\n{done.stderr}\n{self.log_tail()}")
        return done

    def submit(self, script: str, *options: str) -> str:
        """Send a batch script (its lines below the first) with options of sbatch; give the job's id."""
        file = self.folder / f"script-{time.monotonic_ns()}.sh"
        file.write_text(f"#!/bin/bash\n{script}\n")
        return self.run("sbatch", "--parsable", *options, str(file)).stdout.strip()

    def submit_urgent(self, n_nodes: int = 1, seconds: float = 2) -> str:
        """Send a job that takes `n_nodes` whole nodes away from the jobs of partition main; give its id."""
        wanted = ("--partition=urgent", f"--nodes={n_nodes}", "--exclusive", "--job-name=urgent", "--output=/dev/null")
        return self.submit(f"sleep {seconds}", *wanted)

    def jobs(self) -> list[Job]:
        """Give all jobs that the controller still knows, finished ones too, every task of an array by itself."""
        columns = ",".join(f"{column}:99" for column in _COLUMNS)
        found = []
        for line in self.run("squeue", "-h", "-r", "-t", "all", "-O", columns).stdout.splitlines():
            job, number, name, partition, state, node, restarts, reason = (
                line[i * 99 : (i + 1) * 99].strip() for i in range(len(_COLUMNS))
            )
            found.append(Job(job, number, name, partition, state, node, int(restarts), reason))
        return found

    def job(self, job: str) -> Job:
        """Give the job or array task of this id.

        Raises:
            ClusterError: the controller does not know it.
        """
        for one in self.jobs():
            if one.id == job:
                return one
        raise ClusterError(f"no job {job}\n{self.log_tail()}")

    def end_in(self, job: str, seconds: int) -> None:
        """Move the end of a running job's time limit to `seconds` from now.

        Limits are whole minutes, and 1 minute takes up to 1.5. Slurm looks every 30 s, so the end comes by as much later.
        """
        self.run("scontrol", "update", f"JobId={job}", f"EndTime=now+{seconds}")

    # ---- waiting --------------------------------------------------------------------------------------------------

    def wait_for(self, what: str, check: Callable[[], T | None], timeout: float = PATIENCE) -> T:
        """Ask `check` until it gives something true, and give that.

        Raises:
            ClusterError: nothing true came in `timeout` seconds; names `what` was waited for.
        """
        end = time.monotonic() + timeout
        while not (found := check()):
            if time.monotonic() > end:
                raise ClusterError(f"waited {timeout} s in vain for {what}\n{self.log_tail()}")
            time.sleep(0.1)
        return found

    def wait_job(self, job: str, *states: str, restarts: int = 0, timeout: float = PATIENCE) -> Job:
        """Wait until a job that was restarted at least so often is in one of `states`.

        Raises:
            ClusterError: it was not, in `timeout` seconds.
        """

        def arrived() -> Job | None:
            now = self.job(job)
            return now if now.state in states and now.restarts >= restarts else None

        return self.wait_for(f"job {job} to be {' or '.join(states)}", arrived, timeout)

    def wait_node(self, node: str, state: str, timeout: float = PATIENCE) -> None:
        """Wait until sinfo's short name of a node's state (idle, mix, alloc, comp, down, …) begins with `state`.

        Raises:
            ClusterError: it did not, in `timeout` seconds.
        """

        def arrived() -> bool:
            # of all nodes: asked for one alone, the controller answers from memory, and may say "mix" for minutes
            states = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t", check=False).stdout.splitlines()
            return any(line.startswith(f"{node} {state}") for line in states)

        self.wait_for(f"node {node} to be {state}", arrived, timeout)

    # ---- nodes and processes --------------------------------------------------------------------------------------

    def start_node(self, node: str) -> None:
        """Start a node's daemon, at first and after a kill."""
        self._start(node, "slurmd", "-D", "-f", self.conf, "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon alone: Slurm takes the node for dead, but what runs on it runs on (zombies)."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait()

    def kill_node_hard(self, node: str) -> None:
        """Kill a node's daemon and all that runs on the node, as a loss of power does."""
        self.kill_node(node)
        self._kill_steps(node)

    def declare_dead(self, node: str) -> None:
        """Have the controller take a node for dead now, rather than when it stays silent for long."""
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=silent")

    def step_pids(self, node: str) -> list[int]:
        """Give the processes of jobs on a node: batch scripts, sruns, tasks and their children."""
        return [process.pid for process in self._on(node) if not process.is_slurmstepd]

    def job_pids(self, job: str, *, tasks: bool = False) -> list[int]:
        """Give the processes of a job, or of an array's task "12_3"; `tasks`: only what srun started in its steps."""
        array, _, index = job.partition("_")
        wanted = {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index} if index else {"SLURM_JOB_ID": array}
        return [
            process.pid
            for process in processes(self.folder)
            if wanted.items() <= process.environment.items() and (not tasks or process.is_task)
        ]

    def reset(self) -> None:
        """Cancel all jobs, end their processes and bring all nodes back, for the next test.

        Raises:
            ClusterError: the nodes were not idle again in time.
        """
        self.run("scancel", "--quiet", "--state=PENDING", "--user=root", check=False)
        for node in NODES:
            self._kill_steps(node, stepds=node not in self._daemons)
            if node not in self._daemons:
                self.start_node(node)
        self.run("scancel", "--quiet", "--user=root", check=False)
        self.wait_for("all jobs to be over", lambda: all(job.is_over for job in self.jobs()))
        for node in NODES:
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)  # from declare_dead
            self.wait_node(node, "idle")

    def log_tail(self, n_lines: int = 20) -> str:
        """Give the last lines of each log, for the message of a failure."""
        parts = []
        for name in ("munged", "slurmctld", *NODES):
            log = self.folder / (f"slurmd-{name}.log" if name in NODES else f"{name}.log")
            log = log if log.exists() else self.folder / f"{name}.out"
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            parts += [f"--- {log.name}", *lines[-n_lines:]]
        return "\n".join(parts)

    def _on(self, node: str) -> list[Process]:
        """Give all processes on a node but its daemon: those below its slurmstepds, and those that lost their parent."""
        everything = processes(self.folder)
        found = {one.pid: one for one in everything if one.is_slurmstepd and one.node == node}
        found |= {one.pid: one for one in everything if one.environment.get("SLURMD_NODENAME") == node}
        return list(found.values())

    def _kill_steps(self, node: str, *, stepds: bool = True) -> None:
        def killed() -> bool:
            found = [one for one in self._on(node) if stepds or not one.is_slurmstepd]
            kill(one.pid for one in found)
            return not [one for one in found if not one.is_slurmstepd]

        self.wait_for(f"the processes on {node} to end", killed)

    # ---- starting -------------------------------------------------------------------------------------------------

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # an interrupt from the keyboard is the test's, not theirs
            )

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        files = [f"--{kind}-file={self.folder / 'munge'}.{kind}" for kind in ("pid", "log", "seed")]
        place = self.folder / "munge.socket"
        # --force: it may be run by root, from a folder below /tmp
        self._start("munged", "munged", "--foreground", "--force", f"--socket={place}", f"--key-file={key}", *files)
        self.wait_for("munge's socket", place.exists)

    def _write_configuration(self) -> None:
        (self.folder / "state").mkdir()
        for gpu in range(GPUS_PER_NODE):
            with contextlib.suppress(PermissionError):  # in a container; the GPUs are counted all the same
                os.mknod(self.folder / f"gpu{gpu}", 0o666 | stat.S_IFCHR, _NULL_DEVICE)
            (self.folder / f"gpu{gpu}").touch()
        Path(self.conf).write_text("\n".join([*self._general(), *self.settings, *self._nodes()]) + "\n")
        devices = f"{self.folder}/gpu[0-{GPUS_PER_NODE - 1}]"
        (self.folder / "gres.conf").write_text(f"AutoDetect=off\nNodeName={','.join(NODES)} Name=gpu File={devices}\n")

    def _general(self) -> list[str]:
        early = ["SlurmctldParameters=preempt_send_user_signal"] if self.early_signal else []
        return [
            "ClusterName=clipbed",
            f"SlurmctldHost={_host()}(127.0.0.1)",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            f"AuthInfo=socket={self.folder}/munge.socket,cred_expire={self.requeue_delay}",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool-%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            f"SlurmctldLogFile={self.folder}/slurmctld.log",
            f"SlurmdLogFile={self.folder}/slurmd-%n.log",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SchedulerType=sched/backfill",
            "SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            "MpiDefault=none",
            "ReturnToService=2",
            f"MaxArraySize={self.max_array_size}",
            f"MaxJobCount={self.max_job_count}",
            f"SlurmdTimeout={self.silence}",
            "MessageTimeout=20",
            "KillWait=5",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            "GresTypes=gpu",
            *early,
        ]

    def _nodes(self) -> list[str]:
        controller, *ports = _free_ports(1 + len(NODES))
        has = f"NodeHostname={_host()} NodeAddr=127.0.0.1 CPUs={CPUS_PER_NODE} Gres=gpu:{GPUS_PER_NODE} State=UNKNOWN"
        partition = f"Nodes={','.join(NODES)} MaxTime=INFINITE State=UP"
        return [
            f"SlurmctldPort={controller}",
            *(f"NodeName={node} Port={port} {has}" for node, port in zip(NODES, ports, strict=True)),
            f"PartitionName=main {partition} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={self.grace_time}",
            f"PartitionName=urgent {partition} PriorityTier=10",
        ]


def _free_ports(n: int) -> list[int]:
    """Pick ports that nobody listens on, below those that Linux gives to outgoing connections."""
    found: list[int] = []
    while len(found) < n:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("", port))
            found += [port] if port not in found else []
    return found


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS])
