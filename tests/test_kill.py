"""A sweep that is killed without warning, again and again, ends in the same records as one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.runs import find_runs

ROOT = Path(__file__).resolve().parents[1]
KILLS = 3


def command(small_images: Path, tmp_path: Path, name: str) -> list[str]:
    hparams = '{"batch_size": 6, "margin": "none"}'  # ERM and CLIPood are trained as one
    return [
        *(sys.executable, "-m", "bench.sweep", "launch", "--algorithms", "ERM", "CLIPood", "CoOp"),
        *("--n-trials", "1"),
        *("--datasets", f"folder:{small_images}", "--steps", "60", "--evaluate-every", "20", "--hparams", hparams),
        *("--output-dir", str(tmp_path), "--name", name, "--cache", str(tmp_path / "cache"), "--jobs", "2"),
    ]


def records(folder: Path) -> dict[str, bytes]:
    return {run.trial_id: (run.folder / "results.jsonl").read_bytes() for run in find_runs(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False], ids=["all processes", "the launcher alone"])
def test_a_killed_sweep_completes_with_the_same_records(small_images: Path, tmp_path: Path, whole_group: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command(small_images, tmp_path, "whole"), cwd=tmp_path, env=environment, check=True)
    moments = random.Random(0)
    with (tmp_path / "log.txt").open("w") as log:
        for _ in range(KILLS):
            launched = subprocess.Popen(
                command(small_images, tmp_path, "killed"),
                cwd=tmp_path,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            time.sleep(moments.uniform(4, 14))
            if launched.poll() is None:
                (os.killpg if whole_group else os.kill)(launched.pid, signal.SIGKILL)
            launched.wait()
        again = command(small_images, tmp_path, "killed")
        subprocess.run(again, cwd=tmp_path, env=environment, check=True, stdout=log, stderr=log)
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    assert len(records(tmp_path / "whole")) == 9
    assert all(run.is_done for run in find_runs(tmp_path / "killed"))
