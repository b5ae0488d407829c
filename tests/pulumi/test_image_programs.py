"""Programs with an Image and the images of its release in both clouds, run whole against the sandbox."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from osvdeploy.provider.values import UNKNOWN
from tests.pulumi.cli import Cli, needs_pulumi
from tests.pulumi.clouds import clouds
from tests.pulumi.engine import MODULES, MiniStack
from tests.pulumi.process import SCRIPT

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

PROGRAM = """
import pulumi
import pulumi_osvdeploy as osvdeploy

config = pulumi.Config()
image = osvdeploy.Image("app", file="app", set={"version": config.get("version") or "1.0.0"})
tags = {"team": config.get("team") or "a"}
ami = osvdeploy.aws.Ami("ami", disk=image.disk, env={"DATABASE_HOST": "db.eu"}, tags=tags)
boot = osvdeploy.gcp.Image("boot", disk=image.disk, bucket="acme-images")
pulumi.export("ami", ami.id)
pulumi.export("release", ami.release)
pulumi.export("boot", boot.self_link)
"""


def test_a_whole_life(tmp_path: Path) -> None:
    """Preview, up, nothing to do, tags in place, another version in place of the first, refresh, destroy: nothing is
    left."""
    with clouds(tmp_path) as world:
        stack = MiniStack(world.folder, {"osvdeploy": [SCRIPT]}, environ=dict(world.environ))
        (stack.folder / "__main__.py").write_text(PROGRAM)
        preview = stack.preview("__main__.py")
        assert (preview.errors, preview.changes) == ([], {"create": 3})
        assert preview.outputs == {"ami": UNKNOWN, "release": UNKNOWN, "boot": UNKNOWN}

        first = stack.up("__main__.py")
        assert (first.errors, first.changes) == ([], {"create": 3})
        assert world.amis()[str(first.outputs["release"])]["ImageId"] == first.outputs["ami"]
        assert stack.up("__main__.py").changes == {}

        stack.config["team"] = "b"
        tagged = stack.up("__main__.py")
        assert (tagged.changes, tagged.step("ami").paths) == ({"update": 1}, {"tags.team": "UPDATE"})

        stack.config["version"] = "1.1.0"
        replaced = {"update": 1, "replace": 2, "delete": 2}
        preview = stack.preview("__main__.py")
        assert (preview.errors, preview.changes) == ([], replaced)
        second = stack.up("__main__.py")
        assert (second.errors, second.changes) == ([], replaced)
        assert preview.outputs["release"] == second.outputs["release"], "the same bytes were built before"
        assert set(world.amis()) == {"app-1.1.0", second.outputs["release"]}
        assert len(world.google()) == 2

        refreshed = stack.refresh()
        assert (refreshed.errors, refreshed.changes) == ([], {})
        assert stack.up("__main__.py").changes == {}

        gone = stack.destroy()
        assert (gone.errors, gone.changes) == ([], {"delete": 3})
        assert (world.amis(), world.snapshots(), world.google()) == ({}, set(), {})


@pytest.mark.engine
@needs_pulumi
def test_with_pulumis_own_command(tmp_path: Path) -> None:
    """The same, with the exit codes that scripts go by; and what is there is imported by its id, variables and all."""
    with clouds(tmp_path) as world:
        cli = Cli(world.folder, tmp_path / "pulumi", environ={**world.environ, "PYTHONPATH": MODULES})
        cli.project(PROGRAM)
        up = cli.up()
        assert up.code == 0, up.text
        first = cli.output("release")
        assert cli.run("preview", "--expect-no-changes").code == 0
        assert cli.run("config", "set", "version", "1.1.0").code == 0
        preview = cli.run("preview")
        assert re.search(r"osvdeploy:aws:Ami +ami +replace", preview.text), preview.text
        up = cli.up()
        assert up.code == 0, up.text
        assert set(world.amis()) == {"app-1.1.0", cli.output("release")} and first not in world.amis()
        assert cli.run("up", "--yes", "--skip-preview", "--expect-no-changes").code == 0

        ami, taken = cli.output("ami"), tmp_path / "taken.py"
        ran = cli.run("import", "osvdeploy:aws:Ami", "taken", ami, "--yes", "--skip-preview", "--out", str(taken))
        assert ran.code == 0, ran.text
        assert "db.eu" in taken.read_text()
        assert cli.run("state", "unprotect", "--all", "--yes").code == 0
        gone = cli.run("destroy", "--yes", "--skip-preview")
        assert gone.code == 0, gone.text
        assert (world.amis(), world.snapshots(), world.google()) == ({}, set(), {})
