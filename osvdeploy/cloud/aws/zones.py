"""The zones of subnets: each is in one, by which machines stand there (EC2 API reference, DescribeSubnets)."""

from __future__ import annotations

from collections.abc import Sequence

from osvdeploy.cloud.aws.session import Aws
from osvdeploy.context import Context


class SubnetZones:
    """:class:`~osvdeploy.cloud.interfaces.Zones` of a region's subnets."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def of(self, ctx: Context, networks: Sequence[str]) -> frozenset[str]:
        """One call. Raises :class:`~osvdeploy.errors.Refused` where ec2:DescribeSubnets is not allowed."""
        with self._aws.calling(ctx, "subnets"):
            found = self._aws.ec2.describe_subnets(SubnetIds=list(networks))["Subnets"]
        return frozenset(each["AvailabilityZone"] for each in found)
