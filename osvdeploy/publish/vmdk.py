"""A disk as VMware's stream-optimized VMDK: what EC2's ImportSnapshot takes, without the holes and deflated.

Source: VMware, "Virtual Disk Format 5.0" (sections on hosted sparse extents and stream-optimized compressed sparse
extents; the descriptor). Sectors are 512 bytes, numbers little-endian::

    header               1 sector; says that the grain directory's place is in the footer
    descriptor           text, from sector 1 to 128
    grains               64 KiB of the disk each, deflated: marker (place, length), data, up to a whole sector
    grain tables         marker, and for 512 grains each the sectors where they stand, 0 where there is none
    grain directory      marker, and the sectors where the tables stand
    footer, end          a header that says where the directory is; a sector of zeros

A grain stands in it when it holds a byte that something reads, zeros included; all other grains are holes, which
nobody reads. Grains are deflated on as many threads as there are, in order: the bytes depend on the disk and on the
deflater's version, and not on threads, time or machine. Memory holds some MiB.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from osvdeploy.digests import Digest, digest_of
from osvdeploy.errors import DiskInvalid, SourceChanged
from osvdeploy.osv.image import RawImage
from osvdeploy.publish.blocks import needed
from osvdeploy.sizes import KIB

if TYPE_CHECKING:
    from types import ModuleType

VERSION = 1
"""Of what is written for a disk. Part of what names it, so that two writers never share an upload."""

SECTOR = 512
GRAIN = 64 * KIB
TABLE_ENTRIES = 512
LEVEL = 1
"""isal's level: several times faster than zlib's default on one thread, and a tenth larger."""

BATCH = 16
"""Grains that one thread deflates at once."""

_MAGIC = 0x564D444B
_FORMAT = 3
_FLAGS = 1 << 0 | 1 << 16 | 1 << 17
"""Line ends can be checked; grains are compressed; there are markers."""

_DESCRIPTOR_SECTORS = 20
_OVERHEAD = 128
_AT_END = 0xFFFF_FFFF_FFFF_FFFF
_DEFLATE = 1
_END_OF_STREAM, _TABLE, _DIRECTORY, _FOOTER = range(4)

_NEW = "fffffffe"
"""The content id of a disk that was never written to. One of the contents would have to be known before them."""

_HEADS, _TRACK = 255, 63
"""A geometry that BIOSes give large disks. ImportSnapshot does not look at it."""


class VmdkSource:
    """:class:`~osvdeploy.cloud.interfaces.ObjectSource`: a raw disk as a VMDK.

    Raises :class:`~osvdeploy.errors.DiskInvalid` where the disk is not whole grains, or reads beyond its size.
    """

    def __init__(self, raw: RawImage, threads: int | None = None) -> None:
        if raw.size % GRAIN or any(extent.start < 0 or extent.end > raw.size for extent in raw.read):
            raise DiskInvalid(f"{raw.path}: {raw.size} bytes, or what is read of them, make no VMDK")
        self._raw = raw
        self._threads = threads or len(os.sched_getaffinity(0))

    @property
    def digest(self) -> Digest:
        return digest_of({"vmdk": VERSION, "image": self._raw.digest})

    @property
    def size(self) -> int | None:
        return None

    def pieces(self) -> Iterator[bytes]:
        """Raises :class:`~osvdeploy.errors.SourceChanged` where the file ends early."""
        yield from _stream(self._raw.size, self._raw.digest[:8], self._grains(), self._threads)

    def _grains(self) -> Iterator[tuple[int, bytes]]:
        with self._raw.path.open("rb", buffering=0) as file:
            for index in needed(self._raw.read, GRAIN):
                yield index, self._grain(file.fileno(), index)

    def _grain(self, file: int, index: int) -> bytes:
        content = os.pread(file, GRAIN, index * GRAIN)
        if len(content) != GRAIN:
            raise SourceChanged(
                f"{self._raw.path}: ends within its {index * GRAIN + len(content)} bytes",
                hint="the file was cut short; build it again",
            )
        return content


def vmdk(size: int, runs: Iterable[tuple[int, bytes]], threads: int | None = None) -> Iterator[bytes]:
    """A disk of ``size`` bytes, whole sectors, as a VMDK. ``runs``: (place, content), whole grains, ascending."""
    grains = (
        (place // GRAIN + each, content[each * GRAIN : (each + 1) * GRAIN])
        for place, content in runs
        for each in range(len(content) // GRAIN)
    )
    return _stream(size, _NEW, grains, threads or len(os.sched_getaffinity(0)))


def _stream(size: int, identity: str, grains: Iterator[tuple[int, bytes]], threads: int) -> Iterator[bytes]:
    written = 0

    def put(content: bytes) -> bytes:
        nonlocal written
        written += len(content)
        return content

    head = _header(size, _AT_END) + _descriptor(size, identity)
    yield put(head.ljust(_OVERHEAD * SECTOR, b"\0"))
    tables = [[0] * TABLE_ENTRIES for _ in range(-(-size // (GRAIN * TABLE_ENTRIES)))]
    for indexes, deflated in _deflated(grains, threads):
        batch, at = list[bytes](), written
        for index, grain in zip(indexes, deflated, strict=True):
            tables[index // TABLE_ENTRIES][index % TABLE_ENTRIES] = at // SECTOR
            batch.append(_whole(struct.pack("<QI", index * GRAIN // SECTOR, len(grain)) + grain))
            at += len(batch[-1])
        yield put(b"".join(batch))
    places = []
    for table in tables:
        # Also those of holes alone: no reader has to know what a directory without a table means.
        content = struct.pack(f"<{TABLE_ENTRIES}I", *table)
        marker = _marker(_TABLE, len(content))
        places.append((written + len(marker)) // SECTOR)
        yield put(marker + content)
    directory = _whole(struct.pack(f"<{len(places)}I", *places))
    marker = _marker(_DIRECTORY, len(directory))
    at = (written + len(marker)) // SECTOR
    footer = _header(size, at)
    yield marker + directory + _marker(_FOOTER, len(footer)) + footer + _marker(_END_OF_STREAM, 0)


def _deflated(grains: Iterator[tuple[int, bytes]], threads: int) -> Iterator[tuple[Sequence[int], list[bytes]]]:
    """Grains in batches, in order."""
    with ThreadPoolExecutor(threads, "vmdk") as pool:
        under_way: deque[tuple[Sequence[int], Future[list[bytes]]]] = deque()
        try:
            while batch := list(islice(grains, BATCH)):
                indexes = [index for index, _ in batch]
                under_way.append((indexes, pool.submit(_deflate, [grain for _, grain in batch])))
                if len(under_way) > 2 * threads:
                    done, deflated = under_way.popleft()
                    yield done, deflated.result()
            while under_way:
                done, deflated = under_way.popleft()
                yield done, deflated.result()
        finally:
            # Who leaves early must not wait for what nobody takes.
            for _, deflated in under_way:
                deflated.cancel()


def _header(size: int, directory: int) -> bytes:
    packed = struct.pack(
        "<IIIQQQQIQQQB4sH",
        _MAGIC,
        _FORMAT,
        _FLAGS,
        size // SECTOR,
        GRAIN // SECTOR,
        1,
        _DESCRIPTOR_SECTORS,
        TABLE_ENTRIES,
        0,  # no second directory
        directory,
        _OVERHEAD,
        0,  # closed properly
        b"\n \r\n",
        _DEFLATE,
    )
    return packed.ljust(SECTOR, b"\0")


def _descriptor(size: int, identity: str) -> bytes:
    text = f"""# Disk DescriptorFile
version=1
CID={identity}
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW {size // SECTOR} SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "{min(size // SECTOR // _HEADS // _TRACK, 65535)}"
ddb.geometry.heads = "{_HEADS}"
ddb.geometry.sectors = "{_TRACK}"
ddb.virtualHWVersion = "7"
"""
    return text.encode()


def _marker(kind: int, length: int) -> bytes:
    return struct.pack("<QII", length // SECTOR, 0, kind).ljust(SECTOR, b"\0")


def _whole(content: bytes) -> bytes:
    """Up to a whole sector."""
    return content + bytes(-len(content) % SECTOR)


def _deflate(grains: Sequence[bytes]) -> list[bytes]:
    isal = _isal()
    return [isal.compress(grain, LEVEL) for grain in grains]


def _isal() -> ModuleType:
    from isal import isal_zlib

    return isal_zlib
