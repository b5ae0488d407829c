"""The Google store where it is its own: lost answers, parts that are objects, permissions, and what a resume sends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

import pytest

from osvdeploy.cloud.gcp import objects
from osvdeploy.cloud.gcp.objects import SOURCES, GcsStore, checksum, part_size
from osvdeploy.context import Clock, Context
from osvdeploy.errors import Interrupted, Refused, Unavailable, Unready
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sizes import MIB
from tests.cloud.gcp.script import Script
from tests.contract.gcp_place import GcpSandbox
from tests.sources import Made, stopping

pytestmark = pytest.mark.sandbox

LARGE = 18 * MIB
"""Five parts, the last of 2 MiB."""


class World(GcpSandbox):
    """A bucket in the sandbox, in virtual time, and stores on it."""

    def __init__(self) -> None:
        super().__init__()
        self.faults = self.sandbox.faults

    def connect(self, address: str = "gs://acme/releases") -> GcsStore:
        return self.store(address)

    def calls(self, since: int = 0) -> list[str]:
        return [call.operation for call in self.sandbox.calls(since)]

    @property
    def mark(self) -> int:
        return len(self.sandbox.calls())


class Waiting:
    """A clock that lets something be done while somebody waits, once."""

    def __init__(self, clock: Clock, meanwhile: Callable[[], bool]) -> None:
        self._clock, self._meanwhile = clock, meanwhile
        self.told: list[bool] = []

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def wait(self, seconds: float, cancelled: threading.Event) -> None:
        if not self.told:
            self.told.append(self._meanwhile())
        self._clock.wait(seconds, cancelled)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def store(world: World) -> GcsStore:
    return world.connect()


@pytest.mark.parametrize("kind", [FaultKind.AFTER, FaultKind.HANG_AFTER])
def test_a_put_whose_answer_was_lost_is_recognized(world: World, store: GcsStore, kind: FaultKind) -> None:
    """The repetition meets its own object, and is told so; whoever comes later with the same bytes did not put it."""
    world.faults.add(Fault("objects.insert", kind))
    assert store.put_if_absent(world.ctx, "a", b"same")
    assert not world.connect().put_if_absent(world.ctx, "a", b"same")


def test_a_put_that_never_arrived_does_not_win(world: World, store: GcsStore) -> None:
    """Where another's object came between two attempts, ours is told that it lost."""
    world.faults.add(Fault("objects.insert", FaultKind.BEFORE))
    other = Waiting(world.clock, lambda: world.connect().put_if_absent(world.ctx, "a", b"same"))
    assert not store.put_if_absent(Context(clock=other), "a", b"same")
    assert other.told == [True]


@pytest.mark.parametrize("sent", [1, 2, 3])
def test_the_next_run_sends_only_what_is_missing(world: World, store: GcsStore, sent: int) -> None:
    """From another process, with nothing remembered but by Google: the parts that are there are not sent again."""
    with pytest.raises(Interrupted):
        store.put_file(world.ctx, "a", Made("a", LARGE, piece=MIB, before=stopping((sent + 1) * 4 * MIB)))
    first, mark = world.calls().count("objects.insert"), world.mark
    assert first >= sent

    made = world.connect().put_file(world.ctx, "a", Made("a", LARGE, piece=333_333))

    assert world.calls(mark).count("objects.insert") == 5 - first
    assert made.size == LARGE
    assert store.get(world.ctx, "a") == Made("a", LARGE).content


def test_a_part_that_is_not_the_source_s_is_sent_again(world: World, store: GcsStore) -> None:
    """What stands there is believed by its checksum alone."""
    with pytest.raises(Interrupted):
        store.put_file(world.ctx, "a", Made("a", LARGE, piece=MIB, before=stopping(LARGE - MIB)))
    [left] = store.unfinished(world.ctx, "a")
    url = "https://storage.googleapis.com/upload/storage/v1/b/acme/o"
    query = {"uploadType": "media", "name": f"releases/{left.id}/000001"}
    assert world.session().post(url, params=query, data=bytes(4 * MIB)).ok
    world.connect().put_file(world.ctx, "a", Made("a", LARGE))
    assert store.get(world.ctx, "a") == Made("a", LARGE).content
    assert store.unfinished(world.ctx, "") == []


@pytest.mark.parametrize("kind", [FaultKind.BEFORE, FaultKind.AFTER, FaultKind.THROTTLED, FaultKind.HANG])
@pytest.mark.parametrize(
    "operation", ["objects.get", "objects.list", "objects.insert", "objects.compose", "objects.delete"]
)
def test_a_call_that_goes_wrong_once_is_survived(
    world: World, store: GcsStore, operation: str, kind: FaultKind
) -> None:
    """Lost on the way there or back, throttled or left hanging: the object is whole, and nothing is left over."""
    under = f"releases/.parts/a/{Made('a', 9 * MIB).digest[:16]}"
    world.store("gs://acme")._insert(world.ctx, f"{under}/000009", b"left by an earlier run", {})
    world.faults.add(Fault(operation, kind))
    made = store.put_file(world.ctx, "a", Made("a", 9 * MIB))
    assert store.get(world.ctx, "a") == Made("a", 9 * MIB).content
    assert made.digest == Made("a", 9 * MIB).digest
    assert store.unfinished(world.ctx, "") == []


def test_parts_that_are_taken_away_are_sent_again(world: World, store: GcsStore) -> None:
    """Somebody's clean-up costs time, and nothing else."""
    gone: list[str] = []

    def steal(at: int) -> None:
        if at > 15 * MIB and not gone:
            for left in world.connect().unfinished(world.ctx, ""):
                world.connect().abort(world.ctx, left)
                gone.append(left.id)

    store.put_file(world.ctx, "a", Made("a", LARGE, before=steal))
    assert gone
    assert store.get(world.ctx, "a") == Made("a", LARGE).content


def test_who_loses_parts_again_and_again_gives_up(world: World, store: GcsStore) -> None:
    """With what to do."""

    def steal(at: int) -> None:
        if at > 15 * MIB:
            for left in world.connect().unfinished(world.ctx, ""):
                world.connect().abort(world.ctx, left)

    with pytest.raises(Unavailable, match="again and again"):
        store.put_file(world.ctx, "a", Made("a", LARGE, before=steal))


def test_a_refusal_takes_the_parts_away(world: World, store: GcsStore) -> None:
    """Nothing is left where nothing more may be put."""
    world.faults.add(Fault("objects.insert", FaultKind.DENIED, skip=2, times=None))
    with pytest.raises(Refused, match=r"objects\.insert"):
        store.put_file(world.ctx, "a", Made("a", LARGE))
    assert store.unfinished(world.ctx, "") == []


def test_many_parts_are_composed_by_way_of_others(
    world: World, store: GcsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there are, 32 at a time, and none of them is left."""
    monkeypatch.setattr(objects, "part_size", lambda number: 1000)
    source = Made("a", (SOURCES * SOURCES + 40) * 1000 + 7)
    store.put_file(world.ctx, "a", source)
    assert store.get(world.ctx, "a") == source.content
    assert store.unfinished(world.ctx, "") == []
    assert list(store.keys(world.ctx, "")) == ["a"]


def test_a_small_file_takes_one_put(world: World, store: GcsStore) -> None:
    """What fits into one part is no composition."""
    mark = world.mark
    store.put_file(world.ctx, "a", Made("a", 4 * MIB))
    *looks, put = world.calls(mark)
    assert (sorted(looks), put) == (["objects.get", "objects.list"], "objects.insert")


def test_parts_go_with_the_object_that_is_made_of_them(world: World, store: GcsStore) -> None:
    """In one call for all: nothing is listed or deleted afterwards."""
    mark = world.mark
    store.put_file(world.ctx, "a", Made("a", LARGE))
    assert world.calls(mark)[2:] == ["objects.insert"] * 5 + ["objects.compose"]
    assert store.unfinished(world.ctx, "") == []


def test_parts_that_stay_are_taken_away(world: World, store: GcsStore) -> None:
    """Those of an earlier run that the object is not made of."""
    under = f"releases/.parts/a/{Made('a', LARGE).digest[:16]}"
    for name in ("000009", "joined-000001"):
        world.store("gs://acme")._insert(world.ctx, f"{under}/{name}", b"left by an earlier run", {})
    mark = world.mark
    store.put_file(world.ctx, "a", Made("a", LARGE))
    assert world.calls(mark)[-3:] == ["objects.list", "objects.delete", "objects.delete"]
    assert store.unfinished(world.ctx, "") == []


def test_parts_hold_what_a_disk_may_have() -> None:
    """Most archives in one composition, and terabytes in no more parts than can be counted."""
    assert part_size(1) == part_size(256) == 4 * MIB
    assert part_size(257) == 8 * MIB
    assert sum(part_size(number) for number in range(1, 4000)) > 100 << 30


def test_checksums_are_written_as_google_does() -> None:
    """The check value of CRC-32C (RFC 3720, B.4: of nine digits), big-endian in base64."""
    assert checksum(b"123456789") == "4waSgw=="


def test_a_body_that_was_damaged_is_not_believed(world: World) -> None:
    """By the checksum that comes with it."""
    world.store("gs://acme").put_if_absent(world.ctx, "a", b"right")
    with pytest.raises(Unavailable, match="damaged"):
        objects._require_sum(f"crc32c={checksum(b'right')},md5=x", b"wrong", "gs://acme/a")
    objects._require_sum(f"crc32c={checksum(b'right')}", b"right", "gs://acme/a")
    objects._require_sum("", b"right", "gs://acme/a")


# ------------------------------------------------------------------------------------------------------ the bucket


def test_a_bucket_that_is_not_there_is_named(world: World) -> None:
    """With what makes it, by whatever is asked first."""
    store = world.connect("gs://nowhere/x")
    for ask in (
        lambda: store.get(world.ctx, "a"),
        lambda: store.find(world.ctx, "a"),
        lambda: list(store.keys(world.ctx, "")),
        lambda: store.delete(world.ctx, "a"),
        lambda: store.refuse_unwritable(world.ctx, "a"),
        lambda: store.put_if_absent(world.ctx, "a", b""),
    ):
        with pytest.raises(Unready, match="there is no bucket nowhere") as raised:
            ask()
        assert "gcloud storage buckets create gs://nowhere" in str(raised.value.hint)


def test_a_missing_permission_is_named(world: World) -> None:
    """Before anything is put, with the role that has it."""
    script = Script([(200, b'{"permissions": ["storage.objects.get", "storage.objects.list"]}')])
    with pytest.raises(Refused, match=r"storage\.objects\.create, storage\.objects\.delete not allowed") as raised:
        GcsStore("gs://acme/x", script.gcp()).refuse_unwritable(world.ctx, "a")
    assert "roles/storage.objectUser on the bucket acme" in str(raised.value.hint)


def test_more_keys_than_a_page_are_listed(world: World, store: GcsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, and no page is asked for that nobody reads."""
    monkeypatch.setattr(objects, "PAGE", 3)
    for number in range(8):
        store.put_if_absent(world.ctx, f"{number}", b"")
    mark = world.mark
    keys = store.keys(world.ctx, "")
    assert next(keys) == "0"
    assert world.calls(mark) == ["objects.list"]
    assert list(keys) == [f"{number}" for number in range(1, 8)]
    assert list(store.keys(world.ctx, "", limit=3)) == ["0", "1", "2"]
    assert world.calls(mark) == ["objects.list"] * 4
