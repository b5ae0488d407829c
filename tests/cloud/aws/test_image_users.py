"""What has an AMI on AWS: every version of every template of others, their instances, and by how many calls."""

from __future__ import annotations

from typing import Any

import pytest

from osvdeploy.cloud.aws.images import AmiRegistry
from osvdeploy.cloud.aws.snapshots import EbsSnapshots
from osvdeploy.cloud.interfaces import CloudImage
from osvdeploy.cloud.tags import image_tags
from osvdeploy.digests import sha256
from osvdeploy.errors import Refused
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.wire import Call
from tests.contract.aws_place import AwsSandbox
from tests.contract.disks import Place, image_request
from tests.contract.registries import OfDisks

pytestmark = pytest.mark.sandbox

OLD, NEW, OTHER = (f"ami-{number:017x}" for number in range(1, 4))


class World:
    """An account with templates of others. A template may name an image that is not there."""

    def __init__(self) -> None:
        self.account = AwsSandbox()
        self.ec2 = self.account.client("ec2")
        self.images = AmiRegistry(self.account.aws())

    def template(self, name: str, *versions: str, **more: Any) -> str:
        """A template whose versions name these images, in their order."""
        first, *others = [{"ImageId": image, "InstanceType": "t3.nano"} for image in versions]
        made = self.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=first, **more)
        for data in others:
            self.ec2.create_launch_template_version(LaunchTemplateName=name, LaunchTemplateData=data)
        return str(made["LaunchTemplate"]["LaunchTemplateId"])

    def told(self, *images: str) -> dict[str, list[str]]:
        asked = [CloudImage(image, image, sha256(b""), None) for image in images]
        found = self.images.users(self.account.ctx, asked)
        assert not any(user.ours for users in found.values() for user in users)
        return {image: [user.told for user in users] for image, users in found.items()}

    def calls(self) -> list[str]:
        return [call.operation for call in self.account.sandbox.calls()]

    def image(self) -> str:
        """One of ours that instances can be started from."""
        here, snapshots = self.account, EbsSnapshots(self.account.aws())
        place = OfDisks(Place(here.ctx, snapshots, self.images, here.read, here.put_foreign))
        return self.images.register(here.ctx, image_request(place.disk())).id

    def subnet(self) -> str:
        vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        return str(self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"])


@pytest.fixture
def world() -> World:
    return World()


def test_any_version_has_its_image(world: World) -> None:
    """The newest, the default one, and those between, which a group may be pinned to."""
    web = world.template("web", OLD, OTHER, OLD, NEW)
    batch = world.template("batch", NEW)
    assert world.told(OLD, NEW) == {
        OLD: [f"launch template web ({web}), versions 3, 1"],
        NEW: [f"launch template batch ({batch}), version 1", f"launch template web ({web}), version 4"],
    }


def test_many_versions_are_counted(world: World) -> None:
    web = world.template("web", *[OLD] * 6, NEW)
    assert world.told(OLD) == {OLD: [f"launch template web ({web}), versions 6, 5, 4 and 3 more"]}


def test_a_template_of_ours_is_nobodys(world: World) -> None:
    """It goes with its group."""
    labels = [{"Key": key, "Value": value} for key, value in image_tags("hello", "1", sha256(b"")).items()]
    tagged: Any = [{"ResourceType": "launch-template", "Tags": labels}]
    world.template("osvd-hello", OLD, TagSpecifications=tagged)
    assert world.told(OLD) == {}


def test_a_template_is_asked_by_itself_only_where_it_has_other_versions(world: World) -> None:
    """One list of templates, one of their newest and default versions, one of instances; and one for each template
    that has more."""
    world.template("one", OTHER)
    world.template("two", OTHER, OTHER)
    world.template("three", OTHER, OTHER, OTHER)
    before = len(world.calls())
    assert world.told(OLD) == {}
    versions = "DescribeLaunchTemplateVersions"
    assert world.calls()[before:] == ["DescribeLaunchTemplates", versions, versions, "DescribeInstances"]
    assert world.told() == {}
    assert len(world.calls()) == before + 4


def test_all_pages_are_read(world: World) -> None:
    """More templates than one answer has, more versions of one, and more images than a filter takes."""
    for number in range(205):
        world.template(f"t{number:03}", OTHER)
    last = world.template("zzz", *[OLD] * 205, NEW)
    many = [f"ami-{number:017x}" for number in range(1000, 1300)]
    told = world.told(*many, OLD, OTHER)
    assert told[OLD] == [f"launch template zzz ({last}), versions 205, 204, 203 and 202 more"]
    assert len(told[OTHER]) == 205 and set(told) == {OLD, OTHER}


def test_a_template_that_goes_meanwhile_has_nothing(world: World) -> None:
    """Between its being listed and its being asked."""
    world.template("web", OTHER, OLD, OTHER)

    def hook(moment: Moment, call: Call) -> None:
        if call.params.get("LaunchTemplateId") and call.operation == "DescribeLaunchTemplateVersions":
            world.account.sandbox.hook = None
            world.account.client("ec2").delete_launch_template(LaunchTemplateName="web")

    world.account.sandbox.hook = hook
    assert world.told(OLD) == {}


def test_instances_that_others_started_have_their_image(world: World) -> None:
    """By hand, also while it is stopped, and no more once it is gone; those of a group are told by the group."""
    image, subnet = world.image(), world.subnet()
    started: Any = {"ImageId": image, "InstanceType": "t3.nano", "MinCount": 1, "MaxCount": 1, "SubnetId": subnet}
    named: Any = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "bastion"}]}]
    [alone] = world.ec2.run_instances(**started, TagSpecifications=named)["Instances"]
    web = world.template("web", image)
    world.account.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="web",
        LaunchTemplate={"LaunchTemplateName": "web", "Version": "1"},
        MinSize=2,
        MaxSize=2,
        VPCZoneIdentifier=subnet,
    )
    world.account.ctx.sleep(120)
    one, two = sorted(
        instance["InstanceId"]
        for held in world.ec2.describe_instances()["Reservations"]
        for instance in held["Instances"]
        if instance["InstanceId"] != alone["InstanceId"]
    )
    by_hand = f"instance {alone['InstanceId']} (bastion)"
    theirs = [f"launch template web ({web}), version 1", f"Auto Scaling group web (instances {one}, {two})"]
    assert world.told(image, OLD) == {image: [*theirs, by_hand]}
    world.ec2.stop_instances(InstanceIds=[alone["InstanceId"]])
    world.account.ctx.sleep(120)
    assert world.told(image) == {image: [*theirs, by_hand]}
    world.ec2.terminate_instances(InstanceIds=[alone["InstanceId"]])
    world.account.ctx.sleep(120)
    assert world.told(image) == {image: theirs}


@pytest.mark.parametrize(
    "operation", ["DescribeLaunchTemplates", "DescribeLaunchTemplateVersions", "DescribeInstances"]
)
def test_who_may_not_look_is_told_what_to_allow(world: World, operation: str) -> None:
    """Half of an answer is none."""
    world.template("web", OTHER)
    world.account.sandbox.faults.add(Fault(operation, FaultKind.DENIED))
    with pytest.raises(Refused, match=operation) as refused:
        world.told(OLD)
    assert refused.value.hint == f"allow the action {operation}"
