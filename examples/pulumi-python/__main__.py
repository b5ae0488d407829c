"""hello, from its spec to live traffic on AWS: the disk, an AMI of it, and the service behind a balancer."""

import pulumi
import pulumi_osvdeploy as osvdeploy

config = pulumi.Config()
instance_type = config.get("instanceType") or "t3.small"

image = osvdeploy.Image(
    "hello",
    file=config.get("app") or "../hello",
    set={"version": config.get("version") or "1.0.0"},
)

# A release is the disk and its variables. Another version, or another variable, is another AMI, which is rolled out.
ami = osvdeploy.aws.Ami(
    "hello",
    disk=image.disk,
    env={"HELLO_STACK": pulumi.get_stack()},
    instance_types=[instance_type],
)

service = osvdeploy.aws.BlueGreenDeployment(
    "hello",
    image=ami.id,
    environment=pulumi.get_stack(),
    listener_arn=config.require("listener"),
    subnet_ids=config.require_object("subnets"),
    security_group_ids=config.require_object("securityGroups"),
    instance_type=instance_type,
    capacity=config.get_int("capacity") or 2,
    route=osvdeploy.DeploymentRouteArgs(path="/*", priority=100),
    port=8080,
    # hello names its release in each answer, so a rollout knows whose answer it got.
    health=osvdeploy.DeploymentHealthArgs(
        path="/healthz", version_header="x-release", min_ready=config.get("minReady") or "10s"
    ),
    strategy=osvdeploy.DeploymentStrategyArgs(bake=config.get("bake") or "30s", keep_warm="1h"),
)

pulumi.export("release", service.active_release)
pulumi.export("url", service.url)
