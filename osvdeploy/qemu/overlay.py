"""A disk's copy on write: a qcow2 image that holds nothing of its own but, where wanted, the first cluster.

QEMU writes the guest's changes into it and reads the rest from the disk below, which stays as it is. qcow2 version 3
(docs/interop/qcow2.txt of QEMU), clusters of 64 KiB: the first one is the boot sector and the whole command line.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

CLUSTER = 65_536
"""Bytes of a cluster. OSv's command line ends at 32,768, its kernel begins at 65,536."""

_SECTOR = 512
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_MAGIC = b"QFI\xfb"
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
