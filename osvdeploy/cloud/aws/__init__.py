"""The ports on AWS: EBS direct, S3, AMIs, Auto Scaling groups, application load balancers, CloudWatch.

boto3 is imported, and each service's client made, when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from osvdeploy.cloud.aws.console import Ec2Console
from osvdeploy.cloud.aws.foresight import AwsForesight
from osvdeploy.cloud.aws.groups import AutoScalingGroups
from osvdeploy.cloud.aws.images import AmiRegistry
from osvdeploy.cloud.aws.imports import SnapshotImports
from osvdeploy.cloud.aws.machines import Ec2MachineTypes
from osvdeploy.cloud.aws.metrics import CloudWatch
from osvdeploy.cloud.aws.notifier import SnsNotifier
from osvdeploy.cloud.aws.quotas import VcpuQuotas
from osvdeploy.cloud.aws.router import AlbRouter
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.aws.snapshots import EbsSnapshots
from osvdeploy.cloud.aws.zones import SubnetZones
from osvdeploy.cloud.interfaces import Cloud
from osvdeploy.context import Context

if TYPE_CHECKING:
    import boto3

LATE = 90.0
"""Seconds: AWS names no figure. Mostly it is a few; a balancer under load has been seen to take more than a minute."""

__all__ = ["Aws", "connect", "ports"]


def connect(ctx: Context, region: str, session: boto3.Session | None = None) -> Cloud:
    """One region of the account that the credentials belong to (one call, to STS).

    ``session`` is a prepared boto3 session; without one the SDK's usual chain of settings decides.
    Raises :class:`~osvdeploy.errors.CredentialsMissing`, and :class:`~osvdeploy.errors.UsageError` where the SDK is not
    installed or its settings do not work.
    """
    return ports(ctx, Aws(region, session))


def ports(ctx: Context, aws: Aws) -> Cloud:
    """Likewise, by clients that there are."""
    groups, router = AutoScalingGroups(aws), AlbRouter(aws)
    return Cloud(
        kind="aws",
        account=aws.account(ctx),
        region=aws.region,
        snapshots=EbsSnapshots(aws),
        images=AmiRegistry(aws),
        groups=groups,
        router=router,
        console=Ec2Console(aws),
        machines=Ec2MachineTypes(aws),
        imports=SnapshotImports(aws),
        metrics=CloudWatch(aws),
        notifier=SnsNotifier(aws),
        late=LATE,
        foresee=lambda: AwsForesight(router, groups),
        quotas=VcpuQuotas(aws),
        zones=SubnetZones(aws),
    )
