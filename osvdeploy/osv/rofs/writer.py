"""Lays a tree out as a ROFS, and writes it.

The superblock stands first and the tables right behind it: their place is the same in every version of an image. Equal
contents are stored once. Where contents stand is decided in one of two ways: back to back, which is the smallest image,
or on a disk, where what did not change keeps its place between versions (osvdeploy.osv.rofs.placement). Both follow
from paths and contents alone.

Every byte is known from the contents' digests and sizes before one of them is read, and so is the image's digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, cast

from osvdeploy.digests import Digest
from osvdeploy.errors import FileTreeInvalid
from osvdeploy.osv.contents import read_files
from osvdeploy.osv.filetree import Content, Directory, FileTree, HostFile, Symlink
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs.fingerprint import Fingerprint, fingerprints
from osvdeploy.osv.rofs.format import (
    BLOCK_SIZE,
    ENTRY_HEAD,
    INODE,
    LINK_HEAD,
    NODES_LIMIT,
    TABLES_LIMIT,
    Mode,
    Superblock,
    blocks,
    rofs_digest,
)
from osvdeploy.osv.rofs.placement import place

_TABLES_BLOCK = 1
_PIECE = 1 << 20
_DIRECTORY, _FILE, _SYMLINK = int(Mode.DIRECTORY), int(Mode.FILE), int(Mode.SYMLINK)

_NO_CONTENT = -1
"""In place of a content's index: an empty file, which stands nowhere."""

WriteAt = Callable[[int, memoryview], object]
"""Takes bytes of the image by their offset, all of them, before it returns."""

Sink = Callable[[memoryview], object]
"""Takes the next bytes of the image, all of them, before it returns."""


class Placed(NamedTuple):
    """A content from block ``block`` on, and a file that has it."""

    block: int
    file: HostFile | Content
    fingerprint: Fingerprint

    @property
    def extent(self) -> Extent:
        """In bytes, up to the end of its last block."""
        start = self.block * BLOCK_SIZE
        return Extent(start, start + blocks(self.file.size) * BLOCK_SIZE)


@dataclass(frozen=True, slots=True)
class _Tree:
    """What the tables say, but for where contents stand. ``inodes``: mode, value and count of each, where a file's
    value is the index of its content. ``files`` and ``prints`` are of contents that are all different, in the tree's
    order. Plain lists: there are 50,000 of each, and the collector looks at every object."""

    names: bytes
    entries: int
    links: int
    inodes: Sequence[tuple[int, int, int]]
    files: Sequence[HostFile | Content]
    prints: Sequence[Fingerprint]

    @property
    def superblock(self) -> Superblock:
        size = len(self.names) + len(self.inodes) * INODE.size
        return Superblock(_TABLES_BLOCK, blocks(size), self.entries, self.links, len(self.inodes))

    def tables(self, starts: Sequence[int]) -> bytes:
        """Entries, links, inodes; ``starts`` has the block of each content."""
        pack, rows = INODE.pack, [self.names]
        for number, (mode, value, count) in enumerate(self.inodes, start=1):
            if mode == _FILE:
                value = 0 if value == _NO_CONTENT else starts[value]
            rows.append(pack(mode, number, value, count))
        return b"".join(rows)


@dataclass(frozen=True, slots=True)
class RofsLayout:
    """Where everything stands. ``starts`` has the block of each content of the tree."""

    superblock: Superblock
    _tree: _Tree
    _starts: Sequence[int]

    @property
    def contents(self) -> list[Placed]:
        """All different contents that are not empty, in ascending order of their places."""
        starts, files, prints = self._starts, self._tree.files, self._tree.prints
        return [Placed(starts[index], files[index], prints[index]) for index in self._ascending()]

    def _ascending(self) -> list[int]:
        return sorted(range(len(self._starts)), key=self._starts.__getitem__)

    @property
    def tables(self) -> bytes:
        """Entries, links, inodes, and zeros up to the end of their last block."""
        return self._tree.tables(self._starts).ljust(self.superblock.tables_blocks * BLOCK_SIZE, b"\0")

    @property
    def size(self) -> int:
        """Bytes up to the end of the last thing that is stored, a multiple of 512."""
        return self.stored[-1].end

    @property
    def stored(self) -> tuple[Extent, ...]:
        """What OSv reads, in whole blocks and ascending order: superblock, tables, contents."""
        found: list[Extent] = []
        start, end = 0, (self.superblock.tables_block + self.superblock.tables_blocks) * BLOCK_SIZE
        for index in self._ascending():
            at = self._starts[index] * BLOCK_SIZE
            if at != end:
                found.append(Extent(start, end))
                start = at
            end = at + blocks(self._tree.files[index].size) * BLOCK_SIZE
        return (*found, Extent(start, end))

    def on_disk(self, partition: Extent) -> RofsLayout:
        """The same tree in a partition that goes to the disk's end, each content at a place of its own choice; back to
        back as before where the partition is too full for that."""
        tree = self._tree
        first = partition.start + (self.superblock.tables_block + self.superblock.tables_blocks) * BLOCK_SIZE
        places = place([file.size for file in tree.files], tree.prints, first=first, end=partition.end)
        if places is None:
            return self
        starts = [(at - partition.start) // BLOCK_SIZE for at in places]
        return RofsLayout(self.superblock, tree, starts)


@dataclass(frozen=True, slots=True)
class Rofs:
    """A ROFS that was written: ``size`` in bytes to the end of the last thing stored, ``sha256`` as
    :func:`rofs_digest` defines it, ``contents`` the number of different ones."""

    size: int
    sha256: Digest
    contents: int


def lay_out(tree: FileTree, prints: Sequence[Fingerprint] | None = None) -> RofsLayout:
    """Decide every byte but the contents of files: back to back, the smallest image. See :meth:`RofsLayout.on_disk`.

    ``prints``: what ``tree.files()`` hold, in that order; None reads them all.

    Raises FileTreeInvalid when the tables grow past what OSv can load, SourceChanged where files are read.
    """
    parts = _parts(tree, fingerprints([file for _, file in tree.files()]) if prints is None else prints)
    superblock = parts.superblock
    if superblock.tables_blocks * BLOCK_SIZE > TABLES_LIMIT or superblock.inodes > NODES_LIMIT:
        raise FileTreeInvalid(
            f"{superblock.inodes} files, directories and links take {superblock.tables_blocks * BLOCK_SIZE} bytes of "
            f"ROFS tables; at most {NODES_LIMIT} and {TABLES_LIMIT} bytes",
            hint="pack them into fewer files, or leave some out with `exclude`",
        )
    starts, at = [], superblock.tables_block + superblock.tables_blocks
    for file in parts.files:
        starts.append(at)
        at += blocks(file.size)
    return RofsLayout(superblock, parts, starts)


def write_at(layout: RofsLayout, write: WriteAt) -> Rofs:
    """Write all that is stored, in ascending order and in pieces of at most 1 MiB; between them nothing is written.

    Raises SourceChanged when a file is no longer what it was when the tree was made, and what ``write`` raises.
    """
    head = layout.superblock.pack() + layout.tables
    for at in range(0, len(head), _PIECE):
        write(at, memoryview(head)[at : at + _PIECE])
    contents = layout.contents
    at, before = 0, -1
    with closing(read_files([content.file for content in contents])) as buffers:
        for view, pieces in buffers:
            # Contents that follow one another on the disk do so in the buffer too: they are written in one call.
            begin = end = target = 0
            for index, start, stop in pieces:
                if index != before:
                    at, before = contents[index].block * BLOCK_SIZE, index
                if begin == end:
                    begin, target = start, at
                elif target + (start - begin) != at:
                    write(target, view[begin:end])
                    begin, target = start, at
                at += stop - start
                # With the zeros that lead to the end of its last block.
                end = -(-stop // BLOCK_SIZE) * BLOCK_SIZE
            if end > begin:
                write(target, view[begin:end])
    digest = rofs_digest(head, (content.fingerprint.sha256 for content in contents))
    return Rofs(layout.size, digest, len(contents))


def write_rofs(layout: RofsLayout, sink: Sink) -> Rofs:
    """As :func:`write_at`, as one stream from the image's first byte to its last, with zeros for what is not stored."""
    end = 0

    def write(offset: int, view: memoryview) -> None:
        nonlocal end
        for at in range(end, offset, _PIECE):
            sink(memoryview(bytes(min(_PIECE, offset - at))))
        sink(view)
        end = offset + len(view)

    return write_at(layout, write)


def _parts(tree: FileTree, prints: Sequence[Fingerprint]) -> _Tree:
    children = _children(tree)
    numbers = {path: number for number, path in enumerate(tree.entries, start=1)}
    following = iter(prints)
    files: list[HostFile | Content] = []
    different: list[Fingerprint] = []
    known: dict[Digest, int] = {}
    entries: list[bytes] = []
    links: list[bytes] = []
    inodes: list[tuple[int, int, int]] = []
    entry_count = 0
    pack_entry = ENTRY_HEAD.pack
    for path, entry in tree.entries.items():
        kind = type(entry)
        if kind is Directory:
            paths = children[path]
            inodes.append((_DIRECTORY, entry_count, len(paths)))
            start = len(path) + (path != b"/")
            for child in paths:
                # OSv skips ahead by this length in bytes, so it must be that of the bytes, not of the text.
                entries.append(pack_entry(numbers[child], len(child) - start))
                entries.append(child[start:])
            entry_count += len(paths)
        elif kind is Symlink:
            target = cast(Symlink, entry).target
            inodes.append((_SYMLINK, len(links) // 2, 1))
            links.append(LINK_HEAD.pack(len(target)))
            links.append(target)
        else:
            file, fingerprint = cast("HostFile | Content", entry), next(following)
            size, index = file.size, _NO_CONTENT
            if size:
                index = known.setdefault(fingerprint.sha256, len(files))
                if index == len(files):
                    files.append(file)
                    different.append(fingerprint)
            inodes.append((_FILE, index, size))
    return _Tree(b"".join([*entries, *links]), entry_count, len(links) // 2, inodes, files, different)


def _children(tree: FileTree) -> Mapping[bytes, list[bytes]]:
    """Each directory's paths, in the tree's order."""
    children: dict[bytes, list[bytes]] = {path: [] for path, entry in tree.entries.items() if type(entry) is Directory}
    for path in tree.entries:
        if path != b"/":
            children[path[: path.rfind(b"/")] or b"/"].append(path)
    return children
