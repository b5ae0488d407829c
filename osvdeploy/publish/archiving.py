"""Images where a place makes them of archives: the archive into an object store, the image of it, the archive away.

The images of one build share the archive's body, which is all of the disk but its first block: it is sent once, and
each image's archive is joined in the store of a head of its own, the body, and a trailer. Nothing is remembered on this
machine: what was begun is found by the image's name, by the objects' keys, by the request that the place remembers.

    disks/APP/IMAGE.1/body                   IMAGE: the image digest; 1: the version of what is written
    disks/APP/IMAGE.1/NAME.head              NAME: app-version, or a release's id
    disks/APP/IMAGE.1/NAME.trailer
    disks/APP/IMAGE.1/NAME.tar.gz            joined of the three

They are in the store only while images are made of them: what belongs to one goes when all of a run are ready, the body
with the last. What a killed run left goes when the same is published again, or anything of the app a day later, or by
`gc`.

Where they are to be kept, the body stands elsewhere, beside the image's own head and what the body sums up to, so that
releases of the image can be made without its disk:

    kept/APP/IMAGE.1/body, head, sum
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Final

from osvdeploy.cloud.interfaces import (
    ArchivePlace,
    CloudImage,
    ImageRequest,
    JoiningStore,
    ReleaseId,
    StoredObject,
    Tags,
    UnfinishedObject,
    UploadedDisk,
)
from osvdeploy.cloud.parallel import in_flight
from osvdeploy.cloud.parts import is_refusal
from osvdeploy.cloud.tags import DIGEST, IMAGE, STORE, image_tags
from osvdeploy.context import Context
from osvdeploy.digests import Digest, digest_of
from osvdeploy.errors import DiskInvalid, ImageDiffers, ImageNameTaken, OsvDeployError
from osvdeploy.events import Note
from osvdeploy.osv.cmdline import BootCommand, decode
from osvdeploy.osv.disk import FileAccess, line_of, release_block, restored_block
from osvdeploy.osv.image import FirstBlock, RawImage
from osvdeploy.publish.archive import HEAD_SIZE, Sum, head_of, opened_head, trailer
from osvdeploy.publish.blocks import needed
from osvdeploy.publish.importing import folder_of, passing
from osvdeploy.publish.joining import ArchiveKeys, Joiner
from osvdeploy.publish.publisher import Published
from osvdeploy.publish.undo import Undo, trying
from osvdeploy.sizes import GIB

VERSION = 1
"""Of what is written for a disk: two writers that differ never share an object."""

KEPT = "kept"
"""Folder of the disks that are kept for later releases; nothing but `gc` takes from it."""

LEFT_OVER = 86400.0
"""Seconds after which an object is nobody's any more: imports take minutes."""

UNDER_WAY = 3600.0
"""Seconds without anything new after which nobody is at work on a build's archives: an image takes half an hour at
most."""

_LATER = "`osvdeploy gc`, or publishing the app again, removes it"

NO_MARKS: Final[Tags] = {}

WIDTH = 8
"""Deletions in flight."""


@dataclass(frozen=True, slots=True)
class ReleaseOrder:
    """A release to make an image of. ``boot`` is its command line, ``digest`` the release digest, ``tags`` what
    :func:`osvdeploy.cloud.tags.release_tags` gave, ``family`` the family that its image joins."""

    id: ReleaseId
    digest: Digest
    boot: BootCommand
    tags: Tags
    family: str | None = None


def publish_archived(
    ctx: Context,
    raw: RawImage,
    *,
    app: str,
    version: str,
    tags: Tags,
    place: ArchivePlace,
    family: str | None = None,
    release: ReleaseOrder | None = None,
    marks: Tags = NO_MARKS,
    keep: bool = False,
) -> tuple[Published, Published | None]:
    """Make image ``app-version`` from a raw disk, and the image of a release on it. ``tags`` are the user's own,
    ``marks`` are for image ``app-version`` alone. ``keep``: leave in the store what :func:`publish_kept` needs.

    Raises :class:`~osvdeploy.errors.ImageNameTaken`, before anything is sent, where a name stands for other bytes. A
    refusal takes back what it is about; an image that was made before it stays.
    """
    if raw.size % GIB:
        raise DiskInvalid(f"{raw.path}: {raw.size} bytes; a cloud disk is whole GiB", hint="build it again")
    shared = {**tags, STORE: place.store.address}
    labels = {**shared, **marks, **image_tags(app, version, raw.digest)}
    wanted = [_Wanted(f"{app}-{version}", raw.digest, labels, family)]
    if release is not None:
        labels = {**shared, **release.tags, DIGEST: release.digest}
        wanted.append(_Wanted(release.id, release.digest, labels, release.family, release.boot))
    there = [_find(ctx, place, each) for each in wanted]
    bench = _FromDisk(raw, app, place, keep=keep)
    undo = Undo(ctx, _LATER)
    if None in there:
        place.store.refuse_unwritable(ctx, bench.folder)
    made = _made(ctx, bench, wanted, there, undo)
    if keep:
        bench.keep(ctx)
    trying(ctx, f"what was left in {place.store.address}", lambda: bench.clear(ctx, wanted), _LATER)
    return made[0], made[1] if release is not None else None


def publish_kept(
    ctx: Context,
    image: Digest,
    release: Callable[[BootCommand], ReleaseOrder],
    *,
    app: str,
    tags: Tags,
    place: ArchivePlace,
    first: FirstBlock | None,
) -> Published | None:
    """Make the image of a release of what is kept of an image's disk; None where nothing is. ``release`` is told the
    image's own command line; ``first`` is what a ledger says of the disk's beginning, None where it says nothing.

    Raises :class:`~osvdeploy.errors.ImageDiffers` for what begins otherwise, and as :func:`publish_archived` does.
    """
    kept = _find_kept(ctx, app, image, first, place.store)
    if kept is None:
        return None
    order = release(decode(line_of(kept.block)))
    labels = {**tags, STORE: place.store.address, **order.tags, DIGEST: order.digest}
    wanted = [_Wanted(order.id, order.digest, labels, order.family, order.boot)]
    bench, undo = _FromKept(app, image, place, kept), Undo(ctx, _LATER)
    [made] = _made(ctx, bench, wanted, [_find(ctx, place, each) for each in wanted], undo)
    trying(ctx, f"what was left in {place.store.address}", lambda: bench.clear(ctx, wanted), _LATER)
    return made


def is_kept(ctx: Context, image: Digest, *, app: str, place: ArchivePlace, first: FirstBlock | None) -> bool:
    """Whether :func:`publish_kept` would find what it needs. Raises as it does for what begins otherwise."""
    return _find_kept(ctx, app, image, first, place.store) is not None


def kept_folder(app: str, image: Digest) -> str:
    """What the keys begin with of what is kept of an image's disk."""
    return f"{KEPT}/{app}/{image}.{VERSION}/"


def kept_of(key: str) -> Digest:
    """The image digest of a key that :func:`kept_folder` begins."""
    return Digest(_build_of(key))


def _made(
    ctx: Context, bench: _Bench, wanted: list[_Wanted], there: list[CloudImage | None], undo: Undo
) -> list[Published]:
    undo.on_refusal("objects", lambda: bench.clear(ctx, wanted))
    try:
        for each, image in zip(wanted, there, strict=True):
            if image is None:
                _begin(ctx, bench, each, undo)
        return [_publish(ctx, bench, each, image, undo) for each, image in zip(wanted, there, strict=True)]
    except OsvDeployError as error:
        if is_refusal(error):
            undo.run()
        raise


def in_use(
    images: Iterable[CloudImage], objects: Iterable[StoredObject], uploads: Iterable[UnfinishedObject], now: datetime
) -> set[str]:
    """Keys of the objects that somebody may need now: a run joins an archive of objects that may be older than itself.

    Those are all of a build of which an image is being made, or of which something came within the last hour.
    """
    found = list(objects)
    busy = {
        image.tags.get(IMAGE, "")
        for image in images
        # One that came to nothing stays as it is, and reads nothing.
        if not image.ready and (image.created is None or (now - image.created).total_seconds() < LEFT_OVER)
    }
    busy |= {_build_of(each.key) for each in found if (now - each.created).total_seconds() < UNDER_WAY}
    busy |= {_build_of(each.key) for each in uploads if (now - each.begun).total_seconds() < UNDER_WAY}
    return {each.key for each in found if _build_of(each.key) in busy}


def _build_of(key: str) -> str:
    """The image digest that a key is under."""
    return key.split("/")[2].partition(".")[0]


# ---------------------------------------------------------------------------------------------------------- verbs


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An image to be made. ``boot`` is None for the image's own command line."""

    name: str
    digest: Digest
    tags: Tags
    family: str | None
    boot: BootCommand | None = None


def _find(ctx: Context, place: ArchivePlace, wanted: _Wanted) -> CloudImage | None:
    there = place.images.find(ctx, wanted.name)
    if there is not None and there.digest != wanted.digest:
        raise ImageNameTaken(wanted.name, held=there.digest, ours=wanted.digest)
    return there


def _publish(ctx: Context, bench: _Bench, wanted: _Wanted, there: CloudImage | None, undo: Undo) -> Published:
    place = bench.place
    if there is not None:
        ctx.report(Note(f"image {there.name} is there already: {there.id}"))
    image = there or place.images.register(ctx, bench.request(wanted))
    if there is None:
        ctx.report(Note(f"image {image.name} is registered: {image.id}"))
    if wanted.family is not None:
        place.families.offer(ctx, image, wanted.family)
    undo.forget(f"image {wanted.name}")
    blocks = 0 if there is not None else bench.blocks
    return Published(image, None, blocks=blocks, blocks_sent=0, reused=there is not None)


def _begin(ctx: Context, bench: _Bench, wanted: _Wanted, undo: Undo) -> None:
    """Put the archive of an image into the store, and ask for the image: all are made at once."""
    place = bench.place
    bench.archive(ctx, wanted)

    def take_back() -> None:
        # What is just being made is waited for: it reads the archive, which goes next.
        made = place.images.find(ctx, wanted.name)
        if made is not None and made.digest == wanted.digest:
            place.images.deregister(ctx, made.id)

    undo.on_refusal(f"image {wanted.name}", take_back)
    place.images.begin(ctx, bench.request(wanted))


class _Bench(ABC):
    """Where the archives of one build are put together, of a head of each's own and a body."""

    def __init__(self, app: str, image: Digest, size_gib: int, place: ArchivePlace, body: str | None = None) -> None:
        """``body`` is where the body stands that is not to go with the last archive."""
        self.app = app
        self.place = place
        self.folder = f"{folder_of(app)}{image}.{VERSION}/"
        self.body = body or f"{self.folder}body"
        self._size_gib = size_gib

    @property
    @abstractmethod
    def blocks(self) -> int:
        """Blocks of the disk that are in an archive; 1 where all but the first are in the store already."""

    @abstractmethod
    def archive(self, ctx: Context, wanted: _Wanted) -> None:
        """Put an image's archive into the store, if it is not there."""

    def request(self, wanted: _Wanted) -> ImageRequest:
        """What the place is asked for."""
        location = f"{self.place.store.address}/{self._keys(wanted).archive}"
        disk = UploadedDisk(location, wanted.name, wanted.digest, self._size_gib, wanted.tags)
        description = f"{wanted.name}, OSv unikernel, {wanted.digest[:12]}"
        return ImageRequest(wanted.name, wanted.digest, disk, wanted.tags, description)

    def _keys(self, wanted: _Wanted) -> ArchiveKeys:
        """Of what is one image's alone."""
        own = f"{self.folder}{wanted.name}"
        return ArchiveKeys(f"{own}.head", f"{own}.trailer", f"{own}.tar.gz")

    def clear(self, ctx: Context, images: list[_Wanted]) -> None:
        """Take away what belongs to these images; the body, unless another image is being made of it; and what is a day
        old."""
        store = self.place.store
        mine = {key for wanted in images for key in astuple(self._keys(wanted))}
        here = list(store.keys(ctx, self.folder))
        in_flight(
            ctx,
            sorted(mine.intersection(here)),
            lambda own, key, _: store.delete(own, key),
            lambda _: None,
            width=WIDTH,
            name="clear",
        )
        # Looked at anew: of two processes that clear up at once, the later one sees nothing but the body.
        if here and list(store.keys(ctx, self.folder)) == [self.body]:
            store.delete(ctx, self.body)
        for upload in store.unfinished(ctx, folder_of(self.app)):
            if passing(self.app, upload.key) and (ctx.now() - upload.begun).total_seconds() > LEFT_OVER:
                store.abort(ctx, upload)
        for key in store.keys(ctx, folder_of(self.app)):
            found = store.find(ctx, key) if passing(self.app, key) else None
            if found is not None and (ctx.now() - found.created).total_seconds() > LEFT_OVER:
                store.delete(ctx, key)


class _FromDisk(_Bench):
    """Of a raw disk on this machine."""

    def __init__(self, raw: RawImage, app: str, place: ArchivePlace, *, keep: bool = False) -> None:
        self.kept = kept_folder(app, raw.digest)
        super().__init__(app, raw.digest, raw.size // GIB, place, f"{self.kept}body" if keep else None)
        self._raw = raw
        self._disk = FileAccess(raw.path)
        digest = digest_of({"archive": VERSION, "body": raw.digest})
        self._joiner = Joiner(place.store, self._disk, raw.read, self.body, digest)

    @property
    def blocks(self) -> int:
        return len(needed(self._raw.read, HEAD_SIZE))

    def archive(self, ctx: Context, wanted: _Wanted) -> None:
        block = None if wanted.boot is None else release_block(self._disk.pread(0, HEAD_SIZE), wanted.boot)
        self._joiner.join(ctx, self._keys(wanted), _digest(wanted), block)

    def keep(self, ctx: Context) -> None:
        """Leave in the store what other releases of the image can be made of, once."""
        store = self.place.store
        # The last of the three: where it is, all are.
        if store.find(ctx, f"{self.kept}sum") is None:
            head, total = self._joiner.keep(ctx)
            store.put_if_absent(ctx, f"{self.kept}head", head)
            store.put_if_absent(ctx, f"{self.kept}sum", json.dumps({"crc": total.crc, "length": total.length}).encode())
            ctx.report(Note(f"the disk stays in {store.address}/{self.kept}"))


class _FromKept(_Bench):
    """Of what is kept in the store."""

    def __init__(self, app: str, image: Digest, place: ArchivePlace, kept: _Kept) -> None:
        super().__init__(app, image, kept.size // GIB, place, f"{kept_folder(app, image)}body")
        self._kept = kept

    @property
    def blocks(self) -> int:
        return 1

    def archive(self, ctx: Context, wanted: _Wanted) -> None:
        assert wanted.boot is not None, "the image's own is not made of what is kept of it"
        keys, store = self._keys(wanted), self.place.store
        head, total = head_of(self._kept.header, release_block(self._kept.block, wanted.boot))
        store.put_if_absent(ctx, keys.head, head)
        store.put_if_absent(ctx, keys.trailer, trailer(total + self._kept.body))
        store.join(ctx, keys.archive, [keys.head, self.body, keys.trailer], _digest(wanted))


@dataclass(frozen=True, slots=True)
class _Kept:
    """The tar's header and the image's own first block, the disk's size in bytes, what the body sums up to."""

    header: bytes
    block: bytes
    size: int
    body: Sum


def _digest(wanted: _Wanted) -> Digest:
    return digest_of({"archive": VERSION, "disk": wanted.digest})


def _find_kept(ctx: Context, app: str, image: Digest, first: FirstBlock | None, store: JoiningStore) -> _Kept | None:
    folder = kept_folder(app, image)
    head, told = store.get(ctx, f"{folder}head"), store.get(ctx, f"{folder}sum")
    if head is None or told is None or store.find(ctx, f"{folder}body") is None:
        return None
    try:
        header, block, size = opened_head(head)
        total = json.loads(told)
        body = Sum(int(total["crc"]), int(total["length"]))
    except (DiskInvalid, ValueError, KeyError, TypeError) as error:
        raise _differs(store, folder, f"cannot be read: {error}") from error
    own = block if first is None else restored_block(first, block)
    if own is None:
        raise _differs(store, folder, "begins with other bytes than were deployed")
    return _Kept(header, own, size, body)


def _differs(store: JoiningStore, folder: str, why: str) -> ImageDiffers:
    return ImageDiffers(
        f"{store.address}/{folder}: the disk that is kept there {why}",
        hint="find out who changed it; then delete what is there, and `osvdeploy publish` where the sources are",
    )
