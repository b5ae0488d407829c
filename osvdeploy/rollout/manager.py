"""Rolls a service out: observes, lets :func:`~osvdeploy.rollout.machine.advance` decide, saves, acts.

Every step is in the ledger before it is taken, and every action is repeated until the cloud shows its effect. So
whoever finds an unfinished run goes on with it, knowing nothing but the ledger and the cloud.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import (
    Ground,
    GroupState,
    Hooks,
    Measured,
    Metrics,
    Notifier,
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
    DeadlineExceeded,
    LeaseHeld,
    LedgerBehind,
    LedgerError,
    NotFound,
    Refused,
    Unavailable,
    UsageError,
)
from osvdeploy.events import Note, Waiting, Warned
from osvdeploy.retry import insisting
from osvdeploy.rollout import families, lease
from osvdeploy.rollout.consequences import begin, giving_up
from osvdeploy.rollout.courier import Courier, warn_of_unready
from osvdeploy.rollout.drifting import has_left
from osvdeploy.rollout.driver import Driver
from osvdeploy.rollout.ends import Asked, Rollout, came_to
from osvdeploy.rollout.executor import BEHIND, Executor
from osvdeploy.rollout.learning import WHY, learn, overtaken
from osvdeploy.rollout.ledger import WRITTEN_AGAIN, Head, HeldLedger, Hold, Ledger, OutOfReach, SlotRecord
from osvdeploy.rollout.model import OVERTAKEN, Kind, Limits, Outcome, Request, RequestKind, Run, Stage, Until
from osvdeploy.rollout.refusals import (
    astray,
    refuse_drift,
    refuse_held,
    refuse_held_up,
    refuse_later,
    refuse_left,
    refuse_moved_route,
    refuse_shares,
    refuse_to_go_on,
    refuse_unknown_service,
    refuse_unproved,
    refuse_unready,
    refuse_waiting,
    refused_by,
)
from osvdeploy.rollout.releases import Adopted, Concurrent, ProbePlace, Release, about_pointer, group_name, route_of
from osvdeploy.rollout.requests import refuse_senseless
from osvdeploy.rollout.scaling import (
    capacity_of,
    go_on,
    gone_without,
    let_go,
    owes,
    pay,
    scaling_if_told,
    scaling_of,
    suspended,
    take_away,
)

_LOOKED_FOR = 3.0
"""Seconds for which it is looked whether a release could be started, while what is to be left has traffic."""


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
        noting: bool = False,
        hooks: Hooks | None = None,
        notifier: Notifier | None = None,
        exactly: bool = False,
        probe_from: ProbePlace | None = None,
    ) -> None:
        """``take_over``: outrank what a later lease than the ledger knows of has left in the cloud. ``until``: how far
        this process goes with a run that is on its way up; the way back is always gone to its end. ``metrics`` are what
        gates are read from, where that is more than the place's own; ``hooks`` asks programs and addresses,
        ``notifier`` tells others. ``noting``: the ledger is none that lasts, so what traffic is taken from is noted in
        the cloud, for the service's own to learn. ``exactly``: where what serves is deployed again, machines that
        somebody has added are taken away. ``probe_from``: where probes leave from, whatever a run's environment
        declares: here, or nowhere, and requests that are counted prove it; the run keeps that."""
        self.until = until
        self.exactly = exactly
        self.ledger = ledger
        self.cloud = cloud
        limits = limits or Limits()
        # Time alone proves nothing before a change can be in force everywhere.
        late = max(cloud.late, cloud.spread)
        lasting = max(limits.lasting, cloud.spread)
        settle = max(limits.settle, late)
        # A minute has to begin, to pass, and to be told of; and a silent one is waited for twice.
        counted = cloud.counted_late + cloud.spread + 240.0
        self.limits = replace(limits, spread=cloud.spread, late=late, lasting=lasting, settle=settle, counted=counted)
        if cloud.drain is not None:
            self.limits = replace(self.limits, drain=cloud.drain)
        # A stage that waits for something has more time than that takes, whatever somebody has said of it.
        proof, leaving = 2 * settle, 2 * max(self.limits.drain, late)
        self.limits = replace(
            self.limits,
            shift=max(limits.shift, proof),
            revert=max(limits.revert, proof),
            prepare=max(limits.prepare, leaving),
            clean_up=max(limits.clean_up, leaving),
        )
        self.metrics = metrics if metrics is not None else cloud.metrics
        self.executor = Executor(
            ledger, cloud, prober, self.limits, take_over=take_over, metrics=self.metrics, noting=noting
        )
        self.hooks = hooks
        self.notifier = notifier if notifier is not None else cloud.notifier
        self.courier = Courier(self.notifier)
        self.driver = Driver(self.executor, hooks, self.courier, probe_from)

    # ------------------------------------------------------------------------------------------------ use cases

    def preflight(self, ctx: Context, release: Release, *, forced: bool = False) -> None:
        """Look for what would refuse a deploy of this release, before anything is uploaded. Changes nothing.

        Raises as :meth:`deploy` does. A lease is only looked at: whoever holds it may be gone when the deploy begins.
        """
        head = self.ledger.head(ctx)
        route = route_of(release)
        state = self.cloud.router.observe(ctx, route)
        refuse_shares(release, state)
        self._refuse_unknown(ctx, head, route, state)
        if not state.weighted:
            ctx.report(Note(about_pointer(route.listener, named=release.settings.health.version_header is not None)))
        self._refuse_closed_sources(ctx, release, route, head)
        refuse_unready(ctx, self.hooks, self.metrics, release.settings)
        warn_of_unready(ctx, self.notifier, release.settings.notify)
        if head is None:
            return
        if release.settings.strategy.concurrent is Concurrent.REFUSE:
            lease.refuse_if_alive(ctx, self.ledger, head)
            refuse_waiting(head, release, ctx.now())
        refuse_held(head, release.id, forced=forced)
        refuse_moved_route(head, route)
        if (left := head.unheard(state).left) is not None:
            refuse_left(head, release.id, left, forced=forced)
        elif head.unfinished is None:
            refuse_drift(head, state)

    def deploy(self, ctx: Context, release: Release, *, forced: bool = False, since: int | None = None) -> Rollout:
        """Bring a release into service. Its image must be registered under the release's id. ``forced``: also where a
        hold names that very release; one of every release still refuses. ``since``: only where the ledger's newest
        document still has that number, 0 for none.

        Goes on with an unfinished run of the same release. One of another release that a living process works on, or
        that waits for a person, is met as the release's strategy says (``concurrent``); one that nobody works on is
        ended first, with traffic back on stable, and with ``queue`` gone on with. A rollback is never ended by a
        deploy: it comes to its own end first. Raises
        :class:`~osvdeploy.errors.LeaseHeld`, :class:`~osvdeploy.errors.ReleaseHeld`,
        :class:`~osvdeploy.errors.NotOurs` or :class:`~osvdeploy.errors.UsageError` before anything is changed.
        """
        route = route_of(release)
        self.executor.require(ctx, release)
        refuse_unready(ctx, self.hooks, self.metrics, release.settings)
        concurrent, asked = release.settings.strategy.concurrent, set[str]()
        while True:
            try:
                if (there := self.ledger.head(ctx)) is not None:
                    # Whoever waits for a person's word takes no lease to see that it was not given yet.
                    refuse_waiting(there, release, ctx.now())
                with lease.held(ctx, self.ledger, f"deploy {release.id}") as held:
                    refuse_later(held.head, since)
                    refuse_waiting(held.head, release, ctx.now())
                    return self._followed(ctx, held, self._deploy(ctx, held, release, route, forced))
            except LeaseHeld as busy:
                if concurrent is Concurrent.REFUSE:
                    raise
                ends = f"superseded by {release.id}" if concurrent is Concurrent.SUPERSEDE else None
                self._wait_for_turn(ctx, busy, asked, release.id, ends)

    def adopt(self, ctx: Context, release: Release) -> Rollout:
        """Make somebody's group, which has the traffic of the release's route already, a release of the service.

        It is put behind the slot's backend beside those of theirs, proved there, and then gets the same traffic by the
        route's own rule. What fails is given back, and nothing of ours is left. Goes on with an unfinished adoption of
        the same group. Raises :class:`~osvdeploy.errors.UsageError` and :class:`~osvdeploy.errors.NotOurs` before
        anything is changed, :class:`~osvdeploy.errors.LeaseHeld` where somebody is at work.
        """
        assert release.adopted is not None
        with lease.held(ctx, self.ledger, f"adopt {release.adopted.group}") as held:
            return self._followed(ctx, held, self._adopt(ctx, held, release, release.adopted))

    def _adopt(self, ctx: Context, held: HeldLedger, release: Release, adopted: Adopted) -> Rollout:
        route, unfinished = route_of(release), held.head.unfinished
        if unfinished is not None and (unfinished.kind is not Kind.ADOPT or unfinished.candidate != release.id):
            raise UsageError(
                f"{self.ledger.service}: a rollout is under way, of {unfinished.candidate}",
                hint="`osvdeploy recover` goes on with it, `osvdeploy abort` ends it",
            )
        ended = self._settle(ctx, held, release.id, "")
        if ended is not None:
            return came_to(ctx, held, ended)
        stable = held.head.stable
        if stable is not None and not held.head.destroyed:
            if stable.release == release.id:
                return Rollout(Outcome.SUCCEEDED, held.head, None, f"{release.id} serves already")
            raise UsageError(
                f"{self.ledger.service}: {stable.release} serves; only a service of which nothing serves yet can adopt",
                hint="adopt the group as another environment",
            )
        refuse_held(held.head, release.id, forced=True)
        refuse_unready(ctx, self.hooks, self.metrics, release.settings)
        self.cloud.router.refuse_unadoptable(ctx, route, adopted.group)
        state = self.cloud.router.observe(ctx, route)
        group = self.cloud.groups.observe(ctx, adopted.group)
        if group is None or group.release is None:
            # What carries our tags is looked for by them; what is to be adopted carries none yet.
            self._refuse_unknown(ctx, held.head, route, state)
        capacity = group.capacity or len(group.machines) if group is not None else 0
        if capacity == 0:
            raise UsageError(f"{adopted.group}: has no machines", hint="bring it to its size first")
        self.ledger.put_release(ctx, release)
        self._leave_old_route(ctx, held, route)
        run = begin(ctx, self.ledger, replace(held.head, serving=None), release, Kind.ADOPT, capacity)
        held.save(
            ctx,
            f"adopt {adopted.group} as {release.id}",
            place=self.executor.place(route, state),
            destroyed=False,
            run=run,
        )
        self.driver.listened = ctx.monotonic()
        return came_to(ctx, held, self._drive(ctx, held, route))

    def refuse_unadoptable(self, ctx: Context, release: Release) -> str:
        """What sends the release's group its traffic now. Raises as :meth:`adopt` does, and what a source of gates
        refuses already; changes nothing."""
        assert release.adopted is not None
        route = route_of(release)
        led_by = self.cloud.router.refuse_unadoptable(ctx, route, release.adopted.group)
        self._refuse_closed_sources(ctx, release, route, None)
        refuse_unready(ctx, self.hooks, self.metrics, release.settings)
        warn_of_unready(ctx, self.notifier, release.settings.notify)
        return led_by

    def _wait_for_turn(
        self, ctx: Context, busy: LeaseHeld, asked: set[str], wanted: ReleaseId | None, ends: str | None
    ) -> None:
        """Wait a moment for whoever is at work. ``ends``: ask for the end of a run of another release than ``wanted``,
        for that reason, once for each run (``asked``)."""
        head = self.ledger.head(ctx)
        run = head.unfinished if head is not None else None
        undecided = run is not None and run.verdict is None and run.abort is None and run.candidate != wanted
        # A rollback is somebody's answer to an emergency: it is waited for, by whoever asks for whatever.
        undecided = undecided and run is not None and run.kind is not Kind.ROLLBACK
        if ends is not None and run is not None and undecided and run.id not in asked:
            ctx.report(Note(f"asking for the end of the {run.kind} of {run.candidate}: {ends}"))
            self.ledger.ask(ctx, run.id, self._request(ctx, RequestKind.ABORT, run, ends))
            asked.add(run.id)
        ctx.report(Waiting(f"{self.ledger.service} to be free", str(busy)))
        ctx.sleep(self.limits.listen)
        self.cloud.router.forget()

    def _deploy(self, ctx: Context, held: HeldLedger, release: Release, route: Route, forced: bool) -> Rollout:
        unfinished = held.head.unfinished
        if unfinished is not None and unfinished.kind is Kind.ADOPT:
            raise UsageError(
                f"{self.ledger.service}: {unfinished.group} is being adopted",
                hint="`osvdeploy recover` goes on with that, `osvdeploy abort` gives its traffic back",
            )
        if unfinished is not None and unfinished.candidate == release.id:
            self._unhold_by_a_word(ctx, held, unfinished, forced)
        elif unfinished is not None and unfinished.verdict is None:
            # What may not begin itself ends nothing of others.
            refuse_held(held.head, release.id, forced=forced)
        # A rollback that nobody works on any more is brought to its end first: what it is to leave is no good, and is
        # held once it was left.
        going_back = unfinished is not None and unfinished.kind is Kind.ROLLBACK
        first = going_back or release.settings.strategy.concurrent is Concurrent.QUEUE
        wanted = unfinished.candidate if first and unfinished is not None else release.id
        # However far this process is to go with its own release, another one's rollout has to be over before it.
        until = self.until if wanted == release.id else Until.ASKED
        ended = self._settle(ctx, held, wanted, f"superseded by {release.id}", until)
        same = ended is not None and ended.candidate == release.id and ended.kind is Kind.DEPLOY
        if ended is not None and same and not ended.overtaken:
            return came_to(ctx, held, ended)
        # One that was gone on with may have come to where a person is asked.
        refuse_waiting(held.head, release, ctx.now())
        refuse_held(held.head, release.id, forced=forced)
        refuse_moved_route(held.head, route)
        state = self.cloud.router.observe(ctx, route)
        refuse_shares(release, state)
        self._refuse_unknown(ctx, held.head, route, state)
        if learn(ctx, self.executor, held, route, state, clean=True):
            refuse_held(held.head, release.id, forced=forced)
        refuse_drift(held.head, state)
        pay(ctx, self.cloud.groups, held)
        self._pay_others(ctx, held, route)
        scaling = scaling_of(ctx, self.cloud.groups, held.head)
        if scaling is None and held.head.stable is not None:
            self._recognize(ctx, held, route, state, self.executor.observer(route).groups(ctx))
            scaling = scaling_of(ctx, self.cloud.groups, held.head)
        self._let_start_slowly(ctx, held, route)
        stable = held.head.stable
        if stable is not None and stable.release == release.id:
            return self._same_release(ctx, held, release, route, scaling)
        self.ledger.put_release(ctx, release)
        self._leave_old_route(ctx, held, route)
        capacity = capacity_of(ctx, self.ledger, held.head, release, scaling)
        if capacity != release.settings.capacity:
            ctx.report(Note(f"{capacity} machines, as many as {release.service} has now"))
        run = begin(ctx, self.ledger, held.head, release, Kind.DEPLOY, capacity, scaling)
        if held.head.stable is None and (state.weights or {}).get(run.slot, 0) > 0:
            # Nothing serves by the ledger, since a destroy or a first deploy did not come to a good end. What has the
            # traffic is none of this release's, and to have it moved shows that it was.
            run = replace(run, slot=run.slot.other)
        held.save(
            ctx,
            f"deploy {release.id}",
            # What somebody has found to be no good is so whatever else is deployed; only its own name lets it go.
            holds=tuple(hold for hold in held.head.holds if hold.release != release.id),
            place=self.executor.place(route, state),
            destroyed=False,
            run=run,
        )
        self.driver.listened = ctx.monotonic()
        return came_to(ctx, held, self._drive(ctx, held, route))

    def rollback(self, ctx: Context, to: Release | None = None, *, force: bool = False) -> Rollout:
        """Bring an earlier release back: ``to``, or the one that served before the present one.

        Goes on with an unfinished rollback. An unfinished deploy is aborted, and that is all unless ``to`` asks for
        another release than the stable one. Whoever works on one is asked to end it, and waited for; with ``force`` the
        lease is taken at once from a process on another machine, which somebody says is dead. Raises
        :class:`~osvdeploy.errors.LeaseHeld` where a living process does anything else, and
        :class:`~osvdeploy.errors.UsageError` where nothing was served before, ``to`` never was, or its image is seen to
        be gone; the last two before anything is ended.
        """
        asked = set[str]()
        said = to is not None or self.driver.probe_from is not None
        if said and (head := self.ledger.head(ctx)) is not None:
            # Before anybody is asked to end anything.
            if to is not None:
                self._refuse_unproved(ctx, head, to.id)
                self._refuse_gone(ctx, head, to)
            if head.place is not None:
                self._refuse_uncounted(ctx, head.place.route)
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
        self._refuse_uncounted(ctx, route)
        unfinished = held.head.unfinished
        if to is not None and unfinished is not None and unfinished.kind is Kind.ADOPT:
            raise UsageError(
                f"{self.ledger.service}: {unfinished.group} is being adopted, and nothing of this service serves yet",
                hint="`osvdeploy abort` gives its traffic back; `osvdeploy deploy` then brings a release into service",
            )
        goes_on = (
            unfinished is not None
            and unfinished.kind is Kind.ROLLBACK
            and (to is None or to.id == unfinished.candidate)
        )
        wanted = unfinished.candidate if goes_on and unfinished is not None else None
        if to is not None:
            # Who deployed it may have begun since anybody looked.
            self._refuse_unproved(ctx, held.head, to.id)
            self._refuse_gone(ctx, held.head, to)
        ended = self._settle(ctx, held, wanted, "a rollback was asked for")
        if ended is not None and ended.kind is Kind.ADOPT and ended.verdict is Outcome.ABORTED:
            return replace(came_to(ctx, held, ended), outcome=Outcome.SUCCEEDED)
        if ended is not None and (goes_on or ended.kind is Kind.ADOPT):
            return came_to(ctx, held, ended)
        last = held.head.run
        if ended is None and last is not None and last.id in asked and last.kind is Kind.DEPLOY:
            # Its process ended it for us.
            ended = last
        if (again := self._revert_again(ctx, held, route, to)) is not None:
            return again
        if ended is not None and ended.verdict in (Outcome.ABORTED, Outcome.ROLLED_BACK):
            self._hold(ctx, held, ended.candidate, "a rollback left it", given_up=True)
            stable = held.head.stable
            if to is None or (stable is not None and to.id == stable.release):
                told = f"{ended.candidate} was given up; {stable.release if stable is not None else 'nothing'} serves"
                return Rollout(Outcome.SUCCEEDED, held.head, ended, told)
        if held.head.stable is None:
            raise UsageError(f"{self.ledger.service}: nothing serves, so there is nothing to go back from")
        state = self.cloud.router.observe(ctx, route)
        learn(ctx, self.executor, held, route, state)
        # Nothing else puts a rule right without the ledger, and the switch does.
        refuse_drift(held.head, replace(state, changed="") if self.executor.noting else state)
        groups = self.executor.observer(route).groups(ctx)
        stable = self._recognize(ctx, held, route, state, groups)
        target = to if to is not None else self._release_before(ctx, held.head)
        if target.id == stable.release:
            return Rollout(Outcome.SUCCEEDED, held.head, None, f"{target.id} serves already")
        if to is not None:
            self._refuse_unknown_release(ctx, to.id)
        now_serving = groups.get(stable.group)
        # As many as serve now; where nobody knows, one machine is not to take all of the traffic.
        capacity = max(now_serving.capacity if now_serving else target.settings.capacity, 1)
        run = begin(
            ctx,
            self.ledger,
            held.head,
            target,
            Kind.ROLLBACK,
            capacity,
            scaling_if_told(ctx, self.cloud.groups, held.head),
        )
        standing = groups.get(run.group)
        warm = (
            standing is not None
            and not standing.deleting
            and standing.capacity >= capacity
            and standing.tags.get(tags.SLOT) == run.slot
        )
        # Before anything moves: can it be gone back to at all?
        try:
            self.executor.require(ctx, target)
        except CloudError as error:
            if not warm:
                raise
            ctx.report(Warned(f"{target.id}: whether its image is there cannot be seen: {error}", hint=error.hint))
        # Of one that does not stand here any more, what was noted was before it was let go.
        lent = {name: each for name, each in held.head.lent.items() if name != run.group or standing is not None}
        held.save(ctx, f"rollback to {target.id}", run=replace(run, warm=warm), lent=lent)
        self.driver.listened = ctx.monotonic()
        return came_to(ctx, held, self._drive(ctx, held, route))

    def request(self, ctx: Context, kind: RequestKind, why: str = "") -> Asked:
        """Ask something of the rollout under way. Where a living process works on it, that one is told and waited for
        until it has heard; else this one goes on with the run, as far as ``until`` says; paused, it stays where it is.

        Raises :class:`~osvdeploy.errors.UsageError` where there is none, or for what makes no sense as it stands,
        :class:`~osvdeploy.errors.ReleaseHeld` where a hold lets it go no further.
        """
        head = self.ledger.head(ctx)
        run = head.unfinished if head is not None else None
        if head is None or run is None:
            raise UsageError(
                f"{self.ledger.service}: no rollout is under way", hint="`osvdeploy status` tells what serves"
            )
        refuse_senseless(run, kind, self.ledger.service, ctx.now())
        if kind not in (RequestKind.PAUSE, RequestKind.ABORT):
            refuse_held_up(head, run, ctx.now())
        try:
            self._refuse_uncounted(ctx, self._route(head))
        except UsageError as error:
            # Whoever is at work may do it; and if nobody is, it is not left undone.
            ctx.report(Warned(f"{error.message}: asked from where is declared"))
            self.driver.probe_from = None
        number = self.ledger.ask(ctx, run.id, self._request(ctx, kind, run, why))
        while True:
            try:
                with lease.held(ctx, self.ledger, f"{kind} {run.candidate}") as held:
                    return self._carry_on(ctx, held, kind, run, number)
            except LeaseHeld as busy:
                if (asked := self._came_of(self.ledger.head(ctx), run, number)) is not None:
                    if self.driver.probe_from is not None:
                        ctx.report(Note("whoever is at work asks from where is declared: probe-from was not used"))
                    return asked
                ctx.report(Waiting("whoever is at work to hear of it", str(busy)))
                ctx.sleep(min(1.0, self.limits.listen))

    def recover(self, ctx: Context, *, force: bool = False) -> Rollout:
        """Go on with a rollout that nobody works on, from wherever this is. Does nothing where all is done. ``force``
        as for :meth:`rollback`. Raises :class:`~osvdeploy.errors.ReleaseHeld` where a hold lets it go no further."""
        return self._recover(ctx, force=force)

    def _recover(self, ctx: Context, *, force: bool = False, forced: bool = False) -> Rollout:
        with lease.held(ctx, self.ledger, "recover", force=force) as held:
            run = held.head.unfinished
            if run is None:
                stable = held.head.stable
                told = f"no rollout is under way; {stable.release if stable else 'nothing'} serves"
                return self._followed(ctx, held, Rollout(Outcome.SUCCEEDED, held.head, None, told))
            self._unhold_by_a_word(ctx, held, run, forced)
            ended = self._settle(ctx, held, run.candidate, "")
            assert ended is not None
            self._learn_at_the_end(ctx, held, ended)
            return self._followed(ctx, held, came_to(ctx, held, ended))

    def _learn_at_the_end(self, ctx: Context, held: HeldLedger, ended: Run) -> None:
        """Have the ledger learn what a rollback without it has left, once the run that was under way then is over: no
        deploy or rollback follows here that would."""
        if not ended.over:
            return
        route = self._route(held.head)
        try:
            learn(ctx, self.executor, held, route, self.cloud.router.observe(ctx, route))
        except CloudError as error:
            # The run is over all the same, and whoever changes the service next learns it.
            ctx.report(Warned(f"what was done without the ledger cannot be seen: {error}", hint=error.hint))

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
            return self._recover(ctx, forced=forced)
        release = self.ledger.release(ctx, run.candidate)
        if release is None:
            raise UsageError(
                f"{run.candidate}: its document is not in the ledger (any more)", hint="deploy it again from its spec"
            )
        if run.kind is Kind.ADOPT:
            return self.adopt(ctx, release)
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
        pause = run.paused.at if run.paused is not None else None
        return Request(kind, f"{ctx.process.user}@{ctx.process.host}", ctx.now(), run.step, why, run.stage, pause)

    def _carry_on(self, ctx: Context, held: HeldLedger, kind: RequestKind, asked: Run, number: int) -> Asked:
        """With the lease: hear what was asked, and go on."""
        run = held.head.unfinished
        if run is not None and run.id == asked.id:
            self.driver.listened = None
            self.driver.listen(ctx, held, run)
        came = self._came_of(held.head, asked, number)
        if came is None:
            raise LedgerError(f"{self.ledger.service}: request {number} to {asked.id} cannot be read")
        if kind is RequestKind.PAUSE or not came.done or held.head.unfinished is None:
            return came
        if self.until is Until.BEGUN and kind is not RequestKind.ABORT:
            goes_on = f"`osvdeploy recover {self.ledger.service}` does"
            return replace(came, told=f"{came.told}, once somebody works on it: {goes_on}")
        run, route = held.head.unfinished, self._route(held.head)
        ended = self.end_overtaken(ctx, held, route, self.cloud.router.observe(ctx, route), run)
        if ended is None:
            refuse_held_up(held.head, run, ctx.now())
            refuse_to_go_on(ctx, self.hooks, self.metrics, run, came.told)
            self._refuse_unreached(ctx, held, route, run, came.told)
            ended = self._drive(ctx, held, route)
            self._learn_at_the_end(ctx, held, ended)
        return replace(came, rollout=self._followed(ctx, held, came_to(ctx, held, ended)))

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

    def realign(self, ctx: Context) -> Head:
        """Send traffic where the ledger says that it goes, and make what of the route is missing, when somebody has
        changed it; put an adopted group back where it stood; let what scales go on that was suspended since the last
        rollout. Does nothing during a rollout, which watches by itself.
        Raises :class:`~osvdeploy.errors.Refused` where no machine there is healthy: whoever sent traffic elsewhere knew
        why.
        """
        with lease.held(ctx, self.ledger, "realign") as held:
            route, began = self._route(held.head), ctx.monotonic()
            if held.head.unfinished is not None or held.head.stable is None:
                return held.head
            state = self.cloud.router.observe(ctx, route)
            learn(ctx, self.executor, held, route, state)
            stable, serving = held.head.stable, held.head.serving
            assert stable is not None and serving is not None
            wrong, elsewhere = astray(held.head, state), (state.weights or {}).get(serving.other, 0) > 0
            moves = elsewhere or state.weights is None or bool(state.changed)
            if moves and self._is_sick(ctx, route, serving, stable, seen=not elsewhere):
                raise Refused(
                    f"{self.ledger.service}: {wrong}; no machine in {serving} is healthy, so traffic stays where it is",
                    hint=f"bring {stable.release} back to health first, or send {serving} all the weight by hand",
                )
            self.executor.fence(ctx, held, route)
            changed = self._put_back(ctx, held, route, stable, serving)
            if any(self.cloud.router.slow_start(ctx, route, slot) not in (None, route.slow_start) for slot in Slot):
                with held.acting(ctx) as acting:
                    self.cloud.router.set_slow_start(acting, route)
            while wrong := astray(held.head, self.cloud.router.observe(ctx, route)):
                changed = True
                if ctx.monotonic() - began > self.limits.revert:
                    raise Unavailable(f"{self.ledger.service}: {wrong}, and that does not change", hint="try again")
                ctx.report(Waiting(f"all traffic on {serving}", wrong))
                held.confirm(ctx)
                weights = {serving: 100, serving.other: 0}
                try:
                    self.executor.outranking(
                        ctx, held, route, lambda acting: self.cloud.router.ensure_slots(acting, route)
                    )
                    self.executor.set_weights(ctx, held, route, weights)
                except (Unavailable, NotFound) as error:
                    ctx.report(Waiting("the cloud to accept a change", str(error)))
                held.renew(ctx)
                ctx.sleep(self.limits.quick_poll)
            head = held.save(ctx, f"traffic is on {stable.release} again") if changed else held.head
            self._let_scale(ctx, held, stable)
            return head

    def _is_sick(self, ctx: Context, route: Route, slot: Slot, record: SlotRecord, *, seen: bool) -> bool:
        """Whether no machine of a slot's release is healthy; ``seen``: and one is seen to be otherwise. Where no rule
        leads to them, nobody may have looked."""
        group = self.cloud.groups.observe(ctx, record.group)
        own = {machine.id for machine in group.machines} if group is not None else set()
        states = {each.state for each in self.cloud.router.health(ctx, route, slot) if each.machine in own}
        return "healthy" not in states and (not seen or "unhealthy" in states)

    def _let_scale(self, ctx: Context, held: HeldLedger, stable: SlotRecord) -> None:
        """Let what scales the stable group go on where it was suspended since its last rollout. Traffic is where it
        should be: what is refused here is told."""
        run, groups = held.head.run, self.cloud.groups
        if run is None or run.scaling is None:
            return
        try:
            if not suspended(run, stable, groups.scaling(ctx, stable.group)):
                return
            ctx.report(Note(f"letting what scales {stable.release} go on"))
            with held.acting(ctx) as acting:
                groups.resume(acting, stable.group, run.scaling)
        except CloudError as error:
            ctx.report(Warned(f"what scales {stable.release} is left as it is: {error}", hint=error.hint))

    def _put_back(self, ctx: Context, held: HeldLedger, route: Route, stable: SlotRecord, serving: Slot) -> bool:
        """Let an adopted group that serves by the ledger stand behind its slot again; whether it did not."""
        release = self.ledger.release(ctx, stable.release)
        if release is None or release.adopted is None:
            return False
        group = self.cloud.groups.observe(ctx, stable.group)
        if group is None or not has_left(group):
            return False
        run = begin(ctx, self.ledger, held.head, release, Kind.ADOPT, len(group.machines))
        self.executor.start(ctx, held, route, replace(run, slot=serving, group=stable.group))
        return True

    def destroy(self, ctx: Context) -> Head:
        """Take everything of the service away: machines, templates, rules, backends. The ledger keeps its history."""
        with lease.held(ctx, self.ledger, "destroy") as held:
            route = self._route(held.head)
            observer = self.executor.observer(route)
            self.executor.fence(ctx, held, route)
            if held.head.unfinished is not None:
                ended = replace(held.head.unfinished, abort="destroyed", verdict=Outcome.ABORTED, reason="destroyed")
                held.save(ctx, "abort: destroyed", run=ended.enter(Stage.DONE, ctx.now(), "destroyed"))
            began = ctx.monotonic()
            if any(tags.is_kept(group.tags) for group in insisting(ctx, lambda: observer.groups(ctx)).values()):
                # Their machines stay, and so does what sent them traffic before: it has it again before they leave us.
                give_back = self.cloud.router.give_back
                insisting(
                    ctx, lambda: self.executor.outranking(ctx, held, route, lambda acting: give_back(acting, route))
                )
                seconds = max(self.limits.settle, self.limits.late)
                ctx.report(Waiting("traffic to be back where it was", f"{seconds:g} s"))
                self._wait_out(ctx, held, seconds)
            if held.head.slots or held.head.serving is not None:
                # First: what is on its way out is nothing to go on from, whoever takes over.
                held.save(ctx, "destroy: machines go", slots={}, serving=None)
            while groups := insisting(ctx, lambda: observer.groups(ctx)):
                if ctx.monotonic() - began > self.limits.clean_up:
                    troubles = "; ".join(f"{group.name}: {', '.join(group.troubles)}" for group in groups.values())
                    raise Unavailable(
                        f"{self.ledger.service}: these groups do not go: {troubles}",
                        hint="run it again: it goes on from here",
                    )
                for group in groups.values():
                    if not group.deleting:
                        way = "letting {} go" if tags.is_kept(group.tags) else "taking {} away"
                        told = f"{way.format(group.name)} ({group.release}, {len(group.machines)} machines)"
                        ctx.report(Note(told))
                        self._take_away(ctx, held, group.name)
                held.renew(ctx)
                ctx.report(Waiting("machines to be gone", f"{len(groups)} groups left"))
                ctx.sleep(self.limits.poll)
            remove = self.cloud.router.remove
            insisting(ctx, lambda: self.executor.outranking(ctx, held, route, lambda acting: remove(acting, route)))
            ctx.report(Note("rules and backends are gone"))
            if held.head.lent:
                # Let go by somebody else, who gave them no traffic back.
                self._wait_out(ctx, held, max(self.limits.settle, self.limits.late))
                for name in gone_without(held.head, ()):
                    held.insist(ctx, lambda acting, name: go_on(acting, self.cloud.groups, held.head, name), name)
            ours = {tags.SERVICE: self.ledger.service}
            for name in insisting(ctx, lambda: self.cloud.groups.templates(ctx, ours)):
                held.insist(ctx, self.cloud.groups.delete_template, name)
            held.save(ctx, "destroyed", slots={}, serving=None, holds=(), destroyed=True, note=None, lent={})
            self.courier.finish(ctx, held)
            return held.head

    def _pay_others(self, ctx: Context, held: HeldLedger, route: Route) -> None:
        """Let what scales adopted groups go on that were let go without the ledger. A deploy does not depend on it."""
        if not held.head.lent:
            return
        for name in gone_without(held.head, self.executor.observer(route).groups(ctx)):
            try:
                with held.acting(ctx) as acting:
                    go_on(acting, self.cloud.groups, held.head, name)
            except CloudError as error:
                ctx.report(Warned(f"what scales {name} is still suspended: {error}", hint=error.hint))
                continue
            let_go(ctx, held, name)

    def _take_away(self, ctx: Context, held: HeldLedger, group: str) -> None:
        held.insist(ctx, lambda acting, name: take_away(acting, self.cloud.groups, held.head, name), group)
        let_go(ctx, held, group)

    def _wait_out(self, ctx: Context, held: HeldLedger, seconds: float) -> None:
        """Wait, and keep the lease."""
        ends = ctx.monotonic() + seconds
        while (left := ends - ctx.monotonic()) > 0:
            ctx.sleep(min(left, self.limits.poll))
            held.renew(ctx)

    def hold(self, ctx: Context, release: ReleaseId | None, why: str) -> Head:
        """Refuse a release, or every one where None."""
        with lease.held(ctx, self.ledger, "hold") as held:
            self._hold(ctx, held, release, why)
            self.courier.finish(ctx, held)
            return held.head

    def unhold(self, ctx: Context, release: ReleaseId | None = None) -> Head:
        """Take the hold of a release away, or every one of the service where None. Raises
        :class:`~osvdeploy.errors.UsageError` where the release is not held."""
        with lease.held(ctx, self.ledger, "unhold") as held:
            stay = tuple(hold for hold in held.head.holds if release is not None and hold.release != release)
            if release is not None and len(stay) == len(held.head.holds):
                there = ", ".join(hold.release or "every release" for hold in stay) or "nothing"
                raise UsageError(
                    f"{held.head.service}: {release} is not held by its name; held is {there}",
                    hint="without --release every hold is taken away",
                )
            held.save(ctx, f"unhold {release}" if release is not None else "unhold", holds=stay)
            self.courier.finish(ctx, held)
            return held.head

    # --------------------------------------------------------------------------------------------------- the loop

    def _drive(self, ctx: Context, held: HeldLedger, route: Route, until: Until | None = None) -> Run:
        """Step the head's run to its end, or as far as it is to be gone.

        A ledger that is out of reach for a while ends no deploy: nothing is changed meanwhile, and it goes on from
        what is on record, as whoever takes over does. Whoever asks for the way back is told at once: there is another.
        """
        while True:
            try:
                return self.driver.drive(ctx, held, route, until or self.until)
            except OutOfReach as error:
                run = held.head.unfinished
                if run is None or run.kind is Kind.ROLLBACK or run.abort is not None:
                    raise
                ctx.report(
                    Warned(
                        f"the ledger is out of reach: {error}; {run.candidate} waits for it in {run.stage}",
                        hint=self.ledger.way_without,
                    )
                )
            insisting(ctx, lambda: held.save(ctx, WRITTEN_AGAIN), self.limits.silence, "the ledger's store")
            # Somebody may have gone back without the ledger meanwhile.
            self.cloud.router.forget()
            state = held.head.unheard(insisting(ctx, lambda: self.cloud.router.observe(ctx, route)))
            run = held.head.unfinished
            if run is not None and (ended := self.end_overtaken(ctx, held, route, state, run)) is not None:
                return ended
            if run is not None and run.verdict is None and state.left == run.candidate:
                held.save(ctx, f"abort {run.candidate}: {WHY}", run=replace(run, abort=WHY))

    def _revert_again(self, ctx: Context, held: HeldLedger, route: Route, to: Release | None) -> Rollout | None:
        """After a rollback that failed: bring traffic back to stable, as that run could not. None where there is
        something to be done beside that, or after it."""
        run = held.head.run
        if run is None or not run.over or run.verdict is not Outcome.ROLLBACK_FAILED or run.shifted is None:
            return None
        if run.stable_gone or held.head.stable is None or held.head.serving is not run.slot.other:
            return None
        if held.head.stable.group != run.stable_group:
            return None
        state = held.head.unheard(self.cloud.router.observe(ctx, route))
        if state.weights is None or state.left is not None:
            return None
        # Where the rule is right that was not proved: who asks for the way back does not mean one release further. But
        # for a rollback that failed by itself: it is asked for once more.
        given_up = run.kind is Kind.DEPLOY or run.abort is not None
        if state.weights.get(run.slot, 0) == 0 and (to is not None or not given_up):
            return None
        verdict = Outcome.ROLLED_BACK if run.kind is Kind.DEPLOY else Outcome.ABORTED
        again = replace(run, verdict=verdict, evidence=()).enter(Stage.REVERT, ctx.now(), "a rollback was asked for")
        held.save(ctx, f"revert {run.candidate} again", run=again)
        ended = self._drive(ctx, held, route)
        if ended.stable_gone:
            # What has the traffic is gone on from: what is wanted is started anew.
            return None
        if ended.verdict is Outcome.ROLLBACK_FAILED:
            return came_to(ctx, held, ended)
        self._hold(ctx, held, ended.candidate, "a rollback left it", given_up=True)
        if to is not None and to.id != ended.stable:
            return None
        return Rollout(Outcome.SUCCEEDED, held.head, ended, f"traffic is back; {ended.stable} serves")

    def _refuse_unknown(self, ctx: Context, head: Head | None, route: Route, state: RouteState) -> None:
        if head is None or head.place is None or head.destroyed:
            refuse_unknown_service(self.ledger, route, state, self.executor.observer(route).groups(ctx))

    def _refuse_unproved(self, ctx: Context, head: Head, to: ReleaseId) -> None:
        """The refusal of the same name, unless documents from before tell that it has served."""
        try:
            refuse_unproved(head, to, self.ledger.release(ctx, to))
        except UsageError:
            if not self.ledger.has_served(ctx, head, to):
                raise

    def _refuse_unknown_release(self, ctx: Context, to: ReleaseId) -> None:
        if self.ledger.release(ctx, to) is None:
            raise UsageError(
                f"{to}: was never deployed, as far as the ledger {self.ledger.store.address} knows",
                hint="`osvdeploy history` lists the releases; deploy this one from its spec",
            )

    def _refuse_gone(self, ctx: Context, head: Head, to: Release) -> None:
        """Raise :class:`~osvdeploy.errors.UsageError` where a rollout would be ended, or a failed way back be
        gone again, for a release that could not be started then."""
        run, stable = head.run, head.stable
        if run is None or run.kind is Kind.ADOPT or (run.over and run.verdict is not Outcome.ROLLBACK_FAILED):
            # Nothing moves before the rollback itself looks.
            return
        goes_on = not run.over and run.kind is Kind.ROLLBACK and run.candidate == to.id
        if goes_on or (stable is not None and stable.release == to.id):
            # What it needs stands, or is its own to look for.
            return
        self._refuse_unknown_release(ctx, to.id)
        try:
            self.executor.require(ctx.within(_LOOKED_FOR), to)
        except (CloudError, DeadlineExceeded):
            # Not seeing keeps nobody from leaving what is to be left. It is looked again before anything is started.
            ctx.check()

    def _refuse_uncounted(self, ctx: Context, route: Route) -> None:
        """Raise :class:`~osvdeploy.errors.UsageError` where requests are to be the proof, and nobody counts them."""
        if self.driver.probe_from is not ProbePlace.REQUESTS:
            return
        if self.metrics is None or not self.cloud.router.observe(ctx, route).weighted:
            raise UsageError(
                f"{self.ledger.service}: requests are not counted behind {route.listener}",
                hint="go back from where it can be reached, without --probe-from requests",
            )

    def _refuse_closed_sources(self, ctx: Context, release: Release, route: Route, head: Head | None) -> None:
        """Raise what a gate's source refuses already, where that would fail the deploy after its bake: for want of a
        permission, above all. A document or a program may well know of the release only when it is there."""
        serving = head.serving if head is not None and head.stable is not None else None
        slot = serving.other if serving is not None else Slot.BLUE
        epoch = head.epoch + 1 if head is not None else 1
        group = group_name(self.ledger.service, release, epoch, self.ledger.mark)
        measured = Measured(route, slot, release.id, group)
        for gate in release.settings.gates:
            if self.metrics is None or not gate.remembered or not gate.fails_unread:
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

    def _settle(
        self, ctx: Context, held: HeldLedger, wanted: ReleaseId | None, why: str, until: Until | None = None
    ) -> Run | None:
        """Bring an unfinished run to its end: a good one if it is what is wanted or is decided already, else abort."""
        run = held.head.unfinished
        if run is None:
            return None
        route = self._route(held.head)
        state = held.head.unheard(self.cloud.router.observe(ctx, route))
        if (ended := self.end_overtaken(ctx, held, route, state, run)) is not None:
            return ended
        if run.verdict is None and state.left == run.candidate:
            wanted, why = None, WHY
        if run.verdict is None and run.candidate != wanted:
            ctx.report(Note(f"ending the unfinished {run.kind} of {run.candidate}: {why}"))
            held.save(ctx, f"abort {run.candidate}: {why}", run=replace(run, abort=why))
        else:
            if refused_by(held.head, run) is not None:
                # Somebody may have asked for its end, of whoever was at work then.
                self.driver.listened = None
                run = self.driver.listen(ctx, held, run)
            refuse_held_up(held.head, run, ctx.now())
            refuse_to_go_on(ctx, self.hooks, self.metrics, run)
            self._refuse_unreached(ctx, held, route, run)
            ctx.report(Note(f"going on with the {run.kind} of {run.candidate}, which is in stage {run.stage}"))
        return self._drive(ctx, held, route, until)

    def _refuse_unreached(self, ctx: Context, held: HeldLedger, route: Route, run: Run, told: str = "") -> None:
        """Raise :class:`~osvdeploy.errors.UsageError` where no probe from here is answered, though the balancer finds
        machines of all that has traffic healthy: that would be the candidate's end, and no way back could be proved.
        Where it finds none it may be they that do not answer, and whoever goes on sees to that. ``told`` is what was
        done all the same."""
        decided = run.returning or run.verdict is not None or run.abort is not None
        if decided or run.stable is None or run.settings.health.counted:
            return
        observer, state = self.executor.observer(route), self.cloud.router.observe(ctx, route)
        for slot in (slot for slot, weight in (state.weights or {}).items() if weight > 0):
            if all(each.state != "healthy" for each in self.cloud.router.health(ctx, route, slot)):
                return
        for _ in range(self.limits.proof_answers):
            held.renew(ctx)
            if (answer := observer.asked(ctx, run, state)).reached:
                return
        heard = f"{told}; but it cannot go on from here: " if told else f"{run.candidate}: "
        there = "`osvdeploy abort --probe-from requests` ends it from anywhere" if state.weighted else "so does `abort`"
        raise UsageError(
            f"{heard}no probe of {state.base_url} is answered, and the machines behind it are healthy: {answer.told}",
            hint=f"`osvdeploy recover` goes on where the balancer can be reached; {there}",
        )

    def end_overtaken(
        self, ctx: Context, held: HeldLedger, route: Route, state: RouteState, run: Run, *, asked: bool = False
    ) -> Run | None:
        """The run, ended where it stands, and what serves now learnt, where traffic was moved from under it while the
        ledger could not be reached; None where it was not. ``asked``: also where no note tells."""
        state = held.head.unheard(state)
        groups = self.executor.observer(route).groups(ctx) if state.left is not None or asked else {}
        if not overtaken(run, state, groups, asked=asked):
            return None
        ctx.report(Note(f"ending the {run.kind} of {run.candidate}, under way in {run.stage}: {OVERTAKEN}"))
        self.executor.fence(ctx, held, route)
        candidate = groups.get(run.group)
        # In the slot that has the traffic it is what serves; in the other one nobody would take it away any more.
        idle = candidate is not None and (state.weights or {}).get(Slot(candidate.tags[tags.SLOT]), 0) == 0
        if candidate is not None and idle and not candidate.deleting:
            self._take_away(ctx, held, run.group)
        ended = replace(run, abort=OVERTAKEN, verdict=Outcome.ABORTED, reason=OVERTAKEN, paused=None)
        ended = ended.enter(Stage.DONE, ctx.now(), OVERTAKEN)
        held.save(ctx, f"end the {run.kind} of {run.candidate}: {OVERTAKEN}", run=ended)
        learn(ctx, self.executor, held, route, state, asked=asked)
        return self._owing(ctx, held, ended)

    def _owing(self, ctx: Context, held: HeldLedger, ended: Run) -> Run:
        """A run that was overtaken, with nothing owed of scaling where what serves goes on: a pause of later is
        somebody's."""
        stable = held.head.stable
        if stable is None or ended.scaling is None or ended.scaled:
            return ended
        try:
            there = self.cloud.groups.scaling(ctx, stable.group)
        except CloudError as error:
            ctx.report(Warned(f"cannot see what scales {stable.release}: {error}", hint=error.hint))
            return ended
        if there is not None and owes(ended, stable, there):
            return ended
        settled = replace(ended, scaled=True)
        held.save(ctx, f"nothing is owed to what scales {stable.release}", run=settled)
        return settled

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
        if theirs != route.tags.get(tags.LEDGER) and not self.executor.take_over:
            raise LedgerBehind(
                f"{self.ledger.service}: {found.release} serves, of the ledger {theirs}; this one, "
                f"{self.ledger.store.address}, says that {stable.release} does",
                hint=BEHIND,
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
        held.save(
            ctx,
            f"{found.release} is found serving",
            slots={**held.head.slots, slot: record},
            served=held.head.served_lately(found.release, now),
        )
        return record

    def _let_start_slowly(self, ctx: Context, held: HeldLedger, route: Route) -> None:
        """Change what of a route may change while it is in use, in both slots at once; the ledger says it afterwards,
        so that a process that dies in between leaves it to the next one."""
        place = held.head.place
        if place is None or held.head.destroyed or place.route.slow_start == route.slow_start:
            return
        with held.acting(ctx) as acting:
            self.cloud.router.set_slow_start(acting, route)
        told = f"slow start {place.route.slow_start:g} s -> {route.slow_start:g} s"
        ctx.report(Note(told))
        changed = replace(place, route=replace(place.route, slow_start=route.slow_start))
        held.save(ctx, told, place=changed)

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
        if before_now is None:
            self.ledger.put_release(ctx, release)
        told = f"{release.id} serves already"
        group = self.cloud.groups.observe(ctx, stable.group)
        declared, has = release.settings.capacity, group.capacity if group is not None else 0
        as_before = before_now is not None and before_now.settings.capacity == declared
        enlarged = as_before and declared < has and not self.exactly
        if scaling is not None and scaling.moves:
            told += f", on {scaling.desired} machines"
            told += f"; its own scaling says how many, between {scaling.minimum} and {scaling.maximum}"
        elif enlarged:
            told += f", on {has} machines; {declared} are declared, and what somebody has added stays"
        elif has != declared:
            run = begin(ctx, self.ledger, held.head, release, Kind.DEPLOY, declared)
            self.executor.start(ctx, held, route, replace(run, slot=held.head.serving, group=stable.group))
            # Only then: by what is declared before, the next command knows whose number the group's is.
            self.ledger.put_release(ctx, release)
            head = held.save(ctx, f"{release.id}: capacity {has} -> {declared}")
            return Rollout(Outcome.SUCCEEDED, head, None, f"{told}; its capacity goes from {has} to {declared}")
        self.ledger.put_release(ctx, release)
        return Rollout(Outcome.SUCCEEDED, held.head, None, told)

    # ------------------------------------------------------------------------------------------------------ facts

    def _route(self, head: Head) -> Route:
        if head.place is None or head.destroyed:
            raise UsageError(
                f"{self.ledger.service}: was never deployed"
                if head.place is None
                else f"{self.ledger.service}: was destroyed",
                hint="`osvdeploy deploy` brings it into service",
            )
        return head.place.route

    def _release_before(self, ctx: Context, head: Head) -> Release:
        """The newest release that served before the present one and that no hold refuses."""
        assert head.stable is not None
        held = {hold.release for hold in head.holds}
        for served in reversed(head.served):
            if served.release != head.stable.release and served.release not in held:
                release = self.ledger.release(ctx, served.release)
                if release is not None:
                    return release
        passed = [each.release for each in head.served if each.release in held and each.release != head.stable.release]
        if passed:
            raise UsageError(
                f"{self.ledger.service}: what served before {head.stable.release} is held: {', '.join(passed)}",
                hint="name one with --to, which a hold does not refuse, or `osvdeploy unhold --release VERSION`",
            )
        raise UsageError(
            f"{self.ledger.service}: no release served before {head.stable.release}",
            hint="name one with --to; `osvdeploy history` lists them",
        )

    def _unhold_by_a_word(self, ctx: Context, held: HeldLedger, run: Run, forced: bool) -> None:
        """Take the holds away that name a release whose rollout goes on by somebody's word."""
        frozen = any(hold.release is None for hold in held.head.holds)
        if forced and not frozen and refused_by(held.head, run) is not None:
            others = tuple(hold for hold in held.head.holds if hold.release != run.candidate)
            held.save(ctx, f"unhold {run.candidate}", holds=others)

    def _hold(
        self, ctx: Context, held: HeldLedger, release: ReleaseId | None, why: str, *, given_up: bool = False
    ) -> Head:
        told = release or "every release"
        changes: dict[str, object] = {"holds": held.head.held_too(Hold(release, why, ctx.process.user, ctx.now()))}
        if given_up and release is not None and held.head.run is not None:
            changes |= giving_up(held.head, held.head.run, release)
        return held.save(ctx, f"hold {told}", **changes)

    def _followed(self, ctx: Context, held: HeldLedger, ended: Rollout) -> Rollout:
        """The same end, once image families follow it and others were told."""
        families.follow(ctx, self.cloud, held)
        self.courier.finish(ctx, held)
        return replace(ended, head=held.head)
