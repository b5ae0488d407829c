"""AWS in the sandbox, in process and in virtual time: an account with a network, and hello going live in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3

from osvdeploy.cloud import aws, tags
from osvdeploy.cloud.interfaces import Cloud
from osvdeploy.context import Context, VirtualClock
from osvdeploy.osv.cmdline import RELEASE_VARIABLE, with_environment
from osvdeploy.publish.blocks import first_block
from osvdeploy.publish.publisher import publish_image, publish_release
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Limits
from osvdeploy.rollout.releases import Release
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.inprocess import connect
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.rollout.made import NOW, SETTINGS
from tests.world import World

REGION = "eu-west-1"


@dataclass
class Network:
    """What a user has before the first deploy."""

    listener: str
    subnets: tuple[str, ...]
    security_group: str


class AwsWorld(World):
    """The world on AWS."""

    options = (("power-off-on-abort", None),)

    def __init__(self, folder: Path, clock: VirtualClock | None = None, **settings: Any) -> None:
        clock, sandbox = clock or VirtualClock(NOW), Sandbox(runner=InlineRunner())
        self.session = connect(sandbox, clock, REGION)
        self.aws = aws.Aws(REGION, self.session)
        """Clients, which every process here has: to make a process's own takes a fifth of all that it does."""
        self.network = _make_network(self.session, sandbox, clock)
        wanted = replace(
            SETTINGS,
            cloud="aws",
            region=REGION,
            listener=self.network.listener,
            networks=self.network.subnets,
            firewalls=(self.network.security_group,),
            path="/*",
            **settings,
        )
        super().__init__(folder, sandbox, clock, wanted)

    def deploy(self, release: Release, process: Process | None = None) -> Rollout:
        """publish and deploy, as ``osvdeploy deploy`` does, from what build() made last."""
        here = process or self.process()
        self.publish(release, here)
        return here.manager.deploy(here.ctx, release)

    def publish(self, release: Release, process: Process | None = None) -> None:
        """The release's image, from what build() made last."""
        here = process or self.process()
        published = publish_image(
            here.ctx, self.raw, app="hello", version=release.version, tags={}, cloud=here.cloud, journal=self.journal
        )
        service = tags.service_tags("hello", release.service, self.settings.ledger)
        publish_release(
            here.ctx,
            published.image,
            block0=first_block(self.raw, here.cloud.snapshots.block_size),
            boot=with_environment(self.raw.boot, {RELEASE_VARIABLE: release.id}),
            release=release.id,
            digest=release.digest,
            tags=tags.release_tags(
                service,
                release=release.id,
                version=release.version,
                image=release.image,
                configuration=release.configuration,
                digest=release.digest,
            ),
            cloud=here.cloud,
            journal=self.journal,
        )

    def rollback(self, to: Release | None = None, process: Process | None = None) -> Rollout:
        here = process or self.process()
        return here.manager.rollback(here.ctx, to)

    def process(self, limits: Limits | None = None) -> Process:
        """A new process: another identity, as if with its own clients."""
        ctx = self.next_context()
        cloud = aws.ports(ctx, self.aws)
        return Process(
            ctx,
            cloud,
            RolloutManager(self.ledger, cloud, self.prober, limits, hooks=self.hooks, notifier=self.notifier),
        )

    def network_in(self, region: str) -> Network:
        """A network like the first one, in another region of the account."""
        return _make_network(connect(self.sandbox, self.clock, region), self.sandbox, self.clock)


@dataclass
class Process:
    """One run of the command line: its context, its clients, its manager."""

    ctx: Context
    cloud: Cloud
    manager: RolloutManager


Scenario = Callable[[AwsWorld], object]


def _make_network(session: boto3.Session, sandbox: Sandbox, clock: VirtualClock) -> Network:
    ec2, elb = session.client("ec2"), session.client("elbv2")
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    zones = [zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]][:2]
    subnets = tuple(
        ec2.create_subnet(VpcId=vpc, AvailabilityZone=zone, CidrBlock=f"10.20.{number}.0/24")["Subnet"]["SubnetId"]
        for number, zone in enumerate(zones)
    )
    group = ec2.create_security_group(GroupName="hello", Description="hello", VpcId=vpc)["GroupId"]
    balancer = elb.create_load_balancer(Name="hello", Subnets=list(subnets), SecurityGroups=[group])
    nothing = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}
    listener = elb.create_listener(
        LoadBalancerArn=balancer["LoadBalancers"][0]["LoadBalancerArn"],
        Protocol="HTTP",
        Port=8080,
        DefaultActions=[nothing],
    )
    clock.advance(60)
    sandbox.settle(clock.now())
    return Network(listener["Listeners"][0]["ListenerArn"], subnets, group)
