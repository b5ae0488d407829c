"""Images that a hostile hand would make: each a file of about 1 MB that speaks of as much more as its format allows."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import zstandard

from osvdeploy.osv.disk import with_partition
from osvdeploy.osv.image import Extent
from osvdeploy.publish.archive import sparse_header
from tests.osv.images import loader_image
from tests.osv.kernels import kernel_elf, lzloader
from tests.osv.qcow2_files import Shape, deflate, header

MIB = 1 << 20


# -------------------------------------------------------------------------------------------------------------- qcow2


def mapped(
    clusters: Sequence[int | None], data: Sequence[bytes], *, bits: int = 16, pack: Packer | None = None
) -> bytes:
    """A qcow2 whose cluster ``i`` of the disk is ``data[clusters[i]]``, None for a hole; ``pack`` compresses them. What
    is named twice stands in the file once."""
    cluster = 1 << bits
    tables = -(-len(clusters) // (cluster // 8))
    l1_clusters = -(-tables * 8 // cluster)
    file = bytearray(header(_shape(bits, pack), len(clusters) * cluster, tables, cluster).ljust(cluster, b"\0"))
    file += b"".join(struct.pack(">Q", 1 << 63 | (1 + l1_clusters + at) * cluster) for at in range(tables))
    file += bytes((1 + l1_clusters + tables) * cluster - len(file))
    entries = []
    for piece in data:
        if pack is None:
            file += bytes(-len(file) % cluster)
            entries.append(1 << 63 | len(file))
            file += piece
        else:
            packed = pack(piece.ljust(cluster, b"\0"))
            sectors = (len(file) % 512 + len(packed) + 511) // 512 - 1
            entries.append(1 << 62 | sectors << (62 - (bits - 8)) | len(file))
            file += packed
    table = b"".join(struct.pack(">Q", 0 if at is None else entries[at]) for at in clusters)
    file[(1 + l1_clusters) * cluster : (1 + l1_clusters) * cluster + len(table)] = table
    return bytes(file)


Packer = Callable[[bytes], bytes]


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(content)


def _shape(bits: int, pack: Packer | None) -> Shape:
    kind = 1 if pack is zstd else 0
    return Shape(cluster_bits=bits, incompatible=kind << 3, compression=kind)


# --------------------------------------------------------------------------------------------------------------- ROFS

_ROOT = struct.pack("<4Q", 0x4000, 1, 0, 0)


def superblock(size: int, entries: int, links: int, inodes: int) -> bytes:
    """Tables of ``size`` bytes that begin at 64 KiB."""
    fields = (0xDEADBEAD, 1, 512, 128, size // 512, entries, links, inodes)
    return struct.pack("<8Q", *fields).ljust(65_536, b"\0")


def names_of_one_file(count: int, size: int, *, below: bytes = b"d") -> bytes:
    """A ROFS with a directory that has ``count`` names, of one empty file; the directory's own is ``below``."""
    entries = struct.pack("<QH", 2, len(below)) + below
    entries += b"".join(struct.pack("<QH", 3, len(name)) + name for name in (b"%x" % at for at in range(count)))
    inodes = [(0x4000, 1, 0, 1), (0x4000, 2, 1, count), (0x8000, 3, 0, 0)]
    tables = entries + b"".join(struct.pack("<4Q", *each) for each in inodes)
    return superblock(size, count + 1, 0, 3) + tables.ljust(size, b"\0")


def shared_names(size: int, *, pack: Packer | None = None) -> bytes:
    """Tables of ``size`` bytes, a name in 16 of them, in one cluster of 64 KiB."""
    each = 65_536
    names = b"".join(struct.pack("<QH", 2, 6) + b"%06d" % at for at in range(each // 16))
    last = names[:-64] + struct.pack("<4Q", 0x4000, 1, 0, 4096) + struct.pack("<4Q", 0x8000, 2, 0, 0)
    count = (size - 64) // 16
    return mapped([0, *[1] * (size // each - 1), 2], [superblock(size, count, 0, 2), names, last], pack=pack)


def shared_directories() -> bytes:
    """4,000 directories of 4,096 names each, all names in one cluster."""
    count, each = 4000, 65_536
    own = b"".join(struct.pack("<QH", 3 + at, 6) + b"%06d" % at for at in range(4096))
    names = b"".join(struct.pack("<QH", 2, 6) + b"%06d" % at for at in range(4096))
    inodes = struct.pack("<4Q", 0x4000, 1, 0, count) + struct.pack("<4Q", 0x8000, 2, 0, 0)
    inodes += b"".join(struct.pack("<4Q", 0x4000, 3 + at, 4096 * (at + 1), 4096) for at in range(count))
    rest = [inodes[at : at + each] for at in range(0, len(inodes), each)]
    size = each * (1 + count + len(rest))
    places = [0, 1, *[2] * count, *range(3, 3 + len(rest))]
    return mapped(places, [superblock(size, 4096 * (count + 1), 0, 2 + count), own, names, *rest])


def packed_names(pack: Packer, *, count: int, size: int, below: bytes = b"d") -> bytes:
    """So many names of one file, each its own, in tables that are compressed."""
    content, each = names_of_one_file(count, size, below=below), 65_536
    data = [content[at : at + each] for at in range(0, len(content), each)]
    return mapped(range(len(data)), data, pack=pack)


def one_rofs_four_times() -> bytes:
    """A raw disk whose four partitions are one."""
    rofs = names_of_one_file(60_000, 960 * 1024)
    head = with_partition(loader_image(), Extent(192 * 1024, 192 * 1024 + len(rofs)))
    entry = head[0x1CE:0x1DE]
    return head[:0x1BE] + entry * 4 + head[0x1FE:].ljust(192 * 1024 - 0x1FE, b"\0") + rofs


def one_cluster_for_all() -> bytes:
    """A disk of 13 GiB, each cluster of which is the same compressed one."""
    return mapped([0] * 220_000, [b"a" * 65_536], pack=deflate)


# ------------------------------------------------------------------------------------------------------------ archives


def unending_map() -> bytes:
    """A tar whose one file is said to be in a million pieces."""
    extents = [Extent(each * 1024, each * 1024 + 512) for each in range(5)]
    head = bytearray(sparse_header(b"disk.raw", 1 << 40, extents)[:1024])
    head[1024 - 8] = 1
    entries = b"".join(b"%011o\0%011o\0" % (each * 1024, 512) for each in range(21)) + b"\1" + bytes(7)
    return gzip.compress(bytes(head) + entries * 50_000, 6)


def unending_header() -> bytes:
    """A tar that begins with a pax header of 200 MiB."""
    head = bytearray(sparse_header(b"pax", 512, [])[:512])
    head[156:157], head[124:136] = b"x", b"%011o\0" % (200 * MIB)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return gzip.compress(bytes(head) + bytes(200 * MIB), 6)


def many_members() -> bytes:
    """A tar of 300,000 files, none of them the disk."""
    head = sparse_header(b"other", 512, [])[:512]
    return gzip.compress(head * 300_000, 6)


# ------------------------------------------------------------------------------------------------------------- kernel


def packed_kernel() -> bytes:
    """A disk whose kernel is 255 MiB of one byte, which is 300 KB where it is compressed."""
    each, chunks = 65_536, 255 * MIB // 32_768
    head = bytearray(loader_image()[:each])
    head[0x10:0x12] = struct.pack("<H", chunks)
    data = [bytes(head), *(at.to_bytes(2, "big") * (each // 2) for at in range(1, chunks // 2 + 1))]
    return mapped(range(len(data)), data, pack=deflate)


def loader_of_zeros() -> bytes:
    """A loader.img of 1 MB whose 255 pieces unpack to 255 MiB: a match in FastLZ is as long as one likes."""
    block = b"\x20\0" + b"\xe0" + b"\xff" * ((MIB - 1 - 9) // 255) + bytes([(MIB - 1 - 9) % 255]) + b"\0"
    table = struct.pack("<I", 255) + struct.pack("<II", MIB, len(block)) * 255
    return _loader(lzloader(struct.pack("<I", 4 + 255 * len(block)) + block * 255 + table))


def loader_of_symbol_tables() -> bytes:
    """An lzloader.elf that says of 20,000 sections that each is the table of its symbols."""
    names = b"\0" * (256 << 10)
    count, at = 20_000, 52
    table = struct.pack("<10I", 0, 2, 0, 0, at, len(names), 0, 0, 4, 16) * count
    elf = b"\x7fELF\x01\x01\x01" + bytes(9)
    elf += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0, 52, at + len(names), 0, 52, 32, 0, 40, count, 0)
    return _loader(elf + names + table + b"_binary_loader_stripped_elf_lz_start")


def loader_of_tables() -> bytes:
    """An lzloader.elf that is full of what the table of a kernel's pieces begins like."""
    elf = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 3, 1)
    marks = struct.pack("<II", 256, MIB) * (MIB // 8)
    return _loader(elf.ljust(64, b"\0") + marks + b"_binary_loader_stripped_elf_lz_start")


def kernel_of_symbols() -> bytes:
    """An ELF kernel with 40,000 symbols, each of whose names is the end of the one before."""
    long = b"s" * 8000
    elf = bytearray(kernel_elf(symbols=[long, *[b"x"] * 40_000]))
    first = elf.index(long)
    start = elf.rindex(b"\0build/", 0, first)
    at = elf.index(struct.pack("<IBBHQQ", first - start, 0x12, 0, 1, 0x40200000, 1))
    for number in range(40_000):
        struct.pack_into("<I", elf, at + 24 * number, first - start + number % 8000)
    return bytes(elf)


def _loader(payload: bytes) -> bytes:
    return loader_image(
        chunks=-(-len(payload) // 32_768), payload=payload.ljust(-(-len(payload) // 32_768) * 32_768, b"\0")
    )


# --------------------------------------------------------------------------------------------------------------- holes


def hollow_tables(path: Path) -> Path:
    """A sparse file: 256 MiB of tables that are a hole, and a superblock that says of them what it likes."""
    return _hollow(path, superblock(256 * MIB, 1 << 20, 0, 1 << 20), 257 * MIB)


def hollow_kernel(path: Path) -> Path:
    """A sparse file of 3 GiB whose boot sector loads 2 GiB."""
    head = bytearray(loader_image()[:65_536])
    head[0x10:0x12] = b"\xff\xff"
    return _hollow(path, bytes(head), 3 << 30)


def hollow_disk(path: Path) -> Path:
    """A sparse file of 2 TiB, all of it an ext partition."""
    head = with_partition(loader_image(), Extent(2 * MIB, (1 << 41) - MIB)).ljust(2 * MIB, b"\0")
    block = bytearray(2048)
    struct.pack_into("<H", block, 1024 + 0x38, 0xEF53)
    return _hollow(path, head + bytes(block), 1 << 41)


def hollow_files(path: Path, block: int) -> Path:
    """A sparse ROFS with one file of a TiB, from ``block`` on."""
    names = struct.pack("<QH", 2, 1) + b"a"
    inodes = struct.pack("<4Q", 0x4000, 1, 0, 1) + struct.pack("<4Q", 0x8000, 2, block, 1 << 40)
    return _hollow(path, superblock(512, 1, 0, 2) + names + inodes, (1 << 40) + (1 << 30))


def _hollow(path: Path, head: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path
