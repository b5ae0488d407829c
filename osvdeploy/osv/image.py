"""The value that building hands to publishing: a finished raw disk and what is known of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from osvdeploy.digests import Digest, digest_of
from osvdeploy.osv.cmdline import BootCommand

SHARE_NAME = "share"
"""Beside the disk of an image whose root is a directory of the machine's host (virtio-fs)."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes ``start`` up to, not including, ``end`` of a disk."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class FirstBlock:
    """How an image's disk begins: ``sha256`` of its first 512 KiB, and the command ``line`` in them.

    A release's disk has another line there, and all else alike: so either disk gives the image's own block back
    (:func:`osvdeploy.osv.disk.restored_block`), and is held to it.
    """

    sha256: Digest
    line: str


def merged(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """The same bytes in ascending order, what touches or overlaps as one, without empty ones."""
    result: list[Extent] = []
    for extent in sorted(extents, key=attrgetter("start")):
        if extent.end <= extent.start:
            continue
        if result and extent.start <= result[-1].end:
            result[-1] = Extent(result[-1].start, max(result[-1].end, extent.end))
        else:
            result.append(extent)
    return tuple(result)


@dataclass(frozen=True, slots=True)
class RawImage:
    """A raw disk on this machine.

    ``digest`` is the image digest (ARCHITECTURE.md). ``size`` in bytes is whole GiB. ``read`` lists, in ascending
    order, the ranges that something reads; the rest of the file is holes, which nothing reads. ``boot`` is the image's
    own command line as it stands at byte 512. ``label`` is the kernel's version as far as it is known, for people.
    ``fs`` names the root file system, and ``rofs`` is the digest of it, whichever it is: of a ROFS that we wrote
    :func:`osvdeploy.osv.rofs.rofs_digest`, else of the bytes in its partitions, or of the shared directory of a
    virtiofs; a ramfs is part of the kernel.
    """

    path: Path
    size: int
    digest: Digest
    kernel: Digest
    rofs: Digest
    read: tuple[Extent, ...]
    boot: BootCommand
    label: str = ""
    fs: str = "rofs"

    @property
    def share(self) -> Path | None:
        """The directory that virtio-fs is to give the machine as its root; None for an image that has all on disk."""
        return self.path.with_name(SHARE_NAME) if self.fs == "virtiofs" else None


def image_digest(
    *, kernel: Digest, rofs: Digest, partition: Extent | None, size: int, boot: BootCommand, fs: str = "rofs"
) -> Digest:
    """The image digest of ARCHITECTURE.md: all that makes a disk's bytes, and none of the bytes themselves.

    ``partition`` is where the ROFS stands, ``size`` the disk's. The same for everyone who builds the same disk, and for
    both ways to make one with a ROFS. Another file system is named in it; one that has no partition has none there.
    """
    where: dict[str, int] | None = None
    if partition is not None:
        where = {"size": partition.end - partition.start, "slot": 2, "start": partition.start}
    named = {} if fs == "rofs" else {"fs": fs}
    return digest_of(
        {
            **named,
            "boot": {
                "environment": [list(pair) for pair in boot.environment],
                "options": [list(pair) for pair in boot.options],
                "words": list(boot.words),
            },
            "kernel": kernel,
            "partition": where,
            "rofs": rofs,
            "size": size,
        }
    )
