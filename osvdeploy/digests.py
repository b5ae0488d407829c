"""Digests: sha256 in lower-case hex, and the one JSON form that they are taken over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NewType, TypeAlias

Digest = NewType("Digest", str)
"""A sha256 in lower-case hex, 64 digits."""

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | bool | None"
"""What canonical JSON holds. No floats: two languages rarely print them alike."""


def canonical_json(value: Json) -> bytes:
    """UTF-8, keys sorted, no white space, non-ASCII as it is. Raises ValueError for a float, wherever it stands."""
    _refuse_floats(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


def digest_of(value: Json) -> Digest:
    """sha256 over the canonical JSON."""
    return sha256(canonical_json(value))


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise ValueError(f"{value}: canonical JSON holds no floats")
    if isinstance(value, Mapping):
        for part in value.values():
            _refuse_floats(part)
    elif isinstance(value, list | tuple):
        for part in value:
            _refuse_floats(part)
