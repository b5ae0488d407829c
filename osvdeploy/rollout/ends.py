"""How commands on a rollout end, as values."""

from __future__ import annotations

from dataclasses import dataclass

from osvdeploy.context import Context
from osvdeploy.rollout.ledger import Head, HeldLedger
from osvdeploy.rollout.model import Kind, Outcome, Run, Stage


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a deploy or rollback ended, or that its run waits for a person. ``run`` is None when there was nothing to do;
    ``head`` is the ledger's last."""

    outcome: Outcome
    head: Head
    run: Run | None
    told: str

    @property
    def exit_code(self) -> int:
        return self.outcome.exit_code


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a request. ``done``: what was asked for. ``rollout`` is how the run ended, or what it waits for now,
    where this process went on with it; None where another one did, or is to."""

    head: Head
    run: Run
    done: bool
    told: str
    rollout: Rollout | None = None


def end_of(head: Head, run: Run) -> Rollout:
    """How a run that is over ended."""
    assert run.verdict is not None
    if run.verdict is Outcome.SUCCEEDED:
        told = f"{run.candidate} serves"
    elif run.stable_gone:
        told = f"traffic could not be brought back to {run.stable}: {run.reason}; {run.candidate} serves"
    elif run.verdict is Outcome.ROLLBACK_FAILED and run.stage is Stage.DONE and run.kind is Kind.ROLLBACK:
        told = f"{run.candidate} could not be brought back: {run.reason}; {run.stable} still serves"
    elif run.kind is Kind.ADOPT and run.verdict is Outcome.ROLLBACK_FAILED:
        told = f"traffic could not be given back: {run.reason}"
    elif run.kind is Kind.ADOPT:
        told = f"{run.group} was not adopted: {run.reason}; it has its traffic as before"
    elif run.verdict is Outcome.ROLLBACK_FAILED:
        told = f"traffic could not be brought back to {run.stable}: {run.reason}"
    else:
        what = run.candidate if run.kind is Kind.DEPLOY else f"the rollback to {run.candidate}"
        ended = f"{what} was aborted" if run.verdict is Outcome.ABORTED else f"{run.candidate} failed"
        # By the ledger, and not by the run: one that was ended where it stood does not know what serves.
        serving = f"; {head.stable.release} serves" if head.stable is not None else ""
        told = f"{ended}: {run.reason}{serving}"
    if run.scaling is not None and not run.scaled:
        what = "has not" if run.candidate_serves else "may not have"
        told += (
            f"; what serves {what} the scaling of before ({', '.join(run.scaling.parts)}), the next deploy brings it"
        )
    return Rollout(run.verdict, head, run, told)


def came_to(ctx: Context, held: HeldLedger, run: Run) -> Rollout:
    """What a run came to: its end, or what it waits for."""
    if run.over:
        return end_of(held.head, run)
    if awaited := run.awaits(ctx.now()):
        weights = ""
        if run.shifted:
            share = run.steps[run.step].weight
            weights = f"; {run.candidate} has {share} % of the traffic, and from here on nobody watches it"
        return Rollout(Outcome.WAITING, held.head, run, f"{run.candidate} waits: {awaited}{weights}")
    return Rollout(Outcome.BEGUN, held.head, run, f"the {run.kind} of {run.candidate} has begun")
