"""Instance templates: what the machines of a group are made of. A template never changes.

Sources: Compute Engine API reference (InstanceTemplate, InstanceProperties), "Create instance templates".

The sandbox's own limits, each refused as not simulated: more than one disk, machines that are not x86-64, Spot ones.
No firewall is between a machine and a balancer.
"""

from __future__ import annotations

import re
from typing import Final

from osvdeploy.sandbox.errors import NotSimulated
from osvdeploy.sandbox.google.compute import geography, images, machine_types, networks
from osvdeploy.sandbox.google.compute.operations import Wire, key
from osvdeploy.sandbox.google.compute.resources import (
    MANAGER,
    TEMPLATE,
    begun,
    checked_labels,
    fingerprint,
    in_use,
    invalid,
    its_path,
    link,
    made,
    missing,
    named,
    once,
    path_of,
)
from osvdeploy.sandbox.services.scope import Doc, Scope

BODY: Final = (
    "name description properties.description properties.machineType properties.labels properties.tags.items "
    "properties.canIpForward properties.metadata.items.key properties.metadata.items.value "
    "properties.scheduling.automaticRestart properties.scheduling.onHostMaintenance "
    "properties.scheduling.preemptible properties.scheduling.provisioningModel "
    "properties.serviceAccounts.email properties.serviceAccounts.scopes "
    "properties.shieldedInstanceConfig.enableSecureBoot properties.shieldedInstanceConfig.enableVtpm "
    "properties.shieldedInstanceConfig.enableIntegrityMonitoring "
    "properties.disks.autoDelete properties.disks.boot properties.disks.deviceName properties.disks.interface "
    "properties.disks.mode properties.disks.type properties.disks.diskSizeGb "
    "properties.disks.initializeParams.sourceImage properties.disks.initializeParams.diskSizeGb "
    "properties.disks.initializeParams.diskType properties.disks.initializeParams.labels "
    "properties.networkInterfaces.network properties.networkInterfaces.subnetwork properties.networkInterfaces.name "
    "properties.networkInterfaces.nicType properties.networkInterfaces.stackType "
    "properties.networkInterfaces.accessConfigs.name properties.networkInterfaces.accessConfigs.type "
    "properties.networkInterfaces.accessConfigs.networkTier"
)
"""What of a template is simulated, or changes nothing here."""

DISK_TYPES: Final = ("pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced")

_IMAGE = re.compile(r"(?:https?://[^/]+/compute/v1/|/)?(?:projects/([^/]+)/)?global/images/(family/)?([^/]+)")


@once("insert")
def insert(scope: Scope, params: Wire) -> Doc:
    geography.check_place(params)
    body = params.get("body") or {}
    name, properties = named(body), body.get("properties")
    if not properties:
        raise missing("properties")
    machine = properties.get("machineType", "")
    if not machine_types.processors(machine):
        raise invalid("properties.machineType", machine, "Machine type specified does not exist.")
    if machine_types.is_arm(machine):
        raise NotSimulated(f"machines of type {machine}: Arm")
    scheduling = properties.get("scheduling") or {}
    if scheduling.get("preemptible") or scheduling.get("provisioningModel", "STANDARD") != "STANDARD":
        raise NotSimulated("preemptible and Spot machines")
    if (properties.get("shieldedInstanceConfig") or {}).get("enableSecureBoot"):
        raise NotSimulated("machines with Secure Boot")
    _check_metadata(properties)
    properties = {
        **properties,
        "disks": _disks(scope, params, properties),
        "networkInterfaces": _interfaces(scope, params, properties),
        "labels": checked_labels(properties.get("labels") or {}, "properties.labels"),
        "metadata": metadata((properties.get("metadata") or {}).get("items") or []),
    }
    described = {"description": body["description"]} if "description" in body else {}
    return begun(
        scope,
        params,
        TEMPLATE,
        "insert",
        made(scope, params, TEMPLATE, {"name": name, **described, "properties": properties}),
    )


def metadata(items: list[Doc]) -> Doc:
    return {"kind": "compute#metadata", "fingerprint": fingerprint(items), **({"items": items} if items else {})}


def _check_metadata(properties: Wire) -> None:
    keys = [each.get("key", "") for each in (properties.get("metadata") or {}).get("items") or []]
    for each in keys:
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", each):
            raise invalid("properties.metadata.items", each, "Metadata key does not match the requirements.")
    if len(set(keys)) != len(keys):
        raise invalid("properties.metadata.items", ", ".join(keys), "Duplicate metadata keys.")


def _disks(scope: Scope, params: Wire, properties: Wire) -> list[Doc]:
    disks = properties.get("disks") or []
    if not disks or not disks[0].get("boot"):
        raise invalid("properties.disks", len(disks), "Boot disk must be specified as the first disk.")
    if len(disks) > 1:
        raise NotSimulated("machines with more than one disk")
    [disk] = disks
    parameters = disk.get("initializeParams") or {}
    source = parameters.get("sourceImage")
    if disk.get("mode", "READ_WRITE") != "READ_WRITE" or disk.get("type", "PERSISTENT") != "PERSISTENT":
        raise NotSimulated("boot disks that are scratch or read-only")
    if not source:
        raise invalid("properties.disks[0].initializeParams.sourceImage", "", "A boot disk needs a source image.")
    kind = parameters.get("diskType", "pd-standard")
    if kind not in DISK_TYPES:
        raise invalid("properties.disks[0].initializeParams.diskType", kind, "No such disk type.")
    path, size = image(scope, params["project"], source, "properties.disks[0].initializeParams.sourceImage")
    wanted = parameters.get("diskSizeGb", disk.get("diskSizeGb"))
    if wanted is not None and int(wanted) < size:
        told = f"Requested disk size cannot be smaller than the image size ({size} GB)"
        raise invalid("properties.disks[0].initializeParams.diskSizeGb", wanted, told)
    return [
        {
            "kind": "compute#attachedDisk",
            "type": "PERSISTENT",
            "mode": "READ_WRITE",
            "autoDelete": False,
            "index": 0,
            **disk,
            "initializeParams": {"diskType": kind, **parameters, "sourceImage": link(path)},
        }
    ]


def image(scope: Scope, project: str, source: str, field: str) -> tuple[str, int]:
    """Path and size in GB of the image that a template names; of a family's, the family's path. Raises ApiError."""
    found = _IMAGE.fullmatch(source)
    if found is None:
        raise invalid(field, source, "The URL is malformed.")
    project, family, name = found[1] or project, found[2] or "", found[3]
    document = image_document(scope, f"projects/{project}/global/images/{family}{name}")
    if document is None:
        raise invalid(field, source, "The referenced image resource cannot be found.")
    if document["resource"]["status"] != "READY":
        raise invalid(field, source, "The referenced image is not ready.")
    return f"projects/{project}/global/images/{family}{name}", int(document["resource"]["diskSizeGb"])


def image_document(scope: Scope, path: str) -> Doc | None:
    """The image now at a path, or the newest one of the family there."""
    _, project, _, _, *rest = path.split("/")
    if rest[0] != "family":
        return scope.get(images.IMAGE, key(project, rest[0]))
    newest = images.newest_of(scope, project, rest[1])
    return None if newest is None else scope.get(images.IMAGE, key(project, newest["name"]))


def _interfaces(scope: Scope, params: Wire, properties: Wire) -> list[Doc]:
    given = properties.get("networkInterfaces") or []
    if len(given) != 1:
        if given:
            raise NotSimulated("machines with more than one network interface")
        raise invalid("properties.networkInterfaces", 0, "At least one network interface is required.")
    [interface] = given
    card = networks.card(scope, params, interface, "properties.networkInterfaces[0]")
    return [{"kind": "compute#networkInterface", "name": "nic0", **interface, **card}]


def refuse_deletion(scope: Scope, path: str, document: Doc) -> None:
    """A template that a group still has, or would make machines of again, stays."""
    for manager in scope.all(MANAGER.store):
        if any(path_of(each["instanceTemplate"]) == path for each in manager["resource"]["versions"]):
            raise in_use(TEMPLATE, path, MANAGER, its_path(MANAGER, manager))
