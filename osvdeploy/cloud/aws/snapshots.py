"""Disks on AWS: EBS snapshots written block by block with the EBS direct APIs.

Sources: EBS direct APIs reference (StartSnapshot, PutSnapshotBlock, CompleteSnapshot, ListSnapshotBlocks,
GetSnapshotBlock, their errors and reasons) and the EBS user guide's "Use EBS direct APIs" (idempotency, quotas,
checksums).
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from osvdeploy.cloud.aws.errors import PERMISSION
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.interfaces import Block, BlockSink, Tags, UploadedDisk, UploadRequest
from osvdeploy.cloud.parallel import in_flight
from osvdeploy.cloud.tags import DIGEST, NAME, SCHEMA
from osvdeploy.context import Context
from osvdeploy.digests import Digest, Json, digest_of
from osvdeploy.errors import (
    CredentialsMissing,
    DeadlineExceeded,
    Interrupted,
    NotFound,
    OsvDeployError,
    Refused,
    Unavailable,
    UploadGone,
)
from osvdeploy.events import Waiting
from osvdeploy.retry import retrying, until_next_look
from osvdeploy.sizes import KIB

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, SnapshotTypeDef, TagTypeDef

BLOCK_SIZE = 512 * KIB

WIDTH = 64
"""Blocks in flight. Against a sink on loopback boto3 reaches its own limit, about 650 blocks a second (the interpreter
lock), with 8 at 5 ms of latency, 32 at 30 ms and 64 at 60 ms, and more in flight than needed cost no time."""

PAGE = 10_000
"""Blocks that one ListSnapshotBlocks tells of, its most."""

UPLOAD_TIMEOUT = 60
"""Minutes without a new block after which EBS gives an upload up (its default; 10 to 4,320). Part of the token."""

NOT_YET = 120.0
"""Seconds after its start for which an upload that is not found may just not be visible yet."""

PUT_PATIENCE = 180.0
"""Seconds for which one block is tried again: an account's throttle passes within them."""

SETTLING = 15.0
"""Seconds for a completion that was sent, and whose answer was lost, to show in the snapshot's state."""

LONGEST_WAIT = 1800.0
"""Seconds for a completed upload to become usable; usually some, after which another run may wait again."""


class EbsSnapshots:
    """:class:`~osvdeploy.cloud.interfaces.Snapshots` on EBS."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    @property
    def block_size(self) -> int:
        return BLOCK_SIZE

    def find(self, ctx: Context, name: str) -> UploadedDisk | None:
        found = self._list(ctx, {NAME: name}, state="completed")
        # Two only where two machines without each other's journal uploaded at once: then the same for everybody.
        return min(found, key=lambda disk: (str(disk.created), disk.id), default=None)

    def start(self, ctx: Context, request: UploadRequest) -> BlockSink:
        with self._aws.calling(ctx, f"disk {request.name}"):
            parent = {"ParentSnapshotId": request.parent.id} if request.parent is not None else {}
            started = self._aws.ebs.start_snapshot(
                VolumeSize=request.size_gib,
                Tags=tag_list({**request.tags, NAME: request.name, DIGEST: request.digest}),
                Description=f"{request.name}, OSv unikernel, {request.digest[:12]}",
                ClientToken=_token(request),
                Timeout=UPLOAD_TIMEOUT,
                **parent,  # type: ignore[arg-type]  # the stubs take no dict for a keyword
            )
        sink = _EbsSink(self._aws, started["SnapshotId"], request, started["StartTime"])
        try:
            # A token repeats its first answer, whatever has become of the snapshot since.
            sink.look(ctx)
        except (Interrupted, DeadlineExceeded, Unavailable, CredentialsMissing, UploadGone):
            raise
        except OsvDeployError:
            # The caller never learns of this upload, so nobody else can take it away.
            try:
                sink.abort(ctx)
            except OsvDeployError:
                pass  # the refusal is what has to be told; gc finds the rest by its tags
            raise
        return sink

    def read(self, ctx: Context, disk_id: str, indexes: Collection[int], got: Callable[[Block], None]) -> None:
        wanted = set(indexes)
        for tokens in self._tokens(ctx, disk_id, wanted):
            in_flight(ctx, tokens, partial(self._get, disk_id), got, width=WIDTH, name="ebs-get")

    def stored(self, ctx: Context, disk_id: str) -> int:
        count = sum(len(blocks) for blocks in self._pages(ctx, disk_id, 0))
        return count * BLOCK_SIZE

    def delete(self, ctx: Context, disk_id: str) -> None:
        delete(self._aws, ctx, disk_id)

    def owned(self, ctx: Context, tags: Tags) -> list[UploadedDisk]:
        return self._list(ctx, tags)

    def _tokens(self, ctx: Context, disk_id: str, wanted: set[int]) -> Iterator[list[tuple[int, str]]]:
        """Indexes and tokens of these blocks, a page at a time: a token is good for an hour."""
        if wanted:
            for blocks in self._pages(ctx, disk_id, min(wanted)):
                yield [block for block in blocks if block[0] in wanted]

    def _pages(self, ctx: Context, disk_id: str, start: int) -> Iterator[list[tuple[int, str]]]:
        """Index and token of each block from ``start`` on, by pages."""
        while True:
            with self._aws.calling(ctx, f"disk {disk_id}"):
                listed = self._aws.ebs.list_snapshot_blocks(
                    SnapshotId=disk_id, MaxResults=PAGE, StartingBlockIndex=start
                )
            blocks = [(block["BlockIndex"], block["BlockToken"]) for block in listed["Blocks"]]
            yield blocks
            if "NextToken" not in listed or not blocks:
                return
            start = blocks[-1][0] + 1

    def _get(self, disk_id: str, ctx: Context, block: tuple[int, str], stop: threading.Event) -> Block:
        """Read one block, in a thread of its own, again and again while that may help and ``stop`` is not set."""
        index, token = block

        def attempt() -> Block:
            with self._aws.calling(ctx, f"disk {disk_id}, block {index}", attempts=1):
                answer = self._aws.ebs.get_snapshot_block(SnapshotId=disk_id, BlockIndex=index, BlockToken=token)
                data = answer["BlockData"].read()
            digest = hashlib.sha256(data).digest()
            if base64.b64encode(digest).decode() != answer["Checksum"]:
                raise Unavailable(f"disk {disk_id}: block {index} came with another checksum than it was sent with")
            return Block(index, data, digest)

        return retrying(
            ctx,
            attempt,
            when=lambda error: isinstance(error, Unavailable) and not stop.is_set(),
            seconds=PUT_PATIENCE,
        )

    def _list(self, ctx: Context, tags: Tags, state: str | None = None) -> list[UploadedDisk]:
        filters = tag_filters(tags)
        if state is not None:
            filters.append({"Name": "status", "Values": [state]})
        with self._aws.calling(ctx, "disks"):
            pages = self._aws.ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters)
            return [disk_of(snapshot) for page in pages for snapshot in page["Snapshots"]]


class _EbsSink:
    """An open EBS upload."""

    def __init__(self, aws: Aws, snapshot: str, request: UploadRequest, started: datetime) -> None:
        self._aws = aws
        self._id = snapshot
        self._name = request.name
        self._seen = request.seen
        self._started = started
        self._finished: UploadedDisk | None = None

    @property
    def id(self) -> str:
        return self._id

    @property
    def finished(self) -> UploadedDisk | None:
        return self._finished

    def look(self, ctx: Context) -> str | None:
        """The snapshot's state, None where it is not visible yet. Raises UploadGone for one that failed or is gone."""
        try:
            with self._aws.calling(ctx, f"disk {self._name}"):
                [snapshot] = self._aws.ec2.describe_snapshots(SnapshotIds=[self._id])["Snapshots"]
        except (NotFound, ValueError) as error:
            if self._dead(ctx):
                raise UploadGone(f"disk {self._name}: the upload {self._id} was deleted") from error
            return None
        self._seen = True
        if snapshot["State"] == "error":
            # EBS leaves what failed or expired where it is, and nobody else would remove it.
            self.abort(ctx)
            why = snapshot.get("StateMessage") or "it failed or expired"
            raise UploadGone(f"disk {self._name}: the upload {self._id} is of no use any more: {why}")
        if snapshot["State"] == "completed":
            self._finished = disk_of(snapshot)
        return snapshot["State"]

    def put(self, ctx: Context, blocks: Iterable[Block], stored: Callable[[int], None]) -> None:
        try:
            in_flight(ctx, blocks, self._put, stored, width=WIDTH, name="ebs-put")
        except Refused as error:
            self._unless_completed(ctx, error)

    def complete(self, ctx: Context, count: int, checksum: bytes) -> UploadedDisk:
        try:
            if self._finished is None:
                with self._aws.calling(ctx, f"disk {self._name}"):
                    self._aws.ebs.complete_snapshot(
                        SnapshotId=self._id,
                        ChangedBlocksCount=count,
                        Checksum=base64.b64encode(checksum).decode(),
                        ChecksumAlgorithm="SHA256",
                        ChecksumAggregationMethod="LINEAR",
                    )
        except NotFound as error:
            raise self._gone() from error
        except Refused as error:
            self._unless_completed(ctx, error)
        return self._await(ctx)

    def abort(self, ctx: Context) -> None:
        delete(self._aws, ctx, self._id)

    # ------------------------------------------------------------------------------------------------------------

    def _put(self, ctx: Context, block: Block, stop: threading.Event) -> int:
        """Put one block, in a thread of its own, again and again while that may help and ``stop`` is not set."""

        def attempt() -> None:
            with self._aws.calling(ctx, f"disk {self._name}, block {block.index}", attempts=1):
                self._aws.ebs.put_snapshot_block(
                    SnapshotId=self._id,
                    BlockIndex=block.index,
                    BlockData=block.data,
                    DataLength=len(block.data),
                    Checksum=base64.b64encode(block.sha256).decode(),
                    ChecksumAlgorithm="SHA256",
                )

        def passing(error: BaseException) -> bool:
            if stop.is_set():
                return False
            return isinstance(error, Unavailable) or (isinstance(error, NotFound) and not self._dead(ctx))

        try:
            retrying(ctx, attempt, when=passing, seconds=PUT_PATIENCE)
        except NotFound as error:
            raise self._gone() from error
        return block.index

    def _await(self, ctx: Context) -> UploadedDisk:
        """Wait until the snapshot is usable: that is seen within a second."""
        began = ctx.monotonic()
        while self._finished is None:
            if ctx.monotonic() - began > LONGEST_WAIT:
                raise Unavailable(
                    f"disk {self._name}: {self._id} is still not completed",
                    hint="run the same command again: it goes on",
                )
            ctx.sleep(until_next_look(ctx.monotonic() - began))
            state = self.look(ctx)
            if self._finished is None:
                ctx.report(Waiting(f"disk {self._name}", f"{self._id} is {state or 'not visible yet'}"))
        return self._finished

    def _unless_completed(self, ctx: Context, error: Refused) -> None:
        """Raise a refusal again, unless the snapshot turns out to be completed: by a run whose answer was lost, or by
        another process. EBS has one code for that and for what is really wrong, and completing takes it a moment."""
        began = ctx.monotonic()
        while error.code not in PERMISSION and self.look(ctx) == "pending" and ctx.monotonic() - began < SETTLING:
            ctx.sleep(1.0)
        if self._finished is None:
            raise error

    def _dead(self, ctx: Context) -> bool:
        """Whether "not found" means gone: it was found before, or its start is long enough ago."""
        return self._seen or (ctx.now() - self._started).total_seconds() >= NOT_YET

    def _gone(self) -> UploadGone:
        return UploadGone(f"disk {self._name}: the upload {self._id} expired or was deleted")


def delete(aws: Aws, ctx: Context, snapshot: str) -> None:
    """Delete a snapshot in whatever state. Succeeds when it is gone."""
    try:
        with aws.calling(ctx, f"disk {snapshot}"):
            aws.ec2.delete_snapshot(SnapshotId=snapshot)
    except NotFound:
        pass


def tag_list(tags: Mapping[str, str]) -> list[TagTypeDef]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def tag_dict(tags: Sequence[TagTypeDef]) -> dict[str, str]:
    return {tag.get("Key", ""): tag.get("Value", "") for tag in tags}


def tag_filters(tags: Tags) -> list[FilterTypeDef]:
    """Filters that find what is ours and carries these tags."""
    filters: list[FilterTypeDef] = [{"Name": "tag-key", "Values": [SCHEMA]}]
    for key, value in sorted(tags.items()):
        filters.append({"Name": f"tag:{key}", "Values": [_literal(value)]})
    return filters


def _literal(value: str) -> str:
    r"""A filter's value that means itself: to EC2 ``*`` and ``?`` are wildcards, and ``\`` takes that away."""
    return "".join(f"\\{char}" if char in "*?\\" else char for char in value)


def _token(request: UploadRequest) -> str:
    """At most 64 ASCII characters: the same for the same request and attempt, from whichever process."""
    facts: dict[str, Json] = {
        "name": request.name,
        "digest": request.digest,
        "size": request.size_gib,
        "parent": request.parent.id if request.parent is not None else None,
        "attempt": request.attempt,
        # The same token with another parameter is a conflict, so every parameter is in it.
        "tags": dict(request.tags),
        "timeout": UPLOAD_TIMEOUT,
    }
    return digest_of(facts)


def disk_of(snapshot: SnapshotTypeDef) -> UploadedDisk:
    tags = tag_dict(snapshot.get("Tags", []))
    return UploadedDisk(
        id=snapshot["SnapshotId"],
        name=tags.get(NAME, ""),
        digest=Digest(tags.get(DIGEST, "")),
        size_gib=snapshot["VolumeSize"],
        tags=tags,
        created=snapshot.get("StartTime"),
    )
