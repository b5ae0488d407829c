"""stacks/gcp, run whole: its program, our provider, the stand-in of pulumi_gcp and a sandbox whose machines run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cli.google import finished
from tests.pulumi.places import Place, free_port, move_traffic, needs_loopback
from tests.pulumi.stacks import Copied, Story, on_google_with_ledger

pytestmark = [pytest.mark.slow, needs_loopback]

LEDGER = "gs://acme-releases/service"
QUICK = {"minReady": "0s", "bootTimeout": "30s", "bake": "0s", "gcp:project": "acme-prod"}
"""In place of what is for machines that boot: for those that are processes."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A project with a balancer of somebody's, and the bucket of the ledger."""
    with on_google_with_ledger(tmp_path_factory.mktemp("google")) as place:
        yield place


_OF_RELEASES = {
    *("autoscalers", "images", "instanceGroupManagers", "instanceGroups", "instances", "instanceTemplates"),
    *("backendServices", "forwardingRules", "globalForwardingRules", "healthChecks", "targetHttpProxies"),
    *("machineTypes", "globalOperations", "zoneOperations", "regions", "urlMaps", "zones"),
    *("targetHttpsProxies", "targetTcpProxies", "buckets", "objects"),
}
"""The collections that `roles/compute.instanceAdmin.v1`, `roles/compute.loadBalancerAdmin` and
`roles/storage.objectUser` are for."""


def found(place: Place, path: str) -> Any:
    return requests.get(f"{place.shell.url}/compute/v1/{path}", timeout=10).json()


def test_story(place: Place, tmp_path: Path) -> None:
    """From nothing to a service and through its releases: a second, a bad one, back from the command line, a hold, a
    fourth, what was changed by hand, an interruption; and nothing is left. The rules in the URL map are no drift."""
    copied = Copied.of("gcp", tmp_path, place)
    before = copied.held()
    story = Story(copied, "gcp", **QUICK, listenerPort=str(free_port()))
    first = story.begins(12)
    assert str(first.outputs["address"]) in str(first.outputs["url"])
    ways, wall = (story.stack.record(f"service-dev-{name}").id for name in ("ways", "balancer"))
    (machine,) = found(place, "projects/acme-prod/zones/europe-west1-b/instances")["items"]
    assert machine["networkInterfaces"][0]["subnetwork"].endswith(story.stack.record("service-dev-machines").id)
    assert machine["tags"]["items"] == found(place, wall)["targetTags"] == ["service-dev"]

    began = place.shell.sandbox.calls()[-1].number
    story.releases(LEDGER)
    asked = {each.operation.partition(".")[0] for each in place.shell.sandbox.calls(began)}
    assert asked <= _OF_RELEASES, "who releases needs no network's roles"

    ranges = found(place, wall)["sourceRanges"]
    link = f"{place.shell.url}/compute/v1/{wall}"
    finished(requests.patch(link, json={"sourceRanges": ["192.0.2.0/24"]}, timeout=10))
    move_traffic(replace(place, inputs={"urlMap": ways}), 50, 50)
    seen = story.stack.refresh()
    assert (seen.errors, seen.step("service-dev-balancer").paths) == ([], {"sourceRanges": "UPDATE"})
    assert seen.step("service-dev-ways").op == "refresh", "it is told what is in the map"
    assert "pathMatchers" in story.stack.record("service-dev-ways").outputs
    assert story.brought("1.3.0").changes == {"update": 2}, "and that is not the map's"
    assert found(place, wall)["sourceRanges"] == ranges

    story.ends()
    assert copied.held() == before


def test_on_what_is_there(place: Place, tmp_path: Path) -> None:
    """Of a network that is there a firewall rule alone is made, of a balancer nothing; other hosts are not the
    service's."""
    copied = Copied.of("gcp", tmp_path, place)
    before = copied.held()
    there = {
        "network": "projects/acme-prod/global/networks/default",
        "subnetwork": "projects/acme-prod/regions/europe-west1/subnetworks/default",
        "bucket": "acme-images",
        "urlMap": "web",
        "host": "orders.example.com",
    }
    copied.release("1.0.0")
    story = Story(copied, "gcp", **QUICK, **there)
    done = story.up()
    assert (done.errors, done.changes) == ([], {"create": 4})
    assert {each.name for each in done.steps} == {"app", "release", "service", "service-dev-balancer"}
    answer = requests.get(place.url, headers={"host": "orders.example.com"}, timeout=10)
    assert answer.headers["x-release"] == done.outputs["release"]
    assert "x-release" not in requests.get(place.url, timeout=10).headers
    gone = story.stack.destroy()
    assert (gone.errors, gone.changes) == ([], {"delete": 4})
    assert copied.held() == before


def test_https(place: Place, tmp_path: Path) -> None:
    """With certificates clients come to a proxy of HTTPS, and who comes to port 80 is sent there."""
    copied = Copied.of("gcp", tmp_path, place)
    copied.release("1.0.0")
    certificates = '["projects/acme-prod/global/sslCertificates/service"]'
    planned = Story(copied, "gcp", **QUICK, certificates=certificates, host="service.example.com").preview()
    assert (planned.errors, planned.changes) == ([], {"create": 15})
    kinds = sorted(each.urn.split("::")[2].rpartition(":")[2] for each in planned.steps)
    assert kinds.count("GlobalForwardingRule") == kinds.count("URLMap") == 2
    assert kinds.count("TargetHttpsProxy") == kinds.count("TargetHttpProxy") == 1
