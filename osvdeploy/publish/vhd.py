"""Writes VHD, Microsoft's disk image format, fixed or dynamic, in one pass.

Source: Microsoft, "Virtual Hard Disk Image Format Specification", version 1.0. A footer of 512 bytes closes the file.
A fixed disk has all of its bytes before that; a dynamic one has the footer's copy, a header, a table and blocks::

    footer's copy, header   1536 bytes
    block table             for 2 MiB of the disk each the sector where they stand, all ones where they do not
    blocks                  a bitmap of sectors, and 2 MiB

Big endian. The bytes depend on the disk alone: no time, and an identity that is drawn from what is on it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable

from osvdeploy.osv.contents import pwrite_all
from osvdeploy.osv.vhd import ABSENT, DYNAMIC, FIXED, FOOTER, HEADER, SECTOR, checksum
from osvdeploy.sizes import MIB

BLOCK = 2 * MIB
_BITMAP = b"\xff" * (BLOCK // SECTOR // 8)
"""All sectors are there: of a block that is stored all bytes are, zeros included."""

_TABLE_AT = FOOTER.size + HEADER.size

_CREATOR = b"win "
"""Readers go by this: of other creators' disks Virtual PC, and QEMU with it, takes the geometry for the size, which
rounds it down (QEMU: block/vpc.c, vpc_open)."""
_SYSTEM = b"Wi2k"
_CREATOR_VERSION = 0x000A_0000
_VERSION = 0x0001_0000


def vhd_footer(size: int, identity: bytes, *, kind: int = FIXED) -> bytes:
    """The footer of a disk of ``size`` bytes. ``identity``: 16 bytes, others for another disk."""

    def packed(total: int) -> bytes:
        return FOOTER.pack(
            b"conectix",
            2,  # reserved, always set
            _VERSION,
            FOOTER.size if kind == DYNAMIC else ABSENT << 32 | ABSENT,
            0,  # no time
            _CREATOR,
            _CREATOR_VERSION,
            _SYSTEM,
            size,
            size,
            *_geometry(size // SECTOR),
            kind,
            total,
            identity,
            0,
        )

    return packed(checksum(packed(0)))


def write_vhd(fd: int, size: int, runs: Iterable[tuple[int, bytes]], identity: Callable[[], bytes]) -> None:
    """Write a disk of ``size`` bytes, whole sectors, into an empty file, as a dynamic one.

    ``runs`` ascend. ``identity`` is asked when all were taken. Raises OSError.
    """
    count = -(-size // BLOCK)
    table = [ABSENT] * count
    end = _TABLE_AT + -(-count * 4 // SECTOR) * SECTOR
    for at, run in runs:
        while run:
            number = at // BLOCK
            if table[number] == ABSENT:
                table[number] = end // SECTOR
                pwrite_all(fd, _BITMAP, end)
                end += len(_BITMAP) + BLOCK
            room = (number + 1) * BLOCK - at
            pwrite_all(fd, run[:room], table[number] * SECTOR + len(_BITMAP) + at % BLOCK)
            at, run = at + room, run[room:]
    footer = vhd_footer(size, identity(), kind=DYNAMIC)
    pwrite_all(fd, footer + _header(count), 0)
    pwrite_all(fd, struct.pack(f">{count}I", *table).ljust(-(-count * 4 // SECTOR) * SECTOR, b"\xff"), _TABLE_AT)
    pwrite_all(fd, footer, end)
    os.ftruncate(fd, end + len(footer))


def _header(count: int) -> bytes:
    def packed(total: int) -> bytes:
        return HEADER.pack(b"cxsparse", ABSENT << 32 | ABSENT, _TABLE_AT, _VERSION, count, BLOCK, total)

    return packed(checksum(packed(0)))


def _geometry(sectors: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors of a track, by the specification's appendix."""
    sectors = min(sectors, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        track, heads = 255, 16
    else:
        track = 17
        heads = max(4, (sectors // track + 1023) // 1024)
        if sectors // track >= heads * 1024 or heads > 16:
            track, heads = 31, 16
        if sectors // track >= heads * 1024:
            track, heads = 63, 16
    return sectors // track // heads, heads, track
