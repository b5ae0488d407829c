"""A disk's copy on write: a qcow2 image that holds nothing of its own but, where wanted, the first cluster.

QEMU writes the guest's changes into it and reads the rest from the disk below, which stays as it is. qcow2 version 3
(docs/interop/qcow2.txt of QEMU), clusters of 64 KiB: the first one is the boot sector and the whole command line.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from osvdeploy.errors import DiskInvalid

CLUSTER = 65_536
"""Bytes of a cluster. OSv's command line ends at 32,768, its kernel begins at 65,536."""

SIZE_LIMIT = 2 << 40
"""Bytes that a partition table can speak of."""

_SECTOR = 512
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_MAGIC = b"QFI\xfb"
_EXTERNAL_DATA = 1 << 2
_OWN = 1 << 63
"""Set in an entry of the tables whose cluster nothing else refers to."""


class DiskFormat(StrEnum):
    """How a disk lies in a file; QEMU's names."""

    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A disk image in a file. ``size`` is the disk's, in bytes, not the file's."""

    path: Path
    format: DiskFormat
    size: int


def find_disk(path: Path) -> DiskFile:
    """Look at an image file's first bytes. Raises DiskInvalid for a file that no BIOS would boot from."""
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_SECTOR)
            length = file.seek(0, 2)
    except OSError as error:
        raise DiskInvalid(f"{path}: cannot be read: {error.strerror}") from None
    if head[:4] == _MAGIC:
        return _find_qcow2(path, head)
    if len(head) < _SECTOR or head[510:512] != b"\x55\xaa":
        what = "an ELF file" if head[:4] == b"\x7fELF" else "no boot sector: bytes 510 and 511 are not 55 AA"
        raise DiskInvalid(
            f"{path}: neither a raw disk nor qcow2 ({what})",
            hint="name a disk that `osvdeploy build -o` or OSv's own build (usr.img) made",
        )
    if not any(head[0x1BE:0x1FE]):
        raise DiskInvalid(
            f"{path}: its partition table is empty: a kernel without a file system",
            hint="build an image with it: name it as `file` under [kernel] of an osv.toml",
        )
    return DiskFile(path, DiskFormat.RAW, length)


def _find_qcow2(path: Path, head: bytes) -> DiskFile:
    if len(head) < _HEADER.size:
        raise DiskInvalid(f"{path}: a truncated qcow2 image: {len(head)} bytes")
    _, version, backing, _, _, size, *_, features, _, _, _, _ = _HEADER.unpack_from(head)
    if version not in (2, 3):
        raise DiskInvalid(f"{path}: a qcow2 image of version {version}; 2 and 3 are known")
    # What a downloaded file names would be opened here, and read by its guest.
    if backing or (version == 3 and features & _EXTERNAL_DATA):
        raise DiskInvalid(
            f"{path}: a qcow2 image that is not whole: the rest of it lies in another file",
            hint=f"make it whole first: qemu-img convert -O qcow2 {path} whole.qcow2",
        )
    if not 0 < size <= SIZE_LIMIT:
        raise DiskInvalid(f"{path}: a qcow2 image of a disk of {size} bytes; a partition table reaches to 2 TiB")
    return DiskFile(path, DiskFormat.QCOW2, size)


def overlay(size: int, head: bytes | None = None) -> bytes:
    """A qcow2 file over a disk of ``size`` bytes; ``head`` stands in place of the disk's first cluster.

    The file below is not named in it: QEMU is told.
    """
    size = -(-size // _SECTOR) * _SECTOR
    tables = max(1, -(-size // (CLUSTER * CLUSTER // 8)))
    first = 3  # behind the header, the table of reference counts, and its only block
    behind = first + -(-tables * 8 // CLUSTER)
    used = behind if head is None else behind + 2
    header = _HEADER.pack(
        *(_MAGIC, 3, 0, 0, CLUSTER.bit_length() - 1, size, 0, tables, first * CLUSTER, CLUSTER, 1, 0, 0, 0, 0, 0),
        *(4, _HEADER.size),
    )
    clusters = [header, struct.pack(">Q", 2 * CLUSTER), struct.pack(">H", 1) * used]
    clusters += [b""] * (behind - first)
    if head is not None:
        if len(head) > CLUSTER:
            raise ValueError(f"a head of {len(head)} bytes; a cluster has {CLUSTER}")
        clusters[first] = struct.pack(">Q", behind * CLUSTER | _OWN)
        clusters += [struct.pack(">Q", (behind + 1) * CLUSTER | _OWN), head]
    return b"".join(cluster.ljust(CLUSTER, b"\0") for cluster in clusters)
