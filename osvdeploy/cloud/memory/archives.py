"""Images in memory that are copies of archives in a :class:`MemoryStore`."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from osvdeploy.cloud.interfaces import ArchivePlace, CloudImage, ImageRequest, Tags
from osvdeploy.cloud.memory.faults import Faults
from osvdeploy.cloud.memory.store import MemoryStore
from osvdeploy.cloud.tags import DIGEST, NAME, is_ours
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import ImageNameTaken, NotFound, NotOurs, Refused


@dataclass(slots=True)
class _Kept:
    image: CloudImage
    archive: bytes
    families: set[str] = field(default_factory=set)
    withdrawn: str = ""


class MemoryArchiveImages:
    """:class:`~osvdeploy.cloud.interfaces.ArchiveImages` and :class:`~osvdeploy.cloud.interfaces.ImageFamilies`.

    Operations for ``faults``: ``images.find``, ``.register``, ``.deregister``, ``.owned``, ``.current``,
    ``.members``, ``.offer``, ``.withdraw``, ``.restore``.
    """

    def __init__(self, store: MemoryStore, faults: Faults | None = None) -> None:
        self.faults = faults or store.calls
        self._store = store
        self._kept: dict[str, _Kept] = {}
        self._made = 0

    @property
    def place(self) -> ArchivePlace:
        """The adapters, made anew: what one process holds."""
        return ArchivePlace("memory", "000000000000", "nowhere-1", self, self, self._store)

    def archive(self, name: str) -> bytes:
        """What an image was made of. For tests."""
        return next(each.archive for each in self._kept.values() if each.image.name == name)

    def find(self, ctx: Context, name: str) -> CloudImage | None:
        with self.faults.around("images.find", name):
            return self._named(name)

    def begin(self, ctx: Context, request: ImageRequest) -> None:
        """Nothing takes time here."""

    def register(self, ctx: Context, request: ImageRequest) -> CloudImage:
        with self.faults.around("images.register", request.name):
            there = self._named(request.name)
            if there is not None:
                if there.digest != request.digest:
                    raise ImageNameTaken(request.name, held=there.digest, ours=request.digest)
                return there
            found = self._store._objects.get(request.disk.id.removeprefix(f"{self._store.address}/"))
            if found is None:
                raise NotFound(f"{request.name}: its archive {request.disk.id} does not exist")
            inflating = zlib.decompressobj(31)
            try:
                inflating.decompress(found.content)
            except zlib.error as error:
                raise Refused(f"{request.name}: {request.disk.id} is no archive: {error}") from None
            if not inflating.eof or inflating.unused_data:
                raise Refused(f"{request.name}: {request.disk.id} is not a whole archive")
            return self._add(ctx, request.name, request.digest, request.tags, found.content)

    def deregister(self, ctx: Context, image_id: str) -> None:
        with self.faults.around("images.deregister", image_id):
            self._kept.pop(image_id, None)

    def owned(self, ctx: Context, tags: Tags) -> list[CloudImage]:
        with self.faults.around("images.owned"):
            images = [each.image for each in self._kept.values()]
            return [each for each in images if is_ours(each.tags) and tags.items() <= dict(each.tags).items()]

    def current(self, ctx: Context, family: str) -> CloudImage | None:
        with self.faults.around("images.current", family):
            return next(iter(self._inside(family)), None)

    def members(self, ctx: Context, family: str) -> list[CloudImage]:
        with self.faults.around("images.members", family):
            return self._inside(family)

    def _inside(self, family: str) -> list[CloudImage]:
        usable = [each.image for each in self._kept.values() if family in each.families and not each.withdrawn]
        return usable[::-1]

    def offer(self, ctx: Context, image: CloudImage, family: str) -> None:
        with self.faults.around("images.offer", image.name, family):
            self._there(image).families = {family}

    def withdraw(
        self, ctx: Context, image: CloudImage, replacement: CloudImage | None = None, *, obsolete: bool = False
    ) -> None:
        with self.faults.around("images.withdraw", image.name):
            self._there(image).withdrawn = "obsolete" if obsolete else "deprecated"

    def restore(self, ctx: Context, image: CloudImage) -> None:
        with self.faults.around("images.restore", image.name):
            self._there(image).withdrawn = ""

    def put_foreign(self, ctx: Context, name: str) -> CloudImage:
        """An image that somebody else made, without our tags. For tests."""
        return self._add(ctx, name, Digest(""), {}, b"", ours=False)

    def _there(self, image: CloudImage) -> _Kept:
        if image.id not in self._kept:
            raise NotFound(f"image {image.name}: {image.id} is not there")
        return self._kept[image.id]

    def _named(self, name: str) -> CloudImage | None:
        for each in self._kept.values():
            if each.image.name == name:
                if not is_ours(each.image.tags):
                    raise NotOurs(f"{name}: {each.image.id} has that name, and something else made it")
                return each.image
        return None

    def _add(
        self, ctx: Context, name: str, digest: Digest, tags: Tags, archive: bytes, *, ours: bool = True
    ) -> CloudImage:
        self._made += 1
        kept = {**tags, DIGEST: digest, NAME: name} if ours else dict(tags)
        image = CloudImage(f"image-{self._made}", name, digest, None, kept, ctx.now())
        self._kept[image.id] = _Kept(image, archive)
        return image
