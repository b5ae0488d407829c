"""What an upload says of its bytes, held against them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError, NotSimulated

Wire = Mapping[str, Any]
Checksum = tuple[str, str]
"""Algorithm and value, in base64."""


def _crc32(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "big")


ALGORITHMS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "CRC32": _crc32,
    "SHA1": lambda content: hashlib.sha1(content).digest(),
    "SHA256": lambda content: hashlib.sha256(content).digest(),
}


def member(algorithm: str) -> str:
    """What the API calls a checksum of this kind."""
    return f"Checksum{algorithm}"


def sum_of(algorithm: str, content: bytes) -> str:
    return base64.b64encode(ALGORITHMS[algorithm](content)).decode()


def simulated(algorithm: str | None) -> str | None:
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise NotSimulated(f"S3 checksums by {algorithm}")
    return algorithm


def declared(params: Wire) -> Checksum | None:
    """The checksum that is given. Raises ApiError for several, and for an announced one that is missing."""
    given = [(name, params[member(name)]) for name in ALGORITHMS if params.get(member(name)) is not None]
    if len(given) > 1:
        raise ApiError("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types found.")
    announced = simulated(params.get("ChecksumAlgorithm"))
    if announced is not None and [announced] != [name for name, _ in given]:
        raise ApiError(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
            "were found.",
        )
    return given[0] if given else None


def checked(params: Wire, content: bytes, sha256: str) -> Checksum | None:
    """The checksum that is given, if it is that of ``content``, whose SHA-256 is known; likewise Content-MD5.

    Raises ApiError.
    """
    told = params.get("ContentMD5")
    if told is not None:
        if len(_decoded(told) or b"") != 16:
            raise ApiError("InvalidDigest", "The Content-MD5 you specified was invalid.")
        if _decoded(told) != hashlib.md5(content).digest():
            raise ApiError("BadDigest", "The Content-MD5 you specified did not match what we received.")
    given = declared(params)
    if given is None:
        return None
    algorithm, value = given
    if len(_decoded(value) or b"") != len(ALGORITHMS[algorithm](b"")):
        raise ApiError("InvalidRequest", f"Value for x-amz-checksum-{algorithm.lower()} header is invalid.")
    known = base64.b64encode(bytes.fromhex(sha256)).decode()
    if value != (known if algorithm == "SHA256" else sum_of(algorithm, content)):
        raise ApiError("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")
    return given


def composite(algorithm: str, values: Sequence[str]) -> str:
    """The checksum over the checksums of parts."""
    joined = b"".join(base64.b64decode(value) for value in values)
    return f"{sum_of(algorithm, joined)}-{len(values)}"


def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
