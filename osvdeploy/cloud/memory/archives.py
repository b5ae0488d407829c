"""Images in memory that are copies of archives in a :class:`MemoryStore`."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from osvdeploy.cloud.interfaces import ArchivePlace, CloudImage, ImageRequest, ImageUser, Tags
from osvdeploy.cloud.memory import registry
from osvdeploy.cloud.memory.faults import Faults
from osvdeploy.cloud.memory.store import MemoryStore
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import NotFound, Refused


@dataclass(slots=True)
class _Kept:
    image: CloudImage
    archive: bytes
    families: set[str] = field(default_factory=set)
    withdrawn: str = ""


class MemoryArchiveImages:
    """:class:`~osvdeploy.cloud.interfaces.ArchiveImages` and :class:`~osvdeploy.cloud.interfaces.ImageFamilies`.

    Operations for ``faults``: ``images.find``, ``.register``, ``.deregister``, ``.owned``, ``.retag``, ``.current``,
    ``.members``, ``.offer``, ``.withdraw``, ``.restore``, ``.users``.
    """

    def __init__(self, store: MemoryStore, faults: Faults | None = None) -> None:
        self.faults = faults or store.calls
        self._store = store
        self._kept: dict[str, _Kept] = {}
        self._made = 0
        self.used: Callable[[], Iterable[tuple[str, ImageUser]]] = tuple
        """Ids of images, each with what starts machines from it."""

    @property
    def place(self) -> ArchivePlace:
        """The adapters, made anew: what one process holds."""
        return ArchivePlace("memory", "000000000000", "nowhere-1", self, self, self._store)

    def archive(self, name: str) -> bytes:
        """What an image was made of. For tests."""
        return next(each.archive for each in self._kept.values() if each.image.name == name)

    def find(self, ctx: Context, name: str) -> CloudImage | None:
        with self.faults.around("images.find", name):
            return registry.named(self._images(), name)

    def begin(self, ctx: Context, request: ImageRequest) -> None:
        """Nothing takes time here."""

    def get(self, ctx: Context, image_id: str) -> CloudImage | None:
        with self.faults.around("images.get", image_id):
            return registry.by_id(self._images(), image_id)

    def users(self, ctx: Context, images: Sequence[CloudImage]) -> Mapping[str, Sequence[ImageUser]]:
        if not images:
            return {}
        with self.faults.around("images.users"):
            return registry.users_of(images, self.used())

    def register(self, ctx: Context, request: ImageRequest) -> CloudImage:
        with self.faults.around("images.register", request.name):
            there = registry.named(self._images(), request.name)
            if there is not None:
                return registry.same(there, request)
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
            return registry.owned(self._images(), tags)

    def retag(self, ctx: Context, image_id: str, tags: Tags, without: Collection[str] = ()) -> None:
        with self.faults.around("images.retag", image_id):
            image = registry.retagged(self._images(), image_id, tags, without)
            self._kept[image_id].image = image

    def current(self, ctx: Context, family: str) -> CloudImage | None:
        with self.faults.around("images.current", family):
            return next(iter(self._inside(family)), None)

    def members(self, ctx: Context, family: str) -> list[CloudImage]:
        with self.faults.around("images.members", family):
            return self._inside(family)

    def _inside(self, family: str) -> list[CloudImage]:
        usable = [each.image for each in self._kept.values() if family in each.families and not each.withdrawn]
        return usable[::-1]

    def offer(self, ctx: Context, image: CloudImage, family: str | None) -> None:
        with self.faults.around("images.offer", image.name, family):
            self._there(image).families = set() if family is None else {family}

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

    def _images(self) -> list[CloudImage]:
        return [each.image for each in self._kept.values()]

    def _add(
        self, ctx: Context, name: str, digest: Digest, tags: Tags, archive: bytes, *, ours: bool = True
    ) -> CloudImage:
        self._made += 1
        image = registry.made(ctx, self._made, name, digest, None, tags, ours=ours)
        self._kept[image.id] = _Kept(image, archive)
        return image
