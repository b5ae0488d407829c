"""Networks, subnetworks, addresses and firewall rules in the sandbox, asked over Compute Engine's API in process."""

from __future__ import annotations

import pytest

from tests.sandbox.google.fleet import REGION, ROOT, Fleet, Service, serving, template_body

pytestmark = pytest.mark.sandbox

OWN = {"name": "own", "autoCreateSubnetworks": False}
BLOCK = {"name": "machines", "network": "global/networks/own", "ipCidrRange": "10.20.0.0/20"}


@pytest.fixture
def fleet() -> Fleet:
    return serving()


def test_a_network_of_ones_own(fleet: Fleet) -> None:
    """It tells its subnetworks, machines stand in them, and it goes when nothing stands in it any more."""
    fleet.done("POST", "global/networks", OWN)
    assert "subnetworks" not in fleet.get("global/networks/own")
    fleet.done("POST", f"{REGION}/subnetworks", BLOCK)
    network, subnetwork = fleet.get("global/networks/own"), fleet.get(f"{REGION}/subnetworks/machines")
    assert (network["mtu"], network["routingConfig"]) == (1460, {"routingMode": "REGIONAL"})
    assert network["subnetworks"] == [subnetwork["selfLink"]]
    assert (subnetwork["network"], subnetwork["gatewayAddress"]) == (network["selfLink"], "10.20.0.1")
    assert (subnetwork["region"], subnetwork["purpose"]) == (f"{ROOT}/{REGION}", "PRIVATE")

    card = [{"subnetwork": subnetwork["selfLink"]}]
    image = fleet.get("global/images")["items"][0]["name"]
    fleet.done("POST", "global/instanceTemplates", template_body("inside", image, networkInterfaces=card))
    group = fleet.group("inside", size=1, template="inside")
    fleet.stable(group)
    [member] = fleet.members(group)
    [interface] = fleet.get(fleet.tail(member["instance"]))["networkInterfaces"]
    assert (interface["network"], interface["subnetwork"]) == (network["selfLink"], subnetwork["selfLink"])

    for path in (group, "global/instanceTemplates/inside", f"{REGION}/subnetworks/machines", "global/networks/own"):
        fleet.done("DELETE", path)
    assert fleet.get("global/networks").get("items", []) == []


def test_the_network_that_a_project_begins_with(fleet: Fleet) -> None:
    """It can be referred to without being made, as its subnetworks can."""
    image = fleet.get("global/images")["items"][0]["name"]
    for name, interface in (
        ("network", {"network": "global/networks/default"}),
        ("subnetwork", {"subnetwork": f"{REGION}/subnetworks/default"}),
        ("neither", {"nicType": "VIRTIO_NET"}),
    ):
        fleet.done("POST", "global/instanceTemplates", template_body(name, image, networkInterfaces=[interface]))
        [kept] = fleet.get(f"global/instanceTemplates/{name}")["properties"]["networkInterfaces"]
        assert kept["network"] == f"{ROOT}/global/networks/default"


def test_a_firewall_rule_is_changed() -> None:
    """A patch changes what it has, an update all that a rule is; the network stays."""
    fleet = Fleet()
    wall = {"name": "wall", "allowed": [{"IPProtocol": "tcp", "ports": ["80"]}], "sourceRanges": ["10.0.0.0/8"]}
    fleet.done("POST", "global/firewalls", {**wall, "targetTags": ["a"]})
    fleet.done("PATCH", "global/firewalls/wall", {"sourceRanges": ["192.0.2.0/24"]})
    patched = fleet.get("global/firewalls/wall")
    assert (patched["sourceRanges"], patched["targetTags"]) == (["192.0.2.0/24"], ["a"])
    assert patched["network"] == f"{ROOT}/global/networks/default"
    fleet.done("PUT", "global/firewalls/wall", {**wall, "priority": 10})
    updated = fleet.get("global/firewalls/wall")
    assert (updated["sourceRanges"], updated["priority"]) == (["10.0.0.0/8"], 10)
    assert "targetTags" not in updated


def test_an_address_outlives_its_rules() -> None:
    """Two rules of different ports have it, by its link and by its digits; it is kept when they are gone."""
    service = Service()
    service.done("POST", "global/addresses", {"name": "kept"})
    kept = service.get("global/addresses/kept")
    assert (kept["status"], kept["addressType"], kept["networkTier"]) == ("RESERVED", "EXTERNAL", "PREMIUM")
    rule = {"loadBalancingScheme": "EXTERNAL_MANAGED", "target": "global/targetHttpProxies/proxy"}
    for port, asked in ((8010, "global/addresses/kept"), (8011, kept["address"])):
        service.done(
            "POST", "global/forwardingRules", {**rule, "name": f"r{port}", "portRange": str(port), "IPAddress": asked}
        )
        assert service.get(f"global/forwardingRules/r{port}")["IPAddress"] == kept["address"]
    used = service.get("global/addresses/kept")
    assert (used["status"], len(used["users"])) == ("IN_USE", 2)
    for port in (8010, 8011):
        service.done("DELETE", f"global/forwardingRules/r{port}")
    assert service.get("global/addresses/kept") == kept
    service.done("DELETE", "global/addresses/kept")


def test_what_is_young_is_told() -> None:
    """An address that is asked for is being reserved until its operation ends."""
    fleet = Fleet()
    fleet.call("POST", "global/addresses", {"name": "young"})
    assert fleet.get("global/addresses/young")["status"] == "RESERVING"
