"""Reads a ROFS as strictly as OSv's newest driver, and then some: every number is checked before it is believed.

Works on anything that reads at an offset: a file, a disk in a cloud. The tables are read once; contents are read when
they are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeAlias

from osvdeploy.digests import Digest
from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.filetree import PATH_LIMIT, resolve, show
from osvdeploy.osv.image import Extent, merged
from osvdeploy.osv.rofs.format import (
    BLOCK_SIZE,
    ENTRY_HEAD,
    INODE,
    KIND_MASK,
    LINK_HEAD,
    MAGIC,
    ROOT_INODE,
    SUPERBLOCK,
    TABLES_LIMIT,
    VERSION,
    Mode,
    Superblock,
    rofs_digest,
)

STREAM_SIZE = 1 << 20
"""Bytes per piece when a file is streamed."""

PATHS_LIMIT = 256 << 20
"""Bytes of all paths: a million files with 250 each. Below one directory with a name of 4,000 bytes, a table of 1 MiB
could otherwise ask for a hundred times that in paths."""

ReadAt = Callable[[int, int], bytes]
"""``(offset, length)`` to bytes; fewer only at the end of what there is."""


@dataclass(frozen=True, slots=True)
class RofsFile:
    """A regular file: its inode, and where its bytes stand in the image."""

    inode: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class RofsDirectory:
    """A directory."""

    inode: int


@dataclass(frozen=True, slots=True)
class RofsSymlink:
    """A symbolic link."""

    inode: int
    target: bytes


RofsNode: TypeAlias = RofsFile | RofsDirectory | RofsSymlink


@dataclass(frozen=True, slots=True)
class RofsReader:
    """A parsed image: ``nodes`` maps guest paths (root ``b"/"``) to what stands there, parents before children.

    No two contents overlap, unless they are one.
    """

    superblock: Superblock
    nodes: Mapping[bytes, RofsNode]
    _read_at: ReadAt

    def read(self, file: RofsFile, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file; fewer than ``length`` only at its end. Raises DiskInvalid when the disk has fewer."""
        length = max(0, file.size - offset if length is None else min(length, file.size - offset))
        content = self._read_at(file.offset + offset, length) if length else b""
        if len(content) != length:
            raise DiskInvalid(f"ROFS: file data at byte {file.offset + offset} ends after {len(content)} of {length}")
        return content

    def stream(self, file: RofsFile) -> Iterator[bytes]:
        """The whole file in pieces of at most 1 MiB."""
        for offset in range(0, file.size, STREAM_SIZE):
            yield self.read(file, offset, STREAM_SIZE)

    def resolve(self, path: bytes) -> bytes | None:
        """The path without links that ``path`` means, followed as OSv follows them; None where it leads nowhere."""
        return resolve(path, lambda name: _seen(self.nodes.get(name)))

    def places(self) -> Mapping[Extent, list[bytes]]:
        """Where contents stand in the image, to their last byte, in ascending order, and the paths that have each;
        empty files have none."""
        found: dict[Extent, list[bytes]] = {}
        for path, node in self.nodes.items():
            if isinstance(node, RofsFile) and node.size:
                found.setdefault(Extent(node.offset, node.offset + node.size), []).append(path)
        return {place: sorted(found[place]) for place in sorted(found, key=attrgetter("start"))}

    def stored(self) -> tuple[Extent, ...]:
        """What OSv reads of the image, in whole blocks and ascending order: superblock, tables, contents."""
        tables = self.superblock.tables_block * BLOCK_SIZE
        found = [Extent(0, BLOCK_SIZE), Extent(tables, tables + self.superblock.tables_blocks * BLOCK_SIZE)]
        return merged(
            [*found, *(Extent(each.start, -(-each.end // BLOCK_SIZE) * BLOCK_SIZE) for each in self.places())]
        )

    def digest(self) -> Digest:
        """The digest that names the image (:func:`osvdeploy.osv.rofs.rofs_digest`), from all that it holds."""
        first, count = self.superblock.tables_block, self.superblock.tables_blocks
        head = self._read_at(0, BLOCK_SIZE) + self._read_at(first * BLOCK_SIZE, count * BLOCK_SIZE)
        return rofs_digest(head, (self._digest(place) for place in self.places()))

    def _digest(self, place: Extent) -> Digest:
        digest = hashlib.sha256()
        for piece in self.stream(RofsFile(0, place.start, place.end - place.start)):
            digest.update(piece)
        return Digest(digest.hexdigest())

    def file(self, path: bytes) -> RofsFile | None:
        """The regular file that ``path`` leads to, links followed as OSv follows them; None where there is none."""
        resolved = self.resolve(path)
        node = self.nodes.get(resolved) if resolved is not None else None
        return node if isinstance(node, RofsFile) else None


def _seen(node: RofsNode | None) -> bytes | bool | None:
    return node.target if isinstance(node, RofsSymlink) else None if node is None else isinstance(node, RofsDirectory)


def read_rofs(read_at: ReadAt, size: int) -> RofsReader:
    """Parse the image that ``read_at`` gives, ``size`` bytes long. Raises DiskInvalid that says what is wrong where."""
    superblock = _superblock(read_at(0, BLOCK_SIZE), size)
    length = superblock.tables_blocks * BLOCK_SIZE
    tables = read_at(superblock.tables_block * BLOCK_SIZE, length)
    if len(tables) != length:
        raise DiskInvalid(f"ROFS: the tables end after {len(tables)} of {length} bytes")
    entries, at = _entries(tables, superblock.entries)
    links, at = _links(tables, at, superblock.links)
    inodes = _inodes(tables, at, superblock.inodes)
    nodes = _walk(_Tables(entries, links, inodes, size))
    reader = RofsReader(superblock, nodes, read_at)
    _check_places(reader)
    return reader


def _check_places(reader: RofsReader) -> None:
    tables = reader.superblock.tables_block * BLOCK_SIZE
    end, before = BLOCK_SIZE, "the superblock"
    standing = {Extent(tables, tables + reader.superblock.tables_blocks * BLOCK_SIZE): [b""], **reader.places()}
    for place in sorted(standing, key=attrgetter("start")):
        name = show(standing[place][0]) or "the tables"
        if place.start < end:
            raise DiskInvalid(f"ROFS: {name} at byte {place.start} and {before}, which ends at {end}, overlap")
        end, before = place.end, name


@dataclass(frozen=True, slots=True)
class _Tables:
    entries: list[tuple[int, bytes]]
    links: list[bytes]
    inodes: list[tuple[int, int, int, int]]
    size: int


def _superblock(block: bytes, size: int) -> Superblock:
    if len(block) != BLOCK_SIZE or size < BLOCK_SIZE:
        raise DiskInvalid(f"ROFS: {len(block)} bytes do not hold a superblock")
    magic, version, block_size, *fields = SUPERBLOCK.unpack_from(block)
    if magic != MAGIC:
        raise DiskInvalid(f"ROFS: magic {magic:#x}, not {MAGIC:#x}: another file system, or none")
    if version != VERSION:
        raise DiskInvalid(f"ROFS: version {version}; OSv reads {VERSION}")
    if block_size != BLOCK_SIZE:
        raise DiskInvalid(f"ROFS: blocks of {block_size} bytes; OSv reads blocks of {BLOCK_SIZE}")
    superblock = Superblock(*fields)
    if superblock.tables_blocks == 0 or superblock.tables_blocks > TABLES_LIMIT // BLOCK_SIZE:
        raise DiskInvalid(f"ROFS: {superblock.tables_blocks} blocks of tables")
    if superblock.tables_block == 0 or superblock.tables_block + superblock.tables_blocks > size // BLOCK_SIZE:
        raise DiskInvalid(
            f"ROFS: tables at block {superblock.tables_block}, {superblock.tables_blocks} blocks, "
            f"in an image of {size // BLOCK_SIZE}"
        )
    return superblock


def _entries(tables: bytes, count: int) -> tuple[list[tuple[int, bytes]], int]:
    entries, at = [], 0
    if count * ENTRY_HEAD.size > len(tables):
        raise DiskInvalid(f"ROFS: {count} directory entries do not fit into {len(tables)} bytes of tables")
    for index in range(count):
        if at + ENTRY_HEAD.size > len(tables):
            raise DiskInvalid(f"ROFS: directory entry {index} is cut off")
        inode, length = ENTRY_HEAD.unpack_from(tables, at)
        at += ENTRY_HEAD.size
        name = tables[at : at + length]
        if len(name) != length:
            raise DiskInvalid(f"ROFS: the name of directory entry {index} is cut off")
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise DiskInvalid(f"ROFS: directory entry {index} has the name {show(name)!r}")
        entries.append((inode, name))
        at += length
    return entries, at


def _links(tables: bytes, at: int, count: int) -> tuple[list[bytes], int]:
    links = []
    if count * LINK_HEAD.size > len(tables) - at:
        raise DiskInvalid(f"ROFS: {count} links do not fit into {len(tables) - at} bytes of tables")
    for index in range(count):
        if at + LINK_HEAD.size > len(tables):
            raise DiskInvalid(f"ROFS: link {index} is cut off")
        (length,) = LINK_HEAD.unpack_from(tables, at)
        at += LINK_HEAD.size
        target = tables[at : at + length]
        if len(target) != length:
            raise DiskInvalid(f"ROFS: the target of link {index} is cut off")
        if not target or b"\0" in target:
            raise DiskInvalid(f"ROFS: link {index} has the target {show(target)!r}")
        links.append(target)
        at += length
    return links, at


def _inodes(tables: bytes, at: int, count: int) -> list[tuple[int, int, int, int]]:
    if count == 0 or count * INODE.size > len(tables) - at:
        raise DiskInvalid(f"ROFS: {count} inodes in {len(tables) - at} bytes of tables")
    # One after the other: a hole of zeros that claims to be millions of inodes ends at the first.
    inodes = []
    for number, inode in enumerate(INODE.iter_unpack(tables[at : at + count * INODE.size]), start=1):
        # OSv's cache of file data goes by this number: two inodes with one number would read each other's bytes.
        if inode[1] != number:
            raise DiskInvalid(f"ROFS: inode {number} says it is inode {inode[1]}")
        inodes.append(inode)
    return inodes


def _walk(tables: _Tables) -> dict[bytes, RofsNode]:
    root = _node(tables, ROOT_INODE)
    if not isinstance(root, RofsDirectory):
        raise DiskInvalid("ROFS: inode 1, the root, is not a directory")
    nodes: dict[bytes, RofsNode] = {b"/": root}
    # Each directory may be reached once: that refuses loops, and bounds the walk by the size of the tables.
    seen = {ROOT_INODE}
    pending: list[tuple[bytes, int]] = [(b"", ROOT_INODE)]
    reached = length = 0
    while pending:
        path, number = pending.pop()
        _, _, first, count = tables.inodes[number - 1]
        if first + count > len(tables.entries):
            raise DiskInvalid(f"ROFS: directory inode {number} has entries {first} to {first + count}, past the table")
        reached += count
        if reached > len(tables.entries):
            raise DiskInvalid(f"ROFS: directory inode {number} shares entries with another")
        for inode, name in tables.entries[first : first + count]:
            child = path + b"/" + name
            if len(child) > PATH_LIMIT:
                raise DiskInvalid(
                    f"ROFS: {show(child[:80])}...: a path of {len(child)} bytes; OSv's limit is {PATH_LIMIT}"
                )
            length += len(child)
            if length > PATHS_LIMIT:
                raise DiskInvalid(f"ROFS: the paths of its files take more than {PATHS_LIMIT} bytes")
            if child in nodes:
                raise DiskInvalid(f"ROFS: {show(child)} is there twice")
            if not 1 <= inode <= len(tables.inodes):
                raise DiskInvalid(f"ROFS: {show(child)} has inode {inode} of {len(tables.inodes)}")
            node = _node(tables, inode)
            nodes[child] = node
            if isinstance(node, RofsDirectory):
                if inode in seen:
                    raise DiskInvalid(f"ROFS: directory inode {inode} is reached twice, by {show(child)} too")
                seen.add(inode)
                pending.append((child, inode))
    return nodes


def _node(tables: _Tables, number: int) -> RofsNode:
    mode, _, first, count = tables.inodes[number - 1]
    kind = mode & 0xFFFF_FFFF & KIND_MASK
    if kind == Mode.DIRECTORY:
        return RofsDirectory(number)
    if kind == Mode.SYMLINK:
        if first >= len(tables.links):
            raise DiskInvalid(f"ROFS: inode {number} is link {first} of {len(tables.links)}")
        return RofsSymlink(number, tables.links[first])
    if kind != Mode.FILE:
        raise DiskInvalid(f"ROFS: inode {number} has mode {mode:#x}: no directory, file or link")
    # Judged by its last byte: the data of an empty file may be said to stand anywhere.
    if count and first * BLOCK_SIZE + count > tables.size:
        raise DiskInvalid(f"ROFS: inode {number} has {count} bytes at block {first}, past the image's {tables.size}")
    return RofsFile(number, first * BLOCK_SIZE, count)
