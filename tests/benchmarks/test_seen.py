"""From the end of what a cloud does by itself to the call that tells us of it, in virtual time: at most a second.

Delays differ from round to round, so that they end anywhere between two looks.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from statistics import fmean

from osvdeploy.cloud import aws
from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.context import Clock
from osvdeploy.events import Recorder, StageEntered
from osvdeploy.osv.image import RawImage
from osvdeploy.publish.archiving import publish_archived
from osvdeploy.publish.importing import ThroughStore
from osvdeploy.publish.journal import Journal
from osvdeploy.publish.publisher import publish_image
from osvdeploy.sandbox.core import Moment, Sandbox
from osvdeploy.sandbox.store import DueEvent
from osvdeploy.sandbox.wire import Call
from osvdeploy.sizes import KIB
from tests.aws_world import AwsWorld
from tests.contract.aws_place import AwsSandbox
from tests.contract.gcp_place import GcpSandbox
from tests.gcp_world import GcpWorld
from tests.publish.disk import raw_disk
from tests.publish.test_archiving import gcp_place

SPEEDS = [0.83 + number / 29 for number in range(5)]
LIMIT = 1.0

TOLD_BY = {
    "ebs.completed": "DescribeSnapshots",
    "ec2.registered": "DescribeImages",
    "ec2.import-converted": "DescribeImportSnapshotTasks",
    "compute.archive-read": "images.get",
    "compute.operation-ends": "globalOperations.wait",
    "elbv2.check": "DescribeTargetHealth",
    "compute.check-round": "backendServices.getHealth",
}
"""What ends, as the sandbox calls it, and the call that tells of it."""

CHECKS = ("elbv2.check", "compute.check-round")

WAITERS = {
    "ebs.completed": "snapshot_completed",
    "ec2.registered": "image_available",
    "ec2.import-converted": "snapshot_imported",
}
"""boto3's own."""


class Seen:
    """How late it was seen, and in how many calls. Of health checks those count in a rollout's boot."""

    def __init__(self) -> None:
        self.late: dict[str, list[float]] = {event: [] for event in TOLD_BY}
        self.calls = dict.fromkeys(TOLD_BY, 0)

    def watch(self, sandbox: Sandbox, clock: Clock, recorder: Recorder | None = None) -> None:
        ended: dict[str, datetime] = {}
        first_due = sandbox.store.first_due

        def counts(event: str) -> bool:
            stages = [each.stage for each in recorder.events if isinstance(each, StageEntered)] if recorder else []
            return event not in CHECKS or stages[-1:] == ["boot"]

        def watched(until: datetime) -> DueEvent | None:
            found = first_due(until)
            if found is not None and found.event in TOLD_BY and counts(found.event):
                ended[found.event] = found.at
            return found

        def asked(moment: Moment, call: Call) -> None:
            for event, operation in TOLD_BY.items():
                if moment is Moment.BEFORE and call.operation.endswith(operation) and counts(event):
                    self.calls[event] += 1
                    if event in ended:
                        self.late[event].append((clock.now() - ended.pop(event)).total_seconds())

        sandbox.store.first_due = watched  # type: ignore[method-assign]
        sandbox.hook = asked


def test_what_a_cloud_has_done_is_seen_soon(tmp_path: Path) -> None:
    """Disks, images and imports of EC2, images and operations of Google, health at both balancers (goal: 1 s)."""
    seen = Seen()
    for number, speed in enumerate(SPEEDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        raw = raw_disk(folder / "disk.raw", blocks=3, block=512 * KIB)
        publish_to_aws(raw, speed, seen, by_s3=False)
        publish_to_aws(raw, speed, seen, by_s3=True)
        publish_to_google(raw, speed, seen)
        for kind in (AwsWorld, GcpWorld):
            (folder / kind.__name__).mkdir()
            deploy(kind(folder / kind.__name__), speed, seen)
    client = AwsSandbox().client("ec2")
    print()
    for event, late in seen.late.items():
        assert late, event
        told = f"seen after {fmean(late):4.2f} s, {max(late):4.2f} s at most: {max(late) / LIMIT:4.2f} x the limit"
        waiter = WAITERS.get(event)
        peer = "" if waiter is None else f"; boto3's waiter asks each {client.get_waiter(waiter).config.delay} s"
        print(f"{event:22} {told}; {seen.calls[event] / len(SPEEDS):3.0f} calls{peer}")


def publish_to_aws(raw: RawImage, speed: float, seen: Seen, *, by_s3: bool) -> None:
    account = AwsSandbox(speed=speed)
    account.set_up_imports("acme-images")
    cloud = aws.ports(account.ctx, account.aws())
    assert cloud.imports is not None
    seen.watch(account.sandbox, account.clock)
    publish_image(
        account.ctx,
        raw,
        app="orders",
        version="1.0.0",
        tags={},
        cloud=cloud,
        journal=Journal(raw.path.parent / f"journal-{by_s3}"),
        through=ThroughStore(S3Store("s3://acme-images/x", account.aws()), cloud.imports) if by_s3 else None,
    )


def publish_to_google(raw: RawImage, speed: float, seen: Seen) -> None:
    account = GcpSandbox(speed=speed)
    seen.watch(account.sandbox, account.clock)
    publish_archived(
        account.ctx, raw, app="orders", version="1.0.0", tags={}, place=gcp_place(account), family="orders"
    )


def deploy(world: AwsWorld | GcpWorld, speed: float, seen: Seen) -> None:
    world.sandbox.speed = speed
    seen.watch(world.sandbox, world.clock, world.recorder)
    assert world.deploy(world.build("1.0.0")).exit_code == 0
