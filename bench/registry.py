"""Names for algorithms, data sets, protocols and backbones: one generic `Registry`, four instances.

In-tree plug-ins are found by looking into their folder, third-party ones through entry points of the group
`clipbed.<kind>`. All are imported at the first look-up, never before; a plug-in that cannot be imported is kept in
`Registry.broken` and reported, and stops nobody else.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
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
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Register the decorated class or object under `name`.

        Raises:
            Conflict: the name is taken by something from another place.
        """

        def decorate(entry: T) -> T:
            self.add(name, entry)
            return entry

        return decorate

    def add(self, name: str, entry: T) -> None:
        """Register `entry` under `name`; the plain-call form of `register`."""
        origin = _origin(entry)
        if name in self._entries and self._origins[name] != origin:
            raise Conflict(
                f"two things are registered as the {self.kind} {name!r}: {self._origins[name]} and {origin}; rename one of them"
            )
        self._entries[name] = entry
        self._origins[name] = origin

    def __getitem__(self, name: str) -> T:
        """Look `name` up.

        Raises:
            UnknownName: nothing has that name; the message suggests near ones and lists plug-ins that are broken.
        """
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
        self[name]
        return self._origins[name]

    def unknown(self, name: str, further: tuple[str, ...] = ()) -> str:
        """Word the message for the unknown `name`; `further` names are valid though not registered."""
        return unknown_name(self.kind, name, (*self, *further), self.broken)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            self._try(module.name, lambda name=module.name: importlib.import_module(f"{self._package}.{name}"))
        for point in entry_points(group=self._group):
            self._try(f"{point.name} ({point.value})", lambda point=point: self._add_foreign(point.name, point.load()))

    def _add_foreign(self, name: str, entry: Any) -> None:
        if name not in self._entries:
            self.add(name, entry)

    def _try(self, name: str, load: Callable[[], object]) -> None:
        try:
            load()
        except Exception as error:
            self.broken[name] = f"{type(error).__name__}: {error}"


def unknown_name(kind: str, name: str, known: tuple[str, ...], broken: dict[str, str] | None = None) -> str:
    """Word the message for an unknown `name`: near names first, then what is known, then what could not be loaded."""
    lowered = {each.lower(): each for each in known}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)]
    hint = f" Did you mean {' or '.join(repr(each) for each in near)}?" if near else ""
    shown = ", ".join(known[:20]) + (f", … ({len(known)} in all)" if len(known) > 20 else "")
    message = f"there is no {kind} {name!r}.{hint} Known: {shown or 'none'}."
    if broken:
        reasons = "; ".join(f"{plugin}: {reason}" for plugin, reason in broken.items())
        message += f" Plug-ins that could not be loaded: {reasons}."
    return message


def _origin(entry: object) -> str:
    try:
        target: Any = entry if inspect.isclass(entry) or inspect.isfunction(entry) else type(entry)
        file = inspect.getsourcefile(target)
        line = inspect.getsourcelines(target)[1]
    except (OSError, TypeError):
        return repr(entry)
    declared = getattr(entry, "declared_at", None)
    return declared or f"{file}:{line}"


algorithms: Registry[Any] = Registry("algorithm", "bench.algorithms", "clipbed.algorithms")
datasets: Registry[Any] = Registry("data set", "bench.datasets", "clipbed.datasets")
protocols: Registry[Any] = Registry("protocol", "bench.protocols", "clipbed.protocols")
backbones: Registry[Any] = Registry("backbone", "bench.models", "clipbed.backbones")
