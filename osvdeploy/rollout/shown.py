"""A rollout under way as people are shown it. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from osvdeploy.cloud.interfaces import Slot
from osvdeploy.events import GateJudged, RolloutSeen, SlotSeen
from osvdeploy.rollout.model import Kind, Limits, Observation, Run, Stage
from osvdeploy.sizes import format_duration


def rollout_seen(run: Run, slots: tuple[SlotSeen, ...], limits: Limits, now: datetime) -> RolloutSeen:
    """Where a run stands, with its slots as they were seen."""
    gates = {gate.gate: GateJudged(gate.gate, gate.answer, gate.seen) for gate in run.gates}
    return RolloutSeen(
        run=run.id,
        what=f"{run.kind} of {run.candidate}",
        began=run.started,
        entered=run.entered,
        way=(*(record.stage.value for record in run.stages), run.stage.value),
        shares=tuple(step.weight for step in run.steps),
        share=run.step,
        slots=slots,
        gates=tuple(gates.values()),
        until=deadline(run, limits, now),
    )


def slots_seen(run: Run, seen: Observation) -> tuple[SlotSeen, ...]:
    """Both slots, as far as the stage has looked at them."""
    healthy = seen.healthy if seen.targets is not None else None
    weights = seen.weights or {}
    return tuple(
        SlotSeen(slot, run.candidate, weights.get(slot), healthy, run.capacity)
        if slot is run.slot
        else SlotSeen(slot, run.stable, weights.get(slot))
        for slot in Slot
    )


def deadline(run: Run, limits: Limits, now: datetime) -> datetime | None:
    """When a stage ends by itself (a bake), or is given up; None for neither: a person is asked, or it is overdue."""
    if run.awaits(now):
        return None
    hook = run.hook(run.calling.hook) if run.calling is not None else None
    told = run.calling.since + timedelta(seconds=hook.timeout) if run.calling is not None and hook is not None else None
    if run.stage is Stage.BAKE:
        ends = run.entered + timedelta(seconds=run.bake + run.unwatched)
        return ends if ends > now else told
    if told is not None:
        return told
    counted = limits.counted if run.settings.health.counted else 0.0
    most = {
        Stage.PREPARE: limits.prepare,
        Stage.BOOT: run.settings.health.boot_timeout,
        Stage.VERIFY: limits.verify + (limits.late if run.stable is None else limits.spread),
        Stage.SHIFT: limits.shift + counted,
        Stage.REVERT: limits.revert + counted,
        Stage.CLEAN_UP: limits.clean_up,
    }.get(run.stage)
    return None if most is None else (run.tally.since or run.entered) + timedelta(seconds=most)


def purpose(run: Run, now: datetime) -> str:
    """What a run's stage is there for, by the ledger alone: whoever works on it knows more closely."""
    if awaited := run.awaits(now):
        return awaited
    if run.calling is not None and (run.stage is not Stage.BAKE or run.baked_for(now) >= run.bake):
        return f"hook {run.calling.hook} ({run.calling.stage})"
    match run.stage:
        case Stage.PREPARE if run.kind is Kind.ADOPT:
            return f"{run.group} to stand in slot {run.slot}"
        case Stage.REVERT if run.kind is Kind.ADOPT:
            return "good answers from where traffic was"
        case Stage.PREPARE:
            return f"{run.capacity} machines of {run.candidate} to be started"
        case Stage.BOOT:
            return f"{run.capacity} machines of {run.candidate} to be healthy"
        case Stage.VERIFY:
            return f"{run.candidate} to answer in slot {run.slot}"
        case Stage.SHIFT:
            return f"answers to prove {run.steps[run.step].weight} % on slot {run.slot}"
        case Stage.BAKE:
            return f"the end of {format_duration(run.bake)} of baking"
        case Stage.REVERT:
            return f"answers to prove {run.stable} serves"
        case Stage.CLEAN_UP:
            return "what is left over to be gone"
        case Stage.DONE:
            return ""
