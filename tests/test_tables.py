"""Tables as numbers, comparisons and provenance, from records made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bench.errors import Conflict
from bench.provenance import trace
from bench.report import _trials_and_errors
from bench.selection import groups_of, select
from bench.tables import State, Table, best_and_second, build_tables, lay_out, natural

DOMAINS = ["A", "C", "P", "S"]


def record(algorithm: str, domain: int, trial: int, value: float, **values: Any) -> dict[str, Any]:
    dataset = values.get("dataset", "PACS")
    return {
        "protocol": "leave_one_domain_out",
        "dataset": dataset,
        "algorithm": algorithm,
        "predictor": algorithm,
        "test_domains": [domain],
        "trial_seed": trial,
        "hparams_seed": 0,
        "backbone": "tiny",
        "pretrained": "embedded",
        "step": 50,
        "trial": f"{dataset}-{algorithm}-{domain}-{trial}",
        "domains": DOMAINS,
        "split_digest": f"split of trial {trial}",
        **{f"env{i}_out_acc": 0.5 for i in range(4)},
        f"env{domain}_in_acc": value,
        **values,
    }


def records_of(algorithm: str, values: Sequence[Sequence[float]], **extra: Any) -> list[dict[str, Any]]:
    """Records of `values`[domain][trial], in 0..1."""
    return [
        record(algorithm, domain, trial, value, **extra)
        for domain, of_domain in enumerate(values)
        for trial, value in enumerate(of_domain)
    ]


def tables_of(records: list[dict[str, Any]], errorbars: str = "stderr") -> list[Table]:
    layout = lay_out(records, {groups_of(each)[0] for each in records})
    return build_tables(layout, select(records, "training-domain"), "training-domain", errorbars)


ERM = [[0.6, 0.62], [0.7, 0.7], [0.8, 0.84], [0.9, 0.9]]
BETTER = [[0.7, 0.7], [0.75, 0.77], [0.9, 0.9], [0.91, 0.93]]


def test_cells_are_means_in_percent_with_errors() -> None:
    (table,) = tables_of(records_of("ERM", ERM))
    assert table.columns == ("A", "C", "P", "S", "Avg")
    cells = table.rows[0].cells
    assert [cell.mean for cell in cells] == pytest.approx([61, 70, 82, 90, 75.75])
    assert cells[0].error == pytest.approx(1.0)
    assert (cells[0].n, cells[4].n) == (2, 2)
    assert cells[4].error == pytest.approx(np.std([75.0, 76.5], ddof=1) / np.sqrt(2))


def test_missing_cell_makes_the_average_missing() -> None:
    (table,) = tables_of([each for each in records_of("ERM", ERM) if each["test_domains"] != [2]])
    assert [cell.state for cell in table.rows[0].cells] == [
        State.VALUE,
        State.VALUE,
        State.NOT_RUN,
        State.VALUE,
        State.INCOMPLETE,
    ]
    assert table.rows[0].cells[4].mean is None


def test_run_that_is_not_finished_shows_as_incomplete() -> None:
    records = records_of("ERM", ERM)
    begun = {groups_of(each)[0] for each in records} | {groups_of(record("CLIPood", 1, 0, 0.5))[0]}
    (table,) = build_tables(lay_out(records, begun), select(records, "oracle"), "oracle", "stderr")
    assert [row.label for row in table.rows] == ["ERM", "CLIPood"]
    states = [cell.state for cell in table.rows[1].cells]
    assert states == [State.NOT_RUN, State.INCOMPLETE, State.NOT_RUN, State.NOT_RUN, State.INCOMPLETE]


def test_average_is_over_cell_means_though_trials_are_uneven() -> None:
    uneven = [[0.6, 0.8], [0.5], [0.5], [0.5]]
    (table,) = tables_of(records_of("ERM", uneven))
    average = table.rows[0].cells[-1]
    assert average.mean == pytest.approx((70 + 150) / 4)
    assert (average.n, average.error) == (1, None)


def test_several_data_sets_get_a_table_of_averages() -> None:
    records = records_of("ERM", ERM) + records_of("ERM", BETTER, dataset="VLCS", domains=["C", "L", "S", "V"])
    tables = tables_of(records)
    assert [table.dataset for table in tables] == ["VLCS", "PACS", "Averages"]
    averages = tables[-1].rows[0].cells
    assert [cell.mean for cell in averages] == pytest.approx([82, 75.75, (82 + 75.75) / 2])


def test_backbones_get_rows_of_their_own() -> None:
    (table,) = tables_of(records_of("ERM", ERM) + records_of("ERM", BETTER, backbone="ViT-B-16"))
    assert [row.label for row in table.rows] == ["ERM (ViT-B-16)", "ERM (tiny)"]


def test_rows_do_not_depend_on_the_order_of_records() -> None:
    records = [each for name in ("UEO", "ERM", "ZeroShot", "ARF") for each in records_of(name, ERM)]
    assert tables_of(records) == tables_of(records[::-1])
    assert [row.label for row in tables_of(records)[0].rows] == ["ZeroShot", "ERM", "ARF", "UEO"]


def test_different_lists_of_domains_are_refused() -> None:
    records = records_of("ERM", ERM) + records_of("UEO", ERM, domains=["A", "C", "P", "R"])
    with pytest.raises(Conflict, match="different domains"):
        tables_of(records)


def test_names_with_numbers_sort_by_number() -> None:
    names = ["WiSE-FT[alpha=0.5]", "WiSE-FT[alpha=0.10]", "b10", "B9", "arf"]
    assert sorted(names, key=natural) == ["arf", "B9", "b10", "WiSE-FT[alpha=0.10]", "WiSE-FT[alpha=0.5]"]


def test_best_and_second_are_equal_where_they_look_equal() -> None:
    values = {"A": 0.7, "B": 0.7002, "C": 0.5}
    (table,) = tables_of([each for name, value in values.items() for each in records_of(name, [[value]] * 4)])
    assert best_and_second(table, 0) == ({0, 1}, set())
    (single,) = tables_of(records_of("A", ERM))
    assert best_and_second(single, 0) == (set(), set())


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"code": "2"}, "mix code versions: 1, 2"),
        ({"data_digest": "2"}, "mix data digests in PACS: 1, 2"),
        ({"split_digest": "2"}, "mix splits in PACS"),
        ({"class_digest": "2"}, "mix class lists in PACS"),
        ({"protocol_version": 2}, "mix protocol versions in leave_one_domain_out: 1, 2"),
        ({"backbone_digest": "2"}, "mix backbone weights of one name in tiny (embedded): 1, 2"),
        ({"step": 60}, "mix step counts in PACS: ERM 50, UEO 60"),
    ],
)
def test_mixtures_are_warned_of(change: dict[str, Any], warning: str) -> None:
    common = {"code": "1", "data_digest": "1", "class_digest": "1", "backbone_digest": "1", "protocol_version": 1}
    records = records_of("ERM", [[0.5]], **common)
    assert trace([*records, *records_of("UEO", [[0.5]], **common)]).warnings == ()
    (found,) = trace([*records, *records_of("UEO", [[0.5]], **{**common, **change})]).warnings
    assert warning in found


def test_zero_steps_of_methods_without_training_are_no_mixture() -> None:
    records = records_of("ZeroShot", [[0.5]], step=0) + records_of("ERM", [[0.5]])
    provenance = trace(records)
    assert provenance.warnings == ()
    assert provenance.steps == {"PACS": (50,)}


def test_footer_tells_the_trials_of_each_data_set_and_only_lists_cells_that_lag_behind_their_own() -> None:
    pacs, vlcs = records_of("ERM", ERM), records_of("ERM", [[0.5] * 3] * 4, dataset="VLCS")
    (told,) = _trials_and_errors(tables_of([*pacs, *vlcs]), "stderr")
    assert told.startswith("Trials per cell: VLCS 3; PACS 2. ±:")
    (told,) = _trials_and_errors(tables_of([*pacs, *vlcs[:-1]]), "stderr")
    assert told.startswith("Trials per cell: VLCS 3; PACS 2; fewer in ERM on VLCS S (2).")
