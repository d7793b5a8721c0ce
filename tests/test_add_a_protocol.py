"""The example of docs/add_a_protocol.md works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bench.plan import plan
from bench.registry import protocols
from bench.spec import Places
from bench.sweepfile import Sweep
from tests import fakes

PAGE = Path(__file__).resolve().parents[1] / "docs" / "add_a_protocol.md"


def test_the_example_holds_out_the_last_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"<!-- example: last_domain.py -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert found is not None and list(protocols)
    monkeypatch.setattr(protocols, "_entries", dict(protocols._entries))
    monkeypatch.setattr(protocols, "_origins", dict(protocols._origins))
    fakes.register(monkeypatch)
    scope: dict[str, Any] = {"__name__": "example_last_domain"}
    exec(compile(found[1], "last_domain.py", "exec"), scope)
    sweep = Sweep(algorithms=("FakeERM",), datasets=("FakeIcons",), protocol="last_domain", n_trials=1)
    assert [each.spec.test_domains for each in plan([sweep], Places())] == [(2,)]
