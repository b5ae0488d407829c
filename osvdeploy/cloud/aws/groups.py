"""Groups of machines on AWS: a launch template and an Auto Scaling group of the same name for each rollout.

Sources: Auto Scaling API reference (CreateAutoScalingGroup, DescribeScalingActivities, LifecycleState), EC2 API
reference (CreateLaunchTemplate, DescribeInstances). Neither creation repeats itself: the name is what makes a second
call find the first one's work.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from osvdeploy.cloud.aws.scaling import GroupScaling, standing, unpaused
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.aws.snapshots import tag_dict, tag_filters, tag_list
from osvdeploy.cloud.interfaces import (
    AttachRequest,
    GroupCount,
    GroupRequest,
    GroupShape,
    GroupState,
    Machine,
    MachineState,
    ReleaseId,
    Scaling,
    Tags,
)
from osvdeploy.cloud.tags import BACKEND, NAME, RELEASE, SCHEMA, SERVICE, is_kept, is_ours
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, NotOurs, Refused, Unavailable
from osvdeploy.events import Warned

if TYPE_CHECKING:
    from mypy_boto3_autoscaling.type_defs import (
        ActivityTypeDef,
        AutoScalingGroupTypeDef,
        FilterTypeDef,
        LaunchTemplateSpecificationTypeDef,
        TagTypeDef,
    )
    from mypy_boto3_ec2.type_defs import (
        InstanceTypeDef,
        LaunchTemplateTypeDef,
        RequestLaunchTemplateDataTypeDef,
        ResponseLaunchTemplateDataTypeDef,
    )

VERSION = "1"
"""A template's only version: $Latest and $Default would let a group change its release without being told."""

PAGE = 100
"""Groups that one answer tells of, its most; 50 if it is not asked for."""

ACTIVITIES = 20
"""Scaling activities looked at for what went wrong."""

_CLOCK_SLACK = timedelta(seconds=2)
"""Launch times have whole seconds, creation times of groups do not."""


class AutoScalingGroups:
    """:class:`~osvdeploy.cloud.interfaces.InstanceGroups` of EC2 instances."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._created: dict[str, datetime] = {}
        self._scaling = GroupScaling(aws)

    def ensure(self, ctx: Context, request: GroupRequest) -> None:
        group = self._find(ctx, request.name)
        if group is None:
            group = self._create(ctx, request, self._template(ctx, request))
        if group is not None:
            self._adopt(ctx, request, group)

    def observe(self, ctx: Context, name: str) -> GroupState | None:
        group = self._find(ctx, name)
        if group is None:
            return None
        serving = sum(instance["LifecycleState"] == "InService" for instance in group.get("Instances", []))
        missing = serving < group["DesiredCapacity"] and "Status" not in group
        return _state(group, self._troubles(ctx, group) if missing else ())

    def machines(self, ctx: Context, name: str) -> tuple[Machine, ...]:
        since = self._created.get(name)
        if since is None:
            group = self._find(ctx, name)
            if group is None:
                return ()
            since = group["CreatedTime"]
        with self._aws.calling(ctx, f"instances of {name}"):
            pages = self._aws.ec2.get_paginator("describe_instances").paginate(
                Filters=[{"Name": "tag:aws:autoscaling:groupName", "Values": [name]}]
            )
            found = [
                instance
                for page in pages
                for reservation in page["Reservations"]
                for instance in reservation["Instances"]
            ]
        # Instances of an earlier group of this name may still be shown, for about an hour after their end.
        ours = [instance for instance in found if instance["LaunchTime"] >= since - _CLOCK_SLACK]
        ours.sort(key=lambda instance: (instance["LaunchTime"], instance["InstanceId"]), reverse=True)
        return tuple(_machine(instance) for instance in ours)

    def delete(self, ctx: Context, name: str) -> None:
        group = self._find(ctx, name)
        if group is None or "Status" in group:
            return
        if not is_ours(_tags(group)):
            raise NotOurs(f"Auto Scaling group {name}: something else made it", hint="it is left as it is")
        if is_kept(_tags(group)):
            self._let_go(ctx, group)
            return
        try:
            with self._aws.calling(ctx, f"Auto Scaling group {name}"):
                # Without force AWS refuses while it has instances, and scaling it down first takes two more calls.
                self._aws.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)
        except NotFound:
            pass

    def attach(self, ctx: Context, request: AttachRequest) -> None:
        name, group = request.name, standing(self._find(ctx, request.name), request.name)
        tags = _tags(group)
        if is_ours(tags) and any(tags.get(key) != request.tags.get(key) for key in (SERVICE, RELEASE)):
            raise NotOurs(
                f"Auto Scaling group {name}: is {tags.get(RELEASE)} of {tags.get(SERVICE)} already",
                hint="a group is of one service: take its tags away, if that service is gone",
            )
        # First: what has our tags is found again, whatever becomes of the rest, and let go by them.
        lacking = {key: value for key, value in request.tags.items() if tags.get(key) != value}
        if lacking:
            with self._aws.calling(ctx, f"Auto Scaling group {name}"):
                self._aws.autoscaling.create_or_update_tags(
                    Tags=[
                        {**_group_tag(name, key, value), "PropagateAtLaunch": False}
                        for key, value in sorted(lacking.items())
                    ]
                )
        if request.backend not in group.get("TargetGroupARNs", []):
            with self._aws.calling(ctx, f"Auto Scaling group {name}"):
                # Beside those that it has: who sends traffic to them goes on doing so.
                self._aws.autoscaling.attach_load_balancer_target_groups(
                    AutoScalingGroupName=name, TargetGroupARNs=[request.backend]
                )
            self._warn_of_requests(ctx, group)
        if group["DesiredCapacity"] < request.capacity:
            with self._aws.calling(ctx, f"Auto Scaling group {name}"):
                self._aws.autoscaling.update_auto_scaling_group(
                    AutoScalingGroupName=name,
                    DesiredCapacity=request.capacity,
                    MaxSize=max(group["MaxSize"], request.capacity),
                )

    def _warn_of_requests(self, ctx: Context, group: AutoScalingGroupTypeDef) -> None:
        """Tell of policies that will count nothing: requests come to our target group from now on."""
        name = group["AutoScalingGroupName"]
        if "ALBRequestCountPerTarget" in self._scaling.scaling(ctx, group).rules:
            ctx.report(
                Warned(
                    f"{name}: a scaling policy counts requests of a target group that gets none any more",
                    hint="until a release of yours serves, scale it by something else, or by requests of the new "
                    "target group",
                )
            )

    def _let_go(self, ctx: Context, group: AutoScalingGroupTypeDef) -> None:
        """Leave somebody's group as it was. Its tags go last: as long as it has them, it is looked at again."""
        name, tags = group["AutoScalingGroupName"], _tags(group)
        backend = tags.get(BACKEND, "")
        if backend in group.get("TargetGroupARNs", []):
            with self._aws.calling(ctx, f"Auto Scaling group {name}"):
                self._aws.autoscaling.detach_load_balancer_target_groups(
                    AutoScalingGroupName=name, TargetGroupARNs=[backend]
                )
        ours = [_group_tag(name, key, value) for key, value in sorted(tags.items()) if key.startswith(SCHEMA)]
        with self._aws.calling(ctx, f"Auto Scaling group {name}"):
            self._aws.autoscaling.delete_tags(Tags=ours)

    def owned(self, ctx: Context, tags: Tags) -> list[GroupState]:
        return [_state(self._seen(group)) for group in self._listed(ctx, tags)]

    def counted(self, ctx: Context, tags: Tags) -> list[GroupCount]:
        states = (_state(group) for group in self._listed(ctx, tags))
        return [
            GroupCount(
                each.name,
                each.capacity,
                sum(machine.state is MachineState.RUNNING and not machine.note for machine in each.machines),
                each.deleting,
            )
            for each in states
        ]

    def _listed(self, ctx: Context, tags: Tags) -> list[AutoScalingGroupTypeDef]:
        filters: list[FilterTypeDef] = [{"Name": "tag-key", "Values": [SCHEMA]}]
        filters += [{"Name": f"tag:{key}", "Values": [value]} for key, value in sorted(tags.items())]
        with self._aws.calling(ctx, "Auto Scaling groups"):
            pages = self._aws.autoscaling.get_paginator("describe_auto_scaling_groups").paginate(
                Filters=filters, PaginationConfig={"PageSize": PAGE}
            )
            return [group for page in pages for group in page["AutoScalingGroups"]]

    def shape(self, ctx: Context, name: str) -> GroupShape | None:
        group = self._find(ctx, name)
        template = _template_of(group) if group is not None else None
        if group is None or template is None:
            return None
        data = self._template_data(ctx, template["LaunchTemplateId"], template.get("Version", "$Default"))
        if data is None or "ImageId" not in data:
            return None
        cards = data.get("NetworkInterfaces", [])
        firewalls = data.get("SecurityGroupIds") or (cards[0].get("Groups", []) if cards else [])
        networks = tuple(part for part in group.get("VPCZoneIdentifier", "").split(",") if part)
        return GroupShape(data["ImageId"], data.get("InstanceType", ""), networks, tuple(firewalls))

    def scaling(self, ctx: Context, name: str) -> Scaling | None:
        try:
            return self._scaling.scaling(ctx, standing(self._find(ctx, name), name))
        except NotFound:
            return None

    def pause(self, ctx: Context, name: str) -> None:
        try:
            self._scaling.pause(ctx, standing(self._find(ctx, name), name))
        except NotFound:
            pass

    def resume(self, ctx: Context, name: str, scaling: Scaling, *, grown: bool = False) -> None:
        try:
            self._scaling.resume(ctx, standing(self._find(ctx, name), name), scaling)
        except NotFound:
            pass

    def unpaused(self, there: Scaling, before: Scaling) -> Scaling:
        return unpaused(there, before)

    def apply(self, ctx: Context, name: str, scaling: Scaling) -> None:
        self._scaling.apply(ctx, standing(self._find(ctx, name), name), scaling)

    def follows(self, ctx: Context, name: str, scaling: Scaling) -> bool:
        try:
            return self._scaling.follows(ctx, standing(self._find(ctx, name), name), scaling)
        except NotFound:
            return False

    def templates(self, ctx: Context, tags: Tags) -> list[str]:
        with self._aws.calling(ctx, "launch templates"):
            pages = self._aws.ec2.get_paginator("describe_launch_templates").paginate(Filters=tag_filters(tags))
            return [template["LaunchTemplateName"] for page in pages for template in page["LaunchTemplates"]]

    def delete_template(self, ctx: Context, name: str) -> None:
        template = self._template_of(ctx, name)
        if template is None:
            return
        if not is_ours(tag_dict(template.get("Tags", []))):
            raise NotOurs(f"launch template {name}: something else made it", hint="it is left as it is")
        self._delete_template(ctx, template)

    def template_fits(self, ctx: Context, request: GroupRequest) -> bool | None:
        """Whether the launch template that is there is the one that is wanted; None where there is none."""
        there = self._template_of(ctx, request.name)
        if there is None:
            return None
        data = self._template_data(ctx, there["LaunchTemplateId"], VERSION)
        return data is not None and _same(data, _template_data(request))

    # ------------------------------------------------------------------------------------------------------ groups

    def _find(self, ctx: Context, name: str) -> AutoScalingGroupTypeDef | None:
        with self._aws.calling(ctx, f"Auto Scaling group {name}"):
            found = self._aws.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])[
                "AutoScalingGroups"
            ]
        if not found:
            self._created.pop(name, None)
            return None
        return self._seen(found[0])

    def _seen(self, group: AutoScalingGroupTypeDef) -> AutoScalingGroupTypeDef:
        self._created[group["AutoScalingGroupName"]] = group["CreatedTime"]
        return group

    def _create(
        self, ctx: Context, request: GroupRequest, template: LaunchTemplateTypeDef
    ) -> AutoScalingGroupTypeDef | None:
        """Make the group. Returns the one that is there when somebody else was faster, or our own answer was lost."""
        self._created.pop(request.name, None)
        name = request.name
        try:
            with self._aws.calling(ctx, f"Auto Scaling group {name}"):
                self._aws.autoscaling.create_auto_scaling_group(
                    AutoScalingGroupName=name,
                    LaunchTemplate={"LaunchTemplateId": template["LaunchTemplateId"], "Version": VERSION},
                    # One size, until what scaled the group before is handed over to it.
                    MinSize=request.capacity,
                    MaxSize=request.capacity,
                    DesiredCapacity=request.capacity,
                    VPCZoneIdentifier=",".join(request.networks),
                    TargetGroupARNs=[request.backend],
                    # Not ELB: a group that ends what its balancer finds unhealthy would end a bad release's machines,
                    # and with them what they have to tell, faster than anybody can look.
                    HealthCheckType="EC2",
                    HealthCheckGracePeriod=0,
                    Tags=[_group_tag(name, key, value) for key, value in sorted(_named(request).items())],
                )
            return None
        except Refused as error:
            if error.code == "AlreadyExists":
                group = self._find(ctx, name)
                if group is None:
                    raise Unavailable(
                        f"Auto Scaling group {name}: exists, but is not visible yet", hint="run the same command again"
                    ) from error
                return group
            if "Target Groups may not be valid" in error.message:
                raise NotFound(error.message, operation=error.operation, code=error.code) from error
            raise
        except NotFound as error:
            if "launch template" in error.message.lower() and template["LaunchTemplateId"] in error.message:
                raise
            # What the user named (subnets, security groups, the image) will not turn up by waiting.
            raise Refused(
                error.message,
                operation=error.operation,
                code=error.code,
                hint="check subnets, security groups and instance type in the spec",
            ) from error

    def _adopt(self, ctx: Context, request: GroupRequest, group: AutoScalingGroupTypeDef) -> None:
        """Bring a group that exists to its capacity, if it is the one that is meant."""
        name, tags = request.name, _tags(group)
        if not is_ours(tags):
            raise NotOurs(
                f"Auto Scaling group {name}: exists, and something else made it", hint="rename or remove that group"
            )
        if "Status" in group:
            raise Unavailable(
                f"Auto Scaling group {name}: an earlier one of this name is still being deleted",
                code="ScalingActivityInProgress",
                hint="run the same command again",
            )
        image = self._image(ctx, group)
        if (tags.get(RELEASE), image) != (request.release, request.image):
            raise Refused(
                f"Auto Scaling group {name}: holds {tags.get(RELEASE)} from {image}, "
                f"not {request.release} from {request.image}",
                hint="somebody changed it; delete that group",
            )
        if {group["MinSize"], group["MaxSize"], group["DesiredCapacity"]} != {request.capacity}:
            with self._aws.calling(ctx, f"Auto Scaling group {name}"):
                self._aws.autoscaling.update_auto_scaling_group(
                    AutoScalingGroupName=name,
                    MinSize=request.capacity,
                    MaxSize=request.capacity,
                    DesiredCapacity=request.capacity,
                )

    def _image(self, ctx: Context, group: AutoScalingGroupTypeDef) -> str | None:
        """The image that a group starts its instances from."""
        template = group.get("LaunchTemplate", {})
        template_id, version = template.get("LaunchTemplateId"), template.get("Version", VERSION)
        if template_id is None:
            return None
        data = self._template_data(ctx, template_id, version)
        return None if data is None else data.get("ImageId")

    def _troubles(self, ctx: Context, group: AutoScalingGroupTypeDef) -> tuple[str, ...]:
        """Why machines could not be started, newest first, each once."""
        name = group["AutoScalingGroupName"]
        try:
            with self._aws.calling(ctx, f"Auto Scaling group {name}"):
                activities: list[ActivityTypeDef] = self._aws.autoscaling.describe_scaling_activities(
                    AutoScalingGroupName=name, MaxRecords=ACTIVITIES
                )["Activities"]
        except NotFound:
            return ()  # gone since it was looked at
        said = [
            " ".join((activity.get("StatusMessage") or activity.get("Description") or activity["Cause"]).split())
            for activity in activities
            if activity["StatusCode"] in ("Failed", "Cancelled")
            and activity["StartTime"] >= group["CreatedTime"] - _CLOCK_SLACK
        ]
        return tuple(dict.fromkeys(said))

    # --------------------------------------------------------------------------------------------------- templates

    def _template(self, ctx: Context, request: GroupRequest) -> LaunchTemplateTypeDef:
        """The request's launch template, made if need be.

        One that stayed from an earlier deploy of the release, and says otherwise (another instance type; the image
        was registered anew), is replaced: no group uses it.
        """
        wanted = _template_data(request)
        there = self._template_of(ctx, request.name)
        if there is not None:
            tags = tag_dict(there.get("Tags", []))
            if not is_ours(tags):
                raise NotOurs(
                    f"launch template {request.name}: exists, and something else made it",
                    hint="rename or remove that template",
                )
            if tags.get(RELEASE) != request.release:
                raise Refused(
                    f"launch template {request.name}: is {tags.get(RELEASE)}'s, not {request.release}'s",
                    hint="somebody changed it; delete that template",
                )
            data = self._template_data(ctx, there["LaunchTemplateId"], VERSION)
            if data is not None and _same(data, wanted):
                return there
            self._delete_template(ctx, there)
        try:
            with self._aws.calling(ctx, f"launch template {request.name}"):
                # A token of this call alone. One that follows from the request would, for as long as AWS remembers it,
                # answer with the template that was deleted meanwhile.
                return self._aws.ec2.create_launch_template(
                    ClientToken=ctx.nonce(),
                    LaunchTemplateName=request.name,
                    LaunchTemplateData=wanted,
                    TagSpecifications=[{"ResourceType": "launch-template", "Tags": tag_list(_named(request))}],
                )["LaunchTemplate"]
        except Refused as error:
            if error.code != "InvalidLaunchTemplateName.AlreadyExistsException":
                raise
            raise Unavailable(
                f"launch template {request.name}: was made by another process just now",
                hint="run the same command again",
            ) from error

    def _template_of(self, ctx: Context, name: str) -> LaunchTemplateTypeDef | None:
        try:
            with self._aws.calling(ctx, f"launch template {name}"):
                found = self._aws.ec2.describe_launch_templates(LaunchTemplateNames=[name])["LaunchTemplates"]
        except NotFound:
            return None
        return found[0] if found else None

    def _template_data(self, ctx: Context, template_id: str, version: str) -> ResponseLaunchTemplateDataTypeDef | None:
        try:
            with self._aws.calling(ctx, f"launch template {template_id}"):
                found = self._aws.ec2.describe_launch_template_versions(
                    LaunchTemplateId=template_id, Versions=[version]
                )
        except NotFound:
            return None
        versions = found["LaunchTemplateVersions"]
        return versions[0]["LaunchTemplateData"] if versions else None

    def _delete_template(self, ctx: Context, template: LaunchTemplateTypeDef) -> None:
        try:
            with self._aws.calling(ctx, f"launch template {template['LaunchTemplateName']}"):
                self._aws.ec2.delete_launch_template(LaunchTemplateId=template["LaunchTemplateId"])
        except NotFound:
            pass


def _template_of(group: AutoScalingGroupTypeDef) -> LaunchTemplateSpecificationTypeDef | None:
    """The launch template that a group's instances are started from, one of several kinds of them included; None for a
    launch configuration."""
    mixed = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {}).get("LaunchTemplateSpecification")
    found = group.get("LaunchTemplate") or mixed
    return found if found is not None and "LaunchTemplateId" in found else None


def _named(request: GroupRequest) -> dict[str, str]:
    return {**request.tags, NAME: request.release}


def _group_tag(group: str, key: str, value: str) -> TagTypeDef:
    return {
        "ResourceId": group,
        "ResourceType": "auto-scaling-group",
        "Key": key,
        "Value": value,
        "PropagateAtLaunch": True,
    }


def _template_data(request: GroupRequest) -> RequestLaunchTemplateDataTypeDef:
    data: RequestLaunchTemplateDataTypeDef = {
        "ImageId": request.image,
        "InstanceType": request.machine_type,  # type: ignore[typeddict-item]  # the stubs list the types of their day
        # The root volume is as the image says: gp3, deleted with its instance.
        # OSv powers off when its program ends or aborts: then nothing is left that could be started again.
        "InstanceInitiatedShutdownBehavior": "terminate",
        # A program that asks for credentials has to speak IMDSv2.
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": tag_list(_named(request))},
            {"ResourceType": "volume", "Tags": tag_list(_named(request))},
        ],
    }
    if request.firewalls:
        data["SecurityGroupIds"] = list(request.firewalls)
    return data


def _same(there: ResponseLaunchTemplateDataTypeDef, wanted: RequestLaunchTemplateDataTypeDef) -> bool:
    """Whether machines started from both are the same, as far as a release's settings can make them differ."""
    return (there.get("ImageId"), there.get("InstanceType"), sorted(there.get("SecurityGroupIds", []))) == (
        wanted.get("ImageId"),
        wanted.get("InstanceType"),
        sorted(wanted.get("SecurityGroupIds", [])),
    )


def _tags(group: AutoScalingGroupTypeDef) -> dict[str, str]:
    return {tag.get("Key", ""): tag.get("Value", "") for tag in group.get("Tags", [])}


def _state(group: AutoScalingGroupTypeDef, troubles: tuple[str, ...] = ()) -> GroupState:
    tags = _tags(group)
    release = tags.get(RELEASE)
    return GroupState(
        name=group["AutoScalingGroupName"],
        release=ReleaseId(release) if release is not None else None,
        # One that was attached and does not stand behind its backend has no use for its machines.
        capacity=group["DesiredCapacity"] if _in_place(group, tags) else 0,
        machines=tuple(
            Machine(
                instance["InstanceId"],
                _lifecycle(instance["LifecycleState"]),
                "" if instance["HealthStatus"] == "Healthy" else f"{instance['LifecycleState']}, unhealthy",
            )
            for instance in group.get("Instances", [])
        ),
        troubles=troubles,
        deleting="Status" in group,
        tags=tags,
        created=group["CreatedTime"],
    )


def _in_place(group: AutoScalingGroupTypeDef, tags: Tags) -> bool:
    return BACKEND not in tags or tags[BACKEND] in group.get("TargetGroupARNs", [])


def _lifecycle(state: str) -> MachineState:
    if state in ("InService", "Standby"):
        return MachineState.RUNNING
    return MachineState.PENDING if state.startswith("Pending") else MachineState.STOPPED


_STATES = {
    "pending": MachineState.PENDING,
    "running": MachineState.RUNNING,
    "terminated": MachineState.GONE,
}


def _machine(instance: InstanceTypeDef) -> Machine:
    state = _STATES.get(instance["State"]["Name"], MachineState.STOPPED)
    reason = instance.get("StateReason", {}).get("Message") or instance.get("StateTransitionReason", "")
    return Machine(instance["InstanceId"], state, "" if state is MachineState.RUNNING else reason)
