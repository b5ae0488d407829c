"""What every implementation of Snapshots promises."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from osvdeploy.cloud.interfaces import Block
from osvdeploy.cloud.tags import APP as APP_TAG
from osvdeploy.cloud.tags import DIGEST as DIGEST_TAG
from osvdeploy.cloud.tags import SCHEMA
from osvdeploy.digests import sha256
from osvdeploy.errors import CloudError, NotFound, Refused, UploadGone
from tests.contract.disks import DIGEST, Place, blocks, checksum, content, finish, image_request, request


def test_what_was_put_reads_back(place: Place) -> None:
    """A finished disk holds every block that was put, wherever it lies, blocks of zeros included."""
    size = place.snapshots.block_size
    last = 2**30 // size - 1
    contents = {3: content(size, 3), 0: content(size, 0), 1: bytes(size), last: content(size, 9)}

    disk = place.upload(request(), contents)

    assert place.read(disk.id) == contents
    assert (disk.name, disk.digest, disk.size_gib) == ("orders-1.0.0", DIGEST, 1)


def test_only_a_finished_disk_is_found(place: Place) -> None:
    """A disk is found by its name once it is finished, with its digest and our tags, and not before."""
    size = place.snapshots.block_size
    assert place.snapshots.find(place.ctx, "orders-1.0.0") is None

    sink = place.snapshots.start(place.ctx, request())
    assert sink.finished is None
    assert place.snapshots.find(place.ctx, "orders-1.0.0") is None

    disk = finish(place.ctx, sink, blocks({0: content(size, 0)}))
    found = place.snapshots.find(place.ctx, "orders-1.0.0")
    assert found is not None
    assert (found.id, found.digest, found.size_gib) == (disk.id, DIGEST, 1)
    assert found.tags[DIGEST_TAG] == DIGEST
    assert SCHEMA in found.tags
    assert place.snapshots.find(place.ctx, "orders-1.0") is None


def test_the_same_request_is_the_same_upload(place: Place) -> None:
    """Whoever asks again with the same attempt takes the upload up; what is stored stays stored."""
    size = place.snapshots.block_size
    contents = {0: content(size, 0), 1: content(size, 1)}
    sent = blocks(contents)
    first = place.snapshots.start(place.ctx, request())
    first.put(place.ctx, sent[:1], lambda index: None)

    second = place.snapshots.start(place.ctx, request())
    second.put(place.ctx, sent[1:], lambda index: None)
    disk = second.complete(place.ctx, 2, checksum(sent))

    assert second.id == first.id == disk.id
    assert place.read(disk.id) == contents


def test_a_finished_upload_is_said_to_be(place: Place) -> None:
    """Asking again for an upload that was completed gives the disk; there is nothing to put."""
    disk = place.upload(request(), {0: content(place.snapshots.block_size, 0)})
    again = place.snapshots.start(place.ctx, request())
    assert again.finished is not None
    assert again.finished.id == disk.id


def test_completing_twice_is_once(place: Place) -> None:
    """The second completion finds the first one's work: its answer may have been lost."""
    sent = blocks({0: content(place.snapshots.block_size, 0)})
    sink = place.snapshots.start(place.ctx, request())
    disk = finish(place.ctx, sink, sent)
    assert sink.complete(place.ctx, 1, checksum(sent)).id == disk.id


def test_the_same_block_twice_is_harmless(place: Place) -> None:
    """Putting a block again, with the same bytes, changes nothing."""
    size = place.snapshots.block_size
    sent = blocks({0: content(size, 0), 5: content(size, 5)})
    sink = place.snapshots.start(place.ctx, request())
    sink.put(place.ctx, sent, lambda index: None)
    sink.put(place.ctx, sent[:1], lambda index: None)
    disk = sink.complete(place.ctx, 2, checksum(sent))
    assert set(place.read(disk.id)) == {0, 5}


def test_every_stored_block_is_told(place: Place) -> None:
    """``stored`` is called once per block, whatever their order."""
    size = place.snapshots.block_size
    told: list[int] = []
    sink = place.snapshots.start(place.ctx, request())
    sink.put(place.ctx, blocks({index: content(size, index) for index in (7, 0, 3)}), told.append)
    assert sorted(told) == [0, 3, 7]


def test_attempts_and_digests_are_different_uploads(place: Place) -> None:
    """Another attempt, name or digest is another upload."""
    requests = [
        request(),
        request(attempt=1),
        request(digest=sha256(b"other")),
        request(name="orders-1.0.1"),
    ]
    assert len({place.snapshots.start(place.ctx, wanted).id for wanted in requests}) == len(requests)


def test_a_wrong_count_is_refused(place: Place) -> None:
    """A disk with a block missing never becomes a disk."""
    sent = blocks({0: content(place.snapshots.block_size, 0)})
    sink = place.snapshots.start(place.ctx, request())
    sink.put(place.ctx, sent, lambda index: None)
    with pytest.raises(Refused):
        sink.complete(place.ctx, 2, checksum(sent))
    assert place.snapshots.find(place.ctx, "orders-1.0.0") is None


def test_a_wrong_checksum_is_refused(place: Place) -> None:
    """A disk with other bytes than were meant never becomes a disk."""
    sink = place.snapshots.start(place.ctx, request())
    sink.put(place.ctx, blocks({0: content(place.snapshots.block_size, 0)}), lambda index: None)
    with pytest.raises(Refused):
        sink.complete(place.ctx, 1, hashlib.sha256(b"other").digest())
    assert place.snapshots.find(place.ctx, "orders-1.0.0") is None


@pytest.mark.parametrize("wrong", ["length", "digest", "beyond"])
def test_a_wrong_block_is_refused(place: Place, wrong: str) -> None:
    """A block of another length, with other bytes than its digest says, or beyond the disk is not stored."""
    size = place.snapshots.block_size
    [right] = blocks({0: content(size, 0)})
    block = {
        "length": Block(0, right.data[:-1], hashlib.sha256(right.data[:-1]).digest()),
        "digest": replace(right, sha256=hashlib.sha256(b"other").digest()),
        "beyond": replace(right, index=2**30 // size),
    }[wrong]
    told: list[int] = []
    sink = place.snapshots.start(place.ctx, request())
    with pytest.raises(Refused):
        sink.put(place.ctx, [block], told.append)
    assert told == []


def test_an_aborted_upload_is_gone(place: Place) -> None:
    """Nothing is left of it, aborting again succeeds, and asking for the same attempt says that it is gone."""
    size = place.snapshots.block_size
    sink = place.snapshots.start(place.ctx, request())
    sink.put(place.ctx, blocks({0: content(size, 0)}), lambda index: None)
    sink.abort(place.ctx)
    sink.abort(place.ctx)
    assert place.snapshots.owned(place.ctx, {}) == []
    with pytest.raises(UploadGone):
        again = place.snapshots.start(place.ctx, request())
        again.put(place.ctx, blocks({0: content(size, 0)}), lambda index: None)


def test_putting_into_a_deleted_upload(place: Place) -> None:
    """An upload that somebody deleted says so, and not that the block was wrong."""
    size = place.snapshots.block_size
    sink = place.snapshots.start(place.ctx, request())
    sink.put(place.ctx, blocks({0: content(size, 0)}), lambda index: None)
    place.snapshots.delete(place.ctx, sink.id)
    with pytest.raises(UploadGone):
        sink.put(place.ctx, blocks({1: content(size, 1)}), lambda index: None)


def test_a_child_holds_its_parents_blocks(place: Place) -> None:
    """Of a child only the blocks that differ are put; the others read as in the parent, which stays as it was."""
    size = place.snapshots.block_size
    parent = place.upload(request(), {0: content(size, 0), 1: content(size, 1)})

    child = place.upload(request("orders-1.0.0-1a2b3c4d", sha256(b"release"), parent), {0: content(size, 7)})

    assert place.read(child.id) == {0: content(size, 7), 1: content(size, 1)}
    assert place.read(parent.id) == {0: content(size, 0), 1: content(size, 1)}


def test_a_parent_that_is_not_there(place: Place) -> None:
    """A child of a disk that was deleted is refused."""
    parent = place.upload(request(), {0: content(place.snapshots.block_size, 0)})
    place.snapshots.delete(place.ctx, parent.id)
    with pytest.raises(CloudError):
        place.snapshots.start(place.ctx, request("orders-1.0.0-1a2b3c4d", sha256(b"release"), parent))


def test_owned_lists_what_carries_the_tags(place: Place) -> None:
    """Finished or not, everything of ours with these tags is listed, and nothing else."""
    size = place.snapshots.block_size
    done = place.upload(request(), {0: content(size, 0)})
    open_ = place.snapshots.start(place.ctx, request("orders-1.1.0", sha256(b"1.1.0")))

    listed = {disk.id: disk.name for disk in place.snapshots.owned(place.ctx, {APP_TAG: "orders"})}

    assert listed == {done.id: "orders-1.0.0", open_.id: "orders-1.1.0"}
    assert [disk.id for disk in place.snapshots.owned(place.ctx, {DIGEST_TAG: DIGEST})] == [done.id]
    assert place.snapshots.owned(place.ctx, {APP_TAG: "other"}) == []


def test_deleting_twice_is_once(place: Place) -> None:
    """Deleting what is already gone succeeds."""
    disk = place.upload(request(), {0: content(place.snapshots.block_size, 0)})
    place.snapshots.delete(place.ctx, disk.id)
    place.snapshots.delete(place.ctx, disk.id)
    assert place.snapshots.find(place.ctx, "orders-1.0.0") is None


def test_a_disk_under_an_image_stays(place: Place) -> None:
    """A disk that an image stands on is not deleted."""
    disk = place.upload(request(), {0: content(place.snapshots.block_size, 0)})
    place.images.register(place.ctx, image_request(disk))
    with pytest.raises(Refused):
        place.snapshots.delete(place.ctx, disk.id)
    assert place.snapshots.find(place.ctx, "orders-1.0.0") is not None


def test_a_finished_disk_is_read(place: Place) -> None:
    """The blocks asked for come, inherited ones too, each with its checksum; one that is not there is left out."""
    size = place.snapshots.block_size
    below = {0: content(size, 0), 1: content(size, 1), 1500: content(size, 5)}
    parent = place.upload(request(), below)
    child = place.upload(
        request(name="orders-1.0.0-1a2b3c4d", digest=sha256(b"r"), parent=parent), {0: content(size, 7)}
    )
    got: dict[int, bytes] = {}

    def keep(block: Block) -> None:
        assert hashlib.sha256(block.data).digest() == block.sha256
        got[block.index] = block.data

    place.snapshots.read(place.ctx, child.id, {0, 1500, 1501}, keep)
    assert got == {0: content(size, 7), 1500: below[1500]}


def test_what_a_disk_holds_is_counted_in_blocks(place: Place) -> None:
    """Those of its parent too, which it reads as its own; not the size that a machine sees."""
    size = place.snapshots.block_size
    parent = place.upload(request(), {0: content(size, 0), 1: content(size, 1), 1500: content(size, 5)})
    child = place.upload(
        request(name="orders-1.0.0-1a2b3c4d", digest=sha256(b"r"), parent=parent),
        {0: content(size, 7), 3: content(size, 8)},
    )
    assert place.snapshots.stored(place.ctx, parent.id) == 3 * size
    assert place.snapshots.stored(place.ctx, child.id) == 4 * size
    place.snapshots.delete(place.ctx, child.id)
    with pytest.raises(NotFound):
        place.snapshots.stored(place.ctx, child.id)


def test_what_cannot_be_read_is_told(place: Place) -> None:
    """A disk that is gone is not found, and one that is not finished is refused."""
    sink = place.snapshots.start(place.ctx, request())
    with pytest.raises(Refused):
        place.snapshots.read(place.ctx, sink.id, {0}, lambda block: None)
    disk = place.upload(
        request(name="orders-1.1.0", digest=sha256(b"1.1.0")), {0: content(place.snapshots.block_size, 0)}
    )
    place.snapshots.delete(place.ctx, disk.id)
    with pytest.raises(NotFound):
        place.snapshots.read(place.ctx, disk.id, {0}, lambda block: None)
