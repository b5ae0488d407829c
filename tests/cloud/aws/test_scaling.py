"""What scales Auto Scaling groups, where AWS has its own ways."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from osvdeploy.cloud.interfaces import Scaling, Slot
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


def recurring(scene: Scene, group: str, begins: datetime) -> Scaling:
    """What scales a group: each night at three one machine is enough, from a date on."""
    asg_of(scene).put_scheduled_update_group_action(
        AutoScalingGroupName=group, ScheduledActionName="night", Recurrence="0 3 * * *", StartTime=begins, MinSize=1
    )
    found = scene.cloud.groups.scaling(scene.ctx, group)
    assert found is not None
    return found


def begin_of(scene: Scene, group: str) -> datetime:
    [found] = asg_of(scene).describe_scheduled_actions(AutoScalingGroupName=group)["ScheduledUpdateGroupActions"]
    assert found.get("Recurrence") == "0 3 * * *"
    return found["StartTime"]


def test_a_recurring_action_that_begins_later_begins_later(scene: Scene) -> None:
    """And not with the next night: of what stands it makes a difference, too."""
    blue, green = scene.stand(Slot.BLUE, "hello-1"), scene.stand(Slot.GREEN, "hello-2")
    groups, begins = scene.cloud.groups, scene.ctx.now() + timedelta(days=5)
    wanted = recurring(scene, blue.name, begins)
    groups.apply(scene.ctx, green.name, wanted)
    assert begin_of(scene, green.name) == begins and groups.follows(scene.ctx, green.name, wanted)
    recurring(scene, green.name, scene.ctx.now() + timedelta(days=1))
    assert not groups.follows(scene.ctx, green.name, wanted)
    groups.apply(scene.ctx, green.name, wanted)
    assert begin_of(scene, green.name) == begins


def test_a_recurring_action_that_has_begun_goes_by_its_nights(scene: Scene) -> None:
    """AWS takes no beginning in the past, and tells the next night in its place."""
    blue, green = scene.stand(Slot.BLUE, "hello-1"), scene.stand(Slot.GREEN, "hello-2")
    groups, begins = scene.cloud.groups, scene.ctx.now() + timedelta(minutes=5)
    wanted = recurring(scene, blue.name, begins)
    scene.ctx.sleep(600)
    groups.apply(scene.ctx, green.name, wanted)
    begun = begin_of(scene, green.name)
    assert begun > scene.ctx.now() and (begun.hour, begun.minute) == (3, 0)
    assert groups.follows(scene.ctx, green.name, wanted)
    changes = scene.mutations()
    groups.apply(scene.ctx, green.name, wanted)
    assert scene.mutations() == changes


def test_recurring_actions_that_share_their_next_time_are_carried_over(scene: Scene) -> None:
    """AWS takes no two that are said to begin at one time; by their recurrence they may."""
    blue, green = scene.stand(Slot.BLUE, "hello-1"), scene.stand(Slot.GREEN, "hello-2")
    asg, groups = asg_of(scene), scene.cloud.groups
    for name, minimum in (("night", 1), ("other", 2)):
        asg.put_scheduled_update_group_action(
            AutoScalingGroupName=blue.name, ScheduledActionName=name, Recurrence="0 3 * * *", MinSize=minimum
        )
    wanted = groups.scaling(scene.ctx, blue.name)
    assert wanted is not None
    groups.apply(scene.ctx, green.name, wanted)
    assert groups.follows(scene.ctx, green.name, wanted)
    found = asg.describe_scheduled_actions(AutoScalingGroupName=green.name)["ScheduledUpdateGroupActions"]
    assert [each.get("ScheduledActionName") for each in found] == ["night", "other"]


def test_a_recurring_action_that_begins_after_it_was_handed_over_is_still_the_same(scene: Scene) -> None:
    """Its next time moves on by itself, in both groups."""
    blue, green = scene.stand(Slot.BLUE, "hello-1"), scene.stand(Slot.GREEN, "hello-2")
    groups, begins = scene.cloud.groups, scene.ctx.now() + timedelta(minutes=5)
    wanted = recurring(scene, blue.name, begins)
    groups.apply(scene.ctx, green.name, wanted)
    assert begin_of(scene, green.name) == begins
    scene.ctx.sleep(600)
    assert begin_of(scene, green.name) > begins and groups.follows(scene.ctx, green.name, wanted)


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
