"""The places whose snapshots and image registries are held to their promises, and what the tests put into them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from osvdeploy.cloud.interfaces import (
    Block,
    BlockSink,
    ImageRegistry,
    ImageRequest,
    Snapshots,
    UploadedDisk,
    UploadRequest,
)
from osvdeploy.cloud.tags import image_tags
from osvdeploy.context import Context
from osvdeploy.digests import Digest, sha256


@dataclass(frozen=True, slots=True)
class Place:
    """One place under test. ``read(disk_id)`` gives the blocks that read back; ``put_foreign(name)`` registers an
    image of that name without our tags, and gives its id."""

    ctx: Context
    snapshots: Snapshots
    images: ImageRegistry
    read: Callable[[str], dict[int, bytes]]
    put_foreign: Callable[[str], str]

    def upload(self, request: UploadRequest, contents: dict[int, bytes]) -> UploadedDisk:
        sink = self.snapshots.start(self.ctx, request)
        return finish(self.ctx, sink, blocks(contents))


APP = "orders"
DIGEST = sha256(b"1.0.0")


def content(size: int, seed: int) -> bytes:
    """``size`` bytes that differ from those of every other seed."""
    return hashlib.sha256(bytes([seed])).digest() * (size // 32)


def blocks(contents: dict[int, bytes]) -> list[Block]:
    return [Block(index, data, hashlib.sha256(data).digest()) for index, data in contents.items()]


def checksum(sent: Iterable[Block]) -> bytes:
    return hashlib.sha256(b"".join(block.sha256 for block in sorted(sent, key=lambda block: block.index))).digest()


def finish(ctx: Context, sink: BlockSink, sent: list[Block]) -> UploadedDisk:
    sink.put(ctx, sent, lambda index: None)
    return sink.complete(ctx, len(sent), checksum(sent))


def request(
    name: str = "orders-1.0.0", digest: Digest = DIGEST, parent: UploadedDisk | None = None, attempt: int = 0
) -> UploadRequest:
    return UploadRequest(name, digest, 1, image_tags(APP, "1.0.0", digest), parent, attempt)


def image_request(disk: UploadedDisk, name: str = "orders-1.0.0") -> ImageRequest:
    return ImageRequest(name, disk.digest, disk, image_tags(APP, "1.0.0", disk.digest))
