"""A disk as Google's Compute Engine takes it: gzip over a tar in the old GNU format with one sparse file, ``disk.raw``.

Sources: "Manually import boot disks" in Compute Engine's documentation (format and name), GNU tar's manual, "Basic Tar
Format" (the header) and "Storing Sparse Files" (old GNU's map), RFC 1951 and 1952 (deflate and gzip).

An archive comes in three parts that joined are one gzip member::

    head      gzip's header; deflated: the tar's header and the first 512 KiB of the disk
    body      deflated: every other range of the disk that something reads, and the tar's end
    trailer   CRC-32 and length of what was deflated

Releases of one image differ in the disk's first block alone, so they share the body: an object store that can join
objects is sent it once. No part refers back into another, and the body is deflated in pieces of 1 MiB on as many
threads as there are, in order: the bytes depend on the disk and on the deflater's version, and not on threads, time or
machine. Memory holds a few pieces.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.image import Extent, merged
from osvdeploy.sizes import GIB, KIB, MIB

if TYPE_CHECKING:
    from types import ModuleType

MEMBER = b"disk.raw"
HEAD_SIZE = 512 * KIB
"""Bytes of the disk in the head: all that a release changes stands before this."""

PIECE = MIB
LEVEL = 1
"""isal's level: 361 MB/s on one thread, where zlib's default makes 21 MB/s and an archive a tenth smaller."""

WINDOW = 32 * KIB
"""How far deflate looks back."""

_RECORD = 512
_SIZE = slice(483, 495)
"""Where the header has the size of the file that is archived."""

_LONGEST_HEAD = HEAD_SIZE + 64 * MIB
"""Of a sparse map no more is read: one of so many ranges describes no disk."""

_MAP_ENTRIES = 4, 21
"""Of a sparse map, in the header and in each block that extends it."""

_GZIP_HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x04\xff"
"""No name, no time; the fastest method; an unknown system. Nothing in it tells of the machine."""

_LAST_BLOCK = b"\x03\x00"
"""An empty deflate block with the mark that it is the last (RFC 1951, 3.2.6)."""


class Disk(Protocol):
    """What is archived: as :class:`osvdeploy.osv.disk.RandomAccess`."""

    @property
    def size(self) -> int: ...

    def pread(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Sum:
    """CRC-32 and length, in bytes, of one part before it was deflated."""

    crc: int
    length: int

    def __add__(self, other: Sum) -> Sum:
        """Of both, one behind the other."""
        combined = _isal().crc32_combine(self.crc, other.crc, other.length)
        return Sum(combined, self.length + other.length)


class Archive:
    """A disk on its way into the archive. ``read`` are the ranges that something reads, of which all else is a hole.

    Raises :class:`~osvdeploy.errors.DiskInvalid` where a range lies outside of the disk, or the disk is not whole GiB.
    """

    def __init__(self, disk: Disk, read: Sequence[Extent]) -> None:
        if disk.size % GIB or not disk.size:
            raise DiskInvalid(f"{disk.size} bytes: Google takes disks of whole GiB", hint="build it again")
        if any(extent.start < 0 or extent.end > disk.size for extent in read):
            raise DiskInvalid(f"a range beyond the disk's {disk.size} bytes")
        self._disk = disk
        # The head's part is always whole, so that each release's has one length and one map fits them all.
        extents = merged([Extent(0, HEAD_SIZE), *(_in_records(each) for each in read)])
        self.extents = tuple(extents)
        self._header = sparse_header(MEMBER, disk.size, self.extents)

    @property
    def raw_length(self) -> int:
        """Bytes that are deflated, of all parts."""
        stored = sum(each.end - each.start for each in self.extents)
        return len(self._header) + stored + _padding(stored)

    def head(self, block: bytes | None = None) -> tuple[bytes, Sum]:
        """The first part, and what to add up. ``block`` stands for the disk's first 512 KiB where it is given."""
        block = self._disk.pread(0, HEAD_SIZE) if block is None else block
        if len(block) != HEAD_SIZE:
            raise DiskInvalid(f"the disk's first block has {len(block)} bytes, not {HEAD_SIZE}")
        return head_of(self._header, block)

    def body(self, threads: int | None = None) -> Body:
        """The second part: iterate once, then ask for its sum."""
        return Body(self._disk, self.extents, threads or len(os.sched_getaffinity(0)))


class Body:
    """An archive's second part on its way out, in pieces of compressed bytes; ``sum`` is known at the end.

    Raises what the disk's ``pread`` raises, and :class:`~osvdeploy.errors.DiskInvalid` where the disk ends early.
    """

    def __init__(self, disk: Disk, extents: Sequence[Extent], threads: int) -> None:
        self._disk = disk
        self._extents = extents
        self._threads = threads
        self.sum: Sum | None = None
        self.raw_length = sum(each.end - each.start for each in extents) - HEAD_SIZE

    def summed(self) -> Sum:
        """What ``sum`` is at the end, without deflating anything: of a body that is in a store already."""
        crc, length = 0, 0
        for piece in self._pieces():
            crc, length = _isal().crc32(piece, crc), length + len(piece)
        return Sum(crc, length)

    def __iter__(self) -> Iterator[bytes]:
        total = Sum(0, 0)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="deflate") as pool:
            under_way: deque[tuple[Future[bytes], Future[int], int]] = deque()
            before = b""
            try:
                for piece in self._pieces():
                    under_way.append(
                        (pool.submit(_deflate, piece, before), pool.submit(_isal().crc32, piece), len(piece))
                    )
                    before = piece[-WINDOW:]
                    if len(under_way) > 2 * self._threads:
                        deflated, crc, length = under_way.popleft()
                        total += Sum(crc.result(), length)
                        yield deflated.result()
                while under_way:
                    deflated, crc, length = under_way.popleft()
                    total += Sum(crc.result(), length)
                    yield deflated.result()
            finally:
                # A consumer that leaves early must not wait for what nobody takes.
                for deflated, crc, _ in under_way:
                    deflated.cancel()
                    crc.cancel()
        self.sum = total
        yield _LAST_BLOCK

    def _pieces(self) -> Iterator[bytes]:
        """What is deflated, 1 MiB each but for the last."""
        gathered: list[bytes] = []
        size = 0
        for extent in self._extents:
            at = max(extent.start, HEAD_SIZE)
            while at < extent.end:
                wanted = min(extent.end - at, PIECE - size)
                read = self._disk.pread(at, wanted)
                if len(read) != wanted:
                    raise DiskInvalid(f"the disk ends at byte {at + len(read)}, before {extent.end}")
                gathered.append(read)
                at, size = at + wanted, size + wanted
                if size == PIECE:
                    yield b"".join(gathered)
                    gathered, size = [], 0
        # A tar's end: two records of zeros, behind contents that are padded to whole ones.
        stored = sum(each.end - each.start for each in self._extents)
        gathered.append(bytes(_padding(stored)))
        yield b"".join(gathered)


def head_of(header: bytes, block: bytes) -> tuple[bytes, Sum]:
    """An archive's first part, of the tar's header and the disk's first 512 KiB, and what to add up."""
    raw = header + block
    return _GZIP_HEADER + _deflate(raw, b""), Sum(_isal().crc32(raw), len(raw))


def opened_head(head: bytes) -> tuple[bytes, bytes, int]:
    """What a first part was made of: the tar's header and the disk's first 512 KiB; and the disk's size in bytes, which
    the header tells. Raises :class:`~osvdeploy.errors.DiskInvalid` for what is none."""
    try:
        raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head[len(_GZIP_HEADER) :], _LONGEST_HEAD)
        header, block = raw[:-HEAD_SIZE], raw[-HEAD_SIZE:]
        size = header[_SIZE]
        told = int.from_bytes(size[1:], "big") if size[:1] == b"\x80" else int(size.rstrip(b"\0"), 8)
    except (zlib.error, ValueError) as error:
        raise DiskInvalid(f"no archive's beginning: {error}") from error
    if not head.startswith(_GZIP_HEADER) or not header.startswith(MEMBER + b"\0") or len(header) % _RECORD:
        raise DiskInvalid(f"no archive of a {MEMBER.decode()} begins so")
    return header, block, told


def trailer(total: Sum) -> bytes:
    """An archive's last part, of the sum over head and body."""
    return struct.pack("<II", total.crc, total.length & 0xFFFF_FFFF)


def sparse_header(name: bytes, size: int, extents: Sequence[Extent]) -> bytes:
    """The header of a sparse file of ``size`` bytes in the old GNU format, its map in blocks of 512 bytes included.

    ``extents`` ascend and do not touch. The map closes with an empty range at the file's end where the last is not
    there, as GNU tar writes it: a reader then knows how long the hole behind it is.
    """
    assert all(left.end < right.start for left, right in pairwise(extents))
    ranges = [(each.start, each.end - each.start) for each in extents]
    if not extents or extents[-1].end < size:
        ranges.append((size, 0))
    entries = [_number(start, 12) + _number(length, 12) for start, length in ranges]
    inside, beside = _MAP_ENTRIES
    stored = sum(length for _, length in ranges)
    header = bytearray(_RECORD)
    for at, field in (
        (0, name),
        (100, b"0000644\0"),
        (108, b"0000000\0"),  # user and group: nobody's
        (116, b"0000000\0"),
        (124, _number(stored, 12)),
        (136, b"00000000000\0"),  # no time
        (148, b" " * 8),
        (156, b"S"),
        (257, b"ustar  \0"),
        (386, b"".join(entries[:inside])),
        (482, bytes([len(entries) > inside])),
        (483, _number(size, 12)),
    ):
        header[at : at + len(field)] = field
    header[148:156] = b"%06o\0 " % sum(header)
    blocks = [bytes(header)]
    for first in range(inside, len(entries), beside):
        more = bytes([first + beside < len(entries)])
        blocks.append((b"".join(entries[first : first + beside]).ljust(504, b"\0") + more).ljust(_RECORD, b"\0"))
    return b"".join(blocks)


def _number(value: int, width: int) -> bytes:
    """Octal digits and a NUL; base-256 where they do not suffice, from 8 GiB on."""
    if value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


def _in_records(extent: Extent) -> Extent:
    start = extent.start // _RECORD * _RECORD
    return Extent(start, -(-extent.end // _RECORD) * _RECORD)


def _padding(stored: int) -> int:
    """Bytes of zeros from the contents' end to the tar's."""
    return -stored % _RECORD + 2 * _RECORD


def _deflate(raw: bytes, before: bytes) -> bytes:
    """A piece, at the end of which the stream is at a whole byte. ``before``: what stands right before it."""
    isal = _isal()
    deflater = (
        isal.compressobj(LEVEL, isal.DEFLATED, -15, zdict=before)
        if before
        else isal.compressobj(LEVEL, isal.DEFLATED, -15)
    )
    return bytes(deflater.compress(raw) + deflater.flush(isal.Z_SYNC_FLUSH))


def _isal() -> ModuleType:
    from isal import isal_zlib

    return isal_zlib
