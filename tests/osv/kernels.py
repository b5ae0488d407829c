"""Kernels of our own making, packed as OSv's build packs: what a reader of facts looks for, and no code that runs."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

PIECE = 1 << 20
BASE = 0x40200000
_DRIVER_CLASSES = ("N6virtio3blkE", "N6virtio3netE", "N6virtio4scsiE", "N3pci8functionE")
_SYMBOLS = (b"malloc", b"printf", b"_ZNSt6thread4joinEv")


def literals(content: bytes) -> bytes:
    """A FastLZ block of level 2 that holds the content in runs of literals, and no match."""
    runs = [content[at : at + 32] for at in range(0, len(content), 32)]
    block = bytearray(b"".join(bytes([len(run) - 1]) + run for run in runs))
    block[0] |= 1 << 5
    return bytes(block)


def pack(kernel: bytes, *, stored: bool = False) -> bytes:
    """A kernel as fastlz/lz.cc lays it out. FastLZ's literals are larger than what they hold, which lzloader takes for
    a piece that is stored: so each packed piece ends in a match, over the zeros that the kernel is padded with."""
    pieces = [kernel[at : at + PIECE] for at in range(0, len(kernel), PIECE)]
    packed = []
    for piece in pieces:
        body = piece.rstrip(b"\0") + b"\0"
        zeros = len(piece) - len(body)
        # A long match one byte back: 9 bytes and what follows, in steps of 255.
        match = b"\xe0" + b"\xff" * ((zeros - 9) // 255) + bytes([(zeros - 9) % 255]) + b"\0" if zeros >= 9 else b""
        block = literals(body) + match
        packed.append(piece if stored or not match or len(block) >= len(piece) else block)
    table = struct.pack("<I", len(pieces)) + b"".join(
        struct.pack("<II", len(piece), len(block)) for piece, block in zip(pieces, packed, strict=True)
    )
    data = b"".join(packed)
    return struct.pack("<I", 4 + len(data)) + data + table


def lzloader(payload: bytes, *, symbol: bytes = b"_binary_loader_stripped_elf_lz_start") -> bytes:
    """An ELF32 with ``payload`` in its data, and the symbol that names it, as OSv's lzloader.elf."""
    names = b"\0" + symbol + b"\0"
    address, at = 0x101000, 52 + 32
    symbols = bytes(16) + struct.pack("<IIIBBH", 1, address + 16, 0, 0x10, 0, 1)
    data = bytes(16) + payload
    symtab = at + len(data)
    strtab = symtab + len(symbols)
    shoff = strtab + len(names)
    sections = [
        bytes(40),
        struct.pack("<10I", 0, 1, 3, address, at, len(data), 0, 0, 1, 0),
        struct.pack("<10I", 0, 2, 0, 0, symtab, len(symbols), 3, 1, 4, 16),
        struct.pack("<10I", 0, 3, 0, 0, strtab, len(names), 0, 0, 1, 0),
    ]
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, address, 52, shoff, 0, 52, 32, 1, 40, 4, 3)
    load = struct.pack("<8I", 1, at, address, address, len(data), len(data), 7, 0x1000)
    return header + load + data + symbols + names + b"".join(sections)


def kernel_elf(
    *,
    version: str = "v0.57.0-398-g0e34e4dc",
    classes: Iterable[str] = _DRIVER_CLASSES,
    options: Sequence[str] = ("help", "verbose", "ip", "nopci", "power-off-on-abort", "assign-net"),
    symbols: Sequence[bytes] = _SYMBOLS,
    syscalls: Iterable[str] = ("read", "sys_exit", "long_mmap", "fstatat"),
    code: bytes = b"",
    machine: int = 62,
    gnu_hash: bool = False,
    mode: str = "release",
    constants: bytes = b"",
) -> bytes:
    """An ELF64 that says of itself what a kernel would, in the places where a kernel says it."""
    lines = "".join(f"  --{name}{'=arg' if name == 'ip' else '':10} what it does\n" for name in options)
    rodata = b"\0OSv " + version.encode() + b"\n\0" if version else b"\0"
    rodata += b"OSv options:\n" + lines.encode() + b"\n\0" if options else b"\0"
    rodata += b"".join(b"\0" + name.encode() + b"\0" for name in ("N2hw9hw_driverE", *classes))
    rodata += b"".join(b"trace_syscall_" + name.encode() + b"\0" for name in syscalls)
    rodata += b"ROFS mounted\0libc.so.6\0libm.so.6\0" + constants
    names = b"\0build/" + mode.encode() + b".x64/dummy-shlib.so\0"
    table = bytes(24)
    for symbol in symbols:
        table += struct.pack("<IBBHQQ", len(names), 0x12, 0, 1, BASE, 1)
        names += symbol + b"\0"
    count = len(symbols) + 1
    if gnu_hash:
        # One bucket, whose chain ends (lowest bit) at the last symbol; a Bloom filter of one word.
        chain = b"".join(struct.pack("<I", 1 if at == count - 1 else 0) for at in range(1, count))
        hashes = struct.pack("<4IQI", 1, 1, 1, 0, 0, 1) + chain
    else:
        hashes = struct.pack("<2I", 0, count)
    head = 64 + 3 * 56
    parts, places = bytearray(), []
    for part in (rodata, code, names, table, hashes):
        parts += bytes(-len(parts) % 8)
        places.append(BASE + head + len(parts))
        parts += part
    parts += bytes(-len(parts) % 8)
    tags = [(5, places[2]), (10, len(names)), (6, places[3]), (0x6FFFFEF5 if gnu_hash else 4, places[4]), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    size = head + len(parts) + len(dynamic) + 512
    header = b"\x7fELF\x02\x01\x01\x03" + bytes(8)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, BASE, 64, 0, 0, 64, 56, 3, 64, 0, 0)
    at = head + len(parts)
    headers = [
        (1, 7, 0, BASE, BASE, size, size + 0x1000, 0x1000),
        (2, 6, at, BASE + at, BASE + at, len(dynamic), len(dynamic), 8),
        (7, 6, at, TLS, TLS, 4, 0x880, 16),
    ]
    return header + b"".join(struct.pack("<IIQQQQQQ", *each) for each in headers) + parts + dynamic + bytes(512)


TLS = BASE + 0x60E080


def vmlinuz(elf: bytes) -> bytes:
    """The stub of Linux's boot protocol, by its mark alone, and the kernel behind it."""
    return (bytes(0x202) + b"HdrS").ljust(2048, b"\0") + elf


def arm_image(elf: bytes) -> bytes:
    """The header of Linux's arm64 Image, by its mark alone, and the kernel at 64 KiB."""
    return (bytes(0x38) + b"ARM\x64").ljust(65536, b"\0") + elf
