"""An object store in a directory: each object is a file, made whole by a hard link.

Safe against a kill at any point, a power cut, and other processes, on any POSIX file system with hard links (NFS
included). A write leaves a temporary file behind when it is killed; nobody lists those, and a later write sweeps them.
"""

from __future__ import annotations

import errno
import heapq
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from osvdeploy.cloud.keys import check_key
from osvdeploy.context import Context
from osvdeploy.errors import LedgerError

_TEMPORARY = ".put-"
_SWEPT_AFTER = 3600.0
"""Seconds. No write takes that long; a younger temporary file may belong to a living one."""


class DirectoryStore:
    """:class:`~osvdeploy.cloud.interfaces.ObjectStore` in ``root``, which is made when the first object is put.

    Raises :class:`~osvdeploy.errors.LedgerError` where the file system refuses.
    """

    def __init__(self, root: Path | str) -> None:
        self._address = str(root)
        self._root = Path(root)
        self._swept: set[Path] = set()

    @property
    def address(self) -> str:
        return self._address

    def put_if_absent(self, ctx: Context, key: str, content: bytes) -> bool:
        path = self._path(key)
        with _refusals(path):
            _make_folder(path.parent)
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
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                return None

    def keys(self, ctx: Context, prefix: str, limit: int | None = None) -> Iterator[str]:
        folder, _, start = prefix.rpartition("/")
        if folder:
            check_key(folder)
        found = self._walk(self._root / folder, f"{folder}/" if folder else "", start)
        for number, key in enumerate(found, 1):
            yield key
            if number == limit:
                return

    def delete(self, ctx: Context, key: str) -> None:
        path = self._path(key)
        with _refusals(path), suppress(FileNotFoundError):
            path.unlink()
            _sync_folder(path.parent)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

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
                return
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


def refuse_unwritable(folder: Path) -> None:
    """Raise LedgerError where a directory store in ``folder`` could not be written, as far as asking tells. Writes
    nothing."""
    while not folder.exists() and folder.parent != folder:
        folder = folder.parent
    with _refusals(folder):
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(folder, os.W_OK | os.X_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            raise OSError(errno.EROFS if read_only else errno.EACCES, "")


def _write(path: Path, content: bytes) -> float:
    """Write a new file, down to the disk. Returns its modification time."""
    # Not tempfile: its 0600 would lock out the others who share the ledger; the umask decides.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        return os.fstat(descriptor).st_mtime


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
}


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)
        where = error.filename if isinstance(error.filename, str) and _TEMPORARY not in error.filename else path
        raise LedgerError(f"{where}: {said.lower()}", hint=_HINTS.get(error.errno or 0)) from error
