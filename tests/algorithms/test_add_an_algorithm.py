"""The example of docs/add_an_algorithm.md works as it stands there, from the file to the record."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.job import run_trial
from bench.registry import algorithms

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add_an_algorithm.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load the page's example as a plug-in; it is forgotten afterwards."""
    found = re.search(r"<!-- example: l2sp.py -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert found is not None
    assert list(algorithms)
    monkeypatch.setattr(algorithms, "_entries", dict(algorithms._entries))
    monkeypatch.setattr(algorithms, "_origins", dict(algorithms._origins))
    path = tmp_path / "l2sp.py"
    path.write_text(found[1], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("example_l2sp", path)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert len(found[1].splitlines()) <= 60
    return algorithms["L2-SP"]


def test_the_example_trains_and_records(example: Any, make_run: Callable[..., Any]) -> None:
    run = make_run("L2-SP", strength=0.5)
    assert run_trial(str(run.folder), device="cpu") == "done", run.error()
    records, _ = run.records()
    assert [record["step"] for record in records] == [0, 2, 4]
    assert records[-1]["distance"] > 0 and records[-1]["predictor"] == "L2-SP"


def test_the_examples_penalty_holds_it_near_its_start(
    example: Any, make_setup: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    import torch

    moved = []
    for strength in (0.0, 100.0):
        torch.manual_seed(0)
        method = example(make_setup(example, n_steps=6, strength=strength))
        for step in range(6):
            logs = method.update(*make_batches(step))
        moved.append(float(logs["distance"]))
    assert moved[1] < moved[0]


def test_the_example_uses_what_it_declares(example: Any, make_setup: Callable[..., Any]) -> None:
    assert "Run: `python -m bench.sweep launch --algorithms L2-SP`" in example.__doc__
    one, other = (example(make_setup(example, prompt=prompt)) for prompt in ("dataset", "ensemble80"))
    assert len(other.head.templates) == 80 and len(one.head.templates) < 80
    decayed = example(make_setup(example, weight_decay=0.5))
    assert decayed.optimizer.param_groups[0]["weight_decay"] == 0.5
