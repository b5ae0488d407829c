"""Rolls a service out: observes, lets :func:`~osvdeploy.rollout.machine.advance` decide, saves, acts.

Every step is in the ledger before it is taken, and every action is repeated until the cloud shows its effect. So
whoever finds an unfinished run goes on with it, knowing nothing but the ledger and the cloud.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import Cloud, CloudImage, GroupRequest, Prober, ReleaseId, Route, RouteState, Slot
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, NotOurs, Refused, ReleaseHeld, Unavailable, UsageError
from osvdeploy.events import GateJudged, Note, StageEntered, Waiting
from osvdeploy.rollout import lease
from osvdeploy.rollout.ledger import Head, HeldLedger, Hold, Ledger, Place, Served, SlotRecord
from osvdeploy.rollout.machine import advance, fail
from osvdeploy.rollout.model import (
    Action,
    Kind,
    Limits,
    Outcome,
    RemoveGroup,
    Run,
    SetWeights,
    Stage,
    StartCandidate,
    Step,
    Tally,
    WireSlots,
)
from osvdeploy.rollout.observe import Observer
from osvdeploy.rollout.releases import Release, StrategyKind, TrafficStep, group_name, route_of

_SERVED_KEPT = 50


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a deploy or rollback ended. ``run`` is None when there was nothing to do; ``head`` is the ledger's last."""

    outcome: Outcome
    head: Head
    run: Run | None
    told: str

    @property
    def exit_code(self) -> int:
        return self.outcome.exit_code


class RolloutManager:
    """Deploys, rolls back and destroys one service. Not for use from two threads at once."""

    def __init__(self, ledger: Ledger, cloud: Cloud, prober: Prober, limits: Limits | None = None) -> None:
        self.ledger = ledger
        self.cloud = cloud
        self.prober = prober
        self.limits = limits or Limits()

    # ------------------------------------------------------------------------------------------------ use cases

    def preflight(self, ctx: Context, release: Release) -> None:
        """Look for what would refuse a deploy of this release, before anything is uploaded. Changes nothing.

        Raises as :meth:`deploy` does. A lease is only looked at: whoever holds it may be gone when the deploy begins.
        """
        head = self.ledger.head(ctx)
        route = route_of(release)
        state = self.cloud.router.observe(ctx, route)
        if head is None:
            return
        lease.refuse_if_alive(ctx, self.ledger, head)
        _refuse_held(head, release.id)
        self._refuse_moved_route(head, route)
        if head.unfinished is None:
            _refuse_drift(head, state)

    def deploy(self, ctx: Context, release: Release) -> Rollout:
        """Bring a release into service. Its image must be registered under the release's id.

        Goes on with an unfinished run of the same release; ends one of another release first, with traffic back on
        stable. Raises :class:`~osvdeploy.errors.LeaseHeld`, :class:`~osvdeploy.errors.ReleaseHeld`,
        :class:`~osvdeploy.errors.NotOurs` or :class:`~osvdeploy.errors.UsageError` before anything is changed.
        """
        route = route_of(release)
        self._image(ctx, release)
        self.ledger.put_release(ctx, release)
        with lease.held(ctx, self.ledger, f"deploy {release.id}") as held:
            ended = self._settle(ctx, held, release.id, f"superseded by {release.id}")
            if ended is not None and ended.candidate == release.id and ended.kind is Kind.DEPLOY:
                return _ended(held.head, ended)
            _refuse_held(held.head, release.id)
            self._refuse_moved_route(held.head, route)
            state = self.cloud.router.observe(ctx, route)
            _refuse_drift(held.head, state)
            stable = held.head.stable
            if stable is not None and stable.release == release.id:
                return self._same_release(ctx, held, release, route)
            held.save(
                ctx,
                f"deploy {release.id}",
                holds=tuple(hold for hold in held.head.holds if hold.release is None),
                place=self._place(route, state),
                destroyed=False,
                run=self._begin(ctx, held.head, release, Kind.DEPLOY, release.settings.capacity),
            )
            return _ended(held.head, self._drive(ctx, held, route))

    def rollback(self, ctx: Context, to: Release | None = None) -> Rollout:
        """Bring an earlier release back: ``to``, or the one that served before the present one.

        Goes on with an unfinished rollback. An unfinished deploy is aborted, and that is all unless ``to`` asks for
        another release than the stable one.
        """
        with lease.held(ctx, self.ledger, f"rollback to {to.id if to else 'the release before'}") as held:
            route = self._route(held.head)
            unfinished = held.head.unfinished
            goes_on = (
                unfinished is not None
                and unfinished.kind is Kind.ROLLBACK
                and (to is None or to.id == unfinished.candidate)
            )
            wanted = unfinished.candidate if goes_on and unfinished is not None else None
            ended = self._settle(ctx, held, wanted, "a rollback was asked for")
            if goes_on and ended is not None:
                return _ended(held.head, ended)
            if ended is not None and unfinished is not None and ended.verdict is Outcome.ABORTED:
                self._hold(ctx, held, ended.candidate, "a rollback left it")
                stable = held.head.stable
                if stable is not None and (to is None or to.id == stable.release):
                    return Rollout(
                        Outcome.SUCCEEDED, held.head, ended, f"{ended.candidate} was aborted; {stable.release} serves"
                    )
            stable = held.head.stable
            if stable is None:
                raise UsageError(f"{self.ledger.service}: nothing serves, so there is nothing to go back from")
            target = to if to is not None else self._release_before(ctx, held.head)
            if target.id == stable.release:
                return Rollout(Outcome.SUCCEEDED, held.head, None, f"{target.id} serves already")
            # Before anything moves: can it be gone back to at all?
            self._image(ctx, target)
            state = self.cloud.router.observe(ctx, route)
            _refuse_drift(held.head, state)
            observer = self._observer(route)
            groups = observer.groups(ctx)
            now_serving = groups.get(stable.group)
            capacity = max(now_serving.capacity if now_serving else 0, 1)
            run = self._begin(ctx, held.head, target, Kind.ROLLBACK, capacity)
            standing = groups.get(run.group)
            warm = (
                standing is not None
                and not standing.deleting
                and standing.capacity >= capacity
                and standing.tags.get(tags.SLOT) == run.slot
            )
            holds = (*held.head.holds, Hold(stable.release, "a rollback left it", ctx.process.user, ctx.now()))
            held.save(ctx, f"rollback to {target.id}", run=replace(run, warm=warm), holds=holds)
            return _ended(held.head, self._drive(ctx, held, route))

    def destroy(self, ctx: Context) -> Head:
        """Take everything of the service away: machines, templates, rules, backends. The ledger keeps its history."""
        with lease.held(ctx, self.ledger, "destroy") as held:
            route = self._route(held.head)
            observer = self._observer(route)
            if held.head.unfinished is not None:
                ended = replace(held.head.unfinished, abort="destroyed", verdict=Outcome.ABORTED, reason="destroyed")
                held.save(ctx, "abort: destroyed", run=ended.enter(Stage.DONE, ctx.now(), "destroyed"))
            while groups := observer.groups(ctx):
                for group in groups.values():
                    if not group.deleting:
                        ctx.report(Note(f"taking {group.name} away ({group.release}, {len(group.machines)} machines)"))
                        self.cloud.groups.delete(ctx, group.name)
                held.renew(ctx)
                ctx.report(Waiting("machines to be gone", f"{len(groups)} groups left"))
                ctx.sleep(self.limits.poll)
            self.cloud.router.remove(ctx, route)
            ctx.report(Note("rules and backends are gone"))
            for name in self.cloud.groups.templates(ctx, {tags.SERVICE: self.ledger.service}):
                self.cloud.groups.delete_template(ctx, name)
            return held.save(ctx, "destroyed", slots={}, serving=None, holds=(), destroyed=True)

    def hold(self, ctx: Context, release: ReleaseId | None, why: str) -> Head:
        """Refuse a release, or every one where None."""
        with lease.held(ctx, self.ledger, "hold") as held:
            return self._hold(ctx, held, release, why)

    def unhold(self, ctx: Context) -> Head:
        """Take every hold of the service away."""
        with lease.held(ctx, self.ledger, "unhold") as held:
            return held.save(ctx, "unhold", holds=())

    # --------------------------------------------------------------------------------------------------- the loop

    def _drive(self, ctx: Context, held: HeldLedger, route: Route) -> Run:
        """Step the head's run to its end."""
        observer = self._observer(route)
        assert held.head.run is not None
        run = replace(held.head.run, tally=Tally())
        ctx.report(StageEntered(run.id, run.stage, f"{run.kind} {run.candidate}"))
        silent_since: float | None = None
        while not run.over:
            ctx.check()
            held.renew(ctx)
            try:
                seen = observer.look(ctx, run)
                silent_since = None
            except (Unavailable, NotFound) as error:
                # Not seeing is no reason to go back, nor to go on.
                silent_since = silent_since if silent_since is not None else ctx.monotonic()
                if ctx.monotonic() - silent_since > self.limits.silence:
                    raise
                ctx.report(Waiting("the cloud to answer", str(error)))
                ctx.sleep(self.limits.poll)
                continue
            step = advance(run, seen, self.limits, ctx.now())
            run = self._taken(ctx, held, observer, run, step)
            if step.action is not None:
                run = self._act(ctx, held, route, run, step.action)
            if step.wait and not run.over:
                ctx.report(Waiting(step.waiting_for, run.tally.last))
                ctx.sleep(step.wait)
        return run

    def _taken(self, ctx: Context, held: HeldLedger, observer: Observer, before: Run, step: Step) -> Run:
        """Save a step if it changed the run, with what it means for slots and traffic, and tell of it."""
        run = step.run
        if run == before:
            return run
        if run.verdict not in (before.verdict, Outcome.SUCCEEDED) and not run.evidence:
            run = replace(run, evidence=observer.evidence(ctx, run))
        for gate in run.gates[len(before.gates) :]:
            ctx.report(GateJudged(gate.gate, gate.passed, gate.seen))
        for record, following in zip(
            run.stages[len(before.stages) :],
            [*(record.stage for record in run.stages[len(before.stages) + 1 :]), run.stage],
            strict=True,
        ):
            ctx.report(StageEntered(run.id, following, record.why))
        held.save(ctx, f"{run.kind} {run.candidate}: {run.stage}", run=run, **_consequences(ctx, held.head, run))
        return run

    def _act(self, ctx: Context, held: HeldLedger, route: Route, run: Run, action: Action) -> Run:
        """Carry an action out. A final no ends the run; a passing one is met again at the next look."""
        try:
            match action:
                case WireSlots():
                    self.cloud.router.ensure_slots(ctx, route)
                case StartCandidate():
                    self._start(ctx, held, route, run)
                case RemoveGroup(name):
                    self.cloud.groups.delete(ctx, name)
                case SetWeights(weights):
                    self.cloud.router.set_weights(ctx, route, weights)
                case _:
                    assert_never(action)
        except (Unavailable, NotFound) as error:
            ctx.report(Waiting("the cloud to accept a change", str(error)))
        except (Refused, NotOurs) as error:
            if run.verdict is not None:
                raise
            failed = fail(run, ctx.now(), f"refused: {error}")
            return self._taken(ctx, held, self._observer(route), run, Step(failed))
        return run

    def _start(self, ctx: Context, held: HeldLedger, route: Route, run: Run) -> None:
        release = self.ledger.release(ctx, run.candidate)
        assert release is not None
        image = self._image(ctx, release)
        state = self.cloud.router.observe(ctx, route)
        service = tags.service_tags(release.app, release.service, release.settings.ledger)
        labels = tags.release_tags(
            tags.slot_tags(service, run.slot),
            release=release.id,
            version=release.version,
            image=release.image,
            configuration=release.configuration,
            digest=release.digest,
        )
        self.cloud.groups.ensure(
            ctx,
            GroupRequest(
                name=run.group,
                release=release.id,
                image=image.id,
                capacity=run.capacity,
                machine_type=release.settings.machine_type,
                networks=release.settings.networks,
                firewalls=release.settings.firewalls,
                backend=state.backends[run.slot],
                tags=labels,
            ),
        )

    def _settle(self, ctx: Context, held: HeldLedger, wanted: ReleaseId | None, why: str) -> Run | None:
        """Bring an unfinished run to its end: a good one if it is what is wanted or is decided already, else abort."""
        run = held.head.unfinished
        if run is None:
            return None
        route = self._route(held.head)
        if run.verdict is None and run.candidate != wanted:
            ctx.report(Note(f"ending the unfinished {run.kind} of {run.candidate}: {why}"))
            held.save(ctx, f"abort {run.candidate}: {why}", run=replace(run, abort=why))
        else:
            ctx.report(Note(f"going on with the {run.kind} of {run.candidate}, which is in stage {run.stage}"))
        return self._drive(ctx, held, route)

    def _same_release(self, ctx: Context, held: HeldLedger, release: Release, route: Route) -> Rollout:
        """The release serves already; only its capacity may differ."""
        stable = held.head.stable
        assert stable is not None and held.head.serving is not None
        group = self.cloud.groups.observe(ctx, stable.group)
        if group is not None and group.capacity == release.settings.capacity:
            return Rollout(Outcome.SUCCEEDED, held.head, None, f"{release.id} serves already")
        run = self._begin(ctx, held.head, release, Kind.DEPLOY, release.settings.capacity)
        self._start(ctx, held, route, replace(run, slot=held.head.serving, group=stable.group))
        before = group.capacity if group else 0
        head = held.save(ctx, f"{release.id}: capacity {before} -> {release.settings.capacity}")
        told = f"{release.id} serves already; its capacity goes from {before} to {release.settings.capacity}"
        return Rollout(Outcome.SUCCEEDED, head, None, told)

    # ------------------------------------------------------------------------------------------------------ facts

    def _observer(self, route: Route) -> Observer:
        return Observer(self.cloud, self.prober, route, self.limits)

    def _begin(self, ctx: Context, head: Head, release: Release, kind: Kind, capacity: int) -> Run:
        now = ctx.now()
        stable = head.stable
        strategy = release.settings.strategy
        # A rollback goes by the same engine, but not by small steps: it is an answer to an emergency.
        steps = (
            (TrafficStep(100),)
            if kind is Kind.ROLLBACK or strategy.kind is StrategyKind.ALL_AT_ONCE
            else strategy.steps
        )
        settings = release.settings
        if kind is Kind.ROLLBACK:
            settings = replace(settings, strategy=replace(strategy, bake=0.0))
        return Run(
            id=f"{now:%Y%m%dT%H%M%S}-{ctx.nonce()[:6]}",
            kind=kind,
            candidate=release.id,
            slot=head.serving.other if head.serving is not None and stable is not None else Slot.BLUE,
            group=group_name(self.ledger.service, release),
            stable=stable.release if stable else None,
            stable_group=stable.group if stable else None,
            capacity=capacity,
            settings=settings,
            by=f"{ctx.process.user}@{ctx.process.host}",
            started=now,
            stage=Stage.PREPARE,
            entered=now,
            steps=steps,
        )

    def _image(self, ctx: Context, release: Release) -> CloudImage:
        image = self.cloud.images.find(ctx, release.id)
        if image is None:
            raise UsageError(
                f"{release.id}: its image is not in {self.cloud.kind} {self.cloud.region} (any more)",
                hint="`osvdeploy history` lists the releases; deploy this version again from its spec",
            )
        if image.digest != release.digest:
            raise UsageError(
                f"{release.id}: image {image.id} has digest {image.digest[:12]}, the release {release.digest[:12]}",
                hint="somebody registered other bytes under this name; remove that image",
            )
        return image

    def _route(self, head: Head) -> Route:
        if head.place is None or head.destroyed:
            raise UsageError(
                f"{self.ledger.service}: was never deployed"
                if head.place is None
                else f"{self.ledger.service}: was destroyed",
                hint="`osvdeploy deploy` brings it into service",
            )
        return head.place.route

    def _place(self, route: Route, state: RouteState) -> Place:
        return Place(
            cloud=self.cloud.kind,
            account=self.cloud.account,
            region=self.cloud.region,
            route=route,
            base_url=state.base_url,
            rules=state.rules,
            backends=state.backends,
        )

    def _refuse_moved_route(self, head: Head, route: Route) -> None:
        if head.place is None or head.destroyed or head.stable is None:
            return
        old = head.place.route
        moved = [
            f"{name} (was {getattr(old, name)}, is {getattr(route, name)})"
            for name in ("listener", "priority", "host", "path", "port", "preview_header", "health")
            if getattr(old, name) != getattr(route, name)
        ]
        if moved:
            raise UsageError(
                f"{self.ledger.service}: the route of a service in use cannot change: {'; '.join(moved)}",
                hint="put the old values back, or `osvdeploy destroy` the service and deploy it anew",
            )

    def _release_before(self, ctx: Context, head: Head) -> Release:
        """The newest release that served before the present one and that no hold refuses."""
        assert head.stable is not None
        held = {hold.release for hold in head.holds}
        for served in reversed(head.served):
            if served.release != head.stable.release and served.release not in held:
                release = self.ledger.release(ctx, served.release)
                if release is not None:
                    return release
        raise UsageError(
            f"{self.ledger.service}: no release served before {head.stable.release}",
            hint="name one with --to; `osvdeploy history` lists them",
        )

    def _hold(self, ctx: Context, held: HeldLedger, release: ReleaseId | None, why: str) -> Head:
        kept = tuple(hold for hold in held.head.holds if hold.release != release)
        told = release or "every release"
        return held.save(ctx, f"hold {told}", holds=(*kept, Hold(release, why, ctx.process.user, ctx.now())))


def _consequences(ctx: Context, head: Head, run: Run) -> Mapping[str, object]:
    """What a run's step means for the head's slots and traffic."""
    slots = dict(head.slots)
    if run.verdict is Outcome.SUCCEEDED:
        now = ctx.now()
        if head.serving == run.slot and not run.over:
            return {}
        changes: dict[str, object] = {}
        if head.serving != run.slot or slots.get(run.slot) is None or slots[run.slot].release != run.candidate:
            served = tuple(entry for entry in head.served if entry.release != run.candidate)
            changes["served"] = (*served, Served(run.candidate, now))[-_SERVED_KEPT:]
            slots[run.slot] = SlotRecord(run.candidate, run.group, now)
        old = slots.get(run.slot.other)
        if old is not None:
            if run.kind is Kind.DEPLOY and run.settings.strategy.keep_warm > 0:
                until = now.timestamp() + run.settings.strategy.keep_warm
                if old.warm_until is None:
                    slots[run.slot.other] = replace(old, warm_until=now.fromtimestamp(math.ceil(until), now.tzinfo))
            else:
                del slots[run.slot.other]
        return {**changes, "slots": slots, "serving": run.slot}
    if run.over and any(record.stage is Stage.BOOT for record in run.stages):
        # From boot on the slot was the candidate's, whose machines are gone now.
        slots.pop(run.slot, None)
        return {"slots": slots}
    return {}


def _ended(head: Head, run: Run) -> Rollout:
    assert run.verdict is not None
    if run.verdict is Outcome.SUCCEEDED:
        told = f"{run.candidate} serves"
    elif run.verdict is Outcome.ROLLBACK_FAILED and run.stage is Stage.DONE and run.kind is Kind.ROLLBACK:
        told = f"{run.candidate} could not be brought back: {run.reason}; {run.stable} still serves"
    elif run.verdict is Outcome.ROLLBACK_FAILED:
        told = f"traffic could not be brought back to {run.stable}: {run.reason}"
    elif run.stable is not None:
        told = f"{run.candidate} failed: {run.reason}; {run.stable} serves"
    else:
        told = f"{run.candidate} failed: {run.reason}"
    return Rollout(run.verdict, head, run, told)


def _refuse_held(head: Head, release: ReleaseId) -> None:
    for hold in head.holds:
        if hold.release is None or hold.release == release:
            what = "every release" if hold.release is None else hold.release
            raise ReleaseHeld(
                f"{head.service}: {what} is held since {hold.at:%Y-%m-%d %H:%M} by {hold.by}: {hold.why}",
                hint="deploy another release, or take the hold away with `osvdeploy unhold`",
            )


def _refuse_drift(head: Head, state: RouteState) -> None:
    """Traffic that goes elsewhere than the ledger says was moved by somebody: not ours to undo unasked."""
    if head.stable is None or head.serving is None or state.weights is None:
        return
    if state.weights.get(head.serving.other, 0) > 0:
        seen = ", ".join(f"{slot} {weight}" for slot, weight in sorted(state.weights.items()))
        raise UsageError(
            f"{head.service}: the ledger says {head.serving} serves, but the rule's weights are {seen}",
            hint=f"somebody changed the rule; give {head.serving} all the weight again, then run this again",
        )
