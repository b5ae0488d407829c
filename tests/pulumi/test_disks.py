"""A disk that an Image handed on, on this machine and on another."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.context import Context
from osvdeploy.errors import BuildError, UsageError
from osvdeploy.provider.disks import Disk, Recipe, disk_here
from tests.pulumi.projects import app_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))
    folder = app_folder(tmp_path)
    with contextlib.chdir(folder):
        yield folder


def handed_on(recipe: Recipe) -> Disk:
    image = api.build(Context(), recipe.load()).image
    return Disk(image.digest, str(image.path), "app", "1.0.0", recipe.written())


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(file="app"),
        Recipe(file="app/osv.toml", sets=("version=1.1.0",)),
        Recipe(
            spec={"name": "app", "version": "1.0.0", "kernel": {"file": "loader.img"}, "image": {"command": ["/app"]}},
            directory="app",
        ),
    ],
    ids=["folder", "file", "spec"],
)
def test_built_again(folder: Path, tmp_path: Path, recipe: Recipe) -> None:
    """Where the disk is gone, as on another machine, it is built again from what it was built from."""
    disk = handed_on(recipe)
    assert str(disk_here(Context(), disk).path) == disk.path
    shutil.rmtree(tmp_path / "cache")
    assert disk_here(Context(), disk).digest == disk.digest


def test_other_sources(folder: Path, tmp_path: Path) -> None:
    """A disk that is here is taken though its sources have changed; where it is not, another one is no substitute."""
    disk = handed_on(Recipe(file="app"))
    (folder / "app" / "app").write_bytes(b"another program")
    assert disk_here(Context(), disk).digest == disk.digest
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(BuildError, match="its sources now give"):
        disk_here(Context(), disk)


@pytest.mark.parametrize("text", ["", "[]", '{"set": 3}', "null"])
def test_no_recipe(text: str) -> None:
    """What no Image wrote is no recipe."""
    with pytest.raises(UsageError, match="none that an Image wrote"):
        Recipe.of(text)
