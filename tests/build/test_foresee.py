"""What a build would give, before it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.context import Context
from osvdeploy.errors import FileTreeInvalid
from tests.pulumi.projects import app_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))
    return app_folder(tmp_path) / "app"


def test_is_what_the_build_gives(folder: Path) -> None:
    """The plan is the build's own, the image is there once it is built, and looking pins nothing."""
    loaded = api.load_spec(folder / "osv.toml")
    foreseen = api.foresee(Context(), loaded)
    assert foreseen.image is None
    assert not (folder / "osv.lock").exists()

    built = api.build(Context(), loaded)

    assert api.foresee(Context(), loaded) == api.Foreseen(built.plan, built.image)
    assert foreseen.plan == built.plan


def test_another_source_is_another_plan(folder: Path) -> None:
    """One byte in a file of the image, and it is another; without the file there is no plan."""
    loaded = api.load_spec(folder / "osv.toml")
    before = api.foresee(Context(), loaded)
    (folder / "app").write_bytes(b"another program")
    assert api.foresee(Context(), loaded).plan != before.plan
    (folder / "app").unlink()
    with pytest.raises(FileTreeInvalid):
        api.foresee(Context(), loaded)
