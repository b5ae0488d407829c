"""Will this kernel boot there, and be reached: kernel, place, boot options and disk against each other, before anything
is made.

Every function is pure. What the bytes of a kernel do not tell (None) never makes an error: the rule warns or is silent.
What is only believed of a place warns, where the same thing known would refuse.

Sources are OSv's own files and issues, each named in the finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from osvdeploy.checks.finding import Finding, Severity
from osvdeploy.checks.places import TYPICAL, Certainty, Place
from osvdeploy.cloud.interfaces import BootMode, Bus, DiskInterface, Hypervisor, NetworkInterface
from osvdeploy.osv.disk import PARTITION_ALIGNMENT
from osvdeploy.osv.filetree import FileTree, Symlink
from osvdeploy.osv.kernel_facts import Driver, KernelFacts, KernelFormat
from osvdeploy.sizes import MIB, format_size

RULES: Final[Mapping[str, str]] = {
    "architecture": "The machine type has processors that the image is not for.",
    "bare-metal": "A machine without a hypervisor, where nobody is known to have run OSv.",
    "boot-mode": "The machine type starts only images that boot by UEFI, which OSv does not.",
    "boot-option": "A boot option that this kernel does not take: it prints its usage and powers off.",
    "bus-driver": "The kernel cannot look for devices where this machine has them (PCI, virtio-mmio).",
    "cpu-count": "More processors than OSv takes.",
    "disk-driver": "The kernel has no driver for the disk that this machine boots from.",
    "disk-size": "The disk is smaller than the kernel and the file system on it.",
    "instance-store": "The machine has disks of its own, and OSv may take one of them for its root.",
    "kernel-format": "The kernel is packed otherwise than this place starts one.",
    "machine-family": "The machine type's family is not in osvdeploy's table: what it offers is guessed from its name.",
    "memory": "The machine has less memory than the kernel and the image's tables take.",
    "network-driver": "The kernel has no driver for this machine's network card.",
    "nitro-traffic": "On Nitro this kernel is known to lose inbound traffic and to stop on larger machines.",
    "nopci": "The boot option nopci on a machine whose disk and network are PCI devices.",
    "rofs-cache": "The image's files are larger than the machine's memory, and OSv never lets go of what it has read.",
    "rofs-on-xen": "This kernel's ROFS cannot be mounted from a Xen disk.",
    "root-file-system": "The kernel cannot mount the image's file system.",
    "unknown-kernel": "What the kernel drives cannot be told.",
}
"""Each rule's name and what it says, in a line."""

MAX_CPUS = 64
"""OSv: one bit of a long for each processor (include/osv/sched.hh, max_cpus); with more it stops at once."""

LEAST_MEMORY = 11 * MIB
"""What OSv's README names as the least for a program that only says hello, kernel included."""

_DISK_DRIVERS = {
    DiskInterface.NVME: Driver.NVME,
    DiskInterface.XEN: Driver.XEN_BLK,
    DiskInterface.VIRTIO_BLK: Driver.VIRTIO_BLK,
    DiskInterface.VIRTIO_SCSI: Driver.VIRTIO_SCSI,
    DiskInterface.AHCI: Driver.AHCI,
}
_NETWORK_DRIVERS = {
    NetworkInterface.ENA: Driver.ENA,
    NetworkInterface.XEN: Driver.XEN_NET,
    NetworkInterface.VIRTIO_NET: Driver.VIRTIO_NET,
}
"""gVNIC and IDPF are not here: no OSv drives them."""

_PROFILES = {
    Driver.NVME: "a kernel later than v0.57.0 of the default driver profile, or with conf_drivers_nvme=1",
    Driver.ENA: "a kernel later than v0.57.0 of the default driver profile, or with conf_drivers_ena=1",
    Driver.XEN_BLK: "a kernel of the default driver profile, or with conf_drivers_xen=1",
    Driver.XEN_NET: "a kernel of the default driver profile, or with conf_drivers_xen=1",
    Driver.VIRTIO_BLK: "a kernel of the default driver profile, or with conf_drivers_virtio_blk=1",
    Driver.VIRTIO_SCSI: "a kernel of the default driver profile, or with conf_drivers_virtio_scsi=1",
    Driver.AHCI: "a kernel of the default driver profile, or with conf_drivers_ahci=1",
    Driver.VIRTIO_NET: "a kernel of the default driver profile, or with conf_drivers_virtio_net=1",
}
_ROOT_ELSEWHERE = frozenset({"ramfs", "virtiofs"})
"""Root file systems that are on no disk."""
_BIOS_FORMATS = frozenset({KernelFormat.LOADER_IMAGE})


@dataclass(frozen=True, slots=True)
class Contents:
    """How large an image's file system is, in bytes, without reading a file.

    ``tables`` are what ROFS keeps in memory from the mount on. ``least`` and ``most`` bound the files' blocks: equal
    files may share theirs, and files of different sizes are not equal.
    """

    tables: int
    least: int
    most: int

    @classmethod
    def of(cls, tree: FileTree) -> Contents:
        """Measured from names, targets and sizes alone."""
        # fs/rofs/rofs.hh: 32 bytes an inode, 10 and the name a directory entry, 2 and the target a link.
        tables, most = 32, 0
        sizes: set[int] = set()
        for path, entry in tree.entries.items():
            if path == b"/":
                continue
            tables += 42 + len(path) - path.rfind(b"/") - 1
            if isinstance(entry, Symlink):
                tables += 2 + len(entry.target)
            elif size := getattr(entry, "size", 0):
                most += _blocks(size)
                sizes.add(size)
        return cls(tables, sum(_blocks(size) for size in sizes), most)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image before it is built.

    ``options`` are its boot options, ``fs`` its root file system. ``disk`` is the size that was asked for, None for the
    smallest that holds it. ``kernel_size`` is that of the loader.img. ``contents`` None: the files were not looked at.
    """

    options: tuple[tuple[str, str | None], ...] = ()
    fs: str = "rofs"
    arch: str = "x86_64"
    disk: int | None = None
    kernel_size: int = 0
    contents: Contents | None = None


def preflight(kernel: KernelFacts | None, image: ImageFacts, place: Place | None) -> list[Finding]:
    """All that is wrong with this image of this kernel at this place; without a place, what is wrong everywhere.

    ``kernel`` is None where the payload is no OSv, or none that could be read.
    """
    found = list(_anywhere(kernel, image))
    if place is not None:
        found += serves(kernel, place, fs=image.fs, arch=image.arch)
        found += _there(kernel, image, place)
    return found


# -------------------------------------------------------------------------------------------- the image, anywhere


def _anywhere(kernel: KernelFacts | None, image: ImageFacts) -> Iterator[Finding]:
    if kernel is not None:
        yield from _boot_options(kernel, image)
        if kernel.filesystems is not None and image.fs not in kernel.filesystems:
            yield Finding(
                "root-file-system",
                Severity.ERROR,
                f"fs {image.fs}",
                f"this kernel mounts {_listed(kernel.filesystems)} as root, not {image.fs}",
                "OSv would end with `Failed to load object` and not say that no root was mounted",
                f"set fs under [image] to one of these, or take a kernel built with fs={image.fs}",
                "OSv: loader.cc, scripts/build",
            )
    yield from _disk_size(image)


def _boot_options(kernel: KernelFacts, image: ImageFacts) -> Iterator[Finding]:
    if kernel.boot_options is None:
        return
    version = f" ({kernel.version})" if kernel.version else ""
    for name in dict.fromkeys(name for name, _ in image.options):
        # It stands in the list of some kernels' usage, and is parsed by none of them.
        if name in kernel.boot_options and name != "assign-net":
            continue
        import difflib

        near = difflib.get_close_matches(name, sorted(kernel.boot_options - {name}), n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        yield Finding(
            "boot-option",
            Severity.ERROR,
            f"boot option {name}",
            f"this kernel{version} does not take it",
            "OSv prints its usage and powers off",
            f"take it out of [image.boot]{meant}, or take a kernel that knows it",
            "OSv: loader.cc, parse_options",
        )


def _disk_size(image: ImageFacts) -> Iterator[Finding]:
    if image.disk is None or image.contents is None:
        return
    start = -(-image.kernel_size // PARTITION_ALIGNMENT) * PARTITION_ALIGNMENT
    least, most = (start + image.contents.tables + size for size in (image.contents.least, image.contents.most))
    if most <= image.disk:
        return
    sure = least > image.disk
    yield Finding(
        "disk-size",
        Severity.ERROR if sure else Severity.WARNING,
        f"size {format_size(image.disk)}",
        f"kernel and files take {format_size(least if sure else most)}{'' if sure else ' where no two are equal'}",
        "the file system would not fit on its disk",
        "raise size under [image], or leave it out: the smallest disk that holds it is taken",
        "OSv's disk layout: scripts/build",
    )


# ------------------------------------------------------------------------------------------- the kernel at a place


def serves(kernel: KernelFacts | None, place: Place, *, fs: str = "rofs", arch: str = "x86_64") -> list[Finding]:
    """What keeps this kernel from booting and being reached there. Nothing found: it serves, as far as it is known.

    ``arch`` is the image's, for a payload that is no OSv; a kernel knows its own.
    """
    arch = arch if kernel is None else kernel.arch
    if arch not in place.architectures:
        return [_architecture(arch, place)]
    return [*_start(kernel, place), *_drivers(kernel, place, fs), *_machine(kernel, place)]


def _architecture(arch: str, place: Place) -> Finding:
    arm = "aarch64" in place.architectures and place.cloud in ("aws", "gcp")
    return _at(
        place,
        "architecture",
        f"has {_listed(place.architectures)} processors, and the image is for {arch}",
        "OSv has neither UEFI nor ACPI on aarch64, so it does not boot on a cloud's arm machines either way"
        if arm
        else "the machine cannot run the kernel",
        _other_type(place),
        "OSv issue 1295" if arm else place.source,
    )


def _other_type(place: Place) -> str:
    match place.cloud:
        case "aws":
            return "choose an x86_64 type of Intel or AMD, such as t3.small"
        case "gcp":
            return "choose an x86_64 type of an N1, N2 or E2 series"
        case _:
            return "take a kernel of that architecture"


def _start(kernel: KernelFacts | None, place: Place) -> Iterator[Finding]:
    bios = kernel is None or kernel.format in _BIOS_FORMATS
    if bios and BootMode.BIOS in place.boot_modes:
        return
    if not bios and BootMode.DIRECT in place.boot_modes:
        return
    if bios and BootMode.UEFI in place.boot_modes:
        yield _at(
            place,
            "boot-mode",
            "starts images by UEFI alone",
            "OSv boots from a disk by BIOS and has no UEFI loader",
            _other_type(place),
            "OSv issue 1098; EC2 user guide, boot modes",
        )
    elif bios:
        yield _at(
            place,
            "kernel-format",
            "starts a kernel file of its own, and this is a loader.img",
            "a loader.img is a boot sector and a packed kernel for a BIOS",
            "use loader-stripped.elf of the same build there",
            "OSv: scripts/firecracker.py",
        )
    else:
        assert kernel is not None
        yield _at(
            place,
            "kernel-format",
            f"boots from a disk, and this is {'an' if kernel.format is KernelFormat.ELF else 'a'} {kernel.format} file",
            "a disk needs the boot sector and the loader that only a loader.img has",
            "use loader.img of the same build (osv-loader.qemu.x86_64 of a release)",
            "OSv: Makefile, fastlz/lzloader.cc",
        )


def _drivers(kernel: KernelFacts | None, place: Place, fs: str) -> Iterator[Finding]:
    if kernel is None or kernel.drivers is None:
        yield Finding(
            "unknown-kernel",
            Severity.WARNING,
            "kernel",
            "its bytes do not tell which devices it drives" if kernel else "it is no OSv that osvdeploy can read",
            f"whether it finds the {_listed(place.disks)} disk and the {_listed(place.networks)} card of {place} "
            "shows only when it boots there",
            "nothing, if the kernel was made for that machine; else use OSv's loader.img",
            "osvdeploy kernel reader",
        )
        return
    bus = Driver.PCI if place.bus is Bus.PCI else Driver.VIRTIO_MMIO
    if bus not in kernel.drivers:
        pci = place.bus is Bus.PCI
        version = f" ({kernel.version})" if kernel.version else ""
        microvm = pci and Driver.VIRTIO_MMIO in kernel.drivers
        yield _at(
            place,
            "bus-driver",
            f"has its disk and network on {'PCI' if pci else 'virtio-mmio'}, "
            f"and this kernel{version} does not look there"
            f"{': it is for Firecracker and QEMU microvm' if microvm else ''}; "
            f"its drivers are {', '.join(sorted(kernel.drivers)) or 'none'}",
            "OSv finds neither disk nor network",
            "use a kernel of the default driver profile"
            + (
                " (loader.img, osv-loader.qemu.x86_64 of a release; not its `microvm` loaders)"
                if pci
                else ", or microvm"
            ),
            "OSv: conf/profiles/x64",
        )
        return
    disks = {_DISK_DRIVERS[each] for each in place.disks}
    if fs not in _ROOT_ELSEWHERE and not disks & kernel.drivers:
        yield _no_driver(kernel, place, "disk-driver", "disk", place.disks, disks)
    networks = {_NETWORK_DRIVERS[each] for each in place.networks if each in _NETWORK_DRIVERS}
    if not networks & kernel.drivers:
        yield _no_driver(kernel, place, "network-driver", "network card", place.networks, networks)
    if place.hypervisor is Hypervisor.XEN and fs.startswith("rofs") and not kernel.contiguous_mount_buffers:
        yield _rofs_on_xen(kernel, place)
    if place.hypervisor is Hypervisor.NITRO and {Driver.NVME, Driver.ENA} <= kernel.drivers:
        yield Finding(
            "nitro-traffic",
            Severity.WARNING,
            str(place),
            "the ENA and NVMe drivers of OSv's own sources have known faults on Nitro",
            "inbound TCP may be dropped while the link looks well, and on machines with many processors NVMe stops the "
            "kernel: it wants one interrupt for each",
            "use a kernel with the fixes of OSv pull request 1471 and let a health check over TCP decide; then waive "
            "this rule in the spec",
            "OSv pull request 1471; drivers/nvme.cc, enable_msix",
        )


def _no_driver(
    kernel: KernelFacts,
    place: Place,
    rule: str,
    what: str,
    interfaces: frozenset[DiskInterface] | frozenset[NetworkInterface],
    drivers: set[Driver],
) -> Finding:
    version = f" ({kernel.version})" if kernel.version else ""
    if not drivers:
        cure = "choose a type with a virtio-net card, of an N1, N2 or E2 series" if place.cloud == "gcp" else ""
        return _at(
            place,
            rule,
            f"has a {_listed(interfaces)} card, which no OSv drives",
            "the machine would have no network",
            cure or "choose another machine type",
            "OSv: drivers/",
        )
    later = drivers & {Driver.NVME, Driver.ENA}
    return _at(
        place,
        rule,
        f"has {_article(interfaces)} {_listed(interfaces)}{'' if _says(interfaces, what) else f' {what}'}, "
        f"and this kernel{version} has no driver for it",
        "OSv would find no root file system" if rule == "disk-driver" else "the machine would have no network",
        "use " + " or ".join(dict.fromkeys(_PROFILES[each] for each in sorted(drivers))),
        "OSv: drivers/, conf/profiles/x64" + ("; NVMe since 707bf672, ENA since b309abbe" if later else ""),
    )


def _article(interfaces: frozenset[DiskInterface] | frozenset[NetworkInterface]) -> str:
    return "an" if min(interfaces)[0] in "EN" else "a"


def _says(interfaces: frozenset[DiskInterface] | frozenset[NetworkInterface], what: str) -> bool:
    return all(each.endswith("device") for each in interfaces)


def _rofs_on_xen(kernel: KernelFacts, place: Place) -> Finding:
    known = kernel.contiguous_mount_buffers is False
    finding = _at(
        place,
        "rofs-on-xen",
        "has a Xen disk, and this kernel's ROFS reads its tables into memory that Xen's block driver cannot fill"
        if known
        else "has a Xen disk; whether this kernel's ROFS can be mounted from it cannot be told",
        "the kernel stops on an assertion while it mounts its root",
        "use a kernel of OSv's sources since 2024-07-30 (9d44487a)",
        "OSv issue 1033",
    )
    return finding if known else replace(finding, severity=Severity.WARNING)


def _machine(kernel: KernelFacts | None, place: Place) -> Iterator[Finding]:
    if place.certainty is Certainty.BELIEVED:
        yield Finding(
            "machine-family",
            Severity.WARNING,
            str(place),
            f"taken for {_kind(place)}, by its name alone",
            "a wrong guess here lets through what will not boot, or warns of what would",
            "give credentials and ask the cloud: publish and deploy do",
            place.source,
        )
    if kernel is None:
        return
    if place.cpus is not None and place.cpus > MAX_CPUS:
        yield _at(
            place,
            "cpu-count",
            f"has {place.cpus} processors, and OSv takes {MAX_CPUS}",
            "the kernel stops at once: Too many cpus",
            f"choose a smaller size: {MAX_CPUS} virtual processors are the most (16xlarge)",
            "OSv: loader.cc, include/osv/sched.hh",
        )
    if place.hypervisor is Hypervisor.METAL:
        yield Finding(
            "bare-metal",
            Severity.WARNING,
            str(place),
            "is the hardware itself, without a hypervisor",
            "nobody is known to have run OSv there",
            "choose a size that is not metal",
            "OSv's wiki names virtual machines alone",
        )
    if place.local_nvme:
        yield Finding(
            "instance-store",
            Severity.WARNING,
            str(place),
            "has NVMe disks of its own beside the one it boots from",
            "OSv numbers disks in the order it finds them and mounts its root from the first (vblk0)",
            "choose a type without a local disk, such as m5 for m5d",
            "OSv: loader.cc, drivers/nvme.cc",
        )


def _kind(place: Place) -> str:
    return f"{place.hypervisor.title()} with {_listed(place.architectures)} processors"


# --------------------------------------------------------------------------------------------- the image at a place


def _there(kernel: KernelFacts | None, image: ImageFacts, place: Place) -> Iterator[Finding]:
    if place.bus is Bus.PCI and any(name == "nopci" for name, _ in image.options):
        finding = _at(
            place,
            "nopci",
            "has its disk and network on PCI, and the boot option nopci keeps OSv from looking there",
            "OSv finds neither disk nor network",
            "take nopci out of [image.boot]; it is for Firecracker and microvm alone",
            "OSv: arch/x64/arch-setup.cc",
        )
        yield finding if kernel is not None else replace(finding, severity=Severity.WARNING)
    if kernel is None or place.memory is None:
        return
    span = kernel.end - kernel.base if kernel.end is not None and kernel.base is not None else kernel.size
    tables = image.contents.tables if image.contents is not None else 0
    need = max(LEAST_MEMORY, span) + tables
    if need > place.memory:
        yield _at(
            place,
            "memory",
            f"has {format_size(place.memory)} of memory, and kernel and tables alone take {format_size(need)}",
            "OSv would stop, or hang without a word, before the program starts",
            "choose a machine type with more memory, or put fewer files into the image",
            "OSv: README; fs/rofs/rofs_vfsops.cc",
        )
    elif (
        image.contents is not None
        and image.fs.startswith("rofs")
        and image.contents.least > place.memory - need
        and not any(name == "disable_rofs_cache" for name, _ in image.options)
    ):
        yield Finding(
            "rofs-cache",
            Severity.WARNING,
            str(place),
            f"has {format_size(place.memory)} of memory, and the image's files are {format_size(image.contents.least)}",
            "OSv keeps what it has read of ROFS for ever: a program that reads it all runs out of memory",
            "choose a machine type with more memory, or set disable_rofs_cache under [image.boot]",
            "OSv: fs/rofs/rofs_cache.cc",
        )


def _at(place: Place, rule: str, what: str, why: str, cure: str, source: str) -> Finding:
    """A finding that is as certain as what is known of the place."""
    severity = Severity.ERROR if place.certainty is Certainty.KNOWN else Severity.WARNING
    return Finding(rule, severity, str(place), what, why, cure, source)


def _blocks(size: int) -> int:
    return -(-size // 512) * 512


def _listed(names: frozenset[str] | frozenset[DiskInterface] | frozenset[NetworkInterface]) -> str:
    return " or ".join(sorted(names))


# -------------------------------------------------------------------------------------- which kernel serves where


class Verdict(StrEnum):
    """How a kernel fares at a place."""

    YES = "yes"
    UNPROVED = "unproved"
    """Nothing is known to keep it from serving, but something is believed to."""
    NO = "no"
    UNKNOWN = "unknown"
    """Its bytes do not tell what it drives."""


@dataclass(frozen=True, slots=True)
class Served:
    """One cell of the table: a kind of place, how a kernel fares there, and what was found."""

    place: str
    verdict: Verdict
    findings: tuple[Finding, ...]

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that speak against it, each once."""
        return tuple(dict.fromkeys(finding.rule for finding in self.findings))

    def __str__(self) -> str:
        if self.verdict in (Verdict.YES, Verdict.UNKNOWN):
            return self.verdict.value
        return f"{self.verdict}: {', '.join(self.rules)}"


def where_it_serves(kernel: KernelFacts | None) -> tuple[Served, ...]:
    """How a kernel fares at one place of each kind, in a fixed order."""
    return tuple(_served(name, serves(kernel, place)) for name, place in TYPICAL.items())


def _served(name: str, findings: list[Finding]) -> Served:
    errors = tuple(finding for finding in findings if finding.severity is Severity.ERROR)
    if errors:
        return Served(name, Verdict.NO, errors)
    if any(finding.rule == "unknown-kernel" for finding in findings):
        return Served(name, Verdict.UNKNOWN, tuple(findings))
    return Served(name, Verdict.UNPROVED if findings else Verdict.YES, tuple(findings))


def serving_table(kernels: Mapping[str, KernelFacts]) -> list[tuple[str, ...]]:
    """A row for each kernel: its name, and a word on each kind of place, in the order of ``TYPICAL``.

    A release or build has a kernel in several files; each place is judged with the one that it starts.
    """
    return [
        (name, *(str(_served(title, serves(as_started(facts, place), place))) for title, place in TYPICAL.items()))
        for name, facts in kernels.items()
    ]


def as_started(kernel: KernelFacts, place: Place) -> KernelFacts:
    """The same build's kernel in the file that a place starts: loader.img from a disk, loader-stripped.elf without."""
    return replace(kernel, format=KernelFormat.LOADER_IMAGE if BootMode.BIOS in place.boot_modes else KernelFormat.ELF)
