"""Copying a sparse disk without filling its holes."""

from __future__ import annotations

import os
from pathlib import Path

from osvdeploy.errors import BuildError


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file's data and leave its holes holes; ``target`` appears whole or not at all.

    Raises :class:`~osvdeploy.errors.BuildError` where it cannot be written.
    """
    made = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with source.open("rb") as reader, made.open("wb") as writer:
            size = os.fstat(reader.fileno()).st_size
            position = 0
            while position < size:
                try:
                    start = os.lseek(reader.fileno(), position, os.SEEK_DATA)
                except OSError:
                    break  # ENXIO: nothing but a hole follows
                end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
                while start < end:
                    start += os.copy_file_range(reader.fileno(), writer.fileno(), end - start, start, start)
                position = end
            writer.truncate(size)
            os.fsync(writer.fileno())
        made.replace(target)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise BuildError(f"{target}: cannot be written: {error.strerror}") from None
