"""Pulumi programs, run whole: the program, an engine, and the provider's real process."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from osvdeploy.provider.values import UNKNOWN, Secret
from tests.alive import until
from tests.pulumi import probe
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
    assert (third.changes, third.step("app").paths) == ({"update": 1}, {"set.version": "UPDATE", "named": "UPDATE"})
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


def test_a_provider_that_is_not_known_yet(stack: MiniStack, tmp_path: Path) -> None:
    """In a preview a provider whose configuration is still to come is not asked, and what it would make is unknown."""
    (stack.folder / "__main__.py").write_text(
        PROGRAM
        + """
later = osvdeploy.Provider("later", cache_directory=image.path.apply(lambda path: path + ".cache"))
other = osvdeploy.Image("other", file="app", opts=pulumi.ResourceOptions(provider=later))
pulumi.export("other", other.digest)
"""
    )
    preview = stack.preview("__main__.py")
    assert (preview.errors, preview.changes) == ([], {"create": 2})
    assert preview.outputs["other"] is UNKNOWN
    report = stack.up("__main__.py")
    assert report.ok, report.said()
    assert report.outputs["other"] == report.outputs["digest"]
    assert stack.up("__main__.py").changes == {}


PROBING = """
import pulumi

class Probe(pulumi.CustomResource):
    shouted: pulumi.Output[str]

    def __init__(self, name, **told):
        super().__init__("osvdeploy:test:Probe", name, {**told, "shouted": None})

config = pulumi.Config()
it = Probe(
    "it", text=config.require("text"), halfway=config.get_bool("halfway"), wait=config.get_float("wait"),
    fixed=config.get("fixed"),
)
pulumi.export("shouted", it.shouted)
"""


@pytest.fixture
def probing(tmp_path: Path) -> MiniStack:
    """A program with the resource that does as it is told."""
    (tmp_path / "__main__.py").write_text(PROBING)
    return MiniStack(tmp_path, {"osvdeploy": probe.COMMAND}, config={"text": "hi"})


def test_half_done(probing: MiniStack) -> None:
    """What stopped half-way is recorded with the reasons, and worked on by the next up, whatever the program says."""
    assert probing.up("__main__.py").outputs == {"shouted": "HI"}

    probing.config |= {"text": "ho", "halfway": "true"}
    failed = probing.up("__main__.py")
    assert not failed.ok
    assert "half of it" in failed.said()
    left = probing.record("it")
    assert (left.inputs["text"], left.outputs["shouted"], left.init_errors) == ("hi", "HO", ["half of it, with None"])

    # Back to what it was before: the inputs are the recorded ones, and all the same it is not left half-done.
    probing.config |= {"text": "hi", "halfway": "false"}
    mended = probing.up("__main__.py")
    assert (mended.errors, mended.changes) == ([], {"update": 1})
    assert probing.record("it").init_errors == []
    assert probing.up("__main__.py").changes == {}


def test_interrupted(probing: MiniStack) -> None:
    """^C while it waits: what there is is recorded at once, and the next up goes on."""
    probing.config |= {"wait": "600", "halfway": "true"}
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(probing.up, "__main__.py")
        until(
            lambda: (
                probing.running is not None and any("waiting for" in each.text for each in probing.running.report.lines)
            )
        )
        probing.interrupt()
        report = running.result(60)
    assert not report.ok
    assert "interrupted" in report.said()
    assert (probing.record("it").id, probing.record("it").init_errors) == ("probe-1", ["interrupted"])

    probing.config |= {"wait": "0", "halfway": "false"}
    assert probing.up("__main__.py").changes == {"update": 1}


def test_replaced(probing: MiniStack) -> None:
    """What cannot be changed in place is replaced, here by deleting first, and the preview says so."""
    probing.up("__main__.py")
    probing.config["fixed"] = "x"
    preview = probing.preview("__main__.py")
    assert (preview.changes, preview.step("it").paths) == ({"replace": 1}, {"fixed": "ADD_REPLACE"})
    assert "it will shout" in preview.said()
    assert probing.up("__main__.py").changes == {"replace": 1}
    assert len([each for each in probing.records if each.type == "osvdeploy:test:Probe"]) == 1


def test_drift(probing: MiniStack) -> None:
    """A refresh reports what is otherwise than it was asked for, and the next up puts it right."""
    probing.config["text"] = "drift"
    probing.up("__main__.py")
    refreshed = probing.refresh()
    assert (refreshed.changes, refreshed.step("it").paths) == ({"refresh": 1}, {"tags.seen": "DELETE"})
    assert probing.up("__main__.py").step("it").paths == {"tags.seen": "DELETE"}
