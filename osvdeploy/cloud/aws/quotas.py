"""What an account may run in a region.

Sources: EC2 user guide, "Amazon EC2 instance quotas": on-demand instances that run are bounded by their vCPUs, each
group of families by a quota of its own; Service Quotas API reference, GetServiceQuota. What is used of it, the
instances tell: the metric of its use is minutes late.
"""

from __future__ import annotations

import re

from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.interfaces import Quota
from osvdeploy.context import Context
from osvdeploy.errors import Refused

_STANDARD = "L-1216C47A"
_FAMILIES = ("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z")
"""Letters before the generation, of the families that count against it."""

NAME = "vCPUs of standard on-demand instances"


class VcpuQuotas:
    """:class:`~osvdeploy.cloud.interfaces.Quotas` of a region, for the standard families."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def of(self, ctx: Context, machine_type: str) -> tuple[Quota, ...]:
        """That of the standard families, with what runs or is about to; nothing for a type of others, and where an
        instance does not tell its processors. One call for the
        quota, and one for each page of instances; spot instances have quotas of their own.

        Raises :class:`~osvdeploy.errors.Refused` where servicequotas:GetServiceQuota is not allowed.
        """
        if not _is_standard(machine_type):
            return ()
        try:
            with self._aws.calling(ctx, f"quota {_STANDARD} of ec2"):
                limit = self._aws.quotas.get_service_quota(ServiceCode="ec2", QuotaCode=_STANDARD)["Quota"]["Value"]
        except Refused as error:
            if error.code in ("AccessDenied", "AccessDeniedException"):
                error.hint = "allow the action servicequotas:GetServiceQuota"
            raise
        used = 0
        with self._aws.calling(ctx, "instances"):
            pages = self._aws.ec2.get_paginator("describe_instances").paginate(
                Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}]
            )
            for page in pages:
                for each in (found for reservation in page["Reservations"] for found in reservation["Instances"]):
                    if _is_standard(each["InstanceType"]) and each.get("InstanceLifecycle") is None:
                        if (cpus := each.get("CpuOptions")) is None:
                            return ()
                        used += cpus["CoreCount"] * cpus["ThreadsPerCore"]
        return (Quota(NAME, float(limit), float(used)),)


def _is_standard(machine_type: str) -> bool:
    letters = re.match("[a-z]+", machine_type)
    return letters is not None and letters[0] in _FAMILIES
