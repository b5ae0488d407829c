"""The ELF files of a tree, each read once: what was learned of a file is remembered (osvdeploy.build.stamped).

What is no ELF file is remembered too, so that a second look opens nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from osvdeploy.build.stamped import Stamped
from osvdeploy.context import Context
from osvdeploy.errors import ElfInvalid, SourceChanged
from osvdeploy.osv.elf import Elf, ElfKind, Segment, is_elf, read_elf, read_open_elf
from osvdeploy.osv.filetree import Content, FileTree, HostFile, show, stamp_of, unreadable

Known: TypeAlias = "Elf | str | None"
"""What a file is: an ELF file, a damaged one (what is wrong with it), or no ELF file."""


@dataclass(frozen=True, slots=True)
class Examined:
    """The ELF files of a tree by guest path, links not among them; ``damaged`` says what is wrong with those that
    cannot be read."""

    elves: Mapping[bytes, Elf]
    damaged: Mapping[bytes, str]


class ElfCache(Stamped[Known]):
    """What files of this machine are, by path."""

    VERSION = 2

    def look(self, ctx: Context, file: HostFile) -> Known:
        """What a file is. Raises SourceChanged when it is not as it was found."""
        return self.recall_or_read(ctx, file, _look)

    @staticmethod
    def _row(known: Known) -> Sequence[object]:
        return (_written(known),)

    @staticmethod
    def _of_row(row: list[Any]) -> Known:
        return _of_written(row[0])


def examine(ctx: Context, tree: FileTree, cache: ElfCache) -> Examined:
    """Find every ELF file of a tree and read what loaders take from it.

    Raises SourceChanged for a file that cannot be read or is not as it was found, Interrupted.
    """
    elves: dict[bytes, Elf] = {}
    damaged: dict[bytes, str] = {}
    for path, entry in tree.files():
        found = _content(entry, show(path)) if isinstance(entry, Content) else cache.look(ctx, entry)
        if isinstance(found, Elf):
            elves[path] = found
        elif found is not None:
            damaged[path] = found
    return Examined(elves, damaged)


def _content(entry: Content, name: str) -> Known:
    content = entry.content
    if not is_elf(content):
        return None
    try:
        return read_elf(lambda offset, size: content[offset : offset + size], len(content), name)
    except ElfInvalid as error:
        return _told(error, name)


def _look(file: HostFile) -> Known:
    try:
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise unreadable(file.path, error) from None
    try:
        found: Known
        try:
            found = read_open_elf(fd, show(file.path))
        except ElfInvalid as error:
            found = _told(error, show(file.path))
        if stamp_of(os.fstat(fd)) != file.stamp:
            raise SourceChanged(
                f"{show(file.path)}: changed while it was read",
                hint="let nothing write to the sources while they are looked at",
            )
        return found
    except OSError as error:
        raise unreadable(file.path, error) from None
    finally:
        os.close(fd)


def _told(error: ElfInvalid, name: str) -> str:
    """What is wrong, without the name: a finding puts the guest's path in front."""
    return error.message.removeprefix(f"{name}: ")


# ----------------------------------------------------------------------------------------------------------- the file


def _written(known: Known) -> object:
    """JSON for what is known: null, text, or the fields of an Elf in their order."""
    if not isinstance(known, Elf):
        return known
    return [
        known.name,
        known.bits,
        known.little_endian,
        known.osabi,
        known.machine,
        known.type,
        known.kind.value,
        known.entry,
        [list(segment) for segment in known.segments],
        None if known.interpreter is None else _text(known.interpreter),
        [_text(name) for name in known.needed],
        None if known.soname is None else _text(known.soname),
        [_text(directory) for directory in known.runpath],
        _names(known.defined),
        _names(known.undefined),
        _names(known.weak),
        _names(known.at_load),
        known.tls_size,
        known.tls_align,
        known.has_rel,
        known.go,
        known.thread_untouched,
    ]


def _of_written(row: object) -> Known:
    if not isinstance(row, list):
        if row is not None and not isinstance(row, str):
            raise ValueError("neither text nor an ELF file")
        return row
    (
        name, bits, little_endian, osabi, machine, type_, kind, entry, segments, interpreter, needed, soname, runpath,
        defined, undefined, weak, at_load, tls_size, tls_align, has_rel, go, thread_untouched,
    ) = row  # fmt: skip
    return Elf(
        name=name,
        bits=bits,
        little_endian=little_endian,
        osabi=osabi,
        machine=machine,
        type=type_,
        kind=ElfKind(kind),
        entry=entry,
        segments=tuple(Segment(*segment) for segment in segments),
        interpreter=None if interpreter is None else interpreter.encode("latin-1"),
        needed=tuple(each.encode("latin-1") for each in needed),
        soname=None if soname is None else soname.encode("latin-1"),
        runpath=tuple(each.encode("latin-1") for each in runpath),
        defined=_of_names(defined),
        undefined=_of_names(undefined),
        weak=_of_names(weak),
        at_load=_of_names(at_load),
        tls_size=tls_size,
        tls_align=tls_align,
        has_rel=has_rel,
        go=go,
        thread_untouched=thread_untouched,
    )


def _text(name: bytes) -> str:
    return name.decode("latin-1")


def _names(names: Iterable[bytes]) -> str | list[str]:
    """Names as one text with a newline behind each, which reads far faster than a list; as a list where one holds a
    newline."""
    if any(b"\n" in name for name in names):
        return sorted(map(_text, names))
    return b"".join(name + b"\n" for name in sorted(names)).decode("latin-1")


def _of_names(names: str | list[str]) -> frozenset[bytes]:
    if isinstance(names, list):
        return frozenset(name.encode("latin-1") for name in names)
    return frozenset(names.encode("latin-1").split(b"\n")[:-1])
