"""ROFS on disk, version 1 (OSv: fs/rofs/rofs.hh, fs/rofs/rofs_vfsops.cc, scripts/gen-rofs-img.py). Little endian.

Block 0 is the superblock; file contents are contiguous, each from the start of a block; one run of blocks holds the
tables: directory entries, link targets, inodes, packed without alignment. Where contents and tables stand is free, and
two files may have one content. Inode numbers count from 1; inode 1 is the
root. A directory's entries are contiguous in the table of entries.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from osvdeploy.digests import Digest

BLOCK_SIZE = 512
MAGIC = 0xDEADBEAD
VERSION = 1
ROOT_INODE = 1

SUPERBLOCK = struct.Struct("<8Q")
ENTRY_HEAD = struct.Struct("<QH")
LINK_HEAD = struct.Struct("<H")
INODE = struct.Struct("<QQQQ")

TABLES_LIMIT = 256 << 20
"""Bytes of all tables. OSv reads them into one physically contiguous allocation: far less than this already fails, and
a reader that is handed a torn superblock must not believe it."""

NODES_LIMIT = 1 << 21
"""Files, directories and links of an image. A tree is kept in memory whole, by who writes and by who reads it, and
nobody is known to have put more than a few ten thousand into one. OSv itself keeps inode numbers in an int."""


class Mode(IntEnum):
    """An inode's kind; OSv looks at nothing else of the mode."""

    DIRECTORY = 0x4000
    FILE = 0x8000
    SYMLINK = 0xA000


KIND_MASK = 0xF000


@dataclass(frozen=True, slots=True)
class Superblock:
    """Block 0: where the tables stand, in blocks, and how many rows each has."""

    tables_block: int
    tables_blocks: int
    entries: int
    links: int
    inodes: int

    def pack(self) -> bytes:
        fields = (self.tables_block, self.tables_blocks, self.entries, self.links, self.inodes)
        return SUPERBLOCK.pack(MAGIC, VERSION, BLOCK_SIZE, *fields).ljust(BLOCK_SIZE, b"\0")


def blocks(size: int) -> int:
    """Blocks that ``size`` bytes take."""
    return -(-size // BLOCK_SIZE)


def rofs_digest(head: bytes, contents: Iterable[Digest]) -> Digest:
    """The digest that names a ROFS: sha256 over ``head``, its superblock and tables, whole blocks of both, and the raw
    sha256 of each content that is not empty, in the order of their places and once for each place.

    The tables say where each content stands and how long it is, so nothing that OSv reads of an image can change
    without it; what lies between is not read, and not in it.
    """
    digest = hashlib.sha256(head)
    for content in contents:
        digest.update(bytes.fromhex(content))
    return Digest(digest.hexdigest())
