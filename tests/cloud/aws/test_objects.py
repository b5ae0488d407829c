"""The S3 store where S3 is its own: lost answers, conflicts, regions, permissions, and what a resumed upload sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from osvdeploy.cloud.aws import objects
from osvdeploy.cloud.aws.multipart import LABEL_PART, part_size
from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.context import Context
from osvdeploy.errors import CredentialsMissing, Interrupted, NotSimulated, Refused, Unready, UsageError
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.wire import Call
from osvdeploy.sizes import MIB
from tests.cloud.aws.script import No, Script
from tests.contract.aws_place import REGION, AwsSandbox
from tests.sources import Made, stopping

pytestmark = pytest.mark.sandbox

LARGE = 22 * MIB
"""Five parts, the last of 2 MiB."""


class World:
    """A bucket in the sandbox, in virtual time, and stores on it."""

    def __init__(self) -> None:
        self.account = AwsSandbox()
        self.ctx = self.account.ctx
        self.faults = self.account.sandbox.faults
        self.account.client("s3").create_bucket(Bucket="acme", CreateBucketConfiguration={"LocationConstraint": REGION})
        self.store = self.connect()

    def connect(self, address: str = "s3://acme/releases") -> S3Store:
        return S3Store(address, self.account.aws())

    def calls(self, since: int = 0) -> list[str]:
        return [call.operation for call in self.account.sandbox.calls(since)]

    @property
    def mark(self) -> int:
        return len(self.account.sandbox.calls())

    def parts(self, since: int) -> int:
        """How many parts went up, without the label."""
        return self.calls(since).count("UploadPart") - self.calls(since).count("CreateMultipartUpload")


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("kind", [FaultKind.AFTER, FaultKind.HANG_AFTER])
def test_a_put_whose_answer_was_lost_is_recognized(world: World, kind: FaultKind) -> None:
    """The repetition meets its own object, and is told so; whoever comes later with the same bytes did not put it."""
    world.faults.add(Fault("PutObject", kind))
    assert world.store.put_if_absent(world.ctx, "a", b"same")
    assert not world.connect().put_if_absent(world.ctx, "a", b"same")


def test_a_put_that_never_arrived_does_not_win(world: World) -> None:
    """Where another's object came between two attempts, ours is told that it lost."""
    lost = threading.Event()

    def hook(moment: Moment, call: Call) -> None:
        if call.operation == "PutObject" and moment is Moment.BEFORE and not lost.is_set():
            lost.set()
            assert world.connect().put_if_absent(world.ctx, "a", b"same")
            raise ClientError({"Error": {"Code": "SlowDown", "Message": "slow down"}}, call.operation)

    world.account.sandbox.hook = hook
    assert not world.store.put_if_absent(world.ctx, "a", b"same")


def test_a_conflict_is_tried_again(world: World) -> None:
    """409 says that S3 could not order two writers: the next attempt is answered."""
    answered: list[str] = []

    def hook(moment: Moment, call: Call) -> None:
        if call.operation == "PutObject" and moment is Moment.BEFORE and len(answered) < 5:
            answered.append("409")
            raise ClientError({"Error": {"Code": "ConditionalRequestConflict", "Message": "conflict"}}, call.operation)

    world.account.sandbox.hook = hook
    assert world.store.put_if_absent(world.ctx, "a", b"")
    assert len(answered) == 5


def test_a_completion_that_meets_another_begins_again_or_agrees(world: World) -> None:
    """S3 asks for a new upload after a conflict: what is left over goes, and the object is whole."""
    answered: list[str] = []

    def hook(moment: Moment, call: Call) -> None:
        if call.operation == "CompleteMultipartUpload" and moment is Moment.BEFORE and len(answered) < 3:
            answered.append("409")
            raise ClientError({"Error": {"Code": "ConditionalRequestConflict", "Message": "conflict"}}, call.operation)

    world.account.sandbox.hook = hook
    world.store.put_file(world.ctx, "a", Made("a", LARGE))
    assert world.calls().count("CreateMultipartUpload") == 2
    assert world.store.unfinished(world.ctx, "") == []


@pytest.mark.parametrize("sent", [1, 2, 3])
def test_the_next_run_sends_only_what_is_missing(world: World, sent: int) -> None:
    """From another process, with nothing remembered but by S3: the parts that are there are not sent again."""
    # The part before the one where it stops is complete, and may go out.
    with pytest.raises(Interrupted):
        world.store.put_file(world.ctx, "a", Made("a", LARGE, piece=MIB, before=stopping((sent + 1) * 5 * MIB)))
    first, mark = world.parts(0), world.mark
    assert first >= sent

    made = world.connect().put_file(world.ctx, "a", Made("a", LARGE, piece=333_333))

    assert world.parts(mark) == 5 - first
    assert "CreateMultipartUpload" not in world.calls(mark)
    assert made.size == LARGE
    assert world.store.get(world.ctx, "a") == Made("a", LARGE).content


def test_a_part_that_is_not_the_source_s_is_sent_again(world: World) -> None:
    """What stands in an upload is believed by its checksum alone."""
    with pytest.raises(Interrupted):
        world.store.put_file(world.ctx, "a", Made("a", LARGE, piece=MIB, before=stopping(LARGE - MIB)))
    [left] = world.store.unfinished(world.ctx, "a")
    s3 = world.account.client("s3")
    s3.upload_part(
        Bucket="acme", Key="releases/a", UploadId=left.id, PartNumber=1, Body=bytes(5 * MIB), ChecksumAlgorithm="SHA256"
    )
    world.connect().put_file(world.ctx, "a", Made("a", LARGE))
    assert world.store.get(world.ctx, "a") == Made("a", LARGE).content


@pytest.mark.parametrize("kind", [FaultKind.BEFORE, FaultKind.AFTER, FaultKind.THROTTLED, FaultKind.HANG])
@pytest.mark.parametrize(
    "operation",
    ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "ListMultipartUploads", "HeadObject"],
)
def test_a_call_that_goes_wrong_once_is_survived(world: World, operation: str, kind: FaultKind) -> None:
    """Lost on the way there or back, throttled or left hanging: the object is whole, and at most an empty upload is
    left for gc."""
    world.faults.add(Fault(operation, kind))
    made = world.store.put_file(world.ctx, "a", Made("a", 11 * MIB))
    assert world.store.get(world.ctx, "a") == Made("a", 11 * MIB).content
    assert made.digest == Made("a", 11 * MIB).digest
    assert len(world.store.unfinished(world.ctx, "")) <= (operation == "CreateMultipartUpload")


def test_an_upload_that_is_taken_away_begins_again(world: World) -> None:
    """Somebody's clean-up costs time, and nothing else."""
    gone: list[str] = []

    def steal(at: int) -> None:
        if at > 15 * MIB and not gone:
            for left in world.connect().unfinished(world.ctx, ""):
                world.connect().abort(world.ctx, left)
                gone.append(left.id)

    world.store.put_file(world.ctx, "a", Made("a", LARGE, before=steal))
    assert gone
    assert world.store.get(world.ctx, "a") == Made("a", LARGE).content


def test_a_refusal_takes_the_upload_away(world: World) -> None:
    """Nothing is left where nothing more may be put."""
    world.faults.add(Fault("UploadPart", FaultKind.DENIED, skip=2, times=None))
    with pytest.raises(Refused, match="Access Denied") as raised:
        world.store.put_file(world.ctx, "a", Made("a", LARGE))
    assert "allow s3:PutObject on arn:aws:s3:::acme/releases/*" in str(raised.value.hint)
    assert world.store.unfinished(world.ctx, "") == []


@pytest.mark.parametrize("size", [100, LARGE])
def test_an_object_is_as_old_as_s3_says(world: World, size: int) -> None:
    """By S3's clock, not by this machine's: gc goes by it."""
    world.store.find(world.ctx, "a")
    world.ctx.sleep(3600)
    made = world.store.put_file(Context(), "a", Made("a", size))
    assert made.created == world.ctx.now().replace(microsecond=0)
    assert made == world.store.find(world.ctx, "a")


def test_a_small_file_takes_one_put(world: World) -> None:
    """What fits into one part is no upload in parts."""
    world.store.find(world.ctx, "a")
    mark = world.mark
    world.store.put_file(world.ctx, "a", Made("a", 5 * MIB))
    assert sorted(world.calls(mark)) == ["HeadObject", "ListMultipartUploads", "PutObject"]


def test_parts_are_large_enough_and_hold_what_a_disk_may_have() -> None:
    """S3's least size for each, and room for terabytes in fewer parts than S3 takes."""
    assert part_size(1) == part_size(1000) == 5 * MIB
    assert part_size(1001) == 10 * MIB
    assert sum(part_size(number) for number in range(1, LABEL_PART)) > 4 << 40
    assert max(part_size(number) for number in range(1, LABEL_PART)) <= 5 << 30


# ------------------------------------------------------------------------------------------------------ the bucket


def test_the_bucket_s_region_is_found(world: World) -> None:
    """Whatever region the SDK's settings name: one call more, once."""
    s3 = world.account.client("s3", "us-west-2")
    s3.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    store = world.connect("s3://far-away")
    mark = world.mark
    assert store.put_if_absent(world.ctx, "a", b"1")
    assert store.get(world.ctx, "a") == b"1"
    assert world.calls(mark).count("HeadBucket") <= 3
    assert {call.region for call in world.account.sandbox.calls(mark) if call.operation == "PutObject"} == {"us-west-2"}


def test_a_bucket_that_is_not_there_is_named() -> None:
    """With what makes it."""
    world = World()
    with pytest.raises(Unready, match="there is no bucket nowhere") as raised:
        world.connect("s3://nowhere/x").get(world.ctx, "a")
    assert "aws s3 mb s3://nowhere" in str(raised.value.hint)


def test_a_missing_permission_names_the_action(world: World) -> None:
    """Also where S3 answers a HEAD, and its refusal has no words."""
    world.store.find(world.ctx, "a")
    for operation, ask, action in (
        ("HeadObject", lambda: world.store.find(world.ctx, "a"), "s3:GetObject on arn:aws:s3:::acme/releases/*"),
        ("ListObjectsV2", lambda: list(world.store.keys(world.ctx, "a")), "s3:ListBucket on arn:aws:s3:::acme"),
        ("DeleteObject", lambda: world.store.delete(world.ctx, "a"), "s3:DeleteObject on arn:aws:s3:::acme/releases/*"),
        ("PutObject", lambda: world.store.refuse_unwritable(world.ctx, "a"), "s3:PutObject on arn:aws:s3:::acme/rel"),
    ):
        world.faults.add(Fault(operation, FaultKind.DENIED))
        with pytest.raises(Refused, match=r"s3://acme/releases") as raised:
            ask()
        assert f"allow {action}" in str(raised.value.hint)


def test_a_forbidden_look_at_the_bucket_is_asked_otherwise(world: World) -> None:
    """A HEAD refused without a region: the question that has an answer is asked, and its answer is told."""
    world.faults.add(Fault("HeadBucket", FaultKind.DENIED, times=None))
    assert world.connect().put_if_absent(world.ctx, "a", b"")
    world.faults.add(Fault("GetBucketLocation", FaultKind.DENIED))
    with pytest.raises(Refused, match="s3://acme/releases: AWS refused GetBucketLocation: Access Denied"):
        world.connect().get(world.ctx, "a")


def test_credentials_that_s3_does_not_know_are_told(world: World) -> None:
    """The HEAD that finds the region has no words for it, so another call is made that has."""
    world.account.sandbox.access_key = "AKIAOTHER"
    with pytest.raises(CredentialsMissing, match="InvalidAccessKeyId"):
        world.connect().get(world.ctx, "a")


def test_what_the_sandbox_does_not_simulate_is_no_refusal_of_s3() -> None:
    """It comes out as what it is."""
    script = Script({"HeadBucket": [{"BucketRegion": "eu-west-1"}], "GetObject": [No("NotSimulated", 400)]})
    with pytest.raises(NotSimulated):
        S3Store("s3://acme", script.aws()).get(Context(), "a")


def test_a_directory_bucket_is_refused() -> None:
    """Before anything is asked: its keys come in no order."""
    with pytest.raises(UsageError, match="directory bucket"):
        S3Store("s3://acme--x-s3/a")


def test_more_keys_than_a_page_are_listed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, and no page is asked for that nobody reads."""
    monkeypatch.setattr(objects, "PAGE", 3)
    for number in range(8):
        world.store.put_if_absent(world.ctx, f"{number}", b"")
    mark = world.mark
    keys: Iterator[str] = world.store.keys(world.ctx, "")
    assert next(keys) == "0"
    assert world.calls(mark) == ["ListObjectsV2"]
    assert list(keys) == [f"{number}" for number in range(1, 8)]
    assert list(world.store.keys(world.ctx, "", limit=5)) == ["0", "1", "2", "3", "4"]
    assert world.calls(mark) == ["ListObjectsV2"] * 5
