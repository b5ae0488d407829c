"""Managed instance groups, of a zone or a region: the calls. What a group does by itself is in :mod:`.managing`.

Sources: Compute Engine API reference (instanceGroupManagers, regionInstanceGroupManagers, instanceGroups), "Basic
scenarios for creating MIGs", "Delete and abandon VMs in a MIG", "Regional MIGs".

The sandbox's own limits, each refused as not simulated: no autohealing, stateful policies, standby or target pools;
machines are spread evenly over zones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.google.compute import geography, managing, policies
from osvdeploy.sandbox.google.compute.lists import page_of
from osvdeploy.sandbox.google.compute.managing import look_soon, members_of
from osvdeploy.sandbox.google.compute.operations import Wire, key
from osvdeploy.sandbox.google.compute.resources import (
    AUTOSCALER,
    GROUP,
    INSTANCE,
    MANAGER,
    SERVICE,
    begun,
    completed,
    fingerprint,
    found,
    hold_to,
    in_use,
    invalid,
    its_path,
    link,
    made,
    merged,
    missing,
    named,
    once,
    path_of,
)
from osvdeploy.sandbox.google.wire import BASE
from osvdeploy.sandbox.services.scope import Doc, Scope

LARGEST: Final = {"zones": 1000, "regions": 2000}
"""Machines in a group."""

MOST_NAMED: Final = 1000
"""Instances that one request can name."""

_BASE_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,57})")
_PREFIX = "compute.instanceGroupManagers."


@once(_PREFIX + "insert")
def insert(scope: Scope, params: Wire) -> Doc:
    geography.check_place(params)
    body = params.get("body") or {}
    name = named(body)
    if "targetSize" not in body:
        raise missing("targetSize")
    base = body.get("baseInstanceName") or name[:58]
    if not _BASE_NAME.fullmatch(base):
        raise invalid("baseInstanceName", base, "It must be a name of at most 58 characters.")
    zones = _zones(params, body)
    size = _size(params, body["targetSize"])
    versions = policies.versions(scope, params, body)
    spread = {
        "zones": [{"zone": link(f"projects/{params['project']}/zones/{each}")} for each in zones],
        "targetShape": "EVEN",
    }
    ports = _ports(body.get("namedPorts") or [])
    group = made(scope, params, GROUP, {"name": name, "namedPorts": ports, **_description(body)})
    document = made(
        scope,
        params,
        MANAGER,
        {
            "name": name,
            **_description(body),
            "baseInstanceName": base,
            "versions": versions,
            "targetSize": size,
            "updatePolicy": policies.update_policy(body.get("updatePolicy") or {}, zones=len(zones), size=size),
            "instanceGroup": link(its_path(GROUP, group)),
            **({"distributionPolicy": spread} if "region" in params else {}),
        },
        zones=zones,
        watch=0,
        errors=[],
    )
    scope.put(GROUP.store, its_path(GROUP, group), {**group, "ready": True})
    look_soon(scope, document)
    return begun(scope, params, MANAGER, _PREFIX + "insert", document)


def _description(body: Wire) -> Doc:
    return {"description": body["description"]} if "description" in body else {}


def _zones(params: Wire, body: Wire) -> list[str]:
    """Where a new group's machines go: by default, of a region, its first three zones."""
    if "zone" in params:
        if body.get("distributionPolicy"):
            raise invalid("distributionPolicy", "", "It can only be specified for a regional group.")
        return [params["zone"]]
    policy, there = body.get("distributionPolicy") or {}, geography.zones_of(params["region"])
    if policy.get("targetShape", "EVEN") != "EVEN":
        raise NotSimulated("machines that are not spread evenly over zones")
    asked = [str(each.get("zone", "")).rpartition("/")[2] for each in policy.get("zones") or []]
    for zone in asked:
        if zone not in there:
            raise invalid("distributionPolicy.zones", zone, f"It is no zone of {params['region']}.")
    if len(set(asked)) != len(asked):
        raise invalid("distributionPolicy.zones", ", ".join(asked), "Duplicate zones.")
    return asked or there[:3]


def _size(params: Wire, size: int | None) -> int:
    largest = LARGEST["regions" if "region" in params else "zones"]
    if size is None or not 0 <= size <= largest:
        raise invalid("targetSize", size, f"Must be between 0 and {largest}.")
    return size


# ------------------------------------------------------------------------------------------------------------- looking


def shown(scope: Scope, document: Doc) -> Doc:
    """A group with what it does now."""
    resource, path = document["resource"], its_path(MANAGER, document)
    members = members_of(scope, path)
    actions = dict.fromkeys(managing.ACTIONS, 0)
    for member in members:
        actions[managing.ACTION_FIELDS[member["action"]]] += 1
    group = scope.get(GROUP.store, path_of(resource["instanceGroup"]))
    state = managing.state_of(scope, document)
    autoscaler = managing.autoscaler_of(scope, path)
    rest = next(each for each in resource["versions"] if "targetSize" not in each)
    sizes = policies.wanted(resource)
    versions = [
        {**each, **({"targetSize": {**each["targetSize"], "calculated": size}} if "targetSize" in each else {})}
        for each, size in zip(resource["versions"], sizes, strict=True)
    ]
    return {
        **resource,
        "versions": versions,
        "instanceTemplate": rest["instanceTemplate"],
        "namedPorts": [] if group is None else group["resource"]["namedPorts"],
        "currentActions": actions,
        "fingerprint": _fingerprint(document),
        "status": {
            "isStable": state.stable and document["ready"],
            "versionTarget": {"isReached": state.reached},
            "stateful": {"hasStatefulConfig": False},
            **({} if autoscaler is None else {"autoscaler": link(its_path(AUTOSCALER, autoscaler))}),
        },
    }


def _fingerprint(document: Doc) -> str:
    names = ("versions", "updatePolicy", "targetSize", "baseInstanceName")
    return fingerprint([document["resource"][name] for name in names])


def list_managed(scope: Scope, params: Wire) -> Doc:
    document = found(scope, params, MANAGER)
    members = [completed(params, _managed(scope, each)) for each in members_of(scope, its_path(MANAGER, document))]
    base = f"{params[BASE]}/compute/v1/{its_path(MANAGER, document)}"
    page = page_of("", base, members, params, dict)
    token = {"nextPageToken": page["nextPageToken"]} if "nextPageToken" in page else {}
    return {"managedInstances": page.get("items", []), **token}


def _managed(scope: Scope, member: Doc) -> Doc:
    instance = scope.get(INSTANCE.store, managing.instance_path(member))
    there: Doc = {}
    if instance is not None:
        there = {"id": instance["resource"]["id"], "instanceStatus": instance["resource"]["status"]}
    version = {"instanceTemplate": link(member["template"])} | (
        {"name": member["version"]} if member["version"] else {}
    )
    return {
        "instance": link(managing.instance_path(member)),
        "name": member["name"],
        "currentAction": member["action"],
        "version": version,
        **there,
        "lastAttempt": {"errors": {"errors": member["errors"]}} if member["errors"] else {},
    }


def list_errors(scope: Scope, params: Wire) -> Doc:
    """What kept a group from making machines, the newest last."""
    document = found(scope, params, MANAGER)
    base = f"{params[BASE]}/compute/v1/{its_path(MANAGER, document)}"
    named_ = [{**each, "name": f"{number:06}"} for number, each in enumerate(document["errors"])]
    page = page_of(
        "", base, named_, params, lambda each: completed(params, {n: v for n, v in each.items() if n != "name"})
    )
    token = {"nextPageToken": page["nextPageToken"]} if "nextPageToken" in page else {}
    return {"items": page.get("items", []), **token}


def group_shown(scope: Scope, document: Doc) -> Doc:
    """An instance group, which its manager made."""
    resource = document["resource"]
    manager = scope.get(MANAGER.store, MANAGER.path(document["project"], document["place"], resource["name"]))
    members = [] if manager is None else members_of(scope, its_path(MANAGER, manager))
    return {**resource, "size": len(members), "fingerprint": fingerprint(resource["namedPorts"])}


def list_group_instances(scope: Scope, params: Wire) -> Doc:
    document = found(scope, params, GROUP)
    wanted = (params.get("body") or {}).get("instanceState", "ALL")
    path = MANAGER.path(document["project"], document["place"], document["resource"]["name"])
    lines = []
    for member in members_of(scope, path):
        instance = scope.get(INSTANCE.store, managing.instance_path(member))
        if instance is None or (wanted == "RUNNING" and instance["resource"]["status"] != "RUNNING"):
            continue
        line = {"instance": link(managing.instance_path(member)), "status": instance["resource"]["status"]}
        lines.append(
            completed(params, {**line, "namedPorts": document["resource"]["namedPorts"], "name": member["name"]})
        )
    base = f"{params[BASE]}/compute/v1/{its_path(GROUP, document)}"
    return page_of(
        "compute#instanceGroupsListInstances",
        base,
        lines,
        params,
        lambda each: {name: value for name, value in each.items() if name != "name"},
    )


# ------------------------------------------------------------------------------------------------------------ changing


def _changed(scope: Scope, params: Wire, verb: str, document: Doc) -> Doc:
    scope.put(MANAGER.store, its_path(MANAGER, document), document)
    look_soon(scope, document)
    return begun(scope, params, MANAGER, _PREFIX + verb, document)


@once(_PREFIX + "patch")
def patch(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    document = found(scope, params, MANAGER, ready=True)
    hold_to(body, _fingerprint(document))
    resource = document["resource"]
    if "versions" in body or "instanceTemplate" in body:
        resource["versions"] = policies.versions(scope, params, body)
    if "targetSize" in body:
        resource["targetSize"] = _size(params, body["targetSize"])
    if "baseInstanceName" in body:
        if not _BASE_NAME.fullmatch(body["baseInstanceName"] or ""):
            raise invalid("baseInstanceName", body["baseInstanceName"], "It must be a name of at most 58 characters.")
        resource["baseInstanceName"] = body["baseInstanceName"]
    changed = body.get("updatePolicy") or {}
    # Of a number and a share the one that was sent last counts, not both.
    policy = merged(resource["updatePolicy"], changed) | {name: each for name, each in changed.items() if each}
    resource["updatePolicy"] = policies.update_policy(policy, zones=len(document["zones"]), size=resource["targetSize"])
    return _changed(scope, params, "patch", document)


@once(_PREFIX + "setInstanceTemplate")
def set_template(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    document = found(scope, params, MANAGER, ready=True)
    if "instanceTemplate" not in body:
        raise missing("instanceTemplate")
    path = policies.template_path(scope, params, body["instanceTemplate"], "instanceTemplate")
    document["resource"]["versions"] = [{"instanceTemplate": link(path)}]
    return _changed(scope, params, "setInstanceTemplate", document)


@once(_PREFIX + "resize")
def resize(scope: Scope, params: Wire) -> Doc:
    """Of a group in a zone an autoscaler takes it back; of one in a region Google refuses it, as users report."""
    document = found(scope, params, MANAGER, ready=True)
    autoscaler = managing.autoscaler_of(scope, its_path(MANAGER, document))
    if "region" in params and autoscaler is not None and autoscaler["resource"]["autoscalingPolicy"]["mode"] != "OFF":
        told = "Resizing of autoscaled regional managed instance groups is not allowed. If you want to manually adjust "
        told += "target size remove the autoscaler or set autoscaling policy mode to OFF."
        raise ApiError("conditionNotMet", told, 412)
    document["resource"]["targetSize"] = _size(params, params["size"])
    return _changed(scope, params, "resize", document)


@once(_PREFIX + "delete")
def delete(scope: Scope, params: Wire) -> Doc:
    """Its machines go first; the operation is over when the last of them has."""
    document = found(scope, params, MANAGER, ready=True)
    path = its_path(MANAGER, document)
    autoscaler = managing.autoscaler_of(scope, path)
    if autoscaler is not None:
        raise in_use(MANAGER, path, AUTOSCALER, its_path(AUTOSCALER, autoscaler))
    group = path_of(document["resource"]["instanceGroup"])
    for service in managing.services_of(scope, group):
        raise in_use(GROUP, group, SERVICE, its_path(SERVICE, service))
    document["ready"] = False
    document["resource"]["targetSize"] = 0
    operation = begun(scope, params, MANAGER, _PREFIX + "delete", document, None)
    document["ending"] = key(params["project"], operation["name"])
    scope.put(MANAGER.store, path, document)
    for member in members_of(scope, path):
        managing.take_out(scope, document, member)
    look_soon(scope, document)
    return operation


@once(_PREFIX + "recreateInstances")
def recreate_instances(scope: Scope, params: Wire) -> Doc:
    document = found(scope, params, MANAGER, ready=True)
    for member in _chosen(scope, document, params):
        managing.recreate(scope, member)
    return _changed(scope, params, "recreateInstances", document)


@once(_PREFIX + "deleteInstances")
def delete_instances(scope: Scope, params: Wire) -> Doc:
    """The group is smaller by them afterwards."""
    document = found(scope, params, MANAGER, ready=True)
    for member in _chosen(scope, document, params):
        if member["action"] != "DELETING":
            document["resource"]["targetSize"] -= 1
            managing.take_out(scope, document, member)
    return _changed(scope, params, "deleteInstances", document)


@once(_PREFIX + "abandonInstances")
def abandon_instances(scope: Scope, params: Wire) -> Doc:
    """They run on, and belong to nobody."""
    document = found(scope, params, MANAGER, ready=True)
    for member in _chosen(scope, document, params):
        document["resource"]["targetSize"] -= 1
        managing.forget(scope, member)
    return _changed(scope, params, "abandonInstances", document)


def _chosen(scope: Scope, document: Doc, params: Wire) -> Sequence[Doc]:
    """The members that a request names, each once. Raises ApiError for what is none."""
    asked = (params.get("body") or {}).get("instances") or []
    if not asked:
        raise missing("instances")
    if len(asked) > MOST_NAMED:
        raise invalid("instances", len(asked), f"At most {MOST_NAMED} instances can be specified.")
    there = {managing.instance_path(each): each for each in members_of(scope, its_path(MANAGER, document))}
    chosen = []
    for text in asked:
        path = re.sub(r"^(?:https?://[^/]+/compute/v1/|/)", "", text)
        path = path if path.startswith("projects/") else f"projects/{params['project']}/{path}"
        if path not in there:
            raise invalid("instances", text, "The instance is not a member of the group.")
        chosen.append(there[path])
    if len({each["name"] for each in chosen}) < len(chosen):
        raise invalid("instances", len(chosen), "Duplicate instances.")
    return chosen


@once("setNamedPorts")
def set_named_ports(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    document = found(scope, params, GROUP, ready=True)
    hold_to(body, fingerprint(document["resource"]["namedPorts"]))
    document["resource"]["namedPorts"] = _ports(body.get("namedPorts") or [])
    scope.put(GROUP.store, its_path(GROUP, document), document)
    return begun(scope, params, GROUP, "setNamedPorts", document)


def _ports(ports: Sequence[Doc]) -> list[Doc]:
    for each in ports:
        if not re.fullmatch(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?", each.get("name", "")):
            raise invalid("namedPorts.name", each.get("name", ""), "It must comply with RFC1035.")
        if not 1 <= each.get("port", 0) <= 65535:
            raise invalid("namedPorts.port", each.get("port", ""), "It must be between 1 and 65535.")
    return [{"name": each["name"], "port": each["port"]} for each in ports]
