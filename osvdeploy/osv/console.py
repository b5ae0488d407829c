"""Reads a boot log: how far did OSv get, and what stopped it.

Text in, value out; any text gives an answer. A line is taken for the end of a machine only where what follows proves
it: OSv powers off after some messages, so nothing comes behind them, and aborts print a backtrace. Everything else may
as well be a program talking, and is reported as a suspicion. The messages are those of OSv's sources (loader.cc,
runtime.cc, core/elf.cc, core/app.cc, core/mmu.cc, core/mempool.cc, fs/rofs, fs/vfs/main.cc).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum

_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_a-z])")
_VERSION = re.compile(r"(?:^|.*[\s.])OSv (v\d\S*)$")
_ADDRESS = re.compile(r"eth\d+: (\d{1,3}(?:\.\d{1,3}){3})$")
_BOOTED = re.compile(r"Booted up in [\d.]+ ms$")
_COMMAND = re.compile(r"Cmdline: ?(.*)$")
_FRAME = re.compile(r"0x[0-9a-f]+ <.*")
_CLOSING = re.compile(
    r"Powering off\.?$|program exited with status |ROFS: |VFS: |Warning: unmount_rootfs: "
    r"|Halting\.$|\[I/|\[backtrace\]$|usage:|OSv options:| *--"
)
_ABORT_PROOF = frozenset({"[backtrace]", "[registers]", "Halting."})
_LINE_LIMIT = 2000
_STILL_TALKING = 10


class Reached(IntEnum):
    """How far a boot got. Ordered: a later stage includes the earlier ones."""

    SILENT = 0
    """Nothing from OSv: no console, no kernel, or not yet."""
    KERNEL = 1
    """OSv said its version. To stop here with a network interface mostly means that DHCP never answers."""
    NETWORK = 2
    """An interface has its address."""
    STARTING = 3
    """The program's command line was read. Whether the program is ready, only a probe can tell."""


class Fault(StrEnum):
    """What can go wrong, as far as OSv's console tells it apart."""

    PROGRAM_NOT_LOADED = "program-not-loaded"
    PROGRAM_UNUSABLE = "program-unusable"
    PROGRAM_ENDED = "program-ended"
    ROOT_NOT_MOUNTED = "root-not-mounted"
    MOUNT_FAILED = "mount-failed"
    COMMAND_LINE_EMPTY = "command-line-empty"
    COMMAND_LINE_REFUSED = "command-line-refused"
    SYMBOL_MISSING = "symbol-missing"
    LIBRARY_MISSING = "library-missing"
    POSITION_COLLIDES = "position-collides"
    TLS_TOO_LARGE = "tls-too-large"
    OUT_OF_MEMORY = "out-of-memory"
    ABORTED = "aborted"
    SIGNALLED = "signalled"
    EXCEPTION = "exception"
    ASSERTION = "assertion"
    KERNEL_FAULT = "kernel-fault"
    DISK_READ = "disk-read"
    KERNEL_DAMAGED = "kernel-damaged"
    TOO_MANY_CPUS = "too-many-cpus"
    PROCESS_CREATION = "process-creation"
    UNIMPLEMENTED = "unimplemented"


class _Proof(Enum):
    """What shows that a line really ended the machine."""

    NOTHING_FOLLOWS = "before the program started, or nothing but the shutdown after it"
    BACKTRACE = "a backtrace, registers or the halt right behind it"
    NEVER = "the machine goes on after such a line"


@dataclass(frozen=True, slots=True)
class _Rule:
    fault: Fault
    pattern: re.Pattern[str]
    proof: _Proof
    cause: str
    cure: str | None = None
    between: int = 0
    """Lines allowed between this one and its backtrace."""
    booting: bool = False
    """Only while OSv boots: no program can have written it, nor be at fault."""


def _rule(
    fault: Fault,
    pattern: str,
    proof: _Proof,
    cause: str,
    cure: str | None = None,
    *,
    between: int = 0,
    booting: bool = False,
) -> _Rule:
    return _Rule(fault, re.compile(pattern), proof, cause, cure, between, booting)


_END, _TRACE, _NEVER = _Proof.NOTHING_FOLLOWS, _Proof.BACKTRACE, _Proof.NEVER

_IN_IMAGE = "check the paths under [[files]] and the first word of `command` (`osvdeploy inspect` lists the files)"

_NARROW_KERNEL = (
    "`osvdeploy kernel inspect` tells what a kernel drives and where it serves: one for Firecracker (microvm) finds "
    "nothing on PCI, and one without HPET has no clock where there is no KVM; the default driver profile has all"
)

_RULES = (
    # The root file system: said with --verbose only, and before the program that is then not found.
    _rule(
        Fault.ROOT_NOT_MOUNTED,
        r"\[rofs\] Found rofs volume but incompatible version!",
        _END,
        "the kernel reads another version of ROFS",
        "use a kernel of this osvdeploy's time",
    ),
    _rule(
        Fault.ROOT_NOT_MOUNTED,
        r"\[rofs\] Error (?:opening device|reading rofs superblock|reading rofs structure info blocks)!?",
        _END,
        "the disk with the root file system was not found or could not be read: the kernel may lack its driver",
        "use a kernel with the driver for this machine's disks (NVMe on Nitro, virtio-scsi on Google)",
    ),
    _rule(
        Fault.ROOT_NOT_MOUNTED,
        r"Could not mount \S+ root filesystem\.",
        _END,
        "the root file system was not mounted: no partition, no driver for the disk, or a damaged file system",
        "compare the disk with `osvdeploy inspect`, and the kernel's drivers with the machine",
    ),
    _rule(
        Fault.ROOT_NOT_MOUNTED,
        r"Could not load and/or initialize \S*libsolaris\.so.*",
        _END,
        "the root is ZFS and its library is not in the kernel",
        'use a kernel built with ZFS, or fs = "rofs"',
    ),
    _rule(
        Fault.PROGRAM_NOT_LOADED,
        r"Failed to load object: (?P<what>.*)\. Powering off\.",
        _END,
        "{what} is not in the image, or the root file system was not mounted",
        _IN_IMAGE + "; boot with `verbose = true` to see whether the root file system was mounted",
    ),
    _rule(
        Fault.PROGRAM_UNUSABLE,
        r"executable too short (?P<what>.*): file_size=\d+ need=\d+.*",
        _END,
        "{what} is cut off: the file is shorter than its own headers say",
        "build the program again",
    ),
    _rule(
        Fault.PROGRAM_UNUSABLE,
        r"(?P<what>bad elf (?:header|class|endianness|version)|bad executable type|bad os abi)\b.*",
        _END,
        "the program is no x86_64 executable for Linux: {what}",
        "the first word of `command` must be an ELF file, not a script; build it for x86_64",
    ),
    _rule(
        Fault.PROGRAM_UNUSABLE,
        r"machine type for (?P<what>.*) differs from the kernel.*",
        _END,
        "{what} is built for another processor than the kernel",
        "build the program for x86_64",
    ),
    _rule(
        Fault.PROGRAM_UNUSABLE,
        r"Failed looking up main\b.*",
        _END,
        "the program has neither an entry point nor a `main` that OSv can find",
        "link it as an executable (-pie), not as a plain library",
    ),
    _rule(
        Fault.COMMAND_LINE_EMPTY,
        r"This image has an empty command line\. Nothing to run\.",
        _END,
        "the command line names no program",
        "set `command` in the spec",
    ),
    _rule(
        Fault.COMMAND_LINE_REFUSED,
        r"Failed to parse command line\.",
        _END,
        "OSv cannot read the program's line",
        "look for quotes, ';', '&', '!' and characters beyond ASCII in `command`",
    ),
    _rule(
        Fault.COMMAND_LINE_REFUSED,
        r"(?P<what>unrecognized option: .*|not an option: .*|duplicate option: .*|the required argument for option .*"
        r"|the argument .* for option .* is invalid|option .* does not take any arguments)",
        _END,
        "this kernel does not know a boot option: {what}",
        "see [image.boot] in the spec, and the options of this kernel's version",
    ),
    _rule(
        Fault.COMMAND_LINE_REFUSED,
        r"Unknown console:(?P<what>.*)",
        _TRACE,
        "the kernel has no console {what}",
        'use console = "serial"',
    ),
    _rule(
        Fault.COMMAND_LINE_REFUSED,
        r"incorrect parameter on --ip.*",
        _TRACE,
        "the boot option `ip` has not exactly three fields: interface, address, mask",
        'write ip = ["eth0,10.0.0.2,255.255.255.0"]',
    ),
    _rule(
        Fault.SYMBOL_MISSING,
        r"(?P<what>.*): failed looking up symbol (?P<symbol>.*)",
        _TRACE,
        "{what} needs {symbol}, which neither the kernel nor a library in the image has",
        "add the library that has it to the image, or use a kernel that exports it (one whose symbols are not hidden)",
    ),
    _rule(
        Fault.KERNEL_FAULT,
        r"trying to execute (?:or access missing symbol|null pointer).*",
        _TRACE,
        "OSv itself stopped while it booted, before the program: it used something that its kernel was built without",
        _NARROW_KERNEL,
        between=40,
        booting=True,
    ),
    _rule(
        Fault.KERNEL_FAULT,
        r"Aborted",
        _TRACE,
        "OSv itself stopped while it booted, before the program",
        "the lines before it, and the backtrace, tell where; " + _NARROW_KERNEL,
        booting=True,
    ),
    _rule(
        Fault.SYMBOL_MISSING,
        r"trying to execute (?:or access missing symbol|null pointer).*",
        _TRACE,
        "the program used a function that neither the kernel nor a library in the image has",
        "add the library that has it to the image",
        between=40,
    ),
    _rule(
        Fault.LIBRARY_MISSING,
        r"could not load libenviron\.so",
        _TRACE,
        "/libenviron.so is not in the image; programs in name spaces of their own need it",
        "add libenviron.so of the kernel's build",
    ),
    _rule(
        Fault.LIBRARY_MISSING,
        r"could not load (?P<what>\S+)",
        _NEVER,
        "the library {what} is not in the image, nor does the kernel have it",
        "add it under [[files]]",
    ),
    _rule(
        Fault.POSITION_COLLIDES,
        r"Non-PIC executable \[(?P<what>.*)\] collides with kernel.*",
        _TRACE,
        "{what} must be loaded where the kernel stands",
        "link it with -pie",
    ),
    _rule(
        Fault.TLS_TOO_LARGE,
        r"WARNING: (?P<what>.*) is a PIE using TLS of size (?P<size>\d+).*",
        _NEVER,
        "{what} needs {size} bytes of thread-local storage, more than the kernel reserves",
        "build a kernel with a larger app_local_exec_tls_size, or link the program as a shared library",
    ),
    _rule(
        Fault.OUT_OF_MEMORY,
        r"Out of memory: could not reclaim any further\. Current memory: .*",
        _TRACE,
        "the machine's memory is used up",
        "give it more, or let the program use less",
    ),
    _rule(
        Fault.OUT_OF_MEMORY,
        r"Unreasonable allocation attempt, larger than memory.*",
        _TRACE,
        "one allocation was larger than the machine's memory",
        "give it more memory; look for a stack, heap or buffer of fixed size",
    ),
    _rule(
        Fault.OUT_OF_MEMORY,
        r"terminate called after throwing an instance of 'std::bad_alloc'",
        _TRACE,
        "the program could not allocate memory",
        "give the machine more memory",
        between=3,
    ),
    _rule(
        Fault.EXCEPTION,
        r"terminate called (?:after throwing an instance of '(?P<what>.*)'|without an active exception|recursively)",
        _TRACE,
        "the program ended in a C++ exception that nobody caught",
        None,
        between=3,
    ),
    _rule(
        Fault.ASSERTION,
        r"Assertion failed: (?P<what>.*)",
        _TRACE,
        "an assertion failed: {what}",
        "the file named tells whether it is the program's or OSv's; a program must not change its user or group id",
    ),
    _rule(
        Fault.KERNEL_FAULT,
        r"page fault outside application, addr: (?P<what>0x[0-9a-f]+)",
        _TRACE,
        "the kernel touched memory at {what} that is not there: a bad pointer handed in, or a fault of the kernel",
        "try another kernel; look at what the program passed to the system",
    ),
    _rule(
        Fault.KERNEL_FAULT,
        r"general protection fault|__stack_chk_fail\(\): Stack overflow detected\. Aborting\.|DUMMY_HANDLER for .*",
        _TRACE,
        "the processor refused an instruction, or a stack ran over",
        None,
    ),
    _rule(
        Fault.UNIMPLEMENTED,
        r"Unimplemented futex\(\) operation \d+.*",
        _TRACE,
        "the program uses a kind of lock that this kernel has not",
        "use a newer kernel",
        between=1,
    ),
    _rule(
        Fault.ABORTED,
        r"Aborted",
        _TRACE,
        "the program crashed (SIGSEGV) or called abort()",
        "the lines before it, and the backtrace, tell where",
    ),
    _rule(
        Fault.SIGNALLED,
        r"Uncaught signal (?P<what>\d+ \(.*\))\. Powering off\.",
        _END,
        "the program ended itself by signal {what}",
    ),
    _rule(
        Fault.PROGRAM_ENDED,
        r"program (?P<what>.*) returned (?P<status>-?\d+)",
        _END,
        "{what} ended with status {status}; OSv powers off when its program is done",
        "a service must not return from main",
    ),
    _rule(
        Fault.PROGRAM_ENDED,
        r"program exited with status (?P<status>-?\d+)",
        _END,
        "the program ended with status {status}; OSv powers off when its program is done",
        "a service must not call exit",
    ),
    _rule(
        Fault.DISK_READ,
        r"Error reading disk \(real mode\): (?P<what>.*)",
        _END,
        "the BIOS could not read the kernel from the disk ({what}): the disk is too short, or not the first one",
        "compare the disk with `osvdeploy inspect`; boot from the first disk, in legacy BIOS mode",
    ),
    _rule(
        Fault.DISK_READ,
        r"can't read elf header.*",
        _END,
        "the program's file is there, but the disk could not be read where it stands",
        "look with `osvdeploy inspect` whether the disk is shorter than its partition says",
    ),
    _rule(
        Fault.KERNEL_DAMAGED,
        r"premain: failed to get TLS data from ELF.*",
        _END,
        "the kernel is damaged",
        "fetch or build it again",
    ),
    _rule(
        Fault.TOO_MANY_CPUS,
        r"Too many cpus, can't boot with greater than 64 cpus\.",
        _END,
        "the machine has more than 64 processors",
        "use a smaller type",
    ),
    _rule(
        Fault.MOUNT_FAILED,
        r"failed to mount (?P<what>.*), error = (?P<error>.*)",
        _NEVER,
        "{what} was not mounted: {error}",
        "check /etc/fstab and `mount-fs`; the directory must be there in the image",
    ),
    _rule(
        Fault.PROCESS_CREATION,
        r"(?P<what>v?fork\(\)|forkpty\(\)|daemon\(\)|execve\(\)|popen\(\)) stubbed|execvp not implemented",
        _NEVER,
        "the program tried to start another process, which a unikernel cannot",
        "configure it to run in one process, in the foreground",
    ),
    _rule(
        Fault.UNIMPLEMENTED,
        r"syscall\(\): unimplemented system call (?P<what>\d+)",
        _NEVER,
        "the program asked for system call {what}, which this kernel has not; many programs do without",
        None,
    ),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the log that means trouble. ``number`` counts lines from 1; ``fatal`` is what certainly ended the
    machine, else it is a suspicion."""

    fault: Fault
    line: str
    number: int
    cause: str
    cure: str | None
    fatal: bool


@dataclass(frozen=True, slots=True)
class BootLog:
    """What a boot log says. ``fault`` is what certainly ended the machine, None where nothing did; ``suspicions`` are
    lines that may explain trouble, or be nothing. ``command_line`` is the program's own line as OSv echoed it."""

    reached: Reached
    version: str | None
    addresses: tuple[str, ...]
    command_line: str | None
    fault: Finding | None
    suspicions: tuple[Finding, ...]


def read_boot_log(text: str) -> BootLog:
    """Read what a serial console gave, from any point of a boot on; the beginning may be missing. Never raises."""
    lines = [_clean(line) for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    version = command_line = None
    addresses: list[str] = []
    started: int | None = None
    reached = Reached.SILENT
    certain: list[Finding] = []
    suspicions: list[Finding] = []
    for index, line in enumerate(lines):
        if not line:
            continue
        if started is None:
            if version is None and (found := _VERSION.match(line)):
                version, reached = found[1], max(reached, Reached.KERNEL)
            elif found := _ADDRESS.match(line):
                addresses.append(found[1])
                reached = max(reached, Reached.NETWORK)
            elif _BOOTED.match(line):
                reached = Reached.STARTING
            elif found := _COMMAND.match(line):
                started, command_line, reached = index, found[1], Reached.STARTING
        booting = started is None and reached is not Reached.SILENT
        for rule in _RULES:
            if (not rule.booting or booting) and (match := rule.pattern.fullmatch(line)):
                ended = _proved(rule, lines, index, talking=started is not None or reached is Reached.SILENT)
                finding = Finding(rule.fault, line, index + 1, _filled(rule.cause, match), rule.cure, ended)
                (certain if ended else suspicions).append(finding)
                break
    return BootLog(reached, version, tuple(addresses), command_line, certain[0] if certain else None, tuple(suspicions))


def _clean(line: str) -> str:
    return _ANSI.sub("", line).replace("\0", "").strip()[:_LINE_LIMIT]


def _filled(cause: str, match: re.Match[str]) -> str:
    # Not str.format: what the console said may hold braces.
    for name, value in match.groupdict().items():
        cause = cause.replace("{" + name + "}", (value or "").strip() or "something")
    return cause


def _proved(rule: _Rule, lines: Sequence[str], index: int, *, talking: bool) -> bool:
    """``talking``: a program may already be writing to the console."""
    match rule.proof:
        case _Proof.NEVER:
            return False
        case _Proof.NOTHING_FOLLOWS:
            return not talking or all(not line or _CLOSING.match(line) for line in lines[index + 1 :])
        case _Proof.BACKTRACE:
            return _dies(lines, index, rule.between)


def _dies(lines: Sequence[str], index: int, between: int) -> bool:
    for at in range(index + 1, len(lines)):
        line = lines[at]
        if line in _ABORT_PROOF:
            # Another processor may get a line or two out; a program that talks on has not died.
            after = sum(1 for line in lines[at + 1 :] if line and not _FRAME.match(line) and not _CLOSING.match(line))
            return line == "[registers]" or after <= _STILL_TALKING
        if line:
            between -= 1
            if between < 0:
                return False
    return False


class Stage(StrEnum):
    """What a console shows of a boot while it goes on, in this order."""

    KERNEL = "kernel"
    """OSv said its version."""
    NETWORK = "network"
    """The first interface has its address."""
    BOOTED = "booted"
    """OSv says that it booted (left out with --bootchart, which prints a table instead)."""
    COMMAND_LINE = "command-line"
    """OSv echoed the program's line."""
    OUTPUT = "output"
    """The program wrote its first byte."""


_STAGE_LINES = (
    (Stage.KERNEL, _VERSION),
    (Stage.NETWORK, _ADDRESS),
    (Stage.BOOTED, _BOOTED),
    (Stage.COMMAND_LINE, _COMMAND),
)


class StageWatch:
    """Tells the stages of a boot as its console arrives. Holds one line at most, cut to a length no such line has."""

    def __init__(self) -> None:
        self._rest = b""
        self._seen: set[Stage] = set()

    def feed(self, piece: bytes) -> tuple[Stage, ...]:
        """The stages that ``piece``, the next bytes of the console, shows for the first time."""
        found: list[Stage] = []
        if Stage.OUTPUT in self._seen:
            return ()
        *lines, self._rest = (self._rest + piece).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            found += self._line(_clean(line[:_LINE_LIMIT].decode(errors="replace")))
        # The program may ask a question and wait behind it: its first byte counts, not its first line.
        if Stage.COMMAND_LINE in self._seen and self._rest.strip():
            found += self._first(Stage.OUTPUT)
        self._rest = self._rest[:_LINE_LIMIT]
        return tuple(found)

    def _line(self, line: str) -> list[Stage]:
        if not line:
            return []
        if Stage.COMMAND_LINE in self._seen:
            return self._first(Stage.OUTPUT)
        for stage, pattern in _STAGE_LINES:
            if pattern.match(line):
                return self._first(stage)
        return []

    def _first(self, stage: Stage) -> list[Stage]:
        if stage in self._seen:
            return []
        self._seen.add(stage)
        return [stage]
