"""A service as the cloud alone tells it, for whoever has no ledger: by names and tags, weights, and what answers.

What no tag says is taken from an environment of a spec, where one is there, and else is what a spec leaves out. A
ledger is written from it: in memory, to go back with the engine that every rollback has, or for good, where the
service's own is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import (
    CloudImage,
    Ground,
    GroupShape,
    GroupState,
    Prober,
    ProbeRequest,
    ReleaseId,
    Route,
    RouteState,
    Slot,
    Tags,
)
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import CloudError, UsageError
from osvdeploy.events import Note, Warned
from osvdeploy.rollout.ledger import HeldLedger, Place, Served, SlotRecord
from osvdeploy.rollout.releases import (
    Adopted,
    Health,
    Release,
    Settings,
    Strategy,
    StrategyKind,
    TrafficStep,
    route_of,
    service_key,
    service_name,
)

BOOT_TIMEOUT = 600.0
"""Seconds that machines may take to become healthy where no spec says so: nobody is helped by giving up early."""
MIN_READY, KEEP_WARM = 10.0, 3600.0
"""As a spec leaves them out; a test holds them to it."""

UNKNOWN = ReleaseId("unknown")
"""What serves where its machines are gone, and with them their tags."""

_OF_RELEASES = (tags.RELEASE, tags.VERSION, tags.IMAGE, tags.CONFIGURATION, tags.DIGEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What a place has of a service. ``groups`` are those that stand in each slot, ``settings`` what any release of the
    service is deployed with, with the ledger that the tags name. ``releases`` are those of which the place has an image
    or machines."""

    service: str
    route: Route
    state: RouteState
    groups: Mapping[Slot, GroupState]
    settings: Settings
    releases: Mapping[ReleaseId, Release]
    images: Mapping[ReleaseId, CloudImage]

    @property
    def carrying(self) -> tuple[Slot, ...]:
        """The slots that have traffic."""
        weights = self.state.weights or {}
        return tuple(slot for slot in Slot if weights.get(slot, 0) > 0)

    @property
    def serving(self) -> Slot | None:
        """The one slot that has all of it."""
        return self.carrying[0] if len(self.carrying) == 1 else None

    def standing(self, slot: Slot) -> ReleaseId | None:
        """The release whose machines stand in a slot."""
        group = self.groups.get(slot)
        return group.release if group is not None else None

    @property
    def newer(self) -> Slot | None:
        """The slot beside the one that serves, where what stands there was started after it; None where it was not.

        What a deploy leaves warm is older, and a rollback takes away what it leaves. So that is the release of a
        rollout that is under way, which nobody has proved, or of one that was given up: to go to it is not to go back.
        """
        if self.serving is None:
            return None
        serving, beside = self.groups.get(self.serving), self.groups.get(self.serving.other)
        if serving is None or beside is None or serving.created is None or beside.created is None:
            return None
        return self.serving.other if beside.created > serving.created else None

    @property
    def newest(self) -> list[ReleaseId]:
        """The releases that have an image, the newest image first."""

        def made(release: ReleaseId) -> datetime:
            return self.images[release].created or self.releases[release].created

        return sorted(self.images, key=lambda release: (made(release), release), reverse=True)

    def named(self, name: str) -> Release:
        """The release with that id or version. Raises UsageError where there is none, or several."""
        found = [each for each in self.releases.values() if each.id == name] or [
            each for each in self.releases.values() if each.version == name
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"{self.service}: version {name} is several releases: {', '.join(each.id for each in found)}",
                hint="name one of these ids",
            )
        raise UsageError(
            f"{self.service}: nothing in the cloud is tagged as {name}",
            hint=f"there are: {', '.join(self.newest[:5]) or 'none'}",
        )


def trace(
    ctx: Context,
    cloud: Ground,
    prober: Prober | None,
    app: str,
    environment: str,
    *,
    declared: Settings | None = None,
    listener: str | None = None,
    version_header: str | None = None,
) -> Traces:
    """Look for a service by its name. ``declared`` is its environment in a spec, ``listener`` which of several ways in
    is meant, ``version_header`` what answers name their release with; without one it is looked for in the answers,
    where there is a ``prober``.

    Raises :class:`~osvdeploy.errors.UsageError` where nothing of it is there, or more than one thing could be meant.
    """
    service = service_name(app, environment)
    route = _route(ctx, cloud, service, listener or (declared.listener if declared is not None else None))
    route = _starting_slowly(ctx, cloud, route)
    state = cloud.router.observe(ctx, route)
    groups = _groups(ctx, cloud, service)
    if not groups:
        raise UsageError(
            f"{service}: a rule sends traffic, but no machines with its tags are in {cloud.kind} {cloud.region}",
            hint="name the region, or zone, where they are",
        )
    serving = [slot for slot in Slot if (state.weights or {}).get(slot, 0) > 0]
    like = groups.get(serving[0] if serving else Slot.BLUE) or next(iter(groups.values()))
    shape = cloud.groups.shape(ctx, like.name)
    header = version_header or (declared.health.version_header if declared is not None else None)
    if header is None and prober is not None and route.health.kind == "http":
        header = _version_header(ctx, prober, route, state, groups)
    settings = _settings(ctx, cloud, environment, route, like, shape, header, declared)
    images = {
        ReleaseId(image.tags[tags.RELEASE]): image
        for image in cloud.images.owned(ctx, {tags.APP: app})
        if image.tags.get(tags.SERVICE, service) == service and tags.RELEASE in image.tags
    }
    by = f"{ctx.process.user}@{ctx.process.host}"
    releases = {
        release.id: release
        for held, created in (
            *((image.tags, image.created) for image in images.values()),
            *((group.tags, None) for group in groups.values()),
        )
        if (release := _release(app, held, settings, created or ctx.now(), by)) is not None
    }
    for group in groups.values():
        # What was adopted has no image of ours, and its program names no release by itself.
        known = releases.get(group.release) if group.release is not None else None
        if known is not None and tags.ADOPTED in group.tags:
            releases[known.id] = _as_adopted(ctx, cloud, known, group)
    return Traces(
        service=service,
        route=route_of_settings(app, route, settings),
        state=state,
        groups=groups,
        settings=settings,
        releases=releases,
        images={release: image for release, image in images.items() if release in releases},
    )


def record(ctx: Context, held: HeldLedger, traces: Traces, place: Place) -> None:
    """Write what was found into a ledger that knows nothing of the service."""
    standing = {group.release for group in traces.groups.values()}
    for release in traces.releases.values():
        # Of those that do not stand nobody knows any more whether they have served; to ask for an approval that they
        # may have had would leave no way back.
        held.ledger.put_release(ctx, release if release.id in standing else _approved(release))
    now = ctx.now()
    serving, slots = traces.serving, dict[Slot, SlotRecord]()
    for slot, group in traces.groups.items():
        if group.release is not None:
            kept = 0.0 if slot is traces.newer else traces.settings.strategy.keep_warm
            warm = None if slot is serving else now + timedelta(seconds=kept)
            slots[slot] = SlotRecord(group.release, group.name, now, warm)
    if serving is not None and serving not in slots:
        slots[serving] = SlotRecord(UNKNOWN, f"osvd-{traces.route.key}-gone", now)
    # What has not served yet is nothing to go back to.
    order = sorted(set(slots) - {traces.newer}, key=lambda slot: slot is serving)
    held.save(
        ctx,
        "found by its tags in the cloud",
        place=place,
        slots=slots,
        serving=serving,
        served=tuple(Served(slots[slot].release, now) for slot in order if slots[slot].release != UNKNOWN),
        destroyed=False,
    )


def _approved(release: Release) -> Release:
    strategy = release.settings.strategy
    steps = tuple(replace(step, approve=False) for step in strategy.steps)
    return replace(release, settings=replace(release.settings, strategy=replace(strategy, approve=False, steps=steps)))


def _route(ctx: Context, cloud: Ground, service: str, listener: str | None) -> Route:
    found = cloud.router.find(ctx, service, service_key(service))
    if not found:
        raise UsageError(
            f"{service}: no rule that sends traffic has its tags in {cloud.kind} {cloud.region} of {cloud.account}",
            hint="look at account, region and name: APP/ENV as in the tag osvdeploy:service. What was never deployed "
            "leaves none, nor what was destroyed",
        )
    chosen = [route for route in found if listener in (None, route.listener)]
    if len(chosen) == 1:
        return chosen[0]
    ways = ", ".join(f"{route.listener} at {route.priority}" for route in found)
    raise UsageError(f"{service}: several ways in carry its tags: {ways}", hint="name one with --listener")


def _starting_slowly(ctx: Context, cloud: Ground, route: Route) -> Route:
    """The route with the slow start of its backends, which no rule tells. Nobody is kept from going back for it."""
    try:
        found = [cloud.router.slow_start(ctx, route, slot) for slot in Slot]
    except CloudError as error:
        ctx.report(
            Warned(
                f"{route.service}: its slow start cannot be read: {error}",
                hint="it is taken for 0s; `osvdeploy deploy` sets what the spec says",
            )
        )
        return route
    return replace(route, slow_start=max((each for each in found if each is not None), default=0.0))


def _groups(ctx: Context, cloud: Ground, service: str) -> dict[Slot, GroupState]:
    """What stands in each slot: one group, those that go not counted."""
    found: dict[Slot, GroupState] = {}
    for group in cloud.groups.owned(ctx, {tags.SERVICE: service}):
        told = group.tags.get(tags.SLOT)
        if group.deleting or told not in set(Slot):
            continue
        slot = Slot(told)
        if slot in found:
            raise UsageError(
                f"{service}: two groups stand in slot {slot}: {found[slot].name} ({found[slot].release}) and "
                f"{group.name} ({group.release})",
                hint="a rollout was under way; delete the one that has no healthy machines, then run this again",
            )
        found[slot] = group
    return found


def _version_header(
    ctx: Context, prober: Prober, route: Route, state: RouteState, groups: Mapping[Slot, GroupState]
) -> str | None:
    """The header in which answers name their release: the one whose value is the release that stands in the slot that
    was asked. None where no answer has one."""
    for slot, group in sorted(groups.items(), key=lambda each: (state.weights or {}).get(each[0], 0)):
        headers = {"Host": route.host} if route.host else {}
        base, address = state.base_url, next(iter(state.addresses), None)
        if not state.weighted:
            base, address = state.previews.get(slot, state.base_url), None
        elif route.preview_header:
            headers[route.preview_header] = slot.value
        url = base.rstrip("/") + route.health.path
        answer = prober.probe(ctx, ProbeRequest(url, headers, route.health.timeout, address))
        for name, value in answer.headers.items():
            if value == group.release:
                ctx.report(Note(f"answers name their release in the header {name}"))
                return name
    return None


def _settings(
    ctx: Context,
    cloud: Ground,
    environment: str,
    route: Route,
    like: GroupState,
    shape: GroupShape | None,
    header: str | None,
    declared: Settings | None,
) -> Settings:
    ledger = like.tags.get(tags.LEDGER) or route.tags.get(tags.LEDGER, "")
    if declared is not None:
        return replace(declared, health=replace(declared.health, version_header=header), capacity=like.capacity or 1)
    if shape is None:
        raise UsageError(
            f"{route.service}: the template of {like.name} is gone, and with it what machines are made of",
            hint="run this beside the service's osv.toml",
        )
    return Settings(
        environment=environment,
        cloud=cloud.kind,
        region=cloud.region,
        ledger=ledger,
        machine_type=shape.machine_type,
        capacity=like.capacity or 1,
        networks=shape.networks,
        firewalls=shape.firewalls,
        listener=route.listener,
        host=route.host,
        path=route.path,
        priority=route.priority,
        preview_header=route.preview_header,
        port=route.port,
        health=Health(
            path=route.health.path,
            version_header=header,
            boot_timeout=BOOT_TIMEOUT,
            interval=route.health.interval,
            timeout=route.health.timeout,
            min_ready=MIN_READY,
            slow_start=route.slow_start,
            kind=route.health.kind,
        ),
        strategy=Strategy(StrategyKind.BLUE_GREEN, (TrafficStep(100),), 0.0, KEEP_WARM),
    )


def route_of_settings(app: str, found: Route, settings: Settings) -> Route:
    """The route as a deploy by these settings would have it, where it is the one that was found: then no later command
    takes it for another one. Of what differs, what stands counts."""
    release = Release(ReleaseId(""), app, "", Digest(""), Digest(""), Digest(""), datetime.min, "", settings)
    declared = route_of(release)
    alike = replace(
        found,
        health=declared.health,
        slow_start=declared.slow_start,
        path=_path(found.path),
        tags=declared.tags,
    )
    same = alike == replace(declared, path=_path(declared.path))
    return declared if same else found


def _path(path: str | None) -> str | None:
    """Every path is none: a rule needs a condition where a route has none."""
    return None if path == "/*" else path


def _release(app: str, held: Tags, settings: Settings, created: datetime, by: str) -> Release | None:
    """The release that tags name, None where they do not name one whole."""
    if any(key not in held for key in _OF_RELEASES):
        return None
    return Release(
        id=ReleaseId(held[tags.RELEASE]),
        app=app,
        version=held[tags.VERSION],
        image=Digest(held[tags.IMAGE]),
        configuration=Digest(held[tags.CONFIGURATION]),
        digest=Digest(held[tags.DIGEST]),
        created=created,
        by=by,
        settings=settings,
    )


def _as_adopted(ctx: Context, cloud: Ground, release: Release, group: GroupState) -> Release:
    shape = cloud.groups.shape(ctx, group.name)
    adopted = Adopted(group.name, shape.image if shape is not None else "", "", not tags.is_kept(group.tags))
    health = release.settings.health
    if cloud.kind != "gcp":
        health = replace(health, version_header=None)
    return replace(release, adopted=adopted, settings=replace(release.settings, health=health))


def refuse_shared(traces: Traces, hint: str = "say with --to which of them is to have all of it") -> None:
    """Raise :class:`~osvdeploy.errors.UsageError` where no slot, or not one alone, has the traffic."""
    shares: Sequence[str] = [
        f"{traces.standing(slot) or 'nobody'} in {slot} {(traces.state.weights or {}).get(slot, 0)} %" for slot in Slot
    ]
    if traces.serving is None:
        raise UsageError(
            f"{traces.service}: traffic is shared: {', '.join(shares)}",
            hint=hint,
        )


def refuse_newer(traces: Traces) -> None:
    """Raise :class:`~osvdeploy.errors.UsageError` where what stands beside what serves was started after it."""
    if traces.newer is not None and traces.serving is not None:
        raise UsageError(
            f"{traces.service}: {traces.standing(traces.serving)} has all the traffic, and "
            f"{traces.standing(traces.newer)}, which stands beside it, was started after it: a rollout is under way, "
            "or was given up",
            hint="nothing was moved; name the release that is to have the traffic with --to",
        )


def warn_of_suspended(ctx: Context, cloud: Ground, traces: Traces) -> None:
    """Say where what scales a group stands still: a rollout sees to that while traffic is shared, and only its ledger
    knows whether it did. Nobody is kept from going back for it."""
    for _, group in sorted(traces.groups.items()):
        try:
            there = cloud.groups.scaling(ctx, group.name)
        except CloudError as error:
            ctx.report(Warned(f"cannot see what scales {group.release}: {error}", hint=error.hint))
            continue
        if there is not None and there.parts and there.paused:
            ctx.report(
                Warned(
                    f"{traces.service}: what scales {group.release} is suspended ({', '.join(there.parts)}): by a "
                    "rollout that was under way, or by somebody",
                    hint=f"where nobody wants it so, let it go on by hand: resume the processes of {group.name}, or "
                    "set its autoscaler to ON",
                )
            )


def warn_of_others(ctx: Context, cloud: Ground, service: str) -> None:
    """Say what cannot be known without the ledger: whether somebody else is at work."""
    if cloud.fence is None:
        ctx.report(
            Warned(
                f"{service}: without the ledger nobody can be asked for the lease, and whoever else is at work is not "
                "stopped",
                hint="whoever else is rolling this service out must be stopped by hand",
            )
        )
    else:
        ctx.report(
            Warned(
                f"{service}: without the ledger nobody can be asked for the lease; whoever had it is outranked",
                hint="a rollout that is under way elsewhere ends at its next change",
            )
        )
