"""Keys of an object store, in one alphabet that a directory, S3 and GCS all take; and what buckets call them."""

from __future__ import annotations

import re

from osvdeploy.errors import LedgerError, UsageError

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


class BucketPlace:
    """A prefix of a bucket, at ``scheme://bucket/prefix``, and what keys are called there.

    Raises :class:`~osvdeploy.errors.UsageError` for an address that cannot be one.
    """

    def __init__(self, address: str, scheme: str, kind: str) -> None:
        """``kind`` is what an error calls such a bucket."""
        given, _, rest = address.partition("://")
        bucket, _, prefix = rest.partition("/")
        if given != scheme or not bucket:
            raise UsageError(
                f"{address!r} is no address of {kind}", hint=f"write {scheme}://BUCKET or {scheme}://BUCKET/PREFIX"
            )
        self.address, self.name, self.prefix = address.rstrip("/"), bucket, prefix.rstrip("/")
        if self.prefix:
            try:
                check_key(self.prefix)
            except LedgerError as error:
                raise UsageError(f"{address!r}: {error}", hint=error.hint) from error

    def of_key(self, key: str) -> str:
        """A key's name in the bucket."""
        return self.under(check_key(key))

    def under(self, prefix: str) -> str:
        """Likewise of the beginning of keys."""
        return f"{self.prefix}/{prefix}" if self.prefix else prefix

    def beneath(self, prefix: str) -> str:
        """Likewise of a folder, "" for the address itself: with the slash that ends it, where there is anything."""
        return f"{self.prefix}/{prefix}" if self.prefix else prefix

    def key_of(self, name: str) -> str:
        """The key whose name in the bucket this is."""
        return name[len(self.prefix) + 1 :] if self.prefix else name

    def about(self, key: str) -> str:
        """What an error calls a key, or the beginning of keys."""
        return f"{self.address}/{key}" if key else self.address
