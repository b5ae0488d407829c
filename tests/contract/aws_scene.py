"""AWS as a place under test: the adapters on boto3, the sandbox behind it, in process and in virtual time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from osvdeploy.cloud.aws.console import Ec2Console
from osvdeploy.cloud.aws.groups import AutoScalingGroups
from osvdeploy.cloud.aws.images import AmiRegistry
from osvdeploy.cloud.aws.machines import Ec2MachineTypes
from osvdeploy.cloud.aws.metrics import CloudWatch
from osvdeploy.cloud.aws.router import AlbRouter
from osvdeploy.cloud.aws.session import Aws, mutating
from osvdeploy.cloud.aws.snapshots import EbsSnapshots, tag_list
from osvdeploy.cloud.interfaces import (
    Block,
    Cloud,
    CloudWatchMetric,
    ImageRequest,
    ReleaseId,
    Statistic,
    Tags,
    UploadRequest,
)
from osvdeploy.cloud.tags import image_tags
from osvdeploy.context import Context, VirtualClock
from osvdeploy.digests import sha256
from osvdeploy.events import CloudCall, Recorder
from osvdeploy.sandbox.core import Moment, Sandbox
from osvdeploy.sandbox.inprocess import REGION
from osvdeploy.sandbox.runners.inline import InlineRunner
from osvdeploy.sandbox.wire import Call
from tests.aws_clients import point_at
from tests.contract.scenes import APP, THEIRS, Guest, Scene
from tests.sandbox.volumes import declared, volume
from tests.world import SandboxProber

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client

PROGRAMS: dict[Guest, bytes] = {
    Guest.SERVES: declared(after=1, headers={"x-release": "$OSVDEPLOY_RELEASE"}, answers={"*": 200}),
    Guest.HANGS: declared(boot="hang"),
    Guest.SICK: declared(answers={"*": 500}),
    Guest.ABORTS: declared(boot="abort"),
    Guest.ENDS: declared(boot="exit 3", after=0.5),
    Guest.FAILS: declared(answers={"/healthz": 200, "*": {"status": 500, "takes": 0.2}}),
}


def scale_group(asg: AutoScalingClient, name: str, minimum: int, maximum: int, listener: str) -> None:
    """What a user may attach to a group: bounds, policies, a scheduled action, a hook, metrics. Requests are counted
    at the balancer of ``listener``."""
    group = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]
    asg.update_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=minimum,
        MaxSize=maximum,
        DesiredCapacity=max(minimum, group["DesiredCapacity"]),
        DefaultCooldown=120,
        DefaultInstanceWarmup=30,
    )
    # Of a listener's ARN, what stands between "listener/" and its own id.
    balancer = listener.rpartition(":listener/")[2].rpartition("/")[0]
    label = f"{balancer}/{group['TargetGroupARNs'][0].rpartition(':')[2]}"
    for policy, metric in (
        ("cpu", {"PredefinedMetricType": "ASGAverageCPUUtilization"}),
        ("requests", {"PredefinedMetricType": "ALBRequestCountPerTarget", "ResourceLabel": label}),
    ):
        tracking: Any = {"PredefinedMetricSpecification": metric, "TargetValue": 60.5, "DisableScaleIn": False}
        asg.put_scaling_policy(
            AutoScalingGroupName=name,
            PolicyName=policy,
            PolicyType="TargetTrackingScaling",
            TargetTrackingConfiguration=tracking,
        )
    asg.put_scaling_policy(
        AutoScalingGroupName=name,
        PolicyName="queue",
        PolicyType="StepScaling",
        AdjustmentType="ChangeInCapacity",
        StepAdjustments=[{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
    )
    asg.put_scheduled_update_group_action(
        AutoScalingGroupName=name,
        ScheduledActionName="night",
        Recurrence="0 3 * * *",
        TimeZone="Europe/Berlin",
        MinSize=minimum,
    )
    asg.put_lifecycle_hook(
        AutoScalingGroupName=name,
        LifecycleHookName="logs",
        LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
        HeartbeatTimeout=60,
        DefaultResult="CONTINUE",
    )
    asg.enable_metrics_collection(AutoScalingGroupName=name, Metrics=["GroupInServiceInstances"], Granularity="1Minute")


def unload_group(asg: AutoScalingClient, name: str, at: datetime) -> None:
    """Let a group's load go at a time to come, as a scheduled action does that makes it as small as it may."""
    group = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]
    asg.put_scheduled_update_group_action(
        AutoScalingGroupName=name, ScheduledActionName="unload", StartTime=at, DesiredCapacity=group["MinSize"]
    )


def asg_of(scene: Scene) -> AutoScalingClient:
    """Another client of the account that a scene of AWS has."""
    groups = scene.cloud.groups
    assert isinstance(groups, AutoScalingGroups)
    return groups._aws.autoscaling


def elb_of(scene: Scene) -> ElasticLoadBalancingv2Client:
    """Likewise of its balancers."""
    router = scene.cloud.router
    assert isinstance(router, AlbRouter)
    return router._aws.elbv2


def plant_rule(aws: Aws, listener: str, priority: int, tags: Tags = MappingProxyType({})) -> None:
    """Somebody else's rule. ``tags`` are not ours."""
    labels: dict[str, Any] = {"Tags": tag_list(tags)} if tags else {}
    aws.elbv2.create_rule(
        ListenerArn=listener,
        Priority=priority,
        Conditions=[{"Field": "path-pattern", "Values": ["/theirs/*"]}],
        Actions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200"}}],
        **labels,
    )


def plant_group(aws: Aws, name: str, image: str, subnet: str, tags: Tags = MappingProxyType({})) -> str:
    """Somebody else's group, of no machines, and its template; its image. ``tags`` are not ours."""
    labels: dict[str, Any] = {}
    if tags:
        labels["TagSpecifications"] = [{"ResourceType": "launch-template", "Tags": tag_list(tags)}]
    aws.ec2.create_launch_template(
        LaunchTemplateName=name,
        LaunchTemplateData={"ImageId": image, "InstanceType": "t3.nano"},
        **labels,
    )
    aws.autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchTemplate={"LaunchTemplateName": name, "Version": "1"},
        MinSize=0,
        MaxSize=0,
        VPCZoneIdentifier=subnet,
        Tags=[
            {
                "ResourceId": name,
                "ResourceType": "auto-scaling-group",
                "Key": key,
                "Value": value,
                "PropagateAtLaunch": True,
            }
            for key, value in tags.items()
        ],
    )
    return image


def plant_service(aws: Aws, listener: str, name: str, image: str, subnets: Sequence[str], priority: int | None) -> None:
    """Somebody else's group of two machines, and what sends it the listener's requests: a rule, or the default."""
    balancer = aws.elbv2.describe_listeners(ListenerArns=[listener])["Listeners"][0]["LoadBalancerArn"]
    vpc = aws.elbv2.describe_load_balancers(LoadBalancerArns=[balancer])["LoadBalancers"][0]["VpcId"]
    target: Any = aws.elbv2.create_target_group(
        Name=name,
        Protocol="HTTP",
        Port=8080,
        VpcId=vpc,
        HealthCheckPath="/healthz",
        HealthCheckIntervalSeconds=5,
        HealthCheckTimeoutSeconds=2,
    )["TargetGroups"][0]["TargetGroupArn"]
    actions: Any = [{"Type": "forward", "TargetGroupArn": target}]
    if priority is None:
        aws.elbv2.modify_listener(ListenerArn=listener, DefaultActions=actions)
    else:
        every: Any = [{"Field": "path-pattern", "Values": ["/*"]}]
        aws.elbv2.create_rule(ListenerArn=listener, Priority=priority, Conditions=every, Actions=actions)
    aws.ec2.create_launch_template(
        LaunchTemplateName=name, LaunchTemplateData={"ImageId": image, "InstanceType": "t3.nano"}
    )
    aws.autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchTemplate={"LaunchTemplateName": name, "Version": "$Latest"},
        MinSize=2,
        MaxSize=2,
        VPCZoneIdentifier=",".join(subnets),
        TargetGroupARNs=[target],
    )


def own_rule(aws: Aws, listener: str, priority: int = 100) -> Any:
    rules = aws.elbv2.describe_rules(ListenerArn=listener)["Rules"]
    return next(rule for rule in rules if rule["Priority"] == str(priority))


def share_out(aws: Aws, listener: str, weight: int) -> None:
    """A target group of somebody else's, with weight in the route's own rule."""
    balancer = aws.elbv2.describe_listeners(ListenerArns=[listener])["Listeners"][0]["LoadBalancerArn"]
    vpc = aws.elbv2.describe_load_balancers(LoadBalancerArns=[balancer])["LoadBalancers"][0]["VpcId"]
    made = aws.elbv2.create_target_group(Name="theirs", Protocol="HTTP", Port=80, VpcId=vpc)["TargetGroups"][0]
    rule = own_rule(aws, listener)
    pairs = [*rule["Actions"][0]["ForwardConfig"]["TargetGroups"]]
    pairs.append({"TargetGroupArn": made["TargetGroupArn"], "Weight": weight})
    actions: Any = [{"Type": "forward", "ForwardConfig": {"TargetGroups": pairs}}]
    aws.elbv2.modify_rule(RuleArn=rule["RuleArn"], Actions=actions)


def narrow(aws: Aws, listener: str, path: str) -> None:
    """Let the route's own rule take this path alone."""
    conditions: Any = [{"Field": "path-pattern", "PathPatternConfig": {"Values": [path]}}]
    aws.elbv2.modify_rule(RuleArn=own_rule(aws, listener)["RuleArn"], Conditions=conditions)


def aws_scene() -> Scene:
    clock, events = VirtualClock(), Recorder()
    ctx = Context(clock=clock, reporter=events)
    sandbox = Sandbox(runner=InlineRunner())
    user = point_at(sandbox, clock)
    ec2, elb = user.ec2, user.elbv2
    cloud = Cloud(
        kind="aws",
        account=user.account(ctx),
        region=REGION,
        snapshots=EbsSnapshots(user),
        images=AmiRegistry(user),
        groups=AutoScalingGroups(user),
        router=AlbRouter(user),
        console=Ec2Console(user),
        machines=Ec2MachineTypes(user),
        metrics=CloudWatch(user),
    )

    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]][:2]
    subnets = tuple(
        ec2.create_subnet(VpcId=vpc, AvailabilityZone=zone, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"]
        for number, zone in enumerate(zones)
    )
    firewall = ec2.create_security_group(GroupName="guests", Description="guests", VpcId=vpc)["GroupId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    balancer = elb.create_load_balancer(Name="lb", Subnets=list(subnets), SecurityGroups=[firewall])
    listener = elb.create_listener(
        LoadBalancerArn=balancer["LoadBalancers"][0]["LoadBalancerArn"],
        Protocol="HTTP",
        Port=8000,
        DefaultActions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}],
    )["Listeners"][0]["ListenerArn"]
    # Until the balancer is active and its listener open.
    clock.advance(600)

    def image(release: ReleaseId, guest: Guest) -> str:
        digest = sha256(release.encode())
        labels = image_tags(APP, "1.0.0", digest)
        disk = volume({"/app": PROGRAMS[guest]}, environment=(("OSVDEPLOY_RELEASE", release),)).content
        size = cloud.snapshots.block_size
        blocks = [
            Block(index, data, hashlib.sha256(data).digest())
            for index in range(-(-len(disk) // size))
            if (data := disk[index * size : (index + 1) * size].ljust(size, b"\0"))
        ]
        sink = cloud.snapshots.start(ctx, UploadRequest(release, digest, 1, labels))
        sink.put(ctx, blocks, lambda index: None)
        linear = hashlib.sha256(b"".join(block.sha256 for block in blocks)).digest()
        uploaded = sink.complete(ctx, len(blocks), linear)
        return cloud.images.register(ctx, ImageRequest(release, digest, uploaded, labels)).id

    def on_change(hook: Callable[[str, bool], None] | None) -> None:
        def asked(moment: Moment, call: Call) -> None:
            if hook is not None and mutating(call.operation):
                hook(call.operation, moment is Moment.AFTER)

        sandbox.hook = asked

    return Scene(
        ctx=ctx,
        cloud=cloud,
        prober=SandboxProber(sandbox, clock),
        listener=listener,
        networks=subnets,
        firewalls=(firewall,),
        machine_type="t3.nano",
        image=image,
        plant_rule=lambda priority: plant_rule(user, listener, priority),
        plant_group=lambda name: plant_group(user, name, image(THEIRS, Guest.SERVES), subnets[0]),
        plant_service=lambda name, priority: plant_service(
            user, listener, name, image(THEIRS, Guest.SERVES), subnets, priority
        ),
        share_out=lambda weight: share_out(user, listener, weight),
        narrow=lambda path: narrow(user, listener, path),
        scale=lambda name, minimum, maximum: scale_group(user.autoscaling, name, minimum, maximum, listener),
        unload=lambda name: unload_group(user.autoscaling, name, clock.now() + timedelta(seconds=60)),
        mutations=lambda: sum(isinstance(event, CloudCall) and event.mutating for event in events.events),
        on_change=on_change,
        errors=CloudWatchMetric("HTTPCode_Target_5XX_Count", "RequestCount", Statistic.SUM),
        published=60.0,
    )
