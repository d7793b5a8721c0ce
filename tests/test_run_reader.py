"""Reading one run: together and line by line alike, and only what is a record."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench import run_reader
from bench.results_folder import Kind, find_sources
from bench.run_reader import RunRecords, read_run

ARGS = {"algorithm": "ERM", "dataset": "PACS", "hparams_seed": 0, "test_envs": [1], "trial_seed": 0, "hparams": None}
ACCURACIES = {f"env{i}_{split}_acc": 0.1 * i for i in range(4) for split in ("in", "out")}
LINE = {"args": ARGS, "hparams": {"lr": 0.1, "names": ["a", {"b": 1}]}, "step": 0, "loss": 0.5, **ACCURACIES}

CHANGES = st.dictionaries(
    st.sampled_from(
        [
            *("step", "loss", "env1_in_acc", "env9_in_acc", "hparams", "note", "trial_seed", "variant", "args"),
            *("clipbed", "notes", "code", "domains", "trial"),
        ]
    ),
    st.one_of(
        st.integers(-5, 5),
        st.floats(),
        st.booleans(),
        st.none(),
        st.text(max_size=4),
        st.sampled_from(
            [{"lr": 0.1}, {"args": ARGS}, {**ARGS, "test_envs": [2]}, {**ARGS, "trial_seed": "x"}, [], [1]]
        ),
    ),
    max_size=2,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.lists(CHANGES, min_size=1, max_size=4), order=st.booleans(), end=st.sampled_from(["\n", "", "\n\n", "x"])
)
@example(changes=[{}, {"step": 300}], order=True, end="\n")
@example(changes=[{}, {"note": {"hparams": LINE["hparams"]}}], order=False, end="\n")
@example(changes=[{"step": "x"}, {}], order=True, end="\n")
@example(changes=[{}, {"env1_in_acc": -1}], order=True, end="\n")
@example(changes=[{"clipbed": {"step": 1}}, {"clipbed": {"step": 2}, "step": 300}], order=True, end="\n")
@example(changes=[{}, {"env1_in_acc": 2.0, "env0_in_acc": math.nan}], order=True, end="\n")
@example(changes=[{"trial_seed": 0}, {"trial_seed": 3}], order=True, end="\n")
@example(changes=[{"hparams_seed": 0}, {"hparams_seed": "x"}], order=True, end="\n")
@example(changes=[{"n_bad_images": 0}, {"n_bad_images": "x"}], order=True, end="\n")
@example(changes=[{"env1_in_acc": 0.1}, {"env1_in_acc": math.nan}], order=True, end="\n")
def test_domainbeds_lines_are_read_alike_together_and_one_by_one(
    tmp_path: Path, changes: list[dict[str, Any]], order: bool, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (json.dumps({**LINE, **change}, sort_keys=order) for change in changes)
    (tmp_path / "results.jsonl").write_text("\n".join(lines) + end)
    (source,) = find_sources(str(tmp_path))
    together = read_run(source)
    with monkeypatch.context() as patch:
        patch.setattr(run_reader, "_domainbed_records", lambda data, trial: None)
        one_by_one = read_run(source)
    assert repr(sorted_keys(together)) == repr(sorted_keys(one_by_one))


def sorted_keys(run: RunRecords) -> RunRecords:
    return run._replace(records=[dict(sorted(record.items())) for record in run.records])


def test_usual_lines_are_read_together(tmp_path: Path) -> None:
    text = "".join(json.dumps({**LINE, "step": step}, sort_keys=True) + "\n" for step in range(3))
    records = run_reader._domainbed_records(text.encode(), "run")
    assert records is not None
    assert [record["step"] for record in records] == [0, 1, 2]
    assert records[0]["domains"] == ["A", "C", "P", "S"]
    assert not {"args", "hparams"} & records[0].keys()


def test_sources_are_found_in_order_with_logs_at_any_depth(tmp_path: Path) -> None:
    for place in (
        "b/results.jsonl",
        "a-b/run/results.jsonl",
        "a/run/results.jsonl",
        "a/x/y/results.jsonl",
        "c/d/n.csv",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("{}")
    for place in ("o/1/2/3/4/5/seed1/log.txt", "o/1/log.txt-2022-10-31-12-00-00", ".hidden/log.txt", "b/log.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found = [(source.kind, source.path.removeprefix(f"{tmp_path}/")) for source in find_sources(str(tmp_path))]
    assert found == [
        (Kind.RUN, "a/run"),
        (Kind.RUN, "a-b/run"),
        (Kind.RUN, "b"),
        (Kind.CSV, "c/d/n.csv"),
        (Kind.LOG, "o/1/2/3/4/5/seed1/log.txt"),
        (Kind.LOG, "o/1/log.txt-2022-10-31-12-00-00"),
    ]
