"""Settings from TOML files: the user's for every project, then the project's, which win key by key.

User: `$XDG_CONFIG_HOME/clipbed/config.toml` (`~/.config/clipbed/config.toml`). Project: `clipbed.toml` in the current
folder or the nearest parent, up to the one with `.git` or the home folder. What the tables mean is their readers'
business: they say what may stand in one, and this module says where something else stands.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import SpecError
from bench.registry import unknown_name

TABLES = ("slurm", "cache")
"""All tables that any command reads."""

USER_FILE = "config.toml"
PROJECT_FILE = "clipbed.toml"

Schema = Mapping[str, Any]
"""What may stand in a table: key -> a type, a tuple of types, the Schema of an inner table, or, for an array of tables,
a list with the Schema of each. `dict` and `list` let anything inside through."""

_TYPES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


class Table(dict[str, Any]):
    """One merged table.

    Attributes:
        origins: which file each value is from, by its key; inner ones by "table.key" and "array[0].key".
    """

    def __init__(self) -> None:
        """Make an empty table."""
        super().__init__()
        self.origins: dict[str, Path] = {}

    def where(self, key: str) -> str:
        """Say where `key` (or "table.key", "array[0].key") was set, for messages."""
        return f"{key} in {self.origins[key]}"


def load_table(name: str, schema: Schema, *, folder: Path | None = None) -> Table:
    """Read a table from the user's and the project's file; empty where there is none.

    Inner tables are merged key by key as well. Arrays of tables are put behind each other, the user's first; an empty
    array in the project's file drops the user's. All other values of the project's file replace the user's.

    Args:
        name: one of `TABLES`.
        schema: what may stand in it.
        folder: where to begin looking for the project's file; the current folder by default.

    Raises:
        SpecError: a file cannot be read, or has an unknown table, an unknown key or a value of the wrong type; all
            problems of both files in one message.
    """
    merged = Table()
    problems: list[str] = []
    for file in config_files(folder):
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problems.append(f"{file} cannot be read: {error}.")
            continue
        problems += (f"{file}: {problem}" for problem in _strangers(content))
        if name in content and isinstance(content[name], dict):
            found = [f"{file}: {problem}" for problem in _misfits(content[name], schema, name)]
            problems += found
            if not found:
                _merge(merged, content[name], file, "", merged.origins)
    if problems:
        raise SpecError("\n".join(problems))
    return merged


def config_files(folder: Path | None = None) -> list[Path]:
    """Find the files that exist, the user's before the project's.

    Args:
        folder: where to begin looking for the project's file; the current folder by default.
    """
    return [file for file in (_user_file(), *_project_files(folder or Path.cwd())) if file is not None]


def _user_file() -> Path | None:
    given = os.environ.get("XDG_CONFIG_HOME", "")
    home = _home()
    if Path(given).is_absolute():  # a relative one is to be ignored: XDG Base Directory Specification
        base = Path(given)
    elif home is not None:
        base = home / ".config"
    else:
        return None
    file = base / "clipbed" / USER_FILE
    return file if file.is_file() else None


def _project_files(folder: Path) -> Iterator[Path]:
    """Give the nearest project file, if there is one."""
    folder, home = folder.resolve(), _home()
    last = home.resolve() if home else None
    for each in (folder, *folder.parents):
        if (each / PROJECT_FILE).is_file():
            yield each / PROJECT_FILE
            return
        if each == last or (each / ".git").exists():
            return


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # a user without an entry in the password file, as in some containers
        return None


def _strangers(content: Mapping[str, Any]) -> Iterator[str]:
    """Word a problem for each top-level entry that is no known table."""
    for name, value in content.items():
        if name not in TABLES:
            yield unknown_name("table", name, TABLES)
        elif not isinstance(value, dict):
            yield f"{name} = {value!r} is {_kind_of(value)}, and should be a table: [{name}]."


def _misfits(table: Mapping[str, Any], schema: Schema, path: str) -> Iterator[str]:
    """Word a problem for each key that is unknown or holds something of another type."""
    for key, value in table.items():
        if key not in schema:
            yield unknown_name(f"key of [{path}]", key, tuple(schema))
            continue
        allowed = schema[key]
        if isinstance(allowed, Mapping) and isinstance(value, dict):
            yield from _misfits(value, allowed, f"{path}.{key}")
        elif isinstance(allowed, list) and _is_array_of_tables(value):
            for each in value:
                yield from _misfits(each, allowed[0], f"[{path}.{key}]")
        elif not _fits(value, allowed):
            yield f"{key} = {value!r} in [{path}] is {_kind_of(value)}, and should be {_told(allowed)}."


def _fits(value: object, allowed: Any) -> bool:
    """Whether a value is of an allowed type. A whole number is a number; true and false are none."""
    if isinstance(allowed, list):
        return value == []
    if isinstance(allowed, Mapping):
        return False
    kinds = allowed if isinstance(allowed, tuple) else (allowed,)
    return type(value) in kinds or (type(value) is int and float in kinds)


def _told(allowed: Any) -> str:
    if isinstance(allowed, list):
        return "an array of tables"
    kinds = allowed if isinstance(allowed, tuple) else (dict if isinstance(allowed, Mapping) else allowed,)
    return " or ".join(_TYPES.get(kind, kind.__name__) for kind in kinds)


def _kind_of(value: object) -> str:
    return _TYPES.get(type(value), f"a {type(value).__name__}")


def _merge(into: dict[str, Any], table: Mapping[str, Any], file: Path, path: str, origins: dict[str, Path]) -> None:
    """Put the values of a later file over those of an earlier one, and note where each is from."""
    for key, value in table.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value, file, f"{name}.", origins)
        elif value and _is_array_of_tables(value):
            earlier = into[key] if _is_array_of_tables(into.get(key)) else []
            into[key] = [*earlier, *value]
            for i, each in enumerate(value, len(earlier)):
                _merge({}, each, file, f"{name}[{i}].", origins)
                origins[f"{name}[{i}]"] = file
        else:
            into[key] = value
        origins[name] = file


def _is_array_of_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)
