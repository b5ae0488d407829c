"""Publishing through archives, killed or refused at every single call it makes, or with every answer lost.

Killed: the next run converges, with nothing remembered on this machine: one image of each name, nothing in the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from osvdeploy.cloud.interfaces import ArchivePlace
from osvdeploy.cloud.memory import MemoryArchiveImages, MemoryStore
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import Refused
from osvdeploy.osv.image import FirstBlock, RawImage
from osvdeploy.publish.archiving import kept_folder, publish_archived, publish_kept
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.google.compute.archive import BLOCK, opened
from osvdeploy.sandbox.wire import Call
from osvdeploy.sizes import KIB
from tests.contract.gcp_place import PROJECT, GcpSandbox
from tests.faults.venues import Killed, dying
from tests.publish.disk import raw_disk
from tests.publish.test_archiving import content, gcp_place, order, with_line_of
from tests.sandbox.google.place import disk_of

pytestmark = pytest.mark.slow

FAMILY = "orders"


class Venue(Protocol):
    """One empty place in virtual time, in which one call of a connection can be the last one, or be refused."""

    ctx: Context
    calls: int

    def connect(self, *, kill: int | None = None, after: bool = False, refuse: int | None = None) -> ArchivePlace: ...
    def disk(self, name: str) -> list[bytes]: ...


class Memory:
    """The memory fake."""

    def __init__(self) -> None:
        self.ctx = Context(clock=VirtualClock())
        self._store = MemoryStore()
        self._images = MemoryArchiveImages(self._store)

    @property
    def calls(self) -> int:
        return len(self._store.calls.calls)

    def connect(self, *, kill: int | None = None, after: bool = False, refuse: int | None = None) -> ArchivePlace:
        faults = self._store.calls
        faults.clear()
        if kill is not None:
            faults.fail("*", Killed(), at=kill, after=after)
            faults.fail("*", Killed(), at=kill + 1, times=1_000_000)
        if refuse is not None:
            faults.fail("*", Refused("not allowed"), at=refuse)
        return self._images.place

    def disk(self, name: str) -> list[bytes]:
        blocks = dict(opened([self._images.archive(name)]).blocks)
        return [blocks.get(index, bytes(BLOCK)) for index in range(max(blocks) + 1)]


class Google:
    """Google in the sandbox, in process: every request counts, repetitions included."""

    def __init__(self) -> None:
        # So fast that an image is waited for in few calls.
        self.account = GcpSandbox(speed=25.0)
        self.ctx = self.account.ctx
        self.calls = 0

    def connect(self, *, kill: int | None = None, after: bool = False, refuse: int | None = None) -> ArchivePlace:
        self.account.sandbox.hook = dying(self, kill, after)
        self.account.sandbox.faults.clear()
        if refuse is not None:
            self.account.sandbox.faults.add(Fault("*", FaultKind.DENIED, skip=refuse - 1))
        return gcp_place(self.account)

    def disk(self, name: str) -> list[bytes]:
        return disk_of(self.account.sandbox, f"{PROJECT}/{name.replace('.', '-')}")


VENUES = pytest.mark.parametrize("kind", [Memory, Google])


@dataclass
class Run:
    """Publishes one image and one release on it, as one command of a user does."""

    venue: Venue
    raw: RawImage

    def __call__(self, place: ArchivePlace) -> None:
        release = order(self.raw, family=f"{FAMILY}-production")
        publish_archived(
            self.venue.ctx,
            self.raw,
            app="orders",
            version="1.0.0",
            tags={},
            place=place,
            family=FAMILY,
            release=release,
        )

    def check(self, what: object = None) -> None:
        """Each image once, its disk whole, its family leading to it, and nothing on its way."""
        place, ctx = self.venue.connect(), self.venue.ctx
        release = order(self.raw).id
        assert sorted(each.name for each in place.images.owned(ctx, {})) == ["orders-1.0.0", release], what
        for family, name in ((FAMILY, "orders-1.0.0"), (f"{FAMILY}-production", release)):
            current = place.families.current(ctx, family)
            assert current is not None and current.name == name, what
        below, above, disk = self.venue.disk("orders-1.0.0"), self.venue.disk(release), content(self.raw)
        assert below[1:2] == disk[1:2] and below[0][: 32 * KIB] == disk[0][: 32 * KIB], what
        assert [index for index in range(3) if below[index] != above[index]] == [0], what
        assert self.left(place) == [], what

    def left(self, place: ArchivePlace) -> list[str]:
        ctx = self.venue.ctx
        return [*place.store.keys(ctx, ""), *(each.key for each in place.store.unfinished(ctx, ""))]


@pytest.fixture
def raw(tmp_path: Path) -> RawImage:
    return raw_disk(tmp_path / "disk.raw", blocks=3, block=512 * KIB)


def count_calls(kind: Callable[[], Venue], raw: RawImage) -> int:
    """How many calls a run makes that nothing goes wrong in."""
    venue = kind()
    run = Run(venue, raw)
    run(venue.connect())
    calls = venue.calls
    run.check()
    return calls


@VENUES
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_call(kind: Callable[[], Venue], raw: RawImage, after: bool) -> None:
    """Whichever call is the last thing a process did, before or after it took effect, the next run converges."""
    for number in range(1, count_calls(kind, raw) + 1):
        venue = kind()
        run = Run(venue, raw)
        with pytest.raises(Killed):
            run(venue.connect(kill=number, after=after))

        run(venue.connect())

        run.check(number)


@VENUES
def test_refused_at_any_call(kind: Callable[[], Venue], raw: RawImage) -> None:
    """Whichever call is refused, nothing half-made is left; and once the cause is gone, the same command works. Not to
    be allowed to clear up ends nothing."""
    for number in range(1, count_calls(kind, raw) + 1):
        venue = kind()
        run = Run(venue, raw)
        try:
            run(venue.connect(refuse=number))
        except Refused:
            place = venue.connect()
            assert run.left(place) == [], number
            # The image stands where it was the release that was refused.
            assert len(place.images.owned(venue.ctx, {})) in (0, 1), number
        run(venue.connect())
        run.check(number)


@VENUES
def test_killed_again_and_again(kind: Callable[[], Venue], raw: RawImage) -> None:
    """Each process gets one call further than the one before, and is killed too."""
    venue = kind()
    run = Run(venue, raw)
    for number in range(1, 60):
        try:
            run(venue.connect(kill=number, after=bool(number % 2)))
        except Killed:
            continue
        break
    run(venue.connect())
    run.check()


@pytest.mark.parametrize("fault", [FaultKind.AFTER, FaultKind.BEFORE, FaultKind.BROKEN, FaultKind.THROTTLED])
def test_any_answer_may_be_lost(raw: RawImage, fault: FaultKind) -> None:
    """Each call once: asked for again, nothing happens twice."""
    for number in range(1, count_calls(Google, raw) + 1):
        venue = Google()
        run = Run(venue, raw)
        place = venue.connect()
        venue.account.sandbox.faults.add(Fault("*", fault, skip=number - 1))
        run(place)
        run.check(number)
        begun = [
            each["operationType"]
            for each in venue.account.session()
            .get(f"https://compute.googleapis.com/compute/v1/projects/{PROJECT}/global/operations")
            .json()["items"]
        ]
        assert sorted(begun) == ["insert", "insert", "patch", "patch"], number


def test_what_fails_half_way_is_made_anew(raw: RawImage) -> None:
    """An archive that goes while it is read makes no image; the next run sends it again."""
    venue = Google()
    run = Run(venue, raw)
    place = venue.connect()

    def lose(moment: Moment, call: Call) -> None:
        if call.operation == "globalOperations.wait" and moment is Moment.BEFORE:
            venue.account.sandbox.hook = None
            store = venue.account.store("gs://acme/osvdeploy")
            for key in list(store.keys(venue.ctx, "")):
                store.delete(venue.ctx, key)

    venue.account.sandbox.hook = lose
    with pytest.raises(Refused, match="was not found"):
        run(place)
    run(venue.connect())
    run.check()


LATER = "orders-1.0.0-5e6f7a8b"


@dataclass
class Kept(Run):
    """The same, kept; and then a release of another environment of what is kept, as another machine makes it."""

    first: FirstBlock | None = None

    def __call__(self, place: ArchivePlace) -> None:
        ctx = self.venue.ctx
        publish_archived(
            ctx, self.raw, app="orders", version="1.0.0", tags={}, place=place, release=order(self.raw), keep=True
        )
        made = publish_kept(
            ctx,
            self.raw.digest,
            lambda boot: order(self.raw, LATER),
            app="orders",
            tags={},
            place=place,
            first=self.first,
        )
        assert made is not None

    def check(self, what: object = None) -> None:
        place, ctx = self.venue.connect(), self.venue.ctx
        release, folder = order(self.raw).id, kept_folder("orders", self.raw.digest)
        assert sorted(each.name for each in place.images.owned(ctx, {})) == ["orders-1.0.0", release, LATER], what
        assert self.venue.disk(LATER) == self.venue.disk(release), what
        assert self.left(place) == [f"{folder}{name}" for name in ("body", "head", "sum")], what


@VENUES
@pytest.mark.parametrize("how", ["killed before", "killed after", "refused"])
def test_a_kept_disk_and_what_is_made_of_it(kind: Callable[[], Venue], raw: RawImage, how: str) -> None:
    """Whichever call is a process's last, or is refused, the next one makes both whole, and keeps the disk once."""
    first = with_line_of(raw)
    whole = Kept(kind(), raw, first)
    whole(whole.venue.connect())
    calls = whole.venue.calls
    whole.check()
    for number in range(1, calls + 1):
        run = Kept(kind(), raw, first)
        try:
            if how == "refused":
                run(run.venue.connect(refuse=number))
            else:
                run(run.venue.connect(kill=number, after=how.endswith("after")))
        except (Killed, Refused):
            pass
        run(run.venue.connect())
        run.check(number)
