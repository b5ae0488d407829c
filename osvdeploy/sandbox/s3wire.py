"""S3's wire, where it is its own: which operation a request means, where its bucket stands, and bodies in chunks.

Sources: Amazon S3 user guide, "Virtual hosting of general purpose buckets", "Checking object integrity"; Amazon S3 API
reference, "Signature calculations: transferring payload in multiple chunks", "Error responses"; botocore's model of S3,
whose URIs and required members tell operations apart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from osvdeploy.sandbox.errors import ApiError

_HOST = re.compile(r"(?:(?P<bucket>.+)\.)?s3[.-](?:[a-z0-9-]+\.)*amazonaws\.com(?:\.cn)?")
_LOCAL = re.compile(r"(?P<bucket>.+)\.localhost")
_CHUNK = re.compile(rb"([0-9a-fA-F]+)(?:;[^\r\n]*)?\r\n")
_ELSEWHERE = ("ListDirectoryBuckets",)
"""Operations of other endpoints, which on this one mean something else."""


@dataclass(frozen=True, slots=True)
class _Route:
    """What a request must have to mean an operation: method, how much of ``/Bucket/Key``, query and headers."""

    name: str
    method: str
    depth: int
    query: frozenset[tuple[str, str | None]]
    headers: frozenset[str]

    def fits(self, method: str, depth: int, query: Mapping[str, str], headers: Mapping[str, str]) -> bool:
        return (
            (method, depth) == (self.method, self.depth)
            and all(name in query and value in (None, query[name]) for name, value in self.query)
            and all(name in headers for name in self.headers)
        )

    @property
    def weight(self) -> int:
        return len(self.query) + len(self.headers)


@cache
def _routes(model: Any) -> list[_Route]:
    found = []
    for name in model.operation_names:
        operation = model.operation_model(name)
        path, _, query = operation.http["requestUri"].partition("?")
        # A client made from the same loaded model takes the bucket out of its URIs, and keeps the whole path here.
        path = operation.http.get("authPath", path).rstrip("/")
        depths = {"": 0, "/{Bucket}": 1, "/{Bucket}/{Key+}": 2}
        if path not in depths or name in _ELSEWHERE:
            continue
        needed = {(key, value or None) for key, value in parse_qsl(query, keep_blank_values=True)}
        headers = set()
        shape = operation.input_shape
        for member in shape.required_members if shape is not None else ():
            said = shape.members[member].serialization
            if said.get("location") == "querystring":
                needed.add((said["name"], None))
            elif said.get("location") == "header":
                headers.add(said["name"].lower())
        found.append(_Route(name, operation.http["method"], depths[path], frozenset(needed), frozenset(headers)))
    # The one that asks for most comes first: ListParts is a GetObject with an uploadId.
    return sorted(found, key=lambda route: -route.weight)


def route(
    model: Any, method: str, url: str, headers: Mapping[str, str], query: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """The operation's name, and Bucket and Key. Raises ApiError for what is none."""
    split = urlsplit(url)
    host = (headers.get("host") or split.netloc).rpartition("@")[2].partition(":")[0]
    named = _HOST.fullmatch(host) or _LOCAL.fullmatch(host)
    path = split.path.removeprefix("/")
    if named is not None and named["bucket"]:
        bucket, key = named["bucket"], path
    else:
        bucket, _, key = path.partition("/")
    places = {"Bucket": unquote(bucket), "Key": unquote(key)}
    given = {name: value for name, value in places.items() if value}
    for each in _routes(model):
        if each.fits(method, len(given), query, headers):
            return each.name, given
    raise ApiError("MethodNotAllowed", "The specified method is not allowed against this resource.", 405)


def unwrapped(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body as they are meant: chunks joined, trailers among the headers, the payload's digest checked.

    Signatures of chunks are not checked, as none are. Raises ApiError as S3 does.
    """
    found = dict(headers)
    said = found.get("x-amz-content-sha256", "")
    encodings = [part.strip() for part in found.get("content-encoding", "").split(",")]
    if said.startswith("STREAMING-") or "aws-chunked" in encodings:
        body, trailers = _joined(body)
        found |= trailers
        length = found.pop("x-amz-decoded-content-length", None)
        if length is None:
            raise ApiError("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
        if length != str(len(body)):
            raise ApiError("IncompleteBody", "The request body terminated unexpectedly")
        for name in filter(None, found.get("x-amz-trailer", "").replace(" ", "").lower().split(",")):
            if name not in trailers:
                raise ApiError("MalformedTrailerError", f"The request contained trailing data without {name}")
        found["content-length"] = length
        others = [part for part in encodings if part and part != "aws-chunked"]
        found.pop("content-encoding", None)
        if others:
            found["content-encoding"] = ",".join(others)
    elif re.fullmatch(r"[0-9a-f]{64}", said) and hashlib.sha256(body).hexdigest() != said:
        raise ApiError(
            "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed."
        )
    return found, body


def _joined(body: bytes) -> tuple[bytes, dict[str, str]]:
    parts, at = [], 0
    while True:
        head = _CHUNK.match(body, at)
        if head is None:
            raise ApiError("IncompleteBody", "The request body is no sequence of chunks")
        length, at = int(head[1], 16), head.end()
        if length == 0:
            break
        if body[at + length : at + length + 2] != b"\r\n":
            raise ApiError("IncompleteBody", "A chunk of the request body ends unexpectedly")
        parts.append(body[at : at + length])
        at += length + 2
    trailers = {}
    for line in body[at:].split(b"\r\n"):
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            trailers[name.strip().lower()] = value.strip()
    return b"".join(parts), trailers


def refusal(refused: ApiError, identifier: str) -> bytes:
    """An error's document."""
    members = {"Code": refused.code, "Message": refused.message, **refused.fields, "RequestId": identifier}
    told = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in members.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{told}</Error>'.encode()
