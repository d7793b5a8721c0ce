"""Small results folders made by hand, and `collect` called as a user calls it; importable by tests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.collect import main

DOMAINS = ["art", "50% ink", "a|b", "r_w"]
METHODS = {"ZeroShot": 0.60, "ERM": 0.64, "CLIPood": 0.66}


def write_run(
    root: Path, algorithm: str, domain: int, trial: int = 0, *, state: str = "done", sweep: str = "sweep", **values: Any
) -> Path:
    """One run of ours with two evaluations, the second a little better."""
    settings = {
        "protocol": "leave_one_domain_out",
        "protocol_version": 1,
        "dataset": "Icons",
        "algorithm": algorithm,
        "test_domains": [domain],
        "trial_seed": trial,
        "hparams_seed": 0,
        "backbone": "tiny",
        "pretrained": "embedded",
    }
    settings |= {key: values.pop(key) for key in list(values) if key in settings}
    name = "-".join(str(settings[key]) for key in ("dataset", "algorithm", "test_domains", "trial_seed", "backbone"))
    folder = root / sweep / re.sub(r"\W", "_", name)
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(settings))
    (folder / "status.json").write_text(json.dumps({"state": state}))
    accuracy = METHODS.get(algorithm, 0.5) + 0.05 * domain + 0.01 * trial + 0.003 * domain * len(algorithm)
    lines = []
    for step in (0,) if algorithm == "ZeroShot" else (0, 50):
        value = accuracy if step or algorithm == "ZeroShot" else 0.5
        lines.append(
            {
                **settings,
                "schema": 1,
                "trial": folder.name,
                "predictor": algorithm,
                "step": step,
                "domains": DOMAINS,
                "code": "0.1.0",
                "split_digest": f"split {trial}",
                "data_digest": "0123456789abcdef" * 4,
                **{f"env{i}_out_acc": value for i in range(4)},
                f"env{domain}_in_acc": value,
                **values,
            }
        )
    name = "results.jsonl" if state == "done" else "partial.jsonl"
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def collect(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(each) for each in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(each) for each in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err
