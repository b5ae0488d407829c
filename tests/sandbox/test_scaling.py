"""What scales Auto Scaling groups in the sandbox: kept, done at its time, and refused as AWS does.

Each refusal is a row, with where it is written: a page's name; "seen by users" with the place, where an answer is told
of that no page tells of; "believed" for what neither was found to tell. No refusal is without one.
"""

from __future__ import annotations

import functools
import itertools
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services.autoscaling import scaling
from osvdeploy.sandbox.services.autoscaling.cron import Recurrence
from osvdeploy.sandbox.services.scope import Doc
from tests.sandbox.refusal_sites import met, missed
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


QUEUE = "arn:aws:sqs:eu-west-1:123456789012:hooks"
ROLE = "arn:aws:iam::123456789012:role/hooks"
NEVER, SOON = datetime(2029, 1, 1), datetime(2030, 1, 1, 1)


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


def steps(*bounds: tuple[float | None, float | None], size: int = 1) -> Doc:
    """A policy with adjustments between these."""
    named = ("MetricIntervalLowerBound", "MetricIntervalUpperBound")
    adjustments = [
        {
            "ScalingAdjustment": size,
            **{name: bound for name, bound in zip(named, each, strict=True) if bound is not None},
        }
        for each in bounds
    ]
    return {**STEP, "StepAdjustments": adjustments}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that is refused: AWS's code, part of its words, and where that is written."""

    source: str
    operation: str
    params: Doc
    words: str
    code: str = "ValidationError"


def of_policy(source: str, params: Doc, words: str) -> Refusal:
    return Refusal(source, "PutScalingPolicy", {"PolicyName": "x", **params}, words)


def of_action(source: str, words: str, **params: Any) -> Refusal:
    return Refusal(source, "PutScheduledUpdateGroupAction", {"ScheduledActionName": "x", **params}, words)


def of_hook(source: str, words: str, **params: Any) -> Refusal:
    hook = {"LifecycleHookName": "x", "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING", **params}
    return Refusal(source, "PutLifecycleHook", hook, words)


def one_more(operation: str, params: Doc) -> Refusal:
    quotas = "Quotas for Amazon EC2 Auto Scaling"
    return Refusal(quotas, operation, {"AutoScalingGroupName": "full", **params}, "maximum number", "LimitExceeded")


REFERENCE = "Auto Scaling API reference, "
PUT_POLICY = f"{REFERENCE}PutScalingPolicy"
PUT_ACTION = f"{REFERENCE}PutScheduledUpdateGroupAction"
PUT_HOOK = f"{REFERENCE}PutLifecycleHook"
STEPS = f"{REFERENCE}StepAdjustment"
METRIC = f"{REFERENCE}PredefinedMetricSpecification"
SEEN = "seen by users: "
BELIEVED = "believed"
DAILY = "0 3 * * *"
REQUESTS = "ALBRequestCountPerTarget"
CUSTOM = {"MetricName": "m", "Namespace": "n", "Statistic": "Average"}
TARGET = {"TargetValue": 1.0}

REFUSED = [
    # ------------------------------------------------------------------------------------------------------ policies
    of_policy(PUT_POLICY, {"PolicyType": "Magic"}, "PolicyType must be one of"),
    of_policy(
        f"{SEEN}Netflix/asgard, issue 704",
        {"AdjustmentType": "ChangeInCapacity"},
        "Scaling increment must be specified for a SimpleScaling policy",
    ),
    of_policy(PUT_POLICY, {**SIMPLE, "AdjustmentType": "More"}, "AdjustmentType of a SimpleScaling policy"),
    of_policy(PUT_POLICY, {**SIMPLE, "AdjustmentType": None}, "AdjustmentType of a SimpleScaling policy"),
    of_policy(
        PUT_POLICY, {"AdjustmentType": "ExactCapacity", "ScalingAdjustment": -1}, "capacity must not be negative"
    ),
    of_policy(PUT_POLICY, {**SIMPLE, "EstimatedInstanceWarmup": 0}, "EstimatedInstanceWarmup cannot be specified"),
    of_policy(PUT_POLICY, {**STEP, "StepAdjustments": []}, "StepAdjustments must be specified"),
    of_policy(STEPS, {**steps((0, None), size=-1), "AdjustmentType": "ExactCapacity"}, "capacity must not be negative"),
    of_policy(PUT_POLICY, {**STEP, "Cooldown": 5}, "Cooldown cannot be specified"),
    of_policy(PUT_POLICY, {**STEP, "MetricAggregationType": "Median"}, "MetricAggregationType must be one of"),
    of_policy(
        f"Quotas for Amazon EC2 Auto Scaling; {SEEN}aws/aws-cdk, issue 27020",
        steps(*[(number, number + 1) for number in range(20)], (20, None)),
        "at most 20 step adjustments",
    ),
    of_policy(
        f"{STEPS}; {SEEN}hashicorp/terraform-provider-aws, issue 4812",
        steps((None, None)),
        "cannot be left unspecified",
    ),
    of_policy(STEPS, steps((1, 1), (1, None)), "must be greater than its lower bound"),
    of_policy(STEPS, steps((0, 10), (20, None)), "overlap or have a gap"),
    of_policy(STEPS, steps((0, 10), (5, None)), "overlap or have a gap"),
    of_policy(STEPS, steps((0, None), (10, None)), "overlap or have a gap"),
    of_policy(STEPS, steps((-10, 0)), "when one StepAdjustment has a negative lower bound"),
    of_policy(
        f"{STEPS}; {SEEN}hashicorp/terraform-provider-aws, issue 9077",
        steps((1, 2)),
        "There must be a StepAdjustment with an unspecified upper bound (i.e., upper bound is null) when one "
        "StepAdjustment has a positive upper bound",
    ),
    of_policy(PUT_POLICY, {"PolicyType": "TargetTrackingScaling"}, "TargetTrackingConfiguration must be specified"),
    of_policy(PUT_POLICY, {**CPU, "Cooldown": 60}, "Cooldown cannot be specified"),
    of_policy(PUT_POLICY, {**CPU, "MetricAggregationType": "Average"}, "MetricAggregationType cannot be specified"),
    of_policy(
        f"{REFERENCE}TargetTrackingConfiguration", {**CPU, "TargetTrackingConfiguration": TARGET}, "Exactly one of"
    ),
    of_policy(
        f"{REFERENCE}CustomizedMetricSpecification",
        {**CPU, "TargetTrackingConfiguration": {**TARGET, "CustomizedMetricSpecification": {**CUSTOM, "Period": 45}}},
        "must be one of 10, 30, 60",
    ),
    of_policy(
        f"{SEEN}terraform-aws-modules/terraform-aws-autoscaling, issue 192",
        tracking(PredefinedMetricType=REQUESTS),
        "Resource label should be specified for predefined metric type ALBRequestCountPerTarget",
    ),
    of_policy(
        f"{BELIEVED}, after {METRIC}",
        tracking(PredefinedMetricType="ASGAverageCPUUtilization", ResourceLabel="app/x"),
        "A resource label cannot be specified",
    ),
    of_policy(METRIC, tracking(PredefinedMetricType=REQUESTS, ResourceLabel="app/x"), "is not attached"),
    one_more("PutScalingPolicy", {"PolicyName": "x", **SIMPLE}),
    Refusal(f"{BELIEVED}, after {REFERENCE}DeletePolicy", "DeletePolicy", {"PolicyName": "x"}, "Policy not found"),
    # ---------------------------------------------------------------------------------------------- scheduled actions
    of_action(PUT_ACTION, "At least one of", Recurrence=DAILY),
    of_action(
        f"{SEEN}buildkite/terraform-buildkite-elastic-ci-stack-for-aws, issue 139",
        "Desired capacity must be greater than or equal to min size",
        Recurrence=DAILY,
        MinSize=2,
        MaxSize=0,
        DesiredCapacity=0,
    ),
    of_action(BELIEVED, "less than or equal to max size", Recurrence=DAILY, MaxSize=1, DesiredCapacity=2),
    of_action(BELIEVED, "Min size must not be greater", Recurrence=DAILY, MinSize=3, MaxSize=1),
    of_action(f"{BELIEVED}, after {PUT_ACTION}", "StartTime or Recurrence", DesiredCapacity=1),
    of_action(
        f"{PUT_ACTION}; {SEEN}hashicorp/terraform-provider-aws, pull request 3033",
        "Given start time is in the past",
        StartTime=NEVER,
        DesiredCapacity=1,
    ),
    of_action(PUT_ACTION, "end time", Recurrence=DAILY, EndTime=NEVER, MinSize=3),
    of_action("crontab(5)", "Invalid schedule", Recurrence="0 25 * * *", DesiredCapacity=1),
    of_action("crontab(5)", "Invalid schedule", Recurrence="daily", DesiredCapacity=1),
    of_action(PUT_ACTION, "Invalid schedule", Recurrence=DAILY, TimeZone="Mars/North", DesiredCapacity=1),
    Refusal(
        f"Scheduled scaling for Amazon EC2 Auto Scaling; {SEEN}TerraConstructs/base, issue 127",
        "PutScheduledUpdateGroupAction",
        {"ScheduledActionName": "x", "StartTime": SOON, "DesiredCapacity": 1},
        "Scheduled action with this scheduled start time already exists",
        "AlreadyExists",
    ),
    one_more("PutScheduledUpdateGroupAction", {"ScheduledActionName": "x", "StartTime": SOON, "MinSize": 0}),
    Refusal(
        f"{SEEN}hashicorp/terraform-provider-aws, issue 19446",
        "DeleteScheduledAction",
        {"ScheduledActionName": "x"},
        "Scheduled action name not found",
    ),
    # ---------------------------------------------------------------------------------------------------------- hooks
    of_hook(PUT_HOOK, "LifecycleHookName must be of letters", LifecycleHookName="a b"),
    of_hook(PUT_HOOK, "LifecycleTransition must be one of", LifecycleTransition=None),
    of_hook(PUT_HOOK, "LifecycleTransition must be one of", LifecycleTransition="autoscaling:EC2_INSTANCE_RESTING"),
    of_hook(PUT_HOOK, "between 30 and 7200", HeartbeatTimeout=5),
    of_hook(PUT_HOOK, "CONTINUE or ABANDON", DefaultResult="WAIT"),
    of_hook(PUT_HOOK, "RoleARN must be specified", NotificationTargetARN=QUEUE),
    of_hook(PUT_HOOK, "and for no other", RoleARN=ROLE),
    one_more(
        "PutLifecycleHook",
        {"LifecycleHookName": "x", "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING"},
    ),
    Refusal(
        f"{BELIEVED}, after {REFERENCE}DeleteLifecycleHook",
        "DeleteLifecycleHook",
        {"LifecycleHookName": "x"},
        "No lifecycle hook found",
    ),
    # -------------------------------------------------------------------------------------------------------- metrics
    Refusal(
        f"{REFERENCE}EnableMetricsCollection",
        "EnableMetricsCollection",
        {"Granularity": "5Minutes"},
        "Granularity must be 1Minute",
    ),
    Refusal(
        f"{REFERENCE}EnableMetricsCollection",
        "EnableMetricsCollection",
        {"Granularity": "1Minute", "Metrics": ["Speed"]},
        "Invalid metrics: Speed",
    ),
    Refusal(
        f"{REFERENCE}DisableMetricsCollection", "DisableMetricsCollection", {"Metrics": ["Speed"]}, "Invalid metrics"
    ),
    # ------------------------------------------------------------------------------------------------------ processes
    Refusal(
        f"{REFERENCE}ResumeProcesses", "ResumeProcesses", {"ScalingProcesses": ["Sleep"]}, "Invalid scaling process"
    ),
    *(
        Refusal(f"{SEEN}hashicorp/terraform, issue 17238", operation, params | {"AutoScalingGroupName": "none"}, words)
        for operation, params, words in (
            ("PutScalingPolicy", {"PolicyName": "x", **SIMPLE}, "AutoScalingGroup name not found"),
            ("DescribePolicies", {}, "AutoScalingGroup name not found"),
            ("PutScheduledUpdateGroupAction", {"ScheduledActionName": "x"}, "AutoScalingGroup name not found"),
            ("DescribeScheduledActions", {}, "AutoScalingGroup name not found"),
            ("PutLifecycleHook", {"LifecycleHookName": "x"}, "AutoScalingGroup name not found"),
            ("DescribeLifecycleHooks", {}, "AutoScalingGroup name not found"),
            ("SuspendProcesses", {}, "AutoScalingGroup name not found"),
            ("ResumeProcesses", {}, "AutoScalingGroup name not found"),
            ("EnableMetricsCollection", {"Granularity": "1Minute"}, "AutoScalingGroup name not found"),
        )
    ),
]


@pytest.fixture(scope="module")
def standing() -> World:
    """One group with an action that begins soon, and one that has as much as a group can have. Nothing that is refused
    changes them."""
    world = World()
    create(world)
    action(world, "soon", StartTime=SOON, DesiredCapacity=1)
    create(world, "full", DesiredCapacity=0)
    full = {"AutoScalingGroupName": "full"}
    for number in range(scaling.POLICIES):
        world.asg("PutScalingPolicy", **full, PolicyName=f"p{number}", **SIMPLE)
    for number in range(scaling.ACTIONS):
        at = SOON + timedelta(minutes=number + 1)
        world.asg("PutScheduledUpdateGroupAction", **full, ScheduledActionName=f"a{number}", StartTime=at, MinSize=0)
    for number in range(scaling.HOOKS):
        hook = {"LifecycleHookName": f"h{number}", "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING"}
        world.asg("PutLifecycleHook", **full, **hook)
    return world


def refusal(world: World, row: Refusal) -> ApiError:
    params = {key: value for key, value in row.params.items() if value is not None}
    with pytest.raises(ApiError) as refused:
        world.asg(row.operation, **{"AutoScalingGroupName": NAME, **params})
    return refused.value


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: f"{row.operation}: {row.words}"[:70])
def test_what_a_row_says_is_refused(standing: World, row: Refusal) -> None:
    """With AWS's code and words; and nothing is changed."""
    before = standing.documents()
    refused = refusal(standing, row)
    assert (refused.code, bool(row.source)) == (row.code, True), refused
    assert row.words in refused.message
    assert standing.documents() == before


def test_no_refusal_is_without_a_row(standing: World) -> None:
    """Whatever the simulator refuses by itself of what scales a group, a row has asked for."""
    with met() as found:
        for row in REFUSED:
            refusal(standing, row)
    assert missed(found, "services/autoscaling/scaling.py") == []


@functools.cache
def empty() -> World:
    world = World()
    create(world, DesiredCapacity=0)
    return world


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=8, unique=True), st.booleans(), st.booleans())
def test_adjustments_without_gap_are_taken_when_they_go_on_for_ever(points: list[int], down: bool, up: bool) -> None:
    """In whatever order; a stretch that ends on the far side of 0 is refused, and so is one with a hole."""
    points.sort()
    bounds: list[tuple[float | None, float | None]] = [*itertools.pairwise(points)]
    bounds = [*([(None, points[0])] if down else []), *bounds, *([(points[-1], None)] if up else [])]
    held = (down or points[0] >= 0) and (up or points[-1] <= 0)
    world = empty()
    with nullcontext() if held else pytest.raises(ApiError, match="must be a StepAdjustment"):
        policy(world, "x", **steps(*reversed(bounds)))
    if len(bounds) > 2:
        with pytest.raises(ApiError, match="have a gap"):
            policy(world, "x", **steps(bounds[0], *bounds[2:]))


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


def test_hooks_and_metrics_are_kept(world: World) -> None:
    """By name, with AWS's defaults; what a later call does not name of a hook stays."""
    hook = {"AutoScalingGroupName": NAME, "LifecycleHookName": "logs"}
    world.asg("PutLifecycleHook", **hook, LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING")
    [found] = world.asg("DescribeLifecycleHooks", AutoScalingGroupName=NAME)["LifecycleHooks"]
    assert (found["HeartbeatTimeout"], found["DefaultResult"], found["GlobalTimeout"]) == (3600, "ABANDON", 172_800)
    world.asg("PutLifecycleHook", **hook, NotificationTargetARN=QUEUE, RoleARN=ROLE, HeartbeatTimeout=60)
    world.asg("PutLifecycleHook", **hook, NotificationTargetARN="")
    [found] = world.asg("DescribeLifecycleHooks", AutoScalingGroupName=NAME)["LifecycleHooks"]
    assert (found["HeartbeatTimeout"], found["LifecycleTransition"]) == (60, "autoscaling:EC2_INSTANCE_TERMINATING")
    assert not {"NotificationTargetARN", "RoleARN"} & found.keys()
    world.asg("PutLifecycleHook", **hook, NotificationTargetARN=QUEUE.replace("sqs", "lambda"))
    world.asg("DeleteLifecycleHook", **hook)
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
    with pytest.raises(NotSimulated, match="warm pools"):
        world.asg(
            "EnableMetricsCollection",
            AutoScalingGroupName=NAME,
            Granularity="1Minute",
            Metrics=["WarmPoolTotalCapacity"],
        )
    with pytest.raises(NotSimulated, match="between two times"):
        world.asg("DescribeScheduledActions", StartTime=NEVER)
    with pytest.raises(NotSimulated, match="by its ARN alone"):
        world.asg("DeletePolicy", PolicyName="arn:aws:autoscaling:eu-west-1:123456789012:scalingPolicy:x")


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
