"""What may go: nothing that serves, is warm, pinned, being rolled out or used by another service; but all else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.api import declared, services, wiring
from osvdeploy.api.services import _find_garbage
from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import (
    CloudImage,
    GroupState,
    ReleaseId,
    Slot,
    StoredObject,
    Tags,
    UnfinishedObject,
    UploadedDisk,
)
from osvdeploy.errors import Refused, Unavailable
from osvdeploy.events import Warned
from osvdeploy.rollout.ledger import Head, Ledger, Served, SlotRecord
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Outcome, Stage
from osvdeploy.rollout.releases import Release, group_name
from osvdeploy.rollout.retention import Garbage, OnItsWay, find_garbage, needed_releases
from tests.rollout import made
from tests.rollout.made import NOW, after
from tests.rollout.service import Service

pytestmark = pytest.mark.whole

OURS, THEIRS = "hello/production", "hello/staging"
VERSIONS = tuple(f"1.{number}.0" for number in range(6))
HOUR, DAY = 3600.0, 86_400.0


def release(version: str) -> Release:
    return made.release(version)


def ids(*versions: str) -> set[ReleaseId]:
    return {release(version).id for version in versions}


def slot(version: str, warm: float | None = None) -> SlotRecord:
    """What stands in a slot; ``warm`` in seconds from now."""
    one = release(version)
    return SlotRecord(one.id, group_name(OURS, one, 1), NOW, None if warm is None else after(warm))


def head(version: str | None = "1.0.0", /, **changes: object) -> Head:
    """1.0.0 serves in blue, and that is all."""
    slots = {Slot.BLUE: slot(version)} if version else {}
    plain = Head(service=OURS, n=1, epoch=1, nonce="", written=NOW, why="", slots=slots)
    return replace(replace(plain, serving=Slot.BLUE if version else None), **changes)  # type: ignore[arg-type]  # the caller names fields


def image_tags(one: Release, service: str | None) -> dict[str, str]:
    """Tags of a release of a service; of the image under it where ``service`` is None."""
    if service is None:
        return tags.image_tags(one.app, one.version, one.image)
    return tags.release_tags(
        tags.service_tags(one.app, service, "ledger"),
        release=one.id,
        version=one.version,
        image=one.image,
        configuration=one.configuration,
        digest=one.digest,
    )


@dataclass
class Holdings:
    """What an account holds of the app hello."""

    groups: list[GroupState] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    images: list[CloudImage] = field(default_factory=list)
    disks: list[UploadedDisk] = field(default_factory=list)

    def add(self, version: str, service: str | None, *, age: float = DAY * 9, image: bool = True) -> str:
        """A disk, and unless told otherwise its image: the name of both."""
        one = release(version)
        name = f"hello-{version}" if service is None else f"{one.id}@{service}"
        digest = one.image if service is None else one.digest
        labels: Tags = image_tags(one, service)
        self.disks.append(UploadedDisk(f"disk of {name}", name, digest, 1, labels, after(-age)))
        if image:
            self.images.append(CloudImage(f"image of {name}", name, digest, f"disk of {name}", labels, after(-age)))
        return name

    def tag(self, name: str, **tagged: str | None) -> None:
        """Give an image and its disk tags, by the names that osvdeploy.cloud.tags has for them; None: take it away."""
        changed = {getattr(tags, key): value for key, value in tagged.items()}

        def told(there: Tags) -> dict[str, str]:
            return {key: value for key, value in {**there, **changed}.items() if value is not None}

        self.images = [replace(each, tags=told(each.tags)) if each.name == name else each for each in self.images]
        self.disks = [replace(each, tags=told(each.tags)) if each.name == name else each for each in self.disks]

    def add_group(self, version: str, deleting: bool = False) -> str:
        one = release(version)
        name = group_name(OURS, one, 1)
        self.groups.append(made.group(name, one.id, deleting=deleting))
        self.templates.append(name)
        return name

    def garbage(
        self,
        head: Head,
        deployed: Iterable[str] = VERSIONS,
        keep: int = 0,
        now: datetime = NOW,
        elsewhere: Iterable[str] = (),
        carrying: Collection[Slot] = (),
        wanted: Collection[str] = (),
    ) -> Garbage:
        known = [release(version) for version in deployed]
        return find_garbage(
            head,
            known,
            keep,
            now,
            groups=self.groups,
            templates=self.templates,
            images=self.images,
            disks=self.disks,
            elsewhere=[release(version).id for version in elsewhere],
            carrying=carrying,
            wanted=wanted,
        )

    def sweep(self, garbage: Garbage) -> None:
        groups, templates = (dict(found) for found in (garbage.groups, garbage.templates))
        images, disks = {image.id for image, _ in garbage.images}, {disk.id for disk, _ in garbage.disks}
        self.groups = [group for group in self.groups if group.name not in groups]
        self.templates = [name for name in self.templates if name not in templates]
        self.images = [image for image in self.images if image.id not in images]
        self.disks = [disk for disk in self.disks if disk.id not in disks]


def named(things: Sequence[tuple[CloudImage | UploadedDisk, str]]) -> set[str]:
    return {thing.name for thing, _ in things}


# -------------------------------------------------------------------------------------------------------- needed


def test_what_serves_is_needed() -> None:
    """And nothing else, where nothing else is asked for."""
    assert needed_releases(head("1.0.0"), 0, NOW) == ids("1.0.0")


def test_what_is_warm_is_needed_until_it_is_cold() -> None:
    """To the second that the ledger names."""
    warm = head("1.1.0", slots={Slot.BLUE: slot("1.1.0"), Slot.GREEN: slot("1.0.0", warm=60)})
    assert needed_releases(warm, 0, NOW) == ids("1.0.0", "1.1.0")
    assert needed_releases(warm, 0, after(60)) == ids("1.1.0")


def test_both_sides_of_a_run_are_needed() -> None:
    """As long as it is not over."""
    run = replace(made.run(), candidate=release("1.2.0").id, stable=release("1.1.0").id)
    assert needed_releases(head("1.0.0", run=run), 0, NOW) == ids("1.0.0", "1.1.0", "1.2.0")
    over = run.enter(Stage.DONE, NOW, "")
    assert needed_releases(head("1.0.0", run=over), 0, NOW) == ids("1.0.0")


@pytest.mark.parametrize("keep", [0, 1, 2, 9])
def test_the_newest_that_served_are_needed(keep: int) -> None:
    """As many as asked for: they are what one can go back to."""
    served = tuple(Served(release(version).id, NOW) for version in VERSIONS[:4])
    wanted = ids(*VERSIONS[:4][4 - min(keep, 4) :])
    assert needed_releases(head(None, served=served), keep, NOW) == wanted


def test_what_served_within_the_age_is_needed_beside_the_newest() -> None:
    """A release served until the next one did, however long ago it began; the number asks for no more than it did."""
    served = tuple(Served(release(version).id, after(day * DAY)) for day, version in enumerate(VERSIONS[:4]))
    now, one = after(10 * DAY), head(None, served=served)
    assert needed_releases(one, 1, now, age=7 * DAY) == ids("1.3.0")
    # 1.2.0 served until 1.3.0 did, seven days ago.
    assert needed_releases(one, 1, now, age=7 * DAY + 1) == ids("1.2.0", "1.3.0")
    assert needed_releases(one, 1, now, age=90 * DAY) == ids(*VERSIONS[:4])
    assert needed_releases(one, 3, now, age=1.0) == ids(*VERSIONS[1:4])


@given(st.lists(st.integers(0, 40), max_size=6, unique=True), st.integers(0, 6), st.integers(0, 50))
def test_an_age_only_ever_keeps_more(days: list[int], keep: int, age: int) -> None:
    """And the longer it is, the more: nobody loses a release by asking for an age."""
    served = tuple(
        Served(release(version).id, after(day * DAY)) for day, version in zip(sorted(days), VERSIONS, strict=False)
    )
    now, one = after(40 * DAY), head("1.0.0", served=served)
    kept = [needed_releases(one, keep, now, age=each) for each in (None, age * DAY, (age + 1) * DAY)]
    assert kept[0] <= kept[1] <= kept[2]


def test_of_a_destroyed_service_the_pinned_alone_is_needed() -> None:
    """Whatever once served."""
    served = tuple(Served(release(version).id, NOW) for version in VERSIONS)
    gone = head(None, destroyed=True, served=served, pins=(release("1.3.0").id,))
    assert needed_releases(gone, 9, NOW) == ids("1.3.0")


# -------------------------------------------------------------------------------------------------------- garbage


def test_a_group_that_neither_serves_nor_is_warm_goes() -> None:
    """Its template too: whoever goes back to the release makes another. One that is on its way is left alone."""
    account = Holdings()
    serving, cold, going = account.add_group("1.0.0"), account.add_group("1.1.0"), account.add_group("1.2.0", True)
    served = (Served(release("1.1.0").id, NOW),)
    found = account.garbage(head("1.0.0", served=served), keep=1)
    assert {name for name, _ in found.groups} == {cold}
    assert {name for name, _ in found.templates} == {cold, going}
    assert serving not in dict(found.templates)


def test_another_group_of_what_serves_goes() -> None:
    """One that no slot has: it was given up, or made late. Also where it stands in the slot that has the traffic, as
    long as the group that the ledger means stands there too."""
    account = Holdings()
    serving, one = account.add_group("1.0.0"), release("1.0.0")
    other = group_name(OURS, one, 7)
    account.groups.append(made.group(other, one.id, tags={tags.SLOT: "blue"}))
    account.templates.append(other)
    found = account.garbage(head("1.0.0"), carrying=(Slot.BLUE,))
    assert found.groups == ((other, f"{one.id} serves from {serving}"),)
    assert [name for name, _ in found.templates] == [other]
    account.groups = [group for group in account.groups if group.name == other]
    assert account.garbage(head("1.0.0"), carrying=(Slot.BLUE,)).groups == ()


def test_a_release_goes_with_the_image_under_it() -> None:
    """When nobody else stands on that image; with both disks."""
    account = Holdings()
    names = {account.add("1.1.0", None), account.add("1.1.0", OURS)}
    account.add("1.0.0", None), account.add("1.0.0", OURS)
    found = account.garbage(head("1.0.0"))
    assert named(found.images) == named(found.disks) == names


def test_an_image_goes_though_another_version_has_the_same_bytes() -> None:
    """What a release stands on is its own version's image: where only the version was raised, there are two of the same
    digest, and the one that is needed keeps the other no longer than its own release does."""
    account = Holdings()
    names = {account.add("1.1.0", None), account.add("1.1.0", OURS)}
    account.add("1.0.0", None), account.add("1.0.0", OURS)
    one = release("1.0.0")
    account.images = [
        replace(image, digest=one.image if image.name in ("hello-1.0.0", "hello-1.1.0") else image.digest,
                tags={**image.tags, tags.IMAGE: one.image})
        for image in account.images
    ]  # fmt: skip
    found = account.garbage(head("1.0.0"))
    assert named(found.images) == names


def test_an_image_that_another_service_stands_on_stays() -> None:
    """Its ledger is not known here: a release of its own in the account is what says so."""
    account = Holdings()
    account.add("1.1.0", None), account.add("1.1.0", THEIRS)
    ours = account.add("1.1.0", OURS)
    found = account.garbage(head("1.0.0"))
    assert named(found.images) == named(found.disks) == {ours}


def test_an_image_that_was_never_deployed_from_here_is_left_alone() -> None:
    """It was published for somebody."""
    account = Holdings()
    account.add("1.1.0", None)
    assert account.garbage(head("1.0.0"), deployed=["1.0.0"]).empty


def a_programs_image(account: Holdings, version: str) -> str:
    """An image of no one service's, with the image under it."""
    account.add(version, None)
    name = account.add(version, OURS)
    account.tag(name, SERVICE=None, LEDGER=None, PROGRAMS="0a1b2c3d.1")
    return name


def test_an_image_that_a_program_has_is_the_programs() -> None:
    """With the image under it, though it was rolled out from here and is not needed any more."""
    account = Holdings()
    name = a_programs_image(account, "1.1.0")
    assert account.garbage(head("1.0.0")).empty
    account.tag(name, SERVICE=OURS, LEDGER="ledger")
    assert account.garbage(head("1.0.0")).empty


def test_a_retired_image_goes_when_nothing_needs_it() -> None:
    """Neither our ledger's releases nor another service's templates; and with it the image under it."""
    account = Holdings()
    name = a_programs_image(account, "1.1.0")
    account.tag(name, PROGRAMS=None, RETIRED="2026-05-01T10:00:00+00:00")
    assert account.garbage(head("1.1.0")).empty
    assert account.garbage(head("1.0.0"), elsewhere=["1.1.0"]).empty
    found = account.garbage(head("1.0.0"))
    assert named(found.images) == named(found.disks) == {name, "hello-1.1.0"}
    account.images = [image for image in account.images if image.name != name]
    assert named(account.garbage(head("1.0.0")).disks) == {name, "hello-1.1.0"}


@pytest.mark.parametrize("service", [OURS, None])
def test_what_was_made_just_now_may_be_of_a_deploy_under_way(service: str | None) -> None:
    """A deploy publishes before it takes the lease. An hour later it is over; a destroyed service waits for none."""
    account = Holdings()
    name = account.add("1.1.0", service, age=HOUR - 1)
    assert account.garbage(head("1.0.0")).empty
    assert named(account.garbage(head("1.0.0"), now=after(1)).images) == {name}
    assert named(account.garbage(head(None, destroyed=True)).images) == {name}


@pytest.mark.parametrize("service", [OURS, None])
def test_a_disk_whose_image_went_goes_as_its_image_did(service: str | None) -> None:
    """Nothing is left over where a sweep ended between the two."""
    account = Holdings()
    name = account.add("1.1.0", service, age=2 * HOUR, image=False)
    assert named(account.garbage(head("1.0.0")).disks) == {name}
    assert account.garbage(head("1.1.0")).empty is (service is not None)


def test_an_upload_without_image_is_given_a_day() -> None:
    """Of a release that nobody here deployed: it may be one under way, here or elsewhere."""
    account = Holdings()
    name = account.add("1.1.0", None, age=DAY, image=False)
    account.add("1.1.0", THEIRS, age=DAY, image=False)
    assert account.garbage(head("1.0.0"), deployed=["1.0.0"]).empty
    assert named(account.garbage(head("1.0.0"), deployed=["1.0.0"], now=after(1)).disks) == {name}


def test_a_disk_under_two_images_stays_while_one_does() -> None:
    """A cloud would refuse to take it away."""
    account = Holdings()
    account.add("1.1.0", OURS), account.add("1.0.0", OURS)
    going, staying = account.images
    account.images = [replace(going, disk=staying.disk), staying]
    found = account.garbage(head("1.0.0"))
    assert named(found.images) == {going.name}
    assert staying.disk not in {disk.id for disk, _ in found.disks}


# ---------------------------------------------------------------------------------------------------- any account

_version = st.sampled_from(VERSIONS)
_slot = st.builds(slot, _version, st.none() | st.floats(-HOUR, HOUR))
_thing = st.tuples(
    _version, st.sampled_from([OURS, THEIRS, None]), st.sampled_from([60.0, 2 * HOUR, 2 * DAY]), st.booleans()
)


@st.composite
def _heads(draw: st.DrawFn) -> Head:
    run = draw(st.none() | st.builds(lambda one, other: (one, other), _version, _version))
    unfinished = None
    if run is not None:
        candidate, stable = (release(version) for version in run)
        unfinished = replace(
            made.run(),
            candidate=candidate.id,
            group=group_name(OURS, candidate, 1),
            stable=stable.id,
            stable_group=group_name(OURS, stable, 1),
        )
        if draw(st.booleans()):
            unfinished = unfinished.enter(Stage.DONE, NOW, "")
    slots = draw(st.dictionaries(st.sampled_from(list(Slot)), _slot))
    serving = draw(st.sampled_from([None, *slots]))
    return head(
        None,
        slots=slots,
        serving=serving,
        run=unfinished,
        served=tuple(Served(release(version).id, NOW) for version in draw(st.lists(_version, unique=True))),
        pins=tuple(release(version).id for version in draw(st.lists(_version, max_size=1))),
        destroyed=draw(st.booleans()) and unfinished is None and serving is None,
    )


@settings(max_examples=150, deadline=None)
@given(_heads(), st.lists(_thing, max_size=9), st.lists(_version, unique=True), st.sets(_version), st.integers(0, 3))
def test_of_any_account_only_garbage_goes_and_all_of_it(
    head: Head, things: list[tuple[str, str | None, float, bool]], groups: list[str], deployed: set[str], keep: int
) -> None:
    """What is needed stays, with all it stands on; and after a sweep a second look finds nothing."""
    account = Holdings()
    for version, service, age, image in things:
        if not any(disk.name.startswith(_named_as(version, service)) for disk in account.disks):
            account.add(version, service, age=age, image=image)
    for version in groups:
        account.add_group(version)
    before = Holdings(list(account.groups), list(account.templates), list(account.images), list(account.disks))

    account.sweep(account.garbage(head, deployed, keep))

    needed = needed_releases(head, keep, NOW)
    running = set() if head.destroyed else _running(head)
    assert [group for group in before.groups if group.release in running] == account.groups
    kept = [image for image in before.images if _used(image, needed)]
    assert all(image in account.images for image in kept)
    bases = {image.tags[tags.IMAGE] for image in kept}
    assert all(image in account.images for image in before.images if image.digest in bases)
    disks = {disk.id for disk in account.disks}
    assert all(image.disk in disks for image in account.images)
    assert {group.name for group in account.groups} <= {*account.templates}
    assert account.garbage(head, deployed, keep).empty


def _named_as(version: str, service: str | None) -> str:
    return f"hello-{version}" if service is None else f"{release(version).id}@{service}"


def _running(head: Head) -> set[ReleaseId]:
    """What serves, is warm, or is one side of a run."""
    running = {record.release for record in head.slots.values() if record.warm_until and record.warm_until > NOW}
    if head.stable is not None:
        running.add(head.stable.release)
    if head.unfinished is not None:
        running |= {each for each in (head.unfinished.candidate, head.unfinished.stable) if each is not None}
    return running


def _used(image: CloudImage, needed: set[ReleaseId]) -> bool:
    """A release's image that our service needs, or that another service's release is."""
    own = image.tags.get(tags.RELEASE)
    return own is not None and (image.tags[tags.SERVICE] != OURS or own in needed)


def test_what_carries_traffic_is_never_garbage() -> None:
    """Whatever the ledger says: a group in a slot with weight stays."""
    head = Head(service="hello/production", n=1, epoch=1, nonce="x", written=NOW, why="a test")
    unknown = made.group("osvd-x-1", made.release("1.0.0").id, tags={tags.SLOT: "green"})

    def dead(carrying: list[Slot]) -> tuple[tuple[str, str], ...]:
        found = find_garbage(head, [], 10, NOW, groups=[unknown], templates=[], images=[], disks=[], carrying=carrying)
        return found.groups

    assert dead([Slot.GREEN]) == () and dead([Slot.BLUE]) != ()


def test_what_carries_traffic_can_start_machines() -> None:
    """Its template, its image and the one under that stay with it, though the ledger, put back from a copy, never heard
    of the release: the group replaces machines, and grows."""
    there = Holdings()
    for version in ("1.0.0", "1.1.0"):
        there.add(version, None)
        there.add(version, OURS)
    name = group_name(OURS, release("1.1.0"), 1)
    there.groups = [made.group(name, release("1.1.0").id, tags={tags.SLOT: "blue"})]
    there.templates = [name]
    found = find_garbage(
        head("1.0.0"),
        [release("1.0.0")],
        0,
        NOW,
        groups=there.groups,
        templates=there.templates,
        images=there.images,
        disks=there.disks,
        carrying=[Slot.BLUE],
    )
    assert found.empty


def test_what_another_service_runs_stays() -> None:
    """An image made for one environment and rolled out in another: the first one's ledger does not need it any more."""
    service = Service()
    for version in ("1.0.0", "1.1.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED
    staging = replace(service.settings, environment="staging", listener="listener-2")
    service.cloud.add_listener("listener-2")
    release = replace(service.release("1.0.0"), settings=staging)
    ledger = Ledger(service.cloud.store, "hello", "staging")
    manager = RolloutManager(ledger, service.cloud.cloud, service.cloud.prober)
    assert manager.deploy(service.context(), release).outcome is Outcome.SUCCEEDED
    service.clock.advance(2 * DAY)  # each day of three groups is 100,000 health checks
    found = _find_garbage(service.context(), service.ledger, service.cloud.cloud, service.head, keep=1)
    assert [name for name, _ in found.groups] == [service.group("1.0.0")]
    assert found.images == () == found.disks
    manager.destroy(service.context())
    found = _find_garbage(service.context(), service.ledger, service.cloud.cloud, service.head, keep=1)
    assert named(found.images) == {service.id("1.0.0")}


# ------------------------------------------------------------------------------------------------ by age, long ago


def test_an_age_reaches_back_past_what_the_head_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two releases a day for two months and a half: those of some sixty days stay, and no older one, though the head
    tells of the last 50 alone, an earlier one of the 50 before them."""
    service = Service()
    assert service.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    ctx, ledger = service.context(), service.ledger
    versions = [f"2.{number}.0" for number in range(150)]
    for version in versions:
        service.clock.advance(DAY / 2)
        service.publish(version)
        ledger.put_release(ctx, service.release(version))
        head, now = service.head, service.clock.now()
        served = head.served_lately(service.id(version), now)
        ledger.write(ctx, replace(head, n=head.n + 1, nonce=ctx.nonce(), written=now, served=served))
    service.clock.advance(DAY / 2)
    monkeypatch.setattr(wiring, "ground_of", lambda ctx, place: service.cloud.cloud)
    monkeypatch.setattr(wiring, "open_ledger", lambda named: service.ledger)
    since = len(service.cloud.calls)
    named_so = declared.Service("hello", "production", "memory")
    found = services.gc(service.context(), named_so, keep=1, age=59.75 * DAY, dry_run=True)
    # The n-th served until half a day after n half days: the 30th until 60 days before now, the next until 59.5.
    assert named(found.images) == {service.id(version) for version in versions[:30]}
    heads = [call for call in service.cloud.calls[since:] if call.operation == "store.get" and "/head/" in str(call)]
    assert len(heads) < 30, "a search, and not all that was ever written"


# ------------------------------------------------------------------------------------------------ what others have


def test_an_image_that_others_have_stays_whole() -> None:
    """With its disk, and with the image that it is made of, as every release's; its template and the rest go."""
    there = Holdings()
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        there.add(version, None)
        there.add(version, OURS)
    there.templates.append("osvd-of-1.1.0")
    theirs = f"image of {release('1.1.0').id}@{OURS}"
    found = there.garbage(head("1.2.0"), wanted=[theirs])
    one = {"hello-1.0.0", f"{release('1.0.0').id}@{OURS}"}
    assert named(found.images) == one and {disk.name for disk, _ in found.disks} == one
    assert [name for name, _ in found.templates] == ["osvd-of-1.1.0"]


@pytest.fixture
def aged() -> Service:
    """1.0.0 and 1.1.0 served once, two days ago; 1.2.0 serves."""
    service = Service()
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED
    service.clock.advance(2 * DAY)
    return service


def swept(service: Service, monkeypatch: pytest.MonkeyPatch, *, dry_run: bool = False) -> Garbage:
    """What `gc` takes, or would."""
    monkeypatch.setattr(wiring, "ground_of", lambda ctx, place: service.cloud.cloud)
    monkeypatch.setattr(wiring, "open_ledger", lambda named: service.ledger)
    return services.gc(service.context(), declared.Service("hello", "production", "memory"), keep=1, dry_run=dry_run)


def image_of(service: Service, version: str) -> CloudImage:
    found = service.cloud.images.find(service.context(), service.id(version))
    assert found is not None
    return found


def test_what_others_start_machines_from_stays_until_they_let_go(
    aged: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template is enough; it is told by its name, in a dry run too, and once it is gone so is the image."""
    image = image_of(aged, "1.0.0")
    aged.cloud.plant_template("theirs", image.id)
    for dry_run in (True, False):
        found = swept(aged, monkeypatch, dry_run=dry_run)
        assert named(found.images) == {aged.id("1.1.0")}
        [kept] = found.kept
        assert (kept.image, kept.users) == (image, ("template theirs",))
        assert kept.why == "others have it: template theirs"
    assert {each.id for each in aged.cloud.images.owned(aged.context(), {})} >= {image.id}
    del aged.cloud.world.templates["theirs"]
    found = swept(aged, monkeypatch)
    assert named(found.images) == {aged.id("1.0.0")} and found.kept == ()


def test_many_who_have_an_image_are_counted(aged: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some by name; who asks for JSON gets all."""
    image = image_of(aged, "1.0.0")
    for number in range(6):
        aged.cloud.plant_template(f"theirs-{number}", image.id)
    [kept] = swept(aged, monkeypatch).kept
    assert kept.why == "others have it: template theirs-0; template theirs-1; template theirs-2; and 3 more"
    assert len(kept.users) == 6


def test_where_nobody_may_look_images_stay_and_all_else_goes(aged: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missed cannot be brought back; what to allow is said with each, and is what the command ends with."""
    templates = set(aged.cloud.world.templates)
    refused = Refused("no permission", operation="DescribeInstances", hint="allow the action DescribeInstances")
    aged.cloud.faults.fail("images.users", refused, times=2)
    found = swept(aged, monkeypatch, dry_run=True)
    with pytest.raises(Refused, match="no permission"):
        swept(aged, monkeypatch)
    assert found.images == () == found.disks
    assert {each.image.name for each in found.kept} == {aged.id("1.0.0"), aged.id("1.1.0")}
    assert {each.users for each in found.kept} == {()}
    assert all("allow the action DescribeInstances" in each.why for each in found.kept)
    gone = templates - set(aged.cloud.world.templates)
    assert gone == {name for name, _ in found.templates} and len(gone) == 2
    assert any("no permission" in event.text for event in aged.recorder.events if isinstance(event, Warned))
    # Allowed since, the next one takes them.
    assert named(swept(aged, monkeypatch).images) == {aged.id("1.0.0"), aged.id("1.1.0")}


def test_a_place_that_does_not_answer_is_no_permission_to_sweep(aged: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken, and the command ends with that."""
    before = aged.cloud.standing
    aged.cloud.faults.fail("images.users", Unavailable("no answer"))
    with pytest.raises(Unavailable):
        swept(aged, monkeypatch)
    assert aged.cloud.standing == before


def test_nobody_is_asked_who_has_images_where_none_would_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep each night costs no more than before."""
    service = Service()
    assert service.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    service.clock.advance(2 * DAY)
    assert swept(service, monkeypatch).kept == ()
    assert "images.users" not in [call.operation for call in service.cloud.calls]


# ------------------------------------------------------------------------------------------------ on their way


def test_what_was_left_on_its_way_goes() -> None:
    """An object that no import reads, once it is not somebody's who has just put it; an upload of which nothing was
    heard for a day. What an import is reading stays, however old."""
    store = OnItsWay(
        "s3://acme/osvdeploy",
        objects=[
            StoredObject("disks/hello/old.vmdk", 1, None, after(-2 * 3600)),
            StoredObject("disks/hello/read.vmdk", 1, None, after(-DAY)),
            StoredObject("disks/hello/new.vmdk", 1, None, after(-60)),
        ],
        uploads=[
            UnfinishedObject("disks/hello/old.vmdk", "1", after(-2 * DAY)),
            UnfinishedObject("disks/hello/new.vmdk", "2", after(-3600)),
        ],
        reading={"s3://acme/osvdeploy/disks/hello/read.vmdk"},
    )
    found = find_garbage(head("1.0.0"), [], 0, NOW, groups=[], templates=[], images=[], disks=[], stores=[store])
    assert [(address, each.key) for address, each, _ in found.objects] == [
        ("s3://acme/osvdeploy", "disks/hello/old.vmdk")
    ]
    assert [(each.key, each.id) for _, each, _ in found.uploads] == [("disks/hello/old.vmdk", "1")]
    assert not found.empty
