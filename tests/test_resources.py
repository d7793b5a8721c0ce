"""What trials ask of Slurm: values are read as Slurm means them, and the more special setting wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.config import load_table
from bench.errors import SpecError
from bench.resources import SCHEMA, Resources, gigabytes, minutes, resources_of
from tests.fakes import make_spec


def slurms_minutes(days: int, hours: int, mins: int, seconds: int) -> float:
    return ((days * 24 + hours) * 60 + mins) + seconds / 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),  # sbatch(1), --time: "minutes"
        ("90:30", 90.5),  # "minutes:seconds"
        ("1:02:03", slurms_minutes(0, 1, 2, 3)),  # "hours:minutes:seconds"
        ("2-3", slurms_minutes(2, 3, 0, 0)),  # "days-hours"
        ("2-3:04", slurms_minutes(2, 3, 4, 0)),  # "days-hours:minutes"
        ("2-3:04:05", slurms_minutes(2, 3, 4, 5)),  # "days-hours:minutes:seconds"
        (45, 45),
        (1.5, 1.5),
        ("90min", 90),
        ("4h", 240),
        ("1.5 h", 90),
        ("2d", 2880),
        ("30s", 0.5),
        (" 4H ", 240),
    ],
)
def test_time_limits_are_read_as_sbatch_reads_them(text: Any, expected: float) -> None:
    assert minutes(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "0", "0:00", "-5", "4 weeks", "1:2:3:4", "nan", "inf", "4h30", True, "1-", "h"])
def test_what_is_no_time_limit_is_refused_with_the_forms_that_are(text: Any) -> None:
    with pytest.raises(SpecError, match=r"time limit .* H:MM:SS, D-HH:MM:SS, or 90min, 4h, 2d"):
        minutes(text)


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_every_clock_time_is_read_back(days: int, hours: int, mins: int, seconds: int) -> None:
    expected = slurms_minutes(days, hours, mins, seconds)
    if expected:
        assert minutes(f"{days}-{hours:02d}:{mins:02d}:{seconds:02d}") == pytest.approx(expected)
        assert minutes(f"{24 * days + hours}:{mins:02d}:{seconds:02d}") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("32", 32), (32, 32), ("512M", 0.5), ("16G", 16), ("16 GB", 16), ("16GiB", 16), ("1T", 1024), ("1.5g", 1.5)],
)
def test_memory_is_read_in_gigabytes(text: Any, expected: float) -> None:
    assert gigabytes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0G", "-1", "lots", "16X", "1e3"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="is none: give gigabytes, or 500M, 16G, 1T"):
        gigabytes(text)


def test_options_win_over_the_last_rule_that_fits_and_rules_over_the_table() -> None:
    table = {
        "partition": "table",
        "account": "table",
        "time": "1h",
        "memory": "8G",
        "when": [
            {"algorithm": "FakeERM", "partition": "first", "account": "first", "time": "2h"},
            {"algorithm": ["Other", "FakeERM"], "dataset": "Fake", "partition": "second", "time": "3h"},
            {"algorithm": "Other", "partition": "other", "time": "4h"},
            {"dataset": "Fake", "backbone": "big", "partition": "other", "time": "5h"},
        ],
    }
    found = resources_of(make_spec(), table, {"partition": "option"}, gpus=1)
    assert (found.partition, found.account, found.time, found.memory) == ("option", "first", 180, 8)
    assert found.gpus == 1
    other = resources_of(make_spec(algorithm="Third", dataset="FakeIcons"), table, {}, gpus=0)
    assert (other.partition, other.time, other.gpus) == ("table", 60, 0)


def test_gpus_that_are_asked_for_win_over_what_the_cluster_offers() -> None:
    assert resources_of(make_spec(), {"gpus": 4}, {}, gpus=1).gpus == 4
    assert resources_of(make_spec(), {"gpus": 4}, {"gpus": 0}, gpus=1).gpus == 0


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"partition": "a"}, "it needs one of algorithm, dataset, backbone"),
        ({"algorithm": "ERM", "partitoin": "a"}, "any of partition, account"),
    ],
)
def test_a_rule_for_nothing_or_with_an_unknown_key_is_refused(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        resources_of(make_spec(), {"when": [rule]}, {}, gpus=0)


@pytest.mark.parametrize(("key", "value"), [("cpus", 0), ("gpus", -1), ("parallel", 0)])
def test_numbers_that_are_too_small_are_refused(key: str, value: int) -> None:
    with pytest.raises(SpecError, match=f"{key}={value}"):
        resources_of(make_spec(), {key: value}, {}, gpus=0)


def test_one_line_of_setup_and_a_list_are_both_understood() -> None:
    assert resources_of(make_spec(), {"setup": "module load a"}, {}, gpus=0).setup == ("module load a",)
    assert resources_of(make_spec(), {"setup": ["a", "b"]}, {}, gpus=0).setup == ("a", "b")


def settings(folder: Path, text: str) -> Any:
    (folder / "clipbed.toml").write_text(text)
    (folder / ".git").mkdir()
    return load_table("slurm", SCHEMA, folder=folder)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('cpus = "four"', "cpus = 'four' in .* is a text, and should be a whole number"),
        ("algorithm = 3", "algorithm = 3 in .* is a whole number, and should be a text or a list"),
        ('algorithms = "ERM"', "algorithms.*algorithm"),
    ],
)
def test_a_value_of_the_wrong_type_in_a_rule_is_named(
    line: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    with pytest.raises(SpecError, match=words):
        settings(tmp_path, f"[[slurm.when]]\n{line}\n")


def test_rules_that_are_no_tables_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    with pytest.raises(SpecError, match="an array of tables"):
        settings(tmp_path, '[slurm]\nwhen = ["ERM"]\n')


def test_the_example_of_the_module_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    from bench import resources

    lines = (resources.__doc__ or "").partition("\n\n")[2].partition("\n\nWhat a trial")[0]
    table = settings(tmp_path, lines)
    assert resources_of(make_spec(algorithm="ZeroShot"), table, {}, gpus=1).time == 20
    assert resources_of(make_spec(), table, {}, gpus=1).time == 240


def test_sbatch_gets_whole_minutes_rounded_up_and_memory_that_is_not_zero() -> None:
    asked = Resources(time=0.2, memory=0.0001, cpus=3).parameters()
    assert asked["time"] == 1
    assert asked["mem"] == "1M"  # --mem=0 would be all of a node
    assert Resources(time=90.5).parameters()["time"] == 91
    assert Resources(memory=1.5).parameters()["mem"] == "1536M"


@given(st.floats(0.1, 10_000))
def test_the_warning_comes_within_the_limit(limit: float) -> None:
    seconds = Resources(time=limit).warning_seconds
    assert 0 < seconds <= min(120, limit * 60 * 3 / 4)
    assert Resources(time=None).warning_seconds == 120


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("array=0-1", "--trials-per-task"),
        ("--time=9", "use --time"),
        ("quiet", "leave it out"),
        ("signal=USR1@9", "out"),
    ],
)
def test_options_that_undo_what_the_launcher_asks_for_are_refused(option: str, instead: str) -> None:
    with pytest.raises(SpecError, match=f"sbatch='{option}' would undo .*{instead}"):
        resources_of(make_spec(), {}, {"sbatch": [option]}, gpus=0)


def test_further_options_are_handed_on_as_sbatch_calls_them() -> None:
    extra = Resources(sbatch=("--exclusive", "mail-type=END", "comment=a=b"), requeue=False).parameters()
    assert extra["additional_parameters"] == {
        "no-requeue": True,
        "exclusive": True,
        "mail-type": "END",
        "comment": "a=b",
    }
