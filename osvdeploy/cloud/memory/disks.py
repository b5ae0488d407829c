"""Disks and images in memory: as strict as a cloud about what it is given, and told by :class:`Faults` how to fail."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from osvdeploy.cloud.interfaces import (
    Block,
    BlockSink,
    CloudImage,
    ImageRequest,
    ImageUser,
    Tags,
    UploadedDisk,
    UploadRequest,
)
from osvdeploy.cloud.memory import registry
from osvdeploy.cloud.memory.faults import Faults
from osvdeploy.cloud.tags import DIGEST, NAME, is_ours
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import NotFound, Refused, UploadGone
from osvdeploy.sizes import GIB, KIB


@dataclass(slots=True)
class _Upload:
    """A disk in the store, open until ``finished``. ``written`` are the blocks put into it, not its parent's."""

    id: str
    name: str
    digest: Digest
    size_gib: int
    tags: dict[str, str]
    created: datetime
    parent: _Upload | None = None
    written: dict[int, bytes] = field(default_factory=dict)
    finished: bool = False

    def disk(self) -> UploadedDisk:
        return UploadedDisk(self.id, self.name, self.digest, self.size_gib, dict(self.tags), self.created)

    def blocks(self) -> dict[int, bytes]:
        return {**(self.parent.blocks() if self.parent else {}), **self.written}


class MemorySnapshots:
    """:class:`~osvdeploy.cloud.interfaces.Snapshots` in memory.

    Operations for ``faults``: ``snapshots.find``, ``.start``, ``.put`` (each block), ``.complete``, ``.abort``,
    ``.read`` (each block), ``.delete``, ``.owned``.
    """

    def __init__(self, faults: Faults | None = None, block_size: int = 512 * KIB) -> None:
        self.faults = faults or Faults()
        self._block_size = block_size
        self._uploads: dict[str, _Upload] = {}
        self._tokens: dict[tuple[object, ...], str] = {}
        self.in_use: Callable[[str], bool] = lambda disk_id: False
        """Whether an image stands on a disk; :class:`MemoryImages` puts its own answer here."""

    @property
    def block_size(self) -> int:
        return self._block_size

    def find(self, ctx: Context, name: str) -> UploadedDisk | None:
        with self.faults.around("snapshots.find", name):
            for upload in self._uploads.values():
                if upload.name == name and upload.finished and is_ours(upload.tags):
                    return upload.disk()
            return None

    def start(self, ctx: Context, request: UploadRequest) -> BlockSink:
        with self.faults.around("snapshots.start", request.name):
            parent = self._parent(request)
            token = (request.name, request.digest, request.size_gib, parent and parent.id, request.attempt)
            if token not in self._tokens:
                number = len(self._tokens) + 1
                self._tokens[token] = upload_id = f"disk-{number}"
                self._uploads[upload_id] = _Upload(
                    upload_id,
                    request.name,
                    request.digest,
                    request.size_gib,
                    {**request.tags, DIGEST: request.digest, NAME: request.name},
                    ctx.now(),
                    parent,
                )
            # A token repeats its first answer, also when what it names has been deleted since.
            if self._tokens[token] not in self._uploads:
                raise UploadGone(f"{request.name}: the upload {self._tokens[token]} was deleted")
            return _MemorySink(self, self._tokens[token])

    def read(self, ctx: Context, disk_id: str, indexes: Collection[int], got: Callable[[Block], None]) -> None:
        upload = self._finished(disk_id)
        for index, data in upload.blocks().items():
            if index in indexes:
                with self.faults.around("snapshots.read", disk_id, index):
                    got(Block(index, data, hashlib.sha256(data).digest()))

    def stored(self, ctx: Context, disk_id: str) -> int:
        upload = self._finished(disk_id)
        with self.faults.around("snapshots.read", disk_id):
            return len(upload.blocks()) * self.block_size

    def _finished(self, disk_id: str) -> _Upload:
        upload = self._uploads.get(disk_id)
        if upload is None:
            raise NotFound(f"{disk_id}: does not exist")
        if not upload.finished:
            raise Refused(f"{disk_id}: is not finished, and cannot be read")
        return upload

    def delete(self, ctx: Context, disk_id: str) -> None:
        with self.faults.around("snapshots.delete", disk_id):
            self._remove(disk_id)

    def owned(self, ctx: Context, tags: Tags) -> list[UploadedDisk]:
        with self.faults.around("snapshots.owned"):
            return [
                upload.disk()
                for upload in self._uploads.values()
                if is_ours(upload.tags) and tags.items() <= upload.tags.items()
            ]

    def bring(self, ctx: Context, size_gib: int, blocks: dict[int, bytes]) -> str:
        """A finished disk that nobody labelled yet, for :class:`MemoryImports`. Its id."""
        disk = f"disk-i{sum(name.startswith('disk-i') for name in self._uploads) + 1}"
        self._uploads[disk] = _Upload(disk, "", Digest(""), size_gib, {}, ctx.now(), None, {**blocks}, finished=True)
        return disk

    def label(self, disk_id: str, name: str, digest: Digest, tags: dict[str, str]) -> UploadedDisk:
        """Give a disk that was brought in its name."""
        upload = self._uploads[disk_id]
        upload.name, upload.digest, upload.tags = name, digest, tags
        return upload.disk()

    def exists(self, disk_id: str) -> bool:
        return disk_id in self._uploads

    def blocks(self, disk_id: str) -> dict[int, bytes]:
        """Everything that reads back from a disk, by block index, its parents' blocks included. For tests."""
        return self._uploads[disk_id].blocks()

    def written(self, disk_id: str) -> dict[int, bytes]:
        """What was put into this very disk. For tests."""
        return dict(self._uploads[disk_id].written)

    def spoil(self, disk_id: str, index: int, data: bytes) -> None:
        """Let a block of a finished disk hold other bytes. For tests."""
        self._uploads[disk_id].written[index] = data

    def lose(self, disk_id: str) -> None:
        """Let an upload expire, or somebody delete it."""
        self._uploads.pop(disk_id, None)

    def _parent(self, request: UploadRequest) -> _Upload | None:
        if request.parent is None:
            return None
        parent = self._uploads.get(request.parent.id)
        if parent is None:
            raise NotFound(f"{request.name}: its parent {request.parent.id} does not exist")
        if not parent.finished:
            raise Refused(f"{request.name}: its parent {parent.id} is not finished")
        if request.size_gib < parent.size_gib:
            raise Refused(f"{request.name}: {request.size_gib} GiB is less than its parent's {parent.size_gib} GiB")
        return parent

    def _remove(self, disk_id: str) -> None:
        if self.in_use(disk_id):
            raise Refused(f"{disk_id}: an image stands on it", code="in-use")
        self._uploads.pop(disk_id, None)

    def _open(self, disk_id: str) -> _Upload:
        upload = self._uploads.get(disk_id)
        if upload is None:
            raise UploadGone(f"{disk_id}: the upload expired or was deleted")
        return upload


class _MemorySink:
    def __init__(self, store: MemorySnapshots, upload_id: str) -> None:
        self._store = store
        self._id = upload_id

    @property
    def id(self) -> str:
        return self._id

    @property
    def finished(self) -> UploadedDisk | None:
        upload = self._store._uploads.get(self._id)
        return upload.disk() if upload is not None and upload.finished else None

    def put(self, ctx: Context, blocks: Iterable[Block], stored: Callable[[int], None]) -> None:
        for block in blocks:
            ctx.check()
            with self._store.faults.around("snapshots.put", self._id, block.index):
                upload = self._store._open(self._id)
                if upload.finished:
                    raise Refused(f"{self._id}: finished, nothing more can be put")
                if len(block.data) != self._store.block_size:
                    raise Refused(f"{self._id}: block {block.index} has {len(block.data)} bytes")
                if not 0 <= block.index < upload.size_gib * GIB // self._store.block_size:
                    raise Refused(f"{self._id}: block {block.index} is beyond {upload.size_gib} GiB")
                if hashlib.sha256(block.data).digest() != block.sha256:
                    raise Refused(f"{self._id}: block {block.index} does not have the checksum given")
                upload.written[block.index] = bytes(block.data)
            stored(block.index)

    def complete(self, ctx: Context, count: int, checksum: bytes) -> UploadedDisk:
        with self._store.faults.around("snapshots.complete", self._id):
            upload = self._store._open(self._id)
            if not upload.finished:
                if count != len(upload.written):
                    raise Refused(f"{self._id}: {len(upload.written)} blocks were put, not {count}")
                linear = hashlib.sha256()
                for _, data in sorted(upload.written.items()):
                    linear.update(hashlib.sha256(data).digest())
                if linear.digest() != checksum:
                    raise Refused(f"{self._id}: the blocks do not have the checksum given")
                upload.finished = True
            return upload.disk()

    def abort(self, ctx: Context) -> None:
        with self._store.faults.around("snapshots.abort", self._id):
            self._store._remove(self._id)


class MemoryImages:
    """:class:`~osvdeploy.cloud.interfaces.ImageRegistry` in memory, on the disks of a :class:`MemorySnapshots`.

    Operations for ``faults``: ``images.find``, ``.register``, ``.deregister``, ``.owned``, ``.retag``, ``.users``.
    """

    def __init__(self, snapshots: MemorySnapshots, faults: Faults | None = None) -> None:
        self.faults = faults or snapshots.faults
        self._snapshots = snapshots
        self._images: dict[str, CloudImage] = {}
        self._made = 0
        self.used: Callable[[], Iterable[tuple[str, ImageUser]]] = tuple
        """Ids of images, each with what starts machines from it."""
        snapshots.in_use = lambda disk_id: any(image.disk == disk_id for image in self._images.values())

    def find(self, ctx: Context, name: str) -> CloudImage | None:
        with self.faults.around("images.find", name):
            return registry.named(self._images.values(), name)

    def get(self, ctx: Context, image_id: str) -> CloudImage | None:
        with self.faults.around("images.get", image_id):
            return registry.by_id(self._images.values(), image_id)

    def register(self, ctx: Context, request: ImageRequest) -> CloudImage:
        with self.faults.around("images.register", request.name):
            there = registry.named(self._images.values(), request.name)
            if there is not None:
                return registry.same(there, request)
            disk = self._snapshots._uploads.get(request.disk.id)
            if disk is None:
                raise NotFound(f"{request.name}: its disk {request.disk.id} does not exist")
            if not disk.finished:
                raise Refused(f"{request.name}: its disk {disk.id} is not finished")
            return self._add(ctx, request.name, request.digest, disk.id, request.tags)

    def deregister(self, ctx: Context, image_id: str) -> None:
        with self.faults.around("images.deregister", image_id):
            self._images.pop(image_id, None)

    def owned(self, ctx: Context, tags: Tags) -> list[CloudImage]:
        with self.faults.around("images.owned"):
            return registry.owned(self._images.values(), tags)

    def retag(self, ctx: Context, image_id: str, tags: Tags, without: Collection[str] = ()) -> None:
        with self.faults.around("images.retag", image_id):
            image = registry.retagged(self._images.values(), image_id, tags, without)
            self._images[image_id] = image
            disk = self._snapshots._uploads.get(image.disk or "")
            if disk is not None:
                disk.tags = registry.with_tags(disk.tags, tags, without)

    def users(self, ctx: Context, images: Sequence[CloudImage]) -> Mapping[str, Sequence[ImageUser]]:
        if not images:
            return {}
        with self.faults.around("images.users"):
            return registry.users_of(images, self.used())

    def exists(self, image_id: str) -> bool:
        """Whether machines can be started from it. For the fakes of groups."""
        return image_id in self._images

    def put_foreign(self, ctx: Context, name: str) -> CloudImage:
        """An image that somebody else made, without our tags. For tests."""
        return self._add(ctx, name, Digest(""), None, {}, ours=False)

    def _add(
        self, ctx: Context, name: str, digest: Digest, disk: str | None, tags: Tags, *, ours: bool = True
    ) -> CloudImage:
        self._made += 1
        image = registry.made(ctx, self._made, name, digest, disk, tags, ours=ours)
        self._images[image.id] = image
        return image
