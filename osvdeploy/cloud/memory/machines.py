"""Machine types in memory."""

from __future__ import annotations

from osvdeploy.cloud.interfaces import BootMode, DiskInterface, Hypervisor, MachineType, NetworkInterface
from osvdeploy.cloud.memory.faults import Faults
from osvdeploy.context import Context
from osvdeploy.sizes import GIB, MIB

TYPES = (
    MachineType(
        "small",
        frozenset({"x86_64"}),
        Hypervisor.KVM,
        frozenset({BootMode.BIOS}),
        frozenset({DiskInterface.VIRTIO_BLK}),
        frozenset({NetworkInterface.VIRTIO_NET}),
        cpus=1,
        memory=512 * MIB,
    ),
    MachineType(
        "arm",
        frozenset({"aarch64"}),
        Hypervisor.KVM,
        frozenset({BootMode.UEFI}),
        frozenset({DiskInterface.NVME}),
        frozenset({NetworkInterface.VIRTIO_NET}),
        cpus=4,
        memory=8 * GIB,
    ),
)
"""What a memory cloud has: a small machine that OSv boots on, and one that it does not."""


class MemoryMachineTypes:
    """:class:`~osvdeploy.cloud.interfaces.MachineTypes` of a list."""

    def __init__(self, calls: Faults, types: tuple[MachineType, ...] = TYPES) -> None:
        self._calls = calls
        self._types = {each.name: each for each in types}

    def describe(self, ctx: Context, name: str) -> MachineType | None:
        with self._calls.around("machines.find"):
            return self._types.get(name)

    def names(self, ctx: Context) -> list[str]:
        with self._calls.around("machines.find"):
            return sorted(self._types)
