"""Makes small qcow2 files byte by byte, as QEMU's docs/interop/qcow2.txt tells, for the reader's tests."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Stored(Enum):
    """How a cluster is kept."""

    ABSENT = "absent"
    ZERO = "zero"
    """Marked as zeros; version 3 alone."""
    PLAIN = "plain"
    PACKED = "packed"


def deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-12)
    return packer.compress(content) + packer.flush()


@dataclass(frozen=True)
class Shape:
    """What a header says."""

    cluster_bits: int = 9
    version: int = 3
    incompatible: int = 0
    compression: int = 0
    backing: bytes = b""
    encryption: int = 0
    pack: Callable[[bytes], bytes] = deflate


def make(content: bytes, stored: Sequence[Stored], shape: Shape | None = None) -> tuple[bytes, bytes]:
    """A qcow2 file for a disk of ``content``, its clusters kept as ``stored`` says (in turns); and what it reads as."""
    shape = shape or Shape()
    size, cluster = len(content), 1 << shape.cluster_bits
    count = -(-size // cluster)
    per_table = cluster // 8
    tables = -(-count // per_table)
    l1_clusters = -(-tables * 8 // cluster) or 1
    first_data = 1 + l1_clusters + tables
    data = bytearray()
    entries = [0] * count
    reads = bytearray(count * cluster)
    # The last half first, as a guest may write it: neighbours on the disk are not always neighbours in the file.
    for index in [*range(count // 2, count), *range(count // 2)]:
        piece = content[index * cluster : (index + 1) * cluster].ljust(cluster, b"\0")
        match stored[index % len(stored)] if stored else Stored.PLAIN:
            case Stored.PACKED:
                packed = shape.pack(piece)
                at = first_data * cluster + len(data)
                sectors = (at % 512 + len(packed) + 511) // 512 - 1
                entries[index] = 1 << 62 | sectors << (62 - (shape.cluster_bits - 8)) | at
                data += packed
            case Stored.PLAIN:
                data += bytes(-len(data) % cluster)
                entries[index] = 1 << 63 | (first_data * cluster + len(data))
                data += piece
            case kind:
                entries[index] = 1 if kind is Stored.ZERO and shape.version == 3 else 0
                piece = bytes(cluster)
        reads[index * cluster : (index + 1) * cluster] = piece
    l1 = b""
    l2 = b""
    for table in range(tables):
        part = entries[table * per_table : (table + 1) * per_table]
        place = (1 + l1_clusters + table) * cluster if any(part) else 0
        l1 += struct.pack(">Q", place and 1 << 63 | place)
        l2 += struct.pack(f">{len(part)}Q", *part).ljust(cluster, b"\0")
    head = header(shape, size, tables, cluster)
    return head.ljust(cluster, b"\0") + l1.ljust(l1_clusters * cluster, b"\0") + l2 + data, bytes(reads[:size])


def header(shape: Shape, size: int, l1_entries: int, l1_at: int) -> bytes:
    name_at = 112 if shape.backing else 0
    head = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",
        shape.version,
        name_at,
        len(shape.backing),
        shape.cluster_bits,
        size,
        shape.encryption,
        l1_entries,
        l1_at,
        0,
        0,
        0,
        0,
    )
    if shape.version == 3:
        head += struct.pack(">QQQII", shape.incompatible, 0, 0, 4, 112) + bytes([shape.compression]) + bytes(7)
    return head.ljust(112, b"\0") + shape.backing
