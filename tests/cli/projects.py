"""A project that an image can be built of, for tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import osvdeploy
from tests.osv.images import LZLOADER, loader_image

SPEC = """\
name = "app"
version = "1.0.0"
[kernel]
file = "loader.img"
[image]
command = ["/app"]
[[files]]
from = "app"
to = "/app"
"""


def built_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its folder; it was built once, into a cache of its own."""
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OSVDEPLOY_STATE", str(tmp_path / "state"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "loader.img").write_bytes(loader_image(payload=LZLOADER))
    (folder / "osv.toml").write_text(SPEC)
    (folder / "app").write_bytes(b"a program")
    assert osvdeploy("build", folder=folder).code == 0
    return folder
