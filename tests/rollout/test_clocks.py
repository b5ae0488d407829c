"""Hosts whose clocks differ."""

from __future__ import annotations

from osvdeploy.rollout.machine import advance
from osvdeploy.rollout.model import Limits, Stage
from tests.rollout.made import after, answers, release, run, seen, targets

LIMITS = Limits()


def test_a_stage_that_was_entered_by_a_clock_ahead_begins_now() -> None:
    """A bake of a minute does not last for an hour because whoever began it is an hour ahead."""
    made = run(stage=Stage.BAKE, entered=after(3600), shifted=after(3600))
    now = after(0)
    here = seen(weights=made.weights(100), targets=targets(2), live=answers(release("2.0.0").id, 5))
    step = advance(made, here, LIMITS, now)
    assert step.run.stage is Stage.CLEAN_UP
