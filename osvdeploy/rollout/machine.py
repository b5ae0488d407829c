"""The rollout as a pure function: given the run and what was seen, what now?

No cloud, no clock, no random number. An action repeats until the cloud shows its effect, so a manager that dies
between saving a stage and acting on it loses nothing; and what is counted in :class:`~osvdeploy.rollout.model.Tally`
may be forgotten at any time, at the price of counting again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime

from osvdeploy.rollout.gates import Verdict
from osvdeploy.rollout.model import (
    UNREACHED,
    Answer,
    GateView,
    GiveRouteBack,
    HandScalingOver,
    Kind,
    Limits,
    Observation,
    Outcome,
    Pause,
    PauseScaling,
    RemoveGroup,
    ResumeScaling,
    Run,
    SetWeights,
    Stage,
    StartCandidate,
    Step,
    Tally,
    UnmakeRoute,
    WireSlots,
)
from osvdeploy.rollout.releases import Health, OnFailure
from osvdeploy.rollout.turns import heard, with_hooks
from osvdeploy.sizes import format_duration

_LOOKS_THAT_LAST = 60
SECOND = 0.8
"""Seconds between looks, so that with its own time a look sees within a second."""


def advance(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step:
    """Decide one step of a rollout.

    Stages on the way up that this very observation already settles are passed at once (a warm rollback goes from
    prepare to shift on its first look); a step with neither action nor wait asks for another look.
    """
    if run.tally.since is None:
        run = replace(run, tally=replace(run.tally, since=now))
    if run.entered > now:
        # By another host's clock. A bake is not to last for as long as that is ahead.
        run = replace(run, entered=now)
    if run.abort is not None and run.verdict is None and run.stage not in (Stage.CLEAN_UP, Stage.DONE):
        return Step(fail(_as_measured(run, seen, now), now, run.abort))
    run, broken = heard(run, seen, now)
    if broken:
        return _failed(run, seen, limits, now, "", broken)
    while True:
        step = with_hooks(run, _STAGES[run.stage](run, seen, limits, now), seen, limits, now)
        passed = step.run.stage is not run.stage and step.run.stage in (Stage.BOOT, Stage.VERIFY, Stage.SHIFT)
        if not passed or step.action is not None or step.wait:
            return step
        run = step.run


def fail(run: Run, now: datetime, reason: str) -> Run:
    """The run on its way back: to revert if traffic may have moved and a stable release is there, else to clean-up."""
    if run.abort is not None:
        verdict = Outcome.ABORTED
    elif run.stable is None:
        verdict = Outcome.FAILED
    elif run.kind is Kind.ROLLBACK:
        verdict = Outcome.ROLLBACK_FAILED
    else:
        verdict = Outcome.ROLLED_BACK
    somewhere = run.stable is not None or run.kind is Kind.ADOPT
    back = Stage.REVERT if run.shifted is not None and somewhere else Stage.CLEAN_UP
    return replace(run, verdict=verdict, reason=reason).enter(back, now, reason)


def _failed(run: Run, seen: Observation, limits: Limits, now: datetime, gate: str | GateView, reason: str) -> Step:
    """A failure while traffic moves, judged by ``gate`` ("" for none): on the way back, or to whoever is to decide."""
    asks = run.settings.strategy.on_failure is OnFailure.PAUSE and run.shifted is not None
    if not asks:
        decides = gate.gate.name if isinstance(gate, GateView) else ""
        run = _as_measured(run, seen, now, but=decides)
        return Step(fail(_with_record(run, now, gate, reason), now, reason))
    # What was counted so far has had its answer; counted anew, it neither hurries nor hinders whoever resumes.
    idle = replace(run, tally=Tally(since=now))
    if run.paused is None:
        idle = replace(_with_record(idle, now, gate, reason), paused=Pause("osvdeploy", now, reason))
    return Step(idle, None, limits.bake_poll, idle.awaits(now), for_person=True)


def _with_record(run: Run, now: datetime, gate: str | GateView, reason: str) -> Run:
    if isinstance(gate, GateView):
        return run.recorded(gate, now)
    return run.judged(gate, False, now, reason) if gate else run


def _as_measured(run: Run, seen: Observation, now: datetime, *, but: str = "") -> Run:
    """The run whose bake ends before its time, with what its metric gates have counted so far on record: each that has
    samples and is not there yet, as it stands. ``but``: the one that decides."""
    run, since = run.keeping(seen.readings), run.measured_since or run.entered
    there = {but, *(record.gate for record in run.gates if record.at > since)}
    for view in gate_views(run, seen):
        if view.gate.name not in there and (view.candidate or view.stable):
            run = run.recorded(view, now)
    return run


def _prepare(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step:
    weight = seen.weights.get(run.slot, 0) if seen.weights is not None else 0
    if weight > 0 and (run.stable is not None or seen.occupant is not None):
        return Step(fail(run, now, f"slot {run.slot} was to take {run.candidate}, but carries traffic already"))
    if _late(run, now, limits.prepare):
        return Step(fail(run, now, f"the {run.slot} slot was not ready after {format_duration(limits.prepare)}"))
    wait = _soon(run, limits, now)
    if not seen.wired:
        return Step(run, WireSlots(), wait, "both slots to be wired up")
    if seen.occupant is not None:
        who = seen.occupant.release or seen.occupant.name
        if not seen.occupant.deleting and seen.idle_since is not None:
            under_way = max(limits.drain, limits.late if seen.partial else 0.0)
            if (left := under_way - _since(run, seen.idle_since, now)) > 0:
                return _draining(run, who, left)
        action = None if seen.occupant.deleting else RemoveGroup(seen.occupant.name)
        return Step(run, action, wait, f"{who} to leave slot {run.slot}")
    if seen.candidate is not None and seen.candidate.deleting:
        return Step(run, None, wait, f"an earlier group of {run.candidate} to be gone")
    run = _as_large(run, seen)
    if seen.candidate is None or seen.candidate.capacity < run.capacity:
        told = f"{run.capacity} machines of {run.candidate} to be started"
        if run.kind is Kind.ADOPT:
            told = f"{run.group} to stand in slot {run.slot}"
        return Step(run, StartCandidate(), wait, told)
    machines = f"{seen.candidate.capacity} machines"
    told = f"{machines} asked for in slot {run.slot}"
    if run.kind is Kind.ADOPT or run.warm:
        told = f"{run.group} stands in slot {run.slot}, with {machines}"
    return Step(run.enter(Stage.BOOT, now, told))


def _boot(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step:
    if seen.boot_faults:
        faults = "; ".join(seen.boot_faults)
        return Step(fail(run.judged("boot log", False, now, faults), now, f"boot log: {faults}"))
    if seen.targets is None:
        return Step(run)
    if seen.candidate is None or seen.candidate.deleting:
        return Step(replace(run, warm=False).enter(Stage.PREPARE, now, f"the group of {run.candidate} is gone"))
    run = _as_large(run, seen)
    health = run.settings.health
    standing = f"{seen.healthy} of {run.capacity} healthy"
    if seen.healthy >= run.capacity:
        since = run.tally.ready_since or now
        if run.warm or _between(since, now) >= health.min_ready:
            told = f"{standing} for {format_duration(_between(since, now))}" if not run.warm else f"{standing}, warm"
            return Step(run.judged("healthy targets", True, now, told).enter(Stage.VERIFY, now, told))
        run = replace(run, tally=replace(run.tally, ready_since=since))
        left = health.min_ready - _between(since, now)
        wait = min(limits.poll, SECOND, max(left, 0.05))
        return Step(run, None, wait, f"{standing}; to stay so for {format_duration(health.min_ready)}")
    run = replace(run, tally=replace(run.tally, ready_since=None))
    if _late(run, now, health.boot_timeout):
        reason = f"{standing} after {format_duration(health.boot_timeout)}: {_describe(run, seen)}"
        return Step(fail(run.judged("healthy targets", False, now, reason), now, reason))
    return Step(run, None, _soon(run, limits, now), f"{standing}: {_describe(run, seen)}")


def _verify(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step:
    if run.settings.health.counted:
        if seen.targets is None:
            return Step(run)
        if seen.healthy < run.capacity:
            return Step(run.enter(Stage.BOOT, now, f"only {seen.healthy} of {run.capacity} are healthy any more"))
        told = f"{seen.healthy} healthy by the balancer's own checks; nothing was asked (probe-from): the weaker proof"
        return Step(run.judged("preview", True, now, told).enter(Stage.SHIFT, now, told))
    if seen.preview is None:
        return Step(run)
    # Preview rules are made once, or with each rollout where the place says so.
    new = limits.late if run.stable is None else limits.spread
    most = 3 * limits.bad_answers
    run = _count(run, seen.preview, {run.candidate}, forgive_unnamed=_worked(run, now) < new, enough=most)
    if run.tally.good >= limits.preview_answers:
        told = f"{run.tally.good} answers from slot {run.slot}, the last: {run.tally.last}"
        return Step(run.judged("preview probe", True, now, told).enter(Stage.SHIFT, now, told))
    if run.tally.bad >= most or _late(run, now, limits.verify + new):
        reason = f"preview probe of slot {run.slot}: {run.tally.last}{_unreached(run)}"
        return Step(fail(run.judged("preview probe", False, now, reason), now, reason))
    return Step(
        run, None, _soon(run, limits, now), f"{run.candidate} to answer in slot {run.slot}; last: {run.tally.last}"
    )


def _shift(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step:
    wanted = run.weights(run.steps[run.step].weight)
    run, broken = _watch(run, seen, limits, now)
    if broken:
        return _failed(run, seen, limits, now, "traffic", broken)
    if not seen.sends(wanted) and run.shifted is None and seen.targets is not None and seen.healthy < run.capacity:
        return Step(run.enter(Stage.BOOT, now, f"only {seen.healthy} of {run.capacity} are healthy any more"))
    if not seen.sends(wanted) and seen.targets is not None and seen.healthy < run.capacity:
        # Decided by somebody who died before it was done. For how long it is borne, _watch says.
        return Step(run, None, limits.quick_poll, f"{seen.healthy} of {run.capacity} healthy: no share before that")
    if not seen.sends(wanted) and run.grows > 0 and seen.live is not None:
        run = _count(run, seen.live, {run.candidate, run.stable or run.candidate}, enough=limits.bad_answers)
        if run.tally.bad >= limits.bad_answers:
            reason = f"{run.tally.bad} bad answers in a row through the balancer: {run.tally.last}"
            return _failed(run, seen, limits, now, "traffic", reason)
    if not seen.sends(wanted) and (awaited := run.awaits(now)):
        # Limits count from when it may go on.
        idle = replace(run, tally=Tally(since=now, leaving=run.tally.leaving, bad=run.tally.bad))
        return Step(idle, None, limits.bake_poll, awaited, for_person=True)
    if not seen.sends(wanted) and run.shifted is not None and (more := _grown(run, seen, limits, now)) is not None:
        return more
    if _late(run, now, limits.shift + (limits.counted if run.settings.health.counted else 0.0)):
        if run.kind is Kind.ROLLBACK and seen.sends(wanted) and _uncounted(run, seen):
            told = f"{seen.healthy} healthy, and the rule sends all there; {_UNCOUNTED}"
            return Step(run.judged("traffic", True, now, told).enter(Stage.BAKE, now, told))
        reason = f"the switch to {run.candidate} was not proved after {format_duration(limits.shift)}: {run.tally.last}"
        return _failed(run, seen, limits, now, "", reason + _unreached(run))
    if not seen.sends(wanted):
        if seen.targets is None:
            return Step(run)
        if (first := _before_shift(run, seen, limits, now)) is not None:
            return first
        run = _afresh(run, seen)
        unwell = run.tally.leaving if seen.leaving is None else not seen.leaving.well
        moved = run.moved(run.steps[run.step].weight, now)
        moved = replace(moved, shifted=run.shifted or now, tally=Tally(since=run.tally.since, leaving=unwell))
        wait = _soon(run, limits, now)
        return Step(moved, SetWeights(wanted), wait, f"{run.steps[run.step].weight} % on slot {run.slot}")
    if run.settings.health.counted:
        proved, told = _by_requests(seen, run.candidate, whole=run.steps[run.step].weight == 100)
        run = replace(run, tally=replace(run.tally, last=told))
        if not proved:
            return Step(run, None, limits.bake_poll, f"requests of {run.candidate} to be counted; last: {told}")
        return Step(run.judged("traffic", True, now, told).enter(Stage.BAKE, now, told))
    if seen.live is None:
        return Step(run)
    whole = run.steps[run.step].weight == 100
    allowed = {run.candidate} if whole or run.stable is None else {run.candidate, run.stable}
    # A rule that was just made is not in force at every entry point yet: until then the listener's default action
    # answers, and its refusals say nothing about the first release. Likewise what answered badly before the switch goes
    # on doing so where it is not in force yet; a rollback is mostly one from such a release.
    leaving = (run.kind is Kind.ROLLBACK or run.tally.leaving) and _worked(run, now) < limits.settle
    forgiven = run.stable is None or leaving
    run = _count(run, seen.live, allowed, forgive_unnamed=forgiven, enough=limits.bad_answers)
    if run.tally.bad >= limits.bad_answers:
        reason = f"{run.tally.bad} bad answers in a row through the balancer: {run.tally.last}{_unreached(run)}"
        return _failed(run, seen, limits, now, "traffic", reason)
    # Who had a share before answers in any case: that the rest has moved too, only time and many answers show.
    lasting = limits.lasting if whole and run.step > 0 else 0.0
    if run.tally.good < limits.proof_answers or not _settled(run, run.settings.health, limits, now, lasting=lasting):
        run = replace(run, tally=replace(run.tally, ready_since=run.tally.ready_since or now))
        weight = run.steps[run.step].weight
        wait = _until_proved(run, limits, _lasting(run.settings.health, limits, lasting), limits.quick_poll)
        proving = _proving(run.settings.health, limits, lasting)
        return Step(run, None, wait, f"{proving} {weight} % on slot {run.slot}; last: {run.tally.last}")
    told = f"{run.tally.good} answers in a row through the balancer, the last: {run.tally.last}"
    if run.settings.health.version_header is None:
        told += " (no version header: the weaker proof)"
    return Step(run.judged("traffic", True, now, told).enter(Stage.BAKE, now, told))


_SILENT = 2
"""Minutes without any request, on either side, after which no more is waited for."""


_UNCOUNTED = "requests could not be counted, and that keeps nobody from going back (the weakest proof)"


def _uncounted(run: Run, seen: Observation) -> bool:
    """Whether a switch of healthy machines lacks nothing but numbers of a source that gives none."""
    standing = seen.targets is not None and seen.healthy >= run.capacity
    return run.settings.health.counted and seen.requests is None and standing


def _by_requests(seen: Observation, release: str | None, *, whole: bool, back: bool = False) -> tuple[bool, str]:
    """Whether what the place has counted since a switch proves it, and in words. ``whole``: nobody else is to have any;
    ``back``: it is the stable release that is to have them."""
    counted = seen.requests
    if counted is None:
        return False, "nothing is counted yet"
    own, others = (counted.stable, counted.candidate) if back else (counted.candidate, counted.stable)
    weaker = "(nothing was asked, probe-from: the weaker proof)"
    told = f"{own} requests to {release} in a minute, {others} to the other slot"
    if own and not (whole and others):
        return True, f"{told} {weaker}"
    if counted.silent >= _SILENT:
        return True, f"no requests in {counted.silent} minutes, on either side; the rule alone says so {weaker}"
    return False, told


def _unreached(run: Run) -> str:
    """What to do where no probe of this process was ever answered."""
    if run.tally.unreached <= 0:
        return ""
    told = f"; {UNREACHED}. Where the balancer cannot be reached from here, "
    if run.returning and run.settings.preview_header:
        return f"{told}`osvdeploy rollback --probe-from requests` goes by what the balancer counts, docs/probes.md"
    return f"{told}say where probes leave from: `probe-from`, docs/probes.md"


def _before_shift(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step | None:
    """What is to be done about the stable group's scaling before traffic leaves it, the first or more; None where
    nothing is.

    A group that loses its load is made smaller just when it may have to take it back. A rollback pauses nothing: it
    moves everything at once, is proved within a minute, and must not depend on one call more.
    """
    if not seen.stable_seen:
        # That takes another look: what leads here (a bake, a hook that is through) comes without.
        return Step(run)
    if seen.scaling is None:
        return None
    if run.kind is Kind.DEPLOY and not seen.scaling.paused:
        # What it is at the switch counts, and not what it was when the run began; it is saved before it is changed.
        return Step(_afresh(run, seen), PauseScaling(), _soon(run, limits, now), f"{run.stable} to keep its size")
    if run.shifted is None and not run.warm and (more := _outnumbering(run, seen)):
        grown = replace(run, capacity=more)
        return Step(grown.enter(Stage.PREPARE, now, f"{run.stable} has {grown.capacity} machines by now"))
    return None


def _outnumbering(run: Run, seen: Observation) -> int:
    """How many machines stable is to have, where those are more than the candidate's; else 0. Where nothing makes them
    more by itself, the spec may say fewer: then it is what was added since the run began."""
    there = seen.scaling
    if there is None or there.desired <= run.capacity:
        return 0
    return there.desired if there.moves or there.desired > run.stable_size else 0


def _afresh(run: Run, seen: Observation) -> Run:
    """The run with what scales stable right before a share, and not as it was when the run began: who raises a maximum
    meanwhile lets stable grow beyond the old one, and the candidate with it."""
    there = seen.unpaused
    if run.shifted is None and seen.scaling is not None and not seen.scaling.paused:
        # Nothing was paused by us yet: what is suspended of it was by somebody else.
        there = seen.scaling
    if there is None or (run.scaling is None and there.fixed):
        return run
    if run.owed and run.scaling is not None and (there.fixed or set(there.parts) < set(run.scaling.parts)):
        return replace(run, scaling=replace(run.scaling, desired=there.desired))
    return replace(run, scaling=there, owed=False)


def _grown(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step | None:
    """What is to be done where stable has grown while it shared traffic, before the candidate gets more of it; None for
    nothing. What the candidate has it keeps meanwhile, and is asked as in a bake."""
    if run.kind is not Kind.DEPLOY:
        return None
    wait, more = _soon(run, limits, now), _outnumbering(run, seen)
    if seen.scaling is not None and run.grows > max(run.capacity, more):
        # Its load has gone down again.
        fewer_now = replace(run, grows=more, tally=replace(run.tally, since=now))
        return Step(fewer_now, None, limits.quick_poll, f"{run.stable} has {seen.scaling.desired} again")
    if more > max(run.capacity, run.grows):
        run = replace(run, grows=more, tally=replace(run.tally, since=now))
        return Step(run, StartCandidate(), wait, f"{run.grows} machines, as many as {run.stable} has by now")
    if run.grows <= run.capacity:
        return None
    standing = f"{seen.healthy} of {run.grows} healthy"
    if seen.targets is not None and seen.healthy >= run.grows:
        told = f"{standing}, as many as {run.stable} has"
        run = replace(run, capacity=run.grows, grows=0, tally=Tally(since=now, leaving=run.tally.leaving))
        return Step(run.judged("healthy targets", True, now, told))
    if _late(run, now, run.settings.health.boot_timeout):
        reason = f"{standing} after {format_duration(run.settings.health.boot_timeout)}"
        reason += f": {_describe(run, seen)}"
        return _failed(run, seen, limits, now, "healthy targets", reason)
    small = seen.candidate is not None and seen.candidate.capacity < run.grows
    return Step(run, StartCandidate() if small else None, wait, f"{standing}, as many as {run.stable} has")


def _settled(run: Run, health: Health, limits: Limits, now: datetime, *, lasting: float = 0.0) -> bool:
    """An answer that names its release proves the switch; without, only time can. ``lasting``: how many seconds good
    answers must last all the same."""
    needed = _lasting(health, limits, lasting)
    since = run.tally.ready_since
    return needed <= 0 or (since is not None and _between(since, now) >= needed)


def _lasting(health: Health, limits: Limits, lasting: float) -> float:
    return lasting if health.version_header is not None else max(lasting, limits.settle)


def _proving(health: Health, limits: Limits, lasting: float) -> str:
    """What is waited for, and for how long where time is part of the proof: nobody is to wonder at good answers."""
    needed = _lasting(health, limits, lasting)
    return f"answers for {format_duration(needed)} to prove" if needed else "answers to prove"


def _until_proved(run: Run, limits: Limits, needed: float, wait: float) -> float:
    """Seconds to the next look at answers. Where there are enough and only time is missing (``needed`` seconds of good
    ones), some hundred more of them show what was a run of luck: each look has several, and costs calls."""
    enough = run.tally.good >= limits.proof_answers
    return max(wait, SECOND, needed / _LOOKS_THAT_LAST) if enough and needed else wait


def _bake(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step:
    step, bake = run.steps[run.step], run.bake
    last = run.step == len(run.steps) - 1
    run, broken = _watch(run, seen, limits, now)
    if not broken and not seen.sends(run.weights(step.weight)):
        # One look may be a stale one.
        run = replace(run, tally=replace(run.tally, odd=run.tally.odd + 1))
        if run.tally.odd < 2:
            return Step(run, None, limits.quick_poll, f"{_weights(seen)}: to be seen again")
        what = "rule was" if seen.changed else "weights were"
        broken = f"the {what} changed by somebody else: {_weights(seen)}"
    if not broken and (seen.live is not None or run.settings.health.counted):
        run = replace(run, tally=replace(run.tally, odd=0))
    if not broken and seen.live is not None:
        serving = {run.candidate, run.stable} if run.stable else {run.candidate}
        run = _count(run, seen.live, serving, enough=limits.bad_answers)
        if run.tally.bad >= limits.bad_answers:
            broken = f"{run.tally.bad} bad answers in a row through the balancer: {run.tally.last}"
        # Counted by looks, as nobody may have looked for long; and what stable answers badly is being left.
        badly, since = (run.tally.badly + 1, run.tally.badly_since or now) if run.tally.bad else (0, None)
        run = replace(run, tally=replace(run.tally, badly=badly, badly_since=since))
        lasts = since is not None and _between(since, now) > limits.shift
        if not broken and lasts and badly * limits.bake_poll > limits.shift:
            # One of a few machines, always asked in the same order: a bake that waits for a good end has none.
            broken = f"{run.tally.badly} looks in a row ended with a bad answer: {run.tally.last}"
    if broken:
        return _failed(run, seen, limits, now, "bake", broken)
    run = run.keeping(seen.readings)
    views = gate_views(run, seen)
    deciding = {view.judgement.verdict: view for view in reversed(views) if not view.gate.dry_run}
    if (failed := deciding.get(Verdict.FAILED)) is not None:
        return _failed(run, seen, limits, now, failed, f"gate {failed.gate.name}: {failed.judgement.told}")
    if run.paused is not None:
        return Step(run, None, limits.bake_poll, run.awaits(now), for_person=True)
    left = bake - run.baked_for(now)
    # However long the run was left alone: it is good when it is seen to be good.
    if run.settings.health.counted and seen.targets is not None and seen.healthy >= run.capacity:
        run = replace(run, tally=replace(run.tally, good=1))
    if left > 0 or run.tally.good == 0:
        wait = min(limits.bake_poll, max(left, limits.quick_poll))
        return Step(run, None, wait, f"the end of {format_duration(bake)} of baking")
    undecided = [view for view in views if view.judgement.verdict is Verdict.UNDECIDED and not view.gate.dry_run]
    if undecided:
        told = "; ".join(f"gate {view.gate.name}: {view.judgement.told}" for view in undecided)
        return Step(run, None, limits.bake_poll, f"metrics to decide; {told}")
    if (unclear := deciding.get(Verdict.INCONCLUSIVE)) is not None:
        why = f"gate {unclear.gate.name} is inconclusive: {unclear.judgement.told}"
        asked = replace(run.recorded(unclear, now), paused=Pause("osvdeploy", now, why))
        return Step(asked, None, limits.bake_poll, asked.awaits(now), for_person=True)
    if awaited := run.awaits(now):
        return Step(run, None, limits.bake_poll, awaited, for_person=True)
    for view in views:
        run = run.recorded(view, now)
    if not last:
        word = f"held for {format_duration(bake)}" if bake else "proved"
        return Step(replace(run, step=run.step + 1).enter(Stage.SHIFT, now, f"{step.weight} % {word}"))
    done = replace(run, verdict=Outcome.SUCCEEDED)
    return Step(done.enter(Stage.CLEAN_UP, now, f"baked for {format_duration(bake)}" if bake else "proved"))


def gate_views(run: Run, seen: Observation) -> tuple[GateView, ...]:
    """How each metric gate of the present stage stands."""
    return tuple(run.view(gate, seen.readings.get(gate.name)) for gate in run.gated)


def _revert(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step:
    if run.kind is Kind.ADOPT:
        return _give_back(run, seen, limits, now)
    if run.stable_gone:
        return _nowhere_back(run, seen, limits, now)
    wanted = run.weights(0)
    if _worked(run, now) > limits.revert + (limits.counted if run.settings.health.counted else 0.0):
        if seen.sends(wanted) and run.settings.health.counted and seen.requests is None:
            return Step(run.enter(Stage.CLEAN_UP, now, f"the rule sends all to {run.stable}; {_UNCOUNTED}"))
        reason = f"{run.reason}; then traffic could not be proved back on {run.stable}"
        reason += f": {run.tally.last or _weights(seen)}{_unreached(run)}"
        return Step(replace(run, verdict=Outcome.ROLLBACK_FAILED, reason=reason).enter(Stage.DONE, now, reason))
    wait = _soon(run, limits, now)
    if not seen.sends(wanted):
        # What was seen to be gone is not taken to stand because nobody could look again.
        if seen.stable_gone or (seen.stable_gone is None and run.tally.odd):
            return _gone(run, limits, now)
        fresh = replace(run.moved(0, now), tally=Tally(since=run.tally.since, asked_back=True))
        return Step(fresh, SetWeights(wanted), wait, f"traffic back on {run.stable}")
    if run.settings.health.counted:
        proved, told = _by_requests(seen, run.stable, whole=True, back=True)
        run = replace(run, tally=replace(run.tally, last=told))
        if not proved:
            return Step(run, None, limits.bake_poll, f"requests of {run.stable} to be counted; last: {told}")
        return Step(run.enter(Stage.CLEAN_UP, now, told))
    if seen.live is None:
        return Step(run)
    health = run.stable_health or run.settings.health
    run = _count(run, seen.live, {run.stable} if run.stable else set(), named=health.version_header is not None)
    # As for a last share. And a switch that nobody has seen in force comes into force before what takes it back does:
    # until then stable answers everywhere, and clients are yet to come to the candidate.
    in_force = bool(run.stages) and run.stages[-1].stage is Stage.BAKE
    lasting = limits.lasting if in_force else max(limits.lasting, limits.late)
    if run.tally.good < limits.proof_answers or not _settled(run, health, limits, now, lasting=lasting):
        run = replace(run, tally=replace(run.tally, ready_since=run.tally.ready_since or now))
        wait = _until_proved(run, limits, _lasting(health, limits, lasting), wait)
        proving = _proving(health, limits, lasting)
        return Step(run, None, wait, f"{proving} {run.stable} serves; last: {run.tally.last}")
    return Step(run.enter(Stage.CLEAN_UP, now, f"{run.tally.good} answers from {run.stable} in a row"))


def _gone(run: Run, limits: Limits, now: datetime) -> Step:
    """The stable release's machines are not there, by one look or by two. Decided, it is saved before anything else."""
    told = f"the machines of {run.stable} are gone"
    run = replace(run, tally=replace(run.tally, odd=run.tally.odd + 1))
    if run.tally.odd < 2:
        # One look may be a stale one.
        return Step(run, None, limits.quick_poll, f"{told}: to be seen again")
    reason = f"{run.reason}; then {told}" if run.verdict is not Outcome.SUCCEEDED else run.reason
    verdict = run.verdict if run.verdict is Outcome.SUCCEEDED else Outcome.ROLLBACK_FAILED
    if run.shifted is None and verdict is not Outcome.SUCCEEDED:
        # It was somebody else who sent traffic to the candidate's slot, whatever stands there.
        left = replace(run, verdict=verdict, reason=f"{reason}: all is left as it is")
        return Step(left.enter(Stage.DONE, now, left.reason))
    return Step(replace(run, stable_gone=True, verdict=verdict, reason=reason))


def _nowhere_back(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step:
    """Traffic stays where it is, and the part of it that nobody takes any more goes there too: whoever answers badly is
    better than nobody who answers."""
    wanted = run.weights(100)
    if seen.weights is not None and not seen.sends(wanted) and _worked(run, now) <= limits.revert:
        moved = replace(run.moved(100, now), tally=run.tally)
        return Step(moved, SetWeights(wanted), _soon(run, limits, now), f"all traffic on {run.candidate}, which stands")
    return Step(run.enter(Stage.DONE, now, run.reason))


def _give_back(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step:
    """Traffic back to the rule that had it before an adoption. Whose answers they are, nobody says: it is the same
    machines either way."""
    if _worked(run, now) > limits.revert:
        reason = f"{run.reason}; then traffic could not be proved back where it was: {run.tally.last or _weights(seen)}"
        return Step(replace(run, verdict=Outcome.ROLLBACK_FAILED, reason=reason).enter(Stage.DONE, now, reason))
    wait = _soon(run, limits, now)
    if seen.weights is not None:
        fresh = replace(run.moved(0, now), tally=Tally(since=run.tally.since))
        return Step(fresh, GiveRouteBack(), wait, "traffic back where it was")
    lasting = max(limits.settle, limits.late, limits.lasting)
    if run.settings.health.counted:
        # Nobody is asked from here, and what is not behind a slot is counted by nobody of ours: only time tells.
        since = run.tally.ready_since or now
        run = replace(run, tally=replace(run.tally, ready_since=since))
        if _between(since, now) < lasting:
            return Step(run, None, limits.bake_poll, "traffic to be where it was, which takes its time")
        return Step(run.enter(Stage.CLEAN_UP, now, f"the route's rule is gone for {format_duration(lasting)}"))
    if seen.live is None:
        return Step(run)
    run = _count(run, seen.live, set(), named=False)
    if run.tally.good < limits.proof_answers or run.tally.ready_since is None:
        run = replace(run, tally=replace(run.tally, ready_since=run.tally.ready_since or now))
        return Step(run, None, _until_proved(run, limits, lasting, wait), f"good answers; last: {run.tally.last}")
    if _between(run.tally.ready_since, now) < lasting:
        return Step(run, None, _until_proved(run, limits, lasting, wait), f"good answers; last: {run.tally.last}")
    return Step(run.enter(Stage.CLEAN_UP, now, f"{run.tally.good} good answers in a row"))


def _as_large(run: Run, seen: Observation) -> Run:
    """An adopted group has as many machines as it has: whatever scales it goes on meanwhile."""
    there = seen.candidate.capacity if run.kind is Kind.ADOPT and seen.candidate is not None else 0
    return replace(run, capacity=there) if there else run


def _is_held(run: Run, seen: Observation) -> bool:
    """Whether stable keeps its size by us."""
    if run.scaling is None or seen.scaling is None or not seen.held:
        return False
    if run.kind is Kind.DEPLOY and run.shifted is not None:
        return True
    # A part of it that was suspended before ours was due is somebody's.
    return seen.scaling.paused and not run.scaling.paused


def _clean_up(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step:
    late = _worked(run, now) > limits.clean_up
    # What may not be scaled, or never looks as it should, must not keep a rollout from its end.
    given_up = _worked(run, now) > limits.scaling or run.tally.bad >= limits.bad_answers
    if run.verdict is Outcome.SUCCEEDED:
        if run.scaling is not None and not run.scaled:
            if not seen.follows and seen.candidate is not None and not given_up:
                wait = _soon(run, limits, now)
                return Step(run, HandScalingOver(), wait, f"{run.candidate} to be scaled as {run.stable} was")
            run = replace(run, scaled=seen.follows)
        left = seen.left_behind
        # Where nothing served, what stands beside it is what a destroy that was cut off did not come to.
        keep = run.stable is not None and run.kind is Kind.DEPLOY and run.settings.strategy.keep_warm > 0
        if keep and seen.stable_gone and seen.weights == run.weights(100):
            if not run.stable_gone:
                # Taken away by somebody else: there is nothing warm to go back to.
                return _gone(run, limits, now)
            return Step(run.enter(Stage.DONE, now, f"the machines of {run.stable} are gone"))
        if left is None or keep or left.deleting or late:
            return Step(run.enter(Stage.DONE, now, "the old release is kept warm" if keep and left else "cleaned up"))
        old = run.stable or left.release or left.name
        if seen.weights is None or seen.weights.get(run.slot.other, 0) > 0:
            # Whoever gave it weight again knows why; its machines are not ours to take now.
            return Step(run.enter(Stage.DONE, now, f"{old} is left as it is: {_weights(seen)}"))
        if (under_way := _under_way(run, seen, limits, now)) > 0:
            return _draining(run, old, under_way)
        return Step(run, RemoveGroup(left.name), _soon(run, limits, now), f"{old} to be taken away")
    somewhere = run.stable is not None or run.kind is Kind.ADOPT
    if somewhere and seen.weights is not None and seen.weights.get(run.slot, 0) > 0:
        # Capacity that carries traffic is never taken away, whoever sent the traffic there.
        if run.shifted is None and seen.stable_gone:
            # Not this rollout; and where it was, nobody is any more.
            why = f"slot {run.slot} carries traffic, and the machines of {run.stable} are gone: all is left as it is"
            reason = f"{run.reason}; then {why}"
            return Step(replace(run, verdict=Outcome.ROLLBACK_FAILED, reason=reason).enter(Stage.DONE, now, reason))
        return Step(run.enter(Stage.REVERT, now, f"slot {run.slot} carries traffic"))
    held = _is_held(run, seen)
    if seen.occupant is not None and not late:
        # Whoever wrote down that it goes died before it took it away: no slot has it, so nobody else would.
        action = None if seen.occupant.deleting else RemoveGroup(seen.occupant.name)
        return Step(run, action, _soon(run, limits, now), f"{seen.occupant.name}, which is in no slot, to be gone")
    if run.kind is Kind.ADOPT and seen.candidate is None and not run.tally.unmade and not late:
        return Step(run, UnmakeRoute(), _soon(run, limits, now), "what was made for the route to be gone")
    if run.stays_warm and seen.candidate is not None and not seen.candidate.deleting:
        return Step(run.enter(Stage.DONE, now, f"the machines of {run.candidate} are kept warm, as they were"))
    if late or (seen.candidate is None and (given_up or not held)):
        run = replace(run, scaled=run.scaled or (run.scaling is not None and not held))
        return Step(run.enter(Stage.DONE, now, "the candidate's capacity is gone" if not late else "took too long"))
    wait = _soon(run, limits, now)
    if seen.candidate is not None and not seen.candidate.deleting:
        if (under_way := _under_way(run, seen, limits, now)) > 0 and not late:
            if held and not given_up:
                # All of the load is back, and may be more than it was.
                return Step(run, ResumeScaling(), wait, f"{run.stable} to be scaled as before")
            return _draining(run, run.candidate, under_way)
        return Step(run, RemoveGroup(seen.candidate.name), wait, f"the machines of {run.candidate} to be gone")
    if held and not given_up:
        return Step(run, ResumeScaling(), wait, f"{run.stable} to be scaled as before")
    return Step(run, None, wait, f"the machines of {run.candidate} to be gone")


_DRAIN_POLL = 20.0
"""Seconds between looks while there is nothing to be seen; the lease is to be renewed all the same."""


def _under_way(run: Run, seen: Observation, limits: Limits, now: datetime) -> float:
    """Seconds for which requests may still be under way at machines that traffic was taken from. Where clients may
    enter by other ways than those that were asked, new ones may come until the change is in force everywhere."""
    proved = next((each.left for each in reversed(run.stages) if each.stage in (Stage.SHIFT, Stage.REVERT)), None)
    if proved is None or not run.moves or run.stable is None:
        # Nothing else can have taken the traffic from it.
        return 0.0
    left = limits.drain - _since(run, proved, now)
    return max(left, limits.late - _since(run, run.moves[-1].at, now)) if seen.partial else left


def _since(run: Run, then: datetime, now: datetime) -> float:
    """Seconds since what was before this stage; another host's clock may be ahead of ours."""
    return max(_between(then, now), _worked(run, now))


def _draining(run: Run, who: str, left: float) -> Step:
    told = f"requests under way at {who} to end, {format_duration(math.ceil(left))} more"
    return Step(run, None, min(left, _DRAIN_POLL), told)


def _done(run: Run, seen: Observation, limits: Limits, now: datetime) -> Step:
    return Step(run)


_STAGES: dict[Stage, Callable[[Run, Observation, Limits, datetime], Step]] = {
    Stage.PREPARE: _prepare,
    Stage.BOOT: _boot,
    Stage.VERIFY: _verify,
    Stage.SHIFT: _shift,
    Stage.BAKE: _bake,
    Stage.REVERT: _revert,
    Stage.CLEAN_UP: _clean_up,
    Stage.DONE: _done,
}


def _watch(run: Run, seen: Observation, limits: Limits, now: datetime) -> tuple[Run, str]:
    """The candidate's capacity while it takes traffic: the run, and what is wrong ("" for nothing)."""
    if seen.boot_faults:
        return run, "boot log: " + "; ".join(seen.boot_faults)
    if seen.targets is None:
        return run, ""
    if seen.healthy >= run.capacity:
        return replace(run, tally=replace(run.tally, unwell_since=None)), ""
    since = run.tally.unwell_since or now
    run = replace(run, tally=replace(run.tally, unwell_since=since))
    # One machine replaced by its group is no reason to go back; none left is.
    if _between(since, now) >= limits.unwell or (seen.healthy == 0 and since < now):
        return run, f"{seen.healthy} of {run.capacity} healthy: {_describe(run, seen)}"
    return run, ""


def _count(
    run: Run,
    answers: Sequence[Answer],
    allowed: Collection[str],
    *,
    named: bool | None = None,
    forgive_unnamed: bool = False,
    enough: int | None = None,
) -> Run:
    """The tally after these answers; those after ``enough`` bad ones in a row make nothing good.

    Good ones in a row come from ``allowed``, or name nothing where no header is agreed (``named``). One that comes
    from another release starts the count of good ones afresh, and so does an unnamed one while the stable release has
    no such header. A bad one is no healthy answer at all, or names nothing where it should; but never one of the stable
    release, which is what is being left.
    """
    tally = run.tally
    named = run.settings.health.version_header is not None if named is None else named
    stable_is_named = (
        run.stable_health is None or run.stable_health.version_header == run.settings.health.version_header
    )
    for answer in answers:
        if enough is not None and tally.bad >= enough:
            break
        unreached = -1 if answer.reached or tally.unreached < 0 else tally.unreached + 1
        if unreached != tally.unreached:
            tally = replace(tally, unreached=unreached)
        other = named and (answer.release is not None or not stable_is_named) and answer.release not in allowed
        if forgive_unnamed and answer.release is None and (named or not answer.well):
            tally = replace(tally, good=0, bad=0, ready_since=None, last=answer.told)
        elif not answer.well and answer.release is not None and answer.release == run.stable:
            # Where it has a share of the traffic still, that is to be expected.
            shared = run.candidate in allowed and run.stable in allowed
            since = tally.ready_since if shared else None
            tally = replace(tally, good=tally.good if shared else 0, ready_since=since, last=answer.told)
        elif not answer.well:
            tally = replace(tally, good=0, bad=tally.bad + 1, ready_since=None, last=answer.told)
        elif other:
            tally = replace(tally, good=0, bad=0, ready_since=None, last=answer.told)
        elif named and answer.release is None:
            tally = replace(tally, good=0, bad=tally.bad + 1, last=answer.told)
        else:
            tally = replace(tally, good=tally.good + 1, bad=0, last=answer.told)
    return replace(run, tally=tally)


def _describe(run: Run, seen: Observation) -> str:
    """Why capacity is missing, in the place's own words, each once; and how many there are that do not count."""
    group = seen.candidate
    words = [f"{each.state} ({each.reason})" if each.reason else each.state for each in seen.targets or ()]
    words = [word for word in words if word != "healthy"]
    words += (
        [f"machine {machine.state} ({machine.note})" for machine in group.machines if machine.note] if group else []
    )
    words += list(group.troubles) if group else []
    told = ", ".join(dict.fromkeys(words)) or "no machine is registered yet"
    others = f"; {len(seen.strangers)} of others than {run.candidate} in slot {run.slot} do not count"
    return told + (others if seen.strangers else "")


def _weights(seen: Observation) -> str:
    if seen.weights is None:
        return "the route's rule does not exist"
    told = ", ".join(f"{slot} {weight}" for slot, weight in sorted(seen.weights.items()))
    return f"{told}, and it {seen.changed}" if seen.changed else told


def _soon(run: Run, limits: Limits, now: datetime) -> float:
    """Looks often at first, within a second in the first minute, when most boots end, and then less and less: a
    balancer's API is throttled by the account."""
    worked = _worked(run, now)
    return min(limits.poll, max(limits.quick_poll, min(worked / 5, SECOND), worked / 75))


def _worked(run: Run, now: datetime) -> float:
    """How long this process has been at the stage."""
    return _between(run.tally.since, now) if run.tally.since is not None else 0.0


def _late(run: Run, now: datetime, most: float) -> bool:
    """Whether the stage takes too long; what its hooks take is theirs."""
    since = run.tally.hooked or run.tally.since
    return run.calling is None and since is not None and _between(since, now) > most


def _between(since: datetime, now: datetime) -> float:
    return (now - since).total_seconds()
