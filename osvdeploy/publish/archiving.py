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
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Final

from osvdeploy.cloud.interfaces import (
    ArchivePlace,
    CloudImage,
    ImageRequest,
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
from osvdeploy.errors import DiskInvalid, ImageNameTaken, OsvDeployError
from osvdeploy.events import Note
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.disk import FileAccess, release_block
from osvdeploy.osv.image import RawImage
from osvdeploy.publish.archive import HEAD_SIZE
from osvdeploy.publish.blocks import needed
from osvdeploy.publish.importing import folder_of, passing
from osvdeploy.publish.joining import ArchiveKeys, Joiner
from osvdeploy.publish.publisher import Published
from osvdeploy.publish.undo import Undo, trying
from osvdeploy.sizes import GIB

VERSION = 1
"""Of what is written for a disk: two writers that differ never share an object."""

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
) -> tuple[Published, Published | None]:
    """Make image ``app-version`` from a raw disk, and the image of a release on it. ``tags`` are the user's own,
    ``marks`` are for image ``app-version`` alone.

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
    bench = _Bench(raw, app, place)
    undo = Undo(ctx, _LATER)
    if None in there:
        place.store.refuse_unwritable(ctx, bench.folder)
    undo.on_refusal("objects", lambda: bench.clear(ctx, wanted))
    try:
        for each, image in zip(wanted, there, strict=True):
            if image is None:
                _begin(ctx, bench, each, undo)
        made = [_publish(ctx, bench, each, image, undo) for each, image in zip(wanted, there, strict=True)]
    except OsvDeployError as error:
        if is_refusal(error):
            undo.run()
        raise
    trying(ctx, f"what was left in {place.store.address}", lambda: bench.clear(ctx, wanted), _LATER)
    return made[0], made[1] if release is not None else None


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
    blocks = 0 if there is not None else len(needed(bench.raw.read, HEAD_SIZE))
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


class _Bench:
    """Where the archives of one build are put together."""

    def __init__(self, raw: RawImage, app: str, place: ArchivePlace) -> None:
        self.raw = raw
        self.app = app
        self.place = place
        self.folder = f"{folder_of(app)}{raw.digest}.{VERSION}/"
        self._body = f"{self.folder}body"
        self._disk = FileAccess(raw.path)
        self._joiner = Joiner(
            place.store, self._disk, raw.read, self._body, digest_of({"archive": VERSION, "body": raw.digest})
        )

    def request(self, wanted: _Wanted) -> ImageRequest:
        """What the place is asked for."""
        location = f"{self.place.store.address}/{self._keys(wanted).archive}"
        disk = UploadedDisk(location, wanted.name, wanted.digest, self.raw.size // GIB, wanted.tags)
        description = f"{wanted.name}, OSv unikernel, {wanted.digest[:12]}"
        return ImageRequest(wanted.name, wanted.digest, disk, wanted.tags, description)

    def archive(self, ctx: Context, wanted: _Wanted) -> None:
        """Put an image's archive into the store, if it is not there."""
        block = None if wanted.boot is None else release_block(self._disk.pread(0, HEAD_SIZE), wanted.boot)
        digest = digest_of({"archive": VERSION, "disk": wanted.digest})
        self._joiner.join(ctx, self._keys(wanted), digest, block)

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
        if here and list(store.keys(ctx, self.folder)) == [self._body]:
            store.delete(ctx, self._body)
        for upload in store.unfinished(ctx, folder_of(self.app)):
            if passing(self.app, upload.key) and (ctx.now() - upload.begun).total_seconds() > LEFT_OVER:
                store.abort(ctx, upload)
        for key in store.keys(ctx, folder_of(self.app)):
            found = store.find(ctx, key) if passing(self.app, key) else None
            if found is not None and (ctx.now() - found.created).total_seconds() > LEFT_OVER:
                store.delete(ctx, key)
