"""Failures: real errors of Python, numpy and torch; Slurm's own lines; rules that survive a round trip."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BadImage, Conflict, DataMissing, RunFailed, SpecError
from bench.failures import LONGEST_DELAY, MOST_ENDS, Failure, RetryRule, advice, of_exception, of_exit

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def caught(call: object) -> BaseException:
    with pytest.raises(BaseException) as found:
        call()  # type: ignore[operator]
    return found.value


def raised_from(error: Exception, cause: Exception | None) -> BaseException:
    def call() -> None:
        raise error from cause

    return caught(call)


def test_every_failure_has_advice_of_one_line_and_a_default() -> None:
    told = [advice(failure) for failure in Failure]
    assert all(text and "\n" not in text for text in told)
    assert len(set(told)) == len(Failure)
    assert set(RetryRule().retries) == set(Failure)


def test_importing_loads_no_torch() -> None:
    code = "import sys, bench.failures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- exceptions as they really come -----------------------------------------------------------------------------------


def test_memory_errors_of_numpy_and_torch_are_told_apart_from_code() -> None:
    import torch

    assert of_exception(caught(lambda: np.zeros(10**16))) is Failure.HOST_MEMORY
    assert of_exception(caught(lambda: torch.zeros(10**15))) is Failure.HOST_MEMORY
    assert of_exception(MemoryError()) is Failure.HOST_MEMORY
    assert of_exception(OSError(errno.ENOMEM, "Cannot allocate memory")) is Failure.HOST_MEMORY
    assert of_exception(torch.OutOfMemoryError("no text to read")) is Failure.GPU_MEMORY
    assert of_exception(RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`")) is (
        Failure.GPU_MEMORY
    )
    assert of_exception(caught(lambda: torch.zeros(2) @ torch.zeros(3))) is Failure.CODE


def _write_text() -> None:
    FULL.write_text("x" * 100_000)


def _torch_to_path() -> None:
    import torch

    torch.save({"model": torch.zeros(300_000)}, FULL)


def _torch_to_file() -> None:
    import torch

    with FULL.open("wb") as file:
        torch.save({"model": torch.zeros(300_000)}, file)


def _numpy() -> None:
    with FULL.open("wb", buffering=0) as file:
        np.save(file, np.zeros(300_000))


@needs_full
@pytest.mark.parametrize("write", [_write_text, _torch_to_path, _torch_to_file, _numpy])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_a_full_disk_whoever_writes(write: object) -> None:
    assert of_exception(caught(write)) is Failure.DISK


def test_quota_and_size_limits_are_disk_also_as_a_cause() -> None:
    assert of_exception(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))) is Failure.DISK
    assert of_exception(raised_from(RuntimeError("checkpoint"), OSError(errno.ENOSPC, "full"))) is Failure.DISK
    assert of_exception(raised_from(DataMissing("no room"), OSError(errno.ENOSPC, "full"))) is Failure.DISK


def test_context_counts_unless_it_is_suppressed() -> None:
    def unsuppressed() -> None:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError:
            raise ValueError("cannot go on")  # noqa: B904 - the implicit context is what is tested

    def suppressed() -> None:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError:
            raise ValueError("something else") from None

    assert of_exception(caught(unsuppressed)) is Failure.DISK
    assert of_exception(caught(suppressed)) is Failure.CODE


def test_a_failed_writer_is_disk_unless_the_chain_knows_better() -> None:
    writer = "PytorchStreamWriter failed writing file data/0: file write failed"
    assert of_exception(RuntimeError(writer)) is Failure.DISK
    assert of_exception(raised_from(RuntimeError(writer), OSError(errno.EIO, "bad disk"))) is Failure.NODE


def test_no_room_for_the_decoded_cache_is_disk(
    small_dataset: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import images

    monkeypatch.setattr(images.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    image = SimpleNamespace(size=96)
    domain = small_dataset.domains[0]  # type: ignore[attr-defined]
    error = caught(lambda: images._check_room(small_dataset, domain, image, tmp_path))  # type: ignore[arg-type]
    assert isinstance(error, DataMissing)
    assert of_exception(error) is Failure.DISK


@pytest.mark.parametrize(
    "error",
    [
        *(
            OSError(number, os.strerror(number))
            for number in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO)
        ),
        ConnectionResetError("peer"),
        TimeoutError("too slow"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: no CUDA-capable device is detected"),
        RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1691, unhandled system error"),
        raised_from(DataMissing("cat.jpg cannot be read"), OSError(errno.ESTALE, "Stale file handle")),
    ],
    ids=repr,
)
def test_failing_hardware_and_file_systems_are_the_nodes(error: BaseException) -> None:
    assert of_exception(error) is Failure.NODE


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (DataMissing("no such folder"), Failure.DATA),
        (BadImage("cat.jpg"), Failure.DATA),
        (SpecError("no such step"), Failure.DATA),
        (Conflict("the files have changed"), Failure.DATA),
        (RunFailed("the trial ended with an error"), Failure.CODE),
        (RunFailed("RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"), Failure.GPU_MEMORY),
        (RuntimeError("CUDA error: device-side assert triggered"), Failure.CODE),
        (KeyError("loss"), Failure.CODE),
        (FileNotFoundError(errno.ENOENT, "gone"), Failure.CODE),
        (ExceptionGroup("workers", [ValueError("a"), OSError(errno.EIO, "b")]), Failure.NODE),
        (KeyboardInterrupt(), Failure.KILLED),
    ],
    ids=repr,
)
def test_what_the_user_can_mend_is_data_and_the_rest_code(error: BaseException, failure: Failure) -> None:
    assert of_exception(error) is failure


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert of_exception(first) is Failure.CODE


# --- exit codes and Slurm's words -------------------------------------------------------------------------------------

AT = "slurmstepd: error: *** STEP 7.0 ON n2 CANCELLED AT 2026-11-23T22:00:00"
OOM = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed."


@pytest.mark.parametrize(
    ("log", "failure"),
    [
        (f"{AT} DUE TO TIME LIMIT ***", Failure.TIME),
        (f"{AT} DUE TO PREEMPTION ***", Failure.PREEMPTED),
        (f"{AT} DUE TO JOB REQUEUE ***", Failure.PREEMPTED),
        (f"{AT} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***", Failure.NODE),
        ("slurmstepd: error: *** STEP 7.0 STEPD TERMINATED ON n2 AT 22:00 DUE TO JOB NOT RUNNING ***", Failure.NODE),
        ("srun: error: Node failure on n2", Failure.NODE),
        ("slurmstepd: error: *** STEP 7.0 ON n2 UNCORRECTABLE MEMORY ERROR AT 22:00 ***", Failure.NODE),
        (OOM, Failure.HOST_MEMORY),
        (
            "slurmstepd: error: Detected 2 oom-kill event(s) in StepId=7.batch. Some of your processes may have been "
            "killed by the cgroup out-of-memory handler.",
            Failure.HOST_MEMORY,
        ),
        ("srun: error: n2: task 0: Out Of Memory", Failure.HOST_MEMORY),
        ("slurmstepd: error: StepId=7.0 exceeded memory limit (734 > 524), being killed", Failure.HOST_MEMORY),
        ("JobState=OUT_OF_MEMORY Reason=OutOfMemory", Failure.HOST_MEMORY),
        ("srun: error: n2: task 0: Killed", Failure.KILLED),
        ("", Failure.KILLED),
    ],
)
@pytest.mark.parametrize("code", [137, -9])
def test_a_killed_process_is_explained_by_slurms_log(log: str, failure: Failure, code: int) -> None:
    assert of_exit(code, f"step 10 loss 0.3\n{log}\n") is failure


def test_the_schedulers_word_counts_most_and_also_for_a_process_that_stopped_cleanly() -> None:
    assert of_exit(0, f"{AT} DUE TO TIME LIMIT ***\n{OOM}\n") is Failure.TIME
    assert of_exit(143, f"{AT} DUE TO PREEMPTION ***") is Failure.PREEMPTED
    assert of_exit(0, "all is well") is None


def test_cancelling_is_no_failure_but_a_bare_kill_is() -> None:
    assert of_exit(143, f"{AT} ***") is None
    assert of_exit(-15, f"{AT} ***") is None
    assert of_exit(130, "KeyboardInterrupt") is None
    assert of_exit(137, f"{AT} ***") is Failure.KILLED
    assert of_exit(143, "") is Failure.KILLED


@pytest.mark.parametrize(
    ("number", "failure"),
    [
        (signal.SIGBUS, Failure.DISK),
        (signal.SIGXFSZ, Failure.DISK),
        (signal.SIGXCPU, Failure.TIME),
        (signal.SIGUSR2, Failure.PREEMPTED),
        (signal.SIGSEGV, Failure.CODE),
        (signal.SIGABRT, Failure.CODE),
        (signal.SIGILL, Failure.NODE),
        (signal.SIGHUP, Failure.KILLED),
    ],
)
def test_a_signal_alone_says_what_it_can(number: signal.Signals, failure: Failure) -> None:
    assert of_exit(-number, "") is of_exit(128 + number, "") is failure


def test_sigbus_is_what_a_memory_map_with_nothing_behind_it_gives(tmp_path: Path) -> None:
    code = (
        "import mmap, os; f = open('m', 'w+b'); f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); "
        "f.truncate(0); m[5000]"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
    assert of_exit(done.returncode, done.stderr.decode()) is Failure.DISK


@pytest.mark.parametrize(
    ("last", "failure"),
    [
        ("ValueError: no", Failure.CODE),
        ("OSError: [Errno 28] No space left on device", Failure.DISK),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", Failure.GPU_MEMORY),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8. PiB for an array", Failure.HOST_MEMORY),
        ("OSError: [Errno 116] Stale file handle: '/home'", Failure.NODE),
    ],
)
def test_a_plain_exit_code_is_explained_by_the_programs_last_words(last: str, failure: Failure) -> None:
    assert of_exit(1, f"Traceback (most recent call last):\n  File x\n{last}\n") is failure
    assert of_exit(255, last) is failure


@given(st.integers(-70, 300), st.text(max_size=80))
def test_every_exit_code_has_an_answer(code: int, log: str) -> None:
    assert of_exit(code, log) in (None, *Failure)


# --- retry rules ------------------------------------------------------------------------------------------------------


def retries(text: str) -> dict[str, int]:
    return {failure.value: number for failure, number in RetryRule.parse(text).retries.items() if number}


def test_named_kinds_change_the_defaults_or_none() -> None:
    defaults = {"gpu-oom": 1, "oom": 1, "time": 100, "node": 5, "preempted": 100, "disk": 3, "killed": 2}
    assert retries("") == retries(" , ") == defaults
    assert retries("node, oom=2 ,data") == {**defaults, "oom": 2, "gpu-oom": 2, "data": 1}
    assert retries("none") == {}
    assert retries("node,oom=2,time=5,none") == retries("none,node,oom=2,time=5")
    assert retries("none,node,oom=2,time=5") == {"node": 5, "oom": 2, "gpu-oom": 2, "time": 5}
    assert retries("gpu-oom=0,oom=4") == {**{k: v for k, v in defaults.items() if k != "gpu-oom"}, "oom": 4}
    assert retries("all,node=0") == {**{k: v for k, v in defaults.items() if k != "node"}, "data": 1, "code": 1}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nod=2", ("'nod'", "'node'", "gpu-oom", "preempted")),
        ("node=-1", ("node=-1", f"0 to {MOST_ENDS}")),
        ("node=1000", (f"0 to {MOST_ENDS}",)),
        ("node=", ("'node='",)),
        ("none=2", ("'none=2'",)),
        ("all,none", ("contradict",)),
        ("node=1,node=2", ("'node'", "twice")),
        ("nod,tim=1", ("'nod'", "'tim'", "'time'")),
    ],
)
def test_bad_text_is_refused_with_all_that_is_wrong(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as found:
        RetryRule.parse(text)
    assert all(part in str(found.value) for part in ("--retry", *parts))


rules = st.builds(
    RetryRule, st.fixed_dictionaries({failure: st.integers(0, 3) | st.integers(0, MOST_ENDS) for failure in Failure})
)


@given(rules)
def test_the_canonical_text_reads_back(rule: RetryRule) -> None:
    assert RetryRule.parse(str(rule)) == rule
    assert str(RetryRule.parse(str(rule))) == str(rule)


def test_the_canonical_text_is_short() -> None:
    assert str(RetryRule.parse("none")) == "none"
    assert str(RetryRule.parse("none,oom=2,node")) == "none,oom=2,node=5"
    assert str(RetryRule.parse("none,gpu-oom")) == "none,gpu-oom=1"


@given(rules, st.lists(st.sampled_from(list(Failure)), min_size=1, max_size=40))
def test_no_kind_is_retried_more_often_than_its_number(rule: RetryRule, ends: list[Failure]) -> None:
    """Play the ends one by one, as a launcher does, until the rule says no."""
    counts: dict[str, int] = {}
    granted = dict.fromkeys(Failure, 0)
    for failure in ends:
        counts[failure.value] = counts.get(failure.value, 0) + 1
        if not rule.allows(failure, counts):
            assert counts[failure.value] == rule.retries[failure] + 1
            break
        granted[failure] += 1
    assert all(granted[failure] <= rule.retries[failure] for failure in Failure)


def test_nothing_is_endless() -> None:
    rule = RetryRule(dict.fromkeys(Failure, 10**9))
    counts = dict.fromkeys((failure.value for failure in Failure), 0)
    attempts = 0
    while rule.allows(failure := list(Failure)[attempts % len(Failure)], counts):
        attempts += 1
        counts[failure.value] += 1
        assert attempts <= 2 * MOST_ENDS
    assert sum(counts.values()) == MOST_ENDS + 1


def test_a_time_limit_is_retried_as_long_as_the_trial_gets_further() -> None:
    rule = RetryRule()
    assert rule.allows(Failure.TIME, {"time": 1}, progressed=False)
    assert not rule.allows(Failure.TIME, {"time": 2}, progressed=False)
    assert rule.allows(Failure.TIME, {"time": 40})
    assert rule.allows(Failure.PREEMPTED, {"preempted": 2}, progressed=False)


def test_delays_grow_to_an_hour_and_are_nothing_where_slurm_waits() -> None:
    rule = RetryRule()
    delays = [rule.delay(Failure.DISK, {"disk": n}) for n in (1, 2, 3, 50, 10**6)]
    assert delays == [120.0, 240.0, 480.0, LONGEST_DELAY, LONGEST_DELAY]
    assert {rule.delay(failure, {failure.value: 9}) for failure in (Failure.TIME, Failure.NODE, Failure.PREEMPTED)} == {
        0
    }
