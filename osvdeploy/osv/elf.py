"""Reads ELF files as OSv's linker sees them: program headers and the dynamic table, hardly ever section headers.

Why an own reader, where pyelftools is a dependency already: OSv (core/elf.cc) looks at segments alone, so a file whose
sections are stripped or wrong must be judged by what is loaded; the hundreds of extension modules of a Python image
have to be read within a second; and whatever bytes an image holds must end in a value or in ElfInvalid, in memory and
time that the file's own size bounds. The tests hold this reader against pyelftools on real files.

Names are bytes. Addresses and sizes are in bytes.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from osvdeploy.errors import ElfInvalid
from osvdeploy.osv.filetree import show
from osvdeploy.osv.golang import PAGE, GoStart, go_start, untouched

MAGIC: Final = b"\x7fELF"

SYMBOL_LIMIT: Final = 1 << 20
"""Dynamic symbols of one file. The largest seen, libLLVM and Chromium's parts, have some 100,000."""

NAMES_LIMIT: Final = 1 << 26
"""Bytes of all symbol names of one file together. Names may share bytes of the string table, so its size alone bounds
nothing: a hostile table of 50 MB would give names of terabytes."""

NAME_LIMIT: Final = 1 << 16
"""Bytes of one name or path. C++ and Rust mangle to some thousand."""

NEEDED_LIMIT: Final = 4096
"""DT_NEEDED entries of one file. Chromium built as components has some 400."""

DYNAMIC_LIMIT: Final = 1 << 20
"""Bytes of a dynamic table, which takes 16 for each entry."""


class Machine(IntEnum):
    """The e_machine values that OSv has kernels for."""

    X86_64 = 62
    AARCH64 = 183


class SegmentType(IntEnum):
    """The p_type values that OSv's linker knows (include/osv/elf.hh). At any other it aborts."""

    NULL = 0
    LOAD = 1
    DYNAMIC = 2
    INTERP = 3
    NOTE = 4
    PHDR = 6
    TLS = 7
    GNU_EH_FRAME = 0x6474E550
    GNU_STACK = 0x6474E551
    GNU_RELRO = 0x6474E552
    GNU_PROPERTY = 0x6474E553
    PAX_FLAGS = 0x65041580


class ElfKind(StrEnum):
    """The kinds that OSv's linker tells apart (include/osv/elf.hh), by e_type, PT_INTERP and DF_1_PIE."""

    DYNAMIC_PDE = "dynamic position-dependent executable"
    DYNAMIC_PIE = "dynamic PIE"
    STATIC_PDE = "static position-dependent executable"
    STATIC_PIE = "static PIE"
    SHARED_LIBRARY = "shared library"
    """An ET_DYN without PT_INTERP and without DF_1_PIE; OSv runs it as a program when it defines ``main``."""
    OTHER = "other"
    """Relocatable, core, or of a class or byte order that OSv has no kernel for; only its header is read."""

    @property
    def executable(self) -> bool:
        return self not in (ElfKind.SHARED_LIBRARY, ElfKind.OTHER)

    @property
    def static(self) -> bool:
        return self in (ElfKind.STATIC_PDE, ElfKind.STATIC_PIE)


class Segment(NamedTuple):
    """One program header. ``type`` is a number, since files hold more types than OSv knows."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int
    align: int


@dataclass(frozen=True, slots=True)
class Elf:
    """What OSv's linker takes from one file.

    ``bits`` is 32 or 64; ``osabi``, ``machine`` and ``type`` are the header's numbers. ``runpath`` holds the
    directories of DT_RUNPATH, or of DT_RPATH where there is none, ``$ORIGIN`` not yet replaced; ``rpath`` says
    that they are DT_RPATH's, which a Linux ld.so hands down to the libraries of the object. ``defined`` are the
    dynamic symbols that other objects can bind to: neither local ones nor those of superseded versions (foo@OLD), which
    OSv skips. ``undefined`` and ``weak`` are the names looked for elsewhere: of strong and of weak references.
    ``at_load`` are those that must be found while the file is loaded (undefined thread-local variables, and data copied
    into an executable, which ``defined`` holds too): a missing one is the end, while a missing function is one only
    when it is called. ``tls_size`` is what the thread-local segment takes, rounded up to ``tls_align``; both 0 without
    one. ``has_rel``: it has relocations without addends (DT_REL), at which OSv stops. ``go``: it starts as what Go's
    own linker made does; ``thread_untouched``: and faults without end on some kernels (osvdeploy.osv.golang).
    """

    name: str
    bits: int
    little_endian: bool
    osabi: int
    machine: int
    type: int
    kind: ElfKind
    entry: int = 0
    segments: tuple[Segment, ...] = ()
    interpreter: bytes | None = None
    needed: tuple[bytes, ...] = ()
    soname: bytes | None = None
    runpath: tuple[bytes, ...] = ()
    rpath: bool = False
    defined: frozenset[bytes] = field(default=frozenset(), repr=False)
    undefined: frozenset[bytes] = field(default=frozenset(), repr=False)
    weak: frozenset[bytes] = field(default=frozenset(), repr=False)
    at_load: frozenset[bytes] = field(default=frozenset(), repr=False)
    tls_size: int = 0
    tls_align: int = 0
    has_rel: bool = False
    go: bool = False
    thread_untouched: bool = False

    @property
    def has_main(self) -> bool:
        """Whether OSv calls ``main`` of it directly; it does so for libraries too."""
        return b"main" in self.defined

    @property
    def loaded(self) -> tuple[int, int]:
        """First address and the one past the last that its segments take, as linked; (0, 0) when it loads nothing."""
        spans = [(part.vaddr, part.vaddr + part.memsz) for part in self.segments if part.type == SegmentType.LOAD]
        return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else (0, 0)


ReadAt = Callable[[int, int], bytes]
"""``(offset, size)`` to bytes; fewer than asked for at the end of the file."""


def is_elf(head: bytes) -> bool:
    """Whether a file that begins with these bytes (4 suffice) claims to be ELF."""
    return head[:4] == MAGIC


def read_elf_file(path: bytes) -> Elf | None:
    """The ELF file at ``path`` on this machine; None where it is not one, which costs one read of 4 KiB.

    Raises ElfInvalid, and OSError where the file cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        return read_open_elf(fd, show(path))
    finally:
        os.close(fd)


def read_open_elf(fd: int, name: str) -> Elf | None:
    """The ELF file behind a descriptor, as :func:`read_elf_file` has it."""
    head = os.pread(fd, _HEAD_SIZE, 0)
    if not is_elf(head):
        return None

    def read_at(offset: int, size: int) -> bytes:
        end = offset + size
        return head[offset:end] if end <= len(head) else os.pread(fd, size, offset)

    return read_elf(read_at, os.fstat(fd).st_size, name)


def read_elf(read_at: ReadAt, size: int, name: str) -> Elf:
    """The ELF file of ``size`` bytes behind ``read_at``. ``name`` stands in errors and in the value.

    Raises ElfInvalid for anything OSv could not read the same way: truncated, tables outside the file, unended names.
    """
    return _Reader(read_at, size, name).read()


_HEAD_SIZE: Final = 4096
_IDENT: Final = struct.Struct("4sBBBB")
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_DYNAMIC: Final = struct.Struct("<qQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QQq")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_POPULATED: Final = b".note.osv-mlock\0"

_ET_EXEC, _ET_DYN = 2, 3
_DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ = 1, 4, 5, 6, 7, 8
_DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_REL, _DT_RUNPATH = 10, 14, 15, 17, 29
_DT_GNU_HASH, _DT_VERSYM, _DT_RELACOUNT, _DT_FLAGS_1 = 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFF9, 0x6FFFFFFB
_DF_1_PIE = 0x08000000
_STB_LOCAL, _STB_WEAK, _STT_TLS = 0, 2, 6
_COPY: Final = {Machine.X86_64: 5, Machine.AARCH64: 1024}
_OLD_VERSION = 0x8000
_CHAIN_STEP: Final = 1 << 14


@dataclass(slots=True)
class _Reader:
    read_at: ReadAt
    size: int
    name: str
    segments: tuple[Segment, ...] = ()
    tags: dict[int, int] = field(default_factory=dict)
    strings: bytes = b""

    def read(self) -> Elf:
        ident = self._bytes(0, 16, "header")
        magic, bits, order, version, osabi = _IDENT.unpack_from(ident)
        if magic != MAGIC:
            raise self._invalid("not an ELF file: it does not begin with 7f 45 4c 46")
        if bits not in (1, 2) or order not in (1, 2) or version != 1:
            raise self._invalid(f"its ELF header is damaged: class {bits}, byte order {order}, version {version}")
        little = order == 1
        type_, machine = struct.unpack("<HH" if little else ">HH", self._bytes(16, 4, "header"))
        if bits == 1 or not little or type_ not in (_ET_EXEC, _ET_DYN):
            return Elf(self.name, 32 * bits, little, osabi, machine, type_, ElfKind.OTHER)
        header = _HEADER.unpack(self._bytes(0, _HEADER.size, "header"))
        entry, at, entry_size, count = header[4], header[5], header[9], header[10]
        if entry_size != _SEGMENT.size and count:
            raise self._invalid(f"its program headers are {entry_size} bytes each, not {_SEGMENT.size}")
        table = self._bytes(at, count * _SEGMENT.size, "program headers")
        self.segments = tuple(
            Segment(type_, flags, offset, vaddr, filesz, memsz, align)
            for type_, flags, offset, vaddr, _, filesz, memsz, align in _SEGMENT.iter_unpack(table)
        )
        needed_at = self._read_dynamic()
        symbols = self._read_symbols(machine, may_copy=type_ == _ET_EXEC or self._first(SegmentType.INTERP) is not None)
        interpreter = self._interpreter()
        tls_size, tls_align = self._tls()
        kind = self._kind(type_, interpreter is not None)
        start = go_start(entry, self._code) if machine == Machine.X86_64 and kind.executable else None
        return Elf(
            name=self.name,
            bits=64,
            little_endian=True,
            osabi=osabi,
            machine=machine,
            type=type_,
            kind=kind,
            entry=entry,
            segments=self.segments,
            interpreter=interpreter,
            needed=tuple(self._string(offset) for offset in needed_at),
            soname=self._tagged_string(_DT_SONAME),
            runpath=self._runpath(),
            rpath=_DT_RPATH in self.tags and _DT_RUNPATH not in self.tags,
            defined=frozenset(symbols.defined),
            undefined=frozenset(symbols.undefined),
            weak=frozenset(symbols.weak),
            at_load=frozenset(symbols.at_load),
            tls_size=tls_size,
            tls_align=tls_align,
            has_rel=_DT_REL in self.tags,
            go=start is not None,
            thread_untouched=start is not None
            and kind.static
            and self._is_untouched(start)
            and not self._is_populated(header),
        )

    def _kind(self, type_: int, interpreted: bool) -> ElfKind:
        if type_ == _ET_EXEC:
            return ElfKind.DYNAMIC_PDE if interpreted else ElfKind.STATIC_PDE
        if interpreted:
            return ElfKind.DYNAMIC_PIE
        return ElfKind.STATIC_PIE if self.tags.get(_DT_FLAGS_1, 0) & _DF_1_PIE else ElfKind.SHARED_LIBRARY

    def _read_dynamic(self) -> list[int]:
        """Fill ``tags`` (the first of each counts, as for OSv) and ``strings``; string offsets of all DT_NEEDED."""
        segment = self._first(SegmentType.DYNAMIC)
        if segment is None:
            return []
        if segment.filesz > DYNAMIC_LIMIT:
            raise self._invalid(f"its dynamic table takes {segment.filesz} bytes; {DYNAMIC_LIMIT} are read")
        table = self._loaded(segment.vaddr, segment.filesz // _DYNAMIC.size * _DYNAMIC.size, "dynamic table")
        needed = []
        for tag, value in _DYNAMIC.iter_unpack(table):
            if tag == 0:
                break
            if tag == _DT_NEEDED:
                needed.append(value)
            else:
                self.tags.setdefault(tag, value)
        else:
            raise self._invalid("its dynamic table has no end (DT_NULL)")
        if len(needed) > NEEDED_LIMIT:
            raise self._invalid(f"it needs {len(needed)} libraries; {NEEDED_LIMIT} are read")
        if _DT_STRTAB in self.tags:
            self.strings = self._loaded(self.tags[_DT_STRTAB], self.tags.get(_DT_STRSZ, 0), "dynamic strings")
        return needed

    def _read_symbols(self, machine: int, *, may_copy: bool) -> _Symbols:
        found = _Symbols()
        if _DT_SYMTAB not in self.tags:
            return found
        count, versioned = self._symbol_count()
        if count > SYMBOL_LIMIT:
            raise self._invalid(f"it claims {count} dynamic symbols; {SYMBOL_LIMIT} are read")
        table = self._loaded(self.tags[_DT_SYMTAB], count * _SYMBOL.size, "dynamic symbols")
        old = self._old_versions(count) if versioned else frozenset[int]()
        copied = self._copied(machine) if may_copy else frozenset[int]()
        strings, end_of = self.strings, self.strings.find
        defined, undefined, weak, at_load = found.defined, found.undefined, found.weak, found.at_load
        total = 0
        for index, (at, info, _, section, _, _) in enumerate(_SYMBOL.iter_unpack(table)):
            if info >> 4 == _STB_LOCAL or at == 0:
                continue
            end = end_of(b"\0", at)
            if end < 0 or end - at > NAME_LIMIT:
                raise self._invalid(f"the name of its dynamic symbol {index} lies outside its strings, or never ends")
            total += end - at
            if total > NAMES_LIMIT:
                raise self._invalid(f"its symbols' names take more than {NAMES_LIMIT} bytes")
            name = strings[at:end]
            if section:
                if index not in old:
                    defined.add(name)
                if index in copied:
                    at_load.add(name)
            elif info >> 4 == _STB_WEAK:
                weak.add(name)
            else:
                undefined.add(name)
                if info & 15 == _STT_TLS:
                    at_load.add(name)
        # A weak reference beside a strong one, which different versions of a name can make, asks for no less.
        weak -= undefined
        return found

    def _symbol_count(self) -> tuple[int, bool]:
        """Symbols, and whether lookups heed versions: OSv does so only in DT_GNU_HASH, which it prefers."""
        gnu, sysv = self.tags.get(_DT_GNU_HASH), self.tags.get(_DT_HASH)
        if sysv is not None:
            _, chains = struct.unpack("<II", self._loaded(sysv, 8, "symbol hash"))
            return chains, gnu is not None
        if gnu is None:
            return 0, False
        buckets, first, words, _ = struct.unpack("<IIII", self._loaded(gnu, 16, "symbol hash"))
        at = gnu + 16 + 8 * words
        heads = _numbers("I", self._loaded(at, 4 * buckets, "symbol hash"))
        last = max(heads, default=0)
        if last == 0:
            return first, True
        if last < first:
            raise self._invalid(f"its symbol hash names symbol {last}, before its first, {first}")
        return self._chain_end(at + 4 * buckets, last - first) + first, True

    def _chain_end(self, chains: int, at: int) -> int:
        """The index past the end of the chain that begins at ``at``: the first odd word."""
        while at <= SYMBOL_LIMIT:
            left = self._left(chains + 4 * at) // 4
            words = _numbers("I", self._loaded(chains + 4 * at, 4 * min(left, _CHAIN_STEP), "symbol hash"))
            for word in words:
                at += 1
                if word & 1:
                    return at
            if left <= _CHAIN_STEP:
                raise self._invalid("a chain of its symbol hash has no end")
        raise self._invalid(f"its symbol hash claims more than {SYMBOL_LIMIT} symbols")

    def _old_versions(self, count: int) -> frozenset[int]:
        if _DT_VERSYM not in self.tags:
            return frozenset()
        versions = _numbers("H", self._loaded(self.tags[_DT_VERSYM], 2 * count, "symbol versions"))
        return frozenset(index for index, version in enumerate(versions) if version & _OLD_VERSION)

    def _copied(self, machine: int) -> frozenset[int]:
        """Symbols whose data an executable copies from a library (COPY relocations)."""
        kind = _COPY.get(Machine(machine)) if machine in set(Machine) else None
        if kind is None or _DT_RELA not in self.tags:
            return frozenset()
        # The linker sorts those that only add the base to the front and counts them: many, and without symbol.
        skipped = self.tags.get(_DT_RELACOUNT, 0) * _RELOCATION.size
        size = self.tags.get(_DT_RELASZ, 0) // _RELOCATION.size * _RELOCATION.size - skipped
        if size <= 0:
            return frozenset()
        table = self._loaded(self.tags[_DT_RELA] + skipped, size, "relocations")
        return frozenset(info >> 32 for _, info, _ in _RELOCATION.iter_unpack(table) if info & 0xFFFFFFFF == kind)

    def _interpreter(self) -> bytes | None:
        segment = self._first(SegmentType.INTERP)
        if segment is None:
            return None
        if segment.filesz > NAME_LIMIT:
            raise self._invalid(f"its interpreter's path takes {segment.filesz} bytes")
        return self._bytes(segment.offset, segment.filesz, "interpreter").split(b"\0", 1)[0]

    def _runpath(self) -> tuple[bytes, ...]:
        path = self._tagged_string(_DT_RUNPATH if _DT_RUNPATH in self.tags else _DT_RPATH)
        return tuple(part for part in path.split(b":") if part) if path else ()

    def _tls(self) -> tuple[int, int]:
        segment = self._first(SegmentType.TLS)
        if segment is None:
            return 0, 0
        align = max(segment.align, 1)
        return -(-segment.memsz // align) * align, align

    def _first(self, kind: SegmentType) -> Segment | None:
        return next((segment for segment in self.segments if segment.type == kind), None)

    def _tagged_string(self, tag: int) -> bytes | None:
        return self._string(self.tags[tag]) if tag in self.tags else None

    def _string(self, at: int) -> bytes:
        end = self.strings.find(b"\0", at)
        if end < 0 or end - at > NAME_LIMIT:
            raise self._invalid(f"a name at {at} lies outside its dynamic strings, or never ends")
        return self.strings[at:end]

    def _code(self, address: int, size: int) -> bytes:
        """What stands at an address, as far as the file has it."""
        most = min(size, self._left(address))
        return self._loaded(address, most, "code") if most else b""

    def _is_untouched(self, start: GoStart) -> bool:
        return any(
            untouched(start, _page_end(part.vaddr + part.filesz), _page_end(part.vaddr + part.memsz))
            for part in self._loads()
        )

    def _is_populated(self, header: tuple[int, ...]) -> bool:
        """Whether OSv maps all of it at once: it does for a section of this name, which is all that it reads of
        sections (core/elf.cc, object::mlocked)."""
        at, size, count, names = header[6], header[11], header[12], header[13]
        if size != _SECTION.size or not names < count or at + count * size > self.size:
            return False
        sections = list(_SECTION.iter_unpack(self._bytes(at, count * size, "section headers")))
        start, length = sections[names][4:6]
        if start + length > self.size or length > NAMES_LIMIT:
            return False
        table = self._bytes(start, length, "section names")
        return any(table[name : name + len(_POPULATED)] == _POPULATED for name, *_ in sections)

    def _loads(self) -> Iterator[Segment]:
        return (segment for segment in self.segments if segment.type == SegmentType.LOAD)

    def _left(self, address: int) -> int:
        """Bytes of the file from an address to the end of its segment."""
        for segment in self._loads():
            if segment.vaddr <= address < segment.vaddr + segment.filesz:
                return segment.vaddr + segment.filesz - address
        return 0

    def _loaded(self, address: int, size: int, what: str) -> bytes:
        """What stands at an address once the file is loaded."""
        if size == 0:
            return b""
        for segment in self._loads():
            if segment.vaddr <= address and address + size <= segment.vaddr + segment.filesz:
                return self._bytes(segment.offset + address - segment.vaddr, size, what)
        raise self._invalid(f"its {what} ({size} bytes at address {address:#x}) are in no segment of the file")

    def _bytes(self, offset: int, size: int, what: str) -> bytes:
        if offset + size > self.size:
            raise self._invalid(
                f"truncated: its {what} reach to byte {offset + size}, and it has {self.size}",
            )
        found = self.read_at(offset, size) if size else b""
        if len(found) != size:
            raise self._invalid(f"truncated: {size} bytes of its {what} at {offset} were asked for, {len(found)} came")
        return found

    def _invalid(self, what: str) -> ElfInvalid:
        return ElfInvalid(f"{self.name}: {what}", hint="build or fetch the file again")


def _page_end(address: int) -> int:
    return -(-address // PAGE) * PAGE


def _numbers(kind: str, content: bytes) -> array[int]:
    numbers = array(kind, content)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


@dataclass(frozen=True, slots=True)
class _Symbols:
    defined: set[bytes] = field(default_factory=set)
    undefined: set[bytes] = field(default_factory=set)
    weak: set[bytes] = field(default_factory=set)
    at_load: set[bytes] = field(default_factory=set)
