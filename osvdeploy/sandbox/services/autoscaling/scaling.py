"""What scales a group: policies, scheduled actions, lifecycle hooks, collected metrics.

A scheduled action is done at its time, unless that is suspended. There is no load here that a policy could follow, and
so no alarm that starts one; a target tracking policy has its two alarms by name alone. Nothing waits for a lifecycle
hook: it is kept and told of. Predictive scaling is refused as not simulated.

Sources: Auto Scaling API reference (PutScalingPolicy, StepAdjustment, PredefinedMetricSpecification,
CustomizedMetricSpecification, PutScheduledUpdateGroupAction, PutLifecycleHook, EnableMetricsCollection), "Quotas for
Amazon EC2 Auto Scaling", "Scheduled scaling". In which words things are refused is mostly not documented; the codes are
ValidationError, AlreadyExists and LimitExceeded, as these pages and botocore's model have them.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services.autoscaling.cron import Recurrence
from osvdeploy.sandbox.services.autoscaling.groups import (
    ACTION,
    GROUP,
    HOOK,
    POLICY,
    changeable,
    group_of,
    look_soon,
    page,
    resize,
    suspended,
)
from osvdeploy.sandbox.services.routing import Wire, invalid
from osvdeploy.sandbox.services.scope import Doc, EventHandler, Operation, Scope

DUE = "autoscaling.action-due"

POLICIES, ACTIONS, HOOKS = 50, 125, 50
"""How many of each a group may have."""

STEPS = 20
"""How many adjustments a policy may have."""

METRICS = (
    "GroupMinSize",
    "GroupMaxSize",
    "GroupDesiredCapacity",
    "GroupInServiceInstances",
    "GroupPendingInstances",
    "GroupStandbyInstances",
    "GroupTerminatingInstances",
    "GroupTotalInstances",
    "GroupInServiceCapacity",
    "GroupPendingCapacity",
    "GroupStandbyCapacity",
    "GroupTerminatingCapacity",
    "GroupTotalCapacity",
)
_WARM_POOL = ("WarmPool", "GroupAndWarmPool")
"""How metrics begin that only a group with a warm pool has."""

_HOOK_NAME = re.compile(r"[A-Za-z0-9_/-]+")
_AGGREGATIONS = ("Minimum", "Maximum", "Average")
_PERIODS = (10, 30, 60)
_ADJUSTMENTS = ("ChangeInCapacity", "ExactCapacity", "PercentChangeInCapacity")
_TRANSITIONS = ("autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING")


def _key(group: Doc, name: str) -> str:
    return f"{group['AutoScalingGroupARN']}/{name}"


def _of(scope: Scope, kind: str, group: Doc) -> list[Doc]:
    return [each for each in scope.all(kind) if each["arn"] == group["AutoScalingGroupARN"]]


def _listed(scope: Scope, kind: str, params: Wire) -> list[Doc]:
    """Of one group, or of all that there are: what is left of a group that was deleted is of none."""
    if params.get("AutoScalingGroupName"):
        return _of(scope, kind, group_of(scope, params["AutoScalingGroupName"]))
    return [each for group in scope.all(GROUP) for each in _of(scope, kind, group)]


def _shown(document: Doc) -> Doc:
    times = ("StartTime", "EndTime", "Time")
    return {
        key: datetime.fromisoformat(value) if key in times else value
        for key, value in document.items()
        if key[0].isupper()
    }


def _room(scope: Scope, kind: str, group: Doc, limit: int, what: str) -> None:
    if len(_of(scope, kind, group)) >= limit:
        raise ApiError("LimitExceeded", f"The maximum number of {what} for an Auto Scaling group is {limit}")


# -------------------------------------------------------------------------------------------------------- policies


def put_scaling_policy(scope: Scope, params: Wire) -> Doc:
    group = changeable(scope, params["AutoScalingGroupName"])
    name = params["PolicyName"]
    kind = params.get("PolicyType") or "SimpleScaling"
    if kind == "PredictiveScaling":
        raise NotSimulated("predictive scaling")
    check = {"SimpleScaling": _simple, "StepScaling": _step, "TargetTrackingScaling": _tracking}.get(kind)
    if check is None:
        raise invalid(f"PolicyType must be one of SimpleScaling, StepScaling, TargetTrackingScaling: '{kind}'")
    check(group, params)
    there = scope.get(POLICY, _key(group, name))
    if there is None:
        _room(scope, POLICY, group, POLICIES, "scaling policies")
    identity = "-".join(scope.new_id(length) for length in (8, 4, 4, 4, 12))
    arn = (
        f"arn:aws:autoscaling:{scope.region}:{scope.account}:scalingPolicy:{identity}"
        f":autoScalingGroupName/{params['AutoScalingGroupName']}:policyName/{name}"
    )
    document = {
        "Enabled": True,
        **{key: value for key, value in params.items() if value is not None},
        "PolicyType": kind,
        "PolicyARN": arn if there is None else there["PolicyARN"],
        "Alarms": _alarms(scope, params["AutoScalingGroupName"]) if kind == "TargetTrackingScaling" else [],
        "StepAdjustments": list(params.get("StepAdjustments") or []),
        "arn": group["AutoScalingGroupARN"],
        "key": _key(group, name),
    }
    scope.put(POLICY, _key(group, name), document)
    return {"PolicyARN": document["PolicyARN"], "Alarms": document["Alarms"]}


def _alarms(scope: Scope, group: str) -> list[Doc]:
    names = [f"TargetTracking-{group}-Alarm{way}-{scope.new_id(8)}" for way in ("High", "Low")]
    arn = f"arn:aws:cloudwatch:{scope.region}:{scope.account}:alarm:"
    return [{"AlarmName": name, "AlarmARN": arn + name} for name in names]


def _never(params: Wire, kind: str, *fields: str) -> None:
    for field in fields:
        if params.get(field) not in (None, [], {}):
            raise invalid(f"{field} cannot be specified for policy type {kind}")


def _adjusted(params: Wire, kind: str, sizes: Sequence[int]) -> None:
    if params.get("AdjustmentType") not in _ADJUSTMENTS:
        raise invalid(f"AdjustmentType of a {kind} policy must be one of {', '.join(_ADJUSTMENTS)}")
    if params["AdjustmentType"] == "ExactCapacity" and min(sizes) < 0:
        raise invalid("The scaling adjustment to an exact capacity must not be negative")


def _simple(group: Doc, params: Wire) -> None:
    size = params.get("ScalingAdjustment")
    if size is None:
        raise invalid("Scaling increment must be specified for a SimpleScaling policy")
    _adjusted(params, "SimpleScaling", [size])
    never = ("StepAdjustments", "MetricAggregationType", "EstimatedInstanceWarmup", "TargetTrackingConfiguration")
    _never(params, "SimpleScaling", *never)


def _step(group: Doc, params: Wire) -> None:
    steps = params.get("StepAdjustments")
    if not steps:
        raise invalid("StepAdjustments must be specified for policy type StepScaling")
    _adjusted(params, "StepScaling", [each["ScalingAdjustment"] for each in steps])
    _never(params, "StepScaling", "ScalingAdjustment", "Cooldown", "TargetTrackingConfiguration")
    if params.get("MetricAggregationType") not in (None, *_AGGREGATIONS):
        raise invalid(f"MetricAggregationType must be one of {', '.join(_AGGREGATIONS)}")
    _check_steps(steps)


def _check_steps(steps: Sequence[Doc]) -> None:
    """They are one stretch of the number line, without gap; where it passes 0 it goes on for ever."""
    if len(steps) > STEPS:
        raise invalid(f"There can be at most {STEPS} step adjustments per scaling policy")
    bounds = []
    for each in steps:
        low, high = each.get("MetricIntervalLowerBound"), each.get("MetricIntervalUpperBound")
        if low is None and high is None:
            raise invalid("Both lower and upper bounds of a step adjustment cannot be left unspecified")
        bounds.append((-math.inf if low is None else low, math.inf if high is None else high))
    bounds.sort()
    if any(low >= high for low, high in bounds):
        raise invalid("The upper bound of a step adjustment must be greater than its lower bound")
    if any(before[1] != after[0] for before, after in itertools.pairwise(bounds)):
        raise invalid("Step adjustment intervals can't overlap or have a gap between them")
    lowest, highest = bounds[0][0], bounds[-1][1]
    for bound, side, sign in ((lowest, "lower", "negative"), (highest, "upper", "positive")):
        if math.isfinite(bound) and (bound < 0 if sign == "negative" else bound > 0):
            raise invalid(
                f"There must be a StepAdjustment with an unspecified {side} bound (i.e., {side} bound is null) when "
                f"one StepAdjustment has a {sign} {side} bound"
            )


def _tracking(group: Doc, params: Wire) -> None:
    kind = "TargetTrackingScaling"
    never = ("AdjustmentType", "ScalingAdjustment", "Cooldown", "MinAdjustmentMagnitude", "StepAdjustments")
    _never(params, kind, *never, "MetricAggregationType")
    config = params.get("TargetTrackingConfiguration")
    if not config:
        raise invalid(f"TargetTrackingConfiguration must be specified for policy type {kind}")
    predefined, customized = config.get("PredefinedMetricSpecification"), config.get("CustomizedMetricSpecification")
    if bool(predefined) == bool(customized):
        raise invalid(
            "Exactly one of PredefinedMetricSpecification and CustomizedMetricSpecification must be specified"
        )
    if customized and customized.get("Period") not in (None, *_PERIODS):
        raise invalid(f"The period of a metric must be one of {', '.join(map(str, _PERIODS))}")
    if predefined:
        _check_label(group, predefined["PredefinedMetricType"], predefined.get("ResourceLabel"))


def _check_label(group: Doc, metric: str, label: str | None) -> None:
    """Requests are counted for a target group of the group, and for nothing else."""
    requests = metric == "ALBRequestCountPerTarget"
    if requests and not label:
        raise invalid(f"Resource label should be specified for predefined metric type {metric}")
    if label and not requests:
        raise invalid(f"A resource label cannot be specified for predefined metric type {metric}")
    mine = [arn.rpartition(":")[2] for arn in group["TargetGroupARNs"]]
    if requests and not any(str(label).startswith("app/") and str(label).endswith(f"/{each}") for each in mine):
        raise invalid(f"The target group of resource label '{label}' is not attached to the Auto Scaling group")


def describe_policies(scope: Scope, params: Wire) -> Doc:
    found = [_shown(each) for each in _listed(scope, POLICY, params)]
    names, kinds = params.get("PolicyNames") or [], params.get("PolicyTypes") or []
    found = [each for each in found if not names or {each["PolicyName"], each["PolicyARN"]} & set(names)]
    return page(params, "ScalingPolicies", [each for each in found if not kinds or each["PolicyType"] in kinds])


def delete_policy(scope: Scope, params: Wire) -> Doc:
    if not params.get("AutoScalingGroupName"):
        raise NotSimulated("deleting a policy by its ARN alone")
    group = changeable(scope, params["AutoScalingGroupName"])
    key = _key(group, params["PolicyName"])
    if scope.get(POLICY, key) is None:
        raise invalid(f"Policy not found - no policy '{params['PolicyName']}' in the group")
    scope.delete(POLICY, key)
    return {}


# --------------------------------------------------------------------------------------------------- scheduled actions


def put_scheduled_action(scope: Scope, params: Wire) -> Doc:
    """What is not named of an action that is there stays as it is."""
    group = changeable(scope, params["AutoScalingGroupName"])
    name = params["ScheduledActionName"]
    there = scope.get(ACTION, _key(group, name))
    if there is None:
        _room(scope, ACTION, group, ACTIONS, "scheduled actions")
    given = {key: value for key, value in params.items() if value is not None}
    for field in ("StartTime", "EndTime"):
        if field in given:
            given[field] = _moment(given[field]).isoformat()
    document = {
        "ScheduledActionARN": (
            f"arn:aws:autoscaling:{scope.region}:{scope.account}:scheduledUpdateGroupAction:{scope.new_id(32)}"
            f":autoScalingGroupName/{params['AutoScalingGroupName']}:scheduledActionName/{name}"
        ),
        "arn": group["AutoScalingGroupARN"],
        "key": _key(group, name),
        "version": 0,
        **(there or {}),
        **given,
    }
    _check_action(scope, group, document, given)
    document["version"] += 1
    _plan(scope, group, document, "StartTime" in given)
    return {}


def _moment(value: datetime | str) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    # What comes over the wire is in UTC, and does not say so.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _check_action(scope: Scope, group: Doc, document: Doc, given: Doc) -> None:
    if not {"MinSize", "MaxSize", "DesiredCapacity"} & document.keys():
        raise invalid("At least one of MinSize, MaxSize and DesiredCapacity must be specified")
    low, high = document.get("MinSize", 0), document.get("MaxSize", math.inf)
    desired = document.get("DesiredCapacity")
    if desired is not None and desired < low:
        raise invalid("Desired capacity must be greater than or equal to min size")
    if desired is not None and desired > high:
        raise invalid("Desired capacity must be less than or equal to max size")
    if low > high:
        raise invalid("Min size must not be greater than max size")
    starts, ends = document.get("StartTime"), document.get("EndTime")
    if "Recurrence" not in document and starts is None:
        raise invalid("StartTime or Recurrence must be specified")
    if "StartTime" in given and _moment(given["StartTime"]) <= scope.now:
        raise invalid("Given start time is in the past")
    if ends is not None and _moment(ends) <= max(scope.now, _moment(starts) if starts else scope.now):
        raise invalid("The end time must be later than the start time, and in the future")
    try:
        if "Recurrence" in document:
            Recurrence.parse(document["Recurrence"])
        ZoneInfo(document.get("TimeZone", "UTC"))
    except (ValueError, ZoneInfoNotFoundError) as error:
        raise invalid(f"Invalid schedule: {error}") from None
    for other in _of(scope, ACTION, group):
        if starts and other.get("StartTime") == starts and other["key"] != document["key"]:
            raise ApiError("AlreadyExists", "Scheduled action with this scheduled start time already exists")


def _plan(scope: Scope, group: Doc, document: Doc, starts: bool) -> None:
    """Keep an action with the next time that it is due; one that is not any more goes."""
    due = _moment(document["StartTime"]) if starts else None
    if due is None and "Recurrence" in document:
        due = Recurrence.parse(document["Recurrence"]).after(scope.now, document.get("TimeZone", "UTC"))
    key = _key(group, document["ScheduledActionName"])
    if due is None or ("EndTime" in document and due > _moment(document["EndTime"])):
        scope.delete(ACTION, key)
        return
    scope.put(ACTION, key, {**document, "StartTime": due.isoformat(), "Time": due.isoformat()})
    # A time of day comes when it comes, however fast all else is made.
    seconds = (due - scope.now).total_seconds() * scope.speed
    scope.later(seconds, DUE, {"group": group["AutoScalingGroupName"], "key": key, "version": document["version"]})


def action_due(scope: Scope, payload: Wire) -> None:
    """A scheduled action's time has come."""
    document, group = scope.get(ACTION, payload["key"]), scope.get(GROUP, payload["group"])
    if document is None or group is None or "Status" in group or document["version"] != payload["version"]:
        return
    if document["arn"] != group["AutoScalingGroupARN"]:
        return
    if not suspended(group, "ScheduledActions"):
        low, high, wanted = (int({**group, **document}[field]) for field in ("MinSize", "MaxSize", "DesiredCapacity"))
        if low <= high:
            why = f"scheduled action update {document['ScheduledActionName']}"
            resize(scope, group, low, high, min(max(wanted, low), high), why)
    document["version"] += 1
    _plan(scope, group, document, starts=False)


def describe_scheduled_actions(scope: Scope, params: Wire) -> Doc:
    if params.get("StartTime") or params.get("EndTime"):
        raise NotSimulated("scheduled actions between two times")
    names = params.get("ScheduledActionNames") or []
    found = [_shown(each) for each in _listed(scope, ACTION, params)]
    shown = [each for each in found if not names or each["ScheduledActionName"] in names]
    return page(params, "ScheduledUpdateGroupActions", shown)


def delete_scheduled_action(scope: Scope, params: Wire) -> Doc:
    group = changeable(scope, params["AutoScalingGroupName"])
    key = _key(group, params["ScheduledActionName"])
    if scope.get(ACTION, key) is None:
        raise invalid("Scheduled action name not found")
    scope.delete(ACTION, key)
    return {}


# ---------------------------------------------------------------------------------------------------------------- hooks


def put_lifecycle_hook(scope: Scope, params: Wire) -> Doc:
    """What is not named of a hook that is there stays as it is; an empty target takes the target away."""
    group = changeable(scope, params["AutoScalingGroupName"])
    if not _HOOK_NAME.fullmatch(params["LifecycleHookName"]):
        raise invalid("LifecycleHookName must be of letters, digits, '-', '_' and '/'")
    key = _key(group, params["LifecycleHookName"])
    there = scope.get(HOOK, key)
    if there is None:
        _room(scope, HOOK, group, HOOKS, "lifecycle hooks")
    given = {name: value for name, value in params.items() if value not in (None, "")}
    document: Doc = {
        "HeartbeatTimeout": 3600,
        "DefaultResult": "ABANDON",
        "arn": group["AutoScalingGroupARN"],
        "key": key,
        **(there or {}),
        **given,
    }
    if document.get("LifecycleTransition") not in _TRANSITIONS:
        raise invalid(f"LifecycleTransition must be one of {', '.join(_TRANSITIONS)}")
    if not 30 <= document["HeartbeatTimeout"] <= 7200:
        raise invalid("HeartbeatTimeout must be between 30 and 7200")
    if document["DefaultResult"] not in ("CONTINUE", "ABANDON"):
        raise invalid("DefaultResult must be CONTINUE or ABANDON")
    if params.get("NotificationTargetARN") == "":
        document = {name: value for name, value in document.items() if name not in ("NotificationTargetARN", "RoleARN")}
    by_role = any(f":{service}:" in document.get("NotificationTargetARN", "") for service in ("sns", "sqs"))
    if by_role != ("RoleARN" in document):
        raise invalid("RoleARN must be specified for a notification target of SNS or SQS, and for no other")
    scope.put(HOOK, key, {**document, "GlobalTimeout": min(100 * document["HeartbeatTimeout"], 172_800)})
    return {}


def describe_lifecycle_hooks(scope: Scope, params: Wire) -> Doc:
    group, names = group_of(scope, params["AutoScalingGroupName"]), params.get("LifecycleHookNames") or []
    found = [_shown(each) for each in _of(scope, HOOK, group)]
    return {"LifecycleHooks": [each for each in found if not names or each["LifecycleHookName"] in names]}


def delete_lifecycle_hook(scope: Scope, params: Wire) -> Doc:
    group = changeable(scope, params["AutoScalingGroupName"])
    key = _key(group, params["LifecycleHookName"])
    if scope.get(HOOK, key) is None:
        raise invalid(f"No lifecycle hook found with name '{params['LifecycleHookName']}'")
    scope.delete(HOOK, key)
    return {}


# -------------------------------------------------------------------------------------------------------------- metrics


def enable_metrics_collection(scope: Scope, params: Wire) -> Doc:
    group = changeable(scope, params["AutoScalingGroupName"])
    if params.get("Granularity") != "1Minute":
        raise invalid("Granularity must be 1Minute")
    collected = {each["Metric"] for each in group["EnabledMetrics"]} | _metrics(params)
    return _collect(scope, group, collected)


def disable_metrics_collection(scope: Scope, params: Wire) -> Doc:
    group = changeable(scope, params["AutoScalingGroupName"])
    return _collect(scope, group, {each["Metric"] for each in group["EnabledMetrics"]} - _metrics(params))


def _collect(scope: Scope, group: Doc, metrics: set[str]) -> Doc:
    group["EnabledMetrics"] = [{"Metric": name, "Granularity": "1Minute"} for name in METRICS if name in metrics]
    look_soon(scope, group)
    return {}


def _metrics(params: Wire) -> set[str]:
    named: set[str] = set(params.get("Metrics") or METRICS)
    if any(each.startswith(_WARM_POOL) for each in named):
        raise NotSimulated("metrics of warm pools")
    if unknown := named - set(METRICS):
        raise invalid(f"Invalid metrics: {', '.join(sorted(unknown))}")
    return named


_SIMULATED: Mapping[str, tuple[Operation, str]] = {
    "DeleteLifecycleHook": (delete_lifecycle_hook, "LifecycleHookName AutoScalingGroupName"),
    "DeletePolicy": (delete_policy, "AutoScalingGroupName PolicyName"),
    "DeleteScheduledAction": (delete_scheduled_action, "AutoScalingGroupName ScheduledActionName"),
    "DescribeLifecycleHooks": (describe_lifecycle_hooks, "AutoScalingGroupName LifecycleHookNames"),
    "DescribePolicies": (describe_policies, "AutoScalingGroupName PolicyNames PolicyTypes NextToken MaxRecords"),
    "DescribeScheduledActions": (
        describe_scheduled_actions,
        "AutoScalingGroupName ScheduledActionNames StartTime EndTime NextToken MaxRecords",
    ),
    "DisableMetricsCollection": (disable_metrics_collection, "AutoScalingGroupName Metrics"),
    "EnableMetricsCollection": (enable_metrics_collection, "AutoScalingGroupName Metrics Granularity"),
    "PutLifecycleHook": (
        put_lifecycle_hook,
        "LifecycleHookName AutoScalingGroupName LifecycleTransition RoleARN NotificationTargetARN NotificationMetadata "
        "HeartbeatTimeout DefaultResult",
    ),
    "PutScalingPolicy": (
        put_scaling_policy,
        "AutoScalingGroupName PolicyName PolicyType AdjustmentType MinAdjustmentMagnitude ScalingAdjustment Cooldown "
        "MetricAggregationType StepAdjustments EstimatedInstanceWarmup TargetTrackingConfiguration Enabled "
        "PredictiveScalingConfiguration",
    ),
    "PutScheduledUpdateGroupAction": (
        put_scheduled_action,
        "AutoScalingGroupName ScheduledActionName StartTime EndTime Recurrence MinSize MaxSize DesiredCapacity "
        "TimeZone",
    ),
}

OPERATIONS: Mapping[str, Operation] = {name: operation for name, (operation, _) in _SIMULATED.items()}

PARAMETERS: Mapping[str, str] = {name: known for name, (_, known) in _SIMULATED.items()}

EVENTS: Mapping[str, EventHandler] = {DUE: action_due}
