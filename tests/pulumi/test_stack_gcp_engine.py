"""stacks/gcp with Pulumi's own command, its committed Pulumi.yaml and all: `pytest -m engine` with `pulumi` on PATH."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from tests.cli.google import finished
from tests.pulumi import standins
from tests.pulumi.cli import Cli, Ran, interrupted, needs_pulumi
from tests.pulumi.engine import MODULES
from tests.pulumi.places import Place, free_port, move_traffic, needs_loopback
from tests.pulumi.stacks import Copied, on_google_with_ledger

pytestmark = [pytest.mark.engine, pytest.mark.slow, needs_pulumi, needs_loopback]

LEDGER = "gs://acme-releases/service"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with on_google_with_ledger(tmp_path / "place") as place:
        yield place


@pytest.fixture
def copied(tmp_path: Path, place: Place) -> Copied:
    copied = Copied.of("gcp", tmp_path, place)
    # What `pip install -r requirements.txt` makes.
    (copied.folder / ".venv").symlink_to(sys.prefix)
    return copied


@pytest.fixture
def cli(tmp_path: Path, copied: Copied) -> Cli:
    path = os.pathsep.join([str(standins.all_in(tmp_path / "plugins")), os.environ["PATH"]])
    environ = {**copied.place.environ, "PYTHONPATH": MODULES, "PATH": path}
    cli = Cli(copied.folder, tmp_path / "pulumi", environ=environ)
    assert cli.run("stack", "init", "dev").code == 0
    wanted = {
        "gcp:project": "acme-prod", "minReady": "0s", "bootTimeout": "30s", "bake": "0s", "listenerPort": free_port(),
    }  # fmt: skip
    for key, value in wanted.items():
        assert cli.run("config", "set", key, str(value)).code == 0
    return cli


def serves(cli: Cli, copied: Copied, done: Ran, version: str) -> None:
    """A client gets that version's answers, the stack says so, and there is nothing more to do."""
    assert done.code == 0, done.text
    assert copied.serves(cli.output("url"), version)
    assert cli.output("release").startswith(f"service-{version}-")
    same = cli.up("--expect-no-changes")
    assert same.code == 0, same.text


def test_story(cli: Cli, copied: Copied, place: Place) -> None:
    """The same as in the small engine, with the exit codes that scripts go by, and with an interruption while the
    network is made."""
    before = copied.held()
    copied.release("1.0.0")
    planned = cli.run("preview")
    assert planned.code == 0, planned.text
    assert "+ 13 to create" in planned.text
    assert cli.run("preview", "--expect-no-changes").code == 7
    assert copied.held() == before

    maps = f"{place.shell.url}/compute/v1/projects/acme-prod/global/urlMaps"
    stopped = interrupted(cli, lambda: len(requests.get(maps, timeout=10).json()["items"]) > 1)
    assert stopped.code == 1, stopped.text
    serves(cli, copied, cli.up(), "1.0.0")
    assert len(requests.get(maps, timeout=10).json()["items"]) == 2, "one of the stack's, one of somebody's"

    copied.release("1.1.0")
    planned = cli.run("preview", "--expect-no-changes")
    assert planned.code == 7, planned.text
    serves(cli, copied, cli.up(), "1.1.0")

    copied.release("1.2.0", broken=True)
    failed = cli.up()
    assert failed.code == 1
    assert "no database" in failed.text and "corrupt" not in failed.text
    assert copied.serves(cli.output("url"), "1.1.0")

    copied.release("1.1.0")
    ran = copied.osvdeploy("rollback", ledger=LEDGER)
    assert ran.code == 0, ran.stderr
    held = cli.up()
    assert held.text.partition("Diagnostics:")[2].count("is held since") == 1, held.text
    serves(cli, copied, held, "1.0.0")
    copied.release("1.3.0")
    serves(cli, copied, cli.up(), "1.3.0")

    for _ in range(2):
        same = cli.run("up", "--refresh", "--yes", "--skip-preview")
        assert same.code == 0, same.text
        serves(cli, copied, same, "1.3.0")
    ids = {each["urn"].rpartition("::")[2]: each.get("id", "") for each in cli.export()}
    wall = f"{place.shell.url}/compute/v1/{ids['service-dev-balancer']}"
    ranges = requests.get(wall, timeout=10).json()["sourceRanges"]
    finished(requests.patch(wall, json={"sourceRanges": ["192.0.2.0/24"]}, timeout=10))
    move_traffic(replace(place, inputs={"urlMap": ids["service-dev-ways"]}), 50, 50)
    drifted = cli.run("refresh", "--yes", "--skip-preview")
    assert drifted.code == 0, drifted.text
    planned = cli.run("preview", "--expect-no-changes")
    assert planned.code == 7, planned.text
    assert "put traffic right" in planned.text and "URLMap" not in planned.text
    serves(cli, copied, cli.up(), "1.3.0")
    assert requests.get(wall, timeout=10).json()["sourceRanges"] == ranges

    assert cli.run("config", "set", "bake", "3s").code == 0
    copied.release("1.4.0")
    stopped = interrupted(cli, lambda: copied.bakes(LEDGER))
    assert stopped.code == 1, stopped.text
    assert "left in stage bake" in stopped.text
    serves(cli, copied, cli.up(), "1.4.0")

    gone = cli.run("destroy", "--yes", "--skip-preview")
    assert gone.code == 0, gone.text
    assert copied.held() == before


def test_half_a_network(cli: Cli) -> None:
    """What a configuration lacks is said in a sentence, and no traceback."""
    assert cli.run("config", "set", "network", "shared").code == 0
    refused = cli.run("preview")
    assert refused.code == 1
    assert "error: half a network: subnetwork is missing" in refused.text
    assert "Traceback" not in refused.text


def test_taken_over(cli: Cli) -> None:
    """A URL map of somebody's gets into the state by its path, with all the rules that are in it."""
    path = "projects/acme-prod/global/urlMaps/web"
    words = ["import", "gcp:compute/uRLMap:URLMap", "theirs", path]
    # The code that the command would print is made of the plugin's schema, which a stand-in has none of.
    ran = cli.run(*words, "--yes", "--skip-preview", "--protect=false", "--generate-code=false")
    assert ran.code == 0, ran.text
    (taken,) = [each for each in cli.export() if each["type"] == words[1]]
    assert taken["inputs"]["name"] == "web"
    assert taken["inputs"]["defaultService"].endswith("/backendServices/nobody")
