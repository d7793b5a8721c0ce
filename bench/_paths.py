"""Where the plug-in folders lie: beside `bench/` in a checkout, inside it in an installed wheel.

The folders `algorithms/`, `datasets/` and `sweeps/` stand at the top of a checkout but are imported as `bench.algorithms`
and so on, since a bare `datasets` is Hugging Face's import name. This module owns that arrangement and nothing else.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = PACKAGE.parent
IN_CHECKOUT = (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "algorithms").is_dir()


def plugin_path(folder: str, installed: list[str]) -> list[str]:
    """Give the search path of the plug-in package `folder`: the checkout's own folder first, where there is one."""
    return [str(_CHECKOUT / folder), *installed] if IN_CHECKOUT else installed


def plugin_folder(folder: str) -> Path:
    """Give the folder on disk that holds the plug-in files of `folder`."""
    return (_CHECKOUT if IN_CHECKOUT else PACKAGE) / folder


def hide_bare_plugin_folders() -> None:
    """Keep `import datasets` from finding our folder as an empty namespace package.

    Without Hugging Face's library installed, libraries that ask `find_spec("datasets")` would take our folder for it.
    A real package of that name is left alone.
    """
    for name in ("datasets", "algorithms"):
        if name in sys.modules:
            continue
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.origin is None and _only_ours(list(spec.submodule_search_locations or ())):
            sys.modules[name] = None  # type: ignore[assignment]


def _only_ours(locations: list[str]) -> bool:
    """Say whether folders are of checkouts of this project, of ours or of one that is installed beside a copy of it."""
    return bool(locations) and all((Path(place).parent / "bench" / "_paths.py").is_file() for place in locations)
