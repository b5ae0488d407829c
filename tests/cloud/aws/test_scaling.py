"""What scales Auto Scaling groups, where AWS has its own ways."""

from __future__ import annotations

from datetime import timedelta

import pytest

from osvdeploy.cloud.interfaces import Slot
from osvdeploy.events import Recorder, Warned
from tests.contract.aws_scene import asg_of, aws_scene
from tests.contract.scenes import Scene

pytestmark = pytest.mark.sandbox


@pytest.fixture
def scene() -> Scene:
    return aws_scene()


def test_a_policy_that_an_alarm_starts_is_told_of(scene: Scene) -> None:
    """The user's alarm names the old group's policy: the new one's ARN is said. Those with alarms of their own are
    not."""
    blue, green = scene.stand(Slot.BLUE, "hello-1"), scene.stand(Slot.GREEN, "hello-2")
    scene.scale(blue.name, 1, 4)
    groups = scene.cloud.groups
    wanted = groups.scaling(scene.ctx, blue.name)
    assert wanted is not None
    groups.apply(scene.ctx, green.name, wanted)
    assert isinstance(scene.ctx.reporter, Recorder)
    told = [event for event in scene.ctx.reporter.events if isinstance(event, Warned)]
    assert len(told) == 1 and "policy queue" in told[0].text and "arn:aws:autoscaling" in (told[0].hint or "")


def test_a_metric_that_counts_requests_follows_the_group_s_own_target_group(scene: Scene) -> None:
    """And not the one of the group before."""
    blue, green = scene.stand(Slot.BLUE, "hello-1"), scene.stand(Slot.GREEN, "hello-2")
    scene.scale(blue.name, 1, 4)
    wanted = scene.cloud.groups.scaling(scene.ctx, blue.name)
    assert wanted is not None and "osvd-0123456789-blue" not in wanted.rules and blue.name not in wanted.rules
    scene.cloud.groups.apply(scene.ctx, green.name, wanted)
    policies = asg_of(scene).describe_policies(AutoScalingGroupName=green.name)["ScalingPolicies"]
    [requests] = [each for each in policies if each.get("PolicyName") == "requests"]
    label = requests["TargetTrackingConfiguration"]["PredefinedMetricSpecification"]["ResourceLabel"]
    assert "targetgroup/osvd-0123456789-green/" in label


def test_an_action_whose_time_is_over_is_left_out(scene: Scene) -> None:
    """AWS takes none that begins in the past; what is still to come is carried over with its time."""
    blue, green = scene.stand(Slot.BLUE, "hello-1"), scene.stand(Slot.GREEN, "hello-2")
    asg, now = asg_of(scene), scene.ctx.now()
    for name, minutes in (("soon", 5), ("later", 500)):
        asg.put_scheduled_update_group_action(
            AutoScalingGroupName=blue.name,
            ScheduledActionName=name,
            StartTime=now + timedelta(minutes=minutes),
            MinSize=1,
        )
    groups = scene.cloud.groups
    wanted = groups.scaling(scene.ctx, blue.name)
    assert wanted is not None and set(wanted.parts) == {"scheduled action later", "scheduled action soon"}
    scene.ctx.sleep(600)
    groups.apply(scene.ctx, green.name, wanted)
    assert groups.follows(scene.ctx, green.name, wanted)
    [found] = asg.describe_scheduled_actions(AutoScalingGroupName=green.name)["ScheduledUpdateGroupActions"]
    assert found.get("ScheduledActionName") == "later"
    assert found.get("StartTime") == now + timedelta(minutes=500)


def test_of_processes_that_the_user_suspended_none_is_resumed(scene: Scene) -> None:
    """One of ours among them, and one that is none of ours: both are as they were."""
    blue = scene.stand(Slot.BLUE, "hello-1")
    scene.scale(blue.name, 1, 4)
    asg, groups = asg_of(scene), scene.cloud.groups
    theirs = {"AZRebalance", "ReplaceUnhealthy"}
    asg.suspend_processes(AutoScalingGroupName=blue.name, ScalingProcesses=sorted(theirs))
    before = groups.scaling(scene.ctx, blue.name)
    assert before is not None and not before.paused

    def suspended() -> set[str]:
        [group] = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[blue.name])["AutoScalingGroups"]
        return {each.get("ProcessName", "") for each in group["SuspendedProcesses"]}

    groups.pause(scene.ctx, blue.name)
    assert suspended() == {*theirs, "AlarmNotification", "ScheduledActions"}
    groups.resume(scene.ctx, blue.name, before)
    assert suspended() == theirs


def test_a_default_warm_up_can_be_taken_away(scene: Scene) -> None:
    """A group that stood with one, and is to have none, has none."""
    blue, green = scene.stand(Slot.BLUE, "hello-1"), scene.stand(Slot.GREEN, "hello-2")
    nothing = scene.cloud.groups.scaling(scene.ctx, blue.name)
    scene.scale(green.name, 1, 4)
    assert nothing is not None
    scene.cloud.groups.apply(scene.ctx, green.name, nothing)
    [group] = asg_of(scene).describe_auto_scaling_groups(AutoScalingGroupNames=[green.name])["AutoScalingGroups"]
    assert "DefaultInstanceWarmup" not in group and group["DefaultCooldown"] == 300
    assert scene.cloud.groups.follows(scene.ctx, green.name, nothing)
