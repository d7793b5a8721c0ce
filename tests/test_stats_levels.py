"""The levels the shipped tests really have: the short form of `python -m perf.false_positives`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perf import false_positives as simulation

N = 10_000
"""The standard error of a rate of .05 is then .0022."""
ALLOWED = 0.06


def columns(table: simulation.Table) -> dict[str, list[float]]:
    _, headers, rows = table
    return {name: [float(str(row[place])) for row in rows] for place, name in enumerate(headers) if place}


def stream(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_one_data_set_holds_its_level_at_every_spread_and_pooled_cells_do_not() -> None:
    found = columns(simulation.levels_of_one_dataset(stream(0), N))
    assert max(found["shipped: t, 4 domains"]) <= ALLOWED
    assert found["t, 12 cells"][0] <= ALLOWED
    assert all(rate > ALLOWED for rate in found["t, 12 cells"][1:])
    assert found["t, 12 cells"][-1] > 0.2
    assert found["Wilcoxon, 12 cells"][-1] > 0.2


def test_five_data_sets_hold_their_level_at_every_spread_and_pooled_domains_do_not() -> None:
    found = columns(simulation.levels_of_five_datasets(stream(1), N))
    assert max(found["shipped: t, 5 data sets"]) <= ALLOWED
    assert max(found["cluster-robust t, df 4"]) <= ALLOWED + 0.005
    assert found["t, 22 domains"][-1] > 0.2
    assert found["t, 66 cells"][-1] > 0.4


def test_eleven_data_sets_hold_their_level_at_every_spread() -> None:
    found = columns(simulation.levels_of_eleven_datasets(stream(2), N // 2))
    assert max(found["shipped: sign-flip, 11 data sets"]) <= ALLOWED
    assert found["t, 33 cells"][-1] > 0.2


def test_a_table_of_several_methods_holds_the_level_of_its_family() -> None:
    found = columns(simulation.levels_of_families(stream(3), N // 4))
    assert max(found["shipped: Holm"]) <= ALLOWED
    assert min(found["shipped test, uncorrected"]) > 0.12


def test_these_benchmarks_hold_their_level_even_if_seeds_act_on_all_domains_alike() -> None:
    found = columns(simulation.levels_of_these(stream(4), N))
    assert max(found["shipped: t, 3 trials"]) <= ALLOWED
    assert found["pooled t, df 8"][-1] > 0.15
    assert min(found["bootstrap of seeds"]) > 0.1


def test_two_way_intervals_cover_and_pooled_answers_do_not() -> None:
    found = columns(simulation.coverage_of_examples(stream(5), 150))
    assert min(found["shipped: two-way test"]) > 0.89  # of so few domains: three standard errors below .95
    assert found["all answers pooled"][-1] < 0.4


@pytest.mark.slow
def test_the_guide_shows_what_is_printed() -> None:
    """The first tables of `python -m perf.false_positives`, drawn anew, are those of the guide to .003."""
    guide = (Path(__file__).resolve().parents[1] / "docs" / "statistics.md").read_text(encoding="utf-8")
    streams = np.random.SeedSequence(0).spawn(8)
    builders = [simulation.levels_of_one_dataset, simulation.levels_of_five_datasets]
    for seed, build in zip(streams, builders, strict=False):
        title, headers, rows = build(np.random.default_rng(seed), 20_000)
        lines = guide.partition(f"**{title}**")[2].strip().splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[: 2 + len(rows)]]
        assert cells[0] == headers
        for shown, row in zip(cells[2:], rows, strict=True):
            assert [float(cell) for cell in shown] == pytest.approx([float(str(cell)) for cell in row], abs=0.003)


@pytest.mark.slow
def test_the_command_prints_its_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["false_positives", "--simulations", "400"])
    simulation.main()
    printed = capsys.readouterr().out
    assert printed.count("share of p < .05") == 5
    assert "400 tables a number, seed 0" in printed
