"""What scales an Auto Scaling group: bounds, policies, scheduled actions; and what is carried over with them: lifecycle
hooks, the metrics that it collects.

All of it belongs to one group and goes with it, so the group that comes is given the same. A policy or hook that names
its group or its target group (requests per target do) names the new one's from then on. AWS cannot stop a group from
shrinking alone: while it is paused it keeps its size.

Sources: Auto Scaling API reference (PutScalingPolicy, PutScheduledUpdateGroupAction, PutLifecycleHook,
EnableMetricsCollection, SuspendProcesses); guide, "Suspend and resume processes". What is not carried over: other
suspended processes (they are somebody's at work on that one group), notifications, warm pools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from osvdeploy.cloud import rules
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.interfaces import Scaling
from osvdeploy.cloud.tags import BACKEND
from osvdeploy.context import Context
from osvdeploy.errors import NotFound
from osvdeploy.events import Warned

if TYPE_CHECKING:
    from mypy_boto3_autoscaling.type_defs import AutoScalingGroupTypeDef

PAUSED = ("AlarmNotification", "AZRebalance", "ScheduledActions")
"""Processes that are suspended while a group is paused: those that change its size or move its instances unasked."""

_TARGET_GROUP = "$(target-group)"
_POLICY = (
    "PolicyName",
    "PolicyType",
    "AdjustmentType",
    "MinAdjustmentMagnitude",
    "ScalingAdjustment",
    "Cooldown",
    "MetricAggregationType",
    "StepAdjustments",
    "EstimatedInstanceWarmup",
    "TargetTrackingConfiguration",
    "Enabled",
    "PredictiveScalingConfiguration",
)
_ACTION = (
    "ScheduledActionName",
    "StartTime",
    "EndTime",
    "Recurrence",
    "MinSize",
    "MaxSize",
    "DesiredCapacity",
    "TimeZone",
)
_HOOK = (
    "LifecycleHookName",
    "LifecycleTransition",
    "RoleARN",
    "NotificationTargetARN",
    "NotificationMetadata",
    "HeartbeatTimeout",
    "DefaultResult",
)
_BY_ALARM = ("SimpleScaling", "StepScaling")
"""Kinds of policies that alarms of the user's start; all others have alarms of their own."""

_NONE = -1
"""Takes a group's default warm-up away; a default cooldown there is always."""

Rule = dict[str, Any]
"""A policy, an action or a hook: the parameters of the call that makes it, times in ISO 8601."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is carried over, each kind by name. ``settings`` are the group's own parameters, ``suspended`` those of
    :data:`PAUSED`."""

    settings: Mapping[str, int]
    policies: Mapping[str, Rule]
    actions: Mapping[str, Rule]
    hooks: Mapping[str, Rule]
    metrics: Sequence[str]
    suspended: Sequence[str]

    def text(self, own: Mapping[str, str], others: Mapping[str, str] = MappingProxyType({})) -> str:
        kinds = {"policies": self.policies, "actions": self.actions, "hooks": self.hooks, "settings": self.settings}
        return rules.written({**kinds, "metrics": self.metrics, "suspended": self.suspended}, own, others)

    @classmethod
    def read(cls, text: str, own: Mapping[str, str]) -> Rules:
        found = rules.read(text, own)
        return cls(
            settings=found.get("settings", {}),
            policies=found.get("policies", {}),
            actions=found.get("actions", {}),
            hooks=found.get("hooks", {}),
            metrics=found.get("metrics", []),
            suspended=found.get("suspended", []),
        )

    def still_due(self, now: datetime) -> Rules:
        """Without the scheduled actions whose time is over, and without the beginning of recurring ones that have
        begun: AWS takes nothing that begins in the past."""
        due = {}
        for name, action in self.actions.items():
            starts, ends = (_time(action.get(key)) for key in ("StartTime", "EndTime"))
            begun = starts is not None and starts <= now
            if (begun and "Recurrence" not in action) or (ends is not None and ends <= now):
                continue
            due[name] = _without_beginning(action) if begun else action
        return replace(self, actions=due)

    def beside(self, wanted: Rules) -> Rules:
        """To be compared with what is wanted: of a recurring action that is to have no beginning any more, AWS tells
        the next time in that place."""
        begun = {name for name, action in wanted.actions.items() if "StartTime" not in action}
        actions = {
            name: _without_beginning(action) if name in begun and "Recurrence" in action else action
            for name, action in self.actions.items()
        }
        return replace(self, actions=actions)

    @property
    def paused(self) -> bool:
        """Whether nothing changes the size: neither policies nor scheduled actions, or theirs are suspended."""
        return (not self.policies or "AlarmNotification" in self.suspended) and (
            not self.actions or "ScheduledActions" in self.suspended
        )


@dataclass(frozen=True, slots=True)
class Change:
    """One call that brings a group's rules to what is wanted: its operation, what the SDK calls it, its parameters
    beside the group's name, and what it is about."""

    operation: str
    method: str
    parameters: Mapping[str, Any]
    about: str = ""


def changes(there: Rules, wanted: Rules, sizes: Mapping[str, int], scaling: Scaling) -> list[Change]:
    """The calls that bring a group that has rules ``there`` to those that are ``wanted``, in their order. ``sizes`` are
    the group's own bounds."""
    found: list[Change] = []

    def add(operation: str, method: str, about: str = "", **parameters: Any) -> None:
        found.append(Change(operation, method, parameters, about))

    if more := [each for each in wanted.suspended if each not in there.suspended]:
        add("SuspendProcesses", "suspend_processes", ScalingProcesses=more)
    bounds = {"MinSize": scaling.minimum, "MaxSize": scaling.maximum} if scaling.moves else {}
    has = {**sizes, **there.settings}
    settings = {**dict.fromkeys(there.settings, _NONE), **wanted.settings, **bounds}
    changed: dict[str, Any] = {key: size for key, size in settings.items() if has.get(key) != size}
    if changed:
        add("UpdateAutoScalingGroup", "update_auto_scaling_group", **changed)
    for hook in _beyond(there.hooks, wanted.hooks):
        add("DeleteLifecycleHook", "delete_lifecycle_hook", f"hook {hook}", LifecycleHookName=hook)
    for hook, rule in _lacking(there.hooks, wanted.hooks):
        add("PutLifecycleHook", "put_lifecycle_hook", f"hook {hook}", **rule)
    for policy in _beyond(there.policies, wanted.policies):
        add("DeletePolicy", "delete_policy", f"policy {policy}", PolicyName=policy)
    for policy, rule in _lacking(there.policies, wanted.policies):
        add("PutScalingPolicy", "put_scaling_policy", f"policy {policy}", **rule)
    for action in _beyond(there.actions, wanted.actions):
        add("DeleteScheduledAction", "delete_scheduled_action", f"action {action}", ScheduledActionName=action)
    for action, rule in _lacking(there.actions, wanted.actions):
        times = {key: time for key in ("StartTime", "EndTime") if (time := _time(rule.get(key))) is not None}
        put = "put_scheduled_update_group_action"
        add("PutScheduledUpdateGroupAction", put, f"action {action}", **{**rule, **times})
    if more := [each for each in wanted.metrics if each not in there.metrics]:
        add("EnableMetricsCollection", "enable_metrics_collection", Metrics=more, Granularity="1Minute")
    if less := [each for each in there.metrics if each not in wanted.metrics]:
        add("DisableMetricsCollection", "disable_metrics_collection", Metrics=less)
    if less := [each for each in there.suspended if each not in wanted.suspended]:
        add("ResumeProcesses", "resume_processes", ScalingProcesses=less)
    return found


FRESH = Rules({"DefaultCooldown": 300}, {}, {}, {}, (), ())
"""Of a group that was just made, by AWS's own defaults."""


class GroupScaling:
    """What scales Auto Scaling groups. Not a port: a part of the groups."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def scaling(self, ctx: Context, group: AutoScalingGroupTypeDef) -> Scaling:
        """What scales a group, as it is read. Raises :class:`~osvdeploy.errors.NotFound` where it is gone since."""
        found = self._rules(ctx, group)
        parts = [f"policy {name}" for name in found.policies]
        parts += [f"scheduled action {name}" for name in found.actions]
        parts += [f"hook {name}" for name in found.hooks]
        return Scaling(
            group["MinSize"],
            group["DesiredCapacity"],
            group["MaxSize"],
            (*parts, *(("metrics",) if found.metrics else ())),
            found.paused,
            found.text(_own(group), _others(group)),
        )

    def pause(self, ctx: Context, group: AutoScalingGroupTypeDef) -> None:
        if not self._rules(ctx, group).paused:
            self._suspend(ctx, group, [name for name in PAUSED if name not in _suspended(group)])

    def resume(self, ctx: Context, group: AutoScalingGroupTypeDef, scaling: Scaling) -> None:
        before = Rules.read(scaling.rules, {}).suspended
        self._resume(ctx, group, [name for name in _suspended(group) if name not in before])

    def follows(self, ctx: Context, group: AutoScalingGroupTypeDef, scaling: Scaling) -> bool:
        most = scaling.most(group["DesiredCapacity"])
        bounds = (scaling.minimum, most) == (group["MinSize"], group["MaxSize"]) or not scaling.moves
        wanted = Rules.read(scaling.rules, _own(group)).still_due(ctx.now())
        return bounds and self._rules(ctx, group).still_due(ctx.now()).beside(wanted) == wanted

    def apply(self, ctx: Context, group: AutoScalingGroupTypeDef, scaling: Scaling) -> None:
        name = group["AutoScalingGroupName"]
        wanted = Rules.read(scaling.rules, _own(group)).still_due(ctx.now())
        there = self._rules(ctx, group).still_due(ctx.now()).beside(wanted)
        scaling = rules.told_fitting(ctx, name, scaling, group["DesiredCapacity"])
        sizes = {"MinSize": group["MinSize"], "MaxSize": group["MaxSize"]}
        client = self._aws.autoscaling
        with self._aws.calling(ctx, f"Auto Scaling group {name}"):
            recurring: list[Mapping[str, Any]] = []
            for change in changes(there, wanted, sizes, scaling):
                parameters = change.parameters
                if "Recurrence" in parameters and "StartTime" in parameters:
                    recurring.append(parameters)
                    parameters = _without_beginning(parameters)
                answer: Any = getattr(client, change.method)(AutoScalingGroupName=name, **parameters)
                policy = change.parameters.get("PolicyName")
                alarmed = change.parameters.get("PolicyType", _BY_ALARM[0]) in _BY_ALARM
                if change.operation == "PutScalingPolicy" and alarmed:
                    ctx.report(
                        Warned(
                            f"scaling policy {policy} of {name}: the alarms that start it name the policy of the group "
                            "before",
                            hint=f"let them start {answer['PolicyARN']} too, or use a target tracking policy, which "
                            "has its own alarms",
                        )
                    )
            self._begin_later(name, recurring)

    def _begin_later(self, name: str, recurring: Sequence[Mapping[str, Any]]) -> None:
        """Give recurring actions, just made, their beginnings. What is told as one is mostly the next time by the
        recurrence, and then it is there already: said once more, it would be refused where two actions share it."""
        if not recurring:
            return
        client = self._aws.autoscaling
        later = client.get_paginator("describe_scheduled_actions").paginate(AutoScalingGroupName=name)
        made = {each["ScheduledActionName"]: each for page in later for each in page["ScheduledUpdateGroupActions"]}
        for each in recurring:
            there = made.get(each["ScheduledActionName"])
            if there is None or there.get("StartTime") != each["StartTime"]:
                client.put_scheduled_update_group_action(AutoScalingGroupName=name, **each)

    # --------------------------------------------------------------------------------------------------------- calls

    def _rules(self, ctx: Context, group: AutoScalingGroupTypeDef) -> Rules:
        name, client = group["AutoScalingGroupName"], self._aws.autoscaling
        with self._aws.calling(ctx, f"Auto Scaling group {name}"):
            pages = client.get_paginator("describe_policies").paginate(AutoScalingGroupName=name)
            policies: list[Any] = [each for page in pages for each in page["ScalingPolicies"]]
            later = client.get_paginator("describe_scheduled_actions").paginate(AutoScalingGroupName=name)
            actions: list[Any] = [each for page in later for each in page["ScheduledUpdateGroupActions"]]
            hooks: list[Any] = list(client.describe_lifecycle_hooks(AutoScalingGroupName=name)["LifecycleHooks"])
        settings = {"DefaultCooldown": group["DefaultCooldown"]}
        if "DefaultInstanceWarmup" in group:
            settings["DefaultInstanceWarmup"] = group["DefaultInstanceWarmup"]
        return Rules(
            settings,
            _named(policies, _POLICY),
            _named(actions, _ACTION),
            _named(hooks, _HOOK),
            sorted(each.get("Metric", "") for each in group.get("EnabledMetrics", [])),
            _suspended(group),
        )

    def _suspend(self, ctx: Context, group: AutoScalingGroupTypeDef, processes: list[str]) -> None:
        name = group["AutoScalingGroupName"]
        if processes:
            with self._aws.calling(ctx, f"Auto Scaling group {name}"):
                self._aws.autoscaling.suspend_processes(AutoScalingGroupName=name, ScalingProcesses=processes)

    def _resume(self, ctx: Context, group: AutoScalingGroupTypeDef, processes: list[str]) -> None:
        name = group["AutoScalingGroupName"]
        if processes:
            with self._aws.calling(ctx, f"Auto Scaling group {name}"):
                self._aws.autoscaling.resume_processes(AutoScalingGroupName=name, ScalingProcesses=processes)


def unpaused(there: Scaling, before: Scaling) -> Scaling:
    """As it would be told after a resume."""
    found, wanted = Rules.read(there.rules, {}), Rules.read(before.rules, {}).suspended
    found = replace(found, suspended=[name for name in found.suspended if name in wanted])
    return replace(there, paused=found.paused, rules=found.text({}))


def standing(group: AutoScalingGroupTypeDef | None, name: str) -> AutoScalingGroupTypeDef:
    """A group that is there to stay. Raises :class:`~osvdeploy.errors.NotFound` for any other."""
    if group is None or "Status" in group:
        raise NotFound(f"Auto Scaling group {name}: does not exist (any more)")
    return group


def _named(found: Sequence[Mapping[str, Any]], fields: tuple[str, ...]) -> dict[str, Rule]:
    """Rules by name, of each what the call takes that makes it; the name is the first of ``fields``."""
    made: dict[str, Rule] = {}
    for each in found:
        rule = {key: each[key] for key in fields if each.get(key) not in (None, [], "", {})}
        made[rule[fields[0]]] = {
            key: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
            for key, value in rule.items()
        }
    return dict(sorted(made.items()))


def _beyond(there: Mapping[str, Rule], wanted: Mapping[str, Rule]) -> list[str]:
    """What is to go: what nobody wants, and what is to be made anew, since a put leaves what it does not name."""
    return [name for name, rule in there.items() if wanted.get(name) != rule]


def _lacking(there: Mapping[str, Rule], wanted: Mapping[str, Rule]) -> list[tuple[str, Rule]]:
    return [(name, rule) for name, rule in wanted.items() if there.get(name) != rule]


def _without_beginning(action: Mapping[str, Any]) -> Rule:
    return {key: each for key, each in action.items() if key != "StartTime"}


def _suspended(group: AutoScalingGroupTypeDef) -> list[str]:
    found = {each.get("ProcessName", "") for each in group.get("SuspendedProcesses", [])}
    return [name for name in PAUSED if name in found]


def _own(group: AutoScalingGroupTypeDef) -> dict[str, str]:
    """What a rule may say of its own group: the target group as metrics name it, and the name, which may be a part of
    that. Of several it is none of ours: a group that was adopted is let go with the rules that it has."""
    behind = group.get("TargetGroupARNs", [])
    ours = {tag.get("Value", "") for tag in group.get("Tags", []) if tag.get("Key") == BACKEND}
    own = [each.rpartition(":")[2] for each in sorted(behind, key=lambda each: each in ours)]
    return {**({_TARGET_GROUP: own[0]} if own else {}), "$(group)": group["AutoScalingGroupName"]}


def _others(group: AutoScalingGroupTypeDef) -> dict[str, str]:
    """What stands in the place of any of its target groups: one that was adopted stands behind ours, too, and rules may
    name either. What comes after it stands behind one alone."""
    return {each.rpartition(":")[2]: _TARGET_GROUP for each in group.get("TargetGroupARNs", [])}


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
