"""Keys of an object store: one alphabet that a directory, S3 and GCS all take as it is."""

from __future__ import annotations

import re

from osvdeploy.errors import LedgerError

_PART = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*")
_LONGEST_KEY = 1024
"""Bytes: what S3 and GCS allow."""
_LONGEST_PART = 200
"""Linux file systems allow 255 bytes in a name; a temporary file's name may be longer than its object's."""


def check_key(key: str) -> str:
    """The key, if it can be one: parts of ASCII letters, digits and ``._~-``, joined by ``/``.

    No part is empty or begins with a dot: so none is ``..``, and a directory has room for names of its own.
    Raises :class:`~osvdeploy.errors.LedgerError`.
    """
    parts = key.split("/")
    if len(key) > _LONGEST_KEY or any(len(part) > _LONGEST_PART or not _PART.fullmatch(part) for part in parts):
        raise LedgerError(
            f"{key[:100]!r} cannot be an object's key",
            hint="names of apps, environments and versions take ASCII letters, digits and ._~- and begin with no dot",
        )
    return key
