"""What is kept between two runs of `collect`: the same records to the digit, the same answers, and nothing that is stale."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import answers, collecting, record_index, results_folder
from bench.collect import main
from bench.records import Results, load
from bench.run_reader import read_lines

LONG_AGO = 1_600_000_000
_clock = iter(range(LONG_AGO, 2**62))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which `collect` keeps things, of folders of any size."""
    monkeypatch.setenv("CLIPBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(record_index, "MIN_RUNS", 1)
    monkeypatch.setattr(results_folder, "MIN_RUNS", 1)
    return tmp_path / "cache" / "collect"


def settle(*paths: Path) -> None:
    """Let files be of long ago, each of another second."""
    for path in paths:
        second = next(_clock)
        os.utime(path, (second, second))


def line(seed: int, step: int, value: float, **more: Any) -> dict[str, Any]:
    args = {"algorithm": "ERM", "dataset": "PACS", "hparams_seed": 0, "test_envs": [seed % 4], "trial_seed": seed}
    numbers = {f"env{i}_{split}_acc": value + i / 100 for i in range(4) for split in ("in", "out")}
    return {"args": args, "hparams": {"lr": 0.1}, "step": step, "loss": float("nan"), **numbers, **more}


def write(folder: Path, lines: list[dict[str, Any]], *, done: bool = True, torn: str = "", ours: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / "spec.json"
    if ours:
        of_run = {**lines[0]["args"], "protocol": "leave_one_domain_out", "backbone": "tiny", "pretrained": "x"}
        of_run["test_domains"] = of_run.pop("test_envs")
        spec.write_text(json.dumps(of_run))
        lines = [{**of_run, **{key: line[key] for key in line if key not in ("args", "hparams")}} for line in lines]
        settle(spec)
    else:
        spec.unlink(missing_ok=True)
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines) + torn
    (folder / "results.jsonl").write_text(text)
    (folder / "done").touch() if done else (folder / "done").unlink(missing_ok=True)
    settle(folder / "results.jsonl", folder)


def facts(results: Results) -> str:
    """All of a result, to the digit."""
    shallow = {field.name: getattr(results, field.name) for field in dataclasses.fields(results)}
    shallow["unfinished"] = sorted(shallow["unfinished"])
    del shallow["digest"]
    records = json.dumps(shallow.pop("records"), sort_keys=True)
    return f"{shallow}\n{records}"


ACTIONS = st.tuples(
    st.sampled_from(["write", "append", "undo", "remove", "ours", "torn", "flip", "mixed"]),
    st.integers(0, 5),
    st.floats(0, 0.5),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, min_size=2, max_size=10))
def test_results_are_those_of_a_fresh_read_whatever_changed(
    kept: Path, actions: list[tuple[str, int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        write(root / "run0", [line(0, 0, 0.25)])
        for action, which, value in actions:
            change(root / f"run{which}", action, which, value)
            if not any(root.iterdir()):
                continue
            with_index = facts(load(root, include_unfinished=True)), facts(load(root, include_unfinished=True))
            with monkeypatch.context() as patch:
                patch.setattr(record_index, "MIN_RUNS", 10**9)
                fresh = facts(load(root, include_unfinished=True))
            assert with_index == (fresh, fresh)
    finally:
        shutil.rmtree(root)


def change(run: Path, action: str, which: int, value: float) -> None:
    """Change one run; what is not there yet is written."""
    lines = [line(which, step, value + step / 1000) for step in (0, 300)]
    if action == "remove" and run.exists():
        shutil.rmtree(run)
        settle(run.parent)
    elif action == "append" and run.exists():
        with (run / "results.jsonl").open("a") as file:
            file.write(json.dumps(line(which, 600, value), sort_keys=True) + "\n")
        settle(run / "results.jsonl")
    elif action == "undo" and run.exists():
        (run / "done").unlink(missing_ok=True)
        settle(run)
    elif action == "flip" and run.exists():  # other content of the same length
        text = (run / "results.jsonl").read_text()
        (run / "results.jsonl").write_text(text.replace('"step": 300', '"step": 400'))
        settle(run / "results.jsonl")
    elif action == "mixed":
        write(run, [lines[0], line(which, 300, value, extra=[1, {"a": 1.0}], env0_in_acc=1)])
    else:
        write(run, lines, ours=action == "ours", torn='{"args": {"a' if action == "torn" else "")


def read_count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each run folder that is read from now on."""
    seen: list[str] = []
    before = record_index.read_run
    monkeypatch.setattr(
        record_index, "read_run", lambda source: (seen.append(Path(source.path).name), before(source))[1]
    )
    return seen


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed in range(4):
        write(tmp_path / "sweep" / f"run{seed}", [line(seed, 0, 0.5), line(seed, 300, 0.6)])
    return tmp_path / "sweep"


def test_only_what_is_new_or_changed_is_read(kept: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = read_count(monkeypatch)
    load(sweep)
    assert seen == ["run0", "run1", "run2", "run3"]
    write(sweep / "run2", [line(2, 0, 0.1)])
    write(sweep / "run9", [line(9, 0, 0.1)])
    load(sweep)
    assert seen[4:] == ["run2", "run9"]
    load(sweep)
    assert len(seen) == 6
    monkeypatch.chdir(sweep.parent)
    assert len(load(Path("sweep")).records) == len(load(sweep).records)
    assert len(seen) == 6


def test_what_changed_a_moment_ago_is_read_again(kept: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sweep / "run1" / "results.jsonl").touch()
    seen = read_count(monkeypatch)
    load(sweep)
    load(sweep)
    assert seen[4:] == ["run1"]
    assert load(sweep).digest == ""


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "other code", "no index", "made up"])
def test_a_damaged_index_or_one_of_other_code_is_none(
    kept: Path, sweep: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = facts(load(sweep))
    (path,) = kept.glob("*.records")
    data = path.read_bytes()
    if damage == "torn":
        path.write_bytes(data[:-40])
    elif damage == "flipped":
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "no index":
        path.unlink()
        path.mkdir()
    elif damage == "made up":
        path.write_bytes(b"clipbed records 00000000\n[1, 2]\n")
    else:
        monkeypatch.setattr(record_index, "code_stamp", lambda: "other")
    seen = read_count(monkeypatch)
    assert facts(load(sweep)) == fresh
    assert len(seen) == 4


def test_a_cache_that_cannot_be_written_to_costs_time_only(
    kept: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.parent.mkdir()
    kept.write_text("a file where the folder should be")
    assert main([str(sweep), "--format", "domainbed"]) == 0
    assert main([str(sweep), "--format", "csv"]) == 0
    assert "ERM" in capsys.readouterr().out


def test_a_user_without_a_home_keeps_nothing(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record_index, "MIN_RUNS", 1)
    monkeypatch.setattr(results_folder, "MIN_RUNS", 1)
    monkeypatch.delenv("CLIPBED_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(sweep)
    for _ in range(2):
        assert main([str(sweep), "--format", "domainbed"]) == 0
    assert sorted(os.listdir(sweep)) == ["run0", "run1", "run2", "run3"]


def test_modules_that_read_runs_are_stamped() -> None:
    code = "import sys, bench.run_reader; print(*sorted(each for each in sys.modules if each.startswith('bench')))"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    names = {each.replace("/", ".").removesuffix(".__init__") for each in record_index.READERS}
    assert {each.removeprefix("bench.") for each in done.stdout.split() if each != "bench"} <= names | {"__init__"}


@pytest.fixture
def worked_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Grows each time that `collect` reads records."""
    seen: list[int] = []
    before = load

    def counted(*arguments: Any, **more: Any) -> Results:
        seen.append(1)
        return before(*arguments, **more)

    monkeypatch.setattr("bench.records.load", counted)
    monkeypatch.setattr(collecting, "load", counted)
    yield seen


@pytest.mark.parametrize(
    "words", [["--format", "domainbed"], ["--format", "text", "--selection", "last"], ["--format", "json", "--plan=1"]]
)
def test_the_same_question_is_answered_at_once(
    kept: Path, sweep: Path, words: list[str], worked_out: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(sweep), *words]) == 0
    first = capsys.readouterr()
    assert main([str(sweep), *words]) == 0
    assert capsys.readouterr() == first
    assert len(worked_out) == 1
    write(sweep / "run1", [line(1, 0, 0.1), line(1, 300, 0.9)])
    assert main([str(sweep), *words]) == 0
    assert capsys.readouterr() != first
    assert main([str(sweep), *words, *([] if "domainbed" in words else ["--algorithms", "ERM"])]) == 0
    assert len(worked_out) == (2 if "domainbed" in words else 3)


@pytest.mark.parametrize("words", [["--explain", "PACS", "ERM", "A"], ["--reference"], ["--output", "there.txt"]])
def test_answers_that_hang_on_other_files_are_not_kept(
    kept: Path, sweep: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sweep.parent)
    assert main([str(sweep), "--format", "text", *words]) == 0
    assert not (kept / "answers").exists()


def test_an_answer_of_other_code_or_a_torn_one_does_not_count(
    kept: Path, sweep: Path, worked_out: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(sweep), "--format", "domainbed"]
    main(words)
    (path,) = (kept / "answers").glob("*.json")
    path.write_text(path.read_text()[:-9])
    main(words)
    monkeypatch.setattr(answers, "code_stamp", lambda: "other")
    main(words)
    assert len(worked_out) == 3
    assert len(set(capsys.readouterr().out.split("Total records")[1:])) == 1


def test_old_answers_go(kept: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "KEPT", 2)
    digest = load(sweep).digest
    for number in range(4):
        answers.remember([str(number)], str(sweep), digest, answers.Answer(str(number), ()))
        for path in (kept / "answers").glob("*.json"):
            if path.stat().st_mtime > LONG_AGO * 1.01:
                settle(path)
    assert [answers.recall([str(number)]) is not None for number in range(4)] == [False, False, True, True]


def test_domainbeds_text_is_the_same_with_and_without_the_short_way(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(sweep / "run7", [line(7, 0, 0.5)], done=False)
    assert main([str(sweep), "--format", "domainbed"]) == 0
    short = capsys.readouterr()
    assert main([str(sweep), "--format=domainbed"]) == 0
    assert capsys.readouterr() == short
    assert "nfinished runs included: 1" in short.err


def test_lines_are_read_alike_together_and_one_by_one() -> None:
    good = b'{"a": 1}\n{"b": [2]}\n'
    assert read_lines(good) == ([{"a": 1}, {"b": [2]}], 0)
    assert read_lines(good + b'{"c"') == ([{"a": 1}, {"b": [2]}], 1)
    assert read_lines(b'{"a": 1}, {"b": 2}\n{"c": [3\n4]}\n[5]\n\n\xff\n') == ([], 5)
    assert read_lines(b"") == ([], 0)
