"""Reads a loader.img: the boot sector and compressed kernel that a disk is composed of.

OSv's Makefile makes it of boot.bin (boot sector, linked at 0x7c00) and lzloader.elf at 64 KiB, padded to 32 KiB; the
u16 at 0x10 of the boot sector counts the 32 KiB chunks it loads (arch/x64/boot16.S, ``imgedit.py setsize``). The
length of the file is therefore exact, which tells a whole loader.img from a torn or a foreign file.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from osvdeploy.digests import Digest
from osvdeploy.errors import KernelInvalid
from osvdeploy.sizes import MIB

KERNEL_OFFSET = 65_536
"""Where the compressed kernel begins: LBA 128."""

CHUNK_SIZE = 32_768
"""The boot sector loads the kernel in chunks of this many bytes."""

MAX_SIZE = 256 * MIB
"""No kernel is larger, packed or not: OSv's are 2 to 10 MB, with the files linked into a ramfs kernel on top."""

_COUNT_OFFSET = 0x10
_PARTITION_TABLE = slice(0x1BE, 0x1FE)
_SIGNATURE = slice(0x1FE, 0x200)
_FAR_JUMP = 0xEA
_READ_SIZE = 1 << 20
_LZ_SYMBOL = b"_binary_loader_stripped_elf_lz_start"
SYMBOLS_SIZE = 1 << 17
"""The symbol names of lzloader.elf stand within these last bytes of a loader.img."""

_TEXT = frozenset(b"\t\n\r") | frozenset(range(0x20, 0x7F))


class Payload(StrEnum):
    """What stands where the kernel should, as far as its first bytes tell."""

    LZLOADER = "lzloader"
    """OSv's lzloader.elf: an ELF32 i386 executable around a compressed loader-stripped.elf."""
    UNKNOWN = "unknown"
    """Something else that keeps the boot sector's contract."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A loader.img: ``size`` in bytes, always 64 KiB + ``chunks`` x 32 KiB."""

    path: Path
    size: int
    sha256: Digest
    chunks: int
    payload: Payload


def read_kernel(path: Path, *, digest: Callable[[], Digest] | None = None) -> Kernel:
    """Read and check a loader.img. ``digest`` gives its sha256 where the caller has a shorter way than to read it all;
    it is asked when the headers are found to be right.

    Raises KernelInvalid that says what the file is instead: missing, empty, truncated, with a wrong chunk count, an ELF
    kernel alone, qcow2, gzip, an arm64 loader, a whole disk.
    """
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(512)
            chunks = check_boot_sector(str(path), head, size)
            tail = max(KERNEL_OFFSET, size - SYMBOLS_SIZE)
            payload = payload_of(
                str(path),
                head,
                os.pread(file.fileno(), 64, KERNEL_OFFSET),
                os.pread(file.fileno(), SYMBOLS_SIZE, tail),
            )
            sha256 = _digest(file.fileno()) if digest is None else digest()
            return Kernel(path, size, sha256, chunks, payload)
    except IsADirectoryError:
        raise KernelInvalid(f"{path}: a directory, not a loader.img") from None
    except OSError as error:
        raise KernelInvalid(f"{path}: cannot be read: {error.strerror}", hint="check `file` under [kernel]") from None


def chunk_count(boot_sector: bytes) -> int:
    """How many chunks a boot sector loads."""
    return int.from_bytes(boot_sector[_COUNT_OFFSET : _COUNT_OFFSET + 2], "little")


def check_boot_sector(path: str, head: bytes, size: int) -> int:
    """How many chunks the boot sector loads of a whole loader.img of ``size`` bytes, whose first 512 are ``head``.

    Raises KernelInvalid that says what it is instead; ``path`` is what the file is called in it.
    """
    if size == 0:
        raise KernelInvalid(f"{path}: empty", hint="fetch the kernel again")
    if head[:2] == b"\x1f\x8b":
        raise KernelInvalid(f"{path}: compressed with gzip", hint=f"unpack it first: gunzip {path}")
    if head[:4] == b"QFI\xfb":
        raise KernelInvalid(
            f"{path}: a qcow2 disk image, not a loader.img",
            hint="use build/last/loader.img of the OSv tree, not usr.img",
        )
    if head[:4] == b"\x7fELF":
        raise KernelInvalid(
            f"{path}: an ELF kernel alone, without the boot sector and loader that a disk needs",
            hint="use loader.img of the same build (osv-loader.qemu.x86_64 of a release)",
        )
    if head[0x38:0x3C] == b"ARM\x64":
        raise KernelInvalid(f"{path}: an arm64 loader; only x86_64 boots from a disk")
    if head[:4] == b"KDMV":
        raise KernelInvalid(f"{path}: a VMDK disk image, not a loader.img")
    if head[257:262] == b"ustar":
        raise KernelInvalid(f"{path}: a tar archive, not a kernel", hint="unpack it, and name the loader.img inside")
    if is_text(head):
        if b"<html" in head.lower() or b"<!doctype" in head.lower():
            hint = "fetch the kernel again, and look at the address"
            raise KernelInvalid(f"{path}: a web page, not a kernel", hint=hint)
        hint = "use OSv's build/last/loader.img, or osv-loader.qemu.x86_64 of a release"
        raise KernelInvalid(f"{path}: text, not a kernel", hint=hint)
    if len(head) < 512:
        raise KernelInvalid(f"{path}: truncated: {size} bytes do not hold a boot sector", hint="fetch the kernel again")
    if head[_SIGNATURE] != b"\x55\xaa":
        raise KernelInvalid(f"{path}: no boot sector: bytes 510 and 511 are not 55 AA", hint="use OSv's loader.img")
    if any(head[_PARTITION_TABLE]):
        raise KernelInvalid(
            f"{path}: a whole disk: its boot sector has a partition table",
            hint="use the loader.img it was made of; osvdeploy adds the file system itself",
        )
    chunks = chunk_count(head)
    expected = KERNEL_OFFSET + chunks * CHUNK_SIZE
    if chunks == 0:
        # The boot sector counts down before it tests: 0 would load 65,536 chunks.
        raise KernelInvalid(f"{path}: its chunk count (u16 at 0x10) is 0", hint="fetch or build the kernel again")
    if size < expected:
        raise KernelInvalid(
            f"{path}: truncated: its boot sector loads {chunks} chunks, {expected} bytes in all, and it has {size}",
            hint="fetch the kernel again",
        )
    if size > expected:
        raise KernelInvalid(
            f"{path}: wrong chunk count: its boot sector loads {chunks} chunks, {expected} bytes in all, of {size}",
            hint="build it with OSv's own Makefile, which sets the count (scripts/imgedit.py setsize)",
        )
    return chunks


def payload_of(path: str, head: bytes, start: bytes, tail: bytes) -> Payload:
    """What a loader.img loads: ``start`` are the first bytes at 64 KiB, ``tail`` the last 128 KiB of the file.

    Raises KernelInvalid for OSv's lzloader behind another boot sector than OSv's.
    """
    elf32_le, executable_i386 = b"\x7fELF\x01\x01", struct.pack("<HH", 2, 3)
    # The Makefile does not strip it, so the names of what it unpacks (fastlz/lzloader.cc) stand near its end.
    if start[:6] != elf32_le or start[16:20] != executable_i386 or _LZ_SYMBOL not in tail:
        return Payload.UNKNOWN
    if head[0] != _FAR_JUMP:
        raise KernelInvalid(f"{path}: its boot sector is not OSv's: it begins with {head[0]:02x}, not ea")
    return Payload.LZLOADER


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are nothing but text in ASCII."""
    return all(byte in _TEXT for byte in head)


def _digest(fd: int) -> Digest:
    digest, at = hashlib.sha256(), 0
    while chunk := os.pread(fd, _READ_SIZE, at):
        digest.update(chunk)
        at += len(chunk)
    return Digest(digest.hexdigest())
