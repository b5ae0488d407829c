"""stacks/gcp with Pulumi's own command, its committed Pulumi.yaml and all: `pytest -m engine` with `pulumi` on PATH."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from tests.cli.google import finished
from tests.pulumi.cli import needs_pulumi
from tests.pulumi.places import Place, free_port, move_traffic, needs_loopback
from tests.pulumi.stack_cli import StackCli
from tests.pulumi.stacks import Copied, on_google_with_ledger

pytestmark = [pytest.mark.engine, pytest.mark.slow, needs_pulumi, needs_loopback]

LEDGER = "gs://acme-releases/service"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with on_google_with_ledger(tmp_path / "place") as place:
        yield place


@pytest.fixture
def cli(tmp_path: Path, place: Place) -> StackCli:
    config = {
        "gcp:project": "acme-prod", "minReady": "0s", "bootTimeout": "30s", "bake": "0s", "listenerPort": free_port(),
    }  # fmt: skip
    return StackCli(Copied.of("gcp", tmp_path, place), tmp_path, config)


def test_story(cli: StackCli, place: Place) -> None:
    """The same as in the small engine, with the exit codes that scripts go by, and with an interruption while the
    network is made."""
    before = cli.copied.held()
    maps = f"{place.shell.url}/compute/v1/projects/acme-prod/global/urlMaps"
    cli.begins(13, lambda: len(requests.get(maps, timeout=10).json()["items"]) > 1)
    assert len(requests.get(maps, timeout=10).json()["items"]) == 2, "one of the stack's, one of somebody's"
    (service,) = [each for each in cli.export() if each["type"].endswith("BlueGreenDeployment")]
    before_it = {urn.rpartition("::")[2] for urn in service["dependencies"]}
    assert {"service-dev-balancer", "service-dev-clients"} <= before_it, "they are there as long as it is"
    cli.releases(LEDGER)

    for _ in range(2):
        cli.brought(cli.up("--refresh"), "1.3.0")
    ids = {each["urn"].rpartition("::")[2]: each.get("id", "") for each in cli.export()}
    wall = f"{place.shell.url}/compute/v1/{ids['service-dev-balancer']}"
    ranges = requests.get(wall, timeout=10).json()["sourceRanges"]
    finished(requests.patch(wall, json={"sourceRanges": ["192.0.2.0/24"]}, timeout=10))
    move_traffic(replace(place, inputs={"urlMap": ids["service-dev-ways"]}), 50, 50)
    assert "URLMap" not in cli.mends().text
    assert requests.get(wall, timeout=10).json()["sourceRanges"] == ranges

    cli.ends(LEDGER)
    assert cli.copied.held() == before


def test_half_a_network(cli: StackCli) -> None:
    """What a configuration lacks is said in a sentence, and no traceback."""
    assert cli.run("config", "set", "network", "shared").code == 0
    refused = cli.run("preview")
    assert refused.code == 1
    assert "error: half a network: subnetwork is missing" in refused.text
    assert "Traceback" not in refused.text


def test_taken_over(cli: StackCli) -> None:
    """A URL map of somebody's gets into the state by its path, with all the rules that are in it."""
    path = "projects/acme-prod/global/urlMaps/web"
    words = ["import", "gcp:compute/uRLMap:URLMap", "theirs", path]
    # The code that the command would print is made of the plugin's schema, which a stand-in has none of.
    ran = cli.run(*words, "--yes", "--skip-preview", "--protect=false", "--generate-code=false")
    assert ran.code == 0, ran.text
    (taken,) = [each for each in cli.export() if each["type"] == words[1]]
    assert taken["inputs"]["name"] == "web"
    assert taken["inputs"]["defaultService"].endswith("/backendServices/nobody")
