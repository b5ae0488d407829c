"""Compute Engine: images and the operations that make, change and delete them; machine types.

Sources: Compute Engine API reference (each method; ``requestId``), "Manually import boot disks" (the archive),
"Create, delete, and deprecate custom images" and "Image families best practices", "Organize resources using labels",
"Handling API responses" (operations). In which words an import fails is not documented; those here are what users
report.

Not documented, and decided here against the caller: an image is in its family from the moment it is asked for; what is
not ready can be neither changed nor deleted; an import that fails leaves no image; ``rawDisk.source`` is not shown
again; a ``requestId`` is remembered for an hour, and is refused for a request other than its first.

Not simulated, and refused as such: images of disks, snapshots and other images, encryption, access policies, licences,
regular expressions in filters, and everything else that Compute Engine has.

Documents, all in no region:

``compute.image``
    By project and name: ``resource`` as answers show it but for its link, ``blocks`` (of 512 KiB, by index: sha256 of a
    blob), ``source`` while it is made.
``compute.operation``
    By project and name: ``resource``, likewise.
``compute.request``
    By project and ``requestId``: the ``operation``, when it was asked for, and what.
"""

from __future__ import annotations

from collections.abc import Mapping

from osvdeploy.sandbox.google.compute import images, machine_types, operations
from osvdeploy.sandbox.services.scope import EventHandler, Operation

__all__ = ["EVENTS", "OPERATIONS", "PARAMETERS"]

_ALWAYS = "$base project"
_LIST = "filter maxResults orderBy pageToken"


def _body(names: str) -> str:
    return " ".join(f"body.{name}" for name in names.split())


_SIMULATED: Mapping[str, tuple[Operation, str]] = {
    "globalOperations.get": (operations.get, "operation"),
    "globalOperations.list": (operations.list_all, _LIST),
    "globalOperations.wait": (operations.get, "operation"),
    "images.delete": (images.delete, "image requestId"),
    "images.deprecate": (
        images.deprecate,
        f"image requestId {_body('state replacement deprecated obsolete deleted')}",
    ),
    "images.get": (images.get, "image"),
    "images.getFromFamily": (images.get_from_family, "family"),
    "images.insert": (
        images.insert,
        "requestId body.rawDisk.source body.rawDisk.containerType "
        + _body("name description family labels architecture guestOsFeatures storageLocations sourceType diskSizeGb"),
    ),
    "images.list": (images.list_all, _LIST),
    "images.patch": (images.patch, f"image requestId {_body('description family')}"),
    "images.setLabels": (images.set_labels, f"resource {_body('labels labelFingerprint')}"),
    "machineTypes.get": (machine_types.get, "zone machineType"),
    "machineTypes.list": (machine_types.list_all, f"zone {_LIST}"),
}

OPERATIONS: Mapping[str, Operation] = {name: operation for name, (operation, _) in _SIMULATED.items()}

PARAMETERS: Mapping[str, str] = {name: f"{_ALWAYS} {known}" for name, (_, known) in _SIMULATED.items()}

EVENTS: Mapping[str, EventHandler] = {images.READ: images.read, operations.ENDS: images.end}
