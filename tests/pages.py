"""Results folders for tests of the HTML page, with names that try to break out of it; importable by tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.collect import main

ATTACK = "window.broken=1"
"""What every hostile script would do; a test looks whether it was done."""
HOSTILE = (
    "ZeroShot",
    f"<script>{ATTACK}</script>",
    f"</script><script>{ATTACK}</script>",
    f'"><img src=x onerror="{ATTACK}">',
    f"' onmouseover='{ATTACK}' autofocus onfocus='{ATTACK}",
    "--><!--<style>*{display:none}</style>",
    "a & b % c_d &lt; &#60;",
    "\\input{/etc/passwd} $x^2$",
    "=cmd|' /C calc'!A0",
    "שלום עולם",
    "\u202egnp.exe",
    "\x1b[31mred\x1b]0;title\x07",
    "e\u0301 🙂 日本語",
    "x" * 300,
    f"javascript:{ATTACK} ${{{ATTACK}}}",
)
DOMAINS = ("art", f"<svg onload={ATTACK}>", "=1+1", "\u202etra")
PLAIN = ("ZeroShot", "ERM", "CLIPood", "WiSE-FT")


def write_results(
    root: Path,
    algorithms: Sequence[str] = PLAIN,
    *,
    dataset: str = "Icons",
    domains: Sequence[str] = ("ink", "chalk", "woodcut"),
    n_trials: int = 3,
    hparams: Mapping[str, Any] | None = None,
    **values: Any,
) -> Path:
    """Write one finished run for each algorithm, domain and trial, with records of two steps; ZeroShot's of one."""
    for place, name in enumerate(algorithms):
        for domain in range(len(domains)):
            for trial in range(n_trials):
                folder = root / "sweep" / f"{abs(hash_of(dataset)):x}-{place}-{domain}-{trial}"
                folder.mkdir(parents=True)
                spec = {
                    "protocol": "leave_one_domain_out",
                    "protocol_version": 1,
                    "dataset": dataset,
                    "algorithm": name,
                    "test_domains": [domain],
                    "trial_seed": trial,
                    "hparams_seed": 0,
                    "backbone": "tiny",
                    "pretrained": "embedded",
                }
                (folder / "spec.json").write_text(json.dumps({**spec, "hparams": hparams or {"lr": 1e-3}}))
                (folder / "status.json").write_text('{"state": "done"}')
                lines = [
                    json.dumps({**spec, **record(folder.name, name, domains, domain, place, trial, step), **values})
                    for step in ((0,) if name == "ZeroShot" else (0, 50))
                ]
                (folder / "results.jsonl").write_text("\n".join(lines) + "\n")
    return root


def record(
    trial: str, name: str, domains: Sequence[str], domain: int, place: int, seed: int, step: int
) -> dict[str, Any]:
    """One evaluation, better with each algorithm, domain, trial and step; no two of a column alike."""
    value = 0.5 + 0.011 * place + 0.03 * domain + 0.002 * seed * (1 + place % 3) + 0.001 * step
    return {
        "schema": 1,
        "trial": trial,
        "predictor": name,
        "step": step,
        "domains": list(domains),
        "code": "0.1.0",
        "split_digest": f"split {seed}",
        "data_digest": "0123456789abcdef" * 4,
        **{f"env{other}_out_acc": value for other in range(len(domains))},
        f"env{domain}_in_acc": value,
    }


def hash_of(words: str) -> int:
    """Give a small number of a name, the same in every process."""
    return sum((place + 1) * ord(each) for place, each in enumerate(words))


def write_hostile(root: Path) -> Path:
    """Write results in which everything that has a name tries to break out, and a second data set as bad."""
    hparams = {f"<b>{ATTACK}</b>": f"</script><script>{ATTACK}</script>"}
    more: dict[str, Any] = {"notes": [f"<img src=x onerror={ATTACK}>"], "code": f'"><script>{ATTACK}</script>'}
    write_results(root, HOSTILE, dataset=f"<script>{ATTACK}</script>", domains=DOMAINS, hparams=hparams, **more)
    return write_results(root, HOSTILE[:4], dataset="=HYPERLINK(1)", domains=DOMAINS[:2], **more)


def make_page(results: Path, file: Path, *arguments: str) -> str:
    """Run `collect --html` as a user does; give the page."""
    assert main([str(results), "--html", str(file), *arguments]) == 0
    return file.read_text(encoding="utf-8")
