"""The raw disk: boot sector and kernel of a loader.img, a command line, one partition with the ROFS.

Boot sector, kernel, command line and partition entry are byte for byte what OSv's scripts/build makes of the same
loader.img (scripts/imgedit.py ``setpartition`` and ``setargs``). The partition is not where scripts/build has it, right
behind the kernel and as long as its ROFS: it begins at a multiple of 16 MiB and goes to the disk's end, so that neither
a kernel that grows nor a tree that does moves what did not change.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from osvdeploy.digests import sha256
from osvdeploy.errors import DiskInvalid, SizeInvalid, SourceChanged
from osvdeploy.osv.cmdline import COMMAND_LINE_LIMIT, BootCommand, decode, encode
from osvdeploy.osv.contents import pwrite_all
from osvdeploy.osv.image import Extent, FirstBlock, merged
from osvdeploy.osv.kernel import CHUNK_SIZE, KERNEL_OFFSET, Kernel, chunk_count
from osvdeploy.osv.rofs import Draft, Rofs, RofsLayout, RofsReader, read_rofs, write_on_disk
from osvdeploy.sizes import GIB, KIB, MIB, format_size

SECTOR = 512

COMMAND_LINE_OFFSET = SECTOR
COMMAND_LINE_END = COMMAND_LINE_OFFSET + COMMAND_LINE_LIMIT + 1
"""The boot sector reads up to here: 63 sectors from LBA 1."""

PARTITION_SLOT = 2
"""OSv mounts its root from /dev/vblk0.1, and that index counts slots from 0 (fs/devfs/device.cc, loader.cc)."""

PARTITION_ALIGNMENT = 16 * MIB
"""The partition begins at the next multiple of this behind the kernel: four times the size of a usual one, so that a
kernel which grows moves nothing. What lies between is a hole. OSv asks for whole sectors only."""

DISK_UNIT = GIB
"""Clouds make volumes in whole GiB."""

FIRST_BLOCK = 512 * KIB
"""Bytes of a cloud snapshot's first block, the one in which a release differs from its image."""

_SLOT_OFFSET = 0x1BE + 16 * (PARTITION_SLOT - 1)
_SLOT = struct.Struct("<BBHBBHII")
_LINUX = 0x83
_REACH = 0xFFFF_FFFF * SECTOR
"""Bytes up to which a partition table can say where a partition ends."""

_COPY_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class DiskLayout:
    """Where things stand on a disk of ``size`` bytes. ``partition`` holds the ROFS and goes to the disk's end, or as
    far as a partition table reaches."""

    kernel: Extent
    partition: Extent
    size: int


@dataclass(frozen=True, slots=True)
class ComposedDisk:
    """A disk that was written. ``read`` lists, in ascending order, what something reads: boot sector and command line,
    kernel, and what is stored of the file system. All else are holes."""

    layout: DiskLayout
    rofs: Rofs
    read: tuple[Extent, ...]


class RandomAccess(Protocol):
    """A disk that can be read anywhere: a file, a volume in a cloud."""

    @property
    def size(self) -> int:
        """Bytes of the whole disk."""
        ...

    def pread(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end of the disk."""
        ...


@dataclass(frozen=True, slots=True)
class FileAccess:
    """A disk image in a file. Opens it for each read, so there is nothing to close."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def pread(self, offset: int, length: int) -> bytes:
        with self.path.open("rb", buffering=0) as file:
            pieces = []
            while length and (piece := os.pread(file.fileno(), length, offset)):
                pieces.append(piece)
                offset, length = offset + len(piece), length - len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk as its boot sector and OSv would find it. ``command_line`` is without its NUL."""

    source: RandomAccess
    kernel: Extent
    partition: Extent
    command_line: bytes

    @property
    def boot(self) -> BootCommand:
        """The command line, decoded. Raises CommandLineInvalid."""
        return decode(self.command_line)

    def rofs(self) -> RofsReader:
        """The file system in the partition. Raises DiskInvalid where there is no ROFS, or a damaged one."""
        start, end = self.partition.start, self.partition.end

        def read_at(offset: int, length: int) -> bytes:
            return self.source.pread(start + offset, min(length, end - start - offset))

        return read_rofs(read_at, end - start)

    def read(self) -> tuple[Extent, ...]:
        """What something reads of the disk, in ascending order: boot sector and command line, kernel, and of the file
        system what :meth:`RofsReader.stored` says. Raises DiskInvalid."""
        return _read(self.kernel, self.partition, self.rofs().stored())

    def places(self) -> Mapping[Extent, list[bytes]]:
        """Where on the disk contents stand, in ascending order, and the paths that have each; empty files have none.
        Raises DiskInvalid."""
        start = self.partition.start
        return {_moved(place, start): paths for place, paths in self.rofs().places().items()}


def lay_out_disk(kernel: Kernel, rofs_size: int, *, size: int | None = None) -> DiskLayout:
    """``rofs_size`` is that of the ROFS back to back; ``size`` the disk's, in bytes and whole GiB, None the smallest.

    Raises SizeInvalid when it is too small, or when the disk would be larger than a partition table can say.
    """
    kernel_end = KERNEL_OFFSET + kernel.chunks * CHUNK_SIZE
    start = _round_up(kernel_end, PARTITION_ALIGNMENT)
    end = start + rofs_size
    if end > _REACH:
        raise SizeInvalid(f"the files take {rofs_size} bytes; a partition table reaches no further than 2 TiB")
    smallest = _round_up(end, DISK_UNIT)
    if size is not None and (size % DISK_UNIT or size < smallest):
        raise SizeInvalid(
            f"a disk of {format_size(size)}: kernel and files need {format_size(smallest)}, and disks are whole GiB",
            hint=f'write size = "{format_size(smallest)}" under [image], or leave it out',
        )
    size = size or smallest
    return DiskLayout(Extent(KERNEL_OFFSET, kernel_end), Extent(start, min(size, _REACH)), size)


def compose(
    path: Path,
    kernel: Kernel,
    rofs: RofsLayout,
    boot: BootCommand,
    *,
    size: int | None = None,
    written: Callable[[int], object] = lambda count: None,
    draft: Draft | None = None,
) -> ComposedDisk:
    """Write a new disk to ``path``; what no one reads stays a hole. ``size`` as in :func:`lay_out_disk`.

    ``rofs`` is laid out anew for the disk's partition. ``written`` is told as in :func:`write_on_disk`. ``draft``: what
    is in ``path`` already of that tree, and nothing else.

    Raises CommandLineInvalid, SourceChanged when the kernel or a file is no longer what it was, FileExistsError and
    other OSErrors of the target; what was written until then is the caller's to remove.
    """
    line = encode(boot)
    layout = lay_out_disk(kernel, rofs.size, size=size)
    new = os.O_CREAT | os.O_EXCL if draft is None else 0
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | new, 0o666)
    try:
        if draft is not None and draft.partition != layout.partition:
            # So much of it is equal that a smaller disk will do, where all stands elsewhere.
            os.ftruncate(fd, 0)
            draft = None
        os.ftruncate(fd, layout.size)
        _copy_kernel(kernel, fd)
        head = os.pread(fd, COMMAND_LINE_END, 0)
        pwrite_all(fd, with_partition(with_line(head, line), layout.partition), 0)
        placed, image = write_on_disk(rofs, fd, layout.partition, written, draft=draft)
    finally:
        os.close(fd)
    return ComposedDisk(layout, image, _read(layout.kernel, layout.partition, placed.stored))


def release_block(block: bytes, boot: BootCommand) -> bytes:
    """The first block of a disk with another command line, and nothing left of the old one.

    ``block`` is at least the command line's region, usually a snapshot's first 512 KiB. Raises CommandLineInvalid;
    ValueError for a shorter block.
    """
    if len(block) < COMMAND_LINE_END:
        raise ValueError(
            f"a block of {len(block)} bytes does not hold the command line, which ends at {COMMAND_LINE_END}"
        )
    return with_line(block, encode(boot))


def first_block(block: bytes) -> FirstBlock:
    """How an image's own disk begins, told by its first :data:`FIRST_BLOCK` bytes; ValueError for a shorter
    block."""
    if len(block) < FIRST_BLOCK:
        raise ValueError(f"{len(block)} bytes, not {FIRST_BLOCK}")
    return FirstBlock(sha256(block[:FIRST_BLOCK]), line_of(block).decode())


def restored_block(first: FirstBlock, block: bytes) -> bytes | None:
    """An image's own first block, out of that of the image or of any release of it; None where it is another's."""
    own = with_line(block[:FIRST_BLOCK], first.line.encode())
    return own + block[FIRST_BLOCK:] if sha256(own) == first.sha256 else None


def with_partition(block: bytes, partition: Extent) -> bytes:
    """``block`` with the partition in slot 2 as ``imgedit.py setpartition`` writes it; the active flag stays."""
    start, end = partition.start // SECTOR, partition.end // SECTOR
    start_cylinder_sector, start_head = _chs(start)
    # Upstream computes the end from start + size, one sector too far. OSv reads only the LBA fields.
    end_cylinder_sector, end_head = _chs(end)
    entry = _SLOT.pack(
        block[_SLOT_OFFSET],
        start_head,
        start_cylinder_sector,
        _LINUX,
        end_head,
        end_cylinder_sector,
        start,
        end - start,
    )
    return block[:_SLOT_OFFSET] + entry + block[_SLOT_OFFSET + _SLOT.size :]


def read_disk(source: Path | RandomAccess) -> Disk:
    """Find kernel, command line and partition as boot sector and OSv do, and check that each lies on the disk.

    Raises DiskInvalid; OSError where ``source`` cannot be read. The file system is not looked at: see Disk.rofs.
    """
    access: RandomAccess = FileAccess(source) if isinstance(source, Path) else source
    size = access.size
    head = access.pread(0, COMMAND_LINE_END)
    if len(head) < COMMAND_LINE_END:
        raise DiskInvalid(f"disk: {len(head)} bytes, too short for a boot sector and a command line")
    if head[SECTOR - 2 : SECTOR] != b"\x55\xaa":
        raise DiskInvalid("disk: no boot sector: bytes 510 and 511 are not 55 AA")
    chunks = chunk_count(head)
    kernel = Extent(KERNEL_OFFSET, KERNEL_OFFSET + chunks * CHUNK_SIZE)
    if chunks == 0 or kernel.end > size:
        raise DiskInvalid(f"disk: its boot sector loads {chunks} chunks of kernel, from a disk of {size} bytes")
    line, nul, _ = head[COMMAND_LINE_OFFSET:].partition(b"\0")
    if not nul:
        raise DiskInvalid(f"disk: its command line does not end within {COMMAND_LINE_LIMIT} bytes")
    return Disk(access, kernel, _partition(head, kernel, size), line)


def _partition(head: bytes, kernel: Extent, size: int) -> Extent:
    _, _, start_cylinder_sector, kind, _, _, start, count = _SLOT.unpack_from(head, _SLOT_OFFSET)
    if kind == 0 or start_cylinder_sector & 0x3F == 0:
        raise DiskInvalid(f"disk: partition slot {PARTITION_SLOT} is empty; OSv mounts its root from there")
    partition = Extent(start * SECTOR, (start + count) * SECTOR)
    if count == 0 or partition.end > size:
        raise DiskInvalid(f"disk: the partition, {count} sectors from {start}, is not on a disk of {size} bytes")
    if partition.start < kernel.end:
        raise DiskInvalid(
            f"disk: the partition begins at {partition.start}, inside the kernel, which ends at {kernel.end}"
        )
    return partition


def line_of(block: bytes) -> bytes:
    """The command line in a disk's first bytes, as it stands there, without its NUL."""
    return block[COMMAND_LINE_OFFSET:COMMAND_LINE_END].partition(b"\0")[0]


def with_line(block: bytes, line: bytes) -> bytes:
    """``block`` with the encoded ``line`` in it, and nothing left of the old one."""
    region = (line + b"\0").ljust(COMMAND_LINE_END - COMMAND_LINE_OFFSET, b"\0")
    return block[:COMMAND_LINE_OFFSET] + region + block[COMMAND_LINE_END:]


def _copy_kernel(kernel: Kernel, target: int) -> None:
    """Hashed on the way: the kernel may have been replaced since it was checked, and its digest names the image."""
    digest, at = hashlib.sha256(), 0
    with kernel.path.open("rb", buffering=0) as file:
        while chunk := file.read(_COPY_SIZE):
            digest.update(chunk)
            if at + len(chunk) > kernel.size:
                break
            pwrite_all(target, chunk, at)
            at += len(chunk)
    if digest.hexdigest() != kernel.sha256:
        raise SourceChanged(
            f"{kernel.path}: changed while it was built",
            hint="let nothing write to the sources while they are built",
        )


def _read(kernel: Extent, partition: Extent, stored: Iterable[Extent]) -> tuple[Extent, ...]:
    return merged([Extent(0, COMMAND_LINE_END), kernel, *(_moved(extent, partition.start) for extent in stored)])


def _moved(extent: Extent, by: int) -> Extent:
    return Extent(extent.start + by, extent.end + by)


def _chs(sector: int) -> tuple[int, int]:
    """Cylinder and sector in one u16, and head: 255 heads, 63 sectors, the last address for all that lies beyond."""
    cylinder, rest = divmod(sector, 255 * 63)
    head, index = divmod(rest, 63)
    if cylinder > 1023:
        return 1023 << 6 & 0xFFFF | 63, 254
    return cylinder << 6 & 0xFFFF | index + 1, head


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
