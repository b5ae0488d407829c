"""What weights a route may have, wherever it is."""

from __future__ import annotations

from collections.abc import Mapping

from osvdeploy.cloud.interfaces import Route, Slot
from osvdeploy.errors import Refused


def require(route: Route, weights: Mapping[Slot, int]) -> None:
    """Raise :class:`~osvdeploy.errors.Refused` unless there is one of 0 to 100 for each slot."""
    if set(weights) != set(Slot) or any(not 0 <= weight <= 100 for weight in weights.values()):
        raise Refused(
            f"{route.service}: weights are 0 to 100, one for each slot, not "
            + ", ".join(f"{slot} {weight}" for slot, weight in weights.items())
        )


def require_one(route: Route, weights: Mapping[Slot, int]) -> Slot:
    """The slot that has all of the traffic. Raises :class:`~osvdeploy.errors.Refused` where none has: for a pointer."""
    whole = [slot for slot, weight in weights.items() if weight == 100]
    if len(whole) != 1 or sum(weights.values()) != 100:
        raise Refused(
            f"{route.service}: {route.listener} has no weights: all traffic goes to one slot, not "
            + ", ".join(f"{slot} {weight}" for slot, weight in weights.items())
        )
    return whole[0]
