"""Reads a ROFS as strictly as OSv's newest driver, and then some: every number is checked before it is believed.

Works on anything that reads at an offset: a file, a disk in a cloud. The tables are read once; contents are read when
they are asked for.
"""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Protocol, TypeAlias

from osvdeploy.digests import Digest
from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.bounds import EXPANSION, reading_limit
from osvdeploy.osv.filetree import PATH_LIMIT, resolve
from osvdeploy.osv.image import Extent, merged
from osvdeploy.osv.names import escaped
from osvdeploy.osv.rofs.format import (
    BLOCK_SIZE,
    ENTRY_HEAD,
    INODE,
    KIND_MASK,
    LINK_HEAD,
    MAGIC,
    NODES_LIMIT,
    ROOT_INODE,
    SUPERBLOCK,
    TABLES_LIMIT,
    VERSION,
    Mode,
    Superblock,
    blocks,
    rofs_digest,
)
from osvdeploy.sizes import format_size

STREAM_SIZE = 1 << 20
"""Bytes per piece when a file is streamed."""

_ZEROS = bytes(STREAM_SIZE)

PATHS_LIMIT = 256 << 20
"""Bytes of all paths: a million files with 250 each."""

PATHS_EXPANSION, PATHS_ALWAYS = 8, 4 << 20
"""And no more than so many times the tables, from so many bytes on: a file takes 42 bytes of them and its name, so that
is a path of 400 bytes for each. Below one directory with a name of 4,000, a table of 1 MiB could ask for 300 MiB."""

ReadAt = Callable[[int, int], bytes]
"""``(offset, length)`` to bytes; fewer only at the end of what there is."""


class Stored(Protocol):
    """What an image knows of how it is stored."""

    def data(self, start: int, end: int) -> Iterator[Extent]:
        """The parts of ``start`` to ``end`` that may hold anything but zeros, ascending, none of them empty."""
        ...

    def held(self, start: int, end: int) -> int:
        """Bytes of its file that ``start`` to ``end`` are made of."""
        ...


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
    _stored: Stored | None = None

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

    def pieces(self, file: RofsFile, *, check: Callable[[], object] = lambda: None) -> Iterator[tuple[int, bytes]]:
        """The file's pieces of 1 MiB that are not all zeros, and where in the file each begins. Holes are not read: a
        few bytes of image may speak of a file of terabytes. ``check`` is called before each read, and may raise."""
        begin, end, next_piece = file.offset, file.offset + file.size, 0
        for each in (Extent(begin, end),) if self._stored is None else self._stored.data(begin, end):
            first = max(next_piece, (each.start - begin) // STREAM_SIZE)
            next_piece = -(-(each.end - begin) // STREAM_SIZE)
            for offset in range(first * STREAM_SIZE, next_piece * STREAM_SIZE, STREAM_SIZE):
                check()
                piece = self.read(file, offset, STREAM_SIZE)
                if piece != _ZEROS[: len(piece)]:
                    yield offset, piece

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

    def contents(self) -> list[tuple[int, int]]:
        """Where each content that is not empty begins, and its size in bytes; ascending, each once."""
        files = (node for node in self.nodes.values() if isinstance(node, RofsFile) and node.size)
        return sorted({(node.offset, node.size) for node in files})

    def stored(self) -> tuple[Extent, ...]:
        """What OSv reads of the image, in whole blocks and ascending order: superblock, tables, contents."""
        tables = self.superblock.tables_block * BLOCK_SIZE
        found = [Extent(0, BLOCK_SIZE), Extent(tables, tables + self.superblock.tables_blocks * BLOCK_SIZE)]
        return merged([*found, *(Extent(start, start + blocks(size) * BLOCK_SIZE) for start, size in self.contents())])

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


def read_rofs(read_at: ReadAt, size: int, *, stored: Stored | None = None) -> RofsReader:
    """Parse the image that ``read_at`` gives, ``size`` bytes long. With ``stored``, tables that are mostly hole, or
    compressed out of all measure, are not read into memory.

    Raises DiskInvalid that says what is wrong where.
    """
    superblock = _superblock(read_at(0, BLOCK_SIZE), size)
    start, length = superblock.tables_block * BLOCK_SIZE, superblock.tables_blocks * BLOCK_SIZE
    if stored is not None and length > reading_limit(held := stored.held(start, start + length)):
        raise DiskInvalid(
            f"ROFS: tables of {format_size(length)}, of which the file holds {format_size(held)}: more than "
            f"{EXPANSION} times that is not read (a compressed image can be made raw: qemu-img convert -O raw)"
        )
    content = read_at(start, length)
    if len(content) != length:
        raise DiskInvalid(f"ROFS: the tables end after {len(content)} of {length} bytes")
    nodes = _walk(_tables(content, superblock, size))
    reader = RofsReader(superblock, nodes, read_at, stored)
    _check_places(reader)
    return reader


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
    if (most := max(superblock.entries, superblock.links, superblock.inodes)) > NODES_LIMIT:
        raise DiskInvalid(f"ROFS: {most} files, directories or links; no more than {NODES_LIMIT} are read")
    return superblock


@dataclass(frozen=True, slots=True)
class _Tables:
    """The tables as they are stored, and where each entry and link begins in them: a row takes a tenth of what it would
    as a value. ``inodes`` is where their table begins."""

    content: bytes
    entries: array[int]
    links: array[int]
    inodes: int
    count: int
    size: int

    def entry(self, index: int) -> tuple[int, bytes]:
        """Inode and name."""
        at = self.entries[index]
        inode, length = ENTRY_HEAD.unpack_from(self.content, at)
        at += ENTRY_HEAD.size
        return inode, self.content[at : at + length]

    def link(self, index: int) -> bytes:
        at = self.links[index]
        (length,) = LINK_HEAD.unpack_from(self.content, at)
        at += LINK_HEAD.size
        return self.content[at : at + length]

    def inode(self, number: int) -> tuple[int, int, int]:
        """Mode, and two numbers that mean another thing in each kind."""
        mode, _, first, count = INODE.unpack_from(self.content, self.inodes + (number - 1) * INODE.size)
        return mode, first, count


def _tables(content: bytes, superblock: Superblock, size: int) -> _Tables:
    entries, at = _entries(content, superblock.entries)
    links, at = _links(content, at, superblock.links)
    _check_inodes(content, at, superblock.inodes)
    return _Tables(content, entries, links, at, superblock.inodes, size)


def _entries(tables: bytes, count: int) -> tuple[array[int], int]:
    entries, at = array("I"), 0
    if count * ENTRY_HEAD.size > len(tables):
        raise DiskInvalid(f"ROFS: {count} directory entries do not fit into {len(tables)} bytes of tables")
    for index in range(count):
        if at + ENTRY_HEAD.size > len(tables):
            raise DiskInvalid(f"ROFS: directory entry {index} is cut off")
        entries.append(at)
        _, length = ENTRY_HEAD.unpack_from(tables, at)
        at += ENTRY_HEAD.size
        name = tables[at : at + length]
        if len(name) != length:
            raise DiskInvalid(f"ROFS: the name of directory entry {index} is cut off")
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise DiskInvalid(f"ROFS: directory entry {index} has the name '{escaped(name)}'")
        at += length
    return entries, at


def _links(tables: bytes, at: int, count: int) -> tuple[array[int], int]:
    links = array("I")
    if count * LINK_HEAD.size > len(tables) - at:
        raise DiskInvalid(f"ROFS: {count} links do not fit into {len(tables) - at} bytes of tables")
    for index in range(count):
        if at + LINK_HEAD.size > len(tables):
            raise DiskInvalid(f"ROFS: link {index} is cut off")
        links.append(at)
        (length,) = LINK_HEAD.unpack_from(tables, at)
        at += LINK_HEAD.size
        target = tables[at : at + length]
        if len(target) != length:
            raise DiskInvalid(f"ROFS: the target of link {index} is cut off")
        if not target or b"\0" in target:
            raise DiskInvalid(f"ROFS: link {index} has the target '{escaped(target)}'")
        at += length
    return links, at


def _check_inodes(tables: bytes, at: int, count: int) -> None:
    if count == 0 or count * INODE.size > len(tables) - at:
        raise DiskInvalid(f"ROFS: {count} inodes in {len(tables) - at} bytes of tables")
    # One after the other: a hole of zeros that claims to be millions of inodes ends at the first.
    for number, inode in enumerate(INODE.iter_unpack(memoryview(tables)[at : at + count * INODE.size]), start=1):
        # OSv's cache of file data goes by this number: two inodes with one number would read each other's bytes.
        if inode[1] != number:
            raise DiskInvalid(f"ROFS: inode {number} says it is inode {inode[1]}")


def _walk(tables: _Tables) -> dict[bytes, RofsNode]:
    root = _node(tables, ROOT_INODE)
    if not isinstance(root, RofsDirectory):
        raise DiskInvalid("ROFS: inode 1, the root, is not a directory")
    nodes: dict[bytes, RofsNode] = {b"/": root}
    # Each directory may be reached once: that refuses loops, and bounds the walk by the size of the tables. A file may
    # be, by as many names as it has.
    known: dict[int, RofsNode] = {ROOT_INODE: root}
    pending: list[tuple[bytes, int]] = [(b"", ROOT_INODE)]
    entries = len(tables.entries)
    reached = length = 0
    longest = min(PATHS_LIMIT, max(PATHS_ALWAYS, PATHS_EXPANSION * len(tables.content)))
    while pending:
        path, number = pending.pop()
        _, first, count = tables.inode(number)
        if first + count > entries:
            raise DiskInvalid(f"ROFS: directory inode {number} has entries {first} to {first + count}, past the table")
        reached += count
        if reached > entries:
            raise DiskInvalid(f"ROFS: directory inode {number} shares entries with another")
        for index in range(first, first + count):
            inode, name = tables.entry(index)
            child = path + b"/" + name
            if len(child) > PATH_LIMIT:
                raise DiskInvalid(
                    f"ROFS: {escaped(child[:80])}...: a path of {len(child)} bytes; OSv's limit is {PATH_LIMIT}"
                )
            length += len(child)
            if length > longest:
                raise DiskInvalid(f"ROFS: the paths of its files take more than {longest} bytes")
            if child in nodes:
                raise DiskInvalid(f"ROFS: {escaped(child)} is there twice")
            if not 1 <= inode <= tables.count:
                raise DiskInvalid(f"ROFS: {escaped(child)} has inode {inode} of {tables.count}")
            node = known.get(inode)
            if node is None:
                node = known[inode] = _node(tables, inode)
                if isinstance(node, RofsDirectory):
                    pending.append((child, inode))
            elif isinstance(node, RofsDirectory):
                raise DiskInvalid(f"ROFS: directory inode {inode} is reached twice, by {escaped(child)} too")
            nodes[child] = node
    return nodes


def _node(tables: _Tables, number: int) -> RofsNode:
    mode, first, count = tables.inode(number)
    kind = mode & 0xFFFF_FFFF & KIND_MASK
    if kind == Mode.DIRECTORY:
        return RofsDirectory(number)
    if kind == Mode.SYMLINK:
        if first >= len(tables.links):
            raise DiskInvalid(f"ROFS: inode {number} is link {first} of {len(tables.links)}")
        return RofsSymlink(number, tables.link(first))
    if kind != Mode.FILE:
        raise DiskInvalid(f"ROFS: inode {number} has mode {mode:#x}: no directory, file or link")
    # Judged by its last byte: the data of an empty file may be said to stand anywhere.
    if count and first * BLOCK_SIZE + count > tables.size:
        raise DiskInvalid(f"ROFS: inode {number} has {count} bytes at block {first}, past the image's {tables.size}")
    return RofsFile(number, first * BLOCK_SIZE, count)


def _check_places(reader: RofsReader) -> None:
    tables = reader.superblock.tables_block * BLOCK_SIZE
    end, before = BLOCK_SIZE, _NAMELESS
    own = [(tables, reader.superblock.tables_blocks * BLOCK_SIZE)]
    for start, size in heapq.merge(own, reader.contents(), key=itemgetter(0)):
        if start < end:
            raise DiskInvalid(
                f"ROFS: {_what(reader, start, size)} at byte {start} and "
                f"{'the superblock' if before is _NAMELESS else _what(reader, *before)}, which ends at {end}, overlap"
            )
        end, before = start + size, (start, size)


_NAMELESS = (0, 0)


def _what(reader: RofsReader, start: int, size: int) -> str:
    for path, node in reader.nodes.items():
        if isinstance(node, RofsFile) and (node.offset, node.size) == (start, size):
            return escaped(path)
    return "the tables"
