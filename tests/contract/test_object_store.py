"""What every implementation of ObjectStore promises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.cloud.gcp.objects import GcsStore
from osvdeploy.cloud.interfaces import ObjectStore, StoredObject
from osvdeploy.context import CancelToken, Context, SystemClock
from osvdeploy.errors import DeadlineExceeded, Interrupted, LedgerError, ObjectTaken, SourceChanged, UsageError
from osvdeploy.events import Progress, Recorder
from osvdeploy.sizes import MIB
from tests.contract.aws_place import s3_stores
from tests.contract.gcp_place import GcpSandbox
from tests.sources import Made

CTX = Context()

LARGE = 12 * MIB
"""Bytes of which every store makes several parts."""


# ---------------------------------------------------------------------------------------------------- small objects


def test_what_was_put_is_got(store: ObjectStore) -> None:
    """An object reads back byte for byte; one that was never put is None."""
    assert store.put_if_absent(CTX, "hello/production/head/000001.json", b"\x00\xff{}")
    assert store.get(CTX, "hello/production/head/000001.json") == b"\x00\xff{}"
    assert store.get(CTX, "hello/production/head/000002.json") is None
    assert store.get(CTX, "hello/production") is None


def test_nothing_is_overwritten(store: ObjectStore) -> None:
    """The second put of a key is refused by the answer, and the first one's content stays."""
    assert store.put_if_absent(CTX, "a/1", b"first")
    assert not store.put_if_absent(CTX, "a/1", b"second")
    assert not store.put_if_absent(CTX, "a/1", b"first")
    assert store.get(CTX, "a/1") == b"first"


def together(writers: int, write: object) -> None:
    """Call ``write(number)`` in as many threads, all at once."""
    assert callable(write)
    barrier = threading.Barrier(writers)

    def run(number: int) -> None:
        barrier.wait()
        write(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_many_writers_one_wins(store: ObjectStore) -> None:
    """When forty put one key at once, exactly one is told that it did, and its content is there."""
    won: list[int] = []

    def write(number: int) -> None:
        if store.put_if_absent(CTX, "race/1", f"{number}".encode() * 1000):
            won.append(number)

    together(40, write)
    assert len(won) == 1
    assert store.get(CTX, "race/1") == f"{won[0]}".encode() * 1000


def test_no_update_of_many_writers_is_lost(store: ObjectStore) -> None:
    """When twelve number documents by who comes first, each gets a number of its own, and none is left out."""
    got: dict[int, int] = {}

    def write(number: int) -> None:
        n = 0
        while not store.put_if_absent(CTX, f"log/{n:03}", f"{number}".encode()):
            n += 1
        got[number] = n

    together(12, write)
    assert sorted(got.values()) == list(range(12))
    assert {number: int(store.get(CTX, f"log/{n:03}") or b"-1") for number, n in got.items()} == {
        number: number for number in range(12)
    }


def test_keys_are_listed_by_prefix_in_order(store: ObjectStore) -> None:
    """A prefix is a beginning of the key, not a folder; the order is that of the whole keys; a limit cuts."""
    names = ["a/head/3", "a/head/1", "a/head/2", "a/heads", "b/1", "a/releases/x-1.json", "a/releases/x-1~2.json"]
    for name in names:
        store.put_if_absent(CTX, name, b"")
    assert list(store.keys(CTX, "a/head/")) == ["a/head/1", "a/head/2", "a/head/3"]
    assert list(store.keys(CTX, "a/head/", limit=1)) == ["a/head/1"]
    assert list(store.keys(CTX, "a/head/", limit=9)) == ["a/head/1", "a/head/2", "a/head/3"]
    assert list(store.keys(CTX, "a/head")) == ["a/head/1", "a/head/2", "a/head/3", "a/heads"]
    assert list(store.keys(CTX, "a/releases/x-1")) == ["a/releases/x-1.json", "a/releases/x-1~2.json"]
    assert list(store.keys(CTX, "")) == sorted(names)
    assert list(store.keys(CTX, "c/")) == []
    assert list(store.keys(CTX, "a/head/1")) == ["a/head/1"]
    assert list(store.folders(CTX, "")) == ["a", "b"]
    assert list(store.folders(CTX, "a/")) == ["head", "releases"]
    assert list(store.folders(CTX, "b/")) == list(store.folders(CTX, "c/")) == []


def test_deleting_is_final_and_may_be_repeated(store: ObjectStore) -> None:
    """A deleted object is gone, deleting it again succeeds, and its key is free."""
    store.put_if_absent(CTX, "a/1", b"one")
    store.delete(CTX, "a/1")
    store.delete(CTX, "a/1")
    assert store.get(CTX, "a/1") is None
    assert store.find(CTX, "a/1") is None
    assert list(store.keys(CTX, "a/")) == []
    assert store.put_if_absent(CTX, "a/1", b"two")


def test_where_it_can_be_written_nothing_is_refused_or_left(store: ObjectStore) -> None:
    """Asking whether there will be room for a service's documents writes none."""
    store.refuse_unwritable(CTX, "hello/production")
    assert list(store.keys(CTX, "")) == []


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".hidden", "a/.b", "a b", "ä", "a\0b", "a\n", "x" * 300]
)
def test_other_keys_are_refused(store: ObjectStore, key: str) -> None:
    """A key outside the alphabet, or one that leaves its place, is refused by every operation."""
    with pytest.raises(LedgerError, match="cannot be an object's key"):
        store.put_if_absent(CTX, key, b"")
    with pytest.raises(LedgerError):
        store.get(CTX, key)
    with pytest.raises(LedgerError):
        store.delete(CTX, key)
    with pytest.raises(LedgerError):
        store.find(CTX, key)
    with pytest.raises(LedgerError):
        store.put_file(CTX, key, Made("a", 10))


PART = st.text("ab.-~0", min_size=1, max_size=3).filter(lambda part: not part.startswith("."))
FOLDER = st.lists(PART.map(lambda part: f"d{part}"), max_size=2).map("/".join)
KEY = st.tuples(FOLDER, PART.map(lambda part: f"f{part}")).map(lambda parts: "/".join(part for part in parts if part))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.sets(KEY, max_size=8), cut=st.integers(0, 6), limit=st.one_of(st.none(), st.integers(1, 4)))
def test_listing_is_sorting_and_filtering(store: ObjectStore, keys: set[str], cut: int, limit: int | None) -> None:
    """Whatever the keys, a listing is what sorting and filtering all of them gives."""
    for key in list(store.keys(CTX, "")):
        store.delete(CTX, key)
    for key in keys:
        assert store.put_if_absent(CTX, key, key.encode())
    prefix = (max(keys) if keys else "d")[:cut].rstrip("/")
    assert list(store.keys(CTX, prefix, limit)) == sorted(key for key in keys if key.startswith(prefix))[:limit]
    assert list(store.folders(CTX, "")) == list(
        dict.fromkeys(key.partition("/")[0] for key in sorted(keys) if "/" in key)
    )


# ---------------------------------------------------------------------------------------------------- large objects


@pytest.mark.parametrize("length", [0, 1, 5 * MIB, LARGE])
def test_a_file_reads_back_as_its_source_made_it(store: ObjectStore, length: int) -> None:
    """Every byte, whatever the length, and what is known of it without reading."""
    source = Made("a", length, known=False)
    made = store.put_file(CTX, "disks/a.vmdk", source)
    assert store.get(CTX, "disks/a.vmdk") == source.content
    found = store.find(CTX, "disks/a.vmdk")
    assert found is not None
    assert replace(found, created=made.created) == made
    assert abs(found.created - made.created) < timedelta(minutes=1)
    assert (made.key, made.size, made.digest) == ("disks/a.vmdk", length, source.digest)
    assert abs(CTX.now() - made.created) < timedelta(minutes=5)
    assert list(store.keys(CTX, "disks/")) == ["disks/a.vmdk"]
    assert store.unfinished(CTX, "") == []


def test_what_is_there_is_not_sent_again(store: ObjectStore) -> None:
    """The same key and digest is the object that is there: its source is not even read."""

    def read(at: int) -> None:
        raise AssertionError("read")

    made = store.put_file(CTX, "a", Made("a", LARGE))
    assert store.put_file(CTX, "a", Made("a", LARGE, before=read)) == store.find(CTX, "a")
    assert made.digest == Made("a", LARGE).digest


def test_another_digest_is_refused_by_name(store: ObjectStore) -> None:
    """The key stands for one source: another one is refused with both digests, and nothing changes."""
    ours, other = Made("a", 100), Made("b", LARGE)
    store.put_file(CTX, "a", ours)
    with pytest.raises(ObjectTaken, match="a: holds") as raised:
        store.put_file(CTX, "a", other)
    assert (raised.value.held, raised.value.ours) == (ours.digest, other.digest)
    assert store.get(CTX, "a") == ours.content
    assert store.unfinished(CTX, "") == []


def test_a_small_object_is_no_file_of_a_source(store: ObjectStore) -> None:
    """What was put as a document has no digest, and is not taken for a source's."""
    store.put_if_absent(CTX, "a", b"document")
    found = store.find(CTX, "a")
    assert found is not None
    assert (found.size, found.digest) == (8, None)
    with pytest.raises(ObjectTaken, match="was not made by this"):
        store.put_file(CTX, "a", Made("a", 8))
    assert not store.put_if_absent(CTX, "a", b"")


def test_a_file_is_not_overwritten_by_a_document(store: ObjectStore) -> None:
    """A large object takes its key as a small one does, and gives it back when it is deleted."""
    store.put_file(CTX, "a", Made("a", 100))
    assert not store.put_if_absent(CTX, "a", b"document")
    store.delete(CTX, "a")
    assert store.find(CTX, "a") is None
    assert store.unfinished(CTX, "") == []
    assert store.put_file(CTX, "a", Made("b", 100)).digest == Made("b", 100).digest


@dataclass
class Stops:
    """Lets a source be read up to an offset, once."""

    at: int
    error: BaseException
    done: bool = field(default=False, init=False)

    def __call__(self, at: int) -> None:
        if at >= self.at and not self.done:
            self.done = True
            raise self.error


def test_an_interrupted_upload_goes_on(store: ObjectStore) -> None:
    """What was sent stays: it is listed as unfinished, is no object, and the next run makes a whole one of it."""
    stops = Stops(LARGE - MIB, Interrupted("Ctrl-C"))
    with pytest.raises(Interrupted):
        store.put_file(CTX, "disks/a", Made("a", LARGE, before=stops))
    assert store.find(CTX, "disks/a") is None
    assert store.get(CTX, "disks/a") is None
    assert list(store.keys(CTX, "")) == []
    [left] = store.unfinished(CTX, "disks/")
    assert left.key == "disks/a"
    assert abs(CTX.now() - left.begun) < timedelta(minutes=5)
    assert store.unfinished(CTX, "disk/") == []

    store.put_file(CTX, "disks/a", Made("a", LARGE))

    assert store.get(CTX, "disks/a") == Made("a", LARGE).content
    assert store.unfinished(CTX, "") == []


def test_what_one_source_left_is_not_taken_for_another_s(store: ObjectStore) -> None:
    """After an upload of other bytes to the same key was interrupted, an object is whole and one source's."""
    with pytest.raises(Interrupted):
        store.put_file(CTX, "a", Made("other", LARGE, before=Stops(LARGE - MIB, Interrupted("Ctrl-C"))))
    made = store.put_file(CTX, "a", Made("a", LARGE))
    assert made.digest == Made("a", LARGE).digest
    assert store.get(CTX, "a") == Made("a", LARGE).content
    [left] = store.unfinished(CTX, "")
    store.abort(CTX, left)
    assert store.unfinished(CTX, "") == []
    assert store.get(CTX, "a") == Made("a", LARGE).content


def test_aborting_may_be_repeated_and_leaves_objects_alone(store: ObjectStore) -> None:
    """What an upload left is gone, once and for all; the upload begins again."""
    with pytest.raises(Interrupted):
        store.put_file(CTX, "a", Made("a", LARGE, before=Stops(LARGE - MIB, Interrupted("Ctrl-C"))))
    [left] = store.unfinished(CTX, "")
    store.abort(CTX, left)
    store.abort(CTX, left)
    assert store.unfinished(CTX, "") == []
    store.put_file(CTX, "a", Made("a", LARGE))
    store.abort(CTX, left)
    assert store.get(CTX, "a") == Made("a", LARGE).content


def test_a_source_that_fails_makes_no_object(store: ObjectStore) -> None:
    """Whatever the source raises comes out, and there is nothing under the key, nor anything to go on with."""
    with pytest.raises(SourceChanged):
        store.put_file(CTX, "a", Made("a", LARGE, before=Stops(LARGE - MIB, SourceChanged("was cut short"))))
    assert store.unfinished(CTX, "") == []
    assert store.find(CTX, "a") is None
    assert store.put_file(CTX, "a", Made("a", LARGE)).size == LARGE


def test_a_cancel_and_a_deadline_end_it(store: ObjectStore) -> None:
    """Between two parts, with what was sent kept."""
    cancel = CancelToken()
    ctx = Context(cancel=cancel)

    def stop(at: int) -> None:
        if at > LARGE // 2:
            cancel.cancel()

    with pytest.raises(Interrupted):
        store.put_file(ctx, "a", Made("a", LARGE, before=stop))
    with pytest.raises(DeadlineExceeded):
        store.put_file(Context(deadline=CTX.monotonic()), "a", Made("a", LARGE))
    assert store.find(CTX, "a") is None
    assert store.put_file(CTX, "a", Made("a", LARGE)).size == LARGE


def test_progress_rises_to_the_size(store: ObjectStore) -> None:
    """In bytes, of all there are where that is known."""
    for known in (True, False):
        recorder = Recorder()
        key = f"a-{known}"
        store.put_file(CTX.reporting_to(recorder), key, Made("a", LARGE, known=known))
        told = [event for event in recorder.events if isinstance(event, Progress)]
        done = [event.done for event in told]
        assert len(done) > 1
        assert done == sorted(done)
        assert done[-1] == LARGE
        assert {(event.total, event.unit) for event in told} == {(LARGE if known else None, "bytes")}
        assert all(key in event.what for event in told)


def test_several_putting_one_file_at_once_agree(store: ObjectStore) -> None:
    """Each gets the same object, whole, and nothing is left over."""
    made: list[StoredObject] = []
    together(4, lambda number: made.append(store.put_file(CTX, "a", Made("a", LARGE))))
    assert len(made) == 4
    assert {(each.size, each.digest) for each in made} == {(LARGE, Made("a", LARGE).digest)}
    assert store.get(CTX, "a") == Made("a", LARGE).content
    assert store.unfinished(CTX, "") == []


def test_of_several_sources_for_one_key_one_wins(store: ObjectStore) -> None:
    """The others are told whose bytes are there."""
    ended: dict[int, object] = {}

    def put(number: int) -> None:
        try:
            ended[number] = store.put_file(CTX, "a", Made(f"{number}", LARGE))
        except ObjectTaken as taken:
            ended[number] = taken.held

    together(4, put)
    [won] = [number for number, end in ended.items() if isinstance(end, StoredObject)]
    digest = Made(f"{won}", LARGE).digest
    assert all(end == digest for number, end in ended.items() if number != won)
    assert store.get(CTX, "a") == Made(f"{won}", LARGE).content
    assert store.unfinished(CTX, "") == []


# ------------------------------------------------------------------------------------------------- stores in a bucket


@pytest.mark.parametrize("store", [S3Store, GcsStore])
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("", "no address"),
        ("/prefix", "no address"),
        ("acme/../b", "cannot be an object's key"),
        ("acme/a b", "cannot be an object's key"),
    ],
)
def test_what_is_no_address_of_a_bucket_is_refused(store: type[S3Store | GcsStore], place: str, said: str) -> None:
    """Before anything is asked, with how one is written; and so is the other cloud's."""
    schemes = {S3Store: "s3", GcsStore: "gs"}
    scheme = schemes.pop(store)
    with pytest.raises(UsageError, match=said):
        store(f"{scheme}://{place}")
    [other] = schemes.values()
    with pytest.raises(UsageError, match="no address") as raised:
        store(f"{other}://acme/{place}")
    assert f"write {scheme}://BUCKET" in str(raised.value.hint)


@pytest.mark.sandbox
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_prefixes_keep_ledgers_apart(scheme: str) -> None:
    """Two addresses in one bucket see nothing of each other; a slash at the end changes nothing."""
    connect: Callable[[str], ObjectStore] = s3_stores() if scheme == "s3" else GcpSandbox(SystemClock()).store
    one, two = connect(f"{scheme}://acme/one"), connect(f"{scheme}://acme/one2/")
    one.put_if_absent(CTX, "a/1", b"1")
    assert list(two.keys(CTX, "")) == []
    assert list(one.keys(CTX, "")) == ["a/1"]
    assert list(connect(f"{scheme}://acme").keys(CTX, "")) == ["one/a/1"]
    assert two.address == f"{scheme}://acme/one2"
