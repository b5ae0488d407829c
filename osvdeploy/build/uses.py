"""Which entries of the build cache are in use, and when each was used last.

    used/<kind>-<name>            one for each entry: its time is the last use; who uses the entry holds an flock on it
    used/<kind>-<name>.<digest>   names of files that were used together, of an entry that has more (bytecode)

The entries themselves are left alone: builds remember their files by what stat(2) says of them. The kernel drops the
lock of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from osvdeploy.build.files import replace_file
from osvdeploy.digests import sha256

USED = "used"

_held: ContextVar[dict[Path, int] | None] = ContextVar("_held", default=None)


@contextmanager
def in_use() -> Iterator[None]:
    """What :func:`use` is told of in this block, and in blocks within it, nobody removes before it ends."""
    if _held.get() is not None:
        yield
        return
    held: dict[Path, int] = {}
    token = _held.set(held)
    try:
        yield
    finally:
        _held.reset(token)
        for fd in held.values():
            os.close(fd)


def use(root: Path, entry: Path, *, making: bool = False) -> None:
    """Note that an entry of the cache at ``root`` is used, before anyone looks whether it is there; ``making``: or is
    about to be. A cache that cannot be written is no error: nobody can remove anything from it either."""
    held = _held.get()
    if held is not None and entry in held:
        return
    if not making and not entry.exists():
        return
    try:
        fd = locked_marker(marker_of(root, entry), fcntl.LOCK_SH)
    except OSError:
        return
    if held is None:
        os.close(fd)
    else:
        held[entry] = fd


@contextmanager
def alone(root: Path, entry: Path) -> Iterator[bool]:
    """Whether nobody uses an entry, this process included; if so, nobody begins to before the block ends.

    Raises OSError where the cache cannot be written."""
    try:
        fd = locked_marker(marker_of(root, entry), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(fd)


def marker_of(root: Path, entry: Path) -> Path:
    """The file that stands for an entry's use."""
    return root / USED / f"{entry.parent.name}-{entry.name}"


def locked_marker(marker: Path, how: int, *, using: bool = True) -> int:
    """The descriptor of a marker with an flock on it (``fcntl.LOCK_SH``, ``LOCK_EX``, ``| LOCK_NB``), made where there
    is none; ``using``: its entry is used now. Raises OSError, BlockingIOError where another process holds it."""
    marker.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fd = os.open(marker, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, how)
            # While we waited for the lock, the entry may have been removed, and its marker with it.
            if os.fstat(fd).st_nlink:
                if using:
                    touch(fd)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def note_files(root: Path, entry: Path, names: Sequence[str], *, nonce: str) -> None:
    """Note which files of an entry that is in use are used together now. A cache that cannot be written is no error."""
    text = "\n".join(names).encode()
    marker = marker_of(root, entry)
    listed = marker.with_name(f"{marker.name}.{sha256(text)[:32]}")
    try:
        if listed.exists():
            touch(listed)
        else:
            listed.parent.mkdir(parents=True, exist_ok=True)
            replace_file(listed, text, nonce=nonce, durable=False)
    except OSError:
        pass


def touch(path: Path | int) -> None:
    """Let a file's time say that it is used now, where we may."""
    try:
        os.utime(path)
    except OSError:
        pass
