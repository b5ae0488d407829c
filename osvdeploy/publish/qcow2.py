"""Writes qcow2, QEMU's disk image format (QEMU: docs/interop/qcow2.txt), version 3, in one pass.

Clusters of 64 KiB, as QEMU makes them, none compressed. What is not stored has no cluster::

    header                  one cluster
    L1 table                as long as the disk's size asks for
    data, L2 tables         clusters of the disk, ascending; behind those that one table tells of, the table
    refcounts               blocks that say 1 of every cluster of the file, themselves included, and the table of them

The bytes depend on the disk alone.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Iterable

from osvdeploy.osv.contents import pwrite_all
from osvdeploy.sizes import KIB

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII8x")
_ENTRIES = CLUSTER // 8
_REACH = _ENTRIES * CLUSTER
"""Bytes of the disk that one L2 table tells of: 512 MiB."""
_COPIED = 1 << 63
"""A cluster that nothing else uses may be written in place."""
_REFCOUNT_BITS = 4
"""2^4 bits for each."""
_COUNTS = CLUSTER // 2
"""Clusters that one block of refcounts tells of."""


def write_qcow2(fd: int, size: int, runs: Iterable[tuple[int, bytes]]) -> None:
    """Write a disk of ``size`` bytes into an empty file. ``runs`` are whole clusters, ascending. Raises OSError."""
    l1 = array("Q", bytes(8 * -(-size // _REACH)))
    l1_clusters = -(-len(l1) * 8 // CLUSTER)
    end = 1 + l1_clusters
    table, index = array("Q", bytes(CLUSTER)), -1

    def close_table() -> None:
        nonlocal end
        if index >= 0:
            pwrite_all(fd, _big_endian(table), end * CLUSTER)
            l1[index] = _COPIED | end * CLUSTER
            end += 1

    for at, run in runs:
        while run:
            if at // _REACH != index:
                close_table()
                table, index = array("Q", bytes(CLUSTER)), at // _REACH
            part, run = run[: (index + 1) * _REACH - at], run[(index + 1) * _REACH - at :]
            pwrite_all(fd, part, end * CLUSTER)
            first, count = at % _REACH // CLUSTER, len(part) // CLUSTER
            table[first : first + count] = array("Q", (_COPIED | (end + each) * CLUSTER for each in range(count)))
            at, end = at + len(part), end + count
    close_table()
    blocks, table_clusters = _refcounts(end)
    total = end + blocks + table_clusters
    for number in range(blocks):
        told = min(_COUNTS, total - number * _COUNTS)
        pwrite_all(fd, b"\0\1" * told, (end + number) * CLUSTER)
    places = array("Q", ((end + number) * CLUSTER for number in range(blocks)))
    pwrite_all(fd, _big_endian(places), (end + blocks) * CLUSTER)
    pwrite_all(fd, _big_endian(l1), CLUSTER)
    header = _HEADER.pack(
        *(b"QFI\xfb", 3, 0, 0, CLUSTER_BITS, size, 0),
        *(len(l1), CLUSTER),
        *((end + blocks) * CLUSTER, table_clusters),
        *(0, 0),  # no snapshots
        *(0, 0, 0),  # no features
        *(_REFCOUNT_BITS, _HEADER.size),
    )
    pwrite_all(fd, header, 0)
    os.ftruncate(fd, total * CLUSTER)


def _refcounts(clusters: int) -> tuple[int, int]:
    """How many blocks of refcounts, and clusters of their table, a file of so many other clusters takes."""
    blocks, table = 0, 1
    while (needed := -(-(clusters + blocks + table) // _COUNTS)) > blocks:
        blocks, table = needed, -(-needed * 8 // CLUSTER)
    return blocks, table


def _big_endian(numbers: array[int]) -> bytes:
    if sys.byteorder == "little":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


assert CLUSTER == 64 * KIB
