"""The examples of Pulumi programs, as they stand, in the sandbox: by the small engine, and by Pulumi's own command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from osvdeploy.cloud import tags
from tests.examples.projects import EXAMPLES
from tests.pulumi.cli import Cli, needs_language, needs_pulumi
from tests.pulumi.engine import MODULES, MiniStack
from tests.pulumi.places import Place, client, needs_loopback, on_aws, on_google
from tests.pulumi.process import SCRIPT

pytestmark = [pytest.mark.slow, pytest.mark.sandbox, needs_loopback]

SOON = {"minReady": "0s", "bake": "0s", "capacity": "1"}
"""What a user takes time for."""


def program(name: str, tmp_path: Path) -> Path:
    """A copy of the example, without what its use has left in it."""
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns(".venv", "sdks", "node_modules", "bin"))
    return folder


def network(place: Place) -> dict[str, str]:
    """What the README of the one on AWS says to set, as its commands write it."""
    return {
        "listener": str(place.inputs["listenerArn"]),
        "subnets": json.dumps(place.inputs["subnetIds"]),
        "securityGroups": json.dumps(place.inputs["securityGroupIds"]),
        **SOON,
    }


def serves(place: Place, release: object, version: str) -> bool:
    return place.serving() == release and str(release).startswith(f"hello-{version}-")


def test_python(tmp_path: Path) -> None:
    """From hello's spec to traffic, with what it takes for granted and with what is set; the next release; back from
    the command line. The image that was replaced can be gone back to: it is retired, and goes with the service."""
    with on_aws(tmp_path / "place") as place:
        before, ec2 = place.held(), client(place, "ec2")
        folder = program("pulumi-python", tmp_path)
        stack = MiniStack(folder, {"osvdeploy": [SCRIPT]}, environ=place.environ, name="test")
        stack.config.update({key: value for key, value in network(place).items() if key not in SOON})
        make_hello(tmp_path, place.app("1.0.0"))
        planned = stack.preview("__main__.py")
        assert planned.ok and planned.changes == {"create": 3}, planned.said()

        def images() -> dict[str, set[str]]:
            found = ec2.describe_images(Owners=["self"])["Images"]
            return {each["Name"]: {tag["Key"] for tag in each["Tags"]} for each in found}

        def up(version: str) -> str:
            done = stack.up("__main__.py")
            assert done.ok, done.said()
            assert serves(place, done.outputs["release"], version) and done.outputs["url"] == place.url
            return str(done.outputs["release"])

        stack.config |= SOON
        first = up("1.0.0")
        stack.config |= {"app": str(place.app("1.1.0")), "version": "1.1.0"}
        second = up("1.1.0")
        assert tags.RETIRED in images()[first] and tags.RETIRED not in images()[second]
        assert place.run("rollback").code == 0
        assert place.serving() == first
        gone = stack.destroy()
        assert gone.ok, gone.said()
        assert (images(), place.held()) == ({}, before)
        assert ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def make_hello(folder: Path, built: Path) -> None:
    """The example that the programs name, as its Makefile leaves it."""
    shutil.copytree(EXAMPLES / "hello", folder / "hello", ignore=shutil.ignore_patterns("build"))
    (folder / "hello" / "build").mkdir()
    for name in ("hello", "loader.img"):
        shutil.copy(built / name, folder / "hello" / "build")


@pytest.mark.engine
@needs_pulumi
def test_python_with_pulumis_own_command(tmp_path: Path) -> None:
    """The same, where the program's environment is the one that the tests run in."""
    with on_aws(tmp_path / "place") as place:
        folder = program("pulumi-python", tmp_path)
        file = folder / "Pulumi.yaml"
        file.write_text(file.read_text().replace(".venv", sys.prefix))
        cli = Cli(folder, tmp_path / "pulumi", environ={**place.environ, "PYTHONPATH": MODULES})
        story(cli, place, network(place))


@pytest.mark.engine
@needs_pulumi
@needs_language("nodejs")
def test_typescript_with_pulumis_own_command(tmp_path: Path) -> None:
    """From `osvdeploy pulumi install` and `pulumi install` to traffic on Google."""
    with on_google(tmp_path / "place") as place:
        cli = installed("pulumi-typescript", tmp_path, place)
        needs_npm()
        done = cli.run("install")
        assert done.code == 0, done.text
        checked = subprocess.run(["npx", "tsc", "--noEmit"], cwd=cli.folder, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout
        given = {"bucket": "acme-images", "urlMap": str(place.inputs["urlMap"]), "zone": "europe-west1-b", **SOON}
        assert cli.run("stack", "init", "test").code == 0
        assert cli.run("config", "set", "osvdeploy:project", "acme-prod").code == 0
        story(cli, place, given)


@pytest.mark.engine
@needs_pulumi
@needs_language("yaml")
def test_yaml_with_pulumis_own_command(tmp_path: Path) -> None:
    """From `osvdeploy pulumi install` to an AMI; another version takes its place."""
    with on_aws(tmp_path / "place") as place:
        cli = installed("pulumi-yaml", tmp_path, place)
        assert cli.run("stack", "init", "test").code == 0
        is_well(cli)
        ec2 = client(place, "ec2")
        for version in ("1.0.0", "1.1.0"):
            configure(cli, {"app": str(place.app(version)), "version": version})
            done = cli.up()
            assert done.code == 0, done.text
            assert "$PATH" not in done.text
            (image,) = ec2.describe_images(ImageIds=[cli.output("ami")])["Images"]
            assert image["Name"] == cli.output("release") and image["Name"].startswith(f"hello-{version}-")
        assert cli.run("preview", "--expect-no-changes").code == 0
        gone = cli.run("destroy", "--yes", "--skip-preview")
        assert gone.code == 0, gone.text
        assert ec2.describe_images(Owners=["self"])["Images"] == []


def installed(name: str, tmp_path: Path, place: Place) -> Cli:
    """An example whose provider is in Pulumi's cache, by our own command, and found nowhere else."""
    ambient = {"PULUMI_IGNORE_AMBIENT_PLUGINS": "true", "PYTHONPATH": MODULES}
    cli = Cli(program(name, tmp_path), tmp_path / "pulumi", environ={**place.environ, **ambient})
    words = [sys.executable, "-m", "osvdeploy", "pulumi", "install"]
    subprocess.run(words, env=cli.environ, check=True, capture_output=True)
    return cli


def is_well(cli: Cli) -> None:
    """What a README says to ask after it was followed finds nothing missing."""
    words = [sys.executable, "-m", "osvdeploy", "pulumi", "doctor"]
    ran = subprocess.run(words, cwd=cli.folder, env=cli.environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert {line.split()[0] for line in ran.stdout.splitlines() if not line.startswith(" ")} <= {"ok", "skipped"}


def needs_npm() -> None:
    """Skip where Pulumi's package for Node.js cannot be had."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not here")
    asked = subprocess.run(["npm", "view", "@pulumi/pulumi", "version"], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"no registry of npm in reach: {asked.stderr.strip()[:200]}")


def configure(cli: Cli, given: dict[str, str]) -> None:
    for key, value in given.items():
        if value.startswith("["):
            for number, each in enumerate(json.loads(value)):
                assert cli.run("config", "set", "--path", f"{key}[{number}]", each).code == 0
        else:
            assert cli.run("config", "set", key, value).code == 0


def story(cli: Cli, place: Place, given: dict[str, str]) -> None:
    """A first release and a second, a rollback that is respected, and the end."""
    before = place.held()
    if cli.run("stack", "select", "test").code:
        assert cli.run("stack", "init", "test").code == 0
    configure(cli, given)
    is_well(cli)
    for version in ("1.0.0", "1.1.0"):
        configure(cli, {"app": str(place.app(version)), "version": version})
        done = cli.up()
        assert done.code == 0, done.text
        assert "$PATH" not in done.text
        assert serves(place, cli.output("release"), version)
    assert place.run("rollback").code == 0
    held = cli.run("up", "--yes", "--skip-preview", "--expect-no-changes")
    assert held.code == 0 and "is held since" in held.text
    gone = cli.run("destroy", "--yes", "--skip-preview")
    assert gone.code == 0, gone.text
    assert place.held() == before


@pytest.mark.parametrize("name", ["pulumi-python", "pulumi-typescript", "pulumi-yaml"])
def test_the_readme_names_what_the_program_asks_for(name: str) -> None:
    """Each key that a program cannot do without is set by a line of its README; each file that it names is there."""
    folder = EXAMPLES / name
    readme = (folder / "README.md").read_text()
    (source,) = [folder / each for each in ("__main__.py", "index.ts") if (folder / each).exists()] or [
        folder / "Pulumi.yaml"
    ]
    for key in re.findall(r"config\.(?:require|require_object|getObject<.*?>)\(\"(\w+)\"", source.read_text()):
        assert re.search(rf"pulumi config set (--path ')?{key}\b", readme), key
    for path in re.findall(r"\]\((\.\.?/[\w./-]+)\)", readme):
        assert (folder / path).exists(), path
    assert os.access(EXAMPLES / "hello" / "Makefile", os.R_OK)
