"""Compute Engine's images: made of archives in Cloud Storage, found, labelled, deprecated, deleted."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from osvdeploy.digests import digest_of
from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.google.compute import operations
from osvdeploy.sandbox.google.compute.archive import Unfit, opened
from osvdeploy.sandbox.google.compute.lists import page_of
from osvdeploy.sandbox.google.compute.operations import Wire, begin, key, number, repeated, shown, time
from osvdeploy.sandbox.google.storage.buckets import BUCKET, objects_of
from osvdeploy.sandbox.google.wire import BASE
from osvdeploy.sandbox.services.scope import Doc, Scope
from osvdeploy.sizes import GIB

IMAGE: Final = "compute.image"
READ: Final = "compute.archive-read"

READING: Final = 20.0
"""Seconds until an archive has been read: imports of small disks take from tens of seconds to some minutes."""

CHANGING: Final = 1.0
"""Seconds that any other change takes."""

MOST_LABELS: Final = 64

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_SOURCE = re.compile(r"(?:https?://storage\.googleapis\.com/|gs://)(?P<bucket>[^/]+)/(?P<object>.+)")
_LOCATION = re.compile(r"us|eu|asia|[a-z]+-[a-z]+[0-9]+")
_LINK = re.compile(r"(?:https?://[^/]+/compute/v1/)?projects/(?P<project>[^/]+)/global/images/(?P<name>[^/]+)")
_IN_USE = (None, "ACTIVE")


# ------------------------------------------------------------------------------------------------------------ making


def insert(scope: Scope, params: Wire) -> Doc:
    earlier = repeated(scope, "insert", params)
    if earlier is not None:
        return earlier
    body, project = params.get("body") or {}, params["project"]
    name = body.get("name", "")
    if not _NAME.fullmatch(name):
        raise _invalid("name", name, "Must be a match of regex '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'")
    family = _family(body.get("family"))
    labels = _labels(body.get("labels") or {})
    features = [each["type"] for each in body.get("guestOsFeatures") or []]
    if len(set(features)) != len(features):
        raise _invalid("guestOsFeatures", ", ".join(features), "Duplicate features.")
    raw = body.get("rawDisk") or {}
    if not raw.get("source"):
        raise ApiError("required", "Required field 'resource.rawDisk.source' not specified")
    bucket, source = _source(scope, raw["source"])
    locations = body.get("storageLocations") or [_near(scope, bucket)]
    if len(locations) > 1 or not _LOCATION.fullmatch(locations[0]):
        raise _invalid("storageLocations", ", ".join(locations), "One region or multi-region.")
    if scope.get(IMAGE, key(project, name)) is not None:
        raise ApiError("alreadyExists", f"The resource '{_path(project, name)}' already exists", 409)
    resource: Doc = {
        "kind": "compute#image",
        "id": number(scope),
        "name": name,
        "creationTimestamp": time(scope.now),
        "status": "PENDING",
        "sourceType": "RAW",
        "rawDisk": {"containerType": "TAR", "source": ""},
        "labelFingerprint": _fingerprint(labels),
        "storageLocations": locations,
        **{field: body[field] for field in ("description", "architecture", "guestOsFeatures") if field in body},
        **({"family": family} if family else {}),
        **({"labels": labels} if labels else {}),
    }
    operation = begin(scope, "insert", params, resource)
    document = {"project": project, "resource": resource, "source": {"bucket": bucket, "object": source}}
    if "diskSizeGb" in body:
        document["smallest"] = int(body["diskSizeGb"])
    scope.put(IMAGE, key(project, name), document)
    scope.later(READING, READ, {"image": key(project, name), "operation": key(project, operation["name"])})
    return shown(params, operation)


def _source(scope: Scope, text: str) -> tuple[str, str]:
    """Bucket and object. Raises ApiError unless it can be read and may be an archive."""
    found = _SOURCE.fullmatch(text)
    if found is None or not found["object"].endswith(".tar.gz"):
        raise _invalid("rawDisk.source", text, "The provided source is not a supported file.")
    bucket, name = found["bucket"], unquote(found["object"])
    if scope.get(objects_of(bucket), name) is None:
        # Whether it is there is not for those to know who may not read it.
        raise ApiError("forbidden", "Required 'read' permission for 'rawDisk.source'", 403)
    return bucket, name


def _near(scope: Scope, bucket: str) -> str:
    """The multi-region that is nearest to a bucket."""
    document = scope.get(BUCKET, bucket)
    assert document is not None
    location = str(document["resource"]["location"]).lower()
    return "eu" if location.startswith("eu") else "asia" if location.startswith("asia") else "us"


def read(scope: Scope, payload: Wire) -> None:
    """All of the archive has been read: only now is it not needed any more."""
    document = scope.get(IMAGE, payload["image"])
    assert document is not None
    source = document.pop("source")
    there = scope.get(objects_of(source["bucket"]), source["object"])
    try:
        if there is None:
            raise Unfit("The resource 'rawDisk.source' was not found")
        disk = opened(scope.blobs.get(blob) for blob, _ in there["parts"])
        blocks = {str(index): scope.blobs.put(content) for index, content in disk.blocks}
    except Unfit as unfit:
        scope.delete(IMAGE, payload["image"])
        operations.end(scope, payload["operation"], code="INVALID_IMAGE", message=str(unfit))
        return
    size = max(disk.size // GIB, document.pop("smallest", 0))
    document["resource"] |= {
        "status": "READY",
        "diskSizeGb": str(size),
        "archiveSizeBytes": there["resource"]["size"],
    }
    scope.put(IMAGE, payload["image"], {**document, "blocks": blocks})
    operations.end(scope, payload["operation"])


# ----------------------------------------------------------------------------------------------------------- looking


def get(scope: Scope, params: Wire) -> Doc:
    return _shown(params, _found(scope, params)["resource"])


def get_from_family(scope: Scope, params: Wire) -> Doc:
    project, family = params["project"], params["family"]
    newest = newest_of(scope, project, family)
    if newest is None:
        told = f"The resource 'projects/{project}/global/images/family/{family}' was not found"
        raise ApiError("notFound", told, 404)
    return _shown(params, newest)


def newest_of(scope: Scope, project: str, family: str) -> Doc | None:
    """The image that a family stands for now."""
    members = [
        each["resource"]
        for each in scope.all(IMAGE)
        if each["project"] == project
        and each["resource"].get("family") == family
        and each["resource"].get("deprecated", {}).get("state") in _IN_USE
    ]
    return max(members, key=lambda each: int(each["id"]), default=None)


def list_all(scope: Scope, params: Wire) -> Doc:
    mine = [each["resource"] for each in scope.all(IMAGE) if each["project"] == params["project"]]
    base = f"{params[BASE]}/compute/v1/projects/{params['project']}/global/images"
    return page_of("compute#imageList", base, mine, params, lambda each: _shown(params, each))


def _found(scope: Scope, params: Wire, *, ready: bool = False) -> Doc:
    """The image that is named, by its name or its id. Raises ApiError."""
    project, name = params["project"], params.get("image") or params["resource"]
    found = scope.get(IMAGE, key(project, name))
    if found is None and name.isdigit():
        of_project = [each for each in scope.all(IMAGE) if each["project"] == project]
        found = next((each for each in of_project if each["resource"]["id"] == name), None)
    if found is None:
        raise ApiError("notFound", f"The resource '{_path(project, name)}' was not found", 404)
    if ready and found["resource"]["status"] != "READY":
        raise ApiError("resourceNotReady", f"The resource '{_path(project, name)}' is not ready")
    return found


# ---------------------------------------------------------------------------------------------------------- changing


def _changing(scope: Scope, verb: str, params: Wire, change: Callable[[Doc], None]) -> Doc:
    """What changes an image at once, in an operation that ends a little later."""
    earlier = repeated(scope, verb, params)
    if earlier is not None:
        return earlier
    document = _found(scope, params, ready=True)
    change(document["resource"])
    resource = document["resource"]
    scope.put(IMAGE, key(params["project"], resource["name"]), document)
    operation = begin(scope, verb, params, resource)
    scope.later(CHANGING, operations.ENDS, {"operation": key(params["project"], operation["name"])})
    return shown(params, operation)


def end(scope: Scope, payload: Wire) -> None:
    """A change is done; one that deletes takes its image away now."""
    if "gone" in payload:
        scope.delete(IMAGE, payload["gone"])
    operations.end(scope, payload["operation"])


def delete(scope: Scope, params: Wire) -> Doc:
    earlier = repeated(scope, "delete", params)
    if earlier is not None:
        return earlier
    document = _found(scope, params, ready=True)
    resource = document["resource"]
    resource["status"] = "DELETING"
    scope.put(IMAGE, key(params["project"], resource["name"]), document)
    operation = begin(scope, "delete", params, resource)
    gone = {"gone": key(params["project"], resource["name"])}
    scope.later(CHANGING, operations.ENDS, {"operation": key(params["project"], operation["name"]), **gone})
    return shown(params, operation)


def deprecate(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    replacement = body.get("replacement")
    if replacement is not None:
        link = _LINK.fullmatch(replacement)
        if link is None or scope.get(IMAGE, key(link["project"], link["name"])) is None:
            raise _invalid("replacement", replacement, "The referenced image resource cannot be found.")

    def change(resource: Doc) -> None:
        resource.pop("deprecated", None)
        if body:
            resource["deprecated"] = {"state": "ACTIVE", **body}

    return _changing(scope, "deprecate", params, change)


def patch(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    family = _family(body.get("family"))

    def change(resource: Doc) -> None:
        for field, value in (("family", family), ("description", body.get("description"))):
            if field in body:
                resource.pop(field, None)
                if value:
                    resource[field] = value

    return _changing(scope, "patch", params, change)


def set_labels(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    labels = _labels(body.get("labels") or {})

    def change(resource: Doc) -> None:
        if body.get("labelFingerprint") != resource["labelFingerprint"]:
            raise ApiError("conditionNotMet", "Labels fingerprint either invalid or resource labels have changed", 412)
        resource.pop("labels", None)
        resource |= {"labelFingerprint": _fingerprint(labels), **({"labels": labels} if labels else {})}

    return _changing(scope, "setLabels", params, change)


# ----------------------------------------------------------------------------------------------------------- details


def _shown(params: Wire, resource: Wire) -> Doc:
    return {**resource, "selfLink": f"{params[BASE]}/compute/v1/{_path(params['project'], resource['name'])}"}


def _path(project: str, name: str) -> str:
    return f"projects/{project}/global/images/{name}"


def _family(family: str | None) -> str | None:
    if family and not _NAME.fullmatch(family):
        raise _invalid("family", family, "Must be a match of regex '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'")
    return family


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    """As the labels of a resource must be. Letters beyond ASCII are not simulated."""
    if len(labels) > MOST_LABELS:
        raise _invalid("labels", "", f"There can be at most {MOST_LABELS} labels.")
    for name, value in labels.items():
        if not (name + value).isascii():
            raise NotSimulated("labels with letters beyond ASCII")
        if not _LABEL.fullmatch(name):
            raise _invalid("labels", name, "Label key does not match the requirements for labels.")
        if not _VALUE.fullmatch(value):
            raise _invalid(f"labels.{name}", value, "Label value does not match the requirements for labels.")
    return dict(labels)


def _fingerprint(labels: Mapping[str, Any]) -> str:
    return base64.b64encode(hashlib.sha256(digest_of(dict(labels)).encode()).digest()[:8]).decode()


def _invalid(field: str, value: str, why: str) -> ApiError:
    return ApiError("invalid", f"Invalid value for field 'resource.{field}': '{value}'. {why}")
