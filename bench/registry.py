"""Names for algorithms, data sets, protocols and backbones: one generic `Registry`, four instances.

In-tree plug-ins are found by looking into their folder, third-party ones through entry points of the group
`clipbed.<kind>`. All are imported at the first look-up, never before; a plug-in that cannot be imported is kept in
`Registry.broken` and reported, and stops nobody else.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Generic, TypeVar

from bench.errors import Conflict, UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """What is known of one kind of thing, by name.

    Attributes:
        kind: what one entry is called in messages, e.g. "algorithm".
        broken: plug-ins that could not be imported, with the reason.
    """

    def __init__(self, kind: str, package: str, group: str) -> None:
        """Make an empty registry whose plug-ins lie in `package` (a module or package) and entry-point `group`."""
        self.kind = kind
        self.broken: dict[str, str] = {}
        self._package = package
        self._group = group
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._families: dict[str, str] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Register the decorated class or object under `name`.

        Raises:
            Conflict: the name is taken by something from another place.
        """
        called_at = _caller()

        def decorate(entry: T) -> T:
            self._add(name, entry, called_at)
            return entry

        return decorate

    def add(self, name: str, entry: T) -> None:
        """Register `entry` under `name`; the plain-call form of `register`."""
        self._add(name, entry, _caller())

    def add_family(self, name: str, module: str) -> None:
        """Let the names "NAME:ARGUMENT" be what `find(ARGUMENT)` of `module` gives; it is imported when one is asked for."""
        self._families[name] = module

    def _add(self, name: str, entry: T, origin: str) -> None:
        if name in self._entries and self._entries[name] is not entry and self._origins[name] != origin:
            raise Conflict(
                f"two things are registered as the {self.kind} {name!r}: {self._origins[name]} and {origin}; "
                "rename one of them"
            )
        self._entries[name] = entry
        self._origins[name] = origin

    def __getitem__(self, name: str) -> T:
        """Look `name` up.

        Raises:
            UnknownName: nothing has that name; the message suggests near ones and lists plug-ins that are broken.
        """
        family, colon, argument = name.partition(":")
        if colon and family in self._families:
            found: T = importlib.import_module(self._families[family]).find(argument)
            return found
        self._load()
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownName(self.unknown(name)) from None

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, sorted without regard to case."""
        self._load()
        return iter(sorted(self._entries, key=str.lower))

    def __len__(self) -> int:
        self._load()
        return len(self._entries)

    def origin(self, name: str) -> str:
        """Say where `name` was registered, as file:line."""
        entry = self[name]
        return self._origins.get(name) or _written_in(entry, name)

    def unknown(self, name: str, further: tuple[str, ...] = ()) -> str:
        """Word the message for the unknown `name`; `further` names are valid though not registered."""
        return unknown_name(self.kind, name, (*self, *further), self.broken)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            self._try(module.name, functools.partial(importlib.import_module, f"{self._package}.{module.name}"))
        for point in entry_points(group=self._group):
            self._try(f"{point.name} ({point.value})", functools.partial(self._add_foreign, point))

    def _add_foreign(self, point: EntryPoint) -> None:
        entry = point.load()
        if isinstance(entry, ModuleType) or entry is self._entries.get(point.name):
            return  # importing it was enough: it registers what it has by itself
        self._add(point.name, entry, _written_in(entry, f"entry point {point.value}"))

    def _try(self, name: str, load: Callable[[], object]) -> None:
        try:
            load()
        except Exception as error:
            self.broken[name] = f"{type(error).__name__}: {error}"


def unknown_name(kind: str, name: str, known: tuple[str, ...], broken: dict[str, str] | None = None) -> str:
    """Word the message for an unknown `name`: near names first, then what is known, then what could not be loaded."""
    known = tuple(dict.fromkeys(known))
    lowered = {each.lower(): each for each in known}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)]
    hint = f" Did you mean {' or '.join(repr(each) for each in near)}?" if near else ""
    shown = ", ".join(known[:20]) + (f", … ({len(known)} in all)" if len(known) > 20 else "")
    message = f"there is no {kind} {name!r}.{hint} Known: {shown or 'none'}."
    if broken:
        reasons = "; ".join(f"{plugin}: {reason}" for plugin, reason in broken.items())
        message += f" Plug-ins that could not be loaded: {reasons}."
    return message


def _written_in(entry: object, otherwise: str) -> str:
    """Say where a class or function that did not register itself was written; it takes parsing its file."""
    if not (inspect.isclass(entry) or inspect.isfunction(entry)):
        return otherwise
    try:
        return f"{inspect.getsourcefile(entry)}:{inspect.getsourcelines(entry)[1]}"
    except (OSError, TypeError):
        return otherwise


def _caller() -> str:
    """Give file:line of what called the caller of this function."""
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


algorithms: Registry[Any] = Registry("algorithm", "bench.algorithms", "clipbed.algorithms")
datasets: Registry[Any] = Registry("data set", "bench.datasets", "clipbed.datasets")
protocols: Registry[Any] = Registry("protocol", "bench.protocols", "clipbed.protocols")
backbones: Registry[Any] = Registry("backbone", "bench.models", "clipbed.backbones")

algorithms.add_family("domainbed", "bench.domainbed.foreign")
