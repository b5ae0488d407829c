"""A rollout as values: the run that the ledger keeps, what was seen of the cloud, the actions, one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from osvdeploy.cloud.interfaces import GroupState, ReleaseId, Scaling, Slot, TargetHealth
from osvdeploy.rollout.releases import Health, Settings, TrafficStep


class Kind(StrEnum):
    """Why traffic moves. A rollback is a run like any other, with an older release as its candidate."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"


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
    """How a run ends, and with it the command: succeeded 0, rolled back 3, failed 1, aborted 3, rollback failed 6."""

    SUCCEEDED = "succeeded"
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"
    ABORTED = "aborted"
    ROLLBACK_FAILED = "rollback-failed"

    @property
    def exit_code(self) -> int:
        return {"succeeded": 0, "rolled-back": 3, "failed": 1, "aborted": 3, "rollback-failed": 6}[self.value]


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A stage that is over. ``why`` is what ended it."""

    stage: Stage
    entered: datetime
    left: datetime
    why: str


@dataclass(frozen=True, slots=True)
class GateRecord:
    """A gate that has decided, with the sample it decided on."""

    gate: str
    passed: bool
    at: datetime
    seen: str
    stage: Stage


@dataclass(frozen=True, slots=True)
class Approval:
    """A person let the run pass a stage."""

    stage: Stage
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was kept of a failure before it was cleaned away. ``text`` at most 4 KiB."""

    source: str
    text: str


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
    odd: int = 0
    """Consecutive looks that showed other weights than were set."""
    last: str = ""
    leaving: bool = False
    """What had the traffic until the switch did not answer well."""


@dataclass(frozen=True, slots=True)
class Run:
    """One rollout. ``entered`` is when the stage began; ``verdict`` is set once the end is decided.

    ``warm``: the candidate's machines stood and had served when the run began. ``step`` indexes ``steps``.
    ``stable_health`` is how the stable release is asked, which may differ from how the candidate is.
    ``abort`` is set, with its reason, by whoever wants the run to end.

    ``scaling`` is what scales the stable group by itself, as it was before anything of it was changed; None where
    nothing does. ``scaled``: it is where it belongs, on the candidate after a success and else on stable as before.
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
    approvals: tuple[Approval, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    scaling: Scaling | None = None
    scaled: bool = False
    tally: Tally = field(default=Tally(), compare=False)

    @property
    def over(self) -> bool:
        return self.stage is Stage.DONE

    def weights(self, candidate: int) -> dict[Slot, int]:
        """Both slots' weights when the candidate's is ``candidate`` percent."""
        return {self.slot: candidate, self.slot.other: 100 - candidate}

    def enter(self, stage: Stage, now: datetime, why: str) -> Run:
        """The run in its next stage, counting afresh."""
        return replace(
            self,
            stage=stage,
            entered=now,
            ended=now if stage is Stage.DONE else None,
            stages=(*self.stages, StageRecord(self.stage, self.entered, now, why)),
            tally=Tally(),
        )

    def judged(self, gate: str, passed: bool, now: datetime, seen: str) -> Run:
        return replace(self, gates=(*self.gates, GateRecord(gate, passed, now, seen, self.stage)))


@dataclass(frozen=True, slots=True)
class Answer:
    """One probe's answer, judged: ``well`` when it is a good answer at all, ``release`` the release it names (None
    where it names none, or no header was agreed), ``told`` for people."""

    well: bool
    release: str | None
    told: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What the manager saw, as far as the stage needs it.

    ``wired``: both backends and preview rules stand. ``weights`` None: the route's rule does not exist.
    ``occupant`` is another release's group that still stands in the candidate's slot, ``left_behind`` the group of
    the release that served before. ``boot_faults`` are fatal findings in the candidate's boot logs. ``targets``,
    ``preview`` and ``live`` are None where nobody looked; so is ``leaving``, an answer right before the switch, of what
    has the traffic until then. So is ``scaling``, what scales the stable group now; it is
    also None once that group is gone. ``follows``: the candidate has the run's scaling.
    """

    wired: bool
    weights: Mapping[Slot, int] | None
    occupant: GroupState | None = None
    candidate: GroupState | None = None
    left_behind: GroupState | None = None
    targets: tuple[TargetHealth, ...] | None = None
    boot_faults: tuple[str, ...] = ()
    preview: tuple[Answer, ...] | None = None
    live: tuple[Answer, ...] | None = None
    leaving: Answer | None = None
    scaling: Scaling | None = None
    follows: bool = False

    @property
    def healthy(self) -> int:
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


Action = WireSlots | StartCandidate | RemoveGroup | SetWeights | PauseScaling | ResumeScaling | HandScalingOver


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: the run as it is from now on, what to do in the cloud, how long to wait before looking again
    (seconds; 0 to look at once), and what is waited for, in words."""

    run: Run
    action: Action | None = None
    wait: float = 0.0
    waiting_for: str = ""


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
    silence: float = 900.0
    """How long a cloud that does not answer is asked again before the command ends; the run can be gone on with."""
    spread: float = 0.0
    """How long a change of a route may take to be in force: the place says it. Until then a preview's answer that names
    no release may be nobody's of ours."""
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
