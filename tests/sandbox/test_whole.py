"""All of it together, by boto3 and in virtual time: bytes become a snapshot, an image, a group behind a balancer."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.context import VirtualClock
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.inprocess import Client, connect
from osvdeploy.sandbox.runners import GuestAnswer
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.sandbox.volumes import Volume, declared, volume

pytestmark = pytest.mark.slow

BLOCK = 512 * 1024


@dataclass
class User:
    """Somebody who works with an account by boto3."""

    sandbox: Sandbox
    clock: VirtualClock

    def __post_init__(self) -> None:
        session = connect(self.sandbox, self.clock)
        self.ec2: Any = session.client("ec2")
        self.ebs: Any = session.client("ebs")
        self.asg: Any = session.client("autoscaling")
        self.elb: Any = session.client("elbv2")
        self.http = Client(self.sandbox, self.clock)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.sandbox.settle(self.clock.now())

    def image(self, disk: Volume) -> str:
        """An AMI of a disk, uploaded block by block."""
        snapshot = self.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        digests = []
        for index in range(-(-disk.size // BLOCK)):
            block = disk.pread(index * BLOCK, BLOCK).ljust(BLOCK, b"\0")
            digests.append(hashlib.sha256(block).digest())
            self.ebs.put_snapshot_block(
                SnapshotId=snapshot,
                BlockIndex=index,
                BlockData=block,
                DataLength=BLOCK,
                Checksum=base64.b64encode(digests[-1]).decode(),
                ChecksumAlgorithm="SHA256",
            )
        self.ebs.complete_snapshot(
            SnapshotId=snapshot,
            ChangedBlocksCount=len(digests),
            Checksum=base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode(),
            ChecksumAlgorithm="SHA256",
            ChecksumAggregationMethod="LINEAR",
        )
        self.wait(30)
        mapping = {"DeviceName": "xvda", "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3"}}
        image = self.ec2.register_image(
            Name="app",
            Architecture="x86_64",
            VirtualizationType="hvm",
            BootMode="legacy-bios",
            EnaSupport=True,
            RootDeviceName="xvda",
            BlockDeviceMappings=[mapping],
        )["ImageId"]
        self.wait(30)
        return str(image)

    def serve(self, image: str) -> tuple[str, int]:
        """A group of two behind a balancer; where the balancer listens."""
        vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            self.ec2.create_subnet(VpcId=vpc, AvailabilityZone=f"eu-west-1{zone}", CidrBlock=f"10.0.{number}.0/24")[
                "Subnet"
            ]["SubnetId"]
            for number, zone in enumerate("ab")
        ]
        group = self.elb.create_target_group(
            Name="app", Protocol="HTTP", Port=8080, VpcId=vpc, HealthCheckIntervalSeconds=5, HealthCheckTimeoutSeconds=2
        )["TargetGroups"][0]["TargetGroupArn"]
        balancer = self.elb.create_load_balancer(Name="app", Subnets=subnets)["LoadBalancers"][0]
        self.elb.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"],
            Protocol="HTTP",
            Port=8000,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
        )
        template = self.ec2.create_launch_template(
            LaunchTemplateName="app", LaunchTemplateData={"ImageId": image, "InstanceType": "t3.micro"}
        )["LaunchTemplate"]["LaunchTemplateId"]
        self.asg.create_auto_scaling_group(
            AutoScalingGroupName="app",
            LaunchTemplate={"LaunchTemplateId": template, "Version": "1"},
            MinSize=2,
            MaxSize=2,
            VPCZoneIdentifier=",".join(subnets),
            TargetGroupARNs=[group],
        )
        self.wait(60)
        return str(balancer["DNSName"]), 8000

    def members(self) -> dict[str, str]:
        (group,) = self.asg.describe_auto_scaling_groups()["AutoScalingGroups"]
        return {each["InstanceId"]: each["LifecycleState"] for each in group["Instances"]}

    def answer(self, place: tuple[str, int]) -> GuestAnswer:
        answer = self.http.get(*place, "/")
        assert isinstance(answer, GuestAnswer)
        return answer


APP = declared(says="up", headers={"x-release": "$OSVDEPLOY_RELEASE"}, answers={"*": 200})


def disk(program: bytes = APP) -> Volume:
    return volume({"/app": program}, environment=(("OSVDEPLOY_RELEASE", "app-1"),))


def test_bytes_become_answers_through_a_balancer() -> None:
    """The program found in the uploaded blocks answers, on both instances, with the environment of its command line."""
    user = User(Sandbox(runner=InlineRunner()), VirtualClock())
    place = user.serve(user.image(disk()))
    assert set(user.members().values()) == {"InService"}
    answer = user.answer(place)
    assert (answer.status, answer.headers["x-release"]) == (200, "app-1")
    for name in user.members():
        assert "up" in user.ec2.get_console_output(InstanceId=name, Latest=True)["Output"]


def test_a_sandbox_that_starts_again_brings_back_what_ran(tmp_path: Path) -> None:
    """The same instances serve; Auto Scaling replaces none; time stood still meanwhile."""
    user = User(Sandbox(tmp_path, runner=InlineRunner()), VirtualClock())
    place = user.serve(user.image(disk()))
    before = user.members()
    user.sandbox.close()
    user.clock.advance(3 * 86400)

    again = User(Sandbox(tmp_path, runner=InlineRunner()), user.clock)
    again.sandbox.resume(again.clock.now())
    assert again.answer(place).status == 200
    again.wait(300)
    assert again.members() == before
    assert again.answer(place).status == 200
    again.sandbox.close()


@pytest.mark.parametrize(
    "call", ["TerminateInstanceInAutoScalingGroup", "UpdateAutoScalingGroup", "DeleteAutoScalingGroup"]
)
def test_a_sandbox_that_is_killed_finishes_what_was_under_way(tmp_path: Path, call: str) -> None:
    """Ending instances end, and the group comes to what it should be."""
    user = User(Sandbox(tmp_path, runner=InlineRunner()), VirtualClock())
    user.serve(user.image(disk()))
    first = next(iter(user.members()))
    match call:
        case "TerminateInstanceInAutoScalingGroup":
            user.asg.terminate_instance_in_auto_scaling_group(InstanceId=first, ShouldDecrementDesiredCapacity=False)
        case "UpdateAutoScalingGroup":
            user.asg.update_auto_scaling_group(AutoScalingGroupName="app", MinSize=1, DesiredCapacity=1)
        case "DeleteAutoScalingGroup":
            user.asg.delete_auto_scaling_group(AutoScalingGroupName="app", ForceDelete=True)
    user.wait(1.5)
    user.sandbox.close()

    again = User(Sandbox(tmp_path, runner=InlineRunner()), user.clock)
    again.sandbox.resume(again.clock.now())
    again.wait(900)
    if call == "DeleteAutoScalingGroup":
        assert again.asg.describe_auto_scaling_groups()["AutoScalingGroups"] == []
        assert "instance" not in again.sandbox.inventory()
    else:
        wanted = 2 if call.startswith("Terminate") else 1
        assert list(again.members().values()) == ["InService"] * wanted
        assert len(again.sandbox.inventory()["instance"]) == wanted
    again.sandbox.close()
