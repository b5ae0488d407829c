"""An object store in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from osvdeploy.cloud.interfaces import ObjectSource, StoredObject, UnfinishedObject
from osvdeploy.cloud.keys import check_key
from osvdeploy.cloud.memory.calls import CallLog
from osvdeploy.cloud.parts import agreed, cut, is_refusal
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import NotFound, ObjectTaken, OsvDeployError
from osvdeploy.events import Progress
from osvdeploy.sizes import KIB

PART = 64 * KIB
"""Bytes that one ``store.part`` takes: small, so that a test has many of them."""


@dataclass(frozen=True, slots=True)
class _Object:
    content: bytes
    digest: Digest | None
    created: datetime


@dataclass(slots=True)
class _Upload:
    id: str
    key: str
    digest: Digest
    begun: datetime
    parts: dict[int, bytes] = field(default_factory=dict)


class MemoryStore:
    """:class:`~osvdeploy.cloud.interfaces.ObjectStore` in memory. Operations for the log: ``store.put``, ``.get``,
    ``.keys``, ``.delete``, ``.find``, ``.begin``, ``.part``, ``.finish``, ``.join``, ``.uploads``, ``.abort``."""

    def __init__(self, calls: CallLog | None = None, address: str = "memory") -> None:
        self.calls = calls or CallLog()
        self._address = address
        self._objects: dict[str, _Object] = {}
        self._uploads: dict[str, _Upload] = {}
        self._begun = 0
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return self._address

    def refuse_unwritable(self, ctx: Context, prefix: str) -> None:
        """There is always room."""

    def put_if_absent(self, ctx: Context, key: str, content: bytes) -> bool:
        check_key(key)
        with self.calls.around("store.put", key), self._lock:
            if key in self._objects:
                return False
            self._objects[key] = _Object(bytes(content), None, ctx.now())
            return True

    def get(self, ctx: Context, key: str) -> bytes | None:
        check_key(key)
        with self.calls.around("store.get", key), self._lock:
            there = self._objects.get(key)
            return there.content if there is not None else None

    def keys(self, ctx: Context, prefix: str, limit: int | None = None) -> Iterator[str]:
        with self.calls.around("store.keys", prefix), self._lock:
            return iter(sorted(key for key in self._objects if key.startswith(prefix))[:limit])

    def folders(self, ctx: Context, prefix: str) -> Iterator[str]:
        with self.calls.around("store.folders", prefix), self._lock:
            below = (key[len(prefix) :] for key in self._objects if key.startswith(prefix))
            return (name[:-1] for name in sorted({f"{rest.partition('/')[0]}/" for rest in below if "/" in rest}))

    def delete(self, ctx: Context, key: str) -> None:
        check_key(key)
        with self.calls.around("store.delete", key), self._lock:
            self._objects.pop(key, None)

    def find(self, ctx: Context, key: str) -> StoredObject | None:
        check_key(key)
        with self.calls.around("store.find", key), self._lock:
            there = self._objects.get(key)
            return StoredObject(key, len(there.content), there.digest, there.created) if there is not None else None

    def put_file(self, ctx: Context, key: str, source: ObjectSource) -> StoredObject:
        there = self.find(ctx, key)
        if there is not None:
            return agreed(self._address, there, source)
        while (stored := self.find(ctx, key)) is None:
            self._upload(ctx, key, source)
        return agreed(self._address, stored, source)

    def _upload(self, ctx: Context, key: str, source: ObjectSource) -> None:
        """One upload; it comes to nothing where another that shares it was faster, or took it away."""
        upload = self._begin(ctx, key, source.digest)
        try:
            self._send(ctx, key, source, upload)
        except OsvDeployError as error:
            if is_refusal(error):
                self._uploads.pop(upload.id, None)
            raise

    def _send(self, ctx: Context, key: str, source: ObjectSource, upload: _Upload) -> None:
        done = 0
        for number, part in enumerate(cut(source.pieces(), lambda number: PART)):
            ctx.check()
            if upload.parts.get(number) != part:
                with self.calls.around("store.part", key, number), self._lock:
                    upload.parts[number] = part
            done += len(part)
            ctx.report(Progress(f"upload {key}", done, source.size, "bytes"))
        with self.calls.around("store.finish", key), self._lock:
            if self._uploads.pop(upload.id, None) is not None and key not in self._objects:
                content = b"".join(upload.parts[number] for number in sorted(upload.parts))
                self._objects[key] = _Object(content, upload.digest, ctx.now())

    def _begin(self, ctx: Context, key: str, digest: Digest) -> _Upload:
        with self.calls.around("store.uploads", key), self._lock:
            for upload in self._uploads.values():
                if (upload.key, upload.digest) == (key, digest):
                    return upload
        with self.calls.around("store.begin", key), self._lock:
            self._begun += 1
            upload = _Upload(f"upload-{self._begun}", key, digest, ctx.now())
            self._uploads[upload.id] = upload
            return upload

    def join(self, ctx: Context, key: str, parts: Sequence[str], digest: Digest) -> StoredObject:
        check_key(key)
        with self.calls.around("store.join", key), self._lock:
            there = self._objects.get(key)
            if there is None:
                missing = [part for part in parts if part not in self._objects]
                if missing:
                    raise NotFound(f"{self._address}/{missing[0]}: there is no such object")
                content = b"".join(self._objects[part].content for part in parts)
                there = self._objects[key] = _Object(content, digest, ctx.now())
            if there.digest != digest:
                raise ObjectTaken(f"{self._address}/{key}", held=there.digest, ours=digest)
            return StoredObject(key, len(there.content), there.digest, there.created)

    def unfinished(self, ctx: Context, prefix: str) -> list[UnfinishedObject]:
        with self.calls.around("store.uploads", prefix), self._lock:
            return [
                UnfinishedObject(upload.key, upload.id, upload.begun, sum(map(len, upload.parts.values())))
                for upload in self._uploads.values()
                if upload.key.startswith(prefix)
            ]

    def abort(self, ctx: Context, upload: UnfinishedObject) -> None:
        with self.calls.around("store.abort", upload.key), self._lock:
            self._uploads.pop(upload.id, None)
