"""VPC networks, their subnetworks, and addresses that are kept: what a balancer and its machines stand in.

They carry no packet here: every machine is in reach, and its address is of no subnetwork's range. What is made of them
is held to: a template or a firewall rule names a network that is there, and that network stays.

Sources: Compute Engine API reference (Network, Subnetwork, Address; ForwardingRule, IPAddress), "Subnets" (ranges),
"Create and manage VPC networks" (what a network has to lose before it can be deleted), "Reserve a static external IP
address".

A project has the network ``default`` and a subnetwork of that name in each region from its beginning: they can be
referred to. Not documented, and decided here against the caller: an instance template keeps its network.

The sandbox's own limits, each refused as not simulated: a look at the network ``default``, networks that make their
subnetworks by themselves, ranges of IPv6 and secondary ones, subnetworks of balancers, addresses of a region or inside.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

from osvdeploy.sandbox.errors import NotSimulated
from osvdeploy.sandbox.google.compute import geography
from osvdeploy.sandbox.google.compute.operations import Wire, place_of
from osvdeploy.sandbox.google.compute.resources import (
    ADDRESS,
    FIREWALL,
    INSTANCE,
    NETWORK,
    RULE,
    SUBNETWORK,
    TEMPLATE,
    Kind,
    begun,
    found,
    in_use,
    invalid,
    its_path,
    link,
    made,
    missing,
    named,
    once,
    path_of,
    plain,
    referred,
    shown,
)
from osvdeploy.sandbox.services.elbv2 import new_address
from osvdeploy.sandbox.services.scope import Doc, Scope

NETWORK_BODY: Final = "name description autoCreateSubnetworks mtu routingConfig.routingMode"
SUBNETWORK_BODY: Final = "name description network region ipCidrRange purpose privateIpGoogleAccess stackType"
ADDRESS_BODY: Final = "name description addressType ipVersion networkTier"

_BEGUN_WITH: Final = "default"
_MTU: Final = 1460, 1300, 8896
"""Default, least and most."""

_LONGEST_PREFIX: Final = 29

_GIVEN_BY_GOOGLE = re.compile(r"projects/[^/]+/(?:global/networks|regions/[^/]+/subnetworks)/default")


# ------------------------------------------------------------------------------------------------------------ referring


def network_link(scope: Scope, params: Wire, text: str, field: str) -> str:
    """The link of a network that a request names. Raises ApiError."""
    return _link(scope, params, text, NETWORK, field)


def subnetwork_link(scope: Scope, params: Wire, text: str, field: str) -> str:
    """The same of a subnetwork."""
    return _link(scope, params, text, SUBNETWORK, field)


def _link(scope: Scope, params: Wire, text: str, kind: Kind, field: str) -> str:
    tail = re.sub(r"^(?:https?://[^/]+/compute/v1/|/)", "", text or "")
    path = tail if tail.startswith("projects/") else f"projects/{params['project']}/{tail}"
    if _GIVEN_BY_GOOGLE.fullmatch(path) and f"/{kind.plural}/" in path:
        return link(path)
    return link(referred(scope, params, text, kind, field)[0])


def card(scope: Scope, params: Wire, interface: Wire, field: str) -> dict[str, str]:
    """The network and the subnetwork of a machine's interface, as links. Raises ApiError."""
    given: dict[str, str] = {}
    if "network" in interface or "subnetwork" not in interface:
        given["network"] = network_link(
            scope, params, interface.get("network", f"global/networks/{_BEGUN_WITH}"), f"{field}.network"
        )
    if "subnetwork" in interface:
        given["subnetwork"] = subnetwork_link(scope, params, interface["subnetwork"], f"{field}.subnetwork")
        around = _around(scope, given["subnetwork"])
        if given.setdefault("network", around) != around:
            told = "It is not in the specified network."
            raise invalid(f"{field}.subnetwork", interface["subnetwork"], told)
    elif scope.get(NETWORK.store, path_of(given["network"])) is not None:
        told = "A subnetwork must be specified where the network is of custom subnet mode."
        raise invalid(f"{field}.subnetwork", "", told)
    return given


def _around(scope: Scope, subnetwork: str) -> str:
    """The link of the network that a subnetwork is in."""
    document = scope.get(SUBNETWORK.store, path_of(subnetwork))
    if document is not None:
        return str(document["resource"]["network"])
    return link(f"{path_of(subnetwork).partition('/regions/')[0]}/global/networks/{_BEGUN_WITH}")


# ------------------------------------------------------------------------------------------------------------- networks


@once("insert")
def insert_network(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    name = named(body)
    if body.get("autoCreateSubnetworks") is not False:
        raise NotSimulated("networks of another mode than custom (autoCreateSubnetworks: false)")
    usual, least, most = _MTU
    mtu = body.get("mtu", usual)
    if not least <= mtu <= most:
        raise invalid("mtu", mtu, f"Must be between {least} and {most}.")
    if name == _BEGUN_WITH:
        raise NotSimulated("making the network `default` anew, which a project has from its beginning")
    fields = {
        **body,
        "name": name,
        "mtu": mtu,
        "routingConfig": {"routingMode": "REGIONAL", **body.get("routingConfig", {})},
        "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
    }
    return begun(scope, params, NETWORK, "insert", made(scope, params, NETWORK, fields))


def get_network(scope: Scope, params: Wire) -> Doc:
    if params["network"] == _BEGUN_WITH:
        raise NotSimulated("a look at the network `default`")
    return shown(scope, params, NETWORK, found(scope, params, NETWORK), network_shown)


def network_shown(scope: Scope, document: Doc) -> Doc:
    mine = [link(path) for path in _subnetworks(scope, its_path(NETWORK, document))]
    return {**document["resource"], **({"subnetworks": mine} if mine else {})}


def _subnetworks(scope: Scope, network: str) -> list[str]:
    return [
        its_path(SUBNETWORK, each)
        for each in scope.all(SUBNETWORK.store)
        if path_of(each["resource"]["network"]) == network
    ]


def refuse_network_deletion(scope: Scope, path: str, document: Doc) -> None:
    for subnetwork in _subnetworks(scope, path):
        raise in_use(NETWORK, path, SUBNETWORK, subnetwork)
    for rule in scope.all(FIREWALL.store):
        if path_of(rule["resource"]["network"]) == path:
            raise in_use(NETWORK, path, FIREWALL, its_path(FIREWALL, rule))


# ---------------------------------------------------------------------------------------------------------- subnetworks


@once("insert")
def insert_subnetwork(scope: Scope, params: Wire) -> Doc:
    geography.check_place(params)
    body = params.get("body") or {}
    name = named(body)
    for field in ("network", "ipCidrRange"):
        if not body.get(field):
            raise missing(field)
    if body.get("purpose", "PRIVATE") != "PRIVATE" or body.get("stackType", "IPV4_ONLY") != "IPV4_ONLY":
        raise NotSimulated("subnetworks for other things than machines, and other addresses than of IPv4")
    network = network_link(scope, params, body["network"], "network")
    if scope.get(NETWORK.store, path_of(network)) is None:
        raise NotSimulated("subnetworks of one's own in the network `default`")
    if (body.get("region") or params["region"]).rpartition("/")[2] != params["region"]:
        raise invalid("region", body["region"], "It is not the region of the request.")
    block = _block(scope, network, body["ipCidrRange"])
    fields = {
        "privateIpGoogleAccess": False,
        "purpose": "PRIVATE",
        "stackType": "IPV4_ONLY",
        **{key: value for key, value in body.items() if key != "region"},
        "name": name,
        "network": network,
        "ipCidrRange": str(block),
        "gatewayAddress": str(block[1]),
    }
    return begun(scope, params, SUBNETWORK, "insert", made(scope, params, SUBNETWORK, fields))


def _block(scope: Scope, network: str, text: str) -> ipaddress.IPv4Network:
    """A range that no other subnetwork of the network has. Raises ApiError."""
    try:
        block = ipaddress.IPv4Network(text)
    except ValueError:
        raise invalid("ipCidrRange", text, "Must be a valid CIDR range of IPv4.") from None
    if block.prefixlen > _LONGEST_PREFIX:
        raise invalid("ipCidrRange", text, f"The prefix must be at most {_LONGEST_PREFIX} bits long.")
    for path in _subnetworks(scope, path_of(network)):
        other = scope.get(SUBNETWORK.store, path)
        assert other is not None
        if block.overlaps(ipaddress.IPv4Network(other["resource"]["ipCidrRange"])):
            raise invalid("ipCidrRange", text, f"It conflicts with the range of the existing subnetwork '{path}'.")
    return block


def refuse_subnetwork_deletion(scope: Scope, path: str, document: Doc) -> None:
    for template in scope.all(TEMPLATE.store):
        if _stands_in(template["resource"]["properties"], path):
            raise in_use(SUBNETWORK, path, TEMPLATE, its_path(TEMPLATE, template))
    for instance in scope.all(INSTANCE.store):
        if _stands_in(instance["resource"], path):
            raise in_use(SUBNETWORK, path, INSTANCE, its_path(INSTANCE, instance))


def _stands_in(machine: Mapping[str, Any], subnetwork: str) -> bool:
    return any(path_of(each.get("subnetwork", "")) == subnetwork for each in machine["networkInterfaces"])


# ------------------------------------------------------------------------------------------------------------ addresses


@once("insert")
def insert_address(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    name = named(body)
    if body.get("addressType", "EXTERNAL") != "EXTERNAL" or body.get("ipVersion", "IPV4") != "IPV4":
        raise NotSimulated("addresses inside of a network, and of IPv6")
    if body.get("networkTier", "PREMIUM") != "PREMIUM":
        raise invalid("networkTier", body["networkTier"], "Global addresses are of the tier PREMIUM.")
    document = made(scope, params, ADDRESS, {**body, "name": name, "address": new_address(scope)})
    document["resource"] |= {"addressType": "EXTERNAL", "networkTier": "PREMIUM"}
    scope.put(ADDRESS.store, its_path(ADDRESS, document), document)
    return begun(scope, params, ADDRESS, "insert", document)


def address_shown(scope: Scope, document: Doc) -> Doc:
    users = [link(each) for each in _users(scope, document)]
    state = "RESERVING" if not document["ready"] else "IN_USE" if users else "RESERVED"
    return {**plain(scope, document), "status": state, **({"users": users} if users else {})}


def _users(scope: Scope, document: Doc) -> list[str]:
    address = document["resource"]["address"]
    return [its_path(RULE, each) for each in scope.all(RULE.store) if each["resource"]["IPAddress"] == address]


def refuse_address_deletion(scope: Scope, path: str, document: Doc) -> None:
    for rule in _users(scope, document):
        raise in_use(ADDRESS, path, RULE, rule)


def taken(scope: Scope, params: Wire, text: str, port: int) -> str:
    """The address for a forwarding rule that says which: by a link, or its digits. Raises ApiError."""
    field = "IPAddress"
    if re.fullmatch(r"[0-9.]+", text):
        mine = [
            each
            for each in scope.all(ADDRESS.store)
            if each["resource"]["address"] == text and each["project"] == params["project"] and each["ready"]
        ]
        if not mine:
            raise invalid(field, text, "The specified IP address is not reserved in the project.")
        [document] = mine
    else:
        _, document = referred(scope, params, text, ADDRESS, field)
    if document["place"] != place_of(params):
        raise invalid(field, text, "The address is in another place.")
    address = str(document["resource"]["address"])
    for rule in scope.all(RULE.store):
        if (rule["resource"]["IPAddress"], rule["resource"]["portRange"]) == (address, f"{port}-{port}"):
            raise invalid(field, text, "Specified IP address is in-use and would result in a conflict.")
    return address
