"""Machines: how they start, what becomes of them, what their serial ports said. Groups alone make them here.

A machine is PROVISIONING, then STAGING, then its guest is powered on (:mod:`osvdeploy.sandbox.runners`) from its
image's bytes and it is RUNNING; a guest that powers itself off leaves it TERMINATED. How long Google takes between the
states is documented nowhere; these are the sandbox's own, of the order that is seen.

Sources: Compute Engine API reference (Instance, getSerialPortOutput), "Compute instance lifecycle", "View serial port
output" (it is kept while the machine runs), "Allocation quotas".

The sandbox's own limits: no public addresses; of a serial port the last 64 KiB are kept (Google: 1 MB), and positions
count from the first byte of what is kept.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from osvdeploy.sandbox.blocks import reader
from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.faults import FaultKind
from osvdeploy.sandbox.google.compute import geography, machine_types
from osvdeploy.sandbox.google.compute.archive import BLOCK
from osvdeploy.sandbox.google.compute.operations import Wire, number, time
from osvdeploy.sandbox.google.compute.resources import (
    INSTANCE,
    TEMPLATE,
    begun,
    checked_labels,
    condition_not_met,
    fingerprint,
    found,
    its_path,
    link,
    not_ready,
    once,
    path_of,
)
from osvdeploy.sandbox.google.compute.templates import image_document, metadata
from osvdeploy.sandbox.google.wire import BASE
from osvdeploy.sandbox.loopback import own_address
from osvdeploy.sandbox.runners import Guest, GuestStatus, Power
from osvdeploy.sandbox.services.scope import Doc, Scope
from osvdeploy.sizes import GIB

DISK: Final = "compute.boot-disk"

STEP: Final = "compute.instance-step"
LOOK: Final = "compute.instance-look"
GONE: Final = "compute.instance-gone"

PROVISIONING: Final = 3.0
STAGING: Final = 3.0
STOPPING: Final = 10.0
"""Seconds in each state."""

RUNNING: Final = "RUNNING"


class NoMachine(Exception):
    """A machine cannot be made now: Google's code and words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


# -------------------------------------------------------------------------------------------------------------- making


def launch(scope: Scope, project: str, zone: str, name: str, template: Doc, manager: str) -> str:
    """Start a machine of a template's document for the group with this path. Its path. Raises :class:`NoMachine`."""
    properties, place = template["resource"]["properties"], f"zones/{zone}"
    machine = properties["machineType"]
    _check_supply(scope, project, zone, machine)
    [disk] = properties["disks"]
    source = path_of(disk["initializeParams"]["sourceImage"])
    image = image_document(scope, source)
    if image is None or image["resource"]["status"] != "READY":
        raise NoMachine("RESOURCE_NOT_FOUND", f"The resource '{source}' was not found")
    path = INSTANCE.path(project, place, name)
    identifier = number(scope)
    size = int(disk["initializeParams"].get("diskSizeGb", image["resource"]["diskSizeGb"]))
    scope.put(DISK, path, {"blocks": image["blocks"], "size": size * GIB})
    items = (properties["metadata"].get("items") or []) + [
        {"key": "instance-template", "value": its_path(TEMPLATE, template)},
        {"key": "created-by", "value": manager},
    ]
    [interface] = properties["networkInterfaces"]
    count = scope.count("compute.network-address")
    labels = properties["labels"]
    resource: Doc = {
        "kind": "compute#instance",
        "id": identifier,
        "creationTimestamp": time(scope.now),
        "name": name,
        "status": "PROVISIONING",
        "machineType": link(f"projects/{project}/{place}/machineTypes/{machine}"),
        "cpuPlatform": "Unknown CPU Platform",
        "disks": [
            {
                "kind": "compute#attachedDisk",
                "type": "PERSISTENT",
                "mode": "READ_WRITE",
                "boot": True,
                "index": 0,
                "autoDelete": disk["autoDelete"],
                "deviceName": disk.get("deviceName", "persistent-disk-0"),
                "diskSizeGb": str(size),
                "source": link(f"projects/{project}/{place}/disks/{name}"),
            }
        ],
        "networkInterfaces": [
            {**interface, "networkIP": f"10.{128 + count // 62500 % 100}.{count // 250 % 250}.{2 + count % 250}"}
        ],
        "metadata": metadata(items),
        "labels": labels,
        "labelFingerprint": fingerprint(labels),
        "tags": {**properties.get("tags", {}), "fingerprint": fingerprint(properties.get("tags"))},
        "scheduling": {"automaticRestart": True, "onHostMaintenance": "MIGRATE", **properties.get("scheduling", {})},
        "deletionProtection": False,
        "startRestricted": False,
    }
    taken = {each["address"] for each in scope.all(INSTANCE.store)}
    scope.put(
        INSTANCE.store,
        path,
        {
            "project": project,
            "place": place,
            "ready": True,
            "resource": resource,
            "machine": machine,
            "manager": manager,
            "address": own_address(f"gce {identifier} {scope.new_id(8)}", taken),
        },
    )
    scope.later(PROVISIONING, STEP, {"instance": path, "id": identifier, "status": "STAGING"})
    return path


def _check_supply(scope: Scope, project: str, zone: str, machine: str) -> None:
    region = geography.region_of(zone)
    match scope.shortage("compute:instances.insert"):
        case FaultKind.EXHAUSTED:
            told = (
                f"The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the "
            )
            raise NoMachine(
                "ZONE_RESOURCE_POOL_EXHAUSTED", f"{told}request.  Try a different zone, or try again later."
            )
        case FaultKind.QUOTA:
            raise NoMachine("QUOTA_EXCEEDED", f"Quota 'CPUS' exceeded.  Limit: 0.0 in region {region}.")
    usage = geography.used(scope, project, region)
    for metric, more in (("CPUS", machine_types.processors(machine)), ("INSTANCES", 1)):
        limit = geography.LIMITS[metric]
        if usage[metric] + more > limit:
            raise NoMachine("QUOTA_EXCEEDED", f"Quota '{metric}' exceeded.  Limit: {limit} in region {region}.")


# -------------------------------------------------------------------------------------------------------------- states


def _current(scope: Scope, payload: Wire, *states: str) -> Doc | None:
    """The machine, where it is still that one and in one of these states."""
    document = scope.get(INSTANCE.store, payload["instance"])
    if document is None or document["resource"]["id"] != payload["id"] or document["resource"]["status"] not in states:
        return None
    return document


def _become(scope: Scope, document: Doc, status: str) -> None:
    document["resource"]["status"] = status
    scope.put(INSTANCE.store, its_path(INSTANCE, document), document)


def step(scope: Scope, payload: Wire) -> None:
    document = _current(scope, payload, "PROVISIONING", "STAGING")
    if document is None:
        return
    if payload["status"] == "STAGING":
        _become(scope, document, "STAGING")
        scope.later(STAGING, STEP, {**payload, "status": RUNNING})
    else:
        _power_on(scope, payload, document)


def _power_on(scope: Scope, payload: Wire, document: Doc) -> None:
    """Start the guest from its own disk."""
    disk = scope.get(DISK, payload["instance"])
    assert disk is not None
    blocks, blobs = {int(index): digest for index, digest in disk["blocks"].items()}, scope.blobs

    def block(index: int) -> bytes:
        return blobs.get(blocks[index]) if index in blocks else bytes(BLOCK)

    guest = Guest(
        f"gce-{document['resource']['id']}",
        document["address"],
        reader(block, BLOCK, disk["size"]),
        disk["size"],
        machine_types.processors(document["machine"]),
    )
    runner, now = scope.runner, scope.now
    scope.outside(lambda: runner.start(guest, now), then=partial(_powered_on, dict(payload)))


def _powered_on(payload: Doc, scope: Scope, status: GuestStatus) -> None:
    document = _current(scope, payload, "STAGING", RUNNING)
    if document is None:  # ended meanwhile
        _power_off(scope, payload)
        return
    if document["resource"]["status"] == "STAGING":
        document["resource"]["lastStartTimestamp"] = time(scope.now)
        _become(scope, document, RUNNING)
    _seen(scope, payload, status)


def _power_off(scope: Scope, payload: Wire) -> None:
    runner, now, guest = scope.runner, scope.now, f"gce-{payload['id']}"
    scope.outside(lambda: runner.stop(guest, now), then=lambda scope, console: None)


def look_due(scope: Scope, payload: Wire) -> None:
    if _current(scope, payload, RUNNING) is not None:
        _seen(scope, payload, scope.runner.status(f"gce-{payload['id']}", scope.now))


def _seen(scope: Scope, payload: Wire, status: GuestStatus | None) -> None:
    """What a look at the guest leads to. One that its runner lost went the way of a power failure."""
    document = _current(scope, payload, RUNNING)
    if document is None:
        return
    if status is None or status.power is Power.OFF:
        document["resource"]["lastStopTimestamp"] = time(scope.now)
        _become(scope, document, "TERMINATED")
        _power_off(scope, payload)
    elif status.next_change is not None:
        scope.later(0, LOOK, dict(payload), after=status.next_change)


def look(scope: Scope) -> None:
    """See what guests did by themselves, for a runner that cannot say when a look is worth while."""
    for document in scope.all(INSTANCE.store):
        if document["resource"]["status"] == RUNNING:
            look_due(scope, _payload(document))


def resume(scope: Scope) -> None:
    """Go on with machines that another process left: guests that ran are powered on again."""
    for document in scope.all(INSTANCE.store):
        if document["resource"]["status"] == RUNNING:
            _power_on(scope, _payload(document), document)


def _payload(document: Doc) -> Doc:
    return {"instance": its_path(INSTANCE, document), "id": document["resource"]["id"]}


def end(scope: Scope, path: str) -> None:
    """Begin to delete a machine, whatever it does; nothing happens to one that goes already."""
    document = scope.get(INSTANCE.store, path)
    if document is not None and document["resource"]["status"] != "STOPPING":
        _become(scope, document, "STOPPING")
        _power_off(scope, _payload(document))
        scope.later(STOPPING, GONE, _payload(document))


def gone(scope: Scope, payload: Wire) -> None:
    if _current(scope, payload, "STOPPING") is not None:
        scope.delete(INSTANCE.store, payload["instance"])
        scope.delete(DISK, payload["instance"])


# --------------------------------------------------------------------------------------------------- looking, changing


def serial_port_output(scope: Scope, params: Wire) -> Doc:
    """From ``start`` on, a position of what is kept; a negative one counts from its end."""
    if params.get("port", 1) != 1:
        raise NotSimulated("other serial ports than the first")
    document = found(scope, params, INSTANCE)
    path = its_path(INSTANCE, document)
    if document["resource"]["status"] != RUNNING:
        raise not_ready(path)
    status = scope.runner.status(f"gce-{document['resource']['id']}", scope.now)
    console = b"" if status is None else status.console
    start = int(params.get("start", 0))
    start = max(0, len(console) + start) if start < 0 else min(start, len(console))
    return {
        "kind": "compute#serialPortOutput",
        "selfLink": f"{params[BASE]}/compute/v1/{path}/serialPort",
        "contents": console[start:].decode(errors="replace"),
        "start": str(start),
        "next": str(len(console)),
    }


@once("delete")
def delete(scope: Scope, params: Wire) -> Doc:
    """A group that has it makes it anew."""
    document = found(scope, params, INSTANCE)
    end(scope, its_path(INSTANCE, document))
    return begun(scope, params, INSTANCE, "delete", document, STOPPING)


@once("setLabels")
def set_labels(scope: Scope, params: Wire) -> Doc:
    body: Any = params.get("body") or {}
    document = found(scope, params, INSTANCE)
    if body.get("labelFingerprint") != document["resource"]["labelFingerprint"]:
        raise condition_not_met()
    labels = checked_labels(body.get("labels") or {}, "labels")
    document["resource"] |= {"labels": labels, "labelFingerprint": fingerprint(labels)}
    return _changed(scope, params, "setLabels", document)


@once("setMetadata")
def set_metadata(scope: Scope, params: Wire) -> Doc:
    body: Any = params.get("body") or {}
    document = found(scope, params, INSTANCE)
    if body.get("fingerprint") != document["resource"]["metadata"]["fingerprint"]:
        raise condition_not_met()
    document["resource"]["metadata"] = metadata(body.get("items") or [])
    return _changed(scope, params, "setMetadata", document)


def _changed(scope: Scope, params: Wire, verb: str, document: Doc) -> Doc:
    if document["resource"]["status"] == "STOPPING":
        raise ApiError("resourceNotReady", f"The resource '{its_path(INSTANCE, document)}' is not ready")
    scope.put(INSTANCE.store, its_path(INSTANCE, document), document)
    return begun(scope, params, INSTANCE, verb, document)
