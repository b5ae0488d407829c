"""Reads VHD, Microsoft's disk image format, fixed and dynamic.

Source: Microsoft, "Virtual Hard Disk Image Format Specification", version 1.0; which field is the size goes by who made
the file (QEMU: block/vpc.c, vpc_open). A differencing disk needs its parent, and is refused.

No number of the file is believed: blocks must lie in it, and no two of the disk in one place.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.image import Extent
from osvdeploy.osv.source import HoleyAccess
from osvdeploy.sizes import GIB, KIB, MIB, format_size

MAGIC = b"conectix"
SECTOR = 512
FIXED, DYNAMIC, _DIFFERENCING = 2, 3, 4
ABSENT = 0xFFFF_FFFF

FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
HEADER = struct.Struct(">8sQQIIII984x")

_SIZE_LIMIT = 2040 * GIB
_BLOCKS = range(4 * KIB, 256 * MIB + 1)
_BY_GEOMETRY = (b"vpc ", b"qemu")
_LARGEST_GEOMETRY = 65535 * 16 * 255
_DAMAGED = "the file was cut short, or is damaged: make or download it again"


def checksum(packed: bytes) -> int:
    """Of a footer or a header whose own checksum is 0."""
    return ~sum(packed) & 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Vhd:
    """A disk in an open VHD; ``size`` in bytes, as a machine would see it. ``block`` is 0 for a fixed one."""

    file: HoleyAccess
    size: int
    block: int
    _table: array[int]

    @property
    def detail(self) -> str:
        """For people."""
        return f"dynamic, blocks of {format_size(self.block)}" if self.block else "fixed"

    def pread(self, offset: int, length: int) -> bytes:
        """Raises DiskInvalid where a block ends behind the file."""
        end = min(offset + length, self.size)
        pieces = []
        while offset < end:
            place, stop = self._place(offset, end)
            if place is None:
                pieces.append(bytes(stop - offset))
            else:
                content = self.file.pread(place, stop - offset)
                if len(content) != stop - offset:
                    raise DiskInvalid(f"VHD: data is said to stand at byte {place} of {self.file.size}", hint=_DAMAGED)
                pieces.append(content)
            offset = stop
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def data(self, start: int, end: int) -> Iterator[Extent]:
        """What is stored, without what is a hole of the file itself."""
        end = min(end, self.size)
        while start < end:
            place, stop = self._place(start, end)
            if place is not None:
                for each in self.file.data(place, place + stop - start):
                    yield Extent(each.start - place + start, each.end - place + start)
            start = stop

    def _place(self, at: int, end: int) -> tuple[int | None, int]:
        """Where in the file a byte of the disk stands, and up to which one all others stand behind it. Bitmaps are not
        looked at, as QEMU does: what they leave out was never written."""
        if not self.block:
            return at, end
        index, skip = divmod(at, self.block)
        stop = min(end, (index + 1) * self.block)
        entry = self._table[index]
        return (None if entry == ABSENT else entry * SECTOR + _bitmap(self.block) + skip), stop


def is_fixed_vhd(file: HoleyAccess) -> bool:
    """Whether a file that begins like a raw disk ends with a VHD's footer."""
    return file.size > FOOTER.size and file.pread(file.size - FOOTER.size, len(MAGIC)) == MAGIC


def read_vhd(file: HoleyAccess) -> Vhd:
    """Take in footer, header and block table. Raises DiskInvalid."""
    dynamic = file.pread(0, len(MAGIC)) == MAGIC
    footer = file.pread(0 if dynamic else file.size - FOOTER.size, FOOTER.size) if file.size >= FOOTER.size else b""
    if len(footer) != FOOTER.size or footer[:8] != MAGIC:
        raise DiskInvalid("VHD: no footer", hint=_DAMAGED)
    fields = FOOTER.unpack(footer)
    header_at, creator, current, cylinders, heads, track, kind, told = (
        fields[at] for at in (3, 5, 9, 10, 11, 12, 13, 14)
    )
    if checksum(footer[:64] + bytes(4) + footer[68:]) != told:
        raise DiskInvalid("VHD: its footer's checksum is wrong", hint=_DAMAGED)
    if kind == _DIFFERENCING:
        raise DiskInvalid("VHD: holds the changes to another disk alone", hint="merge it with its parent first")
    if kind not in (FIXED, DYNAMIC):
        raise DiskInvalid(f"VHD: a disk of kind {kind}; 2 (fixed) and 3 (dynamic) are known")
    geometry = cylinders * heads * track
    by_geometry = creator in _BY_GEOMETRY and 0 < geometry != _LARGEST_GEOMETRY
    size = geometry * SECTOR if by_geometry else current
    if not 0 < size <= _SIZE_LIMIT:
        raise DiskInvalid(f"VHD: a disk of {size} bytes; the format ends at {format_size(_SIZE_LIMIT)}")
    if kind == FIXED:
        if size > file.size - FOOTER.size:
            raise DiskInvalid(f"VHD: a disk of {size} bytes in a file of {file.size}", hint=_DAMAGED)
        return Vhd(file, size, 0, array("I"))
    return _dynamic(file, size, header_at)


def _dynamic(file: HoleyAccess, size: int, header_at: int) -> Vhd:
    header = file.pread(header_at, HEADER.size) if header_at < file.size else b""
    if len(header) != HEADER.size or header[:8] != b"cxsparse":
        raise DiskInvalid(f"VHD: no header at byte {header_at}", hint=_DAMAGED)
    _, _, table_at, _, entries, block, told = HEADER.unpack(header)
    if checksum(header[:36] + bytes(4) + header[40:]) != told:
        raise DiskInvalid("VHD: its header's checksum is wrong", hint=_DAMAGED)
    if block not in _BLOCKS or block & (block - 1):
        raise DiskInvalid(f"VHD: blocks of {block} bytes")
    needed = -(-size // block)
    if needed > entries:
        raise DiskInvalid(f"VHD: a disk of {size} bytes takes {needed} blocks, and its table has {entries}")
    content = file.pread(table_at, 4 * needed) if table_at < file.size else b""
    if len(content) != 4 * needed:
        raise DiskInvalid(f"VHD: its table of {needed} blocks is not in a file of {file.size} bytes", hint=_DAMAGED)
    table = array("I", content)
    if sys.byteorder == "little":
        table.byteswap()
    # Were two blocks of the disk one of the file, a short file would be a disk of gigabytes of data.
    apart = (block + _bitmap(block)) // SECTOR
    before = -apart
    for entry in sorted(each for each in table if each != ABSENT):
        if entry - before < apart:
            raise DiskInvalid(f"VHD: two blocks are said to stand at sector {entry} of the file", hint=_DAMAGED)
        before = entry
    return Vhd(file, size, block, table)


def _bitmap(block: int) -> int:
    """Bytes of the bitmap before a block: whole sectors."""
    return -(-block // SECTOR // 8 // SECTOR) * SECTOR
