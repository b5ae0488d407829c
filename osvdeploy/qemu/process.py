"""QEMU as a process: started so that it ends with us, asked over QMP, listened to by one thread of its own.

It ends with this process, also when that is killed: the Linux kernel signals QEMU when the thread that started it ends
(PR_SET_PDEATHSIG, see prctl(2)), and that thread lives as long as QEMU does. QMP goes over a socket pair.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import IO

from osvdeploy.context import Context

LAUNCHER = """
import ctypes, os, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as error:
    print("cannot be started:", error.strerror, file=sys.stderr)
    os._exit(126)
"""
"""Sets PR_SET_PDEATHSIG (1) to SIGKILL and becomes QEMU. A program of its own, since code between fork and exec may
deadlock in a process with threads. We may have died before the signal was asked for: hence the look at the parent."""

TICK = 0.1
"""Seconds between two looks at the clock, a cancel and QMP while the console is silent."""

_START_LIMIT = 60.0
"""Seconds in which QEMU has to set the machine up; it takes a tenth of one."""

_QUIT_LIMIT = 2.0
"""Seconds that QEMU gets to end by itself before it is killed."""

_PIECE = 65_536
_QUEUED = 256
SAID_LIMIT = 4_000
"""Bytes of QEMU's stderr that are kept."""


class QemuProcess:
    """QEMU, the thread that started it and reads its console, and what it was handed."""

    def __init__(self, ctx: Context, words: Sequence[str], handed: Sequence[int], qmp: Qmp, said: IO[bytes]) -> None:
        self.pieces: queue.Queue[bytes | None] = queue.Queue(_QUEUED)
        self.qmp = qmp
        self.asked = False
        self._said = said
        self._text: str | None = None
        self._ending = threading.Event()
        born: Future[subprocess.Popen[bytes]] = Future()
        self._thread = threading.Thread(target=self._live, args=(words, handed, born), name="qemu", daemon=True)
        self.started = ctx.monotonic()
        self._thread.start()
        self.popen = born.result()

    def _live(self, words: Sequence[str], handed: Sequence[int], born: Future[subprocess.Popen[bytes]]) -> None:
        try:
            popen = launch(words, handed, self._said)
        except BaseException as error:
            born.set_exception(error)
            return
        born.set_result(popen)
        assert popen.stdout is not None
        while piece := os.read(popen.stdout.fileno(), _PIECE):
            while not self._ending.is_set():
                try:
                    self.pieces.put(piece, timeout=TICK)
                    break
                except queue.Full:
                    continue
        # To the very end: the kernel kills QEMU when this thread ends.
        popen.wait()
        while True:
            try:
                self.pieces.put(None, timeout=TICK)
                return
            except queue.Full:
                if self._ending.is_set():
                    return

    def end(self) -> None:
        """Ask QEMU to quit, and kill it where it does not."""
        if self.popen.poll() is None:
            self.asked = True
            self._ending.set()
            self.qmp.quit()
            try:
                self.popen.wait(_QUIT_LIMIT)
            except subprocess.TimeoutExpired:
                kill(self.popen)
        self._ending.set()
        self.popen.wait()
        # What a wrapper around QEMU may have left behind could hold the console open; it is not waited for.
        self._thread.join(_QUIT_LIMIT)
        self.qmp.listen()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
        self.qmp.close()
        self.said()
        self._said.close()

    def said(self) -> str:
        if self._text is None or not self._said.closed:
            # Not seek(): QEMU writes where this file stands.
            self._text = os.pread(self._said.fileno(), SAID_LIMIT, 0).decode(errors="replace").strip()
        return self._text


def launch(words: Sequence[str], handed: Sequence[int], said: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a program that ends with the calling thread. ``handed`` are the descriptors it gets under their numbers."""
    # A process group of its own: a Ctrl-C is for us, who then end QEMU, and what a wrapper starts ends with it.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        pass_fds=handed,
        process_group=0,
    )


def kill(popen: subprocess.Popen[bytes]) -> None:
    """End it at once, with what it has started; nothing where it has ended."""
    try:
        os.killpg(popen.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Qmp:
    """Our end of QEMU's monitor: JSON documents, one a line."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = b""
        self.reason: str | None = None
        self.ready = False
        self.version: tuple[int, int] | None = None

    def wait_ready(self, ctx: Context) -> bool:
        """Until the machine stands: True; False where QEMU ended or does not answer. Raises Interrupted."""
        self._send("qmp_capabilities")
        deadline = ctx.monotonic() + _START_LIMIT
        while not self.ready and ctx.monotonic() < deadline:
            ctx.check()
            if not self.listen(TICK):
                break  # it may have stood, and be off already
        return self.ready

    def listen(self, seconds: float = 0.0) -> bool:
        """Take what QEMU has said; waits at most that long for something. False: it says no more."""
        try:
            while True:
                self._end.settimeout(seconds)
                piece = self._end.recv(_PIECE)
                if not piece:
                    return False
                *lines, self._rest = (self._rest + piece).split(b"\n")
                for line in lines:
                    self._hear(line)
                if self.ready:
                    seconds = 0.0
        except (TimeoutError, BlockingIOError):
            return True
        except OSError:
            return False

    def quit(self) -> None:
        self._send("quit")

    def close(self) -> None:
        self._end.close()

    def _send(self, command: str) -> None:
        try:
            self._end.settimeout(1.0)
            self._end.sendall(json.dumps({"execute": command}).encode() + b"\n")
        except OSError:
            pass  # it has ended, which is seen elsewhere

    def _hear(self, line: bytes) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            return
        if not isinstance(told, dict):
            return
        if "return" in told:
            self.ready = True
        if told.get("event") == "SHUTDOWN" and isinstance(told.get("data"), dict):
            self.reason = str(told["data"].get("reason"))


def status_text(code: int) -> str:
    """``with status 1``, ``by SIGKILL``."""
    if code >= 0:
        return f"with status {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
