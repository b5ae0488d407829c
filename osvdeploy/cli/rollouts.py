"""What a rollout looks like: as text for people, as a document for programs (docs/json.md)."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from osvdeploy.rollout.model import Outcome
from osvdeploy.rollout.requests import ways_on

if TYPE_CHECKING:
    from osvdeploy.api import Calls
    from osvdeploy.cloud.interfaces import Sample, Scaling
    from osvdeploy.rollout.ends import Rollout
    from osvdeploy.rollout.model import GateRecord, Run
    from osvdeploy.rollout.releases import Release


def rollout_text(outcome: Rollout) -> str:
    from osvdeploy.cli.tables import folded, width

    run, told = outcome.run, outcome.told
    if sys.stdout.isatty():
        told = "\n".join(folded(line, 0, width()) for line in told.split("\n"))
    if run is None or outcome.exit_code == 0:
        return told
    lines = [told]
    if outcome.outcome is Outcome.WAITING:
        return f"{told}\n{ways_on(run, outcome.head.service)}"
    shown: set[tuple[str, ...]] = set()
    for evidence in run.evidence:
        excerpt = _excerpt(evidence.text)
        # Machines of one release tend to say the same; --json has every word of each.
        if evidence.text != "(empty)" and tuple(excerpt) not in shown:
            shown.add(tuple(excerpt))
            lines += [f"--- {evidence.source}", *(f"    {line}" for line in excerpt)]
    return "\n".join(lines)


def _excerpt(text: str, most: int = 12) -> list[str]:
    """The last lines of a text, those that repeat each other told once."""
    lines: list[list[Any]] = []
    for line in text.rstrip().splitlines():
        if lines and lines[-1][0] == line:
            lines[-1][1] += 1
        else:
            lines.append([line, 1])
    return [line if times == 1 else f"{line}  (x {times})" for line, times in lines[-most:]]


def rollout_document(outcome: Rollout) -> dict[str, Any]:
    return {
        "service": outcome.head.service,
        "outcome": outcome.outcome,
        "told": outcome.told,
        "serving": outcome.head.stable.release if outcome.head.stable else None,
        "run": run_document(outcome.run) if outcome.run is not None else None,
    }


def _gate_document(gate: GateRecord) -> dict[str, Any]:
    return {
        "gate": gate.gate,
        "passed": gate.passed,
        "at": gate.at,
        "seen": gate.seen,
        "verdict": gate.verdict,
        "dry_run": gate.dry_run,
        "samples": [_sample_document(sample) for sample in gate.samples],
        "stable": [_sample_document(sample) for sample in gate.stable],
    }


def _sample_document(sample: Sample) -> dict[str, Any]:
    return {"at": sample.at, "value": sample.value, "of": sample.of}


def run_document(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "kind": run.kind,
        "candidate": run.candidate,
        "slot": run.slot,
        "stable": run.stable,
        "stage": run.stage,
        "outcome": run.verdict if run.over else None,
        "reason": run.reason,
        "by": run.by,
        "strategy": run.settings.strategy.kind,
        "warm": run.warm,
        "capacity": run.capacity,
        "scaling": scaling_document(run.scaling),
        "scaled": run.scaled,
        "started": run.started,
        "ended": run.ended,
        "stages": [
            {"stage": each.stage, "entered": each.entered, "left": each.left, "why": each.why} for each in run.stages
        ],
        "gates": [_gate_document(each) for each in run.gates],
        "hooks": [
            {
                "hook": each.hook,
                "stage": each.stage,
                "step": each.step,
                "event": each.event,
                "attempt": each.attempt,
                "passed": each.passed,
                "warned": each.warned,
                "at": each.at,
                "told": each.told,
                "output": each.output,
            }
            for each in run.hooks
        ],
        "hook": None
        if run.calling is None
        else {"hook": run.calling.hook, "stage": run.calling.stage, "since": run.calling.since},
        "moves": [{"weight": each.weight, "at": each.at} for each in run.moves],
        "awaits": None if run.over else run.awaits(datetime.now(UTC)) or None,
        "steps": [{"weight": step.weight, "bake": step.bake, "approve": step.approve} for step in run.steps],
        "step": run.step,
        "approvals": [{"stage": each.stage, "step": each.step, "by": each.by, "at": each.at} for each in run.approvals],
        "requests": [
            {
                "request": each.request.kind,
                "by": each.request.by,
                "at": each.request.at,
                "why": each.request.why,
                "done": each.done,
                "told": each.told,
            }
            for each in run.heard
        ],
        "evidence": [{"source": each.source, "text": each.text} for each in run.evidence],
        "calls": [
            {
                "at": each.at,
                "service": each.service,
                "operation": each.operation,
                "milliseconds": each.milliseconds,
                "error": each.error,
            }
            for each in run.calls
        ],
    }


def release_document(release: Release) -> dict[str, Any]:
    return {
        "adopted": release.adopted.group if release.adopted is not None else None,
        "release": release.id,
        "version": release.version,
        "created": release.created,
        "by": release.by,
        "image": release.image,
        "configuration": release.configuration,
        "origin": release.origin,
    }


def scaling_document(scaling: Scaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    return {
        "minimum": scaling.minimum,
        "desired": scaling.desired,
        "maximum": scaling.maximum,
        "paused": scaling.paused,
        "by": list(scaling.parts),
    }


def calls_document(calls: Calls) -> dict[str, int]:
    return {"total": calls.total, "mutating": calls.mutating}


def amount(money: Decimal | None) -> str | None:
    """Money as text, exact: what is not known is None."""
    return None if money is None else f"{money.normalize():f}"
