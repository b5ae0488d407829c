"""Whose turn it is: which hook a run asks when, what it is told, and what its answer means. Pure.

A hook has its turn once at each of its stages; at shift and bake once for each step.

- prepare: before anything is made. boot, verify, shift: when the stage has come to what it is for, before it is left.
  bake: from its beginning on, while health and gates are looked at as ever; it is not left without the answer.
- clean-up, done: beside the stage's own work, which waits for none of them; the run is over after the last.
- Where traffic goes back (a rollback, a run that failed or was given up), nothing is asked before it is there. What the
  stages until then owe has its turn in clean-up, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from osvdeploy.cloud.interfaces import HookAnswer, RouteState
from osvdeploy.rollout.hooks import Hook, HookFailure
from osvdeploy.rollout.model import CallHook, HookCall, Kind, Limits, Observation, Run, Stage, Step
from osvdeploy.sizes import format_duration

SCHEMA = 1
"""Of what a hook is told."""

_WAY = tuple(Stage)
_AT_ONCE = (Stage.PREPARE, Stage.BAKE)
"""Stages whose hooks are asked when they begin."""
_BY_STEP = (Stage.SHIFT, Stage.BAKE)


def heard(run: Run, seen: Observation, now: datetime) -> tuple[Run, str]:
    """The run once the hook that it asks has answered, and why the run fails for that ("" where it does not)."""
    call, there = run.calling, seen.hook
    if call is None or there is None or (there.event, there.attempt) != (call.event, call.attempt):
        return run, ""
    hook, answer = run.hook(call.hook), there.answer
    if answer is None and hook is not None and (now - call.since).total_seconds() >= hook.timeout:
        answer = HookAnswer(False, f"did not end within {format_duration(hook.timeout)}")
    if answer is None:
        return run, ""
    decides = not answer.passed and not _only_told(run, hook, call.stage)
    run = run.answered(answer, now, warned=not answer.passed and not decides)
    return run, f"hook {call.hook}: {answer.told}" if decides else ""


def with_hooks(run: Run, step: Step, seen: Observation, limits: Limits, now: datetime) -> Step:
    """What is done instead of a step where it is a hook's turn. ``run`` is the one that the step was decided for."""
    if not run.settings.hooks:
        return step
    leaving = step.run.stage is not run.stage
    stages = _at_turn(run, step.run)
    if not stages:
        return step
    holds = leaving or run.stage is Stage.PREPARE
    call = run.calling
    if (
        call is not None
        and seen.hook is not None
        and (seen.hook.event, seen.hook.attempt) == (call.event, call.attempt)
    ):
        return _waiting(run, call, limits, now) if holds else _beside(step, call)
    asked = run.paused is not None and not run.returning and run.stage in _BY_STEP
    if call is not None:
        # Whoever started it is gone.
        call = replace(call, attempt=call.attempt + 1, since=now)
    elif (found := _due(run, stages)) is None:
        return step
    elif asked:
        return Step(run, None, limits.bake_poll, run.awaits(now), for_person=True) if holds else step
    else:
        call = _call(run, *found, step.run, now)
    if not holds and step.action is not None:
        # Its own work first.
        return step
    calling = replace(run if holds else step.run, calling=call)
    return Step(calling, CallHook(call), limits.quick_poll, _told(run, call))


def _at_turn(run: Run, after: Run) -> tuple[Stage, ...]:
    """The stages whose hooks may be asked now, when the step leads to ``after``."""
    stage, leaving = run.stage, after.stage is not run.stage
    if run.returning or stage is Stage.CLEAN_UP:
        if after.stage is not Stage.DONE and (stage is not Stage.CLEAN_UP or leaving):
            return ()
        passed = [record.stage for record in run.stages if run.kind is Kind.ROLLBACK or record.stage is Stage.REVERT]
        owed = dict.fromkeys([*(passed if run.returning else ()), stage])
        return (*owed, Stage.DONE) if after.stage is Stage.DONE else tuple(owed)
    if after.going_back or (leaving and _WAY.index(after.stage) < _WAY.index(stage) and after.step == run.step):
        return ()
    return (stage,) if leaving or stage in _AT_ONCE else ()


def _due(run: Run, stages: Iterable[Stage]) -> tuple[Hook, Stage] | None:
    for stage in stages:
        for hook in run.settings.hooks:
            if stage in hook.on and not any(
                record.passed or record.warned
                for record in run.hooks
                if (record.hook, record.stage, record.step) == (hook.name, stage, _step(run, stage))
            ):
                return hook, stage
    return None


def _step(run: Run, stage: Stage) -> int:
    return run.step if stage in _BY_STEP else 0


def _call(run: Run, hook: Hook, stage: Stage, after: Run, now: datetime) -> HookCall:
    step = _step(run, stage)
    before = sum((each.hook, each.stage, each.step) == (hook.name, stage, step) for each in run.hooks)
    verdict = after.verdict if stage is Stage.DONE else run.verdict
    why = after.reason or run.reason or (run.stages[-1].why if run.stages else "")
    event = f"{run.id}/{stage}/{step}/{hook.name}/{before + 1}"
    return HookCall(hook.name, stage, step, event, 1, now, verdict, why)


def _only_told(run: Run, hook: Hook | None, stage: Stage) -> bool:
    """Whether a failure decides nothing."""
    told = hook is None or hook.on_failure is HookFailure.WARN
    return told or run.returning or stage in (Stage.CLEAN_UP, Stage.DONE)


def _waiting(run: Run, call: HookCall, limits: Limits, now: datetime) -> Step:
    took = (now - call.since).total_seconds()
    hook = run.hook(call.hook)
    left = max(hook.timeout - took, limits.quick_poll) if hook is not None else limits.poll
    wait = min(limits.poll, max(limits.quick_poll, took / 10), left)
    return Step(run, None, wait, _told(run, call))


def _beside(step: Step, call: HookCall) -> Step:
    """The stage goes on while its hook is asked; but nobody goes home."""
    waiting = f"{step.waiting_for}, and hook {call.hook}" if step.waiting_for else f"hook {call.hook}"
    return replace(step, for_person=False, waiting_for=waiting)


def _told(run: Run, call: HookCall) -> str:
    share = f" at {run.steps[call.step].weight} %" if call.stage in _BY_STEP else ""
    return f"hook {call.hook} ({call.stage}{share})"


def facts(
    run: Run, call: HookCall, *, service: str, ledger: str, preview_header: str, state: RouteState | None
) -> dict[str, Any]:
    """What a hook is told, as docs/hooks.md has it. ``state`` None: the route could not be looked at."""
    base = state.base_url if state is not None else None
    own = state.previews.get(run.slot) if state is not None and not state.weighted else None
    header = {"name": preview_header, "value": run.slot.value} if preview_header else None
    preview = None
    if own is not None or (base is not None and header is not None):
        preview = {"url": own or base, "header": header if own is None else None}
    kept = [each.source for each in run.evidence]
    return {
        "schema": SCHEMA,
        "event": call.event,
        "attempt": call.attempt,
        "hook": call.hook,
        "service": service,
        "environment": run.settings.environment,
        "run": run.id,
        "kind": run.kind.value,
        "stage": call.stage.value,
        "step": call.step,
        "steps": [step.weight for step in run.steps],
        "weight": run.moves[-1].weight if run.moves else 0,
        "candidate": run.candidate,
        "stable": run.stable,
        "slot": run.slot.value,
        "capacity": run.capacity,
        "base_url": base,
        "host": run.settings.host,
        "preview": preview,
        "outcome": call.outcome.value if call.outcome is not None else None,
        "why": call.why,
        "by": run.by,
        "evidence": {"ledger": ledger, "run": run.id, "kept": kept} if run.going_back else None,
    }
