"""Cloud Storage: buckets, objects, resumable uploads, composition; strongly consistent, conditions have one winner.

Sources: Cloud Storage JSON API reference (each method), "Request preconditions", "Resumable uploads", "Composite
objects", "Data validation", "About Cloud Storage buckets" and "About Cloud Storage objects" (names), "HTTP status and
error codes for JSON".

Buckets have uniform bucket-level access, so the projection ``full`` shows no more than ``noAcl``. Not simulated, and
refused as such: versions, soft deletion, access control lists, encryption, retention, lifecycles, storage classes other
than STANDARD, transcoding (``contentEncoding``), partial answers (``fields``), and the XML and gRPC APIs.

Documents, all in no region:

``storage.bucket``
    By name: ``resource`` as answers show it but for its links, and ``project``.
``storage.object/<bucket>``
    By name: ``resource`` likewise, and ``parts`` ([sha256 of a blob, bytes] each).
``storage.upload``
    By id, a resumable upload: what it is to be, ``conditions``, ``parts``, ``received`` (bytes), ``done`` (the object
    that it became).
"""

from __future__ import annotations

from collections.abc import Mapping

from osvdeploy.sandbox.google.storage import buckets, objects, uploads
from osvdeploy.sandbox.services.scope import EventHandler, Operation

__all__ = ["EVENTS", "OPERATIONS", "PARAMETERS"]

_ALWAYS = "$base userProject"
_META = "ifMetagenerationMatch ifMetagenerationNotMatch"
_CONDITIONS = f"ifGenerationMatch ifGenerationNotMatch {_META}"
_OBJECT = f"bucket object generation {_CONDITIONS}"
_DESCRIPTION = (
    "name bucket cacheControl contentDisposition contentLanguage contentType crc32c md5Hash metadata storageClass"
)
_BUCKET = (
    "name labels location storageClass iamConfiguration.uniformBucketLevelAccess.enabled "
    "softDeletePolicy.retentionDurationSeconds"
)


def _below(path: str, names: str) -> str:
    return " ".join(f"{path}.{name}" for name in names.split())


_SIMULATED: Mapping[str, tuple[Operation, str]] = {
    "buckets.delete": (buckets.delete, f"bucket {_META}"),
    "buckets.get": (buckets.get, f"bucket projection {_META}"),
    "buckets.insert": (buckets.insert, f"project projection {_below('body', _BUCKET)}"),
    "buckets.list": (buckets.list_all, "project projection maxResults pageToken prefix"),
    "buckets.testIamPermissions": (buckets.test_permissions, "bucket permissions"),
    "objects.cancelUpload": (uploads.cancel, "bucket upload_id media"),
    "objects.compose": (
        objects.compose,
        "destinationBucket destinationObject ifGenerationMatch ifMetagenerationMatch body.kind body.sourceObjects "
        "body.deleteSourceObjects " + _below("body.destination", _DESCRIPTION),
    ),
    "objects.delete": (objects.delete, _OBJECT),
    "objects.get": (objects.get, f"{_OBJECT} projection alt headers.range headers.if-match headers.if-none-match"),
    "objects.insert": (
        uploads.insert,
        f"bucket name uploadType projection media mediaType headers.x-goog-hash headers.x-upload-content-type "
        f"headers.x-upload-content-length {_CONDITIONS} {_below('body', _DESCRIPTION)}",
    ),
    "objects.list": (
        objects.list_all,
        "bucket projection prefix delimiter maxResults pageToken startOffset endOffset",
    ),
    "objects.patch": (objects.patch, f"{_OBJECT} projection {_below('body', _DESCRIPTION)}"),
    "objects.sendUpload": (uploads.send, "bucket upload_id media headers.content-range headers.x-goog-hash"),
}

OPERATIONS: Mapping[str, Operation] = {name: operation for name, (operation, _) in _SIMULATED.items()}

PARAMETERS: Mapping[str, str] = {name: f"{_ALWAYS} {known}" for name, (_, known) in _SIMULATED.items()}

EVENTS: Mapping[str, EventHandler] = {uploads.EXPIRES: uploads.expire}
