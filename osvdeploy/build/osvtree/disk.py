"""usr.img, the qcow2 that scripts/build leaves, to a raw disk of whole GiB; looked at before it is believed."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.build.osvtree.process import run
from osvdeploy.build.osvtree.source import digest_of_file
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import BuildError, DiskInvalid, ImageError, SizeInvalid
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.disk import (
    COMMAND_LINE_END,
    DISK_UNIT,
    SECTOR,
    FileAccess,
    read_disk,
    release_block,
)
from osvdeploy.osv.filetree import Content, FileTree, HostFile, Symlink, show
from osvdeploy.osv.image import Extent
from osvdeploy.osv.kernel import CHUNK_SIZE, KERNEL_OFFSET, read_kernel
from osvdeploy.osv.rofs import RofsFile, RofsReader, RofsSymlink
from osvdeploy.sizes import MIB, format_size

_TABLE = 0x1BE
_ENTRY = struct.Struct("<B3sB3sII")
_READ_SIZE = 1 << 20

_UBERBLOCK = 0x00BAB10C
_UBERBLOCKS = (128 * 1024, 256 * 1024)
"""Where in a ZFS label the uberblocks stand; the first label begins its device (ZFS On-Disk Format, 1.2)."""

_EXT_SUPERBLOCK = 1024
_EXT_MAGIC = 0xEF53
_EXT_RESERVED = 10
"""Inodes of ext that are no file's."""

_KERNEL_UNIT = 2 * MIB
"""scripts/build puts the partition at the next multiple of this behind the kernel."""

HAS_PARTITION = frozenset({"rofs", "zfs", "ext", "rofs_with_zfs"})


@dataclass(frozen=True, slots=True)
class TreeDisk:
    """A disk that was looked at. ``partitions`` are those with a file system in them, the root's first."""

    size: int
    kernel: Digest
    partitions: tuple[Extent, ...]
    read: tuple[Extent, ...]
    root: Digest


def convert(
    ctx: Context, image: Path, target: Path, *, held: Sequence[int], log: Path, environment: Mapping[str, str]
) -> int:
    """qcow2 to raw, holes left holes; gives the disk's size in bytes. Raises BuildError, and what run() does."""
    try:
        done = subprocess.run(
            ["qemu-img", "info", "--output=json", str(image)],
            env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
        )  # fmt: skip
    except FileNotFoundError:
        raise BuildError("qemu-img: not found; it reads what scripts/build makes", hint="install qemu-utils") from None
    try:
        told = json.loads(done.stdout)
        size, form = int(told["virtual-size"]), told["format"]
    except (ValueError, KeyError, TypeError):
        said = done.stderr.decode(errors="replace").strip()
        raise BuildError(f"{image}: qemu-img cannot read it: {said}") from None
    if form != "qcow2":
        raise BuildError(f"{image}: {form}, and scripts/build makes qcow2: it stopped half way")
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-S", "4k", str(image), str(target)]
    if run(ctx, command, directory=image.parent, environment=environment, held=held, log=log):
        raise BuildError(f"{image}: could not be made a raw disk; qemu-img's words are in {log}")
    if (made := target.stat().st_size) != size:
        raise BuildError(f"{image}: qemu-img made a raw disk of {made} bytes out of {size}")
    return size


def finish(
    ctx: Context,
    disk: Path,
    loader: Path,
    boot: BootCommand,
    *,
    fs: str,
    size: int | None,
    hashed: Callable[[int, int], object],
) -> TreeDisk:
    """Check the layout, write the command line, and give the disk its size in whole GiB.

    ``loader`` is the loader.img that it was made of. Raises DiskInvalid for a disk that is not what it should be,
    SizeInvalid where it is larger than ``size``; OSError.
    """
    kernel = read_kernel(loader)
    access = FileAccess(disk)
    head = access.pread(0, COMMAND_LINE_END)
    _check_kernel(access, loader, kernel.size)
    kernel_end = KERNEL_OFFSET + kernel.chunks * CHUNK_SIZE
    partitions = _partitions(head, access.size, fs, -kernel_end % _KERNEL_UNIT + kernel_end)
    end = partitions[-1].end if partitions else kernel_end
    smallest = end + -end % DISK_UNIT
    if size is not None and size < smallest:
        raise SizeInvalid(
            f"kernel and file system take {format_size(end)}, more than the disk of {format_size(size)}",
            hint=f'write size = "{format_size(smallest)}" under [image], or leave it out',
        )
    with disk.open("r+b") as file:
        file.write(release_block(head, boot))
        file.truncate(size or smallest)
        file.flush()
        os.fsync(file.fileno())
    _check_file_system(access, partitions, fs)
    return TreeDisk(
        size=size or smallest,
        kernel=kernel.sha256,
        partitions=partitions,
        read=(Extent(0, COMMAND_LINE_END), Extent(KERNEL_OFFSET, kernel_end), *partitions),
        root=_digest(ctx, disk, partitions, hashed),
    )


def check_files(disk: Path, tree: FileTree) -> None:
    """Raise DiskInvalid where the ROFS of a disk lacks one of our files, or has another in its place."""
    rofs = read_disk(disk).rofs()
    for path, entry in tree.entries.items():
        if wrong := _difference(rofs, path, entry):
            raise DiskInvalid(f"{show(path)}: {wrong} in the ROFS that the tree made")


def check_ext(disk: Path, partition: Extent, entries: int) -> None:
    """Raise DiskInvalid where an ext holds fewer files than were put into it."""
    block = FileAccess(disk).pread(partition.start + _EXT_SUPERBLOCK, 128)
    inodes, free = struct.unpack_from("<I", block, 0)[0], struct.unpack_from("<I", block, 16)[0]
    if inodes - free < entries + _EXT_RESERVED:
        raise DiskInvalid(
            f"the ext file system holds {inodes - free} files, and {entries} of ours should be among them"
        )


def _difference(rofs: RofsReader, path: bytes, entry: object) -> str | None:
    node = rofs.nodes.get(path)
    match entry:
        case Symlink(target=target):
            return None if isinstance(node, RofsSymlink) and node.target == target else "is no link to its target"
        case HostFile(size=size) | Content(size=size):
            if not isinstance(node, RofsFile):
                return "is not there"
            return None if node.size == size else f"has {node.size} bytes instead of {size}"
        case _:
            return None if node is not None else "is not there"


def _check_kernel(access: FileAccess, loader: Path, size: int) -> None:
    """The disk begins with the loader.img, but for command line and partition table."""
    ours = FileAccess(loader)
    for offset in range(0, size, _READ_SIZE):
        length = min(_READ_SIZE, size - offset)
        disk, kernel = access.pread(offset, length), ours.pread(offset, length)
        if offset == 0:
            disk, kernel = (_without_ours(each) for each in (disk, kernel))
        if disk != kernel:
            raise DiskInvalid(f"the disk does not begin with {loader.name}: they differ before byte {offset + length}")


def _without_ours(block: bytes) -> bytes:
    return block[:_TABLE] + block[510:SECTOR] + block[COMMAND_LINE_END:]


def _partitions(head: bytes, size: int, fs: str, start: int) -> tuple[Extent, ...]:
    """What stands in slot 2, and in slot 3 where there are two file systems; each must be where it should be."""
    found: list[Extent] = []
    for slot in (2, 3) if fs == "rofs_with_zfs" else (2,):
        _, chs, kind, _, first, count = _ENTRY.unpack_from(head, _TABLE + 16 * (slot - 1))
        extent = Extent(first * SECTOR, (first + count) * SECTOR)
        if kind == 0 or chs[1] & 0x3F == 0:
            raise DiskInvalid(f"partition slot {slot} is empty; fs = {fs} has a file system there")
        expected = found[-1].end if found else start
        if extent.start != expected or extent.end > size:
            raise DiskInvalid(
                f"the partition in slot {slot} is at {extent.start} to {extent.end}; it should begin at {expected}, "
                f"on a disk of {size} bytes"
            )
        found.append(extent)
    empty = [extent for extent in found if extent.start == extent.end]
    if bool(empty) == (fs in HAS_PARTITION):
        raise DiskInvalid(f"fs = {fs}: its partition has {found[0].end - found[0].start} bytes")
    return () if empty else tuple(found)


def _check_file_system(access: FileAccess, partitions: tuple[Extent, ...], fs: str) -> None:
    kinds = {"rofs_with_zfs": ("rofs", "zfs")}.get(fs, (fs,)) if partitions else ()
    for partition, kind in zip(partitions, kinds, strict=True):
        match kind:
            case "rofs":
                read_disk(access).rofs()
            case "zfs" if not _is_zfs(access, partition):
                raise DiskInvalid(f"no ZFS in the partition at {partition.start}: no uberblock in its first label")
            case "ext":
                superblock = access.pread(partition.start + _EXT_SUPERBLOCK, 128)
                if len(superblock) < 128 or struct.unpack_from("<H", superblock, 56)[0] != _EXT_MAGIC:
                    raise DiskInvalid(f"no ext in the partition at {partition.start}: no superblock")


def _is_zfs(access: FileAccess, partition: Extent) -> bool:
    start, end = _UBERBLOCKS
    region = access.pread(partition.start + start, end - start)
    return any(region[at : at + 8] == struct.pack("<Q", _UBERBLOCK) for at in range(0, len(region) - 7, 1024))


def _digest(ctx: Context, disk: Path, partitions: tuple[Extent, ...], hashed: Callable[[int, int], object]) -> Digest:
    digest, total, done = hashlib.sha256(), sum(extent.end - extent.start for extent in partitions), 0
    with disk.open("rb", buffering=0) as file:
        for extent in partitions:
            at = extent.start
            while at < extent.end:
                ctx.check()
                piece = os.pread(file.fileno(), min(_READ_SIZE, extent.end - at), at)
                if not piece:
                    raise DiskInvalid(f"the disk ends at {at}, within a partition")
                digest.update(piece)
                at, done = at + len(piece), done + len(piece)
                hashed(done, total)
    return Digest(digest.hexdigest())


def digest_of_share(directory: Path) -> Digest:
    """Over path, kind and content of all that is below a directory. Raises OSError."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        name = os.fsencode(path.relative_to(directory))
        if path.is_symlink():
            kind, content = b"l", os.fsencode(path.readlink())
        elif path.is_dir():
            kind, content = b"d", b""
        else:
            kind, content = b"f", digest_of_file(path).encode()
        digest.update(struct.pack("<cII", kind, len(name), len(content)) + name + content)
    return Digest(digest.hexdigest())


DISK_ERRORS = (ImageError, struct.error)
"""What a disk that is not what it should be raises in here."""
