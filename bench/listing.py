"""What `sweep list` shows: every registered thing, in a table or in detail. Imports no torch and reads no data set."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.console import table
from bench.dataset import DatasetInfo, find_dataset
from bench.errors import UnknownName
from bench.hparams import Hparam
from bench.models import known_backbones
from bench.registry import Registry, algorithms, backbones, datasets, protocols
from bench.sweepfile import sweep_file, sweep_files

REGISTRIES: dict[str, Registry[Any]] = {
    "algorithms": algorithms,
    "datasets": datasets,
    "protocols": protocols,
    "backbones": backbones,
}


def overview(kind: str) -> str:
    """Give the table of all `kind`."""
    rows, headers, foot = _OVERVIEWS[kind]()
    return table(rows, headers) + (f"\n\n{foot}" if foot else "")


def details(kind: str, name: str) -> str:
    """Describe one thing in full.

    Raises:
        UnknownName: there is no such thing.
    """
    return _DETAILS[kind](name)


def broken() -> list[str]:
    """Name the plug-ins that could not be loaded, with the reason."""
    return [f"{plugin}: {why}" for registry in REGISTRIES.values() for plugin, why in registry.broken.items()]


_Rows = tuple[Sequence[Sequence[Any]], Sequence[str], str]


def _algorithms() -> _Rows:
    rows = [
        [name, algorithms[name].steps.default, _needs(algorithms[name]), _brief(algorithms[name])]
        for name in algorithms
    ]
    return rows, ["algorithm", "steps", "needs", ""], "`sweep list algorithms NAME` shows paper and hparams"


def _datasets() -> _Rows:
    rows = []
    for name in datasets:
        info = datasets[name]
        if isinstance(info, DatasetInfo):
            count = sum(info.counts) or "?"
            rows.append([name, len(info.domains) or "?", len(info.class_names) or "?", count, info.summary])
        else:
            rows.append([f"{name}:PATH", "?", "?", "?", _first_line(info.__doc__)])
    return rows, ["data set", "domains", "classes", "images", ""], "`sweep list datasets NAME` shows source and licence"


def _protocols() -> _Rows:
    return (
        [[name, protocols[name].version, protocols[name].summary] for name in protocols],
        ["protocol", "version", ""],
        "",
    )


def _backbones() -> _Rows:
    rows = [[name, info.default_pretrained, info.image_size, info.summary] for name, info in _backbone_infos()]
    more = known_backbones()[len(rows) :]
    foot = f"and {len(more)} more of open_clip's, each with --pretrained TAG or FILE: {', '.join(more)}"
    return rows, ["backbone", "weights", "px", ""], foot if more else ""


def _sweeps() -> _Rows:
    rows = [[path.stem, _first_line(_docstring(path))] for path in sweep_files()]
    return rows, ["sweep", ""], "`sweep launch NAME` launches one, with --dry-run to see its trials"


def _algorithm(name: str) -> str:
    method = algorithms[name]
    steps = {"steps": method.steps, **method.hparams}
    return "\n\n".join(
        [
            f"{name}: {_brief(method)}",
            _facts(
                {
                    "paper": method.paper,
                    "needs": _needs(method) or "labelled images only",
                    "code": algorithms.origin(name),
                }
            ),
            _hparam_table(steps),
            inspect.getdoc(method) or "",
        ]
    )


def _dataset(name: str) -> str:
    family = name.partition(":")[0]
    if family in datasets and not isinstance(datasets[family], DatasetInfo) and ":" not in name:
        return f"{name}:PATH\n\n{inspect.getdoc(datasets[name]) or ''}\n\ncode: {datasets.origin(name)}"
    info = find_dataset(name)
    counts = dict(zip(info.domains, info.counts)) if info.counts else dict.fromkeys(info.domains, "?")
    facts = {
        "domains": ", ".join(f"{index} = {domain} ({n} images)" for index, (domain, n) in enumerate(counts.items())),
        "classes": f"{len(info.class_names)}: {', '.join(info.class_names)}"
        if info.class_names
        else "as found on disk",
        "prompts": " | ".join(info.templates),
        "source": info.source,
        "licence": info.licence,
        "citation": info.citation,
        "code": datasets.origin(family),
    }
    return f"{name}: {info.summary}\n\n{_facts(facts)}"


def _protocol(name: str) -> str:
    protocol = protocols[name]
    facts = {"version": protocol.version, "source": protocol.source, "code": protocols.origin(name)}
    return f"{name}: {protocol.summary}\n\n{_facts(facts)}\n\n{inspect.getdoc(type(protocol)) or ''}"


def _backbone(name: str) -> str:
    if name not in backbones:
        if name in known_backbones():
            return f"{name}: a model of open_clip's; give its weights with --pretrained TAG or FILE"
        raise UnknownName(backbones.unknown(name, known_backbones()))
    info = backbones[name]
    facts = {"weights": info.default_pretrained, "image size": info.image_size, "licence": info.licence}
    return f"{name}: {info.summary}\n\n{_facts({**facts, 'code': backbones.origin(name)})}"


def _sweep(name: str) -> str:
    path = sweep_file(name)
    return f"{path.stem} ({path})\n\n{_docstring(path).strip()}"


def _hparam_table(hparams: Mapping[str, Hparam]) -> str:
    rows = [
        [
            name,
            repr(each.default) if isinstance(each.default, str) else each.default,
            each.range(),
            ", ".join(f"{where}={value}" for where, value in each.overrides.items()),
            "yes" if each.draw else "",
            each.help,
        ]
        for name, each in hparams.items()
    ]
    return table(rows, ["hparam", "default", "range", "other defaults", "searched", ""])


def _facts(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in facts.items() if value not in ("", None))


def _backbone_infos() -> list[tuple[str, Any]]:
    return [(name, backbones[name]) for name in backbones]


def _needs(method: Any) -> str:
    return ", ".join(sorted(method.needs))


def _brief(thing: Any) -> str:
    return _first_line(thing.__doc__)


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _docstring(path: Path) -> str:
    """Read a module's docstring without running the module."""
    try:
        return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, ValueError) as error:
        return f"cannot be read: {error}"


_OVERVIEWS: dict[str, Callable[[], _Rows]] = {
    "algorithms": _algorithms,
    "datasets": _datasets,
    "protocols": _protocols,
    "backbones": _backbones,
    "sweeps": _sweeps,
}
_DETAILS: dict[str, Callable[[str], str]] = {
    "algorithms": _algorithm,
    "datasets": _dataset,
    "protocols": _protocol,
    "backbones": _backbone,
    "sweeps": _sweep,
}
