"""Google's wire: one HTTP request to the call it means, and a result or refusal to the HTTP answer.

Any API that has a discovery document is spoken (:data:`APIS`); behaviour is not here. A call's parameters are those of
the path and the query by their names, and

``body``
    the request's JSON document,
``media``
    bytes that came with it, ``mediaType`` what they are said to be,
``headers``
    those headers that mean something,
``$base``
    the address at which the client reached us, for links in answers.

Sources: "Cloud Storage JSON API overview", "Resumable uploads", "HTTP status and error codes for JSON", RFC 2387.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.google.discovery import Method, api
from osvdeploy.sandbox.wire import STATUS, ApiRequest, ApiResponse, Call, Unreadable

APIS = {"/storage/v1/": "storage", "/compute/v1/": "compute", "/v3/": "monitoring", "/v1/": "pubsub"}
"""Where each API stands, and its name."""

BASE = "$base"
MEDIA = "$media"
"""In a result: bytes that are the answer, in place of a document."""

REPLY = "$headers"
"""In a result: the answer's headers. A ``location`` that is a path is completed by the client's way here."""

SENT = "objects.sendUpload"
CANCELLED = "objects.cancelUpload"
"""What no document has a name for: bytes for a resumable upload, and its end."""

_CONDITIONS = frozenset({"if-match", "if-none-match"})
_OF_READING = _CONDITIONS | {"range"}
_OF_UPLOADS = _CONDITIONS | {"x-goog-hash", "x-upload-content-length", "x-upload-content-type"}
_OF_SESSIONS = _CONDITIONS | {"x-goog-hash", "content-range"}
"""Headers that mean something. Google's own client sends some of them where they mean nothing."""

_IDLE_HEADERS = frozenset(
    {
        "x-goog-api-client",
        "x-goog-api-version",
        "x-goog-gcs-idempotency-token",
        "x-goog-hash",
        "x-goog-request-params",
        "x-goog-user-project",
    }
)
"""Headers of Google's that change no answer here, or only that of an upload. Another one is refused."""

_IDLE_PARAMETERS = frozenset({"key", "prettyPrint", "quotaUser", "userIp", "oauth_token", "access_token", "alt"})
"""Parameters that change no answer here; ``alt`` is looked at by itself."""

_UPLOADS = ("/upload", "/resumable/upload")
_DOWNLOADS = ("/download",)
_JSON = "application/json; charset=UTF-8"


def speaks(request: ApiRequest) -> bool:
    """Whether a request goes to one of Google's addresses, and is not signed as AWS's are."""
    split = urlsplit(request.url)
    signed = request.headers.get("authorization", "").startswith("AWS") or "X-Amz-Credential=" in split.query
    return not signed and _place(split.path) is not None


def _place(path: str) -> tuple[str, str, str] | None:
    """The service, what stands before its own path (``/upload``), and what follows it."""
    for before in (*_UPLOADS, *_DOWNLOADS, ""):
        for prefix, service in APIS.items():
            if path.startswith(before + prefix):
                return service, before, path.removeprefix(before + prefix)
    return None


def parse(request: ApiRequest) -> Call:
    """The call a request means. Raises :class:`~osvdeploy.sandbox.wire.Unreadable`."""
    if request.method not in ("GET", "POST") or len(request.body) > _WORTH_KEEPING:
        return _parse(request)
    service, name, params = _read(request.method, request.url, tuple(request.headers.items()), request.body)
    return Call(service, "", name, pickle.loads(params))


_WORTH_KEEPING = 1024
"""Longer requests, in bytes, are changes and uploads."""


@lru_cache(maxsize=1024)
def _read(method: str, url: str, headers: tuple[tuple[str, str], ...], body: bytes) -> tuple[str, str, bytes]:
    """Service, operation and parameters of a request, the last pickled: who polls asks the same again and again, and
    each call may change its own."""
    call = _parse(ApiRequest(method, url, dict(headers), body))
    return call.service, call.operation, pickle.dumps(call.params, pickle.HIGHEST_PROTOCOL)


def _parse(request: ApiRequest) -> Call:
    split = urlsplit(request.url)
    place = _place(split.path)
    assert place is not None
    service, before, path = place
    name, alt = "", parse_qs(split.query).get("alt", [""])[-1]
    try:
        params: dict[str, Any] = {BASE: _base(request)}
        if alt == "media":
            params["alt"] = alt
        found = api(service).route("POST" if before in _UPLOADS else request.method, path)
        if found is None:
            raise ApiError("notFound", "Not Found", 404)
        method, in_path = found
        pairs = parse_qsl(split.query, keep_blank_values=True)
        upload = dict(pairs).get("upload_id")
        if before in _UPLOADS and upload is not None:
            name, meant = _of_session(request.method), _OF_SESSIONS
            params |= {"upload_id": upload, "media": request.body, **in_path}
        else:
            name, meant = method.name, _OF_UPLOADS if before in _UPLOADS else _OF_READING
            if before in _UPLOADS and request.method != "POST":
                raise ApiError("notFound", "Not Found", 404)
            params |= {**method.query(pairs), **in_path}
            method.require(params)
            params |= _read_body(method, before, params, request)
        params |= _headers(request, meant)
        # What is not asked for as bytes is answered as JSON, said or not.
        for idle in _IDLE_PARAMETERS - ({"alt"} if alt != "json" else frozenset()):
            params.pop(idle, None)
    except ApiError as refusal:
        raise Unreadable(refusal, Call(service, "", name, {"alt": alt})) from None
    return Call(service, "", name, params)


def _base(request: ApiRequest) -> str:
    split = urlsplit(request.url)
    return f"{split.scheme or 'http'}://{request.headers.get('host') or split.netloc}"


def _of_session(verb: str) -> str:
    match verb:
        case "PUT" | "POST":
            return SENT
        case "DELETE":
            return CANCELLED
    raise ApiError("methodNotAllowed", "Method Not Allowed", 405)


def _headers(request: ApiRequest, meant: frozenset[str]) -> dict[str, Any]:
    for name in request.headers:
        if name.startswith("x-goog-") and name not in _IDLE_HEADERS:
            raise NotSimulated(f"the header {name}")
    found = {name: value for name, value in request.headers.items() if name in meant}
    return {"headers": found} if found else {}


def _read_body(method: Method, before: str, params: Mapping[str, Any], request: ApiRequest) -> dict[str, Any]:
    kind = request.headers.get("content-type", "")
    if before not in _UPLOADS:
        if params.get("uploadType") is not None:
            raise ApiError("badRequest", "Uploads must be sent to the upload URL.")
        return {"body": method.body(_document(request.body))} if request.body else {}
    if not method.document.get("supportsMediaUpload"):
        raise ApiError("badRequest", "Media uploads are not supported by this method.")
    match params.get("uploadType"):
        case "media":
            return {"media": request.body, "mediaType": kind}
        case "multipart":
            document, kind, media = _two_parts(kind, request.body)
            return {"body": method.body(_document(document)), "media": media, "mediaType": kind}
        case "resumable":
            return {"body": method.body(_document(request.body))} if request.body else {}
        case other:
            raise ApiError("badRequest", f"Invalid upload request: uploadType {other or ''}".rstrip())


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise ApiError("parseError", "Parse Error") from None


def _two_parts(kind: str, body: bytes) -> tuple[bytes, str, bytes]:
    """Of a multipart/related body: the document, what the media is said to be, and the media."""
    said = re.match(r'multipart/related\s*;(?:.*;)?\s*boundary=("?)([^";]+)\1', kind, re.IGNORECASE)
    if said is None:
        raise ApiError("badRequest", "Malformed multipart body.")
    mark = b"--" + said[2].encode()
    # The media may be large, and hold anything but the mark: it is looked for at the ends of lines alone.
    body = b"\r\n" + body if body.startswith(mark) else body
    pieces = body.split(b"\r\n" + mark)
    if len(pieces) != 4 or not pieces[3].startswith(b"--"):
        raise ApiError("badRequest", "Malformed multipart body.")
    (_, document), (head, media) = _part(pieces[1]), _part(pieces[2])
    return document, head.get("content-type", ""), media


def _part(piece: bytes) -> tuple[dict[str, str], bytes]:
    head, blank, content = piece.partition(b"\r\n\r\n")
    if not blank:
        raise ApiError("badRequest", "Malformed multipart body.")
    lines = head.decode("latin-1").strip().splitlines()
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, content


def admit(call: Call, access_key: str | None) -> None:
    """Everybody is let in: clients that are pointed at an emulator send no credentials."""


# ------------------------------------------------------------------------------------------------------------ answers


def answer(call: Call, result: Mapping[str, Any], identifier: str) -> ApiResponse:
    """A result as Google sends it. Raises :class:`~osvdeploy.sandbox.google.discovery.Mismatch` for what it never
    would."""
    told = dict(result)
    status, media = told.pop(STATUS, None), told.pop(MEDIA, None)
    headers = {"x-guploader-uploadid": identifier, **told.pop(REPLY, {})}
    if headers.get("location", "").startswith("/"):
        headers["location"] = call.params[BASE] + headers["location"]
    if media is not None:
        return ApiResponse(status or 200, {"content-type": "text/plain", **headers}, media)
    method = api(call.service).methods.get("objects.insert" if call.operation == SENT else call.operation)
    body = json.dumps(told)
    if status is None and method is not None:
        _hold(call.service, method.name, body)
    if not told:
        return ApiResponse(status or 204, {"content-type": _JSON, **headers}, b"")
    return ApiResponse(status or 200, {"content-type": _JSON, **headers}, body.encode())


@lru_cache(maxsize=1024)
def _hold(service: str, method: str, body: str) -> None:
    """Hold an answer to the document, equal ones once: who polls gets the same one many times."""
    api(service).methods[method].answer(json.loads(body))


def refusal(call: Call, refused: ApiError, identifier: str) -> ApiResponse:
    """A refusal as Google sends it: a document, or its words alone where bytes were asked for."""
    headers = {"x-guploader-uploadid": identifier, **refused.headers}
    if refused.status == 304:
        return ApiResponse(304, headers, b"")
    if call.params.get("alt") == "media":
        return ApiResponse(
            refused.status, {"content-type": "text/html; charset=UTF-8", **headers}, refused.message.encode()
        )
    reason = refused.code[:1].lower() + refused.code[1:]
    first = {"message": refused.message, "domain": "global", "reason": reason, **refused.fields}
    document = {"error": {"code": refused.status, "message": refused.message, "errors": [first]}}
    return ApiResponse(refused.status, {"content-type": _JSON, **headers}, json.dumps(document).encode())
