"""Auto Scaling groups where AWS lags, refuses, or somebody else was faster."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from osvdeploy.cloud.aws.groups import AutoScalingGroups
from osvdeploy.cloud.interfaces import GroupRequest, MachineState, ReleaseId
from osvdeploy.cloud.tags import RELEASE, SCHEMA
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import CloudError, NotFound, Refused, Unavailable
from tests.cloud.aws.script import No, Script

TEMPLATE_ID = "lt-0123456789abcdef0"
LABELS = {SCHEMA: "1", RELEASE: "hello-1"}
REQUEST = GroupRequest(
    name="osvd-1",
    release=ReleaseId("hello-1"),
    image="ami-1",
    capacity=2,
    machine_type="t3.nano",
    networks=("subnet-a", "subnet-b"),
    firewalls=("sg-1",),
    backend="arn:backend",
    tags=LABELS,
)
TEMPLATE = {"LaunchTemplateId": TEMPLATE_ID, "LaunchTemplateName": "osvd-1"}
NONE: dict[str, Any] = {"AutoScalingGroups": []}
NO_TEMPLATE = No("InvalidLaunchTemplateName.NotFoundException")


@pytest.fixture
def ctx() -> Context:
    return Context(clock=VirtualClock())


def tag_list(labels: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in labels.items()]


def group(at: datetime, capacity: int = 2, instances: int = 0, **more: object) -> dict[str, Any]:
    made = {
        "AutoScalingGroupName": "osvd-1",
        "MinSize": capacity,
        "MaxSize": capacity,
        "DesiredCapacity": capacity,
        "CreatedTime": at,
        "LaunchTemplate": {"LaunchTemplateId": TEMPLATE_ID, "Version": "1"},
        "Tags": tag_list(LABELS),
        "Instances": [
            {"InstanceId": f"i-{number}", "LifecycleState": "InService", "HealthStatus": "Healthy"}
            for number in range(instances)
        ],
        **more,
    }
    return {"AutoScalingGroups": [made]}


def version(image: str = "ami-1", kind: str = "t3.nano") -> dict[str, Any]:
    data = {"ImageId": image, "InstanceType": kind, "SecurityGroupIds": ["sg-1"]}
    return {"LaunchTemplateVersions": [{"LaunchTemplateData": data}]}


def ensuring(ctx: Context, refusal: No) -> None:
    script = Script(
        {
            "DescribeAutoScalingGroups": [NONE],
            "DescribeLaunchTemplates": [NO_TEMPLATE],
            "CreateLaunchTemplate": [{"LaunchTemplate": TEMPLATE}],
            "CreateAutoScalingGroup": [refusal],
        }
    )
    AutoScalingGroups(script.aws()).ensure(ctx, REQUEST)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        # What we made a moment ago may not be visible yet.
        (f"You must use a valid fully-formed launch template. Template {TEMPLATE_ID} does not exist.", NotFound),
        ("Provided Target Groups may not be valid. Please ensure they exist and try again.", NotFound),
        # What the user named does not turn up by waiting.
        ("You must use a valid fully-formed launch template. The image id '[ami-1]' does not exist", Refused),
        ("The subnet ID 'subnet-a' does not exist", Refused),
        ("You must use a valid fully-formed launch template. The security group 'sg-1' does not exist", Refused),
    ],
)
def test_only_what_we_made_may_not_be_there_yet(ctx: Context, message: str, error: type[CloudError]) -> None:
    """Auto Scaling says ValidationError for both; waiting helps with one alone."""
    with pytest.raises(error) as raised:
        ensuring(ctx, No("ValidationError", message=message))
    assert type(raised.value) is error


def test_a_group_that_was_made_after_all_is_taken(ctx: Context) -> None:
    """Our own creation whose answer was lost, or another process's: the group that is there counts."""
    script = Script(
        {
            "DescribeAutoScalingGroups": [NONE, group(ctx.now(), capacity=1)],
            "DescribeLaunchTemplates": [NO_TEMPLATE],
            "CreateLaunchTemplate": [{"LaunchTemplate": TEMPLATE}],
            "CreateAutoScalingGroup": [No("AlreadyExists")],
            "DescribeLaunchTemplateVersions": [version()],
            "UpdateAutoScalingGroup": [{}],
        }
    )
    AutoScalingGroups(script.aws()).ensure(ctx, REQUEST)
    assert script.asked[-1] == "UpdateAutoScalingGroup"


def test_a_group_that_exists_but_is_not_seen_is_not_yet(ctx: Context) -> None:
    """The caller asks again."""
    with pytest.raises(Unavailable):
        ensuring(ctx, No("AlreadyExists"))


def test_a_group_that_goes_away_is_waited_for(ctx: Context) -> None:
    """Its name is free only when its last machine is gone."""
    script = Script({"DescribeAutoScalingGroups": [group(ctx.now(), Status="Delete in progress")]})
    with pytest.raises(Unavailable, match="deleted"):
        AutoScalingGroups(script.aws()).ensure(ctx, REQUEST)


def test_another_machine_type_replaces_the_template(ctx: Context) -> None:
    """The release comes back with the settings of now, not of the deploy that left the template."""
    script = Script(
        {
            "DescribeAutoScalingGroups": [NONE],
            "DescribeLaunchTemplates": [{"LaunchTemplates": [{**TEMPLATE, "Tags": tag_list(LABELS)}]}],
            "DescribeLaunchTemplateVersions": [version(kind="t3.large")],
            "DeleteLaunchTemplate": [{}],
            "CreateLaunchTemplate": [{"LaunchTemplate": TEMPLATE}],
            "CreateAutoScalingGroup": [{}],
        }
    )
    AutoScalingGroups(script.aws()).ensure(ctx, REQUEST)
    assert script.asked[-3:] == ["DeleteLaunchTemplate", "CreateLaunchTemplate", "CreateAutoScalingGroup"]


def test_a_group_without_a_template_is_not_ours_to_use(ctx: Context) -> None:
    """Somebody gave it another launch template, or none."""
    script = Script(
        {
            "DescribeAutoScalingGroups": [group(ctx.now())],
            "DescribeLaunchTemplateVersions": [No("InvalidLaunchTemplateId.NotFound")],
        }
    )
    with pytest.raises(Refused, match="hello-1 from None"):
        AutoScalingGroups(script.aws()).ensure(ctx, REQUEST)


def activity(at: datetime, status: str, message: str) -> dict[str, Any]:
    return {"StatusCode": status, "StatusMessage": message, "StartTime": at, "Cause": "", "ActivityId": "1"}


def test_troubles_are_this_groups_and_told_once(ctx: Context) -> None:
    """Failed launches since the group was made, each reason once; earlier ones of that name do not count."""
    now = ctx.now()
    activities = [
        activity(now, "Failed", "We currently do not have\n  sufficient t3.nano capacity."),
        activity(now, "Failed", "We currently do not have sufficient t3.nano capacity."),
        activity(now, "Successful", ""),
        activity(now - timedelta(hours=1), "Failed", "an earlier group's"),
    ]
    script = Script(
        {
            "DescribeAutoScalingGroups": [group(now, instances=1)],
            "DescribeScalingActivities": [{"Activities": activities}],
        }
    )
    seen = AutoScalingGroups(script.aws()).observe(ctx, "osvd-1")
    assert seen is not None
    assert seen.troubles == ("We currently do not have sufficient t3.nano capacity.",)


def test_a_whole_group_costs_one_call(ctx: Context) -> None:
    """Activities are read only where capacity is missing."""
    script = Script({"DescribeAutoScalingGroups": [group(ctx.now(), instances=2)]})
    seen = AutoScalingGroups(script.aws()).observe(ctx, "osvd-1")
    assert seen is not None and seen.troubles == ()
    assert script.asked == ["DescribeAutoScalingGroups"]


def test_machines_of_an_earlier_group_do_not_count(ctx: Context) -> None:
    """Terminated instances are shown for about an hour, and carry the name that another group has now."""
    now = ctx.now()

    def instance(name: str, state: str, at: datetime) -> dict[str, Any]:
        reason = {"Message": "Client.InstanceInitiatedShutdown"}
        return {"InstanceId": name, "State": {"Name": state}, "LaunchTime": at, "StateReason": reason}

    instances = [
        instance("i-old", "terminated", now - timedelta(minutes=10)),
        instance("i-1", "terminated", now),
        instance("i-2", "running", now + timedelta(seconds=30)),
    ]
    script = Script(
        {
            "DescribeAutoScalingGroups": [group(now + timedelta(seconds=0.8))],
            "DescribeInstances": [{"Reservations": [{"Instances": instances}]}],
        }
    )
    newest, oldest = AutoScalingGroups(script.aws()).machines(ctx, "osvd-1")
    assert (newest.id, newest.state, newest.note) == ("i-2", MachineState.RUNNING, "")
    assert (oldest.id, oldest.state) == ("i-1", MachineState.GONE)
    assert "Shutdown" in oldest.note
