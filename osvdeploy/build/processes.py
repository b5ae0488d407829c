"""Running a tool of this machine, which ends with all that it started when the build does, also by kill -9.

Every tool that writes, or works longer than a moment, is started here: behind a guard (guard.py), which sees our end.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.build import guard
from osvdeploy.context import Context

_LOOK_EVERY = 0.2
"""Seconds between two looks at whether the build was cancelled."""

_LAST_WORDS = 2 * guard.GRACE + 2.0
"""Seconds that a guard may take to end what it guards."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a tool ended: its exit status (128 + signal where one ended it), and what it wrote to stdout and stderr."""

    status: int
    out: bytes
    said: str

    def last(self, lines: int = 12) -> str:
        """The end of what it said, for an error's hint."""
        return "\n".join([line for line in self.said.splitlines() if line.strip()][-lines:])


@contextmanager
def guarded(
    words: Sequence[str | bytes],
    *,
    cwd: Path,
    env: Mapping[str, str],
    held: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
    stderr: int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[bytes]]:
    """A tool that runs, as far as pipes and status go, and ends with all that it started when the block does or this
    process dies; one that has just ended by itself is only waited for.

    ``held`` are descriptors of locks, which last until the last of the tool's processes has ended. Raises OSError where
    it could not be started, at the end of the block.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", guard.__file__),
                    *(str(theirs.fileno()), ",".join(map(str, held)), *words),
                ],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=cwd,
                env=dict(env),
                pass_fds=(theirs.fileno(), *held),
                start_new_session=True,
            )
        with process:
            try:
                yield process
            finally:
                _end(process, ours)
        if told := ours.recv(16):
            raise OSError(int(told), os.strerror(int(told)))


def _end(process: subprocess.Popen[bytes], guard_end: socket.socket) -> None:
    try:
        # A guard that still waits for its command ends it when told to; one that is done has only to be waited for.
        if process.poll() is None:
            try:
                process.wait(_LOOK_EVERY)
            except subprocess.TimeoutExpired:
                guard_end.shutdown(socket.SHUT_WR)
        process.wait(_LAST_WORDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def status_of(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a tool that has ended; 128 and the signal's number where one ended it."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def run_tool(
    ctx: Context,
    words: Sequence[str | bytes],
    *,
    cwd: Path,
    env: Mapping[str, str],
    held: Sequence[int] = (),
    given: bytes = b"",
) -> Ended:
    """Run a tool to its end, with ``given`` on its stdin. Raises OSError where it cannot be started, and what
    ``ctx.check`` raises when cancelled; the tool and all that it started are ended then. ``held``: as for
    :func:`guarded`.
    """
    with guarded(words, cwd=cwd, env=env, held=held, stdin=subprocess.PIPE) as process:
        pending: bytes | None = given
        while True:
            try:
                out, said = process.communicate(pending, timeout=_LOOK_EVERY)
                break
            except subprocess.TimeoutExpired:
                pending = None
                ctx.check()
    return Ended(status_of(process), out, said.decode(errors="replace"))
