"""Ranks, effect sizes and plans of whole tables, and their arrangement: measures, names, order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.arrange import arrange, of_metrics, parse_names
from bench.comparison import Family, Question, compare
from bench.errors import SpecError, UnknownName
from bench.measures import Measure
from bench.panels import OBSERVED, effects_panel, plan_panel, rank_panel, sensitivity_panel
from bench.power import plan
from bench.selection import Row
from bench.stats import probability_of_improvement
from bench.tables import AVERAGE, AVERAGES, Cell, State, Table, TableRow, Trial

ACCURACY = Measure("accuracy", "accuracy", lambda record, domain: 0.0)
FPR = Measure("FPR95", "FPR95", lambda record, domain: 0.0, lower_is_better=True)


def cell(values: Sequence[float], split: str = "s") -> Cell:
    trials = {seed: Trial(float(value), (split, "c")) for seed, value in enumerate(values)}
    return Cell(State.VALUE if trials else State.NOT_RUN, float(np.mean(values)) if trials else None, None, trials)


def table(
    methods: dict[str, np.ndarray], dataset: str = "PACS", measure: Measure = ACCURACY, split: str = "s"
) -> Table:
    """A table of values (domains, trials); the last method's have the split digest `split`."""
    rows = []
    for name, values in methods.items():
        cells = [cell(each, split if name == list(methods)[-1] else "s") for each in values]
        rows.append(TableRow(name, Row(name, "b", "p"), (*cells, cell([float(values.mean())])), ""))
    columns = (*(f"d{i:02}" for i in range(len(cells))), AVERAGE)
    return Table("leave_one_domain_out", "last", dataset, columns, tuple(rows), (measure,) * len(columns))


def methods(n: int, k: int = 4, trials: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    names = ("ERM", "ARF", "CoOp", "UEO", "WiSE-FT")[:k]
    return {name: 70 + 2 * i + generator.normal(0, 1.5, (n, trials)) for i, name in enumerate(names)}


def family(made: Table, **question: object) -> Family:
    return compare([made], "ERM", Question(**question))[0]  # type: ignore[arg-type]


def test_ranks_are_friedmans_and_letters_say_who_is_not_told_apart() -> None:
    values = methods(12)
    panel = rank_panel(family(table(values)), "wilcoxon-holm")
    (data,) = panel.data
    means = np.array([each.mean(axis=1) for each in values.values()])
    assert data["friedman"]["chi2"] == pytest.approx(scipy_stats.friedmanchisquare(*means).statistic)
    ranks = scipy_stats.rankdata(-means, axis=0).mean(axis=1)
    assert data["mean_ranks"] == pytest.approx(ranks.tolist())
    assert [row[0] for row in panel.rows] == [list(values)[i] for i in np.argsort(ranks)]
    letters = {row[0]: set(row[2].split()) for row in panel.rows}
    for i, one in enumerate(values):
        for j, other in enumerate(values):
            if i != j:
                assert bool(letters[one] & letters[other]) == (data["p"][i][j] >= 0.05)
    assert "12 domains" in panel.title


def test_ranks_turn_where_lower_is_better() -> None:
    values = methods(8)
    up, down = (rank_panel(family(table(values, measure=each)), "wilcoxon-holm") for each in (ACCURACY, FPR))
    assert [row[0] for row in up.rows] == [row[0] for row in down.rows][::-1]


def test_nemenyi_is_named_with_its_critical_difference() -> None:
    panel = rank_panel(family(table(methods(10))), "nemenyi")
    quantile = scipy_stats.studentized_range.ppf(0.95, 4, np.inf) / np.sqrt(2)
    assert panel.data[0]["critical_difference"] == pytest.approx(quantile * np.sqrt(4 * 5 / 60))
    assert "Nemenyi" in panel.notes[0]


def test_below_six_units_and_for_unpaired_rows_ranks_are_refused() -> None:
    few = rank_panel(family(table(methods(5))), "wilcoxon-holm")
    assert (few.rows, few.data[0]["refusal"][:40]) == ((), "ranks need at least 6 domains that all r")
    unpaired = rank_panel(family(table(methods(8), split="another")), "wilcoxon-holm")
    assert unpaired.rows == ()
    assert "splits differ" in unpaired.notes[0]


def test_ranks_of_averages_take_data_sets_as_units() -> None:
    tables = [table(methods(4, seed=i), f"D{i}") for i in range(7)]
    rows = tuple(TableRow(row.label, row.row, (cell([0.0]),) * 8, "") for row in tables[0].rows)
    columns = (*(each.dataset for each in tables), AVERAGE)
    made = Table("leave_one_domain_out", "last", AVERAGES, columns, rows, (ACCURACY,) * 8, is_average=True)
    panel = rank_panel(compare([*tables, made], "ERM")[-1], "wilcoxon-holm")
    assert (panel.data[0]["units"], panel.data[0]["unit"]) == (7, "data set")
    assert "mean ranks over 7 data sets" in panel.title
    assert any("only 7 units" in note for note in panel.notes)


def test_effects_are_those_of_the_unit_means_oriented_by_the_measure() -> None:
    values = methods(6, k=2)
    differences = (values["ARF"] - values["ERM"]).mean(axis=1)
    (up,) = effects_panel(family(table(values))).data
    (down,) = effects_panel(family(table(values, measure=FPR))).data
    share, low, high = probability_of_improvement(differences)
    assert (up["p_better"], up["p_better_interval"]) == (share, [low, high])
    assert down["p_better"] == pytest.approx(1 - share)
    assert down["rank_biserial"] == pytest.approx(-up["rank_biserial"])
    assert sum(up["rope"].values()) == pytest.approx(1)
    assert up["rope"]["better"] == pytest.approx(down["rope"]["worse"], abs=0.02)


def test_effects_do_not_depend_on_the_rows_before() -> None:
    values = methods(6)
    alone = effects_panel(family(table({"ERM": values["ERM"], "UEO": values["UEO"]}))).data[0]
    among = next(each for each in effects_panel(family(table(values))).data if each["algorithm"] == "UEO")
    assert alone == among


def test_sensitivity_asks_the_other_estimand_and_ranks_over_domains() -> None:
    values = methods(7, k=2)
    made = sensitivity_panel(family(table(values)))
    (found,) = made.data
    trials = (values["ARF"] - values["ERM"]).mean(axis=0)
    interval = scipy_stats.ttest_1samp(trials, 0).confidence_interval()
    assert found["interval"] == pytest.approx([interval.low, interval.high])
    means = (values["ARF"] - values["ERM"]).mean(axis=1)
    assert found["wilcoxon_p"] == pytest.approx(scipy_stats.wilcoxon(means, method="exact").pvalue)
    assert made.header[1] == "these domains alone"
    turned = sensitivity_panel(family(table(values), estimand="these-benchmarks"))
    assert turned.header[1] == "new domains"
    assert turned.data[0]["p"] == pytest.approx(scipy_stats.ttest_1samp(means, 0).pvalue)
    few = sensitivity_panel(family(table(methods(4, k=2, trials=2))))
    assert (few.rows, few.notes, few.data[0]["p"]) == ((), (), None)


def test_plan_is_for_holms_first_step_and_the_given_points() -> None:
    values = methods(5)
    made = family(table(values))
    first = plan_panel(made, 2.0).data[0]
    expected = plan([values["ARF"][i] - values["ERM"][i] for i in range(5)], 2.0, 0.05, n_tests=3)
    assert (first["level"], first["units_needed"]) == (pytest.approx(0.05 / 3), expected.units)
    assert first["power_now"] == pytest.approx(expected.power_now)
    observed = plan_panel(made, OBSERVED)
    assert observed.data[0]["difference"] == pytest.approx(abs((values["ARF"] - values["ERM"]).mean()))


def test_plan_of_one_domain_or_of_unpaired_rows_says_why_there_is_none() -> None:
    single = plan_panel(family(table(methods(1))), 1.0)
    assert single.rows == ()
    assert any("fewer than 3 domains" in note for note in single.notes)
    unpaired = plan_panel(family(table(methods(4, k=2), split="another")), 1.0)
    assert any("no plan, not paired: splits differ" in note for note in unpaired.notes)


def measured(*measures: Measure) -> list[Table]:
    """Tables of several measures, led by their summary."""
    tables = [table(methods(3), measure=measure) for measure in measures]
    rows = tuple(
        TableRow(row.label, row.row, tuple(each.rows[place].cells[-1] for each in tables), "")
        for place, row in enumerate(tables[0].rows)
    )
    names = tuple(measure.name for measure in measures)
    return [Table("leave_one_domain_out", "last", "PACS", names, rows, measures, is_summary=True), *tables]


def test_metrics_are_chosen_and_the_summary_keeps_several_only() -> None:
    third = Measure("AUROC", "AUROC", lambda record, domain: 0.0)
    tables = measured(ACCURACY, FPR, third)
    assert [each.columns for each in of_metrics(tables, ("FPR95", "AUROC")) if each.is_summary] == [("FPR95", "AUROC")]
    (alone,) = of_metrics(tables, ("AUROC",))
    assert (alone.measure.name, alone.is_summary, alone.is_shown) == ("AUROC", False, True)
    assert all(each.is_shown for each in of_metrics(tables, ("FPR95", "AUROC")))
    narrow = [replace(each, columns=("d0", AVERAGE), is_shown=False) for each in tables[1:]]
    assert [each.is_shown for each in of_metrics([tables[0], *narrow], ("FPR95", "AUROC"))] == [True, False, False]
    assert [each.is_shown for each in of_metrics([tables[0], *narrow], ("AUROC",))] == [True]
    with pytest.raises(UnknownName, match="Did you mean 'AUROC'"):
        of_metrics(tables, ("AUC",))


def test_order_by_mean_is_by_the_measure_and_puts_holes_last() -> None:
    made = table(methods(3))
    hole = TableRow("None", Row("None", "b", "p"), (cell([]),) * 4, "")
    rows = (hole, *made.rows)
    up = arrange([Table("p", "last", "PACS", made.columns, rows, (ACCURACY,) * 4)], order="mean")[0]
    down = arrange([Table("p", "last", "PACS", made.columns, rows, (FPR,) * 4)], order="mean")[0]
    assert [row.label for row in up.rows] == ["UEO", "CoOp", "ARF", "ERM", "None"]
    assert [row.label for row in down.rows] == ["ERM", "ARF", "CoOp", "UEO", "None"]


def test_pairs_of_names_are_read_past_the_options_of_a_predictor() -> None:
    assert parse_names(["WiSE-FT[alpha=0.3]=WiSE (.3)", "A=x=y"]) == {"WiSE-FT[alpha=0.3]": "WiSE (.3)", "A": "x=y"}
    for wrong in ("A", "=b", "a=", "WiSE-FT[alpha=0.3]"):
        with pytest.raises(SpecError, match="OLD=NEW"):
            parse_names([wrong])
