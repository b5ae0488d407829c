"""EC2 Auto Scaling: groups that start, replace and end instances by themselves, and the record of what they did.

A group is watched by an event of its own, each :data:`WATCH_BUSY` seconds while something is under way and each
:data:`WATCH_IDLE` otherwise; all that a group does by itself, it does then. How long AWS takes between the steps is
documented nowhere; these are the sandbox's own. Messages and causes follow the API's own examples and "Troubleshoot
issues in Amazon EC2 Auto Scaling".

The sandbox's own limits, each refused as not simulated: launch templates alone, subnets alone, health checks of types
EC2 and ELB, no warm pools, instance refresh or mixed instances. What scales a group is in :mod:`.scaling`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from osvdeploy.sandbox.dataplane import TargetState
from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services import elbv2
from osvdeploy.sandbox.services.routing import Wire, invalid
from osvdeploy.sandbox.services.scope import Doc, EventHandler, Operation, Scope

WATCH_BUSY = 2.0
WATCH_IDLE = 15.0
FIRST_LOOK = 1.0
"""Seconds from a call that changes a group to what it does about it."""

RETRY_FIRST, RETRY_LAST = 15.0, 300.0
"""Seconds until a failed launch is tried again: doubled each time up to the last."""

RECORDS_DEFAULT, RECORDS_LIMIT = 50, 100
ACTIVITIES_KEPT = timedelta(days=42)
"""DescribeScalingActivities goes back six weeks."""

TAGS_PER_GROUP = 50
NAME_LIMIT = 255

GROUP, MEMBER, ACTIVITY = "autoscaling.group", "autoscaling.member", "autoscaling.activity"
"""Kinds of documents in the store."""

POLICY, ACTION, HOOK = "autoscaling.policy", "autoscaling.scheduled-action", "autoscaling.hook"
"""Kinds of what scales a group and goes with it: ``arn`` is the group's, ``key`` the document's own."""

PROCESSES = (
    "Launch",
    "Terminate",
    "AddToLoadBalancer",
    "AlarmNotification",
    "AZRebalance",
    "HealthCheck",
    "InstanceRefresh",
    "ReplaceUnhealthy",
    "ScheduledActions",
)

_NOT_SIMULATED = (
    "LaunchConfigurationName",
    "MixedInstancesPolicy",
    "InstanceId",
    "LoadBalancerNames",
    "PlacementGroup",
    "LifecycleHookSpecificationList",
    "MaxInstanceLifetime",
    "CapacityRebalance",
    "NewInstancesProtectedFromScaleIn",
    "TrafficSources",
    "InstanceMaintenancePolicy",
    "AvailabilityZoneImpairmentPolicy",
    "CapacityReservationSpecification",
    "InstanceLifecyclePolicy",
    "DeletionProtection",
    "AvailabilityZoneIds",
    "DesiredCapacityType",
    "Context",
    "Operator",
)


# ---------------------------------------------------------------------------------------------------------- groups


def create_auto_scaling_group(scope: Scope, params: Wire) -> Doc:
    name = params["AutoScalingGroupName"]
    if not re.fullmatch(r"[ -~]+", name) or ":" in name or len(name) > NAME_LIMIT:
        raise invalid(
            f"The Auto Scaling group name '{name}' must be 1 to {NAME_LIMIT} printable characters without ':'"
        )
    if scope.get(GROUP, name) is not None:
        # Also while it is being deleted: the name is free only when the last instance is gone.
        raise ApiError(
            "AlreadyExists",
            f"AutoScalingGroup by this name already exists - A group with the name {name} already exists",
        )
    _refuse_unsimulated(params)
    low, high = params["MinSize"], params["MaxSize"]
    desired = params.get("DesiredCapacity", low)
    check_sizes(low, high, desired)
    template = _template(scope, params.get("LaunchTemplate"))
    subnets, zones = _subnets(scope, params.get("VPCZoneIdentifier"), params.get("AvailabilityZones"))
    _check_target_groups(scope, params.get("TargetGroupARNs") or [])
    tags = _tags(params.get("Tags") or [], name)
    arn = (
        f"arn:aws:autoscaling:{scope.region}:{scope.account}:autoScalingGroup:{scope.new_id(32)}"
        f":autoScalingGroupName/{name}"
    )
    role = "role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
    group = {
        "AutoScalingGroupName": name,
        "AutoScalingGroupARN": arn,
        "LaunchTemplate": template,
        "MinSize": low,
        "MaxSize": high,
        "DesiredCapacity": desired,
        "DefaultCooldown": params.get("DefaultCooldown", 300),
        "AvailabilityZones": zones,
        "LoadBalancerNames": [],
        "TargetGroupARNs": list(dict.fromkeys(params.get("TargetGroupARNs") or [])),
        "HealthCheckType": _health_check_type(params.get("HealthCheckType")),
        "HealthCheckGracePeriod": params.get("HealthCheckGracePeriod", 0),
        "CreatedTime": scope.now.isoformat(),
        "SuspendedProcesses": [],
        "VPCZoneIdentifier": ",".join(subnets),
        "EnabledMetrics": [],
        "TerminationPolicies": _termination_policies(params.get("TerminationPolicies")),
        "NewInstancesProtectedFromScaleIn": False,
        "ServiceLinkedRoleARN": params.get("ServiceLinkedRoleARN") or f"arn:aws:iam::{scope.account}:{role}",
        "tags": tags,
        "cause": because(
            scope, f"a user request created an AutoScalingGroup changing the desired capacity from 0 to {desired}"
        ),
        "failures": 0,
        "watch": 0,
    }
    _set_warmup(group, params)
    scope.put(GROUP, name, group)
    look_soon(scope, group)
    return {}


def _set_warmup(group: Doc, params: Wire) -> None:
    """-1 takes the default away, as if there had never been one."""
    warmup = params.get("DefaultInstanceWarmup")
    if warmup is not None and warmup >= 0:
        group["DefaultInstanceWarmup"] = warmup
    elif warmup is not None:
        group.pop("DefaultInstanceWarmup", None)


def _refuse_unsimulated(params: Wire) -> None:
    for field in _NOT_SIMULATED:
        if params.get(field):
            raise NotSimulated(f"{field} of Auto Scaling groups")


def check_sizes(low: int, high: int, desired: int) -> None:
    if low < 0 or high < 0:
        raise invalid("Min and max bounds must not be negative")
    if low > high:
        raise invalid(f"Max bound, {high}, must be greater than or equal to min bound, {low}")
    if not low <= desired <= high:
        raise invalid(f"Desired capacity:{desired} must be between the specified min size:{low} and max size:{high}")


def _template(scope: Scope, given: Wire | None) -> Doc:
    if not given:
        raise invalid(
            "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or "
            "MixedInstancesPolicy parameter."
        )
    template_id, name = given.get("LaunchTemplateId"), given.get("LaunchTemplateName")
    if bool(template_id) == bool(name):
        raise invalid("Valid requests must contain either launchTemplateId or LaunchTemplateName")
    version = given.get("Version") or "$Default"
    try:
        template = scope.ec2.template(template_id=template_id, name=name, version=version)
    except ApiError as refused:
        raise invalid(f"You must use a valid fully-formed launch template. {refused.message}") from None
    return {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name, "Version": version}


def _subnets(scope: Scope, given: str | None, zones: Sequence[str] | None) -> tuple[list[str], list[str]]:
    names = [name.strip() for name in (given or "").split(",") if name.strip()]
    if not names:
        if zones:
            raise NotSimulated("Availability Zones without VPC subnets")
        raise invalid("At least one Availability Zone or VPC Subnet is required.")
    found = []
    for name in names:
        subnet = scope.ec2.subnet(name)
        if subnet is None:
            raise invalid(f"The subnet ID '{name}' does not exist")
        found.append(subnet)
    if len({subnet["VpcId"] for subnet in found}) > 1:
        raise invalid("The subnets must all be in the same VPC")
    there = sorted({subnet["AvailabilityZone"] for subnet in found})
    if zones and sorted(zones) != there:
        raise invalid("The availability zones of the specified subnets and the AutoScalingGroup do not match")
    return names, there


def _check_target_groups(scope: Scope, arns: Iterable[str]) -> None:
    if any(scope.get(elbv2.GROUP, arn) is None for arn in arns):
        raise invalid("Provided Target Groups may not be valid. Please ensure they exist and try again.")


def _health_check_type(given: str | None) -> str:
    kinds = [kind.strip() for kind in (given or "EC2").split(",")]
    for kind in kinds:
        if kind in ("EBS", "VPC_LATTICE"):
            raise NotSimulated(f"health checks of type {kind}")
        if kind not in ("EC2", "ELB"):
            raise invalid(f"Invalid Health Check Type: {kind}. Valid values are EC2, ELB, VPC_LATTICE, EBS.")
    return ",".join(kinds)


def _termination_policies(given: Sequence[str] | None) -> list[str]:
    policies = list(given or ["Default"])
    if policies != ["Default"]:
        raise NotSimulated(f"termination policies {', '.join(policies)}")
    return policies


def update_auto_scaling_group(scope: Scope, params: Wire) -> Doc:
    group = changeable(scope, params["AutoScalingGroupName"])
    _refuse_unsimulated(params)
    low, high = params.get("MinSize", group["MinSize"]), params.get("MaxSize", group["MaxSize"])
    if "DesiredCapacity" in params:
        desired = params["DesiredCapacity"]
        check_sizes(low, high, desired)
    else:
        if low > high:
            raise invalid(f"Max bound, {high}, must be greater than or equal to min bound, {low}")
        desired = min(max(group["DesiredCapacity"], low), high)
    if params.get("LaunchTemplate"):
        group["LaunchTemplate"] = _template(scope, params["LaunchTemplate"])
    if params.get("VPCZoneIdentifier") or params.get("AvailabilityZones"):
        subnets, zones = _subnets(scope, params.get("VPCZoneIdentifier"), params.get("AvailabilityZones"))
        group |= {"VPCZoneIdentifier": ",".join(subnets), "AvailabilityZones": zones}
    if params.get("HealthCheckType"):
        group["HealthCheckType"] = _health_check_type(params["HealthCheckType"])
    if params.get("TerminationPolicies"):
        group["TerminationPolicies"] = _termination_policies(params["TerminationPolicies"])
    for field in ("DefaultCooldown", "HealthCheckGracePeriod", "ServiceLinkedRoleARN"):
        if field in params:
            group[field] = params[field]
    _set_warmup(group, params)
    resize(scope, group, low, high, desired, "a user request update")
    return {}


def resize(scope: Scope, group: Doc, low: int, high: int, desired: int, why: str) -> None:
    """Give a group other bounds and another size, and let it see to that."""
    before = group["DesiredCapacity"]
    group |= {"MinSize": low, "MaxSize": high, "DesiredCapacity": desired, "failures": 0}
    if desired != before:
        group["cause"] = because(
            scope,
            f"{why} of AutoScalingGroup constraints to min: {low}, max: {high}, desired: {desired} "
            f"changing the desired capacity from {before} to {desired}",
        )
    look_soon(scope, group)


def set_desired_capacity(scope: Scope, params: Wire) -> Doc:
    group = changeable(scope, params["AutoScalingGroupName"])
    if params.get("HonorCooldown"):
        raise NotSimulated("waiting for a cooldown")
    wanted, before = params["DesiredCapacity"], group["DesiredCapacity"]
    if wanted > group["MaxSize"]:
        raise invalid(
            f"New SetDesiredCapacity value {wanted} is above max value {group['MaxSize']} for the AutoScalingGroup."
        )
    if wanted < group["MinSize"]:
        raise invalid(
            f"New SetDesiredCapacity value {wanted} is below min value {group['MinSize']} for the AutoScalingGroup."
        )
    group |= {"DesiredCapacity": wanted, "failures": 0}
    if wanted != before:
        group["cause"] = because(
            scope,
            "a user request explicitly set group desired capacity changing the desired capacity "
            f"from {before} to {wanted}",
        )
    look_soon(scope, group)
    return {}


def describe_auto_scaling_groups(scope: Scope, params: Wire) -> Doc:
    names = params.get("AutoScalingGroupNames") or []
    found = [group for group in scope.all(GROUP) if not names or group["AutoScalingGroupName"] in names]
    for condition in params.get("Filters") or []:
        found = [group for group in found if _has_tag(group, condition)]
    members = params.get("IncludeInstances", True)
    shown = [_shown_group(scope, group, members=members is not False) for group in found]
    return page(params, "AutoScalingGroups", shown)


def _has_tag(group: Doc, condition: Wire) -> bool:
    name, values = condition.get("Name", ""), condition.get("Values") or []
    tags = {key: tag["Value"] for key, tag in group["tags"].items()}
    if name == "tag-key":
        return any(key in values for key in tags)
    if name == "tag-value":
        return any(value in values for value in tags.values())
    if name.startswith("tag:"):
        return tags.get(name.removeprefix("tag:")) in values
    raise invalid(f"Filter type {name} is not correct. Allowed Filter types are: tag-key tag-value tag:<key>")


def _shown_group(scope: Scope, group: Doc, *, members: bool) -> Doc:
    shown = {key: value for key, value in group.items() if key[0].isupper()}
    shown["CreatedTime"] = datetime.fromisoformat(group["CreatedTime"])
    shown["Tags"] = [_shown_tag(group, key, tag) for key, tag in group["tags"].items()]
    if members:
        shown["Instances"] = [_shown_member(member) for member in _members(scope, group)]
    return shown


def _shown_member(member: Doc) -> Doc:
    return {key: value for key, value in member.items() if key[0].isupper() and key != "AutoScalingGroupName"}


def delete_auto_scaling_group(scope: Scope, params: Wire) -> Doc:
    """With ForceDelete its instances are ended at once, without draining; the group stays until they are gone."""
    name = params["AutoScalingGroupName"]
    group = group_of(scope, name)
    if "Status" in group:
        return {}
    members = _members(scope, group)
    if members and not params.get("ForceDelete"):
        if any(member["LifecycleState"] != "InService" for member in members):
            raise ApiError(
                "ScalingActivityInProgress",
                "You cannot delete an AutoScalingGroup while there are scaling activities in progress for that group.",
            )
        raise ApiError(
            "ResourceInUse",
            "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) "
            "still in the group.",
        )
    group |= {"Status": "Delete in progress", "MinSize": 0, "DesiredCapacity": 0}
    cause = because(scope, "a user request force-deleted the AutoScalingGroup")
    for member in members:
        if member["LifecycleState"] != "Terminating":
            _begin_end(scope, group, member, cause, drain=False)
        elif not member.get("ending"):
            _end(scope, member)
    look_soon(scope, group)
    return {}


def attach_load_balancer_target_groups(scope: Scope, params: Wire) -> Doc:
    group = changeable(scope, params["AutoScalingGroupName"])
    _check_target_groups(scope, params["TargetGroupARNs"])
    group["TargetGroupARNs"] = list(dict.fromkeys([*group["TargetGroupARNs"], *params["TargetGroupARNs"]]))
    for member in _members(scope, group):
        if member["LifecycleState"] == "InService":
            _add_to_balancers(scope, group, member)
    look_soon(scope, group)
    return {}


def detach_load_balancer_target_groups(scope: Scope, params: Wire) -> Doc:
    group = changeable(scope, params["AutoScalingGroupName"])
    unknown = set(params["TargetGroupARNs"]) - set(group["TargetGroupARNs"])
    if unknown:
        raise invalid("Trying to remove Target Groups that are not part of the group")
    group["TargetGroupARNs"] = [arn for arn in group["TargetGroupARNs"] if arn not in params["TargetGroupARNs"]]
    for member in _members(scope, group):
        _take_from_balancers(scope, params["TargetGroupARNs"], member["InstanceId"])
    look_soon(scope, group)
    return {}


def describe_load_balancer_target_groups(scope: Scope, params: Wire) -> Doc:
    group = group_of(scope, params["AutoScalingGroupName"])
    members = [member["InstanceId"] for member in _members(scope, group) if member["LifecycleState"] == "InService"]
    shown = []
    for arn in group["TargetGroupARNs"]:
        states = [
            target["state"] for target in scope.all(elbv2.TARGET) if target["group"] == arn and target["id"] in members
        ]
        state = "Adding" if len(states) < len(members) else "InService" if TargetState.HEALTHY in states else "Added"
        shown.append({"LoadBalancerTargetGroupARN": arn, "State": state})
    return page(params, "LoadBalancerTargetGroups", shown)


# -------------------------------------------------------------------------------------------- processes, instances


def suspend_processes(scope: Scope, params: Wire) -> Doc:
    group = changeable(scope, params["AutoScalingGroupName"])
    already = {process["ProcessName"] for process in group["SuspendedProcesses"]} | _processes(params)
    reason = f"User suspended at {_stamp(scope.now)}"
    group["SuspendedProcesses"] = [
        {"ProcessName": name, "SuspensionReason": reason} for name in PROCESSES if name in already
    ]
    scope.put(GROUP, group["AutoScalingGroupName"], group)
    return {}


def resume_processes(scope: Scope, params: Wire) -> Doc:
    group = changeable(scope, params["AutoScalingGroupName"])
    resumed = _processes(params)
    group["SuspendedProcesses"] = [each for each in group["SuspendedProcesses"] if each["ProcessName"] not in resumed]
    look_soon(scope, group)
    return {}


def _processes(params: Wire) -> set[str]:
    named = set(params.get("ScalingProcesses") or PROCESSES)
    if unknown := named - set(PROCESSES):
        raise invalid(f"Invalid scaling process type(s): {', '.join(sorted(unknown))}")
    return named


def suspended(group: Doc, process: str) -> bool:
    return any(each["ProcessName"] == process for each in group["SuspendedProcesses"])


def describe_auto_scaling_instances(scope: Scope, params: Wire) -> Doc:
    names = params.get("InstanceIds") or []
    found = [member for member in scope.all(MEMBER) if not names or member["InstanceId"] in names]
    shown = [{key: value for key, value in member.items() if key[0].isupper()} for member in found]
    for each in shown:
        each["HealthStatus"] = each["HealthStatus"].upper()
    return page(params, "AutoScalingInstances", shown)


def terminate_instance_in_auto_scaling_group(scope: Scope, params: Wire) -> Doc:
    if params.get("InstanceIds"):
        raise NotSimulated("terminating several instances in one call")
    member = scope.get(MEMBER, params.get("InstanceId") or "")
    if member is None:
        raise invalid(f"Instance Id not found - No managed instance found for instance ID: {params.get('InstanceId')}")
    group = changeable(scope, member["AutoScalingGroupName"])
    decrement = params["ShouldDecrementDesiredCapacity"]
    if member["LifecycleState"] == "Terminating":
        raise ApiError("ScalingActivityInProgress", f"Instance {member['InstanceId']} is already terminating")
    said = "a user request"
    if decrement:
        desired = group["DesiredCapacity"]
        if desired == group["MinSize"]:
            raise invalid(
                f"Currently, desiredSize equals minSize ({desired}). Terminating instance without replacement will "
                "violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or "
                "lower group's min size."
            )
        group["DesiredCapacity"] = desired - 1
        said += f", shrinking the capacity from {desired} to {desired - 1}"
    cause = because(scope, f"instance {member['InstanceId']} was taken out of service in response to {said}")
    activity = _begin_end(scope, group, member, cause, drain=True)
    look_soon(scope, group)
    return {"Activity": _shown_activity(group, activity)}


# ------------------------------------------------------------------------------------------------------------ tags


def create_or_update_tags(scope: Scope, params: Wire) -> Doc:
    changed: dict[str, Doc] = {}
    for tag in params["Tags"]:
        name = _tag_group(tag)
        group = changed.setdefault(name, changeable(scope, name))
        group["tags"] = group["tags"] | _tags([tag], name)
        _check_room(group["tags"])
    for name, group in changed.items():
        scope.put(GROUP, name, group)
    return {}


def delete_tags(scope: Scope, params: Wire) -> Doc:
    for tag in params["Tags"]:
        group = changeable(scope, _tag_group(tag))
        group["tags"].pop(tag["Key"], None)
        scope.put(GROUP, group["AutoScalingGroupName"], group)
    return {}


def describe_tags(scope: Scope, params: Wire) -> Doc:
    shown = [_shown_tag(group, key, tag) for group in scope.all(GROUP) for key, tag in group["tags"].items()]
    fields: dict[str, Callable[[Doc], str]] = {
        "auto-scaling-group": lambda tag: str(tag["ResourceId"]),
        "key": lambda tag: str(tag["Key"]),
        "value": lambda tag: str(tag["Value"]),
        "propagate-at-launch": lambda tag: str(tag["PropagateAtLaunch"]).lower(),
    }
    for condition in params.get("Filters") or []:
        field = fields.get(condition.get("Name", ""))
        if field is None:
            raise invalid(
                f"Filter type {condition.get('Name')} is not correct. Allowed Filter types are: "
                "auto-scaling-group key value propagate-at-launch"
            )
        shown = [tag for tag in shown if field(tag) in (condition.get("Values") or [])]
    return page(params, "Tags", shown)


def _tag_group(tag: Wire) -> str:
    if tag.get("ResourceType") not in (None, "auto-scaling-group"):
        raise invalid(f"Invalid resource type {tag['ResourceType']}; it must be auto-scaling-group")
    return str(tag.get("ResourceId") or "")


_IN_NO_TAG = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""TagKey and TagValue in the service's model; EC2's has no such pattern."""


def _tags(given: Iterable[Wire], name: str) -> dict[str, Doc]:
    tags: dict[str, Doc] = {}
    for tag in given:
        key = tag.get("Key") or ""
        if _tag_group(tag) not in ("", name):
            raise invalid(f"The tag's resource '{tag['ResourceId']}' is not the group '{name}'")
        if key in tags:
            raise invalid(f"Duplicate keys are not allowed. Duplicate key: {key}")
        if key.lower().startswith("aws:"):
            raise invalid("Tag keys starting with 'aws:' are reserved for internal use")
        if not 1 <= len(key) <= 128 or len(tag.get("Value") or "") > 256:
            raise invalid(f"Tag key '{key}' must be 1 to 128 characters, its value at most 256")
        if _IN_NO_TAG.search(key + (tag.get("Value") or "")):
            raise invalid(f"Tag '{key}' has a character that XML does not hold")
        tags[key] = {"Value": tag.get("Value") or "", "PropagateAtLaunch": tag.get("PropagateAtLaunch", False)}
    _check_room(tags)
    return tags


def _check_room(tags: Mapping[str, Doc]) -> None:
    if len(tags) > TAGS_PER_GROUP:
        raise ApiError("LimitExceeded", f"The maximum number of tags is {TAGS_PER_GROUP}")


def _shown_tag(group: Doc, key: str, tag: Doc) -> Doc:
    name = group["AutoScalingGroupName"]
    return {"ResourceId": name, "ResourceType": "auto-scaling-group", "Key": key, **tag}


# ------------------------------------------------------------------------------------------------------ activities


def describe_scaling_activities(scope: Scope, params: Wire) -> Doc:
    name = params.get("AutoScalingGroupName")
    if params.get("Filters"):
        raise NotSimulated("filters of scaling activities")
    wanted, deleted = params.get("ActivityIds") or [], bool(params.get("IncludeDeletedGroups"))
    if name and scope.get(GROUP, name) is None and not deleted:
        raise no_group(name)
    groups = {group["AutoScalingGroupARN"]: group for group in scope.all(GROUP)}
    shown = []
    for activity in reversed(scope.all(ACTIVITY)):
        group = groups.get(activity["AutoScalingGroupARN"])
        if name and activity["AutoScalingGroupName"] != name:
            continue
        if (wanted and activity["ActivityId"] not in wanted) or (group is None and not deleted):
            continue
        if datetime.fromisoformat(activity["StartTime"]) >= scope.now - ACTIVITIES_KEPT:
            shown.append(_shown_activity(group, activity))
    return page(params, "Activities", shown, default=100)


def _shown_activity(group: Doc | None, activity: Doc) -> Doc:
    shown = {key: value for key, value in activity.items() if key[0].isupper()}
    for field in ("StartTime", "EndTime"):
        if field in shown:
            shown[field] = datetime.fromisoformat(shown[field])
    if group is None:
        shown["AutoScalingGroupState"] = "Deleted"
    return shown


def _record(scope: Scope, group: Doc, description: str, cause: str, **fields: Any) -> Doc:
    activity = {
        "ActivityId": "-".join(scope.new_id(length) for length in (8, 4, 4, 4, 12)),
        "AutoScalingGroupName": group["AutoScalingGroupName"],
        "AutoScalingGroupARN": group["AutoScalingGroupARN"],
        "Description": description,
        "Cause": cause,
        "StartTime": scope.now.isoformat(),
        "StatusCode": "InProgress",
        "Progress": 0,
        "Details": "{}",
        **fields,
    }
    scope.put(ACTIVITY, activity["ActivityId"], activity)
    return activity


def _finish(scope: Scope, activity_id: str, status: str) -> None:
    activity = scope.get(ACTIVITY, activity_id)
    if activity is not None:
        done = {"StatusCode": status, "EndTime": scope.now.isoformat(), "Progress": 100}
        scope.put(ACTIVITY, activity_id, activity | done)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def because(scope: Scope, what: str) -> str:
    return f"At {_stamp(scope.now)} {what}."


# ----------------------------------------------------------------------------------------- what a group does by itself


def look_soon(scope: Scope, group: Doc, seconds: float = FIRST_LOOK) -> None:
    """Keep the group and look at it in ``seconds``; a look that was due before is superseded."""
    group["watch"] += 1
    scope.put(GROUP, group["AutoScalingGroupName"], group)
    payload = {"group": group["AutoScalingGroupName"], "arn": group["AutoScalingGroupARN"], "watch": group["watch"]}
    scope.later(seconds, "autoscaling.look", payload)


def look(scope: Scope, payload: Wire) -> None:
    """One look at a group: what has happened to its instances, and what is to be done about it."""
    group = scope.get(GROUP, payload["group"])
    if group is None or (group["AutoScalingGroupARN"], group["watch"]) != (payload["arn"], payload["watch"]):
        return
    for member in _members(scope, group):
        _follow(scope, group, member)
    if "Status" in group:
        if _members(scope, group):
            look_soon(scope, group, WATCH_BUSY)
        else:
            scope.delete(GROUP, payload["group"])
            for kind in (POLICY, ACTION, HOOK):
                for each in scope.all(kind):
                    if each["arn"] == group["AutoScalingGroupARN"]:
                        scope.delete(kind, each["key"])
        return
    _replace_unhealthy(scope, group)
    pause = _scale(scope, group)
    busy = any(member["LifecycleState"] != "InService" for member in _members(scope, group))
    look_soon(scope, group, pause or (WATCH_BUSY if busy else WATCH_IDLE))


def _follow(scope: Scope, group: Doc, member: Doc) -> None:
    """Take in what became of one instance."""
    instance = scope.ec2.instance(member["InstanceId"])
    state = "terminated" if instance is None else instance.state
    match member["LifecycleState"]:
        case "Pending" if state == "running":
            member["LifecycleState"] = "InService"
            _keep(scope, member)
            scope.later(group["HealthCheckGracePeriod"], "autoscaling.graced", {"member": member["InstanceId"]})
            _add_to_balancers(scope, group, member)
            _finish(scope, member["activity"], "Successful")
        case "Pending" if state != "pending":
            # It ended before it ran: the launch failed, and what is left of it goes away.
            activity = scope.get(ACTIVITY, member["activity"])
            if activity is not None:
                message = (
                    "Instance became unhealthy while waiting for instance to be in InService state. "
                    "Termination Reason: Client.InstanceInitiatedShutdown: Instance initiated shutdown"
                )
                failed = {
                    "StatusCode": "Cancelled",
                    "StatusMessage": message,
                    "EndTime": scope.now.isoformat(),
                    "Progress": 100,
                }
                scope.put(ACTIVITY, activity["ActivityId"], activity | failed)
            _fall_ill(scope, member)
        case "InService" if not suspended(group, "HealthCheck") and _is_ill(scope, group, member, state):
            _fall_ill(scope, member)
        case "Terminating":
            if not member.get("ending") and not _draining(scope, member):
                _end(scope, member)
            if state == "terminated":
                _finish(scope, member["activity"], "Successful")
                scope.delete(MEMBER, member["InstanceId"])


def _is_ill(scope: Scope, group: Doc, member: Doc, state: str) -> bool:
    # An instance that does not run is unhealthy at once; the grace period is for checks that a booting one would fail.
    if state != "running":
        return True
    if "ELB" not in group["HealthCheckType"]:
        return False
    if not member.get("graced"):
        return False
    return any(
        target["state"] == TargetState.UNHEALTHY
        for target in scope.all(elbv2.TARGET)
        if target["id"] == member["InstanceId"] and target["group"] in group["TargetGroupARNs"]
    )


def graced(scope: Scope, payload: Wire) -> None:
    """An instance's grace period is over: what its balancers say of it counts from now on."""
    member = scope.get(MEMBER, payload["member"])
    if member is not None:
        _keep(scope, member | {"graced": True})


def _draining(scope: Scope, member: Doc) -> bool:
    return any(
        target["id"] == member["InstanceId"] and target["state"] == TargetState.DRAINING
        for target in scope.all(elbv2.TARGET)
    )


def _fall_ill(scope: Scope, member: Doc) -> None:
    member["HealthStatus"] = "Unhealthy"
    _keep(scope, member)


def _replace_unhealthy(scope: Scope, group: Doc) -> None:
    if suspended(group, "ReplaceUnhealthy") or suspended(group, "Terminate"):
        return
    for member in _members(scope, group):
        if member["HealthStatus"] != "Unhealthy" or member["LifecycleState"] == "Terminating":
            continue
        instance = scope.ec2.instance(member["InstanceId"])
        ended = instance is None or instance.state != "running"
        check = (
            "EC2 health check indicating it has been terminated or stopped"
            if ended
            else "ELB system health check failure"
        )
        cause = because(scope, f"an instance was taken out of service in response to an {check}")
        _begin_end(scope, group, member, cause, drain=not ended)


def _scale(scope: Scope, group: Doc) -> float | None:
    """Bring the group to its desired capacity. Seconds until another try where a launch failed."""
    members = [member for member in _members(scope, group) if member["LifecycleState"] in ("Pending", "InService")]
    counted, desired = len(members), group["DesiredCapacity"]
    if counted < desired and not suspended(group, "Launch"):
        for number in range(counted, desired):
            cause = (
                group["cause"]
                + "  "
                + because(
                    scope,
                    "an instance was started in response to a difference between desired and actual capacity, "
                    f"increasing the capacity from {number} to {number + 1}",
                )
            )
            if not _launch(scope, group, cause.strip()):
                group["failures"] += 1
                return float(min(RETRY_FIRST * 2 ** (group["failures"] - 1), RETRY_LAST))
        group["failures"] = 0
    if counted > desired and not suspended(group, "Terminate"):
        for number in range(counted, desired, -1):
            member = _victim(members)
            members.remove(member)
            cause = (
                group["cause"]
                + "  "
                + because(
                    scope,
                    "an instance was taken out of service in response to a difference between desired and actual "
                    f"capacity, shrinking the capacity from {number} to {number - 1}",
                )
            )
            cause += "  " + because(scope, f"instance {member['InstanceId']} was selected for termination")
            _begin_end(scope, group, member, cause.strip(), drain=True)
    return None


def _victim(members: Sequence[Doc]) -> Doc:
    """In the zone with most instances: one that does not serve yet, else the oldest."""
    zones = [member["AvailabilityZone"] for member in members]
    crowded = max(sorted(set(zones)), key=zones.count)
    here = [member for member in members if member["AvailabilityZone"] == crowded]
    return min(here, key=lambda member: (member["LifecycleState"] == "InService", member["launched"]))


def _launch(scope: Scope, group: Doc, cause: str) -> bool:
    given = group["LaunchTemplate"]
    subnet, zone = _roomiest(scope, group)
    details = f'{{"Subnet ID":"{subnet}","Availability Zone":"{zone}"}}'
    tags = {key: tag["Value"] for key, tag in group["tags"].items() if tag["PropagateAtLaunch"]}
    tags["aws:autoscaling:groupName"] = group["AutoScalingGroupName"]
    try:
        template = scope.ec2.template(template_id=given["LaunchTemplateId"], name=None, version=given["Version"])
        instance = scope.ec2.launch(template, subnet, tags)
    except ApiError as refused:
        message = f"{refused.message.rstrip('.')}. Launching EC2 instance failed."
        _record(
            scope,
            group,
            f"Launching a new EC2 instance.  Status Reason: {message}",
            cause,
            StatusCode="Failed",
            StatusMessage=message,
            EndTime=scope.now.isoformat(),
            Progress=100,
            Details=details,
        )
        return False
    description = f"Launching a new EC2 instance: {instance.id}"
    activity = _record(scope, group, description, cause, StatusCode="PreInService", Progress=30, Details=details)
    member = {
        "InstanceId": instance.id,
        "InstanceType": instance.type,
        "AutoScalingGroupName": group["AutoScalingGroupName"],
        "AvailabilityZone": instance.zone,
        "LifecycleState": "Pending",
        "HealthStatus": "Healthy",
        "LaunchTemplate": {**given, "Version": template.version},
        "ImageId": instance.image,
        "ProtectedFromScaleIn": False,
        "launched": scope.now.isoformat(),
        "subnet": subnet,
        "activity": activity["ActivityId"],
    }
    _keep(scope, member)
    return True


def _roomiest(scope: Scope, group: Doc) -> tuple[str, str]:
    """The subnet of the zone with fewest instances, and its zone."""
    used = [member["subnet"] for member in _members(scope, group) if member["LifecycleState"] != "Terminating"]
    subnet = min(group["VPCZoneIdentifier"].split(","), key=used.count)
    known = scope.ec2.subnet(subnet)
    return subnet, "" if known is None else str(known["AvailabilityZone"])


def _begin_end(scope: Scope, group: Doc, member: Doc, cause: str, *, drain: bool) -> Doc:
    """Take an instance out: from its target groups first, and once it has drained from EC2."""
    delay = _take_from_balancers(scope, group["TargetGroupARNs"], member["InstanceId"])
    waits = drain and delay > 0
    activity = _record(
        scope,
        group,
        f"Terminating EC2 instance: {member['InstanceId']}",
        cause,
        StatusCode="WaitingForELBConnectionDraining" if waits else "InProgress",
        Progress=20 if waits else 50,
        Details=f'{{"Subnet ID":"{member["subnet"]}","Availability Zone":"{member["AvailabilityZone"]}"}}',
    )
    member |= {"LifecycleState": "Terminating", "activity": activity["ActivityId"]}
    _keep(scope, member)
    if not waits:
        _end(scope, member)
    return activity


def _end(scope: Scope, member: Doc) -> None:
    member["ending"] = True
    _keep(scope, member)
    activity = scope.get(ACTIVITY, member["activity"])
    if activity is not None:
        scope.put(ACTIVITY, activity["ActivityId"], activity | {"StatusCode": "InProgress", "Progress": 50})
    scope.ec2.terminate(member["InstanceId"])


def _add_to_balancers(scope: Scope, group: Doc, member: Doc) -> None:
    if suspended(group, "AddToLoadBalancer"):
        return
    for arn in group["TargetGroupARNs"]:
        target_group = scope.get(elbv2.GROUP, arn)
        if target_group is not None:
            elbv2.register(scope, arn, member["InstanceId"], target_group["Port"])


def _take_from_balancers(scope: Scope, arns: Sequence[str], instance: str) -> float:
    """Deregister an instance. Seconds until the last of its targets has drained."""
    targets = [target for target in scope.all(elbv2.TARGET) if target["id"] == instance and target["group"] in arns]
    return max([elbv2.deregister(scope, target) for target in targets], default=0.0)


# --------------------------------------------------------------------------------------------------------- look-ups


def group_of(scope: Scope, name: str) -> Doc:
    group = scope.get(GROUP, name)
    if group is None:
        raise no_group(name)
    return group


def no_group(name: str) -> ApiError:
    return invalid(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")


def changeable(scope: Scope, name: str) -> Doc:
    group = group_of(scope, name)
    if "Status" in group:
        raise ApiError("ScalingActivityInProgress", f"AutoScalingGroup '{name}' - pending delete already in progress")
    return group


def _members(scope: Scope, group: Doc) -> list[Doc]:
    return [member for member in scope.all(MEMBER) if member["AutoScalingGroupName"] == group["AutoScalingGroupName"]]


def _keep(scope: Scope, member: Doc) -> None:
    scope.put(MEMBER, member["InstanceId"], member)


def page(params: Wire, name: str, items: list[Doc], default: int = RECORDS_DEFAULT) -> Doc:
    size = params.get("MaxRecords") or default
    if not 1 <= size <= RECORDS_LIMIT:
        raise invalid(f"The number of records, {size}, must be in the range 1 to {RECORDS_LIMIT}")
    token = params.get("NextToken") or "0"
    if not token.isdigit() or int(token) > len(items):
        raise ApiError("InvalidNextToken", f"The token '{token}' is invalid.")
    start = int(token)
    rest = {"NextToken": str(start + size)} if start + size < len(items) else {}
    return {name: items[start : start + size], **rest}


OPERATIONS: Mapping[str, Operation] = {
    "AttachLoadBalancerTargetGroups": attach_load_balancer_target_groups,
    "CreateAutoScalingGroup": create_auto_scaling_group,
    "CreateOrUpdateTags": create_or_update_tags,
    "DeleteAutoScalingGroup": delete_auto_scaling_group,
    "DeleteTags": delete_tags,
    "DescribeAutoScalingGroups": describe_auto_scaling_groups,
    "DescribeAutoScalingInstances": describe_auto_scaling_instances,
    "DescribeLoadBalancerTargetGroups": describe_load_balancer_target_groups,
    "DescribeScalingActivities": describe_scaling_activities,
    "DescribeTags": describe_tags,
    "DetachLoadBalancerTargetGroups": detach_load_balancer_target_groups,
    "ResumeProcesses": resume_processes,
    "SetDesiredCapacity": set_desired_capacity,
    "SuspendProcesses": suspend_processes,
    "TerminateInstanceInAutoScalingGroup": terminate_instance_in_auto_scaling_group,
    "UpdateAutoScalingGroup": update_auto_scaling_group,
}
"""By the API's name. Every other operation of the service is not simulated."""

EVENTS: Mapping[str, EventHandler] = {"autoscaling.graced": graced, "autoscaling.look": look}

_ONLY_AT_FIRST = {"InstanceId", "LoadBalancerNames", "LifecycleHookSpecificationList", "TrafficSources", "Operator"}
_CHANGEABLE = (
    "AutoScalingGroupName LaunchTemplate MinSize MaxSize DesiredCapacity DefaultCooldown DefaultInstanceWarmup "
    "AvailabilityZones "
    "VPCZoneIdentifier HealthCheckType HealthCheckGracePeriod TerminationPolicies ServiceLinkedRoleARN "
) + " ".join(field for field in _NOT_SIMULATED if field not in _ONLY_AT_FIRST)

PARAMETERS: Mapping[str, str] = {
    "AttachLoadBalancerTargetGroups": "AutoScalingGroupName TargetGroupARNs",
    "CreateAutoScalingGroup": f"{_CHANGEABLE} TargetGroupARNs Tags {' '.join(sorted(_ONLY_AT_FIRST))}",
    "CreateOrUpdateTags": "Tags",
    "DeleteAutoScalingGroup": "AutoScalingGroupName ForceDelete",
    "DeleteTags": "Tags",
    "DescribeAutoScalingGroups": "AutoScalingGroupNames IncludeInstances Filters NextToken MaxRecords",
    "DescribeAutoScalingInstances": "InstanceIds NextToken MaxRecords",
    "DescribeLoadBalancerTargetGroups": "AutoScalingGroupName NextToken MaxRecords",
    "DescribeScalingActivities": "ActivityIds AutoScalingGroupName IncludeDeletedGroups Filters NextToken MaxRecords",
    "DescribeTags": "Filters NextToken MaxRecords",
    "DetachLoadBalancerTargetGroups": "AutoScalingGroupName TargetGroupARNs",
    "ResumeProcesses": "AutoScalingGroupName ScalingProcesses",
    "SetDesiredCapacity": "AutoScalingGroupName DesiredCapacity HonorCooldown",
    "SuspendProcesses": "AutoScalingGroupName ScalingProcesses",
    "TerminateInstanceInAutoScalingGroup": "InstanceId InstanceIds ShouldDecrementDesiredCapacity",
    "UpdateAutoScalingGroup": _CHANGEABLE,
}
"""What each operation looks at, whole; any other parameter is not simulated."""
