"""S3's uploads in parts: begun, put part by part in any order, completed to an object or aborted."""

from __future__ import annotations

import hashlib
from datetime import datetime
from itertools import pairwise
from typing import Final

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.services.s3 import checksums
from osvdeploy.sandbox.services.s3.buckets import OWNER, Wire, found, objects_of, uploads_of
from osvdeploy.sandbox.services.s3.objects import described, encoder, page_size, refuse_unless
from osvdeploy.sandbox.services.scope import Doc, Scope
from osvdeploy.sizes import MIB

MOST_PARTS: Final = 10_000
SMALLEST_PART: Final = 5 * MIB
"""But for the last."""


def _parts_of(upload: str) -> str:
    return f"s3.part/{upload}"


def create(scope: Scope, params: Wire) -> Doc:
    bucket = found(scope, params)["Name"]
    algorithm = checksums.simulated(params.get("ChecksumAlgorithm"))
    kind = params.get("ChecksumType")
    if kind is not None and algorithm is None:
        raise ApiError("InvalidRequest", "The x-amz-checksum-type header needs an x-amz-checksum-algorithm header.")
    if kind == "FULL_OBJECT" and algorithm != "CRC32":
        raise ApiError(
            "InvalidRequest",
            f"The FULL_OBJECT checksum type cannot be used with the {(algorithm or '').lower()} checksum algorithm.",
        )
    document = described(scope, params) | {
        "UploadId": scope.new_id(64) + scope.new_id(32),
        "Initiated": scope.now.isoformat(),
        "algorithm": algorithm,
        "type": kind or ("COMPOSITE" if algorithm else None),
    }
    scope.everywhere.put(uploads_of(bucket), document["UploadId"], document)
    answer: Doc = {"Bucket": bucket, "Key": params["Key"], "UploadId": document["UploadId"]}
    if algorithm is not None:
        answer |= {"ChecksumAlgorithm": algorithm, "ChecksumType": document["type"]}
    return answer


def _upload(scope: Scope, params: Wire) -> tuple[str, Doc]:
    """The bucket's name and the upload."""
    bucket = found(scope, params)["Name"]
    upload = scope.everywhere.get(uploads_of(bucket), params["UploadId"])
    if upload is None or upload["Key"] != params["Key"]:
        raise ApiError(
            "NoSuchUpload",
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted "
            "or completed.",
            404,
            {"UploadId": params["UploadId"]},
        )
    return bucket, upload


def put_part(scope: Scope, params: Wire) -> Doc:
    _, upload = _upload(scope, params)
    number, content = params["PartNumber"], params.get("Body", b"")
    if not 1 <= number <= MOST_PARTS:
        raise ApiError("InvalidArgument", f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive")
    blob = scope.blobs.put(content)
    checksum = checksums.checked(params, content, blob)
    given = checksum[0] if checksum is not None else None
    if upload["algorithm"] is not None and given != upload["algorithm"]:
        raise ApiError(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {upload['algorithm'].lower()}, actual checksum "
            f"Type: {(given or 'null').lower()}",
        )
    part = {
        "PartNumber": number,
        "Size": len(content),
        "ETag": f'"{hashlib.md5(content).hexdigest()}"',
        "LastModified": scope.now.replace(microsecond=0).isoformat(),
        "checksum": checksum,
        "blob": blob,
    }
    scope.everywhere.put(_parts_of(upload["UploadId"]), f"{number:05d}", part)
    return {"ETag": part["ETag"], **({} if checksum is None else {checksums.member(checksum[0]): checksum[1]})}


def complete(scope: Scope, params: Wire) -> Doc:
    bucket, upload = _upload(scope, params)
    listed = (params.get("MultipartUpload") or {}).get("Parts") or []
    if not listed:
        raise ApiError("MalformedXML", "The XML you provided was not well-formed or did not validate.")
    parts = _chosen(scope, upload, listed)
    size = sum(part["Size"] for part in parts)
    if params.get("MpuObjectSize") not in (None, size):
        raise ApiError(
            "InvalidRequest",
            f"The provided 'x-amz-mp-object-size' header value {params['MpuObjectSize']} does not match what was "
            f"computed: {size}",
        )
    checksum = _checksum(scope, upload, parts)
    told = checksums.declared(params)
    if told is not None and (checksum is None or (*told, upload["type"]) != (*checksum[:2], checksum[2])):
        raise ApiError("BadDigest", f"The {told[0]} you specified did not match the calculated checksum.")
    key = upload["Key"]
    refuse_unless(params, scope.everywhere.get(objects_of(bucket), key), key)
    sums = hashlib.md5(b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)).hexdigest()
    document = {
        "Key": key,
        "LastModified": scope.now.replace(microsecond=0).isoformat(),
        "ContentType": upload["ContentType"],
        "Metadata": upload["Metadata"],
        "Size": size,
        "ETag": f'"{sums}-{len(parts)}"',
        "parts": [[part["blob"], part["Size"]] for part in parts],
        "checksum": checksum,
    }
    scope.everywhere.put(objects_of(bucket), key, document)
    _forget(scope, bucket, upload["UploadId"])
    answer: Doc = {
        "Location": f"https://{bucket}.s3.{scope.region}.amazonaws.com/{key}",
        "Bucket": bucket,
        "Key": key,
        "ETag": document["ETag"],
    }
    if checksum is not None:
        answer |= {checksums.member(checksum[0]): checksum[1], "ChecksumType": checksum[2]}
    return answer


def _chosen(scope: Scope, upload: Doc, listed: list[Wire]) -> list[Doc]:
    """The parts that a completion lists. Those it leaves out go with the upload."""
    numbers = [each["PartNumber"] for each in listed]
    ascending = all(left < right for left, right in pairwise(numbers))
    if not ascending or (upload["algorithm"] is not None and numbers != list(range(1, len(numbers) + 1))):
        # With checksums numbers are consecutive, too ("CompletedPart").
        raise ApiError("InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered.")
    parts = []
    for each in listed:
        part = scope.everywhere.get(_parts_of(upload["UploadId"]), f"{each['PartNumber']:05d}")
        if part is None or part["ETag"].strip('"') != (each.get("ETag") or "").strip('"'):
            raise ApiError(
                "InvalidPart",
                "One or more of the specified parts could not be found. The part may not have been uploaded, or the "
                "specified entity tag may not match the part's entity tag.",
                400,
                {"UploadId": upload["UploadId"], "PartNumber": str(each["PartNumber"])},
            )
        _check_sum(upload, part, each)
        parts.append(part)
    for part in parts[:-1]:
        if part["Size"] < SMALLEST_PART:
            fields = {"ProposedSize": str(part["Size"]), "MinSizeAllowed": str(SMALLEST_PART)}
            message = "Your proposed upload is smaller than the minimum allowed size"
            raise ApiError("EntityTooSmall", message, 400, {**fields, "PartNumber": str(part["PartNumber"])})
    return parts


def _check_sum(upload: Doc, part: Doc, listed: Wire) -> None:
    given = checksums.declared(listed)
    if given is None:
        if upload["algorithm"] is not None and upload["type"] == "COMPOSITE":
            raise ApiError(
                "InvalidRequest",
                f"The upload was created using a {upload['algorithm'].lower()} checksum. The complete request must "
                f"include the checksum for each part. It was missing for part {part['PartNumber']} in the request.",
            )
    elif part["checksum"] is None or list(given) != list(part["checksum"]):
        raise ApiError("InvalidPart", f"The checksum of part {part['PartNumber']} does not match what was uploaded.")


def _checksum(scope: Scope, upload: Doc, parts: list[Doc]) -> list[str] | None:
    algorithm = upload["algorithm"]
    if algorithm is None:
        return None
    if upload["type"] == "FULL_OBJECT":
        whole = b"".join(scope.blobs.get(part["blob"]) for part in parts)
        return [algorithm, checksums.sum_of(algorithm, whole), "FULL_OBJECT"]
    return [algorithm, checksums.composite(algorithm, [part["checksum"][1] for part in parts]), "COMPOSITE"]


def abort(scope: Scope, params: Wire) -> Doc:
    bucket, upload = _upload(scope, params)
    _forget(scope, bucket, upload["UploadId"])
    return {}


def _forget(scope: Scope, bucket: str, upload: str) -> None:
    for part in scope.everywhere.all(_parts_of(upload)):
        scope.everywhere.delete(_parts_of(upload), f"{part['PartNumber']:05d}")
    scope.everywhere.delete(uploads_of(bucket), upload)


# --------------------------------------------------------------------------------------------------------- listing


def list_parts(scope: Scope, params: Wire) -> Doc:
    bucket, upload = _upload(scope, params)
    most, after = page_size(params, "MaxParts"), params.get("PartNumberMarker") or 0
    parts = sorted(scope.everywhere.all(_parts_of(upload["UploadId"])), key=lambda part: int(part["PartNumber"]))
    rest = [part for part in parts if part["PartNumber"] > after]
    page = rest[:most]
    answer: Doc = {
        "Bucket": bucket,
        "Key": upload["Key"],
        "UploadId": upload["UploadId"],
        "PartNumberMarker": after,
        "MaxParts": most,
        "IsTruncated": len(rest) > len(page),
        "Parts": [
            {
                "PartNumber": part["PartNumber"],
                "LastModified": datetime.fromisoformat(part["LastModified"]),
                "ETag": part["ETag"],
                "Size": part["Size"],
                **({} if part["checksum"] is None else {checksums.member(part["checksum"][0]): part["checksum"][1]}),
            }
            for part in page
        ],
        "StorageClass": "STANDARD",
        "Owner": OWNER,
        "Initiator": OWNER,
    }
    if page:
        answer["NextPartNumberMarker"] = page[-1]["PartNumber"]
    if upload["algorithm"] is not None:
        answer |= {"ChecksumAlgorithm": upload["algorithm"], "ChecksumType": upload["type"]}
    return answer


def list_uploads(scope: Scope, params: Wire) -> Doc:
    bucket = found(scope, params)["Name"]
    written, prefix = encoder(params), params.get("Prefix") or ""
    most = page_size(params, "MaxUploads")
    marker, behind = params.get("KeyMarker") or "", params.get("UploadIdMarker") or ""
    uploads = [each for each in scope.everywhere.all(uploads_of(bucket)) if each["Key"].startswith(prefix)]
    uploads.sort(key=lambda each: (each["Key"].encode(), each["Initiated"], each["UploadId"]))
    if marker:
        rest = [each for each in uploads if each["Key"].encode() > marker.encode()]
        same = [each for each in uploads if each["Key"] == marker]
        ids = [each["UploadId"] for each in same]
        if behind in ids:
            rest = [*same[ids.index(behind) + 1 :], *rest]
    else:
        rest = uploads
    page = rest[:most]
    answer: Doc = {
        "Bucket": bucket,
        "Prefix": written(prefix),
        "KeyMarker": written(marker),
        "UploadIdMarker": behind,
        "MaxUploads": most,
        "IsTruncated": len(rest) > len(page),
        "Uploads": [
            {
                "UploadId": each["UploadId"],
                "Key": written(each["Key"]),
                "Initiated": datetime.fromisoformat(each["Initiated"]),
                "StorageClass": "STANDARD",
                "Owner": OWNER,
                "Initiator": OWNER,
                **(
                    {}
                    if each["algorithm"] is None
                    else {"ChecksumAlgorithm": each["algorithm"], "ChecksumType": each["type"]}
                ),
            }
            for each in page
        ],
    }
    if answer["IsTruncated"]:
        answer |= {"NextKeyMarker": written(page[-1]["Key"]), "NextUploadIdMarker": page[-1]["UploadId"]}
    if params.get("EncodingType"):
        answer["EncodingType"] = params["EncodingType"]
    return answer
