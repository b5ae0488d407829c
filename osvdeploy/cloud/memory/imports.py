"""Imports of disks in memory: an object of a :class:`MemoryStore` becomes a disk of a :class:`MemorySnapshots`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from osvdeploy.cloud.interfaces import ImportRequest, UploadedDisk
from osvdeploy.cloud.memory.disks import MemorySnapshots
from osvdeploy.cloud.memory.faults import Faults
from osvdeploy.cloud.memory.store import MemoryStore
from osvdeploy.cloud.tags import DIGEST, NAME
from osvdeploy.context import Context
from osvdeploy.errors import DiskInvalid, Refused, Unready, UploadGone
from osvdeploy.osv.vmdk import read_vmdk
from osvdeploy.sizes import GIB

TAKES = 60.0
"""Seconds until an import has read its object."""


@dataclass(slots=True)
class _Import:
    request: ImportRequest
    due: float
    disk: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class _Bytes:
    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def pread(self, offset: int, length: int) -> bytes:
        return self.content[max(0, offset) : max(0, offset + length)]


class MemoryImports:
    """:class:`~osvdeploy.cloud.interfaces.DiskImports` in memory.

    Operations for ``faults``: ``imports.ready``, ``.find``, ``.start``, ``.look``, ``.label``, ``.reading``. What is
    not labelled yet is a disk that only its import tells of.
    """

    def __init__(self, store: MemoryStore, snapshots: MemorySnapshots, faults: Faults | None = None) -> None:
        self.faults = faults or snapshots.faults
        self.ready = True
        """Whether the place is set up for imports."""
        self._store = store
        self._snapshots = snapshots
        self._imports: dict[str, _Import] = {}

    def refuse_unready(self, ctx: Context, location: str) -> None:
        with self.faults.around("imports.ready", location):
            if not self.ready:
                raise Unready(f"{location}: nothing may be imported here", hint="set ready")

    def find(self, ctx: Context, request: ImportRequest) -> str | None:
        with self.faults.around("imports.find", request.name):
            return next((name for name in self._of(request) if self._is_alive(ctx, name)), None)

    def start(self, ctx: Context, request: ImportRequest) -> str:
        with self.faults.around("imports.start", request.name):
            if self._content(request) is None:
                raise Refused(f"{request.location} does not exist")
            # The same request is the same import, unless that one is dead.
            for name in self._of(request):
                if self._is_alive(ctx, name):
                    return name
            self._imports[name := f"import-{len(self._imports) + 1}"] = _Import(request, ctx.monotonic() + TAKES)
            return name

    def finish(self, ctx: Context, request: ImportRequest, running: str) -> UploadedDisk:
        while True:
            with self.faults.around("imports.look", running):
                self._settle(ctx)
                found = self._imports[running]
                if found.failure:
                    raise Refused(f"disk {request.name}: {found.failure}")
                if not self._is_alive(ctx, running):
                    raise UploadGone(f"disk {request.name}: the imported {found.disk} was deleted")
            if found.disk:
                break
            ctx.sleep(5.0)
        with self.faults.around("imports.label", found.disk):
            tags = {**request.tags, NAME: request.name, DIGEST: request.digest}
            return self._snapshots.label(found.disk, request.name, request.digest, tags)

    def reading(self, ctx: Context) -> set[str]:
        with self.faults.around("imports.reading"):
            self._settle(ctx)
            return {each.request.location for each in self._imports.values() if not each.disk and not each.failure}

    def _of(self, request: ImportRequest) -> list[str]:
        wanted = (request.name, request.digest)
        return [name for name, each in self._imports.items() if (each.request.name, each.request.digest) == wanted]

    def _is_alive(self, ctx: Context, name: str) -> bool:
        self._settle(ctx)
        found = self._imports[name]
        return not found.failure and (not found.disk or self._snapshots.exists(found.disk))

    def _content(self, request: ImportRequest) -> bytes | None:
        there = self._store._objects.get(request.location.removeprefix(f"{self._store.address}/"))
        return there.content if there is not None else None

    def _settle(self, ctx: Context) -> None:
        for name, each in self._imports.items():
            if each.disk or each.failure or each.due > ctx.monotonic():
                continue
            content = self._content(each.request)
            if content is None:
                self._imports[name] = replace(each, failure=f"{each.request.location} is gone")
                continue
            try:
                disk = read_vmdk(_Bytes(content))
                size = self._snapshots.block_size
                blocks = {
                    index: disk.pread(index * size, size)
                    for extent in disk.data(0, disk.size)
                    for index in range(extent.start // size, -(-extent.end // size))
                }
            except DiskInvalid as error:
                self._imports[name] = replace(each, failure=str(error))
                continue
            self._imports[name] = replace(each, disk=self._snapshots.bring(ctx, disk.size // GIB, blocks))
