"""One machine in QEMU: started, listened to, typed at, ended.

    with Machine.start(ctx, spec) as machine:
        for heard in machine.console():
            ...
    machine.power          # how it ended

The disk is never changed: what the guest writes goes to a copy on write in a file without a name, and so does a kernel
that is booted directly, so nothing is left on disk however this process ends.
"""

from __future__ import annotations

import ipaddress
import json
import queue
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import TracebackType
from typing import Self

from osvdeploy.context import Context
from osvdeploy.errors import MachineError
from osvdeploy.events import Note
from osvdeploy.qemu.host import KVM_PROCESSOR, LOOPBACK, bound, diagnosed, find_qemu, kvm_trouble, quoted
from osvdeploy.qemu.overlay import DiskFile, overlay
from osvdeploy.qemu.process import TICK, QemuProcess, Qmp, status_text
from osvdeploy.sizes import MIB

_GUESSES = 3
"""Tries for a port that was free when we looked."""


class DiskBus(StrEnum):
    """What the disk hangs on."""

    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"
    NVME = "nvme"
    AHCI = "ahci"


class Accelerator(StrEnum):
    """What runs the guest's instructions."""

    KVM = "kvm"
    """The processor."""
    TCG = "tcg"
    """QEMU, which translates them: ten times slower, and possible anywhere."""


_PROCESSORS = {Accelerator.KVM: KVM_PROCESSOR, Accelerator.TCG: "max"}


class Power(StrEnum):
    """Why a machine is off, or that it is not."""

    ON = "on"
    OFF = "powered-off"
    """The guest switched it off."""
    RESET = "reset"
    """The guest restarted it: a triple fault, or a kernel that cannot switch it off otherwise."""
    STOPPED = "stopped"
    """We did."""
    LOST = "lost"
    """QEMU ended without a word: killed, or crashed."""


_REASONS = {
    "guest-shutdown": Power.OFF,
    "guest-reset": Power.RESET,
    "host-qmp-quit": Power.STOPPED,
    "host-signal": Power.STOPPED,
}
"""QMP's ShutdownCause (qapi/run-state.json)."""


@dataclass(frozen=True, slots=True)
class Forward:
    """TCP connections to ``host``:``port`` here lead to ``guest_port`` there. Port 0: one that is free."""

    guest_port: int
    port: int = 0
    host: str = LOOPBACK

    @classmethod
    def parse(cls, text: str) -> Self:
        """``GUEST``, ``PORT:GUEST`` or ``HOST:PORT:GUEST``. Raises ValueError that says what is wrong."""
        *front, guest = text.split(":")
        if len(front) > 2:
            raise ValueError(f"{text!r} is not PORT:GUESTPORT or HOST:PORT:GUESTPORT (QEMU forwards from IPv4 alone)")
        host = front[0] if len(front) == 2 else LOOPBACK
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an IPv4 address of this machine") from None
        to = _port(text, guest)
        if to == 0:
            raise ValueError(f"{text!r}: a guest has no port 0")
        return cls(to, _port(text, front[-1]) if front else to, host)


def _port(text: str, number: str) -> int:
    if not (number.isascii() and number.isdecimal() and int(number[:6]) < 65_536):
        raise ValueError(f"{text!r}: {number!r} is not a port from 0 to 65535")
    return int(number)


@dataclass(frozen=True, slots=True)
class DirectKernel:
    """An ELF kernel that QEMU loads itself (PVH), and its command line."""

    elf: bytes = field(repr=False)
    command_line: str


@dataclass(frozen=True, slots=True)
class GdbStub:
    """QEMU's gdb stub on loopback. Port 0: one that is free. ``wait``: the guest starts when gdb says so."""

    port: int = 1234
    wait: bool = False


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A machine to be. ``memory`` in bytes, whole MiB. ``head`` stands in place of the disk's first bytes, 64 KiB at
    most, for this machine alone. ``accelerator`` None: KVM where it works."""

    disk: DiskFile
    memory: int = 256 * MIB
    cpus: int = 1
    bus: DiskBus = DiskBus.VIRTIO_BLK
    forwards: tuple[Forward, ...] = ()
    head: bytes | None = field(default=None, repr=False)
    kernel: DirectKernel | None = None
    gdb: GdbStub | None = None
    accelerator: Accelerator | None = None


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The open files that QEMU is handed, by their numbers."""

    qmp: int
    overlay: int
    disk: int
    kernel: int | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """A piece of the console, and when it came (seconds of the context's stopwatch). Empty: nothing came."""

    data: bytes
    at: float


def arguments(spec: MachineSpec, accelerator: Accelerator, given: Descriptors) -> list[str]:
    """QEMU's command line, without its name. Ports are not 0 any more."""
    node = {
        "driver": "qcow2",
        "node-name": "disk0",
        "file": {"driver": "file", "filename": "/dev/fdset/1"},
        "cache": {"no-flush": True},
        "backing": {
            "driver": spec.disk.format.value,
            "read-only": True,
            "file": {"driver": "file", "filename": "/dev/fdset/2", "read-only": True},
        },
    }
    hosts = "".join(f",hostfwd=tcp:{each.host}:{each.port}-:{each.guest_port}" for each in spec.forwards)
    words = ["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-name", "osvdeploy"]
    words += ["-machine", f"pc,accel={accelerator}", "-cpu", _PROCESSORS[accelerator]]
    words += ["-m", f"{spec.memory // MIB}M", "-smp", str(spec.cpus)]
    words += ["-chardev", f"socket,id=qmp,fd={given.qmp}", "-mon", "chardev=qmp,mode=control"]
    words += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    words += ["-add-fd", f"fd={given.overlay},set=1", "-add-fd", f"fd={given.disk},set=2"]
    words += ["-blockdev", json.dumps(node), *_disk(spec)]
    words += ["-netdev", f"user,id=net0{hosts}", "-device", "virtio-net-pci,netdev=net0,romfile="]
    words += ["-device", "virtio-rng-pci"]
    if spec.kernel is not None:
        words += ["-kernel", f"/proc/self/fd/{given.kernel}", "-append", spec.kernel.command_line]
    if spec.gdb is not None:
        words += ["-gdb", f"tcp:{LOOPBACK}:{spec.gdb.port}", *(["-S"] if spec.gdb.wait else [])]
    return words


def _disk(spec: MachineSpec) -> list[str]:
    # A kernel that QEMU loads takes the first place of the boot order for itself. Where the copy on write has no room,
    # the guest is told, as by a disk that fails; QEMU would have it stand still (NVMe always tells).
    drive = "drive=disk0" if spec.kernel is not None else "drive=disk0,bootindex=0"
    match spec.bus:
        case DiskBus.VIRTIO_BLK:
            return ["-device", f"virtio-blk-pci,werror=report,{drive}"]
        case DiskBus.VIRTIO_SCSI:
            return ["-device", "virtio-scsi-pci,id=scsi0", "-device", f"scsi-hd,bus=scsi0.0,werror=report,{drive}"]
        case DiskBus.NVME:
            return ["-device", f"nvme,serial=osvdeploy,{drive}"]
        case DiskBus.AHCI:
            return ["-device", "ahci,id=ahci0", "-device", f"ide-hd,bus=ahci0.0,werror=report,{drive}"]


class Machine:
    """A machine that runs, or has run. ``forwards`` and ``gdb`` have their real ports; ``started`` is when QEMU was
    called, by the context's stopwatch. One thread listens and ends it."""

    def __init__(self, ctx: Context, spec: MachineSpec, accelerator: Accelerator, process: QemuProcess) -> None:
        self.spec = spec
        self.forwards = spec.forwards
        self.gdb = spec.gdb
        self.accelerator = accelerator
        self.started = process.started
        self.power = Power.ON
        self._ctx = ctx
        self._process = process

    @classmethod
    def start(cls, ctx: Context, spec: MachineSpec) -> Self:
        """Start QEMU, and return when the machine stands: its ports are open, its first instruction is on the way.

        Raises UsageError for a port that cannot be had, ToolMissing without QEMU, MachineError where it will not run,
        with what it said. Falls back to TCG where KVM does not work, and tells why.
        """
        qemu = find_qemu()
        accelerator = spec.accelerator
        for guess in range(1, _GUESSES + 1):
            settled = _settle_ports(spec)
            # Behind the ports: trying KVM may take a while where it does not work.
            accelerator = accelerator or _accelerator(ctx, qemu)
            try:
                return cls(ctx, settled, accelerator, _started(ctx, qemu, settled, accelerator))
            except MachineError as error:
                # Between our look and QEMU's, another program may have taken a port that was free.
                guessed = settled != spec and ("host forwarding rule" in error.said or "-gdb tcp" in error.said)
                if not guessed or guess == _GUESSES:
                    raise diagnosed(error, qemu) from None
        raise AssertionError("unreachable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def console(self) -> Iterator[Heard]:
        """What the serial port says, as it comes, until the machine is off; an empty piece now and then between.

        Raises MachineError where QEMU was lost.
        """
        process = self._process
        while True:
            try:
                data = process.pieces.get(timeout=TICK)
            except queue.Empty:
                process.qmp.listen()
                yield Heard(b"", self._ctx.monotonic())
                continue
            if data is None:
                break
            yield Heard(data, self._ctx.monotonic())
        process.end()
        self._settle_power()
        if self.power is Power.LOST:
            raise MachineError(
                f"QEMU was lost: it ended {status_text(process.popen.returncode)}",
                said=process.said(),
                hint=quoted(process.said()) or "was it killed, or the memory of this host used up?",
            )

    def type(self, data: bytes) -> None:
        """Type at the serial port. What a machine that is off would get is lost."""
        stream = self._process.popen.stdin
        assert stream is not None
        try:
            stream.write(data)
            stream.flush()
        except (BrokenPipeError, ValueError):
            pass

    def stop(self) -> None:
        """End the machine, whatever it does. Nothing of it is left. May be called again."""
        self._process.end()
        self._settle_power()

    @property
    def said(self) -> str:
        """What QEMU wrote to its stderr."""
        return self._process.said()

    def _settle_power(self) -> None:
        if self.power is Power.ON:
            process = self._process
            told = _REASONS.get(process.qmp.reason or "")
            self.power = told or (Power.STOPPED if process.asked else Power.LOST)


def _settle_ports(spec: MachineSpec) -> MachineSpec:
    """The same with every port a real one that could be had a moment ago. Raises UsageError for one that could not."""
    forwards = []
    with ExitStack() as held:
        for wanted in spec.forwards:
            probe = held.enter_context(bound(wanted.host, wanted.port))
            forwards.append(Forward(wanted.guest_port, probe.getsockname()[1], wanted.host))
        gdb = spec.gdb
        if gdb is not None:
            probe = held.enter_context(bound(LOOPBACK, gdb.port, flag="--gdb"))
            gdb = GdbStub(probe.getsockname()[1], gdb.wait)
    return replace(spec, forwards=tuple(forwards), gdb=gdb)


def _accelerator(ctx: Context, qemu: str) -> Accelerator:
    """KVM where it works, which only trying tells; else TCG, and why."""
    trouble = kvm_trouble(qemu)
    if trouble is None:
        return Accelerator.KVM
    ctx.report(Note(f"without KVM, about ten times slower: {trouble}"))
    return Accelerator.TCG


def _started(ctx: Context, qemu: str, spec: MachineSpec, accelerator: Accelerator) -> QemuProcess:
    """QEMU with its machine set up. Raises MachineError with what it said where it ended before."""
    try:
        process = _called(ctx, qemu, spec, accelerator)
    except OSError as error:
        raise MachineError(
            f"the machine's files cannot be made: {error}",
            hint="TMPDIR names the directory that they lie in, without a name; is there room, and can it be written?",
        ) from None
    try:
        if process.qmp.wait_ready(ctx):
            return process
    except BaseException:
        process.end()
        raise
    process.end()
    raise MachineError(
        f"QEMU did not start the machine: it ended {status_text(process.popen.returncode)}", said=process.said()
    )


def _called(ctx: Context, qemu: str, spec: MachineSpec, accelerator: Accelerator) -> QemuProcess:
    with ExitStack() as ours:
        # Files without a name: closed, they are gone.
        layer = ours.enter_context(tempfile.TemporaryFile())
        layer.write(overlay(spec.disk.size, spec.head))
        layer.flush()
        disk = ours.enter_context(spec.disk.path.open("rb", buffering=0))
        kernel = None
        if spec.kernel is not None:
            kernel = ours.enter_context(tempfile.TemporaryFile())
            kernel.write(spec.kernel.elf)
            kernel.flush()
        near, far = socket.socketpair()
        ours.enter_context(far)
        given = Descriptors(far.fileno(), layer.fileno(), disk.fileno(), kernel.fileno() if kernel else None)
        handed = [each for each in (given.qmp, given.overlay, given.disk, given.kernel) if each is not None]
        words = [qemu, *arguments(spec, accelerator, given)]
        with ExitStack() as undo:
            undo.callback(near.close)
            said = undo.enter_context(tempfile.TemporaryFile())
            process = QemuProcess(ctx, words, handed, Qmp(near), said)
            undo.pop_all()  # the process closes both
    return process
