"""Rolls a service out: observes, lets :func:`~osvdeploy.rollout.machine.advance` decide, saves, acts.

Every step is in the ledger before it is taken, and every action is repeated until the cloud shows its effect. So
whoever finds an unfinished run goes on with it, knowing nothing but the ledger and the cloud.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import (
    CloudImage,
    Ground,
    GroupRequest,
    GroupState,
    Measured,
    Metrics,
    Prober,
    ReleaseId,
    Route,
    RouteState,
    Scaling,
    Slot,
)
from osvdeploy.context import Context
from osvdeploy.errors import (
    CloudError,
    LeaseHeld,
    LedgerBehind,
    LedgerError,
    NotFound,
    NotOurs,
    Outranked,
    PlanOutdated,
    Refused,
    ReleaseHeld,
    RolloutWaiting,
    Unavailable,
    UsageError,
)
from osvdeploy.events import GateJudged, Note, StageEntered, Waiting, Warned
from osvdeploy.rollout import families, lease, shown
from osvdeploy.rollout.gates import NoData
from osvdeploy.rollout.ledger import Head, HeldLedger, Hold, Ledger, Place, Served, SlotRecord
from osvdeploy.rollout.machine import advance, fail, gate_views
from osvdeploy.rollout.model import (
    Action,
    GateRecord,
    HandScalingOver,
    Kind,
    Limits,
    Observation,
    Outcome,
    PauseScaling,
    RemoveGroup,
    Request,
    RequestKind,
    ResumeScaling,
    Run,
    SetWeights,
    Stage,
    StageRecord,
    StartCandidate,
    Step,
    Tally,
    Until,
    WireSlots,
)
from osvdeploy.rollout.observe import Observer
from osvdeploy.rollout.releases import (
    Concurrent,
    OnFailure,
    Release,
    StrategyKind,
    TrafficStep,
    about_pointer,
    group_name,
    route_of,
)
from osvdeploy.rollout.requests import heed, refuse_senseless

_SERVED_KEPT = 50
_BEHIND = "name the service's own ledger; or, where no other is in use, run the same command with --take-over"


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a deploy or rollback ended, or that its run waits for a person. ``run`` is None when there was nothing to do;
    ``head`` is the ledger's last."""

    outcome: Outcome
    head: Head
    run: Run | None
    told: str

    @property
    def exit_code(self) -> int:
        return self.outcome.exit_code


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a request. ``done``: what was asked for. ``rollout`` is how the run ended, or what it waits for now,
    where this process went on with it; None where another one did, or is to."""

    head: Head
    run: Run
    done: bool
    told: str
    rollout: Rollout | None = None


class RolloutManager:
    """Deploys, rolls back and destroys one service. Not for use from two threads at once."""

    def __init__(
        self,
        ledger: Ledger,
        cloud: Ground,
        prober: Prober,
        limits: Limits | None = None,
        *,
        take_over: bool = False,
        until: Until = Until.ASKED,
        metrics: Metrics | None = None,
    ) -> None:
        """``take_over``: outrank what a later lease than the ledger knows of has left in the cloud. ``until``: how far
        this process goes with a run that is on its way up; the way back is always gone to its end. ``metrics`` are what
        gates are read from, where that is more than the place's own."""
        self.take_over = take_over
        self.until = until
        self.ledger = ledger
        self.cloud = cloud
        self.prober = prober
        self.metrics = metrics if metrics is not None else cloud.metrics
        limits = limits or Limits()
        # Time alone proves nothing before a change can be in force everywhere.
        self.limits = replace(limits, spread=cloud.spread, settle=max(limits.settle, cloud.spread))
        self._listened: float | None = None
        """When it was last looked for requests; None for not at all."""
        self._deaf = False
        """A request cannot be read; that was told."""

    # ------------------------------------------------------------------------------------------------ use cases

    def preflight(self, ctx: Context, release: Release, *, forced: bool = False) -> None:
        """Look for what would refuse a deploy of this release, before anything is uploaded. Changes nothing.

        Raises as :meth:`deploy` does. A lease is only looked at: whoever holds it may be gone when the deploy begins.
        """
        head = self.ledger.head(ctx)
        route = route_of(release)
        state = self.cloud.router.observe(ctx, route)
        _refuse_shares(release, state)
        self._refuse_unknown_service(ctx, head, route, state)
        if not state.weighted:
            ctx.report(Note(about_pointer(route.listener, named=release.settings.health.version_header is not None)))
        self._refuse_closed_sources(ctx, release, route, head)
        if head is None:
            return
        if release.settings.strategy.concurrent is Concurrent.REFUSE:
            lease.refuse_if_alive(ctx, self.ledger, head)
            refuse_waiting(head, release, ctx.now())
        refuse_held(head, release.id, forced=forced)
        self._refuse_moved_route(head, route)
        if head.unfinished is None:
            _refuse_drift(head, state)

    def deploy(self, ctx: Context, release: Release, *, forced: bool = False, since: int | None = None) -> Rollout:
        """Bring a release into service. Its image must be registered under the release's id. ``forced``: also where a
        hold names that very release; one of every release still refuses. ``since``: only where the ledger's newest
        document still has that number, 0 for none.

        Goes on with an unfinished run of the same release. One of another release that a living process works on, or
        that waits for a person, is met as the release's strategy says (``concurrent``); one that nobody works on is
        ended first, with traffic back on stable, and with ``queue`` gone on with. Raises
        :class:`~osvdeploy.errors.LeaseHeld`, :class:`~osvdeploy.errors.ReleaseHeld`,
        :class:`~osvdeploy.errors.NotOurs` or :class:`~osvdeploy.errors.UsageError` before anything is changed.
        """
        route = route_of(release)
        self._image(ctx, release)
        concurrent, asked = release.settings.strategy.concurrent, set[str]()
        while True:
            try:
                with lease.held(ctx, self.ledger, f"deploy {release.id}") as held:
                    refuse_later(held.head, since)
                    refuse_waiting(held.head, release, ctx.now())
                    return self._followed(ctx, held, self._deploy(ctx, held, release, route, forced))
            except LeaseHeld as busy:
                if concurrent is Concurrent.REFUSE:
                    raise
                ends = f"superseded by {release.id}" if concurrent is Concurrent.SUPERSEDE else None
                self._wait_for_turn(ctx, busy, asked, release.id, ends)

    def _wait_for_turn(
        self, ctx: Context, busy: LeaseHeld, asked: set[str], wanted: ReleaseId | None, ends: str | None
    ) -> None:
        """Wait a moment for whoever is at work. ``ends``: ask for the end of a run of another release than ``wanted``,
        for that reason, once for each run (``asked``)."""
        head = self.ledger.head(ctx)
        run = head.unfinished if head is not None else None
        undecided = run is not None and run.verdict is None and run.abort is None and run.candidate != wanted
        if ends is not None and run is not None and undecided and run.id not in asked:
            ctx.report(Note(f"asking for the end of the {run.kind} of {run.candidate}: {ends}"))
            self.ledger.ask(ctx, run.id, self._request(ctx, RequestKind.ABORT, run, ends))
            asked.add(run.id)
        ctx.report(Waiting(f"{self.ledger.service} to be free", str(busy)))
        ctx.sleep(self.limits.listen)

    def _deploy(self, ctx: Context, held: HeldLedger, release: Release, route: Route, forced: bool) -> Rollout:
        unfinished = held.head.unfinished
        queued = unfinished is not None and release.settings.strategy.concurrent is Concurrent.QUEUE
        wanted = unfinished.candidate if queued and unfinished is not None else release.id
        # However far this process is to go with its own release, another one's rollout has to be over before it.
        until = self.until if wanted == release.id else Until.ASKED
        ended = self._settle(ctx, held, wanted, f"superseded by {release.id}", until)
        if ended is not None and ended.candidate == release.id and ended.kind is Kind.DEPLOY:
            return self._ended(ctx, held, ended)
        # One that was gone on with may have come to where a person is asked.
        refuse_waiting(held.head, release, ctx.now())
        refuse_held(held.head, release.id, forced=forced)
        self._refuse_moved_route(held.head, route)
        state = self.cloud.router.observe(ctx, route)
        _refuse_shares(release, state)
        self._refuse_unknown_service(ctx, held.head, route, state)
        _refuse_drift(held.head, state)
        self._pay(ctx, held)
        scaling = self._scaling(ctx, held.head)
        if scaling is None and held.head.stable is not None:
            self._recognize(ctx, held, route, state, self._observer(route).groups(ctx))
            scaling = self._scaling(ctx, held.head)
        stable = held.head.stable
        if stable is not None and stable.release == release.id:
            return self._same_release(ctx, held, release, route, scaling)
        self.ledger.put_release(ctx, release)
        self._leave_old_route(ctx, held, route)
        capacity = self._capacity(ctx, held.head, release, scaling)
        if capacity != release.settings.capacity:
            ctx.report(Note(f"{capacity} machines, as many as {release.service} has now"))
        held.save(
            ctx,
            f"deploy {release.id}",
            holds=tuple(hold for hold in held.head.holds if hold.release is None),
            place=self._place(route, state),
            destroyed=False,
            run=self._begin(ctx, held.head, release, Kind.DEPLOY, capacity, scaling),
        )
        self._listened = ctx.monotonic()
        return self._ended(ctx, held, self._drive(ctx, held, route))

    def rollback(self, ctx: Context, to: Release | None = None, *, force: bool = False) -> Rollout:
        """Bring an earlier release back: ``to``, or the one that served before the present one.

        Goes on with an unfinished rollback. An unfinished deploy is aborted, and that is all unless ``to`` asks for
        another release than the stable one. Whoever works on one is asked to end it, and waited for; with ``force`` the
        lease is taken at once from a process on another machine, which somebody says is dead. Raises
        :class:`~osvdeploy.errors.LeaseHeld` where a living process does anything else.
        """
        asked = set[str]()
        while True:
            try:
                why = f"rollback to {to.id if to else 'the release before'}"
                with lease.held(ctx, self.ledger, why, force=force) as held:
                    return self._followed(ctx, held, self._rollback(ctx, held, to, asked))
            except LeaseHeld as busy:
                head = self.ledger.head(ctx)
                run = head.unfinished if head is not None else None
                # Another rollback that is under way is what was asked for: a second one would go back once more. And a
                # first deploy has nothing to go back to.
                deploying = run is not None and run.kind is Kind.DEPLOY and run.stable is not None
                if not deploying and (run is not None or not asked):
                    raise
                self._wait_for_turn(ctx, busy, asked, None, "a rollback was asked for")

    def _rollback(
        self, ctx: Context, held: HeldLedger, to: Release | None, asked: Collection[str] = frozenset()
    ) -> Rollout:
        """``asked``: the runs that another process was asked to end."""
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
            return self._ended(ctx, held, ended)
        last = held.head.run
        if ended is None and last is not None and last.id in asked and last.kind is Kind.DEPLOY:
            # Its process ended it for us.
            ended = last
        if (again := self._revert_again(ctx, held, route)) is not None:
            return again
        if ended is not None and ended.verdict in (Outcome.ABORTED, Outcome.ROLLED_BACK):
            self._hold(ctx, held, ended.candidate, "a rollback left it", given_up=True)
            stable = held.head.stable
            if stable is not None and (to is None or to.id == stable.release):
                return Rollout(
                    Outcome.SUCCEEDED, held.head, ended, f"{ended.candidate} was given up; {stable.release} serves"
                )
        if held.head.stable is None:
            raise UsageError(f"{self.ledger.service}: nothing serves, so there is nothing to go back from")
        state = self.cloud.router.observe(ctx, route)
        _refuse_drift(held.head, state)
        groups = self._observer(route).groups(ctx)
        stable = self._recognize(ctx, held, route, state, groups)
        target = to if to is not None else self._release_before(ctx, held.head)
        if target.id == stable.release:
            return Rollout(Outcome.SUCCEEDED, held.head, None, f"{target.id} serves already")
        # Before anything moves: can it be gone back to at all?
        self._image(ctx, target)
        now_serving = groups.get(stable.group)
        # As many as serve now; where nobody knows, one machine is not to take all of the traffic.
        capacity = max(now_serving.capacity if now_serving else target.settings.capacity, 1)
        run = self._begin(ctx, held.head, target, Kind.ROLLBACK, capacity, self._scaling_if_told(ctx, held.head))
        standing = groups.get(run.group)
        warm = (
            standing is not None
            and not standing.deleting
            and standing.capacity >= capacity
            and standing.tags.get(tags.SLOT) == run.slot
        )
        held.save(ctx, f"rollback to {target.id}", run=replace(run, warm=warm))
        self._listened = ctx.monotonic()
        return self._ended(ctx, held, self._drive(ctx, held, route))

    def request(self, ctx: Context, kind: RequestKind, why: str = "") -> Asked:
        """Ask something of the rollout under way. Where a living process works on it, that one is told and waited for
        until it has heard; else this one goes on with the run, as far as ``until`` says; paused, it stays where it is.

        Raises :class:`~osvdeploy.errors.UsageError` where there is none, or for what makes no sense as it stands.
        """
        head = self.ledger.head(ctx)
        run = head.unfinished if head is not None else None
        if run is None:
            raise UsageError(
                f"{self.ledger.service}: no rollout is under way", hint="`osvdeploy status` tells what serves"
            )
        refuse_senseless(run, kind, self.ledger.service, ctx.now())
        number = self.ledger.ask(ctx, run.id, self._request(ctx, kind, run, why))
        while True:
            try:
                with lease.held(ctx, self.ledger, f"{kind} {run.candidate}") as held:
                    return self._carry_on(ctx, held, kind, run, number)
            except LeaseHeld as busy:
                if (asked := self._came_of(self.ledger.head(ctx), run, number)) is not None:
                    return asked
                ctx.report(Waiting("whoever is at work to hear of it", str(busy)))
                ctx.sleep(min(1.0, self.limits.listen))

    def recover(self, ctx: Context, *, force: bool = False) -> Rollout:
        """Go on with a rollout that nobody works on, from wherever this is. Does nothing where all is done. ``force``
        as for :meth:`rollback`."""
        with lease.held(ctx, self.ledger, "recover", force=force) as held:
            run = held.head.unfinished
            if run is None:
                stable = held.head.stable
                told = f"no rollout is under way; {stable.release if stable else 'nothing'} serves"
                return self._followed(ctx, held, Rollout(Outcome.SUCCEEDED, held.head, None, told))
            ended = self._settle(ctx, held, run.candidate, "")
            assert ended is not None
            return self._followed(ctx, held, self._ended(ctx, held, ended))

    def retry(self, ctx: Context, *, forced: bool = False) -> Rollout:
        """Try the last rollout again, where it did not succeed: with the same release, and the settings that the ledger
        has of it. One that is under way is gone on with. Raises as :meth:`deploy` and :meth:`rollback` do.
        """
        head = self.ledger.head(ctx)
        run = head.run if head is not None else None
        if run is None or (run.over and run.verdict is Outcome.SUCCEEDED):
            last = "was never deployed" if run is None else f"the last {run.kind}, of {run.candidate}, succeeded"
            raise UsageError(f"{self.ledger.service}: {last}", hint="`osvdeploy deploy` rolls a spec's release out")
        if not run.over:
            return self.recover(ctx)
        release = self.ledger.release(ctx, run.candidate)
        if release is None:
            raise UsageError(
                f"{run.candidate}: its document is not in the ledger (any more)", hint="deploy it again from its spec"
            )
        return self.rollback(ctx, release) if run.kind is Kind.ROLLBACK else self.deploy(ctx, release, forced=forced)

    def pin(self, ctx: Context, release: ReleaseId, *, pinned: bool = True) -> Head:
        """Keep a release's image whatever retention says, or no more."""
        with lease.held(ctx, self.ledger, "pin" if pinned else "unpin") as held:
            others = tuple(each for each in held.head.pins if each != release)
            if (release in held.head.pins) is pinned:
                return held.head
            why = f"{release} is pinned" if pinned else f"{release} is pinned no more"
            return held.save(ctx, why, pins=(*others, release) if pinned else others)

    def _request(self, ctx: Context, kind: RequestKind, run: Run, why: str) -> Request:
        return Request(kind, f"{ctx.process.user}@{ctx.process.host}", ctx.now(), run.step, why)

    def _carry_on(self, ctx: Context, held: HeldLedger, kind: RequestKind, asked: Run, number: int) -> Asked:
        """With the lease: hear what was asked, and go on."""
        run = held.head.unfinished
        if run is not None and run.id == asked.id:
            self._listened = None
            self._listen(ctx, held, run)
        came = self._came_of(held.head, asked, number)
        if came is None:
            raise LedgerError(f"{self.ledger.service}: request {number} to {asked.id} cannot be read")
        if kind is RequestKind.PAUSE or not came.done or held.head.unfinished is None or self.until is Until.BEGUN:
            return came
        ended = self._drive(ctx, held, self._route(held.head))
        return replace(came, rollout=self._followed(ctx, held, self._ended(ctx, held, ended)))

    def _came_of(self, head: Head | None, asked: Run, number: int) -> Asked | None:
        """What came of a request to a run; None while nobody has heard it."""
        run = head.run if head is not None else None
        assert head is not None and run is not None
        if run.id == asked.id and len(run.heard) >= number:
            heard = run.heard[number - 1]
            return Asked(head, run, heard.done, heard.told)
        if run.id != asked.id or run.over:
            return Asked(head, run, False, f"the {asked.kind} of {asked.candidate} was over before it was heard")
        return None

    def _listen(self, ctx: Context, held: HeldLedger, run: Run) -> Run:
        """The run, once what people have asked of it since the last look was heard."""
        now = ctx.monotonic()
        if self._deaf or (self._listened is not None and now - self._listened < self.limits.listen):
            return run
        self._listened = now
        try:
            requests = self.ledger.requests(ctx, run.id, len(run.heard))
        except CloudError as error:
            ctx.report(Waiting("the ledger's store to answer", str(error)))
            return run
        except LedgerError as error:
            # Whoever put it is told nothing; but a rollout does not end for it.
            self._deaf = True
            ctx.report(Warned(f"what is asked of {run.id} cannot be read: {error}", hint=error.hint))
            return run
        for request in requests:
            run = heed(run, request, ctx.now())
            told = run.heard[-1].told
            why = f" ({request.why})" if request.why else ""
            ctx.report(Note(f"{request.by} asked: {request.kind}{why}: {told}"))
            held.save(ctx, f"{request.kind} of {run.candidate}, asked by {request.by}", run=run)
        return run

    def realign(self, ctx: Context) -> Head:
        """Send traffic where the ledger says that it goes, and make what of the route is missing, when somebody has
        changed it. Does nothing during a rollout, which watches by itself. Raises
        :class:`~osvdeploy.errors.Refused` where no machine there is healthy: whoever sent traffic elsewhere knew why.
        """
        with lease.held(ctx, self.ledger, "realign") as held:
            route, began = self._route(held.head), ctx.monotonic()
            stable, serving = held.head.stable, held.head.serving
            if held.head.unfinished is not None or stable is None or serving is None:
                return held.head
            state = self.cloud.router.observe(ctx, route)
            wrong, elsewhere = astray(held.head, state), (state.weights or {}).get(serving.other, 0) > 0
            if elsewhere and all(each.state != "healthy" for each in self.cloud.router.health(ctx, route, serving)):
                raise Refused(
                    f"{self.ledger.service}: {wrong}; no machine in {serving} is healthy, so traffic stays where it is",
                    hint=f"bring {stable.release} back to health first, or send {serving} all the weight by hand",
                )
            self._fence(ctx, held, route)
            changed = False
            while wrong := astray(held.head, self.cloud.router.observe(ctx, route)):
                changed = True
                if ctx.monotonic() - began > self.limits.revert:
                    raise Unavailable(f"{self.ledger.service}: {wrong}, and that does not change", hint="try again")
                ctx.report(Waiting(f"all traffic on {serving}", wrong))
                held.confirm(ctx)
                weights = {serving: 100, serving.other: 0}
                try:
                    self._outranking(ctx, held, route, lambda acting: self.cloud.router.ensure_slots(acting, route))
                    self._set_weights(ctx, held, route, weights)
                except (Unavailable, NotFound) as error:
                    ctx.report(Waiting("the cloud to accept a change", str(error)))
                held.renew(ctx)
                ctx.sleep(self.limits.quick_poll)
            return held.save(ctx, f"traffic is on {stable.release} again") if changed else held.head

    def destroy(self, ctx: Context) -> Head:
        """Take everything of the service away: machines, templates, rules, backends. The ledger keeps its history."""
        with lease.held(ctx, self.ledger, "destroy") as held:
            route = self._route(held.head)
            observer = self._observer(route)
            self._fence(ctx, held, route)
            if held.head.unfinished is not None:
                ended = replace(held.head.unfinished, abort="destroyed", verdict=Outcome.ABORTED, reason="destroyed")
                held.save(ctx, "abort: destroyed", run=ended.enter(Stage.DONE, ctx.now(), "destroyed"))
            began = ctx.monotonic()
            while groups := observer.groups(ctx):
                if ctx.monotonic() - began > self.limits.clean_up:
                    troubles = "; ".join(f"{group.name}: {', '.join(group.troubles)}" for group in groups.values())
                    raise Unavailable(
                        f"{self.ledger.service}: these groups do not go: {troubles}",
                        hint="run it again: it goes on from here",
                    )
                for group in groups.values():
                    if not group.deleting:
                        ctx.report(Note(f"taking {group.name} away ({group.release}, {len(group.machines)} machines)"))
                        with held.acting(ctx) as acting:
                            self.cloud.groups.delete(acting, group.name)
                held.renew(ctx)
                ctx.report(Waiting("machines to be gone", f"{len(groups)} groups left"))
                ctx.sleep(self.limits.poll)
            self._outranking(ctx, held, route, lambda acting: self.cloud.router.remove(acting, route))
            ctx.report(Note("rules and backends are gone"))
            for name in self.cloud.groups.templates(ctx, {tags.SERVICE: self.ledger.service}):
                with held.acting(ctx) as acting:
                    self.cloud.groups.delete_template(acting, name)
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

    def _drive(self, ctx: Context, held: HeldLedger, route: Route, until: Until | None = None) -> Run:
        """Step the head's run to its end, or as far as this process goes."""
        observer = self._observer(route)
        self._fence(ctx, held, route)
        assert held.head.run is not None
        run = replace(held.head.run, tally=Tally())
        until = until or self.until
        if until is Until.BEGUN and run.verdict is None and run.abort is None:
            return run
        ctx.report(StageEntered(run.id, run.stage, f"{run.kind} {run.candidate}"))
        silent_since: float | None = None
        while not run.over:
            ctx.check()
            held.renew(ctx)
            run = self._listen(ctx, held, run)
            try:
                seen = observer.look(ctx, run)
                silent_since = None
            except (Unavailable, NotFound) as error:
                # Not seeing is no reason to go back, nor to go on.
                silent_since = silent_since if silent_since is not None else ctx.monotonic()
                if ctx.monotonic() - silent_since > self.limits.silence:
                    if run.stage is not Stage.REVERT:
                        raise
                    reason = f"{run.reason}; then the cloud did not answer: {error}"
                    lost = replace(run, verdict=Outcome.ROLLBACK_FAILED, reason=reason)
                    return self._taken(
                        ctx, held, observer, run, Step(lost.enter(Stage.DONE, ctx.now(), "the cloud did not answer"))
                    )
                ctx.report(Waiting("the cloud to answer", str(error)))
                ctx.sleep(self.limits.poll)
                continue
            if run.stage is Stage.CLEAN_UP and seen.occupant is not None:
                # What a slot has is warm, and stays.
                known = {record.group for record in held.head.slots.values()}
                seen = replace(seen, occupant=None if seen.occupant.name in known else seen.occupant)
            step = advance(run, seen, self.limits, ctx.now())
            _tell_measured(ctx, step.run, seen)
            number = held.head.n
            run = self._taken(ctx, held, observer, run, step)
            if step.action is not None:
                if held.head.n == number:
                    # A write would have told that another process is at work now; without one, ask.
                    held.confirm(ctx)
                run = self._act(ctx, held, route, run, step.action)
            if step.for_person and until is not Until.OVER:
                return run
            if step.wait and not run.over:
                view = shown.rollout_seen(run, shown.slots_seen(run, seen), self.limits, ctx.now())
                ctx.report(view)
                ctx.report(Waiting(step.waiting_for, run.tally.last, view.until))
                run = self._rest(ctx, held, run, step.wait)
        return run

    def _rest(self, ctx: Context, held: HeldLedger, run: Run, seconds: float) -> Run:
        """Wait, but not while somebody asks for something."""
        ends = ctx.monotonic() + seconds
        while (left := ends - ctx.monotonic()) > 0:
            ctx.sleep(min(left, self.limits.listen))
            heard = self._listen(ctx, held, run)
            if heard is not run:
                return heard
        return run

    def _taken(self, ctx: Context, held: HeldLedger, observer: Observer, before: Run, step: Step) -> Run:
        """Save a step if it changed the run, with what it means for slots and traffic, and tell of it."""
        run = step.run
        if run == before:
            return run
        if run.stage is Stage.CLEAN_UP and run.verdict is not Outcome.SUCCEEDED and not run.evidence:
            # Traffic is where it should be; now there is time to keep what tells why.
            run = replace(run, evidence=observer.evidence(ctx, run))
        passed = run.stages[len(before.stages) :]
        _tell(ctx, run, passed, run.gates[len(before.gates) :])
        changes = dict(_consequences(ctx, held.head, run))
        place = held.head.place
        if place is not None and passed and run.stage in (Stage.BOOT, Stage.BAKE):
            # Backends are made before boot, the route's rule by the first shift.
            changes["place"] = self._place(place.route, self.cloud.router.observe(ctx, place.route))
        held.save(ctx, f"{run.kind} {run.candidate}: {run.stage}", run=run, **changes)
        return run

    def _act(self, ctx: Context, held: HeldLedger, route: Route, run: Run, action: Action) -> Run:
        """Carry an action out. A final no ends the run; a passing one is met again at the next look."""
        slots = held.head.slots
        if isinstance(action, RemoveGroup):
            self._forget(ctx, held, action.name)
        try:
            match action:
                case WireSlots():
                    self._outranking(ctx, held, route, lambda acting: self.cloud.router.ensure_slots(acting, route))
                case StartCandidate():
                    self._start(ctx, held, route, run)
                case RemoveGroup(name):
                    with held.acting(ctx) as acting:
                        self.cloud.groups.delete(acting, name)
                case SetWeights(weights):
                    self._set_weights(ctx, held, route, weights)
                case PauseScaling():
                    assert run.stable_group is not None
                    with held.acting(ctx) as acting:
                        self.cloud.groups.pause(acting, run.stable_group)
                case ResumeScaling():
                    assert run.stable_group is not None and run.scaling is not None
                    with held.acting(ctx) as acting:
                        self.cloud.groups.resume(acting, run.stable_group, run.scaling)
                case HandScalingOver():
                    assert run.scaling is not None
                    with held.acting(ctx) as acting:
                        self.cloud.groups.apply(acting, run.group, run.scaling)
                case _:
                    assert_never(action)
        except (Unavailable, NotFound) as error:
            ctx.report(Waiting("the cloud to accept a change", str(error)))
        except (Refused, NotOurs) as error:
            if isinstance(action, RemoveGroup) and held.head.slots != slots:
                held.save(ctx, f"{action.name} may not be taken away", slots=slots)
            if run.verdict is not None:
                # On the way back there is nothing better than to try again until the stage's limit decides.
                ctx.report(Waiting("a refused change to be accepted", str(error)))
                if isinstance(action, ResumeScaling | HandScalingOver):
                    return replace(run, tally=replace(run.tally, bad=run.tally.bad + 1, last=str(error)))
                return run
            failed = fail(run, ctx.now(), f"refused: {error}")
            return self._taken(ctx, held, self._observer(route), run, Step(failed))
        return run

    def _set_weights(self, ctx: Context, held: HeldLedger, route: Route, weights: Mapping[Slot, int]) -> None:
        self._outranking(ctx, held, route, lambda acting: self.cloud.router.set_weights(acting, route, weights))

    def _forget(self, ctx: Context, held: HeldLedger, group: str) -> None:
        """A slot whose group is about to go has nothing to be gone back to."""
        slots = {slot: record for slot, record in held.head.slots.items() if record.group != group}
        if len(slots) < len(held.head.slots):
            held.save(ctx, f"{group} is taken away", slots=slots)

    def _revert_again(self, ctx: Context, held: HeldLedger, route: Route) -> Rollout | None:
        """After a rollback that failed: bring traffic back to stable, as that run could not."""
        run = held.head.run
        if run is None or not run.over or run.verdict is not Outcome.ROLLBACK_FAILED or run.shifted is None:
            return None
        if run.stable is None or held.head.stable is None or held.head.stable.release != run.stable:
            return None
        state = self.cloud.router.observe(ctx, route)
        if state.weights is None or state.weights.get(run.slot, 0) == 0:
            return None
        verdict = Outcome.ROLLED_BACK if run.kind is Kind.DEPLOY else Outcome.ABORTED
        again = replace(run, verdict=verdict, evidence=()).enter(Stage.REVERT, ctx.now(), "a rollback was asked for")
        held.save(ctx, f"revert {run.candidate} again", run=again)
        ended = self._drive(ctx, held, route)
        if ended.verdict is Outcome.ROLLBACK_FAILED:
            return self._ended(ctx, held, ended)
        self._hold(ctx, held, ended.candidate, "a rollback left it", given_up=True)
        return Rollout(Outcome.SUCCEEDED, held.head, ended, f"traffic is back; {ended.stable} serves")

    def _refuse_closed_sources(self, ctx: Context, release: Release, route: Route, head: Head | None) -> None:
        """Raise what a gate's source refuses already, where that would fail the deploy after its bake: for want of a
        permission, above all. A document or a program may well know of the release only when it is there."""
        serving = head.serving if head is not None and head.stable is not None else None
        slot = serving.other if serving is not None else Slot.BLUE
        measured = Measured(route, slot, release.id, group_name(self.ledger.service, release))
        for gate in release.settings.gates:
            if self.metrics is None or not gate.remembered or gate.dry_run or gate.no_data is not NoData.FAIL:
                continue
            now = ctx.now()
            before = gate.grid(now - timedelta(seconds=gate.delay + 2 * gate.interval), 0.0)
            try:
                self.metrics.read(ctx, gate.metric, measured, gate.readable(before, now))
            except (Unavailable, NotFound) as error:
                ctx.report(Warned(f"gate {gate.name}: cannot be read now: {error}", hint=error.hint))
            except Refused as error:
                error.hint = error.hint or "else the release would fail when it has baked; `no-data` says otherwise"
                raise

    def _leave_old_route(self, ctx: Context, held: HeldLedger, route: Route) -> None:
        """A service that never came to serve may be declared elsewhere now: what was made there goes."""
        head = held.head
        if head.place is not None and not head.destroyed and head.stable is None and head.place.route != route:
            ctx.report(Note("the route is another one now; taking the rules and backends of the old one away"))
            with held.acting(ctx) as acting:
                self.cloud.router.remove(acting, head.place.route)

    def _refuse_unknown_service(self, ctx: Context, head: Head | None, route: Route, state: RouteState) -> None:
        """What serves without this ledger knowing of it must not be taken for an empty place."""
        if head is not None and head.place is not None and not head.destroyed:
            return
        standing = [group for group in self._observer(route).groups(ctx).values() if not group.deleting]
        if not standing and not any((state.weights or {}).values()):
            return
        known = ", ".join(str(group.release) for group in standing) or "a rule with weights"
        ledgers = {group.tags[tags.LEDGER] for group in standing if tags.LEDGER in group.tags}
        address = self.ledger.store.address
        if ledgers == {route.tags.get(tags.LEDGER)}:
            raise UsageError(
                f"{self.ledger.service}: is in service already ({known}), and its ledger {address} has lost it",
                hint="put the ledger back from a copy. Without one, deploy as another environment, and take the old "
                'one away by hand: docs/spec.md, "A ledger that is lost"',
            )
        raise UsageError(
            f"{self.ledger.service}: is in service already ({known}), but the ledger {address} does not know of it",
            hint="deploy with the ledger that it was deployed with: "
            + (", ".join(sorted(ledgers)) or "it is named in the tag osvdeploy:ledger"),
        )

    def _start(self, ctx: Context, held: HeldLedger, route: Route, run: Run) -> None:
        release = self.ledger.release(ctx, run.candidate)
        if release is None:
            raise Refused(f"{run.candidate}: its document is not in the ledger", hint="deploy it again from its spec")
        image = self._image(ctx, release)
        state = self.cloud.router.observe(ctx, route)
        backend = state.backends.get(run.slot)
        if backend is None:
            raise NotFound(f"slot {run.slot} of {run.settings.environment} is not wired up")
        service = tags.service_tags(release.app, release.service, run.settings.ledger)
        labels = tags.release_tags(
            tags.slot_tags(service, run.slot),
            release=release.id,
            version=release.version,
            image=release.image,
            configuration=release.configuration,
            digest=release.digest,
        )
        wanted = GroupRequest(
            name=run.group,
            release=release.id,
            image=image.id,
            capacity=run.capacity,
            machine_type=run.settings.machine_type,
            networks=run.settings.networks,
            firewalls=run.settings.firewalls,
            backend=backend,
            tags=labels,
        )
        with held.acting(ctx) as acting:
            self.cloud.groups.ensure(acting, wanted)

    def _settle(
        self, ctx: Context, held: HeldLedger, wanted: ReleaseId | None, why: str, until: Until | None = None
    ) -> Run | None:
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
        return self._drive(ctx, held, route, until)

    def _recognize(
        self, ctx: Context, held: HeldLedger, route: Route, state: RouteState, groups: Mapping[str, GroupState]
    ) -> SlotRecord:
        """What serves, by the cloud where the ledger's word cannot be: its group is gone, and another release's stands
        in its slot and has the traffic. So a ledger that was put back from a copy learns of what it has missed.

        Raises :class:`~osvdeploy.errors.LedgerBehind` where that one is another ledger's.
        """
        stable, slot = held.head.stable, held.head.serving
        assert stable is not None and slot is not None
        standing = [each for each in groups.values() if each.tags.get(tags.SLOT) == slot and not each.deleting]
        if len(standing) != 1 or not (state.weights or {}).get(slot):
            return stable
        found = standing[0]
        if found.release is None or found.name == stable.group:
            return stable
        theirs = found.tags.get(tags.LEDGER)
        if theirs != route.tags.get(tags.LEDGER) and not self.take_over:
            raise LedgerBehind(
                f"{self.ledger.service}: {found.release} serves, of the ledger {theirs}; this one, "
                f"{self.ledger.store.address}, says that {stable.release} does",
                hint=_BEHIND,
            )
        ctx.report(
            Warned(
                f"{self.ledger.service}: the ledger says that {stable.release} serves, but {found.release} does: the "
                "ledger was put back, or somebody else is at work",
                hint=f"it is gone on with from {found.release}",
            )
        )
        now = ctx.now()
        record = SlotRecord(found.release, found.name, now)
        served = tuple(each for each in held.head.served if each.release != found.release)
        held.save(
            ctx,
            f"{found.release} is found serving",
            slots={**held.head.slots, slot: record},
            served=(*served, Served(found.release, now))[-_SERVED_KEPT:],
        )
        return record

    def _same_release(
        self, ctx: Context, held: HeldLedger, release: Release, route: Route, scaling: Scaling | None
    ) -> Rollout:
        """The release serves already; only its capacity may differ."""
        stable = held.head.stable
        assert stable is not None and held.head.serving is not None
        before_now = self.ledger.release(ctx, release.id)
        changed = [
            name
            for name in ("machine_type", "networks", "firewalls")
            if before_now is not None and getattr(before_now.settings, name) != getattr(release.settings, name)
        ]
        if changed:
            raise UsageError(
                f"{release.id}: serves already, on machines with another {' and '.join(changed).replace('_', ' ')}",
                hint="machines are replaced by a new release: raise `version` in the spec",
            )
        self.ledger.put_release(ctx, release)
        if scaling is not None and scaling.moves:
            told = f"{release.id} serves already, on {scaling.desired} machines"
            told += f"; its own scaling says how many, between {scaling.minimum} and {scaling.maximum}"
            return Rollout(Outcome.SUCCEEDED, held.head, None, told)
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

    def _fence(self, ctx: Context, held: HeldLedger, route: Route) -> None:
        """Let nobody who held the lease before change the route any more, where the place can tell."""
        fence = self.cloud.fence
        if fence is None:
            return
        if held.taken_over:
            self._outranking(ctx, held, route, lambda acting: fence.take_over(acting, route, held.head.epoch))
            held.taken_over = False
        else:
            fence.hold(route, held.head.epoch)

    def _outranking(self, ctx: Context, held: HeldLedger, route: Route, change: Callable[[Context], None]) -> None:
        """Change a route, where the mark of a later lease on it may be one that nobody holds any more.

        A ledger gives out epochs in order, and ours is the newest lease in it. So a later one is another ledger's, or
        was given before this one was lost or put back. Where it is of this very ledger, whoever held it finds our head
        before its next step, and its mark is outranked. Raises :class:`~osvdeploy.errors.LedgerBehind` where that
        cannot be known, :class:`~osvdeploy.errors.LeaseLost` where another process has the lease now.
        """
        try:
            with held.acting(ctx) as acting:
                change(acting)
        except Outranked as outranked:
            held.confirm(ctx)
            fence, ours = self.cloud.fence, self.ledger.store.address
            same = outranked.ledger == ours == route.tags.get(tags.LEDGER)
            if fence is None or not (same or self.take_over):
                raise _behind(self.ledger, held.head, route, outranked) from outranked
            ctx.report(
                Warned(
                    f"{self.ledger.service}: {route.listener} bears the mark of lease {outranked.epoch}, and the "
                    f"ledger {ours} has come to {held.head.epoch} only: it was lost or put back",
                    hint=f"leases go on from {outranked.epoch + 1}",
                )
            )
            held.save(ctx, f"outrank lease {outranked.epoch}", epoch=outranked.epoch + 1)
            fence.hold(route, held.head.epoch)
            with held.acting(ctx) as acting:
                change(acting)

    def _observer(self, route: Route) -> Observer:
        return Observer(self.cloud, self.prober, route, self.limits, self.metrics)

    def _scaling(self, ctx: Context, head: Head) -> Scaling | None:
        """What scales the stable group by itself, and its size. None where there is none.

        What the run before owes it counts for what it has: a pause that was not taken back is nobody's wish, and what
        should have been handed over to it is its own.
        """
        stable, run = head.stable, head.run
        if stable is None:
            return None
        there = self.cloud.groups.scaling(ctx, stable.group)
        if there is None or run is None or run.scaling is None or not _owes(run, stable, there):
            return there
        return replace(run.scaling, desired=there.desired)

    def _pay(self, ctx: Context, held: HeldLedger) -> None:
        """Do what the run before could not do about scaling, as far as it is still to be done."""
        stable, run = held.head.stable, held.head.run
        if stable is None or run is None or run.scaling is None or run.scaled:
            return
        groups, succeeded = self.cloud.groups, run.verdict is Outcome.SUCCEEDED
        there = groups.scaling(ctx, stable.group)
        if there is None or not _owes(run, stable, there):
            return
        try:
            with held.acting(ctx) as acting:
                if succeeded:
                    groups.apply(acting, stable.group, run.scaling)
                else:
                    groups.resume(acting, stable.group, run.scaling)
            now = groups.scaling(ctx, stable.group)
            paid = groups.follows(ctx, stable.group, run.scaling) if succeeded else now is not None and not now.paused
        except CloudError as error:
            ctx.report(Warned(f"{stable.release} still has not the scaling of before: {error}", hint=error.hint))
            return
        if paid:
            held.save(ctx, f"{stable.release} is scaled as before", run=replace(run, scaled=True))

    def _scaling_if_told(self, ctx: Context, head: Head) -> Scaling | None:
        """Likewise; a rollback does not depend on it. Where it cannot be seen, it is what was handed over last."""
        try:
            return self._scaling(ctx, head)
        except CloudError as error:
            run, stable = head.run, head.stable
            given = stable is not None and run is not None and run.group == stable.group and run.scaling is not None
            kept = "what was handed over to it last is kept" if given else "it will not be kept"
            ctx.report(Warned(f"cannot see what scales the service, so {kept}: {error}", hint=error.hint))
            return run.scaling if given and run is not None else None

    def _capacity(self, ctx: Context, head: Head, release: Release, scaling: Scaling | None) -> int:
        """How many machines a deploy begins with.

        As many as are declared, or as the stable group has, where it has more: it has them for a reason. Where it does
        not scale by itself and the spec says another number than for the stable release, the spec wins; and no more
        than its own scaling would leave are started.
        """
        declared, stable = release.settings.capacity, head.stable
        if stable is None or scaling is None:
            return declared
        if scaling.moves:
            return max(min(declared, scaling.maximum), scaling.desired)
        before = self.ledger.release(ctx, stable.release)
        changed = before is not None and before.settings.capacity != declared
        return declared if changed else max(declared, scaling.desired)

    def _begin(
        self,
        ctx: Context,
        head: Head,
        release: Release,
        kind: Kind,
        capacity: int,
        scaling: Scaling | None = None,
    ) -> Run:
        now = ctx.now()
        stable = head.stable
        strategy = release.settings.strategy
        # A rollback goes by the same engine, but not by small steps: it is an answer to an emergency. And where nothing
        # serves there is nobody to share traffic with.
        whole = kind is Kind.ROLLBACK or strategy.kind is StrategyKind.ALL_AT_ONCE or stable is None
        steps = (TrafficStep(100),) if whole else strategy.steps
        settings = release.settings
        if kind is Kind.ROLLBACK:
            alone = replace(strategy, bake=0.0, approve=False, on_failure=OnFailure.ROLLBACK)
            settings = replace(settings, strategy=alone)
        before = self.ledger.release(ctx, stable.release) if stable is not None else None
        return Run(
            stable_health=before.settings.health if before is not None else None,
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
            scaling=None if scaling is None or scaling.fixed else scaling,
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
            endpoint=self.cloud.endpoint,
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

    def _hold(
        self, ctx: Context, held: HeldLedger, release: ReleaseId | None, why: str, *, given_up: bool = False
    ) -> Head:
        kept = tuple(hold for hold in held.head.holds if hold.release != release)
        told = release or "every release"
        changes: dict[str, object] = {"holds": (*kept, Hold(release, why, ctx.process.user, ctx.now()))}
        if given_up and release is not None and held.head.run is not None:
            changes |= _giving_up(held.head, held.head.run, release)
        return held.save(ctx, f"hold {told}", **changes)

    def _ended(self, ctx: Context, held: HeldLedger, run: Run) -> Rollout:
        """What a run came to: its end, or what it waits for."""
        if run.over:
            return end_of(held.head, run)
        if awaited := run.awaits(ctx.now()):
            weights = f"; {run.candidate} has {run.steps[run.step].weight} % of the traffic" if run.shifted else ""
            return Rollout(Outcome.WAITING, held.head, run, f"{run.candidate} waits: {awaited}{weights}")
        return Rollout(Outcome.BEGUN, held.head, run, f"the {run.kind} of {run.candidate} has begun")

    def _followed(self, ctx: Context, held: HeldLedger, ended: Rollout) -> Rollout:
        """The same end, once image families follow it."""
        families.follow(ctx, self.cloud, held)
        return replace(ended, head=held.head)


def _owes(run: Run, stable: SlotRecord, there: Scaling) -> bool:
    """Whether a run that is over has left something to be done about the scaling of what serves, which is ``there``."""
    if run.scaling is None or run.scaled:
        return False
    # By us, when the group lost its traffic.
    paused = there.paused and not there.fixed and not run.scaling.paused
    if run.verdict is Outcome.SUCCEEDED:
        # Part of it may be there, where the rest was refused. Whatever else is, a user has attached since.
        part = there.fixed or set(there.parts) < set(run.scaling.parts)
        return run.group == stable.group and (part or paused)
    return run.stable_group == stable.group and paused


def _behind(ledger: Ledger, head: Head, route: Route, outranked: Outranked) -> LedgerBehind:
    theirs = f" of the ledger {outranked.ledger}" if outranked.ledger is not None else ""
    return LedgerBehind(
        f"{ledger.service}: {route.listener} was changed under lease {outranked.epoch}{theirs}, and this ledger, "
        f"{ledger.store.address}, has come to {head.epoch} only: it is not the one that the service is deployed with, "
        "or it was lost or put back",
        hint=_BEHIND,
    )


def _tell_measured(ctx: Context, run: Run, seen: Observation) -> None:
    """Report how metric gates stand of which something was read just now."""
    for view in gate_views(run, seen):
        reading = seen.readings.get(view.gate.name)
        if reading is not None and reading.fresh:
            ctx.report(GateJudged(view.gate.name, None, view.judgement.told))


def _tell(ctx: Context, run: Run, passed: Sequence[StageRecord], gates: Sequence[GateRecord]) -> None:
    """Report gates and stages in the order they came: a gate is what lets a stage be left."""
    for gate in gates:
        if all(record.stage is not gate.stage for record in passed):
            ctx.report(_judged(gate))
    for number, record in enumerate(passed):
        for gate in gates:
            if gate.stage is record.stage:
                ctx.report(_judged(gate))
        entered = passed[number + 1].stage if number + 1 < len(passed) else run.stage
        ctx.report(StageEntered(run.id, entered, record.why))


def _judged(gate: GateRecord) -> GateJudged:
    return GateJudged(f"{gate.gate} (dry run)" if gate.dry_run else gate.gate, gate.passed, gate.seen)


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
            if run.settings.family is not None:
                changes["family_due"] = True
                changes["given_up"] = tuple(each for each in head.given_up if each != run.candidate)
        old = slots.get(run.slot.other)
        if old is not None:
            if run.kind is Kind.DEPLOY and run.settings.strategy.keep_warm > 0:
                until = now.timestamp() + run.settings.strategy.keep_warm
                if old.warm_until is None:
                    slots[run.slot.other] = replace(old, warm_until=now.fromtimestamp(math.ceil(until), now.tzinfo))
            else:
                del slots[run.slot.other]
        if run.kind is Kind.ROLLBACK and run.stable is not None and head.serving != run.slot:
            others = tuple(hold for hold in head.holds if hold.release not in (run.candidate, run.stable))
            left = Hold(run.stable, "a rollback left it", run.by.partition("@")[0], now)
            changes["holds"] = (*others, left)
            changes |= _giving_up(head, run, run.stable)
        return {**changes, "slots": slots, "serving": run.slot}
    if run.over and run.verdict is Outcome.ROLLBACK_FAILED and run.shifted is not None:
        # Its machines stand, and may carry traffic.
        return {"slots": {**slots, run.slot: SlotRecord(run.candidate, run.group, run.started)}}
    ended: dict[str, object] = {}
    if run.over and run.verdict is Outcome.ROLLED_BACK:
        ended |= _giving_up(head, run, run.candidate)
    if run.over and any(record.stage is Stage.BOOT for record in run.stages):
        # From boot on the slot was the candidate's, whose machines are gone now.
        slots.pop(run.slot, None)
        ended["slots"] = slots
    return ended


def _giving_up(head: Head, run: Run, release: ReleaseId) -> dict[str, object]:
    """A release is no good: its image is to be withdrawn, where families are led at all."""
    if run.settings.family is None:
        return {}
    others = (each for each in head.given_up if each not in (release, run.candidate))
    return {"given_up": (*others, release)}


def refuse_waiting(head: Head, release: Release, now: datetime) -> None:
    """Raise :class:`~osvdeploy.errors.RolloutWaiting` where another release's rollout waits for a person, unless this
    one may supersede it."""
    run = head.unfinished
    if run is None or run.candidate == release.id or release.settings.strategy.concurrent is Concurrent.SUPERSEDE:
        return
    if awaited := run.awaits(now):
        raise RolloutWaiting(
            f"{head.service}: the {run.kind} of {run.candidate} waits: {awaited}",
            hint="`osvdeploy approve`, `resume` or `promote` lets it go on, `osvdeploy abort` ends it",
        )


def refuse_later(head: Head, since: int | None) -> None:
    """Raise :class:`~osvdeploy.errors.PlanOutdated` unless the lease was taken right after document ``since``."""
    if since is not None and head.n != since + 1:
        change = f"newest document of the ledger: {since} -> {head.n - 1}"
        raise PlanOutdated(
            f"{head.service}: is not as it was when the plan was made: {change}",
            changes=[change],
            hint="make a new plan, or deploy without one",
        )


def end_of(head: Head, run: Run) -> Rollout:
    """How a run that is over ended."""
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
    if run.scaling is not None and not run.scaled:
        what = "has not" if run.verdict is Outcome.SUCCEEDED else "may not have"
        told += (
            f"; what serves {what} the scaling of before ({', '.join(run.scaling.parts)}), the next deploy brings it"
        )
    return Rollout(run.verdict, head, run, told)


def refuse_held(head: Head, release: ReleaseId, *, forced: bool = False) -> None:
    """Raise :class:`~osvdeploy.errors.ReleaseHeld` where a hold refuses a release; ``forced``: one of every release."""
    for hold in head.holds:
        if hold.release is None or (hold.release == release and not forced):
            what = "every release" if hold.release is None else hold.release
            other = "" if hold.release is None else "deploy another release, or "
            raise ReleaseHeld(
                f"{head.service}: {what} is held since {hold.at:%Y-%m-%d %H:%M} UTC by {hold.by}: {hold.why}",
                hint=f"{other}take the hold away with `osvdeploy unhold`",
            )


def astray(head: Head, state: RouteState) -> str:
    """What of a service's route is not as the ledger says, while no rollout is under way; "" where all is."""
    if head.stable is None or head.serving is None or head.unfinished is not None:
        return ""
    if state.weights is None:
        return "the rule that sends traffic is gone" if state.weighted else "traffic is sent elsewhere"
    if state.weights.get(head.serving.other, 0) > 0 or state.weights.get(head.serving, 0) == 0:
        seen = ", ".join(f"{slot} {weight}" for slot, weight in sorted(state.weights.items()))
        return f"{head.serving} serves, but the weights are {seen}"
    if missing := [slot for slot in Slot if slot not in state.backends]:
        return f"what leads to slot {' and '.join(missing)} is gone"
    return ""


def _refuse_shares(release: Release, state: RouteState) -> None:
    """Traffic moves to a pointer's slot in one step or not at all."""
    shares = [step.weight for step in release.settings.strategy.steps if step.weight != 100]
    if shares and not state.weighted:
        raise UsageError(
            f"{release.id}: its strategy gives the new release {shares[0]} % first, but {release.settings.listener} "
            "has no weights",
            hint="leave the steps out, or name a way in that has weights",
        )


def _refuse_drift(head: Head, state: RouteState) -> None:
    """Traffic that goes elsewhere than the ledger says was moved by somebody: not ours to undo unasked."""
    if head.stable is None or head.serving is None:
        return
    if state.weights is None:
        # A rule of ours may be made anew; where a pointer leads is the user's word.
        if not state.weighted and head.place is not None:
            raise UsageError(
                f"{head.service}: the ledger says {head.serving} serves, but {head.place.route.listener} leads "
                "elsewhere again",
                hint=f"let it lead to the {head.serving} slot, then run this again; or `osvdeploy destroy` the service",
            )
        return
    if state.weights.get(head.serving.other, 0) > 0:
        seen = ", ".join(f"{slot} {weight}" for slot, weight in sorted(state.weights.items()))
        raise UsageError(
            f"{head.service}: the ledger says {head.serving} serves, but the rule's weights are {seen}",
            hint=f"somebody changed the rule; give {head.serving} all the weight again, then run this again",
        )
