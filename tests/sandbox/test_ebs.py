"""EBS direct APIs as the sandbox has them: what is put is what is read, and what AWS refuses is refused."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.runners import DiskReader
from osvdeploy.sandbox.services import ebs
from osvdeploy.sandbox.services.scope import Doc
from osvdeploy.sizes import GIB
from tests.sandbox.world import World, service_model

BLOCK = 524288
KINDS = {"string": str, "integer": int, "long": int, "timestamp": datetime, "blob": bytes}


class Account(World):
    """A world whose snapshots can be written."""

    def __init__(self) -> None:
        super().__init__()
        self._handlers = {**self._handlers, **ebs.EVENTS}

    def ebs(self, operation: str, **params: Any) -> Doc:
        model = service_model("ebs").operation_model(operation)
        assert set(params) <= ebs.PARAMETERS[operation]
        answer = ebs.OPERATIONS[operation](self, params)
        check(model.output_shape, answer, operation)
        return answer

    def start(self, size: int = 1, **params: Any) -> str:
        snapshot: str = self.ebs("StartSnapshot", VolumeSize=size, **params)["SnapshotId"]
        return snapshot

    def put_block(self, snapshot: str, index: int, content: bytes, **changed: Any) -> Doc:
        return self.ebs("PutSnapshotBlock", **{**put_params(snapshot, index, content), **changed})

    def complete(self, snapshot: str, count: int, **params: Any) -> None:
        assert self.ebs("CompleteSnapshot", SnapshotId=snapshot, ChangedBlocksCount=count, **params) == {
            "Status": "pending"
        }
        self.wait(ebs.COMPLETION)

    def state(self, snapshot: str) -> str:
        found = self.get("snapshot", snapshot)
        assert found is not None
        state: str = found["State"]
        return state

    def written(self, blocks: Mapping[int, bytes], size: int = 1, **params: Any) -> str:
        """A completed snapshot."""
        snapshot = self.start(size, **params)
        for index, content in blocks.items():
            self.put_block(snapshot, index, content)
        self.complete(snapshot, len(blocks))
        return snapshot

    def read_back(self, snapshot: str) -> dict[int, bytes]:
        """What the API's own reading gives."""
        listed = self.ebs("ListSnapshotBlocks", SnapshotId=snapshot)["Blocks"]
        return {
            block["BlockIndex"]: self.ebs("GetSnapshotBlock", SnapshotId=snapshot, **block)["BlockData"]
            for block in listed
        }


def check(shape: Any, value: Any, place: str) -> None:
    """Every part of an answer has a place in the API's model, and its type."""
    if shape.type_name == "structure":
        assert set(value) <= set(shape.members), place
        for name, part in value.items():
            check(shape.members[name], part, f"{place}.{name}")
    elif shape.type_name == "list":
        for part in value:
            check(shape.member, part, place)
    else:
        assert isinstance(value, KINDS[shape.type_name]), place


def sha(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def linear(*contents: bytes) -> str:
    return sha(b"".join(hashlib.sha256(content).digest() for content in contents))


def fill(number: int) -> bytes:
    return bytes([number]) * BLOCK


def put_params(snapshot: str, index: int, content: bytes) -> dict[str, Any]:
    return {
        "SnapshotId": snapshot,
        "BlockIndex": index,
        "BlockData": content,
        "DataLength": BLOCK,
        "Checksum": sha(content),
        "ChecksumAlgorithm": "SHA256",
    }


A, B, ZEROS = fill(1), fill(2), bytes(BLOCK)


# ----------------------------------------------------------------------------------------------------- refusals


@dataclass
class Stage:
    """One pending snapshot with block 0, one completed with blocks 0 and 3, and its child."""

    account: Account = field(default_factory=Account)

    def __post_init__(self) -> None:
        self.done = self.account.written({0: A, 3: B}, size=2)
        self.other = self.account.written({})
        self.secret = self.account.written({}, Encrypted=True)
        self.pending = self.account.start()
        self.account.put_block(self.pending, 0, A)
        self.expired = self.account.start(Timeout=10)
        self.account.wait(601)
        assert self.account.state(self.expired) == "error"
        self.deleted = self.account.written({})
        ebs.forget(self.account, self.deleted)
        self.account.delete("snapshot", self.deleted)
        [self.token, _] = self.account.ebs("ListSnapshotBlocks", SnapshotId=self.done)["Blocks"]

    def foreign(self) -> str:
        name = "snap-0f0f0f"
        document = self.account.get("snapshot", self.done) or {}
        self.account.put("snapshot", name, {**document, "SnapshotId": name, "OwnerId": "210987654321"})
        return name

    def stale(self) -> str:
        self.account.wait(3601)
        token: str = self.token["BlockToken"]
        return token


REFERENCE = "EBS direct APIs reference"
GUIDE = "EBS user guide"
OPEN = "documented as refused, without its reason: the sandbox's choice"

Ask = Callable[[Stage], tuple[str, dict[str, Any]]]


def start(**params: Any) -> Ask:
    return lambda _: ("StartSnapshot", {"VolumeSize": 1, **params})


def child(parent: str, **params: Any) -> Ask:
    return lambda stage: ("StartSnapshot", {"VolumeSize": 2, "ParentSnapshotId": getattr(stage, parent), **params})


def put(snapshot: str = "pending", **changed: Any) -> Ask:
    return lambda stage: ("PutSnapshotBlock", {**put_params(getattr(stage, snapshot), 1, B), **changed})


def complete(snapshot: str = "pending", **params: Any) -> Ask:
    return lambda stage: (
        "CompleteSnapshot",
        {"SnapshotId": getattr(stage, snapshot), "ChangedBlocksCount": 1, **params},
    )


def blocks(snapshot: str, **params: Any) -> Ask:
    return lambda stage: ("ListSnapshotBlocks", {"SnapshotId": getattr(stage, snapshot), **params})


def changes(first: str, second: str, **params: Any) -> Ask:
    return lambda stage: (
        "ListChangedBlocks",
        {"FirstSnapshotId": getattr(stage, first), "SecondSnapshotId": getattr(stage, second), **params},
    )


def read(snapshot: str = "done", **changed: Any) -> Ask:
    return lambda stage: (
        "GetSnapshotBlock",
        {"SnapshotId": getattr(stage, snapshot), **stage.token, **changed},
    )


VALUE, SIZE, ID = "INVALID_PARAMETER_VALUE", "INVALID_VOLUME_SIZE", "INVALID_SNAPSHOT_ID"
PAIR = [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]
SUMS = {"ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}

REFUSALS: list[tuple[Ask, str, int, str, str]] = [
    # call, what is wrong, HTTP status, reason, source
    (start(VolumeSize=None), "no size", 400, VALUE, REFERENCE),
    (start(VolumeSize=0), "a size of 0 GiB", 400, SIZE, REFERENCE),
    (start(VolumeSize=65537), "more than 64 TiB", 400, SIZE, REFERENCE),
    (start(Timeout=9), "a timeout under 10 minutes", 400, VALUE, REFERENCE),
    (start(Timeout=4321), "a timeout over 3 days", 400, VALUE, REFERENCE),
    (start(Description="x" * 256), "a long description", 400, VALUE, REFERENCE),
    (start(Tags=PAIR), "a tag given twice", 400, "INVALID_TAG", "EC2 user guide, tag restrictions"),
    (start(Tags=[{"Key": "aws:a"}]), "a reserved tag", 400, "INVALID_TAG", "EC2 user guide, tag restrictions"),
    (start(Tags=[{"Key": "k" * 128}]), "a long tag key", 400, "INVALID_TAG", REFERENCE),
    (start(Tags=[{"Key": str(n)} for n in range(51)]), "51 tags", 400, "INVALID_TAG", "EC2 user guide"),
    (start(ClientToken="t" * 65), "a token of 65 characters", 400, VALUE, GUIDE + ", idempotency"),
    (start(ClientToken="\u00e4"), "a token that is not ASCII", 400, VALUE, GUIDE + ", idempotency"),
    (start(KmsKeyArn="arn:aws:kms:eu-west-1:1:key/a"), "a key without encryption", 400, VALUE, GUIDE + ", encryption"),
    (start(Encrypted=True, KmsKeyArn="key"), "no key's ARN", 400, "INVALID_CUSTOMER_KEY", REFERENCE),
    (child("done", Encrypted=True), "parent and Encrypted", 400, VALUE, REFERENCE),
    (child("done", Encrypted=False), "parent and Encrypted, though false", 400, VALUE, REFERENCE),
    (child("done", VolumeSize=1), "smaller than the parent", 400, SIZE, OPEN),
    (child("pending"), "a pending parent", 400, ID, OPEN),
    (child("expired"), "a failed parent", 400, ID, OPEN),
    (child("deleted"), "a parent that is gone", 404, "SNAPSHOT_NOT_FOUND", REFERENCE),
    (start(ParentSnapshotId="snap-XYZ"), "a malformed parent", 400, ID, REFERENCE),
    (put("deleted"), "a snapshot that is gone", 404, "SNAPSHOT_NOT_FOUND", REFERENCE),
    (put("done"), "a put after completion", 400, ID, OPEN),
    (put("expired"), "a put after the timeout", 400, ID, OPEN),
    (put(SnapshotId="vol-1"), "no snapshot's id", 400, ID, REFERENCE),
    (put(BlockIndex=2048), "an index past the volume's end", 400, "INVALID_BLOCK", REFERENCE),
    (put(BlockIndex=-1), "a negative index", 400, "INVALID_BLOCK", REFERENCE),
    (put(DataLength=None), "no length", 400, VALUE, REFERENCE),
    (put(DataLength=512), "another length than 512 KiB", 400, VALUE, REFERENCE),
    (put(BlockData=B[:-1]), "a body cut short", 400, VALUE, "seen: nanovms/ops#1268"),
    (put(BlockData=b""), "no body", 400, VALUE, "seen: nanovms/ops#1268"),
    (put(Checksum=None), "no checksum", 400, VALUE, REFERENCE),
    (put(Checksum=sha(A)), "the checksum of something else", 400, VALUE, GUIDE + ", checksums"),
    (put(Checksum=hashlib.sha256(B).hexdigest()), "a checksum in hex", 400, VALUE, REFERENCE),
    (put(ChecksumAlgorithm="MD5"), "another algorithm", 400, VALUE, REFERENCE),
    (put(ChecksumAlgorithm=None), "no algorithm", 400, VALUE, REFERENCE),
    (put(Progress=101), "more than all", 400, VALUE, REFERENCE),
    (complete(ChangedBlocksCount=2), "a count too high", 400, VALUE, OPEN),
    (complete(ChangedBlocksCount=0), "a count too low", 400, VALUE, OPEN),
    (complete(ChangedBlocksCount=None), "no count", 400, VALUE, REFERENCE),
    (complete(Checksum=linear(B), **SUMS), "another disk's checksum", 400, VALUE, OPEN),
    (complete(Checksum=sha(A), **SUMS), "the data's checksum, not LINEAR", 400, VALUE, REFERENCE),
    (complete(Checksum=linear(A)), "a checksum of no method", 400, VALUE, OPEN),
    (complete(ChecksumAggregationMethod="TREE"), "another method", 400, VALUE, REFERENCE),
    (complete("done", ChangedBlocksCount=2), "completed already", 400, ID, OPEN),
    (complete("expired", ChangedBlocksCount=0), "expired", 400, ID, OPEN),
    (complete("deleted"), "gone", 404, "SNAPSHOT_NOT_FOUND", REFERENCE),
    (blocks("pending"), "reading what is pending", 400, ID, OPEN),
    (blocks("deleted"), "reading what is gone", 404, "SNAPSHOT_NOT_FOUND", REFERENCE),
    (blocks("done", MaxResults=99), "a page under 100", 400, VALUE, REFERENCE),
    (blocks("done", MaxResults=10001), "a page over 10,000", 400, VALUE, REFERENCE),
    (blocks("done", StartingBlockIndex=-1), "a negative start", 400, VALUE, REFERENCE),
    (blocks("done", NextToken="AAAA"), "a made up page token", 400, "INVALID_PAGE_TOKEN", REFERENCE),
    (blocks("done", NextToken="?"), "a page token that is none", 400, "INVALID_PAGE_TOKEN", REFERENCE),
    (changes("done", "other"), "snapshots of two lineages", 400, "UNRELATED_SNAPSHOTS", REFERENCE),
    (changes("done", "done", FirstSnapshotId=None), "no first snapshot", 400, VALUE, REFERENCE),
    (changes("pending", "pending"), "comparing what is pending", 400, ID, OPEN),
    (read(BlockToken="AAAA"), "a made up block token", 400, "INVALID_BLOCK_TOKEN", REFERENCE),
    (read(BlockIndex=3), "another block's token", 400, "INVALID_BLOCK_TOKEN", REFERENCE),
    (read("other"), "another snapshot's token", 400, "INVALID_BLOCK_TOKEN", REFERENCE),
    (read(BlockIndex=4096), "an index past the volume's end", 400, "INVALID_BLOCK", REFERENCE),
    (lambda stage: read(BlockToken=stage.stale())(stage), "an old token", 400, "INVALID_BLOCK_TOKEN", GUIDE),
    (lambda stage: start(ParentSnapshotId=stage.foreign())(stage), "not ours", 403, "UNAUTHORIZED_ACCOUNT", REFERENCE),
]
CODES = {400: "ValidationException", 403: "AccessDeniedException", 404: "ResourceNotFoundException"}


@pytest.mark.parametrize(("ask", "wrong", "status", "reason", "source"), REFUSALS, ids=[row[1] for row in REFUSALS])
def test_refuses_as_aws_does(ask: Ask, wrong: str, status: int, reason: str, source: str) -> None:
    """What is wrong is refused with AWS's code, status and reason, and changes nothing."""
    stage = Stage()
    operation, params = ask(stage)
    before = stage.account.documents()
    with pytest.raises(ApiError) as refusal:
        stage.account.ebs(operation, **params)
    assert (refusal.value.code, refusal.value.status) == (CODES[status], status), (wrong, source)
    assert refusal.value.fields == {"Reason": reason}
    assert stage.account.documents() == before


def test_a_token_with_other_parameters_is_a_conflict() -> None:
    """User guide, idempotency: the same token with a changed parameter is a ConflictException."""
    account = Account()
    account.start(ClientToken="once")
    for params in ({"size": 2}, {"Timeout": 60}, {"Tags": [{"Key": "a", "Value": "b"}]}):
        with pytest.raises(ApiError) as refusal:
            account.start(ClientToken="once", **params)
        assert (refusal.value.code, refusal.value.status) == ("ConflictException", 409)


def test_the_hundredth_pending_snapshot_is_the_last() -> None:
    """Quotas: 100 pending snapshots; one that completes makes room for another."""
    account = Account()
    first, *_ = [account.start() for _ in range(100)]
    with pytest.raises(ApiError) as refusal:
        account.start()
    assert (refusal.value.code, refusal.value.status) == ("ServiceQuotaExceededException", 402)
    account.complete(first, 0)
    account.start()


# -------------------------------------------------------------------------------------------------------- writing


def test_the_same_token_gives_the_same_snapshot() -> None:
    """User guide, idempotency: the result of the original request, whatever became of the snapshot since."""
    account = Account()
    request = {"VolumeSize": 3, "ClientToken": "once", "Tags": [{"Key": "a", "Value": "b"}], "Description": "d"}
    first = account.ebs("StartSnapshot", **request)
    assert account.ebs("StartSnapshot", **request) == first
    account.complete(first["SnapshotId"], 0)
    assert account.ebs("StartSnapshot", **request) == first
    ebs.forget(account, first["SnapshotId"])
    account.delete("snapshot", first["SnapshotId"])
    assert account.ebs("StartSnapshot", **request) == first
    assert account.all("snapshot") == []


def test_without_a_token_each_start_is_a_snapshot() -> None:
    """Nothing but the token makes two requests one."""
    account = Account()
    assert account.start() != account.start()


def test_a_started_snapshot_is_described_as_it_was_asked_for() -> None:
    """Tags, size and description are there from the first moment, and the answer repeats them."""
    account = Account()
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]
    answer = account.ebs("StartSnapshot", VolumeSize=5, Tags=tags, Description="disk")
    kept = account.get("snapshot", answer["SnapshotId"])
    assert kept is not None
    assert (kept["State"], kept["VolumeSize"], kept["tags"]) == ("pending", 5, {"a": "1", "b": ""})
    assert (kept["Description"], kept["OwnerId"], kept["Encrypted"]) == ("disk", account.account, False)
    assert datetime.fromisoformat(kept["StartTime"]) == answer["StartTime"] == account.now
    assert (answer["Tags"], answer["BlockSize"], answer["Status"]) == (tags, BLOCK, "pending")


def test_a_snapshot_is_completed_a_while_after_it_was_sealed() -> None:
    """Between CompleteSnapshot and completed it is pending, and takes no block any more."""
    account = Account()
    snapshot = account.start()
    account.put_block(snapshot, 1, B, Progress=50)
    account.put_block(snapshot, 0, A)
    assert (account.get("snapshot", snapshot) or {})["Progress"] == "50%"
    sums = {"Checksum": linear(A, B), **SUMS}
    account.ebs("CompleteSnapshot", SnapshotId=snapshot, ChangedBlocksCount=2, **sums)
    assert account.state(snapshot) == "pending"
    with pytest.raises(ApiError, match="pending"):
        account.put_block(snapshot, 2, B)
    account.wait(ebs.COMPLETION)
    assert account.state(snapshot) == "completed"
    assert (account.get("snapshot", snapshot) or {})["Progress"] == "100%"


def test_a_block_put_twice_counts_once_and_reads_as_put_last() -> None:
    """ChangedBlocksCount counts places, not calls; existing data is overwritten (PutSnapshotBlock)."""
    account = Account()
    snapshot = account.start()
    account.put_block(snapshot, 7, A)
    account.put_block(snapshot, 7, B)
    account.complete(snapshot, 1, Checksum=linear(B), **SUMS)
    assert account.read_back(snapshot) == {7: B}


def test_a_refused_completion_can_be_repaired() -> None:
    """A wrong count leaves the snapshot pending: the missing block can still be put."""
    account = Account()
    snapshot = account.start()
    with pytest.raises(ApiError):
        account.complete(snapshot, 1)
    account.put_block(snapshot, 0, A)
    account.complete(snapshot, 1)
    assert account.state(snapshot) == "completed"


def test_a_snapshot_that_nobody_writes_to_fails_in_time() -> None:
    """Timeout counts from the last block; left out it is an hour. The failed snapshot stays until it is deleted."""
    account = Account()
    idle, busy, sealed = account.start(), account.start(Timeout=10), account.start(Timeout=10)
    for _ in range(8):
        account.wait(595)
        account.put_block(busy, 0, A)
        if account.state(sealed) == "pending":
            account.complete(sealed, 0)
    assert (account.state(idle), account.state(busy), account.state(sealed)) == ("error", "pending", "completed")
    account.wait(599.5)
    assert account.state(busy) == "pending"
    account.wait(0.5)
    assert account.state(busy) == "error"
    assert "10 minutes" in (account.get("snapshot", busy) or {})["StateMessage"]


def test_a_put_rewrites_no_document_that_grows() -> None:
    """What a put keeps is of one size, however many blocks came before."""
    account = Account()
    snapshot = account.start()
    account.put_block(snapshot, 0, A)
    before = account.documents()
    account.put_block(snapshot, 9, B)
    after = account.documents()
    assert [kind for kind in after if after[kind] != before[kind]] == [f"block/{snapshot}"]
    assert set(after[f"block/{snapshot}"]["00000009"]) == {"index", "sha256", "at"}


# -------------------------------------------------------------------------------------------------------- reading


def test_lists_come_in_pages_in_index_order() -> None:
    """Every block is on one page, in order of its index whatever the order of the puts; the last page has no token."""
    account = Account()
    snapshot = account.written(dict.fromkeys(reversed(range(0, 500, 2)), A))
    pages: list[list[int]] = []
    page: dict[str, Any] = {}
    while not pages or page:
        answer = account.ebs("ListSnapshotBlocks", SnapshotId=snapshot, MaxResults=100, **page)
        pages.append([block["BlockIndex"] for block in answer["Blocks"]])
        # NextToken's place counts, a StartingBlockIndex beside it is ignored.
        page = {"NextToken": answer["NextToken"], "StartingBlockIndex": 0} if "NextToken" in answer else {}
    assert pages == [list(range(0, 200, 2)), list(range(200, 400, 2)), list(range(400, 500, 2))]
    later = account.ebs("ListSnapshotBlocks", SnapshotId=snapshot, StartingBlockIndex=499)
    assert later["Blocks"] == [] and "NextToken" not in later
    [last] = account.ebs("ListSnapshotBlocks", SnapshotId=snapshot, StartingBlockIndex=497)["Blocks"]
    assert last["BlockIndex"] == 498


def test_a_block_is_read_with_its_checksum_until_its_token_expires() -> None:
    """The answer says when: an hour later."""
    account = Account()
    snapshot = account.written({5: B})
    listed = account.ebs("ListSnapshotBlocks", SnapshotId=snapshot)
    [block] = listed["Blocks"]
    account.wait((listed["ExpiryTime"] - account.now).total_seconds())
    answer = account.ebs("GetSnapshotBlock", SnapshotId=snapshot, **block)
    assert (answer["BlockData"], answer["Checksum"], answer["DataLength"]) == (B, sha(B), BLOCK)
    account.wait(1)
    with pytest.raises(ApiError, match="expired"):
        account.ebs("GetSnapshotBlock", SnapshotId=snapshot, **block)


def test_changed_blocks_are_those_that_differ() -> None:
    """Each with the tokens of the snapshots that have it; what was put again as it was is no change."""
    account = Account()
    parent = account.written({0: A, 1: A, 2: A})
    kid = account.written({1: B, 2: A, 3: B}, ParentSnapshotId=parent)

    def tokens(first: str, second: str) -> dict[int, set[str]]:
        answer = account.ebs("ListChangedBlocks", FirstSnapshotId=first, SecondSnapshotId=second)
        return {block["BlockIndex"]: set(block) - {"BlockIndex"} for block in answer["ChangedBlocks"]}

    both, new, old = {"FirstBlockToken", "SecondBlockToken"}, {"SecondBlockToken"}, {"FirstBlockToken"}
    assert tokens(parent, kid) == {1: both, 3: new}
    assert tokens(kid, parent) == {1: both, 3: old}
    assert tokens(kid, kid) == {}
    [change, _] = account.ebs("ListChangedBlocks", FirstSnapshotId=parent, SecondSnapshotId=kid)["ChangedBlocks"]
    for snapshot, token, content in ((parent, "FirstBlockToken", A), (kid, "SecondBlockToken", B)):
        found = account.ebs("GetSnapshotBlock", SnapshotId=snapshot, BlockIndex=1, BlockToken=change[token])
        assert found["BlockData"] == content


def test_siblings_are_related_after_their_parent_is_deleted() -> None:
    """A lineage outlives the snapshots it began with."""
    account = Account()
    parent = account.written({0: A})
    one, two = account.written({0: B}, ParentSnapshotId=parent), account.written({1: B}, ParentSnapshotId=parent)
    account.delete("snapshot", parent)
    ebs.forget(account, parent)
    answer = account.ebs("ListChangedBlocks", FirstSnapshotId=one, SecondSnapshotId=two)
    assert [block["BlockIndex"] for block in answer["ChangedBlocks"]] == [0, 1]


# ---------------------------------------------------------------------------------------------------------- disks


def test_a_parent_may_go_while_its_child_is_written() -> None:
    """The child has the parent's data, and counts only its own."""
    account = Account()
    parent = account.written({0: A, 1: A})
    kid = account.start(ParentSnapshotId=parent)
    account.put_block(kid, 1, B)
    ebs.forget(account, parent)
    account.delete("snapshot", parent)
    account.complete(kid, 1, Checksum=linear(B), **SUMS)
    assert account.read_back(kid) == {0: A, 1: B}
    assert set(account.documents()) >= {f"block/{kid}"} and not account.all(f"block/{parent}")


def test_a_disk_ends_where_its_volume_ends() -> None:
    """Reads past the end are short; a volume larger than its snapshot goes on with zeros."""
    account = Account()
    snapshot = account.written({2047: A})
    exact, larger = ebs.disk_reader(account, snapshot, GIB), ebs.disk_reader(account, snapshot, 2 * GIB)
    assert exact(GIB - 3, 10) == A[:3]
    assert exact(GIB, 10) == exact(2 * GIB, 1) == b""
    assert larger(GIB - 3, 10) == A[:3] + bytes(7)


def test_a_disk_reads_on_after_its_snapshot_is_deleted() -> None:
    """A volume has its data: from several threads, and whatever becomes of the snapshot."""
    account = Account()
    snapshot = account.written({index: fill(index) for index in range(1, 20)})
    disk = ebs.disk_reader(account, snapshot, GIB)
    ebs.forget(account, snapshot)
    account.delete("snapshot", snapshot)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: disk(index * BLOCK - 1, 2), range(1, 20)))
    assert found == [bytes([index - 1, index]) for index in range(1, 20)]


def test_an_absent_block_of_an_encrypted_disk_is_noise() -> None:
    """Decrypting what was never written gives no zeros; zeros that were put are zeros. A child is encrypted too."""
    account = Account()
    snapshot = account.written({0: ZEROS}, Encrypted=True)
    kid = account.written({1: ZEROS}, ParentSnapshotId=snapshot)
    kept = account.get("snapshot", kid)
    assert kept is not None and kept["Encrypted"] and kept["KmsKeyId"].startswith("arn:aws:kms:")
    disk = ebs.disk_reader(account, kid, GIB)
    assert disk(0, 2 * BLOCK) == bytes(2 * BLOCK)
    noise = disk(2 * BLOCK, 2 * BLOCK)
    assert noise == disk(2 * BLOCK, 2 * BLOCK)
    assert noise[:BLOCK] != noise[BLOCK:] and len(set(noise[:BLOCK])) == 256


def test_a_disk_of_no_snapshot_is_an_error() -> None:
    """Its caller has checked."""
    with pytest.raises(KeyError):
        ebs.disk_reader(Account(), "snap-1", GIB)


# --------------------------------------------------------------------------------------------------------- model

PUTS = st.dictionaries(st.integers(0, 5), st.integers(0, 3), max_size=4)


@dataclass(frozen=True)
class Step:
    """A snapshot made from one of those before (or of none), or one of those before deleted."""

    deletes: bool
    which: int
    puts: dict[int, int]


STEPS = st.lists(st.builds(Step, st.booleans(), st.integers(0, 9), PUTS), max_size=7)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_any_lineage_reads_like_a_dictionary(steps: list[Step]) -> None:
    """Whatever is put, inherited and deleted in between: each snapshot has its parent's blocks and its own over them,
    through the API, its disk, and disks that were opened before."""
    account = Account()
    model: dict[str, dict[int, bytes]] = {}
    disks: list[tuple[DiskReader, dict[int, bytes]]] = []
    for step in steps:
        known = list(model)
        chosen = known[step.which] if step.which < len(known) else None
        if step.deletes and chosen is not None:
            del model[chosen]
            ebs.forget(account, chosen)
            account.delete("snapshot", chosen)
            continue
        own = {index: fill(number) for index, number in step.puts.items()}
        parent: dict[str, Any] = {"ParentSnapshotId": chosen} if chosen is not None else {}
        snapshot = account.written(own, **parent)
        model[snapshot] = {**(model[chosen] if chosen is not None else {}), **own}
        disks.append((ebs.disk_reader(account, snapshot, GIB), model[snapshot]))
    for snapshot, expected in model.items():
        assert account.read_back(snapshot) == expected
    for disk, expected in disks:
        for index in range(7):
            assert disk(index * BLOCK, BLOCK) == expected.get(index, ZEROS)
    kept = {kind for kind, documents in account.documents().items() if kind.startswith("block/") and documents}
    assert kept <= {f"block/{snapshot}" for snapshot in model}


# -------------------------------------------------------------------------------------------------------- surface


def test_every_operation_of_the_model_is_simulated_with_every_parameter() -> None:
    """An SDK can send nothing to EBS direct that is not understood."""
    model = service_model("ebs")
    assert set(ebs.OPERATIONS) == set(ebs.PARAMETERS) == set(model.operation_names)
    for operation, names in ebs.PARAMETERS.items():
        assert names == set(model.operation_model(operation).input_shape.members)


def test_every_code_and_reason_is_one_of_the_model() -> None:
    """What the table of refusals expects has a place in the model: an SDK makes exceptions of it."""
    shapes = {name: service_model("ebs").shape_for(name) for name in {*CODES.values(), "ServiceQuotaExceededException"}}
    for _, wrong, status, reason, _ in REFUSALS:
        shape = shapes[CODES[status]]
        assert shape.metadata["error"]["httpStatusCode"] == status, wrong
        assert reason in shape.members["Reason"].enum, wrong
