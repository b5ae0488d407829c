"""Running a tool of this machine: its words kept, and ended when the build is."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.context import Context

_LOOK_EVERY = 0.2
"""Seconds between two looks at whether the build was cancelled."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a tool ended: its exit status, and what it wrote to stdout and to stderr."""

    status: int
    out: bytes
    said: str

    def last(self, lines: int = 12) -> str:
        """The end of what it said, for an error's hint."""
        return "\n".join([line for line in self.said.splitlines() if line.strip()][-lines:])


def run_tool(
    ctx: Context, words: Sequence[str | bytes], *, cwd: Path, env: Mapping[str, str], given: bytes = b""
) -> Ended:
    """Run a tool to its end, with ``given`` on its stdin. Raises OSError where it cannot be started, and what
    ``ctx.check`` raises when cancelled; the tool and all that it started are ended then."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=dict(env),
        start_new_session=True,
    )
    with process:
        try:
            pending: bytes | None = given
            while True:
                try:
                    out, said = process.communicate(pending, timeout=_LOOK_EVERY)
                    return Ended(process.returncode, out, said.decode(errors="replace"))
                except subprocess.TimeoutExpired:
                    pending = None
                    ctx.check()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
