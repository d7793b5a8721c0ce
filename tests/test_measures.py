"""Records of every protocol become the numbers, selections and tables that are documented for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.comparison import compare
from bench.formats import as_json, csv_lines, table_title, text
from bench.measures import label, scheme, variant, words
from bench.provenance import trace
from bench.records import Results, load
from bench.report import Options, build_reports
from bench.selection import groups_of, select
from bench.tables import State, Table, best_and_second, build_tables, lay_out


def record(protocol: str, **values: Any) -> dict[str, Any]:
    made = {
        "protocol": protocol,
        "dataset": "PACS",
        "algorithm": "ERM",
        "test_domains": [],
        "trial_seed": 0,
        "hparams_seed": 0,
        "backbone": "tiny",
        "pretrained": "embedded",
        "step": 50,
        "domains": ["A", "C"],
        **values,
    }
    made.setdefault("predictor", made["algorithm"])
    made.setdefault("trial", f"{label(made)}-{made['algorithm']}-{made['test_domains']}-{made['trial_seed']}")
    return made


def base_to_new(base: tuple[float, float], new: tuple[float, float], val: float = 0.5, **values: Any) -> dict[str, Any]:
    numbers = {"env0_base_acc": base[0], "env1_base_acc": base[1], "env0_new_acc": new[0], "env1_new_acc": new[1]}
    return record("base_to_new", env0_val_acc=val, env1_val_acc=val, **numbers, **values)


def universal(domain: int, acc: float, *, setting: str = "open", **values: Any) -> dict[str, Any]:
    numbers = {f"env{domain}_test_{name}": acc for name in ("acc", "balanced_acc", "auroc", "aupr")}
    numbers[f"env{domain}_test_fpr95"] = 1 - acc
    return record("universal", variant=f"setting={setting}", test_domains=[domain], **numbers, **values)


def tables_of(records: list[dict[str, Any]], rule: str = "training-domain") -> list[Table]:
    layout = lay_out(records, {group for each in records for group in groups_of(each)})
    return build_tables(layout, select(records, rule), rule, "stderr")


def reports_of(records: list[dict[str, Any]], rules: tuple[str, ...] = ("training-domain",)) -> Any:
    labelled = tuple({**each, "protocol": label(each)} for each in records)
    results = Results(
        root=Path("r"),
        records=labelled,
        n_lines=len(records),
        n_runs=len(records),
        n_domainbed_runs=0,
        n_skipped_lines=0,
        n_duplicates=0,
        n_contradictions=0,
        n_unfinished=0,
        includes_unfinished=False,
        unfinished=frozenset(),
    )
    return build_reports(results, rules, Options())


def means(table: Table, row: int = 0) -> list[float | None]:
    return [None if cell.mean is None else round(cell.mean, 4) for cell in table.rows[row].cells]


def test_a_protocol_is_labelled_with_its_options() -> None:
    assert variant({"shots": "4", "first_seed": 0}) == "first_seed=0,shots=4"
    assert label({"protocol": "universal", "options": {"setting": "open"}}) == "universal[setting=open]"
    assert label({"protocol": "universal", "variant": "setting=open"}) == "universal[setting=open]"
    assert label({"protocol": "base_to_new", "options": {}}) == "base_to_new"
    assert label({"args": {"dataset": "PACS"}}) == "leave_one_domain_out"
    assert words("universal[ood_score=mcm,setting=open_partial]") == "universal (ood score mcm, setting open partial)"


def test_an_unknown_protocol_is_read_as_leave_one_domain_out() -> None:
    assert [measure.name for measure in scheme("mine[x=1]").measures] == ["accuracy"]


@pytest.mark.parametrize(("report", "value"), [("in", 0.1), ("out", 0.2), ("all", 0.3)])
def test_leave_one_domain_out_reports_the_split_of_its_option(report: str, value: float) -> None:
    numbers = {"env0_in_acc": 0.1, "env0_out_acc": 0.2, "env0_all_acc": 0.3, "env1_out_acc": 0.9}
    options = {} if report == "in" else {"variant": f"report={report}"}
    (choice,) = select([record("leave_one_domain_out", test_domains=[0], **options, **numbers)], "training-domain")
    assert (choice.value, choice.validation) == (value, 0.9)


def test_single_source_has_a_cell_for_each_training_domain() -> None:
    three = {
        "domains": ["A", "C", "P"],
        "env0_in_acc": 0.4,
        "env1_out_acc": 0.9,
        "env2_in_acc": 0.6,
        "env0_out_acc": 0.1,
    }
    records = [record("single_source", test_domains=[0, 2], **three, env2_out_acc=0.3)]
    (choice,) = select(records, "training-domain")
    assert (choice.test_domain, choice.value, choice.validation) == (1, 0.5, 0.9)
    (oracle,) = select(records, "oracle")
    assert oracle.validation == pytest.approx(0.2)
    assert select(records, "leave-one-out") == []


def test_one_training_of_base_to_new_fills_every_domains_cell() -> None:
    records = [
        base_to_new((0.5, 0.7), (0.5, 0.3), val=0.6, step=0),
        base_to_new((0.8, 0.6), (0.4, 0.6), val=0.8, step=50),
        base_to_new((0.9, 0.9), (0.9, 0.9), val=0.7, step=100),
    ]
    choices = select(records, "training-domain")
    assert [(choice.test_domain, choice.step) for choice in choices] == [(0, 50), (1, 50)]
    assert choices[0].value == pytest.approx(2 * 0.8 * 0.4 / 1.2)  # H, trial by trial
    assert {choice.step for choice in select(records, "last")} == {100}


def test_base_to_new_has_a_summary_and_a_table_for_each_number() -> None:
    trials = [base_to_new((0.8, 0.6), (0.4, 0.6)), base_to_new((0.6, 0.6), (0.6, 0.6), trial_seed=1)]
    summary, base, new, harmonic, mean = tables_of(trials)
    assert summary.is_summary and summary.columns == ("base", "new", "H", "mean H")
    assert base.columns == new.columns == harmonic.columns == ("A", "C", "Avg")
    assert means(base) == [70, 60, 65] and means(new) == [50, 60, 55]
    # A cell is the mean of the trials' H; the average is the H of the averages, as papers print it.
    assert means(harmonic) == [round(100 * (2 * 0.32 / 1.2 + 0.6) / 2, 4), 60, round(2 * 65 * 55 / 120, 4)]
    of_trials = (2 * 0.32 / 1.2 + 0.6) / 2  # and "mean H" that of the harmonic means of trials and domains
    assert means(mean)[-1] == round(100 * (of_trials + 0.6) / 2, 4) and not mean.is_shown
    assert means(summary) == [65, 55, round(2 * 65 * 55 / 120, 4), means(mean)[-1]]
    assert harmonic.rows[0].cells[-1].trials[1].value == pytest.approx(60)


def test_a_data_set_of_one_domain_has_its_summary_alone_in_text() -> None:
    numbers = {"env0_base_acc": 0.8, "env0_new_acc": 0.4, "env0_val_acc": 0.5}
    tables = tables_of(
        [record("base_to_new", dataset=name, domains=["photo"], **numbers) for name in ("DTD", "UCF101")]
    )
    assert [(table.dataset, table.is_summary) for table in tables if table.is_shown] == [
        ("DTD", True),
        ("UCF101", True),
        ("Averages", True),
        ("Averages", False),
        ("Averages", False),
        ("Averages", False),
    ]
    h = round(2 * 80 * 40 / 120, 4)
    assert means(tables[-5]) == [80, 40, h, h]


def test_in_the_wild_reports_base_new_total_and_their_harmonic_mean() -> None:
    numbers = {"env0_base_acc": 0.8, "env0_new_acc": 0.4, "env0_total_acc": 0.7, "env1_out_acc": 0.9}
    records = [record("in_the_wild", test_domains=[0], **numbers)]
    (choice,) = select(records, "training-domain")
    assert (choice.value, choice.validation) == (0.7, 0.9)
    names = [table.measure.name for table in tables_of(records)[1:]]
    assert names == ["base", "new", "total", "H", "mean H"]
    assert tables_of(records)[0].rows[0].cells[0].state is State.INCOMPLETE  # C was not run: no mean over domains


@pytest.mark.parametrize("rule", ["training-domain", "leave-one-out", "oracle", "last"])
def test_universal_reports_the_last_step_under_every_rule(rule: str) -> None:
    records = [universal(0, 0.9, step=0), universal(0, 0.4, step=50)]
    (choice,) = select(records, rule)
    assert (choice.step, choice.value, choice.validation) == (50, 0.4, None)
    assert {table.selection for table in tables_of(records, rule)} == {"last"}


def test_universal_cannot_choose_among_hparams() -> None:
    assert select([universal(0, 0.9), universal(0, 0.8, hparams_seed=1, trial="b")], "training-domain") == []


def test_settings_have_tables_of_their_own_and_no_warning() -> None:
    records = [
        universal(domain, 0.6, setting=setting, split_digest=f"s{domain}", class_digest="c", steps=1)
        for setting in ("open", "closed")
        for domain in (0, 1)
    ]
    assert {table.protocol for table in tables_of(records)} == {"universal[setting=open]", "universal[setting=closed]"}
    (report,) = reports_of(records)
    assert report.warnings == ()


def test_the_lower_fpr95_is_the_better_one() -> None:
    records = [universal(d, v, algorithm=name) for name, v in (("ERM", 0.6), ("UEO", 0.8)) for d in (0, 1)]
    summary = tables_of(records)[0]
    columns = {name: summary.columns.index(name) for name in ("AUROC", "FPR95")}
    row = [each.label for each in summary.rows].index("UEO")
    assert best_and_second(summary, columns["AUROC"])[0] == best_and_second(summary, columns["FPR95"])[0] == {row}


def test_transfer_shows_only_what_was_transferred_to() -> None:
    numbers = {"env0_id_acc": 0.9, "env0_val_acc": 0.8, "env1_test_acc": 0.6, "env2_test_acc": 0.4}
    made = record("transfer", dataset="ImageNet", domains=["ImageNet", "V2", "A"], **numbers)
    summary, trained, others = tables_of([made])
    assert summary.columns == ("trained", "accuracy") and means(summary) == [90, 50]
    assert others.columns == ("V2", "A", "Avg") and means(others) == [60, 40, 50]
    assert not trained.is_shown and select([made], "training-domain")[0].validation == 0.8


def test_further_metrics_are_shown_where_records_have_them() -> None:
    numbers = {"env1_out_acc": 0.9, "env0_in_acc": 0.5, "env0_in_ece": 0.1, "env0_in_nll": 1.5}
    plain = record("leave_one_domain_out", test_domains=[0], env1_out_acc=0.9, env0_in_acc=0.5)
    assert len(tables_of([plain])) == 1
    tables = tables_of([record("leave_one_domain_out", test_domains=[0], **numbers)])
    assert tables[0].columns == ("accuracy", "100 NLL", "ECE")
    assert [table.rows[0].cells[0].mean for table in tables[1:]] == pytest.approx([50, 150, 10])
    assert [table.is_shown for table in tables] == [True, True, False, False]


def test_comparisons_are_of_one_measure_over_domains() -> None:
    trials = [base_to_new((0.8, 0.6), (0.4, 0.6)), base_to_new((0.9, 0.8), (0.5, 0.6), algorithm="ARF")]
    base = tables_of(trials)[1]
    (only,) = compare([base], "ERM")[0].comparisons
    assert only.test is not None and only.test.difference == pytest.approx(15)
    (report,) = reports_of(trials)
    assert {family.table.measure.name for family in report.families} == {"base", "new", "H"}
    assert not any(family.table.is_summary for family in report.families)


def test_text_names_protocol_measure_and_what_the_numbers_are() -> None:
    reports = reports_of([base_to_new((0.8, 0.6), (0.4, 0.6))])
    shown = text(reports)
    assert "PACS, base to new: means over domains (%), training-domain selection" in shown
    assert "PACS, base to new: harmonic mean of base and new (%)" in shown
    assert "new classes (against new" in shown and "Accuracy in percent on the held-out domain" not in shown
    table = reports[0].tables[1]
    assert table_title(table) == "PACS, base to new: accuracy on base classes (%), training-domain selection"


def test_csv_and_json_hold_every_measure_once() -> None:
    records = [universal(domain, 0.6 + domain / 10) for domain in (0, 1)]
    reports = reports_of(records, ("training-domain", "leave-one-out", "oracle"))
    lines = csv_lines(reports).splitlines()
    assert len(lines) == 1 + 5 * 3  # no selection, so one rule; five measures, two domains and their average
    assert "universal[setting=open],last,PACS,ERM,AUROC,Avg,65.0,,1" in lines
    tables = json.loads(as_json(reports))["tables"]
    assert [table["metric"] for table in tables] == ["accuracy", "per-class", "AUROC", "FPR95", "AUPR"]
    worst = {table["metric"]: table["rows"][0]["worst"] for table in tables}
    assert worst["per-class"] == pytest.approx(60) and worst["FPR95"] == pytest.approx(40)


def test_protocols_in_one_folder_are_told_apart() -> None:
    records = [
        {**base_to_new((0.8, 0.6), (0.4, 0.6)), "class_digest": "base", "split_digest": "a"},
        *(
            record("in_the_wild", test_domains=[d], class_digest="half", split_digest=f"b{d}", **{
                f"env{d}_base_acc": 0.8, f"env{d}_new_acc": 0.4, f"env{d}_total_acc": 0.7, f"env{1 - d}_out_acc": 0.9
            })
            for d in (0, 1)
        ),
    ]  # fmt: skip
    assert trace(records).warnings == ()
    (report,) = reports_of(records)
    assert any(line.startswith("base to new: Accuracy") for line in report.footer)
    assert any(line.startswith("in the wild: Accuracy") for line in report.footer)


def test_records_and_specs_of_a_run_have_the_same_label(make_run: Any, tmp_path: Any) -> None:
    from bench.job import run_trial

    run = make_run("ZeroShot", options={"report": "all"}, metrics=("ece", "top5_acc"))
    waiting = make_run("ERM", options={"report": "all"}, steps=10**6)
    assert run_trial(str(run.folder), device="cpu") == "done"
    results = load(run.folder.parent)
    assert {each["protocol"] for each in results.records} == {"leave_one_domain_out[report=all]"}
    (group,) = results.unfinished
    assert (group.protocol, group.row.algorithm) == ("leave_one_domain_out[report=all]", "ERM")
    assert waiting.spec.options == {"report": "all"}
    last = results.records[-1]
    inside, outside = last["env2_in_acc"], last["env2_out_acc"]
    assert last["env2_all_acc"] == pytest.approx((32 * inside + 8 * outside) / 40)
    assert 0 <= last["env2_all_ece"] <= 1 and last["env2_in_top5_acc"] == 1.0


def test_marks_say_which_unlabelled_images_a_method_saw() -> None:
    (report,) = reports_of([base_to_new((0.8, 0.6), (0.4, 0.6), unlabeled="rest")])
    assert any("[u]: saw unlabelled images, none of which is reported on." in line for line in report.footer)
    (report,) = reports_of([universal(0, 0.5, transductive=True), universal(1, 0.5, transductive=True)])
    assert any("[t]: transductive, trained on the very images of the held-out domain" in line for line in report.footer)
