"""The examples as a user has them: a copy of the folder, its kernel, and what its Makefile makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.build.builder import BuildResult, build
from osvdeploy.build.cache import BuildCache
from osvdeploy.context import Context
from osvdeploy.events import Recorder

EXAMPLES = Path(__file__).parents[2] / "examples"

INTERPRETERS = tuple(
    dict.fromkeys(
        os.path.realpath(path)
        for path in ("/usr/bin/python3", "/usr/local/bin/python3", sys.executable)
        if Path(path).exists()
    )
)
"""Pythons of this machine: its own and the one that runs the tests."""


def copy_of(name: str, folder: Path, kernel: Path) -> Path:
    """The example in ``folder``, with ``kernel`` where its osv.toml wants it."""
    target = folder / name
    shutil.copytree(EXAMPLES / name, target, ignore=shutil.ignore_patterns("build", "osv.lock"))
    (target / "build").mkdir()
    shutil.copy(kernel, target / "build" / "loader.img")
    return target


def built(example: Path, cache: Path, *sets: str) -> BuildResult:
    loaded = api.load_spec(example / "osv.toml", sets=sets)
    return build(Context(reporter=Recorder()), api.image_inputs(loaded), BuildCache(cache))


def make_static_go(example: Path) -> None:
    """Run its Makefile; skips where a tool is missing, and says which."""
    for tool in ("go", "make", "objcopy"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here, and examples/static-go is made with it")
    made = subprocess.run(["make"], cwd=example, capture_output=True, text=True, timeout=240)
    assert made.returncode == 0, made.stderr


def needs_index(interpreter: str) -> None:
    """Skip where the example's requirements cannot be installed: no pip, or no index to get a wheel from."""
    if subprocess.run([interpreter, "-m", "pip", "--version"], capture_output=True).returncode and not shutil.which(
        "uv"
    ):
        pytest.skip(f"{interpreter} has no pip, and uv is not here")
