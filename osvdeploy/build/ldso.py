"""Where ld.so finds a library, from files alone: ld.so.cache, ld.so.conf and the directories built into it.

Nothing is run: a root may be another machine's. Of glibc-hwcaps, the directories of libraries built for newer
processors, nothing is taken: which one ld.so would choose depends on the machine that it runs on, and an image must
not; the plain library is there too.
"""

from __future__ import annotations

import fnmatch
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from osvdeploy.build.hostroot import HostRoot

CACHE_PATH = b"/etc/ld.so.cache"
CONF_PATH = b"/etc/ld.so.conf"

CACHE_LIMIT = 64 << 20
"""Bytes of an ld.so.cache that are read. One of a large desktop has 200 KB."""

_CONF_LIMIT = 1 << 20
_CONF_DEPTH = 16
_CONF_FILES = 1000
_PATTERN = frozenset(b"*?[")

_NEW_MAGIC = b"glibc-ld.so.cache1.1"
_OLD_MAGIC = b"ld.so-1.7.0\0"
# struct cache_file_new: magic and version (20), nlibs, len_strings, flags (u8) + 3 unused, extension offset, 12 unused.
_HEADER = struct.Struct("<20sIIB3xI12x")
# struct file_entry_new: flags (i32), key, value, osversion, hwcap (u64).
_ENTRY = struct.Struct("<iIIIQ")
_OLD_HEADER = struct.Struct("<12sI")
_OLD_ENTRY_SIZE = 12
_LITTLE_ENDIAN = 2

X86_64_LIB = 0x0303
"""Flags of a 64-bit x86-64 library of glibc's (FLAG_ELF_LIBC6 | FLAG_X8664_LIB64); 0x0003 is a 32-bit one's."""

DEFAULT_DIRECTORIES = (
    b"/lib/x86_64-linux-gnu",
    b"/usr/lib/x86_64-linux-gnu",
    b"/lib64",
    b"/usr/lib64",
    b"/lib",
    b"/usr/lib",
)
"""What distributions build into their ld.so: Debian's directories, then the two of everybody else. Those that a root
lacks do no harm, and a library of another machine in them is passed over."""

MUSL_DIRECTORIES = (b"/lib", b"/usr/local/lib", b"/usr/lib")
"""Built into musl's ld.so, where /etc/ld-musl-x86_64.path does not say otherwise."""

MUSL_PATH = b"/etc/ld-musl-x86_64.path"

LIB_TOKENS = (b"lib/x86_64-linux-gnu", b"lib64", b"lib")
"""What ``$LIB`` may stand for: it is built into ld.so. The first in which the library is there is meant."""

PLATFORM = b"x86_64"
"""What ``$PLATFORM`` stands for: AT_PLATFORM of every x86-64 Linux."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A library in ld.so.cache: its soname, where it is, for what machine, and whether for newer processors alone."""

    soname: bytes
    path: bytes
    flags: int
    hwcaps: bool


def parse_cache(content: bytes) -> tuple[CacheEntry, ...]:
    """The libraries of an ld.so.cache, in its order. Raises ValueError that says what is wrong with it.

    glibc's new format, alone (glibc 2.32 and later) or behind the old one's table, which is not read.
    """
    start = 0
    if content.startswith(_OLD_MAGIC):
        if len(content) < _OLD_HEADER.size:
            raise ValueError("torn within its header")
        _, count = _OLD_HEADER.unpack_from(content)
        start = -(-(_OLD_HEADER.size + count * _OLD_ENTRY_SIZE) // 8) * 8
    if len(content) < start + _HEADER.size:
        raise ValueError("too short for an ld.so.cache")
    magic, count, strings, flags, _ = _HEADER.unpack_from(content, start)
    if magic != _NEW_MAGIC:
        raise ValueError("not an ld.so.cache of glibc")
    if flags & 3 not in (0, _LITTLE_ENDIAN):
        raise ValueError("of a big-endian machine")
    table_end = start + _HEADER.size + count * _ENTRY.size
    if table_end + strings > len(content):
        raise ValueError(f"{count} libraries and {strings} bytes of names do not fit into its {len(content)} bytes")
    entries = []
    for kind, key, value, _, hwcap in _ENTRY.iter_unpack(content[start + _HEADER.size : table_end]):
        # Offsets count from the new format's own header.
        entries.append(CacheEntry(_text(content, start + key), _text(content, start + value), kind, hwcap != 0))
    return tuple(entries)


def _text(content: bytes, offset: int) -> bytes:
    end = content.find(b"\0", offset, offset + 4097)
    if end < 0:
        raise ValueError(f"a name at byte {offset} that does not end")
    return content[offset:end]


def conf_directories(root: HostRoot, conf: bytes = CONF_PATH) -> tuple[bytes, ...]:
    """The directories that ``conf`` names, in order and each once; what it includes in the place of the include."""
    found: dict[bytes, None] = {}
    budget = [_CONF_FILES]
    _read_conf(root, conf, found, budget, 0)
    return tuple(found)


def parse_conf(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The lines of an ld.so.conf: ("directory", path) or ("include", pattern), as ldconfig takes them.

    ``#`` begins a comment anywhere; ``hwcap`` lines are obsolete and skipped; a directory may carry ``=TYPE``.
    """
    for line in content.replace(b"\0", b"\n").split(b"\n"):
        text = line.partition(b"#")[0].strip()
        if not text:
            continue
        words = text.split()
        if words[0] == b"include":
            for pattern in words[1:]:
                yield "include", pattern
        elif words[0] != b"hwcap":
            yield "directory", text.partition(b"=")[0].rstrip().rstrip(b"/") or b"/"


def _read_conf(root: HostRoot, conf: bytes, found: dict[bytes, None], budget: list[int], depth: int) -> None:
    budget[0] -= 1
    content = root.read(conf, _CONF_LIMIT)
    if content is None:
        return
    for kind, value in parse_conf(content):
        if kind == "directory":
            if value.startswith(b"/"):
                found.setdefault(value)
        elif depth < _CONF_DEPTH:
            pattern = value if value.startswith(b"/") else conf.rpartition(b"/")[0] + b"/" + value
            for path in _matching(root, pattern):
                if budget[0] > 0:
                    _read_conf(root, path, found, budget, depth + 1)


def _matching(root: HostRoot, pattern: bytes) -> list[bytes]:
    """glob(3) within the root, sorted: a name that begins with a dot is matched only by one that does."""
    paths = [b""]
    for name in pattern.strip(b"/").split(b"/"):
        if not _PATTERN & set(name):
            paths = [path + b"/" + name for path in paths]
            continue
        paths = [
            path + b"/" + found
            for path in paths
            for found in root.names(path or b"/")
            if fnmatch.fnmatchcase(found, name) and (not found.startswith(b".") or name.startswith(b"."))
        ]
        if len(paths) > _CONF_FILES:
            del paths[_CONF_FILES:]
    return paths


@dataclass(frozen=True, slots=True)
class Loader:
    """What one root's ld.so knows: libraries by soname, and directories to look into after that.

    ``broken`` says what is wrong with a cache that could not be read: it is taken as absent.
    """

    cache: dict[bytes, tuple[bytes, ...]]
    directories: tuple[bytes, ...]
    broken: str | None = None

    def find(self, name: bytes, directories: tuple[bytes, ...], fits: Callable[[bytes], bool]) -> bytes | None:
        """The first path for ``name`` that ``fits``: in ``directories`` (the object's own), the cache, the defaults."""
        for directory in directories:
            if fits(path := directory.rstrip(b"/") + b"/" + name):
                return path
        for path in self.cache.get(name, ()):
            if fits(path):
                return path
        for directory in self.directories:
            if fits(path := directory.rstrip(b"/") + b"/" + name):
                return path
        return None


def glibc_loader(root: HostRoot) -> Loader:
    """glibc's. A root without a cache, as container tools leave it, is looked through as ldconfig would do it."""
    content = root.read(CACHE_PATH, CACHE_LIMIT)
    broken = None
    if content is not None:
        try:
            known: dict[bytes, list[bytes]] = {}
            for entry in parse_cache(content):
                if entry.flags == X86_64_LIB and not entry.hwcaps and entry.path.startswith(b"/"):
                    known.setdefault(entry.soname, []).append(entry.path)
            return Loader({soname: tuple(paths) for soname, paths in known.items()}, DEFAULT_DIRECTORIES)
        except ValueError as error:
            broken = str(error)
    directories = dict.fromkeys((*conf_directories(root), *DEFAULT_DIRECTORIES))
    return Loader({}, tuple(directories), broken)


def musl_loader(root: HostRoot) -> Loader:
    """musl's, which has no cache: a list of directories, its own or the root's."""
    content = root.read(MUSL_PATH, _CONF_LIMIT)
    if content is None:
        return Loader({}, MUSL_DIRECTORIES)
    directories = [name.strip() for line in content.split(b"\n") for name in line.split(b":")]
    return Loader({}, tuple(name for name in directories if name.startswith(b"/")))


def expand(entry: bytes, origin: bytes) -> tuple[bytes, ...]:
    """The directories that one entry of an RPATH or RUNPATH may mean; none where it is relative to where one stands."""
    for token, value in ((b"ORIGIN", origin), (b"PLATFORM", PLATFORM)):
        entry = _replaced(entry, token, value)
    found = [_replaced(entry, b"LIB", lib) for lib in LIB_TOKENS] if _replaced(entry, b"LIB", b"") != entry else [entry]
    return tuple(each for each in found if each.startswith(b"/"))


def _replaced(entry: bytes, token: bytes, value: bytes) -> bytes:
    """``$TOKEN`` and ``${TOKEN}`` replaced; a longer name that begins so is another token."""
    entry = entry.replace(b"${" + token + b"}", value)
    pieces, at = [], 0
    while (start := entry.find(b"$" + token, at)) >= 0:
        end = start + 1 + len(token)
        longer = entry[end : end + 1].isalnum() or entry[end : end + 1] == b"_"
        pieces += [entry[at:start], entry[start:end] if longer else value]
        at = end
    return b"".join([*pieces, entry[at:]])
