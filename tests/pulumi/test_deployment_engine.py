"""The same with Pulumi's own command, on AWS: `pytest -m engine` with `pulumi` on PATH."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context
from osvdeploy.rollout import lease
from osvdeploy.rollout.ledger import Ledger
from osvdeploy.rollout.model import Stage
from tests.alive import until
from tests.pulumi.cli import Cli, Ran, needs_pulumi
from tests.pulumi.places import Place, move_traffic, needs_loopback, on_aws
from tests.pulumi.projects import DEPLOYMENT_AWS

pytestmark = [pytest.mark.engine, pytest.mark.slow, needs_pulumi, needs_loopback]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with on_aws(tmp_path_factory.mktemp("place")) as place:
        yield place


@pytest.fixture
def cli(tmp_path: Path, place: Place) -> Cli:
    folder = tmp_path / "program"
    folder.mkdir()
    cli = Cli(folder, tmp_path / "pulumi", environ=place.environ)
    cli.project(DEPLOYMENT_AWS)
    assert cli.run("config", "set", "network", json.dumps(dict(place.inputs))).code == 0
    return cli


def wants(cli: Cli, place: Place, version: str) -> None:
    assert cli.run("config", "set", "image", place.image(version)).code == 0


def up(cli: Cli, place: Place, version: str) -> Ran:
    wants(cli, place, version)
    return cli.up()


def serves(cli: Cli, place: Place, version: str) -> None:
    """A client gets that version's answers, the stack says so, and there is nothing more to do."""
    assert (place.serving() or "").startswith(f"hello-{version}-")
    same = cli.run("up", "--yes", "--expect-no-changes")
    assert same.code == 0, same.text
    assert cli.output("release").startswith(f"hello-{version}-")


def test_story(cli: Cli, place: Place) -> None:
    """A first release, a second, a bad one, back from the command line, a hold, a third, traffic moved by hand, an
    interruption, somebody else at work, the end: with the exit codes that scripts go by."""
    before = place.held()
    wants(cli, place, "1.0.0")
    planned = cli.run("preview")
    assert planned.code == 0, planned.text
    assert "in blue, then send it all traffic" in planned.text
    done = cli.up()
    assert done.code == 0, done.text
    serves(cli, place, "1.0.0")

    wants(cli, place, "1.1.0")
    planned = cli.run("preview", "--diff", "--expect-no-changes")
    assert planned.code == 7, planned.text
    assert "switch blue -> green (hello-1.0.0-" in planned.text
    assert "~ osvdeploy:aws:BlueGreenDeployment: (update)" in planned.text
    done = cli.up()
    assert done.code == 0, done.text
    serves(cli, place, "1.1.0")

    failed = up(cli, place, "1.3.0")
    assert failed.code == 1
    assert "HELLO_GREETING is not set" in failed.text and "corrupt" not in failed.text
    assert (place.serving() or "").startswith("hello-1.1.0-")

    wants(cli, place, "1.1.0")
    assert place.run("rollback").code == 0
    held = cli.run("preview", "--expect-no-changes")
    assert held.code == 0, held.text
    assert held.text.partition("Diagnostics:")[2].count("is held since") == 1, held.text
    assert "osvdeploy unhold hello/test" in held.text
    serves(cli, place, "1.0.0")
    assert place.run("unhold").code == 0
    done = cli.up()
    assert done.code == 0, done.text
    serves(cli, place, "1.1.0")

    move_traffic(place, 50, 50)
    drifted = cli.run("preview", "--diff")
    assert drifted.code == 0, drifted.text
    assert "serves, but the weights are blue 50, green 50" in drifted.text
    assert "put traffic right" in drifted.text
    done = cli.up()
    assert done.code == 0, done.text
    serves(cli, place, "1.1.0")

    ledger, ctx = Ledger(DirectoryStore(place.ledger), "hello", "test"), Context()
    assert cli.run("config", "set", "bake", "3s").code == 0
    wants(cli, place, "1.4.0")
    command = begun(cli, ledger, Stage.BAKE)
    command.send_signal(signal.SIGINT)
    told, _ = command.communicate(timeout=60)
    assert command.returncode == 1, told
    assert "left in stage bake" in told
    reverted = cli.run("preview")
    assert "unhealthy" in reverted.text and "go on with the unfinished deploy" in reverted.text
    done = cli.up()
    assert done.code == 0, done.text
    serves(cli, place, "1.4.0")

    with lease.held(ctx, ledger, "a test"):
        refused = up(cli, place, "1.0.0")
    assert refused.code == 1
    assert f"process {ctx.process.pid} of {ctx.process.user}" in refused.text and "corrupt" not in refused.text

    assert cli.run("state", "delete", f"urn:pulumi:dev::project::{place.token}::hello", "--yes").code == 0
    wants(cli, place, "1.4.0")
    imported = cli.run("import", place.token, "hello", f"hello/test@{place.ledger}", "--yes", "--protect=false")
    assert imported.code == 0, imported.text
    serves(cli, place, "1.4.0")

    gone = cli.run("destroy", "--yes")
    assert gone.code == 0, gone.text
    assert place.held() == before


def begun(cli: Cli, ledger: Ledger, stage: Stage) -> subprocess.Popen[str]:
    """`pulumi up`, once its rollout is in a stage."""
    command = subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive"], cwd=cli.folder, env=cli.environ,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    ctx = Context()

    def there() -> bool:
        head = ledger.head(ctx)
        return head is not None and head.unfinished is not None and head.unfinished.stage is stage

    until(there, 60)
    return command


def resource(cli: Cli, place: Place) -> dict[str, Any]:
    (found,) = [each for each in cli.export() if each["type"] == place.token]
    return found


def test_a_first_release_that_fails(cli: Cli, place: Place) -> None:
    """What was made is in the state with the reason, so that another image, or `destroy`, goes on from there."""
    before = place.held()
    failed = up(cli, place, "1.3.0")
    assert failed.code == 1
    assert "HELLO_GREETING is not set" in failed.text and "corrupt" not in failed.text
    made = resource(cli, place)
    assert "HELLO_GREETING is not set" in json.dumps(made["initErrors"])

    gone = cli.run("destroy", "--yes", "--skip-preview")
    assert gone.code == 0, gone.text
    assert place.held() == before

    assert up(cli, place, "1.3.0").code == 1
    done = up(cli, place, "1.0.0")
    assert done.code == 0, done.text
    serves(cli, place, "1.0.0")
    assert "initErrors" not in resource(cli, place)
    gone = cli.run("destroy", "--yes", "--skip-preview")
    assert gone.code == 0, gone.text
    assert place.held() == before


def test_a_person_is_waited_for(cli: Cli, place: Place) -> None:
    """A canary that asks for approval fails the `up` with what to type, and so does the next one, and a preview of
    another image. What the command line went on with is no change any more; what it ended would be tried again."""
    strategy = {"kind": "canary", "steps": [{"weight": 5, "approve": True}, {"weight": 50}], "onFailure": "pause"}
    assert cli.run("config", "set", "strategy", json.dumps(strategy)).code == 0
    done = up(cli, place, "1.0.0")
    assert done.code == 0, done.text
    wants(cli, place, "1.1.0")
    planned = cli.run("preview")
    assert "switch blue -> green by 5 % (approval), 50 % (hello-1.0.0-" in planned.text
    where = f"hello/test --ledger {place.ledger}"
    for _ in range(2):
        waits = cli.up()
        assert waits.code == 1 and "corrupt" not in waits.text
        assert f"`osvdeploy approve {where}` lets it go on, `osvdeploy abort {where}` ends it" in waits.text
    assert "waits: approval to go on from 5 %" in cli.run("preview").text
    wants(cli, place, "1.4.0")
    planned = cli.run("preview")
    assert planned.code == 1 and "the deploy of hello-1.1.0-" in planned.text, planned.text
    assert place.run("approve").code == 0
    wants(cli, place, "1.1.0")
    serves(cli, place, "1.1.0")

    waits = up(cli, place, "1.4.0")
    assert waits.code == 1 and "waits: approval" in waits.text
    assert place.run("abort").code == 0
    again = cli.run("preview")
    assert "by 5 % (approval), 50 % (hello-1.1.0-" in again.text, again.text
    wants(cli, place, "1.1.0")
    serves(cli, place, "1.1.0")
    gone = cli.run("destroy", "--yes", "--skip-preview")
    assert gone.code == 0, gone.text


def test_gates_and_hooks_come_back(cli: Cli, place: Place) -> None:
    """An import writes the gates and hooks that a release was deployed with into the program, which is no change then.
    What cannot be is refused at its property."""
    strategy = {"kind": "canary", "steps": [{"weight": 10, "bake": "1m"}]}
    wrong = {"command": ["true", "{{release}}"], "max": 1, "interval": "15s"}
    errors = {"cloudwatch": "HTTPCode_Target_5XX_Count", "per": "RequestCount", "against": "stable", "maxRatio": 1.5}
    gates: list[dict[str, Any]] = [{"name": "wrong", "metric": wrong}, {"metric": errors, "dryRun": True}]

    def wants_gates() -> None:
        assert cli.run("config", "set", "gates", json.dumps(gates)).code == 0

    assert cli.run("config", "set", "strategy", json.dumps(strategy)).code == 0
    wants_gates()
    hooks = [{"name": "page", "on": ["revert"], "url": "http://127.0.0.1:9/", "onFailure": "warn"}]
    assert cli.run("config", "set", "hooks", json.dumps(hooks)).code == 0
    done = up(cli, place, "1.0.0")
    assert done.code == 0, done.text
    wants(cli, place, "1.1.0")
    planned = cli.run("preview")
    assert "; gates: wrong (step), HTTPCode_Target_5XX_Count per RequestCount against stable (step, dry run)" in (
        planned.text
    )
    assert "; hooks: page (revert)" in planned.text
    wants(cli, place, "1.0.0")
    assert cli.run("state", "delete", f"urn:pulumi:dev::project::{place.token}::hello", "--yes").code == 0
    imported = cli.run("import", place.token, "hello", f"hello/test@{place.ledger}", "--yes", "--protect=false")
    assert imported.code == 0, imported.text
    assert '"max_ratio": 1.5' in imported.text and '"interval": "15s"' in imported.text, imported.text
    assert '"name": "page"' in imported.text
    assert "confidence" not in imported.text and "timeout" not in imported.text.partition('"page"')[2], imported.text
    serves(cli, place, "1.0.0")

    errors["max"] = 0.1
    wants_gates()
    refused = cli.run("preview")
    assert refused.code == 1 and "property gates[1].metric.max" in refused.text, refused.text
    del errors["max"]
    wants_gates()
    gone = cli.run("destroy", "--yes", "--skip-preview")
    assert gone.code == 0, gone.text


@pytest.mark.parametrize("how", ["interrupted twice", "killed"])
def test_a_command_that_is_not_let_finish(cli: Cli, place: Place, how: str) -> None:
    """Whether it is interrupted once more or killed: traffic is safe, the ledger knows how far it came, and the next
    `up` goes on from there."""
    before, ledger = place.held(), Ledger(DirectoryStore(place.ledger), "hello", "test")
    done = up(cli, place, "1.0.0")
    assert done.code == 0, done.text
    assert cli.run("config", "set", "bake", "3s").code == 0
    wants(cli, place, "1.1.0")
    command = begun(cli, ledger, Stage.BAKE)
    if how == "killed":
        command.kill()
    else:
        command.send_signal(signal.SIGINT)
        time.sleep(0.05)
        command.send_signal(signal.SIGINT)
    told, _ = command.communicate(timeout=60)
    assert command.returncode != 0, told
    assert (place.serving() or "").startswith(("hello-1.0.0-", "hello-1.1.0-"))
    if how == "killed":
        # Pulumi's own lock on the stack, which nobody holds any more.
        locked = cli.run("up", "--yes", "--skip-preview")
        assert locked.code != 0 and "pulumi cancel" in locked.text, locked.text
        assert cli.run("cancel", "--yes").code == 0
    done = cli.up()
    assert done.code == 0, done.text
    serves(cli, place, "1.1.0")
    gone = cli.run("destroy", "--yes", "--skip-preview")
    assert gone.code == 0, gone.text
    assert place.held() == before
