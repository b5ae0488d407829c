"""Lays a tree out as a ROFS: decides every byte of it but what is in its files.

The superblock stands first and the tables right behind it: their place is the same in every version of an image. Equal
contents are stored once. Where contents stand is decided in one of two ways: back to back, which is the smallest image,
or on a disk, where what did not change keeps its place between versions (osvdeploy.osv.rofs.placement).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from osvdeploy.digests import Digest
from osvdeploy.errors import FileTreeInvalid
from osvdeploy.osv.collector import paused
from osvdeploy.osv.filetree import Content, Directory, FileTree, HostFile, Symlink
from osvdeploy.osv.image import Extent
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
)
from osvdeploy.osv.rofs.placement import place
from osvdeploy.osv.rofs.reading import digests_of

_TABLES_BLOCK = 1
_DIRECTORY, _FILE, _SYMLINK = int(Mode.DIRECTORY), int(Mode.FILE), int(Mode.SYMLINK)

NO_CONTENT = -1
"""In place of a file's number: an empty file, which stands nowhere."""


class Placed(NamedTuple):
    """A content from block ``block`` on, its digest, and a file that has it."""

    block: int
    file: HostFile | Content
    sha256: Digest

    @property
    def extent(self) -> Extent:
        """In bytes, up to the end of its last block."""
        start = self.block * BLOCK_SIZE
        return Extent(start, start + blocks(self.file.size) * BLOCK_SIZE)


@dataclass(frozen=True, slots=True)
class Outline:
    """What a tree's paths and sizes decide: all of the tables but where contents stand. ``inodes``: mode, value and
    count of each, where a file's value is its number. ``paths``, ``files`` and ``sizes`` by that number, of all files
    that are not empty, in the tree's order; ``numbers`` has one for each of ``tree.files()``. Plain lists: there are
    50,000 of each, and the collector looks at every object."""

    names: bytes
    entries: int
    links: int
    inodes: Sequence[tuple[int, int, int]]
    paths: Sequence[bytes]
    files: Sequence[HostFile | Content]
    sizes: Sequence[int]
    numbers: Sequence[int]

    @property
    def superblock(self) -> Superblock:
        size = len(self.names) + len(self.inodes) * INODE.size
        return Superblock(_TABLES_BLOCK, blocks(size), self.entries, self.links, len(self.inodes))

    @property
    def size(self) -> int:
        """Bytes of superblock, tables and all files back to back, equal contents as often as they are there."""
        return self.first_block * BLOCK_SIZE + sum(map(blocks, self.sizes)) * BLOCK_SIZE

    @property
    def first_block(self) -> int:
        """The first behind superblock and tables."""
        superblock = self.superblock
        return superblock.tables_block + superblock.tables_blocks

    def places(self, partition: Extent, numbers: Sequence[int] | None = None) -> list[int] | None:
        """In which block of a partition that goes to the disk's end each file stands, or those of ``numbers``; None
        where it is too full for that."""
        paths, sizes = self.paths, self.sizes
        if numbers is not None:
            paths, sizes = [paths[number] for number in numbers], [sizes[number] for number in numbers]
        first = partition.start + self.first_block * BLOCK_SIZE
        places = place(paths, sizes, first=first, end=partition.end)
        return None if places is None else [(at - partition.start) // BLOCK_SIZE for at in places]

    def tables(self, starts: Sequence[int]) -> bytes:
        """Entries, links, inodes; ``starts`` has the block of each file."""
        pack, rows = INODE.pack, [self.names]
        for number, (mode, value, count) in enumerate(self.inodes, start=1):
            if mode == _FILE:
                value = 0 if value == NO_CONTENT else starts[value]
            rows.append(pack(mode, number, value, count))
        return b"".join(rows)


@dataclass(frozen=True, slots=True)
class RofsLayout:
    """Where everything stands. By files' numbers: ``digests``, ``firsts``, the first file with an equal content, and
    ``starts``, the block of each, which is that of the first one."""

    outline: Outline
    digests: Sequence[Digest]
    firsts: Sequence[int]
    starts: Sequence[int]

    @property
    def superblock(self) -> Superblock:
        return self.outline.superblock

    @property
    def contents(self) -> list[Placed]:
        """All different contents that are not empty, in ascending order of their places."""
        starts, files, digests = self.starts, self.outline.files, self.digests
        return [Placed(starts[number], files[number], digests[number]) for number in self.ascending()]

    def distinct(self) -> list[int]:
        """The first files of all different contents, by their numbers, in the tree's order."""
        return [number for number, first in enumerate(self.firsts) if number == first]

    def ascending(self) -> list[int]:
        """Likewise, in the order of their places."""
        return sorted(self.distinct(), key=self.starts.__getitem__)

    @property
    def tables(self) -> bytes:
        """Entries, links, inodes, and zeros up to the end of their last block."""
        return self.outline.tables(self.starts).ljust(self.superblock.tables_blocks * BLOCK_SIZE, b"\0")

    @property
    def size(self) -> int:
        """Bytes up to the end of the last thing that is stored, a multiple of 512."""
        starts, sizes = self.starts, self.outline.sizes
        if not starts:
            return self.outline.first_block * BLOCK_SIZE
        last = max(range(len(starts)), key=starts.__getitem__)
        return (starts[last] + blocks(sizes[last])) * BLOCK_SIZE

    @property
    def stored(self) -> tuple[Extent, ...]:
        """What OSv reads, in whole blocks and ascending order: superblock, tables, contents."""
        found: list[Extent] = []
        start, end = 0, self.outline.first_block * BLOCK_SIZE
        for number in self.ascending():
            at = self.starts[number] * BLOCK_SIZE
            if at != end:
                found.append(Extent(start, end))
                start = at
            end = at + blocks(self.outline.sizes[number]) * BLOCK_SIZE
        return (*found, Extent(start, end))

    @paused()
    def on_disk(self, partition: Extent, starts: Sequence[int] | None = None) -> RofsLayout:
        """The same tree in a partition that goes to the disk's end, each file at a place of its own choice; back to
        back as before where the partition is too full for that. ``starts``: the places, where they are known.

        A file has a place also where it is equal to another, which is then a hole: whether two are equal decides
        nothing about where others stand. Where there is no room for holes, it does.
        """
        outline, firsts = self.outline, self.firsts
        if starts is None:
            starts = outline.places(partition)
        if starts is not None:
            return RofsLayout(outline, self.digests, firsts, [starts[first] for first in firsts])
        distinct = self.distinct()
        if len(distinct) == len(firsts) or (chosen := outline.places(partition, distinct)) is None:
            return self
        start_of = dict(zip(distinct, chosen, strict=True))
        return RofsLayout(outline, self.digests, firsts, [start_of[first] for first in firsts])


@paused()
def lay_out(tree: FileTree, digests: Sequence[Digest] | None = None, *, outline: Outline | None = None) -> RofsLayout:
    """Decide every byte but the contents of files: back to back, the smallest image. See :meth:`RofsLayout.on_disk`.

    ``digests``: sha256 of what ``tree.files()`` hold, in that order; None reads them all. ``outline``: that of the
    tree, where it is known.

    Raises FileTreeInvalid when the tables grow past what OSv can load, SourceChanged where files are read.
    """
    if outline is None:
        outline = outline_of(tree)
    if digests is None:
        digests = digests_of([file for _, file in tree.files()])
    wanted = [sha256 for number, sha256 in zip(outline.numbers, digests, strict=True) if number != NO_CONTENT]
    known: dict[Digest, int] = {}
    firsts = [known.setdefault(sha256, number) for number, sha256 in enumerate(wanted)]
    at, starts = outline.first_block, []
    for number, first in enumerate(firsts):
        if first == number:
            starts.append(at)
            at += blocks(outline.sizes[number])
        else:
            starts.append(starts[first])
    return RofsLayout(outline, wanted, firsts, starts)


@paused()
def outline_of(tree: FileTree) -> Outline:
    """Raises FileTreeInvalid when the tables grow past what OSv can load."""
    rows = _rows(tree)
    paths: list[bytes] = []
    files: list[HostFile | Content] = []
    sizes: list[int] = []
    numbers: list[int] = []
    entries: list[bytes] = []
    links: list[bytes] = []
    inodes: list[tuple[int, int, int]] = []
    # Lean, since it is done for 50,000 files while nothing else is.
    for path, entry in tree.entries.items():
        if isinstance(entry, Directory):
            inodes.append((_DIRECTORY, len(entries), len(rows[path])))
            entries += rows[path]
        elif isinstance(entry, Symlink):
            inodes.append((_SYMLINK, len(links), 1))
            links.append(LINK_HEAD.pack(len(entry.target)) + entry.target)
        else:
            size, number = entry.size, NO_CONTENT
            if size:
                number = len(sizes)
                paths.append(path)
                files.append(entry)
                sizes.append(size)
            numbers.append(number)
            inodes.append((_FILE, number, size))
    names = b"".join(entries + links)
    outline = Outline(names, len(entries), len(links), inodes, paths, files, sizes, numbers)
    superblock = outline.superblock
    if superblock.tables_blocks * BLOCK_SIZE > TABLES_LIMIT or superblock.inodes > NODES_LIMIT:
        raise FileTreeInvalid(
            f"{superblock.inodes} files, directories and links take {superblock.tables_blocks * BLOCK_SIZE} bytes of "
            f"ROFS tables; at most {NODES_LIMIT} and {TABLES_LIMIT} bytes",
            hint="pack them into fewer files, or leave some out with `exclude`",
        )
    return outline


def _rows(tree: FileTree) -> Mapping[bytes, list[bytes]]:
    """Each directory's part of the table of entries, in the tree's order."""
    rows: dict[bytes, list[bytes]] = {path: [] for path, entry in tree.entries.items() if type(entry) is Directory}
    pack = ENTRY_HEAD.pack
    # The root comes first, and is in no directory.
    for number, path in enumerate(itertools.islice(tree.entries, 1, None), start=2):
        directory, _, name = path.rpartition(b"/")
        # OSv skips ahead by this length in bytes, so it must be that of the bytes, not of the text.
        rows[directory or b"/"].append(pack(number, len(name)) + name)
    return rows
