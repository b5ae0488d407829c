"""Copying a sparse disk without filling its holes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from osvdeploy.build.files import part_of
from osvdeploy.context import Context
from osvdeploy.errors import BuildError, UsageError
from osvdeploy.sizes import MIB

_PIECE: Final = 8 * MIB
"""So much is copied between two looks at whether to stop."""

_BY_HAND: Final = frozenset((errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM))
"""With these a kernel says that it does not copy between two files by itself."""


def copy_sparse(ctx: Context, source: Path, target: Path) -> None:
    """Copy a file's data and leave its holes holes; ``target`` appears whole or not at all.

    Raises :class:`~osvdeploy.errors.UsageError` where something stands there that is no disk, such as a source of the
    image, and :class:`~osvdeploy.errors.BuildError` where it cannot be written.
    """
    refuse_target(target)
    try:
        with source.open("rb") as reader, part_of(target, nonce=ctx.nonce()) as writer:
            size = os.fstat(reader.fileno()).st_size
            position = 0
            while position < size:
                ctx.check()
                try:
                    start = os.lseek(reader.fileno(), position, os.SEEK_DATA)
                except OSError:
                    break  # ENXIO: nothing but a hole follows
                end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
                while start < end:
                    ctx.check()
                    copied = _copy(reader.fileno(), writer.fileno(), min(end - start, _PIECE), start)
                    if copied == 0:
                        raise BuildError(f"{source}: became shorter while it was copied", hint="build again")
                    start += copied
                position = end
            writer.truncate(size)
    except OSError as error:
        raise BuildError(
            f"{target}: cannot be written: {error.strerror}",
            hint=f"make room there, or name a file in another folder; the disk itself is built: {source}",
        ) from None


def _copy(source: int, target: int, size: int, offset: int) -> int:
    """Copy up to ``size`` bytes at ``offset`` of both files; how many, and 0 at the source's end. Raises OSError."""
    try:
        return os.copy_file_range(source, target, size, offset, offset)
    except OSError as error:
        # Linux shares and copies within one file system alone since 5.19, and not on every one (copy_file_range(2)).
        if error.errno not in _BY_HAND:
            raise
    return os.pwrite(target, os.pread(source, size, offset), offset)


def refuse_target(target: Path) -> None:
    """Raise UsageError where a disk cannot be put: an earlier disk may be replaced, and an empty file; nothing else is
    ours to take."""
    try:
        with target.open("rb") as file:
            regular, head = stat.S_ISREG(os.fstat(file.fileno()).st_mode), b""
            if regular:
                head = file.read(512)
    except OSError as error:
        _refuse_missing(target, error)
        return
    if not regular:
        raise UsageError(f"{target}: not a regular file; a disk cannot be put there", hint="name a file to be made")
    if head and head[510:] != b"\x55\xaa":
        raise UsageError(
            f"{target}: exists and is no disk; it is not overwritten",
            hint="name another file, or remove this one first",
        )


def refuse_existing(target: Path, force: bool) -> None:
    """Raise UsageError where no file can be put, or one is there already; with ``force`` a file may be replaced."""
    try:
        status = target.stat()
    except OSError as error:
        _refuse_missing(target, error)
        return
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{target}: not a regular file", hint="name a file to be made, or - for standard output")
    if not force:
        raise UsageError(f"{target}: exists already", hint="name another file, or replace it with --force")


def _refuse_missing(target: Path, error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise UsageError(f"{target}: cannot be written: {error.strerror}", hint="name another file") from None
    if not target.parent.is_dir():
        raise UsageError(f"{target}: no such folder", hint=f"make {target.parent} first") from None
