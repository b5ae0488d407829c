"""What places offer, by their names; held to what EC2's own API says of its types."""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.checks.places import TYPICAL, Certainty, aws, from_cloud, gce, named
from osvdeploy.cloud.aws.machines import machine_type
from osvdeploy.cloud.interfaces import BootMode, DiskInterface, Hypervisor, MachineType, NetworkInterface


@functools.cache
def described() -> dict[str, MachineType]:
    """DescribeInstanceTypes' answers as moto keeps them, by our adapter."""
    import moto

    file = Path(moto.__file__).parent / "ec2" / "resources" / "instance_types.json.gz"
    answers: dict[str, Any] = json.loads(gzip.decompress(file.read_bytes()))
    return {name: machine_type(answer) for name, answer in answers.items()}


def test_the_rules_agree_with_ec2() -> None:
    """Hypervisor, boot modes, disk, network card, own disks, architecture and processors of every type there is."""
    assert len(described()) > 1000
    for name, told in described().items():
        place = aws(name)
        assert place.certainty is Certainty.KNOWN, name
        assert place.hypervisor is told.hypervisor, name
        assert place.boot_modes == told.boot_modes, name
        assert (place.disks, place.networks) == (told.disks, told.networks), name
        assert place.architectures <= told.architectures, name
        assert place.local_nvme in (None, told.local_nvme), name
        assert place.cpus in (None, told.cpus), name


def test_the_cloud_s_answer_is_a_place() -> None:
    """Nothing of it is lost, and memory and processors, which a name does not tell, are there."""
    told = described()["t3.nano"]
    place = from_cloud("aws", told)
    assert (place.machine, place.memory, place.cpus) == ("t3.nano", 512 << 20, 2)
    assert (place.disks, place.networks, place.boot_modes) == (told.disks, told.networks, told.boot_modes)
    assert place.certainty is Certainty.KNOWN


@pytest.mark.parametrize(
    ("machine", "hypervisor", "arm"),
    [
        ("c99i.large", Hypervisor.NITRO, False),
        ("q7gd.large", Hypervisor.NITRO, True),
        ("z9.metal", Hypervisor.METAL, False),
    ],
)
def test_a_new_family_is_believed_nitro(machine: str, hypervisor: Hypervisor, arm: bool) -> None:
    """Its name tells what it can, and the place says that it is only believed."""
    place = aws(machine)
    assert place.certainty is Certainty.BELIEVED
    assert place.hypervisor is hypervisor
    assert ("aarch64" in place.architectures) is arm
    assert (BootMode.BIOS in place.boot_modes) is not arm


@pytest.mark.parametrize("machine", ["f1-micro", "n1-standard-1", "e2-small", "n2d-standard-2", "t2d-standard-1"])
def test_gce_s_first_generations_have_virtio(machine: str) -> None:
    """virtio-scsi and virtio-net, which OSv drives."""
    place = gce(machine)
    assert place.disks == {DiskInterface.VIRTIO_SCSI}
    assert place.networks == {NetworkInterface.VIRTIO_NET}
    assert place.certainty is Certainty.KNOWN


@pytest.mark.parametrize("machine", ["c3-standard-4", "c4-standard-2", "n4-standard-2", "zz1-standard-2"])
def test_gce_s_newer_series_are_believed_to_force_gvnic_and_nvme(machine: str) -> None:
    """So are series that nobody knows yet."""
    place = gce(machine)
    assert place.networks == {NetworkInterface.GVNIC}
    assert place.disks == {DiskInterface.NVME}
    assert place.certainty is Certainty.BELIEVED


def test_gce_s_arm_series_and_metal() -> None:
    """Arm boots by UEFI alone; metal has IDPF."""
    assert gce("t2a-standard-1").architectures == gce("c4a-standard-1").architectures == {"aarch64"}
    assert gce("t2a-standard-1").boot_modes == {BootMode.UEFI}
    assert gce("c3-standard-192-metal").networks == {NetworkInterface.IDPF}


@given(st.text(max_size=40))
def test_any_name_is_some_place(name: str) -> None:
    """No name is too strange: there are no errors here, only beliefs."""
    for place in (aws(name), gce(name)):
        assert place.disks and place.networks and place.architectures
        assert place.cpus is None or place.cpus > 0
    assert named("elsewhere", name) is None


def test_the_typical_places_are_known_and_distinct() -> None:
    """Tables and README speak of them."""
    assert all(place.certainty is Certainty.KNOWN for place in TYPICAL.values())
    assert len({(place.disks, place.networks, place.bus) for place in TYPICAL.values()}) == len(TYPICAL)
