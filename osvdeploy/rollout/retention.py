"""What no release needs any more: decided from the ledger and the cloud's own tags, purely; swept by the caller.

An image of the app (without a release) is shared by every environment, whose ledgers may lie elsewhere. So it is kept
as long as any release's image in the account is made of it, and left alone when it was never deployed from here. So is
an environment's own image that was published and never rolled out: machines are started from it by others. An image
that a Pulumi program has is the program's; one that a program retired goes when no ledger's release and no template
needs it. And whatever our releases need, an image that others start machines from stays: they would miss it when they
start the next one, and nobody could bring it back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import (
    CloudImage,
    GroupState,
    ReleaseId,
    Slot,
    StoredObject,
    UnfinishedObject,
    UploadedDisk,
)
from osvdeploy.errors import CloudError
from osvdeploy.rollout.ledger import Head, Served
from osvdeploy.rollout.releases import Release

_LET_GO = "; somebody else made it, so it is let go and stays"


@dataclass(frozen=True, slots=True)
class OnItsWay:
    """What an object store holds of disks that pass through it. ``address`` is the store's; ``reading`` are the
    locations (address, slash, key) that somebody is reading now, or may be about to."""

    address: str
    objects: Sequence[StoredObject]
    uploads: Sequence[UnfinishedObject]
    reading: Collection[str]


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that no release needs, and that stays. ``users`` are who else has it, in words, as
    :class:`~osvdeploy.cloud.interfaces.ImageUser` has them; none where that cannot be told. ``why`` says it in
    short."""

    image: CloudImage
    users: tuple[str, ...]
    why: str

    @classmethod
    def by(cls, image: CloudImage, users: Sequence[str]) -> Kept:
        """One that these have."""
        more = len(users) - _NAMED
        named = "; ".join(users[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
        return cls(image, tuple(users), f"others have it: {named}")


_NAMED = 3
"""Users of an image that are named to people; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """What can go, and why each can. Groups first, then templates, images, disks: each may need the ones after it.
    ``objects`` and ``uploads`` are each with the address of their store."""

    groups: tuple[tuple[str, str], ...]
    templates: tuple[tuple[str, str], ...]
    images: tuple[tuple[CloudImage, str], ...]
    disks: tuple[tuple[UploadedDisk, str], ...]
    objects: tuple[tuple[str, StoredObject, str], ...] = ()
    uploads: tuple[tuple[str, UnfinishedObject, str], ...] = ()
    stored: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the disks that go, by their ids, where they were asked for and told; of one that stands on another what
    it has beside that."""
    kept: tuple[Kept, ...] = ()
    """Images that would go if others did not have them, or may."""
    hindered: CloudError | None = field(default=None, compare=False)
    """Why it cannot be told who has the images that are kept; None where it can."""

    @property
    def size(self) -> int:
        """Bytes that are known to go."""
        objects = sum(stored.size for _, stored, _ in self.objects)
        sent = sum(upload.size or 0 for _, upload, _ in self.uploads)
        return self.image_bytes + self.disk_bytes + objects + sent

    @property
    def image_bytes(self) -> int:
        """Of images that are copies of their own."""
        return sum(image.size or 0 for image, _ in self.images)

    @property
    def disk_bytes(self) -> int:
        return sum(self.stored.get(disk.id, 0) for disk, _ in self.disks)

    @property
    def empty(self) -> bool:
        return not (self.groups or self.templates or self.images or self.disks or self.objects or self.uploads)


def needed_releases(
    head: Head, keep: int, now: datetime, *, age: float | None = None, served: Sequence[Served] = ()
) -> set[ReleaseId]:
    """What serves, is being rolled out, is warm, is pinned, the ``keep`` newest that have served, and those that still
    served within the last ``age`` seconds: of all that ``served``, oldest first, or of those that the head remembers.
    """
    needed = set(head.pins)
    if head.destroyed:
        return needed
    if head.stable is not None:
        needed.add(head.stable.release)
    if head.unfinished is not None:
        needed.add(head.unfinished.candidate)
        if head.unfinished.stable is not None:
            needed.add(head.unfinished.stable)
    needed |= {
        record.release for record in head.slots.values() if record.warm_until is not None and record.warm_until > now
    }
    newest = head.served[max(0, len(head.served) - keep) :]
    needed |= {each.release for each in newest}
    if age is not None:
        # Each served until the next one did.
        known = served or head.served
        needed |= {each.release for each, after in pairwise(known) if _age(after.since, now) < age}
    return needed


def find_garbage(
    head: Head,
    releases: Sequence[Release],
    keep: int,
    now: datetime,
    *,
    groups: Sequence[GroupState],
    templates: Sequence[str],
    images: Sequence[CloudImage],
    disks: Sequence[UploadedDisk],
    carrying: Collection[Slot] = (),
    elsewhere: Collection[ReleaseId] = (),
    stores: Sequence[OnItsWay] = (),
    destroyed: datetime | None = None,
    age: float | None = None,
    served: Sequence[Served] = (),
    wanted: Collection[str] = (),
) -> Garbage:
    """What of the service's (and the app's) things nobody needs.

    ``carrying`` are the slots with a weight above 0: what stands there is never garbage, whatever the ledger says, nor
    is what its machines are started from; but for what stands there beside the very group that the ledger names.

    ``elsewhere`` are the releases that other services have groups of, and of retired images also templates: an image
    may be made for one service, or for none, and be rolled out in another.

    ``groups`` and ``templates`` are the service's own; a template has the name of its one group, and no other is made
    of it. ``images`` and ``disks`` are the app's, of every environment; so is what ``stores`` hold. ``destroyed`` is
    when the service was, where it is: what was made since then may be of a deploy that brings it back. ``keep``,
    ``age`` and ``served`` are as for :func:`needed_releases`. ``wanted`` are the ids of images that others have: these
    stay, with what they stand on, and with the image that they are made of, as for every release.
    """
    needed = needed_releases(head, keep, now, age=age, served=served)
    service = head.service
    standing = set() if head.destroyed else _standing(head, now, carrying)
    there = {group.name for group in groups if not group.deleting}
    # Where what a slot is recorded with is there, the slot's traffic is its own.
    recorded = {slot for slot, record in head.slots.items() if record.group in there and not head.destroyed}
    unknown = set(carrying) - recorded
    dead_groups = [
        (group.name, _why_dead(group, head))
        for group in groups
        if group.name not in standing and not group.deleting and group.tags.get(tags.SLOT) not in unknown
    ]
    dying = {name for name, _ in dead_groups}
    left = [group for group in groups if group.name not in dying and not group.deleting]
    # A ledger that was put back does not know of what serves; its machines are replaced and scaled all the same.
    needed |= {group.release for group in left if group.release is not None}
    # That of a group on its way out is in use still; where nothing else of the release goes, the next sweep has time.
    going = {group.name for group in groups if group.deleting and group.release in needed}
    keep_templates = standing | going | {group.name for group in left}
    needed |= set(elsewhere)
    dead_templates = [(name, "no group is made of it") for name in templates if name not in keep_templates]

    deployed, known = {release.image for release in releases}, {release.id for release in releases}
    ended = (destroyed or head.written) if head.destroyed else None

    def in_vain(thing: CloudImage | UploadedDisk, bases: Collection[tuple[str, str]]) -> str:
        """Why nobody needs an image, or the disk of one; "" where somebody does, or may."""
        release = thing.tags.get(tags.RELEASE)
        if thing.id in wanted or tags.PROGRAMS in thing.tags or (_young(thing, now) and not _before(thing, ended)):
            return ""
        if release is not None and tags.RETIRED in thing.tags and tags.SERVICE not in thing.tags:
            return f"release {release} was retired" if release not in needed else ""
        if release is not None:
            # Without a ledger it was published alone.
            rolled_out = tags.LEDGER in thing.tags or release in known
            ours = thing.tags.get(tags.SERVICE) == service and rolled_out
            return f"release {release} is not needed" if ours and release not in needed else ""
        ours = thing.digest in deployed or tags.BELOW in thing.tags
        based = (thing.tags.get(tags.VERSION, ""), thing.digest) in bases
        return f"no release is made of {thing.name}" if ours and not based else ""

    # By version too: another version of the same bytes has an image of its own.
    bases = {
        (image.tags.get(tags.VERSION, ""), image.tags.get(tags.IMAGE, ""))
        for image in images
        if tags.RELEASE in image.tags and not in_vain(image, ())
    }
    dead_images = [(image, why) for image in images if (why := in_vain(image, bases))]
    gone = {image.id for image, _ in dead_images}
    used = {image.disk for image in images if image.id not in gone}
    theirs = {image.disk for image, _ in dead_images}
    dead_disks = []
    for disk in disks:
        if disk.id in used:
            continue
        if disk.id in theirs:
            dead_disks.append((disk, "its image goes"))
        elif why := in_vain(disk, bases):
            # Its image is gone already: a sweep ended between the two.
            dead_disks.append((disk, why))
        elif _orphaned(disk, service, now):
            dead_disks.append((disk, "an upload that no image was made of"))
    return Garbage(
        tuple(dead_groups),
        tuple(dead_templates),
        tuple(dead_images),
        tuple(dead_disks),
        objects=tuple(
            (store.address, each, "nobody is reading it")
            for store in stores
            for each in store.objects
            if f"{store.address}/{each.key}" not in store.reading and _age(each.created, now) > _YOUNG
        ),
        uploads=tuple(
            (store.address, each, "an upload that nobody went on with")
            for store in stores
            for each in store.uploads
            if _age(each.begun, now) > _UPLOAD_DAY
        ),
    )


_YOUNG = 3600.0
"""An image, disk or object this new may be of a deploy that has not come to its run yet."""


def _age(since: datetime, now: datetime) -> float:
    return (now - since).total_seconds()


def _young(thing: CloudImage | UploadedDisk, now: datetime) -> bool:
    return thing.created is not None and _age(thing.created, now) < _YOUNG


def _before(thing: CloudImage | UploadedDisk, ended: datetime | None) -> bool:
    return ended is not None and thing.created is not None and thing.created <= ended


_UPLOAD_DAY = 24 * 3600.0
"""An upload without an image may be one under way, here or elsewhere; after a day it is not."""


def _orphaned(disk: UploadedDisk, service: str, now: datetime) -> bool:
    if disk.tags.get(tags.SERVICE, service) != service or disk.created is None:
        return False
    return _age(disk.created, now) > _UPLOAD_DAY


def _standing(head: Head, now: datetime, carrying: Collection[Slot]) -> set[str]:
    """The groups that are to stand, by name. A slot that has traffic keeps its own, served or not: a rollout that could
    not come to its end leaves one so."""
    standing: set[str] = set()
    if head.stable is not None:
        standing.add(head.stable.group)
    if head.unfinished is not None:
        standing.add(head.unfinished.group)
        if head.unfinished.stable_group is not None:
            standing.add(head.unfinished.stable_group)
    for slot, record in head.slots.items():
        if slot in carrying or (record.warm_until is not None and record.warm_until > now):
            standing.add(record.group)
    return standing


def _why_dead(group: GroupState, head: Head) -> str:
    let_go = _LET_GO if tags.is_kept(group.tags) else ""
    if head.stable is not None and head.stable.release == group.release:
        return f"{group.release} serves from {head.stable.group}{let_go}"
    return f"{group.release} is neither serving nor warm{let_go}"
