"""How an x86-64 program starts that Go's own linker made, and whether OSv's handler of page faults survives it.

Such a program sets its first thread's pointer to memory of its own (arch_prctl, ARCH_SET_FS) before it has written
there. Each handler of OSv begins by reading where the pointer leads (arch/x64/entry.S, exception_entry): on a page that
nothing has touched it faults again, and again, for ever. Whether something has touched the page before is a question of
where Go's linker has put two variables, and so differs from version to version of Go and of the program. Programs whose
C library sets the pointer have written there first.

The code is Go's runtime/asm_amd64.s, _rt0_amd64 and rt0_go, the same from Go 1.21 to 1.27.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

PAGE: Final = 4096
HUGE_PAGE: Final = 2 << 20

_RT0_REACH: Final = 1024
"""Bytes of rt0_go that are looked at; it has some 400."""

# mov (%rsp), %rdi; lea 8(%rsp), %rsi: argc and argv, before the jump to rt0_go.
_RT0 = bytes.fromhex("488b3c24 488d742408")
# lea g0, %rdi; lea -65536(%rsp), %rbx: g0's stack, written next.
_G0 = re.compile(rb"\x48\x8d\x3d(?P<to>....)(?=\x48\x8d\x9c\x24\x00\x00\xff\xff)", re.DOTALL)
# lea m0.tls, %rdi; call settls; movq $0x123, %fs:-8: whether the pointer works.
_THREAD = re.compile(
    rb"\x48\x8d\x3d(?P<to>....)(?=\xe8....\x64\x48\xc7\x04\x25\xf8\xff\xff\xff\x23\x01\x00\x00)", re.DOTALL
)
_G0_WRITTEN: Final = 32
"""Bytes at the front of g0 that rt0_go writes first."""
_THREAD_BIAS: Final = 8
"""What settls adds, since ELF's thread-local variables stand before the pointer."""

Read = Callable[[int, int], bytes]
"""Address and size to what the file has there; fewer bytes, or none, where it has no more."""


class GoStart(NamedTuple):
    """The addresses of what is written before the thread's pointer is set, and of where it then leads; None where it is
    not set so."""

    g0: int | None
    thread: int | None


def go_start(entry: int, read: Read) -> GoStart | None:
    """How a program with this entry point starts; None where it is not Go's own way."""
    begin = _jump(entry, read(entry, 5))
    if begin is None or read(begin, len(_RT0)) != _RT0:
        return None
    jump = begin + len(_RT0)
    rt0_go = _jump(jump, read(jump, 5))
    if rt0_go is None:
        return None
    code = read(rt0_go, _RT0_REACH)
    return GoStart(_named(_G0.search(code), rt0_go), _named(_THREAD.search(code), rt0_go))


def untouched(start: GoStart, mapped: int, end: int) -> bool:
    """Whether the thread's pointer leads to memory that nothing has touched. From ``mapped`` to ``end``, addresses of
    pages, the program has memory that is not in its file; of what is not in it either, the rest of the page before is
    cleared while the program is loaded (core/elf.cc, file::load_segment)."""
    if start.thread is None or not mapped <= start.thread < end:
        return False
    huge = start.thread & -HUGE_PAGE
    if mapped <= huge and huge + HUGE_PAGE <= end:
        # Faulted in as a whole (core/mmu.cc, vma::fault), and more of the runtime's variables are in it.
        return False
    touched = () if start.g0 is None else (start.g0 // PAGE, (start.g0 + _G0_WRITTEN - 1) // PAGE)
    return start.thread // PAGE not in touched


def _jump(at: int, code: bytes) -> int | None:
    """Where a jmp at ``at`` leads."""
    if len(code) == 5 and code[0] == 0xE9:
        return at + 5 + int(struct.unpack("<i", code[1:])[0])
    if len(code) >= 2 and code[0] == 0xEB:
        return at + 2 + int(struct.unpack("b", code[1:2])[0])
    return None


def _named(found: re.Match[bytes] | None, code_at: int) -> int | None:
    """The address that a lea names, by its distance from the next instruction."""
    if found is None:
        return None
    bias = _THREAD_BIAS if found.re is _THREAD else 0
    return code_at + found.end() + int(struct.unpack("<i", found["to"])[0]) + bias
