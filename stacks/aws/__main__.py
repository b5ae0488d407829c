"""A service on AWS: its network and balancer, its image, and the way from each release to the next.

`pulumi up` builds what is in app/, makes an AMI of it and brings that into traffic, blue-green. README.md says how to
create, release, roll back and destroy.
"""

import pulumi
import pulumi_osvdeploy as osvdeploy

import releaser
from network import entrance, machines_group, network
from settings import Settings

settings = Settings.load()
net = network(settings)
way_in = entrance(settings, net)
group = machines_group(settings, net, way_in)

image = osvdeploy.Image("app", file="app", set={"version": settings.version} if settings.version else None)
release = osvdeploy.aws.Ami(
    "release",
    disk=image.disk,
    env=settings.env,
    instance_types=[settings.instance_type],
    region=settings.region,
)
service = osvdeploy.aws.BlueGreenDeployment(
    "service",
    image=release.id,
    environment=pulumi.get_stack(),
    region=settings.region,
    listener_arn=way_in.listener_arn,
    route=osvdeploy.DeploymentRouteArgs(host=settings.host, path=settings.path, priority=settings.priority),
    port=settings.port,
    subnet_ids=net.subnet_ids,
    security_group_ids=[group.id],
    instance_type=settings.instance_type,
    capacity=settings.capacity,
    health=osvdeploy.DeploymentHealthArgs(
        path="/healthz",
        version_header="x-release",
        boot_timeout=settings.boot_timeout,
        min_ready=settings.min_ready,
    ),
    strategy=osvdeploy.DeploymentStrategyArgs(bake=settings.bake, keep_warm=settings.keep_warm),
    gates=settings.gates,
    hooks=settings.hooks,
    notify=settings.notify,
    force_rollout=settings.force_rollout,
    opts=pulumi.ResourceOptions(protect=settings.protect),
)
if settings.releaser:
    pulumi.export("releaserRole", releaser.role(settings, way_in.listener_arn).arn)

pulumi.export("url", way_in.url)
pulumi.export("dnsName", way_in.dns_name)
pulumi.export("dnsZoneId", way_in.zone_id)
pulumi.export("service", service.service)
pulumi.export("release", service.active_release)
pulumi.export("status", service.status)
