"""Pulumi programs, run whole: the program, an engine, and the provider's real process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from osvdeploy.provider.values import UNKNOWN, Secret
from tests.pulumi.engine import MiniStack
from tests.pulumi.process import SCRIPT
from tests.pulumi.projects import PROGRAM, app_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def stack(tmp_path: Path) -> MiniStack:
    """A project with an app and a program that builds it."""
    folder = app_folder(tmp_path)
    (folder / "__main__.py").write_text(PROGRAM)
    return MiniStack(folder, {"osvdeploy": [SCRIPT]}, environ={"OSVDEPLOY_CACHE": str(tmp_path / "cache")})


def test_image(stack: MiniStack, tmp_path: Path) -> None:
    """A program with an Image: preview, up, nothing to do, a changed source, another version, refresh, destroy."""
    preview = stack.preview("__main__.py")
    assert (preview.errors, preview.changes) == ([], {"create": 1})
    assert preview.outputs == {"digest": UNKNOWN, "version": "1.0.0", "where": UNKNOWN}
    assert not stack.records

    first = stack.up("__main__.py")
    assert (first.errors, first.changes) == ([], {"create": 1})
    assert first.outputs["version"] == "1.0.0"
    assert Path(str(first.outputs["where"])).stat().st_size == 1 << 30

    for again in (stack.preview("__main__.py"), stack.up("__main__.py")):
        assert (again.errors, again.changes, again.outputs) == ([], {}, first.outputs)

    (stack.folder / "app" / "app").write_bytes(b"a better program")
    preview = stack.preview("__main__.py")
    assert (preview.changes, preview.step("app").paths) == ({"update": 1}, {"plan": "UPDATE"})
    second = stack.up("__main__.py")
    assert second.changes == {"update": 1}
    assert second.outputs["digest"] != first.outputs["digest"]

    stack.config["version"] = "1.1.0"
    third = stack.up("__main__.py")
    assert (third.changes, third.step("app").paths) == ({"update": 1}, {"set.version": "UPDATE"})
    assert (third.outputs["version"], third.outputs["digest"]) == ("1.1.0", second.outputs["digest"])

    shutil.rmtree(tmp_path / "cache")
    refreshed = stack.refresh()
    assert (refreshed.errors, refreshed.changes) == ([], {})
    assert stack.up("__main__.py").changes == {}

    gone = stack.destroy()
    assert (gone.errors, gone.changes) == ([], {"delete": 1})
    assert stack.records == []


def test_what_is_wrong(stack: MiniStack) -> None:
    """What is wrong with a program fails the preview, and names the property."""
    (stack.folder / "__main__.py").write_text(PROGRAM.replace('file="app"', 'file="nowhere"'))
    report = stack.preview("__main__.py")
    assert not report.ok
    assert "property file: nowhere: cannot be read" in report.said()
    assert "Traceback" not in report.said()


def test_secrets(stack: MiniStack) -> None:
    """A secret in a spec is nowhere in clear: not in the state's outputs, nor in any line."""
    (stack.folder / "__main__.py").write_text(
        """
import pulumi
import pulumi_osvdeploy as osvdeploy

image = osvdeploy.Image(
    "app",
    directory="app",
    spec={
        "name": "app",
        "version": "1.0.0",
        "kernel": {"file": "loader.img"},
        "image": {"command": ["/app"], "env": {"TOKEN": pulumi.Output.secret("hunter2-of-mine")}},
        "files": [{"from": "app", "to": "/app"}],
    },
)
pulumi.export("recipe", image.disk.recipe)
"""
    )
    report = stack.up("__main__.py")
    assert report.ok, report.said()
    assert isinstance(report.outputs["recipe"], Secret)
    assert "hunter2" not in report.said() + report.program
    assert stack.up("__main__.py").changes == {}


def test_explicit_provider(stack: MiniStack, tmp_path: Path) -> None:
    """A provider of the program's own has its configuration, of which nothing comes from the environment; one whose
    configuration is not known yet is not asked."""
    other = tmp_path / "other"
    (stack.folder / "__main__.py").write_text(
        PROGRAM.replace(
            '    file="app",',
            f"""    opts=pulumi.ResourceOptions(provider=osvdeploy.Provider("mine", cache_directory={str(other)!r})),
    file="app",""",
        )
    )
    report = stack.up("__main__.py")
    assert report.ok, report.said()
    assert str(report.outputs["where"]).startswith(str(other))
    assert set(stack.record("mine").inputs) == {"cacheDirectory", "version"}
    assert stack.up("__main__.py").changes == {}
    assert stack.destroy().changes == {"delete": 1}
