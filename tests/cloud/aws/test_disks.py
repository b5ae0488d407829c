"""EBS uploads and AMIs where AWS lags, throttles, loses or fails what it was given."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from osvdeploy.cloud.aws.images import AmiRegistry
from osvdeploy.cloud.aws.snapshots import BLOCK_SIZE, WIDTH, EbsSnapshots, tag_filters
from osvdeploy.cloud.interfaces import Block, ImageRequest, UploadedDisk, UploadRequest
from osvdeploy.context import Context, VirtualClock
from osvdeploy.digests import Digest
from osvdeploy.errors import ImageNameTaken, Interrupted, NotOurs, Refused, Unavailable, UploadGone
from tests.cloud.aws.script import No, Script, images, snapshots, started

GONE = No("ResourceNotFoundException", 404, "SNAPSHOT_NOT_FOUND")
UNKNOWN = No("InvalidSnapshot.NotFound")
DIGEST = Digest("d" * 64)
REQUEST = UploadRequest("orders-1.0.0", DIGEST, 1, {"osvdeploy": "1"})
DATA = bytes(BLOCK_SIZE)
BLOCK = Block(0, DATA, hashlib.sha256(DATA).digest())
IMAGE = ImageRequest("orders-1.0.0", DIGEST, UploadedDisk("snap-1", "orders-1.0.0", DIGEST, 1), {"osvdeploy": "1"})


@pytest.fixture
def ctx() -> Context:
    return Context(clock=VirtualClock())


def put(ctx: Context, script: Script) -> list[int]:
    told: list[int] = []
    EbsSnapshots(script.aws()).start(ctx, REQUEST).put(ctx, [BLOCK], told.append)
    return told


@pytest.mark.parametrize(
    "passing",
    [
        No("RequestThrottledException", 400, "ACCOUNT_THROTTLED"),
        No("ThrottlingException"),
        No("InternalServerException", 500),
        No("ValidationException", 400, "WRITE_REQUEST_TIMEOUT"),
        No("ValidationException", 400, "CONFLICTING_BLOCK_UPDATE"),
        No("ValidationException", 400, "INVALID_PARAMETER_VALUE", "Failed to read block data"),
        GONE,
    ],
    ids=lambda no: f"{no.code} {no.reason}",
)
def test_a_block_is_put_again_while_that_helps(ctx: Context, passing: No) -> None:
    """Throttles, the server's own faults, and an upload that is not visible yet are waited out, block by block."""
    script = Script(
        {
            "StartSnapshot": [started(ctx.now())],
            "DescribeSnapshots": [UNKNOWN],
            "PutSnapshotBlock": [passing, passing, passing, passing, {}],
        }
    )
    assert put(ctx, script) == [0]
    assert script.asked.count("PutSnapshotBlock") == 5


@pytest.mark.parametrize("final", [No("AccessDeniedException", 403), No("ConflictException", 409)])
def test_a_final_no_is_asked_for_once(ctx: Context, final: No) -> None:
    """What repeating does not help with is not repeated."""
    script = Script(
        {
            "StartSnapshot": [started(ctx.now())],
            "DescribeSnapshots": [snapshots("pending", ctx.now())],
            "PutSnapshotBlock": [final],
        }
    )
    with pytest.raises(Refused):
        put(ctx, script)
    assert script.asked.count("PutSnapshotBlock") == 1


def many(count: int) -> Iterator[Block]:
    for index in range(count):
        yield Block(index, DATA, BLOCK.sha256)


def test_blocks_are_told_in_the_callers_thread(ctx: Context) -> None:
    """Callers need no locks: blocks are taken and told in the thread that called, and each is told once."""
    script = Script(
        {
            "StartSnapshot": [started(ctx.now())],
            "DescribeSnapshots": [snapshots("pending", ctx.now())],
            "PutSnapshotBlock": [{}],
        }
    )
    told: list[tuple[int, int]] = []
    sink = EbsSnapshots(script.aws()).start(ctx, REQUEST)
    sink.put(ctx, many(3 * WIDTH), lambda index: told.append((index, threading.get_ident())))
    assert sorted(index for index, _ in told) == list(range(3 * WIDTH))
    assert {thread for _, thread in told} == {threading.get_ident()}


def test_a_refusal_stops_the_upload(ctx: Context) -> None:
    """After a refusal no further block is taken; those in flight are waited for, and told when they arrived."""
    script = Script(
        {
            "StartSnapshot": [started(ctx.now())],
            "DescribeSnapshots": [snapshots("pending", ctx.now())],
            "PutSnapshotBlock": [{}, No("AccessDeniedException", 403), {}],
        }
    )
    told: list[int] = []
    sink = EbsSnapshots(script.aws()).start(ctx, REQUEST)
    with pytest.raises(Refused):
        sink.put(ctx, many(10 * WIDTH), told.append)
    asked = script.asked.count("PutSnapshotBlock")
    assert asked < 10 * WIDTH
    assert len(told) == asked - 1


def test_a_cancel_stops_the_upload(ctx: Context) -> None:
    """Ctrl-C lets what is in flight arrive, tells of it, and takes no further block."""
    script = Script(
        {
            "StartSnapshot": [started(ctx.now())],
            "DescribeSnapshots": [snapshots("pending", ctx.now())],
            "PutSnapshotBlock": [{}],
        }
    )
    told: list[int] = []

    def cancel(index: int) -> None:
        told.append(index)
        ctx.cancel.cancel()

    sink = EbsSnapshots(script.aws()).start(ctx, REQUEST)
    with pytest.raises(Interrupted):
        sink.put(ctx, many(10 * WIDTH), cancel)
    assert len(told) == script.asked.count("PutSnapshotBlock") < 10 * WIDTH


def test_not_found_means_gone_after_two_minutes(ctx: Context) -> None:
    """An upload that stays invisible is given up, and no sooner."""
    script = Script({"StartSnapshot": [started(ctx.now())], "DescribeSnapshots": [UNKNOWN], "PutSnapshotBlock": [GONE]})
    with pytest.raises(UploadGone):
        put(ctx, script)
    assert ctx.monotonic() >= 120


def test_an_old_upload_that_is_not_found_is_gone_at_once(ctx: Context) -> None:
    """The token's first answer names an upload of long ago: nothing is waited for."""
    script = Script({"StartSnapshot": [started(ctx.now() - timedelta(hours=2))], "DescribeSnapshots": [UNKNOWN]})
    with pytest.raises(UploadGone):
        EbsSnapshots(script.aws()).start(ctx, REQUEST)
    assert ctx.monotonic() == 0


def test_an_upload_seen_before_is_gone_at_once(ctx: Context) -> None:
    """What the journal saw, and is not there, needs no patience."""
    seen = UploadRequest(REQUEST.name, REQUEST.digest, 1, REQUEST.tags, seen=True)
    script = Script({"StartSnapshot": [started(ctx.now())], "DescribeSnapshots": [UNKNOWN]})
    with pytest.raises(UploadGone):
        EbsSnapshots(script.aws()).start(ctx, seen)


def test_an_expired_upload_is_removed(ctx: Context) -> None:
    """EBS leaves an expired upload in state error; nobody else would take it away."""
    script = Script(
        {
            "StartSnapshot": [started(ctx.now())],
            "DescribeSnapshots": [snapshots("error", ctx.now(), StateMessage="timed out")],
            "DeleteSnapshot": [{}],
        }
    )
    with pytest.raises(UploadGone, match="timed out"):
        EbsSnapshots(script.aws()).start(ctx, REQUEST)
    assert script.asked[-1] == "DeleteSnapshot"


def test_an_upload_that_cannot_be_looked_at_is_removed(ctx: Context) -> None:
    """Where describing is not allowed, the upload just started is taken back: the caller never learns of it."""
    script = Script(
        {
            "StartSnapshot": [started(ctx.now())],
            "DescribeSnapshots": [No("UnauthorizedOperation", 403)],
            "DeleteSnapshot": [{}],
        }
    )
    with pytest.raises(Refused, match="UnauthorizedOperation"):
        EbsSnapshots(script.aws()).start(ctx, REQUEST)
    assert script.asked == ["StartSnapshot", "DescribeSnapshots", "DeleteSnapshot"]


def test_completed_by_somebody_else(ctx: Context) -> None:
    """A block that is refused since the upload was completed meanwhile is no error: the disk is there."""
    script = Script(
        {
            "StartSnapshot": [started(ctx.now())],
            "DescribeSnapshots": [snapshots("pending", ctx.now())] * 2 + [snapshots("completed", ctx.now())],
            "PutSnapshotBlock": [No("ValidationException", 400, "INVALID_SNAPSHOT_ID")],
        }
    )
    sink = EbsSnapshots(script.aws()).start(ctx, REQUEST)
    sink.put(ctx, [BLOCK], lambda index: None)
    assert sink.finished is not None
    assert sink.complete(ctx, 1, b"").id == "snap-1"
    assert "CompleteSnapshot" not in script.asked


def test_a_wait_ends_with_the_snapshots_error(ctx: Context) -> None:
    """A snapshot that fails after it was completed is no disk, and the next attempt may start anew."""
    script = Script(
        {
            "StartSnapshot": [started(ctx.now())],
            "DescribeSnapshots": [snapshots("pending", ctx.now())] * 4 + [snapshots("error", ctx.now())],
            "CompleteSnapshot": [{"Status": "pending"}],
            "DeleteSnapshot": [{}],
        }
    )
    with pytest.raises(UploadGone):
        EbsSnapshots(script.aws()).start(ctx, REQUEST).complete(ctx, 0, b"")


def test_a_wait_that_never_ends(ctx: Context) -> None:
    """A snapshot that stays pending is kept, and the next run waits again."""
    script = Script(
        {
            "StartSnapshot": [started(ctx.now())],
            "DescribeSnapshots": [snapshots("pending", ctx.now())],
            "CompleteSnapshot": [{"Status": "pending"}],
        }
    )
    with pytest.raises(Unavailable, match="still not completed"):
        EbsSnapshots(script.aws()).start(ctx, REQUEST).complete(ctx, 0, b"")
    assert "DeleteSnapshot" not in script.asked


def test_the_token_is_the_request() -> None:
    """Equal requests have equal tokens, whatever was seen of them; any other part makes another one."""
    from osvdeploy.cloud.aws.snapshots import _token

    parent = UploadedDisk("snap-2", "orders-0.9.0", DIGEST, 1)
    requests = [
        REQUEST,
        UploadRequest("orders-1.0.1", DIGEST, 1, REQUEST.tags),
        UploadRequest("orders-1.0.0", Digest("e" * 64), 1, REQUEST.tags),
        UploadRequest("orders-1.0.0", DIGEST, 2, REQUEST.tags),
        UploadRequest("orders-1.0.0", DIGEST, 1, {"osvdeploy": "2"}),
        UploadRequest("orders-1.0.0", DIGEST, 1, REQUEST.tags, parent),
        UploadRequest("orders-1.0.0", DIGEST, 1, REQUEST.tags, attempt=1),
    ]
    tokens = [_token(request) for request in requests]
    assert len(set(tokens)) == len(tokens)
    assert _token(UploadRequest("orders-1.0.0", DIGEST, 1, dict(REQUEST.tags), seen=True)) == tokens[0]
    assert all(len(token) <= 64 and token.isascii() for token in tokens)


def test_a_tag_is_meant_literally() -> None:
    """``*`` and ``?`` in a tag's value find that value, not everything."""
    assert tag_filters({"team": "a*b?"})[-1] == {"Name": "tag:team", "Values": ["a\\*b\\?"]}


# ---------------------------------------------------------------------------------------------------------- images


def test_an_image_is_waited_for(ctx: Context) -> None:
    """Not visible, then pending, then available: that is how an AMI comes up."""
    script = Script(
        {
            "RegisterImage": [{"ImageId": "ami-1"}],
            "DescribeImages": [No("InvalidAMIID.NotFound"), images("pending"), images("available")],
        }
    )
    image = AmiRegistry(script.aws()).register(ctx, IMAGE)
    assert (image.id, image.disk, image.digest) == ("ami-1", "snap-1", DIGEST)
    assert ctx.monotonic() > 0


def test_a_failed_image_is_taken_away(ctx: Context) -> None:
    """An AMI that can never be used would hold the name for ever."""
    script = Script(
        {
            "RegisterImage": [{"ImageId": "ami-1"}],
            "DescribeImages": [images("failed", StateReason={"Message": "broken snapshot"})],
            "DeregisterImage": [{}],
        }
    )
    with pytest.raises(Refused, match="broken snapshot"):
        AmiRegistry(script.aws()).register(ctx, IMAGE)
    assert script.asked[-1] == "DeregisterImage"


def test_a_lost_answer_is_found_by_name(ctx: Context) -> None:
    """The name is taken, by our own registration whose answer was lost, though it is not visible yet."""
    script = Script(
        {
            "RegisterImage": [No("InvalidAMIName.Duplicate")],
            "DescribeImages": [{"Images": []}, {"Images": []}, images("available")],
        }
    )
    assert AmiRegistry(script.aws()).register(ctx, IMAGE).id == "ami-1"


def test_a_name_that_somebody_has(ctx: Context) -> None:
    """Taken with other bytes, or by something that is not ours, is said to be that."""
    other = images(
        "available", Tags=[{"Key": "osvdeploy", "Value": "1"}, {"Key": "osvdeploy:digest", "Value": "other"}]
    )
    for held, error in ((other, ImageNameTaken), (images("available", Tags=[]), NotOurs)):
        script = Script({"RegisterImage": [No("InvalidAMIName.Duplicate")], "DescribeImages": [held]})
        with pytest.raises(error):
            AmiRegistry(script.aws()).register(ctx, IMAGE)


@pytest.mark.parametrize("name", ["ab", "orders-1.0.0+build", "ørders-1.0.0", "o" * 129, "orders*"])
def test_a_name_no_ami_can_have(ctx: Context, name: str) -> None:
    """The rules of names are checked before anything is asked."""
    script = Script({})
    with pytest.raises(Refused, match="cannot be the name"):
        AmiRegistry(script.aws()).find(ctx, name)
    assert script.asked == []
