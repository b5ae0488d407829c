"""Lays a tree out as a ROFS, and writes it.

The superblock stands first and the tables right behind it: their place is the same in every version of an image. Equal
contents are stored once. Where contents stand is decided in one of two ways: back to back, which is the smallest image,
or on a disk, where what did not change keeps its place between versions (osvdeploy.osv.rofs.placement). Both follow
from paths and contents alone.

Every byte is known from the contents' digests and sizes before one of them is read, and so is the image's digest.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from osvdeploy.digests import Digest
from osvdeploy.errors import FileTreeInvalid
from osvdeploy.osv.collector import paused
from osvdeploy.osv.contents import pwrite_all, write_sources
from osvdeploy.osv.filetree import Content, Directory, FileTree, HostFile, Symlink
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs.fingerprint import Fingerprint, fingerprints, told
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
from osvdeploy.osv.workers import BATCH, FILE_WEIGHT, Crew, in_batches, worth

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
    value is the index of its content. ``files``, ``prints`` and ``sizes`` are of contents that are all different, in
    the tree's order. Plain lists: there are 50,000 of each, and the collector looks at every object."""

    names: bytes
    entries: int
    links: int
    inodes: Sequence[tuple[int, int, int]]
    files: Sequence[HostFile | Content]
    prints: Sequence[Fingerprint]
    sizes: Sequence[int]

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
        starts = self._starts
        if not starts:
            return (self.superblock.tables_block + self.superblock.tables_blocks) * BLOCK_SIZE
        last = max(range(len(starts)), key=starts.__getitem__)
        return (starts[last] + blocks(self._tree.sizes[last])) * BLOCK_SIZE

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
            end = at + blocks(self._tree.sizes[index]) * BLOCK_SIZE
        return (*found, Extent(start, end))

    @paused()
    def on_disk(self, partition: Extent) -> RofsLayout:
        """The same tree in a partition that goes to the disk's end, each content at a place of its own choice; back to
        back as before where the partition is too full for that."""
        tree = self._tree
        first = partition.start + (self.superblock.tables_block + self.superblock.tables_blocks) * BLOCK_SIZE
        places = place(tree.sizes, tree.prints, first=first, end=partition.end)
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


@paused()
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
    first = superblock.tables_block + superblock.tables_blocks
    *starts, _ = itertools.accumulate(map(blocks, parts.sizes), initial=first)
    return RofsLayout(superblock, parts, starts)


def write_at(layout: RofsLayout, write: WriteAt) -> Rofs:
    """Write all that is stored, in ascending order and in pieces of at most 1 MiB; between them nothing is written.

    Raises SourceChanged when a file is no longer what it was when the tree was made, and what ``write`` raises.
    """
    head, order = _write_head(layout, write), layout._ascending()
    for batch in _batches(layout, order):
        _write_batch(layout, batch, write)
    return _written(layout, head, order)


@paused()
def write_on_disk(
    layout: RofsLayout,
    fd: int,
    partition: Extent,
    written: Callable[[int], object] = lambda count: None,
    *,
    workers: int | None = None,
) -> tuple[RofsLayout, Rofs]:
    """Write the tree into ``partition`` of the disk in the file ``fd``, each content at a place of its own choice, in
    no certain order; and say where all stands there (see :meth:`RofsLayout.on_disk`).

    ``written`` is told how many bytes of the image are written, each time that it is some MiB more and at least ten
    times a second, and may raise. ``workers`` says how many processes help; None is as many as are worth it.

    Raises SourceChanged, OSError and what ``written`` raises; nobody writes then any more.
    """
    if workers is None:
        workers = worth(layout.size + len(layout._tree.files) * FILE_WEIGHT)
    with Crew(workers, ["write", str(fd), str(partition.start)], [fd]) as crew:
        # They start while places are chosen.
        crew.start()
        writing = _Writing(layout.on_disk(partition), fd, partition.start, written)
        crew.do(writing, _batches(writing.layout, writing.of(HostFile)))
    return writing.layout, writing.rofs


class _Writing:
    """What is written by this process, and what workers are told and say."""

    def __init__(self, layout: RofsLayout, fd: int, start: int, written: Callable[[int], object]) -> None:
        self.layout, self._fd, self._start, self._written = layout, fd, start, written
        self._order = layout._ascending()
        self._count = 0
        self.rofs = Rofs(0, Digest(""), 0)

    def of(self, kind: type[HostFile | Content]) -> Iterator[int]:
        # In the tree's order and not in that of places: it takes less to open files of one directory one after another.
        return (index for index, file in enumerate(self.layout._tree.files) if type(file) is kind)

    def meanwhile(self) -> Iterator[None]:
        """Write what is in this process already. All else is read by whoever writes it."""
        head = _write_head(self.layout, self._write)
        self._count += len(head)
        yield
        self.rofs = _written(self.layout, head, self._order)
        for batch in _batches(self.layout, self.of(Content)):
            self.done(batch, self.alone(batch))
            yield

    def told(self, batch: _Batch) -> tuple[object, ...]:
        places = array("Q", _blocks(self.layout, batch)).tobytes()
        return (*told(self.layout._tree.files, batch.indices), places, *batch.part)

    def alone(self, batch: _Batch) -> bool:
        _write_batch(self.layout, batch, self._write)
        return True

    def done(self, batch: _Batch, answer: bool) -> None:
        self._count += batch.size
        self.going_on()

    def going_on(self) -> None:
        if self._count:
            self._written(self._count)

    def _write(self, offset: int, view: memoryview) -> None:
        pwrite_all(self._fd, view, self._start + offset)
        self.going_on()


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


def _write_head(layout: RofsLayout, write: WriteAt) -> bytes:
    """Superblock and tables."""
    head = layout.superblock.pack() + layout.tables
    for at in range(0, len(head), _PIECE):
        write(at, memoryview(head)[at : at + _PIECE])
    return head


class _Batch(NamedTuple):
    """Contents by their indices, the part of each that is wanted unless all is, and how many bytes of whole blocks
    that takes."""

    indices: list[int]
    size: int
    part: tuple[int, int] | tuple[()] = ()


def _batches(layout: RofsLayout, indices: Iterable[int]) -> Iterator[_Batch]:
    """Ascending by place within each. A large content is cut into several, which more than one can write."""
    sizes, starts = layout._tree.sizes, layout._starts
    for batch in in_batches(indices, sizes):
        # A large one is the last of its batch.
        cut = batch.pop() if sizes[batch[-1]] > BATCH else None
        if batch:
            batch.sort(key=starts.__getitem__)
            yield _Batch(batch, sum([-(-sizes[index] // BLOCK_SIZE) for index in batch]) * BLOCK_SIZE)
        if cut is not None:
            for start in range(0, sizes[cut], BATCH):
                end = min(start + BATCH, sizes[cut])
                yield _Batch([cut], blocks(end - start) * BLOCK_SIZE, (start, end))


def _blocks(layout: RofsLayout, batch: _Batch) -> list[int]:
    """Where each goes."""
    begin = batch.part[0] // BLOCK_SIZE if batch.part else 0
    return [layout._starts[index] + begin for index in batch.indices]


def _write_batch(layout: RofsLayout, batch: _Batch, write: WriteAt) -> None:
    sources = [layout._tree.files[index].source for index in batch.indices]
    write_sources(sources, _blocks(layout, batch), write, *batch.part)


def _written(layout: RofsLayout, head: bytes, order: Sequence[int]) -> Rofs:
    prints = layout._tree.prints
    return Rofs(layout.size, rofs_digest(head, [prints[index].sha256 for index in order]), len(order))


def _parts(tree: FileTree, prints: Sequence[Fingerprint]) -> _Tree:
    rows = _rows(tree)
    following = iter(prints)
    files: list[HostFile | Content] = []
    different: list[Fingerprint] = []
    sizes: list[int] = []
    known: dict[Digest, int] = {}
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
            fingerprint = next(following)
            size, index = entry.size, _NO_CONTENT
            if size:
                index = known.setdefault(fingerprint.sha256, len(sizes))
                if index == len(sizes):
                    files.append(entry)
                    different.append(fingerprint)
                    sizes.append(size)
            inodes.append((_FILE, index, size))
    return _Tree(b"".join(entries + links), len(entries), len(links), inodes, files, different, sizes)


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
