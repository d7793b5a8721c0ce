"""Why an attempt of a trial ended, what its user can do about it, and how often such an end is retried.

Three questions, all answered without torch: what an exception means (`of_exception`), what the exit code of a process
and the log of its Slurm task mean (`of_exit`), and whether to try again (`RetryRule`).
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bench.errors import BenchError, RunFailed, SpecError
from bench.registry import unknown_name


class Failure(StrEnum):
    """Why an attempt ended before its trial was done; `advice` says what to do about it."""

    GPU_MEMORY = "gpu-oom"
    HOST_MEMORY = "oom"
    TIME = "time"
    NODE = "node"
    PREEMPTED = "preempted"
    DISK = "disk"
    DATA = "data"
    CODE = "code"
    KILLED = "killed"


@dataclass(frozen=True)
class _Kind:
    """What is known of one kind of failure.

    Attributes:
        retries: how often a trial is tried again after it, unless the user says otherwise.
        delay: seconds before the first retry, doubled each time; 0 where the scheduler waits by itself.
        advice: what happened and what to do.
    """

    retries: int
    delay: float
    advice: str


_KINDS = {
    # The same batch needs the same memory again; once more, since a neighbour on a shared GPU may have held it.
    Failure.GPU_MEMORY: _Kind(
        1, 60.0, "the GPU has too little free memory: take a smaller batch_size, bf16, or a GPU with more memory"
    ),
    # Likewise: once more, since the page cache and neighbours on the node count too.
    Failure.HOST_MEMORY: _Kind(
        1, 60.0, "the process took more memory than it may: ask for more memory, or take fewer trials a task"
    ),
    # A time limit is how long trials get through: what bounds them is progress (`RetryRule.allows`), not this number.
    Failure.TIME: _Kind(
        100, 0.0, "the job reached its time limit: the trial goes on at its checkpoint; a longer limit saves restarts"
    ),
    # One bad node may swallow a trial several times before it is drained; five nodes in a row are the cluster's fault.
    Failure.NODE: _Kind(
        5,
        0.0,
        "the node, its GPU or a file system failed: nothing to mend here; leave out a node that fails repeatedly",
    ),
    # Being preempted says nothing against the trial, and is what a cheap partition is for.
    Failure.PREEMPTED: _Kind(
        100, 0.0, "the scheduler took the node for other work: the trial goes on at its checkpoint"
    ),
    # Room comes back only when somebody makes it: the delays add up to a quarter of an hour.
    Failure.DISK: _Kind(
        3, 120.0, "the disk or a quota is full: make room where results, cache and TMPDIR are; the checkpoint is whole"
    ),
    # The same files and settings give the same error.
    Failure.DATA: _Kind(
        0,
        60.0,
        "data, weights or settings are not as they must be: the message says what to mend; then rerun the trial",
    ),
    # The same code gives the same error: trials are deterministic.
    Failure.CODE: _Kind(0, 60.0, "the code raised an error: the traceback says where; mend it, then rerun the trial"),
    # Often the kernel short of memory, or an administrator: both may pass. A third time it is no accident.
    Failure.KILLED: _Kind(
        2, 30.0, "a signal ended the process and nobody says why: often too little memory, sometimes an administrator"
    ),
}

MOST_ENDS = 300
"""Attempts of one trial, whatever ended them: nothing is retried beyond, not even what each kind alone would allow."""

LONGEST_DELAY = 3600.0
"""Seconds of back-off at most."""


def advice(failure: Failure) -> str:
    """Say in one line what a failure of this kind means and what to do."""
    return _KINDS[failure].advice


# --- what an exception means ------------------------------------------------------------------------------------------

_OF_ERRNO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), Failure.DISK),
    errno.ENOMEM: Failure.HOST_MEMORY,
    **dict.fromkeys(
        (
            errno.EIO,
            errno.ESTALE,
            errno.ENOTCONN,
            errno.EREMOTEIO,
            errno.ENODEV,
            errno.ENXIO,
            errno.ENFILE,
            errno.ETIMEDOUT,
            errno.EHOSTDOWN,
            errno.EHOSTUNREACH,
            errno.ENETDOWN,
            errno.ENETUNREACH,
        ),
        Failure.NODE,
    ),
}

_OF_TEXT = tuple(
    (failure, re.compile(pattern))
    for failure, pattern in (
        # before all others: the texts of other CUDA errors hold general advice, this one's holds these words
        (
            Failure.GPU_MEMORY,
            r"(CUDA|HIP|XPU|MPS backend) (error: )?out of memory|CU(BLAS|DNN|SOLVER|FFT)_STATUS_ALLOC_FAILED",
        ),
        (Failure.CODE, r"device-side assert|illegal memory access"),
        (
            Failure.DISK,
            r"No space left on device|Disk quota exceeded|File too large|disk is full|\d+ requested and \d+ written"
            r"|out of shared memory|left; make room",
        ),
        (
            Failure.HOST_MEMORY,
            r"DefaultCPUAllocator: (can't allocate|not enough) memory|Cannot allocate memory|bad_alloc",
        ),
        (
            Failure.NODE,
            r"uncorrectable .*ECC|ECC error|GPU is lost|fallen off the bus|unspecified launch failure"
            r"|hardware stack error|no CUDA-capable device|CUDA driver (version is insufficient|initialization failed)"
            r"|devices? is busy or unavailable|device\(s\) is/are busy or unavailable|unspecified driver error"
            r"|CUDA unknown error|NCCL (error|communicator|watchdog|operation|timeout)|\bnccl\w*Error\b"
            r"|Input/output error|Stale file handle|Transport endpoint is not connected|Remote I/O error"
            r"|can't start new thread",
        ),
        (Failure.KILLED, r"DataLoader worker .* killed by signal: Killed"),
    )
)

_WRITER_FAILED = re.compile(r"PytorchStreamWriter failed|inline_container.*unexpected pos|basic_ios::clear")
"""torch.save says no more than this when a write comes up short; a better reason in the chain of errors goes first."""


def of_exception(error: BaseException) -> Failure:
    """Tell what an exception that ended an attempt means, looking through what caused it as a traceback shows it."""
    chain = list(_chain(error, set()))
    for each in chain:
        found = _of_kind(each) or _of_text(str(each))
        if found:
            return found
    if any(_WRITER_FAILED.search(str(each)) for each in chain):
        return Failure.DISK
    if isinstance(error, KeyboardInterrupt):
        return Failure.KILLED
    if isinstance(error, BenchError) and not isinstance(error, RunFailed):
        return Failure.DATA
    if _has_class(error, "safetensors", "SafetensorError"):
        return Failure.DATA
    return Failure.CODE


def _chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    """Give the error, the members of a group, and what it came from; suppressed contexts are left out."""
    if id(error) in seen:
        return
    seen.add(id(error))
    yield error
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    context = None if error.__suppress_context__ else error.__context__
    for each in (*inner, error.__cause__ or context):
        if each is not None:
            yield from _chain(each, seen)


def _of_kind(error: BaseException) -> Failure | None:
    """Tell by class and error number; None where these say nothing."""
    if _has_class(error, "torch", "OutOfMemoryError"):
        return Failure.GPU_MEMORY
    if _has_class(error, "torch", "DistBackendError"):
        return Failure.NODE
    if isinstance(error, MemoryError):
        return Failure.HOST_MEMORY
    if isinstance(error, OSError):
        by_class = Failure.NODE if isinstance(error, ConnectionError | TimeoutError) else None
        return _OF_ERRNO.get(error.errno or 0, by_class)
    return None


def _has_class(error: BaseException, package: str, name: str) -> bool:
    """Whether the error is of a class of that name in a package, without importing the package."""
    return any(kind.__name__ == name and kind.__module__.startswith(package) for kind in type(error).__mro__)


def _of_text(text: str) -> Failure | None:
    return next((failure for failure, pattern in _OF_TEXT if pattern.search(text)), None)


# --- what an exit code and a log mean ---------------------------------------------------------------------------------

_SCHEDULER = re.compile(
    r"(?P<time>CANCELLED AT .* DUE TO TIME LIMIT|\bJobState=(?:TIMEOUT|DEADLINE)\b)"
    r"|(?P<preempted>CANCELLED AT .* DUE TO (?:PREEMPTION|JOB REQUEUE)|\bJobState=PREEMPTED\b)"
    r"|(?P<node>CANCELLED AT .* DUE TO NODE FAILURE|\bNODE_FAIL\b|\bBOOT_FAIL\b|error: Node failure on "
    r"|UNCORRECTABLE MEMORY ERROR|STEPD TERMINATED ON .* DUE TO JOB NOT|Task launch for .* failed on node)"
)
"""What Slurm's daemons and srun write when the scheduler ends a step (slurmstepd's req.c, srun's messages)."""

_MEMORY = re.compile(
    r"[Dd]etected \d+ (?:oom[-_]kill|out-of-memory) event|\bOut Of Memory\b|\bOUT_OF_MEMORY\b"
    r"|exceeded (?:virtual )?memory limit|Exceeded job memory limit"
)

_CANCELLED = re.compile(r"\*\*\* (?:JOB|STEP) .* CANCELLED AT ")

_OF_SIGNAL = {
    signal.SIGXCPU: Failure.TIME,
    signal.SIGUSR2: Failure.PREEMPTED,  # Slurm's early warning, before anybody listened or after
    signal.SIGXFSZ: Failure.DISK,
    signal.SIGBUS: Failure.DISK,  # mapped memory with nothing behind it: a full disk or /dev/shm under a memory map
    signal.SIGILL: Failure.NODE,  # the node's processor lacks an instruction that the build uses
    **dict.fromkeys((signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP), Failure.CODE),
}


def of_exit(code: int, log: str) -> Failure | None:
    """Tell why a process of a trial ended, from its exit code and what its Slurm task logged.

    The scheduler's own word counts most, then the kernel's on memory, then the signal, then the program's last words.
    Slurm writes one line a step, so the same "CANCELLED AT" without a reason comes of a plain `scancel` and of
    `scancel --signal=KILL`. They are told apart by the signal: `scancel` sends SIGTERM first, to which our processes
    end by themselves. So a launcher that cancels a trial for good must note that itself, and not read it from here.

    Args:
        code: exit code; a signal is 128 + its number (shells, srun) or its number below zero (Python).
        log: end of the log of this attempt; not of earlier ones, whose reasons would be taken for this one's.

    Returns:
        None if nothing failed (exit code 0 and the scheduler says nothing), or if somebody cancelled the job or pressed
        Ctrl-C: that is no failure, and nothing to retry.
    """
    reasons = [str(match.lastgroup) for match in _SCHEDULER.finditer(log)]
    if reasons:
        return Failure(reasons[-1])
    number = _signal_of(code)
    if code == 0 or number == signal.SIGINT:
        return None
    if _MEMORY.search(log):
        return Failure.HOST_MEMORY
    if _CANCELLED.search(log) and number != signal.SIGKILL:
        return None
    said = _last_words(log)
    if number is not None:
        return said if number == signal.SIGABRT and said else _OF_SIGNAL.get(number, Failure.KILLED)
    return said or Failure.CODE


def _signal_of(code: int) -> signal.Signals | None:
    """Give the signal behind an exit code, if there is one."""
    try:
        return signal.Signals(-code if code < 0 else code - 128)
    except ValueError:
        return None


def _last_words(log: str) -> Failure | None:
    """Tell by the last line that says something; texts of the middle may be of errors that were dealt with."""
    found = (_of_text(line) or _of_name(line) for line in reversed(log.splitlines()[-20:]))
    return next((failure for failure in found if failure), None)


def _of_name(line: str) -> Failure | None:
    return Failure.HOST_MEMORY if re.match(r"(?:[\w.]*\.)?_?(?:Array)?MemoryError\b", line) else None


# --- whether to try again ---------------------------------------------------------------------------------------------


def _defaults() -> dict[Failure, int]:
    return {failure: kind.retries for failure, kind in _KINDS.items()}


@dataclass(frozen=True)
class RetryRule:
    """How often a trial is tried again, by what ended it.

    Attributes:
        retries: retries after each kind of failure.
    """

    retries: Mapping[Failure, int] = field(default_factory=_defaults)

    @classmethod
    def parse(cls, text: str) -> RetryRule:
        """Read what `--retry` takes: kinds, comma-separated, each with a number of retries or without.

        Kinds that are not named keep their defaults: `oom=3` changes one. `none` switches off all that are not named,
        so `none,node,oom=2` retries node failures and memory alone; `all` retries every kind at least once. A kind
        without a number is retried by its default, at least once. `oom` stands for both memories unless `gpu-oom` is
        named too. Order does not matter; the empty text is the default rule.

        Raises:
            SpecError: an unknown kind, a bad number, or two that contradict; all problems in one message.
        """
        given: dict[str, int | None] = {}
        problems = []
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, has_number, number = (part.strip() for part in item.partition("="))
            if name not in (*Failure, "all", "none"):
                problems.append(
                    unknown_name("kind of failure", name, (*(each.value for each in Failure), "all", "none"))
                )
            elif has_number and (name in ("all", "none") or not _is_count(number)):
                problems.append(
                    f"{item!r} is no rule: a kind takes a number from 0 to {MOST_ENDS}, all and none take none"
                )
            elif name in given and given[name] != (int(number) if has_number else None):
                problems.append(f"{name!r} is there twice, with different numbers")
            else:
                given[name] = int(number) if has_number else None
        if {"all", "none"} <= set(given):
            problems.append("all and none contradict each other")
        if problems:
            raise SpecError(f"--retry {text}: {' '.join(problems)} Example: none,node,oom=2")
        return cls(_resolve(given))

    def allows(self, failure: Failure, ends: Mapping[str, int], *, progressed: bool = True) -> bool:
        """Whether a trial is tried again.

        Args:
            failure: what ended it now.
            ends: how often each kind of failure ended it so far, this end included.
            progressed: whether it got further than at its last time limit. A trial that reaches the limit a second time
                without getting further never gets through, and is not retried.
        """
        count = max(1, ends.get(failure.value, 0))
        if failure is Failure.TIME and count >= 2 and not progressed:
            return False
        return count <= self.retries.get(failure, 0) and sum(ends.values()) <= MOST_ENDS

    def delay(self, failure: Failure, ends: Mapping[str, int]) -> float:
        """Give the seconds to wait before the retry: doubled with each end of that kind, an hour at most.

        Nothing for ends after which Slurm itself decides when there is a node again.
        """
        count = max(1, ends.get(failure.value, 0))
        return min(LONGEST_DELAY, _KINDS[failure].delay * 2.0 ** min(count - 1, 20))

    def __str__(self) -> str:
        """Give the canonical text, which `parse` reads back whatever the defaults are then."""
        host, gpu = (self.retries.get(failure, 0) for failure in (Failure.HOST_MEMORY, Failure.GPU_MEMORY))
        counts = {failure: self.retries.get(failure, 0) for failure in Failure}
        told = {Failure.HOST_MEMORY} if host else set()
        told |= {Failure.GPU_MEMORY} if gpu != host else set()
        told |= {each for each in counts if counts[each] and each not in (Failure.HOST_MEMORY, Failure.GPU_MEMORY)}
        return ",".join(["none", *(f"{each}={counts[each]}" for each in Failure if each in told)])


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= MOST_ENDS


def _resolve(given: Mapping[str, int | None]) -> dict[Failure, int]:
    """Work out the retries of every kind from what was named."""
    least = 1 if "all" in given else 0
    retries = {each: 0 if "none" in given else max(least, kind.retries) for each, kind in _KINDS.items()}
    named = {name: number for name, number in given.items() if name not in ("all", "none")}
    if "oom" in named:
        named.setdefault("gpu-oom", named["oom"])
    for name, number in named.items():
        failure = Failure(name)
        retries[failure] = max(1, _KINDS[failure].retries) if number is None else number
    return retries
