"""What a cloud has of a service that is not as its ledger says, while no rollout is under way: pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import (
    GroupShape,
    GroupState,
    HealthRule,
    ReleaseId,
    RouteState,
    Scaling,
    Slot,
    TargetHealth,
)
from osvdeploy.rollout.ledger import Head
from osvdeploy.rollout.refusals import astray
from osvdeploy.rollout.releases import Release
from osvdeploy.rollout.scaling import suspended

NOBODY_LOOKED: Final[Mapping[Slot, float | None]] = {}


class DriftKind(StrEnum):
    """What differs."""

    ROUTE = "route"
    MACHINES = "machines"
    CAPACITY = "capacity"
    STRANGER = "stranger"
    IMAGE = "image"
    SCALING = "scaling"
    SLOW_START = "slow-start"
    TEMPLATE = "template"
    HEALTH_CHECK = "health-check"


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference, what cures it, and whether ``drift --repair`` does."""

    kind: DriftKind
    what: str
    cure: str
    repairable: bool = False


@dataclass(frozen=True, slots=True)
class Shaped:
    """What machines of a slot are started with: ``there`` now, None where nothing tells; and the image's id and the
    machine type that its release was deployed with, "" where that is not known."""

    there: GroupShape | None
    image: str
    machine_type: str


def drift_of(
    head: Head,
    release: Release | None,
    state: RouteState,
    groups: Mapping[str, GroupState],
    images: Collection[ReleaseId],
    scaling: Scaling | None,
    slow_start: Mapping[Slot, float | None] = NOBODY_LOOKED,
    shapes: Mapping[Slot, Shaped] | None = None,
    checks: Mapping[Slot, HealthRule | None] | None = None,
    targets: Mapping[Slot, Sequence[TargetHealth]] | None = None,
) -> list[Drift]:
    """Everything that differs. ``release`` is the one that serves, ``scaling`` what scales its group by itself,
    ``images`` the releases of the app that have one, ``slow_start`` that of each slot's backend in seconds, None where
    there is none to compare; likewise ``checks``, by which the balancer decides that a machine is healthy. ``shapes``
    are those of the slots whose machines are ours; ``targets`` is what stands behind each slot's backend."""
    if head.unfinished is not None or head.destroyed:
        return []
    adopted = {group.release for group in groups.values() if tags.ADOPTED in group.tags and group.release is not None}
    found = [
        *_route(head, state),
        *_slots(head, groups),
        *_strangers(head, state, groups),
        *_nobodys(state, groups, targets or {}),
        *_images(head, {*images, *adopted}),
    ]
    group = groups.get(head.stable.group) if head.stable is not None else None
    if group is not None and release is not None and release.adopted is None:
        found += _capacity(release, group, scaling)
    found += _slow_start(head, slow_start)
    found += _templates(head, shapes or {})
    found += _checks(head, checks or {})
    run = head.run
    if head.stable is not None and suspended(run, head.stable, scaling):
        told = f"what scales {head.stable.release} is suspended, and was not when its last rollout ended"
        cure = "`osvdeploy drift --repair` lets it go on; where somebody wants it so, they do when they are done"
        found.append(Drift(DriftKind.SCALING, told, cure, True))
    if run is not None and run.scaling is not None and not run.scaled:
        parts = ", ".join(run.scaling.parts)
        told = f"{head.stable.release if head.stable else head.service} has not the scaling of before ({parts})"
        found.append(Drift(DriftKind.SCALING, told, "the next deploy, of the same release too, brings it"))
    return found


def _route(head: Head, state: RouteState) -> Iterator[Drift]:
    if state.left is not None and head.unheard(state).left is None:
        told = f"the note that {state.left} was left without the ledger stays on the route, though the ledger knows it"
        yield Drift(DriftKind.ROUTE, told, "`osvdeploy drift --repair` takes it away", True)
    elif state.left is not None:
        told = f"traffic was taken from {state.left} without this ledger, which does not know it yet"
        cure = "`osvdeploy drift --repair` has the ledger learn it, and so does the next deploy or rollback"
        yield Drift(DriftKind.ROUTE, told, cure, True)
    elif wrong := astray(head, state):
        yield Drift(DriftKind.ROUTE, wrong, "`osvdeploy drift --repair` puts traffic where the ledger says", True)


def _slow_start(head: Head, found: Mapping[Slot, float | None]) -> Iterator[Drift]:
    wanted = head.place.route.slow_start if head.place is not None else 0.0
    for slot, there in sorted(found.items()):
        if there is not None and there != wanted:
            told = f"a machine that joins {slot} has its full share after {there:g} s, and not after {wanted:g} s"
            yield Drift(DriftKind.SLOW_START, told, "`osvdeploy drift --repair` sets it", True)


def _templates(head: Head, shapes: Mapping[Slot, Shaped]) -> Iterator[Drift]:
    """What is now in the place of a template that was never to change: the next machine of the group is started by
    it."""
    for slot, shaped in sorted(shapes.items()):
        record, there = head.slots[slot], shaped.there
        if there is None:
            told = f"what machines of {record.release} in {slot} are started by ({record.group}) is gone"
        else:
            pairs = (("image", there.image, shaped.image), ("machine type", there.machine_type, shaped.machine_type))
            others = [f"{what} {now} and not {was}" for what, now, was in pairs if was and now != was]
            if not others:
                continue
            told = f"machines of {record.release} in {slot} ({record.group}) are started with {', '.join(others)}"
        cure = f"give {record.group} its own template back, or deploy another version, which makes a new group"
        yield Drift(DriftKind.TEMPLATE, told, cure)


def _checks(head: Head, found: Mapping[Slot, HealthRule | None]) -> Iterator[Drift]:
    wanted = head.place.route.health if head.place is not None else None
    for slot, there in sorted(found.items()):
        if there is not None and wanted is not None and there != wanted:
            told = f"machines in {slot} are checked otherwise than was deployed: {there}"
            yield Drift(DriftKind.HEALTH_CHECK, told, f"set the balancer's check back by hand: {wanted}")


def _slots(head: Head, groups: Mapping[str, GroupState]) -> Iterator[Drift]:
    for slot, record in sorted(head.slots.items()):
        group = groups.get(record.group)
        if group is not None and slot is head.serving and has_left(group):
            told = f"{record.release} serves in {slot}, and its machines ({record.group}) do not stand behind it"
            yield Drift(DriftKind.MACHINES, told, "`osvdeploy drift --repair` puts them there", True)
        if group is not None and not group.deleting:
            continue
        if slot is head.serving:
            told = f"{record.release} serves in {slot}, and its machines ({record.group}) are gone"
            yield Drift(DriftKind.MACHINES, told, "deploy another version, or `osvdeploy rollback`")
        else:
            told = f"{record.release} was kept warm in {slot}, and its machines ({record.group}) are gone"
            yield Drift(DriftKind.MACHINES, told, "none needed: going back to it starts machines first")


def has_left(group: GroupState) -> bool:
    """Whether an adopted group does not stand behind its slot's backend (any more), and so has no use for its
    machines."""
    return tags.ADOPTED in group.tags and not group.deleting and group.capacity == 0


def _strangers(head: Head, state: RouteState, groups: Mapping[str, GroupState]) -> Iterator[Drift]:
    known = {record.group for record in head.slots.values()}
    there = {name for name, group in groups.items() if not group.deleting}
    recorded = {slot for slot, record in head.slots.items() if record.group in there}
    carrying = {slot for slot, weight in (state.weights or {}).items() if weight > 0}
    for name in sorted(there - known):
        group = groups[name]
        slot = group.tags.get(tags.SLOT, "no slot")
        what = f"{name} ({group.release or 'no release'}, {group.capacity} machines, {slot})"
        if slot in carrying - recorded and sum(groups[one].tags.get(tags.SLOT) == slot for one in there) > 1:
            cure = "take away by hand what is not wanted in its slot; then `osvdeploy adopt --from-cloud`"
            yield Drift(DriftKind.STRANGER, f"{what} may have traffic, and is in no slot", cure)
        elif slot in carrying - recorded:
            cure = "`osvdeploy adopt --from-cloud` has the ledger learn it; the next deploy or rollback goes on from it"
            yield Drift(DriftKind.STRANGER, f"{what} has traffic, and is in no slot", cure)
        else:
            way = "lets it go" if tags.is_kept(group.tags) else "takes it away"
            cure = f"`osvdeploy gc` {way}, and so does a deploy to its slot"
            yield Drift(DriftKind.STRANGER, f"{what} is in no slot", cure)


def _nobodys(
    state: RouteState, groups: Mapping[str, GroupState], targets: Mapping[Slot, Sequence[TargetHealth]]
) -> Iterator[Drift]:
    """Machines behind a slot's backend that no group of the service has there."""
    for slot, found in sorted(targets.items()):
        there = [group for group in groups.values() if group.tags.get(tags.SLOT) == slot]
        known = {machine.id for group in there for machine in group.machines}
        others = sorted({each.machine for each in found if each.used} - known)
        if others:
            what = f"{', '.join(others)} stand in {slot}, are of no group there, and get a part of what comes to it"
            yield Drift(DriftKind.STRANGER, what, f"take them by hand from behind {state.backends.get(slot, slot)}")


def _images(head: Head, images: Collection[ReleaseId]) -> Iterator[Drift]:
    wanted = {record.release for record in head.slots.values()} | set(head.pins)
    for release in sorted(wanted - set(images)):
        told = f"the image of {release} is gone"
        yield Drift(DriftKind.IMAGE, told, "publish it again from its spec: until then no machine of it can be started")


def _capacity(release: Release, group: GroupState, scaling: Scaling | None) -> Iterator[Drift]:
    asked = release.settings.capacity
    if not (scaling is not None and scaling.moves) and not group.deleting and group.capacity != asked:
        told = f"{release.id} has {group.capacity} machines, and was deployed with {asked}"
        yield Drift(DriftKind.CAPACITY, told, "`osvdeploy deploy` of the same release brings it to what the spec says")
