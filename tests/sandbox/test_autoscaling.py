"""Auto Scaling: what groups do by themselves, what they record, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.services import autoscaling, elbv2
from osvdeploy.sandbox.services.scope import Doc
from tests.sandbox.refusal_sites import met, missed
from tests.sandbox.test_elbv2 import balancer, forward, target_group
from tests.sandbox.volumes import declared, volume
from tests.sandbox.world import BOOT_TIME, END_TIME, World

NAME = "app-1"


def create(world: World, name: str = NAME, **changes: Any) -> None:
    settings: Doc = {
        "AutoScalingGroupName": name,
        "MinSize": 0,
        "MaxSize": 4,
        "DesiredCapacity": 2,
        "LaunchTemplate": {"LaunchTemplateId": "lt-1", "Version": "1"},
        "VPCZoneIdentifier": "subnet-a,subnet-b",
        **changes,
    }
    world.asg("CreateAutoScalingGroup", **{key: value for key, value in settings.items() if value is not None})


def group(world: World, name: str = NAME) -> Doc | None:
    found = world.asg("DescribeAutoScalingGroups", AutoScalingGroupNames=[name])["AutoScalingGroups"]
    return found[0] if found else None


def members(world: World, name: str = NAME) -> dict[str, str]:
    """Instance ids with their lifecycle states."""
    shown = group(world, name)
    return {} if shown is None else {each["InstanceId"]: each["LifecycleState"] for each in shown["Instances"]}


def activities(world: World, **params: Any) -> list[Doc]:
    found = world.asg("DescribeScalingActivities", **{"AutoScalingGroupName": NAME, **params})["Activities"]
    return [dict(each) for each in found]


def served(world: World, draining: str = "30") -> tuple[str, str]:
    """A listener that forwards to a target group, and the group."""
    blue = target_group(world, "blue")
    delay = [{"Key": "deregistration_delay.timeout_seconds", "Value": draining}]
    world.elb("ModifyTargetGroupAttributes", TargetGroupArn=blue, Attributes=delay)
    created = world.elb(
        "CreateListener", LoadBalancerArn=balancer(world), Protocol="HTTP", Port=8000, DefaultActions=forward((blue, 1))
    )
    return created["Listeners"][0]["ListenerArn"], blue


def targets(world: World, arn: str) -> dict[str, str]:
    shown = world.elb("DescribeTargetHealth", TargetGroupArn=arn)["TargetHealthDescriptions"]
    return {each["Target"]["Id"]: each["TargetHealth"]["State"] for each in shown}


@pytest.fixture
def world() -> World:
    return World()


def test_a_group_starts_what_is_desired(world: World) -> None:
    """Pending, then in service once EC2 runs them, spread over the zones, with the propagated tags; all recorded."""
    tags = [
        {"Key": "osvdeploy", "Value": "1", "PropagateAtLaunch": True},
        {"Key": "note", "Value": "x", "PropagateAtLaunch": False},
    ]
    create(world, Tags=tags)
    assert members(world) == {}
    world.wait(autoscaling.FIRST_LOOK)
    assert set(members(world).values()) == {"Pending"}
    world.wait(BOOT_TIME + autoscaling.WATCH_BUSY)
    assert set(members(world).values()) == {"InService"}
    shown = group(world)
    assert shown is not None
    assert {each["AvailabilityZone"] for each in shown["Instances"]} == {"eu-west-1a", "eu-west-1b"}
    assert all(tags == {"osvdeploy": "1", "aws:autoscaling:groupName": NAME} for tags in world.ec2.tags.values())
    newest, oldest = activities(world)
    assert [newest["StatusCode"], newest["Progress"]] == ["Successful", 100]
    assert newest["Description"] == "Launching a new EC2 instance: i-00000002"
    assert oldest["Cause"] == (
        "At 2030-01-01T00:00:00Z a user request created an AutoScalingGroup changing the desired capacity "
        "from 0 to 2.  At 2030-01-01T00:00:01Z an instance was started in response to a difference between "
        "desired and actual capacity, increasing the capacity from 0 to 1."
    )


def test_instances_in_service_are_targets(world: World) -> None:
    """They are registered when they come into service, not before, and serve once they are healthy."""
    listener, blue = served(world)
    create(world, TargetGroupARNs=[blue])
    world.wait(autoscaling.FIRST_LOOK + 1)
    assert targets(world, blue) == {}
    world.wait(20)
    assert targets(world, blue) == dict.fromkeys(members(world), "healthy")
    assert elbv2.view(world).endpoints[listener].address == "127.0.7.1"
    states = world.asg("DescribeLoadBalancerTargetGroups", AutoScalingGroupName=NAME)["LoadBalancerTargetGroups"]
    assert states == [{"LoadBalancerTargetGroupARN": blue, "State": "InService"}]


def test_scale_in_drains_before_it_ends(world: World) -> None:
    """The instance leaves its target group at once, drains for the delay, and only then is ended and forgotten."""
    _, blue = served(world, draining="30")
    create(world, TargetGroupARNs=[blue])
    world.wait(30)
    world.asg("SetDesiredCapacity", AutoScalingGroupName=NAME, DesiredCapacity=1)
    world.wait(autoscaling.FIRST_LOOK)
    assert sorted(members(world).values()) == ["InService", "Terminating"]
    assert sorted(targets(world, blue).values()) == ["draining", "healthy"]
    assert activities(world)[0]["StatusCode"] == "WaitingForELBConnectionDraining"
    world.wait(29)
    assert len(world.ec2.living()) == 2
    world.wait(1 + autoscaling.WATCH_BUSY)
    assert len(world.ec2.living()) == 1
    world.wait(END_TIME + autoscaling.WATCH_BUSY)
    assert list(members(world).values()) == ["InService"]
    newest = activities(world)[0]
    assert newest["StatusCode"] == "Successful"
    assert newest["Description"].startswith("Terminating EC2 instance: i-")
    assert "changing the desired capacity from 2 to 1" in newest["Cause"]
    assert "shrinking the capacity from 2 to 1" in newest["Cause"]


def test_an_instance_that_stopped_is_replaced(world: World) -> None:
    """By a health check that says so; the group is whole again without a call."""
    create(world)
    world.wait(30)
    lost = next(iter(members(world)))
    world.ec2.stop(lost)
    world.wait(autoscaling.WATCH_IDLE + BOOT_TIME + END_TIME + 2 * autoscaling.WATCH_BUSY)
    assert lost not in members(world)
    assert list(members(world).values()) == ["InService", "InService"]
    causes = " ".join(each["Cause"] for each in activities(world))
    assert "EC2 health check indicating it has been terminated or stopped" in causes


def test_a_guest_that_powers_off_is_replaced_again_and_again(world: World) -> None:
    """A release whose program exits loops through launches that were cancelled or replaced: the record tells."""
    world.ec2.images["ami-1"] = volume({"/app": declared(boot="exit 1", after=0.5)})
    create(world, DesiredCapacity=1)
    world.wait(120)
    assert len(world.ec2.instances) > 3
    assert len(world.ec2.living()) <= 1
    assert "Terminating EC2 instance" in {each["Description"].partition(":")[0] for each in activities(world)}


@pytest.mark.parametrize("process", ["HealthCheck", "ReplaceUnhealthy", "Terminate", "Launch"])
def test_suspended_processes_are_obeyed(world: World, process: str) -> None:
    """Without health checks or replacement a stopped instance stays; without launches none comes in its place."""
    create(world, DesiredCapacity=1)
    world.wait(30)
    (lost,) = members(world)
    world.asg("SuspendProcesses", AutoScalingGroupName=NAME, ScalingProcesses=[process])
    world.ec2.stop(lost)
    world.wait(60)
    if process == "Launch":
        assert members(world) == {}
    else:
        assert members(world) == {lost: "InService"}
    world.asg("ResumeProcesses", AutoScalingGroupName=NAME)
    world.wait(60)
    assert lost not in members(world)
    assert list(members(world).values()) == ["InService"]


def test_an_instance_its_balancer_finds_unhealthy_is_replaced_after_the_grace_period(world: World) -> None:
    """With health check type ELB only; with EC2 the answers of the program do not matter."""
    _, blue = served(world)
    world.ec2.images["ami-1"] = volume({"/app": declared(answers={"*": 500})})
    create(world, DesiredCapacity=1, TargetGroupARNs=[blue], HealthCheckType="ELB", HealthCheckGracePeriod=60)
    create(world, "patient", DesiredCapacity=1, TargetGroupARNs=[blue])
    world.wait(50)
    (first,) = members(world)
    assert targets(world, blue)[first] == "unhealthy"
    world.wait(60)
    assert first not in members(world) or members(world)[first] == "Terminating"
    assert len(members(world, "patient")) == 1
    assert any("ELB system health check failure" in each["Cause"] for each in activities(world))


def test_a_launch_that_fails_is_recorded_and_tried_again(world: World) -> None:
    """The activity has EC2's reason; when the image is back, so is the capacity."""
    create(world, DesiredCapacity=0)
    image = world.ec2.images.pop("ami-1")
    world.asg("SetDesiredCapacity", AutoScalingGroupName=NAME, DesiredCapacity=1)
    world.wait(autoscaling.FIRST_LOOK)
    (failed,) = activities(world)
    assert (failed["StatusCode"], failed["Progress"]) == ("Failed", 100)
    assert failed["StatusMessage"] == "The image id '[ami-1]' does not exist. Launching EC2 instance failed."
    assert failed["Description"] == (
        "Launching a new EC2 instance.  Status Reason: "
        "The image id '[ami-1]' does not exist. Launching EC2 instance failed."
    )
    world.wait(autoscaling.RETRY_FIRST)
    assert len(activities(world)) == 2
    world.ec2.images["ami-1"] = image
    world.wait(120)
    assert list(members(world).values()) == ["InService"]


def test_force_delete_keeps_the_name_until_the_last_instance_is_gone(world: World) -> None:
    """Deleting again succeeds meanwhile; the name is free afterwards, and the record is kept on request."""
    _, blue = served(world, draining="300")
    create(world, TargetGroupARNs=[blue])
    world.wait(30)
    world.asg("DeleteAutoScalingGroup", AutoScalingGroupName=NAME, ForceDelete=True)
    world.asg("DeleteAutoScalingGroup", AutoScalingGroupName=NAME, ForceDelete=True)
    assert world.ec2.living() == []
    shown = group(world)
    assert shown is not None
    assert shown["Status"] == "Delete in progress"
    with pytest.raises(ApiError, match="AlreadyExists"):
        create(world)
    world.wait(END_TIME + 2 * autoscaling.WATCH_BUSY)
    assert group(world) is None
    with pytest.raises(ApiError, match="not found"):
        activities(world)
    assert {each["AutoScalingGroupState"] for each in activities(world, IncludeDeletedGroups=True)} == {"Deleted"}
    create(world)
    world.wait(30)
    assert list(members(world).values()) == ["InService", "InService"]


def test_an_empty_group_is_deleted_without_force(world: World) -> None:
    """It is gone soon after."""
    create(world, DesiredCapacity=0)
    world.asg("DeleteAutoScalingGroup", AutoScalingGroupName=NAME)
    world.wait(autoscaling.FIRST_LOOK)
    assert group(world) is None


def test_terminating_one_instance(world: World) -> None:
    """With a replacement, or with one less desired."""
    create(world)
    world.wait(30)
    first, second = members(world)
    answer = world.asg("TerminateInstanceInAutoScalingGroup", InstanceId=first, ShouldDecrementDesiredCapacity=False)
    assert answer["Activity"]["Description"] == f"Terminating EC2 instance: {first}"
    world.wait(30)
    assert len(members(world)) == 2
    assert first not in members(world)
    world.asg("TerminateInstanceInAutoScalingGroup", InstanceId=second, ShouldDecrementDesiredCapacity=True)
    world.wait(30)
    shown = group(world)
    assert shown is not None
    assert (shown["DesiredCapacity"], len(shown["Instances"])) == (1, 1)


def test_update_moves_sizes_and_template(world: World) -> None:
    """Desired capacity follows new bounds; a new version holds for new instances alone."""
    create(world)
    world.wait(30)
    world.ec2.images["ami-2"] = world.ec2.images["ami-1"]
    world.ec2.templates["lt-1"][1].append("ami-2")
    template = {"LaunchTemplateName": "template", "Version": "2"}
    world.asg("UpdateAutoScalingGroup", AutoScalingGroupName=NAME, MinSize=3, LaunchTemplate=template)
    world.wait(30)
    shown = group(world)
    assert shown is not None
    assert (shown["MinSize"], shown["DesiredCapacity"]) == (3, 3)
    assert sorted(each["ImageId"] for each in shown["Instances"]) == ["ami-1", "ami-1", "ami-2"]
    world.asg("UpdateAutoScalingGroup", AutoScalingGroupName=NAME, MinSize=0, MaxSize=0, DesiredCapacity=0)
    world.wait(30)
    assert members(world) == {}


def test_target_groups_come_and_go(world: World) -> None:
    """Attached ones get the instances in service, detached ones lose them."""
    _, blue = served(world, draining="0")
    create(world)
    world.wait(30)
    world.asg("AttachLoadBalancerTargetGroups", AutoScalingGroupName=NAME, TargetGroupARNs=[blue])
    assert set(targets(world, blue)) == set(members(world))
    world.asg("DetachLoadBalancerTargetGroups", AutoScalingGroupName=NAME, TargetGroupARNs=[blue])
    world.wait(1)
    assert targets(world, blue) == {}
    assert set(members(world).values()) == {"InService"}


def test_tags_filters_and_pages(world: World) -> None:
    """Groups are found by tag; tags are listed, changed and removed; answers come in pages."""
    for number in range(3):
        tags = [{"Key": "app", "Value": str(number)}, {"Key": "owner", "Value": "us", "PropagateAtLaunch": True}]
        create(world, f"app-{number}", DesiredCapacity=0, Tags=tags)
    by_tag = [{"Name": "tag:app", "Values": ["1"]}, {"Name": "tag-key", "Values": ["owner"]}]
    found = world.asg("DescribeAutoScalingGroups", Filters=by_tag)["AutoScalingGroups"]
    assert [each["AutoScalingGroupName"] for each in found] == ["app-1"]
    first = world.asg("DescribeAutoScalingGroups", MaxRecords=2)
    rest = world.asg("DescribeAutoScalingGroups", MaxRecords=2, NextToken=first["NextToken"])
    names = [each["AutoScalingGroupName"] for each in first["AutoScalingGroups"] + rest["AutoScalingGroups"]]
    assert names == ["app-0", "app-1", "app-2"]
    assert "NextToken" not in rest
    changed = {"ResourceId": "app-1", "ResourceType": "auto-scaling-group", "Key": "app", "Value": "new"}
    world.asg("CreateOrUpdateTags", Tags=[changed | {"PropagateAtLaunch": True}])
    world.asg("DeleteTags", Tags=[{"ResourceId": "app-1", "Key": "owner"}])
    listed = world.asg("DescribeTags", Filters=[{"Name": "auto-scaling-group", "Values": ["app-1"]}])["Tags"]
    assert listed == [changed | {"PropagateAtLaunch": True}]


def test_instances_are_described_across_groups(world: World) -> None:
    """DescribeAutoScalingInstances knows the group of an instance, and shouts its health."""
    create(world, DesiredCapacity=1)
    world.wait(30)
    (shown,) = world.asg("DescribeAutoScalingInstances")["AutoScalingInstances"]
    assert (shown["AutoScalingGroupName"], shown["HealthStatus"]) == (NAME, "HEALTHY")
    assert world.asg("DescribeAutoScalingInstances", InstanceIds=["i-none"])["AutoScalingInstances"] == []


REFERENCE = "API reference, "
TAGGING = "Tag Auto Scaling groups and instances, Tag naming and usage restrictions"
SEEN = "seen by users: "
OURS = "the sandbox's own limit"


def make(**changes: Any) -> tuple[str, Doc]:
    settings: Doc = {
        "AutoScalingGroupName": "new",
        "MinSize": 0,
        "MaxSize": 4,
        "LaunchTemplate": {"LaunchTemplateId": "lt-1", "Version": "1"},
        "VPCZoneIdentifier": "subnet-a,subnet-b",
        **changes,
    }
    return "CreateAutoScalingGroup", settings


def on(operation: str, **params: Any) -> tuple[str, Doc]:
    return operation, {"AutoScalingGroupName": NAME, **params}


def tags(count: int) -> list[Doc]:
    return [{"Key": f"k{number}"} for number in range(count)]


REFUSALS: list[tuple[tuple[str, Doc], str, str, str, str]] = [
    # call, what is wrong, AWS's error code, part of its message, source
    (make(AutoScalingGroupName=NAME), "a name in use", "AlreadyExists", "already exists", REFERENCE + "Create..."),
    (make(AutoScalingGroupName="a:b"), "a colon in the name", "ValidationError", "printable", REFERENCE + "Create..."),
    (make(MinSize=5), "min above max", "ValidationError", "Max bound, 4, must be greater", "believed"),
    (
        make(DesiredCapacity=40),
        "desired above max",
        "ValidationError",
        "Desired capacity:40 must be between the specified min size:0 and max size:4",
        SEEN + "convox/praxis, pull request 258",
    ),
    (
        make(MinSize=1, DesiredCapacity=0),
        "desired below min",
        "ValidationError",
        "between",
        SEEN + "convox/praxis, pull request 258",
    ),
    (make(LaunchTemplate=None), "no template", "ValidationError", "must contain either LaunchTemplate", "believed"),
    (
        make(LaunchTemplate={"LaunchTemplateId": "lt-9", "Version": "1"}),
        "unknown template",
        "ValidationError",
        "You must use a valid fully-formed launch template.",
        SEEN + "ryanmurakami/hbfl, issue 58",
    ),
    (
        make(LaunchTemplate={"LaunchTemplateId": "lt-1", "Version": "9"}),
        "unknown version",
        "ValidationError",
        "You must use a valid fully-formed launch template.",
        SEEN + "ryanmurakami/hbfl, issue 58",
    ),
    (
        make(LaunchTemplate={"LaunchTemplateId": "lt-2", "Version": "1"}),
        "an image that does not exist",
        "ValidationError",
        "The image id '[ami-gone]' does not exist",
        SEEN + "benishak/lamp-aws-cloudformation, issue 1",
    ),
    (
        make(LaunchTemplate={"LaunchTemplateId": "lt-1", "LaunchTemplateName": "template"}),
        "template by id and name",
        "ValidationError",
        "either launchTemplateId or LaunchTemplateName",
        SEEN + "terraform-aws-modules/terraform-aws-autoscaling, issue 227",
    ),
    (
        make(VPCZoneIdentifier=None),
        "no subnets",
        "ValidationError",
        "At least one Availability Zone",
        SEEN + "chef-boneyard/chef-provisioning-aws, issue 135",
    ),
    (
        make(VPCZoneIdentifier="subnet-z"),
        "unknown subnet",
        "ValidationError",
        "'subnet-z' does not exist",
        SEEN + "ansible/ansible-modules-core, issue 2362",
    ),
    (make(VPCZoneIdentifier="subnet-a,subnet-y"), "two VPCs", "ValidationError", "same VPC", REFERENCE + "Create..."),
    (
        make(TargetGroupARNs=["arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/gone/0"]),
        "unknown target group",
        "ValidationError",
        "Provided Target Groups may not be valid",
        "believed",
    ),
    (make(HealthCheckType="TCP"), "unknown health check type", "ValidationError", "Health Check Type", REFERENCE),
    (make(MinSize=-1), "a negative size", "ValidationError", "must not be negative", "believed"),
    (
        make(AvailabilityZones=["eu-west-1c"]),
        "zones of no subnet",
        "ValidationError",
        "The availability zones of the specified subnets and the AutoScalingGroup do not match",
        SEEN + "aws/amazon-ecs-cli, issue 47",
    ),
    (make(Tags=tags(51)), "51 tags", "LimitExceeded", "maximum number of tags is 50", TAGGING),
    (make(Tags=[{"Key": "k" * 129}]), "a long tag key", "ValidationError", "1 to 128 characters", TAGGING),
    (
        make(Tags=[{"Key": "a", "ResourceId": "other"}]),
        "another group's tag",
        "ValidationError",
        "is not the group 'new'",
        "believed, after " + REFERENCE + "Tag",
    ),
    (
        make(Tags=[{"Key": "a", "ResourceType": "instance"}]),
        "an instance's tag",
        "ValidationError",
        "must be auto-scaling-group",
        REFERENCE + "Tag",
    ),
    (
        ("CreateOrUpdateTags", {"Tags": [{**each, "ResourceId": NAME} for each in tags(51)]}),
        "51 tags",
        "LimitExceeded",
        "maximum number of tags is 50",
        TAGGING,
    ),
    (make(MixedInstancesPolicy={"x": 1}), "mixed instances", "NotSimulated", "MixedInstancesPolicy", OURS),
    (make(TerminationPolicies=["OldestInstance"]), "termination policies", "NotSimulated", "termination", OURS),
    (make(Tags=[{"Key": "a"}, {"Key": "a"}]), "a tag key twice", "ValidationError", "Duplicate", REFERENCE + "Tag"),
    (make(Tags=[{"Key": "a", "Value": "\x01"}]), "a control character", "ValidationError", "XML", "TagValue's pattern"),
    (make(Tags=[{"Key": "aws:a"}]), "a reserved tag key", "ValidationError", "reserved", "Tag naming"),
    (
        ("UpdateAutoScalingGroup", {"AutoScalingGroupName": "gone"}),
        "unknown group",
        "ValidationError",
        "AutoScalingGroup name not found",
        SEEN + "hashicorp/terraform, issue 17238",
    ),
    (
        on("UpdateAutoScalingGroup", DesiredCapacity=9),
        "desired above max",
        "ValidationError",
        "between",
        SEEN + "convox/praxis, pull request 258",
    ),
    (
        on("UpdateAutoScalingGroup", MaxSize=0, MinSize=1),
        "min above max",
        "ValidationError",
        "Max bound",
        "believed",
    ),
    (
        on("SetDesiredCapacity", DesiredCapacity=5),
        "above max",
        "ValidationError",
        "New SetDesiredCapacity value 5 is above max value 4 for the AutoScalingGroup.",
        SEEN + "kubernetes/autoscaler, issue 943",
    ),
    (
        on("SetDesiredCapacity", DesiredCapacity=0),
        "below min",
        "ValidationError",
        "New SetDesiredCapacity value 0 is below min value 1 for the AutoScalingGroup.",
        "believed",
    ),
    (
        on("DeleteAutoScalingGroup"),
        "instances are left",
        "ResourceInUse",
        "while there are instances",
        REFERENCE + "DeleteAutoScalingGroup",
    ),
    (
        ("DeleteAutoScalingGroup", {"AutoScalingGroupName": "busy"}),
        "an instance is being started",
        "ScalingActivityInProgress",
        "scaling activities in progress",
        REFERENCE + "DeleteAutoScalingGroup",
    ),
    (
        ("DeleteAutoScalingGroup", {"AutoScalingGroupName": "gone"}),
        "unknown group",
        "ValidationError",
        "AutoScalingGroup name not found - AutoScalingGroup 'gone' not found",
        SEEN + "hashicorp/terraform, issue 17238",
    ),
    (
        ("SetDesiredCapacity", {"AutoScalingGroupName": "leaving", "DesiredCapacity": 0}),
        "a group that is being deleted",
        "ScalingActivityInProgress",
        "pending delete",
        REFERENCE + "SetDesiredCapacity",
    ),
    (
        ("CreateAutoScalingGroup", make(AutoScalingGroupName="leaving")[1]),
        "the name of a group that is being deleted",
        "AlreadyExists",
        "already exists",
        REFERENCE + "DeleteAutoScalingGroup",
    ),
    (on("SuspendProcesses", ScalingProcesses=["Sleep"]), "unknown process", "ValidationError", "Sleep", REFERENCE),
    (
        ("TerminateInstanceInAutoScalingGroup", {"InstanceId": "i-none", "ShouldDecrementDesiredCapacity": False}),
        "unknown instance",
        "ValidationError",
        "No managed instance found for instance ID: i-none",
        SEEN + "yaybu/touchdown, issue 51",
    ),
    (
        ("TerminateInstanceInAutoScalingGroup", {"InstanceId": "MEMBER", "ShouldDecrementDesiredCapacity": True}),
        "one less than min",
        "ValidationError",
        "desiredSize equals minSize (1)",
        SEEN + "buildkite/elastic-ci-stack-for-aws, issue 1261",
    ),
    (
        ("TerminateInstanceInAutoScalingGroup", {"InstanceId": "GOING", "ShouldDecrementDesiredCapacity": False}),
        "an instance that is being ended",
        "ScalingActivityInProgress",
        "already terminating",
        "believed, after " + REFERENCE + "TerminateInstanceInAutoScalingGroup",
    ),
    (
        ("CreateOrUpdateTags", {"Tags": [{"ResourceId": "gone", "Key": "a"}]}),
        "unknown group",
        "ValidationError",
        "not found",
        REFERENCE + "CreateOrUpdateTags",
    ),
    (
        on("AttachLoadBalancerTargetGroups", TargetGroupARNs=["x"]),
        "unknown",
        "ValidationError",
        "Provided",
        "believed",
    ),
    (
        on("DetachLoadBalancerTargetGroups", TargetGroupARNs=["x"]),
        "not its own",
        "ValidationError",
        "not part",
        REFERENCE,
    ),
    (("DescribeAutoScalingGroups", {"NextToken": "x"}), "a bad token", "InvalidNextToken", "invalid", REFERENCE),
    (("DescribeAutoScalingGroups", {"MaxRecords": 101}), "101 records", "ValidationError", "1 to 100", REFERENCE),
    (
        ("DescribeAutoScalingGroups", {"Filters": [{"Name": "size", "Values": ["1"]}]}),
        "unknown filter",
        "ValidationError",
        "Filter type size is not correct",
        REFERENCE + "Filter",
    ),
    (("DescribeTags", {"Filters": [{"Name": "size"}]}), "unknown filter", "ValidationError", "Filter", REFERENCE),
    (
        ("DescribeScalingActivities", {"AutoScalingGroupName": "gone"}),
        "unknown",
        "ValidationError",
        "not found",
        REFERENCE,
    ),
]


@pytest.fixture(scope="module")
def standing() -> World:
    """Groups in order, and some that are busy. Nothing that is refused changes them."""
    world = World()
    create(world, MinSize=1, DesiredCapacity=1)
    create(world, "leaving", DesiredCapacity=1)
    create(world, "shrinking", DesiredCapacity=1)
    world.wait(30)
    world.ec2.templates["lt-2"] = ("gone", ["ami-gone"])
    going = next(iter(members(world, "shrinking")))
    world.asg("TerminateInstanceInAutoScalingGroup", InstanceId=going, ShouldDecrementDesiredCapacity=False)
    create(world, "busy", DesiredCapacity=1)
    world.wait(autoscaling.FIRST_LOOK)
    world.asg("DeleteAutoScalingGroup", AutoScalingGroupName="leaving", ForceDelete=True)
    return world


def refusal(world: World, call: tuple[str, Doc]) -> ApiError:
    operation, params = call
    machines = {"MEMBER": members(world), "GOING": members(world, "shrinking")}
    if params.get("InstanceId") in machines:
        params = params | {"InstanceId": next(iter(machines[params["InstanceId"]]))}
    with pytest.raises(ApiError) as refused:
        world.asg(operation, **{key: value for key, value in params.items() if value is not None})
    return refused.value


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [pytest.param(call, code, said, id=f"{call[0]}: {wrong}") for call, wrong, code, said, _ in REFUSALS],
)
def test_refusals(standing: World, call: tuple[str, Doc], code: str, message: str) -> None:
    """What AWS refuses is refused with its code and words, and nothing is changed by it."""
    before = standing.documents()
    refused = refusal(standing, call)
    assert refused.code == code
    assert message in refused.message
    assert standing.documents() == before


def test_no_refusal_of_groups_is_without_a_row(standing: World) -> None:
    """Whatever the simulator refuses by itself, a row has asked for, and tells where it is written."""
    with met() as found:
        for call, *_, source in REFUSALS:
            refusal(standing, call)
            assert source
    assert missed(found, "services/autoscaling/groups.py") == []
