"""Snapshots: what is copied, once, whole, and that a Python process really uses the copy."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from bench import snapshot
from bench._paths import IN_CHECKOUT, PACKAGE, plugin_folder
from bench.errors import BenchError, Conflict
from bench.registry import algorithms, datasets
from bench.snapshot import environment, take
from bench.version import SNAPSHOT_FILE, current_version

SEE = """
import json, sys
import bench, bench.plan, bench.version
from bench.registry import algorithms, datasets
from bench.sweepfile import sweep_files
origins = [algorithms.origin(name) for name in algorithms] + [datasets.origin(name) for name in datasets]
modules = [module.__file__ for name, module in sys.modules.items()
           if name.partition(".")[0] == "bench" and getattr(module, "__file__", None)]
print(json.dumps({"file": bench.__file__, "version": bench.version.code_version(), "modules": modules,
                  "names": [*algorithms, *datasets], "origins": origins, "sweeps": [str(f) for f in sweep_files()],
                  "broken": {**algorithms.broken, **datasets.broken}}))
"""


def python(code: str, cwd: Path, **env: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code]
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    full = {**inherited, "OMP_NUM_THREADS": "1", **env}
    done = subprocess.run(command, cwd=cwd, env=full, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of the code under test."""
    return take(tmp_path_factory.mktemp("snapshots"))


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout of somebody's, that `take` sees as the running code; gives its folder."""
    for path in ("bench/__init__.py", "bench/algorithms/__init__.py", "algorithms/erm.py", "sweeps/small.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"'{path}'\n")
    monkeypatch.setattr(snapshot, "PACKAGE", tmp_path / "bench")
    monkeypatch.setattr(snapshot, "plugin_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(snapshot, "current_version", lambda: "0.1.0+gabc")
    return tmp_path


def held(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_copy_holds_all_code_and_weights_and_is_read_only(copy: Path) -> None:
    package = {str(Path("bench", path.relative_to(PACKAGE))) for path in PACKAGE.rglob("*.py")}
    plugins = {f"bench/{name}/{path.name}" for name in snapshot.PLUGINS for path in plugin_folder(name).glob("*.py")}
    assert package | plugins <= held(copy)
    for path in PACKAGE.glob("weights/*"):
        assert (copy / "bench" / "weights" / path.name).read_bytes() == path.read_bytes()
    data = {path.name for path in plugin_folder("datasets").glob("*.json")}
    assert data <= {path.name for path in (copy / "bench" / "datasets").iterdir()}
    assert {path.name for path in copy.iterdir()} == {"bench"}
    assert not any(path.stat().st_mode & 0o222 for path in copy.rglob("*") if path.is_file())


@pytest.mark.parametrize("place", ["its own folder", "the checkout", "elsewhere"])
def test_python_uses_the_copy_though_the_checkout_is_installed(copy: Path, tmp_path: Path, place: str) -> None:
    """The checkout's folder is put on the path by a .pth file, as an editable install does."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "_editable.pth").write_text(f"{PACKAGE.parent}\n")
    editable = f"import site, sys; site.addsitedir({str(site)!r}); assert {str(PACKAGE.parent)!r} in sys.path\n"
    if place == "its own folder":
        out = python(editable + SEE, copy, PYTHONPATH=str(copy))
    else:
        out = python(editable + SEE, PACKAGE.parent if place == "the checkout" else tmp_path, **environment(copy))
    seen = json.loads(out)
    inside = f"{copy}{os.sep}"
    assert seen["file"] == str(copy / "bench" / "__init__.py")
    assert all(path.startswith(inside) for path in (*seen["modules"], *seen["origins"], *seen["sweeps"])), seen
    assert seen["version"] == (copy / "bench" / SNAPSHOT_FILE).read_text().strip()
    assert seen["broken"] == {}
    assert seen["names"] == [*(name for name in (*algorithms, *datasets) if name != "toy")]
    assert seen["sweeps"]


@pytest.mark.slow
def test_a_trial_runs_from_the_copy_with_its_own_weights_and_data(copy: Path, tmp_path: Path) -> None:
    """The whole way, embedded data and weights, to the same records as from the checkout but for the code's version."""
    code = (
        "from bench.sweep import main\n"
        "main(['launch', '--algorithms', 'ZeroShot', '--test-domains', '0', '--n-trials', '1', '--jobs', '1', '--yes'])"
    )
    seen = []
    for name, env in (("copy", environment(copy)), ("checkout", {"PYTHONPATH": str(PACKAGE.parent)})):
        (tmp_path / name).mkdir()
        python(code, tmp_path / name, **env)
        (records,) = (tmp_path / name).rglob("results.jsonl")
        seen.append([json.loads(line) for line in records.read_text().splitlines()])
    assert {record.pop("code") for record in seen[0]} == {(copy / "bench" / SNAPSHOT_FILE).read_text().strip()}
    for record in seen[1]:
        del record["code"]
    assert seen[0] == seen[1] != []


def test_environment_keeps_what_this_process_was_told_to_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"/one{os.pathsep}{os.pathsep}/two")
    assert environment(tmp_path)["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), "/one", "/two"]
    monkeypatch.delenv("PYTHONPATH")
    assert environment(tmp_path)["PYTHONPATH"] == str(tmp_path)


def test_the_same_code_is_the_same_folder_and_other_code_another(code: Path, tmp_path: Path) -> None:
    first = take(tmp_path / "copies")
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert take(tmp_path / "copies") == first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    (code / "algorithms" / "erm.py").write_text("changed\n")
    second = take(tmp_path / "copies")
    assert second != first
    assert (first / "bench/algorithms/erm.py").read_text() == "'algorithms/erm.py'\n"
    assert (second / "bench/algorithms/erm.py").read_text() == "changed\n"


def test_another_version_of_equal_files_is_another_folder(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take(tmp_path / "copies")
    monkeypatch.setattr(snapshot, "current_version", lambda: "0.1.0+gdef")
    second = take(tmp_path / "copies")
    assert first != second
    assert [(each / "bench" / SNAPSHOT_FILE).read_text() for each in (first, second)] == [
        "0.1.0+gabc\n",
        "0.1.0+gdef\n",
    ]


def test_a_copy_of_a_copy_and_of_a_wheel_are_the_same_code(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel and a copy have their plug-ins inside the package."""
    first = take(tmp_path / "copies")
    package = tmp_path / "site" / "bench"
    shutil.copytree(first / "bench", package)
    monkeypatch.setattr(snapshot, "PACKAGE", package)
    monkeypatch.setattr(snapshot, "plugin_folder", lambda name: package / name)
    assert take(tmp_path / "copies") == first
    (package / SNAPSHOT_FILE).unlink()
    assert take(tmp_path / "copies") == first


def test_what_is_no_code_stays_behind(code: Path, tmp_path: Path) -> None:
    for path in (
        "bench/__pycache__/x.cpython-311.pyc",
        "bench/.hidden.py",
        "algorithms/.#erm.py",
        "datasets/PACS/photo/dog.txt",
        "datasets/PACS/list.txt",
        "datasets/__init__.py",
        "tests/test_x.py",
        "results/s/x.py",
        ".git/config",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    with (code / "datasets" / "PACS.zip").open("wb") as file:
        file.truncate(snapshot.LARGEST_PLUGIN_FILE + 1)
    for path in ("datasets/names.json", "algorithms/family/__init__.py", "algorithms/family/data.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    (code / "datasets" / "linked").symlink_to(code, target_is_directory=True)
    (code / "algorithms" / "nowhere.py").symlink_to(code / "gone.py")
    assert held(take(tmp_path / "copies")) == {
        "bench/__init__.py",
        f"bench/{SNAPSHOT_FILE}",
        "bench/algorithms/__init__.py",
        "bench/algorithms/erm.py",
        "bench/algorithms/family/__init__.py",
        "bench/algorithms/family/data.txt",
        "bench/datasets/names.json",
        "bench/sweeps/small.py",
    }


def _take(target: Path) -> Path:
    return take(target)


def test_several_processes_make_one_copy(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        made = set(pool.map(_take, [tmp_path] * 8))
    assert [path.name for path in tmp_path.iterdir()] == [path.name for path in made]


def test_a_copy_that_another_finished_meanwhile_is_taken(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process renames its copy into place just before this one would."""
    rename = os.rename

    def late(source: Path, folder: Path) -> None:
        shutil.copytree(source, folder)
        rename(source, folder)

    monkeypatch.setattr(snapshot.os, "rename", late)
    made = take(tmp_path / "copies")
    assert list((tmp_path / "copies").iterdir()) == [made]


def test_a_killed_or_failed_copy_leaves_nothing_that_looks_whole(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(snapshot.os, "fsync", full)
        with pytest.raises(BenchError, match="No space left on device"):
            take(tmp_path / "copies")
    assert list((tmp_path / "copies").iterdir()) == []
    assert take(tmp_path / "copies").is_dir()


@pytest.mark.parametrize("harm", ["changed", "added", "lost"])
def test_a_copy_that_was_tampered_with_is_refused(code: Path, tmp_path: Path, harm: str) -> None:
    made = take(tmp_path / "copies")
    victim = made / "bench" / "algorithms" / "erm.py"
    if harm == "changed":
        victim.chmod(0o644)
        victim.write_text("other")
    elif harm == "added":
        (victim.parent / "more.py").touch()
    else:
        victim.unlink()
    with pytest.raises(Conflict, match="was changed after it was taken"):
        take(tmp_path / "copies")


def test_compiled_files_are_no_tampering(copy: Path) -> None:
    python("import bench.version", copy, **environment(copy), PYTHONDONTWRITEBYTECODE="")
    assert list(copy.rglob("*.pyc"))
    snapshot._check(copy)


def test_the_version_of_the_copy_is_the_present_one(copy: Path) -> None:
    said = (copy / "bench" / SNAPSHOT_FILE).read_text().strip()
    assert said.partition("-")[0] == current_version().partition("-")[0]
    assert ("+g" in said) == (IN_CHECKOUT and "+g" in current_version())
