"""What happens while a command runs, as values: a terminal draws them, a pipe prints them, a test compares them.

Nothing below the command line prints. A layer that has something to tell passes one of these to
:meth:`osvdeploy.context.Context.report`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class Note(Event):
    """Something worth a line: what was found, made, reused, removed."""

    text: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something that works but should be looked at."""

    text: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """``done`` of ``total`` ``unit`` of ``what``; ``total`` is None where it is not known."""

    what: str
    done: int
    total: int | None
    unit: str


@dataclass(frozen=True, slots=True)
class StageEntered(Event):
    """A rollout entered a stage. ``why`` is what let it."""

    run: str
    stage: str
    why: str


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """What is waited for, what was seen last, and until when at most."""

    what: str
    seen: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class GateJudged(Event):
    """A gate's answer: ``passed`` True, False, or None while it has not decided. ``seen`` is the sample behind it."""

    gate: str
    passed: bool | None
    seen: str


@dataclass(frozen=True, slots=True)
class HookStarted(Event):
    """A hook is asked at a stage; ``attempt`` counts from 1."""

    hook: str
    stage: str
    attempt: int


@dataclass(frozen=True, slots=True)
class HookEnded(Event):
    """What a hook came to that has a say in it; a failure that decides nothing is a :class:`Warned`."""

    hook: str
    stage: str
    passed: bool
    told: str


@dataclass(frozen=True, slots=True)
class SlotSeen:
    """A slot during a rollout. ``weight`` in percent, ``healthy`` of ``machines``; None: nobody looked."""

    slot: str
    release: str | None
    weight: int | None
    healthy: int | None = None
    machines: int | None = None


@dataclass(frozen=True, slots=True)
class RolloutSeen(Event):
    """Where a rollout stands, after each look. ``what`` names it; ``shares`` are the weights of its steps, in percent,
    and ``share`` the index of the present one. ``way`` are the stages that it came by, with the present one. ``until``
    is when the stage ends, or is given up; None where neither is known. ``gates`` are those that have decided, each
    with its latest word.
    """

    run: str
    what: str
    began: datetime
    entered: datetime
    way: tuple[str, ...]
    shares: tuple[int, ...]
    share: int
    slots: tuple[SlotSeen, ...]
    gates: tuple[GateJudged, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class CloudCall(Event):
    """One API call that was sent and answered (or not): for the counts and the audit."""

    service: str
    operation: str
    mutating: bool
    seconds: float
    error: str | None = None


Reporter = Callable[[Event], None]


def silent(event: Event) -> None:
    """The reporter that nobody listens to."""


@dataclass(slots=True)
class Recorder:
    """A reporter that keeps what it was told, in order."""

    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
