"""The three ways to have CLIPBed, wheel, checkout and another folder, beside the libraries that share its names."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, cwd: Path, *path: Path) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked as an installer would."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    site = out / "site"
    with zipfile.ZipFile(next(out.glob("*.whl"))) as file:
        file.extractall(site)
    return site


LIST = (
    "from bench.registry import algorithms, datasets; print(*algorithms, *datasets, algorithms.broken, datasets.broken)"
)


@pytest.mark.slow
def test_the_wheel_holds_the_plug_ins_and_nothing_at_the_top(wheel: Path, tmp_path: Path) -> None:
    tops = {path.name for path in wheel.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"bench"}
    out = python(LIST, tmp_path, wheel)
    assert "CLIPood" in out and "Icons" in out and "PACS" in out and out.strip().endswith("{} {}")
    numbers = "from bench import reference; print(len(reference.read_references(reference.FOLDER)))"
    assert int(python(numbers, tmp_path, wheel)) == int(python(numbers, ROOT, ROOT)) > 0
    code = (
        "from bench.models import load_backbone; from bench.spec import Places\n"
        "print(load_backbone('tiny', 'embedded', Places()).digest)"
    )
    assert python(code, tmp_path, wheel) == python(code, ROOT, ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["checkout", "elsewhere"])
def test_other_libraries_do_not_take_our_folders_for_theirs(tmp_path: Path, place: str) -> None:
    code = (
        "import bench, importlib.util as u\n"
        "for name in ('datasets', 'algorithms'):\n"
        "    try: found = u.find_spec(name)\n"
        "    except (ValueError, ModuleNotFoundError): found = None\n"
        "    assert found is None, (name, found)\n"
        "import timm, open_clip\n"
        "if u.find_spec('transformers'):\n"
        "    from transformers.utils import is_datasets_available\n"
        "    assert not is_datasets_available()\n"
    ) + LIST
    assert "CLIPood" in python(code, ROOT if place == "checkout" else tmp_path, ROOT)


@pytest.mark.slow
def test_a_real_datasets_library_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "site" / "datasets").mkdir(parents=True)
    (tmp_path / "site" / "datasets" / "__init__.py").write_text("whose = 'theirs'\n")
    code = "import bench, datasets; print(datasets.whose); " + LIST
    for path in ((tmp_path / "site", ROOT), (ROOT, tmp_path / "site")):
        out = python(code, tmp_path, *path)
        assert out.startswith("theirs") and "CLIPood" in out


@pytest.mark.parametrize(
    "code",
    [
        "import bench.collect",
        "import bench.registry as r; list(r.algorithms), list(r.datasets), list(r.protocols), list(r.backbones)",
        "import bench.status",
    ],
)
def test_light_commands_import_neither_torch_nor_pandas(code: str) -> None:
    check = "; import sys; print(sorted({'torch', 'pandas', 'open_clip', 'scipy.stats'} & set(sys.modules)))"
    assert python(code + check, ROOT, ROOT).strip() == "[]"
