"""A volume's bytes -> the program that its guest runs, with arguments and environment; or what OSv prints instead.

Follows OSv's own way (arch/x64/boot16.S, loader.cc, core/commands.cc): boot sector, kernel at 64 KiB, command line at
byte 512, root file system from the partition in slot 2. No part of the kernel runs here: what it would say and do is
written down from its sources, and a kernel that is none of OSv's is taken for one.
"""

from __future__ import annotations

import re
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from osvdeploy.errors import CommandLineInvalid, DiskInvalid
from osvdeploy.osv.cmdline import BootCommand, decode
from osvdeploy.osv.disk import COMMAND_LINE_END, COMMAND_LINE_OFFSET, SECTOR, read_disk
from osvdeploy.osv.kernel import CHUNK_SIZE, KERNEL_OFFSET, chunk_count
from osvdeploy.osv.rofs import RofsDirectory, RofsFile, RofsReader, RofsSymlink
from osvdeploy.sandbox.runners import DiskReader

VERSION = "v0.0.0-sandbox"
"""What the banner and OSV_VERSION say: no kernel runs, so it is no version of OSv's."""

ABORTED = b"Aborted\n\n[backtrace]\n"
"""runtime.cc, abort(): after it all CPUs halt, or the machine powers off with --power-off-on-abort."""

CONSOLE_KEPT = 64 * 1024
"""GetConsoleOutput gives the last 64 KiB."""

FLAGS = frozenset(
    {
        "bootchart",
        "disable_rofs_cache",
        "extra-zfs-pools",
        "help",
        "leak",
        "noinit",
        "nomount",
        "nopci",
        "nopivot",
        "norandom",
        "noshutdown",
        "power-off-on-abort",
        "preload-zfs-library",
        "strace",
        "trace-backtrace",
        "trace-list",
        "verbose",
    }
)
VALUED = frozenset(
    {
        "console",
        "cwd",
        "defaultgw",
        "delay",
        "ip",
        "maxnic",
        "mount-fs",
        "nameserver",
        "redirect",
        "rootfs",
        "sampler",
        "trace",
    }
)
"""Options that loader.cc parses (with --env, which BootCommand holds apart). Any other one prints the usage and powers
off."""

NOT_SIMULATED = ("ip", "mount-fs", "redirect")
"""Options that change what the program or its reader sees, which no runner does."""

_ELF_HEADER = struct.Struct("<4s5B7xHH")
_ELF_HEADER_SIZE = 64
_EXECUTABLE, _SHARED, _X86_64 = 2, 3, 62


class BootFailed(Exception):
    """The guest never ran a program. ``console`` is all that OSv prints; it then powers off, or hangs for ever."""

    def __init__(self, console: bytes, *, powers_off: bool) -> None:
        super().__init__(console.decode(errors="replace"))
        self.console = console
        self.powers_off = powers_off


@dataclass(frozen=True, slots=True)
class KernelOptions:
    """The boot options that change what a guest does here; ``delay`` in seconds, ``ip`` "" for DHCP's address."""

    verbose: bool = False
    noshutdown: bool = False
    power_off_on_abort: bool = False
    bootchart: bool = False
    cwd: str = "/"
    delay: float = 0.0
    ip: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """What runs: ``path`` as the command line names it, found; ``arguments`` with the program's own word first."""

    path: str
    arguments: tuple[str, ...]
    file: RofsFile


@dataclass(frozen=True, slots=True)
class Machine:
    """A guest that came as far as its program. ``environment`` is all that the program sees, ``banner`` what OSv has
    printed before it runs."""

    options: KernelOptions
    environment: dict[str, str]
    banner: bytes
    program: Program
    tree: RofsReader = field(repr=False)

    def read_program(self) -> bytes:
        """The program's file."""
        return self.tree.read(self.program.file)

    def extract(self, root: Path) -> None:
        """Write the guest's whole tree below ``root``, a new directory. Absolute links are led back into it."""
        for path, node in self.tree.nodes.items():
            # The reader admits no name that is "..", or holds a slash: all of it lands below the root.
            place = root / path.lstrip(b"/").decode(errors="surrogateescape")
            match node:
                case RofsDirectory():
                    place.mkdir(parents=True)
                case RofsFile():
                    with place.open("wb") as file:
                        for piece in self.tree.stream(node):
                            file.write(piece)
                case RofsSymlink(target=target):
                    up = b"../" * (path.count(b"/") - 1)
                    inside = up + target.lstrip(b"/") if target.startswith(b"/") else target
                    place.symlink_to((inside or b".").decode(errors="surrogateescape"))

    def check_program(self) -> None:
        """Raise :class:`BootFailed` for what OSv's linker refuses by its header (core/elf.cc load_elf_header)."""
        path, size = self.program.path, self.program.file.size
        header = self.tree.read(self.program.file, 0, _ELF_HEADER_SIZE)
        if len(header) < _ELF_HEADER_SIZE:
            self._refuse(f"executable too short {path}: file_size={size} need={_ELF_HEADER_SIZE}")
        magic, wordsize, endian, version, abi, _, kind, machine = _ELF_HEADER.unpack_from(header)
        if magic != b"\x7fELF":
            self._refuse("bad elf header")
        if wordsize != 2:
            self._refuse("bad elf class")
        if endian != 1:
            self._refuse("bad elf endianness")
        if version != 1 or abi not in (0, 3):
            self._refuse("bad elf version or abi")
        if kind not in (_EXECUTABLE, _SHARED):
            self._refuse("bad executable type")
        if machine != _X86_64:
            self._refuse(f"machine type for {path} differs from the kernel")

    def _refuse(self, why: str) -> None:
        raise BootFailed(self.banner + f"{why}. Powering off.\n".encode(), powers_off=True)


@dataclass(frozen=True, slots=True)
class _Volume:
    pread: DiskReader
    size: int


def read(
    disk: DiskReader, size: int, *, address: str, cpus: int = 1, stopwatch: Callable[[], float] = lambda: 0.0
) -> Machine:
    """Boot from a disk of ``size`` bytes on a machine whose one network interface has ``address``.

    ``stopwatch`` gives seconds; the console says how long this took by it. Raises :class:`BootFailed` with the console
    so far where no program comes to run.
    """
    began = stopwatch()
    head = _boot_sector(disk, size)
    console = f"OSv {VERSION}\n".encode()
    line, nul, _ = head[COMMAND_LINE_OFFSET:].partition(b"\0")
    if not nul or not line.strip():
        raise BootFailed(console + b"This image has an empty command line. Nothing to run.\n", powers_off=True)
    try:
        command = decode(line)
    except CommandLineInvalid as wrong:
        said = re.search(r"'(-[^']*)' is not an option", str(wrong))
        failure = f"not an option: {said[1]}\n{_usage()}" if said else "Failed to parse command line.\n"
        raise BootFailed(console + failure.encode(), powers_off=True) from None
    options = _options(command, console)
    own = options.ip or address
    variables = {"OSV_VERSION": VERSION, "OSV_CPUS": str(cpus), "OSV_IP": own, **dict(command.environment)}
    console += f"eth0: {own}\n".encode()
    if not options.bootchart:
        console += f"Booted up in {(stopwatch() - began) * 1000:.2f} ms\n".encode()
    words = tuple(_expanded(word, variables) for word in command.words)
    if not words:
        raise BootFailed(console + b"This image has an empty command line. Nothing to run.\n", powers_off=True)
    console += b"Cmdline: " + _program_line(line) + b"\n"
    missing = BootFailed(console + f"Failed to load object: {words[0]}. Powering off.\n".encode(), powers_off=True)
    if not _root_is_mounted(command):
        raise missing
    try:
        tree = read_disk(_Volume(disk, size)).rofs()
    except DiskInvalid as wrong:
        if not options.verbose:
            raise missing from None
        mount = f"Could not mount rofs root filesystem.\nsandbox: {wrong}\n".encode()
        raise BootFailed(console + mount + missing.console[len(console) :], powers_off=True) from None
    path, file = _find(tree, words[0], options.cwd)
    if file is None:
        raise missing
    return Machine(options, variables, console, Program(path, words, file), tree)


def _boot_sector(disk: DiskReader, size: int) -> bytes:
    """Boot sector and command line. A disk that a BIOS or the boot sector cannot start says nothing on the serial
    port, so the console stays empty and the machine on."""
    head = disk(0, COMMAND_LINE_END)
    nothing = BootFailed(b"", powers_off=False)
    if len(head) < COMMAND_LINE_END or head[SECTOR - 2 : SECTOR] != b"\x55\xaa":
        raise nothing
    chunks = chunk_count(head)
    if chunks == 0 or KERNEL_OFFSET + chunks * CHUNK_SIZE > size:
        raise nothing
    if not disk(KERNEL_OFFSET, CHUNK_SIZE).strip(b"\0"):
        raise nothing
    return head


def _options(command: BootCommand, console: bytes) -> KernelOptions:
    valued: dict[str, list[str]] = {}
    for name, value in command.options:
        if name not in FLAGS | VALUED:
            raise BootFailed(console + f"unrecognized option: {name}\n{_usage()}".encode(), powers_off=True)
        if name in VALUED and value is None:
            text = f"the required argument for option '--{name}' is missing\n{_usage()}"
            raise BootFailed(console + text.encode(), powers_off=True)
        if name in FLAGS and value is not None:
            raise BootFailed(console + f"unrecognized option: {name}\n{_usage()}".encode(), powers_off=True)
        valued.setdefault(name, []).append(value or "")
    abort_off = "power-off-on-abort" in valued
    for kind in valued.get("console", []):
        if kind not in ("serial", "vga", "all"):
            raise BootFailed(console + f"Unknown console:{kind}\n".encode() + ABORTED, powers_off=abort_off)
    for static in valued.get("ip", []):
        if len(static.split(",")) != 3:
            raise BootFailed(console + b"incorrect parameter on --ip\n" + ABORTED, powers_off=abort_off)
    for name in NOT_SIMULATED:
        if name in valued:
            text = f"the sandbox does not simulate OSv's boot option --{name}; this machine is switched off\n"
            raise BootFailed(console + text.encode(), powers_off=True)
    try:
        delay = float(valued.get("delay", ["0"])[-1])
    except ValueError:
        raise BootFailed(console + b"Failed to parse command line.\n", powers_off=True) from None
    return KernelOptions(
        verbose="verbose" in valued,
        noshutdown="noshutdown" in valued,
        power_off_on_abort=abort_off,
        bootchart="bootchart" in valued,
        cwd=valued.get("cwd", ["/"])[-1],
        delay=max(0.0, delay),
        ip=valued["ip"][-1].split(",")[1] if "ip" in valued else "",
    )


def _usage() -> str:
    names = sorted({*FLAGS, *VALUED, "env"})
    return "OSv options:\n" + "".join(f"  --{name}{'=arg' if name not in FLAGS else ''}\n" for name in names)


def _root_is_mounted(command: BootCommand) -> bool:
    """Whether this command line lets OSv reach a ROFS: a disk of a cloud is on the PCI bus."""
    given = dict(command.options)
    return not given.keys() & {"nomount", "nopci"} and given.get("rootfs") in (None, "rofs")


def _expanded(word: str, variables: dict[str, str]) -> str:
    before, dollar, name = word.partition("$")
    return before + variables.get(name, "") if dollar else word


def _program_line(line: bytes) -> bytes:
    """The command line behind its options, as ``Cmdline:`` shows it."""
    return re.sub(rb"\A(?:[ \t\n]*-(?:\\.|[^ \t\n\\])*)*[ \t\n]*", b"", line, flags=re.DOTALL)


def _find(tree: RofsReader, name: str, cwd: str) -> tuple[str, RofsFile | None]:
    """A name without a slash is looked up in / and /usr/lib (core/elf.cc), any other from the working directory."""
    if "/" in name:
        places = [name if name.startswith("/") else f"{cwd.rstrip('/')}/{name}"]
    else:
        places = [f"/{name}", f"/usr/lib/{name}"]
    for place in places:
        file = tree.file(place.encode())
        if file is not None:
            return place, file
    return name, None


def last_64k(console: bytes) -> bytes:
    """What a cloud keeps of a console."""
    return console[-CONSOLE_KEPT:]


def exited(program: str, code: int, *, verbose: bool, stays: bool) -> bytes:
    """What is printed when the last program has returned: nothing, unless --verbose."""
    if not verbose:
        return b""
    return f"program {program} returned {code}\n".encode() + (b"" if stays else b"Powering off.\n")


def uncaught(number: int, *, verbose: bool) -> bytes:
    """Printed for a signal whose default action it is to power off (libc/signal.cc)."""
    return f'Uncaught signal {number} ("{signal.strsignal(number)}"). Powering off.\n'.encode() if verbose else b""
