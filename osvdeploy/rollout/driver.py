"""Steps a run to its end: observes, lets the machine decide, saves, acts, and hears what people ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from osvdeploy.cloud.interfaces import Hooks, Route
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, LedgerError, NotFound, NotOurs, Refused, Unavailable
from osvdeploy.events import CloudCall, Event, GateJudged, Note, Reporter, StageEntered, Waiting, Warned
from osvdeploy.rollout import shown
from osvdeploy.rollout.caller import Caller
from osvdeploy.rollout.consequences import consequences
from osvdeploy.rollout.courier import Courier
from osvdeploy.rollout.executor import Executor
from osvdeploy.rollout.ledger import Head, HeldLedger
from osvdeploy.rollout.machine import advance, fail, gate_views
from osvdeploy.rollout.model import (
    REFUSED,
    Action,
    CallHook,
    CallMade,
    GateRecord,
    HandScalingOver,
    Observation,
    Outcome,
    RemoveGroup,
    ResumeScaling,
    Run,
    Stage,
    StageRecord,
    Step,
    Tally,
    UnmakeRoute,
    Until,
)
from osvdeploy.rollout.observe import Observer
from osvdeploy.rollout.releases import ProbePlace
from osvdeploy.rollout.requests import heed
from osvdeploy.sizes import format_duration

_BLINK = 30.0
"""Seconds between two looks of one process, beyond those that it meant to wait, that are no gap: a look takes some,
where calls are throttled."""


class Driver:
    """Goes on with the run of a held ledger's head, whoever began it."""

    def __init__(
        self,
        executor: Executor,
        hooks: Hooks | None = None,
        courier: Courier | None = None,
        probe_from: ProbePlace | None = None,
    ) -> None:
        """``probe_from``: where probes leave from in this process, by the word of whoever started it."""
        self.executor = executor
        self.probe_from = probe_from
        self.courier = courier or Courier(None)
        self.caller = Caller(
            hooks, executor.cloud.router, service=executor.ledger.service, ledger=executor.ledger.store.address
        )
        self.ledger = executor.ledger
        self.limits = executor.limits
        self.listened: float | None = None
        """When it was last looked for requests; None for not at all."""
        self._looked: datetime | None = None
        """When what a run's stage is about was last seen."""
        self._deaf = False
        """A request cannot be read; that was told."""
        self._made: list[CallMade] = []
        """Calls that are yet to be written down."""

    def drive(self, ctx: Context, held: HeldLedger, route: Route, until: Until) -> Run:
        """Step the head's run to its end, or as far as ``until`` says."""
        try:
            return self._drive(ctx, held, route, until)
        finally:
            self.caller.close(ctx)

    def _drive(self, ctx: Context, held: HeldLedger, route: Route, until: Until) -> Run:
        observer = self.executor.observer(route)
        self.executor.fence(ctx, held, route)
        assert held.head.run is not None
        run = replace(self._asked_elsewhere(ctx, held, held.head.run), tally=Tally())
        if until is Until.BEGUN and run.verdict is None and run.abort is None:
            return run
        ctx.report(StageEntered(run.id, run.stage, f"{run.kind} {run.candidate}"))
        # Whoever was at work before wrote twice a minute at least.
        blink, self._looked = (0.0, held.before) if self._looked is None else (_BLINK, self._looked)
        silent_since: float | None = None
        while not run.over:
            ctx.check()
            held.renew(ctx)
            run = self.listen(ctx, held, run)
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
            if run.stage is Stage.CLEAN_UP:
                seen = _without_warm(seen, run, held.head)
            if run.stage is Stage.PREPARE and held.head.served:
                seen = replace(seen, idle_since=held.head.served[-1].since)
            run = self._with_gap(ctx, run, blink)
            seen = replace(seen, hook=self.caller.seen())
            step = _with_awaited(advance(run, seen, self.limits, ctx.now()), ctx.now())
            # A rehearsal waits for a whole bake at once.
            blink = step.wait + _BLINK
            decided = ctx.monotonic()
            _tell_measured(ctx, step.run, seen)
            number = held.head.n
            run = self._taken(ctx, held, observer, run, step)
            if step.action is not None:
                if held.head.n == number:
                    # A write would have told that another process is at work now; without one, ask.
                    held.confirm(ctx)
                held.renew(ctx)
                late = ctx.monotonic() - decided > self.limits.stale
                if late and not run.returning and not isinstance(step.action, CallHook):
                    # The ledger's store took its time: what is there may be another thing by now.
                    continue
                run = self._act(ctx, held, route, run, step.action)
            if _traffic_first(run, step):
                self.courier.tick(ctx, held)
            if step.for_person and until is not Until.OVER:
                return run
            if step.wait and not run.over:
                view = shown.rollout_seen(run, shown.slots_seen(run, seen), self.limits, ctx.now())
                ctx.report(view)
                ctx.report(Waiting(step.waiting_for, run.tally.last, view.until))
                run = self._rest(ctx, held, run, step.wait)
        return run

    def _with_gap(self, ctx: Context, run: Run, blink: float) -> Run:
        """The run, with the time since the last look where that is longer than ``blink``: its process was dead, this
        one stood still, or cloud or ledger did not answer. What nobody has seen has not held."""
        now, looked = ctx.now(), self._looked
        self._looked = now
        if run.stage is not Stage.BAKE or looked is None:
            return run
        gap = (now - max(looked, run.entered)).total_seconds()
        if gap <= blink:
            return run
        if run.bake > 0 and gap > _BLINK:
            ctx.report(Note(f"nobody has watched {run.candidate} for {format_duration(gap)}; its bake goes on"))
        return replace(run, unwatched=run.unwatched + gap)

    def _asked_elsewhere(self, ctx: Context, held: HeldLedger, run: Run) -> Run:
        """The run, whose probes leave from where somebody says now; so they do for whoever goes on with it."""
        place, health = self.probe_from, run.settings.health
        if place is None or run.over or health.probe_from is place:
            return run
        said = replace(run.settings, health=replace(health, probe_from=place, probe_command=()))
        run = replace(run, settings=said, declared_health=run.declared_health or health)
        held.save(ctx, f"{run.kind} {run.candidate}: probe-from is {place}, by somebody's word", run=run)
        return run

    def _rest(self, ctx: Context, held: HeldLedger, run: Run, seconds: float) -> Run:
        """Wait, but not while somebody asks for something."""
        ends = ctx.monotonic() + seconds
        while (left := ends - ctx.monotonic()) > 0:
            ctx.sleep(min(left, self.limits.listen))
            heard = self.listen(ctx, held, run)
            if heard is not run:
                return heard
        return run

    def _taken(self, ctx: Context, held: HeldLedger, observer: Observer, before: Run, step: Step) -> Run:
        """Save a step if it changed the run, with what it means for slots and traffic, and tell of it."""
        run = step.run
        if run == before:
            return run
        self.caller.keep(ctx, run.calling)
        if run.stage is Stage.CLEAN_UP and run.verdict is not Outcome.SUCCEEDED and not run.evidence:
            # Traffic is where it should be; now there is time to keep what tells why.
            run = replace(run, evidence=observer.evidence(ctx, run))
        passed = run.stages[len(before.stages) :]
        self.caller.tell(ctx, before, run)
        _tell(ctx, run, passed, run.gates[len(before.gates) :])
        changes = dict(consequences(ctx.now(), held.head, run))
        place = held.head.place
        if place is not None and passed and run.stage in (Stage.BOOT, Stage.BAKE):
            # Backends are made before boot, the route's rule by the first shift.
            changes["place"] = self.executor.place(place.route, self.executor.cloud.router.observe(ctx, place.route))
        run = run.having_made(self._made)
        held.save(ctx, f"{run.kind} {run.candidate}: {run.stage}", run=run, **changes)
        self._made.clear()
        return run

    def _act(self, ctx: Context, held: HeldLedger, route: Route, run: Run, action: Action) -> Run:
        """Carry an action out. A final no ends the run; a passing one is met again at the next look."""
        if isinstance(action, CallHook):
            self.caller.call(ctx, run, route, action.call)
            return run
        slots = held.head.slots
        if isinstance(action, RemoveGroup):
            self._forget(ctx, held, action.name)
        try:
            self.executor.perform(ctx.reporting_to(self._noting(ctx)), held, route, run, action)
            if isinstance(action, UnmakeRoute):
                # Nothing that a look sees tells that all of it is gone.
                run = replace(run, tally=replace(run.tally, unmade=True))
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
            failed = fail(run, ctx.now(), f"{REFUSED}{error}")
            return self._taken(ctx, held, self.executor.observer(route), run, Step(failed))
        return run

    def _noting(self, ctx: Context) -> Reporter:
        """Reports on, and keeps what changes the place."""

        def report(event: Event) -> None:
            if isinstance(event, CloudCall) and event.mutating:
                took = round(event.seconds * 1000)
                self._made.append(CallMade(ctx.now(), event.service, event.operation, took, event.error))
            ctx.report(event)

        return report

    def _forget(self, ctx: Context, held: HeldLedger, group: str) -> None:
        """A slot whose group is about to go has nothing to be gone back to."""
        slots = {slot: record for slot, record in held.head.slots.items() if record.group != group}
        if len(slots) < len(held.head.slots):
            held.save(ctx, f"{group} is taken away", slots=slots)

    def listen(self, ctx: Context, held: HeldLedger, run: Run) -> Run:
        """The run, once what people have asked of it since the last look was heard."""
        now = ctx.monotonic()
        if self._deaf or (self.listened is not None and now - self.listened < self.limits.listen):
            return run
        self.listened = now
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


def _without_warm(seen: Observation, run: Run, head: Head) -> Observation:
    """What a clean-up sees, but for what a slot has: that is warm, and stays. What becomes of the stable release's
    group, the run knows."""
    known = {record.group for record in head.slots.values()}
    if seen.occupant is not None and seen.occupant.name in known:
        seen = replace(seen, occupant=None)
    if run.stable is None and seen.left_behind is not None and seen.left_behind.name in known:
        seen = replace(seen, left_behind=None)
    return seen


def _with_awaited(step: Step, now: datetime) -> Step:
    """The step, with what a person has to do written down where somebody is told of that."""
    if not step.run.settings.notify:
        return step
    awaited = step.run.awaits(now) if step.for_person else ""
    return step if step.run.awaited == awaited else replace(step, run=replace(step.run, awaited=awaited))


def _traffic_first(run: Run, step: Step) -> bool:
    """Whether others may be told now: where traffic goes back, not before it does."""
    if not run.returning or run.stage in (Stage.BAKE, Stage.CLEAN_UP, Stage.DONE):
        return True
    return run.stage in (Stage.SHIFT, Stage.REVERT) and bool(run.moves) and step.action is None


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
    return GateJudged(f"{gate.gate} (dry run)" if gate.dry_run else gate.gate, gate.answer, gate.seen)
