"""Rollouts in trouble, on AWS and on Google: what befalls any of their calls, they end well (matrix.py)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.matrix import Scenario, befallen, deaths, played, sampled, survived, troubles
from tests.faults.scenarios import SCENARIOS, SITES

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

SHARES = {"aws": 0.2, "google": 0.1}
"""What one run tries of all pairs of call and trouble: on Google there are more, and each takes twice as long."""

DEATHS = 1 / 3
"""What one run tries of all deaths."""

ALL = os.environ.get("OSVDEPLOY_FAULTS_SHARE")
"""Another share, for both: `make soak` tries all."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_trouble_at_any_call_is_got_over(
    kind: str, scenario: Scenario, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Lost answers, hung and throttled calls, refusals, stale reads, and death right before or after a change: the same
    end, and no client noticed."""
    plot = played(SITES[kind](tmp_path), scenario)
    found = list(troubles(plot))
    tried = sampled(found, SHARES[kind] if ALL is None else float(ALL))
    dies = list(deaths(plot))
    died = sampled(dies, DEATHS if ALL is None else float(ALL))
    wrong = befallen(plot, tried) + survived(plot, died)
    changes = sum(mutating for _, _, mutating in plot.calls)
    record_property(
        "told",
        f"{scenario.name:24} {kind:6} {len(plot.calls):4} calls  {changes:3} changes  {len(found):4} troubles  "
        f"{len(tried):4} tried  {len(dies):3} deaths  {len(died):3} died",
    )
    assert not wrong, "\n".join([f"{len(wrong)} things are wrong:", *wrong[:20]])
