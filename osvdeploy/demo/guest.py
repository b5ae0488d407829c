"""Builds the boot guest: a loader.img of our own, which reads a disk as OSv does and tells what it found.

Its sources lie in the folder ``guest`` beside this module. OSv itself is not needed to prove that a disk boots: the
guest keeps the contract of OSv's boot sector (``guest/boot.s``) and reads command line, partition and ROFS through the
BIOS. It is no OSv, and says so in its first line.
"""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from osvdeploy.demo.toolchain import Compiler, CompilerKind, first_that_works, run_compiler
from osvdeploy.errors import BuildError

SOURCES = Path(__file__).parent / "guest"

BOOT_SECTOR_SIZE = 512
KERNEL_OFFSET = 65_536
CHUNK_SIZE = 32_768
CHUNK_COUNT_OFFSET = 0x10
LOAD_ADDRESS = 0x100000
"""Where boot.s loads the kernel; guest.ld links for it."""

_E_SHOFF, _E_PHNUM, _E_SHENTSIZE = 0x20, 0x2C, 0x2E
"""Offsets in an ELF32 header."""

# No unwinding, stack protector or position independence: nothing of a host is there. No SSE: nobody has switched it on.
_FREESTANDING = (
    *("-std=gnu11", "-O2", "-g0", "-ffreestanding", "-fno-builtin", "-fno-pic", "-fno-pie", "-fno-strict-aliasing"),
    *("-fno-stack-protector", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables"),
    *("-mno-sse", "-mno-mmx", "-mno-80387", "-nostdlib", "-static", "-Wl,--build-id=none"),
)
_BY_KIND = {
    CompilerKind.HOST: ["-m32", "-march=i686", "-no-pie", "-fcf-protection=none"],
    CompilerKind.ZIG: ["-target", "x86-freestanding-none", "-march=i686", "-fno-sanitize=all"],
}


def build_guest(out: Path, *, compiler: Compiler | None = None) -> Path:
    """Build the boot guest from source to ``out``, a loader.img.

    Without ``compiler`` every one found is tried in order: a host's may know no 32-bit x86. Raises OsvDeployError where
    there is none, CompileFailed with the words of the first where all fail.
    """
    _write_whole(out, first_that_works(_loader_image, compiler))
    return out


def loader_image(boot_sector: bytes, kernel: bytes) -> bytes:
    """A loader.img of a boot sector and a kernel: the count at 0x10 set, the kernel at 64 KiB and in whole chunks."""
    chunks = -(-len(kernel) // CHUNK_SIZE)
    head = bytearray(boot_sector)
    struct.pack_into("<H", head, CHUNK_COUNT_OFFSET, chunks)
    return bytes(head).ljust(KERNEL_OFFSET, b"\0") + kernel.ljust(chunks * CHUNK_SIZE, b"\0")


@dataclass(frozen=True, slots=True)
class GuestEntry:
    """An entry of the root directory as the guest read it; ``crc32`` of its content where it is a file."""

    name: bytes
    inode: int
    mode: int
    count: int
    crc32: int | None


@dataclass(frozen=True, slots=True)
class GuestReport:
    """What the guest said: ``values`` by key, numbers as numbers, and the root directory's entries in disk order.

    ``error`` is its last word where it could not go on; None with ``finished`` False means that it fell silent.
    """

    values: dict[str, int]
    command_line: bytes | None
    entries: tuple[GuestEntry, ...]
    error: str | None
    finished: bool


def read_report(console: bytes) -> GuestReport:
    """Parse the guest's console. Lines that are not its own (a BIOS's, say) are passed over."""
    values: dict[str, int] = {}
    entries: list[GuestEntry] = []
    command_line: bytes | None = None
    error: str | None = None
    finished = False
    for key, value in _assignments(console):
        match key:
            case "command_line":
                command_line = unquote_to_bytes(value)
            case "error":
                error = value
            case "result":
                finished = value == "ok"
            case "entry":
                entries.append(GuestEntry(unquote_to_bytes(value), 0, 0, 0, None))
            case "entry.inode" | "entry.mode" | "entry.count" | "entry.crc32" if entries:
                entries[-1] = _with(entries[-1], key.removeprefix("entry."), int(value, 0))
            case "guest":
                pass
            case _:
                try:
                    values[key] = int(value, 0)
                except ValueError:
                    continue
    return GuestReport(values, command_line, tuple(entries), error, finished)


def _assignments(console: bytes) -> Iterator[tuple[str, str]]:
    for line in console.decode("ascii", errors="replace").split("\n"):
        key, equals, value = line.removesuffix("\r").partition("=")
        if equals:
            yield key, value


def _with(entry: GuestEntry, field: str, value: int) -> GuestEntry:
    return GuestEntry(
        entry.name,
        value if field == "inode" else entry.inode,
        value if field == "mode" else entry.mode,
        value if field == "count" else entry.count,
        value if field == "crc32" else entry.crc32,
    )


def _loader_image(compiler: Compiler) -> bytes:
    with tempfile.TemporaryDirectory(prefix="osvdeploy-guest-") as scratch:
        boot = _link(compiler, ["boot.s"], "boot.ld", "boot_sector", Path(scratch, "boot.elf"))
        guest = _link(compiler, ["start.s", "guest.c"], "guest.ld", "guest_start", Path(scratch, "guest.elf"))
    return loader_image(_boot_sector(boot), _flat_executable(guest))


def _link(compiler: Compiler, sources: Sequence[str], script: str, entry: str, out: Path) -> bytes:
    # lld, under zig, takes the entry from the command line alone and drops what it does not lead to.
    arguments = [*_BY_KIND[compiler.kind], *_FREESTANDING, f"-Wl,-e,{entry}", "-T", str(SOURCES / script)]
    run_compiler(compiler, [*arguments, *(str(SOURCES / source) for source in sources)], out)
    return out.read_bytes()


def _boot_sector(elf: bytes) -> bytes:
    segments = [segment for segment in _segments(elf) if segment.size]
    if len(segments) != 1 or segments[0].size != BOOT_SECTOR_SIZE:
        raise BuildError("boot guest: the linker did not make one boot sector of boot.s")
    return elf[segments[0].offset : segments[0].offset + BOOT_SECTOR_SIZE]


def _flat_executable(elf: bytes) -> bytes:
    """The ELF file cut after its last loaded byte, without section headers: what lies in it lies so in memory."""
    segments = [segment for segment in _segments(elf) if segment.size]
    if not segments or any(segment.address - LOAD_ADDRESS != segment.offset for segment in segments):
        raise BuildError("boot guest: the linker did not lay the guest out as it is loaded")
    flat = bytearray(elf[: max(segment.offset + segment.size for segment in segments)])
    struct.pack_into("<I", flat, _E_SHOFF, 0)
    struct.pack_into("<HHH", flat, _E_SHENTSIZE, 0, 0, 0)
    return bytes(flat)


@dataclass(frozen=True, slots=True)
class _Segment:
    offset: int
    address: int
    size: int


def _segments(elf: bytes) -> list[_Segment]:
    try:
        return [
            _Segment(segment["p_offset"], segment["p_vaddr"], segment["p_filesz"])
            for segment in ELFFile(io.BytesIO(elf)).iter_segments("PT_LOAD")
        ]
    except ELFError as error:
        raise BuildError(f"boot guest: the linker made no ELF file: {error}") from None


def _write_whole(out: Path, content: bytes) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        made = Path(scratch, out.name)
        made.write_bytes(content)
        made.replace(out)
