"""The image that a release is made on, where this machine has no disk of it: its first block is read back, and held to
what was deployed.

Releases of one image differ in the disk's first block alone, and there in the command line. So any of their disks will
do, and none of its other blocks is touched: they are the very ones that served.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from osvdeploy.cloud.interfaces import Block, CloudImage, Snapshots
from osvdeploy.cloud.tags import IMAGE, RELEASE
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import CommandLineInvalid, ImageDiffers
from osvdeploy.events import Note
from osvdeploy.osv.cmdline import RELEASE_VARIABLE, BootCommand, decode
from osvdeploy.osv.disk import line_of, restored_block
from osvdeploy.osv.image import FirstBlock


@dataclass(frozen=True, slots=True)
class Parent:
    """An image to make a release on. ``block0`` is the first block as the image ``app-version`` has it, ``boot`` the
    command line in it; ``image`` may be that of another release of it."""

    image: CloudImage
    block0: bytes
    boot: BootCommand


def parent_among(
    ctx: Context, images: Iterable[CloudImage], wanted: Digest, first: FirstBlock | None, snapshots: Snapshots
) -> Parent | None:
    """The first of these images that is of image ``wanted`` and stands on a disk that can be read; None without one.

    ``first`` is what a ledger says of the disk's beginning, None where it says nothing: then only an image that is no
    release's will do, and is believed. Raises :class:`~osvdeploy.errors.ImageDiffers` for one that says that it is of
    that image and begins otherwise.
    """
    for image in images:
        if image.disk is None or image.tags.get(IMAGE) != wanted or (first is None and RELEASE in image.tags):
            continue
        found: list[Block] = []
        snapshots.read(ctx, image.disk, [0], found.append)
        if not found:
            raise _differs(image, wanted, "its disk has no first block")
        block = found[0].data
        line = _line(image, wanted, block)
        own = block if first is None else restored_block(first, block)
        if own is None:
            raise _differs(image, wanted, "its disk begins with other bytes than were deployed")
        told = dict(line.environment).get(RELEASE_VARIABLE)
        if told != image.tags.get(RELEASE):
            raise _differs(image, wanted, f"its command line is that of {told or 'no release'}")
        if told is None and first is not None and line_of(block).decode() != first.line:
            raise _differs(image, wanted, "its command line is not the one that was deployed")
        ctx.report(Note(f"the first block of {image.name} ({image.id}) is read from {image.disk}"))
        return Parent(image, own, decode(line_of(own)))
    return None


def _line(image: CloudImage, wanted: Digest, block: bytes) -> BootCommand:
    try:
        return decode(line_of(block))
    except CommandLineInvalid as error:
        raise _differs(image, wanted, f"OSv could not read its command line: {error}") from error


def _differs(image: CloudImage, wanted: Digest, why: str) -> ImageDiffers:
    return ImageDiffers(
        f"{image.name}: {image.id} says that it is of image {wanted[:12]}, but {why}",
        hint="somebody has made or changed it: find out who; then take it away, and `osvdeploy publish` where the "
        "sources are",
    )
