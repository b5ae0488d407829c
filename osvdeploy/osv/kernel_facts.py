"""What is known of a kernel from its own bytes, as a value: version, drivers, symbols, boot options."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class KernelFormat(StrEnum):
    """How a kernel is packed."""

    LOADER_IMAGE = "loader.img"
    """Boot sector and compressed kernel, from which a BIOS disk is composed."""
    ELF = "elf"
    """loader-stripped.elf: for Firecracker and QEMU's ``-kernel``; no disk can be composed of it."""
    VMLINUZ = "vmlinuz"
    """vmlinuz.bin: the same behind a stub that follows Linux's boot protocol."""
    ARM_IMAGE = "arm64-image"
    """preboot.bin and the kernel behind a Linux arm64 Image header."""


class Driver(StrEnum):
    """A device driver linked into a kernel (OSv: conf/profiles, drivers/)."""

    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"
    VIRTIO_NET = "virtio-net"
    VIRTIO_RNG = "virtio-rng"
    VIRTIO_FS = "virtio-fs"
    VIRTIO_MMIO = "virtio-mmio"
    PCI = "pci"
    ACPI = "acpi"
    NVME = "nvme"
    ENA = "ena"
    XEN_BLK = "xen-blkfront"
    XEN_NET = "xen-netfront"
    AHCI = "ahci"
    IDE = "ide"
    PVSCSI = "pvscsi"
    VMXNET3 = "vmxnet3"
    HYPERV = "hyperv"
    VGA = "vga"
    PVPANIC = "pvpanic"
    HPET = "hpet"


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """Everything that a kernel's bytes tell. None means that they do not tell, never that there is none.

    ``arch`` is "x86_64" or "aarch64". ``version`` is what OSv prints as its first line ("v0.57.0-398-g0e34e4dc").
    ``symbols`` are the names that programs can bind to; ``hidden``: only those of the C library's list, without
    libstdc++ (conf_hide_symbols=1). ``supplied`` are the sonames for which programs get the kernel itself.
    ``boot_options`` are the names, without dashes, that it takes. ``tls_reservation`` is what it has for a program's
    TLS, in bytes: app_local_exec_tls_size and what alignment added (512 makes 536 or 552 in v0.57.0-398). ``base`` and
    ``end`` are the addresses that the kernel is linked to occupy. ``filesystems`` are those it can mount as root; zfs
    and ext need their library in the image or in the kernel. ``syscalls``: the names of the calls that it answers.
    ``static_executables``: whether it runs programs that have no dynamic section. ``debug``: built with mode=debug.
    ``contiguous_mount_buffers``: whether ROFS reads its tables into contiguous memory, which Xen's block device needs.
    ``faults_through_thread_pointer``: whether a fault is handled by reading first where a program's own thread pointer
    leads (osvdeploy.osv.golang).
    """

    format: KernelFormat
    arch: str
    size: int
    version: str | None = None
    drivers: frozenset[Driver] | None = None
    symbols: frozenset[bytes] = field(default=frozenset(), repr=False)
    hidden: bool | None = None
    boot_options: frozenset[str] | None = None
    tls_reservation: int | None = None
    base: int | None = None
    end: int | None = None
    filesystems: frozenset[str] | None = None
    syscalls: frozenset[str] | None = None
    static_executables: bool | None = None
    debug: bool | None = None
    contiguous_mount_buffers: bool | None = None
    supplied: frozenset[str] | None = None
    faults_through_thread_pointer: bool | None = None
