"""A root file system to take programs from: this host's, or a directory that stands for one.

Every path here is absolute and means what it would mean to a process whose root this is. Links, absolute ones too, are
followed within the root and never leave it, as chroot(2) would have it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from osvdeploy.osv.filetree import HostFile, resolve, show, stamp_of


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file of a root: ``path`` within it, links followed, and the file of this machine that it is."""

    path: bytes
    file: HostFile


@dataclass(slots=True)
class HostRoot:
    """The root at ``top``, a directory of this machine (``b"/"``: the machine's own). Remembers what it saw: one
    closure asks for the same directories thousands of times."""

    top: bytes = b"/"
    _seen: dict[bytes, bytes | bool | None] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return show(self.top)

    def real(self, path: bytes) -> bytes | None:
        """``path`` without links; None where it leads nowhere."""
        resolved = resolve(path, self._look)
        return None if resolved is None or (resolved != b"/" and self._look(resolved) is None) else resolved

    def find(self, path: bytes) -> Found | None:
        """The regular file that ``path`` leads to, None where there is none that could be seen."""
        resolved = self.real(path)
        if resolved is None or self._look(resolved) is not False:
            return None
        host = self.host(resolved)
        try:
            status = os.stat(host)  # noqa: PTH116 (names are bytes, and a Path is text)
        except OSError:
            return None
        return Found(resolved, HostFile(host, stamp_of(status))) if stat.S_ISREG(status.st_mode) else None

    def is_directory(self, path: bytes) -> bool:
        resolved = self.real(path)
        return resolved is not None and (resolved == b"/" or self._look(resolved) is True)

    def names(self, path: bytes) -> list[bytes]:
        """What stands in a directory, sorted; nothing where there is no such directory, or it cannot be read."""
        resolved = self.real(path)
        try:
            return [] if resolved is None else sorted(os.listdir(self.host(resolved)))  # noqa: PTH208 (bytes)
        except OSError:
            return []

    def read(self, path: bytes, limit: int) -> bytes | None:
        """The first ``limit`` bytes of a file, None where it is none or cannot be read."""
        found = self.find(path)
        if found is None:
            return None
        try:
            with open(found.file.path, "rb", buffering=0) as file:  # noqa: PTH123 (names are bytes)
                pieces, left = [], limit
                while left > 0 and (piece := file.read(left)):
                    pieces.append(piece)
                    left -= len(piece)
                return b"".join(pieces)
        except OSError:
            return None

    def link(self, path: bytes) -> bytes | None:
        """The target of the link that ``path`` itself is (its directory resolved), None where it is none."""
        seen = self._look(path)
        return seen if isinstance(seen, bytes) else None

    def host(self, resolved: bytes) -> bytes:
        """Where a path without links is on this machine."""
        return resolved if self.top == b"/" else self.top.rstrip(b"/") + resolved

    def _look(self, path: bytes) -> bytes | bool | None:
        # Asked only with paths whose directories are no links, so that lstat(2) cannot be led out of the root.
        try:
            return self._seen[path]
        except KeyError:
            pass
        host = self.host(path)
        seen: bytes | bool | None
        try:
            mode = os.lstat(host).st_mode
            seen = os.readlink(host) if stat.S_ISLNK(mode) else stat.S_ISDIR(mode)  # noqa: PTH115 (bytes)
        except (OSError, ValueError):
            seen = None
        self._seen[path] = seen
        return seen
