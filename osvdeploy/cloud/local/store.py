"""An object store in a directory: each object is a file, made whole by a hard link.

Safe against a kill at any point, a power cut, and other processes, on any POSIX file system with hard links (NFS
included). A write leaves a temporary file behind when it is killed; nobody lists those, and a later write sweeps them.

A large object is written in ``.files/NAME/DIGEST`` beside it, under a lock; a later run compares what is there and goes
on behind it. The object is a second name of that file, so that the first one tells its digest.
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from osvdeploy.cloud.interfaces import ObjectSource, StoredObject, UnfinishedObject
from osvdeploy.cloud.keys import check_key
from osvdeploy.cloud.parts import agreed, cut, is_refusal
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import LedgerError, OsvDeployError, StoreUnavailable
from osvdeploy.events import Progress
from osvdeploy.sizes import MIB

_TEMPORARY = ".put-"
_FILES = ".files"
_PART = 8 * MIB
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BUSY = (errno.EAGAIN, errno.EACCES)
_SWEPT_AFTER = 3600.0
"""Seconds. No write takes that long; a younger temporary file may belong to a living one."""


class DirectoryStore:
    """:class:`~osvdeploy.cloud.interfaces.ObjectStore` in ``root``, which is made when the first object is put.

    Raises :class:`~osvdeploy.errors.LedgerError` where the file system refuses, and as
    :class:`~osvdeploy.errors.StoreUnavailable` where it may not later. Also where a folder is missing that this store
    has seen: it was moved or unmounted, and a ledger made anew in its place would lack all that came before.
    """

    def __init__(self, root: Path | str) -> None:
        self._address = str(root)
        self._root = Path(root)
        self._swept: set[Path] = set()
        self._seen: set[Path] = set()

    @property
    def address(self) -> str:
        return self._address

    @property
    def missing(self) -> bool:
        """Whether the directory does not exist: it is yet to be made, or was moved or unmounted."""
        return not self._root.exists()

    def refuse_unwritable(self, ctx: Context, prefix: str) -> None:
        folder = self._root / prefix
        while not folder.exists() and folder.parent != folder:
            folder = folder.parent
        with _refusals(folder):
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(folder, os.W_OK | os.X_OK):
                read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
                raise OSError(errno.EROFS if read_only else errno.EACCES, "")

    def put_if_absent(self, ctx: Context, key: str, content: bytes) -> bool:
        path = self._path(key)
        with _refusals(path):
            self._refuse_gone(path.parent)
            _make_folder(path.parent)
            self._see(path.parent)
            temporary = path.parent / f"{_TEMPORARY}{os.getpid()}-{ctx.nonce()}"
            try:
                written = _write(temporary, content)
                made = _link(temporary, path)
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()
            # Also when another was faster: that this key is taken must hold after a power cut, too.
            _sync_folder(path.parent)
            self._sweep(path.parent, before=written - _SWEPT_AFTER)
            return made

    def get(self, ctx: Context, key: str) -> bytes | None:
        path = self._path(key)
        with _refusals(path):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                self._refuse_gone(path.parent)
                return None
            except IsADirectoryError:
                return None
        self._see(path.parent)
        return content

    def keys(self, ctx: Context, prefix: str, limit: int | None = None) -> Iterator[str]:
        folder, _, start = prefix.rpartition("/")
        if folder:
            check_key(folder)
        found = self._walk(self._root / folder, f"{folder}/" if folder else "", start)
        for number, key in enumerate(found, 1):
            yield key
            if number == limit:
                return

    def folders(self, ctx: Context, prefix: str) -> Iterator[str]:
        folder = self._root / prefix
        with _refusals(folder):
            try:
                with os.scandir(folder) as entries:
                    found = sorted(f"{each.name}/" for each in entries if each.is_dir() and each.name[0] != ".")
            except FileNotFoundError:
                self._refuse_gone(folder)
                return iter(())
        # A folder may be left without any object in it.
        return (each[:-1] for each in found if next(self.keys(ctx, f"{prefix}{each}", limit=1), None) is not None)

    def delete(self, ctx: Context, key: str) -> None:
        path = self._path(key)
        with _refusals(path):
            label = self._label(path)
            try:
                path.unlink()
                _sync_folder(path.parent)
            except FileNotFoundError:
                self._refuse_gone(path.parent)
            if label is not None:
                _remove_file(label)

    def find(self, ctx: Context, key: str) -> StoredObject | None:
        path = self._path(key)
        with _refusals(path):
            try:
                facts = path.stat()
            except FileNotFoundError:
                self._refuse_gone(path.parent)
                return None
            if path.is_dir():
                return None
            label = self._label(path)
            created = datetime.fromtimestamp(facts.st_mtime, UTC)
            return StoredObject(key, facts.st_size, Digest(label.name) if label is not None else None, created)

    def put_file(self, ctx: Context, key: str, source: ObjectSource) -> StoredObject:
        path = self._path(key)
        there = self.find(ctx, key)
        if there is None:
            with _refusals(path):
                there = self._put_file(ctx, path, key, source)
        self._see(path.parent)
        return agreed(self._address, there, source)

    def _put_file(self, ctx: Context, path: Path, key: str, source: ObjectSource) -> StoredObject:
        partial = path.parent / _FILES / path.name / source.digest
        with _locked(ctx, partial) as file:
            # Who held the lock may have finished it.
            there = self.find(ctx, key)
            if there is None:
                try:
                    _fill(ctx, file, key, source)
                    os.fsync(file)
                except (OSError, OsvDeployError) as error:
                    if isinstance(error, OSError) or is_refusal(error):
                        _remove_file(partial)
                    raise
                _link(partial, path)
                _sync_folder(path.parent)
                there = self.find(ctx, key)
                if there is None:
                    raise LedgerError(f"{path}: was deleted at once by another process", hint="run the command again")
            if not _is_same(partial, path):
                _remove_file(partial)
        return there

    def unfinished(self, ctx: Context, prefix: str) -> list[UnfinishedObject]:
        found = []
        with _refusals(self._root):
            for path in sorted(self._root.rglob(f"{_FILES}/*/*")):
                target = path.parent.parent.parent / path.parent.name
                key = target.relative_to(self._root).as_posix()
                if not key.startswith(prefix) or _DIGEST.fullmatch(path.name) is None or _is_same(path, target):
                    continue
                status = path.stat()
                begun = datetime.fromtimestamp(status.st_mtime, UTC)
                found.append(UnfinishedObject(key, path.name, begun, status.st_size))
        return found

    def abort(self, ctx: Context, upload: UnfinishedObject) -> None:
        path = self._path(upload.key)
        partial = path.parent / _FILES / path.name / upload.id
        with _refusals(path):
            if not _is_same(partial, path):
                _remove_file(partial)

    def _label(self, path: Path) -> Path | None:
        """The other name of an object that was put as a file."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for each in sorted((path.parent / _FILES / path.name).iterdir()):
                if _DIGEST.fullmatch(each.name) and _is_same(each, path):
                    return each
        return None

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _see(self, folder: Path) -> None:
        while folder not in self._seen:
            self._seen.add(folder)
            if folder == self._root:
                return
            folder = folder.parent

    def _refuse_gone(self, folder: Path) -> None:
        """Raise where a folder is missing, or one above it, that was seen before: nobody takes folders away here."""
        while True:
            # Before it is looked for: another thread may make it, and see it, in between.
            seen = folder in self._seen
            if folder.is_dir():
                return
            if seen:
                raise StoreUnavailable(
                    f"{folder}: was there before, and is gone",
                    hint="mount it again, or move it back; what is in it is not made anew",
                )
            if folder == self._root:
                return
            folder = folder.parent

    def _walk(self, folder: Path, above: str, start: str = "") -> Iterator[str]:
        names: list[str] = []
        with _refusals(folder):
            try:
                with os.scandir(folder) as entries:
                    # "a/b" sorts behind "a.b": the slash belongs to the name.
                    names.extend(
                        f"{entry.name}/" if entry.is_dir() else entry.name
                        for entry in entries
                        if entry.name.startswith(start) and not entry.name.startswith(".")
                    )
            except FileNotFoundError:
                self._refuse_gone(folder)
                return
        self._see(folder)
        # A heap, because who asks for the newest head among thousands wants one name, not all in order.
        heapq.heapify(names)
        while names:
            name = heapq.heappop(names)
            if name.endswith("/"):
                yield from self._walk(folder / name, above + name)
            else:
                yield above + name

    def _sweep(self, folder: Path, before: float) -> None:
        """Remove temporary files of killed writes, once per folder. Ages are by the file system's own clock."""
        if folder in self._swept:
            return
        self._swept.add(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(_TEMPORARY):
                    # Somebody else's, or swept by somebody else: no reason for this write to fail.
                    with suppress(OSError):
                        if entry.stat().st_mtime < before:
                            Path(entry.path).unlink()


def _write(path: Path, content: bytes) -> float:
    """Write a new file, down to the disk. Returns its modification time."""
    # Not tempfile: its 0600 would lock out the others who share the ledger; the umask decides.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        return os.fstat(descriptor).st_mtime


@contextmanager
def _locked(ctx: Context, path: Path) -> Iterator[int]:
    """A file, made where it is missing, that no other process writes meanwhile; the lock goes with the process."""
    while True:
        _make_folder(path.parent)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue  # its folder was just taken away: an upload to the same key was given up
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _BUSY:
                    raise
                ctx.sleep(0.2)
                continue
            if os.fstat(file).st_nlink == 0:
                continue  # taken away while we waited
            yield file
            return
        finally:
            os.close(file)


def _fill(ctx: Context, file: int, key: str, source: ObjectSource) -> None:
    """Make a file hold a source's bytes, and write only those that it does not hold: a power cut may have left
    anything there."""
    at, held = 0, os.fstat(file).st_size
    for part in cut(source.pieces(), lambda number: _PART):
        ctx.check()
        if at >= held or os.pread(file, len(part), at) != part:
            view = memoryview(part)
            while view:
                view = view[os.pwrite(file, view, at + len(part) - len(view)) :]
        at += len(part)
        ctx.report(Progress(f"write {key}", at, source.size, "bytes"))
    os.ftruncate(file, at)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _remove_file(path: Path) -> None:
    """Remove a file of :data:`_FILES`, and the folders it leaves empty."""
    with suppress(FileNotFoundError):
        path.unlink()
    with suppress(OSError):
        path.parent.rmdir()
        path.parent.parent.rmdir()


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        # Over NFS a link that was made may be answered twice; a second name shows that it was (link(2), open(2)).
        return temporary.stat().st_nlink == 2
    return True


def _make_folder(folder: Path) -> None:
    """Make a directory and those above it, each entry down to the disk."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder.parent == folder:
            break
        folder = folder.parent
    for each in reversed(missing):
        with suppress(FileExistsError):
            each.mkdir()
        _sync_folder(each.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_PASSING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.ESTALE,
        errno.ENOENT,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ENODEV,
        errno.ENXIO,
        errno.EAGAIN,
        errno.EINTR,
        errno.ENOLCK,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
    }
)
"""What may be otherwise later: room, memory, disks and network file systems that come back, and a folder that goes away
in the midst of a call (ENOENT)."""

_AWAY = "the network file system does not answer; see to its server, or mount it again"

_HINTS = {
    errno.EACCES: "give this user the right to read and write there",
    errno.EROFS: "the file system is mounted read-only; put the ledger elsewhere",
    errno.ENOSPC: "make room on that file system; nothing was written",
    errno.EDQUOT: "the quota is used up; make room; nothing was written",
    errno.ENOTDIR: "a ledger is a directory; name one, or one that can be made",
    errno.EPERM: "the file system may have no hard links; put the ledger on one that has",
    errno.ENOTSUP: "the file system has no hard links; put the ledger on one that has",
    errno.ESTALE: "the network file system lost the directory; mount it again",
    errno.EIO: "the disk or the network file system fails",
    errno.ENOTCONN: _AWAY,
    errno.ETIMEDOUT: _AWAY,
    errno.EHOSTDOWN: _AWAY,
    errno.EHOSTUNREACH: _AWAY,
    errno.ENETUNREACH: _AWAY,
}


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)
        where = error.filename if isinstance(error.filename, str) and _TEMPORARY not in error.filename else path
        kind = StoreUnavailable if error.errno in _PASSING else LedgerError
        raise kind(f"{where}: {said.lower()}", hint=_HINTS.get(error.errno or 0)) from error
