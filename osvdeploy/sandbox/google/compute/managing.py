"""What managed groups do by themselves: make, replace and end machines until each is as it is to be.

A group is watched by an event of its own, each :data:`BUSY` seconds while something is under way and each :data:`IDLE`
otherwise. How long Google takes between the steps is documented nowhere; these are the sandbox's own. Sources: Compute
Engine API reference (ManagedInstance, InstanceGroupManagerStatus), "About repairing VMs for high availability in MIGs",
"Enable connection draining", "Turn off or restrict an autoscaler".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from osvdeploy.sandbox.google.compute import instances, operations, policies
from osvdeploy.sandbox.google.compute.instances import NoMachine
from osvdeploy.sandbox.google.compute.operations import Wire
from osvdeploy.sandbox.google.compute.resources import (
    AUTOSCALER,
    GROUP,
    INSTANCE,
    MANAGER,
    SERVICE,
    TEMPLATE,
    its_path,
    link,
    path_of,
)
from osvdeploy.sandbox.services.scope import Doc, Scope

MEMBER: Final = "compute.member"

LOOK: Final = "compute.group-look"

FIRST, BUSY, IDLE = 1.0, 2.0, 15.0
"""Seconds until a group looks after a change, while it is busy, and when it is not."""

RETRY_FIRST, RETRY_LAST = 10.0, 300.0
"""Seconds until a machine that could not be made is tried again: doubled each time up to the last."""

ERRORS_KEPT: Final = 50

ACTION_FIELDS: Final = {
    "NONE": "none",
    "CREATING": "creating",
    "RECREATING": "recreating",
    "DELETING": "deleting",
}
ACTIONS: Final = (
    *ACTION_FIELDS.values(),
    "abandoning",
    "creatingWithoutRetries",
    "refreshing",
    "restarting",
    "resuming",
    "starting",
    "stopping",
    "suspending",
    "verifying",
)


@dataclass(frozen=True, slots=True)
class State:
    """``stable``: nothing is under way or to come. ``reached``: every version has the machines it is to have."""

    stable: bool
    reached: bool


# ----------------------------------------------------------------------------------------------------------- look-ups


def members_of(scope: Scope, group: str) -> list[Doc]:
    return [each for each in scope.all(MEMBER) if each["group"] == group]


def _alive(members: Sequence[Doc]) -> list[Doc]:
    return [each for each in members if each["action"] != "DELETING"]


def instance_path(member: Doc) -> str:
    return INSTANCE.path(member["project"], f"zones/{member['zone']}", member["name"])


def autoscaler_of(scope: Scope, group: str) -> Doc | None:
    """The autoscaler of the group with this path."""
    return next((each for each in scope.all(AUTOSCALER.store) if path_of(each["resource"]["target"]) == group), None)


def services_of(scope: Scope, group: str) -> list[Doc]:
    """Backend services with this instance group."""
    return [
        each
        for each in scope.all(SERVICE.store)
        if any(path_of(backend["group"]) == group for backend in each["resource"].get("backends", []))
    ]


def state_of(scope: Scope, document: Doc) -> State:
    members = members_of(scope, its_path(MANAGER, document))
    short, outdated = _differences(document, _alive(members))
    reached = not short and not outdated
    at_rest = all(each["action"] == "NONE" for each in members)
    sized = len(members) == document["resource"]["targetSize"]
    proactive = document["resource"]["updatePolicy"]["type"] == "PROACTIVE"
    return State(at_rest and sized and (reached or not proactive), reached)


def _differences(document: Doc, alive: Sequence[Doc]) -> tuple[list[Doc], list[Doc]]:
    """The versions that have too few machines, each as often as it lacks one, and the machines that none wants."""
    short, spare = [], list(alive)
    versions = document["resource"]["versions"]
    for version, count in zip(versions, policies.wanted(document["resource"]), strict=True):
        mine = [each for each in spare if _is_of(each, version)][:count]
        spare = [each for each in spare if each not in mine]
        short += [version] * (count - len(mine))
    return short, spare


def _is_of(member: Doc, version: Wire) -> bool:
    return bool(
        member["template"] == path_of(version["instanceTemplate"]) and member["version"] == version.get("name", "")
    )


def _keep(scope: Scope, member: Doc) -> None:
    scope.put(MEMBER, f"{member['group']}/{member['name']}", member)


def forget(scope: Scope, member: Doc) -> None:
    scope.delete(MEMBER, f"{member['group']}/{member['name']}")


# --------------------------------------------------------------------------------------------------------- what it does


def look_soon(scope: Scope, document: Doc, seconds: float = FIRST) -> None:
    """Let a group look at itself; what was planned before is off."""
    document["watch"] += 1
    path = its_path(MANAGER, document)
    scope.put(MANAGER.store, path, document)
    scope.later(seconds, LOOK, {"group": path, "id": document["resource"]["id"], "watch": document["watch"]})


def look(scope: Scope, payload: Wire) -> None:
    path = payload["group"]
    document = scope.get(MANAGER.store, path)
    if document is None or (document["resource"]["id"], document["watch"]) != (payload["id"], payload["watch"]):
        return
    for member in members_of(scope, path):
        _follow(scope, document, member)
    if "ending" in document:
        if members_of(scope, path):
            look_soon(scope, document, BUSY)
            return
        scope.delete(MANAGER.store, path)
        scope.delete(GROUP.store, path_of(document["resource"]["instanceGroup"]))
        operations.end(scope, document["ending"])
        return
    _autoscale(scope, document)
    _converge(scope, document)
    look_soon(scope, document, IDLE if state_of(scope, document).stable else BUSY)


def _autoscale(scope: Scope, document: Doc) -> None:
    """An autoscaler keeps a group within its bounds. Nothing here has a load for it to follow."""
    autoscaler = autoscaler_of(scope, its_path(MANAGER, document))
    if autoscaler is None:
        return
    policy = autoscaler["resource"]["autoscalingPolicy"]
    size, mode = document["resource"]["targetSize"], policy["mode"]
    if mode != "OFF":
        size = max(size, policy["minNumReplicas"])
    if mode == "ON":
        size = min(size, policy["maxNumReplicas"])
    document["resource"]["targetSize"] = size


def _follow(scope: Scope, document: Doc, member: Doc) -> None:
    """Take in what became of one machine."""
    instance = scope.get(INSTANCE.store, instance_path(member))
    status = "" if instance is None else instance["resource"]["status"]
    match member["action"]:
        case "DELETING":
            if status and status != "STOPPING" and scope.now >= datetime.fromisoformat(member["ends"]):
                instances.end(scope, instance_path(member))
            if not status:
                forget(scope, member)
        case "NONE" if status != instances.RUNNING:
            # It ended by itself, or by a hand that is not the group's: the group makes it anew, under its name.
            recreate(scope, member)
        case "CREATING" | "RECREATING" if not status:
            _launch(scope, document, member)
        case "CREATING" | "RECREATING" if status == "TERMINATED":
            recreate(scope, member)
        case "CREATING" | "RECREATING" if status == instances.RUNNING:
            _keep(scope, {**member, "action": "NONE", "errors": [], "tries": 0})


def recreate(scope: Scope, member: Doc) -> None:
    """End a machine; another one takes its name when it is gone."""
    instances.end(scope, instance_path(member))
    _keep(scope, {**member, "action": "RECREATING"})


def take_out(scope: Scope, document: Doc, member: Doc) -> None:
    """End a machine for good: it gets nothing new from now on, and ends when it has drained."""
    delay = max(
        [
            int(each["resource"].get("connectionDraining", {}).get("drainingTimeoutSec", 0))
            for each in services_of(scope, path_of(document["resource"]["instanceGroup"]))
        ],
        default=0,
    )
    if member["action"] == "DELETING":
        return
    there = scope.get(INSTANCE.store, instance_path(member))
    serves = there is not None and there["resource"]["status"] == instances.RUNNING
    ends = scope.now + timedelta(seconds=delay / scope.speed if serves else 0)
    _keep(scope, {**member, "action": "DELETING", "ends": ends.isoformat()})
    if ends <= scope.now:
        instances.end(scope, instance_path(member))


def _converge(scope: Scope, document: Doc) -> None:
    """One step towards the machines that each version is to have."""
    resource, path = document["resource"], its_path(MANAGER, document)
    policy, size = resource["updatePolicy"], resource["targetSize"]
    proactive = policy["type"] == "PROACTIVE"
    alive = _alive(members_of(scope, path))
    short, outdated = _differences(document, alive)
    surge = policies.amount(policy["maxSurge"], size) if proactive and outdated else 0
    for version in short[: max(0, size + surge - len(alive))]:
        _create(scope, document, version)
    at_work = [each for each in alive if each["action"] == "NONE"]
    spare = len(at_work) - (size - policies.amount(policy["maxUnavailable"], size))
    ending = []
    if proactive:
        waiting = [each for each in outdated if each["action"] != "NONE"]
        ending = waiting + [each for each in outdated if each["action"] == "NONE"][: max(0, spare)]
    left = [each for each in alive if each not in ending]
    while len(left) > size and not (proactive and outdated):
        victim = _victim(left, outdated)
        left.remove(victim)
        ending.append(victim)
    for member in ending:
        if proactive and policy["replacementMethod"] == "RECREATE" and short:
            _keep_as(scope, member, short.pop(0))
        else:
            take_out(scope, document, member)


def _keep_as(scope: Scope, member: Doc, version: Wire) -> None:
    """Have a machine made anew as another version, under its name."""
    recreate(scope, {**member, "template": path_of(version["instanceTemplate"]), "version": version.get("name", "")})


def _victim(alive: Sequence[Doc], outdated: Sequence[Doc]) -> Doc:
    """One that does not run, else one of an old version, else the newest in the zone with most."""
    zones = [each["zone"] for each in alive]
    return max(
        enumerate(alive),
        key=lambda each: (each[1]["action"] != "NONE", each[1] in outdated, zones.count(each[1]["zone"]), each[0]),
    )[1]


def _create(scope: Scope, document: Doc, version: Wire) -> None:
    resource, path = document["resource"], its_path(MANAGER, document)
    members = members_of(scope, path)
    used = [each["zone"] for each in _alive(members)]
    taken = {each["name"] for each in members}
    name = f"{resource['baseInstanceName']}-{scope.new_id(4)}"
    while name in taken:
        name = f"{resource['baseInstanceName']}-{scope.new_id(4)}"
    member = {
        "group": path,
        "project": document["project"],
        "name": name,
        "zone": min(document["zones"], key=used.count),
        "action": "CREATING",
        "template": path_of(version["instanceTemplate"]),
        "version": version.get("name", ""),
        "errors": [],
        "tries": 0,
    }
    _keep(scope, member)
    _launch(scope, document, member)


def _launch(scope: Scope, document: Doc, member: Doc) -> None:
    """Make a member's machine, or note why not and when to try again."""
    if "retry" in member and scope.now < datetime.fromisoformat(member["retry"]):
        return
    template = scope.get(TEMPLATE.store, member["template"])
    if template is None:
        # Its version is one of the past: it is made as the group is now.
        version = document["resource"]["versions"][0]
        member |= {"template": path_of(version["instanceTemplate"]), "version": version.get("name", "")}
        template = scope.get(TEMPLATE.store, member["template"])
        assert template is not None, "a template that a group has cannot be deleted"
    try:
        instances.launch(scope, member["project"], member["zone"], member["name"], template, member["group"])
    except NoMachine as none:
        _note(scope, document, member, none)
        pause = min(RETRY_FIRST * 2 ** member["tries"], RETRY_LAST) / scope.speed
        member |= {
            "errors": [{"code": none.code, "message": none.message}],
            "tries": member["tries"] + 1,
            "retry": (scope.now + timedelta(seconds=pause)).isoformat(),
        }
    else:
        member.pop("retry", None)
    _keep(scope, member)


def _note(scope: Scope, document: Doc, member: Doc, none: NoMachine) -> None:
    """Keep what listErrors tells: the last :data:`ERRORS_KEPT`."""
    action = {"instance": link(instance_path(member)), "action": member["action"]}
    version = {"instanceTemplate": link(member["template"])} | (
        {"name": member["version"]} if member["version"] else {}
    )
    error = {
        "error": {"code": none.code, "message": none.message},
        "instanceActionDetails": {**action, "version": version},
        "timestamp": operations.time(scope.now),
    }
    document["errors"] = [*document["errors"], error][-ERRORS_KEPT:]
    scope.put(MANAGER.store, its_path(MANAGER, document), document)
