"""Small root file systems with ELF files that say what they need, and an ld.so.cache as ldconfig writes it."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.build.host import Closure, close_program
from osvdeploy.build.hostroot import HostRoot
from osvdeploy.build.ldso import X86_64_LIB
from osvdeploy.build.program import Packages, ProgramRequest
from osvdeploy.build.runtimes import Workshop
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.events import Event, Recorder
from osvdeploy.osv.elf import Machine
from osvdeploy.osv.filetree import Symlink
from tests.osv.elves import Made, make_elf

GLIBC = b"/lib64/ld-linux-x86-64.so.2"
MUSL = b"/lib/ld-musl-x86_64.so.1"


@dataclass(slots=True)
class Root:
    """A root at ``top``, beside a spec in the folder above it."""

    top: Path
    recorder: Recorder

    @property
    def root(self) -> HostRoot:
        return HostRoot(os.fsencode(self.top))

    @property
    def events(self) -> list[Event]:
        return self.recorder.events

    def file(self, path: str, content: bytes | str = b"x") -> Path:
        made = self.top / path.lstrip("/")
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(content if isinstance(content, bytes) else content.encode())
        made.chmod(0o755)
        return made

    def link(self, path: str, target: str) -> None:
        made = self.top / path.lstrip("/")
        made.parent.mkdir(parents=True, exist_ok=True)
        made.symlink_to(target)

    def library(
        self,
        path: str,
        *needed: str,
        runpath: str | None = None,
        rpath: str | None = None,
        machine: Machine = Machine.X86_64,
        mark: str = "",
    ) -> Path:
        """A library whose bytes are its own: ``mark``, else its path."""
        return self._elf(path, None, needed, runpath, rpath, machine, mark or path)

    def program(
        self,
        path: str,
        *needed: str,
        runpath: str | None = None,
        rpath: str | None = None,
        interpreter: bytes = GLIBC,
        mark: str = "",
    ) -> Path:
        return self._elf(path, interpreter, needed, runpath, rpath, Machine.X86_64, mark or path)

    def _elf(
        self,
        path: str,
        interpreter: bytes | None,
        needed: Sequence[str],
        runpath: str | None,
        rpath: str | None,
        machine: Machine,
        mark: str,
    ) -> Path:
        made = Made(
            interpreter=interpreter,
            needed=[name.encode() for name in needed],
            runpath=None if runpath is None else runpath.encode(),
            rpath=None if rpath is None else rpath.encode(),
            machine=machine,
        )
        return self.file(path, make_elf(made) + mark.encode())

    def cache(self, *entries: tuple[str, str], flags: int = X86_64_LIB) -> None:
        rows = [(name.encode(), path.encode(), flags, 0) for name, path in entries]
        self.file("/etc/ld.so.cache", write_cache(rows))

    def close(
        self,
        path: str,
        *,
        to: str | None = None,
        packages: Packages | None = None,
        cxx: bool = False,
        cache: Path | None = None,
        refresh: bool = False,
    ) -> Closure:
        base = self.top.parent
        request = ProgramRequest(path, to, self.top.name, packages)
        return close_program(
            Context(reporter=self.recorder), request, Workshop(base, StatCache(), cache, refresh), cxx=cxx
        )


def root_at(top: Path) -> Root:
    top.mkdir(parents=True, exist_ok=True)
    return Root(top, Recorder())


def placed(closure: Closure) -> dict[str, str]:
    """What is where: the guest's path, and the path in the root (a link's target behind an arrow)."""
    return {
        path.decode(): f"-> {entry.entry.target.decode()}"
        if isinstance(entry.entry, Symlink)
        else entry.origin.partition("/root")[2]
        for path, entry in closure.entries.items()
    }


def write_cache(rows: Sequence[tuple[bytes, bytes, int, int]], *, old: int | None = None, endian: int = 2) -> bytes:
    """An ld.so.cache of glibc's new format: (soname, path, flags, hwcap). ``old``: behind an old table of that many."""
    prefix = b""
    if old is not None:
        prefix = struct.pack("<11sxI", b"ld.so-1.7.0", old) + bytes(12 * old)
        prefix += bytes(-len(prefix) % 8)
    at = 48 + 24 * len(rows)
    table, strings = b"", b""
    for soname, path, flags, hwcap in rows:
        table += struct.pack("<iIIIQ", flags, at + len(strings), at + len(strings) + len(soname) + 1, 0, hwcap)
        strings += soname + b"\0" + path + b"\0"
    header = struct.pack("<20sIIB3xI12x", b"glibc-ld.so.cache1.1", len(rows), len(strings), endian, 0)
    return prefix + header + table + strings
