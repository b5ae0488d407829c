"""The ELF64 of a kernel as far as facts are read from it: segments, sections that survive stripping, exported names."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

_MACHINES = {62: "x86_64", 183: "aarch64"}
_PT_LOAD, _PT_DYNAMIC, _PT_TLS = 1, 2, 7
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_GNU_HASH = 4, 5, 6, 10, 0x6FFFFEF5
_GLOBAL, _WEAK, _UNIQUE = 1, 2, 10
_MAX_HEADERS = 4096
_MAX_DYNAMIC = 1 << 16
_MAX_SYMBOLS = 1 << 17
_MAX_NAME = 1 << 13
_MAX_NAMES = 1 << 23
"""Bytes of all names: they may overlap, so the file's size bounds nothing. OSv's own are 15,000 names in 700 KB."""
_SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header: where in the file, where in memory, how many bytes of each."""

    kind: int
    offset: int
    address: int
    filesz: int
    memsz: int


@dataclass(frozen=True, slots=True)
class ElfKernel:
    """A kernel's ELF. ``content`` is the whole file; ``sections`` has the ranges of what it names, none if stripped."""

    content: bytes = field(repr=False)
    arch: str
    segments: tuple[Segment, ...]
    sections: Mapping[bytes, range]

    @classmethod
    def parse(cls, content: bytes) -> ElfKernel:
        """Raises ValueError that says what is wrong."""
        if content[:6] != b"\x7fELF\x02\x01" or len(content) < 64:
            raise ValueError("not a 64-bit little-endian ELF file")
        _, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, names = struct.unpack_from(
            "<HHIQQQIHHHHHH", content, 16
        )
        if machine not in _MACHINES:
            raise ValueError(f"a machine OSv does not run on (e_machine {machine})")
        if phentsize != 56 or not 0 < phnum <= _MAX_HEADERS or phoff + 56 * phnum > len(content):
            raise ValueError("its program headers lie outside of it")
        segments = tuple(
            Segment(kind, offset, address, filesz, memsz)
            for kind, _, offset, address, _, filesz, memsz, _ in struct.iter_unpack(
                "<IIQQQQQQ", content[phoff : phoff + 56 * phnum]
            )
        )
        if not any(each.kind == _PT_LOAD for each in segments):
            raise ValueError("nothing in it is loaded")
        for each in segments:
            if each.kind == _PT_LOAD and each.offset + each.filesz > len(content):
                raise ValueError("truncated: a part that is loaded lies outside of it")
        sections = _sections(content, shoff, shnum, names) if shentsize == 64 else {}
        return cls(content, _MACHINES[machine], segments, sections)

    def part(self, section: bytes) -> bytes:
        """The bytes of a section; the whole file where its sections are not known."""
        found = self.sections.get(section)
        return self.content if found is None else self.content[found.start : found.stop]

    def occupied(self) -> tuple[int, int]:
        """The addresses from the first that is loaded to behind the last."""
        loaded = [each for each in self.segments if each.kind == _PT_LOAD]
        return min(each.address for each in loaded), max(each.address + each.memsz for each in loaded)

    def tls(self) -> Segment | None:
        """The template of thread-local storage."""
        return next((each for each in self.segments if each.kind == _PT_TLS), None)

    def exported(self) -> frozenset[bytes] | None:
        """The names that programs can bind to; None where there is no table of them. Raises ValueError."""
        dynamic = next((each for each in self.segments if each.kind == _PT_DYNAMIC), None)
        if dynamic is None:
            return None
        size = min(dynamic.filesz, _MAX_DYNAMIC, max(0, len(self.content) - dynamic.offset))
        entries = self.content[dynamic.offset : dynamic.offset + size - size % 16]
        tags = {tag: value for tag, value in struct.iter_unpack("<QQ", entries) if tag}
        if _DT_SYMTAB not in tags or _DT_STRTAB not in tags:
            return None
        names = self._at(tags[_DT_STRTAB], tags.get(_DT_STRSZ, 0))
        count = self._symbol_count(tags)
        if count > _MAX_SYMBOLS:
            raise ValueError(f"it says that it exports {count} symbols")
        found, total = set(), 0
        for name, info, other, section, _, _ in _SYMBOL.iter_unpack(self._at(tags[_DT_SYMTAB], count * _SYMBOL.size)):
            # Visibility 0 and 3: default and protected; the others are not for programs.
            if section and info >> 4 in (_GLOBAL, _WEAK, _UNIQUE) and other & 3 in (0, 3):
                end = names.find(b"\0", name, name + _MAX_NAME)
                total += end - name
                if end < 0 or total > _MAX_NAMES:
                    raise ValueError("the names of its exported symbols do not end")
                found.add(names[name:end])
        found.discard(b"")
        return frozenset(found)

    def _at(self, address: int, size: int) -> bytes:
        for each in self.segments:
            if each.kind == _PT_LOAD and each.address <= address and address + size <= each.address + each.filesz:
                start = each.offset + address - each.address
                return self.content[start : start + size]
        raise ValueError("its table of exported symbols lies outside of what is loaded")

    def _symbol_count(self, tags: Mapping[int, int]) -> int:
        if _DT_HASH in tags:
            # buckets, chains; a symbol has one chain entry.
            return int(struct.unpack("<II", self._at(tags[_DT_HASH], 8))[1])
        if _DT_GNU_HASH not in tags:
            return 0
        # The symbols that can be looked up are the last ones; the chain of the highest bucket ends at the last.
        start = tags[_DT_GNU_HASH]
        buckets, first, bloom, _ = struct.unpack("<4I", self._at(start, 16))
        lists = start + 16 + 8 * bloom
        if buckets > _MAX_SYMBOLS:
            raise ValueError(f"it has {buckets} buckets of symbols")
        highest = max(struct.unpack(f"<{buckets}I", self._at(lists, 4 * buckets)), default=0)
        if highest < first:
            return int(first)
        while highest <= _MAX_SYMBOLS and not self._at(lists + 4 * (buckets + highest - first), 4)[0] & 1:
            highest += 1
        return int(highest) + 1


def _sections(content: bytes, shoff: int, shnum: int, names: int) -> dict[bytes, range]:
    if not 0 < shnum <= _MAX_HEADERS or names >= shnum or shoff + 64 * shnum > len(content):
        return {}
    headers = list(struct.iter_unpack("<IIQQQQIIQQ", content[shoff : shoff + 64 * shnum]))
    start, size = headers[names][4], headers[names][5]
    table = content[start : start + size]
    found = {}
    for name, kind, _, _, offset, length, *_ in headers:
        # 8: takes no bytes of the file
        if kind not in (0, 8) and name < len(table) and offset + length <= len(content):
            found[table[name : name + 64].partition(b"\0")[0]] = range(offset, offset + length)
    return found
