"""Objects on their way up: in one request, or in a resumable upload's several."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.google.storage import conditions
from osvdeploy.sandbox.google.storage.buckets import found
from osvdeploy.sandbox.google.storage.conditions import Wire
from osvdeploy.sandbox.google.storage.objects import check_name, describe, make, shown
from osvdeploy.sandbox.google.storage.sums import claimed
from osvdeploy.sandbox.google.wire import REPLY
from osvdeploy.sandbox.services.scope import Doc, Scope
from osvdeploy.sandbox.wire import STATUS
from osvdeploy.sizes import KIB

UPLOAD: Final = "storage.upload"
EXPIRES: Final = "storage.upload-expires"
LIFETIME: Final = 7 * 86400.0
"""Seconds."""

UNIT: Final = 256 * KIB
"""What is kept of a chunk that is not the last is a multiple of this."""

_CHUNK = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_CLIENT_CLOSED = 499


def insert(scope: Scope, params: Wire) -> Doc:
    bucket, body = params["bucket"], params.get("body") or {}
    found(scope, bucket)
    name = check_name(params.get("name") or body.get("name") or "")
    if body.get("bucket") not in (None, bucket):
        raise ApiError("invalid", f"Value '{body['bucket']}' in content does not agree with value '{bucket}'.")
    description = describe(body)
    if params.get("uploadType") == "resumable":
        return _begin(scope, params, name, description)
    if "media" not in params:
        raise ApiError("badRequest", "Upload requests must be sent to the upload URL.")
    if params.get("mediaType"):
        description.setdefault("contentType", params["mediaType"])
    claims = [(body.get("crc32c"), body.get("md5Hash")), claimed(params)]
    parts = _kept(scope, params["media"])
    return shown(params, make(scope, bucket, name, description, parts, params, claims=claims))


def _kept(scope: Scope, content: bytes) -> list[tuple[str, int]]:
    return [(scope.blobs.put(content), len(content))] if content else []


def _begin(scope: Scope, params: Wire, name: str, description: Doc) -> Doc:
    headers, body, bucket = params.get("headers") or {}, params.get("body") or {}, params["bucket"]
    if "x-upload-content-type" in headers:
        description.setdefault("contentType", headers["x-upload-content-type"])
    length = headers.get("x-upload-content-length")
    if length is not None and not length.isdigit():
        raise ApiError("invalid", f"Invalid value for X-Upload-Content-Length: {length}")
    upload = scope.new_id(40)
    session = {
        "bucket": bucket,
        "name": name,
        "description": description,
        "claims": [[body.get("crc32c"), body.get("md5Hash")], list(claimed(params))],
        "conditions": {each: params[each] for each in conditions.CONDITIONS if each in params},
        "length": None if length is None else int(length),
        "parts": [],
        "received": 0,
        "done": None,
    }
    scope.put(UPLOAD, upload, session)
    scope.later(LIFETIME, EXPIRES, {"upload": upload})
    query = urlencode({"uploadType": "resumable", "name": name, "upload_id": upload})
    return {STATUS: int(HTTPStatus.OK), REPLY: {"location": f"/upload/storage/v1/b/{bucket}/o?{query}"}}


def expire(scope: Scope, payload: Wire) -> None:
    scope.delete(UPLOAD, payload["upload"])


def _session(scope: Scope, params: Wire) -> Doc:
    session = scope.get(UPLOAD, params["upload_id"])
    if session is None or session["bucket"] != params["bucket"]:
        raise ApiError("notFound", "Not Found", 404)
    return session


def cancel(scope: Scope, params: Wire) -> Doc:
    _session(scope, params)
    scope.delete(UPLOAD, params["upload_id"])
    return {STATUS: _CLIENT_CLOSED}


def send(scope: Scope, params: Wire) -> Doc:
    """Take bytes of an upload in, or tell how many there are. The last ones make the object."""
    session = _session(scope, params)
    if session["done"] is not None:
        # Whoever missed the answer asks again.
        return shown(params, session["done"])
    content, total = _chunk(session, params)
    if total is None:
        content = content[: len(content) - (session["received"] + len(content)) % UNIT]
    session["parts"] += [list(part) for part in _kept(scope, content)]
    session["received"] += len(content)
    if total is None or session["received"] < total:
        scope.put(UPLOAD, params["upload_id"], session)
        reply = {"range": f"bytes=0-{session['received'] - 1}"} if session["received"] else {}
        return {STATUS: int(HTTPStatus.PERMANENT_REDIRECT), REPLY: reply}
    made = make(
        scope,
        session["bucket"],
        session["name"],
        session["description"],
        [(blob, size) for blob, size in session["parts"]],
        session["conditions"],
        claims=[(crc32c, md5) for crc32c, md5 in (*session["claims"], claimed(params))],
    )
    scope.put(UPLOAD, params["upload_id"], session | {"parts": [], "done": made})
    return shown(params, made)


def _chunk(session: Doc, params: Wire) -> tuple[bytes, int | None]:
    """Those of the request's bytes that are new, and the whole's length where these are the last. Raises ApiError."""
    content: bytes = params["media"]
    asks, begin, end, total = _told((params.get("headers") or {}).get("content-range"), len(content))
    if session["length"] is not None and total not in (None, session["length"]):
        raise ApiError("badRequest", f"The upload was begun as one of {session['length']} bytes, not {total}.")
    if end - begin != len(content) or (total is not None and end > total):
        raise ApiError("badRequest", f"The Content-Range header does not agree with {len(content)} bytes of content.")
    if asks:
        # With nothing missing, this too ends an upload.
        return b"", total if total == session["received"] else None
    if begin > session["received"]:
        raise ApiError(
            "badRequest",
            f"Invalid request.  According to the Content-Range header, the upload offset is {begin} byte(s), which "
            f"exceeds already uploaded size of {session['received']} byte(s).",
        )
    return content[session["received"] - begin :], total if end == total else None


def _told(header: str | None, length: int) -> tuple[bool, int, int, int | None]:
    """What a chunk says of itself: whether it only asks, first byte, end, and the whole's length where it is known.
    One that says nothing is the whole."""
    if header is None:
        return False, 0, length, length
    said = _CHUNK.fullmatch(header)
    if said is None:
        raise ApiError("badRequest", f"Failed to parse Content-Range header: {header}")
    first, last, whole = said.groups()
    total = None if whole == "*" else int(whole)
    return (True, 0, 0, total) if first is None else (False, int(first), int(last) + 1, total)
