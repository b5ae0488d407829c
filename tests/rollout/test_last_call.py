"""The last call of who holds a lease: whatever it takes away, it is over before another may have the lease."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import pytest

from osvdeploy.cloud.aws.groups import AutoScalingGroups
from osvdeploy.cloud.aws.images import AmiRegistry
from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.cloud.aws.session import CONNECT_TIMEOUT
from osvdeploy.cloud.aws.snapshots import EbsSnapshots
from osvdeploy.cloud.gcp import session as google
from osvdeploy.cloud.gcp.images import GceImages
from osvdeploy.cloud.gcp.templates import Templates
from osvdeploy.cloud.interfaces import ObjectStore, UnfinishedObject
from osvdeploy.cloud.memory import MemoryStore
from osvdeploy.context import Context
from osvdeploy.errors import CloudError
from osvdeploy.rollout import lease
from osvdeploy.rollout.ledger import Ledger
from osvdeploy.sandbox.faults import Fault, FaultKind
from tests.contract.aws_place import REGION, AwsSandbox
from tests.contract.gcp_place import GcpSandbox

pytestmark = pytest.mark.sandbox

Change = Callable[[Context], None]

LEFT = UnfinishedObject("a", "id", datetime(2030, 1, 1, tzinfo=UTC), 0)
"""An upload that somebody left."""

MARGIN = 0.01
"""Seconds before the end of the time for changes at which the call is sent."""


def bucket(account: AwsSandbox) -> ObjectStore:
    account.client("s3").create_bucket(Bucket="acme", CreateBucketConfiguration={"LocationConstraint": REGION})
    store = S3Store("s3://acme/osvdeploy", account.aws())
    assert store.put_if_absent(account.ctx, "a", b"left")
    return store


AWS: dict[str, Callable[[AwsSandbox], Change]] = {
    "DeregisterImage": lambda here: lambda ctx: AmiRegistry(here.aws()).deregister(ctx, "ami-0123456789abcdef0"),
    "DeleteSnapshot": lambda here: lambda ctx: EbsSnapshots(here.aws()).delete(ctx, "snap-0123456789abcdef0"),
    "DescribeLaunchTemplates": lambda here: lambda ctx: AutoScalingGroups(here.aws()).delete_template(ctx, "osvd-a"),
    "DescribeAutoScalingGroups": lambda here: lambda ctx: AutoScalingGroups(here.aws()).delete(ctx, "osvd-a"),
    "DeleteObject": lambda here: partial(bucket(here).delete, key="a"),
    "AbortMultipartUpload": lambda here: partial(bucket(here).abort, upload=LEFT),
}
"""What `gc` does on AWS, by the call that hangs; where it looks before it deletes, the look is as slow as the rest."""

GOOGLE: dict[str, Callable[[GcpSandbox], Change]] = {
    "images.get": lambda here: lambda ctx: GceImages(here.gcp()).deregister(ctx, "projects/p/global/images/a"),
    "instanceTemplates.get": lambda here: lambda ctx: Templates(here.gcp()).delete(ctx, "osvd-a"),
    "objects.delete": lambda here: lambda ctx: here.store().delete(ctx, "a"),
}


def overrun(account: AwsSandbox | GcpSandbox, operation: str, change: Change) -> float:
    """Seconds from the end of the lease until a change is over whose call goes out at the last moment, and hangs."""
    ctx = account.ctx
    holder = lease.acquire(ctx, Ledger(MemoryStore(), "hello", "production"), "gc")
    ends = ctx.monotonic() + lease.LENGTH
    account.sandbox.faults.add(Fault(operation, FaultKind.HANG, times=None))
    before = len(account.sandbox.calls())
    with suppress(CloudError), holder.acting(ctx) as acting:
        acting.sleep((acting.remaining() or 0.0) - MARGIN)
        change(acting)
    asked = [call.operation for call in account.sandbox.calls(before)]
    assert operation in asked, "it was to be sent just in time"
    return ctx.monotonic() - ends


@pytest.mark.parametrize("operation", AWS)
def test_what_is_taken_away_on_aws_is_over_with_the_lease(operation: str) -> None:
    """Sent at the last moment, connected to at the last moment, and never answered."""
    account = AwsSandbox()
    assert overrun(account, operation, AWS[operation](account)) + CONNECT_TIMEOUT < 0


@pytest.mark.parametrize("operation", GOOGLE)
def test_what_is_taken_away_on_google_is_over_with_the_lease(operation: str) -> None:
    account = GcpSandbox()
    assert overrun(account, operation, GOOGLE[operation](account)) + google.CONNECT_TIMEOUT < 0
