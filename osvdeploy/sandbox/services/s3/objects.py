"""S3's objects: put whole, read whole or in ranges, listed, deleted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.services.s3 import checksums
from osvdeploy.sandbox.services.s3.buckets import Wire, found, objects_of
from osvdeploy.sandbox.services.scope import Doc, Scope
from osvdeploy.sandbox.wire import STATUS
from osvdeploy.sizes import GIB, KIB

LARGEST_PUT: Final = 5 * GIB
LONGEST_KEY: Final = 1024
MOST_METADATA: Final = 2 * KIB
PAGE: Final = 1000

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def put(scope: Scope, params: Wire) -> Doc:
    bucket, key, content = found(scope, params)["Name"], params["Key"], params.get("Body", b"")
    new = described(scope, params)
    blob = scope.blobs.put(content)
    checksum = checksums.checked(params, content, blob)
    refuse_unless(params, scope.everywhere.get(objects_of(bucket), key), key)
    etag = f'"{hashlib.md5(content).hexdigest()}"'
    parts = [[blob, len(content)]] if content else []
    document = new | {"Size": len(content), "ETag": etag, "parts": parts, "checksum": None}
    answer: Doc = {"ETag": etag}
    if checksum is not None:
        document["checksum"] = [*checksum, "FULL_OBJECT"]
        answer |= {checksums.member(checksum[0]): checksum[1], "ChecksumType": "FULL_OBJECT"}
    scope.everywhere.put(objects_of(bucket), key, document)
    return answer


def described(scope: Scope, params: Wire) -> Doc:
    """An object that is to be, as far as its request describes it."""
    if len(params["Key"].encode()) > LONGEST_KEY:
        raise ApiError("KeyTooLongError", "Your key is too long", 400, {"MaxSizeAllowed": str(LONGEST_KEY)})
    metadata = dict(params.get("Metadata") or {})
    if sum(len(name) + len(value) for name, value in metadata.items()) > MOST_METADATA:
        raise ApiError("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")
    return {
        "Key": params["Key"],
        "LastModified": scope.now.replace(microsecond=0).isoformat(),
        "ContentType": params.get("ContentType") or "binary/octet-stream",
        "Metadata": metadata,
    }


def refuse_unless(params: Wire, there: Doc | None, key: str) -> None:
    """Raise ApiError where a write's condition does not hold."""
    only_new, only_this = params.get("IfNoneMatch"), params.get("IfMatch")
    if only_new is not None and only_this is not None:
        raise ApiError("NotImplemented", "A header you provided implies functionality that is not implemented", 501)
    if only_new is not None:
        if only_new != "*":
            raise ApiError("NotImplemented", "A header you provided implies functionality that is not implemented", 501)
        if there is not None:
            raise _precondition("If-None-Match")
    if only_this is not None:
        if there is None:
            raise _no_such_key(key)
        if not _matches(only_this, there["ETag"]):
            raise _precondition("If-Match")


def _precondition(condition: str) -> ApiError:
    message = "At least one of the pre-conditions you specified did not hold"
    return ApiError("PreconditionFailed", message, 412, {"Condition": condition})


def _no_such_key(key: str) -> ApiError:
    return ApiError("NoSuchKey", "The specified key does not exist.", 404, {"Key": key})


def _matches(given: str, etag: str) -> bool:
    return given == "*" or etag.strip('"') in (each.strip().strip('"') for each in given.split(","))


# --------------------------------------------------------------------------------------------------------- reading


def head(scope: Scope, params: Wire) -> Doc:
    document, start, end = _asked_for(scope, params)
    return _shown(document, params, start, end)


def get(scope: Scope, params: Wire) -> Doc:
    document, start, end = _asked_for(scope, params)
    return {**_shown(document, params, start, end), "Body": reader(scope, document)(start, end - start)}


def _asked_for(scope: Scope, params: Wire) -> tuple[Doc, int, int]:
    """The object, and which of its bytes."""
    bucket, key = found(scope, params)["Name"], params["Key"]
    document = scope.everywhere.get(objects_of(bucket), key)
    if document is None:
        raise _no_such_key(key)
    if params.get("IfMatch") is not None and not _matches(params["IfMatch"], document["ETag"]):
        raise _precondition("If-Match")
    if params.get("IfNoneMatch") is not None and _matches(params["IfNoneMatch"], document["ETag"]):
        raise ApiError("NotModified", "Not Modified", 304, headers={"etag": document["ETag"]})
    start, end = _range(params.get("Range"), document["Size"])
    return document, start, end


def _range(asked: str | None, size: int) -> tuple[int, int]:
    said = _RANGE.fullmatch(asked or "")
    if said is None or said[0] == "bytes=-":
        return 0, size  # what is no range is ignored (RFC 9110, 14.2)
    if said[1]:
        start, end = int(said[1]), min(int(said[2] or size - 1) + 1, size)
        if said[2] and int(said[2]) < int(said[1]):
            return 0, size
    else:
        start, end = max(0, size - int(said[2])), size
    if start >= size or end <= start:
        fields = {"RangeRequested": asked or "", "ActualObjectSize": str(size)}
        raise ApiError("InvalidRange", "The requested range is not satisfiable", 416, fields)
    return start, end


def _shown(document: Doc, params: Wire, start: int, end: int) -> Doc:
    answer: Doc = {
        "AcceptRanges": "bytes",
        "ContentLength": end - start,
        "ContentType": document["ContentType"],
        "ETag": document["ETag"],
        "LastModified": datetime.fromisoformat(document["LastModified"]),
        "Metadata": document["Metadata"],
    }
    whole = (start, end) == (0, document["Size"])
    if params.get("Range") and not (whole and document["Size"] == 0):
        answer |= {"ContentRange": f"bytes {start}-{end - 1}/{document['Size']}", STATUS: 206}
    if params.get("ChecksumMode") == "ENABLED" and document["checksum"] is not None and whole:
        algorithm, value, kind = document["checksum"]
        answer |= {checksums.member(algorithm): value, "ChecksumType": kind}
    return answer


def reader(scope: Scope, document: Doc) -> Callable[[int, int], bytes]:
    """Reads an object's bytes by offset and length, also after the call is over."""
    blobs, parts = scope.blobs, list(document["parts"])

    def read(offset: int, length: int) -> bytes:
        found, at = [], 0
        for digest, size in parts:
            if at < offset + length and offset < at + size:
                found.append(blobs.get(digest)[max(0, offset - at) : offset + length - at])
            at += size
        return b"".join(found)

    return read


# --------------------------------------------------------------------------------------------------------- listing


def encoder(params: Wire) -> Callable[[str], str]:
    """How keys are written in a list: URL-encoded where that is asked for, as XML cannot hold every character."""
    return (lambda key: quote(key, safe="/*")) if params.get("EncodingType") == "url" else (lambda key: key)


def list_all(scope: Scope, params: Wire) -> Doc:
    bucket = found(scope, params)["Name"]
    written = encoder(params)
    prefix, delimiter = params.get("Prefix") or "", params.get("Delimiter") or ""
    most = page_size(params, "MaxKeys")
    token = params.get("ContinuationToken")
    after = _opened(token) if token is not None else params.get("StartAfter") or ""
    documents = {document["Key"]: document for document in scope.everywhere.all(objects_of(bucket))}
    lines = _lines(sorted(documents, key=str.encode), prefix, delimiter)
    rest = [line for line in lines if line > after]
    page = rest[:most]
    shown = [documents[line] for line in page if line in documents and not _is_common(line, prefix, delimiter)]
    answer: Doc = {
        "Name": bucket,
        "Prefix": written(prefix),
        "MaxKeys": most,
        "KeyCount": len(page),
        "IsTruncated": bool(most) and len(rest) > most,
        "Contents": [
            {
                "Key": written(document["Key"]),
                "LastModified": datetime.fromisoformat(document["LastModified"]),
                "ETag": document["ETag"],
                "Size": document["Size"],
                "StorageClass": "STANDARD",
            }
            for document in shown
        ],
        "CommonPrefixes": [{"Prefix": written(line)} for line in page if _is_common(line, prefix, delimiter)],
    }
    if answer["IsTruncated"]:
        answer["NextContinuationToken"] = _token(page[-1])
    for name in ("Delimiter", "StartAfter"):
        if params.get(name):
            answer[name] = written(params[name])
    for name in ("ContinuationToken", "EncodingType"):
        if params.get(name):
            answer[name] = params[name]
    return answer


def _lines(keys: Iterable[str], prefix: str, delimiter: str) -> list[str]:
    """Keys, and once for all what they have in common up to the first delimiter behind the prefix."""
    found: dict[str, None] = {}
    for key in keys:
        if key.startswith(prefix):
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            found[key if at < 0 else key[: at + len(delimiter)]] = None
    return list(found)


def _is_common(line: str, prefix: str, delimiter: str) -> bool:
    return bool(delimiter) and line.find(delimiter, len(prefix)) >= 0


def _count(params: Wire, name: str) -> int:
    given = params.get(name)
    if given is not None and given < 0:
        raise ApiError("InvalidArgument", f"Argument {name} must be an integer between 0 and 2147483647")
    return PAGE if given is None else int(given)


def page_size(params: Wire, name: str) -> int:
    """How many a list shows at most."""
    return min(PAGE, _count(params, name))


def _token(last: str) -> str:
    return "1" + last.encode().hex()


def _opened(token: str) -> str:
    try:
        if not token.startswith("1"):
            raise ValueError(token)
        return bytes.fromhex(token[1:]).decode()
    except ValueError:
        raise ApiError("InvalidArgument", "The continuation token provided is incorrect") from None


# --------------------------------------------------------------------------------------------------------- deleting


def delete(scope: Scope, params: Wire) -> Doc:
    bucket, key = found(scope, params)["Name"], params["Key"]
    if params.get("IfMatch") is not None:
        refuse_unless(params, scope.everywhere.get(objects_of(bucket), key), key)
    scope.everywhere.delete(objects_of(bucket), key)
    return {}


def delete_several(scope: Scope, params: Wire) -> Doc:
    bucket = found(scope, params)["Name"]
    wanted: Sequence[Any] = (params.get("Delete") or {}).get("Objects") or []
    if not 1 <= len(wanted) <= PAGE:
        raise ApiError("MalformedXML", "The XML you provided was not well-formed or did not validate.")
    for each in wanted:
        scope.everywhere.delete(objects_of(bucket), each["Key"])
    quiet = (params.get("Delete") or {}).get("Quiet")
    return {} if quiet else {"Deleted": [{"Key": each["Key"]} for each in wanted]}
