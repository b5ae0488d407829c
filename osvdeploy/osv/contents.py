"""Reads many files of this machine as fast as it can and sees to it that each is still what it was when it was found.

One thread reads, another takes what was read: both spend their time outside the interpreter lock, in system calls and
in hashing, so that two cores are used. Memory is the buffers, whatever the sizes of the files.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Generator, Sequence
from typing import NamedTuple

from osvdeploy.errors import SourceChanged
from osvdeploy.osv.filetree import Content, HostFile, show, unreadable

BUFFER_SIZE = 1 << 20
"""Bytes that are handed over at once: so many that it costs nothing, so few that they stay in a CPU's cache."""

UNIT = 512
"""Each file begins at a multiple of this in a buffer, and zeros lead up to it."""

_BUFFERS = 4
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_ZEROS = bytes(UNIT)
_UNCHANGING = "let nothing write to the sources while they are built"


class Filled(NamedTuple):
    """A buffer with what was read. ``pieces``: index of the file, start and end in ``view``; a file that does not fit
    goes on in the next buffer. ``view`` is filled anew once the next one is asked for."""

    view: memoryview
    pieces: list[tuple[int, int, int]]


def read_files(files: Sequence[HostFile | Content]) -> Generator[Filled, None, None]:
    """The contents of all files in order. Close it when it is not read to its end.

    Raises SourceChanged that names a file which is not what its stamp says.
    """
    total = sum(-(-file.size // UNIT) * UNIT for file in files)
    size = min(BUFFER_SIZE, max(total, UNIT))
    free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
    full: queue.SimpleQueue[Filled | BaseException | None] = queue.SimpleQueue()
    for _ in range(min(_BUFFERS, -(-total // size))):
        free.put(memoryview(bytearray(size)))
    if not total:
        free.put(memoryview(bytearray(size)))
    thread = threading.Thread(target=_Reader(free, full).run, args=(files,), name="read-files", daemon=True)
    thread.start()
    try:
        while isinstance(item := full.get(), Filled):
            yield item
            free.put(item.view)
    finally:
        free.put(None)
        thread.join()
    if item is not None:
        raise item


class _Abandoned(Exception):
    """Nobody wants the rest."""


class _Reader:
    """The thread that reads."""

    def __init__(
        self,
        free: queue.SimpleQueue[memoryview | None],
        full: queue.SimpleQueue[Filled | BaseException | None],
    ) -> None:
        self._free, self._full = free, full
        self._view = memoryview(b"")
        self._at = 0
        self._pieces: list[tuple[int, int, int]] = []

    def run(self, files: Sequence[HostFile | Content]) -> None:
        try:
            self._next()
            for index, file in enumerate(files):
                if type(file) is HostFile:
                    self._read(index, file)
                elif isinstance(file, Content):
                    self._copy(index, file)
                # A buffer is whole units, so padding never spans two.
                rest = -self._at % UNIT
                if rest:
                    self._view[self._at : self._at + rest] = _ZEROS[:rest]
                    self._at += rest
            self._full.put(Filled(self._view, self._pieces))
            self._full.put(None)
        except _Abandoned:
            pass
        except BaseException as error:  # it is raised again in the thread that waits
            self._full.put(error)

    def _next(self) -> None:
        view = self._free.get()
        if view is None:
            raise _Abandoned
        self._view, self._at, self._pieces = view, 0, []

    def _room(self) -> int:
        if self._at == len(self._view):
            self._full.put(Filled(self._view, self._pieces))
            self._next()
        return len(self._view) - self._at

    def _took(self, index: int, count: int) -> None:
        self._pieces.append((index, self._at, self._at + count))
        self._at += count

    def _read(self, index: int, file: HostFile) -> None:
        # Lean, since this path decides what 50,000 files take, and both threads wait for the interpreter's lock.
        stamp = file.stamp
        try:
            # O_NONBLOCK: a pipe put in the file's place since must not hang the build.
            fd = os.open(file.path, _OPEN_FLAGS)
            try:
                at, left = self._at, stamp[2]
                if left <= len(self._view) - at:
                    got = os.readv(fd, (self._view[at : at + left],)) if left else 0
                    self._pieces.append((index, at, at + got))
                    self._at = at + got
                    left -= got
                while left:
                    count = min(left, self._room())
                    got = os.readv(fd, (self._view[self._at : self._at + count],))
                    if not got:
                        break
                    self._took(index, got)
                    left -= got
                # Read first, then asked: if the stamp is still the one of the scan, nothing was written in between.
                seen = os.fstat(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise unreadable(file.path, error) from None
        if left or (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns) != stamp:
            raise SourceChanged(f"{show(file.path)}: changed while it was read", hint=_UNCHANGING)

    def _copy(self, index: int, file: Content) -> None:
        rest = memoryview(file.content)
        while len(rest):
            count = min(len(rest), self._room())
            self._view[self._at : self._at + count] = rest[:count]
            self._took(index, count)
            rest = rest[count:]
