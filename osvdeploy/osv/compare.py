"""What differs between two images: files by their contents, and blocks that a cloud's snapshot would have to be sent.

A snapshot can be made on top of another: then only blocks that differ are sent. What is sent is what osvdeploy would
send: every block that holds a byte somebody reads, and no other. Bytes are read only where both disks have data, so two
disks of whole GiB cost no more than what is on them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.anatomy import Anatomy, Partition
from osvdeploy.osv.disk import FIRST_BLOCK
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs import RofsDirectory, RofsFile, RofsReader
from osvdeploy.osv.rofs.reader import RofsNode
from osvdeploy.osv.source import SparseAccess

BLOCK_SIZE = FIRST_BLOCK
"""Bytes of a snapshot's block in AWS."""


class Kind(StrEnum):
    """What stands at a path."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"


class Change(StrEnum):
    """What became of a path."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class FileChange:
    """``path`` is where it stands now, for what was removed where it stood. ``was`` is where a moved file stood.
    ``before`` and ``after`` are sizes in bytes, of files alone."""

    change: Change
    path: bytes
    kind: Kind
    before: int | None = None
    after: int | None = None
    was: bytes | None = None


@dataclass(frozen=True, slots=True)
class BlockChanges:
    """Blocks of ``size`` bytes. ``needed``: those that hold a byte which something reads in the image; ``changed``: the
    indexes of those of them that the other's snapshot lacks or has with other bytes."""

    size: int
    needed: int
    changed: tuple[int, ...]

    @property
    def bytes_to_send(self) -> int:
        return len(self.changed) * self.size


@dataclass(frozen=True, slots=True)
class Comparison:
    """An image against another. ``files`` is None where one of the two cannot be listed, and ``unlisted`` says which
    and why. ``kernel`` and ``command_line``: whether they differ."""

    files: tuple[FileChange, ...] | None
    blocks: BlockChanges
    kernel: bool
    command_line: bool
    unlisted: str | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One of two images; ``name`` is for people."""

    name: str
    source: SparseAccess
    anatomy: Anatomy


def compare(image: Side, other: Side, *, check: Callable[[], object] = lambda: None) -> Comparison:
    """What makes ``image`` another than ``other``. ``check`` is called now and then, and may raise.

    Raises DiskInvalid where contents cannot be read, OSError where a file cannot.
    """
    blocks, equal = _compare_blocks(image, other, check)
    one, two = image.anatomy, other.anatomy
    files: tuple[FileChange, ...] | None = None
    unlisted = None
    try:
        trees = (_tree(image), _tree(other))
    except DiskInvalid as error:
        unlisted = error.message
    else:
        files = tuple(sorted(_compare_files(*trees, equal, check), key=lambda each: (each.path, each.change)))
    return Comparison(
        files,
        blocks,
        (one.kernel and one.kernel.sha256) != (two.kernel and two.kernel.sha256),
        (one.command_line and one.command_line.raw) != (two.command_line and two.command_line.raw),
        unlisted,
    )


# ------------------------------------------------------------------------------------------------------------ blocks


def blocks_of(extents: Iterable[Extent], size: int = BLOCK_SIZE) -> bytearray:
    """For each block of ``size`` bytes, up to the last one that does, whether it holds a byte of ``extents``: 1 or 0. A
    disk of 2 TiB has four million, which is nothing for bytes and much for a set of numbers."""
    found = bytearray()
    for each in extents:
        if each.end > each.start:
            first, end = each.start // size, -(-each.end // size)
            found.extend(bytes(max(0, end - len(found))))
            found[first:end] = b"\1" * (end - first)
    return found


def block_count(extents: Sequence[Extent], size: int = BLOCK_SIZE) -> int:
    """How many blocks :func:`blocks_of` finds, without a byte for each; ``extents`` ascend."""
    count = passed = 0
    for each in extents:
        if each.end > each.start:
            end = -(-each.end // size)
            count += end - max(passed, each.start // size)
            passed = end
    return count


def _compare_blocks(image: Side, other: Side, check: Callable[[], object]) -> tuple[BlockChanges, bytearray]:
    """And for each block whether it is needed and equal."""
    needed, theirs = blocks_of(image.anatomy.read), blocks_of(other.anatomy.read)
    size = len(needed) * BLOCK_SIZE
    data = [blocks_of(side.source.data(0, min(size, side.source.size))) for side in (image, other)]
    equal = bytearray(len(needed))
    for index, (ours, both) in enumerate(zip(needed, theirs, strict=False)):
        if not (ours and both):
            continue
        if any(index < len(each) and each[index] for each in data):
            check()
            at = index * BLOCK_SIZE
            equal[index] = image.source.pread(at, BLOCK_SIZE) == other.source.pread(at, BLOCK_SIZE)
        else:
            equal[index] = True
    changed = tuple(index for index, each in enumerate(needed) if each and not equal[index])
    return BlockChanges(BLOCK_SIZE, needed.count(1), changed), equal


# ------------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True, slots=True)
class _Tree:
    """A listed file system; ``start`` is where it begins on its disk."""

    reader: RofsReader
    start: int

    def blocks(self, file: RofsFile) -> range:
        at = self.start + file.offset
        return range(at // BLOCK_SIZE, -(-(at + file.size) // BLOCK_SIZE))


def _tree(side: Side) -> _Tree:
    try:
        reader = side.anatomy.tree()
    except DiskInvalid as error:
        raise DiskInvalid(f"{side.name}: {error.message}") from None
    root = side.anatomy.root
    assert isinstance(root, Partition)  # tree() reads it
    return _Tree(reader, root.extent.start)


def _compare_files(image: _Tree, other: _Tree, equal: bytearray, check: Callable[[], object]) -> Iterator[FileChange]:
    ours, theirs = image.reader.nodes, other.reader.nodes
    added = [path for path in ours if path not in theirs]
    removed = [path for path in theirs if path not in ours]
    for path, node in ours.items():
        before = theirs.get(path)
        if before is not None and not _same(image, node, other, before, equal, check):
            yield FileChange(Change.CHANGED, path, kind_of(node), _size(before), _size(node))
    moved = _moved(image, added, other, removed, check)
    for path in added:
        if (was := moved.get(path)) is not None:
            yield FileChange(Change.MOVED, path, Kind.FILE, _size(theirs[was]), _size(ours[path]), was)
        else:
            yield FileChange(Change.ADDED, path, kind_of(ours[path]), None, _size(ours[path]))
    gone = set(moved.values())
    for path in removed:
        if path not in gone:
            yield FileChange(Change.REMOVED, path, kind_of(theirs[path]), _size(theirs[path]), None)


def _same(
    image: _Tree, node: RofsNode, other: _Tree, before: RofsNode, equal: bytearray, check: Callable[[], object]
) -> bool:
    if not (isinstance(node, RofsFile) and isinstance(before, RofsFile)):
        # Links by their target; the number of an inode means nothing.
        return type(node) is type(before) and getattr(node, "target", None) == getattr(before, "target", None)
    if node.size != before.size:
        return False
    here = image.start + node.offset == other.start + before.offset
    blocks = image.blocks(node)
    if not node.size or (here and equal.find(0, blocks.start, blocks.stop) < 0):
        return True
    ours, theirs = image.reader.pieces(node, check=check), other.reader.pieces(before, check=check)
    return all(one == two for one, two in itertools.zip_longest(ours, theirs))


def _moved(
    image: _Tree, added: Sequence[bytes], other: _Tree, removed: Sequence[bytes], check: Callable[[], object]
) -> dict[bytes, bytes]:
    """Which added file is which removed one: new path to old. Of several with one content, those of one name first.

    Only files of a size that both sides have are read. Empty files are all alike, and none is called moved.
    """
    ours, theirs = _by_size(image, added), _by_size(other, removed)
    pairs: dict[bytes, bytes] = {}
    for size in ours.keys() & theirs.keys():
        left: dict[bytes, list[bytes]] = defaultdict(list)
        for path in theirs[size]:
            left[_digest(other, path, check)].append(path)
        waiting = []
        for path in ours[size]:
            found = left[_digest(image, path, check)]
            named = [was for was in found if _name(was) == _name(path)]
            if named:
                found.remove(named[0])
                pairs[path] = named[0]
            else:
                waiting.append((path, found))
        for path, found in waiting:
            if found:
                pairs[path] = found.pop(0)
    return pairs


def _by_size(tree: _Tree, paths: Sequence[bytes]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = defaultdict(list)
    for path in sorted(paths):
        node = tree.reader.nodes[path]
        if isinstance(node, RofsFile) and node.size:
            found[node.size].append(path)
    return found


def _digest(tree: _Tree, path: bytes, check: Callable[[], object]) -> bytes:
    node = tree.reader.nodes[path]
    assert isinstance(node, RofsFile)
    digest = hashlib.sha256()
    for offset, piece in tree.reader.pieces(node, check=check):
        digest.update(offset.to_bytes(8, "little") + len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.digest()


def _name(path: bytes) -> bytes:
    return path[path.rfind(b"/") + 1 :]


def kind_of(node: RofsNode) -> Kind:
    """What a node is."""
    if isinstance(node, RofsFile):
        return Kind.FILE
    return Kind.DIRECTORY if isinstance(node, RofsDirectory) else Kind.LINK


def _size(node: RofsNode) -> int | None:
    return node.size if isinstance(node, RofsFile) else None
