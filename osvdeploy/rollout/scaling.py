"""What scales a service by itself, as it passes from release to release."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from osvdeploy.cloud.interfaces import InstanceGroups, Scaling
from osvdeploy.context import Context
from osvdeploy.errors import CloudError
from osvdeploy.events import Warned
from osvdeploy.rollout.ledger import Head, HeldLedger, Ledger, Lent, SlotRecord
from osvdeploy.rollout.model import Kind, Run, Stage
from osvdeploy.rollout.releases import Release


def scaling_of(ctx: Context, groups: InstanceGroups, head: Head) -> Scaling | None:
    """What scales the stable group by itself, and its size. None where there is none.

    What the run before owes it counts for what it has: a pause that was not taken back is nobody's wish, and what
    should have been handed over to it is its own.
    """
    stable, run = head.stable, head.run
    if stable is None:
        return None
    there = groups.scaling(ctx, stable.group)
    if suspended(run, stable, there):
        # Whose wish it is, nobody knows: it passes on as it is, and is said.
        ctx.report(
            Warned(
                f"what scales {stable.release} is suspended, and was not when its last rollout ended; so it passes on",
                hint="`osvdeploy drift --repair` lets it go on, where nobody wants it so",
            )
        )
    if there is None or run is None or run.scaling is None or not owes(run, stable, there):
        return there
    return replace(run.scaling, desired=there.desired)


def scaling_if_told(ctx: Context, groups: InstanceGroups, head: Head) -> Scaling | None:
    """The same; a rollback does not depend on it. Where it cannot be seen, it is what was handed over last."""
    try:
        return scaling_of(ctx, groups, head)
    except CloudError as error:
        run, stable = head.run, head.stable
        given = stable is not None and run is not None and run.group == stable.group and run.scaling is not None
        kept = "what was handed over to it last is kept" if given else "it will not be kept"
        ctx.report(Warned(f"cannot see what scales the service, so {kept}: {error}", hint=error.hint))
        return run.scaling if given and run is not None else None


def pay(ctx: Context, groups: InstanceGroups, held: HeldLedger) -> None:
    """Do what the run before could not do about scaling, as far as it is still to be done."""
    stable, run = held.head.stable, held.head.run
    if stable is None or run is None or run.scaling is None or run.scaled:
        return
    there = groups.scaling(ctx, stable.group)
    if there is None or not owes(run, stable, there):
        return
    # It has come to the size that it has now without: with it, none of that is taken away.
    owed = replace(run.scaling, desired=there.desired)
    try:
        with held.acting(ctx) as acting:
            if run.candidate_serves:
                groups.apply(acting, stable.group, owed)
            else:
                groups.resume(acting, stable.group, owed)
        now = groups.scaling(ctx, stable.group)
        goes_on = now is not None and not now.paused
        paid = groups.follows(ctx, stable.group, owed) if run.candidate_serves else goes_on
    except CloudError as error:
        ctx.report(Warned(f"{stable.release} still has not the scaling of before: {error}", hint=error.hint))
        return
    if paid:
        lent = {name: each for name, each in held.head.lent.items() if name != stable.group}
        held.save(ctx, f"{stable.release} is scaled as before", run=replace(run, scaled=True), lent=lent)


def take_away(ctx: Context, groups: InstanceGroups, head: Head, name: str) -> None:
    """Begin to take a group away, or let it go where somebody else made it, with what scaled it going on as before:
    first, since nobody looks at it again once it is let go. Its slot is to have no traffic any more. Raises what the
    place refuses it with."""
    if (lent := _lent(head, name)) is not None:
        groups.resume(ctx, name, lent.scaling, grown=lent.grown)
    groups.delete(ctx, name)


def let_go(ctx: Context, held: HeldLedger, name: str) -> None:
    """Note that a group has been let go, where something was owed to it."""
    if name in held.head.lent:
        others = {each: lent for each, lent in held.head.lent.items() if each != name}
        held.save(ctx, f"{name} is let go as it was", lent=others)


def gone_without(head: Head, standing: Collection[str]) -> list[str]:
    """The groups that were let go by somebody who did not know that something is owed to them: whoever went back
    without the ledger. ``standing`` are all that the service has, by name."""
    return [name for name in head.lent if name not in standing]


def go_on(ctx: Context, groups: InstanceGroups, head: Head, name: str) -> None:
    """Let what scales such a group go on."""
    groups.resume(ctx, name, head.lent[name].scaling, grown=head.lent[name].grown)


def _lent(head: Head, name: str) -> Lent | None:
    """What a group is to have again; by the run where that has not come to a good end, and has suspended it."""
    run = head.run
    if name in head.lent or run is None or run.stable_group != name:
        return head.lent.get(name)
    owing = run.theirs and run.scaling is not None and not run.scaling.paused and not run.scaled
    # Nothing is suspended before the first share.
    shares = Stage.SHIFT in (run.stage, *(record.stage for record in run.stages))
    suspended = owing and shares and (run.kind is Kind.DEPLOY or run.owed)
    return Lent(run.scaling) if suspended and run.scaling is not None else None


def capacity_of(ctx: Context, ledger: Ledger, head: Head, release: Release, scaling: Scaling | None) -> int:
    """How many machines a deploy begins with.

    As many as are declared, or as the stable group has, where it has more: it has them for a reason. Where it does
    not scale by itself and the spec says another number than for the stable release, the spec wins; and no more
    than its own scaling would leave are started.
    """
    declared, stable = release.settings.capacity, head.stable
    if stable is None or scaling is None:
        return declared
    if scaling.moves:
        return max(min(declared, scaling.maximum), scaling.desired)
    before = ledger.release(ctx, stable.release)
    changed = before is not None and before.settings.capacity != declared
    return declared if changed else max(declared, scaling.desired)


def owes(run: Run, stable: SlotRecord, there: Scaling) -> bool:
    """Whether a run that is over has left something to be done about the scaling of what serves, which is ``there``."""
    if run.scaling is None or run.scaled:
        return False
    # By us, when the group lost its traffic.
    paused = there.paused and not there.fixed and not run.scaling.paused
    if run.overtaken:
        # Whoever moved traffic meanwhile passed on what they found standing still, to whatever group.
        return paused
    if run.candidate_serves:
        # Part of it may be there, where the rest was refused. Whatever else is, a user has attached since.
        part = there.fixed or set(there.parts) < set(run.scaling.parts)
        return run.group == stable.group and (part or paused)
    return run.stable_group == stable.group and paused


def suspended(run: Run | None, stable: SlotRecord, there: Scaling | None) -> bool:
    """Whether what scales ``stable`` stands still now, and did not when its last rollout was through: by somebody's
    hand, or by a pause of a process that had lost its lease, and which came late."""
    if there is None or run is None or not run.over or run.scaling is None:
        return False
    if not run.scaled or run.scaling.paused:
        return False
    group = run.group if run.candidate_serves else run.stable_group
    # What was taken away does not stand still. A part's name may tell the mode that it is in, so they are counted.
    known = group == stable.group or run.overtaken
    return known and there.paused and len(there.parts) >= len(run.scaling.parts)
