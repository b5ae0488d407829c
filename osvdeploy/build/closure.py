"""What a program of a root needs to run in a guest, collected: files by guest path, each with where it came from.

Libraries are found as the root's own ld.so would find them, and put where OSv's linker looks. OSv (core/elf.cc,
``load_needed`` and ``load_object``) knows ``$ORIGIN`` in an object's own RUNPATH (RPATH where it has none), then ``/``
and ``/usr/lib``, and nothing else: no cache, no /lib, no inherited RPATH, no ``${ORIGIN}``, ``$LIB`` or ``$PLATFORM``.
So a library found by ``$ORIGIN`` keeps its place beside its user, and any other becomes ``/usr/lib/<name>``.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from osvdeploy.build.hostroot import Found, HostRoot
from osvdeploy.build.ldso import Loader, expand, glibc_loader, musl_loader
from osvdeploy.errors import ElfInvalid, ProgramInvalid
from osvdeploy.osv.elf import Elf, ElfKind, Machine, read_elf_file
from osvdeploy.osv.filetree import Content, Directory, HostFile, Symlink, resolve, show
from osvdeploy.osv.links import spelled

_FOLDER_LIMIT = 500_000
"""Files and directories below one folder. The largest environments have a tenth; links from folder to folder, followed
each time, make millions out of a few."""

SUPPLIED = frozenset(
    {
        b"ld-linux-x86-64.so.2",
        b"libresolv.so.2",
        b"libc.so.6",
        b"libm.so.6",
        b"libpthread.so.0",
        b"libdl.so.2",
        b"librt.so.1",
        b"libaio.so.1",
        b"libxenstore.so.3.0",
        b"libcrypt.so.1",
        b"libutil.so",
        # musl's, by the names that distributions give its one file. OSv knows the first two; that it cannot find the
        # third does no harm, because all that is in it is the kernel's.
        b"libc.musl-x86_64.so.1",
        b"ld-musl-x86_64.so.1",
        b"libc.so",
    }
)
"""DT_NEEDED names that are the C library's, which every OSv kernel is (core/elf.cc, supplied_modules)."""

CXX = b"libstdc++.so.6"
"""The kernel's own where its symbols are not hidden, and then one in the image is never loaded."""

LIBRARY_DIRECTORY = b"/usr/lib"
"""Where OSv's linker looks for every library, after the object's own path and ``/``."""


class Part(StrEnum):
    """Which side a file came from: osv.lock pins them apart."""

    OWN = "own"
    """The user's own, beside the spec: pinned by nobody."""
    PROGRAM = "program"
    PACKAGES = "packages"
    DERIVED = "derived"
    """Made of the others here: bytecode."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An entry of the guest and where it came from, for people."""

    entry: HostFile | Content | Symlink | Directory
    origin: str
    part: Part


@dataclass(frozen=True, slots=True)
class Linked:
    """An ELF object on its way into the image. ``origin``: its directory for the root's ld.so; ``parent``: what loads
    it, None for the program itself."""

    guest: bytes
    elf: Elf
    origin: bytes
    parent: Linked | None

    def own_path(self) -> tuple[bytes, ...]:
        """The entries that OSv looks at: RUNPATH, else RPATH."""
        return tuple(entry for entry in self.elf.runpath if entry)


@dataclass(slots=True)
class Missing:
    """Libraries that nothing provides, by name, with who needs them."""

    needed: dict[bytes, list[bytes]] = field(default_factory=dict)

    def add(self, name: bytes, by: bytes) -> None:
        users = self.needed.setdefault(name, [])
        if by not in users:
            users.append(by)

    def told(self) -> str:
        return "; ".join(
            f"{show(name)}, needed by {', '.join(show(user) for user in users[:3])}"
            + (f" and {len(users) - 3} more" if len(users) > 3 else "")
            for name, users in sorted(self.needed.items())
        )


class Collector:
    """Collects one program's closure from one root. ``cxx``: whether the kernel supplies libstdc++ itself."""

    def __init__(self, root: HostRoot, *, cxx: bool) -> None:
        self.root = root
        self.entries: dict[bytes, Placed] = {}
        self._supplied = SUPPLIED | {CXX} if cxx else SUPPLIED
        self._guest_of: dict[bytes, bytes] = {}
        self._closed: set[bytes] = set()
        self._elf: dict[bytes, Elf | None] = {}
        self._musl = False

    # ------------------------------------------------------------------------------------------------------ files

    def put(self, guest: bytes, entry: HostFile | Content | Symlink | Directory, origin: str, part: Part) -> None:
        """One entry. Raises ProgramInvalid that names both where another one stands there."""
        held = self.entries.get(guest)
        if held is None:
            self.entries[guest] = Placed(entry, origin, part)
            if isinstance(entry, HostFile):
                self._guest_of.setdefault(entry.path, guest)
        elif held.entry != entry:
            raise ProgramInvalid(
                f"{show(guest)}: two files for one place: {held.origin} and {origin}",
                hint="OSv finds a library by its name alone, so only one of the two can be in the image; "
                "let both users need the same one",
            )

    def put_file(self, guest: bytes, found: Found, part: Part) -> None:
        self.put(guest, found.file, show(found.file.path), part)

    def put_tree(
        self, source: bytes, guest: bytes, part: Part, *, root: HostRoot, wanted: Callable[[bytes], bool]
    ) -> list[tuple[bytes, Found]]:
        """The files below a directory of ``root`` that are ``wanted`` (asked by path below ``source``, directories
        before what is in them), by guest path. Nothing is put into the image yet but links and directories.

        A link to what is below ``source`` too stays a link, so that a library keeps being one file by two names; any
        other is followed, and becomes what it leads to. One that leads nowhere is left out.
        """
        top = root.real(source)
        if top is None:
            return []
        files = []
        above: tuple[bytes, ...] = (top,)
        waiting = [(top, guest, b"", above)]
        seen = 0
        while waiting:
            directory, at, prefix, above = waiting.pop()
            for name in root.names(directory):
                inner, path, target = prefix + name, _join(directory, name), _join(at, name)
                if not wanted(inner):
                    continue
                seen += 1
                if seen > _FOLDER_LIMIT:
                    raise ProgramInvalid(
                        f"{show(root.host(top))}: more than {_FOLDER_LIMIT} files and directories, links followed",
                        hint="do links in it lead to each other's directories, over and over?",
                    )
                real = path if root.link(path) is None else root.real(path)
                if real is None:
                    continue
                below = real[len(top) :].strip(b"/") if real.startswith(top + b"/") and real != path else b""
                if below and all(wanted(part) for part in _with_parents(below)):
                    link = Symlink(spelled(target, _join(guest, below)))
                    self.put(target, link, show(root.host(path)), part)
                elif root.is_directory(real):
                    if real not in above:
                        self.put(target, Directory(), show(root.host(real)), part)
                        waiting.append((real, target, inner + b"/", (*above, real)))
                elif (found := root.find(real)) is not None:
                    files.append((target, found))
        return files

    # ------------------------------------------------------------------------------------------------------- links

    def elf(self, found: Found) -> Elf | None:
        """The ELF object that a file is, None where it is none. Raises ElfInvalid for a damaged one."""
        path = found.file.path
        if path not in self._elf:
            try:
                self._elf[path] = read_elf_file(path)
            except OSError as error:
                raise ProgramInvalid(f"{show(path)}: cannot be read: {error.strerror}") from None
        return self._elf[path]

    def link_program(self, guest: bytes, found: Found, elf: Elf, part: Part) -> Linked:
        """A program and every library that it is linked with. Raises ProgramInvalid that names all that is missing."""
        self._musl = b"ld-musl" in (elf.interpreter or b"")
        self.put_file(guest, found, part)
        program = Linked(guest, elf, found.path.rpartition(b"/")[0] or b"/", None)
        missing = Missing()
        self.close(program, missing)
        if missing.needed:
            raise ProgramInvalid(
                f"{show(found.path)}: not found in {self.root}: {missing.told()}", hint=self._where_looked()
            )
        return program

    def link_module(self, guest: bytes, found: Found, program: Linked, missing: Missing) -> None:
        """What ``program`` may load while it runs: its libraries come too. The file itself is there already."""
        try:
            elf = self.elf(found)
        except ElfInvalid:
            return
        if elf is not None and fits(elf):
            self.close(Linked(guest, elf, found.path.rpartition(b"/")[0] or b"/", program), missing)

    def close(self, start: Linked, missing: Missing) -> None:
        """The libraries of ``start`` and theirs, breadth first as ld.so loads them."""
        waiting = deque([start])
        while waiting:
            user = waiting.popleft()
            if user.guest in self._closed:
                continue
            self._closed.add(user.guest)
            for name in user.elf.needed:
                if name in self._supplied:
                    continue
                library = self._library(name, user)
                if library is None:
                    missing.add(name, user.guest)
                else:
                    waiting.append(library)

    def _library(self, name: bytes, user: Linked) -> Linked | None:
        if b"/" in name:
            path = name if name.startswith(b"/") else None
        elif (beside := self._in_image(name, user)) is not None:
            return beside
        else:
            path = self._loader.find(name, self._search_path(user), self._fits)
        found = self.root.find(path) if path is not None else None
        elf = self.elf(found) if found is not None else None
        if path is None or found is None or elf is None:
            return None
        guest = self._place(name, path, found, user)
        return Linked(guest, elf, path.rpartition(b"/")[0] or b"/", user)

    def _in_image(self, name: bytes, user: Linked) -> Linked | None:
        """A library that the image has by ``$ORIGIN`` already: in a tree that was brought whole, such as a package."""
        here = user.guest.rpartition(b"/")[0] or b"/"
        for entry in user.own_path():
            if not entry.startswith(b"$ORIGIN"):
                continue
            guest = resolve(_join(entry.replace(b"$ORIGIN", here), name), self._look)
            placed = self.entries.get(guest) if guest is not None else None
            if guest is not None and placed is not None and isinstance(placed.entry, HostFile):
                path = placed.entry.path
                elf = self.elf(Found(path, placed.entry))
                if elf is not None and fits(elf):
                    return Linked(guest, elf, path.rpartition(b"/")[0] or b"/", user)
        return None

    def _look(self, path: bytes) -> bytes | bool | None:
        placed = self.entries.get(path)
        if placed is None:
            # A directory that nothing but its content tells of.
            return True
        entry = placed.entry
        return entry.target if isinstance(entry, Symlink) else isinstance(entry, Directory)

    def _search_path(self, user: Linked) -> tuple[bytes, ...]:
        """The directories that objects name themselves, in ld.so's order. LD_LIBRARY_PATH is a user's, not a program's,
        and is not looked at."""
        if not self._musl and user.own_path() and not user.elf.rpath:
            return _directories(user)
        found: list[bytes] = []
        each: Linked | None = user
        while each is not None:
            # glibc hands down RPATH alone, and not to an object with a RUNPATH of its own; musl hands down both.
            if self._musl or each.elf.rpath:
                found += _directories(each)
            each = each.parent
        return tuple(found)

    def _place(self, name: bytes, path: bytes, found: Found, user: Linked) -> bytes:
        """Put a library where OSv finds it for ``user``; the path of its file in the guest."""
        if b"/" in name:
            return self._settle(name, found)
        here = user.guest.rpartition(b"/")[0] or b"/"
        searched = [
            (entry, _normal(entry.replace(b"$ORIGIN", here)))
            for entry in user.own_path()
            if b"${" not in entry and (b"$" not in entry.replace(b"$ORIGIN", b""))
        ]
        for _, directory in [*searched, (b"", b"/"), (b"", LIBRARY_DIRECTORY)]:
            # Whatever stands on the way is what OSv loads.
            seen = self.entries.get(_join(directory, name))
            if seen is not None:
                return self._settle(_join(directory, name), found)
        for entry, directory in searched:
            beside = _normal(entry.replace(b"$ORIGIN", user.origin))
            if b"$ORIGIN" in entry and _join(beside, name) == _normal(path):
                return self._settle(_join(directory, name), found)
        return self._settle(_join(LIBRARY_DIRECTORY, name), found)

    def _settle(self, guest: bytes, found: Found) -> bytes:
        """The file at ``guest``; where the image has it elsewhere, a link to there, so that OSv loads it once."""
        elsewhere = self._guest_of.get(found.file.path)
        if elsewhere is None or elsewhere == guest:
            self.put_file(guest, found, Part.PROGRAM)
            return guest
        held = self.entries.get(guest)
        if held is not None and held.entry == found.file:
            return guest
        self.put(
            guest, Symlink(elsewhere), f"{show(found.file.path)} (in the image as {show(elsewhere)})", Part.PROGRAM
        )
        return elsewhere

    def _fits(self, path: bytes) -> bool:
        found = self.root.find(path)
        if found is None:
            return False
        try:
            elf = self.elf(found)
        except ElfInvalid:
            return False
        return elf is not None and fits(elf)

    @property
    def _loader(self) -> Loader:
        return self._loaders[self._musl]

    @cached_property
    def _loaders(self) -> Mapping[bool, Loader]:
        return {False: glibc_loader(self.root), True: musl_loader(self.root)}

    def _where_looked(self) -> str:
        kind = "musl" if self._musl else "glibc"
        broken = f" (its ld.so.cache is not used: {self._loader.broken})" if self._loader.broken else ""
        return f"looked where {kind}'s ld.so of {self.root} looks{broken}; install the packages that have them"


def fits(elf: Elf) -> bool:
    """Whether x86-64 OSv can load it at all; ld.so passes over what its machine cannot."""
    return elf.machine == Machine.X86_64 and elf.kind is not ElfKind.OTHER


def _directories(user: Linked) -> tuple[bytes, ...]:
    return tuple(directory for entry in user.own_path() for directory in expand(entry, user.origin))


def _with_parents(path: bytes) -> list[bytes]:
    names = path.split(b"/")
    return [b"/".join(names[: count + 1]) for count in range(len(names))]


def _normal(path: bytes) -> bytes:
    normal = posixpath.normpath(path)
    return normal[1:] if normal.startswith(b"//") else normal


def _join(directory: bytes, name: bytes) -> bytes:
    return directory.rstrip(b"/") + b"/" + name
