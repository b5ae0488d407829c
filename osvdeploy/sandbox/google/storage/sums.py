"""CRC-32C and MD5 of objects, as Google tells them and as clients claim them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import google_crc32c

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.google.storage.conditions import Wire


@dataclass(frozen=True, slots=True)
class Sums:
    """Both in base64, CRC-32C in big-endian order; no MD5 of what was composed, which Google does not read for it."""

    crc32c: str
    md5: str | None

    @classmethod
    def of(cls, pieces: Iterable[bytes], *, composed: bool) -> Sums:
        crc, md5 = 0, hashlib.md5()
        for piece in pieces:
            crc = google_crc32c.extend(crc, piece)
            if not composed:
                md5.update(piece)
        return cls(_base64(crc.to_bytes(4, "big")), None if composed else _base64(md5.digest()))

    def refuse_others(self, crc32c: str | None, md5: str | None) -> None:
        """Raise ApiError where what a client said is not so."""
        for name, told, mine in (("CRC32C", crc32c, self.crc32c), ("MD5 hash", md5, self.md5)):
            if told is not None and told != mine:
                raise ApiError("invalid", f'Provided {name} "{told}" doesn\'t match calculated {name} "{mine}".')


def claimed(params: Wire) -> tuple[str | None, str | None]:
    """CRC-32C and MD5 that the ``x-goog-hash`` header gives. Raises ApiError."""
    found: dict[str, str] = {}
    for each in (params.get("headers") or {}).get("x-goog-hash", "").split(","):
        name, _, value = each.strip().partition("=")
        if name and name not in ("crc32c", "md5"):
            raise ApiError("invalid", f"Invalid value for x-goog-hash: {each.strip()}")
        found[name] = value
    return found.get("crc32c"), found.get("md5")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
