"""Reads VMware's stream-optimized VMDK at any place.

Source: VMware, "Virtual Disk Format 5.0". Other kinds of VMDK are refused by name. Every length and place that the file
gives is held against it before it is used, so a damaged one costs no more memory than its size.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.disk import RandomAccess
from osvdeploy.osv.image import Extent

MAGIC = b"KDMV"
SECTOR = 512

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_AT_END = 0xFFFF_FFFF_FFFF_FFFF
_FOOTER_FROM_END = 2 * SECTOR
_COMPRESSED, _MARKERS = 1 << 16, 1 << 17
_LARGEST_GRAIN = 2048
"""Sectors: 1 MiB. VMware's own are 128."""


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    flags: int
    capacity: int
    grain: int
    table_entries: int
    directory: int
    compression: int


class Vmdk:
    """A disk in an open VMDK; ``size`` in bytes, as a machine would see it."""

    def __init__(self, source: RandomAccess, header: _Header, places: tuple[int, ...]) -> None:
        self._source = source
        self._grain = header.grain * SECTOR
        self._places = places
        self.size = header.capacity * SECTOR
        # The last grains read: who reads blocks reads several times from one.
        self._read_grain = functools.lru_cache(maxsize=16)(self._grain_at)

    def pread(self, offset: int, length: int) -> bytes:
        """Raises DiskInvalid for a grain that cannot be inflated."""
        end = min(offset + length, self.size)
        parts = []
        while offset < end:
            index, begin = divmod(offset, self._grain)
            part = self._read_grain(index)[begin : begin + end - offset]
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def data(self, start: int, end: int) -> Iterator[Extent]:
        """The parts of ``start`` to ``end`` that are in the file, ascending."""
        for index in range(start // self._grain, -(-min(end, self.size) // self._grain)):
            if self._places[index]:
                yield Extent(max(start, index * self._grain), min(end, (index + 1) * self._grain, self.size))

    def _grain_at(self, index: int) -> bytes:
        place = self._places[index] * SECTOR
        if not place:
            return bytes(self._grain)
        marker = self._source.pread(place, 12)
        if len(marker) == 12:
            lba, length = struct.unpack("<QI", marker)
            if lba * SECTOR == index * self._grain and 0 < length <= 2 * self._grain:
                packed = self._source.pread(place + 12, length)
                try:
                    content = zlib.decompressobj().decompress(packed, self._grain)
                except zlib.error:
                    content = b""
                if len(content) == self._grain:
                    return content
        raise DiskInvalid(f"the VMDK's grain {index} cannot be read")


def read_vmdk(source: RandomAccess) -> Vmdk:
    """Take in a VMDK's tables. Raises :class:`~osvdeploy.errors.DiskInvalid`."""
    header = _header(source, 0)
    if header.directory == _AT_END:
        header = _header(source, source.size - _FOOTER_FROM_END)
    if not header.flags & _COMPRESSED or header.compression != 1:
        raise DiskInvalid("a VMDK that is not stream-optimized", hint="convert it: qemu-img convert -O vmdk ...")
    grains = -(-header.capacity // header.grain)
    tables = -(-grains // header.table_entries)
    if not header.capacity or tables * 4 > source.size:
        raise DiskInvalid("the VMDK's size does not fit its file")
    directory = _numbers(source, header.directory, tables)
    places: list[int] = []
    for place in directory:
        places += _numbers(source, place, header.table_entries) if place else [0] * header.table_entries
    return Vmdk(source, header, tuple(places[:grains]))


def _header(source: RandomAccess, at: int) -> _Header:
    raw = source.pread(at, _HEADER.size) if at >= 0 else b""
    if len(raw) != _HEADER.size or raw[:4] != MAGIC:
        raise DiskInvalid("not a VMDK, or one that was cut short")
    _, version, flags, capacity, grain, _, _, entries, _, directory, _, _, _, compression = _HEADER.unpack(raw)
    if version not in (1, 2, 3):
        raise DiskInvalid(f"a VMDK of version {version}")
    if not 8 <= grain <= _LARGEST_GRAIN or grain & (grain - 1) or entries != 512:
        raise DiskInvalid(f"a VMDK with grains of {grain} sectors, {entries} in a table")
    return _Header(version, flags, capacity, grain, entries, directory, compression)


def _numbers(source: RandomAccess, sector: int, count: int) -> tuple[int, ...]:
    raw = source.pread(sector * SECTOR, 4 * count) if sector * SECTOR < source.size else b""
    if len(raw) != 4 * count:
        raise DiskInvalid("the VMDK's tables lie outside of its file")
    return struct.unpack(f"<{count}I", raw)
