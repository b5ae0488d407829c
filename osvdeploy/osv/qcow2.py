"""Reads qcow2, QEMU's disk image format (QEMU: docs/interop/qcow2.txt), versions 2 and 3, and writes none.

The disk is cut into clusters. A table of two levels says of each where it stands in the file: the first level (L1) has
the place of second-level tables (L2), each of which fills a cluster. A cluster may be absent (zeros), marked as zeros,
stored as it is, or compressed. Big endian throughout. What needs another file (a backing file, an external data file)
or a key is refused: the bytes would not be those a machine sees.

No number of the file is believed: offsets must lie in the file, and memory is a few tables and clusters, whatever the
header says. Nothing stands for two parts of the disk, so that a disk holds no more plain data than its file; only what
is compressed can be more, and :meth:`Qcow2.held` tells how much of the file that is.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.disk import RandomAccess
from osvdeploy.osv.image import Extent
from osvdeploy.sizes import TIB, format_size

MAGIC = b"QFI\xfb"

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_HEADER_3 = struct.Struct(">QQQII")
_COMPRESSION_AT = 104

_CLUSTER_BITS = range(9, 22)
"""512 bytes to 2 MiB: what QEMU makes and opens."""
_L1_LIMIT = 32 << 20
"""Bytes of the L1 table that QEMU accepts (block/qcow2.h)."""
_SIZE_LIMIT = 2 * TIB
"""No partition table reaches further, and a header may claim 2^61 bytes, which are not walked through in a lifetime."""
_HEADER_LIMIT = 1 << 16

_DIRTY, _CORRUPT, _EXTERNAL, _COMPRESSION, _EXTENDED = (1 << bit for bit in range(5))

_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_ZERO = 1
_SECTOR = 512

_WINDOW_LIMIT = 8 << 20
"""Bytes of zstd's window: no cluster is larger than 2 MiB."""
_CACHE_SIZE = 8 << 20
"""Bytes of L2 tables that are kept, and as many of unpacked clusters; at least two of each."""
_DAMAGED = "the file was cut short, or is damaged: qemu-img check tells more"
_CONVERT = "make it raw first: qemu-img convert -O raw IMAGE disk.raw"


Cached = TypeVar("Cached")


class Compression(IntEnum):
    """How compressed clusters are packed."""

    ZLIB = 0
    ZSTD = 1


@dataclass(frozen=True, slots=True)
class Run:
    """``length`` bytes of the disk that stand together: ``stored`` at that byte of the file, or packed there
    (``packed`` is the length of what is stored, for one cluster), or zeros where it is None. ``skip`` bytes of a packed
    cluster stand before them."""

    offset: int
    length: int
    stored: int | None
    packed: int = 0
    skip: int = 0


class Claims:
    """A set of numbers, 64 neighbours in one: as small where they are many as where they are few and far apart."""

    def __init__(self) -> None:
        self._bits: dict[int, int] = {}

    def claim(self, number: int) -> bool:
        """Put it in. False where it was in before."""
        before, bit = self._bits.get(number >> 6, 0), 1 << (number & 63)
        self._bits[number >> 6] = before | bit
        return not before & bit


@dataclass(frozen=True, slots=True)
class Qcow2:
    """A qcow2 image as the disk that a machine sees, ``size`` bytes of it."""

    file: RandomAccess
    size: int
    version: int
    cluster_bits: int
    compression: Compression
    corrupt: bool
    _l1: array[int] = field(repr=False)
    _claims: Claims = field(repr=False)
    _looked: Claims = field(default_factory=Claims, repr=False)
    _tables: OrderedDict[int, array[int]] = field(default_factory=OrderedDict, repr=False)
    _clusters: OrderedDict[int, bytes] = field(default_factory=OrderedDict, repr=False)

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def detail(self) -> str:
        """For people."""
        marked = ", marked corrupt" if self.corrupt else ""
        return f"version {self.version}, clusters of {format_size(self.cluster_size)}{marked}"

    def pread(self, offset: int, length: int) -> bytes:
        """Raises DiskInvalid where tables or clusters lead out of the file, or a cluster cannot be unpacked."""
        end = min(offset + length, self.size)
        pieces = []
        for run in self._runs(offset, end):
            if run.stored is None:
                pieces.append(bytes(run.length))
            elif run.packed:
                pieces.append(self._unpacked(run.stored, run.packed)[run.skip : run.skip + run.length])
            else:
                pieces.append(self._stored(run.stored, run.length))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def data(self, start: int, end: int) -> Iterator[Extent]:
        """The ranges that are stored; a table that is absent is passed over whole."""
        begin = stop = start
        for run in self._runs(start, min(end, self.size)):
            if run.stored is None:
                continue
            if run.offset != stop:
                if stop > begin:
                    yield Extent(begin, stop)
                begin = run.offset
            stop = run.offset + run.length
        if stop > begin:
            yield Extent(begin, stop)

    def held(self, start: int, end: int) -> int:
        """How many bytes of the file ``start`` to ``end`` of the disk are made of. Compressed clusters say in whole
        sectors how long they are, so they may overlap: each byte counts once."""
        plain, packed = 0, list[tuple[int, int]]()
        for run in self._runs(start, min(end, self.size)):
            if run.packed:
                packed.append((run.stored or 0, min(run.packed, self.file.size - (run.stored or 0))))
            elif run.stored is not None:
                plain += run.length
        at = 0
        for place, length in sorted(packed):
            plain += max(0, place + length - max(at, place))
            at = max(at, place + length)
        return plain

    def _runs(self, at: int, end: int) -> Iterator[Run]:
        """What ``at`` to ``end`` consists of, neighbours that stand together in the file as one."""
        cluster_size = self.cluster_size
        reach = cluster_size << (self.cluster_bits - 3)  # bytes of the disk that one L2 table tells of
        while at < end:
            table = self._table(at // reach)
            stop = min(end, (at // reach + 1) * reach)
            if table is None:
                yield Run(at, stop - at, None)
                at = stop
                continue
            last = -(-(stop % reach or reach) // cluster_size)
            pending: Run | None = None
            while at < stop:
                index, skip = divmod(at % reach, cluster_size)
                run = self._run(table[index], at, skip, min(cluster_size - skip, stop - at))
                if not run.packed:
                    # Most disks are long holes and long pieces: there only their entries are looked at.
                    same = _alike(table, index, 0 if run.stored is None else cluster_size, last)
                    length = min(run.length + (same - 1) * cluster_size, stop - at)
                    run = Run(at, length, run.stored)
                at += run.length
                if pending is None:
                    pending = run
                elif pending.packed or run.packed or not _adjacent(pending, run):
                    yield pending
                    pending = run
                else:
                    pending = Run(pending.offset, pending.length + run.length, pending.stored)
            if pending is not None:
                yield pending

    def _run(self, entry: int, offset: int, skip: int, length: int) -> Run:
        if entry & _COMPRESSED:
            # How many bits tell the place and how many the count of sectors goes by the size of a cluster.
            split = 62 - (self.cluster_bits - 8)
            place, sectors = entry & ((1 << split) - 1), (entry & (_COMPRESSED - 1)) >> split
            return Run(offset, length, place, (sectors + 1) * _SECTOR - place % _SECTOR, skip)
        place = entry & _OFFSET
        if place == 0 or (self.version > 2 and entry & _ZERO):
            return Run(offset, length, None)
        if place % self.cluster_size:
            raise DiskInvalid(f"qcow2: byte {offset} of the disk is said to stand at byte {place}, within a cluster")
        return Run(offset, length, place + skip)

    def _table(self, index: int) -> array[int] | None:
        """An L2 table; None where there is none, or nothing in it."""
        place = self._l1[index] & _OFFSET
        if place == 0:
            return None
        found = self._tables.get(place)
        if found is None:
            content = b"" if place % self.cluster_size else self.file.pread(place, self.cluster_size)
            if len(content) != self.cluster_size:
                raise DiskInvalid(
                    f"qcow2: table {index} is said to stand at byte {place} of a file of {self.file.size} bytes",
                    hint=_DAMAGED,
                )
            found = _numbers(content) if any(content) else array("Q")
            if self._looked.claim(index):
                self._claim(found)
            _keep(self._tables, place, found, self.cluster_size)
        self._tables.move_to_end(place)
        return found or None

    def _claim(self, table: array[int]) -> None:
        """Raise DiskInvalid where a cluster of the file stands for two of the disk: no machine could write to it, QEMU
        makes none, and with it a short file is a disk of gigabytes, every byte of which has to be read."""
        zeros = _COMPRESSED | _ZERO if self.version > 2 else _COMPRESSED
        for entry in table:
            place = entry & _OFFSET
            if place and not entry & zeros and not self._claims.claim(place >> self.cluster_bits):
                raise DiskInvalid(
                    f"qcow2: byte {place} of the file is said to be in two clusters of the disk, or in a table too",
                    hint=_DAMAGED,
                )

    def _stored(self, place: int, length: int) -> bytes:
        content = self.file.pread(place, length) if place < self.file.size else b""
        if len(content) != length:
            # QEMU lets the last cluster end with the file, which it then reads as zeros; a whole cluster is missing
            # only where the file was cut.
            if length - len(content) < self.cluster_size and content:
                return content.ljust(length, b"\0")
            raise DiskInvalid(
                f"qcow2: data is said to stand at byte {place} of a file of {self.file.size} bytes",
                hint=_DAMAGED,
            )
        return content

    def _unpacked(self, place: int, length: int) -> bytes:
        if (found := self._clusters.get(place)) is not None:
            self._clusters.move_to_end(place)
            return found
        # The count is of whole sectors: the last one may reach past the end of the file.
        packed = self.file.pread(place, length) if place < self.file.size else b""
        try:
            content = _UNPACK[self.compression](packed, self.cluster_size)
        except (zlib.error, ValueError) as error:
            raise DiskInvalid(f"qcow2: the compressed cluster at byte {place} cannot be unpacked: {error}") from None
        if len(content) != self.cluster_size:
            raise DiskInvalid(f"qcow2: the compressed cluster at byte {place} has {len(content)} bytes")
        _keep(self._clusters, place, content, self.cluster_size)
        return content


def read_qcow2(file: RandomAccess) -> Qcow2:
    """Parse the header and the L1 table. Raises DiskInvalid that says what is wrong, or what is needed besides."""
    head = file.pread(0, _HEADER_LIMIT)
    if len(head) < _HEADER.size or head[:4] != MAGIC:
        raise DiskInvalid(f"qcow2: {len(head)} bytes do not hold a header, which begins with {MAGIC!r}")
    _, version, backing, _, cluster_bits, size, crypt, l1_entries, l1_at, _, _, _, _ = _HEADER.unpack_from(head)
    if version not in (2, 3):
        raise DiskInvalid(f"qcow2: version {version}; 2 and 3 are known", hint=_CONVERT)
    features, compression = _features(head, version)
    if backing:
        raise DiskInvalid(
            f"qcow2: needs the backing file {_backing_name(head)!r}: it holds the changes to another image alone",
            hint="make a whole image of both: qemu-img convert -O raw IMAGE disk.raw",
        )
    if crypt:
        raise DiskInvalid("qcow2: encrypted", hint="unlock it with qemu-img convert")
    _check_features(features)
    if cluster_bits not in _CLUSTER_BITS:
        raise DiskInvalid(f"qcow2: clusters of 2^{cluster_bits} bytes; QEMU knows 2^9 to 2^21")
    if size > _SIZE_LIMIT:
        raise DiskInvalid(f"qcow2: a disk of {size} bytes; a partition table reaches no further than 2 TiB")
    needed = -(-size >> (2 * cluster_bits - 3))
    if needed > l1_entries or needed * 8 > _L1_LIMIT:
        raise DiskInvalid(f"qcow2: a disk of {size} bytes takes {needed} entries of an L1 table that has {l1_entries}")
    content = file.pread(l1_at, needed * 8) if needed and l1_at < file.size else b""
    if len(content) != needed * 8:
        raise DiskInvalid(f"qcow2: the L1 table, {needed} entries at byte {l1_at}, is not in a file of {file.size}")
    l1, claims = _numbers(content), Claims()
    if any(content):
        for entry in l1:
            if (place := entry & _OFFSET) and not claims.claim(place >> cluster_bits):
                raise DiskInvalid("qcow2: two entries of the L1 table share one L2 table", hint=_DAMAGED)
    return Qcow2(file, size, version, cluster_bits, compression, bool(features & _CORRUPT), l1, claims)


def _features(head: bytes, version: int) -> tuple[int, Compression]:
    if version == 2:
        return 0, Compression.ZLIB
    if len(head) < _COMPRESSION_AT:
        raise DiskInvalid(f"qcow2: {len(head)} bytes do not hold a header of version 3")
    features, _, _, _, length = _HEADER_3.unpack_from(head, _HEADER.size)
    if not features & _COMPRESSION:
        return features, Compression.ZLIB
    kind = head[_COMPRESSION_AT] if length > _COMPRESSION_AT and len(head) > _COMPRESSION_AT else 0
    try:
        return features, Compression(kind)
    except ValueError:
        raise DiskInvalid(f"qcow2: clusters are compressed in a way (number {kind}) that is not known") from None


def _check_features(features: int) -> None:
    if features & _EXTERNAL:
        raise DiskInvalid("qcow2: its data stands in another file", hint=_CONVERT)
    if features & _EXTENDED:
        raise DiskInvalid("qcow2: has extended L2 entries, which are not read here", hint=_CONVERT)
    if unknown := features & ~(_DIRTY | _CORRUPT | _COMPRESSION):
        raise DiskInvalid(f"qcow2: has features that are not known (bits {unknown:#x})", hint=_CONVERT)


def _backing_name(head: bytes) -> str:
    at, length = struct.unpack_from(">QI", head, 8)
    return head[at : at + min(length, 1023)].decode("utf-8", "backslashreplace")


def _adjacent(before: Run, after: Run) -> bool:
    if before.stored is None or after.stored is None:
        return before.stored is after.stored
    return before.stored + before.length == after.stored


def _alike(table: array[int], first: int, step: int, end: int) -> int:
    """How many entries, from ``first`` on and before ``end``, rise by ``step``: one at least."""
    at, wanted = first + 1, table[first] + step
    while at < end and table[at] == wanted:
        at, wanted = at + 1, wanted + step
    return at - first


def _numbers(content: bytes) -> array[int]:
    numbers = array("Q", content)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _keep(cache: OrderedDict[int, Cached], place: int, what: Cached, size: int) -> None:
    cache[place] = what
    while len(cache) > max(2, _CACHE_SIZE // size):
        cache.popitem(last=False)


def _inflate(packed: bytes, size: int) -> bytes:
    # Raw deflate with a window of 4 KiB (QEMU: block/qcow2-threads.c); a larger window reads it as well.
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size)


def _unpack_zstd(packed: bytes, size: int) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise DiskInvalid(
            "qcow2: clusters are compressed with zstd, and the Python package zstandard is not installed",
            hint=f"install it (pip install 'osvdeploy[zstd]'), or {_CONVERT}",
        ) from None
    try:
        # One frame: what follows it in the last sector belongs to other clusters.
        with zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT).stream_reader(io.BytesIO(packed)) as reader:
            return reader.read(size)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


_UNPACK: dict[Compression, Callable[[bytes, int], bytes]] = {
    Compression.ZLIB: _inflate,
    Compression.ZSTD: _unpack_zstd,
}
