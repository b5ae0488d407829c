"""Firewall rules: kept as they are asked for. They open and close nothing here, where every machine is in reach.

Source: Compute Engine API reference (Firewall). Rules that deny, and that let out, are not simulated.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from osvdeploy.sandbox.errors import NotSimulated
from osvdeploy.sandbox.google.compute.operations import Wire
from osvdeploy.sandbox.google.compute.resources import FIREWALL, begun, invalid, link, made, missing, named, once
from osvdeploy.sandbox.services.scope import Doc, Scope

BODY: Final = (
    "name description network direction priority sourceRanges targetTags allowed.IPProtocol allowed.ports "
    "logConfig.enable disabled"
)

_NETWORK = re.compile(r"(?:https?://[^/]+/compute/v1/|/)?(?:projects/([^/]+)/)?(global/networks/[^/]+)")
_PORTS = re.compile(r"\d{1,5}(?:-\d{1,5})?")


@once("insert")
def insert(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    name = named(body)
    if body.get("direction", "INGRESS") != "INGRESS":
        raise NotSimulated("firewall rules for what goes out")
    network = _NETWORK.fullmatch(body.get("network", "global/networks/default"))
    if network is None:
        raise invalid("network", body["network"], "The URL is malformed.")
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
    fields = {
        "sourceRanges": ["0.0.0.0/0"],
        "disabled": False,
        "logConfig": {"enable": False},
        **body,
        "name": name,
        "direction": "INGRESS",
        "priority": priority,
        "network": link(f"projects/{network[1] or params['project']}/{network[2]}"),
    }
    return begun(scope, params, FIREWALL, "insert", made(scope, params, FIREWALL, fields))


def refuse_deletion(scope: Scope, path: str, document: Doc) -> None:
    """Nothing needs a rule."""
