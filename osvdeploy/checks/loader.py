"""Which files a loader brings in, and which it does not find: OSv's as core/elf.cc has it, or Linux's where OSv runs
that. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from osvdeploy.osv.elf import Elf, ElfKind
from osvdeploy.osv.filetree import Directory, FileTree, Symlink, resolve
from osvdeploy.osv.kernel_facts import KernelFacts

LINUX_LOADERS: Final = (b"ld-linux-x86-64.so.2", b"ld-linux-aarch64.so.1")

LIBSTDCXX: Final = b"libstdc++.so.6"

_SEARCHED: Final = (b"/", b"/usr/lib")
_SEARCHED_BY_GLIBC: Final = (
    b"/lib/x86_64-linux-gnu", b"/usr/lib/x86_64-linux-gnu", b"/lib/aarch64-linux-gnu", b"/usr/lib/aarch64-linux-gnu",
    b"/lib64", b"/usr/lib64", b"/lib", b"/usr/lib",
)  # fmt: skip
"""Where ld.so looks after the cache, on Debian's layout and on Fedora's."""

_SUPPLIED: Final = frozenset({
    b"libresolv.so.2", b"libc.so.6", b"libm.so.6", b"libpthread.so.0", b"libdl.so.2", b"librt.so.1", b"libaio.so.1",
    b"libxenstore.so.3.0", b"libcrypt.so.1", b"libutil.so",
})  # fmt: skip
"""What a kernel answers for in place of a file (core/elf.cc); its machine's own names are in _supplied."""


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """What an image holds, as far as loaders care. ``elves``: every ELF file by its guest path, links not among them;
    ``damaged``: those that claim to be ELF and cannot be read, with what is wrong."""

    tree: FileTree
    elves: Mapping[bytes, Elf]
    damaged: Mapping[bytes, str] = field(default_factory=dict)

    def locate(self, path: bytes) -> bytes | None:
        """The regular file that a path leads to, links followed."""
        resolved = resolve(path, self._look)
        return resolved if resolved is not None and self._look(resolved) is False else None

    def _look(self, path: bytes) -> bytes | bool | None:
        entry = self.tree.entries.get(path)
        return entry.target if isinstance(entry, Symlink) else None if entry is None else isinstance(entry, Directory)


@dataclass(frozen=True, slots=True)
class Absent:
    """A library that was not found: its name, and the file that needs it."""

    name: bytes
    by: bytes


@dataclass(slots=True)
class Loaded:
    """What a loader has brought in, in its order, and what it could not find."""

    paths: list[bytes] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)
    unreadable: list[bytes] = field(default_factory=list)
    cycles: list[tuple[bytes, bytes]] = field(default_factory=list)
    names: set[bytes] = field(default_factory=set)

    def lacking(self) -> frozenset[bytes]:
        """Files that something they need is missing for."""
        return frozenset(absent.by for absent in self.absent)

    def add(self, other: Loaded) -> None:
        """What another program brings in too."""
        self.paths += [path for path in other.paths if path not in self.names]
        self.unreadable += [path for path in other.unreadable if path not in self.names]
        self.names |= other.names


@dataclass(slots=True)
class Loader:
    """The loader of one program. ``linux``: Linux's own, once :meth:`hand_over` says so."""

    kernel: KernelFacts | None
    files: ImageFiles
    linux: bool = False
    _supplied: frozenset[bytes] = frozenset()
    _given: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        self._supplied = _supplied(self.kernel)

    def program(self, word: str) -> bytes | None:
        """The file that a command starts; a name without a slash is looked for as a library is (core/app.cc)."""
        name = word.encode("utf-8", "surrogateescape")
        if b"$" in name:
            return None
        return self.files.locate(_from_root(name)) if b"/" in name else self.find(name, ())

    def is_linux_loader(self, program: bytes) -> bool:
        elf = self.files.elves.get(program)
        return elf is not None and elf.soname in LINUX_LOADERS

    def hand_over(self, words: Sequence[str]) -> bytes | None:
        """Let Linux's loader, started with these arguments, load from here on: the program that it is told to run."""
        self.linux, self._supplied = True, frozenset()
        waiting = list(words)
        while waiting and waiting[0].startswith("--"):
            option = waiting.pop(0)
            if option in ("--library-path", "--preload", "--audit", "--argv0", "--glibc-hwcaps-prepend") and waiting:
                value = waiting.pop(0)
                if option == "--library-path":
                    self._given = tuple(part.encode() for part in value.split(":") if part)
        return self.program(waiting[0]) if waiting and "/" in waiting[0] else None

    def find(self, name: bytes, directories: Iterable[bytes]) -> bytes | None:
        """Where a needed name is found; None where it is not."""
        if b"/" in name:
            return self.files.locate(_from_root(name))
        if self.linux:
            searched: tuple[bytes, ...] = (*self._given, *directories, *_SEARCHED_BY_GLIBC)
        else:
            searched = (*directories, *_SEARCHED)
        for directory in searched:
            if found := self.files.locate(_from_root(directory) + b"/" + name):
                return found
        if self.linux and self.files.locate(b"/etc/ld.so.cache"):
            # Its content is the host's; what it names is where the host has it.
            return next(iter(self.elsewhere(name)), None)
        return None

    def elsewhere(self, name: bytes) -> list[bytes]:
        """Files of the image that would be a needed library, wherever they are."""
        return [path for path, elf in self.files.elves.items() if elf.soname == name or path.endswith(b"/" + name)]

    def load(self, first: bytes, before: Loaded | None = None) -> Loaded:
        """What loading a file brings in, depth first as OSv does it; ``before`` is what is loaded already.

        A name is known once its file and all that it needs are loaded, so one that is asked for in between is loaded
        again: a circle has no end.
        """
        loaded = Loaded(names=set(before.names) if before is not None else set())
        if first in loaded.names or not self._open(first, loaded):
            return loaded
        stack = [(first, iter(self.files.elves[first].needed))]
        under_way = {first}
        while stack:
            path, waiting = stack[-1]
            needed = next(waiting, None)
            if needed is None:
                stack.pop()
                under_way.discard(path)
                loaded.names |= {path, self.files.elves[path].soname or path}
                continue
            if needed in self._supplied or needed in loaded.names:
                continue
            found = self.find(needed, self._runpath(path))
            if found is None:
                loaded.absent.append(Absent(needed, path))
            elif found in under_way:
                loaded.cycles.append((path, found))
            elif found not in loaded.names and self._open(found, loaded):
                stack.append((found, iter(self.files.elves[found].needed)))
                under_way.add(found)
        return loaded

    def _open(self, path: bytes, loaded: Loaded) -> bool:
        elf = self.files.elves.get(path)
        if elf is None:
            loaded.unreadable.append(path)
            loaded.names.add(path)
            return False
        loaded.paths.append(path)
        # A static program brings its own linker, and OSv leaves what it names alone.
        if elf.kind.static or elf.kind is ElfKind.OTHER:
            loaded.names.add(path)
            return False
        return True

    def _runpath(self, path: bytes) -> list[bytes]:
        origin = path[: path.rfind(b"/")] or b"/"
        directories = []
        for directory in self.files.elves[path].runpath:
            if self.linux:
                directory = directory.replace(b"${ORIGIN}", b"$ORIGIN")
            directories.append(directory.replace(b"$ORIGIN", origin))
        return directories


def _supplied(kernel: KernelFacts | None) -> frozenset[bytes]:
    """The names for which a program gets the kernel itself: what its bytes tell, else what any kernel may have, since
    what is not known to be missing is not told as missing."""
    if kernel is not None and kernel.supplied is not None:
        return frozenset(name.encode() for name in kernel.supplied)
    names = set(_SUPPLIED)
    if kernel is None or kernel.hidden is not True:
        names.add(LIBSTDCXX)
    if kernel is not None and kernel.arch == "aarch64":
        names.add(b"ld-linux-aarch64.so.1")
    else:
        names |= {b"ld-linux-x86-64.so.2", b"libc.musl-x86_64.so.1", b"ld-musl-x86_64.so.1"}
    return frozenset(names)


def _from_root(path: bytes) -> bytes:
    """A path as the guest means it: its working directory is / unless --cwd says otherwise."""
    return path if path.startswith(b"/") else b"/" + path
