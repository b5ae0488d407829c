"""Small ELF files, made from what they shall say. One segment holds the whole file, loaded at ``base``."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from osvdeploy.osv.elf import Machine, SegmentType


class Symbol(StrEnum):
    """What a dynamic symbol is to the linker."""

    DEFINED = "defined"
    UNDEFINED = "undefined"
    WEAK = "weak"
    TLS_UNDEFINED = "thread-local, undefined"
    COPIED = "copied"
    OLD = "of an old version"
    LOCAL = "local"


_INFO = {
    Symbol.DEFINED: 0x12, Symbol.UNDEFINED: 0x12, Symbol.WEAK: 0x20, Symbol.TLS_UNDEFINED: 0x16, Symbol.COPIED: 0x11,
    Symbol.OLD: 0x12, Symbol.LOCAL: 0x02,
}  # fmt: skip
_SECTION = {Symbol.DEFINED: 1, Symbol.COPIED: 2, Symbol.OLD: 1, Symbol.LOCAL: 1}


@dataclass(frozen=True, slots=True)
class Made:
    """What an ELF file shall say.  ``gnu_hash`` None: no hash at all."""

    type: int = 3
    machine: int = Machine.X86_64
    base: int = 0
    interpreter: bytes | None = None
    needed: Sequence[bytes] = ()
    soname: bytes | None = None
    runpath: bytes | None = None
    rpath: bytes | None = None
    pie: bool = False
    symbols: dict[bytes, Symbol] = field(default_factory=dict)
    gnu_hash: bool | None = True
    tls: tuple[int, int] | None = None
    segments: Sequence[int] = ()
    osabi: int = 0
    bits: int = 64
    order: int = 1
    tags: Sequence[tuple[int, int]] = ()
    dynamic: bool = True


def make_elf(made: Made) -> bytes:
    """The bytes of it."""
    strings = bytearray(b"\0")

    def string(name: bytes) -> int:
        at = strings.find(b"\0" + name + b"\0")
        if at >= 0:
            return at + 1
        strings.extend(name + b"\0")
        return len(strings) - len(name) - 1

    # As a linker sorts them: local, undefined, then what the GNU hash covers.
    order = {Symbol.LOCAL: 0, Symbol.UNDEFINED: 1, Symbol.WEAK: 1, Symbol.TLS_UNDEFINED: 1}
    symbols = sorted(made.symbols.items(), key=lambda item: order.get(item[1], 2))
    first = 1 + sum(order.get(kind, 2) < 2 for _, kind in symbols)
    count = len(symbols) + 1
    table, versions, relocations = bytearray(24), bytearray(2), bytearray(struct.pack("<QQq", 0, 8, 0))
    for index, (name, kind) in enumerate(symbols, start=1):
        table += struct.pack("<IBBHQQ", string(name), _INFO[kind], 0, _SECTION.get(kind, 0), 0x10, 8)
        versions += struct.pack("<H", 0x8002 if kind == Symbol.OLD else 2)
        if kind == Symbol.COPIED:
            relocations += struct.pack("<QQq", 0x10, index << 32 | (5 if made.machine == Machine.X86_64 else 1024), 0)
    covered = count - first
    gnu = struct.pack("<IIIIQ", 1, first, 1, 0, 2**64 - 1)
    gnu += struct.pack("<I", first if covered else 0) + b"".join(
        struct.pack("<I", 0x10 | (index == covered - 1)) for index in range(covered)
    )
    sysv = struct.pack("<III", 1, count, 0) + bytes(4 * count)

    tags = [(1, string(name)) for name in made.needed]
    tags += [
        (tag, string(value))
        for tag, value in ((14, made.soname), (15, made.rpath), (29, made.runpath))
        if value is not None
    ]
    if made.pie:
        tags.append((0x6FFFFFFB, 0x08000000))
    tags += made.tags
    parts = {5: bytes(strings), 6: bytes(table), 7: bytes(relocations), 0x6FFFFFF0: bytes(versions)}
    if made.gnu_hash is not None:
        parts[0x6FFFFEF5 if made.gnu_hash else 4] = gnu if made.gnu_hash else sysv
    program_headers = 2 + (made.interpreter is not None) + (made.tls is not None) + len(made.segments)
    at = 64 + 56 * program_headers
    interpreter = (made.interpreter or b"") + b"\0"
    interpreter_at, at = at, at + len(interpreter)
    body = interpreter
    for tag, content in parts.items():
        body += bytes(-at % 8)
        at += -at % 8
        tags.append((tag, made.base + at))
        body += content
        at += len(content)
    tags += [(8, len(relocations)), (10, len(strings)), (0x6FFFFFF9, 1), (0, 0)]
    body += bytes(-at % 8)
    at += -at % 8
    dynamic_at = at
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
    end = at + len(dynamic)

    def segment(kind: int, offset: int, size: int, *, memory: int | None = None, align: int = 8) -> bytes:
        address = made.base + offset
        return struct.pack("<IIQQQQQQ", kind, 6, offset, address, address, size, memory or size, align)

    headers = [segment(SegmentType.LOAD, 0, end, align=4096)]
    headers.append(segment(SegmentType.DYNAMIC if made.dynamic else SegmentType.NULL, dynamic_at, len(dynamic)))
    if made.interpreter is not None:
        headers.append(segment(SegmentType.INTERP, interpreter_at, len(interpreter)))
    if made.tls is not None:
        headers.append(segment(SegmentType.TLS, 0, 0, memory=made.tls[0], align=made.tls[1]))
    headers += [segment(kind, 0, 0) for kind in made.segments]
    head = b"\x7fELF" + bytes([made.bits // 32, made.order, 1, made.osabi]) + bytes(8)
    byte_order = "<" if made.order == 1 else ">"
    head += struct.pack(
        byte_order + "HHIQQQIHHHHHH",
        made.type, made.machine, 1, made.base + 64, 64, 0, 0, 64, 56, len(headers), 64, 0, 0,
    )  # fmt: skip
    return head + b"".join(headers) + body + dynamic
