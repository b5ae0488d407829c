"""What the places offer that a guest can be started in: disk, network, boot mode, processors, as values.

A cloud that is asked answers for a machine type itself (:func:`from_cloud`). Without credentials the type's name has to
do. What families written out here offer is known; what another name suggests is believed, and a rule that stands on it
warns.

Sources: EC2 instance types guide, "Specifications" and "Instances built on the AWS Nitro System"; EC2 user guide,
"Instance type boot modes"; Compute Engine guide, "Machine families", "Choose a network interface", "Choose a disk
interface"; what ``DescribeInstanceTypes`` answers, against which ``tests/checks/test_places.py`` holds the rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from osvdeploy.cloud.interfaces import BootMode, Bus, DiskInterface, Hypervisor, MachineType, NetworkInterface


class Certainty(StrEnum):
    """How well it is known what a place offers."""

    KNOWN = "known"
    BELIEVED = "believed"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a guest is started, as far as it matters to a kernel.

    ``cloud`` is "aws", "gcp", "qemu" or "firecracker", ``machine`` the cloud's name of the machine type. A guest that
    drives any one of ``disks`` finds its boot disk, any one of ``networks`` its network. None means that nobody said:
    ``cpus`` (virtual processors) and ``memory`` (bytes) offline, ``local_nvme`` (NVMe disks of its own beside the boot
    disk) where a name does not tell. ``certainty`` is that of all of it, ``source`` where it is from.
    """

    cloud: str
    machine: str
    hypervisor: Hypervisor
    architectures: frozenset[str]
    boot_modes: frozenset[BootMode]
    disks: frozenset[DiskInterface]
    networks: frozenset[NetworkInterface]
    bus: Bus = Bus.PCI
    cpus: int | None = None
    memory: int | None = None
    local_nvme: bool | None = None
    certainty: Certainty = Certainty.KNOWN
    source: str = ""

    def __str__(self) -> str:
        return self.machine


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_X86, _ARM = frozenset({"x86_64"}), frozenset({"aarch64"})
_BIOS, _UEFI, _DIRECT = frozenset({BootMode.BIOS}), frozenset({BootMode.UEFI}), frozenset({BootMode.DIRECT})


def from_cloud(cloud: str, machine: MachineType, source: str = "the cloud's own answer") -> Place:
    """The place that a cloud described itself."""
    return Place(
        cloud=cloud,
        machine=machine.name,
        hypervisor=machine.hypervisor,
        architectures=machine.architectures,
        boot_modes=machine.boot_modes,
        disks=machine.disks,
        networks=machine.networks,
        cpus=machine.cpus,
        memory=machine.memory,
        local_nvme=machine.local_nvme,
        source=source,
    )


# -------------------------------------------------------------------------------------------------------------- AWS

_EC2 = "EC2 instance types guide"

XEN_FAMILIES: Final = _words("c1 c3 c4 d2 g2 g3 g3s h1 i2 i3 m1 m2 m3 m4 p2 p3 r3 r4 t1 t2 x1 x1e f1")
"""All there will ever be: what came after them is Nitro. i3.metal and the like are metal all the same."""

_XEN_WITH_ENA = _words("f1 g3 g3s h1 i3 p2 p3 r4 x1 x1e")
_XEN_WITH_NVME = frozenset({"f1", "i3"})

_LEGACY_ONLY = _words("p4d p4de trn1 trn1n u-3tb1 u-6tb1 u-9tb1 u-12tb1 u-18tb1 u-24tb1 vt1")
"""Nitro families that boot by BIOS alone: no trouble to OSv, and listed so that the rules can be held to the API."""

KNOWN_FAMILIES: Final = _words("""
    a1 c5 c5a c5ad c5d c5n c6a c6g c6gd c6gn c6i c6id c6in c7a c7g c7gd c7gn c7i c7i-flex c8a c8g c8gb c8gd c8gn c8i
    c8i-flex c8ib c8id c8in c8ine c9g c9gd d3 d3en dl1 dl2q f2 g4ad g4dn g5 g5g g6 g6e g6f g7 g7e gr6 gr6f hpc6a
    hpc6id hpc7a hpc7g hpc8a i3en i4g i4i i7i i7ie i8g i8ge im4gn inf1 inf2 is4gen m5 m5a m5ad m5d m5dn m5n m5zn m6a
    m6g m6gd m6i m6id m6idn m6in m7a m7g m7gd m7i m7i-flex m8a m8azn m8g m8gb m8gd m8gn m8i m8i-flex m8ib m8id m8idb
    m8idn m8in m8ine m9g m9gd p3dn p4d p4de p5 p5e p5en p6-b200 p6-b300 r5 r5a r5ad r5b r5d r5dn r5n r6a r6g r6gd r6i
    r6id r6idn r6in r7a r7g r7gd r7i r7iz r8a r8g r8gb r8gd r8gn r8i r8i-flex r8ib r8id r8idb r8idn r8in r9g r9gd t3
    t3a t4g t8i trn1 trn1n trn2 trn2u u-12tb1 u-18tb1 u-24tb1 u-3tb1 u-6tb1 u-9tb1 u7i-12tb u7i-6tb u7i-8tb u7in-16tb
    u7in-24tb u7in-32tb vt1 x2gd x2idn x2iedn x2iezn x8aedz x8g x8i z1d
    """)
"""Nitro families that the rules below are known to be true of. Another name is taken for Nitro too, and only believed
to be."""

_LOCAL_SERIES = _words("d dl f g gr i im is p trn z")
"""Series that have NVMe disks of their own without a ``d`` in the name, but for ``_NO_LOCAL_NVME``."""
_NO_LOCAL_NVME = frozenset({"dl2q", "g5g"})

_FAMILY = re.compile(r"(?P<series>[a-z]+)(?P<generation>[0-9]+)(?P<attributes>[a-z]*)(?P<rest>-[a-z0-9-]+)?")
_OTHER_CPUS = ("c1", "c4", "d2", "hpc", "m2")
_SIZE = re.compile(r"(?:metal-)?([0-9]*)xlarge")


def aws(machine: str) -> Place:
    """What an EC2 instance type offers, by its name alone."""
    family, _, size = machine.partition(".")
    metal = size.startswith("metal")
    if family.startswith("mac"):
        return Place(
            cloud="aws",
            machine=machine,
            hypervisor=Hypervisor.METAL,
            architectures=frozenset({"x86_64_mac" if family == "mac1" else "arm64_mac"}),
            boot_modes=_BIOS,
            disks=frozenset({DiskInterface.NVME}),
            networks=frozenset({NetworkInterface.ENA}),
            source=_EC2,
        )
    if family in XEN_FAMILIES and not metal:
        return _aws_xen(machine, family, size)
    known = family in KNOWN_FAMILIES or (family in XEN_FAMILIES and metal)
    shape = _FAMILY.fullmatch(family)
    series, attributes = (shape["series"], shape["attributes"]) if shape else ("", "")
    # "g" among the processor letters is Graviton; the a1 was the first and has no letter yet.
    arm = family == "a1" or "g" in attributes
    legacy = family in _LEGACY_ONLY or (metal and not arm)
    return Place(
        cloud="aws",
        machine=machine,
        hypervisor=Hypervisor.METAL if metal else Hypervisor.NITRO,
        architectures=_ARM if arm else _X86,
        boot_modes=_UEFI if arm else _BIOS if legacy else _BIOS | _UEFI,
        disks=frozenset({DiskInterface.NVME}),
        networks=frozenset({NetworkInterface.ENA}),
        cpus=_cpus(family, size),
        local_nvme=("d" in attributes or series in _LOCAL_SERIES) and family not in _NO_LOCAL_NVME,
        certainty=Certainty.KNOWN if known else Certainty.BELIEVED,
        source=_EC2 if known else "the type's name: its family is not in osvdeploy's table",
    )


def _aws_xen(machine: str, family: str, size: str) -> Place:
    # m4.16xlarge is the one type of its family with an ENA card.
    ena = family in _XEN_WITH_ENA or machine == "m4.16xlarge"
    return Place(
        cloud="aws",
        machine=machine,
        hypervisor=Hypervisor.XEN,
        architectures=_X86,
        boot_modes=_BIOS,
        disks=frozenset({DiskInterface.XEN}),
        networks=frozenset({NetworkInterface.ENA if ena else NetworkInterface.XEN}),
        cpus=_cpus(family, size),
        local_nvme=family in _XEN_WITH_NVME,
        source=_EC2,
    )


def _cpus(family: str, size: str) -> int | None:
    """Four to an xlarge holds for all families but a few of the oldest and those for computing clusters."""
    found = _SIZE.fullmatch(size)
    return None if found is None or family.startswith(_OTHER_CPUS) else 4 * int(found[1] or 1)


# -------------------------------------------------------------------------------------------------------------- GCE

_GCE = "Compute Engine machine families guide"

_GCE_FIRST = _words("f1 g1 n1 e2 n2 n2d t2d c2 c2d m1 m2 m3 a2 g2")
"""Series whose machines take a virtio-scsi disk and a virtio-net card."""
_GCE_GVNIC = _words("c3 c3d h3 z3 x4 a3 m4 n4d c4 c4d c4a n4 n4a h4d a4 a4x g4 t2a ct5 ct6")
_GCE_IDPF = frozenset({"c3", "x4"})
_GCE_SCSI_TOO = frozenset({"t2a"})
_GCE_ARM = frozenset({"t2a", "c4a", "n4a", "a4x"})


def gce(machine: str) -> Place:
    """What a GCE machine type offers, by its series.

    Which of the newer series force which interface has not been tried with OSv; it is only believed.
    """
    series = machine.partition("-")[0]
    arm, metal = series in _GCE_ARM, machine.endswith("-metal")
    if series in _GCE_FIRST:
        disks = frozenset({DiskInterface.VIRTIO_SCSI})
        networks = frozenset({NetworkInterface.VIRTIO_NET})
    else:
        disks = frozenset({DiskInterface.VIRTIO_SCSI if series in _GCE_SCSI_TOO else DiskInterface.NVME})
        networks = frozenset({NetworkInterface.IDPF if metal and series in _GCE_IDPF else NetworkInterface.GVNIC})
    known = series in _GCE_FIRST
    return Place(
        cloud="gcp",
        machine=machine,
        hypervisor=Hypervisor.METAL if metal else Hypervisor.KVM,
        architectures=_ARM if arm else _X86,
        boot_modes=_UEFI if arm or metal else _BIOS | _UEFI,
        disks=disks,
        networks=networks,
        certainty=Certainty.KNOWN if known else Certainty.BELIEVED,
        source=_GCE if known or series in _GCE_GVNIC else "the type's name: its series is not in osvdeploy's table",
    )


# ------------------------------------------------------------------------------------------------------ elsewhere


def qemu(
    *,
    disk: DiskInterface = DiskInterface.VIRTIO_BLK,
    cpus: int | None = None,
    memory: int | None = None,
) -> Place:
    """QEMU's pc machine with its devices on PCI, as ``osvdeploy run`` starts it; that takes the kernel file which
    ``-kernel`` needs out of a loader.img."""
    return Place(
        cloud="qemu",
        machine="QEMU",
        hypervisor=Hypervisor.KVM,
        architectures=_X86,
        boot_modes=_BIOS | _DIRECT,
        disks=frozenset({disk}),
        networks=frozenset({NetworkInterface.VIRTIO_NET}),
        cpus=cpus,
        memory=memory,
        source="QEMU's pc machine",
    )


def firecracker() -> Place:
    """Firecracker: a kernel file and a disk beside it, virtio-mmio, no PCI."""
    return Place(
        cloud="firecracker",
        machine="Firecracker",
        hypervisor=Hypervisor.FIRECRACKER,
        architectures=_X86,
        boot_modes=_DIRECT,
        disks=frozenset({DiskInterface.VIRTIO_BLK}),
        networks=frozenset({NetworkInterface.VIRTIO_NET}),
        bus=Bus.MMIO,
        source="Firecracker's device model",
    )


def named(cloud: str, machine: str) -> Place | None:
    """The place of a machine type by its name, None for a cloud that there are no rules for."""
    match cloud:
        case "aws":
            return aws(machine)
        case "gcp":
            return gce(machine)
        case _:
            return None


TYPICAL: Final[dict[str, Place]] = {
    "AWS Nitro": Place(
        cloud="aws",
        machine="a Nitro type (t3, m5 ...)",
        hypervisor=Hypervisor.NITRO,
        architectures=_X86,
        boot_modes=_BIOS | _UEFI,
        disks=frozenset({DiskInterface.NVME}),
        networks=frozenset({NetworkInterface.ENA}),
        source=_EC2,
    ),
    "AWS Xen": Place(
        cloud="aws",
        machine="a Xen type (t2, m4 ...)",
        hypervisor=Hypervisor.XEN,
        architectures=_X86,
        boot_modes=_BIOS,
        disks=frozenset({DiskInterface.XEN}),
        networks=frozenset({NetworkInterface.XEN}),
        source=_EC2,
    ),
    "GCE N1, N2, E2": Place(
        cloud="gcp",
        machine="GCE N1, N2, E2",
        hypervisor=Hypervisor.KVM,
        architectures=_X86,
        boot_modes=_BIOS | _UEFI,
        disks=frozenset({DiskInterface.VIRTIO_SCSI}),
        networks=frozenset({NetworkInterface.VIRTIO_NET}),
        source=_GCE,
    ),
    "GCE gVNIC series": Place(
        cloud="gcp",
        machine="a GCE series with gVNIC and NVMe alone",
        hypervisor=Hypervisor.KVM,
        architectures=_X86,
        boot_modes=_BIOS | _UEFI,
        disks=frozenset({DiskInterface.NVME}),
        networks=frozenset({NetworkInterface.GVNIC}),
        source=_GCE,
    ),
    "QEMU": qemu(),
    "Firecracker": firecracker(),
}
"""One place of each kind, by the name that tables give it."""
