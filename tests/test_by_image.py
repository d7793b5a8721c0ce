"""`collect --by-image`: two rows on the images of a domain, from stored predictions, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.result_folders import collect, refused, write_run

N = 200
METHODS = {"ERM": 0.7, "ZeroShot": 0.6}


def with_predictions(
    root: Path, algorithm: str, domain: int, trial: int, is_right: np.ndarray, label: str = "main"
) -> Path:
    """Write a run of one held-out domain whose records say what its stored predictions give."""
    name = f"{algorithm}[{label}]" if label != "main" else algorithm
    more = {f"env{domain}_in_acc": float(is_right.mean()), "predictor": name}
    folder = write_run(root, algorithm, domain, trial, **more)
    spec = json.loads((folder / "spec.json").read_text())
    steps = 0 if algorithm == "ZeroShot" else 50
    (folder / "spec.json").write_text(json.dumps({**spec, "steps": steps}))
    view, labels = f"env{domain}_in", np.arange(len(is_right)) % 7
    answers = {
        f"{view}/index": np.arange(len(is_right), dtype=np.uint32) + 100 * trial,
        f"{view}/label": labels.astype(np.uint16),
        f"{view}/{label}/predicted": np.where(is_right, labels, labels + 1).astype(np.uint16),
    }
    np.savez_compressed(folder / "predictions.npz", **answers)
    return folder


def write_views(folder: Path, algorithm: str, right: dict[str, np.ndarray]) -> None:
    """Write the predictions of several views of the first domain, N images each, one view behind the other."""
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**spec, "steps": 0 if algorithm == "ZeroShot" else 50}))
    arrays = {}
    for place, (view, each) in enumerate(right.items()):
        arrays[f"env0_{view}/index"] = np.arange(place * N, (place + 1) * N, dtype=np.uint32)
        arrays[f"env0_{view}/label"] = np.zeros(N, dtype=np.uint16)
        arrays[f"env0_{view}/main/predicted"] = (~each).astype(np.uint16)
    np.savez_compressed(folder / "predictions.npz", **arrays)


def answers(stream: np.random.Generator, share: float) -> np.ndarray:
    return stream.random(N) < share


def rows_of(text: str) -> dict[tuple[str, str], list[str]]:
    """Split the lines of the table into cells, by row and domain."""
    lines = text.split("\n\n")[1].splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    return {(line[0], line[1]): line[2:] for line in cells}


def test_one_trial_gives_mcnemars_p_and_nothing_that_needs_three(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = np.random.default_rng(0)
    one, other = answers(stream, 0.7), answers(stream, 0.6)
    with_predictions(tmp_path, "ERM", 0, 0, one)
    with_predictions(tmp_path, "ZeroShot", 0, 0, other)
    text = collect(capsys, tmp_path, "--by-image", "--selection", "last")
    assert "Icons, leave one domain out: image by image, against ZeroShot" in text
    alone = int((one & ~other).sum()), int((other & ~one).sum())
    p = binomtest(alone[0], sum(alone)).pvalue
    difference = 100 * (one.mean() - other.mean())
    expected = ["1", str(N), f"{alone[0]} / {alone[1]}", f"{difference:+.1f}", "·", "·", "·", "·"]
    assert rows_of(text)["ERM", "art"] == [*expected, f"{p:.3f}".lstrip("0")]


def test_three_trials_give_an_interval_and_domains_are_one_family(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = np.random.default_rng(1)
    for domain, gain in ((0, 0.25), (1, 0.0)):
        for trial in range(3):
            base = answers(stream, 0.5)
            with_predictions(tmp_path, "ZeroShot", domain, trial, base)
            with_predictions(tmp_path, "ERM", domain, trial, base ^ (answers(stream, gain) & ~base))
    found = rows_of(collect(capsys, tmp_path, "--by-image", "--selection", "last"))
    better, same = found["ERM", "art"], found["ERM", "50% ink"]
    assert better[:2] == ["3", "400"]  # each trial has images of its own, a hundred of them shared with the next
    assert float(better[5]) < 0.05 and better[4].startswith("+") and same[2] == "0 / 0" and same[5] == "1"


def test_a_predictor_is_looked_up_by_its_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream = np.random.default_rng(2)
    with_predictions(tmp_path, "WiSE-FT", 0, 0, answers(stream, 0.7), label="alpha=0.3")
    with_predictions(tmp_path, "ZeroShot", 0, 0, answers(stream, 0.6))
    assert ("WiSE-FT[alpha=0.3]", "art") in rows_of(
        collect(capsys, tmp_path, "--by-image", "--selection", "last", "--all-predictors")
    )


def test_an_accuracy_over_several_views_takes_the_images_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = np.random.default_rng(4)
    right = {name: {view: answers(stream, share) for view in ("base", "new")} for name, share in METHODS.items()}
    for name, of in right.items():
        shares = {f"env0_{view}_acc": float(of[view].mean()) for view in of}
        shares["env0_total_acc"] = float(np.concatenate([*of.values()]).mean())
        folder = write_run(tmp_path, name, 0, protocol="in_the_wild", **shares)
        write_views(folder, name, of)
    text = collect(capsys, tmp_path, "--by-image", "--selection", "last")
    found = {}
    for part in text.split("Icons, in the wild")[1:]:
        measure = part.split(":")[0].partition("accuracy on ")[2].split(" ")[0]
        found[measure] = rows_of(f"Icons{part}")["ERM", "art"]
    both = {name: np.concatenate([*of.values()]) for name, of in right.items()}
    for measure, images in (("base", N), ("new", N), ("all", 2 * N)):
        one, other = (both[name] if measure == "all" else right[name][measure] for name in ("ERM", "ZeroShot"))
        row = found[measure]
        assert row[1:3] == [str(images), f"{int((one & ~other).sum())} / {int((other & ~one).sum())}"]


def test_the_whole_domain_is_its_two_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream = np.random.default_rng(5)
    for name, share in METHODS.items():
        right = {view: answers(stream, share) for view in ("in", "out")}
        both = float(np.concatenate([*right.values()]).mean())
        more = {"options": {"report": "all"}, "env0_all_acc": both}
        folder = write_run(tmp_path, name, 0, **more)
        write_views(folder, name, right)
    found = rows_of(collect(capsys, tmp_path, "--by-image", "--selection", "last"))
    assert found["ERM", "art"][1] == str(2 * N)


def test_what_cannot_be_compared_is_counted_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream = np.random.default_rng(3)
    right = {name: answers(stream, 0.6) for name in ("ZeroShot", "ERM", "CLIPood", "UEO", "ARF")}
    folders = {name: with_predictions(tmp_path, name, 0, 0, each) for name, each in right.items()}
    (folders["CLIPood"] / "predictions.npz").unlink()
    spec = json.loads((folders["UEO"] / "spec.json").read_text())
    (folders["UEO"] / "spec.json").write_text(json.dumps({**spec, "steps": 500}))
    arrays = dict(np.load(folders["ARF"] / "predictions.npz"))
    np.savez(folders["ARF"] / "predictions.npz", **{**arrays, "env0_in/label": arrays["env0_in/label"] * 0 + 3})
    text = " ".join(collect(capsys, tmp_path, "--by-image", "--selection", "last").split())
    assert "ERM art" in text and "CLIPood art" not in text
    for reason in ("no stored predictions", "the chosen step is not the last", "another number than the table's"):
        assert f"1 comparison ({reason}" in text or f"1 comparison (stored predictions that give {reason}" in text


def test_a_folder_without_predictions_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ZeroShot", "ERM"):
        write_run(tmp_path, name, 0)
    assert "nothing to compare image by image" in refused(capsys, tmp_path, "--by-image", "--selection", "last")
    assert "give one of them" in refused(
        capsys, tmp_path, "--by-image", "--selection", "last", "--explain", "Icons", "ERM", "Avg"
    )
