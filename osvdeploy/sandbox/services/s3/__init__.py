"""S3: buckets, objects, uploads in parts; strongly consistent, and conditional writes have one winner.

Sources: Amazon S3 API reference (each operation, "Error responses"), Amazon S3 user guide ("General purpose bucket
naming rules", "Amazon S3 multipart upload limits", "Checking object integrity", "Add preconditions to S3 operations
with conditional requests").

Buckets are of the account and its region's alone: nobody else has one here. Not simulated, and refused as such:
versions, policies, access control, encryption settings, tags, storage classes, checksums other than CRC-32, SHA-1 and
SHA-256, and the time S3 takes.

Documents, all in no region:

``s3.bucket``
    By name: ``Name``, ``Region``, ``CreationDate``.
``s3.object/<bucket>``
    By key: what answers show, ``parts`` ([sha256 of a blob, bytes] each) and ``checksum`` ([algorithm, value, type]).
``s3.upload/<bucket>``
    By upload id: ``UploadId``, ``Key``, ``Initiated``, ``algorithm`` and ``type`` of checksums, and the object to be.
``s3.part/<upload id>``
    By number, 5 digits: ``PartNumber``, ``Size``, ``ETag``, ``LastModified``, ``checksum``, ``blob``.
"""

from __future__ import annotations

from collections.abc import Mapping

from osvdeploy.sandbox.services.s3 import buckets, objects, uploads
from osvdeploy.sandbox.services.s3.objects import reader
from osvdeploy.sandbox.services.scope import Doc, EventHandler, Operation, Scope

__all__ = ["EVENTS", "OPERATIONS", "PARAMETERS", "find", "reader"]


def find(scope: Scope, bucket: str, key: str) -> Doc | None:
    """An object of a bucket in the scope's region, for the other services; its bytes are :func:`reader`'s."""
    home = scope.everywhere.get(buckets.BUCKET, bucket)
    if home is None or home["Region"] != scope.region:
        return None
    return scope.everywhere.get(buckets.objects_of(bucket), key)


_CHECKSUMS = "ContentMD5 ChecksumAlgorithm ChecksumCRC32 ChecksumSHA1 ChecksumSHA256"
_WHOSE = "Bucket ExpectedBucketOwner"
_DESCRIBED = "ContentType Metadata"

_SIMULATED: Mapping[str, tuple[Operation, str]] = {
    "AbortMultipartUpload": (uploads.abort, f"{_WHOSE} Key UploadId"),
    "CompleteMultipartUpload": (
        uploads.complete,
        f"{_WHOSE} Key UploadId MultipartUpload.Parts.PartNumber MultipartUpload.Parts.ETag IfNoneMatch IfMatch "
        "MultipartUpload.Parts.ChecksumCRC32 MultipartUpload.Parts.ChecksumSHA1 MultipartUpload.Parts.ChecksumSHA256 "
        "MpuObjectSize ChecksumType ChecksumCRC32 ChecksumSHA1 ChecksumSHA256",
    ),
    "CreateBucket": (buckets.create, "Bucket CreateBucketConfiguration.LocationConstraint"),
    "CreateMultipartUpload": (uploads.create, f"{_WHOSE} Key {_DESCRIBED} ChecksumAlgorithm ChecksumType"),
    "DeleteBucket": (buckets.delete, _WHOSE),
    "DeleteObject": (objects.delete, f"{_WHOSE} Key IfMatch"),
    "DeleteObjects": (objects.delete_several, f"{_WHOSE} Delete.Objects.Key Delete.Quiet ChecksumAlgorithm"),
    "GetBucketLocation": (buckets.location, _WHOSE),
    "GetObject": (objects.get, f"{_WHOSE} Key Range IfMatch IfNoneMatch ChecksumMode"),
    "HeadBucket": (buckets.head, _WHOSE),
    "HeadObject": (objects.head, f"{_WHOSE} Key Range IfMatch IfNoneMatch ChecksumMode"),
    "ListBuckets": (buckets.list_all, "Prefix BucketRegion"),
    "ListMultipartUploads": (
        uploads.list_uploads,
        f"{_WHOSE} Prefix KeyMarker UploadIdMarker MaxUploads EncodingType",
    ),
    "ListObjectsV2": (
        objects.list_all,
        f"{_WHOSE} Prefix Delimiter MaxKeys ContinuationToken StartAfter EncodingType",
    ),
    "ListParts": (uploads.list_parts, f"{_WHOSE} Key UploadId PartNumberMarker MaxParts"),
    "PutObject": (
        objects.put,
        f"{_WHOSE} Key Body ContentLength {_DESCRIBED} {_CHECKSUMS} IfNoneMatch IfMatch",
    ),
    "UploadPart": (uploads.put_part, f"{_WHOSE} Key UploadId PartNumber Body ContentLength {_CHECKSUMS}"),
}

OPERATIONS: Mapping[str, Operation] = {name: operation for name, (operation, _) in _SIMULATED.items()}

PARAMETERS: Mapping[str, frozenset[str]] = {name: frozenset(known.split()) for name, (_, known) in _SIMULATED.items()}

EVENTS: Mapping[str, EventHandler] = {}
