"""The same with Pulumi's own command: `pytest -m engine` with `pulumi` on PATH."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from osvdeploy.provider.schema import NAME
from tests.alive import lives, until
from tests.pulumi.cli import Cli, needs_pulumi
from tests.pulumi.projects import PROGRAM, app_folder

pytestmark = [pytest.mark.engine, pytest.mark.slow, needs_pulumi]

SCHEMA = Path(__file__).parents[2] / "osvdeploy" / "provider" / NAME
SDK = Path(__file__).parents[2] / "sdk" / "python"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    folder = app_folder(tmp_path)
    cli = Cli(folder, tmp_path / "pulumi", environ={"OSVDEPLOY_CACHE": str(tmp_path / "cache")})
    cli.project(PROGRAM)
    return cli


def test_schema_and_sdk(tmp_path: Path) -> None:
    """Pulumi's command finds nothing wrong with the schema, and the committed SDK is what its generator makes of it."""
    checked = subprocess.run(["pulumi", "schema", "check", SCHEMA], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    subprocess.run(
        ["pulumi", "package", "gen-sdk", SCHEMA, "--language", "python", "--out", tmp_path],
        check=True, capture_output=True,
    )  # fmt: skip
    made = {path.relative_to(tmp_path / "python"): path for path in (tmp_path / "python").rglob("*") if path.is_file()}
    for name, path in made.items():
        # What the generator writes of its own version, older or newer, is not ours.
        assert _without_versions(path) == _without_versions(SDK / name), f"{name}: `make sdk` makes it anew"


def _without_versions(path: Path) -> str:
    return re.sub(r"pulumi>=[0-9.]+", "pulumi", path.read_text())


def test_life(cli: Cli, tmp_path: Path) -> None:
    """Preview, up, nothing to do, a changed source, another version, a disk that is gone, refresh, destroy; with the
    exit codes that scripts go by."""
    preview = cli.run("preview")
    assert preview.code == 0, preview.text
    assert re.search(r"osvdeploy:index:Image +app +create", preview.text)
    assert cli.run("preview", "--expect-no-changes").code == 7

    up = cli.up()
    assert up.code == 0, up.text
    assert "$PATH" not in up.text, "a plugin that the project names is not warned of"
    digest = cli.output("digest")
    assert len(digest) == 64

    for command in (["preview"], ["up", "--yes"], ["refresh", "--yes"]):
        same = cli.run(*command, "--expect-no-changes")
        assert same.code == 0, same.text

    (cli.folder / "app" / "app").write_bytes(b"a better program")
    planned = cli.run("preview", "--diff")
    assert "~ osvdeploy:index:Image: (update)" in planned.text
    assert re.search(r"~ plan *: \"[0-9a-f]{64}\" => \"[0-9a-f]{64}\"", planned.text), planned.text
    assert cli.run("preview", "--expect-no-changes").code == 7
    assert cli.up().code == 0
    assert cli.output("digest") != digest

    assert cli.run("config", "set", "version", "1.1.0").code == 0
    assert cli.up().code == 0
    assert cli.output("version") == "1.1.0"

    shutil.rmtree(tmp_path / "cache")
    for command in (["refresh", "--yes"], ["preview"], ["up", "--yes"]):
        same = cli.run(*command, "--expect-no-changes")
        assert same.code == 0, same.text

    gone = cli.run("destroy", "--yes")
    assert gone.code == 0, gone.text
    assert "1 deleted" in gone.text or "2 deleted" in gone.text
    assert cli.run("preview", "--expect-no-changes").code == 7


def test_what_is_wrong(cli: Cli) -> None:
    """What is wrong with a program ends the preview with 1 and names the property; so does a build that fails."""
    (cli.folder / "__main__.py").write_text(PROGRAM.replace('file="app"', 'file="nowhere"'))
    failed = cli.run("preview")
    assert failed.code == 1
    assert "property file value {nowhere} has a problem: nowhere: cannot be read" in failed.text

    (cli.folder / "__main__.py").write_text(PROGRAM)
    (cli.folder / "app" / "app").unlink()
    planned = cli.run("preview")
    assert planned.code == 0, planned.text
    assert "not all there yet" in planned.text
    failed = cli.up()
    assert failed.code == 1
    assert "from = 'app': no such file or directory" in failed.text
    assert "corrupt" not in failed.text


def test_import(cli: Cli) -> None:
    """An Image is imported by its osv.toml, and the code that Pulumi prints for it is of one with no changes."""
    imported = cli.run("import", "osvdeploy:index:Image", "app", "app", "--yes", "--protect=false")
    assert imported.code == 0, imported.text
    assert 'file="app"' in imported.text
    (resource,) = [each for each in cli.export() if each["type"] == "osvdeploy:index:Image"]
    assert resource["inputs"]["file"] == "app"
    (cli.folder / "__main__.py").write_text(
        'import pulumi_osvdeploy as osvdeploy\n\nosvdeploy.Image("app", file="app")\n'
    )
    same = cli.run("preview", "--expect-no-changes")
    assert same.code == 0, same.text


def test_secrets(cli: Cli) -> None:
    """A secret in a spec is encrypted in the state, wherever it is, and shown nowhere."""
    (cli.folder / "__main__.py").write_text(
        PROGRAM.replace('file="app",', 'file="app",').replace(
            'set={"version": config.get("version") or "1.0.0"}',
            'set={"image.env.TOKEN": pulumi.Output.secret("hunter2-of-mine")}',
        )
    )
    up = cli.up()
    assert up.code == 0, up.text
    assert "hunter2" not in up.text
    assert "hunter2" not in json.dumps(cli.export())
    again = cli.run("preview", "--diff", "--expect-no-changes")
    assert again.code == 0, again.text


def test_killed(cli: Cli) -> None:
    """When the command is killed, the provider ends too."""
    (cli.folder / "__main__.py").write_text(
        f"import asyncio\n{PROGRAM}pulumi.export('never', image.version.apply(lambda _: asyncio.sleep(600)))\n"
    )
    command = subprocess.Popen(
        ["pulumi", "preview", "--non-interactive"], cwd=cli.folder, env=cli.environ,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    children: list[int] = []

    def started() -> bool:
        children[:] = _children(command.pid)
        return any("pulumi-resource-osvdeploy" in _command_line(each) for each in children)

    until(started, 60)
    time.sleep(0.5)  # Python starts: who ends before that cannot know whose child it was
    (provider,) = [each for each in children if "pulumi-resource-osvdeploy" in _command_line(each)]
    others = [each for each in children if each != provider]
    command.send_signal(signal.SIGKILL)
    command.wait()
    until(lambda: not lives(provider))
    for each in others:
        # The program's own host, which nobody ends.
        if lives(each):
            subprocess.run(["kill", "-9", str(each)], check=False)


def _children(pid: int) -> list[int]:
    found = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = each.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(each.parent.name))
    return [*found, *(below for child in found for below in _children(child))]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
