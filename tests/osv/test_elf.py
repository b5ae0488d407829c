from __future__ import annotations

import sysconfig
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerSymSection
from elftools.elf.sections import SymbolTableSection
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import ElfInvalid
from osvdeploy.osv.elf import Elf, ElfKind, Machine, SegmentType, read_elf, read_elf_file
from tests.osv.elves import Made, Symbol, make_elf


def read(content: bytes) -> Elf:
    return read_elf(lambda offset, size: content[offset : offset + size], len(content), "file")


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (Made(type=2, base=0x400000, interpreter=b"/lib64/ld.so"), ElfKind.DYNAMIC_PDE),
        (Made(type=2, base=0x400000), ElfKind.STATIC_PDE),
        (Made(type=2, base=0x400000, dynamic=False), ElfKind.STATIC_PDE),
        (Made(interpreter=b"/lib64/ld.so", pie=True), ElfKind.DYNAMIC_PIE),
        (Made(interpreter=b"/lib64/ld.so"), ElfKind.DYNAMIC_PIE),
        (Made(pie=True), ElfKind.STATIC_PIE),
        (Made(), ElfKind.SHARED_LIBRARY),
        (Made(type=1), ElfKind.OTHER),
        (Made(type=4), ElfKind.OTHER),
        (Made(bits=32), ElfKind.OTHER),
        (Made(order=2, machine=21), ElfKind.OTHER),
    ],
)
def test_a_file_is_of_the_kind_that_osv_takes_it_for(made: Made, kind: ElfKind) -> None:
    """Type, interpreter and the PIE flag decide, whatever the sections say; a foreign class is read as far as its
    header."""
    found = read(make_elf(made))
    assert (found.kind, found.bits, found.machine, found.type) == (kind, made.bits, made.machine, made.type)
    assert found.little_endian == (made.order == 1)


@pytest.mark.parametrize("gnu_hash", [True, False])
@pytest.mark.parametrize("machine", list(Machine))
def test_symbols_are_sorted_by_who_must_have_them(gnu_hash: bool, machine: Machine) -> None:
    """What is defined, looked for, looked for if there, and needed while loading; local names are nobody's, and a
    superseded version is seen through DT_HASH alone, where OSv does not look at versions."""
    symbols = {
        b"main": Symbol.DEFINED, b"printf": Symbol.UNDEFINED, b"gmon": Symbol.WEAK,
        b"errno": Symbol.TLS_UNDEFINED, b"stdout": Symbol.COPIED,
        b"memcpy_old": Symbol.OLD, b"helper": Symbol.LOCAL,
    }  # fmt: skip
    found = read(make_elf(Made(interpreter=b"/ld.so", machine=machine, symbols=symbols, gnu_hash=gnu_hash)))
    assert found.defined == {b"main", b"stdout"} | (set() if gnu_hash else {b"memcpy_old"})
    assert found.undefined == {b"printf", b"errno"}
    assert found.weak == {b"gmon"}
    assert found.at_load == {b"errno", b"stdout"}
    assert found.has_main


def test_names_and_paths_are_read() -> None:
    """Needed libraries in order, soname, interpreter and the directories of RUNPATH, which beats RPATH."""
    made = Made(
        base=0x400000, interpreter=b"/lib64/ld.so", needed=[b"libz.so.1", b"libc.so.6"], soname=b"libx.so",
        runpath=b"$ORIGIN/../lib:/opt/lib", rpath=b"/old", tls=(100, 64),
    )  # fmt: skip
    found = read(make_elf(made))
    assert found.needed == (b"libz.so.1", b"libc.so.6")
    assert (found.soname, found.interpreter) == (b"libx.so", b"/lib64/ld.so")
    assert found.runpath == (b"$ORIGIN/../lib", b"/opt/lib")
    assert (found.tls_size, found.tls_align) == (128, 64)
    assert found.loaded[0] == 0x400000 == found.entry - 64
    assert read(make_elf(Made(rpath=b"/old"))).runpath == (b"/old",)


def test_a_library_with_main_is_a_program_of_osv() -> None:
    """OSv calls the main of a shared library."""
    assert read(make_elf(Made(symbols={b"main": Symbol.DEFINED}))).has_main
    assert not read(make_elf(Made(symbols={b"main": Symbol.UNDEFINED}))).has_main


def test_segments_keep_types_that_osv_does_not_know() -> None:
    """An unknown p_type is a number in the value, so that a rule can name it."""
    found = read(make_elf(Made(segments=[0x6474E554])))
    assert 0x6474E554 in {segment.type for segment in found.segments}
    assert 0x6474E554 not in set(SegmentType)


def test_what_is_not_elf_is_none_and_what_is_gone_an_oserror(tmp_path: Path) -> None:
    """Text, an empty file and a short one are not ELF, which is no error."""
    for content in (b"", b"\x7fEL", b"#!/bin/sh\n"):
        (tmp_path / "file").write_bytes(content)
        assert read_elf_file(bytes(tmp_path / "file")) is None
    with pytest.raises(FileNotFoundError):
        read_elf_file(bytes(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x7fELF", "truncated"),
        (b"MZ" + bytes(100), "not an ELF"),
        (b"\x7fELF\x03\x01\x01" + bytes(100), "class 3"),
        (make_elf(Made())[:100], "truncated"),
        (make_elf(Made())[:-1], "truncated"),
        (make_elf(Made(tags=[(5, 1 << 60)])), "no segment"),
        (make_elf(Made(symbols={b"x": Symbol.DEFINED}, gnu_hash=False, tags=[(4, 0)])), "dynamic symbols"),
        (make_elf(Made(needed=[b"libc.so.6"], tags=[(1, 1 << 40)])), "outside its dynamic strings"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(content: bytes, says: str) -> None:
    """The error names the file and what cannot be read."""
    with pytest.raises(ElfInvalid, match=says) as refused:
        read(content)
    assert str(refused.value).startswith("file: ")


def test_names_that_share_bytes_cannot_fill_the_memory() -> None:
    """2,000 symbols, each named by the same 60,000 bytes, take 120 MB; they are refused before they are in memory."""
    name = b"x" * 60_000
    content = make_elf(
        Made(symbols={name: Symbol.DEFINED} | {b"%d" % index: Symbol.DEFINED for index in range(2000)}, gnu_hash=False)
    )
    first = b"\x01\0\0\0\x12\0\x01\0"
    start = content.index(first)
    record = content[start : start + 24]
    hostile = content[:start] + record * 2001 + content[start + 24 * 2001 :]
    tracemalloc.start()
    try:
        with pytest.raises(ElfInvalid, match="names take more"):
            read(hostile)
        assert tracemalloc.get_traced_memory()[1] < 80 << 20
    finally:
        tracemalloc.stop()


_WHOLE = make_elf(
    Made(
        interpreter=b"/ld.so", needed=[b"libc.so.6"], soname=b"me", runpath=b"/x", tls=(8, 8),
        symbols={b"main": Symbol.DEFINED, b"printf": Symbol.UNDEFINED, b"environ": Symbol.COPIED, b"old": Symbol.OLD},
    )
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(_WHOLE) - 1), st.binary(min_size=1, max_size=9)), max_size=6), st.data())
def test_any_damage_gives_a_value_or_elf_invalid(damage: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """Whatever bytes change or are cut off, the reader answers or refuses; it never fails otherwise."""
    content = bytearray(_WHOLE)
    for at, patch in damage:
        content[at : at + len(patch)] = patch
    cut = data.draw(st.integers(0, len(content)))
    for attempt in (bytes(content), bytes(content[:cut])):
        try:
            read(attempt)
        except ElfInvalid:
            pass


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name),
        st.sampled_from([Symbol.DEFINED, Symbol.UNDEFINED, Symbol.WEAK, Symbol.LOCAL]),
        max_size=20,
    ),
    st.booleans(),
)
def test_every_symbol_is_found_whatever_its_name(symbols: dict[bytes, Symbol], gnu_hash: bool) -> None:
    """Both hash tables tell how many symbols there are, names are any bytes."""
    found = read(make_elf(Made(symbols=symbols, gnu_hash=gnu_hash)))
    assert found.defined == {name for name, kind in symbols.items() if kind == Symbol.DEFINED}
    assert found.undefined == {name for name, kind in symbols.items() if kind == Symbol.UNDEFINED}
    assert found.weak == {name for name, kind in symbols.items() if kind == Symbol.WEAK}


def _real_files() -> list[Path]:
    found = [Path(name) for name in ("/usr/bin/python3", "/bin/ls", "/bin/bash", "/usr/bin/git", "/usr/bin/curl")]
    found += sorted(Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so"))[::6]
    found += sorted(Path("/usr/lib/x86_64-linux-gnu").glob("lib[csz]*.so.[0-9]"))[::8]
    found.append(Path("/lib/x86_64-linux-gnu/libc.so.6"))
    return [path for path in found if path.is_file()]


def _by_elftools(path: Path) -> tuple[object, ...]:
    """The same facts by a reader that knows sections."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        dynamic = next(segment for segment in elf.iter_segments() if isinstance(segment, DynamicSegment))
        table: list[Any] = list(dynamic.iter_tags())  # tags have attributes named after them
        versions = next((part for part in elf.iter_sections() if isinstance(part, GNUVerSymSection)), None)
        defined, undefined, weak = set[bytes](), set[bytes](), set[bytes]()
        symbols = elf.get_section_by_name(".dynsym")
        assert isinstance(symbols, SymbolTableSection)
        for index, symbol in enumerate(symbols.iter_symbols()):
            binding, name = symbol["st_info"]["bind"], symbol.name.encode()
            if binding == "STB_LOCAL" or not name:
                continue
            if symbol["st_shndx"] == "SHN_UNDEF":
                (weak if binding == "STB_WEAK" else undefined).add(name)
            else:
                number = versions.get_symbol(index)["ndx"] if versions is not None else 0
                if not (isinstance(number, int) and number & 0x8000):
                    defined.add(name)
        return (
            tuple(tag.needed.encode() for tag in table if tag.entry.d_tag == "DT_NEEDED"),
            next((tag.soname.encode() for tag in table if tag.entry.d_tag == "DT_SONAME"), None),
            defined,
            undefined,
            weak - undefined,
            [(segment["p_vaddr"], segment["p_filesz"], segment["p_memsz"]) for segment in elf.iter_segments()],
        )


@pytest.mark.slow
def test_real_files_read_as_pyelftools_reads_them() -> None:
    """This machine's programs, libraries and Python's extension modules say the same to both readers."""
    files = _real_files()
    if not files:
        pytest.skip("this machine has none of the programs that are compared")
    for path in files:
        found = read_elf_file(bytes(path))
        assert found is not None, path
        assert (
            found.needed,
            found.soname,
            found.defined,
            found.undefined,
            found.weak,
            [(segment.vaddr, segment.filesz, segment.memsz) for segment in found.segments],
        ) == _by_elftools(path), path
