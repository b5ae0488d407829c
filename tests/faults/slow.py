"""A cloud far away and in great demand: each call takes its time, some are throttled, changes are in force late."""

from __future__ import annotations

from collections.abc import Container

import pytest

from osvdeploy.context import VirtualClock
from osvdeploy.sandbox.faults import FaultKind, Faults
from osvdeploy.sandbox.google.compute import fronts
from osvdeploy.sandbox.services import elbv2
from osvdeploy.sandbox.wire import Call

LATENCY = 0.3
"""Seconds that each call takes."""

RATE, BURST = 4.0, 10.0
"""Calls a second that the account has, and how many may gather."""

OTHERS = 3.0
"""Calls a second of those that others in the account make: one client alone, at 0.3 s a call, is never throttled."""

PROPAGATION = 60.0
"""Seconds until a change of a rule is in force; the old ones serve until then."""


class FarAway(Faults):
    """Lets time pass at every call, and throttles what is beyond the account's rate with the service's own refusal."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self._left, self._at = BURST, clock.monotonic()
        self.throttled = 0

    def take(self, call: Call, kinds: Container[FaultKind] = frozenset(FaultKind)) -> FaultKind | None:
        struck = super().take(call, kinds)
        if FaultKind.THROTTLED not in kinds:
            return struck  # no call: what a group does by itself
        now = self._clock.monotonic()
        self._left = min(BURST, self._left + (now - self._at) * (RATE - OTHERS))
        self._at = now
        self._clock.advance(LATENCY)
        if struck is None and self._left < 1.0:
            self.throttled += 1
            return FaultKind.THROTTLED
        self._left -= 1.0
        return struck


def reach_late(patched: pytest.MonkeyPatch) -> None:
    """Let both sandboxes' balancers take a minute."""
    patched.setattr(elbv2, "RULES_REACH_DATA_PLANE", PROPAGATION)
    patched.setattr(fronts, "SPREADS", PROPAGATION)
