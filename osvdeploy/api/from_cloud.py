"""Services whose ledger cannot be reached, or is lost: gone back with, and written down anew, by the cloud's tags."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.context import Context
from osvdeploy.errors import (
    CloudError,
    DeadlineExceeded,
    Interrupted,
    OsvDeployError,
    UsageError,
)
from osvdeploy.events import Note, Warned

if TYPE_CHECKING:
    from osvdeploy.api.services import ProbeFrom
    from osvdeploy.cloud.interfaces import Ground, Prober, ReleaseId, Route
    from osvdeploy.rollout.ends import Rollout
    from osvdeploy.rollout.ledger import Head, HeldLedger
    from osvdeploy.rollout.manager import RolloutManager
    from osvdeploy.rollout.model import Limits
    from osvdeploy.rollout.releases import Release, Settings
    from osvdeploy.rollout.traces import Traces

LEDGER_ANSWERS = 20.0
"""Seconds that a ledger has to answer before it counts as out of reach: somebody waits for traffic to go back."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Which service, and where to look for it: all that somebody on call has to know.

    ``settings`` are those of its environment in a spec, where there is one. ``ledger`` is the address that was named,
    None for the one that the tags name. ``account`` is Google's project; ``region`` may be None on Google, where the
    machines are found.
    """

    app: str
    environment: str
    cloud: str
    region: str | None
    account: str = ""
    ledger: str | None = None
    endpoint: str | None = None
    listener: str | None = None
    version_header: str | None = None
    settings: Settings | None = None

    @property
    def name(self) -> str:
        return f"{self.app}/{self.environment}"


@dataclass(frozen=True, slots=True)
class WentBack:
    """How a rollback without the ledger ended. ``left`` is what traffic was taken from, ``ledger`` the address that the
    tags name; ``noted``: the note is in the cloud, from which the ledger learns it."""

    rollout: Rollout
    left: ReleaseId | None
    ledger: str
    noted: bool


def rollback_from_cloud(
    ctx: Context, where: Whereabouts, *, to: str | None = None, probe_from: ProbeFrom | None = None
) -> WentBack:
    """Bring the release that stands warm beside the present one back, or ``to``, knowing nothing but the cloud's tags.
    ``probe_from`` as for :func:`~osvdeploy.api.rollback`.

    The engine is that of every rollback, with a ledger in memory: all gates hold. What was left is noted on the route,
    and the service's own ledger learns it at its next command. Raises :class:`~osvdeploy.errors.UsageError` where that
    ledger answers, and where nothing, or more than one thing, could be meant.

    Promise: as that of :func:`~osvdeploy.api.rollback`, with one changing call more, for the note; and on AWS nobody
    else who is at work is stopped, which is said. Called again, it goes no further than the first call meant.
    """
    place = _ground(ctx, where)
    if where.ledger is not None:
        _refuse_reachable(ctx, where, where.ledger)
    return go_back(ctx, where, place, wiring.prober(), to=to, probe_from=probe_from)


def go_back(
    ctx: Context,
    where: Whereabouts,
    place: Ground,
    prober: Prober,
    *,
    to: str | None = None,
    limits: Limits | None = None,
    probe_from: ProbeFrom | None = None,
) -> WentBack:
    """The same, on a place that is connected."""
    from osvdeploy.cloud.memory.store import MemoryStore
    from osvdeploy.rollout import lease, traces
    from osvdeploy.rollout.consequences import begin
    from osvdeploy.rollout.ends import Rollout
    from osvdeploy.rollout.ledger import Ledger
    from osvdeploy.rollout.manager import RolloutManager
    from osvdeploy.rollout.model import Kind, Outcome, Stage
    from osvdeploy.rollout.releases import ProbePlace

    # Who cannot be reached is not asked for the name of its release either.
    found = _traced(ctx, where, place, prober if probe_from != "requests" else None)
    if where.ledger is None and found.settings.ledger:
        _refuse_reachable(ctx, where, found.settings.ledger)
    traces.warn_of_others(ctx, place, found.service)
    target, left = _aim(found, to)
    lone = found.serving is None and left is None
    if len(found.carrying) > 1:
        traces.warn_of_suspended(ctx, place, found)
    ledger = Ledger(MemoryStore(address="in memory"), where.app, where.environment, mark=ctx.nonce()[:6])
    manager = RolloutManager(
        ledger,
        place,
        prober,
        limits,
        take_over=True,
        metrics=wiring.metrics(place),
        noting=True,
        hooks=wiring.hooks(),
        notifier=wiring.notifier(place),
        probe_from=ProbePlace(probe_from) if probe_from is not None else None,
    )
    with lease.held(ctx, ledger, "found by its tags in the cloud") as held:
        traces.record(ctx, held, found, manager.executor.place(found.route, found.state))
        slot = next((slot for slot in found.carrying if found.standing(slot) == target.id), None)
        if left is not None and slot is not None:
            # It has traffic already, all of it or a share: what is left is ended as a rollout that is given up.
            going = found.releases[left]
            ended = begin(ctx, ledger, replace(held.head, serving=slot), going, Kind.DEPLOY, going.settings.capacity)
            group = found.groups[slot.other].name
            run = replace(ended, slot=slot.other, group=group, shifted=ctx.now(), abort="a rollback was asked for")
            run = run.enter(Stage.BOOT, ctx.now(), "it was under way").enter(Stage.BAKE, ctx.now(), "it has traffic")
            slots = {**held.head.slots, slot: replace(held.head.slots[slot], warm_until=None)}
            held.save(ctx, "a rollout was under way", serving=slot, slots=slots, run=run)
        elif slot is not None and lone:
            # The rest goes to a slot in which nothing stands: that is no rollout, but a slip of somebody's hand.
            slots = {**held.head.slots, slot: replace(held.head.slots[slot], warm_until=None)}
            held.save(ctx, "it is to have all the traffic", serving=slot, slots=slots)
    known = found.releases.get(target.id, target)
    if lone:
        rollout = Rollout(Outcome.SUCCEEDED, manager.realign(ctx), None, f"{target.id} has all the traffic")
    else:
        rollout = manager.rollback(ctx, known)
    over = rollout.run
    if over is not None and over.over and over.scaling is not None and not over.scaled:
        # Another run would bring it, of whoever knows that it is owed.
        ctx.report(
            Warned(
                f"{found.service}: what serves has not the scaling of before "
                f"({', '.join(over.scaling.parts)}), and the "
                "service's ledger will not know that",
                hint="attach it by hand to the group that serves now",
            )
        )
    noted = False
    try:
        noted = place.router.observe(ctx, found.route).left is not None
    except CloudError as error:
        ctx.report(Warned(f"{found.service}: its route cannot be looked at again: {error}", hint=error.hint))
    return WentBack(rollout, left, found.settings.ledger, noted)


def _aim(found: Traces, to: str | None) -> tuple[Release, ReleaseId | None]:
    """What to go back to, and what is left by it. Raises UsageError where that is not clear."""
    from osvdeploy.rollout import traces

    wanted = found.named(to) if to is not None else None
    carrying = {found.standing(slot): slot for slot in found.carrying}
    if not carrying:
        raise UsageError(f"{found.service}: nothing has traffic, so there is nothing to go back from")
    if found.serving is None:
        if wanted is None or wanted.id not in carrying:
            traces.refuse_shared(found)
        assert wanted is not None
        return wanted, next((each for each in carrying if each != wanted.id), None)
    serving, other = found.standing(found.serving), found.standing(found.serving.other)
    if serving is not None and found.state.left not in (None, serving) and (wanted is None or wanted.id == serving):
        # An earlier run of this very command came to the switch. A second one must not go forward again.
        return found.releases[serving], found.state.left if other == found.state.left else None
    if wanted is not None:
        return wanted, serving if wanted.id != serving else None
    if other is not None and other in found.releases:
        traces.refuse_newer(found)
        return found.releases[other], serving
    others = [release for release in found.newest if release != serving]
    raise UsageError(
        f"{found.service}: {serving or 'what has gone'} serves, and nothing stands warm beside it",
        hint="name a release with --to: its machines are started first. "
        + (f"There are images of: {', '.join(others[:5])}" if others else "There is no image of another one"),
    )


@dataclass(frozen=True, slots=True)
class WrittenAnew:
    """A ledger that was written from the tags, or that has learnt from them what serves (``learnt``)."""

    head: Head
    releases: tuple[ReleaseId, ...]
    learnt: bool


def adopt_from_cloud(ctx: Context, where: Whereabouts) -> WrittenAnew:
    """Write a service's ledger anew from the cloud's tags, where it is lost: place, slots, what serves, releases as far
    as tags tell. A ledger that is there learns what serves now.

    Raises :class:`~osvdeploy.errors.UsageError` while traffic is shared, :class:`~osvdeploy.errors.LedgerBehind` where
    what serves is another ledger's.

    Promise: traffic stays where it is. May be repeated, also after it was interrupted.
    """
    return write_anew(ctx, where, _ground(ctx, where), wiring.prober())


def write_anew(ctx: Context, where: Whereabouts, place: Ground, prober: Prober) -> WrittenAnew:
    """The same, on a place that is connected."""
    from osvdeploy.rollout import lease, traces
    from osvdeploy.rollout.learning import learn
    from osvdeploy.rollout.ledger import Ledger
    from osvdeploy.rollout.manager import RolloutManager

    found = _traced(ctx, where, place, prober)
    address = where.ledger or found.settings.ledger
    if not address:
        raise UsageError(f"{where.name}: no tag names its ledger", hint="name one with --ledger")
    traces.refuse_shared(
        found, f"`osvdeploy rollback {where.name} --from-cloud --to RELEASE` first gives all of it to one of them"
    )
    found = _into(found, where.app, address)
    ledger = Ledger(wiring.open_store(address), where.app, where.environment)
    ledger.store.refuse_unwritable(ctx, ledger.service)
    there = ledger.head(ctx)
    lost = there is None or there.place is None or there.destroyed
    manager = RolloutManager(ledger, place, prober, take_over=lost, metrics=wiring.metrics(place))
    with lease.held(ctx, ledger, "found by its tags in the cloud") as held:
        if lost:
            traces.record(ctx, held, found, manager.executor.place(found.route, found.state))
            # Marks of leases that the lost ledger gave out are outranked now, and not by the first deploy.
            held.taken_over = True
            manager.executor.fence(ctx, held, found.route)
            _go_on_after(ctx, manager, held, found.route)
            learnt = learn(ctx, manager.executor, held, found.route, found.state)
        else:
            assert held.head.place is not None
            route, run = held.head.place.route, held.head.unfinished
            state = place.router.observe(ctx, route)
            if run is not None and manager.end_overtaken(ctx, held, route, state, run, asked=True) is None:
                raise UsageError(
                    f"{where.name}: its ledger has a rollout under way, of {run.candidate}",
                    hint="`osvdeploy recover` or `osvdeploy abort` brings it to its end, whatever the weights are now",
                )
            learnt = learn(ctx, manager.executor, held, route, state, asked=True) or run is not None
    if lost:
        traces.warn_of_suspended(ctx, place, found)
    head = ledger.head(ctx)
    assert head is not None
    return WrittenAnew(head, tuple(found.newest), learnt and not lost)


def _go_on_after(ctx: Context, manager: RolloutManager, held: HeldLedger, route: Route) -> None:
    """Leases of a ledger that is written anew go on after the numbers in the names of all that is there, also of what
    is on its way out: no name is given twice."""
    from osvdeploy.cloud import tags
    from osvdeploy.rollout.releases import group_epoch

    owned, groups = {tags.SERVICE: held.head.service}, manager.cloud.groups
    names = [each.name for each in groups.owned(ctx, owned)] + [*groups.templates(ctx, owned)]
    last = max((group_epoch(name) for name in names), default=0)
    if last >= held.head.epoch:
        held.save(ctx, f"leases go on from {last + 1}", epoch=last + 1)
        held.taken_over = True
        manager.executor.fence(ctx, held, route)


def _into(found: Traces, app: str, address: str) -> Traces:
    """What was found, for a ledger at this address."""
    from osvdeploy.rollout.traces import route_of_settings

    settings = replace(found.settings, ledger=address)
    releases = {name: replace(release, settings=settings) for name, release in found.releases.items()}
    return replace(found, settings=settings, releases=releases, route=route_of_settings(app, found.route, settings))


def _traced(ctx: Context, where: Whereabouts, place: Ground, prober: Prober | None) -> Traces:
    from osvdeploy.rollout.traces import trace

    return trace(
        ctx,
        place,
        prober,
        where.app,
        where.environment,
        declared=where.settings,
        listener=where.listener,
        version_header=where.version_header,
    )


def _ground(ctx: Context, where: Whereabouts) -> Ground:
    region = where.region
    if where.cloud == "gcp":
        from osvdeploy.cloud import gcp

        if not where.account:
            raise UsageError(f"{where.name}: on Google a service is in a project", hint="name it with --project")
        if region is None:
            region = _place_on_google(
                ctx, where, gcp.places_of(ctx, gcp.Gcp(where.account, declared=where.endpoint), where.name)
            )
    elif region is None:
        region = wiring.usual_region()
    if region is None:
        raise UsageError(f"{where.name}: in which region is it?", hint="name it with --region")
    return wiring.ground(ctx, where.cloud, where.account, region, where.endpoint)


def _place_on_google(ctx: Context, where: Whereabouts, found: list[str]) -> str:
    if len(found) == 1:
        ctx.report(Note(f"{where.name}: its machines are in {found[0]}"))
        return found[0]
    told = f"are in {', '.join(found)}" if found else "are nowhere"
    raise UsageError(
        f"{where.name}: machines with its tags {told} in project {where.account}", hint="name one with --region"
    )


def _refuse_reachable(ctx: Context, where: Whereabouts, address: str) -> None:
    """Raise UsageError where the service's ledger answers and knows it: then all that it knows is to be used."""
    from osvdeploy.rollout.ledger import Ledger

    try:
        ledger = Ledger(wiring.open_store(address), where.app, where.environment)
        head = ledger.head(ctx.within(LEDGER_ANSWERS))
    except (Interrupted, DeadlineExceeded):
        ctx.check()
        ctx.report(Note(f"the ledger {address} does not answer within {LEDGER_ANSWERS:g} s"))
        return
    except UsageError:
        raise  # an address that is none says nothing of the ledger
    except OsvDeployError as error:
        ctx.report(Note(f"the ledger {address} cannot be read: {error}"))
        return
    if head is None or head.place is None:
        ctx.report(Note(f"the ledger {address} does not know {where.name}: it is lost, or lies elsewhere"))
        return
    try:
        ledger.store.refuse_unwritable(ctx.within(LEDGER_ANSWERS), ledger.service)
    except (Interrupted, DeadlineExceeded):
        ctx.check()
        ctx.report(Note(f"the ledger {address} can be read, but does not take a document within {LEDGER_ANSWERS:g} s"))
        return
    except OsvDeployError as error:
        ctx.report(Note(f"the ledger {address} can be read, but not written: {error}"))
        return
    raise UsageError(
        f"{where.name}: its ledger {address} can be read and written",
        hint=f"`osvdeploy rollback {where.name} --ledger {address}` knows more than tags tell",
    )
