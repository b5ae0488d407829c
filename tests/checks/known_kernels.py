"""Kernels whose facts are known from upstream's build files, and from reading real ones."""

from __future__ import annotations

from osvdeploy.osv.kernel_facts import Driver, KernelFacts, KernelFormat

VIRTIO = frozenset({Driver.VIRTIO_BLK, Driver.VIRTIO_SCSI, Driver.VIRTIO_FS, Driver.VIRTIO_NET, Driver.VIRTIO_RNG})
COMMON = frozenset({Driver.PCI, Driver.ACPI, Driver.PVPANIC, Driver.HPET})
RELEASED = VIRTIO | COMMON | {
    Driver.VIRTIO_MMIO, Driver.XEN_BLK, Driver.XEN_NET, Driver.AHCI, Driver.IDE, Driver.PVSCSI, Driver.VMXNET3,
    Driver.HYPERV, Driver.VGA,
}  # fmt: skip
"""conf/profiles/x64/all.mk at v0.57.0."""

_OPTIONS = """
    bootchart console cwd defaultgw delay disable_rofs_cache env ip maxnic mount-fs nameserver noinit nomount nopci
    nopivot norandom noshutdown power-off-on-abort redirect rootfs sampler trace trace-backtrace verbose
"""
OPTIONS = frozenset(_OPTIONS.split())


def facts(drivers: frozenset[Driver] | None, **known: object) -> KernelFacts:
    base: dict[str, object] = {"format": KernelFormat.LOADER_IMAGE, "arch": "x86_64", "size": 3_801_088}
    return KernelFacts(**{**base, "drivers": drivers, **known})  # type: ignore[arg-type]  # the caller names fields


V0_57 = facts(
    RELEASED,
    version="v0.57.0",
    hidden=False,
    boot_options=OPTIONS,
    filesystems=frozenset({"rofs", "virtiofs", "ramfs", "zfs"}),
    static_executables=False,
    contiguous_mount_buffers=False,
)
MASTER = facts(
    RELEASED | {Driver.NVME, Driver.ENA},
    version="v0.57.0-398-g0e34e4dc",
    hidden=False,
    boot_options=OPTIONS | {"strace", "trace-list"},
    filesystems=frozenset({"rofs", "virtiofs", "ext", "ramfs", "zfs"}),
    static_executables=True,
    contiguous_mount_buffers=True,
    base=0x40200000,
    end=0x40200000 + 6_891_176,
)
AWS_PROFILE = facts(COMMON | {Driver.ENA}, version=MASTER.version, contiguous_mount_buffers=True)
MICROVM = facts(
    frozenset({Driver.VIRTIO_MMIO, Driver.VIRTIO_BLK, Driver.VIRTIO_NET}),
    version="v0.57.0",
    contiguous_mount_buffers=False,
)

KNOWN = {
    "v0.57.0, the last release (also with zfs, hidden)": V0_57,
    "v0.57.0 microvm": MICROVM,
    "later sources, default driver profile": MASTER,
    "later sources, driver profile `aws`": AWS_PROFILE,
}
"""As README's table names them."""
