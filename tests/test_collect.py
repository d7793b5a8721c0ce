"""`python -m bench.collect`: every format, and every bad input, on small results folders."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.collect import main
from bench.latex_text import escape
from tests.result_folders import DOMAINS, METHODS, collect, refused, write_run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three methods, four domains, two trials."""
    for algorithm in METHODS:
        for domain in range(4):
            for trial in range(2):
                write_run(tmp_path, algorithm, domain, trial)
    return tmp_path


def rows_of_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_a_line_for_each_rule_row_and_column(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of_csv(collect(capsys, results, "--format", "csv"))
    assert len(rows) == 3 * 3 * 5
    first = rows[0]
    assert list(first) == ["protocol", "selection", "dataset", "algorithm", "metric", "column", "mean", "stderr", "n"]
    assert float(first["mean"]) == pytest.approx(60.5)
    assert float(first["stderr"]) == pytest.approx(0.5)
    assert [row["n"] for row in rows if row["selection"] == "leave-one-out"] == ["0"] * 15
    assert {row["mean"] for row in rows if row["selection"] == "leave-one-out"} == {""}


def test_csv_gives_last_only_when_asked(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of_csv(collect(capsys, results, "--format", "csv", "--selection", "last", "--selection", "oracle"))
    assert list(dict.fromkeys(row["selection"] for row in rows)) == ["last", "oracle"]


def test_text_shows_table_comparison_and_footer(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = collect(capsys, results, "--format", "text")
    row = next(line for line in text.splitlines() if line.startswith("CLIPood"))
    assert re.split(r"\s{2,}", row)[1] == "66.5 ± 0.5 *"
    footer = " ".join(text.split())
    for part in (
        "training-domain validation",
        "Trials per cell: 2.",
        "standard error over trials",
        "mean difference from ZeroShot",
        "by paired t-test over unit means (df = units - 1)",
        "Holm-adjusted within one table, one metric and one reference (family of 2)",
        "Backbone: tiny (embedded). Steps: 50. Code: 0.1.0. Data: Icons 0123456789ab.",
    ):
        assert part in footer
    assert "WARNING" not in text


def test_error_bars_are_told_and_chosen(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    errors = {}
    for kind in ("stderr", "domainbed", "t95"):
        value = json.loads(collect(capsys, results, "--format", "json", "--errorbars", kind))
        errors[kind] = value["tables"][0]["rows"][0]["cells"][0]["stderr"]
    assert main([str(results), "--format", "csv", "--errorbars", "t95"]) == 2
    assert "column for standard errors" in capsys.readouterr().err
    assert errors == pytest.approx({"stderr": 0.5, "domainbed": 0.5 / 2**0.5, "t95": 0.5 * 12.7062047})


def test_markdown_escapes_pipes_and_keeps_its_columns(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = collect(capsys, results, "--format", "markdown")
    lines = [line for line in text.split("\n\n")[1].splitlines() if line.startswith("|")]
    assert r"a\|b" in lines[0]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {7}
    assert "**" in text
    assert "<u>" in text


def test_json_holds_tables_and_comparisons(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = json.loads(collect(capsys, results, "--format", "json", "--selection", "oracle", "--against", "ERM"))
    (table,) = value["tables"]
    assert table["columns"] == [*DOMAINS, "Avg"]
    assert table["rows"][0]["cells"][0]["trials"] == {"0": 60.0, "1": pytest.approx(61.0)}
    comparisons = {each["algorithm"]: each for each in value["comparisons"]}
    assert set(comparisons) == {"ZeroShot", "CLIPood"}
    for key in ("scope", "against", "difference", "interval", "p", "p_adjusted", "smallest_p", "test", "units"):
        assert comparisons["CLIPood"][key] is not None
    assert comparisons["CLIPood"]["against"] == "ERM"


def assert_latex_is_sound(text: str) -> None:
    """Environments and braces close, nothing unescaped, and every row has as many cells as its tabular has columns."""
    assert re.findall(r"\\begin\{(\w+)\}", text).count("tabular") == re.findall(r"\\end\{(\w+)\}", text).count(
        "tabular"
    )
    for environment in set(re.findall(r"\\begin\{(\w+)\}", text)):
        assert text.count(f"\\begin{{{environment}}}") == text.count(f"\\end{{{environment}}}")
    bare = re.sub(r"\\[\\{}]", "", text)
    assert bare.count("{") == bare.count("}")
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lc]+)\}(.*?)\\end\{tabular\}", text, re.S):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
        assert not re.search(r"(?<!\\)[%_#]", body)


@pytest.mark.parametrize("wrapped", [False, True])
def test_latex_compiles_alone_and_inside_a_document(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrapped: bool
) -> None:
    write_run(results, r"[odd] name_{%#&~^\<é", 1, notes=["50% of $x_1$ & more"], transductive=True)
    text = collect(capsys, results)
    assert_latex_is_sound(text)
    assert r"\textbf{" in text
    if shutil.which("pdflatex") is None or not _has_booktabs():
        return
    if wrapped:
        text = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + text + "\\end{document}\n"
    (tmp_path / "table.tex").write_text(text)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "table.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:]
    assert "Overfull" not in run.stdout


def _has_booktabs() -> bool:
    if shutil.which("kpsewhich") is None:
        return True
    return bool(subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).stdout)


def test_latex_escapes_every_special_character() -> None:
    assert escape(r"a_b 50% #1 & $x {y} ~ ^ \z") == (
        r"a\_b 50\% \#1 \& \$x \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    )
    assert escape("[t]\n\x00龍") == "{[}t{]} ??"


def test_domainbed_format_prints_runs_of_ours(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = collect(capsys, results, "--format", "domainbed", "--selection", "oracle")
    assert text.splitlines()[0] == "Total records: 40"
    assert re.search(r"^ZeroShot {14}60\.5 \+/- 0\.4 ", text, re.M)


def test_unfinished_run_is_left_out_shown_as_a_hole_and_counted(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(results, "UEO", 2, state="failed")
    text = collect(capsys, results, "--format", "text")
    row = next(line for line in text.splitlines() if line.startswith("UEO"))
    assert row.split()[1:] == ["–", "–", "X", "–", "X"]
    assert "Unfinished runs left out: 1" in text
    included = collect(capsys, results, "--format", "csv", "--include-unfinished", "--algorithms", "UEO")
    assert [row["n"] for row in rows_of_csv(included)[:5]] == ["0", "0", "1", "0", "0"]


def test_torn_and_foreign_lines_are_counted_where_the_user_sees_it(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = next((results / "sweep").iterdir())
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"hello": 1}\n{"schema": 1, "tri')
    assert "orn or foreign lines skipped: 2" in collect(capsys, results, "--format", "text")
    assert main([str(results), "--format", "csv"]) == 0
    assert "orn or foreign lines skipped: 2" in capsys.readouterr().err


def test_mixed_versions_are_warned_of_on_standard_error_and_in_the_footer(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(results, "UEO", 0, code="0.2.0")
    assert main([str(results), "--format", "text"]) == 0
    out, err = capsys.readouterr()
    assert "warning: these tables mix code versions: 0.1.0, 0.2.0" in err
    assert "WARNING: these tables mix code versions: 0.1.0, 0.2.0" in out


def test_transductive_methods_notes_and_bad_images_are_told(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(results, "UEO", 0, transductive=True, notes=["captions from class names"], n_bad_images=3)
    text = " ".join(collect(capsys, results, "--format", "text").split())
    assert "UEO [t]" in text
    assert "[t]: transductive" in text
    assert "Note: captions from class names." in text
    assert "nreadable images left out of Icons: 3" in text


def test_methods_that_saw_unlabelled_images_of_the_held_out_domain_are_marked(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(results, "UEO", 0, unlabeled="out")
    text = " ".join(collect(capsys, results, "--format", "text").split())
    assert (
        "UEO [u]" in text and "[u]: saw unlabelled images of the held-out domain, none of which is reported on." in text
    )


def test_further_predictors_are_shown_when_asked_for_or_named(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(results, "WiSE-FT", 0, predictor="WiSE-FT[alpha=0.3]")
    assert "alpha=0.3" not in collect(capsys, results, "--format", "csv")
    assert "alpha=0.3" in collect(capsys, results, "--format", "csv", "--all-predictors")
    named = rows_of_csv(collect(capsys, results, "--format", "csv", "--algorithms", "WiSE-FT[alpha=0.3]", "ERM"))
    assert list(dict.fromkeys(row["algorithm"] for row in named)) == ["WiSE-FT[alpha=0.3]", "ERM"]


def test_several_backbones_are_named_in_the_rows(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for domain in range(4):
        write_run(results, "ERM", domain, backbone="ViT-B-16", pretrained="openai")
    rows = rows_of_csv(collect(capsys, results, "--format", "csv"))
    assert {"ERM (ViT-B-16)", "ERM (tiny)"} <= {row["algorithm"] for row in rows}


def test_averages_appear_with_several_data_sets(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for domain in range(4):
        write_run(results, "ERM", domain, dataset="PACS")
    rows = rows_of_csv(collect(capsys, results, "--format", "csv", "--selection", "oracle"))
    averages = {row["algorithm"]: row for row in rows if row["dataset"] == "Averages"}
    assert averages["ZeroShot"]["n"] == "0"
    of_erm = [float(row["mean"]) for row in rows if row["algorithm"] == "ERM" and row["column"] == "Avg"]
    assert of_erm[2] == pytest.approx((of_erm[0] + of_erm[1]) / 2)
    shown = rows_of_csv(collect(capsys, results, "--format", "csv", "--datasets", "PACS"))
    assert {row["dataset"] for row in shown} == {"PACS"}


def test_output_goes_to_a_file(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collect(capsys, results, "--format", "csv", "--output", tmp_path / "out.csv") == ""
    assert (tmp_path / "out.csv").read_text().startswith("protocol,selection,")
    assert "cannot write" in refused(capsys, results, "--output", tmp_path / "nowhere" / "out.csv")


def test_bad_input_gets_one_message_and_exit_2(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no folder" in refused(capsys, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "looked for results.jsonl" in refused(capsys, tmp_path / "empty")
    assert "Did you mean 'Icons'" in refused(capsys, results, "--datasets", "icons")
    assert "Did you mean 'CLIPood'" in refused(capsys, results, "--algorithms", "CLIPod")
    assert "Did you mean 'ERM'" in refused(capsys, results, "--against", "EMR")


def test_folder_with_unfinished_runs_only_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "ERM", 0, state="running")
    message = refused(capsys, tmp_path)
    assert "1 unfinished" in message
    assert "--include-unfinished" in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "pdf"],
        ["--selection", "best"],
        *(["--alpha", words] for words in ("2", "0", "1", "x", "nan", "1e-300")),
        *(["--plan", words] for words in ("0", "-1", "nan", "x", "100")),
        ["--estimand", "everything"],
        ["--family", "none"],
        ["--posthoc", "tukey"],
        ["--explain", "Icons", "ERM"],
    ],
)
def test_wrong_options_are_refused_by_the_parser(results: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(results), *arguments])
    assert stop.value.code == 2


def test_collect_imports_neither_torch_nor_pandas(results: Path) -> None:
    code = (
        "import sys; from bench.collect import main; main(sys.argv[1:]);"
        "sys.exit(str(sorted({'torch', 'pandas', 'scipy.stats', 'PIL', 'matplotlib'} & set(sys.modules)) or ''))"
    )
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run(
        [sys.executable, "-c", code, str(results), "--format", "text"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr.strip() == ""
    assert "CLIPood" in run.stdout


def test_records_that_contradict_each_other_are_warned_of(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    folder = sorted(path.parent for path in results.rglob("results.jsonl"))[0]
    twin = folder.with_name("zz")
    shutil.copytree(folder, twin)
    assert main([str(results), "--format", "text"]) == 0
    assert "contradict" not in capsys.readouterr().err
    text = (twin / "results.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    key = next(key for key in lines[-1] if key.endswith("_acc"))
    lines[-1][key] = 0.123
    (twin / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(results), "--format", "text"]) == 0
    assert "1 record(s) contradict" in capsys.readouterr().err


def test_ablations_in_one_sweep_are_warned_of(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(results), "--format", "text"]) == 0
    assert "launch ablations" not in capsys.readouterr().err
    import shutil

    folder = next(path.parent for path in results.rglob("results.jsonl") if "ERM" in path.parent.name)
    shutil.copytree(folder, folder.with_name("ablation"))
    text = (folder / "results.jsonl").read_text().replace(folder.name, "ablation")
    (folder.with_name("ablation") / "results.jsonl").write_text(text)
    assert main([str(results), "--format", "text"]) == 0
    assert "trials of ERM with equal seeds differ" in capsys.readouterr().err


def comparisons_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    value = json.loads(collect(capsys, *arguments, "--format", "json", "--selection", "last"))
    found: list[dict[str, Any]] = value["comparisons"]
    return found


def test_json_comparisons_have_the_scope_of_a_domain_a_data_set_or_all(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, dataset in enumerate(("PACS", "VLCS")):
        for domain in range(4):
            for algorithm in ("ZeroShot", "CLIPood"):
                value = METHODS[algorithm] + 0.02 * place * len(algorithm) + 0.01 * domain * len(algorithm)
                numbers: dict[str, Any] = {f"env{domain}_in_acc": value}
                write_run(results, algorithm, domain, dataset=dataset, **numbers)
    found = comparisons_of(capsys, results, "--algorithms", "ZeroShot", "CLIPood")
    scopes = {each["scope"]: each for each in found}
    assert set(scopes) == {*DOMAINS, "Icons", "PACS", "VLCS", "overall"}
    overall, pacs = scopes["overall"], scopes["PACS"]
    assert (overall["test"], overall["units"], overall["unit"], overall["dataset"]) == ("t", 3, "data set", None)
    assert (pacs["test"], pacs["units"], pacs["unit"], pacs["dataset"]) == ("t", 4, "domain", "PACS")
    single = next(each for each in found if each["domain"] == "r_w" and each["dataset"] == "Icons")
    assert (single["units"], single["unit"], single["test"], single["interval"]) == (2, "trial", None, None)
    assert single["refusal"] == "fewer than 3 trials"
    for each in found:
        assert (each["p"] is None) == (each["interval"] is None) == (each["test"] is None)


def test_estimand_and_family_change_test_and_correction(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for algorithm in METHODS:
        for domain in range(4):
            write_run(results, algorithm, domain, 2, env0_in_acc=0.7 + 0.01 * len(algorithm))
    found = comparisons_of(capsys, results, "--estimand", "these-benchmarks")
    assert {(each["test"], each["unit"]) for each in found if each["domain"] is None} == {("t-trials", "trial")}
    text = collect(capsys, results, "--format", "text", "--estimand", "these-benchmarks", "--family", "report")
    footer = " ".join(text.split())
    assert "the mean difference of new trainings on exactly these domains" in footer
    assert "Holm-adjusted within all comparisons of this report (family of 2)" in footer


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "json"])
def test_plan_effects_and_ranks_are_in_every_format_that_can_hold_them(
    results: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    shown = collect(capsys, results, "--format", form, "--plan=1.5", "--effects", "--posthoc")
    plain = collect(capsys, results, "--format", form)
    if form == "json":
        value = json.loads(shown)
        assert {each["difference"] for each in value["plans"]} == {1.5}
        assert {"p_better", "rank_biserial", "rope"} <= set(value["effects"][0])
        assert "ranks need at least 6 domains" in value["rankings"][0]["refusal"]
        assert not {"plans", "effects", "rankings"} & set(json.loads(plain))
        return
    for part in (
        "effect sizes over domains",
        "what would settle it",
        "No ranks of Icons: ranks need at least 6 domains",
    ):
        assert part in " ".join(shown.split()).replace("\\_", "_")
        assert part not in plain
    if form == "latex":
        assert_latex_is_sound(shown)


def test_plan_without_points_says_that_the_observed_mean_is_optimistic(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "an optimistic guess" in " ".join(collect(capsys, results, "--format", "text", "--plan").split())
    assert "an optimistic guess" not in " ".join(collect(capsys, results, "--format", "text", "--plan=2").split())


def test_what_does_not_go_together_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for asked in (["--plan"], ["--effects"], ["--posthoc"], ["--explain", "Icons", "ERM", "Avg"]):
        assert f"{asked[0]} has no place in --format csv" in refused(capsys, results, "--format", "csv", *asked)
    assert "--estimand new-domains" in refused(capsys, results, "--plan=1", "--estimand", "these-benchmarks")


def test_rows_and_columns_are_renamed_ordered_and_compared_as_before(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("--rename", "ERM=Fine-tuning", "50% ink=Ink", "--rename", "Icons=Our icons")
    text = collect(capsys, results, "--format", "text", "--order", "mean", "--against", "ERM", *names)
    rows = [line.split("  ")[0] for line in text.splitlines()[4:7]]
    assert rows == ["CLIPood", "Fine-tuning", "ZeroShot"]
    assert text.startswith("Our icons: ")
    assert "Ink" in text.splitlines()[2] and "50% ink" not in text
    assert "mean difference from Fine-tuning" in text
    plain = comparisons_of(capsys, results, "--against", "ERM")
    renamed = comparisons_of(capsys, results, "--against", "ERM", *names)
    assert [each["p_adjusted"] for each in renamed] == [each["p_adjusted"] for each in plain]
    by_name = rows_of_csv(collect(capsys, results, "--format", "csv", "--order", "name", "--selection", "last"))
    assert list(dict.fromkeys(row["algorithm"] for row in by_name)) == ["CLIPood", "ERM", "ZeroShot"]


def test_wrong_names_and_metrics_are_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'ERM'" in refused(capsys, results, "--rename", "EMR=x")
    assert "OLD=NEW" in refused(capsys, results, "--rename", "ERM")
    assert "two names" in refused(capsys, results, "--rename", "ERM=a", "--rename", "ERM=b")
    assert "the name 'CLIPood'" in refused(capsys, results, "--rename", "ERM=CLIPood")
    assert "Did you mean 'accuracy'" in refused(capsys, results, "--metric", "acuracy")


def test_explain_lists_the_trials_behind_a_cell(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(results, "UEO", 0)
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**spec, "hparams": {"lr": 0.001, "beta": 2}}))
    shown = " ".join(collect(capsys, results, "--explain", "Icons", "UEO", "art").split())
    for part in ("UEO, art: 50.0 (accuracy, %)", "training-domain validation", "beta=2, lr=0.001", str(folder)):
        assert part in shown
    averaged = collect(capsys, results, "--explain", "Icons", "CLIPood", "Avg")
    assert len(re.findall(r"^(?:art|50% ink|a\|b|r_w) ", averaged, re.M)) == 8
    assert "the mean of 4 cells" in averaged and " 50 " in averaged
    assert "hparams 1: not recorded" in averaged
    hole = collect(capsys, results, "--explain", "Icons", "UEO", "r_w")
    assert "No finished trial: not run." in hole
    assert "though these trials are there" in collect(capsys, results, "--explain", "Icons", "UEO", "Avg")


def test_explain_names_what_there_is(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'Icons'" in refused(capsys, results, "--explain", "Icon", "ERM", "art")
    assert "Did you mean 'ERM'" in refused(capsys, results, "--explain", "Icons", "EMR", "art")
    assert "Did you mean 'art'" in refused(capsys, results, "--explain", "Icons", "ERM", "arts")


def test_a_row_is_marked_where_its_data_set_was_seen_and_by_the_stricter_mark_in_averages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dataset, transductive in (("PACS", True), ("VLCS", False)):
        for domain in range(4):
            write_run(tmp_path, "ERM", domain, dataset=dataset)
            write_run(tmp_path, "UEO", domain, dataset=dataset, transductive=transductive, unlabeled=True)
    text = collect(capsys, tmp_path, "--format", "text", "--selection", "last")
    marks = dict(re.findall(r"^(PACS|VLCS|.*data sets)[^\n]*%[^\n]*\n(?:.*\n)*?UEO \[([tu])\]", text, re.M))
    assert marks["PACS"] == "t" and marks["VLCS"] == "u"
    assert [mark for name, mark in marks.items() if "data sets" in name] == ["t"]


def test_the_averages_cannot_be_renamed_into_a_data_set(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--rename" in refused(capsys, results, "--format", "text", "--rename", "Averages=Overall")


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": None},
        {"algorithm": 3},
        {"domains": 3},
        {"domains": [0, 1, 2, 3]},
        {"notes": 5},
        {"n_bad_images": "x"},
        {"split_digest": [1]},
        {"step": float("inf")},
        {"trial": ["a"]},
        {"env0_in_acc": 1e308},
        {"env0_in_acc": 84.5},
        {"env1_out_acc": -0.1},
    ],
)
def test_a_line_that_is_no_record_is_counted_and_passed_over(
    results: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    path = sorted(results.glob("sweep/*ERM*/results.jsonl"))[0]
    line = {**json.loads(path.read_text().splitlines()[-1]), **change}
    path.write_text(json.dumps({key: value for key, value in line.items() if value is not None}) + "\n")
    for form in ("text", "json", "latex"):
        assert main([str(results), "--format", form]) == 0
        capsys.readouterr()
    assert main([str(results), "--format", "csv"]) == 0
    assert "orn or foreign lines skipped: 1" in capsys.readouterr().err


def test_a_row_that_looks_like_an_alpha_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("X[alpha=1.2.3]", "X[alpha=.]", "ERM"):
        for domain in range(4):
            write_run(tmp_path, name, domain, protocol="leave_one_domain_out")
    assert "X[alpha=1.2.3]" in collect(capsys, tmp_path, "--format", "text", "--selection", "last")


def test_domainbeds_text_names_the_protocol_that_it_has_no_place_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "ERM", 0, protocol="in_the_wild", env0_base_acc=0.5, env0_new_acc=0.5, env0_total_acc=0.5)
    assert "no place for in_the_wild" in refused(capsys, tmp_path, "--format", "domainbed")


def test_what_is_shown_changes_no_p(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, name in enumerate(("ZeroShot", "ERM", "CLIPood")):
        for trial in range(3):
            values = {
                f"env{i}_{v}_acc": 0.4 + 0.06 * place + 0.01 * i * place + 0.01 * trial
                for i in range(4)
                for v in ("base", "new")
            }
            write_run(tmp_path, name, 0, trial, protocol="base_to_new", test_domains=[], **values)
    args = ("--selection", "last", "--format", "json")
    every, some = (json.loads(collect(capsys, tmp_path, *args, *more)) for more in ((), ("--metric", "H")))

    def adjusted(told: dict[str, Any]) -> list[float]:
        return [each["p_adjusted"] for each in told["comparisons"] if each["metric"] == "H"]

    assert adjusted(some) and adjusted(some) == adjusted(every)
    assert {each["metric"] for each in some["comparisons"]} == {"H"}
