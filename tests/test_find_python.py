"""scripts/find-python: with which Python everything is set up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "scripts" / "find-python"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bin"


def python(folder: Path, name: str, took: int | None) -> str:
    """A Python that takes so long, in microseconds; None for one that has no venv."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    answer = 'case "$2" in *venv*) exit 1 ;; esac' if took is None else f'echo "{took} $0"'
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    return str(path)


def found(*path: Path) -> str:
    environ = {"PATH": ":".join(map(str, path))}
    return subprocess.run([SCRIPT], env=environ, capture_output=True, text=True, check=True).stdout.strip()


def test_the_newest_is_taken_of_those_that_are_about_as_quick(folder: Path) -> None:
    """What a measurement is off by decides nothing."""
    python(folder, "python3.11", 900)
    newest = python(folder, "python3.13", 1000)
    assert found(folder) == newest


def test_one_that_is_clearly_quicker_is_taken_wherever_it_stands(folder: Path, tmp_path: Path) -> None:
    """Behind another of the same name, too."""
    python(folder, "python3.13", 2000)
    python(folder, "python3.11", 2000)
    quicker = python(tmp_path / "system", "python3.11", 1000)
    assert found(folder, tmp_path / "system") == quicker


def test_one_without_venv_is_named_where_there_is_no_other(folder: Path) -> None:
    """For the error that says what to install."""
    lacking = python(folder, "python3.12", None)
    assert found(folder) == lacking
    slow = python(folder, "python3.11", 9000)
    assert found(folder) == slow


def test_where_there_is_none_nothing_is_said(folder: Path) -> None:
    """Nor of what is no Python, or too old a one."""
    assert found(folder) == ""
    folder.mkdir()
    (folder / "python3").write_text("#!/bin/sh\nexit 1\n")
    (folder / "python3").chmod(0o755)
    assert found(folder) == ""


def test_the_one_that_runs_this_would_do() -> None:
    """Real ones are measured, too."""
    here = Path(sys.base_prefix) / "bin"
    assert Path(found(here)).resolve().parent == here.resolve()
