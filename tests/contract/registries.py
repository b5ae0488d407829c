"""The places whose image registries are held to their promises: images of disks, and images of archives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from osvdeploy.cloud.gcp.images import GceImages
from osvdeploy.cloud.interfaces import ArchiveImages, JoiningStore, Tags, UploadedDisk
from osvdeploy.cloud.memory import MemoryArchiveImages, MemoryStore
from osvdeploy.cloud.tags import image_tags
from osvdeploy.context import Context, VirtualClock
from osvdeploy.digests import Digest
from osvdeploy.osv.disk import FileAccess
from osvdeploy.publish.archive import Archive, trailer
from tests.contract.disks import APP, DIGEST, Place, content, request
from tests.contract.gcp_place import GcpSandbox
from tests.publish.disk import raw_disk


class OfDisks:
    """Images of disks that go up in blocks. ``disk`` brings what an image is made of, ``drop`` takes it away."""

    stands = True
    """Whether an image stands on its disk, or is a copy."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.ctx, self.images, self.put_foreign = place.ctx, place.images, place.put_foreign

    def disk(self, name: str = "orders-1.0.0", digest: Digest = DIGEST) -> UploadedDisk:
        return self._place.upload(request(name, digest), {0: content(self._place.snapshots.block_size, 0)})

    def drop(self, disk: UploadedDisk) -> None:
        self._place.snapshots.delete(self.ctx, disk.id)

    def tags_of_disk(self, name: str = "orders-1.0.0") -> Tags | None:
        """The tags that an image's disk has, None without one."""
        found = self._place.snapshots.find(self.ctx, name)
        return None if found is None else found.tags

    def holds(self, disk: UploadedDisk) -> bool:
        return self._place.snapshots.find(self.ctx, disk.name) is not None


@dataclass
class OfArchives:
    """Images of archives in an object store."""

    ctx: Context
    images: ArchiveImages
    store: JoiningStore
    put_foreign: Callable[[str], str]
    patience: float = 30.0
    """Seconds in which three images are ready that were begun together."""
    stands: ClassVar[bool] = False

    def disk(self, name: str = "orders-1.0.0", digest: Digest = DIGEST) -> UploadedDisk:
        key = f"{name}.tar.gz"
        self.store.put_if_absent(self.ctx, key, archive())
        return UploadedDisk(f"{self.store.address}/{key}", name, digest, 1, image_tags(APP, "1.0.0", digest))

    def drop(self, disk: UploadedDisk) -> None:
        self.store.delete(self.ctx, f"{disk.name}.tar.gz")

    def tags_of_disk(self, name: str = "orders-1.0.0") -> Tags | None:
        return None

    def holds(self, disk: UploadedDisk) -> bool:
        return self.store.find(self.ctx, f"{disk.name}.tar.gz") is not None


Registry = OfDisks | OfArchives


@functools.cache
def archive() -> bytes:
    """An archive of a small disk."""
    with TemporaryDirectory() as folder:
        raw = raw_disk(Path(folder) / "disk.raw")
        made = Archive(FileAccess(raw.path), raw.read)
        head, total = made.head()
        body = made.body()
        rest = b"".join(body)
        assert body.sum is not None
        return head + rest + trailer(total + body.sum)


def memory_archives() -> OfArchives:
    ctx, store = Context(clock=VirtualClock()), MemoryStore()
    images = MemoryArchiveImages(store)

    def put_foreign(name: str) -> str:
        return images.put_foreign(ctx, name).id

    return OfArchives(ctx, images, store, put_foreign)


def gcp_archives() -> OfArchives:
    account = GcpSandbox()

    def put_foreign(name: str) -> str:
        called = name.replace(".", "-")
        account.put_foreign(called, archive())
        return f"projects/{account.gcp().project}/global/images/{called}"

    return OfArchives(account.ctx, GceImages(account.gcp()), account.store("gs://acme/osvdeploy"), put_foreign)
