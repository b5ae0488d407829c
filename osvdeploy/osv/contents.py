"""Reads many files of this machine, to take their digests or to put them on a disk, and sees to it that each is still
what it was when it was found.

Where files are many, worker processes do this (osvdeploy.osv.workers). They are started for each build, so nothing is
imported here that takes time to import. Memory is one buffer, whatever the sizes of the files.
"""

from __future__ import annotations

import hashlib
import os
import struct
from itertools import repeat, starmap
from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

BUFFER_SIZE = 1 << 20
"""Bytes that are read, and written, at once: so many that it costs nothing, so few that they stay in a CPU's cache."""

UNIT = 512
"""Each content begins at a multiple of this, and zeros lead up to it."""

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime in ns."""

Source = tuple[bytes, Stamp | None]
"""A file's path and stamp, or a content and None."""

_AT_ONCE = 64
"""Files that are open at once."""

_PACKED = struct.Struct("=QQQqq")
_stamp = attrgetter("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_ZEROS = bytes(UNIT)


def hash_sources(sources: Iterable[Source], going_on: Callable[[], object]) -> list[str]:
    """sha256 in hex of each, in order. ``going_on`` is called about once per MiB.

    Raises SourceChanged that names a file which is not what its stamp says, FileTreeInvalid that names one which may
    not be read, and what ``going_on`` raises.
    """
    hashes = _Hashes()
    for buffer, pieces, left in _read(sources, 0, None):
        going_on()
        hashes.add(buffer, pieces, left)
    return hashes.found


def write_sources(
    sources: Iterable[Source],
    blocks: Sequence[int],
    write: Callable[[int, memoryview], object],
    start: int = 0,
    stop: int | None = None,
) -> None:
    """Hand each to ``write`` for its block of 512 bytes, or, of a single one, its bytes from ``start`` to ``stop``:
    zeros up to the next block behind each, those that follow one another together, at most BUFFER_SIZE bytes at once,
    which are overwritten once it returns.

    Raises what :func:`hash_sources` raises for a file, and what ``write`` raises.
    """
    writes = _Writes(blocks, write)
    for buffer, pieces, _ in _read(sources, start, stop):
        writes.add(buffer, pieces)


def copy_sources(
    sources: Iterable[Source], blocks: Sequence[int], write: Callable[[int, memoryview], object]
) -> list[str]:
    """Both at once, each source read a single time: what :func:`hash_sources` finds and :func:`write_sources` does.
    Raises what they raise."""
    hashes, writes = _Hashes(), _Writes(blocks, write)
    for buffer, pieces, left in _read(sources, 0, None):
        hashes.add(buffer, pieces, left)
        writes.add(buffer, pieces)
    return hashes.found


class _Hashes:
    """Digests of what is read, buffer by buffer (see :func:`_read`)."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._large = hashlib.sha256()

    def add(self, buffer: memoryview, pieces: list[tuple[int, int, int]], left: int | None) -> None:
        sha256 = hashlib.sha256
        if left is None:
            self.found += [sha256(buffer[start:end]).hexdigest() for _, start, end in pieces]
            return
        _, start, end = pieces[0]
        self._large.update(buffer[start:end])
        if not left:
            self.found.append(self._large.hexdigest())
            self._large = sha256()


class _Writes:
    """Hands on what is read, buffer by buffer (see :func:`_read`), each source for its block."""

    def __init__(self, blocks: Sequence[int], write: Callable[[int, memoryview], object]) -> None:
        self._blocks, self._write = blocks, write
        self._at, self._before = 0, -1

    def add(self, buffer: memoryview, pieces: list[tuple[int, int, int]]) -> None:
        begin = end = target = 0
        for index, first, last in pieces:
            if index != self._before:
                self._at, self._before = self._blocks[index] * UNIT, index
            if begin == end:
                begin, target = first, self._at
            elif target + first - begin != self._at:
                self._write(target, buffer[begin:end])
                begin, target = first, self._at
            self._at += last - first
            end = -(-last // UNIT) * UNIT
            buffer[last:end] = _ZEROS[: end - last]
        if begin < end:
            self._write(target, buffer[begin:end])


def pack(paths: Iterable[bytes], stamps: Iterable[Stamp]) -> tuple[bytes, bytes]:
    """Files as a worker is told of them. Raises struct.error for times that are centuries away."""
    return b"\0".join(paths), b"".join(starmap(_PACKED.pack, stamps))


def unpack(paths: bytes, stamps: bytes) -> Iterable[Source]:
    """What was packed, one file at least."""
    return zip(paths.split(b"\0"), _PACKED.iter_unpack(stamps), strict=True)


def pwrite_all(fd: int, content: bytes | memoryview, offset: int) -> int:
    """Write all of it at ``offset``, and say how many bytes that were. Raises OSError."""
    view, done = memoryview(content), 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], offset + done)
    return done


def _read(
    sources: Iterable[Source], start: int, stop: int | None
) -> Iterator[tuple[memoryview, list[tuple[int, int, int]], int | None]]:
    """A buffer with what was read, again and again: the index of each source in it, and from where to where it stands
    there, from a multiple of 512 on. What does not fit has a buffer by itself, several times, and with it how many
    bytes are left."""
    buffer = memoryview(bytearray(BUFFER_SIZE))
    room, at = len(buffer), 0
    pieces: list[tuple[int, int, int]] = []
    files: list[tuple[bytes, Stamp]] = []
    views: list[tuple[memoryview]] = []
    for index, (source, stamp) in enumerate(sources):
        end = (len(source) if stamp is None else stamp[2]) if stop is None else stop
        size = end - start
        if pieces and (size > room - at or len(files) == _AT_ONCE):
            _read_files(files, views)
            yield buffer, pieces, None
            pieces, files, views, at = [], [], [], 0
        if stop is None and size < room:
            view = buffer[at : at + size]
            if stamp is None:
                view[:] = source
            else:
                files.append((source, stamp))
                views.append((view,))
            pieces.append((index, at, at + size))
            # A buffer is whole blocks, so this never goes beyond it.
            at += -(-size // UNIT) * UNIT
            continue
        for begin in range(start, end, room):
            view = buffer[: min(end - begin, room)]
            if stamp is None:
                view[:] = source[begin : begin + len(view)]
            else:
                _read_file(source, stamp, begin, view)
            yield buffer, [(index, 0, len(view))], end - begin - len(view)
    if pieces:
        _read_files(files, views)
        yield buffer, pieces, None


def _read_files(files: list[tuple[bytes, Stamp]], views: list[tuple[memoryview]]) -> None:
    """All of small files, each into its own view. This decides what 50,000 of them take, so there is no loop in it:
    where anything is not as it should be they are read anew, one by one."""
    fds: list[int] = []
    got: list[int] = []
    seen: list[Stamp] = []
    try:
        fds.extend(map(os.open, [path for path, _ in files], repeat(_OPEN_FLAGS)))
        got.extend(map(os.readv, fds, views))
        # Read first, then asked: if a stamp is still the one of the scan, nothing was written in between.
        seen.extend(map(_stamp, map(os.fstat, fds)))
    except OSError:
        pass
    finally:
        list(map(os.close, fds))
    stamps = [stamp for _, stamp in files]
    if seen != stamps or got != [stamp[2] for stamp in stamps]:
        for (path, stamp), (view,) in zip(files, views, strict=True):
            _read_file(path, stamp, 0, view)


def _read_file(path: bytes, stamp: Stamp, start: int, view: memoryview) -> None:
    """The file's bytes from ``start`` into ``view``. Opened for each piece: that costs little beside a MiB."""
    size, got = len(view), 0
    try:
        # O_NONBLOCK: a pipe put in the file's place since must not hang the build.
        fd = os.open(path, _OPEN_FLAGS)
        try:
            if start:
                os.lseek(fd, start, os.SEEK_SET)
            while got < size and (more := os.readv(fd, (view[got:],))):
                got += more
            seen = _stamp(os.fstat(fd))
        finally:
            os.close(fd)
    except OSError as error:
        from osvdeploy.osv.filetree import unreadable  # only here: see the module's docstring

        raise unreadable(path, error) from None
    if got < size or seen != stamp:
        from osvdeploy.errors import SourceChanged
        from osvdeploy.osv.filetree import show

        raise SourceChanged(
            f"{show(path)}: changed while it was read", hint="let nothing write to the sources while they are built"
        )
