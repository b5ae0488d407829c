"""Reads VMware's VMDK at any place where one file is all of it: stream-optimized, or monolithic and sparse.

Source: VMware, "Virtual Disk Format 5.0". Other kinds are refused by name. Every length and place that the file gives
is held against it before it is used, and no two grains of the disk may stand in one place, so a damaged one costs no
more memory than its size, and has no more data than that, but for what is deflated.
"""

from __future__ import annotations

import functools
import re
import struct
import sys
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.disk import RandomAccess
from osvdeploy.osv.image import Extent
from osvdeploy.osv.qcow2 import Claims
from osvdeploy.sizes import KIB, TIB, format_size

MAGIC = b"KDMV"
SECTOR = 512

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_AT_END = 0xFFFF_FFFF_FFFF_FFFF
_FOOTER_FROM_END = 2 * SECTOR
_ZERO_GRAINS, _COMPRESSED = 1 << 2, 1 << 16
_LARGEST_GRAIN = 2048
"""Sectors: 1 MiB. VMware's own are 128."""
_SIZE_LIMIT = 2 * TIB
"""Sectors of the file are numbers of 32 bits."""
_DESCRIPTOR_LIMIT = 64 * KIB
_PARENT = re.compile(rb"^\s*parentCID\s*=\s*([0-9a-fA-F]+)", re.MULTILINE)
_NO_PARENT = 0xFFFF_FFFF
_TABLES_KEPT = 64


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: tuple[int, int]
    table_entries: int
    directory: int
    compression: int


class Vmdk:
    """A disk in an open VMDK; ``size`` in bytes, as a machine would see it."""

    def __init__(self, source: RandomAccess, header: _Header, directory: array[int]) -> None:
        self._source = source
        self._grain = header.grain * SECTOR
        self._entries = header.table_entries
        self._directory = directory
        self._packed = bool(header.flags & _COMPRESSED)
        self._zero = 1 if header.flags & _ZERO_GRAINS else 0
        self._looked, self._tables, self._grains = Claims(), Claims(), Claims()
        self.size = header.capacity * SECTOR
        # The last grains read: who reads blocks reads several times from one.
        self._read_grain = functools.lru_cache(maxsize=16)(self._grain_at)
        self._table = functools.lru_cache(maxsize=_TABLES_KEPT)(self._table_at)

    @property
    def detail(self) -> str:
        """For people."""
        return f"{'stream-optimized' if self._packed else 'sparse'}, grains of {format_size(self._grain)}"

    def pread(self, offset: int, length: int) -> bytes:
        """Raises DiskInvalid for a grain that cannot be read or inflated."""
        end = min(offset + length, self.size)
        parts = []
        while offset < end:
            index, begin = divmod(offset, self._grain)
            part = self._read_grain(index)[begin : begin + end - offset]
            parts.append(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def data(self, start: int, end: int) -> Iterator[Extent]:
        """The parts of ``start`` to ``end`` in the file, ascending; a table that is absent or empty is passed over."""
        end = min(end, self.size)
        index, last = start // self._grain, -(-end // self._grain)
        while index < last:
            number, first = divmod(index, self._entries)
            table = self._table(number)
            stop = min(last, (number + 1) * self._entries)
            if table is not None:
                for each in range(index, stop):
                    if table[first + each - index] > self._zero:
                        yield Extent(max(start, each * self._grain), min(end, (each + 1) * self._grain))
            index = stop

    def _table_at(self, number: int) -> array[int] | None:
        """A grain table; None where there is none, or no grain in it."""
        place = self._directory[number]
        if not place:
            return None
        table = _numbers(self._source, place, self._entries)
        # Of a disk that is all hole some writers, we too, have every table; to go through each is seconds for a TiB.
        empty = max(table) <= self._zero
        if self._looked.claim(number):
            # Two that do not overlap never begin in the same part of the file that is as long as they are.
            if not self._tables.claim(place * SECTOR // (4 * self._entries)):
                raise DiskInvalid("two tables of the VMDK are said to stand in one place")
            for each in () if empty or self._packed else table:
                if each > self._zero and not self._grains.claim(each * SECTOR // self._grain):
                    raise DiskInvalid("two grains of the VMDK are said to stand in one place")
        return None if empty else table

    def _grain_at(self, index: int) -> bytes:
        number, at = divmod(index, self._entries)
        table = self._table(number)
        place = table[at] * SECTOR if table is not None and table[at] > self._zero else 0
        if not place:
            return bytes(self._grain)
        content = self._inflated(index, place) if self._packed else self._source.pread(place, self._grain)
        wanted = min(self._grain, self.size - index * self._grain)
        if len(content) < wanted:
            raise DiskInvalid(f"the VMDK's grain {index} cannot be read")
        return content

    def _inflated(self, index: int, place: int) -> bytes:
        marker = self._source.pread(place, 12)
        if len(marker) != 12:
            return b""
        lba, length = struct.unpack("<QI", marker)
        if lba * SECTOR != index * self._grain or not 0 < length <= 2 * self._grain:
            return b""
        try:
            return zlib.decompressobj().decompress(self._source.pread(place + 12, length), self._grain)
        except zlib.error:
            return b""


def read_vmdk(source: RandomAccess) -> Vmdk:
    """Take in a VMDK's header and directory. Raises :class:`~osvdeploy.errors.DiskInvalid`."""
    header = _header(source, 0)
    _check_descriptor(source, header)
    if header.directory == _AT_END:
        header = _header(source, source.size - _FOOTER_FROM_END)
    if header.flags & _COMPRESSED and header.compression != 1:
        raise DiskInvalid(f"a VMDK that is compressed in a way (number {header.compression}) that is not known")
    grains = -(-header.capacity // header.grain)
    tables = -(-grains // header.table_entries)
    if not 0 < header.capacity <= _SIZE_LIMIT // SECTOR or tables * 4 > source.size:
        raise DiskInvalid("the VMDK's size does not fit its file")
    return Vmdk(source, header, _numbers(source, header.directory, tables))


def _header(source: RandomAccess, at: int) -> _Header:
    raw = source.pread(at, _HEADER.size) if at >= 0 else b""
    if len(raw) != _HEADER.size or raw[:4] != MAGIC:
        raise DiskInvalid("not a VMDK, or one that was cut short")
    _, version, flags, capacity, grain, text, length, entries, _, directory, _, _, _, compression = _HEADER.unpack(raw)
    if version not in (1, 2, 3):
        raise DiskInvalid(f"a VMDK of version {version}")
    if not 8 <= grain <= _LARGEST_GRAIN or grain & (grain - 1) or entries != 512:
        raise DiskInvalid(f"a VMDK with grains of {grain} sectors, {entries} in a table")
    return _Header(version, flags, capacity, grain, (text, length), entries, directory, compression)


def _check_descriptor(source: RandomAccess, header: _Header) -> None:
    """Raise DiskInvalid where the file is not all of its disk: a part of one, or the changes to another."""
    at, length = (each * SECTOR for each in header.descriptor)
    if not at:
        raise DiskInvalid(
            "a part of a VMDK in several files",
            hint="make one of them: qemu-img convert -O qcow2 DESCRIPTOR.vmdk disk.qcow2",
        )
    text = source.pread(at, min(length, _DESCRIPTOR_LIMIT)) if at < source.size else b""
    parent = _PARENT.search(text)
    if parent is not None and int(parent[1][-8:], 16) != _NO_PARENT:
        raise DiskInvalid("a VMDK that holds the changes to another disk alone", hint="merge it with its parent first")


def _numbers(source: RandomAccess, sector: int, count: int) -> array[int]:
    raw = source.pread(sector * SECTOR, 4 * count) if sector * SECTOR < source.size else b""
    if len(raw) != 4 * count:
        raise DiskInvalid("the VMDK's tables lie outside of its file")
    numbers = array("I", raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
