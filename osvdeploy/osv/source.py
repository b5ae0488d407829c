"""Opens a disk image of any format for reading at any place, and knows where it holds nothing but zeros.

A disk of whole GiB is mostly a hole: who compares or searches two of them asks first where there is data.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.disk import RandomAccess
from osvdeploy.osv.image import Extent
from osvdeploy.osv.qcow2 import MAGIC as QCOW2_MAGIC
from osvdeploy.osv.qcow2 import Qcow2, read_qcow2


class Format(StrEnum):
    """How a disk is kept in its file."""

    RAW = "raw"
    QCOW2 = "qcow2"


class HoleyAccess(RandomAccess, Protocol):
    """A disk that knows its holes."""

    def data(self, start: int, end: int) -> Iterator[Extent]:
        """The parts of ``start`` to ``end`` that may hold anything but zeros, ascending, none of them empty."""
        ...


@runtime_checkable
class SparseAccess(HoleyAccess, Protocol):
    """A disk that knows its holes, and what it takes in its file."""

    def held(self, start: int, end: int) -> int:
        """Bytes of the file that ``start`` to ``end`` are made of: a hole is none, what is compressed is few."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a disk, as a disk. Of one that does not know its holes all is data."""

    source: RandomAccess
    extent: Extent

    @property
    def size(self) -> int:
        return self.extent.end - self.extent.start

    def pread(self, offset: int, length: int) -> bytes:
        return self.source.pread(self.extent.start + offset, max(0, min(length, self.size - offset)))

    def data(self, start: int, end: int) -> Iterator[Extent]:
        start, end = self._there(start, end)
        if isinstance(self.source, SparseAccess):
            for each in self.source.data(start, end):
                yield Extent(each.start - self.extent.start, each.end - self.extent.start)
        elif start < end:
            yield Extent(start - self.extent.start, end - self.extent.start)

    def held(self, start: int, end: int) -> int:
        start, end = self._there(start, end)
        return self.source.held(start, end) if isinstance(self.source, SparseAccess) else max(0, end - start)

    def _there(self, start: int, end: int) -> tuple[int, int]:
        return self.extent.start + start, min(self.extent.start + end, self.extent.end)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An open disk image. ``allocated`` is what its file takes on this machine, in bytes; ``size`` of the source is the
    disk's as a machine would see it."""

    path: Path
    format: Format
    source: SparseAccess
    allocated: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file or block device that is open, as a raw disk. ``pread`` raises DiskInvalid where the medium fails."""

    path: Path
    fd: int
    size: int

    def pread(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        pieces = []
        try:
            while length > 0 and (piece := os.pread(self.fd, length, offset)):
                pieces.append(piece)
                offset, length = offset + len(piece), length - len(piece)
        except OSError as error:
            raise DiskInvalid(f"{self.path}: cannot be read at byte {offset}: {error.strerror}") from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def data(self, start: int, end: int) -> Iterator[Extent]:
        end = min(end, self.size)
        while start < end:
            try:
                begin = os.lseek(self.fd, start, os.SEEK_DATA)
                stop = os.lseek(self.fd, begin, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:  # not: nothing but a hole follows
                    yield Extent(start, end)  # a device, or a file system that knows no holes
                return
            if begin >= end:
                return
            yield Extent(begin, min(stop, end))
            start = stop

    def held(self, start: int, end: int) -> int:
        return sum(each.end - each.start for each in self.data(start, end))


@dataclass(frozen=True, slots=True)
class _Named:
    """A qcow2 whose faults, which may come to light long after it was opened, name its file."""

    path: Path
    disk: Qcow2

    @property
    def size(self) -> int:
        return self.disk.size

    def pread(self, offset: int, length: int) -> bytes:
        try:
            return self.disk.pread(offset, length)
        except DiskInvalid as error:
            raise _of(self.path, error) from None

    def data(self, start: int, end: int) -> Iterator[Extent]:
        try:
            yield from self.disk.data(start, end)
        except DiskInvalid as error:
            raise _of(self.path, error) from None

    def held(self, start: int, end: int) -> int:
        try:
            return self.disk.held(start, end)
        except DiskInvalid as error:
            raise _of(self.path, error) from None


_RAW = "make it raw first: osvdeploy convert {path} disk.raw"
_SEVERAL = "its disk is in other files: qemu-img convert -O raw {path} disk.raw makes one of them"
_QEMU = "make it raw first: qemu-img convert -O raw {path} disk.raw"
_DISK = "OSv boots from a disk: name usr.img of OSv's build, or a raw disk"
_KERNEL = "of a kernel alone, osvdeploy kernel inspect {path} tells more"
_FOREIGN = (
    (
        0,
        b"\x1f\x8b",
        "compressed with gzip",
        "unpack it first: gunzip -k {path}, or of Google's archive: osvdeploy convert {path} disk.raw",
    ),
    (0, b"BZh", "compressed with bzip2", "unpack it first: bunzip2 -k {path}"),
    (0, b"\xfd7zXZ\0", "compressed with xz", "unpack it first: unxz -k {path}"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first: unzstd -k {path}"),
    (0, b"KDMV", "a VMDK image", _RAW),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor", _SEVERAL),
    (64, b"\x7f\x10\xda\xbe", "a VDI image", _RAW),
    (0, b"vhdxfile", "a VHDX image", _RAW),
    (0, b"conectix", "a dynamic VHD image", _RAW),
    (0, b"QED\0", "a QED image", _QEMU),
    (257, b"ustar", "a tar archive", "unpack it first: tar -xf {path}"),
    (0, b"PK\3\4", "a zip archive", "unpack it first: unzip {path}"),
    (0x8001, b"CD001", "an ISO 9660 image, a CD", _DISK),
    (0, b"\x7fELF", "an ELF file, not a disk", _KERNEL),
    (0x38, b"ARM\x64", "an arm64 kernel image, not a disk", _KERNEL),
    (0x202, b"HdrS", "a kernel in Linux's format (vmlinuz), not a disk", _KERNEL),
)


_HEAD = 0x8006
"""Bytes of a file that tell its format."""


@contextmanager
def open_image(path: Path) -> Iterator[ImageFile]:
    """The disk in ``path``, raw or qcow2, for as long as the block lasts.

    Raises DiskInvalid where it cannot be opened, is of another format, or a qcow2 that cannot be read alone.
    """
    with open_file(path) as raw:
        yield _told_apart(path, raw, os.fstat(raw.fd).st_blocks * 512)


@contextmanager
def open_file(path: Path) -> Iterator[OpenFile]:
    """A file or block device, for as long as the block lasts. Raises DiskInvalid where it cannot be opened, or is
    none."""
    try:
        # O_NONBLOCK: a pipe must not wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise DiskInvalid(f"{path}: cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise DiskInvalid(f"{path}: a directory, not an image", hint="name a disk, or a folder with an osv.toml")
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise DiskInvalid(f"{path}: neither a file nor a block device")
        yield OpenFile(path, fd, os.lseek(fd, 0, os.SEEK_END))
    finally:
        os.close(fd)


def is_disk(path: Path) -> bool:
    """Whether a file is a whole disk, and not a kernel, which has a boot sector too: an image of any format, or a boot
    sector whose partition table is not empty. False where it cannot be read."""
    try:
        if not (path.is_file() or path.is_block_device()):  # a pipe would wait for its writer
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    hints = [hint for at, magic, _, hint in _FOREIGN if head.startswith(magic, at)]
    if head.startswith(QCOW2_MAGIC) or not {_RAW, _SEVERAL, _QEMU, _DISK}.isdisjoint(hints):
        return True
    return head[510:512] == b"\x55\xaa" and any(head[0x1BE:510]) and _KERNEL not in hints


def _of(path: Path, error: DiskInvalid) -> DiskInvalid:
    return DiskInvalid(f"{path}: {error.message}", hint=error.hint and error.hint.replace("IMAGE", str(path)))


def head_of(raw: OpenFile) -> bytes:
    """The bytes that tell a file's format. Raises DiskInvalid for a file without any."""
    head = raw.pread(0, _HEAD)
    if not head:
        raise DiskInvalid(f"{raw.path}: empty", hint="what made it failed, or is not done: make or download it again")
    return head


def foreign(path: Path, head: bytes) -> tuple[str, str] | None:
    """What a file is that is neither a raw disk nor a qcow2, and what to do with it."""
    for at, magic, what, hint in _FOREIGN:
        if head.startswith(magic, at):
            return what, hint.format(path=path)
    return None


def _told_apart(path: Path, raw: OpenFile, allocated: int) -> ImageFile:
    head = head_of(raw)
    if head.startswith(QCOW2_MAGIC):
        try:
            qcow2 = read_qcow2(raw)
        except DiskInvalid as error:
            raise _of(path, error) from None
        return ImageFile(path, Format.QCOW2, _Named(path, qcow2), allocated, qcow2.detail)
    if found := foreign(path, head):
        raise DiskInvalid(f"{path}: {found[0]}", hint=found[1])
    return ImageFile(path, Format.RAW, raw, allocated)
