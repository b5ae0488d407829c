"""Machine types on AWS: what EC2 says of an instance type.

Source: EC2 API reference, DescribeInstanceTypes and its InstanceTypeInfo; the error InvalidInstanceType.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.interfaces import BootMode, DiskInterface, Hypervisor, MachineType, NetworkInterface
from osvdeploy.context import Context
from osvdeploy.errors import CloudError

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeInfoTypeDef

_ARCHITECTURES = {"arm64": "aarch64"}
_BOOT_MODES = {"legacy-bios": BootMode.BIOS, "uefi": BootMode.UEFI}


class Ec2MachineTypes:
    """:class:`~osvdeploy.cloud.interfaces.MachineTypes` of one region."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def describe(self, ctx: Context, name: str) -> MachineType | None:
        try:
            with self._aws.calling(ctx, f"instance type {name}"):
                found = self._aws.ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]  # type: ignore[list-item]  # the stubs list the types of their day
        except CloudError as error:
            if error.code == "InvalidInstanceType":
                return None
            raise
        return machine_type(found[0]) if found else None

    def names(self, ctx: Context) -> list[str]:
        with self._aws.calling(ctx, "instance types"):
            pages = self._aws.ec2.get_paginator("describe_instance_types").paginate()
            return sorted(found["InstanceType"] for page in pages for found in page["InstanceTypes"])


def machine_type(told: InstanceTypeInfoTypeDef) -> MachineType:
    """What EC2 tells of one instance type, in our words."""
    match told.get("Hypervisor"):
        case "nitro":
            hypervisor = Hypervisor.NITRO
        case "xen":
            hypervisor = Hypervisor.XEN
        case _:
            hypervisor = Hypervisor.METAL
    xen = hypervisor is Hypervisor.XEN
    # The image is registered with EnaSupport, so a Xen host that can gives it an ENA card and no other.
    ena = told.get("NetworkInfo", {}).get("EnaSupport", "unsupported") != "unsupported"
    local = told.get("InstanceStorageInfo", {})
    return MachineType(
        name=told["InstanceType"],
        architectures=frozenset(
            _ARCHITECTURES.get(each, each) for each in told["ProcessorInfo"]["SupportedArchitectures"]
        ),
        hypervisor=hypervisor,
        boot_modes=frozenset(_BOOT_MODES[each] for each in told.get("SupportedBootModes", ()) if each in _BOOT_MODES),
        disks=frozenset({DiskInterface.XEN if xen else DiskInterface.NVME}),
        networks=frozenset({NetworkInterface.ENA if ena or not xen else NetworkInterface.XEN}),
        cpus=told["VCpuInfo"]["DefaultVCpus"],
        memory=told["MemoryInfo"]["SizeInMiB"] << 20,
        local_nvme=told.get("InstanceStorageSupported", False) and local.get("NvmeSupport") == "required",
    )
