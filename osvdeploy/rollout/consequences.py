"""What a run's step means for the rest of its head: slots, traffic, holds, families. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from osvdeploy.cloud.interfaces import ReleaseId, Scaling, Slot
from osvdeploy.context import Context
from osvdeploy.rollout.ledger import Head, Hold, Ledger, Lent, SlotRecord
from osvdeploy.rollout.model import Kind, Outcome, Run, Stage
from osvdeploy.rollout.releases import OnFailure, Release, StrategyKind, TrafficStep, group_name


def consequences(now: datetime, head: Head, run: Run) -> Mapping[str, object]:
    """What a run's step means for the head's slots and traffic."""
    slots = dict(head.slots)
    if run.verdict is Outcome.SUCCEEDED:
        if head.serving == run.slot and not run.over:
            return {}
        changes: dict[str, object] = {}
        if (lent := _lent(head, run)) != head.lent:
            changes["lent"] = lent
        if head.serving != run.slot or slots.get(run.slot) is None or slots[run.slot].release != run.candidate:
            changes["served"] = head.served_lately(run.candidate, now)
            slots[run.slot] = SlotRecord(run.candidate, run.group, now)
            if run.settings.family is not None:
                changes["family_due"] = True
                changes["given_up"] = tuple(each for each in head.given_up if each != run.candidate)
        old = slots.get(run.slot.other)
        if old is not None:
            gone = run.stable_gone and old.group == run.stable_group
            if not gone and run.kind is Kind.DEPLOY and run.settings.strategy.keep_warm > 0:
                until = now.timestamp() + run.settings.strategy.keep_warm
                if old.warm_until is None:
                    slots[run.slot.other] = replace(old, warm_until=now.fromtimestamp(math.ceil(until), now.tzinfo))
            else:
                del slots[run.slot.other]
        if run.kind is Kind.ROLLBACK and run.stable is not None and head.serving != run.slot:
            others = tuple(hold for hold in head.holds if hold.release not in (run.candidate, run.stable))
            left = Hold(run.stable, "a rollback left it", run.by.partition("@")[0], now)
            changes["holds"] = (*others, left)
            changes |= giving_up(head, run, run.stable)
        return {**changes, "slots": slots, "serving": run.slot}
    if run.over and run.stable_gone:
        # Nothing else is left that could serve. The hold says that it was not wanted.
        slots = {run.slot: SlotRecord(run.candidate, run.group, now)}
        why = f"{run.stable} was to serve again: {run.candidate} was to be left, and nothing else stands"
        return {
            "slots": slots,
            "serving": run.slot,
            "served": head.served_lately(run.candidate, now),
            "holds": head.held_too(Hold(run.candidate, why, run.by.partition("@")[0], now)),
            **giving_up(head, run, run.candidate),
        }
    if run.over and run.verdict is Outcome.ROLLBACK_FAILED and run.shifted is not None and not run.cleaned_up:
        # Its machines stand, and may carry traffic.
        return {"slots": {**slots, run.slot: SlotRecord(run.candidate, run.group, run.started)}}
    ended: dict[str, object] = {}
    if run.over and run.verdict is Outcome.ROLLED_BACK:
        ended |= giving_up(head, run, run.candidate)
    if run.over and not run.stays_warm and any(record.stage is Stage.BOOT for record in run.stages):
        # From boot on the slot was the candidate's, whose machines are gone now.
        slots.pop(run.slot, None)
        ended["slots"] = slots
    return ended


def _lent(head: Head, run: Run) -> Mapping[str, Lent]:
    """What is owed to groups of others once a run has succeeded: to the one that is left what scaled it, where the run
    has suspended that, or has found it so and owing; nothing any more to the one that serves, once it has what scaled
    the other. No others stand: a slot is empty before the candidate is put there."""
    scaling = run.scaling
    lent = {name: each for name, each in head.lent.items() if name in (run.group, run.stable_group)}
    suspended = scaling is not None and not scaling.paused and (run.kind is Kind.DEPLOY or run.owed)
    if run.theirs and run.stable_group is not None and scaling is not None and suspended and head.serving != run.slot:
        lent[run.stable_group] = Lent(scaling)
    if run.over and run.scaled:
        lent.pop(run.group, None)
    return lent


def giving_up(head: Head, run: Run, release: ReleaseId) -> dict[str, object]:
    """A release is no good: its image is to be withdrawn, where families are led at all."""
    if run.settings.family is None:
        return {}
    others = (each for each in head.given_up if each not in (release, run.candidate))
    return {"given_up": (*others, release)}


def begin(
    ctx: Context,
    ledger: Ledger,
    head: Head,
    release: Release,
    kind: Kind,
    capacity: int,
    scaling: Scaling | None = None,
) -> Run:
    """A run as the ledger first has it."""
    now = ctx.now()
    stable = head.stable
    strategy = release.settings.strategy
    # A rollback goes by the same engine, but not by small steps: it is an answer to an emergency. And where nothing
    # serves there is nobody to share traffic with.
    whole = kind is Kind.ROLLBACK or strategy.kind is StrategyKind.ALL_AT_ONCE or stable is None
    steps = (TrafficStep(100),) if whole else strategy.steps
    slot = head.serving.other if head.serving is not None and stable is not None else Slot.BLUE
    there = head.slots.get(slot)
    # What the slot has of this release is used. Whatever else stands of it was given up: a slot loses its record before
    # its group goes, so what is on its way out, by whosever hand, is never gone back to.
    known = there is not None and there.release == release.id
    own = group_name(ledger.service, release, head.epoch, ledger.mark)
    group = there.group if there is not None and known else own
    settings = release.settings
    if kind is Kind.ROLLBACK:
        alone = replace(strategy, bake=0.0, approve=False, on_failure=OnFailure.ROLLBACK)
        settings = replace(settings, strategy=alone)
    before = ledger.release(ctx, stable.release) if stable is not None else None
    if kind is Kind.ROLLBACK and before is not None:
        # Hooks, who is told and where probes leave from are the environment's, as it was declared last: not as in the
        # days of what is gone back to, nor of what was gone back to before.
        last = head.run
        went_back = last is not None and last.kind is Kind.ROLLBACK and last.candidate == before.id
        left = last.settings if last is not None and went_back else before.settings
        asked = last.declared_health if last is not None and went_back else None
        # What somebody said of that one rollback holds for it alone.
        asked = asked or left.health
        health = replace(settings.health, probe_from=asked.probe_from, probe_command=asked.probe_command)
        settings = replace(settings, hooks=left.hooks, notify=left.notify, health=health)
    return Run(
        stable_health=before.settings.health if before is not None else None,
        id=f"{now:%Y%m%dT%H%M%S}-{ctx.nonce()[:6]}",
        kind=kind,
        candidate=release.id,
        slot=slot,
        group=group,
        stable=stable.release if stable else None,
        stable_group=stable.group if stable else None,
        capacity=capacity,
        settings=settings,
        by=f"{ctx.process.user}@{ctx.process.host}",
        started=now,
        stage=Stage.PREPARE,
        entered=now,
        steps=steps,
        scaling=None if scaling is None or scaling.fixed else scaling,
        owed=_is_owed(head.run, scaling),
        theirs=before is not None and before.adopted is not None and not before.adopted.own,
        stable_size=scaling.desired if scaling is not None else 0,
    )


def _is_owed(before: Run | None, scaling: Scaling | None) -> bool:
    """Whether what is to pass on is what the run before has, and could not bring to where it belongs."""
    if before is None or before.scaled or before.scaling is None or scaling is None:
        return False
    return scaling == replace(before.scaling, desired=scaling.desired)
