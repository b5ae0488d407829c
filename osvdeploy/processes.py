"""Running a tool of this machine, which ends with all that it started when this process does, also by kill -9.

Every tool that writes, or works longer than a moment, is started here: behind a guard (guard.py), which sees our end.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from osvdeploy import guard
from osvdeploy.context import Context
from osvdeploy.errors import UsageError

_LOOK_EVERY = 0.2
"""Seconds between two looks at whether whoever asked was cancelled."""

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


class Guarded:
    """A tool that runs, as far as pipes and status go, and ends with all that it started when it is told to or this
    process dies."""

    def __init__(
        self,
        words: Sequence[str | bytes],
        *,
        cwd: Path | None,
        env: Mapping[str, str],
        held: Sequence[int] = (),
        stdin: int = subprocess.DEVNULL,
        stderr: int = subprocess.PIPE,
    ) -> None:
        """``held`` are descriptors of locks, which last until the last of the tool's processes has ended."""
        self._ours, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = subprocess.Popen(
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
        except BaseException:
            self._ours.close()
            raise

    def stop(self) -> None:
        """Have it ended, and do not wait for that: politely first, and within :data:`~osvdeploy.guard.GRACE` seconds
        whatever it does."""
        try:
            self._ours.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # its guard is gone

    def close(self) -> None:
        """Have it ended, and wait for that; one that has just ended by itself is only waited for. Raises OSError where
        it could not be started."""
        with self._ours:
            with self.process as process:
                try:
                    # A guard that still waits for its command ends it when told to; one that is done has only to be
                    # waited for.
                    if process.poll() is None:
                        try:
                            process.wait(_LOOK_EVERY)
                        except subprocess.TimeoutExpired:
                            self.stop()
                    process.wait(_LAST_WORDS)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if told := self._ours.recv(16):
                raise OSError(int(told), os.strerror(int(told)))


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
    """A tool that runs for the length of the block, as :class:`Guarded` does. Raises OSError where it could not be
    started, at the end of the block."""
    tool = Guarded(words, cwd=cwd, env=env, held=held, stdin=stdin, stderr=stderr)
    try:
        yield tool.process
    except BaseException:
        with suppress(OSError):
            tool.close()
        raise
    tool.close()


def program_file(name: str, path: str | None, whose: str) -> str:
    """The file of a program: of a plain name, by ``path`` (PATH). ``whose``: what has it as its `command`. Raises
    :class:`~osvdeploy.errors.UsageError` where there is none, or it may not be run."""
    found = shutil.which(name, path=path)
    if found is not None:
        return found
    if "/" not in name:
        raise UsageError(f"{name}: there is no such program on PATH", hint="install it here, or name its file")
    if not Path(name).exists():
        raise UsageError(f"{name}: is not there", hint=f"mend `command` of {whose}, or run this where the file is")
    raise UsageError(f"{name}: may not be run", hint=f"chmod +x {name}")


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
    with TemporaryFile() as stdin:
        # No pipe: communicate() writes no more to it once its time was over (Lib/subprocess.py, _communicate).
        stdin.write(given)
        stdin.seek(0)
        with guarded(words, cwd=cwd, env=env, held=held, stdin=stdin.fileno()) as process:
            while True:
                try:
                    out, said = process.communicate(timeout=_LOOK_EVERY)
                    break
                except subprocess.TimeoutExpired:
                    ctx.check()
    return Ended(status_of(process), out, said.decode(errors="replace"))
