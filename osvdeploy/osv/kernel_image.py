"""Reads a kernel's facts from its bytes, however it is packed: loader.img, ELF, vmlinuz.bin, arm64 Image, gzip of them.

A loader.img holds lzloader.elf at 64 KiB, an ELF32 executable with the kernel in its data, from the symbol
``_binary_loader_stripped_elf_lz_start`` on (it is not stripped). That is a u32, the offset of a table; then the pieces
of the kernel; then the table: a u32 count, and for each piece its size and its packed size (u32 each). A piece is 1
MiB, the last one less, packed with FastLZ, or stored as it is where that would not have made it smaller (fastlz/lz.cc).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from osvdeploy.errors import KernelInvalid
from osvdeploy.osv.fastlz import decompress
from osvdeploy.osv.kernel import KERNEL_OFFSET, MAX_SIZE, SYMBOLS_SIZE, Payload, check_boot_sector, payload_of
from osvdeploy.osv.kernel_elf import ElfKernel
from osvdeploy.osv.kernel_evidence import facts_of, looks_like_osv
from osvdeploy.osv.kernel_facts import KernelFacts, KernelFormat
from osvdeploy.sizes import MIB, format_size

_VMLINUZ_ELF = 2048
"""vmlinuz.bin: a stub of four sectors before the ELF (arch/x64/vmlinuz-boot32.S)."""

_PIECE_SIZE = MIB
_MAX_PIECES = MAX_SIZE // _PIECE_SIZE
_UNPACKED, _UNPACKED_ALWAYS = 32, 8 * MIB
_TABLES_TRIED = 2000
"""Places in a file that begin like a table. In a real one there is one, and hardly ever another by chance."""
_START_SYMBOL = b"_binary_loader_stripped_elf_lz_start"
_GZIP = b"\x1f\x8b"


def read_kernel_facts(source: bytes | Path, *, name: str = "kernel") -> KernelFacts:
    """What the bytes of a kernel tell. ``name`` is what a kernel given as bytes is called in errors.

    A loader.img with something else than OSv for a payload has facts that are None. Raises KernelInvalid that says what
    the file is instead of a kernel, or what is wrong with it; OSv's lzloader around a kernel that cannot be read is an
    error, never an unknown. Takes a second and a few times the kernel's size of memory at most, whatever the bytes are.
    """
    if isinstance(source, Path):
        name = str(source)
        content = read_file(source)
    else:
        content = source
    if len(content) > MAX_SIZE:
        raise KernelInvalid(
            f"{name}: has more than {format_size(MAX_SIZE)}, more than any kernel",
            hint="is it one? use OSv's loader.img",
        )
    content = gunzip(content, name=name)
    size = len(content)
    kind, elf = _elf_of(content, name)
    if elf is None:
        return KernelFacts(kind, "x86_64", size)
    try:
        kernel = ElfKernel.parse(elf)
    except ValueError as error:
        raise KernelInvalid(f"{name}: its kernel cannot be read: {error}", hint="fetch or build it again") from None
    if kind in (KernelFormat.ELF, KernelFormat.VMLINUZ) and not looks_like_osv(kernel):
        raise KernelInvalid(f"{name}: an ELF file, but nothing in it says that it is OSv", hint="use OSv's loader.img")
    return facts_of(kernel, kind, size)


def kernel_elf(content: bytes, *, name: str = "kernel") -> bytes:
    """The ELF kernel in a loader.img, vmlinuz.bin or gzip of these: what QEMU's ``-kernel`` and Firecracker load.

    Raises KernelInvalid, also for a loader.img with something else than OSv in it.
    """
    _, elf = _elf_of(gunzip(content, name=name), name)
    if elf is None:
        raise KernelInvalid(f"{name}: what its boot sector loads is not OSv; no ELF kernel can be taken out of it")
    return elf


def gunzip(content: bytes, *, name: str) -> bytes:
    """The content, unpacked where it is gzip. Raises KernelInvalid for a damaged one, or more than MAX_SIZE."""
    if content[:2] != _GZIP:
        return content
    unpacker, limit = zlib.decompressobj(wbits=31), _unpacked_limit(len(content))
    try:
        unpacked = unpacker.decompress(content, limit + 1)
    except zlib.error as error:
        raise KernelInvalid(f"{name}: damaged gzip: {error}", hint="fetch it again") from None
    if len(unpacked) > limit:
        raise KernelInvalid(
            f"{name}: {format_size(len(content))} of gzip unpack to more than {format_size(limit)}, as no kernel does"
        )
    if not unpacker.eof:
        raise KernelInvalid(f"{name}: truncated: its gzip does not end", hint="fetch it again")
    if unpacked[:2] == _GZIP:
        raise KernelInvalid(f"{name}: gzip within gzip", hint="unpack it first")
    return unpacked


def _unpacked_limit(packed: int) -> int:
    """The most that ``packed`` bytes are unpacked to. OSv's own unpack to twice as much; files of zeros that are linked
    into a ramfs kernel, to 80 times."""
    return min(MAX_SIZE, _UNPACKED_ALWAYS + _UNPACKED * packed)


def read_file(path: Path) -> bytes:
    """A kernel's file, or as much of it as shows that it is too large. Raises KernelInvalid."""
    try:
        if path.is_fifo() or path.is_socket() or path.is_char_device():
            # It may never end, or wait for ever for who writes into it.
            raise KernelInvalid(f"{path}: no regular file", hint="save the kernel to a file and name that")
        with path.open("rb") as file:
            return file.read(MAX_SIZE + 1)
    except IsADirectoryError:
        raise KernelInvalid(f"{path}: a directory, not a kernel") from None
    except OSError as error:
        raise KernelInvalid(f"{path}: cannot be read: {error.strerror}") from None


def _elf_of(content: bytes, name: str) -> tuple[KernelFormat, bytes | None]:
    """How the kernel is packed, and its ELF; None for a loader.img of something else."""
    if content[:4] == b"\x7fELF":
        return KernelFormat.ELF, content
    if content[0x38:0x3C] == b"ARM\x64":
        return KernelFormat.ARM_IMAGE, _elf_at(content, KERNEL_OFFSET, name, "an arm64 Image")
    if content[0x202:0x206] == b"HdrS":
        return KernelFormat.VMLINUZ, _elf_at(content, _VMLINUZ_ELF, name, "a Linux kernel")
    check_boot_sector(name, content[:512], len(content))
    payload = payload_of(
        name,
        content[:512],
        content[KERNEL_OFFSET : KERNEL_OFFSET + 64],
        content[max(KERNEL_OFFSET, len(content) - SYMBOLS_SIZE) :],
    )
    lzloader = memoryview(content)[KERNEL_OFFSET:]
    try:
        start = _payload_start(lzloader)
        if start is None and payload is Payload.LZLOADER:
            raise ValueError("no table of its pieces is where it should be")
        return KernelFormat.LOADER_IMAGE, None if start is None else unpack(lzloader[start:])
    except (ValueError, struct.error) as error:
        if payload is Payload.UNKNOWN:
            return KernelFormat.LOADER_IMAGE, None
        raise KernelInvalid(
            f"{name}: its compressed kernel cannot be unpacked: {error}", hint="fetch or build it again"
        ) from None


def _elf_at(content: bytes, offset: int, name: str, otherwise: str) -> bytes:
    if content[offset : offset + 4] != b"\x7fELF":
        raise KernelInvalid(f"{name}: {otherwise}, but not OSv's: no ELF at {offset}")
    return content[offset:]


def unpack(packed: bytes | memoryview) -> bytes:
    """The kernel that lzloader unpacks; ``packed`` may go on behind its table. Raises ValueError, struct.error."""
    view = memoryview(packed)
    (table,) = struct.unpack_from("<I", view)
    (count,) = struct.unpack_from("<I", view, table)
    if not 0 < count <= _MAX_PIECES:
        raise ValueError(f"it says that it has {count} pieces")
    at, pieces, left = 4, list[bytes](), _unpacked_limit(len(view))
    for size, stored in struct.iter_unpack("<II", view[table + 4 : table + 4 + 8 * count]):
        if size > _PIECE_SIZE or stored > size or at + stored > table:
            raise ValueError(f"piece {len(pieces)} of {count} has impossible sizes: {stored} for {size} bytes")
        if (left := left - size) < 0:
            raise ValueError(f"its {count} pieces are more than {format_size(len(view))} of a kernel unpack to")
        piece = view[at : at + stored]
        try:
            pieces.append(decompress(piece, size) if stored < size else bytes(piece))
        except ValueError as error:
            raise ValueError(f"piece {len(pieces)} of {count}: {error}") from None
        at += stored
    if len(pieces) != count:
        raise ValueError("it ends within the table of its pieces")
    return b"".join(pieces)


def _payload_start(lzloader: memoryview) -> int | None:
    """Where in lzloader.elf the packed kernel begins, by the symbol table, else by what only its table looks like."""
    try:
        if (start := _symbol_offset(bytes(lzloader[:52]), lzloader)) is not None:
            return start
    except (ValueError, struct.error, IndexError):
        pass
    return next(_table_starts(lzloader), None)


def _symbol_offset(header: bytes, elf: memoryview) -> int | None:
    if header[:6] != b"\x7fELF\x01\x01":
        return None
    _, _, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, _ = struct.unpack_from(
        "<HHIIIIIHHHHHH", header, 16
    )
    if phentsize != 32 or shentsize != 40:
        return None
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    sections = list(struct.iter_unpack("<10I", elf[shoff : shoff + 40 * shnum]))
    # An ELF file has one symbol table at most.
    table = next((each for each in sections if each[1] == 2), None)
    if table is None or table[6] >= len(sections):
        return None
    offset, size, link = table[4], table[5], sections[table[6]]
    names = bytes(elf[link[4] : link[4] + link[5]])
    wanted = names.find(b"\0" + _START_SYMBOL + b"\0") + 1
    for name, value, *_ in struct.iter_unpack("<IIIBBH", elf[offset : offset + size - size % 16]):
        if wanted and name == wanted:
            return _file_offset(elf, phoff, phnum, value)
    return None


def _file_offset(elf: memoryview, phoff: int, phnum: int, address: int) -> int | None:
    for kind, offset, start, _, filesz, *_ in struct.iter_unpack("<8I", elf[phoff : phoff + 32 * phnum]):
        if kind == 1 and start <= address < start + filesz:
            return int(offset + address - start)
    return None


def _table_starts(lzloader: memoryview) -> Iterator[int]:
    """Where a packed kernel of more than 1 MiB begins, found from its table: the first pair has 1 MiB for its size, and
    the packed sizes add up to the distance that the first u32 tells."""
    content = bytes(lzloader)
    size, at, tried = len(content), 3, 0
    mark = struct.pack("<I", _PIECE_SIZE)
    while (at := content.find(mark, at + 1)) >= 0 and tried < _TABLES_TRIED:
        (count,) = struct.unpack_from("<I", content, at - 4)
        if not 1 < count <= _MAX_PIECES or at + 8 * count > size:
            continue
        tried += 1
        table = 4 + sum(stored for _, stored in struct.iter_unpack("<II", content[at : at + 8 * count]))
        start = at - 4 - table
        if start >= 0 and content[start : start + 4] == struct.pack("<I", table):
            yield start
