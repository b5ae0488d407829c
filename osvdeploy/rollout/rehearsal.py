"""A deploy, carried out where nothing is changed: the real manager, in virtual time, on ports that only remember.

What is there is read once, through the place's own adapters. From then on groups, weights and rules are as the
rollout's own actions left them; machines are healthy at once, and every probe is answered as it should be. What each
action would have been in calls, the place's :class:`~osvdeploy.cloud.interfaces.Foresight` tells. So a plan is no
second opinion on what a deploy does: it is the deploy, without its effects.

The ledger is the real one, read, with what would be written kept here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from osvdeploy.cloud import tags as labels
from osvdeploy.cloud.interfaces import (
    AttachRequest,
    CloudImage,
    Foresight,
    Foretold,
    Ground,
    GroupCount,
    GroupRequest,
    GroupShape,
    GroupState,
    HealthRule,
    ImageFamilies,
    ImageRegistry,
    ImageRequest,
    ImageUser,
    InstanceGroups,
    Machine,
    MachineState,
    ObjectSource,
    ObjectStore,
    PlannedCall,
    ProbeAnswer,
    ProbeRequest,
    ReleaseId,
    Route,
    RouteState,
    Scaling,
    Slot,
    StoredObject,
    Tags,
    TargetHealth,
    TrafficRouter,
    UnfinishedObject,
)
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import LedgerError, UsageError
from osvdeploy.events import Event, StageEntered
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.ledger import Ledger
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Limits, Run, Stage, Until
from osvdeploy.rollout.releases import ProbePlace, Release, Settings, route_of

_AT_ONCE = Limits(bake_poll=1e9, listen=1e9)
"""A rehearsal looks once at a bake, and nobody asks anything of it."""

_NO_END = 1e10
"""Seconds of a rehearsal's time after which it is given up: three hundred years, which is a moment here."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Calls that one action of a rollout makes, in its stage: in none where they come before it, or after."""

    stage: Stage | None
    calls: tuple[PlannedCall, ...]


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a deploy would do. ``capacity`` are machines by machine type: as they are, the most at any time, and at the
    end, what stays warm included; ``warm`` of these go when it is no longer kept."""

    rollout: Rollout
    deeds: tuple[Deed, ...]
    now: Mapping[str, int]
    most: Mapping[str, int]
    after: Mapping[str, int]
    warm: Mapping[str, int]


def rehearse(
    ctx: Context,
    cloud: Ground,
    ledger: Ledger,
    release: Release,
    *,
    image: CloudImage | None,
    take_over: bool = False,
) -> Rehearsed:
    """What ``RolloutManager.deploy`` would do with a release. ``image`` is its image, None for one that is yet to be
    made. Holds are taken for lifted, approvals for given, gates and hooks for passed: what they let pass is told.
    Whoever holds the lease is taken for done: where a rollout is under way, nobody can know what it leaves.

    Changes nothing. Raises what the deploy would before it changes anything, but for a hold.
    """
    place = _Place(ctx, cloud, ledger, release, image)
    here = Context(
        clock=VirtualClock(ctx.now()),
        reporter=place.heard,
        cancel=ctx.cancel,
        process=ctx.process,
        entropy=ctx.entropy,
    ).within(_NO_END)
    kept = Ledger(_Kept(ctx, ledger.store), ledger.app, ledger.environment)
    head = ledger.head(ctx)
    if head is not None:
        lease = head.lease if head.lease is not None and head.lease.holder.known_dead() else None
        run = _unasked_run(head.unfinished) if head.unfinished is not None else head.run
        free = replace(head, n=head.n + 1, nonce=here.nonce(), written=here.now(), why="plan", holds=(), lease=lease)
        kept.write(here, replace(free, run=run))
    manager = RolloutManager(kept, place.ground, place, _AT_ONCE, take_over=take_over, until=Until.OVER)
    before = place.capacity()
    ended = manager.deploy(here, _unasked(release), forced=True)
    warm = place.capacity([record.group for record in ended.head.slots.values() if record.warm_until is not None])
    return Rehearsed(ended, tuple(place.deeds), before, place.most, place.capacity(), warm)


def _unasked(release: Release) -> Release:
    """The release as it goes by itself: nobody is asked, and nothing measured."""
    return replace(release, settings=_by_itself(release.settings))


def _unasked_run(run: Run) -> Run:
    """Likewise a run that is under way, where it is gone on with."""
    steps = tuple(replace(step, approve=False) for step in run.steps)
    return replace(run, settings=_by_itself(run.settings), steps=steps, paused=None, calling=None)


def _by_itself(settings: Settings) -> Settings:
    strategy = settings.strategy
    steps = tuple(replace(step, approve=False) for step in strategy.steps)
    # Whoever asks and counts, the answers are this place's own.
    health = replace(settings.health, probe_from=ProbePlace.HERE, probe_command=())
    alone = replace(strategy, steps=steps, approve=False)
    return replace(settings, strategy=alone, health=health, gates=(), hooks=(), notify=())


class _Kept:
    """An object store whose writes stay here, over one that is only read, and each thing of it once: a rehearsal is on
    how things are now, and asks again at each step."""

    def __init__(self, ctx: Context, store: ObjectStore) -> None:
        self._ctx = ctx
        self._store = store
        self._own: dict[str, bytes] = {}
        self._read: dict[str, bytes | None] = {}
        self._listed: dict[tuple[str, int | None], list[str]] = {}

    @property
    def address(self) -> str:
        return self._store.address

    def refuse_unwritable(self, ctx: Context, prefix: str) -> None:
        pass

    def put_if_absent(self, ctx: Context, key: str, content: bytes) -> bool:
        if self.get(ctx, key) is not None:
            return False
        self._own[key] = content
        return True

    def get(self, ctx: Context, key: str) -> bytes | None:
        if key in self._own:
            return self._own[key]
        if key not in self._read:
            self._read[key] = self._store.get(self._ctx, key)
        return self._read[key]

    def keys(self, ctx: Context, prefix: str, limit: int | None = None) -> Iterator[str]:
        # Heads count down, so the first of all is the first of either.
        asked = prefix, limit
        if asked not in self._listed:
            self._listed[asked] = list(self._store.keys(self._ctx, prefix, limit))
        there = self._listed[asked]
        own = {key for key in self._own if key.startswith(prefix)}
        return iter(sorted({*there, *own})[:limit])

    def folders(self, ctx: Context, prefix: str) -> Iterator[str]:
        return self._store.folders(self._ctx, prefix)

    def delete(self, ctx: Context, key: str) -> None:
        self._own.pop(key, None)

    def find(self, ctx: Context, key: str) -> StoredObject | None:
        return self._store.find(self._ctx, key)

    def put_file(self, ctx: Context, key: str, source: ObjectSource) -> StoredObject:
        raise LedgerError(f"{key}: a rehearsal puts no files")

    def unfinished(self, ctx: Context, prefix: str) -> list[UnfinishedObject]:
        return []

    def abort(self, ctx: Context, upload: UnfinishedObject) -> None:
        pass


class _Place:
    """The place of a rehearsal: what stands in it, and every port on it. ``ctx`` is the real one, for what is read."""

    def __init__(self, ctx: Context, cloud: Ground, ledger: Ledger, release: Release, image: CloudImage | None) -> None:
        self.ctx = ctx
        self.cloud = cloud
        self.foresight: Foresight = cloud.foresee() if cloud.foresee is not None else _Ports()
        self.release = release
        self.image = image or CloudImage("", release.id, release.digest, None, created=ctx.now())
        self.headers = {release.settings.health.version_header}
        owned = cloud.groups.owned(ctx, {labels.SERVICE: release.service})
        self.groups = {each.name: _whole(each) for each in owned if not each.deleting}
        self.types: dict[str, str] = {}
        """Machine types, by group: those of other releases as the ledger has them."""
        for known in ledger.releases(ctx):
            of_it = [each.name for each in self.groups.values() if each.release == known.id]
            self.types |= dict.fromkeys(of_it, known.settings.machine_type)
            self.headers.add(known.settings.health.version_header)
        self.scalings: dict[str, Scaling] = {}
        self.routes: dict[tuple[str, int], _Way] = {}
        """By listener and priority."""
        self.deeds: list[Deed] = []
        self.stage: Stage | None = None
        self.most: dict[str, int] = self.capacity()

    @property
    def ground(self) -> Ground:
        return Ground(
            kind=self.cloud.kind,
            account=self.cloud.account,
            region=self.cloud.region,
            images=_Images(self),
            groups=_Groups(self),
            router=_Router(self),
            console=_Console(),
            families=_Families(self) if self.cloud.families is not None else None,
            fence=_Fence(self) if self.cloud.fence is not None else None,
            spread=self.cloud.spread,
            late=self.cloud.late,
            endpoint=self.cloud.endpoint,
        )

    def heard(self, event: Event) -> None:
        if isinstance(event, StageEntered):
            stage = Stage(event.stage)
            self.stage = None if stage is Stage.DONE else stage

    def done(self, calls: Foretold) -> None:
        """Something was done; what it would have been in calls."""
        if calls:
            self.deeds.append(Deed(self.stage, tuple(calls)))
        for kind, count in self.capacity().items():
            self.most[kind] = max(self.most.get(kind, 0), count)

    def capacity(self, names: Collection[str] | None = None) -> dict[str, int]:
        """Machines by machine type, of all groups or of those."""
        found: dict[str, int] = {}
        for name, group in self.groups.items():
            if names is None or name in names:
                kind = self.types.get(name, "?")
                found[kind] = found.get(kind, 0) + max(group.capacity, len(group.machines))
        return found

    def way(self, route: Route) -> _Way:
        key = route.listener, route.priority
        if key not in self.routes:
            self.routes[key] = _Way(self.cloud.router.observe(self.ctx, route))
        return self.routes[key]

    def in_slot(self, slot: Slot) -> GroupState | None:
        return next((each for each in self.groups.values() if each.tags.get(labels.SLOT) == slot), None)

    # As osvdeploy.cloud.interfaces.Prober.
    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        route = route_of(self.release)
        way = self.way(route)
        wanted = request.headers.get(route.preview_header) if route.preview_header else None
        by_address = (slot for slot, url in way.previews.items() if request.url.startswith(url))
        slot = Slot(wanted) if wanted is not None else next(by_address, None)
        if slot is None:
            weights = way.weights or {}
            # Where both have a share the new release is asked for: it is what is to be proved.
            slots = sorted(Slot, key=lambda each: (each is not self._new, -weights.get(each, 0)))
            slot = next((each for each in slots if weights.get(each, 0) > 0), None)
        group = self.in_slot(slot) if slot is not None else None
        if group is None or group.release is None:
            return ProbeAnswer(404)
        named = {name.lower(): group.release for name in self.headers if name is not None}
        return ProbeAnswer(200, named, held=request.kind == "tcp")

    @property
    def _new(self) -> Slot | None:
        found = (slot for slot in Slot if (group := self.in_slot(slot)) and group.release == self.release.id)
        return next(found, None)


def _whole(group: GroupState) -> GroupState:
    """A group with as many machines as it is to have, whichever run by now: nothing fails in a rehearsal."""
    coming = range(len(group.machines), group.capacity)
    machines = (Machine(f"{group.name}-{number}", MachineState.RUNNING) for number in coming)
    return replace(group, machines=(*group.machines, *machines))


@dataclass(slots=True)
class _Way:
    """A route as it would be by now. ``named`` are the releases that the slots' preview rules name."""

    state: RouteState
    wired: set[Slot] = field(init=False)
    weights: Mapping[Slot, int] | None = field(init=False)
    left: ReleaseId | None = field(init=False)
    slow_start: float | None = None

    def __post_init__(self) -> None:
        self.wired = set(self.state.backends)
        self.weights = self.state.weights
        self.left = self.state.left

    @property
    def previews(self) -> Mapping[Slot, str]:
        if self.state.weighted:
            return {}
        return {slot: self.state.previews.get(slot, f"http://{slot}.preview.invalid") for slot in self.wired}


class _Router(TrafficRouter):
    def __init__(self, place: _Place) -> None:
        self._place = place

    def observe(self, ctx: Context, route: Route) -> RouteState:
        place, way = self._place, self._place.way(route)
        known = way.state.backends
        return replace(
            way.state,
            backends={slot: known.get(slot) or place.foresight.backend(route, slot) for slot in way.wired},
            weights=way.weights,
            previews=way.previews,
            left=way.left,
        )

    def ensure_slots(self, ctx: Context, route: Route) -> None:
        place, way = self._place, self._place.way(route)
        missing = [slot for slot in Slot if slot not in way.wired]
        way.wired = set(Slot)
        place.done(place.foresight.ensure_slots(place.ctx, route, missing))

    def health(self, ctx: Context, route: Route, slot: Slot) -> tuple[TargetHealth, ...]:
        group = self._place.in_slot(slot)
        return tuple(TargetHealth(each.id, "healthy") for each in group.machines) if group and group.capacity else ()

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> None:
        way = self._place.way(route)
        way.weights, way.state = dict(weights), replace(way.state, changed="")
        self._place.done(self._place.foresight.set_weights(self._place.ctx, route, weights))

    def find(self, ctx: Context, service: str, key: str) -> list[Route]:
        return self._place.cloud.router.find(self._place.ctx, service, key)

    def weights_of(self, ctx: Context, routes: Sequence[Route]) -> Mapping[str, Mapping[Slot, int] | None]:
        return {route.key: self._place.way(route).weights for route in routes}

    def forget(self) -> None:
        """A rehearsal goes by what was seen at its begin."""

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> None:
        place, way = self._place, self._place.way(route)
        if way.left != left:
            way.left = left
            place.done(place.foresight.note_left(place.ctx, route, left))

    def slow_start(self, ctx: Context, route: Route, slot: Slot) -> float | None:
        own = self._place.way(route).slow_start
        return own if own is not None else self._place.cloud.router.slow_start(self._place.ctx, route, slot)

    def set_slow_start(self, ctx: Context, route: Route) -> None:
        self._place.way(route).slow_start = route.slow_start
        self._place.done(self._place.foresight.set_slow_start(self._place.ctx, route))

    def check_of(self, ctx: Context, route: Route, slot: Slot) -> HealthRule | None:
        return self._place.cloud.router.check_of(self._place.ctx, route, slot)

    def refuse_unadoptable(self, ctx: Context, route: Route, group: str) -> str:
        return self._place.cloud.router.refuse_unadoptable(self._place.ctx, route, group)

    def in_use(self, ctx: Context, route: Route) -> str:
        return self._place.cloud.router.in_use(self._place.ctx, route)

    def give_back(self, ctx: Context, route: Route) -> None:
        raise UsageError(f"{route.service}: a rehearsal gives no route back")

    def remove(self, ctx: Context, route: Route) -> None:
        way = self._place.way(route)
        way.wired, way.weights = set(), None
        self._place.done(self._place.foresight.remove(self._place.ctx, route))


class _Groups(InstanceGroups):
    def __init__(self, place: _Place) -> None:
        self._place = place

    def ensure(self, ctx: Context, request: GroupRequest) -> None:
        place = self._place
        machines = tuple(Machine(f"{request.name}-{n}", MachineState.RUNNING) for n in range(request.capacity))
        there = place.groups.get(request.name)
        place.groups[request.name] = GroupState(
            request.name, request.release, request.capacity, machines, tags=request.tags
        )
        place.types[request.name] = request.machine_type
        if there is None or there.capacity == 0:
            size = request.capacity
            place.scalings[request.name] = Scaling(size, size, size)
            self._unnamed(Slot(request.tags[labels.SLOT]))
        place.done(place.foresight.ensure(place.ctx, request))

    def attach(self, ctx: Context, request: AttachRequest) -> None:
        raise UsageError(f"{request.name}: a rehearsal adopts no groups")

    def counted(self, ctx: Context, tags: Tags) -> list[GroupCount]:
        return [
            GroupCount(each.name, each.capacity, len(each.machines), each.deleting) for each in self.owned(ctx, tags)
        ]

    def shape(self, ctx: Context, name: str) -> GroupShape | None:
        return self._place.cloud.groups.shape(self._place.ctx, name)

    def _unnamed(self, slot: Slot) -> None:
        """Where preview rules name releases, the slot's is to be renewed."""
        route = route_of(self._place.release)
        if self._place.foresight.renamed(route):
            self._place.way(route).wired.discard(slot)

    def observe(self, ctx: Context, name: str) -> GroupState | None:
        return self._place.groups.get(name)

    def machines(self, ctx: Context, name: str) -> tuple[Machine, ...]:
        found = self._place.groups.get(name)
        return found.machines if found is not None else ()

    def delete(self, ctx: Context, name: str) -> None:
        gone = self._place.groups.pop(name, None)
        if gone is not None:
            self._place.scalings.pop(name, None)
            self._place.done(self._place.foresight.delete(self._place.ctx, name, kept=labels.is_kept(gone.tags)))

    def owned(self, ctx: Context, tags: Tags) -> list[GroupState]:
        return list(self._place.groups.values())

    def scaling(self, ctx: Context, name: str) -> Scaling | None:
        place = self._place
        if name not in place.groups:
            return None
        if name not in place.scalings:
            there = place.cloud.groups.scaling(place.ctx, name)
            if there is None:
                return None
            place.scalings[name] = there
        return place.scalings[name]

    def pause(self, ctx: Context, name: str) -> None:
        there = self.scaling(ctx, name)
        if there is not None and not there.paused:
            self._place.scalings[name] = replace(there, paused=True)
            self._place.done(self._place.foresight.pause(self._place.ctx, name))

    def resume(self, ctx: Context, name: str, scaling: Scaling, *, grown: bool = False) -> None:
        there = self.scaling(ctx, name)
        if there is not None and there.paused and not scaling.paused:
            self._place.scalings[name] = replace(there, paused=False)
            self._place.done(self._place.foresight.resume(self._place.ctx, name, scaling, grown=grown))

    def unpaused(self, there: Scaling, before: Scaling) -> Scaling:
        return self._place.cloud.groups.unpaused(there, before)

    def apply(self, ctx: Context, name: str, scaling: Scaling) -> None:
        self._place.scalings[name] = scaling
        self._place.done(self._place.foresight.apply(self._place.ctx, name, scaling))

    def follows(self, ctx: Context, name: str, scaling: Scaling) -> bool:
        there = self.scaling(ctx, name)
        if there is None or there == scaling:
            return there is not None
        untouched = name not in self._place.scalings or there.parts
        return bool(untouched) and self._place.cloud.groups.follows(self._place.ctx, name, scaling)

    def templates(self, ctx: Context, tags: Tags) -> list[str]:
        return self._place.cloud.groups.templates(self._place.ctx, tags)

    def delete_template(self, ctx: Context, name: str) -> None:
        pass


class _Images(ImageRegistry):
    def __init__(self, place: _Place) -> None:
        self._place = place

    def find(self, ctx: Context, name: str) -> CloudImage | None:
        place = self._place
        return place.image if name == place.release.id else place.cloud.images.find(place.ctx, name)

    def get(self, ctx: Context, image_id: str) -> CloudImage | None:
        return self._place.cloud.images.get(self._place.ctx, image_id)

    def owned(self, ctx: Context, tags: Tags) -> list[CloudImage]:
        return self._place.cloud.images.owned(self._place.ctx, tags)

    def users(self, ctx: Context, images: Sequence[CloudImage]) -> Mapping[str, Sequence[ImageUser]]:
        return self._place.cloud.images.users(self._place.ctx, images)

    def register(self, ctx: Context, request: ImageRequest) -> CloudImage:
        raise UsageError(f"{request.name}: a rehearsal makes no images")

    def deregister(self, ctx: Context, image_id: str) -> None:
        raise UsageError(f"{image_id}: a rehearsal takes no images away")

    def retag(self, ctx: Context, image_id: str, tags: Tags, without: Collection[str] = ()) -> None:
        raise UsageError(f"{image_id}: a rehearsal changes no images")


class _Families(ImageFamilies):
    """What is offered leads from then on where it is the newest."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._withdrawn: set[str] = set()

    def current(self, ctx: Context, family: str) -> CloudImage | None:
        return next(iter(self.members(ctx, family)), None)

    def members(self, ctx: Context, family: str) -> list[CloudImage]:
        place = self._place
        assert place.cloud.families is not None
        there = place.cloud.families.members(place.ctx, family)
        everything = {each.name: each for each in (*there, place.image) if each.name not in self._withdrawn}
        return sorted(everything.values(), key=lambda each: each.created or place.ctx.now(), reverse=True)

    def offer(self, ctx: Context, image: CloudImage, family: str | None) -> None:
        if family is not None:
            self._place.done(self._place.foresight.offer(self._place.ctx, image, family))

    def withdraw(
        self, ctx: Context, image: CloudImage, replacement: CloudImage | None = None, *, obsolete: bool = False
    ) -> None:
        self._withdrawn.add(image.name)
        self._place.done(self._place.foresight.withdraw(self._place.ctx, image))

    def restore(self, ctx: Context, image: CloudImage) -> None:
        self._place.done(self._place.foresight.restore(self._place.ctx, image))


class _Fence:
    def __init__(self, place: _Place) -> None:
        self._place = place

    def hold(self, route: Route, epoch: int) -> None:
        pass

    def take_over(self, ctx: Context, route: Route, epoch: int) -> None:
        self._place.done(self._place.foresight.take_over(self._place.ctx, route, epoch))


class _Console:
    def read(self, ctx: Context, machine: str) -> str:
        return ""


class _Ports:
    """Tells changes by the ports' own names, where a place has no operations of its own."""

    def backend(self, route: Route, slot: Slot) -> str:
        return f"{route.key}-{slot}"

    def renamed(self, route: Route) -> bool:
        return False

    def ensure_slots(self, ctx: Context, route: Route, missing: Collection[Slot]) -> Foretold:
        return [PlannedCall("router", "ensure_slots", " and ".join(missing))]

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> Foretold:
        return [PlannedCall("router", "set_weights", ", ".join(f"{slot} {weights[slot]}" for slot in Slot))]

    def remove(self, ctx: Context, route: Route) -> Foretold:
        return [PlannedCall("router", "remove", route.listener)]

    def take_over(self, ctx: Context, route: Route, epoch: int) -> Foretold:
        return []

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> Foretold:
        return [PlannedCall("router", "note_left", left or "")]

    def set_slow_start(self, ctx: Context, route: Route) -> Foretold:
        return [PlannedCall("router", "set_slow_start", route.listener)]

    def ensure(self, ctx: Context, request: GroupRequest) -> Foretold:
        return [PlannedCall("groups", "ensure", f"{request.name}: {request.capacity} machines")]

    def delete(self, ctx: Context, name: str, *, kept: bool) -> Foretold:
        return [PlannedCall("groups", "delete", name)]

    def pause(self, ctx: Context, name: str) -> Foretold:
        return [PlannedCall("groups", "pause", name)]

    def resume(self, ctx: Context, name: str, scaling: Scaling, *, grown: bool) -> Foretold:
        return [PlannedCall("groups", "resume", name)]

    def apply(self, ctx: Context, name: str, scaling: Scaling) -> Foretold:
        return [PlannedCall("groups", "apply", name)]

    def restore(self, ctx: Context, image: CloudImage) -> Foretold:
        return [PlannedCall("families", "restore", image.name)]

    def offer(self, ctx: Context, image: CloudImage, family: str) -> Foretold:
        return [PlannedCall("families", "offer", f"{image.name}: {family}")]

    def withdraw(self, ctx: Context, image: CloudImage) -> Foretold:
        return [PlannedCall("families", "withdraw", image.name)]

    def sticky(self, ctx: Context, route: Route) -> float | None:
        return None
