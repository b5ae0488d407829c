"""A service on Google Cloud: its network and balancer, its image, and the way from each release to the next.

`pulumi up` builds what is in app/, makes an image of it and brings that into traffic, blue-green. README.md says how to
create, release, roll back and destroy.
"""

import pulumi
import pulumi_gcp as gcp
import pulumi_osvdeploy as osvdeploy

from network import entrance, machines
from settings import Settings

settings = Settings.load()
net = machines(settings)
way_in = entrance(settings)
# Disks pass through it on their way to images. Nothing stays, and nothing that was deleted is kept, which would cost.
bucket = (
    settings.bucket
    or gcp.storage.Bucket(
        f"{settings.name}-disks",
        location=settings.region,
        uniform_bucket_level_access=True,
        soft_delete_policy=gcp.storage.BucketSoftDeletePolicyArgs(retention_duration_seconds=0),
    ).name
)

image = osvdeploy.Image("app", file="app", set={"version": settings.version} if settings.version else None)
release = osvdeploy.gcp.Image(
    "release",
    disk=image.disk,
    env=settings.env,
    bucket=bucket,
    project=settings.project,
    storage_location=settings.region,
    machine_types=[settings.machine_type],
    zone=settings.zone,
)
service = osvdeploy.gcp.BlueGreenDeployment(
    "service",
    image=release.id,
    environment=pulumi.get_stack(),
    project=settings.project,
    url_map=way_in.url_map,
    route=osvdeploy.DeploymentRouteArgs(host=settings.host, path=settings.path, priority=settings.priority),
    port=settings.port,
    zone=settings.zone,
    region=None if settings.zone else settings.region,
    subnetwork=net.subnetwork,
    network_tags=net.tags,
    machine_type=settings.machine_type,
    capacity=settings.capacity,
    health=osvdeploy.DeploymentHealthArgs(
        path="/healthz", boot_timeout=settings.boot_timeout, min_ready=settings.min_ready
    ),
    strategy=osvdeploy.DeploymentStrategyArgs(bake=settings.bake, keep_warm=settings.keep_warm),
    gates=settings.gates,
    hooks=settings.hooks,
    notify=settings.notify,
    force_rollout=settings.force_rollout,
    opts=pulumi.ResourceOptions(protect=settings.protect, depends_on=[*net.after, *way_in.after]),
)

pulumi.export("url", service.url)
if way_in.address is not None:
    pulumi.export("address", way_in.address)
pulumi.export("service", service.service)
pulumi.export("release", service.active_release)
pulumi.export("status", service.status)
