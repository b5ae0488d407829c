"""Every method of Compute Engine's that changes something, struck by each kind of fault on its way."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.google.compute import OPERATIONS
from osvdeploy.sandbox.google.discovery import api
from osvdeploy.sandbox.wire import Call
from tests.sandbox.google.fleet import REGION, ZONE, Fleet, template_body
from tests.sandbox.google.place import Answer, refused

pytestmark = pytest.mark.sandbox

LOST = (FaultKind.BEFORE, FaultKind.HANG, FaultKind.UNREACHABLE)
REFUSED = {
    FaultKind.THROTTLED: (403, "rateLimitExceeded"),
    FaultKind.DENIED: (403, "forbidden"),
    FaultKind.BROKEN: (503, "backendError"),
    FaultKind.QUOTA: (403, "quotaExceeded"),
}


@dataclass(frozen=True)
class Step:
    """One call: its method, and how it is asked for. What it does is there when its operation has ended."""

    method: str
    path: str
    body: Any = None

    @property
    def verb(self) -> str:
        return api("compute").methods[self.method].verb

    def ask(self, fleet: Fleet) -> Answer:
        path = self.path
        if "requestId" in api("compute").methods[self.method].parameters:
            token = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.method} {path}")
            path += f"{'&' if '?' in path else '?'}requestId={token}"
        return fleet.call(self.verb, path, self.body)


def story(fleet: Fleet, at: str, front: str) -> Iterator[Step]:
    """From the template to a balancer and back to nothing, with machines ``at`` a place behind a ``front``."""
    regional = at.startswith("regions")
    managers = "regionInstanceGroupManagers" if regional else "instanceGroupManagers"
    groups = "regionInstanceGroups" if regional else "instanceGroups"
    scalers = "regionAutoscalers" if regional else "autoscalers"
    templates = "regionInstanceTemplates" if regional else "instanceTemplates"
    group, home = f"{at}/instanceGroupManagers/g", at if regional else "global"
    template = f"{home}/instanceTemplates/t"

    def own(name: str) -> str:
        return f"region{name[0].upper()}{name[1:]}" if front.startswith("regions") else name

    def named(name: str) -> list[str]:
        return [fleet.tail(each["instance"]) for each in fleet.members(f"{at}/instanceGroupManagers/{name}")]

    def marked(path: str, **fields: Any) -> dict[str, Any]:
        return {**fields, "fingerprint": fleet.get(path)["fingerprint"]}

    yield Step(f"{templates}.insert", f"{home}/instanceTemplates", template_body())
    yield Step(
        f"{managers}.insert",
        f"{at}/instanceGroupManagers",
        {"name": "g", "targetSize": 3, "instanceTemplate": template},
    )
    fleet.stable(group)
    ports = {"namedPorts": [{"name": "http", "port": 8080}]}
    yield Step(f"{groups}.setNamedPorts", f"{at}/instanceGroups/g/setNamedPorts", ports)
    yield Step(f"{managers}.patch", group, marked(group, targetSize=4))
    yield Step(f"{managers}.resize", f"{group}/resize?size=5")
    yield Step(f"{managers}.setInstanceTemplate", f"{group}/setInstanceTemplate", {"instanceTemplate": template})
    fleet.stable(group)
    first, second, third, *_ = named("g")
    yield Step(f"{managers}.recreateInstances", f"{group}/recreateInstances", {"instances": [first]})
    yield Step(f"{managers}.deleteInstances", f"{group}/deleteInstances", {"instances": [second]})
    yield Step(f"{managers}.abandonInstances", f"{group}/abandonInstances", {"instances": [third]})
    labels = {"labels": {"a": "b"}, "labelFingerprint": fleet.get(third)["labelFingerprint"]}
    yield Step("instances.setLabels", f"{third}/setLabels", labels)
    metadata = {"items": [], "fingerprint": fleet.get(third)["metadata"]["fingerprint"]}
    yield Step("instances.setMetadata", f"{third}/setMetadata", metadata)
    yield Step("instances.delete", third)
    policy = {
        "autoscalingPolicy": {"minNumReplicas": 1, "maxNumReplicas": 3, "cpuUtilization": {"utilizationTarget": 0.6}}
    }
    yield Step(f"{scalers}.insert", f"{at}/autoscalers", {"name": "a", "target": group, **policy})
    yield Step(f"{scalers}.patch", f"{at}/autoscalers?autoscaler=a", {"autoscalingPolicy": {"mode": "OFF"}})
    yield Step(f"{scalers}.update", f"{at}/autoscalers?autoscaler=a", policy)
    yield Step(f"{scalers}.delete", f"{at}/autoscalers/a")

    yield Step("networks.insert", "global/networks", {"name": "n", "autoCreateSubnetworks": False})
    block = {"name": "s", "network": "global/networks/n", "ipCidrRange": "10.0.0.0/20"}
    yield Step("subnetworks.insert", f"{REGION}/subnetworks", block)
    yield Step("subnetworks.delete", f"{REGION}/subnetworks/s")
    yield Step("networks.delete", "global/networks/n")
    wall = {"name": "f", "allowed": [{"IPProtocol": "tcp", "ports": ["8080"]}], "sourceRanges": ["10.0.0.0/8"]}
    yield Step("firewalls.insert", "global/firewalls", wall)
    yield Step("firewalls.patch", "global/firewalls/f", {"priority": 10})
    yield Step("firewalls.update", "global/firewalls/f", wall)
    yield Step("firewalls.delete", "global/firewalls/f")
    check = {"name": "up", "type": "HTTP"}
    yield Step(f"{own('healthChecks')}.insert", f"{front}/healthChecks", check)
    yield Step(f"{own('healthChecks')}.patch", f"{front}/healthChecks/up", {"checkIntervalSec": 10})
    yield Step(f"{own('healthChecks')}.update", f"{front}/healthChecks/up", check)
    service, url_map, proxy = f"{front}/backendServices/s", f"{front}/urlMaps/m", f"{front}/targetHttpProxies/p"
    backend = {
        "name": "s",
        "loadBalancingScheme": "EXTERNAL_MANAGED",
        "healthChecks": [f"{front}/healthChecks/up"],
        "backends": [{"group": f"{at}/instanceGroups/g"}],
    }
    yield Step(f"{own('backendServices')}.insert", f"{front}/backendServices", backend)
    yield Step(f"{own('backendServices')}.patch", service, marked(service, timeoutSec=20))
    yield Step(f"{own('backendServices')}.update", service, marked(service, **backend))
    yield Step(f"{own('urlMaps')}.insert", f"{front}/urlMaps", {"name": "m", "defaultService": service})
    yield Step(f"{own('urlMaps')}.patch", url_map, marked(url_map, description="1"))
    yield Step(f"{own('urlMaps')}.update", url_map, marked(url_map, name="m", defaultService=service))
    yield Step(f"{own('targetHttpProxies')}.insert", f"{front}/targetHttpProxies", {"name": "p", "urlMap": url_map})
    unplaced = "targetHttpProxies/p" if front == "global" else proxy
    yield Step(f"{own('targetHttpProxies')}.setUrlMap", f"{unplaced}/setUrlMap", {"urlMap": url_map})
    if front == "global":
        yield Step("targetHttpProxies.patch", proxy, marked(proxy, urlMap=url_map))
    rules = "globalForwardingRules" if front == "global" else "forwardingRules"
    rule = {"name": "r", "portRange": "8000", "loadBalancingScheme": "EXTERNAL_MANAGED", "target": proxy}
    if front == "global":
        yield Step("globalAddresses.insert", "global/addresses", {"name": "a"})
        rule["IPAddress"] = "global/addresses/a"
    yield Step(f"{rules}.insert", f"{front}/forwardingRules", rule)
    yield Step(f"{rules}.setTarget", f"{front}/forwardingRules/r/setTarget", {"target": proxy})
    held = fleet.get(f"{front}/forwardingRules/r")["labelFingerprint"]
    yield Step(
        f"{rules}.setLabels", f"{front}/forwardingRules/r/setLabels", {"labels": {"a": "b"}, "labelFingerprint": held}
    )
    yield Step(f"{rules}.delete", f"{front}/forwardingRules/r")
    if front == "global":
        yield Step("globalAddresses.delete", "global/addresses/a")
    tcp, tcp_proxy = f"{front}/backendServices/tcp", f"{front}/targetTcpProxies/t"
    fleet.done("POST", f"{front}/backendServices", backend | {"name": "tcp", "protocol": "TCP"})
    yield Step(f"{own('targetTcpProxies')}.insert", f"{front}/targetTcpProxies", {"name": "t", "service": tcp})
    if front == "global":
        yield Step("targetTcpProxies.setBackendService", f"{tcp_proxy}/setBackendService", {"service": tcp})
    yield Step(f"{own('targetTcpProxies')}.delete", tcp_proxy)
    fleet.done("DELETE", tcp)
    for kind, path in (
        ("targetHttpProxies", proxy),
        ("urlMaps", url_map),
        ("backendServices", service),
        ("healthChecks", f"{front}/healthChecks/up"),
    ):
        yield Step(f"{own(kind)}.delete", path)
    yield Step(f"{managers}.delete", group)
    yield Step(f"{templates}.delete", template)


def documents(fleet: Fleet) -> dict[tuple[str, str], Any]:
    """All that the project has."""
    transaction = fleet.sandbox.store.begin()
    kinds = fleet.sandbox.store.kinds()
    return {
        (kind, key): transaction.get(place, kind, key)
        for (place, kind), keys in kinds.items()
        for key in keys
        if kind.startswith("compute.")
    }


def struck(fleet: Fleet, step: Step, strike: Callable[[], None]) -> None:
    """Nothing happens in a strike."""
    before = documents(fleet)
    strike()
    assert documents(fleet) == before, step


@pytest.mark.parametrize(("at", "front"), [(ZONE, "global"), (REGION, REGION)])
def test_a_change_that_is_struck_is_whole_or_not_at_all(at: str, front: str) -> None:
    """Nothing of it before the fault; all of it where the answer alone was lost, and once however often it is asked."""
    fleet = Fleet()
    fleet.publish("app", says="listening")
    for step in story(fleet, at, front):

        def loses(kind: FaultKind, step: Step = step) -> None:
            fleet.sandbox.faults.add(Fault(f"compute:{step.method}", kind))
            with pytest.raises((requests.ConnectionError, requests.Timeout)):
                step.ask(fleet)

        def refuses(kind: FaultKind, step: Step = step) -> None:
            fleet.sandbox.faults.add(Fault(f"compute:{step.method}", kind))
            refused(step.ask(fleet), *REFUSED[kind])

        for kind in LOST:
            struck(fleet, step, lambda kind=kind: loses(kind))  # type: ignore[misc]  # mypy guesses no default's type
        for kind in REFUSED:
            struck(fleet, step, lambda kind=kind: refuses(kind))  # type: ignore[misc]  # the same
        loses(FaultKind.AFTER)
        if "requestId" in api("compute").methods[step.method].parameters:
            struck(fleet, step, lambda step=step: _again(fleet, step))  # type: ignore[misc]  # the same
        fleet.wait(30)
        assert all(each["status"] == "DONE" for each in _operations(fleet, at, front)), step
    assert {kind for kind, _ in documents(fleet)} <= {"compute.image", "compute.operation", "compute.request"}


def _again(fleet: Fleet, step: Step) -> None:
    answer = step.ask(fleet)
    assert answer.ok, answer.text
    assert answer.json()["status"] == "RUNNING"


def _operations(fleet: Fleet, *places: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for place in (*places, "global"):
        found += fleet.get(f"{place}/operations").get("items", [])
    return found


def test_the_story_asks_every_method_that_changes_something() -> None:
    """But for those of images, which have their own."""
    told: set[str] = set()
    for at, front in ((ZONE, "global"), (REGION, REGION)):
        fleet = Fleet()
        fleet.publish("app", says="listening")
        for step in story(fleet, at, front):
            told.add(step.method)
            answer = step.ask(fleet)
            assert answer.ok, (step, answer.text)
            fleet.wait(30)
    changing = {name for name in OPERATIONS if Call("compute", "", name, {}).mutating}
    assert told == {name for name in changing if not name.startswith("images.")}
