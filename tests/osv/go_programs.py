"""Programs that start as those of Go's own linker do, made byte by byte; OSv runs them, or does not."""

from __future__ import annotations

import struct
from dataclasses import dataclass

CODE = 0x401000
DATA = 0x500000
FILE_END = 0x501000
"""Where the data that is in the file ends: from here on is memory that nothing has touched."""

SAYS = b"go ran to its end\n"


@dataclass(frozen=True, slots=True)
class GoProgram:
    """``g0`` and ``m0`` are addresses of data: rt0_go writes 32 bytes at the one, and sets its thread's pointer 8 bytes
    behind the other. ``end`` is where memory ends. ``sections`` are names of empty ones."""

    g0: int = FILE_END + 0x100
    m0: int = FILE_END + 0x1100
    end: int = FILE_END + 0x4000
    sections: tuple[bytes, ...] = ()
    interpreter: bytes | None = None
    machine: int = 62


def make_go(program: GoProgram) -> bytes:
    """The bytes of it."""
    rt0, rt0_go, settls, text = CODE + 0x20, CODE + 0x40, CODE + 0x140, CODE + 0x180
    code = bytearray(0x200)

    def put(at: int, *parts: bytes) -> int:
        for part in parts:
            code[at - CODE : at - CODE + len(part)] = part
            at += len(part)
        return at

    def near(opcode: str, at: int, to: int) -> bytes:
        """An instruction that ends in the distance from its end to ``to``."""
        front = bytes.fromhex(opcode)
        return front + struct.pack("<i", to - at - len(front) - 4)

    put(CODE, near("e9", CODE, rt0))
    at = put(rt0, bytes.fromhex("488b3c24 488d742408"))
    put(at, near("e9", at, rt0_go))
    at = put(rt0_go, near("488d3d", rt0_go, program.g0))
    at = put(at, bytes.fromhex("488d9c240000ffff 48895f10 48895f18 48891f 48896708"))
    at = put(at, near("488d3d", at, program.m0))
    at = put(at, near("e8", at, settls))
    at = put(at, bytes.fromhex("6448c70425f8ffffff23010000"))
    # write(1, text, size); exit_group(0)
    at = put(at, bytes.fromhex("b801000000 bf01000000"))
    at = put(at, near("488d35", at, text))
    put(at, b"\xba" + struct.pack("<I", len(SAYS)), bytes.fromhex("0f05 b8e7000000 31ff 0f05"))
    # arch_prctl(ARCH_SET_FS, m0 + 8)
    put(settls, bytes.fromhex("4883c708 4889fe bf02100000 b89e000000 0f05 c3"))
    put(text, SAYS)

    interpreter = b"" if program.interpreter is None else program.interpreter + b"\0"
    segments = [
        (1, 5, 0x1000, CODE, len(code), len(code), 0x1000),
        (1, 6, 0x2000, DATA, FILE_END - DATA, program.end - DATA, 0x1000),
    ]
    if interpreter:
        segments.append((3, 4, 0x800, 0x400800, len(interpreter), len(interpreter), 1))
    names = b"\0" + b"".join(name + b"\0" for name in (b".shstrtab", *program.sections))
    names_at = 0x2000 + FILE_END - DATA
    headers_at = names_at + len(names) + -len(names) % 8
    headers = [bytes(64), struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)]
    headers += [
        struct.pack("<IIQQQQIIQQ", names.index(b"\0" + name + b"\0") + 1, 1, 0, 0, names_at, 0, 0, 0, 1, 0)
        for name in program.sections
    ]
    made = bytearray(headers_at)
    made[:16] = b"\x7fELF\x02\x01\x01" + bytes(9)
    struct.pack_into(
        "<HHIQQQIHHHHHH", made, 16,
        2, program.machine, 1, CODE, 64, headers_at, 0, 64, 56, len(segments), 64, len(headers), 1,
    )  # fmt: skip
    for index, (kind, flags, offset, address, size, memory, align) in enumerate(segments):
        struct.pack_into("<IIQQQQQQ", made, 64 + 56 * index, kind, flags, offset, address, address, size, memory, align)
    made[0x800 : 0x800 + len(interpreter)] = interpreter
    made[0x1000 : 0x1000 + len(code)] = code
    made[names_at : names_at + len(names)] = names
    return bytes(made) + b"".join(headers)
