"""What scales Auto Scaling groups in the sandbox: kept, done at its time, and refused as AWS does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services.autoscaling.cron import Recurrence
from osvdeploy.sandbox.services.scope import Doc
from tests.sandbox.test_autoscaling import NAME, create, group, members, served
from tests.sandbox.world import World


@pytest.fixture
def world() -> World:
    """A group of two, between none and four."""
    world = World()
    create(world)
    world.wait(60)
    return world


def known(world: World) -> Doc:
    found = group(world)
    assert found is not None
    return found


def action(world: World, name: str = "night", **params: Any) -> None:
    world.asg("PutScheduledUpdateGroupAction", AutoScalingGroupName=NAME, ScheduledActionName=name, **params)


def actions(world: World) -> dict[str, Doc]:
    found = world.asg("DescribeScheduledActions", AutoScalingGroupName=NAME)["ScheduledUpdateGroupActions"]
    return {each["ScheduledActionName"]: each for each in found}


def tracking(**metric: Any) -> Doc:
    return {
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingConfiguration": {"PredefinedMetricSpecification": metric, "TargetValue": 50.0},
    }


CPU = tracking(PredefinedMetricType="ASGAverageCPUUtilization")
STEP = {
    "PolicyType": "StepScaling",
    "AdjustmentType": "ChangeInCapacity",
    "StepAdjustments": [{"ScalingAdjustment": 1, "MetricIntervalLowerBound": 0.0}],
}
SIMPLE = {"AdjustmentType": "ChangeInCapacity", "ScalingAdjustment": 1, "Cooldown": 60}


def policy(world: World, name: str, **params: Any) -> Doc:
    return world.asg("PutScalingPolicy", AutoScalingGroupName=NAME, PolicyName=name, **params)


def test_policies_are_kept_by_name(world: World) -> None:
    """A second put changes the first; a target tracking policy has two alarms, the others none."""
    made = policy(world, "cpu", **CPU)
    assert len(made["Alarms"]) == 2
    assert policy(world, "cpu", **CPU)["PolicyARN"] == made["PolicyARN"]
    policy(world, "queue", **STEP)
    policy(world, "more", **SIMPLE)
    found = world.asg("DescribePolicies", AutoScalingGroupName=NAME)["ScalingPolicies"]
    assert {each["PolicyName"]: (each["PolicyType"], len(each["Alarms"])) for each in found} == {
        "cpu": ("TargetTrackingScaling", 2),
        "queue": ("StepScaling", 0),
        "more": ("SimpleScaling", 0),
    }
    steps = world.asg("DescribePolicies", PolicyTypes=["StepScaling"])["ScalingPolicies"]
    assert [each["PolicyName"] for each in steps] == ["queue"]
    world.asg("DeletePolicy", AutoScalingGroupName=NAME, PolicyName="cpu")
    assert len(world.asg("DescribePolicies")["ScalingPolicies"]) == 2


def test_requests_are_counted_for_a_target_group_of_the_group_alone(world: World) -> None:
    """The label names a target group, which must be attached."""
    _, blue = served(world)
    label = f"app/lb/50dc6c495c0c9188/{blue.rpartition(':')[2]}"
    requests = tracking(PredefinedMetricType="ALBRequestCountPerTarget", ResourceLabel=label)
    with pytest.raises(ApiError, match="is not attached"):
        policy(world, "requests", **requests)
    world.asg("AttachLoadBalancerTargetGroups", AutoScalingGroupName=NAME, TargetGroupARNs=[blue])
    policy(world, "requests", **requests)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"PolicyType": "Magic"}, "PolicyType must be one of"),
        ({"PolicyType": "TargetTrackingScaling"}, "TargetTrackingConfiguration must be specified"),
        ({**CPU, "Cooldown": 60}, "Cooldown cannot be specified"),
        ({**CPU, "TargetTrackingConfiguration": {"TargetValue": 1.0}}, "Exactly one of"),
        (tracking(PredefinedMetricType="ASGAverageCPUUtilization", ResourceLabel="app/x"), "for nothing else"),
        ({"AdjustmentType": "ChangeInCapacity"}, "ScalingAdjustment must be specified"),
        ({**SIMPLE, "AdjustmentType": "More"}, "AdjustmentType"),
        ({**STEP, "StepAdjustments": []}, "StepAdjustments must be specified"),
        ({**STEP, "Cooldown": 5}, "Cooldown cannot be specified"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(world: World, params: Doc, told: str) -> None:
    """With ValidationError, and nothing is kept of it."""
    with pytest.raises(ApiError, match=told) as refused:
        policy(world, "wrong", **params)
    assert refused.value.code == "ValidationError"
    assert world.asg("DescribePolicies")["ScalingPolicies"] == []


def test_a_scheduled_action_is_done_at_its_time(world: World) -> None:
    """Once, and it is gone; a recurring one tells its next time and stays."""
    action(world, "once", StartTime=world.now + timedelta(minutes=5), MinSize=1, MaxSize=3, DesiredCapacity=3)
    action(world, Recurrence="*/10 * * * *", DesiredCapacity=1)
    assert actions(world)["night"]["StartTime"] == datetime(2030, 1, 1, 0, 10, tzinfo=UTC)
    world.wait(300 + 60)
    assert [known(world)[field] for field in ("MinSize", "MaxSize", "DesiredCapacity")] == [1, 3, 3]
    assert len(members(world)) == 3 and set(actions(world)) == {"night"}
    world.wait(600)
    assert known(world)["DesiredCapacity"] == 1
    assert actions(world)["night"]["StartTime"] == datetime(2030, 1, 1, 0, 20, tzinfo=UTC)


def test_a_suspended_action_is_passed_over(world: World) -> None:
    """It is not made up for when the process is resumed."""
    action(world, Recurrence="*/10 * * * *", DesiredCapacity=1)
    world.asg("SuspendProcesses", AutoScalingGroupName=NAME, ScalingProcesses=["ScheduledActions"])
    world.wait(700)
    world.asg("ResumeProcesses", AutoScalingGroupName=NAME, ScalingProcesses=["ScheduledActions"])
    world.wait(60)
    assert known(world)["DesiredCapacity"] == 2
    world.wait(600)
    assert known(world)["DesiredCapacity"] == 1


def test_an_action_ends_with_its_end_time(world: World) -> None:
    """And one that is put again is the last one put: what it does not name stays."""
    action(world, Recurrence="*/10 * * * *", DesiredCapacity=1, EndTime=world.now + timedelta(minutes=25))
    action(world, DesiredCapacity=3)
    world.wait(600)
    assert known(world)["DesiredCapacity"] == 3
    world.wait(1200)
    assert actions(world) == {}


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"Recurrence": "0 3 * * *"}, "At least one of"),
        ({"DesiredCapacity": 1}, "StartTime or Recurrence"),
        ({"DesiredCapacity": 1, "StartTime": datetime(2029, 1, 1)}, "in the past"),
        ({"DesiredCapacity": 1, "Recurrence": "0 25 * * *"}, "Invalid schedule"),
        ({"DesiredCapacity": 1, "Recurrence": "daily"}, "Invalid schedule"),
        ({"DesiredCapacity": 1, "Recurrence": "0 3 * * *", "TimeZone": "Mars/North"}, "Invalid schedule"),
        ({"MinSize": 3, "MaxSize": 1, "Recurrence": "0 3 * * *"}, "Min size"),
        ({"MinSize": 3, "Recurrence": "0 3 * * *", "EndTime": datetime(2029, 1, 1)}, "end time"),
    ],
)
def test_an_action_that_cannot_be_is_refused(world: World, params: Doc, told: str) -> None:
    """With ValidationError, and nothing is kept of it."""
    with pytest.raises(ApiError, match=told):
        action(world, **params)
    assert actions(world) == {}


def test_two_actions_of_a_group_do_not_begin_at_once(world: World) -> None:
    """AWS calls the second a conflict."""
    at = world.now + timedelta(hours=1)
    action(world, "one", StartTime=at, DesiredCapacity=1)
    with pytest.raises(ApiError) as refused:
        action(world, "two", StartTime=at, DesiredCapacity=2)
    assert refused.value.code == "AlreadyExists"


def test_hooks_and_metrics_are_kept(world: World) -> None:
    """By name, with AWS's defaults; what is none of AWS's is refused."""
    hook = {"AutoScalingGroupName": NAME, "LifecycleHookName": "logs"}
    with pytest.raises(ApiError, match="LifecycleTransition"):
        world.asg("PutLifecycleHook", **hook)
    world.asg("PutLifecycleHook", **hook, LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING")
    with pytest.raises(ApiError, match="between 30 and 7200"):
        world.asg("PutLifecycleHook", **hook, HeartbeatTimeout=5)
    [found] = world.asg("DescribeLifecycleHooks", AutoScalingGroupName=NAME)["LifecycleHooks"]
    assert (found["HeartbeatTimeout"], found["DefaultResult"], found["GlobalTimeout"]) == (3600, "ABANDON", 172_800)
    world.asg("DeleteLifecycleHook", **hook)
    with pytest.raises(ApiError, match="No lifecycle hook"):
        world.asg("DeleteLifecycleHook", **hook)
    with pytest.raises(ApiError, match="Invalid metrics: Speed"):
        world.asg("EnableMetricsCollection", AutoScalingGroupName=NAME, Granularity="1Minute", Metrics=["Speed"])
    world.asg("EnableMetricsCollection", AutoScalingGroupName=NAME, Granularity="1Minute")
    world.asg("DisableMetricsCollection", AutoScalingGroupName=NAME, Metrics=["GroupMinSize"])
    assert len(known(world)["EnabledMetrics"]) == 12


def test_what_scales_a_group_goes_with_it(world: World) -> None:
    """A group of the same name has nothing of it, and nothing is left in the store."""
    policy(world, "cpu", **CPU)
    action(world, Recurrence="*/10 * * * *", DesiredCapacity=1)
    world.asg("DeleteAutoScalingGroup", AutoScalingGroupName=NAME, ForceDelete=True)
    world.wait(120)
    create(world)
    world.wait(1200)
    assert actions(world) == {} and known(world)["DesiredCapacity"] == 2
    assert not any(found for kind, found in world.documents().items() if kind.endswith(("policy", "scheduled-action")))


def test_what_is_not_simulated_says_so(world: World) -> None:
    """Rather than to be kept and do nothing."""
    with pytest.raises(NotSimulated, match="predictive"):
        policy(world, "tomorrow", PolicyType="PredictiveScaling")


@pytest.mark.parametrize(
    ("text", "zone", "after", "expected"),
    [
        ("30 0 1 1,6,12 *", "UTC", (2030, 1, 1), (2030, 1, 1, 0, 30)),
        ("30 0 1 1,6,12 *", "UTC", (2030, 1, 1, 0, 30), (2030, 6, 1, 0, 30)),
        ("0 8 * * MON-FRI", "UTC", (2030, 1, 5), (2030, 1, 7, 8, 0)),
        ("0 8 13 * FRI", "UTC", (2030, 1, 1), (2030, 1, 4, 8, 0)),
        ("0 3 * * 7", "Europe/Berlin", (2030, 7, 1), (2030, 7, 7, 1, 0)),
        ("0 0 29 FEB *", "UTC", (2030, 1, 1), (2032, 2, 29, 0, 0)),
    ],
)
def test_a_recurrence_tells_its_next_time(
    text: str, zone: str, after: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """As cron has it: where a day of the month and one of the week are named, either will do."""
    moment = datetime(*after[:3], *after[3:], tzinfo=UTC)  # type: ignore[misc, arg-type]
    due = datetime(*expected[:3], *expected[3:], tzinfo=UTC)  # type: ignore[misc, arg-type]
    assert Recurrence.parse(text).after(moment, zone) == due


@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.sampled_from(["*", "1-5", "MON,WED", "*/2"]),
    st.datetimes(datetime(2025, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
)
def test_a_recurrence_comes_within_a_week_and_never_before(minute: int, hour: int, days: str, moment: datetime) -> None:
    """Whatever the moment: later, at that minute and hour, and the one after it is later still."""
    recurrence = Recurrence.parse(f"{minute} {hour} * * {days}")
    due = recurrence.after(moment)
    assert due is not None and moment < due <= moment + timedelta(days=8)
    assert (due.minute, due.hour, due.second) == (minute, hour, 0)
    following = recurrence.after(due)
    assert following is not None and following > due
