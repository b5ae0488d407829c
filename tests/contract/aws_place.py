"""AWS, as the sandbox simulates it, delivered in process and in virtual time."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import boto3

from osvdeploy.cloud.aws.images import AmiRegistry
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.aws.snapshots import EbsSnapshots
from osvdeploy.context import Context, VirtualClock
from osvdeploy.sandbox import inprocess
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.aws_clients import point_at
from tests.contract.disks import Place

REGION = "eu-west-1"


class AwsSandbox:
    """A new account, and sessions that reach it."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.ctx = Context(clock=self.clock)
        self.sandbox = Sandbox(runner=InlineRunner())

    def session(self) -> boto3.Session:
        """A new one, for a process of its own."""
        return inprocess.connect(self.sandbox, self.clock, REGION)

    def aws(self) -> Aws:
        return point_at(self.sandbox, self.clock)

    def read(self, disk: str) -> dict[int, bytes]:
        """All blocks that read back from a snapshot, its ancestors' included."""
        raw = self.aws()
        blocks: dict[int, bytes] = {}
        page: dict[str, Any] = {}
        while True:
            with raw.calling(self.ctx):
                listed = raw.ebs.list_snapshot_blocks(SnapshotId=disk, **page)
                for block in listed["Blocks"]:
                    got = raw.ebs.get_snapshot_block(
                        SnapshotId=disk, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"]
                    )
                    blocks[block["BlockIndex"]] = got["BlockData"].read()
            if "NextToken" not in listed:
                return blocks
            page = {"NextToken": listed["NextToken"]}

    def put_foreign(self, name: str) -> None:
        """Register an image of that name as somebody else would, without our tags."""
        raw = self.aws()
        data = bytes(524_288)
        digest = hashlib.sha256(data).digest()
        with raw.calling(self.ctx):
            snapshot = raw.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
            raw.ebs.put_snapshot_block(
                SnapshotId=snapshot,
                BlockIndex=0,
                BlockData=data,
                DataLength=len(data),
                Checksum=base64.b64encode(digest).decode(),
                ChecksumAlgorithm="SHA256",
            )
            raw.ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
            self.clock.advance(60)
            raw.ec2.register_image(
                Name=name,
                Architecture="x86_64",
                VirtualizationType="hvm",
                RootDeviceName="xvda",
                BlockDeviceMappings=[{"DeviceName": "xvda", "Ebs": {"SnapshotId": snapshot}}],
            )


def aws_place() -> Place:
    account = AwsSandbox()
    aws = account.aws()
    return Place(account.ctx, EbsSnapshots(aws), AmiRegistry(aws), account.read, account.put_foreign)
