"""Firewall rules: kept as they are asked for. They open and close nothing here, where every machine is in reach.

Source: Compute Engine API reference (Firewall). Rules that deny, and that let out, are not simulated.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from osvdeploy.sandbox.errors import NotSimulated
from osvdeploy.sandbox.google.compute import networks
from osvdeploy.sandbox.google.compute.operations import Wire
from osvdeploy.sandbox.google.compute.resources import (
    FIREWALL,
    begun,
    changers,
    completed,
    found,
    invalid,
    its_path,
    made,
    merged,
    missing,
    named,
    once,
)
from osvdeploy.sandbox.services.scope import Doc, Scope

BODY: Final = (
    "name description network direction priority sourceRanges targetTags allowed.IPProtocol allowed.ports "
    "logConfig.enable disabled"
)

_PORTS = re.compile(r"\d{1,5}(?:-\d{1,5})?")


@once("insert")
def insert(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    name = named(body)
    document = made(scope, params, FIREWALL, {**_checked(scope, params, body), "name": name})
    return begun(scope, params, FIREWALL, "insert", document)


def _checked(scope: Scope, params: Wire, body: Wire) -> Doc:
    """A rule with the defaults. Raises ApiError."""
    if body.get("direction", "INGRESS") != "INGRESS":
        raise NotSimulated("firewall rules for what goes out")
    network = networks.network_link(scope, params, body.get("network", "global/networks/default"), "network")
    if not body.get("allowed"):
        raise missing("allowed")
    for number, each in enumerate(body["allowed"]):
        if not each.get("IPProtocol"):
            raise missing(f"allowed[{number}].IPProtocol")
        for ports in each.get("ports") or []:
            if not _PORTS.fullmatch(ports) or max(map(int, ports.split("-"))) > 65535:
                raise invalid(f"allowed[{number}].ports", ports, "Not a port or range of ports.")
    for text in body.get("sourceRanges") or []:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            raise invalid("sourceRanges", text, "Must be a valid CIDR range.") from None
    priority = body.get("priority", 1000)
    if not 0 <= priority <= 65535:
        raise invalid("priority", priority, "Must be between 0 and 65535.")
    return {
        "sourceRanges": ["0.0.0.0/0"],
        "disabled": False,
        "logConfig": {"enable": False},
        **body,
        "direction": "INGRESS",
        "priority": priority,
        "network": network,
    }


def _change(scope: Scope, params: Wire, verb: str) -> Doc:
    document = found(scope, params, FIREWALL, ready=True)
    body, resource = params.get("body") or {}, document["resource"]
    own = {name: resource[name] for name in ("kind", "id", "creationTimestamp", "name")}
    before = completed(params, {name: value for name, value in resource.items() if name not in own})
    given = merged(before, body) if verb == "patch" else body
    if given.get("name", own["name"]) != own["name"]:
        raise invalid("name", given["name"], "The name cannot be changed.")
    changed = _checked(scope, params, given)
    if changed["network"] != resource["network"]:
        raise invalid("network", given.get("network"), "The network cannot be changed.")
    document["resource"] = {**changed, **own}
    scope.put(FIREWALL.store, its_path(FIREWALL, document), document)
    return begun(scope, params, FIREWALL, verb, document)


patch, update = changers(_change)


def refuse_deletion(scope: Scope, path: str, document: Doc) -> None:
    """Nothing needs a rule."""
