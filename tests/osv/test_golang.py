"""What is read of a program that Go's own linker made. tests/boot/test_osv_programs.py boots such programs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import ElfInvalid
from osvdeploy.osv.elf import Elf, read_elf
from osvdeploy.osv.golang import HUGE_PAGE, PAGE, GoStart, go_start, untouched
from tests.osv.elves import Made, make_elf
from tests.osv.go_programs import CODE, FILE_END, GoProgram, make_go

APART = GoProgram()


def read(content: bytes) -> Elf:
    return read_elf(lambda offset, size: content[offset : offset + size], len(content), "file")


@pytest.mark.parametrize(
    ("program", "stands_still"),
    [
        (APART, True),
        (replace(APART, sections=(b".note.other", b".note.osv-mlock-not")), True),
        (replace(APART, sections=(b".note.osv-mlock",)), False),
        (replace(APART, g0=APART.m0 + 0x200), False),
        (replace(APART, g0=FILE_END + 0x1000 - 8), False),
        (replace(APART, m0=FILE_END - 9), False),
        (replace(APART, m0=FILE_END - 8, g0=FILE_END + 0x2000), True),
        (replace(APART, interpreter=b"/lib64/ld-linux-x86-64.so.2"), False),
    ],
)
def test_the_place_of_the_first_threads_pointer_decides(program: GoProgram, stands_still: bool) -> None:
    """On a page that has been written to, or is mapped with all the others, its program starts; on another it does not.
    A dynamic one has it from OSv."""
    found = read(make_go(program))
    assert (found.go, found.thread_untouched) == (True, stands_still)


def test_a_page_that_is_faulted_in_with_others_is_touched() -> None:
    """Two MiB at once, where the memory goes over all of them: the runtime has written to more of it."""
    start = GoStart(PAGE, 3 * HUGE_PAGE + 8 * PAGE)
    assert untouched(start, 3 * HUGE_PAGE + PAGE, 5 * HUGE_PAGE)
    assert untouched(start, 3 * HUGE_PAGE, 4 * HUGE_PAGE - PAGE)
    assert not untouched(start, 3 * HUGE_PAGE, 4 * HUGE_PAGE)


@pytest.mark.parametrize("content", [make_elf(Made(type=2, base=0x400000)), make_go(replace(APART, machine=183))])
def test_other_programs_are_none_of_gos(content: bytes) -> None:
    """Neither one that starts otherwise, nor one whose code is for another processor."""
    found = read(content)
    assert (found.go, found.thread_untouched) == (False, False)


def test_a_start_that_sets_no_pointer_is_gos_too() -> None:
    """As that of a position-independent program."""
    content = make_go(APART)
    at = content.index(bytes.fromhex("6448c70425f8ffffff23010000"))
    found = read(content[:at] + bytes(13) + content[at + 13 :])
    assert (found.go, found.thread_untouched) == (True, False)


@settings(deadline=None)
@given(st.integers(0, 0x3FFF), st.binary(min_size=1, max_size=8))
def test_any_bytes_are_read_or_refused(place: int, patch: bytes) -> None:
    """Jumps out of the file, sections that are none: an answer, or ElfInvalid."""
    content = bytearray(make_go(APART))
    at = place % len(content)
    content[at : at + len(patch)] = patch
    try:
        read(bytes(content))
    except ElfInvalid:
        pass


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(-(2**64), 2**64))
def test_code_of_any_kind_ends(code: bytes, entry: int) -> None:
    """Also where every address has the same few bytes."""
    go_start(entry, lambda _, size: code[:size])
    assert go_start(CODE, lambda _, size: b"") is None
