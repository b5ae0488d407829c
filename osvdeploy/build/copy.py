"""Copying a sparse disk without filling its holes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from osvdeploy.build.files import part_of
from osvdeploy.context import Context
from osvdeploy.errors import BuildError, UsageError


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
                    start += os.copy_file_range(reader.fileno(), writer.fileno(), end - start, start, start)
                position = end
            writer.truncate(size)
    except OSError as error:
        raise BuildError(f"{target}: cannot be written: {error.strerror}") from None


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
