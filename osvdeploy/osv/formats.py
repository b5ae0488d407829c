"""Recognizes disk images of every format by their bytes, whatever they are called, and opens what is read here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.qcow2 import MAGIC as QCOW2_MAGIC
from osvdeploy.osv.qcow2 import Qcow2, read_qcow2
from osvdeploy.osv.rofs.format import MAGIC as ROFS_MAGIC
from osvdeploy.osv.source import HoleyAccess, OpenFile, foreign, head_of, open_file
from osvdeploy.osv.tarball import MAGIC as GZIP_MAGIC
from osvdeploy.osv.tarball import Tarball, read_tarball
from osvdeploy.osv.vhd import MAGIC as VHD_MAGIC
from osvdeploy.osv.vhd import Vhd, is_fixed_vhd, read_vhd
from osvdeploy.osv.vmdk import MAGIC as VMDK_MAGIC
from osvdeploy.osv.vmdk import Vmdk, read_vmdk


class SourceFormat(StrEnum):
    """How a disk may be kept in its file."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vhd"
    GCE = "gce"
    VDI = "vdi"
    VHDX = "vhdx"

    @property
    def by_qemu(self) -> bool:
        """Whether qemu-img has to read it."""
        return self in (SourceFormat.VDI, SourceFormat.VHDX)


_CALLED = {
    SourceFormat.RAW: "a raw disk",
    SourceFormat.QCOW2: "a qcow2 image",
    SourceFormat.VMDK: "a VMDK image",
    SourceFormat.VHD: "a VHD image",
    SourceFormat.GCE: "compressed with gzip, as Google's archives are",
    SourceFormat.VDI: "a VDI image",
    SourceFormat.VHDX: "a VHDX image",
}

_MAGICS = (
    (0, QCOW2_MAGIC, SourceFormat.QCOW2),
    (0, VMDK_MAGIC, SourceFormat.VMDK),
    (0, VHD_MAGIC, SourceFormat.VHD),
    (0, GZIP_MAGIC, SourceFormat.GCE),
    (64, b"\x7f\x10\xda\xbe", SourceFormat.VDI),
    (0, b"vhdxfile", SourceFormat.VHDX),
)


_EXPANSION = 1100
"""How many times its file a disk's data may be: deflate makes at most 1032 of one (zlib, "Maximum Compression Factor").
All of a disk is written, and compressed clusters of a qcow2 may be the same one."""


def _whole_qcow2(file: OpenFile) -> Qcow2:
    disk = read_qcow2(file)
    stored = sum(each.end - each.start for each in disk.data(0, disk.size))
    if stored > _EXPANSION * file.size:
        raise DiskInvalid(f"qcow2: says of a file of {file.size} bytes that {stored} of its disk are in it")
    return disk


_READERS: dict[SourceFormat, Callable[[OpenFile], Qcow2 | Vmdk | Vhd | Tarball]] = {
    SourceFormat.QCOW2: _whole_qcow2,
    SourceFormat.VMDK: read_vmdk,
    SourceFormat.VHD: read_vhd,
    SourceFormat.GCE: read_tarball,
}


@dataclass(frozen=True, slots=True)
class OpenDisk:
    """A disk image that is open. ``disk`` is None for what qemu-img has to read; a Tarball can be read once."""

    path: Path
    file: OpenFile
    format: SourceFormat
    disk: HoleyAccess | Tarball | None
    detail: str = ""


@contextmanager
def open_disk(path: Path, expected: SourceFormat | None = None) -> Iterator[OpenDisk]:
    """The disk in ``path``, for as long as the block lasts.

    Raises DiskInvalid that names the file: it cannot be opened or is damaged, is of a format that is not known or
    another than ``expected``, or is nothing that looks like a disk; ``expected`` lets any bytes be a raw disk that no
    other format claims.
    """
    with open_file(path) as file, _open_as(file, _recognized(file, expected)) as opened:
        yield opened


@contextmanager
def open_as(path: Path, known: SourceFormat) -> Iterator[OpenDisk]:
    """The disk in a file that is of this format and no other: what is on a raw disk may begin like another one.

    Raises DiskInvalid that names the file.
    """
    with open_file(path) as file, _open_as(file, known) as opened:
        yield opened


@contextmanager
def _open_as(file: OpenFile, found: SourceFormat) -> Iterator[OpenDisk]:
    path = file.path
    try:
        disk, detail = _opened(file, found)
        yield OpenDisk(path, file, found, disk, detail)
    except DiskInvalid as error:
        if error.message.startswith(f"{path}: "):
            raise
        hint = error.hint and error.hint.replace("IMAGE", str(path))
        raise DiskInvalid(f"{path}: {error.message}", hint=hint) from None


def _opened(file: OpenFile, found: SourceFormat) -> tuple[HoleyAccess | Tarball | None, str]:
    if found.by_qemu:
        return None, ""
    if found is SourceFormat.RAW:
        return file, ""
    disk = _READERS[found](file)
    return disk, disk.detail


def _recognized(file: OpenFile, expected: SourceFormat | None) -> SourceFormat:
    head = head_of(file)
    found = next((each for at, magic, each in _MAGICS if head.startswith(magic, at)), None)
    if found is None and is_fixed_vhd(file):
        found = SourceFormat.VHD
    if found is None and (other := foreign(file.path, head)):
        raise DiskInvalid(f"{file.path}: {other[0]}", hint=other[1])
    if expected is not None and found not in (expected, None):
        raise DiskInvalid(
            f"{file.path}: {_CALLED[found]}, not {_CALLED[expected]}", hint="leave --from out, or name what it is"
        )
    if found is None and expected not in (SourceFormat.RAW, None):
        raise DiskInvalid(
            f"{file.path}: not {_CALLED[expected]}: nothing at its beginning says so", hint="leave --from out"
        )
    if found is None and expected is None and not _looks_raw(head):
        raise DiskInvalid(
            f"{file.path}: of no format that is known, and without boot sector: bytes 510 and 511 are not 55 AA",
            hint="if it is a raw disk all the same, say --from raw",
        )
    return found or SourceFormat.RAW


def _looks_raw(head: bytes) -> bool:
    """A boot sector or a protective one, or a ROFS without a disk around it."""
    return head[510:512] == b"\x55\xaa" or head[:8] == ROFS_MAGIC.to_bytes(8, "little")
