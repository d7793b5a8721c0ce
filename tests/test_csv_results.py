"""Plain CSV files of numbers: what they become, and what is refused with file, line, column and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from bench.collect import main
from bench.csv_results import _FURTHER, _METRICS, Number, records_of
from bench.errors import RecordsMissing, SpecError
from bench.measures import further_measures, scheme
from bench.records import load

HEADER = "dataset,algorithm,domain,trial,metric,value"
DOMAINS = ("A", "C", "P", "S")
VALUES = {("ZeroShot", domain, trial): 70 + 5 * place for place, domain in enumerate(DOMAINS) for trial in range(3)} | {
    ("Ours", domain, trial): 71 + 5.5 * place + 0.3 * trial
    for place, domain in enumerate(DOMAINS)
    for trial in range(3)
}


def write(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """Two methods on PACS's four domains, three trials each, in percent."""
    lines = (f"PACS,{method},{domain},{trial},accuracy,{value}" for (method, domain, trial), value in VALUES.items())
    return write(tmp_path / "numbers.csv", *lines)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(each) for each in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("rule", ["training-domain", "oracle", "last"])
def test_numbers_are_tabulated_under_any_rule_and_paired_by_trial(
    numbers: Path, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(numbers), "--format", "json", "--selection", rule]) == 0
    value = json.loads(capsys.readouterr().out)
    (table,) = value["tables"]
    cells = {row["label"]: row["cells"] for row in table["rows"]}
    assert cells["Ours"][1]["trials"] == pytest.approx({"0": 76.5, "1": 76.8, "2": 77.1})
    (comparison,) = (each for each in value["comparisons"] if each["scope"] == "PACS")
    differences = [sum(VALUES["Ours", d, t] - VALUES["ZeroShot", d, t] for t in range(3)) / 3 for d in DOMAINS]
    assert comparison["difference"] == pytest.approx(sum(differences) / 4)
    assert comparison["p"] == pytest.approx(ttest_1samp(differences, 0).pvalue)


def test_footer_says_what_was_taken_for_percent(numbers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(numbers.with_name("more.csv"), "VLCS,Ours,C,0,acc,0.5", "VLCS,Ours,L,0,acc,1", "VLCS,Ours,Avg,0,acc,0.7")
    assert main([str(numbers.parent), "--format", "text"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "imported from numbers.csv (accuracy in percent): one final number a trial, nothing was selected here" in text
    )
    assert "imported from more.csv (acc in fractions)" in text
    assert "CSV lines left out: 1 averages, which are computed here" in text
    assert "Backbone: not recorded." in text


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6), st.booleans())
def test_one_value_above_one_makes_all_of_its_metric_percent(values: list[float], is_told: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        unit = ",percent" if is_told else ""
        lines = [f"D,m,d{place},0,accuracy,{value!r}{unit}" for place, value in enumerate(values)]
        path = write(Path(folder) / "n.csv", *lines, header=HEADER + (",unit" if is_told else ""))
        records = load(path).records
    is_percent = is_told or max(values) > 1
    found = [record[f"env{place}_in_acc"] for place, record in enumerate(records)]
    assert found == pytest.approx([value / 100 if is_percent else value for value in values])


@pytest.mark.parametrize("protocol", sorted(_METRICS))
def test_each_metric_is_read_back_by_the_protocol_itself(protocol: str) -> None:
    for metric, key in _METRICS[protocol].items():
        key = key.format("{}", "in") if key.count("{}") == 2 else key
        numbers = [
            Number("f:1", protocol, "D", "m", domain, "b", "", 0, 0, metric, key, value, "fraction")
            for domain, value in (("x", 0.25), ("y", 0.75))
        ]
        records = records_of(numbers)
        known = {each.name.lower(): each for each in scheme(protocol).measures}
        if metric not in known:
            assert metric in _FURTHER
            known = {each.name.lower(): each for each in further_measures(protocol, records)}
        cells = {d: known[metric].read(record, d) for record in records for d in (0, 1) if f"env{d}" in str(record)}
        assert cells == {0: 0.25, 1: 0.75}


def test_other_protocols_have_their_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(
        tmp_path / "n.csv",
        "DTD,CoOp,all,1,base,80.1,base_to_new,ViT-B-16",
        "DTD,CoOp,all,1,new,60.5,base_to_new,ViT-B-16",
        "DTD,CoOp,all,1,H,0,base_to_new,ViT-B-16",
        'Office31,UEO,amazon,0,AUROC,0.9,"universal[setting=open]",RN50',
        'Office31,UEO,amazon,0,per-class,0.8,"universal[setting=open]",RN50',
        header=f"{HEADER},protocol,backbone",
    )
    assert main([str(path), "--format", "csv"]) == 0
    out = capsys.readouterr().out.splitlines()
    means = {(each.split(",")[0], each.split(",")[4]): each.split(",")[6] for each in out if ",Avg," in each}
    assert float(means["base_to_new", "H"]) == pytest.approx(2 * 80.1 * 60.5 / 140.6)
    assert float(means["universal[setting=open]", "AUROC"]) == pytest.approx(90)


def test_order_of_columns_and_splits_are_free(tmp_path: Path) -> None:
    path = write(
        tmp_path / "n.csv", "0.5,PACS,S,0,m,accuracy,out", header="value,dataset,domain,trial,algorithm,metric,split"
    )
    (record,) = load(path).records
    assert record["protocol"] == "leave_one_domain_out[report=out]"
    assert (record["env3_out_acc"], record["test_domains"], record["domains"]) == (0.5, [3], list(DOMAINS))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("PACS,m,A,0,accuracy", "numbers.csv:2: 5 cells, the header has 6 columns"),
        (
            "PACS,m,A,0,acuracy,5",
            "numbers.csv:2: column metric is 'acuracy'; allowed for leave_one_domain_out are accuracy",
        ),
        ("PACS,m,A,x,accuracy,5", "numbers.csv:2: column trial is 'x'; allowed are whole numbers from 0"),
        ("PACS,m,A,,accuracy,5", "numbers.csv:2: column trial is empty"),
        ("PACS,m,A,0,accuracy,101", "numbers.csv:2: column value is '101'; allowed are numbers from 0 to 100"),
        ("PACS,m,A,0,accuracy,nan", "numbers.csv:2: column value is 'nan'"),
        ("PACS,m,A,0,accuracy,", "numbers.csv:2: column value is ''"),
        (",m,A,0,accuracy,5", "numbers.csv:2: column dataset is empty"),
    ],
)
def test_bad_lines_are_refused(tmp_path: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "numbers.csv", line)
    assert message in refused(capsys, path)
    assert message in refused(capsys, tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("dataset,algorithm,domain,trial,metric", "numbers.csv:1: the header lacks value"),
        (f"{HEADER},protocl", "has unknown columns 'protocl'; needed are dataset,algorithm,domain,trial,metric,value"),
        (f"{HEADER},value", "names value twice"),
        ("", "the header lacks dataset, algorithm"),
    ],
)
def test_a_file_that_was_asked_for_needs_its_header(
    tmp_path: Path, header: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, write(tmp_path / "numbers.csv", header=header))


def test_other_csv_files_in_a_folder_are_passed_over(tmp_path: Path, numbers: Path) -> None:
    write(tmp_path / "curve.csv", "1,2", header="step,accuracy")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    assert len(load(tmp_path).records) == len(VALUES)
    numbers.unlink()
    with pytest.raises(RecordsMissing, match="CSV files with the columns dataset,algorithm"):
        load(tmp_path)


def test_a_fraction_above_one_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "n.csv", "PACS,m,A,0,accuracy,55,fraction", header=f"{HEADER},unit")
    with pytest.raises(SpecError, match=r"n\.csv:2: column value is 55, above 1, though unit is fraction"):
        load(path)


def test_a_number_said_twice_must_be_the_same(
    tmp_path: Path, numbers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = write(tmp_path / "zz.csv", "PACS,Ours,A,0,accuracy,71.0")
    assert len(load(tmp_path).records) == len(VALUES)
    write(again, "PACS,Ours,A,0,accuracy,12")
    message = refused(capsys, tmp_path)
    assert "zz.csv:2: accuracy of PACS, Ours, A, trial 0 is another number than in" in message
    assert "numbers.csv:14" in message


def test_a_percent_sign_is_a_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"PACS,{name},{domain},0,ece,0.9%" for name in ("A", "B") for domain in ("art", "photo")]
    lines += [f"PACS,{name},{domain},0,accuracy,70" for name in ("A", "B") for domain in ("art", "photo")]
    path = write(tmp_path / "percent.csv", *lines)
    assert main([str(path), "--format", "json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert "0.9" in json.dumps(tables) and "90.0" not in json.dumps(tables)


@pytest.mark.parametrize(
    ("protocol", "metrics", "column"),
    [
        ("universal", {"accuracy": "80", "auroc": "70"}, "AUROC"),
        ("in_the_wild", {"base": "60", "new": "40"}, "H"),
        ("base_to_new", {"base": "60"}, "base"),
    ],
)
def test_numbers_are_shown_without_the_protocols_main_one(
    tmp_path: Path, protocol: str, metrics: dict[str, str], column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        f"PACS,{name},{domain},0,{metric},{value},{protocol}"
        for name in ("A", "B")
        for domain in ("art", "photo")
        for metric, value in metrics.items()
    ]
    path = write(tmp_path / "some.csv", *lines, header=f"{HEADER},protocol")
    assert main([str(path), "--format", "text"]) == 0
    text = capsys.readouterr().out
    assert "No cell has a number" not in text and column in text
    assert {"AUROC": "70.0", "H": "48.0", "base": "60.0"}[column] in text


def test_explain_says_that_h_is_of_the_averages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {("X", 0): ("90", "30"), ("X", 1): ("30", "90"), ("Y", 0): ("50", "50"), ("Y", 1): ("50", "50")}
    lines = [
        f"DTD,{name},DTD,{trial},{metric},{value},base_to_new"
        for (name, trial), pair in values.items()
        for metric, value in zip(("base", "new"), pair)
    ]
    path = write(tmp_path / "h.csv", *lines, header=f"{HEADER},protocol")
    assert main([str(path), "--explain", "DTD", "X", "Avg"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "60.0" in told and "harmonic mean of the averages of base and new" in told
