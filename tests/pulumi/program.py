"""Runs Pulumi programs against an engine, as Pulumi's own host of Python programs does.

Each in a process of its own, a fork of one that has imported what programs before it did: the SDK of a cloud takes a
second, of which the engine's tests would spend most of their time.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SDKS = ("pulumi", "pulumi_")


class Programs:
    """Runs programs, one at a time. It ends with the process that has it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._host: subprocess.Popen[str] | None = None

    def run(
        self, words: Sequence[str], folder: Path, environ: Mapping[str, str], output: Path, timeout: float
    ) -> tuple[int, str]:
        """A program's exit code and all that it printed. ``words`` are the arguments of :func:`run`; a program that
        takes longer than so many seconds is ended. The first one says what can be imported."""
        asked = {
            "words": list(words), "folder": str(folder), "environ": dict(environ), "output": str(output),
            "timeout": timeout,
        }  # fmt: skip
        with self._lock:
            if self._host is None:
                pipe = subprocess.PIPE
                command = [sys.executable, "-m", __name__]
                self._host = subprocess.Popen(command, env=dict(environ), stdin=pipe, stdout=pipe, text=True)
                # pytest must not take it for a pipe that a test forgot.
                atexit.register(self._end)
            assert self._host.stdin is not None and self._host.stdout is not None
            self._host.stdin.write(f"{json.dumps(asked)}\n")
            self._host.stdin.flush()
            return int(self._host.stdout.readline()), output.read_text()

    def _end(self) -> None:
        if self._host is not None:
            self._host.communicate()


def host() -> None:
    """Run the programs that standard input asks for, a line each, and answer each with its exit code."""
    for line in sys.stdin:
        asked = json.loads(line)
        told, telling = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(told)
            _program(asked, telling)
        os.close(telling)
        with os.fdopen(told) as pipe:
            imported = pipe.read().split()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        for each in imported:
            # What a program had and others cannot have is no affair of theirs.
            with contextlib.suppress(ImportError):
                importlib.import_module(each)


def _program(asked: Mapping[str, Any], telling: int) -> None:
    """Be the program; does not return."""
    signal.alarm(round(asked["timeout"]))
    output = os.open(asked["output"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    for standard in (sys.stdout, sys.stderr):
        os.dup2(output, standard.fileno())
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    code = 0
    try:
        run(*asked["words"])
    except SystemExit as end:
        print(end.code, file=sys.stderr)
        code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(telling, "\n".join(each for each in list(sys.modules) if each.startswith(_SDKS)).encode())
    os._exit(code)


def run(file: str, monitor: str, engine: str, project: str, stack: str, preview: str) -> None:
    import pulumi
    from pulumi.runtime import settings
    from pulumi.runtime.config import get_config_env, set_all_config
    from pulumi.runtime.config import get_config_secret_keys_env as secret_keys
    from pulumi.runtime.stack import run_in_stack

    set_all_config(get_config_env(), secret_keys())
    settings.reset_options(
        project=project,
        stack=stack,
        engine_address=engine,
        monitor_address=monitor,
        preview=preview == "preview",
        parallel=16,
        organization="organization",
    )
    # A program that failed leaves tasks behind, which is no news.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    # A program imports what lies beside it.
    sys.path.insert(0, str(Path(file).resolve().parent))

    def program() -> None:
        runpy.run_path(file, run_name="__main__")

    try:
        loop.run_until_complete(run_in_stack(program))
    except pulumi.RunError as error:
        sys.exit(f"program failed: {error}")


if __name__ == "__main__":
    host()
