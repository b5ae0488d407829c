"""Raw disk to cloud image, release to cloud image: lists of verbs, each of which finds out that it has nothing to do.

A refusal removes what this run made; an interruption, a crash or an unanswered call keeps it, and the next run goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial

from osvdeploy.cloud.interfaces import (
    Block,
    BlockSink,
    Cloud,
    CloudImage,
    ImageRequest,
    ImportRequest,
    ReleaseId,
    Tags,
    UploadedDisk,
    UploadRequest,
)
from osvdeploy.cloud.parts import is_refusal
from osvdeploy.cloud.tags import DIGEST, STORE, image_tags
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import DiskInvalid, ImageNameTaken, NotFound, OsvDeployError, Refused, UploadGone
from osvdeploy.events import Note, Progress
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.disk import release_block
from osvdeploy.osv.image import RawImage
from osvdeploy.publish.blocks import Outgoing, linear, needed
from osvdeploy.publish.importing import ThroughStore, import_disk, key_of
from osvdeploy.publish.journal import Journal, UploadKey, UploadLog
from osvdeploy.publish.undo import Undo, trying
from osvdeploy.sizes import GIB

MOST_ATTEMPTS = 20
"""Dead uploads that one run walks past. The next run goes on behind them, as long as the journal is there."""


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing came to. ``disk`` is the id of the disk under the image.

    ``blocks`` of its blocks are its own (a release has one); this run sent ``blocks_sent`` of them, none where the disk
    went through an object store. ``reused`` says that the image was there already, and nothing was done.
    """

    image: CloudImage
    disk: str | None
    blocks: int
    blocks_sent: int
    reused: bool


def publish_image(
    ctx: Context,
    raw: RawImage,
    *,
    app: str,
    version: str,
    tags: Tags,
    cloud: Cloud,
    journal: Journal,
    through: ThroughStore | None = None,
) -> Published:
    """Make image ``app-version`` from a raw disk. ``tags`` are the user's own, beside ours. The disk goes up block by
    block, or ``through`` an object store.

    Raises :class:`~osvdeploy.errors.ImageNameTaken`, before anything is sent, where the name stands for other bytes.
    """
    if raw.size % GIB:
        raise DiskInvalid(f"{raw.path}: {raw.size} bytes; a cloud disk is whole GiB", hint="build it again")
    block_size = cloud.snapshots.block_size
    source = _Source(
        name=f"{app}-{version}",
        digest=raw.digest,
        size_gib=raw.size // GIB,
        tags={
            **tags,
            **image_tags(app, version, raw.digest),
            **({STORE: through.store.address} if through is not None else {}),
        },
        outgoing=lambda stored: Outgoing(raw, block_size, stored),
    )
    if through is None:
        return _publish(ctx, source, cloud, partial(_disk, ctx, source, cloud, journal))
    return _publish(ctx, source, cloud, partial(_imported, ctx, source, cloud, raw, key_of(app, raw.digest), through))


def publish_release(
    ctx: Context,
    image: CloudImage,
    *,
    block0: bytes,
    boot: BootCommand,
    release: ReleaseId,
    digest: Digest,
    tags: Tags,
    cloud: Cloud,
    journal: Journal,
) -> Published:
    """Make a release's image: the disk of ``image`` with one block of its own, in which ``boot`` stands.

    ``block0`` is the first block of the image's disk, ``digest`` the release digest (over both digests), ``tags`` what
    :func:`osvdeploy.cloud.tags.release_tags` gave. Raises :class:`~osvdeploy.errors.NotFound` when the image's disk is
    gone, :class:`~osvdeploy.errors.ImageNameTaken` as :func:`publish_image` does.
    """
    block_size = cloud.snapshots.block_size
    if len(block0) != block_size:
        raise ValueError(f"block 0 has {len(block0)} bytes, not {block_size}")
    content = release_block(block0, boot)
    source = _Source(
        name=release,
        digest=digest,
        size_gib=0,  # its parent's
        tags={**tags, DIGEST: digest},
        outgoing=lambda stored: _OneBlock(Block(0, content, hashlib.sha256(content).digest()), stored),
        parent=image,
    )
    return _publish(ctx, source, cloud, partial(_disk, ctx, source, cloud, journal))


# ---------------------------------------------------------------------------------------------------------- verbs


@dataclass(frozen=True, slots=True)
class _OneBlock:
    """A release's one block on its way out: what :class:`~osvdeploy.publish.blocks.Outgoing` is for a whole disk."""

    block: Block
    stored: Container[int]

    @property
    def indexes(self) -> list[int]:
        return [self.block.index]

    def __iter__(self) -> Iterator[Block]:
        if self.block.index not in self.stored:
            yield self.block

    def checksum(self) -> bytes:
        return linear(iter([self.block.sha256]))


@dataclass(frozen=True, slots=True)
class _Source:
    """What is to be published. ``outgoing(stored)`` gives its blocks, those already stored left out."""

    name: str
    digest: Digest
    size_gib: int
    tags: dict[str, str]
    outgoing: Callable[[Container[int]], Outgoing | _OneBlock]
    parent: CloudImage | None = None


@dataclass(slots=True)
class _Count:
    """What was sent so far."""

    blocks: int = 0
    sent: int = 0


def _publish(ctx: Context, source: _Source, cloud: Cloud, bring: Callable[[_Count, Undo], UploadedDisk]) -> Published:
    there = cloud.images.find(ctx, source.name)
    if there is not None:
        _same_digest(source, there.digest)
        ctx.report(Note(f"image {there.name} is there already: {there.id}"))
        return Published(there, there.disk, blocks=0, blocks_sent=0, reused=True)
    count = _Count()
    undo = Undo(ctx)
    try:
        disk = bring(count, undo)
        image = _register(ctx, source, cloud, disk, undo)
    except OsvDeployError as error:
        if is_refusal(error):
            undo.run()
        raise
    return Published(image, image.disk, blocks=count.blocks, blocks_sent=count.sent, reused=False)


def _disk(ctx: Context, source: _Source, cloud: Cloud, journal: Journal, count: _Count, undo: Undo) -> UploadedDisk:
    """The finished disk of that name, uploaded if need be."""
    there = cloud.snapshots.find(ctx, source.name)
    if there is not None:
        _same_digest(source, there.digest)
        ctx.report(Note(f"disk {there.name} was uploaded before: {there.id}"))
        return there
    parent = _parent(ctx, source, cloud)
    log = journal.upload(ctx, UploadKey(source.name, source.digest, cloud.kind, cloud.account, cloud.region))
    for upload in sorted(log.leaving):
        # A run that died while it cleaned up after a refusal.
        if trying(ctx, "the upload", partial(cloud.snapshots.delete, ctx, upload)):
            log.left(ctx, upload)
    attempt = first = log.attempt
    while True:
        try:
            return _upload(ctx, source, cloud, parent, log, attempt, count, undo)
        except UploadGone as error:
            if attempt >= first + MOST_ATTEMPTS:
                raise
            ctx.report(Note(f"{error}; starting again"))
            attempt += 1


def _imported(
    ctx: Context,
    source: _Source,
    cloud: Cloud,
    raw: RawImage,
    key: str,
    through: ThroughStore,
    count: _Count,
    undo: Undo,
) -> UploadedDisk:
    """The finished disk of that name, brought through an object store if need be."""
    count.blocks = len(needed(raw.read, cloud.snapshots.block_size))
    there = cloud.snapshots.find(ctx, source.name)
    if there is not None:
        _same_digest(source, there.digest)
        ctx.report(Note(f"disk {there.name} was brought before: {there.id}"))
        # A run that died between the two left it.
        trying(ctx, "the object", lambda: through.store.delete(ctx, key))
        return there
    request = ImportRequest(source.name, source.digest, source.tags, f"{through.store.address}/{key}")
    disk = import_disk(ctx, through, raw, request, key, undo.on_refusal)
    undo.on_refusal("disk", lambda: cloud.snapshots.delete(ctx, disk.id))
    return disk


def _upload(
    ctx: Context,
    source: _Source,
    cloud: Cloud,
    parent: UploadedDisk | None,
    log: UploadLog,
    attempt: int,
    count: _Count,
    undo: Undo,
) -> UploadedDisk:
    """One attempt. Raises UploadGone where it is dead, and the next one has to be tried."""
    log.begin(ctx, attempt)
    request = UploadRequest(
        name=source.name,
        digest=source.digest,
        size_gib=source.size_gib if parent is None else parent.size_gib,
        tags=source.tags,
        parent=parent,
        attempt=attempt,
        seen=bool(log.stored) or log.finished,
    )
    undo.forget("upload")
    sink = cloud.snapshots.start(ctx, request)

    # A removed upload's token is dead for ever, so the journal moves on first: a kill between the two costs no time.
    def give_up() -> None:
        log.leave(ctx, sink.id)
        sink.abort(ctx)
        log.left(ctx, sink.id)

    undo.on_refusal("upload", give_up)
    log.opened(ctx, sink.id)
    if sink.finished is not None:
        ctx.report(Note(f"disk {source.name} was uploaded before: {sink.id}"))
        return sink.finished
    skipped = len(log.stored)
    if skipped:
        ctx.report(Note(f"upload {sink.id} goes on: {skipped} blocks are stored already"))
    try:
        disk = _send(ctx, source, sink, log, count)
    except Refused:
        if not skipped:
            raise
        # The journal is a hint: a store that was reset, say, may have given the same id to an empty upload.
        ctx.report(Note(f"upload {sink.id} may not hold what the journal says; putting every block"))
        log.stored.clear()
        disk = _send(ctx, source, sink, log, count)
    log.finish(ctx)
    ctx.report(Note(f"disk {disk.name} is uploaded: {disk.id}"))
    return disk


def _send(ctx: Context, source: _Source, sink: BlockSink, log: UploadLog, count: _Count) -> UploadedDisk:
    outgoing = source.outgoing(set(log.stored))
    total = len(outgoing.indexes)
    count.blocks = total

    def stored(index: int) -> None:
        log.store(ctx, index)
        count.sent += 1
        ctx.report(Progress(f"upload {source.name}", len(log.stored), total, "blocks"))

    sink.put(ctx, outgoing, stored)
    # Another process may have finished the very same upload meanwhile.
    return sink.finished or sink.complete(ctx, total, outgoing.checksum())


def _register(ctx: Context, source: _Source, cloud: Cloud, disk: UploadedDisk, undo: Undo) -> CloudImage:
    request = ImageRequest(
        name=source.name,
        digest=source.digest,
        disk=disk,
        tags=source.tags,
        description=f"{source.name}, OSv unikernel, {source.digest[:12]}",
    )

    def take_back() -> None:
        # Found by name: the answer that would have told its id may be what was refused.
        made = cloud.images.find(ctx, source.name)
        if made is not None and made.disk == disk.id:
            cloud.images.deregister(ctx, made.id)

    undo.on_refusal("image", take_back)
    image = cloud.images.register(ctx, request)
    ctx.report(Note(f"image {image.name} is registered: {image.id}"))
    if image.disk is not None and image.disk != disk.id:
        # Another process, without this journal, uploaded the same bytes and was quicker.
        trying(ctx, "the disk", lambda: cloud.snapshots.delete(ctx, disk.id))
    return image


def _parent(ctx: Context, source: _Source, cloud: Cloud) -> UploadedDisk | None:
    """The disk of the image that a release stands on."""
    if source.parent is None:
        return None
    disk = cloud.snapshots.find(ctx, source.parent.name)
    if disk is None or disk.id != source.parent.disk:
        raise NotFound(
            f"{source.name}: image {source.parent.id} stands on disk {source.parent.disk}, which is not there",
            hint=f"deregister {source.parent.id} and publish {source.parent.name} again",
        )
    return disk


def _same_digest(source: _Source, held: Digest) -> None:
    if held != source.digest:
        raise ImageNameTaken(source.name, held=held, ours=source.digest)
