"""Services that were deployed: what runs, what ran, going back, cleaning."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from osvdeploy.api import wiring
from osvdeploy.api.declared import Service
from osvdeploy.cloud.interfaces import ReleaseId
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, CredentialsMissing, LedgerError, NotFound, NotOurs, Refused, UsageError
from osvdeploy.events import Note, Warned

if TYPE_CHECKING:
    from osvdeploy.cloud.interfaces import (
        CloudImage,
        Ground,
        GroupState,
        ObjectStore,
        RouteState,
        Scaling,
        Slot,
        StoredObject,
        TargetHealth,
        UploadedDisk,
    )
    from osvdeploy.rollout.ends import Rollout
    from osvdeploy.rollout.lease import Absence
    from osvdeploy.rollout.ledger import Head, HeldLedger, Ledger, Place
    from osvdeploy.rollout.model import Run
    from osvdeploy.rollout.releases import Release
    from osvdeploy.rollout.retention import Garbage, Kept, OnItsWay

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """One slot now: what the ledger says stands there, and what the cloud shows (None where nobody looked). ``scaling``
    is None too where nothing scales the group by itself. ``adopted``: somebody else made what stands there."""

    slot: Slot
    release: ReleaseId | None
    serving: bool
    warm_until: str | None
    weight: int | None
    capacity: int | None
    targets: tuple[TargetHealth, ...] | None
    scaling: Scaling | None = None
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service now. ``cloud_error`` says why the cloud's side is missing, where it is.

    ``left`` is what a rollback without the ledger has noted that it takes traffic from, as long as the ledger has not
    learnt that; ``carrying`` is then the release that has all the traffic by the cloud, None where none has.
    ``absence``: nobody is at work on the rollout under way.
    """

    service: str
    ledger: str
    head: Head
    slots: tuple[SlotStatus, ...]
    base_url: str | None
    cloud_error: str | None
    left: ReleaseId | None = None
    carrying: ReleaseId | None = None
    absence: Absence | None = None


def status(ctx: Context, service: Service, *, look: bool = True) -> ServiceStatus:
    """The ledger's newest head and, with ``look``, what the cloud shows now. Never needs the spec.

    Raises :class:`~osvdeploy.errors.UsageError` for a service that was never deployed.
    """
    from osvdeploy.cloud import tags
    from osvdeploy.cloud.interfaces import Slot
    from osvdeploy.rollout.learning import carried
    from osvdeploy.rollout.lease import absence

    head = wiring.head(ctx, service)
    place = head.place
    weights: Mapping[Slot, int] = {}
    targets: dict[Slot, tuple[TargetHealth, ...]] = {}
    capacity: dict[str, int] = {}
    scaling: dict[str, Scaling] = {}
    adopted: set[str] = set()
    trouble: str | None = None
    left: ReleaseId | None = None
    carrying: ReleaseId | None = None
    if look and place is not None and not head.destroyed:
        try:
            cloud = wiring.ground_of(ctx, place)
            state = cloud.router.observe(ctx, place.route)
            left = head.unheard(state).left
            weights = state.weights or {}
            targets = {slot: cloud.router.health(ctx, place.route, slot) for slot in state.backends}
            owned = cloud.groups.owned(ctx, {tags.SERVICE: head.service})
            capacity = {group.name: group.capacity for group in owned if not group.deleting}
            adopted = {group.name for group in owned if tags.ADOPTED in group.tags}
            if left is not None:
                carrying = carried(state, owned)
            for name in capacity:
                found = cloud.groups.scaling(ctx, name)
                if found is not None and not found.fixed:
                    scaling[name] = found
        except (CloudError, UsageError) as error:
            trouble = str(error)
    return ServiceStatus(
        service=head.service,
        ledger=service.ledger,
        head=head,
        slots=tuple(_slot_status(head, slot, weights, targets, capacity, scaling, adopted) for slot in Slot),
        base_url=place.base_url if place is not None and not head.destroyed else None,
        cloud_error=trouble,
        left=left,
        carrying=carrying,
        absence=absence(ctx, head),
    )


def deserted(service: Service, run: Run, absent: Absence | None) -> Warned:
    """What whoever waits for a run or watches it is told where nobody is at work on it; ``absent`` as far as that can
    be known from the ledger's newest document alone."""
    why = f": {absent.why}" if absent is not None and absent.why else ""
    return Warned(
        f"{service.name}: nobody is at work on the {run.kind} of {run.candidate}, in stage {run.stage}{why}",
        hint=f"`osvdeploy recover {in_full(service)}` goes on with it",
    )


def in_full(service: Service) -> str:
    """A service as commands take it from anywhere."""
    return f"{service.name} --ledger {service.ledger}"


def _slot_status(
    head: Head,
    slot: Slot,
    weights: Mapping[Slot, int],
    targets: Mapping[Slot, tuple[TargetHealth, ...]],
    capacity: Mapping[str, int],
    scaling: Mapping[str, Scaling],
    adopted: Collection[str],
) -> SlotStatus:
    record, run = head.slots.get(slot), head.unfinished
    release, group = (record.release, record.group) if record else (None, None)
    if run is not None and run.slot is slot and group not in capacity:
        # The rollout has emptied the slot for its candidate; the ledger names what stood there until the end.
        record, release, group = None, run.candidate, run.group
    return SlotStatus(
        slot=slot,
        release=release,
        serving=head.serving is slot,
        warm_until=record.warm_until.isoformat() if record and record.warm_until else None,
        weight=weights.get(slot),
        capacity=capacity.get(group) if group else None,
        targets=targets.get(slot),
        scaling=scaling.get(group) if group else None,
        adopted=group in adopted,
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """A service that stands, as its ledger and the cloud show it now.

    ``release`` is the one that serves, with its latest settings; ``images`` are the cloud's ids of the app's images, by
    release; ``scaling`` is what scales the group that serves by itself, and its bounds. ``state`` None: nobody looked,
    or the way in is not there as it was, and ``trouble`` says how.
    """

    service: Service
    head: Head
    place: Place
    release: Release | None
    state: RouteState | None = None
    groups: Mapping[str, GroupState] = field(default_factory=dict)
    images: Mapping[ReleaseId, str] = field(default_factory=dict)
    scaling: Scaling | None = None
    trouble: str = ""
    looked: bool = True

    @property
    def capacity(self) -> int:
        """Machines that the release which serves is to have, as the cloud has it; 0 where its group is gone."""
        stable = self.head.stable
        group = self.groups.get(stable.group) if stable is not None else None
        return group.capacity if group is not None and not group.deleting else 0

    @property
    def scales(self) -> bool:
        """Whether something of the user's changes the size of the group that serves."""
        return self.scaling is not None and self.scaling.moves

    @property
    def astray(self) -> str:
        """What of the route is not as the ledger says; "" where all is."""
        from osvdeploy.rollout.refusals import astray

        return self.trouble if self.state is None else astray(self.head, self.state)


def standing(
    ctx: Context, service: Service, *, look: bool = True, ground: Ground | None = None, known: bool = False
) -> Standing | None:
    """What stands of a service, by its ledger and, with ``look``, the cloud (``ground``, where it is there); None where
    nothing was ever made for it, or all was destroyed. ``known``: something was made for it, so that a ledger's
    directory that is not there is away.

    Raises what the ledger or the cloud does where one cannot be asked: then nothing is known. With ``known``
    :class:`~osvdeploy.errors.UsageError` where the directory is not there.
    """
    from osvdeploy.cloud import tags

    ledger = wiring.open_ledger(service)
    head = ledger.head(ctx)
    if head is None and known and wiring.is_missing(ledger.store):
        raise wiring.never_deployed(service)
    if head is None or head.place is None or head.destroyed:
        return None
    place = head.place
    release = ledger.release(ctx, head.stable.release) if head.stable is not None else None
    if not look:
        return Standing(service, head, place, release, looked=False)
    cloud = wiring.ground_again(ctx, ground, place)
    state: RouteState | None = None
    trouble = ""
    try:
        state = cloud.router.observe(ctx, place.route)
    except (NotFound, NotOurs, UsageError) as error:
        trouble = error.message
    images = cloud.images.owned(ctx, {tags.APP: service.app})
    scaling = cloud.groups.scaling(ctx, head.stable.group) if head.stable is not None else None
    return Standing(
        service=service,
        head=head,
        place=place,
        release=release,
        state=state,
        groups={group.name: group for group in cloud.groups.owned(ctx, {tags.SERVICE: head.service})},
        images={ReleaseId(each.tags[tags.RELEASE]): each.id for each in images if tags.RELEASE in each.tags},
        scaling=scaling,
        trouble=trouble,
    )


def refuse_in_use(ctx: Context, ledger: Ledger, ground: Ground, release: Release) -> None:
    """Raise UsageError where a first deploy would take requests from machines that somebody else made."""
    from osvdeploy.rollout.releases import route_of

    head = ledger.head(ctx)
    if head is not None and head.stable is not None and not head.destroyed:
        return
    if taker := ground.router.in_use(ctx, route_of(release)):
        raise UsageError(
            f"{release.service}: its requests are taken by {taker} now, and the first deploy would take them away",
            hint="`osvdeploy deploy --adopt GROUP` makes the machines that have them a release first, to be gone back "
            "to; `--displace` takes them away",
        )


def serves(ctx: Context, service: Service) -> bool:
    """Whether a release of the service serves, by its ledger alone."""
    head = wiring.open_ledger(service).head(ctx)
    return head is not None and head.stable is not None and not head.destroyed


def realign(ctx: Context, service: Service, *, ground: Ground | None = None) -> Head:
    """Send traffic where the ledger says that it goes, where somebody has sent it elsewhere. Does nothing during a
    rollout.

    Raises :class:`~osvdeploy.errors.Refused` where no machine there is healthy: traffic stays where it is.

    Promise: traffic moves only to where machines are healthy, and to what the ledger has proved.
    """
    return wiring.manager(ctx, service, wiring.head(ctx, service), known=ground).realign(ctx)


@dataclass(frozen=True, slots=True)
class History:
    """The releases of a service, newest first, and its runs, newest first, as they ended or stand."""

    service: str
    releases: tuple[Release, ...]
    runs: tuple[Run, ...]
    serving: ReleaseId | None


def history(ctx: Context, service: Service, *, limit: int = 20) -> History:
    """What was deployed, when, and how each rollout ended. Reads the ledger alone, back to the ``limit``-th run."""
    from osvdeploy.rollout.ledger import MANY

    head = wiring.head(ctx, service)
    ledger = wiring.open_ledger(service)
    runs: dict[str, Run] = {}
    for past in ledger.heads(ctx, width=MANY):
        # Newest first, so the first document of a run is its last word.
        if past.run is not None and past.run.id not in runs:
            if len(runs) == limit:
                break
            runs[past.run.id] = past.run
    serving = head.stable.release if head.stable is not None else None
    return History(service.name, tuple(reversed(ledger.releases(ctx))), tuple(runs.values()), serving)


ProbeFrom: TypeAlias = Literal["here", "requests"]
"""Where probes leave from, by the word of whoever goes back: from this process; or nothing is asked, and requests that
the place counts are the proof, for whoever does not reach the balancer."""


def rollback(
    ctx: Context,
    service: Service,
    *,
    to: str | None = None,
    take_over: bool = False,
    force: bool = False,
    probe_from: ProbeFrom | None = None,
) -> Rollout:
    """Bring the release before the present one back, or ``to``: a release id or a version. ``take_over``: outrank what
    a later lease than the ledger knows of has left in the cloud. ``force``: whoever holds the lease on another machine
    is dead, and not waited for. ``probe_from``: for this one alone, in place of what is declared.

    Raises :class:`~osvdeploy.errors.UsageError` for a release nobody knows, or whose image is gone, and for a route
    whose requests nobody counts where they are to be the proof; all before anything moves.

    Promise: when it returns, traffic is on that release, or where it was (look at ``outcome``). Warm, it is one
    changing call. Neither metrics nor notifications can hold traffic up; by requests, its proof comes minutes after
    it. Ended early, the same call goes on with it.
    """
    try:
        head = wiring.head(ctx, service)
    except CredentialsMissing:
        raise
    except (CloudError, LedgerError, UsageError) as error:
        if "--from-cloud" not in (error.hint or ""):
            way = f"where the ledger stays out of reach: `osvdeploy rollback {service.name} --from-cloud`"
            error.hint = f"{error.hint}; {way}" if error.hint else way
        raise
    ledger = wiring.open_ledger(service)
    target = find_release(ctx, ledger, to) if to is not None else None
    from osvdeploy.rollout.releases import ProbePlace

    said = ProbePlace(probe_from) if probe_from is not None else None
    manager = wiring.manager(ctx, service, head, take_over=take_over, probe_from=said)
    return manager.rollback(ctx, target, force=force)


def find_release(ctx: Context, ledger: Ledger, name: str) -> Release:
    """The release with that id or version. Raises UsageError when there is none, or a version has several."""
    known = ledger.releases(ctx)
    by_id = [release for release in known if release.id == name]
    by_version = [release for release in known if release.version == name]
    found = by_id or by_version
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{ledger.service}: version {name} was deployed with several configurations: "
            + ", ".join(release.id for release in found),
            hint="name one of these ids",
        )
    nearest = ", ".join(release.version for release in reversed(known[-5:])) or "none yet"
    raise UsageError(
        f"{ledger.service}: no release {name!r} was ever deployed",
        hint=f"`osvdeploy history` lists them; newest: {nearest}",
    )


def hold(ctx: Context, service: Service, release: str | None, why: str) -> Head:
    """Refuse a release (an id or version), or every one where None, until :func:`unhold`. It is in the ledger when this
    returns. Raises :class:`~osvdeploy.errors.LeaseHeld` while somebody else changes the service.

    Promise: nothing that it refuses begins once this has returned.
    """
    head = wiring.head(ctx, service)
    held = find_release(ctx, wiring.open_ledger(service), release).id if release is not None else None
    return wiring.manager(ctx, service, head).hold(ctx, held, why)


def unhold(ctx: Context, service: Service, release: str | None = None) -> Head:
    """Take the hold of a release (an id or version) away, or every one of the service where None. Raises as
    :func:`hold` does, and :class:`~osvdeploy.errors.UsageError` where that release is not held.

    Promise: as that of :func:`hold`: it is in the ledger when this returns.
    """
    head = wiring.head(ctx, service)
    named = find_release(ctx, wiring.open_ledger(service), release).id if release is not None else None
    return wiring.manager(ctx, service, head).unhold(ctx, named)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a service has in the cloud: names of groups, templates, rules and backends. ``kept`` are groups of somebody
    else's, which stay. ``gone`` tells what of its way in is not there any more; what that led to is not among the rules
    and backends then."""

    groups: tuple[str, ...]
    templates: tuple[str, ...]
    rules: tuple[str, ...]
    backends: tuple[str, ...]
    serving: ReleaseId | None
    kept: tuple[str, ...] = ()
    gone: str = ""


def holdings(ctx: Context, service: Service) -> Holdings:
    """What :func:`destroy` would take away."""
    from osvdeploy.cloud import tags

    head = wiring.head(ctx, service)
    if head.place is None or head.destroyed:
        raise UsageError(f"{service.name}: nothing is deployed", hint="`osvdeploy history` tells what was")
    cloud = wiring.ground_of(ctx, head.place)
    gone, rules, backends = "", tuple[str, ...](), tuple[str, ...]()
    try:
        state = cloud.router.observe(ctx, head.place.route)
        # A pointer's own rule is the user's: it stays, and leads where it led before.
        rules = tuple(name for use, name in state.rules.items() if state.weighted or use != "route")
        backends = tuple(state.backends.values())
    except NotFound as error:
        gone = str(error)
    owned = cloud.groups.owned(ctx, {tags.SERVICE: head.service})
    return Holdings(
        groups=tuple(group.name for group in owned if not tags.is_kept(group.tags)),
        kept=tuple(group.name for group in owned if tags.is_kept(group.tags)),
        templates=tuple(cloud.groups.templates(ctx, {tags.SERVICE: head.service})),
        rules=rules,
        backends=backends,
        serving=head.stable.release if head.stable else None,
        gone=gone,
    )


def destroy(ctx: Context, service: Service, *, take_over: bool = False) -> Head:
    """Take everything of a service away: machines, templates, rules, backends. Images stay for ``gc``. ``take_over`` as
    for :func:`rollback`.

    Promise: when it returns, nothing of the service is left in the cloud but images. Ended early, the same call goes
    on with it.
    """
    head = wiring.head(ctx, service)
    return wiring.manager(ctx, service, head, take_over=take_over).destroy(ctx)


def gc(
    ctx: Context,
    service: Service,
    *,
    keep: int = 10,
    age: float | None = None,
    dry_run: bool = False,
    buckets: Mapping[str, str] | None = None,
) -> Garbage:
    """Find, and unless ``dry_run`` remove, what no release of the service needs. Returns what was found. Needed are the
    ``keep`` newest releases that have served, and those that still served within the last ``age`` seconds. A dry run
    weighs disks, too, which takes a call for each.

    Images and disks that passed through a bucket name it, and what was left there of the app's is looked for;
    ``buckets`` has one more to look into, by cloud. Looks once more under the lease, so that nothing a deploy has just
    begun to need is taken. An image that others start machines from stays, and so does each where that cannot be told
    (``kept`` has them; whoever may deploy may look). First, image families follow what serves, where an earlier command
    could not see to that. Raises the first :class:`~osvdeploy.errors.Refused` once all else is gone.

    Promise: what serves, is warm, is pinned or is being rolled out is never taken, whoever deploys meanwhile. Ended
    early, the same call goes on with it.
    """
    from osvdeploy.rollout import families, lease

    head = wiring.head(ctx, service)
    if head.place is None:
        raise UsageError(f"{service.name}: was never deployed")
    cloud = wiring.ground_of(ctx, head.place)
    ledger = wiring.open_ledger(service)
    bucket = (buckets or {}).get(head.place.cloud)
    if dry_run:
        return _weighed(ctx, cloud, _find_garbage(ctx, ledger, cloud, head, keep, bucket, age))
    with lease.held(ctx, ledger, "gc") as held:
        families.follow(ctx, cloud, held)
        garbage = _find_garbage(ctx, ledger, cloud, held.head, keep, bucket, age)
        gone = {name for name, _ in garbage.groups}
        slots = {slot: record for slot, record in held.head.slots.items() if record.group not in gone}
        if slots != held.head.slots:
            # First: a group that no slot names is found again, a slot whose group is gone is not.
            held.save(ctx, "gc", slots=slots)
        return _sweep(ctx, held, cloud, garbage)


def sweep_retired(ctx: Context, service: Service) -> Garbage:
    """Remove the images that Pulumi programs have retired and that no release of a destroyed service needs any more,
    and what they stand on; nothing else. Returns what is gone. Raises as :func:`gc` does.

    Promise: images that anything was started from stay. Ended early, the same call goes on with it.
    """
    from osvdeploy.cloud import tags
    from osvdeploy.rollout import lease
    from osvdeploy.rollout.retention import Garbage

    head = wiring.head(ctx, service)
    if head.place is None or not head.destroyed:
        return Garbage((), (), (), ())
    cloud, ledger = wiring.ground_of(ctx, head.place), wiring.open_ledger(service)
    if not any(tags.RETIRED in image.tags for image in cloud.images.owned(ctx, {tags.APP: service.app})):
        return Garbage((), (), (), ())
    with lease.held(ctx, ledger, "gc") as held:
        found = _find_garbage(ctx, ledger, cloud, held.head, 1)
        images = tuple((image, why) for image, why in found.images if tags.RETIRED in image.tags)
        stood_on = {image.disk for image, _ in images}
        disks = tuple((disk, why) for disk, why in found.disks if disk.id in stood_on)
        kept = tuple(each for each in found.kept if tags.RETIRED in each.image.tags)
        hindered = found.hindered if kept else None
        return _sweep(ctx, held, cloud, Garbage((), (), images, disks, kept=kept, hindered=hindered))


def _sweep(ctx: Context, held: HeldLedger, cloud: Ground, garbage: Garbage) -> Garbage:
    """Remove what was found; what is gone then. What is refused is told, and hinders nothing else.

    Raises the first refusal, also that to look who else has images, once everything else is gone.
    """
    from osvdeploy.cloud.interfaces import Cloud
    from osvdeploy.rollout.scaling import let_go, take_away

    refused = [garbage.hindered] if garbage.hindered is not None else []

    def removed(thing: str, why: str, remove: Callable[[Context, T], None], what: T) -> bool:
        ctx.report(Note(f"removing {thing}: {why}"))
        try:
            held.insist(ctx, remove, what)
        except (Refused, NotOurs) as error:
            ctx.report(Warned(f"could not remove {thing}: {error}", hint=error.hint))
            refused.append(error)
            return False
        return True

    def taken_away(acting: Context, group: str) -> None:
        take_away(acting, cloud.groups, held.head, group)

    for group, why in garbage.groups:
        if removed(f"group {group}", why, taken_away, group):
            let_go(ctx, held, group)
    for template, why in garbage.templates:
        removed(f"template {template}", why, cloud.groups.delete_template, template)
    for image, why in garbage.images:
        removed(f"image {image.name} ({image.id})", why, cloud.images.deregister, image.id)
    if isinstance(cloud, Cloud):
        for disk, why in garbage.disks:
            removed(f"disk {disk.name} ({disk.id})", why, cloud.snapshots.delete, disk.id)
    addresses = {address for address, _, _ in (*garbage.objects, *garbage.uploads)}
    # Each once: a bucket's region is asked for, and clients are made.
    stores = {address: wiring.open_store(address) for address in addresses}
    for address, stored, why in garbage.objects:
        removed(f"{address}/{stored.key}", why, stores[address].delete, stored.key)
    for address, upload, why in garbage.uploads:
        removed(f"what was sent of {address}/{upload.key}", why, stores[address].abort, upload)
    if refused:
        raise refused[0]
    return garbage


def _on_its_way(
    ctx: Context, cloud: Ground, app: str, things: Sequence[CloudImage | UploadedDisk], bucket: str | None
) -> list[OnItsWay]:
    """What is left of the app's disks in the stores that they passed through."""
    from osvdeploy.cloud import tags
    from osvdeploy.cloud.interfaces import Cloud, CloudImage
    from osvdeploy.publish.archiving import KEPT, in_use, kept_of
    from osvdeploy.publish.importing import folder_of, passing
    from osvdeploy.rollout.retention import OnItsWay

    addresses = {thing.tags[tags.STORE] for thing in things if tags.STORE in thing.tags}
    if bucket is not None:
        addresses.add(wiring.image_store(cloud.kind, bucket))
    imports = cloud.imports if isinstance(cloud, Cloud) else None
    if not addresses or (isinstance(cloud, Cloud) and imports is None):
        return []
    folder, found = folder_of(app), []
    reading = set(imports.reading(ctx)) if imports is not None else set()
    images = [thing for thing in things if isinstance(thing, CloudImage)]
    for address in sorted(addresses):
        store = wiring.open_store(address)
        try:
            # A ledger, or whatever else, may have keys that begin likewise.
            keys = [key for key in store.keys(ctx, folder) if passing(app, key)]
            stored = [each for key in keys if (each := store.find(ctx, key)) is not None]
            uploads = [each for each in store.unfinished(ctx, folder) if passing(app, each.key)]
        except Refused as error:
            # A bucket of old: the rest is cleaned all the same.
            ctx.report(Warned(f"cannot look for what was left in {address}: {error}", hint=error.hint))
            continue
        if imports is None:
            reading |= {f"{address}/{key}" for key in in_use(images, stored, uploads, ctx.now())}
            kept, wanted = _kept(ctx, store, app), {each.tags.get(tags.IMAGE) for each in images}
            reading |= {f"{address}/{each.key}" for each in kept if kept_of(each.key) in wanted}
            stored += kept
            uploads += store.unfinished(ctx, f"{KEPT}/{app}/")
        found.append(OnItsWay(address, stored, uploads, reading))
    return found


def _kept(ctx: Context, store: ObjectStore, app: str) -> list[StoredObject]:
    """What is kept of an app's disks for later releases: it goes when no image of the disk is left."""
    from osvdeploy.publish.archiving import KEPT

    keys = store.keys(ctx, f"{KEPT}/{app}/")
    return [each for key in keys if (each := store.find(ctx, key)) is not None]


def _destroyed_at(ctx: Context, ledger: Ledger) -> datetime | None:
    """When the service was destroyed: what is written after that, by us as well, says so too."""
    found: datetime | None = None
    for head in ledger.heads(ctx):
        if not head.destroyed:
            break
        found = head.written
    return found


def _weighed(ctx: Context, cloud: Ground, garbage: Garbage) -> Garbage:
    """The same with the bytes of disks, as far as the place tells them."""
    from osvdeploy.cloud import tags
    from osvdeploy.cloud.interfaces import Cloud

    if not isinstance(cloud, Cloud):
        return garbage
    stored: dict[str, int] = {}
    for disk, _ in garbage.disks:
        try:
            if tags.RELEASE in disk.tags:
                # One block on top of its image's disk, which the other releases of that image stand on too.
                stored[disk.id] = cloud.snapshots.block_size
            else:
                stored[disk.id] = cloud.snapshots.stored(ctx, disk.id)
        except CloudError as error:
            ctx.report(Note(f"how much of {disk.name} ({disk.id}) is stored cannot be told: {error}"))
    return replace(garbage, stored=stored)


def _find_garbage(
    ctx: Context,
    ledger: Ledger,
    cloud: Ground,
    head: Head,
    keep: int,
    bucket: str | None = None,
    age: float | None = None,
) -> Garbage:
    from functools import partial

    from osvdeploy.cloud import tags
    from osvdeploy.cloud.interfaces import Cloud, ReleaseId
    from osvdeploy.rollout.retention import find_garbage

    releases = ledger.releases(ctx)
    weights: Mapping[Slot, int] = {}
    if head.place is not None and not head.destroyed:
        weights = cloud.router.observe(ctx, head.place.route).weights or {}
    templates = cloud.groups.templates(ctx, {tags.SERVICE: head.service})
    images = cloud.images.owned(ctx, {tags.APP: ledger.app})
    retired = {
        ReleaseId(image.tags[tags.RELEASE])
        for image in images
        if tags.RETIRED in image.tags and tags.RELEASE in image.tags
    }
    disks = cloud.snapshots.owned(ctx, {tags.APP: ledger.app}) if isinstance(cloud, Cloud) else []
    groups = cloud.groups.owned(ctx, {tags.APP: ledger.app})
    own = [group for group in groups if group.tags.get(tags.SERVICE) == head.service]
    elsewhere = {each.release for each in groups if each not in own and each.release is not None}
    elsewhere |= {
        each for each in retired if not set(cloud.groups.templates(ctx, {tags.RELEASE: each})) <= set(templates)
    }
    find = partial(
        find_garbage,
        head,
        releases,
        keep,
        ctx.now(),
        groups=own,
        templates=templates,
        images=images,
        disks=disks,
        carrying=[slot for slot, weight in weights.items() if weight > 0],
        elsewhere=elsewhere,
        stores=_on_its_way(ctx, cloud, ledger.app, [*images, *disks], bucket),
        destroyed=_destroyed_at(ctx, ledger) if head.destroyed else None,
        age=age,
        served=ledger.served_since(ctx, head, ctx.now() - timedelta(seconds=age)) if age is not None else (),
    )
    garbage = find()
    kept, hindered = _kept_for_others(ctx, cloud, [image for image, _ in garbage.images])
    if not kept:
        return garbage
    return replace(find(wanted=[each.image.id for each in kept]), kept=kept, hindered=hindered)


def _kept_for_others(
    ctx: Context, cloud: Ground, images: Sequence[CloudImage]
) -> tuple[tuple[Kept, ...], Refused | None]:
    """Those of the images that somebody else has; all of them where we may not look, and that refusal.

    An image that is gone is missed when a machine is to be started, and nobody can bring it back; one that stays costs
    some cents, until who sweeps is allowed what each deploy asks for.
    """
    from osvdeploy.rollout.retention import Kept

    try:
        users = cloud.images.users(ctx, images)
    except Refused as error:
        ctx.report(Warned(f"images stay, for who else has them cannot be told: {error.message}", hint=error.hint))
        why = f"who else has it cannot be told: {error.hint or error.message}"
        return tuple(Kept(image, (), why) for image in images), error
    others = {image.id: [user.told for user in users.get(image.id, ()) if not user.ours] for image in images}
    return tuple(Kept.by(image, others[image.id]) for image in images if others[image.id]), None
