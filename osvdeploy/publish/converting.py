"""A disk from one file into another of another format, or into a pipe: read, written, read back and compared."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, TYPE_CHECKING, BinaryIO

from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import BuildError, DiskInvalid, SourceChanged, ToolMissing, UsageError
from osvdeploy.events import Progress
from osvdeploy.osv.image import Extent
from osvdeploy.sizes import MIB, format_size

if TYPE_CHECKING:
    from osvdeploy.osv.formats import OpenDisk
    from osvdeploy.osv.source import HoleyAccess, OpenFile
    from osvdeploy.osv.tarball import Tarball
    from osvdeploy.publish.convert import Contents, Reading, Run, Target

ENDINGS = {
    ".raw": "raw",
    ".img": "raw",
    ".qcow2": "qcow2",
    ".vmdk": "vmdk",
    ".vhd": "vhd",
    ".tar.gz": "gce",
    ".tgz": "gce",
}
"""Of targets, and the format that is meant."""

_State = tuple[int, int]
"""Of a file: its size, and when it was last written to."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Converted:
    """An image that was converted. ``source_size`` is the size of the disk, ``size`` that of it in the target, where it
    may have grown; ``data`` counts the bytes in chunks of 64 KiB that are not all zeros, ``bytes`` those of the target.

    ``digest`` is that of the disk (docs/convert.md). ``sha256`` is that of the target; None of one with holes, which
    would have to be read for it.
    """

    source: Path
    source_format: str
    detail: str
    target: Path | None
    format: str
    source_size: int
    size: int
    data: int
    bytes: int
    digest: Digest
    sha256: Digest | None


def target_format(target: Path | None, wanted: str | None) -> Target:
    """``wanted``, or what the target's name ends with. Raises UsageError where neither says it."""
    from osvdeploy.publish.convert import Target

    if wanted is not None:
        return Target(wanted)
    ending = next((each for each in ENDINGS if target is not None and target.name.lower().endswith(each)), None)
    if ending is not None:
        return Target(ENDINGS[ending])
    raise UsageError(
        f"{target or 'standard output'}: no name that says which format is wanted",
        hint=f"say it with --format ({', '.join(Target)}), or let the name end with {', '.join(ENDINGS)}",
    )


@dataclass(frozen=True, slots=True)
class Tools:
    """What converting is done with. ``part`` opens a file that stands in a path's place when its block ends well,
    ``foreign`` reads a disk of a format that we do not."""

    part: Callable[[Path], AbstractContextManager[IO[bytes]]]
    foreign: Callable[[OpenDisk], AbstractContextManager[OpenFile]]


def convert_disk(
    ctx: Context, source: Path, target: Path | BinaryIO, kind: Target, tools: Tools, expected: str | None = None
) -> Converted:
    """Write a disk in another format: into a file, whole or not at all, or an open stream for a format that is one.
    ``expected`` is the source's format where one is asserted.

    What was written is read back and compared, but for a stream.

    Raises UsageError, DiskInvalid (the source), ToolMissing, before anything is written; SourceChanged; BuildError
    where the target cannot be written; Interrupted. Nothing half-made is left behind.
    """
    from osvdeploy.osv.formats import SourceFormat, open_disk

    path = target if isinstance(target, Path) else None
    with open_disk(source, None if expected is None else SourceFormat(expected)) as opened:
        before = _state(opened.file)
        with _readable(ctx, opened, kind, path, tools) as disk:
            work = _Work(ctx, opened, disk, kind, before)
            return _to_stream(work, target) if not isinstance(target, Path) else _to_file(work, target, tools)


# --------------------------------------------------------------------------------------------------------- the source


@contextmanager
def _readable(
    ctx: Context, opened: OpenDisk, kind: Target, target: Path | None, tools: Tools
) -> Iterator[HoleyAccess | Tarball]:
    """The disk, in a form that can be read as often as the target's format asks for."""
    from osvdeploy.osv.tarball import Tarball
    from osvdeploy.publish.convert import Target

    with ExitStack() as stack:
        disk = opened.disk
        if disk is None:
            disk = stack.enter_context(tools.foreign(opened))
        if isinstance(disk, Tarball) and kind is Target.GCE:
            disk = stack.enter_context(_unpacked(ctx, disk, None if target is None else target.parent))
        yield disk


@contextmanager
def _unpacked(ctx: Context, tarball: Tarball, folder: Path | None) -> Iterator[OpenFile]:
    """An archive's disk in a file without a name: an archive begins with a map of what follows, so the disk is read
    twice."""
    from osvdeploy.osv.source import OpenFile
    from osvdeploy.publish.convert import Reading, Target, write

    place = folder or Path(gettempdir())
    with _written(place, tarball.stored), TemporaryFile(dir=folder) as file:
        progress = _Progress(ctx, "unpack", tarball.stored, passes=1)
        pieces = _counted(tarball.pieces(), progress)
        write(Target.RAW, file.fileno(), Reading(tarball.size, pieces))
        progress.finish()
        yield OpenFile(place, file.fileno(), tarball.size)


# --------------------------------------------------------------------------------------------------------- the target


class _Work:
    """A disk on its way into another format: what is to be read, and as which disk."""

    def __init__(
        self, ctx: Context, opened: OpenDisk, disk: HoleyAccess | Tarball, kind: Target, before: _State
    ) -> None:
        from osvdeploy.osv.tarball import Tarball
        from osvdeploy.publish.convert import Grown, Reading, Target, chunks_of, fitted, pieces_of

        self.ctx, self.opened, self.kind = ctx, opened, kind
        self._before = before
        self.source_size = disk.size
        self.size = fitted(disk.size, kind)
        self.watched: HoleyAccess | None = None
        if isinstance(disk, Tarball):
            self.expected = disk.stored
            self.progress = _Progress(ctx, "convert", self.expected, passes=2)
            pieces: Iterator[Run] = _counted(disk.pieces(), self.progress)
        else:
            grown = Grown(disk, self.size)
            extents = chunks_of(grown)
            self.expected = sum(each.end - each.start for each in extents)
            self.progress = _Progress(ctx, "convert", self.expected, passes=3 if kind is Target.GCE else 2)
            self.watched = _Watched(grown, self.progress)
            pieces = pieces_of(self.watched, extents)
        self.reading = Reading(self.size, pieces)

    def stream(self) -> Iterator[bytes]:
        from osvdeploy.publish.convert import streamed

        for piece in streamed(self.kind, self.watched, self.reading):
            self.ctx.check()
            yield piece

    def require_unchanged(self) -> None:
        if _state(self.opened.file) != self._before:
            raise SourceChanged(
                f"{self.opened.path}: changed while it was read", hint="convert it when nothing writes to it"
            )

    def done(self, target: Path | None, length: int, sha256: Digest | None) -> Converted:
        self.progress.finish()
        contents = self.reading.contents
        return Converted(
            source=self.opened.path,
            source_format=self.opened.format.value,
            detail=self.opened.detail,
            target=target,
            format=self.kind.value,
            source_size=self.source_size,
            size=self.size,
            data=contents.data,
            bytes=length,
            digest=contents.digest,
            sha256=sha256,
        )


def _to_file(work: _Work, target: Path, tools: Tools) -> Converted:
    from osvdeploy.publish.convert import Target, write

    with _written(target, work.expected), tools.part(target) as file:
        digest: Digest | None = None
        if work.kind.is_stream:
            digest = _hashed(work.stream(), file)
            file.flush()
        else:
            write(work.kind, file.fileno(), work.reading)
        # First: of a source that changed other bytes are read back too.
        work.require_unchanged()
        with ThreadPoolExecutor(1, "digest") as pool:
            # Both read the file, and hash: beside each other on two cores.
            hashing = None
            if not work.kind.is_stream and work.kind not in (Target.RAW, Target.VHD_FIXED):
                hashing = pool.submit(_digest_of_file, work.ctx, file.fileno())
            _verify(work, Path(file.name), target)
            digest = digest if hashing is None else hashing.result()
        length = os.fstat(file.fileno()).st_size
    return work.done(target, length, digest)


def _digest_of_file(ctx: Context, fd: int) -> Digest:
    digest, at = hashlib.sha256(), 0
    while piece := os.pread(fd, MIB, at):
        ctx.check()
        digest.update(piece)
        at += len(piece)
    return Digest(digest.hexdigest())


def _to_stream(work: _Work, out: BinaryIO) -> Converted:
    length = 0

    def passed() -> Iterator[bytes]:
        nonlocal length
        for piece in work.stream():
            length += len(piece)
            yield piece

    try:
        digest = _hashed(passed(), out)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BuildError(f"standard output cannot be written: {error.strerror}") from None
    work.require_unchanged()
    return work.done(None, length, digest)


def _hashed(pieces: Iterator[bytes], out: IO[bytes]) -> Digest:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        out.write(piece)
    return Digest(digest.hexdigest())


def _verify(work: _Work, part: Path, target: Path) -> None:
    """Read the target by its own format, and raise BuildError where that is another disk."""
    from osvdeploy.osv.formats import SourceFormat, open_as
    from osvdeploy.osv.tarball import Tarball
    from osvdeploy.publish.convert import Reading, Target, pieces_of

    kind = SourceFormat.VHD if work.kind is Target.VHD_FIXED else SourceFormat(work.kind.value)
    contents = work.reading.contents
    try:
        with open_as(part, kind) as written:
            disk = written.disk
            assert disk is not None
            if isinstance(disk, Tarball):
                found = _read(Reading(disk.size, _counted(disk.pieces(), work.progress)))
            else:
                found = _read(Reading(disk.size, pieces_of(_Watched(disk, work.progress))))
        wrong = None if found == contents else f"{found.data} bytes of {found.size} where {contents.data} were written"
    except DiskInvalid as error:
        wrong = error.message.removeprefix(f"{part}: ")
    if wrong is not None:
        raise BuildError(
            f"{target}: what was read back is not what was written: {wrong}",
            hint="look at the disk that it lies on (dmesg), or write it elsewhere",
        )


def _read(reading: Reading) -> Contents:
    for _ in reading:
        pass
    return reading.contents


@contextmanager
def _written(place: Path, needed: int) -> Iterator[None]:
    """Tell OSError of what is written there."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise BuildError(
                f"{place}: cannot hold the disk: {error.strerror}",
                hint="lift the limit (ulimit -f), or write elsewhere",
            ) from None
        if error.errno not in _NO_ROOM:
            raise BuildError(f"{place}: cannot be written: {error.strerror}") from None
        try:
            free = f", {format_size(shutil.disk_usage(place if place.is_dir() else place.parent).free)} are free"
        except OSError:
            free = ""
        raise BuildError(
            f"{place}: no room: up to {format_size(needed)} are written{free} ({error.strerror})",
            hint="make room there, or name a target on another disk",
        ) from None


def require_deflater(kind: Target) -> None:
    """Raise ToolMissing where that format cannot be written here."""
    if not kind.is_stream:
        return
    try:
        from isal import isal_zlib  # noqa: F401 (whether it is there)
    except ImportError:
        raise ToolMissing(
            f"{kind} is deflated by the Python package isal, which is not installed",
            hint="install it: pip install 'osvdeploy[gcp]'",
        ) from None


# ----------------------------------------------------------------------------------------------------------- progress


class _Watched:
    """A disk of which it is told what is read."""

    def __init__(self, disk: HoleyAccess, look: Callable[[int], object]) -> None:
        self._disk = disk
        self._look = look
        self.size = disk.size

    def pread(self, offset: int, length: int) -> bytes:
        content = self._disk.pread(offset, length)
        self._look(len(content))
        return content

    def data(self, start: int, end: int) -> Iterator[Extent]:
        return self._disk.data(start, end)


def _counted(pieces: Iterator[Run], look: Callable[[int], object]) -> Iterator[Run]:
    for at, content in pieces:
        look(len(content))
        yield at, content


class _Progress:
    """Tells how far it is with ``total`` bytes that are read ``passes`` times: from the source, and for the check."""

    def __init__(self, ctx: Context, what: str, total: int, *, passes: int) -> None:
        self._ctx, self._what, self._total, self._passes = ctx, what, total, passes
        self._done = 0

    def __call__(self, more: int) -> None:
        self._ctx.check()
        self._done += more
        # The last one is told by finish(): what turns out to be zeros is read once.
        self._tell(min(self._done // self._passes, self._total - 1))

    def finish(self) -> None:
        self._tell(self._total)

    def _tell(self, done: int) -> None:
        self._ctx.report(Progress(self._what, done, self._total, "bytes"))


def _state(file: OpenFile) -> _State:
    status = os.fstat(file.fd)
    return status.st_size, status.st_mtime_ns
