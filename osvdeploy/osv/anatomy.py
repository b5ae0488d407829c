"""What an image consists of, whoever made it: boot sector, command line, kernel, partitions and what stands in them.

A disk is looked at as boot sector and OSv would, but where those stop at the first fault, this goes on and tells each:
an image that does not boot is the one that people look into. scripts/build of OSv (fs=rofs, zfs, ext, ramfs and the
two-partition kinds, with --create-disk a disk without kernel), capstan and osvdeploy all keep one layout; rofs.img,
which scripts/gen-rofs-img.py writes, and other file systems without a partition table are known too.
"""

from __future__ import annotations

import hashlib
import heapq
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from operator import attrgetter

from osvdeploy.digests import Digest
from osvdeploy.errors import CommandLineInvalid, DiskInvalid, KernelInvalid
from osvdeploy.osv.bounds import reading_limit
from osvdeploy.osv.cmdline import COMMAND_LINE_LIMIT, BootCommand, decode
from osvdeploy.osv.disk import COMMAND_LINE_END, COMMAND_LINE_OFFSET, PARTITION_SLOT, SECTOR, RandomAccess
from osvdeploy.osv.image import Extent, merged
from osvdeploy.osv.kernel import CHUNK_SIZE, KERNEL_OFFSET, MAX_SIZE, SYMBOLS_SIZE, Payload, chunk_count, payload_of
from osvdeploy.osv.kernel_facts import KernelFacts
from osvdeploy.osv.rofs import RofsDirectory, RofsFile, RofsReader, RofsSymlink, read_rofs
from osvdeploy.osv.rofs.format import MAGIC
from osvdeploy.osv.source import Part
from osvdeploy.sizes import format_size

BIGGEST = 10
"""How many of the biggest files are told."""

_TABLE = 0x1BE
_ENTRY = struct.Struct("<BBHBBHII")
_SLOTS = 4

_EXT_OFFSET, _EXT_SIZE, _EXT_MAGIC = 1024, 264, 0xEF53
_EXT_JOURNAL, _EXT_EXTENTS = 0x4, 0x40
_ZFS_LABEL, _ZFS_UBERBLOCKS, _ZFS_SLOT = 256 << 10, 128 << 10, 1024
_ZFS_MAGIC = 0x00BAB10C
_PIECE = 1 << 20


class Layout(StrEnum):
    """How an image is laid out."""

    DISK = "disk"
    """Boot sector, command line, kernel, partitions: boots by itself."""
    DATA = "data"
    """A partition table without a kernel: scripts/build --create-disk. The kernel is given to the machine apart."""
    BARE = "bare"
    """A file system alone, without a partition table."""


class FileSystem(StrEnum):
    """What stands in a partition, as far as its first bytes tell."""

    ROFS = "rofs"
    ZFS = "zfs"
    EXT = "ext"
    NONE = "none"
    """The partition has no length: files are in the kernel (fs=ramfs), or come from outside (fs=virtiofs)."""
    EMPTY = "empty"
    """Zeros where the first file system would be looked for."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """``raw`` without its NUL. ``boot`` is None where OSv could not read it, or runs several programs; ``problem`` says
    why."""

    raw: bytes
    boot: BootCommand | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class DiskKernel:
    """The kernel on a disk. ``sha256`` is that of the loader.img that the disk was made of: its bytes with an empty
    command line and partition table, which is how a build leaves them. None where the disk ends before the kernel."""

    extent: Extent
    chunks: int
    payload: Payload
    sha256: Digest | None


@dataclass(frozen=True, slots=True)
class Partition:
    """``slot`` counts from 1; 0 is a file system without a partition table. ``kind`` is the type byte (0x83: Linux).

    ``detail`` is for people; ``problem`` says why OSv, or we, cannot use it. ``tree`` is there for a ROFS that can be
    read.
    """

    slot: int
    kind: int
    extent: Extent
    file_system: FileSystem
    detail: str = ""
    problem: str | None = None
    tree: RofsReader | None = field(default=None, repr=False)

    @property
    def device(self) -> str:
        """OSv's name for it on the first disk (fs/devfs/device.cc counts slots from 0)."""
        return f"/dev/vblk0.{self.slot - 1}" if self.slot else "/dev/vblk0"


@dataclass(frozen=True, slots=True)
class Anatomy:
    """An image of ``size`` bytes. ``problems`` are faults of the whole; those of a part stand there."""

    size: int
    layout: Layout
    kernel: DiskKernel | None
    command_line: CommandLine | None
    partitions: tuple[Partition, ...]
    problems: tuple[str, ...] = ()

    @property
    def root(self) -> Partition | None:
        """Where OSv mounts its root from: slot 2; of a bare file system that one."""
        wanted = 0 if self.layout is Layout.BARE else PARTITION_SLOT
        return next((each for each in self.partitions if each.slot == wanted), None)

    def tree(self) -> RofsReader:
        """The files of the image. Raises DiskInvalid that says why they cannot be listed."""
        root = self.root
        if root is None:
            raise DiskInvalid(
                f"no file system: partition slot {PARTITION_SLOT} is empty, and OSv mounts its root from there"
            )
        if root.tree is not None:
            return root.tree
        if root.problem is not None and root.extent.end > self.size:
            raise DiskInvalid(root.problem, hint="the file was cut short: copy or download it again")
        if root.file_system is FileSystem.ROFS:
            raise DiskInvalid(f"its file system is damaged: {root.problem}")
        if root.problem is not None:
            raise DiskInvalid(f"partition {root.slot} cannot be listed: {root.problem}")
        reason, hint = _UNLISTED[root.file_system]
        raise DiskInvalid(reason, hint=hint)

    @property
    def read(self) -> tuple[Extent, ...]:
        """What something reads, ascending and apart: boot sector and command line, kernel, of each ROFS its superblock,
        tables and contents in whole blocks, of another file system all of it."""
        extents = []
        if self.layout is not Layout.BARE:
            extents.append(Extent(0, COMMAND_LINE_END if self.kernel is not None else SECTOR))
        if self.kernel is not None:
            extents.append(self.kernel.extent)
        for partition in self.partitions:
            start = partition.extent.start
            if partition.tree is None:
                extents.append(partition.extent)
            else:
                extents += [Extent(start + each.start, start + each.end) for each in partition.tree.stored()]
        return merged(Extent(each.start, min(each.end, self.size)) for each in extents)


@dataclass(frozen=True, slots=True)
class Totals:
    """A tree in numbers. ``content`` is the sum of all files' sizes; ``shared`` of it are bytes that stand in the image
    once for several files. ``biggest`` files first."""

    files: int
    directories: int
    links: int
    content: int
    shared: int
    biggest: tuple[tuple[bytes, int], ...]


_UNLISTED: dict[FileSystem, tuple[str, str | None]] = {
    FileSystem.ZFS: (
        "its file system is ZFS, which cannot be listed here",
        "import the pool on a host with ZFS: zpool import -d DIR -o readonly=on osv",
    ),
    FileSystem.EXT: (
        "its file system is ext, which cannot be listed here",
        "make it raw and look with debugfs or mount -o ro,loop,offset=...",
    ),
    FileSystem.NONE: (
        "it has no file system of its own: its files are linked into the kernel (fs=ramfs), or come from outside "
        "(fs=virtiofs)",
        None,
    ),
    FileSystem.EMPTY: ("its partition is empty", None),
    FileSystem.UNKNOWN: ("its file system is none that OSv mounts (rofs, zfs, ext)", None),
}


def look(source: RandomAccess) -> Anatomy:
    """Take an image apart. What is wrong with a part is told there.

    Raises DiskInvalid where it is no image at all; OSError where ``source`` cannot be read.
    """
    size = source.size
    head = source.pread(0, COMMAND_LINE_END)
    if head[SECTOR - 2 : SECTOR] != b"\x55\xaa":
        whole = _partition(source, 0, 0, Extent(0, size))
        if whole.file_system in (FileSystem.ROFS, FileSystem.ZFS, FileSystem.EXT):
            return Anatomy(size, Layout.BARE, None, None, (whole,))
        raise DiskInvalid(
            "no OSv image: no boot sector (bytes 510 and 511 are not 55 AA), and no ROFS, ZFS or ext either",
            hint="an image is a raw or qcow2 disk, or a rofs.img",
        )
    problems: list[str] = []
    partitions = _partitions(source, head, size)
    # --create-disk begins with a boot sector of zeros and may put its partition right behind it.
    if not any(head[:_TABLE]):
        return Anatomy(size, Layout.DATA, None, None, partitions)
    kernel = _kernel(source, head, size, problems)
    problems += [
        f"partition {each.slot} begins at {each.extent.start}, inside the kernel, which ends at {kernel.extent.end}"
        for each in partitions
        if each.extent.end > each.extent.start and each.extent.start < kernel.extent.end
    ]
    return Anatomy(size, Layout.DISK, kernel, _command_line(head), partitions, tuple(problems))


def totals(tree: RofsReader, *, biggest: int = BIGGEST) -> Totals:
    """Count a tree."""
    kinds = Counter(type(node) for node in tree.nodes.values())
    sizes = ((-node.size, path) for path, node in tree.nodes.items() if isinstance(node, RofsFile))
    content = sum(node.size for node in tree.nodes.values() if isinstance(node, RofsFile))
    shared = content - sum(size for _, size in tree.contents())
    first = tuple((path, -size) for size, path in heapq.nsmallest(biggest, sizes))
    return Totals(kinds[RofsFile], kinds[RofsDirectory], kinds[RofsSymlink], content, shared, first)


def loader_image(source: RandomAccess, kernel: DiskKernel) -> Iterator[bytes]:
    """The loader.img that a disk was made of, in pieces: its kernel, with an empty command line and partition table."""
    head = source.pread(0, SECTOR)
    yield head[:_TABLE] + bytes(_SLOTS * _ENTRY.size) + head[SECTOR - 2 :] + bytes(KERNEL_OFFSET - SECTOR)
    for offset in range(kernel.extent.start, kernel.extent.end, _PIECE):
        yield source.pread(offset, min(_PIECE, kernel.extent.end - offset))


def kernel_facts(source: RandomAccess, kernel: DiskKernel) -> KernelFacts | None:
    """What the bytes of a disk's kernel tell; None where they are not all there, or more than a kernel has.

    Unpacks the kernel, which takes about 0.3 s. Raises KernelInvalid where OSv's loader holds none that can be read.
    """
    from osvdeploy.osv.kernel_image import read_kernel_facts

    if kernel.sha256 is None:
        return None
    return read_kernel_facts(b"".join(loader_image(source, kernel)), name="kernel")


def _kernel(source: RandomAccess, head: bytes, size: int, problems: list[str]) -> DiskKernel:
    chunks = chunk_count(head)
    extent = Extent(KERNEL_OFFSET, KERNEL_OFFSET + chunks * CHUNK_SIZE)
    if problem := _kernel_problem(source, extent, chunks, size):
        problems.append(problem)
        return DiskKernel(extent, chunks, Payload.UNKNOWN, None)
    digest = hashlib.sha256()
    for piece in loader_image(source, DiskKernel(extent, chunks, Payload.UNKNOWN, None)):
        digest.update(piece)
    tail = max(KERNEL_OFFSET, extent.end - SYMBOLS_SIZE)
    start = source.pread(KERNEL_OFFSET, 64)
    try:
        payload = payload_of("kernel", head, start, source.pread(tail, extent.end - tail))
    except KernelInvalid as error:
        problems.append(error.message)
        payload = Payload.LZLOADER
    return DiskKernel(extent, chunks, payload, Digest(digest.hexdigest()))


def _kernel_problem(source: RandomAccess, extent: Extent, chunks: int, size: int) -> str | None:
    """Why a kernel is not read, None where it is."""
    if chunks == 0:
        return "its boot sector loads 0 chunks of kernel, which it takes for 65,536"
    told = f"its boot sector loads {chunks} chunks of kernel, {extent.end} bytes"
    if extent.end > size:
        return f"{told}, from a disk of {size}"
    if extent.end > MAX_SIZE:
        return f"{told}, more than any kernel has"
    if extent.end > reading_limit(held := Part(source, extent).held(0, extent.end)):
        return f"{told}, of which the file holds {held}"
    return None


def _command_line(head: bytes) -> CommandLine:
    line, nul, _ = head[COMMAND_LINE_OFFSET:].partition(b"\0")
    if not nul and len(head) < COMMAND_LINE_END:
        return CommandLine(line, None, "the disk ends before it does")
    if not nul:
        return CommandLine(line, None, f"it does not end within {COMMAND_LINE_LIMIT} bytes")
    try:
        return CommandLine(line, decode(line))
    except CommandLineInvalid as error:
        return CommandLine(line, None, error.message)


def _partitions(source: RandomAccess, head: bytes, size: int) -> tuple[Partition, ...]:
    found: list[Partition] = []
    # The root first: of two that overlap one alone is read, or a few bytes would be four file systems.
    for slot in sorted(range(1, _SLOTS + 1), key=lambda slot: slot != PARTITION_SLOT):
        entry = _ENTRY.unpack_from(head, _TABLE + _ENTRY.size * (slot - 1))
        _, _, cylinder_sector, kind, _, _, start, count = entry
        if not any(entry):
            continue
        extent = Extent(start * SECTOR, (start + count) * SECTOR)
        other = next((each.slot for each in found if _overlap(each.extent, extent)), None)
        # fs/devfs/device.cc passes over such an entry as if it were not there.
        if kind == 0 or cylinder_sector & 0x3F == 0:
            problem = "OSv passes it over: its type is 0" if kind == 0 else "OSv passes it over: its start has sector 0"
            found.append(Partition(slot, kind, extent, FileSystem.UNKNOWN, problem=problem))
        elif other is not None:
            problem = f"it overlaps partition {other}, and is not looked into"
            found.append(Partition(slot, kind, extent, FileSystem.UNKNOWN, problem=problem))
        elif extent.end > size:
            found.append(_cut_partition(source, slot, kind, extent, size))
        else:
            found.append(_partition(source, slot, kind, extent))
    return tuple(sorted(found, key=attrgetter("slot")))


def _overlap(one: Extent, other: Extent) -> bool:
    return max(one.start, other.start) < min(one.end, other.end)


def _cut_partition(source: RandomAccess, slot: int, kind: int, extent: Extent, size: int) -> Partition:
    """A partition that the disk ends in, or before. OSv reads what is there, and so do we."""
    problem = (
        f"the disk ends early: it has {size} bytes ({format_size(size)}), and partition {slot} begins at "
        f"{extent.start} and ends at {extent.end} ({format_size(extent.end)})"
    )
    if extent.start >= size:
        return Partition(slot, kind, extent, FileSystem.UNKNOWN, problem=problem)
    found = _partition(source, slot, kind, Extent(extent.start, size))
    if found.tree is not None:
        problem += "; all of its files stand before that"
    return replace(found, extent=extent, problem=problem)


def _partition(source: RandomAccess, slot: int, kind: int, extent: Extent) -> Partition:
    part = Part(source, extent)
    if part.size == 0:
        return Partition(slot, kind, extent, FileSystem.NONE)
    head = part.pread(0, _EXT_OFFSET + _EXT_SIZE)
    if int.from_bytes(head[:8], "little") == MAGIC:
        try:
            tree = read_rofs(part.pread, part.size, stored=part)
        except DiskInvalid as error:
            return Partition(slot, kind, extent, FileSystem.ROFS, problem=error.message)
        return Partition(slot, kind, extent, FileSystem.ROFS, detail="version 1", tree=tree)
    if detail := _ext(head[_EXT_OFFSET:]):
        return Partition(slot, kind, extent, FileSystem.EXT, detail)
    if detail := _zfs(part):
        return Partition(slot, kind, extent, FileSystem.ZFS, detail)
    empty = not any(part.pread(0, _PIECE))
    return Partition(slot, kind, extent, FileSystem.EMPTY if empty else FileSystem.UNKNOWN)


def _ext(block: bytes) -> str:
    """What a superblock of ext tells (Linux: Documentation/filesystems/ext4/super.rst); empty where it is none."""
    if len(block) < _EXT_SIZE or int.from_bytes(block[0x38:0x3A], "little") != _EXT_MAGIC:
        return ""
    count, block_bits = struct.unpack_from("<I", block, 4)[0], struct.unpack_from("<I", block, 24)[0]
    if block_bits > 6:
        return ""
    compatible, incompatible = struct.unpack_from("<II", block, 92)
    name = "ext4" if incompatible & _EXT_EXTENTS else "ext3" if compatible & _EXT_JOURNAL else "ext2"
    return f"{name}, {count} blocks of {1024 << block_bits}"


def _zfs(part: Part) -> str:
    """What the labels of a ZFS device tell: four of them, two at each end, each with a ring of uberblocks
    (OpenZFS: include/sys/vdev_impl.h, uberblock_impl.h). Empty where there is none."""
    found = 0
    newest = -1
    for label in (0, 1, 2, 3):
        at = label * _ZFS_LABEL if label < 2 else part.size // _ZFS_LABEL * _ZFS_LABEL - (4 - label) * _ZFS_LABEL
        ring = part.pread(at + _ZFS_UBERBLOCKS, _ZFS_LABEL - _ZFS_UBERBLOCKS) if at >= 0 else b""
        groups = [_uberblock(ring, offset) for offset in range(0, len(ring) - 24, _ZFS_SLOT)]
        if (group := max(groups, default=-1)) >= 0:
            found, newest = found + 1, max(newest, group)
    return f"{found} of 4 labels, transaction group {newest}" if found else ""


def _uberblock(ring: bytes, offset: int) -> int:
    """The transaction group of an uberblock, in the byte order of the machine that wrote it; -1 for none."""
    for order in ("<", ">"):
        magic, _, group = struct.unpack_from(f"{order}QQQ", ring, offset)
        if magic == _ZFS_MAGIC:
            return int(group)
    return -1
