"""Runs one QEMU machine, and ends what it started."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

QEMU = shutil.which("qemu-system-x86_64")

needs_qemu = pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not here (scripts/install-qemu)")

BOOT_TIMEOUT = 120.0
"""Seconds for a whole boot without KVM on a busy machine; it takes about one."""


class Machine:
    """A running machine whose first serial port is ``console``. TCG, so that it runs anywhere."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: Path) -> None:
        self._process = process
        self._stderr = stderr
        self._console = bytearray()
        self._changed = threading.Condition()
        self._closed = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def console(self) -> bytes:
        """What the machine has written so far."""
        with self._changed:
            return bytes(self._console)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, seen: Callable[[bytes], bool], timeout: float = BOOT_TIMEOUT) -> bytes:
        """The console once ``seen`` says yes. Fails where the machine ends, or ``timeout`` seconds pass, before."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or seen(bytes(self._console)), timeout)
            console = bytes(self._console)
        if not seen(console):
            what = "ended" if self._closed else f"did not get there in {timeout:.0f} s"
            raise AssertionError(f"the machine {what}; its console:\n{console.decode(errors='replace')}{self._said()}")
        return console

    def wait_until_off(self, timeout: float = BOOT_TIMEOUT) -> bytes:
        """The whole console of a machine that powers itself off. Fails the test where it does not."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            console = self.console.decode(errors="replace")
            raise AssertionError(f"the machine was still on after {timeout:.0f} s; its console:\n{console}") from None
        self._reader.join(timeout)
        assert status == 0, f"QEMU ended with {status}{self._said()}"
        return self.console

    def stop(self) -> None:
        """End the machine, whatever it does."""
        if self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            while piece := os.read(stream.fileno(), 65_536):
                with self._changed:
                    self._console += piece
                    self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _said(self) -> str:
        text = self._stderr.read_text(errors="replace").strip()
        return f"\nQEMU said: {text}" if text else ""


@contextmanager
def boot(disk: Path, *, memory: int = 64, interface: str = "ide", arguments: Sequence[str] = ()) -> Iterator[Machine]:
    """Boot ``disk``, raw, in a machine with ``memory`` MiB, and end it on leaving. The disk itself is not changed.

    ``interface`` "none" leaves it to ``arguments`` to put the drive ``disk0`` behind a device.
    """
    assert QEMU is not None
    command = [QEMU, "-machine", "pc,accel=tcg", "-m", str(memory), "-display", "none", "-serial", "stdio"]
    command += ["-monitor", "none", "-no-reboot", "-nodefaults", "-snapshot"]
    command += ["-drive", f"file={disk},format=raw,id=disk0,if={interface}", *arguments]
    with tempfile.TemporaryDirectory(prefix="osvdeploy-qemu-") as scratch:
        stderr = Path(scratch, "stderr")
        # A process group of its own: what QEMU may start ends with it, and a Ctrl-C of pytest's is not its own.
        with stderr.open("wb") as said:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
                env=dict(os.environ, TMPDIR=scratch),
            )
        machine = Machine(process, stderr)
        try:
            yield machine
        finally:
            machine.stop()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
