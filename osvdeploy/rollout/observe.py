"""The manager's eyes: what a stage needs to know of the cloud, in as few calls as it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import (
    Grid,
    Ground,
    GroupState,
    Machine,
    MachineState,
    Measured,
    Metrics,
    ProbeAnswer,
    Prober,
    ProbeRequest,
    Route,
    RouteState,
    Sample,
    Scaling,
    Slot,
    TargetHealth,
)
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, DeadlineExceeded, Interrupted, OsvDeployError, Refused
from osvdeploy.events import Warned
from osvdeploy.osv.console import read_boot_log
from osvdeploy.rollout.gates import Gate, Reading, Verdict
from osvdeploy.rollout.model import Answer, Evidence, Kind, Limits, Observation, Outcome, RequestsSeen, Run, Stage
from osvdeploy.visible import in_a_line

_EVIDENCE = 4096
_ASKED_AGAIN = 30.0
"""Seconds at most until a source that told too little is asked again."""
_CONSOLE_EVERY = 2.0
"""Seconds between two readings of one console."""
_LOOKED_FOR = 3.0
"""Seconds for which a way back asks whether there is anybody to take traffic. A call that is under way then comes to
its own end."""
_MINUTE = 60.0
_MINUTES_READ = 5
_COUNTED_EVERY = 20.0
"""Seconds between two readings of what a place counts by minutes."""
_CONSOLES_READ = 12
"""Newest machines whose consoles are read: a group that replaces a failing machine for ever has ever more."""
_MACHINES_IN_EVIDENCE = 3


@dataclass(frozen=True, slots=True)
class Observer:
    """Looks at one service's route, groups, targets, boot logs and answers."""

    cloud: Ground
    prober: Prober
    route: Route
    limits: Limits
    metrics: Metrics | None = None
    """What metric gates are read from."""
    _readings: dict[str, Reading] = field(default_factory=dict)
    """The last of each metric gate."""
    _consoles: dict[str, tuple[float, str]] = field(default_factory=dict)
    """When each machine's console was last read, and the fault found in it."""
    _counted: dict[str, tuple[float | None, RequestsSeen | None]] = field(default_factory=dict)
    """When requests were read last, and what there was, by the switch that they follow."""
    _blind: set[str] = field(default_factory=set)
    """What could not be read, told once."""
    _machines: dict[str, set[str]] = field(default_factory=dict)
    """The machines that each group was seen to have: whose a machine is does not change."""
    _strangers: set[str] = field(default_factory=set)
    """Those that were looked for in the candidate's group, and are not in it."""

    def look(self, ctx: Context, run: Run) -> Observation:
        """What the run's stage needs. Raises a CloudError where the cloud does not answer."""
        seen = self._look(ctx, run)
        if run.gated:
            seen = replace(seen, readings=self._measure(ctx, run))
        if run.stable_group is None or run.scaled:
            return seen
        if run.stage is Stage.CLEAN_UP and run.scaling is not None:
            if run.verdict is not Outcome.SUCCEEDED:
                return self._with_scaling(ctx, run, run.stable_group, seen)
            return replace(seen, follows=self._follows(ctx, run, run.scaling)) if seen.candidate is not None else seen
        shares = self._shares_next(run, seen)
        if run.stage is Stage.BAKE or (shares and run.kind is Kind.DEPLOY and self._waits(ctx, run, seen)):
            # It is for the share alone, and takes calls of its own.
            return replace(seen, stable_seen=False)
        if not shares:
            return seen
        return self._with_scaling(ctx, run, run.stable_group, seen)

    def _shares_next(self, run: Run, seen: Observation) -> bool:
        """Whether stable is about to lose traffic: each time in a deploy, whatever scales it, since somebody may have
        made it larger by hand; in a rollback, which depends on no call more, the first time where something does."""
        if run.stage is Stage.SHIFT:
            before = not seen.sends(run.weights(run.steps[run.step].weight))
        else:
            before = run.stage is Stage.VERIFY
        return before and (run.kind is Kind.DEPLOY or (run.scaling is not None and run.shifted is None))

    def _waits(self, ctx: Context, run: Run, seen: Observation) -> bool:
        """Whether this look does not lead to a share, as somebody or something is waited for."""
        unproved = seen.preview is not None and not all(answer.well for answer in seen.preview)
        # One that is asked once the share was given is no reason: somebody may have changed the weights since.
        calling = run.calling is not None and run.stage is Stage.VERIFY
        return calling or unproved or bool(replace(run, stage=Stage.SHIFT).awaits(ctx.now()))

    def _with_scaling(self, ctx: Context, run: Run, group: str, seen: Observation) -> Observation:
        there, before = self._scaling(ctx, run, group, run.scaling), run.scaling
        if there is None or before is None:
            return replace(seen, scaling=there, unpaused=there)
        return replace(seen, scaling=there, unpaused=self.cloud.groups.unpaused(there, before))

    def _measure(self, ctx: Context, run: Run) -> dict[str, Reading]:
        """The last reading of each metric gate. One gate at most is read in one look, when its next interval is there:
        a source may take its time, and health is to be looked at meanwhile. Never fails."""
        now = ctx.now()
        for gate in run.gated:
            last = self._readings.get(gate.name)
            self._readings[gate.name] = (
                replace(last, fresh=False)
                if last is not None and last.begin == run.grid(gate).begin
                else Reading(run.grid(gate).begin, 0, run.grid(gate).begin)
            )
        # No way back has a metric in it.
        due = [gate for gate in run.gated if self._due(run, gate, now)] if run.abort is None else []
        if due:
            gate = min(due, key=lambda gate: self._readings[gate.name].at)
            self._readings[gate.name] = self._read(ctx, run, gate)
        return {gate.name: self._readings[gate.name] for gate in run.gated}

    def _due(self, run: Run, gate: Gate, now: datetime) -> bool:
        """Whether a gate's source is to be asked now: one interval more can be read, or what lacked may have come."""
        grid, last = run.grid(gate), self._readings[gate.name]
        readable = gate.readable(grid, now)
        if readable.count > last.count:
            return True
        # What is late is read with the next interval, but for the last.
        lacking = bool(last.trouble) or last.count == grid.count
        waited = (now - last.at).total_seconds() >= min(gate.interval, _ASKED_AGAIN)
        undecided = run.view(gate, last).judgement.verdict is Verdict.UNDECIDED
        return readable.count > 0 and lacking and waited and undecided

    def _read(self, ctx: Context, run: Run, gate: Gate) -> Reading:
        now = ctx.now()
        grid, last = gate.readable(run.grid(gate), now), self._readings[gate.name]
        read = Reading(grid.begin, grid.count, now, last.candidate, last.stable, fresh=True)
        try:
            if self.metrics is None:
                raise Refused(f"{gate.metric.kind}: there is nothing to read it from here")
            here = Measured(self.route, run.slot, run.candidate, run.group)
            candidate = self.metrics.read(ctx, gate.metric, here, grid)
            stable: tuple[Sample, ...] = ()
            if gate.against_stable and run.stable is not None and run.stable_group is not None:
                there = Measured(self.route, run.slot.other, run.stable, run.stable_group)
                stable = self.metrics.read(ctx, gate.metric, there, grid)
            return replace(read, candidate=candidate, stable=stable)
        except (Interrupted, DeadlineExceeded):
            raise
        except OsvDeployError as error:
            self._tell_once(ctx, f"gate {gate.name}: cannot be read: {error}")
            return replace(read, trouble=str(error))

    def _follows(self, ctx: Context, run: Run, scaling: Scaling) -> bool:
        try:
            return self.cloud.groups.follows(ctx, run.group, scaling)
        except Refused as error:
            self._tell_once(ctx, f"cannot see what scales {run.candidate}: {error}")
            return False

    def _scaling(self, ctx: Context, run: Run, group: str, before: Scaling | None) -> Scaling | None:
        """What scales the stable group. To whoever may not look it is as it was when the run began, before traffic
        moves, and paused after that: then it is tried to do what is due, which tells whether that is allowed."""
        try:
            return self.cloud.groups.scaling(ctx, group)
        except Refused as error:
            self._tell_once(ctx, f"cannot see what scales {run.stable}: {error}")
            if before is None:
                return None
            if run.stage is Stage.CLEAN_UP or (run.shifted is not None and run.kind is Kind.DEPLOY):
                return replace(before, paused=True)
            return before if run.kind is Kind.DEPLOY else None

    def _tell_once(self, ctx: Context, told: str, hint: str | None = None) -> None:
        if told not in self._blind:
            self._blind.add(told)
            ctx.report(Warned(told, hint=hint))

    def _look(self, ctx: Context, run: Run) -> Observation:
        match run.stage:
            case Stage.PREPARE:
                return self._prepare(ctx, run)
            case Stage.BOOT:
                return self._boot(ctx, run)
            case Stage.VERIFY:
                state = self.cloud.router.observe(ctx, self.route)
                preview = None if run.settings.health.counted else self._preview(ctx, run, state)
                own, strangers = self._targets(ctx, run, state, run.capacity)
                # What is seen here may be what the switch is decided on.
                seen = self._seen(state, preview=preview, targets=own)
                return replace(seen, strangers=strangers, leaving=self._left(ctx, run, state))
            case Stage.SHIFT | Stage.BAKE:
                return self._traffic(ctx, run)
            case Stage.REVERT:
                state = self.cloud.router.observe(ctx, self.route)
                back = state.weights is None if run.kind is Kind.ADOPT else state.sends(run.weights(0))
                if not back:
                    asks = not run.tally.asked_back and not run.stable_gone
                    gone = self._is_gone(ctx, run.stable_group, run.slot.other) if asks else run.stable_gone
                    return replace(self._seen(state), stable_gone=gone)
                if run.settings.health.counted:
                    return replace(self._seen(state), requests=self._requests(ctx, run))
                return self._seen(state, live=self._live(ctx, run, state))
            case Stage.CLEAN_UP | Stage.DONE:
                return self._clean_up(ctx, run)

    def _is_gone(self, ctx: Context, group: str | None, slot: Slot) -> bool | None:
        """Whether a group has no machine in a slot that could take traffic back; None where that is not told. Nothing
        waits for long to know it."""
        if group is None:
            return False
        try:
            there = self.cloud.groups.observe(ctx.within(_LOOKED_FOR), group)
        except (CloudError, Interrupted, DeadlineExceeded):
            ctx.check()
            return None
        return there is None or there.deleting or there.capacity == 0 or there.tags.get(tags.SLOT) != slot

    def groups(self, ctx: Context) -> dict[str, GroupState]:
        """Every group of the service, by name."""
        owned = self.cloud.groups.owned(ctx, {tags.SERVICE: self.route.service})
        return {group.name: group for group in owned}

    def evidence(self, ctx: Context, run: Run) -> tuple[Evidence, ...]:
        """What to keep of a failing candidate before it is taken away. Never fails: what cannot be had says so."""
        found: list[Evidence] = []
        try:
            state = self.cloud.router.observe(ctx, self.route)
            if run.slot in state.backends:
                if not run.settings.health.counted:
                    answer = self._preview(ctx, run, state, times=1)[0]
                    found.append(Evidence(f"answer from slot {run.slot}", answer.told))
                states = self.cloud.router.health(ctx, self.route, run.slot)
                told = "\n".join(f"{each.machine}: {each.state} {each.reason}".rstrip() for each in states)
                found.append(Evidence(f"targets of slot {run.slot}", told[:_EVIDENCE] or "(none)"))
        except CloudError as error:
            found.append(Evidence(f"slot {run.slot}", f"could not be had: {error}"))
        try:
            for machine in self.cloud.groups.machines(ctx, run.group)[:_MACHINES_IN_EVIDENCE]:
                text = self.cloud.console.read(ctx, machine.id)
                found.append(Evidence(f"console of {machine.id}", text[-_EVIDENCE:] or "(empty)"))
        except CloudError as error:
            found.append(Evidence("consoles", f"could not be had: {error}"))
        return tuple(found)

    def _prepare(self, ctx: Context, run: Run) -> Observation:
        state = self.cloud.router.observe(ctx, self.route)
        groups = self.groups(ctx)
        candidate = groups.get(run.group)
        occupant = _occupant(groups, run, run.slot)
        if not run.warm or candidate is None:
            return self._seen(state, occupant=occupant, candidate=candidate)
        # What stands warm is settled by this one look.
        own, strangers = self._targets(ctx, run, state, run.capacity, candidate)
        preview = None if run.settings.health.counted else self._preview(ctx, run, state)
        seen = self._seen(state, occupant=occupant, candidate=candidate, targets=own, preview=preview)
        return replace(seen, strangers=strangers)

    def _boot(self, ctx: Context, run: Run) -> Observation:
        state = self.cloud.router.observe(ctx, self.route)
        candidate = self.cloud.groups.observe(ctx, run.group)
        own, strangers = self._targets(ctx, run, state, run.capacity, candidate)
        faults = self._boot_faults(ctx, run) if _healthy(own) < run.capacity else ()
        return Observation(
            wired=set(state.backends) == set(Slot),
            weights=state.weights,
            changed=state.changed,
            candidate=candidate,
            targets=own,
            strangers=strangers,
            boot_faults=faults,
        )

    def _targets(
        self, ctx: Context, run: Run, state: RouteState, wanted: int, candidate: GroupState | None = None
    ) -> tuple[tuple[TargetHealth, ...], tuple[TargetHealth, ...]]:
        """The candidate's machines behind its slot, each once, and the others that are to get requests there.

        ``candidate`` is its group, where this look has it. Without, it is asked for only if healthy machines are there
        that no look has told apart, or, as machines come and go, if fewer than ``wanted`` are its own. Whoever goes on
        in the midst of a run asks once, and nobody on a way back.
        """
        found = _each_once(self.cloud.router.health(ctx, self.route, run.slot))
        known = self._machines.setdefault(run.group, set())
        if candidate is None and run.stage is not Stage.BOOT and run.abort is None:
            others = {each.machine for each in found if each.state == "healthy"} - known
            short = _healthy([each for each in found if each.machine in known]) < wanted
            if others and (short or not others <= self._strangers):
                candidate = self.cloud.groups.observe(ctx, run.group)
                self._strangers.update(others)
        if candidate is not None:
            known.update(machine.id for machine in candidate.machines)
        own = tuple(each for each in found if each.machine in known)
        strangers = tuple(each for each in found if each.machine not in known and each.used)
        if run.stage is not Stage.BOOT and (healthy := [each.machine for each in strangers if each.state == "healthy"]):
            # While machines come up a list may lag behind the balancer.
            told = f"slot {run.slot}: not listed as machines of {run.candidate}, and with a part of its traffic"
            hint = f"take them from behind {state.backends.get(run.slot, 'its backend')}"
            self._tell_once(ctx, f"{told}: {', '.join(sorted(healthy))}", hint)
        return own, strangers

    def _traffic(self, ctx: Context, run: Run) -> Observation:
        state = self.cloud.router.observe(ctx, self.route)
        candidate = self.cloud.groups.observe(ctx, run.group) if run.grows else None
        wanted = max(run.capacity, run.grows)
        own, strangers = self._targets(ctx, run, state, wanted, candidate)
        switched = state.sends(run.weights(run.steps[run.step].weight))
        # While it grows it has the share of the step before, whose clients are not to be forgotten.
        carries = switched or run.grows > 0
        return Observation(
            wired=set(state.backends) == set(Slot),
            weights=state.weights,
            changed=state.changed,
            candidate=candidate,
            targets=own,
            strangers=strangers,
            boot_faults=self._boot_faults(ctx, run) if run.abort is None and _healthy(own) < wanted else (),
            live=self._live(ctx, run, state) if carries and not run.settings.health.counted else None,
            requests=self._requests(ctx, run) if switched and run.settings.health.counted else None,
            leaving=None if switched else self._left(ctx, run, state),
        )

    def _requests(self, ctx: Context, run: Run) -> RequestsSeen | None:
        """What was counted since the last switch. Never fails: what cannot be read is not there yet."""
        if self.metrics is None or (not run.moves and run.shifted is None):
            return None
        # Of a run that was found by tags nobody has written down when traffic moved: it had by now.
        moved = run.moves[-1].at if run.moves else run.entered
        # What was read of the switch before says nothing of this one.
        switch = moved.isoformat()
        asked, seen = self._counted.get(switch, (None, None))
        if asked is not None and ctx.monotonic() - asked < _COUNTED_EVERY:
            return seen
        first = math.ceil((moved.timestamp() + self.limits.spread) / _MINUTE) * _MINUTE
        over = int((ctx.now().timestamp() - self.cloud.counted_late - first) // _MINUTE)
        if over < 1:
            return None
        # The last ones: how it was in between does not matter any more.
        count = min(over, _MINUTES_READ)
        begin = datetime.fromtimestamp(first + (over - count) * _MINUTE, moved.tzinfo)
        grid, seen = Grid(begin, _MINUTE, count), None
        try:
            here = Measured(self.route, run.slot, run.candidate, run.group)
            there = Measured(self.route, run.slot.other, run.stable or run.candidate, run.stable_group or run.group)
            new, old = (
                {each.at: round(each.value) for each in self.metrics.requests(ctx, measured, grid)}
                for measured in (here, there)
            )
            silent = 0
            for number in reversed(range(count)):
                if new.get(grid.start(number)) or old.get(grid.start(number)):
                    break
                silent += 1
            last = grid.start(count - 1)
            seen = RequestsSeen(new.get(last, 0), old.get(last, 0), silent)
        except (Interrupted, DeadlineExceeded):
            raise
        except OsvDeployError as error:
            self._tell_once(ctx, f"requests cannot be counted: {error}")
        self._counted[switch] = ctx.monotonic(), seen
        return seen

    def _left(self, ctx: Context, run: Run, state: RouteState) -> Answer | None:
        """How what has the traffic answers before a deploy's first switch. A rollback need not be told."""
        before = run.stage in (Stage.VERIFY, Stage.SHIFT) and run.shifted is None and run.stable is not None
        asked = before and run.kind is Kind.DEPLOY and not run.settings.health.counted
        return self._ask(ctx, run, state, {}) if asked else None

    def _clean_up(self, ctx: Context, run: Run) -> Observation:
        state = self.cloud.router.observe(ctx, self.route)
        groups = self.groups(ctx)
        succeeded = run.verdict is Outcome.SUCCEEDED
        before = groups.get(run.stable_group) if run.stable_group else _occupant(groups, run, run.slot.other)
        return Observation(
            wired=set(state.backends) == set(Slot),
            weights=state.weights,
            changed=state.changed,
            occupant=None if succeeded else _occupant(groups, run, run.slot),
            candidate=groups.get(run.group),
            left_behind=before if succeeded else None,
            stable_gone=run.stable_group is not None and (before is None or before.deleting),
            partial=state.partial,
        )

    def _seen(
        self,
        state: RouteState,
        *,
        occupant: GroupState | None = None,
        candidate: GroupState | None = None,
        targets: tuple[TargetHealth, ...] | None = None,
        preview: tuple[Answer, ...] | None = None,
        live: tuple[Answer, ...] | None = None,
    ) -> Observation:
        return Observation(
            wired=set(state.backends) == set(Slot),
            weights=state.weights,
            changed=state.changed,
            occupant=occupant,
            candidate=candidate,
            targets=targets,
            preview=preview,
            live=live,
            partial=state.partial,
        )

    def _boot_faults(self, ctx: Context, run: Run) -> tuple[str, ...]:
        """Fatal findings in the boot logs of the candidate's machines, the gone ones included.

        A console is an additional witness: where it cannot be read, health and answers decide alone, and that is said.
        """
        faults: dict[str, None] = {}
        try:
            for machine in self.cloud.groups.machines(ctx, run.group)[:_CONSOLES_READ]:
                if machine.state is not MachineState.PENDING and (found := self._fault_of(ctx, machine)):
                    faults[found] = None
        except CloudError as error:
            self._tell_once(ctx, f"no console can be read: {error}")
        return tuple(faults)

    def _fault_of(self, ctx: Context, machine: Machine) -> str:
        read, fault = self._consoles.get(machine.id, (None, ""))
        over = machine.state is MachineState.GONE and read is not None
        if fault or over or (read is not None and ctx.monotonic() - read < _CONSOLE_EVERY):
            return fault
        fault = self._read_fault(ctx, machine)
        self._consoles[machine.id] = ctx.monotonic(), fault
        return fault

    def _read_fault(self, ctx: Context, machine: Machine) -> str:
        log = read_boot_log(self.cloud.console.read(ctx, machine.id))
        if log.fault is None or not log.fault.fatal:
            return ""
        return f"{log.fault.line} ({log.fault.cause}; {machine.id})"

    def asked(self, ctx: Context, run: Run, state: RouteState) -> Answer:
        """One probe of every entry point of the balancer, as a client of the service asks; the worst answer."""
        return self._ask(ctx, run, state, {})

    def _preview(self, ctx: Context, run: Run, state: RouteState, times: int | None = None) -> tuple[Answer, ...]:
        headers = {self.route.preview_header: run.slot.value}
        count = times if times is not None else self.limits.preview_answers
        if not state.weighted:
            own = state.previews.get(run.slot)
            if own is None:
                return (Answer(False, None, f"slot {run.slot} has no address of its own (yet)"),)
            state, headers = replace(state, base_url=own, addresses=()), {}
        return tuple(self._ask(ctx, run, state, headers) for _ in range(count))

    def _live(self, ctx: Context, run: Run, state: RouteState) -> tuple[Answer, ...]:
        answers: list[Answer] = []
        while len(answers) < self.limits.live_answers:
            answers.append(self._ask(ctx, run, state, {}))
            # Enough is known, and each answer that does not come costs its whole time limit.
            if len(answers) >= self.limits.bad_answers and not any(each.well for each in answers):
                break
        return tuple(answers)

    def _ask(self, ctx: Context, run: Run, state: RouteState, headers: Mapping[str, str]) -> Answer:
        """One probe of every entry point of the balancer; the worst of the answers counts: one that is not well, else
        one of another release than is to be proved, wherever it came from."""
        back = run.stage is Stage.REVERT
        wanted = run.stable if back else run.candidate
        health = run.stable_health if back and run.stable_health is not None else run.settings.health
        host = {"Host": _one_of(self.route.host)} if self.route.host else {}
        told: Answer | None = None
        # Whoever asks is where the environment says now, whatever it said in the days of the release that is asked.
        via = run.settings.health.probe_command
        for address in state.addresses or (None,):
            request = ProbeRequest(
                url=state.base_url.rstrip("/") + health.path,
                headers={**host, **headers},
                timeout=health.timeout,
                address=address,
                kind=health.kind,
                via=via,
            )
            answer = judged(self.prober.probe(ctx, request), health.version_header, health.kind)
            if told is None or (told.well and (not answer.well or told.release == wanted != answer.release)):
                told = answer
        assert told is not None
        return told


def _occupant(groups: Mapping[str, GroupState], run: Run, slot: Slot) -> GroupState | None:
    """A group in a slot that is neither the run's nor the stable release's, first one that does not go yet."""
    others = (group for group in groups.values() if group.name not in (run.group, run.stable_group))
    there = (group for group in others if group.tags.get(tags.SLOT) == slot)
    return min(there, key=lambda group: group.deleting, default=None)


def _healthy(targets: Iterable[TargetHealth]) -> int:
    return sum(target.state == "healthy" for target in targets)


def _each_once(targets: Iterable[TargetHealth]) -> tuple[TargetHealth, ...]:
    """Each machine once, whichever of its ways in it is told of by: healthy where one is. That all of them are, those
    who ask at each entry point see."""
    found: dict[str, TargetHealth] = {}
    for each in targets:
        if each.machine not in found or each.state == "healthy":
            found[each.machine] = each
    return tuple(found.values())


def _one_of(host: str) -> str:
    """A host that a pattern of hosts matches: no client asks for the pattern itself, and a program that looks at the
    name may refuse it."""
    return host.replace("*", "osvdeploy").replace("?", "o")


def judged(answer: ProbeAnswer, version_header: str | None, kind: str = "http") -> Answer:
    """A probe's answer as the rollout counts it: well is a 2xx, of the kind "tcp" a connection that is held; the
    release is what ``version_header`` names."""
    if kind == "tcp" and answer.held:
        return Answer(True, None, "a connection that is held")
    if answer.status is None:
        return Answer(False, None, f"no answer: {answer.error}", reached=False)
    release = answer.headers.get(version_header.lower()) if version_header else None
    well = 200 <= answer.status < 300
    told = f"{answer.status}"
    if version_header:
        told += f" from {release}" if release else f" without the header {version_header}"
    if not well and (said := in_a_line(answer.body)):
        told += f": {said}"
    # A program that asks may name a release of several lines.
    return Answer(well, release, " ".join(told.split()))
