"""The number that a program of this host prints. It is started as it is named, by no shell, with this process's
environment, and in a session of its own, so that it ends with all that it has started."""

from __future__ import annotations

import math
import os
import signal
import subprocess
from tempfile import TemporaryFile
from typing import IO

from osvdeploy.cloud.interfaces import CommandMetric, Grid, Measured, Sample
from osvdeploy.context import Context
from osvdeploy.errors import Refused, Unavailable

TIME_LIMIT = 10.0
"""Seconds: a rollout waits for it, and its lease is to be renewed."""

SIZE_LIMIT = 64 << 10
"""Bytes that it may print, to either side."""

_TICK = 0.1


def read(ctx: Context, metric: CommandMetric, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
    """One sample, of the grid's last interval: the program tells what is now.

    Any exit status but 0 means that it cannot tell: :class:`~osvdeploy.errors.Unavailable`, with its last words.
    """
    argv = [measured.filled(word, grid.interval) for word in metric.argv]
    with TemporaryFile() as out, TemporaryFile() as said:
        status = _run(ctx, argv, out, said)
        printed, words = _start_of(out), " ".join(_start_of(said).split())[-200:]
    if status != 0:
        how = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
        raise Unavailable(f"{argv[0]}: cannot tell ({how}){': ' if words else ''}{words}")
    try:
        value = float(printed)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Refused(f"{argv[0]}: printed no number, but {' '.join(printed.split())[:80]!r}")
    return (Sample(grid.start(grid.count - 1), value),)


def _run(ctx: Context, argv: list[str], out: IO[bytes], said: IO[bytes]) -> int:
    """Run it to its end, or for as long as it may; its exit status."""
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=said, start_new_session=True, close_fds=True
        )
    except OSError as error:
        raise Refused(f"{argv[0]}: cannot be started: {error.strerror}", hint="mend `command` in the spec") from None
    try:
        # By counting, and not by the context's clock, which does not pass while a test's stands still.
        for _ in range(round(TIME_LIMIT / _TICK)):
            try:
                return process.wait(_TICK)
            except subprocess.TimeoutExpired:
                ctx.check()
            if max(os.fstat(each.fileno()).st_size for each in (out, said)) > SIZE_LIMIT:
                raise Refused(f"{argv[0]}: prints more than {SIZE_LIMIT >> 10} KiB")
        raise Unavailable(f"{argv[0]}: did not end within {TIME_LIMIT:.0f} s")
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of it: the program, and what it has started in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _start_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(SIZE_LIMIT).decode(errors="replace")
