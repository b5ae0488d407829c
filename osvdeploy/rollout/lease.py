"""The lease: one process at a time acts on a service.

It lies in the head. A holder renews it by writing; who wants it watches. It is taken at once from a process of this
host that is known to be dead, else only after the same head was seen, on the watcher's own clock, for the lease's whole
length: no clocks are compared between hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from osvdeploy.context import CancelToken, Context
from osvdeploy.errors import CloudError, LeaseHeld, OsvDeployError
from osvdeploy.events import Note, Waiting
from osvdeploy.rollout.ledger import Head, HeadTaken, HeldLedger, Lease, Ledger
from osvdeploy.rollout.model import Kind
from osvdeploy.sizes import format_duration

LENGTH = 60.0
"""Seconds. Renewed at half; longer than any single call we make."""

_LOOK_EVERY = 1.0


@contextmanager
def held(ctx: Context, ledger: Ledger, why: str, *, force: bool = False) -> Iterator[HeldLedger]:
    """Hold the service's lease for a block; it is given back at its end, however it ends.

    Raises :class:`~osvdeploy.errors.LeaseHeld` when a living process has it. ``force``: one elsewhere is dead, somebody
    says, and is not waited for.
    """
    holder = acquire(ctx, ledger, why, force=force)
    try:
        yield holder
    except BaseException:
        _give_up_quietly(ctx, holder)
        raise
    else:
        holder.give_up(ctx)


def acquire(ctx: Context, ledger: Ledger, why: str, *, force: bool = False) -> HeldLedger:
    """Take the lease, waiting out one whose holder may be dead; with ``force`` only where it is known to live."""
    while True:
        head = ledger.head(ctx)
        lease = head.lease if head is not None else None
        if head is not None and lease is not None:
            if lease.holder.known_dead():
                ctx.report(Note(f"{ledger.service}: taking over from process {lease.holder.pid}, which is dead"))
            elif force and not _of_this_machine(ctx, lease):
                holder = lease.holder
                ctx.report(Note(f"{ledger.service}: taking over from process {holder.pid} on {holder.host}, unasked"))
            else:
                _watch(ctx, ledger, head, lease)
        try:
            return _take(ctx, ledger, head, why)
        except HeadTaken:
            continue


def refuse_if_alive(ctx: Context, ledger: Ledger, head: Head) -> None:
    """Raise LeaseHeld when a process of this machine that lives has the lease; one elsewhere is not waited for."""
    if head.lease is not None and not head.lease.holder.known_dead() and _of_this_machine(ctx, head.lease):
        raise _refusal(ctx, ledger, head, head.lease)


@dataclass(frozen=True, slots=True)
class Absence:
    """That nobody is at work on a rollout under way, and ``why`` that is known; "" where the lease was given back. Not
    ``certain``: a process elsewhere has it, and was not heard of for longer than it lasts, by the clocks of two
    machines."""

    why: str
    certain: bool

    @property
    def told(self) -> str:
        """For people."""
        verb = "is" if self.certain else "seems to be"
        return f"nobody {verb} at work on it{f': {self.why}' if self.why else ''}"

    def ways_on(self, where: str) -> str:
        """What to type. ``where``: the service, with all that its commands need."""
        sure = "" if self.certain else "where it is gone, "
        return f"{sure}`osvdeploy recover {where}` goes on with it, `osvdeploy abort {where}` ends it"


def absence(ctx: Context, head: Head) -> Absence | None:
    """Whether nobody is at work on the rollout that a head tells of, as far as that can be known from here; None where
    somebody is, or may be, and where none is under way."""
    if head.unfinished is None:
        return None
    if head.lease is None:
        return Absence("", certain=True)
    holder = head.lease.holder
    if holder.known_dead():
        return Absence(f"process {holder.pid} on {holder.host} is dead", certain=True)
    silent = (ctx.now() - head.written).total_seconds()
    if _of_this_machine(ctx, head.lease) or silent <= head.lease.length:
        return None
    heard = format_duration(int(silent))
    return Absence(f"process {holder.pid} on {holder.host} was last heard of {heard} ago", certain=False)


def _of_this_machine(ctx: Context, lease: Lease) -> bool:
    here, holder = ctx.process, lease.holder
    return bool(here.boot) and (holder.boot, holder.namespace) == (here.boot, here.namespace)


def _watch(ctx: Context, ledger: Ledger, head: Head, lease: Lease) -> None:
    """Return when the head stood unchanged for the lease's length; raise LeaseHeld when its holder is alive."""
    holder = lease.holder
    if _of_this_machine(ctx, lease):
        # Not known to be dead, where that could be known: it lives.
        raise _refusal(ctx, ledger, head, lease)
    began = ctx.monotonic()
    while ctx.monotonic() - began < lease.length:
        ctx.report(
            Waiting(
                f"the lease of {ledger.service}",
                f"held by process {holder.pid} on {holder.host}, last heard of as head {head.n}",
            )
        )
        ctx.sleep(_LOOK_EVERY)
        newest = ledger.head(ctx)
        if newest is None or newest.n != head.n:
            if newest is not None and newest.lease is not None:
                raise _refusal(ctx, ledger, newest, newest.lease)
            return
    ctx.report(Note(f"{ledger.service}: taking over from process {holder.pid} on {holder.host}, silent for too long"))


def _refusal(ctx: Context, ledger: Ledger, head: Head, lease: Lease) -> LeaseHeld:
    holder = lease.holder
    doing = (
        head.why if head.unfinished is None else f"rolling out {head.unfinished.candidate} ({head.unfinished.stage})"
    )
    return LeaseHeld(
        f"{ledger.service}: process {holder.pid} of {holder.user or 'somebody'} on {holder.host} is at work: {doing}",
        hint=_ways_past(ctx, head, lease),
    )


def _ways_past(ctx: Context, head: Head, lease: Lease) -> str:
    """What to do about somebody who is at work."""
    if lease.holder == ctx.process:
        return "another thread of this very process is at work on it: wait for that, then run this again"
    stops, run = f"where it hangs, `kill -9 {lease.holder.pid}` there stops it", head.unfinished
    if run is None:
        return f"wait for it, then run this again; {stops}"
    keeps = f"`osvdeploy pause {head.service}` keeps its traffic as it is, " if run.kind is not Kind.ROLLBACK else ""
    ends = f"wait for it (`osvdeploy wait {head.service}`); {keeps}`osvdeploy abort {head.service}` ends it"
    return f"{ends}; {stops}. Then run this again"


def _take(ctx: Context, ledger: Ledger, head: Head | None, why: str) -> HeldLedger:
    lease, began = Lease(holder=ctx.process, length=LENGTH), ctx.monotonic()
    if head is None:
        taken = Head(service=ledger.service, n=1, epoch=1, nonce=ctx.nonce(), written=ctx.now(), why=why, lease=lease)
    else:
        taken = replace(
            head, n=head.n + 1, epoch=head.epoch + 1, nonce=ctx.nonce(), written=ctx.now(), why=why, lease=lease
        )
    try:
        ledger.write(ctx, taken)
    except CloudError as error:
        why = error.hint or "whoever works on a service writes to its ledger"
        error.hint = f"{why}; {ledger.way_without}"
        raise
    return HeldLedger(
        ledger,
        taken,
        written=began,
        taken_over=head is not None and head.lease is not None,
        before=head.written if head is not None else None,
    )


def _give_up_quietly(ctx: Context, holder: HeldLedger) -> None:
    # Cancelled or out of time, giving the lease back is still worth one try; the error under way matters more.
    try:
        holder.give_up(replace(ctx, cancel=CancelToken(), deadline=None))
    except OsvDeployError:
        pass
