"""The demo, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from osvdeploy.demo.story import make_folder
from osvdeploy.errors import UsageError


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_story_ends_as_it_is_told(tmp_path: Path) -> None:
    """`osvdeploy demo` goes through every step, and ends with a table read from the run."""
    environ = {name: value for name, value in os.environ.items() if name != "OSV_KERNEL"}
    ran = subprocess.run(
        [sys.executable, "-m", "osvdeploy", "demo", "--dir", str(tmp_path / "demo"), "--json"],
        capture_output=True,
        text=True,
        env=environ,
        cwd=tmp_path,
        timeout=550,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    steps = {step["step"]: step for step in json.loads(ran.stdout)["steps"]}
    assert steps["deploy 1.2.0 (bad)"]["outcome"] == "rolled back"
    assert steps["rollback (warm)"]["mutating"] == 2, "the rule, and what was left taken away"
    assert "and 0 failures" in ran.stderr and "Traceback" not in ran.stderr


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """The demo empties only what an earlier demo made."""
    (tmp_path / "precious").touch()
    with pytest.raises(UsageError, match="is not empty"):
        make_folder(tmp_path)
    assert (tmp_path / "precious").exists()
    make_folder(tmp_path / "demo")
    (tmp_path / "demo" / "left over").touch()
    make_folder(tmp_path / "demo")
    assert not (tmp_path / "demo" / "left over").exists()
