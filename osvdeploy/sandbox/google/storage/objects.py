"""Cloud Storage's objects: made of parts that are there, read whole or in ranges, listed, changed, deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.google.storage import conditions
from osvdeploy.sandbox.google.storage.buckets import found, objects_of, time
from osvdeploy.sandbox.google.storage.conditions import Wire
from osvdeploy.sandbox.google.storage.pages import page
from osvdeploy.sandbox.google.storage.sums import Sums
from osvdeploy.sandbox.google.wire import BASE, MEDIA, REPLY
from osvdeploy.sandbox.services.scope import Doc, Scope
from osvdeploy.sandbox.wire import STATUS

SOURCES: Final = 32
LONGEST_NAME: Final = 1024

DESCRIBED = ("cacheControl", "contentDisposition", "contentLanguage", "contentType", "metadata")
"""What an object says of itself and may be changed."""

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Part = tuple[str, int]
"""A blob's digest and its bytes."""


def check_name(name: str) -> str:
    """Raises ApiError for what is no object's name ("About Cloud Storage objects", "Object names")."""
    if not name:
        raise ApiError("required", "Required parameter: name")
    wrong = "\r" in name or "\n" in name or name in (".", "..") or name.startswith(".well-known/acme-challenge/")
    if wrong or len(name.encode()) > LONGEST_NAME:
        raise ApiError("invalid", f"Invalid object name: '{name[:100]}'")
    return name


def describe(body: Wire) -> Doc:
    """What a request says of an object to be. Raises ApiError."""
    if body.get("storageClass") not in (None, "STANDARD"):
        raise NotSimulated(f"the storage class {body['storageClass']}")
    return {field: body[field] for field in DESCRIBED if field in body}


def make(
    scope: Scope,
    bucket: str,
    name: str,
    description: Wire,
    parts: Sequence[Part],
    asked: Wire,
    *,
    claims: Iterable[tuple[str | None, str | None]] = (),
    components: int | None = None,
) -> Doc:
    """Put an object, if what ``asked`` makes a condition of holds; its resource. ``claims`` are CRC-32C and MD5 as they
    were told; ``components`` counts those of a composite object, of which Google knows no MD5."""
    there = scope.get(objects_of(bucket), name)
    sums = Sums.of((scope.blobs.get(blob) for blob, _ in parts), composed=components is not None)
    for crc32c, md5 in claims:
        sums.refuse_others(crc32c, md5)
    conditions.hold(asked, None if there is None else there["resource"])
    generation, now = _generation(scope), time(scope.now)
    resource: Doc = {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{generation}",
        "name": name,
        "bucket": bucket,
        "generation": str(generation),
        "metageneration": "1",
        "contentType": "application/octet-stream",
        **description,
        "storageClass": "STANDARD",
        "size": str(sum(size for _, size in parts)),
        "crc32c": sums.crc32c,
        "timeCreated": now,
        "updated": now,
        "timeFinalized": now,
        "timeStorageClassUpdated": now,
    }
    resource |= {"md5Hash": sums.md5} if components is None else {"componentCount": components}
    scope.put(objects_of(bucket), name, {"resource": resource, "parts": [list(part) for part in parts]})
    return resource


def _generation(scope: Scope) -> int:
    """Microseconds, as Google's seem to be, and never the same again."""
    last = scope.get("count", "storage.generation")
    micros = (scope.now - _EPOCH) // timedelta(microseconds=1)
    number = micros if last is None else max(micros, int(last["number"]) + 1)
    scope.put("count", "storage.generation", {"number": number})
    return number


def shown(params: Wire, resource: Wire) -> Doc:
    """A resource as answers have it."""
    path = f"b/{resource['bucket']}/o/{quote(resource['name'], safe='')}"
    base = f"{params[BASE]}"
    return {
        **resource,
        "etag": conditions.etag(resource),
        "selfLink": f"{base}/storage/v1/{path}",
        "mediaLink": f"{base}/download/storage/v1/{path}?generation={resource['generation']}&alt=media",
    }


def _object(scope: Scope, params: Wire) -> Doc:
    """The object that is named. Raises ApiError."""
    bucket, name = params["bucket"], params["object"]
    found(scope, bucket)
    there = scope.get(objects_of(bucket), name)
    if there is None or params.get("generation") not in (None, there["resource"]["generation"]):
        raise conditions.no_object(bucket, name)
    return there


# ---------------------------------------------------------------------------------------------------------- reading


def get(scope: Scope, params: Wire) -> Doc:
    there = _object(scope, params)
    resource = there["resource"]
    conditions.hold(params, resource, reading=True)
    headers, tag = params.get("headers") or {}, conditions.etag(resource)
    if "if-match" in headers and not _names(headers["if-match"], tag):
        raise conditions.failed()
    if "if-none-match" in headers and _names(headers["if-none-match"], tag):
        raise conditions.not_modified()
    if params.get("alt") != "media":
        return {**shown(params, resource), REPLY: {"etag": tag}}
    return _media(scope, there, headers.get("range", ""))


def _names(header: str, tag: str) -> bool:
    return header.strip() == "*" or tag in [each.strip().strip('"') for each in header.split(",")]


def _media(scope: Scope, there: Doc, wanted: str) -> Doc:
    resource = there["resource"]
    size = int(resource["size"])
    hashes = [f"crc32c={resource['crc32c']}"] + ([f"md5={resource['md5Hash']}"] if "md5Hash" in resource else [])
    reply = {
        "content-type": resource["contentType"],
        "etag": conditions.etag(resource),
        "last-modified": format_datetime(datetime.fromisoformat(resource["updated"]), usegmt=True),
        "x-goog-generation": resource["generation"],
        "x-goog-metageneration": resource["metageneration"],
        "x-goog-hash": ",".join(hashes),
        "x-goog-storage-class": resource["storageClass"],
        "x-goog-stored-content-encoding": "identity",
        "x-goog-stored-content-length": resource["size"],
    }
    for field, header in (
        ("cacheControl", "cache-control"),
        ("contentDisposition", "content-disposition"),
        ("contentLanguage", "content-language"),
    ):
        if field in resource:
            reply[header] = resource[field]
    chosen = _range(wanted, size)
    if chosen is None:
        return {MEDIA: _read(scope, there["parts"], 0, size), REPLY: reply}
    first, end = chosen
    reply["content-range"] = f"bytes {first}-{end - 1}/{size}"
    return {MEDIA: _read(scope, there["parts"], first, end), REPLY: reply, STATUS: int(HTTPStatus.PARTIAL_CONTENT)}


def _range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and end, None for the whole: a header that cannot be read asks for nothing (RFC 9110, 14.2)."""
    said = _RANGE.fullmatch(header)
    if said is None or not any(said.groups()):
        return None
    first, last = said.groups()
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < begin:
            return None
    if begin >= end:
        told = "The requested range cannot be satisfied."
        raise ApiError("requestedRangeNotSatisfiable", told, 416, headers={"content-range": f"bytes */{size}"})
    return begin, end


def _read(scope: Scope, parts: Iterable[Any], first: int, end: int) -> bytes:
    """The bytes of an object in a range; no part is read that has none of them."""
    pieces, at = [], 0
    for blob, size in parts:
        if at < end and at + size > first:
            pieces.append(scope.blobs.get(blob)[max(0, first - at) : end - at])
        at += size
    return b"".join(pieces)


def list_all(scope: Scope, params: Wire) -> Doc:
    bucket = params["bucket"]
    found(scope, bucket)
    prefix, delimiter = params.get("prefix", ""), params.get("delimiter", "")
    first, end = params.get("startOffset", "").encode(), params.get("endOffset", "").encode()
    objects, lines = {}, {}
    for each in scope.all(objects_of(bucket)):
        name = each["resource"]["name"]
        if name.startswith(prefix) and first <= name.encode() and (not end or name.encode() < end):
            at = name.find(delimiter, len(prefix)) if delimiter else -1
            line = name if at < 0 else name[: at + len(delimiter)]
            # A name may be one that others have in common: both are shown.
            lines[line if at < 0 else line + _COMMON] = line
            objects[name] = each["resource"]
    names, token = page(sorted(lines, key=str.encode), params)
    items = [shown(params, objects[name]) for name in names if not name.endswith(_COMMON)]
    prefixes = [lines[name] for name in names if name.endswith(_COMMON)]
    return {
        "kind": "storage#objects",
        **({"items": items} if items else {}),
        **({"prefixes": prefixes} if prefixes else {}),
        **token,
    }


_COMMON = "\n"
"""No name has one: behind what several names have in common."""


# ---------------------------------------------------------------------------------------------------------- changing


def delete(scope: Scope, params: Wire) -> Doc:
    conditions.hold(params, _object(scope, params)["resource"])
    scope.delete(objects_of(params["bucket"]), params["object"])
    return {}


def patch(scope: Scope, params: Wire) -> Doc:
    there = _object(scope, params)
    resource, body = there["resource"], params.get("body") or {}
    conditions.hold(params, resource)
    for field in ("name", "bucket", "crc32c", "md5Hash", "storageClass"):
        if body.get(field) not in (None, resource.get(field)):
            raise ApiError("invalid", f"The field {field} cannot be changed.")
    for field in set(DESCRIBED) & set(body):
        merged = body[field]
        if field == "metadata" and merged is not None:
            both = {**resource.get("metadata", {}), **merged}
            merged = {name: value for name, value in both.items() if value is not None} or None
        if merged is None:
            resource.pop(field, None)
        else:
            resource[field] = merged
    resource |= {"metageneration": str(int(resource["metageneration"]) + 1), "updated": time(scope.now)}
    scope.put(objects_of(params["bucket"]), params["object"], there)
    return shown(params, resource)


def compose(scope: Scope, params: Wire) -> Doc:
    bucket, name, body = params["destinationBucket"], params["destinationObject"], params.get("body") or {}
    found(scope, bucket)
    check_name(name)
    destination, sources = body.get("destination") or {}, body.get("sourceObjects") or []
    if not sources:
        raise ApiError("required", "You must provide at least one source component.")
    if len(sources) > SOURCES:
        told = f"The number of source components provided ({len(sources)}) exceeds the maximum ({SOURCES})"
        raise ApiError("invalid", told)
    consumed = bool(body.get("deleteSourceObjects"))
    if consumed and name in [source.get("name") for source in sources]:
        raise NotSimulated("a composition that deletes what it replaces")
    parts: list[Part] = []
    components = 0
    for source in sources:
        there = _source(scope, bucket, source)
        parts += [(blob, size) for blob, size in there["parts"]]
        components += there["resource"].get("componentCount", 1)
    claims = [(destination.get("crc32c"), None)]
    resource = make(scope, bucket, name, describe(destination), parts, params, claims=claims, components=components)
    if consumed:
        for source in sources:
            scope.delete(objects_of(bucket), source["name"])
    return shown(params, resource)


def _source(scope: Scope, bucket: str, source: Wire) -> Doc:
    if not source.get("name"):
        raise ApiError("required", "Required parameter: sourceObjects.name")
    there = scope.get(objects_of(bucket), source["name"])
    wanted = source.get("generation")
    if there is None or (wanted is not None and str(wanted) != there["resource"]["generation"]):
        told = f"Object {source['name']} (generation: {wanted or 0}) not found."
        raise ApiError("notFound", told, 404)
    conditions.hold(source.get("objectPreconditions") or {}, there["resource"])
    return there
