"""Instance types that the sandbox has: a Nitro family and some others, one with disks of its own, and two of Xen.

Figures: EC2 instance types guide (vCPUs, memory, network interfaces' addresses are left out), "Instance type boot
modes". Hypervisor, architecture and boot modes are what decides whether an image boots.
"""

from __future__ import annotations

from dataclasses import dataclass

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.services.ec2.resources import Query, Wire
from osvdeploy.sandbox.services.scope import Doc, Scope


@dataclass(frozen=True, slots=True)
class MachineType:
    """``memory`` in MiB; ``needs_ena`` where an image without the driver would have no network; ``local_nvme``: it has
    NVMe disks of its own."""

    name: str
    cpus: int
    memory: int
    hypervisor: str = "nitro"
    architecture: str = "x86_64"
    boot_modes: tuple[str, ...] = ("legacy-bios", "uefi")
    current: bool = True
    local_nvme: bool = False

    @property
    def nitro(self) -> bool:
        return self.hypervisor == "nitro"

    @property
    def needs_ena(self) -> bool:
        return self.nitro


TYPES = {
    each.name: each
    for each in (
        MachineType("t3.nano", 2, 512),
        MachineType("t3.micro", 2, 1024),
        MachineType("t3.small", 2, 2048),
        MachineType("t3.medium", 2, 4096),
        MachineType("t3.large", 2, 8192),
        MachineType("t3.xlarge", 4, 16384),
        MachineType("t3.2xlarge", 8, 32768),
        MachineType("m5.large", 2, 8192),
        MachineType("m5d.large", 2, 8192, local_nvme=True),
        MachineType("c5.large", 2, 4096),
        MachineType("c5.24xlarge", 96, 196608),
        MachineType("t2.micro", 1, 1024, "xen", boot_modes=("legacy-bios",)),
        MachineType("m4.large", 2, 8192, "xen", boot_modes=("legacy-bios",), current=False),
        MachineType("t4g.micro", 2, 1024, architecture="arm64", boot_modes=("uefi",)),
        MachineType("t4g.small", 2, 2048, architecture="arm64", boot_modes=("uefi",)),
    )
}

_DESCRIBE = Query(
    "DescribeInstanceTypes",
    {
        "instance-type": "InstanceType",
        "current-generation": "CurrentGeneration",
        "bare-metal": "BareMetal",
        "burstable-performance-supported": "BurstablePerformanceSupported",
        "hypervisor": "Hypervisor",
        "memory-info.size-in-mib": "MemoryInfo.SizeInMiB",
        "network-info.ena-support": "NetworkInfo.EnaSupport",
        "processor-info.supported-architecture": "ProcessorInfo.SupportedArchitectures",
        "supported-boot-mode": "SupportedBootModes",
        "supported-root-device-type": "SupportedRootDeviceTypes",
        "supported-virtualization-type": "SupportedVirtualizationTypes",
        "vcpu-info.default-vcpus": "VCpuInfo.DefaultVCpus",
    },
    "InstanceType",
    (5, 100),
    tagged=False,
)


def _shown(each: MachineType) -> Doc:
    return {
        "InstanceType": each.name,
        "CurrentGeneration": each.current,
        "BareMetal": False,
        "Hypervisor": each.hypervisor,
        "SupportedUsageClasses": ["on-demand"],
        "SupportedRootDeviceTypes": ["ebs"],
        "SupportedVirtualizationTypes": ["hvm"],
        "SupportedBootModes": list(each.boot_modes),
        "ProcessorInfo": {"SupportedArchitectures": [each.architecture]},
        "VCpuInfo": {"DefaultVCpus": each.cpus},
        "MemoryInfo": {"SizeInMiB": each.memory},
        "NetworkInfo": {"EnaSupport": "required" if each.needs_ena else "unsupported"},
        "BurstablePerformanceSupported": each.name.startswith("t"),
        "InstanceStorageSupported": each.local_nvme,
        **({"InstanceStorageInfo": {"NvmeSupport": "required"}} if each.local_nvme else {}),
    }


def describe_instance_types(scope: Scope, params: Wire) -> Doc:
    wanted = params.get("InstanceTypes") or []
    if unknown := sorted(set(wanted) - set(TYPES)):
        raise ApiError(
            "InvalidInstanceType", f"The following supplied instance types do not exist: [{', '.join(unknown)}]"
        )
    found = _DESCRIBE.select(params, [_shown(each) for each in TYPES.values() if not wanted or each.name in wanted])
    return _DESCRIBE.page(params, "InstanceTypes", found, ids="InstanceTypes")


def find(name: str) -> MachineType:
    """Raises ApiError, as RunInstances does, for a type that does not exist."""
    if name not in TYPES:
        raise ApiError("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
    return TYPES[name]
