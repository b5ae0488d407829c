"""AWS, as the sandbox simulates it, delivered in process and in virtual time."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from osvdeploy.cloud.aws.images import AmiRegistry
from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.aws.snapshots import EbsSnapshots, tag_list
from osvdeploy.cloud.interfaces import Tags
from osvdeploy.context import Clock, Context, SystemClock, VirtualClock
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.aws_clients import client, point_at
from tests.contract.disks import Place

REGION = "eu-west-1"

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "vmie.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:Externalid": "vmimport"}},
        }
    ],
}
"""As VM Import's user guide has it."""


def permissions(bucket: str) -> dict[str, Any]:
    """What the guide lets the role do."""
    reads = ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"]
    makes = ["ec2:ModifySnapshotAttribute", "ec2:CopySnapshot", "ec2:RegisterImage", "ec2:Describe*"]
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": reads, "Resource": resources},
            {"Effect": "Allow", "Action": makes, "Resource": "*"},
        ],
    }


class AwsSandbox:
    """A new account, and clients that reach it."""

    def __init__(self, clock: Clock | None = None, speed: float = 1.0) -> None:
        self.clock = clock or VirtualClock()
        self.ctx = Context(clock=self.clock)
        self.sandbox = Sandbox(runner=InlineRunner(), speed=speed)

    def aws(self) -> Aws:
        """The product's clients. They are the same ones for all accounts, and reach the one that was asked last."""
        return point_at(self.sandbox, self.clock)

    def client(self, service: str, region: str = REGION) -> Any:
        """A client of boto3 itself, likewise."""
        point_at(self.sandbox, self.clock)
        return client(service, region=region)

    def set_up_imports(self, bucket: str) -> None:
        """Make a bucket, and the role by which EC2 imports from it."""
        self.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        iam = self.client("iam")
        iam.create_role(RoleName="vmimport", AssumeRolePolicyDocument=json.dumps(TRUST))
        iam.put_role_policy(RoleName="vmimport", PolicyName="vmimport", PolicyDocument=json.dumps(permissions(bucket)))

    def read(self, disk: str) -> dict[int, bytes]:
        """All blocks that read back from a snapshot, its ancestors' included."""
        return read(self.ctx, self.aws(), disk)

    def put_foreign(self, name: str) -> str:
        """Register an image of that name as somebody else would, without our tags. Its id."""
        return put_foreign(self.ctx, self.aws(), name)


def read(ctx: Context, aws: Aws, disk: str) -> dict[int, bytes]:
    """As :meth:`AwsSandbox.read`."""
    blocks: dict[int, bytes] = {}
    page: dict[str, Any] = {}
    while True:
        with aws.calling(ctx):
            listed = aws.ebs.list_snapshot_blocks(SnapshotId=disk, **page)
            for block in listed["Blocks"]:
                got = aws.ebs.get_snapshot_block(
                    SnapshotId=disk, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"]
                )
                blocks[block["BlockIndex"]] = got["BlockData"].read()
        if "NextToken" not in listed:
            return blocks
        page = {"NextToken": listed["NextToken"]}


def put_foreign(ctx: Context, aws: Aws, name: str, tags: Tags = MappingProxyType({})) -> str:
    """As :meth:`AwsSandbox.put_foreign`. ``tags`` are not ours."""
    data = bytes(524_288)
    digest = hashlib.sha256(data).digest()
    on_snapshot: dict[str, Any] = {"Tags": tag_list(tags)} if tags else {}
    on_image: dict[str, Any] = {}
    if tags:
        on_image["TagSpecifications"] = [{"ResourceType": "image", "Tags": tag_list(tags)}]
    with aws.calling(ctx):
        snapshot = aws.ebs.start_snapshot(VolumeSize=1, **on_snapshot)["SnapshotId"]
        aws.ebs.put_snapshot_block(
            SnapshotId=snapshot,
            BlockIndex=0,
            BlockData=data,
            DataLength=len(data),
            Checksum=base64.b64encode(digest).decode(),
            ChecksumAlgorithm="SHA256",
        )
        aws.ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
        while aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] != "completed":
            ctx.sleep(5)
        registered = aws.ec2.register_image(
            Name=name,
            Architecture="x86_64",
            VirtualizationType="hvm",
            RootDeviceName="xvda",
            BlockDeviceMappings=[{"DeviceName": "xvda", "Ebs": {"SnapshotId": snapshot}}],
            **on_image,
        )
        return registered["ImageId"]


def aws_place() -> Place:
    account = AwsSandbox()
    aws = account.aws()
    return Place(account.ctx, EbsSnapshots(aws), AmiRegistry(aws), account.read, account.put_foreign)


def s3_stores() -> Callable[[str], S3Store]:
    """Stores of a new account with a bucket, ``acme``, by their addresses, in the machine's own time."""
    account = AwsSandbox(SystemClock())
    account.client("s3").create_bucket(Bucket="acme", CreateBucketConfiguration={"LocationConstraint": REGION})
    return lambda address: S3Store(address, account.aws())
