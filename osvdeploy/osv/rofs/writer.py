"""Writes a ROFS in one sequential pass: superblock, contents in the order of the tree, tables.

The whole layout follows from names and sizes, so it is known before the first byte is read. One thread fills large
buffers and writes them, another hashes them; both spend their time outside the interpreter lock. Memory is the tables
and the buffers, whatever the sizes of the files.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from osvdeploy.digests import Digest
from osvdeploy.errors import FileTreeInvalid, SourceChanged
from osvdeploy.osv.filetree import Content, Directory, FileTree, HostFile, Symlink, show, stamp_of
from osvdeploy.osv.rofs.format import (
    BLOCK_SIZE,
    ENTRY_HEAD,
    INODE,
    INODE_LIMIT,
    LINK_HEAD,
    TABLES_LIMIT,
    Mode,
    Superblock,
    blocks,
)

BUFFER_SIZE = 1 << 20
"""Bytes per write and per hash update: large enough that the calls cost nothing, small enough for a CPU's cache."""

_BUFFERS = 6
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_ZEROS = bytes(BLOCK_SIZE)

Sink = Callable[[memoryview], object]
"""Takes the next bytes of the image, all of them, before it returns."""


@dataclass(frozen=True, slots=True)
class RofsLayout:
    """Where everything stands. ``contents`` lists, in ascending order, what is to be copied to which block."""

    superblock: Superblock
    contents: tuple[tuple[int, HostFile | Content], ...]
    tables: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole image, a multiple of 512."""
        return (self.superblock.tables_block + self.superblock.tables_blocks) * BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class Rofs:
    """A ROFS that was written: ``size`` in bytes, ``sha256`` over all of them."""

    size: int
    sha256: Digest
    files: int


def lay_out(tree: FileTree) -> RofsLayout:
    """Decide every byte but the contents of files.

    Raises FileTreeInvalid when the tables grow past what OSv can load.
    """
    children = _children(tree)
    numbers = {path: number for number, path in enumerate(tree.entries, start=1)}
    placed, first_free = _place(tree)
    entries: list[bytes] = []
    links: list[bytes] = []
    inodes: list[bytes] = []
    entry_count = 0
    pack_inode, pack_entry = INODE.pack, ENTRY_HEAD.pack
    for (path, entry), number in zip(tree.entries.items(), numbers.values(), strict=True):
        kind = type(entry)
        if kind is Directory:
            paths = children[path]
            inodes.append(pack_inode(Mode.DIRECTORY, number, entry_count, len(paths)))
            start = len(path) + (path != b"/")
            for child in paths:
                # OSv skips ahead by this length in bytes, so it must be that of the bytes, not of the text.
                entries.append(pack_entry(numbers[child], len(child) - start))
                entries.append(child[start:])
            entry_count += len(paths)
        elif kind is Symlink:
            target = cast(Symlink, entry).target
            inodes.append(pack_inode(Mode.SYMLINK, number, len(links) // 2, 1))
            links.append(LINK_HEAD.pack(len(target)))
            links.append(target)
        else:
            inodes.append(pack_inode(Mode.FILE, number, placed[path], cast("HostFile | Content", entry).size))
    tables = b"".join([*entries, *links, *inodes])
    if len(tables) > TABLES_LIMIT or len(numbers) > INODE_LIMIT:
        raise FileTreeInvalid(
            f"{len(numbers)} files and directories take {len(tables)} bytes of ROFS tables; at most {TABLES_LIMIT}",
            hint="pack them into fewer files, or leave some out with `exclude`",
        )
    superblock = Superblock(first_free, blocks(len(tables)), entry_count, len(links) // 2, len(numbers))
    return RofsLayout(superblock, tuple((placed[path], file) for path, file in tree.files()), tables)


def write_rofs(layout: RofsLayout, sink: Sink) -> Rofs:
    """Write the image to ``sink`` from its first byte to its last.

    Raises SourceChanged when a file is no longer what it was when the tree was made, and what ``sink`` raises.
    """
    with _pipeline(sink) as stream:
        stream.put(layout.superblock.pack())
        at = 1
        for block, file in layout.contents:
            if block != at:
                raise AssertionError(f"block {block} follows block {at}")
            if isinstance(file, Content):
                stream.put(file.content)
            else:
                stream.copy(file)
            stream.pad()
            at += blocks(file.size)
        stream.put(layout.tables)
        stream.pad()
        digest = stream.finish()
    return Rofs(layout.size, digest, len(layout.contents))


def _children(tree: FileTree) -> Mapping[bytes, list[bytes]]:
    """Each directory's paths, in the tree's order."""
    children: dict[bytes, list[bytes]] = {path: [] for path, entry in tree.entries.items() if type(entry) is Directory}
    for path in tree.entries:
        if path != b"/":
            children[path[: path.rfind(b"/")] or b"/"].append(path)
    return children


def _place(tree: FileTree) -> tuple[Mapping[bytes, int], int]:
    """First block of each file, and the first block behind them all.

    The one place that decides where contents go: the format lets files share blocks and leaves gaps alone, the
    sequential writer above needs them in order.
    """
    placed: dict[bytes, int] = {}
    at = 1
    for path, file in tree.files():
        placed[path] = at
        at += blocks(file.size)
    return placed, at


class _Stream:
    """Fills buffers and writes them in this thread; a second one hashes them.

    Hashing takes about as long as reading and writing together, so this division keeps both threads busy.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(memoryview(bytearray(BUFFER_SIZE)))
        self._view = self._free.get()
        self._at = 0
        self._thread = threading.Thread(target=self._hash, name="rofs-digest", daemon=True)
        self._thread.start()

    def put(self, content: bytes) -> None:
        rest = memoryview(content)
        while len(rest):
            count = min(len(rest), BUFFER_SIZE - self._at)
            self._view[self._at : self._at + count] = rest[:count]
            self._advance(count)
            rest = rest[count:]

    def copy(self, file: HostFile) -> None:
        try:
            # O_NONBLOCK: a pipe put in the file's place since must not hang the build.
            fd = os.open(file.path, _OPEN_FLAGS)
        except OSError as error:
            raise SourceChanged(
                f"{show(file.path)}: gone since the build began: {error.strerror}",
                hint="let nothing write to the sources while they are built",
            ) from None
        try:
            at, size = self._at, file.stamp[2]
            if size < BUFFER_SIZE - at:
                # Most files: one read, no loop. This path decides what 10,000 files take.
                got = os.readv(fd, (self._view[at : at + size],)) if size else 0
                self._at = at + got
                left = size - got
            else:
                left = size
            if left:
                left = self._copy_rest(fd, left)
            # Read first, then asked: if the stamp is still the one of the scan, nothing was written in between.
            if stamp_of(os.fstat(fd)) != file.stamp or left:
                raise SourceChanged(
                    f"{show(file.path)}: changed while it was built",
                    hint="let nothing write to the sources while they are built",
                )
        finally:
            os.close(fd)

    def _copy_rest(self, fd: int, left: int) -> int:
        """Returns how many bytes the file was too short."""
        while left:
            count = min(left, BUFFER_SIZE - self._at)
            got = os.readv(fd, (self._view[self._at : self._at + count],))
            if got == 0:
                break
            self._advance(got)
            left -= got
        return left

    def pad(self) -> None:
        """Zeros up to the next block. A buffer is whole blocks, so padding never spans two."""
        rest = -self._at % BLOCK_SIZE
        if rest:
            self._view[self._at : self._at + rest] = _ZEROS[:rest]
            self._advance(rest)

    def finish(self) -> Digest:
        """Write what is left; the digest of everything."""
        self._give()
        self.close()
        return Digest(self._digest.hexdigest())

    def close(self) -> None:
        """End the other thread when it has hashed what it was given."""
        self._full.put(None)
        self._thread.join()

    def _advance(self, count: int) -> None:
        self._at += count
        if self._at == BUFFER_SIZE:
            self._give()
            self._view = self._free.get()
            self._at = 0

    def _give(self) -> None:
        # The other thread may be done with the buffer first, but only this one takes it to be filled again.
        self._full.put((self._view, self._at))
        self._sink(self._view[: self._at])

    def _hash(self) -> None:
        while (item := self._full.get()) is not None:
            view, count = item
            self._digest.update(view[:count])
            self._free.put(view)


@contextmanager
def _pipeline(sink: Sink) -> Iterator[_Stream]:
    stream = _Stream(sink)
    try:
        yield stream
    except BaseException:
        stream.close()
        raise
