"""A DomainBed checkout on this machine: found, imported on demand, and named by the digest of its code.

There is one in a process at a time, since Python knows one package `domainbed`. No torch is imported before a module of
the checkout is asked for.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.errors import BenchError, Conflict, DataMissing, SpecError, UnknownName
from bench.hparams import Hparam
from bench.registry import algorithms, unknown_name

VARIABLE = "CLIPBED_DOMAINBED"
"""Environment variable that names the checkout where `--domainbed` is not given."""

PREFIX = "domainbed:"
"""What the names of DomainBed's algorithms begin with, where they stand for trials of ours."""

_PACKAGE = "domainbed"
_CODE = ("algorithms.py", "networks.py", "hparams_registry.py", "lib/*.py")
"""What decides what an algorithm does."""


@dataclass(frozen=True)
class Checkout:
    """A checkout.

    Attributes:
        folder: the folder that holds the package `domainbed`.
        digest: sixteen digits of the SHA-256 of the code that decides what its algorithms do.
    """

    folder: Path
    digest: str

    @property
    def commit(self) -> str:
        """The git commit that is checked out; empty where git cannot tell."""
        if not (self.folder / ".git").exists():
            return ""
        asked = ["git", "-C", str(self.folder), "rev-parse", "HEAD"]
        try:
            return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return ""

    def module(self, name: str) -> Any:
        """Import the module `domainbed.<name>`.

        Raises:
            DataMissing: it needs a module that is not installed.
            BenchError: it cannot be imported for another reason.
            Conflict: another `domainbed` was imported before.
        """
        whole = f"{_PACKAGE}.{name}"
        sys.path.insert(0, str(self.folder))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its regular expressions and the like
                module = importlib.import_module(whole)
        except ModuleNotFoundError as error:
            raise DataMissing(
                f"{whole} of {self.folder} needs the Python module {error.name!r}, which is not installed; "
                "docs/domainbed.md says what DomainBed needs"
            ) from error
        except Exception as error:
            raise BenchError(f"{whole} of {self.folder} cannot be imported: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(str(self.folder))
        self._check_origin(module)
        return module

    def _check_origin(self, module: ModuleType) -> None:
        origin = Path(module.__file__ or "").resolve()
        if self.folder not in origin.parents:
            raise Conflict(f"the package domainbed was imported from {origin}, not from {self.folder}; take that one")

    def algorithms(self) -> tuple[str, ...]:
        """Name its algorithms: its own list, then further public subclasses of its `Algorithm`."""
        module = self.module("algorithms")
        base = module.Algorithm
        subclasses = [
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, base) and value is not base
        ]
        listed = [*module.ALGORITHMS, *(name for name in subclasses if not name.startswith(("Abstract", "_")))]
        return tuple(dict.fromkeys(listed))

    def algorithm(self, name: str) -> Any:
        """Give an algorithm's class.

        Raises:
            UnknownName: it has none of that name.
        """
        known = self.algorithms()
        if name not in known:
            raise UnknownName(unknown_name(f"algorithm of DomainBed ({self.folder}) called", name, known))
        return getattr(self.module("algorithms"), name)


_current: Checkout | None = None


def use(folder: str | Path | None, digest: str = "") -> Checkout:
    """Make the checkout in `folder`, or else the one that the environment names, that of this process.

    Args:
        folder: where `git clone` put it.
        digest: what its code must be; empty for whatever it is.

    Raises:
        SpecError: none was given.
        DataMissing: there is none.
        Conflict: its code is another one.
    """
    global _current
    given = folder or os.environ.get(VARIABLE)
    if not given:
        raise SpecError(
            f"an algorithm {PREFIX}NAME needs a checkout of DomainBed, and none was given: --domainbed DIR (or the "
            f"environment variable {VARIABLE}); git clone https://github.com/facebookresearch/DomainBed makes one"
        )
    found = _look(Path(given).expanduser().resolve())
    if digest and found.digest != digest:
        raise Conflict(
            f"the DomainBed checkout {found.folder} has the code {found.digest}, this trial was launched with {digest}: "
            "check that version out again, or launch anew"
        )
    if found != _current:
        for name in [each for each in sys.modules if each.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]
        _current = found
    return found


def current() -> Checkout | None:
    """Give the checkout of this process; None before one is in use."""
    return _current


def find_method(name: str, folder: str | None) -> Any:
    """Look an algorithm of ours up; one of DomainBed's in the checkout in `folder`, which becomes that of this process.

    Raises:
        UnknownName: there is none of that name.
        BenchError: it is one of DomainBed's, and the checkout is not as it must be.
    """
    if name.startswith(PREFIX):
        use(folder)
    return algorithms[name]


def declared_hparams(method: Any, dataset: str, hparams_seed: int, trial_seed: int) -> Mapping[str, Hparam]:
    """Give a method's hparams; those of DomainBed's algorithms depend on data set and seeds, by its own registry."""
    if is_foreign(method):
        found: Mapping[str, Hparam] = method.hparams_for(dataset, hparams_seed, trial_seed)
        return found
    declared: Mapping[str, Hparam] = method.hparams
    return declared


def tag(method: Any) -> dict[str, str]:
    """Give the field of a trial's spec that names the code of one of DomainBed's algorithms; none for one of ours."""
    return {"domainbed": (_current or use(None)).digest} if is_foreign(method) else {}


def is_foreign(method: Any) -> bool:
    """Say whether an algorithm is one of DomainBed's."""
    return hasattr(method, "foreign")


def _look(folder: Path) -> Checkout:
    package = folder / _PACKAGE
    if not (package / "algorithms.py").is_file():
        raise DataMissing(
            f"{folder} is no checkout of DomainBed: it has no {_PACKAGE}/algorithms.py; give the folder that git clone made"
        )
    files = sorted(path for pattern in _CODE for path in package.glob(pattern))
    return Checkout(folder, _digest(tuple((path, path.stat().st_mtime_ns) for path in files)))


@functools.cache
def _digest(files: tuple[tuple[Path, int], ...]) -> str:
    hashed = hashlib.sha256()
    for path, _ in files:
        hashed.update(f"{path.name}\n".encode() + path.read_bytes())
    return hashed.hexdigest()[:16]
