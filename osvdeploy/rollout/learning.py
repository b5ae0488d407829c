"""What a ledger learns of what was done without it: a rollback by the cloud's tags alone leaves a note on the route."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import GroupState, ReleaseId, Route, RouteState, Slot
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, LedgerBehind, Refused, Unavailable
from osvdeploy.events import Warned
from osvdeploy.retry import insisting
from osvdeploy.rollout.executor import BEHIND, Executor
from osvdeploy.rollout.ledger import Head, HeldLedger, Hold, SlotRecord
from osvdeploy.rollout.model import Run

WHY = "a rollback without the ledger left it"


def whole(state: RouteState) -> Slot | None:
    """The one slot that has all the traffic, None where it is shared or sent elsewhere."""
    carrying = [slot for slot in Slot if (state.weights or {}).get(slot, 0) > 0]
    return carrying[0] if len(carrying) == 1 else None


def carried(state: RouteState, groups: Iterable[GroupState]) -> ReleaseId | None:
    """The release whose group stands alone in the one slot that has all the traffic; None where none does."""
    slot = whole(state)
    there = {each.release for each in groups if each.tags.get(tags.SLOT) == slot and not each.deleting}
    return there.pop() if slot is not None and len(there) == 1 else None


def overtaken(run: Run, state: RouteState, groups: Mapping[str, GroupState], *, asked: bool = False) -> bool:
    """Whether a rollback without the ledger has moved traffic from under a run that is not over: what has all of it now
    is neither the run's stable release nor the candidate that is yet to be gone back from. Such a run knows nothing of
    what serves, and would send traffic where no machine is any more. Without a note that is only seen where somebody
    has ``asked``: it may be a slip of somebody's hand."""
    slot = whole(state)
    if slot is None or (state.left is None and not asked):
        return False
    there = {each.name for each in groups.values() if each.tags.get(tags.SLOT) == slot and not each.deleting}
    if slot is run.slot:
        return run.group not in there or state.left not in (None, run.candidate)
    return run.stable_group not in there


def learn(
    ctx: Context,
    executor: Executor,
    held: HeldLedger,
    route: Route,
    state: RouteState,
    *,
    asked: bool = False,
    clean: bool = False,
) -> bool:
    """Let the head say what serves by the cloud, with a hold on the release that was left, and take the note away;
    whether there was anything to learn. Without a note nothing is, unless that is ``asked`` for. ``clean``: the note is
    not to stay, since who goes back without the ledger goes by it.

    Raises :class:`~osvdeploy.errors.LedgerBehind` where what serves is of another ledger, and with ``clean`` what keeps
    the note from being taken away.
    """
    if executor.noting:
        return False  # a ledger that does not last is not whom the note is for
    if held.head.note is not None and state.left is None:
        held.save(ctx, f"the note of {held.head.note} is gone", note=None)
    elif state.left is not None and held.head.unheard(state).left is None:
        _forget_note(ctx, executor, held, route, state.left, clean=clean)
        state = replace(state, left=None)
    head, slot = held.head, whole(state)
    if (state.left is None and not asked) or head.unfinished is not None or slot is None:
        return False
    stable = head.stable
    known = stable is not None and head.serving is slot
    groups = executor.observer(route).groups(ctx)
    there = groups.get(stable.group) if stable is not None else None
    # Whoever went back to a third release has put its machines into the very slot that the ledger names.
    stands = there is not None and not there.deleting
    if known and stands and stable is not None and stable.release == state.left:
        # Whoever wrote the note did not come to the switch.
        _forget_note(ctx, executor, held, route, state.left, clean=clean)
        return True
    changes = {} if known and stands and not asked else _serving(executor, held, route, slot, groups, ctx)
    if changes is None:
        if not known or asked:
            return False
        changes = {}
    if state.left is not None:
        changes = {**changes, "holds": head.held_too(Hold(state.left, WHY, ctx.process.user, ctx.now()))}
    if changes:
        held.save(ctx, f"{_told(held.head, slot, changes)} is found serving", **changes)
    if state.left is not None:
        ctx.report(
            Warned(
                f"{head.service}: while its ledger could not be reached, traffic was taken from {state.left}",
                hint=f"{state.left} is held from now on",
            )
        )
        _forget_note(ctx, executor, held, route, state.left, clean=clean)
    return bool(changes)


def _serving(
    executor: Executor,
    held: HeldLedger,
    route: Route,
    slot: Slot,
    groups: Mapping[str, GroupState],
    ctx: Context,
) -> dict[str, object] | None:
    """What changes in the head where the one group in a slot serves; None where that cannot be known."""
    head = held.head
    standing = [each for each in groups.values() if each.tags.get(tags.SLOT) == slot and not each.deleting]
    if len(standing) != 1 or (release := standing[0].release) is None:
        return None
    found = standing[0]
    theirs = found.tags.get(tags.LEDGER)
    if theirs != route.tags.get(tags.LEDGER) and not executor.take_over:
        raise LedgerBehind(
            f"{head.service}: {found.release} serves, of the ledger {theirs}; this is {executor.ledger.store.address}",
            hint=BEHIND,
        )
    record = head.slots.get(slot)
    if head.serving is slot and record is not None and record.group == found.name and record.warm_until is None:
        return {}
    now = ctx.now()
    slots = {slot: SlotRecord(release, found.name, now)}
    left = head.slots.get(slot.other)
    there = groups.get(left.group) if left is not None else None
    if left is not None and there is not None and not there.deleting:
        # It stands, and nobody wants it back: the next `gc` or deploy takes it away.
        slots[slot.other] = replace(left, warm_until=left.warm_until or now)
    return {"slots": slots, "serving": slot, "served": head.served_lately(release, now)}


def _told(head: Head, slot: Slot, changes: Mapping[str, object]) -> str:
    slots = changes.get("slots", head.slots)
    record = slots.get(slot) if isinstance(slots, dict) else None
    return str(record.release) if isinstance(record, SlotRecord) else head.service


def _forget_note(
    ctx: Context, executor: Executor, held: HeldLedger, route: Route, left: ReleaseId, *, clean: bool
) -> None:
    """Take a note off the route, and remember one that stays: read again, it would tell of a rollout of later that it
    was overtaken. Fails where it is not to stay (``clean``)."""

    def forget() -> None:
        executor.outranking(ctx, held, route, lambda acting: executor.cloud.router.note_left(acting, route, None))

    try:
        if clean:
            insisting(ctx, forget)
        else:
            forget()
    except CloudError as error:
        if held.head.note != left:
            held.save(ctx, f"the note of {left} stays", note=left)
        told = f"{held.head.service}: the note on its route that {left} was left stays: {error}"
        if not clean:
            ctx.report(Warned(told, hint=error.hint))
            return
        kind = Unavailable if isinstance(error, Unavailable) else Refused
        raise kind(
            f"{told}. A deploy beside it would mislead whoever goes back without the ledger",
            operation=error.operation,
            code=error.code,
            hint=error.hint or "try again",
        ) from error
    if held.head.note is not None:
        held.save(ctx, f"the note of {left} is gone", note=None)
