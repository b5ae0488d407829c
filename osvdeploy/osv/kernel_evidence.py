"""What in a kernel's bytes shows which fact. Each was looked for in kernels of known making: v0.57.0 and v0.57.0-398,
with all drivers and few, hidden symbols, debug. No function of a stripped kernel has a name, but these survive:

    the first line of the console                     version
    names of C++ classes, which RTTI needs            drivers
    the usage text of OSv's options                   boot options
    names of tracepoints, one per system call         system calls (since v0.57.0-82; before, the version)
    sonames that the linker answers from the kernel   supplied libraries, hidden
    the path of the dummy library it is linked with   debug: build/debug.x64/...
    a few instructions                                TLS reservation, static executables, ROFS's buffers

Where these are not found, the version still tells it for kernels of OSv's own history: ``git describe`` counts the
commits since a release there, and of v0.57.0 itself the list of system calls is kept here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Final

from osvdeploy.osv.kernel_elf import ElfKernel
from osvdeploy.osv.kernel_facts import Driver, KernelFacts, KernelFormat

_VERSION = re.compile(rb"OSv (v?[0-9][!-~]{0,79})\n\0")
_USAGE = b"OSv options:\n"
_FIRST_OPTION = re.compile(rb"[\n\0]  --help +[^\n\0]+\n")
_OPTION = re.compile(rb"  --([A-Za-z0-9_-]{1,40})[ =\[]")
_SYSCALL = re.compile(rb"\0trace_syscall_([a-z0-9_]{1,40})(?=\0)")
_MODE = re.compile(rb"\0build/([a-z]{1,20})\.[a-z0-9_]{1,20}/dummy-shlib\.so\0")
_DESCRIBED = re.compile(r"v([0-9]+)\.([0-9]+)\.([0-9]+)(?:-([0-9]+)-g[0-9a-f]+)?")

_DRIVERS: Final[Mapping[Driver, bytes]] = {
    Driver.VIRTIO_BLK: b"\0N6virtio3blkE\0",
    Driver.VIRTIO_SCSI: b"\0N6virtio4scsiE\0",
    Driver.VIRTIO_NET: b"\0N6virtio3netE\0",
    Driver.VIRTIO_RNG: b"\0N6virtio3rngE\0",
    Driver.VIRTIO_FS: b"\0N6virtio2fsE\0",
    Driver.VIRTIO_MMIO: b"\0N6virtio11mmio_deviceE\0",
    Driver.PCI: b"\0N3pci8functionE\0",
    # ACPI's and pvpanic's have no classes of their own.
    Driver.ACPI: b"AcpiInitializeTables failed: %s",
    Driver.NVME: b"\0N4nvme6driverE\0",
    Driver.ENA: b"\0N3aws3enaE\0",
    # Xen's block and network front ends come with its platform device, and never without each other.
    Driver.XEN_BLK: b"\0N8xenfront15xenplatform_pciE\0",
    Driver.XEN_NET: b"\0N8xenfront15xenplatform_pciE\0",
    Driver.AHCI: b"\0N4ahci3hbaE\0",
    Driver.IDE: b"\0N3ide9ide_driveE\0",
    Driver.PVSCSI: b"\0N3vmw6pvscsiE\0",
    Driver.VMXNET3: b"\0N3vmw7vmxnet3E\0",
    Driver.HYPERV: b"\x0011hypervclock\0",
    Driver.VGA: b"\0N7console10VGAConsoleE\0",
    Driver.PVPANIC: b"pvpanic:AcpiEvaluateObject() failed: %s",
    Driver.HPET: b"\x009hpetclock\0",
}
_ANY_DRIVER = b"\0N2hw9hw_driverE\0"
"""The class that drivers derive from: without its name, RTTI is not there, and absence proves nothing."""

_FILE_SYSTEMS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "rofs": (b"ROFS mounted\0",),
    "zfs": (b"/usr/lib/fs/libsolaris.so\0", b"ZFS mounted\0"),
    "ext": (b"/usr/lib/fs/libext.so\0",),
    "virtiofs": (b"/dev/virtiofs0\0",),
}

_SONAMES: Final = (
    *("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "ld-musl-x86_64.so.1", "libc.musl-x86_64.so.1"),
    *("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libresolv.so.2", "libstdc++.so.6"),
    *("libaio.so.1", "libxenstore.so.3.0", "libcrypt.so.1", "libutil.so"),
    *("libboost_system.so.1.55.0", "libboost_system-mt.so.1.55.0"),
)
"""Every soname that a version of core/elf.cc answered from the kernel."""

_NOT_TAKEN = frozenset({"assign-net"})
"""In the usage text of every version, but parsed by none: OSv powers off on it."""

_SYSCALL_NAMES: Final = {"fstatat": "newfstatat", "utimensat4": "utimensat"}
"""Where a wrapper's name, without long_ and sys_, is not the call's."""

_SYSCALLS_OF_V0_57_0: Final = """
    accept4 bind clock_getres clock_gettime close connect dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait
    eventfd2 exit exit_group fcntl fdatasync flock fstat fsync ftruncate futex get_mempolicy getcwd getdents64
    getgid getpeername getpid getrandom getsockname getsockopt gettid getuid ioctl listen lseek madvise mincore
    mkdir mkdirat mmap munmap nanosleep newfstatat open openat pipe2 pread64 pselect6 pwrite64 read readlinkat
    recvfrom recvmsg renameat rt_sigaction rt_sigprocmask sched_getaffinity sched_setaffinity sched_yield select
    sendmsg sendto set_mempolicy setsockopt sigaltstack socket stat statfs symlinkat tgkill uname unlinkat write
"""
"""The cases of syscall() in its linux.cc on x86_64, which had no tracepoints then."""

# mov $0, %rdx; jmp *%reg: run_entry_point sets what a static program finds at its start (arch/x64).
_STATIC_ENTRY = re.compile(rb"\x48\xc7\xc2\0\0\0\0\x41?\xff[\xe0-\xe7]")
_STATIC_SINCE = 70
"""e154fc59 is v0.57.0-70."""

# mov $4096, %esi and mov $512, %edi: ROFS's superblock is read into a page-aligned contiguous block, and nothing else
# asks for one of this size. Before, its buffer came from malloc.
_CONTIGUOUS = re.compile(rb"\xbe\0\x10\0\0\xbf\0\x02\0\0|\xbf\0\x02\0\0\xbe\0\x10\0\0")
_CONTIGUOUS_SINCE = 172
"""9d44487a is v0.57.0-172."""

_SUB_REACH = 48
"""Bytes behind an address within which the one that is subtracted from it is looked for."""


def looks_like_osv(kernel: ElfKernel) -> bool:
    """Whether it says that it is OSv, by its first line or its options."""
    constants = kernel.part(b".rodata")
    return _VERSION.search(constants) is not None or _USAGE in constants


def facts_of(kernel: ElfKernel, kind: KernelFormat, size: int) -> KernelFacts:
    """What the bytes tell; None where they do not. ``size`` is that of the file the kernel came in."""
    constants, code = kernel.part(b".rodata"), kernel.part(b".text")
    version = _version(constants)
    try:
        symbols = kernel.exported()
    except (ValueError, struct.error):
        symbols = None
    drivers = _drivers(constants)
    supplied = _supplied(constants)
    base, end = kernel.occupied()
    x64 = kernel.arch == "x86_64"
    return KernelFacts(
        format=kind,
        arch=kernel.arch,
        size=size,
        version=version,
        drivers=drivers,
        symbols=symbols or frozenset(),
        hidden=_hidden(symbols, supplied),
        boot_options=_boot_options(constants),
        tls_reservation=_tls_reservation(kernel, code) if x64 else None,
        base=base,
        end=end,
        filesystems=_filesystems(constants, drivers),
        syscalls=_syscalls(constants, version, kernel.arch),
        static_executables=_shown(x64 and _STATIC_ENTRY.search(code) is not None, version, _STATIC_SINCE),
        debug=_debug(kernel),
        contiguous_mount_buffers=_shown(x64 and _CONTIGUOUS.search(code) is not None, version, _CONTIGUOUS_SINCE),
        supplied=supplied,
    )


def _version(constants: bytes) -> str | None:
    found = _VERSION.search(constants)
    return None if found is None else found[1].decode("ascii")


def _drivers(constants: bytes) -> frozenset[Driver] | None:
    if _ANY_DRIVER not in constants:
        return None
    return frozenset(driver for driver, trace in _DRIVERS.items() if trace in constants)


def _supplied(constants: bytes) -> frozenset[str] | None:
    found = frozenset(name for name in _SONAMES if b"\0" + name.encode() + b"\0" in constants)
    return found if "libc.so.6" in found else None


def _hidden(symbols: frozenset[bytes] | None, supplied: frozenset[str] | None) -> bool | None:
    if symbols:
        # What a kernel with all symbols exports of libstdc++ are thousands of names.
        return not any(name.startswith((b"_ZNSt", b"_ZNKSt", b"_ZSt")) for name in symbols)
    return None if supplied is None else "libstdc++.so.6" not in supplied


def _boot_options(constants: bytes) -> frozenset[str] | None:
    # One literal in newer versions, one for each line in older ones: lines and NULs, up to what is neither. The heading
    # is no place to begin at: where lines are literals, the linker sorts it away from them.
    start = _FIRST_OPTION.search(constants)
    if start is None:
        return None
    found = set()
    for line in re.split(rb"[\n\0]+", constants[start.end() : start.end() + 16_384]):
        if (option := _OPTION.match(line + b" ")) is not None:
            found.add(option[1].decode("ascii"))
        elif line and not line.startswith(b"      "):
            break
    return frozenset(found - _NOT_TAKEN | {"help"})


def _filesystems(constants: bytes, drivers: frozenset[Driver] | None) -> frozenset[str] | None:
    found = {name for name, traces in _FILE_SYSTEMS.items() if all(trace in constants for trace in traces)}
    if not found:
        return None
    if drivers is not None and Driver.VIRTIO_FS not in drivers:
        found.discard("virtiofs")
    return frozenset(found | {"ramfs"})


def _syscalls(constants: bytes, version: str | None, arch: str) -> frozenset[str] | None:
    names = (found[1].decode("ascii") for found in _SYSCALL.finditer(constants))
    bare = (name.removeprefix("long_").removeprefix("sys_") for name in names)
    if found := frozenset(_SYSCALL_NAMES.get(name, name) for name in bare):
        return found
    return frozenset(_SYSCALLS_OF_V0_57_0.split()) if (version, arch) == ("v0.57.0", "x86_64") else None


def _debug(kernel: ElfKernel) -> bool | None:
    found = _MODE.search(kernel.part(b".dynstr"))
    return None if found is None else found[1] == b"debug"


def _tls_reservation(kernel: ElfKernel, code: bytes) -> int | None:
    """What core/elf.cc compares a program's TLS with: the end of the kernel's own less where the reservation begins.
    Both are constants of one subtraction; the end is known, the beginning is the only other address in the template."""
    tls = kernel.tls()
    if tls is None or not 0 < tls.memsz < 1 << 24 or tls.address + tls.memsz >= 1 << 32:
        return None
    end = tls.address + tls.memsz
    wanted, found, at = struct.pack("<I", end), set(), -1
    for _ in range(64):
        if (at := code.find(wanted, at + 1)) < 0:
            break
        behind = code[at + 4 : at + 4 + _SUB_REACH]
        for offset in range(len(behind) - 3):
            value = int.from_bytes(behind[offset : offset + 4], "little")
            if tls.address + tls.filesz <= value < end:
                found.add(end - value)
    return found.pop() if len(found) == 1 else None


def _shown(seen: bool, version: str | None, since: int) -> bool | None:
    """Whether a change is in: seen in the code, or told by the version, which is ``since`` commits behind v0.57.0."""
    if seen:
        return True
    described = None if version is None else _DESCRIBED.fullmatch(version)
    if described is None:
        return None
    release, commits = tuple(int(part) for part in described.groups()[:3]), int(described[4] or 0)
    return release > (0, 57, 0) or (release == (0, 57, 0) and commits >= since)
