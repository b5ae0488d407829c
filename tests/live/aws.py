"""An account on AWS that live tests use: what they need there, made when it is first needed, and all of it found again.

The network is that of examples/aws-network: a VPC of the run's own, so that nothing of the user's is touched.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import boto3

from osvdeploy.cloud import aws
from osvdeploy.cloud.aws.imports import SnapshotImports
from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.aws.snapshots import delete, tag_dict
from osvdeploy.cloud.interfaces import Cloud, ProbeRequest
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, Unready
from tests.live import settings
from tests.live.run import PREFIX, TAG, Label, Run
from tests.live.settings import Account
from tests.live.sweeping import Left, Listing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

EXAMPLES = Path(__file__).parents[2] / "examples"

PORT = 8080
"""Of the balancer; it is the machines' as well, and open in the example's security group."""

READY = 1200.0
"""Seconds for a new balancer to answer: on Google a new forwarding rule takes some minutes."""


def example(path: str) -> ModuleType:
    """A script of examples/, as a module."""
    found = importlib.util.spec_from_file_location(Path(path).stem, EXAMPLES / path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


class Once(Generic[T]):
    """Makes something when it is first asked for. What failed is not tried again by every test: each try would leave,
    and pay for, what came before the failure."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None
        self._failed: Exception | None = None

    @property
    def made(self) -> bool:
        return self._made is not None

    def __call__(self) -> T:
        if self._failed is not None:
            raise self._failed
        if self._made is None:
            try:
                self._made = self._make()
            except Exception as error:
                self._failed = error
                raise
        return self._made


class AwsAccount:
    """One region of the account that the environment's credentials belong to.

    Raises :class:`~osvdeploy.errors.CredentialsMissing` where there are none.
    """

    def __init__(self, ctx: Context, run: Run) -> None:
        region = os.environ[settings.AWS_REGION]
        # The example's script uses boto3's own session, as it finds it configured.
        boto3.setup_default_session(region_name=region)
        self.aws = Aws(region)
        self.cloud: Cloud = aws.ports(ctx, self.aws)
        self.machine_type = settings.machine_type(Account.AWS)
        self._ctx, self._run = ctx, run
        self._script = example("aws-network/network.py")
        self._network, self._bucket = Once(self._make_network), Once(self._make_bucket)

    # --------------------------------------------------------------------------------------- what a run makes, once

    @property
    def network(self) -> dict[str, str]:
        """The run's own network and balancer, which answers: the variables that the example's script tells."""
        return self._network()

    @property
    def bucket(self) -> str:
        """The run's own bucket."""
        return self._bucket()

    def _make_network(self) -> dict[str, str]:
        with self.aws.calling(self._ctx, "network"):
            made: dict[str, str] = self._script.create(self._run.name, PORT)
        answers(self._ctx, f"{made['URL']}/", 404)
        return made

    def _make_bucket(self) -> str:
        where: dict[str, Any] = {}
        if self.aws.region != "us-east-1":  # whose buckets have no location
            where["CreateBucketConfiguration"] = {"LocationConstraint": self.aws.region}
        with self.aws.calling(self._ctx, f"bucket {self._run.name}"):
            self.aws.s3.create_bucket(Bucket=self._run.name, **where)
        return self._run.name

    def store(self, label: Label) -> S3Store:
        """A test's own part of the bucket."""
        return S3Store(f"s3://{self.bucket}/{label.value}", self.aws)

    def unready(self) -> str | None:
        """Why nothing can be imported here, None where it can."""
        try:
            SnapshotImports(self.aws).refuse_unready(self._ctx, f"s3://{self.bucket}/x")
        except Unready as error:
            return f"{error}: {error.hint}"
        return None

    # ---------------------------------------------------------------------------------------- what runs left behind

    @property
    def kinds(self) -> tuple[Listing, ...]:
        """In the order in which they can be taken away."""
        return (
            self._rules,
            self._groups,
            self._target_groups,
            self._templates,
            self._images,
            self._imports,
            self._snapshots,
            self._networks,
            self._buckets,
        )

    def _rules(self, ctx: Context) -> Iterator[Left]:
        """Of the runs' own balancers: whoever made them."""
        elb = self.aws.elbv2
        found: list[tuple[str, str]] = []
        with self.aws.calling(ctx, "rules"):
            pages = elb.get_paginator("describe_load_balancers").paginate()
            for balancer in [each for page in pages for each in page["LoadBalancers"]]:
                name = balancer["LoadBalancerName"]
                if not name.startswith(PREFIX):
                    continue
                for listener in elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]:
                    rules = elb.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]
                    arns = [rule["RuleArn"] for rule in rules if not rule["IsDefault"]]
                    shared = f"{name.removeprefix(PREFIX)}-0"
                    found += [(arn, tags.get(TAG, shared)) for arn, tags in self._tags(arns)]
        for arn, label in found:
            yield self._left(ctx, f"rule {arn}", label, partial(elb.delete_rule, RuleArn=arn))

    def _groups(self, ctx: Context) -> Iterator[Left]:
        scaling = self.aws.autoscaling
        with self.aws.calling(ctx, "Auto Scaling groups"):
            pages = scaling.get_paginator("describe_auto_scaling_groups").paginate(
                Filters=[{"Name": "tag-key", "Values": [TAG]}]
            )
            found = [group for page in pages for group in page["AutoScalingGroups"]]
        for group in found:
            name = group["AutoScalingGroupName"]

            tags = {tag["Key"]: tag.get("Value", "") for tag in group["Tags"]}
            delete_it = partial(scaling.delete_auto_scaling_group, AutoScalingGroupName=name, ForceDelete=True)
            going = "Status" in group
            yield self._left(ctx, f"Auto Scaling group {name}", tags[TAG], _nothing if going else delete_it)

    def _target_groups(self, ctx: Context) -> Iterator[Left]:
        elb = self.aws.elbv2
        with self.aws.calling(ctx, "target groups"):
            pages = elb.get_paginator("describe_target_groups").paginate()
            arns = [group["TargetGroupArn"] for page in pages for group in page["TargetGroups"]]
            tagged = list(self._tags(arns))
        for arn, tags in tagged:
            if TAG in tags:
                yield self._left(
                    ctx, f"target group {arn}", tags[TAG], partial(elb.delete_target_group, TargetGroupArn=arn)
                )

    def _templates(self, ctx: Context) -> Iterator[Left]:
        ec2 = self.aws.ec2
        with self.aws.calling(ctx, "launch templates"):
            pages = ec2.get_paginator("describe_launch_templates").paginate(Filters=self._labelled)
            found = [template for page in pages for template in page["LaunchTemplates"]]
        for template in found:
            yield self._left(
                ctx,
                f"launch template {template['LaunchTemplateName']}",
                tag_dict(template["Tags"])[TAG],
                partial(ec2.delete_launch_template, LaunchTemplateId=template["LaunchTemplateId"]),
            )

    def _images(self, ctx: Context) -> Iterator[Left]:
        ec2 = self.aws.ec2
        with self.aws.calling(ctx, "images"):
            pages = ec2.get_paginator("describe_images").paginate(Owners=["self"], Filters=self._labelled)
            found = [image for page in pages for image in page["Images"]]
        for image in found:
            yield self._left(
                ctx,
                f"image {image['ImageId']}, {image['Name']}",
                tag_dict(image["Tags"])[TAG],
                partial(ec2.deregister_image, ImageId=image["ImageId"]),
            )

    def _imports(self, ctx: Context) -> Iterator[Left]:
        """Those under way, which are waited for, and the snapshots that finished ones made: they have no tags."""
        with self.aws.calling(ctx, "imports"):
            pages = self.aws.ec2.get_paginator("describe_import_snapshot_tasks").paginate()
            found = [task for page in pages for task in page["ImportSnapshotTasks"]]
        for task in found:
            tags, detail = tag_dict(task.get("Tags", [])), task.get("SnapshotTaskDetail", {})
            if TAG not in tags:
                continue
            if detail.get("Status") == "active":
                yield Left(f"import {task['ImportTaskId']}", tags[TAG], _nothing)
            elif self._is_there(ctx, snapshot := detail.get("SnapshotId", "")):
                yield Left(f"snapshot {snapshot}", tags[TAG], partial(delete, self.aws, ctx, snapshot))

    def _is_there(self, ctx: Context, snapshot: str) -> bool:
        if not snapshot:
            return False
        try:
            with self.aws.calling(ctx, f"snapshot {snapshot}"):
                return bool(self.aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"])
        except NotFound:
            return False

    def _snapshots(self, ctx: Context) -> Iterator[Left]:
        with self.aws.calling(ctx, "snapshots"):
            pages = self.aws.ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=self._labelled)
            found = [snapshot for page in pages for snapshot in page["Snapshots"]]
        for snapshot in found:
            yield Left(
                f"snapshot {snapshot['SnapshotId']}",
                tag_dict(snapshot["Tags"])[TAG],
                partial(delete, self.aws, ctx, snapshot["SnapshotId"]),
            )

    def _networks(self, ctx: Context) -> Iterator[Left]:
        """By the VPC, which is made first and goes last."""
        with self.aws.calling(ctx, "networks"):
            found = self.aws.ec2.describe_vpcs(Filters=[{"Name": "tag-key", "Values": ["network"]}])["Vpcs"]
        for vpc in found:
            name = tag_dict(vpc["Tags"]).get("network", "")
            if name.startswith(PREFIX):
                yield self._left(
                    ctx,
                    f"network and balancer {name}",
                    f"{name.removeprefix(PREFIX)}-0",
                    partial(self._script.delete, name),
                )

    def _buckets(self, ctx: Context) -> Iterator[Left]:
        s3 = self.aws.s3
        with self.aws.calling(ctx, "buckets"):
            found = [each["Name"] for each in s3.list_buckets()["Buckets"] if each["Name"].startswith(PREFIX)]
        for name in found:
            yield self._left(
                ctx, f"bucket {name}", f"{name.removeprefix(PREFIX)}-0", partial(_empty_and_delete, s3, name)
            )

    # ------------------------------------------------------------------------------------------------------- details

    @property
    def _labelled(self) -> Any:
        return [{"Name": "tag-key", "Values": [TAG]}]

    def _tags(self, arns: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Of balancers' parts, twenty at a time: more are refused."""
        for at in range(0, len(arns), 20):
            described = self.aws.elbv2.describe_tags(ResourceArns=arns[at : at + 20])["TagDescriptions"]
            for each in described:
                yield each["ResourceArn"], {tag["Key"]: tag.get("Value", "") for tag in each.get("Tags", [])}

    def _left(self, ctx: Context, what: str, label: str, remove: Any) -> Left:
        def asked() -> None:
            try:
                with self.aws.calling(ctx, what):
                    remove()
            except NotFound:
                pass

        return Left(what, label, asked)


def _nothing() -> None:
    """For what goes by itself."""


def _empty_and_delete(s3: S3Client, bucket: str) -> None:
    for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    while objects := s3.list_objects_v2(Bucket=bucket).get("Contents", []):
        for each in objects:
            s3.delete_object(Bucket=bucket, Key=each["Key"])
    s3.delete_bucket(Bucket=bucket)


def answers(ctx: Context, url: str, nobody: int) -> None:
    """Wait until a new balancer answers, by its name in the DNS, with what it says when it has no service."""
    prober, began = HttpProber(), ctx.monotonic()
    while (answer := prober.probe(ctx, ProbeRequest(url))).status != nobody:
        if ctx.monotonic() - began > READY:
            raise AssertionError(f"{url}: answers {answer.status or answer.error} after {READY:g} s, not {nobody}")
        ctx.sleep(5)
