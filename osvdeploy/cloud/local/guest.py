"""Runs one guest here to its end, and tells how it ended: from the machine's power and OSv's own boot log.

The exit codes are those that a shell and timeout(1) would give where they have one (docs/run.md); a program that tells
its own, which OSv does with the boot option ``verbose``, ends the command with that.
"""

from __future__ import annotations

import os
import re
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from osvdeploy.context import Context
from osvdeploy.osv.console import BootLog, Fault, Finding, Reached, Stage, StageWatch, read_boot_log
from osvdeploy.qemu.machine import Accelerator, Forward, GdbStub, Machine, MachineSpec, Power
from osvdeploy.sizes import KIB, format_duration

CONSOLE_KEPT = 64 * KIB
"""Bytes of the console's end that a result holds."""

_LOG_KEPT = 256 * KIB
"""Bytes of the console's beginning, and of its end, that are read as a boot log."""

_HALTED = 3.0
"""Seconds of silence behind a crash after which the machine counts as halted: OSv says nothing more then, and without
--power-off-on-abort it stays on. It would tell a pvpanic device, but does not find QEMU's (drivers/pvpanic.cc looks for
a name that its ACPI tables no longer have)."""

_STATUS = re.compile(r"program (?:.* returned|exited with status) (-?\d+)")
"""With ``verbose`` OSv tells what a program gave to exit, and what it returned where that is not 0."""
_SIGNAL = re.compile(r"Uncaught signal (\d+) ")


class Ending(Enum):
    """How a guest ended: a name for programs, and the command's exit code."""

    def __init__(self, label: str, code: int) -> None:
        self.label = label
        self.code = code

    PROGRAM_ENDED = ("program-ended", 0)
    """The program returned. Its own status is the exit code where OSv tells it."""
    COMMAND_LINE = ("command-line", 120)
    """The command line is empty, or OSv cannot read it."""
    BOOT_OPTION = ("boot-option", 121)
    """This kernel does not know a boot option, or not that value."""
    ROOT_NOT_MOUNTED = ("root-not-mounted", 122)
    """The kernel or the root file system could not be read from the disk."""
    NOT_LINKED = ("not-linked", 123)
    """A library, a symbol or room for the program is missing."""
    TIME_OVER = ("time-over", 124)
    """``timeout`` passed and the guest was still on."""
    UNKNOWN = ("unknown", 125)
    """The machine went off and OSv did not say why."""
    PROGRAM_UNUSABLE = ("program-unusable", 126)
    """The program is there and OSv cannot run it."""
    PROGRAM_MISSING = ("program-missing", 127)
    """The program is not in the image, or its file system was not mounted."""
    SIGNALLED = ("signalled", 128)
    """The program ended itself by a signal: 128 and the signal's number."""
    INTERRUPTED = ("interrupted", 130)
    """Ctrl-C, SIGTERM, or the context was cancelled."""
    CRASHED = ("crashed", 134)
    """An abort, an assertion, an exception, or a fault of the kernel."""
    OUT_OF_MEMORY = ("out-of-memory", 137)
    """The machine's memory was used up."""


_ENDINGS = {
    Fault.PROGRAM_NOT_LOADED: Ending.PROGRAM_MISSING,
    Fault.PROGRAM_UNUSABLE: Ending.PROGRAM_UNUSABLE,
    Fault.PROGRAM_ENDED: Ending.PROGRAM_ENDED,
    Fault.ROOT_NOT_MOUNTED: Ending.ROOT_NOT_MOUNTED,
    Fault.DISK_READ: Ending.ROOT_NOT_MOUNTED,
    Fault.KERNEL_DAMAGED: Ending.ROOT_NOT_MOUNTED,
    Fault.COMMAND_LINE_EMPTY: Ending.COMMAND_LINE,
    Fault.COMMAND_LINE_REFUSED: Ending.BOOT_OPTION,
    Fault.SYMBOL_MISSING: Ending.NOT_LINKED,
    Fault.LIBRARY_MISSING: Ending.NOT_LINKED,
    Fault.POSITION_COLLIDES: Ending.NOT_LINKED,
    Fault.TLS_TOO_LARGE: Ending.NOT_LINKED,
    Fault.OUT_OF_MEMORY: Ending.OUT_OF_MEMORY,
    Fault.SIGNALLED: Ending.SIGNALLED,
}
"""What certainly ended a machine, and what that is called here; anything else is a crash."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a guest ended. ``status`` is what the program returned, None where OSv did not tell; ``cause`` is for people,
    ``cure`` what to do."""

    ending: Ending
    exit_code: int
    status: int | None
    cause: str
    cure: str | None = None


@dataclass(frozen=True, slots=True)
class StageTime:
    """A stage of the boot, and seconds after QEMU was called when its line arrived."""

    stage: Stage
    seconds: float


@dataclass(frozen=True, slots=True)
class GuestRun:
    """A machine that was run, from start to end. ``seconds`` is how long it was on."""

    verdict: Verdict
    log: BootLog
    stages: tuple[StageTime, ...]
    seconds: float
    power: Power
    accelerator: Accelerator
    forwards: tuple[Forward, ...]
    gdb: GdbStub | None
    console: bytes
    """The end of the console, at most CONSOLE_KEPT bytes."""
    console_bytes: int
    """All of it, in bytes."""
    said: str
    """What QEMU wrote to its stderr."""


def run_guest(
    ctx: Context,
    spec: MachineSpec,
    *,
    show: Callable[[bytes], object],
    started: Callable[[Machine], object] = lambda machine: None,
    timeout: float | None = None,
    keyboard: int | None = None,
) -> GuestRun:
    """Run a machine until it is off, ``timeout`` seconds are over or the context is cancelled; nothing is left of it.

    ``show`` gets the console as it comes, ``started`` the machine when it stands. What is typed at the descriptor
    ``keyboard`` goes to the guest. Raises what Machine.start does, MachineError where QEMU
    was lost, and what ``show`` raises.
    """
    watch, text, stages = StageWatch(), _Kept(), list[StageTime]()
    stopped: Ending | None = None
    with Machine.start(ctx, spec) as machine:
        started(machine)
        deadline = None if timeout is None else machine.started + timeout
        last, judged = machine.started, True
        with _typing(machine, keyboard):
            for heard in machine.console():
                if heard.data:
                    last, judged = heard.at, False
                    stages += [StageTime(each, heard.at - machine.started) for each in watch.feed(heard.data)]
                    text.add(heard.data)
                    show(heard.data)
                if ctx.cancel.cancelled:
                    stopped = Ending.INTERRUPTED
                    break
                if (deadline is not None and heard.at >= deadline) or ctx.remaining() == 0.0:
                    stopped = Ending.TIME_OVER
                    break
                if not judged and heard.at - last >= _HALTED and spec.gdb is None:
                    judged = True
                    fault = read_boot_log(text.text()).fault
                    if fault is not None and fault.fault is not Fault.PROGRAM_ENDED:
                        break
        ended = ctx.monotonic()
    log = read_boot_log(text.text())
    seconds = ended - machine.started
    return GuestRun(
        verdict=judge(log, machine.power, stopped=stopped, seconds=seconds),
        log=log,
        stages=tuple(stages),
        seconds=seconds,
        power=machine.power,
        accelerator=machine.accelerator,
        forwards=machine.forwards,
        gdb=machine.gdb,
        console=text.end(CONSOLE_KEPT),
        console_bytes=text.size,
        said=machine.said,
    )


def judge(log: BootLog, power: Power, *, stopped: Ending | None = None, seconds: float = 0.0) -> Verdict:
    """How a guest ended. ``stopped`` says why we ended it, None where it ended itself or stood still."""
    fault = log.fault
    if stopped is Ending.INTERRUPTED:
        return Verdict(
            *(stopped, stopped.code, None),
            f"the guest was ended by the interrupt, after {format_duration(seconds)}: {_STALLED[log.reached][0]}",
        )
    if fault is not None:
        return _of_fault(fault)
    if stopped is Ending.TIME_OVER:
        return Verdict(stopped, stopped.code, None, f"still on after {seconds:.1f} s: {_STALLED[log.reached][0]}",
                       _STALLED[log.reached][1])  # fmt: skip
    if log.reached is Reached.SILENT:
        return Verdict(
            *(Ending.UNKNOWN, Ending.UNKNOWN.code, None),
            "the machine went off without a word of OSv on its console",
            'is the kernel OSv, and its console "serial" or "all"? A machine with too little memory ends so, too',
        )
    if power is Power.RESET:
        return Verdict(
            *(Ending.UNKNOWN, Ending.UNKNOWN.code, None),
            "the machine restarted itself: a triple fault, or a kernel without ACPI that switches off so",
            "boot with --boot verbose: a program's end is told then",
        )
    if log.reached is not Reached.STARTING:
        return Verdict(
            *(Ending.UNKNOWN, Ending.UNKNOWN.code, None),
            "the machine went off before it came to the program",
            "boot with --boot verbose to see what it was doing",
        )
    return Verdict(Ending.PROGRAM_ENDED, 0, None, "the program ended")


_STALLED = {
    Reached.SILENT: (
        "no word of OSv on the console",
        'is the kernel OSv, and its console "serial" or "all"? Without KVM a boot takes seconds: '
        "try a longer --timeout. With too little --memory OSv is silent, too",
    ),
    Reached.KERNEL: (
        "OSv had said its version and had no address yet",
        "OSv waits for DHCP without a word, or is short of memory; --boot verbose shows which",
    ),
    Reached.NETWORK: ("OSv had its address and had not started the program", "--boot verbose shows what it waits for"),
    Reached.STARTING: ("the program was running", "a longer --timeout lets it go on"),
}


def _of_fault(fault: Finding) -> Verdict:
    ending = _ENDINGS.get(fault.fault, Ending.CRASHED)
    if ending is Ending.PROGRAM_ENDED:
        match = _STATUS.match(fault.line)
        status = int(match[1]) if match else 0
        if status == 0:
            return Verdict(ending, 0, status, "the program ended with status 0")
        # As a shell has it; a status that only its low byte would hide stays a failure.
        return Verdict(ending, status & 0xFF or 1, status, f"the program ended with status {status}")
    code = ending.code
    if ending is Ending.SIGNALLED and (match := _SIGNAL.match(fault.line)):
        code += int(match[1]) & 0x7F
    if fault.line.startswith("Failed to parse command line"):
        ending, code = Ending.COMMAND_LINE, Ending.COMMAND_LINE.code
    return Verdict(ending, code, None, fault.cause, fault.cure)


class _Kept:
    """The beginning and the end of a console, however long it is."""

    def __init__(self) -> None:
        self.size = 0
        self._head = bytearray()
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        self.size += len(data)
        room = _LOG_KEPT - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * _LOG_KEPT:
            del self._tail[:-_LOG_KEPT]

    def text(self) -> str:
        between = b"\n" if len(self._head) + len(self._tail) < self.size else b""
        return bytes(self._head + between + self._tail).decode(errors="replace")

    def end(self, count: int) -> bytes:
        return bytes(self._tail[-count:] if len(self._tail) >= count else (self._head + self._tail)[-count:])


@contextmanager
def _typing(machine: Machine, keyboard: int | None) -> Iterator[None]:
    if keyboard is None:
        yield
        return
    over = threading.Event()

    def pump(descriptor: int) -> None:
        while not over.is_set():
            if select.select([descriptor], [], [], 0.1)[0]:
                typed = os.read(descriptor, 4096)
                if not typed:
                    return
                machine.type(typed)

    thread = threading.Thread(target=pump, args=(keyboard,), name="keyboard", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
