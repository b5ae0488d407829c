"""A rollout under way: what people ask of it, waiting for it, going on with it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.api.declared import Service
from osvdeploy.api.services import ProbeFrom, deserted, find_release, in_full
from osvdeploy.context import Context
from osvdeploy.errors import DeadlineExceeded, OsvDeployError, UsageError
from osvdeploy.events import Note, Waiting

if TYPE_CHECKING:
    from osvdeploy.rollout.ends import Asked, Rollout
    from osvdeploy.rollout.ledger import Head
    from osvdeploy.rollout.model import RequestKind, Run, Until

_LOOK_EVERY = 2.0
_NOBODY = 75.0
"""Seconds without a new head after which nobody is at work: a holder of the lease writes one each half minute, and
whoever takes over a silent one needs its whole length."""
_STARTED_WITHIN = 30.0


def ask(
    ctx: Context,
    service: Service,
    kind: RequestKind,
    *,
    why: str = "",
    until: Until | None = None,
    probe_from: ProbeFrom | None = None,
) -> Asked:
    """Ask something of the rollout under way: pause, resume, approve, promote, abort. Whoever works on it is told, on
    whatever machine; where nobody does, this process goes on with it, as far as ``until`` says (a person is asked), and
    with ``probe_from`` in place of what is declared.

    Raises :class:`~osvdeploy.errors.UsageError` where no rollout is under way, or what is asked makes no sense then.

    Promise: what is asked is in the ledger before anything comes of it, and is heard by whoever works on the run, or
    is next to.
    """
    from osvdeploy.rollout.model import Until
    from osvdeploy.rollout.releases import ProbePlace

    head = wiring.head(ctx, service)
    said = ProbePlace(probe_from) if probe_from is not None else None
    return wiring.manager(ctx, service, head, until=until or Until.ASKED, probe_from=said).request(ctx, kind, why)


def recover(
    ctx: Context, service: Service, *, take_over: bool = False, force: bool = False, until: Until | None = None
) -> Rollout:
    """Go on with a rollout that nobody works on, from any machine. Does nothing where none is under way. ``force``:
    whoever holds the lease on another machine is dead, and not waited for.

    Raises :class:`~osvdeploy.errors.LeaseHeld` where somebody works on it.

    Promise: nothing is taken from where the process before had come to, but what the ledger and the cloud show.
    """
    from osvdeploy.rollout.model import Until

    head = wiring.head(ctx, service)
    return wiring.manager(ctx, service, head, take_over=take_over, until=until or Until.ASKED).recover(ctx, force=force)


def retry(ctx: Context, service: Service, *, forced: bool = False, until: Until | None = None) -> Rollout:
    """Try the last rollout again where it did not succeed, without its spec. ``forced``: also where a hold refuses the
    release. Raises :class:`~osvdeploy.errors.UsageError` where the last one succeeded, or its image is gone.

    Promise: as that of the deploy or rollback that it tries again.
    """
    from osvdeploy.rollout.model import Until

    head = wiring.head(ctx, service)
    return wiring.manager(ctx, service, head, until=until or Until.ASKED).retry(ctx, forced=forced)


def pin(ctx: Context, service: Service, release: str, *, pinned: bool = True) -> Head:
    """Keep a release (an id or version) whatever retention says, or no more.

    Promise: it is in the ledger when this returns; a ``gc`` that is running sees it before it takes anything.
    """
    head = wiring.head(ctx, service)
    found = find_release(ctx, wiring.open_ledger(service), release)
    return wiring.manager(ctx, service, head).pin(ctx, found.id, pinned=pinned)


class Milestone(StrEnum):
    """What of a rollout one can wait for: a stage that is entered, or was passed; all traffic on the new release,
    proved; a person who is asked; the end."""

    PREPARE = "prepare"
    BOOT = "boot"
    VERIFY = "verify"
    SHIFT = "shift"
    TRAFFIC = "traffic"
    BAKE = "bake"
    APPROVAL = "approval"
    REVERT = "revert"
    CLEAN_UP = "clean-up"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Waited:
    """What was waited for, or what came before it. ``reached``: it came; ``rollout`` is the run's end, where it has
    one; ``awaits`` is what a person has to do."""

    head: Head
    run: Run
    milestone: Milestone
    reached: bool
    told: str
    awaits: str
    rollout: Rollout | None

    @property
    def exit_code(self) -> int:
        """0 where it came; of a run that is over its own code; 5 while a person is asked."""
        if self.rollout is None:
            return 0 if self.reached else 5
        back = self.milestone in (Milestone.REVERT, Milestone.CLEAN_UP)
        if self.reached and back:
            return 0
        # Whoever waits to go on with a release must not take one that failed since for it.
        return self.rollout.exit_code or (0 if self.reached else 1)


def wait(ctx: Context, service: Service, milestone: Milestone = Milestone.DONE) -> Waited:
    """Wait for the rollout under way, or the last one, to come that far. Reads the ledger alone and changes nothing.

    Where nobody is at work on it, that is told at once, and somebody is waited for who goes on with it: a minute.
    Raises :class:`~osvdeploy.errors.DeadlineExceeded` when the context's time is over, with where it stands; and
    :class:`~osvdeploy.errors.OsvDeployError` when nobody is at work on it any more.
    """
    from osvdeploy.rollout.ends import end_of
    from osvdeploy.rollout.lease import absence

    ledger = wiring.open_ledger(service)
    first: str | None = None
    given = 0
    changed, number, warned = ctx.monotonic(), 0, False
    while True:
        head = wiring.head(ctx, service)
        run = head.run
        if run is None or (first is not None and run.id != first):
            what = "no rollout was ever begun" if run is None else f"another rollout, of {run.candidate}, has begun"
            raise UsageError(f"{service.name}: {what}", hint="`osvdeploy history` lists them")
        given = len(run.approvals) if first is None else given
        first = run.id
        awaits = run.awaits(ctx.now())
        rollout = end_of(head, run) if run.over else None
        reached = _reached(run, milestone, awaits, given)
        if rollout is not None or reached:
            told = rollout.told if rollout is not None else f"{run.candidate}: {awaits or f'in stage {run.stage}'}"
            return Waited(head, run, milestone, reached, told, awaits, rollout)
        absent = absence(ctx, head)
        if head.n != number:
            changed, number, warned = ctx.monotonic(), head.n, False
        elif not awaits and absent is not None and absent.certain and not warned:
            # Seen twice: one look may fall between two processes, of which the second goes on.
            ctx.report(deserted(service, run, absent))
            warned = True
        if not awaits and ctx.monotonic() - changed > _NOBODY:
            nobody = deserted(service, run, absent)
            raise OsvDeployError(nobody.text, hint=nobody.hint)
        where = awaits or f"in stage {run.stage}"
        ctx.report(Waiting(f"{milestone} of {run.candidate}", where if absent is None else f"{where}; {absent.told}"))
        try:
            ctx.sleep(_LOOK_EVERY)
        except DeadlineExceeded:
            if awaits:
                return Waited(head, run, milestone, False, f"{run.candidate} waits: {awaits}", awaits, None)
            raise DeadlineExceeded(
                f"{ledger.service}: {run.candidate} is still in stage {run.stage}, since "
                f"{run.entered:%Y-%m-%d %H:%M:%S} UTC",
                hint="it goes on; wait again, or look with `osvdeploy status`"
                if absent is None
                else f"{absent.told}: {absent.ways_on(in_full(service))}",
            ) from None


def _reached(run: Run, milestone: Milestone, awaits: str, given: int) -> bool:
    """Whether a run has come that far, be it that it has gone on since: it is looked at now and then. ``given``: how
    many approvals it had when somebody began to wait for one."""
    from osvdeploy.rollout.model import Outcome, Stage

    succeeded = run.verdict is Outcome.SUCCEEDED
    match milestone:
        case Milestone.DONE:
            return run.over and succeeded
        case Milestone.APPROVAL:
            # One that succeeded asks for none any more.
            return succeeded or len(run.approvals) > given or (bool(awaits) and run.paused is None)
        case Milestone.TRAFFIC:
            onward = run.verdict is None and run.abort is None
            return succeeded or (onward and run.stage is Stage.BAKE and run.steps[run.step].weight == 100)
        case _:
            return milestone.value in {run.stage.value, *(record.stage.value for record in run.stages)}


def hand_over(ctx: Context, service: Service, run: Run, folder: Path) -> Path:
    """Start a process on this machine that goes on with a run which nobody works on, and see it begin. It outlives this
    one; what it tells goes to a file in ``folder``, whose path is returned.

    Raises :class:`~osvdeploy.errors.OsvDeployError`, with what it said, where it ends at once.

    Promise: the process that was started is in a session of its own, and the run is its own as soon as this returns,
    to its end: also while a person is asked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{service.app}-{service.environment}-{run.id}.log"
    # Where a person is asked it stays, and what falls sick meanwhile goes back.
    command = [sys.executable, "-m", "osvdeploy", "recover", service.name, "--ledger", service.ledger, "--stay"]
    with log.open("ab") as told:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=told, stderr=told, start_new_session=True, close_fds=True
        )
    ctx.report(Note(f"process {started.pid} goes on with it; it tells {log}"))
    began = ctx.monotonic()
    while ctx.monotonic() - began < _STARTED_WITHIN:
        head = wiring.head(ctx, service)
        if head.run is not None and (head.run.over or (head.lease and head.lease.holder.pid == started.pid)):
            break
        if (status := started.poll()) is not None and status != 0:
            said = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise OsvDeployError(
                f"{service.name}: the process that was to go on ended with {status}, and said: {said[-1]}",
                hint=f"see {log}; `osvdeploy recover {service.name} --ledger {service.ledger}` goes on",
            )
        ctx.sleep(0.1)
    # It outlives us, of which Python would warn.
    started.returncode = 0
    return log
