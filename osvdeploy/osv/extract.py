"""Writes the files of an image into a directory of this machine, and nowhere else.

Every directory on the way is opened by its own name within the one before, and no link is followed: what an image or an
earlier occupant of the directory put there cannot lead out of it. A file appears whole under its name, or not at all;
none that is there is overwritten. OSv keeps no owner, mode or time, and calls every file executable, so they are here.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.errors import DiskInvalid, UsageError
from osvdeploy.osv.names import escaped, literal, unescaped
from osvdeploy.osv.rofs import RofsDirectory, RofsFile, RofsReader, RofsSymlink

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was written; ``content`` in bytes."""

    files: int
    directories: int
    links: int
    content: int


def find(tree: RofsReader, path: bytes | str) -> bytes:
    """The path in the tree that ``path`` means: a link by its own name, links on the way followed. Text is a path as
    people see it (:mod:`osvdeploy.osv.names`) or, where there is nothing by that, as it stands.

    Raises UsageError where there is nothing.
    """
    if isinstance(path, bytes):
        meant, told = [path], escaped(path)
    else:
        meant, told = [unescaped(path), literal(path)], path
    for each in meant:
        if (found := _found(tree, each)) is not None:
            return found
    raise UsageError(f"{told}: not in the image", hint="list what is there: osvdeploy inspect ls IMAGE [PATH]")


def _found(tree: RofsReader, path: bytes) -> bytes | None:
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    plain = b"/" + b"/".join(parts)
    if plain in tree.nodes:
        return plain
    folder = tree.resolve(b"/".join(parts[:-1]))
    for candidate in (None if folder is None else folder.rstrip(b"/") + b"/" + parts[-1], tree.resolve(path)):
        if candidate is not None and candidate in tree.nodes:
            return candidate
    return None


def below(tree: RofsReader, path: bytes) -> Iterator[bytes]:
    """``path`` and all that stands under it, parents first."""
    prefix = path.rstrip(b"/") + b"/"
    for each in tree.nodes:
        if each == path or each.startswith(prefix):
            yield each


def children(tree: RofsReader, path: bytes) -> list[bytes]:
    """What stands in a directory, by whole path, sorted."""
    prefix = path.rstrip(b"/") + b"/"
    start = len(prefix)
    return sorted(
        each for each in tree.nodes if len(each) > start and each.startswith(prefix) and each.find(b"/", start) < 0
    )


def extract(tree: RofsReader, path: bytes, into: Path, *, check: Callable[[], object] = lambda: None) -> Extracted:
    """Write ``path`` of the image, a file, a link or a directory with all it has, below ``into`` under its whole guest
    path. ``into`` and directories on the way are made where they are missing. ``check`` is called often, may raise.

    Raises UsageError where a file is there already, or a link or something else is in the way; DiskInvalid where the
    image's bytes cannot be read. Each names the file; those before it are written.
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
        root = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{into}: no directory to write to: {error.strerror}") from None
    files = directories = links = content = 0
    try:
        folder = _Folder(root, into)
        for each in below(tree, path):
            check()
            node = tree.nodes[each]
            parent, _, name = each.rpartition(b"/")
            with _told(into, each):
                if isinstance(node, RofsDirectory):
                    folder.open(each)
                    directories += 1
                elif isinstance(node, RofsSymlink):
                    os.symlink(node.target, name, dir_fd=folder.open(parent))
                    links += 1
                else:
                    _write(tree, node, folder.open(parent), name, check)
                    files, content = files + 1, content + node.size
    finally:
        folder.close()
        os.close(root)
    return Extracted(files, directories, links, content)


class _Folder:
    """The directory of the image that is written to, open: most files stand beside the one before."""

    def __init__(self, root: int, into: Path) -> None:
        self._root = root
        self._into = into
        self._path = b""
        self._fd: int | None = None

    def open(self, path: bytes) -> int:
        """A descriptor of the directory for the guest's ``path``, valid until the next call; made where missing."""
        path = path.rstrip(b"/")
        if not path:
            return self._root
        if self._fd is not None and path == self._path:
            return self._fd
        self.close()
        fd = os.dup(self._root)
        try:
            for name in path.strip(b"/").split(b"/"):
                try:
                    os.mkdir(name, dir_fd=fd)
                except FileExistsError:
                    pass
                inner = os.open(name, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = inner
        except OSError:
            os.close(fd)
            raise
        self._path, self._fd = path, fd
        return fd

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _write(tree: RofsReader, node: RofsFile, folder: int, name: bytes, check: Callable[[], object]) -> None:
    """Under another name first. Linked, not renamed, to its own: that never replaces what is there."""
    made = b".osvdeploy-" + secrets.token_hex(8).encode()
    fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o777, dir_fd=folder)
    try:
        try:
            for offset, piece in tree.pieces(node, check=check):
                os.lseek(fd, offset, os.SEEK_SET)  # what lies between is a hole again, as it most likely was
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
            os.ftruncate(fd, node.size)
        finally:
            os.close(fd)
        try:
            os.link(made, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK) or _there(folder, name):
                raise
            os.rename(made, name, src_dir_fd=folder, dst_dir_fd=folder)  # a file system without links: FAT
            return
        os.unlink(made, dir_fd=folder)
    except BaseException:
        _remove(folder, made)
        raise


def _there(folder: int, name: bytes) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except OSError:
        return False
    return True


def _remove(folder: int, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:
        pass


@contextmanager
def _told(into: Path, path: bytes) -> Iterator[None]:
    """Name the file in what goes wrong with it."""
    place = f"{into}{escaped(path)}"
    try:
        yield
    except DiskInvalid as error:
        raise DiskInvalid(f"{escaped(path)}: {error.message}", hint=error.hint) from None
    except FileExistsError:
        raise UsageError(f"{place}: is there already, and is not overwritten", hint="give an empty folder") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise UsageError(
                f"{place}: a link or a file stands where a directory is wanted, and is not followed",
                hint="give an empty folder",
            ) from None
        raise UsageError(f"{place}: cannot be written: {error.strerror}") from None
