"""A service watched from anywhere: what whoever works on it does is told here too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.api.declared import Service
from osvdeploy.api.services import ServiceStatus, SlotStatus, deserted, status
from osvdeploy.context import Context
from osvdeploy.events import Note, SlotSeen, Waiting

if TYPE_CHECKING:
    from osvdeploy.rollout.ledger import Head, Ledger
    from osvdeploy.rollout.model import Limits, Run

_LOOK_EVERY = 2.0
_LOOK_LATER = 10.0
"""Seconds between two looks at the cloud in a stage's first minute, and after it: each is eight calls, of which an
account may make only so many. The ledger is read as often as ever."""
_SOON = 60.0
_NOBODY = 75.0
"""Seconds without a new head after which nobody is at work: a holder of the lease writes one each half minute."""


def watch(ctx: Context, service: Service, *, look: bool = True) -> ServiceStatus:
    """Report how a service's rollout goes on, as the process does that works on it, until it is over; where none is
    under way, until one has come and gone, or the context is cancelled. What stands then is returned.

    Reads the ledger and, with ``look``, the cloud, and changes nothing. Raises as :func:`status` does.
    """
    from osvdeploy.rollout.model import Limits

    limits = Limits()
    before: Head | None = None
    last: str | None = None
    changed = ctx.monotonic()
    warned, serving = False, ""
    looks = _Looks()
    while True:
        due = look and looks.due(ctx.monotonic())
        found = status(ctx, service, look=due)
        head = found.head
        looks.at_stage(head.run.stage if head.run is not None else "", ctx.monotonic())
        if before is None and head.unfinished is None and head.run is not None:
            last = head.run.id
        if before is None or before.n != head.n:
            _tell(ctx, wiring.open_ledger(service), before, head)
            changed, warned = ctx.monotonic(), False
        run = head.unfinished
        if run is not None:
            last = None
            _show(ctx, found, run, limits)
            # One look may fall between two processes, of which the second goes on.
            seen_before = before is not None and before.n == head.n
            certain = found.absence is not None and found.absence.certain and seen_before
            silent = certain or ctx.monotonic() - changed > _NOBODY
            if not warned and not run.awaits(ctx.now()) and silent:
                ctx.report(deserted(service, run, found.absence))
                warned = True
        elif head.run is not None and head.run.id != last:
            # Seen under way or not: a warm rollback is over between two looks.
            return found if due or not look else status(ctx, service)
        else:
            if due or not look:
                serving = _serving(found)
            ctx.report(Waiting("a rollout to begin", serving))
        before = head
        ctx.sleep(_LOOK_EVERY)


@dataclass(slots=True)
class _Looks:
    """When the cloud is asked, by this process' clock."""

    last: float | None = None
    stage: str | None = None
    entered: float = 0.0

    def due(self, now: float) -> bool:
        """Whether it is time again; if so, it is being done."""
        pause = _LOOK_EVERY if now - self.entered < _SOON else _LOOK_LATER
        if self.last is not None and now - self.last < pause:
            return False
        self.last = now
        return True

    def at_stage(self, stage: str, now: float) -> None:
        """Where the rollout is; a stage's first minute begins when it is seen first."""
        if stage != self.stage:
            self.stage, self.entered = stage, now


def _tell(ctx: Context, ledger: Ledger, before: Head | None, head: Head) -> None:
    """What is new in the ledger. The first look is no news, but for the run that it finds."""
    from osvdeploy.rollout.logbook import EntryKind, entries

    if before is None:
        if (run := head.unfinished) is not None:
            ctx.report(Note(f"{run.kind} of {run.candidate}, begun by {run.by}: in stage {run.stage}"))
        return
    new = [each for each in ledger.since(ctx, before.n + 1) if each.n <= head.n]
    for entry in entries(new):
        if entry.kind in (EntryKind.GATE, EntryKind.STAGE):
            ctx.report(Note(f"{entry.kind} {entry.told}"))
        elif entry.kind not in (EntryKind.LEASE_BACK, EntryKind.TRAFFIC):  # of traffic the look at the slots tells
            ctx.report(Note(f"{entry.who}: {entry.told}"))


def _show(ctx: Context, found: ServiceStatus, run: Run, limits: Limits) -> None:
    from osvdeploy.rollout.shown import purpose, rollout_seen

    view = rollout_seen(run, tuple(map(_seen, found.slots)), limits, ctx.now())
    ctx.report(view)
    ctx.report(Waiting(purpose(run, ctx.now()), found.cloud_error or "", view.until))


def _seen(slot: SlotStatus) -> SlotSeen:
    healthy = None if slot.targets is None else sum(each.state == "healthy" for each in slot.targets)
    return SlotSeen(slot.slot, slot.release, slot.weight, healthy, slot.capacity)


def _serving(found: ServiceStatus) -> str:
    if found.cloud_error:
        return found.cloud_error
    for slot in map(_seen, (slot for slot in found.slots if slot.serving)):
        counted = "" if slot.healthy is None else f", {slot.healthy} of {slot.machines} healthy"
        return f"{slot.release} serves{counted}"
    return "nothing serves"
