"""The version of the code, in real git repositories made for the test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench._paths import PACKAGE

Version = Callable[[], str]
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A committed checkout with no more of the package than its version needs."""
    root = tmp_path / "checkout"
    for folder in ("bench", "algorithms", "datasets", "docs"):
        (root / folder).mkdir(parents=True)
    for name in ("__init__.py", "_paths.py", "version.py"):
        shutil.copy(PACKAGE / name, root / "bench" / name)
    for path in ("pyproject.toml", "algorithms/erm.py", "datasets/names.json", "docs/page.md"):
        (root / path).write_text("# one\n")
    (root / ".gitignore").write_text("__pycache__/\nlocal.py\n")
    commit(root)
    return root


def commit(root: Path) -> None:
    if not (root / ".git").exists():
        git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "a")


def version(root: Path) -> str:
    code = "from bench.version import code_version; print(code_version())"
    env = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root.parent, env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_clean_checkout_has_version_and_commit(checkout: Path) -> None:
    assert re.fullmatch(r"[\d.]+\+g[0-9a-f]{10}", version(checkout))


def test_what_is_no_code_leaves_it_clean(checkout: Path) -> None:
    clean = version(checkout)
    (checkout / "docs" / "page.md").write_text("# two\n")
    (checkout / "algorithms" / "notes.txt").touch()
    (checkout / "algorithms" / "local.py").touch()  # ignored by git
    os.utime(checkout / "algorithms" / "erm.py", (1, 1))  # the same bytes at another time
    assert version(checkout) == clean


def test_different_changes_have_different_digits_and_equal_ones_equal(checkout: Path) -> None:
    clean, erm = version(checkout), checkout / "algorithms" / "erm.py"

    def change(path: str, text: str | None) -> str:
        file = checkout / path
        before = file.read_text() if file.exists() else None
        file.unlink() if text is None else file.write_text(text)
        try:
            return version(checkout)
        finally:
            file.unlink(missing_ok=True)
            if before is not None:
                file.write_text(before)

    seen = [
        change("algorithms/erm.py", "# two\n"),
        change("algorithms/erm.py", "# three\n"),
        change("algorithms/erm.py", None),
        change("algorithms/new.py", "# two\n"),
        change("algorithms/new.py", ""),
        change("bench/new one.py", "# two\n"),
        change("datasets/names.json", "# two\n"),
    ]
    assert all(re.fullmatch(re.escape(clean) + r"-dirty\.[0-9a-f]{8}", each) for each in seen)
    assert len(set(seen)) == len(seen)
    assert change("algorithms/erm.py", "# two\n") == seen[0]
    erm.write_text("# two\n")
    git(checkout, "add", "-A")
    assert version(checkout) == seen[0]  # staged or not
    commit(checkout)
    assert "dirty" not in version(checkout)


def rename(checkout: Path) -> None:
    git(checkout, "mv", "algorithms/erm.py", "algorithms/another name.py")


def take_out(checkout: Path) -> None:
    git(checkout, "rm", "-q", "--cached", "algorithms/erm.py")


def leave_unmerged(checkout: Path) -> None:
    for branch in ("left", "right"):
        git(checkout, "checkout", "-q", "-b", branch, "HEAD" if branch == "left" else "HEAD~1")
        (checkout / "algorithms/erm.py").write_text(f"# {branch}\n")
        git(checkout, "commit", "-q", "-a", "-m", branch)
    with pytest.raises(subprocess.CalledProcessError):
        git(checkout, "merge", "-q", "left")


@pytest.mark.parametrize("change", [rename, take_out, leave_unmerged])
@pytest.mark.parametrize("is_inside", [False, True])
def test_whatever_git_calls_a_change_its_content_counts(
    checkout: Path, change: Callable[[Path], None], is_inside: bool
) -> None:
    if is_inside:
        larger = checkout.parent / "larger"
        larger.mkdir()
        shutil.rmtree(checkout / ".git")
        checkout = checkout.rename(larger / "checkout")
        commit(larger)
    change(checkout)
    seen = set()
    for content in ("# a\n", "# b\n"):
        for path in (checkout / "algorithms").iterdir():
            path.write_text(content)
        seen.add(version(checkout))
    assert len(seen) == 2 and all("-dirty." in each for each in seen)


def test_a_checkout_inside_a_larger_repository_sees_its_own_changes(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    commit(checkout.parent)
    clean = version(checkout)
    (checkout.parent / "algorithms").mkdir()
    (checkout.parent / "algorithms" / "theirs.py").touch()
    assert version(checkout) == clean
    (checkout / "algorithms" / "erm.py").write_text("# two\n")
    first = version(checkout)
    (checkout / "algorithms" / "erm.py").write_text("# three\n")
    assert first.startswith(f"{clean}-dirty.") and version(checkout) != first


def test_asking_writes_nothing_into_the_repository(checkout: Path) -> None:
    os.utime(checkout / "algorithms" / "erm.py", (1, 1))
    index = (checkout / ".git" / "index").read_bytes()
    version(checkout)
    assert (checkout / ".git" / "index").read_bytes() == index


def test_without_a_repository_or_in_a_wheel_it_is_the_bare_version(checkout: Path) -> None:
    bare = version(checkout).partition("+")[0]
    (checkout / "pyproject.toml").rename(checkout / "pyproject.off")
    assert version(checkout) == bare
    (checkout / "pyproject.off").rename(checkout / "pyproject.toml")
    shutil.rmtree(checkout / ".git")
    assert version(checkout) == bare


def test_a_snapshot_says_what_it_was_taken_from(checkout: Path) -> None:
    (checkout / "bench" / "snapshot.txt").write_text("9.9+gabc-dirty.12345678\n")
    assert version(checkout) == "9.9+gabc-dirty.12345678"
