"""The memory world with the real EC2 and EBS in it, and snapshots that hold bootable disks."""

from __future__ import annotations

import base64
import functools
import hashlib
from datetime import datetime
from typing import Any

from osvdeploy.sandbox.services import ebs, ec2
from osvdeploy.sandbox.services.scope import Doc
from tests.sandbox.volumes import Volume, declared, volume
from tests.sandbox.world import World, service_model

_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "long": int,
    "double": float,
    "boolean": bool,
    "timestamp": datetime,
}


def check(shape: Any, value: Any, place: str) -> None:
    """Every part of an answer has a place and a type in the API's model."""
    if shape.type_name == "structure":
        assert isinstance(value, dict), place
        for name, part in value.items():
            assert name in shape.members, f"{place}: no {name} in {shape.name}"
            check(shape.members[name], part, f"{place}.{name}")
    elif shape.type_name == "list":
        assert isinstance(value, list), place
        for index, part in enumerate(value):
            check(shape.member, part, f"{place}[{index}]")
    else:
        assert isinstance(value, _TYPES[shape.type_name]), f"{place}: {value!r} is no {shape.type_name}"
        enum = getattr(shape, "enum", ())
        assert not enum or value in enum, f"{place}: {value!r} is none of {enum}"


@functools.cache
def serving() -> Volume:
    return volume({"/app": declared(says="listening")})


class Ec2World(World):
    """One account whose instances boot from snapshots."""

    def __init__(self) -> None:
        super().__init__()
        self.ec2 = ec2.Ec2Service(self)  # type: ignore[assignment]  # a world is all of a scope that it asks for
        self._handlers = {**self._handlers, **ebs.EVENTS, **ec2.EVENTS}

    def call(self, operation: str, **params: Any) -> Doc:
        """An EC2 call as the core makes it; its answer fits the API's model."""
        unknown = set(params) - ec2.PARAMETERS[operation]
        assert not unknown, unknown
        answer = ec2.OPERATIONS[operation](self, params)
        shape = service_model("ec2").operation_model(operation).output_shape
        if shape is None:
            assert answer == {}, operation
        else:
            check(shape, answer, operation)
        return answer

    def snapshot(self, disk: Volume | None = None, *, finish: bool = True) -> str:
        """A snapshot of 1 GiB, written block by block as a client does."""
        content = (disk or serving()).content
        started = ebs.OPERATIONS["StartSnapshot"](self, {"VolumeSize": 1, "Description": "test"})
        name: str = started["SnapshotId"]
        count = 0
        for offset in range(0, len(content), ebs.BLOCK):
            self._put(name, offset // ebs.BLOCK, content[offset : offset + ebs.BLOCK].ljust(ebs.BLOCK, b"\0"))
            count += 1
        if finish:
            ebs.OPERATIONS["CompleteSnapshot"](self, {"SnapshotId": name, "ChangedBlocksCount": count})
            self.wait(ebs.COMPLETION)
        return name

    def _put(self, snapshot: str, index: int, block: bytes) -> None:
        ebs.OPERATIONS["PutSnapshotBlock"](
            self,
            {
                "SnapshotId": snapshot,
                "BlockIndex": index,
                "BlockData": block,
                "DataLength": len(block),
                "Checksum": base64.b64encode(hashlib.sha256(block).digest()).decode(),
                "ChecksumAlgorithm": "SHA256",
            },
        )

    def image(self, snapshot: str | None = None, **changes: Any) -> str:
        """An available image."""
        name: str = self.call("RegisterImage", **(image_params(snapshot or self.snapshot()) | changes))["ImageId"]
        self.wait(3)
        return name

    def network(self) -> tuple[str, str]:
        """A VPC's id and that of its one subnet."""
        vpc: str = self.call("CreateVpc", CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        return vpc, self.call("CreateSubnet", VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]

    def run(self, image: str | None = None, **changes: Any) -> str:
        """An instance that was just started."""
        subnet = changes.pop("SubnetId", None) or self.network()[1]
        params = {"InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1, "SubnetId": subnet}
        answer = self.call("RunInstances", **{**params, "ImageId": image or self.image(), **changes})
        name: str = answer["Instances"][0]["InstanceId"]
        return name

    def seen(self, instance: str) -> Doc:
        [reservation] = self.call("DescribeInstances", InstanceIds=[instance])["Reservations"]
        found: Doc = reservation["Instances"][0]
        return found

    def state(self, instance: str) -> str:
        return str(self.seen(instance)["State"]["Name"])

    def console(self, instance: str, **params: Any) -> str:
        return base64.b64decode(self.call("GetConsoleOutput", InstanceId=instance, **params).get("Output", "")).decode()


def image_params(snapshot: str) -> dict[str, Any]:
    return {
        "Name": "hello 1.0",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "BootMode": "legacy-bios",
        "EnaSupport": True,
        "RootDeviceName": "xvda",
        "BlockDeviceMappings": [{"DeviceName": "xvda", "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3"}}],
    }
