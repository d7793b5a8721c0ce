"""Settings: which files are read, which value wins, and what a message says of a bad one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.config import Table, config_files, load_table
from bench.errors import SpecError

SCHEMA = {
    "partition": str,
    "gpus": int,
    "hours": float,
    "requeue": bool,
    "mem": (int, str),
    "exclude": list,
    "options": dict,
    "limits": {"jobs": int},
    "when": [{"dataset": str, "hours": float}],
}

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own with a project in it, so that the tests' own user has no say."""
    folder = tmp_path / "home"
    (folder / "project" / "inner").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(folder / "project")
    return folder


def _writer(file: Path) -> Write:
    def write(text: str) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write


@pytest.fixture
def user(home: Path) -> Write:
    """Give a function that writes the user's file."""
    return _writer(home / ".config" / "clipbed" / "config.toml")


@pytest.fixture
def project(home: Path) -> Write:
    """Give a function that writes the project's file."""
    return _writer(home / "project" / "clipbed.toml")


def load() -> Table:
    return load_table("slurm", SCHEMA)


def refused() -> str:
    with pytest.raises(SpecError) as caught:
        load()
    return str(caught.value)


def test_without_files_a_table_is_empty() -> None:
    assert load() == {}
    assert config_files() == []


def test_the_project_wins_key_by_key_and_origins_are_known(user: Write, project: Write) -> None:
    mine = user('[slurm]\npartition = "long"\ngpus = 1\nhours = 4\nexclude = ["n1", "n2"]\n')
    ours = project('[slurm]\npartition = "gpu"\nexclude = ["n3"]\n')
    table = load()
    assert table == {"partition": "gpu", "gpus": 1, "hours": 4, "exclude": ["n3"]}
    assert table.origins == {"partition": ours, "gpus": mine, "hours": mine, "exclude": ours}
    assert table.where("gpus") == f"gpus in {mine}"


def test_inner_tables_are_merged_and_arrays_of_tables_put_together(user: Write, project: Write) -> None:
    mine = user('[slurm.options]\nwckey = "a"\nlicenses = "b"\n[[slurm.when]]\ndataset = "PACS"\nhours = 1.5\n')
    ours = project('[slurm.options]\nwckey = "c"\n[[slurm.when]]\ndataset = "VLCS"\n')
    table = load()
    assert table["options"] == {"wckey": "c", "licenses": "b"}
    assert table["when"] == [{"dataset": "PACS", "hours": 1.5}, {"dataset": "VLCS"}]
    assert [table.origins[key] for key in ("options.wckey", "options.licenses")] == [ours, mine]
    assert [table.origins[key] for key in ("when[0]", "when[0].hours", "when[1].dataset")] == [mine, mine, ours]


def test_an_empty_array_drops_the_users(user: Write, project: Write) -> None:
    user('[[slurm.when]]\ndataset = "PACS"\n')
    project("[slurm]\nwhen = []\n")
    assert load()["when"] == []


def test_the_users_file_lies_where_xdg_says(
    home: Path, user: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user("[slurm]\ngpus = 1\n")
    _writer(tmp_path / "xdg" / "clipbed" / "config.toml")("[slurm]\ngpus = 2\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert load() == {"gpus": 2}
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert load() == {"gpus": 1}


def test_the_projects_file_is_looked_for_up_to_a_repository_or_home(
    home: Path, project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = project("[slurm]\ngpus = 2\n")
    monkeypatch.chdir(home / "project" / "inner")
    assert config_files() == [ours]
    (home / "project" / ".git").mkdir()
    assert config_files() == [ours]
    (home / "project" / "inner" / ".git").touch()  # a file, as in a worktree
    assert config_files() == []


def test_nothing_above_home_is_read(home: Path, tmp_path: Path) -> None:
    _writer(tmp_path / "clipbed.toml")("[slurm]\ngpus = 2\n")
    assert config_files() == []
    assert config_files(tmp_path) == [tmp_path / "clipbed.toml"]


def test_the_nearest_project_file_is_the_only_one(home: Path, project: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    project("[slurm]\ngpus = 2\n")
    inner = _writer(home / "project" / "inner" / "clipbed.toml")("[slurm]\nrequeue = true\n")
    monkeypatch.chdir(inner.parent)
    assert load() == {"requeue": True}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[slrum]\ngpus = 1\n", ("table 'slrum'", "Did you mean 'slurm'")),
        ("gpus = 1\n", ("table 'gpus'",)),
        ("slurm = 3\n", ("slurm = 3", "a whole number", "[slurm]")),
        ("[slurm]\npartitoin = 'x'\n", ("key of [slurm] 'partitoin'", "'partition'", "requeue")),
        ("[slurm]\ngpus = 'two'\n", ("gpus = 'two'", "a text", "a whole number")),
        ("[slurm]\ngpus = true\n", ("gpus = True", "true or false", "a whole number")),
        ("[slurm]\ngpus = 1.5\n", ("gpus = 1.5", "a number")),
        ("[slurm]\nmem = 1.5\n", ("a whole number or a text",)),
        ("[slurm]\nlimits = 3\n", ("limits = 3", "a table")),
        ("[slurm.limits]\njob = 3\n", ("key of [slurm.limits] 'job'", "'jobs'")),
        ("[slurm]\nwhen = [1]\n", ("when = [1]", "an array of tables")),
        ("[[slurm.when]]\ndatset = 'PACS'\n", ("key of [[slurm.when]] 'datset'", "'dataset'")),
        ("[slurm\n", ("cannot be read", "line 1")),
    ],
)
def test_a_bad_setting_is_refused_with_its_file_and_what_is_allowed(
    project: Write, text: str, parts: tuple[str, ...]
) -> None:
    file = project(text)
    message = refused()
    assert all(part in message for part in (str(file), *parts)), message


def test_problems_of_both_files_come_in_one_message(user: Write, project: Write) -> None:
    mine = user("[slurm]\ngpus = 'two'\nwhat = 1\n")
    ours = project("[other]\n")
    lines = refused().splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(mine), str(mine), str(ours)]


def test_a_file_that_is_no_text_is_refused(project: Write) -> None:
    file = project("")
    file.write_bytes(b"[slurm]\n\xff\n")
    assert f"{file} cannot be read" in refused()
