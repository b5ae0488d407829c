"""The ELF files of a tree, each read once: what was learned of a file is remembered by what stat(2) says of it.

In the manner of osvdeploy.build.statcache: a hint that is checked by its own checksum, and no memory of a file that was
changed just before it was read. What is no ELF file is remembered too, so that a second look opens nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from osvdeploy.build.files import replace_file
from osvdeploy.build.statcache import TICK
from osvdeploy.context import Context
from osvdeploy.errors import ElfInvalid, SourceChanged
from osvdeploy.osv.elf import Elf, ElfKind, Segment, is_elf, read_elf, read_open_elf
from osvdeploy.osv.filetree import Content, FileTree, HostFile, Stamp, show, stamp_of, unreadable

_VERSION: Final = 1

Known: TypeAlias = "Elf | str | None"
"""What a file is: an ELF file, a damaged one (what is wrong with it), or no ELF file."""


@dataclass(frozen=True, slots=True)
class Examined:
    """The ELF files of a tree by guest path, links not among them; ``damaged`` says what is wrong with those that
    cannot be read."""

    elves: Mapping[bytes, Elf]
    damaged: Mapping[bytes, str]


@dataclass(slots=True)
class ElfCache:
    """What files of this machine are, by path. ``file`` None remembers nothing beyond this process."""

    file: Path | None = None
    _known: dict[bytes, tuple[Stamp, Known]] = field(default_factory=dict)
    _used: dict[bytes, tuple[Stamp, Known]] = field(default_factory=dict)
    _new: bool = False

    @classmethod
    def load(cls, file: Path) -> ElfCache:
        """Never fails: at worst it knows nothing."""
        return cls(file, _parse(file))

    def look(self, ctx: Context, file: HostFile) -> Known:
        """What a file is. Raises SourceChanged when it is not as it was found."""
        known = self._known.get(file.path)
        if known is not None and known[0] == file.stamp:
            self._used[file.path] = known
            return known[1]
        ctx.check()
        before = int(ctx.now().timestamp() * 1e9)
        found = _look(file)
        if max(file.stamp.modified, file.stamp.changed) + TICK < before:
            self._used[file.path] = (file.stamp, found)
            self._new = True
        return found

    def save(self, ctx: Context) -> None:
        """Keep what this run used, and nothing else. A cache that cannot be written is no error."""
        if self.file is None or not (self._new or len(self._used) != len(self._known)):
            return
        files = {os.fsdecode(path): [*stamp, _row(known)] for path, (stamp, known) in self._used.items()}
        body = json.dumps({"version": _VERSION, "files": files}, separators=(",", ":")).encode()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Not synced: the checksum tells a torn one.
            replace_file(self.file, _checksum(body) + b"\n" + body, nonce=ctx.nonce(), durable=False)
        except OSError:
            pass


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


def _row(known: Known) -> object:
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
    ]


def _of_row(row: object) -> Known:
    if not isinstance(row, list):
        if row is not None and not isinstance(row, str):
            raise ValueError("neither text nor an ELF file")
        return row
    (
        name, bits, little_endian, osabi, machine, type_, kind, entry, segments, interpreter, needed, soname, runpath,
        defined, undefined, weak, at_load, tls_size, tls_align, has_rel,
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


def _parse(file: Path) -> dict[bytes, tuple[Stamp, Known]]:
    try:
        checksum, _, body = file.read_bytes().partition(b"\n")
        if checksum != _checksum(body):
            return {}
        document = json.loads(body)
        if document["version"] != _VERSION:
            return {}
        return {os.fsencode(path): (Stamp(*row[:5]), _of_row(row[5])) for path, row in document["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return {}


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
