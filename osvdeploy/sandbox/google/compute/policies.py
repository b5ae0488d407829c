"""What a managed group is to be, as its API writes it: versions and how it changes. Checked and completed.

Sources: Compute Engine API reference (InstanceGroupManager: versions, updatePolicy), "Automatically apply VM
configuration updates in a MIG" (surge and unavailability, regional groups, percentages).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from osvdeploy.sandbox.errors import NotSimulated
from osvdeploy.sandbox.google.compute import geography
from osvdeploy.sandbox.google.compute.operations import Wire
from osvdeploy.sandbox.google.compute.resources import TEMPLATE, invalid, link, missing, referred
from osvdeploy.sandbox.services.scope import Doc, Scope

PERCENT_FROM: Final = 10
"""Machines that a regional group must have before percentages are taken."""


def versions(scope: Scope, params: Wire, body: Wire) -> list[Doc]:
    """One or two, of which one has no size of its own: the rest is its. Raises ApiError."""
    given: Sequence[Doc] = body.get("versions") or []
    template = body.get("instanceTemplate")
    if not given and not template:
        raise missing("instanceTemplate")
    if not given:
        given = [{"instanceTemplate": template}]
    found = []
    for number, each in enumerate(given):
        field = f"versions[{number}].instanceTemplate"
        if "instanceTemplate" not in each:
            raise missing(field)
        path = template_path(scope, params, each["instanceTemplate"], field)
        size = each.get("targetSize")
        if size is not None and len({"fixed", "percent"} & size.keys()) != 1:
            raise invalid(f"versions[{number}].targetSize", size, "One of fixed and percent must be specified.")
        found.append({**each, "instanceTemplate": link(path)})
    if len(found) > 2:
        raise invalid("versions", len(found), "At most two versions can be specified.")
    if sum("targetSize" not in each for each in found) != 1:
        raise invalid("versions", len(found), "Exactly one version must have no targetSize.")
    if len({(each["instanceTemplate"], each.get("name")) for each in found}) < len(found):
        raise invalid("versions", len(found), "Versions must differ in their name or instance template.")
    if template and given is body.get("versions"):
        path = template_path(scope, params, template, "instanceTemplate")
        rest = next(each for each in found if "targetSize" not in each)
        if rest["instanceTemplate"] != link(path):
            raise invalid("instanceTemplate", template, "It differs from the one in versions.")
    return found


def template_path(scope: Scope, params: Wire, text: str, field: str) -> str:
    """The path of a template that a group of that place can have: a global one, or one of its region."""
    path, document = referred(scope, params, text, TEMPLATE, field)
    region = params["region"] if "region" in params else geography.region_of(params["zone"])
    if document["place"] not in ("global", f"regions/{region}"):
        raise invalid(field, text, "The instance template is in another region.")
    [interface] = document["resource"]["properties"]["networkInterfaces"]
    if f"/regions/{region}/" not in interface.get("subnetwork", f"/regions/{region}/"):
        raise invalid(field, text, "The subnetwork of the instance template is in another region.")
    return path


def wanted(resource: Wire) -> list[int]:
    """How many machines each version is to have."""
    total = int(resource["targetSize"])
    sizes = [
        min(total, amount(each["targetSize"], total)) if "targetSize" in each else -1 for each in resource["versions"]
    ]
    rest = total - sum(size for size in sizes if size >= 0)
    return [rest if size < 0 else size for size in sizes]


def amount(given: Wire, total: int) -> int:
    """Machines that a number or a share of ``total`` is; shares are rounded up."""
    return int(given["fixed"]) if "fixed" in given else -(-int(given["percent"]) * total // 100)


def update_policy(given: Wire, *, zones: int, size: int) -> Doc:
    """With what Google puts where nothing is said. ``zones`` is 1 for a group in one zone. Raises ApiError."""
    method = given.get("replacementMethod") or "SUBSTITUTE"
    surge = 0 if method == "RECREATE" else zones
    policy: Doc = {
        "type": "OPPORTUNISTIC",
        "minimalAction": "REPLACE",
        "maxSurge": {"fixed": surge},
        "maxUnavailable": {"fixed": zones},
        **({"instanceRedistributionType": "PROACTIVE"} if zones > 1 else {}),
        **{name: value for name, value in given.items() if value is not None},
        "replacementMethod": method,
    }
    if policy.get("mostDisruptiveAllowedAction", "REPLACE") != "REPLACE" or policy["minimalAction"] != "REPLACE":
        raise NotSimulated("updates of groups that replace no machine")
    if policy.get("instanceRedistributionType") == "PROACTIVE" and zones == 1:
        raise invalid("updatePolicy.instanceRedistributionType", "PROACTIVE", "Only regional groups redistribute.")
    for name in ("maxSurge", "maxUnavailable"):
        policy[name] = _allowed(name, policy[name], zones, size)
    if policy["maxSurge"]["calculated"] == 0 == policy["maxUnavailable"]["calculated"] and size:
        raise invalid("updatePolicy", "", "maxSurge and maxUnavailable cannot both be 0.")
    if method == "RECREATE" and policy["maxSurge"]["calculated"]:
        raise invalid("updatePolicy.maxSurge", policy["maxSurge"], "It must be 0 for the replacement method RECREATE.")
    return policy


def _allowed(name: str, given: Wire, zones: int, size: int) -> Doc:
    field = f"updatePolicy.{name}"
    chosen: dict[str, Any] = {key: value for key, value in given.items() if key in ("fixed", "percent")}
    if len(chosen) != 1 or min(chosen.values()) < 0:
        raise invalid(field, given, "One of fixed and percent must be specified, not below 0.")
    if zones > 1:
        if "percent" in chosen and size < PERCENT_FROM:
            raise invalid(field, given, f"Percentages can be used for groups of {PERCENT_FROM} machines or more.")
        if 0 < chosen.get("fixed", zones) < zones:
            raise invalid(field, given, f"Fixed value must be 0 or at least the number of zones, {zones}.")
    return {**chosen, "calculated": amount(chosen, size)}
