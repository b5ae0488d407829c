"""Writes that are whole or not there at all, and leave nothing behind when they are killed."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_PART = re.compile(r"\.osvdeploy-[0-9a-f]{32}")


@contextmanager
def part_of(path: Path, *, nonce: str, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file beside ``path`` to be written, which stands in its place when the block ends well: a reader, and with
    ``durable`` the next boot, finds the old content or the new one. Parts that dead processes left there go away.

    Raises OSError.
    """
    sweep_parts(path.parent)
    while True:
        part = path.with_name(f".osvdeploy-{nonce}")
        with part.open("x+b") as file:
            _lock(file)
            if not os.fstat(file.fileno()).st_nlink:
                continue  # a sweep was faster than the lock
            try:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        if durable:
            sync_directory(path.parent)
        return


def replace_file(path: Path, content: bytes, *, nonce: str, durable: bool = True) -> None:
    """Write ``path`` as :func:`part_of` does. Raises OSError."""
    with part_of(path, nonce=nonce, durable=durable) as file:
        file.write(content)


def sweep_parts(directory: Path) -> None:
    """Remove the parts in a directory whose writers are gone: the kernel has dropped their locks. Never fails."""
    try:
        with os.scandir(directory) as entries:
            parts = [entry.path for entry in entries if _PART.fullmatch(entry.name)]
    except OSError:
        return
    for part in parts:
        try:
            fd = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(part)  # noqa: PTH108 (of a scan)
        except OSError:
            pass  # its writer lives
        finally:
            os.close(fd)


def _lock(file: IO[bytes]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks: nothing is swept there either


def sync_directory(path: Path) -> None:
    """Make renames in a directory last."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
