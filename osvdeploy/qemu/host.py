"""What this host has for machines: QEMU itself, KVM, ports; and what QEMU's complaints mean."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack

from osvdeploy.errors import MachineError, ToolMissing, UsageError
from osvdeploy.qemu.process import SAID_LIMIT, kill, launch, status_text
from osvdeploy.sizes import MIB, format_duration

PROGRAM = "qemu-system-x86_64"

OLDEST = (5, 0)
"""Every distribution in support has this QEMU or a newer one."""

LOOPBACK = "127.0.0.1"

KVM_PROCESSOR = "host"

_PROBE_LIMIT = 3.0
"""Seconds for a BIOS to start under KVM; it takes a fifth of one. Where KVM is nested in vain, it spins for ever."""


def find_qemu() -> str:
    """QEMU's path. Raises ToolMissing that says how to install it."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise ToolMissing(
            f"{PROGRAM} is not on PATH",
            hint="install QEMU: `apt-get install qemu-system-x86` on Debian and Ubuntu, `dnf install qemu-system-x86` "
            "on Fedora, `brew install qemu` on a Mac",
        )
    return found


def free_port(host: str = LOOPBACK) -> int:
    """A TCP port of ``host`` that nobody uses now. Raises UsageError where ``host`` is no address of this machine."""
    with bound(host, 0) as probe:
        port: int = probe.getsockname()[1]
        return port


def bound(host: str, port: int, *, flag: str = "--forward") -> socket.socket:
    """A socket that holds a port for as long as it is open. Raises UsageError for one that cannot be had."""
    probe = socket.socket()
    try:
        # As QEMU does: what a program that has ended leaves in TIME_WAIT is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen()
    except OSError as error:
        probe.close()
        raise UsageError(
            f"{flag}: port {port} of {host} cannot be had: {error.strerror}",
            hint="end what listens there, or choose another port; 0 takes one that is free",
        ) from None
    return probe


def kvm_trouble(qemu: str) -> str | None:
    """What keeps KVM from running a machine here, None where it does."""
    if platform.machine() != "x86_64":
        return f"this is a {platform.machine()} machine"
    if platform.system() != "Linux":
        return f"{platform.system()} has none"
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "/dev/kvm is not here (in a virtual machine, nesting must be allowed)"
    except PermissionError:
        return "/dev/kvm may not be opened (add yourself to the group kvm: sudo usermod -aG kvm $USER)"
    except OSError as error:
        return f"/dev/kvm cannot be opened: {error.strerror}"
    return _kvm_failure(qemu)


_PROBE_SECTOR = bytes.fromhex("b010 ba0105 ee f4").ljust(510, b"\0") + b"\x55\xaa"
"""A boot sector of ours: mov al, 0x10; mov dx, 0x501; out dx, al; hlt. The port is QEMU's isa-debug-exit, which ends it
with status (0x10 << 1) | 1."""

_PROBE_STATUS = 0x21


def _kvm_failure(qemu: str) -> str | None:
    """Boot seven bytes under KVM. Where it is nested or filtered, /dev/kvm opens and makes machines, and yet QEMU
    aborts over a register that may not be set, or the guest never gets anywhere. Both were seen."""
    with ExitStack() as ours:
        disk = ours.enter_context(tempfile.TemporaryFile())
        disk.write(_PROBE_SECTOR)
        disk.truncate(MIB)  # SeaBIOS boots from no disk of one sector
        said = ours.enter_context(tempfile.TemporaryFile())
        words = [qemu, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-m", "16M"]
        words += ["-machine", "pc,accel=kvm", "-cpu", KVM_PROCESSOR]
        words += ["-device", "isa-debug-exit,iobase=0x501,iosize=1", "-device"]
        words += ["virtio-blk-pci,drive=disk0,bootindex=0"]
        words += ["-drive", f"file=/proc/self/fd/{disk.fileno()},format=raw,if=none,id=disk0,readonly=on"]
        popen = launch(words, [disk.fileno()], said)
        with popen:
            try:
                status = popen.wait(_PROBE_LIMIT)
            except subprocess.TimeoutExpired:
                return f"a machine under it had not started after {format_duration(_PROBE_LIMIT)}"
            finally:
                kill(popen)
        if status == _PROBE_STATUS:
            return None
        told = os.pread(said.fileno(), SAID_LIMIT, 0).decode(errors="replace").strip().splitlines()
        return f"QEMU cannot use it ({told[0] if told else f'it ended {status_text(status)}'})"


_CURES = (
    (
        "host forwarding rule",
        "end what listens on that port, or choose another with --forward; 0 takes one that is free",
    ),
    ("-gdb tcp", "choose another port with --gdb; 0 takes one that is free"),
    ("cannot set up guest memory", "give the machine less with --memory, or make room on this host"),
    ("Cannot allocate memory", "give the machine less with --memory, or make room on this host"),
    ("another process using the image", "another process uses the disk for writing: end it, or run a copy"),
    ("'user' is not", "this QEMU was built without user networking (libslirp); install your system's own package"),
    ("is not a valid device model", "this QEMU was built without that device; choose another --disk"),
    ("Invalid CPU topology", "choose fewer with --cpus"),
    ("max CPUs", "choose fewer with --cpus"),
    ("cannot be started", f"is {PROGRAM} on PATH a program for this machine?"),
)


def diagnosed(error: MachineError, qemu: str) -> MachineError:
    """The same error with QEMU's words in it and, where they are known, what to do."""
    if error.hint is not None:
        return error
    version = qemu_version(qemu)
    if version is not None and version < OLDEST:
        hint: str | None = f"install QEMU {OLDEST[0]}.{OLDEST[1]} or newer; {qemu} is {version[0]}.{version[1]}"
    else:
        hint = next((cure for words, cure in _CURES if words in error.said), None)
    message = f"{error.message}\n{quoted(error.said)}" if error.said else error.message
    return MachineError(message, said=error.said, hint=hint or f"the words above are those of {qemu}")


def quoted(said: str) -> str:
    """QEMU's words, marked as such."""
    return "\n".join(f"QEMU said: {line}" for line in said.splitlines())


def qemu_version(qemu: str) -> tuple[int, int] | None:
    """Major and minor version, None where the program does not tell."""
    try:
        told = subprocess.run([qemu, "--version"], capture_output=True, timeout=10, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = told.decode(errors="replace").split()
    for word in words:
        major, dot, rest = word.partition(".")
        minor = rest.partition(".")[0]
        if dot and major.isdecimal() and minor.isdecimal():
            return int(major), int(minor)
    return None
