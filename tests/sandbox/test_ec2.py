"""EC2 in the sandbox: machines that boot the bytes of their snapshot, and what is told of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.runners import GuestAnswer, GuestRequest, NoAnswer
from osvdeploy.sandbox.services import ebs, ec2
from osvdeploy.sandbox.services.ec2 import images, instances, resources
from osvdeploy.sandbox.services.scope import Doc, Scope
from tests.sandbox.ec2_world import Ec2World, image_params
from tests.sandbox.volumes import Volume, declared, volume

BOOTED = instances.BOOT


@pytest.fixture
def world() -> Ec2World:
    return Ec2World()


def disk(**behaviour: Any) -> Volume:
    return volume({"/app": declared(**behaviour)})


def codes(call: Callable[[], Any]) -> str:
    with pytest.raises(ApiError) as refused:
        call()
    return refused.value.code


def with_tags(kind: str, **tags: str) -> list[Doc]:
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]


def tags_of(shown: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in shown.get("Tags", [])}


# ------------------------------------------------------------------------------------------------------- instances


def test_an_instance_runs_the_program_of_its_snapshot(world: Ec2World) -> None:
    """Pending, then running; the guest answers on the instance's own address with what its release declares."""
    name = world.run(world.image(world.snapshot(disk(answers={"*": {"status": 200, "body": "here"}}))))
    assert world.state(name) == "pending"
    world.wait(BOOTED)
    assert world.state(name) == "running"
    machine = world.ec2.instance(name)
    assert machine is not None
    answer = world.runner.ask(name, machine.address, 8080, GuestRequest("GET", "/"), 1.0, world.now)
    assert isinstance(answer, GuestAnswer)
    assert answer.body == b"here"
    assert re.fullmatch(r"127\.[1-9]\d\.\d+\.\d+", machine.address)
    assert f"eth0: {machine.address}" in world.console(name, Latest=True)


def test_instances_have_addresses_of_their_own(world: Ec2World) -> None:
    """No two machines share a loopback address or one of the subnet."""
    subnet = world.network()[1]
    answer = world.call(
        "RunInstances",
        ImageId=world.image(),
        InstanceType="t3.small",
        SubnetId=subnet,
        MinCount=10,
        MaxCount=20,
    )
    names = [instance["InstanceId"] for instance in answer["Instances"]]
    found = [world.ec2.instance(name) for name in names]
    assert len({machine.address for machine in found if machine is not None}) == 20
    assert [instance["PrivateIpAddress"] for instance in answer["Instances"]] == [
        f"10.0.1.{number}" for number in range(4, 24)
    ]
    [shown] = world.call("DescribeSubnets", SubnetIds=[subnet])["Subnets"]
    assert shown["AvailableIpAddressCount"] == 256 - 5 - 20


def test_as_many_start_as_fit_between_least_and_most(world: Ec2World) -> None:
    """A subnet of 11 free addresses takes 11 of 5 to 20."""
    vpc = world.network()[0]
    subnet = world.call("CreateSubnet", VpcId=vpc, CidrBlock="10.0.2.0/28")["Subnet"]["SubnetId"]
    image = world.image()
    answer = world.call("RunInstances", ImageId=image, InstanceType="t3.nano", SubnetId=subnet, MinCount=5, MaxCount=20)
    assert len(answer["Instances"]) == 11


@pytest.mark.parametrize(("behaviour", "ends"), [("stop", "stopped"), ("terminate", "terminated")])
@pytest.mark.parametrize("boot", ["exit 0", "exit 3"])
def test_a_guest_that_powers_off_ends_its_instance(world: Ec2World, behaviour: str, ends: str, boot: str) -> None:
    """As its shutdown behaviour says, with the reason AWS gives, and its last words are kept."""
    image = world.image(world.snapshot(disk(boot=boot, after=2, says="bye")))
    name = world.run(image, InstanceInitiatedShutdownBehavior=behaviour)
    world.wait(BOOTED)
    assert world.state(name) == "running"
    world.wait(2 + instances.ENDING)
    seen = world.seen(name)
    assert seen["State"]["Name"] == ends
    assert seen["StateReason"] == {
        "Code": "Client.InstanceInitiatedShutdown",
        "Message": "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
    }
    assert "bye" in world.console(name)
    assert world.console(name, Latest=True) == world.console(name)


def test_a_guest_that_was_lost_ends_its_instance(world: Ec2World) -> None:
    """What its runner does not know any more is gone as after a power failure."""
    name = world.run()
    world.wait(BOOTED)
    world.runner.stop(name, world.now)
    instances.look(world)
    world.wait(instances.ENDING)
    assert world.state(name) == "stopped"


def test_an_aborted_guest_runs_on_for_all_that_a_hypervisor_sees(world: Ec2World) -> None:
    """Halted CPUs are no power-off: the instance is running and silent."""
    name = world.run(world.image(world.snapshot(disk(boot="abort"))))
    world.wait(BOOTED + 60)
    assert world.state(name) == "running"
    assert "Aborted" in world.console(name, Latest=True)


def test_a_disk_that_cannot_boot_stops_its_instance_or_hangs(world: Ec2World) -> None:
    """Bytes decide: a disk without a command line never becomes a program, and the console says why."""
    name = world.run(world.image(world.snapshot(volume({}, ("/none",)))))
    world.wait(BOOTED + 30)
    assert world.console(name)
    machine = world.ec2.instance(name)
    assert machine is not None
    answer = world.runner.ask(name, machine.address, 8080, GuestRequest("GET", "/"), 1.0, world.now)
    assert isinstance(answer, NoAnswer)


def test_terminating_powers_off_at_once_and_is_seen_for_an_hour(world: Ec2World) -> None:
    """The console is readable that long; then the instance is not found any more."""
    name = world.run()
    world.wait(BOOTED)
    volumes = world.seen(name)["BlockDeviceMappings"]
    answer = world.call("TerminateInstances", InstanceIds=[name])["TerminatingInstances"]
    assert [(each["PreviousState"]["Name"], each["CurrentState"]["Name"]) for each in answer] == [
        ("running", "shutting-down")
    ]
    assert world.runner.status(name, world.now) is None
    world.wait(instances.ENDING)
    seen = world.seen(name)
    assert seen["State"] == {"Code": 48, "Name": "terminated"}
    assert seen["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert "PrivateIpAddress" not in seen
    assert "listening" in world.console(name, Latest=True)
    assert codes(lambda: world.call("DescribeVolumes", VolumeIds=[volumes[0]["Ebs"]["VolumeId"]])) == (
        "InvalidVolume.NotFound"
    )
    again = world.call("TerminateInstances", InstanceIds=[name])["TerminatingInstances"]
    assert again[0]["PreviousState"] == again[0]["CurrentState"]
    world.wait(instances.GONE)
    assert codes(lambda: world.seen(name)) == "InvalidInstanceID.NotFound"
    assert world.ec2.instance(name) is None


def test_one_terminated_before_it_booted_never_runs(world: Ec2World) -> None:
    """No guest is left behind by an instance that nobody has."""
    name = world.run()
    world.call("TerminateInstances", InstanceIds=[name])
    world.wait(60)
    assert world.state(name) == "terminated"
    assert world.runner.status(name, world.now) is None


def test_a_volume_that_is_to_stay_stays(world: Ec2World) -> None:
    """DeleteOnTermination false leaves it, unattached."""
    keep = [{"DeviceName": "xvda", "Ebs": {"DeleteOnTermination": False, "VolumeSize": 3}}]
    name = world.run(BlockDeviceMappings=keep)
    held = world.seen(name)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    world.call("TerminateInstances", InstanceIds=[name])
    world.wait(instances.ENDING)
    [left] = world.call("DescribeVolumes", VolumeIds=[held])["Volumes"]
    assert (left["State"], left["Size"], left["Attachments"]) == ("available", 3, [])


def test_a_stopped_instance_starts_again_from_the_same_disk(world: Ec2World) -> None:
    """Stopped and started it boots anew, with its addresses and its volume."""
    name = world.run()
    world.wait(BOOTED)
    before = world.seen(name)
    world.call("StopInstances", InstanceIds=[name])
    assert codes(lambda: world.call("StartInstances", InstanceIds=[name])) == "IncorrectInstanceState"
    world.wait(instances.ENDING)
    assert world.state(name) == "stopped"
    world.call("StartInstances", InstanceIds=[name])
    assert world.state(name) == "pending"
    world.wait(BOOTED)
    seen = world.seen(name)
    assert seen["State"]["Name"] == "running"
    assert "StateReason" not in seen
    assert seen["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert seen["BlockDeviceMappings"] == before["BlockDeviceMappings"]
    assert world.runner.status(name, world.now) is not None


def test_an_instance_whose_snapshot_is_gone_runs_on_and_cannot_be_started_again(world: Ec2World) -> None:
    """A running guest has its bytes; that a stopped one would too is not simulated, and said."""
    snapshot = world.snapshot()
    image = world.image(snapshot)
    name, late = world.run(image), world.run(image)
    world.wait(BOOTED)
    world.call("StopInstances", InstanceIds=[late])
    world.wait(instances.ENDING)
    world.call("DeregisterImage", ImageId=image)
    world.call("DeleteSnapshot", SnapshotId=snapshot)
    world.wait(60)
    assert world.state(name) == "running"
    with pytest.raises(NotSimulated):
        world.call("StartInstances", InstanceIds=[late])


def test_an_instance_whose_snapshot_goes_before_it_boots_is_ended(world: Ec2World) -> None:
    """With the reason that AWS documents for it."""
    snapshot = world.snapshot()
    image = world.image(snapshot)
    name = world.run(image)
    world.call("DeregisterImage", ImageId=image)
    world.call("DeleteSnapshot", SnapshotId=snapshot)
    world.wait(BOOTED)
    assert world.state(name) == "terminated"
    assert world.seen(name)["StateReason"]["Code"] == "Client.InvalidSnapshot.NotFound"


def test_a_token_starts_once(world: Ec2World) -> None:
    """The same request with the same token gives the same instances, as they are now; after their end an error."""
    subnet, image = world.network()[1], world.image()
    first = world.run(image, SubnetId=subnet, ClientToken="one")
    world.wait(BOOTED)
    assert world.run(image, SubnetId=subnet, ClientToken="one") == first
    assert world.run(image, SubnetId=subnet, ClientToken="two") != first
    world.call("TerminateInstances", InstanceIds=[first])
    world.wait(instances.ENDING)
    assert codes(lambda: world.run(image, SubnetId=subnet, ClientToken="one")) == "IdempotentInstanceTerminated"


def test_the_console_without_latest_is_the_one_posted_last(world: Ec2World) -> None:
    """Nothing before it is posted, and nothing newer after; Xen types have no other."""
    image = world.image(world.snapshot(disk(says="first", phases=[{"after": 50, "says": "second"}])))
    name = world.run(image, InstanceType="t2.micro")
    assert world.console(name) == ""
    world.wait(BOOTED + instances.POSTED)
    assert "first" in world.console(name)
    assert codes(lambda: world.console(name, Latest=True)) == "UnsupportedOperation"
    world.call("TerminateInstances", InstanceIds=[name])
    nitro = world.run(image)
    world.wait(BOOTED + 40)
    assert "listening" not in world.console(nitro)
    assert world.console(nitro, Latest=True) == world.console(nitro)


def test_balancers_are_told_of_every_state(world: Ec2World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, from pending to terminated."""
    told: list[str] = []
    from osvdeploy.sandbox.services import elbv2

    monkeypatch.setattr(elbv2, "instance_changed", lambda scope, instance, state: told.append(state))
    name = world.run()
    world.wait(BOOTED)
    for operation in ("StopInstances", "StartInstances", "TerminateInstances"):
        world.call(operation, InstanceIds=[name])
        world.wait(10)
    assert told == [
        "pending",
        "running",
        "stopping",
        "stopped",
        "pending",
        "running",
        "shutting-down",
        "terminated",
    ]


class Later:
    """A scope whose outside work waits until it is asked for, as with guests that are real processes."""

    def __init__(self, world: Ec2World) -> None:
        self.waiting: list[Callable[[], None]] = []
        world.outside = self._outside  # type: ignore[method-assign]  # the port that is put in
        self._world = world

    def _outside(self, work: Callable[[], Any], then: Callable[[Scope, Any], None]) -> None:
        self.waiting.append(lambda: then(self._world, work()))

    def work(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


def test_an_instance_ended_while_its_guest_was_powered_on_leaves_no_guest(world: Ec2World) -> None:
    """Also where powering on takes longer than anybody waits."""
    later = Later(world)
    name = world.run()
    world.wait(BOOTED)
    assert world.state(name) == "pending"
    world.call("TerminateInstances", InstanceIds=[name])
    later.work()
    world.wait(instances.ENDING)
    assert world.state(name) == "terminated"
    assert world.runner.status(name, world.now) is None


def test_instances_are_stopped_only_when_their_guest_is_off(world: Ec2World) -> None:
    """However long powering off takes."""
    name = world.run()
    world.wait(BOOTED)
    later = Later(world)
    world.call("StopInstances", InstanceIds=[name])
    world.wait(100)
    assert world.state(name) == "stopping"
    later.work()
    world.wait(instances.ENDING)
    assert world.state(name) == "stopped"
    assert "listening" in world.console(name)


def test_guests_come_back_with_the_sandbox(world: Ec2World) -> None:
    """After a restart what ran runs again, what was ending ends."""
    running, ending = world.run(world.image()), None
    world.wait(BOOTED)
    ending = world.run(world.image(Name="other"))
    world.wait(BOOTED)
    later = Later(world)
    world.call("TerminateInstances", InstanceIds=[ending])
    later.waiting.clear()  # the process died before it was done
    del world.outside
    world.runner.close()
    instances.resume(world)
    world.wait(instances.ENDING)
    assert (world.state(running), world.state(ending)) == ("running", "terminated")
    assert world.runner.status(running, world.now) is not None


# ---------------------------------------------------------------------------------------------- groups' interface


def test_a_group_launches_that_very_version(world: Ec2World) -> None:
    """AWS's own tags stand beside the template's; the answer is what the group needs to know."""
    subnet, image = world.network()[1], world.image()
    data = {
        "ImageId": image,
        "InstanceType": "t3.micro",
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required"},
        "TagSpecifications": [*with_tags("instance", a="1"), *with_tags("volume", v="2")],
    }
    made = world.call("CreateLaunchTemplate", LaunchTemplateName="one", LaunchTemplateData=data)["LaunchTemplate"]
    world.call("CreateLaunchTemplateVersion", LaunchTemplateName="one", LaunchTemplateData={"ImageId": image})
    template = world.ec2.template(template_id=None, name="one", version="$Default")
    assert (template.id, template.version, template.image) == (made["LaunchTemplateId"], "1", image)
    machine = world.ec2.launch(template, subnet, {"aws:autoscaling:groupName": "g"})
    assert (machine.state, machine.subnet, machine.type, machine.zone) == ("pending", subnet, "t3.micro", "eu-west-1a")
    seen = world.seen(machine.id)
    assert tags_of(seen) == {
        "a": "1",
        "aws:autoscaling:groupName": "g",
        "aws:ec2launchtemplate:id": template.id,
        "aws:ec2launchtemplate:version": "1",
    }
    assert seen["MetadataOptions"]["HttpTokens"] == "required"
    [held] = world.call("DescribeVolumes", Filters=[{"Name": "attachment.instance-id", "Values": [machine.id]}])[
        "Volumes"
    ]
    assert (tags_of(held), held["VolumeType"], held["Size"]) == ({"v": "2"}, "gp3", 1)
    world.ec2.terminate(machine.id)
    world.ec2.terminate(machine.id)
    assert world.state(machine.id) == "shutting-down"


def test_a_template_that_cannot_start_says_why(world: Ec2World) -> None:
    """In RunInstances' own words: an unknown image, version, template or type."""
    image = world.image()
    for name, data in {
        "image": {"ImageId": "ami-" + "0" * 17, "InstanceType": "t3.small"},
        "type": {"ImageId": image, "InstanceType": "t3.huge"},
        "none": {"InstanceType": "t3.small"},
    }.items():
        world.call("CreateLaunchTemplate", LaunchTemplateName=name, LaunchTemplateData=data)

    def refusal(name: str, version: str = "1") -> str:
        return codes(lambda: world.ec2.template(template_id=None, name=name, version=version))

    assert refusal("image") == "InvalidAMIID.NotFound"
    assert refusal("type") == "InvalidParameterValue"
    assert refusal("none") == "MissingParameter"
    assert refusal("image", "2") == "InvalidLaunchTemplateId.VersionNotFound"
    assert refusal("unknown") == "InvalidLaunchTemplateName.NotFoundException"


def test_others_see_networks_or_nothing(world: Ec2World) -> None:
    """None for what does not exist."""
    vpc, subnet = world.network()
    found = world.ec2.subnet(subnet)
    assert found is not None
    assert (found["SubnetId"], found["VpcId"], found["AvailabilityZone"]) == (subnet, vpc, "eu-west-1a")
    group = world.ec2.security_group(world.ec2.default_security_group(vpc))
    assert group is not None
    assert group["VpcId"] == vpc
    assert world.ec2.vpc(vpc) is not None
    for missing in (world.ec2.vpc("x"), world.ec2.subnet("x"), world.ec2.security_group("x"), world.ec2.instance("x")):
        assert missing is None


# ------------------------------------------------------------------------------------------- templates and images


def test_template_versions_are_numbered_and_newest_first(world: Ec2World) -> None:
    """A version says what it changes of its source; the default stays the first."""
    world.call("CreateLaunchTemplate", LaunchTemplateName="one", LaunchTemplateData={"InstanceType": "t3.nano"})
    second = world.call(
        "CreateLaunchTemplateVersion",
        LaunchTemplateName="one",
        SourceVersion="1",
        LaunchTemplateData={"InstanceInitiatedShutdownBehavior": "stop"},
    )["LaunchTemplateVersion"]
    assert second["LaunchTemplateData"] == {
        "InstanceType": "t3.nano",
        "InstanceInitiatedShutdownBehavior": "stop",
    }

    def numbers(**params: Any) -> list[int]:
        found = world.call("DescribeLaunchTemplateVersions", **params)["LaunchTemplateVersions"]
        return [version["VersionNumber"] for version in found]

    assert numbers(LaunchTemplateName="one") == [2, 1]
    assert numbers(LaunchTemplateName="one", Versions=["$Default"]) == [1]
    assert numbers(Versions=["$Latest"]) == [2]
    assert numbers(LaunchTemplateName="one", MinVersion="2") == [2]
    assert numbers(LaunchTemplateName="one", MaxVersion="1") == [1]
    world.call("DeleteLaunchTemplate", LaunchTemplateName="one")
    assert world.call("DescribeLaunchTemplates") == {"LaunchTemplates": []}


def test_a_token_makes_one_template_also_after_it_is_deleted(world: Ec2World) -> None:
    """Asked again, AWS answers what it answered: the caller is told of a template that is gone."""
    params: dict[str, Any] = {
        "LaunchTemplateName": "one",
        "LaunchTemplateData": {"InstanceType": "t3.nano"},
        "ClientToken": "token",
    }
    first = world.call("CreateLaunchTemplate", **params)
    assert world.call("CreateLaunchTemplate", **params) == first
    world.call("DeleteLaunchTemplate", LaunchTemplateName="one")
    assert world.call("CreateLaunchTemplate", **params) == first
    assert world.call("DescribeLaunchTemplates")["LaunchTemplates"] == []


def test_an_image_is_what_was_registered(world: Ec2World) -> None:
    """Devices, boot mode, ENA, description and tags come back; it is pending first."""
    snapshot = world.snapshot()
    tags = with_tags("image", a="1")
    name = world.call("RegisterImage", **image_params(snapshot), Description="said", TagSpecifications=tags)["ImageId"]
    [image] = world.call("DescribeImages", ImageIds=[name])["Images"]
    assert image["State"] == "pending"
    assert image["BlockDeviceMappings"] == [
        {
            "DeviceName": "xvda",
            "Ebs": {
                "SnapshotId": snapshot,
                "VolumeSize": 1,
                "VolumeType": "gp3",
                "DeleteOnTermination": True,
                "Encrypted": False,
            },
        }
    ]
    wanted = {
        "Name": "hello 1.0",
        "Description": "said",
        "Architecture": "x86_64",
        "BootMode": "legacy-bios",
        "EnaSupport": True,
        "RootDeviceName": "xvda",
        "VirtualizationType": "hvm",
        "OwnerId": world.account,
        "CreationDate": "2030-01-01T00:00:04.000Z",
    }
    assert {key: image[key] for key in wanted} == wanted
    assert tags_of(image) == {"a": "1"}
    world.wait(images.REGISTRATION)
    [image] = world.call("DescribeImages", Owners=["self"])["Images"]
    assert image["State"] == "available"
    assert world.call("DescribeImages", Owners=["amazon"])["Images"] == []
    world.call("DeregisterImage", ImageId=name)
    assert world.call("DescribeImages")["Images"] == []
    assert world.call("RegisterImage", **image_params(snapshot))["ImageId"] != name


def test_a_snapshot_is_deleted_when_no_image_needs_it(world: Ec2World) -> None:
    """With its blocks; a child keeps what it inherits, and boots."""
    snapshot = world.snapshot()
    answer = ebs.OPERATIONS["StartSnapshot"](world, {"VolumeSize": 1, "ParentSnapshotId": snapshot})
    child = answer["SnapshotId"]
    ebs.OPERATIONS["CompleteSnapshot"](world, {"SnapshotId": child, "ChangedBlocksCount": 0})
    world.wait(ebs.COMPLETION)
    found = world.call("DescribeSnapshots", OwnerIds=["self"], Filters=[{"Name": "status", "Values": ["completed"]}])
    assert {each["SnapshotId"] for each in found["Snapshots"]} == {snapshot, child}
    world.call("DeleteSnapshot", SnapshotId=snapshot)
    assert codes(lambda: world.call("DescribeSnapshots", SnapshotIds=[snapshot])) == "InvalidSnapshot.NotFound"
    name = world.run(world.image(child))
    world.wait(BOOTED)
    assert "listening" in world.console(name, Latest=True)


# -------------------------------------------------------------------------------------------------------- networks


def test_a_vpc_has_a_main_route_table_and_a_default_group_of_its_own(world: Ec2World) -> None:
    """They come and go with it."""
    vpc = world.call("CreateVpc", CidrBlock="10.9.8.7/16", TagSpecifications=with_tags("vpc", a="1"))["Vpc"]["VpcId"]
    [seen] = world.call("DescribeVpcs", VpcIds=[vpc])["Vpcs"]
    assert (seen["CidrBlock"], seen["State"], tags_of(seen)) == ("10.9.0.0/16", "available", {"a": "1"})
    only = [{"Name": "vpc-id", "Values": [vpc]}]
    [table] = world.call("DescribeRouteTables", Filters=[*only, {"Name": "association.main", "Values": ["true"]}])[
        "RouteTables"
    ]
    assert [route["GatewayId"] for route in table["Routes"]] == ["local"]
    [group] = world.call("DescribeSecurityGroups", Filters=only)["SecurityGroups"]
    assert group["GroupName"] == "default"
    world.call("DeleteVpc", VpcId=vpc)
    assert world.documents() == {kind: {} for kind in world.documents()}


def test_a_network_is_taken_down_in_aws_order(world: Ec2World) -> None:
    """Each step is refused until what hangs on it is gone; a route to a gateway that left leads nowhere."""
    vpc, subnet = world.network()
    group = world.call("CreateSecurityGroup", GroupName="web", Description="x", VpcId=vpc)["GroupId"]
    gateway = world.call("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
    world.call("AttachInternetGateway", InternetGatewayId=gateway, VpcId=vpc)
    table = world.call("DescribeRouteTables")["RouteTables"][0]["RouteTableId"]
    for _ in range(2):
        world.call("CreateRoute", RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    name = world.run(SubnetId=subnet, SecurityGroupIds=[group])
    steps: list[tuple[str, dict[str, str]]] = [
        ("DeleteVpc", {"VpcId": vpc}),
        ("DeleteInternetGateway", {"InternetGatewayId": gateway}),
        ("DeleteSecurityGroup", {"GroupId": group}),
        ("DeleteSubnet", {"SubnetId": subnet}),
    ]

    def refused() -> list[str]:
        return [codes(lambda step=step: world.call(step[0], **step[1])) for step in steps]  # type: ignore[misc]  # the default binds it

    assert refused() == ["DependencyViolation"] * 4
    world.call("TerminateInstances", InstanceIds=[name])
    assert refused() == ["DependencyViolation"] * 4
    world.wait(instances.ENDING)
    for operation, params in (steps.pop(), steps.pop()):
        world.call(operation, **params)
    assert refused() == ["DependencyViolation"] * 2
    world.call("DetachInternetGateway", InternetGatewayId=gateway, VpcId=vpc)
    assert world.call("DescribeRouteTables")["RouteTables"][0]["Routes"][1]["State"] == "blackhole"
    for operation, params in (steps.pop(), steps.pop()):
        world.call(operation, **params)
    assert world.call("DescribeVpcs")["Vpcs"] == []


def test_a_route_table_of_its_own(world: Ec2World) -> None:
    """A subnet that is given one has it in place of the main one, until it is taken off or the subnet goes; the VPC
    stays while the table does, and the table while a subnet has it."""
    vpc, subnet = world.network()
    tags = with_tags("route-table", Name="public")
    table, again = (
        world.call("CreateRouteTable", VpcId=vpc, TagSpecifications=tags, ClientToken="once")["RouteTable"]
        for _ in range(2)
    )
    assert again == table
    assert [route["GatewayId"] for route in table["Routes"]] == ["local"]
    assert tags_of(table) == {"Name": "public"}
    name = table["RouteTableId"]
    gateway = world.call("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
    world.call("AttachInternetGateway", InternetGatewayId=gateway, VpcId=vpc)
    world.call("CreateRoute", RouteTableId=name, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    world.call("DeleteRoute", RouteTableId=name, DestinationCidrBlock="0.0.0.0/0")
    made = world.call("AssociateRouteTable", RouteTableId=name, SubnetId=subnet)["AssociationId"]
    has = [{"Name": "association.subnet-id", "Values": [subnet]}]
    [seen] = world.call("DescribeRouteTables", Filters=has)["RouteTables"]
    assert (seen["RouteTableId"], len(seen["Routes"])) == (name, 1)
    world.call("DisassociateRouteTable", AssociationId=made)
    assert world.call("DescribeRouteTables", Filters=has)["RouteTables"] == []
    world.call("AssociateRouteTable", RouteTableId=name, SubnetId=subnet)
    world.call("DeleteSubnet", SubnetId=subnet)
    world.call("DetachInternetGateway", InternetGatewayId=gateway, VpcId=vpc)
    assert codes(lambda: world.call("DeleteVpc", VpcId=vpc)) == "DependencyViolation"
    world.call("DeleteRouteTable", RouteTableId=name)
    world.call("DeleteVpc", VpcId=vpc)
    assert world.call("DescribeRouteTables")["RouteTables"] == []


def test_rules_are_given_and_taken_away(world: Ec2World) -> None:
    """In both directions; a permission without peers is gone, and the rule that lets all out is one like any other."""
    vpc = world.network()[0]
    group, other = (
        world.call("CreateSecurityGroup", GroupName=name, Description="x", VpcId=vpc)["GroupId"] for name in "ab"
    )
    to_other = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": [{"GroupId": other}]}
    out = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    world.call("AuthorizeSecurityGroupIngress", GroupId=group, IpPermissions=[to_other])
    [rule] = world.call("AuthorizeSecurityGroupEgress", GroupId=group, IpPermissions=[to_other])["SecurityGroupRules"]
    assert (rule["IsEgress"], rule["ReferencedGroupInfo"]["GroupId"]) == (True, other)
    world.call("RevokeSecurityGroupEgress", GroupId=group, IpPermissions=[out])
    world.call("RevokeSecurityGroupIngress", GroupId=group, IpPermissions=[to_other])
    [seen] = world.call("DescribeSecurityGroups", GroupIds=[group])["SecurityGroups"]
    assert seen["IpPermissions"] == []
    assert [each["UserIdGroupPairs"][0]["GroupId"] for each in seen["IpPermissionsEgress"]] == [other]
    assert codes(lambda: world.call("DeleteSecurityGroup", GroupId=other)) == "DependencyViolation"
    world.call("RevokeSecurityGroupEgress", GroupId=group, IpPermissions=[to_other])
    world.call("DeleteSecurityGroup", GroupId=other)
    [default] = world.call("DescribeSecurityGroups", Filters=[{"Name": "group-name", "Values": ["default"]}])[
        "SecurityGroups"
    ]
    assert default["IpPermissionsEgress"][0]["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]


def test_a_groups_rules_are_shown_together(world: Ec2World) -> None:
    """Ranges of the same ports are one permission, as DescribeSecurityGroups gives them."""
    vpc = world.network()[0]
    group = world.call("CreateSecurityGroup", GroupName="web", Description="x", VpcId=vpc)["GroupId"]
    for cidr in ("10.0.0.0/8", "192.168.0.1/16"):
        world.call(
            "AuthorizeSecurityGroupIngress",
            GroupId=group,
            IpPermissions=[{"IpProtocol": "6", "FromPort": 80, "ToPort": 90, "IpRanges": [{"CidrIp": cidr}]}],
        )
    [seen] = world.call("DescribeSecurityGroups", GroupIds=[group])["SecurityGroups"]
    assert seen["IpPermissions"] == [
        {
            "IpProtocol": "tcp",
            "FromPort": 80,
            "ToPort": 90,
            "IpRanges": [{"CidrIp": "10.0.0.0/8"}, {"CidrIp": "192.168.0.0/16"}],
            "Ipv6Ranges": [],
            "PrefixListIds": [],
            "UserIdGroupPairs": [],
        }
    ]


def test_zones_regions_and_types_are_told(world: Ec2World) -> None:
    """Three zones; types with what decides whether an image boots on them."""
    zones = world.call("DescribeAvailabilityZones")["AvailabilityZones"]
    assert [(zone["ZoneName"], zone["ZoneId"]) for zone in zones] == [
        ("eu-west-1a", "euw1-az1"),
        ("eu-west-1b", "euw1-az2"),
        ("eu-west-1c", "euw1-az3"),
    ]
    assert world.call("DescribeRegions")["Regions"][0]["RegionName"] == "eu-west-1"
    [xen] = world.call("DescribeInstanceTypes", InstanceTypes=["t2.micro"])["InstanceTypes"]
    assert (xen["Hypervisor"], xen["SupportedBootModes"], xen["VCpuInfo"]) == (
        "xen",
        ["legacy-bios"],
        {"DefaultVCpus": 1},
    )
    nitro = world.call("DescribeInstanceTypes", Filters=[{"Name": "hypervisor", "Values": ["nitro"]}])
    assert "t3.small" in [each["InstanceType"] for each in nitro["InstanceTypes"]]


# --------------------------------------------------------------------------------------------- tags, filters, pages


def test_tags_are_put_on_and_taken_off(world: Ec2World) -> None:
    """A value that differs protects a tag from being taken; AWS's own stay; DescribeTags shows all."""
    vpc, subnet = world.network()
    world.call("CreateTags", Resources=[vpc, subnet], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    world.call("CreateTags", Resources=[vpc], Tags=[{"Key": "a", "Value": "3"}])
    world.call("DeleteTags", Resources=[vpc], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b"}])
    world.call("DeleteTags", Resources=[subnet])
    assert world.call("DescribeTags")["Tags"] == [{"ResourceType": "vpc", "ResourceId": vpc, "Key": "a", "Value": "3"}]
    assert world.call("DescribeTags", Filters=[{"Name": "resource-type", "Values": ["subnet"]}])["Tags"] == []


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ({"Name": "tag:app", "Values": ["shop"]}, "a"),
        ({"Name": "tag:app", "Values": ["sh?p"]}, "ab"),
        ({"Name": "tag:app", "Values": ["*"]}, "abc"),
        ({"Name": "tag:app", "Values": [r"\*"]}, "c"),
        ({"Name": "tag:app", "Values": ["SHOP"]}, ""),
        ({"Name": "tag:app", "Values": ["shop", "ship"]}, "ab"),
        ({"Name": "tag-key", "Values": ["app"]}, "abc"),
        ({"Name": "tag-key", "Values": ["a"]}, ""),
        ({"Name": "cidr", "Values": ["10.?.0.0/16"]}, "abcd"),
        ({"Name": "is-default", "Values": ["true"]}, ""),
    ],
)
def test_filters_match_as_awss_do(world: Ec2World, condition: Doc, found: str) -> None:
    """Case counts, wildcards stand for characters unless escaped, several values are alternatives."""
    for number, app in enumerate(["shop", "ship", "*", None]):
        tags = with_tags("vpc", app=app, letter="abcd"[number]) if app else with_tags("vpc", letter="d")
        world.call("CreateVpc", CidrBlock=f"10.{number}.0.0/16", TagSpecifications=tags)
    vpcs = world.call("DescribeVpcs", Filters=[condition])["Vpcs"]
    assert "".join(tags_of(vpc)["letter"] for vpc in vpcs) == found


def test_instances_are_found_by_tag_and_state(world: Ec2World) -> None:
    """All filters must hold; instances of one request share their reservation."""
    subnet, image = world.network()[1], world.image()
    first = world.run(image, SubnetId=subnet, MinCount=2, MaxCount=2, TagSpecifications=with_tags("instance", a="1"))
    world.wait(BOOTED)
    world.call("TerminateInstances", InstanceIds=[first])
    conditions = [
        {"Name": "tag:a", "Values": ["1"]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]
    [reservation] = world.call("DescribeInstances", Filters=conditions)["Reservations"]
    assert [instance["InstanceId"] == first for instance in reservation["Instances"]] == [False]
    [both] = world.call("DescribeInstances", Filters=conditions[:1])["Reservations"]
    assert len(both["Instances"]) == 2
    assert len(world.call("DescribeInstanceStatus")["InstanceStatuses"]) == 1
    assert len(world.call("DescribeInstanceStatus", IncludeAllInstances=True)["InstanceStatuses"]) == 2


@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 23), size=st.integers(5, 12), removed=st.sets(st.integers(0, 22)))
def test_pages_hold_everything_once(count: int, size: int, removed: set[int]) -> None:
    """However large the pages are and whatever is deleted between two of them, no one that stays is left out."""
    world = Ec2World()
    made = [world.call("CreateVpc", CidrBlock=f"10.{number}.0.0/16")["Vpc"]["VpcId"] for number in range(count)]
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = world.call("DescribeVpcs", MaxResults=size, **token)
        found += [vpc["VpcId"] for vpc in page["Vpcs"]]
        assert len(page["Vpcs"]) <= size
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
        gone = {made[number] for number in removed if number < count} - {found[-1]}
        for vpc in gone & {each["VpcId"] for each in world.call("DescribeVpcs")["Vpcs"]}:
            world.call("DeleteVpc", VpcId=vpc)
    assert len(found) == len(set(found))
    stay = {name for number, name in enumerate(made) if number not in removed}
    assert stay <= set(found)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab*?\\.[", max_size=6))
def test_an_escaped_text_matches_itself_alone(text: str) -> None:
    """Whatever a value holds, it can be asked for exactly."""
    escaped = re.sub(r"([*?\\])", r"\\\1", text)
    query = resources.Query("DescribeVpcs", {"cidr": "CidrBlock"}, "CidrBlock")
    items = [{"CidrBlock": text}, {"CidrBlock": text + "a"}, {"CidrBlock": "b" + text}]
    found = query.select({"Filters": [{"Name": "cidr", "Values": [escaped or ""]}]}, items)
    assert found == items[:1]


_STEPS = st.lists(
    st.one_of(
        st.sampled_from(["StartInstances", "StopInstances", "TerminateInstances"]),
        st.floats(0, 8).map(lambda seconds: timedelta(seconds=seconds)),
    ),
    max_size=12,
)
_ALLOWED = {
    "pending": {"running", "shutting-down"},
    "running": {"stopping", "shutting-down"},
    "stopping": {"stopped", "shutting-down"},
    "stopped": {"pending", "shutting-down"},
    "shutting-down": {"terminated"},
    "terminated": set(),
}


@settings(max_examples=40, deadline=None)
@given(_STEPS)
def test_states_follow_one_another_as_the_lifecycle_says(steps: list[str | timedelta]) -> None:
    """Whatever is called and whenever; a guest is on exactly while its instance runs; in the end it rests."""
    world = Ec2World()
    name = world.run()
    states = ["pending"]

    def changed(scope: object, instance: str, state: str) -> None:
        assert state in _ALLOWED[states[-1]], f"{states[-1]} -> {state}"
        states.append(state)

    from osvdeploy.sandbox.services import elbv2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elbv2, "instance_changed", changed)
        for step in steps:
            if isinstance(step, timedelta):
                world.wait(step.total_seconds())
            else:
                try:
                    world.call(step, InstanceIds=[name])
                except ApiError as refused:
                    assert refused.code == "IncorrectInstanceState"
            assert (world.runner.status(name, world.now) is not None) == (world.state(name) == "running")
        world.wait(60)
    assert world.state(name) in ("running", "stopped", "terminated")


def test_every_event_is_known_by_its_name() -> None:
    """Event names begin with the service's."""
    assert all(name.startswith("ec2.") for name in ec2.EVENTS)
