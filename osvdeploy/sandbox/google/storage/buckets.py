"""Cloud Storage's buckets.

What is deleted is gone at once here, whatever a bucket's softDeletePolicy: that is kept and told, and nothing can be
restored.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Final

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.google.storage import conditions
from osvdeploy.sandbox.google.storage.conditions import Wire
from osvdeploy.sandbox.google.storage.pages import page
from osvdeploy.sandbox.google.wire import BASE
from osvdeploy.sandbox.services.scope import Doc, Scope

BUCKET: Final = "storage.bucket"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]")
_DOTTED = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_SOFT_DELETION: Final = 7 * 86400, 90 * 86400
"""Seconds for which what is deleted is kept: least, which is what a bucket begins with, and most ("Soft delete
overview"). 0 turns it off."""

_MULTIREGIONS = ("ASIA", "EU", "US")


def objects_of(bucket: str) -> str:
    """The kind of a bucket's objects."""
    return f"storage.object/{bucket}"


def found(scope: Scope, name: str) -> Doc:
    """The bucket's resource. Raises ApiError where there is none."""
    bucket = scope.get(BUCKET, name)
    if bucket is None:
        raise conditions.no_bucket()
    resource: Doc = bucket["resource"]
    return resource


def time(moment: datetime) -> str:
    """As Google writes times."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def insert(scope: Scope, params: Wire) -> Doc:
    body = params.get("body") or {}
    name, project = body.get("name", ""), params["project"]
    if not name:
        raise ApiError("required", "Required parameter: name")
    if not _is_name(name):
        raise ApiError("invalid", f"Invalid bucket name: '{name}'")
    if body.get("storageClass") not in (None, "STANDARD"):
        raise NotSimulated(f"the storage class {body['storageClass']}")
    uniform = (body.get("iamConfiguration") or {}).get("uniformBucketLevelAccess") or {}
    if uniform.get("enabled") is False:
        raise NotSimulated("access control lists: its buckets have uniform bucket-level access")
    least, most = _SOFT_DELETION
    kept = int((body.get("softDeletePolicy") or {}).get("retentionDurationSeconds", least))
    if kept != 0 and not least <= kept <= most:
        raise ApiError("invalid", f"softDeletePolicy.retentionDurationSeconds must be 0, or from {least} to {most}.")
    if scope.get(BUCKET, name) is not None:
        told = "Your previous request to create the named bucket succeeded and you already own it."
        raise ApiError("conflict", told, 409)
    location = str(body.get("location") or "US").upper()
    resource = {
        "kind": "storage#bucket",
        "id": name,
        "name": name,
        "projectNumber": str(int(hashlib.sha256(project.encode()).hexdigest()[:10], 16)),
        "location": location,
        "locationType": "multi-region" if location in _MULTIREGIONS else "region",
        "storageClass": "STANDARD",
        "timeCreated": time(scope.now),
        "updated": time(scope.now),
        "metageneration": "1",
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "inherited"},
        "softDeletePolicy": {"retentionDurationSeconds": str(kept), "effectiveTime": time(scope.now)},
        **({"labels": body["labels"]} if "labels" in body else {}),
    }
    scope.put(BUCKET, name, {"project": project, "resource": resource})
    return _shown(params, resource)


def _is_name(name: str) -> bool:
    if name.startswith("goog") or "google" in name or _ADDRESS.fullmatch(name):
        return False
    if "." in name:
        return len(name) <= 222 and all(_DOTTED.fullmatch(part) for part in name.split("."))
    return _NAME.fullmatch(name) is not None


def _shown(params: Wire, resource: Wire) -> Doc:
    link = f"{params[BASE]}/storage/v1/b/{resource['name']}"
    return {**resource, "etag": conditions.etag(resource), "selfLink": link}


def get(scope: Scope, params: Wire) -> Doc:
    resource = found(scope, params["bucket"])
    conditions.hold(params, resource, reading=True)
    return _shown(params, resource)


def list_all(scope: Scope, params: Wire) -> Doc:
    mine = {
        bucket["resource"]["name"]: bucket["resource"]
        for bucket in scope.all(BUCKET)
        if bucket["project"] == params["project"] and bucket["resource"]["name"].startswith(params.get("prefix", ""))
    }
    names, token = page(sorted(mine), params)
    answer: Doc = {"kind": "storage#buckets"}
    if names:
        answer["items"] = [_shown(params, mine[name]) for name in names]
    return answer | token


def delete(scope: Scope, params: Wire) -> Doc:
    name = params["bucket"]
    conditions.hold(params, found(scope, name))
    if scope.all(objects_of(name)):
        raise ApiError("conflict", "The bucket you tried to delete is not empty.", 409)
    scope.delete(BUCKET, name)
    return {}


def test_permissions(scope: Scope, params: Wire) -> Doc:
    """The owner is who asks: everything is allowed that Cloud Storage has a permission for."""
    found(scope, params["bucket"])
    answer: Doc = {"kind": "storage#testIamPermissionsResponse"}
    given = [each for each in params["permissions"] if re.fullmatch(r"storage\.\w+\.\w+", each)]
    if given:
        answer["permissions"] = given
    return answer
