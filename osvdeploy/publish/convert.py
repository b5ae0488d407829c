"""A disk from one format to another: what is in it is read once, in order, and written without its holes.

What is written depends on the bytes of the disk alone, and not on the format that they came in, or on where its file
has holes: a disk is looked at in chunks of 64 KiB, and a chunk is written where it holds a byte that is not zero. Only
what the source has is read. :class:`Reading` tells what that was; reading the target tells whether it is the same.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from osvdeploy.digests import Digest
from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.contents import pwrite_all
from osvdeploy.osv.disk import SECTOR
from osvdeploy.osv.image import Extent, merged
from osvdeploy.osv.source import HoleyAccess
from osvdeploy.publish.archive import Archive, trailer
from osvdeploy.publish.qcow2 import write_qcow2
from osvdeploy.publish.vhd import vhd_footer, write_vhd
from osvdeploy.publish.vmdk import vmdk
from osvdeploy.sizes import GIB, KIB, MIB, TIB

CHUNK = 64 * KIB
"""What is written or left out: a cluster of qcow2, a grain of VMDK."""

PIECE = MIB
"""Bytes that are read at once, at most."""

_ZEROS = bytes(CHUNK)

Run = tuple[int, bytes]
"""Bytes of a disk, and where they stand."""


class Target(StrEnum):
    """What a disk can be written as."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    """Stream-optimized, as VMware's OVF and EC2's import take it."""
    VHD = "vhd"
    """Dynamic: without its holes."""
    VHD_FIXED = "vhd-fixed"
    """As Azure takes it: a raw disk of whole MiB and a footer."""
    GCE = "gce"
    """The archive of Compute Engine."""

    @property
    def is_stream(self) -> bool:
        """Whether it is written from its beginning to its end, and can go into a pipe."""
        return self in (Target.VMDK, Target.GCE)


@dataclass(frozen=True, slots=True)
class Contents:
    """What is on a disk: its ``size``, the bytes of it that stand in chunks which are not all zeros, and the digest of
    both (docs/convert.md): the same for the same disk in every format."""

    size: int
    data: int
    digest: Digest


class Reading:
    """A disk that is read once: iterate over its runs, then ask for ``contents``.

    Runs are whole chunks that are not all zeros, ascending, at most 1 MiB each; the disk's last one is filled up with
    zeros. ``pieces`` are what the source has, ascending, of any length.
    """

    def __init__(self, size: int, pieces: Iterable[Run]) -> None:
        self.size = size
        self.extents: list[Extent] = []
        self._pieces = pieces
        self._digest = hashlib.sha256(struct.pack("<Q", size))
        self._data = 0

    def __iter__(self) -> Iterator[Run]:
        for at, content in _in_chunks(self._pieces):
            for start, run in _without_zeros(at, content):
                for each in range(0, len(run), CHUNK):
                    self._digest.update(struct.pack("<Q", start + each))
                    self._digest.update(memoryview(run)[each : each + CHUNK])
                end = min(start + len(run), self.size)
                self._data += end - start
                if self.extents and self.extents[-1].end == start:
                    self.extents[-1] = Extent(self.extents[-1].start, end)
                else:
                    self.extents.append(Extent(start, end))
                yield start, run

    @property
    def contents(self) -> Contents:
        """Of all that was read so far."""
        return Contents(self.size, self._data, Digest(self._digest.hexdigest()))

    def identity(self) -> bytes:
        """16 bytes that stand for all that was read so far."""
        return self._digest.digest()[:16]


@dataclass(frozen=True, slots=True)
class Grown:
    """A disk with zeros behind it, up to ``size``."""

    disk: HoleyAccess
    size: int

    def pread(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        content = self.disk.pread(offset, length) if offset < self.disk.size else b""
        return content.ljust(length, b"\0") if offset + length > self.disk.size else content

    def data(self, start: int, end: int) -> Iterator[Extent]:
        return self.disk.data(start, min(end, self.disk.size))


def fitted(size: int, target: Target) -> int:
    """Bytes of the disk in that format: those of the disk, or what its unit makes them.

    Raises DiskInvalid for a disk without bytes, or one that the format cannot hold.
    """
    limits = {Target.VHD: 2040 * GIB, Target.VMDK: 2 * TIB, Target.QCOW2: 2 * TIB}
    unit = {Target.RAW: 1, Target.GCE: GIB, Target.VHD_FIXED: MIB}.get(target, SECTOR)
    most = limits.get(target, 64 * TIB)
    fits = size + -size % unit
    if not 0 < fits <= most:
        raise DiskInvalid(f"a disk of {size} bytes cannot be written as {target}; its disks have 1 byte to {most}")
    return fits


def pieces_of(disk: HoleyAccess, extents: Iterable[Extent] | None = None) -> Iterator[Run]:
    """What a disk has, in whole chunks. Raises what its ``pread`` raises, and DiskInvalid where it ends early."""
    for extent in chunks_of(disk) if extents is None else extents:
        at = extent.start
        while at < extent.end:
            length = min(PIECE, extent.end - at)
            content = disk.pread(at, length)
            if len(content) != length:
                raise DiskInvalid(f"the disk ends at byte {at + len(content)}, before {extent.end}")
            yield at, content
            at += length


def chunks_of(disk: HoleyAccess) -> tuple[Extent, ...]:
    """Where a disk has data, in whole chunks; to the disk's end for the last one."""
    return merged(
        Extent(each.start // CHUNK * CHUNK, min(-(-each.end // CHUNK) * CHUNK, disk.size))
        for each in disk.data(0, disk.size)
    )


def _within(reading: Reading) -> Iterator[Run]:
    """Without what fills up the last chunk behind the disk's end."""
    for at, run in reading:
        yield at, run[: reading.size - at]


def write(target: Target, fd: int, reading: Reading) -> None:
    """Write all of a reading into an empty file, in a format that is not a stream. Raises OSError."""
    match target:
        case Target.RAW | Target.VHD_FIXED:
            for at, run in _within(reading):
                pwrite_all(fd, run, at)
            os.ftruncate(fd, reading.size)
            if target is Target.VHD_FIXED:
                pwrite_all(fd, vhd_footer(reading.size, reading.identity()), reading.size)
        case Target.QCOW2:
            write_qcow2(fd, reading.size, reading)
        case Target.VHD:
            write_vhd(fd, reading.size, _within(reading), reading.identity)
        case _:
            raise AssertionError(f"{target} is a stream")


def streamed(target: Target, disk: HoleyAccess | None, reading: Reading, threads: int | None = None) -> Iterator[bytes]:
    """All of a disk in a format that is a stream, piece by piece. ``reading`` reads the same disk.

    An archive begins with a map of what follows it, so for one, and for that alone, ``disk`` is read too.
    """
    if target is Target.VMDK:
        yield from vmdk(reading.size, reading, threads=threads)
        return
    assert disk is not None
    for _ in reading:
        pass
    archive = Archive(disk, reading.extents)
    head, total = archive.head()
    yield head
    body = archive.body(threads)
    yield from body
    assert body.sum is not None
    yield trailer(total + body.sum)


def _in_chunks(pieces: Iterable[Run]) -> Iterator[Run]:
    """Pieces of any length as whole chunks, the gaps within a chunk filled with zeros."""
    start, pending = 0, bytearray()

    for at, content in pieces:
        if not pending and at % CHUNK == 0 and len(content) % CHUNK == 0:
            yield at, content
            continue
        view, place = memoryview(content), at
        while view:
            if pending and place >= start + CHUNK:
                yield start, bytes(pending).ljust(CHUNK, b"\0")
                pending = bytearray()
            if not pending:
                start = place // CHUNK * CHUNK
                whole = len(view) // CHUNK * CHUNK
                if place == start and whole:
                    yield place, bytes(view[:whole])
                    view, place = view[whole:], place + whole
                    continue
            pending += bytes(place - start - len(pending))
            taken = view[: start + CHUNK - place]
            pending += taken
            view, place = view[len(taken) :], place + len(taken)
            if len(pending) == CHUNK:
                yield start, bytes(pending)
                pending = bytearray()
    if pending:
        yield start, bytes(pending).ljust(CHUNK, b"\0")


def _without_zeros(at: int, content: bytes) -> Iterator[Run]:
    begin = 0
    for each in range(0, len(content), CHUNK):
        if content[each : each + CHUNK] == _ZEROS:
            if begin < each:
                yield at + begin, content[begin:each]
            begin = each + CHUNK
    if begin < len(content):
        yield at + begin, content if begin == 0 else content[begin:]
