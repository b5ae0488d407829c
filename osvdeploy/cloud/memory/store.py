"""An object store in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from osvdeploy.cloud.keys import check_key
from osvdeploy.cloud.memory.calls import CallLog
from osvdeploy.context import Context


class MemoryStore:
    """:class:`~osvdeploy.cloud.interfaces.ObjectStore` in memory. Operations for the log: ``store.put``, ``.get``,
    ``.keys``, ``.delete``."""

    def __init__(self, calls: CallLog | None = None, address: str = "memory") -> None:
        self.calls = calls or CallLog()
        self._address = address
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return self._address

    def put_if_absent(self, ctx: Context, key: str, content: bytes) -> bool:
        check_key(key)
        with self.calls.around("store.put", key), self._lock:
            if key in self._objects:
                return False
            self._objects[key] = bytes(content)
            return True

    def get(self, ctx: Context, key: str) -> bytes | None:
        check_key(key)
        with self.calls.around("store.get", key), self._lock:
            return self._objects.get(key)

    def keys(self, ctx: Context, prefix: str, limit: int | None = None) -> Iterator[str]:
        with self.calls.around("store.keys", prefix), self._lock:
            return iter(sorted(key for key in self._objects if key.startswith(prefix))[:limit])

    def delete(self, ctx: Context, key: str) -> None:
        check_key(key)
        with self.calls.around("store.delete", key), self._lock:
            self._objects.pop(key, None)
