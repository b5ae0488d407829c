"""A rollout as values: the run that the ledger keeps, what was seen of the cloud, the actions, one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from osvdeploy.cloud.interfaces import Grid, GroupState, HookAnswer, ReleaseId, Sample, Scaling, Slot, TargetHealth
from osvdeploy.rollout.gates import Gate, GateStage, Judgement, Reading, Verdict, judge
from osvdeploy.rollout.hooks import Hook
from osvdeploy.rollout.releases import Health, Settings, TrafficStep


class Kind(StrEnum):
    """Why traffic moves. A rollback is a run like any other, with an older release as its candidate."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    ADOPT = "adopt"
    """Machines that somebody else made, which have the traffic already, become a release of the service."""


class Stage(StrEnum):
    PREPARE = "prepare"
    BOOT = "boot"
    VERIFY = "verify"
    SHIFT = "shift"
    BAKE = "bake"
    REVERT = "revert"
    CLEAN_UP = "clean-up"
    DONE = "done"


class Outcome(StrEnum):
    """How a command ends: succeeded 0, rolled back 3, failed 1, aborted 3, rollback failed 6, waiting 5, begun 0.

    All but the last two are a run's end too. Waiting: the run goes on when a person has said so; begun: it is in the
    ledger, for another process to go on with.
    """

    SUCCEEDED = "succeeded"
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"
    ABORTED = "aborted"
    ROLLBACK_FAILED = "rollback-failed"
    WAITING = "waiting"
    BEGUN = "begun"

    @property
    def exit_code(self) -> int:
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Outcome.SUCCEEDED: 0,
    Outcome.ROLLED_BACK: 3,
    Outcome.FAILED: 1,
    Outcome.ABORTED: 3,
    Outcome.ROLLBACK_FAILED: 6,
    Outcome.WAITING: 5,
    Outcome.BEGUN: 0,
}


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A stage that is over. ``why`` is what ended it."""

    stage: Stage
    entered: datetime
    left: datetime
    why: str


@dataclass(frozen=True, slots=True)
class GateRecord:
    """A gate that has decided, with what it decided on; or one that was undecided when its bake was ended.

    Of a metric gate the samples are kept, stable's too where it was compared with that, and ``verdict`` tells
    inconclusive and undecided from failed; ``dry_run``: it was told, and decided nothing.
    """

    gate: str
    passed: bool
    at: datetime
    seen: str
    stage: Stage
    verdict: Verdict | None = None
    samples: tuple[Sample, ...] = ()
    stable: tuple[Sample, ...] = ()
    dry_run: bool = False

    @property
    def answer(self) -> bool | None:
        """``passed``; None where nothing but the end of the bake kept it from deciding."""
        return None if self.verdict is Verdict.UNDECIDED and not self.dry_run else self.passed


@dataclass(frozen=True, slots=True)
class KeptSample:
    """A sample of a source that tells only what is now: nobody can ask for it again. ``stable``: that release's."""

    gate: str
    sample: Sample
    stable: bool = False


@dataclass(frozen=True, slots=True)
class GateView:
    """A metric gate in the present stage: its judgement so far, and what it stands on."""

    gate: Gate
    judgement: Judgement
    candidate: tuple[Sample, ...]
    stable: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class HookCall:
    """A hook that is asked now: written down before it is started, so that whoever finds it here and does not run it
    starts it again.

    ``event`` is the same however often it is started, so that receivers can tell; ``attempt`` counts from 1, ``since``
    is when this one began. ``outcome`` is how the run ends, where that is decided, and ``why``.
    """

    hook: str
    stage: Stage
    step: int
    event: str
    attempt: int
    since: datetime
    outcome: Outcome | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class HookRecord:
    """What a hook came to at a stage; with shares, at that ``step``. ``warned``: it failed, and that decided nothing.
    ``output`` is the last that it said, at most 4 KiB."""

    hook: str
    stage: Stage
    step: int
    event: str
    attempt: int
    passed: bool
    at: datetime
    told: str
    warned: bool = False
    output: str = ""


@dataclass(frozen=True, slots=True)
class HookSeen:
    """A hook that this process runs, or has run. ``answer`` None: it runs still."""

    event: str
    attempt: int
    answer: HookAnswer | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """Traffic was sent elsewhere: from ``at`` on the candidate was to have ``weight`` percent of it. That it has is
    proved later: the stage ends by that."""

    weight: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """A person let the run pass: with stage shift before its first traffic, with stage bake on from ``step``."""

    stage: Stage
    by: str
    at: datetime
    step: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """Traffic stays as it is until somebody resumes the run. ``by`` is a person, or ``osvdeploy`` where the run's own
    strategy says so."""

    by: str
    at: datetime
    why: str


class RequestKind(StrEnum):
    """What may be asked of a rollout under way."""

    PAUSE = "pause"
    RESUME = "resume"
    APPROVE = "approve"
    PROMOTE = "promote"
    PROMOTE_FULL = "promote-full"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody's word to whoever works on a run. ``step`` and ``stage`` (None where nobody wrote it down) are where the
    run was when they said it, and ``pause`` since when it was paused then: what has gone on, or was stopped, since is
    not sent further."""

    kind: RequestKind
    by: str
    at: datetime
    step: int
    why: str = ""
    stage: Stage | None = None
    pause: datetime | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """A request that was read, and what came of it. ``done``: what was asked for."""

    request: Request
    at: datetime
    done: bool
    told: str


class Until(StrEnum):
    """How far a process goes with a run: until it is in the ledger, until a person is asked, or to its end."""

    BEGUN = "begun"
    ASKED = "asked"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class CallMade:
    """A call of the place's API that was to change something, as it was answered. ``error`` is the refusal's code, or
    what became of a call without an answer; None for a call that was accepted."""

    at: datetime
    service: str
    operation: str
    milliseconds: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was kept of a failure before it was cleaned away. ``text`` at most 4 KiB."""

    source: str
    text: str


UNREACHED = "no probe reached anybody"
"""In the reason of a failure that says nothing of whom nobody could ask."""

REFUSED = "refused: "
"""What the reason of a failure begins with where the place did not allow a change."""

OVERTAKEN = "a rollback without the ledger has moved traffic meanwhile"
"""Why a run was ended that knew nothing of what serves any more."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted from one look to the next. Not saved: a new manager counts afresh, which only takes longer.

    ``since`` is when this process began to look at the stage: limits count from there, because the time when nobody
    was at work is no fault of the stage's.
    """

    since: datetime | None = None
    ready_since: datetime | None = None
    unwell_since: datetime | None = None
    good: int = 0
    """Consecutive answers that were as they should be."""
    bad: int = 0
    """Consecutive answers that were not answers of a healthy service."""
    badly_since: datetime | None = None
    badly: int = 0
    """Consecutive looks of a bake that ended with such an answer."""
    odd: int = 0
    """Consecutive looks that showed another rule than was set."""
    last: str = ""
    leaving: bool = False
    """What had the traffic until the switch did not answer well."""
    unreached: int = 0
    """Answers that nobody gave, as long as nobody gave any; -1 once somebody has."""
    hooked: datetime | None = None
    """When the last hook of the stage ended: its limits count from there."""
    asked_back: bool = False
    """Traffic was sent back; whether there is anybody to take it is asked no more."""
    unmade: bool = False
    """Of an adoption that failed: what was made for the route is gone."""


@dataclass(frozen=True, slots=True)
class Run:
    """One rollout. ``entered`` is when the stage began; ``verdict`` is set once the end is decided.

    ``warm``: the candidate's machines stood and had served when the run began. ``step`` indexes ``steps``.
    ``stable_health`` is how the stable release is asked, which may differ from how the candidate is.
    ``declared_health`` is how the candidate's environment has it, where whoever ends the run said from where to ask.
    ``moves`` are the changes of traffic, each saved before it is made.
    ``abort`` is set, with its reason, by whoever wants the run to end. ``paused``: traffic stays as it is. ``heard``
    are the requests that were read, in the order of their numbers: the next to come has number ``len(heard) + 1``.

    ``scaling`` is what scales the stable group by itself, as it was right before the last share that was given, but for
    what the run itself had paused of it; None where nothing does. ``owed``: it is what the run before was to hand over
    and did not, so that stable may have a part of it alone. ``scaled``: it is where it belongs, on the candidate after
    a success and else on stable as before. ``theirs``: somebody else made the stable group, and has it back as it was
    once it is let go.

    ``unwatched``: seconds of this stage for which nobody looked; no bake counts them.
    ``measured_since`` is when metric gates were begun anew in this stage, None where they count from its beginning;
    ``kept`` are this stage's samples of sources that remember nothing.

    ``hooks`` are what hooks came to, in their order; ``calling`` is the one that is asked now. ``news`` counts what
    others were to be told of the run; ``awaited`` is what a person has to do, where somebody is told of that.

    ``stable_size``: machines that the stable group was to have when the run began, which the spec may say otherwise; 0
    where nobody knows.

    ``grows``: machines that the candidate is to have before its next share, stable having that many by now; 0 for none
    beyond ``capacity``.

    ``stable_gone``: the machines of the stable release were found gone when traffic was to go back, or when the run was
    through. The candidate serves.

    ``calls`` are the changes that were asked of the place, the newest 200 of them; each is written with the next step,
    so those that a process made right before it died are missing.
    """

    id: str
    kind: Kind
    candidate: ReleaseId
    slot: Slot
    group: str
    stable: ReleaseId | None
    stable_group: str | None
    capacity: int
    settings: Settings
    by: str
    started: datetime
    stage: Stage
    entered: datetime
    steps: tuple[TrafficStep, ...]
    stable_health: Health | None = None
    step: int = 0
    warm: bool = False
    shifted: datetime | None = None
    ended: datetime | None = None
    verdict: Outcome | None = None
    reason: str = ""
    abort: str | None = None
    gates: tuple[GateRecord, ...] = ()
    moves: tuple[Move, ...] = ()
    approvals: tuple[Approval, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    scaling: Scaling | None = None
    owed: bool = False
    scaled: bool = False
    theirs: bool = False
    stable_size: int = 0
    grows: int = 0
    stable_gone: bool = False
    paused: Pause | None = None
    heard: tuple[Heard, ...] = ()
    measured_since: datetime | None = None
    kept: tuple[KeptSample, ...] = ()
    hooks: tuple[HookRecord, ...] = ()
    calling: HookCall | None = None
    news: int = field(default=0, compare=False)
    awaited: str = ""
    calls: tuple[CallMade, ...] = field(default=(), compare=False)
    tally: Tally = field(default=Tally(), compare=False)
    declared_health: Health | None = None
    unwatched: float = 0.0

    @property
    def over(self) -> bool:
        return self.stage is Stage.DONE

    @property
    def cleaned_up(self) -> bool:
        """Whether it came to its end by its own way, through clean-up, and was not ended where it stood."""
        return self.over and any(record.stage is Stage.CLEAN_UP for record in self.stages[-1:])

    @property
    def candidate_serves(self) -> bool:
        """Decided for the candidate; or for nobody else, since the stable release's machines were gone."""
        return self.verdict is Outcome.SUCCEEDED or self.stable_gone

    @property
    def overtaken(self) -> bool:
        """Whether traffic was moved from under it, while its ledger could not be reached."""
        return self.abort == OVERTAKEN

    @property
    def stays_warm(self) -> bool:
        """Whether the candidate's machines outlive a failure: they stood before the rollback began, and are what the
        next one goes back to, unless it was they who failed: then it starts others."""
        blameless = self.abort is not None or UNREACHED in self.reason or self.reason.startswith(REFUSED)
        return self.kind is Kind.ROLLBACK and self.warm and blameless

    @property
    def going_back(self) -> bool:
        """Decided, and not for the candidate: nobody is asked any more."""
        return self.verdict is not None and self.verdict is not Outcome.SUCCEEDED

    @property
    def returning(self) -> bool:
        """Traffic goes back to what served before, or is to: nothing but health and answers may be waited for."""
        return self.going_back or self.kind is Kind.ROLLBACK

    def awaits_approval(self, now: datetime) -> Approval | None:
        """The approval that the run waits for, yet without anybody's name; None for none.

        Before its first traffic, or after the bake of a step whose strategy says so.
        """
        if self.verdict is not None:
            return None
        if self.stage is Stage.SHIFT and self.shifted is None and self.settings.strategy.approve:
            wanted = Approval(Stage.SHIFT, "", now)
        elif self.stage is Stage.BAKE and self.steps[self.step].approve and self.baked_for(now) >= self.bake:
            wanted = Approval(Stage.BAKE, "", now, self.step)
        else:
            return None
        given = {(each.stage, each.step) for each in self.approvals}
        return None if (wanted.stage, wanted.step) in given else wanted

    def awaits(self, now: datetime) -> str:
        """What a person has to do before traffic moves on; "" for nothing."""
        if self.verdict is None and self.paused is not None:
            return f"paused by {self.paused.by}: {self.paused.why}"
        approval = self.awaits_approval(now)
        if approval is None:
            return ""
        if approval.stage is Stage.SHIFT:
            return f"approval before {self.candidate} gets {self.steps[0].weight} % of the traffic"
        return f"approval to go on from {self.steps[approval.step].weight} %"

    @property
    def bake(self) -> float:
        """Seconds that the present step bakes."""
        last = self.step == len(self.steps) - 1
        return self.settings.strategy.bake if last else self.steps[self.step].bake

    def baked_for(self, now: datetime) -> float:
        """Seconds since the stage was entered, as far as it was watched."""
        return (now - self.entered).total_seconds() - self.unwatched

    def weights(self, candidate: int) -> dict[Slot, int]:
        """Both slots' weights when the candidate's is ``candidate`` percent."""
        return {self.slot: candidate, self.slot.other: 100 - candidate}

    def enter(self, stage: Stage, now: datetime, why: str) -> Run:
        """The run in its next stage, counting afresh. A hook that is asked still is asked no more."""
        unended = (
            self if self.calling is None else self.answered(HookAnswer(False, f"ended with its stage: {why}"), now)
        )
        return replace(
            unended,
            stage=stage,
            entered=now,
            ended=now if stage is Stage.DONE else None,
            stages=(*self.stages, StageRecord(self.stage, self.entered, now, why)),
            tally=Tally(),
            measured_since=None,
            kept=(),
            unwatched=0.0,
        )

    def moved(self, weight: int, now: datetime) -> Run:
        """The run whose candidate is given that share; one that has it already is not told twice."""
        if self.moves and self.moves[-1].weight == weight:
            return self
        return replace(self, moves=(*self.moves, Move(weight, now)))

    def having_made(self, calls: Sequence[CallMade]) -> Run:
        """The run with these calls on record."""
        return replace(self, calls=(*self.calls, *calls)[-_CALLS_KEPT:]) if calls else self

    def judged(self, gate: str, passed: bool, now: datetime, seen: str) -> Run:
        return replace(self, gates=(*self.gates, GateRecord(gate, passed, now, seen, self.stage)))

    def answered(self, answer: HookAnswer, now: datetime, *, warned: bool = False) -> Run:
        """The run with what the hook that is asked now came to."""
        call = self.calling
        assert call is not None
        kept = _OUTPUT_OF_PASSED if answer.passed else None
        record = HookRecord(
            call.hook,
            call.stage,
            call.step,
            call.event,
            call.attempt,
            answer.passed,
            now,
            answer.told,
            warned,
            answer.output[-kept:] if kept else answer.output,
        )
        return replace(self, hooks=(*self.hooks, record), calling=None, tally=replace(self.tally, hooked=now))

    def hook(self, name: str) -> Hook | None:
        return next((each for each in self.settings.hooks if each.name == name), None)

    # -------------------------------------------------------------------------------------------------- metric gates

    @property
    def gated(self) -> tuple[Gate, ...]:
        """The metric gates that are judged in the present stage: a deploy's, while it bakes. A rollback has none."""
        if self.stage is not Stage.BAKE or self.kind is not Kind.DEPLOY or self.verdict is not None or self.bake <= 0:
            return ()
        here = GateStage.BAKE if self.step == len(self.steps) - 1 else GateStage.STEP
        return tuple(
            gate
            for gate in self.settings.gates
            if here in gate.on and (self.stable is not None or not gate.against_stable)
        )

    def grid(self, gate: Gate) -> Grid:
        """The intervals that a gate is judged by in the present stage."""
        return gate.extended(gate.grid(self.measured_since or self.entered, self.bake), self.tally.since)

    def keeping(self, readings: Mapping[str, Reading]) -> Run:
        """The run with what sources told that remember nothing: each interval's first sample, once."""
        kept = {(each.gate, each.stable, each.sample.at): each for each in self.kept}
        for gate in self.gated:
            reading = readings.get(gate.name)
            if reading is None or gate.remembered:
                continue
            for stable, samples in ((False, reading.candidate), (True, reading.stable)):
                for sample in samples:
                    kept.setdefault((gate.name, stable, sample.at), KeptSample(gate.name, sample, stable))
        return self if len(kept) == len(self.kept) else replace(self, kept=tuple(kept.values()))

    def view(self, gate: Gate, reading: Reading | None) -> GateView:
        """How a gate stands, by the last reading of it."""
        grid = self.grid(gate)
        if reading is None or reading.begin != grid.begin:
            reading = Reading(grid.begin, 0, self.entered)
        candidate, stable = reading.candidate, reading.stable
        if not gate.remembered:
            candidate, stable = self._kept_of(gate, grid, stable=False), self._kept_of(gate, grid, stable=True)
        there = {sample.at for sample in stable}
        pairs = sum(sample.at in there for sample in candidate) if gate.against_stable else len(candidate)
        over = gate.over(grid, reading, pairs)
        return GateView(gate, judge(gate, candidate, stable, over=over, trouble=reading.trouble), candidate, stable)

    def _kept_of(self, gate: Gate, grid: Grid, *, stable: bool) -> tuple[Sample, ...]:
        own = (each.sample for each in self.kept if each.gate == gate.name and each.stable is stable)
        return tuple(sorted((each for each in own if grid.holds(each.at)), key=lambda each: each.at))

    def recorded(self, view: GateView, now: datetime) -> Run:
        """The run with a metric gate's verdict on record."""
        verdict, told = view.judgement.verdict, view.judgement.told
        record = GateRecord(
            view.gate.name,
            verdict is Verdict.PASSED,
            now,
            told if verdict in (Verdict.PASSED, Verdict.FAILED) else f"{verdict}: {told}",
            self.stage,
            verdict,
            view.candidate[-_SAMPLES_KEPT:],
            view.stable[-_SAMPLES_KEPT:],
            view.gate.dry_run,
        )
        return replace(self, gates=(*self.gates, record))


_OUTPUT_OF_PASSED = 1024
"""Characters of what a hook said that passed: each document has them all."""
_CALLS_KEPT = 200

_SAMPLES_KEPT = 100
"""Of each gate's record: an hour and more by minutes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One probe's answer, judged: ``well`` when it is a good answer at all, ``release`` the release it names (None
    where it names none, or no header was agreed), ``told`` for people."""

    well: bool
    release: str | None
    told: str
    reached: bool = True
    """Somebody answered at all."""


@dataclass(frozen=True, slots=True)
class RequestsSeen:
    """The requests that the place has counted in the last whole minute since a switch of which it tells: the
    candidate's and the stable release's. ``silent`` is how many of the last minutes had none of either."""

    candidate: int
    stable: int
    silent: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What the manager saw, as far as the stage needs it.

    ``wired``: both backends and preview rules stand. ``weights`` None: the route's rule does not exist. ``changed`` is
    what somebody has changed of that rule beside its weights.
    ``occupant`` is another release's group that still stands in the candidate's slot, in clean-up one that no slot
    of the ledger has, ``left_behind`` the group of the release that served before; where none did, one in the other
    slot that the ledger does not know of. ``stable_gone``: no machine of the stable release can take traffic back; it
    is looked for in clean-up, and before traffic goes back, and None where that could not be seen.
    ``boot_faults`` are fatal findings in the candidate's boot logs. ``targets`` are the candidate's machines behind its
    slot, each once, ``strangers`` what else is to get requests there. ``targets``, ``preview`` and ``live`` are None
    where nobody looked; so is ``leaving``, an answer right before the switch, of what has the traffic until then.
    So is ``scaling``, what scales the stable group now; it is also None once that group is gone. ``unpaused`` is the
    same without what was paused of it since the run has its own. ``stable_seen``: this look was for both, so that None
    is what there is. ``follows``: the candidate has the run's scaling. ``readings`` are the last of each metric gate
    that is judged in this stage, by its name. ``hook`` is what this process runs of hooks. ``requests`` are what was
    counted since the switch, where that is the proof; None while nothing is. ``partial``: clients may enter elsewhere,
    too, than where answers were had. ``idle_since``: since when no traffic is meant for the ``occupant``.
    """

    wired: bool
    weights: Mapping[Slot, int] | None
    occupant: GroupState | None = None
    candidate: GroupState | None = None
    left_behind: GroupState | None = None
    stable_gone: bool | None = False
    targets: tuple[TargetHealth, ...] | None = None
    strangers: tuple[TargetHealth, ...] = ()
    boot_faults: tuple[str, ...] = ()
    preview: tuple[Answer, ...] | None = None
    live: tuple[Answer, ...] | None = None
    leaving: Answer | None = None
    scaling: Scaling | None = None
    unpaused: Scaling | None = None
    stable_seen: bool = True
    follows: bool = False
    readings: Mapping[str, Reading] = field(default_factory=dict)
    hook: HookSeen | None = None
    requests: RequestsSeen | None = None
    partial: bool = False
    idle_since: datetime | None = None
    changed: str = ""

    def sends(self, weights: Mapping[Slot, int]) -> bool:
        """Whether traffic goes by these weights and nowhere else."""
        return self.weights == weights and not self.changed

    @property
    def held(self) -> bool:
        """Whether something is to be resumed for the stable group to be scaled as the run knows it."""
        return self.scaling is not None and self.unpaused is not None and self.scaling != self.unpaused

    @property
    def healthy(self) -> int:
        """Machines of the candidate's that are."""
        return sum(target.state == "healthy" for target in self.targets or ())


@dataclass(frozen=True, slots=True)
class WireSlots:
    """Make both backends and preview rules."""


@dataclass(frozen=True, slots=True)
class StartCandidate:
    """Make the candidate's group, or bring it to the run's capacity."""


@dataclass(frozen=True, slots=True)
class RemoveGroup:
    """Take a group and its machines away."""

    name: str


@dataclass(frozen=True, slots=True)
class SetWeights:
    weights: Mapping[Slot, int]


@dataclass(frozen=True, slots=True)
class PauseScaling:
    """Let the stable group not get smaller by itself."""


@dataclass(frozen=True, slots=True)
class ResumeScaling:
    """Let the stable group be scaled as before."""


@dataclass(frozen=True, slots=True)
class HandScalingOver:
    """Give the candidate's group what scaled the stable one."""


@dataclass(frozen=True, slots=True)
class CallHook:
    """Start the hook that the run says is asked now."""

    call: HookCall


@dataclass(frozen=True, slots=True)
class GiveRouteBack:
    """Take the route's own rule away: its requests go where they went before it was there."""


@dataclass(frozen=True, slots=True)
class UnmakeRoute:
    """Take all that was made for the route away."""


Action = (
    GiveRouteBack
    | UnmakeRoute
    | WireSlots
    | StartCandidate
    | RemoveGroup
    | SetWeights
    | PauseScaling
    | ResumeScaling
    | HandScalingOver
    | CallHook
)


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: the run as it is from now on, what to do in the cloud, how long to wait before looking again
    (seconds; 0 to look at once), and what is waited for, in words. ``for_person``: nothing goes on before somebody has
    said so."""

    run: Run
    action: Action | None = None
    wait: float = 0.0
    waiting_for: str = ""
    for_person: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of our own on what a cloud may take, in seconds. Not in the spec: they end hangs, not rollouts."""

    prepare: float = 600.0
    verify: float = 60.0
    shift: float = 300.0
    revert: float = 300.0
    clean_up: float = 900.0
    scaling: float = 300.0
    """How long it is tried to hand scaling over, or to resume it; what is not there by then stays owed."""
    unwell: float = 15.0
    stale: float = 15.0
    """How old what was seen may be when something is done about it on the way forward. On the way back it is done."""
    silence: float = 900.0
    """How long a cloud that does not answer is asked again before the command ends; the run can be gone on with."""
    spread: float = 0.0
    """How long a change of a route may take to be in force: the place says it. Until then a preview's answer that names
    no release may be nobody's of ours."""
    late: float = 0.0
    """How long one may take that nobody has seen in force: at least ``spread``, and the place says it too. Machines
    stay for as long after a change where entry points may be that nobody can ask."""
    lasting: float = 30.0
    """Where both releases had a share: how long good answers must last for one to have none any more."""
    settle: float = 30.0
    """Without a version header: how long good answers must last after a shift, for the balancer to have converged."""
    preview_answers: int = 3
    live_answers: int = 5
    """Probes through the balancer per look."""
    proof_answers: int = 10
    bad_answers: int = 3
    poll: float = 2.0
    quick_poll: float = 0.25
    bake_poll: float = 5.0
    drain: float = 20.0
    """How long requests under way have, once it is proved that traffic has left their machines, before those go."""
    counted: float = 0.0
    """How much later a switch is proved where that takes requests that the place counts."""
    listen: float = 2.0
    """How often it is looked for what somebody asks of the run."""
