"""Runs a guest's program as a process of this Linux x86-64 host, as far as a host can stand in for OSv.

The ROFS tree is extracted into the guest's work directory, and the program runs there in a process group of its own,
with a clean environment: what the command line's ``--env`` gives and what OSv's kernel sets, ``OSV_IP`` being the
guest's own loopback address. The console file gets OSv's lines, then what the program prints. A program linked
against libc runs with the host's loader.

What a host cannot give: absolute paths still mean the host's files (the working directory is the guest's root), and
nothing keeps a program from other addresses or from fork().

Programs end with the sandbox, also when it is killed: the kernel signals them when the thread that started them ends
(PR_SET_PDEATHSIG, see prctl(2)), and all are started by one thread that lives as long as the runner.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from osvdeploy.errors import DiskInvalid
from osvdeploy.sandbox import boot
from osvdeploy.sandbox.runners import Guest, GuestAnswer, GuestRequest, GuestStatus, NoAnswer, Power

LAUNCHER = """
import ctypes, errno, json, os, signal, sys, time
order = json.loads(sys.argv[1])
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != order["parent"]:
    os._exit(1)
time.sleep(order["delay"])  # the delay of a boot that is simulated
try:
    os.chdir(order["directory"])
except OSError as error:
    print("chdir:", error.strerror, flush=True)
while True:
    try:
        os.execve(order["program"], order["words"], order["environment"])
    except OSError as error:
        if error.errno != errno.ETXTBSY:
            print("sandbox: this host cannot run", order["words"][0] + ":", error.strerror, flush=True)
            os._exit(126)
    time.sleep(0.01)  # while another process forks, it may hold the program open to write
"""
"""Sets PR_SET_PDEATHSIG (1) and becomes the program. It is a program of its own, since code between fork and exec may
deadlock in a process with threads. The sandbox may have died before the signal was asked for: hence the look at the
parent. ETXTBSY passes: another start of a program was just being forked and still held the file open."""

CRASHES = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
"""Signals that OSv ends with an abort of the whole machine; any other only powers it off (libc/signal.cc)."""

CONSOLE_LIMIT = 1 << 20
"""A console file is cut to its last 64 KiB when it grows beyond this many bytes."""


@dataclass(slots=True)
class _Running:
    directory: Path
    process: subprocess.Popen[bytes] | None = None
    machine: boot.Machine | None = None
    power: Power = Power.ON

    @property
    def console(self) -> Path:
        return self.directory / "console"


class ProcessRunner:
    """Runs guests' programs here. ``work`` is a directory of the sandbox's own; one folder per guest is made in it."""

    instant = False

    def __init__(self, work: Path) -> None:
        self._work = work
        self._guests: dict[str, _Running] = {}
        self._lock = threading.RLock()
        self._orders: queue.SimpleQueue[
            tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]] | None
        ]
        self._orders = queue.SimpleQueue()
        self._starter = threading.Thread(target=self._start_ordered, name="guest-starter", daemon=True)
        self._starter.start()

    # -------------------------------------------------------------------------------------------- power on and off

    def start(self, guest: Guest, now: datetime) -> GuestStatus:
        self.stop(guest.id, now)
        running = _Running(self._work / guest.id)
        running.directory.mkdir(parents=True)
        root = running.directory / "root"
        try:
            machine = boot.read(
                guest.disk, guest.disk_size, address=guest.address, cpus=guest.cpus, stopwatch=time.monotonic
            )
            machine.extract(root)
            running.console.write_bytes(machine.banner)
            machine.check_program()
            running.machine = machine
            running.process = self._spawn(machine, root, running.console)
        except boot.BootFailed as failed:
            running.console.write_bytes(failed.console)
            running.power = Power.OFF if failed.powers_off else Power.ON
        except (OSError, DiskInvalid) as error:
            # Not OSv's words: a full disk here is no fault of the guest's, and a person must see it where they look.
            shutil.rmtree(root, ignore_errors=True)
            running.console.write_bytes(f"sandbox: this host cannot run the guest: {error}\n".encode())
            running.power = Power.OFF
        with self._lock:
            self._guests[guest.id] = running
            return self._look(running)

    def _spawn(self, machine: boot.Machine, root: Path, console: Path) -> subprocess.Popen[bytes]:
        program = root / machine.program.path.lstrip("/")
        program.chmod(0o700)
        # What the image brings is found as OSv finds it, in / and /usr/lib; the rest is the host's.
        libraries = [str(place) for place in (root, root / "usr/lib") if any(place.glob("*.so*"))]
        environment = dict(machine.environment)
        if libraries:
            environment["LD_LIBRARY_PATH"] = ":".join(libraries)
        order = {
            "parent": os.getpid(),
            "delay": machine.options.delay,
            "directory": str(root / machine.options.cwd.lstrip("/")),
            "program": str(program),
            "words": machine.program.arguments,
            "environment": environment,
        }
        words = [sys.executable, "-I", "-S", "-c", LAUNCHER, json.dumps(order)]

        def started() -> subprocess.Popen[bytes]:
            with console.open("ab") as output:
                return subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={}, process_group=0
                )

        done: Future[subprocess.Popen[bytes]] = Future()
        self._orders.put((started, done))
        return done.result()

    def _start_ordered(self) -> None:
        while (order := self._orders.get()) is not None:
            started, done = order
            try:
                done.set_result(started())
            except OSError as error:
                done.set_exception(error)

    def stop(self, guest_id: str, now: datetime) -> bytes:
        with self._lock:
            running = self._guests.pop(guest_id, None)
        if running is None:
            shutil.rmtree(self._work / guest_id, ignore_errors=True)
            return b""
        if running.process is not None:
            _kill(running.process)
        console = boot.last_64k(_read(running.console))
        shutil.rmtree(running.directory, ignore_errors=True)
        return console

    def close(self) -> None:
        with self._lock:
            guests = list(self._guests)
        for guest_id in guests:
            self.stop(guest_id, datetime.min)
        self._orders.put(None)
        self._starter.join()

    # ------------------------------------------------------------------------------------------------- looking at it

    def status(self, guest_id: str, now: datetime) -> GuestStatus | None:
        with self._lock:
            running = self._guests.get(guest_id)
            if running is not None:
                return self._look(running)
        # Started by a sandbox that is gone: its programs ended with it, and all that is left is what they printed.
        console = self._work / guest_id / "console"
        return GuestStatus(Power.OFF, boot.last_64k(_read(console))) if console.exists() else None

    def process_group(self, guest_id: str) -> int | None:
        """The group its program runs in, None for a guest whose program does not run."""
        with self._lock:
            running = self._guests.get(guest_id)
            return running.process.pid if running is not None and running.process is not None else None

    def _look(self, running: _Running) -> GuestStatus:
        process, machine = running.process, running.machine
        if process is not None and machine is not None and _has_ended(process):
            code = _kill(process)
            running.process = None
            options = machine.options
            crashed = -code in CRASHES
            if crashed:
                says, off = boot.ABORTED, options.power_off_on_abort
            elif code < 0:
                says, off = boot.uncaught(-code, verbose=options.verbose), True
            else:
                word = machine.program.arguments[0]
                says = boot.exited(word, code, verbose=options.verbose, stays=options.noshutdown)
                off = not options.noshutdown
            with running.console.open("ab") as console:
                console.write(says)
            running.power = Power.OFF if off else Power.ON
        if running.console.stat().st_size > CONSOLE_LIMIT:
            kept = boot.last_64k(_read(running.console))
            # The program appends: its next write lands behind what is kept.
            with running.console.open("r+b") as console:
                console.truncate(0)
                console.write(kept)
        return GuestStatus(running.power, boot.last_64k(_read(running.console)))

    def ask(
        self, guest_id: str, address: str, port: int, request: GuestRequest, timeout: float, now: datetime
    ) -> GuestAnswer | NoAnswer:
        connection = http.client.HTTPConnection(address, port, timeout=timeout)
        deadline = time.monotonic() + timeout
        try:
            connection.connect()
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers:
                connection.putheader(name, value)
            connection.endheaders(request.body or None)
            connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
            answer = connection.getresponse()
            return GuestAnswer(answer.status, dict(answer.getheaders()), answer.read(64 * 1024))
        except TimeoutError:
            return NoAnswer.TIMEOUT
        except ConnectionRefusedError:
            return NoAnswer.REFUSED
        except (OSError, http.client.HTTPException):
            return NoAnswer.BROKEN
        finally:
            connection.close()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the program is over. It is not reaped by this, so its process id, and with it its group's, stays its."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill(process: subprocess.Popen[bytes]) -> int:
    """End a program's whole process group, children that OSv would never have let it make included, and reap it. The
    program's exit status, below 0 for a signal."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _read(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def loopback_addresses_work() -> bool:
    """Whether every 127.x.y.z is this host, as on Linux: guests and balancers get such addresses."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.211.7.13", 0))
        except OSError:
            return False
    return True
