"""Registries: suggestions, collisions, origins, third-party plug-ins, broken ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from bench import registry as module
from bench.errors import Conflict, UnknownName
from bench.registry import Registry, algorithms, backbones, datasets, protocols, unknown_name

GROUP = "test.things"


class Thing:
    """Something to register."""


class Other:
    """Something else to register."""


Plugins = Callable[..., Registry[Any]]


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """Give a function that makes a registry over a package of the given files and entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(points: dict[str, str] | None = None, **sources: str) -> Registry[Any]:
        package = tmp_path / "some_plugins"
        package.mkdir()
        (package / "__init__.py").touch()
        for name, source in sources.items():
            (package / f"{name}.py").write_text(source)
        found = [EntryPoint(name, value, GROUP) for name, value in (points or {}).items()]
        monkeypatch.setattr(module, "entry_points", lambda group: found if group == GROUP else [])
        made: Registry[Any] = Registry("thing", "some_plugins", GROUP)
        monkeypatch.setitem(sys.modules, "some_plugins_registry", type(sys)("some_plugins_registry"))
        monkeypatch.setattr(sys.modules["some_plugins_registry"], "things", made, raising=False)
        return made

    yield make
    for name in [each for each in sys.modules if each.partition(".")[0] == "some_plugins"]:
        del sys.modules[name]


IMPORT = "from some_plugins_registry import things\n"


def test_unknown_name_suggests_near_ones_and_lists_all() -> None:
    with pytest.raises(UnknownName) as caught:
        datasets["ofice_home"]
    assert "there is no data set 'ofice_home'. Did you mean 'OfficeHome'?" in str(caught.value)
    assert "Caltech101" in str(caught.value) and " in all)" in str(caught.value)


def test_long_lists_of_names_are_cut_short() -> None:
    message = unknown_name("thing", "zzz", tuple(f"name{i}" for i in range(30)))
    assert "name19, … (30 in all)." in message and "Did you mean" not in message
    assert unknown_name("thing", "x", ()) == "there is no thing 'x'. Known: none."


def test_names_are_sorted_without_regard_to_case(plugins: Plugins) -> None:
    things = plugins()
    for name in ("b", "A", "c"):
        things.add(name, Thing)
    assert list(things) == ["A", "b", "c"]
    assert (len(things), "b" in things, "B" in things) == (3, True, False)


def test_second_thing_of_a_name_is_a_conflict(plugins: Plugins) -> None:
    things = plugins()
    things.register("x")(Thing)
    things.register("x")(Thing)  # the same again is none
    with pytest.raises(Conflict, match=r"the thing 'x': .*test_registry\.py:\d+ and .*test_registry\.py:\d+; rename"):
        things.register("x")(Other)
    assert things["x"] is Thing


def test_second_object_of_a_class_under_one_name_is_a_conflict(plugins: Plugins) -> None:
    things = plugins()
    first = Thing()
    things.add("x", first)
    with pytest.raises(Conflict):
        things.add("x", Thing())
    assert things["x"] is first


def test_origin_is_where_a_thing_was_registered(plugins: Plugins) -> None:
    source = (
        f"{IMPORT}\nclass A: ...\n\nthings.add('a', A)\n"
        "things.add(\n    'b', A()\n)\n@things.register('c')\nclass C: ...\n"
    )
    things = plugins(one=source)
    lines = [things.origin(name).rpartition("/")[2] for name in "abc"]
    assert lines == ["one.py:5", "one.py:6", "one.py:9"]


def test_broken_plug_in_is_reported_and_stops_nobody(plugins: Plugins) -> None:
    things = plugins(good=f"{IMPORT}things.add('good', 1)", bad="import no_such_module", worse="def (")
    assert list(things) == ["good"]
    assert "ModuleNotFoundError" in things.broken["bad"] and "SyntaxError" in things.broken["worse"]
    with pytest.raises(
        UnknownName, match=r"Plug-ins that could not be loaded: bad: ModuleNotFoundError: .*no_such_module"
    ):
        things["goof"]


def test_plug_ins_are_imported_at_the_first_look_up_only(plugins: Plugins) -> None:
    things = plugins(good=f"{IMPORT}things.add('good', 1)")
    assert "some_plugins.good" not in sys.modules
    assert things["good"] == 1
    assert "some_plugins.good" in sys.modules


def test_entry_points_are_found_and_broken_ones_reported(plugins: Plugins) -> None:
    things = plugins(
        points={"theirs": "some_plugins.lib:Theirs", "gone": "some_plugins.lib:Gone", "absent": "no_such_lib:X"}
    )
    Path(sys.path[0], "some_plugins", "lib.py").write_text("class Theirs: ...\n")
    assert list(things) == ["theirs"]
    assert things.origin("theirs").endswith("lib.py:1")
    assert "AttributeError" in things.broken["gone (some_plugins.lib:Gone)"]
    assert "no_such_lib" in things.broken["absent (no_such_lib:X)"]


def test_entry_point_may_name_a_module_that_registers_by_itself(plugins: Plugins) -> None:
    source = f"{IMPORT}@things.register('theirs')\nclass Theirs: ...\n"
    things = plugins(points={"theirs": "some_plugins_other", "same": "some_plugins_other:Theirs"})
    Path(sys.path[0], "some_plugins_other.py").write_text(source)
    assert list(things) == ["same", "theirs"]
    assert things.broken == {}
    sys.modules.pop("some_plugins_other")


def test_entry_point_with_the_name_of_a_plug_in_is_reported_and_replaces_nothing(plugins: Plugins) -> None:
    things = plugins(points={"ours": "json:JSONDecoder"}, one=f"{IMPORT}@things.register('ours')\nclass Ours: ...\n")
    assert things["ours"].__name__ == "Ours"
    assert (
        "Conflict" in things.broken["ours (json:JSONDecoder)"]
        and "decoder.py" in things.broken["ours (json:JSONDecoder)"]
    )


@pytest.mark.parametrize("registry", [algorithms, datasets, protocols, backbones], ids=lambda each: each.kind)
def test_everything_of_this_project_loads_and_has_an_origin(registry: Registry[Any]) -> None:
    assert len(registry) > 0
    assert registry.broken == {}
    for name in registry:
        file, _, line = registry.origin(name).rpartition(":")
        assert Path(file).is_file() and int(line) > 0
