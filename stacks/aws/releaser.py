"""A role for whoever releases, a CI job mostly: images and their way into service, nothing of network or balancer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pulumi
import pulumi_aws as aws

from settings import Settings

READS = [
    "autoscaling:Describe*", "cloudwatch:GetMetricData", "ebs:GetSnapshotBlock", "ebs:ListSnapshotBlocks",
    "ec2:Describe*", "ec2:GetConsoleOutput", "elasticloadbalancing:Describe*", "iam:GetRole", "iam:GetRolePolicy",
    "iam:ListAttachedRolePolicies", "iam:ListRolePolicies",
]  # fmt: skip
IMAGES = [
    "ebs:CompleteSnapshot", "ebs:PutSnapshotBlock", "ebs:StartSnapshot", "ec2:CreateTags", "ec2:DeleteSnapshot",
    "ec2:DeleteTags", "ec2:DeregisterImage", "ec2:RegisterImage",
]  # fmt: skip
# An Auto Scaling group starts machines in the name of who makes it, hence RunInstances.
MACHINES = ["ec2:CreateLaunchTemplate", "ec2:DeleteLaunchTemplate", "ec2:RunInstances"]
GROUPS = [
    "autoscaling:CreateAutoScalingGroup", "autoscaling:CreateOrUpdateTags", "autoscaling:DeleteAutoScalingGroup",
    "autoscaling:DeleteLifecycleHook", "autoscaling:DeletePolicy", "autoscaling:DeleteScheduledAction",
    "autoscaling:EnableMetricsCollection", "autoscaling:PutLifecycleHook", "autoscaling:PutScalingPolicy",
    "autoscaling:PutScheduledUpdateGroupAction", "autoscaling:ResumeProcesses", "autoscaling:SuspendProcesses",
    "autoscaling:UpdateAutoScalingGroup",
]  # fmt: skip
TARGETS = [
    "elasticloadbalancing:AddTags", "elasticloadbalancing:CreateTargetGroup", "elasticloadbalancing:DeleteTargetGroup",
    "elasticloadbalancing:ModifyTargetGroup", "elasticloadbalancing:ModifyTargetGroupAttributes",
]  # fmt: skip
RULES = [
    "elasticloadbalancing:AddTags", "elasticloadbalancing:CreateRule", "elasticloadbalancing:DeleteRule",
    "elasticloadbalancing:ModifyRule", "elasticloadbalancing:RemoveTags",
]  # fmt: skip
LEDGER = ["s3:DeleteObject", "s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]


def role(settings: Settings, listener_arn: pulumi.Input[str]) -> aws.iam.Role:
    """The role, which ``settings.releaser`` may take on: a user, a role, an account."""
    trust = [{"Effect": "Allow", "Principal": {"AWS": settings.releaser}, "Action": "sts:AssumeRole"}]
    name = f"{pulumi.get_project()}-{pulumi.get_stack()}-releaser"
    made = aws.iam.Role(name, assume_role_policy=_document(trust), description="Brings releases into service")
    topics = [each["sns"] for each in settings.notify if "sns" in each]
    policy = pulumi.Output.from_input(listener_arn).apply(
        lambda listener: _document(permissions(listener, pulumi.Config("osvdeploy").get("ledger"), topics))
    )
    aws.iam.RolePolicy(name, role=made.name, policy=policy)
    return made


def permissions(listener: str, ledger: str | None, topics: Sequence[str]) -> list[dict[str, Any]]:
    """What a release needs: in one region, names that osvdeploy gives, rules of one listener, one ledger, topics that
    are told."""
    _, _, _, region, account, _ = listener.split(":", 5)
    balancing = f"arn:aws:elasticloadbalancing:{region}:{account}"
    in_region = {"Condition": {"StringEquals": {"aws:RequestedRegion": region}}}
    allowed = [
        _allow(READS, "*"),
        _allow([*IMAGES, *MACHINES], "*", **in_region),
        _allow(GROUPS, f"arn:aws:autoscaling:{region}:{account}:autoScalingGroup:*:autoScalingGroupName/osvd-*"),
        _allow(TARGETS, f"{balancing}:targetgroup/osvd-*/*"),
        _allow(RULES, listener, listener.replace(":listener/", ":listener-rule/") + "/*"),
    ]
    if ledger and ledger.startswith("s3://"):
        bucket, _, prefix = ledger.removeprefix("s3://").partition("/")
        objects = f"arn:aws:s3:::{bucket}/{prefix.rstrip('/')}/*" if prefix else f"arn:aws:s3:::{bucket}/*"
        allowed.append(_allow(LEDGER, f"arn:aws:s3:::{bucket}", objects))
    if topics:
        allowed.append(_allow(["sns:Publish"], *topics))
    return allowed


def _allow(actions: list[str], *resources: str, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": list(resources), **more}


def _document(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
