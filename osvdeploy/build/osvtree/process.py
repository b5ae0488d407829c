"""Running programs in a tree: one build at a time, each in a process group of its own, all that is said in a log."""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from osvdeploy.context import Context
from osvdeploy.errors import BuildError
from osvdeploy.events import Waiting
from osvdeploy.processes import guarded, status_of

LOCK_NAME = ".osvdeploy.lock"
"""Below a tree's build directory, which ``scripts/build clean`` leaves there."""

_LOOK = 0.25
"""Seconds between two looks at a lock that another build holds, or at whether we were cancelled."""

_LINE_LIMIT = 4096
"""Bytes of a line that anybody looks at; the log keeps all."""

_DRAIN = 2.0
"""Seconds for what a command's own children still write when it has ended."""


@contextmanager
def locked(ctx: Context, output: Path, *, what: str) -> Iterator[int]:
    """Hold the tree whose build directory is ``output``; waits while another build does, and tells who.

    Gives the lock's descriptor, to be handed to every process of the build: the lock lasts until the last is gone.
    Raises Interrupted, DeadlineExceeded; BuildError where the directory cannot be written.
    """
    path = output / LOCK_NAME
    try:
        output.mkdir(exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise BuildError(
            f"{path}: the tree cannot be locked: {error.strerror}",
            hint="a tree is built in its own build directory, which must be writable; copy it, or change its owner",
        ) from None
    try:
        while not _taken(fd):
            ctx.report(Waiting(f"the tree {output.parent}", _holder(fd)))
            ctx.sleep(_LOOK)
        holder = {"pid": os.getpid(), "host": ctx.process.host, "since": ctx.now().isoformat(), "what": what}
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(holder).encode(), 0)
        yield fd
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> str:
    try:
        held = json.loads(os.pread(fd, 4096, 0))
        return f"{held['what']}, process {held['pid']} on {held['host']}, builds in it"
    except (ValueError, KeyError, TypeError):
        return "another build holds it"


def run(
    ctx: Context,
    command: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    held: Sequence[int],
    log: Path,
    said: Callable[[str], object] = lambda line: None,
    quiet: Callable[[float], object] = lambda seconds: None,
) -> int:
    """Run a command to its end and give its status; what it says goes to ``log``, and line by line to ``said``;
    ``quiet`` is told for how many seconds nothing was. ``held``: descriptors of the locks that are its as well.

    Cancelled, past the deadline, or by an exception of one of the two, the command ends with all that it started. So it
    does when this process is killed. Raises Interrupted, DeadlineExceeded; OSError.
    """
    with (
        log.open("ab", buffering=0) as kept,
        guarded(command, cwd=directory, env=environment, held=held, stderr=subprocess.STDOUT) as process,
    ):
        assert process.stdout is not None
        for line in _lines(ctx, process, process.stdout.fileno(), kept.fileno(), quiet):
            said(line)
    return status_of(process)


def _lines(
    ctx: Context, process: subprocess.Popen[bytes], source: int, kept: int, quiet: Callable[[float], object]
) -> Iterator[str]:
    """What the process says, until it has ended or its output is closed."""
    pending, drained, last = b"", 0.0, ctx.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while True:
            ctx.check()
            if selector.select(_LOOK):
                piece = os.read(source, 65_536)
                if not piece:
                    break
                os.write(kept, piece)
                last = ctx.monotonic()
                *whole, pending = (pending + piece).split(b"\n")
                for line in whole:
                    yield _shown(line)
                pending = pending[-_LINE_LIMIT:]
            elif process.poll() is not None:
                # Something that left the group may hold the output open for ever.
                drained += _LOOK
                if drained >= _DRAIN:
                    break
            else:
                quiet(ctx.monotonic() - last)
    if pending:
        yield _shown(pending)


def _shown(line: bytes) -> str:
    return line[-_LINE_LIMIT:].decode("utf-8", "replace").rstrip("\r")
